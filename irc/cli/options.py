"""Options that several commands have, and the parsing of options such as `--dim B=1`."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from irc.cli import completion
from irc.cli.commands import CommonOption
from irc.cli.output import note_shower
from irc.diagnostics import fail
from irc.products import PRODUCTS

REPRODUCERS = Path("irc-reproducer")  # in the working directory: what repeats an internal error
# The driver's modules define these choices, but are slow to import; a test holds both equal.
BACKEND = click.Choice(("onnx", "triton"))
NUMERICS = ("exact", "keeps_more_precision", "reassociates", "approximates")


def command_line() -> str:
    return shlex.join(["irc", *sys.argv[1:]])


def read_sizes(context: Any, parameter: Any, values: tuple[str, ...]) -> dict[str, int]:
    """`B=1` and `S=512` as a dictionary."""
    sizes = {}
    for name, swept in read_sweeps(context, parameter, values).items():
        if len(swept) > 1:
            raise fail("usage.dim", f"--{parameter.name} {name} has {len(swept)} sizes", expected="one",
                       help="irc experiment measures models at several sizes")  # fmt: skip
        sizes[name] = swept[0]
    return sizes


def read_sweeps(_context: Any, parameter: Any, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`B=1`, `S=17,128`, `S=64:256:64` and `S=128:4096:*2` as a dictionary; the end of a range belongs to it."""
    sizes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, equals, text = value.partition("=")
        swept = _swept(text)
        if not equals or not name or not swept:
            raise fail("usage.dim", f"--{parameter.name} {value}",
                       expected=f"NAME=SIZE, such as B=1{SWEEPS}; at most {MOST_SIZES} sizes")  # fmt: skip
        if sizes.setdefault(name, swept) != swept:
            first, second = (",".join(map(str, each)) for each in (sizes[name], swept))
            raise fail("usage.dim", f"--{parameter.name} {name}={first} and {name}={second}",
                       expected=f"one size for {name}")  # fmt: skip
    return sizes


def _swept(text: str) -> tuple[int, ...]:
    """The sizes that a text lists; none if it cannot be read, or has too many."""
    single = re.compile(r"-?\d{1,30}(,-?\d{1,30})*", re.ASCII)
    if single.fullmatch(text):
        sizes = tuple(map(int, text.split(",")))
        return sizes if len(sizes) <= MOST_SIZES else ()
    form = re.fullmatch(r"(\d{1,18}):(\d{1,18}):(\*?)(\d{1,18})", text, re.ASCII)
    if form is None:
        return ()
    size, end, step = int(form[1]), int(form[2]), int(form[4])
    listed: list[int] = []
    if step < 1 or (form[3] and (step < 2 or size < 1)):
        return ()
    while size <= end and len(listed) <= MOST_SIZES:
        listed.append(size)
        size = size * step if form[3] else size + step
    return tuple(listed) if len(listed) <= MOST_SIZES else ()


def read_limits(_context: Any, _parameter: Any, values: tuple[str, ...]) -> dict[str, int]:
    """`memory=64G` and others as a dictionary."""
    from irc.limits import read_limit

    limits: dict[str, int] = {}
    for name, limit in map(read_limit, values):
        if limits.setdefault(name, limit) != limit:
            raise fail("usage.arguments", f"--limit {name} is given twice, with different limits")
    return limits


def check_folders(_context: Any, _parameter: Any, values: tuple[str, ...]) -> tuple[str, ...]:
    """Folders that there are: a misspelt one would allow nothing."""
    for value in values:
        if not os.path.isdir(value):
            raise fail("file.missing", f"there is no folder {value}", help="--allow-folder takes a folder that exists")
    return values


def read_pipeline(_context: Any, _parameter: Any, value: str | None) -> str | None:
    """A pipeline as it is; an empty one, as of a variable of the shell that is not set, is a mistake."""
    if value is not None and not value.strip():
        raise fail("pass.syntax", "the pipeline is empty", expected="names of passes, separated by commas",
                   help="leave out -p for the default pipeline; irc doc passes lists the passes")  # fmt: skip
    return value


