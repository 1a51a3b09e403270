"""The dim language: each rule by example, and all of them against brute-force integer evaluation."""

from __future__ import annotations

import copy
import itertools
import os
import re
import subprocess
import sys
from typing import Any

import numpy
import pytest

from irc.dims import (
    IMPORTED_HIGH,
    Dim,
    DimError,
    Expr,
    Function,
    Indirect,
    Symbol,
    Variable,
    bounds,
    broadcast,
    ceil_divide,
    equal,
    evaluate,
    evaluate_array,
    exact_divide,
    floor_divide,
    format_dim,
    free_atoms,
    free_symbols,
    less,
    less_equal,
    maximum,
    minimum,
    modulo,
    multiple_of,
    parse_dim,
    product,
    same,
    substitute,
    symbol,
    total,
)

b, e, h, s, t = (symbol(name, 1).expr for name in "BEHST")
z = symbol("Z", 0, 10).expr  # may be 0
v, w = symbol("V").expr, symbol("W").expr  # as imported: they may be 0 too
n = symbol("N", -20, 20).expr
m = symbol("M", 16, 1024, multiple=16).expr
i, j = Variable("i", s).expr, Variable("j", e).expr


def sole(d: Dim) -> Any:
    """The atom that `d` is."""
    (atom,) = free_atoms(d)
    return atom


# --- Atoms and polynomials --------------------------------------------------------------------------------

