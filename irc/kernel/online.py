"""Products of softmax weights in one pass, as in attention: maxima, sums and products that are accumulated together.

A softmax subtracts the maximum of a row before it exponentiates; sums and products of what that gives are carried
(`irc.kernel.carry`). Factors that are constant along the row, such as the division by the sum, are applied to what is
summed rather than to each weight (`irc.kernel.factors`). Both round elsewhere than the program says, within the class
`keeps_more_precision`. Start at `in_one_pass`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from irc import dims
from irc.dims import Dim, Symbol
from irc.kernel.carry import Point, at_numbers, carried, is_number
from irc.kernel.dag import Apply, Constant, Dot, Node, Reduce, Root, loops_of, products_of, reductions_of, walk
from irc.kernel.nest import Schedule
from irc.kernel.rules import (
    maximum_is_read_as_known,
    sums_are_of_the_softmax,
    weights_are_of_a_softmax,
    weights_that_may_be_nan_are_divided,
)


@dataclass(frozen=True)
class Online:
    """The reductions over a row that are accumulated together.

    point: what is subtracted from the scores of a row, of which the maximum is the carrier. sums: of multiples of their
    exponentials. product: of such with values. scores: the product that the scores are computed from, if there is one.
    """

    point: Point
    sums: tuple[Reduce, ...]
    product: Dot
    scores: Dot | None

    @property
    def maximum(self) -> Reduce:
        return self.point.carrier


def in_one_pass(roots: Sequence[Root]) -> Online:
    """The reductions that are accumulated together, where constant factors are outside of the product; raises
    `LegalityFailure` (rule F17) where the weights are no softmax."""
    products = products_of(roots)
    product = products[-1]
    scores = products_of((product.operands[0],))
    others = [node for node in products if node not in (product, *scores)]
    others += products_of((product.operands[1],))
    point = carried(product)
    below = [node.label for node in loops_of(roots)]
    read = next((name for name in below if name != product.label), product.label)
    weights_are_of_a_softmax(point is not None and not others and len(scores) <= 1, product.label, read)
    assert point is not None
    reductions = [node for node in reductions_of(roots) if node is not point.carrier]
    for node in reductions:
        sums_are_of_the_softmax(node.bound == product.bound and carried(node) == point, node.label)
    if not reductions or point.highest:
        maximum_is_read_as_known(reads_of_the_maximum(roots, point), point.carrier.label)
    online = Online(point, tuple(reductions), product, scores[0] if scores else None)
    accumulated: tuple[Reduce | Dot, ...] = (product, *reductions)
    hidden = [node for node in accumulated if (each := carried(node)) is not None and each.hides]
    weights_that_may_be_nan_are_divided(hidden if read_alone(roots, online) else ())
    return online


def reads_of_the_maximum(roots: Sequence[Root], point: Point) -> Iterator[bool]:
    """Of what else reads the maximum, whether it is the same where that is inf and where it is NaN."""
    of_maximum: set[Node] = {point.carrier}
    computed = point.computed
    for node in walk(roots):
        read = [operand for operand in node.operands if operand in of_maximum]
        if not read or node in computed or node.operands == (point.elements, point.node):
            continue
        others = [operand for operand in node.operands if operand not in of_maximum]
        if not isinstance(node, Root) and all(isinstance(other, Constant) for other in others):
            of_maximum.add(node)
            continue
        for each in read:
            numbers = at_numbers(each, point.carrier, np.array([np.inf, np.nan]))
            yield numbers is not None and np.array_equal(numbers[:1], numbers[1:], equal_nan=True)


def read_alone(roots: Sequence[Root], online: Online) -> list[Node]:
    """What is accumulated and read otherwise than as the product over the sum, which is NaN where both are 0."""
    accumulated = (*online.sums, online.product)
    quotients = {(online.product, total) for total in online.sums}
    results = [operand for node in walk(roots) for operand in node.operands if operand in accumulated
             and not (isinstance(node, Apply) and node.name == "div" and node.operands in quotients)]  # fmt: skip
    return list(dict.fromkeys(results))


def last_visible(online: Online, schedule: Schedule) -> Dim | None:
    """The largest t - s for which row s, along the last axis of the rows, may have a visible key t, by comparisons of
    indices that select -inf: after the row s + that, a loop over keys has nothing to add. None where the scores do not
    say so."""
    rows, keys = schedule.rows, schedule.columns
    node = online.maximum.operands[0]
    while isinstance(node, Apply) and node.name == "select" and is_number(node.operands[2], -np.inf):
        difference = _upper_bound(node.operands[0])
        if difference is not None and rows is not None and keys is not None and len(keys.axes) == 1:
            rest = difference - keys.axes[0].expr + rows.axes[-1].expr
            if all(isinstance(atom, Symbol) for atom in dims.free_atoms(rest)):
                return -rest
        node = node.operands[1]
    return None


def _upper_bound(condition: Node) -> Dim | None:
    """An index expression that is at most 0 where the condition, a comparison of two indices, holds."""
    if not isinstance(condition, Apply) or len(condition.operands) != 2:
        return None
    left, right = (operand.as_index for operand in condition.operands)
    if left is None or right is None:
        return None
    return {"less_equal": left - right, "less": left - right + 1, "greater_equal": right - left,
            "greater": right - left + 1}.get(condition.name)  # fmt: skip
