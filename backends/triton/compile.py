"""Compile an artefact's kernels for GPU targets without a GPU, to see what they need: registers, spills, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from irc.diagnostics import fail

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
WORKER = Path(__file__).resolve().parent / "worker.py"


def check_targets(targets: Sequence[str]) -> None:
    """Raise `usage.backend` for a GPU that is not in the list."""
    for target in targets:
        if target not in TARGETS:
            raise fail("usage.backend", f"triton has no target {target!r}", expected=", ".join(TARGETS))


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one target. `error` is set where it does not compile."""

    kernel: str
    target: str
    registers: int = 0
    spilled_bytes: int = 0
    local_bytes: int = 0
    shared_bytes: int = 0
    fits: bool = True
    error: str = ""


def compile_artefact(folder: str | Path, targets: Sequence[str], *, seconds: float = 600) -> list[Resources]:
    """Compile every kernel of a folder for every target, in a process of its own.

    Raises `usage.backend`, `install.missing_extra` without triton, and `backend.failed` when the compiler crashes or
    takes too long.
    """
    check_targets(targets)
    if find_spec("triton") is None:
        raise fail("install.missing_extra", "compiling kernels needs triton", help='pip install "irc-compiler[triton]"')
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(WORKER), str(folder), *targets]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise fail("backend.failed", f"compiling the kernels took more than {seconds:g} seconds") from None
    if done.returncode != 0:
        raise fail("backend.failed", "the compiler of the kernels crashed", notes=[done.stderr[-2000:]])
    return [Resources(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
