"""The scalar DAG of a kernel: what is computed at one point of its axes.

A `Graph` returns the same node for the same content (hash-consing), so that equality is identity and a value that
two results need is one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, cast

from irc import constants, dims
from irc.dims import Dim, Indirect, Variable
from irc.dtypes import DType, limits
from irc.index_map import Guard, Guards
from irc.interfaces import Combine, Running
from irc.ir import Value
from irc.ops import lookup

INDEX_ARITHMETIC = ("cast", "add", "sub", "mul")  # quotients and minima are values: addresses would repeat them
COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"})
NOT_CONTENT = ("hint", "result", "product")
MOST_TERMS = 32  # of an index expression: products of sums grow fast


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """One scalar. `dtype` is the type it is held in (f32 for f16 and bf16); `index` the address of an access, or the
    index that a node is the value of; `hint` a name from the source, or from the body of a named operation, whose
    `result` messages name."""

    dtype: DType
    operands: tuple[Node, ...] = ()
    index: Dim = 0
    guards: Guards = ()
    hint: str = ""
    result: str = ""

    @property
    def label(self) -> str:
        """The name of a value of the function, for messages."""
        return self.result or self.hint

    @property
    def indices(self) -> tuple[Dim, ...]:
        return self.index, *(guard.index for guard in self.guards)

    @property
    def is_placed(self) -> bool:
        """Whether it has an index or guards that vary: of most nodes only their operands do."""
        return bool(self.guards) or not isinstance(self.index, int)

    @cached_property
    def reads(self) -> tuple[Node, ...]:
        """The nodes that its index and guards read through `Indirect`."""
        return indirect_nodes(*self.indices) if self.is_placed else ()

    @cached_property
    def below(self) -> tuple[Node, ...]:
        return *self.reads, *self.operands

    @cached_property
    def axes(self) -> frozenset[Variable]:
        """The kernel's axes that it varies over."""
        index_axes = variables(*self.indices) if self.is_placed else frozenset[Variable]()
        return index_axes.union(*(operand.axes for operand in self.operands))

    @cached_property
    def loops(self) -> tuple[Reduce | Scan | Dot, ...]:
        """The reductions, scans and products that it is computed from, itself too if it is one, in the order of
        `walk`."""
        return loops_of(self.below)

    @cached_property
    def as_index(self) -> Dim | None:
        """The value as an index expression, where it is one: such indices need no loading and are proven in bounds.

        Element types wrap around and index expressions do not, so each step must stay in the range of its type.
        """
        return None

    def exact(self, index: Dim) -> Dim | None:
        """The index if this node, which computes it in its own type, holds that very number."""
        low, high = dims.bounds(index)
        least, most = limits(self.dtype)
        few = isinstance(index, int) or len(index.terms) <= MOST_TERMS
        return index if least <= low and high <= most and few else None

    @property
    def content(self) -> tuple[Any, ...]:
        """What makes nodes the same: all but their names, and what else a sum could be."""
        return type(self), *(getattr(self, name) for name in field_names(self) if name not in NOT_CONTENT)

    def over(self, **changes: Any) -> Node:
        """The node with other operands, indices or axes."""
        kept = {name: getattr(self, name) for name in field_names(self) if name not in changes}
        return type(self)(**kept, **changes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.hint}: {self.dtype}>"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Load(Node):
    """The element of a buffer at `index`."""

    buffer: Value


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Constant(Node):
    """A number, as a NumPy scalar of the dtype that the source gave it."""

    value: Any

    @property
    def content(self) -> tuple[Any, ...]:
        return Constant, self.dtype, self.value.dtype, self.value.tobytes()  # NaN is not itself, and 0 is -0

    @cached_property
    def as_index(self) -> Dim | None:
        return int(self.value) if self.dtype.is_integer else None


