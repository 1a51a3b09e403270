"""What users write to choose schedules: a function of a kernel that returns schedule options.

    @schedule
    def wide(kernel):                            # in FILE.py; used as `fuse{schedule=FILE.py:wide}`
        return {"n": 512, "warps": 8} if kernel.kind == "reduction" else None

Options do not change what a kernel computes; those that are not stated are chosen by rules. Start at `Unscheduled`, the
argument of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from irc.diagnostics import fail
from irc.dims import Dim, Symbol
from irc.group import Group
from irc.kernel import Bytes, Kernel, count
from irc.schedule_options import ScheduleOptions
from irc.user_code import blaming, place_of_code


@dataclass(frozen=True)
class Unscheduled:
    """A kernel whose schedule is to be chosen; bytes are at the sizes in `sizes`."""

    group: Group
    kernel: Kernel
    sizes: Mapping[Symbol, int]

    @property
    def name(self) -> str:
        """The name of the kernel, without the @."""
        return self.group.name

    @property
    def kind(self) -> str:
        """`pointwise` or `reduction`."""
        return self.kernel.kind

    @property
    def extents(self) -> dict[str, Dim]:
        """The elements along each tile axis of the kernel, by its name (`i`, or `m` and `n`)."""
        return {tile.name: tile.extent for tile in self.kernel.schedule.tiles}

    @property
    def chosen(self) -> dict[str, int]:
        """The options that rules choose where none are stated."""
        tiles = {tile.name: tile.typical for tile in self.kernel.schedule.tiles}
        return {**tiles, "warps": self.kernel.schedule.warps}

    def bytes(self, **options: int) -> Bytes:
        """The memory traffic and the programs of the kernel with these options; raises `LegalityFailure` (F15)."""
        return count(replace(self.kernel, options=ScheduleOptions.of(options)), self.sizes)


@dataclass(frozen=True)
class Scheduler:
    """A function of an `Unscheduled` kernel that returns options by name; None: all are chosen by rules."""

    name: str
    function: Callable[[Unscheduled], Mapping[str, int] | None]

    def __call__(self, kernel: Unscheduled) -> ScheduleOptions:
        """The options for a kernel; raises `policy.raised`, and `fuse.schedule` for options that are none."""
        place = place_of_code(self.function)
        with blaming("policy.raised", f"the schedule {self.name} failed", self.function):
            stated: Any = self.function(kernel)
        if not isinstance(stated, Mapping | None):
            raise fail("fuse.schedule", f"the schedule {self.name} returned {stated!r}", at=place,
                       expected="options by name, or None")  # fmt: skip
        return ScheduleOptions.of(stated, place)


def schedule(function: Callable[[Unscheduled], Mapping[str, int] | None]) -> Scheduler:
    """Declare a function that chooses schedules; use it as `fuse{schedule=FILE.py:NAME}`."""
    return Scheduler(function.__name__, function)
