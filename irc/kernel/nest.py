"""Schedules as data: tile axes, scopes, and the loop nest that the byte model and the emitters walk.

A kernel works on tiles of rank 1 or 2: one tile axis `i` alone, or rows `m` by columns `n`; products have tiles of
results `m` by `n` in a loop over blocks of what is summed, `k`, for each matrix `b` of a batch. A tile axis stands for
one or several axes, flattened; those are split coordinates of it (`b = m // S`). Rules choose a schedule
(`irc.kernel.schedule`, `irc.kernel.product_schedule`). Start at `Schedule`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from irc import dims
from irc.dims import Dim, Variable
from irc.index_map import Guard
from irc.kernel.carry import Point
from irc.kernel.dag import Dot, Load, Node, Reduce, Scan, draws_bits, indirect_nodes, variables
from irc.schedule_options import NO_OPTIONS, ScheduleOptions

TYPICAL_ROW = 1_024  # of a row of unknown size, where a kernel is looked at without being run
WARP = 32  # threads; where a target's have 64, half as many do
LOADED_VALUES = 64  # that a thread has registers for, with their masks
ACCUMULATED_VALUES = 64  # of the tile of a product that a thread holds
MOST_LOADS = 2  # of an operand of a product, beside which a thread has registers for such a tile
MOST_HELD = 128  # columns of a product of softmax weights that 4 warps have registers for

Axes = tuple[Variable, ...]


@dataclass(frozen=True)
class Tile:
    """A tile axis: the flattened `axes`, in blocks of `block` elements, or 0 for all of them in one block."""

    name: str
    axes: Axes
    block: int
    looped: bool = False
    whole: bool = False  # one block holds the extent, rounded up to a power of two
    single: bool = False  # blocks are single elements, whose index is a scalar

    @property
    def extent(self) -> Dim:
        return size_of(self.axes)

    @property
    def typical(self) -> int:
        """The block: of a row of unknown size, that of a typical one."""
        extent = self.extent if isinstance(self.extent, int) else min(dims.bounds(self.extent)[1], TYPICAL_ROW)
        return next_power_of_two(extent) if self.whole else self.block

    @property
    def masked(self) -> bool:
        """Whether the last block may reach beyond the extent."""
        if self.whole:
            return not isinstance(self.extent, int) or self.extent != next_power_of_two(self.extent)
        return dims.multiple_of(self.extent) % self.block != 0 if self.extent != 0 else True


@dataclass(frozen=True)
class Accumulate:
    """One step of a reduction, or of a product, in a loop over what is reduced; `point` says of what is accumulated
    with another reduction how it depends on that."""

    reduce: Reduce | Dot
    point: Point | None = None


@dataclass(frozen=True)
class Placed:
    """A node that is computed for an operand of a product: the first has the summed axis as columns, the second as
    rows. What both read is placed twice. Of a softmax whose weights are multiplied, the scores have its axis as
    columns, and the values as rows."""

    node: Node
    side: str  # "first", "second", "scores", "values"


@dataclass(frozen=True)
class Carry:
    """The maximum so far of a loop is replaced by that with the block's, and what is summed rescaled."""

    point: Point

    @property
    def maximum(self) -> Reduce:
        return self.point.carrier


@dataclass(frozen=True)
class Loop:
    """Passes over a tile axis, a block at a time. A scan in it carries what the blocks before have combined to."""

    tile: Tile
    body: tuple[Scope, ...]

    @property
    def scans(self) -> list[Scan]:
        return [scope for scope in self.body if isinstance(scope, Scan)]

    @property
    def reverse(self) -> bool:
        """Whether it begins with the last block, as its scans do (rule F21)."""
        return any(scan.reverse for scan in self.scans)


# A node stands for its value, for each point of the tile axes that it varies over; a root for what it does, a reduction
# for its end over the lanes of a tile, which is all of it where the row is whole.
Scope = Node | Accumulate | Placed | Carry | Loop


