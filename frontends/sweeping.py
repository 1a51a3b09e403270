"""Removal of operations that nothing uses, at the end of an import."""

from __future__ import annotations

from irc.dims import Symbol
from irc.ir import Block, mentioned_symbols


def sweep(block: Block, used: set[Symbol]) -> None:
    """Erase what nothing needs, from the end: no effect, no use, and no symbol of its own in a type or attribute.

    `used` collects the symbols that what is kept speaks of. A `bind` is needed as long as its symbol is.
    """
    for operation in reversed(block):
        defined = set(operation.symbols)
        needed = operation.has_effect and operation.name != "bind"
        if needed or any(result.uses for result in operation.results) or not used.isdisjoint(defined):
            for region in operation.regions:
                sweep(region.block, used)
            used.update(set(mentioned_symbols(operation)) - (defined if operation.name == "bind" else set()))
        else:
            if operation.function is not None:
                for symbol in operation.symbols:
                    operation.function.defined_symbols.pop(symbol.name, None)
            operation.erase()
