"""Operations that rearrange, select, repeat or resample elements."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import F32, F64, I64, DType, accumulator_of
from irc.interfaces import Trait
from irc.ir import Value
from irc.op import AnyTensor, Integer, Real, op
from irc.ops.functions import ceil, floor
from irc.ops.indexing import gather
from irc.ops.named.common import at_least, convert, number
from irc.ops.pointwise import (
    abs_,
    add,
    cast,
    div,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    maximum,
    minimum,
    mul,
    select,
    sub,
)
from irc.ops.products import sort
from irc.ops.rules import check_lengths, check_not_negative, normalize_axis, replaced
from irc.ops.view import expand, iota, reshape, slice_, transpose
from irc.types import TensorType

ResizeMode = Literal["nearest", "linear", "cubic"]
Coordinates = Literal[
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"
]
Nearest = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
TIE = 1e-6  # a position this close to a half counts as a half: rounding may have moved it; as in ONNX Runtime

# -- rearranging -----------------------------------------------------------------------------------------------


@op(Trait.REPEATS)
def tile(x: AnyTensor, /, *, repeats: tuple[Dim, ...]) -> Value:
    """x repeated a number of times along each axis.

    Shapes: x [d0, d1, ...] -> [repeats[0] * d0, repeats[1] * d1, ...].
    Attributes: repeats, one for each axis.
    Source: ONNX Tile-13; torch.tile with as many repeats as axes.
    """
    apart = [part for size in x.shape for part in (1, size)]
    side_by_side = [part for count, size in zip(repeats, x.shape, strict=True) for part in (count, size)]
    repeated = expand(reshape(x, shape=tuple(apart)), shape=tuple(side_by_side))
    return reshape(repeated, shape=tuple(count * size for count, size in zip(repeats, x.shape, strict=True)))


@tile.types
def _(x: TensorType, *, repeats: tuple[Dim, ...]) -> TensorType:
    check_lengths(x.rank, repeats=repeats)
    check_not_negative(repeats=repeats)
    return x.with_shape(count * size for count, size in zip(repeats, x.dims, strict=True))


@op
def depth_to_space(x: AnyTensor, /, *, block: int, mode: Literal["DCR", "CRD"] = "DCR") -> Value:
    """Channels rearranged into blocks of the spatial axes.

    Shapes: x [N, C, H, W], where block² divides C -> [N, C / block², H * block, W * block].
    Attributes: block, the size of a block along H and W; mode, the order in which C is split: (block, block, C/block²)
    for DCR, (C/block², block, block) for CRD.
    Source: ONNX DepthToSpace-13; torch.nn.functional.pixel_shuffle is CRD.
    """
    batch, channels, height, width = x.shape
    fewer = dims.floor_divide(channels, block * block)
    channel_axes = (block, block, fewer) if mode == "DCR" else (fewer, block, block)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    together = transpose(reshape(x, shape=(batch, *channel_axes, height, width)), permutation=order)
    return reshape(together, shape=(batch, fewer, height * block, width * block))


@depth_to_space.types
def _(x: TensorType, *, block: int, mode: str) -> TensorType:
    _check_image(x, block)
    batch, channels, height, width = x.dims
    _check_divides(block * block, channels, "C")
    return x.with_shape((batch, dims.floor_divide(channels, block * block), height * block, width * block))


@op
def space_to_depth(x: AnyTensor, /, *, block: int, mode: Literal["DCR", "CRD"] = "DCR") -> Value:
    """Blocks of the spatial axes rearranged into channels: the inverse of depth_to_space of the same mode.

    Shapes: x [N, C, H, W], where block divides H and W -> [N, C * block², H / block, W / block].
    Attributes: block, the size of a block along H and W; mode, the order of the axes that form the result's channels:
    (block, block, C) for DCR, (C, block, block) for CRD.
    Source: ONNX SpaceToDepth-13 is DCR; torch.nn.functional.pixel_unshuffle is CRD.
    """
    batch, channels, height, width = x.shape
    rows, columns = dims.floor_divide(height, block), dims.floor_divide(width, block)
    apart = reshape(x, shape=(batch, channels, rows, block, columns, block))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return reshape(transpose(apart, permutation=order), shape=(batch, channels * (block * block), rows, columns))


@space_to_depth.types
def _(x: TensorType, *, block: int, mode: str) -> TensorType:
    _check_image(x, block)
    batch, channels, height, width = x.dims
    _check_divides(block, height, "H")
    _check_divides(block, width, "W")
    rows, columns = dims.floor_divide(height, block), dims.floor_divide(width, block)
    return x.with_shape((batch, channels * (block * block), rows, columns))


def _check_image(x: TensorType, block: int) -> None:
    if x.rank != 4:
        raise fail("type.rank", f"x is {x}", expected="[N, C, H, W]")
    if block < 1:
        raise fail("type.attribute", f"block is {block}", expected="1 or more")


def _check_divides(divisor: int, size: Dim, name: str) -> None:
    if dims.equal(dims.modulo(size, divisor), 0) is not True:
        raise fail("type.shape", f"{divisor} is not known to divide {name}, which is {size}")


# -- selecting -------------------------------------------------------------------------------------------------


@op
def trilu(x: AnyTensor, /, *, upper: bool = True, k: int = 0) -> Value:
    """The upper or lower triangle of each matrix, zeros (or false) elsewhere.

    Shapes: x [..., M, N]. Result: x's type.
    Attributes: upper, whether the upper triangle is kept; k, the diagonal that bounds it: 0 the main, positive above.
    Source: ONNX Trilu-14; torch.triu, torch.tril.
    Edge cases: elements outside the triangle are 0, even where x is NaN.
    """
    rows, columns = x.shape[-2:]
    row = iota(shape=(rows, 1), axis=0, dtype=I64)
    column = iota(shape=(1, columns), axis=1, dtype=I64)
    bound = row if k == 0 else add(row, k)
    return select(greater_equal(column, bound) if upper else less_equal(column, bound), x, 0)


@trilu.types
def _(x: TensorType, *, upper: bool, k: int) -> TensorType:
    at_least(x, 2, "a matrix, or a batch of them")
    return x


@op(Trait.REPEATS)
def one_hot(indices: Integer, values: AnyTensor, /, *, depth: Dim, axis: int = -1) -> Value:
    """values[1] at the position of each index along a new axis, values[0] at other positions.

    Shapes: indices [*A, *B], values [2] -> values' element type in [*A, depth, *B], with depth at `axis`.
    Attributes: depth, the size of the new axis; axis, its position in the result.
    Source: ONNX OneHot-11; torch.nn.functional.one_hot with values [0, 1].
    Edge cases: negative indices count from the end; an index outside [-depth, depth) gives values[0] everywhere.
    """
    place = normalize_axis(axis, indices.rank + 1)
    wide = convert(indices, I64)
    counted = select(less(wide, 0), add(wide, number(depth, I64)), wide)
    counted = reshape(counted, shape=(*indices.shape[:place], 1, *indices.shape[place:]))
    positions = tuple(depth if i == place else 1 for i in range(indices.rank + 1))
    here = equal(counted, iota(shape=positions, axis=place, dtype=I64))
    off, on = (reshape(slice_(values, starts=(i,), stops=(i + 1,), steps=(1,)), shape=()) for i in (0, 1))
    return select(here, on, off)


@one_hot.types
def _(indices: TensorType, values: TensorType, *, depth: Dim, axis: int) -> TensorType:
    place = normalize_axis(axis, indices.rank + 1)
    check_not_negative(depth=(depth,))
    if values.rank != 1 or dims.equal(values.dims[0], 2) is False:
        raise fail("type.shape", f"values is {values}", expected="two entries: [off, on]")
    return values.with_shape((*indices.dims[:place], depth, *indices.dims[place:]))


@op
def gather_nd(x: AnyTensor, indices: Integer, /, *, batch_dims: int = 0) -> Value:
    """The element or slice of x at each index vector.

    Shapes: x [*B, *D, *E], indices [*B, *I, K] -> [*B, *I, *E]. D has K dims, B has batch_dims.
    Attributes: batch_dims, how many leading axes x and indices share.
    Source: ONNX GatherND-13; in PyTorch, x[i0, i1, ...].
    Edge cases: negative indices count from the end; an index that is out of range of its axis is `run.index`.
    """
    depth = indices.shape[-1]
    assert isinstance(depth, int)  # the type rule has checked it
    batch, indexed, rest = x.shape[:batch_dims], x.shape[batch_dims : batch_dims + depth], x.shape[batch_dims + depth :]
    index_shape = indices.shape[:-1]
    # One index into the flattened axes: the columns of `indices`, weighted by the sizes of the axes after them.
    columns = indices.rank - 1
    position = None
    for k, size in enumerate(indexed):
        starts = (*(0 for _ in index_shape), k)
        column = slice_(indices, starts=starts, stops=(*index_shape, k + 1), steps=(1,) * indices.rank)
        index = reshape(convert(column, I64), shape=index_shape)
        if depth + batch_dims > 1:
            index = gather(iota(shape=(size,), axis=0, dtype=I64), index, axis=0)
        position = index if position is None else add(mul(position, number(size, I64)), index)
    inner = dims.product(indexed)
    for axis in reversed(range(batch_dims)):
        shape = tuple(batch[axis] if i == axis else 1 for i in range(columns))
        stride = dims.product((*batch[axis + 1 :], inner))
        position = add(position, mul(iota(shape=shape, axis=axis, dtype=I64), number(stride, I64)))
    bounds = None if depth + batch_dims == 1 else "promised"
    return gather(reshape(x, shape=(dims.product((*batch, inner)), *rest)), position, axis=0, bounds=bounds)


@gather_nd.types
def _(x: TensorType, indices: TensorType, *, batch_dims: int) -> TensorType:
    at_least(indices, 1, "index vectors along the last axis")
    depth = indices.dims[-1]
    if not isinstance(depth, int):
        raise fail("type.shape", f"the length {depth} of the index vectors is not known", expected="a static last dim")
    if not 0 <= batch_dims < indices.rank or batch_dims + depth > x.rank or depth < 1:
        raise fail(
            "type.shape",
            f"index vectors of length {depth} after {batch_dims} batch dims, into {x} by {indices}",
            expected="at least 1 index, and no more than x has dims after the batch",
        )
    for a, b in zip(x.dims[:batch_dims], indices.dims[:batch_dims], strict=True):
        if dims.equal(a, b) is False:
            raise fail("type.shape", f"the batch dims of {x} and {indices} differ: {a} against {b}")
    return x.with_shape((*indices.dims[:-1], *x.dims[batch_dims + depth :]))


@op
def top_k(x: Real, /, *, k: Dim, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The k largest (or smallest) elements along an axis, in order, and their indices.

    Shapes: x has rank >= 1. Both results have x's shape with k at `axis`: elements of x's type, and i64 indices.
    Attributes: k, at most the size of the axis; axis, negative from the end; largest, or else the smallest elements.
    Source: ONNX TopK-11; torch.topk with sorted True.
    Edge cases: of equal elements the one with the lower index is first; NaN counts as the largest.
    """
    place = normalize_axis(axis, x.rank)
    stops = replaced(x.shape, place, k)
    ordered = sort(x, axis=place, descending=largest)
    values, indices = (slice_(v, starts=(0,) * x.rank, stops=stops, steps=(1,) * x.rank) for v in ordered)
    return values, indices


