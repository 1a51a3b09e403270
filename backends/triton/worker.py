"""Compiles the kernels of an artefact for GPU targets that need not be present. Run as a program of its own:

    python worker.py FOLDER KERNEL:TARGET...

It writes a line of JSON for each kernel and target to its stdout as soon as it is done, so that a reader with a time
limit loses only the last. What else prints goes to stderr. It imports triton but not irc, and is started without
TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}  # fmt: skip
WARP = 32  # threads in a warp of those that irc counts
WIDEST = 128  # bits that a thread moves at once


def compiled_for(function: Any, entry: dict[str, Any], target: str) -> Any:
    """One kernel as Triton compiles it for one target."""
    arguments = entry["arguments"]
    signature = {argument["name"]: argument["type"] for argument in arguments}
    signature.update(dict.fromkeys(entry["constants"], "constexpr"))
    stated = {name: value[target] if isinstance(value, dict) else value for name, value in entry["constants"].items()}
    constants = {name: getattr(triton.language, value) if isinstance(value, str) else value
                 for name, value in stated.items()}  # fmt: skip
    attributes = {(position,): facts_of(argument, target) for position, argument in enumerate(arguments)}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    warps = max(1, entry["warps"] * WARP // TARGETS[target].warp_size)
    options = {"num_warps": warps, "enable_fp_fusion": True, "debug": bool(function.debug), "sanitize_overflow": False}
    if "stages" in entry:
        options["num_stages"] = entry["stages"]
    return triton.compile(source, target=TARGETS[target], options=options)


def compile_kernel(function: Any, entry: dict[str, Any], target: str) -> dict[str, Any]:
    """Resources of one kernel on one target."""
    compiled = compiled_for(function, entry, target)
    shared = int(compiled.metadata.shared)
    is_nvidia = "ptx" in compiled.asm
    resources = nvidia_resources(compiled.asm) if is_nvidia else amd_resources(compiled.asm["amdgcn"])
    assembly = compiled.asm["ptx" if is_nvidia else "amdgcn"]
    accesses = memory_accesses(assembly, PTX_ACCESS if is_nvidia else AMD_ACCESS)
    start = function.fn.__code__.co_firstlineno
    aligned = [
        [(kind, bits) for line, kind, bits in accesses if first <= line - start <= last]
        for first, last, is_aligned in entry["accesses"]
        if is_aligned
    ]
    narrow = [widths for widths in aligned if not widths or min(bits for _, bits in widths) < WIDEST]
    return {
        **resources,
        "shared_bytes": shared,
        "loads": histogram(bits for _, kind, bits in accesses if kind == "load"),
        "stores": histogram(bits for _, kind, bits in accesses if kind == "store"),
        "aligned_accesses": len(aligned),
        "wide_accesses": len(aligned) - len(narrow),
        "narrow_stores": sum(any(kind == "store" for kind, _ in widths) for widths in narrow),
        "warpgroup_instructions": assembly.count("wgmma.mma_async"),
        "matrix_instructions": len((PTX_MATRIX if is_nvidia else AMD_MATRIX).findall(assembly)),
    }


def facts_of(argument: dict[str, Any], target: str) -> list[list[Any]]:
    """What Triton learns of an argument when it launches: 16 divides it, a buffer has less than 2 GB (for AMD)."""
    facts: list[list[Any]] = [["tt.divisibility", 16]] if argument["aligned"] else []
    if argument["type"].startswith("*") and TARGETS[target].backend == "hip":
        facts.append(["tt.pointer_range", 32])
    return facts


# Loads and stores of global memory, and instructions that multiply matrices, in PTX and in AMD's assembly.
PTX_ACCESS = re.compile(r"\b(ld|st)\.global[.\w:]*?(?:\.v(\d))?\.[bfus](\d+)\b")
PTX_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global.*?, *(0x[0-9a-f]+|\d+)")  # to shared memory, bytes a thread
AMD_ACCESS = re.compile(r"\b(?:global|buffer|flat)_(load|store)_(\w+)")
AMD_BITS = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32, "b128": 128, "b96": 96, "b64": 64, "b32": 32}
PTX_MATRIX = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
AMD_MATRIX = re.compile(r"\bv_s?mfmac?_")
LOCATION = re.compile(r"\s*\.loc\s+\d+\s+(\d+)")
INLINE = re.compile(r"\s*// (?:begin|end) inline asm\b")


def memory_accesses(assembly: str, pattern: re.Pattern[str]) -> list[tuple[int, str, int]]:
    """Each access of global memory: the line of kernels.py that it belongs to, "load" or "store", bits a thread.

    Line 0 is code of no line; what follows belongs to the last one known. In Triton 3.9 lines of inline assembly,
    which accesses are, are counted on from the access: there the first one counts."""
    accesses, line, is_inline, is_known = [], 0, False, False
    for text in assembly.splitlines():
        location, access = LOCATION.match(text), pattern.search(text)
        if INLINE.match(text):
            is_inline, is_known = not is_inline, False
        if location and location[1] != "0" and not is_known:
            line, is_known = int(location[1]), is_inline
        copy = PTX_COPY.search(text) if pattern is PTX_ACCESS else None
        if copy:
            accesses.append((line, "load", 8 * int(copy[1], 0)))
        elif access and pattern is PTX_ACCESS:
            kind, vector, bits = access.groups()
            accesses.append((line, "load" if kind == "ld" else "store", int(vector or 1) * int(bits)))
        elif access:
            kind, width = access.groups()
            bits = AMD_BITS.get(width, 8 if "byte" in width or width.endswith("8") else 16)
            accesses.append((line, kind, bits))
    return accesses


def histogram(widths: Iterable[int]) -> dict[str, int]:
    """How many accesses have each width, the widest first."""
    counts = Counter(widths)
    return {str(bits): counts[bits] for bits in sorted(counts, reverse=True)}


def nvidia_resources(assembly: dict[str, Any]) -> dict[str, int]:
    """What ptxas says of the PTX: registers a thread, spilled bytes, bytes of the stack."""
    ptx = assembly["ptx"]
    architecture = re.search(r"\.target\s+(\w+)", ptx)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [ptxas(architecture[1]), "-v", f"--gpu-name={architecture[1]}", str(path), "-o", f"{path}.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise RuntimeError(f"ptxas rejects it: {done.stderr.strip() or done.stdout.strip()}")
        report = done.stderr

    def figure(pattern: str) -> int:
        match = re.search(pattern, report)
        return int(match[1]) if match else 0

    return {
        "registers": figure(r"Used (\d+) registers"),
        "spilled_bytes": figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads"),
        "spilled_scalars": 0,
        "local_bytes": figure(r"(\d+) bytes stack frame"),
    }


def ptxas(architecture: str) -> str:
    """The assembler of those that come with Triton with which it compiles for an architecture such as sm_90a."""
    from triton.backends.nvidia.compiler import get_ptxas  # an installation for AMD only may have none

    number = re.search(r"\d+", architecture)
    assert number is not None
    return str(get_ptxas(int(number[0])).path)


def amd_resources(assembly: str) -> dict[str, int]:
    """The same from the metadata of the AMD assembly.

    Scalar registers that a wave lacks are spilled to lanes of a vector register, not to memory, and are listed
    separately (LLVM's AMDGPU usage, "Spilling"). Were there no lanes left, the stack in `local_bytes` would show it.
    """

    def figure(name: str) -> int:
        match = re.search(rf"\.{name}:\s*(\d+)", assembly)
        return int(match[1]) if match else 0

    return {
        "registers": figure("vgpr_count"),
        "spilled_bytes": 4 * figure("vgpr_spill_count"),
        "spilled_scalars": figure("sgpr_spill_count"),
        "local_bytes": figure("private_segment_fixed_size"),
    }


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # compilers print, too
    folder, kernel_names = Path(sys.argv[1]), sys.argv[2:]
    specification = importlib.util.spec_from_file_location("kernels", folder / "kernels.py")
    assert specification is not None and specification.loader is not None
    kernels = importlib.util.module_from_spec(specification)
    sys.modules["kernels"] = kernels  # Triton reads the source of functions by their module
    specification.loader.exec_module(kernels)
    entries = {entry["name"]: entry for entry in json.loads((folder / "manifest.json").read_text("utf-8"))["kernels"]}
    for name, _, target in (each.partition(":") for each in kernel_names):
        answer: dict[str, Any] = {"kernel": name, "target": target}
        try:
            answer.update(compile_kernel(getattr(kernels, name), entries[name], target))
        except Exception as error:  # whatever compilers raise: that is what they make of this kernel
            answer.update(error=(str(error) or type(error).__name__)[-2000:])
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
