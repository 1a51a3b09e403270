"""`irc tune`: the times of schedules near those of an artefact's kernels, on the GPU of this machine.

The fastest are written to `tuning.json` in the artefact, by the structure of what a kernel computes and by device;
`irc compile` states them of equal kernels (`apply_tuning`). Start at `tune`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, Location, counted, fail
from irc.driver.arrays import given_inputs
from irc.driver.artefacts import is_artefact, read_interface
from irc.driver.counting import kernel_operations
from irc.driver.models import Settings, require_triton
from irc.driver.runners import import_artefact
from irc.files import guarded, replacing
from irc.ir import Function
from irc.kernel import LegalityFailure, kernel_of, members_of
from irc.module import Module
from irc.plan_file import structural_hash
from irc.schedule_options import LARGEST_BLOCK, MOST_WARPS, ScheduleOptions
from irc.stages import stage

FILE = "tuning.json"
SCHEMA = "irc.tuning/1"
LEAST_OF_PRODUCTS = 16  # elements in a block of a kernel with products
STAGES = (2, 3, 4)  # that are tried where a kernel loops over products
ORDERS = (1, 4, 8, 16)  # blocks of rows that run in turn, that are tried where there are more
GAIN = 0.98  # of the time of the rules' schedule, that another must be under to be written

Start = Callable[[], Any]
Timer = Callable[[Start, Mapping[str, int]], float]  # seconds of a launch with these options of a schedule


@dataclass(frozen=True)
class TunedKernel:
    """A kernel: the options that are fastest, none where those of the rules are; seconds of both, of all its launches
    in a run; how many schedules were timed, and how many do not compile on the device."""

    options: Mapping[str, int]
    seconds: float
    seconds_by_rules: float
    timed: int
    failed: int


@dataclass(frozen=True)
class TuningReport:
    """Kernels by name, timed on `device`; `output` is the file that was written."""

    device: str
    architecture: str
    kernels: Mapping[str, TunedKernel]
    output: str
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    label: str = "timed on this machine's GPU"
    schema: str = "irc.tune/1"


@guarded()
def tune(
    folder: str | Path,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    timer: Timer | None = None,
) -> TuningReport:
    """Time schedules of each kernel of an artefact and write the fastest to its `tuning.json`, for the GPU of this
    machine; what the file has for other devices and kernels stays. Inputs are random where none are given.

    `timer` is called with what starts a kernel and the options, in place of measuring; nothing needs a GPU then. Raises
    `usage.arguments` for what is no artefact, `device.missing`, and the errors of `irc run`.
    """
    settings = Settings.of(settings)
    if not is_artefact(folder):
        raise fail("usage.arguments", f"{folder} is no folder that irc has compiled",
                   help="irc compile MODEL --backend triton -o DIR")  # fmt: skip
    place = Path(folder)
    require_triton("tuning")
    device, architecture = ("none", "none") if timer is not None else gpu("tuning")
    interface, _ = read_interface(place)
    given = given_inputs(interface, inputs, settings.dims, seed)
    package = import_artefact(place)
    times = Times(package.runtime, {entry["name"]: entry for entry in manifest(place)["kernels"]}, timer or measured)
    model = package.load()
    model.program.launch = times.launch
    model.run(as_tensors(interface, given))
    kernels = {name: times.best(name) for name in times.seconds}
    hashes = {entry["name"]: entry["hash"] for entry in times.entries.values()}
    known = known_kernels(place / FILE, device, architecture)
    write_tuning(
        place / FILE,
        device,
        architecture,
        {
            hashes[name]: entry_of(name, each, times.entries[name]["schedule"], known.get(hashes[name], {}))
            for name, each in kernels.items()
        },
    )
    sizes = {name: list(getattr(array, "shape", ())) for name, array in given.items()}
    return TuningReport(device, architecture, kernels, str(place / FILE), sizes)


def as_tensors(function: Function, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a function as PyTorch's tensors; texts and lists as they are."""
    from irc.torch_arrays import to_tensor

    arguments = {value.name: value for value in function.arguments if value.name in arrays}
    return {name: arrays[name] if value.dtype.kind in ("string", "opaque") else
            to_tensor(arrays[name].copy(), value.dtype) for name, value in arguments.items()}  # fmt: skip


def gpu(purpose: str) -> tuple[str, str]:
    """The name and the architecture of this machine's GPU; raises `device.missing` and `install.missing_extra`."""
    require_triton(purpose)
    import torch

    if not torch.cuda.is_available():
        raise fail("device.missing", f"{purpose} needs a GPU, and PyTorch finds none here")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    if torch.version.hip:
        return properties.name, str(properties.gcnArchName).partition(":")[0]
    return properties.name, f"sm_{properties.major}{properties.minor}"


