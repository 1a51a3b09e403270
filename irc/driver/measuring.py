"""Errors of values against an evaluation in f64, and the errors that are allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from irc import dtypes

ALLOWANCE = 8.0  # the allowed error of a stage is that of the imported program times this,
LEAST_UNITS = 64.0  # and at least this many units in the last place of the output's type,
LEAST_NARROW_UNITS = 4.0  # or this many for types whose sums are computed in f32
LEAST_DIFFERENCE = 2.0**-64  # of integers that are not equal


@dataclass(frozen=True)
class Yardstick:
    """Measures errors of a value: `exact` is an evaluation in f64, `declared` the result of the imported program.

    An element is **unsettled** where these two are not roundings of one number: one of them is infinite or NaN (f16
    overflows, for example), or integers differ. Such an element may be either, and does not count in `allowed`.
    """

    declared: Any
    exact: Any

    @cached_property
    def parts(self) -> list[Yardstick] | None:
        """One for each element of a sequence or a map; None for an array, or where the lengths differ."""
        declared, exact = parts_of(self.declared), parts_of(self.exact)
        if declared is None or exact is None or len(declared) != len(exact):
            return None
        return list(map(Yardstick, declared, exact))

    @cached_property
    def open(self) -> Any:
        """Which elements are unsettled, as a mask; None where elements do not correspond."""
        import numpy as np

        if parts_of(self.declared) is not None or parts_of(self.exact) is not None:
            return None
        declared, exact = np.asarray(self.declared), np.asarray(self.exact)
        if declared.shape != exact.shape or declared.dtype.kind in "OSUT" or exact.dtype.kind in "OSUT":
            return None
        if not (is_inexact(declared) or is_inexact(exact)):
            return declared != exact
        declared, exact = widened(declared), widened(exact)
        both_nan, both_finite = np.isnan(declared) & np.isnan(exact), np.isfinite(declared) & np.isfinite(exact)
        return (declared != exact) & ~both_nan & ~both_finite

    @cached_property
    def unsettled(self) -> int:
        """How many elements are unsettled."""
        if self.parts is not None:
            return sum(part.unsettled for part in self.parts)
        return 0 if self.open is None else int(self.open.sum())

    @cached_property
    def allowed(self) -> float:
        """The allowed error of a later stage: 0 for integers and bools, else by the rounding of the declared type."""
        import ml_dtypes
        import numpy as np

        if self.parts is not None:
            return max((part.allowed for part in self.parts), default=0.0)
        array = np.asarray(self.declared)
        if parts_of(self.declared) is not None or not is_inexact(array):
            return 0.0
        real = array.real.dtype if np.iscomplexobj(array) else array.dtype
        units = LEAST_UNITS if real.itemsize >= 4 else LEAST_NARROW_UNITS
        unit = float(ml_dtypes.finfo(real).eps)  # type: ignore[no-untyped-call]
        return max(ALLOWANCE * self.error(array), units * unit)

    def error(self, value: Any) -> float:
        """max |a - b| / max |b| over the elements, where b is `exact`, or for an unsettled element the closer of
        `exact` and `declared`; infinite where shapes, NaNs or infinities are those of neither."""
        import numpy as np

        parts = parts_of(value)
        if self.parts is not None and parts is not None and len(parts) == len(self.parts):
            return max((part.error(each) for part, each in zip(self.parts, parts, strict=True)), default=0.0)
        if self.open is None or parts is not None or np.asarray(value).shape != self.open.shape:
            return min(relative_error(value, self.declared), relative_error(value, self.exact))
        array, declared, exact = (np.asarray(each) for each in (value, self.declared, self.exact))
        settled = ~self.open
        if not (is_inexact(array) or is_inexact(declared) or is_inexact(exact)):
            return relative_error(array, np.where(array == declared, declared, exact))
        array, declared, exact = widened(array), widened(declared), widened(exact)
        scale = largest(exact[settled]) or largest(declared[settled])
        error = distance(array[settled], exact[settled], scale)
        array, declared, exact = array[self.open], declared[self.open], exact[self.open]
        nearest = np.minimum(elementwise_error(array, declared), elementwise_error(array, exact))
        nearest[np.isnan(declared) & ~np.isfinite(array)] = 0.0  # NaN of inf - inf: here one term may overflow
        return max(error, float(nearest.max(initial=0.0)))


def relative_error(value: Any, exact: Any) -> float:
    """max |a - b| / max |b| in f64; infinite where shapes, NaNs or infinities differ; 0 for empty arrays. For sequences
    and maps the largest error of their elements; infinite where their lengths or keys differ."""
    import numpy as np

    value_parts, exact_parts = parts_of(value), parts_of(exact)
    if value_parts is not None and exact_parts is not None and len(value_parts) == len(exact_parts):
        return max(map(relative_error, value_parts, exact_parts), default=0.0)
    if value_parts is not None or exact_parts is not None:
        return math.inf
    a, b = np.asarray(value), np.asarray(exact)
    if a.shape != b.shape:
        return math.inf
    if not (is_inexact(a) or is_inexact(b)) and np.array_equal(a, b):
        return 0.0
    if dtypes.STRING in (dtypes.from_numpy(a.dtype), dtypes.from_numpy(b.dtype)):
        return math.inf
    # Large integers may differ by less than f64 can represent.
    least = 0.0 if is_inexact(a) or is_inexact(b) else LEAST_DIFFERENCE
    return max(distance(widened(a), widened(b)), least)


def distance(a: Any, b: Any, scale: float | None = None) -> float:
    """max |a - b| / scale, by default max |b|; infinite where NaNs or infinities differ."""
    import numpy as np

    a, b = np.asarray(a), np.asarray(b)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    difference, scale = largest(a[finite] - b[finite]), largest(b) if scale is None else scale
    return difference / scale if scale else (0.0 if difference == 0 else math.inf)


def elementwise_error(a: Any, b: Any) -> Any:
    """|a - b| / |b| of each element; infinite where they differ and are not both finite."""
    import numpy as np

    with np.errstate(all="ignore"):
        ratio = np.abs(a - b) / np.abs(b)
    ratio = np.where(np.isfinite(a) & np.isfinite(b), ratio, math.inf)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, ratio)


def largest(array: Any) -> float:
    """The largest magnitude of the finite elements; 0 if there are none."""
    import numpy as np

    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def is_inexact(array: Any) -> bool:
    dtype = dtypes.from_numpy(array.dtype)
    return dtype.is_float or dtype.is_complex


def widened(array: Any) -> Any:
    import numpy as np

    return array.astype(np.complex128 if dtypes.from_numpy(array.dtype).is_complex else np.float64)


def parts_of(value: Any) -> list[Any] | None:
    """The elements of a sequence, or the keys and the elements of a map; None for an array."""
    import numpy as np

    if getattr(value, "shape", None) == () and value.dtype == object:
        value = value.item()
    if isinstance(value, dict):
        return [np.asarray(list(value)), *value.values()]
    return value if isinstance(value, list) else None
