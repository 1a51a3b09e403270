"""Means, norms, softmax and the normalizations built from them.

All compute in the accumulator of x's type (f32 for f16 and bf16) and round once, at the end. Variances take
two passes: the mean of the squared distances to the mean, which does not cancel.
"""

from __future__ import annotations

from typing import Any, Literal

from irc import dims
from irc.diagnostics import fail
from irc.ir import Value
from irc.op import Float, Real, op, spelling
from irc.ops.functions import exp, log, sqrt
from irc.ops.named.activation import rsqrt, square
from irc.ops.named.common import (
    along,
    at_least,
    convert,
    fitted,
    must_equal,
    must_fit,
    number,
    widen,
)
from irc.ops.pointwise import abs_, add, div, equal, is_inf, maximum, mul, pow_, select, sub
from irc.ops.reduction import reduce_max, reduce_sum
from irc.ops.rules import normalize_axes, normalize_axis
from irc.ops.view import reshape
from irc.types import TensorType

INFINITY = float("inf")

# -- reductions ------------------------------------------------------------------------------------------------


@op
def reduce_mean(x: Real, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Arithmetic mean over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceMean-18 and GlobalAveragePool; torch.mean.
    Edge cases: the mean of an empty tensor is NaN; integers divide as `div` does.
    """
    wide = widen(x)
    count = dims.product(x.shape[axis] for axis in normalize_axes(axes, x.rank))
    total = reduce_sum(wide, axes=axes, keep_dims=keep_dims)
    return convert(div(total, number(count, wide.dtype)), x.dtype)


@op
def reduce_sum_square(x: Real, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Sum of the squares over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceSumSquare-18.
    """
    wide = widen(x)
    return convert(reduce_sum(mul(wide, wide), axes=axes, keep_dims=keep_dims), x.dtype)


@op
def reduce_l1(x: Real, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Sum of the absolute values over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceL1-18; torch.linalg.vector_norm with ord 1.
    """
    return convert(reduce_sum(abs_(widen(x)), axes=axes, keep_dims=keep_dims), x.dtype)


@op
def reduce_l2(x: Float, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Square root of the sum of the squares over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceL2-18; torch.linalg.vector_norm with ord 2.
    Edge cases: squares overflow where |x| exceeds the square root of the largest number.
    """
    wide = widen(x)
    return convert(sqrt(reduce_sum(mul(wide, wide), axes=axes, keep_dims=keep_dims)), x.dtype)


@op
def reduce_log_sum(x: Float, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Logarithm of the sum over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceLogSum-18.
    Edge cases: a sum of 0 gives -inf, a negative one NaN.
    """
    return convert(log(reduce_sum(widen(x), axes=axes, keep_dims=keep_dims)), x.dtype)


@op
def log_sum_exp(x: Float, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> Value:
    """Logarithm of the sum of the exponentials over axes.

    Shapes: x any. Result: the axes are left out, or 1 with keep_dims.
    Attributes: axes, may count from the end, none reduces nothing; keep_dims.
    Source: ONNX ReduceLogSumExp-18; torch.logsumexp.
    Edge cases: the largest element is taken out, so that nothing overflows; all -inf (or nothing) gives -inf, any inf
    gives inf.
    """
    wide = widen(x)
    largest = reduce_max(wide, axes=axes, keep_dims=True)
    shift = select(is_inf(largest), 0, largest)  # inf - inf would be NaN
    result = add(log(reduce_sum(exp(sub(wide, shift)), axes=axes, keep_dims=True)), shift)
    if not keep_dims:
        gone = normalize_axes(axes, x.rank)
        result = reshape(result, shape=tuple(d for axis, d in enumerate(x.shape) if axis not in gone))
    return convert(result, x.dtype)


@spelling(log_sum_exp)
def _(x, axes, keep_dims):
    wide = widen(x)
    return convert(log(reduce_sum(exp(wide), axes=axes, keep_dims=keep_dims)), x.dtype)


def _reduced(x: TensorType, *, axes: tuple[int, ...], keep_dims: bool) -> TensorType:
    gone = normalize_axes(axes, x.rank)
    kept = ((1 if axis in gone else size) for axis, size in enumerate(x.dims) if keep_dims or axis not in gone)
    return x.with_shape(kept)


for _definition in (reduce_mean, reduce_sum_square, reduce_l1, reduce_l2, reduce_log_sum, log_sum_exp):
    _definition.types(_reduced)

# -- softmax ---------------------------------------------------------------------------------------------------


@op
def softmax(x: Float, /, *, axis: int = -1) -> Value:
    """exp(x) over its sum along an axis.

    Shapes: x any of rank >= 1. Result: x's type.
    Attributes: axis, may count from the end. Before opset 13 ONNX normalizes over all axes from `axis`.
    Source: ONNX Softmax-13; torch.softmax.
    Edge cases: the largest element is taken out, so that nothing overflows; a row of -inf only, or with an inf or
    NaN, is NaN.
    """
    wide, over = widen(x), (normalize_axis(axis, x.rank),)
    grown = exp(sub(wide, reduce_max(wide, axes=over, keep_dims=True)))
    return convert(div(grown, reduce_sum(grown, axes=over, keep_dims=True)), x.dtype)


@spelling(softmax)
def _(x, axis):
    wide, over = widen(x), (normalize_axis(axis, x.rank),)
    grown = exp(wide)
    return convert(div(grown, reduce_sum(grown, axes=over, keep_dims=True)), x.dtype)


@spelling(softmax)
def _(x, axis):
    # The guarded maximum of JAX and Flax: max(-inf, ·) changes nothing.
    wide, over = widen(x), (normalize_axis(axis, x.rank),)
    largest = maximum(reduce_max(wide, axes=over, keep_dims=True), -INFINITY)
    grown = exp(sub(wide, largest))
    return convert(div(grown, reduce_sum(grown, axes=over, keep_dims=True)), x.dtype)


@op
def log_softmax(x: Float, /, *, axis: int = -1) -> Value:
    """Logarithm of softmax along an axis.

    Shapes: x any of rank >= 1. Result: x's type.
    Attributes: axis, may count from the end. Before opset 13 ONNX normalizes over all axes from `axis`.
    Source: ONNX LogSoftmax-13; torch.log_softmax.
    Edge cases: large differences give their true value, not -inf; rows are NaN where softmax's are.
    """
    wide, over = widen(x), (normalize_axis(axis, x.rank),)
    shifted = sub(wide, reduce_max(wide, axes=over, keep_dims=True))
    return convert(sub(shifted, log(reduce_sum(exp(shifted), axes=over, keep_dims=True))), x.dtype)


@spelling(log_softmax)
def _(x, axis):
    wide = widen(x)
    return convert(log(softmax(wide, axis=axis)), x.dtype)


def _along_axis(x: TensorType, *, axis: int, **attributes: Any) -> TensorType:
    normalize_axis(axis, x.rank)
    return x


softmax.types(_along_axis)
log_softmax.types(_along_axis)

# -- normalizations --------------------------------------------------------------------------------------------


def centered_and_variance(wide: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """The distances to the mean over `axes`, and the mean of their squares, which keeps its dims."""
    centered = sub(wide, reduce_mean(wide, axes=axes, keep_dims=True))
    return centered, reduce_mean(mul(centered, centered), axes=axes, keep_dims=True)


def normal(wide: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    """`wide` with mean 0 and variance 1 over `axes`."""
    centered, variance = centered_and_variance(wide, axes)
    return div(centered, sqrt(add(variance, epsilon)))


def moments_in_one_pass(wide: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """The distances to the mean, and Flax's variance max(0, E[x²] - E[x]²)."""
    mean = reduce_mean(wide, axes=axes, keep_dims=True)
    variance = sub(reduce_mean(square(wide), axes=axes, keep_dims=True), square(mean))
    return sub(wide, mean), maximum(variance, 0)


def scaled(value: Value, scale: Value | None, bias: Value | None) -> Value:
    """`value * scale + bias`, either of which may be absent, in the type of `value`."""
    if scale is not None:
        value = mul(value, convert(fitted(scale, value.shape), value.dtype))
    if bias is not None:
        value = add(value, convert(fitted(bias, value.shape), value.dtype))
    return value


def trailing(axis: int, rank: int) -> tuple[int, ...]:
    """The axes from `axis` on."""
    return tuple(range(normalize_axis(axis, rank), rank))


@op
def layer_norm(
    x: Float, scale: Float | None = None, bias: Float | None = None, /, *, axis: int = -1, epsilon: float = 1e-5
) -> Value:
    """Normalize to mean 0 and variance 1 over the trailing axes from `axis`, then scale and shift.

    Shapes: x any of rank >= 1; scale and bias broadcast to x. Result: x's type.
    Attributes: axis, the first that is normalized over; epsilon, added to the variance.
    Source: ONNX LayerNormalization-17; torch.nn.functional.layer_norm.
    Edge cases: scale and bias are applied before the one rounding (to x's type).
    """
    return convert(scaled(normal(widen(x), trailing(axis, x.rank), epsilon), scale, bias), x.dtype)


@spelling(layer_norm)
def _(x, scale=None, bias=None, *, axis, epsilon):
    centered, variance = moments_in_one_pass(widen(x), trailing(axis, x.rank))
    return convert(scaled(mul(centered, rsqrt(add(variance, epsilon))), scale, bias), x.dtype)


@spelling(layer_norm)
def _(x, scale=None, bias=None, *, axis, epsilon):
    # Flax folds the scale into the reciprocal of the deviation before it meets x.
    centered, variance = moments_in_one_pass(widen(x), trailing(axis, x.rank))
    factor = rsqrt(add(variance, epsilon))
    if scale is not None:
        factor = mul(factor, convert(fitted(scale, x.shape), factor.dtype))
    return convert(scaled(mul(centered, factor), None, bias), x.dtype)


@op
def rms_norm(x: Float, scale: Float | None = None, /, *, axis: int = -1, epsilon: float = 1e-5) -> Value:
    """Divide by the root of the mean square over the trailing axes from `axis`, then scale.

    Shapes: x any of rank >= 1; scale broadcasts to x. Result: x's type.
    Attributes: axis, the first that is normalized over; epsilon, added to the mean square.
    Source: ONNX RMSNormalization-23; torch.nn.functional.rms_norm.
    Edge cases: the scale is applied before the one rounding (to x's type).
    """
    wide = widen(x)
    power = reduce_mean(mul(wide, wide), axes=trailing(axis, x.rank), keep_dims=True)
    return convert(scaled(div(wide, sqrt(add(power, epsilon))), scale, None), x.dtype)


@spelling(rms_norm)
def _(x, scale=None, *, axis, epsilon):
    # As language models have it: rounded to x's type before the scale.
    wide = widen(x)
    power = reduce_mean(pow_(wide, 2), axes=trailing(axis, x.rank), keep_dims=True)
    rounded = convert(mul(wide, rsqrt(add(power, epsilon))), x.dtype)
    return scaled(rounded, scale, None)


def _trailing_norm(
    x: TensorType, scale: TensorType | None = None, bias: TensorType | None = None, *, axis: int, epsilon: float
) -> TensorType:
    normalize_axis(axis, x.rank)
    for name, operand in (("scale", scale), ("bias", bias)):
        if operand is not None:
            must_fit(name, operand, x)
    return x


layer_norm.types(_trailing_norm)
rms_norm.types(lambda x, scale=None, *, axis, epsilon: _trailing_norm(x, scale, axis=axis, epsilon=epsilon))


@op
def batch_norm(x: Float, scale: Float, bias: Float, mean: Float, variance: Float, /, *, epsilon: float = 1e-5) -> Value:
    """Normalize each channel by a given mean and variance, then scale and shift.

    Shapes: x [N, C, ...]; scale, bias, mean and variance [C]. Result: x's type.
    Attributes: epsilon, added to the variance.
    Source: ONNX BatchNormalization-15 with training_mode 0; torch.nn.functional.batch_norm with training False.
    """
    wide = widen(x)
    scale, bias, mean, variance = (convert(along(p, 1, x.shape), wide.dtype) for p in (scale, bias, mean, variance))
    return convert(scaled(div(sub(wide, mean), sqrt(add(variance, epsilon))), scale, bias), x.dtype)


@batch_norm.types
def _(
    x: TensorType, scale: TensorType, bias: TensorType, mean: TensorType, variance: TensorType, *, epsilon: float
) -> TensorType:
    at_least(x, 2, "a batch, a channel and further dims: [N, C, ...]")
    per_channel(x, {"scale": scale, "bias": bias, "mean": mean, "variance": variance})
    return x


@op
def instance_norm(
    x: Float, scale: Float | None = None, bias: Float | None = None, /, *, epsilon: float = 1e-5
) -> Value:
    """Normalize each channel of each example to mean 0 and variance 1, then scale and shift.

    Shapes: x [N, C, ...] with at least one dim after C; scale and bias [C]. Result: x's type.
    Attributes: epsilon, added to the variance.
    Source: ONNX InstanceNormalization-22; torch.nn.functional.instance_norm.
    """
    per_element = normal(widen(x), tuple(range(2, x.rank)), epsilon)
    scale, bias = (None if p is None else along(p, 1, x.shape) for p in (scale, bias))
    return convert(scaled(per_element, scale, bias), x.dtype)


@instance_norm.types
def _(x: TensorType, scale: TensorType | None = None, bias: TensorType | None = None, *, epsilon: float) -> TensorType:
    at_least(x, 3, "a batch, a channel and at least one further dim: [N, C, D, ...]")
    per_channel(x, {"scale": scale, "bias": bias})
    return x


@op
def group_norm(
    x: Float, scale: Float | None = None, bias: Float | None = None, /, *, groups: int, epsilon: float = 1e-5
) -> Value:
    """Normalize each group of channels of each example to mean 0 and variance 1, then scale and shift.

    Shapes: x [N, C, ...]; scale and bias [C]; groups divides C. Result: x's type.
    Attributes: groups, how many; epsilon, added to the variance.
    Source: ONNX GroupNormalization-21 (before it, scale and bias were [groups]); torch.nn.functional.group_norm.
    """
    batch, channels, *rest = x.shape
    grouped = reshape(widen(x), shape=(batch, groups, channels // groups, *rest))
    per_element = reshape(normal(grouped, tuple(range(2, grouped.rank)), epsilon), shape=x.shape)
    scale, bias = (None if p is None else along(p, 1, x.shape) for p in (scale, bias))
    return convert(scaled(per_element, scale, bias), x.dtype)


@spelling(group_norm)
def _(x, scale=None, bias=None, *, groups, epsilon):
    # As ONNX exporters write it: the group's elements as one axis.
    batch, channels, *rest = x.shape
    size = dims.product((channels // groups, *rest))
    grouped = reshape(widen(x), shape=(batch, groups, size))
    per_element = reshape(normal(grouped, (2,), epsilon), shape=x.shape)
    scale, bias = (None if p is None else along(p, 1, x.shape) for p in (scale, bias))
    return convert(scaled(per_element, scale, bias), x.dtype)


@group_norm.types
def _(
    x: TensorType, scale: TensorType | None = None, bias: TensorType | None = None, *, groups: int, epsilon: float
) -> TensorType:
    at_least(x, 2, "a batch, a channel and further dims: [N, C, ...]")
    if groups < 1:
        raise fail("type.attribute", f"groups is {groups}", expected="at least 1")
    if dims.equal(x.dims[1] % groups, 0) is not True:
        raise fail("type.shape", f"{groups} groups do not divide {x.dims[1]} channels")
    per_channel(x, {"scale": scale, "bias": bias})
    return x


def per_channel(x: TensorType, operands: dict[str, TensorType | None]) -> None:
    """Raise unless each operand is a vector with an entry for each channel (axis 1) of `x`."""
    for name, operand in operands.items():
        if operand is not None:
            if operand.rank != 1:
                raise fail("type.rank", f"{name} is {operand}", expected="one entry for each channel: [C]")
            must_equal(f"the size of {name}", operand.dims[0], x.dims[1])


@op
def lp_normalize(x: Float, /, *, axis: int = -1, p: Literal[1, 2] = 2, epsilon: float = 0.0) -> Value:
    """Divide by the p-norm along an axis.

    Shapes: x any of rank >= 1. Result: x's type.
    Attributes: axis, may count from the end; p, 1 or 2; epsilon, the least divisor (PyTorch has 1e-12).
    Source: ONNX LpNormalization-22; torch.nn.functional.normalize.
    Edge cases: with epsilon 0, a norm of 0 gives 0.
    """
    wide, over = widen(x), (normalize_axis(axis, x.rank),)
    norm = (reduce_l1 if p == 1 else reduce_l2)(wide, axes=over, keep_dims=True)
    if epsilon > 0:
        return convert(div(wide, maximum(norm, epsilon)), x.dtype)
    # A norm of numbers whose squares are 0 is 0, too.
    return convert(select(equal(norm, 0), 0, div(wide, norm)), x.dtype)


lp_normalize.types(_along_axis)