def measured(start: Start, _: Mapping[str, int]) -> float:
    """The median time of a launch by the events of the device, with a cold L2 cache."""
    from triton.testing import do_bench

    return float(do_bench(start, warmup=5, rep=30, return_mode="median")) / 1e3


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


# -- timing ----------------------------------------------------------------------------------------------------

Candidate = tuple[tuple[str, int], ...]  # options of a schedule that differ from those of the rules


class Times:
    """Stands for the function `launch` of an artefact: launches a kernel, and times it with other schedules."""

    def __init__(self, runtime: Any, entries: Mapping[str, Any], timer: Timer) -> None:
        self.runtime, self.entries, self.timer = runtime, entries, timer
        self.seconds: dict[str, dict[Candidate, float]] = {}  # by kernel, of all its launches
        self.failed: dict[str, dict[Candidate, None]] = {}
        self.known: dict[tuple[Any, ...], dict[Candidate, float]] = {}

    def launch(self, kernel: Any, *arguments: Any, warps: int | None = None, stages: int | None = None,
               extent: int | None = None, float8: Any = None, **tiles: Any) -> None:  # fmt: skip
        """Launch a kernel as the program does, after it was timed with copies of its arguments."""
        name = kernel.fn.__name__
        variant = self.runtime.index_bits(extent), self.runtime.float8_products(float8)
        key = (name, *variant, *tiles.values())
        if key not in self.known:
            copies = [each.clone() if hasattr(each, "clone") else each for each in arguments]
            self.known[key] = self._timed(kernel, copies, warps, stages, variant, tiles)
        spent = self.seconds.get(name)
        if not self.known[key]:  # a launch of size 0, which was not timed
            pass
        elif spent is None:
            self.seconds[name] = dict(self.known[key])
        else:  # what was not timed at each size is no candidate
            self.seconds[name] = {each: spent[each] + more for each, more in self.known[key].items() if each in spent}
        self.runtime.launch(kernel, *arguments, warps=warps, stages=stages, extent=extent, float8=float8, **tiles)

    def _timed(self, kernel: Any, arguments: Sequence[Any], warps: int | None, stages: int | None,
               variant: tuple[int | None, int | None], tiles: Mapping[str, Any]) -> dict[Candidate, float]:  # fmt: skip
        from triton.errors import TritonError

        name, times = kernel.fn.__name__, dict[Candidate, float]()
        chosen = self.runtime.warps_for(self.runtime.choose_blocks(dict(tiles)))
        entry = self.entries[name]
        for candidate in candidates(tiles, warps or chosen, entry["kind"], entry["constants"].get("ORDER")):
            options = dict(candidate)
            changed = {axis: tile._replace(block=options[axis]) if axis in options else tile
                       for axis, tile in tiles.items()}  # fmt: skip
            start, launch_options = self.runtime.prepared(
                kernel, options.get("warps", warps), options.get("stages", stages), changed, *variant)  # fmt: skip
            if start is None:
                return {}
            if "order" in options:
                launch_options["ORDER"] = options["order"]
            try:
                with stage("timing", f"@{name}, schedule {len(times) + 1}"):
                    times[candidate] = self.timer(partial(start, *arguments, **launch_options), options)
            except TritonError:  # more shared memory or registers than the device has
                if not candidate:
                    raise
                self.failed.setdefault(name, {})[candidate] = None
        return times

    def best(self, name: str) -> TunedKernel:
        """The fastest options of a kernel: those of the rules where others gain little."""
        times = self.seconds[name]
        fastest = min(times, key=lambda each: (times[each], len(each), each))
        by_rules = times[()]
        options = dict(fastest) if times[fastest] < GAIN * by_rules else {}
        seconds = times[fastest] if options else by_rules
        return TunedKernel(options, seconds, by_rules, len(times), len(self.failed.get(name, {})))


