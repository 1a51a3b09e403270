"""`irc explain MODEL %a %b --apply PLAN`: the smallest edit of a plan that has two values in one kernel.

The candidates are, in this order: all entries on paths between the values as one; only what is on these paths, moved
into the entry of one of them; only that, as an entry of its own. The first that is legal is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from irc.diagnostics import IrcError, fail, printable_lines
from irc.driver.models import Settings, Source
from irc.driver.planning import model_named, named_pipeline, read, workbench_of, write
from irc.driver.printing import at_sizes, format_bytes
from irc.driver.workbench import PlanCost, carried
from irc.group import is_free
from irc.ir import Operation
from irc.module import Module
from irc.plan_difference import differences
from irc.plan_edits import Edit, Planned, edited, find_entry, reached
from irc.plan_file import Entry, PlanFile

Edits = tuple[tuple[str, str], ...]


def explain_joining(source: Source, names: Sequence[str], path: str | Path, pipeline: str | None,
                    settings: Settings) -> str:  # fmt: skip
    """Write the smallest edit of the plan at the path, or of the pipeline's plan if there is no such file, that has two
    values in one kernel; returns what it changes. Raises `plan.refused` with the rule where no edit is legal."""
    if len(names) != 2:
        raise fail("usage.arguments", "--apply is for two values", help="irc explain MODEL %a %b --apply PLAN.json")
    is_new = not os.path.exists(path)
    file = PlanFile() if is_new else read(path)
    pipeline = pipeline if is_new else pipeline or named_pipeline(file, path)
    bench = workbench_of(file, path, source, pipeline, settings)
    before = bench.run(bench.fuse) if is_new else bench.follow(file, str(path))
    plan = replace(carried(before.plan, file, bench.module), made_for=bench.made_for(model_named(source, path)))
    plan = replace(plan, products=before.plan.products) if is_new else plan
    ends = [end_of(name, before.unfused) for name in names]
    holder = find_entry(plan, f"%{ends[0].results[0].name}")
    if holder is not None and ends[1].results[0].name in holder.members:
        return printable_lines([f"in one kernel already: @{holder.name}; {path} is not written"])
    refusal: IrcError | None = None
    for edits in candidates(ends, plan):
        try:
            changed = with_edits(plan, edits, before.unfused)
            after = bench.follow(changed, str(path))
        except IrcError as error:
            refusal = refusal or Edit(*edits[-1]).refused(error)
            continue
        new = carried(after.plan, changed, bench.module)
        write(new, path)
        lines = [" ".join(f"--{name} {argument}" for name, argument in edits) + ": legal"]
        lines += [f"  {difference}" for difference in differences(plan, new)]
        lines.append(f"  {costs(before.cost, after.cost)}{at_sizes(bench.sizes)}")
        return printable_lines([*lines, f"wrote {path}"])
    assert refusal is not None, "there is a candidate"
    raise refusal


def end_of(name: str, module: Module) -> Operation:
    """The operation of a value before fusion; raises `plan.edit` for one that kernels do not compute for themselves."""
    value = module.main.find(name.removeprefix("%"))
    if value.operation is None or is_free(value.operation):
        kind = "an input, which kernels load" if value.operation is None else "a view, through which kernels read"
        raise fail("plan.edit", f"%{value.name} is {kind}", expected="a value that is computed")
    return value.operation


def with_edits(plan: PlanFile, edits: Edits, module: Module) -> PlanFile:
    for number, (name, argument) in enumerate(edits, 1):
        plan = edited(plan, Edit(name, argument, number), Planned(module))
    return plan


def candidates(ends: Sequence[Operation], plan: PlanFile) -> Iterator[Edits]:
    """Edits that have both operations in one kernel, the smallest first."""
    function = ends[0].function
    assert function is not None

    def held(operation: Operation) -> Entry | None:
        return find_entry(plan, f"%{operation.results[0].name}") if operation.results else None

    holders = [held(end) for end in ends]
    if None in holders:
        yield (merge(f"@{entry.name}" if entry else f"%{end.results[0].name}"
                     for end, entry in zip(ends, holders, strict=True)),)  # fmt: skip
        return
    sides = [entry for entry in holders if entry is not None]
    together = dict.fromkeys(sides)
    while True:
        members = [operation for entry in together for name in entry.members
                   if (operation := function.find(name).operation) is not None]  # fmt: skip
        more = [entry for operation in on_paths(members) if (entry := held(operation)) is not None]
        if together.keys() >= set(more):
            break
        together |= dict.fromkeys(more)
    ordered = [entry for entry in plan.groups if entry in together]
    yield (merge(f"@{entry.name}" for entry in ordered),)
    core = [operation for operation in on_paths(ends) if not is_free(operation)]
    names = [operation.results[0].name for operation in core if held(operation) is not None]
    if len(names) < len(core):
        return  # an operation on a path is in no kernel
    yield taken(names, plan, sides[1])
    yield taken(names, plan, sides[0])
    yield taken(names, plan, None)


def taken(names: Sequence[str], plan: PlanFile, target: Entry | None) -> Edits:
    """Edits that take members out of their entries, into the target or into an entry of their own."""
    parts: dict[Entry, list[str]] = {}
    for name in names:
        entry = find_entry(plan, f"%{name}")
        if entry is not None and entry is not target:
            parts.setdefault(entry, []).append(name)
    splits = [("split", f"@{entry.name}:{','.join(f'%{name}' for name in part)}")
              for entry, part in parts.items() if len(part) < len(entry.members)]  # fmt: skip
    merged = [f"%{part[-1]}" for part in parts.values()] + ([f"@{target.name}"] if target is not None else [])
    return (*splits, merge(merged)) if len(merged) > 1 else tuple(splits)


def merge(names: Iterable[str]) -> tuple[str, str]:
    return "merge", ",".join(names)


def on_paths(operations: Sequence[Operation]) -> list[Operation]:
    """These operations and those on paths from one of them to another, in the order of the block."""
    inside = reached(operations) & reaching(operations) | set(operations)
    return sorted((each for each in inside if each.block is operations[0].block), key=lambda each: each.order_label)


def reaching(operations: Iterable[Operation]) -> set[Operation]:
    """The operations on which these depend."""
    waiting, needed = list(operations), set[Operation]()
    while waiting:
        sources = {value.operation for value in waiting.pop().inputs if value.operation is not None}
        waiting += sources - needed
        needed |= sources
    return needed


def costs(before: PlanCost, after: PlanCost) -> str:
    """`launches 4 -> 3, traffic 1.2 MB -> 1.0 MB, time 12.30 us -> 10.10 us`."""
    pairs = {
        "launches": (str(before.launches), str(after.launches)),
        "traffic": (format_bytes(before.distinct_bytes), format_bytes(after.distinct_bytes)),
        "time": (f"{1e6 * before.seconds:.2f} us", f"{1e6 * after.seconds:.2f} us"),
    }
    return ", ".join(f"{name} {' -> '.join(dict.fromkeys(pair))}" for name, pair in pairs.items())
