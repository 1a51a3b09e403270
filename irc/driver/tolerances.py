"""Tolerances of values, derived from an evaluation in f64 that is repeated with perturbed roundings.

In a perturbed run, each result that its declared type rounds is changed by u times its magnitude, with a random sign,
where u is the unit roundoff of that type; a sum of n terms is also changed by u sqrt(n) times the sum of the terms'
magnitudes, which bounds the rounding errors of all orders of addition with high probability (Higham and Mary, A New
Approach to Probabilistic Rounding Error Analysis, 2019). The largest change of a value in `RUNS` such runs, times
`FACTOR`, is its tolerance: Monte Carlo arithmetic (Parker, 1997) at the precision that the program declares.

Decisions (comparisons, indices, rounding to integers) are those of the unperturbed run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from irc import dtypes
from irc.diagnostics import IrcError, fail
from irc.driver.measuring import ALLOWANCE, Yardstick, largest, parts_of
from irc.driver.term_sizes import PerturbedRun, adds_terms, is_exact
from irc.dtypes import F32, DType
from irc.interfaces import Trait
from irc.interpreter import Interpreter, Invocation, Results, checked_inputs
from irc.ir import Operation
from irc.module import Module

RUNS = 4
FACTOR = 4.0  # few runs estimate a largest change, and functions of libraries err by several units

# A value of a run: its function, its name, and how many values of this name were computed before.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Tolerance(Yardstick):
    """The error that a value may have, relative to its largest magnitude, and where that comes from.

    `change` is the largest change in the perturbed runs, absolute. `terms` is the largest number of terms of its
    elements where the operation adds, else 0, and `sizes` the largest sum of their magnitudes.
    """

    operation: Operation
    change: float = 0.0
    terms: float = 0.0
    sizes: float = 0.0

    @property
    def unit(self) -> float:
        """The unit roundoff of the declared type; 0 for types that round nothing."""
        return unit_of(dtypes.from_numpy(np.asarray(self.declared).dtype))

    @property
    def scale(self) -> float:
        """The largest finite magnitude of the value in f64."""
        return largest(np.asarray(self.exact))

    @cached_property
    def own_error(self) -> float:
        """The error of the program itself, run in its declared types by NumPy."""
        return self.error(self.declared)

    @property
    def derived(self) -> float:
        """The part of `allowed` that follows from the perturbed runs."""
        return FACTOR * max(self.change / self.scale if self.scale else 0.0, self.unit)

    @property
    def condition(self) -> float:
        """The largest change relative to one rounding of the value, at least 1: large where terms cancel."""
        return max(1.0, self.change / (self.unit * self.scale)) if self.unit and self.scale else 1.0

    @cached_property
    def allowed(self) -> float:
        """The allowed error: 0 for what is not rounded."""
        if self.parts is not None or parts_of(self.declared) is not None or not self.unit:
            return super().allowed
        return max(ALLOWANCE * self.own_error, self.derived)


def unit_of(dtype: DType) -> float:
    """The unit roundoff of an element type, half the distance of 1 to the next number; 0 for integers and bools."""
    import ml_dtypes

    if dtype.is_complex:
        return float(np.finfo(dtype.numpy).eps) / 2
    return float(ml_dtypes.finfo(dtype.numpy).eps) / 2 if dtype.is_float else 0.0  # type: ignore[no-untyped-call]


class _Perturbed(PerturbedRun):
    """Perturbs results by the errors of their rounding."""

    def __init__(self, module: Module, decisions: list[Results], seed: Any = None, draws: int = 0) -> None:
        super().__init__(module, decisions, None if seed is None else np.random.default_rng(seed), self.keep, draws)
        self.sums: dict[Operation, tuple[float, float]] = {}
        self.values: dict[Key, tuple[Operation, Any]] = {}
        self.times: Counter[tuple[str, str]] = Counter()

    def keep(self, operation: Operation, results: Sequence[Any]) -> None:
        where = operation.function.name if operation.function is not None else ""
        for result, array in zip(operation.results, results, strict=True):
            key = where, result.name, self.times[where, result.name]
            self.times[where, result.name] += 1
            self.values[key] = operation, array

    def execute(self, invocation: Invocation) -> Results:
        operation, definition = invocation.operation, invocation.operation.definition
        results = super().execute(invocation)
        if definition.is_named or operation.regions or definition.name in ("const", "call"):
            return results
        if Trait.DISCONTINUOUS in definition.traits or not any(array.dtype.kind in "fc" for array in results):
            return self.decided(results)
        if self.generator is None:
            return results
        sums = sums_of(self, invocation) if adds_terms(definition) and definition.pointwise is None else None
        if sums is not None:
            self.sums[operation] = largest(sums[0]), largest(sums[1])
        return tuple(
            self.perturbed(array, amplitude(operation, array, result.dtype, sums))
            for result, array in zip(operation.results, results, strict=True)
        )

    def perturbed(self, array: Any, size: Any) -> Any:
        assert self.generator is not None
        if array.dtype.kind not in "fc":
            return array
        drawn = self.generator.uniform(-0.5, 0.5, array.shape)
        return array + np.where(np.isfinite(size), size, 0.0) * (drawn + np.copysign(0.5, drawn))


def amplitude(operation: Operation, array: Any, dtype: DType, sums: tuple[Any, Any] | None) -> Any:
    """The rounding error of each element of a result: of the result itself, and of the sum that it is."""
    narrowed = all(operand is None or unit_of(operand.dtype) < unit_of(dtype) for operand in operation.operands)
    unit = unit_of(dtype) if narrowed or not is_exact(operation.definition) else 0.0
    size = unit * np.abs(array)
    if sums is None:
        return size
    terms, magnitudes = sums
    return size + min(unit_of(F32), unit_of(dtype)) * np.sqrt(terms) * magnitudes  # narrower types add in f32


def sums_of(run: Interpreter, invocation: Invocation) -> tuple[Any, Any] | None:
    """For each element of a sum, the number of its terms and the sum of their magnitudes, both by the operation
    itself: of ones, and of magnitudes. None where the operation does not accept such operands."""
    def of(change: Any) -> Any:
        arrays = [array if array is None or array.dtype.kind not in "fc" else change(array)
                  for array in invocation.arrays]  # fmt: skip
        return np.abs(Interpreter.execute(run, invocation._replace(arrays=arrays))[0])

    try:
        return of(np.ones_like), of(np.abs)
    except IrcError:
        return None


def derive(module: Module, inputs: Mapping[str, Any], seed: int = 0, draws: int = 0) -> dict[Key, Tolerance]:
    """The tolerance of each value of a module for some inputs, in order of execution. Raises the errors of running."""
    arguments = {precision: checked_inputs(module.main, inputs, precision) for precision in ("declared", "f64")}
    decisions: list[Results] = []
    with np.errstate(all="ignore"):
        exact = _Perturbed(module, decisions, draws=draws)
        exact.call(module.main, arguments["f64"])
        declared = _Perturbed(module, [], draws=draws)
        declared.precision = "declared"
        declared.call(module.main, arguments["declared"])
        tolerances = {key: Tolerance(declared.values[key][1], array, operation)
                      for key, (operation, array) in exact.values.items() if key in declared.values}  # fmt: skip
        for run in range(RUNS):
            moved = _Perturbed(module, decisions, (seed, run), draws)
            moved.call(module.main, arguments["f64"])
            for key, (_, array) in moved.values.items():
                if key in tolerances and getattr(array, "dtype", None) is not None and array.dtype.kind in "fc":
                    change = max(tolerances[key].change, largest(np.abs(array - tolerances[key].exact)))
                    terms, sizes = moved.sums.get(tolerances[key].operation, (0.0, 0.0))
                    tolerances[key] = replace(tolerances[key], change=change, terms=terms, sizes=sizes)
    return tolerances


# -- why -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToleranceReport:
    """How the tolerance of a value is derived: see `Tolerance`. `operands` are those of its operation, with the
    tolerances of their values; `as_output` is what `irc check` allows where the value is an output, else None."""

    value: str
    operation: str
    type: str
    unit: float
    scale: float
    change: float
    derived: float
    own_error: float
    allowed: float
    terms: float
    sizes: float
    operands: tuple[tuple[str, float], ...]
    as_output: float | None = None

    def __str__(self) -> str:
        what = f"%{self.value} = {self.operation} : {self.type}"
        if not self.unit:
            return f"{what}\n  allowed 0: its type rounds nothing"
        lines = [
            f"{what}\n  allowed {self.allowed:.1e} of max|%{self.value}| = {self.scale:.3g}: the larger of",
            f"    {self.derived:.1e}  {FACTOR:g} max(change / max|%{self.value}|, u). u = {self.unit:.1e} is the unit "
            f"roundoff of its type; the change",
            f"             is {self.change:.1e}: the largest in {RUNS} evaluations in f64 with each rounding perturbed",
            f"    {ALLOWANCE * self.own_error:.1e}  {ALLOWANCE:g} times {self.own_error:.1e}, the error of the program "
            "as imported, in its own types",
        ]
        if self.terms:
            lines.append(f"  up to {self.terms:.0f} terms are added, whose magnitudes sum to {self.sizes:.3g}")
        lines += [f"  operand %{name}: allowed {allowed:.1e}" for name, allowed in self.operands]
        if self.as_output is not None:
            lines.append(f"  an output: irc check compares whole programs by {self.as_output:.1e}, the larger of "
                         f"{ALLOWANCE:g} times its error and a number of units in the last place")  # fmt: skip
        return "\n".join(lines)


def why_tolerance(module: Module, inputs: Mapping[str, Any], name: str) -> ToleranceReport:
    """How the tolerance of the value `name` is derived; of a value computed several times, the first. Raises
    `text.undefined_name`, and `usage.arguments` for a value that the run did not compute."""
    name = name.removeprefix("%")
    main, value = module.main, module.main.find(name)
    tolerances = derive(module, inputs)
    tolerance, operation = tolerances.get((main.name, name, 0)), value.operation
    if tolerance is None or operation is None:
        what = "an input" if operation is None else "not computed in the run"
        raise fail("usage.arguments", f"%{name} is {what}, and has no tolerance", expected="a value that is computed",
                   help="irc print shows the values")  # fmt: skip
    known = [(operand.name, tolerances.get((main.name, operand.name, 0))) for operand in operation.inputs]
    operands = tuple((each, 0.0 if one is None else one.allowed) for each, one in known)
    as_output = Yardstick(tolerance.declared, tolerance.exact).allowed if value in main.returned else None
    return ToleranceReport(name, operation.name, str(value.type), tolerance.unit, tolerance.scale, tolerance.change,
                           tolerance.derived, tolerance.own_error, tolerance.allowed, tolerance.terms, tolerance.sizes,
                           operands, as_output)  # fmt: skip
