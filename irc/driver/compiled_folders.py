"""Compiled code in folders: what is in them, and whether it is whole and fits what is installed.

A folder has the code (`irc.driver.runners`), the interface of its module as text, and `program.json`, with the digests
of the other files and the versions of the packages that the code needs. Saved programs (`irc.driver.compiled_programs`)
are such folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from irc._version import __version__
from irc.diagnostics import IrcError, Location, fail
from irc.driver.models import Backend
from irc.driver.runners import ARTEFACT, MODEL, interface_of
from irc.driver.text_files import decoded
from irc.files import open_inside
from irc.ir import Function
from irc.module import Module
from irc.parser import parse
from irc.verifier import verify

FORMAT = 1
MARK, INTERFACE, HELD = "program.json", "interface.irc", "held.safetensors"
CODE = {MODEL, f"{MODEL}.data", ARTEFACT}
NAMES = {MARK, INTERFACE, HELD, *CODE}
PACKAGES = {"onnx": ("torch", "onnxruntime"), "triton": ("torch", "triton")}
MOST_BYTES = 1 << 28  # of `program.json`


@dataclass(frozen=True)
class CompiledFolder:
    """A folder whose files are as they were written. `main` is the interface's entry, `stated` what `program.json`
    says, and `digest` that of `program.json`, which has the digests of the others."""

    path: Path
    backend: Backend
    interface: Module
    stated: Mapping[str, Any]
    digest: str

    @property
    def main(self) -> Function:
        return self.interface.main

    def code(self, kept: object = None) -> StoredCode:
        """The code in it; `kept` keeps the folder."""
        files = {name: digest for name, digest in self.stated["files"].items() if Path(name).parts[0] in CODE}
        return StoredCode(self.path, self.interface, files, kept)


@dataclass(frozen=True)
class StoredCode:
    """The code of a module, or of an interface, in a folder: its files with the digest of each, None in a folder that
    only this process writes to. `kept` keeps the folder."""

    folder: Path
    module: Module
    files: Mapping[str, str | None]
    kept: object = None

    @classmethod
    def of_folder(cls, folder: Path, module: Module, kept: object) -> StoredCode:
        """The files that are in a folder now."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls(folder, module, dict.fromkeys(path.relative_to(folder).as_posix() for path in paths), kept)

    def copy(self, new: Path) -> None:
        """Copy the files into a folder. Raises `compiled.folder` where one is not as it was."""
        for name, digest in self.files.items():
            file = open_inside(self.folder, name, "compiled.folder", "compiled.folder")
            if digest is not None and file.digest != digest:
                raise damaged(self.folder, f"another program is in the folder now: {name} is not the file that was "
                              "written")  # fmt: skip
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(file.data.data)


def fill_folder(folder: Path, module: Module, backend: Backend, stated: Mapping[str, Any]) -> str:
    """Add the interface of a module, and `program.json`, to a folder that has its code and all other files. Returns the
    digest of `program.json`."""
    (folder / INTERFACE).write_text(str(interface_of(module)), "utf-8")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    packages = [*PACKAGES[backend], *(["onnxruntime"] if (folder / ARTEFACT / "externs").is_dir() else [])]
    files = {path.relative_to(folder).as_posix(): open_inside(folder, path.relative_to(folder).as_posix()).digest
             for path in paths}  # fmt: skip
    content = {"format": FORMAT, "made_by": f"irc {__version__}", "backend": backend,
               "needs": {name: metadata.version(name) for name in packages}, "files": files, **stated}  # fmt: skip
    (folder / MARK).write_text(json.dumps(content) + "\n", "utf-8")
    return open_inside(folder, MARK).digest


def open_folder(path: Path) -> CompiledFolder:
    """The compiled code in a folder. Raises `compiled.folder` where there is none, or a file is missing or damaged, and
    `compiled.version` for another format, or packages older than those it was compiled with."""
    mark = open_inside(path, MARK, "compiled.folder", "compiled.folder")
    try:
        if mark.data.size > MOST_BYTES:
            raise ValueError(f"it has {mark.data.size} bytes")
        stated = json.loads(bytes(mark.data))
        layout, backend = stated["format"], stated["backend"]
        if layout == FORMAT:
            needs = {str(name): str(version) for name, version in stated["needs"].items()}
            files = {str(name): str(digest) for name, digest in stated["files"].items()}
            if backend not in PACKAGES:
                raise ValueError(f"it names the backend {backend!r:.40}")
            if INTERFACE not in files:
                raise ValueError(f"its list of files has no {INTERFACE}")
            if not set(needs) <= {*PACKAGES["onnx"], "triton"}:
                raise ValueError(f"it needs packages that no program needs: {', '.join(sorted(needs)):.80}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{MARK} is damaged: {error!r:.200}") from None
    if layout != FORMAT:
        raise fail("compiled.version", f"the program was saved in format {layout!r:.20}", at=Location(file=str(path)),
                   expected=f"format {FORMAT}, which irc {__version__} reads",
                   help="compile and save the program again")  # fmt: skip
    for name, version in needs.items():
        _check_version(path, name, version)
    for name, digest in files.items():
        if open_inside(path, name, "compiled.folder", "compiled.folder").digest != digest:
            raise damaged(path, f"{name} is not the file that was written")
    content = bytes(open_inside(path, INTERFACE).data)
    interface = parse(decoded(content, str(path / INTERFACE)))
    verify(interface)
    return CompiledFolder(path, backend, interface, stated, mark.digest)


def is_compiled_folder(place: Path) -> bool:
    """Whether a folder is empty, or holds compiled code and nothing else, so that other code may take its place."""
    if not place.is_dir():
        return False
    names = {entry.name for entry in place.iterdir()}
    try:
        return not names or (names <= NAMES and "files" in json.loads((place / MARK).read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def damaged(path: Path, message: str) -> IrcError:
    """The error of a folder that is not as it was written."""
    return fail("compiled.folder", message, at=Location(file=str(path)), expected="a folder as save() has written it",
                help="compile and save the program again")  # fmt: skip


def _check_version(path: Path, name: str, needed: str) -> None:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise fail("install.missing_extra", f"the program needs {name}, which is not installed",
                   help=f"pip install {name}") from None  # fmt: skip
    if _numbers(installed) < _numbers(needed):
        raise fail("compiled.version", f"the program was compiled with {name} {needed}, and {installed} is installed",
                   at=Location(file=str(path)), expected=f"{name} {needed} or later",
                   help="upgrade it, or compile and save the program again")  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: (2, 9, 1) of 2.9.1+cpu."""
    match = re.match(r"\d{1,9}(\.\d{1,9})*", version)  # Python rejects numbers of thousands of digits
    return tuple(map(int, match.group().split("."))) if match else ()
