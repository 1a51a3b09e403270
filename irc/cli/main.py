"""The command line: thin commands over the functions of `irc.driver`, which is imported when a verb runs."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from irc._version import FORMAT_VERSION, __version__
from irc.cli.options import BACKEND, REPRODUCERS, Commands, command_line, common, read_pipelines, writes
from irc.cli.output import (
    progress_on_terminal,
    sample,
    show,
    show_experiment,
    show_json,
    show_page,
    show_warning,
    target_facts,
    triton_remark,
)
from irc.diagnostics import Exit, IrcError, Location, fail

JSON_HELP = "Print the report as JSON."


def main() -> None:
    """Run the command line: coded errors become text and their exit code; a bug of ours exits with 70."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have letters that the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = show_warning
    try:
        cli.main(standalone_mode=False, prog_name="irc")
    except IrcError as error:
        finish(str(error), error.exit_code)
    except click.ClickException as error:
        finish(usage_text(error), int(Exit.USAGE))
    except (click.Abort, KeyboardInterrupt):
        finish("interrupted", 130)
    except BrokenPipeError:
        # The reader has left, as `head` does; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        failure = fail("run.memory", "the command needs more memory than the system has")
        finish(str(failure), failure.exit_code)
    except OSError as error:  # the disk is full, say, to which the output goes
        failure = fail("file.unreadable", error.strerror or str(error), at=Location(file=error.filename))
        finish(str(failure), failure.exit_code)
    except Exception as error:  # the last boundary: whatever is left is a bug of irc, told as one
        help = f"please report it with the folder {REPRODUCERS}/"
        try:
            leave_traceback()
        except (OSError, IrcError) as second:
            help = f"please report it (no reproducer could be written: {second})"
        failure = fail("internal.error", f"{type(error).__name__}: {error}", help=help)
        finish(str(failure), failure.exit_code)


def usage_text(error: click.ClickException) -> str:
    """What click found wrong with the arguments, as one of our errors; without arguments, the help."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if not message or context is None or message == context.get_help():
        return message
    return str(fail("usage.arguments", message, help=f"{context.command_path} --help"))


def leave_traceback() -> None:
    """What remains of a failure that happened outside of passes and backends: the command and the traceback."""
    import traceback

    from irc.driver.text_files import reproducer_folder, write_text

    folder = reproducer_folder(REPRODUCERS)
    write_text(folder / "traceback.txt", traceback.format_exc())
    write_text(folder / "command", command_line() + "\n")


def finish(text: str, code: int) -> None:
    show_page(text, err=True)
    sys.exit(code)


def version_text() -> str:
    """irc's version, the text format's, and the versions of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    parts = [f"irc {__version__} (text format {FORMAT_VERSION})"]
    for package in ("onnx", "onnxruntime", "torch", "triton"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} -")
    return "  ".join(parts)


def show_version(context: click.Context, _parameter: Any, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        show(version_text())
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, callback=show_version, expose_value=False, is_eager=True, help="Show versions and exit."
)
def cli() -> None:
    """A small, readable compiler for studying fusion.

    MODEL is an .onnx, .pt2 or .irc file, FILE.py:NAME, or - for text on standard input.
    """


