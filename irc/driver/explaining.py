"""`irc explain`: the history of a value, why two values are in different kernels, or the page of an error code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from irc.cover import owned
from irc.diagnostics import CODES, fail, printable_lines
from irc.dims import Symbol
from irc.driver.choosing import settle
from irc.driver.code_pages import RULES, explain_code, is_code
from irc.driver.counting import describe, in_kernel, is_library, kernel_operations
from irc.driver.explaining_kernels import bundle_line, explain_kernel
from irc.driver.history import History, following
from irc.driver.kernel_sources import line_of, source_of
from irc.driver.models import SUFFIXES, Settings, Source, find_backend, read_pipeline
from irc.driver.printing import at_sizes, format_bytes, shorten
from irc.driver.remarking import explain_remarks
from irc.driver.value_joining import explain_joining
from irc.files import guarded
from irc.group import Group, is_free
from irc.group_graph import GroupGraph, hull
from irc.ir import Block, Function, Operation, Value
from irc.kernel import LegalityFailure, members_of
from irc.legality import legal
from irc.module import Module
from irc.numerics import Numerics
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import Fuse, producers
from irc.pattern import constant_of
from irc.plan import Plan
from irc.planner import Planner
from irc.policy import Merge, Policy, PolicyRejection
from irc.sizes import bytes_at, representative_sizes
from irc.user_files import is_reference

LONGEST_ENTRY = 200  # characters of a suggested plan entry


@guarded()
def explain(source: Source | None, *names: str, pipeline: str | None = None, settings: Settings | None = None,
            nest: bool = False, remarks: bool = False, apply: str | Path | None = None) -> str:  # fmt: skip
    """Explain a code (`explain(None, "type.broadcast")`, also a rule such as F6), one value, a pair of values, or a
    kernel (`@name`), of which `nest` adds the loop nest. `remarks` are the decisions on values, or all; `apply` is a
    plan file in which a pair of values is to be in one kernel (`irc.driver.value_joining`)."""
    settings = Settings.of(settings)
    if source is None and len(names) == 1 and (is_reference(names[0]) or Path(names[0]).suffix.lower() in SUFFIXES):
        source, names = names[0], ()
    if remarks or apply is not None:
        if source is None or (remarks and apply is not None):
            raise fail("usage.arguments", "--remarks and --apply need a model, and exclude one another",
                       help="irc explain MODEL --remarks, or irc explain MODEL %a %b --apply PLAN.json")  # fmt: skip
        if apply is not None:
            return explain_joining(source, names, apply, pipeline, settings)
        return explain_remarks(source, names, pipeline, settings)
    if source is None or (not names and isinstance(source, str) and is_code(source)):
        return explain_code(names[0] if source is None else str(source))
    if not names or len(names) > 2:
        raise fail(
            "usage.arguments", "explain takes a code, or MODEL and one or two values", help="irc explain m.onnx %y"
        )
    if len(names) == 1 and names[0].startswith("@"):
        return explain_kernel(source, names[0].removeprefix("@"), pipeline, settings, nest)
    if any(name.startswith("@") for name in names):
        raise fail("usage.arguments", "a kernel is explained by itself",
                   expected="MODEL @KERNEL, or MODEL %VALUE %VALUE",
                   help=f"irc explain MODEL {next(name for name in names if name.startswith('@'))}")  # fmt: skip
    if nest:
        raise fail("usage.arguments", "--nest applies to a kernel", help="irc explain MODEL @KERNEL --nest")
    values = [name.removeprefix("%") for name in names]
    if len(values) == 1:
        return explain_value(source, values[0], pipeline, settings)
    return explain_pair(source, values[0], values[1], pipeline, settings)


# -- one value -------------------------------------------------------------------------------------------------


def explain_value(source: Source, name: str, pipeline: str | None, settings: Settings) -> str:
    """Where a value comes from, which passes rewrote it, its kernel, and the generated line that computes it."""
    imported = settings.load(source)
    compiled, history = followed(imported, name, pipeline, settings)
    lines = []
    before = imported.main.named(name)
    if before is not None:
        lines += [f"%{name}: {before.type}", f"  imported  {place_of(before)}"]
    after = compiled.main.named(name)
    if before is None and after is None and not history.was_found:
        imported.main.find(name)  # raises: no such value
    if after is not None and after.operation is not None and after.operation.name == "const":
        number = constant_of(after)
        if before is not None and before.operation is not None and before.operation.name != "const":
            constant = "a constant" if number is None else f"the constant {number}"
            lines.append(f"  folded    replaced by {constant} of {after.type}")
    if after is None:
        lines += [f"  removed   {line}" for line in history.lines]
        after = compiled.main.named(history.name)
        if after is not None:
            lines += explain_value_lines(after)
        return printable_lines(lines)
    if before is None:
        lines += [f"%{name}: {after.type}", f"  created   {place_of(after)}"]
    return printable_lines([*lines, *explain_value_lines(after)])


def followed(imported: Module, name: str, pipeline: str | None, settings: Settings) -> tuple[Module, History]:
    """The program with kernels, and the history of a value; a program that has kernels is unchanged unless a pipeline
    is given."""
    module = imported.clone()
    history = History(module, name)
    if pipeline is None and kernel_operations(module):
        return module, history
    context = settings.context("triton")
    passes = read_pipeline(pipeline or find_backend("triton").PIPELINE, context)
    settle(module, passes, context)
    with following([history]) as after:

        def observe(stage: str, current: Module) -> None:
            settings.dump(stage, current)
            after(stage, current)

        PassManager(passes, context, verify_each=settings.verify_each, observe=observe).run(module)
    return module, history


def explain_value_lines(after: Value) -> list[str]:
    """The passes that rewrote a value, its kernel, and the generated line that computes it."""
    lines: list[str] = []
    operation = after.operation
    if operation is None:
        return ["  input     read by " + ", ".join(user.name for user in after.users())]
    kernel = operation if operation.name == "kernel" else operation.parent
    steps = [*operation.location.made_by, *(kernel.location.made_by if kernel is not None else ())]
    lines += [f"  rewritten {step}" for step in dict.fromkeys(steps)]
    if kernel is not None and kernel.name == "kernel":
        name, kind = kernel.attributes["name"], kernel.attributes["kind"]
        lines.append(f"  kernel    @{name} ({kind}): {listed_members(kernel)}")
        lines += bundle_line(kernel)
        lines.append(f"  generated {generated_line(kernel, after)}")
    elif is_free(operation):
        lines.append(f"  view      {operation.name}: kernels read through it, as index arithmetic")
    elif operation.name == "const":
        lines.append("  constant  each kernel that uses it loads it")
    else:
        kind = "library" if is_library(operation) else "control" if operation.regions else "host"
        lines.append(f"  {kind:9} {describe(operation)}")
    return lines


def generated_line(operation: Operation, value: Value) -> str:
    """The line of a kernel's Triton source that stores a result or assigns an inner value."""
    text = source_of(operation)
    if isinstance(text, LegalityFailure):
        return f"no kernel: it runs as host calls, since {text.message}"
    number = line_of(text, operation, value)
    if number is None:
        return "no separate line: it is part of the expression that uses it"
    return text.splitlines()[number].strip()


