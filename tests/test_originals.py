"""irc check and irc reduce against the model as it came: an ONNX file in ONNX Runtime, a program in PyTorch."""

from __future__ import annotations

import shlex
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("triton")

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver.arrays import write_arrays
from irc.driver.measuring import relative_error
from irc.driver.onnx_originals import OnnxOriginal
from irc.frontends.onnx import importer as onnx_importer
from irc.frontends.onnx.table import Row as OnnxRow
from irc.frontends.torch import importer as torch_importer
from irc.frontends.torch.table import Row as TorchRow
from tests.command_line import irc_process
from tests.fuzz.features import chosen
from tests.fuzz.running import Job, program_of
from tests.onnx_models import model

PROGRAMS, CHECKS = 2, 100  # of each kind of program, and at most for each reduction


def stages(report: Any) -> dict[str, bool]:
    return {stage.stage: stage.passed for stage in report.stages}


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def wrong_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both frontends take a subtraction for one the other way round."""
    row = OnnxRow(lambda a, b, /: ops.sub(b, a), "Sub", 1, "")
    monkeypatch.setitem(onnx_importer.TABLE.rows, ("", "Sub"), [row])

    def reversed_subtraction(self: Any, other: Any, alpha: Any = 1) -> Any:
        return right.function(other, self, alpha)

    right = torch_importer.TABLE.rows["sub.Tensor"]
    monkeypatch.setitem(torch_importer.TABLE.rows, "sub.Tensor", TorchRow(reversed_subtraction, ("sub.Tensor",)))


# -- check -----------------------------------------------------------------------------------------------------


def test_what_is_imported_is_compared_with_onnx_runtime(wrong_rows: None, tmp_path: Path) -> None:
    path = saved(model("(float[N, 3] x, float[3] y) => (z, w) { z = Sub (x, y) w = Exp (x) }"), tmp_path)
    report = irc.check(path, settings=irc.driver.Settings(dims={"N": 2}))
    assert stages(report) == {"original": False, "import": True, "passes": True}
    assert [output.passed for output in report.stages[0].outputs] == [False, True]


def test_a_model_is_known_by_its_ending_in_any_case(wrong_rows: None, tmp_path: Path) -> None:
    path = saved(model("(float[2, 3] x, float[3] y) => (z) { z = Sub (x, y) }"), tmp_path)
    assert stages(irc.check(path.rename(tmp_path / "MODEL.ONNX")))["original"] is False


def test_what_is_imported_is_compared_with_pytorch(wrong_rows: None, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("""
import torch
def program():
    B = torch.export.Dim("B", min=1, max=9)
    return Mine(), (torch.rand(3), torch.rand(2, 3)), ({}, {0: B})
class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.weight = torch.nn.Parameter(torch.rand(3))
    def forward(self, x, y):
        self.seen.add_(y.sum(0))
        return y.max(0), (self.weight * y - x).to(torch.bfloat16), x.shape[0]
