"""Products, convolutions, windows, scans and sorting: primitives that sum or order over axes.

Floats narrower than 32 bits are accumulated in f32 and rounded once; integers wrap around.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import I64, DType
from irc.interfaces import Contraction, Running, Scan, Trait, Window
from irc.op import NumberType, RealType, primitive
from irc.ops.numerics import Array, narrow, neutral, widen
from irc.ops.rules import (
    check_lengths,
    check_not_negative,
    check_positive,
    differ,
    normalize_axes,
    normalize_axis,
    same_dim,
    same_dtype,
    window_extent,
)
from irc.ops.spaces import convolution_space, dot_space, transposed_convolution_space
from irc.types import TensorType

PATCH_BYTES = 1 << 26  # a convolution gathers at most so many bytes of windows at a time

Axes = tuple[tuple[int, int], ...]


# -- dot -------------------------------------------------------------------------------------------------------


@primitive(Contraction(dot_space), Trait.LIBRARY, Trait.NEW_MEMORY, Trait.WRAPS)
def dot(
    x: NumberType, y: NumberType, /, *, batch: Axes = (), contract: Axes, accumulate: DType | None = None
) -> TensorType:
    """Sums of products over pairs of contracted axes, for each position of the pairs of batch axes.

    Shapes: the axes of a pair have one extent; the result has the batch axes, then x's free axes, then y's.
    Element type: that of the operands. `accumulate` is the type of the sums before the one rounding at the end (f32
    for narrow floats when absent; the reference never sums narrower than that).
    Source: ONNX MatMul, Einsum; NumPy matmul, tensordot; ATen bmm.
    Edge cases: 0 when nothing is contracted over; integers wrap around; the order of a sum is open.
    """
    same_dtype(x, y)
    if accumulate is not None and accumulate.kind != x.dtype.kind:
        raise fail("type.dtype", f"cannot accumulate {x.dtype} in {accumulate}", expected=f"a {x.dtype.kind} type")
    if x.shape is None or y.shape is None:
        return x.with_shape(None)
    pairs = (*batch, *contract)
    normalize_axes((pair[0] for pair in pairs), x.rank, "x's axis")
    normalize_axes((pair[1] for pair in pairs), y.rank, "y's axis")
    for left, right in pairs:
        if differ(x.dims[left], y.dims[right]):
            raise fail(
                "type.shape",
                f"axis {left} of {x} and axis {right} of {y} must be equal: {x.dims[left]} vs {y.dims[right]}",
            )
    common = [same_dim(x.dims[left], y.dims[right]) for left, right in batch]
    return x.with_shape((*common, *_free(x.dims, pairs, 0), *_free(y.dims, pairs, 1)))


def _free(shape: Sequence[Any], pairs: Axes, side: int) -> list[Any]:
    taken = {pair[side] % len(shape) for pair in pairs}
    return [entry for axis, entry in enumerate(shape) if axis not in taken]


@dot.reference
def _dot(x: Array, y: Array, *, batch: Axes, contract: Axes, accumulate: DType | None) -> Array:
    pairs = (*batch, *contract)
    for left, right in pairs:
        if x.shape[left] != y.shape[right]:
            raise fail("run.shape", f"cannot multiply arrays of shapes {list(x.shape)} and {list(y.shape)} here")
    free_x, free_y = _free(range(x.ndim), pairs, 0), _free(range(y.ndim), pairs, 1)
    shared = [x.shape[left] for left, _ in batch]
    depth = prod(x.shape[left] for left, _ in contract)
    left_order = [*(pair[0] for pair in batch), *free_x, *(pair[0] for pair in contract)]
    right_order = [*(pair[1] for pair in batch), *(pair[1] for pair in contract), *free_y]
    rows = prod(x.shape[axis] for axis in free_x)
    columns = prod(y.shape[axis] for axis in free_y)
    left_matrix = x.transpose(left_order).reshape(*shared, rows, depth)
    right_matrix = y.transpose(right_order).reshape(*shared, depth, columns)
    product = _matmul(left_matrix, right_matrix, accumulate)
    return product.reshape((*shared, *(x.shape[a] for a in free_x), *(y.shape[a] for a in free_y)))


def _matmul(x: Array, y: Array, accumulate: DType | None = None) -> Array:
    """Matrix product with batch axes in front, summed in `accumulate` and rounded to the operands' type."""
    target = x.dtype
    if accumulate is not None and accumulate.bits >= 32 and accumulate.bits > target.itemsize * 8:
        x, y = narrow(widen(x), accumulate.numpy), narrow(widen(y), accumulate.numpy)
    else:
        x, y = widen(x), widen(y)
    with np.errstate(all="ignore"):
        if x.dtype.kind in "iu" and x.size and y.size:
            bound = float(np.abs(x.astype(np.float64)).max()) * float(np.abs(y.astype(np.float64)).max()) * x.shape[-1]
            if bound < 2.0**53:  # f64 holds every partial sum exactly, and its product is far faster
                exact = np.matmul(x.astype(np.float64), y.astype(np.float64))
                return narrow(exact.astype(np.int64), target)
        return narrow(np.matmul(x, y), target)


