"""What torch.compile with the backend "irc" has compiled in this process: `report`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

SHOWN = 4  # operations in one line
MOST_GRAPHS = 1000  # that are kept


@dataclass(frozen=True)
class GraphReport:
    """One captured graph: what it is for, how many operations it has, and those that PyTorch runs: how many there are
    of each, by its name and the reason."""

    kind: str  # "inference", "forward" or "backward"
    operations: int
    in_pytorch: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def __str__(self) -> str:
        count = sum(self.in_pytorch.values())
        line = f"{self.kind} graph: {self.operations - count} of {self.operations} operations compiled by irc"
        if not count:
            return line
        names = [f"{number} of {name} ({reason})" for (name, reason), number in self.in_pytorch.items()]
        return f"{line}; PyTorch runs {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


@dataclass(frozen=True)
class CompileReport:
    """The last 1,000 graphs that torch.compile has given to irc, in order. There were `earlier` ones before these."""

    graphs: tuple[GraphReport, ...]
    earlier: int = 0
    schema: str = "irc.report/1"

    @property
    def in_pytorch(self) -> int:
        """How many operations of these graphs run in PyTorch."""
        return sum(sum(graph.in_pytorch.values()) for graph in self.graphs)

    def __str__(self) -> str:
        lines = [f"{self.earlier} earlier graphs are not listed"] if self.earlier else []
        return "\n".join([*lines, *map(str, self.graphs)]) or "torch.compile has given irc no graph"


class GraphRecord:
    """A graph whose parts are compiled later, at their first calls: `report` is what is known of it now."""

    def __init__(self, report: GraphReport) -> None:
        self.report = report

    def add_failure(self, operations: int, reason: str) -> None:
        """Note that a part of so many operations could not be compiled."""
        key = ("part of the graph", reason)
        with _lock:
            counts = self.report.in_pytorch
            self.report = replace(self.report, in_pytorch={**counts, key: counts.get(key, 0) + operations})


_records: deque[GraphRecord] = deque(maxlen=MOST_GRAPHS)
_count = 0  # of graphs since the last `clear`
_lock = Lock()


def add_graph(graph: GraphReport) -> GraphRecord:
    """Add a graph to the report."""
    global _count
    record = GraphRecord(graph)
    with _lock:
        _records.append(record)
        _count += 1
    return record


def report(*, clear: bool = False) -> CompileReport:
    """The graphs of torch.compile so far in this process, as they are now; with `clear`, the next report begins after
    them."""
    global _count
    with _lock:
        current = CompileReport(tuple(record.report for record in _records), _count - len(_records))
        if clear:
            _records.clear()
            _count = 0
        return current
