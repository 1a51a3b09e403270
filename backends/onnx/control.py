"""Rows of control flow and of the bridges between dims and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc import dims
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import emits
from irc.backends.onnx.view import equal
from irc.diagnostics import UnsupportedError
from irc.dims import Symbol
from irc.dtypes import I64
from irc.ir import Operation, Value
from irc.weights import Tensor


@emits("if")
def if_(g: Graph, condition: Value) -> Any:
    assert g.operation is not None
    then, other = (region.block for region in g.operation.regions)
    if not g.operation.results:
        return []  # only assertions are inside
    name = g.operation.results[0].name
    if (x := squeezed(g.operation)) is not None:
        return [g.node("Squeeze", x)]
    return several(
        g, "If", condition, then_branch=g.region(then, f"{name}_then"), else_branch=g.region(other, f"{name}_else")
    )


def squeezed(operation: Operation) -> Value | None:
    """What an `if` squeezes that only asks whether one extent is 1, and drops the axes of extent 1 in either case."""
    blocks = [[inner for inner in region.block if inner.name != "const"] for region in operation.regions]
    if [[inner.name for inner in block] for block in blocks] != [["refine", "reshape", "yield"], ["reshape", "yield"]]:
        return None
    (refine, then, _), (other, _) = blocks
    (x,) = refine.inputs
    question = operation.inputs[0].operation
    if question is None or question.name != "equal" or then.inputs != [refine.result] or other.inputs != [x]:
        return None
    size, one = (value.operation for value in question.inputs)
    if size is None or size.name != "dim" or one is None or one.name != "const" or one.attributes["value"].array() != 1:
        return None
    places = [axis for axis, dim in enumerate(x.shape) if dim == size.attributes["value"]]
    ones = [axis for axis, dim in enumerate(x.shape) if equal(dim, 1)]
    kept = tuple(dim for axis, dim in enumerate(x.shape) if axis not in ones)
    fits = len(places) == 1 and other.result.shape == kept and all(
        dims.equal(dim, 1) is False for axis, dim in enumerate(x.shape) if axis not in (*ones, *places))
    without = tuple(dim for axis, dim in enumerate(x.shape) if axis not in (*ones, *places))
    return x if fits and then.result.shape == without else None


@emits("loop")
def loop(g: Graph, trip_count: Value | None = None, condition: Value | None = None, *carried: Value) -> Any:
    """Without an iteration, a scanned value has extent 0 in ONNX Runtime in every axis whose extent is not a number."""
    assert g.operation is not None
    if not g.operation.results:
        return []
    count = None if trip_count is None else g.cast(trip_count, trip_count.dtype, I64)
    body = g.region(g.operation.regions[0].block, f"{g.operation.results[0].name}_body")
    going: Operand = condition
    if condition is None and not carried:  # two inputs there must be, and the last ones cannot be left out
        going = g.constant(Tensor.of(True), "going")
    return several(g, "Loop", count, going, *carried, body=body)


def several(g: Graph, op_type: str, *operands: Operand, **attributes: Any) -> Any:
    """A node with as many outputs as the operation has results."""
    assert g.operation is not None
    return g.node(op_type, *operands, outputs=len(g.operation.results), **attributes)


@emits("bind")
def bind(g: Graph, scalar: Value, *, symbol: Symbol) -> Sequence[Operand]:
    """No node: from here on the scalar is where the symbol's value comes from. Its range is not checked."""
    vector, index = origin(scalar)
    if vector.dtype is I64 and vector.type.is_static and vector.rank == 1:
        g.contain(g.name(vector), vector.type.static_shape()[0], index, symbol.expr)
    else:
        g.hold(g.name(g.cast(scalar, scalar.dtype, I64)), symbol.expr)
    return []


def origin(scalar: Value) -> tuple[Value, int]:
    """The vector that a scalar was taken from, and where: importers take the extents of a shape one by one."""
    value, index = scalar, 0
    while value.operation is not None:
        operation = value.operation
        if operation.name not in ("reshape", "slice"):
            break
        (source,) = operation.inputs
        if not source.type.is_static or source.rank != 1:
            break
        if operation.name == "slice":
            (start,), (step,) = operation.attributes["starts"], operation.attributes["steps"]
            if not isinstance(start, int):
                break
            index = index * step + start
        elif source.type.elements != 1:
            break
        value = source
    return value, index


@emits("refine")
def refine(g: Graph, x: Value) -> Operand:
    """The value itself: the runtime checks no promises, but its dims are known from here on."""
    return x


@emits("assert")
def assert_(g: Graph, condition: Value, *, message: str) -> Sequence[Operand]:
    """Nothing: ONNX cannot stop a run. `irc run` and the interpreter check it."""
    return []


@emits("assume")
def assume(g: Graph, condition: Value) -> Sequence[Operand]:
    return []


@emits("trap")
def trap(g: Graph, *, message: str) -> Sequence[Operand]:
    assert g.operation is not None
    if g.operation.results:
        raise UnsupportedError(f"ONNX cannot stop a run, and this path has no meaning: {message}")
    return []