# -- convolution -----------------------------------------------------------------------------------------------


def _check_convolution(
    x: TensorType, weight: TensorType, bias: TensorType | None, groups: int, **lists: Sequence[Any]
) -> None:
    same_dtype(x, weight, *(() if bias is None else (bias,)))
    if groups < 1:
        raise fail("type.attribute", f"`groups` is {groups}", expected="1 or more")
    check_positive(strides=lists["strides"], dilations=lists["dilations"])
    check_not_negative(low=lists["low"], high=lists["high"])
    ranked = next((type_ for type_ in (x, weight) if type_.shape is not None), None)
    if ranked is None:
        return
    if ranked.rank < 2:
        raise fail("type.rank", f"{ranked} has {ranked.rank} dims", expected="batch, channels and spatial axes")
    check_lengths(ranked.rank - 2, **lists)
    if x.shape is not None and weight.shape is not None and x.rank != weight.rank:
        raise fail("type.rank", f"x is {x} but the weight {weight}", expected="equal ranks")


def _check_channels(what: str, type_: TensorType, axis: int, expected: Dim) -> None:
    if differ(type_.dims[axis], expected):
        raise fail("type.shape", f"{what} {type_} has {type_.dims[axis]} at axis {axis}", expected=str(expected))


@primitive(Contraction(convolution_space, bias=1), Trait.LIBRARY, Trait.NEW_MEMORY, Trait.WRAPS)
def conv(
    x: NumberType,
    weight: NumberType,
    bias: NumberType | None = None,
    /,
    *,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    groups: int = 1,
) -> TensorType:
    """Convolution (cross-correlation) over any number of spatial axes, padded by zeros.

    Shapes: x [N, C, *S], weight [M, C/groups, *K], bias [M]; `low`, `high` are the padding; the result is
    [N, M, *((S + low + high - dilation*(K - 1) - 1) // stride + 1)].
    Source: ONNX Conv; ATen convolution.
    Edge cases: integers wrap around; a window larger than the padded axis is `type.shape`, or `run.shape` when it
    runs; an empty batch gives an empty result.
    """
    _check_convolution(x, weight, bias, groups, strides=strides, dilations=dilations, low=low, high=high)
    if x.shape is None or weight.shape is None:
        return x.with_shape(None)
    _check_channels("x", x, 1, weight.dims[1] * groups)
    if isinstance(weight.dims[0], int) and weight.dims[0] % groups:
        raise fail("type.shape", f"{weight.dims[0]} output channels do not divide into {groups} groups")
    if bias is not None and bias.shape is not None:
        if bias.rank != 1:
            raise fail("type.rank", f"the bias is {bias}", expected="one dim")
        _check_channels("the bias", bias, 0, weight.dims[0])
    spatial = (
        window_extent(extent, window, strides[i], dilations[i], low[i], high[i], i + 2)
        for i, (extent, window) in enumerate(zip(x.dims[2:], weight.dims[2:], strict=True))
    )
    return x.with_shape((x.dims[0], weight.dims[0], *spatial))


