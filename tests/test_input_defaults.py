"""Initializers that are inputs as well: defaults, in whose place a run may give others, or constants where that is
asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
import irc.driver
from irc.backends.onnx import saving
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.running import OnnxProgram
from irc.driver.text_files import READERS, save_text
from irc.frontends.onnx import from_model
from irc.interpreter import run
from irc.module import Module
from irc.parser import parse
from irc.verifier import verify
from irc.weights import Tensor
from tests.command_line import irc_here
from tests.onnx_models import NO_FOLDER, check_close, in_runtime

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def node_model(op_type: str, defaults: Sequence[Any], outputs: int = 1, opset: int = 17,
               shape: Sequence[Any] = ("N", 4), ir_version: int = 8, **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    """One operator of x and inputs i0, i1, ... with these defaults."""
    arrays = {f"i{index}": np.asarray(each) for index, each in enumerate(defaults)}
    results = [f"y{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *arrays], results, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
         *(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
           for name, array in arrays.items())],
        [helper.make_tensor_value_info(name, 2 if op_type == "QuantizeLinear" else 1, None) for name in results],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def longs(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


# An operator with defaults, and other values for some of them.
CASES: list[tuple[onnx.ModelProto, dict[str, Any]]] = [
    (node_model("Mul", [floats(1, 2, 3, 4)]), {"i0": floats(5, 5, 0, -5)}),
    (node_model("Gemm", [np.ones((4, 3), np.float32), floats(1, 2, 3)], alpha=0.5), {"i1": floats(0, 0, 9)}),
    (node_model("Conv", [np.ones((3, 2, 3, 3), np.float32), floats(1, 2, 3)], shape=["N", 2, 4, 4], pads=[1, 1, 1, 1]),
     {"i0": np.full((3, 2, 3, 3), -2, np.float32)}),
    (node_model("BatchNormalization", [floats(1, 2, 3, 4)] * 4), {"i0": floats(0, 1, 0, 1), "i3": floats(9, 9, 9, 1)}),
    (node_model("LayerNormalization", [floats(1, 2, 3, 4)] * 2), {"i1": floats(9, 9, 9, 1)}),
    (node_model("Clip", [np.float32(-1), np.float32(3)]), {"i1": np.array(2, np.float32)}),
    (node_model("PRelu", [floats(0.5, 0.25, 1, 2)]), {"i0": floats(2, 2, 2, 2)}),
    (node_model("QuantizeLinear", [np.float32(0.5), np.uint8(3)]), {"i0": np.array(0.25, np.float32)}),
    (node_model("Reshape", [longs(4, -1)]), {"i0": longs(6, 2)}),
    (node_model("Slice", [longs(1), longs(3), longs(1)]), {"i0": longs(0)}),
    (node_model("Unsqueeze", [longs(1)]), {"i0": longs(0)}),
    (node_model("Pad", [longs(0, 1, 0, 1)]), {"i0": longs(1, 0, 0, 0)}),
    (node_model("Tile", [longs(2, 1)]), {"i0": longs(1, 3)}),
    (node_model("ReduceSum", [longs(1)]), {"i0": longs(0)}),
    (node_model("Split", [longs(1, 3)], outputs=2, axis=1), {"i0": longs(2, 2)}),
    (node_model("Gather", [longs(1, 2)]), {"i0": longs(0, 0)}),
    (node_model("Resize", [floats(), floats(1, 2)], opset=18), {"i1": floats(2, 2)}),
]  # fmt: skip
NAMES = [model.graph.node[0].op_type for model, _ in CASES]


def numbers_for(model: onnx.ModelProto) -> Any:
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return X if len(shape) == 2 else np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)


def results(source: Path, given: dict[str, Any], backend: str | None, settings: Settings | None = None) -> list[Any]:
    return list(irc.driver.run(source, given, backend=backend, settings=settings).outputs.values())


@pytest.mark.parametrize(("model", "others"), CASES, ids=NAMES)
@pytest.mark.parametrize("backend", [None, "onnx", "triton"])
def test_a_run_takes_what_it_is_given_or_else_the_default(model: onnx.ModelProto, others: dict[str, Any],
                                                         backend: str | None, tmp_path: Path) -> None:  # fmt: skip
    onnx.save(model, tmp_path / "model.onnx")
    for given in ({"x": numbers_for(model)}, {"x": numbers_for(model), **others}):
        actual = results(tmp_path / "model.onnx", given, backend)
        check_close(actual, in_runtime(model, given))


@pytest.mark.parametrize(("model", "others"), CASES, ids=NAMES)
def test_they_are_constants_where_that_is_asked(model: onnx.ModelProto, others: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    save_text(irc.driver.load(tmp_path / "model.onnx"), tmp_path / "model.irc")
    asked = Settings(fold_defaults=True)
    for name in ("model.onnx", "model.irc"):
        module = asked.load(tmp_path / name)
        assert [argument.name for argument in module.main.arguments] == ["x"]
        irc.driver.compile(tmp_path / name, output=tmp_path / "out.onnx", settings=asked)
        written = onnx.load(tmp_path / "out.onnx")
        assert [value.name for value in written.graph.input] == ["x"]
        given = {"x": numbers_for(model)}
        check_close(in_runtime(written, given), in_runtime(model, given))


@pytest.mark.parametrize(("model", "others"), CASES, ids=NAMES)
def test_text_has_the_defaults(model: onnx.ModelProto, others: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    module = irc.driver.load(tmp_path / "model.onnx")
    with irc.allow(tmp_path):
        assert parse(str(module), readers=READERS) == module
    assert module.clone() == module
    save_text(module, tmp_path / "model.irc")
    (tmp_path / "model.onnx").unlink()
    given = {"x": numbers_for(model), **others}
    for inputs in ({"x": given["x"]}, given):
        check_close(results(tmp_path / "model.irc", inputs, None), in_runtime(model, inputs))
    changed = module.clone()
    argument = next(iter(changed.main.defaults))
    old = changed.main.defaults[argument].array()
    changed.main.defaults[argument] = Tensor.of(old + np.ones_like(old), argument.dtype)
    assert changed != module


def test_the_onnx_output_has_inputs_with_initializers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where weights lie outside of the model."""
    model, others = node_model("MatMul", [np.eye(4, 400, dtype=np.float32)]), {"i0": np.ones((4, 400), np.float32)}
    onnx.save(model, tmp_path / "model.onnx")
    for limit in (saving.WHOLE_LIMIT, 0):
        monkeypatch.setattr(saving, "WHOLE_LIMIT", limit)
        report = irc.driver.compile(tmp_path / "model.onnx", output=tmp_path / "out.onnx")
        assert report.weight_bytes == 4 * 400 * 4
        assert report.notes == ("1 of the inputs has a default: --fold-defaults replaces such inputs by constants",)
        written = onnx.load(tmp_path / "out.onnx")
        assert [value.name for value in written.graph.input] == ["x", "i0"]
        assert [tensor.name for tensor in written.graph.initializer] == ["i0"]
        onnx.checker.check_model(written, full_check=True)
        for given in ({"x": X}, {"x": X, **others}):
            check_close(in_runtime(written, given), in_runtime(model, given))
    assert (tmp_path / "out.onnx.data").is_file()


