"""What `irc experiment` reports: measurements of cases, geometric means, differences of plans, and a flat table."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from irc.diagnostics import UNKNOWN, fail, printable
from irc.driver.printing import format_bytes
from irc.plan_difference import of_groups
from irc.plan_file import Entry

# The figures of a row, by their columns in tables that programs read.
COLUMNS = ("kernels", "library_calls", "host_operations", "distinct_bytes", "kernel_bytes", "library_bytes",
           "host_bytes", "loaded_bytes", "flops", "programs", "estimated_microseconds", "modeled_microseconds",
           "compile_seconds", "error", "plan", "failure")  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a text starts with that a spreadsheet evaluates
# The figures that geometric means are taken of; of each, less is better.
COMPARED = ("device_operations", "distinct_bytes", "loaded_bytes", "estimated_microseconds")


@dataclass(frozen=True)
class Part:
    """What one operation of the compiled module makes the device do: `count` launches or calls, together with these
    figures. `kind` is "kernel", "library", "operation" or "extern"."""

    name: str
    kind: str
    count: int
    distinct_bytes: int
    loaded_bytes: int
    flops: int
    estimated_microseconds: float


@dataclass(frozen=True)
class Measurement:
    """The figures of one model after one pipeline; or the coded error with which it fails, and zeros.

    Counts are per run: kernel launches, PyTorch operations that are products, convolutions or attention, and other
    operations. `distinct_bytes` are the distinct elements that each of these reads and writes, `loaded_bytes` all loads
    and stores. `programs` is the smallest grid of any kernel. `compile_seconds` is the wall time of passes and
    emission. `error` is max|a - b| / max|b| against an evaluation in f64, the largest of all outputs. `plan` is a
    digest of the compiled module: where it is equal, so is the plan. `modeled_microseconds` is the time by a user's
    function with @cost, None without one.
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
    parts: tuple[Part, ...] = ()
    plan: str = ""
    failure: str = ""
    modeled_microseconds: float | None = None

    @property
    def device_operations(self) -> int:
        """Launches, library calls and host operations."""
        return self.kernels + self.library_calls + self.host_operations

    @property
    def kernel_bytes(self) -> int:
        """The part of `distinct_bytes` that kernels move."""
        return self._bytes_of("kernel")

    @property
    def library_bytes(self) -> int:
        """The part of `distinct_bytes` that library calls move."""
        return self._bytes_of("library")

    @property
    def host_bytes(self) -> int:
        """The part of `distinct_bytes` that host operations and copies of results move."""
        return self.distinct_bytes - self.kernel_bytes - self.library_bytes

    def _bytes_of(self, kind: str) -> int:
        return sum(part.distinct_bytes for part in self.parts if part.kind == kind)


@dataclass(frozen=True)
class Case:
    """A model at the sizes of its symbols: the measurements by pipeline, and how plans differ from the first one's."""

    model: str
    sizes: Mapping[str, int]
    measured: Mapping[str, Measurement]
    plans: Mapping[str, tuple[str, ...]]

    def same_plan(self, pipeline: str) -> str | None:
        """An earlier pipeline that gave the same program, so that all figures but the compile time are equal."""
        for name, each in self.measured.items():
            if name == pipeline:
                return None
            if each.plan and each.plan == self.measured[pipeline].plan:
                return name
        raise KeyError(pipeline)


@dataclass(frozen=True)
class Summary:
    """Geometric means of a pipeline's figures divided by those of the base, over the `cases` in which neither fails or
    is zero; NaN if there is none. Less is better."""

    cases: int
    device_operations: float
    distinct_bytes: float
    loaded_bytes: float
    estimated_microseconds: float


@dataclass(frozen=True)
class ExperimentReport:
    """The cases of an experiment, and for each pipeline geometric means relative to `base`."""

    pipelines: Mapping[str, str]
    cases: tuple[Case, ...]
    base: str
    summary: Mapping[str, Summary]
    device: str
    device_summary: str
    cost: str | None = None  # the name of the user's function with @cost
    label: str = "counted; times are estimates from the device's published peaks, not measured"
    schema: str = "irc.experiment/3"

    @property
    def passed(self) -> bool:
        return not any(each.failure for case in self.cases for each in case.measured.values())

    def rows(self) -> list[dict[str, Any]]:
        """A row for each measurement: model, sizes as `dim.S`, pipeline, and `COLUMNS`; missing sizes are None."""
        symbols = dict.fromkeys(name for case in self.cases for name in case.sizes)
        return [
            {"model": case.model, **{f"dim.{name}": case.sizes.get(name) for name in symbols},
             "pipeline": name, **{column: getattr(each, column) for column in COLUMNS}}
            for case in self.cases
            for name, each in case.measured.items()
        ]  # fmt: skip

    def csv(self) -> bytes:
        """`rows` as CSV with a header, in UTF-8; a text that a spreadsheet would evaluate has ' before it."""
        text, rows = io.StringIO(newline=""), self.rows()
        columns = list(rows[0]) if rows else ["model", "pipeline", *COLUMNS]
        writer = csv.DictWriter(text, columns)
        writer.writerow({key: _cell(key) for key in columns})
        writer.writerows({key: _cell(cell) for key, cell in row.items()} for row in rows)
        return text.getvalue().encode()

    def parquet(self) -> bytes:
        """`rows` as a Parquet file; raises `install.missing_extra` without pyarrow."""
        arrow, parquet = parquet_packages()
        sink = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(self.rows()), sink)
        return sink.getvalue()


def _cell(value: Any) -> Any:
    """A cell of a table in CSV, as the function `csv` of `pages/page.js` writes it."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(FORMULA) else value)


def parquet_packages() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; raises `install.missing_extra`."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise fail("install.missing_extra", "writing Parquet needs pyarrow, which is not installed",
                   help="pip install pyarrow, or write CSV") from None  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def summarize(cases: Sequence[Case], pipelines: Mapping[str, str], base: str) -> dict[str, Summary]:
    """The summary of each pipeline except the base."""
    summaries = {}
    for name in pipelines:
        pairs = [(case.measured[name], case.measured[base]) for case in cases]
        kept = [pair for pair in pairs if all(getattr(each, figure) for each in pair for figure in COMPARED)]
        means = {figure: _geometric_mean([getattr(each, figure) / getattr(other, figure) for each, other in kept])
                 for figure in COMPARED}  # fmt: skip
        summaries[name] = Summary(len(kept), **means)
    del summaries[base]
    return summaries


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def plan_difference(base: Measurement, other: Measurement) -> tuple[str, ...]:
    """A line for each difference between the kernels of two programs, as `irc plan diff` has them."""
    kernels = ([Entry(name, values, None, None, UNKNOWN) for name, values in each.groups.items() if values]
               for each in (base, other))  # fmt: skip
    return tuple(map(str, of_groups(*kernels)))


def traffic_difference(base: Measurement, other: Measurement) -> str:
    """What `other` saves of the global memory traffic of `base`, or costs in addition; empty if they are equal."""
    saved = base.distinct_bytes - other.distinct_bytes
    if not saved or base.failure or other.failure:
        return ""
    return f"{'saves' if saved > 0 else 'costs'} {format_bytes(abs(saved))} of global memory traffic"
