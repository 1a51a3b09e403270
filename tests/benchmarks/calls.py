"""The cost of a call: a compiled tiny module beside the session that runs it, and PyTorch with and without a graph.

    python -m tests.benchmarks.calls

The session is called as a user would with IO binding: the argument is bound once, the result to new memory in each
call. Rounds interleave the contenders; the ratio of each round's fastest call to the session's is taken, and the median
is printed with its quartiles. The row `session again` is the session against itself: the noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from irc.driver.callables import compile_program, imported_program
from irc.driver.models import Settings, find_backend
from irc.driver.onnx_binding import BoundProgram
from irc.driver.optimizing import run_pipeline
from irc.driver.running import saving, session_of

ROUNDS, CALLS = 60, 200


def contenders() -> dict[str, Callable[[], Any]]:
    """Functions without arguments, by name; the first is the session."""
    module, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.randn(2, 4)
    compiled = compile_program(module, (x,), "onnx")
    imported, _ = imported_program(module, (x,))
    lowered, _ = run_pipeline(imported, find_backend("onnx").PIPELINE, "onnx", Settings())
    session = session_of(saving(lowered))
    bound = BoundProgram(lowered.main, session)
    output = bound.results[0][0]
    binding = session.io_binding()
    binding.bind_input(bound.names[0], "cpu", 0, np.float32, (2, 4), x.data_ptr())

    def call_session() -> torch.Tensor:
        result = torch.empty((2, 4))
        binding.bind_output(output, "cpu", 0, np.float32, (2, 4), result.data_ptr())
        session.run_with_iobinding(binding)
        return result

    graph, eager_graph = (torch.compile(module, backend=backend) for backend in ("irc", "aot_eager"))
    return {
        "session": call_session,
        "session again": call_session,
        "irc.compile": lambda: compiled(x),
        'torch.compile(backend="irc")': lambda: graph(x),
        'torch.compile(backend="aot_eager")': lambda: eager_graph(x),
        "eager": lambda: module(x),
    }


def fastest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of CALLS calls."""
    best = float("inf")
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        calls = contenders()
        for call in calls.values():
            fastest(call)
        rounds = [{name: fastest(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    print(f"{'':34} {'median us':>10} {'ratio':>7}   quartiles")
    for name in calls:
        ratios = [each[name] / each["session"] for each in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = 1e6 * statistics.median(each[name] for each in rounds)
        print(f"{name:34} {median:10.1f} {middle:7.2f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
