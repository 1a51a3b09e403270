"""Rows of sorting."""

from __future__ import annotations

from irc.backends.onnx.edges import guards_nan, is_nan, sort_keys
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import emits, on
from irc.dims import Dim
from irc.dtypes import F64, U8
from irc.ir import Value


@emits("sort")
def sort(g: Graph, x: Value, *, axis: int, descending: bool) -> list[Operand]:
    """TopK of all. ONNX Runtime 1.31, unlike 1.32, puts NaN anywhere, hence sorting by keys."""
    count = g.shape((x.shape[axis],))
    if guards_nan(g, x):
        return ordered(g, x, count, axis, descending)
    wide = g.carrier("TopK", x.dtype, compares=True)
    values, places = top(g, g.cast(x, x.dtype, wide), count, axis, descending)
    return [g.cast(values, wide, x.dtype), places]


@emits("top_k", when=on("TopK"))
def top_k(g: Graph, x: Value, *, k: Dim, axis: int, largest: bool) -> list[Operand]:
    count = g.shape((k,))
    return ordered(g, x, count, axis, largest) if guards_nan(g, x) else top(g, x, count, axis, largest)


def top(g: Graph, x: Operand, count: Operand, axis: int, largest: bool) -> list[Operand]:
    """The values and places of TopK, which takes the first of equals first."""
    results: list[Operand] = g.node("TopK", x, count, outputs=2, axis=axis, largest=None if largest else 0)
    return results


def ordered(g: Graph, x: Value, count: Operand, axis: int, largest: bool) -> list[Operand]:
    """TopK in which NaN is the greatest: by keys, or for f64, for which there are none, by a second, stable TopK of
    what is NaN."""
    if x.dtype is not F64:
        _, places = top(g, sort_keys(g, x, x.dtype), count, axis, largest)
    else:
        nan = is_nan(g, x, F64)
        every = g.shape((x.shape[axis],))
        _, order = top(g, g.node("Where", nan, g.numbers(float("inf"), F64), x), every, axis, largest)
        moved = g.node("GatherElements", g.node("Cast", nan, to=U8.onnx), order, axis=axis)
        _, second = top(g, moved, count, axis, largest)
        places = g.node("GatherElements", order, second, axis=axis)
    wide = g.carrier("GatherElements", x.dtype)
    return [g.cast(g.node("GatherElements", g.cast(x, x.dtype, wide), places, axis=axis), wide, x.dtype), places]
