"""Sequences and optionals of ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import check_against_runtime, check_close, imported, in_runtime, model, operations

import irc
from irc.diagnostics import IrcError
from irc.driver.arrays import read_arrays, write_arrays
from irc.dtypes import by_name
from irc.interpreter import run
from irc.parser import parse
from tests.importing import failure

SEQUENCES = [
    "p = Constant<value_int = -1>() s = SequenceConstruct(x, x) t = SequenceInsert(s, e, p) y = SequenceAt(t, p)",
    "s = SplitToSequence<axis = 1, keepdims = 0>(x) y = ConcatFromSequence<axis = 0, new_axis = 1>(s)",
    "k = Constant<value_int = 2>() s = SplitToSequence<axis = 1>(x, k) t = SequenceErase(s)"
    " y = ConcatFromSequence<axis = 1>(t)",
    "k = Constant<value_ints = [1, 2]>() s = SplitToSequence<axis = 1>(x, k) n = SequenceLength(s) f = Cast<to = 1>(n)"
    " i = Identity(s) o = Constant<value_int = 1>() z = SequenceAt(i, o) y = Mul(z, f)",
    "s = SequenceEmpty() p = Constant<value_int = 0>() t = SequenceInsert(s, x, p) y = SequenceAt(t, p)",
    "o = Optional(x) h = OptionalHasElement(o) g = OptionalGetElement(o) y = Where(h, g, e)",
]  # fmt: skip


@pytest.mark.parametrize("nodes", SEQUENCES)
def test_sequences_of_known_length_are_several_values(nodes: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    module = check_against_runtime(f"(float[N, 3] x) => (y) {{ e = Exp(x) {nodes} }}", {"x": x}, 18)
    assert "extern" not in {operation.name for operation in module.walk()}


def test_a_body_for_each_element_of_a_sequence() -> None:
    module = imported("""(float[N, 3] x) => (y) { e = Exp(x) s = SequenceConstruct(x, e)
        t = SequenceMap<body = b (float[N, 3] a, float[N, 3] c) => (d) { d = Sub(a, c) }>(s, x)
        y = ConcatFromSequence<axis = -1>(t) }""", 18)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(module, {"x": x})["y"], np.concatenate([x - x, np.exp(x) - x], 1))


OPAQUE = {  # graphs over sequences of which only a run knows how long they are, and what else they take
    "given and returned": ("(seq(float[N]) s, int64 n) => (t, y) { a = SequenceAt(s, n) y = Exp(a)"
                           " t = SequenceInsert(s, y, n) }", ["SequenceAt", "SequenceInsert"]),
    "constructed": ("(float[N, 3] x) => (s, e) { y = Neg(x) s = SequenceConstruct(x, y) e = SequenceEmpty() }",
                    ["SequenceConstruct", "SequenceEmpty"]),
    "split": ("(float[N, 3] x) => (y, k) { s = SplitToSequence(x) y = ConcatFromSequence<axis = 0>(s)"
              " k = SequenceLength(s) }", ["SplitToSequence", "ConcatFromSequence", "SequenceLength"]),
    "chosen": ("(float[N, 3] x, int64 n) => (y) { e = Exp(x) s = SequenceConstruct(x, e) a = SequenceAt(s, n)"
               " y = Neg(a) }", ["SequenceConstruct", "SequenceAt"]),
    "collected": ("(float[N, 3] x, int64 n) => (y, s) { e = SequenceEmpty() s = Loop(n, , e) <body = b (int64 i,"
                  " bool c, seq(float[M]) q) => (d, r) { d = Identity(c) g = Gather<axis = 1>(x, i) h = Tanh(g)"
                  " r = SequenceInsert(q, h) }> y = ConcatFromSequence<axis = 0, new_axis = 1>(s) }",
                  ["SequenceEmpty", "SequenceInsert", "ConcatFromSequence"]),
    "branches": ("(float[N, 3] x, bool go) => (y) { s = If(go) <then_branch = a () => (p)"
                 " { p = SequenceConstruct(x, x) }, else_branch = b () => (q) { q = SequenceConstruct(x) }>"
                 " y = ConcatFromSequence<axis = 0>(s) }",
                 ["SequenceConstruct", "SequenceConstruct", "ConcatFromSequence"]),
    "mapped": ("(seq(float[N]) s, float[2] z) => (t) { t = SequenceMap<body = b (float[N] a, float[2] c)"
               " => (float[M] d) { k = Constant<value_float = 2.0>() e = Mul(a, k)"
               " d = Concat<axis = 0>(e, c) }>(s, z) }",
               ["SequenceLength", "SequenceEmpty", "SequenceAt", "SequenceInsert"]),
    "stacked": ("(seq(float[2]) t, bool go) => (y) { k = SequenceLength(t) y = Loop(k, go) <body = b (int64 i, bool c)"
                " => (d, e) { d = Identity(c) e = SequenceAt(t, i) }> }", ["SequenceLength", "SequenceAt"]),
    "text": ("(string[N] text) => (s, k) { s = SplitToSequence(text) k = SequenceLength(s) }",
             ["SplitToSequence", "SequenceLength"]),
    "optional": ("(optional(float[N]) o, optional(seq(float[N])) p, optional(float[N]) q) => (y, s, h, k) {"
                 " g = OptionalGetElement(o) y = Exp(g) s = OptionalGetElement(p) h = OptionalHasElement(q)"
                 " k = OptionalHasElement(p) }",
                 ["OptionalGetElement", "OptionalGetElement", "OptionalHasElement", "OptionalHasElement"]),
    "keyed": ("(map(string, float[N]) m) => (y) { v = ai.onnx.ml.DictVectorizer<string_vocabulary = [\"a\", \"b\"]>(m)"
              " y = Neg(v) }", ["DictVectorizer"]),
    "classes": ("(float[N, 3] x) => (m) { p = Softmax(x) m = ai.onnx.ml.ZipMap<classlabels_int64s = [3, 5, 7]>(p) }",
                ["ZipMap"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "go"), [*((name, True) for name in OPAQUE), ("branches", False)])
def test_sequences_that_only_a_run_knows(name: str, go: bool, tmp_path: Path) -> None:
    """They are opaque values, and what takes them is carried: printed and read back, interpreted, compiled."""
    graph, carried = OPAQUE[name]
    random = np.random.default_rng(0)
    rows = [random.standard_normal(size).astype(np.float32) for size in ((2, 3), 4, 0, 2)]
    everything = {"x": rows[0], "s": rows[1:], "n": np.array(1), "go": np.array(go), "z": rows[3], "o": rows[1],
                  "p": [rows[1], rows[3]], "q": None, "t": [rows[3], -rows[3]], "m": {"b": 2.0, "a": 0.5},
                  "text": np.array(["a", "bc", ""], object)}  # fmt: skip
    proto = model(graph, 18, domains={"ai.onnx.ml": 3})
    inputs = {value.name: everything[value.name] for value in proto.graph.input}
    expected = in_runtime(proto, inputs)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    module = irc.load(path)
    assert parse(str(module), path) == module
    assert [op.attributes["op_type"] for op in module.walk() if op.name == "extern"] == carried
    write_arrays(tmp_path / "in.npz", inputs)
    for backend in (None, "onnx", "triton"):
        actual = irc.run(path, tmp_path / "in.npz", backend=backend).outputs
        for output, reference in zip(actual.values(), expected, strict=True):
            check_close(output, reference)
    assert irc.check(path, inputs=inputs).passed


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({}, "run.input_missing"),
        ({"s": [1.0]}, "run.input_dtype"),
        ({"s.0": [1.0], "s.2": [1.0]}, "run.input_unknown"),
        ({"s.0.0": [1.0]}, "run.input_unknown"),
        ({"s.length": 2, "s.0": [1.0]}, "file.format"),
        ({"s.length": [2]}, "file.format"),
        ({"s.length": 10**15}, "file.format"),
        ({"s.0": np.float64([1.0])}, "run.input_dtype"),
        ({"s.0": ["a"]}, "run.input_dtype"),
    ],
)
@pytest.mark.parametrize("backend", [None, "onnx"])
def test_sequences_that_a_file_does_not_hold(arrays: Any, code: str, backend: str | None, tmp_path: Path) -> None:
    onnx.save(model("(seq(float[N]) s, int64 n) => (y) { y = SequenceAt(s, n) }"), tmp_path / "m.onnx")
    given = {name: np.asarray(array, np.float32 if array == [1.0] and not hasattr(array, "dtype") else None)
             for name, array in arrays.items()}  # fmt: skip
    np.savez(tmp_path / "in.npz", n=0, **given)
    with pytest.raises(IrcError) as caught:
        irc.run(tmp_path / "m.onnx", tmp_path / "in.npz", backend=backend)
    assert caught.value.code == code


def test_empty_sequences_and_names_that_collide(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"s": [[np.ones(2)], [], [np.zeros(1)]], "t": [], "m": {}})
    actual = read_arrays(tmp_path / "a.npz", {"s": by_name("sequence(sequence(f64))"), "t": by_name("sequence(f32)"),
                                              "m": by_name("map(i64, f32)")})  # fmt: skip
    assert [len(part) for part in actual["s"]] == [1, 0, 1] and actual["t"] == [] and actual["m"] == {}
    with pytest.raises(IrcError, match=r"two arrays would be called `t.0`"):
        write_arrays(tmp_path / "b.npz", {"t": [np.ones(1)], "t.0": np.ones(1)})
    assert not (tmp_path / "b.npz").exists()


def test_a_part_of_a_program_of_sequences(tmp_path: Path) -> None:
    graph = """(seq(float[N]) s, int64 n) => (y) { a = SequenceAt(s, n) t = SequenceInsert(s, a) b = SequenceAt(t, n)
               y = Exp(b) }"""
    onnx.save(model(graph), tmp_path / "m.onnx")
    inputs = {"s": [np.ones(3, np.float32), np.zeros(2, np.float32)], "n": np.array(1)}
    irc.extract(tmp_path / "m.onnx", ["t"], ["y"], tmp_path / "part.irc", inputs)
    assert 'opaque["sequence(f32)"]' in (tmp_path / "part.irc").read_text()
    (output,) = irc.run(tmp_path / "part.irc", tmp_path / "part.npz").outputs.values()
    check_close(output, np.ones(2, np.float32))


def test_optionals_that_are_known_to_be_absent() -> None:
    graph = """(float[N] x) => (y) { o = Optional<type = float[N]>() h = OptionalHasElement(o)
               y = If(h) <then_branch = a () => (p) { p = Exp(x) }, else_branch = b () => (q) { q = Neg(x) }> }"""
    assert operations(imported(graph.replace("<type = float[N]>", ""), 18)) == ["neg"]
    text = failure("(float[N] x) => (y) { y = Optional() }", "onnx.unsupported", 18)
    assert "an output that is not there" in text
    text = failure("(float[N] x, bool c) => (y) { o = If(c) <then_branch = a () => (p) { p = Optional(x) },"
                   " else_branch = b () => (q) { q = Optional() }> y = OptionalHasElement(o) }", "onnx.unsupported", 18)
    assert "an optional is there or not as the data says" in text


def test_opaque_types_are_checked() -> None:
    text = failure("(float[N] x) => (y) { s = SequenceEmpty<dtype = 7>() y = SequenceInsert(s, x) }", "onnx.invalid")
    assert "f32[N] is put into a sequence" in text
    text = failure("(sparse_tensor(float[2]) x) => (y) { y = Neg(x) }", "onnx.invalid")
    assert "values of the kind sparse_tensor_type are not read" in text
    text = failure("(seq(float[N]) s) => (y) { y = foreign.Strange(s) }", "onnx.unsupported", domains={"foreign": 1})
    assert "foreign Strange" in text
    text = failure("(seq(float[N]) s) => (y) { y = Neg(s) }", "type.dtype")
    assert "sequence(f32)" in text
