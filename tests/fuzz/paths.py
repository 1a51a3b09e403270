"""The paths of a program through irc: the interpreter, ONNX Runtime with its optimizations off and on, and Triton, with
kernels as they are planned and with all merged that is legal.

A path compiles a program once and runs it on each of its feeds. `outcomes` gives what is different on each path.
"""

from __future__ import annotations

import os
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.models import Settings, find_backend
from irc.driver.optimizing import run_pipeline
from irc.frontends.onnx import from_model
from irc.module import Module
from tests.fuzz.judging import Array, Truth, first_difference
from tests.fuzz.onnx_graph import RUNTIME_ERRORS, session
from tests.fuzz.onnx_programs import OnnxProgram
from tests.fuzz.triton_path import Artefact, merged

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


# Errors that say that irc, or PyTorch, lacks something, by name: counted, but not what is looked for.
UNSUPPORTED = ("backend.unsupported", "torch.unsupported", "onnx.unsupported", "torch.export")


@dataclass(frozen=True)
class Outcome:
    """An error on a path: `kind` is "difference", "rejected" (a coded error), "unsupported" (one of UNSUPPORTED)
    or "crash"; `feed` is the number of the inputs."""

    path: str
    kind: str
    text: str
    feed: int | None = None

    @property
    def is_failure(self) -> bool:
        return self.kind != "unsupported"

    def __str__(self) -> str:
        where = "" if self.feed is None else f", inputs {self.feed}"
        return f"{self.path}{where}: {self.kind}: {self.text}"


def described(error: Exception) -> tuple[str, str]:
    """The kind of an outcome, and what the error says."""
    if isinstance(error, IrcError):
        said = [f"{each.code}: {each.message}" + "".join(f" [{note}]" for note in each.notes or ())
                for each in error.diagnostics]  # fmt: skip
        kind = "unsupported" if error.diagnostics[0].code in UNSUPPORTED else "rejected"
        return kind, " | ".join(said)[:1000]
    frames = traceback.extract_tb(error.__traceback__)
    place = " <- ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-4:]))
    return "crash", f"{type(error).__name__}: {str(error)[:500]} ({place})"


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def outcomes(program: Any) -> list[Outcome]:
    """What is wrong with a program, path by path; empty where all agree with the oracle."""
    if isinstance(program, OnnxProgram):
        return _onnx_outcomes(program)
    from tests.fuzz.torch_paths import torch_outcomes

    return torch_outcomes(program)


def _onnx_outcomes(program: OnnxProgram) -> list[Outcome]:
    try:
        with quiet():
            module = from_model(program.model, Path("no such folder"))
    except Exception as error:
        return [Outcome("import", *described(error))]
    makers: dict[str, Callable[[], Run]] = {
        "interpreter": lambda: lambda feed: interpreter.run(module, feed),
        "onnx off": lambda: in_onnx_runtime(module, optimized=False),
        "onnx on": lambda: in_onnx_runtime(module, optimized=True),
        "onnx cpu": lambda: in_onnx_runtime(module, optimized=False, target="cpu"),
        "triton": lambda: Artefact(passed(module, "triton")).on_arrays,
        "triton merged": lambda: Artefact(merged(module)).on_arrays,
    }
    outcomes = []
    for path, make in makers.items():
        truths = program.truths if path != "onnx on" else without_runtime_faults(program)
        if truths is not None:
            outcomes += path_outcomes(path, make, program.feeds, truths)
    return outcomes


def path_outcomes(
    path: str,
    make: Callable[[], Any],
    feeds: Any,
    truths: Any,
    call: Callable[[Any, Any], Any] = lambda run, feed: run(feed),
) -> list[Outcome]:
    """Compile by `make`, and compare each run with its truth; the first difference is enough."""
    try:
        with quiet():
            run = make()
    except Exception as error:
        return [Outcome(path, *described(error))]
    for number, (feed, references) in enumerate(zip(feeds, truths, strict=True)):
        try:
            with quiet():
                said = first_difference(references, call(run, feed))
        except Exception as error:
            return [Outcome(path, *described(error), number)]
        if said is not None:
            return [Outcome(path, "difference", said, number)]
    return []


def passed(module: Module, backend: str, target: str | None = None) -> Module:
    """A module after a backend's pipeline."""
    optimized, _ = run_pipeline(module, find_backend(backend).PIPELINE, backend, Settings(target=target))
    return optimized


def in_onnx_runtime(module: Module, optimized: bool, target: str = "portable") -> Run:
    """irc's ONNX output as a file's reader sees it."""
    onnx = find_backend("onnx")
    compiled = session(onnx.emit(passed(module, "onnx", target), target=onnx.Target(target)), optimized)
    names = [output.name for output in compiled.get_outputs()]
    taken = {value.name for value in compiled.get_inputs()}
    return lambda feed: dict(zip(names, compiled.run(None, {name: array for name, array in feed.items()
                                                            if name in taken}), strict=True))  # fmt: skip


def without_runtime_faults(program: OnnxProgram) -> list[dict[str, Truth]] | None:
    """The truths without the elements that ONNX Runtime's own optimizations change in the model as it came; None where
    it runs that model without them alone."""
    def original_runs() -> list[list[Array]] | None:
        try:
            original = session(program.model, optimized=True)
            return [original.run(None, feed) for feed in program.feeds]
        except RUNTIME_ERRORS:
            return None

    finished = in_child(original_runs)
    if finished is None:  # its MatMul of a transposed matrix divides by an extent of 0, where irc's output does not
        return program.truths
    (runs,) = finished
    if runs is None:
        return None
    return [{name: reference.without(array) for (name, reference), array in zip(truths.items(), arrays, strict=True)}
            for truths, arrays in zip(program.truths, runs, strict=True)]  # fmt: skip


def in_child(function: Callable[[], Any]) -> tuple[Any] | None:
    """What a function gives in a process of its own; None where that is ended by a signal."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(function(), pipe)
            os._exit(0)
        finally:  # no error goes on into the parent's code
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    assert status == 0, "the function failed in the child"
    return (pickle.loads(content),)
