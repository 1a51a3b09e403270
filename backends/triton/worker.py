"""Compiles the kernels of an artefact for GPU targets that need not be present. Run as a program of its own:

    python worker.py FOLDER TARGET...

It prints a line of JSON for each kernel and target as soon as it is done, so that a reader with a time limit loses
only the last. It imports triton but not irc, and is started without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}  # fmt: skip
SHARED_LIMITS = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}


def compile_kernel(function: Any, entry: dict[str, Any], target: str) -> dict[str, Any]:
    """Resources of one kernel on one target."""
    arguments = entry["arguments"]
    signature = {argument["name"]: argument["type"] for argument in arguments}
    signature.update(dict.fromkeys(entry["constants"], "constexpr"))
    attributes = {
        (position,): [["tt.divisibility", 16]] for position, argument in enumerate(arguments) if argument["aligned"]
    }
    source = ASTSource(fn=function, signature=signature, constexprs=entry["constants"], attrs=attributes)
    options = {"num_warps": entry["warps"], "enable_fp_fusion": True}
    compiled = triton.compile(source, target=TARGETS[target], options=options)
    shared = int(compiled.metadata.shared)
    found = nvidia_resources(compiled.asm) if "ptx" in compiled.asm else amd_resources(compiled.asm["amdgcn"])
    return {**found, "shared_bytes": shared, "fits": shared <= SHARED_LIMITS[target]}


def nvidia_resources(assembly: dict[str, Any]) -> dict[str, int]:
    """What ptxas says of the PTX: registers a thread, spilled bytes, bytes of the stack."""
    ptx = assembly["ptx"]
    architecture = re.search(r"\.target\s+(\w+)", ptx)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [ptxas(architecture[1]), "-v", f"--gpu-name={architecture[1]}", str(path), "-o", f"{path}.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr

    def figure(pattern: str) -> int:
        match = re.search(pattern, report)
        return int(match[1]) if match else 0

    return {
        "registers": figure(r"Used (\d+) registers"),
        "spilled_bytes": figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads"),
        "local_bytes": figure(r"(\d+) bytes stack frame"),
    }


def ptxas(architecture: str) -> str:
    """The assembler that comes with Triton; newer GPUs have one of their own."""
    knobs = triton.knobs.nvidia
    tool = (
        knobs.ptxas_blackwell if architecture.startswith("sm_10") and hasattr(knobs, "ptxas_blackwell") else knobs.ptxas
    )
    return str(tool.path)


def amd_resources(assembly: str) -> dict[str, int]:
    """The same from the metadata of the AMD assembly."""

    def figure(name: str) -> int:
        match = re.search(rf"\.{name}:\s*(\d+)", assembly)
        return int(match[1]) if match else 0

    return {
        "registers": figure("vgpr_count"),
        "spilled_bytes": 4 * (figure("vgpr_spill_count") + figure("sgpr_spill_count")),
        "local_bytes": figure("private_segment_fixed_size"),
    }


def main() -> int:
    folder, targets = Path(sys.argv[1]), sys.argv[2:]
    specification = importlib.util.spec_from_file_location("kernels", folder / "kernels.py")
    assert specification is not None and specification.loader is not None
    kernels = importlib.util.module_from_spec(specification)
    sys.modules["kernels"] = kernels  # Triton reads the source of functions by their module
    specification.loader.exec_module(kernels)
    for entry in json.loads((folder / "manifest.json").read_text("utf-8"))["kernels"]:
        for target in targets:
            found: dict[str, Any] = {"kernel": entry["name"], "target": target}
            try:
                found.update(compile_kernel(getattr(kernels, entry["name"]), entry, target))
            except (triton.CompilationError, RuntimeError, ValueError, TypeError, AssertionError) as error:
                found["error"] = str(error)[-2000:]
            print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
