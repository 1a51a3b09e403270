"""Edits of plan files: merge, split, duplicate, schedule, what computes products, and which are joined.

Each edit is a function of a plan and of the program that the plan is of, which returns another plan; whether that is
legal is decided where it is followed (`irc.passes.fuse`). Start at `edited`; `EDITS` has the edits by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from irc.diagnostics import UNKNOWN, IrcError, SourceSpan, did_you_mean, fail
from irc.group import Group, is_free
from irc.interfaces import Trait
from irc.ir import Operation, Value
from irc.kernel import LegalityFailure
from irc.module import Module
from irc.plan_file import PRODUCT_KEYS, SIBLING_KEYS, Entry, PlanFile
from irc.schedule_options import NO_OPTIONS

NUMBER = re.compile(r"[0-9]{1,18}")
BLOCKS = re.compile(rf"{NUMBER.pattern}(x{NUMBER.pattern})*")
TILES = ("i", "m", "n", "k")  # tile axes, in the order in which `blocks=64x128` states them


@dataclass(frozen=True)
class Edit:
    """An edit as it is given: its name, its argument, and its place among the edits of a command, from 1."""

    name: str
    argument: str
    number: int = 1

    @property
    def text(self) -> str:
        return f"--{self.name} {self.argument}"

    def error(self, message: str, expected: str | None = None, help: str | None = None) -> IrcError:
        """Why the edit cannot be made."""
        return fail("plan.edit", message, text=self.span, expected=expected, help=help)

    @property
    def span(self) -> SourceSpan:
        """The edit as a text that errors quote."""
        return SourceSpan("edit", self.number, self.text, 1, len(self.text))

    def refused(self, error: IrcError) -> IrcError:
        """An error of a plan with this edit, which is quoted; the entry's place is that of a file before the edit."""
        return IrcError(replace(each, text=self.span) for each in error.diagnostics)


@dataclass(frozen=True)
class Planned:
    """A program before fusion, of which a plan has names."""

    module: Module

    def operation(self, entry: Entry, name: str) -> Operation:
        """The operation of a member of an entry."""
        function = self.module.main if entry.function is None else self.module.functions[entry.function]
        operation = function.find(name).operation
        assert operation is not None, "the plan was followed"
        return operation

    def tiles(self, entry: Entry) -> list[str]:
        """The names of the tile axes of an entry's kernel that have blocks."""
        kernel = Group(list(dict.fromkeys(self.operation(entry, name) for name in entry.members))).kernel
        tiles = () if isinstance(kernel, LegalityFailure) else kernel.schedule.tiles
        return [axis for axis in TILES if axis in {tile.name for tile in tiles}]


