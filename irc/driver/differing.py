"""`irc diff`: whether two models mean the same: by rules where they show it, else by a search for a witness.

A **witness** is an input for which the two models give results that differ by more than rounding: in f64, relative to
their terms, by more than `irc.numerics` allows for two ways to compute one number; or in their declared types, by more
than the tolerance of the first model's result (`irc.driver.tolerances`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irc import dtypes, interpreter
from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs, write_arrays
from irc.driver.artefacts import LINK, is_artefact, read_interface, run_in_process
from irc.driver.blaming import Difference, first_changed, results_of
from irc.driver.edge_inputs import edge_inputs
from irc.driver.joining import Pair, equal_by_rules, paired
from irc.driver.measuring import Yardstick, is_inexact, parts_of, relative_error, widened
from irc.driver.models import Settings, Source
from irc.driver.original import Original
from irc.driver.originals import load_with_original
from irc.driver.slicing import Recording, record
from irc.driver.tolerances import FACTOR, Tolerance, derive, unit_of
from irc.dtypes import DType
from irc.files import guarded, temporary_folder
from irc.ir import Value
from irc.module import Module
from irc.numerics import IN_APPROXIMATION, IN_F64, allows, same_bits
from irc.stages import stage

Outcome = IrcError | tuple[list[Any], list[Any] | None]
Verdict = Literal["equal by rules", "no difference found", "differs"]


@dataclass(frozen=True)
class Witness:
    """Inputs for which the models differ: the sizes of symbols, the output, and its first element that differs.

    `first_value` is the first value that both models compute under one name and that differs; "" if there is none.
    """

    inputs: Mapping[str, Any]
    sizes: Mapping[str, int]
    output: str
    index: tuple[int, ...]
    first: str
    second: str
    error: float
    allowed: float
    first_value: str = ""


@dataclass(frozen=True)
class DiffReport:
    """What was found: `reason` is the rule by which the models are equal; `tried` counts inputs, of which `rejected`
    were no inputs of either model. `file` is where the witness was written."""

    verdict: Verdict
    reason: str = ""
    tried: int = 0
    rejected: int = 0
    sizes: tuple[tuple[str, int], ...] = ()  # of symbols that only one of the models has
    witness: Witness | None = None
    file: str = ""
    schema: str = "irc.diff/1"

    @property
    def passed(self) -> bool:
        return self.verdict != "differs"


@guarded()
def diff(
    first: Source,
    second: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    output: str | Path | None = None,
    tries: int = 24,
    finite: bool = False,
    originals: bool = False,
    seed: int = 0,
    settings: Settings | None = None,
) -> DiffReport:
    """Whether two models mean the same; one may be a folder that `compile` has written, which is run.

    Inputs and outputs are matched by name where both models have the same names, else by position. `inputs`, by the
    names of the first model, are tried first, then `tries` others: normally distributed, and with NaN, infinities,
    zeros and the numbers at the ends of their types (without these where `finite`), at small and odd sizes within the
    ranges of symbols. With `originals` ONNX files are run by ONNX Runtime without optimizations and PyTorch programs by
    PyTorch, rather than by the interpreter; frameworks differ in what they make of NaN, so that inputs are finite then,
    as they are with a folder. The sizes of `settings.dims` are kept. With the numerics class "exact" results must be
    equal to the last bit. A witness is written to the .npz file `output`. Raises `diff.signature` for models that take
    no common input.
    """
    settings = Settings.of(settings)
    sides = [side_of(source, replace(settings, dims={}), originals) for source in (first, second)]
    if sides[0].artefact is not None:
        sides.reverse()
    if sides[0].artefact is not None:
        raise fail("usage.arguments", "both are compiled folders", expected="at most one of them, beside a model",
                   help="irc run runs a folder")  # fmt: skip
    pair = paired(sides[0].module, sides[1].module)
    fixed = tuple(pair.sizes.items())
    alone = all(side.is_interpreted for side in sides)
    with stage("search for rules"):
        reason = equal_by_rules(pair, settings) if alone else None
    if reason is not None:
        return DiffReport("equal by rules", reason, sizes=fixed)
    search = _Search(pair, settings, (sides[0], sides[1]))
    sizes = {name: size for name, size in settings.dims.items() if name not in pair.sizes}
    tried = 0
    for sizes_of_inputs, arrays in _candidates(pair, inputs, sizes, tries, finite or not alone, seed):
        tried += 1
        with stage("comparison", f"of input {tried}"):
            witness = search.witness(arrays, sizes_of_inputs)
        if witness is not None:
            if output is not None:
                write_arrays(output, witness.inputs)
            return DiffReport("differs", "", tried, search.rejected, fixed, witness, str(output or ""))
    return DiffReport("no difference found", "", tried, search.rejected, fixed)


@dataclass(frozen=True)
class Side:
    """One of the two: a model, which irc interprets or, with `original`, its own framework runs; or a compiled folder,
    whose module has the signature alone."""

    module: Module
    original: Original | None = None
    artefact: Path | None = None
    results: Mapping[str, DType] = field(default_factory=dict)

    @property
    def is_interpreted(self) -> bool:
        return self.original is None and self.artefact is None

    def run(self, module: Module, arrays: Mapping[str, Any]) -> Outcome:
        """The results of a run in the declared types, and in f64 where there is a program; or the error that it raises.
        `module` is the side's, specialized."""
        try:
            if self.artefact is not None:
                with temporary_folder() as temporary:
                    (temporary / LINK).symlink_to(self.artefact.resolve(), target_is_directory=True)
                    return list(run_in_process(temporary, arrays, self.results)[0].values()), None
            with np.errstate(all="ignore"):
                exact = list(interpreter.run(module, arrays, precision="f64").values())
                if self.original is not None:
                    self.original.give(arrays)
                    return self.original.outputs(), exact
                return list(interpreter.run(module, arrays).values()), exact
        except IrcError as error:
            if error.code.split(".")[0] not in ("run", "backend") or error.code == "run.memory":
                raise
            return error


