"""`irc check --blame`: which operation, pass or kernel computes something else, given the operands of a reference run.

What follows a fault is wrong as well. So each part is judged alone: its operands are those of the reference, and its
results are compared with what they should be of these. The parts are

- the operations of the imported program, on the values that the original model computes (an ONNX file in ONNX Runtime
  without optimizations, or a PyTorch program); without an original, the operators of ONNX Runtime for them;
- the passes: the program after one is evaluated in f64, on values of the program before it;
- the kernels and calls of what is compiled, on values of the program that they were compiled from.

`slicing.part` makes one program of all of them: each operand is an input, and each result an output. So a backend
compiles and runs it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.counting import describe
from irc.driver.measuring import relative_error
from irc.driver.models import Backend, Settings, find_backend
from irc.driver.optimizing import opt
from irc.driver.original import Original
from irc.driver.running import OnnxProgram, run_compiled
from irc.driver.slicing import Part, Recording, part, record
from irc.driver.tolerances import derive
from irc.ir import Block, Operation, Value
from irc.kernel import members_of
from irc.module import Module
from irc.numerics import IN_APPROXIMATION, IN_F64
from irc.ops.extern import is_random
from irc.plan_file import structural_hash


@dataclass(frozen=True)
class Finding:
    """What computes something else: an operation as imported, a pass, or a kernel or call of the compiled program.

    `stage` is "import", the name of the pass, or the backend; `name` is that of the kernel, or of the operation.
    `value` is its first result that differs, by `error` where `allowed` is allowed. `others` are values that parts with
    the same structure compute, and which differ as well.
    """

    stage: str
    name: str
    value: str
    error: float
    allowed: float
    place: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.stage}: {self.name}"


@dataclass(frozen=True)
class Difference:
    """A result of an operation that differs."""

    operation: Operation
    value: str
    error: float
    allowed: float


@dataclass(frozen=True)
class Isolated(Part):
    """A program in which readers of `values` read the arrays of a run, and which returns these values as they are
    computed from such operands."""

    values: tuple[Value, ...] = ()

    def by_name(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Its outputs by the names of `values`."""
        return {value.name: outputs[name]
                for value, name in zip(self.values, self.module.main.output_names, strict=True)}  # fmt: skip


def isolated(recording: Recording, block: Block, values: Iterable[Value]) -> Isolated | None:
    """The operations of a block, on operands of a run; None where they compute none of the values."""
    kept = [value for value in dict.fromkeys(values) if value in recording.arrays and value.dtype.kind != "opaque"
            and value.operation is not None and value.operation.block is block]  # fmt: skip
    if not kept:
        return None
    alone = part(recording, {each for each in block if not each.definition.is_terminator}, kept, kept)
    alone.module.main.result_names = None  # names of results that differ from those of inputs
    return Isolated(alone.module, alone.inputs, tuple(kept))


def results_of(block: Block) -> list[Value]:
    """What the operations of a block compute, without constants and random numbers."""
    return [result for operation in block if operation.name != "const" and not is_random(operation)
            for result in operation.results]  # fmt: skip


def of_import(module: Module, inputs: Mapping[str, Any],
              original: Original | None) -> tuple[Isolated | None, Mapping[str, Any]]:  # fmt: skip
    """The operations of the imported program on values of the original model, and what the original computes for them.
    Without an original, on their own values, and what the operators of ONNX Runtime compute. Raises what running either
    raises."""
    recording, block = record(module, inputs), module.main.block
    if original is None:
        alone = isolated(recording, block, results_of(block))
        return alone, {} if alone is None else _by_operators(alone)
    known = original.values_by_name()
    arrays = {value: known[value.name] for value in results_of(block)
              if value.name in known and _is_alike(known[value.name], recording.arrays[value])}  # fmt: skip
    alone = isolated(Recording(module, {**recording.arrays, **arrays}, recording.sizes), block, arrays)
    return alone, {value.name: array for value, array in arrays.items()}


