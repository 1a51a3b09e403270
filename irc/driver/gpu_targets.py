"""GPU targets: the kernels of a module compiled for architectures such as sm_80, without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from irc.driver.models import find_backend
from irc.files import temporary_folder
from irc.module import Module


def compile_for(module: Module, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The resources of each kernel on each target, by the kernel's name: registers, spills, shared memory.

    A kernel that runs as host calls has no entry.
    """
    triton = find_backend("triton")
    with temporary_folder() as folder:
        program = triton.emit(module, folder / "artefact")
        compiled = triton.compile_artefact(folder / "artefact", targets)
    facts: dict[str, dict[str, Any]] = {}
    for resources in compiled:
        known = {name: fact for name, fact in asdict(resources).items() if fact != ""}
        facts.setdefault(known.pop("kernel"), {})[known.pop("target")] = known
    return {name: facts[source] for name, source in program.launches.items()}


def compile_failures(compiled: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For each target for which a kernel does not compile, or does not fit, the error of the first such kernel."""
    failures: dict[str, str] = {}
    for kernel, by_target in compiled.items():
        for target, facts in by_target.items():
            if facts.get("error") or not facts["fits"]:
                reason = facts.get("error") or "it needs more shared memory than the target has"
                failures.setdefault(target, f"not compiled for {target}: @{kernel}: {reason}")
    return failures
