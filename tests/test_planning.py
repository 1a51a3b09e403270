"""`irc plan`: plans as files, edits with what they cost, and what differs between two plans."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import interpreter
from irc.diagnostics import UNKNOWN, IrcError
from irc.driver import Settings, load
from irc.driver.arrays import given_inputs
from irc.driver.measuring import relative_error
from irc.driver.planning import read
from irc.driver.workbench import Workbench
from irc.passes.fuse import Fuse
from irc.plan_difference import differences, of_groups
from irc.plan_edits import Edit
from irc.plan_file import Entry, PlanFile, read_plan_file
from irc.verifier import verify
from tests.command_line import irc_here

# A block of a transformer with a gated layer, whose plan has kernels of one and of several operations.
BLOCK = """irc text 1
module @block {
  func @main<S in [1, 64]>(%x: f32[S, 32], %wq: f32[32, 32], %wk: f32[32, 32], %wv: f32[32, 32], %wo: f32[32, 32], %wg: f32[32, 64], %wu: f32[32, 64], %wd: f32[64, 32], %g: f32[32], %b: f32[32]) -> (out: f32[S, 32], total: f32[S], cols: f32[]) {
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
    %cols = reduce_max %out {axes = [0, 1], keep_dims = false} : f32[]
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
    "without what is between": (
        "host",
        [("split", "total"), ("split", "ln2"), ("merge", "ln2,total")],
        "plan.refused",
        "rule F1",
    ),
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


# -- joining two values ----------------------------------------------------------------------------------------

JOINED = {
    "entries": ([("split", "total:%total")], ("out", "total"), ["out total"], "--merge @out,@total: legal"),
    "among others": ([("split", "h"), ("split", "ln2")], ("attended", "ln2"), ["attended ln2"], "--merge"),
    "a member moved": ([], ("out", "cols"), ["out cols", "total"], "--split @total:%out --merge %out,@cols: legal"),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_apply_joins_two_values(folder: Path, name: str) -> None:
    edits, ends, expected, words = JOINED[name]
    (folder / "joined.json").write_bytes((folder / "host.json").read_bytes())
    if edits:
        done = irc_here("plan", "edit", "joined.json", *arguments(edits), folder=folder)
        assert done.code == 0, done.err
    values = [f"%{end}" for end in ends]
    done = irc_here("explain", "block.irc", *values, "--apply", "joined.json", folder=folder)
    assert done.code == 0 and words in done.out and "launches" in done.out, done.out + done.err
    assert set(expected) <= {" ".join(entry.members) for entry in read(folder / "joined.json").groups}
    check_replay(folder, "joined.json", "host")
    again = irc_here("explain", "block.irc", *values, "--apply", "joined.json", folder=folder)
    assert again.code == 0 and "in one kernel already" in again.out


@pytest.mark.parametrize(
    "ends, code, words",
    [
        (("ln1", "p"), "plan.refused", "rule F1: matmul %q"),
        (("total", "cols"), "plan.refused", "rule F6"),
        (("ln1", "q"), "plan.edit", "%q is computed by a library"),
        (("x", "p"), "plan.edit", "%x is an input"),
        (("kt", "p"), "plan.edit", "%kt is a view"),
        (("p",), "usage.arguments", "two values"),
    ],
)
def test_what_cannot_be_joined_leaves_no_plan(folder: Path, ends: tuple[str, ...], code: str, words: str) -> None:
    values = [f"%{end}" for end in ends]
    done = irc_here("explain", "block.irc", *values, "--apply", "new.json", folder=folder)
    assert done.code and f"error[{code}]" in done.err and words in done.err, done.err
    assert not (folder / "new.json").exists()


# -- plans at random -------------------------------------------------------------------------------------------


def random_edit(generator: random.Random, plan: PlanFile) -> tuple[str, str]:
    """An edit of names that a plan has, legal or not."""
    names = [*(entry.name for entry in plan.groups), *(f"%{name}" for entry in plan.groups for name in entry.members)]
    one, other, third = (generator.choice(names) for _ in range(3))
    number = generator.choice((1, 2, 3, 16, 64))
    return generator.choice([
        ("merge", f"{one},{other}"), ("merge", f"{one},{other},{third}"), ("split", one), ("split", f"{one}:{other}"),
        ("split", f"{one}:{number}"), ("duplicate", one), ("duplicate", f"{one}:{other}"), ("library", one),
        ("schedule", f"{one}:n={number},warps=2"), ("schedule", f"{one}:blocks={number}x32"), ("kernel", one),
    ])  # fmt: skip


@pytest.mark.parametrize("products", ["host", "irc"])
def test_random_edits_never_give_a_wrong_program(folder: Path, products: str) -> None:
    """Each edit is legal and the program computes the same, or it is an error of an edit and the plan stays."""
    generator = random.Random(16)
    bench = Workbench(folder / "block.irc", None, Settings(products=products))
    plan = read(folder / f"{products}.json")
    followed = bench.follow(plan, "plan.json")
    given = given_inputs(bench.module.main, None, {"S": 5}, 0)
    expected = interpreter.run(bench.module, given)
    legal = 0
    for number in range(60):
        name, argument = random_edit(generator, plan)
        try:
            _, new, followed = bench.edit(plan, Edit(name, argument, number), followed, "plan.json")
        except IrcError as error:
            assert error.code in ("plan.edit", "plan.refused", "fuse.schedule"), f"--{name} {argument}\n{error}"
            continue
        legal += 1
        verify(followed.module)
        for output, array in interpreter.run(followed.module, given).items():
            assert relative_error(array, expected[output]) <= 2e-6, f"--{name} {argument}"
        assert read_plan_file(new.text.encode(), "plan.json").text == new.text
        assert not differences(new, read_plan_file(new.text.encode(), "plan.json"))
        assert [entry.members for entry in bench.follow(new, "plan.json").plan.groups] == [
            entry.members for entry in new.groups]  # fmt: skip
        plan = new
    assert 5 <= legal <= 50


# -- files -----------------------------------------------------------------------------------------------------


def test_a_plan_of_another_model_is_named(folder: Path) -> None:
    """It is not --dim that is wrong: the sizes are those of the plan."""
    (folder / "other.irc").write_text("""irc text 1
module @m {
  func @main<N>(%x: f32[N]) -> f32[N] {
    %y = exp %x : f32[N]
    return %y
  }
}
""")
    for words in (("edit", "host.json", "other.irc", "--split", "p"), ("diff", "host.json", "host.json", "other.irc")):
        done = irc_here("plan", *words, folder=folder)
        assert done.code == 2 and "error[plan.model]: host.json was made for S=64, and the model is another" in done.err


@pytest.mark.parametrize("options, words", [("n=3", "`n` of a schedule is 3"), ("warps=64", "`warps` of a schedule"),
                                            ("x=4", "no option `x`"), ("i=64", "block of `i`"),
                                            ("order=2", "an `order` of blocks")])  # fmt: skip
def test_schedules_are_refused_by_rule_and_place(folder: Path, options: str, words: str) -> None:
    """With one status, whether they are edited by hand or by an option."""
    done = irc_here("plan", "edit", "host.json", "--schedule", f"ln1:{options}", "-o", "no.json", folder=folder)
    assert done.code == 1 and "error[plan.refused]: plan entry @ln1: rule F15: " in done.err and words in done.err
    assert done.err.count("F15: ") == 1
    plan = json.loads((folder / "host.json").read_text())
    entry = next(entry for entry in plan["groups"] if entry["name"] == "ln1")
    name, _, value = options.partition("=")
    entry["schedule"] = {name: int(value)}
    (folder / "hand.json").write_text(json.dumps(plan, indent=1))
    done = irc_here("opt", "block.irc", "-p", "default{fuse.plan=hand.json}", folder=folder)
    assert done.code == 1 and "error[plan.refused]: plan entry @ln1: rule F15" in done.err and words in done.err
    assert "--> hand.json:" in done.err


def test_outputs_are_checked_before_the_work(folder: Path) -> None:
    """A folder in place of a file is found before a model is read."""
    (folder / "taken").mkdir()
    for words in (("opt", "gone.irc", "-p", "default", "--plan", "taken"), ("plan", "gone.irc", "-o", "taken"),
                  ("opt", "gone.irc", "-p", "default", "-o", "taken"),
                  ("extract", "gone.irc", "--from", "x", "--to", "y", "-o", "taken")):  # fmt: skip
        done = irc_here(*words, folder=folder)
        assert done.code == 2 and "error[file.exists]: taken is a folder" in done.err, done.err


def test_each_entry_is_in_one_difference(folder: Path) -> None:
    """Of plans for libraries and for kernels, and of random partitions: each entry that only one plan has is stated
    once, and what is stated leads from one plan to the other."""
    random_plans = random.Random(0)
    files = [read_plan_file((folder / f"{products}.json").read_bytes(), "p") for products in ("host", "irc")]
    pairs = [(files[0], files[1]), (files[1], files[0])]
    names = "abcdefgh"
    for _ in range(300):
        plans = []
        for _ in range(2):
            groups: dict[int, list[str]] = {}
            for name in names:
                groups.setdefault(random_plans.randrange(5), []).append(name)
            plans.append(PlanFile(tuple(Entry(group[-1], tuple(group), None, None, UNKNOWN)
                                        for group in groups.values() if random_plans.random() < 0.9)))  # fmt: skip
        pairs.append((plans[0], plans[1]))
    for one, other in pairs:
        stated = list(of_groups(one.groups, other.groups))
        sets = [{frozenset(entry.members): entry.name for entry in plan.groups} for plan in (one, other)]
        for side, (plan, rest) in enumerate((sets, sets[::-1])):
            names_of_side = [name for each in stated for name in (each.before, each.after)[side]]
            assert sorted(names_of_side) == sorted(name for group, name in plan.items() if group not in rest)
        assert len({str(each).partition(" ")[0] for each in stated if each.kind in ("changed", "removed")}) == len(
            [each for each in stated if each.kind in ("changed", "removed")])  # fmt: skip


def test_comments_and_what_a_plan_was_made_for_stay(folder: Path) -> None:
    content = json.loads((folder / "host.json").read_text())
    content["comment"] = ["a plan", "of two lines"]
    content["groups"][1]["comment"] = "the softmax"
    (folder / "commented.json").write_text(json.dumps(content))
    done = irc_here("plan", "edit", "commented.json", "--split", "p", "--merge", "scaled,p", folder=folder)
    assert done.code == 0, done.err
    plan = read(folder / "commented.json")
    assert plan.comment == ("a plan", "of two lines")
    assert {" ".join(entry.members): entry.comment for entry in plan.groups}["scaled p"] == ("the softmax",)
    assert plan.made_for.model == "block.irc" and plan.made_for.sizes == {"S": 64}
    done = irc_here("plan", "diff", "host.json", "commented.json", folder=folder)
    assert done.out == "comment of @p: the softmax\ncomment of the plan: a plan of two lines\n"
    same = irc_here("plan", "diff", "host.json", "host.json", folder=folder)
    assert (same.code, same.out, same.err) == (0, "", "")


def test_a_plan_runs_no_code_by_itself(folder: Path) -> None:
    (folder / "mine.py").write_text("raise SystemExit('it ran')\n")
    content = json.loads((folder / "host.json").read_text())
    for made_for, words in (
        ({"model": "mine.py:block"}, "mine.py:block"),
        ({"model": "block.irc", "pipeline": "default{fuse.policy=mine.py:small}"}, "names files"),
        ({"model": "block.irc", "pipeline": "default,fuse{groups=e.so:x}"}, "names files"),
        ({"model": "block.irc", "pipeline": "default{fuse.schedule=./e:x}"}, "names files"),
        ({"model": "block.irc", "pipeline": "default,fuse{plan=/tmp/other}"}, "names files"),
        ({"model": "block.irc", "pipeline": "default,fuse{plan=host}"}, "names files"),
        ({"model": "block.irc", "device": "/tmp/secret.toml"}, "made for the device"),
        ({"model": "../block.irc"}, "not a plain path"),
        ({}, "names no model"),
    ):
        (folder / "other.json").write_text(json.dumps({**content, "made_for": made_for}))
        done = irc_here("plan", "edit", "other.json", "--split", "p", folder=folder)
        assert done.code == 2 and "error[plan.model]" in done.err and words in done.err, done.err
    done = irc_here("plan", "edit", "other.json", "block.irc", "--split", "p", folder=folder)
    assert done.code == 0, done.err


def test_options_that_are_no_files_are_taken_from_a_plan(folder: Path) -> None:
    content = json.loads((folder / "host.json").read_text())
    made_for = {"model": "block.irc", "pipeline": "default{fuse.products=host}", "device": "a100", "numerics": "exact"}
    (folder / "words.json").write_text(json.dumps({**content, "made_for": made_for}))
    report = irc.edit_plan(folder / "words.json", [("split", "p")])
    assert report.device == "a100" and read(folder / "words.json").made_for.numerics == "exact"


def test_native_code_is_no_python_file(folder: Path) -> None:
    (folder / "e.so").write_bytes(b"\x7fELF")
    for passes, code in (("fuse{groups=e.so:x}", "pass.option"), ("fuse{schedule=e.so:x}", "pass.option"),
                         ("rewrite{rules=e.so}", "file.format")):  # fmt: skip
        done = irc_here("opt", "block.irc", "-p", passes, folder=folder)
        assert done.code in (2, 3) and f"error[{code}]" in done.err, done.err
    done = irc_here("print", "block.irc", "--load", "e.so", folder=folder)
    assert "error[file.format]" in done.err, done.err


def test_two_outputs_are_not_one_file(folder: Path) -> None:
    (folder / "link").symlink_to("one.txt")
    for words in (
        ("plan", "block.irc", "-o", "one.txt", "--remarks", "link"),
        ("opt", "block.irc", "-p", "fuse", "-o", "one.txt", "--plan", "./one.txt"),
        ("compile", "block.irc", "--backend", "triton", "-o", "one.txt", "--remarks", "one.txt/remarks"),
        ("experiment", "block.irc", "-p", "a=default", "--csv", "one.txt", "--html", "one.txt"),
    ):
        done = irc_here(*words, folder=folder)
        assert done.code == 2 and "error[usage.arguments]" in done.err and "both write" in done.err, done.err
        assert not (folder / "one.txt").exists()


@pytest.mark.parametrize("edit", [("split", "cols:{}"), ("schedule", "cols:n={}"), ("schedule", "cols:blocks={}")])
@pytest.mark.parametrize("digits", ["9" * 5000, "\u0663"])
def test_numbers_that_are_none_are_named(folder: Path, edit: tuple[str, str], digits: str) -> None:
    name, argument = edit
    with pytest.raises(IrcError) as raised:
        irc.edit_plan(folder / "host.json", [(name, argument.format(digits))], output=folder / "none.json")
    assert raised.value.code == "plan.edit" and not (folder / "none.json").exists()


def test_a_plan_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = folder / "host.json", os.open

    def refusing(name: Any, *rest: Any, **more: Any) -> int:
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(name, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    for reading in (lambda: read(path), Fuse(plan=str(path)).plan_file):
        with pytest.raises(IrcError) as raised:
            reading()
        assert raised.value.code == "file.unreadable"


def test_python_does_not_replace_a_model_by_its_plan(folder: Path) -> None:
    model = folder / "block.irc"
    for write in (lambda: irc.make_plan(model, model), lambda: irc.edit_plan(folder / "host.json", [("split", "p")],
                                                                            model, model)):  # fmt: skip
        with pytest.raises(IrcError) as raised:
            write()
        assert raised.value.code == "file.exists" and model.read_text() == BLOCK


def test_a_plan_by_a_policy_of_a_user_is_edited_without_it(folder: Path) -> None:
    """What a plan stands in place of is not among the passes that it names."""
    (folder / "small.py").write_text(
        "from irc.policy import policy\n\n@policy\ndef small(merge):\n    return merge.bytes_saved\n"
    )
    passes = "default{fuse.policy=small.py:small}"
    done = irc_here("plan", "block.irc", "-p", passes, "-o", "small.json", folder=folder)
    assert done.code == 0, done.err
    assert read(folder / "small.json").made_for.pipeline == "default"
    done = irc_here("plan", "edit", "small.json", "--split", "p", folder=folder)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "words, message",
    [
        (("edit", "host.json"), "plan edit needs an edit"),
        (("edit", "none.json", "--split", "p"), "there is no plan file none.json"),
        (("block.irc", "--split", "p"), "--split is an edit"),
        (("diff", "host.json"), "takes two plans"),
        (("block.irc", "block.irc"), "takes one MODEL"),
        (("block.irc", "-p", "fold"), "a plan needs a pipeline with fuse"),
        (("block.irc", "-o", "block.irc"), "would take the place of an input"),
        (("edit", "block.irc", "--split", "p"), "this is no plan file"),
    ],
)
def test_mistakes_are_named(folder: Path, words: tuple[str, ...], message: str) -> None:
    done = irc_here("plan", *words, folder=folder)
    assert done.code in (2, 3) and message in done.err, done.err
    assert (folder / "block.irc").read_text() == BLOCK


def test_plans_from_python(folder: Path) -> None:
    report = irc.make_plan(folder / "block.irc", folder / "python.json")
    assert report.plan == (folder / "python.json").read_text() and report.cost.launches == report.kernels
    edited = irc.edit_plan(folder / "python.json", [("split", "p"), ("schedule", "ln1:warps=2")])
    assert [step.after.launches for step in edited.steps] == [report.kernels + 1] * 2
    changes = irc.compare_plans(folder / "host.json", folder / "python.json", folder / "block.irc")
    assert [each.kind for each in changes.differences] == ["split", "schedule"]
    assert changes.before is not None and changes.after is not None
    assert changes.after.seconds > changes.before.seconds


def test_a_plan_with_products_says_what_it_was_made_with(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(BLOCK)
    written = irc_here("plan", "m.irc", "--products", "irc", "-o", "p.json", folder=tmp_path)
    assert written.code == 0, written.err
    pipeline = ("-p", "default{fuse.plan=p.json}")
    followed = irc_here("kernels", "m.irc", *pipeline, folder=tmp_path)
    assert followed.code == 1 and "give --products irc, too" in followed.err
    assert irc_here("kernels", "m.irc", *pipeline, "--products", "irc", folder=tmp_path).code == 0
