"""Names and comments in generated Triton programs: those of the source, or what a thing is."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

pytest.importorskip("triton")

import irc
from irc import ops
from irc.op import literal

ANONYMOUS = """irc text 1
module @m {
  func @main(%0: f32[4, 16], %1: f32[16], %2: f32[16, 16]) -> f32[4, 16] {
    %3 = mul %0, %1 : f32[4, 16]
    %4 = softmax %3 {axis = -1} : f32[4, 16]
    %5 = matmul %4, %2 : f32[4, 16]
    %6 = layer_norm %5, %1, %1 : f32[4, 16]
    return %6
  }
}
"""


def written(source: irc.Module | Path, folder: Path) -> tuple[str, str]:
    """kernels.py and program.py of a module."""
    irc.compile(source, backend="triton", output=folder)
    return (folder / "kernels.py").read_text("utf-8"), (folder / "program.py").read_text("utf-8")


def test_what_has_no_name_is_called_after_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(ANONYMOUS, "utf-8")
    kernels, program = written(tmp_path / "m.irc", tmp_path / "out")
    assert re.findall(r"^def (\w+)\(", kernels, re.MULTILINE) == ["mul_softmax", "layer_norm"]
    assert "def main(weights, externs, device, x, x_1, x_2):" in program
    assert "matmul = host.matmul(mul_softmax, x_2)" in program and "value" not in program
    assert "layer_norm(matmul_ptr, " in kernels


def test_an_argument_is_called_after_the_operand_that_it_is_read_as(tmp_path: Path) -> None:
    text = ANONYMOUS.replace("mul %0, %1", "layer_norm %0, %1, %1")
    (tmp_path / "m.irc").write_text(text, "utf-8")
    kernels, _ = written(tmp_path / "m.irc", tmp_path / "out")
    assert "def layer_norm_softmax(x_ptr, scale_ptr, " in kernels


def test_names_of_the_source_stay(tmp_path: Path) -> None:
    module = irc.trace(
        lambda x, bias: ops.softmax(ops.add(x, bias, name="shifted"), name="scores"), "f32[3, 5]", "f32[5]"
    )
    kernels, program = written(module, tmp_path / "out")
    assert "def scores(x_ptr, bias_ptr, scores_ptr," in kernels and "launch(kernels.scores, x, bias, scores" in program


@pytest.mark.parametrize("operations, name", [
    (lambda x: ops.exp(x), "exp"),
    (lambda x: ops.exp(ops.exp(ops.exp(x))), "exp"),
    (lambda x: ops.tanh(ops.sqrt(ops.abs_(ops.mul(ops.exp(x), literal(2.0, x.dtype))))), "exp_mul_abs"),
    (lambda x: ops.reduce_sum(ops.square(x), axes=(1,)), "square_reduce_sum"),
])  # fmt: skip
def test_kernels_are_called_after_their_first_operations(operations: object, name: str, tmp_path: Path) -> None:
    kernels, _ = written(irc.trace(operations, "f32[3, 5]"), tmp_path / "out")  # type: ignore[arg-type]
    assert f"def {name}(x_ptr, out_ptr," in kernels


def module_of(folder: Path, *operations: tuple[str, str]) -> Path:
    """A module whose operations, on `%x: f32[8, 8]`, are each from a place; the last gives `%y`."""
    body = [f"    {text} : f32[8, 8] loc(#{number})" for number, (text, _) in enumerate(operations, 1)]
    places = [f"#{number} = loc({place})" for number, (_, place) in enumerate(operations, 1)]
    head = ["irc text 1", "module @m {", "  func @main(%x: f32[8, 8]) -> f32[8, 8] {"]
    path = folder / "m.irc"
    path.write_text("\n".join([*head, *body, "    return %y", "  }", "}", *places, ""]), "utf-8")
    return path


def test_a_comment_tells_the_places_that_a_kernel_is_from(tmp_path: Path) -> None:
    names = ["x", *"abcdef", "y"]
    chain = [(f"%{after} = exp %{before}", f'"net.py":{line}')
             for line, (before, after) in enumerate(itertools.pairwise(names), 3)]  # fmt: skip
    kernels, _ = written(module_of(tmp_path, *chain), tmp_path / "out")
    assert "\n# from net.py:3, net.py:4, net.py:5, net.py:6, and 3 more\n@triton.jit\ndef y(" in kernels


def test_a_hostile_place_stays_a_comment(tmp_path: Path) -> None:
    place = r'"net.py":9, "a\nimport os\r\"\"\"\u2028import os"'
    kernels, _ = written(module_of(tmp_path, ("%y = tanh %x", place)), tmp_path / "out")
    assert "# from net.py:9 (a" in kernels
    statements = [node for node in ast.walk(ast.parse(kernels)) if isinstance(node, ast.Import)]
    imported = {name.name for node in statements for name in node.names}
    assert imported == {"triton", "triton.language"}


def test_equal_kernels_tell_all_their_places(tmp_path: Path) -> None:
    operations = [("%a = exp %x", '"net.py":1'), ("%b = matmul %a, %x", "_"), ("%c = exp %b", '"net.py":2'),
                  ("%y = matmul %c, %x", "_")]  # fmt: skip
    kernels, program = written(module_of(tmp_path, *operations), tmp_path / "out")
    assert kernels.count("@triton.jit") == 1 and program.count("launch(kernels.a,") == 2
    assert "# from net.py:1, net.py:2\n" in kernels
