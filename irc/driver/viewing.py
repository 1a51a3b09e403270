"""`irc view`: the graph of a model after each pass, with kernels, as one HTML page that needs no network."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc._version import __version__
from irc.diagnostics import fail, printable
from irc.driver.arrays import given_inputs
from irc.driver.checking import observe_values
from irc.driver.choosing import settle
from irc.driver.compiling import stem_of
from irc.driver.counting import kernel_operations
from irc.driver.html_pages import page
from irc.driver.measuring import relative_error
from irc.driver.models import Settings, Source, find_backend, read_pipeline
from irc.driver.view_graph import prefix_of, quoted_places, stage_records
from irc.files import check_file, guarded, replacing
from irc.group import Group
from irc.ir import Operation
from irc.module import Module
from irc.pass_manager import PassManager
from irc.passes.fuse import Fuse
from irc.plan import Plan
from irc.sizes import representative_sizes
from irc.user_files import is_reference

CONTEXT = 3  # lines of a source file before and after one that is quoted
MOST_FRAMED = 2000  # operations of a module that a notebook shows as a graph: a notebook keeps each page that it shows
FRAME = ('<iframe srcdoc="{}" title="graph of {}" sandbox="allow-scripts" '
         'style="width:100%;height:560px;border:0"></iframe>')  # fmt: skip


@dataclass(frozen=True)
class ViewReport:
    """What `view` wrote: the page, its stages by pipeline, and the most operations that one of them has."""

    output: str
    stages: Mapping[str, tuple[str, ...]]
    operations: int
    bytes: int
    label: str = "times are estimates from the device's published peaks, not measured"
    schema: str = "irc.view/1"


@guarded()
def view(
    source: Source,
    pipelines: Mapping[str, str] | None = None,
    *,
    output: str | Path | None = None,
    check: bool = False,
    inputs: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> ViewReport:
    """Write a page that shows the graph of a model as imported and after each pass, and each merge of `fuse`.

    `pipelines` are one or two texts by name, shown side by side; without any, the Triton backend's is run on a model
    that has no kernels. With `check` each stage runs in the interpreter on `inputs`, or on random ones, and values have
    their error against an evaluation in f64. The page is written to `output`, by default named after the model, in the
    working directory. Raises what reading the model and the passes raise.
    """
    settings = Settings.of(settings)
    path = Path(output) if output is not None else Path(f"{stem_of(source)}.html")
    check_file(path)  # before the work is done
    if inputs is not None and not check:
        raise fail("usage.arguments", "inputs are for the errors of stages", help="give --check, too")
    imported = settings.load(source)
    if not pipelines:
        pipelines = {} if kernel_operations(imported) else {"default": find_backend("triton").PIPELINE}
    exact = None
    if check:
        imported.main.result_names = tuple(imported.main.output_names)
        given = given_inputs(imported.main, inputs, settings.dims, seed)
        exact = Exact(given, imported)
    views = {name: _View(imported, text, settings, exact) for name, text in (pipelines or {"program": ""}).items()}
    modules = [imported, *(each.module for each in views.values())]
    name = str(source) if not isinstance(source, Module) else source.name
    text = page_of(name, imported, views, settings, quoted_lines(modules) if is_reference(name) else {}).encode()
    with replacing(path) as file:
        file.write(text)
    stages = {title: tuple(stage["name"] for stage in each.stages) for title, each in views.items()}
    most = max(len(stage["records"]) for each in views.values() for stage in each.stages)
    return ViewReport(str(path), stages, most, len(text))


def framed(module: Module) -> str | None:
    """The page of a module as it is, in an element that a notebook shows. None for a module that has no function,
    or has more than `MOST_FRAMED` operations."""
    if not module.functions or sum(1 for _ in module.walk()) > MOST_FRAMED:
        return None
    settings = Settings()
    text = page_of(module.name, module, {"program": _View(module, "", settings, None)}, settings, {})
    return FRAME.format(html.escape(text), html.escape(printable(module.name)))


def page_of(name: str, imported: Module, views: Mapping[str, _View], settings: Settings,
            sources: Mapping[str, Mapping[int, str]]) -> str:  # fmt: skip
    """The page of these pipelines of a model, with lines of its sources by file and number."""
    sizes = representative_sizes(imported.main, settings.dims)
    data = {
        "version": __version__,
        "model": printable(name),
        "device": settings.context("triton").device.summary,
        "sizes": {printable(symbol.name): size for symbol, size in sizes.items()},
        "pipelines": [view.data(title) for title, view in views.items()],
        "sources": sources,
    }
    return page("view", f"{name}: irc view", data)


class Exact:
    """The values of a run in f64, by name, to which those of stages are compared."""

    def __init__(self, inputs: Mapping[str, Any], module: Module) -> None:
        self.inputs = inputs
        values, _ = observe_values(module, inputs, "f64")
        self.values = {key: array for key, (_, array) in values.items()}

    def errors(self, module: Module) -> dict[str, float]:
        """The relative error of each value of the entry that the imported program has, too."""
        values, _ = observe_values(module, self.inputs, "declared")
        errors: dict[str, float] = {}
        for key, (_, array) in values.items():
            function, name, times = key
            exact = self.values.get(key)
            is_compared = function == module.main.name and times == 0 and exact is not None
            if is_compared and getattr(exact, "shape", None) == getattr(array, "shape", ()):
                errors[name] = float(relative_error(array, exact))
        return errors


class _View:
    """The stages of one pipeline."""

    def __init__(self, imported: Module, pipeline: str, settings: Settings, exact: Exact | None) -> None:
        self.pipeline, self.settings, self.exact = pipeline, settings, exact
        self.context = settings.context("triton")
        self.sizes = representative_sizes(imported.main, settings.dims)
        self.module = imported.clone()
        self.passes = read_pipeline(pipeline, self.context) if pipeline else []
        settle(self.module, self.passes, self.context)
        self.stages: list[dict[str, Any]] = []
        self.text = ""
        self._add("import", self.module)
        PassManager(self.passes, self.context, verify_each=settings.verify_each, observe=self._add).run(self.module)

    def _add(self, name: str, module: Module) -> None:
        """Add a stage; one that changes nothing has the records of the stage before."""
        if self.stages:
            self.settings.dump(name, module)
        text = str(module)
        stage: dict[str, Any] = {"name": name, "changed": text != self.text}
        if stage["changed"]:
            self.text = text
            self.sizes = representative_sizes(module.main, self.settings.dims)
            stage["records"] = stage_records(module, self.sizes, self.context.device)
            if self.exact is not None:
                stage["errors"] = self.exact.errors(module)
        else:
            stage |= {key: self.stages[-1][key] for key in ("records", "errors") if key in self.stages[-1]}
        step = self.passes[len(self.stages)] if len(self.stages) < len(self.passes) else None
        self.stages.append(stage)
        if isinstance(step, Fuse):
            plans = step.plans(module, self.context)
            self.stages[-1]["fusion"] = [self._fusion(plan, module) for plan in plans]

    def _fusion(self, plan: Plan, module: Module) -> dict[str, Any]:
        """The merges of a plan in the order made, then groups made in one step; and decisions against others."""
        seeds = {member: Group([member], cache=group.cache) for group in plan.groups for member in group.members}
        groups = {frozenset(group.members): group for group in (*plan.merges, *plan.groups) if len(group.members) > 1}
        return {
            "seeds": [[self._id(member, module), self._bytes(group)] for member, group in seeds.items()],
            "merges": [
                {"members": [self._id(member, module) for member in group.members], "bytes": self._bytes(group),
                 "by": printable(group.proposer)} for group in groups.values()
            ],
            "decisions": [
                {"producer": each.producer, "consumer": each.consumer, "rule": each.rule,
                 "reason": printable(each.reason), "saved": each.bytes_saved} for each in plan.decisions if each.reason
            ],
        }  # fmt: skip

    def _id(self, operation: Operation, module: Module) -> str:
        function = operation.function
        prefix = "" if function is None else prefix_of(function.name, module)
        return f"{prefix}{operation.results[0].name}"

    def _bytes(self, group: Group) -> int:
        return group.bytes(self.sizes).distinct_bytes

    def data(self, name: str) -> dict[str, Any]:
        """The stages as JSON: each distinct record once, and for each stage which it has."""
        numbers: dict[str, int] = {}
        stages = []
        for stage in self.stages:
            texts = (json.dumps(record) for record in stage["records"])
            nodes = [numbers.setdefault(text, len(numbers)) for text in texts]
            stages.append({**{key: part for key, part in stage.items() if key != "records"}, "nodes": nodes})
        return {"name": printable(name), "text": printable(self.pipeline), "stages": stages,
                "records": list(map(json.loads, numbers))}  # fmt: skip


def quoted_lines(modules: list[Module]) -> dict[str, dict[int, str]]:
    """The lines that locations name, with those around them, of Python files that this process has imported: a text
    may name any file."""
    files = [getattr(each, "__file__", None) for each in list(sys.modules.values())]
    imported = {os.path.realpath(file) for file in files if isinstance(file, str) and file.endswith(".py")}
    quoted: dict[str, dict[int, str]] = {}
    contents: dict[str, list[str]] = {}
    for name, line in sorted(quoted_places(modules)):
        if name not in contents:
            places = (os.path.realpath(os.path.join(folder, name)) for folder in ("", *sys.path))
            path = next((place for place in places if place in imported), None)
            contents[name] = [] if path is None else Path(path).read_text("utf-8", "replace").splitlines()
        lines = contents[name]
        for number in range(max(1, line - CONTEXT), min(len(lines), line + CONTEXT) + 1):
            quoted.setdefault(printable(name), {})[number] = printable(lines[number - 1])
    return quoted
