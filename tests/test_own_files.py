"""A user's own files: operations through every verb, and mistakes in them as coded errors that name the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.module import difference
from irc.user_files import load_user_object
from tests.command_line import Result, irc_here

OWN = '''
from typing import Literal

import numpy as np

import irc
from irc.op import Float, op
from irc.ops import add, exp, maximum, mul, reduce_max, reduce_min, reduce_sum, sigmoid, softmax, sub, tanh


@op
def gate(x: Float, g: Float, /, *, beta: float = 1.0):
    """g * x * sigmoid(beta * x)."""
    return mul(mul(x, sigmoid(mul(x, beta))), g)


@op
def squashed(x: Float, w: Float, b: Float = None, /, *, axis: int = -1, kind: Literal["tanh", "sigmoid"] = "tanh"):
    """softmax of x * w + b, squashed."""
    y = mul(x, w)
    y = softmax(y if b is None else add(y, b), axis=axis)
    return tanh(y) if kind == "tanh" else sigmoid(y)


@op
def extremes(x: Float, /, *, axes: tuple[int, ...] = (-1,)):
    """Least and largest elements."""
    return reduce_min(x, axes=axes), reduce_max(x, axes=axes)


def used():
    def program(x, w, b):
        low, high = extremes(gate(x, w, beta=0.3, name="gated"))
        s = squashed(x, w, b, kind="sigmoid", name="s")
        return add(s, squashed(x, w, axis=0), name="y"), sub(high, low, name="d")

    return irc.trace(program, "f32[B, 8]", "f32[B, 8]", "f32[8]")


def spelled():
    def program(x, w, b):
        low_high = mul(w, mul(sigmoid(mul(0.3, x)), x), name="gated")
        low, high = reduce_min(low_high, axes=(1,)), reduce_max(low_high, axes=(1,))
        first = sigmoid(softmax(add(b, mul(w, x)), axis=1), name="s")
        return add(first, tanh(softmax(mul(w, x), axis=0)), name="y"), sub(high, low, name="d")

    return irc.trace(program, "f32[B, 8]", "f32[B, 8]", "f32[8]")


def shared():
    def program(x, g):
        s = sigmoid(mul(x, 0.1))
        return add(mul(mul(x, s), g), s)

    return irc.trace(program, "f32[B, 8]", "f32[B, 8]")
'''
DIMS = {"B": 3}


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def fine(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


def operations(module: Any) -> list[str]:
    return [operation.name for operation in module.walk()]


def test_text_with_own_operations_parses_back(folder: Path) -> None:
    fine(irc_here("print", "own.py:used", "-o", "used.irc", folder=folder))
    back = irc.load(folder / "used.irc", loads=[str(folder / "own.py")])
    assert difference(back, load_user_object(f"{folder}/own.py:used")()) is None
    unknown = irc_here("print", "used.irc", folder=folder)
    assert unknown.code == 3 and "text.unknown_op" in unknown.err and "--load FILE.py" in unknown.err


def test_verbs_take_own_operations(folder: Path) -> None:
    """run, check, extract, doc, kernels, explain and compile, from text."""
    load = ("--load", "own.py")
    fine(irc_here("print", "own.py:used", "-o", "used.irc", folder=folder))
    for backend in ("onnx", "triton"):
        fine(irc_here("check", "used.irc", *load, "--backend", backend, "--dim", "B=3", folder=folder))
    assert "gate" in fine(irc_here("explain", "used.irc", "%gated", *load, folder=folder)).out
    fine(irc_here("kernels", "used.irc", *load, folder=folder))
    extracted = fine(irc_here("extract", "used.irc", *load, "--to", "%gated", folder=folder))
    command = extracted.out.splitlines()[1].removeprefix("run it: irc ").split()
    assert "float32" in fine(irc_here(*command, folder=folder)).out
    page = fine(irc_here("doc", "gate", *load, folder=folder)).out
    assert "g * x * sigmoid(beta * x)." in page and f"{folder}/own.py:11" in page
    assert "\ngate " in fine(irc_here("doc", "ops", *load, folder=folder)).out


def test_artefacts_of_own_operations_need_no_file(folder: Path) -> None:
    """An artefact holds what it computes, not the names of operations that a file declares."""
    fine(irc_here("compile", "own.py:used", "--backend", "triton", "-o", "artefact", folder=folder))
    fine(irc_here("compile", "own.py:used", "--keep-kernels", "-o", "used.onnx", folder=folder))
    module = load_user_object(f"{folder}/own.py:used")()
    generator = np.random.default_rng(0)
    arrays = {name: generator.standard_normal(shape).astype(np.float32)
              for name, shape in (("x", (3, 8)), ("w", (3, 8)), ("b", (8,)))}  # fmt: skip
    np.savez(folder / "in.npz", **arrays)
    (folder / "own.py").unlink()
    command = [sys.executable, "-m", "artefact", "--input", "in.npz", "--output", "out.npz"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    import onnxruntime

    expected = interpreter.run(module, arrays, precision="f64")
    session = onnxruntime.InferenceSession(folder / "used.onnx", providers=["CPUExecutionProvider"])
    by_onnx = dict(zip(expected, session.run(None, arrays), strict=True))
    with np.load(folder / "out.npz") as outputs:
        for name, array in expected.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(by_onnx[name], array, rtol=1e-5, atol=1e-6)


def test_reduced_program_with_own_operations_runs(folder: Path) -> None:
    """The command that `reduce` writes loads the files whose operations the program holds."""
    (folder / "bug.py").write_text(PLANTED)
    options = ("--load", "bug.py", "-p", "sharpen", "--dim", "B=2")
    fine(irc_here("reduce", "own.py:used", "-o", "small", *options, folder=folder))
    command = (folder / "small" / "command").read_text()
    assert f"--load {folder}/own.py" in command and f"--load {folder}/bug.py" in command
    assert "gate" in (folder / "small" / "program.irc").read_text()
    again = subprocess.run(["bash", "-c", f"PATH={Path(sys.executable).parent}:$PATH; {command}"], capture_output=True)
    assert again.returncode == 1 and b"FAIL" in again.stdout, again.stderr


PLANTED = '''
from dataclasses import dataclass

from irc.op import Builder
from irc.ops import mul
from irc.pass_manager import Pass


@dataclass
class Sharpen(Pass):
    """Multiplies the operand of each gate by 1.01."""

    def run(self, module, context):
        found = [operation for operation in module.walk() if operation.name == "gate"]
        for operation in found:
            with Builder.before_operation(operation):
                operation.set_operand(0, mul(operation.operands[0], 1.01))
        return bool(found)
'''


@pytest.mark.parametrize("numerics", ["exact", "keeps_more_precision"])
def test_raise_finds_own_operations(folder: Path, numerics: Any) -> None:
    """The body is a pattern: operands in any order, attributes from the graph, optional operands, several results."""
    settings = Settings(loads=[str(folder / "own.py")], numerics=numerics)
    module = load_user_object(f"{folder}/own.py:spelled")()
    raised = irc.opt(module, "raise", settings=settings)
    assert sorted(operations(raised)) == ["add", "extremes", "gate", "return", "squashed", "squashed", "sub"]
    gate = next(operation for operation in raised.walk() if operation.name == "gate")
    assert gate.attributes == {"beta": 0.3} and gate.result.name == "gated"
    generator = np.random.default_rng(1)
    given = {argument.name: generator.standard_normal((3, 8) if argument.rank == 2 else 8).astype(np.float32)
             for argument in module.main.arguments}  # fmt: skip
    before, after = interpreter.run(module, given), interpreter.run(raised, given)
    for one, other in zip(before.values(), after.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    shared = irc.opt(load_user_object(f"{folder}/own.py:shared")(), "raise", settings=settings)
    assert "gate" not in operations(shared)  # its sigmoid would be computed twice


UNARY = ("sigmoid", "tanh", "exp", "abs_", "neg")
BINARY = ("add", "mul", "sub", "maximum")


@pytest.mark.parametrize("seed", range(12))
def test_raise_finds_random_bodies(folder: Path, seed: int) -> None:
    """Of random expressions over two operands and a number, spelled in a graph with the sides of sums exchanged."""
    generator = np.random.default_rng(seed)

    def expression(depth: int) -> Any:
        if depth == 0:
            return str(generator.choice(["x", "g"]))
        if generator.random() < 0.4:
            return (str(generator.choice(UNARY)), expression(depth - 1))
        return (str(generator.choice(BINARY)), expression(depth - 1), expression(int(generator.integers(depth))))

    def text(part: Any, exchange: bool) -> str:
        if isinstance(part, str):
            return part
        operands = [text(each, exchange) for each in part[1:]]
        turned = exchange and part[0] in ("add", "mul", "maximum") and generator.random() < 0.5
        return f"{part[0]}({', '.join(operands[::-1] if turned else operands)})"

    body = ("mul", ("tanh", ("add", expression(3), ("mul", "x", "beta"))), "g")
    number = round(float(generator.uniform(0.1, 3)), 3)
    (folder / "random.py").write_text(
        "import irc\nfrom irc.op import Float, op\nfrom irc.ops import *\nfrom irc.ops import abs_\n"
        "@op\ndef strange(x: Float, g: Float, /, *, beta: float = 1.0):\n"
        f'    """A random body."""\n    return {text(body, False)}\n'
        f"def graph():\n    beta = {number}\n"
        f'    return irc.trace(lambda x, g: {text(body, True)}, "f64[4, 3]", "f64[3]")\n'
    )
    module = load_user_object(f"{folder}/random.py:graph")()
    raised = irc.opt(module, "raise", settings=Settings(loads=[str(folder / "random.py")]))
    assert [name for name in operations(raised) if name != "const"] == ["strange", "return"], f"{module}\n{raised}"
    given = {"x": generator.standard_normal((4, 3)), "g": generator.standard_normal(3)}
    (before,), (after,) = interpreter.run(module, given).values(), interpreter.run(raised, given).values()
    np.testing.assert_allclose(before, after, rtol=1e-12)


def test_bodies_that_decide_by_types_are_noted(folder: Path) -> None:
    (folder / "ranks.py").write_text(
        "from irc.op import Float, op\nfrom irc.ops import tanh\n@op\ndef often(x: Float, /):\n"
        '    """tanh, as often as x has axes."""\n    for _ in range(x.rank):\n        x = tanh(x)\n    return x\n'
    )
    done = fine(irc_here("opt", "own.py:used", "-p", "raise", "--load", "ranks.py", folder=folder))
    assert "note: raise: `often` is not looked for" in done.err


# -- mistakes ---------------------------------------------------------------------------------------------------

HEAD = """import irc
from dataclasses import dataclass
from irc.interfaces import Pointwise, Trait
from irc.op import Float, FloatType, op, primitive, spelling
from irc.ops import add, gelu, matmul, mul, softmax, tanh
from irc.pass_manager import Pass
from irc.policy import group, policy, reject
from irc.rewrite import rewrite
def model(): return irc.trace(lambda x, b: gelu(add(x, b)), "f32[4, 4]", "f32[4]")
"""
RULE = "def r(x): return mul(x, 2.0), add(x, x)\n"
REFERENCE = """@primitive()
def f(x: FloatType, /): return x
@f.reference
def _(x): return {}
def used(): return irc.trace(lambda x: f(x), "f32[3]")
"""
PASS = """@dataclass
class Odd(Pass):
    def run(self, module, context):
        first = next(iter(module.main.block))
        {}
        return {}