class Index(Node):
    """An index expression used as a value (iota), in an integer type that may be too narrow for it. One that does not
    vary is a `Constant`."""

    @cached_property
    def as_index(self) -> Dim | None:
        return self.exact(self.index)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Apply(Node):
    """A pointwise primitive."""

    name: str
    attributes: tuple[tuple[str, Any], ...] = ()

    def attribute(self, name: str) -> Any:
        return dict(self.attributes)[name]

    @property
    def rounds_to(self) -> DType | None:
        """The type, narrower than the one that it is held in, to which a cast rounds."""
        to = self.attribute("to") if self.name == "cast" else self.dtype
        return None if to is self.dtype else to

    @cached_property
    def as_index(self) -> Dim | None:
        if self.name not in INDEX_ARITHMETIC or not self.dtype.is_integer:
            return None
        index = constants.of_dims(lookup(self.name), [node.as_index for node in self.operands], dict(self.attributes))
        return None if index is None else self.exact(index)


def draws_bits(node: object) -> bool:
    """Whether a node computes random bits, for which a thread holds five words beside its element."""
    return isinstance(node, Apply) and node.name == "philox"


class Select(Node):
    """The first operand where the guards hold, else the second."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Reduce(Node):
    """A reduction ("sum", "prod", "max", "min") of the operand over `bound`, the columns of its kernel. `product` is
    the same sum as a product of one row, if it is one, as it is traced: `irc.kernel.single_rows` reads it first."""

    kind: Combine
    bound: tuple[Variable, ...]
    product: Dot | None = None

    @cached_property
    def axes(self) -> frozenset[Variable]:
        return self.operands[0].axes - set(self.bound)

    @cached_property
    def loops(self) -> tuple[Reduce | Scan | Dot, ...]:
        return *loops_of(self.below), self


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scan(Node):
    """What the operand (by "sum", "prod", "max", "min", "log_sum_exp") has combined to at each point of `bound`, the
    columns of its kernel: from the first on, or from the last on if `reverse`, without that point itself if
    `exclusive`."""

    kind: Running
    bound: tuple[Variable, ...]
    reverse: bool
    exclusive: bool

    @cached_property
    def axes(self) -> frozenset[Variable]:
        return self.operands[0].axes.union(self.bound)

    @cached_property
    def loops(self) -> tuple[Reduce | Scan | Dot, ...]:
        return *loops_of(self.below), self


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dot(Node):
    """The sum over `bound` of the products of two operands, which are rounded to the type `fed` before.

    The axes of the kernel that both operands vary over are batch axes, those of the first alone are rows, and those of
    the second alone are columns. A sum of products without rows or columns is a `Reduce`.
    """

    fed: DType
    bound: tuple[Variable, ...]

    @cached_property
    def axes(self) -> frozenset[Variable]:
        return self.operands[0].axes.union(self.operands[1].axes) - set(self.bound)

    @cached_property
    def loops(self) -> tuple[Reduce | Scan | Dot, ...]:
        return *loops_of(self.below), self

    @property
    def rows(self) -> frozenset[Variable]:
        return self.axes - self.operands[1].axes

    @property
    def columns(self) -> frozenset[Variable]:
        return self.axes - self.operands[0].axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Store(Node):
    """The operand written to an output at `index`, where the guards hold."""

    buffer: Value

    @property
    def node(self) -> Node:
        return self.operands[0]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Check(Node):
    """That the operand holds wherever the guards do; where it does not, the run stops with the message."""

    message: str

    @property
    def node(self) -> Node:
        return self.operands[0]


Root = Store | Check  # what a kernel does, rather than a value


class Graph:
    """Gives each content one node."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def __call__(self, node: Node) -> Node:
        if isinstance(node, Select) and (not node.guards or node.operands[0] is node.operands[1]):
            return node.operands[0]
        known = self._nodes.setdefault(node.content, node)
        if known is node:  # worked out now, from the operands' alone: on demand, it could recurse deeply
            _ = node.axes, node.as_index, node.loops
        return known

    def changed(self, node: Node, **changes: Any) -> Node:
        """The node with other operands, indices or axes; itself where these are its own."""
        is_changed = any(getattr(node, name) != value for name, value in changes.items())
        return self(node.over(**changes)) if is_changed else node


_FIELDS: dict[type[Node], tuple[str, ...]] = {}


