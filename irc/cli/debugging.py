"""The commands that find what is wrong, or what takes time: check, diff, extract, reduce, profile. `main` adds them to
the group of all commands."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import Command
from irc.cli.options import BACKEND, INPUT, JSON, MODEL, SEED, common, pipeline_option, writes, writes_folder
from irc.cli.output import inform, show, show_check, show_diff, show_json, show_page, show_profile
from irc.cli.reporting import reporting
from irc.diagnostics import Exit, counted, fail


@click.command(cls=Command, short_help="Compare MODEL's stages with f64, or test rewrite rules.")
@MODEL
@click.argument("against", nargs=-1, shell_complete=completion.files)
@INPUT
@click.option("--backend", type=BACKEND, help="Also compare what the compiled program computes.")
@pipeline_option("Passes to check.  [default: the backend's pipeline]")
@click.option("--each", is_flag=True,
              help="Compare after every pass; name the pass and operation where values first differ.")  # fmt: skip
@click.option("--layers", is_flag=True,
              help="Compare each operation with the original model's value, on the same operands.")  # fmt: skip
@click.option("--blame", is_flag=True,
              help="Judge each operation, pass and kernel alone, on operands of a reference run.")  # fmt: skip
@click.option("--why-tolerance", multiple=True, metavar="%VALUE", shell_complete=completion.values,
              help="Print how the tolerance of a value is derived.")
@SEED
@JSON
@common
def check(model: str, against: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare MODEL with an evaluation in f64: the original model, the IR after passes, the compiled program.

    Errors are max|a - b| / max|b| for each output. The exit status is 1 where one exceeds what the element type, the
    reduced sizes and the numerics class allow.

    With --blame each operation, pass and kernel is judged alone, on operands of a reference run, so that what is at
    fault is named and not what it infects.

    AGAINST is a second model, such as the .pt2 of an .onnx: its results, in its own framework, are compared with those
    of MODEL.

    Where MODEL is a file of rewrite rules (RULES.py), each rule is tested on programs generated from its pattern, and
    each guard on programs that violate it; AGAINST are models in which to look for matches.
    """
    if model.endswith(".py"):
        check_rule_file(model, against, options, as_json)
        return
    if len(against) > 1:
        raise fail("usage.arguments", f"check compares a model with one other, and {against[1]} is a third",
                   help="give several models only after a file of rewrite rules")  # fmt: skip
    from irc.driver import check as check_model

    report = check_model(model, options.pop("inputs"), against=against[0] if against else None, **options)
    if as_json:
        show_json(report)
    else:
        show_check(report)
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


@click.command(cls=Command, short_help="Say whether two models mean the same.")
@click.argument("first", shell_complete=completion.files)
@click.argument("second", shell_complete=completion.files)
@INPUT
@click.option("-o", "--output", metavar="OUT.npz", shell_complete=completion.files,
              help="Write an input for which they differ to this file.")  # fmt: skip
@click.option("--tries", type=click.IntRange(min=0), default=24, show_default=True, help="How many inputs to try.")
@click.option("--originals", is_flag=True,
              help="Run ONNX files by ONNX Runtime and PyTorch programs by PyTorch, without rules.")  # fmt: skip
