"""Softmax weights of rows in which keys are hidden, in the forms that kernels with products compute.

    is_nan(exp(x - max) / sum)                     is_nan(sum), which is constant along the row
    where(max == -inf, 0, exp(x - max) / sum)      exp(x - where(max == -inf, 0, max)) / where(max == -inf, 1, sum)
    x + where(is_seen, 0, -inf)                    where(is_seen, x, x + -inf)
    x + where(key <= query, 0, -inf)               where(key <= query, x, -inf)

The first three are the same for all numbers. By the second the product of a row that sees no key is a sum of multiples
of 0, as it is where weights are computed before they are multiplied: NaN where a value is. The third is for masks that
are the same for all queries, as those of padding are: ptxas spills 8 bytes of the sum on sm_100. By the last a score
that places alone hide has no effect where it is NaN or infinite, as in causal attention, so that blocks of such scores
are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from irc.kernel.carry import Point, at_numbers, exponent, is_number
from irc.kernel.dag import Apply, Constant, Graph, Node, Reduce, indices_compared, products_of


def of_row(node: Node, graph: Graph) -> Node:
    """The node in the form that a kernel computes."""
    if not isinstance(node, Apply):
        return node
    if node.name == "is_nan":
        return _whether_nan(node, graph)
    if node.name == "select" and is_number(node.operands[1], 0.0):
        return _unless_hidden(node, graph)
    return _masked(node, graph) if node.name == "add" else node


def _whether_nan(node: Apply, graph: Graph) -> Node:
    """Of a weight: the sum is at least 1, or NaN where the maximum is infinite or NaN, and then all weights are NaN."""
    weight = _weight(node.operands[0])
    return graph(node.over(operands=(weight.total,))) if weight is not None and weight.point.highest else node


def _unless_hidden(node: Apply, graph: Graph) -> Node:
    """Of weights that are 0 in rows of -inf: with a point and a sum that are finite there."""
    is_hidden, _, selected = node.operands
    weight = _weight(selected)
    if weight is None or weight.point.lowest != -np.inf or not weight.point.highest:
        return node
    point, total = weight.point, weight.total
    tested = at_numbers(is_hidden, point.carrier, np.array([-np.inf, -1.0, 1.0, np.inf, np.nan]))
    if tested is None or tested.tolist() != [True, False, False, False, False]:
        return node

    def shown(number: float, other: Node) -> Node:
        constant = graph(Constant(other.dtype, value=other.dtype.numpy.type(number)))
        return graph(Apply(other.dtype, (is_hidden, constant, other), hint=node.hint, name="select"))

    difference = weight.exponential.operands[0].over(operands=(point.elements, shown(0.0, point.node)))
    exponential = graph(weight.exponential.over(operands=(graph(difference),)))
    total = graph(total.over(operands=(exponential,)))
    result = graph(weight.quotient.over(operands=(exponential, shown(1.0, total))))
    for cast in reversed(_casts(selected)):
        result = graph(cast.over(operands=(result,)))
    return result


def _masked(node: Apply, graph: Graph) -> Node:
    """Of scores to which 0 or -inf is added."""
    for mask, scores in (node.operands, node.operands[::-1]):
        if isinstance(mask, Apply) and mask.name == "select" and not mask.loops:
            is_seen, zero, lowest = mask.operands
            if is_number(zero, 0.0) and is_number(lowest, -np.inf):
                if indices_compared(is_seen):
                    return graph(mask.over(operands=(is_seen, scores, lowest)))
                if all(product.rows.isdisjoint(mask.axes) for product in products_of((scores,))):
                    hidden = graph(node.over(operands=(scores, lowest)))
                    return graph(mask.over(operands=(is_seen, scores, hidden)))
    return node


class _Weight(NamedTuple):
    """A weight of a softmax, and what is subtracted before it is exponentiated."""

    quotient: Apply
    exponential: Node
    total: Node
    point: Point


def _weight(node: Node) -> _Weight | None:
    """The node without its roundings, where it is a weight."""
    for cast in _casts(node):
        (node,) = cast.operands
    if not (isinstance(node, Apply) and node.name == "div"):
        return None
    exponential, total = node.operands
    point = exponent(exponential)
    is_sum = isinstance(total, Reduce) and total.kind == "sum" and total.operands[0] is exponential
    if point is None or not is_sum or point.carrier.bound != total.bound:  # type: ignore[attr-defined]
        return None
    return _Weight(node, exponential, total, point)


def _casts(node: Node) -> list[Apply]:
    """The roundings of a node, the last one first."""
    casts = []
    while isinstance(node, Apply) and node.name == "cast" and node.operands[0].dtype.is_float:
        casts.append(node)
        (node,) = node.operands
    return casts
