"""What a command says beside its result: `--verbose`, `--quiet`, `--timings`, progress on a terminal, and colors.

Every command has one `Reporting`, the object of its click context. `Command` adds the options and the block around a
command; `output` asks `reporting()` what to print.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from irc.diagnostics import printable
from irc.stages import Stage, Stages

PATIENCE = 2.0  # seconds after which a command that goes on shows its progress
INTERVAL = 0.25  # seconds between two looks at it
CLEAR_LINE = "\r\x1b[K"
STYLES = {"ok": "32", "FAIL": "1;31"}


@dataclass
class Reporting:
    """What one command prints beside its result, its stages, and its line of progress."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    timings: bool = False
    stages: Stages = field(default_factory=Stages)
    progress: Progress | None = None

    @contextmanager
    def of_command(self) -> Iterator[None]:
        """The block in which a command runs: stages are observed, and progress is shown on a terminal."""
        self.stages.ended = self.show_stage if self.verbose else None
        if shows_progress(sys.stderr) and not (self.quiet or self.json or self.verbose):
            self.progress = Progress(self.stages)
        try:
            with self.stages.observed():
                yield
        finally:
            if self.progress is not None:
                self.progress.end()
            if self.timings and not self.json:
                self.show_timings()

    def show_stage(self, stage: Stage) -> None:
        """`pass fold: 0.012 s, 120 -> 98 operations` on stderr."""
        about = f" {stage.detail}" if stage.detail else ""
        result = f", {stage.result}" if stage.result else ""
        say(f"{stage.name}{about}: {stage.seconds:.3f} s{result}")

    def show_timings(self) -> None:
        """A row for each stage on stderr."""
        table = self.times()
        total, rows = table["seconds"], table["stages"]
        width = max([24, *(len(row["stage"]) for row in rows)])
        say(f"{'stage':{width}} {'runs':>6} {'seconds':>9} {'share':>6}")
        for row in rows:
            say(f"{row['stage']:{width}} {row['runs']:>6} {row['seconds']:>9.3f} {row['seconds'] / total:>6.1%}")
        say(f"{'total':{width}} {'':>6} {total:>9.3f}")

    def times(self) -> dict[str, Any]:
        """The same for `--json`; what is no stage, such as importing packages, is the row `other`."""
        total, ended = self.stages.seconds, self.stages.totals
        rows = [{"stage": name, "runs": each.runs, "seconds": each.seconds} for name, each in ended.items()]
        other = total - sum(each.seconds for each in ended.values())
        return {"seconds": total, "stages": [*rows, {"stage": "other", "runs": 1, "seconds": max(0.0, other)}]}

    def show_progress(self, text: str) -> None:
        """The function that the driver calls with the next step."""
        self.stages.step = text


def reporting() -> Reporting:
    """That of the command that runs; outside of a command, one that says everything."""
    context = click.get_current_context(silent=True)
    current = None if context is None else context.find_object(Reporting)
    return Reporting() if current is None else current


def set_option(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """The callback of the options below."""
    if value:
        setattr(context.ensure_object(Reporting), str(parameter.name), True)


def say(line: str) -> None:
    """A line on stderr, whose control characters are escaped."""
    echo(printable(line) + "\n", err=True)


def echo(text: str, err: bool) -> None:
    """Print a text as it is. Where no output is open the result is lost, which is an error."""
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        if not err:
            raise OSError("the standard output is closed")
        return
    progress = reporting().progress
    if progress is not None:
        progress.clear()
    try:
        click.echo(text, nl=False, err=err, color=has_colors(stream))
    except OSError:
        if not err:  # without stderr there is the exit status
            raise


# -- terminals -------------------------------------------------------------------------------------------------


def has_colors(stream: Any) -> bool:
    """Whether a stream gets colors: NO_COLOR and FORCE_COLOR say so, else whether it is a terminal that has them."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def painted(mark: str, stream: Any) -> str:
    """`ok` or `FAIL`, in its color where the stream has colors."""
    return f"\x1b[{STYLES[mark.strip()]}m{mark}\x1b[0m" if has_colors(stream) else mark


def is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is no such stream, or it is closed
        return False


def shows_progress(stream: Any) -> bool:
    """Whether a stream is a terminal on which a line can be cleared."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


class Progress:
    """A line on stderr with the running stage and the seconds so far, from PATIENCE seconds on.

    A thread of its own writes it, as a stage that takes long may be one call of a library.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.is_shown = False
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.start = time.monotonic()
        self.thread = threading.Thread(target=self.write, name="irc-progress", daemon=True)
        self.thread.start()

    def write(self) -> None:
        wait = PATIENCE
        while not self.stop.wait(wait):
            wait = INTERVAL
            text = f"{time.monotonic() - self.start:.0f} s  {self.stages.current}"
            with self.lock:
                if not self.stop.is_set() and not self.put(CLEAR_LINE + shortened(printable(text))):
                    return
                self.is_shown = True

    def put(self, text: str) -> bool:
        """Write to the terminal; whether it is still there."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            return False
        return True

    def clear(self) -> None:
        """Remove the line, before anything else is printed."""
        with self.lock:
            if self.is_shown:
                self.put(CLEAR_LINE)
                self.is_shown = False

    def end(self) -> None:
        self.stop.set()
        self.clear()
        self.thread.join(timeout=1.0)


def shortened(text: str) -> str:
    """A text that takes less than a line of the terminal, so that clearing the line removes it."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # 0: it is not known
    except (OSError, ValueError):
        columns = 80
    return text if len(text) < columns else text[: max(0, columns - 4)] + "..."
