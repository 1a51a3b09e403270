"""Attention to cached keys and values: appending to the cache becomes part of the attention."""

from __future__ import annotations

from dataclasses import dataclass

from irc.index_map import same
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import cached_attention
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._rows_of_heads import heads_and_groups, heads_of, is_view_of_rows, rows_of
from irc.passes._taken import is_taken


@dataclass
class CachedAttention(Pass):
    """Replace an attention whose keys and values are appended to those of earlier steps by `cached_attention`.

    Benefit: ONNX Runtime's Attention with past_key and past_value takes the place of two concats, and of the views that
    take apart the heads of queries, keys and values: a step of a decoder with 4 layers and 128 cached tokens is 1.05
    times as fast. The new keys, values and the queries must be views of rows, and nothing but the attention and what
    the function returns may read the appended ones. A causal attention stays: it counts queries from the first key.

    Before: %k = concat %past_k, %new_k {axis = 2}; %v = concat %past_v, %new_v {axis = 2}; %y = attention %q, %k, %v
    After:  %rows, %k, %v = cached_attention %q_rows, %k_rows, %v_rows, %past_k, %past_v {heads = H, groups = G}; ...
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for operation in [each for each in module.walk() if each.name == "attention"]:
            k, v = (_appended(each, operation) for each in operation.inputs[1:3])
            if k is not None and v is not None and pays(context, "cached_attention", [operation]):
                count += _replaced(operation, k, v, context, module)
        context.count("cached_attention", "replaced", count)
        return count > 0


@dataclass(frozen=True)
class _Cache:
    """The concat of earlier keys or values and new ones, [B, G, P, D] and [B, G, T, D]."""

    concat: Operation
    past: Value
    new: Value


def _appended(value: Value, attention: Operation) -> _Cache | None:
    maker = value.operation
    if maker is None or maker.name != "concat" or len(maker.inputs) != 2 or maker.attributes["axis"] % 4 != 2:
        return None
    block = maker.block
    if block is None or block is not attention.block or set(value.users()) - {attention, block.terminator}:
        return None
    return _Cache(maker, *maker.inputs)


def _replaced(operation: Operation, k: _Cache, v: _Cache, context: PassContext, module: Module) -> bool:
    q, _, _, *masks = operation.inputs
    counts = heads_and_groups(q, k.new)
    if counts is None or not all(map(is_view_of_rows, (q, k.new, v.new))):
        return False
    heads, groups = counts
    attributes = dict(operation.attributes)
    if attributes.pop("causal") or k.concat is v.concat or not same(k.past.shape[2], v.past.shape[2]):
        return False
    with Builder.before_operation(operation, operation.location.by("cached_attention")):
        rows, keys, values = cached_attention(*map(rows_of, (q, k.new, v.new)), k.past, v.past, *masks, heads=heads,
                                              groups=groups, **attributes)  # fmt: skip
        if not is_taken(rows, context, module.edge_cases):
            return False
        operation.replace([heads_of(rows, heads, v.past.shape[3])])
    k.concat.replace([keys])
    v.concat.replace([values])
    return True
