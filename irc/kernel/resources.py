"""What a program of a kernel takes of a multiprocessor, estimated from its schedule: warps, registers, shared memory.

Compiling says what it takes (`irc kernels --target`); the estimates rank schedules where compiling takes too long. A
test compares them with what Triton compiles for sm_90.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from irc.device import Device
from irc.dims import Variable
from irc.dtypes import FLOATS8
from irc.kernel.dag import Dot, Load, Reduce, Scan
from irc.kernel.nest import WARP, Accumulate, Loop, Placed, Schedule

FEWEST_REGISTERS = 24  # addresses, indices and what else a thread holds beside elements
PRODUCT_REGISTERS = 48  # the same beside accumulators, with operands on their way from shared memory


@dataclass(frozen=True)
class Resources:
    """Of one program: warps of 32 threads, registers of a thread, bytes of the operands of products in one iteration,
    and the stages of its loop that are stated."""

    warps: int
    registers: int
    operand_bytes: int = 0
    stages: int | None = None

    def shared_bytes(self, device: Device) -> int:
        """Shared memory of a program: the operands of as many iterations as Triton keeps there."""
        buffers = (self.stages or device.stages) - device.stages + device.buffers
        return self.operand_bytes * max(1, buffers)

    def overlapped(self, device: Device) -> int:
        """How many iterations of its loop wait for memory at a time."""
        return max(1, (self.stages or device.stages) - 1) if self.operand_bytes else 1

    def resident(self, device: Device) -> int:
        """How many programs a multiprocessor holds at a time; 0 where the shared memory of one does not fit."""
        shared = self.shared_bytes(device)
        if shared > device.program_shared_bytes:
            return 0
        threads = self.warps * WARP
        registers = threads * min(self.registers, device.thread_registers)
        counts = [device.programs, device.threads // threads, device.registers // registers]
        counts += [device.shared_bytes // shared] if shared else []
        return max(1, min(counts))


def resources_of(schedule: Schedule) -> Resources:
    """An estimate for one program."""
    loops = [scope for scope in schedule.nest if isinstance(scope, Loop)]
    bodies = [schedule.nest, *(loop.body for loop in loops)]
    products = [scope.reduce for body in bodies for scope in body
                if isinstance(scope, Accumulate) and isinstance(scope.reduce, Dot)]  # fmt: skip
    if products:
        # Those of floats of 8 bits are added up in a block of what is summed, and then to the total.
        registers = PRODUCT_REGISTERS + sum(
            held(schedule, product) * (1 + (product.fed in FLOATS8)) for product in products)  # fmt: skip
        operands = dict.fromkeys((node, product.fed.itemsize) for product in products for node in product.operands)
        shared = sum(size * elements_of(schedule, node.axes) for node, size in operands)
        return Resources(schedule.warps, registers, shared, schedule.options.stages)
    elements = -(-prod(tile.typical for tile in schedule.tiles) // (schedule.warps * WARP))
    reduces = any(isinstance(scope, (Reduce, Scan, Accumulate)) for body in bodies for scope in body)
    words = 0 if reduces else max(sum(loaded_words(scope) for scope in body) for body in bodies)
    return Resources(schedule.warps, FEWEST_REGISTERS + round(elements * (1 + words)))


def held(schedule: Schedule, product: Dot) -> int:
    """The elements of the accumulator of a product that one thread has."""
    return elements_of(schedule, product.axes) // (schedule.warps * WARP)


def elements_of(schedule: Schedule, axes: frozenset[Variable]) -> int:
    """The elements in one block of what varies over these axes."""
    return prod(tile.typical for tile in schedule.tiles if not axes.isdisjoint(tile.axes))


def loaded_words(scope: object) -> float:
    """Registers of 32 bits that one loaded element takes; of other nodes none."""
    node = scope.node if isinstance(scope, Placed) else scope
    return min(1.0, node.buffer.dtype.itemsize / 4) if isinstance(node, Load) else 0.0