common_option = partial(click.option, cls=CommonOption)

MOST_SIZES = 1000  # of a symbol in one command
SWEEPS = "; for irc experiment also S=17,128, S=64:256:64 and S=128:4096:*2"

MODEL = click.argument("model", shell_complete=completion.files)
INPUT = click.option("--input", "inputs", metavar="IN.npz", shell_complete=completion.files,
                     help="Arrays by input name.  [default: random, within the ranges of the dims]")  # fmt: skip
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                    help="Seed of the random inputs.")  # fmt: skip
STAGE_OUTPUT = click.option("-o", "--output", metavar="FILE.irc|FILE.onnx", shell_complete=completion.files,
                            help="Write an .irc file, with weights beside it, or an .onnx file, for Netron and ONNX "
                            "Runtime, with a function for each kernel.")  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")

DIM = common_option("--dim", multiple=True, callback=read_sizes, metavar="B=1", shell_complete=completion.sizes,
                    help="A size for a symbolic dim, for runs and figures; the program stays dynamic.")  # fmt: skip
DIM_SWEEP = common_option("--dim", multiple=True, callback=read_sweeps, metavar="B=1|S=128:4096:*2",
                          shell_complete=completion.sizes,
                          help="Sizes for a symbolic dim: one, several (S=1,17), or a range with a step to add "
                               "(S=64:256:64) or to multiply with (S=128:4096:*2).")  # fmt: skip
COMMON = (
    common_option("--specialize", multiple=True, callback=read_sizes, metavar="B=1", shell_complete=completion.sizes,
                  help="Replace a symbolic dim of the program by this integer."),
    common_option("--fold-defaults", is_flag=True, help="Replace inputs that have a default by constants."),
    common_option("--opset", type=int, metavar="N",
                  help="The opset of a written ONNX model, from 13 on.  [default: the lowest from 18 that suffices]"),
    common_option("--target", multiple=True, metavar="NAME", shell_complete=completion.target_names,
                  help="What to compile for; irc doc targets lists them."),
    common_option("--device", metavar="NAME|FILE.toml", shell_complete=completion.device_names,
                  help="The GPU for which costs are estimated; irc doc devices.  [default: one of --target, or h100]"),
    common_option("--numerics", type=click.Choice(NUMERICS), default="keeps_more_precision", show_default=True,
                  help="The largest change of rounding that rewrites and kernels may make."),
    common_option("--products", type=click.Choice(PRODUCTS), default="host", show_default=True,
                  help="Whether PyTorch computes products and attention, or kernels, or the faster by estimate."),
    common_option("--costs", metavar="NAME|FILE.json", shell_complete=completion.cost_names,
                  help="Times of ONNX Runtime's kernels, for --target cpu; irc doc costs.  [default: avx512]"),
    common_option("--load", multiple=True, metavar="FILE.py", shell_complete=completion.files,
                  help="A file of your own passes, operations or rewrite rules."),
    common_option("--limit", multiple=True, callback=read_limits, metavar="NAME=N",
                  shell_complete=completion.limit_names,
                  help="Raise a resource limit for untrusted input; irc doc limits lists them."),
    common_option("--allow-folder", multiple=True, metavar="DIR", shell_complete=completion.folders,
                  callback=check_folders,
                  help="Another folder whose files the model may refer to."),
    common_option("--verify-each", is_flag=True, help="Verify the IR after each pass."),
    common_option("--dump-after", multiple=True, metavar="PASS", shell_complete=completion.pass_names,
                  help="Print the IR after this pass (all: after each) on stderr."),
)  # fmt: skip


def pipeline_option(help: str, required: bool = False) -> Callable[..., Any]:
    """`-p`, with what the command does with it."""
    return click.option("-p", "--pipeline", metavar="PASSES", required=required, help=help, callback=read_pipeline,
                        shell_complete=completion.pass_names)  # fmt: skip


OUTPUTS = ("output", "plan", "html", "csv", "parquet")  # options that name files to write, beside --remarks


