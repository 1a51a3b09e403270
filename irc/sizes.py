"""Sizes for the symbols of a function where the caller gives none, and the bytes of values at given sizes.

Byte counts, policies and estimates are computed at one size for each symbol; `representative_sizes` chooses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim, Sizes, Symbol
from irc.ir import Function, Value

DEFAULT_SIZE = 64


def default_size(symbol: Symbol, given: Mapping[str, int]) -> int:
    """The size of one symbol: the one given by name, else 64 moved into its range and to its multiple."""
    if symbol.name in given:
        return given[symbol.name]
    size = max(symbol.low, min(symbol.high, DEFAULT_SIZE))
    return size - (size % symbol.multiple if size % symbol.multiple < size else 0)


def check_names(function: Function, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `dim.unbound` for a name that is not known, with the known ones and where the arguments have them: the
    symbols of an exported program have the names that PyTorch gives."""
    symbols = list(known)
    unknown = next((name for name in given if name not in symbols), None)
    if unknown is None:
        return
    places: dict[str, str] = {}
    for argument in function.arguments:
        for axis, extent in enumerate(argument.type.shape or ()):
            symbol = dims.sole_symbol(extent)
            if symbol is not None:
                places.setdefault(symbol.name, f" (axis {axis} of %{argument.name})")
    listed = [f"{name}{places.get(name, '')}" for name in symbols]
    raise fail("dim.unbound", f"@{function.name} has no symbol `{unknown}`",
               expected=f"one of: {', '.join(listed) or 'none'}")  # fmt: skip


def representative_sizes(function: Function, given: Mapping[str, int]) -> Sizes:
    """A size for every symbol: `default_size`, or what it broadcasts against. Raises `run.dim_range` for given
    sizes that are out of range or do not broadcast."""
    symbols = {**function.symbols, **{s.name: s for operation in function.walk() for s in operation.symbols}}
    check_names(function, given, symbols)
    sizes: dict[Symbol, int] = {}
    for name, symbol in symbols.items():
        size = default_size(symbol, given)
        if name in given and (not symbol.low <= size <= symbol.high or size % symbol.multiple):
            allowed = f"{name} in [{symbol.low}, {symbol.high}], a multiple of {symbol.multiple}"
            raise fail("run.dim_range", f"{name} = {size}", expected=allowed)
        sizes[symbol] = size
    values = (value for operation in function.walk() for value in operation.results if value.type.is_ranked)
    stated = {symbols[name] for name in given}
    extents_of = dict.fromkeys(dim for value in values for dim in value.shape)
    for extents in dict.fromkeys(dims.broadcasts(extents_of)):
        _make_agree(extents, sizes, stated)
    return Sizes(sizes)


def _make_agree(extents: tuple[Dim, ...], sizes: dict[Symbol, int], given: set[Symbol]) -> None:
    """Give symbols that stand alone among extents that broadcast the size of the others, unless theirs is given."""
    alone = {extent: dims.sole_symbol(extent) for extent in extents}
    movable = {extent: symbol for extent, symbol in alone.items() if symbol in sizes and symbol not in given}
    values = {extent: dims.estimate(extent, sizes) for extent in extents}
    size = max((value for extent, value in values.items() if extent not in movable), default=max(values.values()))
    for extent, symbol in movable.items():
        if values[extent] not in (1, size) and symbol.low <= size <= symbol.high and not size % symbol.multiple:
            sizes[symbol] = size
    fitting = {dims.estimate(extent, sizes) for extent in extents} - {1}
    if len(fitting) > 1 and given.issuperset(symbol for extent in extents for symbol in dims.free_symbols(extent)):
        text = " and ".join(f"{extent} = {values[extent]}" for extent in extents)
        raise fail("run.dim_range", f"{text} do not broadcast", expected="equal sizes, or 1")


def bytes_at(value: Value, sizes: Mapping[Symbol, int]) -> int:
    """Of a value at these sizes; none without a rank, or where a size is below 0: in a branch that is not taken."""
    return max(0, dims.estimate(value.type.nbytes, sizes)) if value.type.is_ranked else 0
