"""Printing the report of `irc experiment`: a row for each case and pipeline, differences of plans, geometric means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irc.cli.output import show


def show_experiment(report: Any) -> None:
    """Print the cases of each model as one table, the differences of the plans, and the geometric means."""
    from irc.driver.printing import at_sizes, shorten

    by_model: dict[str, list[Any]] = {}
    for case in report.cases:
        by_model.setdefault(case.model, []).append(case)
    for model, cases in by_model.items():
        show(f"{shorten(model, 60)}{at_sizes(cases[0].sizes) if len(cases) == 1 else ''}")
        _show_table(report, cases)
        for case in cases:
            for name, each in case.measured.items():
                if each.failure:
                    show(f"  {_label(case, name, cases)} fails: {each.failure}")
        _show_plans(cases)
    _show_summary(report)
    show(report.label)


def _show_plans(cases: Sequence[Any]) -> None:
    """How the plan of each pipeline differs from the first one's; once where that is the same at all sizes."""
    from irc.driver.experiment_report import traffic_difference

    first, *others = cases[0].measured
    for name in others:
        differences: dict[tuple[str, ...], list[Any]] = {}
        for case in cases:
            same = case.same_plan(name)
            lines = case.plans.get(name, ()) if same is None else (f"that of {same}",)
            if len(cases) == 1 and name in case.plans:  # figures at several sizes are in the table
                text = traffic_difference(case.measured[first], case.measured[name])
                lines = (*lines, text) if text else lines
            differences.setdefault(lines, []).append(case)
        for lines, alike in differences.items():
            labels = [name] if len(differences) == 1 else [_label(case, name, cases) for case in alike]
            for line in lines:
                show(f"  plan of {', '.join(labels)}: {line}")


def _label(case: Any, pipeline: str, cases: Sequence[Any]) -> str:
    """The pipeline, preceded by the sizes that differ between cases."""
    if len(cases) == 1:
        return pipeline
    swept = [name for name in case.sizes if len({other.sizes.get(name) for other in cases}) > 1]
    return " ".join([*(f"{name}={case.sizes[name]}" for name in swept), pipeline])


def _show_table(report: Any, cases: Sequence[Any]) -> None:
    from irc.driver.printing import format_bytes, format_count, shorten

    heads = ("", "launches", "library", "host", "traffic", "in kernels", "in library", "in host", "flops",
             "programs min", f"est. us {shorten(report.device, 20)}",
             *(() if report.cost is None else (f"{report.cost} us",)), "compile s", "error vs f64")  # fmt: skip
    rows = [
        (f"  {_label(case, name, cases)}", str(each.kernels), str(each.library_calls), str(each.host_operations),
         format_bytes(each.distinct_bytes), format_bytes(each.kernel_bytes), format_bytes(each.library_bytes),
         format_bytes(each.host_bytes),
         format_count(each.flops).strip(), str(each.programs), f"{each.estimated_microseconds:.3g}",
         *(() if report.cost is None else (f"{each.modeled_microseconds:.3g}",)),
         f"{each.compile_seconds:.2f}", "-" if math.isnan(each.error) else f"{each.error:.0e}")
        for case in cases for name, each in case.measured.items() if not each.failure
    ]  # fmt: skip
    _show_aligned([heads, *rows])


def _show_summary(report: Any) -> None:
    means = "geometric means " if len(report.cases) > 1 else ""
    show(f"{means}relative to {report.base}; less is better")
    heads = ("", "cases", "operations", "traffic", "loaded", "est. us")
    rows = [(f"  {name}", f"{each.cases} of {len(report.cases)}",
             *(f"{mean:.3f}" for mean in (each.device_operations, each.distinct_bytes, each.loaded_bytes,
                                          each.estimated_microseconds)))
            for name, each in report.summary.items()]  # fmt: skip
    _show_aligned([heads, *rows])


def _show_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        figures = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        show("  ".join([f"{row[0]:{widths[0]}}", *figures]).rstrip())