@top_k.types
def _(x: TensorType, *, k: Dim, axis: int, largest: bool) -> tuple[TensorType, TensorType]:
    place = normalize_axis(axis, x.rank)
    check_not_negative(k=(k,))
    if dims.less(x.dims[place], k) is True:
        raise fail("type.attribute", f"k is {k}", expected=f"at most {x.dims[place]}, the size of axis {axis}")
    values = x.with_shape(replaced(x.dims, place, k))
    return values, values.with_dtype(I64)


# -- resampling ------------------------------------------------------------------------------------------------


@op
def resize(
    x: Real,
    /,
    *,
    sizes: tuple[Dim, ...] | None = None,
    scales: tuple[float, ...] | None = None,
    mode: ResizeMode = "nearest",
    coordinates: Coordinates = "half_pixel",
    nearest: Nearest = "round_prefer_floor",
    cubic_coefficient: float = -0.75,
) -> Value:
    """x resampled to other sizes, axis by axis.

    Shapes: x [d0, d1, ...] -> `sizes`, or [floor(scales[0] * d0), ...]. An axis is not
    resampled if its size does not change and its scale is 1 or not given.
    Attributes: either sizes or scales, one for each axis; mode; coordinates, the map from an index of the result to a
    position in x; nearest, the rounding of mode "nearest"; cubic_coefficient, the constant a of mode "cubic".
    Source: ONNX Resize-19 without antialias, exclude_outside and crops; torch.nn.functional.interpolate:
    "nearest" is asymmetric and floor, "bilinear" pytorch_half_pixel or align_corners, "bicubic" half_pixel.
    Edge cases: a position outside x reads the nearest element of x. Positions are computed in f32 (f64 for f64), as in
    ONNX Runtime; another implementation may round a position to the other neighbor.
    """
    result = x if mode == "nearest" else convert(x, accumulator_of(x.dtype))
    for axis, (old, new) in enumerate(zip(x.shape, _resized(x.type, sizes, scales), strict=True)):
        scale = None if scales is None else scales[axis]
        if dims.equal(old, new) is True and scale in (None, 1.0):
            continue
        position = _source_positions(old, new, scale, coordinates, F64 if x.dtype is F64 else F32)
        if mode == "nearest":
            result = _nearby(result, _nearest(position, nearest), axis)
        elif mode == "linear":
            result = _linear(result, axis, position, old)
        else:
            result = _cubic(result, axis, position, cubic_coefficient)
    return convert(result, x.dtype)


