"""Loads and stores in the text of a kernel: where they stand, and which should take 128 bits a thread."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irc.kernel.access_width import WIDEST, run_along
from irc.kernel.dag import Load, Store
from irc.kernel.nest import WARP, Schedule
from irc.kernel.schedule import unit_stride


@dataclass(frozen=True)
class Access:
    """A load or store: its first and last line, counted from the kernel's own first, and whether it should take 128
    bits a thread."""

    first: int
    last: int
    wide: bool


class AccessLine(str):
    """A line in which a load or store begins; it goes on for `lines` lines."""

    __slots__ = ("access", "lines")
    access: Load | Store
    lines: int


def marked(text: str, source: str | Load | Store, lines: int = 1) -> str:
    """The text as a line of an access: of this one, or of that of the line that it was made of, if it has one."""
    access = source if isinstance(source, (Load, Store)) else getattr(source, "access", None)
    if access is None:
        return text
    line = AccessLine(text)
    line.access, line.lines = access, max(lines, getattr(source, "lines", 1))
    return line


def is_wide(access: Load | Store, schedule: Schedule) -> bool:
    """Whether an access is aligned and contiguous in runs of 128 bits, and its tile has as many for each thread.

    Along the innermost axis neighbors are neighbors in memory; all else in the address, the extent of that axis and
    what guards say of it are multiples of 128 bits.
    """
    inner, bits = schedule.columns or schedule.rows, access.buffer.dtype.bits
    axis = unit_stride(access.index)
    if schedule.summed is not None:  # either side of a product may be the contiguous one, its matrix is one of a batch
        inner = next((tile for tile in schedule.tiles if axis in tile.axes and not tile.single), None)
    if inner is None or axis is None or axis is not inner.axes[-1] or WIDEST % bits:
        return False
    run = WIDEST // bits
    elements = math.prod(tile.typical for tile in schedule.tiles if access.axes & set(tile.axes))
    return run_along(access, axis) == run and elements >= run * WARP * schedule.warps
