"""The commands of `irc`: each parses its options, calls a function of `irc.driver`, and prints the report. Those that
find errors or measure are in `debugging`; `comparing` has experiment, `planning` plan, `viewing` view, and
`onnx_commands` calibrate.

`irc.driver` is imported when a command runs, so that `irc --help` imports nothing large.
"""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from irc._version import FORMAT_VERSION, __version__
from irc.cli import caching, comparing, completion, debugging, onnx_commands, planning, viewing
from irc.cli.commands import Commands
from irc.cli.options import (
    BACKEND,
    INPUT,
    JSON,
    MODEL,
    REPRODUCERS,
    SEED,
    STAGE_OUTPUT,
    command_line,
    common,
    pipeline_option,
    recording,
    writes,
    writes_folder,
)
from irc.cli.output import (
    inform,
    sample,
    show,
    show_bench,
    show_error,
    show_json,
    show_json_error,
    show_kernels,
    show_page,
    show_tuning,
    show_warning,
    triton_remark,
)
from irc.cli.reporting import Reporting, reporting
from irc.diagnostics import Exit, IrcError, Location, counted, fail


def main() -> None:
    """Run the command line. A coded error prints its text and exits with its status; a bug of irc exits with 70."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have letters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = show_warning
    if completion.VARIABLE in os.environ:
        sys.exit(completion.answer(cli))
    reporting = Reporting()
    try:
        # click's `main` would exit with 1 where a reader closes the pipe.
        with cli.make_context("irc", sys.argv[1:], obj=reporting) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:  # of --help, for example
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C does not interrupt the end
        show("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, click.UsageError) and error.ctx and error.format_message() == error.ctx.get_help():
            show_page(error.format_message(), err=True)  # no command was given
            sys.exit(int(Exit.USAGE))
        if isinstance(error, OSError):
            discard_output()
        if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as `head` does
            sys.exit(0)
        finish(coded(error), reporting)


def coded(error: Exception) -> IrcError:
    """What went wrong as a coded error; of a bug of irc, with a reproducer."""
    if isinstance(error, IrcError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = "irc" if context is None else context.command_path
        return fail("usage.arguments", error.format_message(), help=f"{path} --help")
    if isinstance(error, MemoryError):
        return fail("run.memory", "the command needs more memory than the system has")
    if isinstance(error, OSError):  # for example, the disk is full
        return fail("file.unreadable", error.strerror or str(error), at=Location(file=error.filename or "the output"))
    help = f"please report it with the folder {REPRODUCERS}/"
    try:
        leave_traceback()
    except (OSError, IrcError) as second:
        help = f"please report it (no reproducer could be written: {second})"
    return fail("internal.error", f"{type(error).__name__}: {error}", help=help)


def discard_output() -> None:
    """Send what is left of the output nowhere: Python would try to write it again at its end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave_traceback() -> None:
    """Write the command and the traceback of a failure outside passes and backends to the reproducer folder."""
    import traceback

    from irc.driver.text_files import reproducer_folder, write_text

    folder = reproducer_folder(REPRODUCERS)
    write_text(folder / "traceback.txt", traceback.format_exc())
    write_text(folder / "command", command_line() + "\n")


def finish(error: IrcError, reporting: Reporting) -> None:
    """Print an error, with --json on stdout, too, and exit with its status."""
    show_error(error)
    try:
        if reporting.json:
            show_json_error(error)
    except OSError:  # stderr has the error
        discard_output()
    sys.exit(error.exit_code)


