"""Rooflines: a lower bound of the time of device operations, from the published peaks of a device (`irc.device`).

Williams, Waterman, Patterson: Roofline, 2009. This is an estimate from counts, not a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from irc.device import Device
from irc.dtypes import BF16, F32
from irc.ir import Value


def estimate(operations: Iterable[Any], device: Device) -> float:
    """Seconds: the sum over a program's device operations of the larger of the times of its distinct bytes and of its
    flops at the peaks. Launch overhead, and flops of operations other than kernels and library calls, are not included.
    """
    seconds = 0.0
    for each in operations:
        narrow = each.kind == "library" and any(is_narrow(value) for value in each.operation.results)
        peak = device.matrix_peak(BF16) if narrow else device.vector_peak(F32)
        seconds += max(_ratio(each.distinct_bytes, device.memory_rate), _ratio(each.flops, peak))
    return seconds


def _ratio(amount: int, rate: float) -> float:
    """`amount / rate`; infinite where the amount exceeds the range of floats."""
    return amount / rate if amount.bit_length() <= 1000 else math.inf


def is_narrow(value: Value) -> bool:
    """Whether products of its type run at the full rate of matrix units."""
    return bool(value.dtype.is_float and value.dtype.bits < 32)
