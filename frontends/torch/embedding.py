"""Rows of embeddings: rows of a table, bags of them, and tables whose rows are kept short."""

from __future__ import annotations

import math

from irc import dims, ops
from irc.dtypes import I64
from irc.frontends.torch.indexing import with_slices
from irc.frontends.torch.normalization import vector_norm
from irc.frontends.torch.reading import converted, unsupported, unused
from irc.frontends.torch.reduction import searched
from irc.frontends.torch.table import reads
from irc.op import literal


@reads("embedding")
def embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    return ops.gather(weight, indices, axis=0, bounds="positive")


@reads("embedding_renorm")
def embedding_renorm(self, indices, max_norm, norm_type):
    """The table with the rows that are named made as short as `max_norm`, where they are longer."""
    norm = vector_norm.function(self, float(norm_type), [1], True)
    factor = ops.div(float(max_norm), ops.add(norm, 1e-7))
    is_long = ops.greater(norm, float(max_norm))
    flat = ops.reshape(indices, shape=(indices.type.elements,))
    zeros = ops.expand(literal(0, I64), shape=(self.shape[0], 1))
    is_named = ops.equal(with_slices(zeros, 0, flat, 1, "none"), 1)
    return ops.select(ops.bitwise_and(is_long, is_named), ops.mul(self, factor), self)


@reads("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(weight, indices, offsets, scale_grad_by_freq=False, mode=0, sparse=False, per_sample_weights=None,
                  include_last_offset=False, padding_idx=-1):
    """Sums, means or maxima (modes 0, 1, 2) of the rows of bags, which begin at `offsets`. Of the other results, those
    from which gradients are computed, there are the bag of each index, and how many rows each bag has."""
    if not unused(3):
        unsupported("which of the rows have the maxima is read")
    places = converted(indices, I64)
    count, width = places.shape[0], weight.shape[1]
    bags = offsets.shape[0] - 1 if include_last_offset else offsets.shape[0]
    number = ops.iota(shape=(count,), axis=0, dtype=I64)
    bag = ops.sub(searched(converted(offsets, I64), number, False, True), 1)
    bag = ops.minimum(bag, ops.sub(converted(dims.maximum(bags, 1), I64), 1))
    rows = ops.gather(weight, places, axis=0, bounds="positive")
    if per_sample_weights is not None:
        rows = ops.mul(rows, ops.reshape(per_sample_weights, shape=(count, 1)))
    kept = ops.not_equal(places, padding_idx if padding_idx >= 0 else -1)
    sizes = with_slices(ops.expand(literal(0, I64), shape=(bags,)), 0, bag, converted(kept, I64), "add")
    column, lengths = ops.reshape(kept, shape=(count, 1)), ops.reshape(sizes, shape=(bags, 1))
    start = -math.inf if mode == 2 else 0
    empty = ops.expand(literal(start, weight.dtype), shape=(bags, width))
    rows = ops.select(column, rows, literal(start, weight.dtype))
    result = with_slices(empty, 0, bag, rows, "max" if mode == 2 else "add")
    if mode == 1:
        result = ops.div(result, converted(ops.maximum(lengths, 1), weight.dtype))
    if mode == 2:
        result = ops.select(ops.equal(lengths, 0), literal(0, weight.dtype), result)
    return result, bag, sizes, None
