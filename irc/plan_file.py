"""A plan as a file: what `fuse` writes, and reads with its option `plan`. `irc doc plans` is the page for users.

    {"schema": "irc.plan/2", "groups": [{"members": ["11", "12"]}, ...]}

An entry names values of the operations that share a kernel; all else of it is optional. A pointwise operation may be
named in several entries, each of which computes it; the one that runs first stores it if an operation in none of them
reads it. A hash has two halves, a digest of what the operations compute and one of the members' names. It is compared
only where the names are the same, so that a user may edit the members without a new hash. Files of schema `irc.plan/1`
are read, too. Start at `PlanFile`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from json import JSONDecoder
from pathlib import Path
from typing import Any

from irc.diagnostics import UNKNOWN, Diagnostic, IrcError, Location, did_you_mean, fail
from irc.files import open_file
from irc.group import Group
from irc.ir import Function, Operation, Value
from irc.kernel import LegalityFailure
from irc.numerics import NUMERICS
from irc.plan import Plan
from irc.products import PRODUCTS
from irc.schedule_options import NO_OPTIONS, ScheduleOptions

SCHEMA = "irc.plan/2"
SCHEMAS = ("irc.plan/1", SCHEMA)  # that are read
# The keys of a group, of an entry of `products`, and of the file, with what they mean.
KEYS = {
    "name": "of the kernel; written as that of its last value",
    "function": "the function of the module; left out for the main one",
    "members": "names of values, each of whose operations is in the kernel; the only key that is required",
    "hash": "of what the members compute: where it differs, the plan is stale; left out, it is not compared",
    "proposer": "who proposed the group: a policy, a pattern, plan, or seed for an operation by itself",
    "schedule": "options of the schedule, such as {\"n\": 512, \"warps\": 8, \"split\": 4}; rules choose the others",
    "computes": "the operations; written for readers, and not read",
    "comment": "a text, or a list of texts, which edits keep",
}
PRODUCT_KEYS = {
    "function": KEYS["function"],
    "members": "the values of products, convolutions or attention",
    "products": "host: a library computes them, also with products=irc; irc: kernels do",
    "kernel_us": "the time of kernels that products=auto compared, in microseconds",
    "library_us": "that of library calls",
    "reason": "why",
    "comment": KEYS["comment"],
}
SIBLING_KEYS = {
    "function": KEYS["function"],
    "members": "the values of two to eight products of one value with constant matrices, which become one product",
    "comment": KEYS["comment"],
}
BUNDLE_KEYS = {
    "function": KEYS["function"],
    "members": "the names of two to 32 kernels, those of passes after fuse too, that are one launch",
    "reason": "why; written for readers",
    "comment": KEYS["comment"],
}
TOP_KEYS = {
    "schema": SCHEMA,
    "comment": KEYS["comment"],
    "made_for": "the model, pipeline, products, numerics, device, and sizes of symbols that it was made for",
    "siblings": "products that are joined; where the list is left out, rules choose (the pass siblings)",
    "groups": "the kernels, in the order of the program; an operation in several is computed by each",
    "products": "what computes products, where a plan states it",
    "bundles": "kernels that are launched together; where the list is left out, rules choose (the pass bundle)",
}
LISTS = ("siblings", "groups", "products", "bundles")  # of entries
CHOICES = {"products": PRODUCTS, "numerics": NUMERICS}  # of `made_for`
SPACE = re.compile(r"[\s,:]*")


@dataclass(frozen=True)
class MadeFor:
    """What a plan was made for: the model, from the folder of the plan; passes, choices and sizes of symbols."""

    model: str | None = None
    pipeline: str | None = None
    products: str | None = None
    numerics: str | None = None
    device: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def stated(self) -> dict[str, Any]:
        """What is known, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, {})}


