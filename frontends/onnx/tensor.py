"""Rows of the operators that move, select or make elements, and of shapes.

What ONNX computes while it runs (the target of a Reshape, the ends of a Slice) is a dim here; where the dims are not
known before, a symbol is bound to them or the node is carried as `extern`.
"""

from __future__ import annotations

import math
from typing import Any

from irc import dims, ops
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import F32, F64, I64, from_onnx
from irc.frontends.onnx.reading import (
    carry,
    elements,
    entries,
    extent,
    extents,
    integer,
    integers,
    number,
    observe,
    of_rank,
    output_count,
)
from irc.frontends.onnx.table import Floats, Ints, reads
from irc.ir import Value
from irc.op import const, literal
from irc.ops.rules import normalize_axes, normalize_axis, replaced, rest_of_elements
from irc.ops.symbolic import is_dim
from irc.weights import Tensor

# -- shapes ---------------------------------------------------------------------------------------------------------


@reads("Shape")
def shape(x: Value, /, *, start: int = 0, end: int | None = None):
    observe(x)
    return ops.dim(value=x.shape[start:end])


@reads("Size")
def size(x: Value, /):
    observe(x)
    return ops.dim(value=x.type.elements)


@reads("Reshape", since=14)
def reshape(x: Value, target: Value, /, *, allowzero: int = 0):
    return reshaped(x, entries(target, "the shape"), allowzero)


@reads("Reshape")
def reshape_without_zeros(x: Value, target: Value, /):
    return reshaped(x, entries(target, "the shape"), allowzero=0)


def reshaped(x: Value, target: list[Any], allowzero: int):
    """-1 stands for what is left of the elements, and 0, unless zeros are allowed, for x's extent there. That is of a 0
    in the model: an entry that is computed, such as a named dim, is the extent also where it is 0 when it runs, where
    ONNX copies x's."""
    result = list(target)
    for axis, dim in enumerate(target):
        if dim == 0 and not allowzero:
            if axis >= x.rank:
                raise fail("onnx.invalid", f"Reshape: entry {axis} copies an extent that {x.type} lacks")
            result[axis] = x.shape[axis]
    open_axes = [axis for axis, dim in enumerate(result) if dim is None or dim == -1]
    if len(open_axes) > 1:
        if None in result:
            carry("the shape is known only when it runs", [None if dim == -1 else dim for dim in result])
        raise fail("onnx.invalid", f"Reshape: the shape {result} has more than one -1")
    inferred = None
    for axis in open_axes:  # a single extent known only when it runs is what is left, too
        rest = dims.product(dim for dim in result if dim is not None and dim != -1)
        if rest == 0:
            carry("what is left of no elements is not known", [None if dim == -1 else dim for dim in result])
        result[axis] = rest_of_elements(x.type.elements, rest)
        if target[axis] == -1 and not isinstance(result[axis], int) and dims.equal(rest, 0) is None:
            inferred = axis
        if dims.equal(result[axis] * rest, x.type.elements) is False:
            raise fail("type.shape", f"Reshape: the elements of {x.type} cannot be laid out as {target}")
    return ops.reshape(x, shape=tuple(result), inferred=inferred)


@reads("Flatten")
def flatten(x: Value, /, *, axis: int = 1):
    if not -x.rank <= axis <= x.rank:
        raise fail("type.rank", f"Flatten: axis {axis} of {x.type}", expected=f"an axis in [{-x.rank}, {x.rank}]")
    place = axis if axis >= 0 else axis + x.rank
    return ops.reshape(x, shape=(dims.product(x.shape[:place]), dims.product(x.shape[place:])))


@reads("Squeeze", since=13)
def squeeze(x: Value, axes: Value | None = None, /):
    return squeezed(x, None if axes is None else integers(axes, "axes"))


@reads("Squeeze")
def squeeze_by_attribute(x: Value, /, *, axes: Ints | None = None):
    return squeezed(x, axes)


def squeezed(x: Value, axes: tuple[int, ...] | None):
    if axes is None:
        verdicts = [dims.equal(dim, 1) for dim in x.shape]
        if None in verdicts:
            carry("which axes have extent 1 is known only when it runs")
        axes = tuple(axis for axis, is_one in enumerate(verdicts) if is_one)
    gone = normalize_axes(axes, x.rank)
    for axis in gone:
        if dims.equal(x.shape[axis], 1) is False:
            raise fail("type.shape", f"Squeeze: axis {axis} of {x.type} does not have extent 1")
    return ops.reshape(x, shape=tuple(dim for axis, dim in enumerate(x.shape) if axis not in gone))


