"""Between floats and the small integers (or 8-bit floats) that stand for them: x = (q - zero_point) * scale."""

from __future__ import annotations

from irc import dims
from irc.diagnostics import fail
from irc.dtypes import F32, F64, U8, DType, accumulator_of, limits
from irc.ir import Value
from irc.op import AnyTensor, Float, Real, op
from irc.ops.functions import round_
from irc.ops.named.common import convert
from irc.ops.pointwise import add, cast, div, equal, maximum, minimum, mul, neg, select, sub
from irc.ops.reduction import reduce_max, reduce_min
from irc.ops.rules import normalize_axis, same_dtype
from irc.ops.view import expand, reshape, slice_
from irc.types import TensorType


@op
def quantize(x: Real, scale: Float, zero_point: AnyTensor | None = None, /, *, axis: int = 1, to: DType) -> Value:
    """round(x / scale) + zero_point, limited to the range of `to`.

    Shapes: x any; scale and zero_point a scalar (or [1]), or a vector with an entry for each index of `axis`.
    Result: `to` in x's shape.
    Attributes: axis, may count from the end; to, an integer of at most 16 bits or a float of at most 8, and the type
    of zero_point.
    Source: ONNX QuantizeLinear-21 without blocks; torch.quantize_per_tensor, torch.quantize_per_channel.
    Edge cases: halves round to even; floats of 8 bits saturate; the quotient is computed in f32 (f64 for f64).
    """
    wide = convert(x, _computed_in(x.dtype))
    quotient = div(wide, convert(_placed(scale, axis, x), wide.dtype))
    if to.is_float:
        if zero_point is not None:
            quotient = add(quotient, convert(_placed(zero_point, axis, x), wide.dtype))
        return cast(quotient, to=to)
    nearest = round_(quotient)
    if zero_point is not None:
        nearest = add(nearest, convert(_placed(zero_point, axis, x), wide.dtype))
    smallest, largest = limits(to)
    return cast(minimum(maximum(nearest, smallest), largest), to=to)


@op
def dequantize(x: Real, scale: Float, zero_point: Real | None = None, /, *, axis: int = 1, block: int = 0) -> Value:
    """(x - zero_point) * scale.

    Shapes: x any; scale and zero_point a scalar (or [1]), or a vector with an entry for each index of `axis`. With
    `block`, x's shape but for `axis`, along which there is an entry for each block of x.
    Result: scale's element type in x's shape.
    Attributes: axis, may count from the end; block, how many elements along `axis` have one scale, 0 for no blocks.
    Source: ONNX DequantizeLinear-21; torch.dequantize.
    Edge cases: the difference is exact for up to 16 bits; it is computed, like the product, in f32 (f64 for f64).
    """
    wide = convert(x, accumulator_of(scale.dtype))
    if zero_point is not None:
        wide = sub(wide, convert(_placed(zero_point, axis, x, block), wide.dtype))
    return convert(mul(wide, convert(_placed(scale, axis, x, block), wide.dtype)), scale.dtype)


@op
def dynamic_quantize(x: Float, /) -> tuple[Value, Value, Value]:
    """x as u8 with the scale and zero point that its extremes require: (quantized, scale, zero_point).

    Shapes: x any. Results: u8 in x's shape, a scalar of x's type, u8[].
    Source: ONNX DynamicQuantizeLinear-11.
    Edge cases: the range always holds 0; where x is all zeros, or empty, the scale is 1, as in ONNX Runtime. Beside an
    infinity the scale is infinite; ONNX leaves the other results open (NaN is cast to u8), and they differ by target.
    """
    wide = convert(x, accumulator_of(x.dtype))
    every = tuple(range(x.rank))
    largest = maximum(reduce_max(wide, axes=every), 0)
    smallest = minimum(reduce_min(wide, axes=every), 0)
    span = sub(largest, smallest)
    scale = select(equal(span, 0), 1, div(span, 255))
    zero_point = cast(minimum(maximum(round_(div(neg(smallest), scale)), 0), 255), to=U8)
    return quantize(wide, scale, zero_point, axis=0, to=U8), convert(scale, x.dtype), zero_point


