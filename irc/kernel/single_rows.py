"""Products of one row in attention: one query with as many heads as the keys have.

A sum of products of a vector and a matrix is a `Reduce`. The scores of one query and what is computed of them would be
two, over different axes, which no loop over one of them computes. As products with a row they are those of several
queries: the vector gets an axis of one element, which a block of rows covers. Start at `with_single_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from irc import dims
from irc.dims import Variable
from irc.index_map import ROW
from irc.kernel.dag import Graph, Load, Node, Reduce, Root, Store, loops_of, walk

SINGLE = Variable("r", 1, (ROW,))


def with_single_rows(roots: Sequence[Root]) -> tuple[tuple[Root, ...], tuple[Variable, ...]]:
    """The roots with an axis of one element as rows of their products, and that axis, where one of one row multiplies
    the weights of a softmax; else the roots."""
    sums = [node for node in loops_of(roots) if isinstance(node, Reduce) and node.product is not None]
    nodes = walk(roots, through=lambda node: bool(node.loops))
    if not any(map(_multiplies_weights, sums)) or any(read.loops for node in nodes for read in node.reads):
        return tuple(roots), ()
    graph, new = Graph(), dict[Node, Node]()
    for node in nodes:
        if isinstance(node, Reduce) and node.product is not None:
            vector, matrix = (new.get(operand, operand) for operand in node.product.operands)
            if SINGLE not in vector.axes:
                vector = _over_rows(vector, node.product.bound, graph)
            if SINGLE not in vector.axes:  # it loads nothing: the same for all queries, or computed from indices
                return tuple(roots), ()
            new[node] = graph(replace(node.product, operands=(vector, matrix)))
        else:
            changes: dict[str, Any] = {"operands": tuple(new.get(operand, operand) for operand in node.operands)}
            if isinstance(node, Store) and any(SINGLE in operand.axes for operand in changes["operands"]):
                changes["index"] = node.index + SINGLE.expr * (node.buffer.shape[-1] if node.buffer.rank else 1)
            new[node] = graph.changed(node, **changes)
    return tuple(new[root] for root in roots), (SINGLE,)  # type: ignore[misc]


def _multiplies_weights(node: Reduce) -> bool:
    """Whether the vector that a sum multiplies is computed of its own maximum, as weights of a softmax are."""
    assert node.product is not None
    loops = node.product.operands[0].loops
    return any(isinstance(each, Reduce) and each.kind == "max" and each.bound == node.bound for each in loops)


def _over_rows(vector: Node, bound: tuple[Variable, ...], graph: Graph) -> Node:
    """The vector as a matrix of one row: loads of its elements vary over the row, in steps of its length."""
    length = dims.product(axis.extent for axis in bound)
    new: dict[Node, Node] = {}
    for node in walk((vector,)):
        changes: dict[str, Any] = {"operands": tuple(new[operand] for operand in node.operands)}
        if isinstance(node, Load) and not node.axes.isdisjoint(bound):
            changes["index"] = node.index + SINGLE.expr * length
        new[node] = graph.changed(node, **changes)
    return new[vector]
