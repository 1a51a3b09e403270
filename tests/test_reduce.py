"""irc reduce: from a model that fails a check to the least of it that fails in the same way."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc.diagnostics import IrcError
from irc.driver import reducing
from irc.driver.models import Settings
from irc.driver.reducing import Failure
from irc.driver.resizing import resized
from irc.driver.slicing import Part
from irc.module import Module
from irc.verifier import verify
from tests import planted
from tests.command_line import EXAMPLES, irc_here, irc_process
from tests.onnx_models import imported

BLOCK = f"{EXAMPLES / 'block.py'}:block"
SIZES = Settings(dims={"B": 2, "S": 3})


def plant(folder: Path, text: str, name: str = "planted.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def operations(folder: Path) -> list[str]:
    """What the reduced program computes with, after verifying it."""
    module = irc.load(folder / "program.irc")
    verify(module)
    return [op.name for op in module.walk() if op.name != "const" and not op.definition.is_terminator]


def check_again(folder: Path, **options: Any) -> tuple[str, str | None]:
    """The stage and the kind of operation at which the reduced program fails."""
    report = irc.check(folder / "program.irc", folder / "inputs.npz", each=True, **options)
    failed = next(stage for stage in report.stages if not stage.passed)
    return failed.stage, failed.first_kind


# -- planted miscompiles ---------------------------------------------------------------------------------------


def test_a_pass_with_a_mistake(tmp_path: Path) -> None:
    """The example's planted bug: a softmax is what it changes."""
    settings = Settings(dims={"M": 2, "N": 3}, loads=[str(EXAMPLES / "planted_bug.py")])
    model = f"{EXAMPLES / 'block.py'}:scores"
    report = irc.reduce(model, tmp_path / "small", pipeline="legalize,sharpen,fuse", settings=settings)
    assert report.before == 3 and report.after == 1 and report.finished
    assert report.failure == "values differ at sharpen, first at softmax"
    again = check_again(tmp_path / "small", pipeline="legalize,sharpen,fuse", settings=Settings(loads=settings.loads))
    assert again == ("sharpen", "softmax")
    assert operations(tmp_path / "small") == ["softmax"]


def test_a_rule_with_a_mistake(tmp_path: Path) -> None:
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_RULE))], dims={"N": 4})
    pipeline = "canonicalize,rewrite,cse"
    report = irc.reduce(planted.long_model(), tmp_path / "small", pipeline=pipeline, settings=settings)
    assert report.before == 42 and report.failure == "values differ at rewrite, first at matmul"
    assert operations(tmp_path / "small") == ["add", "matmul"] and report.after == 2


@pytest.mark.parametrize(
    "text, options, kept, failure",
    [
        (planted.WRONG_GUARD, ["-p", "canonicalize,rewrite,cse", "--specialize", "B=1", "--dim", "S=5"],
         ["transpose"], "values differ at rewrite, first at transpose"),
        (planted.WRONG_VALUES, ["-p", "clean,rewrite", "--dim", "S=5"], ["mul", "sqrt"],
         "values differ at rewrite, first at sqrt"),
        (planted.WRONG_FUSION, ["-p", "default,broken", "--dim", "S=5"], ["sqrt", "tanh"],
         "values differ at broken, first at tanh"),
        (planted.WRONG_BACKEND, ["--backend", "onnx", "--dim", "S=5"], ["tanh"], "values differ at onnx"),
        pytest.param(planted.WRONG_KERNELS, ["--backend", "triton", "--dim", "S=5"], ["reduce_mean"],
                     "values differ at triton", marks=pytest.mark.slow),
    ],
    ids=["shapes", "values", "fusion", "onnx", "triton"],
)  # fmt: skip
def test_mistakes_in_an_onnx_model(
    text: str, options: list[str], kept: list[str], failure: str, tmp_path: Path
) -> None:
    """Two layers of a transformer from an ONNX file; mistakes that show for some shapes or values, or when it runs."""
    onnx.save(planted.encoder(), tmp_path / "encoder.onnx")
    plant(tmp_path, text)
    done = irc_process("reduce", "encoder.onnx", *options, "--load", "planted.py", "-o", "small", folder=tmp_path)
    assert done.code == 0, done.err
    first, files = done.out.splitlines()
    assert first.startswith("48 ops -> ") and failure in first
    assert files == "small/program.irc  small/inputs.npz  small/command"
    assert len(operations(tmp_path / "small")) <= 3
    if failure != "values differ at triton":  # where the kernel of several kinds of operation would do
        assert operations(tmp_path / "small") == kept
    again = irc_process("check", *shlex.split((tmp_path / "small" / "command").read_text())[5:], folder=tmp_path)
    assert again.code == 1 and f"FAIL  {failure.split()[3].strip(',')}" in again.out


