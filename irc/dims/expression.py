"""Dims as polynomials over atoms: arithmetic, and the interval and divisor of each.

The operators `//` and `%`, and what simplifies a sum, are defined in `irc.dims.functions` by means of this module:
they are imported where they are called.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache, reduce
from typing import Any, cast
from weakref import WeakValueDictionary

# "To the end" in an ONNX Slice is written as 1e9, INT_MAX or INT64_MAX: a size must stay below them all.
IMPORTED_LOW = 0
IMPORTED_HIGH = 10**9

# The most symbols, functions and numbers that an expression over symbols is written with. A larger one is the
# definition of a derived symbol, so that no step on a dim takes longer in a deep graph than in a flat one.
LIMIT = 64
LIMIT_VARYING = 1024  # of an expression over indices, whose coefficients then become derived symbols
MOST_ARGUMENTS = 16  # of min, max and bcast: each is compared with each

CACHED = 1 << 14
DIVISIONS = ("//", "%")
_serials = itertools.count()


class DimError(ValueError):
    """A dim that is malformed, impossible, or without a value."""


class Expr:
    """A polynomial that is not constant: immutable, compared by structure, made by arithmetic only."""

    __slots__ = ("_hash", "size", "terms", "varies")
    size: int  # how many symbols, functions and numbers it is written with
    varies: bool  # whether indices are inside
    __array_ufunc__ = None  # a NumPy integer on the left must not swallow us into an object array

    def __init__(self, terms: tuple[Term, ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self.size = sum([sum([atom.size * power for atom, power in monomial]) or 1 for monomial, _ in terms])
        self.varies = any([atom.varies for monomial, _ in terms for atom, _ in monomial])

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms)

    def __add__(self, other: Dim) -> Dim:
        return build(collect(terms_of(other), self.terms))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __neg__(self) -> Dim:
        return Expr(tuple((monomial, -coefficient) for monomial, coefficient in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int) and not any([atom.args for monomial, _ in self.terms for atom, _ in monomial]):
            return scaled(self, other)
        return build(collect(products(*factors(self, other))))

    def __floordiv__(self, other: Dim) -> Dim:
        from irc.dims.functions import floor_divide

        return floor_divide(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        from irc.dims.functions import floor_divide

        return floor_divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        from irc.dims.functions import modulo

        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        from irc.dims.functions import modulo

        return modulo(other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        from irc.dims.text import format_dim

        return format_dim(self)


class _Atom:
    """What all atoms share: identity and age, a sort key, an interval and a known divisor. `kind` is the function
    or the name of the class, `args` are the function's, `size` and `varies` are as of expressions."""

    __slots__ = ("__weakref__", "args", "divisor", "interval", "key", "kind", "serial", "size", "varies")
    size: int
    varies: bool

    def _describe(
        self, key: tuple[Any, ...], interval: tuple[int, int], divisor: int = 1, args: tuple[Dim, ...] = ()
    ) -> None:
        self.serial = next(_serials)
        self.key = (*key, self.serial)
        self.kind = str(key[1])
        self.interval = interval
        self.divisor = divisor
        self.args = args
        self.size = 1 + sum([arg.size if isinstance(arg, Expr) else 1 for arg in args])
        self.varies = key[0] in (1, 2) or any([isinstance(arg, Expr) and arg.varies for arg in args])

    @property
    def expr(self) -> Expr:
        """The atom as a dim. Made on demand: to hold it would be a cycle, and interning wants prompt deaths."""
        return Expr(((((cast("Atom", self), 1),), 1),))

    def __hash__(self) -> int:
        return self.serial  # not the address: even the order of a set of atoms is then reproducible

    def __deepcopy__(self, memo: object) -> _Atom:
        return self  # a copied module keeps its symbols

    def __repr__(self) -> str:
        return repr(self.expr)


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
    """The index of one axis of a kernel, over [0, extent).

    One with a `place` is interned: axes of one name, extent and place are one axis, and axes of one name
    are ordered by their places. One without a place equals no other.
    """

    __slots__ = ("extent", "name")
    name: str
    extent: Dim

    def __new__(cls, name: str, extent: Dim, place: tuple[int, ...] = ()) -> Variable:
        self = _variables.get((name, extent, place)) if place else None
        if self is None:
            self = super().__new__(cls)
            self.name, self.extent = name, extent
            self._describe((1, "variable", name, place), (0, max(0, bounds(extent)[1] - 1)))
            if place:
                _variables[name, extent, place] = self
        return self

    @property
    def place(self) -> tuple[int, ...]:
        """The origin of the axis, as numbered by its creator; empty if it is not interned."""
        place: tuple[int, ...] = self.key[3]
        return place


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
            key = (3, kind, tuple(map(dim_key, args)))
            self._describe(key, _function_bounds(kind, args), _function_divisor(kind, args), args)
        return self


