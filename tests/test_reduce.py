"""irc reduce and irc extract: parts of programs that run, and fail, by themselves."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.ir import Module
from irc.verifier import verify
from tests.command_line import EXAMPLES, irc_here, irc_process

BLOCK = f"{EXAMPLES / 'block.py'}:block"
SIZES = Settings(dims={"B": 2, "S": 3})
WRONG_RULE = '''
from irc.ops import add, matmul
from irc.rewrite import rewrite

@rewrite(numerics="exact")
def distribute(x, y, w):
    """(x + y) @ w  ->  x @ w + y: forgets a product."""
    return matmul(add(x, y), w), add(matmul(x, w), y)

@distribute.when
def square(w):
    return w.shape[0] == w.shape[1] or "the weight must be square"
'''
CRASH = """
from dataclasses import dataclass
from irc.pass_manager import Pass

@dataclass
class Careless(Pass):
    \"\"\"Fails at a gelu that a product reads.\"\"\"
    def run(self, module, context):
        for operation in module.walk():
            if operation.name == "matmul" and operation.inputs[0].operation is not None:
                assert operation.inputs[0].operation.name != "gelu"
        return False
"""


def part_of(folder: Path) -> Module:
    module = irc.load(folder / "program.irc")
    verify(module)
    return module


def computing(module: Module) -> list[str]:
    return [op.name for op in module.main.block if op.name != "const" and not op.definition.is_terminator]


def long_model() -> Module:
    """Forty-two operations, among them one (x + y) @ w with a square w."""

    def main(x: Any, y: Any, w: Any, v: Any) -> Any:
        from irc import ops

        for index in range(6):
            x = ops.tanh(ops.add(ops.mul(x, 0.5), ops.sigmoid(y)))
            y = ops.layer_norm(ops.add(y, x)) if index % 2 else ops.gelu(ops.sub(y, x))
        z = ops.matmul(ops.add(x, y, name="sum"), w, name="product")
        return ops.softmax(ops.matmul(ops.relu(z), v)), ops.reduce_mean(z, axes=(1,))

    return irc.trace(main, "f32[N, 8]", "f32[N, 8]", "f32[8, 8]", "f32[8, 5]")


def test_a_pass_with_a_mistake(tmp_path: Path) -> None:
    """The example's planted bug, in a transformer block: a softmax inside attention is what it changes."""
    settings = Settings(dims=SIZES.dims, loads=[str(EXAMPLES / "planted_bug.py")])
    report = irc.reduce(BLOCK, tmp_path / "small", pipeline="legalize,sharpen,fuse", settings=settings)
    assert report.before == 21 and report.after <= 3 and report.finished
    assert report.failure == "values part at sharpen"
    again = irc.check(tmp_path / "small" / "program.irc", tmp_path / "small" / "inputs.npz", each=True,
                      pipeline="legalize,sharpen,fuse", settings=Settings(loads=settings.loads))
    assert next(stage.stage for stage in again.stages if not stage.passed) == "sharpen"
    assert computing(part_of(tmp_path / "small")) == ["attention"]


def test_a_rule_with_a_mistake(tmp_path: Path) -> None:
    rules = tmp_path / "rules.py"
    rules.write_text(WRONG_RULE)
    settings = Settings(loads=[str(rules)], dims={"N": 4})
    report = irc.reduce(long_model(), tmp_path / "small", pipeline="canonicalize,rewrite,cse", settings=settings)
    assert report.before > 35 and report.failure == "values part at rewrite"
    assert computing(part_of(tmp_path / "small")) == ["add", "matmul"] and report.after == 2


