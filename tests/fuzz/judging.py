"""When two results agree: exactly, up to rounding as each program lets it grow.

An oracle runs a program several times: as it is, and with a relative error of about one unit in the last place in each
rounded result (Monte Carlo arithmetic: Parker, Pierce and Eggert, 2000). What these runs differ by bounds what another
order of the same operations may give. An element in whose place they have different integers, or NaN in one and a
number in the other, is decided by rounding alone: it is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
SAMPLES = 5  # perturbed runs of each program
CERTAIN = 80  # of one that is different: few runs may miss that a comparison is decided by rounding
# Perturbed runs show typical errors, not the largest: a result may be this many times further away ...
SPREAD = 16.0
# ... plus this many units in the last place.
UNITS = 8.0


def is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def unit(array: Array) -> float:
    return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]


def least_normal(array: Array) -> float:
    return float(ml_dtypes.finfo(array.dtype).smallest_normal)  # type: ignore[no-untyped-call]


def perturbed(
    array: Array, generator: np.random.Generator, *, absolute: bool | Array = False,
    limits: bool | Array = False, whole_too: bool = False
) -> Array:  # fmt: skip
    """An array of floats with an error of up to two units in each element; those of a subnormal number are those of the
    least normal one. `absolute` errors are those of elements of size 1, for functions (or the elements) whose
    implementations have an absolute error. Whole numbers below 2048 are exact, and stay, but for 1 and -1 as limits of
    such functions, 0 where it is one too (`limits`), and what an operation adds up and divides (`whole_too`)."""
    wide, eps, normal = array.astype(np.float64), unit(array), least_normal(array)
    noise = generator.uniform(-2 * eps, 2 * eps, array.shape)
    with np.errstate(all="ignore"):
        is_limit = absolute & ((np.abs(wide) == 1) | (limits & (wide == 0)))
        whole = (wide == np.round(wide)) & (np.abs(wide) < 2048) & ~is_limit
        stays = ~np.isfinite(wide) | (whole & (not whole_too))
        size = np.where(wide == 0, 0, np.maximum(np.abs(wide), normal))
        moved = wide + noise * (size + absolute)
        crossed = absolute & (np.sign(moved) != np.sign(wide)) & (generator.random(array.shape) < 0.5)
        moved = np.where(crossed, 0.0 * noise, moved)  # where exp(x) is rounded to 1, exp(x) - 1 is 0
        return np.where(stays, wide, moved).astype(array.dtype)


def overflowing(array: Array) -> Array:
    """An array of floats with infinities for numbers near the end of the range: products and sums of those overflow or
    not, as they are rounded at once (fused) or one by one, in one order or another."""
    wide, most = array.astype(np.float64), float(ml_dtypes.finfo(array.dtype).max)  # type: ignore[no-untyped-call]
    return np.where(np.abs(wide) > most / 16, np.sign(wide) * np.inf, wide).astype(array.dtype)


def without_fractions(array: Array) -> Array:
    """Magnitudes, those below 1 as 1: a product of these is infinite where some order of its factors overflows."""
    with np.errstate(all="ignore"):
        return np.maximum(np.abs(array), np.ones((), array.dtype))


def overflowed(product: Array, largest: Array) -> Array:
    """A product of floats as it is in the order that overflows, if `largest`, that `without_fractions`, is infinite."""
    changed: Array = np.where(np.isfinite(product) & np.isinf(largest), np.array(np.inf, product.dtype), product)
    return changed


def other_zeros(array: Array) -> Array:
    """An array with zeros of the other sign, if of floats: a product that is -0 stays so alone, and gives 0 where it is
    added to 0; of the two either is the larger."""
    return np.where(array == 0, -array, array) if is_float(array) else array


@dataclass(frozen=True)
class Truth:
    """An output as the oracle gives it: how far rounding may move each element, and which are not compared."""

    value: Array
    slack: Array
    undecided: Array

    @classmethod
    def of(cls, value: Array, others: Sequence[Array]) -> Truth:
        undecided, slack = np.zeros(value.shape, bool), np.zeros(value.shape)
        with np.errstate(all="ignore"):
            for other in others:
                if other.shape != value.shape:  # a shape that a comparison of rounded numbers decides
                    return cls(value, slack, np.ones(value.shape, bool))
                if not is_float(value):
                    undecided |= other != value
                    continue
                one, another = value.astype(np.float64), other.astype(np.float64)
                same = (one == another) | (np.isnan(one) & np.isnan(another))
                finite = np.isfinite(one) & np.isfinite(another)
                undecided |= ~same & ~finite
                np.maximum(slack, np.where(finite, np.abs(one - another), 0.0), out=slack)
        return cls(value, slack, undecided)

    def difference(self, actual: Any) -> str | None:
        """What is different in `actual`, in words; None where nothing is."""
        actual = np.asarray(actual)
        if actual.dtype != self.value.dtype:
            return f"dtype {actual.dtype}, expected {self.value.dtype}"
        if actual.shape != self.value.shape:
            if self.undecided.size and self.undecided.all():
                return None
            return f"shape {actual.shape}, expected {self.value.shape}"
        wrong = self._wrong(actual) & ~self.undecided
        if not wrong.any():
            return None
        where = tuple(np.argwhere(wrong)[0].tolist())
        place = f" at {list(where)}" if where else ""
        return f"{int(wrong.sum())} of {wrong.size} elements differ, the first{place}: {actual[where]}, " \
               f"expected {self.value[where]}"  # fmt: skip

    def without(self, other: Any) -> Truth:
        """This, compared only where `other` agrees with it: nowhere, where its shape or dtype is another."""
        other = np.asarray(other)
        alike = (other.dtype, other.shape) == (self.value.dtype, self.value.shape)
        return Truth(self.value, self.slack, self.undecided | (self._wrong(other) if alike else True))

    def _wrong(self, actual: Array) -> Any:
        if not is_float(actual):
            return actual != self.value
        with np.errstate(all="ignore"):
            one, another = actual.astype(np.float64), self.value.astype(np.float64)
            tiny = float(ml_dtypes.finfo(actual.dtype).smallest_subnormal)  # type: ignore[no-untyped-call]
            allowed = SPREAD * self.slack + UNITS * (unit(actual) * np.abs(another) + tiny)
            near = np.abs(one - another) <= np.where(np.isfinite(another), allowed, 0.0)
            return ~(near | (one == another) | (np.isnan(one) & np.isnan(another)))


def first_difference(references: Mapping[str, Truth], outputs: Mapping[str, Any]) -> str | None:
    """The first output that differs, and how."""
    if list(outputs) != list(references):
        return f"outputs {list(outputs)}, expected {list(references)}"
    for name, expected in references.items():
        said = expected.difference(outputs[name])
        if said is not None:
            return f"{name}: {said}"
    return None
