"""The planner, its rules, plan files, policies and groups; and that no pass and no kernel changes a meaning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import irc
from examples import block
from irc import dtypes, interpreter, ops
from irc.diagnostics import UNKNOWN, IrcError
from irc.driver.counting import kernel_of
from irc.driver.models import Settings
from irc.driver.optimizing import opt
from irc.driver.pipelines import parse_pipeline
from irc.group import Group
from irc.group_graph import GroupGraph, hull
from irc.ir import Operation, Value
from irc.kernel import LegalityFailure, count, derive
from irc.kernel.rules import LEGALITY_RULES, UNUSED
from irc.legality import legal
from irc.module import Module, difference
from irc.op import const, trace
from irc.parser import parse
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import apply, find_policy, propose
from irc.plan import Plan
from irc.policy import Merge, policy
from irc.verifier import verify
from irc.weights import Tensor
from tests.kernel_reference import evaluate
from tests.models import model_path
from tests.programs import arrays, environment, programs
from tests.strategies import modules

ROOT = Path(__file__).resolve().parent.parent


def body_of(module: Module) -> list[Operation]:
    """The operations of the entry that a kernel could hold: all but named constants and the end."""
    return [
        operation for operation in module.main.block
        if not operation.definition.is_terminator
        and not (operation.name == "const" and operation.attributes["value"].size > 1)
    ]  # fmt: skip


def fused(module: Module, options: str = "", context: PassContext | None = None) -> Module:
    """A copy after `fuse`, verified."""
    copy = module.clone()
    PassManager(parse_pipeline(f"fuse{{{options}}}" if options else "fuse"), context).run(copy)
    verify(copy)
    return copy


def kernels(module: Module) -> list[list[str]]:
    """The operations inside each kernel of the entry, by name."""
    return [
        [inner.name for inner in operation.regions[0].block if not inner.definition.is_terminator]
        for operation in module.main.block
        if operation.name == "kernel"
    ]


def planned(module: Module, chosen: str = "greedy", context: PassContext | None = None) -> Plan:
    context = context or PassContext()
    return propose(module.main, find_policy(chosen), context, [])


def same_results(first: Module, second: Module, inputs: dict[str, np.ndarray]) -> None:
    expected, found = interpreter.run(first, inputs), interpreter.run(second, inputs)
    assert list(expected) == list(found)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def check_kernels(module: Module, chosen: str, inputs: dict[str, np.ndarray]) -> None:
    """The scalar DAG of each kernel, evaluated, against the operations of its region; counted bytes are sane."""
    PassManager(parse_pipeline(f"canonicalize,fuse{{policy={chosen}}}")).run(module)
    sizes, seen = environment(module), dict(zip(module.main.arguments, inputs.values(), strict=True))

    def observe(operation: Operation, results: Any) -> None:
        seen.update(zip(operation.results, results, strict=True))

    interpreter.run(module, inputs, observe=observe)
    for operation in module.main.block:
        if operation.name == "kernel":
            region, kernel = operation.regions[0].block, kernel_of(operation)
            read = {a.name: seen[value] for a, value in zip(region.arguments, operation.inputs, strict=True)}
            outputs = evaluate(kernel, read, sizes)
            for result, inner in zip(operation.results, region.terminator.inputs, strict=True):
                np.testing.assert_allclose(outputs[inner.name], seen[result], rtol=1e-7, atol=1e-9)
            moved = count(kernel, sizes)
            assert 0 <= moved.distinct_bytes and (moved.distinct_bytes <= moved.loaded_bytes or not moved.exact)


def check_group(module: Module, members: list[Operation]) -> None:
    """The kernel of these operations, where there is one, against what the interpreter says of their values."""
    group = Group(members)
    if isinstance(group.kernel, LegalityFailure) or not group.stored:
        return
    seen = dict(zip(module.main.arguments, arrays(module).values(), strict=True))

    def observe(operation: Operation, results: Any) -> None:
        seen.update(zip(operation.results, results, strict=True))

    interpreter.run(module, arrays(module), observe=observe)
    outputs = evaluate(group.kernel, {value.name: array for value, array in seen.items()}, environment(module))
    for value in group.stored:
        np.testing.assert_allclose(outputs[value.name], seen[value], rtol=1e-7, atol=1e-9)


# -- the rules -------------------------------------------------------------------------------------------------


def sums_both_ways(x: Value) -> tuple[Value, Value]:
    return ops.reduce_sum(x, axes=(0,)), ops.reduce_sum(x, axes=(1,))


def sum_along_the_other_axis(x: Value) -> Value:
    return ops.add(x, ops.transpose(ops.reduce_sum(x, axes=(1,), keep_dims=True), permutation=(1, 0)))


def sum_of_many(*values: Value) -> Value:
    total = values[0]
    for value in values[1:]:
        total = ops.add(total, value)
    return total


def with_table(x: Value) -> Value:
    return ops.add(x, const(value=Tensor.of(np.arange(8, dtype=np.float32), dtypes.F32)))


ILLEGAL: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = [
    ("F2", lambda x, y: ops.matmul(x, y), ("f32[8, 9]", "f32[9, 4]")),
    ("F2", lambda x: ops.scan(x, kind="sum", axis=0), ("f32[8, 9]",)),
    ("F2", lambda x: (ops.assert_(ops.less(x, 1.0), message="too large"), ops.neg(x))[1], ("f32[]",)),
    ("F2", lambda x: ops.add(x, x), ("c64[8]",)),
    ("F4", lambda x, y: (ops.exp(x), ops.exp(y)), ("f32[8, 9]", "f32[7]")),
    ("F10", lambda x: ops.expand(ops.reduce_sum(x, axes=(1,)), shape=(5, x.shape[0])), ("f32[M, N]",)),
    ("F6", sums_both_ways, ("f32[8, 9]",)),
    ("F6", lambda x, y: ops.add(ops.reduce_sum(x, axes=(0,)), ops.reduce_sum(y, axes=(0,))), ("f32[8]", "f32[9]")),
    ("F6", lambda x: ops.softmax(ops.softmax(x, axis=1), axis=0), ("f32[8, 9]",)),
    ("F10", sum_along_the_other_axis, ("f32[8, 8]",)),
    ("F13", lambda x: ops.bitcast(ops.add(x, 1.0), to=dtypes.U16), ("f16[8]",)),
    ("F13", lambda x: ops.add(ops.bitcast(x, to=dtypes.BF16), 1.0), ("u16[8]",)),
]


@pytest.mark.parametrize(
    "rule, program, types", ILLEGAL, ids=[f"{row[0]}-{index}" for index, row in enumerate(ILLEGAL)]
)
def test_a_rule_fails_with_its_number_and_code(
    rule: str, program: Callable[..., Any], types: tuple[str, ...]
) -> None:
    failure = legal(Group(body_of(trace(program, *types))))
    assert failure is not None
    assert (failure.rule, failure.code) == (rule, LEGALITY_RULES[rule].code)
    assert failure.error(UNKNOWN).code == LEGALITY_RULES[rule].code


def test_f2_members_of_two_blocks_and_constants_that_are_no_scalars() -> None:
    module = parse(
        "irc text 1\nmodule @m {\n  func @main(%c: bool[], %x: f32[4]) -> f32[4] {\n    %a = exp %x : f32[4]\n"
        "    %r = if %c : f32[4] {\n      %b = neg %a : f32[4]\n      yield %b\n    } else {\n      yield %a\n    }\n"
        "    return %r\n  }\n}\n"
    )
    outer, inner = module.main.find("a").operation, module.main.find("b").operation
    assert outer is not None and inner is not None
    failure = legal(Group([outer, inner]))
    assert failure is not None and failure.rule == "F2"
    table = trace(with_table, "f32[8]")
    whole = [operation for operation in table.main.block if not operation.definition.is_terminator]
    with pytest.raises(LegalityFailure, match="is no scalar"):
        derive(whole)


def test_f3_what_is_read_outside_is_stored_and_nothing_else() -> None:
    module = trace(lambda x: (ops.neg(y := ops.exp(x, name="y")), ops.scan(y, kind="sum", axis=0)), "f32[8]")
    exponential, negative = (module.main.find(name).operation for name in ("y", "0"))
    assert exponential is not None and negative is not None
    assert [value.name for value in Group([exponential, negative]).stored] == ["y", "0"]
    module = trace(lambda x: ops.neg(ops.exp(x)), "f32[8]")
    assert [value.name for value in Group(body_of(module)).stored] == ["1"]
    with pytest.raises(LegalityFailure) as caught:
        derive(body_of(module), outputs=[])
    assert (caught.value.rule, caught.value.code) == ("F3", LEGALITY_RULES["F3"].code)


def test_f3_looks_through_the_views_that_stay_outside() -> None:
    """%y is read by the group and, through a view, by the host: it is stored."""

    def program(x: Value) -> tuple[Value, Value]:
        y = ops.exp(x, name="y")
        turned = ops.transpose(y, permutation=(1, 0))
        return ops.neg(turned, name="n"), ops.scan(turned, kind="sum", axis=0)

    module = trace(program, "f32[4, 6]")
    result = fused(module)
    assert [inner.name for inner in result.main.block if inner.name == "kernel"] == ["kernel"]
    (kernel,) = (operation for operation in result.main.block if operation.name == "kernel")
    assert [value.name for value in kernel.results] == ["y", "n"]
    same_results(module, result, {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)})


def around_a_product(x: Value, w: Value) -> Value:
    """exp is read by the product and, by the addition after it."""
    grown = ops.exp(x, name="grown")
    return ops.add(grown, ops.matmul(grown, w, name="product"), name="y")


def test_f1_no_group_reaches_around_a_host_call() -> None:
    module = trace(around_a_product, "f32[8, 8]", "f32[8, 8]")
    plan = planned(module)
    (decision,) = (each for each in plan.decisions if (each.producer, each.consumer) == ("grown", "y"))
    assert (decision.rule, decision.code) == ("F1", LEGALITY_RULES["F1"].code) and "%product" in decision.reason
    assert [[member.name for member in group.members] for group in plan.groups] == [["exp"], ["add"]]
    assert apply(plan)
    verify(module)


def test_f1_holds_for_proposed_groups(tmp_path: Path) -> None:
    module = trace(around_a_product, "f32[8, 8]", "f32[8, 8]")
    file = tmp_path / "groups.py"
    file.write_text(
        "from irc.ops import add, exp\nfrom irc.policy import group\n\n"
        "@group\ndef sum_of_exp(x, y):\n    return add(exp(x), y)\n"
    )
    context = PassContext()
    result = fused(module, f"groups={file}:sum_of_exp", context)
    assert kernels(result) == [["exp"], ["add"]]
    assert [note for note in context.notes if "rule F1" in note and "sum_of_exp" in note]


def test_every_access_is_proven_or_guarded() -> None:
    """An index that may be anything needs a guard, an affine one none."""
    gathered = derive(body_of(trace(lambda x, i: ops.gather(x, i, axis=0), "f32[N]", "i64[M]")))
    assert [len(load.guards) for load in gathered.loads if load.buffer.name == "x"] == [1]
    sliced = derive(body_of(trace(lambda x: ops.slice_(x, starts=(1,), stops=(8,), steps=(2,)), "f32[8]")))
    assert [load.guards for load in sliced.loads] == [()]


@pytest.mark.parametrize("numerics, together", [("exact", False), ("keeps_more_precision", True)])
def test_f13_a_skipped_rounding_must_be_allowed(numerics: Any, together: bool) -> None:
    module = trace(lambda x: ops.mul(ops.add(x, 1.0), 3.0, name="y"), "f16[8]")
    plan = planned(module, context=PassContext(numerics=numerics))
    assert (len(plan.groups) == 1) is together
    if not together:
        assert [(each.rule, each.code) for each in plan.decisions] == [("F13", LEGALITY_RULES["F13"].code)]


def test_f14_a_kernel_has_at_most_32_pointers() -> None:
    def added(number: int) -> LegalityFailure | None:
        names = ", ".join(f"x{index}" for index in range(number))
        program = eval(f"lambda {names}: total({names})", {"total": sum_of_many})
        return legal(Group(body_of(trace(program, *["f32[8]"] * number))))

    assert added(31) is None
    failure = added(32)
    assert failure is not None and (failure.rule, failure.code) == ("F14", LEGALITY_RULES["F14"].code)


def test_every_rule_has_a_test() -> None:
    assert {"F1", "F3", "F14", *(rule for rule, _, _ in ILLEGAL)} == LEGALITY_RULES.keys()
    assert {*LEGALITY_RULES, *UNUSED} == {f"F{number}" for number in range(1, 15)}


@pytest.mark.parametrize("number", [number for number, rule in LEGALITY_RULES.items() if "func @" in rule.example])
def test_the_example_of_a_page_breaks_its_rule(number: str) -> None:
    members, _, text = LEGALITY_RULES[number].example.partition(" of\n")
    main = parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n").main
    operations = [main.find(name.strip("{} %")).operation for name in members.split(",")]
    graph = GroupGraph(main.block)
    group = hull([graph.group([operation]) for operation in operations if operation is not None], "test", graph)
    failure = group if isinstance(group, LegalityFailure) else legal(group)
    assert failure is not None and failure.rule == number


def test_the_example_of_f14_is_too_large() -> None:
    assert LEGALITY_RULES["F14"].example.startswith("a concatenation of 32 tensors")
    names = ", ".join(f"x{index}" for index in range(32))
    program = eval(f"lambda {names}: concat({names}, axis=0)", {"concat": ops.concat})
    failure = legal(Group(body_of(trace(program, *["f32[8]"] * 32))))
    assert failure is not None and (failure.rule, failure.message) == ("F14", "33 pointers, at most 32")


# -- planning --------------------------------------------------------------------------------------------------


def test_the_policy_none_makes_one_kernel_an_operation() -> None:
    module = block.block()
    result = fused(module, "policy=none")
    named = [[name for name in members if name not in ("const", "transpose", "reshape")] for members in kernels(result)]
    assert named == [["layer_norm"], ["add"], ["layer_norm"], ["add"], ["gelu"], ["add"]]


def test_greedy_merges_what_saves_bytes() -> None:
    module = block.block()
    plan = planned(module)
    members = [[member.name for member in group.members] for group in plan.groups]
    assert members == [["layer_norm"], ["add", "layer_norm"], ["add", "gelu"], ["add"]]
    alone = planned(block.block(), "none")
    sizes = {symbol: 64 for symbol in module.main.symbols.values()}
    block_of_alone = alone.groups[0].members[0].block
    assert block_of_alone is not None and block_of_alone.function is not None
    other = {symbol: 64 for symbol in block_of_alone.function.symbols.values()}
    assert sum(g.bytes(sizes).distinct_bytes for g in plan.groups) < sum(
        g.bytes(other).distinct_bytes for g in alone.groups
    )


def test_a_merge_takes_in_what_stands_between() -> None:
    """The two ends save the most; the chain between them must come along, or a path would leave and return."""

    def program(x: Value) -> Value:
        start = ops.exp(x, name="start")
        small = ops.reduce_max(start, axes=(1,), keep_dims=True, name="small")
        return ops.sub(start, small, name="end")

    module = trace(program, "f32[B, 100]")
    plan = planned(module)
    first = plan.decisions[0]
    assert (first.producer, first.consumer) == ("start", "small") or first.code is None
    ends: list[Merge] = []

    @policy
    def only_the_ends(merge: Merge) -> float:
        if (merge.producer.name, merge.consumer.name) == ("start", "end"):
            ends.append(merge)
            return 1.0
        return 0.0

    plan = propose(module.main, only_the_ends, PassContext(), [])
    assert [[member.name for member in group.members] for group in plan.groups] == [["exp", "reduce_max", "sub"]]
    assert len(ends[0].parts) == 3 and ends[0].bytes_saved > 0


def test_free_operations_are_copied_into_each_kernel_that_reads_through_them() -> None:
    def program(x: Value, w: Value) -> tuple[Value, Value]:
        turned = ops.transpose(x, permutation=(1, 0), name="turned")
        return ops.matmul(ops.exp(turned), w), ops.scan(ops.neg(turned), kind="sum", axis=0)

    module = trace(program, "f32[4, 6]", "f32[4, 3]")
    result = fused(module)
    assert kernels(result) == [["transpose", "exp"], ["transpose", "neg"]]
    assert not [operation for operation in result.main.block if operation.name == "transpose"]
    kept = trace(lambda x: (y := ops.transpose(x, permutation=(1, 0)), ops.exp(y)), "f32[4, 6]")
    assert [operation.name for operation in fused(kept).main.block] == ["transpose", "kernel", "return"]


def test_the_block_is_put_back_in_order() -> None:
    """The kernel is at the place of its last member, after a reader of an earlier result of it."""

    def program(x: Value, w: Value) -> tuple[Value, Value]:
        first = ops.exp(x, name="first")
        product = ops.matmul(first, w, name="product")
        return product, ops.neg(first, name="second")

    module = trace(program, "f32[4, 4]", "f32[4, 4]")
    result = fused(module)
    assert [operation.name for operation in result.main.block] == ["kernel", "matmul", "return"]
    generator = np.random.default_rng(0)
    same_results(module, result, {n: generator.standard_normal((4, 4)).astype(np.float32) for n in ("x", "w")})


def test_regions_and_effects_keep_their_order() -> None:
    module = parse(
        "irc text 1\nmodule @m {\n  func @main(%c: bool[], %x: f32[4]) -> f32[4] {\n    %a = exp %x : f32[4]\n"
        "    %r = if %c : f32[4] {\n      %b = neg %a : f32[4]\n      yield %b\n    } else {\n      yield %x\n    }\n"
        '    assert %c {message = "later"}\n    %d = add %a, %r : f32[4]\n    return %d\n  }\n}\n'
    )
    result = fused(module)
    assert [operation.name for operation in result.main.block] == ["kernel", "if", "assert", "kernel", "return"]
    same_results(module, result, {"c": np.array(True), "x": np.ones(4, np.float32)})


def test_bodies_have_kernels_of_their_own() -> None:
    """Groups form inside `loop` and `if`, take along constants from around them, and never cross a block's edge."""
    module = parse(
        "irc text 1\nmodule @m {\n  func @main(%c: bool[], %n: i64[], %x: f32[4]) -> f32[4] {\n"
        "    %half = const 0.5 : f32[]\n    %a = exp %x : f32[4]\n"
        "    %r = loop %n, %c, %a : f32[4] { (%i: i64[], %going: bool[], %s: f32[4])\n"
        "      %t = mul %s, %half : f32[4]\n      %u = add %t, %a : f32[4]\n"
        "      %v = if %going : f32[4] {\n        %e = neg %u : f32[4]\n        %f = abs %e : f32[4]\n"
        "        yield %f\n      } else {\n        yield %u\n      }\n"
        "      yield %going, %v\n    }\n    %d = neg %r : f32[4]\n    return %d\n  }\n}\n"
    )
    result = fused(module)
    kernels = [operation for operation in result.walk() if operation.name == "kernel"]
    names = [[inner.name for inner in kernel.regions[0].block if not inner.definition.is_terminator]
             for kernel in kernels]  # fmt: skip
    assert names == [["exp"], ["const", "mul", "add"], ["neg", "abs"], ["neg"]]
    report = irc.kernels(result)
    assert (report.library_calls, report.host_operations, report.share_in_kernels) == (0, 0, 1.0)
    assert "4 kernels, 0 library calls" in irc.print(result, summary=True)
    inputs = {"c": np.array(True), "n": np.array(3), "x": np.linspace(-1, 1, 4, dtype=np.float32)}
    same_results(module, result, inputs)
    plan = planned(module)
    again = propose(module.main, find_policy("none"), PassContext(), [("mine", group.members) for group in plan.groups])
    assert [[m.name for m in g.members] for g in again.groups] == [[m.name for m in g.members] for g in plan.groups]


