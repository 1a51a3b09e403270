"""Classes of numerics: how far results may change where one program stands for another.

Every rewrite rule and every kernel declares a class, and `--numerics` allows all up to one (`allows`). What a class
demands of results is a function in the table `NUMERICS_RULES`; its docstring is the page (`irc doc exact`).
`irc check rules.py` calls it on the results of drawn programs, before and after a rule.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from irc import dtypes
from irc.numbered_rules import table

Array = NDArray[Any]
Numerics = Literal["exact", "keeps_more_precision", "reassociates", "approximates"]
NUMERICS: tuple[Numerics, ...] = typing.get_args(Numerics)
MEASURED = "max error relative to the terms"
IN_F64 = 1e-9  # error between two ways to compute one number in f64
IN_APPROXIMATION = 1e-2  # between a number and one that stands for it where rules may approximate


def allows(allowed: Numerics, declared: Numerics) -> bool:
    """Whether a user who allows `allowed` accepts a change of class `declared`; the classes are nested."""
    return NUMERICS.index(declared) <= NUMERICS.index(allowed)


def not_allowed(declared: Numerics, allowed: Numerics) -> str:
    """Why a rule is not tried: the option that leaves it out."""
    return f"--numerics {allowed} does not allow {declared}"


@dataclass(frozen=True)
class Results:
    """The float result `index` of two programs on the same inputs, and what they give when all is computed in f64.

    `size` is that of the largest terms that are summed on the way, where it is known: errors are relative to it, since
    a difference of terms that cancel says nothing of their rounding.
    """

    index: int
    before: Array
    after: Array
    before_in_f64: Array
    after_in_f64: Array
    size: float = 0.0


def exact(results: Results) -> str | None:
    """Results are equal to the last bit, -0 included; of NaN the payload does not matter.

    Why: rounding, infinities and the sign of zero are not changed, so that such a rule may apply anywhere.

    Example: the difference is rounded.
        @rewrite(numerics="exact")
        def cancel(x, y):
            return sub(add(x, y), y), x
    """
    return None if same_bits(results.after, results.before) else (
        f"result {results.index} differs; the rule says `exact`"
    )


def keeps_more_precision(results: Results) -> str | None:
    """The same number is computed, with at most 4 units in the last place beyond twice the error of the original.

    Why: intermediate results are kept in a wider type than the program states, or are rounded less often.

    Example: the operand is rounded to f16.
        @rewrite(numerics="keeps_more_precision")
        def half(x):
            return neg(x), lambda: cast(mul(cast(x, to=F16), -1.0), to=x.dtype)
    """
    return error_in_f64(results, "keeps_more_precision", IN_F64) or rounding_error(results, 4.0)


def reassociates(results: Results) -> str | None:
    """The same number is computed, by another order of additions or products: with at most 64 units in the last place,
    of the largest term, beyond twice the error of the original.

    Why: sums are split among the lanes of a device, and products by a constant are moved through them.

    Example: another function, which is near the first.
        @rewrite(numerics="reassociates")
        def by_tanh(x):
            return gelu(x), gelu(x, approximate="tanh")
    """
    return error_in_f64(results, "reassociates", IN_F64) or rounding_error(results, 64.0)


def approximates(results: Results) -> str | None:
    """Another number is computed, within 1e-2 of the largest term.

    Why: the error is small against that of a trained model, and a form such as `gelu` with `tanh` takes less time.

    Example: a series that ends too soon.
        @rewrite(numerics="approximates")
        def series(x):
            return exp(x), add(x, 1.0)
    """
    return error_in_f64(results, "approximates", IN_APPROXIMATION)


NUMERICS_RULES = table(
    ("exact", "rule.differs", exact),
    ("keeps_more_precision", "rule.differs", keeps_more_precision),
    ("reassociates", "rule.differs", reassociates),
    ("approximates", "rule.differs", approximates),
)


# -- measuring -------------------------------------------------------------------------------------------------


def error_in_f64(results: Results, numerics: Numerics, most: float) -> str | None:
    """What is wrong where the two programs compute different numbers."""
    error = error_against_terms(results.after_in_f64, results.before_in_f64, results.size)
    return f"{MEASURED} {error:.2g} in f64 (allowed {most:g} for `{numerics}`)" if error > most else None


def rounding_error(results: Results, units: float) -> str | None:
    """What is wrong where `after` has a larger error than twice that of `before` and `units` in the last place."""
    before, after = (array.astype(np.float64) for array in (results.before, results.after))
    true = np.where(np.isfinite(before), results.before_in_f64, np.nan)  # where the original overflows by itself
    first, error = (error_against_terms(array, true, results.size) for array in (before, after))
    most = 2 * first + units * _epsilon(results.before)
    if error > most:
        return f"{MEASURED} {error:.2g} in {results.before.dtype} (the original's {first:.2g}, allowed {most:.2g})"
    return None


def error_against_terms(a: Array, b: Array, size: float) -> float:
    """max|a - b| / max(|b|, `size` of the terms) where b is finite; infinite where a is not finite there."""
    where = np.isfinite(b)
    if not where.any():
        return 0.0
    difference = np.abs(a[where] - b[where])
    if not np.isfinite(difference).all():
        return math.inf
    scale = max(float(np.abs(b[where]).max()), size)
    return float(difference.max()) / scale if scale else float(difference.max())


def same_bits(a: Array, b: Array) -> bool:
    """Equality to the last bit, -0 included; NaN is NaN whatever its payload."""
    if not is_float(a):
        return bool(np.array_equal(a, b))
    nan = np.isnan(a.astype(np.float64))
    same = (a == b) & (np.signbit(a.astype(np.float64)) == np.signbit(b.astype(np.float64)))
    return bool((same | (nan & np.isnan(b.astype(np.float64)))).all())


def is_float(array: Array) -> bool:
    """Whether the elements are of a float type, those that NumPy does not have included."""
    return dtypes.from_numpy(array.dtype).is_float


def _epsilon(array: Array) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
