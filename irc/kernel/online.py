"""Products of softmax weights in one pass, as in attention: maxima, sums and products that are accumulated together.

A softmax subtracts the maximum c of a row before it exponentiates, and c is known after the whole row only. What is
summed over the row depends on c through a factor exp(-c) alone, so that it can be summed beside the maximum so far, c',
and multiplied by exp(c' - c'') where a larger maximum c'' is found (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018). Factors that are constant along the row, such as the division by the sum, are applied
to what is summed rather than to each weight (`_constant_factors`). Both round elsewhere than the program says, within
the class `keeps_more_precision`. Start at `in_one_pass`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irc import dims
from irc.dims import Dim, Symbol, Variable
from irc.kernel.dag import Apply, Constant, Dot, Graph, Node, Reduce, Root, walk
from irc.kernel.nest import Schedule
from irc.kernel.rules import LegalityFailure


@dataclass(frozen=True)
class Online:
    """The reductions over a row that are accumulated together.

    maximum: of the scores of a row. sums: of their exponentials. product: of these with values. scores: the product
    that the scores are computed from, if there is one.
    """

    maximum: Reduce
    sums: tuple[Reduce, ...]
    product: Dot
    scores: Dot | None


def with_constant_factors_outside(roots: Sequence[Root]) -> tuple[Root, ...]:
    """The roots with constant factors of the last product's first operand applied to the product."""
    product = [node for node in walk(roots) if isinstance(node, Dot)][-1]
    weights, factors = _constant_factors(product)
    graph = Graph()
    result = graph(product.over(operands=(weights, product.operands[1])))
    for factor in reversed(factors):
        place = _varying_operand(factor, set(product.bound))
        operands = [result if number == place else operand for number, operand in enumerate(factor.operands)]
        result = graph(factor.over(operands=tuple(operands)))
    return replaced(roots, {product: result})


def _constant_factors(product: Dot) -> tuple[Node, list[Apply]]:
    """The first operand without what is constant along the summed axes: divisions and products by numbers of the row,
    selections of 0 for whole rows, and roundings, which the product does again. The outermost comes first."""
    node, factors, summed = product.operands[0], list[Apply](), set(product.bound)
    while isinstance(node, Apply):
        if node.name == "cast" and node.dtype.is_float and node.operands[0].dtype is node.dtype:
            node = node.operands[0]
            continue
        place = _varying_operand(node, summed)
        if place is None:
            break
        factors.append(node)
        node = node.operands[place]
    return node, factors


def _varying_operand(node: Apply, summed: Collection[Variable]) -> int | None:
    """The operand of which the node is a multiple, by a factor that is constant along the summed axes; None for a node
    of another kind."""
    is_constant = [operand.axes.isdisjoint(summed) for operand in node.operands]
    if node.name == "div" and is_constant == [False, True]:
        return 0
    if node.name == "mul" and sum(is_constant) == 1:
        return is_constant.index(False)
    if node.name == "select" and is_constant == [True, True, False] and _is_number(node.operands[1], 0.0):
        return 2
    if node.name == "select" and is_constant == [True, False, True] and _is_number(node.operands[2], 0.0):
        return 1
    return None


def _is_number(node: Node, number: float) -> bool:
    return isinstance(node, Constant) and bool(node.value == number)


def replaced(roots: Sequence[Root], nodes: Mapping[Node, Node]) -> tuple[Root, ...]:
    """The roots with some nodes replaced by others."""
    graph = Graph()
    new: dict[Node, Node] = dict(nodes)
    for node in walk(roots):
        if node not in new:
            operands = tuple(new[operand] for operand in node.operands)
            new[node] = node if operands == node.operands else graph(node.over(operands=operands))
    return tuple(new[root] for root in roots)  # type: ignore[misc]


def in_one_pass(roots: Sequence[Root]) -> Online:
    """The reductions that are accumulated together, where constant factors are outside of the product; raises
    `LegalityFailure` (rule F17) where the weights are no softmax."""
    products = [node for node in walk(roots) if isinstance(node, Dot)]
    product, exponential = products[-1], products[-1].operands[0]
    scores = [node for node in walk((exponential,)) if isinstance(node, Dot)]
    others = [node for node in products if node not in (product, *scores)]
    maximum = _subtracted_maximum(exponential, product)
    if maximum is None or others or len(scores) > 1 or any(isinstance(n, Dot) for n in walk((product.operands[1],))):
        (read, *_) = (node for node in walk(roots) if isinstance(node, (Dot, Reduce)))
        message = f"%{product.hint} multiplies what is computed from %{read.hint}, and that is no softmax"
        raise LegalityFailure("F17", message, (product.hint, read.hint))
    reductions = [node for node in walk(roots) if isinstance(node, Reduce) and node is not maximum]
    for node in reductions:
        if node.bound != product.bound or node.kind != "sum" or node.operands[0] is not exponential:
            raise LegalityFailure("F17", f"%{node.hint} is reduced beside a softmax", (node.hint,))
    for user in walk(roots):
        uses_maximum = maximum in user.operands and user is not exponential.operands[0]
        if uses_maximum and not (isinstance(user, Apply) and user.name == "equal"
                                 and any(_is_number(operand, -np.inf) for operand in user.operands)):  # fmt: skip
            raise LegalityFailure("F17", f"%{maximum.hint} is read beside a softmax", (maximum.hint,))
    return Online(maximum, tuple(reductions), product, scores[0] if scores else None)


def _subtracted_maximum(exponential: Node, product: Dot) -> Reduce | None:
    """The maximum c of exp(x - c), where it is that of x along the summed axes."""
    if not (isinstance(exponential, Apply) and exponential.name == "exp"):
        return None
    difference = exponential.operands[0]
    if not (isinstance(difference, Apply) and difference.name == "sub"):
        return None
    x, maximum = difference.operands
    is_maximum = isinstance(maximum, Reduce) and maximum.kind == "max" and maximum.operands[0] is x
    return maximum if is_maximum and maximum.bound == product.bound else None  # type: ignore[return-value, attr-defined]


def last_visible(online: Online, schedule: Schedule) -> Dim | None:
    """The largest t - s for which row s may have a visible key t, by comparisons of indices that select -inf: after the
    row s + that, a loop over keys has nothing to add. None where the scores do not say so."""
    rows, keys = schedule.rows, schedule.columns
    node = online.maximum.operands[0]
    while isinstance(node, Apply) and node.name == "select" and _is_number(node.operands[2], -np.inf):
        difference = _upper_bound(node.operands[0])
        if difference is not None and rows is not None and keys is not None and len(rows.axes) == len(keys.axes) == 1:
            rest = difference - keys.axes[0].expr + rows.axes[0].expr
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
