"""Rows of convolutions and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc import dims, ops
from irc.dims import Dim
from irc.frontends.torch.reading import extents
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut
from irc.ir import Value


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


@reads("convolution_backward")
def convolution_backward(grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding,
                         groups, output_mask):
    """The gradients of the input, the weight and the bias, those that `output_mask` requests."""
    rank = weight.rank - 2
    pads = extents(per_axis(padding, rank, 0))
    options: dict[str, Any] = {"strides": per_axis(stride, rank, 1), "dilations": per_axis(dilation, rank, 1),
                               "low": pads}
    of_input = of_weight = of_bias = None
    if output_mask[0] and transposed:
        whole = ops.conv(grad_output, weight, None, high=pads, groups=groups, **options)
        of_input = shortened(whole, input.shape[2:])  # output padding may add windows
    elif output_mask[0]:
        of_input = spread_windows(grad_output, weight, input.shape[2:], groups=groups, **options)
    if output_mask[1]:
        pair = (grad_output, input) if transposed else (input, grad_output)
        of_weight = weight_gradient(*pair, weight.shape[2:], groups=groups, **options)
    if output_mask[2]:
        of_bias = ops.reduce_sum(grad_output, axes=(0, *range(2, grad_output.rank)))
    return of_input, of_weight, of_bias


def spread_windows(x: Value, weight: Value, sizes: Sequence[Dim], *, strides: Sequence[int], dilations: Sequence[int],
                   low: Sequence[Dim], groups: int) -> Value:
    """The gradient of a convolution, or of a sum over windows, with respect to what had these sizes."""
    reach = [stride * (count - 1) + dilation * (width - 1) + 1 - before for stride, dilation, count, width, before
             in zip(strides, dilations, x.shape[2:], weight.shape[2:], low, strict=True)]
    high = tuple(dims.maximum(end - size, 0) for end, size in zip(reach, sizes, strict=True))
    more = tuple(dims.maximum(size - end, 0) for end, size in zip(reach, sizes, strict=True))
    return ops.conv_transpose(x, weight, None, strides=tuple(strides), dilations=tuple(dilations), low=tuple(low),
                              high=high, output_padding=more, groups=groups)  # fmt: skip


def weight_gradient(x: Value, y: Value, sizes: Sequence[Dim], *, strides: Sequence[int], dilations: Sequence[int],
                    low: Sequence[Dim], groups: int) -> Value:
    """The gradient of the weight of a convolution of x, given that of its result y, as a convolution of x with y.

    The sum is over the batch and the places of y: x [N, G*C, *S] as [C, G*N, *S] and y [N, M, *O] as [M, N, *O] give
    [C, M, *K], where strides and dilations have changed places.
    """
    batch, spatial = x.shape[0], tuple(range(2, x.rank))
    channels = dims.floor_divide(x.shape[1], groups)
    apart = ops.reshape(x, shape=(batch, groups, channels, *x.shape[2:]))
    turned = ops.transpose(apart, permutation=(2, 1, 0, *(axis + 1 for axis in spatial)))
    inner = ops.reshape(turned, shape=(channels, groups * batch, *x.shape[2:]))
    window = ops.transpose(y, permutation=(1, 0, *spatial))
    high = tuple(dims.maximum(dilation * (width - 1) + stride * (count - 1) + 1 - size - before, 0)
                 for dilation, width, stride, count, size, before
                 in zip(dilations, sizes, strides, y.shape[2:], x.shape[2:], low, strict=True))  # fmt: skip
    whole = ops.conv(inner, window, None, strides=tuple(dilations), dilations=tuple(strides), low=tuple(low), high=high,
                     groups=groups)  # fmt: skip
    return ops.transpose(shortened(whole, sizes), permutation=(1, 0, *spatial))


def shortened(x: Value, sizes: Sequence[Dim]) -> Value:
    """x without what its spatial axes have beyond these sizes."""
    for axis, size in enumerate(sizes, 2):
        x = x if x.shape[axis] == size else cut(x, axis, 0, size)
    return x
