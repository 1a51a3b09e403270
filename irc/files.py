"""Files: those that a user names, those that a model names, which must lie in its folder, and those that are written.

A path that a model names is resolved, must lie in the folder, and is then opened part by part without following links,
so that no link that is put there in between leads elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np

from irc import partial
from irc.diagnostics import IrcError, Location, fail
from irc.limits import allowed_folders, may_replace_inputs

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
BY_PARTS = os.open in os.supports_dir_fd
DIGESTS = 256  # that are kept
_digests: dict[tuple[int, ...], str] = {}
_inputs: ContextVar[dict[str, None] | None] = ContextVar("irc_inputs", default=None)  # real paths, in a `guarded` block


@dataclass(frozen=True, eq=False)
class MappedFile:
    """A file's bytes, mapped into memory and read-only, and its SHA-256 as `sha256:...`."""

    path: Path
    data: Bytes
    identity: tuple[int, ...] = field(repr=False)  # device, number, size, time of change

    @property
    def digest(self) -> str:
        """Computed again only for another file, or where size or time of change differ."""
        if self.identity not in _digests:
            if len(_digests) == DIGESTS:
                _digests.clear()
            _digests[self.identity] = f"sha256:{hashlib.sha256(self.data.data).hexdigest()}"
        return _digests[self.identity]


def open_file(path: Path, missing: str = "file.missing", is_input: bool = True) -> MappedFile:
    """A file that the user names, links included; `missing` is the error's code where there is none. One that is no
    input may be replaced by what is written (`guarded`)."""
    with _reporting(path, missing):
        return _mapped(path, os.open(path, READ), missing, is_input)


def resolve_inside(folder: Path, relative: str, code: str = "weights.outside") -> Path:
    """The path that `relative` means in `folder`, without links; one that leads out of it is rejected with `code`.

    Rejected are absolute paths, `..` (in the manner of any system) and links, of the file or a folder on the way,
    whose target lies elsewhere: a downloaded model must not read the user's other files. Folders that
    `irc.limits.allow` names may be led to in any way.
    """
    return Path(os.path.join(*_inside(folder, relative, code)))


def open_inside(folder: Path, relative: str, code: str = "weights.outside",
                missing: str = "file.missing") -> MappedFile:
    """The file that a model names, as `resolve_inside` has it."""
    root, below = _inside(folder, relative, code)
    path = Path(root, below)
    with _reporting(path, missing):
        if not BY_PARTS:
            return _mapped(path, os.open(path, READ), missing)
        *folders, name = Path(below).parts or (".",)
        handle = os.open(root, partial.FOLDER)
        try:
            for part in folders:
                above, handle = handle, os.open(part, partial.FOLDER, dir_fd=handle)
                os.close(above)
            return _mapped(path, os.open(name, READ | NO_LINKS, dir_fd=handle), missing)
        finally:
            os.close(handle)


def _inside(folder: Path, relative: str, code: str) -> tuple[str, str]:
    """The folder that confines a path, and the path in it, both without links."""
    at = Location(file=str(folder))
    help = "--allow-folder FOLDER lets a model that is trusted name files of another folder"
    parts = PureWindowsPath(relative)  # takes both / and \\ as separators
    root = os.path.realpath(folder)
    real = "" if "\0" in relative else os.path.realpath(os.path.join(root, relative))
    for allowed in map(os.path.realpath, allowed_folders()):
        if real and Path(real).is_relative_to(allowed):
            return allowed, os.path.relpath(real, allowed)
    if parts.anchor or ".." in parts.parts or not real:
        raise fail(code, f"{relative!r} is not a plain path relative to the folder", at=at, help=help)
    if not Path(real).is_relative_to(root):
        raise fail(code, f"{relative!r} is a link that leads out of the folder", at=at, help=help)
    return root, os.path.relpath(real, root)


def _mapped(path: Path, handle: int, missing: str, is_input: bool = True) -> MappedFile:
    """What an open file holds; the handle is closed. A pipe or a device would block or never end."""
    with open(handle, "rb"):
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _missing(path, missing)
        if is_input:
            note_input(path)
        size = status.st_size
        data = np.frombuffer(mmap.mmap(handle, size, access=mmap.ACCESS_READ) if size else b"", np.uint8)
        return MappedFile(path, data, (status.st_dev, status.st_ino, size, status.st_mtime_ns))


