"""Distinguishes users' Python code from irc's own: whose exception it is, and whose line a warning names.

`--load experiment.py`, `policy=rules.py:frugal` and `irc check rules.py` run a file that irc does not know. An
exception in it is the user's to fix, so it becomes a coded error that names the line in the file.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from irc.diagnostics import IrcError, Location, fail

PREFIX = "irc_user_"  # of the private names under which such files are loaded
# Packages whose frames are between a user's line and a warning: PyTorch calls irc for torch.compile, and some functions
# of irc are decorated by context managers.
BETWEEN = ("irc", "torch", "functorch", "contextlib")


def is_user_code(thing: Any) -> bool:
    """Whether a class or function was defined in a user's file."""
    return str(getattr(thing, "__module__", "")).startswith(PREFIX)


def place_of_code(thing: Any) -> Location:
    """The file and line where a function or class of a user was defined; unknown for those of irc."""
    if not is_user_code(thing):
        return Location()
    try:
        return Location(inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1])
    except (OSError, TypeError):  # what a decorator made of it, or a file that has changed since
        return Location(sys.modules[thing.__module__].__file__)


@contextmanager
def blaming(code: str, message: str, called: Any = None, places_coded: bool = True) -> Iterator[None]:
    """Run a user's code: an exception in it becomes the coded error `code`, with the user's line in its notes.

    `called` is the function of the user that is called: an exception is the user's also where none of its lines ran, as
    for a wrong number of parameters. Coded errors keep what they say, and gain the place (unless `places_coded` is
    false: a caller knows a better one). What irc's own code raises where no line of a user led to it passes through.
    """
    try:
        yield
    except IrcError as error:
        place = _place_of(error, called)
        if not places_coded or not place.known or error.diagnostics[0].location.known:
            raise
        raise error.placed(place) from error.__cause__
    except (Exception, SystemExit) as error:  # the boundary to the user's code: its exceptions are reported
        if not is_user_code(called) and _is_ours(error):
            raise
        place = _place_of(error, called)
        note = f"{type(error).__name__}: {error}"
        raise fail(code, message, at=place, notes=(f"{place}: {note}" if place.known else note,)) from error


def warn_caller(message: str) -> None:
    """Warn with a UserWarning that names the line outside of irc and PyTorch that called irc, however deep that was."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and is_code_of(frame, BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)  # skip_file_prefixes needs Python 3.12


def is_code_of(frame: FrameType, packages: Collection[str]) -> bool:
    """Whether a frame runs code of one of these packages, or what torch.fx writes, which is of no module."""
    name = frame.f_globals.get("__name__")
    return name is None or name.partition(".")[0] in packages


def _is_ours(error: BaseException) -> bool:
    """Whether nothing but irc and libraries led to an exception."""
    root = Path(__file__).resolve().parent.parent  # of a checkout; installed, all is in `irc`
    folders = [*(str(root / name) for name in ("irc", "frontends", "passes", "backends")), sysconfig.get_path("stdlib")]
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return not isinstance(error, SyntaxError) and _user_files().isdisjoint(files) and all(
        file.startswith("<") or "site-packages" in file or file.startswith(tuple(f"{each}{os.sep}" for each in folders))
        for file in files)  # fmt: skip


def _user_files() -> set[str | None]:
    return {module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PREFIX)}


def _place_of(error: BaseException, called: Any) -> Location:
    """The deepest line of a user's file in the traceback, or where `called` begins; for a syntax error, its place."""
    if isinstance(error, SyntaxError) and error.filename:
        return Location(error.filename, error.lineno or 0, error.offset or 0)
    files, frames = _user_files(), traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename in files]
    if theirs:
        return Location(theirs[-1].filename, theirs[-1].lineno or 0)
    if is_user_code(called) or isinstance(error, IrcError):
        return place_of_code(called)
    return Location(frames[-1].filename, frames[-1].lineno or 0) if frames else Location()