def place_of(value: Value) -> str:
    if value.operation is None:
        return "an input of the program"
    location = value.operation.location
    return f"{describe(value.operation)} at {location}" if location.known else describe(value.operation)


# -- two values ------------------------------------------------------------------------------------------------


def in_words(group: Group) -> str:
    return f"@{group.name} ({', '.join(member.name for member in group.members)})"


def graph_of(block: Block, plan: Plan) -> GroupGraph:
    """The graph of a block's groups after a plan."""
    graph = GroupGraph(block)
    for group, owned_members in zip(plan.groups, owned(plan.groups), strict=True):
        if group.members[0].block is block:
            graph.merge(group, owned_members)
    return graph


def explain_pair(source: Source, first: str, second: str, pipeline: str | None, settings: Settings) -> str:
    """Why two values are in different kernels: the rule or the policy's reason, the cost, and what to try."""
    context = settings.context("triton")
    module = settings.load(source)
    made_already = pipeline is None and kernel_operations(module)
    passes = [] if made_already else read_pipeline(pipeline or find_backend("triton").PIPELINE, context)
    settle(module, passes, context)
    stop = next((index for index, step in enumerate(passes) if isinstance(step, Fuse)), len(passes))
    histories = [History(module, name) for name in (first, second)]
    with following(histories) as after:
        PassManager(passes[:stop], context, observe=after).run(module)
    gone = [line for history in histories for line in history.lines]
    if any(history.was_found and history.value is None for history in histories):
        return printable_lines(gone)
    ends = [module.main.find(history.name) for history in histories]
    if stop == len(passes) or any(kernel_around(end) is not None for end in ends):
        return printable_lines([*gone, *explain_made(ends)])
    fuse = passes[stop]
    assert isinstance(fuse, Fuse)
    return printable_lines([*gone, *explain_planned(ends, fuse, module, context)])