@contextmanager
def _reporting(path: Path, missing: str) -> Iterator[None]:
    """Turn what the system says into coded errors."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _missing(path, missing) from None
    except OSError as error:
        names_none = error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO)
        raise _missing(path, missing) if names_none else _unreadable(path, error) from None


def _missing(path: Path, code: str) -> IrcError:
    return fail(code, f"there is no file {path.name}", at=Location(file=str(path)))


def _unreadable(path: Path, error: OSError) -> IrcError:
    return fail("file.unreadable", error.strerror or str(error), at=Location(file=str(path)))


# -- writing ---------------------------------------------------------------------------------------------------


@contextmanager
def guarded() -> Iterator[None]:
    """In this block what is written does not take the place of a file that was read in it, or of a folder around one,
    unless `irc.limits.allow` says so: `file.exists`."""
    token = _inputs.set({}) if _inputs.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _inputs.reset(token)


def note_input(path: str | Path) -> None:
    """Remember a file that is read."""
    inputs = _inputs.get()
    if inputs is not None:
        inputs[os.path.realpath(path)] = None


def check_output(path: Path) -> None:
    """Raise `file.exists` for a device or a pipe, and for a place where an input of the current block is, or that it
    lies in."""
    if "\0" in str(path):
        raise fail("file.unreadable", "a path has no null character", at=Location(file=str(path)))
    if partial.is_special(path):
        raise fail("file.exists", f"{path} is a device or a pipe", at=Location(file=str(path)),
                   expected="the place of a file", help="give another output with -o")
    place = os.path.realpath(path)
    for name in [] if may_replace_inputs() else _inputs.get() or ():
        same = name == place or (os.path.exists(place) and os.path.exists(name) and os.path.samefile(name, place))
        if same or Path(name).is_relative_to(place):
            raise fail("file.exists", f"{path} would take the place of an input" + ("" if same else f", {name}"),
                       at=Location(file=str(path)), help="give another output with -o; --force replaces the input")


def check_apart(outputs: Mapping[str, str | Path | None]) -> None:
    """Raise `usage.arguments` where two of the outputs, by the names of their options, are one place, or one is in the
    other."""
    places: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is None or "\0" in str(path):
            continue
        place = Path(os.path.realpath(path))
        for other, taken in places.items():
            if place.is_relative_to(taken) or taken.is_relative_to(place):
                raise fail("usage.arguments", f"--{other} and --{name} both write {path}",
                           expected="a place of its own for each output")  # fmt: skip
        places[name] = place


def check_file(path: Path) -> None:
    """`check_output` for a file: raise `file.exists` for a folder, too, and `file.unreadable` where it lies in a folder
    that nothing can be written to."""
    check_output(path)
    if path.is_dir():
        raise fail("file.exists", f"{path} is a folder", at=Location(file=str(path)), expected="the place of a file",
                   help="give another output with -o")  # fmt: skip
    if not os.access(path.absolute().parent, os.W_OK):
        raise fail("file.unreadable", f"nothing can be written to the folder of {path.name}",
                   at=Location(file=str(path)))  # fmt: skip


def check_model_file(path: Path, *suffixes: str, help: str | None = None) -> None:
    """`check_file` for a file that commands read again: raise `usage.value`, too, where its name has none of the
    suffixes, which say what a file holds."""
    if path.suffix.lower() not in suffixes:
        raise fail("usage.value", f"no command could read {path.name} again",
                   expected=" or ".join(f"FILE{suffix}" for suffix in suffixes), help=help)  # fmt: skip
    check_file(path)


def check_folder(path: Path) -> None:
    """`check_output` for a folder that is to be filled, whose parents are made: raise `file.unreadable` where nothing
    can be written there, before the work is done."""
    check_output(path)
    above = next((each for each in path.absolute().parents if each.exists()), None)
    if above is not None and not os.access(above, os.W_OK):
        raise fail("file.unreadable", f"nothing can be written to {above}", at=Location(file=str(path)))


@contextmanager
def _reporting_writes(place: Path | None = None) -> Iterator[None]:
    """Turn what the system says of writing to a place, by default the one that it names, into `file.unreadable`."""
    try:
        yield
    except OSError as error:
        raise _unreadable(place or Path(error.filename or tempfile.gettempdir()), error) from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well: no partial output is ever seen."""
    check_output(path)
    with _reporting_writes(path), partial.replacing(path) as file:
        yield file


@contextmanager
def replacing_folder(place: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `place` when the block ends well."""
    check_output(place)
    with _reporting_writes(place), partial.replacing_folder(place) as new:
        yield new


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder among the system's temporary files that is removed when the block ends."""
    with _reporting_writes(), partial.TemporaryFolder() as folder:
        yield folder
