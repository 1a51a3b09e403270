"""`irc reduce`: reduce a model on which a check fails to a minimal part that fails in the same way, or a model that has
a property to a minimal part that has it (`irc.driver.keeping`).

Parts are sets of operations of one block: values of other operations that they read become inputs, with their arrays in
a run of the whole. Sets are reduced by delta debugging (Zeller and Hildebrandt, 2002, algorithm ddmin). Then regions
are replaced by their contents, operations by their operands, and extents by smaller ones.

Where the imported program differs from the original model, an ONNX file or a PyTorch program, the original is reduced.
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

from irc.diagnostics import Exit, IrcError, Location, counted, fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.checking import check, compare_import
from irc.driver.keeping import Property, read_property
from irc.driver.models import Backend, Settings, Source
from irc.driver.original import Original
from irc.driver.originals import load_with_original, original_of
from irc.driver.printing import format_count
from irc.driver.resizing import resized
from irc.driver.slicing import Part, Recording, callees, computing, constants_of, part, record
from irc.driver.text_files import save_text
from irc.files import guarded, replacing_folder
from irc.ir import Block
from irc.module import Module

FILES = ("program.irc", "inputs.npz", "command")
ORIGINALS = ("program.onnx", "program.pt2")
# Codes of errors in the command line, as opposed to failures of the model.
MISTAKES = ("usage", "load", "file", "install")
NAMES_A_STAGE = ("internal.pass", "pass.raised")


@dataclass(frozen=True)
class Failure:
    """How a check fails: the stage (`fuse`, or the backend) and the kind of operation, or the error."""

    stage: str = ""
    kind: str | None = None  # of operation, as imported; None if not known
    error: str = ""
    kept: str = ""  # the properties that it has instead

    def is_like(self, other: Failure | None, kinds: Collection[str] = ()) -> bool:
        """Whether it is the same failure, of the same kind or one of `kinds`; an unknown kind is like any other."""
        if other is None or (self.stage, self.error, self.kept) != (other.stage, other.error, other.kept):
            return False
        return None in (self.kind, other.kind) or other.kind in (self.kind, *kinds)

    def __str__(self) -> str:
        if self.kept:
            return f"it has {self.kept}"
        if self.error:
            return f"the check raises {self.error}"
        return f"values differ at {self.stage}" + (f", first at {self.kind}" if self.kind else "")


@dataclass(frozen=True)
class ReduceReport:
    """Operations before and after (also in regions, without constants), the failure of the result, and the files."""

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
    keep: Sequence[str] = (),
    backend: Backend | None = None,
    pipeline: str | None = None,
    seed: int = 0,
    seconds: float = 600.0,
    progress: Callable[[str], None] = lambda text: None,
    settings: Settings | None = None,
) -> ReduceReport:
    """Find a minimal part of a model on which `check` fails as it does on the whole, and write it. With `keep`, find
    one that has all of these properties, such as "launches>=3" (`irc.driver.keeping` has their forms).

    The folder `output` gets program.irc with its weights, inputs.npz, and a file `command` with the check that fails.
    It is written atomically, and replaces a folder of an earlier `reduce`. After `seconds`, or an interrupt, the
    smallest part so far is the result. Raises `check.passes` where the check passes or the model lacks a property,
    `usage.value` for what is no property, and `file.exists` for a folder with other contents.
    """
    settings = replace(Settings.of(settings), reproducers=None, dump_after=())
    folder = Path(output)
    known = {*FILES, *ORIGINALS, "program.safetensors"}
    if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= known):
        raise fail("file.exists", f"{folder.name} exists and holds other things", at=Location(file=str(folder)),
                   help="choose another folder with -o, or remove it yourself")  # fmt: skip
    properties = tuple(map(read_property, keep))
    deadline = time.monotonic() + seconds
    original, module, given = _read(source, inputs, settings, seed)
    target = None if original is None or properties else original_failure(original)
    if original is not None and target is not None:
        progress(f"the whole fails: {target}")
        return _reduce_original(original, target, folder, settings, deadline, progress)
    assert module is not None
    settings = settings.with_files_of(module)
    options: dict[str, Any] = {"backend": backend, "pipeline": pipeline, "settings": settings}
    failure = partial(_kept, properties=properties, **options) if properties else partial(_failure, **options)
    whole = Part(module, given)
    target = failure(module, given)
    if target is None:
        raise _nothing_to_reduce(keep)
    progress(f"the whole fails: {target}")
    search = _PartSearch(target, lambda current: failure(current.module, current.inputs), deadline, progress)
    smallest = search.smallest(whole)
    with replacing_folder(folder) as beside:
        program, arrays, command = (beside / name for name in FILES)
        save_text(smallest.module, program)
        write_arrays(arrays, smallest.inputs)
        again = failure(program, arrays)
        if not target.is_like(again, search.kinds):  # the files must show the failure
            raise fail("internal.error", f"the written program fails in another way: {again}, not {target}")
        shown = next((each for each in properties if not each.is_of_check), None)
        line = _command(folder.absolute() / FILES[0], smallest.module, backend, pipeline, settings, shown)
        command.write_text(line, "utf-8")
    return ReduceReport(whole.size, smallest.size, str(again), search.checks,
                        tuple(str(folder / name) for name in FILES), not search.is_late)  # fmt: skip


def _nothing_to_reduce(keep: Sequence[str]) -> IrcError:
    if keep:
        return fail("check.passes", f"the model does not have {' and '.join(keep)}, so that there is nothing to reduce",
                    help="irc kernels shows its figures, irc check its errors, at the same options")  # fmt: skip
    return fail("check.passes", "the check passes, so that there is nothing to reduce",
                help="irc check takes the same options; try other inputs with --seed or --input")  # fmt: skip


def _read(source: Source, inputs: Any, settings: Settings,
          seed: int) -> tuple[Original | None, Module | None, dict[str, Any]]:  # fmt: skip
    """The original model, the imported module, and its inputs; None for what there is not."""
    try:
        module, original = load_with_original(source, settings)
    except Exception as error:
        # A model that its own runtime runs, and that irc cannot import, can be reduced as well, given its inputs.
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
    """Whether an error is about the model's computation, rather than files, options, or unsupported operations."""
    return error.exit_code != Exit.USAGE and error.code.split(".")[0] not in MISTAKES and not error.code.endswith(
        ".unsupported")  # fmt: skip


