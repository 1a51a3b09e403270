"""The dim language: integer expressions that serve tensor dims and loop indices alike.

A `Dim` is an `int` or an `Expr`, and an `Expr` never denotes a plain constant: whatever simplifies to a
constant is an `int`, so `isinstance(d, int)` asks "is it static?". An `Expr` is a polynomial over atoms:

    Symbol      a run-time dim with a range and a known divisor            S in [16, 1024] % 16
    Variable    an index of a loop or kernel axis, over [0, extent)        i
    Indirect    a loaded value used as an index, with inclusive bounds     indirect(%ids)
    Function    // % min max bcast of other dims                           (H + 31)//32

One class for both, because the same proofs are wanted of both: `less(i*E + j, S*E)` bounds an address,
`equal(S, (S//16)*16)` types a reshape. `//` and `%` round towards minus infinity, as in Python.

Questions have three answers, True, False and None (not known), and are never guessed: True means for all
values within the ranges, False means for none. Simplifications hold wherever the original is defined; in
particular `x//d` and `x % d` are rewritten only where the interval of `d` excludes 0, so that `E*B//B` is
`E` only where B cannot be 0, and `bcast` may drop the check that its sizes fit.

Atoms compare by identity (functions and indirects are interned), so that no cache confuses two symbols of
one name. They are ordered by name, then by age, so that text does not depend on hashing.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from numpy.typing import NDArray

# "To the end" in an ONNX Slice is written as 1e9, INT_MAX or INT64_MAX: a size must stay below them all.
IMPORTED_LOW = 1
IMPORTED_HIGH = 10**9

_CACHED = 1 << 14
_serials = itertools.count()


class DimError(ValueError):
    """A dim that is malformed, impossible, or without a value. `column` is a 0-based offset into parsed text."""

    def __init__(self, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


# --- Expressions and atoms --------------------------------------------------------------------------------


class Expr:
    """A polynomial that is not constant: immutable, compared by structure, made by arithmetic only."""

    __slots__ = ("_bounds", "_hash", "_key", "terms")
    __array_ufunc__ = None  # a NumPy integer on the left must not swallow us into an object array

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._bounds: tuple[int, int] | None = None
        self._key: tuple[Any, ...] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other: Dim) -> Dim:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _build(terms)

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __neg__(self) -> Dim:
        return Expr(tuple((monomial, -coefficient) for monomial, coefficient in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        return _build(_multiply(self.terms, _terms(other)))

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

    def __str__(self) -> str:
        return format_dim(self)

    def __repr__(self) -> str:
        return f"<dim {self}>"


class _Atom:
    """What all atoms share: identity, age, a deterministic sort key, an interval and a known divisor."""

    __slots__ = ("__weakref__", "divisor", "interval", "key", "serial")

    def _describe(self, key: tuple[Any, ...], interval: tuple[int, int], divisor: int = 1) -> None:
        self.serial = next(_serials)
        self.key = (*key, self.serial)
        self.interval = interval
        self.divisor = divisor

    @property
    def expr(self) -> Expr:
        """The atom as a dim. Made on demand: to hold it would be a cycle, and interning wants prompt deaths."""
        return Expr(((((cast("Atom", self), 1),), 1),))

    def __hash__(self) -> int:
        return self.serial  # not the address: even the order of a set of atoms is then reproducible

    def __eq__(self, other: object) -> bool:
        return self is other

    def __deepcopy__(self: _AnyAtom, memo: object) -> _AnyAtom:
        return self  # a copied module keeps its symbols

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.expr}>"


class Symbol(_Atom):
    """A run-time dim in [low, high], a multiple of `multiple`. Two symbols of one name are two symbols."""

    __slots__ = ("high", "low", "multiple", "name")

    def __init__(self, name: str, low: int = IMPORTED_LOW, high: int = IMPORTED_HIGH, multiple: int = 1) -> None:
        if multiple < 1:
            raise DimError(f"{name}: the known divisor must be at least 1, not {multiple}")
        least, most = -(-low // multiple) * multiple, high // multiple * multiple
        if least > most:
            raise DimError(f"{name}: [{low}, {high}] holds no multiple of {multiple}")
        self.name = name
        self.low = low
        self.high = high
        self.multiple = multiple
        self._describe((0, name), (least, most), multiple)


class Variable(_Atom):
    """The index of one axis of a kernel, over [0, extent)."""

    __slots__ = ("extent", "name")

    def __init__(self, name: str, extent: Dim) -> None:
        self.name = name
        self.extent = extent
        self._describe((1, name), (0, max(0, bounds(extent)[1] - 1)))


class Indirect(_Atom):
    """The value that `node` loads, used as an index; in [low, high], both inclusive. Interned."""

    __slots__ = ("high", "low", "node")
    node: Hashable
    low: Dim
    high: Dim

    def __new__(cls, node: Hashable, low: Dim, high: Dim) -> Indirect:
        self = _indirects.get((node, low, high))
        if self is None:
            self = super().__new__(cls)
            self.node = node
            self.low = low
            self.high = high
            least = bounds(low)[0]
            self._describe((2,), (least, max(least, bounds(high)[1])))
            _indirects[node, low, high] = self
        return self


class Function(_Atom):
    """`kind` of `args`, as the constructors (`floor_divide`, `minimum`, ...) left it: call those. Interned."""

    __slots__ = ("args", "kind")
    kind: str
    args: tuple[Dim, ...]

    def __new__(cls, kind: str, args: tuple[Dim, ...]) -> Function:
        self = _functions.get((kind, args))
        if self is None:
            self = super().__new__(cls)
            self.kind = kind
            self.args = args
            key = (3, kind, tuple(_dim_key(arg) for arg in args))
            self._describe(key, _function_bounds(kind, args), _function_divisor(kind, args))
            _functions[kind, args] = self
        return self


Dim = int | Expr
Atom = Symbol | Variable | Indirect | Function
Monomial = tuple[tuple[Atom, int], ...]
_AnyAtom = TypeVar("_AnyAtom", bound=_Atom)
_Key = TypeVar("_Key", bound=_Atom)  # mappings are invariant in their keys: this accepts dict[Symbol, int]

_indirects: WeakValueDictionary[tuple[Hashable, Dim, Dim], Indirect] = WeakValueDictionary()
_functions: WeakValueDictionary[tuple[str, tuple[Dim, ...]], Function] = WeakValueDictionary()


def symbol(name: str, low: int = IMPORTED_LOW, high: int = IMPORTED_HIGH, multiple: int = 1) -> Symbol:
    """A new symbol, equal to no other; its `.expr` is it as a dim."""
    return Symbol(name, low, high, multiple)


# --- Polynomials ------------------------------------------------------------------------------------------


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The terms of a dim; of NumPy's integers too, and of nothing that is not whole."""
    if isinstance(d, Expr):
        return d.terms
    return (((), operator.index(d)),) if d else ()


