"""Kernels with products of softmax weights: attention in its variations, what is none, and what they compile to."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import interpreter, ops
from irc.backends.triton import emit
from irc.driver.models import Settings
from irc.dtypes import F32, I64
from irc.group import Group
from irc.ir import Value
from irc.kernel import count, derive
from irc.legality import legal
from irc.module import Module
from irc.op import const, trace
from irc.ops.named import common
from irc.parser import parse
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.fusing import body_of
from tests.kernel_reference import evaluate
from tests.test_products import kinds, transposed
from tests.triton_cases import ATTENTION_BOUNDS, WIDE, check_compiled, check_text

Q, K, V = "T[B, 4, S, D]", "T[B, 4, T, D]", "T[B, 4, T, E]"


def written_out(scores: Callable[[Value], Value], q: Value, k: Value, v: Value) -> Value:
    return ops.matmul(ops.softmax(scores(ops.mul(ops.matmul(q, transposed(k)), 0.25)), axis=3), v)


def causal(q: Value, k: Value, v: Value) -> Value:
    return ops.attention(q, k, v, causal=True, masked_rows="zero")


def sliding_window(q: Value, k: Value, v: Value) -> Value:
    def visible(scores: Value) -> Value:
        _, _, queries, keys = scores.shape
        key = ops.iota(shape=(1, keys), axis=1, dtype=I64)
        query = ops.iota(shape=(queries, 1), axis=0, dtype=I64)
        scores = ops.select(ops.less_equal(key, query), scores, -np.inf)
        return ops.select(ops.less(ops.sub(query, 5), key), scores, -np.inf)

    return written_out(visible, q, k, v)


def after_keys(q: Value, k: Value, v: Value) -> Value:
    """The queries are the last of the sequence, of groups of heads: query s sees the keys up to T - S + s."""
    batch, groups, _, queries, _ = q.shape
    keys = k.shape[2]
    k, v = (ops.reshape(x, shape=(batch, groups, 1, keys, x.shape[3])) for x in (k, v))
    key, query = ops.iota(shape=(1, keys), axis=1, dtype=I64), ops.iota(shape=(queries, 1), axis=0, dtype=I64)
    visible = ops.less_equal(key, ops.add(query, common.number(keys - queries, I64)))
    return ops.matmul(ops.softmax(ops.select(visible, scores(q, k), -np.inf), axis=4), v)


def relative_positions(queries: Any, keys: Any) -> Value:
    return ops.sub(ops.iota(shape=(1, keys), axis=1, dtype=I64), ops.iota(shape=(queries, 1), axis=0, dtype=I64))


def alibi(q: Value, k: Value, v: Value) -> Value:
    def biased(scores: Value) -> Value:
        _, _, queries, keys = scores.shape
        distance = relative_positions(queries, keys)
        return ops.add(scores, ops.mul(ops.cast(distance, to=scores.dtype), 0.125))

    return written_out(biased, q, k, v)


def position_bias(q: Value, k: Value, v: Value, table: Value) -> Value:
    """Relative positions, clipped, whose biases are read from a table for each head."""

    def biased(scores: Value) -> Value:
        _, _, queries, keys = scores.shape
        distance = relative_positions(queries, keys)
        index = ops.minimum(ops.maximum(distance, -3), 3)
        bias = ops.gather(table, ops.add(index, 3), axis=1)
        return ops.add(scores, bias)

    return written_out(biased, q, k, v)


def in_model_layout(q: Value, k: Value, v: Value) -> Value:
    """From [B, S, heads * D] and back, as models hold them."""
    def heads(x: Value) -> Value:
        batch, rows, _ = x.shape
        return ops.transpose(ops.reshape(x, shape=(batch, rows, 4, 16)), permutation=(0, 2, 1, 3))

    result = ops.attention(heads(q), heads(k), heads(v))
    return ops.reshape(ops.transpose(result, permutation=(0, 2, 1, 3)), shape=(q.shape[0], q.shape[1], 64))


def scores(q: Value, k: Value) -> Value:
    return ops.mul(ops.matmul(q, transposed(k)), 0.25)


def dropped(q: Value, k: Value, v: Value, kept: Value) -> Value:
    return ops.matmul(ops.mul(ops.softmax(scores(q, k), axis=3), kept), v)


def with_log_of_sum(q: Value, k: Value, v: Value) -> tuple[Value, Value]:
    """The maximum is subtracted where it is finite; what the logarithm of the sum of exponentials is, is a result."""
    x = scores(q, k)
    shift = ops.select(ops.is_inf(high(x)), 0.0, high(x))
    grown = ops.exp(ops.sub(x, shift))
    return ops.matmul(ops.div(grown, total(grown)), v), ops.add(ops.log(total(grown)), shift)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "plain": (ops.attention, (Q, K, V)),
    "causal": (causal, (Q, K, V)),
    "causal_nan": (lambda q, k, v: ops.attention(q, k, v, causal=True), (Q, K, V)),
    "bool_mask": (lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="zero"), (Q, K, V, "bool[S, T]")),
    "float_mask": (ops.attention, (Q, K, V, "T[B, 1, 1, T]")),
    "causal_and_mask": (lambda q, k, v, m: ops.attention(q, k, v, m, causal=True), (Q, K, V, "f32[B, 1, S, T]")),
    "grouped_keys": (causal, (Q, "T[B, 2, T, D]", "T[B, 2, T, E]")),
    "short_queries": (ops.attention, ("T[B, 8, 5, D]", "T[B, 2, T, D]", "T[B, 2, T, E]", "bool[5, T]")),
    "short_causal": (causal, ("T[B, 8, 5, D]", "T[B, 2, T, D]", "T[B, 2, T, E]")),
    "short_after_keys": (after_keys, ("T[B, 4, 2, 3, D]", "T[B, 4, T, D]", "T[B, 4, T, E]")),
    "one_query": (ops.attention, ("T[B, 8, 1, D]", "T[B, 2, T, D]", "T[B, 2, T, E]", "f32[B, 8, 1, T]")),
    "one_key_head": (ops.attention, (Q, "T[B, 1, T, D]", "T[B, 1, T, E]")),
    "written_out": (lambda q, k, v: written_out(lambda scores: scores, q, k, v), (Q, K, V)),
    "soft_cap": (lambda q, k, v: written_out(lambda s: ops.mul(ops.tanh(ops.mul(s, 0.2)), 5.0), q, k, v), (Q, K, V)),
    "sliding_window": (sliding_window, (Q, K, V)),
    "alibi": (alibi, (Q, K, V)),
    "position_bias": (position_bias, (Q, K, V, "T[4, 7]")),
    "scaled_query": (lambda q, k, v: ops.attention(ops.mul(q, 0.5), k, v, scale=1.0), (Q, K, V)),
    "prologues": (lambda q, k, v: ops.attention(ops.exp(q), ops.relu(k), ops.neg(v)), (Q, K, V)),
    "epilogue": (lambda q, k, v, r: ops.add(ops.relu(ops.attention(q, k, v)), r), (Q, K, V, "T[B, 4, S, E]")),
    "model_layout": (in_model_layout, ("T[B, S, 64]", "T[B, T, 64]", "T[B, T, 64]")),
    "nan_as_zero": (lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="nan_as_zero"), (Q, K, V, "bool[S, T]")),
    "dropped": (dropped, (Q, K, V, "T[4, S, T]")),
    "with_log_of_sum": (with_log_of_sum, (Q, K, V)),
    "not_normalized": (lambda q, k, v: ops.matmul(weights(scores(q, k)), v), (Q, K, V)),
    "weights_of_given_scores": (lambda s, v: ops.matmul(ops.softmax(s, axis=3), v), ("T[B, 4, S, T]", V)),
}  # fmt: skip
# The same with one query, which is a product of a vector with the keys.
PROGRAMS |= {f"{name}_of_one_query": (program, tuple(re.sub(r"\bS\b", "1", each) for each in types))
             for name, (program, types) in PROGRAMS.items() if types[0] == Q or name == "model_layout"}  # fmt: skip
SIZES = {"D": (16, 40, 64), "E": (16, 24, 80)}


def typed(types: tuple[str, ...], dtype: str, draw: random.Random) -> list[str]:
    depth, columns = str(draw.choice(SIZES["D"])), str(draw.choice(SIZES["E"]))
    return [each.replace("T[", f"{dtype}[").replace("D]", f"{depth}]").replace("E]", f"{columns}]") for each in types]


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """At random sizes, with tiles as on a GPU, against the same program in f64; the bytes are those of the model."""
    program, types = PROGRAMS[name]
    draw = random.Random(f"{name} {dtype}")
    for number in range(2):
        module = trace(program, *typed(types, dtype, draw))
        sizes = {"B": draw.choice([1, 2]), "S": draw.choice([1, 17, 70, 130]), "T": draw.choice([0, 1, 17, 70, 130])}
        if number == 0:
            sizes |= {"S": 70, "T": 130}
        wide = {key: array.astype(np.float64) if array.dtype.kind not in "bi" else array
                for key, array in harness.random_inputs(module, sizes, number).items()}  # fmt: skip
        wide_results = interpreter.run(in_f64(module), wide)
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, seed=number, real_tiles=True)
        assert not run.program.rejected, run.program.rejected
        for actual, expected in zip(run.outputs.values(), wide_results.values(), strict=True):
            assert harness.relative_error(actual, expected) <= ATTENTION_BOUNDS[dtype], sizes
        (launch,) = run.launches
        assert launch.predicted is not None
        assert launch.counted == launch.predicted.loaded_bytes or not launch.predicted.exact


def in_f64(module: Module) -> Module:
    """The same program in f64."""
    text = str(module)
    for dtype in ("bf16", "f16", "f32"):
        text = re.sub(rf"\b{dtype}\b", "f64", text)
    return parse(text)


@pytest.mark.parametrize("query", ["constant", "indices", "one number", "given"])
def test_one_query_that_loads_nothing_along_its_length(query: str, tmp_path: Path) -> None:
    def program(s: Value, k: Value, v: Value) -> Value:
        queries = {"constant": lambda: const(value=Tensor.of(np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 16))),
                   "indices": lambda: ops.cast(ops.iota(shape=(1, 16), axis=1, dtype=I64), to=F32),
                   "one number": lambda: ops.expand(ops.reshape(s, shape=(1, 1)), shape=(1, 16)),
                   "given": lambda: ops.reshape(ops.expand(s, shape=(16,)), shape=(1, 16))}  # fmt: skip
        return ops.matmul(ops.softmax(ops.matmul(queries[query](), ops.transpose(k, permutation=(1, 0))), axis=1), v)

    module = trace(program, "f32[1]", "f32[9, 16]", "f32[9, 24]")
    inputs = harness.random_inputs(module, {})
    compiled = irc.opt(module, "default", backend="triton", settings=Settings(products="irc"))
    run = harness.run(compiled, folder=tmp_path, inputs=list(inputs.values()), fuse=False)
    for actual, expected in zip(run.outputs.values(), interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(actual, expected) < 2e-6


@pytest.mark.parametrize("name", ["plain", "causal", "grouped_keys", "soft_cap", "sliding_window", "model_layout"])
def test_the_dag_means_attention(name: str) -> None:
    program, types = PROGRAMS[name]
    module = trace(program, *typed(types, "f32", random.Random(name)))
    sizes = {"B": 2, "S": 5, "T": 7}
    inputs = harness.random_inputs(module, sizes)
    actual = evaluate(derive(body_of(module)), inputs, harness.bind_symbols(module, inputs))
    for result, expected in zip(actual.values(), interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(result, expected) < 1e-5


MASKED_ROWS: dict[str, Callable[[Value, Value], Any]] = {
    "not_normalized": lambda x, v: ops.matmul(weights(x), v),
    "divided_by_zero_beyond": lambda x, v: ops.matmul(ops.div(ops.softmax(x, axis=3), x), v),
    "selected": lambda x, v: ops.matmul(ops.div(ops.select(ops.less(x, 0.5), weights(x), 0.0), total(weights(x))), v),
    "sum_too": lambda x, v: (ops.matmul(weights(x), v), total(weights(x))),
    "reciprocal": lambda x, v: ops.mul(ops.matmul(weights(x), v), ops.div(1.0, total(weights(x)))),
    "finite": lambda x, v: ops.matmul(ops.select(ops.less(ops.abs_(high(x)), np.inf), ops.softmax(x, axis=3), 0.0), v),
    "nan_to_zero": lambda x, v: ops.matmul(ops.select(ops.is_nan(ops.softmax(x, axis=3)), 0.0, ops.softmax(x, axis=3)),
                                           v),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKED_ROWS)
def test_special_scores(name: str, tmp_path: Path) -> None:
    """Rows of -inf, with inf and with NaN are what the program says; without keys, sums are 0."""
    for keys in (90, 0):
        x, v = (np.random.default_rng(3).standard_normal((1, 1, *shape)).astype(np.float32)
                for shape in ((20, keys), (keys, 16)))  # fmt: skip
        if keys:
            x[0, 0, 3], x[0, 0, 4, 5], x[0, 0, 5, 80] = -np.inf, np.inf, np.nan
            x[0, 0, 6, :70], x[0, 0, 7, 50:] = -np.inf, 99
        module = trace(MASKED_ROWS[name], "f32[1, 1, 20, T]", "f32[1, 1, T, 16]")
        run = harness.run(module, folder=tmp_path / str(keys), inputs=[x, v], real_tiles=True)
        assert not run.program.rejected
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert harness.relative_error(actual, expected) < 1e-5, keys


@pytest.mark.parametrize("masked_rows", ["nan", "zero", "nan_as_zero"])
def test_rows_without_a_visible_key(masked_rows: str, tmp_path: Path) -> None:
    """Rows of which no key, only a late one, or an infinite one is visible; and NaN in one key, or in one value."""
    def program(q: Value, k: Value, v: Value, mask: Value) -> Value:
        return ops.attention(q, k, v, mask, masked_rows=masked_rows)

    types = ("f32[1, 1, 20, 16]", "f32[1, 1, 90, 16]", "f32[1, 1, 90, 16]", "bool[20, 90]")
    module = trace(program, *types)
    q, k, v, mask = harness.random_inputs(module, {}).values()
    mask[:] = True
    mask[3], mask[4, :85], mask[5, :40] = False, False, False
    mask[:18, 50], mask[:, 60] = False, False
    of_keys, of_values = k.copy(), v.copy()
    of_keys[0, 0, 50], of_keys[0, 0, 60, 0], of_values[0, 0, 50, 2] = np.nan, np.inf, np.nan
    expected = []
    for number, inputs in enumerate([(q, k, v, mask), (q, of_keys, v, mask), (q, k, of_values, mask)]):
        run = harness.run(module, folder=tmp_path / str(number), inputs=list(inputs), real_tiles=True)
        (actual,), (each,) = run.outputs.values(), run.expected.values()
        expected.append(each[0, 0])
        if (number, masked_rows) == (2, "nan_as_zero"):  # a kernel does not multiply what it takes for 0
            actual, each = np.delete(actual, 3, 2), np.delete(each, 3, 2)
        assert harness.relative_error(actual, each) < 1e-5, number
    assert np.isnan(expected[0][3]).all() if masked_rows == "nan" else (expected[0][3] == 0).all()
    hidden, visible = np.isnan(expected[1]).all(1)[:18], np.isnan(expected[1]).all(1)[18:]
    assert visible.all() == (masked_rows != "nan_as_zero")
    assert hidden.all() if masked_rows == "zero" else not np.delete(hidden, 3).any()  # added, or selected
    assert np.isnan(expected[2][:, 2]).all() and not np.isnan(np.delete(expected[2][4:], 2, 1)).any()


NEAR_MISSES: dict[str, Callable[..., Value]] = {
    "twice_the_exponent": lambda s, v: ops.matmul(normalized(ops.exp(ops.mul(ops.sub(s, high(s)), 2.0))), v),
    "no_exponential": lambda s, v: ops.matmul(ops.tanh(ops.sub(s, high(s))), v),
    "another_maximum": lambda s, v: ops.matmul(ops.exp(ops.sub(s, high(ops.neg(s)))), v),
    "minimum": lambda s, v: ops.matmul(ops.exp(ops.sub(s, ops.reduce_min(s, axes=(3,), keep_dims=True))), v),
    "maximum_read_beside": lambda s, v: ops.matmul(ops.mul(ops.softmax(s, axis=3), high(s)), v),
    "normalized_along_rows": lambda s, v: ops.matmul(ops.softmax(s, axis=2), v),
    "centered": lambda s, v: ops.matmul(ops.div(ops.sub(s, total(s)), ops.sqrt(total(ops.mul(s, s)))), v),
}  # fmt: skip


def weights(x: Value) -> Value:
    return ops.exp(ops.sub(x, high(x)))


def high(x: Value) -> Value:
    return ops.reduce_max(x, axes=(3,), keep_dims=True)


def normalized(x: Value) -> Value:
    return ops.div(x, total(x))


def total(x: Value) -> Value:
    return ops.reduce_sum(x, axes=(3,), keep_dims=True)


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_is_no_softmax_is_refused(name: str) -> None:
    """It is computed in several kernels instead."""
    types = ("f32[2, 3, 20, 20]", "f32[2, 3, 20, 16]")
    module = trace(NEAR_MISSES[name], *types)
    failure = legal(Group(body_of(module)))
    assert failure is not None and failure.rule in ("F6", "F10", "F16", "F17"), failure
    fused = in_kernels(module)
    inputs = harness.random_inputs(module, {})
    (actual,), (expected,) = (interpreter.run(each, inputs).values() for each in (fused, module))
    assert harness.relative_error(actual, expected) < 1e-5


def test_long_rows_are_refused() -> None:
    for types in (("f32[9, 300]", "f32[300, 20]", "f32[20, 16]"), ("f32[9, 16]", "f32[16, 20]", "f32[20, 300]")):
        module = trace(lambda q, k, v: ops.matmul(ops.softmax(ops.matmul(q, k), axis=1), v), *types)
        failure = legal(Group(body_of(module)))
        assert failure is not None and failure.rule == "F17" and "at most 256" in failure.message


def test_short_queries_share_the_keys_of_a_group() -> None:
    """The heads that share keys are rows of one tile, which reads the keys once."""
    for name in ("short_queries", "short_causal", "short_after_keys", "one_query"):
        program, types = PROGRAMS[name]
        module = trace(program, *typed(types, "bf16", random.Random(0)))
        sizes = {symbol: 1 if symbol.name == "B" else 1024 for symbol in module.main.arguments[1].type.symbols()}
        cost = count(derive(body_of(module)), sizes)
        assert cost.programs == (4 if name == "short_after_keys" else 2) and cost.exact
        assert cost.loaded_bytes < 1.2 * cost.distinct_bytes


def seen_by_places(q: Value, k: Value, v: Value) -> Value:
    key, query = (ops.iota(shape=shape, axis=axis, dtype=I64)
                  for axis, shape in ((1, (1, k.shape[2])), (0, (q.shape[2], 1))))  # fmt: skip
    return ops.attention(q, k, v, ops.less_equal(key, query), masked_rows="zero")


def test_causal_attention_skips_blocks() -> None:
    """Half of the products, nearly, and what is loaded for them; also where indices alone make the mask."""
    types = ("f16[2, 4, 1024, 64]",) * 3
    full, *others = (count(derive(body_of(trace(program, *types))), {})
                     for program in (ops.attention, causal, seen_by_places))  # fmt: skip
    assert full.product_flops == 2 * 2 * 2 * 4 * 1024 * 1024 * 64
    for skipping in others:
        assert skipping.product_flops == full.product_flops * 17 // 32
        assert skipping.loaded_bytes < 0.6 * full.loaded_bytes and skipping.distinct_bytes == full.distinct_bytes


def test_keys_that_places_hide_have_no_effect(tmp_path: Path) -> None:
    """As in causal attention, though the program adds -inf to their scores."""
    module = trace(seen_by_places, *["f32[1, 1, 20, 16]"] * 3)
    q, k, v = harness.random_inputs(module, {}).values()
    k[0, 0, 7], k[0, 0, 9] = np.nan, np.inf
    run = harness.run(module, folder=tmp_path, inputs=[q, k, v], real_tiles=True)
    (actual,), (expected,) = run.outputs.values(), interpreter.run(trace(causal, *["f32[1, 1, 20, 16]"] * 3),
                                                                   {"q": q, "k": k, "v": v}).values()
    assert not np.isnan(expected[0, 0, :7]).any() and harness.relative_error(actual, expected) < 1e-5


# -- fusion, text and targets ----------------------------------------------------------------------------------

def in_kernels(module: Module) -> Module:
    return irc.opt(module, "default", settings=Settings(products="irc"), backend="triton")


@pytest.mark.parametrize("name", ["soft_cap", "position_bias", "alibi", "causal_and_mask", "grouped_keys"])
def test_variations_become_one_kernel(name: str) -> None:
    program, types = PROGRAMS[name]
    module = trace(program, *typed(types, "f16", random.Random(0)))
    assert kinds(in_kernels(module)) == ["product"]


def test_a_variation_written_in_pytorch_becomes_one_kernel() -> None:
    torch = pytest.importorskip("torch")

    class SoftCapped(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, q: Any, k: Any, v: Any, bias: Any) -> Any:
            scores = 30.0 * torch.tanh(q @ k.transpose(-1, -2) * 0.125 / 30.0) + bias
            return torch.softmax(scores.float(), -1).to(q.dtype) @ v

    arguments = tuple(torch.randn(2, 4, rows, 32) for rows in (40, 50, 50)) + (torch.randn(4, 40, 50),)
    module = irc.from_torch(SoftCapped(), arguments)
    assert kinds(in_kernels(module)) == ["product"]


def of_documents(q: Value, k: Value, v: Value, documents: Value) -> Value:
    """Attention of each token to those of the same document [B, S]."""
    batch, tokens = documents.shape
    rows, keys = ((batch, 1, tokens, 1), (batch, 1, 1, tokens))
    mask = ops.equal(ops.reshape(documents, shape=rows), ops.reshape(documents, shape=keys))
    return ops.attention(q, k, v, mask)


COMPILED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "one_query": (ops.attention, ("bf16[2, 32, 1, 128]", *["bf16[2, 32, T, 128]"] * 2)),
    "short_queries": (ops.attention, ("bf16[2, 32, 4, 128]", *["bf16[2, 8, T, 128]"] * 2, "bf16[4, T]")),
    "attention": (causal, ("bf16[B, 32, S, 128]", "bf16[B, 8, T, 128]", "bf16[B, 8, T, 128]")),
    "head_64": (causal, ("f16[8, 12, 512, 64]",) * 3),
    "head_80_mask": (ops.attention, (*["bf16[2, 8, 512, 80]"] * 3, "bf16[2, 1, 1, 512]")),
    "head_256": (ops.attention, ("bf16[2, 8, 512, 256]",) * 3),
    "bool_mask": (ops.attention, (*["bf16[2, 4, 512, 64]"] * 3, "bool[2, 1, 512, 512]")),
    "added_mask": (lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="zero"),
                   (*["bf16[2, 4, 512, 64]"] * 3, "bool[2, 1, 512, 512]")),
    "mask_of_all_heads": (lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="zero"),
                          (*["bf16[2, 4, 512, 64]"] * 3, "bool[512, 512]")),
    "padding": (lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="zero"),
                (*["bf16[2, 4, S, 64]"] * 3, "bool[2, 1, 1, S]")),
    "documents": (of_documents, (*["f16[2, 4, 512, 64]"] * 3, "i64[2, 512]")),
    "f32": (ops.attention, ("f32[2, 8, 512, 64]",) * 3),
}


# Where a mask of bytes is loaded in 64 bits.
NARROW = {name: ("sm_80", "sm_90") for name in ("bool_mask", "added_mask", "mask_of_all_heads")}


@pytest.mark.parametrize("name", COMPILED)
def test_attention_compiles_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    program, types = COMPILED[name]
    emit(harness.kernelize(trace(program, *types), name=name), tmp_path / "a")
    multiplied, stores = ("f32", WIDE) if name == "f32" else ("16 bits", (1, 64))
    check_compiled(tmp_path / "a", multiplied, NARROW.get(name, ()), stores)


def test_the_text_of_attention(tmp_path: Path, update: bool) -> None:
    program, types = COMPILED["attention"]
    emit(harness.kernelize(trace(program, *types), name="attention"), tmp_path / "a")
    text = check_text(tmp_path / "a", "attention", update)
    body = textwrap.dedent(text[text.index("    program = ") :])
    assert body in (Path(__file__).parent.parent / "README.md").read_text()