def original_failure(original: Original) -> Failure | None:
    """How the imported program differs from the original; None where the original does not run."""
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


def _reduce_original(original: Original, target: Failure, folder: Path, settings: Settings, deadline: float,
                     progress: Callable[[str], None]) -> ReduceReport:  # fmt: skip
    """Reduce the original model, since the difference arises when it is imported."""
    search: _Search[Original] = _Search(target, original_failure, deadline, progress)
    smallest, before = original, None
    while smallest is not before:
        before = smallest
        _, smaller = search.subset(smallest.items, smallest.part, least=1)
        smallest = smaller or smallest
        smallest = search.first(smallest.insides()) or smallest
    with replacing_folder(folder) as beside:
        name = smallest.save(beside)
        write_arrays(beside / FILES[1], smallest.inputs)
        module = None if target.error else smallest.module()
        command = _command(folder.absolute() / name, module, None, None, settings)
        (beside / FILES[2]).write_text(command, "utf-8")
    files = (name, *FILES[1:])
    return ReduceReport(original.size, smallest.size, str(target), search.checks,
                        tuple(str(folder / file) for file in files), not search.is_late)  # fmt: skip


def _failure(source: Source, inputs: Any, backend: Backend | None, pipeline: str | None,
             settings: Settings) -> Failure | None:
    """How the check of a program fails, if it does; raises errors of the command line."""
    plain = replace(settings, specialize={}, fold_defaults=False)  # already applied to the program
    program = source if isinstance(source, Module) else replace(plain, dims={}).load(source)
    checking = replace(plain, dims=_known(settings, program))
    try:
        report = check(program, inputs, backend=backend, pipeline=pipeline, each=True, settings=checking)
    except IrcError as error:
        if error.exit_code == Exit.USAGE or error.code.split(".")[0] in MISTAKES:
            raise
        return Failure(error=_described(error))
    except Exception as error:  # an error in irc: compared by its class
        return Failure(error=type(error).__name__)
    failed = [stage for stage in report.stages if not stage.passed]
    return Failure(failed[0].stage.split(".")[0], failed[0].first_kind) if failed else None


