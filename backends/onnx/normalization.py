"""Rows of softmax and the normalizations. ONNX needs their scale and bias, which irc leaves optional."""

from __future__ import annotations

from collections.abc import Sequence

from irc import dims
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import Row, both, emits, on, same, since
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal
from irc.dims import Dim
from irc.dtypes import F64
from irc.ir import Operation, Value
from irc.ops.rules import normalize_axis

SAME: list[Row] = [
    same("softmax", "Softmax", "axis"),
    same("log_softmax", "LogSoftmax", "axis", when=lambda operation, target: not (
        target.keeps_edges and operation.inputs[0].dtype is F64)),  # for which it ignores NaN
    same("batch_norm", "BatchNormalization", "epsilon"),
]


def filled(g: Graph, number: float, shape: Sequence[Dim], like: Value) -> str:
    """A constant for a scale or bias that is absent."""
    return g.filled(number, [dim for dim in shape if isinstance(dim, int)], like.dtype, "filled")


def same_types(operation: Operation, target: Target) -> bool:
    first, *others = operation.inputs
    return all(other.dtype is first.dtype for other in others)


# -- over trailing axes ------------------------------------------------------------------------------------------


def has_trailing_parameters(operation: Operation, target: Target) -> bool:
    """Scale and bias have just the extents that are normalized over; where the scale is absent these are known."""
    x = operation.inputs[0]
    trailing = x.shape[normalize_axis(operation.attributes["axis"], x.rank) :]
    scale, *others = [*operation.operands[1:], None]
    if scale is None and not all(isinstance(dim, int) for dim in trailing):
        return False
    present = [parameter for parameter in (scale, *others) if parameter is not None]
    return all(each.rank == len(trailing) and all(map(equal, each.shape, trailing)) for each in present)


@emits("layer_norm", when=both(on("LayerNormalization"), same_types, has_trailing_parameters))
def layer_norm(
    g: Graph, x: Value, scale: Value | None = None, bias: Value | None = None, *, axis: int, epsilon: float
) -> Operand:
    weight = scale or filled(g, 1.0, x.shape[normalize_axis(axis, x.rank) :], x)
    return g.node("LayerNormalization", x, weight, bias, axis=axis, epsilon=epsilon)


@emits("rms_norm", opset=23, when=both(since(23), on("RMSNormalization"), same_types, has_trailing_parameters))
def rms_norm(g: Graph, x: Value, scale: Value | None = None, *, axis: int, epsilon: float) -> Operand:
    weight = scale or filled(g, 1.0, x.shape[normalize_axis(axis, x.rank) :], x)
    return g.node("RMSNormalization", x, weight, axis=axis, epsilon=epsilon)


# -- over channels -----------------------------------------------------------------------------------------------


def has_channel_parameters(operation: Operation, target: Target) -> bool:
    """Absent ones are made up, if the number of channels is known."""
    is_whole = len(operation.inputs) == 3
    return is_whole or isinstance(operation.inputs[0].shape[1], int)


@emits("instance_norm", when=both(on("InstanceNormalization"), same_types, has_channel_parameters))
def instance_norm(
    g: Graph, x: Value, scale: Value | None = None, bias: Value | None = None, *, epsilon: float
) -> Operand:
    weight, shift = scale or filled(g, 1.0, x.shape[1:2], x), bias or filled(g, 0.0, x.shape[1:2], x)
    return g.node("InstanceNormalization", x, weight, shift, epsilon=epsilon)


def has_elements(operation: Operation, target: Target) -> bool:
    """ONNX Runtime expands GroupNormalization with a Reshape that fails where there are none."""
    return not target.keeps_edges or dims.less(0, operation.inputs[0].type.elements) is True


@emits("group_norm", when=both(on("GroupNormalization"), same_types, has_channel_parameters, has_elements))
def group_norm(
    g: Graph, x: Value, scale: Value | None = None, bias: Value | None = None, *, groups: int, epsilon: float
) -> Operand:
    weight, shift = scale or filled(g, 1.0, x.shape[1:2], x), bias or filled(g, 0.0, x.shape[1:2], x)
    return g.node("GroupNormalization", x, weight, shift, num_groups=groups, epsilon=epsilon)


def without_epsilon(operation: Operation, target: Target) -> bool:
    return operation.attributes["epsilon"] == 0


@emits("lp_normalize", when=both(on("LpNormalization"), without_epsilon))
def lp_normalize(g: Graph, x: Value, *, axis: int, p: int, epsilon: float) -> Operand:
    return g.node("LpNormalization", x, axis=axis, p=p)
