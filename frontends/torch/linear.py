"""Rows of matrix products, attention, convolutions, pooling and resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import BOOL, I64
from irc.frontends.torch.indexing import broadcast_shape, expanded, valid
from irc.frontends.torch.reading import (
    axis_of,
    converted,
    extents,
    known,
    result_dtype,
    together,
    unsupported,
    unused,
)
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut, reshaped
from irc.ir import Value
from irc.op import literal


@reads("mm", "bmm", "matmul")
def matmul(self, mat2):
    return ops.matmul(self, mat2)


@reads("addmm")
def addmm(self, mat1, mat2, *, beta=1, alpha=1):
    if self.dtype.is_integer or not beta:
        return blended(self, ops.matmul(mat1, mat2), beta, alpha)
    if alpha == beta == 1 and self.rank == 1 and known(self.shape[0], mat2.shape[1]):
        return ops.linear(mat1, mat2, self)
    return ops.gemm(mat1, mat2, self, alpha=float(alpha), beta=float(beta))


@reads("baddbmm", "addmv")
def product_added(self, batch1, batch2, *, beta=1, alpha=1):
    return blended(self, ops.matmul(batch1, batch2), beta, alpha)


@reads("addbmm")
def products_added(self, batch1, batch2, *, beta=1, alpha=1):
    return blended(self, ops.reduce_sum(ops.matmul(batch1, batch2), axes=(0,)), beta, alpha)


def blended(x: Value, product: Value, beta: Any, alpha: Any) -> Value:
    """beta * x + alpha * product, of integers in integers; without x, NaNs of it too, where beta is 0."""
    number = int if x.dtype.is_integer else float
    product = product if alpha == 1 else ops.mul(product, literal(number(alpha), x.dtype))
    if not beta:
        return product
    return ops.add(product, x if beta == 1 else ops.mul(x, literal(number(beta), x.dtype)))


@reads("addr")
def outer_product_added(self, vec1, vec2, *, beta=1, alpha=1):
    """beta * self + (alpha * vec1) * vec2, in this order."""
    dtype = result_dtype()
    shape = (vec1.shape[0], vec2.shape[0])
    column = ops.reshape(vec1, shape=(shape[0], 1))
    if dtype is BOOL:
        product = ops.bitwise_and(column, vec2) if alpha else ops.expand(literal(False, BOOL), shape=shape)
        return ops.bitwise_or(self, product) if beta else product
    first, product = (converted(each, dtype) for each in (column, vec2))
    product = ops.mul(first if alpha == 1 else together(ops.mul, first, alpha, dtype=dtype), product)
    if not beta:
        return product
    return ops.add(together(ops.mul, self, beta, dtype=dtype) if beta != 1 else converted(self, dtype), product)


@reads("linear")
def linear(input, weight, bias=None):
    """x @ weight.T + bias, over the last axis."""
    weight = ops.transpose(weight, permutation=tuple(reversed(range(weight.rank))))
    if bias is not None and bias.dtype.is_float and bias.rank == 1 and weight.rank == 2:
        return ops.linear(input, weight, bias)
    product = ops.matmul(input, weight)
    return product if bias is None else ops.add(product, bias)


@reads("dot", "mv", "vdot")
def vector_product(self, other):
    return ops.matmul(self, other)


@reads("scaled_dot_product_attention")
def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
                                 enable_gqa=False):
    """Over the last two axes; those before them, the last of which are the heads, broadcast. With `enable_gqa` several
    heads of the query share one of the keys and values."""
    if dropout_p:
        unsupported("its dropout is random")
    operands, lead = [query, key, value], query.shape[:-2]
    grouped = enable_gqa and not known(query.shape[-3], key.shape[-3])
    if query.rank != 4 or not all(same_lead(query, other, grouped) for other in operands):
        fronts = [x.shape[: -3 if grouped else -2] for x in operands]
        rank = max(map(len, fronts))
        common = broadcast_shape([(1,) * (rank - len(front)) + front for front in fronts])
        leads = [(*common, x.shape[-3]) if grouped else common for x in operands]
        lead = leads[0]
        if attn_mask is not None and len(lead) > 2:
            attn_mask = in_four(attn_mask, lead)
        operands = [in_four(x, lead_shape) for x, lead_shape in zip(operands, leads, strict=True)]
    result = ops.attention(*operands, attn_mask, scale=scale, causal=is_causal, masked_rows="zero")
    return reshaped(result, (*lead, *result.shape[-2:]))


def same_lead(x: Value, other: Value, grouped: bool) -> bool:
    """Whether two operands of attention have the same axes in front, but for the heads where those are grouped."""
    ends = -3 if grouped else -2
    return x.rank == other.rank and all(map(known, x.shape[:ends], other.shape[:ends]))


def in_four(x: Value, lead: Sequence[Dim]) -> Value:
    """x, its last two axes after these, as a batch of heads."""
    batch, heads = dims.product(lead[:-1]), lead[-1] if lead else 1
    return reshaped(expanded(x, (*lead, *x.shape[-2:])), (batch, heads, *x.shape[-2:]))


# -- windows ----------------------------------------------------------------------------------------------------------


def per_axis(given: Sequence[Any], count: int, default: Any) -> tuple[Any, ...]:
    """One entry for each spatial axis: ATen writes one for all, or none for the default."""
    listed = tuple(given) or (default,)
    return listed * count if len(listed) == 1 else listed


@reads("convolution", "_convolution")
def convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *others):
    rank = weight.rank - 2
    batched = input.rank == weight.rank
    x = input if batched else ops.reshape(input, shape=(1, *input.shape))
    pads = extents(per_axis(padding, rank, 0))
    options: dict[str, Any] = {"strides": per_axis(stride, rank, 1), "dilations": per_axis(dilation, rank, 1),
                               "low": pads, "high": pads, "groups": groups}
    if transposed:
        result = ops.conv_transpose(x, weight, bias, output_padding=per_axis(output_padding, rank, 0), **options)
    else:
        result = ops.conv(x, weight, bias, **options)
    return result if batched else ops.reshape(result, shape=result.shape[1:])


def spatial(x: Value, count: int) -> tuple[Value, tuple[Dim, ...]]:
    """x with a batch axis, and what stands before its channels."""
    if x.rank == count + 2:
        return x, x.shape[:1]
    return ops.reshape(x, shape=(1, *x.shape)), ()


def pooled(definition: Any, x: Value, count: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool,
           **attributes: Any) -> Value:
    batched, lead = spatial(x, count)
    window = per_axis(kernel, count, 1)
    steps = per_axis(stride, count, 1) if stride else window
    spread = per_axis(dilation, count, 1)
    low = extents(per_axis(padding, count, 0))
    high = rounded_up(batched.shape[2:], window, steps, spread, low) if ceil else low
    if definition is ops.average_pool and attributes.get("count_include_pad") and high != low:
        # What the padding adds counts, what rounding up adds does not: so the padding becomes elements.
        batched = ops.pad(batched, low=(0, 0, *low), high=(0, 0, *low))
        high = tuple(dims.maximum(more - least, 0) for more, least in zip(high, low, strict=True))
        low, attributes = (0,) * count, {"count_include_pad": False}
    result = definition(batched, kernel=window, strides=steps, dilations=spread, low=low, high=high, **attributes)
    return result if lead else ops.reshape(result, shape=result.shape[1:])


def rounded_up(sizes: Sequence[Dim], window: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
               low: Sequence[Dim]) -> tuple[Dim, ...]:
    """`high` for ceil_mode: one more window where one is begun, if it begins within x or the padding before it."""
    result = []
    for size, width, stride, dilation, before in zip(sizes, window, strides, dilations, low, strict=True):
        reach = dilation * (width - 1) + 1
        more = dims.minimum(dims.ceil_divide(size + 2 * before - reach, stride),
                            dims.floor_divide(size + before - 1, stride))
        result.append(dims.maximum(more * stride + reach - size - before, 0))
    return tuple(result)


@reads("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool1d", "max_pool3d")
def max_pool(self, kernel_size, stride=(), padding=(0,), dilation=(1,), ceil_mode=False):
    if not unused(1):
        unsupported("its indices are read")
    return pooled(ops.max_pool, self, len(kernel_size), kernel_size, stride, padding, dilation, ceil_mode), None


@reads("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(self, kernel_size, stride=(), padding=(0,), ceil_mode=False, count_include_pad=True,
                 divisor_override=None):
    if divisor_override is not None:
        if ceil_mode:
            unsupported("its divisor is given, and windows may reach beyond the padding")
        mean = pooled(ops.average_pool, self, len(kernel_size), kernel_size, stride, padding, (1,), False,
                      count_include_pad=True)
        return ops.mul(mean, math.prod(kernel_size) / divisor_override)
    return pooled(ops.average_pool, self, len(kernel_size), kernel_size, stride, padding, (1,), ceil_mode,
                  count_include_pad=count_include_pad)


@reads("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_average_pool(self, output_size):
    count = len(output_size)
    batched, lead = spatial(self, count)
    if all(size == 1 for size in output_size):
        result = ops.global_average_pool(batched)
    else:
        steps = [dims.exact_divide(size, target) if isinstance(target, int) and target else None
                 for size, target in zip(batched.shape[2:], output_size, strict=True)]
        if all(isinstance(step, int) for step in steps):
            none = (0,) * count
            result = ops.average_pool(batched, kernel=tuple(steps), strides=tuple(steps), dilations=(1,) * count,
                                      low=none, high=none)
        else:
            result = over_adaptive_windows(ops.reduce_mean, batched, output_size)
    return result if lead else ops.reshape(result, shape=result.shape[1:])


@reads("adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(self, output_size):
    if not unused(1):
        unsupported("its indices are read")
    batched, lead = spatial(self, len(output_size))
    result = over_adaptive_windows(ops.reduce_max, batched, output_size)
    return (result if lead else ops.reshape(result, shape=result.shape[1:])), None


def over_adaptive_windows(reduce: Any, x: Value, output_size: Sequence[Any]) -> Value:
    """One axis after another: element i of n is over those from floor(i * size / n) to ceil((i + 1) * size / n)."""
    for axis, (size, target) in enumerate(zip(x.shape[2:], output_size, strict=True), 2):
        if not isinstance(size, int) or not isinstance(target, int):
            unsupported("an extent is not known, and its windows may differ in size")
        if target == size:
            continue
        ends = [(index * size // target, -(-(index + 1) * size // target)) for index in range(target)]
        parts = [reduce(cut(x, axis, first, last), axes=(axis,), keep_dims=True) for first, last in ends]
        if not parts:
            unsupported("its result is empty")
        x = ops.concat(*parts, axis=axis)
    return x


@reads("_cdist_forward")
def distances(x1, x2, p, compute_mode):
    """Between each row of the one and each row of the other."""
    apart = ops.abs_(ops.sub(ops.reshape(x1, shape=(*x1.shape[:-1], 1, x1.shape[-1])),
                             ops.reshape(x2, shape=(*x2.shape[:-2], 1, *x2.shape[-2:]))))  # fmt: skip
    axes = (apart.rank - 1,)
    if p == math.inf:
        # ATen ignores NaN here; the result for empty rows is 0.
        return ops.maximum(ops.reduce_max(ops.select(ops.is_nan(apart), 0.0, apart), axes=axes), 0.0)
    if p == 0:
        return ops.reduce_sum(ops.minimum(ops.ceil(apart), 1.0), axes=axes)
    if p == 2:
        return ops.sqrt(ops.reduce_sum(ops.mul(apart, apart), axes=axes))
    return ops.pow_(ops.reduce_sum(ops.pow_(apart, p), axes=axes), 1 / p)


@reads("_trilinear")
def trilinear(i1, i2, i3, expand1, expand2, expand3, sumdim, unroll_dim=1):
    """The sum over some axes of a product of three, each of which gets axes of size 1 where the others have theirs."""
    expanded = []
    for value, new in ((i1, expand1), (i2, expand2), (i3, expand3)):
        for axis in sorted(new):
            value = ops.reshape(value, shape=(*value.shape[:axis], 1, *value.shape[axis:]))
        expanded.append(value)
    return ops.reduce_sum(ops.mul(ops.mul(expanded[0], expanded[1]), expanded[2]), axes=tuple(sumdim))


# -- resampling -------------------------------------------------------------------------------------------------------


@reads("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def upsample_nearest(input, output_size, scale_factors):
    return resampled(input, output_size, scale_factors, mode="nearest", coordinates="asymmetric", nearest="floor")


@reads("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def upsample_linear(input, output_size, align_corners, scale_factors):
    where = "align_corners" if align_corners else "half_pixel"
    return resampled(input, output_size, scale_factors, mode="linear", coordinates=where)


@reads("upsample_bicubic2d.vec")
def upsample_cubic(input, output_size, align_corners, scale_factors):
    where = "align_corners" if align_corners else "half_pixel"
    return resampled(input, output_size, scale_factors, mode="cubic", coordinates=where)


def resampled(x: Value, sizes: Any, factors: Any, **options: Any) -> Value:
    """By sizes, or by factors, which then also say where in x an element lies."""
    if sizes is not None:
        return ops.resize(x, sizes=(*x.shape[:2], *extents(sizes)), **options)
    if not all(isinstance(factor, float) for factor in factors):
        unsupported("its factors are known only when it runs")
    return ops.resize(x, scales=(1.0, 1.0, *factors), **options)


@reads("grid_sampler_2d", "grid_sampler_3d")
def grid_sample(input, grid, interpolation_mode, padding_mode, align_corners):
    mode, padding = ("linear", "nearest", "cubic")[interpolation_mode], ("zeros", "border", "reflection")[padding_mode]
    if grid.rank == 5:
        grid = in_space(grid, padding)
    return ops.grid_sample(input, grid, mode=mode, padding=padding, align_corners=align_corners)


def in_space(grid: Value, padding: str) -> Value:
    """Positions in three dimensions, of which ATen has another kernel: a coordinate that is NaN lies outside, or is the
    last element where padding clamps it, and an infinite one too, except with a border."""
    lost = ops.is_nan(grid)
    if padding != "border":
        lost = ops.bitwise_or(lost, ops.is_inf(grid))
    return ops.select(lost, 3.0 if padding == "zeros" else 1.0, grid)


@reads("glu")
def gated(self, dim=-1):
    axis = axis_of(dim, self.rank)
    half = dims.floor_divide(self.shape[axis], 2)
    x, gate = ops.split(self, axis=axis, sizes=(half, half))
    return ops.mul(x, ops.sigmoid(gate))


@reads("one_hot")
def one_hot(self, num_classes=-1):
    if num_classes == -1:
        unsupported("the number of classes is known only when it runs")
    values = ops.concat(*(ops.reshape(literal(each, I64), shape=(1,)) for each in (0, 1)), axis=0)
    return ops.one_hot(valid(self, num_classes), values, depth=num_classes)
