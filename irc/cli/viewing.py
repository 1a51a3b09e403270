"""The command that writes pages to look at: view. `main` adds it to the group of all commands."""

from __future__ import annotations

from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.options import INPUT, JSON, MODEL, SEED, common, read_pipelines, writes
from irc.cli.output import inform, show_json
from irc.diagnostics import counted, fail


def named_pipelines(_context: Any, _parameter: Any, values: tuple[str, ...]) -> dict[str, str]:
    """One pipeline, with or without a name, or two with names."""
    if len(values) > 2:
        raise fail("usage.arguments", f"irc view shows one or two pipelines, not {len(values)}",
                   help="irc experiment compares any number of them")  # fmt: skip
    name, equals, _ = values[0].partition("=") if len(values) == 1 else ("", "=", "")
    if values and not (equals and name.replace("-", "_").isidentifier()) and len(values) == 1:
        return {"pipeline": values[0]}
    return read_pipelines(values)


@click.command(cls=Command, short_help="Write a page with MODEL's graph after each pass.")
@MODEL
@click.option("-p", "--pipeline", "pipelines", multiple=True, metavar="[NAME=]PASSES", callback=named_pipelines,
              shell_complete=completion.pass_names,
              help="Passes to run; two with names are shown side by side.  [default: default]")  # fmt: skip
@click.option("-o", "--output", metavar="FILE.html", shell_complete=completion.files,
              help="The page to write.  [default: named after MODEL]")  # fmt: skip
@click.option("--check", is_flag=True, help="Run each stage, to color values by their error against f64.")
@INPUT
@SEED
@JSON
@common
@writes
def view(model: str, pipelines: dict[str, str], as_json: bool, **options: Any) -> None:
    """Write one HTML page that shows MODEL's graph as imported, after each pass, and after each merge of fusion.

    A slider goes through the stages; kernels are frames, edges are as wide as their bytes, and colors show kinds of
    operations, estimated time, bytes or, with --check, errors. A click on an operation shows its IR, its line of the
    source, the lines of Triton that compute it, and the schedule of its kernel. The page loads nothing: it works
    offline.
    """
    from irc.driver import view as view_model
    from irc.driver.printing import format_bytes

    report = view_model(model, pipelines, **options)
    if as_json:
        show_json(report)
        return
    stages = sum(map(len, report.stages.values()))
    operations = counted(report.operations, "operation")
    inform(f"wrote {report.output}   {counted(stages, 'stage')}, {operations}, {format_bytes(report.bytes)}")


COMMANDS = (view,)
