"""Grouped heads: attention reads keys and values that several heads share once, not repeated for each head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irc import dims
from irc.index_map import IndexMap, axes, compose, identity_map, same
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import attention
from irc.ops.view import map_of
from irc.pass_manager import Pass, PassContext
from irc.rewrite import erase_dead


@dataclass
class GroupedHeads(Pass):
    """Give attention the keys and values from which views have repeated its heads.

    Both must be repeated alike: head h is head h // r of what is repeated r times.

    Before: %e = expand %k {shape = [B, G, R, T, D]}; %r = reshape %e {shape = [B, H, T, D]}; attention %q, %r, ...
    After:  attention %q, %k, ...
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for operation in [each for each in module.walk() if each.name == "attention"]:
            count += _grouped(operation)
        context.count("grouped_heads", "grouped", count)
        return count > 0


def _grouped(operation: Operation) -> bool:
    q, k, v, *mask = operation.inputs
    pairs = ((keys, values) for keys in _repeated(k) for values in _repeated(v) if same(keys.shape[1], values.shape[1]))
    pair = next(pairs, None)
    if pair is None:
        return False
    with Builder.before_operation(operation, operation.location.by("grouped_heads")):
        result = attention(q, *pair, *mask, **operation.attributes)
    operation.replace([result])
    erase_dead([value.operation for value in (k, v) if value.operation is not None])
    return True


def _repeated(value: Value) -> Iterator[Value]:
    """The values [B, G, T, D] that views repeat to this one, [B, H, T, D], the furthest first."""
    shape, (batch, head, *rest), sources = value.shape, axes(value.shape), list[Value]()
    view: IndexMap | None = identity_map(shape)
    while view is not None and value.operation is not None and (step := map_of(value)) is not None:
        value, view = value.operation.inputs[0], compose(view, step)
        if view is None or value.rank != 4:
            continue
        groups = value.shape[1]
        is_whole = all(map(same, value.shape, (shape[0], groups, *shape[2:])))  # it may be a slice of a cache
        times = dims.exact_divide(shape[1], groups) if is_whole and dims.less(0, groups) is True else None
        if times is not None and times != 1 and view.coordinates == (batch, dims.floor_divide(head, times), *rest):
            sources.append(value)
    return reversed(sources)
