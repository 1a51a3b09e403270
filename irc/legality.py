"""Whether a group can be one kernel, by the numbered rules F1 to F14.

Rules about the inside of a kernel are decided by deriving it (`irc.kernel`), those about its resources here (`legal`),
and those between kernels where groups are merged (`irc.group_graph`).
"""

from __future__ import annotations

from irc.group import Group
from irc.kernel import LegalityFailure
from irc.pass_manager import Numerics

# Kernel arguments are pointers; launch limits and register pressure make more of them useless.
MOST_POINTERS = 32


def legal(group: Group, numerics: Numerics = "keeps_more_precision", *, named: bool = True) -> LegalityFailure | None:
    """Judge one group by the rules about a single kernel; None means legal. `numerics` is what the user allows. Unless
    it is to be `named`, the failure may speak of the values of an equal group, which costs less."""
    if any(member.block is not group.members[0].block for member in group.members):
        return LegalityFailure("fuse.impure_member", "F2", "the members stand in different blocks")
    kernel = group.judged
    if isinstance(kernel, LegalityFailure):
        return group.kernel if named and isinstance(group.kernel, LegalityFailure) else kernel
    if numerics == "exact" and kernel.numerics != "exact":
        message = "it keeps more precision than its types say, where the user allows `exact` only"
        return LegalityFailure("fuse.numerics", "F13", message, group.stored)
    inside = set(group.closure)
    read = {operand for member in group.closure for operand in member.inputs if operand.operation not in inside}
    pointers = len(read) + len(group.stored)
    if pointers > MOST_POINTERS:
        return LegalityFailure("fuse.resources", "F14", f"{pointers} pointers, at most {MOST_POINTERS}")
    return None
