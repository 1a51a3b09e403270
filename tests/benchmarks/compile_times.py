"""The time to compile by `torch.compile`: irc's path for CPUs beside Inductor's, on the models of tests/torchbench.py.

    python -m tests.benchmarks.compile_times [MODEL ...]      # prints the Markdown table of docs/measurements.md

Each compilation is a process of its own whose caches are empty folders; irc's and Inductor's take turns, model by
model. Measured is from `torch.compile(module)` to the end of the first call, without the import of torch and the
construction of the model, which are the same for both; the import of irc and of Inductor counts. CPU seconds are those
of the process and of what it starts (the C++ compiler, with one process at a time), and hardly depend on what else the
machine does; seconds of the clock do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

COMPILERS = ("irc", "inductor")


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(compiler: str, name: str) -> dict[str, Any]:
    """In this process: seconds of the clock and of the CPU, and whether the result is eager's."""
    import torch

    from tests.models import relative_error
    from tests.torchbench import build, flat

    torch.set_num_threads(1)
    module, inputs = build(name)
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        expected = flat(module(*inputs))
        start, used = time.perf_counter(), cpu_seconds()
        program = torch.compile(module, backend=compiler)
        results = flat(program(*inputs))
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - used
    error = max(relative_error(one.numpy(), other.numpy()) for one, other in zip(results, expected, strict=True))
    return {"seconds": seconds, "cpu": cpu, "error": error}


def in_new_process(compiler: str, name: str) -> dict[str, Any]:
    """`measure`, with empty caches. An Inductor that does not compile a model has the last line of its error."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"IRC_CACHE": os.path.join(folder, "irc"), "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
               "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # fmt: skip
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--measure", compiler, name]
        done = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"failed": (done.stderr.splitlines() or ["no output"])[-1]}
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of models; by default all")
    parser.add_argument("--measure", choices=COMPILERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.models[0])))
        return
    from tests.torchbench import MODELS

    ratios = []
    print("| model | irc, CPU s | Inductor, CPU s | ratio | irc, s | Inductor, s | error of irc |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models or MODELS:
        ours, theirs = (in_new_process(compiler, name) for compiler in COMPILERS)
        if "failed" in ours or "failed" in theirs:
            print(f"| {name} | {ours.get('failed', '')} | {theirs.get('failed', '')} | | | | |", flush=True)
            continue
        ratios.append(ours["cpu"] / theirs["cpu"])
        print(f"| {name} | {ours['cpu']:.1f} | {theirs['cpu']:.1f} | {ratios[-1]:.2f} | {ours['seconds']:.1f} "
              f"| {theirs['seconds']:.1f} | {ours['error']:.0e} |", flush=True)  # fmt: skip
    if ratios:
        print(f"\nOf {len(ratios)} models: median ratio {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