def test_a_pass_that_crashes(tmp_path: Path) -> None:
    plant(tmp_path, planted.CRASH, "careless.py")
    done = irc_here("reduce", BLOCK, "--dim", "B=2", "--dim", "S=3", "--load", "careless.py", "-p", "careless",
                    "-o", "out", "--json", folder=tmp_path)  # fmt: skip
    report = json.loads(done.out)
    assert report["schema"] == "irc.reduce/1" and report["after"] == 2
    assert report["failure"] == "the check raises pass.raised: AssertionError in careless"
    assert operations(tmp_path / "out") == ["gelu", "matmul"]


FAR = """
from dataclasses import dataclass
from irc.pass_manager import Pass

@dataclass
class Far(Pass):
    \"\"\"Fails at a softmax that depends on a tanh.\"\"\"
    def run(self, module, context):
        below = set()
        for operation in module.main.block:
            if operation.name == "tanh" or below.intersection(operation.inputs):
                below.update(operation.results)
                if operation.name == "softmax":
                    raise ValueError(operation)
        return False
"""


def test_what_stands_between_gives_way(tmp_path: Path) -> None:
    plant(tmp_path, FAR)
    settings = Settings(loads=[str(tmp_path / "planted.py")], dims={"N": 4})
    model = irc.trace(lambda x, w: softmax_behind(x, w), "f32[N, 8]", "f32[8, 8]")
    report = irc.reduce(model, tmp_path / "small", pipeline="far", settings=settings)
    assert operations(tmp_path / "small") == ["tanh", "softmax"] and report.after == 2


def softmax_behind(x: Any, w: Any) -> Any:
    from irc import ops

    y = ops.tanh(x)
    for _ in range(4):
        y = ops.add(ops.mul(y, 0.5), ops.sigmoid(y))
    return ops.softmax(ops.relu(y)), ops.matmul(x, w)


# -- regions and functions -------------------------------------------------------------------------------------


LOOP = """(float[N, 3] x, int64 n, bool go) => (y) {
    h = Neg (x)
    y = Loop (n, go, h) <body = b (int64 i, bool c, float[N, 3] a) => (d, o) {
        d = Identity (c)
        e = Tanh (a)
        f = Mul (e, e)
        g = Sqrt (f)
        o = Add (g, a)
    }>
}"""
IF = """(float[N, 3] x, bool go) => (y) {
    h = Neg (x)
    y = If (go) <then_branch = t () => (o) { f = Mul (h, h) g = Sqrt (f) o = Add (g, h) },
                 else_branch = e () => (p) { p = Exp (h) }>
}"""
CALL = """irc text 1
module @m {
  func @main<N in [1, 9]>(%x: f32[N, 3]) -> (z: f32[N, 3]) {
    %h = neg %x : f32[N, 3]
    %y = call @roots %h : f32[N, 3]
    %z = exp %y : f32[N, 3]
    return %z
  }
  func @roots<M in [1, 99]>(%a: f32[M, 3]) -> f32[M, 3] {
    %f = mul %a, %a : f32[M, 3]
    %g = sqrt %f : f32[M, 3]
    %o = add %g, %a : f32[M, 3]
    return %o
  }
}
"""


def regions() -> dict[str, Module]:
    from irc.parser import parse

    call = parse(CALL)
    return {"loop": imported(LOOP), "if": imported(IF), "call": call}


