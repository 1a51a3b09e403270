"""One operation of a device: `description` lists those of a program, `dispatches` counts them by running it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from irc.dims import Symbol
from irc.ir import Operation, Value
from irc.kernel import Bytes, Kernel, count
from irc.kernel.roofline import Matrices
from irc.kernel.traffic import Together


@dataclass(frozen=True)
class DeviceOperation:
    """A launch of a kernel, or a call that runs on the device.

    `kind` is "kernel" for a launch of a kernel of irc's, "library" for a product, a convolution or attention,
    "operation" for another PyTorch operation, and "extern" for one that ONNX Runtime runs on the processor. Bytes
    are those of the distinct elements that it reads, and of those that it writes; flops are counted of kernels and
    library calls. `operation` is the one of the module that it is part of, None for copies of results. `products` has
    the matrices, rows and columns of the result of a library call, and the type of its operands. A kernel that `joins`
    is in the launch of the kernel before it, a bundle; bytes that those before it read, too, count with these.
    """

    name: str
    kind: str
    distinct_bytes: int
    flops: int = 0
    kernel: Bytes | None = None
    operation: Operation | None = None
    products: Matrices | None = None
    joins: bool = False


def member_of_launch(operation: Operation, kernel: Kernel, buffers: Mapping[Value, Hashable],
                     sizes: Mapping[Symbol, int], together: Together) -> DeviceOperation:  # fmt: skip
    """A kernel of a bundle as an operation of the device, after those that `together` has counted; `buffers` are what
    is the same for two buffers that are one tensor."""
    cost, joins = count(kernel, sizes), together.members > 0
    moved = cost.distinct_bytes - (together.add(kernel, buffers, sizes) if cost.programs else 0)
    together.members += 1
    return DeviceOperation(operation.attributes["name"], "kernel", moved, cost.flops, cost, operation, None, joins)
