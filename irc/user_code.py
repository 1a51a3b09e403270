"""Telling the mistakes in a person's own Python files from ours.

`--load experiment.py`, `policy=rules.py:frugal` and `irc check rules.py` run a file that irc does not know. An
exception in it is that person's to mend, so it becomes a coded error that names the line in their file.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, Location, fail

PREFIX = "irc_user_"  # of the private names under which such files are loaded


def is_user_code(thing: Any) -> bool:
    """Whether a class or function was defined in a person's own file."""
    return str(getattr(thing, "__module__", "")).startswith(PREFIX)


@contextmanager
def blaming(code: str, message: str, at: Location | None = None) -> Iterator[None]:
    """Run a person's code: an exception in it becomes the coded error `code`, with their line in its notes.

    Coded errors pass through: they say what is wrong already. So does what irc's own code raises where no line of a
    person led to it, as in a policy or rule of irc's.
    """
    try:
        yield
    except IrcError:
        raise
    except Exception as error:  # the one boundary to code that is not ours: whatever it raises is reported
        if _is_ours(error):
            raise
        place = _place_of(error)
        note = f"{type(error).__name__}: {error}"
        raise fail(code, message, at=at or place, notes=(f"{place}: {note}" if place.known else note,)) from error


def _is_ours(error: Exception) -> bool:
    """Whether nothing but irc and libraries led to an exception."""
    root = Path(__file__).resolve().parent.parent  # of a checkout; installed, all is in `irc`
    folders = [*(str(root / name) for name in ("irc", "frontends", "passes", "backends")), sysconfig.get_path("stdlib")]
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return not isinstance(error, SyntaxError) and all(
        file.startswith("<") or "site-packages" in file or file.startswith(tuple(f"{each}{os.sep}" for each in folders))
        for file in files)  # fmt: skip


def _place_of(error: Exception) -> Location:
    """The deepest line of a person's file in the traceback; for a syntax error, its place."""
    if isinstance(error, SyntaxError) and error.filename:
        return Location(error.filename, error.lineno or 0, error.offset or 0)
    files = {module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PREFIX)}
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename in files] or frames[-1:]
    return Location(theirs[-1].filename, theirs[-1].lineno or 0) if theirs else Location()
