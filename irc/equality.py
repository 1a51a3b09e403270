"""Equality of functions: by structure and names, and the first place where two of them differ."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from irc.dims import Symbol
from irc.ir import Attribute, Function, with_dims
from irc.weights import INLINE_LIMIT, Tensor

# A part of a function, such as an operation, with all that makes it equal to another.
Part = tuple[object, tuple[Attribute, ...]]


def first_difference(a: Iterable[Part], b: Iterable[Part]) -> str | None:
    """The first place in which two lists of parts differ, in words, or None when they are equal.

    Sizes must come before what they count, so that lists of different lengths differ before one ends.
    """
    for (where, left), (_, right) in zip(a, b, strict=False):
        for one, other in zip(left, right, strict=False):
            if not same_attributes(one, other):
                return f"{where!r}: {one} against {other}"
    return None


def parts(function: Function) -> Iterator[Part]:
    """The parts of a function: its signature, then its operations; operands are identified by their names."""
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


def attribute_key(attribute: Attribute) -> Hashable:
    """An attribute as a key: 1, 1.0 and True differ, and so do 0.0 and -0.0; tensors compare by their bytes."""
    if isinstance(attribute, Tensor):
        if attribute.size <= INLINE_LIMIT:
            return attribute.dtype, attribute.shape, attribute.digest()
        return attribute.dtype, attribute.shape, attribute.name, attribute
    if isinstance(attribute, float):
        return float, attribute.hex()
    if isinstance(attribute, tuple):
        return tuple(map(attribute_key, attribute))
    if isinstance(attribute, dict):
        return tuple((name, attribute_key(part)) for name, part in attribute.items())
    return type(attribute), attribute
