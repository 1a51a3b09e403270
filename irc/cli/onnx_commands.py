"""The commands about ONNX Runtime on a machine's CPU. `main` adds them to the group of all commands."""

from __future__ import annotations

from pathlib import Path

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.options import JSON
from irc.cli.output import progress_on_terminal, show, show_json
from irc.diagnostics import counted


@click.command(cls=Command, short_help="Time ONNX Runtime's kernels on this machine.")
@click.option("-o", "--output", required=True, metavar="FILE.json", shell_complete=completion.files,
              help="The cost table to write.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="NAME",
              help="Measure this kind of kernel, such as Gemm, and leave others at the default's times.")  # fmt: skip
@JSON
def calibrate(output: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Time ONNX Runtime's kernels on this machine's CPU and write a cost table, for --costs.

    Kinds of kernels are measured at a grid of sizes, on one thread, in CPU time; that takes about a minute. Rewrites
    for --target cpu are applied where they pay by the table, at the shapes of the model.
    """
    from irc.driver import calibrate as calibrate_kernels
    from irc.files import check_output, guarded

    with guarded():
        check_output(Path(output))
        with progress_on_terminal() as progress:
            report = calibrate_kernels(output, kinds=kinds, progress=progress)
    if as_json:
        show_json(report)
        return
    kinds_in_words = counted(report.kinds, "kind")
    show(f"wrote {report.output}   {kinds_in_words} of kernels at {counted(report.points, 'size')}, {report.machine}")
    for name, message in report.failures.items():
        show(f"  {name} is left out: {message.splitlines()[0]}")


COMMANDS: tuple[click.Command, ...] = (calibrate,)
