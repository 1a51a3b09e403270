"""reduce: from a model on which a check fails to the smallest part of it that fails in the same way.

Parts are sets of operations of one block: what they read from others becomes an input, with the array that it had in
a run of the whole. Sets are made smaller by delta debugging (Zeller and Hildebrandt, 2002, algorithm ddmin). Then
regions are left behind for what is inside, operations give way to their operands, and extents become small.

Where what irc imports differs from the model as it came, an ONNX file or a program of PyTorch, that is what is made
smaller, in its own operators.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from irc.diagnostics import Exit, IrcError, Location, fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.checking import check, compare_import
from irc.driver.models import Settings, Source
from irc.driver.original import Original
from irc.driver.originals import load_with_original, original_of
from irc.driver.printing import counted, format_count
from irc.driver.resizing import resized
from irc.driver.slicing import Part, Recording, callees, computing, constants_of, part, record
from irc.driver.text_files import save_text
from irc.files import guarded, replacing_folder
from irc.ir import Block
from irc.module import Module

FILES = ("program.irc", "inputs.npz", "command")
ORIGINALS = ("program.onnx", "program.pt2")
# What a person got wrong about the command rather than what fails in the model.
MISTAKES = ("usage", "load", "file", "install")
NAMES_A_STAGE = ("internal.pass", "pass.raised")


@dataclass(frozen=True)
class Failure:
    """How a check fails: at which stage (`fuse`, or the backend) and kind of operation, or by which error."""

    stage: str = ""
    kind: str | None = None  # of operation, as imported; None where no value tells
    error: str = ""

    def is_like(self, other: Failure | None, kinds: Collection[str] = ()) -> bool:
        """Whether it is the same failure, as far as is known of both; of the same kind, or one of `kinds`."""
        if other is None or (self.stage, self.error) != (other.stage, other.error):
            return False
        return None in (self.kind, other.kind) or other.kind in (self.kind, *kinds)

    def __str__(self) -> str:
        if self.error:
            return f"the check raises {self.error}"
        return f"values differ at {self.stage}" + (f", first at {self.kind}" if self.kind else "")


@dataclass(frozen=True)
class ReduceReport:
    """Operations before and after (those in regions too, constants aside), how what is left fails, and the files."""

    before: int
    after: int
    failure: str
    checks: int
    files: tuple[str, ...]
    finished: bool
    schema: str = "irc.reduce/1"


@guarded()
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

    The folder `output` gets program.irc with its weights, inputs.npz, and a file `command` with the check that fails;
    it is written as a whole, in the place of what `reduce` left there before. After `seconds`, or an interrupt, the
    smallest part found so far is taken. Raises `check.passes` where nothing fails, and `file.exists` for a folder of
    something else.
    """
    settings = replace(settings or Settings(), reproducers=None, dump_after=())
    folder = Path(output)
    known = {*FILES, *ORIGINALS, "program.safetensors"}
    if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= known):
        raise fail("file.exists", f"{folder.name} exists and holds other things", at=Location(file=str(folder)),
                   help="choose another folder with -o, or remove it yourself")  # fmt: skip
    deadline = time.monotonic() + seconds
    original, module, given = _read(source, inputs, settings, seed)
    wanted = None if original is None else original_failure(original)
    if original is not None and wanted is not None:
        progress(f"the whole fails: {wanted}")
        return _reduce_original(original, wanted, folder, settings, deadline, progress)
    assert module is not None
    settings = settings.knowing(module)

    def failure(program: Module | Path, arrays: Mapping[str, Any] | Path) -> Failure | None:
        return _failure(program, arrays, backend, pipeline, settings)

    whole = Part(module, given)
    wanted = failure(module, given)
    if wanted is None:
        raise fail("check.passes", "the check does not fail, so that there is nothing to reduce",
                   help="irc check takes the same options; try other inputs with --seed or --input")  # fmt: skip
    progress(f"the whole fails: {wanted}")
    search = _PartSearch(wanted, lambda found: failure(found.module, found.inputs), deadline, progress)
    found = search.smallest(whole)
    with replacing_folder(folder) as beside:
        program, arrays, command = (beside / name for name in FILES)
        save_text(found.module, program)
        write_arrays(arrays, found.inputs)
        again = failure(program, arrays)
        if not wanted.is_like(again, search.kinds):  # what is written must show what was found
            raise fail("internal.error", f"the program written fails otherwise: {again}, not {wanted}")
        command.write_text(_command(folder.absolute() / FILES[0], found.module, backend, pipeline, settings), "utf-8")
    return ReduceReport(whole.size, found.size, str(again), search.checks,
                        tuple(str(folder / name) for name in FILES), not search.is_late)  # fmt: skip


