"""From the scalar DAG to a loop nest: axes are merged, gathered into tiles, and scopes are laid out.

A kernel works on tiles of rank 1 or 2, its **frame**: `i` alone, or rows `m` by columns `n`. A tile axis stands for
one or several axes, flattened; those are split coordinates of it (`b = m // S`). Where a kernel reduces, the columns
are the reduced axes, and a row is read once if it fits in registers (persistent) or else once for each level of
reductions (looped). The nest says what is computed where; the byte model and the emitters walk the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from irc import dims
from irc.dims import Dim, Expr, Variable
from irc.kernel.dag import Load, Node, Reduce, Store, expressions, indirect_nodes, substituted, walk

WHOLE_ROW = 16_384  # columns that stay in registers without spilling: tried on sm_90 with 4 to 16 warps
WHOLE_ROW_UNKNOWN = 8_192  # the same where the size is known only when it runs
LOOP_COLUMNS = 1_024
FLAT_BLOCK = 1_024
TILE_ELEMENTS = 2_048  # of a tile of several rows
STRIDED_ELEMENTS = 8_192  # where neighbouring rows are neighbours in memory: the more rows the better
SIDE = 64  # of a tile between two contiguous axes
NARROW = 32  # columns that are too few for a tile axis of their own


@dataclass(frozen=True)
class Tile:
    """A tile axis: the flattened `axes`, in blocks of `block` elements, or 0 for all of them in one block."""

    name: str
    axes: tuple[Variable, ...]
    block: int
    looped: bool = False
    whole: bool = False  # one block holds the extent, rounded up to a power of two

    @property
    def extent(self) -> Dim:
        return dims.product(axis.extent for axis in self.axes)

    def size(self, extent: int) -> int:
        """The block for a run-time extent."""
        return next_power_of_two(extent) if self.whole else self.block

    @property
    def masked(self) -> bool:
        """Whether the last block may reach beyond the extent."""
        if self.whole:
            return not isinstance(self.extent, int) or self.extent != next_power_of_two(self.extent)
        return dims.multiple_of(self.extent) % self.block != 0 if self.extent != 0 else True


@dataclass(frozen=True)
class Compute:
    """The value of a node, for each point of the tile axes that it varies over."""

    node: Node


@dataclass(frozen=True)
class Accumulate:
    """One step of a reduction, in a loop over the columns."""

    reduce: Reduce


@dataclass(frozen=True)
class Finish:
    """The end of a reduction over the lanes of a tile; all of it where the row is whole."""

    reduce: Reduce


@dataclass(frozen=True)
class Write:
    """A store."""

    store: Store


@dataclass(frozen=True)
class Loop:
    """Passes over the columns, a block at a time."""

    tile: Tile
    body: tuple[Scope, ...]


Scope = Compute | Accumulate | Finish | Write | Loop


@dataclass(frozen=True)
class Schedule:
    """The frame, and what is computed in which scope."""

    rows: Tile | None
    columns: Tile | None
    nest: tuple[Scope, ...]

    @property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(tile for tile in (self.rows, self.columns) if tile is not None)

    @property
    def grid(self) -> tuple[Tile, ...]:
        """The tile axes whose blocks are different programs."""
        return tuple(tile for tile in self.tiles if not tile.looped and not tile.whole)

    @property
    def warps(self) -> int:
        elements = 1
        for tile in self.tiles:
            extent = tile.extent if isinstance(tile.extent, int) else WHOLE_ROW_UNKNOWN
            elements *= tile.size(extent)
        return min(16, max(4, next_power_of_two(elements // 512)))


def next_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def power_of_two_in(number: int) -> int:
    """The largest power of two that divides a number."""
    return number & -number


# -- merging axes ----------------------------------------------------------------------------------------------


def merge_axes(
    stores: tuple[Store, ...], parallel: tuple[Variable, ...], bound: tuple[Variable, ...]
) -> tuple[tuple[Store, ...], tuple[Variable, ...], tuple[Variable, ...]]:
    """Make neighbours one axis where no index needs them apart: with `j` written as `f - J*i`, `i` must vanish."""
    changed = True
    while changed:
        changed = False
        pairs = [*permutations(parallel, 2), *pairwise(bound)]
        for outer, inner in pairs:
            fused = Variable(inner.name, dims.product((outer.extent, inner.extent)))
            mapping: dict[Variable, Dim] = {inner: fused.expr - outer.expr * inner.extent}
            if any(outer in dims.free_atoms(dims.substitute(index, mapping)) for index in set(expressions(stores))):
                continue
            merged_bound = replace_pair(bound, outer, inner, fused)
            stores = substituted(stores, mapping, {bound: merged_bound})
            parallel, bound = replace_pair(parallel, outer, inner, fused), merged_bound
            changed = True
            break
    return stores, parallel, bound


def replace_pair(axes: tuple[Variable, ...], outer: Variable, inner: Variable, fused: Variable) -> tuple[Variable, ...]:
    return tuple(fused if axis is inner else axis for axis in axes if axis is not outer)


# -- tiles -----------------------------------------------------------------------------------------------------


def unit_stride(address: Dim) -> Variable | None:
    """The axis along which neighbouring elements are neighbours in memory."""
    if isinstance(address, Expr):
        for monomial, coefficient in address.terms:
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
                if isinstance(monomial[0][0], Variable):
                    return monomial[0][0]
    return None


def make_schedule(stores: tuple[Store, ...], parallel: tuple[Variable, ...], bound: tuple[Variable, ...]) -> Schedule:
    """Choose the frame and its blocks, and lay out the nest."""
    if bound:
        rows, columns = reduction_tiles(stores, parallel, bound)
        return Schedule(rows, columns, tuple(looped_nest(stores, columns) if columns.looped else flat_nest(stores)))
    nest = tuple(flat_nest(stores))
    column = column_axis(stores, parallel)
    if column is None:
        return Schedule(flat_tile(parallel) if parallel else None, None, nest)
    others = sorted_last(tuple(axis for axis in parallel if axis is not column), stores, column)
    width, height = tile_side(column.extent), tile_side(dims.product(axis.extent for axis in others))
    if all(unit_stride(load.address) in (column, None) for load in loads(stores)):
        width = flat_block(column.extent, TILE_ELEMENTS // 2)  # long rows rather than square tiles
        height = min(height, max(1, TILE_ELEMENTS // width))
    return Schedule(Tile("m", others, height), Tile("n", (column,), width), nest)


def loads(stores: Iterable[Store]) -> list[Load]:
    return [node for node in walk(store.node for store in stores) if isinstance(node, Load)]


def column_axis(stores: Sequence[Store], parallel: Sequence[Variable]) -> Variable | None:
    """The axis that gets tile columns of its own: contiguous in the store, where another axis is contiguous in a
    load (a transposition) or a load does not vary over both (a bias, read once for all rows of a tile)."""
    column = unit_stride(stores[0].address)
    if column is None or len(parallel) < 2 or (isinstance(column.extent, int) and column.extent < NARROW):
        return None
    for load in loads(stores):
        stride = unit_stride(load.address)
        if stride not in (column, None) and column in load.axes:
            return column
        if load.axes and (column not in load.axes or load.axes == {column}):
            return column
    return None


def sorted_last(rows: tuple[Variable, ...], stores: Iterable[Store], column: Variable) -> tuple[Variable, ...]:
    """The rows with that axis last along which some load is contiguous, so that a block of rows reads neighbours."""
    for load in loads(stores):
        stride = unit_stride(load.address)
        if stride in rows and column in load.axes:
            return (*(axis for axis in rows if axis is not stride), *(axis for axis in rows if axis is stride))
    return rows


def flat_tile(axes: tuple[Variable, ...]) -> Tile:
    return Tile("i", axes, flat_block(dims.product(axis.extent for axis in axes), FLAT_BLOCK))


def flat_block(extent: Dim, most: int) -> int:
    """The largest power of two that divides the extent if that is no small one, else one that covers it."""
    divisor = power_of_two_in(dims.multiple_of(extent)) if extent != 0 else 1
    if divisor >= 64:
        return min(divisor, most)
    return min(next_power_of_two(extent), most) if isinstance(extent, int) else most


def tile_side(extent: Dim) -> int:
    return min(SIDE, next_power_of_two(extent)) if isinstance(extent, int) else SIDE


def reduction_tiles(
    stores: tuple[Store, ...], parallel: tuple[Variable, ...], bound: tuple[Variable, ...]
) -> tuple[Tile | None, Tile]:
    extent = dims.product(axis.extent for axis in bound)
    most = dims.bounds(extent)[1]
    whole = most <= (WHOLE_ROW if isinstance(extent, int) else WHOLE_ROW_UNKNOWN)
    strided = any(unit_stride(load.address) in parallel for load in loads(stores) if load.axes & set(bound))
    width = next_power_of_two(most) if whole else LOOP_COLUMNS
    if strided and width > SIDE:
        whole, width = whole and width * 8 <= STRIDED_ELEMENTS, min(width, LOOP_COLUMNS) if whole else SIDE // 2
    columns = Tile("n", bound, 0, whole=True) if whole else Tile("n", bound, width, looped=True)
    if not parallel:
        return None, columns
    height = max(1, (STRIDED_ELEMENTS if strided else TILE_ELEMENTS) // width)
    rows = dims.product(axis.extent for axis in parallel)
    height = min(height, SIDE, next_power_of_two(rows) if isinstance(rows, int) else height)
    return Tile("m", parallel, height), columns


# -- the nest --------------------------------------------------------------------------------------------------


def flat_nest(stores: Iterable[Store]) -> Iterator[Scope]:
    """Everything once: each value after its operands, each store as soon as its value is there."""
    done: set[Node] = set()
    for store in stores:
        yield from computed(needed((store,)), done)
        yield Write(store)


def needed(stores: Iterable[Store]) -> Iterator[Node]:
    """The nodes that stores need, those in the indices of addresses and guards too, operands first."""
    for store in stores:
        yield from walk((*index_roots((store,)), store.node))


def index_roots(stores: Iterable[Store]) -> list[Node]:
    """The nodes that the stores' addresses and guards read."""
    indices = [index for store in stores for index in (store.address, *(guard.index for guard in store.guards))]
    return list(indirect_nodes(indices))