@dataclass
class Suspects:
    """What is judged of one compilation: `module` is the imported program. `not_judged` are parts that could not be."""

    module: Module
    inputs: Mapping[str, Any]
    settings: Settings
    findings: list[Finding] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._remember(record(self.module, self.inputs, precision="f64"))
        self.allowed = IN_APPROXIMATION if self.settings.numerics == "approximates" else IN_F64

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """A context in which a coded error, such as of an operation that a backend lacks, ends the judgement."""
        try:
            yield
        except IrcError as error:
            self.not_judged.append(f"{what}: {error.diagnostics[0].message}")

    # -- the import --------------------------------------------------------------------------------------------

    def blame_import(self, original: Original | None) -> None:
        """Add the operations of the imported program that compute other values than the original's, given those."""
        with self.trying("the operations as imported"):
            alone, theirs = of_import(self.module, self.inputs, original)
            if alone is not None:
                self.findings[:0] = _findings("import", _differences(alone, theirs))

    # -- passes ------------------------------------------------------------------------------------------------

    def after(self, stage: str, current: Module) -> None:
        """Compare what a pass has left with the program before it, in f64, and remember it."""
        now = record(current, self.inputs, precision="f64")
        returned = [now.arrays[value] for value in current.main.returned]
        errors = [relative_error(new, old) for new, old in zip(returned, self.returned, strict=True)]
        if max(errors, default=0.0) > self.allowed:
            rounds = _float_constants(current) - self.constants
            allowed = allowed_in_f64(current, self.inputs, self.allowed, bool(rounds))
            wrong = [each for each in zip(self.module.main.output_names, errors, allowed, strict=True)
                     if each[1] > each[2]]  # fmt: skip
            located = self._located(stage, now, bool(rounds)) if wrong or rounds else None
            if wrong and located is None:
                located = Finding(stage, f"pass {stage}", *wrong[0])
            self.findings += [located] if located is not None else []
        self._remember(now)

    def _remember(self, now: Recording) -> None:
        self.before, self.by_name, self.constants = now, _by_name(now), _float_constants(now.module)
        self.returned = [now.arrays[value] for value in now.module.main.returned]

    def _located(self, stage: str, now: Recording, rounds: bool) -> Finding | None:
        """The first value after a pass that differs from the value of the same name before it, given operands of the
        program before it."""
        old = {value: self._earlier(value, now.arrays[value]) for value in results_of(now.module.main.block)}
        arrays = {value: array for value, array in old.items() if array is not None}
        changed = first_changed(now, arrays, self.allowed, rounds)
        if changed is None:
            return None
        name = f"pass {stage}{_made_by(changed.operation)}"
        return Finding(stage, name, changed.value, changed.error, changed.allowed, _place(changed.operation))

    def _earlier(self, value: Value, now: Any) -> Any:
        """The array of a value before the pass: of the same value, or of one with its name, if that is like `now`."""
        array = self.before.arrays.get(value, None if value.is_anonymous else self.by_name.get(value.name))
        return array if _is_alike(array, now) and array.dtype.kind in "fc" else None

    # -- kernels and calls -------------------------------------------------------------------------------------

    def blame_compiled(self, module: Module, backend: Backend) -> None:
        """Add the kernels and calls that compute other values than the IR that they were compiled from, each on the
        operands that it has in the interpreter. What is wrong in a loop, a branch or a function is searched there."""
        recording = record(module, self.inputs)
        waiting, faulty, holders = [module.main.block], set[Block](), list[tuple[Block, Difference, list[Block]]]()
        seen = {*waiting}
        while waiting:
            block = waiting.pop()
            with self.trying(f"the kernels and calls for {backend}"):
                alone = isolated(recording, block, results_of(block))
                if alone is None:
                    continue
                computed, _ = run_compiled(alone.module, alone.inputs, backend, self.settings)
                plain = []
                for each in _differences(alone, alone.by_name(computed)):
                    inside = _blocks(module, each.operation)
                    if inside:
                        holders.append((block, each, inside))
                        waiting += [inner for inner in inside if inner not in seen]
                        seen.update(inside)
                    else:
                        plain.append(each)
                self.findings += _findings(backend, plain)
                faulty |= {block} if plain else set()
        for block, each, inside in reversed(holders):  # inner ones first
            if faulty.isdisjoint(inside):
                self.findings += _findings(backend, [each])
            faulty.add(block)


def _is_alike(array: Any, other: Any) -> bool:
    """Whether both are arrays of one shape and element type."""
    return all(getattr(array, each, None) == getattr(other, each, ()) for each in ("shape", "dtype"))


def _by_operators(alone: Isolated) -> Mapping[str, Any]:
    """What the operators of ONNX Runtime compute for the operations that are one operator each."""
    module = opt(alone.module, "legalize", backend="onnx")
    return alone.by_name(OnnxProgram(module, find_backend("onnx").Target(), optimized=False)(alone.inputs))


def _float_constants(module: Module) -> set[str]:
    """Digests of the constants of a module that may have been rounded."""
    return {each.attributes["value"].digest() for each in module.walk()
            if each.name == "const" and each.result.dtype.kind in ("float", "complex")}  # fmt: skip