@dataclass(frozen=True)
class Schedule:
    """The tile shape, and what is computed in which scope.

    Of products alone: `summed` is what is summed, and `results` the columns of the product of the weights of a softmax,
    of which `columns` is the axis. `batch` are the matrices of products, or parts of rows that are reduced across.
    """

    rows: Tile | None
    columns: Tile | None
    nest: tuple[Scope, ...]
    options: ScheduleOptions = NO_OPTIONS
    summed: Tile | None = None
    batch: Tile | None = None
    results: Tile | None = None

    @property
    def tiles(self) -> tuple[Tile, ...]:
        every = (self.batch, self.rows, self.columns, self.summed, self.results)
        return tuple(tile for tile in every if tile is not None)

    @property
    def grid(self) -> tuple[Tile, ...]:
        """The tile axes whose blocks are different programs."""
        return tuple(tile for tile in self.tiles if not tile.looped and not tile.whole)

    @property
    def shaped(self) -> tuple[Tile, ...]:
        """The tile axes that are dims of a tile."""
        return tuple(tile for tile in self.tiles if not tile.single)

    @property
    def warps(self) -> int:
        """How many compute a tile: of rows of unknown size, a typical one."""
        if self.options.warps is not None:
            return self.options.warps
        if self.results is not None:
            return 8 if self.results.typical > MOST_HELD else 4
        if self.summed is not None:
            assert self.rows is not None and self.columns is not None
            (loop,) = (scope for scope in self.nest if isinstance(scope, Loop))
            products = sum(isinstance(scope, Accumulate) and isinstance(scope.reduce, Dot) for scope in loop.body)
            values = products * self.rows.block * self.columns.block
            nodes = [scope.node for scope in loop.body if isinstance(scope, Placed)]
            needs_registers = reads_windows(nodes, self.summed.axes) or any(map(draws_bits, self.nest))
            needs_registers |= most_loads_of_a_side(loop, self.summed.axes) > MOST_LOADS * products
            each = ACCUMULATED_VALUES // (2 if needs_registers else 1)
            return max(4, min(8, values // (each * WARP)))
        elements = math.prod(tile.typical for tile in self.tiles)
        bodies = (self.nest, *(scope.body for scope in self.nest if isinstance(scope, Loop)))
        loads = elements * max(sum(isinstance(scope, Load) for scope in body) for body in bodies)
        held = elements * (2 if self.has_addresses_of_elements else 1)
        most = 16
        if self.columns is not None and self.columns.whole:  # a thread of fewer warps has more registers for its loads
            most = max(1, min(most, elements // (8 * WARP)))
        return max(warps_for(held), min(most, next_power_of_two(loads // (LOADED_VALUES * WARP))))

    @property
    def has_addresses_of_elements(self) -> bool:
        """Whether a tile in a loop has short rows of several axes: each element has its address in registers."""
        if self.rows is None or self.columns is None or not self.columns.looped:
            return False
        return len(self.rows.axes) > 1 and self.columns.block <= WARP


def is_of_window(guard: Guard, summed: Axes) -> bool:
    """Whether a guard tests an index that varies over what is summed, and over what is not: where in a window of a
    convolution an element is. A loaded index is of no window."""
    axes = variables(guard.index)
    return not indirect_nodes(guard.index) and not axes.isdisjoint(summed) and not axes.issubset(summed)


def reads_windows(nodes: Iterable[Node], summed: Axes) -> bool:
    """Whether one of the nodes loads elements of windows: each has its address and its mask in registers."""
    loads = [node for node in nodes if isinstance(node, Load)]
    return any(is_of_window(guard, summed) for load in loads for guard in load.guards)


def most_loads_of_a_side(loop: Loop, summed: Axes) -> int:
    """How many loads the elements of one operand of the products are computed of, each element of its own."""
    loads = [scope for scope in loop.body if isinstance(scope, Placed) and isinstance(scope.node, Load)]
    apart = Counter(scope.side for scope in loads
                    if not scope.node.axes.isdisjoint(summed) and not scope.node.axes.issubset(summed))  # fmt: skip
    return max(apart.values(), default=0)


def warps_for(elements: int) -> int:
    """Four for a tile of so many elements, more for large ones, fewer where a thread would have less than four."""
    return min(16, max(1, min(4, elements // (4 * WARP)), next_power_of_two(elements // 512)))


def next_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def size_of(axes: Axes) -> Dim:
    return dims.product(axis.extent for axis in axes)