def field_names(node: Node) -> tuple[str, ...]:
    """The names of a node's fields; `dataclasses.fields` is slow for many nodes."""
    kind = type(node)
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(field.name for field in fields(kind))
    return _FIELDS[kind]


@lru_cache(1 << 14)
def indirect_nodes(*indices: Dim) -> tuple[Node, ...]:
    """The nodes whose values the expressions use as indices."""
    used = [atom.node for index in indices for atom in dims.free_atoms(index) if isinstance(atom, Indirect)]
    return tuple(dict.fromkeys(node for node in used if isinstance(node, Node)))


@lru_cache(1 << 14)
def variables(*indices: Dim) -> frozenset[Variable]:
    """The axes that indices vary over, through loaded indices too."""
    direct = [atom for index in indices for atom in dims.free_atoms(index) if isinstance(atom, Variable)]
    return frozenset(direct).union(*(node.axes for node in indirect_nodes(*indices)))


def indices_compared(node: Node) -> list[Dim]:
    """The index expressions that a node compares, which a kernel then computes in the type of its indices; empty of
    nodes that do otherwise."""
    if not isinstance(node, Apply) or node.name not in COMPARISONS or not node.axes:
        return []
    indices = [operand.as_index for operand in node.operands if operand.as_index is not None]
    return indices if len(indices) == len(node.operands) else []


def loops_of(nodes: Iterable[Node]) -> tuple[Reduce | Scan | Dot, ...]:
    """The reductions, scans and products among nodes and what they are computed from, each once, in the order of
    `walk`."""
    parts = [node.loops for node in nodes if node.loops]
    return parts[0] if len(parts) == 1 else tuple(dict.fromkeys(loop for part in parts for loop in part))


def products_of(nodes: Iterable[Node]) -> list[Dot]:
    """The products among `loops_of` nodes."""
    return [node for node in loops_of(nodes) if isinstance(node, Dot)]


def reductions_of(nodes: Iterable[Node]) -> list[Reduce]:
    """The reductions among `loops_of` nodes."""
    return [node for node in loops_of(nodes) if isinstance(node, Reduce)]


def scans_of(nodes: Iterable[Node]) -> list[Scan]:
    """The scans among `loops_of` nodes."""
    return [node for node in loops_of(nodes) if isinstance(node, Scan)]


def walk(roots: Iterable[Node], through: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node below the roots once, operands before users; below a node only where `through` says so."""
    ordered: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = []
    stack.extend(reversed(list(roots)))
    opened: list[Node] = []
    while stack:
        node = stack.pop()
        if node is None:  # all below the last opened one are found
            ordered.append(opened.pop())
        elif node not in seen:
            seen.add(node)
            opened.append(node)
            stack.append(None)
            if through is None or through(node):
                stack.extend(node.below[::-1])
    return ordered


def substituted(roots: Sequence[Root], indices: Mapping[Dim, Dim],
                bound: Mapping[tuple[Variable, ...], tuple[Variable, ...]]) -> tuple[Root, ...]:  # fmt: skip
    """The same kernel over other axes: every index in `indices` replaced by what it is over them, and `bound` in
    reductions, scans and products."""
    graph = Graph()
    replaced: dict[Node, Any] = {}

    def moved(index: Dim) -> Dim:
        reads = [atom for atom in dims.free_atoms(index) if isinstance(atom, Indirect)]
        atoms = {atom: Indirect(replaced[cast(Node, atom.node)], atom.low, atom.high).expr for atom in reads}
        return dims.substitute(indices.get(index, index), atoms)

    for node in walk(roots):
        changes: dict[str, Any] = {"operands": tuple([replaced[operand] for operand in node.operands])}
        if node.is_placed:
            changes["index"] = moved(node.index)
            changes["guards"] = tuple(Guard(moved(each.index), each.extent, each.most) for each in node.guards)
        if isinstance(node, (Reduce, Scan, Dot)):
            changes["bound"] = bound.get(node.bound, node.bound)
        replaced[node] = graph(node.over(**changes))
    return tuple(replaced[root] for root in roots)
