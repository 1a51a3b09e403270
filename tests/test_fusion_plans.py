"""Plan files and policies: read, followed, rejected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import block
from irc import ops
from irc.diagnostics import IrcError
from irc.files import temporary_folder
from irc.ir import Value
from irc.kernel import Bytes, count, kernel_of
from irc.module import Module
from irc.op import trace
from irc.pass_manager import PassContext
from irc.passes._products import readers
from irc.passes.fuse import Fuse, apply, find_policy
from irc.verifier import verify
from tests.fusing import ROOT, around_a_product, fused, kernels, planned, same_results
from tests.programs import SIZES, arrays, environment, programs

# -- plan files ------------------------------------------------------------------------------------------------

def written_plan(module: Module, path: Path, options: str = "") -> Path:
    context = PassContext()
    fused(module, options, context)
    path.write_text(context.plans["main"].text)
    return path


@pytest.mark.parametrize("options", ["", "policy=none"])
def test_a_plan_is_replayed_as_it_was(options: str, tmp_path: Path) -> None:
    module = block.block()
    plan = written_plan(module, tmp_path / "plan.json", options)
    context = PassContext()
    replayed = fused(module, f"plan={plan}", context)
    assert kernels(replayed) == kernels(fused(module, options)) and not context.notes


def test_a_changed_plan_is_followed(tmp_path: Path) -> None:
    module = block.block()
    plan = written_plan(module, tmp_path / "plan.json")
    content = json.loads(plan.read_text())
    dropped = content["groups"].pop(2)
    plan.write_text(json.dumps(content))
    assert len(dropped["members"]) == 2
    assert len(kernels(fused(module, f"plan={plan}"))) == 5
    assert len(kernels(fused(module, f"plan={plan},policy=greedy"))) == 4


def test_stale_entries_are_refused_one_by_one(tmp_path: Path) -> None:
    module = block.block()
    plan = written_plan(module, tmp_path / "plan.json")
    content = json.loads(plan.read_text())
    content["groups"][1]["hash"] = "0" * 16
    content["groups"][2]["members"][0] = "nobody"
    plan.write_text(json.dumps(content))
    with pytest.raises(IrcError) as caught:
        fused(module, f"plan={plan}")
    changed, missing = caught.value.diagnostics
    assert {changed.code, missing.code} == {"plan.stale"} and caught.value.exit_code == 1
    assert f"@{content['groups'][1]['name']}: its operations have changed" in changed.message
    assert "nobody" in missing.message


def test_a_plan_cannot_make_an_illegal_group(tmp_path: Path) -> None:
    module = trace(around_a_product, "f32[8, 8]", "f32[8, 8]")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"groups": [{"members": ["grown", "y"]}, {"members": ["grown", "product"]}]}))
    with pytest.raises(IrcError) as caught:
        fused(module, f"plan={path}")
    assert "rule F1" in str(caught.value) and caught.value.exit_code == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"groups": [{"name": "x"}]}', '{"groups": 3}', "\xff"])
def test_what_is_no_plan_file_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(IrcError) as caught:
        fused(block.scores(), f"plan={path}")
    assert caught.value.code == "plan.format"
    with pytest.raises(IrcError) as caught:
        fused(block.scores(), f"plan={tmp_path}/none.json")
    assert caught.value.code == "file.missing"


# -- groups and policies ---------------------------------------------------------------------------------------

def test_a_group_is_proposed_before_the_policy_is_asked() -> None:
    result = fused(block.block(), f"policy=none,groups={ROOT}/examples/rules.py:bias_gelu")
    assert ["add", "gelu"] in kernels(result) and len(kernels(result)) == 5


POLICIES = """
from irc.policy import policy, reject

@policy
def raises(merge):
    return 1 / 0

@policy
def text(merge):
    return "yes"

@policy
def boolean(merge):
    return True

@policy
def nothing(merge):
    pass

@policy
def not_a_number(merge):
    return float("nan")

@policy
def reluctant(merge):
    return reject("not today", at=merge.consumer)

def plain(merge):
    return 1
