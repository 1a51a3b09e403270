"""Rows that read and write elements at places which other tensors name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import BOOL, F32, I64, limits
from irc.frontends.torch.pointwise import as_bool, times
from irc.frontends.torch.reading import (
    axis_of,
    converted,
    current_function,
    example,
    extent,
    extents,
    known,
    unsupported,
)
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import counted_from_start, cut, diagonal_places, reshaped, sides, within
from irc.index_map import inverse
from irc.ir import Value
from irc.op import Builder, const, literal
from irc.types import TensorType
from irc.weights import Tensor


@reads("index_select")
def index_select(self, dim, index):
    if not self.rank:
        return self
    return ops.gather(self, reshaped(index, (index.type.elements,)), axis=axis_of(dim, self.rank), bounds="positive")


@reads("take")
def take(self, index):
    """Of the flattened tensor. PyTorch's decomposition reads the number that an index without axes holds."""
    return ops.gather(reshaped(self, (self.type.elements,)), index, axis=0)


@reads("gather")
def gather(self, dim, index, *, sparse_grad=False):
    if self.rank != index.rank or not self.rank:  # either is a number, or the index has no elements
        return ops.gather(reshaped(self, (self.type.elements,)), index, axis=0, bounds="positive")
    return ops.gather_elements(self, index, axis=axis_of(dim, self.rank), bounds="positive")


@reads("index.Tensor")
def index(self, indices):
    """NumPy's advanced indexing: the named axes go where they are, or to the front if they do not stand together."""
    indices = positions(indices)
    axes, rest, first = named_axes(indices, self.rank)
    if len(axes) == 1:
        return ops.gather(self, indices[axes[0]], axis=axes[0])
    front = ops.transpose(self, permutation=(*axes, *rest))
    gathered = ops.gather_nd(front, coordinates([indices[axis] for axis in axes]))
    if not first:
        return gathered
    count = gathered.rank - len(rest)  # axes of the indices, now in front
    order = (*range(count, count + first), *range(count), *range(count + first, gathered.rank))
    return ops.transpose(gathered, permutation=order)


def named_axes(indices: Sequence[Value | None], rank: int) -> tuple[list[int], list[int], int]:
    """The axes that indices name, the others, and before how many of those NumPy puts what the indices give: it stands
    where they do, or in front if they do not stand together."""
    axes = [axis for axis, each in enumerate(indices) if each is not None]
    together = axes == [*range(axes[0], axes[0] + len(axes))]
    return axes, [axis for axis in range(rank) if axis not in axes], axes[0] if together else 0


def coordinates(indices: Sequence[Value]) -> Value:
    """Index tensors, broadcast and side by side on a last axis, as ONNX's GatherND takes them."""
    shape = common_shape(indices)
    columns = [ops.reshape(expanded(converted(each, I64), shape), shape=(*shape, 1)) for each in indices]
    return columns[0] if len(columns) == 1 else ops.concat(*columns, axis=len(shape))


def common_shape(values: Sequence[Value]) -> tuple[Dim, ...]:
    """The shape to which values broadcast."""
    rank = max(each.rank for each in values)
    return broadcast_shape([(1,) * (rank - each.rank) + each.shape for each in values])


