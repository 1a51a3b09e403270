"""ONNX models in the requested opset: the backend's cases in each, and operators that have changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import NO_FOLDER, check_close, in_runtime, model
from test_onnx_backend import pairs, run_case, run_model

from irc import ops
from irc.backends import onnx as backend
from irc.backends.onnx import Target
from irc.backends.onnx.runtime import OLDEST_OPSET, newest_opset
from irc.diagnostics import IrcError
from irc.frontends.onnx import from_model
from irc.op import trace
from tests.command_line import irc_here

OPSETS = range(OLDEST_OPSET, newest_opset() + 1)
NEEDS = re.compile(r"needs opset (\d+)")


def run_in(opset: int, case: Any, dtype: str, targets: tuple[str, ...]) -> None:
    """Run a case in an opset; where that is rejected, in those that the errors name, which must be newer."""
    while True:
        try:
            return run_case(case, dtype, targets, opset)
        except IrcError as error:
            assert {diagnostic.code for diagnostic in error.diagnostics} == {"backend.opset"}, str(error)
            needed = max(int(number) for number in NEEDS.findall(str(error)))
            assert needed > opset, str(error)
            opset = needed


@pytest.mark.parametrize("opset", OPSETS)
def test_a_sample_of_the_cases(opset: int) -> None:
    """Cases of the backend agree with the interpreter in every opset, or need the newer one that is named."""
    for pair in pairs()[(opset - OLDEST_OPSET) * 5 :: 97]:
        run_in(opset, *pair.values)


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_all_cases(opset: int) -> None:
    failures = {}
    for pair in pairs():
        try:
            run_in(opset, *pair.values)
        except Exception as error:
            failures[pair.id] = repr(error)
    assert not failures


def emitted(proto: onnx.ModelProto, opset: int | None) -> onnx.ModelProto:
    model = backend.emit(from_model(proto, NO_FOLDER), target=Target(opset=opset))
    onnx.checker.check_model(model, full_check=True)
    return model


# A graph, the opset it is written for, and, from the oldest on, the first opset in which it can be emitted.
GRAPHS = [
    ("(float[2, S] x) => (y) <int64[1] a = {1}> { y = ReduceMax(x, a) }", 18, 13),
    ("(float[2, S] x) => (y) { y = ReduceL2<keepdims = 0>(x) }", 18, 13),
    ("(float[2, S] x) => (float[N] y) { s = Shape(x) y = Expand(x, s) }", 13, 13),
    ("(float[2, S] x) => (int64[1] y) { y = Shape<start = 1>(x) }", 15, 13),
    ("(float[2, S] x) => (y) <int64[2] p = {1, 2}, float v = {3.0}, int64[1] a = {0}> { y = Pad(x, p, v, a) }", 18, 13),
    ("(float[2, S] x) => (y) <int64[4] p = {0, 1, 0, 2}> { y = Pad<mode = \"wrap\">(x, p) }", 19, 19),
    ("(float[2, S] x) => (a, b) { a, b = Split<axis = 0, num_outputs = 2>(x) }", 18, 13),
    ("(float[2, S] x) => (y) { y = Cast<to = 17>(x) z = Cast<to = 1>(y) }", 19, 19),
    ("(float[2, S] x) => (y) <int64[2] s = {0, -1}> { y = Reshape(x, s) }", 14, 13),
    ("(float[2, S] x) => (y) { y = Mish(x) }", 18, 13),
    ("(float[2, S] x) => (y) { y = Gelu(x) }", 20, 13),
    ("(float[2, S] x) => (y) { y = Swish(x) }", 24, 13),
    ("(float[2, S] x) => (y) { y = LayerNormalization<axis = 0>(x, x) }", 17, 13),
    ("(float[2, S] x) => (y) <float[2] s = {1.5, 2.0}> { y = RMSNormalization<axis = 0>(x, x) }", 23, 13),
    ("(float[2, S] x) => (y) { y = Softmax<axis = 0>(x) }", 11, 13),
    ("(float[2, S] x) => (y) { y = Shrink<lambd = 0.5>(x) }", 9, 13),
    ("(float[2, S] x) => (y) <float s = {0.25}> { q = QuantizeLinear(x, s) y = DequantizeLinear(q, s) }", 13, 13),
    ("(float[2, S] x) => (y) <float s = {0.25}, int8 z = {3}> { q = QuantizeLinear(x, s, z) "
     "y = DequantizeLinear(q, s, z) }", 21, 13),
    ("(float[2, S] x) => (y) <float s = {0.25}, int16 z = {3}> { q = QuantizeLinear(x, s, z) "
     "y = DequantizeLinear(q, s, z) }", 21, 13),
    ("(float[2, S] x) => (y) { i = Cast<to = 6>(x) b = BitwiseNot(i) y = Cast<to = 1>(b) }", 18, 18),
    ("(float[2, S] x) => (y) <int64[1] a = {1}> { z = Unsqueeze(x, a) y = Squeeze(z, a) }", 13, 13),
    ("(float[2, S] x) => (y) <int64[1] a = {-1}, int64 l = {16}> { z = Unsqueeze(x, a) y = DFT(z, l) }", 20, 17),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "written", "first"), GRAPHS)
def test_graphs_in_every_opset(graph: str, written: int, first: int) -> None:
    proto = model(graph, written)
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32) * 2}
    expected = in_runtime(proto, inputs)
    for opset in OPSETS:
        if opset < first:
            with pytest.raises(IrcError, match="needs opset") as caught:
                emitted(proto, opset)
            assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {"backend.opset"}
            assert max(int(number) for number in NEEDS.findall(str(caught.value))) == first
            continue
        rewritten = emitted(proto, opset)
        assert rewritten.opset_import[0].version == opset
        assert rewritten.ir_version == max(7, helper.find_min_ir_version_for(rewritten.opset_import))
        for actual, output in zip(in_runtime(rewritten, inputs), expected, strict=True):
            check_close(actual, output)


@pytest.mark.parametrize(("graph", "written", "needed"), [
    ("(seq(float[2]) x) => (seq(float[2]) y) { y = Identity(x) }", 16, 14),
    ("(optional(seq(float[2])) x) => (optional(seq(float[2])) y) { y = Identity(x) }", 16, 16),
    ("(optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }", 18, 15),
])  # fmt: skip
def test_types_that_are_no_tensors(graph: str, written: int, needed: int) -> None:
    for opset in OPSETS:
        if opset < needed:
            with pytest.raises(IrcError, match=f"needs opset {needed}"):
                emitted(model(graph, written), opset)
        else:
            emitted(model(graph, written), opset)


def test_all_that_an_opset_lacks_is_said_at_once() -> None:
    graph = ("(float[2, S] x) => (y) <float[1, 1] c = {1}, int64[4] p = {0, 1, 0, 2}, int64[1, 1] z = {0}> {"
             " h = Pad<mode = \"wrap\">(x, p) i = Cast<to = 6>(h) b = BitwiseAnd(i, i) u = Cast<to = 6>(c)"
             " y = ScatterElements<reduction = \"max\">(b, z, u) }")  # fmt: skip
    with pytest.raises(IrcError) as caught:
        emitted(model(graph, 21), 13)
    text = [diagnostic.message for diagnostic in caught.value.diagnostics]
    assert len(text) == 3 and [NEEDS.findall(each) for each in text] == [["19"], ["18"], ["18"]]


@pytest.mark.parametrize(("graph", "opset"), [
    ("(float[2, S] x) => (y) { y = Relu(x) }", 18),
    ("(float[2, S] x) => (y) { y = Gelu(x) }", 20),
    ("(float[2, S] x) => (y) <float s = {0.25}, int8 z = {3}> { q = QuantizeLinear(x, s, z)"
     " y = DequantizeLinear(q, s, z) }", 18),
    ("(float[2, S] x) => (y) <float s = {0.25}> { q = QuantizeLinear<output_dtype = 3>(x, s)"
     " y = DequantizeLinear(q, s) }", 18),
    ("(float[2, S] x) => (y) <float s = {0.25}, int16 z = {3}> { q = QuantizeLinear(x, s, z)"
     " y = DequantizeLinear(q, s, z) }", 21),
    ("(float16[2, S] x) => (y) { y = IsInf(x) }", 20),
    ("(float[2, S] x) => (y) { h = Cast<to = 17>(x) y = Cast<to = 1>(h) }", 19),
    ("(float[2, S] x) => (y) { y = RMSNormalization<axis = 0>(x, x) }", 23),
    ("(float[2, S] x) => (y) <int64[4] p = {0, 1, 0, 2}> { y = Pad<mode = \"wrap\">(x, p) }", 19),
    ("(float[2, 4, S] x) => (y) <float[4] w = {1, 2, 3, 4}> { y = GroupNormalization<num_groups = 2>(x, w, w) }", 21),
])  # fmt: skip
def test_the_lowest_opset_is_chosen(graph: str, opset: int) -> None:
    assert emitted(model(graph, max(opset, 23)), None).opset_import[0].version == opset


def test_quantized_integers_load_with_optimizations() -> None:
    """At opset 21 ONNX Runtime 1.31 moves int8 QuantizeLinear after what follows, and then rejects it."""
    graph = ("(float[1] x) => (y) <float s = {0.25}, int8 p = {3}, int64[2] k = {-1, 1}>"
             " { q = QuantizeLinear(x, s, p) d = DequantizeLinear(q, s, p) y = Reshape(d, k) }")  # fmt: skip
    for opset in (17, 21):
        written = emitted(model(graph, opset), None)
        assert run_model(written, {"x": np.array([1.1], np.float32)}, optimized=True)["y"].tolist() == [[1.0]]


@pytest.mark.parametrize("dtype", [4, 5])
def test_an_element_type_counts_for_the_operators_that_have_it(dtype: int) -> None:
    """QuantizeLinear of u16 and of i16 is of opset 21; a Cast of them beside one of i8 is not."""
    graph = (f"(float[1] x) => (y, w) <float s = {{0.25}}, int8 p = {{3}}> {{ h = Cast<to = {dtype}>(x)"
             " w = Cast<to = 7>(h) q = QuantizeLinear(x, s, p) y = DequantizeLinear(q, s, p) }")  # fmt: skip
    assert emitted(model(graph, 18), None).opset_import[0].version == 18


def test_kernels_kept_as_functions() -> None:
    module = trace(lambda x: ops.reduce_max(ops.exp(x), axes=(1,)), "f32[2, 5]")
    written = backend.emit(module, target=Target(opset=15), keep_kernels=True)
    onnx.checker.check_model(written, full_check=True)


@pytest.mark.parametrize("opset", [12, 99])
def test_opsets_that_are_not_written(opset: int) -> None:
    with pytest.raises(IrcError, match=r"usage\.backend"):
        Target(opset=opset)


def test_command_line(tmp_path: Path) -> None:
    graph = "(float[2, S] x) => (float[2, S] y) { y = Gelu(x) }"
    onnx.save(model(graph, 20), tmp_path / "m.onnx")
    done = irc_here("compile", "m.onnx", "--opset", "13", "-o", "out.onnx", folder=tmp_path)
    assert done.code == 0, done.err
    assert onnx.load(tmp_path / "out.onnx").opset_import[0].version == 13
    assert irc_here("check", "m.onnx", "--backend", "onnx", "--opset", "14", folder=tmp_path).code == 0
    assert irc_here("run", "m.onnx", "--opset", "15", folder=tmp_path).code == 0
    for arguments, code in ((("--opset", "12"), "usage.backend"), (("--opset", "x"), "usage"),
                            (("--backend", "triton", "--opset", "18"), "usage.arguments")):  # fmt: skip
        done = irc_here("compile", "m.onnx", *arguments, "-o", "no.onnx", folder=tmp_path)
        assert done.code == 2 and code in done.err.lower() and not (tmp_path / "no.onnx").exists(), done
    onnx.save(model(GRAPHS[5][0], 19), tmp_path / "wrap.onnx")
    done = irc_here("compile", "wrap.onnx", "--opset", "18", "-o", "no.onnx", folder=tmp_path)
    assert done.code == 4 and "error[backend.opset]" in done.err and "needs opset 19" in done.err
    assert not (tmp_path / "no.onnx").exists()
