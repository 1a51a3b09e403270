"""The dim language: integer expressions that serve tensor dims and loop indices alike.

A `Dim` is an `int` or an `Expr`, and an `Expr` never denotes a plain constant: `isinstance(d, int)` asks "is it
static?". An `Expr` is a polynomial over atoms:

    Symbol      a run-time dim with a range and a known divisor            S in [16, 1024] % 16
    Variable    an index of a loop or kernel axis, over [0, extent)        i
    Indirect    a loaded value used as an index, with inclusive bounds     indirect(%ids)
    Function    // % min max bcast of other dims                           (H + 31)//32

One class for both, because the same proofs are wanted of both: `less(i*E + j, S*E)` bounds an address,
`equal(S, (S//16)*16)` types a reshape. `//` and `%` round towards minus infinity, as in Python.

Questions are answered True (for all values within the ranges), False (for none) or None (not known), and never
guessed. Simplifications hold wherever the original is defined; `x//d` and `x % d` are rewritten only where the
interval of `d` excludes 0, so that `E*B//B` is `E` only where B cannot be 0; `bcast` may drop the check of its sizes.

Atoms compare by identity (functions and indirects are interned), so that no cache confuses two symbols of one
name. They are ordered by name, then by age, so that text does not depend on hashing.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# "To the end" in an ONNX Slice is written as 1e9, INT_MAX or INT64_MAX: a size must stay below them all.
IMPORTED_LOW = 1
IMPORTED_HIGH = 10**9

_CACHED = 1 << 14
_DIVISIONS = ("//", "%")
_serials = itertools.count()


class DimError(ValueError):
    """A dim that is malformed, impossible, or without a value."""


class Expr:
    """A polynomial that is not constant: immutable, compared by structure, made by arithmetic only."""

    __slots__ = ("_hash", "terms")
    __array_ufunc__ = None  # a NumPy integer on the left must not swallow us into an object array

    def __init__(self, terms: tuple[Term, ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms)

    def __add__(self, other: Dim) -> Dim:
        return _build(_collect(_terms(other), self.terms))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __neg__(self) -> Dim:
        return Expr(tuple((monomial, -coefficient) for monomial, coefficient in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        return _build(_collect(_products(self.terms, _terms(other))))

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return modulo(other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        return format_dim(self)


class _Atom:
    """What all atoms share: identity and age, a sort key, an interval and a known divisor. `kind` is the function
    or the name of the class, `args` are the function's."""

    __slots__ = ("__weakref__", "args", "divisor", "interval", "key", "kind", "serial")

    def _describe(self, key: tuple[Any, ...], interval: tuple[int, int], divisor: int = 1,
                  args: tuple[Dim, ...] = ()) -> None:
        self.serial = next(_serials)
        self.key = (*key, self.serial)
        self.kind = str(key[1])
        self.interval = interval
        self.divisor = divisor
        self.args = args

    @property
    def expr(self) -> Expr:
        """The atom as a dim. Made on demand: to hold it would be a cycle, and interning wants prompt deaths."""
        return Expr(((((cast("Atom", self), 1),), 1),))

    def __hash__(self) -> int:
        return self.serial  # not the address: even the order of a set of atoms is then reproducible

    def __deepcopy__(self, memo: object) -> _Atom:
        return self  # a copied module keeps its symbols

    def __repr__(self) -> str:
        return format_dim(self.expr)


