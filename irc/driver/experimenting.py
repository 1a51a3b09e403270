"""`irc experiment`: compare pipelines on models at sizes, by figures that need no GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np

from irc import interpreter
from irc.cost import CostModel, find_cost
from irc.device import Device
from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs, read_arrays
from irc.driver.content_keys import content_of, files_named
from irc.driver.counting import computing_members, kernel_operations
from irc.driver.experiment_cache import Cache
from irc.driver.experiment_report import (
    Case,
    ExperimentReport,
    Measurement,
    Part,
    digest,
    plan_difference,
    summarize,
)
from irc.driver.figures import Counted, by_operation, report_on
from irc.driver.measuring import relative_error
from irc.driver.models import Settings, Source, find_backend, read_pipeline
from irc.driver.optimizing import run_pipeline
from irc.driver.roofline import estimate, modeled
from irc.files import guarded, temporary_folder
from irc.interpreter import check_inputs
from irc.ir import Operation
from irc.module import Module
from irc.printer import print_operation
from irc.sizes import representative_sizes

COMPILATIONS = 3  # the median of their times is reported
ENOUGH_SECONDS = 2.0  # of compilations: then no other one follows
BASELINE = "eager"  # a row of every experiment
BASES = {BASELINE: BASELINE, "none": "default{fuse.policy=none}"}  # that `base` may name without a pipeline


@guarded()
def experiment(
    sources: Mapping[str, Source] | Sequence[str],
    pipelines: Mapping[str, str],
    *,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    base: str = BASELINE,
    with_error: bool = True,
    cache: str | Path | None = None,
    cost: str | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
    settings: Settings | None = None,
) -> ExperimentReport:
    """Run each pipeline on each model at each size, and count launches, bytes, flops, programs, and more.

    `pipelines` are texts by name; plans are compared with the first one's, and geometric means of all cases with the
    pipeline `base`. `eager`, a kernel or a library call for each operation, is added if no pipeline has that name, and
    so is `none`, without fusion, if it is the base. `sizes` are one or several for a symbol, and a model is measured at
    each combination of the symbols that it has; `settings.dims` are sizes, too, and other symbols count as 64, or their
    bound. Nothing runs on a device: time estimates are rooflines (Williams, Waterman, Patterson, 2009) of
    `settings.device`. Without `with_error` nothing is computed, and `error` is NaN. Each model is read once, so that
    all pipelines have the same weights. Measurements that the folder `cache` has are taken from there, and others are
    added, each as soon as it is made. `cost` is FILE.py:NAME of a function with @cost, whose time is reported beside
    the roofline's. `inputs` are arrays by name, or an .npz file, for the models that have inputs of these names, whose
    sizes are then those of the arrays; others get random ones. `progress` is called with the next step.

    Raises `dim.unbound` for a symbol that no model has, `usage.arguments` for an unknown base, inputs of no model, and
    what is neither models nor pipelines, `pass.unknown` and `pass.syntax`, and what reading a model raises. A pipeline
    that fails otherwise, or a size that a model does not take, is a `failure` of the measurement.
    """
    settings = Settings.of(settings)
    _check_kinds(sources, pipelines)
    swept = {name: (size,) if isinstance(size, int) else tuple(size)
             for name, size in {**settings.dims, **(sizes or {})}.items()}  # fmt: skip
    named = dict(sources) if isinstance(sources, Mapping) else {str(source): source for source in sources}
    chosen = {**pipelines, BASELINE: pipelines.get(BASELINE, BASELINE)}
    if base not in chosen:
        if base not in BASES:
            raise fail("usage.arguments", f"the base `{base}` is none of the pipelines", expected=", ".join(chosen),
                       help=f'add -p {base}="PASSES", or give another --base')  # fmt: skip
        chosen[base] = BASES[base]
    check_pipelines(chosen, settings)
    model = find_cost(cost or "")
    run = _Run(chosen, seed, with_error, settings, None if cache is None else Cache(cache), progress, cost, inputs)
    device = run.device
    models = {}
    for number, (name, source) in enumerate(named.items(), 1):
        title = f"{name}{f' ({number} of {len(named)})' if len(named) > 1 else ''}"
        progress(f"reading {title}")
        module = replace(settings, dims={}).load(source)
        module.main.result_names = tuple(module.main.output_names)  # the same in all pipelines
        models[name] = title, module
    _check_symbols(swept, [module for _, module in models.values()])
    run.check_inputs([module for _, module in models.values()])
    cases = tuple(run.case(name, module, given, title)
                  for name, (title, module) in models.items() for given in _combinations(swept, module))  # fmt: skip
    return ExperimentReport(chosen, cases, base, summarize(cases, chosen, base), device.name, device.summary,
                            None if model is None else model.name)


def check_pipelines(pipelines: Mapping[str, str], settings: Settings) -> None:
    """Raise `pass.unknown` and `pass.syntax` before anything is measured."""
    context = settings.context("triton")
    for text in pipelines.values():
        try:
            read_pipeline(text, context)
        except IrcError as error:
            if error.code in ("pass.unknown", "pass.syntax"):
                raise


def _check_kinds(sources: Any, pipelines: Any) -> None:
    if isinstance(sources, str) or not isinstance(sources, Mapping | Sequence):
        raise fail("usage.arguments", f"the models are {sources!r}", expected="a list of them, or models by name")
    if not isinstance(pipelines, Mapping):
        raise fail("usage.arguments", f"the pipelines are {pipelines!r}", expected='texts by name: {"mine": "default"}')


def _check_symbols(swept: Mapping[str, tuple[int, ...]], modules: Sequence[Module]) -> None:
    known = dict.fromkeys(symbol for module in modules for symbol in module.main.symbols)
    for name, values in swept.items():
        if name not in known:
            raise fail("dim.unbound", f"none of the models has a symbol `{name}`",
                       expected=f"one of: {', '.join(known) or 'none'}")  # fmt: skip
        if not values:
            raise fail("usage.arguments", f"there is no size of {name}", expected="one or several")


def _combinations(swept: Mapping[str, tuple[int, ...]], module: Module) -> Iterator[dict[str, int]]:
    """The sizes of each case of a model: every combination, the last symbol's first."""
    names = [name for name in swept if name in module.main.symbols]
    for values in product(*(dict.fromkeys(swept[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class _Run:
    """What is the same for all cases."""

    pipelines: Mapping[str, str]
    seed: int
    with_error: bool
    settings: Settings
    cache: Cache | None
    progress: Callable[[str], None]
    cost: str | None = None
    inputs: Mapping[str, Any] | str | Path | None = None

    def check_inputs(self, modules: Sequence[Module]) -> None:
        """Raise `usage.arguments` for inputs that no model has, and the errors of reading them."""
        if self.inputs is not None and not any(map(self.inputs_of, modules)):
            raise fail("usage.arguments", "no model has an input of these names",
                       expected=", ".join(dict.fromkeys(each.name for module in modules
                                                        for each in module.main.arguments)))  # fmt: skip

    def inputs_of(self, module: Module) -> Mapping[str, Any] | None:
        """The arrays for a model, None where random ones are to be used: it has no input of these names."""
        if self.inputs is None:
            return None
        declared = {argument.name: argument.dtype for argument in module.main.arguments}
        given = self.inputs if isinstance(self.inputs, Mapping) else read_arrays(self.inputs, declared)
        arrays = {name: array for name, array in given.items() if name in declared}
        return arrays or None

    @cached_property
    def device(self) -> Device:
        return self.settings.context("triton").device

    def case(self, name: str, module: Module, given: Mapping[str, int], title: str) -> Case:
        """The measurements of a model at these sizes of its symbols; its `title` is for those who wait."""
        try:
            inputs = self.inputs_of(module)
            if inputs is not None:
                inputs = given_inputs(module.main, inputs, given, self.seed)
                given = {**{each.name: size for each, size in check_inputs(module.main, inputs).items()}, **given}
            settings = replace(self.settings, dims=given, specialize={}, fold_defaults=False)  # already applied
            sizes = {symbol.name: size for symbol, size in representative_sizes(module.main, given).items()}
        except IrcError as error:
            failed = Measurement(failure=_failure(error))
            return Case(name, dict(given), dict.fromkeys(self.pipelines, failed), {})
        reference = _Reference(module, given, self.seed, inputs) if self.with_error else None
        shown = "".join(f" {symbol}={size}" for symbol, size in given.items())
        content = "" if self.cache is None else content_of(module) + _content(inputs)
        measured = {}
        for pipeline, text in self.pipelines.items():
            self.progress(f"{title}{shown}: {pipeline}")
            measured[pipeline] = self._cached(module, content, text, reference, settings)
        first, *others = measured
        plans = {other: plan_difference(measured[first], measured[other]) for other in others if other != BASELINE}
        return Case(name, sizes, measured, plans)

    def _cached(self, module: Module, content: str, text: str, reference: _Reference | None,
                settings: Settings) -> Measurement:  # fmt: skip
        if self.cache is None:
            return self._measured(module, text, reference, settings)
        options = (self.seed, self.with_error, self.cost)
        key = self.cache.key(content, text, settings, self.device, options, files_named(self.cost))
        kept = self.cache.get(key)
        if kept is None:
            kept = self._measured(module, text, reference, settings)
            self.cache.put(key, kept)
        return kept

    def _measured(self, module: Module, text: str, reference: _Reference | None, settings: Settings) -> Measurement:
        try:
            return _measure(module, text, reference, settings, self.device, find_cost(self.cost or ""))
        except IrcError as error:  # reported in its row; the other rows are measured
            return Measurement(failure=_failure(error))


def _content(inputs: Mapping[str, Any] | None) -> str:
    """A digest of arrays that are given; empty for none."""
    if inputs is None:
        return ""
    arrays = {name: np.asarray(array) for name, array in sorted(inputs.items())}
    return digest(repr([(name, array.shape, str(array.dtype), array.tolist()) for name, array in arrays.items()]))


def _failure(error: IrcError) -> str:
    """Code and message of an error in one line."""
    first = error.diagnostics[0]
    return f"{error.code}: {first.message}{f'; expected {first.expected}' if first.expected else ''}"


@dataclass
class _Reference:
    """Inputs, and the results of a model in f64, computed when first needed."""

    module: Module
    given: Mapping[str, int]
    seed: int
    arrays: Mapping[str, Any] | None = None

    @cached_property
    def inputs(self) -> Any:
        return given_inputs(self.module.main, self.arrays, self.given, self.seed)

    @cached_property
    def exact(self) -> Mapping[str, Any]:
        return interpreter.run(self.module, self.inputs, precision="f64")

    def error_of(self, module: Module) -> float:
        """The largest relative error of any output."""
        outputs = interpreter.run(module, self.inputs)
        return max((relative_error(array, self.exact[name]) for name, array in outputs.items()), default=0.0)


def _measure(imported: Module, pipeline: str, reference: _Reference | None, settings: Settings,
             device: Device, model: CostModel | None) -> Measurement:  # fmt: skip
    seconds: list[float] = []
    triton = find_backend("triton")
    while len(seconds) < COMPILATIONS and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        module, _context = run_pipeline(imported, pipeline, "triton", settings)
        with temporary_folder() as folder:
            triton.emit(module, folder / "artefact")
        seconds.append(time.perf_counter() - start)
    sizes = representative_sizes(module.main, settings.dims)
    counted = by_operation(module, sizes)
    report = report_on(module, sizes, {}, counted)
    return Measurement(
        kernels=report.launches,
        library_calls=report.library_calls,
        host_operations=report.host_operations,
        distinct_bytes=report.distinct_bytes,
        loaded_bytes=report.loaded_bytes,
        flops=report.flops,
        programs=report.smallest_grid,
        estimated_microseconds=1e6 * estimate(chain.from_iterable(counted[0].values()), device),
        compile_seconds=statistics.median(seconds),
        error=float("nan") if reference is None else reference.error_of(module),
        groups={operation.attributes["name"]: _computed(operation) for operation in kernel_operations(module)},
        parts=_parts(counted, device),
        plan=digest("\n".join(print_operation(each) for body in module.functions.values() for each in body.block)),
        modeled_microseconds=None if model is None else 1e6 * modeled(counted[0], device, model),
    )  # fmt: skip


def _parts(counted: Counted, device: Device) -> tuple[Part, ...]:
    """What each operation of the module makes the device do, in program order, except what launches nothing."""
    return tuple(
        Part(
            name=_name_of(operation),
            kind=members[0].kind,
            count=len(members),
            distinct_bytes=sum(each.distinct_bytes for each in members),
            loaded_bytes=sum(each.kernel.loaded_bytes if each.kernel else each.distinct_bytes for each in members),
            flops=sum(each.flops for each in members),
            estimated_microseconds=1e6 * estimate(members, device),
        )
        for operation, members in counted[0].items()
        if members
    )


def _name_of(operation: Operation | None) -> str:
    if operation is None:
        return "copies of results"
    if operation.name == "kernel":
        return f"@{operation.attributes['name']}"
    return f"%{operation.results[0].name}" if operation.results else operation.name


def _computed(kernel: Operation) -> tuple[str, ...]:
    """The names of the values that a kernel computes, except views and constants."""
    block = kernel.regions[0].block
    outside = {inner: result.name for inner, result in zip(block.terminator.inputs, kernel.results, strict=True)}
    computed = (inner.results[0] for inner in computing_members(kernel))
    return tuple(outside.get(value, value.name) for value in computed)
