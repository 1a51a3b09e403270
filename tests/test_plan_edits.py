"""Plans edited by hand: each entry becomes a kernel of just its members, or is rejected with its rule and its place."""

from __future__ import annotations

import copy
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import interpreter
from irc.diagnostics import Location
from irc.driver import load
from irc.driver.arrays import given_inputs
from irc.driver.counting import kernel_operations
from irc.plan_file import PRODUCT_KEYS, SIBLING_KEYS, Entry, MadeFor, PlanFile, read_plan_file
from irc.schedule_options import ScheduleOptions
from tests.command_line import Result, irc_here

TEXT = """irc text 1
module @edited {
  func @main<N in [1, 64]>(%x: f32[N, 16], %w: f32[16, 16], %p: bool[])
      -> (f32[N, 16], f32[N], f32[16], f32[N, 16], f32[N, 16]) {
    %a = exp %x : f32[N, 16]
    %b = tanh %a : f32[N, 16]
    %c = sigmoid %b : f32[N, 16]
    %d = add %a, %c : f32[N, 16]
    %s = softmax %d {axis = -1} : f32[N, 16]
    %e = mul %s, %x : f32[N, 16]
    %r = reduce_sum %e {axes = [1], keep_dims = false} : f32[N]
    %q = reduce_sum %e {axes = [0], keep_dims = false} : f32[16]
    %u = sub %e, %q : f32[N, 16]
    %m = matmul %e, %w : f32[N, 16]
    %n = neg %m : f32[N, 16]
    %v = reshape %n {shape = [N, 4, 4]} : f32[N, 4, 4]
    %z = abs %v : f32[N, 4, 4]
    %y = reshape %z {shape = [N, 16]} : f32[N, 16]
    %k = const 2.0 : f32[]
    %i = if %p : f32[N, 16] {
      %g = mul %y, %k : f32[N, 16]
      %h = sin %g : f32[N, 16]
      yield %h
    } else {
      %o = cos %y : f32[N, 16]
      yield %o
    }
    return %i, %r, %q, %y, %u
  }
}
"""
BASE = [["a", "b", "c", "d"], ["s", "e"], ["r"], ["q"], ["u"], ["n", "z"], ["g", "h"], ["o"]]
Groups = list[dict[str, Any]]


def groups(*members: list[str]) -> Callable[[Groups], Groups]:
    """A plan of these groups, written by hand."""
    return lambda base: [{"members": names} for names in members]


def instead(index: int, *members: list[str]) -> Callable[[Groups], Groups]:
    """The plan with other groups in the place of one, which keep its name and hash."""
    return lambda base: [*base[:index], *({**base[index], "members": names} for names in members), *base[index + 1 :]]


def changed(**values: Any) -> Callable[[Groups], Groups]:
    """The plan with other values in the second entry."""
    return lambda base: [{**entry, **values} if index == 1 else entry for index, entry in enumerate(base)]


def without(*keys: str) -> Callable[[Groups], Groups]:
    return lambda base: [{key: value for key, value in entry.items() if key not in keys} for entry in base]


