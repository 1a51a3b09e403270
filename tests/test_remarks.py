"""Remarks: every decision of fusion, in the order in which it was made, as lines of JSON and as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import block
from irc.driver import Settings, make_plan, opt
from irc.driver.remarking import remarks
from irc.plan_file import read_plan_file
from irc.planner import FusionGraph, Partition, planner
from irc.remarks import Remark, Remarks
from tests.command_line import TEXT, irc_here, model_proto

ROOT = Path(__file__).resolve().parent.parent


def merged(decisions: list[Remark]) -> dict[str, set[str]]:
    """The groups that the remarks make, by name: each merge is of groups that are there at that time."""
    groups: dict[str, set[str]] = {}
    for each in decisions:
        if each.verdict == "candidate":
            groups[each.kernel] = set(each.candidate)
        elif each.verdict == "merged":
            parts = [groups.pop(name) for name in each.candidate]
            groups[each.kernel] = set().union(*parts)
    return groups


@pytest.mark.parametrize("products", ["host", "irc", "auto"])
@pytest.mark.parametrize("policy", ["greedy", "none"])
def test_remarks_make_the_plan(products: str, policy: str) -> None:
    """The groups of the plan are those of the merges that the remarks name, and each has a remark."""
    settings, pipeline = Settings(products=products), f"default{{fuse.policy={policy}}}"  # type: ignore[arg-type]
    decisions = remarks(block.block(), pipeline=pipeline, settings=settings)
    plan = read_plan_file(make_plan(block.block(), pipeline=pipeline, settings=settings).plan.encode(), "plan")
    assert [each.number for each in decisions] == list(range(1, len(decisions) + 1))
    assert merged(decisions) == {entry.name: set(entry.members) for entry in plan.groups}
    kernels = [each.kernel for each in decisions if each.verdict == "kernel"]
    assert sorted(kernels) == sorted(entry.name for entry in plan.groups)
    by = {each.by for each in decisions if each.verdict == "merged"}
    assert by <= {policy} and bool(by) == (policy == "greedy")


@pytest.mark.parametrize("name", ["greedy", "beam", "anneal"])
def test_remarks_of_planners(name: str) -> None:
    """What a planner chooses is remarked on as its own."""
    pipeline = f"default{{fuse.planner={name}}}"
    decisions = remarks(block.block(), pipeline=pipeline)
    plan = read_plan_file(make_plan(block.block(), pipeline=pipeline).plan.encode(), "plan")
    assert merged(decisions) == {entry.name: set(entry.members) for entry in plan.groups}
    assert {each.by for each in decisions if each.verdict == "merged"} == {name}


@planner
def three_questions(graph: FusionGraph) -> Partition:
    """Judges a legal set twice, asks what one costs, and judges an illegal one."""
    for names in (["attended", "ln_2"], ["attended", "ln_2"], ["ln_1"], ["ln_1", "out"]):
        units = [graph[name] for name in names]
        if names == ["ln_1"]:
            graph.cost(units)
        else:
            graph.legal(units)
    return Partition(graph)


def test_what_a_planner_asks_is_remarked_on_in_order() -> None:
    """Each set once: what it costs, that it is legal, or the rule, with the names of this graph."""
    asked = [each for each in remarks(block.block(), pipeline=f"default{{fuse.planner={__file__}:three_questions}}")
             if each.by == "three_questions"]  # fmt: skip
    assert [(each.verdict, each.candidate, each.kernel) for each in asked] == [
        ("legal", ("attended", "ln_2"), "ln_2"), ("priced", ("ln_1",), "ln_1"), ("illegal", ("ln_1", "out"), "")]
    assert asked[1].seconds and asked[1].seconds > 0 and asked[2].rule == "F1" and "@ln_1" in asked[2].reason
    assert json.loads(asked[1].line)["seconds"] == asked[1].seconds and " us" in str(asked[1])


def test_remarks_of_a_command_that_fails_are_written_up_to_the_error(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from irc.planner import planner\n\n@planner\ndef bad(graph):\n"
                                     "    graph.cost([graph.units[0]])\n    raise ValueError('no plan')\n")  # fmt: skip
    (tmp_path / "p.json").write_text('{"groups": [{"members": ["ln_1", "attended"]}]}')
    for options, verdict in (("fuse.planner=bad.py:bad", "priced"), ("fuse.plan=p.json", "illegal")):
        done = irc_here("plan", f"{ROOT}/examples/block.py:block", "-p", f"default{{{options}}}",
                        "--remarks", "r.jsonl", folder=tmp_path)  # fmt: skip
        assert done.code != 0 and "note: r.jsonl has the decisions up to the error" in done.err
        lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert lines[-1]["verdict"] == verdict and [each["number"] for each in lines] == [*range(1, len(lines) + 1)]
        (tmp_path / "r.jsonl").unlink()
    done = irc_here("plan", "nothing.onnx", "--remarks", "r.jsonl", folder=tmp_path)
    assert done.code != 0 and not (tmp_path / "r.jsonl").exists() and "r.jsonl" not in done.err


def test_remarks_change_nothing() -> None:
    """What is recorded has no part in what is decided, and nothing is recorded by default."""
    for products in ("host", "irc", "auto"):
        plain = opt(block.block(), "default", settings=Settings(products=products))  # type: ignore[arg-type]
        recorded = Remarks()
        settings = Settings(products=products, remarks=recorded)  # type: ignore[arg-type]
        assert str(opt(block.block(), "default", settings=settings)) == str(plain) and recorded.all


def test_the_number_of_remarks_is_linear() -> None:
    """Twice as many layers have twice as many decisions, of as many bytes each."""
    def text_of(layers: int) -> str:
        lines = [f"    %a{n} = exp %b{n - 1} : f32[8, 8]\n    %b{n} = softmax %a{n} {{axis = -1}} : f32[8, 8]\n"
                 f"    %c{n} = matmul %b{n}, %w : f32[8, 8]\n" for n in range(1, layers + 1)]  # fmt: skip
        body = "".join(lines).replace("exp %b", "exp %c").replace("exp %c0", "exp %x")
        return ("irc text 1\nmodule @m {\n  func @main(%x: f32[8, 8], %w: f32[8, 8]) -> f32[8, 8] {\n"
                f"{body}    return %c{layers}\n  }}\n}}\n")  # fmt: skip

    from irc.parser import parse

    counts = [len(remarks(parse(text_of(layers)))) for layers in (4, 8, 16)]
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


GOLDEN = """\
    1  seed       candidate @scaled
    2  seed       candidate @p
    3  seed       candidate @y
    4  frugal     scored    @scaled, @p -> @p: score 32768, saves 32,768 bytes
    5  frugal     rejected  @p, @y: keeps reductions apart, saves 32,768 bytes
    6  frugal     merged    @scaled, @p -> @p
    7  frugal     rejected  @p, @y: keeps reductions apart, saves 32,768 bytes
    8  frugal     kernel    @p: 2 operations
    9  seed       kernel    @y: 1 operation
   10  split      whole     @p: by rules
