"""explain: one value's history, why two values are in different kernels, or what a code means."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from irc.diagnostics import CODES, IrcError, did_you_mean, fail, printable_lines, rules
from irc.driver.compiling import with_kernels
from irc.driver.counting import describe, kernel_of
from irc.driver.models import SUFFIXES, Settings, Source, find_backend, read_pipeline
from irc.driver.printing import at_sizes, format_bytes
from irc.ir import Block, Function, Module, Operation, Value
from irc.kernel import Refusal
from irc.pass_manager import PassManager
from irc.passes._group_graph import GroupGraph, hull
from irc.passes._user_files import is_reference
from irc.plan import Group, Merge, Plan, Refused, bytes_at, is_free, legal, representative_sizes

PAGE_WIDTH = 100  # columns


def explain(source: Source | None, *names: str, pipeline: str | None = None, settings: Settings | None = None) -> str:
    """Explain a code (`explain(None, "type.broadcast")`, also a rule such as F7), one value, or a pair of values."""
    settings = settings or Settings()
    if source is None and len(names) == 1 and (is_reference(names[0]) or Path(names[0]).suffix.lower() in SUFFIXES):
        source, names = names[0], ()
    if source is None or (not names and isinstance(source, str) and is_code(source)):
        return explain_code(names[0] if source is None else str(source))
    if not names or len(names) > 2:
        raise fail(
            "usage.arguments", "explain takes a code, or MODEL and one or two values", help="irc explain m.onnx %y"
        )
    values = [name.removeprefix("%") for name in names]
    if len(values) == 1:
        return explain_value(source, values[0], pipeline, settings)
    return explain_pair(source, values[0], values[1], pipeline, settings)


def is_code(text: str) -> bool:
    return text in CODES or text in rules("F")


def explain_code(text: str) -> str:
    """What a code means, what to do, and how the process ends; of a legality rule, what its code means."""
    if text in rules("F"):
        code = rules("F")[text].code
        return explain_code(code).replace(f"{code}: {text}: ", f"{text}: [{code}] ", 1)
    if text not in CODES:
        raise fail("usage.unknown_code", f"there is no diagnostic code {text!r}",
                   help=did_you_mean(text, CODES, "irc doc codes lists them"))  # fmt: skip
    entry = CODES[text]
    explanation, remedy = (
        textwrap.fill(part, PAGE_WIDTH) for part in (entry.explanation, f"What to do: {entry.remedy}")
    )
    status = f"Exit status: {int(entry.exit_code)} ({entry.exit_code.meaning})"
    return f"{text}: {entry.summary}\n\n{explanation}\n\n{remedy}\n{status}"


# -- one value -------------------------------------------------------------------------------------------------


def explain_value(source: Source, name: str, pipeline: str | None, settings: Settings) -> str:
    """Where a value comes from, what made it what it is, its kernel, and the line that computes it."""
    imported = settings.load(source)
    compiled = with_kernels(imported, pipeline, settings)
    lines = []
    before = find_value(imported, name)
    if before is not None:
        lines += [f"%{name}: {before.type}", f"  imported  {place_of(before)}"]
    after = find_value(compiled, name)
    if before is None and after is None:
        imported.main.find(name)  # raises: no such value
    if after is None:
        lines.append("  gone      removed or absorbed by a rewrite: no value of this name is left after the pipeline")
        return printable_lines(lines)
    if before is None:
        lines += [f"%{name}: {after.type}", f"  made      {place_of(after)}"]
    operation = after.operation
    if operation is None:
        return printable_lines([*lines, "  input     read by " + ", ".join(user.name for user in after.users())])
    kernel = operation if operation.name == "kernel" else operation.parent
    steps = [*operation.location.made_by, *(kernel.location.made_by if kernel is not None else ())]
    lines += [f"  rewritten {step}" for step in dict.fromkeys(steps)]
    if kernel is not None and kernel.name == "kernel":
        inside = [inner.name for inner in kernel.regions[0].block if not inner.definition.is_terminator]
        members = ", ".join(name for name in inside if name != "const")
        lines.append(f"  kernel    @{kernel.attributes['name']} ({kernel.attributes['kind']}): {members}")
        lines.append(f"  generated {generated_line(kernel, after)}")
    elif is_free(operation):
        lines.append(f"  view      {operation.name}: kernels read through it")
    else:
        lines.append(f"  host call {describe(operation)}")
    return printable_lines(lines)


def generated_line(operation: Operation, value: Value) -> str:
    """The line of a kernel's Triton source that stores or names a value of it, a result or one inside."""
    block = operation.regions[0].block
    outside = [*zip(block.arguments, operation.inputs, strict=True)]
    outside += zip(block.terminator.inputs, operation.results, strict=True)
    labels = {inner: "" if value.is_anonymous else value.name for inner, value in outside}
    text: str = find_backend("triton").kernel_source(kernel_of(operation), operation.attributes["name"], labels)
    lines = [line.strip() for line in text.splitlines()]
    stores = [line for line in lines if "tl.store(" in line]
    if value in operation.results:
        return stores[min(operation.results.index(value), len(stores) - 1)]
    name = re.sub(r"\W", "_", value.name)
    named = [line for line in lines if re.match(rf"{re.escape(name)}(_\d+)? = ", line)]
    return named[0] if named else "has no line of its own: it is written inside the expression that uses it"


