"""A plan as a file: what `fuse` writes, and reads with its option `plan`.

    {"schema": "irc.plan/1", "groups": [{"members": ["11", "12"]}, ...]}

An entry names values of the operations that share a kernel. `name`, `proposer`, `function` (the main one by default),
`schedule` (options such as {"m": 2, "n": 512, "warps": 8}, `irc.schedule_options`) and `hash` are optional. A hash has
two halves, a digest of what the operations compute and one of the members' names. It is compared only where the names
are the same, so that a user may edit the members without a new hash. `products` lists what
`products=auto` chose, with the times that it compared; it is not read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

from irc.diagnostics import Diagnostic, IrcError, Location, did_you_mean, fail
from irc.group import Group
from irc.ir import Function, Operation, Value
from irc.kernel import LegalityFailure
from irc.plan import Choice, Plan
from irc.schedule_options import ScheduleOptions

SCHEMA = "irc.plan/1"
KEYS = ("name", "members", "hash", "proposer", "function", "schedule")
SPACE = re.compile(r"[\s,:]*")


@dataclass(frozen=True)
class Entry:
    """A group of a plan file: the values that name its members, and its line in the file."""

    name: str
    members: tuple[str, ...]
    hash: str | None
    function: str | None
    place: Location
    schedule: ScheduleOptions | None = None

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


# -- writing ---------------------------------------------------------------------------------------------------


def write_plan(plan: Plan, function: str | None = None) -> str:
    """The text of a plan file; `function` names one other than the main one. To be called before the plan is applied,
    which erases the members."""
    other = {} if function is None else {"function": function}
    entries = [{"name": group.name, **other, **_members(group), "proposer": group.proposer} for group in plan.groups]
    return _written(entries, [{**other, **_choice(choice)} for choice in plan.choices])


def joined_plans(texts: Iterable[str]) -> str:
    """The plans of the functions of a module as one file."""
    plans = [json.loads(text) for text in texts]
    return _written(*([entry for plan in plans for entry in plan.get(key, [])] for key in ("groups", "products")))


def _written(entries: Sequence[dict[str, Any]], choices: Sequence[dict[str, Any]]) -> str:
    products = {"products": choices} if choices else {}
    return json.dumps({"schema": SCHEMA, "groups": entries, **products}, indent=1) + "\n"


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "members": [operation.results[0].name for operation in choice.operations],
        "products": choice.products,
        "kernel_us": _microseconds(choice.kernel_seconds),
        "library_us": _microseconds(choice.library_seconds),
        "reason": choice.reason,
    }


def _microseconds(seconds: float) -> float | None:
    return round(1e6 * seconds, 3) if math.isfinite(seconds) else None


def _members(group: Group) -> dict[str, Any]:
    names = [member.results[0].name for member in group.members]
    schedule = {"schedule": group.options.stated} if group.options.stated else {}
    return {"members": names, "hash": f"{structural_hash(group.members)}:{_digest(names)}", **schedule}


# -- reading ---------------------------------------------------------------------------------------------------


def read_plan(content: bytes, path: str) -> list[Entry]:
    """The entries of a plan file; raises `plan.format`."""
    try:
        text = content.decode("utf-8-sig")  # editors of Windows begin a file with a mark
        whole = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _misread(error.msg, Location(path, error.lineno, error.colno)) from None
    except (ValueError, RecursionError) as error:
        raise _misread(str(error), Location(path)) from None
    if not isinstance(whole, dict) or not isinstance(whole.get("groups"), list):
        raise _misread("it has no list `groups`", Location(path))
    if whole.get("schema", SCHEMA) != SCHEMA:
        raise _misread(f"its schema is {whole['schema']!r}, not {SCHEMA!r}", Location(path))
    places = _places(text)
    return [_entry(entry, Location(path, line)) for entry, line in zip(whole["groups"], places, strict=True)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which no key may be dropped."""
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key `{next(key for key in keys if keys.count(key) > 1)}` stands twice in one object")
    return members


def _entry(entry: Any, place: Location) -> Entry:
    if not isinstance(entry, dict):
        raise _misread(f"an entry is {json.dumps(entry)}", place)
    for key in entry:
        if key not in KEYS:
            raise _misread(f"an entry has the key `{key}`", place, did_you_mean(key, KEYS))
    members = entry.get("members")
    if not isinstance(members, list) or not members or not all(isinstance(name, str) for name in members):
        raise _misread("an entry has no list `members` of names", place)
    for key in ("name", "hash", "function", "proposer"):
        if not isinstance(entry.get(key), str | None):
            raise _misread(f"`{key}` of an entry is {json.dumps(entry[key])}", place)
    names = tuple(name.removeprefix("%") for name in members)
    schedule = entry.get("schedule")
    if not isinstance(schedule, dict | None):
        raise _misread(f"`schedule` of an entry is {json.dumps(schedule)}", place)
    options = None if schedule is None else ScheduleOptions.of(schedule, place)
    return Entry(entry.get("name") or names[-1], names, entry.get("hash"), entry.get("function"), place, options)


def _misread(what: str, place: Location, help: str | None = None) -> IrcError:
    return fail("plan.format", f"this is no plan file: {what}", at=place,
                expected='{"groups": [{"members": ["NAME", ...]}, ...]}',
                help=help or "irc opt MODEL -p default --plan FILE writes one")  # fmt: skip


def _places(text: str) -> Iterator[int]:
    """The line of each entry of the last key `groups`, in a text that `json` reads."""
    decoder, at = JSONDecoder(), text.index("{") + 1
    lines: list[int] = []
    while text[at := SPACE.match(text, at).end()] != "}":  # type: ignore[union-attr]
        key, at = decoder.raw_decode(text, at)
        at = SPACE.match(text, at).end()  # type: ignore[union-attr]
        if key != "groups" or text[at] != "[":
            _, at = decoder.raw_decode(text, at)
            continue
        lines, at, line, counted = [], at + 1, 1, 0
        while text[at := SPACE.match(text, at).end()] != "]":  # type: ignore[union-attr]
            line, counted = line + text.count("\n", counted, at), at
            lines.append(line)
            _, at = decoder.raw_decode(text, at)
        at += 1
    return iter(lines)


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