def version_text() -> str:
    """The versions of irc, of its text format, and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    parts = [f"irc {__version__} (text format {FORMAT_VERSION})"]
    for package in ("onnx", "onnxruntime", "torch", "triton"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} -")
    return "  ".join(parts)


def show_version(context: click.Context, _parameter: Any, requested: bool) -> None:
    if requested and not context.resilient_parsing:
        show(version_text())
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, callback=show_version, expose_value=False, is_eager=True, help="Show versions and exit."
)
def cli() -> None:
    """A compiler for ML graphs: PyTorch and ONNX in, ONNX Runtime models or Triton kernels out.

    irc reads a model into one typed SSA IR, runs passes over it, groups operations into kernels, and writes an ONNX
    model or a folder of Triton source. Every stage can be printed, edited, run and checked.

    \b
    MODEL is one of
      model.onnx    an ONNX model, opset 7 or later
      program.pt2   a program that torch.export.save has written
      program.irc   IR as text, as irc print writes it
      FILE.py:NAME  an irc module, a PyTorch program with its example inputs,
                    or a function without parameters that returns one
      -             IR as text, on standard input

    \b
    PASSES is a list of passes or named pipelines with their options:
      fold,cse,fuse{policy=none}      default{fuse.plan=plan.json}

    Exit status: 0 success, 1 a comparison failed, 2 usage, 3 invalid input, 4 unsupported, 70 an error in irc itself.
    `irc COMMAND --help` describes a command; docs/first_hour.md introduces them one after the other.
    """


@cli.command(short_help="Compile MODEL to an ONNX model or to Triton kernels.")
@MODEL
@click.option("--backend", type=BACKEND, default="onnx", show_default=True, help="What to compile to.")
@click.option("-o", "--output", metavar="PATH", shell_complete=completion.files,
              help="The .onnx file or, for Triton, the folder to write.  [default: named after MODEL]")  # fmt: skip
@pipeline_option("Passes to run.  [default: the backend's pipeline]")
@click.option("--keep-kernels", is_flag=True,
              help="ONNX only: write each kernel as a local function, which Netron shows as one node.")  # fmt: skip
@onnx_commands.onnx_options
@JSON
@common
@recording
@writes_folder
def compile(model: str, as_json: bool, **options: Any) -> None:
    """Compile MODEL to an ONNX model for ONNX Runtime, or to a folder of Triton kernels.

    With --backend onnx the result is one .onnx file. With --backend triton it is a folder of Python and Triton source
    that runs without irc: products, convolutions and attention are calls of PyTorch, the rest are kernels. Kernels
    are also compiled where --target names GPUs; no GPU is needed for that.

    MODEL is not changed. An operation that the backend does not support is an error that names it.
    """
    from irc.driver import compile as compile_model
    from irc.driver.printing import format_bytes

    onnx = onnx_commands.read_options(options, reporting().show_progress)
    report = compile_model(model, figures=as_json, onnx=onnx, **options)
    if as_json:
        show_json(report)
    elif report.backend == "onnx":
        size = format_bytes(report.weight_bytes)
        inform(f"wrote {report.output}   {counted(report.nodes, 'node')}, {size} weights")
        onnx_commands.show_onnx(report)
    else:
        parts = [counted(report.kernels, "kernel"), counted(report.host_calls, "host call")]
        inform(f"wrote {report.output}/   {', '.join(parts)}, {format_bytes(report.weight_bytes)} weights")
        if report.targets:
            inform(f"compiled for {', '.join(report.targets)}")
        inform(triton_remark(report.output))
    for note in report.notes:
        options["settings"].show_note(note)


@cli.command(short_help="Print MODEL's IR, as imported or after a pass.")
@MODEL
@click.option("--after", metavar="PASS", help="Print the IR after this pass; PASS.2 is its second run.",
              shell_complete=completion.pass_names)  # fmt: skip
@pipeline_option("The pipeline that --after refers to; without --after, run it whole.  [default: default]")
@click.option("--summary", is_flag=True, help="Print a line for each kernel, library call and host operation.")
@click.option("--around", metavar="%VALUE", shell_complete=completion.values,
              help="Print only operations near this value.")
@click.option("-n", "--distance", default=4, show_default=True, help="With --around: how many uses away.")
@STAGE_OUTPUT
@common
@writes
def print(model: str, **options: Any) -> None:
    """Print MODEL's IR as text, as imported or after a pass.

    The text can be edited and read again by every command: weights are referred to by name and stay in the model's
    file, or are written beside FILE.irc. docs/ir.md describes the format.
    """
    from irc.driver import print as print_model

    text = print_model(model, **options)
    if options["output"] is None:
        show_page(text)
    else:
        inform(text)


@cli.command(short_help="Run a pass pipeline over MODEL and print the IR.")
@MODEL
@pipeline_option("Passes to run, such as fold,cse,fuse{policy=greedy}.", required=True)
@STAGE_OUTPUT
@click.option("--backend", type=BACKEND, default="triton", show_default=True,
              help="The backend that the pass legalize legalizes for.")  # fmt: skip
@click.option("--plan", metavar="FILE", shell_complete=completion.files, help="Write the fusion plan to this file.")
@click.option("--statistics", is_flag=True, help="Print on stderr what each pass and rule changed.")
@common
@recording
@writes
def opt(
    model: str, pipeline: str, backend: Any, output: str | None, plan: str | None, statistics: bool, settings: Any
) -> None:
    """Run a pass pipeline over MODEL and print the resulting IR.

    `irc doc passes` lists the passes, `irc doc pipelines` the named pipelines. With the pass fuse, --plan writes the
    fusion plan: which operations share a kernel. It can be edited and replayed by fuse{plan=FILE}.
    """
    from irc.driver.optimizing import run_pipeline
    from irc.driver.saving import check_stage_file, save_stage
    from irc.files import replacing
    from irc.plan_file import joined_plans

    if output is not None:
        check_stage_file(Path(output))  # before the work is done
    module, context = run_pipeline(model, pipeline, backend, settings)
    if plan is not None:
        if module.main.name not in context.plans:
            raise fail("usage.arguments", "--plan needs a pipeline with fuse")
        with replacing(Path(plan)) as file:
            file.write(joined_plans(context.plans.values()).text.encode())
    if output is not None:
        save_stage(module, Path(output), settings)
        inform(f"wrote {output}")
    else:
        show_page(str(module))
    if statistics:
        for where, counters in context.statistics.items():
            show(f"{where}: " + ", ".join(f"{what} {number}" for what, number in counters.items()), err=True)


@cli.command(short_help="Run MODEL, or a compiled folder, on arrays.")
@MODEL
@INPUT
@click.option("--output", metavar="OUT.npz", shell_complete=completion.files,
              help="Write the outputs to this file, by name.")  # fmt: skip
@click.option("--backend", type=BACKEND, help="Compile and run it.  [default: the NumPy interpreter]")
@SEED
@common
@writes
def run(model: str, inputs: str | None, output: str | None, **options: Any) -> None:
    """Run MODEL on arrays and print the first elements of its outputs.

    MODEL may also be a folder that `irc compile --backend triton` has written. Triton kernels run on the GPU, or in
    Triton's interpreter where there is none; the first line of the output says which.

    An .npz file has the arrays by the names of inputs and outputs. Element types that NumPy lacks are stored as their
    bits, bf16 as uint16 and fp8 as uint8, and int4 as numbers in int8. Arrays of ml_dtypes that numpy.savez has
    written are accepted.
    """
    from irc.driver import run as run_model
    from irc.driver.arrays import flattened, write_arrays

    report = run_model(model, inputs, **options)
    if output is not None:
        write_arrays(output, report.outputs)
    given = flattened(report.inputs)
    source = inputs or f"random inputs ({', '.join(f'{name} {list(array.shape)}' for name, array in given.items())})"
    show(f"{report.label}, {source}")
    for output, value in report.outputs.items():
        for name, array in flattened({output: value}).items():
            show(f"  {name}: {array.dtype}{list(array.shape)}  {sample(array)}")


@cli.command(short_help="Explain an error code, a value, or why two did not fuse.")
@click.argument("names", nargs=-1, required=True, metavar="CODE | MODEL %VALUE [%VALUE] | MODEL @KERNEL",
                shell_complete=completion.explained)  # fmt: skip
@click.option("--nest", is_flag=True, help="Of a kernel: print its tile axes and its loop nest.")
@click.option("--remarks", is_flag=True, help="Print every decision of fusion, or those on the values, in order.")
@click.option("--apply", metavar="PLAN.json", shell_complete=completion.files,
              help="Of two values: write the smallest edit that has them in one kernel to this plan.")  # fmt: skip
@pipeline_option("Passes to run.  [default: the Triton backend's pipeline]")
@common
def explain(names: tuple[str, ...], **options: Any) -> None:
    """Explain an error code or a rule, the history of a value, why two values are in different kernels, or a kernel.

    For a value: where it comes from in the source, which passes rewrote it, and which kernel or call computes it. For
    two values: the legality rule that keeps them apart, or the policy's reason, and what fusing them would save. For a
    kernel: what it computes and moves, and which options of its schedule are stated.
    """
    from irc.driver import explain as explain_names

    source = None if len(names) == 1 else names[0]
    show_page(explain_names(source, *(names if source is None else names[1:]), **options))


@cli.command(short_help="List MODEL's kernels with bytes, flops and programs.")
@MODEL
@pipeline_option("Passes to run.  [default: the Triton backend's pipeline]")
@JSON
@common
@recording
def kernels(model: str, as_json: bool, pipeline: str | None, settings: Any) -> None:
    """List MODEL's kernels and calls, with what each moves and computes.

    \b
    distinct  bytes of distinct elements that are read and written
    loaded    bytes of all loads and stores, at the schedule's tile sizes
    flops     arithmetic operations
    programs  the size of the launch grid

    They are counted from the emitted program at the sizes of --dim, without a GPU. With --target each kernel is
    also compiled, and its registers, spills and shared memory are listed.
    """
    from irc.driver import kernels as list_kernels

    targets = tuple(part for part in (settings.target or "").split(",") if part)
    report = list_kernels(
        model, pipeline=pipeline, targets=targets, settings=dataclasses.replace(settings, target=None)
    )
    if as_json:
        show_json(report)
        return
    show_kernels(report)


@cli.command(short_help="Time MODEL, compiled, and the original on this machine.")
@MODEL
@INPUT
@click.option("--backend", type=BACKEND, default="onnx", show_default=True,
              help="What to time: the ONNX model on the CPU, or Triton kernels on a GPU.")  # fmt: skip
@pipeline_option("Passes to run.  [default: the backend's pipeline]")
@click.option("--rounds", type=click.IntRange(min=2), default=30, show_default=True,
              help="How often each contender runs.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each contender.")
@SEED
@JSON
@common
def bench(model: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Time MODEL on this machine's CPU: irc's ONNX model, the original in ONNX Runtime, eager PyTorch.

    With --backend triton: irc's kernels and eager PyTorch on this machine's GPU. The contenders run in turn, once in
    each round; the ratios are medians of rounds, with quartiles.
    """
    from irc.driver import bench as run_bench

    report = run_bench(model, inputs, **options)
    if as_json:
        show_json(report)
        return
    show_bench(report)