def side_of(source: Source, settings: Settings, originals: bool) -> Side:
    """A model or a compiled folder to compare; raises the errors of reading it."""
    if is_artefact(source):
        function, results = read_interface(Path(source))
        function.result_names = tuple(results)
        return Side(Module("interface", [function]), None, Path(source), results)
    if not originals:
        return Side(settings.load(source))
    return Side(*load_with_original(source, settings))


def _candidates(pair: Pair, inputs: Mapping[str, Any] | str | Path | None, sizes: Mapping[str, int], tries: int,
                finite: bool, seed: int) -> Iterator[tuple[Mapping[str, int], dict[str, Any]]]:  # fmt: skip
    if inputs is not None:
        yield sizes, given_inputs(pair.first.main, inputs, sizes, seed)
    yield from itertools.islice(edge_inputs(pair.first.main, sizes, seed, finite=finite), tries)


# -- the search ------------------------------------------------------------------------------------------------


@dataclass
class _Search:
    """Judges inputs; `rejected` counts those on which both models raise an error."""

    pair: Pair
    settings: Settings
    sides: tuple[Side, Side]
    rejected: int = 0

    def witness(self, arrays: Mapping[str, Any], sizes: Mapping[str, int]) -> Witness | None:
        """What differs on some inputs; None where nothing does."""
        pair = self.pair
        both = (pair.first, arrays), (pair.second, pair.for_second(arrays))
        outcomes = [side.run(module, given) for side, (module, given) in zip(self.sides, both, strict=True)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, IrcError)]
        if errors:
            self.rejected += len(errors) == 2
            if len(errors) == 2:
                return None
            texts = [_message(outcome) for outcome in outcomes]
            return Witness(arrays, sizes, "", (), texts[0], texts[1], float("inf"), 0.0)
        names = pair.first.main.output_names
        for one, other in pair.outputs:
            values = [_of_output(outcome, place) for outcome, place in zip(outcomes, (one, other), strict=True)]
            error, allowed = self._difference(values, one, other, arrays)
            if error > allowed:
                index, texts = first_difference(values[0], values[1], allowed)
                named = self._first_value(arrays)
                return Witness(arrays, sizes, names[one], index, texts[0], texts[1], error, allowed, named)
        return None

    def _difference(self, values: list[tuple[Any, Any]], one: int, other: int,
                    arrays: Mapping[str, Any]) -> tuple[float, float]:  # fmt: skip
        """The error of a result, declared and in f64, and what is allowed: of the two, the one that fails."""
        (declared, exact), (theirs, theirs_exact) = values
        if getattr(declared, "dtype", None) is None or parts_of(declared) is not None:
            return relative_error(theirs, declared), 0.0
        if self.settings.numerics == "exact":
            alike = declared.dtype == theirs.dtype and declared.shape == theirs.shape and same_bits(theirs, declared)
            return (0.0 if alike else max(relative_error(theirs, declared), 5e-324)), 0.0
        if declared.dtype != theirs.dtype or declared.shape != theirs.shape:
            return float("inf"), 0.0
        if not all(side.is_interpreted for side in self.sides):
            return self._of_frameworks(declared, theirs, one, arrays)
        in_f64 = IN_APPROXIMATION if self.settings.numerics == "approximates" else IN_F64
        measure = Yardstick(declared, exact)
        errors = relative_error(theirs_exact, exact), measure.error(theirs)
        if errors[0] <= in_f64 and errors[1] <= self._at_once(declared):
            return 0.0, 0.0
        first = self._tolerance(self.pair.first, arrays, one)
        second = self._tolerance(self.pair.second, self.pair.for_second(arrays), other)
        if first is None or second is None:
            return errors[1], measure.allowed
        of_meaning = max(in_f64 * max(first.condition, second.condition), first.derived)
        if errors[0] > of_meaning:
            return errors[0], of_meaning
        # Rounded constants and terms that cancel differ by as much: then a value must, given the first's operands.
        if errors[0] > in_f64 and self._changed(arrays, in_f64) is not None:
            return errors[0], in_f64
        loose = allows(self.settings.numerics, "reassociates")
        rounding = max(first.allowed, second.allowed) if loose else first.allowed
        return errors[1], max(rounding, in_f64 if in_f64 > IN_F64 else 0.0)

    def _of_frameworks(self, declared: Any, theirs: Any, one: int, arrays: Mapping[str, Any]) -> tuple[float, float]:
        """The error where irc interprets only one of the two, or none: both results are rounded, so that twice the
        tolerance is allowed, that of the program as irc reads it."""
        error = relative_error(theirs, declared)
        if error <= self._at_once(declared):
            return 0.0, 0.0
        tolerance = self._tolerance(self.pair.first, arrays, one)
        return error, 0.0 if tolerance is None else 2 * tolerance.allowed

    def _at_once(self, declared: Any) -> float:
        """An error that every tolerance allows."""
        return FACTOR * unit_of(dtypes.from_numpy(declared.dtype)) if is_inexact(declared) else 0.0

    def _tolerance(self, module: Module, arrays: Mapping[str, Any], place: int) -> Tolerance | None:
        value = module.main.returned[place]
        return derive(module, arrays).get((module.main.name, value.name, 0))

    def _records(self, arrays: Mapping[str, Any]) -> list[Recording]:
        """The values of both models in f64."""
        both = (self.pair.first, arrays), (self.pair.second, self.pair.for_second(arrays))
        return [record(module, given, precision="f64") for module, given in both]

    def _changed(self, arrays: Mapping[str, Any], in_f64: float) -> Difference | None:
        """The first value of the second model that differs given operands of the first. Values correspond that have one
        name and are about equal, since two models may use a name for different things."""
        one, other = self._records(arrays)
        known = {value.name: array for value, array in one.arrays.items() if _is_named(value)}
        alike = {value: known[value.name] for value in results_of(self.pair.second.main.block)
                 if value.name in known and _is_named(value)
                 and relative_error(other.arrays[value], known[value.name]) <= IN_APPROXIMATION}  # fmt: skip
        return first_changed(other, alike, in_f64, rounds=True)

    def _first_value(self, arrays: Mapping[str, Any]) -> str:
        """The first value, in the first model's order, that both compute under one name and that differs in f64."""
        if self.sides[1].artefact is not None:
            return ""
        changed = self._changed(arrays, IN_F64)
        if changed is not None:
            return f"%{changed.value}, {changed.operation.name}, given the operands of the first model"
        one, other = self._records(arrays)
        theirs = {value.name: array for value, array in other.arrays.items() if _is_named(value)}
        tolerances, main = derive(self.pair.first, arrays), self.pair.first.main.name
        for value, array in one.arrays.items():
            tolerance = tolerances.get((main, value.name, 0))
            if not _is_named(value) or value.name not in theirs or tolerance is None:
                continue
            if relative_error(theirs[value.name], array) > max(IN_F64 * tolerance.condition, tolerance.derived):
                second = self.pair.second.main.find(value.name).operation
                kinds = [each.name for each in (value.operation, second) if each is not None]
                return f"%{value.name}, {' in one and '.join(dict.fromkeys(kinds))}" + (
                    " in the other" if len({*kinds}) > 1 else "")  # fmt: skip
        return ""


