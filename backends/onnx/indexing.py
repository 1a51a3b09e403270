"""Rows of gathers and scatters."""

from __future__ import annotations

from irc.backends.onnx.graph import Graph
from irc.backends.onnx.row import Operand, emits, on
from irc.backends.onnx.view import moved
from irc.dtypes import F32, I32, I64, DType
from irc.ir import Value


def index(g: Graph, indices: Value, *narrower: DType) -> Operand:
    """Indices as i64, or as they are in a type that the operator takes as well."""
    return indices if indices.dtype in narrower else g.cast(indices, indices.dtype, I64)


@emits("gather")
def gather(g: Graph, x: Value, indices: Value, *, axis: int) -> Operand:
    wide, source = moved(g, "Gather", x)
    return g.cast(g.node("Gather", source, index(g, indices, I32), axis=axis), wide, x.dtype)


@emits("gather_elements")
def gather_elements(g: Graph, x: Value, indices: Value, *, axis: int) -> Operand:
    wide, source = moved(g, "GatherElements", x)
    return g.cast(g.node("GatherElements", source, index(g, indices, I32), axis=axis), wide, x.dtype)


@emits("gather_nd", when=on("GatherND"))
def gather_nd(g: Graph, x: Value, indices: Value, *, batch_dims: int) -> Operand:
    return g.node("GatherND", x, index(g, indices), batch_dims=batch_dims or None)


def combining(g: Graph, op_type: str, x: Value, reduction: str) -> DType:
    """Narrow floats are combined in f32 and rounded once; what is only moved keeps its type."""
    if reduction != "none" and x.dtype.is_float and x.dtype.bits < 32:
        return F32
    return g.carrier(op_type, x.dtype, wraps=reduction in ("none", "add", "mul"))


@emits("scatter")
def scatter(g: Graph, x: Value, indices: Value, updates: Value, *, reduction: str) -> Operand:
    if indices.shape[-1] == 0:
        raise g.refuse("ScatterND takes no index vectors of length 0")
    wide = combining(g, "ScatterND", x, reduction)
    source, new = (g.cast(each, x.dtype, wide) for each in (x, updates))
    how = None if reduction == "none" else reduction
    return g.cast(g.node("ScatterND", source, index(g, indices), new, reduction=how), wide, x.dtype)


@emits("scatter_elements")
def scatter_elements(g: Graph, x: Value, indices: Value, updates: Value, *, axis: int, reduction: str) -> Operand:
    wide = combining(g, "ScatterElements", x, reduction)
    source, new = (g.cast(each, x.dtype, wide) for each in (x, updates))
    how = None if reduction == "none" else reduction
    return g.cast(
        g.node("ScatterElements", source, index(g, indices, I32), new, axis=axis, reduction=how), wide, x.dtype
    )
