"""Rows of the activations."""

from __future__ import annotations

import math

from irc.backends.onnx.edges import guards_nan
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import Row, both, emits, on, same, since
from irc.backends.onnx.target import Target
from irc.dtypes import F32, I64
from irc.ir import Operation, Value


def gelu() -> Row:
    """Gelu, and before opset 20 the operator of ONNX Runtime's own for the exact one, which it makes of the nodes that
    exporters write in these opsets."""
    row = same("gelu", "Gelu", "approximate")

    def takes(operation: Operation, target: Target) -> bool:
        is_exact = operation.attributes["approximate"] == "none"
        is_own = target.name == "cpu" and is_exact and operation.inputs[0].dtype is F32
        return is_own or row.takes(operation, target)

    def emit(g: Graph, x: Value, *, approximate: str) -> Operand:
        if g.target.runs("Gelu", x.dtype) or g.target.name != "cpu":
            return row.emit(g, x, approximate=approximate)
        return g.node("Gelu", x, domain="com.microsoft")

    return Row(row.name, emit, takes, row.opset)


SAME: list[Row] = [
    same("relu", "Relu"),
    same("leaky_relu", "LeakyRelu", "alpha"),
    same("prelu", "PRelu"),
    same("thresholded_relu", "ThresholdedRelu", "alpha"),
    same("elu", "Elu", "alpha"),
    same("selu", "Selu", "alpha", "gamma"),
    same("celu", "Celu", "alpha"),
    same("sigmoid", "Sigmoid"),
    same("hard_sigmoid", "HardSigmoid", "alpha", "beta"),
    same("hard_swish", "HardSwish", when=lambda operation, target: (
        operation.attributes["division"] == "first" or not target.keeps_edges)),
    same("softplus", "Softplus"),
    same("softsign", "Softsign"),
    same("mish", "Mish"),
    gelu(),
    same("reciprocal", "Reciprocal"),
]


def has_scalar_bounds(operation: Operation, target: Target) -> bool:
    """ONNX limits all elements alike; of i64 by its Min and Max, which see."""
    if target.keeps_edges and operation.inputs[0].dtype is I64:
        return False
    return all(bound is None or bound.rank == 0 for bound in operation.operands[1:])


@emits("clip", when=both(on("Clip"), has_scalar_bounds))
def clip(g: Graph, x: Value, low: Value | None = None, high: Value | None = None) -> Operand:
    """An absent bound of ONNX's Clip is the type's largest finite number; here it is no bound: an infinity stays
    one."""
    if x.dtype.is_integer:
        return g.node("Clip", x, low, high)
    if guards_nan(g, *(bound for bound in (low, high) if bound is not None)):  # one that is NaN does not limit either
        limited = x if low is None else g.node("Max", x, low)
        return limited if high is None else g.node("Min", limited, high)
    least = g.numbers(-math.inf, x.dtype) if low is None else low
    return g.node("Clip", x, least, g.numbers(math.inf, x.dtype) if high is None else high)


def has_gated_sigmoid(operation: Operation, target: Target) -> bool:
    """QuickGelu on the processor, fused there; else Swish."""
    on_processor = target.name == "cpu" and target.runs("QuickGelu", operation.inputs[0].dtype)
    allowed = since(24)(operation, target) and "Swish" not in target.without
    return on_processor or (allowed and target.runs("Swish", operation.inputs[0].dtype))


@emits("silu", opset=24, when=has_gated_sigmoid)
def silu(g: Graph, x: Value) -> Operand:
    return gated_sigmoid(g, x, 1.0)


@emits("quick_gelu", opset=24, when=has_gated_sigmoid)
def quick_gelu(g: Graph, x: Value, *, alpha: float) -> Operand:
    return gated_sigmoid(g, x, alpha)


def gated_sigmoid(g: Graph, x: Value, alpha: float) -> Operand:
    """x * sigmoid(alpha * x)."""
    if g.target.name == "cpu":
        return g.node("QuickGelu", x, domain="com.microsoft", alpha=alpha)
    return g.node("Swish", x, alpha=alpha)
