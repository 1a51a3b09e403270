"""Operators that draw random numbers: each node draws its own, in branches, bodies and local functions too, on every
path; with a seed each path gives what ONNX Runtime gives; and none is merged, folded or moved across rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import interpreter
from irc.driver import Settings, check
from irc.driver.models import find_backend
from irc.driver.running import run_compiled
from irc.frontends.onnx import from_model
from irc.module import Module
from tests.onnx_models import NO_FOLDER, in_runtime
from tests.triton_harness import load_artefact, to_numpy

# Of each operator: a node that gives NAME, of at least 40 elements, and the same with a seed.
DRAWS = {
    "RandomNormal": "{0} = RandomNormal<shape = [4, 10]{1}>()",
    "RandomUniform": "{0} = RandomUniform<shape = [4, 10]{1}>()",
    "RandomNormalLike": "{0} = RandomNormalLike<dtype = 1{1}>(x)",
    "RandomUniformLike": "{0} = RandomUniformLike<dtype = 1{1}>(x)",
    "Bernoulli": "{0} = Bernoulli<dtype = 1{1}>(x)",
    "Multinomial": "{0}_i = Multinomial<sample_size = 40{1}>(x) {0} = Cast<to = 1>({0}_i)",
    "Dropout": "{0} = Dropout{1}(x, ratio, train)",
}
INPUTS = {"x": np.full((4, 10), 0.5, np.float32), "c": np.array(True), "n": np.array(3)}
PATHS = ("interpreter", "onnx", "triton")


def node(op_type: str, name: str, seed: int | None = None) -> str:
    if op_type == "Dropout":
        return DRAWS[op_type].format(name, "" if seed is None else f"<seed = {seed}>")
    return DRAWS[op_type].format(name, "" if seed is None else f", seed = {float(seed)}")


def scattered(op_type: str, seed: int | None = None) -> onnx.ModelProto:
    """Two in the main graph, after one that is folded; one in a branch, one in a body, two calls of a function."""
    def draw(name: str) -> str:
        return node(op_type, name, seed)

    text = f"""<ir_version: 8, opset_import: ["": 17, "local": 1]>
    main (float[N, 10] x, bool c, int64 n) => (a, b, t, rounds, held, f, g)
    <float ratio = {{0.5}}, bool train = {{1}}> {{
        s = Shape(x)
        zero = Constant<value_float = 0.0>()
        size = ReduceSum<keepdims = 0>(s)
        e = Cast<to = 1>(size)
        {draw("a")}
        {draw("b0")}
        f0 = Mul(e, zero)
        b = Add(b0, f0)
        t = If (c) <then_branch = then () => (float[] t0) {{ {draw("t0")} }},
                    else_branch = other () => (float[] t1) {{ t1 = Identity(x) }}>
        rounds, held = Loop (n, c) <body = body (int64 i, bool going) => (bool again, float[] r, float[] h) {{
            {draw("r")}
            h = Identity(a)
            again = Identity(going)
        }}>
        f = local.draw(x)
        g = local.draw(x)
    }}
    <domain: "local", opset_import: ["": 17]> draw (x) => (y) {{
        ratio = Constant<value_float = 0.5>()
        train = Constant<value = bool {{1}}>()
        {draw("y")}
    }}"""
    return onnx.parser.parse_model(text)


def outputs(module: Module, path: str, inputs: Mapping[str, Any] = INPUTS) -> dict[str, Any]:
    if path == "interpreter":
        return interpreter.run(module, inputs)
    compiled = irc.opt(module, find_backend(path).PIPELINE, backend=path)
    if path == "onnx":
        return dict(run_compiled(compiled, inputs, path, Settings())[0])
    with tempfile.TemporaryDirectory() as folder:
        find_backend(path).emit(compiled, Path(folder) / "artefact")
        results = load_artefact(Path(folder) / "artefact").load().run(inputs)
    return {name: to_numpy(tensor) for name, tensor in results.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("op_type", DRAWS)
def test_no_two_nodes_draw_the_same(op_type: str, path: str) -> None:
    arrays = outputs(from_model(scattered(op_type), NO_FOLDER), path)
    drawn = {"a": arrays["a"], "b": arrays["b"], "t": arrays["t"], "f": arrays["f"], "g": arrays["g"]}
    drawn |= {f"round {index}": array for index, array in enumerate(arrays["rounds"])}
    assert len({array.tobytes() for array in drawn.values()}) == len(drawn) == 8
    assert all(array.tobytes() == arrays["a"].tobytes() for array in arrays["held"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("op_type", DRAWS)
def test_with_a_seed_all_draw_what_the_runtime_draws(op_type: str, path: str) -> None:
    model = scattered(op_type, seed=7)
    module, expected = from_model(model, NO_FOLDER), in_runtime(model, INPUTS)
    for _ in range(2):  # each run begins again
        for actual, array in zip(outputs(module, path).values(), expected, strict=True):
            np.testing.assert_array_equal(actual, array)


@pytest.mark.parametrize("op_type", DRAWS)
def test_passes_neither_merge_nor_fold_what_is_random(op_type: str) -> None:
    constant = "x = Constant<value = float[4, 10] {" + ", ".join(["0.5"] * 40) + "}>()"
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g () => (float[] a, float[] b) <float ratio = {{0.5}}, bool train = {{1}}> {{
        {constant} {node(op_type, "a", 3)} {node(op_type, "b", 3)}
    }}"""
    module = from_model(onnx.parser.parse_model(text), NO_FOLDER)
    for backend in ("onnx", "triton"):
        names = [operation.name for operation in irc.opt(module, find_backend(backend).PIPELINE).walk()]
        assert names.count("extern") == 2


