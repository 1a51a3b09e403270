"""Covers: groups of which several may compute the same operation, such as one that is cheap and has many readers.

An operation of several groups is *owned* by the first of them in the order in which the kernels run. The owner stores
its results if an operation that is in none of these groups reads them; the others compute the operation and store
nothing of it. Start at `cover`; `irc.passes.fuse` applies a cover with a copy of the operation for each further group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from irc.group import Group, is_free
from irc.group_graph import GroupGraph, run_order
from irc.ir import Block, Operation, Value
from irc.kernel import LegalityFailure
from irc.kernel.failure import failure_of
from irc.kernel.rules import (
    operations_of_several_kernels_are_cheap,
    reads_each_member,
    reads_nothing_that_depends_on_its_stores,
)


def shared(groups: Iterable[Sequence[Operation]]) -> set[Operation]:
    """The operations that are in more than one of the groups."""
    counted = Counter(member for group in groups for member in dict.fromkeys(group))
    return {member for member, number in counted.items() if number > 1}


def owned(groups: Iterable[Group]) -> list[list[Operation]]:
    """What each group owns: its members that no group before it has."""
    seen: set[Operation] = set()
    parts = []
    for group in groups:
        parts.append([member for member in group.members if member not in seen])
        seen.update(group.members)
    return parts


def cheap(operation: Operation, graph: GroupGraph) -> LegalityFailure | None:
    """The rule that keeps several kernels from computing an operation, or None."""
    kernel = graph.group([operation]).equal_kernel
    is_cheap = not isinstance(kernel, LegalityFailure) and kernel.kind == "pointwise"
    is_cheap &= operation.definition.contraction is None and operation.definition.window is None
    return failure_of(operations_of_several_kernels_are_cheap, operation, is_cheap)


def unread(group: Group) -> LegalityFailure | None:
    """The rule that a group of a cover breaks which computes something in vain."""
    read = {value for operation in group.closure for value in operation.inputs} | set(group.stored)
    return failure_of(reads_each_member, [each for each in group.members if read.isdisjoint(each.results)])


def cover(groups: Sequence[Group], graph: GroupGraph, block: Block) -> list[Group] | LegalityFailure:
    """The groups in an order in which they can run, with what each stores where they share operations; or the rule that
    they break together: F18, or F1 where each group that is left needs another that is left."""
    several = shared(group.members for group in groups)
    failure = next(filter(None, (cheap(each, graph) for each in sorted(several, key=graph.number.__getitem__))), None)
    if failure is not None:
        return failure
    inside = {member for group in groups for member in group.members}
    alone = [[operation] for operation in graph.units if operation not in inside]
    nodes = [group.members for group in groups] + alone
    order = run_order(nodes, graph.sources, graph.number)
    if len(order) < len(nodes):
        return _failure(nodes, set(range(len(nodes))).difference(order), len(groups), graph)
    ordered = [groups[index] for index in order if index < len(groups)]
    if not several:
        return ordered
    read = _read([group.closure for group in ordered], alone, block)
    stored = [{result for member in members for result in member.results if result in read}
              for members in owned(ordered)]  # fmt: skip
    return [replace(group, stores=results) for group, results in zip(ordered, stored, strict=True)]


def _failure(nodes: Sequence[Sequence[Operation]], left: Collection[int], groups: int,
             graph: GroupGraph) -> LegalityFailure:  # fmt: skip
    """Rule F1, of a cycle among nodes each of which needs another one; the first so many are groups."""
    cycle = find_cycle(nodes, left, graph)
    group = next(each for each in cycle if each < groups)
    name = nodes[group][-1].results[0].name
    failure = failure_of(reads_nothing_that_depends_on_its_stores, [cycle[group]], name, name)
    assert failure is not None
    return failure


def find_cycle(nodes: Sequence[Sequence[Operation]], left: Collection[int], graph: GroupGraph) -> dict[int, Operation]:
    """A cycle among nodes each of which needs another one: the index of each, and what it reads of the next."""
    computing = {member: index for index in left for member in nodes[index]}
    path: dict[int, Operation] = {}
    index = min(left)
    while index not in path:
        inside = set(nodes[index])
        path[index] = next(source for member in nodes[index] for source in graph.sources[member]
                           if source not in inside and source in computing)  # fmt: skip
        index = computing[path[index]]
    order = list(path)
    return {each: path[each] for each in order[order.index(index) :]}


def _read(closures: Iterable[Sequence[Operation]], alone: Iterable[Sequence[Operation]], block: Block) -> set[Value]:
    """The values that kernels, and operations in none, read of others, also through free operations."""
    closures = list(closures)
    computed = {operation for closure in closures for operation in closure}
    through: dict[Value, tuple[Value, ...]] = {}
    for operation in block:
        if is_free(operation):
            sources = tuple(dict.fromkeys(s for value in operation.inputs for s in through.get(value, (value,))))
            through.update(dict.fromkeys(operation.results, sources))
    remaining = [operation for operation in block if is_free(operation) and operation not in computed]
    outside = [*remaining, *(operation for (operation,) in alone)]
    values = [value for operation in outside for inner in operation.walk() for value in inner.inputs]
    for closure in closures:
        inside = set(closure)
        values += [value for operation in closure for value in operation.inputs if value.operation not in inside]
    return {source for value in values for source in through.get(value, (value,))}
