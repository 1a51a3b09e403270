"""check: compare every stage of a compilation, and its end, with an evaluation in f64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irc import interpreter
from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs
from irc.driver.measuring import Yardstick, relative_error
from irc.driver.models import Settings, Source, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.originals import load_with_original
from irc.driver.running import run_compiled
from irc.ir import Operation
from irc.module import Module
from irc.named_pipelines import CLEAN
from irc.ops.extern import is_random, is_seeded


@dataclass(frozen=True)
class OutputError:
    """How far one output is from the f64 evaluation: max |a - b| / max |b|, and what is allowed.

    `unsettled` elements, where the program as imported gives an infinity or NaN and f64 a number, as where f16
    overflows, or another integer, may be either.
    """

    output: str
    error: float
    allowed: float
    unsettled: int = 0
    since: str | None = None  # the earlier stage from which on it has been wrong in this way

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class StageResult:
    """The outputs of one stage; where one of them is wrong in a way in which it was not before, `first_part` names the
    first operation whose value differs from f64.

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

    `random` are the outputs that differ from run to run, which are compared only as the interpreter draws them;
    `without_original` says why the model as it came could not be run, where there is one.
    """

    stages: tuple[StageResult, ...]
    label: str
    random: tuple[str, ...] = ()
    without_original: str = ""
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
    """Compile a model and compare its results with an f64 evaluation of the program as it was imported; and what was
    imported with the model as it came, an ONNX file in ONNX Runtime or a program of PyTorch.

    With `backend` the compiled program runs too (Triton interpreted when there is no GPU). With `each` every
    pass is compared, so that the report names the pass, and the operation in it, where values first differ.
    Comparisons allow what rounding explains (`Yardstick`).
    """
    settings = settings or Settings()
    module, original = load_with_original(source, settings)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    # Pinned, since they go by the names of values, which passes may replace.
    module.main.result_names = tuple(module.main.output_names)
    exact = observe_values(module, given, "f64")
    imported = observe_values(module, given, "declared")
    yardsticks = {name: Yardstick(value, exact[1][name]) for name, value in imported[1].items()}
    random = random_outputs(module, given, imported[1])
    stages, without = [], ""
    if original is not None:
        try:
            original.give(given)
            stages.append(compare_with_original(original.outputs(), imported[1], yardsticks, random))
        except IrcError as error:
            without = " ".join((error.diagnostics[0].message, *error.diagnostics[0].notes))
    stages.append(compare("import", imported[1], yardsticks))
    latest: Observed = ({}, {})  # of the stage before

    def compare_stage(stage: str, current: Module) -> None:
        nonlocal latest
        if each:
            values = observe_values(current, given, "declared")
            result = since_before(compare(stage, values[1], yardsticks), values[1], stages[-1], latest[1])
            if any(not output.passed and output.since is None for output in result.outputs):
                part, kind = first_part(values[0], exact[0], imported[0], latest[0])
                result = replace(result, first_part=part, first_kind=kind)
            stages.append(result)
            latest = values

    compiler = backend or "triton"
    text = pipeline or (find_backend(compiler).PIPELINE if backend or each else CLEAN)
    final, _ = run_pipeline(module, text, compiler, Settings(**{**vars(settings), "specialize": {}}), compare_stage)
    label = "interpreted by NumPy"
    if not each:
        stages.append(compare("passes", interpreter.run(final, given), yardsticks))
    if backend is not None:
        outputs, label = run_compiled(final, given, backend, settings)
        repeated = {name: each for name, each in yardsticks.items() if name not in random}
        stages.append(since_before(compare(backend, outputs, repeated), outputs, stages[-1], latest[1]))
    return CheckReport(tuple(stages), label, random, without)


def compare_with_original(outputs: Sequence[Any], imported: Mapping[str, Any], yardsticks: Mapping[str, Yardstick],
                          random: Collection[str]) -> StageResult:  # fmt: skip
    """What irc imports against the outputs of the model as it came."""
    errors = (OutputError(name, relative_error(array, given), yardsticks[name].allowed)
              for (name, array), given in zip(imported.items(), outputs, strict=True) if name not in random)
    return StageResult("original", tuple(errors))


def compare_import(module: Module, inputs: Mapping[str, Any], outputs: Sequence[Any]) -> StageResult:
    """`check` of a module against the outputs of the model that it is imported from, and of nothing else."""
    exact, imported = interpreter.run(module, inputs, precision="f64"), interpreter.run(module, inputs)
    yardsticks = {name: Yardstick(array, exact[name]) for name, array in imported.items()}
    return compare_with_original(outputs, imported, yardsticks, random_outputs(module, inputs, imported))


def random_outputs(module: Module, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that are others when random operators without a seed draw other numbers."""
    if not any(is_random(operation) and not is_seeded(operation) for operation in module.walk()):
        return ()
    others = interpreter.run(module, inputs, draws=1)
    return tuple(name for name, array in outputs.items() if relative_error(others[name], array) > 0)


# The values of a run, in order of execution, by function, name, and how often that was computed before.
Key = tuple[str, str, int]
Values = dict[Key, tuple[Operation, Any]]
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


def compare(stage: str, outputs: Mapping[str, Any], yardsticks: Mapping[str, Yardstick]) -> StageResult:
    missing = [name for name in yardsticks if name not in outputs]
    if missing:
        raise fail("check.differs", f"after {stage} there is no output {missing[0]}", expected=", ".join(yardsticks))
    errors = (OutputError(name, each.error(outputs[name]), each.allowed, each.unsettled)
              for name, each in yardsticks.items())  # fmt: skip
    return StageResult(stage, tuple(errors))


def since_before(stage: StageResult, outputs: Mapping[str, Any], before: StageResult,
                 earlier: Mapping[str, Any]) -> StageResult:  # fmt: skip
    """The stage with outputs marked that are wrong as they were at the stage `before`, whose outputs are `earlier`."""
    failed = {output.output: output for output in before.outputs if not output.passed}

    def marked(output: OutputError) -> OutputError:
        known = failed.get(output.output)
        if known is None or output.passed or output.output not in earlier:
            return output
        if relative_error(outputs[output.output], earlier[output.output]) > output.allowed:
            return output  # wrong in another way
        return replace(output, since=known.since or before.stage)

    return replace(stage, outputs=tuple(map(marked, stage.outputs)))


def first_part(values: Values, truth: Values, imported: Values, latest: Values) -> tuple[str | None, str | None]:
    """The first operation, in order of execution, whose value is further from f64 than its type explains, and is not
    what it was at the `latest` stage; in words, and what it was as imported.

    Values correspond by name: names are stable through passes. A value that only the later stage has, or that has
    another type there, is passed over.
    """
    for key, (operation, value) in values.items():
        if key not in truth or key not in imported or operation.name == "const":
            continue
        own = imported[key][1]
        if (value.shape, value.dtype) != (own.shape, own.dtype):
            continue
        measure = Yardstick(own, truth[key][1])
        if measure.error(value) <= measure.allowed:
            continue
        if key not in latest or relative_error(value, latest[key][1]) > measure.allowed:
            return described(key, operation, truth, values), imported[key][0].name
    return None, None


def described(key: Key, operation: Operation, truth: Values, values: Values) -> str:
    """The operation that makes a value, in words."""
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
    return f"{called}{kernel}%{name} = {operation.name}{made}{reads}"
