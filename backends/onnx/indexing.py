"""Rows of gathers and scatters."""

from __future__ import annotations

from typing import Any

from irc.backends.onnx.edges import guards_nan, integer_bounds, is_nan, nan_where
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import emits, on
from irc.backends.onnx.view import moved
from irc.diagnostics import UnsupportedError
from irc.dims import Dim
from irc.dtypes import BOOL, F32, I32, I64, DType
from irc.ir import Value


def index(g: Graph, indices: Value, *narrower: DType) -> Operand:
    """Indices as i64, or as they are in a type that the operator takes as well."""
    return indices if indices.dtype in narrower else g.cast(indices, indices.dtype, I64)


def bounded(g: Graph, indices: Value, extent: Dim, bounds: str | None) -> Operand:
    """Indices of which a negative one is out of range, if `bounds` say so: it becomes the extent."""
    if bounds != "positive" or integer_bounds(g, indices)[0] >= 0:
        return index(g, indices, I32)
    wide = index(g, indices)
    return g.node("Where", g.node("Less", wide, g.numbers(0)), g.extent(extent), wide)


@emits("gather")
def gather(g: Graph, x: Value, indices: Value, *, axis: int, bounds: str | None) -> Operand:
    wide, source = moved(g, "Gather", x)
    places = bounded(g, indices, x.shape[axis], bounds)
    return g.cast(g.node("Gather", source, places, axis=axis), wide, x.dtype)


@emits("gather_elements")
def gather_elements(g: Graph, x: Value, indices: Value, *, axis: int, bounds: str | None) -> Operand:
    wide, source = moved(g, "GatherElements", x)
    places = bounded(g, indices, x.shape[axis], bounds)
    return g.cast(g.node("GatherElements", source, places, axis=axis), wide, x.dtype)


@emits("gather_nd", when=on("GatherND"))
def gather_nd(g: Graph, x: Value, indices: Value, *, batch_dims: int) -> Operand:
    return g.node("GatherND", x, index(g, indices), batch_dims=batch_dims or None)


def combining(g: Graph, op_type: str, x: Value, reduction: str) -> DType:
    """Narrow floats are combined in f32 and rounded once, and bools, which no kernel combines, as numbers; what is only
    moved keeps its type."""
    if reduction != "none" and x.dtype is BOOL:
        return I32
    if reduction != "none" and x.dtype.is_float and x.dtype.bits < 32:
        return F32
    return g.carrier(op_type, x.dtype, wraps=reduction in ("none", "add", "mul"))


@emits("scatter")
def scatter(g: Graph, x: Value, indices: Value, updates: Value, *, reduction: str) -> Operand:
    if indices.shape[-1] == 0:
        raise UnsupportedError("ScatterND takes no index vectors of length 0")
    return scattered(g, "ScatterND", x, index(g, indices), updates, reduction)


@emits("scatter_elements")
def scatter_elements(
    g: Graph, x: Value, indices: Value, updates: Value, *, axis: int, reduction: str, bounds: str | None
) -> Operand:
    places = bounded(g, indices, x.shape[axis], bounds)
    return scattered(g, "ScatterElements", x, places, updates, reduction, axis=axis)


def scattered(
    g: Graph, op_type: str, x: Value, places: Operand, updates: Value, reduction: str, **attributes: Any
) -> Operand:
    """Of max and min ONNX Runtime's kernels pass over NaN: what holds one is scattered by itself."""
    wide = combining(g, op_type, x, reduction)
    how = None if reduction == "none" else reduction
    source, new = (g.cast(each, x.dtype, wide) for each in (x, updates))
    result = g.cast(g.node(op_type, source, places, new, reduction=how, **attributes), wide, x.dtype)
    if reduction not in ("max", "min") or not guards_nan(g, x, updates):
        return result
    first, second = (g.node("Cast", is_nan(g, each, x.dtype), to=I32.onnx) for each in (x, updates))
    met = g.node(op_type, first, places, second, reduction="max", **attributes)
    return nan_where(g, g.node("Cast", met, to=BOOL.onnx), result, x.dtype)
