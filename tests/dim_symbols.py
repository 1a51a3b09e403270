"""Symbols that tests of the dim language share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from irc.dims import (
    Dim,
    symbol,
)

# --- Against brute force ----------------------------------------------------------------------------------

# Small ranges, so that intervals decide often; one symbol may be 0, one is negative, one has a divisor.
SYMBOLS = [
    symbol("A", 1, 6), symbol("C", 0, 3), symbol("D", -4, 4), symbol("F", 2, 5), symbol("G", 4, 16, multiple=4),
]  # fmt: skip
Environment = dict[Any, int]
Evaluator = Callable[[Environment], int]
Pair = tuple[Dim, Evaluator]  # what the constructors made, and what it must be


class Undefined(Exception):
    """A division by zero, or sizes that do not broadcast."""


def divide(x: int, y: int) -> int:
    if y == 0:
        raise Undefined
    return x // y


def constant(value: int) -> Pair:
    return value, lambda environment: value


def atom_pair(atom: Any) -> Pair:
    return atom.expr, lambda environment: environment[atom]


sized = st.one_of(st.integers(1, 6).map(constant), st.sampled_from(SYMBOLS).map(atom_pair))
