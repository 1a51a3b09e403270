"""check: compare every stage of a compilation, and its end, with an evaluation in f64."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc import dtypes, interpreter
from irc.diagnostics import fail
from irc.driver.arrays import given_inputs
from irc.driver.compiling import run_pipeline
from irc.driver.models import CLEAN, Settings, Source, find_backend, load
from irc.driver.running import run_compiled
from irc.ir import Module, Operation
from irc.ops.extern import is_random, is_seeded

# A stage may be this many times further from f64 than the program as it was imported, which has rounding of its own.
ALLOWANCE = 8.0
# ... and never has to be closer than this many units in the last place of the output's type.
LEAST_UNITS = 64.0
LEAST_NARROW_UNITS = 4.0  # of types whose sums are kept in f32


@dataclass(frozen=True)
class OutputError:
    """How far one output is from the f64 evaluation: max |a - b| / max |b|, and what is allowed."""

    output: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class StageResult:
    """The outputs of one stage; `first_part` names the first operation whose value parts from f64.

    `first_kind` is what that operation was as it was imported, such as "softmax".
    """

    stage: str
    outputs: tuple[OutputError, ...]
    first_part: str | None = None
    first_kind: str | None = None

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)


@dataclass(frozen=True)
class CheckReport:
    """Every stage that was compared, in order; `passed` when each output is within what is allowed.

    `random` are the outputs that differ from run to run, which are compared only as the interpreter draws them.
    """

    stages: tuple[StageResult, ...]
    label: str
    random: tuple[str, ...] = ()
    schema: str = "irc.check/1"

    @property
    def passed(self) -> bool:
        return all(stage.passed for stage in self.stages)


def check(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    backend: str | None = None,
    pipeline: str | None = None,
    each: bool = False,
    seed: int = 0,
    settings: Settings | None = None,
) -> CheckReport:
    """Compile a model and compare its results with an f64 evaluation of the program as it was imported.

    With `backend` the compiled program runs too (Triton interpreted when there is no GPU). With `each` every
    pass is compared, so that the report names the pass, and the operation in it, where values first part.
    Comparisons allow what rounding explains: `ALLOWANCE` times the error that the imported program itself has.
    """
    settings = settings or Settings()
    module = load(source, specialize=settings.specialize)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    # Pinned, since they go by the names of values, which passes may replace.
    module.main.result_names = tuple(module.main.output_names)
    yardstick = observe_values(module, given, "f64")
    imported = observe_values(module, given, "declared")
    allowed = {name: allowance(imported[1][name], value, yardstick[1][name]) for name, value in imported[1].items()}
    stages = [compare("import", imported[1], yardstick[1], allowed)]

    def compare_stage(stage: str, current: Module) -> None:
        if each:
            values = observe_values(current, given, "declared")
            stages.append(compare(stage, values[1], yardstick[1], allowed))
            if not stages[-1].passed:
                part, kind = first_part(values[0], yardstick[0], imported[0])
                stages[-1] = StageResult(stage, stages[-1].outputs, part, kind)

    compiler = backend or "triton"
    text = pipeline or (find_backend(compiler).PIPELINE if backend or each else CLEAN)
    final, _ = run_pipeline(module, text, compiler, Settings(**{**vars(settings), "specialize": {}}), compare_stage)
    label = "interpreted by NumPy"
    if not each:
        stages.append(compare("passes", interpreter.run(final, given), yardstick[1], allowed))
    random = random_outputs(module, given, imported[1])
    if backend is not None:
        outputs, label = run_compiled(final, given, backend, settings)
        repeated = {name: array for name, array in yardstick[1].items() if name not in random}
        stages.append(compare(backend, outputs, repeated, allowed))
    return CheckReport(tuple(stages), label, random)


def random_outputs(module: Module, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that are others when random operators without a seed draw other numbers."""
    if not any(is_random(operation) and not is_seeded(operation) for operation in module.walk()):
        return ()
    others = interpreter.run(module, inputs, draws=1)
    return tuple(name for name, array in outputs.items() if relative_error(others[name], array) > 0)


# The values of a run, in order of execution, by function, name, and how often that was computed before.
Values = dict[tuple[str, str, int], tuple[Operation, Any]]
Observed = tuple[Values, dict[str, Any]]


def observe_values(module: Module, inputs: Mapping[str, Any], precision: Any) -> Observed:
    """Run a module; returns each value with the operation that made it, and the outputs."""
    values: Values = {}
    times: Counter[tuple[str, str]] = Counter()

    def keep(operation: Operation, results: Sequence[Any]) -> None:
        function = operation.function
        for result, array in zip(operation.results, results, strict=True):
            where = function.name if function is not None else ""
            values[where, result.name, times[where, result.name]] = (operation, array)
            times[where, result.name] += 1

    outputs = interpreter.run(module, inputs, precision=precision, observe=keep)
    return values, outputs