def candidates(tiles: Mapping[str, Any], warps: int, kind: str, order: int | None = None) -> Iterator[Candidate]:
    """The schedules that are tried: that of the rules, and those with one block, or two, or warps, twice as large or
    half, or other stages, or another order of blocks than this one."""
    yield ()
    least = LEAST_OF_PRODUCTS if kind == "product" else 1
    near: dict[str, list[int]] = {}
    for axis, tile in tiles.items():
        block = getattr(tile, "block", None)
        if block is not None:
            near[axis] = [size for size in (block // 2, 2 * block)
                          if least <= size <= LARGEST_BLOCK and not (tile.exact and tile.extent % size)]  # fmt: skip
    near["warps"] = [number for number in (warps // 2, 2 * warps) if 1 <= number <= MOST_WARPS]
    single = [(axis, size) for axis, sizes in near.items() for size in sizes]
    yield from ((each,) for each in single)
    yield from ((one, other) for at, one in enumerate(single) for other in single[at + 1 :] if one[0] != other[0])
    if kind == "product":
        yield from ((("stages", number),) for number in STAGES)
    yield from ((("order", number),) for number in orders(tiles, order))


def orders(tiles: Mapping[str, Any], order: int | None) -> list[int]:
    """The numbers of blocks of rows that may run in turn, where that makes another order than `order` does."""
    if order is None:
        return []
    rows, columns = (-(-tiles[axis].extent // tiles[axis].block) for axis in ("m", "n"))
    return [number for number in ORDERS if columns > 1 and min(number, rows) != min(order, rows)]


# -- the file --------------------------------------------------------------------------------------------------


def read_tuning(path: Path) -> list[dict[str, Any]]:
    """The devices of a tuning file, each with `name`, `architecture` and `kernels` by hash; raises `file.format`."""
    place = Location(file=str(path))
    try:
        whole = json.loads(path.read_bytes())  # no input: it is replaced together with the folder
        devices = whole["devices"]
        for device in devices:
            if not all(isinstance(device[key], str) for key in ("name", "architecture")):
                raise ValueError("a device has no name")
            for entry in device["kernels"].values():
                ScheduleOptions.of(entry["schedule"], place)
                ScheduleOptions.of(entry.get("stated", {}), place)
    except IrcError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise fail("file.format", "this is no file that irc tune has written", at=place,
                   expected=f"a file {FILE} of schema {SCHEMA}") from None  # fmt: skip
    return list(devices)


def known_kernels(path: Path, device: str, architecture: str) -> dict[str, Any]:
    """What a tuning file, where there is one, has for a device, by hash; raises `file.format`."""
    known = [each["kernels"] for each in (read_tuning(path) if path.exists() else ())
             if (each["name"], each["architecture"]) == (device, architecture)]  # fmt: skip
    return known[0] if known else {}


def entry_of(name: str, kernel: TunedKernel, timed: Mapping[str, int], known: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuning file says of a kernel: the options that are stated without the file, and those that are fastest
    beside them or in their place. `timed` are those of the artefact, which may have them from the file (`known`)."""
    stated = known.get("stated", {})
    if {**stated, **known.get("schedule", {})} != timed:
        stated = timed
    fastest = {**timed, **kernel.options}
    return {"name": name, "stated": dict(stated),
            "schedule": {option: value for option, value in fastest.items() if stated.get(option) != value},
            "seconds": kernel.seconds, "seconds_by_rules": kernel.seconds_by_rules}  # fmt: skip


def write_tuning(path: Path, device: str, architecture: str, kernels: Mapping[str, Any]) -> None:
    """Add the schedules of a device's kernels to a file, in place of those that it has for the same kernels."""
    devices = read_tuning(path) if path.exists() else []
    known = next((each for each in devices if (each["name"], each["architecture"]) == (device, architecture)), None)
    if known is None:
        known = {"name": device, "architecture": architecture, "kernels": {}}
        devices.append(known)
    known["kernels"].update(kernels)
    with replacing(path) as file:
        file.write((json.dumps({"schema": SCHEMA, "devices": devices}, indent=1) + "\n").encode())


def apply_tuning(module: Module, path: Path, architecture: str | None) -> list[str]:
    """State the schedules that were fastest on devices of an architecture (None: of any, the last one first); returns
    notes. What a kernel states already, such as the rows of one that `split` makes, is what it was timed with, else its
    schedule stays, with a note, as does one that the fastest does not fit. Raises `file.format`."""
    kernels: dict[str, Any] = {}
    for each in read_tuning(path):
        kernels |= each["kernels"] if architecture in (None, each["architecture"]) else {}
    notes, number = [], 0
    for operation in kernel_operations(module):
        entry = kernels.get(structural_hash(members_of(operation)))
        if entry is None or not entry["schedule"]:
            continue
        name, stated, timed = operation.attributes["name"], operation.attributes["schedule"], entry.get("stated", {})
        fastest = {**timed, **entry["schedule"]}
        if stated == fastest:
            continue
        if (stated or {}) != timed:
            states = f"@{name} states {in_words(stated)}, and was timed with {in_words(timed)}"
            notes.append(f"{path}: {states}: it keeps its schedule")
            continue
        operation.attributes["schedule"] = fastest
        try:
            _ = kernel_of(operation).schedule
            number += 1
        except LegalityFailure as failure:
            operation.attributes["schedule"] = stated
            notes.append(f"{path}: the schedule of @{name} does not fit: {failure.message}")
    return [*notes, f"{counted(number, 'schedule')} of {path}"] if number else notes


def in_words(stated: Mapping[str, int] | None) -> str:
    """`m = 1, warps = 4`, or `no schedule`."""
    return ", ".join(f"{name} = {value}" for name, value in (stated or {}).items()) or "no schedule"
