"""What is computed window by window: convolutions that PyTorch has no function for, and pooling.

Shapes are [batch, channels, *axes]; `strides`, `dilations`, `low` and `high` have an entry for each of the axes.
"""

from __future__ import annotations

import builtins
import itertools
import math

import torch
import torch.nn.functional as F

from .errors import ArtefactError


def check_windows(extents, windows, dilations, low, high):
    for extent, size, dilation, a, b in zip(extents, windows, dilations, low, high, strict=True):
        if extent + a + b < dilation * (size - 1) + bool(extent):
            message = f"a window of {size} (dilation {dilation}) is larger than {extent} padded by {a} and {b}"
            raise ArtefactError(message)


def by_taps(x, weight, strides, dilations, groups):
    """A convolution over any number of axes, some perhaps empty: a product for each place of the kernel."""
    batch, _, *extents = x.shape
    features, inner, *kernel = weight.shape
    spans = [dilation * (window - 1) for dilation, window in zip(dilations, kernel, strict=True)]
    sizes = [max(0, (extent - span - 1) // stride + 1)
             for extent, span, stride in zip(extents, spans, strides, strict=True)]  # fmt: skip
    result = x.new_zeros((groups, features // groups, batch * math.prod(sizes)))
    for place in itertools.product(*map(range, kernel)):
        steps = zip(place, dilations, strides, sizes, strict=True)
        window = [builtins.slice(k * d, k * d + (size - 1) * s + 1 if size else 0, s) for k, d, s, size in steps]
        taken = x[(..., *window)].transpose(0, 1).reshape(groups, inner, result.shape[2])
        tap = weight[(builtins.slice(None), builtins.slice(None), *place)].reshape(groups, features // groups, inner)
        result = result + torch.matmul(tap, taken)
    return result.reshape(features, batch, *sizes).transpose(0, 1)


def transposes_at_once(extents, windows, strides, dilations, low, high, more):
    """Whether PyTorch's transposed convolution takes these ends itself, so that nothing is cut off afterwards."""
    return all(
        before == after and extra < max(stride, dilation)
        and (extent - 1) * stride + dilation * (window - 1) + 1 + extra > before + after
        for extent, window, stride, dilation, before, after, extra
        in zip(extents, windows, strides, dilations, low, high, more, strict=True)
    )  # fmt: skip


def transposed_by_taps(x, weight, strides, dilations, groups):
    """The transpose of `by_taps`: each place of the kernel adds to the places that it reaches."""
    batch, channels, *extents = x.shape
    inner, *kernel = weight.shape[1:]
    reach = [stride * (extent - 1) + 1 for stride, extent in zip(strides, extents, strict=True)]
    whole = [span + dilation * (window - 1) for span, dilation, window in zip(reach, dilations, kernel, strict=True)]
    result = x.new_zeros((batch, inner * groups, *whole))
    columns = x.transpose(0, 1).reshape(groups, channels // groups, batch * math.prod(extents))
    for place in itertools.product(*map(range, kernel)):
        tap = weight[(..., *place)].reshape(groups, channels // groups, inner).mT
        part = torch.matmul(tap, columns).reshape(inner * groups, batch, *extents).transpose(0, 1)
        steps = zip(place, dilations, strides, reach, strict=True)
        result[(..., *(builtins.slice(k * d, k * d + span, s) for k, d, s, span in steps))] += part
    return result


def transposed_of_nothing(x, weight, strides, dilations, groups, output_padding):
    """The transpose of a convolution where no element of x adds anything."""
    each = zip(x.shape[2:], weight.shape[2:], strides, dilations, output_padding, strict=True)
    whole = [stride * (extent - 1) + dilation * (size - 1) + 1 + more for extent, size, stride, dilation, more in each]
    if min(whole, default=0) < 0:
        raise ArtefactError(f"a transposed convolution of {list(x.shape)} has a negative extent: {whole}")
    return x.new_zeros((x.shape[0], weight.shape[1] * groups, *whole))


def pooled(x, kind, window, strides, dilations, low, high):
    """A maximum or a sum over windows by PyTorch's pooling, one operation of the device; None where it has none for it.

    Here the parameters have an entry for every axis of `x`.
    """
    axes = [axis for axis, (size, stride) in enumerate(zip(window, strides, strict=True)) if size != 1 or stride != 1]
    rank = max(2, x.ndim - axes[0]) if axes else 0
    halves = all(a == b <= size // 2 for a, b, size in zip(low, high, window, strict=True))
    if not (x.dtype.is_floating_point and x.dtype.itemsize > 1 and rank in (2, 3) and x.numel() and halves):
        return None
    lead = builtins.slice(0, max(0, x.ndim - rank))
    if any(low[lead]) or (kind != "max" and any(each != 1 for each in dilations)):
        return None
    wide = x.reshape((1, -1, *[1] * (rank - x.ndim), *x.shape[lead.stop :]))
    size, stride, padding, dilation = (
        [default] * (rank - x.ndim) + list(each[lead.stop :])
        for default, each in ((1, window), (1, strides), (0, low), (1, dilations))
    )
    if kind == "max":
        result = {2: F.max_pool2d, 3: F.max_pool3d}[rank](wide, size, stride, padding, dilation)
    else:
        result = {2: F.avg_pool2d, 3: F.avg_pool3d}[rank](wide, size, stride, padding, divisor_override=1)
    return result.reshape((*x.shape[lead], *result.shape[2 + max(0, rank - x.ndim) :]))
