"""Random PyTorch programs with inputs, and what eager PyTorch makes of them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from irc.driver.arrays import write_arrays
from tests.fuzz.arrays import bfloat16
from tests.fuzz.judging import SAMPLES, Truth
from tests.fuzz.steps import Reject, arguments, environments, results
from tests.fuzz.torch_source import COND, EAGER_ERRORS, PRELUDE, Line, Source, literal
from tests.fuzz.torch_steps import TorchSteps
from tests.oracles import from_torch

FLOATS = (np.float32, np.float32, np.float32, np.float32, np.float64, np.float16, bfloat16())
INTEGERS = (np.int64, np.int64, np.int32, np.int16, np.int8, np.uint8)
NAME = "program"  # of the function, in a program's file, that gives the module, inputs and dynamic shapes


@dataclass
class TorchProgram:
    """A module as text, and for each assignment of sizes the inputs and the judgment of each result.

    `dims` has for each input the names of its dynamic dims by axis. Results are judged in the order of their leaves,
    "result 0" and so on, and after them the inputs that the program may update, "input x0" and so on.
    """

    name: str
    definition: str
    dims: list[dict[int, str]]
    feeds: list[list[torch.Tensor]]
    size: int
    truths: list[dict[str, Truth]] = field(default_factory=list)

    @cached_property
    def module(self) -> torch.nn.Module:
        space = sys.modules["fuzzed"] = ModuleType("fuzzed")  # where PyTorch looks for what it traces
        exec(compile(self.definition, f"<{self.name}>", "exec"), vars(space))
        program: torch.nn.Module = space.Program()
        return program

    @property
    def text(self) -> str:
        """The program as a file: `irc check FILE.py:program` reads it."""
        tensors = "".join(f"        {literal(tensor)},\n" for tensor in self.feeds[0])
        names = sorted({name for each in self.dims for name in each.values()})
        shapes = ", ".join(
            "{" + ", ".join(f"{axis}: {name}" for axis, name in each.items()) + "}" for each in self.dims
        )
        dynamic = f", ({shapes},)" if names else ""
        symbols = "".join(f'    {name} = torch.export.Dim("{name}", min=0, max=64)\n' for name in names)
        return (f"{self.definition}\n\ndef {NAME}():\n{symbols}    inputs = (\n{tensors}    )\n"
                f"    return Program(), inputs{dynamic}\n")  # fmt: skip

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any] | None, ...] | None:
        """As torch.export takes them; None where all dims are static."""
        names = {name for each in self.dims for name in each.values()}
        known = {name: torch.export.Dim(name, min=0, max=64) for name in names}
        return tuple({axis: known[name] for axis, name in each.items()} for each in self.dims) if names else None

    def become_static(self) -> None:
        """Keep the first sizes alone."""
        self.dims, self.feeds, self.truths = [{} for _ in self.dims], self.feeds[:1], self.truths[:1]

    def leave_out(self, excluded: Callable[[Sequence[torch.Tensor]], bool]) -> None:
        """Leave out the sizes whose inputs are excluded."""
        kept = [number for number, feed in enumerate(self.feeds) if not excluded(feed)]
        self.feeds, self.truths = [self.feeds[number] for number in kept], [self.truths[number] for number in kept]

    def save(self, folder: Path) -> None:
        """Write program.py, and inputs.0.npz and so on."""
        (folder / "program.py").write_text(self.text, "utf-8")
        for number, feed in enumerate(self.feeds):
            arrays = {f"x{place}": from_torch(tensor) for place, tensor in enumerate(feed)}
            write_arrays(folder / f"inputs.{number}.npz", arrays)

    @property
    def source(self) -> str:
        """The file of `save` as irc's commands take it."""
        return f"program.py:{NAME}"


def judged(given: Any, called: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Results and arguments of a call by the names under which they are judged, as arrays."""
    leaves, _ = torch.utils._pytree.tree_flatten(given)
    arrays = {f"result {number}": from_torch(leaf.detach()) if isinstance(leaf, torch.Tensor) else np.asarray(leaf)
              for number, leaf in enumerate(leaves)}  # fmt: skip
    return arrays | {f"input x{number}": from_torch(tensor) for number, tensor in enumerate(called)}


def generate(seed: int, index: int, features: frozenset[str], runs: int = SAMPLES) -> TorchProgram:
    """The program of a seed and an index: the first of its attempts that eager PyTorch runs."""
    rng = random.Random(f"torch {seed} {index}")
    while True:
        try:
            return _attempt(rng, features, runs, f"torch-{seed}-{index}")
        except (Reject, *EAGER_ERRORS):
            continue


def _attempt(rng: random.Random, features: frozenset[str], runs: int, name: str) -> TorchProgram:
    sizes = environments(rng, features)
    source = Source(len(sizes))
    given_arguments = arguments(rng, features, sizes, FLOATS, INTEGERS, 3)
    inputs = [source.input(given, rng.random() < 0.15) for given in given_arguments]
    steps = TorchSteps(source, rng, list(inputs), features)
    steps.take(rng.randint(4, 16))
    read = {name for line in source.lines for name in line.operands if name not in line.results}
    computed = [value for value in steps.pool if value not in inputs] or inputs
    given = results(rng, computed, inputs, read, features)
    names = [value.name for value in given]
    lines = source.live(names)
    program = TorchProgram(name, _definition(source, lines, names, rng), _dims(source),
                           [[*given.values()] for given in source.given], len(lines))  # fmt: skip
    for index, tensors in enumerate(source.given):
        called = [tensor.clone() for tensor in tensors.values()]
        with torch.no_grad():
            values = judged(program.module(*called), called)
        samples = source.samples(index, lines, [*names, *tensors], runs)
        program.truths.append({key: Truth.of(array, [run[place] for run in samples])
                               for place, (key, array) in enumerate(values.items())})  # fmt: skip
    return program


def _dims(source: Source) -> list[dict[int, str]]:
    if len(source.spaces) == 1:
        return [{} for _ in source.inputs]
    return [{axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)} for dims in source.inputs.values()]


def _definition(source: Source, lines: Sequence[Line], names: Sequence[str], rng: random.Random) -> str:
    """The module as text; it returns a tuple, a list, a dictionary, or one tensor alone."""
    kind = rng.random()
    names = [*names, *([f"{names[0]}.shape"] if rng.random() < 0.05 else [])]
    returned = ", ".join(names) + ("," if len(names) == 1 else "")
    if kind < 0.1 and len(names) == 1:
        returned = names[0]
    elif kind < 0.2:
        returned = "[" + ", ".join(names) + "]"
    elif kind < 0.3:
        returned = "{" + ", ".join(f'"r{place}": {name}' for place, name in enumerate(names)) + "}"
    body = [line.text for line in lines] + [f"return {returned}"]
    prelude = PRELUDE + (COND if any("cond(" in line for line in body) else "")
    statements = "".join(f"        {line}\n" for line in body)
    head = f"class Program(torch.nn.Module):\n    def forward(self, {', '.join(source.inputs)}):"
    return f"{prelude}\n\n{head}\n{statements}"
