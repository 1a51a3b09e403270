"""Rows of resampling and its gradients."""

from __future__ import annotations

from typing import Any

from irc import ops
from irc.frontends.torch.reading import extents, unsupported
from irc.frontends.torch.table import reads
from irc.ir import Value


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
