"""Equality of modules: by structure and names, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from irc.dims import Symbol
from irc.ir import Attribute, Module, with_dims


def difference(a: Module, b: Module) -> str | None:
    """The first place in which two modules differ, in words, or None when they are equal.

    Equal means: same functions, signatures, names, operations, attributes, constants, locations and metadata; symbols
    correspond by name.
    """
    for (where, ours), (_, theirs) in zip(_described(a), _described(b), strict=False):
        for mine, other in zip(ours, theirs, strict=False):
            if not same_attributes(mine, other):
                return f"{where!r}: {mine} against {other}"
    return None


def _described(module: Module) -> Iterator[tuple[object, tuple[Attribute, ...]]]:
    """The parts of a module, each with all that makes it equal to another; operands are told by their names.

    Sizes come before what they count, so that modules of different lengths differ before one ends.
    """
    header = module.name, module.source, module.source_digest, module.edge_cases
    yield module.name, (*header, tuple(module.functions), module.metadata)
    for function in module.functions.values():
        arguments = tuple(map(repr, function.arguments))
        symbols = _ranges(function.symbols.values())
        updates = tuple((position, argument.name) for position, argument in function.updates.items())
        defaults = {argument.name: tensor for argument, tensor in function.defaults.items()}
        signature = symbols, arguments, defaults, function.output_names, updates
        yield function, (*signature, len(function.block), function.location)
        for operation in function.walk():
            blocks = [region.block for region in operation.regions]
            yield operation, (
                operation.name,
                tuple(None if operand is None else operand.name for operand in operation.operands),
                with_dims(operation.attributes, lambda dim: (type(dim), str(dim))),  # symbols are never equal
                tuple(map(repr, operation.results)),
                tuple((len(block), *map(repr, block.arguments)) for block in blocks),
                _ranges(sorted(operation.symbols, key=lambda symbol: symbol.name)),
                operation.location,
            )


def _ranges(symbols: Iterable[Symbol]) -> tuple[tuple[str, int, int, int], ...]:
    return tuple((symbol.name, symbol.low, symbol.high, symbol.multiple) for symbol in symbols)


def same_attributes(a: Attribute, b: Attribute) -> bool:
    """Equality in which 1, 1.0 and True differ, nan equals nan, and 0.0 differs from -0.0."""
    if a is b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_attributes(a[name], b[name]) for name in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_attributes, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and bool(a == b)