class Symbol(_Atom):
    """A run-time dim in [low, high], a multiple of `multiple`. Two symbols of one name are two symbols."""

    __slots__ = ("high", "low", "multiple", "name")

    def __init__(self, name: str, low: int = IMPORTED_LOW, high: int = IMPORTED_HIGH, multiple: int = 1) -> None:
        self.name, self.low, self.high, self.multiple = name, low, high, multiple
        if multiple < 1 or -(-low // multiple) > high // multiple:
            raise DimError(f"{name}: [{low}, {high}] holds no multiple of {multiple}, or that is not positive")
        interval = -(-low // multiple) * multiple, high // multiple * multiple
        self._describe((0, "symbol", name), interval, multiple)


class Variable(_Atom):
    """The index of one axis of a kernel, over [0, extent)."""

    __slots__ = ("extent", "name")

    def __init__(self, name: str, extent: Dim) -> None:
        self.name, self.extent = name, extent
        self._describe((1, "variable", name), (0, max(0, bounds(extent)[1] - 1)))


class Indirect(_Atom):
    """The value that `node` loads, used as an index; in [low, high], both inclusive. Interned."""

    __slots__ = ("high", "low", "node")
    node: Hashable
    low: Dim
    high: Dim

    def __new__(cls, node: Hashable, low: Dim, high: Dim) -> Indirect:
        self = _indirects.get((node, low, high))
        if self is None:
            self = _indirects[node, low, high] = super().__new__(cls)
            self.node, self.low, self.high = node, low, high
            least = bounds(low)[0]
            self._describe((2, "indirect"), (least, max(least, bounds(high)[1])))
        return self


class Function(_Atom):
    """`kind` of `args`, as the constructors (`floor_divide`, `minimum`, ...) left it: call those. Interned."""

    __slots__ = ()

    def __new__(cls, kind: str, args: tuple[Dim, ...]) -> Function:
        self = _functions.get((kind, args))
        if self is None:
            self = _functions[kind, args] = super().__new__(cls)
            key = (3, kind, tuple(map(_dim_key, args)))
            self._describe(key, _function_bounds(kind, args), _function_divisor(kind, args), args)
        return self


Dim = int | Expr
Atom = Symbol | Variable | Indirect | Function
Monomial = tuple[tuple[Atom, int], ...]  # atoms and their powers, sorted
Term = tuple[Monomial, int]

_indirects: WeakValueDictionary[tuple[Hashable, Dim, Dim], Indirect] = WeakValueDictionary()
_functions: WeakValueDictionary[tuple[str, tuple[Dim, ...]], Function] = WeakValueDictionary()
symbol = Symbol  # a new one, equal to no other; its `.expr` is it as a dim


# --- Polynomials ---
def _terms(d: Dim) -> tuple[Term, ...]:
    """The terms of a dim; of NumPy's integers too, and of nothing that is not whole."""
    if isinstance(d, Expr):
        return d.terms
    return (((), operator.index(d)),) if d else ()


def _monomial_key(monomial: Monomial) -> tuple[Any, ...]:
    """Sorts by falling degree, then by name. It is a monomial order, so that long division ends."""
    return -sum(power for _, power in monomial), tuple((atom.key, -power) for atom, power in monomial)


def _dim_key(d: Dim) -> tuple[Any, ...]:
    """Sorts expressions by their terms, and integers after them: `min(S, 512)`."""
    if isinstance(d, int):
        return 1, d
    return 0, tuple((_monomial_key(monomial), coefficient) for monomial, coefficient in d.terms)


def _multiply(left: Monomial, right: Monomial, sign: int = 1) -> Monomial:
    """`left * right`; with the sign -1 `left / right`, in which powers may be negative."""
    if not left or not right:
        return left or tuple((atom, sign * power) for atom, power in right)
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + sign * power
    return tuple(sorted(((atom, power) for atom, power in powers.items() if power), key=lambda item: item[0].key))


def _without(monomial: Monomial, atom: Atom) -> Monomial:
    return _multiply(monomial, ((atom, 1),), sign=-1)


def _common_term(left: Term, right: Term) -> Term:
    """The greatest common divisor."""
    powers = dict(right[0])
    common = tuple((atom, min(power, powers[atom])) for atom, power in left[0] if atom in powers)
    return common, math.gcd(left[1], right[1])


def _products(left: Iterable[Term], right: Iterable[Term]) -> list[Term]:
    return [(_multiply(m, n), count * factor) for (m, count), (n, factor) in itertools.product(left, right)]


def _collect(terms: Iterable[Term], start: Iterable[Term] = ()) -> dict[Monomial, int]:
    """The sum of terms, by monomial."""
    found = dict(start)
    for monomial, coefficient in terms:
        found[monomial] = found.get(monomial, 0) + coefficient
    return found


def _build(terms: Mapping[Monomial, int]) -> Dim:
    """The dim of these terms: zeros dropped, quotients and remainders recomposed, sorted, constants bare."""
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if any(atom.args for monomial in kept for atom, _ in monomial):
        kept = _recompose(kept)
    if len(kept) > 1:
        return Expr(tuple(sorted(kept.items(), key=lambda term: _monomial_key(term[0]))))
    for monomial, coefficient in kept.items():
        return Expr(((monomial, coefficient),)) if monomial else coefficient
    return 0


def _recompose(terms: dict[Monomial, int]) -> dict[Monomial, int]:
    """Apply the identities of `//` and `%` until none fits. Splitting an index and joining it again is how
    views meet, so this is what makes a view and its inverse cancel."""
    for monomial, coefficient in terms.items():
        for atom, _ in monomial:
            for pattern, value in _identities(atom, terms):
                factor, excess = divmod(coefficient, pattern[0][1])
                others = [(_without(monomial, atom), factor)]
                matched = dict(_products(others, pattern))
                if not excess and all(terms.get(key) == count for key, count in matched.items()):
                    kept = [(key, count) for key, count in terms.items() if key not in matched]
                    whole = _collect(_products(others, _terms(value)), kept)
                    return _recompose({key: count for key, count in whole.items() if count})
    return terms


def _identities(atom: Atom, terms: Iterable[Monomial]) -> Iterator[tuple[list[Term], Dim]]:
    """Sums that begin with a `//` or `%`, and what each of them equals."""
    if atom.kind not in _DIVISIONS or bounds(atom.args[1])[0] < 1:
        return
    x, d = atom.args
    own = ((atom, 1),)
    if atom.kind == "//":
        if isinstance(d, int) and multiple_of(x) % d == 0:
            yield [(own, d)], x  # d*(x//d) = x where d divides x
        return
    quotient = floor_divide(x, d)
    yield [(own, 1), *_terms(d * quotient)], x  # x % d + d*(x//d) = x
    yield [(own, -1), *_terms(x)], d * quotient  # x - x % d = d*(x//d)
    for other in [other for monomial in terms for other, _ in monomial]:
        if other.kind == "%" and other.args[0] == quotient:  # x % d + d*((x//d) % q) = x % (d*q)
            yield [(own, 1), *_terms(d * other.expr)], modulo(x, d * other.args[1])


def _sole_atom(d: Dim) -> Atom | None:
    """The atom that `d` is, or None."""
    match _terms(d):
        case ((((atom, 1),), 1),):
            return atom
    return None


def product(dims: Iterable[Dim]) -> Dim:
    return math.prod(dims)


def total(dims: Iterable[Dim]) -> Dim:
    return sum(dims)


# --- Intervals, divisors and proofs ---
@lru_cache(_CACHED)
def bounds(d: Dim) -> tuple[int, int]:
    """An interval, both ends inclusive, that holds every value of `d`; atoms are bounded, hence so are dims."""
    least = most = 0
    for monomial, coefficient in _terms(d):
        low = high = coefficient
        for atom, power in monomial:
            ends = [end**power for end in atom.interval]
            if power % 2 == 0 and atom.interval[0] <= 0 <= atom.interval[1]:
                ends.append(0)
            corners = [left * right for left in (low, high) for right in ends]
            low, high = min(corners), max(corners)
        least, most = least + low, most + high
    return least, most


@lru_cache(_CACHED)
def multiple_of(d: Dim) -> int:
    """The largest integer known to divide `d`. Of 0, which everything divides, it is 0."""
    return reduce(math.gcd, itertools.starmap(_term_divisor, _terms(d)), 0)


def _term_divisor(monomial: Monomial, coefficient: int) -> int:
    divisors: Iterable[int] = (atom.divisor**power for atom, power in monomial)
    return abs(coefficient) * math.prod(divisors)


def _function_bounds(kind: str, args: tuple[Dim, ...]) -> tuple[int, int]:
    lows, highs = zip(*map(bounds, args), strict=True)
    if kind not in ("//", "%"):  # bcast(0, 1) is 0
        return (max if kind == "max" else min)(lows), (min if kind == "min" else max)(highs)
    (x_low, d_low), (x_high, d_high) = lows, highs
    if kind == "//":
        divisors = [d for d in (d_low, -1, 1, d_high) if d and d_low <= d <= d_high]
        quotients = [x // d for x in (x_low, x_high) for d in divisors] or [0]
        return min(quotients), max(quotients)
    return min(0, d_low + 1), max(0, min(d_high - 1, x_high) if x_low >= 0 else d_high - 1)


def _function_divisor(kind: str, args: tuple[Dim, ...]) -> int:
    divisors = [multiple_of(arg) for arg in args]
    if kind != "//":
        return math.gcd(*divisors)
    x, d = divisors
    return x // d if isinstance(args[1], int) and x % d == 0 else 1


def equal(a: Dim, b: Dim) -> bool | None:
    """Is `a` the same as `b` for all values (True), for none (False), or is that not known (None)?"""
    difference = a - b
    answers = {less_equal(difference, 0), less_equal(0, difference)}
    constant = dict(_terms(difference)).get((), 0)
    if False in answers or constant % (multiple_of(difference - constant) or 1):
        return False  # 2*x is never 1
    return True if answers == {True} else None


def less(a: Dim, b: Dim) -> bool | None:
    """Is `a < b` for all values, for none, or not known?"""
    return less_equal(a + 1, b)


def less_equal(a: Dim, b: Dim) -> bool | None:
    """Is `a <= b` for all values, for none, or not known?"""
    difference = b - a
    return True if _non_negative(difference) else False if _non_negative(-difference - 1) else None


_ELIMINATION_ORDER = ("%", "variable", "indirect", "min", "max", "bcast", "//", "symbol")


@lru_cache(_CACHED)
def _non_negative(d: Dim, effort: int = 12) -> bool:
    """Whether `d >= 0` is proven. Intervals forget that two terms share an atom; so write `d = c*atom + rest`, and
    where the sign of `c` is known, replace the atom by what bounds it (an index by 0 or its extent - 1). Remainders
    go first, for an index may hide in them; symbols last, for what bounds other atoms may show them."""
    low, high = bounds(d)
    if low >= 0 or high < 0 or isinstance(d, int) or not effort:
        return low >= 0
    atoms = {atom for monomial, _ in d.terms for atom, _ in monomial}
    for atom in sorted(atoms, key=lambda atom: (_ELIMINATION_ORDER.index(atom.kind), atom.key)):
        coefficient = _build({_without(m, atom): count for m, count in d.terms if atom in dict(m)})
        rest = d - coefficient * atom.expr
        low, high = bounds(coefficient)
        alternatives = _ends(atom, upper=low < 0) if low >= 0 or high <= 0 else []
        if alternatives:
            scale = atom.args[1] if atom.kind == "//" else 1
            goals = [[coefficient * end + scale * rest for end in ends] for ends in alternatives]
            return any(all(_non_negative(goal, effort - 1) for goal in group) for group in goals)
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
    if atom.kind not in _DIVISIONS:
        return [(arg,) for arg in atom.args] if atom.kind == ("min" if upper else "max") else [atom.args]
    x, d = atom.args
    if bounds(d)[0] < 1:
        return []
    if atom.kind == "//":  # x - d + 1 <= d*(x//d) <= x
        return [(x if upper else x - d + 1,), (atom.interval[upper] * d,)]
    return [(x - d * floor_divide(x, d),), (d - 1 if upper else 0,)]


# --- Division ---
def floor_divide(a: Dim, b: Dim) -> Dim:
    """`a // b`, towards minus infinity. `b` is assumed not to be 0, but only simplified if it cannot be."""
    return _divide(a, b)[0]


def modulo(a: Dim, b: Dim) -> Dim:
    """`a % b`, with the sign of `b`: `a - b*(a//b)`."""
    return _divide(a, b)[1]


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """`a / b` towards plus infinity, written `(a + b - 1)//b` where `b` is known to be positive."""
    return floor_divide(a + b - 1, b) if bounds(b)[0] > 0 else -floor_divide(-a, b)


def exact_divide(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where `b` provably divides `a`, else None."""
    low, high = bounds(b)
    quotient, remainder = (0, 1) if low <= 0 <= high else _divide(a, b)
    return quotient if remainder == 0 else None


@lru_cache(_CACHED)
def _divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Quotient and remainder together: one set of rules keeps `b*(a//b) + a % b = a` recognisable."""
    low, high = bounds(b)
    if low == high == 0:
        raise DimError(f"division by zero: {a} by {b}")
    if isinstance(a, int) and isinstance(b, int):
        return divmod(a, b)
    if low <= 0 <= high:
        return Function("//", (a, b)).expr, Function("%", (a, b)).expr
    if high < 0:
        quotient, remainder = _divide(-a, -b)
        return quotient, -remainder
    if a == 0:
        return 0, 0

    # (q*b + r)//b = q + r//b; by a sum only where that leaves fewer terms
    quotient, rest = _long_divide(a, b)
    if quotient != 0 and (len(_terms(b)) == 1 or len(_terms(rest)) < len(_terms(a))):
        upper, remainder = _divide(rest, b)
        return quotient + upper, remainder

    # (g*x)//(g*d) = x//d, and the remainder is g times that of x
    common = _build(dict([reduce(_common_term, (*_terms(a), *_terms(b)))]))
    if common != 1:
        quotient, remainder = _divide(_long_divide(a, common)[0], _long_divide(b, common)[0])
        return quotient, common * remainder

    # (g*x + r)//(g*d) = x//d where 0 <= r < g: a row needs no column. With g = b, the quotient is found by proof
    whole = reduce(_common_term, _terms(b))
    for unit in (b, *(_build(dict([_common_term(term, whole)])) for term in _terms(a))):
        small = _long_divide(a, unit)[1] if unit != b else a
        for turns in (0, -1, bounds(small)[0] // bounds(unit)[1]):
            rest = small - turns * unit
            if small != 0 and _non_negative(rest) and _non_negative(unit - 1 - rest):
                quotient, remainder = _divide(a - rest, b)
                return quotient, remainder + rest
    return _divide_division(a, b)


def _long_divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """`q` and `r` of `a = q*b + r`, term by term. A constant leaves an `r` of at least 0, other coefficients one of
    their own sign. A number also divides what it is known to divide: `(S + 1)//16` where 16 divides S."""
    leading, lead = _terms(b)[0]
    for monomial, coefficient in _terms(a):
        others, count = _multiply(monomial, leading, sign=-1), coefficient // lead
        if monomial and count < 0:
            count = -(-coefficient // lead)
        quotient = _build({others: count}) if all(power > 0 for _, power in others) else 0
        used = quotient * b
        if quotient == 0 and isinstance(b, int) and _term_divisor(monomial, coefficient) % b == 0:
            common = math.gcd(coefficient, b)
            quotient = _divide_division(_build({monomial: coefficient // common}), b // common)[0]
            used = _build({monomial: coefficient})
        if quotient != 0:
            more, rest = _long_divide(a - used, b)
            return quotient + more, rest
    return 0, a


def _divide_division(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """What no other rule divides. `(x//p + c)//b = (x + c*p)//(p*b)`; where b divides n, `(x % n)//b = (x//b) % (n//b)`
    and `(x % n) % b = x % b`."""
    quotient: Dim = Function("//", (a, b)).expr
    remainder: Dim = Function("%", (a, b)).expr
    constant = dict(_terms(a)).get((), 0)
    inner = _sole_atom(a - constant)
    if inner is not None and inner.kind in _DIVISIONS and bounds(inner.args[1])[0] >= 1:
        x, divisor = inner.args
        count = exact_divide(divisor, b)
        if inner.kind == "//":
            quotient = floor_divide(x + constant * divisor, divisor * b)
        elif count is not None and constant == 0:
            quotient, remainder = modulo(floor_divide(x, b), count), modulo(x, b)
    return quotient, remainder


# --- Minimum, maximum, broadcast ---
def minimum(*dims: Dim) -> Dim:
    """The least of `dims`, without those that are never less than another."""
    return _extremum("min", dims)


def maximum(*dims: Dim) -> Dim:
    """The greatest of `dims`, without those that are never more than another."""
    return _extremum("max", dims)


@lru_cache(_CACHED)
def broadcast(*dims: Dim) -> Dim:
    """The common size of axes that broadcast: all are 1 or this. Sizes that can never fit are a DimError.
    What is never 1 wins; so does a symbol over what is 1 wherever the symbol is, as in `bcast(min(S, 512), S)`."""
    sizes = [d for d in _flatten("bcast", dims) if d != 1]
    never_one = [d for d in sizes if equal(d, 1) is False]
    for a, b in itertools.combinations(never_one, 2):
        if equal(a, b) is False:
            raise DimError(f"cannot broadcast {a} with {b}")
    if never_one:
        return next((d for d in never_one if isinstance(d, int)), never_one[0])
    for size in sizes:
        atom = _sole_atom(size)
        if isinstance(atom, Symbol):
            sizes = [d for d in sizes if d == size or not _is_one_with(d, atom)]
    return Function("bcast", tuple(sizes)).expr if len(sizes) > 1 else product(sizes)


def _flatten(kind: str, dims: tuple[Dim, ...]) -> list[Dim]:
    """The distinct arguments, those of nested functions of one kind included, in order."""
    atoms = [(d, _sole_atom(d)) for d in dims]
    nested = [atom.args if atom is not None and atom.kind == kind else (d,) for d, atom in atoms]
    return sorted(set(itertools.chain(*nested)), key=_dim_key)


@lru_cache(_CACHED)
def _extremum(kind: str, dims: tuple[Dim, ...]) -> Dim:
    def outdoes(a: Dim, b: Dim) -> bool:
        return (less_equal(a, b) if kind == "min" else less_equal(b, a)) is True

    kept: list[Dim] = []
    for d in _flatten(kind, dims):
        if not any(outdoes(other, d) for other in kept):
            kept = [*(other for other in kept if not outdoes(d, other)), d]
    if not kept:
        raise DimError(f"{kind} needs at least one argument")
    return kept[0] if len(kept) == 1 else Function(kind, tuple(kept)).expr


def _is_one_with(d: Dim, atom: Symbol) -> bool:
    try:
        return substitute(d, {atom: 1}) == 1
    except DimError:  # `d` is undefined there
        return False


_CONSTRUCTORS: dict[str, Callable[..., Dim]] = {
    "//": floor_divide, "%": modulo, "min": minimum, "max": maximum, "bcast": broadcast}
_ESTIMATORS = {**_CONSTRUCTORS, "bcast": maximum}


# --- Substitution and evaluation ---
def _atoms(terms: Iterable[Term]) -> Iterator[Atom]:
    """All atoms, functions and those inside them included."""
    for monomial, _ in terms:
        for atom, _ in monomial:
            yield atom
            for arg in atom.args:
                yield from _atoms(_terms(arg))


@lru_cache(_CACHED)
def free_atoms(d: Dim) -> tuple[Atom, ...]:
    """The symbols, variables and indirects of `d`, inside functions too (not within extents), in order."""
    return tuple(sorted({atom for atom in _atoms(_terms(d)) if not atom.args}, key=lambda atom: atom.key))


def free_symbols(d: Dim) -> tuple[Symbol, ...]:
    """The symbols of `d`, ordered by name, then by age."""
    return tuple(atom for atom in free_atoms(d) if isinstance(atom, Symbol))


def _replace(d: Dim, values: Mapping[Any, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """The polynomial over other values than its atoms; an atom without one stays."""
    return sum(_replaced_terms(_terms(d), values, functions))


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
    return (atom.args for atom in _atoms(_terms(d)) if atom.kind == "bcast")


def substitute(d: Dim, mapping: Mapping[Any, Dim]) -> Dim:
    """`d` with atoms replaced, inside functions too, and simplified anew. The extent of a variable and the
    bounds of an indirect belong to the atom and stay: map the atom itself to change them."""
    touched = [term for term in _terms(d) if any(atom in mapping for atom in _atoms([term]))]
    if not touched:
        return d
    kept = [term for term in _terms(d) if term not in touched]
    moved = map(_terms, _replaced_terms(touched, mapping, _CONSTRUCTORS))
    return _build(_collect(itertools.chain(*moved), kept))


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
    value: Dim = _replace(d, environment, _CONSTRUCTORS)
    if isinstance(value, Expr):
        raise DimError(f"no value is given for {free_atoms(value)[0]}")
    return value


def at_sizes(d: Dim, environment: Mapping[Any, int]) -> Dim:
    """`d` where atoms have values. Sizes of axes that broadcast against each other may differ: the larger is taken."""
    return cast(Dim, _replace(d, environment, _ESTIMATORS))


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


# --- Text ---
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(rf"""[0-9]+|{_NAME.pattern}|"(?:[^"\\]|\\.)*"|//|\S""")
_OPERATORS: dict[str, tuple[int, Callable[..., Dim]]] = {  # the higher number binds tighter
    "+": (0, operator.add), "-": (0, operator.sub), "*": (1, operator.mul), "//": (1, floor_divide), "%": (1, modulo)}
_DEEPEST = 100


def format_dim(d: Dim) -> str:
    """The text of a dim, which `parse_dim` reads back (but for indirects, which only the reader sees)."""
    text = ""
    for monomial, coefficient in _terms(d) or [((), 0)]:
        sign = "-" if coefficient < 0 else "+"
        factors = [atom for atom, power in monomial for _ in range(power)]
        number = [str(abs(coefficient))] if abs(coefficient) != 1 or not factors else []
        loose = len(number) + len(factors) == 1 and (text or sign == "+")  # unary minus binds tighter than //
        term = "*".join(number + [_format_atom(atom, brackets=not loose) for atom in factors])
        text = f"{text} {sign} {term}" if text else term if sign == "+" else f"-{term}"
    return text


def _format_atom(atom: Atom, brackets: bool) -> str:
    if isinstance(atom, Indirect):
        return f"indirect({atom.node})"
    if not isinstance(atom, Function):
        plain = _NAME.fullmatch(atom.name) and atom.name not in _CONSTRUCTORS
        return atom.name if plain else json.dumps(atom.name, ensure_ascii=not atom.name.isprintable())
    if atom.kind not in _DIVISIONS:
        return f"{atom.kind}({', '.join(map(format_dim, atom.args))})"
    left, right = map(_format_operand, atom.args)
    text = f"{left}//{right}" if atom.kind == "//" else f"{left} % {right}"
    return f"({text})" if brackets else text


def _format_operand(d: Dim) -> str:
    atom = _sole_atom(d)
    simple = d >= 0 if isinstance(d, int) else atom is not None and atom.kind not in _DIVISIONS
    return format_dim(d) if simple else f"({format_dim(d)})"


def parse_dim(text: str, lookup: Callable[[str], Symbol | Variable]) -> Dim:
    """Read a dim; `lookup` gives the symbol of a name, or a KeyError. A DimError says what is wrong with the text."""
    parser = _Parser(text, lookup)
    result = parser.expression()
    parser.take("")
    return result


class _Parser:
    """Precedence climbing: each method reads from the front of the tokens, of which the last one is empty."""

    def __init__(self, text: str, lookup: Callable[[str], Symbol | Variable]) -> None:
        self.tokens = deque([*_TOKEN.findall(text), ""])
        self.lookup = lookup
        self.depth = 0

    def take(self, wanted: str) -> None:
        found = self.tokens.popleft()
        if found != wanted:
            raise DimError(f"expected {wanted or 'an operator'}, found {found or 'the end'}")

    def expression(self, loosest: int = 0) -> Dim:
        """Operands joined by operators that bind no looser than this."""
        result = self.operand()
        while self.tokens[0] in _OPERATORS and _OPERATORS[self.tokens[0]][0] >= loosest:
            tightness, operation = _OPERATORS[self.tokens.popleft()]
            result = operation(result, self.expression(tightness + 1))
        return result

    def operand(self) -> Dim:
        token = self.tokens.popleft()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise DimError("nested too deeply")
        if token == "-":
            result = -self.operand()
        elif token == "(":
            result = self.expression()
            self.take(")")
        elif token in ("min", "max", "bcast"):
            self.take("(")
            args = [self.expression()]
            while self.tokens[0] == ",":
                self.take(",")
                args.append(self.expression())
            self.take(")")
            result = _CONSTRUCTORS[token](*args)
        elif token.isdecimal():
            result = int(token)
        elif _NAME.fullmatch(token) or token[1:].endswith('"'):
            result = self.symbol(token)
        else:
            raise DimError(f"expected a dim, found {token or 'the end'}")
        self.depth -= 1
        return result

    def symbol(self, token: str) -> Dim:
        try:
            return self.lookup(json.loads(token) if token[0] == '"' else token).expr
        except KeyError:
            raise DimError(f"no symbol is named {token}") from None
        except ValueError as error:  # a bad escape
            raise DimError(str(error)) from None