"""


def test_remarks_as_text(tmp_path: Path) -> None:
    words = ("explain", "examples/block.py:scores", "--remarks", "-p", "default{fuse.policy=examples/rules.py:frugal}")
    done = irc_here(*words, folder=ROOT)
    assert done.code == 0 and done.out == GOLDEN, done.out + done.err
    on_y = irc_here(*words[:2], "%y", *words[2:], folder=ROOT)
    assert [line.split()[0] for line in on_y.out.splitlines()] == ["3", "5", "7", "9"], on_y.out
    on_scaled = irc_here(*words[:2], "%scaled", *words[2:], folder=ROOT)  # which @p has from its merge on
    assert [line.split()[0] for line in on_scaled.out.splitlines()] == ["1", "4", "6", "7", "8", "10"], on_scaled.out
    unknown = irc_here(*words[:2], "%scalde", *words[2:], folder=ROOT)
    assert unknown.code == 2 and "did you mean scaled" in unknown.err


def test_remarks_as_lines_of_json(tmp_path: Path) -> None:
    import onnx

    onnx.save(model_proto(), tmp_path / "m.onnx")
    for command in (("opt", "m.onnx", "-p", "default"), ("kernels", "m.onnx"), ("plan", "m.onnx"),
                    ("compile", "m.onnx", "--backend", "triton", "-o", "out")):  # fmt: skip
        done = irc_here(*command, "--remarks", "r.jsonl", folder=tmp_path)
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
        assert {"by", "verdict", "candidate", "function"} <= set.intersection(*(set(line) for line in lines))
        scored = next(line for line in lines if line["verdict"] == "scored")
        assert scored["score"] > 0 and scored["bytes_saved"] > 0
        assert any("m.onnx (" in each for each in scored["places"])
        library = next(line for line in lines if line["verdict"] == "library")
        assert library["candidate"] == ["product"]
        (tmp_path / "r.jsonl").unlink()
    failing = irc_here("opt", "m.onnx", "-p", "nothing", "--remarks", "r.jsonl", folder=tmp_path)
    assert failing.code and not (tmp_path / "r.jsonl").exists()
    onto = irc_here("plan", "m.onnx", "--remarks", "m.onnx", folder=tmp_path)
    assert onto.code and onnx.load(tmp_path / "m.onnx") == model_proto()


def test_remarks_of_plans_patterns_and_other_passes(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(TEXT)
    (tmp_path / "plan.json").write_text('{"groups": [{"members": ["scaled", "p"]}]}')
    followed = remarks(tmp_path / "m.irc", pipeline=f"fuse{{plan={tmp_path}/plan.json}}")
    assert [(each.by, each.candidate, each.kernel) for each in followed if each.verdict == "merged"] == [
        ("plan", ("scaled", "p"), "p")]  # fmt: skip
    split = remarks(block.scores(), pipeline="default{split.parts=4}", settings=Settings(dims={"M": 2, "N": 4096}))
    assert [(each.by, each.candidate) for each in split if each.verdict == "split"] == [("split", ("y",))]
