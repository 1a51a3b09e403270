"""Files and folders that appear whole or not at all: made under random names beside their place, then renamed.

Partial files of a killed process are removed when the next one writes to the same folder: each partial file is
locked by the process that makes it, so that one without a lock is known to be abandoned. Only the standard library is
imported, and errors are OSErrors: artefacts carry a copy of this file.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed: that is lock enough
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".irc-", ".partial"
ATTEMPTS = 16  # to find a free name, or to replace a folder that another process replaces, too
NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS | getattr(os, "O_BINARY", 0)
FOLDER = os.O_RDONLY | NO_LINKS | getattr(os, "O_DIRECTORY", 0)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well; a link there is replaced."""
    place = Path(path)
    _check_place(place)
    remove_left_over(place.parent)
    beside, handle = _new(place.parent, lambda name: os.open(name, CREATE, 0o666))
    try:
        with open(handle, "w+b") as file:
            yield file
            file.flush()
            if fcntl is None:
                file.close()
            os.replace(beside, place)  # before it is closed, which ends its lock
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` when the block ends well."""
    place = Path(os.path.realpath(path))
    _check_place(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(place.parent, mode=0o777) as beside:
        new = beside / "new"
        new.mkdir()
        yield new
        _put(new, place, beside)


def is_special(path: str | Path) -> bool:
    """Whether a path is a device, pipe or socket, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _check_place(place: Path) -> None:
    """Where the user may write to /dev, a rename would remove /dev/null for all processes of the system."""
    if is_special(place):
        raise OSError(errno.EEXIST, "it is a device or a pipe, which no file replaces", str(place))


class TemporaryFolder:
    """A folder that is removed when the block ends, or with the object; by default among the system's temporary files,
    for this user alone."""

    def __init__(self, parent: str | Path | None = None, mode: int = 0o700) -> None:
        place = Path(tempfile.gettempdir() if parent is None else parent)
        remove_left_over(place)
        self.path, handle = _new(place, lambda name: _make_folder(name, mode))
        self._remove = weakref.finalize(self, _remove_folder, self.path, handle)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self._remove()


def remove_left_over(folder: Path) -> None:
    """Remove the partial files and folders that no process is at work on; what one had moved away is put back."""
    if fcntl is None:
        return
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        names += [each.name for each in entries if each.name.startswith(PREFIX) and each.name.endswith(SUFFIX)]
    for name in names:
        with suppress(OSError):
            _remove_if_left(folder / name)


def _remove_if_left(path: Path) -> None:
    status = os.lstat(path)
    is_folder = stat.S_ISDIR(status.st_mode)
    if status.st_uid != os.getuid() or not (is_folder or stat.S_ISREG(status.st_mode)):
        return
    handle = os.open(path, FOLDER if is_folder else os.O_RDONLY | NO_LINKS)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where a process is at work
        if not is_folder:
            os.unlink(path)
            return
        for moved in path.glob("old*/*"):  # the process ended after it had moved away what it wanted to replace
            if not os.path.lexists(path.parent / moved.name):
                os.rename(moved, path.parent / moved.name)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _new(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """What `make` makes under a random name, and a handle that has it locked."""
    for _ in range(ATTEMPTS):
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        try:
            handle = make(path)
        except FileNotFoundError:  # a folder was taken for left over before it was opened
            if not folder.is_dir():
                raise
            continue
        if fcntl is None:
            return path, handle
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(handle, path):  # no process removed it as abandoned before it was locked
            return path, handle
        os.close(handle)
    raise OSError(errno.EEXIST, "no free name was found for a temporary file", str(folder))


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _make_folder(path: Path, mode: int) -> int:
    """A new folder and a handle of it; -1 where folders have none."""
    os.mkdir(path, mode)
    return os.open(path, FOLDER) if fcntl is not None else -1


def _remove_folder(path: Path, handle: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if handle >= 0:
        os.close(handle)


def _put(new: Path, place: Path, beside: Path) -> None:
    """Rename a folder to its place; what is there is moved away before, and put back if that fails."""
    for number in range(ATTEMPTS):
        old = beside / f"old{number}"
        old.mkdir()
        with suppress(FileNotFoundError):
            os.rename(place, old / place.name)
        try:
            os.rename(new, place)
            return
        except OSError as error:
            taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # by another process
            if not taken or number == ATTEMPTS - 1:
                if not os.path.lexists(place) and os.path.lexists(old / place.name):
                    os.rename(old / place.name, place)
                raise
