"""One operation of a device: `description` lists those of a program, `dispatches` counts them by running it."""

from __future__ import annotations

from dataclasses import dataclass

from irc.ir import Operation
from irc.kernel import Bytes
from irc.kernel.roofline import Matrices


@dataclass(frozen=True)
class DeviceOperation:
    """A launch of a kernel, or a call that runs on the device.

    `kind` is "kernel" for a launch of a kernel of irc's, "library" for a product, a convolution or attention,
    "operation" for another PyTorch operation, and "extern" for one that ONNX Runtime runs on the processor. Bytes
    are those of the distinct elements that it reads, and of those that it writes; flops are counted of kernels and
    library calls. `operation` is the one of the module that it is part of, None for copies of results. `products` has
    the matrices, rows and columns of the result of a library call, and the type of its operands.
    """

    name: str
    kind: str
    distinct_bytes: int
    flops: int = 0
    kernel: Bytes | None = None
    operation: Operation | None = None
    products: Matrices | None = None
