"""Rows of the views: what moves elements without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irc import dims
from irc.backends.onnx.edges import TO_THE_END, branch
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.opsets import NeedsOpset
from irc.backends.onnx.row import emits
from irc.dims import Dim
from irc.dtypes import I64, STRING, DType
from irc.ir import Value
from irc.types import TensorType
from irc.weights import Tensor

BACK_TO_START = np.iinfo(np.int64).min
WRITTEN_OUT = 1024  # elements of an iota that is a constant, not a Range


def equal(a: Dim, b: Dim) -> bool:
    """Whether two dims are known to be equal."""
    return dims.equal(a, b) is True


def moved(g: Graph, op_type: str, x: Value) -> tuple[DType, Operand]:
    """`x` in a type that the runtime moves with this operator, and that type."""
    wide = g.carrier(op_type, x.dtype, wraps=True)
    return wide, g.cast(x, x.dtype, wide)


def is_zero(amounts: Sequence[Dim]) -> bool:
    return all(equal(amount, 0) for amount in amounts)


def vector(g: Graph, entries: Sequence[Dim]) -> str:
    return g.shape(tuple(entries))


# -- shapes ------------------------------------------------------------------------------------------------------


@emits("reshape")
def reshape(g: Graph, x: Value, *, shape: tuple[Dim, ...], inferred: int | None) -> Operand:
    """Unsqueeze or Squeeze where only extents of 1 come or go, which no run-time shape can upset; else Reshape."""
    if x.type.is_ranked:
        if len(x.shape) == len(shape) and all(map(equal, x.shape, shape)):
            return x
        for op_type, fewer, more in (("Unsqueeze", x.shape, shape), ("Squeeze", shape, x.shape)):
            axes = added_axes(fewer, more)
            if axes is not None and g.target.runs(op_type, x.dtype):
                return g.node(op_type, x, g.numbers(axes))
    wide, whole = moved(g, "Reshape", x)
    return g.cast(reshaped(g, whole, wide, x.type, shape, inferred), wide, x.dtype)


def reshaped(g: Graph, x: Operand, dtype: DType, type_: TensorType, shape: Sequence[Dim],
             inferred: int | None) -> Operand:  # fmt: skip
    """Reshape by a constant where at most one extent is neither a number nor one of x's in the same place. That one is
    -1, which ONNX Runtime rejects where another extent is 0. Where that may be and the source does not say -1 itself,
    Transpose or Flatten serves, if it does the same."""
    entries: list[int | None] = []
    for axis, dim in enumerate(shape):
        copied = type_.shape is not None and axis < type_.rank and equal(type_.dims[axis], dim)
        entries.append(dim if isinstance(dim, int) else 0 if copied else None)
    rest = [dim for dim, entry in zip(shape, entries, strict=True) if entry is not None]
    open_axis = entries.index(None) if entries.count(None) == 1 else None
    if open_axis is not None and (open_axis == inferred or all(dims.equal(dim, 0) is False for dim in rest)):
        entries = [-1 if entry is None else entry for entry in entries]
    has_zero = any(equal(dim, 0) for dim in shape)
    if None in entries or has_zero:
        order, boundary = moved_ones(type_, shape), flattened(type_, shape)
        if order is not None and g.target.runs("Transpose", dtype):
            return g.node("Transpose", x, perm=order)
        if boundary is not None and g.target.runs("Flatten", dtype):
            return g.node("Flatten", x, axis=boundary)
        return reshaped_exactly(g, x, dtype, shape)
    return g.node("Reshape", x, g.numbers(np.asarray(entries, np.int64)))


def reshaped_exactly(g: Graph, x: Operand, dtype: DType, shape: Sequence[Dim]) -> Operand:
    """Reshape in which a 0 is an extent of 0. Before opset 14 it was always one to be copied: what is empty is made
    there rather than reshaped."""
    target = g.shape(shape)
    if not g.target.is_before(14):
        return g.node("Reshape", x, target, allowzero=1)
    if all(dims.equal(dim, 0) is False for dim in shape):
        return g.node("Reshape", x, target)
    if not g.target.runs("Expand", dtype):
        raise NeedsOpset(f"Reshape of {dtype} to extents that may be 0 needs opset 14")
    zero, type_ = g.numbers("" if dtype is STRING else 0, dtype), TensorType(dtype, shape)
    is_empty = g.node("Equal", g.node("ReduceProd", target, g.numbers([0]), keepdims=0), g.numbers(0))
    empty = branch(g, "empty", type_, lambda inner: inner.node("Expand", zero, target))
    whole = branch(g, "whole", type_, lambda inner: inner.node("Reshape", x, target))
    return g.node("If", is_empty, then_branch=empty, else_branch=whole)


def moved_ones(type_: TensorType, shape: Sequence[Dim]) -> list[int] | None:
    """The permutation of x's axes that gives the shape, where only extents of 1 change places."""
    if type_.shape is None or type_.rank != len(shape):
        return None
    old = type_.shape
    ones, others = (iter([axis for axis, dim in enumerate(old) if equal(dim, 1) == is_one]) for is_one in (True, False))
    order = [axis for dim in shape for axis in [next(ones if equal(dim, 1) else others, None)] if axis is not None]
    fits = len(order) == len(shape) and all(equal(old[axis], dim) for axis, dim in zip(order, shape, strict=True))
    return order if fits else None


