"""The command plan: writes fusion plans, edits them, and compares two. `main` adds it to the group of all commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.options import JSON, common, pipeline_option, recording, writes
from irc.cli.output import inform, show, show_json, show_page
from irc.diagnostics import counted, did_you_mean, fail

EDITS = {
    "merge": ("A,B,...", "One kernel of these entries and values."),
    "split": ("A[:%B,...|:N]", "A kernel for each member; for these members and for the rest; or N parts."),
    "duplicate": ("H[:A,...]", "Compute this value in each entry that reads it, or in these."),
    "schedule": ("A:OPTIONS", "Options of a schedule, such as n=512,warps=8 or blocks=64x128; rules for none."),
    "library": ("P", "Let a library compute the products of this entry, or this product."),
    "kernel": ("P", "Let a kernel of its own compute this product, which a library computes."),
    "join": ("P,Q,...", "One product of these products of one value."),
    "apart": ("P", "Products that are joined with this one by themselves."),
}


class PlanCommand(Command):
    """A command whose edits keep the order in which they are given."""

    def note_order(self, context: click.Context, values: Mapping[str, Any], order: list[click.Parameter]) -> None:
        texts = {name: iter(values.get(name, ())) for name in EDITS}
        context.meta["edits"] = list(self.in_order(order, texts))

    @staticmethod
    def in_order(order: list[click.Parameter], values: dict[str, Iterator[str]]) -> Iterator[tuple[str, str]]:
        for option in order:
            if option.name in values:
                yield option.name, next(values[option.name])


def edit_options(function: Any) -> Any:
    for name, (form, help) in reversed(EDITS.items()):
        function = click.option(f"--{name}", multiple=True, metavar=form, help=f"With edit: {help}",
                                shell_complete=completion.plan_entries)(function)  # fmt: skip
    return function


@click.command(cls=PlanCommand, short_help="Write, edit or compare fusion plans.")
@click.argument("names", nargs=-1, required=True, metavar="MODEL | edit PLAN [MODEL] | diff PLAN PLAN [MODEL]",
                shell_complete=completion.plan_names)  # fmt: skip
@click.option("-o", "--output", metavar="PLAN.json", shell_complete=completion.files,
              help="The file to write.  [default: standard output; with edit, the plan that is edited]")  # fmt: skip
@edit_options
@pipeline_option("Passes that plan.  [default: the Triton backend's pipeline; of a plan file, its own]")
@JSON
@common
@recording
@writes
def plan(names: tuple[str, ...], output: str | None, pipeline: str | None, as_json: bool, settings: Any,
         **_edits: Any) -> None:  # fmt: skip
    """Write the fusion plan of MODEL: which operations share a kernel, their schedules, and what computes products.

    A plan is JSON, and replayed by a pipeline such as "default{fuse.plan=PLAN.json}". `irc doc plans` describes the
    file.

    plan edit changes a plan by the options below, in order, and prints what each edit changes and costs. An edit that
    breaks a legality rule is an error that names the rule, and nothing is written. Entries are named as in the plan
    file; a value (%h) stands for the entry that it is a member of.

    plan diff lists what differs between two plans and, with a MODEL, what both cost.
    """
    edits = click.get_current_context().meta["edits"]
    verb, *rest = names if names[0] in ("edit", "diff") else ("write", *names)
    least, most = {"write": (1, 1), "edit": (1, 2), "diff": (2, 3)}[verb]
    if not least <= len(rest) <= most:
        called = "plan" if verb == "write" else f"plan {verb}"
        similar = did_you_mean(names[0], ("edit", "diff")) if verb == "write" else None
        raise fail("usage.arguments", f"{called} takes {FORMS[verb]}, not {counted(len(rest), 'name')}",
                   help=similar or "irc plan --help")  # fmt: skip
    if edits and verb != "edit":
        raise fail("usage.arguments", f"--{edits[0][0]} is an edit", help="irc plan edit PLAN --merge A,B")
    if verb != "write" and settings.remarks is not None:
        raise fail("usage.arguments", "--remarks is on decisions for a new plan", help="irc plan MODEL --remarks FILE")
    if verb == "diff" and output is not None:
        raise fail("usage.arguments", "-o does not apply to plan diff", help="leave it out")
    VERBS[verb](rest, edits, output, pipeline, as_json, settings)


def write_plan(names: list[str], _edits: Any, output: str | None, pipeline: str | None, as_json: bool,
               settings: Any) -> None:  # fmt: skip
    from irc.driver import make_plan

    report = make_plan(names[0], output, pipeline=pipeline, settings=settings)
    if as_json:
        show_json(report)
    elif output is None:
        show_page(report.plan.rstrip())
    else:
        inform(f"wrote {output}   {counted(report.kernels, 'kernel')}; {figures(report.cost)}")
        show(counted_at(report, report.cost))


def edit_plan(names: list[str], edits: list[tuple[str, str]], output: str | None, pipeline: str | None, as_json: bool,
              settings: Any) -> None:  # fmt: skip
    from irc.driver import edit_plan as edit

    if not edits:
        raise fail("usage.arguments", "plan edit needs an edit", expected=", ".join(f"--{name}" for name in EDITS))
    report = edit(names[0], edits, *names[1:], output=output, pipeline=pipeline, settings=settings)
    if as_json:
        show_json(report)
        return
    for step in report.steps:
        show(f"{step.edit}: legal")
        for change in step.changes or ("it changes nothing",):
            show(f"  {change}")
        show(f"  {changed_figures(step.before, step.after)}")
    inform(f"wrote {report.output}; {counted_at(report, report.steps[-1].after)}")


def show_difference(names: list[str], _edits: Any, _output: Any, pipeline: str | None, as_json: bool,
                    settings: Any) -> None:  # fmt: skip
    from irc.driver import compare_plans

    report = compare_plans(*names, pipeline=pipeline, settings=settings)
    if as_json:
        show_json(report)
        return
    for difference in report.differences:
        show(str(difference))
    if report.before is not None:
        show(changed_figures(report.before, report.after))
        show(counted_at(report, report.after))


COMMANDS = (plan,)
FORMS = {"write": "one MODEL", "edit": "a PLAN and at most one MODEL", "diff": "two plans and at most one MODEL"}
VERBS = {"write": write_plan, "edit": edit_plan, "diff": show_difference}


def figures(cost: Any) -> str:
    """`launches 4, library calls 7, ...`."""
    return ", ".join(f"{name} {text}" for name, text in texts(cost).items())


def changed_figures(before: Any, after: Any) -> str:
    """`launches 4 -> 3, library calls 7, ...`: the figures of two plans, those that are equal once."""
    new = texts(after)
    return ", ".join(f"{name} {text}" + ("" if text == new[name] else f" -> {new[name]}")
                     for name, text in texts(before).items())  # fmt: skip


def texts(cost: Any) -> dict[str, str]:
    """The figures of a plan as texts, by name."""
    from irc.driver.printing import format_bytes

    counts = {"launches": cost.launches, "library calls": cost.library_calls, "host operations": cost.host_operations}
    return {**{name: str(number) for name, number in counts.items()}, "traffic": format_bytes(cost.distinct_bytes),
            "time": f"{1e6 * cost.seconds:.2f} us"}  # fmt: skip


def counted_at(report: Any, cost: Any) -> str:
    """`counted at B=64; times are estimates for h100`."""
    from irc.driver.printing import at_sizes

    return f"{cost.label}{at_sizes(report.sizes)}; times are estimates for {report.device}, not measured"
