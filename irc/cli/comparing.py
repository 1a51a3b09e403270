"""The command that compares pipelines: experiment. `main` adds it to the group of all commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.experiment_output import show_experiment
from irc.cli.options import INPUT, JSON, SEED, common_with_sweeps, read_pipelines, writes
from irc.cli.output import inform, show_json
from irc.cli.reporting import reporting
from irc.diagnostics import Exit


@click.command(cls=Command, short_help="Compare pipelines on MODELS by launches, bytes, flops.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=completion.files)
@click.option("-p", "--pipeline", "pipelines", multiple=True, metavar="NAME=PASSES", required=True,
              shell_complete=completion.named_pipelines,
              callback=lambda context, parameter, values: read_pipelines(values),
              help="A pipeline and its name in the table. Plans are compared with the first one's.")  # fmt: skip
@click.option("--base", default="eager", show_default=True, metavar="NAME", shell_complete=completion.bases,
              help="The pipeline that geometric means are relative to: eager, none, or one of -p.")  # fmt: skip
@click.option("--error/--no-error", "with_error", default=True, show_default=True,
              help="Compute the models, and their errors against f64.")  # fmt: skip
@click.option("--cache", metavar="DIR", shell_complete=completion.folders,
              help="A folder that keeps measurements: an interrupted command, given again, continues.")  # fmt: skip
@click.option("--cost", metavar="FILE.py:NAME", shell_complete=completion.files,
              help="A function with @cost: its time in a column beside the estimate.")  # fmt: skip
@click.option("--html", metavar="FILE.html", shell_complete=completion.files, help="Write a page with plots.")
@click.option("--csv", metavar="FILE.csv", shell_complete=completion.files, help="Write the rows as CSV.")
@click.option("--parquet", metavar="FILE.parquet", shell_complete=completion.files,
              help="Write the rows as Parquet; this needs pyarrow.")  # fmt: skip
@INPUT
@SEED
@JSON
@common_with_sweeps
@writes
def experiment(models: tuple[str, ...], as_json: bool, html: str | None, csv: str | None, parquet: str | None,
               **options: Any) -> None:  # fmt: skip
    """Compare pipelines on MODELS at sizes: launches, traffic, flops, programs, compile time, error and fusion plans.

    Launches, calls and bytes are counted from the emitted program. The time is an estimate from the roofline of
    --device, not a measurement. The pipeline eager is a kernel or library call for each operation, as PyTorch runs a
    model without a compiler. Below the table: how each plan differs from the first pipeline's. Several sizes of --dim
    are rows of their own, in all combinations; geometric means of all rows follow.
    """
    from irc.driver import experiment as run_experiment
    from irc.files import replacing

    if parquet is not None:
        from irc.driver.experiment_report import parquet_packages

        parquet_packages()
    report = run_experiment(models, options.pop("pipelines"), progress=reporting().show_progress, **options)
    if html is not None:
        from irc.driver.experiment_page import page

    contents = ((html, lambda: page(report).encode()), (csv, report.csv), (parquet, report.parquet))
    for name, content in contents:
        if name is not None:
            data = content()
            with replacing(Path(name)) as file:
                file.write(data)
    if as_json:
        show_json(report)
    else:
        show_experiment(report)
        inform(*(f"wrote {name}" for name, _ in contents if name is not None))
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


COMMANDS: tuple[click.Command, ...] = (experiment,)
