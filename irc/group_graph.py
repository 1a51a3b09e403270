"""The groups of a block as a graph without cycles: the operations between groups, and merging groups.

Rule F1 is checked here (`hull`): a kernel reads nothing that depends on what it stores.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence

from irc.group import DerivationCache, Group, is_free
from irc.ir import Block, Operation, mentioned_symbols
from irc.kernel import LegalityFailure
from irc.kernel.failure import failure_of
from irc.kernel.rules import reads_nothing_that_depends_on_its_stores
from irc.remarks import Remarks


def makers(block: Block) -> dict[Operation, list[Operation]]:
    """For each operation of a block the others that must run before it: those that define the values and symbols that
    it, or one inside it, reads, and for an operation with an effect the one with an effect before it."""
    defining = {symbol: operation for operation in block for symbol in operation.symbols}
    required: dict[Operation, dict[Operation, None]] = {operation: {} for operation in block}
    for operation, needed in required.items():
        for inner in operation.walk():
            sources = [value.operation for value in inner.inputs]
            needed.update((source, None) for source in sources if source in required)
            needed.update((defining[symbol], None) for symbol in mentioned_symbols(inner) if symbol in defining)
        needed.pop(operation, None)
    for before, after in itertools.pairwise(operation for operation in block if operation.has_effect):
        required[after][before] = None
    return {operation: list(needed) for operation, needed in required.items()}


def run_order(nodes: Sequence[Sequence[Operation]], sources: Mapping[Operation, Iterable[Operation]],
              number: Mapping[Operation, int]) -> list[int]:  # fmt: skip
    """The indices of sets of operations in an order in which they can run, of those that can run next the one whose
    last operation has the smallest number; without those that cannot run, since each needs another of them. `sources`
    are what an operation needs directly: those in none of the sets have run before."""
    inside = {member for members in nodes for member in members}
    waiting: dict[Operation, list[int]] = {}
    missing = []
    for index, members in enumerate(nodes):
        needed = {source for member in members for source in sources[member] if source in inside}.difference(members)
        missing.append(len(needed))
        for source in needed:
            waiting.setdefault(source, []).append(index)
    last = [max([number[member] for member in members]) for members in nodes]
    ready = [(last[index], index) for index in range(len(nodes)) if not missing[index]]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)[1]
        order.append(index)
        for member in nodes[index]:
            for reader in waiting.pop(member, ()):
                missing[reader] -= 1
                if not missing[reader]:
                    heapq.heappush(ready, (last[reader], reader))
    return order


class Unit:
    """A node of the graph: a group, or one operation that is in none. `readers` and `sources` are the operations of
    other units that depend on it directly, and on which it depends."""

    __slots__ = ("group", "members", "place", "readers", "sources")

    def __init__(self, members: list[Operation], place: int) -> None:
        self.members = members
        self.group: Group | None = None
        self.place = place
        self.readers: dict[Operation, None] = {}
        self.sources: dict[Operation, None] = {}


class GroupGraph:
    """The units of a block and the order in which they can run.

    Free operations are no units: kernels include them, so edges lead through them. Every edge leads to a unit with
    a higher `place`, so a search between two units never leaves the places between theirs. Merging restores that order
    among the units there, as in Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs"
    (2007).
    """

    def __init__(self, block: Block, remarks: Remarks | None = None) -> None:
        self.remarks = remarks
        self.number = {operation: index for index, operation in enumerate(block)}
        self.cache = DerivationCache(block)
        free = {operation for operation in block if is_free(operation)}
        self.units = {operation: Unit([operation], self.number[operation]) for operation in block
                      if operation not in free}  # fmt: skip
        self.sources: dict[Operation, list[Operation]] = {}  # what each operation needs directly, or through free ones
        for operation, needed in makers(block).items():
            direct = dict.fromkeys(s for need in needed for s in (self.sources[need] if need in free else [need]))
            self.sources[operation] = list(direct)
            if operation not in free:
                self.units[operation].sources = direct
                for source in direct:
                    self.units[source].readers[operation] = None
        self.merges: list[Group] = []  # groups of several operations, in the order made

    def group(self, members: Iterable[Operation], proposer: str = "seed") -> Group:
        """A group of these operations, which need not be a unit."""
        return Group(sorted(members, key=self.number.__getitem__), proposer, self.cache)

    def units_of(self, operations: Iterable[Operation]) -> list[Unit]:
        """The units that hold the operations, each once."""
        return list(dict.fromkeys(self.units[operation] for operation in operations))

    def between(self, units: Iterable[Unit]) -> list[Unit]:
        """The other units on paths from one of these to another, in order."""
        units = list(units)
        after, before = self._reached(units, forward=True), self._reached(units, forward=False)
        return sorted((unit for unit in after if unit in before), key=lambda unit: unit.place)

    def _note(self, group: Group, units: Iterable[Unit]) -> None:
        """The remark that units become the group."""
        assert self.remarks is not None
        parts = list(dict.fromkeys(unit.group.members[-1] for unit in units if unit.group is not None))
        self.remarks.add(group.proposer, "merged" if parts else "candidate", parts or group.members[-1:],
                         kernel=group.name)  # fmt: skip

    def merge(self, group: Group, owned: Sequence[Operation] = ()) -> None:
        """Make one unit of those of the group's members, or of those that it owns (`irc.cover`) where other groups
        compute some of them, too. No other unit may stand between them (rule F1)."""
        members = list(owned) or group.members
        units = self.units_of(members)
        after, before = self._reached(units, forward=True), self._reached(units, forward=False)
        assert after.keys().isdisjoint(before), "a merge of these would form a cycle"
        places = sorted(unit.place for unit in (*units, *after, *before))
        if self.remarks is not None:
            self._note(group, units)
        self.merges += [group] if len(group.members) > 1 else []
        merged = Unit(members, places[len(before)])
        for unit, place in zip(sorted(before, key=lambda unit: unit.place), places, strict=False):
            unit.place = place
        for unit, place in zip(sorted(after, key=lambda unit: -unit.place), reversed(places), strict=False):
            unit.place = place
        merged.group = group
        inside = set(members)
        merged.readers = {other: None for unit in units for other in unit.readers if other not in inside}
        merged.sources = {other: None for unit in units for other in unit.sources if other not in inside}
        self.units.update(dict.fromkeys(members, merged))

    def _reached(self, start: list[Unit], *, forward: bool) -> dict[Unit, None]:
        """The other units that depend on these (or, backward, on which these depend), of those in between."""
        low, high = min(unit.place for unit in start), max(unit.place for unit in start)
        starting, reached, waiting = set(start), dict[Unit, None](), list(start)
        while waiting:
            unit = waiting.pop()
            for operation in unit.readers if forward else unit.sources:
                other = self.units[operation]
                if low < other.place < high and other not in reached and other not in starting:
                    reached[other] = None
                    waiting.append(other)
        return reached


def hull(groups: Iterable[Group], proposer: str, graph: GroupGraph) -> Group | LegalityFailure:
    """The smallest group that contains these and that no path leaves and enters again (rule F1)."""
    groups = list(groups)
    units = graph.units_of(member for group in groups for member in group.members)
    between = graph.between(units)
    outside = [operation for unit in between if unit.group is None for operation in unit.members]
    failure = failure_of(reads_nothing_that_depends_on_its_stores, outside, groups[0].name, groups[-1].name)
    if failure is not None:
        return failure
    groups += [unit.group for unit in between if unit.group is not None]
    return graph.group({member: None for group in groups for member in group.members}, proposer)