def _of_output(outcome: Outcome, place: int) -> tuple[Any, Any]:
    """A result in the declared types and in f64, None where there is none."""
    assert not isinstance(outcome, IrcError)
    return outcome[0][place], None if outcome[1] is None else outcome[1][place]


def _is_named(value: Value) -> bool:
    return value.operation is not None and not value.is_anonymous and value.operation.name != "const"


def _message(outcome: Outcome) -> str:
    if isinstance(outcome, IrcError):
        return f"raises {outcome.code}: {outcome.diagnostics[0].message}"
    return "computes results"


def first_difference(one: tuple[Any, Any], other: tuple[Any, Any], allowed: float) -> tuple[tuple[int, ...], list[str]]:
    """The index of the first element that differs, relative to the largest, by more than is allowed, and both elements
    as text; an empty index where shapes or types differ."""
    (a, a_exact), (b, b_exact) = one, other
    if getattr(a, "dtype", None) is None or getattr(b, "dtype", None) is None or parts_of(a) is not None:
        return (), [str(a)[:60], str(b)[:60]]
    if a.shape != b.shape or a.dtype != b.dtype:
        return (), [f"{each.dtype}{list(each.shape)}" for each in (a, b)]
    for x, y in ((a_exact, b_exact), (a, b)) if b_exact is not None else ((a, b),):
        if not is_inexact(np.asarray(x)):
            places = np.argwhere(np.asarray(x) != np.asarray(y))
        else:
            x, y = (np.asarray(each, np.complex128 if each.dtype.kind == "c" else np.float64) for each in (x, y))
            scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) or 1.0
            with np.errstate(all="ignore"):
                far = ~(np.abs(x - y) <= allowed * scale)
            places = np.argwhere(far & ~(x == y) & ~(np.isnan(x) & np.isnan(y)))
        if len(places):
            index = tuple(int(each) for each in places[0])
            return index, [str(a[index]), str(b[index])]
    has_signs = is_inexact(a) and a.dtype.kind != "c"
    bits: Any = np.argwhere(np.signbit(widened(a)) != np.signbit(widened(b))) if has_signs else []
    index = tuple(int(each) for each in bits[0]) if len(bits) else ()
    return index, [str(a[index]), str(b[index])] if len(bits) else ["", ""]
