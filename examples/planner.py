"""A planner and a model of cost in a user's file: `fuse{planner=examples/planner.py:optimal}` (docs/planners.md)."""

import heapq
import itertools

from irc.cost import cost
from irc.planner import planner

MOST_SETS = 2_000


@planner
def optimal(graph):
    """The partition into legal sets that takes the least time: the cheapest partial plan is extended first."""
    sets = graph.legal_sets(MOST_SETS)
    starting = {unit: [units for units in sets if min(units) is unit] for unit in graph.units}
    order, seen = itertools.count(), set()
    heap = [(0.0, next(order), frozenset(), [])]
    while heap:
        seconds, _, covered, plan = heapq.heappop(heap)
        first = next((unit for unit in graph.units if unit not in covered), None)
        if first is None and graph.failure(plan) is None:
            return plan
        if first is None or covered in seen:
            continue
        seen.add(covered)
        for units in starting[first]:
            if covered.isdisjoint(units):
                heapq.heappush(heap, (seconds + sets[units].seconds, next(order), covered | units, [*plan, units]))
    return []


@cost
def launches_alone(launch, device):
    """Launches are all that counts."""
    return device.launch_seconds * launch.launches
