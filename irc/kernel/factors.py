"""Factors of products: what is constant along the axes that a product is summed over is applied to the product.

In the product of normalized rows with a matrix, each element of a row is divided by the same number, the root of the
mean square of the row. The product of the rows as they are, divided by that number, is the same, but for rounding. So
the number need not be known before the product is summed, and both are computed in one pass over the row
(`irc.kernel.product_schedule`). The weights of a softmax are divided by their sum in the same way
(`irc.kernel.online`). Start at `with_factors_outside`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from irc import constants, dims
from irc.dims import Variable
from irc.dtypes import DType
from irc.index_map import Guard
from irc.interfaces import identity
from irc.kernel.carry import exponent, is_number
from irc.kernel.dag import Apply, Constant, Dot, Graph, Load, Node, Reduce, Root, Select, products_of, walk
from irc.kernel.floats8 import stored_in_8_bits
from irc.kernel.hidden import canonical_form, masked_scores
from irc.kernel.rules import products_stay_in_range
from irc.ops import lookup

MULTIPLES = frozenset({"mul", "div", "neg", "select", "cast"})  # operations that may have a factor of an operand


class Factored(NamedTuple):
    """A node as a `rest` to which pointwise operations are applied whose other operands are constant along the summed
    axes: each with the position of its operand that varies, the first to be applied first."""

    rest: Node
    factors: tuple[tuple[Apply, int], ...] = ()


def with_factors_outside(roots: Sequence[Root]) -> tuple[Root, ...]:
    """The roots with factors of operands of products applied to the products instead: those of operands that depend on
    reductions; raises `LegalityFailure` (rule F13). Where none does, also those of operands of 16 bits, and of floats
    that are stored in 8, which are then multiplied as they are stored: the scales of the channels of int8 weights."""
    needed = multiplies_what_is_computed(roots)
    scores = masked_scores(roots) if needed else set()
    graph = Graph()
    new: dict[Node, Node] = {}
    for node in walk(roots, through=lambda node: bool(node.loops)):
        operands = tuple([new.get(operand, operand) for operand in node.operands])
        kept = graph.changed(node, operands=operands)
        if isinstance(kept, Dot):
            kept = _with_factors_outside(kept, graph, needed)
        new[node] = canonical_form(kept, graph, node in scores) if needed else kept
    return tuple(new[root] for root in roots)  # type: ignore[misc]


def multiplies_what_is_computed(roots: Sequence[Root]) -> bool:
    """Whether an operand of a product depends on another product, or on a reduction."""
    return any(operand.loops for product in products_of(roots) for operand in product.operands)


def _with_factors_outside(product: Dot, graph: Graph, needed: bool) -> Node:
    bound, operands, factors = frozenset(product.bound), list(product.operands), list[tuple[Apply, int]]()
    is_narrow = product.fed.bits < 32 or all(
        stored_in_8_bits(factored(operand, bound, graph).rest) for operand in operands)  # fmt: skip
    for side, operand in enumerate(product.operands):
        if operand.loops if needed else is_narrow:
            while isinstance(operand, Apply) and operand.rounds_to is product.fed:
                operand = operand.operands[0]  # the product rounds its operands
            parts = factored(operand, bound, graph)
            in_range = not parts.factors or is_in_range(parts.rest, product.fed)
            if needed:
                products_stay_in_range(in_range, product)
            keeps_axes = parts.rest.axes - bound == operand.axes - bound
            if in_range and keeps_axes and (needed or parts.factors):
                operands[side] = parts.rest
                factors += parts.factors
    if tuple(operands) == product.operands:
        return product
    result = graph(product.over(operands=tuple(operands)))
    for factor, position in factors:
        result = graph(factor.over(operands=_with(factor.operands, position, result)))
    # A sum over an empty axis is 0, whatever its factors are: those of an empty row are often NaN.
    tested = bool(factors) and not is_zero_of_nothing(result, bound)
    extents = [axis.extent for axis in product.bound if dims.less(0, axis.extent) is not True] if tested else []
    guards = tuple(Guard(0, extent) for extent in dict.fromkeys(extents))
    zero = graph(Constant(result.dtype, value=np.zeros((), result.dtype.numpy)[()]))
    return graph(Select(result.dtype, (result, zero), 0, guards, result.hint))


def is_zero_of_nothing(result: Node, bound: frozenset[Variable]) -> bool:
    """Whether a node is 0 where what is reduced over the `bound` axes has no elements, as of attention that gives 0 for
    rows without a visible key."""
    known: dict[Node, Any] = {}
    for node in walk((result,), through=lambda node: not isinstance(node, (Dot, Reduce))):
        known[node] = None
        if isinstance(node, Constant):
            known[node] = node.value
        elif isinstance(node, (Dot, Reduce)) and frozenset(node.bound) == bound:
            known[node] = identity("sum" if isinstance(node, Dot) else node.kind, node.dtype)
        elif isinstance(node, Apply):
            operands = [known[operand] for operand in node.operands]
            if node.name == "select" and operands[0] is not None:
                known[node] = operands[1] if operands[0] else operands[2]
            elif not any(operand is None for operand in operands):
                numbers = list(map(np.asarray, operands))
                results = constants.of_numbers(lookup(node.name), numbers, dict(node.attributes))
                known[node] = None if results is None else results[0][()]
    return known[result] is not None and bool(known[result] == 0)


def factored(operand: Node, bound: frozenset[Variable], graph: Graph) -> Factored:
    """The operand without factors that are constant along the `bound` axes: numbers that it is divided by or
    multiplied with, and selections of 0. A rounding of what has factors is left out: the product rounds its operands.
    """
    known: dict[Node, Factored] = {}
    for node in walk((operand,), through=lambda node: isinstance(node, Apply) and node.name in MULTIPLES):
        known[node] = _factored(node, bound, known, graph) if isinstance(node, Apply) else Factored(node)
    return known[operand]


def _factored(node: Apply, bound: frozenset[Variable], known: dict[Node, Factored], graph: Graph) -> Factored:
    varying = [position for position, each in enumerate(node.operands) if not each.axes.isdisjoint(bound)]
    position = _multiple_of(node, varying)
    if position is not None:
        inner = known[node.operands[position]]
        return Factored(inner.rest, (*inner.factors, (node, position)))
    is_rounding = node.name == "cast" and node.dtype.is_float and node.operands[0].dtype is node.dtype
    if is_rounding and known[node.operands[0]].factors:
        return known[node.operands[0]]
    if (node.name == "mul" and varying == [0, 1]) or (node.name in ("div", "neg") and 0 in varying):
        parts = [known[each] if node.name == "mul" or not number else Factored(each)
                 for number, each in enumerate(node.operands)]  # fmt: skip
        factors = tuple(factor for part in parts for factor in part.factors)
        rest = graph(node.over(operands=tuple(part.rest for part in parts))) if factors else node
        return Factored(rest, factors)
    return Factored(node)


def _multiple_of(node: Apply, varying: Sequence[int]) -> int | None:
    """The position of the operand of which the node is a multiple, if the others are constant along what is summed."""
    if len(varying) != 1 or not node.dtype.is_float:
        return None
    if (node.name == "div" and varying == [0]) or node.name == "mul":
        return varying[0]
    if node.name == "select" and varying != [0] and is_number(node.operands[3 - varying[0]], 0.0):
        return varying[0]
    return None


def is_in_range(rest: Node, fed: DType) -> bool:
    """Whether what is multiplied without its factors is in the range of the type in which it is multiplied: that of
    f32 and bf16 is as large as the one it is computed in. Of f16, elements as they are stored and exponentials less
    their maximum are, and products of such exponentials with what is."""
    while isinstance(rest, Apply) and rest.name in ("neg", "cast", "mul"):
        others = [each for each in rest.operands if rest.name != "mul" or exponent(each) is None]
        if len(others) != 1:
            break
        rest = others[0]
    if isinstance(rest, Load) and (rest.buffer.dtype is fed or rest.buffer.dtype.bits <= 8):
        return True
    return fed.name != "f16" or exponent(rest) is not None


def _with(operands: tuple[Node, ...], position: int, operand: Node) -> tuple[Node, ...]:
    return *operands[:position], operand, *operands[position + 1 :]
