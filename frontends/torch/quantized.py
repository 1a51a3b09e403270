"""Rows of quantization: of operators that take numbers to integers and back, and of those that only round to them.

Sources: ATen's fake quantization; torch.ao.quantization.fx._decomposed. PyTorch decomposes the operators of torchao.
"""

from __future__ import annotations

from typing import Any

from irc import ops
from irc.dtypes import F32, I64, DType
from irc.frontends.torch.reading import axis_of, converted, dtype_of, known, result_dtype, unsupported
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import reshaped
from irc.ir import Value


@reads("_int_mm")
def integer_product(self, mat2):
    return ops.matmul_integer(self, mat2)


@reads("_scaled_mm")
def scaled_product(self, mat2, scale_a, scale_b, bias=None, scale_result=None, out_dtype=None, use_fast_accum=False):
    """Floats of 8 bits by one scale for each operand, or for each row of the first and each column of the second. It is
    added up in f32 whatever `use_fast_accum` allows."""
    if scale_result is not None:
        unsupported("a scale of the result of _scaled_mm")
    result = ops.matmul(converted(self, F32), converted(mat2, F32))
    for scale, extents in ((scale_a, (self.shape[0], 1)), (scale_b, (1, mat2.shape[1]))):
        if scale.dtype is not F32:
            unsupported(f"scales of {scale.dtype} in _scaled_mm")
        if known(scale.type.elements, 1):
            scale = reshaped(scale, ())
        elif scale.rank != 2 or not all(map(known, scale.shape, extents)):
            unsupported("scales of blocks in _scaled_mm")
        result = ops.mul(result, scale)
    if bias is not None:
        result = ops.add(result, converted(bias, F32))
    return converted(result, self.dtype if out_dtype is None else dtype_of(out_dtype))


# -- rounding to what integers hold -----------------------------------------------------------------------------------


@reads("fake_quantize_per_tensor_affine_cachemask")
def fake_quantize(self, scale, zero_point, quant_min, quant_max):
    return rounded(self, converted(scale, F32), converted(zero_point, F32), quant_min, quant_max)


@reads("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def fake_quantize_by_tensors(self, scale, zero_point, fake_quant_enabled, quant_min, quant_max):
    """As it is, where the tensor `fake_quant_enabled` is 0."""
    scale, zero_point, enabled = (reshaped(each, ()) for each in (scale, zero_point, fake_quant_enabled))
    result, mask = rounded(self, converted(scale, F32), converted(zero_point, F32), quant_min, quant_max)
    is_on = ops.not_equal(converted(enabled, I64), 0)
    return ops.select(is_on, result, self), ops.bitwise_or(mask, ops.bitwise_not(is_on))


@reads("fake_quantize_per_channel_affine_cachemask")
def fake_quantize_channels(self, scale, zero_point, axis, quant_min, quant_max):
    scale, zero_point = (along(converted(each, F32), self, axis) for each in (scale, zero_point))
    return rounded(self, scale, zero_point, quant_min, quant_max)


def rounded(x: Value, scale: Value, zero_point: Value, least: int, most: int) -> tuple[Value, Value]:
    """What x is once it has been quantized, and where it did not leave the range. NaN is the least number."""
    wide = converted(x, F32)
    number = ops.add(ops.round_(ops.mul(wide, ops.div(1.0, scale))), zero_point)
    number = ops.select(ops.is_nan(number), -float("inf"), number)
    inside = ops.bitwise_and(ops.greater_equal(number, float(least)), ops.less_equal(number, float(most)))
    kept = ops.minimum(ops.maximum(number, float(least)), float(most))
    return converted(ops.mul(ops.sub(kept, zero_point), scale), x.dtype), inside


def along(x: Value, other: Value, axis: int) -> Value:
    """A vector as it broadcasts along an axis of another value."""
    place = axis_of(axis, other.rank)
    return ops.reshape(x, shape=(*(1,) * place, other.shape[place], *(1,) * (other.rank - place - 1)))


# -- to integers and back ---------------------------------------------------------------------------------------------


def quantized(x: Value, scale: Value, zero_point: Value | None, least: int, most: int, dtype: DType) -> Value:
    """clamp(round(x * (1 / scale)) + zero_point), in f32."""
    number = ops.round_(ops.mul(converted(x, F32), ops.div(1.0, converted(scale, F32))))
    number = number if zero_point is None else ops.add(number, converted(zero_point, F32))
    return converted(ops.minimum(ops.maximum(number, float(least)), float(most)), dtype)


def dequantized(x: Value, scale: Value, zero_point: Value | None, dtype: DType) -> Value:
    """(x - zero_point) * scale, in f32."""
    number = converted(x, F32)
    number = number if zero_point is None else ops.sub(number, converted(zero_point, F32))
    return converted(ops.mul(number, converted(scale, F32)), dtype)


@reads("quantized_decomposed::quantize_per_tensor", "quantized_decomposed::quantize_per_tensor.tensor",
       "quantized_decomposed::quantize_per_tensor.tensor2")  # fmt: skip
def quantize_tensor(input, scale, zero_point, quant_min, quant_max, dtype):
    least, most = bounds_of(quant_min, quant_max)
    return quantized(input, one(scale), one(zero_point), least, most, dtype_of(dtype))


@reads("quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_tensor.tensor",
       "quantized_decomposed::dequantize_per_tensor.tensor2")  # fmt: skip
def dequantize_tensor(input, scale, zero_point, quant_min, quant_max, dtype, *, out_dtype=None):
    return dequantized(input, one(scale), one(zero_point), result_dtype())


def one(x: Any) -> Value:
    """A number, or a tensor of one element, as a scalar."""
    return reshaped(x, ()) if isinstance(x, Value) else converted(x, F32)


def bounds_of(least: Any, most: Any) -> tuple[int, int]:
    if isinstance(least, Value) or isinstance(most, Value):
        unsupported("its range is known only when it runs")
    return least, most


@reads("quantized_decomposed::quantize_per_channel")
def quantize_channels(input, scales, zero_points, axis, quant_min, quant_max, dtype):
    scales, zero_points = (along(each, input, axis) for each in (scales, zero_points))
    return quantized(input, scales, zero_points, quant_min, quant_max, dtype_of(dtype))


@reads("quantized_decomposed::dequantize_per_channel")
def dequantize_channels(input, scales, zero_points, axis, quant_min, quant_max, dtype, *, out_dtype=None):
    scales = along(scales, input, axis)
    zero_points = None if zero_points is None else along(zero_points, input, axis)
    return dequantized(input, scales, zero_points, result_dtype())
