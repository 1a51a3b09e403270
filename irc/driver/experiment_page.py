"""The report of an experiment as an HTML file with tables and plots that needs no network; its script is in `pages`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from irc.device import find_device
from irc.diagnostics import printable
from irc.driver.experiment_report import ExperimentReport, Measurement
from irc.driver.html_pages import page as html_page

PEAKS = (("matrix", "bf16"), ("vector", "f32"))  # of a device, that the roofline shows where it has them


def page(report: ExperimentReport) -> str:
    """The report as HTML."""
    return html_page("experiment", f"irc experiment: {', '.join(report.pipelines)}", data_of(report))


def data_of(report: ExperimentReport) -> Any:
    """The report with the figures that are derived from others, and the roofs of the device, as JSON has them."""
    device = find_device(report.device)
    peaks = {"matrix": device.matrix, "vector": device.vector}
    return shown({
        **asdict(report),
        "cases": [{**asdict(case), "measured": {name: _figures(each) for name, each in case.measured.items()}}
                  for case in report.cases],
        "roofs": {
            "memory": device.memory_rate,
            "peaks": {f"{dtype} {unit}": peaks[unit][dtype] for unit, dtype in PEAKS if dtype in peaks[unit]},
        },
    })  # fmt: skip


def _figures(each: Measurement) -> dict[str, Any]:
    derived = ("device_operations", "kernel_bytes", "library_bytes", "host_bytes")
    figures = {key: value for key, value in asdict(each).items() if key != "groups"}
    return figures | {name: getattr(each, name) for name in derived}


def shown(part: Any) -> Any:
    """Data with printable texts."""
    if isinstance(part, str):
        return printable(part)
    if isinstance(part, Mapping):
        return {printable(key): shown(value) for key, value in part.items()}
    return [shown(each) for each in part] if isinstance(part, (list, tuple)) else part