def _monomial_key(monomial: Monomial) -> tuple[Any, ...]:
    """Sorts by falling degree, then by name. It is a monomial order, so the long division of `_split` ends."""
    return -sum(power for _, power in monomial), tuple((atom.key, -power) for atom, power in monomial)


def _dim_key(d: Dim) -> tuple[Any, ...]:
    """Sorts expressions by their terms, and integers after them: `min(S, 512)`."""
    if isinstance(d, int):
        return 1, d
    if d._key is None:
        d._key = (0, tuple((_monomial_key(monomial), coefficient) for monomial, coefficient in d.terms))
    return d._key


def _multiply_monomials(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].key))


def _divide_monomials(left: Monomial, right: Monomial) -> Monomial | None:
    """`left / right`, or None where that is no monomial."""
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) - power
        if powers[atom] < 0:
            return None
    return tuple((atom, power) for atom, power in powers.items() if power)


def _common_monomial(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(right)
    return tuple((atom, min(power, powers[atom])) for atom, power in left if atom in powers)


def _multiply(left: Iterable[tuple[Monomial, int]], right: Iterable[tuple[Monomial, int]]) -> dict[Monomial, int]:
    result: dict[Monomial, int] = {}
    right = tuple(right)
    for monomial, coefficient in left:
        for other, factor in right:
            key = _multiply_monomials(monomial, other)
            result[key] = result.get(key, 0) + coefficient * factor
    return result


def _build(terms: Mapping[Monomial, int]) -> Dim:
    """The dim of these terms: zeros dropped, quotients and remainders recomposed, sorted, constants bare."""
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if any(type(atom) is Function for monomial in kept for atom, _ in monomial):
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
            if type(atom) is not Function or atom.kind not in ("//", "%"):
                continue
            rest = cast(Monomial, _divide_monomials(monomial, ((atom, 1),)))
            for pattern, value in _identities(atom, terms):
                factor, excess = divmod(coefficient, pattern[(atom, 1),])
                matched = _multiply(((rest, factor),), pattern.items())
                if excess or any(terms.get(key) != count for key, count in matched.items()):
                    continue
                result = {key: count for key, count in terms.items() if key not in matched}
                for key, count in _multiply(((rest, factor),), _terms(value)).items():
                    result[key] = result.get(key, 0) + count
                return _recompose({key: count for key, count in result.items() if count})
    return terms


def _identities(atom: Function, terms: Mapping[Monomial, int]) -> Iterator[tuple[dict[Monomial, int], Dim]]:
    """Sums that contain `atom`, a `//` or `%`, and what each of them equals."""
    x, d = atom.args
    if not _excludes_zero(d):
        return
    if atom.kind == "//":
        if isinstance(d, int) and multiple_of(x) % d == 0:
            yield {((atom, 1),): d}, x  # d*(x//d) = x where d divides x
        return
    alone: dict[Monomial, int] = {((atom, 1),): 1}
    quotient = floor_divide(x, d)
    yield alone | _multiply(_terms(d), _terms(quotient)), x  # d*(x//d) + x % d = x
    yield {((atom, 1),): -1} | dict(_terms(x)), d * quotient  # x - x % d = d*(x//d)
    for other in [other for monomial in terms for other, _ in monomial]:
        if isinstance(other, Function) and other.kind == "%" and other.args[0] == quotient:
            upper = _multiply(_terms(d), _terms(other.expr))
            yield alone | upper, modulo(x, d * other.args[1])  # d*((x//d) % q) + x % d = x % (d*q)


def product(dims: Iterable[Dim]) -> Dim:
    return math.prod(dims)


def total(dims: Iterable[Dim]) -> Dim:
    return sum(dims)


# --- Intervals and divisors -------------------------------------------------------------------------------


def bounds(d: Dim) -> tuple[int, int]:
    """An interval, both ends inclusive, that holds every value of `d`; atoms are bounded, hence so are dims."""
    if isinstance(d, int):
        return d, d
    if d._bounds is None:
        low = high = 0
        for monomial, coefficient in d.terms:
            term = (coefficient, coefficient)
            for atom, power in monomial:
                term = _multiply_intervals(term, _power_interval(atom.interval, power))
            low, high = low + term[0], high + term[1]
        d._bounds = (low, high)
    return d._bounds


def multiple_of(d: Dim) -> int:
    """The largest integer known to divide `d`. Of 0, which everything divides, it is 0."""
    return reduce(math.gcd, (_term_divisor(monomial, coefficient) for monomial, coefficient in _terms(d)), 0)


def _term_divisor(monomial: Monomial, coefficient: int) -> int:
    divisors: Iterable[int] = (atom.divisor**power for atom, power in monomial)
    return abs(coefficient) * math.prod(divisors)


def _multiply_intervals(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    corners = [a * b for a in left for b in right]
    return min(corners), max(corners)


def _power_interval(interval: tuple[int, int], power: int) -> tuple[int, int]:
    low, high = sorted(end**power for end in interval)
    return (0, high) if power % 2 == 0 and interval[0] <= 0 <= interval[1] else (low, high)


def _function_bounds(kind: str, args: tuple[Dim, ...]) -> tuple[int, int]:
    intervals = [bounds(arg) for arg in args]
    lows, highs = [low for low, _ in intervals], [high for _, high in intervals]
    if kind == "min":
        return min(lows), min(highs)
    if kind == "max":
        return max(lows), max(highs)
    if kind == "bcast":  # 0 against 1 gives 0
        return min(lows), max(highs)
    (x_low, x_high), (d_low, d_high) = intervals
    if kind == "//":
        divisors = [d for d in (d_low, -1, 1, d_high) if d and d_low <= d <= d_high]
        quotients = [x // d for x in (x_low, x_high) for d in divisors] or [0]
        return min(quotients), max(quotients)
    least = max(d_low + 1, x_low) if x_high <= 0 else d_low + 1
    most = min(d_high - 1, x_high) if x_low >= 0 else d_high - 1
    return min(0, least), max(0, most)


def _function_divisor(kind: str, args: tuple[Dim, ...]) -> int:
    divisors = [multiple_of(arg) for arg in args]
    if kind == "//":
        known = isinstance(args[1], int) and divisors[0] % divisors[1] == 0
        return divisors[0] // divisors[1] if known else 1
    return math.gcd(*divisors)


def _excludes_zero(d: Dim) -> bool:
    low, high = bounds(d)
    return low > 0 or high < 0


# --- Proofs -----------------------------------------------------------------------------------------------


def equal(a: Dim, b: Dim) -> bool | None:
    """Is `a` the same as `b` for all values (True), for none (False), or is that not known (None)?"""
    difference = a - b
    if isinstance(difference, int):
        return difference == 0
    low, high = bounds(difference)
    if low == high:
        return low == 0
    if low > 0 or high < 0:
        return False
    constant = next((coefficient for monomial, coefficient in difference.terms if not monomial), 0)
    if constant % multiple_of(difference - constant):
        return False  # 2*x is never 1
    if _non_negative(difference):
        return True if _non_negative(-difference) else False if _non_negative(difference - 1) else None
    return False if _non_negative(-difference - 1) else None


def less(a: Dim, b: Dim) -> bool | None:
    """Is `a < b` for all values, for none, or not known?"""
    return less_equal(a + 1, b)


def less_equal(a: Dim, b: Dim) -> bool | None:
    """Is `a <= b` for all values, for none, or not known?"""
    difference = b - a
    return True if _non_negative(difference) else False if _non_negative(-difference - 1) else None


@lru_cache(_CACHED)
def _non_negative(d: Dim, effort: int = 12) -> bool:
    """Whether `d >= 0` is proven. Intervals forget that two terms share an atom; so move every atom to its low
    end and look at the signs, else replace one atom by what bounds it (an index by 0 or its extent - 1)."""
    low, high = bounds(d)
    if low >= 0 or high < 0 or isinstance(d, int):
        return low >= 0
    if _has_no_negative_term(d):
        return True
    atoms = {atom for monomial, _ in d.terms for atom, _ in monomial}
    for atom in sorted(atoms, key=_elimination_order) if effort else ():
        alternatives = _eliminate(d, atom)
        if alternatives:
            return any(all(_non_negative(goal, effort - 1) for goal in goals) for goals in alternatives)
    return False


def _has_no_negative_term(d: Expr) -> bool:
    """Whether, with each atom written as its least value plus a rest, no coefficient is negative."""
    if sum(2 ** sum(power for _, power in monomial) for monomial, _ in d.terms) > 256:
        return False
    shifted: dict[Monomial, int] = {}
    for monomial, coefficient in d.terms:
        factor: dict[Monomial, int] = {(): coefficient}
        for atom, power in monomial:
            for _ in range(power):
                factor = _multiply(factor.items(), ((((atom, 1),), 1), ((), atom.interval[0])))
        for key, count in factor.items():
            shifted[key] = shifted.get(key, 0) + count
    return all(coefficient >= 0 for coefficient in shifted.values())


def _elimination_order(atom: Atom) -> tuple[Any, ...]:
    """Remainders first, for an index may hide in them; quotients last, for an extent may show them."""
    if isinstance(atom, Function):
        return {"%": 0, "//": 4}.get(atom.kind, 3), atom.key
    return 1 if isinstance(atom, Variable) else 2, atom.key


def _eliminate(d: Expr, atom: Atom) -> list[list[Dim]]:
    """Ways to prove `d >= 0` without `atom`, in which `d` must be linear: in each, all goals must be >= 0."""
    linear: dict[Monomial, int] = {}
    others: dict[Monomial, int] = {}
    for monomial, count in d.terms:
        rest = _divide_monomials(monomial, ((atom, 1),))
        if rest is None:
            others[monomial] = count
        else:
            linear[rest] = count
    if isinstance(atom, Symbol) or any(factor is atom for monomial in linear for factor, _ in monomial):
        return []
    coefficient, rest_of_d = _build(linear), _build(others)
    low, high = bounds(coefficient)
    if isinstance(atom, Function) and atom.kind in ("min", "max", "bcast"):
        goals = [coefficient * arg + rest_of_d for arg in atom.args]  # it is one of its arguments
        one_is_enough = (atom.kind == "min" and high <= 0) or (atom.kind == "max" and low >= 0)
        return [[goal] for goal in goals] if one_is_enough else [goals]
    if isinstance(atom, Function) and bounds(atom.args[1])[0] < 1:
        return []
    found = []
    if isinstance(atom, Function) and atom.kind == "%":
        x, divisor = atom.args
        found.append([coefficient * (x - divisor * floor_divide(x, divisor)) + rest_of_d])
    if low < 0 < high:
        return found
    if isinstance(atom, Variable):
        end = 0 if low >= 0 else atom.extent - 1
    elif isinstance(atom, Indirect):
        end = atom.low if low >= 0 else atom.high
    elif atom.kind == "%":
        end = 0 if low >= 0 else atom.args[1] - 1
    else:  # x - d + 1 <= d*(x//d) <= x, and d >= 1 scales the goal
        x, divisor = atom.args
        end = x - divisor + 1 if low >= 0 else x
        rest_of_d = rest_of_d * divisor
    found.append([coefficient * end + rest_of_d])
    return found


# --- Division ---------------------------------------------------------------------------------------------


def floor_divide(a: Dim, b: Dim) -> Dim:
    """`a // b`, towards minus infinity. `b` is assumed not to be 0, but only simplified if it cannot be."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a // b
    return _divide(a, b)[0]


def modulo(a: Dim, b: Dim) -> Dim:
    """`a % b`, with the sign of `b`: `a - b*(a//b)`."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a % b
    return _divide(a, b)[1]


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """`a / b` towards plus infinity, written `(a + b - 1)//b` where `b` is known to be positive."""
    return floor_divide(a + b - 1, b) if bounds(b)[0] > 0 else -floor_divide(-a, b)


def exact_divide(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where `b` provably divides `a`, else None."""
    if not _excludes_zero(b):
        return None
    quotient, remainder = _divide(a, b)
    return quotient if remainder == 0 else None


@lru_cache(_CACHED)
def _divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Quotient and remainder together: one set of rules keeps `b*(a//b) + a % b = a` recognisable."""
    low, high = bounds(b)
    if low == high == 0:
        raise DimError(f"division by zero: {a} by {b}")
    if low <= 0 <= high:
        return Function("//", (a, b)).expr, Function("%", (a, b)).expr
    if high < 0:
        quotient, remainder = _divide(-a, -b)
        return quotient, -remainder
    for rule in (_split, _range, _separate_multiples, _drop_small_part, _cancel):
        found = rule(a, b)
        if found is not None:
            return found
    return _quotient(a, b), _remainder(a, b)


# Each rule below takes a divisor of at least 1, and gives both results or None where it does not apply.


def _split(a: Dim, b: Dim) -> tuple[Dim, Dim] | None:
    """`(q*b + r)//b = q + r//b`, by terms, or by long division where `b` is a sum and that leaves fewer terms.
    A constant leaves a remainder of at least 0, other coefficients one of their own sign."""
    (leading, lead), *more = _terms(b)
    quotient: dict[Monomial, int] = {}
    remaining = dict(_terms(a))
    pending = list(remaining)
    while pending:
        monomial = pending.pop(0)
        rest, coefficient = _divide_monomials(monomial, leading), remaining[monomial]
        count = coefficient // lead
        if monomial and count < 0:
            count = -(-coefficient // lead)
        if rest is None or not count:
            continue
        quotient[rest] = count
        for key, amount in _multiply(((rest, count),), _terms(b)).items():
            remaining[key] = remaining.get(key, 0) - amount
            if key != monomial and key not in pending:
                pending = sorted([*pending, key], key=_monomial_key)
    kept = sum(1 for coefficient in remaining.values() if coefficient)
    if not quotient or (more and kept >= len(_terms(a))):
        return None
    upper, lower = _divide(_build(remaining), b)
    return _build(quotient) + upper, lower


def _range(a: Dim, b: Dim) -> tuple[Dim, Dim] | None:
    """`r//d = q` where `q*d <= r < (q + 1)*d`: within one interval, or, by proof, for q = 0 and q = -1."""
    low, high = bounds(a)
    if isinstance(b, int) and low // b == high // b:
        return low // b, a - low // b * b
    for quotient in (0, -1):
        remainder = a - quotient * b
        if _non_negative(remainder) and _non_negative(b - 1 - remainder):
            return quotient, remainder
    return None


def _separate_multiples(a: Dim, b: Dim) -> tuple[Dim, Dim] | None:
    """`(S + r)//d = S//d + r//d` where d is known to divide S."""
    if not isinstance(b, int) or len(_terms(a)) < 2:
        return None
    divisible = [_build({key: count}) for key, count in _terms(a) if _term_divisor(key, count) % b == 0]
    if not divisible:
        return None
    quotient, remainder = _divide(a - total(divisible), b)
    return quotient + total(floor_divide(term, b) for term in divisible), remainder


def _drop_small_part(a: Dim, b: Dim) -> tuple[Dim, Dim] | None:
    """`(g*x + c)//(g*d) = x//d` where `0 <= c < g`: the row of an index needs no column."""
    if len(_terms(b)) > 1:
        return None
    ((whole, size),) = _terms(b)
    units: dict[tuple[Monomial, int], None] = {}
    for monomial, coefficient in _terms(a):
        if monomial:
            common = _common_monomial(monomial, whole)
            rest = cast(Monomial, _divide_monomials(monomial, common))
            units[common, math.gcd(_term_divisor(rest, coefficient), size)] = None
    for common, count in units:
        kept: dict[Monomial, int] = {}
        for monomial, coefficient in _terms(a):
            if not monomial and not common:
                kept[monomial] = coefficient - coefficient % count
                continue
            left = _divide_monomials(monomial, common)
            if left is not None and _term_divisor(left, coefficient) % count == 0:
                kept[monomial] = coefficient
        unit, rest_of_a = _build({common: count}), _build(kept)
        small = a - rest_of_a
        if small != 0 and _non_negative(small) and _non_negative(unit - 1 - small):
            quotient, remainder = _divide(rest_of_a, b)
            return quotient, remainder + small
    return None


def _cancel(a: Dim, b: Dim) -> tuple[Dim, Dim] | None:
    """`(g*x)//(g*d) = x//d`, and the remainder is `g` times that of `x`, for the largest common term `g`."""
    terms = (*_terms(a), *_terms(b))
    count = math.gcd(*(coefficient for _, coefficient in terms))
    common = reduce(_common_monomial, (monomial for monomial, _ in terms))
    if count == 1 and not common:
        return None
    quotient, remainder = _divide(*(_divide_by_term(d, common, count) for d in (a, b)))
    return quotient, _build({common: count}) * remainder


def _divide_by_term(d: Dim, common: Monomial, count: int) -> Dim:
    quotients = ((_divide_monomials(monomial, common), coefficient) for monomial, coefficient in _terms(d))
    return _build({cast(Monomial, monomial): coefficient // count for monomial, coefficient in quotients})


def _quotient(a: Dim, b: Dim) -> Dim:
    """`a//b` where no rule gives both results: `(x//p + c)//b = (x + c*p)//(p*b)`; `(x % (k*b))//b = (x//b) % k`."""
    (monomial, coefficient), *constant = _terms(a)
    inner = monomial[0][0] if len(monomial) == 1 and monomial[0][1] == coefficient == 1 else None
    if isinstance(inner, Function) and inner.kind in ("//", "%") and bounds(inner.args[1])[0] >= 1:
        x, divisor = inner.args
        if inner.kind == "//" and all(not others for others, _ in constant):
            return floor_divide(x + divisor * (a - inner.expr), divisor * b)
        if inner.kind == "%" and not constant:
            count = exact_divide(divisor, b)
            if count is not None:
                return modulo(floor_divide(x, b), count)
    return Function("//", (a, b)).expr


def _remainder(a: Dim, b: Dim) -> Dim:
    """`a % b` where no rule gives both results: 0 where b divides a; `(c*(x % n) + y) % b = (c*x + y) % b` where
    b divides c*n."""
    if isinstance(b, int) and multiple_of(a) % b == 0:
        return 0
    for monomial, coefficient in _terms(a):
        for atom, power in monomial:
            if isinstance(atom, Function) and atom.kind == "%" and power == 1:
                x, modulus = atom.args
                factor = _build({cast(Monomial, _divide_monomials(monomial, ((atom, 1),))): coefficient})
                if bounds(modulus)[0] >= 1 and exact_divide(factor * modulus, b) is not None:
                    return modulo(a + factor * (x - atom.expr), b)
    return Function("%", (a, b)).expr


# --- Minimum, maximum, broadcast --------------------------------------------------------------------------


def minimum(*dims: Dim) -> Dim:
    """The least of `dims`, without those that are never less than another."""
    return _extremum("min", dims)


def maximum(*dims: Dim) -> Dim:
    """The greatest of `dims`, without those that are never more than another."""
    return _extremum("max", dims)


def broadcast(*dims: Dim) -> Dim:
    """The common size of axes that broadcast: all are 1 or this. Sizes that can never fit are a DimError.
    What is never 1 wins; so does a symbol over what is 1 wherever the symbol is, as in `bcast(min(S, 512), S)`."""
    return _broadcast(dims)


def _flatten(kind: str, dims: tuple[Dim, ...]) -> list[Dim]:
    """The distinct arguments, those of nested functions of one kind included, in order."""
    found: set[Dim] = set()
    for d in dims:
        atom = _sole_atom(d)
        found.update(atom.args if isinstance(atom, Function) and atom.kind == kind else (d,))
    return sorted(found, key=_dim_key)


def _sole_atom(d: Dim) -> Atom | None:
    """The atom that `d` is, or None."""
    if isinstance(d, Expr) and len(d.terms) == 1:
        monomial, coefficient = d.terms[0]
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            return monomial[0][0]
    return None


@lru_cache(_CACHED)
def _extremum(kind: str, dims: tuple[Dim, ...]) -> Dim:
    kept: list[Dim] = []
    for d in _flatten(kind, dims):
        if not any(_outdoes(kind, other, d) for other in kept):
            kept = [*(other for other in kept if not _outdoes(kind, d, other)), d]
    if not kept:
        raise DimError(f"{kind} needs at least one argument")
    return kept[0] if len(kept) == 1 else Function(kind, tuple(kept)).expr


def _outdoes(kind: str, a: Dim, b: Dim) -> bool:
    return less_equal(*((a, b) if kind == "min" else (b, a))) is True


@lru_cache(_CACHED)
def _broadcast(dims: tuple[Dim, ...]) -> Dim:
    sizes = [d for d in _flatten("bcast", dims) if d != 1]
    never_one = [d for d in sizes if equal(d, 1) is False]
    for a, b in itertools.combinations(never_one, 2):
        if equal(a, b) is False:
            raise DimError(f"cannot broadcast {a} with {b}")
    if never_one:
        return next((d for d in never_one if isinstance(d, int)), never_one[0])
    for y in sizes:
        if isinstance(_sole_atom(y), Symbol):
            sizes = [x for x in sizes if x == y or not _is_one_wherever(x, y)]
    if len(sizes) < 2:
        return sizes[0] if sizes else 1
    return Function("bcast", tuple(sizes)).expr


def _is_one_wherever(x: Dim, y: Dim) -> bool:
    """Whether `x` is 1 wherever the symbol `y` is."""
    try:
        return substitute(x, {cast(Symbol, _sole_atom(y)): 1}) == 1
    except DimError:  # x is undefined there
        return False


_CONSTRUCTORS: dict[str, Callable[..., Dim]] = {
    "//": floor_divide, "%": modulo, "min": minimum, "max": maximum, "bcast": broadcast,
}  # fmt: skip


# --- Substitution and evaluation --------------------------------------------------------------------------


def free_atoms(d: Dim) -> tuple[Atom, ...]:
    """The symbols, variables and indirects of `d`, inside functions too (not within extents), in order."""
    found: set[Atom] = set()
    for monomial, _ in _terms(d):
        for atom, _ in monomial:
            found.update((atom,) if not isinstance(atom, Function) else itertools.chain(*map(free_atoms, atom.args)))
    return tuple(sorted(found, key=lambda atom: atom.key))


def free_symbols(d: Dim) -> tuple[Symbol, ...]:
    """The symbols of `d`, ordered by name, then by age."""
    return tuple(atom for atom in free_atoms(d) if isinstance(atom, Symbol))


def substitute(d: Dim, mapping: Mapping[_Key, Dim]) -> Dim:
    """`d` with atoms replaced, inside functions too, and simplified anew. The extent of a variable and the
    bounds of an indirect belong to the atom and stay: map the atom itself to change them."""
    replacements = cast(Mapping[Atom, Dim], mapping)
    changed = False
    terms: list[Dim] = []
    for monomial, coefficient in _terms(d):
        term: Dim = coefficient
        for atom, power in monomial:
            value = replacements.get(atom)
            if value is None and isinstance(atom, Function):
                args = [substitute(arg, mapping) for arg in atom.args]
                if any(new is not old for new, old in zip(args, atom.args, strict=True)):
                    value = _CONSTRUCTORS[atom.kind](*args)
            changed = changed or value is not None
            term = term * product([atom.expr if value is None else value] * power)
        terms.append(term)
    return total(terms) if changed else d


def evaluate(d: Dim, environment: Mapping[_Key, int]) -> int:
    """The value of `d`; a DimError names what has no value, and sizes that do not broadcast."""
    return cast(int, _evaluate(d, cast(Mapping[Atom, Any], environment), _INTEGER_FUNCTIONS))


def evaluate_array(d: Dim, environment: Mapping[_Key, NDArray[Any] | int]) -> NDArray[Any] | int:
    """The values of `d` for (signed) integer arrays, which broadcast against one another as in NumPy."""
    result = _evaluate(d, cast(Mapping[Atom, Any], environment), _array_functions())
    return cast("NDArray[Any] | int", result)


def _evaluate(d: Dim, environment: Mapping[Atom, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    if isinstance(d, int):
        return d
    result: Any = 0
    for monomial, coefficient in d.terms:
        term: Any = coefficient
        for atom, power in monomial:
            if atom in environment:
                value = environment[atom]
            elif isinstance(atom, Function):
                value = functions[atom.kind](*(_evaluate(arg, environment, functions) for arg in atom.args))
            else:
                raise DimError(f"no value is given for {atom.expr}")
            term = term * value**power
        result = result + term
    return result


def _nonzero(divisor: int) -> int:
    if not divisor:
        raise DimError("division by zero")
    return divisor


def _common_size(*sizes: int) -> int:
    different = sorted({size for size in sizes if size != 1})
    if len(different) > 1:
        raise DimError(f"cannot broadcast {' with '.join(map(str, different))}")
    return different[0] if different else 1


_INTEGER_FUNCTIONS: dict[str, Callable[..., int]] = {
    "//": lambda a, b: a // _nonzero(b),
    "%": lambda a, b: a % _nonzero(b),
    "min": min,
    "max": max,
    "bcast": _common_size,
}


@lru_cache(1)
def _array_functions() -> dict[str, Callable[..., Any]]:
    """The integer functions for arrays. NumPy is imported here: printing a program must not wait for it."""
    import numpy

    def along_stack(choose: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values: choose(numpy.stack(numpy.broadcast_arrays(*values)), axis=0)

    def common_size(*sizes: Any) -> Any:
        return numpy.vectorize(_common_size, otypes=[numpy.int64])(*sizes)

    def nonzero(divisor: Any) -> Any:
        return divisor if numpy.all(divisor) else _nonzero(0)

    return {
        "//": lambda a, b: a // nonzero(b),
        "%": lambda a, b: a % nonzero(b),
        "min": along_stack(numpy.min),
        "max": along_stack(numpy.max),
        "bcast": common_size,
    }


# --- Text -------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(rf"""[0-9]+|{_NAME.pattern}|"(?:[^"\\]|\\.)*"|//|\S""")
_DEEPEST = 100


def format_dim(d: Dim) -> str:
    """The text of a dim, which `parse_dim` reads back (but for indirects, which only the reader sees)."""
    if isinstance(d, int):
        return str(d)
    terms = list(d.terms)
    if terms[0][1] < 0:  # S - T rather than -T + S
        terms.sort(key=lambda term: term is not next((t for t in terms if t[1] > 0), None))
    text = ""
    for monomial, coefficient in terms:
        term = _format_term(monomial, abs(coefficient))
        if text:
            text += f" - {term}" if coefficient < 0 else f" + {term}"
        elif coefficient < 0:  # unary minus binds tighter than //
            text = f"-({term})" if coefficient == -1 and _is_division(monomial[0][0]) else f"-{term}"
        else:
            text = term
    return text


def _format_term(monomial: Monomial, coefficient: int) -> str:
    factors = [atom for atom, power in monomial for _ in range(power)]
    number = [str(coefficient)] if coefficient != 1 or not factors else []
    alone = len(number) + len(factors) == 1
    return "*".join(number + [_format_atom(atom, brackets=not alone) for atom in factors])


def _format_atom(atom: Atom, brackets: bool) -> str:
    if isinstance(atom, Indirect):
        return f"indirect({atom.node})"
    if not isinstance(atom, Function):
        plain = _NAME.fullmatch(atom.name) and atom.name not in _CONSTRUCTORS
        return atom.name if plain else json.dumps(atom.name, ensure_ascii=False)
    if not _is_division(atom):
        return f"{atom.kind}({', '.join(map(format_dim, atom.args))})"
    left, right = (_format_operand(arg) for arg in atom.args)
    text = f"{left}//{right}" if atom.kind == "//" else f"{left} % {right}"
    return f"({text})" if brackets else text


def _format_operand(d: Dim) -> str:
    atom = _sole_atom(d)
    simple = d >= 0 if isinstance(d, int) else atom is not None and not _is_division(atom)
    return format_dim(d) if simple else f"({format_dim(d)})"


def _is_division(atom: Atom) -> bool:
    return isinstance(atom, Function) and atom.kind in ("//", "%")


def parse_dim(text: str, lookup: Callable[[str], Symbol | Variable]) -> Dim:
    """Read a dim; `lookup` gives the symbol of a name. A DimError says at which column the text is wrong."""
    parser = _Parser(text, lookup)
    result = parser.sum()
    parser.expect("")
    return result


class _Parser:
    """Recursive descent, a method for each precedence. The token at the end of the text is empty."""

    def __init__(self, text: str, lookup: Callable[[str], Symbol | Variable]) -> None:
        self.tokens = [(match.group(), match.start()) for match in _TOKEN.finditer(text)] + [("", len(text))]
        self.lookup = lookup
        self.position = 0
        self.depth = 0

    def accept(self, *wanted: str) -> str | None:
        """The next token if it is one of these, and then the one after is next."""
        token, _ = self.tokens[self.position]
        if token not in wanted:
            return None
        self.position += 1
        return token

    def expect(self, wanted: str) -> None:
        token, column = self.tokens[self.position]
        if self.accept(wanted) is None:
            raise DimError(f"expected {wanted or 'an operator'}, found {token or 'the end'}", column)

    def sum(self) -> Dim:
        result = self.product()
        while sign := self.accept("+", "-"):
            right = self.product()
            result = result + right if sign == "+" else result - right
        return result

    def product(self) -> Dim:
        result = self.operand()
        while True:
            column = self.tokens[self.position][1]
            sign = self.accept("*", "//", "%")
            if not sign:
                return result
            right = self.operand()
            result = result * right if sign == "*" else self.apply(sign, column, result, right)

    def operand(self) -> Dim:
        token, column = self.tokens[self.position]
        self.position += bool(token)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise DimError("nested too deeply", column)
        if token == "-":
            result = -self.operand()
        elif token == "(":
            result = self.sum()
            self.expect(")")
        elif token in _CONSTRUCTORS and token not in ("//", "%"):
            self.expect("(")
            args = [self.sum()]
            while self.accept(","):
                args.append(self.sum())
            self.expect(")")
            result = self.apply(token, column, *args)
        elif token[:1].isdecimal():
            result = int(token)
        elif _NAME.fullmatch(token) or (token[:1] == '"' and len(token) > 1):
            result = self.symbol(token, column)
        else:
            raise DimError(f"expected a dim, found {token or 'the end'}", column)
        self.depth -= 1
        return result

    def apply(self, kind: str, column: int, *args: Dim) -> Dim:
        try:
            return _CONSTRUCTORS[kind](*args)
        except DimError as error:
            raise DimError(str(error), column) from None

    def symbol(self, token: str, column: int) -> Dim:
        try:
            return self.lookup(json.loads(token) if token[0] == '"' else token).expr
        except KeyError:
            raise DimError(f"no symbol is named {token}", column) from None
        except ValueError as error:  # a bad escape, or the lookup's own DimError
            raise DimError(str(error), column) from None
