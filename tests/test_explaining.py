"""explain: it agrees with what is compiled, its advice can be followed, and what is gone has a successor."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

import irc
from irc.driver import Settings, load
from irc.driver.explaining import kernel_around
from irc.group import is_free
from irc.module import Module
from tests.command_line import EXAMPLES, irc_here

SIBLINGS = """irc text 1
module @m {
  func @main<N in [1, 64]>(%x: f32[N, 16], %w: f32[16, 16]) -> (f32[N], f32[], f32[N, 16], f32[N, 16], f32[N, 16]) {
    %e = exp %x : f32[N, 16]
    %r = reduce_sum %e {axes = [1], keep_dims = false} : f32[N]
    %q = reduce_sum %e {axes = [0, 1], keep_dims = false} : f32[]
    %s = sin %x : f32[N, 16]
    %c = cos %x : f32[N, 16]
    %t = tanh %s : f32[N, 16]
    %m = matmul %t, %w : f32[N, 16]
    %n = neg %m : f32[N, 16]
    %u = mul %n, %c : f32[N, 16]
    return %r, %q, %e, %c, %u
  }
}
"""
GONE = """irc text 1
module @m {
  func @main(%x: f32[8, 16]) -> (f32[8, 16], f32[8, 16], f32[8, 16]) {
    %two = const 2.0 : f32[]
    %three = const 3.0 : f32[]
    %six = mul %two, %three : f32[]
    %dead = sin %x : f32[8, 16]
    %a = mul %x, %six : f32[8, 16]
    %b = mul %x, %six : f32[8, 16]
    %s = sigmoid %x : f32[8, 16]
    %y = mul %s, %x : f32[8, 16]
    %n = neg %x : f32[8, 16]
    %nn = neg %n : f32[8, 16]
    %d = add %a, %b : f32[8, 16]
    %e = cos %nn : f32[8, 16]
    return %d, %y, %e
  }
}
"""


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    (tmp_path / "siblings.irc").write_text(SIBLINGS)
    (tmp_path / "gone.irc").write_text(GONE)
    return tmp_path


def computing(module: Module) -> list[str]:
    """The values of the entry that are in kernels or might be."""
    return [operation.results[0].name for operation in module.main.block if operation.results
            and not is_free(operation) and operation.name not in ("kernel", "matmul", "linear", "dot", "attention")]


@pytest.mark.parametrize("policy", ["greedy", "none", f"{EXAMPLES}/rules.py:frugal"])
@pytest.mark.parametrize("model", ["siblings.irc", f"{EXAMPLES}/block.py:block", f"{EXAMPLES}/block.py:scores"])
def test_pairs_agree_with_the_program(folder: Path, model: str, policy: str) -> None:
    """Of every two values: in one kernel or not, as compiled; entries of plans that are advised can be followed."""
    source = load(folder / model if model.endswith(".irc") else model)
    prepared = source if model.endswith(".irc") else irc.opt(source, "canonicalize,raise,cse,dce,legalize")
    pipeline, fused = f"fuse{{policy={policy}}}", irc.opt(prepared, f"fuse{{policy={policy}}}")
    for first, second in itertools.combinations(computing(prepared), 2):
        text = irc.explain(prepared, first, second, pipeline=pipeline)
        one, other = (kernel_around(fused.main.find(name)) for name in (first, second))
        assert text.startswith("in one kernel") is (one is other and one is not None), text
        assert not re.search(r": score [0-9]", text), text
        advised = re.search(r'entry (\{"members": .*\})', text)
        if advised is not None:
            assert "though it would be legal" in text
            (folder / "plan.json").write_text(json.dumps({"groups": [json.loads(advised[1])]}))
            replayed = irc.opt(prepared, f"fuse{{plan={folder}/plan.json}}")
            one, other = (kernel_around(replayed.main.find(name)) for name in (first, second))
            assert one is other is not None


def test_constants_and_control_flow_are_no_host_operations(folder: Path) -> None:
    (folder / "flow.irc").write_text(
        "irc text 1\nmodule @m {\n  func @main(%x: f32[2], %p: bool[]) -> f32[2] {\n"
        "    %w = const [1.0, 2.0] : f32[2]\n    %i = if %p : f32[2] {\n      %g = mul %x, %w : f32[2]\n"
        "      yield %g\n    } else {\n      yield %x\n    }\n"
        "    return %i\n  }\n}\n"
    )
    for values, words in ((("%w",), "constant  each kernel"), (("%i",), "control   if"),
                          (("%w", "%i"), "%w is a constant"), (("%i", "%g"), "%i = if is control flow: ")):  # fmt: skip
        text = irc_here("explain", "flow.irc", *values, "-p", "fuse", folder=folder).out
        assert "host" not in text and words in text, text


def test_siblings_are_not_offered(folder: Path) -> None:
    (folder / "pair.irc").write_text(
        "irc text 1\nmodule @m {\n  func @main(%x: f32[8, 16]) -> (f32[8, 16], f32[8, 16]) {\n"
        "    %s = sin %x : f32[8, 16]\n    %t = tanh %s : f32[8, 16]\n    %c = cos %x : f32[8, 16]\n"
        "    return %t, %c\n  }\n}\n"
    )
    text = irc_here("explain", "pair.irc", "%t", "%c", "-p", "fuse", folder=folder).out
    assert "neither reads what the other computes" in text and "a plan file with the entry" in text
    assert "score" not in text


def test_reductions_name_their_axes(folder: Path) -> None:
    text = irc_here("explain", "siblings.irc", "%r", "%q", "-p", "fuse", folder=folder).out
    form = r"%r is reduced over the axis \w+ of extent 16, and %q is reduced over the axes \w+ of extent N and \w+ of"
    assert re.search(form, text)


def test_advice_does_not_ask_for_a_product_in_a_kernel(folder: Path) -> None:
    text = irc_here("explain", "siblings.irc", "%t", "%u", "-p", "legalize,fuse", folder=folder).out
    assert "rule F1" in text and "try: no plan can merge them: an operation between them is in no kernel" in text


def test_plans_of_other_passes(folder: Path) -> None:
    """Kernels that `eager` made, a pass of one's own, or the program as it came."""
    apart = irc_here("explain", "siblings.irc", "%s", "%t", "-p", "eager", folder=folder).out
    assert "not in one kernel" in apart and "kernel @t (tanh), made by fuse(eager)" in apart and "policy" not in apart
    (folder / "own.py").write_text(
        "from dataclasses import dataclass\nfrom irc.pass_manager import Pass\n"
        "from irc.passes._kernels import make_kernel\nfrom irc.group import Group\n"
        "@dataclass\nclass Pair(Pass):\n    def run(self, module, context):\n"
        "        names = ('s', 't')\n"
        "        make_kernel(Group([module.main.find(name).operation for name in names], 'pair'))\n"
        "        return True\n"
    )
    together = irc_here("explain", "siblings.irc", "%s", "%t", "-p", "pair", "--load", "own.py", folder=folder)
    assert together.out == "in one kernel: kernel @t (sin, tanh), made by fuse(pair)\n", together.err
    irc_here("opt", "siblings.irc", "-p", "eager", "-o", "eager.irc", folder=folder)
    assert irc_here("explain", "eager.irc", "%s", "%t", folder=folder).out == apart
    without = irc_here("explain", "siblings.irc", "%t", "%c", "-p", "dce", folder=folder).out
    assert "%t = tanh is in no kernel" in without


