"""Dims with other dims or values in place of their atoms."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from irc.dims.expression import (
    CACHED,
    DIVISIONS,
    Atom,
    Derived,
    Dim,
    DimError,
    Expr,
    Symbol,
    Term,
    build,
    collect,
    terms_of,
)
from irc.dims.functions import CONSTRUCTORS, broadcast, maximum

if TYPE_CHECKING:
    from numpy.typing import NDArray

ESTIMATORS = {**CONSTRUCTORS, "bcast": maximum}


MOST_KNOWN = 8  # values of one derived symbol that are remembered


def _atoms(terms: Iterable[Term]) -> Iterator[Atom]:
    """All atoms, functions and those inside them included; not those of definitions."""
    for monomial, _ in terms:
        for atom, _ in monomial:
            yield atom
            for arg in atom.args:
                yield from _atoms(terms_of(arg))


@lru_cache(CACHED)
def free_atoms(d: Dim) -> tuple[Atom, ...]:
    """The symbols, variables and indirects of `d`, inside functions and definitions too (not within extents), in
    order."""
    atoms: set[Atom] = set()
    for atom in _atoms(terms_of(d)):
        if isinstance(atom, Derived):
            atoms.update(atom.symbols)
        elif not atom.args:
            atoms.add(atom)
    return tuple(sorted(atoms, key=lambda atom: atom.key))


@lru_cache(CACHED)
def divisors(d: Dim) -> tuple[Dim, ...]:
    """What `d` divides by: the divisors of its `//` and `%`, inside functions too."""
    return tuple(dict.fromkeys(atom.args[1] for atom in _atoms(terms_of(d)) if atom.kind in DIVISIONS))


def free_symbols(d: Dim) -> tuple[Symbol, ...]:
    """The symbols of `d` that have no definition, ordered by name, then by age."""
    return tuple(atom for atom in free_atoms(d) if isinstance(atom, Symbol))


@lru_cache(CACHED)
def derived_in(d: Dim) -> tuple[Derived, ...]:
    """The derived symbols that `d` itself mentions, inside functions too, each once."""
    return tuple(dict.fromkeys(atom for atom in _atoms(terms_of(d)) if isinstance(atom, Derived)))


def newest_symbol(d: Dim) -> int:
    """The serial of the newest symbol of `d`, inside functions and definitions too; 0 where there is none."""
    atoms = [atom for atom in _atoms(terms_of(d)) if isinstance(atom, (Symbol, Derived))]
    return max([atom.newest if isinstance(atom, Derived) else atom.serial for atom in atoms], default=0)


def derived_below(dims: Iterable[Dim], is_known: Callable[[Derived], bool] = lambda _: False) -> list[Derived]:
    """The derived symbols that dims rest on, each after those in its definition; without those that are known, and
    what these rest on."""
    return _below((each for d in dims for each in derived_in(d)), is_known)


def symbols_below(dims: Iterable[Dim], seen: set[Derived]) -> Iterator[Symbol]:
    """The symbols without a definition that dims rest on, except through the derived symbols in `seen`, which those of
    dims join: over the dims of a graph, each definition is looked at once."""
    listed = tuple(dims)
    below = derived_below(listed, seen.__contains__)
    seen.update(below)
    for d in (*listed, *(derived.definition for derived in below)):
        yield from (atom for atom in _atoms(terms_of(d)) if isinstance(atom, Symbol))


def _below(roots: Iterable[Derived], is_known: Callable[[Derived], bool]) -> list[Derived]:
    ordered: dict[Derived, None] = {}
    for root in roots:
        pending = [root]
        while pending:
            last = pending[-1]
            is_done = last in ordered or is_known(last)
            inner = [] if is_done else [each for each in last.inner if each not in ordered and not is_known(each)]
            if inner:
                pending += inner
            else:
                pending.pop()
                if not is_done:
                    ordered[last] = None
    return list(ordered)


class _Replacement:
    """Other values for atoms: dims, numbers or arrays. An atom without one stays; inside definitions only symbols get
    one. What has been found for a derived symbol is remembered with it, since a deep graph has many dims over one chain
    of definitions."""

    def __init__(self, values: Mapping[Any, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self.values = values
        self.functions = functions
        self.defined: dict[Derived, Any] = {}
        self.is_inside = False  # a definition

    def dim(self, d: Dim) -> Any:
        """The polynomial over the values."""
        return sum(self.terms(terms_of(d)))

    def terms(self, terms: Iterable[Term]) -> Iterator[Any]:
        for derived in _below((atom for atom in _atoms(terms) if isinstance(atom, Derived)), self._is_known):
            self.defined[derived] = self._defined(derived)
        return map(self._term, terms)

    def _defined(self, derived: Derived) -> Any:
        self.is_inside = True
        value = sum(map(self._term, terms_of(derived.definition)))
        self.is_inside = False
        if self.functions is not _ARRAY_FUNCTIONS:
            if len(derived.known) >= MOST_KNOWN:
                del derived.known[next(iter(derived.known))]
            derived.known[self._key(derived)] = value
        return value

    def touches(self, atom: Atom) -> bool:
        """Whether the atom, or one in its definition, has a value."""
        if atom in self.values or not isinstance(atom, Derived):
            return atom in self.values
        if len(self.values) == 1 and next(iter(self.values)).serial > atom.newest:
            return False  # without a look at the symbols, of which a chain of definitions has many
        if len(self.values) < len(atom.symbols):
            return not atom.symbols.isdisjoint(self.values)
        return any(symbol in self.values for symbol in atom.symbols)

    def _is_known(self, derived: Derived) -> bool:
        if derived in self.defined or not self.touches(derived):
            return True
        known = derived.known.get(self._key(derived)) if self.functions is not _ARRAY_FUNCTIONS else None
        if known is not None:
            self.defined[derived] = known
        return known is not None

    def _key(self, derived: Derived) -> Any:
        return self.functions is ESTIMATORS, *map(self.values.get, derived.symbols)

    def _term(self, term: Term) -> Any:
        monomial, coefficient = term
        factors = [self._value(atom) for atom, power in monomial for _ in range(power)]
        return reduce(operator.mul, factors if coefficient == 1 and factors else [*factors, coefficient])

    def _value(self, atom: Atom) -> Any:
        if atom in self.values and (isinstance(atom, Symbol) or not self.is_inside):
            return self.values[atom]
        if atom.args:
            return self.functions[atom.kind](*(sum(map(self._term, terms_of(arg))) for arg in atom.args))
        return self.defined[atom] if atom in self.defined else atom.expr


class AtEnds(_Replacement):
    """Each symbol at an end of its range: the least, the greatest, or these in turn. Since a choice of ends is for all
    dims, what a derived symbol is there is computed once."""

    CHOICES = ("least", "greatest", "even", "odd")

    def __init__(self, choice: str, indices: Mapping[Any, int] | None = None) -> None:
        super().__init__(indices or {}, CONSTRUCTORS)
        self.choice = choice

    def _defined(self, derived: Derived) -> int | None:
        try:
            value: int | None = sum(map(self._term, terms_of(derived.definition)))
        except DimError:
            value = None  # undefined there
        derived.ends[self.choice] = value
        return value

    def _is_known(self, derived: Derived) -> bool:
        if derived not in self.defined and self.choice in derived.ends:
            self.defined[derived] = derived.ends[self.choice]
        return derived in self.defined

    def _value(self, atom: Atom) -> Any:
        if isinstance(atom, Symbol):
            ends = {"least": 0, "greatest": 1, "even": atom.serial % 2, "odd": 1 - atom.serial % 2}
            return atom.interval[ends[self.choice]]
        value = super()._value(atom)
        if value is None:
            raise DimError(f"{atom} has no value there")
        return value


class Sizes(dict[Symbol, int]):
    """Sizes of symbols that stay as they are: the hash, and the value of each derived symbol, are computed once. Where
    axes broadcast against each other, the larger size is taken."""

    def __init__(self, sizes: Mapping[Symbol, int]) -> None:
        super().__init__(sizes)
        self._hash = hash(tuple(sizes.items()))
        self._defined: dict[Derived, Any] = {}

    def __hash__(self) -> int:  # type: ignore[override]
        return self._hash

    def at(self, d: Dim) -> Dim:
        """A dim at these sizes; the atoms without one stay."""
        return cast(Dim, _AtSizes(self, self._defined).dim(d))


class _AtSizes(_Replacement):
    def __init__(self, sizes: Sizes, defined: dict[Derived, Any]) -> None:
        super().__init__(sizes, ESTIMATORS)
        self.defined = defined

    def _defined(self, derived: Derived) -> Any:
        return sum(map(self._term, terms_of(derived.definition)))

    def _is_known(self, derived: Derived) -> bool:
        return derived in self.defined


def indices_of(d: Dim) -> list[Atom]:
    """The variables and indirects of `d`, inside functions too: there are none in definitions."""
    atoms = {atom for atom in _atoms(terms_of(d)) if not atom.args and not isinstance(atom, (Symbol, Derived))}
    return sorted(atoms, key=lambda atom: atom.key)


def broadcasts(dims: Iterable[Dim]) -> Iterator[tuple[Dim, ...]]:
    """The sizes that dims take to broadcast against each other: (A, B) for each bcast(A, B) in them, definitions
    included."""
    listed = tuple(dims)
    for d in (*(each.definition for each in derived_below(listed)), *listed):
        yield from (atom.args for atom in _atoms(terms_of(d)) if atom.kind == "bcast")


def substitute(d: Dim, mapping: Mapping[Any, Dim]) -> Dim:
    """`d` with atoms replaced, inside functions too, and symbols inside definitions; then simplified again. The extent
    of a variable and the bounds of an indirect belong to the atom and stay: map the atom itself to change them."""
    replacement = _Replacement(mapping, CONSTRUCTORS)
    touched = [term for term in terms_of(d) if any(map(replacement.touches, _atoms([term])))]
    if not touched:
        return d
    kept = [term for term in terms_of(d) if term not in touched]
    moved = map(terms_of, replacement.terms(touched))
    return build(collect(itertools.chain(*moved), kept))


def linear_in(d: Dim, symbol: Symbol) -> tuple[Dim, Dim] | None:
    """`slope` and `rest` of d = slope*symbol + rest, neither of which mentions the symbol; None if there are none."""
    if symbol not in free_symbols(d) or any(symbol in derived.symbols for derived in derived_in(d)):
        return None
    try:
        rest = substitute(d, {symbol: 0})
        slope = substitute(d, {symbol: 1}) - rest
    except DimError:  # undefined there, as 64//S is at 0
        return None
    return (slope, rest) if slope != 0 and slope * symbol.expr + rest == d else None


def evaluate(d: Dim, environment: Mapping[Any, int]) -> int:
    """The value of `d`; a DimError names what has no value, and sizes that do not broadcast."""
    value: Dim = _Replacement(environment, CONSTRUCTORS).dim(d)
    if isinstance(value, Expr):
        raise DimError(f"no value is given for {free_atoms(value)[0]}")
    return value


def at_sizes(d: Dim, environment: Mapping[Any, int]) -> Dim:
    """`d` where atoms have values. Sizes of axes that broadcast against each other may differ: the larger is taken."""
    return cast(Dim, _Replacement(environment, ESTIMATORS).dim(d))


def estimate(d: Dim, environment: Mapping[Any, int]) -> int:
    """The value of `d` where all its atoms have one, as `at_sizes` has it."""
    return cast(int, at_sizes(d, environment))


def evaluate_array(d: Dim, environment: Mapping[Any, NDArray[Any] | int]) -> NDArray[Any] | int:
    """The values of `d` for (signed) integer arrays, which broadcast against one another as in NumPy."""
    for atom in free_atoms(d):
        if atom not in environment:
            raise DimError(f"no value is given for {atom}")
    return cast("NDArray[Any] | int", _Replacement(environment, _ARRAY_FUNCTIONS).dim(d))


def _nonzero(divisor: Any) -> Any:
    if not np.all(divisor):
        raise DimError("division by zero")
    return divisor


_ARRAY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "//": lambda a, b: a // _nonzero(b),
    "%": lambda a, b: a % _nonzero(b),
    "min": lambda *values: reduce(np.minimum, values),
    "max": lambda *values: reduce(np.maximum, values),
    "bcast": np.vectorize(lambda *sizes: broadcast(*map(int, sizes)), otypes=[np.int64]),
}
