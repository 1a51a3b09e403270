"""Whether a group can be one kernel: `legal`.

The rules are functions in `irc.kernel.rules`. Those about the inside of a kernel are checked when it is derived, the
number of its pointers before that (`Group.kernel`), and the one about the graph of kernels where groups are merged
(`irc.group_graph`).
"""

from __future__ import annotations

from irc.group import Group
from irc.kernel import LegalityFailure
from irc.kernel.failure import failure_of
from irc.kernel.rules import are_in_one_block, rounds_as_allowed
from irc.numerics import Numerics


def legal(group: Group, numerics: Numerics = "keeps_more_precision") -> LegalityFailure | None:
    """The rule that keeps a group from being a kernel, or None. `numerics` is the class that the user allows."""
    apart = failure_of(are_in_one_block, group.members)
    if apart is not None:
        return apart
    kernel = group.equal_kernel
    if isinstance(kernel, LegalityFailure):
        return group.failure
    if numerics != "exact":  # all kernels round so at most, and none needs its schedule for that
        return None
    return failure_of(rounds_as_allowed, kernel.numerics, numerics, group.stored)
