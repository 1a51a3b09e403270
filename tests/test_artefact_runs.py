"""`irc run FOLDER` runs an artefact by its manifest alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import irc
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.frontends.onnx import from_model
from irc.parser import parse
from tests.onnx_models import NO_FOLDER, imported

pytest.importorskip("triton")

PROGRAMS = {
    "dynamic": (
        "func @main<B in [0, 64], S in [2, 9]>(%x: f32[B, S * 2 + 1], %i: i64[S]) -> f32[B, S] {\n"
        "    %y = gather %x, %i {axis = 1} : f32[B, S]\n    %z = exp %y : f32[B, S]\n    return %z\n  }"
    ),
    "narrow types": (
        "func @main<N>(%x: bf16[N], %y: f8e4m3fn[N], %b: bool[N]) -> (bf16[N], bool[N]) {\n"
        "    %c = cast %y {to = bf16} : bf16[N]\n    %z = add %x, %c : bf16[N]\n    %n = bitwise_not %b : bool[N]\n"
        "    return %z, %n\n  }"
    ),
    "a default, and names": (
        'func @main<"my dim">(%"x y": f32["my dim"], %w: f32[] = 2.5 : f32[]) -> f32["my dim"] {\n'
        '    %z = mul %"x y", %w : f32["my dim"]\n    return %z\n  }'
    ),
}


def compiled(name: str, folder: Path) -> irc.Module:
    module = parse(f"irc text 1\nmodule @m {{\n  {PROGRAMS[name]}\n}}\n")
    irc.compile(module, backend="triton", output=folder / "out")
    return module


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_folder_runs_as_the_program_does(name: str, tmp_path: Path) -> None:
    module = compiled(name, tmp_path)
    sizes = Settings(dims=dict.fromkeys(module.main.symbols, 3))
    actual = irc.run(tmp_path / "out", seed=4, settings=sizes)
    expected = irc.run(module, actual.inputs)
    assert actual.label in ("interpreted", "device") and actual.outputs.keys() == expected.outputs.keys()
    assert actual.inputs.keys() == irc.run(module, settings=sizes).inputs.keys()  # none for what has a default
    for each, array in expected.outputs.items():
        assert actual.outputs[each].dtype == array.dtype
        tolerance = 1e-6 if array.dtype.itemsize == 4 else 1e-2
        np.testing.assert_allclose(actual.outputs[each].astype("f4"), array.astype("f4"), rtol=tolerance)
    again = irc.run(str(tmp_path / "out"), expected.inputs, backend="triton")
    assert again.outputs.keys() == expected.outputs.keys()


def test_folders_that_are_no_artefacts_of_this_version(tmp_path: Path) -> None:
    compiled("dynamic", tmp_path)
    with pytest.raises(IrcError, match="has Triton kernels"):
        irc.run(tmp_path / "out", backend="onnx")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    del manifest["signature"]["interface"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IrcError, match="has no interface"):
        irc.run(tmp_path / "out")
    (tmp_path / "out" / "more.py").write_text("")  # another file: not a folder that compile may have written
    with pytest.raises(IrcError, match=r"is a folder\n(.*\n)*.*with no other files"):
        irc.run(tmp_path / "out")


def test_text_that_an_index_misses(tmp_path: Path) -> None:
    graph = "(string[N] x, int64[2] i) => (string[2] y) { y = Gather<axis = 0>(x, i) }"
    irc.compile(imported(graph, 20), backend="triton", output=tmp_path / "out")
    np.savez(tmp_path / "in.npz", x=np.array(["a", "b"]), i=np.array([0, 5]))
    command = [sys.executable, str(tmp_path / "out"), "--input", str(tmp_path / "in.npz"), "--output", "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: an index is out of range for an axis of extent 2"


def test_an_operator_of_onnx_runtime_that_fails(tmp_path: Path) -> None:
    """It is an error in words, of which ONNX Runtime logs nothing by itself: it would write names as they are."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ArrayFeatureExtractor", ["x", "i"], ["y"], name="\x1b[31m", domain="ai.onnx.ml")], "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3]),
         onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 1])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    module = from_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), NO_FOLDER)
    irc.compile(module, backend="triton", output=tmp_path / "out")
    np.savez(tmp_path / "in.npz", x=np.ones((2, 3), np.float32), i=np.array([17]))
    command = [sys.executable, str(tmp_path / "out"), "--input", str(tmp_path / "in.npz"), "--output", "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 3 and len(lines) <= 2 and all(line.isprintable() for line in lines)
    assert lines[-1].startswith("error: ONNX Runtime: ") and "index is out of range" in lines[-1]


@pytest.mark.parametrize("package", ["torch", "triton"])
def test_a_folder_says_which_package_it_needs(package: str, tmp_path: Path) -> None:
    compiled("dynamic", tmp_path)
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 7), np.float32), i=np.zeros(3, np.int64))
    run = (f"import runpy, sys; sys.modules[{package!r}] = None; "
           "sys.argv = ['out', '--input', 'in.npz', '--output', 'out.npz']; "
           "runpy.run_path('out', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3 and not (tmp_path / "out.npz").exists()
    assert done.stderr == (f"error: this compiled model needs {package}, which is not installed: "
                           "pip install torch triton\n")  # fmt: skip
    if package == "torch":
        load = f"import sys; sys.modules[{package!r}] = None; import out"
        done = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1].endswith("PyTorch, which is not installed: pip install torch triton")
