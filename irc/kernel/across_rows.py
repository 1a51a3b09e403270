"""Reductions across rows, in a kernel that reduces each row too: the gradient of a norm with those of its weights.

A program loops over blocks of rows, which it holds whole. Reductions of a row are known where the row is read; those
across rows are accumulated for each column, and known after the loop. So all is read once. A device has programs enough
for this where the rows are divided among them (`irc.passes.split`), each with partial results. Start at `reduced_axes`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from irc import dims
from irc.dims import Variable
from irc.kernel.dag import Load, Node, Reduce, Root, reductions_of, walk
from irc.kernel.nest import Accumulate, Axes, Loop, Schedule, Scope, Tile, next_power_of_two, size_of
from irc.kernel.rules import (
    reductions_share_their_axes,
    results_across_rows_are_read_after_them,
    rows_fit_beside_what_is_across,
)
from irc.kernel.schedule import TILE_ELEMENTS, WHOLE_ROW, WHOLE_ROW_UNKNOWN, covering, unit_stride
from irc.kernel.schedule_rules import schedule_fits_the_tiles, schedule_holds_rows
from irc.schedule_options import ScheduleOptions


def reduced_axes(roots: tuple[Root, ...], divisible: Collection[Node]) -> tuple[Axes, Axes]:
    """The axes over which each row is reduced, and those across which rows are, if they are: neighbors in memory are in
    one row. Only the reductions in `divisible` may be across rows. Raises the `LegalityFailure` of rule F6."""
    reductions = reductions_of(roots)
    by_axes: dict[frozenset[Variable], Axes] = {}
    for node in reductions:
        by_axes.setdefault(frozenset(node.bound), node.bound)
    if len(by_axes) < 2:
        return next(iter(by_axes.values()), ()), ()
    nodes = walk(roots)
    strides = [unit_stride(node.index) for node in nodes if isinstance(node, Load)]
    columns, across = sorted(list(by_axes)[:2], key=lambda axes: -sum(stride in axes for stride in strides))
    known = len(by_axes) == 2 and columns.isdisjoint(across) and all(
        columns <= node.axes and node in divisible if across == {*node.bound} else across <= node.axes
        for node in reductions
    )
    reductions_share_their_axes(() if known else reductions)
    # Every reduction is in the loop over rows, even one over rows of a value that is the same for all of them.
    read_in_rows = [node for node in depending_on_reductions(nodes, across)
                    if node.axes & across or isinstance(node, Reduce)]  # fmt: skip
    results_across_rows_are_read_after_them(read_in_rows, [node for node in reductions if across == {*node.bound}])
    extent = size_of(by_axes[columns])
    most = WHOLE_ROW if isinstance(extent, int) else WHOLE_ROW_UNKNOWN
    rows_fit_beside_what_is_across(reductions, extent, dims.bounds(extent)[1] <= most)
    return by_axes[columns], by_axes[across]


def depending_on_reductions(nodes: Iterable[Node], axes: frozenset[Variable]) -> list[Node]:
    """Which of the nodes, operands first, are computed from reductions over these axes."""
    results: set[Node] = set()
    depending: dict[Node, None] = {}
    for node in nodes:
        if any(below in results or below in depending for below in node.below):
            depending[node] = None
        if isinstance(node, Reduce) and set(node.bound) == axes:
            results.add(node)
    return list(depending)


def across_schedule(roots: tuple[Root, ...], parallel: Axes, columns: Axes, across: Axes,
                    options: ScheduleOptions) -> Schedule:  # fmt: skip
    """The schedule of a kernel that reduces rows over `columns`, and across the rows; raises the `LegalityFailure` of
    options that do not fit (rule F15)."""
    width = next_power_of_two(dims.bounds(size_of(columns))[1])
    height = options.m or covering(size_of(across), max(1, TILE_ELEMENTS // width))
    schedule_fits_the_tiles(options, ("m", "n"), width * height)
    schedule_holds_rows(options, size_of(columns))
    rows = Tile("m", across, height, looped=True)
    batch = Tile("b", parallel, 1, single=True) if parallel else None
    return Schedule(rows, Tile("n", columns, 0, whole=True), across_nest(roots, rows), options, batch=batch)


def across_nest(roots: tuple[Root, ...], rows: Tile) -> tuple[Scope, ...]:
    """What is the same for all rows, the loop over these, and then what is computed of the reductions across them."""
    axes, nodes = frozenset(rows.axes), walk(roots)
    across = [node for node in nodes if isinstance(node, Reduce) and set(node.bound) == axes]
    inside = [node for node in nodes if node.axes & axes]
    needed = walk([*inside, *(node.operands[0] for node in across)])
    before = [node for node in needed if not node.axes & axes]
    done = {*inside, *before}
    after = [node for node in nodes if node not in done]
    return *before, Loop(rows, (*inside, *map(Accumulate, across))), *after
