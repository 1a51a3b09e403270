"""Ranges: the least and the greatest number that a value may hold, for all inputs.

`number_range` follows few operations, those by which masks and factors are computed, to constants and to what is cast
from integers.
"""

from __future__ import annotations

import math

import numpy as np

from irc.dtypes import BOOL, limits
from irc.ir import Operation, Value
from irc.op import const

Range = tuple[float, float]

DEPTH = 16  # operations between a value and what its range follows from
MOVED = ("reshape", "transpose", "expand", "slice", "gather", "gather_nd", "tile")  # whose results have elements of one
COMBINED = ("concat", "select", "minimum", "maximum", "add", "sub", "mul", "neg", "cast")


def number_range(value: Value) -> Range | None:
    """The range of a value of real numbers; None where it may be NaN, or nothing is known of it."""
    return _Ranges().of(value, DEPTH)


class _Ranges:
    """The ranges of the values that are met, each computed once."""

    def __init__(self) -> None:
        self.known: dict[Value, Range | None] = {}

    def of(self, value: Value, depth: int) -> Range | None:
        if value not in self.known:
            self.known[value] = self._of(value, depth)
        return self.known[value]

    def _of(self, value: Value, depth: int) -> Range | None:
        maker, dtype = value.operation, value.dtype
        if not (dtype.is_float or dtype.is_integer or dtype is BOOL):
            return None
        if maker is not None and maker.definition is const:
            return _of_constant(maker)
        result = self._of_result(maker, depth - 1) if maker is not None and depth else None
        if result is not None or dtype.is_float:
            return result
        low, high = limits(dtype)
        return float(low), float(high)

    def _of_result(self, operation: Operation, depth: int) -> Range | None:
        name, dtype = operation.name, operation.results[0].dtype
        if name in MOVED:
            return self.of(operation.inputs[0], depth)
        if name not in COMBINED:
            return None
        ranges = [self.of(each, depth) for each in operation.inputs[name == "select" :]]
        known = [each for each in ranges if each is not None]
        if len(known) < len(ranges):
            return None
        result = _combined(name, known)
        if result is None or not dtype.is_float:
            fits = result is not None and limits(dtype)[0] <= result[0] and result[1] <= limits(dtype)[1]
            return result if fits else None
        low, high = (math.copysign(math.inf, end) if abs(end) > limits(dtype)[1] else end for end in result)
        return low, high


def _of_constant(maker: Operation) -> Range | None:
    array = np.asarray(maker.attributes["value"].array()).astype(np.float64)
    if array.size == 0 or np.isnan(array).any():
        return None
    return float(array.min()), float(array.max())


def _combined(name: str, ranges: list[Range]) -> Range | None:
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    if name in ("concat", "select", "cast"):
        return min(lows), max(highs)
    if name == "minimum":
        return min(lows), min(highs)
    if name == "maximum":
        return max(lows), max(highs)
    if name == "neg":
        return -highs[0], -lows[0]
    if not all(map(math.isfinite, (*lows, *highs))):
        return None  # inf - inf and 0 * inf are NaN
    if name == "add":
        return sum(lows), sum(highs)
    if name == "sub":
        return lows[0] - highs[1], highs[0] - lows[1]
    products = [a * b for a in ranges[0] for b in ranges[1]]
    return min(products), max(products)