@reads("Unsqueeze", since=13)
def unsqueeze(x: Value, axes: Value, /):
    return unsqueezed(x, integers(axes, "axes"))


@reads("Unsqueeze")
def unsqueeze_by_attribute(x: Value, /, *, axes: Ints):
    return unsqueezed(x, axes)


def unsqueezed(x: Value, axes: tuple[int, ...]):
    rank = x.rank + len(axes)
    new = normalize_axes(axes, rank)
    old = iter(x.shape)
    return ops.reshape(x, shape=tuple(1 if axis in new else next(old) for axis in range(rank)))


@reads("Expand")
def expand(x: Value, target: Value, /):
    """Broadcasts both ways: an entry of 1 leaves x's extent."""
    target_shape = extents(target, "the shape")
    rank = max(x.rank, len(target_shape))
    ours = (1,) * (rank - x.rank) + x.shape
    theirs = (1,) * (rank - len(target_shape)) + target_shape
    return ops.expand(x, shape=tuple(map(dims.broadcast, ours, theirs)))


@reads("Tile")
def tile(x: Value, repeats: Value, /):
    return ops.tile(x, repeats=extents(repeats, "the repeats"))


@reads("Transpose")
def transpose(x: Value, /, *, perm: Ints | None = None):
    return ops.transpose(x, permutation=tuple(reversed(range(x.rank))) if perm is None else perm)


# -- parts ----------------------------------------------------------------------------------------------------------


@reads("Slice", since=10)
def slice_(x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None, /):
    first, last = entries(starts, "the starts"), entries(ends, "the ends")
    which = tuple(range(len(first))) if axes is None else integers(axes, "the axes")
    strides = (1,) * len(first) if steps is None else integers(steps, "the steps")
    return sliced(x, first, last, which, strides)


@reads("Slice")
def slice_by_attribute(x: Value, /, *, starts: Ints, ends: Ints, axes: Ints | None = None):
    return sliced(x, list(starts), list(ends), tuple(range(len(starts))) if axes is None else axes, (1,) * len(starts))