def test_a_branch_may_be_impossible_at_the_sizes_at_hand() -> None:
    """It costs nothing where it is not taken, where its sizes are below 0."""
    module = parse(
        "irc text 1\nmodule @m {\n  func @main<N in [1, 1000]>(%c: bool[], %x: f32[N, 4], %w: f32[4, 5])"
        " -> f32[N, 4] {\n"
        "    %r = if %c : f32[N, 4] {\n"
        "      %t = slice %x {starts = [100, 0], stops = [N, 4], steps = [1, 1]} : f32[N - 100, 4]\n"
        "      %p = matmul %t, %w : f32[N - 100, 5]\n"
        "      %q = reverse %p {axes = [0]} : f32[N - 100, 5]\n"
        "      %u = add %p, %q : f32[N - 100, 5]\n      %s = reduce_sum %u {axes = [0, 1]} : f32[]\n"
        "      %a = add %x, %s : f32[N, 4]\n      yield %a\n"
        "    } else {\n      %b = neg %x : f32[N, 4]\n      yield %b\n    }\n    return %r\n  }\n}\n"
    )
    report = irc.kernels(fused(module), settings=Settings(dims={"N": 64}))
    costs = [(kernel.programs, kernel.distinct_bytes) for kernel in report.kernels]
    assert (0, 0) in costs and (1, 2 * 64 * 4 * 4) in costs
    assert all(call.distinct_bytes >= 0 for call in report.calls) and report.peak_bytes > 0 and report.flops >= 0
    assert report.label == "estimated" and report.not_counted.startswith("PyTorch does not run %t: ")


