"""Costs of ONNX Runtime's CPU kernels: seconds of one node on one thread, interpolated between measured sizes.

A table is a JSON file that `irc calibrate` has written: for each kind of kernel a grid of sizes with seconds. irc has
the tables of BUILT_IN, each of which states how it was measured; `--costs FILE.json` gives another. Start at
`find_costs`; kinds and sizes are defined, with the models that measure them, in `irc/driver/calibrated.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, Location, did_you_mean, fail
from irc.files import open_file

BUILT_IN = ("avx512", "avx2")
DEFAULT_COSTS = "avx512"
SCHEMA = "irc.costs/1"
SUFFIX = ".json"
MOST_BYTES = 4 << 20  # of a file
MOST_SECONDS = 1e6
MOST_SIZE = 1 << 40


@dataclass(frozen=True)
class Grid:
    """Seconds of a kind of kernel at each combination of sizes, the last axis varying fastest. `axes` maps the names
    of sizes to the sizes that were measured, in increasing order."""

    axes: Mapping[str, tuple[int, ...]]
    seconds: tuple[float, ...]

    def at(self, sizes: Mapping[str, float]) -> float:
        """Interpolated in the logarithms of sizes and of seconds; outside of the grid in proportion to the sizes."""
        beyond, corners = 1.0, []
        for name, known in self.axes.items():
            size = max(float(sizes[name]), 1e-3)
            inside = min(max(size, known[0]), known[-1])
            beyond *= size / inside
            high = next((index for index, each in enumerate(known) if each >= inside), len(known) - 1)
            low = max(high - 1, 0)
            share = math.log(inside / known[low]) / math.log(known[high] / known[low]) if low < high else 0.0
            corners.append(((low, 1.0 - share), (high, share)))
        logarithm = 0.0
        for chosen in product(*corners):
            weight = prod(share for _, share in chosen)
            if weight:
                logarithm += weight * math.log(self.seconds[self.position([index for index, _ in chosen])])
        return math.exp(logarithm) * beyond

    def position(self, indices: list[int]) -> int:
        position = 0
        for index, known in zip(indices, self.axes.values(), strict=True):
            position = position * len(known) + index
        return position


@dataclass(frozen=True, eq=False)
class CostTable:
    """Seconds of kernels by kind. `machine` and `method` state on what and how they were measured."""

    name: str
    machine: str
    method: str
    kernels: Mapping[str, Grid] = field(repr=False)

    def seconds(self, kind: str, **sizes: float) -> float:
        """Of one node of this kind, such as `seconds("Softmax", rows=128, width=512)`, on one thread. Sizes
        outside of the grid count in proportion to its nearest point, those below 0 as empty."""
        if any(size <= 0 for size in sizes.values()):
            return self.overhead
        return max(self.kernels[kind].at(sizes), self.overhead)

    @property
    def overhead(self) -> float:
        """Of a node that computes nothing, such as a Reshape."""
        return self.kernels["Reshape"].seconds[0]

    @property
    def summary(self) -> str:
        points = sum(len(grid.seconds) for grid in self.kernels.values())
        return f"{self.machine}: {len(self.kernels)} kinds of kernels at {points} sizes. {self.method}"


def find_costs(name: str = DEFAULT_COSTS) -> CostTable:
    """The table of a name in BUILT_IN, or of a file `FILE.json`, where kinds that it lacks are those of the default.
    Raises `costs.unknown`, `costs.file` and `file.missing`."""
    if name.endswith(SUFFIX):
        file = open_file(Path(name))
        if file.data.size > MOST_BYTES:
            raise fail("costs.file", f"the file has {file.data.size} bytes", at=Location(file=name),
                       expected=f"at most {MOST_BYTES}")  # fmt: skip
        measured = parse_costs(bytes(file.data), name)
        return replace(measured, kernels={**built_in(DEFAULT_COSTS).kernels, **measured.kernels})
    if name not in BUILT_IN:
        raise fail("costs.unknown", f"there is no cost table `{name}`", expected=f"{', '.join(BUILT_IN)}, or FILE.json",
                   help=did_you_mean(name, BUILT_IN) or "irc calibrate -o FILE.json")  # fmt: skip
    return built_in(name)


@cache
def built_in(name: str) -> CostTable:
    return parse_costs(files("irc").joinpath("costs", f"{name}{SUFFIX}").read_bytes(), name)


def parse_costs(content: bytes, name: str) -> CostTable:
    """A table from the content of its file; raises `costs.file`."""
    try:
        stated = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise rejected(name, f"this is no JSON: {error}") from None
    if not isinstance(stated, dict) or stated.get("schema") != SCHEMA:
        raise rejected(name, f"there is no schema {SCHEMA}")
    kernels = stated.get("kernels")
    if not isinstance(kernels, dict) or "Reshape" not in kernels:
        raise rejected(name, "there is no table `kernels` with `Reshape`")
    grids = {kind: parse_grid(grid, kind, name) for kind, grid in kernels.items()}
    return CostTable(name, str(stated.get("machine", "")), str(stated.get("method", "")), grids)


def parse_grid(stated: Any, kind: str, name: str) -> Grid:
    axes = stated.get("axes") if isinstance(stated, dict) else None
    seconds = stated.get("seconds") if isinstance(stated, dict) else None
    if not isinstance(axes, dict) or not axes or not isinstance(seconds, list):
        raise rejected(name, f"{kind} has no `axes` and `seconds`")
    for axis, sizes in axes.items():
        is_increasing = isinstance(sizes, list) and bool(sizes) and all(
            type(size) is int and low < size <= MOST_SIZE for low, size in zip([0, *sizes], sizes, strict=False))
        if not is_increasing:
            raise rejected(name, f"the sizes of `{axis}` of {kind} are no increasing whole numbers from 1 on")
    points = prod(map(len, axes.values()))
    is_complete = len(seconds) == points and all(
        type(each) in (int, float) and 0 < each < MOST_SECONDS for each in seconds)
    if not is_complete:
        raise rejected(name, f"{kind} has no {points} seconds above 0")
    return Grid({axis: tuple(sizes) for axis, sizes in axes.items()}, tuple(map(float, seconds)))


def rejected(name: str, message: str) -> IrcError:
    return fail("costs.file", message, at=Location(file=name), expected="a file of irc calibrate",
                help="irc calibrate -o FILE.json")  # fmt: skip
