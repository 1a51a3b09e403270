"""A plan as a file: what `fuse` writes, and reads with its option `plan`.

Groups are keyed by the names of their values, and by a hash of what they compute, so that a plan outlives the process
but not a change of what it groups.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from irc.diagnostics import IrcError, fail
from irc.ir import Function, Operation, Value
from irc.plan import Plan


def write_plan(plan: Plan) -> str:
    """The text of a plan file. To be asked for before the plan is applied, which takes the members away."""
    entries = [{"name": group.name, "members": [member.results[0].name for member in group.members],
                "hash": structural_hash(group.members), "proposer": group.proposer} for group in plan.groups]
    return json.dumps({"schema": "irc.plan/1", "groups": entries}, indent=1) + "\n"


def read_plan(text: str | bytes, function: Function) -> tuple[list[list[Operation]], list[str]]:
    """The groups that a plan file proposes for a function, and a message for each that no longer matches."""
    try:
        entries = json.loads(text)["groups"]
        wanted = [(entry["name"], [str(name) for name in entry["members"]], entry["hash"]) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"this is no plan file: {type(error).__name__}: {error}"
        raise fail("plan.format", message, help="write one with `irc opt --plan`") from None
    proposals, stale = [], []
    for name, members, digest in wanted:
        try:
            operations = [function.find(member).operation for member in members]
        except IrcError as error:
            stale.append(f"@{name}: {error.diagnostics[0].message}")
            continue
        present = [operation for operation in operations if operation is not None]
        if len(present) < len(operations) or structural_hash(present) != digest:
            stale.append(f"@{name}: its operations have changed")
        else:
            proposals.append(present)
    return proposals, stale


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
