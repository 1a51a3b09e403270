"""The members of a kernel as a flat list of primitives: named operations give way to their bodies.

A body is traced once and shared, so its values cannot stand for those of one use of it: each use gets its own
copies. Rule F2 is judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc.cloning import Cloner
from irc.diagnostics import IrcError, Location, fail
from irc.ir import Block, Operation, Value
from irc.op import OperationDefinition

REDUCTIONS = {"reduce_sum": "sum", "reduce_prod": "prod", "reduce_max": "max", "reduce_min": "min",
              "argmax": "max", "argmin": "min"}  # fmt: skip


class Refusal(Exception):
    """Why a group is no kernel: an answer, not a mistake. `values` are what the message speaks of."""

    def __init__(self, code: str, rule: str, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.code, self.rule, self.message, self.values = code, rule, message, tuple(values)

    def error(self, location: Location) -> IrcError:
        """The refusal as an error, where a person demanded the kernel."""
        return fail(self.code, f"{self.rule}: {self.message}", at=location)


class Steps:
    """Copies of the members, named ones as the primitives of their bodies, in order of dependence.

    `inner` are the values that stand for those of the members, and for those that they read from outside; these have
    no operation, and `buffers` says what they are read from.
    """

    def __init__(self, members: Sequence[Operation]) -> None:
        if len({id(member.block) for member in members if member.name != "const"}) > 1:
            raise Refusal("fuse.impure_member", "F2", "the members stand in different blocks")
        self.members = sorted(members, key=lambda member: (member.name != "const", member._order))
        self.steps: list[Operation] = []
        self.buffers: dict[Value, Value] = {}
        cloner = Cloner()
        self.inner = cloner.values
        arguments = Block()
        for member in self.members:
            for value in member.inputs:
                if value not in self.inner:
                    check_type(value)
                    self.inner[value] = arguments.add_argument(value.type, value.name)
                    self.buffers[self.inner[value]] = value
            self._add(member, cloner)
            for value in member.results:
                self.inner[value].name = value.name

    def _add(self, operation: Operation, cloner: Cloner) -> None:
        """Add one operation, or its body."""
        definition = operation.definition
        if definition.is_named:
            types = [None if operand is None else operand.type for operand in operation.operands]
            body = definition.body(types, operation.attributes)
            given = [cloner.values[operand] for operand in operation.inputs]
            inside = Cloner(dict(zip(body.arguments, given, strict=True)))
            for step in body.block:
                if not step.definition.is_terminator:
                    self._add(step, inside)
            cloner.values.update(zip(operation.results, (inside.values[value] for value in body.returned), strict=True))
            return
        check_member(operation, definition)
        self.steps.append(cloner.operation(operation))
        for result in operation.results:
            check_type(result)


def reduced_dims(reduction: Operation) -> frozenset[int]:
    """The axes of its operand that a reduction reduces."""
    attributes = reduction.attributes
    chosen = attributes["axes"] if "axes" in attributes else (attributes["axis"],)
    return frozenset(axis % reduction.inputs[0].rank for axis in chosen)


def hands_on(definition: OperationDefinition) -> bool:
    """Whether it rounds nothing: it only hands on what it has."""
    return definition.pull is not None or definition.element_of is not None


def check_member(operation: Operation, definition: OperationDefinition) -> None:
    """Rule F2: each element of the results is a function of elements of the operands, found by index arithmetic."""
    name = definition.name
    known = hands_on(definition) or name in REDUCTIONS or definition.is_pointwise
    if definition.has_effect or operation.regions or not known:
        kind = "has an effect" if definition.has_effect else "is not computed point by point"
        raise Refusal("fuse.impure_member", "F2", f"{name} {kind}", operation.results)
    if name == "const":
        tensor = operation.attributes["value"]
        if tensor.size != 1 and not (tensor.name is None and tensor.is_splat()):
            message = f"constant %{operation.result.name} is no scalar: it is read from outside the kernel"
            raise Refusal("fuse.impure_member", "F2", message, (operation.result,))


def check_type(value: Value) -> None:
    """Rule F2, of types: ranked, and of an element type that kernels compute with."""
    if not value.type.is_ranked:
        raise Refusal("fuse.impure_member", "F2", f"the rank of %{value.name} is not known")
    dtype = value.dtype
    if dtype.kind not in ("float", "int", "uint", "bool") or dtype.bits < 8 or (dtype.is_float and dtype.bits < 16):
        raise Refusal("fuse.impure_member", "F2", f"kernels do not compute in {dtype} (%{value.name})", (value.name,))
