"""The members of a kernel as a flat list of primitives: named operations give way to their bodies.

A body is traced once and shared, so its values cannot stand for those of one use of it: each use gets its own
slots. Rule F2 is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irc.diagnostics import IrcError, Location, fail
from irc.dtypes import F32, F64, DType
from irc.index_map import VIEWS, Coordinates, View
from irc.ir import Operation, Value
from irc.op import OperationDefinition
from irc.types import TensorType

REDUCTIONS = {"reduce_sum": "sum", "reduce_prod": "prod", "reduce_max": "max", "reduce_min": "min"}
ARGUMENT_REDUCTIONS = {"argmax": "max", "argmin": "min"}
SOURCES = frozenset({"const", "iota", "dim"})
INDEXING = frozenset({"gather", "gather_elements"})
PRIMITIVES = VIEWS | REDUCTIONS.keys() | ARGUMENT_REDUCTIONS.keys() | SOURCES | INDEXING  # and all pointwise ones


class Refusal(Exception):
    """Why a group is no kernel: an answer, not a mistake. `values` are what the message speaks of."""

    def __init__(self, code: str, rule: str, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.code, self.rule, self.message, self.values = code, rule, message, tuple(values)

    def error(self, location: Location) -> IrcError:
        """The refusal as an error, where a person demanded the kernel."""
        return fail(self.code, f"{self.rule}: {self.message}", at=location)


@dataclass(eq=False)
class Slot:
    """A value inside a kernel. `outside` is the buffer it is read from, where no member computes it."""

    type: TensorType
    name: str
    outside: Value | None = None
    producer: Step | None = None
    users: list[Step] = field(default_factory=list)

    @property
    def shape(self) -> Coordinates:
        return self.type.dims


@dataclass(eq=False)
class Step:
    """One primitive of the flat list."""

    definition: OperationDefinition
    attributes: Mapping[str, Any]
    inputs: list[Slot]
    results: list[Slot]

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def is_view(self) -> bool:
        return self.name in VIEWS

    @property
    def is_reduction(self) -> bool:
        return self.name in REDUCTIONS or self.name in ARGUMENT_REDUCTIONS

    @property
    def computes(self) -> bool:
        """Whether its results are rounded to their dtype: views and sources only hand on what they have."""
        return not self.is_view and self.name not in SOURCES and self.name not in INDEXING

    @property
    def axes(self) -> frozenset[int]:
        """The axes that a reduction reduces."""
        chosen = self.attributes["axes"] if "axes" in self.attributes else (self.attributes["axis"],)
        return frozenset(axis % len(self.inputs[0].shape) for axis in chosen)

    def view(self, result: Slot) -> View:
        operands, results = (tuple(slot.type for slot in slots) for slots in (self.inputs, self.results))
        return View(self.name, self.attributes, operands, results, self.results.index(result))


class Steps:
    """The flat list of a group, in order of dependence, and the slots of its values."""

    def __init__(self, members: Sequence[Operation]) -> None:
        if not members:
            raise Refusal("fuse.impure_member", "F2", "a kernel has at least one member")
        if len({id(member.block) for member in members}) > 1:
            raise Refusal("fuse.impure_member", "F2", "the members stand in different blocks")
        self.members = sorted(members, key=lambda member: member._order)
        self.steps: list[Step] = []
        self.slots: dict[Value, Slot] = {}
        self.inputs: list[Value] = []
        for member in self.members:
            results = self._add(member, [self._outer(operand) for operand in member.operands])
            for value, slot in zip(member.results, results, strict=True):
                slot.name = value.name
                self.slots[value] = slot

    def _outer(self, value: Value | None) -> Slot | None:
        if value is not None and value not in self.slots:
            check_type(value.type, value.name)
            self.slots[value] = Slot(value.type, value.name, outside=value)
            self.inputs.append(value)
        return None if value is None else self.slots[value]

    def _add(self, operation: Operation, operands: list[Slot | None]) -> list[Slot]:
        """Add one operation, or its body; returns the slots of its results."""
        definition = operation.definition
        present = [operand for operand in operands if operand is not None]
        if definition.is_named:
            types = [None if operand is None else operand.type for operand in operands]
            body = definition.body(types, operation.attributes)
            inner = dict(zip(body.arguments, present, strict=True))
            for step in body.block:
                if not step.definition.is_terminator:
                    given = [None if operand is None else inner[operand] for operand in step.operands]
                    inner.update(zip(step.results, self._add(step, given), strict=True))
            return [inner[value] for value in body.returned]
        check_member(operation, definition)
        made = Step(definition, operation.attributes, present, [])
        for result in operation.results:
            check_type(result.type, result.name)
            made.results.append(Slot(result.type, result.name, producer=made))
        for slot in dict.fromkeys(present):
            slot.users.append(made)
        self.steps.append(made)
        return made.results


def check_member(operation: Operation, definition: OperationDefinition) -> None:
    """Rule F2: each element of the results is a function of elements of the operands, found by index arithmetic."""
    name = definition.name
    if definition.has_effect or operation.regions or not (name in PRIMITIVES or definition.is_pointwise):
        kind = "has an effect" if definition.has_effect else "is not computed point by point"
        raise Refusal("fuse.impure_member", "F2", f"{name} {kind}", operation.results)
    if name == "const":
        tensor = operation.attributes["value"]
        if tensor.size != 1 and not (tensor.name is None and tensor.is_splat()):
            message = f"constant %{operation.result.name} is no scalar: it is read from outside the kernel"
            raise Refusal("fuse.impure_member", "F2", message, (operation.result,))


def check_type(type_: TensorType, name: str) -> None:
    """Rule F2, of types: ranked, and of an element type that kernels compute with."""
    if not type_.is_ranked:
        raise Refusal("fuse.impure_member", "F2", f"the rank of %{name} is not known")
    dtype = type_.dtype
    if dtype.kind not in ("float", "int", "uint", "bool") or dtype.bits < 8 or (dtype.is_float and dtype.bits < 16):
        raise Refusal("fuse.impure_member", "F2", f"kernels do not compute in {dtype} (%{name})", (name,))


def register_type(dtype: DType) -> DType:
    """The type in which a kernel holds values of `dtype`: f32 for f16 and bf16, rounded when they are stored."""
    return F32 if dtype.is_float and dtype is not F64 else dtype