class Derived(_Atom):
    """A symbol that stands for a dim over symbols, its definition. Interned: the same definition, the same symbol.

    It has the value of its definition wherever that has one, so that nothing binds it. The name is a digest of the
    definition's text, the same in every process. `inner` are the derived symbols that it mentions itself, `newest` is
    the serial of its newest symbol; in `known` and `ends` `irc.dims.evaluation` keeps values.
    """

    __slots__ = ("_symbols", "definition", "ends", "inner", "known", "name", "newest")
    definition: Dim
    inner: tuple[Derived, ...]
    known: dict[Any, Any]
    ends: dict[str, int | None]
    name: str
    newest: int
    _symbols: frozenset[Symbol] | None

    def __new__(cls, definition: Dim) -> Derived:
        self = _derived.get(definition)
        if self is None:
            from irc.dims.evaluation import derived_in, newest_symbol
            from irc.dims.text import digest

            self = _derived[definition] = super().__new__(cls)
            self.definition, self.known, self.ends, self.name = definition, {}, {}, digest(definition)
            self.inner, self.newest, self._symbols = derived_in(definition), newest_symbol(definition), None
            self._describe((4, "derived", self.name), bounds(definition), multiple_of(definition))
        return self

    @property
    def symbols(self) -> frozenset[Symbol]:
        """The symbols of the definition, inside derived ones too. Found on demand: those of a chain of n definitions
        may be n * n."""
        if self._symbols is None:
            from irc.dims.evaluation import free_symbols

            self._symbols = frozenset(free_symbols(self.definition))
        return self._symbols


Dim = int | Expr
Atom = Symbol | Variable | Indirect | Function | Derived
Monomial = tuple[tuple[Atom, int], ...]  # atoms and their powers, sorted
Term = tuple[Monomial, int]

_variables: WeakValueDictionary[tuple[str, Dim, tuple[int, ...]], Variable] = WeakValueDictionary()
_indirects: WeakValueDictionary[tuple[Hashable, Dim, Dim], Indirect] = WeakValueDictionary()
_functions: WeakValueDictionary[tuple[str, tuple[Dim, ...]], Function] = WeakValueDictionary()
_derived: WeakValueDictionary[Dim, Derived] = WeakValueDictionary()
symbol = Symbol  # a new one, equal to no other; its `.expr` is it as a dim


# --- Polynomials ---
def terms_of(d: Dim) -> tuple[Term, ...]:
    """The terms of a dim; of NumPy's integers too, and no other numbers."""
    if isinstance(d, Expr):
        return d.terms
    return (((), operator.index(d)),) if d else ()


def monomial_key(monomial: Monomial) -> tuple[Any, ...]:
    """Sorts by falling degree, then by name. It is a monomial order, so that long division ends."""
    return -sum(power for _, power in monomial), tuple((atom.key, -power) for atom, power in monomial)


def dim_key(d: Dim) -> tuple[Any, ...]:
    """Sorts expressions by their terms, and integers after them: `min(S, 512)`."""
    if isinstance(d, int):
        return 1, d
    return 0, tuple((monomial_key(monomial), coefficient) for monomial, coefficient in d.terms)


def multiply(left: Monomial, right: Monomial, sign: int = 1) -> Monomial:
    """`left * right`; with the sign -1 `left / right`, in which powers may be negative."""
    if not left or not right:
        return left or tuple((atom, sign * power) for atom, power in right)
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + sign * power
    return tuple(sorted(((atom, power) for atom, power in powers.items() if power), key=lambda item: item[0].key))


def without(monomial: Monomial, atom: Atom) -> Monomial:
    return multiply(monomial, ((atom, 1),), sign=-1)


def common_term(left: Term, right: Term) -> Term:
    """The greatest common divisor."""
    powers = dict(right[0])
    common = tuple((atom, min(power, powers[atom])) for atom, power in left[0] if atom in powers)
    return common, math.gcd(left[1], right[1])


def products(left: Iterable[Term], right: Iterable[Term]) -> list[Term]:
    return [(multiply(m, n), count * factor) for (m, count), (n, factor) in itertools.product(left, right)]


def collect(terms: Iterable[Term], start: Iterable[Term] = ()) -> dict[Monomial, int]:
    """The sum of terms, by monomial."""
    coefficients = dict(start)
    for monomial, coefficient in terms:
        coefficients[monomial] = coefficients.get(monomial, 0) + coefficient
    return coefficients