def test_before_version_4_of_the_ir_initializers_are_constants() -> None:
    """They all had to be inputs."""
    module = from_model(node_model("Mul", [floats(1, 2, 3, 4)], ir_version=3, opset=8), NO_FOLDER)
    assert [argument.name for argument in module.main.arguments] == ["x"]
    assert not module.main.defaults


@pytest.mark.parametrize("wrong", ["shape", "rank", "type"])
def test_a_default_that_is_not_what_the_input_is(wrong: str) -> None:
    model = node_model("Mul", [floats(1, 2, 3, 4)])
    stated = {"shape": (1, [3]), "rank": (1, [1, 4]), "type": (TensorProto.DOUBLE, [4])}[wrong]
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("i0", *stated))
    with pytest.raises(IrcError, match=r"onnx\.invalid.*'i0' is .*, but its initializer f32\[4\]"):
        from_model(model, NO_FOLDER)
    from_model(model, NO_FOLDER, fold_defaults=True)  # nothing reads such an input


def test_an_input_that_states_no_shape_has_its_initializers() -> None:
    model = node_model("Mul", [floats(1, 2, 3, 4)])
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("i0", TensorProto.FLOAT, None))
    assert str(from_model(model, NO_FOLDER).main.arguments[1].type) == "f32[4]"