@pytest.mark.parametrize("name", ["loop", "if", "call"])
def test_what_is_inside_is_taken_out(name: str, tmp_path: Path) -> None:
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_VALUES))])
    x = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    given = {"x": x, "n": np.int64(3), "go": np.bool_(True)}
    module = regions()[name]
    inputs = {argument.name: given[argument.name] for argument in module.main.arguments}
    report = irc.reduce(module, tmp_path / "small", inputs, pipeline="rewrite", settings=settings)
    assert operations(tmp_path / "small") == ["mul", "sqrt"] and report.after == 2
    assert report.failure == "values differ at rewrite, first at sqrt"
    assert check_again(tmp_path / "small", pipeline="rewrite", settings=settings) == ("rewrite", "sqrt")


# -- the same failure ------------------------------------------------------------------------------------------


def test_failures_that_are_alike() -> None:
    wrong = Failure("fuse", "softmax")
    assert wrong.is_like(Failure("fuse", "softmax")) and wrong.is_like(Failure("fuse"))
    assert wrong.is_like(Failure("fuse", "div"), {"div"}) and not wrong.is_like(Failure("fuse", "div"), {"add"})
    assert not any(map(wrong.is_like, (None, Failure("fuse", "add"), Failure("fold", "softmax"))))
    raised = Failure(error="internal.pass: ValueError in fold")
    assert not raised.is_like(Failure(error="internal.pass: KeyError in fold"))


def test_another_failure_does_not_lead_astray(tmp_path: Path) -> None:
    """A second mistake, of another kind of operation in the same pass, would be smaller."""
    plant(tmp_path, planted.WRONG_VALUES + '''
@rewrite(numerics="exact")
def wrong_tanh(x):
    """tanh(x)  ->  x"""
    from irc.ops import tanh
    return tanh(x), mul(x, 1.0)
''')
    model = irc.trace(lambda x: root_and_tanh(x), "f32[N, 8]")
    settings = Settings(loads=[str(tmp_path / "planted.py")], dims={"N": 4})
    report = irc.reduce(model, tmp_path / "small", pipeline="rewrite", settings=settings)
    assert report.failure == "values differ at rewrite, first at sqrt"
    assert operations(tmp_path / "small") == ["mul", "sqrt"]


def root_and_tanh(x: Any) -> Any:
    """In halves: the first has no mistake, and the second only that of tanh."""
    from irc import ops

    square, below = ops.mul(x, x), ops.neg(x)
    return ops.sqrt(square, name="root"), ops.tanh(below, name="t")


def test_a_run_that_fails_is_reduced_to_what_fails(tmp_path: Path) -> None:
    """An index out of range: what ran before it is recorded."""
    module = imported("(float[4, 3] x, int64[2] i) => (y) { a = Exp (x) b = Neg (a) c = Gather (b, i) y = Tanh (c) }")
    inputs = {"x": np.ones((4, 3), np.float32), "i": np.array([0, 7])}
    report = irc.reduce(module, tmp_path / "small", inputs)
    assert report.failure == "the check raises run.index" and operations(tmp_path / "small") == ["gather"]


# -- the command -----------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path) -> None:
    """The same bytes under every hash seed, and a command that shows the failure from anywhere."""
    rules = plant(tmp_path, planted.WRONG_RULE)
    (tmp_path / "model.irc").write_text(str(planted.long_model()))
    written = []
    for seed in ("0", "1"):
        arguments = "reduce", "model.irc", "-p", "rewrite", "--load", rules, "--dim", "N=4", "-o", f"small{seed}"
        done = irc_process(*arguments, folder=tmp_path, environment={"PYTHONHASHSEED": seed})
        assert done.code == 0, done.err
        assert "42 ops -> 2 ops, values differ at rewrite" in done.out
        written.append([(tmp_path / f"small{seed}" / name).read_bytes() for name in ("program.irc", "inputs.npz")])
    assert written[0] == written[1]
    folder, command = (tmp_path / "small0" / "command").read_text().strip().split(" && ")
    assert folder == f"cd {tmp_path}"
    again = irc_process(*shlex.split(command)[1:], folder=Path("/"))
    assert again.code == 1 and "FAIL  rewrite" in again.out