def compare(
    stage: str, outputs: Mapping[str, Any], truth: Mapping[str, Any], allowed: Mapping[str, float]
) -> StageResult:
    missing = [name for name in truth if name not in outputs]
    if missing:
        raise fail("check.differs", f"after {stage} there is no output {missing[0]}", expected=", ".join(truth))
    errors = tuple(OutputError(name, relative_error(outputs[name], truth[name]), allowed[name]) for name in truth)
    return StageResult(stage, errors)


def relative_error(value: Any, truth: Any) -> float:
    """max |a - b| / max |b| in f64; infinite where shapes, NaNs or infinities differ. 0 for empty arrays. Of sequences
    and maps the largest of their elements; infinite where their lengths or keys differ."""
    import numpy as np

    own_parts, parts = parts_of(value), parts_of(truth)
    if own_parts is not None and parts is not None and len(own_parts) == len(parts):
        return max(map(relative_error, own_parts, parts), default=0.0)
    if own_parts is not None or parts is not None:
        return math.inf
    a, b = np.asarray(value), np.asarray(truth)
    if a.shape != b.shape:
        return math.inf
    own, other = dtypes.from_numpy(a.dtype), dtypes.from_numpy(b.dtype)
    if not (own.is_float or own.is_complex or other.is_float or other.is_complex) and np.array_equal(a, b):
        return 0.0
    if dtypes.STRING in (own, other):
        return math.inf
    wide = np.complex128 if own.is_complex or other.is_complex else np.float64
    a, b = a.astype(wide), b.astype(wide)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    difference = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    largest = float(np.abs(b[finite]).max(initial=0.0))
    return difference / largest if largest else (0.0 if difference == 0 else math.inf)


def parts_of(value: Any) -> list[Any] | None:
    """The elements of a sequence, or the keys and the elements of a map; None for an array."""
    import numpy as np

    if getattr(value, "shape", None) == () and value.dtype == object:
        value = value.item()
    if isinstance(value, dict):
        return [np.asarray(list(value)), *value.values()]
    return value if isinstance(value, list) else None


def allowance(declared: Any, own: Any, truth: Any) -> float:
    """What a later stage may differ from f64: zero for integers and bools, else by the declared type's rounding."""
    import ml_dtypes
    import numpy as np

    parts = parts_of(declared)
    if parts is not None:
        return max(map(allowance, parts, parts_of(own) or (), parts_of(truth) or ()), default=0.0)
    array = np.asarray(declared)
    dtype = dtypes.from_numpy(array.dtype)
    if not (dtype.is_float or dtype.is_complex):
        return 0.0
    real = np.empty(0, array.dtype).real.dtype if dtype.is_complex else array.dtype
    units = LEAST_UNITS if real.itemsize >= 4 else LEAST_NARROW_UNITS
    unit = float(ml_dtypes.finfo(real).eps)  # type: ignore[no-untyped-call]
    return max(ALLOWANCE * relative_error(own, truth), units * unit)


def first_part(values: Values, truth: Values, imported: Values) -> tuple[str | None, str | None]:
    """The first operation, in order of execution, whose value is further from f64 than its type explains; in words,
    and what it was as imported.

    Values correspond by name: names are stable through passes. A value that only the later stage has, or that has
    another type there, is passed over.
    """
    for key, (operation, value) in values.items():
        if key not in truth or key not in imported or operation.name == "const":
            continue
        own = imported[key][1]
        if (value.shape, value.dtype) != (own.shape, own.dtype):
            continue
        if relative_error(value, truth[key][1]) > allowance(value, own, truth[key][1]):
            function, name, _ = key
            called = f"@{function}, " if len({function for function, *_ in values}) > 1 else ""
            inside = operation.parent
            kernel = f"kernel @{inside.attributes['name']}, " if inside is not None and inside.name == "kernel" else ""
            made = f", made by {operation.location.made_by[-1]}" if operation.location.made_by else ""
            new = [operand.operation for operand in operation.inputs if (function, operand.name, 0) not in truth]
            reads = "".join(
                f", which reads %{other.results[0].name} = {other.name}, made by {other.location.made_by[-1]}"
                for other in new
                if other is not None and other.location.made_by
            )
            return f"{called}{kernel}%{name} = {operation.name}{made}{reads}", imported[key][0].name
    return None, None