def computed(nodes: Iterable[Node], done: set[Node]) -> Iterator[Scope]:
    for node in nodes:
        if node not in done:
            done.add(node)
            yield Finish(node) if isinstance(node, Reduce) else Compute(node)


def looped_nest(stores: tuple[Store, ...], columns: Tile) -> Iterator[Scope]:
    """One loop for each level of reductions: a loop computes what varies over the columns anew."""
    axes = frozenset(columns.axes)
    nodes = list(dict.fromkeys(needed(stores)))
    level: dict[Node, int] = {}
    for node in nodes:
        below = max((level[operand] for operand in node.operands), default=0)
        level[node] = below + isinstance(node, Reduce)
    varying = [store for store in stores if (store.axes | store.node.axes) & axes]
    done: set[Node] = set()
    for current in range(max(level.values()) + 1):
        steps = [node for node in nodes if isinstance(node, Reduce) and level[node] == current + 1]
        writes = [store for store in varying if level[store.node] == current]
        if not steps and not writes:
            continue
        roots = [*(step.operands[0] for step in steps), *index_roots(writes), *(store.node for store in writes)]
        wanted = set(walk(roots, through=lambda node: not isinstance(node, Reduce)))
        ordered = [node for node in nodes if node in wanted]
        fixed = [node for node in ordered if not node.axes & axes and not isinstance(node, Reduce)]
        yield from computed(fixed, done)
        body: list[Scope] = []
        inside: set[Node] = set()
        for node in ordered:
            if node.axes & axes and node not in inside:
                inside.add(node)
                body.append(Compute(node))
            body.extend(Accumulate(step) for step in steps if step.operands[0] is node)
            body.extend(Write(store) for store in writes if store.node is node)
        yield Loop(columns, tuple(body))
        for step in steps:
            done.add(step)
            yield Finish(step)
    for store in stores:
        if store not in varying:
            roots = [*index_roots((store,)), store.node]
            yield from computed(walk(roots, through=lambda node: not isinstance(node, Reduce)), done)
            yield Write(store)