@dataclass(frozen=True, eq=False)
class Entry:
    """An entry of a plan file: the values that name its members, and its line in the file.

    It is a group; in the list `siblings` products that are joined; in the list `bundles` kernels that are launched
    together; or in the list `products` what computes these members (`products`). `figures` are what else such an entry
    states. `keys` are those of its list. `computes` is
    written for readers of the file, and not read; `comment` is a user's.
    """

    name: str
    members: tuple[str, ...]
    hash: str | None
    function: str | None
    place: Location
    schedule: ScheduleOptions | None = None
    proposer: str | None = None
    computes: str | None = None
    comment: tuple[str, ...] = ()
    products: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS, repr=False)

    def error(self, reason: str, code: str = "plan.refused", rule: str = "", values: Iterable[Value] = (),
              help: str | None = None) -> Diagnostic:  # fmt: skip
        """Why this entry cannot be followed; `values` are those of the graph that the reason is about."""
        cited = f"rule {rule}: " if rule else ""
        places = [f"%{value.name}: {value.operation.location}" for value in values
                  if value.operation is not None and value.operation.location.known]  # fmt: skip
        return Diagnostic(code, f"plan entry @{self.name}: {cited}{reason}", self.place, notes=tuple(places),
                          help=help or (f"irc explain {rule}" if rule else None))  # fmt: skip

    def illegal(self, failure: LegalityFailure) -> Diagnostic:
        """Why this entry cannot be one kernel."""
        values = [value for value in failure.values if isinstance(value, Value)]
        return self.error(failure.message, rule=failure.rule, values=values)

    def scheduled(self, options: Mapping[str, Any]) -> Entry:
        """The entry with these options of its schedule; raises `plan.refused` for what is no option (rule F15)."""
        try:
            return replace(self, schedule=ScheduleOptions.of(options, self.place))
        except IrcError as error:
            first = error.diagnostics[0]
            reason = first.message.removeprefix("F15: ")
            reason = reason if first.expected is None else f"{reason}, expected {first.expected}"
            raise IrcError([self.error(reason, rule="F15")]) from None

    def find(self, function: Function) -> list[Operation]:
        """The members' operations, each once; raises `plan.stale` and `plan.refused`."""
        operations: dict[Operation, None] = {}
        for member in self.members:
            try:
                value = function.find(member)
            except IrcError as error:
                help = did_you_mean(member, function.value_names(), "irc print MODEL --after PASS shows the names")
                raise IrcError([self.error(error.diagnostics[0].message, "plan.stale", help=help)]) from None
            if value.operation is None:
                raise IrcError([self.error(f"%{member} is an argument, which no kernel computes")])
            operations[value.operation] = None
        structure, _, members = (self.hash or "").partition(":")
        if structure and members in ("", _digest(self.members)) and structure != structural_hash(list(operations)):
            raise IrcError([self.error("its operations have changed since the plan was written", "plan.stale",
                                       help="leave its hash out to plan what is there now")])  # fmt: skip
        return list(operations)

    @property
    def written(self) -> dict[str, Any]:
        """The entry as an object of JSON, without what it does not state."""
        schedule = None if self.schedule is None else self.schedule.stated or None
        values = {**vars(self), "schedule": schedule, **self.figures}
        known = {key: values[key] for key in self.keys if key in values and values[key] not in (None, ())}
        if "comment" in known:
            known["comment"] = self.comment[0] if len(self.comment) == 1 else list(self.comment)
        return known


@dataclass(frozen=True)
class PlanFile:
    """The plan of a module: groups, products that are joined and kernels that are launched together (None where rules
    choose), what computes products, and what it was made for."""

    groups: tuple[Entry, ...] = ()
    products: tuple[Entry, ...] = ()
    made_for: MadeFor = MadeFor()
    comment: tuple[str, ...] = ()
    siblings: tuple[Entry, ...] | None = None
    bundles: tuple[Entry, ...] | None = None

    @property
    def entries(self) -> list[Entry]:
        return [*(self.siblings or ()), *self.groups, *self.products, *(self.bundles or ())]

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """The first entry of each name, those of the main function first."""
        return {entry.name: entry for entry in reversed(self._main_first())}

    @cached_property
    def by_member(self) -> dict[str, Entry]:
        """The first entry that has a member of each name, those of the main function first."""
        return {name: entry for entry in reversed(self._main_first()) for name in entry.members}

    def scheduled(self, options: Mapping[str, ScheduleOptions]) -> PlanFile:
        """The plan with further schedule options in the entries of these names."""

        def changed(entry: Entry) -> Entry:
            return entry.scheduled({**(entry.schedule or NO_OPTIONS).stated, **options[entry.name].stated})

        return replace(self, groups=tuple(changed(each) if each.name in options else each for each in self.groups))

    def _main_first(self) -> list[Entry]:
        return sorted(self.groups, key=lambda entry: entry.function is not None)

    @property
    def text(self) -> str:
        """The file, which `read_plan_file` reads as an equal plan, but for lines."""
        whole: dict[str, Any] = {"schema": SCHEMA}
        if self.comment:
            whole["comment"] = self.comment[0] if len(self.comment) == 1 else list(self.comment)
        if self.made_for.stated:
            whole["made_for"] = self.made_for.stated
        if self.siblings is not None:
            whole["siblings"] = [entry.written for entry in self.siblings]
        whole["groups"] = [entry.written for entry in self.groups]
        if self.products:
            whole["products"] = [entry.written for entry in self.products]
        if self.bundles is not None:
            whole["bundles"] = [entry.written for entry in self.bundles]
        return _text(whole)


