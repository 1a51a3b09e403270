"""extract: the operations between values of a model, as a program that runs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.models import Settings, Source, load
from irc.driver.printing import module_after
from irc.driver.slicing import constants_of, part, record
from irc.driver.text_files import save_text
from irc.ir import Function, Operation, Value


@dataclass(frozen=True)
class ExtractReport:
    """What was written: `operations` without constants, and the files."""

    operations: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: str
    arrays: str
    schema: str = "irc.extract/1"


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

    Both name values (`%scores`) of the entry's own block. The program takes the start values, and what else the
    operations between read; without a start it takes the model's inputs. `output` is FILE.irc; beside it go its
    weights and FILE.npz with the arrays, from a run on `inputs` (random where none are given).
    """
    settings = settings or Settings()
    path = Path(output)
    if path.suffix != ".irc":
        raise fail("usage.arguments", f"extract writes a program, and {output} is none", expected="a path FILE.irc")
    if not stop:
        raise fail("usage.arguments", "extract needs to know where to stop", expected="--to %VALUE")
    if pipeline is None and after is None:
        module = load(source, specialize=settings.specialize)
    else:
        module = module_after(source, pipeline or "default", after, backend, settings)
    ends = [_find(module.main, name) for name in stop]
    begins = [_find(module.main, name) for name in start]
    members = between(begins, ends)
    if not members:
        raise fail("usage.arguments", f"nothing leads from {', '.join(start)} to {', '.join(stop)}")
    recording = record(module, given_inputs(module.main, inputs, settings.dims, seed))
    found = part(recording, members | constants_of(members), ends)
    save_text(found.module, path)
    arrays = path.with_suffix(".npz")
    write_arrays(arrays, found.inputs)
    return ExtractReport(len(members), tuple(found.inputs), tuple(value.name for value in ends), str(path), str(arrays))


def between(begins: Sequence[Value], ends: Sequence[Value]) -> set[Operation]:
    """The operations on ways from one of the first values to one of the others; all that lead to those without any."""
    leading = _reached([value.operation for value in ends if value not in begins], _makers)
    if begins:
        leading &= _reached([user for value in begins for user in _users(value)], _followers)
    return {operation for operation in leading if operation.name != "const"}


def _reached(start: Sequence[Operation | None], neighbors: Any) -> set[Operation]:
    found: set[Operation] = set()
    waiting = [operation for operation in start if operation is not None]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += neighbors(operation)
    return found


def _makers(operation: Operation) -> list[Operation]:
    """What computes what an operation reads, in its own block."""
    read = [value.operation for inner in operation.walk() for value in inner.inputs]
    return [maker for maker in read if maker is not None and maker.block is operation.block]


def _users(value: Value) -> list[Operation]:
    """The operations of a value's own block that read it, perhaps in their regions."""
    found = []
    for user in value.users():
        while user.block is not value.block and user.parent is not None:
            user = user.parent
        if not user.definition.is_terminator:
            found.append(user)
    return found


def _followers(operation: Operation) -> list[Operation]:
    return [user for result in operation.results for user in _users(result)]


def _find(function: Function, name: str) -> Value:
    value = function.find(name.removeprefix("%"))
    if value.block is not function.block:
        raise fail("usage.arguments", f"{name} is inside a region", expected=f"a value of @{function.name}'s own block",
                   help="for a value in a kernel, name one of the kernel's results")  # fmt: skip
    return value