def _read(source: Source, inputs: Any, settings: Settings,
          seed: int) -> tuple[Original | None, Module | None, dict[str, Any]]:  # fmt: skip
    """The model as it came, if it is not irc's own, what irc imports of it, if it does, and its inputs."""
    try:
        module, original = load_with_original(source, settings)
    except Exception as error:
        # A model that runs elsewhere, and that irc does not import, can be taken apart too; with inputs for it.
        if inputs is None or (isinstance(error, IrcError) and not _is_about_the_model(error)):
            raise
        original = original_of(source)
        if original is None:
            raise
        original.give(inputs)
        if original_failure(original) is None:
            raise
        return original, None, original.inputs
    given = given_inputs(module.main, inputs, settings.dims, seed)
    if original is not None:
        original.give(given)
    return original, module, given


def _is_about_the_model(error: IrcError) -> bool:
    """Whether an error is about what the model does, rather than about files, options, or what irc lacks."""
    return error.exit_code != Exit.USAGE and error.code.split(".")[0] not in MISTAKES and not error.code.endswith(
        ".unsupported")  # fmt: skip


def original_failure(original: Original) -> Failure | None:
    """How what irc imports is not the model as it came; None where that does not run."""
    try:
        outputs = original.outputs()
    except IrcError:
        return None
    try:
        stage = compare_import(original.module(), original.inputs, outputs)
    except IrcError as error:
        return Failure(error=_described(error))
    except Exception as error:
        return Failure(error=type(error).__name__)
    return None if stage.passed else Failure(stage.stage)


def _reduce_original(original: Original, wanted: Failure, folder: Path, settings: Settings, deadline: float,
                     progress: Callable[[str], None]) -> ReduceReport:  # fmt: skip
    """Take the model as it came apart: what differs is lost where irc has imported it."""
    search: _Search[Original] = _Search(wanted, original_failure, deadline, progress)
    found, before = original, None
    while found is not before:
        before = found
        _, smaller = search.subset(found.items, found.part, least=1)
        found = smaller or found
        found = search.first(found.insides()) or found
    with replacing_folder(folder) as beside:
        name = found.save(beside)
        write_arrays(beside / FILES[1], found.inputs)
        command = _command(folder.absolute() / name, found.module() if not wanted.error else None, None, None, settings)
        (beside / FILES[2]).write_text(command, "utf-8")
    files = (name, *FILES[1:])
    return ReduceReport(original.size, found.size, str(wanted), search.checks,
                        tuple(str(folder / file) for file in files), not search.is_late)  # fmt: skip


def _failure(source: Source, inputs: Any, backend: str | None, pipeline: str | None,
             settings: Settings) -> Failure | None:
    """How the check of a program fails, if it does; raises what the command itself has wrong."""
    plain = replace(settings, specialize={}, fold_defaults=False)  # what they ask for is in the program already
    program = source if isinstance(source, Module) else replace(plain, dims={}).load(source)
    checking = replace(plain, dims=_known(settings, program))
    try:
        report = check(program, inputs, backend=backend, pipeline=pipeline, each=True, settings=checking)
    except IrcError as error:
        if error.exit_code == Exit.USAGE or error.code.split(".")[0] in MISTAKES:
            raise
        return Failure(error=_described(error))
    except Exception as error:  # a crash is a failure to look for again, by its kind
        return Failure(error=type(error).__name__)
    failed = [stage for stage in report.stages if not stage.passed]
    return Failure(failed[0].stage.split(".")[0], failed[0].first_kind) if failed else None


