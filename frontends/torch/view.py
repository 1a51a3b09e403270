"""Rows that move elements without computing: shapes, slices, padding, concatenation; and tensors made from numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc import dims, ops
from irc.dims import Dim, maximum
from irc.dtypes import BOOL, F32, I64, U8, U16, U32, U64, DType, part_of
from irc.frontends.torch.complex_numbers import of_pairs, pairs_of
from irc.frontends.torch.reading import (
    axes_of,
    axis_of,
    converted,
    dtype_of,
    extent,
    extents,
    result_dtype,
    sizes,
    unsupported,
)
from irc.frontends.torch.table import reads
from irc.ir import Value
from irc.op import literal
from irc.ops.rules import rest_of_elements

TO_THE_END = 2**63 - 1  # how ATen writes a slice without an end


@reads("view", "reshape", "_unsafe_view", "view_copy", "resize")
def view(self, size, **options):
    shape = list(sizes(size))
    if -1 in shape:
        hole = shape.index(-1)
        others = dims.product(size for index, size in enumerate(shape) if index != hole)
        shape[hole] = 0 if others == 0 else rest_of_elements(self.type.elements, others)
    return reshaped(self, shape)


def reshaped(x: Value, shape: Sequence[Dim]) -> Value:
    return x if tuple(shape) == x.shape else ops.reshape(x, shape=tuple(shape))


@reads("view.dtype")
def view_as_dtype(self, dtype):
    """The same bits as elements of another type; of other width, more or fewer along the last axis."""
    return viewed_as(self, dtype_of(dtype))


def viewed_as(x: Value, target: DType) -> Value:
    """The bits of x as elements of another type. A bool is a byte, which is true where it is not 0, and a complex
    number is two of its parts."""
    old, new = x.dtype.bits, target.bits
    if min(old, new) < 8:
        unsupported(f"it takes {x.dtype} for {target}")
    if x.dtype is target:
        return x
    if x.dtype is BOOL:
        return viewed_as(converted(x, U8), target)
    if target is BOOL:
        return ops.not_equal(viewed_as(x, U8), 0)
    *lead, last = x.shape or (1,)
    if x.dtype.is_complex:
        result = viewed_as(ops.reshape(pairs_of(x), shape=(*lead, last * 2)), target)
    elif target.is_complex:
        parts = viewed_as(reshaped(x, (*lead, last)), part_of(target))
        pairs = ops.reshape(parts, shape=(*lead, dims.floor_divide(parts.shape[-1], 2), 2))
        result = of_pairs(pairs, target)
    elif old == new:
        return ops.bitcast(x, to=target)
    elif new < old:
        parts = split_bits(x, UNSIGNED[old], UNSIGNED[new])
        return ops.bitcast(ops.reshape(parts, shape=(*lead, last * (old // new))), to=target)
    else:
        count = new // old
        grouped = ops.reshape(x, shape=(*lead, dims.floor_divide(last, count), count))
        return ops.bitcast(joined_bits(grouped, UNSIGNED[old], UNSIGNED[new]), to=target)
    return result if x.rank else reshaped(result, ())


UNSIGNED = {8: U8, 16: U16, 32: U32, 64: U64}


def split_bits(x: Value, wide: DType, narrow: DType) -> Value:
    """Each element as several on a new last axis, the lowest bits first."""
    bits = ops.reshape(ops.bitcast(x, to=wide), shape=(*x.shape, 1))
    shifts = ops.mul(ops.iota(shape=(wide.bits // narrow.bits,), axis=0, dtype=wide), literal(narrow.bits, wide))
    low = ops.bitwise_and(ops.shift_right(bits, shifts), literal(2**narrow.bits - 1, wide))
    return converted(low, narrow)


def joined_bits(x: Value, narrow: DType, wide: DType) -> Value:
    """Those on the last axis as one element: the sum, which has no carries."""
    bits = converted(ops.bitcast(x, to=narrow), wide)
    shifts = ops.mul(ops.iota(shape=x.shape[-1:], axis=0, dtype=wide), literal(narrow.bits, wide))
    return ops.reduce_sum(ops.shift_left(bits, shifts), axes=(x.rank - 1,))


@reads("flatten.using_ints")
def flatten(self, start_dim=0, end_dim=-1):
    first, last = axis_of(start_dim, self.rank), axis_of(end_dim, self.rank)
    return reshaped(self, (*self.shape[:first], dims.product(self.shape[first : last + 1]), *self.shape[last + 1 :]))


@reads("permute", "permute_copy")
def permute(self, dims):
    order = tuple(axis_of(dim, self.rank) for dim in dims)
    return self if order == tuple(range(self.rank)) else ops.transpose(self, permutation=order)


@reads("transpose.int", "transpose_copy.int")
def transpose(self, dim0, dim1):
    if not self.rank:
        return self
    order = list(range(self.rank))
    a, b = axis_of(dim0, self.rank), axis_of(dim1, self.rank)
    order[a], order[b] = order[b], order[a]
    return self if a == b else ops.transpose(self, permutation=tuple(order))


@reads("t", "t_copy")
def matrix_transpose(self):
    return self if self.rank < 2 else ops.transpose(self, permutation=(1, 0))


@reads("unsqueeze", "unsqueeze_copy")
def unsqueeze(self, dim):
    place = dim + self.rank + 1 if dim < 0 else dim
    return ops.reshape(self, shape=(*self.shape[:place], 1, *self.shape[place:]))


@reads("squeeze", "squeeze.dim", "squeeze.dims", "squeeze_copy", "squeeze_copy.dim", "squeeze_copy.dims")
def squeeze(self, dim=None):
    named = () if dim == [] else axes_of(dim, self.rank)
    gone = {axis for axis in named if self.rank and self.shape[axis] == 1}
    return reshaped(self, [size for axis, size in enumerate(self.shape) if axis not in gone])


@reads("expand", "expand_copy")
def expand(self, size, *, implicit=False):
    target = sizes(size)
    source = (1,) * (len(target) - self.rank) + self.shape
    # An axis stays 1 only where it is 1; PyTorch's export takes sizes that may be 1 or 0 for 1 (x[1:2]).
    shape = tuple(old if new in (-1, 1) else new for old, new in zip(source, target, strict=True))
    x = reshaped(self, source)
    return x if shape == source else ops.expand(x, shape=shape)


@reads("repeat")
def repeat(self, repeats):
    counts = extents(repeats)
    return ops.tile(reshaped(self, (1,) * (len(counts) - self.rank) + self.shape), repeats=counts)


@reads("slice.Tensor", "slice_copy.Tensor")
def slice_(self, dim=0, start=None, end=None, step=1):
    axis = axis_of(dim, self.rank)
    size = self.shape[axis]
    first = within(0 if start is None else extent(start), size)
    last = size if end is None or end == TO_THE_END else within(extent(end), size)
    last = dims.maximum(first, last)
    if step < 1:
        unsupported("the step is not positive")
    if (first, last, step) == (0, size, 1):
        return self
    return cut(self, axis, first, last, step)


def within(place: Dim, size: Dim) -> Dim:
    """A place in [0, size]: negative ones count from the end, what lies beyond is the end."""
    return dims.minimum(dims.maximum(counted_from_start(place, size), 0), size)


def counted_from_start(place: Dim, size: Dim) -> Dim:
    """A place in an axis, of which negative ones count from the end."""
    low, high = dims.bounds(place)
    if high < 0:
        return place + size
    is_negative = dims.minimum(dims.maximum(-place, 0), 1) if low < 0 else 0
    return place + size * is_negative


def cut(x: Value, axis: int, start: Dim, stop: Dim, step: int = 1) -> Value:
    """Elements [start, stop) of one axis, each `step`-th."""
    return ops.slice_(
        x,
        starts=tuple(start if each == axis else 0 for each in range(x.rank)),
        stops=tuple(stop if each == axis else size for each, size in enumerate(x.shape)),
        steps=tuple(step if each == axis else 1 for each in range(x.rank)),
    )


@reads("narrow", "narrow_copy")
def narrow(self, dim, start, length):
    axis = axis_of(dim, self.rank)
    first = counted_from_start(extent(start), self.shape[axis])
    return cut(self, axis, first, first + extent(length))


@reads("select.int", "select_copy.int")
def select(self, dim, index):
    axis = axis_of(dim, self.rank)
    place = counted_from_start(extent(index), self.shape[axis])
    one = cut(self, axis, place, place + 1)
    return ops.reshape(one, shape=(*self.shape[:axis], *self.shape[axis + 1 :]))


@reads("split_with_sizes", "split.sizes", "split_with_sizes_copy")
def split_with_sizes(self, split_sizes, dim=0):
    return listed(ops.split(self, axis=axis_of(dim, self.rank), sizes=extents(split_sizes)))


@reads("split.Tensor", "split_copy.Tensor")
def split(self, split_size, dim=0):
    axis, step = axis_of(dim, self.rank), extent(split_size)
    size = self.shape[axis]
    if not isinstance(size, int) or not isinstance(step, int):
        unsupported("into how many parts is known only when it runs")
    if size == 0 or step == 0:
        return (self,)
    return listed(ops.split(self, axis=axis, sizes=tuple(min(step, size - at) for at in range(0, size, step))))


@reads("unbind.int", "unbind_copy.int")
def unbind(self, dim=0):
    axis = axis_of(dim, self.rank)
    count = self.shape[axis]
    if not isinstance(count, int):
        unsupported("into how many parts is known only when it runs")
    return tuple(select.function(self, axis, place) for place in range(count))


def listed(parts: Any) -> tuple[Value, ...]:
    return (parts,) if isinstance(parts, Value) else tuple(parts)


@reads("cat")
def cat(tensors, dim=0):
    dtype = result_dtype()
    # An empty vector is left out whatever the rank of the others: ATen keeps this for old programs.
    parts = [converted(x, dtype) for x in tensors if x.shape != (0,)] or [converted(tensors[0], dtype)]
    return parts[0] if len(parts) == 1 else ops.concat(*parts, axis=axis_of(dim, parts[0].rank))


@reads("stack")
def stack(tensors, dim=0):
    place = dim + tensors[0].rank + 1 if dim < 0 else dim
    return cat.function([unsqueeze.function(x, place) for x in tensors], place)


@reads("constant_pad_nd")
def constant_pad(self, pad, value=0):
    x, low, high = cropped(self, pad)
    fill = converted(value, x.dtype)
    return ops.pad(x, fill, low=low, high=high) if any(size != 0 for size in (*low, *high)) else x


def cropped(x: Value, pad: Sequence[Any]) -> tuple[Value, tuple[Dim, ...], tuple[Dim, ...]]:
    """x without what negative padding takes away, and the padding that is left."""
    low, high = sides(x.rank, pad)
    if any(dims.bounds(size)[0] < 0 for size in (*low, *high)):
        for axis, (before, after) in enumerate(zip(low, high, strict=True)):
            if not isinstance(before, int) or not isinstance(after, int):
                unsupported("whether it pads or crops is known only when it runs")
            if before < 0 or after < 0:
                x = cut(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
    return x, tuple(dims.maximum(size, 0) for size in low), tuple(dims.maximum(size, 0) for size in high)


def sides(rank: int, pad: Sequence[Any]) -> tuple[list[Dim], list[Dim]]:
    """ATen lists before and after of the last axis first."""
    low: list[Dim] = [0] * rank
    high: list[Dim] = [0] * rank
    for place, size in enumerate(extents(pad)):
        (high if place % 2 else low)[rank - 1 - place // 2] = size
    return low, high


@reads("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(self, padding):
    return extended(self, padding, "reflect")


@reads("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(self, padding):
    return extended(self, padding, "edge")


def extended(x: Value, padding: Sequence[Any], mode: Any) -> Value:
    """x with padding made of its elements, without what negative padding takes away, which may be padding's source."""
    low, high = sides(x.rank, padding)
    result = ops.pad(x, low=tuple(dims.maximum(size, 0) for size in low),
                     high=tuple(dims.maximum(size, 0) for size in high), mode=mode)  # fmt: skip
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if any(dims.bounds(size)[0] < 0 for size in (before, after)):
            size = result.shape[axis]
            result = cut(result, axis, dims.maximum(-before, 0), size - dims.maximum(-after, 0))
    return result


