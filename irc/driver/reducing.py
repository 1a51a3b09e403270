"""reduce: from a model on which a check fails to the smallest part of it that fails in the same way.

Parts are sets of operations of the entry: what they read from others becomes an input, with the array that it had in
a run of the whole. Sets are made smaller by delta debugging (Zeller and Hildebrandt, 2002, algorithm ddmin).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.checking import check
from irc.driver.models import Settings, Source, load
from irc.driver.slicing import Part, Recording, constants_of, part, record
from irc.driver.text_files import save_text
from irc.ir import Operation
from irc.weights import replacing


@dataclass(frozen=True)
class Failure:
    """How a check fails: at which stage (`fuse`, or the backend), and by which error where it was one."""

    stage: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.stage} raises {self.error}" if self.error else f"values part at {self.stage}"


@dataclass(frozen=True)
class ReduceReport:
    """Operations without constants before and after, how both fail, and the files written."""

    before: int
    after: int
    failure: str
    checks: int
    files: tuple[str, ...]
    finished: bool
    schema: str = "irc.reduce/1"


def reduce(
    source: Source,
    output: str | Path,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    backend: str | None = None,
    pipeline: str | None = None,
    seed: int = 0,
    seconds: float = 600.0,
    progress: Callable[[str], None] = lambda text: None,
    settings: Settings | None = None,
) -> ReduceReport:
    """Find the smallest part of a model on which `check` fails as it does on the whole, and write it.

    The folder `output` gets program.irc with its weights, inputs.npz, and a file `command` with the check that fails.
    After `seconds` the smallest part found so far is taken. Raises `check.passes` where nothing fails.
    """
    settings = replace(settings or Settings(), reproducers=None)
    module = load(source, specialize=settings.specialize)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    checking = replace(settings, specialize={}, dims={})

    def failure(found: Part) -> Failure | None:
        return _failure(found.module, found.inputs, backend, pipeline, checking)

    wanted = failure(Part(module, given))
    if wanted is None:
        raise fail("check.passes", "the check does not fail, so that there is nothing to reduce",
                   help="irc check takes the same options; try other inputs with --seed or --input")
    progress(f"the whole fails: {wanted}")
    search = _Search(record(module, given), wanted, failure, time.monotonic() + seconds, progress)
    everything = [operation for operation in module.main.block if not operation.definition.is_terminator]
    computing = [operation for operation in everything if operation.name != "const"]
    kept = search.smallest(computing)
    constants = search.smallest([operation for operation in everything if operation in constants_of(kept)], beside=kept)
    found = part(search.recording, {*kept, *constants})
    found = search.in_numbers(found)
    files = _write(Path(output), found, backend, pipeline, settings)
    again = _failure(files[0], str(files[1]), backend, pipeline, checking)
    if again != wanted:  # what is written must show what was found
        raise fail("internal.error", f"the program written fails otherwise: {again}, not {wanted}")
    return ReduceReport(len(computing), len(kept), str(wanted), search.checks, tuple(map(str, files)),
                        time.monotonic() < search.deadline)  # fmt: skip


def _failure(source: Source, inputs: Any, backend: str | None, pipeline: str | None,
             settings: Settings) -> Failure | None:
    """How the check of a program fails, if it does."""
    try:
        report = check(source, inputs, backend=backend, pipeline=pipeline, each=True, settings=settings)
    except IrcError as error:
        return Failure("the check", error.code)
    except Exception as error:  # a crash is a failure to look for again, by its kind
        return Failure("the check", type(error).__name__)
    failed = [stage.stage for stage in report.stages if not stage.passed]
    return Failure(failed[0].split(".")[0]) if failed else None


@dataclass
class _Search:
    recording: Recording
    wanted: Failure
    failure: Callable[[Part], Failure | None]
    deadline: float
    progress: Callable[[str], None]
    checks: int = 0

    def fails(self, found: Part) -> bool:
        self.checks += 1
        return self.failure(found) == self.wanted

    def smallest(self, items: Sequence[Operation], beside: Sequence[Operation] | None = None) -> list[Operation]:
        """A subset of `items` that still fails and of which no single one can be left out.

        Tried are the items together with `beside`; without it, together with the constants that they read.
        """

        def still_fails(subset: Sequence[Operation]) -> bool:
            members = {*subset, *(constants_of(subset) if beside is None else beside)}
            if not members:
                return False
            return self.fails(part(self.recording, members))

        kept, pieces = list(items), 2
        while kept and time.monotonic() < self.deadline:
            size = -(-len(kept) // pieces)
            chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
            tries = [chunk for chunk in chunks if len(chunk) < len(kept)]
            tries += [[item for item in kept if item not in chunk] for chunk in chunks if len(chunks) > 2 or beside]
            smaller = next((each for each in tries if time.monotonic() < self.deadline and still_fails(each)), None)
            if smaller is not None:
                pieces = 2 if smaller in chunks else max(pieces - 1, 2)
                kept = smaller
                self.progress(f"{len(kept)} of {len(items)} operations fail in the same way")
            elif size == 1:
                break
            else:
                pieces = min(2 * pieces, len(kept))
        return kept

    def in_numbers(self, found: Part) -> Part:
        """The part with numbers for its symbols, if it fails so too."""
        if not found.module.main.symbols:
            return found
        plain = record(found.module, found.inputs)
        sizes = {symbol.name: plain.sizes[symbol] for symbol in found.module.main.symbols.values()}
        static = Part(found.module.clone(sizes), found.inputs)
        return static if self.fails(static) else found


def _write(folder: Path, found: Part, backend: str | None, pipeline: str | None,
           settings: Settings) -> tuple[Path, Path, Path]:
    """The program, its inputs and the command, as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program, arrays, command = folder / "program.irc", folder / "inputs.npz", folder / "command"
    save_text(found.module, program)
    write_arrays(arrays, found.inputs)
    words = ["irc", "check", program.absolute(), "--input", arrays.absolute(), "--each"]
    words += ["--backend", backend] if backend else []
    words += ["-p", pipeline] if pipeline else []
    words += ["--target", settings.target] if settings.target else []
    words += ["--numerics", settings.numerics] if settings.numerics != Settings.numerics else []
    words += [word for path in settings.loads for word in ("--load", Path(path).absolute())]
    with replacing(command) as file:
        file.write(f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(map(str, words))}\n".encode())
    return program, arrays, command
