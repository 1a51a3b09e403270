"""Models in ONNX Runtime on the CPU: as exported, through irc, and through other tools, as a Markdown table.

    python -m tests.benchmarks.onnxruntime [--only NAME ...] [--columns irc ...] [--rounds 15] [--threads 1]
                                           [--json FILE] [--compile-time] [--zoo] [MODEL.onnx ...]

Needs torch and transformers for the workloads (`tests/benchmarks/workloads.py`), and uses what is installed of
onnxslim, onnxsim, openvino and a C++ compiler (for Inductor); a column that is absent is named with its reason.
`--zoo` takes the trained models of `make slow` instead, on inputs in their ranges.

A cell is the time of the original model (`raw`: ONNX Runtime with all optimizations) divided by that of its column:
above 1, the column is faster. All columns run in turn in each round, after a call that is not timed; a cell is the
median of the rounds' ratios with their quartiles. `A/A` is the original against itself in another session: what
differs from 1 there is noise. With one thread times are CPU time of this process, otherwise seconds of a clock, which
mean something on an idle machine alone. The error is max|a - b| / max|b| of irc's outputs against ONNX Runtime with its
optimizations off; cells whose outputs differ by more than 1e-4 are marked (!). Nodes are those of the files, with
those of subgraphs. `--compile-time` adds CPU seconds of whole processes, from start to exit, of irc and of onnxslim.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import irc
from irc.backends.onnx import count_nodes
from irc.driver import Settings
from irc.driver.measuring import relative_error
from irc.driver.timing import ratios, timed_in_turn
from tests.benchmarks.workloads import TRANSFORMERS, WORKLOADS, exported, workload
from tests.zoo import ENTRIES, zoo_inputs, zoo_path

LEAST_SECONDS = 0.03  # of one timing; shorter calls are repeated
TOLERATED = 1e-4
Call = Callable[[], list[Any]]
Inputs = dict[str, np.ndarray]


@dataclasses.dataclass
class Subject:
    """A model's file, arrays for its inputs, and the name of its PyTorch module in WORKLOADS, if it has one."""

    name: str
    path: Path
    inputs: Inputs
    workload: str | None
    threads: int
    folder: Path
    nodes: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Cell:
    """The time of the original divided by that of a column: median and quartiles of the rounds."""

    ratio: float
    low: float
    high: float
    seconds: float
    error: float


# -- columns: functions of a subject that return a call, whose result is a list of arrays --------------------------


def session(path: Path, subject: Subject, optimized: bool = True) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = subject.threads, 1, 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runner = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {entry.name: subject.inputs[entry.name] for entry in runner.get_inputs()}
    return lambda: runner.run(None, feed)


def raw(subject: Subject) -> Call:
    subject.nodes["raw"] = count_nodes(subject.path)
    return session(subject.path, subject)


def by_irc(subject: Subject) -> Call:
    path = subject.folder / f"{subject.name}.irc.onnx"
    report = irc.compile(str(subject.path), backend="onnx", output=path, settings=Settings(target="cpu"))
    subject.nodes["irc"] = report.nodes
    return session(path, subject)


def by_onnxslim(subject: Subject) -> Call:
    import onnxslim

    path = subject.folder / f"{subject.name}.slim.onnx"
    onnxslim.slim(str(subject.path), str(path))
    subject.nodes["onnxslim"] = count_nodes(path)
    return session(path, subject)


def by_onnxsim(subject: Subject) -> Call:
    import onnx
    import onnxsim

    path = subject.folder / f"{subject.name}.sim.onnx"
    onnx.save(onnxsim.simplify(str(subject.path))[0], path)
    subject.nodes["onnxsim"] = count_nodes(path)
    return session(path, subject)


