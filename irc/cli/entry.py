"""What the `irc` command calls: check the installation, then hand over to the verbs."""

from __future__ import annotations

import sys

from irc.cli.sentinel import overwritten


def main() -> None:
    complaint = overwritten()
    if complaint is not None:
        sys.stderr.write(complaint)
        sys.exit(3)
    from irc.cli.main import main as command_line

    command_line()
