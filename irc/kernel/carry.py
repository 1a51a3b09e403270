"""Reductions that are accumulated in one loop over a row with the reduction that they depend on, its *carrier*.

Without this a row is read again for each level of reductions. There are two forms:

- What is summed depends on the maximum c of x through a factor exp(x - c) alone. It is summed beside the maximum so
  far, c', and multiplied by exp(c' - c'') where a larger maximum c'' is found (Milakov and Gimelshein, "Online
  normalizer calculation for softmax", 2018).
- The squares of x - m are summed, where m is computed from the sum of x, such as the mean. The squared distances of the
  elements so far from their own mean are summed instead, and what they differ by from those from m is added at the end
  (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).

Both round elsewhere than the program says, within the class `keeps_more_precision`. Start at `carried`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irc import constants
from irc.kernel.dag import COMPARISONS, Apply, Constant, Dot, Node, Reduce, Select, loops_of, walk
from irc.ops import lookup

EXACT = frozenset({*COMPARISONS, "minimum", "maximum"})
TESTS = frozenset({"is_inf", "is_nan", "bitwise_and", "bitwise_or", "bitwise_not", "select", "abs", "neg"})


@dataclass(frozen=True)
class Point:
    """What is subtracted from each element of a row: a `node` that is computed from the carrier alone.

    carrier: the maximum of the elements, or their sum. lowest, highest: what the node is where the maximum is -inf, and
    where it is inf: itself, or 0. Where the maximum is finite, the node is the maximum. hides: whether what is carried
    may be 0 in a row of -inf, where other exponentials less the maximum are NaN.
    """

    carrier: Reduce
    node: Node
    lowest: float = -np.inf
    highest: float = np.inf
    hides: bool = field(default=False, compare=False)

    @property
    def elements(self) -> Node:
        return self.carrier.operands[0]

    @property
    def is_maximum(self) -> bool:
        return self.carrier.kind == "max"

    @property
    def computed(self) -> set[Node]:
        """The carrier, and the nodes between it and the point."""
        nodes: set[Node] = {self.carrier}
        for node in walk((self.node,), through=lambda node: node is not self.carrier):
            if not nodes.isdisjoint(node.operands):
                nodes.add(node)
        return nodes


def carried(reduction: Reduce | Dot) -> Point | None:
    """The point whose carrier the reduction can be accumulated with, if there is one. Of a product that is said of its
    first operand; the second does not depend on the carrier."""
    body, *others = reduction.operands
    if (isinstance(reduction, Reduce) and reduction.kind != "sum") or not reduction.dtype.is_float:
        return None
    if not body.loops:
        return None
    nodes = walk((body,), through=_is_computed)
    points = [point for point in dict.fromkeys(map(exponent, nodes))
              if point is not None and point.carrier.bound == reduction.bound]  # fmt: skip
    fitting = [(point, scaled) for point in points if body in (scaled := multiples(body, point))]
    if len(fitting) == 1:
        ((point, scaled),) = fitting
        hides = point.lowest != 0.0 and any(_selects_zero(node) for node in scaled)
        return replace(point, hides=hides) if point.carrier not in loops_of(others) else None
    return _subtracted_mean(reduction) if isinstance(reduction, Reduce) and not fitting else None


def computed_of_elements(reduction: Reduce, point: Point) -> Node:
    """What a loop computes of each element to accumulate a carried reduction."""
    return reduction.operands[0] if point.is_maximum else point.elements


# -- exponentials of distances to the maximum --------------------------------------------------------------------


def exponent(node: Node) -> Point | None:
    """The point c of exp(x - c), where it is computed from the maximum of x, which varies over what is reduced."""
    if not (isinstance(node, Apply) and node.name == "exp"):
        return None
    difference = node.operands[0]
    if not (isinstance(difference, Apply) and difference.name == "sub"):
        return None
    x, subtracted = difference.operands
    maximum = _only_reduction(subtracted)
    if maximum is None or maximum.kind != "max" or maximum.operands[0] is not x:
        return None
    if x.axes.isdisjoint(maximum.bound):
        return None
    numbers = at_numbers(subtracted, maximum, np.array([-np.inf, -1.0, 1.0, np.inf]))
    if numbers is None or tuple(numbers) not in ((-np.inf, -1, 1, np.inf), (0, -1, 1, np.inf), (0, -1, 1, 0)):
        return None
    return Point(maximum, subtracted, float(numbers[0]), float(numbers[3]))


def _only_reduction(node: Node) -> Reduce | None:
    """The one reduction that a node is computed from, if it is one."""
    nodes = walk((node,), through=lambda node: not isinstance(node, (Reduce, Dot)))
    reductions = [node for node in nodes if isinstance(node, (Reduce, Dot))]
    return reductions[0] if len(reductions) == 1 and isinstance(reductions[0], Reduce) else None


def at_numbers(root: Node, carrier: Node, numbers: NDArray[Any]) -> NDArray[Any] | None:
    """What a node is where the carrier is each of these numbers; None unless all that it tests of the carrier is the
    same for all finite ones."""
    known: dict[Node, NDArray[Any]] = {carrier: numbers}
    for node in walk((root,), through=lambda node: node is not carrier):
        if isinstance(node, Constant):
            known[node] = np.asarray(node.value)
        elif isinstance(node, Apply) and (
            node.name in TESTS or (node.name in EXACT and any(map(_is_infinite, node.operands)))
        ):
            operands = [known[operand] for operand in node.operands]
            results = constants.of_numbers(lookup(node.name), operands, dict(node.attributes))
            if results is None:
                return None
            known[node] = results[0]
        elif node is not carrier:
            return None
    return np.broadcast_to(known[root], numbers.shape)


def _is_infinite(node: Node) -> bool:
    return isinstance(node, Constant) and node.dtype.is_float and bool(np.isinf(node.value))


def is_number(node: Node, number: float) -> bool:
    return isinstance(node, Constant) and bool(node.value == number)


def multiples(body: Node, point: Point) -> set[Node]:
    """What the body is computed from, itself among it, that is a multiple of exp(x - c) by what does not depend on the
    maximum."""
    depends: set[Node] = {point.carrier}
    scaled: set[Node] = set()
    for node in walk((body,), through=_is_computed):
        if not depends.isdisjoint(node.below):
            depends.add(node)
            if _is_exponential(node, point) or _keeps_factor(node, depends, scaled):
                scaled.add(node)
    return scaled


def _is_computed(node: Node) -> bool:
    """Whether a node depends on a reduction or a product."""
    return bool(node.loops)


def _selects_zero(node: Node) -> bool:
    is_selection = isinstance(node, Select) or (isinstance(node, Apply) and node.name == "select")
    return is_selection and any(is_number(operand, 0.0) for operand in node.operands[-2:])


def _is_exponential(node: Node, point: Point) -> bool:
    difference = node.operands[0] if isinstance(node, Apply) and node.name == "exp" else None
    if not (isinstance(difference, Apply) and difference.name == "sub"):
        return False
    return difference.operands == (point.elements, point.node)


def _keeps_factor(node: Node, depends: set[Node], scaled_nodes: set[Node]) -> bool:
    """Whether a node is a multiple of the exponential, given which of its operands are, and which depend on the maximum
    at all."""
    scaled = [operand in scaled_nodes for operand in node.operands]
    apart = [operand not in depends for operand in node.operands]
    if not all(a or s for a, s in zip(apart, scaled, strict=True)) or not depends.isdisjoint(node.reads):
        return False
    if isinstance(node, Select) or (isinstance(node, Apply) and node.name == "select"):
        *conditions, first, second = zip(node.operands, scaled, strict=True)
        return not any(s for _, s in conditions) and all(s or is_number(each, 0.0) for each, s in (first, second))
    if not isinstance(node, Apply):
        return False
    if node.name == "mul":
        return sum(scaled) == 1
    if node.name == "div":
        return scaled == [True, False]
    return node.name in ("neg", "cast", "add", "sub") and all(scaled) and node.dtype.is_float


# -- squares of distances to the mean ----------------------------------------------------------------------------


def _subtracted_mean(reduction: Reduce) -> Point | None:
    """The point m of a sum of squares of x - m, where it is computed from the sum of x over the same axes."""
    body = reduction.operands[0]
    if not isinstance(body, Apply) or body.name not in ("mul", "pow"):
        return None
    difference, other = body.operands
    is_square = other is difference if body.name == "mul" else is_number(other, 2.0)
    if not (is_square and isinstance(difference, Apply) and difference.name == "sub"):
        return None
    for x, subtracted in (difference.operands, difference.operands[::-1]):
        if subtracted.axes.isdisjoint(reduction.bound) and not x.axes.isdisjoint(reduction.bound):
            total = _only_reduction(subtracted)
            if total is not None and (total.kind, total.bound) == ("sum", reduction.bound) and total.operands[0] is x:
                return Point(total, subtracted)
    return None
