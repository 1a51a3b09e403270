"""Threads that compile at once, in a process that has compiled nothing yet."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch._dynamo.convert_frame import compile_lock

import irc

SCRIPT = """
import gc, sys, threading, traceback
import torch
import torch._dynamo  # PyTorch's imports fail at times where threads begin with them
from torch import nn

gc.disable()  # Python 3.11.7 fails at times where it collects while threads parse (gh-106905)
torch._C._ensureCUDADeviceGuardSet()  # builds for CUDA may crash where the thread that did it first has ended
x, failed = torch.randn(2, 4), []
kinds = sys.argv[2:]
start = threading.Barrier(len(kinds))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def infer(model):
    with torch.no_grad():
        close(torch.compile(model, backend="irc")(x), model(x))


def learn(model):
    torch.compile(model, backend="irc")(x).square().sum().backward()
    gradients = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for one, weight in zip(gradients, model.parameters(), strict=True):
        close(one, weight.grad)


def compile(model):
    import irc

    close(irc.compile(model, (x,), backend="onnx")(x), model(x).detach())


def load(model):
    import irc

    assert irc.load(sys.argv[1]).main.arguments[0].shape == (2, 4)


def run(kind, model):
    start.wait()
    try:
        globals()[kind](model)
    except BaseException:
        failed.append(traceback.format_exc())


load(None)  # in a process that has exported nothing
threads = [threading.Thread(target=run, args=(kind, nn.Sequential(nn.Linear(4, 3 + index), nn.Tanh()).eval()))
           for index, kind in enumerate(kinds)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(failed), *failed)
"""


@pytest.mark.skipif(torch.__version__ < "2.12", reason="PyTorch 2.11 fails where one is called while another is traced")
def test_threads_that_are_the_first_to_compile(tmp_path: Path) -> None:
    """PyTorch registers the backend once, and no thread exports while another one traces."""
    file = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.randn(2, 4),)), file)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file), *["infer", "compile", "learn", "load"] * 2]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout == "0\n", ended.stdout + ended.stderr


def test_nothing_is_traced_while_a_program_is_exported() -> None:
    taken: list[bool] = []

    def program(x: torch.Tensor) -> torch.Tensor:
        def take() -> None:
            taken.append(compile_lock.acquire(blocking=False))
            if taken[-1]:
                compile_lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return x + 1

    irc.from_torch(program, (torch.ones(2),))
    assert taken and not any(taken)