def _kept(source: Source, inputs: Any, *, properties: Sequence[Property], backend: Backend | None,
          pipeline: str | None, settings: Settings) -> Failure | None:  # fmt: skip
    """A failure that stands for the properties, if a program has them all. Raises the errors of compiling it."""
    plain = replace(settings, specialize={}, fold_defaults=False)  # already applied to the program
    program = source if isinstance(source, Module) else replace(plain, dims={}).load(source)
    known = replace(plain, dims=_known(settings, program))
    if not all(each.holds(program, pipeline, known) for each in properties if not each.is_of_check):
        return None
    of_check = [each for each in properties if each.is_of_check]
    failed = _failure(program, inputs, backend, pipeline, settings) if of_check else None
    if of_check and (failed is None or not all(each.is_shown_by(failed.error) for each in of_check)):
        return None
    return Failure(kept=" and ".join(each.text for each in properties))


def _described(error: IrcError) -> str:
    """What identifies an error in a smaller program: its code; for a failing pass also the pass and the cause."""
    if error.code not in NAMES_A_STAGE:
        return error.code
    cause = error.__cause__
    kind = cause.code if isinstance(cause, IrcError) else type(cause).__name__
    stages = re.findall(r"`(\w+)", error.diagnostics[0].message)
    return f"{error.code}: {kind} in {', '.join(stages)}"


def _known(settings: Settings, module: Module) -> dict[str, int]:
    """The sizes of the settings for symbols of a program."""
    return {name: size for name, size in settings.dims.items() if name in module.main.symbols}


def _command(program: Path, module: Module | None, backend: Backend | None, pipeline: str | None,
             settings: Settings, shown: Property | None = None) -> str:  # fmt: skip
    """The shell command that shows the failure, or a property; paths in the pipeline are relative to the current
    directory."""
    if shown is not None:
        words = shown.command(str(program), pipeline)
    else:
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
Reduced = TypeVar("Reduced", Part, Original)  # what is reduced


