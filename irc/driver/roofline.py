"""Rooflines: a lower bound of the time of device operations, from the published peaks of a device.

Williams, Waterman, Patterson: Roofline, 2009. This is an estimate from counts, not a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from irc.ir import Value


@dataclass(frozen=True)
class Device:
    """Published peaks: bytes of memory and floating-point operations per second, without sparsity.

    Sources: the data sheets of NVIDIA A100 (80 GB SXM), H100 (SXM) and B200 (HGX), and of AMD Instinct MI300X.
    """

    name: str
    bytes_per_second: float
    flops_per_second: float  # f32, outside of matrix units
    narrow_product_flops_per_second: float  # f16 and bf16, in matrix units


DEVICES = {
    "sm_80": Device("NVIDIA A100 80 GB SXM", 2.039e12, 19.5e12, 312e12),
    "sm_90": Device("NVIDIA H100 SXM", 3.35e12, 67e12, 989e12),
    "sm_100": Device("NVIDIA B200", 8.0e12, 75e12, 2250e12),
    "gfx942": Device("AMD Instinct MI300X", 5.3e12, 163.4e12, 1307e12),
}


def estimate(operations: Iterable[Any], device: Device) -> float:
    """Seconds: the sum over a program's device operations of the larger of the times of its distinct bytes and of its
    flops at the peaks. Launch overhead, and flops of operations other than kernels and library calls, are not included.
    """
    seconds = 0.0
    for each in operations:
        narrow = each.kind == "library" and any(is_narrow(value) for value in each.operation.results)
        peak = device.narrow_product_flops_per_second if narrow else device.flops_per_second
        seconds += max(_ratio(each.distinct_bytes, device.bytes_per_second), _ratio(each.flops, peak))
    return seconds


def _ratio(amount: int, rate: float) -> float:
    """`amount / rate`; infinite where the amount exceeds the range of floats."""
    return amount / rate if amount.bit_length() <= 1000 else math.inf


def is_narrow(value: Value) -> bool:
    """Whether products of its type run at the full rate of matrix units."""
    return bool(value.dtype.is_float and value.dtype.bits < 32)