def explain_planned(ends: Sequence[Value], fuse: Fuse, module: Module, context: PassContext) -> list[str]:
    """`explain_pair` for a module before `fuse`."""
    plan = fuse.plans(module, context)[list(module.functions.values()).index(module.main)]
    sides: list[Group] = []
    names: dict[Group, str] = {}
    for end in ends:
        group = next((group for group in plan.groups if end.operation in group.members), None)
        if group is None:
            return [not_in_a_kernel(end.name, end.operation, module.main)]
        sides.append(group)
        names[group] = end.name
    if sides[0] is sides[1]:
        return [f"in one kernel: {in_words(sides[0])}"]
    sizes = representative_sizes(module.main, context.sizes)
    head, advice = explain_apart(sides, plan, fuse.chosen(), context.numerics, sizes)
    lines = [head, *(f"  %{names[side]}: kernel {in_words(side)}" for side in sides)]
    between = [value for value in sides[0].stored if any(user in set(sides[1].closure) for user in value.users())]
    cost = sum(bytes_at(value, sizes) for value in between)
    shown = at_sizes({symbol.name: size for symbol, size in sizes.items()})
    lines.append(
        f"  costs {format_bytes(2 * cost)}, written and read again{shown}"
        if between
        else "  nothing flows between them directly"
    )
    return [*lines, *advice]


def explain_apart(sides: list[Group], plan: Plan, chosen: Policy | Planner, numerics: Numerics,
                  sizes: dict[Symbol, int]) -> tuple[str, list[str]]:  # fmt: skip
    """Why two groups of a plan are not one, and what to try; `sides` is sorted in the order of the block."""
    block, other = (side.members[0].block for side in sides)
    assert block is not None
    graph = graph_of(block, plan)
    merged: Group | LegalityFailure = LegalityFailure("F2", "they are in different blocks")
    if block is other:
        sides.sort(key=lambda side: graph.number[side.members[-1]])
        merged = hull(sides, "explain", graph)
    failure = merged if isinstance(merged, LegalityFailure) else legal(merged, numerics)
    if failure is not None:
        rule = RULES[failure.rule].statement.partition(". ")[0].rstrip(".")
        remedy = CODES[failure.code].remedy
        if isinstance(merged, LegalityFailure):
            remedy = "no plan can merge them: an operation between them is in no kernel" if block is other else (
                     "no plan can merge them: a kernel is in one block")  # fmt: skip
        return (f"not in one kernel: {failure.message}   (rule {failure.rule}: {rule[0].lower()}{rule[1:]})",
                [f"  try: {remedy}", f"  more: irc explain {failure.code}"])  # fmt: skip
    assert isinstance(merged, Group)
    entry = json.dumps({"members": [member.results[0].name for member in merged.members]})
    by_plan = f"a plan file with the entry {shorten(entry, LONGEST_ENTRY)}"
    if isinstance(chosen, Planner):
        return (f"not in one kernel, though it would be legal: the planner {chosen.name} chose other kernels",
                [f"  try: {by_plan}"])  # fmt: skip
    groups = {member: group for group in plan.groups for member in group.members}
    apart = next(((one, two) for two in chain_between(sides, graph) for one in producers(two, groups)
                  if one in chain_between(sides, graph)), None)  # fmt: skip
    if apart is None:
        return ("not in one kernel, though it would be legal: neither reads what the other computes, and the policy "
                f"{chosen.name} is called only for a producer and its consumer", [f"  try: {by_plan}"])  # fmt: skip
    if set(apart) != set(sides):
        reason = reason_of(apart, plan)
        return (f"not in one kernel, though it would be legal: @{apart[0].name} and @{apart[1].name}, on a path "
                f"between them, are not merged: {reason}", [f"  try: {by_plan}"])  # fmt: skip
    parts = [unit.group for unit in graph.units_of(merged.members) if unit.group is not None]
    verdict = chosen(Merge(sides[0], sides[1], merged, parts, sizes))
    if isinstance(verdict, PolicyRejection):
        reason = verdict.reason
    else:
        reason = f"its score is {verdict:g}, and only scores above 0 are merged"
    return (f"not in one kernel, though it would be legal: policy {chosen.name}: {reason}",
            [f'  try: another policy: -p "...,fuse{{policy=FILE.py:NAME}}", or {by_plan}'])  # fmt: skip


