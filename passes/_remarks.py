"""Remarks of `fuse` on what is judged and planned (`irc.remarks`); merges are remarked on where they are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from irc.diagnostics import counted
from irc.group import Group
from irc.ir import Operation
from irc.kernel import LegalityFailure
from irc.plan import Decision, Plan
from irc.plan_file import Entry
from irc.planner import Judged
from irc.remarks import Remarks

Score = Callable[[Group, Group], "tuple[float, Group] | None"]


def remarked(score: Score, by: str, decisions: Mapping[tuple[str, str], Decision], remarks: Remarks) -> Score:
    """A function that scores merges, with a remark on each; `decisions` has that on the pair that is scored."""

    def scored(producer: Group, consumer: Group) -> tuple[float, Group] | None:
        result = score(producer, consumer)
        decision = decisions[producer.name, consumer.name]
        pair = producer.members[-1], consumer.members[-1]
        if decision.rule:
            remarks.add(by, "illegal", pair, rule=decision.rule, code=decision.code, reason=decision.reason)
        elif result is None:
            remarks.add(by, "rejected", pair, bytes_saved=decision.bytes_saved, reason=decision.reason)
        else:
            remarks.add(by, "scored", pair, kernel=result[1].name, score=result[0], bytes_saved=decision.bytes_saved)
        return result

    return scored


@contextmanager
def kept_if_raised(remarks: Remarks | None, others: Remarks | None) -> Iterator[None]:
    """Add remarks of a plan to others where an exception ends the plan."""
    try:
        yield
    except Exception:
        if remarks is not None and others is not None:
            others.take(remarks)
        raise


def remark_no_kernel(operation: Operation, failure: LegalityFailure | None, remarks: Remarks | None) -> None:
    """That an operation is no kernel by itself: a library computes it, or a rule does not hold."""
    if remarks is None:
        return
    if failure is None:
        remarks.add("products", "library", [operation], reason=f"a library computes {operation.name}")
    else:
        remarks.add("seed", "illegal", [operation], rule=failure.rule, code=failure.code, reason=failure.message)


def remark_illegal(members: Mapping[Entry, Sequence[Operation]], failures: Iterable[tuple[Entry, LegalityFailure]],
                   remarks: Remarks | None) -> None:  # fmt: skip
    """The entries of a plan file that break a rule."""
    for entry, failure in failures if remarks is not None else ():
        remarks.add("plan", "illegal", members[entry], rule=failure.rule, code=failure.code,  # type: ignore[union-attr]
                    reason=failure.message)  # fmt: skip


def remark_judged(judged: Sequence[Judged], by: str, remarks: Remarks | None) -> None:
    """What a planner asked about sets, in order; that one is legal is not said where its cost comes next."""
    if remarks is None:
        return
    for one, after in itertools.zip_longest(judged, judged[1:]):
        members = [unit.operation for unit in sorted(one.units)]
        name = members[-1].results[0].name
        if one.failure is not None:
            remarks.add(by, "illegal", members, rule=one.failure.rule, code=one.failure.code,
                        reason=one.failure.message)  # fmt: skip
        elif one.cost is not None:
            remarks.add(by, "priced", members, kernel=name, seconds=one.cost.seconds,
                        reason=f"{one.cost.bytes:,} bytes")  # fmt: skip
        elif after is None or after.cost is None or after.units != one.units:
            remarks.add(by, "legal", members, kernel=name)


def remark_groups(groups: Iterable[Group], remarks: Remarks | None) -> None:
    """The groups of several operations that a planner has chosen."""
    for group in groups if remarks is not None else ():
        if len(group.members) > 1:
            remarks.add(group.proposer, "merged", group.members, kernel=group.name)  # type: ignore[union-attr]


def remark_plan(plan: Plan, remarks: Remarks | None, function: str) -> None:
    """What was decided for a plan, what computes products, and its kernels."""
    if remarks is None:
        return
    decisions = plan.remarks or Remarks()
    decisions.function = function
    for choice in plan.choices:
        decisions.add("products", choice.products, choice.operations, reason=choice.reason)
    for group in plan.groups:
        stated = ", ".join(f"{name} = {value}" for name, value in group.options.stated.items())
        decisions.add(group.proposer, "kernel", group.members[-1:], kernel=group.name,
                reason=", ".join([counted(len(group.members), "operation"), *filter(None, [stated])]))  # fmt: skip
    remarks.take(decisions)
