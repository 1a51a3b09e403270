"""Fusion plans as data: which operations share a kernel, who proposed it, and why others do not.

A `Plan` covers the operations of a function that kernels can compute with groups (`irc.group`), each within one block;
each group becomes one kernel. A cheap operation may be in several groups, which each compute it (`irc.cover`).
`irc.passes.fuse` makes plans and applies them: policies and users' patterns
(`irc.policy`) propose groups, and numbered rules (`irc.legality`) decide whether a group can be a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from irc.diagnostics import Diagnostic
from irc.group import Group
from irc.ir import Operation
from irc.products import Products
from irc.remarks import Remarks


@dataclass
class Decision:
    """The last decision about a merge, with the names that its groups had; without a `reason` the merge was made.

    `code` and `rule` are those of the legality rule that the merge would break; where it is legal, `reason` is the
    policy's and `bytes_saved` what the merge would save.
    """

    producer: str
    consumer: str
    code: str | None = None
    rule: str | None = None
    reason: str = ""
    bytes_saved: int = 0


@dataclass(frozen=True)
class Choice:
    """What computes some products: `irc` (kernels) or `host` (library calls), and the seconds that both are estimated
    to take, with all that is fused with the products in one of the plans that were compared."""

    operations: tuple[Operation, ...]
    products: Products
    kernel_seconds: float
    library_seconds: float
    reason: str
    is_free: bool = True  # not where no library computes one of the products


@dataclass
class Plan:
    """The groups of a function, in topological order within each block, and the decisions that led to them."""

    groups: list[Group]
    decisions: list[Decision] = field(default_factory=list)
    merges: list[Group] = field(default_factory=list)  # each merged group, in the order made
    choices: list[Choice] = field(default_factory=list)  # with products=auto
    remarks: Remarks | None = None  # every decision, where it is to be recorded
    errors: list[Diagnostic] = field(default_factory=list)  # for entries of a plan file that cannot be followed
