"""`planner=anneal`: simulated annealing with restarts."""

from __future__ import annotations

import math
import random

from irc.planner import FusionGraph, Partition, Unit, Units, planner

RESTARTS = 3
STEPS = 40  # for each unit, in a restart
HOTTEST, COLDEST = 0.1, 0.0005  # temperatures, as shares of the time of the plan without merges


@planner
def anneal(graph: FusionGraph) -> Partition:
    """Merge sets and take units out of them at random. A step that makes the plan slower by d is kept with probability
    exp(-d / temperature), and the temperature falls (Kirkpatrick, Gelatt, Vecchi: Optimization by simulated annealing,
    1983). The best plan of RESTARTS runs. `fuse{planner=anneal,seed=1}` gives other random numbers.
    """
    generator = random.Random(graph.seed)
    start = Partition(graph)
    pairs = [*graph.edges, *graph.siblings]
    if not pairs:
        return start
    alone = sum(graph.cost(units).seconds for units in start)
    best, least = start, alone
    for _ in range(RESTARTS):
        plan, seconds, steps = start, alone, STEPS * len(graph.units)
        for step in range(steps):
            temperature = alone * HOTTEST * (COLDEST / HOTTEST) ** (step / steps)
            changed = changes(graph, plan, pairs, generator)
            if changed is None:
                continue
            removed, added = changed
            slower = time(graph, added) - time(graph, removed)
            if slower <= 0 or generator.random() < math.exp(-slower / temperature):
                plan, seconds = plan.replaced(added), seconds + slower
                if seconds < least * (1 - 1e-9):
                    best, least = plan, seconds
    return best


def changes(graph: FusionGraph, plan: Partition, pairs: list[tuple[Unit, Unit]], generator: random.Random
            ) -> tuple[list[Units], list[Units]] | None:  # fmt: skip
    """The sets that a random step at one of the pairs removes, and those that it adds; None for an illegal step."""
    one, other = generator.choice(pairs)
    if plan.set_of[one] is not plan.set_of[other]:
        merged = plan.hull(one, other)
        return None if merged is None or graph.legal(merged) else (plan.parts(merged), [merged])
    unit = generator.choice((one, other))
    rest = plan.set_of[unit] - {unit}
    return None if not rest or graph.legal(rest) else ([plan.set_of[unit]], [rest, frozenset([unit])])


def time(graph: FusionGraph, sets: list[Units]) -> float:
    return sum(graph.cost(units).seconds for units in sets)
