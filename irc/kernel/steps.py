"""The members of a kernel as a flat list of primitives: named operations give way to their bodies.

A body is traced once and shared, so its values cannot stand for those of one use of it: each use gets its own
copies. They are made once for all groups that are tried on a block (`Expansion`). Rule F2 is judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from irc.cloning import Cloner
from irc.diagnostics import IrcError, Location, fail
from irc.ir import Block, Operation, Value
from irc.op import OperationDefinition


class LegalityFailure(Exception):
    """A group that cannot be one kernel, with the rule that it breaks. `values` are those that the message mentions."""

    def __init__(self, code: str, rule: str, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.code, self.rule, self.message, self.values = code, rule, message, tuple(values)

    def error(self, location: Location) -> IrcError:
        """The failure as an error at the operation that was to be a kernel."""
        return fail(self.code, f"{self.rule}: {self.message}", at=location)


class Expansion:
    """Copies of operations as primitives over values of their own, so that the operations' uses stay as they are.

    `inner` are the values that stand for those of the operations. Operations are added once, producers before their
    readers; constants, which may stand in a block around, are added where they are read.
    """

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.inner: dict[Value, Value] = {}
        self._primitives: dict[Operation, list[Operation] | LegalityFailure] = {}
        self._cloner = Cloner()
        self.inner = self._cloner.values
        self._arguments = Block()
        for operation in operations:
            self.add(operation)

    def of(self, operation: Operation) -> list[Operation]:
        """The primitives of an operation, in order of dependence; raises `LegalityFailure`."""
        self.add(operation)
        found = self._primitives[operation]
        if isinstance(found, LegalityFailure):
            raise found
        return found

    def has(self, operation: Operation) -> bool:
        """Whether the operation consists of primitives that kernels compute."""
        self.add(operation)
        return not isinstance(self._primitives[operation], LegalityFailure)

    def add(self, operation: Operation) -> None:
        if operation in self._primitives:
            return
        for value in operation.inputs:
            if value.operation is not None and value.operation.name == "const":
                self.add(value.operation)
        primitives: list[Operation] = []
        try:
            for value in operation.inputs:
                self._read(value)
            self._append(operation, self._cloner, primitives)
        except LegalityFailure as failure:
            self._primitives[operation] = failure
            for value in operation.results:
                self.inner.pop(value, None)
            return
        self._primitives[operation] = primitives
        for value in operation.results:
            self.inner[value].name = value.name

    def _read(self, value: Value) -> None:
        check_type(value)
        if value not in self.inner:
            self.inner[value] = self._arguments.add_argument(value.type, value.name)

    def _append(self, operation: Operation, cloner: Cloner, primitives: list[Operation]) -> None:
        """Add one operation, or its body."""
        definition = operation.definition
        if definition.is_named:
            body = operation.body()
            given = [cloner.values[operand] for operand in operation.inputs]
            inside = Cloner(dict(zip(body.arguments, given, strict=True)))
            for step in body.block:
                if not step.definition.is_terminator:
                    self._append(step, inside, primitives)
            cloner.values.update(zip(operation.results, (inside.values[value] for value in body.returned), strict=True))
            return
        check_member(operation, definition)
        primitives.append(cloner.operation(operation))
        for result in operation.results:
            check_type(result)


class Steps:
    """The primitives of a group's members, in order of dependence.

    `inner` are the values that stand for those of the members, and for those that they read from outside; `buffers`
    says what the latter are read from. `readers` are the steps that read a value.
    """

    def __init__(self, members: Sequence[Operation], expansion: Expansion | None = None) -> None:
        if len({id(member.block) for member in members if member.name != "const"}) > 1:
            raise LegalityFailure("fuse.impure_member", "F2", "the members stand in different blocks")
        self.members = sorted(members, key=lambda member: (member.name != "const", member._order))
        expansion = Expansion() if expansion is None else expansion
        self.steps = [step for member in self.members for step in expansion.of(member)]
        self.inner = expansion.inner
        self.buffers: dict[Value, Value] = {}
        inside = set(self.members)
        for member in self.members:
            for value in member.inputs:
                if value.operation not in inside:
                    self.buffers[self.inner[value]] = value
        self.readers: dict[Value, dict[Operation, None]] = {}
        for step in self.steps:
            for value in step.inputs:
                self.readers.setdefault(value, {})[step] = None

    @cached_property
    def computed_with(self) -> set[Value]:
        """The values that a step which computes reads, also through steps that only move elements."""
        found: set[Value] = set()
        for step in reversed(self.steps):
            if not moves_elements(step.definition) or not found.isdisjoint(step.results):
                found.update(step.inputs)
        return found


def reduced_dims(reduction: Operation) -> frozenset[int]:
    """The axes of its operand that a reduction reduces."""
    attributes = reduction.attributes
    chosen = attributes["axes"] if "axes" in attributes else (attributes["axis"],)
    return frozenset(axis % reduction.inputs[0].rank for axis in chosen)


def moves_elements(definition: OperationDefinition) -> bool:
    """Whether it computes nothing, so that it rounds nothing: it moves elements that it is given."""
    return definition.pull is not None or definition.element_of is not None


def check_member(operation: Operation, definition: OperationDefinition) -> None:
    """Rule F2: each element of the results is a function of elements of the operands, found by index arithmetic."""
    name = definition.name
    known = moves_elements(definition) or definition.reduction is not None or definition.pointwise is not None
    if definition.has_effect or operation.regions or not known:
        kind = "has an effect" if definition.has_effect else "is not computed point by point"
        raise LegalityFailure("fuse.impure_member", "F2", f"{name} {kind}", operation.results)
    if name == "const":
        tensor = operation.attributes["value"]
        if tensor.size != 1 and not (tensor.name is None and tensor.is_splat()):
            message = f"constant %{operation.result.name} is no scalar: it is read from outside the kernel"
            raise LegalityFailure("fuse.impure_member", "F2", message, (operation.result,))


def check_type(value: Value) -> None:
    """Rule F2, of types: ranked, and of an element type that kernels compute with."""
    if not value.type.is_ranked:
        raise LegalityFailure("fuse.impure_member", "F2", f"the rank of %{value.name} is not known")
    dtype = value.dtype
    if dtype.kind not in ("float", "int", "uint", "bool") or dtype.bits < 8 or (dtype.is_float and dtype.bits < 16):
        message = f"kernels do not compute in {dtype} (%{value.name})"
        raise LegalityFailure("fuse.impure_member", "F2", message, (value.name,))
