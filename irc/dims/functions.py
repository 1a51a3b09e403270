"""What is made of dims by `//`, `%`, min, max and bcast, and the identities that join their results again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial, reduce

from irc.dims.expression import (
    CACHED,
    DIVISIONS,
    MOST_ARGUMENTS,
    Atom,
    Dim,
    DimError,
    Function,
    Monomial,
    Symbol,
    Term,
    bounded,
    bounds,
    build,
    collect,
    common_term,
    derived,
    dim_key,
    multiple_of,
    multiply,
    product,
    products,
    sole_atom,
    term_divisor,
    terms_of,
    without,
)
from irc.dims.proofs import equal, less_equal, non_negative

LARGEST_DIVISOR = 1 << 61  # that two divisions are joined to: programs compute with integers of 64 bits


def recompose(terms: dict[Monomial, int]) -> dict[Monomial, int]:
    """Apply the identities of `//` and `%` until none fits. Splitting an index and joining it again is how
    views meet, so this is what makes a view and its inverse cancel."""
    next_terms: dict[Monomial, int] | None = terms
    while next_terms is not None:
        terms, next_terms = next_terms, _recomposed(next_terms)
    return terms


def _recomposed(terms: dict[Monomial, int]) -> dict[Monomial, int] | None:
    """The terms after the first identity that fits; None where none does."""
    for monomial, coefficient in terms.items():
        for atom, _ in monomial:
            for pattern, value in _identities(atom, terms):
                factor, excess = divmod(coefficient, pattern[0][1])
                others = [(without(monomial, atom), factor)]
                matched = dict(products(others, pattern))
                if not excess and all(terms.get(key) == count for key, count in matched.items()):
                    kept = [(key, count) for key, count in terms.items() if key not in matched]
                    whole = collect(products(others, terms_of(value())), kept)
                    return {key: count for key, count in whole.items() if count}
    return None


def _identities(atom: Atom, terms: Iterable[Monomial]) -> Iterator[tuple[list[Term], Callable[[], Dim]]]:
    """Sums that begin with a `//` or `%`, and what each of them equals, computed on demand."""
    if atom.kind not in DIVISIONS or bounds(atom.args[1])[0] < 0:
        return
    x, d = atom.args
    itself = ((atom, 1),)
    if atom.kind == "//":
        if isinstance(d, int) and multiple_of(x) % d == 0:
            yield [(itself, d)], lambda: x  # d*(x//d) = x where d divides x
        return
    quotient = floor_divide(x, d)
    yield [(itself, 1), *terms_of(d * quotient)], lambda: x  # x % d + d*(x//d) = x
    yield [(itself, -1), *terms_of(x)], lambda: d * quotient  # x - x % d = d*(x//d)
    for other in [other for monomial in terms for other, _ in monomial]:
        if other.kind == "%" and other.args[0] == quotient:  # x % d + d*((x//d) % q) = x % (d*q)
            yield [(itself, 1), *terms_of(d * other.expr)], partial(modulo, x, d * other.args[1])


def applied(kind: str, args: tuple[Dim, ...]) -> Dim:
    """A function of dims that nothing simplifies, as a dim in bounds."""
    atom = Function(kind, args)
    d, (low, high) = atom.expr, atom.interval
    if low == high and (kind not in DIVISIONS or bounds(args[1])[0] >= 0):
        return low
    return derived(d) if len(args) > MOST_ARGUMENTS and not d.varies else bounded(d)


# --- Division ---
def floor_divide(a: Dim, b: Dim) -> Dim:
    """`a // b`, towards minus infinity. Where `b` is 0 there is no value, and what this simplifies to may have any."""
    return divide(a, b)[0]


def modulo(a: Dim, b: Dim) -> Dim:
    """`a % b`, with the sign of `b`: `a - b*(a//b)`."""
    return divide(a, b)[1]


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """`a / b` towards plus infinity, written `(a + b - 1)//b` where `b` is known not to be negative."""
    return floor_divide(a + b - 1, b) if bounds(b)[0] >= 0 else -floor_divide(-a, b)


def exact_divide(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where `b` provably divides `a` unless it is 0, else None. The quotient times `b` is `a` for 0 too."""
    low, high = bounds(b)
    if low < 0 < high or low == high == 0:
        return None
    quotient, remainder = divide(a, b)
    return quotient if remainder == 0 and quotient * b == a else None