def flattened(type_: TensorType, shape: Sequence[Dim]) -> int | None:
    """The axis before which Flatten cuts x's shape into these two extents."""
    if type_.shape is None or len(shape) != 2:
        return None
    for axis in range(type_.rank + 1):
        parts = dims.product(type_.shape[:axis]), dims.product(type_.shape[axis:])
        if all(map(equal, parts, shape)):
            return axis
    return None


def added_axes(fewer: Sequence[Dim], more: Sequence[Dim]) -> list[int] | None:
    """Where `more` has extents of 1 that `fewer` lacks, if that is all in which they differ."""
    axes, position = [], 0
    for axis, dim in enumerate(more):
        if position < len(fewer) and equal(fewer[position], dim):
            position += 1
        elif equal(dim, 1):
            axes.append(axis)
        else:
            return None
    return axes if position == len(fewer) and axes else None


@emits("transpose")
def transpose(g: Graph, x: Value, *, permutation: tuple[int, ...]) -> Operand:
    axes = [axis % len(permutation) for axis in permutation]
    return x if axes == sorted(axes) else transposed(g, x, axes)


def transposed(g: Graph, x: Value, permutation: Sequence[int]) -> Operand:
    wide, whole = moved(g, "Transpose", x)
    return g.cast(g.node("Transpose", whole, perm=list(permutation)), wide, x.dtype)


@emits("expand")
def expand(g: Graph, x: Value, *, shape: tuple[Dim, ...]) -> Operand:
    """Expand broadcasts both ways: 1 leaves x's extent, so that only the axes that grow need a number."""
    old: tuple[Dim, ...] = x.shape if x.type.is_ranked else ()
    old = (1,) * (len(shape) - len(old)) + old
    if x.type.is_ranked and len(shape) == x.rank and all(map(equal, old, shape)):
        return x
    entries = tuple(
        1 if equal(before, dim) and not isinstance(dim, int) else dim for before, dim in zip(old, shape, strict=True)
    )
    wide, whole = moved(g, "Expand", x)
    if 0 in shape and g.target.runs("ConstantOfShape", wide):
        # ONNX Runtime's optimizations drop an Expand of a constant 0.
        empty = g.node("ConstantOfShape", g.shape(shape), value=Tensor.of(np.zeros(1), wide))
        return g.cast(empty, wide, x.dtype)
    return g.cast(g.node("Expand", whole, vector(g, entries)), wide, x.dtype)


# -- parts -------------------------------------------------------------------------------------------------------


@emits("slice")
def slice_(g: Graph, x: Value, *, starts: tuple[Dim, ...], stops: tuple[Dim, ...], steps: tuple[int, ...]) -> Operand:
    """Slice on the axes that lose something; ends that are relative to the extent stay numbers."""
    extents = x.shape if x.type.is_ranked else (None,) * len(starts)
    axes, first, last, strides = [], [], [], []
    for axis, (extent, start, stop, step) in enumerate(zip(extents, starts, stops, steps, strict=True)):
        whole = extent is not None and equal(stop, extent)
        if whole and equal(start, 0) and step == 1:
            continue
        axes.append(axis)
        first.append(end_of_slice(start, extent))
        last.append(TO_THE_END if whole else end_of_slice(without_start(stop, start), extent))
        strides.append(step)
    if not axes:
        return x
    wide, source = moved(g, "Slice", x)
    steps_input = g.numbers(strides) if any(step != 1 for step in strides) else None
    return g.cast(
        g.node("Slice", source, vector(g, first), vector(g, last), g.numbers(axes), steps_input), wide, x.dtype
    )