def writes(function: Callable[..., Any], may_be_folder: bool = False) -> Callable[..., Any]:
    """The decorator of commands that write files, whose `output` may be a folder where that is stated; it stands below
    `common`."""

    def command(force: bool, **options: Any) -> Any:
        from irc.files import check_apart, check_file, check_folder, note_input
        from irc.limits import allow

        check_apart({name: options.get(name) for name in OUTPUTS})
        with allow(replace_inputs=force):
            for given in (options.get("model"), options.get("inputs")):
                if given is not None and os.path.isfile(given):
                    note_input(given)
            for name in OUTPUTS:
                if options.get(name) is not None:  # before the work is done
                    check = check_folder if may_be_folder and name == "output" else check_file
                    check(Path(options[name]))
            return function(**options)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
    return click.option("--force", is_flag=True, help="Allow the output to replace an input file.")(command)


writes_folder = partial(writes, may_be_folder=True)


def recording(function: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator of commands that fuse; it stands below `common`, whose settings it extends by `--remarks`."""

    def command(remarks: str | None, settings: Any, **options: Any) -> Any:
        if remarks is None:
            return function(settings=settings, **options)
        from dataclasses import replace

        from irc.files import check_apart, check_file
        from irc.remarks import Remarks

        check_apart({**{name: options.get(name) for name in OUTPUTS}, "remarks": remarks})
        check_file(Path(remarks))
        recorded = Remarks()
        try:
            result = function(settings=replace(settings, remarks=recorded), **options)
        except Exception:
            if recorded.all:
                write_remarks(recorded, remarks)
                note_shower()(f"{remarks} has the decisions up to the error")
            raise
        write_remarks(recorded, remarks)
        return result

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
    return click.option(
        "--remarks",
        metavar="FILE.jsonl",
        shell_complete=completion.files,
        help="Write every decision of fusion to this file, a line of JSON each.",
    )(command)


def write_remarks(recorded: Any, path: str) -> None:
    from irc.files import replacing

    with replacing(Path(path)) as file:
        file.write(recorded.text.encode())


def common(function: Callable[..., Any], dim: Callable[..., Any] = DIM) -> Callable[..., Any]:
    """The decorator that adds `COMMON`, the options of every command over a model, passed as one `settings`; with
    `DIM_SWEEP` as `dim`, sizes are passed as `sizes`."""

    def command(**options: Any) -> Any:
        from irc.driver import Settings
        from irc.files import guarded
        from irc.limits import allow

        folders, limits = options.pop("allow_folder"), options.pop("limit")
        settings = Settings(
            opset=options.pop("opset"),
            target=",".join(options.pop("target")) or None,
            numerics=options.pop("numerics"),
            products=options.pop("products"),
            costs=options.pop("costs"),
            device=options.pop("device"),
            loads=options.pop("load"),
            dims={} if dim is DIM_SWEEP else options.pop("dim"),
            specialize=options.pop("specialize"),
            fold_defaults=options.pop("fold_defaults"),
            verify_each=options.pop("verify_each"),
            dump_after=options.pop("dump_after"),
            show_note=note_shower(),
            reproducers=REPRODUCERS,
            command=command_line(),
        )
        if dim is DIM_SWEEP:
            options["sizes"] = options.pop("dim")
        with allow(*folders, **limits), guarded():
            return function(settings=settings, **options)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    for option in reversed((dim, *COMMON)):
        command = option(command)
    # click has attached the command's specific parameters to `function`.
    command.__click_params__ = [*command.__click_params__, *getattr(function, "__click_params__", [])]  # type: ignore[attr-defined]
    return command


common_with_sweeps = partial(common, dim=DIM_SWEEP)


def read_pipelines(values: tuple[str, ...]) -> dict[str, str]:
    """`base="default"` and others as a dictionary."""
    pipelines: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.replace("-", "_").isidentifier() or not text:
            raise fail("usage.arguments", f"-p {value}", expected='NAME=PASSES, such as base="default"')
        if pipelines.setdefault(name, text) is not text:
            raise fail("usage.arguments", f"two pipelines are called {name}", help="give each pipeline another name")
    return pipelines