"""


@pytest.mark.parametrize(
    "name, code",
    [
        ("raises", "policy.raised"), ("text", "policy.result"), ("boolean", "policy.result"),
        ("nothing", "policy.result"), ("not_a_number", "policy.result"), ("plain", "pass.option"),
        ("missing", "load.missing_name"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_an_error_of_its_author(name: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(POLICIES)
    with pytest.raises(IrcError) as caught:
        fused(block.block(), f"policy={path}:{name}")
    assert caught.value.code == code
    if name == "raises":
        assert any("ZeroDivisionError" in note and "mine.py:6" in note for note in caught.value.diagnostics[0].notes)


def test_a_refusal_of_a_policy_is_kept_as_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(POLICIES)
    plan = planned(block.scores(), f"{path}:reluctant")
    assert len(plan.groups) == 3
    assert {(each.code, each.reason) for each in plan.decisions} == {(None, "not today")}


@pytest.mark.parametrize("name", ["greedily", "mine.py:"])
def test_an_unknown_policy(name: str) -> None:
    with pytest.raises(IrcError) as caught:
        find_policy(name)
    assert caught.value.code == "pass.option"


# -- covers ----------------------------------------------------------------------------------------------------

def shared_entries(draw: st.DataObject, module: Module) -> list[list[str]]:
    """The greedy plan, with some members in the groups that read them, too."""
    groups = [list(group.members) for group in planned(module).groups]
    home = {member: index for index, members in enumerate(groups) for member in members}
    pairs = [(member, home[user]) for member, index in home.items()
             for user in sorted(readers(member), key=lambda user: user.order_label)
             if home.get(user, index) != index]  # fmt: skip
    for member, reader in draw.draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)) if pairs else ():
        groups[reader].append(member)
    return [[member.results[0].name for member in members] for members in groups]


def emitted_bytes(module: Module) -> list[Bytes]:
    costs = [count(kernel_of(operation), environment(module)) for operation in module.walk()
             if operation.name == "kernel"]  # fmt: skip
    return sorted(costs, key=repr)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_groups_that_share_operations_are_kernels_that_compute_the_same(draw: st.DataObject) -> None:
    """What a cover costs is what its kernels cost, and its plan file is read as the same plan."""
    module = draw.draw(programs(12))
    with temporary_folder() as folder:
        path = folder / "plan.json"
        path.write_text(json.dumps({"groups": [{"members": names} for names in shared_entries(draw, module)]}))
        context = PassContext(sizes=SIZES)
        copy = module.clone()
        try:
            (plan,) = Fuse(plan=str(path)).plans(copy, context)
        except IrcError as error:
            assert {each.code for each in error.diagnostics} == {"plan.refused"} and "rule F" in str(error)
            return
        expected = sorted((group.bytes(environment(copy)) for group in plan.groups), key=repr)
        apply(plan)
        verify(copy)
        assert emitted_bytes(copy) == expected
        same_results(module, copy, arrays(module))
        first = fused(module, f"plan={path}", context)
        path.write_text(context.plans["main"].text)
        assert str(fused(module, f"plan={path}")) == str(first)


def test_a_shared_producer_is_stored_for_those_alone_that_do_not_compute_it(tmp_path: Path) -> None:
    def program(x: Value) -> tuple[Value, ...]:
        h = ops.exp(x, name="h")
        v = ops.reshape(h, shape=(8, 8))
        a = ops.tanh(v, name="a")
        b = ops.add(h, a, name="b")
        return a, b, ops.mul(ops.reduce_sum(b, axes=(1,), keep_dims=True, name="c"), v, name="z")

    module = trace(program, "f64[8, 8]")
    expected = {
        (("h", "a"), ("h", "b", "c")): ["h", "a"],  # @z reads %h
        (("h", "a"), ("h", "b", "c"), ("h", "z")): ["a"],
        (("b", "h"), ("h", "a")): ["h", "a"],  # owned by the kernel that runs first
        (("h",), ("h", "a")): ["h"],
    }
    path = tmp_path / "plan.json"
    for groups, stored in expected.items():
        path.write_text(json.dumps({"groups": [{"members": names} for names in groups]}))
        result = fused(module, f"plan={path}")
        first = next(operation for operation in result.main.block if operation.name == "kernel")
        assert [value.name for value in first.results] == stored
        assert sum(inner.name == "exp" for inner in result.walk()) == sum("h" in names for names in groups)
        same_results(module, result, inputs_of(module))


def inputs_of(module: Module) -> dict[str, np.ndarray]:
    return {argument.name: np.linspace(-1, 1, 64).reshape(8, 8) for argument in module.main.arguments}


def test_a_policy_leaves_groups_that_share_operations_as_they_are(tmp_path: Path) -> None:
    def program(x: Value) -> tuple[Value, ...]:
        h = ops.exp(ops.neg(x, name="n"), name="h")
        return ops.tanh(h, name="a"), ops.neg(ops.sin(h, name="b"), name="y")

    module, path = trace(program, "f64[8, 8]"), tmp_path / "plan.json"
    path.write_text(json.dumps({"groups": [{"members": ["h", "a"]}, {"members": ["h", "b"]}]}))
    result = fused(module, f"plan={path},policy=greedy")
    assert sorted(kernels(result)) == [["exp", "sin"], ["exp", "tanh"], ["neg"], ["neg"]]
    same_results(module, result, inputs_of(module))


def test_a_view_that_a_copy_replaces_reads_the_original_no_more(tmp_path: Path) -> None:
    """@s computes %h and %v again; the first %v has no reader then, and must not keep %h."""
    def program(x: Value) -> tuple[Value, ...]:
        h = ops.exp(x, name="h")
        v = ops.reshape(h, shape=(8, 8))
        return ops.tanh(h, name="t"), ops.sigmoid(v, name="s")

    module = trace(program, "f64[64]")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"groups": [{"members": ["h", "t"]}, {"members": ["h", "s"]}]}))
    same_results(module, fused(module, f"plan={path}"), arrays(module))
