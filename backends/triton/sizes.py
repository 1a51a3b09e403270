"""Dims in the host program: as Python expressions, and where the size of each symbol is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from irc import dims
from irc.backends.triton.text import Names
from irc.dims import Derived, Dim, Symbol
from irc.ir import Function, Value

CHECKED = "nonzero({})"  # the program stops
UNCHECKED = "({} or 1)"  # of a kernel that has no element then: any value will do
Variables = Mapping[Any, str]  # that hold sizes, by symbol or derived symbol


@dataclass(frozen=True)
class SymbolSource:
    """Where the size of a symbol is read: an extent of an input, which is `slope` times it and `rest`. Where the slope
    is 0 the extent does not determine it, and it is `least`."""

    value: Value
    axis: int
    slope: Dim
    rest: Dim
    least: int = 0

    def size(self, extent: str, symbols: Variables) -> str:
        """The symbol's size as Python, given the text of the extent."""
        if self.rest != 0:
            extent = f"({extent} - ({python_dim(self.rest, symbols)}))"
        if self.slope == 1:
            return extent
        slope = python_dim(self.slope, symbols)
        size, (low, high) = f"{extent} // ({slope})", dims.bounds(self.slope)
        return f"({size} if {slope} else {self.least})" if low <= 0 <= high else size


class Sizes:
    """The variables of a function that hold sizes, by symbol; `line` writes a line of it."""

    def __init__(self, names: Names, line: Callable[[str], None]) -> None:
        self.variables: dict[Symbol | Derived, str] = {}
        self._names = names
        self._line = line
        self._computed: list[Derived] = []  # in order
        self._checked: set[Dim] = set()

    def text(self, dim: Dim, divisor: str = CHECKED) -> str:
        """A dim as Python. Derived symbols are computed where they are needed first, in the lines before."""
        for derived in dims.derived_below([dim], self.variables.__contains__):
            size = python_dim(derived.definition, self.variables, divisor)
            self.variables[derived] = self._names.fresh(f"size_{derived.name}")
            self._computed.append(derived)
            self._line(f"{self.variables[derived]} = {size}")
        return python_dim(dim, self.variables, divisor)

    def may_be_negative(self, extents: Iterable[Dim]) -> list[Dim]:
        """Extents that may be below 0 by the ranges of their symbols, except those returned before."""
        known = [each for each in dict.fromkeys(extents) if each not in self._checked
                 and all(symbol in self.variables for symbol in dims.free_symbols(each))]  # fmt: skip
        self._checked.update(known)
        return [each for each in known if dims.less_equal(0, each) is not True]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A size that is computed in a block that may not run is not known after it."""
        before, checked = len(self._computed), set(self._checked)
        yield
        self._checked = checked
        for derived in self._computed[before:]:
            del self.variables[derived]
        del self._computed[before:]


def symbol_sources(function: Function) -> dict[Symbol, SymbolSource]:
    """Where each symbol of the signature is read, each after those that its source mentions; the first extent that is
    just the symbol, or else the first that is linear in it."""
    extents = [(value, axis, extent) for value in function.arguments if value.type.is_ranked
               for axis, extent in enumerate(value.shape)]
    sources: dict[Symbol, SymbolSource] = {}
    for value, axis, extent in extents:
        symbol = dims.sole_symbol(extent)
        if symbol is not None:
            sources.setdefault(symbol, SymbolSource(value, axis, 1, 0))
    before = -1
    while before < len(sources):
        before = len(sources)
        for value, axis, extent in extents:
            unknown = [symbol for symbol in dims.free_symbols(extent) if symbol not in sources]
            line = dims.linear_in(extent, unknown[0]) if len(unknown) == 1 else None
            if line is not None:
                sources[unknown[0]] = SymbolSource(value, axis, *line, least=least_of(unknown[0]))
    return sources


def least_of(symbol: Symbol) -> int:
    """The least size in the range of a symbol."""
    return -(-symbol.low // symbol.multiple) * symbol.multiple


def python_dim(dim: Dim, symbols: Variables, divisor: str = UNCHECKED) -> str:
    """A dim as a Python expression; `divisor` is how to divide by what may be 0."""
    if isinstance(dim, int):
        return str(dim)
    terms = []
    for monomial, coefficient in dim.terms:
        factors = [text for atom, power in monomial for text in [_python_atom(atom, symbols, divisor)] * power]
        if coefficient == -1 and factors:
            terms.append("-" + " * ".join(factors))
        else:
            terms.append(" * ".join([*([] if coefficient == 1 and factors else [str(coefficient)]), *factors]))
    return " + ".join(terms).replace("+ -", "- ")


def _python_atom(atom: dims.Atom, symbols: Variables, divisor: str) -> str:
    if isinstance(atom, (Symbol, Derived)):
        return symbols[atom]
    assert isinstance(atom, dims.Function)
    arguments = [python_dim(argument, symbols, divisor) for argument in atom.args]
    if atom.kind in ("//", "%"):
        left, right = (text if text.isidentifier() or text.isdecimal() else f"({text})" for text in arguments)
        if dims.bounds(atom.args[1])[0] <= 0 <= dims.bounds(atom.args[1])[1]:
            right = divisor.format(right)
        return f"({left} {atom.kind} {right})"
    return f"{atom.kind}({', '.join(arguments)})"
