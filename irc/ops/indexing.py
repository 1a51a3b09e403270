"""Gathers and scatters: elements found or placed by indices that are computed when the program runs.

`bounds` says which indices are in range of an axis of extent D: by default those of [-D, D), of which negative ones
count from the end; "positive" those of [0, D); "promised" those as well, and the program promises that there are no
others, so that backends need not check. An index that is out of range is an error (`run.index`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from irc import dims
from irc.diagnostics import fail
from irc.index_map import Coordinates, Guards
from irc.interfaces import Gather, Scatter, Trait
from irc.ir import Operation
from irc.op import AnyType, IntegerType, primitive
from irc.ops.numerics import Array, narrow, widen
from irc.ops.rules import differ, normalize_axis, same_dtype
from irc.scalar_builder import Requesting, Scalar, ScalarBuilder
from irc.types import TensorType

ScatterReduction = Literal["none", "add", "mul", "max", "min"]
Bounds = Literal["positive", "promised"] | None


@primitive(Gather())
def gather(x: AnyType, indices: IntegerType, /, *, axis: int, bounds: Bounds = None) -> TensorType:
    """The elements of x at `indices` along `axis`.

    Shapes: x [*A, D, *B], indices [*I] -> [*A, *I, *B], with D at `axis`.
    Source: ONNX Gather; NumPy take; ATen index_select, embedding, which reject negative indices.
    Edge cases: negative indices count from the end, unless `bounds` say otherwise; out of range is `run.index`.
    """
    if x.shape is None or indices.shape is None:
        if x.shape is not None:
            normalize_axis(axis, x.rank)
        return x.with_shape(None)
    position = normalize_axis(axis, x.rank)
    return x.with_shape((*x.dims[:position], *indices.dims, *x.dims[position + 1 :]))


@gather.reference
def _gather(x: Array, indices: Array, *, axis: int, bounds: Bounds) -> Array:
    return np.asarray(np.take(x, _resolved(indices, x.shape[axis], axis, bounds), axis))


@gather.element
def _gather_element(builder: ScalarBuilder[Scalar], operation: Operation, at: Coordinates,
                    guards: Guards) -> Requesting[Scalar]:  # fmt: skip
    source, indices = operation.inputs
    axis = operation.attributes["axis"] % source.rank
    until = axis + indices.rank
    loaded = yield indices, at[axis:until], guards
    index = builder.loaded_index(loaded, source.shape[axis], guards, operation.attributes["bounds"])
    return (yield source, (*at[:axis], index, *at[until:]), guards)


@primitive(Gather())
def gather_elements(x: AnyType, indices: IntegerType, /, *, axis: int, bounds: Bounds = None) -> TensorType:
    """result[i0, .., iA, ..] = x[i0, .., indices[i0, .., iA, ..], ..]: each index moves along `axis` only.

    Shapes: indices has x's rank and, beside `axis`, extents of at most x's; the result has the shape of indices.
    Source: ONNX GatherElements; NumPy take_along_axis; ATen gather.
    Edge cases: negative indices count from the end (as ONNX), unless `bounds` say otherwise (as for ATen); out of range
    is `run.index`.
    """
    _check_elementwise(x, indices, axis)
    return x.with_shape(indices.shape)


@gather_elements.reference
def _gather_elements(x: Array, indices: Array, *, axis: int, bounds: Bounds) -> Array:
    return np.asarray(x[_places(x, indices, axis, bounds)])


@gather_elements.element
def _gather_elements_element(builder: ScalarBuilder[Scalar], operation: Operation, at: Coordinates,
                             guards: Guards) -> Requesting[Scalar]:  # fmt: skip
    source, indices = operation.inputs
    axis = operation.attributes["axis"] % source.rank
    loaded = yield indices, at, guards
    index = builder.loaded_index(loaded, source.shape[axis], guards, operation.attributes["bounds"])
    return (yield source, (*at[:axis], index, *at[axis + 1 :]), guards)


@primitive(Scatter(), Trait.WRAPS)
def scatter(
    x: AnyType, indices: IntegerType, updates: AnyType, /, *, reduction: ScatterReduction = "none"
) -> TensorType:
    """A copy of x in which the element or slice at each index vector is replaced by, or combined with, an update.

    Shapes: indices [*I, K] with K <= rank of x, updates [*I, *x.shape[K:]]; the result has x's shape.
    Source: ONNX ScatterND; ATen index_put.
    Edge cases: of updates to one place the last in row-major order wins, or all are combined in that order (narrow
    floats in f32, rounded once). Negative indices count from the end; out of range is `run.index`.
    """
    same_dtype(x, updates)
    if x.shape is None or indices.shape is None:
        return x
    if indices.rank == 0:
        raise fail("type.rank", f"the indices are {indices}", expected="index vectors along the last axis")
    depth = indices.dims[-1]
    if not isinstance(depth, int):
        raise fail("type.shape", f"the length {depth} of the index vectors is not known", expected="a static last dim")
    if depth > x.rank:
        raise fail("type.shape", f"index vectors of length {depth} into {x}", expected=f"at most {x.rank}")
    if updates.shape is not None:
        required = x.with_shape((*indices.dims[:-1], *x.dims[depth:]))
        if updates.rank != required.rank or any(map(differ, updates.dims, required.dims)):
            raise fail("type.shape", f"the updates are {updates}", expected=str(required))
    return x


@scatter.reference
def _scatter(x: Array, indices: Array, updates: Array, *, reduction: ScatterReduction) -> Array:
    depth = indices.shape[-1]
    required = (*indices.shape[:-1], *x.shape[depth:])
    if updates.shape != required:
        raise fail("run.shape", f"the updates have shape {list(updates.shape)}", expected=str(list(required)))
    columns = tuple(_resolved(indices[..., k], x.shape[k], k) for k in range(depth))
    if depth == 0:
        # Index vectors of length 0 all mean the whole of x: one more leading axis makes that an index.
        everywhere = (np.zeros(indices.shape[:-1], np.int64),)
        return np.asarray(_combined(x[np.newaxis], everywhere, updates, reduction)[0])
    return _combined(x, columns, updates, reduction)


@primitive(Scatter(), Trait.WRAPS)
def scatter_elements(
    x: AnyType, indices: IntegerType, updates: AnyType, /, *, axis: int, reduction: ScatterReduction = "none",
    bounds: Bounds = None,
) -> TensorType:
    """A copy of x in which x[i0, .., indices[i0, .., iA, ..], ..] is replaced by, or combined with, each update.

    Shapes: indices and updates have one shape, of x's rank and, beside `axis`, of at most x's extents; the result
    has x's shape.
    Source: ONNX ScatterElements; NumPy put_along_axis; ATen scatter, scatter_reduce (include_self).
    Edge cases: of updates to one place the last in row-major order wins, or all are combined in that order (narrow
    floats in f32, rounded once). Negative indices count from the end, unless `bounds` say otherwise; out of range is
    `run.index`.
    """
    same_dtype(x, updates)
    _check_elementwise(x, indices, axis)
    if updates.shape is not None and indices.shape is not None:
        if updates.rank != indices.rank or any(map(differ, updates.dims, indices.dims)):
            raise fail("type.shape", f"the updates are {updates}", expected=f"the shape of the indices, {indices}")
    return x


@scatter_elements.reference
def _scatter_elements(
    x: Array, indices: Array, updates: Array, *, axis: int, reduction: ScatterReduction, bounds: Bounds
) -> Array:
    if updates.shape != indices.shape:
        raise fail("run.shape", f"updates of shape {list(updates.shape)} for indices of shape {list(indices.shape)}")
    return _combined(x, _places(x, indices, axis, bounds), updates, reduction)


def _check_elementwise(x: TensorType, indices: TensorType, axis: int) -> None:
    if x.shape is None or indices.shape is None:
        return
    if x.rank != indices.rank:
        raise fail("type.rank", f"{x} and the indices {indices} have different ranks")
    position = normalize_axis(axis, x.rank)
    for i, (extent, count) in enumerate(zip(x.dims, indices.dims, strict=True)):
        if i != position and dims.less(extent, count) is True:
            raise fail("type.shape", f"the indices {indices} reach beyond {x}: dim {i}: {count} vs {extent}")


def _resolved(indices: Array, extent: int, axis: int, bounds: Bounds = None) -> Array:
    """Non-negative i64 indices; raises `run.index`."""
    wide = widen(indices).astype(np.int64)
    counted = bounds is None and indices.dtype.kind != "u"
    resolved = np.where(wide < 0, wide + extent, wide) if counted else wide
    bad = (resolved < 0) | (resolved >= extent)
    if bad.any():
        raise fail("run.index", f"index {wide[bad].flat[0]} is outside axis {axis} of extent {extent}")
    return resolved


def _places(x: Array, indices: Array, axis: int, bounds: Bounds) -> tuple[Any, ...]:
    """An index expression for x that has, along `axis`, the indices, and along the others the position."""
    position = axis % x.ndim
    for i, (extent, count) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if i != position and count > extent:
            raise fail("run.shape", f"indices of shape {list(indices.shape)} reach beyond {list(x.shape)} at dim {i}")
    grid: list[Any] = list(np.ogrid[tuple(slice(count) for count in indices.shape)])
    grid[position] = _resolved(indices, x.shape[position], axis, bounds)
    return tuple(grid)


_AT: dict[str, Callable[..., None]] = {
    "add": np.add.at, "mul": np.multiply.at, "max": np.maximum.at, "min": np.minimum.at,
}  # fmt: skip


def _combined(x: Array, where: tuple[Any, ...], updates: Array, reduction: ScatterReduction) -> Array:
    if reduction == "none":
        result = x.copy()
        result[where] = updates  # NumPy assigns in row-major order, so the last one stays
        return result
    result = widen(x).copy()
    with np.errstate(all="ignore"):
        _AT[reduction](result, where, widen(updates))
    return narrow(result, x.dtype)
