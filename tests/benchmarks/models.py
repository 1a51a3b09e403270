"""The trained models of the tests through both backends, as the Markdown tables of docs/measurements.md.

    python -m tests.benchmarks.models [MODEL ...]          # of: magika basic_pitch minilm_int8

Seconds are CPU time of this process. Bytes are those of `irc kernels` at the sizes of the inputs that are timed,
before fusion (policy `none`) and after (`greedy`).
Errors are max|a - b| / max|b| against the original model in ONNX Runtime with its optimizations off, the largest of
all outputs; the Triton backend's kernels are interpreted. ONNX Runtime's times are of one thread with its
optimizations on, original and irc's in turn, as the median of the ratios of CPU times: above 1, irc's is faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime

import irc
from irc.driver.models import Settings, find_backend
from irc.driver.running import run_triton
from irc.interfaces import Trait
from irc.module import Module
from tests.models import FILES, model_inputs, model_path, reference_outputs, relative_error

ROUNDS, WARM_UP = 21, 3
SEEDS = (1, 2)
TIMED = {"batch": 1, "length": 128}  # of the inputs that are timed, and whose bytes are counted
Result = TypeVar("Result")


@dataclass
class Row:
    """What is measured of one model."""

    model: str
    operations: int
    kernels: int
    calls: tuple[int, int]  # library calls, host operations
    share: float
    megabytes: tuple[float, float]
    nodes: tuple[int, int]
    errors: tuple[float, float]
    label: str
    ratio: float
    seconds: dict[str, float]


def timed(seconds: dict[str, float], name: str, step: Callable[[], Result]) -> Result:
    start = time.process_time()
    result = step()
    seconds[name] = time.process_time() - start
    return result


def sizes_of(module: Module, inputs: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of the symbols that stand alone in the types of the inputs."""
    return {
        symbol.name: size
        for argument in module.main.arguments
        for extent, size in zip(argument.shape, inputs[argument.name].shape, strict=True)
        for symbol in module.main.symbols.values()
        if extent == symbol.expr
    }


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def time_ratio(original: Path, ours: Path, inputs: Mapping[str, Any]) -> float:
    sessions = [session(original), session(ours)]
    ratios = []
    for turn in range(WARM_UP + ROUNDS):
        spent = [0.0, 0.0]
        for index in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            sessions[index].run(None, inputs)
            spent[index] = time.process_time() - start
        if turn >= WARM_UP:
            ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def largest_error(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    return max(relative_error(outputs[name], value) for name, value in expected.items())


def measure(name: str, folder: Path) -> Row:
    path, seconds = model_path(name), dict[str, float]()
    onnx_backend, triton_backend = find_backend("onnx"), find_backend("triton")
    imported = timed(seconds, "import", lambda: irc.load(path))
    example = model_inputs(name, 0, **TIMED)
    settings = Settings(dims=sizes_of(imported, example))
    lowered = timed(seconds, "passes, onnx", lambda: irc.opt(imported, onnx_backend.PIPELINE, backend="onnx"))
    fused = timed(seconds, "passes, triton", lambda: irc.opt(imported, triton_backend.PIPELINE, settings=settings))
    ours = folder / f"{name}.onnx"
    timed(seconds, "emit, onnx", lambda: onnx_backend.save(lowered, ours))
    timed(seconds, "emit, triton", lambda: triton_backend.emit(fused, folder / name))
    apart = triton_backend.PIPELINE.replace("fuse", "fuse{policy=none}")
    before = irc.kernels(imported, pipeline=apart, settings=settings)
    after = irc.kernels(fused, settings=settings)
    by_onnx, by_triton, label = 0.0, 0.0, ""
    for seed in SEEDS:
        inputs = model_inputs(name, seed, batch=1)
        expected = reference_outputs(path, inputs)
        by_onnx = max(by_onnx, largest_error(reference_outputs(ours, inputs), expected))
        outputs, label = run_triton(fused, inputs)
        by_triton = max(by_triton, largest_error(outputs, expected))
    return Row(
        model=f"{FILES[name][0]} {version(FILES[name][0])}",
        operations=sum(Trait.HOST not in operation.definition.traits for operation in imported.main.block),
        kernels=after.launches,
        calls=(after.library_calls, after.host_operations),
        share=after.share_in_kernels,
        megabytes=(before.distinct_bytes / 1e6, after.distinct_bytes / 1e6),
        nodes=(onnx_backend.count_nodes(path), onnx_backend.count_nodes(ours)),
        errors=(by_onnx, by_triton),
        label=label,
        ratio=time_ratio(path, ours, example),
        seconds=seconds,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(rows: Sequence[Row]) -> str:
    label = rows[0].label
    results = [
        [
            row.model, str(row.operations), str(row.kernels), " + ".join(map(str, row.calls)), f"{row.share:.0%}",
            f"{row.megabytes[0]:.1f} → {row.megabytes[1]:.1f}", f"{row.nodes[0]} → {row.nodes[1]}",
            f"{row.ratio:.2f}", " / ".join(f"{error:.0e}" if error else "0" for error in row.errors),
        ]
        for row in rows
    ]  # fmt: skip
    header = [
        "model", "ops", "launches", "library calls + host operations", "share in kernels",
        "MB moved, `none` → `greedy`", "ONNX nodes, original → irc", "ORT time, original / irc",
        f"error, onnx / triton ({label})",
    ]  # fmt: skip
    steps = list(rows[0].seconds)
    spent = [[row.model, *(f"{row.seconds[step]:.1f}" for step in steps)] for row in rows]
    return f"{table(header, results)}\n\n{table(['CPU seconds', *steps], spent)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", choices=[*FILES, []], help=", ".join(FILES))
    chosen = parser.parse_args().models or list(FILES)
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory(prefix="irc-models-") as temporary:
        print(report([measure(name, Path(temporary)) for name in chosen]))


if __name__ == "__main__":
    main()