""")
    report = irc.check(f"{tmp_path}/mine.py:program", settings=irc.driver.Settings(dims={"B": 4}))
    wrong = [output.output for output in report.stages[0].outputs if not output.passed]
    assert report.stages[0].stage == "original" and wrong == ["_to_copy"] and len(report.stages[0].outputs) == 4


def test_a_model_that_does_not_run_elsewhere_is_checked_without(tmp_path: Path) -> None:
    graph = "(bfloat16[3] x) => (bfloat16[3] y) { y = Sqrt (x) }"
    done = irc_process("check", saved(model(graph), tmp_path), folder=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("      the original model does not run: ")
    assert "original  " not in done.out


def test_random_outputs_are_not_compared(tmp_path: Path) -> None:
    graph = "(float[300] x) => (y, z) { r = RandomNormalLike (x) y = Add (x, r) z = Neg (x) }"
    report = irc.check(saved(model(graph), tmp_path))
    assert [output.output for output in report.stages[0].outputs] == ["z"] and report.passed


def test_external_data_is_found(tmp_path: Path) -> None:
    proto = model("(float[2] x) => (y) { y = Add (x, w) }")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1, 2]), "w"))
    (tmp_path / "inner").mkdir()
    onnx.save(proto, tmp_path / "inner" / "model.onnx", save_as_external_data=True, size_threshold=0)
    assert stages(irc.check(tmp_path / "inner" / "model.onnx"))["original"] is True


def test_large_integers_differ() -> None:
    assert relative_error(np.int64([2**62 + 1]), np.int64([2**62])) > 0
    assert relative_error(np.uint64([2**64 - 1]), np.uint64([2**64 - 2])) > 0
    assert relative_error(np.int64([2**62]), np.int64([2**62])) == 0


# -- reduce ----------------------------------------------------------------------------------------------------


@cache
def fuzzed(kind: str, index: int) -> Any:
    program = program_of(Job(kind, 78, index, chosen("-special floats,-narrow floats,-integer limits")))
    return program if program.size >= 6 else None


def failing(kind: str, folder: Path) -> Any:
    """Programs with the mistake, as files, and their inputs."""
    for index in count():
        program = fuzzed(kind, index)
        if program is None or (" - " not in program.text and "Sub" not in program.text):
            continue
        place = folder / str(index)
        place.mkdir()
        program.save(place)
        try:
            if not stages(irc.check(f"{place}/{program.source}", place / "inputs.0.npz")).get("original", True):
                yield f"{place}/{program.source}", place / "inputs.0.npz"
        except IrcError as error:
            assert error.code in ("torch.unsupported", "torch.export")


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_wrong_import_is_reduced(kind: str, wrong_rows: None, tmp_path: Path) -> None:
    for number, (source, inputs) in enumerate(islice(failing(kind, tmp_path), PROGRAMS)):
        report = irc.reduce(source, tmp_path / f"small{number}", inputs)
        assert report.after <= 3 and report.failure == "values differ at original" and report.finished
        assert report.checks < CHECKS
        program, arrays, command = report.files
        assert not stages(irc.check(program, arrays))["original"]
        assert shlex.split(Path(command).read_text())[3:6] == ["irc", "check", program]


IF = """(float[3] x, float[3] w, bool c) => (y, u) {
    a = Tanh (x) b = Exp (a) u = Neg (b)
    d = If (c) <then_branch = t () => (o) { g = Abs (b) o = Sub (g, w) },
                 else_branch = e () => (p) { p = Identity (b) }>
    y = Add (d, d)
}"""
LOOP = """(float[3] x, float[3] w, int64 n, bool c) => (y) {
    a = Tanh (x) b = Exp (a)
    y = Loop (n, c, b) <body = t (int64 i, bool g, float[3] s) => (h, o) {
        h = Identity (g) k = Abs (s) o = Sub (k, w) }>
}"""


@pytest.mark.parametrize("graph", [IF, LOOP])
def test_what_is_inside_is_taken_out(graph: str, wrong_rows: None, tmp_path: Path) -> None:
    given = {"x": np.float32([1, 2, 3]), "w": np.float32([4, 4, 4]), "c": np.bool_(True), "n": np.int64(2)}
    proto = model(graph)
    inputs = {value.name: given[value.name] for value in proto.graph.input}
    report = irc.reduce(saved(proto, tmp_path), tmp_path / "small", inputs)
    small = onnx.load(tmp_path / "small" / "program.onnx")
    assert [node.op_type for node in small.graph.node] == ["Sub"] and report.after == 1


def test_what_a_subgraph_reads_becomes_an_input(tmp_path: Path) -> None:
    original = OnnxOriginal.read(saved(model(IF), tmp_path))
    original.give({"x": np.float32([1, 2, 3]), "w": np.float32([4, 4, 4]), "c": np.bool_(True)})
    small = original.part([3])
    assert list(small.inputs) == ["c", "b", "w"] and [value.name for value in small.model.graph.output] == ["d"]
    assert original.size == 8 and small.size == 4
    np.testing.assert_array_equal(small.outputs()[0], original.arrays["d"])


def test_what_is_not_imported_is_reduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(x: Any, /) -> Any:
        return ops.reshape(x, shape=(7, 7, 7))

    monkeypatch.setitem(onnx_importer.TABLE.rows, ("", "Tanh"), [OnnxRow(refuse, "Tanh", 1, "")])
    path = saved(model("(float[3] x) => (y) { a = Exp (x) b = Tanh (a) y = Neg (b) }"), tmp_path)
    write_arrays(tmp_path / "in.npz", {"x": np.float32([1, 2, 3])})
    report = irc.reduce(path, tmp_path / "small", tmp_path / "in.npz")
    assert report.after == 1 and report.failure == "the check raises type.shape"
    with pytest.raises(IrcError, match=r"type\.shape"):
        irc.reduce(path, tmp_path / "other")  # without inputs there is nothing to compare


def test_a_model_that_is_wrong_itself_is_refused(tmp_path: Path) -> None:
    path = saved(model("(float[3] x) => (y) { a = Reshape (x, s) y = Neg (a) }"), tmp_path)
    with pytest.raises(IrcError, match=r"onnx\."):
        irc.reduce(path, tmp_path / "small", {"x": np.float32([1, 2, 3])})
