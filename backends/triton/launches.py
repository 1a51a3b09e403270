"""Launches: the kernel that a `kernel` operation is launched as, or the reason why it runs as host calls."""

from __future__ import annotations

from collections.abc import Callable

from irc.backends.triton import pointwise
from irc.ir import Operation
from irc.kernel import Kernel, LegalityFailure, kernel_of
from irc.kernel.dag import Apply
from irc.kernel.schedule_rules import is_split_already

Derived = Callable[[Operation], Kernel | LegalityFailure]  # `launched`, or a table of its results


def launched(operation: Operation) -> Kernel | LegalityFailure:
    """The kernel of a `kernel` operation, or why it runs as host calls; raises `fuse.schedule` for a stated schedule
    that does not fit it, which is a mistake of the user."""
    try:
        kernel = kernel_of(operation)
        is_split_already(kernel.options)
    except LegalityFailure as failure:
        if failure.rule == "F15":
            raise failure.error(operation.location) from None
        return failure
    for node in kernel.nodes:
        if isinstance(node, Apply) and not pointwise.writable(node.name, node.operands[0].dtype):
            what = f"{node.name} of {node.operands[0].dtype}"
            return LegalityFailure("F2", f"{what} cannot be written in Triton")
    return kernel


def is_launch(operation: Operation, derived: Derived) -> bool:
    """Whether an operation is a launch each of whose results has a buffer of its own."""
    if operation.name != "kernel" or isinstance(derived(operation), LegalityFailure):
        return False
    yielded = operation.regions[0].block.terminator.inputs
    return len(set(yielded)) == len(yielded) and all(value.operation is not None for value in yielded)
