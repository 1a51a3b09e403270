"""Rows that count elements, or repeat and choose them by counts."""

from __future__ import annotations

from typing import Any

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import BOOL, F32, F64, I64, U8, limits
from irc.frontends.torch.indexing import as_many
from irc.frontends.torch.left_to_torch import call
from irc.frontends.torch.reading import (
    axis_of,
    bound,
    converted,
    extent,
    result_dtype,
    unsupported,
    unused,
)
from irc.frontends.torch.reduction import without
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut, reshaped
from irc.ir import Value
from irc.op import literal


@reads("histc")
def histogram(self, bins=100, min=0, max=0):
    """How many elements lie in each of equal parts of [min, max], which by default is the range of the elements."""
    x = reshaped(self, (self.type.elements,))
    low, high = (converted(each, x.dtype) for each in (min, max))
    if min == max and dims.equal(self.type.elements, 0) is not True:
        low, high = ops.reduce_min(x, axes=(0,)), ops.reduce_max(x, axes=(0,))
    if min == max:
        is_one = ops.equal(low, high)
        low, high = (ops.select(is_one, moved, each) for moved, each in (
            (ops.sub(low, literal(1, x.dtype)), low), (ops.add(high, literal(1, x.dtype)), high)))
    inside = ops.bitwise_and(ops.greater_equal(x, low), ops.less_equal(x, high))
    share = ops.sub(ops.select(inside, x, low), low)
    if x.dtype.is_float:
        place = ops.mul(ops.div(share, ops.sub(high, low)), float(bins))
    else:
        place = ops.div(ops.mul(share, literal(bins, x.dtype)), ops.sub(high, low), rounding="floor")
    place = ops.minimum(converted(place, I64), bins - 1)
    return added_up(place, converted(inside, x.dtype), bins)


def added_up(places: Value, amounts: Value, size: Dim) -> Value:
    """The sums of the amounts at each of the places, [size]."""
    zeros = ops.expand(literal(0, amounts.dtype), shape=(size,))
    return ops.scatter_elements(zeros, places, amounts, axis=0, reduction="add", bounds="positive")


@reads("bincount")
def bin_count(self, weights=None, minlength=0):
    """How often each number occurs, or the sum of its weights: in f32 of those, in f64 of others."""
    x = converted(self, I64)
    least = converted(minlength, I64)
    most = ops.reduce_max(x, axes=(0,))  # of no elements, the least number
    size = bound(ops.select(ops.less(most, 0), least, ops.maximum(ops.add(ops.maximum(most, 0), 1), least)))
    if weights is None:
        return added_up(x, ops.expand(literal(1, I64), shape=x.shape), size)
    return added_up(x, converted(weights, F32 if weights.dtype is F32 else F64), size)


@reads("repeat_interleave.Tensor")
def repeated_places(repeats, *, output_size=None):
    """Each place as often as its count: one is added where the next place begins, and all that comes before."""
    counts = converted(repeats, I64)
    size = bound(ops.reduce_sum(counts, axes=(0,))) if output_size is None else extent(output_size)
    ends = ops.scan(counts, kind="sum", axis=0)
    steps = added_up(ends, ops.expand(literal(1, I64), shape=ends.shape), size + 1)
    return converted(cut(ops.scan(steps, kind="sum", axis=0), 0, 0, size), result_dtype())


@reads("nonzero_static")
def nonzero_static(self, *, size, fill_value=-1):
    """The places of the first `size` elements that are not zero, i64[size, rank], then the fill value."""
    shape = self.shape
    if not shape:
        return ops.expand(literal(0, I64), shape=(size, 0))
    count = self.type.elements
    flat = reshaped(ops.not_equal(self, literal(0, self.dtype)) if self.dtype is not BOOL else self, (count,))
    number = ops.scan(converted(flat, I64), kind="sum", axis=0)
    target = ops.select(flat, ops.minimum(ops.sub(number, 1), converted(size, I64)), converted(size, I64))
    start = ops.expand(literal(-1, I64), shape=(size + 1,))
    places = ops.scatter_elements(start, target, ops.iota(shape=(count,), axis=0, dtype=I64), axis=0,
                                  reduction="max", bounds="promised")  # fmt: skip
    places = ops.reshape(cut(places, 0, 0, size), shape=(size, 1))
    columns, step = [], count
    for length in shape:
        step = dims.floor_divide(step, length) if length != 0 else 0
        unit = converted(dims.maximum(step, 1), I64)
        index = ops.mod(ops.div(places, unit, rounding="floor"), converted(dims.maximum(length, 1), I64))
        columns.append(ops.select(ops.less(places, 0), literal(fill_value, I64), index))
    return columns[0] if len(columns) == 1 else ops.concat(*columns, axis=1)


