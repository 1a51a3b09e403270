"""`planner=beam`: the best few partial plans are kept, unit by unit."""

from __future__ import annotations

import itertools

from irc.planner import FusionGraph, Partition, Unit, Units, planner

WIDTH = 8  # partial plans that are kept
MOST_JOINED = 3  # sets that a unit may join at once: it may connect what it reads


@planner
def beam(graph: FusionGraph) -> Partition:
    """Decide unit by unit, in the order of the program, which sets of its neighbors a unit joins, and keep the WIDTH
    partial plans that take the least time.

    A unit that is not decided yet counts as a kernel alone, so that plans are compared as wholes. Where a set breaks a
    rule it is not kept, though a larger one may be legal: `exact` looks at those, too.
    """
    start = Partition(graph)
    seconds = sum(graph.cost(units).seconds for units in start)
    plans = {start: seconds}
    for unit in graph.units:
        grown = dict(plans)
        for plan, seconds in plans.items():
            for merged in joined(graph, plan, unit):
                before = sum(graph.cost(part).seconds for part in plan.parts(merged))
                grown.setdefault(plan.merged(merged), seconds + graph.cost(merged).seconds - before)
        plans = dict(sorted(grown.items(), key=lambda entry: entry[1])[:WIDTH])
    return min(plans, key=plans.__getitem__)


def joined(graph: FusionGraph, plan: Partition, unit: Unit) -> list[Units]:
    """The legal sets that a unit makes with sets of neighbors before it."""
    before = [other for other in graph.frontier([unit]) if other < unit]
    neighbors = list(dict.fromkeys(plan.set_of[other] for other in before))[:8]
    merged = dict[Units, None]()
    for number in range(1, MOST_JOINED + 1):
        for some in itertools.combinations(neighbors, number):
            larger = plan.hull(unit, *(next(iter(units)) for units in some))
            if larger is not None and graph.legal(larger) is None:
                merged[larger] = None
    return list(merged)