# What an editor does to the plan, and the kernels that come of it, those of one operation aside.
LEGAL: dict[str, tuple[Callable[[Groups], Groups], list[list[str]]]] = {
    "as it is": (lambda base: base, [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "without hashes": (without("hash"), [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "members alone": (without("hash", "name", "proposer"), [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "split": (instead(0, ["a", "b"], ["c", "d"]), [["a", "b"], ["c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "split into single ones": (instead(0, ["a"], ["b"], ["c"], ["d"]), [["s", "e"], ["n", "z"], ["g", "h"]]),
    "member added": (instead(1, ["d", "s", "e"]), []),  # rejected: it is in two entries, see REJECTED
    "member moved": (lambda base: [{**base[0], "members": ["a", "b", "c"]}, {**base[1], "members": ["d", "s", "e"]}],
                     [["a", "b", "c"], ["d", "s", "e"]]),
    "member removed": (instead(0, ["a", "b", "c"]), [["a", "b", "c"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "entries joined": (groups(["a", "b", "c", "d", "s", "e"]), [["a", "b", "c", "d", "s", "e"]]),
    "entry removed": (lambda base: base[1:], [["s", "e"], ["n", "z"], ["g", "h"]]),
    "no entries": (groups(), []),
    "a reduction added": (groups(["s", "e", "r"]), [["s", "e", "r"]]),
    "reductions over two axes": (groups(["r", "q"]), [["r", "q"]]),
    "a reduction over rows after a softmax": (groups(["s", "e", "q"]), [["s", "e", "q"]]),
    "in another order": (lambda base: [{**entry, "members": entry["members"][::-1]} for entry in base[::-1]],
                         [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "percent signs": (groups(["%a", "%b"]), [["a", "b"]]),
    "a name twice in an entry": (groups(["a", "b", "a"]), [["a", "b"]]),
    "views and constants named": (groups(["n", "v", "z", "y"], ["g", "k", "h"]), [["n", "z"], ["g", "h"]]),
    "another name and proposer": (changed(name="mine", proposer="me"),
                                  [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
    "a member in two entries": (groups(["a", "b"], ["a", "c", "d"]), [["a", "b"], ["a_1", "c", "d"]]),
    "a member in all that reads it": (groups(["a", "b", "c"], ["d", "a", "s"], ["n", "z"]),
                                      [["a", "b", "c"], ["a_1", "d", "s"], ["n", "z"]]),
    "main named": (changed(function="main"), [["a", "b", "c", "d"], ["s", "e"], ["n", "z"], ["g", "h"]]),
}  # fmt: skip
del LEGAL["member added"]
# ... and the code, the rule, words of the error, and which entries are rejected.
REJECTED: dict[str, tuple[Callable[[Groups], Groups], str, str, tuple[int, ...]]] = {
    "a member between left out": (groups(["a", "d"]), "plan.refused", "rule F1: %b stands between", (0,)),
    "a product between": (groups(["s", "e"], ["e2", "n"]), "plan.stale", "no value %e2", (1,)),
    "across a product": (groups(["e", "n"]), "plan.refused", "rule F1: matmul %m", (0,)),
    "two groups that need one another": (groups(["a", "d"], ["b", "c"]), "plan.refused", "rule F1", (0,)),
    "a product": (groups(["e", "m"]), "plan.refused", "rule F2", (0,)),
    "a product alone": (groups(["a", "b"], ["m"]), "plan.refused", "rule F2", (1,)),
    "rows that read what is reduced across them": (groups(["r", "q", "u"]), "plan.refused", "rule F6: %u", (0,)),
    "an unknown name": (groups(["a", "absent"]), "plan.stale", "no value %absent", (0,)),
    "an argument": (groups(["x", "a"]), "plan.refused", "%x is an argument", (0,)),
    "a member in two entries": (groups(["a", "b"], ["b", "c"]), "plan.refused", "rule F3: the group computes %b", (0,)),
    "an entry twice": (groups(["a", "b"], ["b", "a"]), "plan.refused", "rule F3: nothing outside reads", (1,)),
    "a reduction in two entries": (groups(["s", "e"], ["e", "r"], ["s", "q"]), "plan.refused", "rule F18: %s", (2,)),
    "entries that share and need one another": (groups(["a", "b", "d"], ["a", "c"]), "plan.refused",
                                                "rule F1: sigmoid %c needs @d", (1,)),
    "a view alone": (groups(["v"]), "plan.refused", "rule F2: kernels read through %v", (0,)),
    "into a region": (groups(["z", "g"]), "plan.refused", "rule F2: %z and %g are in different blocks", (0,)),
    "across two regions": (groups(["h", "o"]), "plan.refused", "rule F2: %h and %o are in different blocks", (0,)),
    "an operation with regions": (groups(["i"]), "plan.refused", "rule F2", (0,)),
    "a hash of something else": (changed(hash="0" * 16), "plan.stale", "have changed", (1,)),
    "a function that is not there": (changed(function="other"), "plan.stale", "no function @other", (1,)),
    "several": (groups(["r", "q", "u"], ["a", "b"], ["absent"], ["m"]), "plan.refused", "rule F2", (0, 2, 3)),
}
# ... and files that are no plans.
MISREAD: dict[str, tuple[Callable[[Groups], Any], str]] = {
    "an entry without members": (lambda base: [{"name": "a"}], "no list `members`"),
    "an empty entry": (groups([]), "no list `members`"),
    "a key with a mistake": (lambda base: [{"member": ["a"]}], "did you mean members"),
    "numbers for names": (lambda base: [{"members": [1, 2]}], "no list `members`"),
    "a list for an entry": (lambda base: [["a", "b"]], 'an entry is ["a", "b"]'),
    "a number for a hash": (changed(hash=3), "`hash` of an entry is 3"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    (folder / "m.irc").write_text(TEXT)
    (folder / "wide.json").write_text(json.dumps({"groups": [{"members": names} for names in BASE]}))
    done = irc_here("opt", "m.irc", "-p", "fuse{plan=wide.json}", "--plan", "plan.json", folder=folder)
    assert done.code == 0, done.err
    return folder


def edited(folder: Path, edit: Callable[[Groups], Any]) -> Result:
    plan = json.loads((folder / "plan.json").read_text())
    plan["groups"] = edit(copy.deepcopy(plan["groups"]))
    (folder / "edited.json").write_text(json.dumps(plan, indent=1))
    (folder / "out.irc").unlink(missing_ok=True)
    return irc_here("opt", "m.irc", "-p", "fuse{plan=edited.json}", "-o", "out.irc", folder=folder)


def line_of(folder: Path, index: int) -> int:
    """Where an entry begins in the edited plan, by looking for braces that are indented as entries are."""
    lines = (folder / "edited.json").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line == "  {"][index]


@pytest.mark.parametrize("name", LEGAL)
def test_legal_edits_replay(folder: Path, name: str) -> None:
    edit, expected = LEGAL[name]
    done = edited(folder, edit)
    assert done.code == 0 and "note" not in done.err, done.err
    module, before = load(folder / "out.irc"), load(folder / "m.irc")
    members = [[inner.results[0].name for inner in kernel.regions[0].block if not inner.definition.is_terminator
                and inner.name not in ("reshape", "const")] for kernel in kernel_operations(module)]  # fmt: skip
    renamed = {inner.name: result.name for kernel in kernel_operations(module)
               for result, inner in zip(kernel.results, kernel.regions[0].block.terminator.inputs, strict=True)}
    kernels = [[renamed.get(member, member) for member in kernel] for kernel in members]
    assert sorted(sorted(kernel) for kernel in kernels if len(kernel) > 1) == sorted(map(sorted, expected))
    computed = {member.removesuffix("_1") for kernel in kernels for member in kernel}
    assert sorted(computed) == sorted(itertools.chain(*BASE))
    given = given_inputs(before.main, None, {"N": 3}, 0)
    results = zip(interpreter.run(before, given).values(), interpreter.run(module, given).values(), strict=True)
    for one, other in results:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REJECTED)
def test_illegal_edits_are_rejected_with_rule_and_place(folder: Path, name: str) -> None:
    edit, code, words, rejected = REJECTED[name]
    done = edited(folder, edit)
    assert done.code == 1 and f"error[{code}]" in done.err and words in done.err, done.err
    places = {line_of(folder, index) for index in rejected}
    named = {int(line.rpartition(":")[2]) for line in done.err.splitlines() if "--> edited.json:" in line}
    assert named == places, done.err
    assert not (folder / "out.irc").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"groups": [{"members": ["a"]}],\n "groups": []}', "the key `groups` stands twice"),
        ('{"groups": [{"members": ["a"], "members": ["b"]}]}', "the key `members` stands twice"),
        ('{"groups": [\n {"members": ["a"]},\n]}', f"edited.json:{2 if sys.version_info >= (3, 13) else 3}"),
        ("", "edited.json:1"),
        ("[" * 100_000, "recursion"),
        ('{"groups": []} // a comment', "Extra data"),
        ('{\n "groups": [ // a comment\n]}', "use the key `comment`"),
        ('{"groups": [], "group": []}', "did you mean groups"),
        ('{"groups": [{"members": ["a"], "comment": 3}]}', "`comment` of an entry is 3"),
        ('{"groups": [], "products": 3}', "`products` is no list"),
        ('{"groups": [],\n "products": [\n{"members": ["m"], "products": "me"}]}', "edited.json:3"),
        ('{"groups": [], "made_for": 3}', "`made_for` is 3"),
        ('{"groups": [], "made_for": {"sizes": {"N": "8"}}}', "`sizes` of `made_for`"),
        ('{"groups": [], "made_for": {"devise": "h100"}}', "did you mean device"),
        ('{"groups": [], "made_for": {"numerics": "exat"}}', "did you mean exact"),
        ('{"groups": [], "made_for": {"products": "foo"}}', '`products` of `made_for` is "foo"'),
        (f'{{{"".join(f"{chr(34)}{n}{chr(34)}: 0, " for n in range(100_000))}"9": 1}}', "the key `9` stands twice"),
    ],
)
def test_texts_that_are_no_plan(folder: Path, text: str, words: str) -> None:
    (folder / "edited.json").write_text(text)
    done = irc_here("opt", "m.irc", "-p", "fuse{plan=edited.json}", "-o", "out.irc", folder=folder)
    assert done.code == 3 and "error[plan.format]" in done.err and words in done.err, done.err


def test_a_mark_of_the_encoding_is_no_mistake(folder: Path) -> None:
    (folder / "edited.json").write_text("\ufeff" + json.dumps({"groups": [{"members": ["a", "b"]}]}))
    assert irc_here("opt", "m.irc", "-p", "fuse{plan=edited.json}", folder=folder).code == 0


@pytest.mark.parametrize("name", MISREAD)
def test_what_is_no_entry_is_an_error_of_format(folder: Path, name: str) -> None:
    edit, words = MISREAD[name]
    done = edited(folder, edit)
    assert done.code == 3 and "error[plan.format]" in done.err and words in done.err, done.err


def test_plans_of_several_functions_replay(tmp_path: Path) -> None:
    """The file that --plan writes has the groups of every function, each found again in its own."""
    (tmp_path / "m.irc").write_text(
        "irc text 1\nmodule @two {\n"
        "  func @main(%x: f32[8]) -> f32[8] {\n    %a = exp %x : f32[8]\n    %b = tanh %a : f32[8]\n"
        "    %c = call @other %b : f32[8]\n    return %c\n  }\n"
        "  func @other(%x: f32[8]) -> f32[8] {\n    %a = sin %x : f32[8]\n    %b = cos %a : f32[8]\n"
        "    return %b\n  }\n}\n"
    )
    done = irc_here("opt", "m.irc", "-p", "fuse", "--plan", "plan.json", folder=tmp_path)
    assert done.code == 0, done.err
    again = irc_here("opt", "m.irc", "-p", "fuse{plan=plan.json}", folder=tmp_path)
    assert again.code == 0 and again.out.count("kernel @") == 2
    assert again.out.replace("fuse(plan)", "fuse(greedy)") == done.out


def test_a_replayed_plan_is_the_plan(folder: Path) -> None:
    """What `fuse` plans of a model, written and replayed, is the same program."""
    done = irc_here("opt", "m.irc", "-p", "fuse", "--plan", "greedy.json", folder=folder)
    again = irc_here("opt", "m.irc", "-p", "fuse{plan=greedy.json}", folder=folder)
    assert again.code == 0 and again.out.replace("fuse(plan)", "fuse(greedy)") == done.out


def test_a_plan_file_read_and_written_again_is_the_same(folder: Path) -> None:
    """Comments, schedules, products and what the plan was made for stay; what is unknown is named."""
    text = PlanFile(
        (Entry("b", ("a", "b"), "12:34", None, Location(), ScheduleOptions(n=64, warps=8), "greedy", "exp, tanh",
               ("two lines", "of a comment")),
         Entry("c", ("c",), None, "other", Location())),
        (Entry("", ("m",), None, None, Location(), comment=("by hand",), products="host", keys=PRODUCT_KEYS,
               figures={"kernel_us": 3.25, "library_us": None, "reason": "by hand"}),),
        MadeFor("m.irc", "default", "auto", "exact", "h100", {"N": 64}), ("of the whole",),
        (Entry("q", ("q", "k"), None, "other", Location(), comment=("by hand",), keys=SIBLING_KEYS),),
    ).text  # fmt: skip
    again = read_plan_file(text.encode(), "p.json")
    assert again.text == text and json.loads(text)["groups"][0]["comment"] == ["two lines", "of a comment"]
    assert [entry.place.line for entry in again.entries] == [
        number for number, line in enumerate(text.splitlines(), 1) if line == "  {"]  # fmt: skip
    old = '{"schema": "irc.plan/1", "groups": [{"name": "b", "members": ["a", "b"], "proposer": "greedy"}]}'
    assert read_plan_file(old.encode(), "p.json").groups[0].members == ("a", "b")
