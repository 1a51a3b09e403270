"""The options that commands share, and how options that hold several things are read."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from irc.cli.output import note_shower
from irc.diagnostics import fail

REPRODUCERS = Path("irc-reproducer")  # where a bug of ours leaves what repeats it, in the working directory
# The values of these options are written out, since the driver's modules that define them are slow to import.
BACKEND = click.Choice(("onnx", "triton"))
NUMERICS = ("exact", "keeps_more_precision", "reassociates", "approximates")


def command_line() -> str:
    return shlex.join(["irc", *sys.argv[1:]])


def read_sizes(_context: Any, parameter: Any, values: tuple[str, ...]) -> dict[str, int]:
    """`B=1` and `S=512` as a dictionary."""
    sizes: dict[str, int] = {}
    for value in values:
        name, equals, size = value.partition("=")
        if not equals or not name or not size.lstrip("-").isdecimal():
            raise fail("usage.dim", f"--{parameter.name} {value}", expected="NAME=SIZE, such as B=1")
        if sizes.setdefault(name, int(size)) != int(size):
            raise fail("usage.dim", f"--{parameter.name} {name}={sizes[name]} and {name}={size}",
                       expected=f"one size for {name}")  # fmt: skip
    return sizes


def read_limits(_context: Any, _parameter: Any, values: tuple[str, ...]) -> dict[str, int]:
    """`memory=64G` and others as a dictionary."""
    from irc.limits import read_limit

    limits: dict[str, int] = {}
    for name, limit in map(read_limit, values):
        if limits.setdefault(name, limit) != limit:
            raise fail("usage.arguments", f"--limit {name} is given twice, with different limits")
    return limits


class Command(click.Command):
    """A command whose options are all used: one that takes one value is not given twice, the last silently winning."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not context.resilient_parsing:
            _, _, given = self.make_parser(context).parse_args(args=list(arguments))
            for option, number in Counter(given).items():
                if isinstance(option, click.Option) and number > 1 and not (option.multiple or option.is_flag):
                    raise fail("usage.arguments", f"{option.opts[0]} is given {number} times", expected="once",
                               help=f"{context.command_path} --help")  # fmt: skip
        return super().parse_args(context, arguments)


class Commands(click.Group):
    """The group of all commands."""

    command_class = Command


COMMON = (
    click.option(
        "--dim", multiple=True, callback=read_sizes, metavar="B=1", help="A size for a symbol where numbers are needed."
    ),
    click.option(
        "--specialize", multiple=True, callback=read_sizes, metavar="B=1", help="Make a symbol this integer."
    ),
    click.option("--fold-defaults", is_flag=True, help="Make inputs that have a default constants."),
    click.option("--opset", type=int, metavar="N", help="The opset of a model of ONNX, from 13 on; else as needed."),
    click.option("--target", multiple=True, metavar="NAME", help="What to compile for: see irc doc targets."),
    click.option(
        "--numerics",
        type=click.Choice(NUMERICS),
        default="keeps_more_precision",
        show_default=True,
        help="What rewrites and kernels may do to rounding.",
    ),
    click.option(
        "--load", multiple=True, metavar="FILE.py", help="A file with passes, operations or rules of your own."
    ),
    click.option(
        "--limit", multiple=True, callback=read_limits, metavar="NAME=N",
        help="Raise a limit on what input may ask for: see irc doc limits.",
    ),
    click.option(
        "--allow-folder", multiple=True, metavar="DIR", help="A folder whose files a model may name, too."
    ),
    click.option("--verify-each", is_flag=True, help="Verify after each pass."),
    click.option(
        "--dump-after",
        multiple=True,
        metavar="PASS",
        help="Print the program after a pass (all: each) to stderr.",
    ),
)


def writes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option of verbs that write files, given below `common`."""

    def command(force: bool, **options: Any) -> Any:
        from irc.files import check_output, note_input
        from irc.limits import allow

        with allow(replace_inputs=force):
            for given in (options.get("model"), options.get("inputs")):
                if given is not None and os.path.isfile(given):
                    note_input(given)
            if options.get("output") is not None:
                check_output(Path(options["output"]))  # at once, rather than when the work is done
            return function(**options)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
    return click.option("--force", is_flag=True, help="Replace a file that is read, too.")(command)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every verb over a model has; the command receives them as one `settings`."""

    def command(**options: Any) -> Any:
        from irc.driver import Settings
        from irc.files import guarded
        from irc.limits import allow

        folders, limits = options.pop("allow_folder"), options.pop("limit")
        settings = Settings(
            opset=options.pop("opset"),
            target=",".join(options.pop("target")) or None,
            numerics=options.pop("numerics"),
            loads=options.pop("load"),
            dims=options.pop("dim"),
            specialize=options.pop("specialize"),
            fold_defaults=options.pop("fold_defaults"),
            verify_each=options.pop("verify_each"),
            dump_after=options.pop("dump_after"),
            show_note=note_shower(),
            reproducers=REPRODUCERS,
            command=command_line(),
        )
        with allow(*folders, **limits), guarded():
            return function(settings=settings, **options)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    for option in reversed(COMMON):
        command = option(command)
    # The function's own parameters, which click found on it, come first in the help.
    command.__click_params__ = [*command.__click_params__, *getattr(function, "__click_params__", [])]  # type: ignore[attr-defined]
    return command


def read_pipelines(values: tuple[str, ...]) -> dict[str, str]:
    """`base="default"` and others as a dictionary."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.replace("-", "_").isidentifier() or not text:
            raise fail("usage.arguments", f"-p {value}", expected='NAME=PASSES, such as base="default"')
        if found.setdefault(name, text) is not text:
            raise fail("usage.arguments", f"two pipelines are called {name}")
    return found
