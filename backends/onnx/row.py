"""How a row of the tables is written: one function for each operation that ONNX has.

    @emits("transpose")
    def transpose(g, x, /, *, permutation):
        return g.node("Transpose", x, perm=permutation)

`g` is the graph under construction (`graph.py`); then come the operands, None for one that is absent, and the
attributes by name. The function returns the name of the result in ONNX, or several. `g.operation` is the operation
itself. An operation that ONNX has under another name, attribute for attribute, takes a line in a table (`named`).

For named operations the row also says when it applies (`takes`): elsewhere the body is emitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irc.backends.onnx.graph import Graph
from irc.backends.onnx.runtime import WRITTEN_OPSET
from irc.backends.onnx.target import Target
from irc.dtypes import F32, F64, single
from irc.ir import Operation, Value

Emit = Callable[..., Any]
Condition = Callable[[Operation, Target], bool]


@dataclass(frozen=True)
class Row:
    """An operation's emitter, and where it applies. `opset` is the one that its operator of the default domain came
    with, where that is newer than the one in which rows write nodes."""

    name: str
    emit: Emit
    takes: Condition
    opset: int = WRITTEN_OPSET

    def applies(self, operation: Operation, target: Target) -> bool:
        """Whether the operation is emitted by this row, rather than by its body."""
        return self.takes(operation, target) and has_exact_attributes(operation)


def has_exact_attributes(operation: Operation) -> bool:
    """Whether the float attributes of a named operation are as exact in ONNX, where they are f32, as its operands: the
    epsilon of a normalization of f64 is not."""
    if not operation.definition.is_named or all(operand.dtype is not F64 for operand in operation.inputs):
        return True
    numbers = [value for value in operation.attributes.values() if isinstance(value, float)]
    return all(single(value) == value for value in numbers)


def always(operation: Operation, target: Target) -> bool:
    return True


def on(op_type: str) -> Condition:
    """The condition that the runtime has a kernel for the first operand's element type."""
    return lambda operation, target: target.runs(op_type, operation.inputs[0].dtype)


def in_wider(op_type: str) -> Condition:
    """The condition that the runtime has a kernel for the first operand's element type, or, of a float, for f32."""

    def condition(operation: Operation, target: Target) -> bool:
        dtype = operation.inputs[0].dtype
        wide = target.carrier(op_type, dtype)
        return wide is dtype or (dtype.is_float and dtype.bits < 32 and wide is F32)

    return condition


def alike(operation: Operation, target: Target) -> bool:
    """All operands have one element type."""
    return len({operand.dtype for operand in operation.inputs}) == 1


def both(*conditions: Condition) -> Condition:
    return lambda operation, target: all(condition(operation, target) for condition in conditions)


def since(opset: int) -> Condition:
    """The condition for an operator that came with this opset: the runtime has it."""
    return lambda operation, target: opset <= target.newest_opset


def emits(name: str, *, when: Condition = always, opset: int = WRITTEN_OPSET) -> Callable[[Emit], Row]:
    """Declare the row of an operation."""
    return lambda function: Row(name, function, when, opset)


def same(name: str, op_type: str, *attributes: str, when: Condition = always, **renamed: str) -> Row:
    """The row of a named operation that has the operands of an operator of ONNX, and `attributes` of the same name;
    `renamed` maps the operator's attributes to those of irc. Narrow floats are computed in f32 and rounded once, as in
    irc."""
    sources = {**{attribute: attribute for attribute in attributes}, **renamed}

    def emit(g: Graph, *operands: Value | None, **values: Any) -> Any:
        assert g.operation is not None
        dtype = g.operation.inputs[0].dtype
        wide = dtype if g.target.runs(op_type, dtype) else F32
        widened = [None if operand is None else g.cast(operand, dtype, wide) for operand in operands]
        done = g.node(op_type, *widened, **{theirs: values[ours] for theirs, ours in sources.items()})
        return g.cast(done, wide, dtype)

    return Row(name, emit, both(in_wider(op_type), alike, when))
