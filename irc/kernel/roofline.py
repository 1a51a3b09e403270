"""The model of cost: an estimate of the time of a launch or a call on a device, from what the byte model counts.

    time = launch + max(distinct bytes / memory, loaded bytes / L2, flops of products, other flops, waits)

Memory serves the whole device; all else is a multiprocessor's, so that the busiest one counts. Waits are latencies of
memory: one in each iteration of a loop, less what is overlapped, for each set of programs that a multiprocessor holds
at a time. Rates are those of `irc.device`, with the fractions that are assumed there. Williams, Waterman, Patterson:
Roofline, 2009; for waits Little's law. This is an estimate and no measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

from irc.device import Device
from irc.dtypes import F32, DType
from irc.kernel.resources import Resources
from irc.kernel.traffic import Bytes

LIBRARY_BLOCKS = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (16, 64))


class Matrices(NamedTuple):
    """The results of products: so many matrices of rows and columns, from operands of this type."""

    matrices: int
    rows: int
    columns: int
    dtype: DType
    is_attention: bool = False  # its weights are in registers: a block of rows loads keys and values

    @property
    def elements(self) -> int:
        return self.matrices * self.rows * self.columns


@dataclass(frozen=True)
class Estimate:
    """Seconds that a launch or call takes for each of its limits, of which the largest counts."""

    launch: float
    memory: float = 0.0  # distinct bytes, from and to the memory of the device
    cache: float = 0.0  # all loads and stores, from and to L2
    products: float = 0.0  # in matrix units
    vector: float = 0.0  # other arithmetic
    waits: float = 0.0

    @property
    def limit(self) -> str:
        """The name of the largest; `launch` where that is longer."""
        return max((each.name for each in fields(self)), key=lambda name: float(getattr(self, name)))

    @property
    def seconds(self) -> float:
        return self.launch + max(self.memory, self.cache, self.products, self.vector, self.waits)


def kernel_estimate(cost: Bytes, device: Device) -> Estimate:
    """The time of one launch. Infinite where the shared memory of a program does not fit."""
    if cost.programs == 0 or cost.resources is None:
        return Estimate(device.launch_seconds)
    busiest = -(-cost.programs // device.multiprocessors)
    slowest = busiest * device.multiprocessors / cost.programs  # of what an even distribution would take
    products = sum(ratio(flops, device.matrix_peak(dtype)) for dtype, flops in cost.issued)
    return Estimate(
        device.launch_seconds,
        memory_seconds(cost.distinct_bytes, device),
        slowest * ratio(cost.loaded_bytes, device.l2_rate),
        slowest * products / device.efficiency["kernel_products"],
        slowest * ratio(cost.flops - cost.product_flops, device.vector_peak(F32) * device.efficiency["vector"]),
        waiting_seconds(cost.resources, busiest, cost.iterations, device),
    )


def call_estimate(distinct_bytes: int, flops: int, products: Matrices | None, device: Device) -> Estimate:
    """The time of one call of a library or of another operation; `flops` are those of its products. The library has
    the blocks of LIBRARY_BLOCKS that take least time."""
    memory = memory_seconds(distinct_bytes, device)
    if products is None or not flops or not products.elements:
        return Estimate(device.launch_seconds, memory)
    times = [in_blocks(products, flops, *block, device) for block in LIBRARY_BLOCKS]
    return Estimate(device.launch_seconds, memory, *min(times, key=max))


def in_blocks(products: Matrices, flops: int, rows: int, columns: int, device: Device) -> tuple[float, float]:
    """The times of loads from L2 and of arithmetic of products in blocks of so many rows and columns."""
    high, wide = -(-products.rows // rows), -(-products.columns // columns)
    programs = products.matrices * high * wide
    slowest = -(-programs // device.multiprocessors) * device.multiprocessors / programs
    rounded = products.matrices * high * rows * wide * columns
    issued = flops * rounded // products.elements
    # Of attention only the second operand of each product is loaded.
    loads = columns if products.is_attention else rows + columns
    loaded = issued * products.dtype.itemsize * loads // (2 * rows * columns)
    rate = device.matrix_peak(products.dtype) * device.efficiency["library_products"]
    return slowest * ratio(loaded, device.l2_rate), slowest * ratio(issued, rate)


def memory_seconds(distinct_bytes: int, device: Device) -> float:
    return ratio(distinct_bytes, device.memory_rate * device.efficiency["memory"])


def waiting_seconds(resources: Resources, programs: int, iterations: int, device: Device) -> float:
    """What a multiprocessor waits for memory that has so many programs of so many iterations."""
    resident = resources.resident(device)
    if resident == 0:
        return math.inf
    return ratio(-(-programs // resident) * -(-iterations // resources.overlapped(device)), 1 / device.latency_seconds)


def ratio(amount: int, rate: float) -> float:
    """`amount / rate`; infinite where the amount exceeds the range of floats."""
    return amount / rate if amount.bit_length() <= 1000 else math.inf
