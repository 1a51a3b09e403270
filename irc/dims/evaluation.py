"""Dims with other dims or values in place of their atoms."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from irc.dims.expression import CACHED, Atom, Dim, DimError, Expr, Symbol, Term, build, collect, terms_of
from irc.dims.functions import CONSTRUCTORS, broadcast, maximum

if TYPE_CHECKING:
    from numpy.typing import NDArray

ESTIMATORS = {**CONSTRUCTORS, "bcast": maximum}


def _atoms(terms: Iterable[Term]) -> Iterator[Atom]:
    """All atoms, functions and those inside them included."""
    for monomial, _ in terms:
        for atom, _ in monomial:
            yield atom
            for arg in atom.args:
                yield from _atoms(terms_of(arg))


@lru_cache(CACHED)
def free_atoms(d: Dim) -> tuple[Atom, ...]:
    """The symbols, variables and indirects of `d`, inside functions too (not within extents), in order."""
    return tuple(sorted({atom for atom in _atoms(terms_of(d)) if not atom.args}, key=lambda atom: atom.key))


def free_symbols(d: Dim) -> tuple[Symbol, ...]:
    """The symbols of `d`, ordered by name, then by age."""
    return tuple(atom for atom in free_atoms(d) if isinstance(atom, Symbol))


def _replace(d: Dim, values: Mapping[Any, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """The polynomial over other values than its atoms; an atom without one stays."""
    return sum(_replaced_terms(terms_of(d), values, functions))


def _replaced_terms(terms: Iterable[Term], values: Mapping[Any, Any],
                    functions: Mapping[str, Callable[..., Any]]) -> Iterator[Any]:  # fmt: skip
    def value(atom: Atom) -> Any:
        if atom in values:
            return values[atom]
        if atom.args:
            return functions[atom.kind](*(_replace(arg, values, functions) for arg in atom.args))
        return atom.expr

    for monomial, coefficient in terms:
        factors = [value(atom) for atom, power in monomial for _ in range(power)]
        yield reduce(operator.mul, factors if coefficient == 1 and factors else [*factors, coefficient])


def broadcasts(d: Dim) -> Iterator[tuple[Dim, ...]]:
    """The sizes that `d` takes to broadcast against each other: (A, B) for each bcast(A, B) in it."""
    return (atom.args for atom in _atoms(terms_of(d)) if atom.kind == "bcast")


def substitute(d: Dim, mapping: Mapping[Any, Dim]) -> Dim:
    """`d` with atoms replaced, inside functions too, and simplified anew. The extent of a variable and the
    bounds of an indirect belong to the atom and stay: map the atom itself to change them."""
    touched = [term for term in terms_of(d) if any(atom in mapping for atom in _atoms([term]))]
    if not touched:
        return d
    kept = [term for term in terms_of(d) if term not in touched]
    moved = map(terms_of, _replaced_terms(touched, mapping, CONSTRUCTORS))
    return build(collect(itertools.chain(*moved), kept))


def linear_in(d: Dim, symbol: Symbol) -> tuple[Dim, Dim] | None:
    """`slope` and `rest` of d = slope*symbol + rest, neither of which mentions the symbol; None if there are none."""
    try:
        rest = substitute(d, {symbol: 0})
        slope = substitute(d, {symbol: 1}) - rest
    except DimError:  # undefined there, as 64//S is at 0
        return None
    return (slope, rest) if slope != 0 and slope * symbol.expr + rest == d else None


def evaluate(d: Dim, environment: Mapping[Any, int]) -> int:
    """The value of `d`; a DimError names what has no value, and sizes that do not broadcast."""
    value: Dim = _replace(d, environment, CONSTRUCTORS)
    if isinstance(value, Expr):
        raise DimError(f"no value is given for {free_atoms(value)[0]}")
    return value


def at_sizes(d: Dim, environment: Mapping[Any, int]) -> Dim:
    """`d` where atoms have values. Sizes of axes that broadcast against each other may differ: the larger is taken."""
    return cast(Dim, _replace(d, environment, ESTIMATORS))


def estimate(d: Dim, environment: Mapping[Any, int]) -> int:
    """The value of `d` where all its atoms have one, as `at_sizes` has it."""
    return cast(int, at_sizes(d, environment))


def evaluate_array(d: Dim, environment: Mapping[Any, NDArray[Any] | int]) -> NDArray[Any] | int:
    """The values of `d` for (signed) integer arrays, which broadcast against one another as in NumPy."""
    for atom in free_atoms(d):
        if atom not in environment:
            raise DimError(f"no value is given for {atom}")
    return cast("NDArray[Any] | int", _replace(d, environment, _ARRAY_FUNCTIONS))


def _nonzero(divisor: Any) -> Any:
    if not np.all(divisor):
        raise DimError("division by zero")
    return divisor


_ARRAY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "//": lambda a, b: a // _nonzero(b),
    "%": lambda a, b: a % _nonzero(b),
    "min": lambda *values: reduce(np.minimum, values),
    "max": lambda *values: reduce(np.maximum, values),
    "bcast": np.vectorize(broadcast, otypes=[np.int64]),
}
