"""Rows that read and write elements at places which other tensors name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc import dims, ops
from irc.dtypes import BOOL, I64
from irc.frontends.torch.reading import axis_of, converted, extent, refuse
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut, reshaped, within
from irc.ir import Value


@reads("embedding")
def embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    return ops.gather(weight, indices, axis=0)


@reads("index_select")
def index_select(self, dim, index):
    if not self.rank:
        return self
    return ops.gather(self, reshaped(index, (index.type.elements,)), axis=axis_of(dim, self.rank))


@reads("gather")
def gather(self, dim, index, *, sparse_grad=False):
    if not self.rank or not index.rank:
        return reshaped(ops.gather(reshaped(self, (1,)), reshaped(index, (index.type.elements,)), axis=0), index.shape)
    return ops.gather_elements(self, index, axis=axis_of(dim, self.rank))


@reads("index.Tensor")
def index(self, indices):
    """NumPy's advanced indexing: the named axes go where they are, or to the front if they do not stand together."""
    places = [(axis, each) for axis, each in enumerate(indices) if each is not None]
    if any(each.dtype is BOOL for _, each in places):
        refuse("a mask selects as many elements as are true")
    if len(places) == 1:
        axis, only = places[0]
        return ops.gather(self, only, axis=axis)
    axes = [axis for axis, _ in places]
    front = ops.transpose(self, permutation=(*axes, *(a for a in range(self.rank) if a not in axes)))
    found = ops.gather_nd(front, coordinates([each for _, each in places]))
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    if not together or axes[0] == 0:
        return found
    count = found.rank - (self.rank - len(axes))  # axes of the indices, now in front
    order = [*range(count, count + axes[0]), *range(count), *range(count + axes[0], found.rank)]
    return ops.transpose(found, permutation=tuple(order))


def coordinates(indices: Sequence[Value]) -> Value:
    """Index tensors, broadcast and side by side on a last axis, as ONNX's GatherND takes them."""
    shape = indices[0].shape
    for each in indices[1:]:
        rank = max(len(shape), each.rank)
        pairs = zip((1,) * (rank - len(shape)) + shape, (1,) * (rank - each.rank) + each.shape, strict=True)
        shape = tuple(dims.broadcast(a, b) for a, b in pairs)
    columns = []
    for each in indices:
        placed = converted(each, I64)
        placed = placed if placed.shape == shape else ops.expand(
            reshaped(placed, (1,) * (len(shape) - placed.rank) + placed.shape), shape=shape)
        columns.append(ops.reshape(placed, shape=(*shape, 1)))
    return columns[0] if len(columns) == 1 else ops.concat(*columns, axis=len(shape))


@reads("index_put")
def index_put(self, indices, values, accumulate=False):
    named = [each for each in indices if each is not None]
    if len(named) == 1 and named[0].dtype is BOOL and values.type.elements == 1 and not accumulate:
        mask = named[0]
        mask = reshaped(mask, mask.shape + (1,) * (self.rank - mask.rank)) if indices[0] is mask else refuse(
            "a mask of inner axes")
        return ops.select(mask, converted(reshaped(values, ()), self.dtype), self)
    if any(each.dtype is BOOL for each in named):
        refuse("a mask selects as many elements as are true")
    if list(indices[: len(named)]) != named:
        refuse("axes before the named ones are taken whole")
    where = coordinates(named)
    wanted = (*where.shape[:-1], *self.shape[len(named) :])
    values = converted(values, self.dtype)
    values = reshaped(values, (1,) * (len(wanted) - values.rank) + values.shape)
    values = values if values.shape == wanted else ops.expand(values, shape=wanted)
    return ops.scatter(self, where, values, reduction="add" if accumulate else "none")


@reads("scatter.src", "scatter.value", "scatter.reduce", "scatter.value_reduce")
def scatter(self, dim, index, src, *, reduce=None):
    how = {None: "none", "add": "add", "multiply": "mul"}[reduce]
    return scattered(self, dim, index, src, how)


@reads("scatter_add")
def scatter_add(self, dim, index, src):
    return scattered(self, dim, index, src, "add")


@reads("scatter_reduce.two")
def scatter_reduce(self, dim, index, src, reduce, *, include_self=True):
    how = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}.get(reduce)
    if how is None or not include_self:
        refuse(f"its reduction is {reduce}" if how is None else "it leaves out what was there")
    return scattered(self, dim, index, src, how)


def scattered(x: Value, dim: int, index: Value, source: Any, reduction: str | None) -> Value:
    if not x.rank:
        refuse("it scatters into a scalar")
    values = converted(source, x.dtype)
    if not isinstance(source, Value) or not values.rank:
        values = ops.expand(values, shape=index.shape)
    elif values.shape != index.shape:  # what lies beyond the index is not read
        values = ops.slice_(values, starts=(0,) * values.rank, stops=index.shape, steps=(1,) * values.rank)
    return ops.scatter_elements(x, index, values, axis=axis_of(dim, x.rank), reduction=reduction)


@reads("select_scatter")
def select_scatter(self, src, dim, index):
    axis = axis_of(dim, self.rank)
    place = extent(index)
    place = place + self.shape[axis] if dims.bounds(place)[1] < 0 else place
    one = reshaped(converted(src, self.dtype), (*self.shape[:axis], 1, *self.shape[axis + 1 :]))
    return spliced(self, one, axis, place, place + 1)


@reads("slice_scatter")
def slice_scatter(self, src, dim=0, start=None, end=None, step=1):
    if step != 1:
        refuse("the step is not 1")
    axis = axis_of(dim, self.rank)
    size = self.shape[axis]
    first = within(0 if start is None else extent(start), size)
    last = size if end is None else within(extent(end), size)
    return spliced(self, converted(src, self.dtype), axis, first, last)


def spliced(x: Value, inner: Value, axis: int, start: Any, stop: Any) -> Value:
    """x with its elements [start, stop) of an axis replaced."""
    parts = [cut(x, axis, 0, start), inner, cut(x, axis, stop, x.shape[axis])]
    kept = [part for part in parts if part.shape[axis] != 0]
    return kept[0] if len(kept) == 1 else ops.concat(*kept, axis=axis)


@reads("masked_scatter", "masked_select", "nonzero")
def as_many_as_true(*arguments):
    return refuse("as many elements as are true is known only when it runs")
