"""`irc plan`: plans as files, edits with what they cost, and what differs between two plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irc import interpreter
from irc.driver import load
from irc.driver.arrays import given_inputs
from irc.driver.planning import read
from tests.command_line import irc_here

# A block of a transformer with a gated layer, whose plan has kernels of one and of several operations.
BLOCK = """irc text 1
module @block {
  func @main<S in [1, 64]>(%x: f32[S, 32], %wq: f32[32, 32], %wk: f32[32, 32], %wv: f32[32, 32], %wo: f32[32, 32], %wg: f32[32, 64], %wu: f32[32, 64], %wd: f32[64, 32], %g: f32[32], %b: f32[32]) -> (out: f32[S, 32], total: f32[S], cols: f32[32]) {
    %ln1 = layer_norm %x, %g, %b {axis = -1, epsilon = 1e-05} : f32[S, 32]
    %q = matmul %ln1, %wq : f32[S, 32]
    %k = matmul %ln1, %wk : f32[S, 32]
    %v = matmul %ln1, %wv : f32[S, 32]
    %kt = transpose %k {permutation = [1, 0]} : f32[32, S]
    %scores = matmul %q, %kt : f32[S, S]
    %scale = const 0.125 : f32[]
    %scaled = mul %scores, %scale : f32[S, S]
    %p = softmax %scaled {axis = -1} : f32[S, S]
    %context = matmul %p, %v : f32[S, 32]
    %proj = matmul %context, %wo : f32[S, 32]
    %attended = add %x, %proj : f32[S, 32]
    %ln2 = layer_norm %attended, %g, %b {axis = -1, epsilon = 1e-05} : f32[S, 32]
    %gate = matmul %ln2, %wg : f32[S, 64]
    %up = matmul %ln2, %wu : f32[S, 64]
    %act = silu %gate : f32[S, 64]
    %h = mul %act, %up : f32[S, 64]
    %down = matmul %h, %wd : f32[S, 32]
    %out = add %attended, %down : f32[S, 32]
    %total = reduce_sum %out {axes = [1], keep_dims = false} : f32[S]
    %cols = reduce_max %out {axes = [0], keep_dims = false} : f32[32]
    return %out, %total, %cols
  }
}
"""  # noqa: E501

Edits = list[tuple[str, str]]
# Edits of the plan with library calls for products, or with kernels, and the entries that come of them.
LEGAL: dict[str, tuple[str, Edits, list[str]]] = {
    "a kernel for each": ("host", [("split", "p")], ["scaled", "p"]),
    "one member apart": ("host", [("split", "total:%total")], ["out", "total"]),
    "apart and together": ("host", [("split", "ln2"), ("merge", "attended,ln2")], ["attended ln2"]),
    "by values": ("host", [("split", "h"), ("merge", "%act,%h")], ["act h"]),
    "a schedule": ("host", [("schedule", "ln1:n=32,warps=2")], ["ln1"]),
    "blocks": ("host", [("schedule", "p:blocks=2x64"), ("schedule", "p:rules")], ["scaled p"]),
    "in parts": ("host", [("split", "cols:4")], ["cols"]),
    "duplicated": ("host", [("split", "ln2"), ("duplicate", "attended")], ["attended ln2", "attended out total"]),
    "duplicated for the only reader": ("host", [("split", "h"), ("duplicate", "act:h")], ["act h"]),
    "duplicated in one of two": ("host", [("split", "total"), ("duplicate", "out:cols")], ["out", "total", "out cols"]),
    "duplicated in reductions": ("host", [("split", "total"), ("duplicate", "out")], ["out total", "out cols"]),
    "a library": ("irc", [("library", "down")], ["out"]),
    "one product of three": ("irc", [("library", "%k")], ["q v"]),
    "a library and a kernel": ("irc", [("library", "%proj"), ("kernel", "proj")], ["proj", "attended"]),
}
# ... and those that are illegal, with the code and words of the error.
ILLEGAL: dict[str, tuple[str, Edits, str, str]] = {
    "across a product": ("host", [("merge", "ln1,p")], "plan.refused", "rule F1: matmul %q"),
    "reductions of two axes": ("host", [("merge", "total,cols")], "plan.refused", "rule F6"),
    "without what is between": ("host", [("split", "total"), ("split", "ln2"), ("merge", "ln2,total")],
                                "plan.refused", "rule F1"),
    "a library's product": ("host", [("merge", "ln1,q")], "plan.edit", "%q is computed by a library"),
    "an input": ("host", [("merge", "ln1,x")], "plan.refused", "%x is an argument"),
    "a block of another axis": ("host", [("schedule", "ln1:i=64")], "plan.refused", "rule F15"),
    "parts of a pointwise kernel": ("host", [("split", "h:4")], "plan.refused", "rule F15"),
    "three blocks": ("host", [("schedule", "h:blocks=8x8x8")], "plan.edit", "8x8x8 has 3 blocks"),
    "one member": ("irc", [("split", "ln2")], "plan.edit", "@ln2 has one member"),
    "a norm twice": ("host", [("split", "total"), ("duplicate", "cols")], "plan.edit", "no other entry reads %cols"),
    "a reduction twice": ("host", [("split", "p"), ("duplicate", "p")], "plan.edit", "no other entry reads %p"),
    "a product of a norm, in its reader": ("irc", [("duplicate", "ln2")], "plan.refused", "rule F17"),
    "a product of a norm": ("irc", [("merge", "ln2,h")], "plan.refused", "rule F"),
    "no product": ("irc", [("library", "ln1")], "plan.edit", "%ln1 is no product"),
    "one name": ("host", [("merge", "ln1")], "plan.edit", "one name is no merge"),
    "no such entry": ("host", [("split", "lm1")], "plan.edit", "did you mean ln1"),
    "a legal one first": ("host", [("split", "p"), ("merge", "p,total")], "plan.refused", "edit:2:1"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planning")
    (folder / "block.irc").write_text(BLOCK)
    for products in ("host", "irc"):
        done = irc_here("plan", "block.irc", "--products", products, "-o", f"{products}.json", folder=folder)
        assert done.code == 0 and "wrote" in done.out, done.err
    return folder


def arguments(edits: Edits) -> list[str]:
    return [word for name, argument in edits for word in (f"--{name}", argument)]


def check_replay(folder: Path, plan: str, products: str) -> None:
    """A plan is replayed as it is written, and the program computes what it did before."""
    out = irc_here("opt", "block.irc", "--products", products, "-p", f"default{{fuse.plan={plan}}}",
                   "--plan", "again.json", "-o", "out.irc", folder=folder)  # fmt: skip
    assert out.code == 0, out.err
    written, again = (read(folder / name) for name in (plan, "again.json"))
    assert [entry.members for entry in written.groups] == [entry.members for entry in again.groups]
    before, after = load(folder / "block.irc"), load(folder / "out.irc")
    given = given_inputs(before.main, None, {"S": 5}, 0)
    results = zip(interpreter.run(before, given).values(), interpreter.run(after, given).values(), strict=True)
    for one, other in results:
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", LEGAL)
def test_legal_edits_replay(folder: Path, name: str) -> None:
    products, edits, expected = LEGAL[name]
    done = irc_here("plan", "edit", f"{products}.json", *arguments(edits), "-o", "edited.json", folder=folder)
    assert done.code == 0, done.err
    assert done.out.count(": legal") == len(edits) and "launches" in done.out, done.out
    entries = [" ".join(entry.members) for entry in read(folder / "edited.json").groups]
    assert set(expected) <= set(entries), entries
    assert sum(entry.split()[-1] in {each.split()[-1] for each in expected} for entry in entries) == len(expected)
    check_replay(folder, "edited.json", products)


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_edits_are_refused_with_rule_and_place(folder: Path, name: str) -> None:
    products, edits, code, words = ILLEGAL[name]
    before = (folder / f"{products}.json").read_bytes()
    done = irc_here("plan", "edit", f"{products}.json", *arguments(edits), folder=folder)
    assert done.code == (2 if code == "plan.edit" else 1), done.err
    assert f"error[{code}]" in done.err and words in done.err and not done.out, done.err
    quoted = f"--{edits[-1][0]} {edits[-1][1]}"
    assert f"--> edit:{len(edits)}:1\n   |  {quoted}\n   |  {'^' * len(quoted)}" in done.err
    assert "edit" in code or f"from: {products}.json:" in done.err
    assert (folder / f"{products}.json").read_bytes() == before
