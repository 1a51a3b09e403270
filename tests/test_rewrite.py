"""Rewrite rules: matching, guards, types, statistics; and rules tested by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import interpreter
from irc.diagnostics import IrcError, Location
from irc.driver.pipelines import parse_pipeline
from irc.driver.rule_checking import check_rule, check_rules
from irc.module import Module
from irc.op import trace
from irc.ops import (
    add,
    const,
    div,
    exp,
    gelu,
    matmul,
    mul,
    neg,
    pow_,
    reduce_sum,
    reshape,
    softmax,
    split,
    sub,
    transpose,
)
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import find_groups
from irc.pattern import constant_of
from irc.rewrite import Rule, RuleStatistics, apply_rules, rewrite
from irc.simplify import simplify
from irc.verifier import verify
from irc.weights import Tensor
from tests.renaming import anonymous, disguised, renamed


@rewrite(numerics="reassociates")
def scale_into_weight(x, w, s):
    """(x @ w) * s  ->  x @ (w * s)"""
    return mul(matmul(x, w), s), matmul(x, mul(w, s))


@scale_into_weight.when
def scalar(s):
    return s.rank == 0 or "the scale must be a scalar"


def apply(rule: Rule, program: Any, *types: str, numerics: Any = "approximates") -> tuple[list[str], RuleStatistics]:
    """Operations after a rule was applied (verified, and the same numbers), and its statistics."""
    module = trace(program, *types)
    before = module.clone()
    statistics: dict[str, RuleStatistics] = {}
    apply_rules(module.main, [rule], numerics=numerics, statistics=statistics)
    verify(module)
    draw = np.random.default_rng(0)
    if all(argument.type.is_static for argument in module.main.arguments):
        inputs = {a.name: draw.normal(size=a.type.static_shape()).astype(a.dtype.numpy) for a in module.main.arguments}
        old, new = (list(interpreter.run(m, inputs, precision="f64").values()) for m in (before, module))
        for a, b in zip(old, new, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5)
    return [o.name for o in module.main.block if o.name not in ("const", "return")], statistics[rule.name]


# -- matching --------------------------------------------------------------------------------------------------


def test_a_rule_applies_at_every_rank():
    for x in ("f32[4, 8]", "f16[2, 4, 8]", "f32[B, S, 8]"):
        kind = x[:3]
        kinds, record = apply(scale_into_weight, lambda x, w, s: mul(matmul(x, w), s), x, f"{kind}[8, 3]", f"{kind}[]")
        assert kinds == ["mul", "matmul"] and record.matched == 1


def test_commutative_operands_match_in_both_orders():
    kinds, _ = apply(scale_into_weight, lambda x, w, s: mul(s, matmul(x, w)), "f32[4, 8]", "f32[8, 3]", "f32[]")
    assert kinds == ["mul", "matmul"]


def test_a_guard_refuses_with_its_reason():
    kinds, record = apply(scale_into_weight, lambda x, w, s: mul(matmul(x, w), s), "f32[4, 8]", "f32[8, 3]", "f32[3]")
    assert kinds == ["matmul", "mul"]
    assert dict(record.rejected) == {"scalar: the scale must be a scalar": 1}
    assert (record.tried, record.matched) == (1, 0)


def test_a_class_that_is_not_allowed_is_not_tried():
    kinds, record = apply(
        scale_into_weight, lambda x, w, s: mul(matmul(x, w), s), "f32[4, 8]", "f32[8, 3]", "f32[]",
        numerics="keeps_more_precision",
    )  # fmt: skip
    assert kinds == ["matmul", "mul"] and record.tried == 0
    assert list(record.rejected) == ["--numerics keeps_more_precision does not allow reassociates"]


@rewrite(numerics="reassociates")
def factor(x, y, s):
    return add(mul(x, s), mul(y, s)), mul(add(x, y), s)


def test_a_leaf_that_occurs_twice_is_one_value():
    assert apply(factor, lambda x, y, s: add(mul(x, s), mul(s, y)), *["f32[4]"] * 3)[0] == ["add", "mul"]
    assert apply(factor, lambda x, y, s: add(mul(x, s), mul(y, y)), *["f32[4]"] * 3)[0] == ["mul", "mul", "add"]


def test_what_is_read_elsewhere_stays():
    def program(x, w, s):
        product = matmul(x, w)
        return mul(product, s), product

    kinds, _ = apply(scale_into_weight, program, "f32[4, 8]", "f32[8, 3]", "f32[]")
    assert sorted(kinds) == ["matmul", "matmul", "mul"]


@rewrite(numerics="reassociates")
def near_root_half(x):
    return mul(x, 0.707107), div(x, 1.41421356237)


@rewrite(numerics="keeps_more_precision")
def very_half(x):
    return mul(x, 0.5), div(x, 2.0)


def test_constants_match_within_the_tolerance_of_the_class():
    assert apply(near_root_half, lambda x: mul(x, 0.70710678), "f32[4]")[0] == ["div"]
    assert apply(near_root_half, lambda x: mul(x, 0.7072), "f32[4]")[0] == ["mul"]
    assert apply(very_half, lambda x: mul(x, 0.5), "f32[4]")[0] == ["div"]
    assert apply(very_half, lambda x: mul(x, 0.5000001), "f32[4]")[0] == ["mul"]


def test_a_number_matches_a_constant_array_only_where_types_agree():
    def full(shape):
        return lambda x: mul(x, const(value=Tensor.of(np.full(shape, 0.5, np.float32))))

    assert apply(very_half, full((1,)), "f32[4]")[0] == ["div"]
    kinds, record = apply(very_half, full((3, 4)), "f32[4]")
    assert kinds == ["mul"] and not record.matched and record.rejected


def test_spellings_are_one_pattern_where_roundings_may_differ():
    @rewrite(numerics="reassociates")
    def square_half(x):
        return add(mul(mul(x, x), 0.5), -2.0), lambda: div(sub(mul(x, x), 4.0), 2.0)

    @rewrite(numerics="exact")
    def square_half_exactly(x):
        return add(mul(mul(x, x), 0.5), -2.0), lambda: div(sub(mul(x, x), 4.0), 2.0)

    def program(x):
        return sub(div(pow_(x, 2.0), 2.0), 2.0)

    assert apply(square_half, program, "f32[4]")[0] == ["mul", "sub", "div"]
    assert apply(square_half_exactly, program, "f32[4]")[1].matched == 0
    assert apply(square_half, lambda x: sub(div(pow_(x, 2.0), 2.0), 2.1), "f32[4]")[1].matched == 0
    assert apply(square_half, lambda x: sub(div(pow_(x, 3.0), 2.0), 2.0), "f32[4]")[1].matched == 0


@rewrite(numerics="exact")
def transposes(x, *, first, second):
    return (
        transpose(transpose(x, permutation=first), permutation=second),
        lambda: transpose(x, permutation=tuple(first[axis] for axis in second)),
    )


def test_attributes_as_wildcards_and_a_replacement_that_needs_them():
    def program(x):
        return transpose(transpose(x, permutation=(1, 2, 0)), permutation=(0, 2, 1))

    assert apply(transposes, program, "f32[2, 3, 4]")[0] == ["transpose"]


@rewrite(numerics="exact")
def flatten_twice(x):
    return reshape(exp(x), shape=(x.shape[0] * x.shape[1],)), exp(reshape(x, shape=(x.shape[0] * x.shape[1],)))


def test_attributes_computed_from_shapes_must_be_the_graphs():
    assert apply(flatten_twice, lambda x: reshape(exp(x), shape=(6,)), "f32[2, 3]")[0] == ["reshape", "exp"]
    kinds, record = apply(flatten_twice, lambda x: reshape(exp(x), shape=(3, 2)), "f32[2, 3]")
    assert (kinds == ["exp", "reshape"] and "shape" in next(iter(record.rejected))) or record.rejected


@rewrite(numerics="exact")
def last_sum(x):
    return neg(reduce_sum(x, axes=(-1,))), reduce_sum(neg(x), axes=(-1,))


def test_axes_count_from_either_end():
    assert apply(last_sum, lambda x: neg(reduce_sum(x, axes=(1,))), "f32[2, 3]")[0] == ["neg", "reduce_sum"]
    assert apply(last_sum, lambda x: neg(reduce_sum(x, axes=(0,))), "f32[2, 3]")[0] == ["reduce_sum", "neg"]


@rewrite(numerics="exact")
def sum_and_difference(x, y):
    return (add(x, y), sub(x, y)), (sub(x, neg(y)), add(x, neg(y)))


@rewrite(numerics="exact")
def halves(x):
    a, b = split(x, axis=0, sizes=(2, 2))
    return (neg(a), neg(b)), lambda: split(neg(x), axis=0, sizes=(2, 2))


def test_several_results():
    kinds, record = apply(sum_and_difference, lambda x, y: (sub(x, y), add(x, y)), "f32[4]", "f32[4]")
    assert (record.matched == 1 and kinds.count("neg") == 1) or kinds.count("neg") == 2

    def program(x):
        a, b = split(x, axis=0, sizes=(2, 2))
        return neg(a), neg(b)

    assert apply(halves, program, "f32[4, 3]")[0] == ["neg", "split"]


@rewrite(numerics="exact")
def to_scalar(x):
    return exp(x), reduce_sum(x, axes=(0,))


def test_a_replacement_of_another_type_is_refused():
    kinds, record = apply(to_scalar, exp, "f32[4]")
    assert kinds == ["exp"]
    assert list(record.rejected) == ["the replacement has type f32[], not f32[4]"]


def test_names_and_makers_are_kept():
    module = trace(lambda x, w, s: mul(matmul(x, w), s, name="h.0.out"), "f32[4, 8]", "f32[8, 3]", "f32[]")
    apply_rules(module.main, [scale_into_weight], numerics="reassociates")
    (returned,) = module.main.returned
    assert returned.name == "h.0.out"
    assert returned.operation is not None
    assert returned.operation.location.made_by == ("rewrite(scale_into_weight)",)


@rewrite(numerics="reassociates")
def half(x):
    return mul(x, 0.5), div(x, 2.0)


@rewrite(numerics="reassociates")
def doubled_sum(x, y):
    return add(mul(x, 2.0), mul(y, 2.0)), lambda: mul(2.0, add(x, y))


@rewrite(numerics="reassociates")
def shared(x, y):
    return mul(add(x, y), 0.5), add(mul(x, 0.5), div(y, 2.0))


@pytest.mark.parametrize("rules", [(half,), (doubled_sum,), (shared,), (half, shared)])
def test_rules_apply_whatever_locations_and_names_say(rules):
    """As where the graph says that a rule, or a pass on an operation that is called as one, made an operation."""

    def program(x, y):
        a = div(add(mul(x, 2.0), div(y, 0.5)), 2.0)
        return mul(add(a, div(x, 2.0)), 0.5), mul(0.5, sub(x, mul(y, 0.5)))

    def applied(module):
        statistics = {}
        assert apply_rules(module.main, rules, numerics="approximates", statistics=statistics)
        counts = [(record.matched, sum(record.rejected.values())) for record in statistics.values()]
        once = anonymous(module)
        assert not apply_rules(module.main, rules, numerics="approximates") and anonymous(module) == once
        return counts, once

    module = trace(program, "f32[4]", "f32[4]")
    expected = applied(module.clone())
    assert applied(disguised(module, 0)) == expected
    for maker in ("rewrite(half)", "legalize(half)", "rewrite(doubled_sum)", "rewrite(shared)", "raise(shared)"):
        def place(_, maker=maker):
            return Location("a.py", 1, made_by=(maker,))

        assert applied(renamed(module, lambda kind, name: f"{kind}.{name}", place)) == expected


def test_a_replacement_that_is_there_already_is_not_put_in():
    @rewrite(numerics="exact")
    def maybe(x, y):
        return add(x, y), lambda: mul(x, 2.0) if x is y else add(x, y)

    kinds, record = apply(maybe, lambda x, y: add(add(x, y), add(x, x)), "f32[4]", "f32[4]")
    assert kinds == ["add", "mul", "add"] and record.matched == 1
    assert record.rejected == {"the replacement is what is there already": 2}


def test_groups_are_found_by_the_same_patterns():
    def bias_gelu(x, b):
        return gelu(add(x, b))

    module = trace(lambda x, b: softmax(gelu(add(b, gelu(x)))), "f32[B, 8]", "f32[8]")
    assert [[o.name for o in members] for members in find_groups(module.main, bias_gelu)] == [["gelu", "add"]]


def test_simplify_rules_see_the_operation():
    @simplify("add")
    def double(operation):
        x, y = operation.inputs
        return mul(x, 2.0) if x is y else None

    assert apply(double, lambda x: add(x, x), "f32[4]")[0] == ["mul"]
    assert apply(double, lambda x, y: add(x, y), "f32[4]", "f32[4]")[0] == ["add"]


def test_constant_of():
    module = trace(lambda x: add(x, const(value=Tensor.of(np.full((3, 100), 2.0, np.float32)))), "f32[100]")
    first, second, _ = module.main.block
    assert constant_of(first.result) == 2.0 and constant_of(second.result) is None


# -- mistakes --------------------------------------------------------------------------------------------------


def test_rules_that_undo_one_another_are_stopped():
    @rewrite(numerics="exact")
    def endless(x, y):
        return add(x, y), add(y, x)

    with pytest.raises(IrcError) as caught:
        apply(endless, add, "f32[4]", "f32[4]")
    assert caught.value.code == "rule.endless"


def test_mistakes_in_a_rule_are_told_with_their_line(tmp_path: Path):
    def code_of(body: str, run: bool = False) -> tuple[str, str]:
        file = tmp_path / f"rules_{abs(hash(body))}.py"
        file.write_text("from irc.ops import *\nfrom irc.rewrite import rewrite\n" + body)
        with pytest.raises(IrcError) as caught:
            report = check_rules(file)
            assert run, report
        return caught.value.code, str(caught.value)

    head = "@rewrite(numerics='exact')\ndef r(x):\n    return neg(neg(x)), x\n"
    assert code_of("@rewrite(numerics='exact')\ndef r(x):\n    return neg(x)\n")[0] == "rule.raised"
    assert code_of("@rewrite(numerics='exact')\ndef r(x):\n    return x, neg(x)\n")[0] == "rule.raised"
    assert code_of(head + "@r.when\ndef g(q):\n    return True\n")[0] == "rule.guard"
    assert code_of(head + "@r.when\ndef g(x):\n    return 3\n", run=True)[0] == "rule.guard"
    code, text = code_of(head + "@r.when\ndef g(x):\n    return x.nothing\n", run=True)
    assert code == "rule.raised" and ":8: AttributeError" in text
    code, text = code_of("@rewrite(numerics='exact')\ndef r(x):\n    return neg(x), (x if x.rank == 2 else neg(x))\n")
    assert code == "rule.raised" and "return the replacement as a function" in text
    assert code_of("x = 1\n")[0] == "usage.value"


# -- rules test themselves -------------------------------------------------------------------------------------

RULES = '''
from irc.ops import add, div, exp, matmul, mul, neg, sub, cast
from irc.rewrite import rewrite

@rewrite(numerics="reassociates")
def scale_into_weight(x, w, s):
    return mul(matmul(x, w), s), matmul(x, mul(w, s))

@scale_into_weight.when
def scalar(s):
    return s.rank == 0 or "the scale must be a scalar"

@rewrite(numerics="exact")
def twice_negative(x):
    return neg(neg(x)), x

@rewrite(numerics="reassociates")
def drops_a_little(x, y):
    return sub(add(x, y), y), add(x, 0.001)

@rewrite(numerics="exact")
def not_quite_exact(x):
    return div(x, 3.0), mul(x, 1 / 3)

@rewrite(numerics="reassociates")
def without_its_guard(x, w, s):
    return mul(matmul(x, w), s), matmul(mul(x, s), w)

@rewrite(numerics="keeps_more_precision")
def rounds_to_integers(x, *, to):
    return cast(cast(x, to=to), to=x.dtype), x
'''


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.py"
    file.write_text(RULES)
    return file


def test_a_rule_is_its_own_test(rules: Path):
    idle = trace(neg, "f32[4]")
    busy = trace(lambda x, w: mul(matmul(x, w), 2.0), "f32[4, 8]", "f32[8, 3]")
    report = check_rules(rules, {"idle": idle, "busy": busy})
    good, negative, *bad = report.rules
    assert str(report).startswith(
        "scale_into_weight: 200 programs generated from the pattern, f16 bf16 f32 f64: "
        "equal within the stated numerics\n"
        "  guard scalar: 40 near-misses that violate it: rejected\n"
        "  matched 1 time in busy\n"
        "  idle: never matched in idle\n"
    )
    assert good.matched_in == {"idle": 0, "busy": 1} and negative.idle_in == ["idle", "busy"]
    assert not report.passed and [rule.name for rule in bad if rule.failure is None] == []
    for rule in bad:
        assert rule.failure is not None and "func @main" in rule.failure.program and rule.failure.size
    assert str(check_rules(rules, {"idle": idle, "busy": busy})) == str(report)  # the same every time


def test_our_own_rules_pass():
    import irc.passes.canonicalize as canonicalize

    for rule in canonicalize.RULES:
        report = check_rule(rule)
        assert report.failure is None, "\n".join(report.lines())
        assert report.programs


def test_the_rewrite_pass_applies_a_file(rules: Path):
    def program() -> Module:
        return trace(lambda x, w: neg(neg(mul(matmul(x, w), 2.0))), "f32[4, 8]", "f32[8, 3]")

    module, context = program(), PassContext(numerics="reassociates")
    PassManager(parse_pipeline(f"rewrite{{rules={rules}}},dce"), context, verify_each=True).run(module)
    assert [o.name for o in module.main.block] == ["const", "mul", "matmul", "return"]
    assert context.statistics["rewrite(scale_into_weight)"] == {"tried": 4, "matched": 1}
    module = program()
    PassManager(parse_pipeline(f"rewrite{{rules={rules}:twice_negative}}"), PassContext()).run(module)
    assert [o.name for o in module.main.block] == ["matmul", "const", "mul", "return"]
    with pytest.raises(IrcError) as caught:
        PassManager(parse_pipeline("rewrite"), PassContext()).run(module)
    assert caught.value.code == "pass.option"
