"""The entry point of the `irc` command: checks the installation, then runs the command line."""

from __future__ import annotations

import gc
import signal
import sys

from irc.cli.sentinel import overwritten

# Allocations between collections of garbage. Imports and small models make fewer, of which hardly any is garbage:
# with Python's default, below 10,000, collections take a tenth of the time of a command.
ALLOCATIONS = 1_000_000


def main() -> None:
    gc.set_threshold(ALLOCATIONS)
    message = overwritten()
    if message is not None:
        sys.stderr.write(message)
        sys.exit(3)
    try:
        from irc.cli.main import main as command_line
    except KeyboardInterrupt:  # `main` handles later ones
        sys.exit(130)
    try:
        command_line()
    finally:  # all is written but what Python still holds; its end would print a traceback of Ctrl-C
        gc.freeze()  # Python looks for garbage when it ends, several times: a sixth of the time of a command
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