def sliced(x: Value, first: list[Any], last: list[Any], axes: tuple[int, ...], strides: tuple[int, ...]):
    """ONNX clamps the ends to x and walks backwards by negative steps; `slice` does neither."""
    if not len(first) == len(last) == len(axes) == len(strides) or 0 in strides:
        raise fail("onnx.invalid", f"Slice: these do not fit: {first}, {last}, axes {axes}, steps {strides}")
    places = normalize_axes(axes, x.rank)
    starts: list[Dim | None] = [0] * x.rank
    stops: list[Dim | None] = list(x.shape)
    steps = [1] * x.rank
    backward = []
    for place, start, stop, step in zip(places, first, last, strides, strict=True):
        whole = x.shape[place]
        if step < 0:
            # Element i is element whole - 1 - i of the reversed axis. An end of -1 is the last element here as
            # everywhere; what lies before the first is written as something less than -whole.
            backward.append(place)
            start, stop = clamped(start, whole, 0, whole - 1), clamped(stop, whole, -1, whole - 1)
            start, stop = (None if end is None else whole - 1 - end for end in (start, stop))
        else:
            start, stop = clamped(start, whole, 0, whole), clamped(stop, whole, 0, whole)
        starts[place] = start
        stops[place] = None if start is None or stop is None else dims.maximum(start, stop)
        steps[place] = abs(step)
    if None in starts or None in stops:
        carry("the ends are known only when it runs",
              [dim if place not in places else None for place, dim in enumerate(x.shape)])
    if backward:
        x = ops.reverse(x, axes=tuple(backward))
    return ops.slice_(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


FAR = 2**63 - 1  # an end that is beyond every tensor, in either direction


def clamped(end: Dim | None, whole: Dim, low: Dim, high: Dim) -> Dim | None:
    """An end of a slice as a position in [low, high]; None where even its sign is not known."""
    if end is None:
        return None
    if isinstance(end, int) and abs(end) >= FAR:
        return high if end > 0 else low
    is_negative = dims.less(end, 0)
    if is_negative is None:
        return None
    return dims.minimum(dims.maximum(end + whole if is_negative else end, low), high)


@reads("Concat")
def concat(*xs: Value, axis: int):
    return ops.concat(*xs, axis=axis)


@reads("Split", since=13)
def split(x: Value, sizes: Value | None = None, /, *, axis: int = 0, num_outputs: int = 0):
    return parted(x, None if sizes is None else extents(sizes, "the sizes"), axis)


@reads("Split")
def split_by_attribute(x: Value, /, *, axis: int = 0, split: Ints | None = None):
    return parted(x, split, axis)


def parted(x: Value, sizes: tuple[Dim, ...] | None, axis: int):
    """Without sizes the parts are equal, but for a smaller last one."""
    if sizes is None:
        whole, count = x.shape[normalize_axis(axis, x.rank)], output_count()
        part = dims.ceil_divide(whole, count)
        sizes = (*[part] * (count - 1), whole - part * (count - 1))
    return ops.split(x, axis=axis, sizes=sizes)


@reads("Gather")
def gather(x: Value, indices: Value, /, *, axis: int = 0):
    return ops.gather(x, indices, axis=axis)


@reads("GatherElements", since=11)
def gather_elements(x: Value, indices: Value, /, *, axis: int = 0):
    return ops.gather_elements(x, indices, axis=axis)


@reads("GatherND", since=11)
def gather_nd(x: Value, indices: Value, /, *, batch_dims: int = 0):
    of_static_length(indices)
    return ops.gather_nd(x, indices, batch_dims=batch_dims)


def of_static_length(indices: Value) -> None:
    """Carry index vectors of which it is not known what they index."""
    if indices.rank and not isinstance(indices.shape[-1], int):
        carry("the length of the index vectors is known only when it runs")


@reads("Scatter", since=9)
def scatter(x: Value, indices: Value, updates: Value, /, *, axis: int = 0):
    return ops.scatter_elements(x, indices, updates, axis=axis)


@reads("ScatterElements", since=11)
def scatter_elements(x: Value, indices: Value, updates: Value, /, *, axis: int = 0, reduction: str = "none"):
    return ops.scatter_elements(x, indices, updates, axis=axis, reduction=reduction)


@reads("ScatterND", since=11)
def scatter_nd(x: Value, indices: Value, updates: Value, /, *, reduction: str = "none"):
    of_static_length(indices)
    return ops.scatter(x, indices, updates, reduction=reduction)


@reads("Trilu", since=14)
def trilu(x: Value, k: Value | None = None, /, *, upper: int = 1):
    return ops.trilu(x, upper=bool(upper), k=0 if k is None else integer(k, "k"))


@reads("TopK", since=11)
def top_k(x: Value, k: Value, /, *, axis: int = -1, largest: int = 1, sorted: int = 1):
    return ops.top_k(x, k=extent(k, "k"), axis=axis, largest=bool(largest))


@reads("TopK", since=10)
def top_k_largest(x: Value, k: Value, /, *, axis: int = -1):
    return ops.top_k(x, k=extent(k, "k"), axis=axis)


@reads("TopK")
def top_k_by_attribute(x: Value, /, *, k: int, axis: int = -1):
    return ops.top_k(x, k=k, axis=axis)


@reads("CumSum", since=11)
def cumulative_sum(x: Value, axis: Value, /, *, exclusive: int = 0, reverse: int = 0):
    return ops.scan(x, kind="sum", axis=integer(axis, "axis"), reverse=bool(reverse), exclusive=bool(exclusive))


@reads("CumProd", since=26)
def cumulative_product(x: Value, axis: Value, /, *, exclusive: int = 0, reverse: int = 0):
    return ops.scan(x, kind="prod", axis=integer(axis, "axis"), reverse=bool(reverse), exclusive=bool(exclusive))


# -- more elements --------------------------------------------------------------------------------------------------


@reads("Pad", since=11)
def pad(x: Value, pads: Value, value: Value | None = None, axes: Value | None = None, /, *, mode: str = "constant"):
    amounts = entries(pads, "the padding")
    which = tuple(range(x.rank)) if axes is None else integers(axes, "the axes")
    if value is not None and value.rank == 1:
        value = ops.reshape(value, shape=())
    return padded(x, amounts, which, value, mode)


@reads("Pad")
def pad_by_attribute(x: Value, /, *, pads: Ints, value: float = 0.0, mode: str = "constant"):
    return padded(x, list(pads), tuple(range(x.rank)), literal(value, x.dtype) if value else None, mode)


def padded(x: Value, amounts: list[Any], axes: tuple[int, ...], value: Value | None, mode: str):
    """Negative padding cuts off, which is a slice here."""
    if len(amounts) != 2 * len(axes):
        raise fail("onnx.invalid", f"Pad: {len(amounts)} amounts for {len(axes)} axes of {x.type}")
    low: list[Dim] = [0] * x.rank
    high: list[Dim] = [0] * x.rank
    starts: list[Dim] = [0] * x.rank
    stops = list(x.shape)
    for side, amount in enumerate(amounts):
        place = normalize_axis(axes[side % len(axes)], x.rank)
        if amount is None:
            carry("how much it pads is known only when it runs", [None] * x.rank)
        added, cut = dims.maximum(amount, 0), dims.maximum(-amount, 0)
        if side < len(axes):
            low[place], starts[place] = added, cut
        else:
            high[place], stops[place] = added, stops[place] - cut
    if starts != [0] * x.rank or stops != list(x.shape):
        if mode != "constant":
            carry(f"it pads and cuts off in mode {mode}")
        x = ops.slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)
    return ops.pad(x, value if mode == "constant" else None, low=tuple(low), high=tuple(high), mode=mode)


