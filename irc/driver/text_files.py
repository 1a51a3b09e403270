"""Modules in text files: reading them, writing them with their weights, and writing reproducers of failures."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from irc import weights
from irc.diagnostics import IrcError, Location, fail
from irc.dtypes import STRING
from irc.files import MappedFile, note_input, open_file, replacing
from irc.formats import recognized
from irc.ir import Attribute
from irc.module import Module
from irc.op import OperationDefinition
from irc.weights import Tensor


def read_onnx_weights(file: MappedFile) -> Mapping[str, Tensor]:
    """The constants of an ONNX file, to which a text may refer."""
    from irc.frontends.onnx.weights import read_weights

    return read_weights(file)


READERS = {".onnx": read_onnx_weights}  # passed to the parser, which imports no frontend


def load_text(path: Path, operations: Mapping[str, OperationDefinition] | None = None) -> Module:
    """The module in a file, which may use a user's `operations`, given by name.

    Raises `file.missing`, `file.unreadable`, `text.syntax` and the errors of the parser.
    """
    from irc.parser import parse

    try:
        content = path.read_bytes()
        note_input(path)
    except FileNotFoundError:
        raise fail("file.missing", f"there is no file {path}") from None
    except OSError as error:
        raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(path))) from None
    other_format = None if content.lstrip().startswith(b"irc text") else recognized(content, is_text=True)
    if other_format is not None:
        raise fail("file.format", f"{path.name} is {other_format.name}, not irc text", at=Location(file=str(path)),
                   help=other_format.help)
    return parse(decoded(content, str(path)), path, READERS, operations)


def decoded(content: bytes, source: str) -> str:
    """The content of `source` as text; raises `text.syntax` if it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"this is not text: {error.reason} at byte {error.start}"
        raise fail("text.syntax", message, at=Location(file=source), expected="the text format, in UTF-8") from None


def save_text(module: Module, path: Path) -> None:
    """Write `path` and, if there are named constants, a safetensors file next to it.

    Each file is replaced atomically. Constants that share a name but not their data are renamed, in `module` too, whose
    `source` and `source_digest` become those of the new file.
    """
    tensors = _distinct_names(module)
    module.source = module.source_digest = None
    if tensors:
        beside = path.with_suffix(".safetensors")
        weights.save(beside, tensors)
        module.source, module.source_digest = beside.name, open_file(beside).digest
    with replacing(path) as file:
        file.write(str(module).encode())


def _distinct_names(module: Module) -> dict[str, Tensor]:
    """The named tensors of a module by name, after renaming those whose name is used for other data."""
    tensors: dict[str, Tensor] = {}

    def distinct(attribute: Attribute) -> Attribute:
        if isinstance(attribute, tuple):
            return tuple(distinct(part) for part in attribute)
        if isinstance(attribute, dict):
            return {name: distinct(part) for name, part in attribute.items()}
        if not isinstance(attribute, Tensor) or attribute.name is None:
            return attribute
        if attribute.dtype is STRING:  # which the file format cannot hold
            return attribute.renamed(None)
        name, number = attribute.name, 0
        while name in tensors and tensors[name] != attribute.renamed(name):
            number += 1
            name = f"{attribute.name}_{number}"
        return tensors.setdefault(name, attribute.renamed(name))

    for operation in module.walk():
        for name, attribute in operation.attributes.items():
            operation.attributes[name] = distinct(attribute)
    for function in module.functions.values():
        function.defaults = {argument: distinct(tensor) for argument, tensor in function.defaults.items()}
    return tensors


def leave_reproducer(folder: Path, module: Module, command: str, error: Exception) -> str:
    """Write a reproducer of an error in irc to a folder: the module with its weights, the command, the traceback.

    Returns the help line for the user, also where the folder cannot be written.
    """
    try:
        reproducer_folder(folder)
        save_text(module, folder / "module.irc")
        write_text(folder / "command", command)
        write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
    except (OSError, IrcError) as second:
        return f"please report it (no reproducer could be written: {second})"
    return f"please report it with the files in {folder}"


def reproducer_folder(folder: Path) -> Path:
    """The folder, created if missing; raises OSError if it is a link, which a downloaded model may contain."""
    if folder.is_symlink() or folder.parent.is_symlink():
        raise OSError(f"{folder} is a link")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; a link at its path is replaced, not followed."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