def find_value(module: Module, name: str) -> Value | None:
    """A value of the entry by name, or None."""
    try:
        return module.main.find(name)
    except IrcError:
        return None


def place_of(value: Value) -> str:
    if value.operation is None:
        return "an input of the program"
    location = value.operation.location
    return f"{describe(value.operation)} at {location}" if location.known else describe(value.operation)


# -- two values ------------------------------------------------------------------------------------------------


def in_words(group: Group) -> str:
    return f"@{group.name} ({', '.join(member.name for member in group.members)})"


def graph_of(block: Block, plan: Plan) -> GroupGraph:
    """The graph of a block's groups as a plan leaves them."""
    graph = GroupGraph(block)
    for group in plan.groups:
        if group.members[0].block is block:
            graph.merge(group)
    return graph


def explain_pair(source: Source, first: str, second: str, pipeline: str | None, settings: Settings) -> str:
    """Why two values are in different kernels: the rule or the policy, with its values, the cost, what to try."""
    from irc.passes.fuse import Fuse, propose  # a pass is asked for its plan, not for its result

    context = settings.context("triton")
    passes = read_pipeline(pipeline or find_backend("triton").PIPELINE, context)
    stop = next((index for index, step in enumerate(passes) if isinstance(step, Fuse)), len(passes))
    fuse = passes[stop] if stop < len(passes) else Fuse()
    assert isinstance(fuse, Fuse)
    module = settings.load(source)
    PassManager(passes[:stop], context).run(module)
    function = module.main
    chosen = fuse.chosen()
    plan = propose(function, chosen, context, fuse.proposals(function), fuse.entries())
    sides: list[Group] = []
    asked: dict[Group, str] = {}
    for name in (first, second):
        operation = function.find(name).operation
        group = next((group for group in plan.groups if operation in group.members), None)
        if group is None:
            return printable_lines([not_in_a_kernel(name, operation, function)])
        sides.append(group)
        asked[group] = name
    if sides[0] is sides[1]:
        return printable_lines([f"in one kernel: {in_words(sides[0])}"])
    block, other = (side.members[0].block for side in sides)
    assert block is not None
    graph = graph_of(block, plan)
    merged: Group | Refusal = Refusal("fuse.impure_member", "F2", "they stand in different blocks")
    if block is other:
        sides.sort(key=lambda side: graph.number[side.members[-1]])
        merged = hull(sides, "explain", graph)
    refusal = merged if isinstance(merged, Refusal) else legal(merged, context.numerics)
    lines = []
    if refusal is not None:
        rule = rules("F")[refusal.rule].statement.partition(". ")[0].rstrip(".")
        lines.append(f"not in one kernel: {refusal.message}   (rule {refusal.rule}: {rule})")
        remedy, code = CODES[refusal.code].remedy, refusal.code
    else:
        assert isinstance(merged, Group)
        parts = [unit.group for unit in graph.units_of(merged.members) if unit.group is not None]
        merge = Merge(sides[0], sides[1], merged, parts, representative_sizes(function, settings.dims))
        verdict = chosen(merge)
        reason = verdict.reason if isinstance(verdict, Refused) else f"score {verdict:g}"
        lines.append(f"not in one kernel, though it would be legal: policy {chosen.name}: {reason}")
        remedy, code = 'another policy: -p "...,fuse{policy=FILE.py:NAME}", or a plan file', ""
    lines += [f"  %{asked[side]}: kernel {in_words(side)}" for side in sides]
    between = [value for value in sides[0].stored if any(user in set(sides[1].closure) for user in value.users())]
    sizes = representative_sizes(function, settings.dims)
    cost = sum(bytes_at(value, sizes) for value in between)
    shown = at_sizes({symbol.name: size for symbol, size in sizes.items()})
    lines.append(
        f"  costs {format_bytes(2 * cost)} written and read again{shown}"
        if between
        else "  nothing flows between them directly"
    )
    lines += [f"  try: {remedy}"] if remedy else []
    lines += [f"  more: irc explain {code}"] if code else []
    return printable_lines(lines)


def not_in_a_kernel(name: str, operation: Operation | None, function: Function) -> str:
    if operation is None:
        return f"%{name} is an input of @{function.name}: every kernel that needs it reads it"
    if is_free(operation):
        return f"%{name} is a {operation.name}: it costs nothing, and each kernel reads through it"
    group = Group([operation])
    if not isinstance(group.kernel, Exception):
        return f"%{name} = {describe(operation)} is in no kernel"
    refusal = group.kernel
    return f"%{name} = {describe(operation)} is a host call: {refusal.message} (rule {refusal.rule})"
