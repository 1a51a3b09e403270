"""What primitives compute of dims, where their NumPy references take numbers only.

These functions are declared with `OperationDefinition.on_dims`, each beside the reference, and evaluated by
`irc.constants`. Pointwise ones take an element of each operand, others arrays of elements. An element is an int, a dim,
a bool, a float, a `Comparison`, or None where it is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irc import dims
from irc.dims import Dim, Expr
from irc.dtypes import DType


@dataclass(frozen=True)
class Comparison:
    """A condition on dims that holds for some of their values only: `equal`, `less` or `less_equal`."""

    kind: str
    left: Dim
    right: Dim


def is_dim(element: Any) -> bool:
    """Whether an element can stand in a shape."""
    return isinstance(element, (int, Expr)) and not isinstance(element, bool)


def known(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of elements that is None unless all of them are dims."""

    def on_elements(*elements: Any, **attributes: Any) -> Any:
        return function(*elements, **attributes) if all(map(is_dim, elements)) else None

    return on_elements


def reduced(function: Callable[[Any], Dim]) -> Callable[..., Any]:
    """A function of a vector as a reduction of arrays; None for other arrays, and where not all elements are dims."""

    def on_arrays(x: Any, *, axes: tuple[int, ...], keep_dims: bool) -> Any:
        return function(x) if x.ndim == 1 and axes and all(map(is_dim, x)) else None

    return on_arrays


@known
def divide(x: Dim, y: Dim, *, rounding: str, by_zero: str | None, is_open: bool = False) -> Dim | None:
    """Truncation rounds towards 0: it floors the part of x that is positive and the part that is negative. What divides
    by 0 is no dim; `is_open` leaves its value open, so that x*y/y is x."""
    if dims.equal(y, 0) is not False:
        return dims.exact_divide(x, y) if is_open and by_zero is None else None
    if rounding == "floor":
        return dims.floor_divide(x, y)
    if dims.less(y, 0) is True:
        x, y = -x, -y
    if dims.less(0, y) is not True:
        return None
    return dims.floor_divide(dims.maximum(x, 0), y) - dims.floor_divide(dims.maximum(-x, 0), y)


@known
def remainder(x: Dim, y: Dim, **options: Any) -> Dim | None:
    quotient = divide(x, y, **options)
    return None if quotient is None else x - y * quotient


_DECIDE = {"equal": dims.equal, "less": dims.less, "less_equal": dims.less_equal}


def comparison(kind: str, swapped: bool = False) -> Callable[..., bool | Comparison | None]:
    """Whether a comparison holds, or the comparison itself where its dims do not decide it."""

    @known
    def compare(x: Dim, y: Dim) -> bool | Comparison:
        left, right = (y, x) if swapped else (x, y)
        verdict = _DECIDE[kind](left, right)
        return Comparison(kind, left, right) if verdict is None else verdict

    return compare


@known
def differ(x: Dim, y: Dim) -> bool | None:
    verdict = dims.equal(x, y)
    return None if verdict is None else not verdict


def choose(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y; the minimum or maximum where the two are compared with each other."""
    if isinstance(condition, bool):
        return x if condition else y
    if not isinstance(condition, Comparison) or {x, y} != {condition.left, condition.right}:
        return x if x is not None and x == y else None
    if condition.kind == "equal":
        return y
    return dims.minimum(x, y) if x == condition.left else dims.maximum(x, y)


def convert(x: Any, *, to: DType, saturate: bool = True) -> Dim | None:
    """An integer in an integer type; the caller that evaluates it knows the range."""
    return x if isinstance(x, Expr) and to.is_integer else int(x) if isinstance(x, int) and to.is_integer else None