@click.option("--finite", is_flag=True, help="Try no NaN, infinities or numbers near the ends of their types.")
@SEED
@JSON
@common
@writes
def diff(first: str, second: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Say whether two models mean the same: by rules where these show it, else by a search for an input for which they
    differ.

    One of the two may be a folder that irc compile --backend triton has written, which is run.

    Inputs and outputs are matched by name where both models have the same names, else by position. Results may differ
    by rounding, as --numerics says; with exact, not at all. The exit status is 0 where the models are equal by rules,
    and where no difference was found; it is 1 where they differ.
    """
    from irc.driver import diff as diff_models

    report = diff_models(first, second, inputs, **options)
    if as_json:
        show_json(report)
    else:
        show_diff(report)
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


@click.command(cls=Command, short_help="Write the operations between two values as a program.")
@MODEL
@click.option("--from", "start", multiple=True, metavar="%VALUE", shell_complete=completion.values,
              help="A first value.  [default: the inputs]")
@click.option("--to", "stop", multiple=True, metavar="%VALUE", shell_complete=completion.values,
              help="A last value; at least one is required.")
@click.option("-o", "--output", metavar="FILE.irc", default="extract.irc", show_default=True,
              shell_complete=completion.files, help="The file to write, with an .npz file beside it.")  # fmt: skip
@INPUT
@pipeline_option("Passes to run first.")
@click.option("--after", metavar="PASS", help="Extract from the IR after this pass.",
              shell_complete=completion.pass_names)  # fmt: skip
@SEED
@JSON
@common
@writes
def extract(
    model: str, start: tuple[str, ...], stop: tuple[str, ...], output: str, inputs: str | None, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Write the operations between values of MODEL as a program, with the arrays that these had in a run.

    The program has the operations from --from to --to. Other values that these read become inputs; weights are
    copied. The .npz file beside it has the inputs' arrays of a run of MODEL on random or given inputs; inside a loop,
    those of the last iteration.
    """
    from irc.driver import extract as extract_part

    report = extract_part(model, start, stop, output, inputs, **options)
    if as_json:
        show_json(report)
        return
    inform(f"wrote {report.program}   {counted(report.operations, 'op')}, and its inputs to {report.arrays}")
    words = ["irc", "run", report.program, "--input", report.arrays]
    inform(f"run it: {shlex.join([*words, *(word for path in report.loads for word in ('--load', path))])}")


@click.command(cls=Command, short_help="Find a minimal part of MODEL that fails a check.")
@MODEL
@click.option("-o", "--output", metavar="DIR", default="reduced", show_default=True,
              shell_complete=completion.folders, help="The folder to write.")  # fmt: skip
@click.option("--keep", multiple=True, metavar="PROPERTY", shell_complete=completion.properties,
              help="Keep a property rather than the failure of a check, such as launches>=3.")  # fmt: skip
@INPUT
@click.option("--backend", type=BACKEND, help="Also check what the compiled program computes.")
@pipeline_option("Passes to check.  [default: the backend's pipeline]")
@SEED
@click.option("--seconds", default=600.0, show_default=True,
              help="Stop the search after this time, with the smallest program found.")  # fmt: skip
@JSON
@common
@writes_folder
def reduce(model: str, output: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Find a minimal part of MODEL on which `irc check --each` fails as it does on the whole.

    A part fails in the same way if the same stage fails, first at the same kind of operation, or with the same error.
    The folder gets the program, its inputs and the command that shows the failure. Ctrl-C ends the search with the
    smallest program found.

    \b
    With --keep the part has a property, or all of several, of the program that -p compiles:
      launches>=3       a figure of irc kernels, compared: launches, library_calls, host_operations,
                        bytes, loaded, flops; by >=, <=, =, > or <
      slower-than=eager   the estimated time is above another pipeline's; slower-than=1.5:eager
      refused:F10       fusion considers a merge that the rule forbids
      error, error:CODE, differs   how the check fails
    """
    from irc.driver import reduce as reduce_model

    report = reduce_model(model, output, inputs, progress=reporting().show_progress, **options)
    if as_json:
        show_json(report)
        return
    stopped = "" if report.finished else ", stopped before its end"
    sizes = f"{counted(report.before, 'op')} -> {counted(report.after, 'op')}"
    show(f"{sizes}, {report.failure}   ({report.checks} checks{stopped})")
    inform("  ".join(report.files))


@click.command(cls=Command, short_help="Measure where MODEL, compiled, spends its time.")
@MODEL
@INPUT
@click.option("--backend", type=BACKEND, default="onnx", show_default=True,
              help="What to run: the ONNX model on the CPU, or Triton kernels on a GPU.")  # fmt: skip
@pipeline_option("Passes to run.  [default: the backend's pipeline]")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs count.")
@click.option("--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="How many runs before do not.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of ONNX Runtime.")
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True,
              help="How many values to list.")  # fmt: skip
@click.option("--html", metavar="FILE.html", shell_complete=completion.files,
              help="Write a page with the graph, colored by time.")  # fmt: skip
@SEED
@JSON
@common
@writes
def profile(model: str, inputs: str | None, number: int, as_json: bool, html: str | None, **options: Any) -> None:
    """Compile MODEL, run it, and list what takes its time: by kind of operation, and by value of the IR with the line
    of the source that it is from.

    ONNX Runtime's profiler measures the nodes, on this machine's CPU; a node that ONNX Runtime makes of several counts
    for the value that it computes. Times are medians of --rounds runs. With --backend triton PyTorch's profiler
    measures the kernels, on this machine's GPU.
    """
    from irc.driver import profile as profile_model

    report = profile_model(model, inputs, html=html, **options)
    if as_json:
        show_json(report)
        return
    show_profile(report, number)
    if html is not None:
        inform(f"wrote {html}")


def check_rule_file(path: str, models: tuple[str, ...], options: dict[str, Any], as_json: bool) -> None:
    from irc.driver.rule_checking import check_rules

    names = ("inputs", "backend", "pipeline", "each", "layers", "blame", "why_tolerance")
    given = [f"--{name.replace('_', '-')}" for name in names if options[name]]
    if given:
        raise fail("usage.arguments", f"{given[0]} does not apply to a file of rewrite rules",
                   help="leave the option out, or give a model")  # fmt: skip
    settings, seed = options["settings"], options["seed"]
    loaded = {model: dataclasses.replace(settings, dims={}).load(model) for model in models}
    report = check_rules(path, loaded, seed=seed, numerics=settings.numerics)
    if as_json:
        show_json({**dataclasses.asdict(report), "passed": report.passed, "schema": "irc.check_rules/1"})
    else:
        show_page(str(report))
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


COMMANDS: tuple[click.Command, ...] = (check, diff, extract, reduce, profile)
