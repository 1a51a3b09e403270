"""`irc run` from the command line: arrays in files, random inputs, types that NumPy lacks."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import irc
from irc.driver.models import Settings
from irc.parser import parse
from tests.cli_reports import fine, working_folder
from tests.command_line import TEXT, irc_here, irc_process, model_outputs, model_proto

# -- run -------------------------------------------------------------------------------------------------------

def test_run_on_files(folder: Path) -> None:
    x = np.random.default_rng(2).standard_normal((5, 64)).astype(np.float32)
    np.savez(folder / "in.npz", x=x)
    expected = model_outputs(model_proto(), x)
    for backend in ([], ["--backend", "onnx"]):
        fine(irc_process("run", "model.onnx", "--input", "in.npz", "--output", "out.npz", *backend, folder=folder))
        with np.load(folder / "out.npz") as arrays:
            assert arrays.files == ["y"]
            np.testing.assert_allclose(arrays["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return working_folder(tmp_path)


def test_run_compiled_by_triton(folder: Path) -> None:
    pytest.importorskip("triton")
    arguments = ["run", "small.irc", "--dim", "N=7"]
    fine(irc_here(*arguments, "--output", "plain.npz", folder=folder))
    out = fine(irc_here(*arguments, "--backend", "triton", "--output", "out.npz", folder=folder))
    assert out.startswith(("interpreted, ", "device, "))
    with np.load(folder / "plain.npz") as plain, np.load(folder / "out.npz") as compiled:
        np.testing.assert_allclose(compiled["y"], plain["y"], rtol=1e-5)


def test_random_inputs_are_seeded_and_of_the_sizes_asked_for(folder: Path) -> None:
    first, again, other = (
        fine(irc_here("run", "small.irc", "--dim", "N=6", "--seed", seed, folder=folder)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert first.startswith("interpreted by NumPy, random inputs (x [6, 8], b [8])\n  y: float32[6, 8]  ")


def test_random_indices_are_valid(folder: Path) -> None:
    text = """irc text 1
module @lookup {
  func @main<N>(%table: f32[3, 4], %ids: i64[N], %mask: bool[N]) -> f32[N, 4] {
    %row = gather %table, %ids {axis = 0} : f32[N, 4]
    return %row
  }
}
"""
    (folder / "lookup.irc").write_text(text)
    for seed in range(5):
        fine(irc_here("run", "lookup.irc", "--dim", "N=50", "--seed", seed, folder=folder))


@pytest.mark.parametrize("dtype", ["bf16", "f8e4m3fn", "i4"])
def test_types_that_numpy_lacks_stand_in_files_as_their_bits(folder: Path, dtype: str) -> None:
    text = f"""irc text 1
module @same {{
  func @main<N>(%x: {dtype}[N]) -> (y: {dtype}[N]) {{
    %y = reverse %x {{axes = [0]}} : {dtype}[N]
    return %y
  }}
}}
"""
    (folder / "same.irc").write_text(text)
    dtypes = {"bf16": ml_dtypes.bfloat16, "f8e4m3fn": ml_dtypes.float8_e4m3fn, "i4": ml_dtypes.int4}[dtype]
    stored = {"bf16": np.uint16, "f8e4m3fn": np.uint8, "i4": np.int8}[dtype]
    x = np.array([-3, 1, 2, 5]).astype(dtypes)
    bits = x.astype(np.int8) if dtype == "i4" else x.view(stored)
    for given in (x, bits):  # as numpy.savez writes an array of ml_dtypes, and as irc writes it
        np.savez(folder / "in.npz", x=given)
        fine(irc_here("run", "same.irc", "--input", "in.npz", "--output", "out.npz", folder=folder))
        with np.load(folder / "out.npz") as arrays:
            assert arrays["y"].dtype == stored
            np.testing.assert_array_equal(arrays["y"], bits[::-1])


def test_types_that_numpy_lacks_reach_onnx_runtime() -> None:
    """Inputs that are returned as they are, and those that regions capture, too."""
    module = parse("""irc text 1
module @m {
  func @main<S>(%c: bool[], %x: bf16[S], %y: f32[S]) -> (bf16[S], bf16[S], f32[S]) {
    %r = if %c : f32[S] {
      %a = cast %x {to = f32, saturate = true} : f32[S]
      yield %a
    } else {
      yield %y
    }
    return %x, %x, %r
  }
}""")
    x = np.array([1.5, 2.0, 3.0], ml_dtypes.bfloat16)
    given = {"c": np.array(True), "x": x, "y": np.zeros(3, np.float32)}
    for actual in irc.run(module, given, backend="onnx", settings=Settings(target="cpu")).outputs.values():
        assert actual.tolist() == x.tolist()


def test_arrays_may_be_called_anything(folder: Path) -> None:
    (folder / "odd.irc").write_text(TEXT.replace("%x", '%"file"').replace("%y", '%"a/b:0"'))
    fine(irc_here("run", "odd.irc", "--output", "out.npz", folder=folder))
    with np.load(folder / "out.npz") as arrays:
        assert arrays.files == ["a/b:0"]
