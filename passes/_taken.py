"""Whether the target has the operations that a pass builds."""

from __future__ import annotations

from irc.ir import Value
from irc.module import EdgeCases
from irc.pass_manager import PassContext
from irc.rewrite import erase_dead


def is_taken(value: Value, context: PassContext, edge_cases: EdgeCases) -> bool:
    """Whether the target has the operation that has been built for a value; it is erased otherwise."""
    assert value.operation is not None
    if context.target is None or context.target.takes(value.operation, edge_cases):
        return True
    erase_dead([value.operation])
    return False
