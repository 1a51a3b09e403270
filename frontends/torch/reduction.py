"""Rows of reductions, scans and sorting."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from irc import dims, ops
from irc.dtypes import BOOL, F32, F64, I32, I64, U8, accumulator_of, limits
from irc.frontends.torch.complex_numbers import by_part, complex_of, parts_of
from irc.frontends.torch.pointwise import as_bool
from irc.frontends.torch.reading import (
    axes_of,
    axis_of,
    converted,
    extent,
    index_type,
    promoted,
    result_dtype,
    unsupported,
    unused,
)
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut
from irc.ir import Value
from irc.op import literal


@reads("sum.dim_IntList", "sum")
def total(self, dim=None, keepdim=False, *, dtype=None):
    return ops.reduce_sum(converted(self, result_dtype()), axes=axes_of(dim, self.rank), keep_dims=keepdim)


@reads("mean.dim", "mean")
def mean(self, dim=None, keepdim=False, *, dtype=None):
    x = converted(self, result_dtype())
    mean = partial(ops.reduce_mean, axes=axes_of(dim, self.rank), keep_dims=keepdim)
    return by_part(mean, x) if x.dtype.is_complex else mean(x)


@reads("prod", "prod.dim_int")
def product(self, dim=None, keepdim=False, *, dtype=None):
    return ops.reduce_prod(converted(self, result_dtype()), axes=axes_of(dim, self.rank), keep_dims=keepdim)


def ordered(definition: Any, x: Value, **attributes: Any) -> Value:
    """An extreme value; of bool via integers."""
    if x.dtype is BOOL:
        return as_bool(definition(converted(x, U8), **attributes))
    return definition(x, **attributes)


@reads("amax")
def amax(self, dim=(), keepdim=False):
    return ordered(ops.reduce_max, self, axes=axes_of(dim, self.rank), keep_dims=keepdim)


@reads("amin")
def amin(self, dim=(), keepdim=False):
    return ordered(ops.reduce_min, self, axes=axes_of(dim, self.rank), keep_dims=keepdim)


@reads("max")
def max_of_all(self):
    return ordered(ops.reduce_max, self, axes=axes_of(None, self.rank))


@reads("min")
def min_of_all(self):
    return ordered(ops.reduce_min, self, axes=axes_of(None, self.rank))


@reads("max.dim")
def max_along(self, dim, keepdim=False):
    return extreme_along(ops.reduce_max, ops.argmax, self, dim, keepdim)


@reads("min.dim")
def min_along(self, dim, keepdim=False):
    return extreme_along(ops.reduce_min, ops.argmin, self, dim, keepdim)


def extreme_along(reduce: Any, find: Any, x: Value, dim: int, keepdim: bool) -> tuple[Value, Value | None]:
    if not x.rank:
        return x, literal(0, I64)
    axis = axis_of(dim, x.rank)
    best = ordered(reduce, x, axes=(axis,), keep_dims=keepdim)
    return best, None if unused(1) else found_at(find, x, axis, keepdim)


def found_at(find: Any, x: Value, axis: int, keepdim: bool) -> Value:
    return find(converted(x, U8) if x.dtype is BOOL else x, axis=axis, keep_dims=keepdim)


@reads("argmax")
def argmax(self, dim=None, keepdim=False):
    return position(ops.argmax, self, dim, keepdim)


@reads("argmin")
def argmin(self, dim=None, keepdim=False):
    return position(ops.argmin, self, dim, keepdim)


def position(find: Any, x: Value, dim: int | None, keepdim: bool) -> Value:
    if not x.rank:
        return literal(0, I64)
    if dim is not None:
        return found_at(find, x, axis_of(dim, x.rank), keepdim)
    flat = found_at(find, ops.reshape(x, shape=(dims.product(x.shape),)), 0, False)
    return ops.reshape(flat, shape=(1,) * x.rank) if keepdim else flat


@reads("any", "any.dim", "any.dims", "_is_any_true")
def any_of(self, dim=None, keepdim=False):
    return as_result(ops.reduce_max(counted(self), axes=axes_of(dim, self.rank), keep_dims=keepdim))


@reads("all", "all.dim", "all.dims", "_is_all_true")
def all_of(self, dim=None, keepdim=False):
    return as_result(ops.reduce_min(counted(self), axes=axes_of(dim, self.rank), keep_dims=keepdim))


def counted(x: Value) -> Value:
    """1 where an element is not zero."""
    return converted(as_bool(x), U8)


def as_result(x: Value) -> Value:
    """bool, or u8 where ATen gives that; an empty axis has the identity, which is 0 or 255."""
    return converted(as_bool(x), result_dtype())


@reads("var.correction")
def variance(self, dim=None, *, correction=1, keepdim=False):
    return variance_and_mean(self, dim, correction, keepdim)[0]


@reads("var_mean.correction")
def variance_mean(self, dim=None, *, correction=1, keepdim=False):
    return variance_and_mean(self, dim, correction, keepdim)


@reads("std.correction")
def deviation(self, dim=None, *, correction=1, keepdim=False):
    return deviation_and_mean(self, dim, correction, keepdim)[0]


@reads("std_mean.correction")
def deviation_mean(self, dim=None, *, correction=1, keepdim=False):
    return deviation_and_mean(self, dim, correction, keepdim)


def deviation_and_mean(x: Value, dim: Any, correction: Any, keepdim: bool) -> tuple[Value, Value]:
    """Of distances as parts of the largest one: ATen computes that of f32 in f64, in which no square of one is beyond
    the range. That of f64 it computes without parts."""
    axes = axes_of(dim, x.rank)
    if x.dtype is F64 or x.dtype.is_complex:
        variance, mean = variance_and_mean(x, dim, correction, keepdim)
        return ops.sqrt(variance), mean
    mean, away, degrees = distances_from_mean(converted(x, accumulator_of(x.dtype)), axes, correction)
    largest = ops.reduce_max(ops.abs_(away), axes=axes, keep_dims=True)
    is_unit = ops.bitwise_or(ops.equal(largest, 0.0), ops.equal(largest, math.inf))
    parts = ops.div(away, ops.select(is_unit, 1.0, largest))
    square = ops.div(ops.reduce_sum(ops.square(parts), axes=axes, keep_dims=True), degrees)
    results = ops.mul(ops.sqrt(square), largest), undefined_over_nothing(mean, x, axes)
    deviation, mean = (converted(each if keepdim else without(each, axes), x.dtype) for each in results)
    return deviation, mean


def variance_and_mean(x: Value, dim: Any, correction: Any, keepdim: bool) -> tuple[Value, Value]:
    """The sum of squared distances from the mean, by the count less the correction (at least 0)."""
    if x.dtype.is_complex:
        (one, real), (other, imaginary) = (variance_and_mean(part, dim, correction, keepdim) for part in parts_of(x))
        return ops.add(one, other), complex_of(real, imaginary, x)
    axes = axes_of(dim, x.rank)
    mean, away, degrees = distances_from_mean(converted(x, accumulator_of(x.dtype)), axes, correction)
    total = ops.reduce_sum(ops.square(away), axes=axes, keep_dims=keepdim)
    mean = undefined_over_nothing(mean, x, axes)
    kept = mean if keepdim else without(mean, axes)
    return converted(ops.div(total, degrees), x.dtype), converted(kept, x.dtype)


def undefined_over_nothing(mean: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """The mean as a sum of shares, which is 0 over nothing, as NaN there."""
    count = dims.product(x.shape[axis] for axis in axes)
    if count == 0 or dims.less(0, count) is True:
        return mean
    return ops.select(ops.equal(converted(count, mean.dtype), 0.0), math.nan, mean)


def distances_from_mean(x: Value, axes: tuple[int, ...], correction: Any) -> tuple[Value, Value, Value]:
    """The mean, with its axes kept, what each element is away from it, and by how much squares of that are divided.

    ATen computes the mean in f64. Here what its rounding leaves is taken off the distances once more, but for a
    correction of 0: that is part of normalizations, which are found by their plain form.
    """
    count = dims.product(x.shape[axis] for axis in axes)
    correction = 1 if correction is None else correction
    if isinstance(count, int):
        degrees = literal(max(0.0, count - correction), x.dtype)
    else:
        degrees = ops.maximum(ops.sub(converted(count, x.dtype), float(correction)), 0.0)
    if correction == 0 or count == 0:
        mean = ops.reduce_mean(x, axes=axes, keep_dims=True)
        return mean, ops.sub(x, mean), degrees
    share = literal(1 / count, x.dtype) if isinstance(count, int) else ops.div(1.0, converted(count, x.dtype))
    mean = ops.reduce_sum(ops.mul(x, share), axes=axes, keep_dims=True)  # a sum of all might overflow
    away = ops.sub(x, mean)
    rest = ops.reduce_sum(ops.mul(away, share), axes=axes, keep_dims=True)
    if x.dtype is not F64:  # a distance beyond the range of f32 is infinite, and so is the variance
        rest = ops.select(ops.is_inf(rest), 0.0, rest)
    return mean, ops.sub(away, rest), degrees


def without(x: Value, axes: tuple[int, ...]) -> Value:
    """x without axes of extent 1."""
    return ops.reshape(x, shape=tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes))


@reads("logsumexp")
def log_sum_exp(self, dim, keepdim=False):
    return ops.log_sum_exp(converted(self, result_dtype()), axes=axes_of(dim, self.rank), keep_dims=keepdim)


@reads("cumsum")
def cumsum(self, dim, *, dtype=None):
    x, sums = converted(self, result_dtype()), partial(scanned, dim=dim, kind="sum")
    return by_part(sums, x) if x.dtype.is_complex else sums(x)


@reads("cumprod")
def cumprod(self, dim, *, dtype=None):
    return scanned(converted(self, result_dtype()), dim, "prod")


@reads("logcumsumexp")
def log_cumulative_sum_exp(self, dim):
    return scanned(self, dim, "log_sum_exp")


def scanned(x: Value, dim: int, kind: str) -> Value:
    """Of f32 in f64, as ATen does on a processor: a product that leaves the range of f32 may come back into it."""
    if not x.rank:
        return x
    wide = converted(x, F64) if x.dtype is F32 else x
    return converted(ops.scan(wide, kind=kind, axis=axis_of(dim, x.rank)), x.dtype)


@reads("sort")
def sort(self, dim=-1, descending=False):
    return sorted_along(self, dim, descending)


@reads("sort.stable")
def stable_sort(self, *, stable=None, dim=-1, descending=False):
    return sorted_along(self, dim, descending)


@reads("argsort")
def argsort(self, dim=-1, descending=False):
    return sorted_along(self, dim, descending)[1]


@reads("argsort.stable")
def stable_argsort(self, *, stable, dim=-1, descending=False):
    return sorted_along(self, dim, descending)[1]


def sorted_along(x: Value, dim: int, descending: bool) -> tuple[Value, Value]:
    if not x.rank:
        return x, literal(0, I64)
    if x.dtype is BOOL:
        values, places = sorted_along(converted(x, U8), dim, descending)
        return as_bool(values), places
    values, places = ops.sort(x, axis=axis_of(dim, x.rank), descending=descending)
    return values, index_type(places)


@reads("topk")
def topk(self, k, dim=-1, largest=True, sorted=True):
    if not self.rank:
        return self, literal(0, I64)
    return ops.top_k(self, k=extent(k), axis=axis_of(dim, self.rank), largest=largest)


@reads("kthvalue")
def kth_value(self, k, dim=-1, keepdim=False):
    return kth(self, k - 1, dim, keepdim)


@reads("median.dim")
def median_along(self, dim, keepdim=False):
    return middle(self, dim, keepdim)


@reads("median")
def median(self):
    """NaN, or the least integer, of an empty tensor: an element after all others, which then is the only one."""
    count, is_float = self.type.elements, self.dtype.is_float
    flat = ops.reshape(self, shape=(count,))
    if dims.less(0, count) is True:
        return middle(flat, 0, False)[0]
    least, greatest = limits(self.dtype)
    longer = ops.pad(flat, literal(math.nan if is_float else greatest, self.dtype), low=(0,), high=(1,))
    element, _ = kth(longer, dims.maximum(dims.floor_divide(count - 1, 2), 0), 0, False)
    if is_float:
        return ops.select(as_bool(ops.reduce_max(converted(ops.is_nan(flat), U8), axes=(0,))), math.nan, element)
    return ops.select(ops.equal(converted(count, I64), 0), least, element)


def middle(x: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """The lower one of two, and where it is; NaN where there is one, which sorting puts last."""
    axis = axis_of(dim, x.rank)
    extent = x.shape[axis] if x.rank else 1
    if dims.equal(extent, 0):
        unsupported("it is empty")
    median, place = kth(x, dims.floor_divide(extent - 1, 2), dim, keepdim)
    if not x.rank or not x.dtype.is_float:
        return median, place
    nan = converted(ops.is_nan(x), U8)
    any_nan = as_bool(ops.reduce_max(nan, axes=(axis,), keep_dims=keepdim))
    first = ops.argmax(nan, axis=axis, keep_dims=keepdim)
    return ops.select(any_nan, float("nan"), median), ops.select(any_nan, first, place)


@reads("nanmedian.dim")
def nan_median_along(self, dim, keepdim=False):
    return middle_number(self, dim, keepdim)


@reads("nanmedian")
def nan_median(self):
    if not self.dtype.is_float or dims.less(0, self.type.elements) is not True:
        return median.function(self)
    return middle_number(ops.reshape(self, shape=(self.type.elements,)), 0, False)[0]


def middle_number(x: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """The lower middle of what is not NaN, which sorting puts last; NaN where there is nothing else."""
    if not x.rank or not x.dtype.is_float:
        return middle(x, dim, keepdim)
    axis = axis_of(dim, x.rank)
    if dims.equal(x.shape[axis], 0):
        unsupported("it is empty")
    numbers = converted(ops.bitwise_not(ops.is_nan(x)), I64)
    count = ops.reduce_sum(numbers, axes=(axis,), keep_dims=True)
    index = ops.div(ops.maximum(ops.sub(count, 1), 0), 2, rounding="floor")
    results = (ops.gather_elements(each, index, axis=axis, bounds="promised")
               for each in ops.sort(x, axis=axis, descending=False))
    value, place = (each if keepdim else without(each, (axis,)) for each in results)
    return value, index_type(place)


def kth(x: Value, index: Any, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """The element that sorting puts at a place, and where it was."""
    if not x.rank:
        return x, literal(0, I64)
    axis = axis_of(dim, x.rank)
    shape = (*x.shape[:axis], *((1,) if keepdim else ()), *x.shape[axis + 1 :])
    values, places = (cut(each, axis, index, index + 1) for each in ops.sort(x, axis=axis, descending=False))
    return ops.reshape(values, shape=shape), ops.reshape(places, shape=shape)


@reads("cummax")
def cumulative_maximum(self, dim):
    return record(self, dim, "max")


@reads("cummin")
def cumulative_minimum(self, dim):
    return record(self, dim, "min")


def record(x: Value, dim: int, kind: str) -> tuple[Value, Value]:
    """The extreme value so far, and the last place at which it was met; NaN stays from where it appears."""
    if not x.rank:
        return x, literal(0, I64)
    if x.dtype is BOOL:
        best, place = record(converted(x, U8), dim, kind)
        return as_bool(best), place
    axis = axis_of(dim, x.rank)
    best = ops.scan(x, kind=kind, axis=axis)
    is_record = ops.equal(x, best)
    if x.dtype.is_float:
        is_record = ops.bitwise_or(is_record, ops.is_nan(x))
    places = ops.select(is_record, ops.iota(shape=x.shape, axis=axis, dtype=I64), 0)
    return best, ops.scan(places, kind="max", axis=axis)


@reads("bucketize.Tensor", "bucketize.Scalar")
def bucketize(self, boundaries, *, out_int32=False, right=False):
    return searched(boundaries, self, out_int32, right)


@reads("searchsorted.Tensor", "searchsorted.Scalar")
def search(sorted_sequence, self, *, out_int32=False, right=False, side=None, sorter=None):
    ordered = sorted_sequence if sorter is None else ops.gather_elements(
        sorted_sequence, sorter, axis=sorter.rank - 1, bounds="positive")
    return searched(ordered, self, out_int32, right or side == "right")


def searched(ordered: Value, x: Any, small: bool, right: bool) -> Value:
    """How many of the ordered elements come before each of x: before NaN all do, and NaN, which is ordered last, before
    what is after all numbers."""
    dtype = promoted(ordered, x)
    each = converted(x, dtype)
    shape = (*ordered.shape[:-1], 1, ordered.shape[-1]) if ordered.rank > 1 else ordered.shape
    row, column = ops.reshape(converted(ordered, dtype), shape=shape), ops.reshape(each, shape=(*each.shape, 1))
    counts = [ops.reduce_sum(converted(before, I64), axes=(each.rank,)) for before in (
        ops.less_equal(row, column) if right else ops.less(row, column),
        ops.bitwise_not(ops.greater(row, column) if right else ops.greater_equal(row, column)))]  # fmt: skip
    whole = ops.dim(value=ordered.shape[-1])
    return converted(ops.select(ops.equal(counts[1], whole), whole, counts[0]), I32 if small else I64)