# -- plan files ------------------------------------------------------------------------------------------------


def written_plan(module: Module, path: Path, options: str = "") -> Path:
    context = PassContext()
    fused(module, options, context)
    path.write_text(context.plans["main"])
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


JOINS: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
    (lambda x, y: ops.exp(ops.concat(x, y, x, axis=1)), ("f64[3, 7]", "f64[3, 9]")),
    (lambda x, y: ops.concat(ops.exp(x), ops.neg(y), axis=0), ("f64[B, 4]", "f64[S, 4]")),
    (lambda x, y: ops.mul(ops.concat(*ops.split(x, axis=0, sizes=(2, 0, 3)), axis=0), y), ("f64[5]", "f64[]")),
    (lambda x, y: ops.reduce_sum(ops.concat(x, y, axis=1), axes=(1,)), ("f64[3, 5]", "f64[3, 2]")),
]


@pytest.mark.parametrize("program, types", JOINS)
def test_pieces_are_joined_by_index_arithmetic(program: Callable[..., Any], types: tuple[str, ...]) -> None:
    module = trace(program, *types)
    assert len(kernels(fused(module))) == 1
    check_kernels(module, "greedy", arrays(module))


# -- what went wrong once ----------------------------------------------------------------------------------------


def test_repeated_elements_are_no_points() -> None:
    """An edge pad reads an element several times: its operand must not take the pad's axis for its own."""

    def program(x: Value) -> tuple[Value, ...]:
        y = ops.abs_(x)
        padded = ops.pad(y, low=(0,), high=(1,), mode="edge")
        return ops.reduce_mean(y, axes=(0,)), padded

    module = trace(program, "f64[6]")
    check_kernels(module, "greedy", {"x": np.arange(-3.0, 3.0)})


