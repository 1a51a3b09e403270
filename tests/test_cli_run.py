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


@pytest.mark.parametrize(
    ("arguments", "code", "message", "help"),
    [
        (("print", "a_folder"), "usage.model", "a_folder is a folder", "irc explain usage.model"),
        (("print", "artefact"), "usage.model", "artefact is a folder",
         "irc run runs a folder as irc compile has written it, with no other files"),
        (("print", "modle.onnx"), "file.missing", "there is no file modle.onnx", "did you mean model.onnx?"),
        (("print", "model.onx"), "usage.model", "this is not a model that irc reads: model.onx",
         "did you mean model.onnx?"),
        (("print", "https://a.example/m.onnx"), "file.missing", "there is no file https://a.example/m.onnx",
         "irc reads files: download the model first"),
        (("print", "model.onnx", "--after", "fuze"), "pass.unknown", "the pipeline has no stage `fuze`",
         "did you mean fuse?"),
        (("print", "model.onnx", "--around", "%prodct"), "text.undefined_name", "@main has no value %prodct",
         "did you mean %product?"),
        (("explain", "model.onnx", "@yy"), "usage.arguments", "the program has no kernel @yy",
         "did you mean @y?"),
        (("explain", "model.onnx", "@zzz"), "usage.arguments", "the program has no kernel @zzz",
         "irc kernels MODEL lists them"),
        (("explain", "model.onnx", "@zzz", "-p", "dce"), "usage.arguments",
         "the program has no kernel @zzz, and no other",
         "the pass fuse makes kernels: leave out -p for a pipeline that has it"),
        (("explain", "model.onnx", "%x", "@product"), "usage.arguments", "a kernel is explained by itself",
         "irc explain MODEL @product"),
        (("print", "model.onnx", "-o", "x.txt"), "usage.value", "no command could read x.txt again",
         "without -o the text is printed, and > writes it anywhere"),
        (("opt", "model.onnx", "-p", "dce", "-o", "x"), "usage.value", "no command could read x again",
         "without -o the text is printed, and > writes it anywhere"),
        (("compile", "model.onnx", "-o", "model.onx"), "usage.value", "no command could read model.onx again",
         "irc explain usage.value"),
        (("extract", "model.onnx", "--to", "x", "-o", "part.onnx"), "usage.value",
         "no command could read part.onnx again", "irc explain usage.value"),
        (("explain", "F99"), "usage.unknown_code", "there is no rule F99", "irc doc rules lists them"),
        (("experiment", "model.onnx", "-p", "a=fuze"), "pass.unknown", "there is no pass `fuze`", "did you mean fuse?"),
        (("experiment", "model.onnx", "-p", "a=dce", "--cache", "model.onnx"), "file.exists", "model.onnx is no folder",
         "irc explain file.exists"),
        (("plan", "edt", "plan.json"), "usage.arguments", "plan takes one MODEL, not 2 names", "did you mean edit?"),
        (("plan", "edit", "model.onnx", "--split", "y"), "plan.format",
         "this is no plan file: it is no text in UTF-8", "irc plan MODEL -o FILE writes one"),
        (("compile", "model.onnx", "--target", "sm_90"), "usage.backend", "the backend onnx has no target `sm_90`",
         "sm_90 is a target of --backend triton"),
        (("compile", "model.onnx", "-p", ""), "pass.syntax", "the pipeline is empty",
         "leave out -p for the default pipeline; irc doc passes lists the passes"),
        (("print", "model.onnx", "--allow-folder", "missing"), "file.missing", "there is no folder missing",
         "--allow-folder takes a folder that exists"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_what_helps(
    folder: Path, arguments: tuple[str, ...], code: str, message: str, help: str
) -> None:
    (folder / "a_folder").mkdir()
    (folder / "artefact").mkdir()
    (folder / "artefact" / "manifest.json").write_text("{}")
    if "edit" in arguments:
        (folder / "model.onnx").write_bytes(b"\xff")
    result = irc_here(*arguments, folder=folder)
    assert result.code in (2, 3) and result.out == ""
    lines = result.err.splitlines()
    assert lines[0] == f"error[{code}]: {message}" and lines[-1] == f"  help: {help}"


def test_what_may_not_be_read_or_written_is_said_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs the tests may be allowed everything, so that the answers of the system are made here."""
    (folder / "locked.npz").write_bytes(b"")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("zipfile.ZipFile", refuse)
        result = irc_here("run", "small.irc", "--input", "locked.npz", folder=folder)
    assert result.code == 3 and result.err.startswith("error[file.unreadable]: Permission denied\n  --> locked.npz\n")
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr("irc.driver.models.load", refuse)  # no model is read
    for arguments in (("compile", "small.irc", "--backend", "triton", "-o", "new/out"),
                      ("reduce", "small.irc", "-o", "new"), ("calibrate", "-o", "costs.json")):  # fmt: skip
        result = irc_here(*arguments, folder=folder)
        assert result.code == 3 and result.err.startswith("error[file.unreadable]: nothing can be written to "), result
