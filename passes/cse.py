"""Common subexpression elimination: compute a value once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from irc.equality import attribute_key
from irc.interfaces import Trait
from irc.ir import Block, Operation
from irc.module import Module
from irc.pass_manager import Pass, PassContext


@dataclass
class Cse(Pass):
    """Merge operations that compute the same value, in linear time.

    Two operations are the same when definition, operands (in any order where the operation is commutative),
    attributes and types agree. The first one stays, where it dominates the second: a value of one side of an
    `if` never serves the other. Left alone are effects, externs (one may be random), operations with regions,
    and those that define a symbol. Small constants merge by their bytes, large ones when they share a name too.

    Before: %a = exp %x; %b = exp %x; %c = add %a, %b        After: %a = exp %x; %c = add %a, %a
    """

    def run(self, module: Module, context: PassContext) -> bool:
        merged = sum(_merge(function.block, []) for function in module.functions.values())
        context.count("cse", "merged", merged)
        return merged > 0


def _merge(block: Block, outer: list[dict[Hashable, Operation]]) -> int:
    """Merge within a block; `outer` are the tables of the blocks around it, whose operations dominate it."""
    table: dict[Hashable, Operation] = {}
    scopes = [*outer, table]
    merged = 0
    for operation in block:
        if operation.regions:
            inner = [] if operation.definition.is_isolated else scopes
            merged += sum(_merge(region.block, inner) for region in operation.regions)
            continue
        if operation.has_effect or operation.symbols or operation.name == "extern" or not operation.results:
            continue
        key = _key(operation)
        first = next((scope[key] for scope in scopes if key in scope), None)
        if first is None:
            table[key] = operation
        else:
            operation.replace(first.results)
            merged += 1
    return merged


def _key(operation: Operation) -> Hashable:
    operands: list[Any] = list(operation.operands)
    definition: Any = operation.definition
    if Trait.COMMUTATIVE in definition.traits:
        operands.sort(key=id)  # any order will do: it only has to be the same for both
    types = tuple(result.type for result in operation.results)
    return definition, tuple(operands), attribute_key(operation.attributes), types
