"""Removal of operations that nothing uses, at the end of an import."""

from __future__ import annotations

from irc.dims import Derived, Symbol
from irc.ir import Block, mentioned_symbols


def sweep(block: Block, used: set[Symbol], seen: set[Derived] | None = None) -> None:
    """Erase what nothing needs, from the end: no effect, no use, and no symbol of its own in a type or attribute.

    `used` collects the symbols that what is kept mentions, and `seen` the derived ones. A `bind` is needed as long as
    its symbol is.
    """
    seen = set() if seen is None else seen
    for operation in reversed(block):
        defined = set(operation.symbols)
        needed = operation.has_effect and operation.name != "bind"
        if needed or any(result.uses for result in operation.results) or not used.isdisjoint(defined):
            for region in operation.regions:
                sweep(region.block, used, seen)
            is_bind = operation.name == "bind"
            used.update(set(mentioned_symbols(operation, None if is_bind else seen)) - (defined if is_bind else set()))
        else:
            if operation.function is not None:
                for symbol in operation.symbols:
                    operation.function.defined_symbols.pop(symbol.name, None)
            operation.erase()
