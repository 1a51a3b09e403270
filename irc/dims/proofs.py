"""Questions about dims: whether one equals another, or is less, for all values within the ranges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from irc.dims.expression import (
    CACHED,
    DIVISIONS,
    Atom,
    Derived,
    Dim,
    DimError,
    Expr,
    Indirect,
    Symbol,
    Variable,
    bounds,
    build,
    build_at_length,
    collect,
    multiple_of,
    products,
    terms_of,
    without,
)

DEEPEST = 12  # atoms that a proof replaces one after the other
LARGEST_GOAL = 256  # as `size` of expressions
MOST_GOALS = 24  # that one proof looks at; real models need at most 14


def equal(a: Dim, b: Dim) -> bool | None:
    """Is `a` the same as `b` for all values (True), for none (False), or is that not known (None)?"""
    if a == b or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    difference = _combined((1, a), (-1, b))
    answers = {_is_non_negative(difference), _is_non_negative(_combined((-1, difference)))}
    constant = dict(terms_of(difference)).get((), 0)
    if False in answers or constant % (multiple_of(difference - constant) or 1):
        return False  # 2*x is never 1
    return True if answers == {True} else None


def same(a: Dim, b: Dim) -> bool:
    """Whether `a` is proven to be `b` for all values: `equal` without the proofs that distinguish False from None."""
    if a == b or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    difference = _combined((1, a), (-1, b))
    return non_negative(difference) and non_negative(_combined((-1, difference)))


def less(a: Dim, b: Dim) -> bool | None:
    """Is `a < b` for all values, for none, or not known?"""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return _is_non_negative(_combined((1, b), (-1, a), (-1, 1)))


def less_equal(a: Dim, b: Dim) -> bool | None:
    """Is `a <= b` for all values, for none, or not known?"""
    if isinstance(a, int) and isinstance(b, int):
        return a <= b
    return _is_non_negative(_combined((1, b), (-1, a)))


def _is_non_negative(d: Dim) -> bool | None:
    return True if non_negative(d) else False if non_negative(_combined((-1, d), (-1, 1))) else None


def _combined(*parts: tuple[Dim, Dim]) -> Dim:
    """The sum of products, without derived symbols for what is large: it is looked at once."""
    return build_at_length(collect(itertools.chain(*(products(terms_of(x), terms_of(y)) for x, y in parts))))


_ELIMINATION_ORDER = ("%", "variable", "indirect", "min", "max", "bcast", "//", "derived", "symbol")


@lru_cache(CACHED)
def non_negative(d: Dim) -> bool:
    """Whether `d >= 0` is proven. Intervals forget that two terms share an atom; so write `d = c*atom + rest`, and
    where the sign of `c` is known, replace the atom by what bounds it (an index by 0 or its extent - 1). Remainders
    go first, for an index may hide in them; symbols last, for what bounds other atoms may show them. Where that fails,
    what holds other atoms goes first: of p - p//2 the quotient."""
    low, high = bounds(d)
    if low >= 0 or high < 0 or isinstance(d, int) or _has_counterexample(d):
        return low >= 0
    return any(_proven(d, order, DEEPEST, [MOST_GOALS]) for order in (_by_kind, _by_size))


def _has_counterexample(d: Expr) -> bool:
    """Whether one of a few choices of sizes, and of indices at the ends of their axes, makes `d` negative: most of what
    cannot be proven is found out by them."""
    from irc.dims.evaluation import AtEnds, indices_of

    variables = indices_of(d)
    extents = [atom.extent for atom in variables if isinstance(atom, Variable)]
    if len(extents) < len(variables):  # an index that is loaded
        return False
    for choice in AtEnds.CHOICES:
        try:
            last = [AtEnds(choice).dim(extent) - 1 for extent in extents]
            for ends in ((last, [0] * len(last)) if last else ([],)):
                if min(last, default=0) >= 0 and AtEnds(choice, dict(zip(variables, ends, strict=True))).dim(d) < 0:
                    return True
        except DimError:  # undefined there
            continue
    return False


def _by_kind(atom: Atom) -> tuple[object, ...]:
    return _ELIMINATION_ORDER.index(atom.kind), atom.key


def _by_size(atom: Atom) -> tuple[object, ...]:
    return -atom.size, *_by_kind(atom)


def _proven(d: Dim, order: Callable[[Atom], Any], depth: int, goals_left: list[int]) -> bool:
    """The same, by so many replacements in one order; what is left of `goals_left` is shared by all branches."""
    d = _reduced(d)
    low, high = bounds(d)
    goals_left[0] -= 1
    if low >= 0 or high < 0 or isinstance(d, int) or not depth or goals_left[0] < 0 or d.size > LARGEST_GOAL:
        return low >= 0
    atoms = {atom for monomial, _ in d.terms for atom, _ in monomial}
    for atom in sorted(atoms, key=order):
        coefficient = build({without(m, atom): count for m, count in d.terms if atom in dict(m)})
        rest = build_at_length({m: count for m, count in d.terms if atom not in dict(m)})
        low, high = bounds(coefficient)
        alternatives = _ends(atom, upper=low < 0) if low >= 0 or high <= 0 else []
        if alternatives:
            # d*scale is a multiple of the scale, so that d is at least 0 where d*scale is more than -scale.
            scale = atom.args[1] if atom.kind == "//" else 1
            slack = _combined((scale, rest), (1, scale), (-1, 1))
            return any(all(_proven(_combined((coefficient, end), (1, slack)), order, depth - 1, goals_left)
                           for end in ends) for ends in alternatives)  # fmt: skip
    return False


def _reduced(d: Dim) -> Dim:
    """What is at least 0 where `d` is: 2*x + 1 is where x is."""
    terms = dict(terms_of(d))
    constant = terms.pop((), 0)
    divisor = math.gcd(*terms.values())
    if divisor <= 1:
        return d
    return build_at_length({(): constant // divisor, **{m: count // divisor for m, count in terms.items()}})


def _ends(atom: Atom, upper: bool) -> list[tuple[Dim, ...]]:
    """Ways to bound an atom from one side; in each, one of the dims does, not known which. What bounds `x//d` is
    given `d` times as large, to be whole."""
    if isinstance(atom, Symbol):
        return [(atom.interval[upper],)]
    if isinstance(atom, Variable):
        return [(atom.extent - 1 if upper else 0,)]
    if isinstance(atom, Derived):
        return [(atom.interval[upper],), (atom.definition,)]
    if isinstance(atom, Indirect):
        return [(atom.high if upper else atom.low,)]
    if atom.kind not in DIVISIONS:
        return [(arg,) for arg in atom.args] if atom.kind == ("min" if upper else "max") else [atom.args]
    from irc.dims.functions import floor_divide

    x, d = atom.args
    if bounds(d)[0] < 0:
        return []
    if atom.kind == "//":  # x - d + 1 <= d*(x//d) <= x
        return [(x if upper else x - d + 1,), (atom.interval[upper] * d,)]
    return [(x - d * floor_divide(x, d),), (d - 1 if upper else 0,)]