@dataclass
class _Search(Generic[Reduced]):
    """A search for smaller parts that fail like `target`; it counts checks, and ends at the deadline."""

    target: Failure
    failure: Callable[[Reduced], Failure | None]
    deadline: float
    progress: Callable[[str], None]
    checks: int = 0
    kinds: set[str] = field(default_factory=set)  # other kinds of operation that may be the first to differ

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def attempt(self, make: Callable[[], Reduced]) -> Reduced | None:
        """The part that `make` returns, if it fails like the target; None also where it is not a valid program."""
        if self.is_late:
            return None
        try:
            candidate = make()
            self.checks += 1
            if not self.target.is_like(self.failure(candidate), self.kinds):
                return None
        except IrcError:  # such as an unknown size, or types that do not fit
            return None
        except KeyboardInterrupt:  # end the search: the smallest part so far is written
            self.deadline = time.monotonic()
            return None
        elements = format_count(sum(array.size for array in candidate.inputs.values()))
        self.progress(f"fails in the same way: {counted(candidate.size, 'op')}, inputs of {elements}elements")
        return candidate

    def first(self, tries: Iterator[Callable[[], Reduced]]) -> Reduced | None:
        """The first part that fails like the target."""
        return next((candidate for candidate in map(self.attempt, tries) if candidate is not None), None)

    def subset(self, items: Sequence[Any], make: Callable[[Sequence[Any]], Reduced],
               least: int) -> tuple[list[Any], Reduced | None]:
        """ddmin: a subset whose part fails and of which no single item can be removed, and that part if it is new."""
        kept, pieces = list(items), 2
        smallest: Reduced | None = None
        while len(kept) > least:
            size = -(-len(kept) // pieces)
            chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
            tries: list[list[Any]] = [[]] if least == 0 and smallest is None else []
            tries += [chunk for chunk in chunks if len(chunk) < len(kept)]
            tries += [[item for item in kept if item not in chunk] for chunk in chunks] if len(chunks) > 2 else []
            for some in tries:
                candidate = self.attempt(partial(make, some))
                if candidate is not None:
                    pieces = 2 if some in chunks else max(pieces - 1, 2)
                    kept, smallest = some, candidate
                    break
            else:
                if size == 1 or self.is_late:
                    break
                pieces = min(2 * pieces, len(kept))
        return kept, smallest


class _PartSearch(_Search[Part]):
    """A search for a minimal part of an irc module."""

    def smallest(self, current: Part) -> Part:
        """A part of which nothing can be removed, bypassed or made smaller, within the time limit."""
        current = self.fewest(current)
        # Where a pass loses names, the first operation that differs only reads the wrong value: accept its kind as
        # well.
        self.kinds.update(operation.name for operation in current.module.walk())
        current = self.fewest(current)
        current = self.first(_in_numbers(current)) or current
        current = self.first(_ranked(current)) or current
        smaller: Part | None = current
        while smaller is not None:
            current = smaller
            smaller = self.first(_smaller_extents(current))
        return current

    def fewest(self, current: Part) -> Part:
        """A part of which nothing can be removed or bypassed."""
        before = None
        while current is not before:
            before = current
            current = self.fewer(current)
            current = self.first(_insides(current)) or current
            current = self.bypassed(current)
        return current

    def fewer(self, current: Part) -> Part:
        """A part with a subset of the operations, then of the constants, of which no single one can be removed."""
        recording = record(current.module, current.inputs, until_failure=True)
        everything = computing(recording.module.main.block)
        kept, smaller = self.subset(everything, lambda some: part(recording, {*some, *constants_of(some)}), least=1)
        constants = [operation for operation in recording.module.main.block if operation in constants_of(kept)]
        _, smallest = self.subset(constants, lambda some: part(recording, {*kept, *some}), least=0)
        return smallest or smaller or current

    def bypassed(self, current: Part) -> Part:
        """A part in which no operation can be replaced by one of its operands."""
        position = 0
        while position < sum(1 for _ in current.module.walk()):
            smaller = self.first(_bypasses(current, position))
            current, position = (smaller, position) if smaller is not None else (current, position + 1)
        return current


def _insides(current: Part) -> Iterator[Make]:
    """The blocks of the regions and functions of the entry's operations, each as a part.

    For a block that runs several times, both the last and the first execution are tried.
    """

    def make(recording: Recording, block: Block) -> Part:
        items = computing(block)
        return part(recording, {*items, *constants_of(items)})

    entry = current.module.main
    blocks = [region.block for operation in entry.block for region in operation.regions]
    blocks += [function.block for function in callees(current.module, entry.block)]
    for first in (False, True) if blocks else ():
        recording = record(current.module, current.inputs, until_failure=True, first=first)
        for block in blocks:
            if computing(block):
                yield lambda recording=recording, block=block: make(recording, block)  # type: ignore[misc]


def _bypasses(current: Part, position: int) -> Iterator[Make]:
    """The part with the operation at a position replaced by each operand that has its type."""

    def make(index: int) -> Part:
        module = current.module.clone()
        operation = list(module.walk())[position]
        operand = operation.operands[index]
        assert operand is not None
        operation.result.replace_uses(operand)
        operation.erase()
        for other in reversed(list(module.walk())):
            if not other.has_effect and not any(result.uses for result in other.results):
                other.erase()
        everything = [operation for operation in module.main.block if not operation.definition.is_terminator]
        return part(record(module, current.inputs, until_failure=True), everything)

    operation = list(current.module.walk())[position]
    if len(operation.results) == 1 and operation.result.uses:
        for index, operand in enumerate(operation.operands):
            if operand is not None and operand.type == operation.result.type:
                yield lambda index=index: make(index)  # type: ignore[misc]


def _in_numbers(current: Part) -> Iterator[Make]:
    """The part with integers for all symbols of the signature."""
    symbols = current.module.main.symbols
    sizes = record(current.module, current.inputs, until_failure=True).sizes if symbols else {}
    if symbols and all(symbol in sizes for symbol in symbols.values()):
        by_name = {name: sizes[symbol] for name, symbol in symbols.items()}
        yield lambda: Part(current.module.clone(by_name), current.inputs)


def _ranked(current: Part) -> Iterator[Make]:
    """The part with ranked types for all inputs."""
    if not all(value.type.is_ranked for value in current.module.main.arguments):
        yield lambda: resized(current, 0, 0)


def _smaller_extents(current: Part) -> Iterator[Make]:
    """The part with a smaller number for each extent of an input, the largest extent first."""
    extents = {dim for value in current.module.main.arguments for dim in value.type.shape or () if isinstance(dim, int)}
    for old in sorted(extents, reverse=True):
        for new in dict.fromkeys((2, 4, old // 2)):
            if 1 < new < old:
                yield lambda old=old, new=new: resized(current, old, new)  # type: ignore[misc]
