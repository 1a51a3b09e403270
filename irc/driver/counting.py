"""Which operations of a module are kernels, library calls, host operations, or none of these."""

from __future__ import annotations

from irc.interfaces import Trait
from irc.ir import Operation
from irc.kernel import members_of
from irc.module import Module


def kernel_operations(module: Module) -> list[Operation]:
    """The kernels of all functions, including those in bodies of `if` and `loop`, once each."""
    return [operation for operation in module.walk() if operation.name == "kernel"]


def host_operations(module: Module) -> list[Operation]:
    """The operations of all functions, and of bodies in them, that are in no kernel and are counted (see `counts`)."""
    return [
        operation
        for operation in module.walk()
        if operation.name != "kernel" and counts(operation) and not in_kernel(operation)
    ]


def in_kernel(operation: Operation) -> bool:
    """Whether an operation is in the region of a kernel."""
    return operation.parent is not None and operation.parent.name == "kernel"


def computing_members(kernel: Operation) -> list[Operation]:
    """The operations in a kernel except views and constants."""
    return [inner for inner in members_of(kernel) if inner.definition.traits.isdisjoint({Trait.FREE, Trait.HOST})]


def counts(operation: Operation) -> bool:
    """Whether an operation counts in the share in kernels: it is neither a view nor structural."""
    return operation.definition.traits.isdisjoint({Trait.FREE, Trait.HOST})


def is_library(operation: Operation) -> bool:
    """Whether an operation is a product, a convolution or attention; the extern Einsum is one."""
    if operation.name == "extern":
        return bool(operation.attributes["op_type"] == "Einsum")
    return Trait.LIBRARY in operation.definition.traits


def share(inside: int, outside: int) -> float:
    """The fraction that is inside; 1 if there are none."""
    return inside / (inside + outside) if inside + outside else 1.0


def describe(operation: Operation) -> str:
    """The name of an operation; for an extern, the name of the ONNX operator."""
    return f"extern {operation.attributes['op_type']}" if operation.name == "extern" else operation.name
