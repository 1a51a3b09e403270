"""The pass manager and the plain passes: canonicalize, fold, cse, dce, legalize, windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import dtypes, interpreter
from irc.diagnostics import InternalError, IrcError
from irc.driver.models import Settings
from irc.driver.pipelines import find_pass, parse_pipeline, pass_names
from irc.ir import Operation
from irc.module import EdgeCases, Module
from irc.numerics import NUMERICS, allows
from irc.op import Builder, trace
from irc.ops import (
    add,
    attention,
    bind,
    const,
    dim,
    exp,
    expand,
    gelu,
    mul,
    neg,
    reduce_sum,
    reshape,
    select,
    silu,
    slice_,
    sub,
    transpose,
    window_reduce,
)
from irc.pass_manager import Pass, PassContext, PassManager
from irc.passes import canonicalize
from irc.passes.cse import Cse
from irc.passes.dce import Dce
from irc.passes.grouped_heads import GroupedHeads
from irc.passes.legalize import Legalize
from irc.rewrite import apply_rules
from irc.simplify import SimplifyRule
from irc.user_files import load_user_module, load_user_object
from tests.growth import assert_linear_time, calls_of


def run(pipeline: str, module: Module, context: PassContext | None = None) -> list[str]:
    """The names of the operations that a pipeline leaves in the main function."""
    PassManager(parse_pipeline(pipeline, context), context).run(module)
    return names(module)


def names(module: Module) -> list[str]:
    return [operation.name for operation in module.main.block]


# -- pipelines -------------------------------------------------------------------------------------------------


def test_a_pipeline_sets_options_and_prints_as_it_was_read():
    passes = parse_pipeline("dce, legalize{ops={gelu,silu}}")
    assert [str(step) for step in passes] == ["dce", "legalize{ops={gelu,silu}}"]
    assert passes[1] == Legalize(ops=("gelu", "silu"))


def test_aliases_hand_their_options_on():
    passes = parse_pipeline("default{legalize.ops=gelu}", aliases={"default": "cse,legalize,dce"})
    assert [str(step) for step in passes] == ["cse", "legalize{ops={gelu}}", "dce"]


@pytest.mark.parametrize(
    "text, code, column",
    [
        ("cse,legalise", "pass.unknown", 5),
        ("dce,legalize{op=gelu}", "pass.option", 14),
        ("legalize{ops={a,b}", "pass.syntax", 9),
        ("cse}", "pass.syntax", 4),
        ("cse,,dce", "pass.syntax", 5),
        ("cse dce", "pass.syntax", 1),
        ("default{fuse.policy=x}", "pass.option", 9),
    ],
)
def test_a_wrong_pipeline_is_shown_with_a_caret(text: str, code: str, column: int):
    with pytest.raises(IrcError) as caught:
        parse_pipeline(text, aliases={"default": "cse,dce"})
    assert caught.value.code == code
    span = caught.value.diagnostics[0].text
    assert span is not None and span.column == column


def test_an_unknown_pass_suggests_the_nearest():
    with pytest.raises(IrcError, match="legalize"):
        find_pass("legalise")


def test_every_pass_can_be_found_and_is_documented():
    for name in pass_names():
        kind = find_pass(name)
        assert kind.pipeline_name() == name
        assert kind.__doc__ and len(kind.__doc__) > 40


def test_numerics_classes_are_nested():
    for index, allowed in enumerate(NUMERICS):
        assert [allows(allowed, expected) for expected in NUMERICS] == [i <= index for i in range(4)]


def test_stages_are_observed_and_dumped_by_unique_names(capsys: pytest.CaptureFixture[str]):
    module = trace(lambda x: exp(neg(neg(x))), "f32[4]")
    seen: list[str] = []

    def observe(stage: str, module: Module) -> None:
        seen.append(stage)
        Settings(dump_after=["cse.2"]).dump(stage, module)

    assert PassManager(parse_pipeline("cse,canonicalize,cse"), observe=observe).run(module)
    assert not PassManager(parse_pipeline("cse,canonicalize,cse")).run(module)
    assert seen == ["cse", "canonicalize", "cse.2"]
    dumped = capsys.readouterr().err
    assert dumped.startswith("# after cse.2\nirc text 1") and "neg" not in dumped


@dataclasses.dataclass
class Broken(Pass):
    """A pass that fails."""

    def run(self, module: Module, context: PassContext) -> bool:
        raise ZeroDivisionError("planted")


def test_an_internal_failure_leaves_a_reproducer(tmp_path: Path):
    module = trace(lambda x: exp(neg(neg(x))), "f32[4]")
    context = PassContext(reproduce=Settings(reproducers=tmp_path, command="irc opt m.irc").reproduce)
    with pytest.raises(InternalError) as caught:
        PassManager([canonicalize.Canonicalize(), Broken(), Cse()], context).run(module)
    assert caught.value.code == "internal.pass" and caught.value.exit_code == 70
    (folder,) = tmp_path.iterdir()
    assert "neg" not in (folder / "module.irc").read_text()  # the module before the pass, not the first one
    assert "ZeroDivisionError: planted" in (folder / "traceback.txt").read_text()
    assert "cse" in (folder / "command").read_text()


def test_a_pass_of_a_loaded_file(tmp_path: Path):
    file = tmp_path / "experiment.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from irc.pass_manager import Pass\n"
        "@dataclass\n"
        "class DropExp(Pass):\n"
        "    '''Remove exp.'''\n"
        "    fail: bool = False\n"
        "    def run(self, module, context):\n"
        "        if self.fail:\n"
        "            raise KeyError('mine')\n"
        "        for operation in module.main.block:\n"
        "            if operation.name == 'exp':\n"
        "                operation.replace(operation.inputs)\n"
        "        return True\n"
    )
    context = PassContext(loaded=[load_user_module(file)])
    assert run("drop_exp", trace(exp, "f32[4]"), context) == ["return"]
    with pytest.raises(IrcError) as caught:
        run("drop_exp{fail}", trace(exp, "f32[4]"), context)
    assert caught.value.code == "pass.raised"
    assert "experiment.py:9: KeyError: 'mine'" in str(caught.value)


def test_mistakes_in_a_loaded_file_are_its_authors(tmp_path: Path):
    (tmp_path / "bad.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "good.py").write_text("frugal = 1\n")
    for reference, code in (
        (f"{tmp_path}/missing.py:x", "file.missing"),
        (f"{tmp_path}/bad.py:y", "load.raised"),
        (f"{tmp_path}/syntax.py:y", "load.raised"),
        (f"{tmp_path}/good.py:frugel", "load.missing_name"),
    ):
        with pytest.raises(IrcError) as caught:
            load_user_object(reference)
        assert caught.value.code == code
    assert "did you mean frugal" in str(caught.value)
    with pytest.raises(IrcError, match=r"bad.py:2: ZeroDivisionError"):
        load_user_module(tmp_path / "bad.py")
    assert load_user_object(f"{tmp_path}/good.py:frugal") == 1


# -- dce and cse -----------------------------------------------------------------------------------------------


def test_dce_removes_chains_and_keeps_names():
    module = trace(lambda x: (exp(exp(neg(x))), neg(x))[1], "f32[4]")
    assert run("dce", module) == ["neg", "return"]


def test_dce_keeps_a_bind_whose_symbol_is_in_a_live_type():
    def build(uses_symbol: bool) -> Module:
        module = trace(lambda n, x: x, "i64[]", "f32[1]")
        function = module.main
        n, x = function.arguments
        end = function.block.terminator
        symbol = function.fresh_symbol("u", 0, 8)
        with Builder(function.block, end) as builder:
            builder.create(bind, [n], {"symbol": symbol}, symbols=[symbol])
            grown = expand(x, shape=(symbol.expr,))
        if uses_symbol:
            end.set_operand(0, grown)
        return module

    assert run("dce", build(True)) == ["bind", "expand", "return"]
    assert run("dce", build(False)) == ["return"]


def test_cse_merges_commuted_operands_but_not_attributes_of_another_value():
    module = trace(lambda x, y: (add(x, y), add(y, x), sub(x, y), sub(y, x)), "f32[4]", "f32[4]")
    assert run("cse", module) == ["add", "sub", "sub", "return"]
    module = trace(lambda x: (reduce_sum(x, axes=(0,)), reduce_sum(x, axes=(1,))), "f32[4, 4]")
    assert run("cse", module) == ["reduce_sum", "reduce_sum", "return"]
    module = trace(lambda x: (mul(x, 0.0), mul(x, -0.0)), "f32[4]")
    assert run("cse", module).count("mul") == 2


def test_cse_serves_regions_from_outside_and_never_across():
    from irc.parser import parse

    module = parse(
        "irc text 1\n"
        "module @m {\n"
        "  func @main(%c: bool[], %x: f32[4]) -> (f32[4], f32[4]) {\n"
        "    %a = exp %x : f32[4]\n"
        "    %r = if %c : f32[4] {\n"
        "      %b = exp %x : f32[4]\n"
        "      %n = neg %x : f32[4]\n"
        "      %s = add %b, %n : f32[4]\n"
        "      yield %s\n"
        "    } else {\n"
        "      %m = neg %x : f32[4]\n"
        "      yield %m\n"
        "    }\n"
        "    %l = neg %x : f32[4]\n"
        "    return %r, %l\n"
        "  }\n"
        "}\n"
    )
    Cse().run(module, PassContext())
    kinds = [operation.name for operation in module.walk()]
    assert kinds.count("exp") == 1 and kinds.count("neg") == 3


def test_dce_and_cse_after_one_another_leave_the_first_names():
    module = trace(lambda x: add(exp(x, name="first"), exp(x, name="second")), "f32[4]")
    run("cse,dce", module)
    assert module.main.block.first is not None and module.main.block.first.result.name == "first"


# -- legalize --------------------------------------------------------------------------------------------------


class TakesNothing:
    def takes(self, operation: Operation, edge_cases: EdgeCases) -> bool:
        return False


class TakesSigmoid:
    def takes(self, operation: Operation, edge_cases: EdgeCases) -> bool:
        return operation.name == "sigmoid"


def test_legalize_expands_what_the_target_refuses_recursively():
    module = trace(lambda x: silu(x, name="h"), "f32[4]")
    assert "sigmoid" in run("legalize", module.clone(), PassContext(target=TakesSigmoid()))
    expanded = module.clone()
    kinds = run("legalize", expanded, PassContext(target=TakesNothing()))
    assert "sigmoid" not in kinds and "silu" not in kinds and "exp" in kinds
    (returned,) = expanded.main.returned
    assert returned.name == "h"
    assert returned.operation is not None and returned.operation.location.made_by == ("legalize(silu)",)


def test_legalize_can_be_told_which():
    assert run("legalize{ops=gelu}", trace(lambda x: silu(gelu(x)), "f32[4]"))[-2:] == ["silu", "return"]


# -- windows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64", "i32", "u8"])
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize(
    "window, strides, dilations, low, high",
    [
        ((1, 2, 3), (1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0)),
        ((1, 3, 2), (1, 2, 3), (1, 1, 2), (0, 1, 0), (0, 1, 2)),
        ((2, 1, 5), (1, 1, 1), (1, 1, 1), (1, 0, 4), (0, 0, 4)),
    ],
)
def test_windows_are_slices_that_compute_the_same(dtype, kind, window, strides, dilations, low, high):
    sides = {"window": window, "strides": strides, "dilations": dilations, "low": low, "high": high}
    module = trace(lambda x: window_reduce(x, kind=kind, **sides), f"{dtype}[2, ?S in (4, 64), 7]")
    x = np.random.default_rng(0).uniform(0, 9, (2, 5, 7)).astype(dtypes.by_name(dtype).numpy)
    if kind == "max" and x.dtype.kind not in "iu":
        x[0, 1, 2:5] = np.nan, np.inf, -np.inf
    (expected,) = irc.run(module, {"x": x}).outputs.values()
    assert "window_reduce" not in run("windows", module)
    (result,) = irc.run(module, {"x": x}).outputs.values()
    np.testing.assert_allclose(result.astype("f8"), expected.astype("f8"), rtol=1e-6 if kind == "sum" else 0)


def test_windows_that_are_large_or_larger_than_the_operand_stay():
    def pooled(side: int):
        sides = {"window": (side, side), "strides": (1, 1), "dilations": (1, 1), "low": (0, 0), "high": (0, 0)}
        return lambda x: window_reduce(x, kind="max", **sides)

    assert "window_reduce" in run("windows", trace(pooled(6), "f32[9, 9]"))
    assert "window_reduce" not in run("windows{limit=36}", trace(pooled(6), "f32[9, 9]"))
    assert "window_reduce" in run("windows", trace(pooled(2), "f32[?S in (0, 9), 9]"))
    without = trace(pooled(2), "f32[?S in (1, 9), 9]")  # at 1 there is no window
    assert "window_reduce" not in run("windows", without)
    (result,) = irc.run(without, {"x": np.ones((1, 9), np.float32)}).outputs.values()
    assert result.shape == (0, 8)


# -- canonicalize ----------------------------------------------------------------------------------------------

EXAMPLES = [
    pytest.param(rule, program, types, expected, id=f"{rule.name}-{'example' if expected else 'near_miss'}-{index}")
    for rule in canonicalize.RULES
    if isinstance(rule, SimplifyRule)
    for expected, programs in ((True, rule.examples), (False, rule.near_misses))
    for index, (program, types) in enumerate(programs)
]


@pytest.mark.parametrize("rule, program, types, expected", EXAMPLES)
def test_canonical_forms(rule, program, types, expected):
    module = trace(program, *types)
    assert apply_rules(module.main, [rule], numerics="exact") is expected


def test_canonicalize_knows_that_adding_zero_changes_minus_zero():
    assert run("canonicalize", trace(lambda x: add(x, 0.0), "f32[4]")) == ["const", "add", "return"]
    assert run("canonicalize", trace(lambda x: add(x, 0), "i64[4]")) == ["return"]


def test_canonicalize_keeps_the_source_names():
    module = trace(lambda x: mul(1.0, neg(x), name="scaled"), "f32[4]")
    assert run("canonicalize", module) == ["neg", "return"]
    assert module.main.output_names == ("scaled",)


def test_canonicalize_folds_dims():
    module = trace(lambda x: select(True, dim(value=x.shape), dim(value=(1, 2))), "f32[B, 4]")
    assert run("canonicalize", module) == ["dim", "return"]
    module = trace(lambda x: (x, dim(value=7))[1], "f32[B, 4]")
    assert run("canonicalize", module) == ["const", "return"]


def test_canonicalize_sees_a_transpose_through_merged_batches():
    def keys(x):
        merged = reshape(x, shape=(12 * x.shape[0], x.shape[2], 32))
        return reshape(transpose(merged, permutation=(0, 2, 1)), shape=(x.shape[0], 12, 32, x.shape[2]))

    module = trace(keys, "f32[B, 12, S, 32]")
    assert run("canonicalize", module) == ["transpose", "return"]
    assert module.main.block.first is not None
    assert module.main.block.first.attributes["permutation"] == (0, 1, 3, 2)


def test_an_if_of_a_known_condition_is_inlined():
    from irc.parser import parse

    module = parse(
        "irc text 1\nmodule @m {\n  func @main(%x: f32[4]) -> f32[4] {\n    %c = const false : bool[]\n"
        "    %r = if %c : f32[4] {\n      %b = exp %x : f32[4]\n      yield %b\n    } else {\n"
        "      %m = neg %x : f32[4]\n      yield %m\n    }\n    return %r\n  }\n}\n"
    )
    assert run("canonicalize", module) == ["neg", "return"]


def test_passes_take_linear_time():
    """By the calls of functions, which are the same on any machine, and by time, for what happens inside one call."""
    def chain_of(count: int) -> Module:
        def chain(x):
            for _ in range(count // 5):
                x = neg(neg(mul(1.0, exp(x))))
            return x

        return trace(chain, "f32[4]")

    modules = {count: chain_of(count) for count in (200, 2_000)}
    for pipeline in ("canonicalize", "cse", "dce"):
        def prepared(count: int, pipeline: str = pipeline) -> Callable[[], Any]:
            copy, manager = modules[count].clone(), PassManager(parse_pipeline(pipeline))
            return lambda: manager.run(copy)

        small, large = (calls_of(prepared(count)) for count in modules)
        assert large < 10 * 1.5 * small, pipeline
        assert_linear_time(prepared, *modules, slack=4)


def test_constants_stay_constants():
    module = trace(lambda x: add(x, 2.0), "f32[4]")
    assert run("canonicalize,cse,dce", module) == ["const", "add", "return"]
    assert const.name == "const"
    assert Dce().run(module, PassContext()) is False


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_grouped_heads_reads_what_is_repeated(batch: int, length: int) -> None:
    """Keys and values of shared heads are read once; those of a prefix of a cache stay a prefix."""
    def repeated(cache: Any) -> Any:
        prefix = slice_(cache, starts=(0,) * 4, stops=(batch, 2, length, 8), steps=(1,) * 4)
        apart = expand(reshape(prefix, shape=(batch, 2, 1, length, 8)), shape=(batch, 2, 3, length, 8))
        return reshape(apart, shape=(batch, 6, length, 8))

    cache = f"f32[{batch}, 2, 5, 8]"
    module = trace(lambda q, k, v: attention(q, repeated(k), repeated(v)), f"f32[{batch}, 6, 7, 8]", cache, cache)
    generator = np.random.default_rng(0)
    inputs = {argument.name: generator.standard_normal(argument.type.static_shape()).astype(np.float32)
              for argument in module.main.arguments}  # fmt: skip
    (expected,) = interpreter.run(module, inputs).values()
    assert GroupedHeads().run(module, PassContext())
    (grouped,) = interpreter.run(module, inputs).values()
    np.testing.assert_array_equal(grouped, expected)
    (operation,) = [each for each in module.walk() if each.name == "attention"]
    assert [value.shape[1] for value in operation.inputs] == [6, 2, 2]