@cli.command(short_help="Compile MODEL for ONNX Runtime, or to Triton.")
@click.argument("model")
@click.option(
    "--backend", type=BACKEND, default="onnx", show_default=True, help="What to write."
)
@click.option(
    "-o", "--output", metavar="PATH", help="The .onnx file or, for Triton, the folder to write; else named as MODEL is."
)
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes to run instead of the backend's.")
@click.option("--keep-kernels", is_flag=True, help="ONNX: keep each kernel as a local function, a box in Netron.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
@writes
def compile(model: str, as_json: bool, **options: Any) -> None:
    """Compile MODEL for ONNX Runtime, or into a folder of Triton kernels."""
    from irc.driver import compile as compile_model
    from irc.driver.printing import counted, format_bytes

    report = compile_model(model, figures=as_json, **options)
    if as_json:
        show_json(report)
    elif report.backend == "onnx":
        size = format_bytes(report.weight_bytes)
        show(f"wrote {report.output}   {counted(report.nodes, 'node')}, {size} weights")
    else:
        parts = [counted(report.kernels, "kernel"), counted(report.host_calls, "host call")]
        show(f"wrote {report.output}/   {', '.join(parts)}, {format_bytes(report.weight_bytes)} weights")
        if report.targets:
            show(f"compiled for {', '.join(report.targets)}")
        show(triton_remark(report.output))
    for note in report.notes:
        options["settings"].show_note(note)


@cli.command()
@click.argument("model")
@click.option("--after", metavar="PASS", help="Print it after this pass.")
@click.option("-p", "--pipeline", metavar="PASSES", help="The pipeline that --after stops in, or that is run.")
@click.option("--summary", is_flag=True, help="A line for each kernel, library call and host operation.")
@click.option("--around", metavar="%VALUE", help="Only what is near this value.")
@click.option("-n", "--distance", default=4, show_default=True, help="How near, in steps.")
@click.option("-o", "--output", metavar="FILE.irc", help="Write the text there, its weights beside it.")
@common
@writes
def print(model: str, **options: Any) -> None:
    """Print MODEL as text."""
    from irc.driver import print as print_model

    show_page(print_model(model, **options))


@cli.command()
@click.argument("model")
@click.option("-p", "--pipeline", metavar="PASSES", required=True, help="Passes, such as fold,cse,fuse{policy=greedy}.")
@click.option("-o", "--output", metavar="FILE.irc", help="Write the text there, its weights beside it.")
@click.option(
    "--backend",
    type=BACKEND,
    default="triton",
    show_default=True,
    help="Whose operations legalize leaves.",
)
@click.option("--plan", metavar="FILE", help="Write the fusion plan there.")
@click.option("--statistics", is_flag=True, help="Show what passes and rules did, on stderr.")
@common
@writes
def opt(
    model: str, pipeline: str, backend: str, output: str | None, plan: str | None, statistics: bool, settings: Any
) -> None:
    """Run passes over MODEL and print the result."""
    from irc.driver.compiling import run_pipeline
    from irc.driver.text_files import save_text
    from irc.files import replacing
    from irc.passes._plan_file import joined_plans

    module, context = run_pipeline(model, pipeline, backend, settings)
    if plan is not None:
        if module.main.name not in context.plans:
            raise fail("usage.arguments", "--plan needs a pipeline with fuse")
        with replacing(Path(plan)) as file:
            file.write(joined_plans(context.plans.values()).encode())
    if output is not None:
        save_text(module, Path(output))
        show(f"wrote {output}")
    else:
        show_page(str(module))
    if statistics:
        for where, counters in context.statistics.items():
            show(f"{where}: " + ", ".join(f"{what} {number}" for what, number in counters.items()), err=True)


@cli.command(short_help="Run MODEL, or a compiled folder, on arrays.")
@click.argument("model")
@click.option(
    "--input", "inputs", metavar="IN.npz", help="Arrays by input name; random within the declared ranges without."
)
@click.option("--output", metavar="OUT.npz", help="Where to write the outputs by name.")
@click.option("--backend", type=BACKEND, help="Run it compiled; by the interpreter without.")
@click.option("--seed", default=0, show_default=True, help="For random inputs.")
@common
@writes
def run(model: str, inputs: str | None, output: str | None, **options: Any) -> None:
    """Run MODEL on arrays; MODEL may be a folder that `compile --backend triton` has written.

    In .npz files arrays go by the names of inputs and outputs. Types that NumPy lacks stand there as their bits, bf16
    as uint16 and fp8 as uint8; int4 as the numbers, in int8. What numpy.savez writes of ml_dtypes arrays is read, too.
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


@cli.command(short_help="Compare MODEL, compiled, with f64; or test a file of rules.")
@click.argument("model")
@click.argument("against", nargs=-1)
@click.option("--input", "inputs", metavar="IN.npz", help="Arrays by input name; random ones without.")
@click.option("--backend", type=BACKEND, help="Compare what this backend computes, too.")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes to check instead of the backend's.")
@click.option(
    "--each", is_flag=True, help="Compare after every pass; name the pass and operation where values first part."
)
@click.option("--seed", default=0, show_default=True, help="For random inputs.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
def check(model: str, against: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare MODEL, compiled, with an f64 evaluation and with the model as it came; or check a file of rules (irc
    check rules.py [MODEL ...])."""
    if model.endswith(".py"):
        check_rule_file(model, against, options, as_json)
        return
    if against:
        raise fail(
            "usage.arguments",
            f"check takes one model, and {against[0]} beside it",
            help="only a file of rules is checked against several",
        )
    from irc.driver import check as check_model

    report = check_model(model, options.pop("inputs"), **options)
    if as_json:
        show_json(report)
    else:
        if report.without_original:
            show(f"      the model as it came does not run: {report.without_original}")
        for stage in report.stages:
            for output in stage.outputs:
                mark = "ok  " if output.passed else "FAIL"
                figures = f"relative error {output.error:.1e} (allowed {output.allowed:.1e})"
                since = f": still wrong since {output.since}" if output.since else ""
                show(f"{mark}  {stage.stage:14} %{output.output}  {figures}{since}")
            if stage.first_part:
                show(f"      first part at: {stage.stage}, {stage.first_part}")
        for output in report.stages[0].outputs:
            if output.unsettled:
                show(f"%{output.output}: as imported, elements overflow, are NaN or are other integers than in f64"
                     f" ({output.unsettled} of them), and may be either")  # fmt: skip
        random = f"; random, hence not compared with what ran: {', '.join(report.random)}" if report.random else ""
        show(f"{report.label}; errors against an evaluation in f64{random}")
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


@cli.command(short_help="Write what lies between values of MODEL as a program.")
@click.argument("model")
@click.option("--from", "start", multiple=True, metavar="%VALUE", help="Where it starts; at the inputs without.")
@click.option("--to", "stop", multiple=True, metavar="%VALUE", help="Where it stops.")
@click.option("-o", "--output", metavar="FILE.irc", default="extract.irc", show_default=True, help="What to write.")
@click.option("--input", "inputs", metavar="IN.npz", help="Arrays for the model's inputs; random ones without.")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes to run before.")
@click.option("--after", metavar="PASS", help="Extract from the program after this pass.")
@click.option("--seed", default=0, show_default=True, help="For random inputs.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
@writes
def extract(
    model: str, start: tuple[str, ...], stop: tuple[str, ...], output: str, inputs: str | None, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Write the operations between values of MODEL as a program, with the inputs that they had in a run."""
    from irc.driver import extract as extract_part
    from irc.driver.printing import counted

    report = extract_part(model, start, stop, output, inputs, **options)
    if as_json:
        show_json(report)
        return
    show(f"wrote {report.program}   {counted(report.operations, 'op')}, and its inputs to {report.arrays}")
    words = ["irc", "run", report.program, "--input", report.arrays]
    show(f"run it: {shlex.join([*words, *(word for path in report.loads for word in ('--load', path))])}")


@cli.command(short_help="Find the smallest part of MODEL that fails a check.")
@click.argument("model")
@click.option("-o", "--output", metavar="DIR", default="reduced", show_default=True, help="The folder to write.")
@click.option("--input", "inputs", metavar="IN.npz", help="Arrays by input name; random ones without.")
@click.option("--backend", type=BACKEND, help="Check what this backend computes, too.")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes to check instead of the backend's.")
@click.option("--seed", default=0, show_default=True, help="For random inputs.")
@click.option("--seconds", default=600.0, show_default=True, help="Then the smallest part so far is taken.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
@writes
def reduce(model: str, output: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Find the smallest part of MODEL on which `irc check --each` fails as it does on the whole."""
    from irc.driver import reduce as reduce_model
    from irc.driver.printing import counted

    report = reduce_model(model, output, inputs, progress=lambda text: show(text, err=True), **options)
    if as_json:
        show_json(report)
        return
    stopped = "" if report.finished else ", stopped before its end"
    sizes = f"{counted(report.before, 'op')} -> {counted(report.after, 'op')}"
    show(f"{sizes}, {report.failure}   ({report.checks} checks{stopped})")
    show("  ".join(report.files))


def check_rule_file(path: str, models: tuple[str, ...], options: dict[str, Any], as_json: bool) -> None:
    from irc.driver.rule_checking import check_rules

    given = [f"--{name.replace('_', '-')}" for name in ("inputs", "backend", "pipeline", "each") if options[name]]
    if given:
        raise fail("usage.arguments", f"{given[0]} says nothing about a file of rules", help="irc check --help")
    settings, seed = options["settings"], options["seed"]
    loaded = {model: dataclasses.replace(settings, dims={}).load(model) for model in models}
    report = check_rules(path, loaded, seed=seed, numerics=settings.numerics)
    if as_json:
        show_json({**dataclasses.asdict(report), "passed": report.passed, "schema": "irc.check_rules/1"})
    else:
        show_page(str(report))
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


@cli.command(short_help="Explain a code, a value's history, or why two did not fuse.")
@click.argument("names", nargs=-1, required=True, metavar="CODE | MODEL %VALUE [%VALUE]")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes instead of the Triton backend's.")
@common
def explain(names: tuple[str, ...], **options: Any) -> None:
    """Explain a code, a value's history, or why two values are in different kernels."""
    from irc.driver import explain as explain_names

    source = None if len(names) == 1 else names[0]
    show_page(explain_names(source, *(names if source is None else names[1:]), **options))


@cli.command(short_help="List MODEL's kernels: bytes, arithmetic, programs.")
@click.argument("model")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes instead of the Triton backend's.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
def kernels(model: str, as_json: bool, pipeline: str | None, settings: Any) -> None:
    """List MODEL's kernels: bytes, arithmetic, programs; with --target also registers, spills, shared memory."""
    from irc.driver import kernels as list_kernels
    from irc.driver.printing import at_sizes, counted, format_bytes, format_count, shorten

    targets = tuple(part for part in (settings.target or "").split(",") if part)
    report = list_kernels(
        model, pipeline=pipeline, targets=targets, settings=dataclasses.replace(settings, target=None)
    )
    if as_json:
        show_json(report)
        return
    show(f"{'':30} {'kind':10} {'distinct':>10} {'loaded':>10} {'flops':>10} {'programs':>9}")
    for kernel in report.kernels:
        figures = (kernel.distinct_bytes, kernel.loaded_bytes)
        sizes = " ".join([*(f"{format_bytes(size):>10}" for size in figures), f"{format_count(kernel.flops):>10}"])
        programs = kernel.programs if kernel.programs < 10**9 else format_count(kernel.programs).strip()
        show(f"{shorten('@' + kernel.name, 30):30} {kernel.kind:10} {sizes} {programs:>9}")
        for target, facts in kernel.targets.items():
            show(f"    {target}: {target_facts(facts)}")
    for call in report.calls:
        head = "library" if call.kind == "library" else "host"
        name = f"{head} {shorten('%' + call.name, 29 - len(head))}"
        show(f"{name:30} {call.op:10} {format_bytes(call.distinct_bytes):>10}  {', '.join(call.dispatched)}".rstrip())
    show(
        f"{counted(report.launches, 'launch', 'launches')}, {counted(report.library_calls, 'library call')}, "
        f"{counted(report.host_operations, 'host operation')}, "
        f"{format_bytes(report.distinct_bytes)} of global memory traffic, "
        f"peak live memory {format_bytes(report.peak_bytes)}{at_sizes(report.sizes)}; "
        f"{report.share_in_kernels:.0%} of the operations are in kernels (views not counted)"
    )
    if report.label == "estimated":
        show(f"estimated: {report.not_counted}")


@cli.command(short_help="Compare pipelines on MODELS, by what can be counted.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("-p", "--pipeline", "pipelines", multiple=True, metavar="NAME=PASSES", required=True,
              callback=lambda context, parameter, values: read_pipelines(values),
              help='Such as base="default"; the first is what others are compared with.')  # fmt: skip
@click.option("--device", default="sm_90", show_default=True, help="Whose roofline the estimates are of.")
@click.option("--html", metavar="FILE.html", help="Write a page with plots.")
@click.option("--seed", default=0, show_default=True, help="For the random inputs of which the error is told.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
@writes
def experiment(models: tuple[str, ...], pipelines: dict[str, str], html: str | None, as_json: bool,
               **options: Any) -> None:  # fmt: skip
    """Compare pipelines on MODELS: launches, bytes, arithmetic, programs, a roofline, compile time, error, plans."""
    from irc.driver import experiment as run_experiment

    with progress_on_terminal() as progress:
        report = run_experiment(models, pipelines, progress=progress, **options)
    if html is not None:
        from irc.driver.experiment_page import page
        from irc.files import replacing

        with replacing(Path(html)) as file:
            file.write(page(report).encode())
    if as_json:
        show_json(report)
    else:
        show_experiment(report)
        if html is not None:
            show(f"wrote {html}")
    if not report.passed:
        sys.exit(int(Exit.DIFFERS))


@cli.command(short_help="Time MODEL, compiled, beside the original.")
@click.argument("model")
@click.option("--input", "inputs", metavar="IN.npz", help="Arrays by input name; random ones without.")
@click.option("-p", "--pipeline", metavar="PASSES", help="Passes to run instead of the backend's.")
@click.option("--rounds", type=click.IntRange(min=2), default=30, show_default=True, help="Each runs once in a round.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For each of them.")
@click.option("--seed", default=0, show_default=True, help="For random inputs.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@common
def bench(model: str, inputs: str | None, as_json: bool, **options: Any) -> None:
    """Time MODEL on this machine: irc's ONNX, the original in ONNX Runtime, eager PyTorch; interleaved."""
    from irc.driver import bench as run_bench

    report = run_bench(model, inputs, **options)
    if as_json:
        show_json(report)
        return
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in report.sizes.items())
    show(f"{report.rounds} rounds, {report.threads} thread(s), {shapes}")
    for name, each in report.contenders.items():
        low, high = each.quartiles
        spread = "" if name == "irc" else f"   irc / {name} {each.ratio:.2f} (quartiles {low:.2f} to {high:.2f})"
        error = "" if name == "irc" else f", outputs differ by {each.error:.0e}"
        show(f"  {name:9} {each.seconds * 1e3:10.3f} ms{spread}{error}")
    show(f"{report.machine}; {', '.join(f'{name} {version}' for name, version in report.versions.items())}")
    show(report.label)


@cli.command(short_help="Show a page: of an operation, pass, rule, target or code.")
@click.argument("name", default="")
@click.option("--load", multiple=True, metavar="FILE.py", help="A file of your own, to have pages of what it holds.")
def doc(name: str, load: tuple[str, ...]) -> None:
    """Show the page of an operation, pass, rule, target or code; without NAME, what there is."""
    from irc.driver import doc as page

    show_page(page(name, load))
