"""Rows of resampling and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from irc import ops
from irc.dtypes import I64, accumulator_of
from irc.frontends.torch.indexing import added_along
from irc.frontends.torch.reading import converted, extents, unsupported
from irc.frontends.torch.table import reads
from irc.ir import Value
from irc.op import const
from irc.weights import Tensor


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


# -- antialiased ------------------------------------------------------------------------------------------------------


@reads("_upsample_bilinear2d_aa")
def upsample_linear_antialiased(self, output_size, align_corners, scales_h=None, scales_w=None):
    return filtered(self, output_size, align_corners, (scales_h, scales_w), 1)


@reads("_upsample_bicubic2d_aa")
def upsample_cubic_antialiased(self, output_size, align_corners, scales_h=None, scales_w=None):
    return filtered(self, output_size, align_corners, (scales_h, scales_w), 2)


@reads("_upsample_bilinear2d_aa_backward")
def upsample_linear_antialiased_backward(grad_output, output_size, input_size, align_corners, scales_h=None,
                                         scales_w=None):
    return spread(grad_output, input_size, align_corners, (scales_h, scales_w), 1)


@reads("_upsample_bicubic2d_aa_backward")
def upsample_cubic_antialiased_backward(grad_output, output_size, input_size, align_corners, scales_h=None,
                                        scales_w=None):
    return spread(grad_output, input_size, align_corners, (scales_h, scales_w), 2)


def filtered(x: Value, sizes: Sequence[Any], align_corners: bool, factors: Sequence[float | None], reach: int) -> Value:
    """Each element a weighted sum of those around its place, along one axis after another, the last first."""
    if not x.dtype.is_float:
        unsupported(f"it is of {x.dtype}")
    result = converted(x, accumulator_of(x.dtype))
    for axis, size, factor in reversed([*zip((2, 3), extents(sizes), factors, strict=True)]):
        places, weights = taps(x.shape[axis], size, align_corners, factor, reach, result, axis)
        elements = ops.gather(result, places, axis=axis, bounds="promised")
        terms = ops.select(ops.equal(weights, 0.0), 0.0, ops.mul(elements, weights))
        result = ops.reduce_sum(terms, axes=(axis + 1,))
    return converted(result, x.dtype)


def spread(grad: Value, sizes: Sequence[Any], align_corners: bool, factors: Sequence[float | None],
           reach: int) -> Value:
    """The gradient of `filtered`: each element adds to those that it was a sum of."""
    result = converted(grad, accumulator_of(grad.dtype))
    for axis, size, factor in zip((2, 3), extents(sizes[2:]), factors, strict=True):
        places, weights = taps(size, grad.shape[axis], align_corners, factor, reach, result, axis)
        column = ops.reshape(result, shape=(*result.shape[: axis + 1], 1, *result.shape[axis + 1 :]))
        result = added_along(ops.mul(column, weights), places, axis, size)
    return converted(result, grad.dtype)


def taps(before: Any, after: Any, align_corners: bool, factor: float | None, reach: int, like: Value,
         axis: int) -> tuple[Value, Value]:
    """Of an axis the places that each new element is a sum over, i64[after, K], and their weights, which broadcast.

    The filter, a triangle or Keys's cubic with -1/2, reaches over `reach` elements on either side, of the coarser of
    the two axes. Source: ATen's HelperInterpBase::_compute_index_ranges_weights.
    """
    if not isinstance(before, int) or not isinstance(after, int):
        unsupported("its sizes are known only when it runs")
    if align_corners:
        scale = (before - 1) / (after - 1) if after > 1 else 0.0
    else:
        scale = 1 / factor if factor else before / after
    coarse = max(scale, 1.0)
    center = scale * (np.arange(after) + 0.5)
    first = np.maximum((center - reach * coarse + 0.5).astype(np.int64), 0)
    end = np.minimum((center + reach * coarse + 0.5).astype(np.int64), before)
    places = first[:, None] + np.arange(math.ceil(reach * coarse) * 2 + 1)
    distance = np.abs(places - center[:, None] + 0.5) / coarse
    weights = np.where(places < end[:, None], triangle(distance) if reach == 1 else cubic(distance), 0.0)
    weights /= weights.sum(1, keepdims=True)
    shape = (*weights.shape, *(1,) * (like.rank - axis - 1))
    return (const(value=Tensor.of(np.minimum(places, before - 1), I64)),
            const(value=Tensor.of(weights.reshape(shape), like.dtype)))


def triangle(x: Any) -> Any:
    return np.maximum(1 - x, 0)


def cubic(x: Any) -> Any:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
