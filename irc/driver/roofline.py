"""Estimates of the time of device operations on a device: the model is in `irc.kernel.roofline`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from irc.cost import Cost, CostModel, Costs, described
from irc.device import Device
from irc.driver.counting import computing_members
from irc.ir import Operation
from irc.kernel import Bytes
from irc.kernel.roofline import Estimate, call_estimate, kernel_estimate


def estimate(operations: Iterable[Any], device: Device) -> float:
    """Seconds that the device operations of a program take, one after another."""
    return sum(estimate_of(each, device).seconds for each in operations)


def estimate_of(operation: Any, device: Device) -> Estimate:
    """The time of a launch, of a library call, or of another operation; of a kernel that joins the launch of another,
    what it adds."""
    if operation.kernel is not None:
        estimated = kernel_estimate(operation.kernel, device)
        return replace(estimated, launch=0.0) if operation.joins else estimated
    return call_estimate(operation.distinct_bytes, operation.flops, operation.products, device)


def modeled(parts: Mapping[Operation | None, Sequence[Any]], device: Device, model: CostModel) -> float:
    """Seconds that the device operations of a program take by a user's function; `parts` are those of each operation of
    the module (`irc.driver.figures.by_operation`)."""
    costs = Costs(device, model)
    return sum(costs.priced(launch_of(operation, each, device)).seconds for operation, members in parts.items()
               for each in members)  # fmt: skip


def launch_of(operation: Operation | None, launched: Any, device: Device) -> Cost:
    """What a user's function sees of a launch or a call that an operation of the module makes, None for copies."""
    estimated = estimate_of(launched, device)
    if operation is not None and launched.kernel is not None:
        members = [member.name for member in computing_members(operation)]
        return described(operation.attributes["kind"], members, launched.kernel, estimated)
    kind = "library" if launched.kind == "library" else "host"
    moved = launched.distinct_bytes
    counted = Bytes(moved, moved, launched.flops, 0, product_flops=launched.flops)
    return described(kind, ["copy" if operation is None else operation.name], counted, estimated)
