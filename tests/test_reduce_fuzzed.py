"""irc reduce of fuzzed programs in which a mistake is planted: three operations at most are left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import irc
from irc.backends.onnx import table
from irc.backends.triton import pointwise
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.frontends.onnx import from_model
from irc.module import Module
from irc.verifier import verify
from tests.fuzz.features import chosen
from tests.fuzz.running import Job, program_of

PROGRAMS = 2  # of each mistake and kind
CHECKS = 100  # at most, for each reduction
RULE = """
from irc import ops
from irc.rewrite import rewrite
"""
PASS = """
from dataclasses import dataclass
from irc.pass_manager import Pass
"""
# In each file a pass or a rule of the name `wrong`, or a change of a backend. What they spoil shows in some programs.
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "rule of a view": (RULE + '''
@rewrite(numerics="exact")
def wrong(x, *, axes):
    """reverse(x)  ->  x"""
    return ops.reverse(x, axes=axes), ops.mul(x, 1)
''', {"pipeline": "canonicalize,rewrite"}),
    "what reads a reduction": (PASS + '''
@dataclass
class Wrong(Pass):
    """Turns round what is less, or divided by, a reduction."""
    def run(self, module, context):
        for operation in module.walk():
            made = operation.inputs[1].operation if operation.name in ("sub", "div") else None
            if made is not None and made.name.startswith("reduce_"):
                for position, value in enumerate(reversed(operation.inputs)):
                    operation.set_operand(position, value)
        return True
''', {"pipeline": "canonicalize,wrong"}),
    "order of operands": (PASS + '''
@dataclass
class Wrong(Pass):
    """Concatenates from the end what follows a broadcast."""
    def run(self, module, context):
        for operation in module.walk():
            made = [operand.operation for operand in operation.inputs]
            if operation.name == "concat" and any(each is not None and each.name == "expand" for each in made):
                for position, value in enumerate(reversed(operation.inputs)):
                    operation.set_operand(position, value)
        return True
''', {"pipeline": "canonicalize,wrong"}),
    "crash": (PASS + '''
@dataclass
class Wrong(Pass):
    """Fails at a view of a sum."""
    def run(self, module, context):
        for operation in module.walk():
            if operation.name in ("reshape", "transpose") and operation.inputs[0].operation is not None:
                assert operation.inputs[0].operation.name not in ("reduce_sum", "reduce_mean")
        return False
''', {"pipeline": "canonicalize,wrong"}),
    "ONNX backend": ("""
from irc.backends.onnx import table
from irc.backends.onnx.row import Row

row = table.ROWS["abs"]
table.ROWS["abs"] = Row("abs", lambda g, x: g.node("Neg", x), row.takes)
""", {"backend": "onnx"}),
    "Triton backend": ("""
from irc.backends.triton import pointwise

pointwise.WRITERS["neg"] = lambda node, operands, helper: pointwise.WRITERS["abs"](node, operands, helper)
""", {"backend": "triton"}),
}  # fmt: skip
# The PyTorch programs that show a mistake: exporting those before them takes a second each.
KNOWN = {
    ("what reads a reduction", "torch"): (15, 26),
    ("order of operands", "torch"): (123, 183),
    ("crash", "torch"): (43, 45),
}


@cache
def imported(kind: str, index: int) -> tuple[Module, dict[str, Any]] | None:
    """A program of the fuzzer with its inputs; None for a small one, and where irc is wrong by itself."""
    program = program_of(Job(kind, 77, index, chosen("-special floats,-narrow floats,-integer limits")))
    if program.size < 6:
        return None
    feed = program.feeds[0]
    try:
        if kind == "onnx":
            module, arrays = from_model(program.model, Path("no such folder")), list(feed.values())
        else:
            module = irc.from_torch(program.module, tuple(tensor.clone() for tensor in feed))
            arrays = [tensor.numpy() for tensor in feed]
    except IrcError:
        return None
    inputs = dict(zip([argument.name for argument in module.main.arguments], arrays, strict=True))
    return (module, inputs) if irc.check(module, inputs, pipeline="canonicalize").passed else None


def failing(
    mistake: str, kind: str, settings: Settings, options: dict[str, Any]
) -> Iterator[tuple[Module, dict[str, Any]]]:
    """The first programs in which a mistake shows; those where it did are tried before all others."""
    known = KNOWN.get((mistake, kind), ())
    indices = chain(known, (index for index in count() if index not in known))
    return islice((program for index in indices if (program := imported(kind, index)) is not None
                   and shows(*program, settings, options)), PROGRAMS)  # fmt: skip


def shows(module: Module, inputs: dict[str, Any], settings: Settings, options: dict[str, Any]) -> bool:
    try:
        return not irc.check(module, inputs, settings=settings, **options).passed
    except IrcError as error:
        return error.code == "pass.raised"


RARE = ("rule of a view", "ONNX backend", "Triton backend")  # where many programs are tried to find it
CASES = [
    pytest.param(mistake, kind, marks=[pytest.mark.slow] if kind == "torch" and mistake in RARE else [])
    for mistake in WRONG for kind in ("onnx", "torch")
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "kind"), CASES)
def test_three_operations_are_left(mistake: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.ROWS, "abs", table.ROWS["abs"])
    monkeypatch.setitem(pointwise.WRITERS, "neg", pointwise.WRITERS["neg"])
    text, options = WRONG[mistake]
    (tmp_path / "wrong.py").write_text(text)
    settings = Settings(loads=[str(tmp_path / "wrong.py")])
    for number, (module, inputs) in enumerate(failing(mistake, kind, settings, options)):
        report = irc.reduce(module, tmp_path / f"small{number}", inputs, settings=settings, **options)
        small = irc.load(tmp_path / f"small{number}" / "program.irc")
        verify(small)
        assert report.finished and report.after <= 3 and report.checks < CHECKS, small