# -- writing ---------------------------------------------------------------------------------------------------


def plan_file(plan: Plan, function: str | None = None, siblings: tuple[Entry, ...] | None = None) -> PlanFile:
    """A plan as entries, in the order of the program; `function` names one other than the main one, and `siblings` are
    products of it that were joined. To be called before the plan is applied, which erases the members."""
    groups = [_entry_of(group, function) for group in in_program_order(plan.groups)]
    choices = [Entry("", _names(choice.operations), None, function, UNKNOWN, products=choice.products,
                     figures={"kernel_us": _microseconds(choice.kernel_seconds),
                              "library_us": _microseconds(choice.library_seconds), "reason": choice.reason},
                     keys=PRODUCT_KEYS)
               for choice in plan.choices]  # fmt: skip
    return PlanFile(tuple(groups), tuple(choices), siblings=siblings)


def siblings_entry(products: Iterable[Operation], function: str | None, comment: tuple[str, ...] = ()) -> Entry:
    """The entry of products that are joined; to be called before they are."""
    names = _names(products)
    return Entry(names[0], names, None, function, UNKNOWN, comment=comment, keys=SIBLING_KEYS)


def bundle_entry(kernels: Iterable[str], function: str | None, reason: str, comment: tuple[str, ...] = ()) -> Entry:
    """The entry of kernels of these names that are launched together."""
    names = tuple(kernels)
    figures = {"reason": reason} if reason else {}
    return Entry(names[0], names, None, function, UNKNOWN, comment=comment, figures=figures, keys=BUNDLE_KEYS)


def joined_plans(plans: Collection[PlanFile]) -> PlanFile:
    """The plans of the functions of a module as one."""
    siblings = [plan.siblings for plan in plans if plan.siblings is not None]
    bundles = [plan.bundles for plan in plans if plan.bundles is not None]
    return PlanFile(tuple(entry for plan in plans for entry in plan.groups),
                    tuple(entry for plan in plans for entry in plan.products),
                    siblings=tuple(itertools.chain.from_iterable(siblings)) if siblings else None,
                    bundles=tuple(itertools.chain.from_iterable(bundles)) if bundles else None)  # fmt: skip


def in_program_order(groups: Iterable[Group]) -> list[Group]:
    """Groups by their last members, block by block, whatever was merged first."""
    blocks: dict[Any, list[Group]] = {}
    for group in groups:
        blocks.setdefault(group.members[-1].block, []).append(group)
    ordered = (sorted(each, key=lambda group: group.members[-1].order_label) for each in blocks.values())
    return [group for each in ordered for group in each]


def _entry_of(group: Group, function: str | None) -> Entry:
    names = _names(group.members)
    computes = ", ".join(dict.fromkeys(member.name for member in group.members))
    options = group.options if group.options.stated else None
    return Entry(group.name, names, f"{structural_hash(group.members)}:{_digest(names)}", function, UNKNOWN, options,
                 group.proposer, computes)  # fmt: skip


def _names(operations: Iterable[Operation]) -> tuple[str, ...]:
    return tuple(operation.results[0].name for operation in operations)


def _microseconds(seconds: float) -> float | None:
    return round(1e6 * seconds, 3) if math.isfinite(seconds) else None


def _text(whole: Mapping[str, Any]) -> str:
    """JSON of a line for each key of an entry, so that files can be compared line by line."""
    lines = []
    for key, value in whole.items():
        text = json.dumps(value)
        if key in LISTS:
            text = "[\n" + ",\n".join(map(_entry_text, value)) + "\n ]" if value else "[]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _entry_text(entry: Mapping[str, Any]) -> str:
    return "  {\n" + ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items()) + "\n  }"