@reads("ConstantOfShape", since=9)
def constant_of_shape(target: Value, /, *, value: Tensor | None = None):
    if value is not None and value.size != 1:
        raise fail("onnx.invalid", f"ConstantOfShape: the value has {value.size} elements", expected="one")
    filling = Tensor.of(0.0, F32) if value is None else Tensor.of(value.array().reshape(()), value.dtype)
    return ops.expand(const(value=filling), shape=extents(target, "the shape"))


@reads("Range", since=11)
def range_(start: Value, limit: Value, delta: Value, /):
    """Positions from 0, scaled and shifted; the count is max(ceil((limit - start) / delta), 0).

    A limit that is a size cast to a float counts as that size, which f32 does not distinguish from its neighbors above
    2**24 (torch.arange, exported, counts the size itself too).
    """
    start, limit, delta = (x if x.rank == 0 else ops.reshape(x, shape=()) for x in (start, limit, delta))
    if not start.dtype.is_integer:
        first, stride, size = number(start, "start"), number(delta, "delta"), _cast_size(limit)
        last = number(limit, "limit") if size is None else 0
        if not stride or not all(map(math.isfinite, (first, last, stride))):
            raise fail("onnx.invalid", f"Range: from {first} to {last} by {stride}")
        count: Dim
        if size is None:
            count = max(math.ceil((last - first) / stride), 0)
        elif first == int(first) and stride == int(stride):
            count = dims.maximum(dims.ceil_divide(size - int(first), int(stride)), 0)
        else:
            carry("its steps are fractions")
        positions = ops.iota(shape=(count,), axis=0, dtype=start.dtype)
        return ops.add(ops.mul(positions, delta), start)
    step = integer(delta, "delta")
    if step == 0:
        raise fail("onnx.invalid", "Range: delta is 0")
    span = ops.sub(limit, start)
    known = elements(span)
    if known is None or known[0] is None:
        steps = ops.neg(ops.div(ops.neg(span), delta, rounding="floor"))
        count = extent(ops.maximum(steps, 0), "the count")
    else:
        count = dims.maximum(dims.ceil_divide(known[0], step), 0)
    result = ops.iota(shape=(count,), axis=0, dtype=start.dtype)
    result = result if step == 1 else ops.mul(result, delta)
    return result if elements(start) == [0] else ops.add(result, start)


def _cast_size(x: Value) -> Dim | None:
    """The size that a scalar of 32 or 64 bits was cast from."""
    cast = x.operation
    if cast is None or cast.name != "cast" or x.dtype not in (F32, F64) or not cast.inputs[0].dtype.is_integer:
        return None
    values = elements(cast.inputs[0])
    return values[0] if values is not None and len(values) == 1 and is_dim(values[0]) else None


@reads("OneHot", since=9)
def one_hot(indices: Value, depth: Value, values: Value, /, *, axis: int = -1):
    if not indices.dtype.is_integer:
        indices = ops.cast(indices, to=I64, saturate=False)
    if not depth.dtype.is_integer:
        depth = ops.cast(depth, to=I64, saturate=False)
    return ops.one_hot(indices, values, depth=extent(depth, "depth"), axis=axis)


