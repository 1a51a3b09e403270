"""`planner=exact`: the plan that takes the least time, by a 0/1 program."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from irc.planner import FusionGraph, Unit, Units, planner
from irc.zero_one import Constraint, solved

MOST_SETS = 20_000  # connected sets of units that are judged
MOST_REPEATED = 3  # units of one set that other kernels compute, too
SECONDS = 60.0  # for all calls of the solver; where it stops early, a note says by how much the plan may be worse

Candidate = tuple[Units, frozenset[Unit]]  # a set, and those of its units that it stores


@planner
def exact(graph: FusionGraph) -> list[Units]:
    """Choose among all legal sets by a 0/1 program, which HiGHS solves through SciPy (`pip install
    "irc-compiler[exact]"`), as Korch does (Hu et al., arXiv 2406.09465).

    A variable for each set and what it stores; least is the sum of their seconds. What a chosen set reads is stored by
    a chosen set, and so is what operations in no kernel read. A cheap unit may be in several sets, which compute it
    again. Sets that need one another are excluded when a solution has them, and the program is solved again, for
    SECONDS in total.
    """
    candidates = [each for units in graph.legal_sets(MOST_SETS) for each in variants(graph, units)]
    microseconds = [1e6 * graph.cost(units, stores=stored).seconds for units, stored in candidates]
    constraints = constraints_of(graph, candidates)
    deadline = time.monotonic() + SECONDS
    while True:
        chosen, gap = solved(microseconds, constraints, deadline)
        plan = [candidates[index][0] for index in chosen]
        if graph.failure(plan) is None:
            if gap > 0:
                graph.note(f"exact: the solver stopped after {SECONDS:g} s, within {100 * gap:.2g}% of the least time")
            return plan
        constraints.append(exclusion(graph, candidates, chosen))


def exclusion(graph: FusionGraph, candidates: Sequence[Candidate], chosen: Sequence[int]) -> Constraint:
    """A constraint that a solution breaks.

    Of sets that need one another not all may be chosen, unless another set computes what they wait for. A plan that is
    not legal for another reason is excluded as a whole.
    """
    plan = [candidates[index][0] for index in chosen]
    for sets, awaited in graph.conflicts(plan):
        excluded = [index for index, (units, _) in enumerate(candidates) if units in sets]
        others = [index for index, (units, _) in enumerate(candidates)
                  if units not in sets and not units.isdisjoint(awaited)]  # fmt: skip
        if not set(chosen).intersection(others):
            return {**dict.fromkeys(others, 1.0), **dict.fromkeys(excluded, -1.0)}, 1.0 - len(sets)
    return dict.fromkeys(chosen, -1.0), 1.0 - len(chosen)


def variants(graph: FusionGraph, units: Units) -> list[Candidate]:
    """A set with what it may store: all that is read outside, or without cheap units that other sets compute, too."""
    stored = frozenset(graph.stored(units))
    optional = [unit for unit in sorted(stored) if graph.repeatable(unit) and not graph.is_read_elsewhere(unit)]
    variants = []
    for number in range(min(len(optional), MOST_REPEATED, len(stored) - 1) + 1):
        for left_out in itertools.combinations(optional, number):
            if graph.legal(units, stored.difference(left_out)) is None:
                variants.append((units, stored.difference(left_out)))
    return variants


def constraints_of(graph: FusionGraph, candidates: Sequence[Candidate]) -> list[Constraint]:
    """What is read in no kernel is stored by a chosen set, and so is what a chosen set reads of others."""
    storing: dict[Unit, list[int]] = {unit: [] for unit in graph.units}
    for index, (_, stored) in enumerate(candidates):
        for unit in stored:
            storing[unit].append(index)
    rows = [(dict.fromkeys(storing[unit], 1.0), 1.0) for unit in graph.units if graph.is_read_elsewhere(unit)]
    rows += [({**dict.fromkeys(storing[unit], 1.0), index: -1.0}, 0.0)
             for index, (units, _) in enumerate(candidates) for unit in graph.needed(units)]  # fmt: skip
    return rows
