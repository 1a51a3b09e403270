"""What a machine with a GPU is for, in under ten minutes: tests of kernels, tuning, and times of blocks.

    python -m tests.benchmarks.on_device [--output DIR] [--seconds 540]

Each step runs in a process of its own, with the time that is left; what it printed and its exit status go to DIR. The
tests are those that run kernels in Triton's interpreter elsewhere; here `IRC_TEST_DEVICE=cuda` runs them on the GPU.
Blocks are compiled, tuned, and compiled again with the schedules found; `irc bench --backend triton` times them beside
eager PyTorch, with products of libraries and in kernels. `results.json` has the exit status and the seconds of each
step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ("test_triton.py", "test_products.py", "test_attention_kernels.py", "test_convolutions.py", "test_schedules.py",
         "test_split.py", "test_siblings.py", "test_quantized_products.py", "test_row_loops.py",
         "test_triton_random.py", "test_triton_programs.py", "test_triton_host.py", "test_triton_models.py",
         "test_tuning.py")  # fmt: skip
BLOCKS = ("softmax", "add_norm", "feed_forward", "encoder", "decoder_fused")
SOURCE = """from tests.blocks import block

def {name}():
    return block("{name}", large=True)
"""
SHORTEST = 10.0  # seconds that a step needs to be started


def steps(folder: Path) -> list[tuple[str, list[str], float]]:
    """The name, command and longest time of each step, the most important first."""
    irc = [sys.executable, "-m", "irc"]
    tests = [str(ROOT / "tests" / name) for name in TESTS if (ROOT / "tests" / name).exists()]
    planned = [("tests", [sys.executable, "-m", "pytest", "-q", "-n", "8", "-x", "--maxfail=40", *tests], 240.0)]
    for name in BLOCKS:
        source = folder / f"{name}.py"
        source.write_text(SOURCE.format(name=name))
        model = f"{source}:{name}"
        for products in ("host", "irc"):
            artefact = str(folder / f"{name}-{products}")
            make = [*irc, "compile", model, "--backend", "triton", "--products", products, "-o", artefact]
            bench = [*irc, "bench", model, "--backend", "triton", "--products", products, "--json"]
            title = f"{name}-{products}"
            planned += [(f"{title}-compile", make, 60.0), (f"{title}-bench", bench, 60.0)]
            planned += [(f"{title}-tune", [*irc, "tune", artefact, "--json"], 60.0)] if products == "irc" else []
    planned.append(("kernels", [sys.executable, "-m", "tests.benchmarks.device", "launches", "kernels"], 120.0))
    return planned


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("on_device"), help="the folder for what steps print")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all steps together")
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    end, results = time.monotonic() + options.seconds, {}
    environment = {**os.environ, "IRC_TEST_DEVICE": "cuda", "PYTHONPATH": str(ROOT)}
    for name, command, longest in steps(folder):
        start = time.monotonic()
        if end - start < SHORTEST:
            results[name] = {"status": "not started"}
            continue
        with (folder / f"{name}.txt").open("w") as printed:
            status: int | str
            try:
                done = subprocess.run(command, cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT,
                                      timeout=min(longest, end - start))  # fmt: skip
                status = done.returncode
            except subprocess.TimeoutExpired:
                status = "stopped"
        results[name] = {"status": status, "seconds": round(time.monotonic() - start, 1)}
        print(f"{name:28} {results[name]}", flush=True)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(each["status"] == 0 for each in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
