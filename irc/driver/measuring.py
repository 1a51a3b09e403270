"""How far values are from those of an evaluation in f64, and how far they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from irc import dtypes

# A stage may be this many times further from f64 than the program as it was imported, which has rounding of its own.
ALLOWANCE = 8.0
# ... and never has to be closer than this many units in the last place of the output's type.
LEAST_UNITS = 64.0
LEAST_NARROW_UNITS = 4.0  # of types whose sums are kept in f32
LEAST_DIFFERENCE = 2.0**-64  # of integers that are not equal


@dataclass(frozen=True)
class Yardstick:
    """What a value is measured by: `truth`, an evaluation in f64, and `own`, what the program as imported gives.

    An element is **unsettled** where these are no two roundings of one number: one of them is infinite or NaN, as where
    f16 overflows, or integers differ. There a value may be either, and the others alone say how far one may be.
    """

    own: Any
    truth: Any

    @cached_property
    def parts(self) -> list[Yardstick] | None:
        """Those of the elements of a sequence or a map; None of an array, or where their numbers differ."""
        own, truth = parts_of(self.own), parts_of(self.truth)
        if own is None or truth is None or len(own) != len(truth):
            return None
        return list(map(Yardstick, own, truth))

    @cached_property
    def open(self) -> Any:
        """Which elements are unsettled; None of what has no elements that correspond."""
        import numpy as np

        if parts_of(self.own) is not None or parts_of(self.truth) is not None:
            return None
        own, truth = np.asarray(self.own), np.asarray(self.truth)
        if own.shape != truth.shape or own.dtype.kind in "OSUT" or truth.dtype.kind in "OSUT":
            return None
        if not (is_inexact(own) or is_inexact(truth)):
            return own != truth
        own, truth = widened(own), widened(truth)
        return (own != truth) & ~(np.isnan(own) & np.isnan(truth)) & ~(np.isfinite(own) & np.isfinite(truth))

    @cached_property
    def unsettled(self) -> int:
        """How many elements are unsettled."""
        if self.parts is not None:
            return sum(part.unsettled for part in self.parts)
        return 0 if self.open is None else int(self.open.sum())

    @cached_property
    def allowed(self) -> float:
        """What a later stage may differ by: 0 for integers and bools, else by the rounding of the declared type."""
        import ml_dtypes
        import numpy as np

        if self.parts is not None:
            return max((part.allowed for part in self.parts), default=0.0)
        array = np.asarray(self.own)
        if parts_of(self.own) is not None or not is_inexact(array):
            return 0.0
        real = array.real.dtype if np.iscomplexobj(array) else array.dtype
        units = LEAST_UNITS if real.itemsize >= 4 else LEAST_NARROW_UNITS
        unit = float(ml_dtypes.finfo(real).eps)  # type: ignore[no-untyped-call]
        return max(ALLOWANCE * self.error(array), units * unit)

    def error(self, value: Any) -> float:
        """max |a - b| / max |b| over the elements, b being the truth, or of an unsettled one what is closer; infinite
        where shapes, NaNs or infinities are neither's."""
        import numpy as np

        own_parts = parts_of(value)
        if self.parts is not None and own_parts is not None and len(own_parts) == len(self.parts):
            return max((part.error(each) for part, each in zip(self.parts, own_parts, strict=True)), default=0.0)
        if self.open is None or own_parts is not None or np.asarray(value).shape != self.open.shape:
            return min(relative_error(value, self.own), relative_error(value, self.truth))
        array, own, truth = (np.asarray(each) for each in (value, self.own, self.truth))
        settled = ~self.open
        if not (is_inexact(array) or is_inexact(own) or is_inexact(truth)):
            return relative_error(array, np.where(array == own, own, truth))
        array, own, truth = widened(array), widened(own), widened(truth)
        scale = largest(truth[settled]) or largest(own[settled])
        error = distance(array[settled], truth[settled], scale)
        array, own, truth = array[self.open], own[self.open], truth[self.open]
        nearest = np.minimum(parted(array, own), parted(array, truth))
        nearest[np.isnan(own) & ~np.isfinite(array)] = 0.0  # of NaN, as of inf - inf, only one term may have overflowed
        return max(error, float(nearest.max(initial=0.0)))


def relative_error(value: Any, truth: Any) -> float:
    """max |a - b| / max |b| in f64; infinite where shapes, NaNs or infinities differ. 0 for empty arrays. Of sequences
    and maps the largest of their elements; infinite where their lengths or keys differ."""
    import numpy as np

    own_parts, parts = parts_of(value), parts_of(truth)
    if own_parts is not None and parts is not None and len(own_parts) == len(parts):
        return max(map(relative_error, own_parts, parts), default=0.0)
    if own_parts is not None or parts is not None:
        return math.inf
    a, b = np.asarray(value), np.asarray(truth)
    if a.shape != b.shape:
        return math.inf
    own, other = dtypes.from_numpy(a.dtype), dtypes.from_numpy(b.dtype)
    if not (is_inexact(a) or is_inexact(b)) and np.array_equal(a, b):
        return 0.0
    if dtypes.STRING in (own, other):
        return math.inf
    # Large integers may differ by less than f64 tells apart.
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


def parted(a: Any, b: Any) -> Any:
    """|a - b| / |b| of each element; infinite where they are not the same and not both finite."""
    import numpy as np

    with np.errstate(all="ignore"):
        ratio = np.abs(a - b) / np.abs(b)
    ratio = np.where(np.isfinite(a) & np.isfinite(b), ratio, math.inf)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, ratio)


def largest(array: Any) -> float:
    """The largest magnitude of the finite elements; 0 of none."""
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
