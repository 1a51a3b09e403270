"""Dequantize: integer weights that are cast to floats and multiplied by their scale."""

from __future__ import annotations

from irc.ir import Operation, Value
from irc.op import Builder, is_constant
from irc.ops import dequantize, reshape


def dequantized(root: Operation) -> Value | None:
    """cast(weight) * scale, both constant -> dequantize(weight, scale): the weight stays small, the result exact.

    Returns what replaces the root's result, built before the root; None for any other root.
    """
    if root.name != "mul" or root.result.dtype.name not in ("f32", "f64"):
        return None
    for widened, scale in (root.inputs, root.inputs[::-1]):
        cast = widened.operation
        if cast is None or cast.name != "cast" or not is_constant(scale) or widened.type != root.result.type:
            continue
        (weight,) = cast.inputs
        if not is_constant(weight) or not weight.dtype.is_integer or weight.dtype.bits > 16:
            continue
        shape = (1,) * (weight.rank - scale.rank) + scale.shape
        large = [axis for axis, size in enumerate(shape) if size != 1]
        if len(large) > 1 or (large and shape[large[0]] != weight.shape[large[0]]):
            continue
        with Builder.before_operation(root, root.location.by("raise(dequantize)")):
            flat = tuple(shape[axis] for axis in large)
            vector = scale if scale.shape == flat else reshape(scale, shape=flat)
            result: Value = dequantize(weight, vector, axis=large[0] if large else 0)
        return result
    return None
