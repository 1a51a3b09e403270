"""`irc check`: compare every stage of a compilation, and the compiled program, with an evaluation in f64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irc import interpreter
from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs
from irc.driver.blaming import Finding, Suspects, errors_of, of_import
from irc.driver.joining import paired
from irc.driver.measuring import Yardstick, relative_error
from irc.driver.models import Backend, Settings, Source, find_backend, read_pipeline
from irc.driver.optimizing import run_pipeline
from irc.driver.original import Original
from irc.driver.originals import load_with_original
from irc.driver.running import run_compiled
from irc.driver.tolerances import ToleranceReport
from irc.driver.tolerances import why_tolerance as explain_tolerance
from irc.ir import Operation
from irc.module import Module
from irc.named_pipelines import CLEAN
from irc.ops.extern import is_random, is_seeded
from irc.pass_manager import PassManager
from irc.passes.random_numbers import RandomNumbers

# The values of a run in order of execution, by function, name, and number of earlier computations.
Key = tuple[str, str, int]
Values = dict[Key, tuple[Operation, Any]]
Observed = tuple[Values, dict[str, Any]]


@dataclass(frozen=True)
class OutputError:
    """The error of one output against the f64 evaluation, max |a - b| / max |b|, and the allowed error.

    An element is `unsettled` where the imported program gives an infinity or NaN and f64 a number (f16 overflows, for
    example), or where integers differ. Such an element may be either.
    """

    output: str
    error: float
    allowed: float
    unsettled: int = 0
    since: str | None = None  # the stage at which this error first appeared

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class StageResult:
    """The outputs of one stage. Where one has an error that the previous stage did not have, `first_part` names the
    first operation whose value differs from f64, and `first_kind` what that operation was as imported, such as
    "softmax"."""

    stage: str
    outputs: tuple[OutputError, ...]
    first_part: str | None = None
    first_kind: str | None = None

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)


@dataclass(frozen=True)
class CheckReport:
    """The compared stages in order; `passed` if every error is allowed.

    `random` are the outputs that differ from run to run, which are compared only in the interpreter, with its random
    numbers; `without_original` says why the original model could not be run.
    """

    stages: tuple[StageResult, ...]
    label: str
    random: tuple[str, ...] = ()
    without_original: str = ""
    blamed: tuple[Finding, ...] | None = None  # what computes something else; None where it was not searched for
    not_judged: tuple[str, ...] = ()  # what could not be judged alone, and why
    tolerances: tuple[ToleranceReport, ...] = ()  # of the values of `why_tolerance`
    schema: str = "irc.check/1"

    @property
    def passed(self) -> bool:
        return all(stage.passed for stage in self.stages) and not self.blamed


def check(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    backend: Backend | None = None,
    pipeline: str | None = None,
    each: bool = False,
    against: Source | None = None,
    layers: bool = False,
    blame: bool = False,
    why_tolerance: Sequence[str] = (),
    seed: int = 0,
    settings: Settings | None = None,
) -> CheckReport:
    """Compile a model and compare its results with an f64 evaluation of the imported program, and the imported program
    with the original model, an ONNX file in ONNX Runtime without optimizations or a PyTorch program.

    `against` is another model, whose results in its own framework are compared as well (`compare_against`). With
    `layers` each value of the original is compared with irc's of the same operands. With `backend` the compiled program
    is run, too (Triton kernels are interpreted without a GPU). With `each` every pass is compared, so that the report
    names the pass and the operation where values first differ. With `blame` each operation, pass and kernel is judged
    alone (`irc.driver.blaming`). `why_tolerance` are values of which the report has how their tolerances are derived.
    """
    settings = Settings.of(settings)
    module, original = load_with_original(source, settings)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    # Results are named after values, which passes may replace.
    module.main.result_names = tuple(module.main.output_names)
    compiler = backend or "triton"
    text = pipeline or (find_backend(compiler).PIPELINE if backend or each or blame else CLEAN)
    draw_as_compiled(module, text, compiler, settings)
    exact, imported = (observe_values(module, given, precision) for precision in ("f64", "declared"))
    yardsticks = {name: Yardstick(value, exact[1][name]) for name, value in imported[1].items()}
    random = random_outputs(module, given, imported[1])
    stages, without = _of_original(original, given, imported[1], yardsticks, random)
    original = None if without else original
    stages += [compare_layers(module, given, original)] if layers else []
    stages.append(compare("import", imported[1], yardsticks))
    if against is not None:
        stages.append(compare_against(against, module, given, yardsticks, random, settings))
    watch = Suspects(module, given, settings) if blame else None
    passes = _Passes(given, yardsticks, exact[0], imported[0], stages) if each else None
    after = _all_of([one.after for one in (watch, passes) if one is not None])
    final, _ = run_pipeline(module, text, compiler, Settings(**{**vars(settings), "specialize": {}}), after)
    label = "interpreted by NumPy"
    if not each:
        stages.append(compare("passes", interpreter.run(final, given), yardsticks))
    if backend is not None:
        outputs, label = run_compiled(final, given, backend, settings)
        repeated = {name: each for name, each in yardsticks.items() if name not in random}
        before = {} if passes is None else passes.latest[1]
        stages.append(since_before(compare(backend, outputs, repeated), outputs, stages[-1], before))
    tolerances = tuple(explain_tolerance(module, given, name) for name in why_tolerance)
    report = CheckReport(tuple(stages), label, random, without, tolerances=tolerances)
    if watch is None:
        return report
    watch.blame_import(original)
    if backend is not None:
        watch.blame_compiled(final, backend)
    return replace(report, blamed=tuple(watch.findings), not_judged=tuple(watch.not_judged))


def draw_as_compiled(module: Module, pipeline: str, backend: Backend, settings: Settings) -> None:
    """Write random operators as the pipeline will, so that all that is compared draws the same numbers."""
    context = settings.context(backend)
    passes = [each for each in read_pipeline(pipeline, context) if isinstance(each, RandomNumbers)]
    PassManager(passes, context).run(module)


def _all_of(observers: Sequence[Callable[[str, Module], None]]) -> Callable[[str, Module], None]:
    def observe(stage: str, module: Module) -> None:
        for observer in observers:
            observer(stage, module)

    return observe


def _of_original(original: Original | None, given: Mapping[str, Any], imported: Mapping[str, Any],
                 yardsticks: Mapping[str, Yardstick],
                 random: Collection[str]) -> tuple[list[StageResult], str]:  # fmt: skip
    """The comparison with the original model, or why it could not be run."""
    if original is None:
        return [], ""
    try:
        original.give(given)
        return [compare_with_original(original.outputs(), imported, yardsticks, random)], ""
    except IrcError as error:
        return [], " ".join((error.diagnostics[0].message, *error.diagnostics[0].notes))


@dataclass
class _Passes:
    """Compares the program after each pass with f64, and adds the results to `stages`."""

    given: Mapping[str, Any]
    yardsticks: Mapping[str, Yardstick]
    exact: Values
    imported: Values
    stages: list[StageResult]
    latest: Observed = field(default_factory=lambda: ({}, {}))  # of the previous stage

    def after(self, stage: str, current: Module) -> None:
        values = observe_values(current, self.given, "declared")
        result = compare(stage, values[1], self.yardsticks)
        result = since_before(result, values[1], self.stages[-1], self.latest[1])
        if any(not output.passed and output.since is None for output in result.outputs):
            part, kind = first_part(values[0], self.exact, self.imported, self.latest[0])
            result = replace(result, first_part=part, first_kind=kind)
        self.stages.append(result)
        self.latest = values


def compare_layers(module: Module, given: Mapping[str, Any], original: Original | None) -> StageResult:
    """Each value as the original computes it, or an operator of ONNX Runtime, against the operation that irc has for
    it, on the same operands."""
    alone, theirs = of_import(module, given, original)
    errors = [] if alone is None else errors_of(alone, theirs)
    return StageResult("layers", tuple(OutputError(each.value, each.error, each.allowed) for each in errors))


def compare_against(against: Source, module: Module, given: Mapping[str, Any], yardsticks: Mapping[str, Yardstick],
                    random: Collection[str], settings: Settings) -> StageResult:  # fmt: skip
    """The results of another model on the same inputs, in its own framework where it has one, against f64. Inputs and
    outputs are matched by name where both models have the same names, else by position. Raises `diff.signature`, and
    what reading and running it raises.
    """
    other, original = load_with_original(against, replace(settings, dims={}, specialize={}))
    pair = paired(module, other)
    arrays = pair.for_second(given)
    if original is None:
        outputs = list(interpreter.run(pair.second, arrays).values())
    else:
        original.give(arrays)
        outputs = original.outputs()
    names = module.main.output_names
    errors = [(names[one], outputs[place]) for one, place in pair.outputs if names[one] not in random]
    return StageResult("against", tuple(OutputError(name, yardsticks[name].error(array), yardsticks[name].allowed,
                                                    yardsticks[name].unsettled) for name, array in errors))  # fmt: skip


def compare_with_original(outputs: Sequence[Any], imported: Mapping[str, Any], yardsticks: Mapping[str, Yardstick],
                          random: Collection[str]) -> StageResult:  # fmt: skip
    """The imported program's outputs against those of the original model."""
    errors = (OutputError(name, relative_error(array, given), yardsticks[name].allowed)
              for (name, array), given in zip(imported.items(), outputs, strict=True) if name not in random)
    return StageResult("original", tuple(errors))


