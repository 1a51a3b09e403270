"""Passes, and the manager that runs a list of them over a module.

A pass is a dataclass whose fields are its options and whose docstring is its reference page; `irc.driver.pipelines`
reads `"fold,cse,fuse{policy=greedy}"` as a list of passes.
"""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from irc import stages
from irc.device import Device, find_device
from irc.diagnostics import IrcError, fail
from irc.ir import Operation
from irc.module import EdgeCases, Module
from irc.numerics import Numerics
from irc.op import OperationDefinition
from irc.products import Products, Settled
from irc.remarks import Remarks
from irc.user_code import blaming, is_user_code, place_of_code
from irc.verifier import verify

if TYPE_CHECKING:  # the ONNX path needs no kernels
    from irc.plan_file import Entry, PlanFile


class Target(Protocol):
    """What a pass may ask of the backend that it compiles for."""

    def takes(self, operation: Operation, edge_cases: EdgeCases = "defined") -> bool:
        """Whether the backend takes the operation whole, so that `legalize` leaves it, in a module of these
        `edge_cases`."""

    def calls(self, operation: Operation) -> bool:
        """Whether a library computes the operation, outside of kernels."""

    def raises(self, definition: OperationDefinition) -> bool:
        """Whether `raise` replaces subgraphs by the operation whose decomposition they are."""

    def pays(self, rewrite: str, operations: Sequence[Operation], replacements: Sequence[Operation] = ()) -> bool:
        """Whether the backend's program is faster, at the shapes of these operations, once a rewrite has changed
        them, to `replacements` where it has built them. Rewrites that are always of use do not ask."""


# (stage, module before it, command that runs what was left, what happened) -> the help line for the user
Reproduce = Callable[[str, Module, str, Exception], str]


@dataclass
class PassContext:
    """What passes share: the user's choices going in, statistics coming out.

    `statistics` maps a pass or rule to counters: {"canonicalize": {"removed": 3}}.
    """

    numerics: Numerics = "keeps_more_precision"
    products: Products = "host"  # what computes matrix products, convolutions and attention
    settled: Settled | None = None  # where `auto` has become one of the others for the whole program
    target: Target | None = None
    device: Device = field(default_factory=find_device)  # what costs are estimated for
    loaded: Sequence[ModuleType] = ()
    operations: Mapping[str, OperationDefinition] = field(default_factory=dict)  # those that the loaded files declare
    statistics: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)  # what symbols count as where a cost needs numbers
    plans: dict[str, PlanFile] = field(default_factory=dict)  # the fusion plan of each function
    followed: PlanFile | None = None  # the plan that `fuse` follows, which passes before it follow, too
    joined: dict[str, tuple[Entry, ...]] = field(default_factory=dict)  # of each function, for its plan: `siblings`
    remarks: Remarks | None = None  # every decision of fusion, where it is to be recorded
    notes: list[str] = field(default_factory=list)  # what a user should know, though nothing failed
    show_note: Callable[[str], None] | None = None  # called with each note as it is made
    reproduce: Reproduce | None = None  # what an internal failure is handed to, to be repeated

    def note(self, text: str) -> None:
        """Say something that a user should know, once."""
        if text not in self.notes:
            self.notes.append(text)
            if self.show_note is not None:
                self.show_note(text)

    def remark(self, by: str, verdict: str, candidate: Sequence[Operation], **more: Any) -> None:
        """Record a decision of a pass on operations of one function, where decisions are recorded (`Remarks.add`)."""
        if self.remarks is not None:
            function = candidate[0].function
            self.remarks.function = "" if function is None else function.name
            self.remarks.add(by, verdict, candidate, **more)

    def count(self, where: str, what: str, number: int = 1) -> None:
        counters = self.statistics.setdefault(where, {})
        counters[what] = counters.get(what, 0) + number


@dataclass
class Pass:
    """One step of a pipeline. Subclass it as a dataclass: fields are options, the docstring is the reference."""

    def run(self, module: Module, context: PassContext) -> bool:
        """Change the module in place; returns whether anything changed."""
        raise NotImplementedError(f"{type(self).__name__} does not define run")

    def prepare(self, context: PassContext) -> None:
        """Called once, before the first pass of the pipeline runs: reads what earlier passes follow, too."""

    @classmethod
    def pipeline_name(cls) -> str:
        """What a pipeline calls it: its module in `passes/`; a class of a user's file by its name."""
        if is_user_code(cls):
            return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        return cls.__module__.rpartition(".")[2].rstrip("_")

    def __str__(self) -> str:
        values = [(option, getattr(self, option.name)) for option in dataclasses.fields(self)]
        changed = [f"{option.name}={_option_text(value)}" for option, value in values if value != option.default]
        return self.pipeline_name() + (f"{{{','.join(changed)}}}" if changed else "")