def test_extents_become_small(tmp_path: Path) -> None:
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_RULE))], dims={"N": 4})
    irc.reduce(planted.long_model(), tmp_path / "small", pipeline="rewrite", settings=settings)
    arguments = irc.load(tmp_path / "small" / "program.irc").main.arguments
    assert [value.shape for value in arguments] == [(2, 2)] * 3


def test_inputs_without_a_rank_get_theirs(tmp_path: Path) -> None:
    """A scalar stays one while other extents shrink."""
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_VALUES))])
    text = """irc text 1
module @m {
  func @main(%x: f32[*], %s: f32[]) -> (y: f32[*]) {
    %a = mul %x, %s : f32[*]
    %b = mul %a, %a : f32[*]
    %y = sqrt %b : f32[*]
    return %y
  }
}
"""
    (tmp_path / "m.irc").write_text(text)
    inputs = {"x": np.linspace(-9, 9, 30, dtype=np.float32).reshape(5, 6), "s": np.float32(2)}
    irc.reduce(tmp_path / "m.irc", tmp_path / "small", inputs, pipeline="rewrite", settings=settings)
    module = irc.load(tmp_path / "small" / "program.irc")
    assert [value.shape for value in module.main.arguments] == [(2, 2)] and module.main.returned[0].shape == (2, 2)
    part = Part(irc.load(tmp_path / "m.irc"), inputs)
    assert [value.shape for value in resized(part, 6, 3).module.main.arguments] == [(5, 3), ()]


def test_what_does_not_fail_is_not_reduced(tmp_path: Path) -> None:
    done = irc_here("reduce", BLOCK, "--dim", "B=2", "--dim", "S=3", "-o", "small", folder=tmp_path)
    assert done.code == 2 and "check.passes" in done.err and not (tmp_path / "small").exists()


def test_the_smallest_so_far_is_taken(tmp_path: Path) -> None:
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_RULE))], dims={"N": 4})
    report = irc.reduce(planted.long_model(), tmp_path / "small", pipeline="rewrite", seconds=0.0, settings=settings)
    assert not report.finished and report.after == report.before
    # Its symbol is still there, and so is the size for it.
    assert (tmp_path / "small" / "command").read_text().endswith(" --dim N=4\n")
    assert check_again(tmp_path / "small", pipeline="rewrite", settings=settings)[0] == "rewrite"


def test_an_interrupt_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, calls = reducing.check, []

    def impatient(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return check(*arguments, **options)

    monkeypatch.setattr(reducing, "check", impatient)
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_RULE))], dims={"N": 4})
    report = irc.reduce(planted.long_model(), tmp_path / "small", pipeline="rewrite", settings=settings)
    assert not report.finished and 2 < report.after < report.before == 42 and len(calls) == 6
    assert len(operations(tmp_path / "small")) == report.after
    monkeypatch.undo()
    assert check_again(tmp_path / "small", pipeline="rewrite", settings=settings)[0] == "rewrite"


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["missing.onnx"], "file.missing"),
        ([BLOCK, "-p", "nonsense"], "pass.unknown"),
        ([BLOCK, "--load", "missing.py"], "file.missing"),
        ([BLOCK, "--backend", "onnx", "--target", "sm_90"], "usage.backend"),
        ([BLOCK, "--dim", "X=1"], "dim.unbound"),
        ([BLOCK, "--input", "missing.npz"], "file.missing"),
        ([BLOCK, "--seconds", "soon"], "usage.arguments"),
    ],
)
def test_mistakes(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = irc_here("reduce", *arguments, folder=tmp_path)
    assert done.code in (2, 3) and code in done.err and not list(tmp_path.iterdir())


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    plant(tmp_path, planted.WRONG_RULE)
    (tmp_path / "model.irc").write_text(str(planted.long_model()))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    command = ("reduce", "model.irc", "-p", "rewrite", "--load", "planted.py", "--dim", "N=4", "-o")
    done = irc_here(*command, "mine", folder=tmp_path)
    assert done.code == 2 and "file.exists" in done.err and (tmp_path / "mine" / "notes").read_text() == "keep"
    for _ in range(2):  # what reduce wrote itself, it writes again
        assert irc_here(*command, "small", folder=tmp_path).code == 0
    names = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}  # Python's own, of planted.py
    assert names == {"mine", "model.irc", "planted.py", "small"}


