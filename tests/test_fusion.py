"""The planner, its rules, plan files, policies and groups; and that no pass and no kernel changes a meaning."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from examples import block
from irc import dtypes, ops
from irc.cover import cover
from irc.diagnostics import UNKNOWN
from irc.driver.models import Settings
from irc.group import Group
from irc.group_graph import GroupGraph, hull
from irc.ir import Value
from irc.kernel import LegalityFailure, derive
from irc.kernel.rules import LEGALITY_RULES, UNUSED
from irc.legality import legal
from irc.op import const, trace
from irc.parser import parse
from irc.pass_manager import PassContext
from irc.passes.fuse import apply, find_policy, propose
from irc.policy import Merge, policy
from irc.verifier import verify
from irc.weights import Tensor
from tests.fusing import around_a_product, body_of, fused, kernels, planned, same_results

# -- the rules -------------------------------------------------------------------------------------------------

def sums_of_rows_and_all(x: Value) -> tuple[Value, Value]:
    return ops.reduce_sum(x, axes=(0, 1)), ops.reduce_sum(x, axes=(1,))


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
    ("F2", lambda x, y: ops.matmul(x, y), ("i32[8, 9]", "i32[9, 4]")),
    ("F2", lambda x, y: ops.matmul(x, y), ("f64[8, 9]", "f64[9, 4]")),
    ("F16", lambda x, y: ops.softmax(ops.matmul(x, y), axis=1), ("f32[8, 9]", "f32[9, 4]")),
    ("F17", lambda x, y: ops.matmul(ops.matmul(x, y), y), ("f32[8, 8]", "f32[8, 8]")),
    ("F17", lambda x, y: ops.matmul(ops.softmax(x, axis=1), y), ("f32[8, 9]", "f32[9, 300]")),
    ("F16", lambda x, y, u, v: ops.add(ops.matmul(x, y), ops.matmul(u, v)),
     ("f32[8, 9]", "f32[9, 8]", "f32[8, 7]", "f32[7, 8]")),
    ("F2", lambda x: ops.sort(x, axis=0)[0], ("f32[8, 9]",)),
    ("F21", lambda x: ops.scan(ops.scan(x, kind="sum", axis=0), kind="sum", axis=1), ("f32[8, 9]",)),
    ("F2", lambda x: (ops.assert_(ops.less(x, 1.0), message="too large"), ops.neg(x))[1], ("f32[]",)),
    ("F2", lambda x: ops.add(x, x), ("c64[8]",)),
    ("F4", lambda x, y: (ops.exp(x), ops.exp(y)), ("f32[8, 9]", "f32[7]")),
    ("F10", lambda x: ops.expand(ops.reduce_sum(x, axes=(1,)), shape=(5, x.shape[0])), ("f32[M, N]",)),
    ("F6", sums_of_rows_and_all, ("f32[8, 9]",)),
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
    module = trace(lambda x: (ops.neg(y := ops.exp(x, name="y")), ops.sort(y, axis=0)[0]), "f32[8]")
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
        return ops.neg(turned, name="n"), ops.sort(turned, axis=0)[0]

    module = trace(program, "f32[4, 6]")
    result = fused(module)
    assert [inner.name for inner in result.main.block if inner.name == "kernel"] == ["kernel"]
    (kernel,) = (operation for operation in result.main.block if operation.name == "kernel")
    assert [value.name for value in kernel.results] == ["y", "n"]
    same_results(module, result, {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)})


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


def test_pointers_are_counted_before_a_kernel_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = list[int]()
    derive = irc.group.derive
    monkeypatch.setattr(irc.group, "derive", lambda members, **options: (
        derived.append(len(members)), derive(members, **options))[1])  # fmt: skip
    for number, times in ((31, 1), (32, 1), (500, 1)):
        names = ", ".join(f"x{index}" for index in range(number))
        program = eval(f"lambda {names}: concat({names}, axis=0)", {"concat": ops.concat})
        failure = legal(Group(body_of(trace(program, *["f32[8]"] * number))))
        assert (failure is None) is (number == 31) and len(derived) == times
        assert failure is None or failure.message == f"{number + 1} pointers, at most 32"


def test_messages_name_values_of_the_function() -> None:
    """Not those in the bodies of named operations, which the text of a module does not show."""
    module = trace(lambda x, w, b: ops.linear(ops.layer_norm(ops.linear(ops.softmax(ops.linear(
        x, w, b, name="first"), axis=-1, name="weights"), w, b, name="second"), b, b, axis=-1, name="normalized"),
        w, b, name="last"), "f32[32, 64]", "f32[64, 64]", "f32[64]")  # fmt: skip
    operations = body_of(module)
    rules = set[str]()
    for start, end in itertools.combinations(range(len(operations) + 1), 2):
        failure = legal(Group(operations[start:end]))
        if failure is not None:
            rules.add(failure.rule)
            values = {value.name for operation in operations[start:end] for value in operation.results}
            assert set(re.findall(r"%(\w+)", failure.message)) <= values, failure.message
    assert {"F16", "F17"} <= rules


def test_every_rule_has_a_test() -> None:
    assert {"F1", "F3", "F14", "F15", "F18", "F19", "F20", *(rule for rule, _, _ in ILLEGAL)} == LEGALITY_RULES.keys()
    assert {*LEGALITY_RULES, *UNUSED} == {f"F{number}" for number in range(1, 22)}


@pytest.mark.parametrize("number", [number for number, rule in LEGALITY_RULES.items()
                                    if rule.example.startswith("{") and number != "F15"])  # see test_schedules
def test_the_example_of_a_page_breaks_its_rule(number: str) -> None:
    members, _, text = LEGALITY_RULES[number].example.partition(" of\n")
    main = parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n").main
    operations = [main.find(name.strip("{} %")).operation for name in members.split(",")]
    graph = GroupGraph(main.block)
    group = hull([graph.group([operation]) for operation in operations if operation is not None], "test", graph)
    failure = group if isinstance(group, LegalityFailure) else legal(group)
    assert failure is not None and failure.rule == number


def test_the_example_of_f18_breaks_it() -> None:
    head, _, text = LEGALITY_RULES["F18"].example.partition(" of\n")
    main = parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n").main
    graph = GroupGraph(main.block)
    named = [[main.find(name).operation for name in re.findall(r"%(\w+)", part)] for part in head.split(" and ")]
    failure = cover([graph.group(filter(None, members)) for members in named], graph, main.block)
    assert len(named) == 2 and isinstance(failure, LegalityFailure) and failure.rule == "F18"
    assert failure.code == LEGALITY_RULES["F18"].code


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
        return ops.matmul(ops.exp(turned), w), ops.sort(ops.neg(turned), axis=0)[0]

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


def test_a_failure_names_values_of_its_own_group() -> None:
    """Equal layers are derived once; what the rule says of a layer is what it says of that layer alone."""
    def program(x: Value) -> Value:
        for layer in ("a", "b"):
            rows = ops.reduce_sum(ops.exp(x, name=f"{layer}/in"), axes=(1,), keep_dims=True, name=f"{layer}/in.rows")
            columns = ops.reduce_max(x, axes=(0,), keep_dims=True, name=f"{layer}/in.columns")
            x = ops.add(rows, columns, name=f"{layer} out")
        return x

    module = trace(program, "f32[24, 48]")
    graph = GroupGraph(module.main.block)
    for layer in ("a", "b"):
        members = [each for each in module.main.block if each.results and each.results[0].name.startswith(layer)]
        group = graph.group(members)
        alone, judged = legal(Group(members)), legal(group)
        assert alone is not None and judged is not None and f"%{layer} out" in alone.message
        assert (judged.message, judged.values) == (alone.message, alone.values)
    assert group.equal is not group
