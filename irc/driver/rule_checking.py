"""`irc check rules.py`: test rewrite rules on programs generated from their patterns.

Shapes, dtypes and attributes are drawn until the pattern has a type and its guards hold. The rule is applied, and both
programs are run on random inputs, in the declared types and in f64. `irc.numerics` has a function for each class, which
compares their results relative to the size of the terms of both programs (`irc.driver.term_sizes`), since where terms
cancel, the size of the result does not bound their rounding. Where exactly one guard fails, the program is a near-miss,
to which the rule must not apply. All random choices follow from the seed alone, so that a report is reproducible and
independent of names.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from irc import dims, dtypes, interpreter
from irc.diagnostics import IrcError, counted, fail
from irc.dims import Dim
from irc.driver.pipelines import parse_pipeline
from irc.driver.term_sizes import term_sizes
from irc.dtypes import DType
from irc.ir import Function, Operation, Value
from irc.module import Module
from irc.named_pipelines import ALIASES
from irc.numerics import NUMERICS_RULES, Array, Numerics, Results, allows, is_float, not_allowed, same_bits
from irc.op import Builder, return_, trace
from irc.pass_manager import PassManager
from irc.pattern import Wildcard
from irc.rewrite import PatternRule, Rule, RuleStatistics, apply_rules, erase_dead
from irc.simplify import SimplifyRule
from irc.stages import stage
from irc.types import TensorType
from irc.user_files import load_user_module

PROGRAMS = 200
NEAR_MISSES = 40
ATTEMPTS = 40  # per program, before the test stops
FLOATS = (dtypes.F16, dtypes.BF16, dtypes.F32, dtypes.F64)
EXTENTS = (1, 2, 3, 5, 7, 8)
SHOWN = 24  # the largest number of elements of an input that a counterexample prints
FAILURES = 20  # collected; the smallest is shown


@dataclass(frozen=True)
class Failure:
    """An error of a rule, with the program and the inputs that show it."""

    message: str
    program: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)  # as lists; without large ones
    size: int = 0  # elements of all inputs


@dataclass
class RuleReport:
    """The result of the test of a rule."""

    name: str
    numerics: Numerics
    programs: int = 0
    dtypes: tuple[str, ...] = ()
    near_misses: dict[str, int] = field(default_factory=dict)
    left_alone: int = 0
    matched_in: dict[str, int] = field(default_factory=dict)
    origin: str = "generated from the pattern"
    failure: Failure | None = None
    allowed: Numerics = "approximates"  # by --numerics, in models

    @property
    def idle_in(self) -> list[str]:
        """The models without a match."""
        return [model for model, count in self.matched_in.items() if not count]

    def lines(self) -> list[str]:
        """The report as text."""
        if self.failure is not None:
            shown = [f"  {line}" for line in self.failure.program.splitlines()]
            inputs = [f"  %{name} = {elements}" for name, elements in self.failure.inputs.items()]
            return [f"{self.name}: FAIL: {self.failure.message}", *shown, *inputs]
        count_text = f"{self.programs} programs {self.origin}, {' '.join(self.dtypes)}"
        verdict = f"{count_text}: equal within the stated numerics" if self.programs else "has no example"
        result = [f"{self.name}: {verdict}"]
        for guard, count in self.near_misses.items():
            verdict = f"{count} near-misses that violate it: rejected" if count else "no near-miss was generated"
            result.append(f"  guard {guard}: {verdict}")
        if self.left_alone:
            result.append(f"  {self.left_alone} examples of what it must not match: left alone")
        result += [f"  matched {counted(n, 'time')} in {model}" for model, n in self.matched_in.items() if n]
        if self.idle_in:
            result.append(f"  idle: never matched in {', '.join(self.idle_in)}")
        if self.matched_in and not allows(self.allowed, self.numerics):
            result.append(f"  not tried by a pipeline: {not_allowed(self.numerics, self.allowed)}")
        return result


@dataclass
class CheckReport:
    """The rules of a file."""

    rules: list[RuleReport]
    seed: int = 0

    @property
    def passed(self) -> bool:
        return all(rule.failure is None for rule in self.rules)

    def __str__(self) -> str:
        return "\n".join(line for rule in self.rules for line in rule.lines())


def check_rules(path: str | Path, models: Mapping[str, Module] | None = None, *, seed: int = 0,
                numerics: Numerics = "approximates") -> CheckReport:  # fmt: skip
    """Test every rule that a file defines. `models` are searched for matches, and `numerics` is the class that a user
    allows there. Random choices follow from `seed`.

    Raises `usage.value` where the file has no rule, and what loading it raises.
    """
    module = load_user_module(path)
    rules = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, Rule) and thing.function.__module__ == module.__name__
    ]
    if not rules:
        raise fail("usage.value", f"{path} defines no rule", help="declare one with @rewrite(numerics=...)")
    reports = []
    for rule in rules:
        with stage("rule", rule.name):
            reports.append(check_rule(rule, models or {}, seed=seed, numerics=numerics))
    return CheckReport(reports, seed)


def check_rule(rule: Rule, models: Mapping[str, Module] | None = None, *, seed: int = 0,
               numerics: Numerics = "approximates") -> RuleReport:  # fmt: skip
    """Test one rule; models are searched for matches before and after the pipeline `clean`."""
    report = RuleReport(rule.name, rule.numerics, allowed=numerics)
    draw = random.Random(seed)
    if isinstance(rule, SimplifyRule):
        _check_examples(rule, report, draw)
    elif isinstance(rule, PatternRule):
        _check_pattern(rule, report, draw)
    for name, model in (models or {}).items() if report.failure is None else ():
        clean = model.clone()
        PassManager(parse_pipeline("clean", aliases=ALIASES)).run(clean)
        report.matched_in[name] = max(_matches(rule, model.clone()), _matches(rule, clean))
    return report


def _matches(rule: Rule, model: Module) -> int:
    statistics: dict[str, RuleStatistics] = {}
    for function in model.functions.values():
        apply_rules(function, [rule], numerics="approximates", statistics=statistics)
    return statistics[rule.name].matched if statistics else 0


def _check_examples(rule: SimplifyRule, report: RuleReport, draw: random.Random) -> None:
    report.origin = "given as examples"
    for program, types in rule.examples:
        module = trace(program, *types)
        module.main.result_names = tuple(f"result{index}" for index in range(len(module.main.returned)))
        report.failure = report.failure or _compare(rule, module, report, draw)
    for program, types in rule.near_misses:
        module = trace(program, *types)
        text = str(module)
        if apply_rules(module.main, [rule], numerics="approximates"):
            report.failure = report.failure or Failure("it applies to an example that it must not match", text)
    report.left_alone = len(rule.near_misses)


def _check_pattern(rule: PatternRule, report: RuleReport, draw: random.Random) -> None:
    report.near_misses = dict.fromkeys(rule.guards, 0)
    plans = _Plans(rule, draw)
    failures: list[Failure] = []
    reasons: dict[str, int] = {}
    for _ in range(ATTEMPTS * PROGRAMS):
        done = report.programs >= PROGRAMS and all(count >= NEAR_MISSES for count in report.near_misses.values())
        if done or len(failures) == FAILURES:
            break
        plan = plans.next()
        generated = _program(rule, plan)
        if generated is None:
            continue
        module, named = generated
        verdict = rule.failed_guard(named)
        if verdict is not None:
            if report.near_misses[verdict[0]] < NEAR_MISSES:
                report.near_misses[verdict[0]] += 1
                failures += _near_miss(rule, module, verdict)
            continue
        plans.keep(plan)
        if report.programs < PROGRAMS:
            failure = _compare(rule, module, report, draw, reasons)
            failures += [failure] if failure is not None else []
    if not failures and not report.programs:
        reason = max(reasons, key=lambda reason: reasons[reason], default="no types fit its pattern and guards")
        failures.append(Failure(f"no generated program matches it: {reason}"))
    report.failure = min(failures, key=lambda failure: failure.size, default=None)


def _near_miss(rule: PatternRule, module: Module, verdict: tuple[str, str]) -> list[Failure]:
    before = str(module)
    if apply_rules(module.main, [rule], numerics="approximates"):
        return [Failure(f"it applies although its guard `{verdict[0]}` says: {verdict[1]}", before)]
    return []


# -- generating programs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """The random choices of a program; shapes are letters, whose extents are drawn as well."""

    shapes: tuple[tuple[str, ...], ...]
    attributes: tuple[tuple[str, Any], ...]
    extents: Mapping[str, int]
    dtype: DType

    def extent(self, letter: str) -> int:
        return self.extents.get(letter, 1)


class _Plans:
    """Draws plans; plans to which a rule applied are used again, with other extents and dtypes."""

    def __init__(self, rule: PatternRule, draw: random.Random) -> None:
        self.rule, self.draw = rule, draw
        self.kept: list[_Plan] = []

    def keep(self, plan: _Plan) -> None:
        if len(self.kept) < 50:
            self.kept.append(plan)

    def next(self) -> _Plan:
        draw = self.draw
        extents = {letter: draw.choice(EXTENTS) for letter in "abc"}
        dtype = draw.choice(FLOATS)
        if self.kept and draw.random() < 0.6:
            old = draw.choice(self.kept)
            return _Plan(old.shapes, old.attributes, extents, dtype)
        base = tuple(draw.choice("abc") for _ in range(draw.choice((0, 1, 2, 2, 3, 3, 4))))
        shapes = tuple(self._shape(base) for _ in self.rule.pattern.leaves)
        plan = _Plan(shapes, (), extents, dtype)
        size = [plan.extent(letter) for letter in base]
        attributes = tuple((name, self._attribute(name, size)) for name in self.rule.pattern.attribute_names)
        return _Plan(shapes, attributes, extents, dtype)

    def _shape(self, base: tuple[str, ...]) -> tuple[str, ...]:
        kind = self.draw.randrange(6)
        if kind <= 1:
            return base
        if kind == 2:
            return ()
        if kind == 3:
            return base[self.draw.randint(0, len(base)) :]
        if kind == 4:
            return tuple(letter if self.draw.random() < 0.5 else "1" for letter in base)
        return tuple(self.draw.choice("abc") for _ in range(self.draw.randint(1, 3)))

    def _attribute(self, name: str, base: Sequence[int]) -> Any:
        """A value for a wildcard, by the declaration of its attribute."""
        draw = self.draw
        attribute, annotation = self._declaration(name)
        if attribute == "permutation":
            return tuple(draw.sample(range(len(base)), len(base)))
        if attribute == "shape":
            return _factors(draw, math.prod(base)) if draw.random() < 0.7 else tuple(base)
        if attribute == "axes":
            return tuple(sorted(draw.sample(range(len(base)), draw.randint(0, len(base)))))
        if get_origin(annotation) is Literal:
            return draw.choice(get_args(annotation))
        if annotation is bool:
            return draw.random() < 0.5
        if annotation is DType:
            return draw.choice((*FLOATS, dtypes.I32, dtypes.I64))
        if annotation is float:
            return draw.choice((0.5, 1.0, 2.0, -1.5, 0.0))
        if get_origin(annotation) is tuple:
            return tuple(draw.randint(0, 3) for _ in base)
        return draw.randint(-1, max(len(base) - 1, 0))

    def _declaration(self, name: str) -> tuple[str, Any]:
        for operation in _operations(self.rule):
            for attribute, value in operation.attributes.items():
                if isinstance(value, Wildcard) and value.name == name:
                    definition: Any = operation.definition
                    return attribute, definition.attribute_specs[attribute].annotation
        raise fail("rule.raised", f"the pattern of `{self.rule.name}` does not use its attribute `{name}`")


def _operations(rule: PatternRule) -> list[Operation]:
    block = rule.pattern.root.block
    return [] if block is None else list(block)


def _factors(draw: random.Random, number: int) -> tuple[Dim, ...]:
    """Extents in random order whose product is `number`."""
    factors: list[Dim] = []
    while number > 1 and len(factors) < 3:
        factor = draw.choice([part for part in range(1, number + 1) if number % part == 0])
        factors.append(factor)
        number //= factor
    factors.append(number)
    draw.shuffle(factors)
    return tuple(factors)


def _program(rule: PatternRule, plan: _Plan) -> tuple[Module, dict[str, Any]] | None:
    """The pattern as a program, and its leaves and attributes by name; None where it has no type."""
    types = [
        TensorType(_leaf_dtype(rule, leaf, plan.dtype), [plan.extent(letter) for letter in shape])
        for leaf, shape in zip(rule.pattern.leaves, plan.shapes, strict=True)
    ]
    function = Function("main", types, rule.pattern.leaf_names)
    named = dict(zip(rule.pattern.leaf_names, function.arguments, strict=True)) | dict(plan.attributes)
    try:
        with Builder(function.block) as builder:
            pattern, _ = rule.both_sides(named)
            builder.create(return_, pattern)
    except IrcError as error:
        if error.code.startswith(("type.", "dim.")):
            return None
        raise
    erase_dead([operation for operation in function.block if operation.name != "return"])
    function.result_names = tuple(f"result{index}" for index in range(len(pattern)))
    return Module("program", [function]), named


def _leaf_dtype(rule: PatternRule, leaf: Value, dtype: DType) -> DType:
    """The drawn dtype where the pattern's operations accept it, otherwise bool or an integer."""
    for operation in _operations(rule):
        for index, operand in enumerate(operation.operands):
            definition: Any = operation.definition
            if operand is leaf:
                admits = definition.operand_specs[min(index, len(definition.operand_specs) - 1)].constraint.admits
                return next(kind for kind in (dtype, dtypes.BOOL, dtypes.I64) if admits(kind))
    return dtype


