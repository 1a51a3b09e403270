"""Figures that irc reports, beside those of what it emits as it runs, and those of PyTorch without a compiler.

    python -m tests.benchmarks.dispatched                          blocks and architectures, in bf16 and f32
    python -m tests.benchmarks.dispatched encoder llama --dtype bf16

A Markdown row for each model and pipeline: kernels, library calls, other operations, and the bytes of the elements that
they read and write. `reported` is what `irc kernels` says, `dispatched` what tests/dispatching.py counts of the
artefact (host operations on PyTorch's meta device, kernels in Triton's interpreter). The rows `PyTorch` say what the
program of torch.export dispatches without a compiler. Exit status 1: a row whose figures differ, or a model of which
`default` runs or moves more than `eager`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import irc
from irc.driver.counting import counts, in_kernel
from irc.driver.models import find_backend
from irc.module import Module
from tests.architectures import ARCHITECTURES, build
from tests.blocks import BLOCKS, block
from tests.dispatching import Seen, of_artefact, of_exported

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
PIPELINES = ("eager", "default")
Figures = tuple[int, int, int, int]  # kernels, library calls, other operations, bytes
Inputs = tuple[torch.Tensor, ...]
# Of these no figures can be compared, and why.
NOT_COMPARED = {
    "detector": "how many boxes there are is in the data, which the meta device does not have",
}


@dataclass(frozen=True)
class Row:
    """One model in one type through one pipeline."""

    model: str
    dtype: str
    pipeline: str
    reported: Figures
    dispatched: Figures
    members: int  # the operations in kernels

    @property
    def agrees(self) -> bool:
        return self.reported == self.dispatched


def model(name: str, dtype: torch.dtype) -> tuple[torch.nn.Module, Inputs]:
    """A block or an architecture in a floating-point type."""
    if name in BLOCKS:
        return block(name, dtype)
    example = build(name)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in example.inputs.values())
    return example.module.to(dtype), inputs


def compared(exported: torch.export.ExportedProgram, inputs: Inputs, name: str, dtype: str) -> Iterator[Row]:
    """The rows of a model."""
    imported = irc.from_torch(exported)
    for pipeline in PIPELINES:
        compiled = irc.opt(imported, pipeline)
        members = sum(in_kernel(operation) and counts(operation) for operation in compiled.walk())
        yield Row(name, dtype, pipeline, reported(compiled), figures(emitted(compiled, inputs)), members)


def reported(compiled: Module) -> Figures:
    report = irc.kernels(compiled)
    assert report.label == "counted"
    return (report.launches, report.library_calls, report.host_operations, report.distinct_bytes)


def emitted(compiled: Module, inputs: Sequence[torch.Tensor]) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder) / "model.triton"
        find_backend("triton").emit(compiled, artefact)
        return of_artefact(artefact, inputs)


def figures(seen: Seen) -> Figures:
    return (*seen.counts, seen.bytes)


def why_equal(rows: Sequence[Row]) -> str:
    """Why `default` runs and moves as much as `eager`; nothing where it does not."""
    eager, default = rows
    if eager.reported != default.reported:
        return ""
    assert default.members == default.reported[0], "operations share a kernel, and nothing is gained"
    return f"as eager: each of the {default.members} operations besides library calls stands between two of those"


def is_worse(rows: Sequence[Row]) -> bool:
    """Whether `default` runs or moves more than `eager`."""
    eager, default = ((sum(row.reported[:3]), row.reported[3]) for row in rows)
    return default[0] > eager[0] or default[1] > eager[1]


def cells_of(figures: Figures) -> str:
    *counts, moved = figures
    return f"{' + '.join(map(str, counts))}, {moved:,} B"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join([*BLOCKS, *ARCHITECTURES]))
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    options = parser.parse_args(arguments)
    show: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
    show("| model | type | pipeline | reported: kernels + library + others, bytes | dispatched | |")
    show("|---|---|---|---|---|---|")
    failed = 0
    for name in options.models or [*BLOCKS, *ARCHITECTURES]:
        if name in NOT_COMPARED:
            show(f"| {name} | | | not compared: {NOT_COMPARED[name]} | | |")
            continue
        for dtype in options.dtype or DTYPES:
            module, inputs = model(name, DTYPES[dtype])
            exported = torch.export.export(module, inputs)
            rows = list(compared(exported, inputs, name, dtype))
            show(f"| {name} | {dtype} | PyTorch | | {cells_of(figures(of_exported(exported, inputs)))} | |")
            for row in rows:
                verdict = "equal" if row.agrees else "**differs**"
                counts = f"{cells_of(row.reported)} | {cells_of(row.dispatched)}"
                show(f"| {name} | {dtype} | {row.pipeline} | {counts} | {verdict} |")
            if why_equal(rows):
                show(f"| {name} | {dtype} | | {why_equal(rows)} | | |")
            if is_worse(rows):
                show(f"| {name} | {dtype} | | **default is worse than eager** | | |")
            failed += is_worse(rows) or not all(row.agrees for row in rows)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