SPREAD: list[Callable[[Value], Value]] = [
    lambda y: ops.reduce_sum(ops.expand(y, shape=(2, 4, 6)), axes=(0, 1, 2)),
    lambda y: ops.reduce_sum(ops.reshape(ops.expand(y, shape=(2, 4, 6)), shape=(48,)), axes=(0,)),
    lambda y: ops.neg(ops.reshape(ops.expand(y, shape=(2, 4, 6)), shape=(48,))),
    lambda y: ops.neg(ops.expand(y, shape=(2, 4, 6))),
]


@pytest.mark.parametrize("use", SPREAD)
def test_what_is_spread_is_stored_once(use: Callable[[Value], Value]) -> None:
    """An operand that is repeated along an axis of its kernel is stored at one point of that axis."""
    module = trace(lambda x: (y := ops.exp(x), use(y)), "f64[4, 6]")
    check_kernels(module, "greedy", arrays(module))


def test_a_reduction_of_every_other_row_knows_which_rows() -> None:
    """Its result has a point at half of the rows only, and what reads it elsewhere computes it again or apart."""

    def program(x: Value) -> tuple[Value, ...]:
        whole = ops.exp(x)
        rows = ops.slice_(whole, starts=(1, 0), stops=(6, 6), steps=(2, 1))
        totals = ops.reduce_sum(rows, axes=(1,), keep_dims=True)
        return whole, ops.neg(rows), totals, ops.sub(rows, totals)

    module = trace(program, "f64[6, 6]")
    check_kernels(module, "greedy", arrays(module))


