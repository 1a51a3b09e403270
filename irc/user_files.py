"""Python files of users, loaded by path: those that options of passes name, and those of `--load`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from irc import ops
from irc.diagnostics import IrcError, did_you_mean, fail
from irc.files import note_input
from irc.ir import Definition
from irc.module import Module
from irc.op import OperationDefinition
from irc.user_code import PREFIX, blaming, place_of_code

Kind = TypeVar("Kind")


def load_user_module(path: str | Path) -> ModuleType:
    """Run the file at `path` as a module of a private name; a file that was loaded already is not run twice.

    Raises `file.missing`, `file.format`, `load.raised`, and lets coded errors through (a rule that cannot be traced).
    """
    file = Path(path)
    if not file.is_file():
        raise fail("file.missing", f"there is no file {str(path)!r}", help="give the path of a Python file")
    if file.suffix != ".py":  # Python would run others, too, such as native code
        raise fail("file.format", f"{str(path)!r} is not a Python file", expected="a name that ends in .py")
    note_input(file)
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"{PREFIX}{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file.resolve())
    assert specification is not None and specification.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with blaming("load.raised", f"{path} could not be loaded"):
            specification.loader.exec_module(module)
    except IrcError:
        del sys.modules[name]
        raise
    return module


def operations_of(modules: Iterable[ModuleType]) -> dict[str, OperationDefinition]:
    """The operations that files declare, or import from files beside irc, by name.

    Raises `op.declaration` for a name that irc's table has, or that two files declare differently.
    """
    definitions: dict[str, OperationDefinition] = {}
    for module in modules:
        for definition in vars(module).values():
            if isinstance(definition, OperationDefinition) and ops.is_own(definition):
                _check_name(definition)
                other = definitions.setdefault(definition.name, definition)
                if other is not definition:
                    raise fail("op.declaration", f"two operations are called `{definition.name}`",
                               at=place_of_code(definition.source_function),
                               origin=place_of_code(other.source_function), help="rename one of them")  # fmt: skip
    return definitions


def check_operation_names(module: Module) -> None:
    """Raise `op.declaration` where a program has a user's operation under the name of one of irc's: its text would read
    as another program."""
    for definition in own_definitions(module):
        _check_name(definition)


def own_definitions(module: Module) -> list[Definition]:
    """The operations of a program that are not of irc's table, each once."""
    definitions = dict.fromkeys(operation.definition for operation in module.walk())
    return [definition for definition in definitions if ops.is_own(definition)]


def files_of(module: Module) -> list[str]:
    """The files that declare the operations of a program that are not irc's: what reading its text needs."""
    places = (definition.source_function.__code__.co_filename for definition in own_definitions(module))
    return list(dict.fromkeys(places))


def _check_name(definition: Definition) -> None:
    if definition.name in ops.TABLE:
        raise fail("op.declaration", f"irc has an operation called `{definition.name}`",
                   at=place_of_code(definition.source_function), help="give yours another name")  # fmt: skip


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


def load_declared(reference: str, kind: type[Kind], decorator: str) -> Kind:
    """What an option names by `FILE.py:NAME`, a function with this decorator; raises `pass.option` for another."""
    if not is_reference(reference):
        raise fail("pass.option", f"`{reference}` names no function with {decorator}", expected="FILE.py:NAME")
    chosen = load_user_object(reference)
    if not isinstance(chosen, kind):
        raise fail("pass.option", f"{reference} is {chosen!r}", expected=f"a function with {decorator}")
    return chosen


def _top_level(path: Path) -> Iterator[str]:
    """The names that a file defines itself, rather than imports."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
