"""Rows of the named operations that rearrange, select, repeat or resample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irc import dims
from irc.backends.onnx.edges import is_nan
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.reduction import from_front
from irc.backends.onnx.row import Row, both, emits, on, same
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal, reshaped
from irc.dims import Dim
from irc.dtypes import F32, I64
from irc.ir import Operation, Value
from irc.weights import Tensor

SAME: list[Row] = [
    same("depth_to_space", "DepthToSpace", "mode", blocksize="block"),
]
FAR = 3.0  # a coordinate at which nothing but the ends of an axis of any size is found: 1 is its end


def samples_alike(operation: Operation, target: Target) -> bool:
    """Whether GridSample computes grid_sample: it rounds before it reflects, and ONNX Runtime's reflects coordinates
    far outside to other positions."""
    nearest = operation.attributes["mode"] == "nearest"
    return operation.attributes["padding"] != "reflection" or not (nearest or target.keeps_edges)


@emits("grid_sample", when=samples_alike)
def grid_sample(g: Graph, x: Value, grid: Value, *, mode: str, padding: str, align_corners: bool) -> Operand:
    """ONNX Runtime's GridSample reads an arbitrary element for a coordinate that is NaN or out of range of i64."""
    wide = x.dtype if g.target.runs("GridSample", x.dtype) else F32
    source, places = (g.cast(each, x.dtype, wide) for each in (x, grid))
    near = places
    if g.target.keeps_edges and not is_near(g.known(grid)):
        start = -1.0 if padding == "border" else FAR  # a NaN is the first element, or lies outside
        without = g.node("Where", is_nan(g, places, wide), g.numbers(start, wide), places)
        near = g.node("Clip", without, g.numbers(-FAR, wide), g.numbers(FAR, wide))
    sampled = g.node("GridSample", source, near, mode=mode, padding_mode=padding, align_corners=align_corners)
    if near is not places and mode != "nearest" and (mode, padding) != ("linear", "border"):
        last = from_front(grid, [-1])
        lost = g.node("ReduceSum", g.node("Mul", places, g.numbers(0.0, wide)), g.numbers(last), keepdims=0)
        sampled = g.node("Add", sampled, g.node("Unsqueeze", lost, g.numbers([1])))  # NaN where one is not finite
    return g.cast(sampled, wide, x.dtype)


def is_near(known: Tensor | None) -> bool:
    """Whether a grid is a constant without far coordinates."""
    return known is not None and bool((np.abs(known.array().astype(np.float64)) <= FAR).all())


@emits("space_to_depth", when=both(on("SpaceToDepth"), lambda operation, target: operation.attributes["mode"] == "DCR"))
def space_to_depth(g: Graph, x: Value, *, block: int, mode: str) -> Operand:
    return g.node("SpaceToDepth", x, blocksize=block)


@emits("tile", when=on("Tile"))
def tile(g: Graph, x: Value, *, repeats: tuple[Dim, ...]) -> Operand:
    return g.node("Tile", x, g.shape(repeats))


@emits("trilu", when=on("Trilu"))
def trilu(g: Graph, x: Value, *, upper: bool, k: int) -> Operand:
    return g.node("Trilu", x, g.numbers(k) if k else None, upper=None if upper else 0)


def has_one_hot(operation: Operation, target: Target) -> bool:
    """What ONNX Runtime has, with casts of the values where it helps."""
    indices, values = operation.inputs
    return target.carrier("OneHot", values.dtype) is not None and indices.rank > 0


@emits("one_hot", when=has_one_hot)
def one_hot(g: Graph, indices: Value, values: Value, *, depth: Dim, axis: int) -> Operand:
    """With i64 indices the runtime has all the types of values that it has at all."""
    wide = g.carrier("OneHot", values.dtype)
    ends = g.cast(values, values.dtype, wide)
    chosen = g.node("OneHot", g.cast(indices, indices.dtype, I64), g.extent(depth), ends, axis=axis)
    return g.cast(chosen, wide, values.dtype)