HALVES: list[Callable[..., Any]] = [
    lambda x: ops.concat(ops.softmax(x, axis=0), x, axis=0),
    lambda x: ops.concat(x, ops.softmax(x, axis=0), axis=0),
    lambda x: (t := ops.reduce_sum(x, axes=(0,), keep_dims=True), ops.concat(ops.neg(x), ops.mul(x, t), axis=0)),
    lambda x: ops.pad(ops.sub(x, ops.reduce_max(x, axes=(0,), keep_dims=True)), 0.5, low=(2, 0), high=(1, 0)),
    lambda x: ops.div(ops.slice_(x, starts=(0, 0), stops=(2, 6), steps=(1, 1)), ops.reduce_sum(x, axes=(0,))),
]


@pytest.mark.parametrize("program", HALVES)
def test_a_reduction_sees_its_axis_whole(program: Callable[..., Any]) -> None:
    """What holds where its result is read, in a half of a concatenation, does not hold all along the reduced axis."""
    module = trace(program, "f64[B, 6]" if program is not HALVES[4] else "f64[4, 6]")
    check_kernels(module, "greedy", arrays(module))
    module = trace(program, "f64[4, 6]")
    check_group(module, body_of(module))


def test_fold_does_not_blow_weights_up() -> None:
    table = Tensor.of(np.ones((100, 100), np.int8), dtypes.I8).renamed("weight")
    module = trace(lambda x: ops.add(x, ops.cast(const(value=table), to=dtypes.F32)), "f32[100, 100]")
    PassManager(parse_pipeline("fold")).run(module)
    assert [operation.name for operation in module.main.block] == ["const", "cast", "add", "return"]
    PassManager(parse_pipeline("fold{cap=40000}")).run(module)
    assert [operation.name for operation in module.main.block] == ["const", "add", "return"]


