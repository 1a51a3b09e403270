"""Artefacts of the Triton backend: reading their manifests, and running them in a process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from irc.diagnostics import fail
from irc.driver.arrays import Arrays, given_inputs, read_arrays, write_arrays
from irc.driver.artefact_process import ARTEFACTS
from irc.driver.models import find_backend, require_triton
from irc.dtypes import DType, by_name
from irc.files import temporary_folder
from irc.ir import Function
from irc.parser import parse
from irc.stages import stage
from irc.weights import Tensor

LINK = "artefact"  # the name of the package in the process that runs it


def is_artefact(source: Any) -> TypeGuard[str | Path]:
    """Whether a path is a folder that `irc compile --backend triton` has written."""
    return (
        isinstance(source, (str, Path))
        and os.path.isdir(source)
        and bool(find_backend("triton").is_artefact(Path(source)) and any(Path(source).iterdir()))
    )


def run_artefact(
    folder: Path, inputs: Mapping[str, Any] | str | Path | None, sizes: Mapping[str, int], seed: int
) -> tuple[Arrays, Arrays, str]:
    """Run an artefact: outputs and inputs by name, and "interpreted" or "device".

    Its Python code is executed in another process. Random integers are 0 or 1, which are valid for nearly all indices.
    Raises `file.format` for a manifest of another version of irc.
    """
    interface, results = read_interface(folder)
    given = given_inputs(interface, inputs, sizes, seed)
    with temporary_folder() as temporary:
        (temporary / LINK).symlink_to(folder.resolve(), target_is_directory=True)
        outputs, label = run_in_process(temporary, given, results)
    return outputs, given, label


def read_interface(folder: Path) -> tuple[Function, dict[str, DType]]:
    """The inputs of an artefact, as those of a function, and the types of its outputs by name."""
    try:
        signature = json.loads((folder / "manifest.json").read_text("utf-8"))["signature"]
        results = {entry["name"]: by_name(entry["type"]) for entry in signature["outputs"]}
        optional = {entry["name"] for entry in signature["inputs"] if "default" in entry}
        interface = parse(signature["interface"]).main
    except (KeyError, TypeError, ValueError):
        raise fail(
            "file.format",
            f"the manifest of {folder} has no interface",
            expected="an artefact of this version of irc",
            help="compile the model again",
        ) from None
    for argument in interface.arguments:
        if argument.name in optional:  # a placeholder: the artefact has the array
            interface.defaults[argument] = Tensor.of(np.zeros((), argument.dtype.numpy), argument.dtype)
    return interface, results


def run_in_process(folder: Path, inputs: Mapping[str, Any], results: Mapping[str, DType]) -> tuple[Arrays, str]:
    """Run the artefact in `folder` as `python -m artefact`; inputs and outputs are files next to it.

    The process decides whether there is a GPU; without one the kernels are interpreted, which must be decided before
    Triton is imported. It is a fork of a process that has imported PyTorch. Raises `install.missing_extra`, and
    `backend.failed` with the end of the process's output.
    """
    require_triton("running Triton kernels")
    write_arrays(folder / "in.npz", inputs)
    with stage("run of kernels"):
        status, printed = ARTEFACTS.run(folder, ["--input", "in.npz", "--output", "out.npz"])
    if status:
        raise fail("backend.failed", "the compiled program failed", notes=_last_lines(printed))
    label = "interpreted" if "interpreted" in printed else "device"
    return read_arrays(folder / "out.npz", results), label


def _last_lines(text: str) -> tuple[str, ...]:
    """The end of a process's output; of a traceback, the exception and its place."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("Traceback")]
    return tuple(lines[-6:])