def test_nothing_is_left_of_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reducing, "write_arrays", full)
    settings = Settings(loads=[str(plant(tmp_path, planted.WRONG_RULE))], dims={"N": 4})
    with pytest.raises(IrcError, match=r"file\.unreadable"):
        irc.reduce(planted.long_model(), tmp_path / "small", pipeline="rewrite", settings=settings)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["planted.py"]


def test_operations_in_regions_count() -> None:
    assert Part(imported(LOOP), {}).size == 6  # neg, loop, and four inside


# -- properties ------------------------------------------------------------------------------------------------


def kept(tmp_path: Path, model: Any, *keep: str, **options: Any) -> tuple[list[str], Any]:
    report = irc.reduce(model, tmp_path / "small", keep=keep, **options)
    assert report.finished and report.failure == f"it has {' and '.join(keep)}"
    return operations(tmp_path / "small"), report


@pytest.mark.parametrize("text, most", [("launches>=3", 5), ("launches=4", 8), ("library_calls>=2", 2),
                                        ("launches >= 1", 1), ("flops>1e3", 3)])  # fmt: skip
def test_a_figure_is_kept(text: str, most: int, tmp_path: Path) -> None:
    names, report = kept(tmp_path, BLOCK, text, settings=SIZES)
    assert 1 <= len(names) <= most and report.after == len(names) < report.before
    figures = irc.kernels(tmp_path / "small" / "program.irc")
    name, number = text.split(">" if ">" in text else "=")[0].strip(), float(text.split("=")[-1].split(">")[-1])
    assert getattr(figures, name) == number if "=" in text and ">" not in text else getattr(figures, name) >= number
    again = irc_here(*shlex.split((tmp_path / "small" / "command").read_text())[4:], folder=tmp_path)
    assert again.code == 0 and "launch" in again.out


def test_a_reduction_that_keeps_a_figure_is_deterministic(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        irc.reduce(BLOCK, tmp_path / name, keep=["launches>=2"], settings=SIZES)
        texts.append((tmp_path / name / "program.irc").read_text())
    assert texts[0] == texts[1]


def test_a_merge_that_a_rule_forbids_is_kept(tmp_path: Path) -> None:
    names, _ = kept(tmp_path, BLOCK, "refused:F1", settings=SIZES)
    assert 3 <= len(names) <= 5  # two kernels, and what stands between them


def test_what_is_slower_than_another_pipeline_is_kept(tmp_path: Path) -> None:
    names, _ = kept(tmp_path, BLOCK, "slower-than=1.05:default", pipeline="default{fuse.policy=none}", settings=SIZES)
    assert 2 <= len(names) <= 4


def test_an_error_is_kept_and_others_are_not(tmp_path: Path) -> None:
    plant(tmp_path, planted.CRASH, "careless.py")
    settings = Settings(dims={"B": 2, "S": 3}, loads=[str(tmp_path / "careless.py")])
    names, _ = kept(tmp_path, BLOCK, "error:pass.raised", pipeline="careless", settings=settings)
    assert names == ["gelu", "matmul"]
    with pytest.raises(IrcError, match=r"check\.passes"):
        irc.reduce(BLOCK, tmp_path / "none", keep=["error:run.shape"], pipeline="careless", settings=settings)


@pytest.mark.parametrize(
    "text", ["launches", "launches>=", "lunches>=3", "refused:F99", "refused", "slower-than=", "faster"]
)
def test_what_is_no_property_is_an_error(text: str, tmp_path: Path) -> None:
    done = irc_here("reduce", BLOCK, "--keep", text, folder=tmp_path)
    assert done.code == 2 and "error[usage.value]: --keep" in done.err and not (tmp_path / "reduced").exists()


def test_a_model_without_the_property_is_not_reduced(tmp_path: Path) -> None:
    done = irc_here("reduce", BLOCK, "--keep", "launches>=300", folder=tmp_path)
    assert "error[check.passes]: the model does not have launches>=300" in done.err
