"""Compile an artefact's kernels for GPU targets without a GPU, to see what they need: registers, spills, memory."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irc.device import device_of
from irc.diagnostics import fail
from irc.files import temporary_folder
from irc.stages import stage, step

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SECONDS = 60.0  # for one kernel and target
STARTING_SECONDS = 60.0
WORKER = Path(__file__).resolve().parent / "worker.py"


def check_targets(targets: Sequence[str]) -> None:
    """Raise `usage.backend` for a GPU that is not in the list."""
    for target in targets:
        if target not in TARGETS:
            raise fail("usage.backend", f"triton has no target {target!r}", expected=", ".join(TARGETS))


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one target. `error` is set where it does not compile.

    Registers are a thread's; bytes of spills and of the stack (local) too, shared memory is a program's, and fits
    into the target's limit. Spilled scalars are AMD's scalar registers kept in lanes of vector registers: no memory.
    Loads and stores of global memory are instructions by the bits that a thread moves at once; of the accesses that
    are aligned and contiguous, `wide_accesses` are 128 bits wide in all their instructions, and `narrow_stores` are the
    stores that are not: gfx942 stores results of matrix instructions from the registers in which these leave them. Of
    the matrix instructions, those of four warps together (wgmma of sm_90) are counted separately, too.
    """

    kernel: str
    target: str
    registers: int = 0
    spilled_bytes: int = 0
    spilled_scalars: int = 0
    local_bytes: int = 0
    shared_bytes: int = 0
    shared_limit: int = 0
    fits: bool = True
    loads: Mapping[str, int] = field(default_factory=dict)
    stores: Mapping[str, int] = field(default_factory=dict)
    aligned_accesses: int = 0
    wide_accesses: int = 0
    narrow_stores: int = 0
    matrix_instructions: int = 0
    warpgroup_instructions: int = 0
    error: str = ""


def compile_artefact(folder: str | Path, targets: Sequence[str], *, seconds: float = SECONDS) -> list[Resources]:
    """Compile every kernel of a folder for every target, in a process of its own.

    A kernel that takes longer than `seconds`, or at which the compiler crashes, has an error that says so, and the
    others go on. Raises `usage.backend`, and `install.missing_extra` without triton.
    """
    check_targets(targets)
    if find_spec("triton") is None:
        raise fail("install.missing_extra", "compiling kernels needs triton", help='pip install "irc-compiler[triton]"')
    manifest = json.loads((Path(folder) / "manifest.json").read_text("utf-8"))
    waiting = [f"{entry['name']}:{target}" for entry in manifest["kernels"] for target in targets]
    resources: list[Resources] = []
    while waiting:
        with stage("compilation of kernels", f"for {', '.join(targets)}"):
            done, ending = _compile(Path(folder), waiting, seconds)
        resources += done
        waiting = waiting[len(done) :]
        if waiting:  # the process ended at the first of them
            name, _, target = waiting.pop(0).partition(":")
            resources.append(Resources(name, target, fits=False, error=ending))
    return resources


def of_line(stated: Mapping[str, Any]) -> Resources:
    """What a worker states of a kernel, with the limit of the target on shared memory."""
    limit = device_of(None, stated["target"]).program_shared_bytes
    resources = Resources(**stated, shared_limit=limit)
    return replace(resources, fits=not resources.error and resources.shared_bytes <= limit)


def _compile(folder: Path, kernels: Sequence[str], seconds: float) -> tuple[list[Resources], str]:
    """A worker's results for the first of `kernels`, and how it ended if it did not finish all."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(WORKER), str(folder), *kernels]
    lines: queue.Queue[str | None] = queue.Queue()
    # The process may be killed: what it leaves among the temporary files is removed here.
    with temporary_folder() as temporary, tempfile.TemporaryFile("w+") as errors:
        environment["TMPDIR"] = str(temporary)
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)

        def read() -> None:
            assert worker.stdout is not None
            for line in worker.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        resources: list[Resources] = []
        try:
            # The first also waits for Triton to be imported.
            while (line := lines.get(timeout=seconds + (STARTING_SECONDS if not resources else 0))) is not None:
                resources.append(of_line(json.loads(line)))
                step(f"({len(resources)} of {len(kernels)})")
        except queue.Empty:
            return resources, f"compiling took more than {seconds:g} seconds"
        finally:
            worker.kill()
            worker.wait()
        errors.seek(0)
        return resources, f"the compiler crashed: {errors.read()[-500:].strip()}"