def chain_between(sides: list[Group], graph: GroupGraph) -> list[Group]:
    """The two groups and those on paths from one to the other, in order."""
    units = graph.units_of(side.members[0] for side in sides)
    units = sorted([*units, *graph.between(units)], key=lambda unit: unit.place)
    return [unit.group for unit in units if unit.group is not None]


def reason_of(pair: tuple[Group, Group], plan: Plan) -> str:
    """The planner's last decision on a producer and its consumer."""
    for decision in plan.decisions:
        if (decision.producer, decision.consumer) == (pair[0].name, pair[1].name):
            return decision.reason + (f" (rule {decision.rule})" if decision.rule else "")
    return "the policy was not called for them"


def kernel_around(value: Value) -> Operation | None:
    """The kernel of which a value is a result, or in which it is computed."""
    operation = value.operation
    if operation is None or operation.name == "kernel":
        return operation
    return operation.parent if in_kernel(operation) else None


def explain_made(ends: list[Value]) -> list[str]:
    """`explain_pair` where another pass than fuse, or the program itself, has created the kernels."""
    kernels = [kernel_around(end) for end in ends]
    for end, kernel in zip(ends, kernels, strict=True):
        if kernel is None and (end.operation is None or is_free(end.operation)):
            return [not_in_a_kernel(end.name, end.operation, None)]
        if kernel is None:
            return [f"%{end.name} = {describe(end.operation)} is in no kernel" if end.operation else end.name]
    pairs = zip(ends, kernels, strict=True)
    described = [f"%{end.name}: {_made(kernel)}" for end, kernel in pairs if kernel is not None]
    if kernels[0] is kernels[1]:
        return [f"in one kernel: {described[0].partition(': ')[2]}"]
    return ["not in one kernel: these kernels exist before the pass `fuse`, which does not change them",
            *(f"  {line}" for line in described), "  try: a pipeline with fuse instead"]  # fmt: skip


def _made(kernel: Operation) -> str:
    by = f", made by {kernel.location.made_by[-1]}" if kernel.location.made_by else ""
    return f"kernel @{kernel.attributes['name']} ({listed_members(kernel)}){by}"


def listed_members(kernel: Operation) -> str:
    return ", ".join(inner.name for inner in members_of(kernel) if inner.name != "const")


def not_in_a_kernel(name: str, operation: Operation | None, function: Function | None) -> str:
    if operation is None:
        return f"%{name} is an input{f' of @{function.name}' if function else ''}: each kernel that uses it loads it"
    if is_free(operation):
        return f"%{name} is a {operation.name}, a view: each kernel reads through it, as index arithmetic"
    group = Group([operation])
    if not isinstance(group.kernel, Exception):
        return f"%{name} = {describe(operation)} is in no kernel"
    failure = group.kernel
    if operation.name == "const":
        return f"%{name} is a constant: each kernel that uses it loads it"
    kind = "a library call" if is_library(operation) else "control flow" if operation.regions else "a host operation"
    return f"%{name} = {describe(operation)} is {kind}: {failure.message} (rule {failure.rule})"