def by_openvino(subject: Subject) -> Call:
    import openvino

    options = {"INFERENCE_NUM_THREADS": subject.threads, "INFERENCE_PRECISION_HINT": "f32",
               "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}  # fmt: skip
    compiled = openvino.Core().compile_model(str(subject.path), "CPU", options)
    request = compiled.create_infer_request()
    feed = {port: subject.inputs[port.any_name] for port in compiled.inputs}
    return lambda: list(request.infer(feed).values())


def in_torch(subject: Subject, compiled: bool) -> Call:
    import torch

    torch.set_num_threads(subject.threads)
    assert subject.workload is not None
    module, inputs = workload(subject.workload)
    given = tuple(inputs.values())
    if compiled:
        import torch._inductor.config

        torch._inductor.config.freezing = True  # type: ignore[attr-defined]
        torch._dynamo.reset()
        module = torch.compile(module)

    def call() -> list[Any]:
        with torch.no_grad():
            result = module(*given)
        return [each.numpy() for each in (result if isinstance(result, tuple) else (result,))]

    return call


COLUMNS: dict[str, Callable[[Subject], Call]] = {
    "raw": raw,
    "A/A": lambda subject: session(subject.path, subject),
    "irc": by_irc,
    "onnxslim": by_onnxslim,
    "onnxsim": by_onnxsim,
    "openvino": by_openvino,
    "eager": lambda subject: in_torch(subject, False),
    "inductor": lambda subject: in_torch(subject, True),
}


def absent(columns: Iterable[str]) -> dict[str, str]:
    """The columns that cannot be measured here, with the reason."""
    reasons = {}
    for name in columns:
        package = {"eager": "torch", "inductor": "torch"}.get(name, name)
        if name in ("onnxslim", "onnxsim", "openvino", "eager", "inductor") and find_spec(package) is None:
            reasons[name] = f"the package {package} is not installed"
        elif name == "inductor" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            reasons[name] = "there is no C++ compiler"
    return reasons


# -- measuring ---------------------------------------------------------------------------------------------------


def measure(subject: Subject, columns: list[str], rounds: int) -> tuple[dict[str, Cell], dict[str, str]]:
    """The cells of a row, and why columns failed."""
    calls, failures = {}, {}
    exact = session(subject.path, subject, optimized=False)()
    for name in columns:
        if name in ("eager", "inductor") and subject.workload is None:
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # tools print what they do
                call = COLUMNS[name](subject)
                call()
            calls[name] = call
        except Exception as error:  # a failure of a tool is a result
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    errors = {name: error_of(call(), exact) for name, call in calls.items()}
    clock = time.process_time if subject.threads == 1 else time.perf_counter
    seconds = timed_in_turn(calls, rounds, clock=clock, least=LEAST_SECONDS)
    cells = {}
    for name, timings in seconds.items():
        low, middle, high = ratios(seconds["raw"], timings)
        cells[name] = Cell(middle, low, high, statistics.median(timings), errors[name])
    return cells, failures


def error_of(outputs: list[Any], exact: list[Any]) -> float:
    return max((relative_error(ours, theirs) for ours, theirs in zip(outputs, exact, strict=True)), default=0.0)


def compile_seconds(subject: Subject, rounds: int) -> dict[str, float]:
    """CPU seconds of a whole process that optimizes the model, the median of these rounds, the tools in turn, after a
    round that is not timed, in which Python stores their bytecode."""
    target = subject.folder / "compiled.onnx"
    commands = {"irc": ["-m", "irc", "compile", str(subject.path), "-o", str(target)],
                "onnxslim": ["-m", "onnxslim", str(subject.path), str(target)]}  # fmt: skip
    times_of: dict[str, list[float]] = {name: [] for name in commands if name not in absent(commands)}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for round_number in range(rounds + 1):
        for name, seconds in times_of.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([sys.executable, *commands[name]], capture_output=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode == 0 and round_number:
                seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {name: statistics.median(seconds) for name, seconds in times_of.items() if seconds}


# -- reports -----------------------------------------------------------------------------------------------------


def subjects(arguments: argparse.Namespace, folder: Path) -> Iterable[Subject]:
    chosen = set(arguments.only or ())
    if arguments.models:
        for path in arguments.models:
            yield Subject(path.stem, path, model_inputs(path), None, arguments.threads, folder)
    elif arguments.zoo:
        for name in ENTRIES:
            if (not chosen or name in chosen) and zoo_path(name).is_file():
                yield Subject(name, zoo_path(name), zoo_inputs(name, 0), None, arguments.threads, folder)
    else:
        for name in WORKLOADS:
            if not chosen or name in chosen:
                path, inputs = exported(name)
                yield Subject(name, path, inputs, name, arguments.threads, folder)


def model_inputs(path: Path) -> Inputs:
    from irc.driver.arrays import given_inputs

    return given_inputs(irc.load(str(path)).main, None, {}, 0)


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text_of(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    mark = "" if cell.error <= TOLERATED else " (!)"
    return f"{cell.ratio:.2f} ({cell.low:.2f}-{cell.high:.2f}){mark}"


def geomean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def summary(records: list[dict[str, Any]], columns: list[str]) -> Iterable[str]:
    """The geometric means of the columns: over all rows, and over those of transformers."""
    groups = {"geomean": records, "of transformers": [each for each in records if each["name"] in TRANSFORMERS]}
    for title, group in groups.items():
        if group:
            means = {column: [each["cells"][column]["ratio"] for each in group if column in each["cells"]]
                     for column in columns}  # fmt: skip
            texts = [f"{geomean(values):.3f}" + (f" of {len(values)}" if len(values) < len(group) else "")
                     if values else "-" for values in means.values()]  # fmt: skip
            yield row([title, "", *texts, "", ""])


def machine() -> str:
    """The processor, its vector instructions, and the versions that results depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in facts.items()}
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if flag in values.get("flags", "")]
    packages = [f"{package} {version(package)}" for package in
                ("irc-compiler", "onnxruntime", "onnxslim", "onnxsim", "openvino", "torch", "transformers")
                if find_spec(package.removesuffix("-compiler"))]  # fmt: skip
    return f"{values.get('model name', platform.processor())} ({', '.join(vectors)}); {', '.join(packages)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*WORKLOADS, *ENTRIES])
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--zoo", action="store_true", help="the trained models of `make slow`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--compile-time", action="store_true", help="also seconds of whole processes")
    arguments = parser.parse_args()
    missing = absent(arguments.columns)
    columns = [name for name in dict.fromkeys(["raw", *arguments.columns]) if name not in missing]
    clock = "CPU time, one thread" if arguments.threads == 1 else f"seconds of a clock, {arguments.threads} threads"
    print(f"{machine()}; {clock}, {arguments.rounds} rounds")
    for name, reason in missing.items():
        print(f"no column {name}: {reason}")
    shown = [name for name in columns if name != "raw"]
    print(row(["raw / column", "raw ms", *shown, "error of irc", "nodes: raw, irc, onnxslim, onnxsim"]))
    print(row(["---"] * (4 + len(shown))), flush=True)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="irc-onnxruntime-") as temporary:
        for subject in subjects(arguments, Path(temporary)):
            cells, failures = measure(subject, columns, arguments.rounds)
            record = {"name": subject.name, "nodes": subject.nodes, "failures": failures,
                      "cells": {name: dataclasses.asdict(cell) for name, cell in cells.items()}}  # fmt: skip
            if arguments.compile_time:
                record["compile_seconds"] = compile_seconds(subject, min(arguments.rounds, 5))
            records.append(record)
            nodes = ", ".join(str(subject.nodes.get(name, "-")) for name in ("raw", "irc", "onnxslim", "onnxsim"))
            error = f"{cells['irc'].error:.0e}" if "irc" in cells else "-"
            texts = [text_of(cells.get(name)) for name in shown]
            print(row([subject.name, f"{1e3 * cells['raw'].seconds:.2f}", *texts, error, nodes]), flush=True)
            for name, reason in failures.items():
                print(f"{subject.name}: {name} failed: {reason}", file=sys.stderr)
            for path in Path(temporary).iterdir():
                path.unlink()
    for line in summary(records, shown):
        print(line)
    if arguments.compile_time:
        print_compile_time(records)
    if arguments.json:
        report = {"machine": machine(), "threads": arguments.threads, "rounds": arguments.rounds, "rows": records}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def print_compile_time(records: list[dict[str, Any]]) -> None:
    print()
    print(row(["CPU seconds of a process", "irc", "onnxslim", "irc / onnxslim"]))
    print(row(["---"] * 4))
    both = [each["compile_seconds"] for each in records]
    for each in records:
        seconds = each["compile_seconds"]
        texts = [f"{seconds[name]:.2f}" if name in seconds else "-" for name in ("irc", "onnxslim")]
        share = f"{seconds['irc'] / seconds['onnxslim']:.2f}" if len(seconds) == 2 else "-"
        print(row([each["name"], *texts, share]))
    medians = [statistics.median([each[name] for each in both if name in each] or [math.nan])
               for name in ("irc", "onnxslim")]  # fmt: skip
    print(row(["median", *(f"{value:.2f}" for value in medians), f"{medians[0] / medians[1]:.2f}"]))


if __name__ == "__main__":
    main()
