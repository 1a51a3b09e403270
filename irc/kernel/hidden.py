"""Softmax of rows in which keys are hidden, in the forms that kernels with products compute.

    is_nan(exp(x - max) / sum)                     is_nan(sum), which is constant along the row
    where(max == -inf, 0, exp(x - max) / sum)      exp(x - where(max == -inf, 0, max)) / where(max == -inf, 1, sum)
    x + where(is_seen, 0, -inf)                    where(is_seen, x, x + -inf)
    x + where(key <= query, 0, -inf)               where(key <= query, x, -inf)

In the first three forms the softmax is the same for all numbers. By the second the weights of a row without a visible
key are 0 by themselves, so that their product with the values is 0, or NaN where a value is NaN or infinite. The third
is for masks that are the same for all queries, as those of padding are, or for all heads: of the sum ptxas spills 8
bytes on sm_100 there, and of the selection for other masks. By the fourth a score that a comparison of indices hides
has no effect where it is NaN or infinite, as in causal attention, so that blocks of such scores are skipped. The last
two are forms of operands of a softmax alone, the `masked_scores`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from irc.kernel.carry import Point, at_numbers, exponent, is_number
from irc.kernel.dag import Apply, Constant, Dot, Graph, Node, Reduce, Root, indices_compared, products_of, walk


def masked_scores(roots: Sequence[Root]) -> set[Node]:
    """What the exponentials of a softmax are computed from and nothing else: their operands, and what these are where a
    mask is added or selects. What a mask hides matters there by its exponential alone."""
    nodes = walk(roots)
    uses = Counter(read for node in nodes for read in node.below)
    scores: set[Node] = set()
    for node in nodes:
        point = exponent(node)
        below = [] if point is None or uses[point.elements] > 2 else [point.elements]  # the maximum and the difference
        while below:
            score = below.pop()
            scores.add(score)
            if isinstance(score, Apply) and score.name in ("add", "select", "cast"):
                below += [operand for operand in score.operands if operand.loops and uses[operand] == 1]
    return scores


def canonical_form(node: Node, graph: Graph, is_score: bool) -> Node:
    """The node in the form that a kernel computes; `is_score` where it is one of the `masked_scores`."""
    if not isinstance(node, Apply):
        return node
    if node.name == "is_nan":
        return _whether_nan(node, graph)
    if node.name == "select" and is_number(node.operands[1], 0.0):
        return _unless_hidden(node, graph)
    return _masked(node, graph) if is_score and node.name == "add" else node


def _whether_nan(node: Apply, graph: Graph) -> Node:
    """Whether a weight is NaN, as whether the sum of its row is: that is at least 1, or NaN where the maximum is
    infinite or NaN, and then all weights are NaN."""
    weight = _weight(node.operands[0])
    return graph(node.over(operands=(weight.total,))) if weight is not None and weight.point.highest else node


def _unless_hidden(node: Apply, graph: Graph) -> Node:
    """Weights that are 0 in rows of -inf, by a point and a sum that are finite there."""
    is_hidden, _, selected = node.operands
    weight = _weight(selected)
    if weight is None or weight.point.lowest != -np.inf or not weight.point.highest:
        return node
    point, total = weight.point, weight.total
    tested = at_numbers(is_hidden, point.carrier, np.array([-np.inf, -1.0, 1.0, np.inf, np.nan]))
    if tested is None or tested.tolist() != [True, False, False, False, False]:
        return node

    def unless_hidden(number: float, other: Node) -> Node:
        constant = graph(Constant(other.dtype, value=other.dtype.numpy.type(number)))
        return graph(Apply(other.dtype, (is_hidden, constant, other), hint=node.hint, name="select"))

    difference = weight.exponential.operands[0].over(operands=(point.elements, unless_hidden(0.0, point.node)))
    exponential = graph(weight.exponential.over(operands=(graph(difference),)))
    total = graph(total.over(operands=(exponential,)))
    result = graph(weight.quotient.over(operands=(exponential, unless_hidden(1.0, total))))
    for cast in reversed(_casts(selected)):
        result = graph(cast.over(operands=(result,)))
    return result


def _masked(node: Apply, graph: Graph) -> Node:
    """Scores to which a mask of 0 and -inf is added, by selections."""
    for mask, scores in (node.operands, node.operands[::-1]):
        if isinstance(mask, Apply) and mask.name == "select" and not mask.loops:
            is_seen, zero, lowest = mask.operands
            if is_number(zero, 0.0) and is_number(lowest, -np.inf):
                if indices_compared(is_seen):
                    return graph(mask.over(operands=(is_seen, scores, lowest)))
                if all(_is_shared(mask, product) for product in products_of((scores,))):
                    hidden = graph(node.over(operands=(scores, lowest)))
                    return graph(mask.over(operands=(is_seen, scores, hidden)))
    return node


def _is_shared(mask: Node, product: Dot) -> bool:
    """Whether a mask is the same for all queries, or for all matrices of a batch."""
    batch = product.axes - product.rows - product.columns
    return product.rows.isdisjoint(mask.axes) or batch.isdisjoint(mask.axes)


class _Weight(NamedTuple):
    """A weight of a softmax, and what is subtracted before it is exponentiated."""

    quotient: Apply
    exponential: Node
    total: Node
    point: Point


def _weight(node: Node) -> _Weight | None:
    """A node as a weight, without its roundings; None where it is none."""
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
