"""Estimates of the time of device operations on a device: the model is in `irc.kernel.roofline`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from irc.device import Device
from irc.kernel.roofline import Estimate, call_estimate, kernel_estimate


def estimate(operations: Iterable[Any], device: Device) -> float:
    """Seconds that the device operations of a program take, one after another."""
    return sum(estimate_of(each, device).seconds for each in operations)


def estimate_of(operation: Any, device: Device) -> Estimate:
    """The time of a launch, of a library call, or of another operation."""
    if operation.kernel is not None:
        return kernel_estimate(operation.kernel, device)
    return call_estimate(operation.distinct_bytes, operation.flops, operation.products, device)