# -- reading ---------------------------------------------------------------------------------------------------


def load_plan_file(path: str | Path, is_input: bool = True) -> PlanFile:
    """The plan file at a path; one that is no input may be replaced by what is written. Raises `file.missing`,
    `file.unreadable` and `plan.format`."""
    if not os.path.isfile(path):
        raise fail("file.missing", f"there is no plan file {path}", help="irc plan MODEL -o FILE writes one")
    return read_plan_file(bytes(open_file(Path(path), is_input=is_input).data), str(path))


def read_plan_file(content: bytes, path: str) -> PlanFile:
    """A plan file, of any schema that irc has written; raises `plan.format`."""
    try:
        text = content.decode("utf-8-sig")  # editors of Windows begin a file with a mark
        whole = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        at = Location(path, error.lineno, error.colno)
        is_comment = error.doc[error.pos : error.pos + 2] in ("//", "/*") or error.doc[error.pos : error.pos + 1] == "#"
        raise _misread(error.msg, at, "JSON has no comments: use the key `comment`" if is_comment else None) from None
    except UnicodeDecodeError:
        raise _misread("it is no text in UTF-8", Location(path)) from None
    except (ValueError, RecursionError) as error:
        raise _misread(str(error), Location(path)) from None
    if not isinstance(whole, dict) or not isinstance(whole.get("groups"), list):
        raise _misread("it has no list `groups`", Location(path))
    if whole.get("schema", SCHEMA) not in SCHEMAS:
        raise _misread(f"its schema is {whole['schema']!r}, not {SCHEMA!r}", Location(path))
    for key in whole:
        if key not in TOP_KEYS:
            raise _misread(f"it has the key `{key}`", Location(path), did_you_mean(key, TOP_KEYS))
    for key in LISTS:
        if not isinstance(whole.get(key, []), list):
            raise _misread(f"`{key}` is no list", Location(path))
    places = _places(text)
    siblings, groups, products, bundles = (
        tuple(read(entry, Location(path, line))
              for entry, line in zip(whole.get(key, ()), places.get(key, ()), strict=True))
        for key, read in (("siblings", _siblings), ("groups", _entry), ("products", _product), ("bundles", _bundle))
    )  # fmt: skip
    made_for = _made_for(whole.get("made_for", {}), Location(path))
    comment = _comment(whole, "the plan", Location(path))
    return PlanFile(groups, products, made_for, comment, siblings if "siblings" in whole else None,
                    bundles if "bundles" in whole else None)  # fmt: skip


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which no key may be dropped."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key `{key}` stands twice in one object")
        members[key] = value
    return members


def _made_for(given: Any, place: Location) -> MadeFor:
    names = [each.name for each in fields(MadeFor)]
    if not isinstance(given, dict):
        raise _misread(f"`made_for` is {json.dumps(given)}", place)
    for key, value in given.items():
        if key not in names:
            raise _misread(f"`made_for` has the key `{key}`", place, did_you_mean(key, names))
        sizes = value.values() if key == "sizes" and isinstance(value, dict) else None
        if key == "sizes" and (sizes is None or any(type(size) is not int for size in sizes)):
            raise _misread("`sizes` of `made_for` are no integers by name", place)
        if key != "sizes" and not isinstance(value, str):
            raise _misread(f"`{key}` of `made_for` is {json.dumps(value)}", place)
        if key in CHOICES and value not in CHOICES[key]:
            raise _misread(f"`{key}` of `made_for` is {json.dumps(value)}", place, did_you_mean(value, CHOICES[key]))
    return MadeFor(**given)


def _entry(entry: Any, place: Location) -> Entry:
    names = _members_of(entry, KEYS, place)
    for key in ("name", "hash", "function", "proposer", "computes"):
        if not isinstance(entry.get(key), str | None):
            raise _misread(f"`{key}` of an entry is {json.dumps(entry[key])}", place)
    schedule = entry.get("schedule")
    if not isinstance(schedule, dict | None):
        raise _misread(f"`schedule` of an entry is {json.dumps(schedule)}", place)
    read = Entry(entry.get("name") or names[-1], names, entry.get("hash"), entry.get("function"), place, None,
                 entry.get("proposer"), entry.get("computes"), _comment(entry, "an entry", place))  # fmt: skip
    return read if schedule is None else read.scheduled(schedule)


