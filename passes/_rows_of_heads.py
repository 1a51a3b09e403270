"""Heads [B, H, S, D] that are views of rows [B, S, H*D], as products give them."""

from __future__ import annotations

from irc import dims
from irc.dims import Dim
from irc.index_map import compose, is_empty, transpose_map
from irc.ir import Value
from irc.ops import reshape, transpose
from irc.ops.view import map_of

HEADS_INWARDS = (0, 2, 1, 3)
LONGEST_CHAIN = 8  # views between a product and the heads


def is_view_of_rows(value: Value) -> bool:
    """Whether [B, H, S, D] is a view of [B, S, H*D], or of a reshape of it."""
    if is_empty(value.shape):
        return False
    view = transpose_map(value.shape, HEADS_INWARDS)
    for _ in range(LONGEST_CHAIN):
        maker = value.operation
        step = map_of(value) if maker is not None and maker.name in ("reshape", "transpose") else None
        composed = None if step is None else compose(view, step)
        if maker is None or composed is None:
            return False
        if composed.is_reshape:
            return True
        value, view = maker.inputs[0], composed
    return False


def heads_and_groups(q: Value, k: Value) -> tuple[int, int] | None:
    """How many heads queries and keys [B, H, S, D] have, where both numbers are known and none is 0."""
    heads, groups = q.shape[1], k.shape[1]
    if not isinstance(heads, int) or not isinstance(groups, int) or min(heads, groups) < 1:
        return None
    return heads, groups


def rows_of(value: Value) -> Value:
    """[B, H, S, D] as [B, S, H*D]; `canonicalize` finds what it is a view of."""
    inwards = transpose(value, permutation=HEADS_INWARDS)
    batch, length, heads, depth = inwards.shape
    return reshape(inwards, shape=(batch, length, dims.product((heads, depth))))


def heads_of(rows: Value, heads: int, depth: Dim) -> Value:
    """[B, S, H*D] as [B, H, S, D]."""
    batch, length, _ = rows.shape
    return transpose(reshape(rows, shape=(batch, length, heads, depth)), permutation=HEADS_INWARDS)
