"""`planner=greedy`: the merge that saves most bytes first."""

from __future__ import annotations

import heapq

from irc.planner import FusionGraph, Partition, Unit, Units, planner


@planner
def greedy(graph: FusionGraph) -> Partition:
    """Merge a producer with a consumer where the kernels then read and write fewer distinct bytes, the merge that saves
    most first; never where bytes that are loaded repeatedly grow by more than that.

    This is `policy=greedy` as a planner, to start from. A score is computed again only when its merge is the first in
    the heap, since it may have changed. No siblings, and nothing is undone.
    """
    plan = Partition(graph)
    heap = [entry for pair in graph.edges if (entry := scored(graph, plan, pair))]
    heapq.heapify(heap)
    while heap:
        _, pair, before = heapq.heappop(heap)
        entry = scored(graph, plan, pair)
        if entry is None:
            continue
        if entry[2] != before:  # one of its parts has grown since
            heapq.heappush(heap, entry)
            continue
        merged = before[0]
        plan = plan.merged(merged)
        for pair in graph.edges_of(merged):  # some were illegal, or saved nothing, with the smaller sets
            if entry := scored(graph, plan, pair):
                heapq.heappush(heap, entry)
    return plan


Score = tuple[float, int, int]
Entry = tuple[Score, tuple[Unit, Unit], tuple[Units, ...]]


def scored(graph: FusionGraph, plan: Partition, pair: tuple[Unit, Unit]) -> Entry | None:
    """The entry of a pair in the heap: the smallest is merged first; the sets say what it was computed for."""
    merged = plan.hull(*pair)
    if merged is None or graph.legal(merged) is not None:
        return None
    parts = plan.parts(merged)
    before, after = [graph.cost(part) for part in parts], graph.cost(merged)
    saved = sum(each.bytes for each in before) - after.bytes
    loaded = sum(each.loaded for each in before) - after.loaded
    if saved <= 0 or -loaded > saved:
        return None
    return (-saved, len(merged), max(unit.index for unit in merged)), pair, (merged, *parts)
