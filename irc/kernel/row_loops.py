"""Loops over rows that do not fit in registers: a row is read once for each level of reductions, and once more for what
is stored of each of its elements.

A reduction is of the level after those of what it is computed from; one that is carried (`irc.kernel.carry`) is of the
level of its carrier. So softmax and layer norm read a row twice. A scan adds no level: its value at a block is of
the block and what the blocks before have combined to, in each loop that needs it. Start at `looped_nest`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from irc.dims import Variable
from irc.kernel.carry import Point, carried, computed_of_elements, multiples
from irc.kernel.dag import Apply, Node, Reduce, Root, walk
from irc.kernel.nest import Accumulate, Carry, Loop, Scope, Tile


def looped_nest(roots: tuple[Root, ...], columns: Tile) -> Iterator[Scope]:
    """One loop for each level of reductions: a loop computes again what varies over the columns."""
    axes = frozenset(columns.axes)
    level, points = levels(roots)
    done: set[Node] = set()

    def fixed(nodes: Iterable[Node]) -> Iterator[Node]:
        """What does not vary over the columns is computed once, before the first loop that needs it."""
        for node in nodes:
            if node not in done and not node.axes & axes and not isinstance(node, Reduce):
                done.add(node)
                yield node

    for current in range(max(level.values()) + 1):
        steps = [node for node in level if isinstance(node, Reduce) and level[node] == current + 1]
        stored = [root for root in roots if root.axes & axes and level[root] == current]
        if steps or stored:
            needed = [below for root in stored for below in root.below]
            for step in steps:
                needed += [computed_of_elements(step, points[step])] if step in points else step.below
            required = {*unreduced(needed), *stored}
            ordered = [node for node in level if node in required]
            yield from fixed(node for node in ordered if level[node] <= current)
            yield Loop(columns, tuple(loop_body(ordered, axes, steps, points)))
            for step in steps:
                if step in points:
                    yield from fixed(unreduced((points[step].node,)))
                yield step
    for root in roots:
        if not root.axes & axes:
            yield from fixed(unreduced((root,)))


def unreduced(roots: Iterable[Node]) -> list[Node]:
    """What is computed for the roots from the results of reductions."""
    return walk(roots, through=lambda node: not isinstance(node, Reduce))


def levels(roots: Iterable[Root]) -> tuple[dict[Node, int], dict[Reduce, Point]]:
    """By node, how many loops are done when it is known, or in the next of which it is computed; and the points of the
    reductions that are carried. Of a maximum, all have the same point."""
    level: dict[Node, int] = {}
    points: dict[Reduce, Point] = {}
    of_carrier: dict[Node, Point] = {}
    nodes = walk(roots)
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for operand in node.operands:
            users.setdefault(operand, []).append(node)
    for node in nodes:
        level[node] = max((level[other] for other in node.below), default=0) + isinstance(node, Reduce)
        point = carried(node) if isinstance(node, Reduce) else None
        if isinstance(node, Reduce) and point is not None:
            others = [other for other in unreduced(node.operands) if isinstance(other, Reduce)]
            if point.hides and not all(divides(user, node, point) for user in users[node]):
                continue
            is_ready = all(other is point.carrier or level[other] < level[point.carrier] for other in others)
            if is_ready and of_carrier.setdefault(point.carrier, point) == point:
                level[node], points[node] = level[point.carrier], point
    return level, points


def divides(user: Node, total: Node, point: Point) -> bool:
    """Whether a multiple of an exponential is divided by a sum of such: in a row of -inf that is NaN, be the sum 0 or
    NaN."""
    is_quotient = isinstance(user, Apply) and user.name == "div" and user.operands[1] is total
    return is_quotient and user.operands[0] in multiples(user.operands[0], point)


def loop_body(nodes: Iterable[Node], columns: frozenset[Variable], steps: Iterable[Reduce],
              points: dict[Reduce, Point]) -> Iterator[Scope]:  # fmt: skip
    """Those of the nodes that vary over the columns, and after each node what is accumulated of it: a maximum before
    what is summed relative to it."""
    maxima = {point.carrier: point for point in points.values() if point.is_maximum}
    for node in nodes:
        if node.axes & columns:
            yield node
        for step in steps:
            if step in points and computed_of_elements(step, points[step]) is node:
                yield Accumulate(step, points[step])
            elif step not in points and step.operands[0] is node:
                yield Carry(maxima[step]) if step in maxima else Accumulate(step)
