"""Text in Triton artefacts: constants, inputs, results, every operation that takes it, control flow and externs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("triton")

import random_operands
import torch
from test_triton_host import ERROR, load_template, to_torch

import irc
from irc import dtypes, interpreter
from irc.backends.triton import emit
from irc.backends.triton.calls import host_functions
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.models import find_backend
from irc.driver.running import run_compiled
from irc.dtypes import I64
from irc.frontends.onnx import from_model
from irc.module import Module
from irc.ops import lookup
from tests.command_line import irc_here
from tests.onnx_models import NO_FOLDER, in_runtime
from tests.primitive_samples import samples
from tests.triton_harness import load_artefact

MODULE = load_template("strings")
# Which operands are text.
TEXT = {"gather": (0,), "gather_elements": (0,), "scatter": (0, 2), "scatter_elements": (0, 2), "select": (1, 2)}


def words(array: np.ndarray) -> np.ndarray:
    """A text for each number, the empty one among them."""
    texts = np.array([*("é" * (abs(int(number)) % 7) for number in array.reshape(-1)), None], object)
    return texts[:-1].reshape(array.shape)


@pytest.mark.parametrize("name", sorted(host_functions("strings")))
def test_operations_on_text(name: str) -> None:
    definition, maker, met = lookup(name), random_operands.Operands(3, ["i64"]), 0
    cases = [*samples(name, I64)] if name in ("reshape", "transpose", "expand", "equal", "not_equal", "select") else [
        maker.of(name) for _ in range(120)]
    for arrays, attributes in islice(cases, 120):
        normal = definition.normalize(attributes)
        if normal.get("reduction", "none") != "none":
            continue
        given = [words(array) if index in TEXT.get(name, range(len(arrays))) else array
                 for index, array in enumerate(arrays)]
        try:
            expected = definition.evaluate(given, normal)
        except IrcError:
            with pytest.raises(ERROR):
                getattr(MODULE, name)(*map(converted, given), **normal)
            continue
        more = {"device": "cpu"} if name.endswith("equal") else {}
        actual = getattr(MODULE, name)(*map(converted, given), **normal, **more)
        for result, array in zip(actual if isinstance(actual, tuple) else (actual,), expected, strict=True):
            assert isinstance(result, torch.Tensor if name.endswith("equal") else np.ndarray)
            np.testing.assert_array_equal(np.asarray(result), array, str((name, attributes)))
        met += 1
    assert met > 2


def converted(array: Any) -> Any:
    return array if array.dtype == object else to_torch(array)


def run_artefact(module: Module, feeds: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    emit(irc.opt(module, find_backend("triton").PIPELINE), folder / "artefact")
    return dict(load_artefact(folder / "artefact").load().run(feeds))


def test_a_model_with_text_in_all_places(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 19, "ai.onnx.ml": 2]>
    g (string[N, 4] x, bool c, int64 n) => (w, count, labels, t, both, rows, last, x_again)
    <string[4] k = {"b", "", "é", "quote \\""}, string[1] end = {"end"}> {
        same = Equal(x, k)  dot = Constant<value_string = "·">()
        w = Where(same, x, dot)
        number = Cast<to = 1>(same)  count = ReduceSum<keepdims = 0>(number)
        labels = ai.onnx.ml.LabelEncoder<keys_strings = ["a", "b"], values_int64s = [7, 8], default_int64 = -1>(x)
        size = Shape(x)  t = Cast<to = 8>(size)
        both = If (c) <then_branch = a () => (string[A, E] u) { u = Concat<axis = 0>(x, w) },
                       else_branch = b () => (string[A, E] v) { v = Identity(x) }>
        start = Identity(end)
        last, rows = Loop (n, c, start) <body = body (int64 i, bool going, string[1] held)
                                         => (bool again, string[1] now, string[R] row) {
            again = Identity(going)  row = Gather<axis = 1>(x, i)  now = Identity(held)
        }>
        x_again = Identity(x)
    }"""
    model = onnx.parser.parse_model(text)
    x = np.array([["a", "b", "", "é"], ["b", "", "é", 'quote "'], ["b", "b", "\n", "x" * 300]], object)
    for rounds, condition in ((3, True), (0, False)):
        feeds = {"x": x, "c": np.array(condition), "n": np.array(rounds)}
        module = from_model(model, NO_FOLDER)
        compiled = irc.opt(module, find_backend("triton").PIPELINE)
        expected = interpreter.run(module, feeds)
        for outputs in (dict(zip(expected, in_runtime(model, feeds), strict=True)),
                        run_artefact(module, feeds, tmp_path / str(rounds)),
                        run_compiled(compiled, feeds, "triton", Settings())[0]):  # fmt: skip
            for name, array in expected.items():
                if name != "rows" or rounds:  # of what no round has filled ONNX Runtime does not know the extents
                    assert np.shape(outputs[name]) == array.shape
                    np.testing.assert_array_equal(np.asarray(outputs[name]), array)


def test_text_of_another_rank_is_refused(tmp_path: Path) -> None:
    module = irc.trace(lambda x: irc.ops.reverse(x, axes=(0,)), "string[N, 2]")
    with pytest.raises(ValueError, match="has shape \\[2\\]"):
        run_artefact(module, {"x": np.array(["a", "b"], object)}, tmp_path)
    assert dtypes.STRING is module.main.arguments[0].dtype


def test_what_a_program_with_text_does_is_counted(tmp_path: Path) -> None:
    """Text has sizes there as well, and a program may be counted after another."""
    for function, types in (
        (lambda x, i: irc.ops.gather(irc.ops.concat(x, x, axis=0), i, axis=0), ("string[N]", "i64[M]")),
        (lambda x, y: irc.ops.select(irc.ops.equal(x, y), x, y), ("string[N, 2]", "string[N, 2]")),
    ):
        module = irc.opt(irc.trace(function, *types), find_backend("triton").PIPELINE)
        sizes = dict.fromkeys(module.main.symbols.values(), 3)
        operations, not_counted = find_backend("triton").device_operations(module, sizes)
        assert not not_counted and len(operations) >= 2
        assert irc.compile(module, backend="triton", output=tmp_path / types[1])


@pytest.mark.parametrize("backend", [None, "onnx", "triton"])
def test_texts_that_a_file_cannot_hold(backend: str | None, tmp_path: Path) -> None:
    """NumPy's arrays of text drop NULs at the end."""
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (string[2] x) => (string[2] y) { y = StringConcat (x, x) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.TensorProto(name="end", data_type=8, dims=[1], string_data=[b"\0"]))
    proto.graph.node[0].input[1] = "end"
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.array(["a", "b"]))
    stated = [] if backend is None else ["--backend", backend]
    done = irc_here("run", "m.onnx", "--input", "in.npz", "--output", "out.npz", *stated, folder=tmp_path)
    assert done.code and "cannot hold a text that ends with NUL, as one of y does" in done.err, done.err
    assert "Traceback" not in done.err and not (tmp_path / "out.npz").exists()