FATES = {
    "six": "folded    replaced by the constant 6.0 of f32[]",
    "two": "removed   by fold: %two is absorbed: %six = const replaces it and %six, which was computed from it",
    "dead": "removed   by dce: %dead is removed: no remaining operation reads it",
    "b": "removed   by cse: %b is replaced: %a = mul replaces it",
    "s": "removed   by raise: %s is absorbed: %y = silu replaces it and %y, which was computed from it",
    "n": "removed   by canonicalize: %n is absorbed: %x = an input replaces it and %nn, which was computed from it",
    "nn": "removed   by canonicalize: %nn is replaced: %x = an input replaces it",
}


@pytest.mark.parametrize("name", FATES)
def test_what_is_gone_has_a_successor(folder: Path, name: str) -> None:
    text = irc_here("explain", "gone.irc", f"%{name}", "-p", "fold,cse,canonicalize,raise,dce", folder=folder).out
    assert f"  {FATES[name]}\n" in text, text


@pytest.mark.parametrize("name", sorted(FATES.keys() - {"six"}))
def test_pairs_follow_what_is_gone(folder: Path, name: str) -> None:
    passes = "fold,cse,canonicalize,raise,dce,fuse"
    done = irc_here("explain", "gone.irc", f"%{name}", "%y", "-p", passes, folder=folder)
    assert done.out.startswith(f"{FATES[name].removeprefix('removed').strip()}\n"), done.err


@pytest.mark.parametrize("model", ["gone.irc", f"{EXAMPLES}/block.py:block"])
def test_every_value_has_a_fate(folder: Path, model: str) -> None:
    """No value of a program vanishes without a pass that is named."""
    module = load(folder / model if model.endswith(".irc") else model)
    for operation in module.main.block:
        for result in operation.results:
            text = irc.explain(module, result.name, settings=Settings())
            assert re.search(r"^  (removed   by|kernel|view|host|folded|input|library)", text, re.MULTILINE), text
