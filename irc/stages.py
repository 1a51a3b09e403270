"""Stages: what a command does for which its user may wait, such as an import, a pass, or a run.

Code names what it does, `with stage("emission"):`, and a command observes the stages that it reports
(`Stages.observed`). Where they are not observed, a stage costs a look at a variable. Stages may be inside others; their
seconds count once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Stage:
    """A stage that has begun: its name, by which times are added up, and what it is at work on. `result` is what its
    code says at its end. `seconds` are without those of the stages inside it."""

    name: str
    detail: str = ""
    result: str = ""
    seconds: float = 0.0


@dataclass
class Total:
    """How often a stage ran, and its seconds, without those of the stages inside it."""

    runs: int = 0
    seconds: float = 0.0


class Stages:
    """The stages of a command: those that are running, and the totals of those that have ended, by name.

    `ended` is called with each stage at its end; without it, `result` is not read.
    """

    def __init__(self, ended: Callable[[Stage], None] | None = None) -> None:
        self.ended = ended
        self.running: list[Stage] = []
        self.totals: dict[str, Total] = {}
        self.step = ""  # shown beside the running stage
        self._start = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the first moment."""
        return time.perf_counter() - self._start

    @property
    def current(self) -> str:
        """What is being done now, for those who wait."""
        stages = tuple(self.running)  # another thread may ask
        parts = [self.step, *(" ".join(filter(None, (each.name, each.detail))) for each in stages)]
        return ": ".join(filter(None, parts))

    @contextmanager
    def observed(self) -> Iterator[None]:
        """A block whose stages these are."""
        token = _observer.set(self)
        try:
            yield
        finally:
            _observer.reset(token)

    def begin(self, stage: Stage) -> None:
        self._advance()
        self.running.append(stage)

    def end(self) -> None:
        self._advance()
        stage = self.running.pop()
        total = self.totals.setdefault(stage.name, Total())
        total.runs += 1
        total.seconds += stage.seconds
        if self.ended is not None:
            self.ended(stage)

    def _advance(self) -> None:
        """Add the time since the last change to the innermost stage."""
        now = time.perf_counter()
        if self.running:
            self.running[-1].seconds += now - self._last
        self._last = now


_observer: ContextVar[Stages | None] = ContextVar("irc_stages", default=None)


@contextmanager
def stage(name: str, detail: str = "") -> Iterator[Stage]:
    """A block that is a stage."""
    stages, begun = _observer.get(), Stage(name, detail)
    if stages is None:
        yield begun
        return
    stages.begin(begun)
    try:
        yield begun
    finally:
        stages.end()


def results_are_read() -> bool:
    """Whether the `result` of stages is read, so that it is worth computing."""
    stages = _observer.get()
    return stages is not None and stages.ended is not None


def step(detail: str) -> None:
    """Say what the innermost stage is at work on now, such as `round 3 of 30`."""
    stages = _observer.get()
    if stages is not None and stages.running:
        stages.running[-1].detail = detail