def _described(error: IrcError) -> str:
    """What is the same of an error in a smaller program: the code; of a pass that failed also which, and by what."""
    if error.code not in NAMES_A_STAGE:
        return error.code
    cause = error.__cause__
    kind = cause.code if isinstance(cause, IrcError) else type(cause).__name__
    stages = re.findall(r"`(\w+)", error.diagnostics[0].message)
    return f"{error.code}: {kind} in {', '.join(stages)}"


def _known(settings: Settings, module: Module) -> dict[str, int]:
    """The sizes of the settings for symbols that a program still has."""
    return {name: size for name, size in settings.dims.items() if name in module.main.symbols}


def _command(program: Path, module: Module | None, backend: str | None, pipeline: str | None,
             settings: Settings) -> str:  # fmt: skip
    """The line for a shell that shows the failure; paths in the pipeline are seen from here."""
    words = ["irc", "check", str(program), "--input", str(program.parent / FILES[1]), "--each"]
    words += ["--backend", backend] if backend else []
    words += ["-p", pipeline] if pipeline else []
    words += ["--target", settings.target] if settings.target else []
    words += ["--numerics", settings.numerics] if settings.numerics != Settings.numerics else []
    words += ["--verify-each"] if settings.verify_each else []
    words += settings.load_options()
    sizes = {} if module is None else _known(settings, module)
    words += [word for name, size in sizes.items() for word in ("--dim", f"{name}={size}")]
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(words)}\n"


Make = Callable[[], Part]
Reduced = TypeVar("Reduced", Part, Original)  # what is made smaller