def end_of_slice(end: Dim, extent: Dim | None) -> Dim:
    """The number that Slice limits to the extent, which counts from its end if it is below 0: 4 of `min(4, extent)`, -3
    of `extent - 3` and of `max(0, extent - 3)`; others as they are."""
    if isinstance(end, int) or extent is None:
        return end
    for number in {part for each in arguments(end) for part in (each, each - extent) if isinstance(part, int)}:
        limited = dims.maximum(0, extent + number) if number < 0 else dims.minimum(number, extent)
        if equal(limited, end):
            return number
    distance = end - extent
    return distance if isinstance(distance, int) and distance < 0 else end


def without_start(stop: Dim, start: Dim) -> Dim:
    """`b` of `max(a, b)`, where a slice starts at `a`: one that stops before is empty."""
    return next((each for each in arguments(stop) if equal(dims.maximum(start, each), stop)), stop)


def arguments(dim: Dim) -> tuple[Dim, ...]:
    """Those of a minimum or a maximum, none of another dim."""
    atom = dims.sole_atom(dim)
    return atom.args if atom is not None and atom.kind in ("min", "max") else ()


@emits("reverse")
def reverse(g: Graph, x: Value, *, axes: tuple[int, ...]) -> Operand:
    if not axes:
        return x
    wide, whole = moved(g, "Slice", x)
    ends = [g.numbers([number] * len(axes)) for number in (-1, BACK_TO_START)]
    return g.cast(g.node("Slice", whole, *ends, g.numbers(axes), g.numbers([-1] * len(axes))), wide, x.dtype)


@emits("split")
def split(g: Graph, x: Value, *, axis: int, sizes: tuple[Dim, ...]) -> Sequence[Operand]:
    if len(sizes) < 2:
        return [x] * len(sizes)
    wide, whole = moved(g, "Split", x)
    parts = g.node("Split", whole, vector(g, sizes), outputs=len(sizes), axis=axis)
    return [g.cast(part, wide, x.dtype) for part in parts]


@emits("concat")
def concat(g: Graph, *xs: Value, axis: int) -> Operand:
    if len(xs) == 1:
        return xs[0]
    wide = g.carrier("Concat", xs[0].dtype, wraps=True)
    return g.cast(g.node("Concat", *(g.cast(x, x.dtype, wide) for x in xs), axis=axis), wide, xs[0].dtype)


@emits("pad")
def pad(
    g: Graph, x: Value, value: Value | None = None, *, low: tuple[Dim, ...], high: tuple[Dim, ...], mode: str
) -> Operand:
    if is_zero((*low, *high)):
        return x
    wide, whole = moved(g, "Pad", x)
    filling = None if value is None else g.cast(value, x.dtype, wide)
    padded = g.node("Pad", whole, vector(g, (*low, *high)), filling, mode=None if mode == "constant" else mode)
    return g.cast(padded, wide, x.dtype)


# -- counting ----------------------------------------------------------------------------------------------------


@emits("iota")
def iota(g: Graph, *, shape: tuple[Dim, ...], axis: int, dtype: DType) -> Operand:
    """A constant where it is small; else a Range, laid along its axis."""
    place, count = axis % len(shape), shape[axis]
    size = math.prod(dim for dim in shape if isinstance(dim, int))
    if g.result.type.is_static and size <= WRITTEN_OUT:
        from irc.ops import iota as definition

        (content,) = definition.evaluate([], {"shape": shape, "axis": axis, "dtype": dtype})
        return g.constant(Tensor.of(np.ascontiguousarray(content), dtype), g.result.name)
    counted = dtype if g.target.runs("Range", dtype) and dtype.is_integer and dtype.bits >= 32 else I64
    ends = (g.numbers(0, counted), g.cast(g.extent(count), I64, counted), g.numbers(1, counted))
    numbers: Operand = g.cast(g.node("Range", *ends), counted, dtype)
    others = [i for i in range(len(shape)) if i != place]
    if others:
        numbers = g.node("Unsqueeze", numbers, g.numbers(others))
    if all(equal(shape[i], 1) for i in others):
        return numbers
    wide = g.carrier("Expand", dtype)
    entries = tuple(1 if i == place else dim for i, dim in enumerate(shape))
    return g.cast(g.node("Expand", g.cast(numbers, dtype, wide), vector(g, entries)), wide, dtype)


@emits("dim")
def dim(g: Graph, *, value: Dim | tuple[Dim, ...]) -> Operand:
    return g.shape(value) if isinstance(value, tuple) else g.extent(value)