def compare_import(module: Module, inputs: Mapping[str, Any], outputs: Sequence[Any]) -> StageResult:
    """Compare a module with the outputs of the original model, without any compilation."""
    exact, imported = interpreter.run(module, inputs, precision="f64"), interpreter.run(module, inputs)
    yardsticks = {name: Yardstick(array, exact[name]) for name, array in imported.items()}
    return compare_with_original(outputs, imported, yardsticks, random_outputs(module, inputs, imported))


def random_outputs(module: Module, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that depend on random operators without a seed."""
    if not any(is_random(operation) and not is_seeded(operation) for operation in module.walk()):
        return ()
    others = interpreter.run(module, inputs, draws=1)
    return tuple(name for name, array in outputs.items() if relative_error(others[name], array) > 0)


def observe_values(module: Module, inputs: Mapping[str, Any], precision: Any) -> Observed:
    """Run a module; returns each value with the operation that computed it, and the outputs."""
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
    """The stage, with `since` set for outputs whose error equals that at the stage `before`, with outputs `earlier`."""
    failed = {output.output: output for output in before.outputs if not output.passed}

    def marked(output: OutputError) -> OutputError:
        known = failed.get(output.output)
        if known is None or output.passed or output.output not in earlier:
            return output
        if relative_error(outputs[output.output], earlier[output.output]) > output.allowed:
            return output  # another error
        return replace(output, since=known.since or before.stage)

    return replace(stage, outputs=tuple(map(marked, stage.outputs)))


def first_part(values: Values, exact: Values, imported: Values, latest: Values) -> tuple[str | None, str | None]:
    """The first operation, in order of execution, whose value has a larger error against f64 than is allowed, and
    differs from its value at the `latest` stage: its description, and its name as imported.

    Values correspond by name, since passes keep names. A value that only the later stage has, or that has another type
    there, is skipped.
    """
    for key, (operation, value) in values.items():
        if key not in exact or key not in imported or operation.name == "const":
            continue
        declared = imported[key][1]
        if (value.shape, value.dtype) != (declared.shape, declared.dtype):
            continue
        measure = Yardstick(declared, exact[key][1])
        if measure.error(value) <= measure.allowed:
            continue
        if key not in latest or relative_error(value, latest[key][1]) > measure.allowed:
            return described(key, operation, exact, values), imported[key][0].name
    return None, None


def described(key: Key, operation: Operation, exact: Values, values: Values) -> str:
    """A description of the operation that computes a value."""
    function, name, _ = key
    called = f"@{function}, " if len({function for function, *_ in values}) > 1 else ""
    inside = operation.parent
    kernel = f"kernel @{inside.attributes['name']}, " if inside is not None and inside.name == "kernel" else ""
    rewriter = f", made by {operation.location.made_by[-1]}" if operation.location.made_by else ""
    new = [operand.operation for operand in operation.inputs if (function, operand.name, 0) not in exact]
    reads = "".join(
        f", which reads %{other.results[0].name} = {other.name}, made by {other.location.made_by[-1]}"
        for other in new
        if other is not None and other.location.made_by
    )
    return f"{called}{kernel}%{name} = {operation.name}{rewriter}{reads}"
