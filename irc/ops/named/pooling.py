"""Pooling over windows of the spatial axes of [N, C, ...].

Attributes of windows have one entry for each spatial axis. `low` and `high` are the padding on either side.
A frontend writes a ceil_mode as a larger `high`: as many further elements as the last window needs, if that
window begins within x or `low`.
"""

from __future__ import annotations

import math
from typing import Any

from irc.dims import Dim
from irc.ir import Value
from irc.op import Float, Real, literal, op
from irc.ops.named.common import at_least, convert, widen
from irc.ops.named.normalization import reduce_mean
from irc.ops.pointwise import div
from irc.ops.products import window_reduce
from irc.ops.reduction import reduce_max
from irc.ops.rules import check_lengths, check_not_negative, check_positive, window_extent
from irc.ops.view import expand
from irc.types import TensorType


@op
def max_pool(
    x: Real,
    /,
    *,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    dilations: tuple[int, ...],
) -> Value:
    """The largest element of each window.

    Shapes: x [N, C, *S] -> [N, C, *O], O the number of windows along each axis.
    Attributes: kernel, the window's size; strides between windows; low and high padding; dilations within a window.
    Source: ONNX MaxPool-22 without indices; torch.nn.functional.max_pool1d, 2d, 3d.
    Edge cases: padding is -inf (the least integer) and never the maximum; NaN is propagated.
    """
    return _windows(x, "max", kernel, strides, low, high, dilations)


@op
def average_pool(
    x: Float,
    /,
    *,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    dilations: tuple[int, ...],
    count_include_pad: bool = False,
) -> Value:
    """The mean of each window.

    Shapes: x [N, C, *S] -> [N, C, *O], O the number of windows along each axis.
    Attributes: kernel, the window's size; strides between windows; low and high padding; dilations within a window;
    count_include_pad: padding counts as zeros, or else not at all.
    Source: ONNX AveragePool-22; torch.nn.functional.avg_pool1d, 2d, 3d (count_include_pad True there by default).
    Edge cases: with count_include_pad, what ceil_mode adds would count too: pad x with zeros first, and give only
    the addition as `high`, uncounted.
    """
    wide = widen(x)
    total = _windows(wide, "sum", kernel, strides, low, high, dilations)
    if count_include_pad or all(amount == 0 for amount in (*low, *high)):
        return convert(div(total, math.prod(kernel)), x.dtype)
    ones = expand(literal(1.0, wide.dtype), shape=(1, 1, *x.shape[2:]))
    counted = _windows(ones, "sum", kernel, strides, low, high, dilations)
    return convert(div(total, counted), x.dtype)


def _windows(
    x: Value,
    kind: str,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    dilations: tuple[int, ...],
) -> Value:
    return window_reduce(
        x,
        kind=kind,
        window=(1, 1, *kernel),
        strides=(1, 1, *strides),
        dilations=(1, 1, *dilations),
        low=(0, 0, *low),
        high=(0, 0, *high),
    )


def _pooled(
    x: TensorType,
    *,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    dilations: tuple[int, ...],
    **attributes: Any,
) -> TensorType:
    at_least(x, 3, "a batch, a channel and at least one spatial dim: [N, C, D, ...]")
    check_lengths(x.rank - 2, kernel=kernel, strides=strides, low=low, high=high, dilations=dilations)
    check_positive(kernel=kernel, strides=strides, dilations=dilations)
    check_not_negative(low=low, high=high)
    windows = zip(x.dims[2:], kernel, strides, dilations, low, high, range(2, x.rank), strict=True)
    return x.with_shape((*x.dims[:2], *(window_extent(*window) for window in windows)))


max_pool.types(_pooled)
average_pool.types(_pooled)


@op
def global_average_pool(x: Float, /) -> Value:
    """The mean over all spatial axes.

    Shapes: x [N, C, *S] -> [N, C, 1, ...].
    Source: ONNX GlobalAveragePool-22; torch.nn.functional.adaptive_avg_pool2d to 1.
    """
    return reduce_mean(x, axes=tuple(range(2, x.rank)), keep_dims=True)


@op
def global_max_pool(x: Real, /) -> Value:
    """The largest element over all spatial axes.

    Shapes: x [N, C, *S] -> [N, C, 1, ...].
    Source: ONNX GlobalMaxPool-22; torch.nn.functional.adaptive_max_pool2d to 1.
    """
    return reduce_max(x, axes=tuple(range(2, x.rank)), keep_dims=True)


def _global(x: TensorType) -> TensorType:
    at_least(x, 3, "a batch, a channel and at least one spatial dim: [N, C, D, ...]")
    return x.with_shape((*x.dims[:2], *(1 for _ in x.dims[2:])))


global_average_pool.types(_global)
global_max_pool.types(_global)
