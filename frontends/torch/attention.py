"""Rows of attention and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import BOOL, I32, I64, accumulator_of
from irc.frontends.torch.graph_importer import GraphImporter
from irc.frontends.torch.indexing import broadcast_shape, expanded
from irc.frontends.torch.reading import UNSUPPORTED, converted, known, unsupported, unused
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import reshaped
from irc.ir import Value


@reads("scaled_dot_product_attention")
def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
                                 enable_gqa=False):
    """Over the last two axes; those before them, the last of which are the heads, broadcast. With `enable_gqa` several
    heads of the query share one of the keys and values."""
    if dropout_p:
        unsupported("its dropout is random")
    return attention(query, key, value, attn_mask, scale, is_causal, enable_gqa)


def attention(query: Value, key: Value, value: Value, mask: Value | None, scale: Any, causal: bool,
              is_grouped: bool) -> Value:
    operands, lead = [query, key, value], query.shape[:-2]
    grouped = is_grouped and not known(query.shape[-3], key.shape[-3])
    if query.rank != 4 or not all(same_lead(query, other, grouped) for other in operands):
        fronts = [x.shape[: -3 if grouped else -2] for x in operands]
        rank = max(map(len, fronts))
        common = broadcast_shape([(1,) * (rank - len(front)) + front for front in fronts])
        leads = [(*common, x.shape[-3]) if grouped else common for x in operands]
        lead = leads[0]
        if mask is not None and len(lead) > 2:
            mask = in_four(mask, lead)
        operands = [in_four(x, lead_shape) for x, lead_shape in zip(operands, leads, strict=True)]
    result = ops.attention(*operands, mask, scale=scale, causal=causal, masked_rows="zero")
    return reshaped(result, (*lead, *result.shape[-2:]))


def same_lead(x: Value, other: Value, grouped: bool) -> bool:
    """Whether two operands of attention have the same axes in front, but for the heads where those are grouped."""
    ends = -3 if grouped else -2
    return x.rank == other.rank and all(map(known, x.shape[:ends], other.shape[:ends]))


def in_four(x: Value, lead: Sequence[Dim]) -> Value:
    """x, its last two axes after these, as a batch of heads."""
    batch, heads = dims.product(lead[:-1]), lead[-1] if lead else 1
    return reshaped(expanded(x, (*lead, *x.shape[-2:])), (batch, heads, *x.shape[-2:]))


# -- with functions of scores -----------------------------------------------------------------------------------------


def read_flex_attention(importer: GraphImporter, node: torch.fx.Node, query: Value, key: Value, value: Value,
                        score_graph: torch.fx.GraphModule, blocks: Sequence[Any], scale: float, options: Any,
                        score_operands: Sequence[Any] = (), mask_operands: Sequence[Any] = ()) -> Any:
    """Attention whose scores a graph changes, of which another says which are seen: both take one score and its places,
    and are read for all of them at once. Blocks only save work. The results are those of torch/_higher_order_ops:
    with the logarithms of sums to the base of 2, and the largest scores."""
    scores = Scores(query, key, None, scale, False)
    shape = (*query.shape[:3], key.shape[2])
    ranges = [tuple(size if axis == each else 1 for each, size in enumerate(shape)) for axis in range(4)]
    places = [ops.iota(shape=extents, axis=axis, dtype=I32) for axis, extents in enumerate(ranges)]
    (changed,) = importer.import_graph(score_graph, [ops.reshape(scores.masked(), shape=shape), *places,
                                                     *score_operands])
    (is_seen,) = importer.import_graph(blocks[-1], [*places, *mask_operands])
    if UNSUPPORTED in (changed, is_seen):
        return UNSUPPORTED
    changed = ops.select(is_seen, converted(changed, scores.wide), -math.inf)
    sums = ops.log_sum_exp(changed, axes=(3,), keep_dims=True)
    weights = ops.select(ops.equal(sums, -math.inf), 0.0, ops.exp(ops.sub(changed, sums)))
    product = ops.matmul(scores.by_group(weights), scores.shared(value))
    result = ops.reshape(product, shape=(*query.shape[:3], value.shape[3]))
    largest = ops.reduce_max(changed, axes=(3,))
    return converted(result, query.dtype), ops.div(reshaped(sums, query.shape[:3]), math.log(2)), largest


# -- with gradients ---------------------------------------------------------------------------------------------------


@reads("_scaled_dot_product_flash_attention_for_cpu")
def flash_attention(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    """The result, and for gradients the logarithms of the sums that divide the weights, [B, H, S]."""
    if dropout_p:
        unsupported("its dropout is random")
    result = attention(query, key, value, attn_mask, scale, is_causal, True)
    if unused(1):
        return result, None
    scores = Scores(query, key, attn_mask, scale, is_causal)
    sums = ops.log_sum_exp(scores.masked(), axes=(4,), keep_dims=False)
    return result, ops.reshape(sums, shape=query.shape[:3])


@reads("_scaled_dot_product_flash_attention_for_cpu_backward")
def flash_attention_backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None,
                             scale=None):
    """The gradients of query, key and value, whose weights are computed again."""
    if dropout_p:
        unsupported("its dropout is random")
    scores = Scores(query, key, attn_mask, scale, is_causal)
    sums = scores.by_group(ops.reshape(logsumexp, shape=(*logsumexp.shape, 1)))
    is_hidden = ops.equal(sums, -math.inf)  # a query that sees no key has no weights
    weights = ops.select(is_hidden, 0.0, ops.exp(ops.sub(scores.masked(), sums)))
    grad, result = scores.by_group(grad_out), scores.by_group(out)
    of_weights = ops.matmul(grad, transposed(scores.shared(value)))
    through = ops.reduce_sum(ops.mul(grad, result), axes=(4,), keep_dims=True)
    of_scores = ops.mul(ops.mul(weights, ops.sub(of_weights, through)), scores.scale)
    of_query = ops.matmul(of_scores, scores.key)
    of_key, of_value = (ops.reduce_sum(each, axes=(2,)) for each in (
        ops.matmul(transposed(of_scores), scores.query), ops.matmul(transposed(weights), grad)))
    return tuple(converted(reshaped(each, like.shape), like.dtype)
                 for each, like in ((of_query, query), (of_key, key), (of_value, value)))


class Scores:
    """What is added up by a softmax in attention, [B, G, R, S, T]: G heads of the keys, for R heads of the query each.
    Narrow floats are computed in f32."""

    def __init__(self, query: Value, key: Value, mask: Value | None, scale: float | None, causal: bool) -> None:
        self.groups = key.shape[1]
        self.wide = accumulator_of(query.dtype)
        self.scale: Any = ops.rsqrt(converted(query.shape[3], self.wide)) if scale is None else float(scale)
        self.mask, self.causal = mask, causal
        self.query, self.key = self.by_group(query), self.shared(key)

    def by_group(self, x: Value) -> Value:
        """Of [B, H, S, D] the heads by group."""
        batch, heads, *rest = x.shape
        shape = (batch, self.groups, dims.floor_divide(heads, self.groups), *rest)
        return ops.reshape(converted(x, self.wide), shape=shape)

    def shared(self, x: Value) -> Value:
        """[B, G, T, D] with an axis for the heads that share it."""
        return ops.reshape(converted(x, self.wide), shape=(*x.shape[:2], 1, *x.shape[2:]))

    def masked(self) -> Value:
        scores = ops.mul(ops.matmul(self.query, transposed(self.key)), self.scale)
        mask = self.mask
        if mask is not None:
            shape: tuple[Dim, ...] = (*(1,) * (4 - mask.rank), *mask.shape)
            grouped = (1, 1) if shape[1] == 1 else scores.shape[1:3]
            mask = expanded(mask, (shape[0], dims.product(grouped), *shape[2:]))
            mask = ops.reshape(mask, shape=(shape[0], *grouped, *shape[2:]))
            scores = (ops.select(mask, scores, -math.inf) if mask.dtype is BOOL
                      else ops.add(scores, converted(mask, self.wide)))
        if self.causal:
            row, column = (ops.iota(shape=scores.shape[3:], axis=axis, dtype=I64) for axis in (0, 1))
            scores = ops.select(ops.less_equal(column, row), scores, -math.inf)
        return scores


def transposed(x: Value) -> Value:
    """x with its last two axes exchanged."""
    return ops.transpose(x, permutation=(*range(x.rank - 2), x.rank - 1, x.rank - 2))
