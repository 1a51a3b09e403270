"""Devices: the published figures of GPUs from which costs are estimated. Nothing here is measured.

A device is a TOML file: `irc/devices/` has those that irc knows, and users may write others (`--device FILE.toml`).
What is not published, such as launch latency and the fraction of a peak that kernels reach, is under `assumptions`,
with its source. Start at `find_device`; `irc.kernel.roofline` has the model of cost that these figures enter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from irc.diagnostics import Location, did_you_mean, fail
from irc.dtypes import ALL, BF16, FLOATS8, DType
from irc.files import open_file

BUILT_IN = ("a100", "h100", "h200", "b200", "mi300x")
DEFAULT_DEVICE = "h100"
SUFFIX = ".toml"
MOST = 1e30  # of any figure
MOST_BYTES = 1 << 20  # of a device file
# The tables of a device file with the keys of each: whole numbers, and numbers that need not be whole.
WHOLE = {
    "multiprocessors": ("number", "threads", "programs", "registers", "thread_registers", "shared_bytes",
                        "program_shared_bytes"),
    "assumptions": ("stages", "buffers"),
}  # fmt: skip
RATES = {
    "memory": ("bytes_per_second", "l2_bytes_per_second"),
    "assumptions": ("launch_seconds", "latency_seconds", "memory", "vector", "kernel_products", "library_products"),
}
FRACTIONS = ("memory", "vector", "kernel_products", "library_products")  # of `assumptions`: of a peak
PEAKS = ("vector", "matrix")  # tables of flops a second by element type
DTYPES = tuple(dtype.name for dtype in ALL)


@dataclass(frozen=True, eq=False)
class Device:
    """A GPU. Rates are bytes and floating-point operations a second, without sparsity.

    name: what `--device` accepts: `h100`, or the path of a file.
    title, architecture: its name in full, and what kernels are compiled for, such as `sm_90`.
    multiprocessors: streaming multiprocessors (NVIDIA) or compute units (AMD).
    threads, programs, registers, shared_bytes: what one multiprocessor holds at a time, with registers of 32 bits.
    thread_registers, program_shared_bytes: the most that one thread and one program may have.
    memory_rate, l2_rate: of the device's memory and of its L2 cache.
    vector, matrix: peaks by element type, outside of matrix units and in them.
    launch_seconds, latency_seconds, efficiency: assumptions: the time of an empty launch, that from a load to its data
        on a busy device, and the fractions of the peaks of `memory` and of `vector` that kernels reach, and of `matrix`
        that products of kernels and of libraries reach.
    stages, buffers: of a loop with products, how many iterations Triton keeps in flight by default, and the operands of
        how many it then has in shared memory.
    """

    name: str
    title: str
    architecture: str
    multiprocessors: int
    threads: int
    programs: int
    registers: int
    thread_registers: int
    shared_bytes: int
    program_shared_bytes: int
    memory_rate: float
    l2_rate: float
    vector: Mapping[str, float]
    matrix: Mapping[str, float]
    launch_seconds: float
    latency_seconds: float
    stages: int
    buffers: int
    efficiency: Mapping[str, float]
    sources: tuple[str, ...] = field(default=())  # of the published figures, then of the assumptions

    @property
    def summary(self) -> str:
        """`NVIDIA H100 SXM5 80 GB (sm_90): 132 multiprocessors, 3.35 TB/s, 66.9 TFLOP/s in f32`, and so on."""
        peaks = [f"{self.vector['f32'] / 1e12:.4g} TFLOP/s in f32"]
        peaks += [f"{self.matrix['bf16'] / 1e12:.4g} in products of bf16"] if "bf16" in self.matrix else []
        parts = [f"{self.multiprocessors} multiprocessors", f"{self.memory_rate / 1e12:.3g} TB/s", *peaks]
        return f"{self.title} ({self.architecture}): {', '.join(parts)}"

    def vector_peak(self, dtype: DType) -> float:
        """Operations a second outside of matrix units; those of f32 for a type that has no peak of its own."""
        return self.vector.get(dtype.name, self.vector["f32"])

    def matrix_peak(self, dtype: DType) -> float:
        """Operations a second of products whose operands have this type. Floats of 8 bits for which a device has no
        instruction are multiplied as bf16."""
        known = BF16 if dtype in FLOATS8 and dtype.name not in self.matrix else dtype
        return self.matrix.get(known.name, self.vector_peak(known))


def find_device(name: str = DEFAULT_DEVICE) -> Device:
    """The device of a name such as `h100`, of an architecture such as `sm_90` (the first that has it), or of a file
    `FILE.toml`. Raises `device.unknown`, `device.file`, and `file.missing`."""
    if name.endswith(SUFFIX):
        file = open_file(Path(name))
        if file.data.size > MOST_BYTES:
            raise fail("device.file", f"the file has {file.data.size} bytes", at=Location(file=name),
                       expected=f"at most {MOST_BYTES}")  # fmt: skip
        return parse_device(bytes(file.data).decode("utf-8", "replace"), name)
    devices = {each: built_in(each) for each in BUILT_IN} if name not in BUILT_IN else {name: built_in(name)}
    for each, device in devices.items():
        if name in (each, device.architecture):
            return device
    known = [*devices, *dict.fromkeys(device.architecture for device in devices.values())]
    raise fail("device.unknown", f"there is no device `{name}`", expected=f"{', '.join(known)}, or FILE{SUFFIX}",
               help=did_you_mean(name, known) or "irc doc devices")  # fmt: skip


def device_of(name: str | None, target: str | None = None) -> Device:
    """The device that costs are estimated for: the one that is named, else one of the architecture that is compiled
    for, else the default. Raises what `find_device` raises for the name."""
    if name is not None:
        return find_device(name)
    return next((built_in(each) for each in BUILT_IN if built_in(each).architecture == target), find_device())


@cache
def built_in(name: str) -> Device:
    """A device of `BUILT_IN`."""
    return parse_device(file_text(name), name)


def file_text(name: str) -> str:
    """The text of the file of a device of `BUILT_IN`."""
    return files("irc").joinpath("devices", name + SUFFIX).read_text("utf-8")


def parse_device(text: str, name: str) -> Device:
    """The device that a TOML text describes; raises `device.file` with the line of what is wrong."""
    read = DeviceFile(text, name)
    number = {table: read.numbers(table) for table in dict.fromkeys((*WHOLE, *RATES))}
    peaks = {table: read.peaks(table) for table in PEAKS}
    processor, memory, assumed = number["multiprocessors"], number["memory"], number["assumptions"]
    return Device(
        name=name,
        title=read.words("name"),
        architecture=read.words("architecture"),
        multiprocessors=processor.pop("number"),
        **processor,
        memory_rate=memory["bytes_per_second"],
        l2_rate=memory["l2_bytes_per_second"],
        vector=peaks["vector"],
        matrix=peaks["matrix"],
        launch_seconds=assumed.pop("launch_seconds"),
        latency_seconds=assumed.pop("latency_seconds"),
        stages=assumed.pop("stages"),
        buffers=assumed.pop("buffers"),
        efficiency=assumed,
        sources=(read.words("source"), read.words("source", "assumptions")),
    )


class DeviceFile:
    """The text of a device file: its tables, and errors with their line."""

    def __init__(self, text: str, name: str) -> None:
        import tomllib

        self.lines, self.name = text.splitlines(), name
        try:
            self.tables: dict[str, Any] = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # numbers and nesting without end, too
            place = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
            line, column = (int(place[1]), int(place[2])) if place else (len(self.lines), 0)
            message = str(error).partition(" (at ")[0]
            raise fail("device.file", f"the text is not TOML: {message}",
                       at=Location(file=name, line=line, column=column)) from None  # fmt: skip
        tables = (*dict.fromkeys((*WHOLE, *RATES)), *PEAKS)
        self.check_keys(self.tables, ("name", "architecture", "source", *tables))

    def place(self, key: str = "", table: str = "") -> Location:
        """The line of a key in a table, of the table's head where it has no such key, else the file."""
        current, head = "", 0
        for number, line in enumerate(self.lines, 1):
            opened = re.match(r"\s*\[\s*\"?(\w+)\"?\s*\]", line)
            current = opened[1] if opened else current
            if opened and table and current == table:
                head = number
            if current == table and key and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
                return Location(file=self.name, line=number)
            if not table and opened and current == key:
                return Location(file=self.name, line=number)
        return Location(file=self.name, line=head)

    def check_keys(self, given: Mapping[str, Any], known: tuple[str, ...], table: str = "") -> None:
        """Raise `device.file` for the first key that is unknown, and for one that is missing."""
        inside = f" in [{table}]" if table else ""
        for key in given:
            if key not in known:
                raise fail("device.file", f"`{key}`{inside} is no figure of a device", at=self.place(key, table),
                           expected=", ".join(known), help=did_you_mean(key, known))  # fmt: skip
        for key in known:
            if key not in given:
                raise fail("device.file", f"`{key}`{inside} is missing", at=self.place("", table),
                           help="irc doc h100 shows a device file")  # fmt: skip

    def table(self, name: str) -> dict[str, Any]:
        """A table of the file."""
        table = self.tables[name]
        if not isinstance(table, dict):
            raise fail("device.file", f"`{name}` is {table!r}", at=self.place(name), expected=f"a table [{name}]")
        return table

    def words(self, key: str, table: str = "") -> str:
        """A text that is not empty."""
        text = self.table(table)[key] if table else self.tables[key]
        if not isinstance(text, str) or not text.strip():
            raise fail("device.file", f"`{key}` is {text!r}", at=self.place(key, table), expected="a text")
        return text

    def numbers(self, table: str) -> dict[str, Any]:
        """The figures of a table by key."""
        given, whole, rates = self.table(table), WHOLE.get(table, ()), RATES.get(table, ())
        has_source = ("source",) if table == "assumptions" else ()
        self.check_keys(given, (*whole, *rates, *has_source), table)
        figures: dict[str, Any] = {key: self.number(key, given[key], table, True) for key in whole}
        figures |= {key: float(self.number(key, given[key], table, False)) for key in rates}
        for key in FRACTIONS if table == "assumptions" else ():
            if figures[key] > 1:
                raise fail("device.file", f"`{key}` is {figures[key]:g}", at=self.place(key, table),
                           expected="a fraction of the peak, from 0 to 1")  # fmt: skip
        return figures

    def number(self, key: str, number: Any, table: str, is_whole: bool) -> Any:
        """A positive number, which must be whole where `is_whole`."""
        is_number = isinstance(number, int if is_whole else (int, float)) and not isinstance(number, bool)
        if not is_number or not 0 < number < MOST:
            raise fail("device.file", f"`{key}` is {number!r}", at=self.place(key, table),
                       expected=f"a {'whole ' if is_whole else ''}number above 0")  # fmt: skip
        return number

    def peaks(self, table: str) -> dict[str, float]:
        """The peaks of a table by element type; those of vectors have f32."""
        given = self.table(table)
        for key in given:
            if key not in DTYPES:
                raise fail("device.file", f"`{key}` in [{table}] is no element type", at=self.place(key, table),
                           help=did_you_mean(key, DTYPES))  # fmt: skip
        if table == "vector" and "f32" not in given:
            raise fail("device.file", "`f32` in [vector] is missing", at=self.place("", table))
        return {key: float(self.number(key, peak, table, False)) for key, peak in given.items()}
