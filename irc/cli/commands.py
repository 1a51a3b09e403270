"""How commands are parsed and how their help is laid out: commands by purpose, options in two groups, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from irc.cli.examples import EXAMPLES
from irc.cli.reporting import Reporting, set_option
from irc.diagnostics import fail

# The commands of `irc --help`, by purpose.
PURPOSES = {
    "Compile and run": ("compile", "run", "bench", "profile", "tune"),
    "Print and transform": ("print", "opt", "plan", "kernels", "view", "experiment"),
    "Check and debug": ("check", "diff", "explain", "extract", "reduce"),
    "Reference and set-up": ("doc", "cache", "calibrate", "completion"),
}
REMARKS = 48  # the last column in which remarks on examples are aligned


class CommonOption(click.Option):
    """An option that every command over a MODEL has; help lists these after the command's own."""


def reporting_options() -> list[click.Parameter]:
    """The options of what a command says beside its result, which `Reporting` has."""
    options = (
        (("-v", "--verbose"), "Print each stage on stderr at its end: import, passes with their operations, runs."),
        (("--quiet",), "Print the result and errors, but no notes, no progress and not which files were written."),
        (("--timings",), "Print a table of the time of each pass and stage on stderr; with --json, in the report."),
    )
    return [CommonOption(names, is_flag=True, expose_value=False, callback=set_option, help=help)
            for names, help in options]  # fmt: skip


class Command(click.Command):
    """A command that rejects an option given twice, unless it takes several values, and has `reporting_options` unless
    it `only_prints`."""

    def __init__(
        self,
        name: str | None = None,
        *,
        only_prints: bool = False,
        params: list[click.Parameter] | None = None,
        **options: Any,
    ) -> None:
        more = [] if only_prints else reporting_options()
        super().__init__(name, params=[*(params or ()), *more], **options)

    def invoke(self, context: click.Context) -> Any:
        reporting = context.ensure_object(Reporting)
        if reporting.quiet and reporting.verbose:
            raise fail("usage.arguments", "--quiet and --verbose contradict one another", expected="one of them")
        with reporting.of_command():
            return super().invoke(context)

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not context.resilient_parsing:
            values, _, order = self.make_parser(context).parse_args(args=list(arguments))
            for option, number in Counter(order).items():
                if isinstance(option, click.Option) and number > 1 and not (option.multiple or option.is_flag):
                    raise fail("usage.arguments", f"{option.opts[0]} is given {number} times", expected="once",
                               help=f"{context.command_path} --help")  # fmt: skip
            self.note_order(context, values, order)
        return super().parse_args(context, arguments)

    def note_order(self, context: click.Context, values: Mapping[str, Any], order: list[click.Parameter]) -> None:
        """Called with the values of options and arguments, and with these in the order in which they are given."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        common: list[tuple[str, str]] = []
        specific: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                (common if isinstance(parameter, CommonOption) else specific).append(record)
        for title, records in (("Options", specific), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(str(self.name), formatter)


class Commands(click.Group):
    """The group of all commands."""

    command_class = Command

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        # Before a command and its arguments are read: an error in them is printed as JSON, too.
        if not context.resilient_parsing:  # a completion has its own object
            context.ensure_object(Reporting).json = "--json" in arguments
        return super().parse_args(context, arguments)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for purpose, names in PURPOSES.items():
            with formatter.section(purpose):
                formatter.write_dl([(f"{name:{width}}", self.commands[name].get_short_help_str()) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples("irc", formatter)


def write_examples(command: str, formatter: click.HelpFormatter) -> None:
    """A line for each example, with its remark as a shell comment, so that lines can be pasted into a shell."""
    examples = EXAMPLES[command]
    width = max((len(line) for line, remark in examples if remark and len(line) <= REMARKS), default=0)
    with formatter.section("Examples"):
        indent = " " * formatter.current_indent
        for line, remark in examples:
            formatter.write(f"{indent}{line:{width}}   # {remark}\n" if remark else f"{indent}{line}\n")
