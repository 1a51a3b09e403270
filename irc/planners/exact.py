"""`planner=exact`: the plan that takes the least time, by a 0/1 program."""

from __future__ import annotations

import itertools
from typing import Any

from irc.diagnostics import fail
from irc.planner import FusionGraph, Unit, Units, planner

MOST_SETS = 20_000  # connected sets of units that are judged
MOST_REPEATED = 3  # units of one set that other kernels compute, too
SECONDS = 60.0  # for the solver; where it stops early, a note says by how much the plan may be worse

Candidate = tuple[Units, frozenset[Unit]]  # a set, and those of its units that it stores


@planner
def exact(graph: FusionGraph) -> list[Units]:
    """Choose among all legal sets by a 0/1 program, which HiGHS solves through SciPy (`pip install
    "irc-compiler[exact]"`), as Korch does (Hu et al., arXiv 2406.09465).

    A variable for each set and what it stores; least is the sum of their seconds. What a chosen set reads is stored by
    a chosen set, and so is what operations in no kernel read. A cheap unit may be in several sets, which compute it
    again. Sets that need one another are excluded when a solution has them, and the program is solved again.
    """
    candidates = [each for units in graph.legal_sets(MOST_SETS) for each in variants(graph, units)]
    costs = [graph.cost(units, stores=stored).seconds for units, stored in candidates]
    excluded: list[list[int]] = []
    while True:
        chosen, gap = solved(graph, candidates, costs, excluded)
        plan = [candidates[index][0] for index in chosen]
        if graph.failure(plan) is None:
            if gap > 0:
                graph.note(f"exact: the solver stopped after {SECONDS:g} s, within {100 * gap:.2g}% of the least time")
            return plan
        excluded.append(chosen)  # sets that need one another


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


def solved(graph: FusionGraph, candidates: list[Candidate], costs: list[float],
           excluded: list[list[int]]) -> tuple[list[int], float]:  # fmt: skip
    """The chosen candidates, and the relative gap between their time and the least that is possible."""
    try:
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_matrix
    except ImportError:
        raise fail("install.missing_extra", "the planner exact needs scipy, which is not installed",
                   help='pip install "irc-compiler[exact]"') from None  # fmt: skip
    rows: list[dict[int, float]] = []
    least: list[float] = []
    storing: dict[Unit, list[int]] = {unit: [] for unit in graph.units}
    for index, (_, stored) in enumerate(candidates):
        for unit in stored:
            storing[unit].append(index)
    for unit in graph.units:
        if graph.is_read_elsewhere(unit):
            rows.append(dict.fromkeys(storing[unit], 1.0))
            least.append(1.0)
    for index, (units, _) in enumerate(candidates):
        for unit in graph.needed(units):
            rows.append({**dict.fromkeys(storing[unit], 1.0), index: -1.0})
            least.append(0.0)
    for sets in excluded:
        rows.append(dict.fromkeys(sets, -1.0))
        least.append(1.0 - len(sets))
    places = [(row, column, value) for row, entries in enumerate(rows) for column, value in entries.items()]
    data: Any = ([value for *_, value in places], ([row for row, *_ in places], [column for _, column, _ in places]))
    matrix = csr_matrix(data, shape=(len(rows), len(candidates)))
    microseconds = 1e6 * np.array(costs)
    result = milp(microseconds, constraints=LinearConstraint(matrix, lb=least), integrality=np.ones(len(costs)),
                  bounds=Bounds(0, 1), options={"time_limit": SECONDS, "mip_rel_gap": 1e-9})  # fmt: skip
    if result.x is None:
        raise fail("planner.size", f"the solver found no plan in {SECONDS:g} s", help="take the planner beam or anneal")
    gap = 0.0 if result.status == 0 else float(result.mip_gap)
    return [index for index, value in enumerate(result.x) if value > 0.5], gap
