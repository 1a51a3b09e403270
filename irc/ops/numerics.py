"""What NumPy references share: rounding once, wrapping integers, converting element types.

Floats narrower than 32 bits are computed in f32 and rounded once, to nearest even; integers wrap around.
Nothing here warns: what an operation does at its edges is said in irc/ops/edge_cases.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irc import dtypes
from irc.diagnostics import fail
from irc.dtypes import DType
from irc.interfaces import Running, identity

Array = NDArray[Any]
_PLAIN = frozenset(
    np.dtype(name)
    for name in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                 "bool", "complex64", "complex128")
)  # fmt: skip


def widen(x: Array) -> Array:
    """The array in a type that NumPy computes with: f32 for narrower floats, a byte for narrower integers."""
    if x.dtype in _PLAIN:
        return x
    dtype = dtypes.from_numpy(x.dtype)
    if dtype.is_float:
        with np.errstate(invalid="ignore"):  # a signaling NaN
            return np.asarray(x, np.float32)
    if dtype.is_integer:
        return np.asarray(x, np.int8 if dtype.is_signed else np.uint8)
    return x


def narrow(x: Any, dtype: np.dtype[Any]) -> Array:
    """The array in `dtype`, rounded once to nearest even; integers keep their low bits."""
    x = np.asarray(x)
    if x.dtype == dtype:
        return np.asarray(x)
    if dtype in _PLAIN or x.dtype == np.float32 or x.dtype.kind in "OV":
        with np.errstate(all="ignore"):
            return np.asarray(x, dtype)
    if dtypes.from_numpy(dtype).is_float:
        # NumPy and ml_dtypes convert via f32, which rounds twice; an f32 rounded to odd loses nothing that
        # the second rounding needs, since f32 has more than two bits beyond any narrower type.
        x = round_to_odd(x)
    with np.errstate(all="ignore"):
        return np.asarray(x, dtype)


def round_to_odd(x: Array) -> Array:
    """The array as f32: exact where f32 can be, else that one of the two neighbors whose last bit is 1.

    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008), section 3.
    """
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        # Keep the high bits, and gather the low ones into one sticky bit: 40 bits are exact in f64.
        sign = np.where(x < 0, -1.0, 1.0)
        magnitude = np.where(x < 0, ~x + 1 if x.dtype.kind == "i" else x, x).astype(np.uint64)
        shift = np.where(magnitude >= 2**48, 16, 0).astype(np.uint64)
        shift = np.where(magnitude >= 2**62, 24, shift).astype(np.uint64)
        high = magnitude >> shift
        high |= ((high << shift) != magnitude).astype(np.uint64)
        x = sign * np.ldexp(high.astype(np.float64), shift.astype(np.int32))
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        near = np.atleast_1d(wide.astype(np.float32))
        bits = near.view(np.int32) - (np.abs(near.astype(np.float64)) > np.abs(wide))
        truncated = bits.view(np.float32)
        bits = bits | (truncated.astype(np.float64) != wide)
    return np.asarray(bits.view(np.float32)).reshape(wide.shape)


def rounded(function: Callable[..., Any]) -> Callable[..., Array]:
    """A reference that computes wide and rounds to the first operand's type, without warnings."""

    def reference(*arrays: Array, **attributes: Any) -> Array:
        with np.errstate(all="ignore"):
            return narrow(function(*map(widen, arrays), **attributes), arrays[0].dtype)

    return reference


def to_bool(function: Callable[..., Any]) -> Callable[..., Array]:
    """A reference whose result is bool."""

    def reference(*arrays: Array, **attributes: Any) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(*map(widen, arrays), **attributes)).astype(np.bool_)

    return reference


def neutral(combine: Running, narrow: Array, wide: Array) -> Any:
    """The identity of `combine` for elements of the type of `narrow`, as one of the type of `wide`."""
    return wide.dtype.type(identity(combine, dtypes.from_numpy(narrow.dtype)))


def convert(x: Array, to: DType, saturate: bool = True) -> Array:
    """The cast operation's reference; see its page."""
    source = dtypes.from_numpy(x.dtype)
    if source is to:
        return x
    if source is dtypes.STRING or to is dtypes.STRING:
        raise fail("type.dtype", "strings cannot be cast")
    target = to.numpy
    with np.errstate(all="ignore"):
        if to is dtypes.BOOL:
            return np.asarray(widen(x) != 0)
        if source.is_complex or to.is_complex or not to.is_integer:
            return _to_float(x, source, to, saturate) if to.is_float and not source.is_complex else x.astype(target)
        if source.is_float:
            return _float_to_integer(widen(x), to, saturate)
        return narrow(widen(x), target)


def _to_float(x: Array, source: DType, to: DType, saturate: bool) -> Array:
    result = narrow(widen(x) if source is not dtypes.BOOL else x.astype(np.float32), to.numpy)
    if saturate and to.bits <= 8:
        largest = dtypes.limits(to).largest
        wide, done = np.asarray(widen(x)).astype(np.float64), widen(result)
        # The rounded magnitude decides: what rounds down to the greatest number is not out of range.
        over = (np.isinf(done) | np.isnan(done)) & ~np.isnan(wide) & (np.abs(wide) > largest)
        result = np.where(over, np.copysign(largest, wide).astype(np.float32), done).astype(to.numpy)
    return result


def _float_to_integer(x: Array, to: DType, saturate: bool) -> Array:
    whole = np.trunc(x).astype(np.float64) if x.dtype != np.float64 else np.trunc(x)
    low, high = (int(limit) for limit in dtypes.limits(to))
    if saturate:
        # high + 1 is a power of two, hence exact as a float, where high itself may not be.
        inside = (whole >= low) & (whole < float(high + 1))
        wide = np.uint64 if to.kind == "uint" else np.int64
        result = np.where(inside, whole, 0.0).astype(wide)
        result = np.where(whole >= float(high + 1), wide(high), result)
        return np.where(whole < low, wide(low), result).astype(to.numpy)
    if to is dtypes.U64:
        is_large = (whole >= 2.0**63) & (whole < 2.0**64)
        large = np.where(is_large, whole, 0.0).astype(np.uint64)
        return np.where(whole >= 2.0**63, large, _indefinite(whole, 64).astype(np.uint64))
    return _indefinite(whole, 64 if to.bits == 64 or to is dtypes.U32 else 32).astype(to.numpy)


def _indefinite(whole: Array, bits: int) -> Array:
    """As an i64 of so many bits, with the least one for what does not fit and for NaN, as x86 converts."""
    least = -(2 ** (bits - 1))
    inside = (whole >= float(least)) & (whole < -float(least))
    return np.where(inside, np.where(inside, whole, 0.0).astype(np.int64), np.int64(least))