@lru_cache(CACHED)
def divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Quotient and remainder together: one set of rules keeps `b*(a//b) + a % b = a` recognizable."""
    low, high = bounds(b)
    if low == high == 0:
        raise DimError(f"division by zero: {a} by {b}")
    if isinstance(a, int) and isinstance(b, int):
        return divmod(a, b)
    if low < 0 < high:
        return applied("//", (a, b)), applied("%", (a, b))
    if high <= 0:
        quotient, remainder = divide(-a, -b)
        return quotient, -remainder
    if a == 0:
        return 0, 0

    # (q*b + r)//b = q + r//b; by a sum only where that leaves fewer terms
    quotient, rest = _long_divide(a, b)
    if quotient != 0 and (len(terms_of(b)) == 1 or len(terms_of(rest)) < len(terms_of(a))):
        upper, remainder = divide(rest, b)
        return quotient + upper, remainder

    # (g*x)//(g*d) = x//d, and the remainder is g times that of x
    common = build(dict([reduce(common_term, (*terms_of(a), *terms_of(b)))]))
    if common != 1:
        quotient, remainder = divide(_long_divide(a, common)[0], _long_divide(b, common)[0])
        return quotient, common * remainder

    # max(x, y)//b = max(x//b, y//b), where one of the two falls away
    over = _over_arguments(a, b)
    if over is not None:
        return over, a - b * over

    # (g*x + r)//(g*d) = x//d where 0 <= r < g: a row needs no column. With g = b, the quotient is found by proof
    whole = reduce(common_term, terms_of(b))
    for unit in dict.fromkeys((b, *(build(dict([common_term(term, whole)])) for term in terms_of(a)))):
        small = _long_divide(a, unit)[1] if unit != b else a
        for turns in (0, -1, bounds(small)[0] // max(bounds(unit)[1], 1)):
            rest = small - turns * unit
            if small != 0 and non_negative(rest) and non_negative(unit - 1 - rest):
                if unit == b:
                    return turns, rest
                if rest == 0:  # which its terms do not show: there is nothing to leave out
                    continue
                quotient, remainder = divide(a - rest, b)
                return quotient, remainder + rest
    return _divide_division(a, b)


def _over_arguments(a: Dim, b: Dim) -> Dim | None:
    """The quotient by a positive `b`, which grows with `a`, taken of each argument of the only minimum or maximum
    that is a term of `a`; None where that does not give less to write."""
    extrema = [(atom, count) for monomial, count in terms_of(a) for atom, power in monomial
               if len(monomial) == power == 1 and atom.kind in ("min", "max")]  # fmt: skip
    if len(extrema) != 1 or isinstance(a, int):
        return None
    ((atom, count),) = extrema
    rest = a - count * atom.expr
    kind = atom.kind if count > 0 else "min" if atom.kind == "max" else "max"
    quotient = _extremum(kind, tuple(floor_divide(count * arg + rest, b) for arg in atom.args))
    return quotient if isinstance(quotient, int) or quotient.size < a.size else None


def _long_divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """`q` and `r` of `a = q*b + r`, term by term. A constant leaves an `r` of at least 0, other coefficients one of
    their own sign. A number also divides what it is known to divide: `(S + 1)//16` where 16 divides S."""
    leading, lead = terms_of(b)[0]
    total: Dim = 0
    taken: set[Monomial] = set()  # each once: the rest is normalized again, and may contain a removed term again
    while True:
        for monomial, coefficient in terms_of(a):
            quotient, used = _of_term(monomial, coefficient, leading, lead, b)
            if quotient != 0 and monomial not in taken:
                break
        else:
            return total, a
        taken.add(monomial)
        total, a = total + quotient, a - used


def _of_term(monomial: Monomial, coefficient: int, leading: Monomial, lead: int, b: Dim) -> tuple[Dim, Dim]:
    """What one term gives to a quotient by `b`, whose first term is `lead * leading`, and what of it that takes."""
    others, count = multiply(monomial, leading, sign=-1), coefficient // lead
    if monomial and count < 0:
        count = -(-coefficient // lead)
    quotient = build({others: count}) if all(power > 0 for _, power in others) else 0
    if quotient == 0 and isinstance(b, int) and term_divisor(monomial, coefficient) % b == 0:
        common = math.gcd(coefficient, b)
        quotient = _divide_division(build({monomial: coefficient // common}), b // common)[0]
        return quotient, build({monomial: coefficient})
    return quotient, quotient * b


def _divide_division(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """What no other rule divides. `(x + b - 1)//b = min(x, 1)` where x is at least 0 and at most b; `(x//p + c)//b = (x
    + c*p)//(p*b)`; where b divides n, `(x % n)//b = (x//b) % (n//b)` and `(x % n) % b = x % b`."""
    quotient = applied("//", (a, b))
    if isinstance(quotient, int):  # by its interval
        return quotient, a - b * quotient
    above = a - b + 1
    low, high = bounds(above)
    if isinstance(b, int) and low >= 0 and high <= b:  # of halves of halves: whether there is anything
        quotient = minimum(above, 1)
        return quotient, a - b * quotient
    remainder = applied("%", (a, b))
    constant = dict(terms_of(a)).get((), 0)
    inner = sole_atom(a - constant)
    if inner is not None and inner.kind in DIVISIONS and bounds(inner.args[1])[0] >= 0:
        x, divisor = inner.args
        count = exact_divide(divisor, b)
        if inner.kind == "//":
            joined = divisor * b
            if not isinstance(joined, int) or joined <= LARGEST_DIVISOR:
                quotient = floor_divide(x + constant * divisor, joined)
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


@lru_cache(CACHED)
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
        atom = sole_atom(size)
        if isinstance(atom, Symbol):
            sizes = [d for d in sizes if d == size or not _is_one_with(d, atom)]
    return applied("bcast", tuple(sizes)) if len(sizes) > 1 else product(sizes)


def _parts(kind: str, dims: tuple[Dim, ...]) -> list[tuple[Dim, ...]]:
    """The arguments of each nested function of this kind, and every other dim by itself."""
    atoms = [(d, sole_atom(d)) for d in dims]
    return [atom.args if atom is not None and atom.kind == kind else (d,) for d, atom in atoms]


def _flatten(kind: str, dims: tuple[Dim, ...]) -> list[Dim]:
    """The distinct arguments, those of nested functions of one kind included, in order."""
    return sorted(set(itertools.chain(*_parts(kind, dims))), key=dim_key)


@lru_cache(CACHED)
def _extremum(kind: str, dims: tuple[Dim, ...]) -> Dim:
    def outdoes(a: Dim, b: Dim) -> bool:
        return (less_equal(a, b) if kind == "min" else less_equal(b, a)) is True

    if not dims:
        raise DimError(f"{kind} needs at least one argument")
    longest = min(_parts(kind, dims), key=lambda part: (-len(part), tuple(map(dim_key, part))))
    kept = list(longest) if len(longest) > 1 else []  # of which none outdoes another
    for d in _flatten(kind, dims):
        if not any(outdoes(other, d) for other in kept):
            kept = [*(other for other in kept if not outdoes(d, other)), d]
    return kept[0] if len(kept) == 1 else applied(kind, tuple(sorted(kept, key=dim_key)))


def _is_one_with(d: Dim, atom: Symbol) -> bool:
    from irc.dims.evaluation import substitute

    try:
        return substitute(d, {atom: 1}) == 1
    except DimError:  # `d` is undefined there
        return False


CONSTRUCTORS: dict[str, Callable[..., Dim]] = {
    "//": floor_divide,
    "%": modulo,
    "min": minimum,
    "max": maximum,
    "bcast": broadcast,
}
