"""From the scalar DAG to a loop nest: axes are merged, gathered into tiles, and scopes are laid out.

Where a kernel reduces, the columns are the reduced axes, and a row is read once if it fits in registers (persistent) or
else in loops (looped, `irc.kernel.row_loops`). Products have a schedule of their own (`irc.kernel.product_schedule`).
Start at `make_schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, permutations

from irc import dims
from irc.dims import Dim, Expr, Variable
from irc.index_map import JOINED
from irc.kernel.dag import (
    Load,
    Node,
    Reduce,
    Root,
    Scan,
    Store,
    draws_bits,
    indirect_nodes,
    products_of,
    reductions_of,
    scans_of,
    substituted,
    walk,
)
from irc.kernel.nest import LOADED_VALUES, WARP, Axes, Schedule, Scope, Tile, next_power_of_two, size_of
from irc.kernel.online import Online
from irc.kernel.online_schedule import online_schedule
from irc.kernel.product_schedule import product_nest, product_tiles
from irc.kernel.row_loops import looped_nest
from irc.kernel.scan_rules import scans_run_in_a_loop
from irc.kernel.scans import words_scanned
from irc.kernel.schedule_rules import schedule_fits_the_tiles
from irc.schedule_options import NO_OPTIONS, ScheduleOptions

WHOLE_ROW = 16_384  # columns that stay in registers without spilling: tried on sm_90 with 4 to 16 warps
WHOLE_ROW_UNKNOWN = 8_192  # the same where the size is known only when it runs, bits are drawn, or rows are scanned
LOOP_COLUMNS = 1_024
FLAT_BLOCK = 1_024
TILE_ELEMENTS = 2_048  # of a tile of several rows
STRIDED_ELEMENTS = 8_192  # where neighboring rows are neighbors in memory: the more rows the better
# Elements of a tile by loads: of windows of 49 places, 16 rows of 128. Triton 3.9 spills at twice as many, since its
# assembler for sm_90 and later keeps more loads in flight; 3.6 to 3.8 need half of the registers.
MOST_LOADED = 1 << 18
MOST_SCANNED = 1 << 15  # words of 32 bits of a tile that scans hold: twice as many spill on sm_90 and sm_100
SIDE = 64  # of a tile between two contiguous axes
NARROW = 32  # columns that are too few for a tile axis of their own


# -- merging axes ----------------------------------------------------------------------------------------------


def merge_axes(roots: tuple[Root, ...], parallel: Axes, bound: Axes,
               across: Axes = ()) -> tuple[tuple[Root, ...], Axes, Axes, Axes]:  # fmt: skip
    """Make neighbors one axis where no index needs them apart, and the same operands of products vary over both."""
    indices = {index: index for node in walk(roots) if node.is_placed for index in node.indices}
    rows, columns, others = parallel, bound, across
    products = products_of(roots)
    roles = {axis: [axis in operand.axes for node in products for operand in node.operands] for axis in parallel}

    def mergeable(outer: Variable, inner: Variable) -> bool:
        if roles.get(outer) != roles.get(inner):
            return False
        return not any(outer in dims.free_atoms(over_joined(index, outer, inner)) for index in indices.values())

    while pair := next((pair for pair in (*permutations(rows, 2), *pairwise(columns), *pairwise(others))
                        if mergeable(*pair)), None):  # fmt: skip
        outer, inner = pair
        if outer in roles:
            roles[joined(outer, inner)] = roles[outer]
        indices = {old: over_joined(index, outer, inner) for old, index in indices.items()}
        rows, columns, others = (
            tuple(joined(outer, inner) if axis is inner else axis for axis in axes if axis is not outer)
            for axes in (rows, columns, others)
        )
    if rows + columns + others == parallel + bound + across:
        return roots, parallel, bound, across
    return substituted(roots, indices, {bound: columns, across: others}), rows, columns, others


@lru_cache(1 << 14)
def joined(outer: Variable, inner: Variable) -> Variable:
    """The axis that runs over both, the same one in every kernel."""
    place = (JOINED, len(outer.place), *outer.place, *inner.place)
    return Variable(inner.name, outer.extent * inner.extent, place)


@lru_cache(1 << 14)
def over_joined(index: Dim, outer: Variable, inner: Variable) -> Dim:
    """An index with `j` written as `f - J*i`: where it does not need the two apart, `i` vanishes."""
    return dims.substitute(index, {inner: joined(outer, inner).expr - outer.expr * inner.extent})


def contiguous_last(roots: tuple[Root, ...], bound: Axes) -> tuple[tuple[Root, ...], Axes]:
    """The kernel of products with that of several summed axes last along which an operand is contiguous, the first one
    where both are, so that a block of what is summed reads neighbors: of a convolution whose channels are stored last,
    these. The order of a sum is open."""
    loads = [node for product in products_of(roots) for operand in product.operands for node in walk((operand,))
             if isinstance(node, Load)]  # fmt: skip
    last = next((axis for axis in map(unit_stride, (load.index for load in loads)) if axis in bound), None)
    order = tuple(sorted(bound, key=lambda axis: axis is last))
    if order == bound:
        return roots, bound
    return substituted(roots, {}, {bound: order}), order


# -- tiles -----------------------------------------------------------------------------------------------------


def unit_stride(address: Dim) -> Variable | None:
    """The axis along which neighboring elements are neighbors in memory."""
    terms = address.terms if isinstance(address, Expr) else ()
    alone = [monomial[0] for monomial, coefficient in terms if coefficient == 1 and len(monomial) == 1]
    return next((atom for atom, power in alone if power == 1 and isinstance(atom, Variable)), None)


def make_schedule(
    roots: tuple[Root, ...], parallel: Axes, bound: Axes, options: ScheduleOptions = NO_OPTIONS,
    online: Online | None = None,
) -> Schedule:  # fmt: skip
    """Choose the tile shape and its blocks where `options` do not state them, and lay out the nest; raises the
    `LegalityFailure` of options that do not fit the kernel (rule F15), or of scans that no loop runs (F21)."""
    nodes = walk(roots)
    if online is not None:
        return online_schedule(roots, online, parallel, options)
    products = products_of(roots)
    if products:
        batch, down, across, summed = product_tiles(products, parallel, bound, options, any(map(draws_bits, nodes)))
        return Schedule(down, across, product_nest(roots, products, summed), options, summed, batch)
    tiles = choose_tiles(nodes, parallel, bound, options.n)
    names = [tile.name for tile in tiles if tile is not None]
    schedule_fits_the_tiles(options, names)
    rows, columns = (with_block(tile, options.blocks.get(tile.name)) if tile is not None else None for tile in tiles)
    nest: Iterable[Scope] = nodes
    if columns is not None and columns.looped:
        scans_run_in_a_loop(scans_of(roots), size_of(bound), size_of(parallel), options)
        nest = looped_nest(roots, columns)
    schedule = Schedule(rows, columns, tuple(nest), options)
    schedule_fits_the_tiles(options, names, math.prod(tile.typical for tile in schedule.tiles))
    return schedule


def with_block(tile: Tile, block: int | None) -> Tile:
    """The tile axis with this block, if one is stated and it is no whole row."""
    return tile if block is None or tile.whole else replace(tile, block=block)


def choose_tiles(nodes: Sequence[Node], parallel: Axes, bound: Axes,
                 width: int | None) -> tuple[Tile | None, Tile | None]:  # fmt: skip
    """The rows and columns of a tile, with blocks that rules choose; `nodes` are those of the kernel in the order of
    `walk`, and `width` is the stated block of reduced rows."""
    if bound:
        return reduction_tiles(nodes, parallel, bound, width)
    loads = [node for node in nodes if isinstance(node, Load)]
    column = column_axis(loads, [node for node in nodes if isinstance(node, Store)], parallel)
    if column is None:
        block = min(flat_block(size_of(parallel), FLAT_BLOCK), affordable(loads))
        return Tile("i", parallel, block) if parallel else None, None
    others = sorted_last(tuple(axis for axis in parallel if axis is not column), loads, column)
    width, height = covering(column.extent, SIDE), covering(size_of(others), SIDE)
    if all(unit_stride(load.index) in (column, None) for load in loads):
        width = flat_block(column.extent, TILE_ELEMENTS // 2)  # long rows rather than square tiles
        height = min(height, max(1, TILE_ELEMENTS // width))
    while width * height > affordable(loads):
        width, height = (width // 2, height) if width > height else (width, height // 2)
    return Tile("m", others, height), Tile("n", (column,), width)


def affordable(loads: Sequence[Load]) -> int:
    """The elements of a tile with these loads: of many, what eight warps hold, which have twice the registers a
    thread that sixteen have. One at a computed address counts twice in that: each element has its address in
    registers."""
    values = sum(2 if indirect_nodes(load.index) else 1 for load in loads)
    fitting = LOADED_VALUES * WARP * (8 if values > 8 else 16) // max(len(loads), 1)
    return max(8 * WARP, next_power_of_two(fitting + 1) // 2)


def column_axis(loads: Sequence[Load], stores: Sequence[Store], parallel: Axes) -> Variable | None:
    """The axis that gets tile columns of its own: contiguous in the store, where another axis is contiguous in a
    load (a transposition) or a load does not vary over both (a bias, read once for all rows of a tile)."""
    column = unit_stride(stores[0].index)
    if column is None or len(parallel) < 2 or (isinstance(column.extent, int) and column.extent < NARROW):
        return None
    for load in loads:
        transposed = unit_stride(load.index) not in (column, None) and column in load.axes
        if transposed or (load.axes and (column not in load.axes or load.axes == {column})):
            return column
    return None


def sorted_last(rows: Axes, loads: Sequence[Load], column: Variable) -> Axes:
    """The rows with that axis last along which some load is contiguous, so that a block of rows reads neighbors."""
    strides = [unit_stride(load.index) for load in loads if column in load.axes]
    last = next((stride for stride in strides if stride in rows), None)
    return tuple(sorted(rows, key=lambda axis: axis is last))


def covering(extent: Dim, most: int) -> int:
    """The least power of two that covers the extent, or `most`."""
    return min(next_power_of_two(extent), most) if isinstance(extent, int) else most


def flat_block(extent: Dim, most: int) -> int:
    """The largest power of two that divides the extent if that is large, else one that covers it: narrow floats in
    blocks of less than FLAT_BLOCK elements would be less than 128 bits a thread."""
    known = dims.multiple_of(extent)
    divisor = known & -known
    return min(divisor, most) if divisor >= FLAT_BLOCK else covering(extent, most)


def depends_on_a_reduction(node: Node) -> bool:
    """Whether a node is a reduction of what another reduction is needed for."""
    return isinstance(node, Reduce) and bool(reductions_of(node.operands))


def reduction_tiles(nodes: Sequence[Node], parallel: Axes, bound: Axes,
                    stated: int | None = None) -> tuple[Tile | None, Tile]:  # fmt: skip
    """Rows, and columns that are the reduced axes: whole in registers where they fit and `stated`, the block that the
    user states, covers them, else looped."""
    loads = [node for node in nodes if isinstance(node, Load)]
    extent = size_of(bound)
    most = dims.bounds(extent)[1]
    words = words_scanned(node for node in nodes if isinstance(node, Scan))
    is_known = isinstance(extent, int) and not words and not any(map(draws_bits, nodes))
    scanned = MOST_SCANNED if words <= 4 else MOST_SCANNED // 4  # of several scans, what combines them takes registers
    held = min(WHOLE_ROW if is_known else WHOLE_ROW_UNKNOWN, scanned // max(words, 1))
    whole = most <= held
    strided = any(unit_stride(load.index) in parallel for load in loads if load.axes & set(bound))
    width = next_power_of_two(most) if whole else LOOP_COLUMNS if words <= 8 else LOOP_COLUMNS // 2
    if strided and width > SIDE:
        neighbors = 8 if words or any(map(depends_on_a_reduction, nodes)) else 32  # a loop would read again, or not
        whole, width = whole and width * neighbors <= STRIDED_ELEMENTS, min(width, LOOP_COLUMNS)
        width = width if whole else SIDE // 2
    if stated is not None:
        whole, width = most <= stated, stated
    columns = Tile("n", bound, 0, whole=True) if whole else Tile("n", bound, width, looped=True)
    height = max(1, (STRIDED_ELEMENTS if strided else TILE_ELEMENTS) // width)
    height = min(height, next_power_of_two(scanned // (width * max(words, 1)) + 1) // 2 or 1)
    height = min(height, next_power_of_two(max(1, MOST_LOADED // (width * max(len(loads), 1))) + 1) // 2)
    return Tile("m", parallel, covering(size_of(parallel), min(height, SIDE))) if parallel else None, columns