@pytest.mark.parametrize(("op_type", "expected"), [
    ("RandomNormal<shape = [100, 100], mean = 2.0, scale = 3.0>()", (2.0, 3.0)),
    ("RandomUniform<shape = [100, 100], low = -1.0, high = 5.0>()", (2.0, 3.0**0.5)),
    ("RandomNormalLike<mean = -1.0, scale = 0.5>(x)", (-1.0, 0.5)),
    ("RandomUniformLike<dtype = 11>(x)", (0.5, 12**-0.5)),
    ("Bernoulli<dtype = 7>(x)", (0.7, 0.21**0.5)),  # by ONNX's function, which is not as its text says
    ("Multinomial<sample_size = 5000>(logits)", (1.75, 0.433)),
    ("Dropout(x, ratio, train)", (0.3, 0.3 / 3**0.5)),
    ("Dropout(x, ratio, stop)", (0.3, 0.0)),
])  # fmt: skip
def test_the_numbers_of_triton_are_distributed_as_they_should_be(op_type: str, expected: tuple[float, float]) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 100] x, float[2, 4] logits, bool stop) => (y, bool[] m)
    <float ratio = {{0.25}}, bool train = {{1}}> {{ {"y, m" if "Dropout" in op_type else "y"} = {op_type}
    {"" if "Dropout" in op_type else "m = Identity(stop)"} }}"""
    module = from_model(onnx.parser.parse_model(text), NO_FOLDER)
    logits = np.array([[-np.inf, np.log(1), np.log(3), np.nan]] * 2, np.float32)
    given = {"x": np.full((100, 100), 0.3, np.float32), "logits": logits, "stop": np.array(False)}
    for path in PATHS:
        actual = outputs(module, path, given)
        mean, deviation = np.mean(actual["y"], dtype=np.float64), np.std(actual["y"], dtype=np.float64)
        assert abs(mean - expected[0]) < 0.05 * max(expected) and abs(deviation - expected[1]) < 0.05 * max(expected)
        if "Dropout" in op_type:
            assert np.array_equal(actual["m"], actual["y"] != 0)


def test_check_tells_which_outputs_are_random(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[] y, float[] z, float[] s)
    { y = RandomNormalLike(x) z = Sub(y, y) s = RandomNormalLike<seed = 1.0>(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    for backend in ("onnx", "triton"):
        report = check(tmp_path / "m.onnx", backend=backend, each=True)
        assert report.passed and report.random == ("y",)
        assert [output.output for output in report.stages[-1].outputs] == ["z", "s"]