# -- running and comparing -------------------------------------------------------------------------------------


def _compare(
    rule: Rule, module: Module, report: RuleReport, draw: random.Random, reasons: dict[str, int] | None = None
) -> Failure | None:
    """Apply the rule to a program and compare; counts the program, or the reason why the rule does not apply."""
    program, changed = str(module), module.clone()
    statistics: dict[str, RuleStatistics] = {}
    try:
        apply_rules(changed.main, [rule], numerics="approximates", statistics=statistics)
    except IrcError as error:
        return Failure(error.diagnostics[0].message, program)
    record = statistics[rule.name]
    if not record.matched:
        reason = next(iter(record.rejected), "its pattern is not matched")
        if reasons is None:
            return Failure(f"it does not apply to its example: {reason}", program)
        reasons[reason] = reasons.get(reason, 0) + 1
        return None
    report.programs += 1
    used = {value.dtype.name for value in (*module.main.arguments, *module.main.returned)}
    known = [dtype.name for dtype in dtypes.ALL if dtype.name in used | set(report.dtypes)]
    report.dtypes = tuple(sorted(known, key=lambda name: dtypes.by_name(name).bits))
    for round in range(2 if isinstance(rule, PatternRule) else 12):
        inputs = _inputs(module.main, draw, special=round > 0 and rule.numerics == "exact")
        try:
            message = _difference(rule.numerics, module, changed, inputs, draw.randrange(2**32))
        except IrcError as error:
            if not error.code.startswith("run."):
                raise
            continue  # the random inputs are not valid, such as an index out of range
        if message is not None:
            shown = {name: array.tolist() for name, array in inputs.items() if array.size <= SHOWN}
            return Failure(message, program, shown, sum(array.size for array in inputs.values()))
    return None