@conv.reference
def _conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    groups: int,
) -> Array:
    batch, channels, *extents = x.shape
    features, inner, *kernel = weight.shape
    if inner * groups != channels or features % groups:
        raise fail("run.shape", f"cannot convolve shape {list(x.shape)} with {list(weight.shape)} in {groups} groups")
    wide_x, wide_weight = widen(x), widen(weight)
    sizes = _window_counts(extents, kernel, strides, dilations, low, high)
    padded = np.pad(wide_x, [(0, 0), (0, 0), *zip(low, high, strict=True)])
    result = np.zeros((batch, features, *sizes), wide_x.dtype)
    with np.errstate(all="ignore"):
        if result.size and weight.size:
            # [N, C, *sizes, *K], a view; the product copies what it needs, so a part of the first axis at a time.
            windows = _windows(padded, kernel, strides, dilations, sizes)
            per_group = features // groups
            for group in range(groups):
                taken = windows[:, group * inner : (group + 1) * inner]
                filters = wide_weight[group * per_group : (group + 1) * per_group].reshape(per_group, -1)
                target = result[:, group * per_group : (group + 1) * per_group]
                _convolve(taken, filters, target, len(sizes))
        if bias is not None:
            result = result + widen(bias).reshape(1, features, *([1] * len(sizes)))
    return narrow(result, x.dtype)


def _windows(
    padded: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], sizes: Sequence[int]
) -> Array:
    spatial = range(2, 2 + len(kernel))
    spans = [dilation * (window - 1) + 1 for window, dilation in zip(kernel, dilations, strict=True)]
    if not kernel:
        return padded
    view = sliding_window_view(padded, spans, tuple(spatial))
    steps = [slice(None, (count - 1) * stride + 1, stride) for count, stride in zip(sizes, strides, strict=True)]
    return view[(slice(None), slice(None), *steps, *(slice(None, None, dilation) for dilation in dilations))]


