"""Stores: folders whose entries are files and folders, named by the content of all that they depend on.

An entry appears whole or not at all, so that several processes may use a store. Where a store has a limit, the entries
that were not used for the longest time are removed; those that a process holds (`Lease`) stay.
"""

from __future__ import annotations

import os
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from irc import partial
from irc.diagnostics import Location, fail
from irc.files import open_file, replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Entry:
    """An entry by its name: its bytes, and when it was used last, in seconds since 1970."""

    name: str
    bytes: int
    used: float


class Lease:
    """Holds an entry that is a folder: it stays as long as the lease exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1 if fcntl is None else os.open(path, partial.FOLDER)
        if fcntl is not None:
            weakref.finalize(self, os.close, self._handle)
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(self._handle, fcntl.LOCK_SH)

    def is_current(self) -> bool:
        """Whether the folder that is held is still the one of this name. Raises OSError where there is none."""
        return self._handle < 0 or is_at(self._handle, self.path)


def is_at(handle: int, path: Path) -> bool:
    """Whether an open folder is the one at a path: names are given to others after a removal. Raises OSError."""
    return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))


class Store:
    """The entries in a folder, which is made if it is missing, for this user alone if it is `private`. Raises
    `file.exists` for what is no folder, and `file.unreadable`. `most_bytes` is the limit of all entries. What has a
    name that is not of `pattern` is no entry, and is never removed."""

    def __init__(self, folder: str | Path, *, most_bytes: int | None = None, private: bool = False,
                 pattern: str = ".*") -> None:  # fmt: skip
        self.folder, self.most_bytes, self.pattern = Path(folder), most_bytes, re.compile(pattern, re.DOTALL)
        try:
            self.folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise fail("file.exists", f"{folder} is no folder", at=Location(file=str(folder)),
                       expected="a folder, or a place for a new one") from None  # fmt: skip
        except OSError as error:
            raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(folder))) from None

    def why_not_private(self) -> str | None:
        """Why others may have written the entries; None where only this user can."""
        if not hasattr(os, "getuid"):
            return None
        status = os.stat(self.folder)
        if status.st_uid != os.getuid():
            return "belongs to another user"
        return "can be written by others" if stat.S_IMODE(status.st_mode) & 0o022 else None

    def read(self, name: str) -> bytes | None:
        """The content of an entry that is a file; None where there is none."""
        path = self.folder / name
        if not path.is_file():
            return None
        with suppress(OSError):
            os.utime(path)
        return bytes(open_file(path, is_input=False).data)

    def write(self, name: str, content: bytes) -> None:
        """Write an entry that is a file."""
        with replacing(self.folder / name) as file:
            file.write(content)

    def find(self, name: str) -> Lease | None:
        """An entry that is a folder; None where there is none."""
        with suppress(OSError):
            while True:
                lease = Lease(self.folder / name)
                if lease.is_current():  # else another process has removed it before it was locked
                    os.utime(lease.path)
                    return lease
        return None

    @contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """A folder to fill, which becomes the entry when the block ends well, unless another process was faster."""
        with partial.TemporaryFolder(self.folder) as beside:
            new = beside / "new"
            new.mkdir(mode=0o700)
            yield new
            try:
                os.rename(new, self.folder / name)
            except OSError:
                if not (self.folder / name).is_dir():
                    raise

    def entries(self) -> list[Entry]:
        """All entries, the one that was used last first."""
        entries = []
        for path in self.folder.iterdir():
            if path.name.startswith(partial.PREFIX) or not self.pattern.fullmatch(path.name):
                continue
            with suppress(OSError):  # another process removes it
                files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
                entries.append(Entry(path.name, sum(each.stat().st_size for each in files), path.stat().st_mtime))
        return sorted(entries, key=lambda entry: (-entry.used, entry.name))

    def shrink(self, most_bytes: int | None = None) -> int:
        """Remove the entries that were not used for the longest time until all take at most so many bytes; returns how
        many were removed."""
        limit = self.most_bytes if most_bytes is None else most_bytes
        total, removed = 0, 0
        for entry in self.entries() if limit is not None else ():
            total += entry.bytes
            if limit is not None and total > limit and self.remove(entry.name):
                total -= entry.bytes
                removed += 1
        return removed

    def remove(self, name: str) -> bool:
        """Remove an entry; False where a process holds it."""
        path = self.folder / name
        with suppress(OSError):
            if path.is_file():
                path.unlink()
                return True
            handle = -1 if fcntl is None else os.open(path, partial.FOLDER)
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if handle >= 0 and not is_at(handle, path):
                    return False
                with partial.TemporaryFolder(self.folder) as beside:
                    os.rename(path, beside / "removed")
                return True
            finally:
                if handle >= 0:
                    os.close(handle)
        return False