def build(terms: Mapping[Monomial, int]) -> Dim:
    """The dim of these terms: zeros dropped, quotients and remainders recomposed, sorted, constants bare, and in
    bounds."""
    return bounded(build_at_length(terms))


def scaled(d: Expr, number: int) -> Dim:
    """`d * number` where `d` has no functions, whose identities a factor may complete."""
    if number in (0, 1):
        return d if number else 0
    return Expr(tuple([(monomial, coefficient * number) for monomial, coefficient in d.terms]))


def build_at_length(terms: Mapping[Monomial, int]) -> Dim:
    """As `build`, of whatever size."""
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if any(atom.args for monomial in kept for atom, _ in monomial):
        from irc.dims.functions import recompose

        kept = recompose(kept)
    if len(kept) > 1:
        return Expr(tuple(sorted(kept.items(), key=lambda term: monomial_key(term[0]))))
    for monomial, coefficient in kept.items():
        return Expr(((monomial, coefficient),)) if monomial else coefficient
    return 0


def bounded(d: Dim) -> Dim:
    """The dim, or where it is too large, its derived symbol, or itself over derived symbols."""
    if isinstance(d, int) or d.size <= LIMIT:
        return d
    if d.varies:
        return d if d.size <= LIMIT_VARYING else over_derived(d)
    return derived(d)


def derived(d: Dim) -> Dim:
    """The symbol that `d` defines, whatever the size of `d`; what is one atom or an integer stays."""
    atom = sole_atom(d)
    return d if isinstance(d, int) or (atom is not None and not atom.args) else Derived(d).expr


def over_derived(d: Expr) -> Dim:
    """An expression over indices, with derived symbols for its coefficients that are more than a single term."""
    groups: dict[Monomial, dict[Monomial, int]] = {}
    for monomial, coefficient in d.terms:
        varying = tuple((atom, power) for atom, power in monomial if atom.varies)
        groups.setdefault(varying, {})[multiply(monomial, varying, sign=-1)] = coefficient
    terms: dict[Monomial, int] = {}
    for varying, group in groups.items():
        scale = build_at_length(group)
        scale = derived(scale) if len(group) > 1 else scale
        terms = collect(products(terms_of(scale), [(varying, 1)]), terms.items())
    return build_at_length(terms)


def factors(left: Dim, right: Dim) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """The terms of two dims that are to be multiplied; the longer one is defined first where the product of their
    sums would be too large."""
    for _ in range(2):
        if len(terms_of(left)) < len(terms_of(right)):
            left, right = right, left
        assert isinstance(left, Expr)
        limit = LIMIT_VARYING if left.varies or (isinstance(right, Expr) and right.varies) else LIMIT
        if len(terms_of(right)) <= 1 or left.size * len(terms_of(right)) + right.size * len(left.terms) <= limit:  # type: ignore[union-attr]
            break
        left = over_derived(left) if left.varies else derived(left)
    return terms_of(left), terms_of(right)


def sole_atom(d: Dim) -> Atom | None:
    """The atom that `d` is, or None."""
    match terms_of(d):
        case ((((atom, 1),), 1),):
            return atom
    return None


def sole_symbol(d: Dim) -> Symbol | None:
    """The symbol that `d` is, or None."""
    atom = sole_atom(d)
    return atom if isinstance(atom, Symbol) else None


def product(dims: Iterable[Dim]) -> Dim:
    """The product: the integers first, so that expressions are multiplied by one number alone."""
    number, others = 1, []
    for d in dims:
        if isinstance(d, int):
            number *= d
        else:
            others.append(d)
    return math.prod(others, start=number)


def total(dims: Iterable[Dim]) -> Dim:
    """The sum, taken at once: what cancels does not count towards the size."""
    return build(collect(itertools.chain(*map(terms_of, dims))))


# --- Intervals and divisors ---
@lru_cache(CACHED)
def bounds(d: Dim) -> tuple[int, int]:
    """An interval, both ends inclusive, that holds every value of `d`; atoms are bounded, hence so are dims."""
    least = most = 0
    for monomial, coefficient in terms_of(d):
        low = high = coefficient
        for atom, power in monomial:
            ends = [end**power for end in atom.interval]
            if power % 2 == 0 and atom.interval[0] <= 0 <= atom.interval[1]:
                ends.append(0)
            corners = [left * right for left in (low, high) for right in ends]
            low, high = min(corners), max(corners)
        least, most = least + low, most + high
    return least, most


@lru_cache(CACHED)
def multiple_of(d: Dim) -> int:
    """The largest integer known to divide `d`. Of 0, which everything divides, it is 0."""
    return reduce(math.gcd, itertools.starmap(term_divisor, terms_of(d)), 0)


def term_divisor(monomial: Monomial, coefficient: int) -> int:
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
