"""Products of one operand that become one product, and what is computed of its parts where they are stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("triton")

import irc
from irc import dtypes, interpreter, ops
from irc.backends.triton import emit
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.ir import Value
from irc.kernel import LegalityFailure
from irc.kernel.rules import LEGALITY_RULES
from irc.kernel.sibling_rules import siblings_multiply_one_value
from irc.module import Module
from irc.op import const, trace
from irc.parser import parse
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.test_products import kinds, transposed
from tests.triton_cases import PRODUCT_BOUNDS, check_compiled

SETTINGS = Settings(products="irc")


def weight(*shape: int, dtype: str = "f32", seed: int = 0) -> Value:
    """A constant with a name, as a model's weights have."""
    elements = np.random.default_rng([seed, *shape]).standard_normal(shape) / np.sqrt(shape[0])
    return const(value=Tensor.of(elements, dtypes.by_name(dtype), f"w{seed}_{'x'.join(map(str, shape))}"))


def products(widths: Sequence[int], dtype: str = "f32", bias: bool = False, turned: bool = False) -> Callable[..., Any]:
    """A function of x: its products with matrices of these widths."""

    def program(x: Value) -> tuple[Value, ...]:
        depth, results = x.shape[-1], []
        assert isinstance(depth, int)
        for number, width in enumerate(widths):
            matrix = weight(depth, width, dtype=dtype, seed=number)
            if turned:
                matrix = transposed(weight(width, depth, dtype=dtype, seed=number))
            product = ops.matmul(x, matrix)
            results.append(ops.add(product, weight(width, dtype=dtype, seed=number)) if bias else product)
        return tuple(results)

    return program


def fused(program: Callable[..., Any] | Module, *types: str) -> Module:
    module = program.clone() if isinstance(program, Module) else trace(program, *types)
    return irc.opt(module, "default", backend="triton", settings=SETTINGS)


def check_run(module: Module, folder: Path, tolerance: float, sizes: dict[str, int] | None = None) -> None:
    """Results as interpreted, and bytes as the model counts them."""
    run = harness.run(module, folder=folder, sizes=sizes or {}, fuse=False, real_tiles=True)
    assert not run.program.rejected
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) <= tolerance
    for launch in run.launches:
        assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("widths", [(64, 16, 16), (48, 48, 48), (1, 100, 7, 33)], ids=str)
