"""Views: primitives that move elements without computing; fused, they are index arithmetic.

Sizes are dims. Elements keep their bits. `iota` makes elements from their position alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from irc import dims, index_map
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import DType, accumulator_of
from irc.index_map import Coordinates, Guard, Guards, IndexMap, Point, axes, same, spread
from irc.interfaces import DataMovement, Trait
from irc.ir import Operation, Value
from irc.op import AnyType, primitive
from irc.ops.numerics import Array, narrow
from irc.ops.rules import (
    check_lengths,
    check_not_negative,
    check_positive,
    differ,
    normalize_axes,
    normalize_axis,
    replaced,
    same_dim,
    same_dtype,
)
from irc.scalar_builder import Scalar, ScalarBuilder
from irc.types import TensorType


def _source(result: Value) -> Value:
    """The first operand of the view that gave a value."""
    assert result.operation is not None
    return result.operation.inputs[0]


def _attribute(result: Value, name: str) -> Any:
    assert result.operation is not None
    return result.operation.attributes[name]


PadMode = Literal["constant", "edge", "reflect", "wrap"]


@primitive(DataMovement(), Trait.FREE, Trait.NO_ALLOCATION)
def reshape(x: AnyType, /, *, shape: tuple[Dim, ...], inferred: int | None = None) -> TensorType:
    """The elements of x in row-major order under another shape.

    Attributes: inferred, the axis of which the source of the program says -1, and which has no meaning there where
    another extent is 0: a backend may leave it to be inferred again. Without it all extents count.
    Shapes: x [*] -> `shape`, all entries given (no -1, no 0 for "as before"). Element counts must not be provably
    different; where that is unknown the count is checked when it runs (`run.shape`).
    Source: ONNX Reshape; NumPy reshape; ATen view.
    Edge cases: an empty array may take any shape with a 0.
    """
    check_not_negative(shape=shape)
    if inferred is not None and not 0 <= inferred < len(shape):
        raise fail("type.rank", f"axis {inferred} is not one of {len(shape)}")
    result = x.with_shape(shape)
    if x.shape is not None and differ(x.elements, result.elements):
        raise fail(
            "type.shape",
            f"cannot reshape {x} to {result}: {x.elements} elements against {result.elements}",
        )
    return result


@reshape.reference
def _reshape(x: Array, *, shape: tuple[int, ...], inferred: int | None) -> Array:
    if x.size != np.prod(shape, dtype=np.int64):
        raise fail("run.shape", f"cannot reshape an array of shape {list(x.shape)} to {list(shape)}")
    return x.reshape(shape)


reshape.index_maps(
    lambda result, at: (Point(index_map.reshape(at, result.shape, _source(result).shape)),),
    lambda result, at: replace(at, coordinates=index_map.reshape(at.coordinates, _source(result).shape, result.shape)),
)


@primitive(DataMovement(), Trait.FREE, Trait.NO_ALLOCATION)
def transpose(x: AnyType, /, *, permutation: tuple[int, ...]) -> TensorType:
    """Axes in another order: axis i of the result is axis `permutation[i]` of x.

    Shapes: x [d0, d1, ...] -> [d[permutation[0]], d[permutation[1]], ...].
    Source: ONNX Transpose; NumPy transpose; ATen permute.
    Edge cases: none; a scalar has the empty permutation.
    """
    axes = normalize_axes(permutation, len(permutation), "`permutation` entry")
    if x.shape is None:
        return x.with_shape(None)
    check_lengths(x.rank, permutation=permutation)
    return x.with_shape(x.dims[axis] for axis in axes)


@transpose.reference
def _transpose(x: Array, *, permutation: tuple[int, ...]) -> Array:
    return x.transpose(permutation)


transpose.index_maps(
    lambda result, at: (Point(index_map.transpose(at, _attribute(result, "permutation"))),),
    lambda result, at: replace(at, coordinates=tuple(at.coordinates[i] for i in _attribute(result, "permutation"))),
)


@primitive(DataMovement(), Trait.FREE, Trait.NO_ALLOCATION, Trait.REPEATS)
def expand(x: AnyType, /, *, shape: tuple[Dim, ...]) -> TensorType:
    """x repeated to `shape`: axes of extent 1 are repeated, missing ones added in front.

    Shapes: x broadcasts to exactly `shape` (one way: the result never has x's extent where `shape` says 1).
    Source: NumPy broadcast_to; ONNX Expand (which broadcasts both ways); ATen expand.
    Edge cases: an axis of extent 1 may become 0.
    """
    check_not_negative(shape=shape)
    result = x.with_shape(shape)
    if x.shape is None:
        return result
    offset = len(shape) - x.rank
    if offset < 0:
        raise fail("type.rank", f"cannot expand {x} to {len(shape)} dims")
    for position, dim in enumerate(x.dims):
        if differ(dim, shape[offset + position]) and differ(dim, 1):
            raise fail(
                "type.broadcast",
                f"cannot expand {x} to {result}: dim {offset + position}: {dim} vs {shape[offset + position]}",
            )
    return result


@expand.reference
def _expand(x: Array, *, shape: tuple[int, ...]) -> Array:
    front = len(shape) - x.ndim
    if front < 0 or any(have not in (1, want) for have, want in zip(x.shape, shape[front:], strict=True)):
        raise fail("run.shape", f"cannot expand an array of shape {list(x.shape)} to {list(shape)}")
    return np.broadcast_to(x, shape)


def _expand_pull(result: Value, at: Coordinates) -> tuple[Point, ...]:
    return (Point(spread(at, result.shape, _source(result).shape)),)


def _expand_push(result: Value, at: Point) -> Point | None:
    source = _source(result).shape
    return at if len(source) == result.rank and all(map(same, source, result.shape)) else None


expand.index_maps(_expand_pull, _expand_push)


@primitive(DataMovement(), Trait.FREE, Trait.NO_ALLOCATION)
def slice_(
    x: AnyType, /, *, starts: tuple[Dim, ...], stops: tuple[Dim, ...], steps: tuple[int, ...]
) -> TensorType:
    """Every `steps`-th element from `starts` up to, not including, `stops`, along each axis.

    Shapes: one entry for each axis; 0 <= start <= stop <= extent and step >= 1; the result has
    ceil((stop - start) / step). To walk backwards, `reverse`.
    Source: ONNX Slice; NumPy basic slicing; ATen slice.
    Edge cases: nothing is clamped: bounds that do not hold are an error (`type.attribute`, or `run.index` when it
    runs).
    """
    rank = len(starts) if x.shape is None else x.rank
    check_lengths(rank, starts=starts, stops=stops, steps=steps)
    check_positive(steps=steps)
    check_not_negative(starts=starts)
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if dims.less(stop, start) is True:
            raise fail("type.attribute", f"axis {axis}: the slice ends at {stop}, before its start {start}")
        if x.shape is not None and dims.less(x.dims[axis], stop) is True:
            beyond = f"beyond the extent {x.dims[axis]} of {x}"
            raise fail("type.attribute", f"axis {axis}: the slice ends at {stop}, {beyond}")
    bounds = zip(starts, stops, steps, strict=True)
    return x.with_shape(dims.ceil_divide(stop - start, step) for start, stop, step in bounds)


@slice_.reference
def _slice(x: Array, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    for axis, (start, stop, extent) in enumerate(zip(starts, stops, x.shape, strict=True)):
        if not 0 <= start <= stop <= extent:
            raise fail("run.index", f"axis {axis}: cannot slice [{start}:{stop}] out of extent {extent}")
    return np.asarray(x[tuple(map(slice, starts, stops, steps))])


def _part(view: Operation, part: int) -> tuple[Sequence[Dim], Sequence[int]]:
    """Starts and steps of a slice; a part of a split and a reverse are slices too."""
    attributes, shape = view.attributes, view.inputs[0].shape
    starts: list[Dim] = [0] * len(shape)
    steps = [1] * len(shape)
    if view.name == "slice":
        return attributes["starts"], attributes["steps"]
    if view.name == "split":
        starts[attributes["axis"]] = dims.total(attributes["sizes"][:part])
    for axis in attributes.get("axes", ()):
        starts[axis], steps[axis] = shape[axis] - 1, -1
    return starts, steps


def _slice_pull(result: Value, at: Coordinates) -> tuple[Point, ...]:
    assert result.operation is not None
    parts = zip(at, *_part(result.operation, result.index), strict=True)
    return (Point(tuple(start + step * coordinate for coordinate, start, step in parts)),)


def _slice_push(result: Value, at: Point) -> Point:
    assert result.operation is not None
    moved: list[Dim] = []
    guards = list(at.guards)  # only those elements of a slice arrive that the guards admit
    starts, steps = _part(result.operation, result.index)
    parts = zip(at.coordinates, starts, steps, result.shape, _source(result).shape, strict=True)
    for coordinate, start, step, extent, whole in parts:
        if step < 0:
            coordinate = start - coordinate
        elif not same(extent, whole):
            coordinate = coordinate - start
            if step > 1:
                guards.append(Guard(dims.modulo(coordinate, step), 1))
                coordinate = dims.floor_divide(coordinate, step)
            guards.append(Guard(coordinate, extent))
        moved.append(coordinate)
    return Point(tuple(moved), tuple(guards))


slice_.index_maps(_slice_pull, _slice_push)


@primitive(DataMovement(), Trait.REPEATS)
def pad(
    x: AnyType,
    value: AnyType | None = None,
    /,
    *,
    low: tuple[Dim, ...],
    high: tuple[Dim, ...],
    mode: PadMode = "constant",
) -> TensorType:
    """Elements added before (`low`) and after (`high`) along each axis.

    `constant` adds `value` (a scalar; 0 or false when absent), `edge` repeats the outermost element, `reflect`
    mirrors around it without repeating it, `wrap` continues as if x were repeated.

    Shapes: one entry for each axis, none negative; the result has low + extent + high.
    Source: ONNX Pad; NumPy pad; ATen constant_pad_nd, reflection_pad, replication_pad.
    Edge cases: `reflect` needs low and high below the extent (as torch; NumPy goes on reflecting), `edge` and `wrap`
    an extent of at least 1 where they add something: `type.shape`, or `run.shape` when it runs.
    """
    if value is not None:
        same_dtype(x, value)
        if mode != "constant":
            raise fail("type.operands", f"a value is given, but mode {mode} has no use for it")
        if value.shape is not None and value.rank:
            raise fail("type.rank", f"the padding value is {value}", expected="a scalar")
    rank = len(low) if x.shape is None else x.rank
    check_lengths(rank, low=low, high=high)
    check_not_negative(low=low, high=high)
    if x.shape is None:
        return x
    for axis, extent in enumerate(x.dims):
        for amount in (low[axis], high[axis]):
            if mode == "reflect" and dims.less_equal(extent, amount) is True and differ(amount, 0):
                raise fail("type.shape", f"axis {axis}: cannot reflect {amount} elements of {extent}")
            if mode != "constant" and dims.equal(extent, 0) is True and differ(amount, 0):
                raise fail("type.shape", f"axis {axis}: there is nothing to pad with in {x}")
    return x.with_shape(before + extent + after for before, extent, after in zip(low, x.dims, high, strict=True))


@pad.reference
def _pad(x: Array, value: Array | None = None, *, low: tuple[int, ...], high: tuple[int, ...], mode: PadMode) -> Array:
    check_not_negative(low=low, high=high)
    if mode == "constant":
        shape = tuple(before + extent + after for before, extent, after in zip(low, x.shape, high, strict=True))
        fill = np.zeros((), x.dtype) if value is None else value.reshape(())
        if x.dtype == object and value is None:
            fill = np.array("", object)
        result = np.full(shape, fill, x.dtype)
        result[tuple(slice(before, before + extent) for before, extent in zip(low, x.shape, strict=True))] = x
        return result
    for axis, (before, extent, after) in enumerate(zip(low, x.shape, high, strict=True)):
        if before == after == 0:
            continue
        if extent == 0 or (mode == "reflect" and max(before, after) >= extent):
            raise fail("run.shape", f"axis {axis}: cannot pad extent {extent} by {before} and {after} in mode {mode}")
        positions = np.arange(-before, extent + after)
        if mode == "edge":
            positions = np.clip(positions, 0, extent - 1)
        elif mode == "wrap":
            positions = positions % extent
        else:
            last = extent - 1
            positions = last - np.abs(last - np.abs(positions))
        x = np.take(x, positions, axis)
    return x


def _pad_pull(result: Value, at: Coordinates) -> tuple[Point, ...]:
    inside, guards = [], []
    mode, lows, highs = (_attribute(result, name) for name in ("mode", "low", "high"))
    for coordinate, low, high, extent in zip(at, lows, highs, _source(result).shape, strict=True):
        shifted = coordinate - low
        if same(low, 0) and same(high, 0):
            inside.append(coordinate)
        elif mode == "constant":
            inside.append(shifted)
            guards.append(Guard(shifted, extent))
        elif mode == "edge":
            inside.append(dims.minimum(dims.maximum(shifted, 0), extent - 1))
        elif mode == "reflect":
            folded = dims.maximum(shifted, -shifted)
            inside.append(dims.minimum(folded, 2 * (extent - 1) - folded))
        else:  # wrap
            inside.append(dims.modulo(shifted, extent))
    piece = Point(tuple(inside), tuple(guards))
    return (piece, Point((), (), 1)) if guards else (piece,)


pad.index_maps(_pad_pull)


@primitive(DataMovement())
def concat(*xs: AnyType, axis: int) -> TensorType:
    """The operands one after another along `axis`.

    Shapes: all dims but that of `axis` agree; the result has the sum there.
    Source: ONNX Concat; NumPy concatenate; ATen cat.
    Edge cases: empty operands take part like any other; dims that differ only when it runs are `run.shape`.
    """
    if not xs:
        raise fail("type.operands", "needs at least one operand")
    same_dtype(*xs)
    ranked = [x for x in xs if x.shape is not None]
    if not ranked:
        return xs[0]
    first = ranked[0]
    position = normalize_axis(axis, first.rank)
    shape = list(first.dims)
    for x in ranked[1:]:
        if x.rank != first.rank:
            raise fail("type.rank", f"{first} and {x} have different ranks")
        for i, dim in enumerate(x.dims):
            if i != position:
                if differ(shape[i], dim):
                    where = f"dim {i}: {shape[i]} vs {dim}"
                    raise fail("type.shape", f"{first} and {x} differ beside axis {position}: {where}")
                shape[i] = same_dim(shape[i], dim)
    if len(ranked) < len(xs):
        return first.with_shape(None)
    shape[position] = dims.total(x.dims[position] for x in xs)
    return first.with_shape(shape)


@concat.reference
def _concat(*xs: Array, axis: int) -> Array:
    if len({(*x.shape[: axis % x.ndim], *x.shape[axis % x.ndim + 1 :]) for x in xs}) > 1:
        shapes = ", ".join(str(list(x.shape)) for x in xs)
        raise fail("run.shape", f"cannot join arrays of shapes {shapes} at axis {axis}")
    return np.concatenate(xs, axis)


def _concat_pull(result: Value, at: Coordinates) -> tuple[Point, ...]:
    assert result.operation is not None
    axis = _attribute(result, "axis") % len(at)
    pieces = []
    index = at[axis]
    for operand, value in enumerate(result.operation.inputs):
        size = value.shape[axis]
        if not same(size, 0):
            source = (*at[:axis], index, *at[axis + 1 :])
            pieces.append(Point(source, (Guard(index, size),), operand))
        index = index - size
    if len(pieces) == 1:
        return (replace(pieces[0], guards=()),)
    return tuple(pieces) or (Point(at),)  # all operands are empty: unreachable


concat.index_maps(_concat_pull)


@primitive(DataMovement(), Trait.FREE, Trait.NO_ALLOCATION)
def split(x: AnyType, /, *, axis: int, sizes: tuple[Dim, ...]) -> tuple[TensorType, ...]:
    """x cut along `axis` into consecutive pieces, one result for each of `sizes`.

    Shapes: the sizes sum to the extent of the axis.
    Source: ONNX Split; NumPy split; ATen split_with_sizes.
    Edge cases: a size may be 0; a sum that differs only when it runs is `run.shape`.
    """
    check_not_negative(sizes=sizes)
    if x.shape is None:
        return (x,) * len(sizes)
    position = normalize_axis(axis, x.rank)
    whole = dims.total(sizes)
    if differ(whole, x.dims[position]):
        raise fail("type.shape", f"sizes sum to {whole}, but axis {axis} of {x} has {x.dims[position]}")
    return tuple(x.with_shape(replaced(x.dims, position, size)) for size in sizes)


@split.reference
def _split(x: Array, *, axis: int, sizes: Sequence[int]) -> list[Array]:
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise fail("run.shape", f"cannot split extent {x.shape[axis]} into {list(sizes)}")
    return list(np.split(x, np.cumsum(sizes)[:-1], axis)) if sizes else []


split.index_maps(_slice_pull, _slice_push)


@primitive(DataMovement())
def reverse(x: AnyType, /, *, axes: tuple[int, ...]) -> TensorType:
    """The elements in backward order along `axes`.

    Shapes: x any. Result: x's shape.
    Source: ONNX Slice with step -1; NumPy flip; ATen flip.
    Edge cases: none.
    """
    if x.shape is not None:
        normalize_axes(axes, x.rank)
    return x


@reverse.reference
def _reverse(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.flip(x, axes)


reverse.index_maps(_slice_pull, _slice_push)


@primitive(DataMovement(), Trait.FREE, Trait.REPEATS, Trait.WRAPS)
def iota(*, shape: tuple[Dim, ...], axis: int, dtype: DType) -> TensorType:
    """Each element is its own position along `axis`: 0, 1, 2 and so on.

    Shapes: `shape`.
    Source: ONNX Range; NumPy arange; ATen arange.
    Edge cases: positions beyond an integer type's range wrap around; floats round to nearest even.
    """
    check_not_negative(shape=shape)
    normalize_axis(axis, len(shape))
    if not (dtype.is_float or dtype.is_integer):
        raise fail("type.dtype", f"cannot count in {dtype}", expected="a real number type")
    return TensorType(dtype, shape)


@iota.reference
def _iota(*, shape: tuple[int, ...], axis: int, dtype: DType) -> Array:
    position = axis % len(shape)
    counting = narrow(np.arange(shape[position]), dtype.numpy)
    along = [1] * len(shape)
    along[position] = shape[position]
    return np.broadcast_to(counting.reshape(along), shape)


@iota.element
def _iota_element(builder: ScalarBuilder[Scalar], operation: Operation, at: Coordinates, _: Guards) -> Scalar:
    dtype, index = operation.result.dtype, at[operation.attributes["axis"]]
    if dtype.is_integer:
        return builder.index(index, dtype)
    if isinstance(index, int):
        return builder.constant(accumulator_of(dtype), index)
    attributes, name = {"to": dtype, "saturate": True}, operation.result.name
    return builder.apply("cast", accumulator_of(dtype), builder.index(index), attributes=attributes, hint=name)


def map_of(result: Value) -> IndexMap | None:
    """The map from the only operand of a view to a result. None for what is no view, where the operand has no rank, and
    where elements come from several pieces or under guards."""
    view = result.operation
    if view is None or view.definition.pull is None or len(view.inputs) != 1 or not view.inputs[0].type.is_ranked:
        return None
    (piece, *others) = view.definition.pull(result, axes(result.shape))
    return None if others or piece.guards else IndexMap(view.inputs[0].shape, result.shape, piece.coordinates)
