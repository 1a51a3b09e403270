"""Which operations of a module are kernels, calls of libraries, or other operations that the host calls."""

from __future__ import annotations

from irc.ir import Module, Operation
from irc.kernel import Kernel, derive
from irc.plan import FREE_VIEWS

PLUMBING = frozenset({"const", "return", "yield", "dim", "bind", "assume", "if", "loop", "call"})
# What libraries compute: products, convolutions, attention; of externs, the operator's name.
LIBRARY = frozenset({"dot", "matmul", "linear", "gemm", "attention", "conv", "conv_transpose", "Einsum"})


def kernel_operations(module: Module) -> list[Operation]:
    """The kernels of the entry, those in bodies of `if` and `loop` among them, once each."""
    return [operation for operation in module.main.walk() if operation.name == "kernel"]


def host_operations(module: Module) -> list[Operation]:
    """Operations of the entry and of bodies in it that are neither kernels nor views nor plumbing: each is a call of
    the host."""
    return [
        operation
        for operation in module.main.walk()
        if operation.name != "kernel" and counts(operation) and not in_kernel(operation)
    ]


def in_kernel(operation: Operation) -> bool:
    """Whether an operation stands in a kernel."""
    return operation.parent is not None and operation.parent.name == "kernel"


def kernel_of(operation: Operation) -> Kernel:
    """The kernel of a `kernel` operation, derived from its region, which is the truth."""
    block = operation.regions[0].block
    members = [inner for inner in block if not inner.definition.is_terminator]
    return derive(members, outputs=block.terminator.inputs)


def counts(operation: Operation) -> bool:
    """Whether an operation is one of those whose share in kernels is reported: no view, no plumbing."""
    return operation.name not in FREE_VIEWS and operation.name not in PLUMBING


def is_library(operation: Operation) -> bool:
    """Whether an operation is a product, a convolution or attention."""
    name = operation.attributes["op_type"] if operation.name == "extern" else operation.name
    return name in LIBRARY


def share(inside: int, outside: int) -> float:
    """The part of all that is inside; of nothing, all is."""
    return inside / (inside + outside) if inside + outside else 1.0


def describe(operation: Operation) -> str:
    """The name of an operation; of an extern, that of the ONNX operator."""
    return f"extern {operation.attributes['op_type']}" if operation.name == "extern" else operation.name
