"""The scalar DAG of a kernel: what is computed at one point of its axes.

Nodes are made by a `Graph`, which returns the same object for the same content (hash-consing), so that equality
is identity and a value that two results need is one node. `axes` are the kernel's axes a node varies over; a
reduction varies over those of its body but the ones it reduces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irc import dims
from irc.dims import Dim, Indirect, Variable
from irc.dtypes import DType
from irc.index_map import Guard, Guards
from irc.ir import Value


@dataclass(frozen=True, eq=False)
class Node:
    """One scalar. `dtype` is the type it is held in (f32 for f16 and bf16); `hint` a name from the source."""

    dtype: DType
    operands: tuple[Node, ...]
    axes: frozenset[Variable]
    hint: str = field(default="", kw_only=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.hint}: {self.dtype}>"


@dataclass(frozen=True, eq=False, repr=False)
class Load(Node):
    """An element of a buffer. Operands are the nodes that its address reads through `Indirect`."""

    buffer: Value
    address: Dim
    guards: Guards


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Node):
    """A number, as a NumPy scalar of the dtype that the source gave it."""

    value: Any


@dataclass(frozen=True, eq=False, repr=False)
class Index(Node):
    """An index expression used as a value (iota)."""

    index: Dim


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Node):
    """A pointwise primitive."""

    name: str
    attributes: tuple[tuple[str, Any], ...] = ()

    def attribute(self, name: str) -> Any:
        return dict(self.attributes)[name]


@dataclass(frozen=True, eq=False, repr=False)
class Select(Node):
    """The first operand where the guards hold, else the second."""

    guards: Guards


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Node):
    """A reduction ("sum", "prod", "max", "min") of the operand over `bound`, the columns of its kernel."""

    kind: str
    bound: tuple[Variable, ...]


@dataclass(frozen=True)
class Store:
    """A value written to an output at an address, under guards."""

    buffer: Value
    address: Dim
    guards: Guards
    node: Node

    @property
    def axes(self) -> frozenset[Variable]:
        return variables(self.address) | guard_variables(self.guards)


class Graph:
    """Makes nodes, each content once."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def _intern(self, key: tuple[Any, ...], make: Callable[[], Node]) -> Node:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = make()
        return node

    def load(self, dtype: DType, buffer: Value, address: Dim, guards: Guards) -> Node:
        operands = indirect_nodes((address, *(guard.index for guard in guards)))
        axes = variables(address) | guard_variables(guards)
        key = ("load", buffer, address, guards)
        return self._intern(key, lambda: Load(dtype, operands, axes, buffer, address, guards, hint=buffer.name))

    def constant(self, dtype: DType, value: Any) -> Node:
        key = ("constant", dtype, value.dtype, value.tobytes())
        return self._intern(key, lambda: Constant(dtype, (), frozenset(), value))

    def index(self, dtype: DType, index: Dim) -> Node:
        key = ("index", dtype, index)
        return self._intern(key, lambda: Index(dtype, indirect_nodes((index,)), variables(index), index))

    def apply(self, name: str, dtype: DType, operands: Sequence[Node], attributes: Mapping[str, Any] | None = None,
              hint: str = "") -> Node:  # fmt: skip
        fixed = tuple((attributes or {}).items())
        axes = frozenset[Variable]().union(*(operand.axes for operand in operands))
        key = ("apply", name, dtype, tuple(operands), fixed)
        return self._intern(key, lambda: Apply(dtype, tuple(operands), axes, name, fixed, hint=hint))

    def select(self, guards: Guards, inside: Node, outside: Node) -> Node:
        if not guards or inside is outside:
            return inside
        axes = inside.axes | outside.axes | guard_variables(guards)
        operands = (inside, outside, *indirect_nodes(guard.index for guard in guards))
        key = ("select", guards, inside, outside)
        return self._intern(key, lambda: Select(inside.dtype, operands, axes, guards, hint=inside.hint))

    def reduce(self, kind: str, body: Node, bound: tuple[Variable, ...], hint: str = "") -> Node:
        key = ("reduce", kind, body, bound)
        return self._intern(key, lambda: Reduce(body.dtype, (body,), body.axes - set(bound), kind, bound, hint=hint))


def indirect_nodes(indices: Iterable[Dim]) -> tuple[Node, ...]:
    """The nodes whose values the expressions use as indices."""
    found: dict[Node, None] = {}
    for index in indices:
        for atom in dims.free_atoms(index):
            if isinstance(atom, Indirect):
                assert isinstance(atom.node, Node)
                found[atom.node] = None
    return tuple(found)


def variables(index: Dim) -> frozenset[Variable]:
    """The axes that an index varies over, through loaded indices too."""
    found: set[Variable] = set()
    for atom in dims.free_atoms(index):
        if isinstance(atom, Variable):
            found.add(atom)
        elif isinstance(atom, Indirect) and isinstance(atom.node, Node):
            found |= atom.node.axes
    return frozenset(found)


def guard_variables(guards: Guards) -> frozenset[Variable]:
    return frozenset[Variable]().union(*(variables(guard.index) for guard in guards))


def walk(roots: Iterable[Node], through: Callable[[Node], bool] = lambda node: True) -> Iterator[Node]:
    """Every node below the roots once, operands before users; below a node only where `through` says so."""
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if through(node):
                stack.extend((operand, False) for operand in reversed(node.operands) if operand not in seen)


def expressions(stores: Sequence[Store]) -> Iterator[Dim]:
    """Every index expression of a kernel: addresses, guards, values of iota."""
    guards: list[Guard] = []
    for node in walk(store.node for store in stores):
        if isinstance(node, Load):
            yield node.address
            guards.extend(node.guards)
        elif isinstance(node, Index):
            yield node.index
        elif isinstance(node, Select):
            guards.extend(node.guards)
    for store in stores:
        yield store.address
        guards.extend(store.guards)
    for guard in guards:
        yield guard.index


def substituted(stores: Sequence[Store], mapping: Mapping[Variable, Dim],
                bound: Mapping[tuple[Variable, ...], tuple[Variable, ...]]) -> tuple[Store, ...]:  # fmt: skip
    """The same kernel over other axes: variables replaced in every expression, `bound` in reductions."""
    graph = Graph()
    made: dict[Node, Node] = {}

    def index(expression: Dim) -> Dim:
        atoms: dict[dims.Atom, Dim] = {axis: value for axis, value in mapping.items()}
        for atom in dims.free_atoms(expression):
            if isinstance(atom, Indirect):
                assert isinstance(atom.node, Node)
                atoms[atom] = Indirect(made[atom.node], atom.low, atom.high).expr
        return dims.substitute(expression, atoms)

    def guarded(guards: Guards) -> Guards:
        return tuple(Guard(index(guard.index), guard.extent) for guard in guards)

    for node in walk(store.node for store in stores):
        operands = [made[operand] for operand in node.operands]
        if isinstance(node, Load):
            made[node] = graph.load(node.dtype, node.buffer, index(node.address), guarded(node.guards))
        elif isinstance(node, Constant):
            made[node] = node
        elif isinstance(node, Index):
            made[node] = graph.index(node.dtype, index(node.index))
        elif isinstance(node, Apply):
            made[node] = graph.apply(node.name, node.dtype, operands, dict(node.attributes), node.hint)
        elif isinstance(node, Select):
            made[node] = graph.select(guarded(node.guards), operands[0], operands[1])
        else:
            assert isinstance(node, Reduce)
            made[node] = graph.reduce(node.kind, operands[0], bound.get(node.bound, node.bound), node.hint)
    return tuple(Store(store.buffer, index(store.address), guarded(store.guards), made[store.node]) for store in stores)