@reads("EyeLike", since=9)
def eye_like(x: Value, /, *, dtype: int = 0, k: int = 0):
    rows, columns = of_rank(x, 2, "EyeLike: x")
    row = ops.iota(shape=(rows, 1), axis=0, dtype=I64)
    column = ops.iota(shape=(1, columns), axis=1, dtype=I64)
    diagonal = ops.equal(column, ops.add(row, k) if k else row)
    return ops.cast(diagonal, to=from_onnx(dtype) if dtype else x.dtype)


# -- other layouts --------------------------------------------------------------------------------------------------


@reads("DepthToSpace", since=11)
def depth_to_space(x: Value, /, *, blocksize: int, mode: str = "DCR"):
    divides(blocksize * blocksize, x.shape[1:2])
    return ops.depth_to_space(x, block=blocksize, mode=mode)


@reads("DepthToSpace")
def depth_to_space_by_depth(x: Value, /, *, blocksize: int):
    divides(blocksize * blocksize, x.shape[1:2])
    return ops.depth_to_space(x, block=blocksize)


@reads("SpaceToDepth")
def space_to_depth(x: Value, /, *, blocksize: int, mode: str = "DCR"):
    divides(blocksize, x.shape[2:])
    return ops.space_to_depth(x, block=blocksize, mode=mode)


def divides(block: int, extents: tuple[Dim, ...]) -> None:
    """Carry what cuts extents into blocks that do not provably fit."""
    if block > 0 and any(dims.equal(dims.modulo(extent, block), 0) is None for extent in extents):
        carry("whether its blocks fit is known only when it runs")


@reads("Resize", since=11)
def resize(x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None, /, *,
           antialias: int = 0, axes: Ints | None = None, coordinate_transformation_mode: str = "half_pixel",
           cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0,
           keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest", nearest_mode: str = "round_prefer_floor"):
    if antialias or exclude_outside or coordinate_transformation_mode == "tf_crop_and_resize":
        carry("it resizes with antialiasing, without what is outside, or a crop")
    if keep_aspect_ratio_policy != "stretch":
        carry("it keeps the aspect ratio")
    places = tuple(range(x.rank)) if axes is None else normalize_axes(axes, x.rank)
    options: dict[str, Any] = {"mode": mode, "coordinates": coordinate_transformation_mode, "nearest": nearest_mode,
               "cubic_coefficient": cubic_coeff_a}
    if sizes is not None:
        result_sizes = extents(sizes, "the sizes")
        return ops.resize(x, sizes=placed(x.shape, places, result_sizes), **options)
    return ops.resize(x, scales=placed((1.0,) * x.rank, places, factors(scales)), **options)


def resize_by_scales(x: Value, scales: Value, /, *, mode: str = "nearest"):
    return ops.resize(x, scales=placed((1.0,) * x.rank, tuple(range(x.rank)), factors(scales)), mode=mode,
                      coordinates="asymmetric", nearest="floor")


BY_SCALES = [reads("Resize", since=10)(resize_by_scales), reads("Upsample", since=9)(resize_by_scales)]


@reads("GridSample", since=16)
def grid_sample(x: Value, grid: Value, /, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"):
    known = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if x.dtype is not grid.dtype or not x.dtype.is_float:
        carry("its elements are no floats, or of another type than its positions")
    if known == "nearest" and padding_mode == "reflection":
        carry("it rounds positions before it reflects them, and PyTorch, which the operation follows, after")
    return ops.grid_sample(x, grid, mode=known, padding=padding_mode, align_corners=bool(align_corners))


@reads("Upsample")
def upsample_by_attribute(x: Value, /, *, scales: Floats, mode: str = "nearest"):
    return ops.resize(x, scales=scales, mode=mode, coordinates="asymmetric", nearest="floor")


def factors(scales: Value | None) -> tuple[float, ...]:
    values = None if scales is None else elements(scales)
    if values is None or not all(isinstance(factor, float) for factor in values):
        carry("the scales are known only when it runs")
    return tuple(values)


def placed(whole: tuple[Any, ...], places: tuple[int, ...], parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """`whole` with the entries at `places` replaced."""
    if len(places) != len(parts):
        raise fail("onnx.invalid", f"{len(parts)} entries for {len(places)} axes")
    for place, part in zip(places, parts, strict=True):
        whole = replaced(whole, place, part)
    return whole
