"""The dim language on random expressions, against integer evaluation by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irc.dims import (
    Dim,
    DimError,
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
    less,
    less_equal,
    maximum,
    minimum,
    modulo,
    multiple_of,
    parse_dim,
    substitute,
    symbol,
)
from tests.dim_symbols import SYMBOLS, Environment, Pair, Undefined, atom_pair, constant, divide, sized

FIRST, LAST = SYMBOLS[0].expr, SYMBOLS[3].expr
AXES = [Variable("p", FIRST), Variable("q", LAST), Variable("r", 4), Variable("u", minimum(FIRST, 3))]
LOADED = Indirect("%ids", -1, FIRST)


def common_size(*sizes: int) -> int:
    if len({size for size in sizes if size != 1}) > 1:
        raise Undefined
    return next((size for size in sizes if size != 1), 1)


BINARY: list[tuple[Callable[[Any, Any], Any], Callable[[int, int], int]]] = [
    (lambda x, y: x + y, lambda x, y: x + y),
    (lambda x, y: x - y, lambda x, y: x - y),
    (lambda x, y: x * y, lambda x, y: x * y),
    (floor_divide, divide),
    (modulo, lambda x, y: x - y * divide(x, y)),
    (minimum, min),
    (maximum, max),
    (broadcast, common_size),
    (ceil_divide, lambda x, y: -divide(-x, y)),
    (lambda x, y: y * floor_divide(x, y) + modulo(x, y), lambda x, y: x + 0 * divide(x, y)),
    (lambda x, y: modulo(x, y) - x, lambda x, y: -y * divide(x, y)),
]
MANY: list[tuple[Callable[..., Dim], Callable[..., int]]] = [
    (minimum, lambda *values: min(values)), (maximum, lambda *values: max(values)), (broadcast, common_size),
]  # fmt: skip


def combine(operation: int, left: Pair, right: Pair) -> Pair:
    build, compute = BINARY[operation]
    try:
        built = build(left[0], right[0])
    except DimError:
        assume(False)
        raise
    return built, lambda environment: compute(left[1](environment), right[1](environment))


leaves = st.one_of(
    st.integers(-8, 8).map(constant),
    st.sampled_from([2, 3, 4, 6, 12]).map(constant),
    st.sampled_from([*SYMBOLS, *AXES, LOADED]).map(atom_pair),
)


def grow(smaller: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(combine, st.integers(0, len(BINARY) - 1), smaller, smaller),
        st.builds(combine, st.sampled_from([3, 4]), smaller, sized),  # division, and by something simple
        st.builds(combine, st.sampled_from([0, 1, 2]), smaller, leaves),
    )


pairs = st.recursive(leaves, grow, max_leaves=9)


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    values: Environment = {
        atom: draw(st.sampled_from(range(bounds(atom.expr)[0], atom.high + 1, atom.multiple))) for atom in SYMBOLS
    }
    for axis in AXES:
        values[axis] = draw(st.integers(0, evaluate(axis.extent, values) - 1))
    values[LOADED] = draw(st.integers(-1, evaluate(FIRST, values)))
    return values


def value_of(pair: Pair, environment: Environment) -> int | None:
    """What `pair` must be, or None where it is not defined."""
    try:
        return pair[1](environment)
    except Undefined:
        return None


some_environments = st.lists(environments(), min_size=6, max_size=6)
thorough = settings(max_examples=400, deadline=None)


@thorough
@given(pairs, some_environments)
def test_simplification_keeps_values(pair: Pair, points: list[Environment]) -> None:
    d = pair[0]
    assert isinstance(d, int) or any(monomial for monomial, _ in d.terms)
    for environment in points:
        value = value_of(pair, environment)
        if value is not None:
            assert evaluate(d, environment) == value, f"{d} at {environment}"
            low, high = bounds(d)
            assert low <= value <= high
            assert value % multiple_of(d) == 0 if multiple_of(d) else value == 0
            arrays = {atom: numpy.array([number]) for atom, number in environment.items()}
            assert numpy.all(numpy.asarray(evaluate_array(d, arrays)) == value)


@thorough
@given(pairs)
def test_text_reads_back(pair: Pair) -> None:
    try:
        d = substitute(pair[0], {LOADED: 1})  # an indirect has no text that reads back
    except DimError:
        assume(False)
    named: list[Symbol | Variable] = [*SYMBOLS, *AXES]
    names = {atom.name: atom for atom in named}
    assert parse_dim(format_dim(d), names.__getitem__) == d


@thorough
@given(pairs, pairs, some_environments)
def test_answers_are_never_wrong(left: Pair, right: Pair, points: list[Environment]) -> None:
    a, c = left[0], right[0]
    answers = equal(a, c), less(a, c), less_equal(a, c)
    quotient = exact_divide(a, c)
    for environment in points:
        x, y = value_of(left, environment), value_of(right, environment)
        if x is not None and y is not None:
            truths = x == y, x < y, x <= y
            for answer, expected in zip(answers, truths, strict=True):
                assert answer is None or answer == expected
            if quotient is not None and y != 0:
                assert x % y == 0 and evaluate(quotient, environment) == x // y
            assert quotient is None or y != 0 or x == 0


@thorough
@given(pairs, pairs, st.sampled_from(SYMBOLS), some_environments)
def test_substitution_keeps_values(pair: Pair, other: Pair, replaced: Symbol, points: list[Environment]) -> None:
    try:
        d = substitute(pair[0], {replaced: other[0]})
    except DimError:
        assume(False)
    for environment in points:
        inner = value_of(other, environment)
        if inner is None or not (replaced.low <= inner <= replaced.high and inner % replaced.multiple == 0):
            continue
        moved = {**environment, replaced: inner}
        if any(not 0 <= moved[axis] < evaluate(axis.extent, moved) for axis in AXES):
            continue
        if moved[LOADED] > evaluate(FIRST, moved):
            continue
        value = value_of(pair, moved)
        if value is not None:
            assert evaluate(d, environment) == value


@thorough
@given(st.lists(pairs, min_size=1, max_size=4), some_environments, st.randoms())
def test_functions_of_many_arguments(several: list[Pair], points: list[Environment], shuffler: Any) -> None:
    shuffled = list(several)
    shuffler.shuffle(shuffled)
    for build, compute in MANY:
        try:
            d, again = build(*(pair[0] for pair in several)), build(*(pair[0] for pair in shuffled))
        except DimError:
            continue
        assert d == again
        for environment in points:
            try:
                value = compute(*(pair[1](environment) for pair in several))
            except Undefined:
                continue
            assert evaluate(d, environment) == value


@pytest.mark.parametrize("divisor", [-5, -3, -1, 1, 2, 3, 7])
def test_floor_semantics_exhaustively(divisor: int) -> None:
    x = symbol("X", -30, 30)
    for factor, offset in itertools.product((-6, -1, 1, 2, 5, 14), (-9, -1, 0, 4, 20)):
        d = factor * x.expr + offset
        for value in range(-30, 31):
            environment = {x: value}
            expected = divmod(factor * value + offset, divisor)
            assert (evaluate(d // divisor, environment), evaluate(d % divisor, environment)) == expected
