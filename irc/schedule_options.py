"""Schedule options: what is stated of a kernel's schedule, by hand or by a function. Rules choose the rest.

    %y = kernel @y (%x) {kind = "reduction", schedule = {m = 2, n = 512, warps = 8}} : ...

They do not change what a kernel computes. `irc.kernel.schedule` has the rules and defines the tile axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from irc.diagnostics import UNKNOWN, Location, fail

LARGEST_BLOCK = 1 << 16
MOST_WARPS = 32
MOST_STAGES = 8
MOST_PARTS = 1 << 16
MOST_ROWS = 1 << 16  # of blocks that run in turn
LONGEST_PART = 1 << 48


@dataclass(frozen=True)
class ScheduleOptions:
    """Options of a schedule; None where rules choose.

    i: elements in a block of a kernel with one tile axis. A power of two, as `m` and `n` are.
    m, n: elements in a block along the rows and the columns of a tile. A row that is reduced is held in registers where
        `n` covers it, else the kernel loops over it.
    k: elements in a block along the axes over which products are summed; 16 or more, as `m` and `n` of products are.
    warps: the warps of 32 threads of one program, a power of two.
    stages: how many iterations of a loop the compiler keeps in flight; without effect in a kernel without loops.
    order: of products, how many blocks of rows run in turn for each block of columns, before the next columns: what
        they read of the second operand is then in the cache.
    index_bits: 64 for indices of 64 bits at all sizes, 32 for those of 32, where no size may need more.
    split: in how many parts what is reduced is divided, which another kernel combines (the pass `split`); 1 for none.
        The other options are then those of the kernels that reduce parts.
    part: in place of `split`, the most elements of a part, in whole rows of the inner reduced axes where these fit.
    """

    i: int | None = None
    m: int | None = None
    n: int | None = None
    k: int | None = None
    warps: int | None = None
    stages: int | None = None
    order: int | None = None
    index_bits: int | None = None
    split: int | None = None
    part: int | None = None

    @property
    def stated(self) -> dict[str, int]:
        """The options that are stated, by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    @property
    def blocks(self) -> dict[str, int]:
        """The blocks that are stated, by tile axis."""
        return {name: block for name, block in self.stated.items() if name not in LIMITS}

    @property
    def divides(self) -> bool:
        """Whether the schedule states that what is reduced is divided."""
        return self.split not in (None, 1) or self.part is not None

    @staticmethod
    def of(stated: Mapping[str, Any] | None, place: Location = UNKNOWN) -> ScheduleOptions:
        """The options of a `schedule` attribute or of an entry of a plan; raises `fuse.schedule` at the place."""
        for name, value in (stated or {}).items():
            if name not in NAMES:
                raise fail("fuse.schedule", f"F15: a schedule has no option `{name}`", at=place,
                           expected=", ".join(NAMES))  # fmt: skip
            most = LIMITS.get(name, LARGEST_BLOCK)
            least = 32 if name == "index_bits" else 1
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if not is_number or not least <= value <= most or (name not in COUNTS and value & (value - 1)):
                kind = "a number" if name in COUNTS else "a power of two"
                raise fail("fuse.schedule", f"F15: `{name}` of a schedule is {value!r}", at=place,
                           expected=f"{kind} from {least} to {most}")  # fmt: skip
        if stated is not None and {"split", "part"} <= stated.keys():
            raise fail("fuse.schedule", "F15: a schedule has both `split` and `part`", at=place, expected="one of them")
        return ScheduleOptions(**(stated or {}))


NAMES = tuple(field.name for field in fields(ScheduleOptions))
LIMITS = {"warps": MOST_WARPS, "stages": MOST_STAGES, "order": MOST_ROWS, "index_bits": 64, "split": MOST_PARTS,
          "part": LONGEST_PART}  # of what is no block  # fmt: skip
COUNTS = ("stages", "order", "split", "part")  # which need not be powers of two
NO_OPTIONS = ScheduleOptions()
