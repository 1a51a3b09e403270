"""Rows of the operators between floats and quantized integers."""

from __future__ import annotations

from math import prod

import numpy as np

from irc import ops
from irc.dtypes import U8, from_onnx
from irc.frontends.onnx.reading import carry
from irc.frontends.onnx.table import reads
from irc.ir import Value
from irc.limits import check_limit
from irc.op import const
from irc.weights import Tensor


@reads("QuantizeLinear")
def quantize_linear(x: Value, scale: Value, zero_point: Value | None = None, /, *, axis: int = 1, saturate: int = 1,
                    block_size: int = 0, output_dtype: int = 0, precision: int = 0):
    to = zero_point.dtype if zero_point is not None else from_onnx(output_dtype) if output_dtype else U8
    if block_size or precision or not saturate:
        carry("it quantizes in blocks, in a precision of its own or without saturation")
    return ops.quantize(x, scale, zero_point, axis=axis, to=to)


@reads("DequantizeLinear")
def dequantize_linear(x: Value, scale: Value, zero_point: Value | None = None, /, *, axis: int = 1, block_size: int = 0,
                      output_dtype: int = 0):
    if block_size or (output_dtype and from_onnx(output_dtype) is not scale.dtype):
        carry("it dequantizes in blocks, or to another type than the scale's")
    if zero_point is None and scale.type.is_static:
        # Said aloud: a dequantize without one is what a product with a scale was raised to, and is emitted as such.
        shape = scale.type.static_shape()
        check_limit("literals", prod(shape), "the zero points that are not stated would take {}")
        zero_point = const(value=Tensor.of(np.zeros(shape, x.dtype.numpy)))
    return ops.dequantize(x, scale, zero_point, axis=axis)


@reads("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Value, /):
    return ops.dynamic_quantize(x)


@reads("MatMulInteger")
def matmul_integer(a: Value, b: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None, /):
    return ops.matmul_integer(a, b, a_zero_point, b_zero_point)
