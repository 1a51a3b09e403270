"""What the bodies of several named operations share: widths to compute in, axes, sizes as numbers.

Bodies compute in the accumulator of their operand's type and round once, at the end, as PyTorch and ONNX
Runtime do. Where the operand is already that wide no cast appears.
"""

from __future__ import annotations

from typing import Any

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import DType, accumulator_of
from irc.ir import Value
from irc.op import const
from irc.ops.control import dim
from irc.ops.numerics import narrow
from irc.ops.pointwise import cast
from irc.ops.view import expand, reshape, slice_
from irc.types import TensorType
from irc.weights import Tensor


def convert(x: Value, dtype: DType) -> Value:
    """`x` as `dtype`: itself where it has that type."""
    return x if x.dtype is dtype else cast(x, to=dtype)


def widen(x: Value) -> Value:
    """`x` in the type in which sums of it are kept: f16 and bf16 as f32, other types as they are."""
    return convert(x, accumulator_of(x.dtype))


def number(size: Dim, dtype: DType) -> Value:
    """A size as a scalar: a constant where it is static, otherwise taken from the shapes at run time.

    Integers that are too narrow for it keep its low bits, as they do of the sums that such sizes divide.
    """
    if isinstance(size, int):
        value: Value = const(value=Tensor.of(narrow(size, dtype.numpy), dtype))
        return value
    return convert(dim(value=size), dtype)


def at_least(x: TensorType, rank: int, what: str) -> None:
    """Raise `type.rank` where `x` has fewer dims than `what` (in words) needs."""
    if x.rank < rank:
        raise fail("type.rank", f"x is {x}", expected=what)


def along(x: Value, axis: int, shape: tuple[Dim, ...]) -> Value:
    """A vector as an operand that broadcasts along `axis` of a value of this shape, which it has an entry for."""
    return reshape(x, shape=tuple(size if position == axis else 1 for position, size in enumerate(shape)))


def fitted(x: Value, shape: tuple[Dim, ...]) -> Value:
    """`x` so that it broadcasts to `shape` and never enlarges it: where that is not known, an `expand` checks it."""
    whole = shape[len(shape) - x.rank :]
    if all(dims.broadcast(part, size) == size for part, size in zip(x.shape, whole, strict=True)):
        return x
    return expand(x, shape=whole)


def must_equal(name: str, actual: Dim, expected: Dim) -> None:
    """Raise `type.shape` where two dims are known to differ."""
    if dims.equal(actual, expected) is False:
        raise fail("type.shape", f"{name} is {actual}", expected=str(expected))


def must_fit(name: str, operand: TensorType, x: TensorType) -> None:
    """Raise `type.broadcast` unless `operand` broadcasts to the shape of `x` without enlarging it."""
    fits = operand.rank <= x.rank and all(
        dims.equal(part, 1) is not False or dims.equal(part, whole) is not False
        for part, whole in zip(reversed(operand.dims), reversed(x.dims), strict=False)
    )
    if not fits:
        raise fail("type.broadcast", f"{name} {operand} does not broadcast to x {x}")


def same_type(x: TensorType, *others: TensorType | None, **attributes: Any) -> TensorType:
    """The type rule of operations whose result has the type of their first operand."""
    return x


def pair_parts(pairs: Value) -> tuple[Value, Value]:
    """The two elements of the last axis, of extent 2, each without the axis: parts of complex numbers."""
    *lead, _ = pairs.shape
    steps = (1,) * pairs.rank
    one, other = (
        reshape(slice_(pairs, starts=(*(0 for _ in lead), place), stops=(*lead, place + 1), steps=steps),
                shape=tuple(lead)) for place in (0, 1))  # fmt: skip
    return one, other
