"""Rows of matrix products by groups: of rows that belong to one expert each, as in mixtures of experts.

The ends of the groups are known only when a program runs: they are symbols, between which operands are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from irc import dims, ops
from irc.dims import Dim
from irc.frontends.torch.reading import bound, converted, result_dtype, scalar, unsupported
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import cut, reshaped
from irc.ir import Value
from irc.op import literal


@reads("_grouped_mm")
def grouped_product(self, mat2, offs=None, bias=None, out_dtype=None):
    """Groups of the rows, of the columns, or of what is summed, whichever of the operands has no axis for them."""
    if bias is not None:
        unsupported("it has a bias")
    if offs is None:
        result = ops.matmul(self, mat2)
    elif self.rank == 2 and mat2.rank == 3:
        result = by_rows(self, mat2, offs)
    elif self.rank == 3:
        parts = of_groups(offs, lambda index, start, stop: ops.matmul(matrix(self, index), cut(mat2, 1, start, stop)))
        result = joined(parts, 1, (self.shape[1], mat2.shape[1]))
    else:
        result = stacked(of_groups(offs, lambda index, start, stop: ops.matmul(
            cut(self, 1, start, stop), cut(mat2, 0, start, stop))))
    return converted(result, result_dtype())


@reads("transformers::grouped_mm_fallback")
def grouped_rows(input, weight, offs):
    return by_rows(input, weight, offs)


@reads("transformers::grouped_mm_fallback_backward")
def grouped_rows_backward(input, weight, offs, grad_output):
    of_weight = of_groups(offs, lambda index, start, stop: ops.matmul(
        ops.transpose(cut(input, 0, start, stop), permutation=(1, 0)), cut(grad_output, 0, start, stop)))
    return by_rows(grad_output, ops.transpose(weight, permutation=(0, 2, 1)), offs), stacked(of_weight)


def by_rows(x: Value, weights: Value, ends: Value) -> Value:
    """Rows [S, K] times the matrix of their group, of weights [G, K, N]; zeros for rows after the last end."""
    parts = of_groups(ends, lambda index, start, stop: ops.matmul(cut(x, 0, start, stop), matrix(weights, index)))
    return joined(parts, 0, (x.shape[0], weights.shape[2]))


def of_groups(ends: Value, product: Callable[[int, Dim, Dim], Value]) -> list[Value]:
    """What a function gives for each group and where it begins and ends; these grow."""
    count = ends.shape[0]
    if not isinstance(count, int):
        unsupported("how many groups there are is known only when it runs")
    places: list[Dim] = [0]
    for index in range(count):
        places.append(bound(scalar(cut(ends, 0, index, index + 1))))
    return [product(index, start, stop) for index, (start, stop) in enumerate(pairwise(places))]


def matrix(x: Value, index: int) -> Value:
    return reshaped(cut(x, 0, index, index + 1), x.shape[1:])


def stacked(parts: list[Value]) -> Value:
    return ops.concat(*(ops.reshape(part, shape=(1, *part.shape)) for part in parts), axis=0)


def joined(parts: list[Value], axis: int, shape: tuple[Dim, Dim]) -> Value:
    """The products one after the other, with zeros up to the shape."""
    rest = list(shape)
    rest[axis] = shape[axis] - dims.total(part.shape[axis] for part in parts)
    return ops.concat(*parts, ops.expand(literal(0, parts[0].dtype), shape=tuple(rest)), axis=axis)