@cli.command(short_help="Time schedules of a compiled folder on this GPU.")
@click.argument("folder", metavar="DIR", shell_complete=completion.folders)
@INPUT
@SEED
@JSON
@common
def tune(folder: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Time schedules near those of the kernels in DIR, which irc compile --backend triton has written.

    The fastest are written to DIR/tuning.json, by what a kernel computes and by device; irc compile into the same
    folder then states them. A GPU is needed. Sizes of symbolic dims are those of --dim or of the inputs.
    """
    from irc.driver import tune as tune_folder

    report = tune_folder(folder, inputs, **options)
    if as_json:
        show_json(report)
        return
    show_tuning(report)


@cli.command(only_prints=True, short_help="Show the page of an operation, pass, rule or code.")
@click.argument("name", default="", shell_complete=completion.page_names)
@click.option("--load", multiple=True, metavar="FILE.py", shell_complete=completion.files,
              help="A file of your own passes, operations, rules, groups or policies.")  # fmt: skip
def doc(name: str, load: tuple[str, ...]) -> None:
    """Show the page of an operation, pass, rule, backend, target or error code; without NAME, the topics.

    Pages are made from the declarations in the source.
    """
    from irc.driver import doc as page

    show_page(page(name, load))


@cli.command("completion", only_prints=True, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def print_completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, files and names.

    Names are those of passes with their options, targets, pages, functions in FILE.py:, and, of an .irc or .onnx file
    on the line, of its values, kernels and symbols. No program is run for that.

    Evaluate it in the start-up file of the shell, as the examples show. Bash 4.4 or later is needed.
    """
    show_page(completion.script(cli, shell))


for module in (caching, comparing, debugging, onnx_commands, planning, viewing):
    for command in module.COMMANDS:
        cli.add_command(command)
