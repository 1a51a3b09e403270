"""Products that are read at shifted columns, as rotary position embeddings do: axes cut into pieces."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import interpreter, ops
from irc.backends.triton import emit
from irc.group import Group
from irc.ir import Value
from irc.kernel import count, derive
from irc.kernel.dag import Dot, Select
from irc.legality import legal
from irc.module import Module
from irc.op import trace
from tests import triton_harness as harness
from tests.blocks import block
from tests.fusing import body_of
from tests.fuzz.triton_path import Artefact, merged
from tests.kernel_reference import evaluate
from tests.test_products import kinds
from tests.test_siblings import SETTINGS, check_run, products
from tests.triton_cases import PRODUCT_BOUNDS, check_compiled, check_text, the_kernel


def heads(x: Value, size: int) -> Value:
    """[B, S, heads * size] as [B, heads, S, size]."""
    batch, rows, width = x.shape
    assert isinstance(width, int)
    return ops.transpose(ops.reshape(x, shape=(batch, rows, width // size, size)), permutation=(0, 2, 1, 3))


def part(x: Value, start: int, stop: int, step: int = 1) -> Value:
    """Columns of the last axis."""
    ones = (1,) * (x.rank - 1)
    return ops.slice_(x, starts=(0,) * (x.rank - 1) + (start,), stops=(*x.shape[:-1], stop), steps=(*ones, step))


def rotated(x: Value, cos: Value, sin: Value) -> Value:
    """x * cos + (-second half, first half) * sin, as in Llama."""
    size = x.shape[-1]
    assert isinstance(size, int)
    halves = ops.concat(ops.neg(part(x, size // 2, size)), part(x, 0, size // 2), axis=-1)
    return ops.add(ops.mul(x, cos), ops.mul(halves, sin))


def halves(x: Value, cos: Value, sin: Value) -> Value:
    """The two halves computed apart."""
    size = x.shape[-1]
    assert isinstance(size, int)
    low, high = part(x, 0, size // 2), part(x, size // 2, size)
    cos, sin = part(cos, 0, size // 2), part(sin, 0, size // 2)
    first, second = ops.sub(ops.mul(low, cos), ops.mul(high, sin)), ops.add(ops.mul(high, cos), ops.mul(low, sin))
    return ops.concat(first, second, axis=-1)


def interleaved(x: Value, cos: Value, sin: Value) -> Value:
    """Pairs of neighbors, as in GPT-J."""
    size = x.shape[-1]
    assert isinstance(size, int)
    even, odd = (ops.reshape(part(x, start, size, 2), shape=(*x.shape[:-1], size // 2, 1)) for start in (0, 1))
    turned = ops.reshape(ops.concat(ops.neg(odd), even, axis=-1), shape=x.shape)
    return ops.add(ops.mul(x, cos), ops.mul(turned, sin))


def partly(x: Value, cos: Value, sin: Value) -> Value:
    """Half of each head."""
    size = x.shape[-1]
    assert isinstance(size, int)
    turned = rotated(part(x, 0, size // 2), part(cos, 0, size // 2), part(sin, 0, size // 2))
    return ops.concat(turned, part(x, size // 2, size), axis=-1)


ROTATIONS: dict[str, Callable[..., Value]] = {
    "rotated": rotated, "halves": halves, "interleaved": interleaved, "partly": partly
}  # fmt: skip
PIECES = {"rotated": 2, "halves": 2, "interleaved": 2, "partly": 4}


def rotary(name: str, size: int) -> Callable[..., Any]:
    """Values, and queries and fewer keys with positions."""

    def program(x: Value, w: Value, cos: Value, sin: Value) -> tuple[Value, ...]:
        q, k, v = ops.split_linear(x, w, sizes=(4 * size, 2 * size, 2 * size))
        return v, ROTATIONS[name](heads(q, size), cos, sin), ROTATIONS[name](heads(k, size), cos, sin)

    return program


def types(size: int, dtype: str, depth: str | int = 40, batch: str | int = "B", rows: str | int = "S") -> list[str]:
    return [f"{dtype}[{batch}, {rows}, {depth}]", f"{dtype}[{depth}, {8 * size}]", *[f"{dtype}[{rows}, {size}]"] * 2]


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", ROTATIONS)
def test_rotated_products_are_one_kernel(name: str, dtype: str, tmp_path: Path) -> None:
    """Of heads of any even size, for any number of rows."""
    draw = random.Random(f"{name} {dtype}")
    for number in range(2):
        size = draw.choice([4, 12, 16, 20, 64])
        module = harness.kernelize(trace(rotary(name, size), *types(size, dtype)))
        sizes = {"B": draw.choice([1, 2]), "S": draw.choice([1, 17, 100])}
        check_run(module, tmp_path / str(number), PRODUCT_BOUNDS[dtype], sizes)
        kernel = the_kernel(module)
        assert sum(isinstance(node, Dot) for node in kernel.nodes) == PIECES[name]
        assert not any(isinstance(node, Select) for node in kernel.nodes)


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_dag_means_the_rotation(name: str) -> None:
    """Evaluated without tiles, every access in bounds and every element written once."""
    module = trace(rotary(name, 12), *types(12, "f32"))
    inputs = harness.random_inputs(module, {"B": 2, "S": 5})
    actual = evaluate(derive(body_of(module)), inputs, harness.bind_symbols(module, inputs))
    for result, expected in zip(actual.values(), irc.interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(result, expected) < 1e-5


def test_each_product_is_computed_once() -> None:
    cost = count(derive(body_of(trace(rotary("rotated", 64), *types(64, "bf16", 128, 2, 32)))), {})
    assert cost.product_flops == 2 * 2 * 32 * 128 * 8 * 64
    plain = trace(lambda x, w: ops.matmul(x, w), "bf16[2, 32, 128]", "bf16[128, 512]")
    assert cost.product_flops == count(derive(body_of(plain)), {}).product_flops


def test_columns_without_positions_read_none() -> None:
    """The values are stored by programs that read no cosines."""

    def program(x: Value, w: Value, cos: Value, sin: Value) -> tuple[Value, ...]:
        q, k, v = ops.split_linear(x, w, sizes=(256, 128, 128))
        return q, rotated(heads(k, 64), cos, sin), v

    kernel = derive(body_of(trace(program, *types(64, "bf16", 128, 2, 32))))
    tables = [load for load in kernel.loads if load.buffer.name in ("cos", "sin")]
    assert len(tables) == 4 and all(load.guards for load in tables)


def rolled(x: Value) -> Value:
    """Each column and the next."""
    size = x.shape[-1]
    assert isinstance(size, int)
    return ops.add(x, ops.concat(part(x, 1, size), part(x, 0, 1), axis=-1))


REFUSED: dict[str, Callable[[Value], Value]] = {
    "neighbors": rolled,
    "reversed": lambda x: ops.add(x, ops.reverse(x, axes=(2,))),
    "fifths": lambda x: ops.add(x, ops.concat(part(x, 16, 80), part(x, 0, 16), axis=-1)),
    "uneven": lambda x: ops.add(x, ops.concat(part(x, 50, 80), part(x, 0, 50), axis=-1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_take_more_pieces_is_refused(name: str) -> None:
    """It would be computed again at each shift, and is computed in two kernels instead."""
    module = trace(lambda x, w: REFUSED[name](ops.matmul(x, w)), "f32[2, 17, 40]", "f32[40, 80]")
    failure = legal(Group(body_of(module)))
    assert failure is not None and failure.rule in ("F10", "F16")
    assert kinds(irc.opt(module, "default", backend="triton", settings=SETTINGS)) == ["product", "pointwise"]


def qkv(x: Value, scale: Value, cos: Value, sin: Value) -> tuple[Value, ...]:
    q, k, v = products((2048, 512, 512), "bf16", turned=True)(ops.rms_norm(x, scale))
    return rotated(heads(q, 64), cos, sin), rotated(heads(k, 64), cos, sin), v


def compiled() -> Module:
    """The queries, keys and values of a decoder, from its input, in one kernel."""
    wide = ["bf16[4, 1024, 2048]", "bf16[2048]", *["bf16[1024, 64]"] * 2]
    module = irc.opt(trace(qkv, *wide, name="qkv"), "default", backend="triton", settings=SETTINGS)
    assert kinds(module) == ["product"]
    return module


def test_rotated_products_compile(tmp_path: Path) -> None:
    emit(compiled(), tmp_path / "a")
    check_compiled(tmp_path / "a", "16 bits", narrow_stores=(2, 64))


def test_the_text_of_rotated_products(tmp_path: Path, update: bool) -> None:
    emit(compiled(), tmp_path / "a")
    check_text(tmp_path / "a", "qkv", update)


@pytest.mark.parametrize("name", ["decoder", "decoder_fused"])
def test_a_decoder_is_five_kernels(name: str) -> None:
    """Norms and positions are computed in the products beside them; results are those of the separate operations."""
    module = irc.from_torch(*block(name))
    fused = irc.opt(module.clone(), "default", backend="triton", settings=SETTINGS)
    assert kinds(fused) == ["product"] * 5
    inputs = harness.random_inputs(module, {})
    (actual,), (expected,) = (irc.interpreter.run(each, inputs).values() for each in (fused, module))
    assert harness.relative_error(actual.astype(np.float32), expected.astype(np.float32)) < 3e-2


def test_the_bytes_of_a_decoder_as_large_as_in_use() -> None:
    counted = irc.kernels(irc.from_torch(*block("decoder_fused", large=True)), settings=SETTINGS)
    assert (counted.launches, counted.library_calls, counted.host_operations) == (5, 0, 0)
    assert counted.distinct_bytes <= 367.5e6


NORMS: list[Callable[[Value], Value]] = [
    lambda x: x, ops.rms_norm, ops.layer_norm, ops.tanh, lambda x: ops.mul(x, 0.25),
    lambda x: ops.div(x, ops.sqrt(ops.add(ops.reduce_sum(ops.mul(x, x), axes=(2,), keep_dims=True), 1.0))),
    lambda x: ops.div(x, ops.reduce_max(ops.add(ops.abs_(x), 1.0), axes=(2,), keep_dims=True)),
]  # fmt: skip


def random_layers(draw: random.Random, dtype: str, size: int) -> Callable[..., Any]:
    """Norms before products of one operand, and what is computed of the parts of these."""

    def program(x: Value, cos: Value, sin: Value) -> tuple[Value, ...]:
        rotate = draw.choice(list(ROTATIONS.values()))
        for _ in range(draw.randint(1, 2)):
            count = draw.randint(1, 3)
            widths = [draw.choice([1, 2, 4]) * size for _ in range(count)]
            parts = products(widths, dtype, draw.random() < 0.5, draw.random() < 0.5)(draw.choice(NORMS)(x))
            turned = [rotate(heads(y, size), cos, sin) if draw.random() < 0.6 else heads(y, size) for y in parts]
            x = ops.add(ops.reshape(ops.transpose(turned[0], permutation=(0, 2, 1, 3)), shape=parts[0].shape), 1.0)
        return x, *(draw.choice([ops.neg, ops.sigmoid, lambda y: y])(y) for y in turned[1:])

    return program


@pytest.mark.parametrize("seed", range(8))
def test_random_layers(seed: int, tmp_path: Path) -> None:
    """Kernels agree with the separate operations, and move the bytes that the model counts."""
    draw = random.Random(seed)
    dtype, size, rows = draw.choice(["f32", "f16", "bf16"]), draw.choice([4, 8, 12, 20]), draw.choice([2, 17, 33])
    module = trace(random_layers(draw, dtype, size), f"{dtype}[B, {rows}, {draw.choice([24, 40])}]",
                   *[f"{dtype}[{rows}, {size}]"] * 2)  # fmt: skip
    fused = irc.opt(module.clone(), "default", backend="triton", settings=SETTINGS)
    run = harness.run(fused, folder=tmp_path / "a", sizes={"B": 2}, fuse=False, seed=seed, real_tiles=True)
    inputs = harness.random_inputs(module, {"B": 2}, seed)
    expected = irc.interpreter.run(module, inputs)
    for actual, result in zip(run.outputs.values(), expected.values(), strict=True):
        assert harness.relative_error(actual, result) <= 4 * PRODUCT_BOUNDS[dtype], str(fused)
    for launch in run.launches:
        assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes


@pytest.mark.parametrize("kind", ["sum", "max", "mean"])
def test_what_reduces_a_product_beside_it_is_no_piece_of_it(kind: str) -> None:
    """In the piece that is the reduction, the rows of the product are not those that are reduced."""

    def program(x: Value) -> Value:
        product = ops.matmul(x, ops.transpose(x, permutation=(0, 2, 1)))
        reduced = ops.lookup(f"reduce_{kind}")(ops.abs_(product), axes=(1,), keep_dims=True)
        return ops.concat(product, reduced, axis=1)

    module = trace(program, "f32[3, 2, 5]")
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)}
    expected = interpreter.run(module, inputs)
    for name, result in Artefact(merged(module)).on_arrays(inputs).items():
        np.testing.assert_allclose(result, expected[name], rtol=1e-5, atol=1e-5)
