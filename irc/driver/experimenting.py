"""`irc experiment`: compare pipelines on models by figures that need no GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from irc import interpreter
from irc.device import Device
from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs
from irc.driver.counting import computing_members, kernel_operations
from irc.driver.figures import by_operation, report_on
from irc.driver.measuring import relative_error
from irc.driver.models import Settings, Source, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.printing import format_bytes
from irc.driver.roofline import estimate
from irc.files import temporary_folder
from irc.ir import Operation
from irc.module import Module
from irc.sizes import representative_sizes

COMPILATIONS = 3  # the median of their times is reported
BASELINE = "eager"  # a row of every experiment


@dataclass(frozen=True)
class Measurement:
    """The figures of one model after one pipeline; or the coded error with which it fails, and zeros.

    Counts are per run: kernel launches, PyTorch operations that are products, convolutions or attention, and other
    operations. `distinct_bytes` are the distinct elements that each of these reads and writes, `loaded_bytes` all loads
    and stores. `programs` is the smallest grid of any kernel. `compile_seconds` is the wall time of passes and
    emission. `error` is max|a - b| / max|b| against an evaluation in f64, the largest of all outputs.
    """

    kernels: int = 0
    library_calls: int = 0
    host_operations: int = 0
    distinct_bytes: int = 0
    loaded_bytes: int = 0
    flops: int = 0
    programs: int = 0
    estimated_microseconds: float = 0.0
    compile_seconds: float = 0.0
    error: float = 0.0
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the values that each kernel computes
    failure: str = ""

    @property
    def device_operations(self) -> int:
        """Launches, library calls and host operations."""
        return self.kernels + self.library_calls + self.host_operations


@dataclass(frozen=True)
class ExperimentReport:
    """Measurements by model and pipeline; `plans` has the differences of each pipeline's plan from the first one's,
    except for `eager`."""

    pipelines: Mapping[str, str]
    models: Mapping[str, Mapping[str, Measurement]]
    plans: Mapping[str, Mapping[str, tuple[str, ...]]]
    device: str
    device_summary: str
    sizes: Mapping[str, Mapping[str, int]]
    label: str = "counted; times are estimates from the device's published peaks, not measured"
    schema: str = "irc.experiment/2"

    @property
    def passed(self) -> bool:
        return not any(each.failure for row in self.models.values() for each in row.values())


def experiment(
    sources: Mapping[str, Source] | Sequence[str],
    pipelines: Mapping[str, str],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
    settings: Settings | None = None,
) -> ExperimentReport:
    """Run each pipeline on each model and count launches, bytes, flops, programs, and more.

    `pipelines` are texts by name; plans are compared with the first one's. `eager`, a kernel or a library call for each
    operation, is added if no pipeline has that name. Sizes are those of `settings.dims` that a model has; other symbols
    count as 64, or their bound. Nothing runs on a device: time estimates are rooflines (Williams, Waterman, Patterson,
    2009) of `settings.device`. Each model is read once, so that all pipelines have the same weights. `progress` is
    called with the next step.
    """
    settings = settings or Settings()
    device = settings.context("triton").device
    named = dict(sources) if isinstance(sources, Mapping) else {str(source): source for source in sources}
    base, *others = pipelines
    pipelines = {**pipelines, BASELINE: pipelines.get(BASELINE, BASELINE)}
    rows: dict[str, dict[str, Measurement]] = {}
    plans, sizes = {}, {}
    for number, (name, source) in enumerate(named.items(), 1):
        which = f"{name}{f' ({number} of {len(named)})' if len(named) > 1 else ''}"
        progress(f"reading {which}")
        module = replace(settings, dims={}).load(source)
        known = {symbol: size for symbol, size in settings.dims.items() if symbol in module.main.symbols}
        model_settings = replace(settings, dims=known, specialize={}, fold_defaults=False)  # already applied
        sizes[name] = {symbol.name: size for symbol, size in representative_sizes(module.main, known).items()}
        rows[name] = {}
        for title, text in pipelines.items():
            progress(f"{which}: {title}")
            rows[name][title] = _measured(module, text, device, seed, model_settings)
        plans[name] = {other: plan_difference(rows[name][base], rows[name][other]) for other in others}
    unknown = sorted(set(settings.dims) - {symbol for model_sizes in sizes.values() for symbol in model_sizes})
    if unknown:
        raise fail("dim.unbound", f"none of the models has a symbol `{unknown[0]}`")
    return ExperimentReport(dict(pipelines), rows, plans, device.name, device.summary, sizes)


def _measured(imported: Module, pipeline: str, device: Device, seed: int, settings: Settings) -> Measurement:
    try:
        return _measure(imported, pipeline, device, seed, settings)
    except IrcError as error:  # reported in its row; the other rows are measured
        return Measurement(failure=f"{error.code}: {error.diagnostics[0].message}")


def _measure(imported: Module, pipeline: str, device: Device, seed: int, settings: Settings) -> Measurement:
    seconds, triton = [], find_backend("triton")
    for _ in range(COMPILATIONS):
        start = time.perf_counter()
        module, _context = run_pipeline(imported, pipeline, "triton", settings)
        with temporary_folder() as folder:
            triton.emit(module, folder / "artefact")
        seconds.append(time.perf_counter() - start)
    sizes = representative_sizes(module.main, settings.dims)
    counted = by_operation(module, sizes)
    report = report_on(module, sizes, {}, counted)
    imported.main.result_names = tuple(imported.main.output_names)
    given = given_inputs(imported.main, None, settings.dims, seed)
    exact = interpreter.run(imported, given, precision="f64")
    outputs = interpreter.run(module, given)
    return Measurement(
        kernels=report.launches,
        library_calls=report.library_calls,
        host_operations=report.host_operations,
        distinct_bytes=report.distinct_bytes,
        loaded_bytes=report.loaded_bytes,
        flops=report.flops,
        programs=min((kernel.programs for kernel in report.kernels), default=0),
        estimated_microseconds=1e6 * estimate(chain.from_iterable(counted[0].values()), device),
        compile_seconds=statistics.median(seconds),
        error=max((relative_error(array, exact[name]) for name, array in outputs.items()), default=0.0),
        groups={operation.attributes["name"]: _computed(operation) for operation in kernel_operations(module)},
    )  # fmt: skip


def _computed(kernel: Operation) -> tuple[str, ...]:
    """The names of the values that a kernel computes, except views and constants."""
    block = kernel.regions[0].block
    outside = {inner: result.name for inner, result in zip(block.terminator.inputs, kernel.results, strict=True)}
    computed = (inner.results[0] for inner in computing_members(kernel))
    return tuple(outside.get(value, value.name) for value in computed)


def plan_difference(base: Measurement, other: Measurement) -> tuple[str, ...]:
    """A line for each kernel of `other` whose set of values is not that of a kernel of `base`."""
    lines = []
    sets = {frozenset(values): name for name, values in base.groups.items()}
    for name, values in other.groups.items():
        members = frozenset(values)
        if members in sets:
            continue
        nearest = max(sets, key=lambda group: (len(group & members), -len(group)), default=frozenset())
        if not nearest & members:
            lines.append(f"@{name} is new: {_listed(values)}")
            continue
        gained = [value for value in values if value not in nearest]
        lost = [value for value in base.groups[sets[nearest]] if value not in members]
        parts = [f"gains {_listed(gained)}"] if gained else []
        parts += [f"loses {_listed(lost)}"] if lost else []
        lines.append(f"@{name} {' and '.join(parts)}")
    if other.distinct_bytes != base.distinct_bytes and not (base.failure or other.failure):
        saved = base.distinct_bytes - other.distinct_bytes
        lines.append(f"{'saves' if saved > 0 else 'costs'} {format_bytes(abs(saved))} of global memory traffic")
    return tuple(lines)


def _listed(values: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(f"%{value}" for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