def _siblings(entry: Any, place: Location) -> Entry:
    names = _members_of(entry, SIBLING_KEYS, place)
    function = _function_of(entry, place)
    return Entry(names[0], names, None, function, place, comment=_comment(entry, "an entry", place), keys=SIBLING_KEYS)


def _bundle(entry: Any, place: Location) -> Entry:
    names = _members_of(entry, BUNDLE_KEYS, place, "@")
    reason = entry.get("reason", "")
    if not isinstance(reason, str):
        raise _misread(f"`reason` of an entry is {json.dumps(reason)}", place)
    read = bundle_entry(names, _function_of(entry, place), reason, _comment(entry, "an entry", place))
    return replace(read, place=place)


def _function_of(entry: Mapping[str, Any], place: Location) -> str | None:
    function = entry.get("function")
    if not isinstance(function, str | None):
        raise _misread(f"`function` of an entry is {json.dumps(function)}", place)
    return function


def _product(entry: Any, place: Location) -> Entry:
    names = _members_of(entry, PRODUCT_KEYS, place)
    products, function = entry.get("products"), _function_of(entry, place)
    if products not in ("irc", "host"):
        raise _misread(f"`products` of an entry is {json.dumps(products)}", place, 'write "irc" or "host"')
    figures = {key: entry[key] for key in ("kernel_us", "library_us", "reason") if key in entry}
    return Entry(names[-1], names, None, function, place, comment=_comment(entry, "an entry", place),
                 products=products, figures=figures, keys=PRODUCT_KEYS)  # fmt: skip


def _members_of(entry: Any, keys: Iterable[str], place: Location, mark: str = "%") -> tuple[str, ...]:
    """The names of the members of an entry, of which the keys are checked, without `%`, or `@` of kernels."""
    if not isinstance(entry, dict):
        raise _misread(f"an entry is {json.dumps(entry)}", place)
    for key in entry:
        if key not in keys:
            raise _misread(f"an entry has the key `{key}`", place, did_you_mean(key, keys))
    members = entry.get("members")
    if not isinstance(members, list) or not members or not all(isinstance(name, str) for name in members):
        raise _misread("an entry has no list `members` of names", place)
    return tuple(name.removeprefix(mark) for name in members)


def _comment(given: Mapping[str, Any], what: str, place: Location) -> tuple[str, ...]:
    """The lines of a comment: a text, or a list of texts."""
    comment = given.get("comment", [])
    lines = [comment] if isinstance(comment, str) else comment
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _misread(f"`comment` of {what} is {json.dumps(comment)}", place, "write a text, or a list of texts")
    return tuple(lines)


def _misread(what: str, place: Location, help: str | None = None) -> IrcError:
    return fail("plan.format", f"this is no plan file: {what}", at=place,
                expected='{"groups": [{"members": ["NAME", ...]}, ...]}',
                help=help or "irc plan MODEL -o FILE writes one")  # fmt: skip


def _places(text: str) -> dict[str, list[int]]:
    """The lines of the entries of each list of entries, in a text that `json` reads."""
    decoder, at = JSONDecoder(), text.index("{") + 1
    places: dict[str, list[int]] = {}
    line, counted = 1, 0
    while text[at := _next(text, at)] != "}":
        key, at = decoder.raw_decode(text, at)
        at = _next(text, at)
        if key not in LISTS or text[at] != "[":
            _, at = decoder.raw_decode(text, at)
            continue
        at += 1
        places[key] = []
        while text[at := _next(text, at)] != "]":
            line, counted = line + text.count("\n", counted, at), at
            places[key].append(line)
            _, at = decoder.raw_decode(text, at)
        at += 1
    return places


def _next(text: str, at: int) -> int:
    return SPACE.match(text, at).end()  # type: ignore[union-attr]


def structural_hash(members: Sequence[Operation]) -> str:
    """A digest of what the operations do, without names: equal layers have equal hashes."""
    numbers: dict[Value, str] = {}
    lines = []
    for operation in members:
        operands = []
        for operand in operation.operands:
            if operand is not None and operand not in numbers:
                numbers[operand] = f"in{len(numbers)}:{operand.type}"
            operands.append("_" if operand is None else numbers[operand])
        for result in operation.results:
            numbers[result] = f"v{len(numbers)}"
        lines.append(f"{operation.name} {operands} {sorted(map(str, operation.attributes.items()))}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:8]