# -- the most frequent ------------------------------------------------------------------------------------------------


@reads("mode")
def mode(self, dim=-1, keepdim=False):
    """The most frequent element, the least of several, and the last place where it is. All pairs are compared: memory
    is the square of the axis."""
    if not self.rank:
        return self, literal(0, I64)
    if self.dtype is BOOL:
        value, place = mode.function(converted(self, U8), dim, keepdim)
        return converted(value, BOOL), place
    axis = axis_of(dim, self.rank)
    size = self.shape[axis]
    if dims.equal(size, 0) is True:
        unsupported("it is empty")
    row, column = (ops.reshape(self, shape=(*self.shape[:place], 1, *self.shape[place:])) for place in (axis, axis + 1))
    counts = ops.reduce_sum(converted(ops.equal(row, column), I64), axes=(axis + 1,))
    most = ops.equal(counts, ops.reduce_max(counts, axes=(axis,), keep_dims=True))
    last = float("inf") if self.dtype.is_float else limits(self.dtype)[1]
    value = ops.reduce_min(ops.select(most, self, literal(last, self.dtype)), axes=(axis,), keep_dims=True)
    places = ops.iota(shape=self.shape, axis=axis, dtype=I64)
    place = ops.reduce_max(ops.select(ops.equal(self, value), places, 0), axes=(axis,), keep_dims=True)
    return tuple(each if keepdim else without(each, (axis,)) for each in (value, place))


# -- without repetitions ----------------------------------------------------------------------------------------------


@reads("unique_consecutive")
def unique_consecutive(self, return_inverse=False, return_counts=False, dim=None):
    """Of each run of equal elements the first, which run each element is in, and how long the runs are."""
    if dim is not None:
        return call("unique_consecutive", self, return_inverse, return_counts, dim)
    count = self.type.elements
    flat = reshaped(self, (count,))
    return runs(flat, self.shape, None)


@reads("_unique2")
def unique(self, sorted=True, return_inverse=False, return_counts=False):
    """The elements in order, each once; a NaN equals none, not even itself."""
    count = self.type.elements
    flat = reshaped(self, (count,))
    if flat.dtype is BOOL:
        numbers, *others = unique.function(converted(self, U8), sorted, return_inverse, return_counts)
        return converted(numbers, BOOL), *others
    values, places = ops.sort(flat, axis=0, descending=False)
    return runs(values, self.shape, places)


def runs(values: Value, shape: tuple[Dim, ...], places: Value | None) -> tuple[Any, ...]:
    """The first elements of runs of equal ones, the number of the run of each element, whose place was another before
    if `places` are given, and the lengths of the runs."""
    count = values.shape[0]
    numbers = ops.iota(shape=(count,), axis=0, dtype=I64)
    before = ops.gather(values, ops.maximum(ops.sub(numbers, 1), 0), axis=0, bounds="promised")
    begins = ops.bitwise_or(ops.not_equal(values, before), ops.equal(numbers, 0))
    (starts,) = (as_many("NonZero", 13, [begins], count, lambda number: (1, number)),)
    starts = reshaped(starts, starts.shape[1:])
    kept = ops.gather(values, starts, axis=0, bounds="promised")
    run = ops.sub(ops.scan(converted(begins, I64), kind="sum", axis=0), 1)
    inverse = counts = None
    if not unused(1):
        inverse = run if places is None else ops.scatter_elements(
            ops.expand(literal(0, I64), shape=(count,)), places, run, axis=0, bounds="promised")
        inverse = reshaped(inverse, shape)
    if not unused(2):
        counts = added_up(run, ops.expand(literal(1, I64), shape=(count,)), kept.shape[0])
    return kept, inverse, counts
