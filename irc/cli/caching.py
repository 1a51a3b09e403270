"""The command cache: shows and clears the compiled programs on disk. `main` adds it to the group of all commands."""

from __future__ import annotations

import click

from irc.cli.commands import Command
from irc.cli.options import JSON
from irc.cli.output import show, show_json
from irc.diagnostics import counted


@click.command(cls=Command, only_prints=True, short_help="Show or clear the cache of compiled programs.")
@click.option("--clear", is_flag=True, help="Remove all entries that no process is using.")
@JSON
def cache(clear: bool, as_json: bool) -> None:
    """Show where compiled PyTorch programs are kept, how many there are, and how many bytes they take.

    irc.compile and torch.compile(backend="irc") keep what they compile, by its content. IRC_CACHE names the folder, or
    is "off"; IRC_CACHE_BYTES limits all entries together.
    """
    from irc.driver import cache as cache_report
    from irc.driver.printing import format_bytes

    report = cache_report(clear=clear)
    if as_json:
        show_json(report)
        return
    if report.folder is None:
        show("the cache is off: IRC_CACHE is off, or its folder cannot be used")
        return
    if clear:
        show(f"removed {counted(report.removed, 'entry', 'entries')}")
    show(
        f"{report.folder}: {counted(report.entries, 'entry', 'entries')}, {format_bytes(report.bytes)} "
        f"of at most {format_bytes(report.most_bytes)}"
    )


COMMANDS = (cache,)