@reads("flip")
def flip(self, dims):
    return ops.reverse(self, axes=axes_of(dims, self.rank)) if dims and self.rank else self


@reads("roll")
def roll(self, shifts, dims=()):
    if not dims:
        flat = roll.function(reshaped(self, (self.type.elements,)), shifts, (0,))
        return reshaped(flat, self.shape)
    x = self
    for shift, dim in zip(extents(shifts), dims, strict=True):
        axis = axis_of(dim, x.rank)
        size = x.shape[axis]
        cutting = -shift % maximum(size, 1)  # an empty axis stays as it is
        if cutting != 0:
            x = ops.concat(cut(x, axis, cutting, size), cut(x, axis, 0, cutting), axis=axis)
    return x


@reads("tril")
def tril(self, diagonal=0):
    return ops.trilu(self, upper=False, k=diagonal)


@reads("triu")
def triu(self, diagonal=0):
    return ops.trilu(self, upper=True, k=diagonal)


@reads("pixel_shuffle")
def pixel_shuffle(self, upscale_factor):
    batch = self.shape[:-3]
    image = reshaped(self, (dims.product(batch), *self.shape[-3:]))
    shuffled = ops.depth_to_space(image, block=upscale_factor, mode="CRD")
    return reshaped(shuffled, (*batch, *shuffled.shape[1:]))


