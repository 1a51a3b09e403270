"""The entry point of the `irc` command: checks the installation, then runs the command line."""

from __future__ import annotations

import sys

from irc.cli.sentinel import overwritten


def main() -> None:
    message = overwritten()
    if message is not None:
        sys.stderr.write(message)
        sys.exit(3)
    from irc.cli.main import main as command_line

    command_line()