def _by_name(recording: Recording) -> dict[str, Any]:
    """The arrays of the entry's values, those in kernels and other regions included."""
    main = recording.module.main
    return {name: recording.arrays[value] for name in main.value_names()
            if (value := main.find(name)) in recording.arrays}  # fmt: skip


def _made_by(operation: Operation) -> str:
    """The operation, and what the pass has made of its operands."""
    new = [operand.operation for operand in operation.inputs if operand.operation is not None]
    makers = [f", which reads %{each.results[0].name} = {describe(each)}, made by {each.location.made_by[-1]}"
              for each in new if each.location.made_by]  # fmt: skip
    return f": %{operation.results[0].name} = {describe(operation)}{''.join(makers[:1])}"


def _blocks(module: Module, operation: Operation) -> list[Block]:
    """The blocks that an operation runs, other than those of a kernel."""
    if operation.name == "call":
        return [module.functions[operation.attributes["callee"]].block]
    return [] if operation.name == "kernel" else [region.block for region in operation.regions]


def first_changed(now: Recording, arrays: Mapping[Value, Any], least: float, rounds: bool) -> Difference | None:
    """The first value of the entry that differs in f64 from what `arrays` has for it, computed from what `arrays` has
    for its operands. `least` and `rounds` are as in `allowed_in_f64`."""
    alone = isolated(Recording(now.module, {**now.arrays, **arrays}, now.sizes), now.module.main.block, arrays)
    if alone is None:
        return None
    computed = alone.by_name(interpreter.run(alone.module, alone.inputs, precision="f64"))
    errors = [relative_error(computed[value.name], arrays[value]) for value in alone.values]
    if max(errors) <= least:
        return None
    allowed = allowed_in_f64(alone.module, alone.inputs, least, rounds)
    for value, error, most in zip(alone.values, errors, allowed, strict=True):
        if error > most and value.operation is not None:
            return Difference(value.operation, value.name, error, most)
    return None


def allowed_in_f64(program: Module, inputs: Mapping[str, Any], least: float, rounds: bool) -> list[float]:
    """The allowed difference of each output in f64: `least` relative to its terms, which may be larger than it is.
    Where constants may have been computed, and so rounded (`rounds`), the tolerance of the output."""
    narrow = {argument.name: inputs[argument.name] if argument.dtype.kind == "opaque" else
              np.asarray(inputs[argument.name]).astype(argument.dtype.numpy)
              for argument in program.main.arguments if argument.name in inputs}  # fmt: skip
    tolerances, name = derive(program, narrow), program.main.name
    of_outputs = [tolerances.get((name, value.name, 0)) for value in program.main.returned]
    return [least if each is None else max(least * each.condition, rounds * each.derived) for each in of_outputs]


# -- comparing -------------------------------------------------------------------------------------------------


def errors_of(alone: Isolated, computed: Mapping[str, Any]) -> Iterator[Difference]:
    """The error of each value that is `computed` elsewhere, against the program that isolates its operation."""
    main = alone.module.main
    tolerances = derive(alone.module, alone.inputs)
    for value, copy in zip(alone.values, main.returned, strict=True):
        measure = tolerances.get((main.name, copy.name, 0))
        operation = value.operation
        if value.name not in computed or measure is None or operation is None:
            continue
        yield Difference(operation, value.name, measure.error(computed[value.name]), measure.allowed)


def _differences(alone: Isolated, computed: Mapping[str, Any]) -> list[Difference]:
    """The operations of which a result differs, each with the first that does."""
    differences: dict[Operation, Difference] = {}
    for each in errors_of(alone, computed):
        if each.error > each.allowed:
            differences.setdefault(each.operation, each)
    return list(differences.values())


def _findings(stage: str, differences: Sequence[Difference]) -> list[Finding]:
    """A finding for all that has one structure: kernels by their members, operations by what they are."""
    findings: dict[Any, Finding] = {}
    for each in differences:
        operation = each.operation
        is_kernel = operation.name == "kernel"
        kind = describe(operation)
        key = structural_hash(members_of(operation)) if is_kernel else kind
        if key in findings:
            findings[key] = replace(findings[key], others=(*findings[key].others, each.value))
            continue
        name = f"kernel @{operation.attributes['name']}" if is_kernel else f"%{each.value} = {kind}"
        findings[key] = Finding(stage, name, each.value, each.error, each.allowed, _place(operation))
    return list(findings.values())


def _place(operation: Operation) -> str:
    return str(operation.location) if operation.location.known else ""