# -- resampling --------------------------------------------------------------------------------------------------


def resizes(operation: Operation, target: Target) -> bool:
    """What ONNX Runtime resamples: any axes by the nearest element; the last two or three, in f32, by lines; the last
    two, in f32, by cubics."""
    x, attributes = operation.inputs[0], operation.attributes
    if attributes["mode"] == "nearest":
        return True
    # An axis of which it is not known is taken for one that stays: where it does not, the runtime says so.
    changed = [axis for axis in changed_axes(operation) if attributes["sizes"] is None
               or dims.equal(x.shape[axis], attributes["sizes"][axis]) is False]  # fmt: skip
    if not changed:
        return x.dtype.is_float and x.rank == 4
    if not x.dtype.is_float:
        return False
    if attributes["mode"] == "linear":
        if target.keeps_edges:
            return is_last_axes(changed, x.rank)
        return 2 <= x.rank <= 5 and min(changed) >= (2 if x.rank > 2 else 0)
    return x.rank == 4 and min(changed) >= 2


def is_last_axes(changed: list[int], rank: int) -> bool:
    """Whether these are the last three axes or fewer. Axes that stay are no axes of ONNX Runtime's operator then: it
    adds 0 times the neighbors along them, which are NaN or infinite for other places than x's."""
    return len(changed) <= min(3, rank - 1) and changed == list(range(rank - len(changed), rank))


def changed_axes(operation: Operation) -> list[int]:
    """The axes that are resampled."""
    x, sizes, scales = operation.inputs[0], operation.attributes["sizes"], operation.attributes["scales"]
    if sizes is not None:
        return [axis for axis, (old, new) in enumerate(zip(x.shape, sizes, strict=True)) if not equal(old, new)]
    return [axis for axis, scale in enumerate(scales) if scale != 1]


@emits("resize", when=both(on("Resize"), resizes))
def resize(
    g: Graph, x: Value, *, sizes: tuple[Dim, ...] | None, scales: tuple[float, ...] | None, mode: str, coordinates: str,
    nearest: str, cubic_coefficient: float,
) -> Operand:  # fmt: skip
    assert g.operation is not None
    axes = changed_axes(g.operation)
    if not axes:
        return x
    if mode == "nearest" and scales is not None and g.target.name == "cpu":
        axes = list(range(x.rank))  # the runtime keeps images in blocks of channels where all axes have their scale
    factors = targets = None
    if sizes is not None:
        targets = g.shape([sizes[axis] for axis in axes])
    elif scales is not None:
        factors = g.numbers(np.asarray([scales[axis] for axis in axes]), F32)
    options: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        options["nearest_mode"] = nearest
    if mode == "cubic" and not math.isclose(cubic_coefficient, -0.75):
        options["cubic_coeff_a"] = cubic_coefficient
    if mode == "linear" and g.target.keeps_edges and (len(axes) == 1 or x.rank != len(axes) + 2):
        return resized_last(g, x, axes, factors, targets, options)
    places = None if len(axes) == x.rank else axes
    return g.node("Resize", x, None, factors, targets, axes=places, mode=mode, **options)


def resized_last(g: Graph, x: Value, axes: list[int], factors: Any, targets: Any, options: dict[str, Any]) -> Operand:
    """A linear Resize of the last axes alone, the others merged into channels; a single one has one of 1 beside it."""
    kept, between = x.shape[: axes[0]], (1,) if len(axes) == 1 else ()
    before, after = ((1, dims.product(kept), *between, *(shape[axis] for axis in axes))
                     for shape in (x.shape, g.result.type.dims))  # fmt: skip
    places = list(range(len(before) - len(axes), len(before)))
    resized = g.node("Resize", reshaped(g, x, x.dtype, x.type, before, None), None, factors, targets, axes=places,
                     mode="linear", **options)  # fmt: skip
    return reshaped(g, resized, x.dtype, x.type.with_shape(after), g.result.type.dims, None)
