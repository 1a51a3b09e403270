"""`irc explain MODEL @KERNEL`: what a kernel computes and moves, and with `--nest` its loop nest."""

from __future__ import annotations

from irc.diagnostics import did_you_mean, fail, printable_lines
from irc.driver.counting import computing_members, describe, kernel_operations
from irc.driver.kernel_listing import with_kernels
from irc.driver.models import Settings, Source, find_backend
from irc.driver.printing import format_bytes
from irc.ir import Operation
from irc.kernel import LegalityFailure, count, kernel_of
from irc.kernel.bundles import bundles_by_kernel
from irc.kernel.nest_text import nest_text
from irc.module import Module
from irc.sizes import representative_sizes

MOST_LISTED = 8  # kernels in an error


def explain_kernel(source: Source, name: str, pipeline: str | None, settings: Settings, nest: bool) -> str:
    """The members, memory traffic and schedule of a kernel, which its name in the program states, without the @; raises
    `usage.arguments` for a name that no kernel has."""
    find_backend("triton")
    module = with_kernels(settings.load(source), pipeline, settings)
    operation = find_kernel(module, name)
    members = ", ".join(map(describe, computing_members(operation)))
    lines = [f"@{name} computes {', '.join(f'%{result.name}' for result in operation.results)}: {members}"]
    lines.append(f"  created   {operation.location}")
    try:
        kernel = kernel_of(operation)
    except LegalityFailure as failure:
        if failure.rule == "F15":
            raise failure.error(operation.location) from None
        reason = f"{failure.message} (rule {failure.rule})"
        return printable_lines([*lines, f"  no kernel: it runs as host calls, since {reason}"])
    cost = count(kernel, representative_sizes(module.main, settings.dims))
    moved = f"{format_bytes(cost.distinct_bytes)} distinct, {format_bytes(cost.loaded_bytes)} loaded"
    lines.append(f"  moves     {moved}, in {cost.programs} programs")
    stated = [f"{option} = {value}" for option, value in kernel.options.stated.items()]
    lines.append(f"  schedule  {', '.join(stated) if stated else 'chosen by rules'}")
    lines += bundle_line(operation)
    if nest:
        block = operation.regions[0].block
        inner, outer = (*block.arguments, *block.terminator.inputs), (*operation.inputs, *operation.results)
        lines += nest_text(kernel, name, {one.name: other.name for one, other in zip(inner, outer, strict=True)})
    return printable_lines(lines)


def bundle_line(operation: Operation) -> list[str]:
    """The line that names the other kernels in the launch of a kernel; none where it is launched by itself."""
    assert operation.block is not None
    members = bundles_by_kernel(operation.block).get(operation, [])
    others = [f"@{each.attributes['name']}" for each in members if each is not operation]
    return [f"  bundle    launched together with {', '.join(others)}"] if others else []


def find_kernel(module: Module, name: str) -> Operation:
    """The kernel of this name."""
    kernels = {operation.attributes["name"]: operation for operation in kernel_operations(module)}
    if name not in kernels:
        if not kernels:
            raise fail("usage.arguments", f"the program has no kernel @{name}, and no other",
                       help="the pass fuse makes kernels: leave out -p for a pipeline that has it")  # fmt: skip
        names = [f"@{each}" for each in kernels]
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        raise fail("usage.arguments", f"the program has no kernel @{name}",
                   expected=f"one of: {', '.join(names[:MOST_LISTED])}{more}",
                   help=did_you_mean(f"@{name}", names, "irc kernels MODEL lists them"))  # fmt: skip
    return kernels[name]