def symbolic() -> onnx.ModelProto:
    model = node_model("Mul", [floats(1, 2, 3, 4)], shape=["N", "K"])
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "K"
    return model


def test_a_default_tells_the_size_of_a_symbol(tmp_path: Path) -> None:
    """Random inputs fit it, another input may have another size, and folded it makes the symbol that size."""
    onnx.save(symbolic(), tmp_path / "model.onnx")
    report = irc.driver.run(tmp_path / "model.onnx")
    assert [(name, array.shape) for name, array in report.inputs.items()] == [("x", (2, 4))]
    given = {"x": X[:, :2], "i0": floats(7, 8)}
    check_close(results(tmp_path / "model.onnx", given, None), in_runtime(symbolic(), given))
    with pytest.raises(IrcError, match=r"run\.shape|run\.dim"):
        irc.driver.run(tmp_path / "model.onnx", {"x": X[:, :2]})
    save_text(irc.driver.load(tmp_path / "model.onnx"), tmp_path / "model.irc")
    module = irc.driver.load(tmp_path / "model.irc", fold_defaults=True)
    assert [str(argument.type) for argument in module.main.arguments] == ["f32[N, 4]"]
    assert irc.driver.check(tmp_path / "model.onnx", backend="onnx").passed
    assert irc.driver.check(tmp_path / "model.onnx", each=True).passed


@pytest.mark.parametrize("kind", ["BFLOAT16", "INT4", "FLOAT8E4M3FN", "STRING"])
def test_defaults_of_types_that_numpy_lacks(kind: str, tmp_path: Path) -> None:
    elements = getattr(TensorProto, kind)
    content: list[Any] = ["a", "b", "c", "d"] if kind == "STRING" else [1, 2, 3, 4]
    last = helper.make_node("Identity", ["w"], ["y"])
    if kind not in ("STRING", "BFLOAT16"):
        last = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [last],
        "g",
        [helper.make_tensor_value_info("w", elements, [4])],
        [helper.make_tensor_value_info("y", elements if last.op_type == "Identity" else TensorProto.FLOAT, None)],
        [helper.make_tensor("w", elements, [4], [text.encode() for text in content] if kind == "STRING" else content)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    for backend in (None, "onnx", "triton"):
        (actual,) = results(tmp_path / "model.onnx", {}, backend)
        assert actual.astype(str if kind == "STRING" else float).tolist() == content


def test_a_sparse_initializer_may_be_a_default() -> None:
    model = node_model("Mul", [floats(0, 2, 0, 0)])
    values, places = numpy_helper.from_array(floats(2), "i0"), numpy_helper.from_array(longs(1), "places")
    model.graph.ClearField("initializer")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    module = from_model(model, NO_FOLDER)
    np.testing.assert_array_equal(run(module, {"x": X})["y0"], X * floats(0, 2, 0, 0))
    np.testing.assert_array_equal(run(module, {"x": X, "i0": floats(1, 1, 1, 2)})["y0"], X * floats(1, 1, 1, 2))


def test_an_artefact_gives_away_no_default(tmp_path: Path) -> None:
    """An output that is a default must be a copy: a write to it would change the next run."""
    module = parse("""irc text 1
    module @m {
      func @main(%x: f32[2], %w: f32[2] = [1.0, 2.0] : f32[2]) -> (y: f32[2], z: f32[2]) {
        %z = neg %x : f32[2]
        return %w, %z
      }
    }""")
    verify(module)
    irc.driver.compile(module, backend="triton", output=tmp_path / "out")
    (_, entry) = json.loads((tmp_path / "out" / "manifest.json").read_text())["signature"]["inputs"]
    assert entry["default"] == "const.w"
    from tests.triton_harness import load_artefact

    model = load_artefact(tmp_path / "out").load()
    for _ in range(2):
        actual = model(floats(3, 4))
        assert actual["y"].tolist() == [1, 2]
        actual["y"].zero_()
    assert model(floats(3, 4), w=floats(7, 8))["y"].tolist() == [7, 8]
    with pytest.raises(ValueError, match="no input 'v'"):
        model(floats(3, 4), v=floats(7, 8))
    with pytest.raises(ValueError, match="'x' is missing"):
        model(w=floats(7, 8))


def test_other_verbs_take_models_with_defaults(tmp_path: Path) -> None:
    model = node_model("Mul", [floats(1, 2, 3, 4)])
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "in.npz", x=X)
    np.savez(tmp_path / "all.npz", i0=floats(0, 1, 2, 3), x=X)
    for arguments in (["run", "model.onnx", "--input", "in.npz"], ["bench", "model.onnx", "--input", "all.npz"],
                      ["compile", "model.onnx", "--tune", "--tune-seconds", "0.1", "--calibration", "all.npz"],
                      ["check", "model.onnx", "--backend", "onnx"],
                      ["check", "model.onnx", "--input", "in.npz", "--each"], ["bench", "model.onnx"],
                      ["extract", "model.onnx", "--to", "%y0", "-o", "part.irc"], ["kernels", "model.onnx"],
                      ["print", "model.onnx"], ["compile", "model.onnx", "--fold-defaults", "-o", "out.onnx"]):
        ended = irc_here(*arguments, folder=tmp_path)
        assert ended.code == 0, (arguments, ended)
    assert [value.name for value in onnx.load(tmp_path / "out.onnx").graph.input] == ["x"]
    ended = irc_here("run", "part.irc", "--input", "part.npz", folder=tmp_path)
    assert ended.code == 0, ended
    missing = irc_here("run", "model.onnx", "--input", "empty.npz", folder=tmp_path)
    assert missing.code != 0


