"""Costs of launches and calls, as planners, policies and experiments see them, and a user's own model of time.

    @cost
    def by_bytes(launch, device):                # in FILE.py; used as `fuse{cost=FILE.py:by_bytes}`
        return 4e-6 + launch.bytes / 2e12        # seconds

Without one, the time is that of the roofline (`irc.kernel.roofline`), with the latency of a launch. Start at `Cost`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from irc.device import Device, find_device
from irc.diagnostics import fail
from irc.dims import Symbol
from irc.group import Group
from irc.kernel import Bytes, LegalityFailure
from irc.kernel.roofline import Estimate, kernel_estimate
from irc.user_code import blaming, place_of_code
from irc.user_files import load_declared


@dataclass(frozen=True)
class Cost:
    """What one launch or call costs, or several together.

    kind: "pointwise", "reduction", "scan" or "product" of a kernel; "library" or "host" of a call; "plan" of several.
    members: the names of the operations that it computes, such as ("exp", "add").
    bytes: distinct elements that it reads, and those that it writes. loaded: all loads and stores of all programs.
    flops: by kind, "products" and "other". programs: the size of the grid; of several the smallest.
    seconds: estimated for one device; limit: what takes most of that, such as "memory" or "launch".
    """

    kind: str
    members: tuple[str, ...]
    bytes: int
    loaded: int
    flops: Mapping[str, int]
    programs: int
    seconds: float
    limit: str = ""
    launches: int = 1


@dataclass(frozen=True)
class CostModel:
    """A function of a `Cost`, whose seconds are those of the roofline, and a `Device` that returns seconds."""

    name: str
    function: Callable[[Cost, Device], float]

    def __call__(self, launch: Cost, device: Device) -> float:
        """The seconds; raises `cost.raised`, and `cost.result` for what is no number of seconds."""
        with blaming("cost.raised", f"the cost {self.name} failed", self.function):
            seconds: Any = self.function(launch, device)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise fail("cost.result", f"the cost {self.name} returned {seconds!r}", at=place_of_code(self.function),
                       expected="seconds: a finite number, not negative")  # fmt: skip
        return float(seconds)


def cost(function: Callable[[Cost, Device], float]) -> CostModel:
    """Declare a model of cost; use it as `fuse{cost=FILE.py:NAME}`."""
    return CostModel(function.__name__, function)


def find_cost(reference: str) -> CostModel | None:
    """The model of cost in a user's file (`FILE.py:NAME`), None for no reference; raises `pass.option`."""
    return load_declared(reference, CostModel, "@cost") if reference else None


@dataclass(frozen=True)
class Costs:
    """How costs are estimated: for which device, and by a user's function or else by the roofline."""

    device: Device = field(default_factory=find_device)
    model: CostModel | None = None

    def of(self, group: Group, sizes: Mapping[Symbol, int], device: Device | None = None) -> Cost:
        """The cost of the kernel of a group; raises the `LegalityFailure` of one that cannot be a kernel."""
        kernel, counted = group.equal_kernel, group.bytes(sizes)
        assert not isinstance(kernel, LegalityFailure), "its bytes were counted"
        device = device or self.device
        members = tuple(member.name for member in group.members)
        return self.priced(described(kernel.kind, members, counted, kernel_estimate(counted, device)), device)

    def priced(self, launch: Cost, device: Device | None = None) -> Cost:
        """The launch or call with the seconds of the user's function."""
        if self.model is None:
            return launch
        return replace(launch, seconds=self.model(launch, device or self.device))


def described(kind: str, members: Sequence[str], counted: Bytes, estimate: Estimate) -> Cost:
    """The cost of a launch or call from what is counted of it."""
    flops = {"products": counted.product_flops, "other": counted.flops - counted.product_flops}
    return Cost(kind, tuple(members), counted.distinct_bytes, counted.loaded_bytes, flops, counted.programs,
                estimate.seconds, estimate.limit)  # fmt: skip


def together(costs: Sequence[Cost]) -> Cost:
    """The cost of launches one after another."""
    flops = {kind: sum(each.flops[kind] for each in costs) for kind in ("products", "other")}
    members = tuple(member for each in costs for member in each.members)
    return Cost("plan", members, sum(each.bytes for each in costs), sum(each.loaded for each in costs), flops,
                min((each.programs for each in costs), default=0), sum(each.seconds for each in costs),
                launches=sum(each.launches for each in costs))  # fmt: skip
