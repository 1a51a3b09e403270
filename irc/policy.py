"""What users write to control fusion: policies, which score merges of groups, and patterns that propose groups.

    @policy
    def small(merge):                            # in FILE.py; used as `fuse{policy=FILE.py:small}`
        if len(merge.merged.members) > 8:
            return reject("a kernel of more than 8 operations", at=merge.merged)
        return merge.bytes_saved                 # the merge with the largest score is made first; at most 0: never

A policy scores legal merges only (`irc.legality`). Start at `Merge`, the argument of a policy.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from irc.cost import Costs
from irc.diagnostics import fail
from irc.dims import Symbol
from irc.group import Group
from irc.kernel import Bytes, LegalityFailure
from irc.kernel.splitting import has_rows_for_programs
from irc.user_code import blaming, place_of_code

LARGEST_EXPONENT = 1000  # of a score as a float


@dataclass(frozen=True)
class PolicyRejection:
    """What a policy returns instead of a score: why a legal merge is not to be made."""

    reason: str
    at: Any = None


def reject(reason: str, at: Any = None) -> PolicyRejection:
    """For a policy to return: do not make this legal merge, for this reason, which is about the group or value `at`."""
    return PolicyRejection(reason, at)


@dataclass
class Merge:
    """Two groups that may become one with those between them, `parts`, and what that would change.

    All figures are for one run at the sizes in `sizes`: those that the user gives, for other symbols 64, or the bound
    of the symbol's range that is nearest to it.
    """

    producer: Group
    consumer: Group
    merged: Group
    parts: Sequence[Group]
    sizes: Mapping[Symbol, int]
    costs: Costs = field(default_factory=Costs)

    @cached_property
    def before(self) -> tuple[Bytes, ...]:
        """The byte model of each part."""
        return tuple(part.bytes(self.sizes) for part in self.parts)

    @cached_property
    def after(self) -> Bytes:
        """The byte model of the merged group."""
        return self.merged.bytes(self.sizes)

    @property
    def bytes_saved(self) -> int:
        """Distinct bytes that the kernels read and write before the merge, less those after it."""
        return sum(part.distinct_bytes for part in self.before) - self.after.distinct_bytes

    @property
    def loaded_bytes_saved(self) -> int:
        """Bytes of all loads and stores of all programs before the merge, less those after it; may be negative."""
        return sum(part.loaded_bytes for part in self.before) - self.after.loaded_bytes

    @property
    def seconds_saved(self) -> float:
        """Estimated seconds of the kernels before the merge, less those after it: by the roofline with the latency of
        each launch, or by the function that `fuse{cost=...}` names."""
        before = sum(self.costs.of(part, self.sizes).seconds for part in self.parts)
        return before - self.costs.of(self.merged, self.sizes).seconds

    @property
    def flops_added(self) -> int:
        """Arithmetic operations after the merge, less those before it: computed again."""
        return self.after.flops - sum(part.flops for part in self.before)

    @property
    def recomputes_reduction(self) -> bool:
        """Whether a reduction would be computed more often than before the merge."""
        kernel = self.merged.equal_kernel
        return not isinstance(kernel, LegalityFailure) and kernel.recomputes_reduction

    @property
    def has_programs(self) -> bool:
        """Whether rows that are reduced and scanned, or also reduced across, are enough for the programs that the
        device has at a time."""
        kernel = self.merged.equal_kernel
        if isinstance(kernel, LegalityFailure):
            return True
        return has_rows_for_programs(kernel, self.sizes, self.costs.device)


@dataclass(frozen=True)
class Policy:
    """A function of a `Merge` that returns a score (merge the largest first; at most 0: do not) or `reject(...)`."""

    name: str
    function: Callable[[Merge], float | PolicyRejection]

    def __call__(self, merge: Merge) -> float | PolicyRejection:
        with blaming("policy.raised", f"the policy {self.name} failed", self.function):
            verdict = self.function(merge)
        not_a_number = verdict != verdict  # as NaN is
        if isinstance(verdict, bool) or not isinstance(verdict, (int, float, PolicyRejection)) or not_a_number:
            raise fail("policy.result", f"policy {self.name} returned {verdict!r}",
                       at=place_of_code(self.function), expected="a number or reject(...)")  # fmt: skip
        if isinstance(verdict, int) and verdict.bit_length() > LARGEST_EXPONENT:  # bytes of a model that cannot run
            return math.inf if verdict > 0 else -math.inf
        return verdict


def policy(function: Callable[[Merge], float | PolicyRejection]) -> Policy:
    """Declare a fusion policy; use it as `fuse{policy=FILE.py:NAME}`."""
    return Policy(function.__name__, function)


@dataclass(frozen=True)
class GroupPattern:
    """A pattern whose matches are proposed as groups before the policy scores merges."""

    name: str
    function: Callable[..., Any]
    doc: str


def group(function: Callable[..., Any]) -> GroupPattern:
    """Declare a group: a function that returns a pattern. Matches become groups where the legality rules allow it."""
    return GroupPattern(function.__name__, function, inspect.cleandoc(function.__doc__ or ""))
