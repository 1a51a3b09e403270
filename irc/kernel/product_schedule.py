"""Schedules of products: tiles of the result in registers, in a loop over blocks of what is summed.

Blocks are powers of two of at least 16, as matrix instructions take them. Start at `product_tiles`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from math import prod
from typing import NamedTuple

from irc.kernel.dag import Check, Dot, Load, Node, Reduce, Root, reductions_of, walk
from irc.kernel.nest import Accumulate, Axes, Loop, Placed, Scope, Tile, next_power_of_two, reads_windows, size_of
from irc.kernel.schedule_rules import schedule_fits_a_product, schedule_has_a_depth
from irc.schedule_options import ScheduleOptions

LEAST = 16  # elements of a block of a product
LEAST_BITS = 256  # of a row of a block of what is summed
ROWS, COLUMNS = 128, 128  # of a tile of results of f16 and bf16, which eight warps hold
ROWS_F32, COLUMNS_F32 = 64, 64  # of f32, which no matrix instruction multiplies without loss
LOADED_ELEMENTS = 16_384  # in a pass of the loop: all that is loaded at once is in registers
SUMMED_BYTES = 128  # of a row of a block of what is summed: one line of the cache
MOST_SUMMED = 64  # elements of it: sums of operands beside the product have as many lanes in registers


class ProductTiles(NamedTuple):
    """The tile axes of a kernel with products: matrices of a batch, rows and columns of results, and what is summed."""

    batch: Tile | None
    rows: Tile
    columns: Tile
    summed: Tile


def product_tiles(products: Sequence[Dot], parallel: Axes, bound: Axes, options: ScheduleOptions,
                  draws: bool = False) -> ProductTiles:  # fmt: skip
    """The tile axes, with blocks that rules choose where the options do not state them; `draws` says whether random
    bits are drawn of each result. Raises the `LegalityFailure` of options that do not fit (rule F15)."""
    first = products[0]
    schedule_fits_a_product(options, LEAST)
    rows = tuple(axis for axis in parallel if axis in first.rows)
    columns = tuple(axis for axis in parallel if axis in first.columns)
    batch = tuple(axis for axis in parallel if axis not in first.rows | first.columns)
    wide = first.fed.bits > 16
    height = options.m or covering(rows, (ROWS_F32 if wide else ROWS) // (2 if draws else 1))
    # Each has a tile in registers: of two or three half as wide, of four a quarter.
    most = (COLUMNS_F32 if wide else COLUMNS) // next_power_of_two(len(products) // 2 + 1)
    width = options.n or covering(columns, max(LEAST, most))
    operands = walk(operand for product in products for operand in product.operands)
    line = SUMMED_BYTES // (2 if reads_windows(operands, bound) else 1)
    least = least_depth(first)
    schedule_has_a_depth(options, least)
    depth = options.k or max(least, covering(bound, max(LEAST, min(line * 8 // first.fed.bits, MOST_SUMMED))))
    loads = [node.axes for node in operands if isinstance(node, Load) and not node.axes.isdisjoint(bound)]

    def loaded() -> int:
        sides = [(rows, height), (columns, width)]
        return depth * sum(prod(block for axes, block in sides if not each.isdisjoint(axes)) for each in loads)

    while options.k is None and depth > least and loaded() > LOADED_ELEMENTS:
        depth //= 2
    while options.m is None and height > LEAST and loaded() > LOADED_ELEMENTS:
        height //= 2
    return ProductTiles(
        Tile("b", batch, 1, single=True) if batch else None,
        Tile("m", rows, height),
        Tile("n", columns, width),
        Tile("k", bound, depth, looped=True),
    )


def least_depth(product: Dot) -> int:
    """The least block of what is summed: a matrix instruction takes 256 bits of a row, or 16 elements."""
    return max(LEAST, LEAST_BITS // product.fed.bits)


def covering(axes: Axes, most: int) -> int:
    """The least block that covers the axes, or `most`."""
    extent = size_of(axes)
    return max(LEAST, min(next_power_of_two(extent), most)) if isinstance(extent, int) else most


def product_nest(roots: tuple[Root, ...], products: Sequence[Dot], summed: Tile) -> tuple[Scope, ...]:
    """What the operands need that does not vary over the summed axes, the loop over these, and then all else.
    Reductions are accumulated in the loop, too."""
    axes = frozenset(summed.axes)
    reductions = reductions_of(roots)
    read = [[node.operands[side] for node in products] for side in (0, 1)]
    for reduction in reductions:
        read[side_of(reduction, products[0]) == "second"].append(reduction.operands[0])
    sides = [[node for node in walk(each) if node.axes & axes] for each in read]
    inside = dict.fromkeys(chain(*sides))
    fixed, checks = placed_checks(roots, {**dict.fromkeys(sides[1], "second"), **dict.fromkeys(sides[0], "first")},
                                  axes)  # fmt: skip
    before = list(dict.fromkeys([*(node for node in walk(chain(*read)) if node not in inside), *fixed]))
    body: list[Scope] = [Placed(node, "first") for node in sides[0]]
    body += [Placed(node, "second") for node in sides[1]]
    body += [*checks, *map(Accumulate, reductions), *map(Accumulate, products)]
    done: set[Node] = {*before, *inside, *(check.node for check in checks)}
    after = [node for node in walk(roots) if node not in done]
    return *before, Loop(summed, tuple(body)), *after


def side_of(reduction: Reduce, product: Dot) -> str:
    """The operand of a product beside which a reduction in its loop is computed."""
    return "first" if reduction.axes.isdisjoint(product.columns) else "second"


def placed_checks(roots: Sequence[Root], placed: Mapping[Node, str],
                  axes: Collection[object]) -> tuple[list[Node], list[Placed]]:  # fmt: skip
    """The checks of what varies over the axes of a loop, with what only they read, on the side of what they check;
    before them what they read that is the same in each pass."""
    fixed, checks = dict[Node, None](), dict[Node, str]()
    for root in roots:
        if isinstance(root, Check) and not root.axes.isdisjoint(axes):
            nodes = walk((root,))
            side = next((placed[node] for node in nodes if node in placed and node.axes & set(axes)), "first")
            checks |= {node: side for node in nodes if node not in placed and not node.axes.isdisjoint(axes)}
            fixed |= {node: None for node in nodes if node not in placed and node.axes.isdisjoint(axes)}
    return list(fixed), [Placed(node, side) for node, side in checks.items()]
