"""Traces: what tracing a value at coordinates gave, remembered for all groups of a block.

A trace depends on the members of the group from which the value is computed (`Steps.cone`), and on the points of
arguments of reductions among them. A group that extends another has the same traces of all but what was added. Start at
`Trace`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from irc.index_map import Point
from irc.ir import Operation, Value
from irc.kernel.dag import Check, Graph, Node
from irc.kernel.rules import MOST_OPERATIONS
from irc.scalar_builder import Request, Requesting

# What a trace gives beside nodes: checks, reductions and products with their operations, values held in a wider type.
Effect = Check | tuple[Operation, Node] | Value


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The node of a request, and what else tracing it gave.

    below: the traces that it read. requests: how many it is made of, those that are read several times counted each
    time. effects: in the order in which they occurred, those of `below` included. points: those that were read.
    """

    request: Request
    node: Node
    below: tuple[Trace, ...]
    requests: int
    effects: tuple[Effect, ...]
    points: tuple[tuple[Value, Point | None], ...]


@dataclass(eq=False)
class OpenTrace:
    """A trace that is being made: `traced` requests nodes."""

    request: Request
    traced: Requesting[Node]
    below: list[Trace] = field(default_factory=list)
    effects: dict[Effect, None] = field(default_factory=dict)
    points: dict[tuple[Value, Point | None], None] = field(default_factory=dict)

    def read(self, trace: Trace) -> None:
        self.below.append(trace)
        self.effects.update(dict.fromkeys(trace.effects))
        self.points.update(dict.fromkeys(trace.points))

    def closed(self, node: Node) -> Trace:
        requests = min(1 + sum([trace.requests for trace in self.below]), MOST_OPERATIONS + 1)
        return Trace(self.request, node, tuple(self.below), requests, tuple(self.effects), tuple(self.points))


class Traces:
    """The traces of groups of one block, and the graph of their nodes."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._by_request: dict[tuple[Request, Hashable], list[Trace]] = {}

    def find(self, request: Request, cone: Hashable, points: Mapping[Value, Point]) -> Trace | None:
        """The trace of a request in a group with this cone and these points, if a group had the same."""
        for trace in self._by_request.get((request, cone), ()):
            if not trace.points or all(points.get(value) == point for value, point in trace.points):
                return trace
        return None

    def add(self, trace: Trace, cone: Hashable) -> None:
        self._by_request.setdefault((trace.request, cone), []).append(trace)