def test_fold_copies_views_where_that_is_asked_for() -> None:
    """Only where the copies take the place of the constant."""
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    table = Tensor.of(values, dtypes.F32).renamed("weight")

    def program(x: Value, *, also: bool) -> tuple[Value, ...]:
        weight = const(value=table)
        upper = ops.lookup("slice")(weight, starts=(0, 0), stops=(50, 100), steps=(1, 1))
        lower = ops.lookup("slice")(weight, starts=(50, 0), stops=(100, 100), steps=(1, 1))
        turned = (ops.neg(ops.transpose(weight, permutation=(1, 0))),) if also else ()
        return ops.matmul(x, upper), ops.matmul(x, lower), *turned

    for also, pipeline in ((False, "fold"), (False, "fold{views}"), (True, "fold{views}")):
        module = trace(partial(program, also=also), "f32[8, 50]")
        PassManager(parse_pipeline(pipeline)).run(module)
        names = [operation.attributes["value"].name for operation in module.main.block if operation.name == "const"]
        assert names == (["weight.slice", "weight.slice.1"] if pipeline == "fold{views}" and not also else ["weight"])
        x = np.ones((8, 50), np.float32)
        first, second, *_ = interpreter.run(module, {"x": x}).values()
        np.testing.assert_array_equal(first, x @ values[:50])
        np.testing.assert_array_equal(second, x @ values[50:])


# -- braces ----------------------------------------------------------------------------------------------------

