"""Whether a graph is one: its nodes in an order in which they can run, or a coded error.

ONNX requires sorted nodes, and some exporters do not sort; a stable sort fixes that. What no sort can fix is a cycle,
a name that nothing defines, and a name with two definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irc.diagnostics import Diagnostic, IrcError, Location, fail

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

SHOWN = 8  # nodes of a long cycle that a message names


def label(node: NodeProto) -> str:
    """What a node is called in locations and messages: its name, or else its first output."""
    return node.name or next((name for name in node.output if name), node.op_type)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def defined_outside(graph: GraphProto) -> dict[str, None]:
    """The names that a graph's nodes do not make: inputs and initializers."""
    names = dict.fromkeys(value.name for value in graph.input)
    names.update(dict.fromkeys(tensor.name for tensor in graph.initializer))
    names.update(dict.fromkeys(tensor.values.name for tensor in graph.sparse_initializer))
    return names


@dataclass
class Structure:
    """The checks of one model; `file` is what locations name."""

    file: str | None

    def at(self, node: NodeProto) -> Location:
        return Location(file=self.file, name=label(node))

    def ordered(self, graph: GraphProto, is_defined_above: Callable[[str], bool]) -> list[int]:
        """The numbers of the nodes in an order in which each comes after those that it reads.

        Raises `onnx.redefined_name`, `onnx.undefined_name` (all of them at once) or `onnx.cycle`.
        """
        known = defined_outside(graph)
        makers = self._makers(graph, known)
        reads = [self._reads(node) for node in graph.node]
        self._check_defined(graph, reads, lambda name: name in known or name in makers or is_defined_above(name))
        order: list[int] = []
        done: set[int] = set()
        for start in range(len(graph.node)):  # depth first, which keeps the given order wherever that runs
            trail = {} if start in done else {start: None}
            while trail:
                index = next(reversed(trail))
                waiting = next((makers[name] for name in reads[index]
                                if name in makers and makers[name] not in done), None)
                if waiting is None:
                    del trail[index]
                    done.add(index)
                    order.append(index)
                elif waiting in trail:
                    path = list(trail)
                    raise self._cycle([graph.node[i] for i in path[path.index(waiting):]])
                else:
                    trail[waiting] = None
        return order

    def _makers(self, graph: GraphProto, known: dict[str, None]) -> dict[str, int]:
        """Which node makes each name."""
        makers: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in filter(None, node.output):
                if name in makers or name in known:
                    other = label(graph.node[makers[name]]) if name in makers else "the graph itself"
                    raise fail("onnx.redefined_name", f"{name!r} is defined by {label(node)} and by {other}",
                               at=self.at(node))
                makers[name] = index
        return makers

    def _reads(self, node: NodeProto) -> list[str]:
        """The names that a node reads, those inside its subgraphs included."""
        names = [name for name in node.input if name]
        for graph in subgraphs(node):
            inside = defined_outside(graph)
            inside.update(dict.fromkeys(name for inner in graph.node for name in inner.output))
            outer = [name for inner in graph.node for name in self._reads(inner)]
            names += [name for name in [*outer, *(value.name for value in graph.output)] if name not in inside]
        return names

    def _check_defined(self, graph: GraphProto, reads: list[list[str]], is_defined: Callable[[str], bool]) -> None:
        errors = [Diagnostic("onnx.undefined_name",
                             f"{label(node)} ({node.op_type}) reads {name!r}, which nothing defines", self.at(node))
                  for node, names in zip(graph.node, reads, strict=True) for name in names if not is_defined(name)]
        errors += [Diagnostic("onnx.undefined_name", f"the graph's output {value.name!r} is not defined by anything",
                              Location(file=self.file, name=value.name))
                   for value in graph.output if not is_defined(value.name)]
        if errors:
            raise IrcError(errors)

    def _cycle(self, nodes: list[NodeProto]) -> IrcError:
        names = [label(node) for node in reversed(nodes)]
        more = [f"({len(names) - SHOWN} more)"] if len(names) > SHOWN else []
        around = " -> ".join([*names[:SHOWN], *more, names[0]])
        return fail("onnx.cycle", f"{len(names)} nodes read one another: {around}", at=self.at(nodes[0]))