def _convolve(windows: Array, filters: Array, target: Array, rank: int) -> None:
    """target[n, m, *s] = sum over c, k of windows[n, c, *s, *k] * filters[m, c*k], in chunks of bounded memory."""
    batch, channels, *rest = windows.shape
    sizes, kernel = rest[:rank], rest[rank:]
    depth = channels * prod(kernel)
    order = (*range(1, 1 + rank), 0, *range(1 + rank, 1 + 2 * rank))  # [C, *s, *K] -> [*s, C, *K]
    rows = sizes[0] if rank else 1
    row_bytes = max(1, depth * prod(sizes[1:]) * windows.itemsize)
    step = max(1, PATCH_BYTES // row_bytes)
    for n in range(batch):
        for start in range(0, rows, step):
            part = windows[n][:, start : start + step] if rank else windows[n]
            patches = part.transpose(order).reshape(-1, depth)
            product = np.matmul(filters, patches.T)
            if rank:
                target[n][:, start : start + step] = product.reshape(len(filters), -1, *sizes[1:])
            else:
                target[n] = product.reshape(len(filters))


def _window_counts(
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
) -> list[int]:
    counts = []
    for i, (extent, window) in enumerate(zip(extents, kernel, strict=True)):
        free = extent + low[i] + high[i] - dilations[i] * (window - 1)
        if free < 0 or (free == 0 and extent):
            span = f"a window of {window} (dilation {dilations[i]})"
            raise fail("run.shape", f"{span} is larger than {extent} padded by {low[i]} and {high[i]}")
        counts.append((free - 1) // strides[i] + 1)
    return counts


@primitive(Contraction(transposed_convolution_space, bias=1), Trait.LIBRARY, Trait.NEW_MEMORY, Trait.WRAPS)
def conv_transpose(
    x: NumberType,
    weight: NumberType,
    bias: NumberType | None = None,
    /,
    *,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    output_padding: tuple[Dim, ...],
    groups: int = 1,
) -> TensorType:
    """The gradient of a convolution with respect to its input: each element of x adds a scaled kernel to the result.

    Shapes: x [N, C, *S], weight [C, M/groups, *K], bias [M]; the result is
    [N, M, *(stride*(S - 1) + dilation*(K - 1) + 1 + output_padding - low - high)]: `low` and `high` crop.
    Source: ONNX ConvTranspose; ATen conv_transpose.
    Edge cases: integers wrap around; places that no kernel reaches hold the bias, as do all where x is empty. An
    extent below 0, of an empty axis with a kernel shorter than the stride, is an error (`type.shape`, `run.shape`).
    """
    lists = {"strides": strides, "dilations": dilations, "low": low, "high": high, "output_padding": output_padding}
    _check_convolution(x, weight, bias, groups, **lists)
    check_not_negative(output_padding=output_padding)
    if x.shape is None or weight.shape is None:
        return x.with_shape(None)
    _check_channels("the weight", weight, 0, x.dims[1])
    if isinstance(x.dims[1], int) and x.dims[1] % groups:
        raise fail("type.shape", f"{x.dims[1]} channels do not divide into {groups} groups")
    features = weight.dims[1] * groups
    if bias is not None and bias.shape is not None:
        if bias.rank != 1:
            raise fail("type.rank", f"the bias is {bias}", expected="one dim")
        _check_channels("the bias", bias, 0, features)
    spatial = []
    for i, (extent, window) in enumerate(zip(x.dims[2:], weight.dims[2:], strict=True)):
        size = strides[i] * (extent - 1) + dilations[i] * (window - 1) + 1 + output_padding[i] - low[i] - high[i]
        if dims.less(size, 0) is True:
            raise fail("type.shape", f"axis {i + 2}: cropping {low[i]} and {high[i]} leaves {size} elements")
        spatial.append(size)
    return x.with_shape((x.dims[0], features, *spatial))


@conv_transpose.reference
def _conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    output_padding: tuple[int, ...],
    groups: int,
) -> Array:
    batch, channels, *extents = x.shape
    _, per_group, *kernel = weight.shape
    if weight.shape[0] != channels or channels % groups:
        raise fail("run.shape", f"cannot convolve shape {list(x.shape)} with {list(weight.shape)} in {groups} groups")
    wide_x, wide_weight = widen(x), widen(weight)
    reach = [stride * (extent - 1) + 1 for stride, extent in zip(strides, extents, strict=True)]
    whole = [
        span + dilation * (window - 1) + extra
        for span, dilation, window, extra in zip(reach, dilations, kernel, output_padding, strict=True)
    ]
    sums = np.zeros((batch, per_group * groups, *whole), wide_x.dtype)
    inner = channels // groups
    columns = wide_x.reshape(batch, groups, inner, prod(extents))
    filters = wide_weight.reshape(groups, inner, per_group, *kernel)
    with np.errstate(all="ignore"):
        for position in np.ndindex(*kernel if x.size else (0,)):
            tap = filters[(slice(None), slice(None), slice(None), *position)]  # [G, C/G, M/G]
            part = np.matmul(tap.transpose(0, 2, 1), columns).reshape(batch, per_group * groups, *extents)
            corner = [dilation * offset for dilation, offset in zip(dilations, position, strict=True)]
            target = map(slice, corner, map(add, corner, reach), strides)
            sums[(slice(None), slice(None), *target)] += part
        crop = (slice(before, max(before, size - after)) for before, size, after in zip(low, whole, high, strict=True))
        result = sums[(slice(None), slice(None), *crop)]
        if bias is not None:
            result = result + widen(bias).reshape(1, -1, *([1] * len(kernel)))
    return narrow(result, x.dtype)


# -- windows, scans, sorting -----------------------------------------------------------------------------------


@primitive(Window(), Trait.WRAPS)
def window_reduce(
    x: RealType,
    /,
    *,
    kind: Literal["max", "sum"] = "max",
    window: tuple[Dim, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
) -> TensorType:
    """The maximum or the sum over windows that slide along every axis.

    Padding counts as the identity: -inf (or the least integer) for `max`, 0 for `sum`.

    Shapes: one entry for each axis in every list; each extent becomes
    (extent + low + high - dilation*(window - 1) - 1) // stride + 1.
    Source: ONNX MaxPool, AveragePool; ATen max_pool2d, avg_pool2d.
    Edge cases: `max` is NaN where a window holds one; a window of padding only gives the identity; one larger than
    the padded axis is `type.shape`, or `run.shape` when it runs.
    """
    rank = len(window) if x.shape is None else x.rank
    check_lengths(rank, window=window, strides=strides, dilations=dilations, low=low, high=high)
    check_positive(strides=strides, dilations=dilations)
    check_not_negative(low=low, high=high)
    for size in window:
        if dims.less(size, 1) is True:
            raise fail("type.attribute", f"`window` has the entry {size}", expected="1 or more")
    if x.shape is None:
        return x
    return x.with_shape(
        window_extent(extent, window[i], strides[i], dilations[i], low[i], high[i], i)
        for i, extent in enumerate(x.dims)
    )


@window_reduce.reference
def _window_reduce(
    x: Array,
    *,
    kind: Literal["max", "sum"],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
) -> Array:
    counts = _window_counts(x.shape, window, strides, dilations, low, high)
    combine = np.maximum if kind == "max" else np.add
    result = widen(x)
    padding_value = neutral(kind, x, result)
    # A box is the product of its sides: one axis after the other, in sum(window) steps instead of prod(window).
    with np.errstate(all="ignore"):
        for axis, count in enumerate(counts):
            if window[axis] == strides[axis] == 1 and low[axis] == high[axis] == 0:
                continue
            padding = [(0, 0)] * x.ndim
            padding[axis] = (low[axis], high[axis])
            padded = np.moveaxis(np.pad(result, padding, constant_values=padding_value), axis, 0)
            span = max(0, (count - 1) * strides[axis] + 1)
            taken = padded[:span : strides[axis]]
            for offset in range(dilations[axis], dilations[axis] * window[axis], dilations[axis]):
                taken = combine(taken, padded[offset : offset + span : strides[axis]])
            result = np.moveaxis(taken, 0, axis)
        if kind == "sum":
            result = result + padding_value  # a sum begins with 0: of -0 alone it is 0
    return narrow(result, x.dtype)


_SCANS: dict[str, Any] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
                          "log_sum_exp": np.logaddexp}  # fmt: skip


@primitive(Scan(), Trait.WRAPS)
def scan(
    x: RealType,
    /,
    *,
    kind: Running = "sum",
    axis: int,
    reverse: bool = False,
    exclusive: bool = False,
) -> TensorType:
    """Running sum, product, maximum, minimum or (of floats) logarithm of the sum of exponentials along `axis`; from the
    end with `reverse`, without the element itself with `exclusive`.

    Shapes: x any. Result: x's shape.
    Source: ONNX CumSum; NumPy cumsum, maximum.accumulate, logaddexp.accumulate; ATen cumsum, cummax, logcumsumexp.
    Edge cases: the first exclusive element is the identity (0, 1, -inf or the least integer, inf or the greatest); NaN
    stays from where it appears; integers wrap around in their own type.
    """
    if kind == "log_sum_exp" and not x.dtype.is_float:
        raise fail("type.dtype", f"exponentials of {x.dtype}", expected="floats")
    if x.shape is not None:
        normalize_axis(axis, x.rank)
    return x


@scan.reference
def _scan(x: Array, *, kind: Running, axis: int, reverse: bool, exclusive: bool) -> Array:
    wide = np.moveaxis(widen(x), axis, 0)
    if reverse:
        wide = wide[::-1]
    with np.errstate(all="ignore"):
        done = _SCANS[kind].accumulate(wide, axis=0, dtype=wide.dtype) if len(wide) else wide.copy()
        if kind == "sum":
            done = done + neutral(kind, x, done)  # a sum begins with 0: of -0 alone it is 0
    if exclusive:
        done = np.concatenate([np.full_like(done[:1], neutral(kind, x, done)), done[:-1]])
    if reverse:
        done = done[::-1]
    return narrow(np.moveaxis(done, 0, axis), x.dtype)


@primitive(Trait.EXACT)
def sort(x: RealType, /, *, axis: int, descending: bool = False) -> tuple[TensorType, TensorType]:
    """The elements in order along `axis`, and the i64 positions from which they came.

    Shapes: both results have x's.
    Source: NumPy sort, argsort; ATen sort (stable); ONNX TopK for a part of it.
    Edge cases: stable in both directions: equals keep their order, and 0.0 equals -0.0. NaN counts as greater than
    inf: last ascending, first descending (as torch).
    """
    if x.shape is not None:
        normalize_axis(axis, x.rank)
    return x, x.with_dtype(I64)


@sort.reference
def _sort(x: Array, *, axis: int, descending: bool) -> tuple[Array, Array]:
    wide = widen(x)
    if descending:
        # Sorted backwards and read backwards: equals come out in their order.
        backward = np.argsort(np.flip(wide, axis), axis=axis, kind="stable")
        order = np.flip(x.shape[axis] - 1 - backward, axis)
    else:
        order = np.argsort(wide, axis=axis, kind="stable")
    return np.take_along_axis(x, order, axis), order.astype(np.int64)
