"""extract: the operations between values of a model, as a program that runs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.models import Settings, Source
from irc.driver.printing import module_after
from irc.driver.slicing import captured_by, constants_of, part, record
from irc.driver.text_files import save_text
from irc.files import guarded
from irc.ir import Operation, Value
from irc.user_files import files_of


@dataclass(frozen=True)
class ExtractReport:
    """What was written: `operations` without constants, and the files."""

    operations: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: str
    arrays: str
    loads: tuple[str, ...] = ()  # files with a user's operations that the program holds, which reading it needs
    schema: str = "irc.extract/1"


@guarded()
def extract(
    source: Source,
    start: Sequence[str],
    stop: Sequence[str],
    output: str | Path,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    pipeline: str | None = None,
    after: str | None = None,
    backend: str = "triton",
    seed: int = 0,
    settings: Settings | None = None,
) -> ExtractReport:
    """Write what leads from the values `start` to the values `stop` as a program, with the inputs that it had in a run.

    Both name values (`%scores`) of one block: the entry's own, or a region's (of a block that runs several times, the
    last time counts). The program takes the start values, and what else the operations between read; without a start
    it goes back to where the block begins. `output` is FILE.irc; beside it go its weights and FILE.npz with the
    arrays, from a run on `inputs` (random where none are given).
    """
    settings = settings or Settings()
    path = Path(output)
    if path.suffix.lower() != ".irc":
        raise fail("usage.arguments", f"extract writes a program, and {output} is none", expected="a path FILE.irc")
    if not stop:
        raise fail("usage.arguments", "extract needs to know where to stop", expected="--to %VALUE")
    if pipeline is None and after is None:
        module = settings.load(source)
    else:
        module = module_after(source, pipeline or "default", after, backend, settings)
    ends = [module.main.find(name.removeprefix("%")) for name in dict.fromkeys(stop)]
    begins = [module.main.find(name.removeprefix("%")) for name in dict.fromkeys(start)]
    for value in begins + ends:
        if value.block is not ends[0].block:
            raise fail("usage.arguments", f"%{value.name} and %{ends[0].name} are in different regions",
                       expected="values of one block", help="irc print shows which region a value is in")  # fmt: skip
    members = between(begins, ends)
    recording = record(module, given_inputs(module.main, inputs, settings.dims, seed))
    found = part(recording, members | constants_of(members), ends, begins)
    save_text(found.module, path)
    arrays = path.with_suffix(".npz")
    write_arrays(arrays, found.inputs)
    names = tuple(value.name for value in ends)
    loads = tuple(files_of(found.module))
    return ExtractReport(len(members), tuple(found.inputs), names, str(path), str(arrays), loads)


def between(begins: Sequence[Value], ends: Sequence[Value]) -> set[Operation]:
    """The operations on ways from one of the first values to one of the others; all that lead to those without any.

    Raises `usage.arguments` for a first value from which no way leads, and another to which none does.
    """
    leading: dict[Operation, None] = {}
    waiting = [value for value in ends if value not in begins]
    while waiting:
        operation = waiting.pop().operation
        if operation is not None and operation.block is ends[0].block and operation not in leading:
            leading[operation] = None
            waiting += [value for value in captured_by(operation) if value not in begins]
    following: dict[Value, set[Value]] = {}  # what values lead to, of the first values themselves
    reached: set[Operation] = set()
    for operation in ends[0].block or ():
        sources = {begin for value in captured_by(operation) for begin in following.get(value, ())}
        sources |= {value for value in captured_by(operation) if value in begins}
        if operation in leading and (sources or not begins):
            reached.add(operation)
            following.update((result, sources) for result in operation.results if result not in begins)
    for begin in begins:
        if not any(begin in following.get(value, ()) for value in ends):
            raise fail("usage.arguments", f"nothing leads from %{begin.name} to {_listed(ends)}",
                       help="ways end at other values of --from")  # fmt: skip
    for end in ends:
        if end.operation not in reached or end in begins:
            raise fail("usage.arguments", f"nothing leads from {_listed(begins) or 'the inputs'} to %{end.name}")
    return {operation for operation in reached if operation.name != "const"}


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(f"%{value.name}" for value in values)
