"""Legalize: expand the named operations that a backend does not support."""

from __future__ import annotations

from dataclasses import dataclass

from irc.ir import Operation
from irc.module import Module
from irc.pass_manager import Pass, PassContext
from irc.passes._inlining import inline_block


@dataclass
class Legalize(Pass):
    """Replace named operations by their bodies, until the target takes what is left.

    ops: expand only these, whether or not the target takes them; none asks the target about every operation.
         Without a target all named operations are expanded, down to primitives.

    The body's last operation keeps the name of what it computes, and each notes `legalize(NAME)` in its
    location. Before: %y = silu %x        After: %0 = sigmoid %x; %y = mul %x, %0
    """

    ops: tuple[str, ...] | None = None

    def run(self, module: Module, context: PassContext) -> bool:
        expanded = 0
        pending = [operation for operation in module.walk() if operation.definition.is_named]
        pending.reverse()  # taken from the end: in program order, so that new values are numbered as they are read
        while pending:
            operation = pending.pop()
            if self._stays(operation, module, context):
                continue
            pending += reversed(expand(operation))
            expanded += 1
        context.count("legalize", "expanded", expanded)
        return expanded > 0

    def _stays(self, operation: Operation, module: Module, context: PassContext) -> bool:
        if self.ops is not None:
            return operation.name not in self.ops
        return context.target is not None and context.target.takes(operation, module.edge_cases)


def expand(operation: Operation) -> list[Operation]:
    """Replace a named operation by its body; returns the named operations in the body."""
    body = operation.body()
    previous, block = operation.previous, operation.block
    assert block is not None, "only operations in a block are expanded"
    values = inline_block(body.block, operation.inputs, operation, operation.location.by(f"legalize({operation.name})"))
    first = block.first if previous is None else previous.next
    brought = []
    while first is not operation:
        assert first is not None
        brought += [inner for inner in first.walk() if inner.definition.is_named]
        first = first.next
    operation.replace(values)
    return brought
