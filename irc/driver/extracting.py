"""`irc extract`: the operations between values of a model as a program of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.models import Backend, Settings, Source
from irc.driver.printing import module_after
from irc.driver.slicing import captured_by, constants_of, part, record
from irc.driver.text_files import save_text
from irc.files import check_model_file, guarded
from irc.ir import Operation, Value
from irc.user_files import files_of


@dataclass(frozen=True)
class ExtractReport:
    """The number of operations that were written, without constants, and the files."""

    operations: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: str
    arrays: str
    loads: tuple[str, ...] = ()  # files that declare operations of the program
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
    backend: Backend = "triton",
    seed: int = 0,
    settings: Settings | None = None,
) -> ExtractReport:
    """Write the operations on paths from the values `start` to the values `stop` as a program, with its inputs in a
    run.

    Both name values (`%scores`) of one block: the entry's, or a region's (of a block that runs several times, the last
    execution counts). The inputs of the program are the start values and whatever else the operations read; without
    start values it begins where the block begins. `output` is FILE.irc; next to it are written its weights and FILE.npz
    with the arrays of a run on `inputs` (random where none are given).
    """
    settings = Settings.of(settings)
    path = Path(output)
    check_model_file(path, ".irc")
    if not stop:
        raise fail("usage.arguments", "extract needs at least one last value", expected="--to %VALUE")
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
    extracted = part(recording, members | constants_of(members), ends, begins)
    save_text(extracted.module, path)
    arrays = path.with_suffix(".npz")
    write_arrays(arrays, extracted.inputs)
    names = tuple(value.name for value in ends)
    loads = tuple(files_of(extracted.module))
    return ExtractReport(len(members), tuple(extracted.inputs), names, str(path), str(arrays), loads)


def between(begins: Sequence[Value], ends: Sequence[Value]) -> set[Operation]:
    """The operations on paths from one of `begins` to one of `ends`; without `begins`, all that `ends` depend on.

    Raises `usage.arguments` for a first value without a path to a last one, and the other way around.
    """
    leading: dict[Operation, None] = {}
    waiting = [value for value in ends if value not in begins]
    while waiting:
        operation = waiting.pop().operation
        if operation is not None and operation.block is ends[0].block and operation not in leading:
            leading[operation] = None
            waiting += [value for value in captured_by(operation) if value not in begins]
    following: dict[Value, set[Value]] = {}  # the first values that each value depends on
    reached: set[Operation] = set()
    for operation in ends[0].block or ():
        sources = {begin for value in captured_by(operation) for begin in following.get(value, ())}
        sources |= {value for value in captured_by(operation) if value in begins}
        if operation in leading and (sources or not begins):
            reached.add(operation)
            following.update((result, sources) for result in operation.results if result not in begins)
    for begin in begins:
        if not any(begin in following.get(value, ()) for value in ends):
            raise fail("usage.arguments", f"no path leads from %{begin.name} to {_listed(ends)}",
                       help="paths end at other values of --from")  # fmt: skip
    for end in ends:
        if end.operation not in reached or end in begins:
            raise fail("usage.arguments", f"no path leads from {_listed(begins) or 'the inputs'} to %{end.name}")
    return {operation for operation in reached if operation.name != "const"}


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(f"%{value.name}" for value in values)