def test_products_of_one_operand_are_one_product(widths: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    """Of any widths, with and without biases, for weights as they are and transposed."""
    for number, (bias, turned) in enumerate(((False, False), (True, True))):
        module = trace(products(widths, dtype, bias, turned), f"{dtype}[B, S, 40]")
        joined = fused(module)
        assert kinds(joined) == ["product"], joined
        check_run(joined, tmp_path / str(number), PRODUCT_BOUNDS[dtype], {"B": 2, "S": 17})


def test_joined_products_mean_what_they_meant() -> None:
    """The rewrite alone, against the program before it."""
    module = trace(products((64, 16, 16), bias=True, turned=True), "f32[B, S, 40]")
    joined = irc.opt(module.clone(), "bias,siblings", settings=SETTINGS)
    assert [operation.name for operation in joined.main.block].count("split_linear") == 1
    inputs = harness.random_inputs(module, {"B": 2, "S": 5})
    for actual, expected in zip(irc.interpreter.run(joined, inputs).values(),
                                irc.interpreter.run(module, inputs).values(), strict=True):  # fmt: skip
        assert harness.relative_error(actual, expected) < 1e-6


def gated(x: Value) -> Value:
    gate, up = products((48, 48))(x)
    return ops.mul(ops.silu(gate), up)


def shared_weight(x: Value) -> tuple[Value, ...]:
    matrix = weight(40, 16)
    return ops.matmul(x, matrix), ops.matmul(x, weight(40, 24)), matrix


APART: dict[str, Callable[..., Any]] = {
    "gated": gated,
    "shared_weight": shared_weight,
    "weights_of_callers": lambda x, v: (ops.matmul(x, v), ops.matmul(x, weight(40, 24))),
    "other_operands": lambda x, v: (ops.matmul(x, weight(40, 16)), ops.matmul(ops.exp(x), weight(40, 24))),
    "batches": lambda x, v: (ops.matmul(x, weight(2, 40, 16)), ops.matmul(x, weight(2, 40, 24))),
    "one": lambda x, v: ops.matmul(x, weight(40, 16)),
}


@pytest.mark.parametrize("name", APART)
def test_products_that_stay_apart(name: str) -> None:
    types = ("f32[2, 17, 40]", "f32[40, 16]")[: APART[name].__code__.co_argcount]
    module = irc.opt(trace(APART[name], *types), "siblings", settings=SETTINGS)
    assert "split_linear" not in [operation.name for operation in module.main.block]


def test_one_call_computes_products_of_one_operand() -> None:
    module = trace(products((64, 16)), "f32[S, 40]")
    joined = irc.opt(module, "default", backend="triton")
    assert kinds(joined) == ["matmul", "split"]
    x = np.random.default_rng(0).standard_normal((7, 40), np.float32)
    for name, expected in interpreter.run(module, {"x": x}).items():
        np.testing.assert_allclose(interpreter.run(joined, {"x": x})[name], expected, rtol=1e-5, atol=1e-5)
    apart = irc.opt(module, "default{fuse.products=auto}", backend="triton", settings=Settings(products="auto"))
    assert "split" not in kinds(apart)  # where each product is a choice
    stated = trace(lambda x, w: ops.split_linear(x, w, sizes=(24, 8)), "f32[S, 40]", "f32[40, 32]")
    assert kinds(irc.opt(stated, "default", backend="triton")) == ["matmul", "split"]
    assert kinds(fused(stated)) == ["product"]
    wide = trace(lambda x, w: ops.split_linear(x, w, sizes=(24, 8)), "f64[S, 40]", "f64[40, 32]")
    assert kinds(fused(wide)) == ["matmul", "split"]  # kernels multiply no f64


class Joined(nn.Module):
    """Queries, keys and values as the columns of one layer: split as in GPT-2, or sliced as in Phi-3."""

    def __init__(self, sliced: bool) -> None:
        super().__init__()
        self.layer, self.sliced = nn.Linear(48, 64 + 2 * 16), sliced

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.layer(x)
        if self.sliced:
            k, q, v = y[..., 64:80], y[..., :64], y[..., 80:]
        else:
            q, k, v = y.split((64, 16, 16), dim=-1)
        return q.exp(), k.relu(), v


# -- plans that state siblings ---------------------------------------------------------------------------------


def four(x: Value) -> tuple[Value, ...]:
    """Products of one operand, one of which is of a weight that is no constant of its own, and one of another value."""
    q, k, v = (ops.matmul(x, weight(16, 16, seed=seed), name=name) for seed, name in enumerate("qkv"))
    turned = weight(16, 16, seed=8)
    w = ops.matmul(x, turned, name="w")
    other = ops.matmul(ops.exp(x, name="e"), weight(16, 16, seed=5), name="o")
    return ops.tanh(q, name="qt"), ops.add(k, x, name="kx"), v, w, turned, other


def planned(folder: Path, products: Any, siblings: Any = "as written", groups: Any = None) -> tuple[str, Settings]:
    """A pipeline that follows the plan of `four` with other siblings."""
    settings = Settings(products=products)
    plan = json.loads(irc.make_plan(trace(four, "f32[S, 16]"), settings=settings).plan)
    assert [entry["members"] for entry in plan["siblings"]] == [["q", "k", "v"]]
    if siblings is None:
        del plan["siblings"]
    elif siblings != "as written":
        plan["siblings"] = [{"members": members} for members in siblings]
    plan["groups"] = plan["groups"] if groups is None else [{"members": members} for members in groups]
    (folder / "p.json").write_text(json.dumps(plan, indent=1))
    return f"default{{fuse.plan={folder}/p.json}}", settings


@pytest.mark.parametrize("products", ["host", "irc"])
@pytest.mark.parametrize("siblings, joined", [("as written", 3), (None, 3), ([], 0), ([["v", "q"]], 2)], ids=str)
def test_plans_state_which_products_are_joined(products: str, siblings: Any, joined: int, tmp_path: Path) -> None:
    """Where they state none, rules choose, as before there were such entries."""
    pipeline, settings = planned(tmp_path, products, siblings, None if joined == 3 else [])
    module = trace(four, "f32[S, 16]")
    replayed = irc.opt(module, pipeline, settings=settings)
    parts = [len(each.results) for each in replayed.main.walk() if each.name in ("split", "split_linear")]
    assert parts[:1] == [joined] * bool(joined)
    x = np.random.default_rng(0).standard_normal((5, 16), np.float32)
    for name, expected in interpreter.run(module, {"x": x}).items():
        np.testing.assert_allclose(interpreter.run(replayed, {"x": x})[name], expected, rtol=1e-5, atol=1e-5)
    if joined == 3:
        assert str(replayed).replace("fuse(plan)", "fuse(greedy)") == str(irc.opt(module, "default", settings=settings))


NO_SIBLINGS: dict[str, tuple[list[list[str]], str, str]] = {
    "another value": ([["q", "o"]], "plan.refused", "rule F19: %q is a matmul of %x, and %o a matmul of %e"),
    "a weight that others read": ([["q", "w"]], "plan.refused", "rule F19: %w, a matmul, is no product of rows"),
    "no product": ([["q", "qt"]], "plan.refused", "rule F19: %qt, a tanh, is no product of rows"),
    "one": ([["q"]], "plan.refused", "rule F19: 1 products are joined"),
    "an argument": ([["q", "x"]], "plan.refused", "%x is an argument"),
    "twice": ([["q", "k"], ["k", "v"]], "plan.refused", "products of it are in another entry"),
    "no value": ([["q", "kk"]], "plan.stale", "did you mean k"),
}


@pytest.mark.parametrize("name", NO_SIBLINGS)
def test_what_cannot_be_joined_is_refused_with_rule_and_place(name: str, tmp_path: Path) -> None:
    siblings, code, words = NO_SIBLINGS[name]
    pipeline, settings = planned(tmp_path, "host", siblings)
    with pytest.raises(IrcError) as raised:
        irc.opt(trace(four, "f32[S, 16]"), pipeline, settings=settings)
    line = 2 + next(number for number, text in enumerate((tmp_path / "p.json").read_text().split("\n"))
                    if '"siblings"' in text) + (6 if name == "twice" else 0)  # fmt: skip
    assert raised.value.code == code and words in str(raised.value)
    assert f"p.json:{line}\n" in str(raised.value) + "\n", str(raised.value)


def test_siblings_that_no_pass_joins_or_that_are_choices_are_refused(tmp_path: Path) -> None:
    pipeline, settings = planned(tmp_path, "host")
    module = trace(four, "f32[S, 16]")
    with pytest.raises(IrcError, match="no pass `siblings` has joined these products"):
        irc.opt(module, f"fuse{{plan={tmp_path}/p.json}}", settings=settings)
    same = irc.opt(module, pipeline, settings=Settings(products="auto"))  # as it was made for
    assert str(same) == str(irc.opt(module, pipeline, settings=settings))
    plan = json.loads((tmp_path / "p.json").read_text())
    del plan["made_for"]
    (tmp_path / "p.json").write_text(json.dumps(plan))
    with pytest.raises(IrcError, match="with products=auto each product is a choice"):
        irc.opt(module, pipeline, settings=Settings(products="auto"))


def test_the_example_of_f19_breaks_it() -> None:
    head, _, text = LEGALITY_RULES["F19"].example.partition(" of\n")
    main = parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n").main
    with pytest.raises(LegalityFailure, match="no product of rows with a constant"):
        siblings_multiply_one_value([main.find(name).operation for name in re.findall(r"%(\w+)", head)],  # type: ignore[misc]
                                    [False, False], [False, False], 8)  # fmt: skip


@pytest.mark.parametrize("products", ["host", "irc"])
def test_products_are_joined_and_set_apart_by_edits(products: Any, tmp_path: Path) -> None:
    module, path, settings = trace(four, "f32[S, 16]"), tmp_path / "p.json", Settings(products=products)
    irc.make_plan(module, path, settings=settings)
    (tmp_path / "old.json").write_bytes(path.read_bytes())
    apart = irc.edit_plan(path, [("apart", "k")], module).steps[0]
    assert "%q, %k, %v are no longer joined" in apart.changes
    calls = [cost.library_calls if products == "host" else cost.launches for cost in (apart.before, apart.after)]
    assert calls[1] == calls[0] + 2
    joined = irc.edit_plan(path, [("join", "v,q,%k")], module).steps[0]
    assert "%q, %k, %v are joined" in joined.changes and joined.after == apart.before
    assert not [each for each in irc.compare_plans(tmp_path / "old.json", path).differences if each.kind == "siblings"]
    for edit, words in ((("join", "q,qt"), "%q, %k, %v are joined already"), (("apart", "o"), "joined with no product"),
                        (("join", "o,w"), "rule F19"), (("join", "o,nothing"), "no entry or member")):  # fmt: skip
        with pytest.raises(IrcError, match=words):
            irc.edit_plan(path, [edit], module)


@pytest.mark.parametrize("sliced", [False, True])
def test_parts_of_the_columns_of_a_product_are_stored_apart(sliced: bool, tmp_path: Path) -> None:
    module = irc.from_torch(Joined(sliced).eval(), (torch.randn(2, 17, 48),))
    joined = fused(module)
    assert kinds(joined) == ["product"] and "split_linear" in str(joined)
    check_run(joined, tmp_path / "a", PRODUCT_BOUNDS["f32"])


def columns(x: Value, start: int, stop: int, step: int = 1) -> Value:
    return ops.slice_(x, starts=(0, start), stops=(x.shape[0], stop), steps=(1, step))


WHOLE: dict[str, Callable[[Value], Any]] = {
    "a_part": lambda y: (columns(y, 0, 16), columns(y, 16, 32)),
    "overlapping": lambda y: (columns(y, 0, 24), columns(y, 16, 40)),
    "strided": lambda y: (columns(y, 0, 40, 2), columns(y, 1, 40, 2)),
    "rows": lambda y: ops.split(y, axis=0, sizes=(7, 10)),
    "read_whole": lambda y: (*ops.split(y, axis=1, sizes=(8, 32)), y),
    "gated": lambda y: ops.mul(ops.silu(columns(y, 0, 20)), columns(y, 20, 40)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_columns_that_are_read_otherwise_stay_one_result(name: str) -> None:
    module = irc.opt(trace(lambda x, w: WHOLE[name](ops.matmul(x, w)), "f32[17, 8]", "f32[8, 40]"), "siblings",
                     settings=SETTINGS)  # fmt: skip
    assert "split_linear" not in str(module)


def test_joined_products_compile(tmp_path: Path) -> None:
    """After a norm, as in a decoder: no spills, and stores of parts 128 bits wide."""
    program = products((2048, 512, 512), "bf16", turned=True)
    module = fused(lambda x, s: program(ops.rms_norm(x, s)), "bf16[4, 1024, 2048]", "bf16[2048]")
    assert kinds(module) == ["product"]
    emit(module, tmp_path / "a")
    check_compiled(tmp_path / "a", "16 bits")
