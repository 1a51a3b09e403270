"""What commands have for ONNX Runtime on a machine's CPU: options of `irc compile`, and `irc calibrate`. `main` adds
the command to the group of all commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.options import JSON
from irc.cli.output import inform, show, show_json
from irc.cli.reporting import reporting
from irc.diagnostics import counted

OPTIONS = (
    click.option("--tune", is_flag=True,
                 help="ONNX only: time the model with and without rewrites, take the fastest."),
    click.option("--tune-seconds", type=float, metavar="SECONDS", help="How long to time.  [default: 60]"),
    click.option("--quantize", metavar="weights=int8|int4", shell_complete=completion.quantizations,
                 help="ONNX only: store weights of products in fewer bits, and state the error."),
    click.option("--calibration", multiple=True, metavar="IN.npz", shell_complete=completion.files,
                 help="Inputs for --quantize and --tune, as of irc run.  [default: random]"),
    click.option("--session-advice", is_flag=True,
                 help="ONNX only: write NAME.session.json with options for a session."),
)  # fmt: skip


def onnx_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator that adds OPTIONS; `read_options` takes their values."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def read_options(options: dict[str, Any], progress: Callable[[str], None]) -> Any:
    """The OnnxOptions of a command's options, which are taken out of them; None where none is given."""
    from irc.driver.onnx_models import SECONDS, OnnxOptions

    seconds = options.pop("tune_seconds")
    given = {"tune": options.pop("tune"), "quantize": options.pop("quantize"),
             "calibration": options.pop("calibration"), "advice": options.pop("session_advice")}  # fmt: skip
    if seconds is None and not any(given.values()):
        return None
    return OnnxOptions(**given, seconds=SECONDS if seconds is None else seconds, progress=progress)


def show_onnx(report: Any) -> None:
    """Print what was tuned, quantized and advised."""
    if report.tuned is not None:
        show_tuned(report.tuned)
    if report.quantized is not None:
        show_quantized(report.quantized)
    if report.session_advice:
        inform(f"wrote {report.session_advice}   options for a session: irc.session_options")


def show_tuned(tuned: Any) -> None:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in tuned.sizes.items())
    show(f"tuned: {tuned.rounds} rounds, {tuned.label}, {shapes}; noise {100 * tuned.noise:.1f}%")
    width = max(map(len, tuned.candidates))
    for name, each in tuned.candidates.items():
        mark = "   <- taken" if name == tuned.chosen else ""
        nodes = f"   {counted(each.nodes, 'node')}" if each.nodes else ""
        spread = f"quartiles {each.low:.3f} to {each.high:.3f}"
        show(f"  {name:{width}}  input / this {each.ratio:.3f} ({spread}){nodes}{mark}")
    for name, reason in tuned.without.items():
        show(f"  {name} was not timed: {reason}")


def show_quantized(quantized: Any) -> None:
    from irc.driver.printing import format_bytes

    before, after = map(format_bytes, (quantized.bytes_before, quantized.bytes_after))
    show(f"quantized: {counted(quantized.weights, 'weight')} in {quantized.bits} bits, {before} to {after}")
    for name, error in quantized.errors.items():
        show(f"  {name}: error {error:.1e}, max|a - b| / max|b| on {', '.join(quantized.data)}")


@click.command(cls=Command, short_help="Time ONNX Runtime's kernels on this machine.")
@click.option("-o", "--output", required=True, metavar="FILE.json", shell_complete=completion.files,
              help="The cost table to write.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="NAME", shell_complete=completion.kernel_kinds,
              help="Measure this kind of kernel, such as Softmax; others keep the default's times.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True,
              help="Measure so many times and take the least, where the machine has other work.")  # fmt: skip
@JSON
def calibrate(output: str, kinds: tuple[str, ...], runs: int, as_json: bool) -> None:
    """Time ONNX Runtime's kernels on this machine's CPU and write a cost table, for --costs.

    Kinds of kernels are measured at a grid of sizes, on one thread, in CPU time; that takes one to two minutes.
    Rewrites for --target cpu are applied where they pay by the table, at the shapes of the model.
    """
    from irc.driver import calibrate as calibrate_kernels
    from irc.files import check_output, guarded

    with guarded():
        check_output(Path(output))
        report = calibrate_kernels(output, kinds=kinds, runs=runs, progress=reporting().show_progress)
    if as_json:
        show_json(report)
        return
    kinds_in_words = counted(report.kinds, "kind")
    inform(f"wrote {report.output}   {kinds_in_words} of kernels at {counted(report.points, 'size')}, {report.machine}")
    for name, message in report.failures.items():
        show(f"  {name} is left out: {message.splitlines()[0]}")


COMMANDS: tuple[click.Command, ...] = (calibrate,)