@pytest.mark.parametrize("given", [{"x": X}, {"x": X, "i0": floats(0, 1, 2, 3)}], ids=["default", "other"])
def test_a_check_compares_with_the_model_as_it_came(given: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(node_model("Mul", [floats(1, 2, 3, 4)]), tmp_path / "model.onnx")
    report = irc.driver.check(tmp_path / "model.onnx", given, backend="onnx")
    assert report.passed and "original" in [stage.stage for stage in report.stages]
    assert not report.without_original


@pytest.mark.parametrize(("default", "code"), [
    ("[1.0, 2.0]", "text.syntax"), ("[1.0, 2.0] : f32[3]", "type.shape"), ("[1.0, 2.0] : i64[2]", "text.syntax"),
    ("0.5 : f32[]", "verify.return"), ('@"w" : f32[2]', "weights.missing"), ("f32[2]", "text.syntax"),
])  # fmt: skip
def test_defaults_in_text_that_are_none(default: str, code: str, tmp_path: Path) -> None:
    text = f"irc text 1\nmodule @m {{\n  func @main(%w: f32[2] = {default}) -> f32[2] {{\n    return %w\n  }}\n}}\n"
    (tmp_path / "m.irc").write_text(text)
    with pytest.raises(IrcError) as caught:
        irc.driver.load(tmp_path / "m.irc")
    assert caught.value.code == code


def test_a_default_that_tells_too_little_is_not_folded() -> None:
    module = parse("""irc text 1
    module @m {
      func @main<K>(%w: f32[K + 1] = [1.0, 2.0] : f32[2]) -> f32[K + 1] {
        return %w
      }
    }""")
    with pytest.raises(IrcError, match=r"type\.shape"):
        irc.driver.load(module, fold_defaults=True)


def test_programs_in_onnx_runtime_use_the_model_s_defaults() -> None:
    module: Module = from_model(node_model("Mul", [floats(1, 2, 3, 4)]), NO_FOLDER)
    program = OnnxProgram(module)
    np.testing.assert_array_equal(program({"x": X})["y0"], X * floats(1, 2, 3, 4))
    np.testing.assert_array_equal(program({"x": X, "i0": floats(1, 1, 1, 1)})["y0"], X)
