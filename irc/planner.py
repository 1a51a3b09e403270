"""Planners: functions from a fusion graph to a plan.

    @planner
    def pairs(graph):                            # in FILE.py; used as `fuse{planner=FILE.py:pairs}`
        plan = Partition(graph)
        for producer, consumer in graph.edges:
            merged = plan.hull(producer, consumer)
            if merged and not graph.legal(merged):
                plan = plan.merged(merged)
        return plan                              # sets of units; a unit in none of them is a kernel alone

A planner sees all of a block at once, where a policy (`irc.policy`) scores one merge at a time. The planners that irc
has are in `irc/planners/`, a file each. Start at `FusionGraph`, the argument of a planner.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from irc.cost import Cost, Costs, together
from irc.cover import cheap, cover, find_cycle, unread
from irc.device import Device
from irc.diagnostics import IrcError, fail
from irc.dims import Symbol
from irc.group import Group
from irc.group_graph import GroupGraph, run_order
from irc.ir import Block, Operation, Value
from irc.kernel import LegalityFailure
from irc.kernel.failure import failure_of
from irc.kernel.rules import reads_nothing_that_depends_on_its_stores
from irc.legality import legal
from irc.numerics import Numerics
from irc.user_code import blaming, place_of_code

NOT_FITTING = 3600.0  # seconds of a kernel that does not fit on the device: sums and differences stay numbers
MOST_SIBLINGS = 8  # readers of one value that are all siblings of one another; of more only neighbors are

Units = frozenset["Unit"]


class Unit:
    """An operation that can be a kernel. `index` is its place among the units, which are in an order that runs."""

    __slots__ = ("index", "kind", "name", "operation")

    def __init__(self, index: int, operation: Operation) -> None:
        self.index = index
        self.operation = operation
        self.name: str = operation.results[0].name
        self.kind: str = operation.name

    def __hash__(self) -> int:  # sets of units have the same order in every run
        return self.index

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: Unit) -> bool:
        return self.index < other.index

    def __repr__(self) -> str:
        return f"%{self.name} = {self.kind}"


@dataclass(frozen=True)
class Judged:
    """A set that a planner asked about: what it costs, or the rule that it breaks."""

    units: Units
    failure: LegalityFailure | None = None
    cost: Cost | None = None


class FusionGraph:
    """The operations of a block of which kernels can be made, read-only, and what becomes of sets of them.

    units: the operations that can be kernels, in an order that runs. Views, small constants and widening casts are
        none: kernels compute them at no cost.
    edges: pairs of a unit and one that reads its result, also through views.
    siblings: pairs of units that read the same value.
    sizes: what symbols count as, by name. device: what costs are estimated for. seed: for what is random.
    decisions: the sets that were judged, in order.

    Sets are judged once, and kernels are derived once for all sets of the same structure, such as those of equal
    layers: a set that was judged before takes about a microsecond, another about a millisecond.
    """

    def __init__(self, graph: GroupGraph, block: Block, operations: Iterable[Operation], sizes: Mapping[Symbol, int],
                 *, costs: Costs | None = None, numerics: Numerics = "keeps_more_precision",
                 seed: int = 0) -> None:  # fmt: skip
        self.units = tuple(Unit(index, operation) for index, operation in enumerate(operations))
        self.sizes = {symbol.name: size for symbol, size in sizes.items()}
        self.seed = seed
        self.decisions: list[Judged] = []
        self.notes: list[str] = []
        self._graph, self._block, self._symbols, self._numerics = graph, block, sizes, numerics
        self._costs = costs or Costs()
        self._unit_of = {unit.operation: unit for unit in self.units}
        self._readers: dict[Operation, list[Operation]] = {operation: [] for operation in graph.sources}
        for operation in graph.units:
            for source in graph.sources[operation]:
                self._readers[source].append(operation)
        self._failures: dict[Any, LegalityFailure | None] = {}
        self._priced: dict[Any, Cost] = {}
        self._groups: dict[Any, Group] = {}
        self._cheap: dict[Unit, bool] = {}

    @property
    def device(self) -> Device:
        return self._costs.device

    def __getitem__(self, name: str) -> Unit:
        """The unit that computes the value of this name; raises KeyError."""
        return self._by_name[name.removeprefix("%")]

    @cached_property
    def _by_name(self) -> dict[str, Unit]:
        return {value.name: unit for unit in self.units for value in unit.operation.results}

    def note(self, text: str) -> None:
        """Say something to the user of the plan, such as that a search stopped early."""
        self.notes.append(text)

    # -- neighbors

    @cached_property
    def edges(self) -> tuple[tuple[Unit, Unit], ...]:
        return tuple((unit, self._unit_of[reader]) for unit in self.units for reader in self._readers[unit.operation]
                     if reader in self._unit_of)  # fmt: skip

    @cached_property
    def siblings(self) -> tuple[tuple[Unit, Unit], ...]:
        readers: dict[Value, list[Unit]] = {}
        for unit in self.units:
            for value in _read(self._graph.group([unit.operation])):
                readers.setdefault(value, []).append(unit)
        pairs = dict[tuple[Unit, Unit], None]()
        for units in readers.values():
            few = len(units) <= MOST_SIBLINGS
            pairs.update(dict.fromkeys(itertools.combinations(units, 2) if few else itertools.pairwise(units)))
        return tuple(pairs)

    @cached_property
    def _neighbors(self) -> dict[Unit, dict[Unit, None]]:
        neighbors: dict[Unit, dict[Unit, None]] = {unit: {} for unit in self.units}
        for one, other in (*self.edges, *self.siblings):
            neighbors[one][other] = neighbors[other][one] = None
        return neighbors

    def frontier(self, units: Iterable[Unit]) -> list[Unit]:
        """The units with an edge to one of these, or a sibling among them, in order."""
        inside = set(units)
        return sorted({other for unit in inside for other in self._neighbors[unit]} - inside)

    def edges_of(self, units: Iterable[Unit]) -> list[tuple[Unit, Unit]]:
        """The edges between a unit of these and one that is none of them."""
        inside = set(units)
        return [pair for unit in sorted(inside) for pair in self._edges_at[unit] if not inside.issuperset(pair)]

    @cached_property
    def _edges_at(self) -> dict[Unit, list[tuple[Unit, Unit]]]:
        edges: dict[Unit, list[tuple[Unit, Unit]]] = {unit: [] for unit in self.units}
        for pair in self.edges:
            for unit in pair:
                edges[unit].append(pair)
        return edges

    def hull(self, units: Iterable[Unit]) -> Units | None:
        """The smallest set that has these and all on paths between them; None where one of those is no unit."""
        inside = {unit.operation for unit in units}
        between = self._between(inside, inside)
        if not all(operation in self._unit_of for operation in between):
            return None
        return frozenset(self._unit_of[operation] for operation in (*inside, *between))

    def _between(self, inside: set[Operation], stored: Iterable[Operation]) -> list[Operation]:
        """The operations outside a set that need one of `stored`, and that a member needs."""
        number, reached = self._graph.number, list[set[Operation]]()
        low, high = min(map(number.__getitem__, inside)), max(map(number.__getitem__, inside))
        for start, neighbors in ((stored, self._readers), (inside, self._graph.sources)):
            seen, waiting = set[Operation](), list(start)
            while waiting:
                for other in neighbors[waiting.pop()]:
                    if other not in seen and other not in inside and low < number[other] < high:
                        seen.add(other)
                        waiting.append(other)
            reached.append(seen)
        return sorted(reached[0] & reached[1], key=number.__getitem__)

    # -- sets

    def legal(self, units: Iterable[Unit], stores: Iterable[Unit] | None = None) -> LegalityFailure | None:
        """The rule that keeps a set of units from being one kernel, or None.

        The kernel stores the results of `stores`; without that, those that an operation outside reads. A unit that is
        read outside and not stored is computed by another kernel, too: it has to be cheap (rule F18).
        """
        key = self._key(units, stores)
        if key not in self._failures:
            self._failures[key] = self._judge(*key)
            self.decisions.append(Judged(key[0], self._failures[key]))
        return self._failures[key]

    def cost(self, units: Iterable[Unit], device: Device | None = None, stores: Iterable[Unit] | None = None) -> Cost:
        """The cost of the kernel of a set of units, for the graph's device unless another one is given; raises its
        `LegalityFailure`."""
        key = self._key(units, stores)
        priced = self._priced.get(key) if device is None else None
        if priced is not None:
            return priced
        failure = self.legal(*key)
        if failure is not None:
            raise failure
        priced = self._price(self._groups[key], device)
        if device is None:
            self._priced[key] = priced
            self.decisions.append(Judged(key[0], None, priced))
        return priced

    def repeatable(self, unit: Unit) -> bool:
        """Whether several kernels may compute a unit, each for itself (rule F18)."""
        if unit not in self._cheap:
            self._cheap[unit] = cheap(unit.operation, self._graph) is None
        return self._cheap[unit]

    def stored(self, units: Iterable[Unit]) -> list[Unit]:
        """The units of a set whose results operations outside read, in order."""
        stored = set(self._graph.group(unit.operation for unit in units).stored)
        return [unit for unit in sorted(units) if not stored.isdisjoint(unit.operation.results)]

    def needed(self, units: Iterable[Unit]) -> list[Unit]:
        """The units outside a set whose results it reads, in order."""
        inside = {unit.operation for unit in units}
        sources = {source for operation in inside for source in self._graph.sources[operation]} - inside
        return sorted(self._unit_of[source] for source in sources if source in self._unit_of)

    def is_read_elsewhere(self, unit: Unit) -> bool:
        """Whether an operation that is no unit, such as a library call or the end of the block, reads a unit, or none
        does at all."""
        readers = self._readers[unit.operation]
        return not readers or any(reader not in self._unit_of for reader in readers)

    def legal_sets(self, most: int) -> dict[Units, Cost]:
        """All sets that are connected by edges and siblings and can be one kernel, with their costs, smaller ones
        first; raises `planner.size` where more than `most` sets have to be judged.

        A set that breaks a rule may have a larger one that is legal, so those are tried, too.
        """
        connected: dict[Units, None] = {frozenset([unit]): None for unit in self.units}
        waiting = list(connected)
        for units in waiting:  # which grows
            for other in self.frontier(units):
                larger = self.hull(units | {other})
                if larger is not None and larger not in connected:
                    connected[larger] = None
                    waiting.append(larger)
            if len(connected) > most:
                raise fail("planner.size", f"the graph has more than {most} sets of connected operations",
                           expected="a smaller part of the model", help="take the planner beam or anneal")  # fmt: skip
        return {units: self.cost(units) for units in sorted(connected, key=len) if self.legal(units) is None}

    # -- plans

    def failure(self, plan: Iterable[Iterable[Unit]]) -> LegalityFailure | None:
        """The rule that a plan breaks, or None: sets that are legal alone may need one another."""
        try:
            self.groups(plan)
        except LegalityFailure as failure:
            return failure
        return None

    def conflicts(self, plan: Iterable[Units]) -> list[tuple[list[Units], list[Unit]]]:
        """Sets of a plan that cannot run, each with the results that they wait for: first sets of a cycle, then all.
        They can run only if another set computes one of those results. Empty for a plan whose sets can run."""
        sets = list(plan)
        inside = {unit.operation for units in sets for unit in units}
        alone = [[operation] for operation in self._graph.units if operation not in inside]
        nodes = [sorted((unit.operation for unit in units), key=self._graph.number.__getitem__) for units in sets]
        nodes += alone
        order = run_order(nodes, self._graph.sources, self._graph.number)
        left = set(range(len(nodes))).difference(order)
        if not left:
            return []
        computed = {member for index in order for member in nodes[index]}
        cycle = find_cycle(nodes, left, self._graph)
        missing = {source for index in left for member in nodes[index] for source in self._graph.sources[member]
                   if source not in computed}  # fmt: skip
        pairs = ((cycle, cycle.values()), (left, missing))
        return [(list(dict.fromkeys(sets[index] for index in sorted(indices) if index < len(sets))),
                 sorted(self._unit_of[source] for source in sources if source in self._unit_of))
                for indices, sources in pairs]  # fmt: skip

    def total(self, plan: Iterable[Iterable[Unit]]) -> Cost:
        """The cost of a plan, with a kernel for each unit that is in no set, for what each kernel then stores; raises
        the `LegalityFailure` of a set, or of sets that need one another."""
        return together([self._price(group) for group in self.groups(plan)])

    def groups(self, plan: Iterable[Iterable[Unit]], proposer: str = "planner") -> list[Group]:
        """The groups of a plan, in an order that runs; raises `LegalityFailure`."""
        sets = [frozenset(units) for units in plan]
        covered = frozenset[Unit]().union(*sets)
        sets += [frozenset([unit]) for unit in self.units if unit not in covered]
        groups = [self._graph.group((unit.operation for unit in units), proposer if len(units) > 1 else "seed")
                  for units in sets if units]  # fmt: skip
        covering = cover(groups, self._graph, self._block)
        if isinstance(covering, LegalityFailure):
            raise covering
        for group in covering:
            failure = legal(group, self._numerics) or (unread(group) if group.stores is not None else None)
            if failure is not None:
                raise failure
        return covering

    def _price(self, group: Group, device: Device | None = None) -> Cost:
        cost = self._costs.of(group, self._symbols, device)
        return replace(cost, seconds=min(cost.seconds, NOT_FITTING))

    def _key(self, units: Iterable[Unit], stores: Iterable[Unit] | None) -> tuple[Units, Units | None]:
        return frozenset(units), None if stores is None else frozenset(stores)

    def _judge(self, units: Units, stores: Units | None) -> LegalityFailure | None:
        if not units:
            raise ValueError("a set of no units is no kernel")
        inside = {unit.operation for unit in units}
        group = self._graph.group(inside, "planner")
        if stores is not None:
            results = {result for unit in stores for result in unit.operation.results}
            repeated = [unit for unit in self.stored(units) if unit not in stores and not self.repeatable(unit)]
            if repeated:
                return cheap(repeated[0].operation, self._graph)
            group = replace(group, stores=results)
        between = self._between(inside, inside if stores is None else [unit.operation for unit in stores])
        self._groups[units, stores] = group
        names = (group.members[0].results[0].name, group.name)
        return failure_of(reads_nothing_that_depends_on_its_stores, between, *names) or legal(group, self._numerics)


class Partition:
    """Sets of units, each unit in one, that kernels can compute one after another. `merged` makes another one.

    Partitions are equal that have the same sets. The operations stand in an order in which the sets can run and each
    set is contiguous, so that what is between two sets is searched for between their places alone.
    """

    def __init__(self, graph: FusionGraph, sets: Mapping[Unit, Units] | None = None) -> None:
        self.graph = graph
        self.set_of = {unit: frozenset([unit]) for unit in graph.units}
        self._order = list(graph._graph.units)
        self._places = {operation: place for place, operation in enumerate(self._order)}
        self._hash = sum(map(hash, self.set_of.values()))
        if sets is not None:
            self._take_in(dict.fromkeys(sets.values()))

    def __iter__(self) -> Iterator[Units]:
        return iter(dict.fromkeys(self.set_of.values()))

    def __hash__(self) -> int:
        return hash(self._hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partition) and self._hash == other._hash and self.set_of == other.set_of

    def hull(self, *units: Unit) -> Units | None:
        """The union of the sets of these units, and of those on paths between them; None where an operation that is no
        unit is on a path, or where all are in one set already."""
        inside = frozenset[Unit]().union(*[self.set_of[unit] for unit in units])
        if inside == self.set_of[units[0]]:
            return None
        before = self._reached(inside, self.graph._graph.sources)
        between = before & self._reached(inside, self.graph._readers) if before else before
        if not between:
            return inside
        if not all(operation in self.graph._unit_of for operation in between):
            return None
        return inside.union(*(self.set_of[self.graph._unit_of[operation]] for operation in between))

    def parts(self, units: Iterable[Unit]) -> list[Units]:
        """The sets that these units are in."""
        return list(dict.fromkeys(self.set_of[unit] for unit in sorted(units)))

    def merged(self, units: Units) -> Partition:
        """The partition with one set of these units."""
        return self.replaced([units])

    def replaced(self, sets: Iterable[Units]) -> Partition:
        """The partition with these sets, which together have all units of the sets that they replace."""
        other = copy.copy(self)
        other.set_of, other._order, other._places = self.set_of.copy(), self._order.copy(), self._places.copy()
        other._take_in(sets)
        return other

    def _take_in(self, sets: Iterable[Units]) -> None:
        sets = list(sets)
        units = frozenset[Unit]().union(*sets)
        self._hash += sum(map(hash, sets)) - sum(map(hash, self.parts(units)))
        for members in sets:
            self.set_of.update(dict.fromkeys(members, members))
        places = [self._places[unit.operation] for unit in units]
        self._put_in_order(min(places, default=0), max(places, default=-1) + 1)

    def _put_in_order(self, low: int, high: int) -> None:
        """Order the operations at these places such that sets can run, and are contiguous."""
        unit_of, number = self.graph._unit_of, self.graph._graph.number
        nodes: dict[object, list[Operation]] = {}
        for operation in self._order[low:high]:
            unit = unit_of.get(operation)
            nodes.setdefault(operation if unit is None else self.set_of[unit], []).append(operation)
        members = list(nodes.values())
        order = run_order(members, self.graph._graph.sources, self._places)
        order += sorted(set(range(len(members))).difference(order))  # those that need one another cannot run
        self._order[low:high] = [each for index in order for each in sorted(members[index], key=number.__getitem__)]
        self._places.update(zip(self._order[low:high], range(low, high), strict=True))

    def _reached(self, start: Units, neighbors: Mapping[Operation, Iterable[Operation]]) -> set[Operation]:
        """The operations outside a set of units that it needs, or that need it, with all of each set that has one:
        those between the first and the last of it."""
        places, unit_of = self._places, self.graph._unit_of
        seen = {unit.operation for unit in start}
        at = [places[operation] for operation in seen]
        low, high = min(at), max(at)
        waiting, reached = list(seen), set[Operation]()
        while waiting:
            for other in neighbors[waiting.pop()]:
                if other not in seen and low < places[other] < high:
                    unit = unit_of.get(other)
                    together = [other] if unit is None else [each.operation for each in self.set_of[unit]]
                    seen.update(together)
                    reached.update(together)
                    waiting += together
        return reached


def _read(group: Group) -> list[Value]:
    """The values that a group reads, but for constants."""
    inside = set(group.closure)
    read = dict.fromkeys(value for operation in group.closure for value in operation.inputs
                         if value.operation not in inside)  # fmt: skip
    return [value for value in read if value.operation is None or value.operation.name != "const"]


@dataclass(frozen=True)
class Planner:
    """A function of a `FusionGraph` that returns the sets of units that are kernels."""

    name: str
    function: Callable[[FusionGraph], Iterable[Iterable[Unit]]]

    def __call__(self, graph: FusionGraph) -> list[Group]:
        """The groups of the plan; raises `planner.raised`, and `planner.result` for what is no plan or not legal."""
        at = place_of_code(self.function)
        with blaming("planner.raised", f"the planner {self.name} failed", self.function):
            plan: Any = self.function(graph)
        expected = "a list of sets of units of the graph"
        try:
            sets = [frozenset(units) for units in plan]
        except TypeError:
            raise fail("planner.result", f"the planner {self.name} returned {plan!r}", at=at,
                       expected=expected) from None  # fmt: skip
        known = set(graph.units)
        strange = [unit for units in sets for unit in units if unit not in known]
        if strange:
            raise fail("planner.result", f"the planner {self.name} returned a set with {strange[0]!r}", at=at,
                       expected=expected)  # fmt: skip
        try:
            return graph.groups(sets, self.name)
        except LegalityFailure as failure:
            raise self._illegal(failure) from failure

    def _illegal(self, failure: LegalityFailure) -> IrcError:
        message = f"the plan of {self.name} is illegal: rule {failure.rule}: {failure.message}"
        return fail("planner.result", message, at=place_of_code(self.function), help=f"irc explain {failure.rule}")


def planner(function: Callable[[FusionGraph], Iterable[Iterable[Unit]]]) -> Planner:
    """Declare a planner; use it as `fuse{planner=FILE.py:NAME}`."""
    return Planner(function.__name__, function)