EXACT = ("canonicalize", "fold", "fold{views}", "cse", "dce", "legalize", "fuse", "fuse{policy=none}")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@QUICK
@given(programs(), st.lists(st.sampled_from(EXACT), min_size=1, max_size=4))
def test_exact_passes_change_no_bit(module: Module, pipeline: list[str]) -> None:
    inputs = arrays(module)
    expected = interpreter.run(module, inputs)

    def compare(stage: str, current: Module) -> None:
        verify(current)
        found = interpreter.run(current, inputs)
        for value, truth in zip(found.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(value, truth, err_msg=stage)

    PassManager(parse_pipeline(",".join(pipeline)), PassContext(numerics="exact"), observe=compare).run(module)


@QUICK
@given(programs(), st.lists(st.sampled_from([*EXACT, "raise", "raise"]), min_size=2, max_size=5))
def test_other_passes_change_no_more_than_they_say(module: Module, pipeline: list[str]) -> None:
    inputs = arrays(module)
    expected = interpreter.run(module, inputs)

    def compare(stage: str, current: Module) -> None:
        verify(current)
        found = interpreter.run(current, inputs)
        for value, truth in zip(found.values(), expected.values(), strict=True):
            np.testing.assert_allclose(value, truth, rtol=1e-7, atol=1e-9, err_msg=stage)

    PassManager(parse_pipeline(",".join(pipeline)), PassContext(numerics="reassociates"), observe=compare).run(module)


@QUICK
@given(programs(), st.sampled_from(["greedy", "none"]))
def test_kernels_compute_what_they_enclose(module: Module, name: str) -> None:
    check_kernels(module, name, arrays(module))


@settings(QUICK, max_examples=100)
@given(programs(), st.integers(0, 20), st.integers(2, 20), st.booleans())
def test_any_group_that_is_a_kernel_is_right(module: Module, start: int, length: int, expanded: bool) -> None:
    """Neighbors in a block, whether or not a policy would put them together; with bodies in place as well."""
    PassManager(parse_pipeline("legalize,cse" if expanded else "cse")).run(module)
    members = body_of(module)
    start = min(start, len(members) - 1)
    check_group(module, members[start : start + length])


@settings(QUICK, max_examples=40)
@given(modules(), st.lists(st.sampled_from(["canonicalize", "fold", "cse", "dce", "legalize", "fuse"]), max_size=3))
def test_passes_leave_odd_modules_well_formed(module: Module, pipeline: list[str]) -> None:
    verify(module)
    if pipeline:
        PassManager(parse_pipeline(",".join(pipeline)), verify_each=True).run(module)
    assert difference(parse(str(module)), module) is None


# -- what holds of softmax, under the interpreter of Triton ----------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 63, 1000, 8192])
def test_a_fused_softmax_loads_each_element_once(columns: int) -> None:
    module = trace(lambda x: ops.softmax(ops.mul(x, 0.125), axis=-1), "f32[M, ?N in (1, 8192)]")
    module = fused(module)
    (kernel,) = (kernel_of(operation) for operation in module.main.block if operation.name == "kernel")
    sizes = {symbol: {"M": 37, "N": columns}[symbol.name] for symbol in module.main.symbols.values()}
    bytes_ = count(kernel, sizes)
    assert bytes_.loaded_bytes == bytes_.distinct_bytes == 2 * 4 * 37 * columns
    longer = trace(lambda x: ops.softmax(x, axis=-1), "f32[M, N]")
    (kernel,) = (kernel_of(operation) for operation in fused(longer).main.block if operation.name == "kernel")
    hundred = dict.fromkeys(kernel.outputs[0].type.symbols(), 100)
    assert kernel.looped and count(kernel, hundred).loaded_bytes > 2 * 4 * 100 * 100


@pytest.mark.parametrize("columns", [1, 100])
def test_the_planned_softmax_runs_right(columns: int, tmp_path: Path) -> None:
    """As the planner makes it of examples/block.py, with rows of -inf and NaN; the bytes are those predicted."""
    pytest.importorskip("triton")
    from tests import triton_harness as harness

    x = np.random.default_rng(0).standard_normal((7, columns)).astype(np.float32)
    x[1], x[2, -1], x[3, : columns // 2] = -np.inf, np.nan, -np.inf
    inputs = {"x": x, "b": np.linspace(-1, 1, columns, dtype=np.float32)}
    run = harness.run(fused(block.scores()), folder=tmp_path / "scores", inputs=inputs, fuse=False)
    (launch,) = run.launches
    assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes
    assert launch.loaded - 4 * columns * launch.predicted.programs == x.nbytes
    for name, expected in run.expected.items():
        assert np.isnan(expected[1]).all() and np.isnan(expected[2]).all() and np.isfinite(expected[[0, 4, 5, 6]]).all()
        assert harness.relative_error(run.outputs[name], expected) < 1e-6


# -- long graphs -------------------------------------------------------------------------------------------------


def of_kinds(names: Sequence[str]) -> Callable[[Value], Value]:
    def program(x: Value) -> Value:
        for name in names:
            x = ops.TABLE[name](x) if name != "center" else ops.sub(x, ops.reduce_max(x, axes=(1,), keep_dims=True))
        return x

    return program


KINDS = ("relu", "neg", "tanh", "abs", "sin", "exp", "sigmoid", "floor", "center", "softmax")
LONG: dict[str, Callable[[Value], Any]] = {
    "pointwise": of_kinds(KINDS[:4] * 500),
    "mixed": of_kinds([KINDS[index * index * 7 % 10] for index in range(1_200)]),
    "reductions": of_kinds(["center", "softmax"] * 300),
    "views": lambda x: (
        views := [y := x, *(y := ops.transpose(y, permutation=(1, 0)) for _ in range(600))],
        *(ops.tanh(view) for view in views[::60]),
    )[1:],
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_long_graphs_fuse_without_recursion_and_with_few_derivations(name: str, monkeypatch: Any) -> None:
    derived: list[int] = []

    def counting(members: Sequence[Operation], **options: Any) -> Any:
        derived.append(len(members))
        return derive(members, **options)

    monkeypatch.setattr("irc.group.derive", counting)
    module = trace(LONG[name], "f32[5, 6]")
    length = len(module.main.block)
    copy = fused(module)
    assert sum(derived) <= 25 * length, "operations in kernels that were derived"
    inputs = arrays(module)
    same_results(module, copy, {name: array.astype(np.float32) for name, array in inputs.items()})


# -- determinism -----------------------------------------------------------------------------------------------


def test_plan_and_text_do_not_depend_on_the_hash_seed() -> None:
    script = (
        "import sys, irc\n"
        "from irc.driver.optimizing import run_pipeline\n"
        "from irc.driver.models import Settings, find_backend\n"
        "module, context = run_pipeline(sys.argv[1], find_backend('triton').PIPELINE, 'triton', Settings())\n"
        "sys.stdout.write(str(module) + context.plans['main'])\n"
    )
    texts = set()
    for seed in ("0", "1", "7"):
        command = [sys.executable, "-c", script, str(model_path("minilm_int8"))]
        done = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        texts.add(done.stdout)
    assert len(texts) == 1 and b"irc.plan/1" in texts.pop()


def test_kernels_do_not_depend_on_what_caches_still_hold() -> None:
    """Axes are equal because of what they are, not because a cache returned the same object."""
    script = (
        "import functools, sys\n"
        "original, entries = functools.lru_cache, int(sys.argv[2])\n"
        "if entries: functools.lru_cache = lambda maxsize=128, typed=False: original(entries, typed)\n"
        "from irc.backends.triton.program_writer import write_program\n"
        "from irc.driver.optimizing import run_pipeline\n"
        "from irc.driver.models import Settings, find_backend\n"
        "module, context = run_pipeline(sys.argv[1], find_backend('triton').PIPELINE, 'triton', Settings())\n"
        "program = write_program(module)\n"
        "sys.stdout.write(program.text + ''.join(kernel.source.text for kernel in program.kernels))\n"
    )
    texts = set()
    for entries in ("0", "3"):
        command = [sys.executable, "-c", script, str(model_path("basic_pitch")), entries]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        texts.add(done.stdout)
    assert len(texts) == 1 and b"@triton.jit" in texts.pop()


def test_a_symbol_that_only_an_attribute_mentions_keeps_its_order() -> None:
    """`dim {value = 2*u}` reads no value of the `bind` that defines u, and still follows it (F1, sorting)."""
    text = """irc text 1
module @m {
  func @main(%x: f32[4], %n: i64[]) -> (f32[4], i64[]) {
    %0 = const 1 : i64[]
    %k = add %n, %0 : i64[]
    bind %k {symbol = ?u in (0, 100)}
    %d = dim {value = 2*u} : i64[]
    %e = add %d, %k : i64[]
    %y = exp %x : f32[4]
    return %y, %e
  }
}
"""
    module = parse(text)
    inputs = {"x": np.arange(4, dtype=np.float32), "n": np.array(3)}
    before = interpreter.run(module, inputs)
    PassManager(parse_pipeline("fuse,dce"), PassContext(), verify_each=True).run(module)
    after = interpreter.run(module, inputs)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_windows_over_windows_are_not_one_kernel() -> None:
    """Three poolings in a row would read 13 by 13 places of the input for each of the result."""
    sides = {"kernel": (5, 5), "strides": (1, 1), "low": (2, 2), "high": (2, 2), "dilations": (1, 1)}

    def main(x: Value) -> Value:
        for _ in range(3):
            x = ops.max_pool(ops.relu(x), **sides)
        return x

    module = opt(trace(main, "f32[N, 4, H, W]"), "default")
    made = [operation for operation in module.main.block if operation.name == "kernel"]
    assert len(made) >= 3 and {operation.name for operation in module.main.block} == {"kernel", "return"}
    assert all(len(kernel_of(operation).loads) <= 30 for operation in made)
