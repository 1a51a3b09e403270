"""Cuts of an axis of a kernel into pieces, so that what reads a product at shifted columns reads another piece.

Rotary position embeddings compute each element of a head from the one half a head beside it, too. At the points of one
axis of columns the product would be computed three times: there, and a half before and after, each under a guard. Over
the columns of one half of each head, the two halves are two products, of which both results of the head are computed:
each product once, and no guard is left. Which pieces that takes follows from where guards change. Start at `pieces`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irc import dims
from irc.dims import Dim, Variable
from irc.index_map import Coordinates, Guard, cut_axis
from irc.ir import Value
from irc.kernel.dag import Dot, Graph, Load, Node, Reduce, Root, Select, variables, walk
from irc.kernel.propagation import root_coordinates
from irc.kernel.rules import MOST_PRODUCTS

MOST_COLUMNS = 1 << 16  # of an axis whose guards are looked at


def pieces(anchor: Value, roots: Sequence[Root]) -> list[Coordinates]:
    """The coordinates of an anchor in each piece of one of its axes, such that no selection of what is computed of
    products changes within a piece. Empty where no axis has such pieces, or has more than a kernel has products."""
    selects = [node for node in walk(roots, through=lambda node: not isinstance(node, Dot)) if isinstance(node, Select)]
    coordinates = root_coordinates(anchor)
    for position in reversed(range(len(coordinates))):
        axis, extent = _axis(coordinates[position]), anchor.shape[position]
        if axis is None or not isinstance(extent, int) or not 1 < extent <= MOST_COLUMNS:
            continue
        guards = [guard for node in selects for guard in node.guards if _is_on(axis, guard)]
        period, piece = _period(guards, axis, extent)
        if 1 < period // piece <= MOST_PRODUCTS:
            at = (cut_axis(extent, position, period, piece, number) for number in range(period // piece))
            return [(*coordinates[:position], cut, *coordinates[position + 1 :]) for cut in at]
    return []


def _axis(coordinate: Dim) -> Variable | None:
    """The axis that a coordinate is."""
    axis = next((atom for atom in dims.free_atoms(coordinate) if isinstance(atom, Variable)), None)
    return axis if axis is not None and axis.expr == coordinate else None


def _is_on(axis: Variable, guard: Guard) -> bool:
    """Whether a guard is known from the index along one axis."""
    return isinstance(guard.extent, int) and set(dims.free_atoms(guard.index)) == {axis}


def _period(guards: Sequence[Guard], axis: Variable, extent: int) -> tuple[int, int]:
    """The shortest period after which all guards on an axis repeat, and the longest length that divides each stretch
    within it along which no guard changes."""
    index, piece, period = np.arange(extent), extent, 1
    for guard in guards:
        values = np.asarray(dims.evaluate_array(guard.index, {axis: index}))
        inside = (0 <= values) & (values < guard.extent)
        changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        piece = math.gcd(piece, *changes.tolist())
        repeats = (each for each in _divisors(extent) if (inside.reshape(-1, each) == inside[:each]).all())
        period = math.lcm(period, next(repeats))
    return math.lcm(period, piece), piece


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def with_guards_of_stores(roots: Sequence[Root], product: Dot) -> tuple[Root, ...]:
    """The roots with guards on loads outside of products: those on rows or columns, over which the load varies, that
    hold wherever a result of it is stored. What is computed of some columns then reads nothing for others."""
    graph, shared = Graph(), dict[Node, frozenset[Guard]]()
    kept = {*walk(below for node in walk(roots) for below in (node.below if _is_loop(node) else node.reads))}
    for node in reversed(walk(roots, through=lambda node: not _is_loop(node))):
        held = frozenset(node.guards) if isinstance(node, Root) else shared.get(node, frozenset())
        for below in node.below:
            shared[below] = shared[below] & held if below in shared else held
    new: dict[Node, Node] = {}
    for node in walk(roots):
        operands = tuple(new[operand] for operand in node.operands)
        new[node] = graph.changed(node, operands=operands)
        if isinstance(node, Load) and node not in kept:
            sides = [side for side in (product.rows, product.columns) if not side.isdisjoint(node.axes)]
            guards = [guard for guard in shared[node] if any(variables(guard.index) <= side for side in sides)]
            added = sorted(set(guards) - set(node.guards), key=lambda guard: str(guard.index))
            new[node] = graph(node.over(guards=(*node.guards, *added))) if added else node
    return tuple(new[root] for root in roots)  # type: ignore[misc]


def _is_loop(node: Node) -> bool:
    return isinstance(node, (Dot, Reduce))
