"""Random ONNX models with inputs, and what ONNX Runtime makes of them with its optimizations off."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import onnx

from irc.driver.arrays import write_arrays
from tests.fuzz.judging import SAMPLES, Array, Truth
from tests.fuzz.onnx_choices import FLOATS, INTEGERS
from tests.fuzz.onnx_graph import IR_VERSIONS, RUNTIME_ERRORS, Graph, Value, session
from tests.fuzz.onnx_steps import OnnxSteps
from tests.fuzz.steps import Reject, arguments, environments, results


@dataclass
class OnnxProgram:
    """A model, and for each assignment of sizes to its named dims the inputs and the judgment of each output."""

    name: str
    model: onnx.ModelProto
    feeds: list[dict[str, Array]]
    truths: list[dict[str, Truth]]

    @property
    def size(self) -> int:
        return len(self.model.graph.node)

    @property
    def text(self) -> str:
        return onnx.printer.to_text(self.model)

    def save(self, folder: Path) -> None:
        """Write model.onnx, and inputs.0.npz and so on."""
        onnx.save(self.model, folder / self.source)
        for number, feed in enumerate(self.feeds):
            write_arrays(folder / f"inputs.{number}.npz", feed)

    @property
    def source(self) -> str:
        """The file of `save` as irc's commands take it."""
        return "model.onnx"


def generate(seed: int, index: int, features: frozenset[str], runs: int = SAMPLES) -> OnnxProgram:
    """The program of a seed and an index: the first of its attempts that ONNX Runtime runs."""
    rng = random.Random(f"onnx {seed} {index}")
    while True:
        try:
            return _attempt(rng, features, runs, f"onnx-{seed}-{index}")
        except (Reject, *RUNTIME_ERRORS):
            continue


def _attempt(rng: random.Random, features: frozenset[str], runs: int, name: str) -> OnnxProgram:
    sizes = environments(rng, features)
    graph = Graph(rng.choice(list(IR_VERSIONS)), len(sizes))
    inputs = [graph.input(given) for given in arguments(rng, features, sizes, FLOATS, INTEGERS, 4)]
    steps = OnnxSteps(graph, rng, list(inputs), features)
    steps.take(rng.randint(4, 16))
    outputs = _outputs(graph, rng, steps.pool, inputs, features)
    model = graph.model(outputs)
    onnx.checker.check_model(model)
    feeds = [{input_: value.arrays[index] for input_, (value, _) in graph.inputs.items()}
             for index in range(graph.assignments)]  # fmt: skip
    runner = session(model)
    truths = []
    values = list(outputs.values())
    for index, feed in enumerate(feeds):
        arrays = runner.run(None, feed)
        samples = graph.samples(index, values, runs)
        truths.append({output: Truth.of(array, [run[place] for run in samples])
                       for place, (output, array) in enumerate(zip(outputs, arrays, strict=True))})  # fmt: skip
    return OnnxProgram(name, model, feeds, truths)


def _outputs(graph: Graph, rng: random.Random, pool: list[Value], inputs: list[Value],
             features: frozenset[str]) -> dict[str, Value]:  # fmt: skip
    """Results by name. There are no arrays of bf16 outside of a model."""
    computed = [value for value in pool if value.dtype.name != "bfloat16" and value not in inputs]
    if not computed:
        raise Reject("nothing to give")
    read = {value.name for node in graph.nodes for value in node.operands}
    outputs: dict[str, Value] = {}
    for value in results(rng, computed, inputs, read, features):
        taken = value.name in outputs or value in inputs
        outputs[f"{value.name}_again" if taken else value.name] = value
    return outputs
