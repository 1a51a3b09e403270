"""The nest of a kernel as text: its tile axes, and what is computed in which scope.

`irc explain MODEL @KERNEL --nest` prints it. Start at `nest_text`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from irc import dims
from irc.dims import Dim, Indirect
from irc.index_map import Guards
from irc.kernel.dag import Apply, Check, Constant, Dot, Index, Load, Node, Reduce, Scan, Select, Store
from irc.kernel.derivation import Kernel
from irc.kernel.nest import Accumulate, Carry, Loop, Placed, Scope, Tile


def nest_text(kernel: Kernel, name: str, labels: Mapping[str, str] | None = None) -> list[str]:
    """Lines: the kernel, each tile axis with its axes and block, and the scopes of the nest in order.

    A value that a node computes is called by its name in the program, or by a number. `labels` are names outside of the
    kernel's region for those inside.
    """
    schedule = kernel.schedule
    options = kernel.options
    counts = (("stages", options.stages), ("blocks of rows in turn", options.order), ("parts", options.split),
              ("elements in a part", options.part))  # fmt: skip
    stated = [f"{number} {what}" for what, number in counts if number is not None]
    return [
        f"@{name}: {kernel.kind}, {', '.join([f'{schedule.warps} warps', *stated])}",
        *(f"  {tile_text(tile)}" for tile in schedule.tiles),
        *(f"  {line}" for line in _Names(labels or {}).lines(schedule.nest)),
    ]


def tile_text(tile: Tile) -> str:
    """A tile axis: the axes that are flattened into it, and how its blocks are distributed."""
    axes = ", ".join(f"{axis.name} of {dims.format_dim(axis.extent)}" for axis in tile.axes)
    if tile.whole:
        block = "one block"
    elif tile.single:
        block = "one a program"
    else:
        block = f"blocks of {tile.block}, {'in a loop' if tile.looped else 'a program each'}"
    return f"axis {tile.name}: {axes}; {block}"


class _Names:
    """Gives each node a name, once."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.names: dict[Node, str] = {}
        self.uses: Counter[str] = Counter()  # of a hint

    def lines(self, scopes: Sequence[Scope]) -> Iterator[str]:
        for scope in scopes:
            if isinstance(scope, Loop):
                yield f"for blocks of {scope.tile.name}{' from the last' if scope.reverse else ''}:"
                yield from (f"  {line}" for line in self.lines(scope.body))
            elif isinstance(scope, Accumulate):
                yield f"accumulate {self.name(scope.reduce)} = {self.accumulated(scope)}"
            elif isinstance(scope, Carry):
                yield f"carry {self.name(scope.maximum)} = {self.reduction(scope.maximum)}"
            elif isinstance(scope, Placed):
                yield self.line(scope.node)
            elif not isinstance(scope, (Constant, Dot)):
                yield self.line(scope)

    def line(self, node: Node) -> str:
        if isinstance(node, Store):
            place = self.place(node)
            return f"store {place} = {self.name(node.node)}{self.where(node.guards)}"
        if isinstance(node, Check):
            return f"check {self.name(node.node)}{self.where(node.guards)}: {node.message}"
        if isinstance(node, Load):
            value = f"load {self.place(node)}{self.where(node.guards)}"
        elif isinstance(node, (Reduce, Dot)):
            value = self.reduction(node)
        elif isinstance(node, Scan):
            what = f"{'exclusive ' if node.exclusive else ''}{node.kind} {self.name(node.operands[0])}"
            value = f"scan {what} along {node.bound[0].name}{' from the end' if node.reverse else ''}"
        elif isinstance(node, Index):
            value = f"index {self.index(node.index)}"
        elif isinstance(node, Select):
            inside, outside = map(self.name, node.operands)
            value = f"select {inside}, {outside}{self.where(node.guards)}"
        else:
            assert isinstance(node, Apply)
            value = f"{node.name} {', '.join(map(self.name, node.operands))}"
        return f"{self.name(node)} = {value}"

    def place(self, node: Load | Store) -> str:
        return f"{self.labels.get(node.buffer.name, node.buffer.name)}[{self.index(node.index)}]"

    def accumulated(self, scope: Accumulate) -> str:
        node, point = scope.reduce, scope.point
        if point is None:
            return self.reduction(node)
        if point.is_maximum:
            return f"{self.reduction(node)} with {self.name(point.carrier)}"
        over = ", ".join(axis.name for axis in node.bound)
        return f"squared distances of {self.name(point.elements)} over {over} with {self.name(point.carrier)}"

    def reduction(self, node: Reduce | Dot) -> str:
        over = ", ".join(axis.name for axis in node.bound)
        if isinstance(node, Dot):
            return f"dot {', '.join(map(self.name, node.operands))} in {node.fed} over {over}"
        return f"{node.kind} {self.name(node.operands[0])} over {over}"

    def name(self, node: Node) -> str:
        if isinstance(node, Constant):
            return str(node.value)
        if node not in self.names:
            hint = self.labels.get(node.hint, node.hint)
            number, self.uses[hint] = self.uses[hint], self.uses[hint] + 1
            self.names[node] = f"%{hint}" + (f"#{number}" if number or not hint else "")
        return self.names[node]

    def index(self, index: Dim) -> str:
        reads = [atom for atom in dims.free_atoms(index) if isinstance(atom, Indirect) and isinstance(atom.node, Node)]
        text = dims.format_dim(index)
        return f"{text} with {', '.join(self.name(atom.node) for atom in reads)}" if reads else text  # type: ignore[arg-type]

    def where(self, guards: Guards) -> str:
        tests = [f"0 <= {self.index(guard.index)} < {dims.format_dim(guard.extent)}" for guard in guards]
        return f" where {' and '.join(tests)}" if tests else ""