def broadcast_shape(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The shape to which shapes of one rank broadcast."""
    return tuple(dims.broadcast(*extents) for extents in zip(*shapes, strict=True))


def expanded(x: Value, shape: Sequence[Dim]) -> Value:
    """x broadcast to a shape."""
    if x.shape == tuple(shape):
        return x
    return ops.expand(reshaped(x, (1,) * (len(shape) - x.rank) + x.shape), shape=tuple(shape))


@reads("index_put")
def index_put(self, indices, values, accumulate=False):
    named: list[Value] = [each for each in indices if each is not None]
    if len(named) == 1 and named[0].dtype is BOOL and values.type.elements == 1 and not accumulate:
        before = indices.index(named[0])
        mask = reshaped(named[0], named[0].shape + (1,) * (self.rank - before - named[0].rank))
        return ops.select(mask, converted(reshaped(values, ()), self.dtype), self)
    indices = positions(indices)
    axes, rest, first = named_axes(indices, self.rank)
    where = coordinates([indices[axis] for axis in axes])
    places = where.shape[:-1]
    shape = [self.shape[axis] for axis in rest]
    values = expanded(converted(values, self.dtype), (*shape[:first], *places, *shape[first:]))
    stop = first + len(places)
    front = ops.transpose(values, permutation=(*range(first, stop), *range(first), *range(stop, values.rank)))
    order = (*axes, *rest)
    written = ops.scatter(
        ops.transpose(self, permutation=order), where, front, reduction="add" if accumulate else "none"
    )
    return ops.transpose(written, permutation=inverse(order))


@reads("scatter.src", "scatter.value", "scatter.reduce", "scatter.value_reduce")
def scatter(self, dim, index, src, *, reduce=None):
    how = {None: "none", "add": "add", "multiply": "mul"}[reduce]
    return scattered(self, dim, index, src, how)


@reads("scatter_add")
def scatter_add(self, dim, index, src):
    return scattered(self, dim, index, src, "add")


@reads("scatter_reduce.two")
def scatter_reduce(self, dim, index, src, reduce, *, include_self=True):
    return combined(lambda x, source, how: scattered(x, dim, index, source, how), self, src, reduce, include_self)


@reads("index_reduce")
def index_reduce(self, dim, index, source, reduce, *, include_self=True):
    places = valid(index, length_of(self, dim))
    return combined(lambda x, each, how: with_slices(x, dim, places, each, how), self, source, reduce, include_self)


def combined(write: Callable[[Value, Any, str], Value], x: Value, source: Value, reduce: str, with_own: bool) -> Value:
    """x with the elements that `write` writes of a source reduced, together with those of x or without. A mean is the
    sum by the count, rounded down where it is of integers."""
    low, high = (-math.inf, math.inf) if x.dtype.is_float else limits(x.dtype)
    how, identity = {"sum": ("add", 0), "mean": ("add", 0), "prod": ("mul", 1), "amax": ("max", low),
                     "amin": ("min", high)}[reduce]  # fmt: skip
    start = x if with_own else write(x, literal(identity, x.dtype), "none")
    result = write(start, source, how)
    if reduce != "mean":
        return result
    ones, one = (ops.expand(literal(1, x.dtype), shape=each.shape) for each in (x, source))
    counts = write(ones if with_own else ops.sub(ones, 1), one, "add")
    counts = ops.maximum(counts, literal(1, x.dtype))
    return ops.div(result, counts, rounding="floor")


def scattered(x: Value, dim: int, index: Value, source: Any, reduction: str | None) -> Value:
    if not x.rank or not index.rank:
        index = reshaped(index, (index.type.elements,))
        return reshaped(scattered(reshaped(x, (x.type.elements,)), 0, index, source, reduction), x.shape)
    values = converted(source, x.dtype)
    if not isinstance(source, Value) or not values.rank:
        values = ops.expand(values, shape=index.shape)
    elif values.shape != index.shape:  # what lies beyond the index is not read
        values = ops.slice_(values, starts=(0,) * values.rank, stops=index.shape, steps=(1,) * values.rank)
    axis = axis_of(dim, x.rank)
    return ops.scatter_elements(x, index, values, axis=axis, reduction=reduction, bounds="positive")


@reads("index_add")
def index_add(self, dim, index, source, *, alpha=1):
    return with_slices(self, dim, valid(index, length_of(self, dim)), times(source, alpha, self.dtype), "add")


@reads("index_copy")
def index_copy(self, dim, index, source):
    return with_slices(self, dim, valid(index, length_of(self, dim)), source, "none")


@reads("index_fill.int_Scalar", "index_fill.int_Tensor")
def index_fill(self, dim, index, value):
    """Here negative indices count from the end."""
    return with_slices(self, dim, index, value, "none")


def length_of(x: Value, dim: int) -> Dim:
    return x.shape[axis_of(dim, x.rank)] if x.rank else 1


def with_slices(x: Value, dim: int, index: Value, source: Any, reduction: str) -> Value:
    """x with slices along an axis replaced by, or combined with, those of a source, or one element for all."""
    axis = axis_of(dim, x.rank)
    flat, index = reshaped(x, x.shape or (1,)), reshaped(index, (index.type.elements,))
    shape = (*flat.shape[:axis], *index.shape, *flat.shape[axis + 1 :])
    values = converted(source, x.dtype)
    values = expanded(reshaped(values, values.shape or (1,)), shape)
    order = (axis, *(each for each in range(flat.rank) if each != axis))
    written = ops.scatter(
        ops.transpose(flat, permutation=order),
        ops.reshape(index, shape=(*index.shape, 1)),
        ops.transpose(values, permutation=order),
        reduction=reduction,
    )
    return reshaped(ops.transpose(written, permutation=inverse(order)), x.shape)


def added_along(x: Value, places: Value, axis: int, size: Dim) -> Value:
    """x [*A, O, K, *B] added up along an axis, [*A, size, *B], at places [O, K] of it: the transpose of a gather."""
    flat = (*x.shape[:axis], dims.product(places.shape), *x.shape[axis + 2 :])
    zeros = ops.expand(literal(0, x.dtype), shape=(*x.shape[:axis], size, *x.shape[axis + 2 :]))
    return with_slices(zeros, axis, reshaped(places, (dims.product(places.shape),)), reshaped(x, flat), "add")


@reads("replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward")
def replication_pad_backward(grad_output, self, padding):
    """An element at an edge takes the gradients of its copies, too."""
    low, high = sides(self.rank, padding)
    result = grad_output
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if before == after == 0:
            continue
        size = self.shape[axis]
        places = ops.sub(ops.iota(shape=(result.shape[axis], 1), axis=0, dtype=I64), converted(before, I64))
        places = ops.minimum(ops.maximum(places, 0), converted(size - 1, I64))
        column = (*result.shape[: axis + 1], 1, *result.shape[axis + 1 :])
        result = added_along(ops.reshape(result, shape=column), places, axis, size)
    return result


def valid(index: Value, size: Dim) -> Value:
    """Indices that are neither negative nor beyond an axis, or an error."""
    return ops.gather(ops.iota(shape=(size,), axis=0, dtype=I64), index, axis=0, bounds="positive")


@reads("select_scatter")
def select_scatter(self, src, dim, index):
    axis = axis_of(dim, self.rank)
    place = counted_from_start(extent(index), self.shape[axis])
    one = reshaped(converted(src, self.dtype), (*self.shape[:axis], 1, *self.shape[axis + 1 :]))
    return spliced(self, one, axis, place, place + 1)


@reads("slice_scatter")
def slice_scatter(self, src, dim=0, start=None, end=None, step=1):
    axis = axis_of(dim, self.rank)
    size = self.shape[axis]
    first = within(0 if start is None else extent(start), size)
    last = dims.maximum(size if end is None else within(extent(end), size), first)
    if step != 1:
        count = src.shape[axis]
        places = ops.add(ops.mul(ops.iota(shape=(count,), axis=0, dtype=I64), step), converted(first, I64))
        return with_slices(self, axis, places, src, "none")
    return spliced(self, converted(src, self.dtype), axis, first, last)


@reads("diagonal_scatter")
def diagonal_scatter(self, src, offset=0, dim1=0, dim2=1):
    """A copy of a tensor with other elements on a diagonal of two axes."""
    order, places = diagonal_places(self, offset, dim1, dim2)
    x = ops.transpose(self, permutation=order)
    flat = reshaped(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    written = reshaped(with_slices(flat, flat.rank - 1, places, src, "none"), x.shape)
    return ops.transpose(written, permutation=inverse(order))


@reads("put")
def put(self, index, source, accumulate=False):
    """Elements at places in the flat tensor, of which negative ones count from the end."""
    flat, count = reshaped(self, (self.type.elements,)), index.type.elements
    written = ops.scatter(flat, reshaped(index, (count, 1)), reshaped(converted(source, self.dtype), (count,)),
                          reduction="add" if accumulate else "none")  # fmt: skip
    return reshaped(written, self.shape)


@reads("as_strided", "as_strided_copy")
def as_strided(self, size, stride, storage_offset=None):
    """Elements of the memory of a tensor, at any strides."""
    flat, start = storage(self)
    shape = extents(size)
    if is_dense(shape, extents(stride)) and known(dims.product(shape), self.type.elements) and start == 0 and not (
            storage_offset):  # fmt: skip
        return reshaped(flat, shape)
    return ops.gather(flat, strided_places(shape, stride, storage_offset, start), axis=0, bounds="positive")


@reads("as_strided_scatter")
def as_strided_scatter(self, src, size, stride, storage_offset=None):
    flat, start = storage(self)
    places = strided_places(extents(size), stride, storage_offset, start)
    written = with_slices(flat, 0, reshaped(places, (places.type.elements,)), reshaped(src, (src.type.elements,)),
                          "none")  # fmt: skip
    return in_order_of_strides(written, self)


def storage(x: Value) -> tuple[Value, int]:
    """The elements of the first operand in the order of its memory, and where in the memory they begin."""
    order = memory_order(x)
    memory = x if order == tuple(range(x.rank)) else ops.transpose(x, permutation=order)
    return reshaped(memory, (x.type.elements,)), example(0).storage_offset()


def in_order_of_strides(flat: Value, x: Value) -> Value:
    """What `storage` has made flat, as it was."""
    order = memory_order(x)
    memory = reshaped(flat, [x.shape[axis] for axis in order])
    same = order == tuple(range(x.rank))
    return memory if same else ops.transpose(memory, permutation=inverse(order))


def memory_order(x: Value) -> tuple[int, ...]:
    """The axes of the first operand by falling strides, where these leave nothing out."""
    strides = example(0).stride()
    if is_dense(x.shape, extents(strides)):
        return tuple(range(x.rank))
    if not all(isinstance(each, int) for each in (*x.shape, *strides)):
        unsupported("its strides are known only when it runs")
    order = tuple(sorted(range(x.rank), key=lambda axis: (-strides[axis], -x.shape[axis])))
    if not is_dense([x.shape[axis] for axis in order], [strides[axis] for axis in order]):
        unsupported("the memory of its operand has elements that the operand has not")
    return order


def is_dense(shape: Sequence[Dim], strides: Sequence[Dim]) -> bool:
    """Whether strides are those of a tensor whose elements lie in memory one after the other."""
    dense: Dim = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and not known(step, dense):
            return False
        dense = dense * size
    return True


def strided_places(shape: Sequence[Dim], stride: Sequence[Any], offset: Any, start: int) -> Value:
    """Where in memory that begins at `start` the elements of such strides are."""
    places = converted((start if offset is None else extent(offset)) - start, I64)
    for axis, step in enumerate(extents(stride)):
        count = ops.iota(shape=(shape[axis], *(1 for _ in shape[axis + 1 :])), axis=0, dtype=I64)
        places = ops.add(places, ops.mul(count, converted(step, I64)))
    return places if places.rank == len(shape) else ops.reshape(places, shape=tuple(shape))


def spliced(x: Value, inner: Value, axis: int, start: Any, stop: Any) -> Value:
    """x with its elements [start, stop) of an axis replaced."""
    parts = [cut(x, axis, 0, start), inner, cut(x, axis, stop, x.shape[axis])]
    kept = [part for part in parts if part.shape[axis] != 0]
    return kept[0] if len(kept) == 1 else ops.concat(*kept, axis=axis)


# -- as many as are true -----------------------------------------------------------------------------------------------


def true_places(mask: Value) -> Value:
    """Where a mask is true, i64[u, rank], in the order of its elements; u is a symbol that is defined here."""
    by_axis = as_many("NonZero", 13, [as_bool(mask)], mask.type.elements, lambda count: (mask.rank, count))
    return ops.transpose(by_axis, permutation=(1, 0))


def as_many(op_type: str, version: int, operands: Sequence[Value], most: Dim,
            shape: Callable[[Dim], tuple[Dim, ...]]) -> Value:
    """An ONNX operator, kept as an opaque operation, with a data-dependent number of results, at most `most`."""
    symbol = current_function().fresh_symbol("u", 0, dims.bounds(most)[1])
    attributes = {"domain": "", "op_type": op_type, "version": version, "attributes": {}}
    types = [TensorType(I64, shape(symbol.expr))]
    return Builder.active().create(ops.extern, operands, attributes, types=types, symbols=[symbol]).results[0]


def positions(indices: Sequence[Value | None]) -> list[Value | None]:
    """Indices with each mask replaced by the positions, axis by axis, of what is true in it."""
    replaced: list[Value | None] = []
    for each in indices:
        if each is None or each.dtype is not BOOL:
            replaced.append(each)
        elif not each.rank:
            unsupported("the mask is a scalar")
        else:
            places = true_places(each)
            replaced += [reshaped(cut(places, 1, axis, axis + 1), places.shape[:1]) for axis in range(each.rank)]
    return replaced


@reads("nonzero")
def nonzero(self):
    """Of a scalar that is not zero one place, which has no coordinates."""
    return true_places(self) if self.rank else cut(true_places(reshaped(self, (1,))), 1, 0, 0)


@reads("masked_select")
def masked_select(self, mask):
    shape = common_shape([self, mask])
    flat, places = (reshaped(expanded(each, shape), (dims.product(shape),)) for each in (self, mask))
    (chosen,) = positions([places])
    return ops.gather(flat, chosen, axis=0, bounds="promised")


@reads("masked_scatter")
def masked_scatter(self, mask, source):
    """The n-th true element takes the n-th of the source."""
    if dims.equal(source.type.elements, 0) is not False:
        return self if source.type.elements == 0 else unsupported("the source may be empty")
    shape = common_shape([self, mask])
    self, mask = expanded(self, shape), expanded(mask, shape)
    flat = reshaped(converted(mask, I64), (self.type.elements,))
    rank = ops.maximum(ops.sub(ops.scan(flat, kind="sum", axis=0), 1), 0)
    rank = ops.minimum(rank, converted(source.type.elements - 1, I64))  # where nothing is true it may lie beyond
    taken = ops.gather(reshaped(source, (source.type.elements,)), rank, axis=0, bounds="promised")
    return ops.select(mask, reshaped(taken, self.shape), self)


@reads("torchvision::nms")
def non_maximum_suppression(dets, scores, iou_threshold):
    """The boxes f32[N, 4] that no box of a higher score overlaps by more than the threshold, best first: i64[u].

    Source: torchvision.ops.nms; ONNX NonMaxSuppression, whose order of a box's corners is another, but any will do.
    """
    count = dets.shape[0]
    boxes = ops.reshape(converted(dets, F32), shape=(1, count, 4))
    operands = [boxes, ops.reshape(converted(scores, F32), shape=(1, 1, count)),
                ops.reshape(converted(count, I64), shape=(1,)), const(value=Tensor.of([iou_threshold], F32))]
    kept = as_many("NonMaxSuppression", 11, operands, count, lambda number: (number, 3))
    return reshaped(cut(kept, 1, 2, 3), kept.shape[:1])
