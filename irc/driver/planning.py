"""`irc plan`: the fusion plan of a model as a file, edits of it with what they cost, and what differs between two.

Start at `make_plan`, `edit_plan` and `compare_plans`; `irc.driver.workbench` follows plans.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irc.device import BUILT_IN
from irc.diagnostics import IrcError, fail
from irc.driver.models import SUFFIXES, Settings, Source
from irc.driver.pipelines import options_of
from irc.driver.workbench import EditStep, PlanCost, Workbench, carried
from irc.files import guarded, replacing, resolve_inside
from irc.module import Module
from irc.plan_difference import Difference, differences
from irc.plan_edits import Edit
from irc.plan_file import PlanFile, load_plan_file
from irc.user_files import is_reference

LABEL = "launches and bytes are counted from the emitted program; times are estimates, not measured"


# What options of a plan file's pipeline may be: words and numbers, also several. `plan` names a file in any case.
WORD = re.compile(r"[\w+-]*|[+-]?[0-9]+\.[0-9]*(e[+-]?[0-9]+)?")
BETWEEN_WORDS = re.compile(r"[\s{},]+")
FILE_OPTION = "plan"


@dataclass(frozen=True)
class PlanReport:
    """A plan, its text, and its cost at `sizes` on `device`; `output` is the file that was written, if any."""

    plan: str
    kernels: int
    cost: PlanCost
    device: str
    sizes: Mapping[str, int]
    output: str = ""
    label: str = LABEL
    schema: str = "irc.plan_report/1"


@dataclass(frozen=True)
class EditReport:
    """Edits in order, and the file with all of them."""

    steps: tuple[EditStep, ...]
    plan: str
    device: str
    sizes: Mapping[str, int]
    output: str = ""
    label: str = LABEL
    schema: str = "irc.plan_edit/1"


@dataclass(frozen=True)
class DifferenceReport:
    """What differs from one plan to another, and the cost of both where a model was given."""

    differences: tuple[Difference, ...]
    before: PlanCost | None = None
    after: PlanCost | None = None
    device: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    label: str = LABEL
    schema: str = "irc.plan_diff/1"


# -- the verbs -------------------------------------------------------------------------------------------------


@guarded()
def make_plan(source: Source, output: str | Path | None = None, *, pipeline: str | None = None,
              settings: Settings | None = None) -> PlanReport:  # fmt: skip
    """The fusion plan of a model by a pipeline with `fuse` (default: the Triton backend's), written to `output` if that
    is given. Raises `usage.arguments` for a pipeline without `fuse`, and the errors of its passes."""
    bench = Workbench(source, pipeline, Settings.of(settings))
    followed = bench.run(bench.fuse)
    made_for = bench.made_for(model_named(source, output))
    plan = replace(followed.plan, made_for=made_for)
    write(plan, output)
    return PlanReport(plan.text, len(plan.groups), followed.cost, bench.device, bench.sizes, shown(output))


@guarded()
def edit_plan(path: str | Path, edits: Sequence[tuple[str, str]], source: Source | None = None,
              output: str | Path | None = None, *, pipeline: str | None = None,
              settings: Settings | None = None) -> EditReport:  # fmt: skip
    """Edit a plan file in place, or into `output`. Each edit is a name of `irc.plan_edits.EDITS` with its argument,
    such as ("merge", "e,s"); they are made in order, and each has to be legal.

    The model, the pipeline and the settings are those that the file states, unless others are given. Raises
    `plan.edit` for an edit that cannot be made, `plan.refused` for one that breaks a rule, `plan.stale`, `plan.model`
    and `plan.format`; then nothing is written.
    """
    file, settings = read(path), Settings.of(settings)
    source = named_model(file, path) if source is None else source
    pipeline = pipeline or named_pipeline(file, path)
    bench = workbench_of(file, path, source, pipeline, settings)
    before = bench.follow(file, str(path))
    made_for = bench.made_for(model_named(source, output or path))
    plan = replace(carried(before.plan, file, bench.module), made_for=made_for)
    steps = []
    for number, (name, argument) in enumerate(edits, 1):
        step, plan, before = bench.edit(plan, Edit(name, argument, number), before, str(path))
        steps.append(step)
    output = path if output is None else output
    write(plan, output)
    return EditReport(tuple(steps), plan.text, bench.device, bench.sizes, shown(output))


def compare_plans(one: str | Path, other: str | Path, source: Source | None = None, *, pipeline: str | None = None,
                  settings: Settings | None = None) -> DifferenceReport:  # fmt: skip
    """What differs between two plan files; with a model, also the cost of both."""
    paths, files = (one, other), (read(one), read(other))
    changes = tuple(differences(*files))
    if source is None:
        return DifferenceReport(changes)
    costs = []
    for path, file in zip(paths, files, strict=True):
        pipeline_of_file = pipeline or named_pipeline(file, path)
        bench = workbench_of(file, path, source, pipeline_of_file, Settings.of(settings))
        costs.append(bench.follow(file, str(path)).cost)
    return DifferenceReport(changes, costs[0], costs[1], bench.device, bench.sizes)


# -- files -----------------------------------------------------------------------------------------------------


def read(path: str | Path) -> PlanFile:
    """A plan file, which may be replaced by an edited one; raises the errors of `load_plan_file`."""
    return load_plan_file(path, is_input=False)


def write(plan: PlanFile, output: str | Path | None) -> None:
    if output is not None:
        with replacing(Path(output)) as file:
            file.write(plan.text.encode())


def shown(output: str | Path | None) -> str:
    return "" if output is None else str(output)


def model_named(source: Source, output: str | Path | None) -> str | None:
    """A model as the plan file names it: from the folder of the file, with `/`; None for one that is in no file."""
    if isinstance(source, Module) or str(source) == "-":
        return None
    file, colon, name = str(source).rpartition(":") if is_reference(str(source)) else (str(source), "", "")
    folder = os.curdir if output is None else os.path.dirname(os.path.abspath(output))
    return Path(os.path.relpath(file, folder)).as_posix() + colon + name


def named_model(plan: PlanFile, path: str | Path) -> str:
    """The model that a plan file names, which has to be in its folder. Python files run only where a command names
    them, so that no plan file runs code. Raises `plan.model`."""
    model, help = plan.made_for.model, f"irc plan edit {path} MODEL ..."
    if model is None:
        raise fail("plan.model", f"{path} names no model", help=help)
    if not model.lower().endswith(SUFFIXES):
        message = f"{path} is a plan of {model}, and irc runs Python files only where a command names them"
        raise fail("plan.model", message, help=f"irc plan edit {path} {model} ...")
    try:
        return str(resolve_inside(Path(path).parent, model, "plan.model"))
    except IrcError as error:
        raise fail("plan.model", error.diagnostics[0].message, at=error.diagnostics[0].location, help=help) from None


def named_pipeline(plan: PlanFile, path: str | Path) -> str | None:
    """The pipeline that a plan file states; raises `plan.model` where an option of it may name a file."""
    pipeline = plan.made_for.pipeline
    for option in options_of(pipeline or ""):
        words = BETWEEN_WORDS.split(option.value)
        if option.key.rpartition(".")[2] == FILE_OPTION or not all(map(WORD.fullmatch, words)):
            message = f"{path} was made with a pipeline that names files, which irc reads only where a command does"
            raise fail("plan.model", f"{message}: {option.key}={option.value}", help=f'-p "{pipeline}"')
    return pipeline


def workbench_of(plan: PlanFile, path: str | Path, source: Source, pipeline: str | None,
                 settings: Settings) -> Workbench:  # fmt: skip
    """The workbench for a plan file, at the sizes and with the choices that it states. Raises `plan.model` where the
    model has no symbol of a size that only the file states."""
    try:
        return Workbench(source, pipeline, settings_of(plan, settings))
    except IrcError as error:
        sizes = {name: size for name, size in plan.made_for.sizes.items() if name not in settings.dims}
        if error.code != "dim.unbound" or not sizes:
            raise
        stated = ", ".join(f"{name}={size}" for name, size in sizes.items())
        message = f"{path} was made for {stated}, and the model is another: {error.diagnostics[0].message}"
        raise fail("plan.model", message, expected=plan.made_for.model, help="give the model of the plan") from None


def settings_of(plan: PlanFile, settings: Settings) -> Settings:
    """Settings with what a plan was made for, where the command leaves them as they are. Raises `plan.model` for a
    device that is not one of irc's: a file of another is read only where a command names it."""
    made_for, default = plan.made_for, Settings()
    changes: dict[str, Any] = {"dims": {**made_for.sizes, **settings.dims}}
    for name in ("products", "numerics", "device"):
        stated = getattr(made_for, name)
        if stated is not None and getattr(settings, name) == getattr(default, name) and not settings.target:
            changes[name] = stated
    if changes.get("device", BUILT_IN[0]) not in BUILT_IN:
        raise fail("plan.model", f"the plan was made for the device {changes['device']}, which irc does not have",
                   expected=f"one of {', '.join(BUILT_IN)}", help="--device FILE.toml")  # fmt: skip
    return replace(settings, **changes)
