"""Rows of the operations between floats and quantized numbers."""

from __future__ import annotations

from collections.abc import Sequence

from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import both, emits, on
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal
from irc.dtypes import BF16, F16, F32, U8, DType
from irc.ir import Operation, Value


def has_plain_parameters(operation: Operation, target: Target) -> bool:
    """Scale and zero point are of one shape, as ONNX wants it."""
    scale, zero_point = (*operation.operands, None)[1:3]
    assert scale is not None
    if zero_point is None:
        return True
    single = all(equal(parameter.type.elements, 1) for parameter in (scale, zero_point))
    return single or (zero_point.rank == scale.rank and all(map(equal, zero_point.shape, scale.shape)))


def quantizes(operation: Operation, target: Target) -> bool:
    x, scale = operation.inputs[:2]
    can = target.runs("QuantizeLinear", operation.attributes["to"])
    return can and x.dtype is scale.dtype and x.dtype in (F32, F16) and target.allows("QuantizeLinear", x.dtype)


def dequantizes(operation: Operation, target: Target) -> bool:
    x, scale = operation.inputs[:2]
    return scale.dtype in (F32, F16, BF16) and target.carrier("DequantizeLinear", x.dtype) is not None


@emits("quantize", when=both(quantizes, has_plain_parameters))
def quantize(g: Graph, x: Value, scale: Value, zero_point: Value | None = None, *, axis: int, to: DType) -> Operand:
    """Without a zero point the type of the result is an attribute, which came with opset 21, as did types of other than
    8 bits; for these a zero point of zeros says it, or nothing: u8 is the default."""
    output_type = to.onnx if zero_point is None and to.bits != 8 else None
    zeros: Operand = zero_point
    if zero_point is None and to.bits == 8 and to is not U8:
        zeros = g.node("Expand", g.numbers(0, to), g.shape(scale.shape)) if scale.rank else g.numbers(0, to)
    return g.node("QuantizeLinear", x, scale, zeros, axis=placed(axis, x, scale), output_dtype=output_type)


def has_zero_point(operation: Operation, target: Target) -> bool:
    """Without one it is a product, and is left to be one: ONNX Runtime reads DequantizeLinear before MatMul as leave
    to quantize the other operand as well (MatMulNBits, accuracy level 4), which cost minilm 1.5e-2."""
    return len(operation.inputs) == 3


@emits("dequantize", when=both(dequantizes, has_plain_parameters, has_zero_point))
def dequantize(g: Graph, x: Value, scale: Value, zero_point: Value, *, axis: int, block: int) -> Operand:
    """In wider types where the runtime lacks one: the product is computed in f32 and rounded once in any case."""
    wide = scale.dtype if scale.dtype is not BF16 and g.target.allows("DequantizeLinear", scale.dtype, 1) else F32
    small = g.carrier("DequantizeLinear", x.dtype)
    operands = [g.cast(x, x.dtype, small), g.cast(scale, scale.dtype, wide), g.cast(zero_point, x.dtype, small)]
    return g.cast(g.node("DequantizeLinear", *operands, axis=placed(axis, x, scale), block_size=block or None), wide,
                  scale.dtype)  # fmt: skip


def placed(axis: int, x: Value, scale: Value) -> int | None:
    """The axis, where there is one: a single scale has none, and x perhaps not so many."""
    return None if scale.rank == 0 or axis % x.rank == 1 else axis


@emits("dynamic_quantize", when=on("DynamicQuantizeLinear"))
def dynamic_quantize(g: Graph, x: Value) -> Sequence[Operand]:
    quantized: list[Operand] = g.node("DynamicQuantizeLinear", x, outputs=3)
    return quantized