@resize.types
def _(
    x: TensorType,
    *,
    sizes: tuple[Dim, ...] | None,
    scales: tuple[float, ...] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic_coefficient: float,
) -> TensorType:
    if mode != "nearest" and not x.dtype.is_float:
        raise fail("type.dtype", f"x is {x}", expected=f"a float type for mode {mode}")
    return x.with_shape(_resized(x, sizes, scales))


def _resized(x: TensorType, sizes: tuple[Dim, ...] | None, scales: tuple[float, ...] | None) -> tuple[Dim, ...]:
    """The sizes of the result."""
    if (sizes is None) == (scales is None):
        raise fail("type.attribute", "sizes and scales", expected="exactly one of the two")
    if sizes is not None:
        check_lengths(x.rank, sizes=sizes)
        check_not_negative(sizes=sizes)
        return sizes
    assert scales is not None
    check_lengths(x.rank, scales=scales)
    if not all(0 < scale < math.inf for scale in scales):
        raise fail("type.attribute", f"scales is {scales}", expected="numbers greater than 0")
    return tuple(_scaled(size, scale) for size, scale in zip(x.dims, scales, strict=True))


def _scaled(size: Dim, scale: float) -> Dim:
    """floor(size * scale). A scale that f32 only approximates is the simple fraction near it: 0.7 is 7/10."""
    exact = Fraction(scale)
    plain = exact.limit_denominator(1000)
    if abs(plain - exact) <= exact / 2**24:
        exact = plain
    return dims.floor_divide(size * exact.numerator, exact.denominator)


