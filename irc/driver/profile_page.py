"""The page of `irc profile`: the graph of the compiled program, as `irc view` draws it, with measured times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irc._version import __version__
from irc.diagnostics import printable
from irc.driver.html_pages import page
from irc.driver.models import Settings
from irc.driver.view_graph import prefix_of, stage_records
from irc.module import Module
from irc.sizes import representative_sizes


def profile_page(module: Module, microseconds: Mapping[str, float], label: str, settings: Settings) -> str:
    """The page of a compiled program. `microseconds` are the times of values by id, for those that were measured;
    `label` says where. Bytes and flops are those at the sizes of `settings.dims`."""
    sizes, device = representative_sizes(module.main, settings.dims), settings.context("triton").device
    kernels: dict[str, str] = {}
    for function in module.functions.values():
        prefix = prefix_of(function.name, module)
        kernels |= {f"{prefix}@{operation.attributes['name']}": f"{prefix}{operation.results[0].name}"
                    for operation in function.walk() if operation.name == "kernel"}  # fmt: skip
    records: list[dict[str, Any]] = []
    for record in stage_records(module, sizes, device):
        plain = {key: part for key, part in record.items() if key not in ("us", "limit")}  # which are estimates
        name: str = record["id"]
        time = microseconds.get(kernels.get(name, name))
        is_measured = time is not None and record["kind"] not in ("input", "output", "argument", "member")
        records.append({**plain, "us": time} if is_measured else plain)
    stage = {"name": "compiled", "changed": True, "nodes": list(range(len(records)))}
    data = {
        "version": __version__,
        "model": printable(module.name),
        "device": device.summary,
        "times": printable(label),
        "sizes": {printable(symbol.name): size for symbol, size in sizes.items()},
        "pipelines": [{"name": "profile", "text": "", "stages": [stage], "records": records}],
        "sources": {},
    }
    return page("view", f"{module.name}: irc profile", data)
