"""What torch.compile with the backend "irc" has compiled in this process: `report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

SHOWN = 4  # operations in one line


@dataclass
class GraphReport:
    """One captured graph: what it is for, how many operations it has, and those that PyTorch runs: how many there are
    of each, by its name and the reason."""

    kind: str  # "inference", "forward" or "backward"
    operations: int
    in_pytorch: dict[tuple[str, str], int] = field(default_factory=dict)

    def add_failure(self, operations: int, reason: str) -> None:
        """Note that a part of so many operations could not be compiled."""
        key = ("part of the graph", reason)
        self.in_pytorch[key] = self.in_pytorch.get(key, 0) + operations

    def __str__(self) -> str:
        count = sum(self.in_pytorch.values())
        line = f"{self.kind} graph: {self.operations - count} of {self.operations} operations compiled by irc"
        if not count:
            return line
        names = [f"{number} of {name} ({reason})" for (name, reason), number in self.in_pytorch.items()]
        return f"{line}; PyTorch runs {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


@dataclass(frozen=True)
class CompileReport:
    """The graphs that torch.compile has given to irc, in order."""

    graphs: tuple[GraphReport, ...]
    schema: str = "irc.report/1"

    @property
    def in_pytorch(self) -> int:
        """How many operations run in PyTorch."""
        return sum(sum(graph.in_pytorch.values()) for graph in self.graphs)

    def __str__(self) -> str:
        return "\n".join(map(str, self.graphs)) or "torch.compile has given irc no graph"


_graphs: list[GraphReport] = []
_lock = Lock()


def add_graph(graph: GraphReport) -> None:
    """Add a graph to the report."""
    with _lock:
        _graphs.append(graph)


def report(*, clear: bool = False) -> CompileReport:
    """The graphs of torch.compile so far in this process; with `clear`, the next report begins after them."""
    with _lock:
        current = CompileReport(tuple(_graphs))
        if clear:
            _graphs.clear()
        return current
