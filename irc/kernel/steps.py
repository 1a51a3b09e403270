"""The members of a kernel as a flat list of primitives: named operations are replaced by their bodies.

A body is traced once and shared, so each use of it has copies of its operations. They are created once for all groups
of a block (`Expansion`). Rule F2 states which operations may be members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

from irc.cloning import Cloner
from irc.index_map import Point, same
from irc.interfaces import Space
from irc.ir import Block, Operation, Value
from irc.kernel.failure import LegalityFailure
from irc.kernel.rules import (
    are_in_one_block,
    has_type_of_kernels,
    members_map_elements,
    moves_elements,
    operands_fit,
    windows_fit,
)

MOST_UNROLLED = 64  # products of a window of one channel, each with two loads and a line of source


class Expansion:
    """Copies of operations as primitives over values of their own, so that the operations' uses stay as they are.

    `inner` are the values that stand for those of the operations; `names` says which result of an operation a value is
    computed for. Operations are added once, producers before their readers; constants, which may stand in a block
    around, are added where they are read. What is derived of primitives alone is remembered here for all groups.
    """

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.inner: dict[Value, Value] = {}
        self.names: dict[Value, str] = {}
        # What propagation gives (`irc.kernel.propagation`): the point of a result by those of the operands, and the
        # points of the operands by that of the result.
        self.result_points: dict[tuple[Value, tuple[Point | None, ...]], Point | None] = {}
        self.operand_points: dict[tuple[Operation, Value, Point], list[tuple[Value, Point | None]]] = {}
        self._members: dict[Value, Operation] = {}  # that the primitive of a value is of
        self._reads: dict[Operation, list[tuple[Value, Operation]]] = {}
        self._primitives: dict[Operation, list[Operation] | LegalityFailure] = {}
        self._cloner = Cloner()
        self.inner = self._cloner.values
        self._arguments = Block()
        self._cones: dict[tuple[Operation, tuple[int, ...]], int] = {}
        self._spaces: dict[Operation, Space] = {}
        for operation in operations:
            self.add(operation)

    def of(self, operation: Operation) -> list[Operation]:
        """The primitives of an operation, in order of dependence; raises `LegalityFailure`."""
        self.add(operation)
        primitives = self._primitives[operation]
        if isinstance(primitives, LegalityFailure):
            raise primitives
        return primitives

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
        for step in primitives:
            self._members.update(dict.fromkeys(step.results, operation))
            self.names.update(dict.fromkeys(step.results, operation.results[0].name))
        self._reads[operation] = list(dict.fromkeys((value, step) for step in primitives for value in step.inputs))
        for value in operation.results:
            self.names[self.inner[value]] = self.inner[value].name = value.name

    def reads(self, operation: Operation) -> list[tuple[Value, Operation]]:
        """The values that the primitives of an operation read, each with the primitive."""
        return self._reads[operation]

    def member(self, value: Value) -> Operation | None:
        """The operation of which a primitive computes a value, if one does."""
        return self._members.get(value)

    def cone(self, operation: Operation, below: tuple[int, ...]) -> int:
        """The number, from 1, of an operation as it is computed from operands of these cones, 0 of what is read from
        outside of a group."""
        return self._cones.setdefault((operation, below), len(self._cones) + 1)

    def space(self, step: Operation) -> Space:
        """The iteration space of a primitive that is a contraction."""
        if step not in self._spaces:
            contraction = step.definition.contraction
            assert contraction is not None
            self._spaces[step] = contraction.space(step)
        return self._spaces[step]

    def _read(self, value: Value) -> None:
        has_type_of_kernels(value, is_stored=True)
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
        members_map_elements(operation)
        operands_fit(operation)
        windows_fit(operation)
        primitives.append(cloner.operation(operation))
        for result in operation.results:
            has_type_of_kernels(result, is_stored=definition.pull is not None)


class Steps:
    """The primitives of a group's members, in order of dependence.

    `inner` are the values that stand for those of the members, and for those that they read from outside; `buffers`
    says what the latter are read from. `readers` are the steps that read a value.
    """

    def __init__(self, members: Sequence[Operation], expansion: Expansion | None = None) -> None:
        are_in_one_block([member for member in members if member.name != "const"])
        self.members = sorted(members, key=lambda member: (member.name != "const", member.order_label))
        self.expansion = expansion = Expansion() if expansion is None else expansion
        self.steps = [step for member in self.members for step in expansion.of(member)]
        self.inner = expansion.inner
        self.names = expansion.names
        self.buffers: dict[Value, Value] = {}
        self.readers: dict[Value, list[Operation]] = {}
        self._cones: dict[Operation | None, int] = {}
        for member in self.members:
            below = [self._cones.get(value.operation, 0) for value in member.inputs]
            self._cones[member] = expansion.cone(member, tuple(below))
            for value, cone in zip(member.inputs, below, strict=True):
                if not cone:
                    self.buffers[self.inner[value]] = value
            for value, step in expansion.reads(member):
                self.readers.setdefault(value, []).append(step)

    def cone(self, value: Value) -> int:
        """The members that a value is computed from, as a number that is the same in all groups of a block; 0 of what
        is read from outside."""
        return self._cones.get(self.expansion.member(value), 0)

    def sums_in_sums(self) -> tuple[str, ...]:
        """The names of contractions that are summed over axes, each of which reads the one before, also through other
        steps: the most, or three of more."""
        chains: dict[Value, tuple[str, ...]] = {}
        for step in self.steps:
            read = [chains.get(value, ()) for value in step.inputs]
            if step.definition.contraction is not None and is_sum(self.expansion.space(step), step.result.rank):
                read = [max(read[:2], key=len) + (self.names[step.result],), *read[2:]]
            longest = max(read, key=len, default=())
            if len(longest) == 3:
                return longest
            if longest:
                chains.update(dict.fromkeys(step.results, longest))
        return max(chains.values(), key=len, default=())

    @cached_property
    def computed_with(self) -> set[Value]:
        """The values that a step which computes reads, also through steps that only move elements."""
        values: set[Value] = set()
        for step in reversed(self.steps):
            if not moves_elements(step.definition) or not values.isdisjoint(step.results):
                values.update(step.inputs)
        return values


def is_unrolled(space: Space, rank: int) -> bool:
    """Whether a contraction with a result of this rank, of a short window of one channel, is added up tap by tap."""
    window = [extent for extent in space.extents[rank:] if isinstance(extent, int)]
    is_short = len(window) == len(space.extents) - rank and math.prod(window) <= MOST_UNROLLED
    return space.is_window and is_short


def is_sum(space: Space, rank: int) -> bool:
    """Whether a contraction with a result of this rank is summed over axes."""
    return not is_unrolled(space, rank) and not all(same(extent, 1) for extent in space.extents[rank:])


def members_of(kernel: Operation) -> list[Operation]:
    """The operations in the region of a `kernel` operation, without its `yield`."""
    return [member for member in kernel.regions[0].block if not member.definition.is_terminator]


def reduced_dims(reduction: Operation) -> frozenset[int]:
    """The axes of its operand that a reduction reduces."""
    attributes = reduction.attributes
    chosen = attributes["axes"] if "axes" in attributes else (attributes["axis"],)
    return frozenset(axis % reduction.inputs[0].rank for axis in chosen)
