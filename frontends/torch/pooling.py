"""Rows of pooling and its gradients.

`Windows` are those of fixed extent, `adaptive_places` those that divide an axis into a given number of parts.
Places of elements in windows are tables i64[O, K] for each spatial axis, where K is the extent of the largest window: a
window that has fewer elements names some of them twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import I64, accumulator_of
from irc.frontends.torch.convolution import per_axis, spread_windows
from irc.frontends.torch.indexing import added_along
from irc.frontends.torch.reading import converted, extents, unused
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import reshaped
from irc.ir import Value


@dataclass(frozen=True)
class Windows:
    """Windows that slide along spatial axes; `low` and `high` are the padding, `high` with what ceil_mode adds."""

    sizes: tuple[Dim, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Dim, ...]
    high: tuple[Dim, ...]

    @classmethod
    def of(cls, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Windows:
        """The windows of a call of ATen on x, whose last axes they are on: as many as `kernel` has entries."""
        count = len(kernel)
        sizes, window = x.shape[-count:], tuple(kernel)
        steps, spread = per_axis(stride, count, 1) if stride else window, per_axis(dilation, count, 1)
        low = extents(per_axis(padding, count, 0))
        high = rounded_up(sizes, window, steps, spread, low) if ceil else low
        return cls(sizes, window, tuple(steps), tuple(spread), low, high)

    def apply(self, definition: Any, x: Value, **attributes: Any) -> Value:
        return definition(x, kernel=self.kernel, strides=self.strides, dilations=self.dilations, low=self.low,
                          high=self.high, **attributes)  # fmt: skip

    def sums(self, x: Value) -> Value:
        """The sums over windows of [N, C, *S]; of integers one element after another, which libraries do not have."""
        if x.dtype.is_integer:
            padded = ops.pad(x, low=(0, 0, *self.low), high=(0, 0, *self.high))
            none = (0,) * len(self.sizes)
            inner = replace(self, sizes=padded.shape[2:], low=none, high=none)
            counts = [dims.floor_divide(size - width, stride) + 1
                      for size, width, stride in zip(inner.sizes, self.kernel, self.strides, strict=True)]
            windows = in_windows(padded, inner.places(counts))
            return ops.reduce_sum(windows, axes=(windows.rank - 1,))
        return ops.window_reduce(x, kind="sum", window=(1, 1, *self.kernel), strides=(1, 1, *self.strides),
                                 dilations=(1, 1, *self.dilations), low=(0, 0, *self.low), high=(0, 0, *self.high))

    def places(self, counts: Sequence[Dim]) -> list[Value]:
        """Where the elements of each window are; the first or the last element stands for what is padding."""
        tables = []
        for axis, size in enumerate(self.sizes):
            dilation = self.dilations[axis]
            start = self._starts(axis, counts[axis])
            place = ops.add(start, ops.mul(iota((1, self.kernel[axis]), 1), dilation))
            before = ops.div(ops.sub(dilation - 1, start), dilation, rounding="floor")
            first = ops.add(start, ops.mul(ops.maximum(before, 0), dilation))
            after = ops.div(ops.sub(converted(size - 1, I64), start), dilation, rounding="floor")
            last = ops.add(start, ops.mul(after, dilation))
            tables.append(within_axis(ops.minimum(ops.maximum(place, first), last), size))
        return tables

    def elements(self, counts: Sequence[Dim], with_padding: bool) -> Value:
        """How many elements each window has, i64[*O]; what ceil_mode adds beyond the padding never counts."""
        result = None
        for axis, size in enumerate(self.sizes):
            start = self._starts(axis, counts[axis])
            edge = converted(size + self.low[axis] if with_padding else size, I64)
            end = ops.minimum(ops.add(start, self.kernel[axis]), edge)
            number = ops.sub(end, start if with_padding else ops.maximum(start, 0))
            number = ops.reshape(number, shape=(counts[axis], *(1 for _ in self.sizes[axis + 1 :])))
            result = number if result is None else ops.mul(result, number)
        assert result is not None
        return result

    def _starts(self, axis: int, count: Dim) -> Value:
        starts = ops.mul(iota((count, 1), 0), self.strides[axis])
        return ops.sub(starts, converted(self.low[axis], I64))


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


def iota(shape: tuple[Dim, ...], axis: int) -> Value:
    return ops.iota(shape=shape, axis=axis, dtype=I64)


def within_axis(places: Value, size: Dim) -> Value:
    """Places that are sure to be in an axis, also where a window has no element."""
    return ops.maximum(ops.minimum(places, converted(size - 1, I64)), 0)


def batched(x: Value, count: int) -> tuple[Value, bool]:
    """x with a batch axis before its channels and `count` spatial axes, and whether it had one."""
    return (x, True) if x.rank == count + 2 else (ops.reshape(x, shape=(1, *x.shape)), False)


def as_given(x: Value, has_batch: bool) -> Value:
    return x if has_batch else ops.reshape(x, shape=x.shape[1:])


# -- the largest elements ---------------------------------------------------------------------------------------------


@reads("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool1d", "max_pool3d")
def max_pool(self, kernel_size, stride=(), padding=(0,), dilation=(1,), ceil_mode=False):
    x, has_batch = batched(self, len(kernel_size))
    windows = Windows.of(x, kernel_size, stride, padding, dilation, ceil_mode)
    result = windows.apply(ops.max_pool, x)
    indices = None if unused(1) else as_given(largest(x, windows.places(result.shape[2:])), has_batch)
    return as_given(result, has_batch), indices


def in_windows(x: Value, places: Sequence[Value]) -> Value:
    """The elements of windows: x [N, C, *S] as [N, C, *O, product of K]."""
    count = len(places)
    for axis, table in enumerate(places):
        x = ops.gather(x, table, axis=2 + 2 * axis, bounds="promised")
    order = (0, 1, *range(2, 2 + 2 * count, 2), *range(3, 3 + 2 * count, 2))
    x = ops.transpose(x, permutation=order)
    return ops.reshape(x, shape=(*x.shape[: 2 + count], dims.product(x.shape[2 + count :])))


def largest(x: Value, places: Sequence[Value]) -> Value:
    """Where in the spatial axes, counted in order, the largest element of each window is: the first of several, but the
    last NaN if there is one."""
    windows = in_windows(x, places)
    axis = windows.rank - 1
    tap = ops.argmax(windows, axis=axis, keep_dims=False)
    if x.dtype.is_float:
        nans = ops.select(ops.is_nan(windows), iota(windows.shape, axis), -1)
        last = ops.reduce_max(nans, axes=(axis,))
        tap = ops.select(ops.less(last, 0), tap, last)
    sizes = x.shape[2:]
    numbers = ops.reshape(iota((dims.product(sizes),), 0), shape=(1, 1, *sizes))
    numbers = reshaped(in_windows(numbers, places), (dims.product(windows.shape[2:]),))
    starts = ops.mul(iota((dims.product(tap.shape[2:]),), 0), converted(windows.shape[-1], I64))
    starts = ops.reshape(starts, shape=(1, 1, *tap.shape[2:]))
    return ops.gather(numbers, ops.add(starts, tap), axis=0, bounds="promised")


@reads("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward")
def max_pool_backward(grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices):
    return put_at(grad_output, self, indices, len(kernel_size))


@reads("adaptive_max_pool2d_backward")
def adaptive_max_pool2d_backward(grad_output, self, indices):
    return put_at(grad_output, self, indices, 2)


@reads("adaptive_max_pool3d_backward")
def adaptive_max_pool3d_backward(grad_output, self, indices):
    return put_at(grad_output, self, indices, 3)


def put_at(grad: Value, x: Value, indices: Value, count: int) -> Value:
    """Zeros of the type of x, to which gradients are added at indices into its spatial axes."""
    lead = x.shape[: x.rank - count]
    flat = (*lead, dims.product(x.shape[x.rank - count :]))
    shape = (*lead, dims.product(indices.shape[x.rank - count :]))
    zeros = ops.expand(converted(0, grad.dtype), shape=flat)
    places, values = reshaped(indices, shape), reshaped(grad, shape)
    added = ops.scatter_elements(zeros, places, values, axis=len(lead), reduction="add", bounds="promised")
    return reshaped(added, x.shape)


# -- means ------------------------------------------------------------------------------------------------------------


@reads("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(self, kernel_size, stride=(), padding=(0,), ceil_mode=False, count_include_pad=True,
                 divisor_override=None):
    x, has_batch = batched(self, len(kernel_size))
    windows = Windows.of(x, kernel_size, stride, padding, (1,), ceil_mode)
    counts_padding = divisor_override is not None or count_include_pad
    if x.dtype.is_integer or (counts_padding and windows.high != windows.low):
        total = windows.sums(converted(x, accumulator_of(x.dtype)))
        counts = divisor_override or windows.elements(total.shape[2:], count_include_pad)
        mean = ops.div(total, converted(counts, total.dtype), **({"rounding": "trunc"} if x.dtype.is_integer else {}))
        return as_given(converted(mean, x.dtype), has_batch)
    mean = windows.apply(ops.average_pool, x, count_include_pad=counts_padding)
    if divisor_override is not None:
        mean = ops.mul(mean, math.prod(windows.kernel) / divisor_override)
    return as_given(mean, has_batch)


@reads("avg_pool2d_backward", "avg_pool3d_backward")
def average_pool_backward(grad_output, self, kernel_size, stride, padding, ceil_mode, count_include_pad,
                          divisor_override):
    """Each share of a gradient goes to all elements of its window: a transposed convolution with ones."""
    grad, has_batch = batched(grad_output, len(kernel_size))
    x, _ = batched(self, len(kernel_size))
    windows = Windows.of(x, kernel_size, stride, padding, (1,), ceil_mode)
    counts = divisor_override or windows.elements(grad.shape[2:], count_include_pad)
    shares = ops.div(grad, converted(counts, grad.dtype))
    planes = ops.reshape(shares, shape=(grad.shape[0] * grad.shape[1], 1, *grad.shape[2:]))
    ones = ops.expand(converted(1, grad.dtype), shape=(1, 1, *windows.kernel))
    spread = spread_windows(planes, ones, windows.sizes, strides=windows.strides, dilations=windows.dilations,
                            low=windows.low, groups=1)  # fmt: skip
    return as_given(ops.reshape(spread, shape=x.shape), has_batch)


# -- a given number of windows ----------------------------------------------------------------------------------------


@reads("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_average_pool(self, output_size):
    count = len(output_size)
    x, has_batch = batched(self, count)
    steps = even_steps(x.shape[2:], output_size)
    if all(size == 1 for size in output_size):
        result = ops.global_average_pool(x)
    elif all(isinstance(step, int) for step in steps):
        none = (0,) * count
        result = ops.average_pool(x, kernel=steps, strides=steps, dilations=(1,) * count, low=none, high=none)
    else:
        for axis, target in enumerate(extents(output_size), 2):
            x = adaptive_mean(x, axis, target)
        result = x
    return as_given(result, has_batch)


def even_steps(sizes: Sequence[Dim], targets: Sequence[Any]) -> tuple[Any, ...]:
    """The extent of windows along each axis where they are alike, or None."""
    return tuple(dims.exact_divide(size, target) if isinstance(target, int) and target else None
                 for size, target in zip(sizes, targets, strict=True))  # fmt: skip


def adaptive_bounds(size: Dim, target: Dim) -> tuple[Value, Value]:
    """Where windows begin and end, i64[target, 1]: floor(i * size / target) and ceil((i + 1) * size / target)."""
    index, extent, count = iota((target, 1), 0), converted(size, I64), converted(dims.maximum(target, 1), I64)
    start = ops.div(ops.mul(index, extent), count, rounding="floor")
    end = ops.div(ops.add(ops.mul(ops.add(index, 1), extent), ops.sub(count, 1)), count, rounding="floor")
    return start, end


def adaptive_places(size: Dim, target: Dim) -> Value:
    """The places of elements, i64[target, K]; the last element of a window stands for what is beyond it."""
    start, end = adaptive_bounds(size, target)
    if isinstance(size, int) and isinstance(target, int):
        width: Dim = max((-(-(index + 1) * size // target) - index * size // target for index in range(target)),
                         default=1)  # fmt: skip
    else:
        width = dims.floor_divide(size, dims.maximum(target, 1)) + 2
    place = ops.add(start, iota((1, width), 1))
    return within_axis(ops.minimum(place, ops.sub(end, 1)), size)


def adaptive_mean(x: Value, axis: int, target: Dim) -> Value:
    """The means of the windows along one axis."""
    size = x.shape[axis]
    if size == target:
        return x
    wide = converted(x, accumulator_of(x.dtype))
    start, end = adaptive_bounds(size, target)
    places = adaptive_places(size, target)
    count, ones = ops.sub(end, start), (1,) * (x.rank - axis - 1)
    inside = ops.less(iota(places.shape, 1), count)
    elements = ops.gather(wide, places, axis=axis, bounds="promised")
    elements = ops.select(ops.reshape(inside, shape=(*places.shape, *ones)), elements, 0.0)
    total = ops.reduce_sum(elements, axes=(axis + 1,))
    return converted(ops.div(total, converted(ops.reshape(count, shape=(target, *ones)), wide.dtype)), x.dtype)


@reads("_adaptive_avg_pool2d_backward")
def adaptive_average_pool2d_backward(grad_output, self):
    return adaptive_shares(grad_output, self, 2)


@reads("_adaptive_avg_pool3d_backward")
def adaptive_average_pool3d_backward(grad_output, self):
    return adaptive_shares(grad_output, self, 3)


def adaptive_shares(grad: Value, x: Value, count: int) -> Value:
    """What each element of x takes of the gradients of the windows that it is in, one axis after another."""
    result = converted(grad, accumulator_of(grad.dtype))
    for axis in range(x.rank - count, x.rank):
        size, target = x.shape[axis], grad.shape[axis]
        if size == target:
            continue
        start, end = adaptive_bounds(size, target)
        places = adaptive_places(size, target)
        length, ones = ops.sub(end, start), (1,) * (x.rank - axis - 1)
        inside = ops.reshape(ops.less(iota(places.shape, 1), length), shape=(*places.shape, *ones))
        shares = ops.div(result, converted(ops.reshape(length, shape=(target, *ones)), result.dtype))
        shares = ops.reshape(shares, shape=(*shares.shape[: axis + 1], 1, *shares.shape[axis + 1 :]))
        result = added_along(ops.select(inside, shares, 0.0), places, axis, size)
    return converted(result, grad.dtype)


@reads("adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(self, output_size):
    x, has_batch = batched(self, len(output_size))
    places = [adaptive_places(size, target) for size, target in zip(x.shape[2:], extents(output_size), strict=True)]
    windows = in_windows(x, places)
    indices = None if unused(1) else as_given(largest(x, places), has_batch)
    return as_given(ops.reduce_max(windows, axes=(windows.rank - 1,)), has_batch), indices
