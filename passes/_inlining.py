"""Putting the operations of a block where another operation stands: of a body, of a branch that is taken."""

from __future__ import annotations

from collections.abc import Sequence

from irc.cloning import Cloner
from irc.diagnostics import Location
from irc.ir import Block, Operation, Value


def inline_block(block: Block, arguments: Sequence[Value], before: Operation,
                 location: Location | None = None) -> list[Value]:
    """Copy the operations of `block` before an operation, with `arguments` for its arguments; returns what it yields.

    Copies lose their names (the caller names what survives) and take `location` where one is given.
    """
    if before.block is None:
        raise ValueError("cannot inline before a detached operation")
    cloner = Cloner(dict(zip(block.arguments, arguments, strict=True)))
    ending = block.terminator
    for operation in block:
        if operation is not ending:
            copy = cloner.operation(operation)
            for inner in copy.walk():
                inner.location = location or inner.location
            for result in copy.results:
                result.name = ""
            before.block.insert(copy, before)
    return [cloner.values.get(value, value) for value in ending.inputs]