def test_a_backend_with_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh is emitted as sinh, so that values part only where ONNX Runtime runs the model."""
    from irc.backends.onnx import table
    from irc.backends.onnx.row import Row

    row = table.ROWS["tanh"]
    monkeypatch.setitem(table.ROWS, "tanh", Row("tanh", lambda g, x: g.node("Sinh", x), row.takes))
    report = irc.reduce(long_model(), tmp_path / "small", backend="onnx", settings=Settings(dims={"N": 4}))
    assert report.failure == "values part at onnx"
    assert computing(part_of(tmp_path / "small")) == ["tanh"]


def test_a_pass_that_crashes(tmp_path: Path) -> None:
    careless = tmp_path / "careless.py"
    careless.write_text(CRASH)
    done = irc_here("reduce", BLOCK, "--dim", "B=2", "--dim", "S=3", "--load", careless, "-p", "careless", "-o", "out",
                    "--json", folder=tmp_path)
    report = json.loads(done.out)
    assert report["schema"] == "irc.reduce/1" and report["after"] == 2
    assert computing(part_of(tmp_path / "out")) == ["gelu", "matmul"]


def test_the_command_line(tmp_path: Path) -> None:
    """The same bytes under every hash seed, and a command that shows the failure from anywhere."""
    rules = tmp_path / "rules.py"
    rules.write_text(WRONG_RULE)
    (tmp_path / "model.irc").write_text(str(long_model()))
    written = []
    for seed in ("0", "1"):
        arguments = "reduce", "model.irc", "-p", "rewrite", "--load", rules, "--dim", "N=4", "-o", f"small{seed}"
        done = irc_process(*arguments, folder=tmp_path, environment={"PYTHONHASHSEED": seed})
        assert done.code == 0, done.err
        assert "42 ops -> 2 ops, values part at rewrite" in done.out
        written.append([(tmp_path / f"small{seed}" / name).read_bytes() for name in ("program.irc", "inputs.npz")])
    assert written[0] == written[1]
    folder, command = (tmp_path / "small0" / "command").read_text().strip().split(" && ")
    assert folder == f"cd {tmp_path}"
    again = irc_process(*shlex.split(command)[1:], folder=tmp_path)
    assert again.code == 1 and "FAIL  rewrite" in again.out


def test_what_does_not_fail_is_not_reduced(tmp_path: Path) -> None:
    done = irc_here("reduce", BLOCK, "--dim", "B=2", "--dim", "S=3", "-o", "small", folder=tmp_path)
    assert done.code == 2 and "check.passes" in done.err and not (tmp_path / "small").exists()


def test_the_smallest_so_far_is_taken(tmp_path: Path) -> None:
    rules = tmp_path / "rules.py"
    rules.write_text(WRONG_RULE)
    settings = Settings(loads=[str(rules)], dims={"N": 4})
    report = irc.reduce(long_model(), tmp_path / "small", pipeline="rewrite", seconds=0.0, settings=settings)
    assert not report.finished and report.after == report.before


# -- extract ---------------------------------------------------------------------------------------------------


WAYS = [(["%up"], ["%down"]), (["%q", "k"], ["%proj"]), ([], ["%hidden", "%attended"])]


@pytest.mark.parametrize("start, stop", WAYS)
def test_extracted_parts_compute_what_they_computed(start: list[str], stop: list[str], tmp_path: Path) -> None:
    path = tmp_path / "part.irc"
    report = irc.extract(BLOCK, start, stop, path, settings=SIZES)
    assert report.outputs == tuple(name.removeprefix("%") for name in stop)
    assert all(name.removeprefix("%") in report.inputs for name in start)
    found = irc.run(path, path.with_suffix(".npz")).outputs
    whole = irc.load(BLOCK)
    watched = {}

    def keep(operation: Any, results: Any) -> None:
        watched.update(zip((value.name for value in operation.results), results, strict=True))

    from irc import interpreter
    from irc.driver.arrays import given_inputs

    interpreter.run(whole, given_inputs(whole.main, None, SIZES.dims, 0), observe=keep)
    for name in report.outputs:
        np.testing.assert_array_equal(found[name], watched[name])


def test_sizes_that_no_input_tells_become_numbers(tmp_path: Path) -> None:
    """%n has the size of x, which the part does not read; symbols born inside stay."""
    text = """irc text 1
module @m {
  func @main<S in [1, 64]>(%x: f32[S, 4], %n: i64[]) -> (z: f32[4]) {
    %h = reduce_sum %x {axes = [0], keep_dims = false} : f32[4]
    %size = dim {value = S} : i64[]
    %scale = cast %size {to = f32} : f32[]
    %y = mul %h, %scale : f32[4]
    %z = exp %y : f32[4]
    return %z
  }
}
"""
    (tmp_path / "m.irc").write_text(text)
    done = irc_here("extract", "m.irc", "--from", "%h", "--to", "%z", "--dim", "S=3", folder=tmp_path)
    assert done.code == 0, done.err
    assert "wrote extract.irc   2 ops" in done.out
    module = irc.load(tmp_path / "extract.irc")
    assert [argument.name for argument in module.main.arguments] == ["h", "scale"]
    done = irc_here("extract", "m.irc", "--from", "%x", "--to", "%z", "--dim", "S=3", folder=tmp_path)
    assert done.code == 0 and [a.name for a in irc.load(tmp_path / "extract.irc").main.arguments] == ["x", "scale"]


def test_after_a_pass_kernels_are_taken_whole(tmp_path: Path) -> None:
    done = irc_here("extract", f"{EXAMPLES / 'block.py'}:scores", "--after", "fuse", "--to", "%p", folder=tmp_path)
    assert done.code == 2 and "inside a region" in done.err
    done = irc_here("extract", f"{EXAMPLES / 'block.py'}:scores", "--after", "fuse", "--to", "%y", folder=tmp_path)
    assert done.code == 0, done.err
    assert computing(irc.load(tmp_path / "extract.irc")) == ["kernel"]


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--from", "%nothing", "--to", "%out"], "text.undefined_name"),
        (["--from", "%out", "--to", "%up"], "usage.arguments"),
        (["--from", "%up"], "usage.arguments"),
        (["--to", "%up", "-o", "part.onnx"], "usage.arguments"),
    ],
)
def test_mistakes(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = irc_here("extract", BLOCK, *arguments, "--dim", "B=2", "--dim", "S=3", folder=tmp_path)
    assert done.code in (2, 3) and code in done.err and not list(tmp_path.iterdir())


def test_reducing_needs_a_known_model(tmp_path: Path) -> None:
    with pytest.raises(IrcError, match=r"file\.missing"):
        irc.reduce(tmp_path / "none.onnx", tmp_path / "small")
