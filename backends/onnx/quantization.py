"""Rows of the operations between floats and quantized numbers."""

from __future__ import annotations

from irc import dims
from irc.backends.onnx.graph import Graph
from irc.backends.onnx.row import Operand, Row, both, emits, on, same
from irc.backends.onnx.runtime import runs
from irc.backends.onnx.target import Target
from irc.dtypes import F16, F32, DType
from irc.ir import Operation, Value

SAME: list[Row] = [same("dynamic_quantize", "DynamicQuantizeLinear")]
FLOATS = (F32, F16)


def has_plain_parameters(operation: Operation, target: Target) -> bool:
    """Scale and zero point are of one shape, as ONNX wants it."""
    scale, zero_point = operation.operands[1], (*operation.operands, None, None)[2]
    return scale is not None and scale.dtype in FLOATS and (
        zero_point is None or (zero_point.rank == scale.rank
                               and all(dims.equal(a, b) is True for a, b in zip(zero_point.shape, scale.shape, strict=True))))  # fmt: skip


def quantizes(operation: Operation, target: Target) -> bool:
    x, scale = operation.inputs[:2]
    return x.dtype is scale.dtype and runs("QuantizeLinear", operation.attributes["to"])


@emits("quantize", when=both(quantizes, has_plain_parameters))
def quantize(g: Graph, x: Value, scale: Value, zero_point: Value | None = None, *, axis: int, to: DType) -> Operand:
    """Without a zero point the type of the result is an attribute."""
    output_type = to.onnx if zero_point is None else None
    return g.node("QuantizeLinear", x, scale, zero_point, axis=placed(axis, x, scale), output_dtype=output_type)


def has_zero_point(operation: Operation, target: Target) -> bool:
    """Without one it is a product, and is left to be one: ONNX Runtime reads DequantizeLinear before MatMul as leave
    to quantize the other operand as well (MatMulNBits, accuracy level 4), which cost minilm 1.5e-2."""
    return len(operation.inputs) == 3


@emits("dequantize", when=both(on("DequantizeLinear"), has_plain_parameters, has_zero_point))
def dequantize(g: Graph, x: Value, scale: Value, zero_point: Value, *, axis: int) -> Operand:
    return g.node("DequantizeLinear", x, scale, zero_point, axis=placed(axis, x, scale))


def placed(axis: int, x: Value, scale: Value) -> int | None:
    """The axis, where there is one: a single scale has none, and x perhaps not so many."""
    return None if scale.rank == 0 or axis % x.rank == 1 else axis
