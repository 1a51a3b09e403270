"""Dead code elimination: drop what nothing reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irc.dims import Derived
from irc.ir import Block, Function, Operation, mentioned_symbols
from irc.module import Module
from irc.pass_manager import Pass, PassContext


@dataclass
class Dce(Pass):
    """Remove operations whose results and symbols are not used, in linear time.

    Operations with effects stay, and so does whatever they read. A symbol that a live type or attribute
    mentions keeps the `bind`, `refine` or extern that defines it; a `bind` that no dim needs is removed, and
    with it its check, for there is nothing left that relied on it.

    Before: %y = exp %x; %z = neg %x; return %z        After: %z = neg %x; return %z
    """

    def run(self, module: Module, context: PassContext) -> bool:
        removed = sum(eliminate(function) for function in module.functions.values())
        context.count("dce", "removed", removed)
        return removed > 0


def eliminate(function: Function) -> int:
    """Remove the dead operations of a function; returns how many."""
    definitions = {symbol: operation for operation in function.walk() for symbol in operation.symbols}
    live: set[Operation] = set()
    seen: set[Derived] = set()
    pending: list[Operation] = list(_roots(function.block))
    for argument in function.arguments:
        pending += [definitions[symbol] for symbol in argument.type.symbols() if symbol in definitions]
    while pending:
        operation = pending.pop()
        if operation in live:
            continue
        live.add(operation)
        pending += [value.operation for value in operation.inputs if value.operation is not None]
        pending += [definitions[symbol] for symbol in mentioned_symbols(operation, seen) if symbol in definitions]
        for region in operation.regions:
            pending += _roots(region.block)
        if operation.parent is not None:
            pending.append(operation.parent)
    return _sweep(function, function.block, live)


def _roots(block: Block) -> Iterator[Operation]:
    """What a block does whether or not its results are read."""
    return (operation for operation in block if operation.has_effect and operation.name != "bind")


def _sweep(function: Function, block: Block, live: set[Operation]) -> int:
    removed = 0
    for operation in reversed(block):
        if operation in live:
            removed += sum(_sweep(function, region.block, live) for region in operation.regions)
            continue
        removed += sum(1 for _ in operation.walk())
        for inner in operation.walk():
            for symbol in inner.symbols:
                function.defined_symbols.pop(symbol.name, None)
        operation.erase()
    return removed