@dataclass
class _Search(Generic[Reduced]):
    wanted: Failure
    failure: Callable[[Reduced], Failure | None]
    deadline: float
    progress: Callable[[str], None]
    checks: int = 0
    kinds: set[str] = field(default_factory=set)  # of operations: others that may be the first to part

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def attempt(self, make: Callable[[], Reduced]) -> Reduced | None:
        """The part that `make` makes, if it fails as wanted; None where it cannot stand by itself."""
        if self.is_late:
            return None
        try:
            found = make()
            self.checks += 1
            if not self.wanted.is_like(self.failure(found), self.kinds):
                return None
        except IrcError:  # a size or a value that it needs is not known, or types do not fit
            return None
        except KeyboardInterrupt:  # whoever waits has waited enough: what was found by now is written
            self.deadline = time.monotonic()
            return None
        elements = sum(array.size for array in found.inputs.values())
        self.progress(f"fails in the same way: {counted(found.size, 'op')}, inputs of {format_count(elements)}elements")
        return found

    def first(self, tries: Iterator[Callable[[], Reduced]]) -> Reduced | None:
        """The first that fails as wanted."""
        return next((found for found in map(self.attempt, tries) if found is not None), None)

    def subset(self, items: Sequence[Any], make: Callable[[Sequence[Any]], Reduced],
               least: int) -> tuple[list[Any], Reduced | None]:
        """ddmin: a subset whose part fails and of which no single item can be left out, and that part if it is new."""
        kept, pieces = list(items), 2
        found: Reduced | None = None
        while len(kept) > least:
            size = -(-len(kept) // pieces)
            chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
            tries: list[list[Any]] = [[]] if least == 0 and found is None else []
            tries += [chunk for chunk in chunks if len(chunk) < len(kept)]
            tries += [[item for item in kept if item not in chunk] for chunk in chunks] if len(chunks) > 2 else []
            for some in tries:
                next_found = self.attempt(partial(make, some))
                if next_found is not None:
                    pieces = 2 if some in chunks else max(pieces - 1, 2)
                    kept, found = some, next_found
                    break
            else:
                if size == 1 or self.is_late:
                    break
                pieces = min(2 * pieces, len(kept))
        return kept, found


class _PartSearch(_Search[Part]):
    """For the smallest part of a program of irc's."""

    def smallest(self, found: Part) -> Part:
        """A part of which nothing can be left out, bypassed or made smaller, as far as time allows."""
        found = self.fewest(found)
        # Where names are lost on the way, what parts first only reads what is wrong: that may be enough by itself.
        self.kinds.update(operation.name for operation in found.module.walk())
        found = self.fewest(found)
        found = self.first(_in_numbers(found)) or found
        found = self.first(_ranked(found)) or found
        smaller: Part | None = found
        while smaller is not None:
            found = smaller
            smaller = self.first(_smaller_extents(found))
        return found

    def fewest(self, found: Part) -> Part:
        """A part of which nothing can be left out or bypassed."""
        before = None
        while found is not before:
            before = found
            found = self.fewer(found)
            found = self.first(_insides(found)) or found
            found = self.bypassed(found)
        return found

    def fewer(self, found: Part) -> Part:
        """A part with a subset of the operations, then of the constants, of which no single one can be left out."""
        recording = record(found.module, found.inputs, until_failure=True)
        everything = computing(recording.module.main.block)
        kept, smaller = self.subset(everything, lambda some: part(recording, {*some, *constants_of(some)}), least=1)
        constants = [operation for operation in recording.module.main.block if operation in constants_of(kept)]
        _, smallest = self.subset(constants, lambda some: part(recording, {*kept, *some}), least=0)
        return smallest or smaller or found

    def bypassed(self, found: Part) -> Part:
        """A part in which no operation can give way to one of its operands."""
        position = 0
        while position < sum(1 for _ in found.module.walk()):
            smaller = self.first(_bypasses(found, position))
            found, position = (smaller, position) if smaller is not None else (found, position + 1)
        return found


def _insides(found: Part) -> Iterator[Make]:
    """What is inside the regions and functions that the entry's operations have, each block by itself.

    Of what runs several times both the last and the first time are tried.
    """

    def make(recording: Recording, block: Block) -> Part:
        items = computing(block)
        return part(recording, {*items, *constants_of(items)})

    entry = found.module.main
    blocks = [region.block for operation in entry.block for region in operation.regions]
    blocks += [function.block for function in callees(found.module, entry.block)]
    for first in (False, True) if blocks else ():
        recording = record(found.module, found.inputs, until_failure=True, first=first)
        for block in blocks:
            if computing(block):
                yield lambda recording=recording, block=block: make(recording, block)  # type: ignore[misc]


def _bypasses(found: Part, position: int) -> Iterator[Make]:
    """The operation at a position gives way to each operand that has its type."""

    def make(index: int) -> Part:
        module = found.module.clone()
        operation = list(module.walk())[position]
        operand = operation.operands[index]
        assert operand is not None
        operation.result.replace_uses(operand)
        operation.erase()
        for other in reversed(list(module.walk())):
            if not other.has_effect and not any(result.uses for result in other.results):
                other.erase()
        everything = [operation for operation in module.main.block if not operation.definition.is_terminator]
        return part(record(module, found.inputs, until_failure=True), everything)

    operation = list(found.module.walk())[position]
    if len(operation.results) == 1 and operation.result.uses:
        for index, operand in enumerate(operation.operands):
            if operand is not None and operand.type == operation.result.type:
                yield lambda index=index: make(index)  # type: ignore[misc]


def _in_numbers(found: Part) -> Iterator[Make]:
    """Numbers for all symbols of the signature."""
    symbols = found.module.main.symbols
    sizes = record(found.module, found.inputs, until_failure=True).sizes if symbols else {}
    if symbols and all(symbol in sizes for symbol in symbols.values()):
        yield lambda: Part(found.module.clone({name: sizes[symbol] for name, symbol in symbols.items()}), found.inputs)


def _ranked(found: Part) -> Iterator[Make]:
    """Types with a rank for all inputs."""
    if not all(value.type.is_ranked for value in found.module.main.arguments):
        yield lambda: resized(found, 0, 0)


def _smaller_extents(found: Part) -> Iterator[Make]:
    """Small numbers in the place of each extent of an input, the largest extent first."""
    extents = {dim for value in found.module.main.arguments for dim in value.type.shape or () if isinstance(dim, int)}
    for old in sorted(extents, reverse=True):
        for new in dict.fromkeys((2, 4, old // 2)):
            if 1 < new < old:
                yield lambda old=old, new=new: resized(found, old, new)  # type: ignore[misc]
