"""Rows of the operators between floats and quantized integers."""

from __future__ import annotations

from math import prod

import numpy as np

from irc import dims, ops
from irc.dtypes import F32, U8, from_onnx
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
    if output_dtype and from_onnx(output_dtype) is not scale.dtype:
        carry("it dequantizes to another type than the scale's")
    if zero_point is None and scale.type.is_static:
        # Said aloud: a dequantize without one is what a product with a scale was raised to, and is emitted as such.
        shape = scale.type.static_shape()
        check_limit("literals", prod(shape), "the zero points that are not stated would take {}")
        zero_point = const(value=Tensor.of(np.zeros(shape, x.dtype.numpy)))
    return ops.dequantize(x, scale, zero_point, axis=axis, block=block_size)


@reads("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Value, /):
    return ops.dynamic_quantize(x)


@reads("MatMulInteger")
def matmul_integer(a: Value, b: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None, /):
    return ops.matmul_integer(a, b, a_zero_point, b_zero_point)


@reads("QLinearMatMul")
def q_linear_mat_mul(a: Value, a_scale: Value, a_zero_point: Value, b: Value, b_scale: Value, b_zero_point: Value,
                     y_scale: Value, y_zero_point: Value, /):
    """The product of integers in the scale of the result; scales are scalars, or vectors of rows of a and columns of
    b."""
    if any(point.rank > 1 for point in (a_scale, a_zero_point, b_scale, b_zero_point, y_scale, y_zero_point)):
        carry("its scales are those of several matrices")
    if single(y_scale).rank or single(y_zero_point).rank:
        carry("rows of its result have scales of their own")
    sums = ops.cast(ops.matmul_integer(a, b, single(a_zero_point), single(b_zero_point)), to=F32)
    of_rows = single(a_scale)
    if of_rows.rank:
        of_rows = ops.reshape(of_rows, shape=(*of_rows.shape, 1))
    scale = ops.mul(ops.cast(of_rows, to=F32), ops.cast(single(b_scale), to=F32))
    product = ops.mul(sums, ops.div(scale, ops.cast(single(y_scale), to=F32)))
    one = const(value=Tensor.of(np.float32(1.0)))
    return ops.quantize(product, one, single(y_zero_point), axis=-1, to=y_zero_point.dtype)


def single(parameter: Value) -> Value:
    """A parameter of one element as a scalar."""
    is_single = parameter.rank == 1 and dims.equal(parameter.shape[0], 1) is True
    return ops.reshape(parameter, shape=()) if is_single else parameter
