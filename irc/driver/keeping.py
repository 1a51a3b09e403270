"""Properties that `irc reduce --keep` keeps while it makes a program smaller.

    launches>=3          a figure of the compiled program, one of `FIGURES`
    slower-than=eager    the estimated time is above that of another pipeline; slower-than=1.5:eager, above 1.5 times
    refused:F10          fusion considers a merge that the legality rule forbids
    error, error:CODE    the check raises an error, of a code
    differs              values differ in the check

Nothing is timed: figures are counted, and times are estimates by the roofline of `--device`, so that a search gives the
same result each time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from irc.device import device_of
from irc.diagnostics import fail
from irc.driver.choosing import settle
from irc.driver.figures import by_operation, report_on
from irc.driver.kernel_listing import with_kernels
from irc.driver.models import Settings, find_backend, read_pipeline
from irc.driver.roofline import estimate
from irc.kernel.rules import LEGALITY_RULES
from irc.module import Module
from irc.pass_manager import PassManager
from irc.sizes import representative_sizes

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
FIGURES = {
    "launches": "launches", "library_calls": "library_calls", "host_operations": "host_operations",
    "bytes": "distinct_bytes", "loaded": "loaded_bytes", "flops": "flops",
}  # fmt: skip
FORMS = "launches>=N and such, slower-than=PASSES, refused:RULE, error, error:CODE, differs"


@dataclass(frozen=True)
class Property:
    """A property of a compiled program: `kind` is "figure", "slower-than" or "rule"; "error" and "differs" are of
    the check of a program, for which `holds` is not called."""

    text: str
    kind: str
    name: str = ""  # of the figure, the rule, the code, or the other pipeline
    comparison: str = ""
    number: float = 0.0

    @property
    def is_of_check(self) -> bool:
        """Whether it is a property of the check of a program, rather than of the compiled program."""
        return self.kind in ("error", "differs")

    def is_shown_by(self, error: str) -> bool:
        """Whether a check that fails shows the property; `error` describes the error that it raises, if any."""
        return bool(error) == (self.kind == "error") and error.startswith(self.name)

    def holds(self, module: Module, pipeline: str | None, settings: Settings) -> bool:
        """Whether the program has the property, compiled by a pipeline. Raises the errors of compiling it."""
        if self.kind == "rule":
            return self.name in refused_rules(module, pipeline, settings)
        if self.kind == "figure":
            compiled = with_kernels(module, pipeline, settings)
            report = report_on(compiled, representative_sizes(compiled.main, settings.dims), {})
            return COMPARISONS[self.comparison](getattr(report, FIGURES[self.name]), self.number)
        times = [estimated(module, each, settings) for each in (pipeline, self.name)]
        return times[0] > self.number * times[1] * (1 + 1e-9)

    def command(self, program: str, pipeline: str | None) -> list[str]:
        """The words of a command that shows the property."""
        passes = pipeline or find_backend("triton").PIPELINE
        if self.kind == "slower-than":
            return ["irc", "experiment", program, "-p", f"kept={passes}", "-p", f"other={self.name}"]
        return ["irc", "kernels", program, "-p", passes]


def read_property(text: str) -> Property:
    """A property from its text; raises `usage.value`."""
    figure = re.fullmatch(r"(\w+)\s*(>=|<=|=|>|<)\s*(\d+(?:\.\d+)?(?:e\d+)?)", text)
    if figure is not None and figure[1] in FIGURES:
        return Property(text, "figure", figure[1], figure[2], float(figure[3]))
    slower = re.fullmatch(r"slower-than=(?:(\d+(?:\.\d+)?):)?(.+)", text)
    if slower is not None:
        return Property(text, "slower-than", slower[2], number=float(slower[1] or 1))
    kind, colon, name = text.partition(":")
    if kind == "refused" and name in LEGALITY_RULES:
        return Property(text, "rule", name)
    if kind == "refused" and colon:
        raise fail("usage.value", f"--keep {text}: there is no legality rule {name or 'without a name'}",
                   expected=f"one of {', '.join(LEGALITY_RULES)}", help="irc doc rules")  # fmt: skip
    if text in ("error", "differs") or (kind == "error" and name):
        return Property(text, kind, name)
    raise fail("usage.value", f"--keep {text} is no property", expected=FORMS, help="irc reduce --help")


def estimated(module: Module, pipeline: str | None, settings: Settings) -> float:
    """Seconds that the program takes by the roofline of the device, compiled by a pipeline."""
    compiled = with_kernels(module, pipeline or find_backend("triton").PIPELINE, settings)
    parts, _ = by_operation(compiled, representative_sizes(compiled.main, settings.dims))
    device = device_of(settings.device, settings.targets[0] if settings.targets else None)
    return estimate(chain.from_iterable(parts.values()), device)


def refused_rules(module: Module, pipeline: str | None, settings: Settings) -> set[str]:
    """The legality rules by which the fusions of a pipeline do not make a merge."""
    context = settings.context("triton")
    steps = read_pipeline(pipeline or find_backend("triton").PIPELINE, context)
    settle(module, steps, context)
    current, rules, done = module.clone(), set[str](), 0
    for index, step in enumerate(steps):
        plans: Callable[..., Sequence[Any]] | None = getattr(step, "plans", None)
        if plans is not None:
            PassManager(steps[done:index], replace(context, show_note=None)).run(current)
            done = index
            rules |= {decision.rule for plan in plans(current, context) for decision in plan.decisions if decision.rule}
    return rules