def pays(context: PassContext, rewrite: str, operations: Sequence[Operation], replacements: Sequence[Operation] = ()
         ) -> bool:  # fmt: skip
    """Whether a rewrite is of use for the target; without one, it is."""
    return context.target is None or context.target.pays(rewrite, operations, replacements)


def _checked_result(stage: str, step: Pass, module: Module, changed: Any) -> bool:
    """The result of a user's pass. Raises `pass.raised` where that is no bool, or where the module is not well
    formed after it, with the rules that it breaks."""
    at = place_of_code(type(step))
    if not isinstance(changed, bool):
        raise fail("pass.raised", f"your pass `{stage}` returned {changed!r}", at=at,
                   expected="True where it changed the module, else False")  # fmt: skip
    message = f"after your pass `{stage}` the program is not well formed"
    if not module.functions:
        raise fail("pass.raised", message, at=at, notes=["it has no functions"])
    try:
        with blaming("pass.raised", message, type(step)):
            verify(module)
    except IrcError as error:
        if not error.code.startswith("verify."):
            raise
        notes = [f"{each.code}: {each.message}" for each in error.diagnostics]
        raise fail("pass.raised", message, at=at, notes=notes) from None
    return changed


def _operations(module: Module) -> int:
    return sum(1 for _ in module.walk())


def _option_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "{" + ",".join(map(str, value)) + "}"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


class PassManager:
    """Runs passes over a module, in place.

    `verify_each` verifies after each pass; `observe(stage, module)` is called after each. A pass that occurs again
    is the stage `fold.2`. Failures that are no coded errors end as `internal.pass`, and are handed to the context's
    `reproduce`: as passes are deterministic, the module before is made by repeating the passes before on a copy.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        context: PassContext | None = None,
        *,
        verify_each: bool = False,
        observe: Callable[[str, Module], None] | None = None,
    ) -> None:
        self.passes = list(passes)
        self.context = context if context is not None else PassContext()
        self.verify_each = verify_each
        self.observe = observe

    @property
    def stages(self) -> list[str]:
        """The stages' names, each unique."""
        names = [step.pipeline_name() for step in self.passes]
        counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
        return [name if count == 1 else f"{name}.{count}" for name, count in zip(names, counts, strict=True)]

    def run(self, module: Module) -> bool:
        """Run every pass; returns whether any changed the module."""
        before = module.clone() if self.context.reproduce is not None else None
        any_changed = False
        for step in self.passes:
            step.prepare(self.context)
        for index, (stage, step) in enumerate(zip(self.stages, self.passes, strict=True)):
            is_theirs = is_user_code(type(step))
            message = f"your pass `{stage}` raised an exception"
            blame = blaming("pass.raised", message, type(step)) if is_theirs else nullcontext()
            try:
                with stages.stage(f"pass {step.pipeline_name()}") as running:
                    count = _operations(module) if stages.results_are_read() else 0
                    with blame:
                        changed = step.run(module, self.context)
                    any_changed |= _checked_result(stage, step, module, changed) if is_theirs else changed
                    if self.verify_each:
                        verify(module)
                    running.result = f"{count} -> {_operations(module)} operations" if count else ""
            except MemoryError:
                raise fail("run.memory", f"the pass `{stage}` needs more memory than the system has") from None
            except Exception as error:
                # Coded errors are for mistakes of users; a broken module after irc's own pass is an error in irc.
                if isinstance(error, IrcError) and (is_theirs or not error.code.startswith("verify.")):
                    raise
                raise self._internal(index, stage, error, before) from error
            if self.observe is not None:
                self.observe(stage, module)
        return any_changed

    def _internal(self, index: int, stage: str, error: Exception, before: Module | None) -> IrcError:
        """The error for a pass that failed, having left the reproducer."""
        what = str(error) if isinstance(error, IrcError) else f"{type(error).__name__}: {error}"
        notes = [what, "".join(traceback.format_exception(error)[-2:]).rstrip()]
        help = "please report it"
        if before is not None and self.context.reproduce is not None:
            repeated = dataclasses.replace(self.context, reproduce=None, statistics={}, show_note=None)
            PassManager(self.passes[:index], repeated).run(before)
            rest = ",".join(map(str, self.passes[index:]))
            help = self.context.reproduce(stage, before, f'irc opt module.irc -p "{rest}"', error)
        return fail("internal.pass", f"the pass `{stage}` failed", notes=notes, help=help)
