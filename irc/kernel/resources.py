"""What a program of a kernel takes of a multiprocessor, estimated from its schedule: warps, registers, shared memory.

Compiling says what it takes (`irc kernels --target`); the estimates rank schedules where compiling takes too long. A
test compares them with what Triton compiles for sm_90.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from irc.device import Device
from irc.dims import Variable
from irc.kernel.dag import Dot, Load, Reduce
from irc.kernel.nest import WARP, Accumulate, Loop, Placed, Schedule

STAGES = 3  # iterations of a loop with products that Triton keeps in flight, where none are stated
FEWEST_REGISTERS = 24  # addresses, indices and what else a thread holds beside elements
PRODUCT_REGISTERS = 48  # the same beside accumulators, with operands on their way from shared memory


@dataclass(frozen=True)
class Resources:
    """Of one program: warps of 32 threads, registers of a thread, bytes of shared memory. `overlapped` is how many
    iterations of its loop wait for memory at a time."""

    warps: int
    registers: int
    shared_bytes: int
    overlapped: int

    def resident(self, device: Device) -> int:
        """How many programs a multiprocessor holds at a time; 0 where the shared memory of one does not fit."""
        if self.shared_bytes > device.program_shared_bytes:
            return 0
        threads = self.warps * WARP
        registers = threads * min(self.registers, device.thread_registers)
        counts = [device.programs, device.threads // threads, device.registers // registers]
        counts += [device.shared_bytes // self.shared_bytes] if self.shared_bytes else []
        return max(1, min(counts))


def resources_of(schedule: Schedule) -> Resources:
    """An estimate for one program."""
    loops = [scope for scope in schedule.nest if isinstance(scope, Loop)]
    bodies = [schedule.nest, *(loop.body for loop in loops)]
    products = [scope.reduce for body in bodies for scope in body
                if isinstance(scope, Accumulate) and isinstance(scope.reduce, Dot)]  # fmt: skip
    stages = schedule.options.stages or STAGES
    if products:
        registers = PRODUCT_REGISTERS + sum(held(schedule, product) for product in products)
        operands = dict.fromkeys((node, product.fed.itemsize) for product in products for node in product.operands)
        shared = sum(size * elements_of(schedule, node.axes) for node, size in operands)
        return Resources(schedule.warps, registers, stages * shared, max(1, stages - 1))
    elements = -(-prod(tile.typical for tile in schedule.tiles) // (schedule.warps * WARP))
    reduces = any(isinstance(scope, (Reduce, Accumulate)) for body in bodies for scope in body)
    words = 0 if reduces else max(sum(loaded_words(scope) for scope in body) for body in bodies)
    return Resources(schedule.warps, FEWEST_REGISTERS + round(elements * (1 + words)), 0, 1)


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
