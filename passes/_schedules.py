"""Schedule options of the groups of a plan: those of a plan file's entries, and those of a user's function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from irc.dims import Symbol
from irc.group import Group, is_free
from irc.ir import Operation
from irc.kernel import Kernel, LegalityFailure
from irc.plan import Plan
from irc.plan_file import Entry
from irc.scheduling import Scheduler, Unscheduled
from irc.user_code import place_of_code
from irc.user_files import load_declared


def find_scheduler(reference: str) -> Scheduler:
    """The function in a user's file (`FILE.py:NAME`); raises `pass.option`."""
    return load_declared(reference, Scheduler, "@schedule")


def choose_schedules(plan: Plan, scheduler: Scheduler, sizes: Mapping[Symbol, int]) -> None:
    """Give each group of a plan the options that a user's function returns; raises `fuse.schedule`."""

    def chosen(group: Group) -> Group:
        assert isinstance(group.kernel, Kernel), "an illegal group is in no plan"
        scheduled = replace(group, options=scheduler(Unscheduled(group, group.kernel, sizes)))
        if isinstance(scheduled.kernel, LegalityFailure):
            raise scheduled.kernel.error(place_of_code(scheduler.function))
        return scheduled

    plan.groups[:] = [chosen(group) for group in plan.groups]


def follow_schedules(plan: Plan, planned: Iterable[tuple[Entry, Sequence[Operation]]]) -> None:
    """Give the group of each entry of a plan file the options that the entry states. Those that do not fit its kernel,
    and entries whose members a policy merged with others, are errors of the plan."""
    places = {frozenset(group.members): index for index, group in enumerate(plan.groups)}
    inside = {member for group in plan.groups for member in group.members}
    for entry, members in planned:
        computing = frozenset(member for member in members if not is_free(member))
        index = places.get(computing)
        if entry.schedule is None or inside.isdisjoint(computing):  # without a group the entry is an error already
            continue
        if index is None:
            plan.errors.append(entry.error("it states a schedule, and its members were merged with others"))
            continue
        plan.groups[index] = replace(plan.groups[index], options=entry.schedule)
        failure = plan.groups[index].kernel
        if isinstance(failure, LegalityFailure):
            plan.errors.append(entry.illegal(failure))