def edited(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """A plan with an edit; raises `plan.edit` where a name is not in the plan, or the edit would change nothing."""
    if edit.name not in EDITS:
        raise edit.error(f"there is no edit `{edit.name}`", expected=", ".join(EDITS))
    return EDITS[edit.name](plan, edit, planned)


# -- the edits -------------------------------------------------------------------------------------------------


def merge(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`A,B,...`: one entry of these entries and values."""
    names = [name.strip() for name in edit.argument.split(",")]
    if len(names) < 2:
        raise edit.error("one name is no merge", expected="--merge A,B with two entries or values, or more")
    parts: dict[Entry | str, None] = {}
    for name in names:
        entry = find_entry(plan, name)
        parts[entry if entry is not None else value_in_none(plan, name, edit, planned)] = None
    entries = [part for part in parts if isinstance(part, Entry)]
    if not entries or len(parts) < 2:
        reason = "they are in one entry already" if entries else "none of them is in an entry"
        raise edit.error(f"{' and '.join(names)}: {reason}", expected="entries, or members of different ones")
    if len({entry.function for entry in entries}) > 1:
        raise edit.error("these entries are of different functions", expected="entries of one function")
    members = dict.fromkeys(name for part in parts for name in ([part] if isinstance(part, str) else part.members))
    merged = entry_of(members, entries[-1], tuple(line for each in entries for line in each.comment))
    groups = replaced(plan, {entry: [merged] if entry is entries[-1] else [] for entry in entries})
    return without_calls(replace(plan, groups=groups), members)


def split(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`A`: an entry for each member. `A:%b,%c`: these members in an entry of their own. `A:8`: what the kernel reduces
    in 8 parts, which another kernel combines."""
    entry = find_entry(plan, edit.argument)
    if entry is not None:
        if len(entry.members) == 1:
            raise edit.error(f"@{entry.name} has one member", help=f"--split {entry.name}:8 divides what it reduces")
        return in_parts(plan, entry, [[member] for member in entry.members])
    name, colon, rest = edit.argument.rpartition(":")
    if not colon:
        raise unknown(plan, edit.argument, edit)
    entry = required_entry(plan, name, edit)
    if NUMBER.fullmatch(rest):
        return with_schedule(plan, entry, {"split": int(rest)}, edit)
    taken = [each.strip().removeprefix("%") for each in rest.split(",")]
    missing = [each for each in taken if each not in entry.members]
    if missing:
        raise edit.error(f"%{missing[0]} is no member of @{entry.name}", expected=listed(entry.members))
    left = [member for member in entry.members if member not in taken]
    if not left:
        raise edit.error(f"these are all members of @{entry.name}", expected="some of its members")
    return in_parts(plan, entry, [left, taken])


def duplicate(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`h`: each entry that reads this value computes it, rather than its own. `h:A,B`: these entries do, too."""
    entry, name, chosen = find_entry(plan, edit.argument), edit.argument, ""
    if entry is None:
        name, _, chosen = edit.argument.rpartition(":")
        entry = required_entry(plan, name or edit.argument, edit)
    name = name.strip().removeprefix("%")
    member = name if name in entry.members else entry.members[-1]
    reading = readers(planned.operation(entry, member))
    of_function = [each for each in plan.groups if each.function == entry.function]
    targets = [each for each in of_function if member not in each.members
               and any(planned.operation(each, other) in reading for other in each.members)]  # fmt: skip
    if chosen:
        named = [required_entry(plan, each, edit) for each in chosen.split(",")]
        others = [each for each in named if each not in targets]
        if others:
            raise edit.error(f"@{others[0].name} does not read %{member}", expected=f"of {listed(targets)}")
        targets = named
    if not targets:
        raise edit.error(f"no other entry reads %{member}", expected="a value that other entries read")
    changes = {each: [entry_of([member, *each.members], each, each.comment)] for each in targets}
    left = [other for other in entry.members if other != member]
    inside = {planned.operation(each, other) for each in targets for other in each.members}
    is_read = any(not is_free(user) and user not in inside for user in reading) if chosen else False
    if not is_read and not any(planned.operation(entry, other) in reading for other in left):
        changes[entry] = [entry_of(left, entry, entry.comment)] if left else []
    return replace(plan, groups=replaced(plan, changes))


def schedule(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`A:blocks=64x128,warps=8`: options of the schedule, of which others stay. `A:rules`: rules choose all."""
    name, colon, rest = edit.argument.rpartition(":")
    if not colon:
        raise edit.error("a schedule has options", expected="--schedule A:blocks=64x128,warps=8, or A:rules")
    entry = required_entry(plan, name, edit)
    if rest == "rules":
        return replace(plan, groups=replaced(plan, {entry: [replace(entry, schedule=None)]}))
    options: dict[str, int] = {}
    for part in rest.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if key == "blocks" and BLOCKS.fullmatch(value):
            axes, blocks = planned.tiles(entry), value.split("x")
            if len(blocks) > len(axes):
                raise edit.error(f"{value} has {len(blocks)} blocks", expected=f"one for each axis: {listed(axes)}")
            options |= dict(zip(axes, map(int, blocks), strict=False))
        elif equals and NUMBER.fullmatch(value):
            options[key] = int(value)
        else:
            raise edit.error(f"`{part}` is no option", expected="OPTION=NUMBER, such as n=512, or blocks=64x128")
    return with_schedule(plan, entry, options, edit)


def library(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`p`: a library computes this product, or those of this entry, and other kernels what was computed before and
    after it."""
    name = edit.argument.strip().removeprefix("%").removeprefix("@")
    entry = find_entry(plan, name)
    if entry is None:
        value = value_in_none(plan, name, edit, planned, check=False)
        raise edit.error(f"%{value} is in no kernel", expected="a product that a kernel computes")
    operations = {member: planned.operation(entry, member) for member in entry.members}
    products = [member for member, each in operations.items() if is_product(each)]
    if name in operations and name != entry.name:
        products = [member for member in products if member == name]
    if not products:
        raise edit.error(f"%{name} is no product, and libraries compute products, convolutions and attention",
                         expected="a product that a kernel computes")  # fmt: skip
    after = reached([operations[member] for member in products])
    left = [member for member in entry.members if member not in products]
    parts = [[member for member in left if (operations[member] in after) == side] for side in (False, True)]
    plan = without_calls(in_parts(plan, entry, [part for part in parts if part]), products)
    call = Entry(products[-1], tuple(products), None, entry.function, entry.place, products="host",
                 figures={"reason": "by hand"}, keys=PRODUCT_KEYS)  # fmt: skip
    return replace(plan, products=(*plan.products, call))


def kernel(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`p`: a kernel of its own computes this product, which a library computes."""
    name = edit.argument.strip().removeprefix("%")
    if find_entry(plan, name) is not None:
        raise edit.error(f"%{name} is in a kernel already", expected="a product that a library computes")
    name = value_in_none(plan, name, edit, planned)
    entry = Entry(name, (name,), None, None, UNKNOWN)
    return without_calls(replace(plan, groups=(*plan.groups, entry)), [name])


def join(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`A,B,...`: these products of one value become one, and their entries are merged."""
    names = [name.strip().removeprefix("%") for name in edit.argument.split(",")]
    joined = [entry for entry in siblings_of(plan, edit) for name in names if name in entry.members]
    if joined:
        raise edit.error(f"{listed_values(joined[0].members)} are joined already", help=f"--apart {joined[0].name}")
    for name in names:
        if planned.module.main.named(name) is None:
            raise unknown(plan, name, edit)
    together = Entry(names[0], tuple(names), None, None, UNKNOWN, keys=SIBLING_KEYS)
    entries = list(dict.fromkeys(entry for name in names if (entry := find_entry(plan, f"%{name}")) is not None))
    plan = replace(plan, siblings=(*(plan.siblings or ()), together))
    if not entries:
        return plan
    members = dict.fromkeys([*(name for entry in entries for name in entry.members), *names])
    merged = entry_of(members, entries[-1], tuple(line for each in entries for line in each.comment))
    groups = replaced(plan, {entry: [merged] if entry is entries[-1] else [] for entry in entries})
    return without_calls(replace(plan, groups=groups), names)


def apart(plan: PlanFile, edit: Edit, planned: Planned) -> PlanFile:
    """`p`: the products that are joined with this one are products of their own, each with what is computed of it."""
    name = edit.argument.strip().removeprefix("%")
    joined = next((entry for entry in siblings_of(plan, edit) if name in entry.members), None)
    if joined is None:
        raise edit.error(f"%{name} is joined with no product", expected="a member of an entry of `siblings`")
    changed = replace(plan, siblings=tuple(entry for entry in plan.siblings or () if entry is not joined))
    holder = next((entry for each in joined.members if (entry := find_entry(plan, f"%{each}")) is not None), None)
    if holder is None:
        return changed
    operations = {member: planned.operation(holder, member) for member in holder.members}
    left = [member for member in holder.members if member not in joined.members]
    parts = []
    for product in joined.members:
        after = reached_from(planned.module.main.find(product))
        parts.append([product, *(member for member in left if operations[member] in after)])
    before = [member for member in left if not any(member in part for part in parts)]
    return in_parts(changed, holder, [part for part in (before, *parts) if part])


def siblings_of(plan: PlanFile, edit: Edit) -> tuple[Entry, ...]:
    if plan.siblings is None:
        raise edit.error("the plan states no siblings", help="give a pipeline with the pass siblings, such as default")
    return plan.siblings


EDITS: dict[str, Callable[[PlanFile, Edit, Planned], PlanFile]] = {
    each.__name__: each for each in (merge, split, duplicate, schedule, library, kernel, join, apart)
}


# -- entries and values ----------------------------------------------------------------------------------------


def find_entry(plan: PlanFile, name: str) -> Entry | None:
    """The entry of a name, or the first one with a member of that name, those of the main function first."""
    name = name.strip()
    bare = name.removeprefix("@").removeprefix("%")
    named = None if name.startswith("%") else plan.by_name.get(bare)
    return named if named is not None or name.startswith("@") else plan.by_member.get(bare)


def required_entry(plan: PlanFile, name: str, edit: Edit) -> Entry:
    entry = find_entry(plan, name)
    if entry is None:
        raise unknown(plan, name, edit)
    return entry


def unknown(plan: PlanFile, name: str, edit: Edit) -> IrcError:
    """The error for a name that no entry has."""
    names = [name for entry in plan.groups for name in (entry.name, *entry.members)]
    bare = name.strip().removeprefix("%").removeprefix("@")
    help = did_you_mean(bare, dict.fromkeys(names), "the plan file has the names of entries and members")
    return edit.error(f"the plan has no entry or member `{bare}`", help=help)


def value_in_none(plan: PlanFile, name: str, edit: Edit, planned: Planned, check: bool = True) -> str:
    """The name of a value of the main function that is in no entry; no product of a plan that leaves these to
    libraries."""
    bare = name.removeprefix("%")
    value = None if name.startswith("@") else planned.module.main.named(bare)
    if value is None:
        raise unknown(plan, name, edit)
    if check and value.operation is not None and is_product(value.operation) and plan.made_for.products == "host":
        message = f"%{bare} is computed by a library, as are all products of a plan with products = host"
        raise edit.error(message, help="irc plan MODEL --products irc -o FILE writes a plan with products in kernels")
    return bare


def listed(names: Iterable[str | Entry]) -> str:
    return ", ".join(f"@{each.name}" if isinstance(each, Entry) else each for each in names)


def listed_values(names: Iterable[str]) -> str:
    return ", ".join(f"%{name}" for name in names)


def is_product(operation: Operation) -> bool:
    return Trait.LIBRARY in operation.definition.traits


def reached_from(value: Value) -> set[Operation]:
    """The operations that depend on a value."""
    users = set(value.users())
    return users | reached(users)


def reached(operations: Iterable[Operation]) -> set[Operation]:
    """The operations that depend on these."""
    waiting, dependent = list(operations), set[Operation]()
    while waiting:
        users = {user for result in waiting.pop().results for user in result.users()}
        waiting += users - dependent
        dependent |= users
    return dependent


def readers(operation: Operation) -> set[Operation]:
    """The operations that read a result, also through free ones."""
    waiting, dependent = [operation], set[Operation]()
    while waiting:
        users = {user for result in waiting.pop().results for user in result.users()}
        waiting += [user for user in users - dependent if is_free(user)]
        dependent |= users
    return dependent


# -- changed plans ---------------------------------------------------------------------------------------------


def entry_of(members: Iterable[str], entry: Entry, comment: tuple[str, ...] = ()) -> Entry:
    """An entry with other members than before, in place of one; what was stated of its schedule and hash is not."""
    names = tuple(members)
    return Entry(names[-1], names, None, entry.function, entry.place, comment=comment)


def replaced(plan: PlanFile, changes: Mapping[Entry, Sequence[Entry]]) -> tuple[Entry, ...]:
    """The groups of a plan, with others in place of some."""
    return tuple(each for entry in plan.groups for each in changes.get(entry, (entry,)))


def in_parts(plan: PlanFile, entry: Entry, parts: Sequence[Sequence[str]]) -> PlanFile:
    """A plan with an entry for each of the parts of one; a comment stays with the first of them."""
    entries = [entry_of(part, entry, () if number else entry.comment) for number, part in enumerate(parts)]
    return replace(plan, groups=replaced(plan, {entry: entries}))


def with_schedule(plan: PlanFile, entry: Entry, options: Mapping[str, int], edit: Edit) -> PlanFile:
    """A plan with other options of the schedule of an entry; raises `plan.refused` for those that are none."""
    stated = (entry.schedule or NO_OPTIONS).stated
    replaced_by = {"split": "part", "part": "split"}
    left = {name: value for name, value in stated.items() if replaced_by.get(name) not in options}
    try:
        scheduled = entry.scheduled({**left, **options})
    except IrcError as error:
        raise edit.refused(error) from None
    return replace(plan, groups=replaced(plan, {entry: [scheduled]}))


def without_calls(plan: PlanFile, members: Iterable[str]) -> PlanFile:
    """A plan whose library calls do not compute these members."""
    taken = set(members)
    calls = []
    for call in plan.products:
        left = tuple(member for member in call.members if member not in taken)
        calls += [call if len(left) == len(call.members) else replace(call, members=left)] if left else []
    return replace(plan, products=tuple(calls))
