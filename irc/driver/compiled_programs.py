"""Compiled PyTorch programs as functions with the module's calling convention, saved in folders and loaded from there.

A saved program is a folder of compiled code (`irc.driver.compiled_folders`) that has, besides, how the program is
called, and the tensors that it holds and writes. Loading runs no pass and exports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from irc import weights
from irc.diagnostics import Location, check_argument, fail
from irc.driver.compiled_folders import (
    HELD,
    CompiledFolder,
    StoredCode,
    damaged,
    fill_folder,
    is_compiled_folder,
    open_folder,
)
from irc.driver.models import Backend, require, require_triton
from irc.driver.runners import runner_of
from irc.files import open_inside, replacing_folder
from irc.module import Module
from irc.verifier import verify

if TYPE_CHECKING:
    from irc.driver.compile_cache import CompiledCode


@dataclass(frozen=True, slots=True)
class _Version:
    """A program compiled with the weights of one moment. What uses a program reads its version once, since another
    thread may put a newer one in its place. `module` may be a function that gives it, and `saved` are the folder that
    has it and the digest of what is there."""

    module: Module | Callable[[], Module]
    convention: Any
    run: Any
    label: str
    plain: Any
    code: StoredCode | None
    saved: tuple[str, str] | None = None


class CompiledProgram:
    """A PyTorch program that a backend runs. It is called as the program is, and returns the program's structure.

    `module` is the module after all passes; `label` says how it runs. Each call writes the buffers and arguments that
    the program writes; what the program adds to lists and dictionaries is lost, and compiling warns of that. There are
    no gradients.

    Arguments are bound as Python binds them. Python constants (numbers, strings, None) must equal those of the example
    inputs, except integers that `dynamic_shapes` makes dynamic. Raises `run.input_missing`, `run.input_unknown`,
    `run.input_shape`, `run.input_dtype`, `run.dim_range`, `run.dim_conflict`, `run.input_alias` and `torch.tensor`,
    naming the argument: `past["k"][0]`; `run.assert` where sizes break what the program asserts; and `backend.failed`
    where the run itself fails, which with Triton includes such assertions.

    A result that is an argument, a parameter or a buffer, or a view of one or of another result, is returned as such
    where the exported program shows it. Any other has contiguous memory of its own, with its dims in the memory order
    that they had for the example inputs. Results are on the device of the arguments.

    The weights are the module's: where they have changed since, a call compiles the program again first, without
    exporting it. One of another shape or element type raises `weights.changed`. PyTorch counts no writes through
    `.data` or NumPy, so that these are not seen.

    `save` writes it into a folder, from which `irc.load_compiled` makes it again. A pickle of a program that was saved
    or loaded has the name of that folder, and is loaded from there. A copy is the same program, as it is of a function
    in Python: the buffers that it writes are those of the module.
    """

    def __init__(self, module: Module | Callable[[], Module], backend: Backend, convention: Any, run: Any, label: str,
                 plain: Any = None, *, name: str = "", code: StoredCode | None = None,
                 saved: tuple[str, str] | None = None,
                 compile_code: Callable[[Module], CompiledCode] | None = None) -> None:  # fmt: skip
        self.name = name
        self.backend = backend
        plain = plain if convention.is_plain else None
        self._latest = _Version(module, convention, run, label, plain, code, saved)
        self._compile_code = compile_code
        self._lock = Lock()  # of what puts another version in its place

    def _current(self) -> _Version:
        """The version of the weights of now: the program is compiled again if they have changed."""
        version = self._latest
        if not version.convention.weights.is_changed():
            return version
        with self._lock:
            version = self._latest
            if not version.convention.weights.is_changed():  # another thread has done it
                return version
            assert self._compile_code is not None
            convention, imported = version.convention.renewed()
            verify(imported)
            code = self._compile_code(imported)
            run, label, plain = code.runner
            plain = plain if convention.is_plain else None
            self._latest = _Version(code.module, convention, run, label, plain, code.stored)
            return self._latest

    @property
    def label(self) -> str:
        """How it runs."""
        return self._latest.label

    @property
    def saved(self) -> tuple[str, str] | None:
        """The folder that it was saved in or loaded from, and the digest of what is there; None where there is none, or
        weights have changed since."""
        return self._latest.saved

    @property
    def module(self) -> Module:
        """The module after all passes, which are run at the first use where the code was in the cache. Of a loaded
        program it is the interface."""
        self._current()
        with self._lock:
            module = self._latest.module
            if not isinstance(module, Module):
                module = module()
                self._latest = replace(self._latest, module=module)
            return module

    def save(self, folder: str | Path) -> None:
        """Write the program into a folder: the compiled code with the weights of now, how it is called, and the buffers
        that it writes, as they are now. The code is copied; no pass is run unless weights have changed. A folder is
        replaced only where it is empty or has a saved program.

        Raises `file.exists`, `file.unreadable`, `compiled.unsaved` for what no file can state, such as an argument of a
        class that is not at the top of a module, and `compiled.folder` where another has changed or removed the code,
        which is in the folder that the program was loaded from, in the cache, or among temporary files.
        """
        version = self._current()
        assert version.code is not None
        place, digest = save_program(version.code, self.backend, version.convention, folder)
        with self._lock:
            if self._latest.code is version.code:  # else weights have changed since
                self._latest = replace(self._latest, saved=(str(place), digest))

    def __reduce__(self) -> tuple[Any, ...]:
        saved = self._current().saved
        if saved is None:
            raise fail("compiled.unsaved", "a pickle has the name of a saved program's folder, and this was not saved",
                       help="call save(folder) before")  # fmt: skip
        return load_referenced, saved

    def __copy__(self) -> CompiledProgram:
        return self

    def __deepcopy__(self, memo: Any) -> CompiledProgram:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        version = self._latest
        convention = version.convention
        if convention.weights.is_changed():  # asked here, since a call costs microseconds
            version = self._current()
            convention = version.convention
        if version.plain is not None and not kwargs:
            results = version.plain(args)
            if results is not NotImplemented:
                return convention.structured(results)
        call = convention.call(args, kwargs)
        return convention.result(version.run(call.tensors), call)

    def __repr__(self) -> str:
        return f"<{self.name} compiled for {self.backend}: {self.label}>"


def save_program(code: StoredCode, backend: Backend, convention: Any, folder: str | Path) -> tuple[Path, str]:
    """Save a compiled program. Returns the place and the digest of what is there. Raises what `CompiledProgram.save`
    raises."""
    from irc.frontends.torch.saved_calls import stated_call

    check_argument("folder", folder, (str, os.PathLike), "the path of a folder")
    place = Path(folder).absolute()
    if os.path.lexists(place) and not is_compiled_folder(place):
        raise fail("file.exists", f"{place.name} exists and is no saved program of irc", at=Location(file=str(place)),
                   help="choose another name, or remove it yourself")  # fmt: skip
    call, tensors = stated_call(convention)
    with replacing_folder(place) as new:
        code.copy(new)
        if tensors:
            weights.save(new / HELD, tensors)
        digest = fill_folder(new, code.module, backend, {"name": code.module.name, "call": call})
    return place, digest


def load_compiled(folder: str | Path) -> CompiledProgram:
    """Load a compiled program from a folder that its method `save` has written.

    The program is called as the one that was saved. The buffers that it writes are its own, with the contents that they
    had when it was saved. Neither torch.export nor a pass is run, and nothing is unpickled; classes of arguments and
    results must be imported before. The folder of a program for Triton has Python code, which is run: load it only if
    you trust who has written it; the folder must stay while the program is used.

    Raises `usage.value` for what is no path, `compiled.folder` for a folder that is damaged or is none,
    `compiled.version`, `compiled.class`, `onnx.external_outside` for a model that names a file outside of the folder,
    `install.missing_extra` and `backend.failed`.
    """
    check_argument("folder", folder, (str, os.PathLike), "the path of a folder that save() has written")
    require("torch", "torch", "running a saved program")
    path = Path(folder).absolute()
    if not path.is_dir():
        raise fail("compiled.folder", f"there is no folder {folder}", expected="a folder that save() has written")
    return _loaded(open_folder(path))


def load_referenced(folder: str, digest: str) -> CompiledProgram:
    """`load_compiled` of a pickle's reference. Raises `compiled.folder` where another program is there."""
    opened = open_folder(Path(folder))
    if opened.digest != digest:
        raise damaged(opened.path, "another program than the one that was pickled is in the folder")
    return _loaded(opened)


def _loaded(opened: CompiledFolder) -> CompiledProgram:
    from irc.frontends.torch.saved_calls import restored_call

    if opened.backend == "triton":
        require_triton("running Triton kernels")
    try:
        tensors = weights.read(open_inside(opened.path, HELD)) if HELD in opened.stated["files"] else {}
        convention = restored_call(opened.stated["call"], tensors, opened.main)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise damaged(opened.path, f"it does not say how the program is called: {error!r:.200}") from None
    try:
        runner = runner_of(opened.main, opened.backend, opened.path, convention.names, trusted=False)
    except (ValueError, KeyError, OSError) as error:
        raise damaged(opened.path, f"its code does not fit its interface: {error!r:.200}") from None
    return CompiledProgram(opened.interface, opened.backend, convention, *runner, name=opened.interface.name,
                           code=opened.code(), saved=(str(opened.path), opened.digest))  # fmt: skip