def _computed_in(dtype: DType) -> DType:
    return F64 if dtype is F64 else F32


def _placed(parameter: Value, axis: int, x: Value, block: int = 0) -> Value:
    """A scale or zero point so that it broadcasts to `x`."""
    if block:
        return _of_blocks(parameter, normalize_axis(axis, x.rank), x, block)
    if parameter.rank == 0:
        return parameter
    size = parameter.shape[0]
    if dims.equal(size, 1) is True:
        return reshape(parameter, shape=())
    place = normalize_axis(axis, x.rank)
    return reshape(parameter, shape=tuple(d if i == place else 1 for i, d in enumerate(x.shape)))


def _of_blocks(parameter: Value, place: int, x: Value, block: int) -> Value:
    """An entry for each element of x of one for each block; the last block may be shorter."""
    before, (blocks, *after) = parameter.shape[:place], parameter.shape[place:]
    apart = reshape(parameter, shape=(*before, blocks, 1, *after))
    whole = reshape(expand(apart, shape=(*before, blocks, block, *after)), shape=(*before, blocks * block, *after))
    return slice_(whole, starts=(0,) * x.rank, stops=x.shape, steps=(1,) * x.rank)


def _check_blocks(x: TensorType, scale: TensorType, zero_point: TensorType | None, axis: int, block: int) -> None:
    place = normalize_axis(axis, x.rank)
    if block < 0:
        raise fail("type.attribute", f"block is {block}", expected="how many elements have one scale, or 0")
    required = tuple(dims.ceil_divide(extent, block) if position == place else extent
                     for position, extent in enumerate(x.dims))  # fmt: skip
    for name, operand in (("scale", scale), ("zero_point", zero_point)):
        if operand is None:
            continue
        pairs = zip(operand.dims, required, strict=False)
        if operand.rank != x.rank or any(dims.equal(extent, other) is False for extent, other in pairs):
            expected = f"[{', '.join(map(str, required))}], an entry for each block"
            raise fail("type.shape", f"{name} is {operand}", expected=expected)


def _check_parameters(x: TensorType, scale: TensorType, zero_point: TensorType | None, axis: int) -> None:
    for name, operand in (("scale", scale), ("zero_point", zero_point)):
        if operand is None or operand.rank == 0:
            continue
        if operand.rank > 1:
            raise fail(
                "type.rank",
                f"{name} is {operand}",
                expected="a scalar, or a vector along `axis`",
                help="state `block` where there is an entry for each block, which dequantize has alone",
            )
        if dims.equal(operand.dims[0], 1) is not True:
            extent = x.dims[normalize_axis(axis, x.rank)]
            if dims.equal(operand.dims[0], extent) is False:
                raise fail("type.shape", f"{name} is {operand}", expected=f"{extent} entries, those of axis {axis}")


@quantize.types
def _(x: TensorType, scale: TensorType, zero_point: TensorType | None = None, *, axis: int, to: DType) -> TensorType:
    small = (to.is_integer and to.bits <= 16) or (to.is_float and to.bits <= 8)
    if not small:
        raise fail("type.attribute", f"to is {to}", expected="an integer of at most 16 bits or a float of at most 8")
    if zero_point is not None and zero_point.dtype is not to:
        raise fail("type.dtype", f"zero_point is {zero_point}", expected=str(to))
    _check_parameters(x, scale, zero_point, axis)
    return x.with_dtype(to)


@dequantize.types
def _(x: TensorType, scale: TensorType, zero_point: TensorType | None = None, *, axis: int, block: int) -> TensorType:
    if zero_point is not None:
        same_dtype(x, zero_point)
    if block:
        _check_blocks(x, scale, zero_point, axis, block)
    else:
        _check_parameters(x, scale, zero_point, axis)
    return x.with_dtype(scale.dtype)


@dynamic_quantize.types
def _(x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
    return x.with_dtype(U8), TensorType(x.dtype, ()), TensorType(U8, ())
