"""Modules as Triton artefacts: a pipeline, the schedules of a tuning file, kernels compiled for GPUs, a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irc.driver.artefacts import is_artefact
from irc.driver.gpu_targets import compile_failures, compile_for
from irc.driver.models import Settings, Source, find_backend, reproducing
from irc.driver.optimizing import run_pipeline
from irc.driver.tuning import FILE, apply_tuning
from irc.files import replacing
from irc.module import Module


@dataclass(frozen=True)
class WrittenArtefact:
    """A module after all passes, its program, the targets that its kernels were compiled for, and what was noted."""

    module: Module
    program: Any
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]


def write_artefact(source: Source, path: Path, pipeline: str, settings: Settings) -> WrittenArtefact:
    """Compile a model into a folder; targets for which a kernel does not compile are left out, with a note."""
    first = replace(settings, target=settings.targets[0]) if settings.targets else settings
    module, context = run_pipeline(source, pipeline, "triton", first)
    notes, tuning = list(context.notes), _tuning(path)
    if tuning is not None:
        is_stated = settings.device is not None or bool(settings.targets)
        notes += apply_tuning(module, path / FILE, context.device.architecture if is_stated else None)
    with reproducing(settings, module, "emit-triton"):
        failures = compile_failures(compile_for(module, settings.targets)) if settings.targets else {}
        targets = tuple(target for target in settings.targets if target not in failures)
        program = find_backend("triton").emit(module, path, targets=targets)
        if tuning is not None:
            with replacing(path / FILE) as file:
                file.write(tuning)
    return WrittenArtefact(module, program, targets, tuple(notes), tuple(failures.values()))


def _tuning(path: Path) -> bytes | None:
    """The tuning file of an artefact that stands where another is written."""
    return (path / FILE).read_bytes() if is_artefact(path) and (path / FILE).is_file() else None