def _source_positions(old: Dim, new: Dim, scale: float | None, coordinates: str, dtype: DType) -> Value:
    """The position along an axis of x of each index of the result, as a vector [new]; not clamped to the axis."""
    index = iota(shape=(new,), axis=0, dtype=dtype)
    if coordinates == "align_corners":
        return div(mul(index, number(old - 1, dtype)), number(dims.maximum(new - 1, 1), dtype))
    factor = div(number(new, dtype), number(old, dtype)) if scale is None else scale
    if coordinates == "asymmetric":
        return div(index, factor)
    center = div(add(index, 0.5), factor)
    if coordinates == "tf_half_pixel_for_nn":
        return center
    if coordinates == "half_pixel_symmetric":
        # The middle of the result is the middle of x also where floor(scale * old) is less than scale * old.
        share = div(number(new, dtype), mul(number(old, dtype), factor))
        center = add(center, mul(div(number(old, dtype), 2), sub(1, share)))
    position = sub(center, 0.5)
    if coordinates == "pytorch_half_pixel":
        position = mul(position, number(dims.minimum(new - 1, 1), dtype))  # 0 where new is 1
    return position


def _nearest(position: Value, nearest: str) -> Value:
    """Positions rounded to integers."""
    if nearest == "floor":
        return floor(position)
    if nearest == "ceil":
        return ceil(position)
    below = floor(position)
    over = sub(position, below)
    up = greater(over, 0.5 + TIE) if nearest == "round_prefer_floor" else greater_equal(over, 0.5 - TIE)
    return select(up, add(below, 1), below)


def _nearby(x: Value, whole: Value, axis: int) -> Value:
    """The elements of an axis at integer positions, which are clamped to the axis."""
    index = minimum(maximum(cast(whole, to=I64), 0), number(x.shape[axis] - 1, I64))
    return gather(x, index, axis=axis, bounds="promised")


def _weight(weight: Value, axis: int, x: Value) -> Value:
    """One weight for each index of an axis, in x's type and shaped to broadcast with x."""
    shape = tuple(weight.shape[0] if i == axis else 1 for i in range(x.rank))
    return reshape(convert(weight, x.dtype), shape=shape)


def _linear(x: Value, axis: int, position: Value, size: Dim) -> Value:
    inside = maximum(position, 0)
    before = minimum(floor(inside), number(size - 1, position.dtype))
    share = minimum(sub(inside, before), 1)
    left = _nearby(x, before, axis)
    right = _nearby(x, add(before, 1), axis)
    return add(mul(left, _weight(sub(1, share), axis, x)), mul(right, _weight(share, axis, x)))


def _cubic(x: Value, axis: int, position: Value, a: float) -> Value:
    """Keys' convolution over the four nearest elements: "Cubic convolution interpolation" (1981), equation 4."""
    before = floor(position)
    share = sub(position, before)
    terms = []
    for offset in (-1, 0, 1, 2):
        distance = abs_(sub(share, offset))
        if offset in (0, 1):  # at most 1 away: (a + 2)d³ - (a + 3)d² + 1
            weight = add(mul(mul(sub(mul(distance, a + 2), a + 3), distance), distance), 1)
        else:  # between 1 and 2 away: a(d³ - 5d² + 8d - 4)
            weight = mul(sub(mul(add(mul(sub(distance, 5), distance), 8), distance), 4), a)
        part = _nearby(x, add(before, offset), axis)
        terms.append(mul(part, _weight(weight, axis, x)))
    return add(add(terms[0], terms[1]), add(terms[2], terms[3]))