"""
OPT = ("opt", "f.py:model", "--load", "f.py", "-p")
# What is written, the command (loading alone where there is none), the code of the error, and words of it.
MISTAKES: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "numerics": (f'@rewrite(numerics="exactly")\n{RULE}', (), "rule.numerics", "did you mean exact"),
    "numerics of another type": (f"@rewrite(numerics=2)\n{RULE}", (), "rule.numerics", "numerics=2"),
    "keyword of rewrite": (f'@rewrite(numeric="exact")\n{RULE}', (), "load.raised", "unexpected keyword"),
    "bare rewrite": (f"@rewrite\n{RULE}", (), "load.raised", "rewrite()"),
    "rule without a replacement": ('@rewrite(numerics="exact")\ndef r(x): return mul(x, 2.0)\n', (), "rule.raised",
                                   "(pattern, replacement)"),
    "rule of a bare leaf": ('@rewrite(numerics="exact")\ndef r(x): return x, add(x, x)\n', (), "rule.raised", "leaf"),
    "attribute in a rule": ('@rewrite(numerics="exact")\ndef r(x): return softmax(x, axes=1), x\n', (),
                            "type.attribute", "`axes`"),
    "rule of any operands": ('@rewrite(numerics="exact")\ndef r(*x): return add(*x), x[0]\n', (), "rule.raised",
                             "`*x`"),
    "default in a rule": ('@rewrite(numerics="exact")\ndef r(x, y=2.0): return mul(x, y), x\n', (), "rule.raised",
                          "`y=2.0`"),
    "endless rule": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), add(b, x)\n', (*OPT, "rewrite"),
                     "rule.endless", "the last was `r`"),
    "guard that exits": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), add(b, x)\n'
                         "@r.when\ndef w(x): raise SystemExit(0)\n", (*OPT, "rewrite"), "rule.raised", "SystemExit"),
    "file that exits": ("raise SystemExit(0)\n", (), "load.raised", "SystemExit"),
    "class for a body": ("@op\nclass f: pass\n", (), "op.declaration", "is a class"),
    "name that is no text": ('def other(): return irc.trace(lambda x: tanh(x, name=3), "f32[3]")\n',
                             ("print", "f.py:other"), "type.attribute", "the name 3"),
    "guard of no leaf": (f'@rewrite(numerics="exact")\n{RULE}@r.when\ndef w(y): return True\n', (), "rule.guard",
                         "`y`"),
    "guard that returns a number": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), add(b, x)\n'
                                    "@r.when\ndef w(x): return 3\n", (*OPT, "rewrite"), "rule.guard", "returned 3"),
    "guard that raises": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), add(b, x)\n'
                          "@r.when\ndef w(x): return x.size_ > 3\n", (*OPT, "rewrite"), "rule.raised", "size_"),
    "replacement that raises": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), lambda: x + unknown\n',
                                (*OPT, "rewrite"), "rule.raised", "unknown"),
    "replacements of another number": ('@rewrite(numerics="exact")\ndef r(x, b): return add(x, b), (x, b)\n',
                                       (*OPT, "rewrite"), "rule.type", "1 values by 2"),
    "trait": ('@op("pointwize")\ndef f(x: Float, /): return tanh(x)\n', (), "op.declaration", "Pointwise"),
    "trait that there is not": ("@op(Trait.POINTWISE)\ndef f(x: Float, /): return tanh(x)\n", (), "load.raised",
                                "POINTWISE"),
    "interface without its data": ("@primitive(Pointwise)\ndef f(x: FloatType, /): return x\n", (), "op.declaration",
                                   "Pointwise(...)"),
    "interface twice": ("@op(Pointwise(), Pointwise())\ndef f(x: Float, /): return tanh(x)\n", (), "op.declaration",
                        "twice"),
    "keyword of op": ('@op(trait="x")\ndef f(x: Float, /): return tanh(x)\n', (), "load.raised", "trait"),
    "operand annotation": ("@op\ndef f(x: Float, n: int, /): return tanh(x)\n", (), "op.declaration", "after `*`"),
    "default": ('@op\ndef f(x: Float, /, *, beta: float = "one"): return tanh(x)\n', (), "op.declaration", "'one'"),
    "any keywords": ("@op\ndef f(x: Float, /, **more): return tanh(x)\n", (), "op.declaration", "any keyword"),
    "name of an operation of irc": ("@op\ndef gelu(x: Float, /): return tanh(x)\n", (), "op.declaration", "`gelu`"),
    "spelling of no operation": ("@spelling(tanh2)\ndef f(x): return tanh(x)\n", (), "load.raised", "tanh2"),
    "syntax": ("def f(:\n", (), "load.raised", "SyntaxError"),
    "body that raises": ("@op\ndef f(x: Float, /): return nothing(x)\n"
                         'def used(): return irc.trace(lambda x: f(x), "f32[3]")\n',
                         ("print", "f.py:used"), "op.raised", "nothing"),
    "body that returns nothing": ('@op\ndef f(x: Float, /): tanh(x)\ndef used(): return irc.trace(f, "f32[3]")\n',
                                  ("print", "f.py:used"), "type.operands", "f returned None"),
    "type rule that returns nothing": ("@primitive()\ndef f(x: FloatType, /): pass\n"
                                       'def used(): return irc.trace(lambda x: f(x), "f32[3]")\n',
                                       ("print", "f.py:used"), "op.declaration", "type rule"),
    "reference of another arity": ("@primitive()\ndef f(x: FloatType, /): return x\n@f.reference\ndef _(): return 1\n"
                                   'def used(): return irc.trace(lambda x: f(x), "f32[3]")\n',
                                   ("run", "f.py:used"), "op.raised", "positional"),
    "reference that returns nothing": (REFERENCE.format("None"), ("run", "f.py:used"), "op.declaration", "None"),
    "reference that returns a list": (REFERENCE.format("list(x)"), ("run", "f.py:used"), "op.declaration", "3 arrays"),
    "reference of another shape": (REFERENCE.format("x[:1]"), ("run", "f.py:used"), "op.declaration", "dim 0 is 1"),
    "reference of another type": (REFERENCE.format("x > 0"), ("run", "f.py:used"), "op.declaration", "of bool"),
    "no reference": ("@primitive()\ndef f(x: FloatType, /): return x\n"
                     'def used(): return irc.trace(lambda x: f(x), "f32[3]")\n',
                     ("run", "f.py:used"), "op.declaration", "no reference"),
    "policy without a parameter": ("@policy\ndef p(): return 1\n", (*OPT, "fuse{policy=f.py:p}"), "policy.raised",
                                   "positional"),
    "policy that returns a word": ('@policy\ndef p(merge): return "yes"\n', (*OPT, "fuse{policy=f.py:p}"),
                                   "policy.result", "'yes'"),
    "policy that raises": ("@policy\ndef p(merge): return merge.saved\n", (*OPT, "fuse{policy=f.py:p}"),
                           "policy.raised", "saved"),
    "keyword of reject": ('@policy\ndef p(merge): return reject(why="no")\n', (*OPT, "fuse{policy=f.py:p}"),
                          "policy.raised", "why"),
    "group of a bare leaf": ("@group\ndef g(x): return x\n", (*OPT, "fuse{groups=f.py:g}"), "rule.raised", "leaf"),
    "keyword of group": ('@group(name="g")\ndef g(x): return tanh(x)\n', (), "load.raised", "name"),
    "pass of another arity": ("@dataclass\nclass Odd(Pass):\n    def run(self, module): return False\n", (*OPT, "odd"),
                              "pass.raised", "positional"),
    "pass without run": ("@dataclass\nclass Odd(Pass):\n    n: int = 1\n", (*OPT, "odd"), "pass.raised", "run"),
    "pass that returns nothing": (PASS.format("pass", None), (*OPT, "odd"), "pass.raised", "returned None"),
    "pass that changes a type": (PASS.format("first.results[0].type = module.main.arguments[1].type", True),
                                 (*OPT, "odd"), "pass.raised", "verify.types"),
    "pass that writes no type": (PASS.format("first.results[0].type = 3", True), (*OPT, "odd"), "pass.raised",
                                 "well formed"),
    "pass that leaves nothing": (PASS.format("module.functions.clear()", True), (*OPT, "odd"), "pass.raised",
                                 "no functions"),
    "pass that exits": (PASS.format("raise SystemExit(1)", True), (*OPT, "odd"), "pass.raised", "SystemExit"),
    "option that is required": ("@dataclass\nclass Odd(Pass):\n    n: int\n"
                                "    def run(self, module, context): return False\n",
                                (*OPT, "odd"), "pass.option", "needs the option `n`"),
    "option that is rejected": ("@dataclass\nclass Odd(Pass):\n    n: int = 0\n"
                               "    def __post_init__(self): raise ValueError(self.n)\n", (*OPT, "odd{n=7}"),
                               "pass.raised", "7"),
    "option given twice": ("@policy\ndef p(merge): return 1\n", (*OPT, "fuse{policy=f.py:p,policy=none}"),
                           "pass.option", "`policy` twice"),
    "pass that is no dataclass": ("class Odd(Pass):\n    n: int = 1\n"
                                  "    def run(self, module, context): return False\n",
                                  (*OPT, "odd{n=2}"), "pass.option", "@dataclass"),
    "option of a strange type": ("@dataclass\nclass Odd(Pass):\n    n: dict = None\n"
                                 "    def run(self, module, context): return False\n",
                                 (*OPT, "odd{n=2}"), "pass.option", "dict"),
    "model with a parameter": ("def other(n): return None\n", ("print", "f.py:other"), "file.format", "arguments"),
    "type of a model": ('def other(): return irc.trace(lambda x: tanh(x), "f32[B")\n', ("print", "f.py:other"),
                        "dim.syntax", "f32[B"),
}  # fmt: skip
PLACELESS = {"pass.option"}  # which show the place in the pipeline


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_own_files(tmp_path: Path, name: str) -> None:
    """Each mistake is a coded error with its words, the file and the line of the mistake or of what calls it."""
    written, command, code, words = MISTAKES[name]
    (tmp_path / "f.py").write_text(HEAD + written)
    done = irc_here(*(command or ("print", "f.py:model", "--after", "raise", "--load", "f.py")), folder=tmp_path)
    assert f"error[{code}]" in done.err and words in done.err, done.err
    assert done.code == 3 or code in PLACELESS, done.err
    if code not in PLACELESS:
        first = HEAD.count("\n") + 1
        lines = range(first, first + written.count("\n") + 1)
        assert any(f"{tmp_path}/f.py:{line}" in done.err for line in lines), done.err


def test_a_kernel_that_triton_has_not_is_explained(tmp_path: Path) -> None:
    written = ("@primitive(Pointwise())\ndef f(x: FloatType, /): return x\n@f.reference\ndef _(x): return x\n"
               "def used(): return irc.trace(lambda x: tanh(f(x), name='y'), 'f32[3]')\n")
    (tmp_path / "f.py").write_text(HEAD + written)
    done = fine(irc_here("explain", "f.py:used", "%y", folder=tmp_path))
    assert "it runs as host calls, since f of f32 cannot be written in Triton" in done.out


def test_two_files_declare_an_operation(folder: Path) -> None:
    (folder / "other.py").write_text(OWN)
    with pytest.raises(IrcError) as raised:
        Settings(loads=[str(folder / "own.py"), str(folder / "other.py")]).operations()
    assert raised.value.code == "op.declaration" and "two operations" in str(raised.value)