# -- tensors made from numbers ----------------------------------------------------------------------------------------


@reads("arange.start_step", "arange.start", "arange")
def arange(*bounds, **options):
    start, end, step = bounds if len(bounds) == 3 else (*((0,) if len(bounds) == 1 else ()), *bounds, 1)
    dtype = result_dtype()
    if isinstance(step, float) or isinstance(start, float) or isinstance(end, float):
        if not all(isinstance(bound, (int, float)) for bound in (start, end, step)):
            unsupported("its bounds are no integers")
        count: Dim = max(0, -int((start - end) // step))
    else:
        step = extent(step)
        count = dims.maximum(dims.ceil_divide(extent(end) - extent(start), step), 0)
    wide = dtype if dtype.is_integer or dtype.bits >= 32 else F32
    count_type = I64 if dtype.is_integer else wide
    places = ops.iota(shape=(count,), axis=0, dtype=count_type)
    if step != 1:
        places = ops.mul(places, converted(step, count_type))
    if start != 0:
        places = ops.add(places, converted(start, count_type))
    return converted(places, dtype)


def filled(shape: Sequence[Any], value: Any, dtype: Any) -> Value:
    return ops.expand(converted(value, dtype), shape=sizes(shape))


@reads("full")
def full(size, fill_value, **options):
    return filled(size, fill_value, result_dtype())


@reads("full_like")
def full_like(self, fill_value, **options):
    return filled(self.shape, fill_value, result_dtype())


@reads("zeros", "zeros_like", "new_zeros")
def zeros(size, *others, **options):
    shape = others[0] if others else size.shape if isinstance(size, Value) else size
    return filled(shape, 0, result_dtype())


@reads("ones", "ones_like", "new_ones")
def ones(size, *others, **options):
    shape = others[0] if others else size.shape if isinstance(size, Value) else size
    return filled(shape, 1, result_dtype())


@reads("new_full")
def new_full(self, size, fill_value, **options):
    return filled(size, fill_value, result_dtype())


@reads("fill.Scalar", "fill.Tensor")
def fill(self, value):
    return filled(self.shape, value, self.dtype)


@reads("scalar_tensor")
def scalar_tensor(s, **options):
    return converted(s, result_dtype())


@reads("eye", "eye.m")
def eye(n, m=None, **options):
    rows, columns = extent(n), extent(n if m is None else m)
    row = ops.iota(shape=(rows, 1), axis=0, dtype=I64)
    column = ops.iota(shape=(1, columns), axis=1, dtype=I64)
    return converted(ops.equal(row, column), result_dtype())


@reads("empty.memory_format", "empty_like", "new_empty", "empty_permuted", "empty_strided", "new_empty_strided")
def empty(size, *others, **options):
    """Its elements may be anything: zeros serve, and are the same each run."""
    return zeros.function(size, *(other for other in others[:1] if isinstance(size, Value)), **options)


@reads("diagonal", "diagonal_copy")
def diagonal(self, offset=0, dim1=0, dim2=1):
    """The elements at (i, i + offset) of two axes, on a new last axis."""
    order, places = diagonal_places(self, offset, dim1, dim2)
    x = ops.transpose(self, permutation=order)
    flat = reshaped(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    return ops.gather(flat, places, axis=flat.rank - 1, bounds="promised")


def diagonal_places(x: Value, offset: Any, dim1: int, dim2: int) -> tuple[tuple[int, ...], Value]:
    """The axes of x with two of them last, and where in these, as one, the elements of a diagonal are."""
    first, second = axis_of(dim1, x.rank), axis_of(dim2, x.rank)
    others = [axis for axis in range(x.rank) if axis not in (first, second)]
    rows, columns = x.shape[first], x.shape[second]
    if not isinstance(offset, int):
        unsupported("its offset is known only when it runs")
    count = dims.maximum(dims.minimum(rows + min(offset, 0), columns - max(offset, 0)), 0)
    start = max(offset, 0) - min(offset, 0) * columns
    places = ops.add(ops.mul(ops.iota(shape=(count,), axis=0, dtype=I64), converted(columns + 1, I64)),
                     converted(start, I64))
    return (*others, first, second), places


@reads("unfold", "unfold_copy")
def unfold(self, dimension, size, step):
    """Windows of `size` elements, `step` apart, on a new last axis."""
    if not self.rank:
        return reshaped(self, (size,)) if size == 1 else unsupported("it unfolds a scalar")
    axis = axis_of(dimension, self.rank)
    count = dims.floor_divide(self.shape[axis] - size, step) + 1
    starts = ops.mul(ops.iota(shape=(count, 1), axis=0, dtype=I64), converted(step, I64))
    places = ops.add(starts, ops.iota(shape=(1, size), axis=1, dtype=I64))
    windows = ops.gather(self, places, axis=axis, bounds="promised")
    order = [each for each in range(windows.rank) if each != axis + 1]
    return ops.transpose(windows, permutation=(*order, axis + 1))
