"""Questions about dims: whether one equals another, or is less, for all values within the ranges."""

from __future__ import annotations

from functools import lru_cache

from irc.dims.expression import (
    CACHED,
    DIVISIONS,
    Atom,
    Dim,
    Indirect,
    Symbol,
    Variable,
    bounds,
    build,
    multiple_of,
    terms_of,
    without,
)


def equal(a: Dim, b: Dim) -> bool | None:
    """Is `a` the same as `b` for all values (True), for none (False), or is that not known (None)?"""
    difference = a - b
    answers = {less_equal(difference, 0), less_equal(0, difference)}
    constant = dict(terms_of(difference)).get((), 0)
    if False in answers or constant % (multiple_of(difference - constant) or 1):
        return False  # 2*x is never 1
    return True if answers == {True} else None


def less(a: Dim, b: Dim) -> bool | None:
    """Is `a < b` for all values, for none, or not known?"""
    return less_equal(a + 1, b)


def less_equal(a: Dim, b: Dim) -> bool | None:
    """Is `a <= b` for all values, for none, or not known?"""
    difference = b - a
    return True if non_negative(difference) else False if non_negative(-difference - 1) else None


_ELIMINATION_ORDER = ("%", "variable", "indirect", "min", "max", "bcast", "//", "symbol")


@lru_cache(CACHED)
def non_negative(d: Dim, effort: int = 12) -> bool:
    """Whether `d >= 0` is proven. Intervals forget that two terms share an atom; so write `d = c*atom + rest`, and
    where the sign of `c` is known, replace the atom by what bounds it (an index by 0 or its extent - 1). Remainders
    go first, for an index may hide in them; symbols last, for what bounds other atoms may show them."""
    low, high = bounds(d)
    if low >= 0 or high < 0 or isinstance(d, int) or not effort:
        return low >= 0
    atoms = {atom for monomial, _ in d.terms for atom, _ in monomial}
    for atom in sorted(atoms, key=lambda atom: (_ELIMINATION_ORDER.index(atom.kind), atom.key)):
        coefficient = build({without(m, atom): count for m, count in d.terms if atom in dict(m)})
        rest = d - coefficient * atom.expr
        low, high = bounds(coefficient)
        alternatives = _ends(atom, upper=low < 0) if low >= 0 or high <= 0 else []
        if alternatives:
            scale = atom.args[1] if atom.kind == "//" else 1
            goals = [[coefficient * end + scale * rest for end in ends] for ends in alternatives]
            return any(all(non_negative(goal, effort - 1) for goal in group) for group in goals)
    return False


def _ends(atom: Atom, upper: bool) -> list[tuple[Dim, ...]]:
    """Ways to bound an atom from one side; in each, one of the dims does, not known which. What bounds `x//d` is
    given `d` times as large, to be whole."""
    if isinstance(atom, Symbol):
        return [(atom.interval[upper],)]
    if isinstance(atom, Variable):
        return [(atom.extent - 1 if upper else 0,)]
    if isinstance(atom, Indirect):
        return [(atom.high if upper else atom.low,)]
    if atom.kind not in DIVISIONS:
        return [(arg,) for arg in atom.args] if atom.kind == ("min" if upper else "max") else [atom.args]
    from irc.dims.functions import floor_divide

    x, d = atom.args
    if bounds(d)[0] < 1:
        return []
    if atom.kind == "//":  # x - d + 1 <= d*(x//d) <= x
        return [(x if upper else x - d + 1,), (atom.interval[upper] * d,)]
    return [(x - d * floor_divide(x, d),), (d - 1 if upper else 0,)]