def _inputs(function: Function, draw: random.Random, special: bool) -> dict[str, Array]:
    generator = np.random.default_rng(draw.randrange(2**32))
    sizes: dict[Any, int] = {symbol: draw.choice(EXTENTS) for symbol in function.symbols.values()}
    inputs = {}
    for argument in function.arguments:
        shape = tuple(dims.evaluate(dim, sizes) for dim in argument.shape)
        values: Array
        if argument.dtype.is_float:
            values = generator.normal(size=shape)
            if special:
                chosen = generator.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -2.5], size=shape)
                values = np.where(generator.random(shape) < 0.5, chosen, values)
        else:
            values = generator.integers(0, 2 if argument.dtype is dtypes.BOOL else 5, size=shape)
        inputs[argument.name] = np.asarray(values).astype(argument.dtype.numpy)
    return inputs


def _difference(numerics: Numerics, before: Module, after: Module, inputs: dict[str, Array], seed: int) -> str | None:
    """A description of a difference of the programs that the class of numerics does not allow."""
    with np.errstate(all="ignore"):
        old, new = (list(interpreter.run(module, inputs).values()) for module in (before, after))
        exact_old, exact_new = ([array.astype(np.float64) if is_float(array) else array for array in
                                 interpreter.run(module, inputs, precision="f64").values()]
                                for module in (before, after)) if numerics != "exact" else (old, new)  # fmt: skip
    rule = NUMERICS_RULES[numerics].functions[0]
    sizes: list[float] | None = None
    for index, (a, b) in enumerate(zip(new, old, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"result {index} is {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
        if not is_float(b):
            if not same_bits(a, b):
                return f"result {index} differs"
            continue
        results = Results(index, b, a, exact_old[index], exact_new[index])
        broken: str | None = rule(results)
        if broken is not None and numerics != "exact":  # relative to the result; the terms may be larger
            if sizes is None:
                sizes = list(map(max, *(term_sizes(module, inputs, seed) for module in (before, after))))
            broken = rule(replace(results, size=sizes[index]))
        if broken is not None:
            return broken
    return None
