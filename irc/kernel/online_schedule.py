"""Schedules of products of softmax weights: rows of results in registers, in a loop over blocks of keys.

A program has a block of rows `m`, all columns of the result, `e`, and all of what scores are summed over, `k`. It loops
over blocks `n` of the axis of the softmax. Start at `online_schedule`.
"""

from __future__ import annotations

from collections.abc import Sequence

from irc.kernel.dag import Load, Root, walk
from irc.kernel.nest import Accumulate, Axes, Carry, Loop, Placed, Schedule, Scope, Tile, size_of
from irc.kernel.online import Online
from irc.kernel.product_schedule import LEAST, covering, placed_checks
from irc.kernel.rules import MOST_COLUMNS
from irc.kernel.schedule_rules import schedule_fits_a_product
from irc.schedule_options import ScheduleOptions

ROWS, KEYS = 64, 64  # of f16 and bf16: what 4 warps hold beside 64 columns
ROWS_F32, KEYS_F32 = 32, 32  # of f32; also the keys where there are more columns
HELD = 16 * 128  # elements of the results of a block of rows, beside which there are registers for 64 keys


def online_schedule(roots: tuple[Root, ...], online: Online, parallel: Axes, options: ScheduleOptions) -> Schedule:
    """The schedule of a kernel with a product of softmax weights; raises `LegalityFailure` (rules F15, F17)."""
    product, scores = online.product, online.scores
    schedule_fits_a_product(options, LEAST, tiles=("m", "n"))
    is_wide = product.fed.bits > 16
    apart = product.rows if scores is None else product.rows & scores.rows
    rows = short_rows(tuple(axis for axis in parallel if axis in apart), ROWS_F32 if is_wide else ROWS)
    columns = tuple(axis for axis in parallel if axis in product.columns)
    batch = tuple(axis for axis in parallel if axis not in (*rows, *columns))
    depth = scores.bound if scores is not None else ()
    height = options.m or covering(rows, ROWS_F32 if is_wide else ROWS)
    held = max(covering(axes, MOST_COLUMNS) for axes in (columns, depth))
    is_full = is_wide or (held > KEYS and held * height > HELD) or has_stored_mask(online)
    keys = options.n or covering(product.bound, KEYS_F32 if is_full else KEYS)
    loop = Tile("n", product.bound, keys, looped=True)
    whole = Tile("k", depth, 0, whole=True) if depth else None
    results = Tile("e", columns, 0, whole=True)
    nest = online_nest(roots, online, frozenset(product.bound), frozenset(depth), loop)
    matrices = Tile("b", batch, 1, single=True) if batch else None
    return Schedule(Tile("m", rows, height), loop, nest, options, whole, matrices, results)


def has_stored_mask(online: Online) -> bool:
    """Whether scores are chosen by what is loaded for the keys, such as bools, or numbers of documents that are
    compared: beside 64 keys ptxas spills 32 to 52 bytes of it on sm_100. What indices alone decide, as in causal
    attention, takes no registers."""
    between = walk((online.product.operands[0],), through=lambda node: node is not online.scores)
    keys = frozenset(online.product.bound)
    return any(isinstance(node, Load) and not node.dtype.is_float and node.axes & keys for node in between)


def short_rows(axes: Axes, most: int) -> Axes:
    """The last of the axes, and those before it with which it is at most so many rows: the few queries of several heads
    that share keys."""
    extents = [size_of(axes[place:]) for place in range(len(axes))]
    fitting = [place for place, extent in enumerate(extents) if isinstance(extent, int) and extent <= most]
    return axes[min(fitting, default=-1) :]


def online_nest(roots: Sequence[Root], online: Online, keys: frozenset[object], depth: frozenset[object],
                loop: Tile) -> tuple[Scope, ...]:  # fmt: skip
    """What does not vary along the softmax, the loop over blocks of it, and then all else."""
    product, scores = online.product, online.scores
    sides = {"scores": walk((product.operands[0],), through=lambda node: node is not scores),
             "values": walk((product.operands[1],))}  # fmt: skip
    if scores is not None:
        sides = {"first": walk((scores.operands[0],)), "second": walk((scores.operands[1],)), **sides}
    point, computed = online.point, online.point.computed
    pairs = [(node, side) for side, nodes in sides.items() for node in nodes if node not in computed]
    before: list[Scope] = list(dict.fromkeys(Placed(node, side) if node.axes & depth else node
                                             for node, side in pairs if not node.axes & keys))  # fmt: skip
    body: list[Scope] = []
    for node, side in pairs:
        if node.axes & keys:
            if point.node in node.operands:
                body.append(Carry(point))
            body.append(Placed(node, side))
    placed = dict(reversed(pairs))
    fixed, checks = placed_checks(roots, placed, keys)
    constant = [root for root in roots if root.axes.isdisjoint(keys)]
    outside, checks_outside = placed_checks(constant, placed, depth)
    before += [*fixed, *outside, *checks_outside]
    body += [*checks, *(Accumulate(each, point) for each in online.sums), Accumulate(product, point)]
    done = {*placed, *fixed, *outside, online.maximum, product, *online.sums,
            *(check.node for check in (*checks, *checks_outside))}  # fmt: skip
    accumulated = (*online.sums, product)
    after = [node for node in walk(roots, through=lambda node: node not in accumulated) if node not in done]
    return *before, Loop(loop, tuple(body)), *after


