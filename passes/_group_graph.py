"""The groups of a block as a graph: what stands between two of them, and the smallest group that holds both.

Rule F1 is judged here: a kernel reads nothing that depends on what it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from irc.ir import Block, Operation, mentioned_symbols
from irc.kernel import Refusal
from irc.plan import Group, is_free


def makers(block: Block) -> dict[Operation, list[Operation]]:
    """For each operation of a block those others that make the values and symbols which it, or one inside it, reads."""
    births = {symbol: operation for operation in block for symbol in operation.symbols}
    found: dict[Operation, dict[Operation, None]] = {operation: {} for operation in block}
    for operation, needed in found.items():
        for inner in operation.walk():
            made_by = [value.operation for value in inner.inputs]
            needed.update((maker, None) for maker in made_by if maker in found)
            needed.update((births[symbol], None) for symbol in mentioned_symbols(inner) if symbol in births)
        needed.pop(operation, None)
    return {operation: list(needed) for operation, needed in found.items()}


class Dependencies:
    """The graph of groups, for asking what stands between two of them.

    A unit is a group, or a single operation that is in none. Free operations are no units: kernels take them
    along, so edges lead through them. Operations are numbered in block order, so that every edge leads to a
    higher number, and a search never goes beyond its target's highest.
    """

    def __init__(self, block: Block) -> None:
        self.number = {operation: index for index, operation in enumerate(block)}
        self.group: dict[Operation, Group] = {}
        self.readers: dict[Operation, list[Operation]] = {operation: [] for operation in block}
        self.sources: dict[Operation, list[Operation]] = {}
        for operation, needed in makers(block).items():
            direct = {s: None for need in needed for s in (self.sources[need] if is_free(need) else [need])}
            self.sources[operation] = list(direct)
            if not is_free(operation):
                for source in direct:
                    self.readers[source].append(operation)

    def assign(self, group: Group) -> None:
        for member in group.members:
            self.group[member] = group

    def unit(self, operation: Operation) -> list[Operation]:
        found = self.group.get(operation)
        return found.members if found is not None else [operation]

    def between(self, start: Group, target: Group) -> list[Operation]:
        """The operations of other units on paths from `start` to `target`, in block order."""
        lowest, highest = self.number[start.members[0]], max(self.number[member] for member in target.members)
        behind = self._reach(start, set(target.members), self.readers, lambda number: number <= highest)
        before = self._reach(target, set(start.members), self.sources, lambda number: number >= lowest)
        return sorted(behind & before, key=self.number.__getitem__)

    def _reach(
        self,
        start: Group,
        stop: set[Operation],
        edges: Mapping[Operation, list[Operation]],
        inside: Callable[[int], bool],
    ) -> set[Operation]:
        own = set(start.members)
        seen: set[Operation] = set()
        waiting = [other for member in start.members for other in edges[member]]
        while waiting:
            operation = waiting.pop()
            if operation in seen or operation in own or operation in stop:
                continue
            for part in self.unit(operation):
                seen.add(part)
                if inside(self.number[part]):
                    waiting += edges[part]
        return seen


def hull(producer: Group, consumer: Group, proposer: str, dependencies: Dependencies) -> Group | Refusal:
    """The smallest group that holds both and that no path leaves and enters again (rule F1).

    Both may be one group, which is proposed as a whole: then what stands between its own members is taken in.
    """
    groups = {producer: None, consumer: None}
    for operation in dependencies.between(producer, consumer):
        group = dependencies.group.get(operation)
        if group is None:
            between = " ".join([operation.name, *(f"%{result.name}" for result in operation.results)])
            message = f"{between} needs @{producer.name} and is needed by @{consumer.name}"
            return Refusal("fuse.depends_on_own_store", "F1", message, tuple(operation.results))
        groups[group] = None
    return merge_groups(groups, proposer, dependencies.number)


def merge_groups(groups: Iterable[Group], proposer: str, order: Mapping[Operation, int]) -> Group:
    members = {member: None for group in groups for member in group.members}
    return Group(sorted(members, key=lambda member: order[member]), proposer)
