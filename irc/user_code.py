"""A person's own Python files: loading them by path, and telling their mistakes from ours.

`--load experiment.py`, `policy=rules.py:frugal` and `irc check rules.py` run a file that irc does not know. An
exception in it is that person's to mend, so it becomes a coded error that names the line in their file.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from irc.diagnostics import IrcError, Location, did_you_mean, fail

PREFIX = "irc_user_"  # of the private names under which files are known: a stem, and a digest of where it lies


def load_user_module(path: str | Path) -> ModuleType:
    """Run the file at `path` as a module of a private name; a file that was loaded already is not run twice.

    Raises `file.missing`, `load.raised`, and lets coded errors through (a rule that cannot be traced).
    """
    file = Path(path)
    if not file.is_file():
        raise fail("file.missing", f"there is no file {str(path)!r}", help="give the path of a Python file")
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"{PREFIX}{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file.resolve())
    if specification is None or specification.loader is None:
        raise fail("file.format", f"{str(path)!r} is not a Python file", expected="a name that ends in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with blaming("load.raised", f"{path} could not be loaded"):
            specification.loader.exec_module(module)
    except IrcError:
        del sys.modules[name]
        raise
    return module


def is_reference(text: str) -> bool:
    """Whether a text names a thing in a file: `rules.py:frugal`."""
    path, colon, name = text.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def load_user_object(reference: str) -> Any:
    """What `rules.py:frugal` names; raises `load.missing_name` where the file does not define it."""
    path, _, name = reference.rpartition(":")
    module = load_user_module(path)
    if not hasattr(module, name):
        defined = [key for key in _top_level(Path(path)) if not key.startswith("_")]
        raise fail("load.missing_name", f"{path} does not define `{name}`",
                   help=did_you_mean(name, defined, f"it defines: {', '.join(defined)}"))
    return getattr(module, name)


def _top_level(path: Path) -> Iterator[str]:
    """The names that a file defines itself, rather than imports."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def is_user_code(thing: Any) -> bool:
    """Whether a class or function was defined in a person's own file."""
    return str(getattr(thing, "__module__", "")).startswith(PREFIX)


@contextmanager
def blaming(code: str, message: str, at: Location | None = None) -> Iterator[None]:
    """Run a person's code: an exception in it becomes the coded error `code`, with their line in its notes.

    Coded errors pass through: they say what is wrong already.
    """
    try:
        yield
    except IrcError:
        raise
    except Exception as error:  # the one boundary to code that is not ours: whatever it raises is reported
        place = _place_of(error)
        note = f"{type(error).__name__}: {error}"
        raise fail(code, message, at=at or place, notes=(f"{place}: {note}" if place.known else note,)) from error


def _place_of(error: Exception) -> Location:
    """The deepest line of a person's file in the traceback; for a syntax error, its place."""
    if isinstance(error, SyntaxError) and error.filename:
        return Location(error.filename, error.lineno or 0, error.offset or 0)
    files = {module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PREFIX)}
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename in files] or frames[-1:]
    return Location(theirs[-1].filename, theirs[-1].lineno or 0) if theirs else Location()
