"""A person's own Python files, loaded by path: what options of passes name, and what `--load` brings."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from irc.diagnostics import IrcError, did_you_mean, fail
from irc.files import note_input
from irc.user_code import PREFIX, blaming


def load_user_module(path: str | Path) -> ModuleType:
    """Run the file at `path` as a module of a private name; a file that was loaded already is not run twice.

    Raises `file.missing`, `load.raised`, and lets coded errors through (a rule that cannot be traced).
    """
    file = Path(path)
    if not file.is_file():
        raise fail("file.missing", f"there is no file {str(path)!r}", help="give the path of a Python file")
    note_input(file)
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