def test_a_constant_is_an_int() -> None:
    for constant in (s - s, s * 0, s - s + 3, s // s, s % s, 0 * s + 7):
        assert type(constant) is int
    assert isinstance(s + 1, Expr)


def test_polynomials_compare_by_structure() -> None:
    assert (b + s) * (b - s) == b * b - s * s
    assert 3 - s == -(s - 3)
    assert hash(b * s + 1) == hash(1 + s * b)
    assert {b * s: "found"}[s * b] == "found"
    assert b * s != b + s and (s == 1) is False
    assert product([b, 2, s]) == 2 * b * s and product([]) == 1
    assert total([b, 2, s]) == b + s + 2 and total([]) == 0


def test_symbols_of_one_name_differ_and_share_no_bounds() -> None:
    small, large = symbol("X", 1, 4).expr, symbol("X", 5, 9).expr
    assert small != large
    assert bounds(small * 2) == (2, 8) and bounds(large * 2) == (10, 18)
    assert small // 5 == 0 and large // 5 == 1
    assert minimum(small, 4) == small and minimum(large, 4) == 4
    assert less(small, large) is True


def test_functions_and_indirects_are_interned() -> None:
    assert sole(Indirect("%ids", 0, 9).expr) is Indirect("%ids", 0, 9)
    assert Indirect("%ids", 0, 9) is not Indirect("%ids", 0, 8)
    kept, again = s // 2, s // 2
    assert isinstance(kept, Expr) and isinstance(again, Expr)
    assert kept.terms[0][0][0][0] is again.terms[0][0][0][0]


def test_symbols_check_their_range() -> None:
    assert bounds(symbol("X", 3, 50, multiple=16).expr) == (16, 48)
    for low, high, multiple in ((5, 4, 1), (1, 15, 16), (0, 9, 0)):
        with pytest.raises(DimError):
            symbol("X", low, high, multiple)
    assert bounds(v) == (0, IMPORTED_HIGH)


def test_a_copied_dim_keeps_its_symbols() -> None:
    d = minimum(b * s, 512) + i
    assert copy.deepcopy(d) == d and copy.copy(d) == d
    assert copy.deepcopy(sole(s)) is sole(s)


def test_numpy_integers_mix_and_floats_do_not() -> None:
    two: Any = numpy.int64(2)
    assert s + two == s + 2 and two * s == 2 * s
    with pytest.raises(TypeError):
        s + 1.5  # type: ignore[operator]


# --- Division ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (b * s * 768 // (s * 768), b),
        ((b * s + s) // s, b + 1),
        (((b + 1) * (s + t)) // (s + t), b + 1),
        ((s + 2) // 1, s + 2),
        ((6 * s) // 4, s + s // 2),
        ((6 * s) // 8, (3 * s) // 4),
        ((6 * s) % 8, 2 * ((3 * s) % 4)),
        ((s * b) // (s * 4), b // 4),
        ((s * b) % (s * 4), s * (b % 4)),
        ((6 * s + 3) // 4, s + (s + 1) // 2),
        ((4 * s + 6) // 8, (s + 1) // 2),
        ((4 * s + 6) % 8, 4 * ((s + 1) % 2) + 2),
        ((4 * s * t + 7) // 8, (s * t + 1) // 2),
        ((h - 1) // 32 + 1, (h + 31) // 32),
        ((h + 63) // 32, (h + 31) // 32 + 1),
        ((s - 1) % 4, (s + 3) % 4),
        ((4 * s + 5) % 4, 1),
        ((s // 4 + 3) // 5, (s + 12) // 20),
        ((s // t + 3) // 5, (s + 3 * t) // (5 * t)),
        (((h - 1) // 2 + 1 - 1) // 2 + 1, (h + 3) // 4),
        ((s % 12) // 4, (s // 4) % 3),
        ((s % (b * t)) // t, (s // t) % b),
        ((s % 12) % 4, s % 4),
        (s % 1, 0),
        (m % 16, 0),
        ((m * s + 3) % 8, 3),
        ((m + s) // 16, m // 16 + s // 16),
        (16 * (m // 16), m),
        (8 * (m // 16), 8 * (m // 16)),
        (s // -2, (-s) // 2),
        (s % -2, -((-s) % 2)),
        (32 * (s // 32) + s % 32, s),
        (b * 32 * (s // 32) + b * (s % 32) + 1, b * s + 1),
        (t * (s // t) + s % t, s),
        ((t + b) * (s // (t + b)) + s % (t + b), s),
        (12 * (s // 12) + 4 * (s // 4 % 3) + s % 4, s),
        (4 * (s // 4 % 3) + s % 4, s % 12),
        (s - s % 4, 4 * (s // 4)),
        (i // s, 0),
        (i % s, i),
        ((i - s) // s, -1),
        ((i - s) % s, i),
        ((i * e + j) // e, i),
        ((i * e + j) % e, j),
        ((b * s * e + i * e + j) // (s * e), b),
        ((b * s * e + i * e + j) % (s * e), i * e + j),
        ((i * e + j) // (4 * e), i // 4),
        ((b * e + j) // (t * e), b // t),
        ((b * e + j) % (t * e), e * (b % t) + j),
        ((b * (s + t) + Variable("k", s + t).expr) // (s + t), b),
        ((b * (s + t) + Variable("k", s + t).expr) % (s + t), Variable),
        (symbol("X", 33, 63).expr // 32, 1),
        (symbol("X", -3, -1).expr // 32, -1),
        (0 // s, 0),
        (3 // (s + 3), 0),
        (-1 // s, -1),
        (7 % (s + 7), 7),
    ],
)
def test_division(actual: Dim, expected: Any) -> None:
    if expected is Variable:
        assert isinstance(sole(actual), Variable)
    else:
        assert actual == expected, f"{actual}, not {expected}"


def test_divisors_stay_within_64_bits() -> None:
    d: Dim = v
    for _ in range(200):
        d = (d + 1) // 2
        sized = d if isinstance(d, int) else format_dim(d)
        assert all(int(number) < 2**63 for number in re.findall(r"(?<![$0-9a-f])[0-9]+", str(sized)))
    assert [evaluate(d, {sole(v): size}) for size in (0, 1, 10**9)] == [0, 1, 1]


def test_what_is_divided_by_zero_has_no_value() -> None:
    """Hence simplification need not keep it; what is left of a division says so where it is evaluated."""
    assert e * z // z == e and z // z == 1 and z % z == 0 and 0 // z == 0 and z * (s // z) + s % z == s
    assert v * w // w == v and (v * w + w) // w == v + 1 and (v * w * 12) // (w * 4) == 3 * v
    index, inner = Variable("o", v).expr, Variable("p", w).expr
    assert (index * w + inner) // w == index and (index * w + inner) % w == inner
    for d in (s // z, s % z, (s + 1) // z, n // n):
        assert isinstance(d, Expr)
        with pytest.raises(DimError, match="zero"):
            evaluate(d, {sole(z): 0, sole(n): 0, sole(s): 5})
    assert exact_divide(e * z, z) == e and exact_divide(4, 0) is None and exact_divide(s, z) is None
    for divide in (floor_divide, modulo):
        for dividend in (s, 4):
            with pytest.raises(DimError, match="division by zero"):
                divide(dividend, 0)


def test_exact_division() -> None:
    assert exact_divide(b * s, s) == b
    assert exact_divide(12, 4) == 3 and exact_divide(12, 5) is None
    assert exact_divide(6 * s, 4) is None
    assert exact_divide(m, 16) == m // 16 and exact_divide(m, 32) is None
    assert exact_divide(b * b - s * s, b + s) == b - s
    assert exact_divide(s, t) is None and exact_divide(s + 1, s) is None


def test_divisions_end() -> None:
    """What one rule removes another may add, written again: remainders of remainders by their own parts."""
    for size in (symbol("A", 1, 6), symbol("G", 4, 16, multiple=4), symbol("S", 1)):
        a = size.expr
        for other in (Variable("p", a), symbol("B", 1), symbol("L", 1, 9)):
            b, values = other.expr, {size: 4, other: 3}
            for built in (modulo(a, 2), modulo(1, a), floor_divide(a, 2), floor_divide(-a, 2), floor_divide(b, a)):
                wholes = (a, -a, b, built, a + b, built * (a + b), (built - 1) * (a + b), built * built - a)
                for whole, divisor in itertools.product(wholes, (1, 2, -2, a, -a, a + 1, built, -built, built - b)):
                    quotient = exact_divide(whole, divisor)
                    number, by = evaluate(whole, values), evaluate(divisor, values)
                    assert quotient is None or evaluate(quotient, values) * by == number
                    if divisor != 0:
                        assert by == 0 or evaluate(floor_divide(whole, divisor), values) == number // by


def test_a_ceiling_of_what_is_less_than_the_divisor_is_whether_there_is_anything() -> None:
    page, billion = symbol("page", 0, 16).expr, symbol("many", 0, 10**9).expr
    assert ceil_divide(page, 16) == minimum(page, 1) and ceil_divide(page, 15) == (page + 14) // 15
    halved: Dim = billion
    for _ in range(60):
        halved = ceil_divide(halved, 2)
    assert halved == minimum((billion + 2**29 - 1) // 2**29, 1)
    for value in (0, 1, 16):
        assert evaluate(ceil_divide(page, 16), {sole(page): value}) == -(-value // 16)
    for value in (0, 1, 2**29, 2**29 + 1, 10**9):
        assert evaluate(halved, {sole(billion): value}) == min(value, 1)


def test_ceil_division() -> None:
    assert ceil_divide(h, 32) == (h + 31) // 32
    assert ceil_divide(7, 2) == 4 and ceil_divide(-7, 2) == -3 and ceil_divide(7, -2) == -3
    assert ceil_divide(s * t, t) == s
    assert evaluate(ceil_divide(s, n), {sole(s): 7, sole(n): -2}) == -3


# --- Minimum, maximum, broadcast --------------------------------------------------------------------------

def test_the_order_of_arguments_does_not_decide() -> None:
    """Which of two forms of one dim stays depends on the dims alone: 0//n is 0, unless n is, and is not rewritten."""
    for extremum in (minimum, maximum):
        for several in ((0, 0 // n), (0, 0 // n, extremum(s, t)), (extremum(0 // n, t), extremum(s, 0))):
            assert len({extremum(*each) for each in itertools.permutations(several)}) == 1


def test_minimum_and_maximum() -> None:
    assert minimum(s, 1) == 1 and maximum(s, 1) == s
    assert minimum(s, s + 1) == s and maximum(s, s + 1) == s + 1
    assert minimum(s, t, s) == minimum(t, s) == minimum(t, minimum(s, t))
    assert minimum(s, 512, 64) == minimum(64, s) and maximum(s, 512, 64) == maximum(512, s)
    assert minimum(s, maximum(s, t)) == s and maximum(s, minimum(s, t)) == s
    assert minimum(i, s) == i and maximum(i * e + j, s * e) == s * e
    assert minimum(3, 2) == 2 and maximum(s) == s
    assert isinstance(minimum(s, t), Expr) and isinstance(minimum(s, 2), Expr)
    with pytest.raises(DimError):
        minimum()


def test_broadcast() -> None:
    assert broadcast(1, s) == s and broadcast(s, 1) == s and broadcast(1, 1) == 1 and broadcast() == 1
    assert broadcast(s, s) == s and broadcast(s, t) == broadcast(t, s)
    assert broadcast(s, 768) == 768 and broadcast(s, 2 * t) == 2 * t and broadcast(s, m) == m
    assert broadcast(m, 32) == 32 and broadcast(0, s) == 0
    assert broadcast(minimum(512, s), s) == s and broadcast(s * s, s) == s
    assert broadcast(broadcast(s, t), b) == broadcast(s, broadcast(t, b))
    assert isinstance(broadcast(s, t), Expr) and isinstance(broadcast(minimum(s, t), t), Expr)
    assert broadcast(s, t + 0 * s, minimum(s, 4)) == broadcast(s, t)
    for left, right in ((2, 3), (0, 2), (m, m + 1), (2, symbol("X", 3, 9).expr)):
        with pytest.raises(DimError, match="broadcast"):
            broadcast(left, right)
    assert isinstance(broadcast(z, 5 // (z - 1)), Expr)  # undefined where z is 1: no reason to drop it


# --- Questions --------------------------------------------------------------------------------------------

def test_equal() -> None:
    assert equal(b * s, s * b) is True and equal(2, 3) is False
    assert equal(s, s + 1) is False and equal(s, t) is None
    assert equal(2 * s, 1) is False and equal(2 * s, 2 * t + 1) is False
    assert equal(m, 2 * m + 8) is False and equal(4 * s, 2) is False
    assert equal(symbol("X", 1, 4).expr, symbol("Y", 5, 6).expr) is False
    assert equal(symbol("X", 4, 4).expr, 4) is True
    assert equal(s, 1) is None and equal(s, 0) is False
    assert equal(2 * s, 2 * t) is None and equal(z, 0) is None and equal(0, z) is None
    assert equal(z, 10) is None and equal(z, 11) is False and equal(-z, 1) is False
    assert equal(s - s % 4, s // 4 * 4) is True
    assert equal(i, s) is False and equal(s + t * s, s) is False


def test_less() -> None:
    assert less(i, s) is True and less(s, i) is False and less_equal(s, i) is False
    assert less(i * e + j, s * e) is True and less_equal(0, i) is True
    assert less(i, t) is None and less(s, t) is None and less(s, s) is False and less_equal(s, s) is True
    assert less((s - 1 - i) * e + j, s * e) is True
    assert less(s % t, t) is True and less_equal(0, s % t) is True
    assert less_equal(1, s % t) is None and less(s % t, t - 1) is None
    assert less_equal(1, i) is None and less(i, s - 1) is None
    assert less(minimum(s, t), s) is None and less(s, maximum(s, t)) is None
    assert less(2 * (s // 2), s) is None and less(s, 2 * (s // 2) + 1) is None
    assert less_equal(s, 32 * ((s + 31) // 32)) is True and less(32 * ((s + 31) // 32), s + 32) is True
    assert less_equal(minimum(s, t), s) is True and less_equal(minimum(s, t), maximum(b, t)) is True
    assert less_equal(s, s * t) is True and less(s * t, s) is False
    assert less_equal(broadcast(s, t), s * t) is True
    assert less(Indirect("%ids", 0, s - 1).expr, s) is True
    assert less(Indirect("%ids", 0, s - 1).expr, s - 1) is None
    assert less(Indirect("%ids", -s, s - 1).expr, 0) is None
    assert less_equal(-s, Indirect("%ids", -s, s - 1).expr) is True
    assert less(Variable("i", (s + 31) // 32).expr, (s + 31) // 32) is True
    assert less(Variable("i", minimum(s, 512)).expr, s) is True
    assert less(i * i, s * s) is True and less(s * s, s * t) is None


def test_bounds() -> None:
    assert bounds(7) == (7, 7)
    assert bounds(n * n) == (0, 400) and bounds(n * n * n) == (-8000, 8000)
    assert bounds(symbol("X", -3, -2).expr * symbol("Y", 2, 5).expr + 1) == (-14, -3)
    assert bounds(z // 3) == (0, 3) and bounds(n // 3) == (-7, 6) and bounds(n % 3) == (0, 2)
    assert bounds(20 // n) == (-20, 20) and bounds(n % z) == (0, 9)
    assert bounds(z % 20) == (0, 10) and bounds(n % n) == (-19, 19)
    assert bounds(z % symbol("X", 15, 20).expr) == (0, 10)
    assert bounds(minimum(n, z)) == (-20, 10) and bounds(maximum(n, z)) == (0, 20)
    assert bounds(broadcast(z, s)) == (0, IMPORTED_HIGH)
    assert bounds(broadcast(symbol("X", 1, 4).expr, symbol("Y", 1, 9).expr)) == (1, 9)
    assert bounds(Variable("i", z).expr) == (0, 9) and bounds(Variable("i", 0).expr) == (0, 0)
    assert bounds(Indirect("%ids", -z, z + 1).expr) == (-10, 11)


def test_multiple_of() -> None:
    assert multiple_of(12) == multiple_of(-12) == 12 and multiple_of(0) == 0
    assert multiple_of(m) == 16 and multiple_of(6 * m * s) == 96 and multiple_of(m + 24) == 8
    assert multiple_of(m * m) == 256 and multiple_of(m // 4) == 4 and multiple_of(m // 3) == 1
    assert multiple_of(minimum(m, 40)) == 8 and multiple_of(maximum(4 * z, 6 * b)) == 2
    assert multiple_of(m % (8 * s)) == 8 and multiple_of(i) == 1


# --- Substitution and evaluation --------------------------------------------------------------------------

def test_substitute() -> None:
    batch, size = sole(b), sole(s)
    d = b * ((s + 31) // 32) + minimum(s, 512)
    assert substitute(d, {size: 64}) == 2 * b + 64
    assert substitute(d, {batch: s, size: b}) == s * ((b + 31) // 32) + minimum(b, 512)
    assert substitute(d, {sole(t): 4}) is d and substitute(3, {batch: 1}) == 3
    assert substitute(i + s, {size: 4}) == i + 4  # the extent of i stays
    assert substitute(i * e + j, {sole(i): b, sole(j): 0}) == b * e
    assert substitute(broadcast(s, t), {size: 1}) == t
    quotient = Function("//", (s, 2))
    assert substitute(b * (s // 2) + s, {quotient: t}) == b * t + s
    with pytest.raises(DimError, match="broadcast"):
        substitute(broadcast(s, t), {size: 2, sole(t): 3})


def test_free_atoms() -> None:
    ids = Indirect("%ids", 0, t)
    d = minimum(s, b * (i // 2)) + ids.expr
    assert free_atoms(d) == (sole(b), sole(s), sole(i), ids)
    assert free_symbols(d) == (sole(b), sole(s)) and free_symbols(4) == ()


def test_evaluate() -> None:
    environment = {sole(b): 3, sole(s): 40, sole(n): -7}
    assert evaluate(b * s - (s + 31) // 32 + n // 2 + n % 2, environment) == 120 - 2 - 4 + 1
    assert evaluate(minimum(s, b) + maximum(s, b) + n * n, environment) == 43 + 49
    assert evaluate(broadcast(s, t), {sole(s): 1, sole(t): 5}) == 5
    assert evaluate(broadcast(s, t), {sole(s): 1, sole(t): 1}) == 1
    with pytest.raises(DimError, match="2 with 3"):
        evaluate(broadcast(s, t), {sole(s): 2, sole(t): 3})
    with pytest.raises(DimError, match="given for T"):
        evaluate(s + t, environment)


def test_evaluate_arrays() -> None:
    rows, columns = numpy.arange(4)[:, None], numpy.arange(6)[None, :]
    d = (i * 6 + j) // 5 + (i - j) % 4 + minimum(i, j, 2) * maximum(i, j) + broadcast(j - j // 2 * 2, 1)
    values = evaluate_array(d, {sole(i): rows, sole(j): columns})
    expected = [[evaluate(d, {sole(i): row, sole(j): column}) for column in range(6)] for row in range(4)]
    assert numpy.array_equal(values, expected)
    sizes = evaluate_array(broadcast(s, t), {sole(s): 4, sole(t): numpy.array([1, 4])})
    assert numpy.array_equal(sizes, [4, 4])
    with pytest.raises(DimError, match="broadcast"):
        evaluate_array(broadcast(s, t), {sole(s): 3, sole(t): numpy.array([1, 4])})
    for divided in (i // z, i % z):
        with pytest.raises(DimError, match="zero"):
            evaluate_array(divided, {sole(i): rows, sole(z): 0})


# --- Text -------------------------------------------------------------------------------------------------

TEXTS = [
    "7", "-7", "S", "-S", "B*S + 2*S - 1", "(H + 31)//32", "min(S, 512)", "max(B, S, 4)", "bcast(S, T)",
    "S % 16", "B*S*S", "B - S", "-B - S + 1", "-(S//2)", "-2*(S//2)", "B*(S//2) + S % 5 - S//3", "S//(B + 1)",
    "(2*S)//3", "S//(S % T + 1)", "5//S", "(-5)//Z", 'S*"a b"', '"min" + "say \\"x\\""', "_x + h.0.S",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(text: str) -> None:
    names: dict[str, Symbol] = {"Z": sole(z)}
    d = parse_dim(text, lambda name: names.setdefault(name, symbol(name)))
    again = parse_dim(format_dim(d), lambda name: names[name])
    assert again == d
    assert format_dim(d) == text


def test_precedence_and_spaces() -> None:
    def parsed(text: str) -> Dim:
        return parse_dim(text, {"S": sole(s), "T": sole(t)}.__getitem__)

    assert parsed("2 + 3*4 - 10//3//2 - 7 % 4") == 10
    assert parsed("-7//2") == -4 and parsed("-(7//2)") == -3 and parsed("--3 - -4") == 7
    assert parsed(" ( S+T ) *2 ") == 2 * s + 2 * t and parsed("10 - 3 - 2") == 5
    assert parsed("min( S , T,4 )") == minimum(s, t, 4) and parsed("S//T*T") == (s // t) * t


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a dim, found the end"),
        ("S +", "found the end"),
        ("S S", "expected an operator, found S"),
        ("(S", "expected )"),
        ("S)", "found )"),
        ("S $ 2", "found $"),
        ("2*Q", "no symbol is named Q"),
        ("min(S", "expected )"),
        ("min", "expected ("),
        ("S * min()", "expected a dim"),
        ("S + 4//0", "division by zero"),
        ("S + bcast(2, 3)", "broadcast"),
        ('S + "x', 'found "'),
        ('"\\q"', "escape"),
        ("S / 2", "found /"),
        ("(" * 5000, "nested"),
        ("-" * 5000, "nested"),
    ],
)
def test_wrong_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(DimError) as caught:
        parse_dim(text, {"S": sole(s)}.__getitem__)
    assert message in str(caught.value)


PROGRAM = """
from irc.dims import *
t, b, s, a = (symbol(name).expr for name in "TBSA")
print(t*b + s - a//b + minimum(t, s, b) + broadcast(b, a, s)*t*t + (s + a) % t)
print(*[x.name for x in free_symbols(t + a*b//s)], *[x.name for x in {*free_symbols(t*s + b*a)}])
"""


def test_order_is_by_name_whatever_the_hash_seed() -> None:
    outputs = set()
    for seed in ("0", "1", "2", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PROGRAM]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.add(run.stdout)
    (output,) = outputs
    first, second = output.splitlines()
    assert first == "T*T*bcast(A, B, S) + B*T + S + (A + S) % T - A//B + min(B, S, T)"
    assert second.startswith("A B S T ")


def test_order_does_not_depend_on_age() -> None:
    early, late = symbol("Y").expr, symbol("X").expr
    assert format_dim(early + late) == "X + Y" and format_dim(minimum(early, 3, late)) == "min(X, Y, 3)"
    twin = symbol("Y").expr
    assert free_atoms(twin + late + early) == (sole(late), sole(early), sole(twin))


def test_same_is_a_proof_of_equality() -> None:
    a, b = symbol("A", 0, 9).expr, symbol("B", 1, 9).expr
    sizes = [0, 1, 4, a, b, 2 * a, a + b, a * b, (4 * a) // 4, minimum(a, a + 1), minimum(a, b), a // b, b - b]
    for left, right in itertools.product(sizes, repeat=2):
        assert same(left, right) == (equal(left, right) is True)
