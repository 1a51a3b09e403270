"""Kernels with products: results, the bytes and flops that the model counts, text, and what they compile to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from examples import block
from irc import ops
from irc.backends.triton import emit
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.group import Group
from irc.ir import Value
from irc.kernel import Accumulate, LegalityFailure, Loop, Placed, count, derive, kernel_of
from irc.kernel.dag import Dot, Load, Reduce
from irc.kernel.tracing import Tracer
from irc.legality import legal
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from tests import triton_harness as harness
from tests.command_line import irc_here
from tests.fusing import body_of
from tests.kernel_reference import evaluate
from tests.triton_cases import PRODUCT_BOUNDS, WIDE, check_compiled, check_text, the_kernel, the_operation


def transposed(x: Value) -> Value:
    return ops.transpose(x, permutation=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def swiglu(x: Value, gate: Value, up: Value) -> Value:
    return ops.mul(ops.silu(ops.matmul(x, gate)), ops.matmul(x, up))


def heads(x: Value, w: Value) -> Value:
    batch, rows, _ = x.shape
    return ops.transpose(ops.reshape(ops.matmul(x, w), shape=(batch, rows, 4, 8)), permutation=(0, 2, 1, 3))


def int8_weight(x: Value, w: Value, scale: Value) -> Value:
    """A weight in 8 bits with a scale for each column."""
    return ops.matmul(x, ops.mul(ops.cast(w, to=x.dtype), scale))


def length(x: Value, axis: int = -1) -> Value:
    return ops.sqrt(ops.add(ops.reduce_sum(ops.mul(x, x), axes=(axis,), keep_dims=True), 1e-5))


def cosines(x: Value, w: Value) -> Value:
    return ops.matmul(ops.div(x, length(x)), ops.div(w, length(w, -2)))


def by_largest(x: Value, w: Value) -> Value:
    """Rows without an element above 2 are left out."""
    largest = ops.reduce_max(ops.abs_(x), axes=(1,), keep_dims=True)
    return ops.matmul(ops.select(ops.less(largest, 2.0), 0.0, ops.neg(ops.div(x, largest))), w)


def gated(x: Value, scale: Value, gate: Value, up: Value) -> Value:
    return swiglu(ops.rms_norm(x, scale), gate, up)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "plain": (ops.matmul, ("T[M, K]", "T[K, N]")),
    "static": (ops.matmul, ("T[33, 40]", "T[40, 50]")),
    "epilogue": (lambda x, w, b, r: ops.add(ops.gelu(ops.add(ops.matmul(x, w), b)), r),
                 ("T[M, K]", "T[K, N]", "T[N]", "T[M, N]")),
    "prologue": (lambda x, w: ops.matmul(ops.relu(x), ops.neg(w)), ("T[M, K]", "T[K, N]")),
    "not_zero_in_masked_lanes": (lambda x, w: ops.matmul(ops.exp(x), ops.cos(w)), ("T[M, K]", "T[K, N]")),
    "scaled_rows": (lambda x, w, s: ops.matmul(ops.mul(x, s), w), ("T[M, K]", "T[K, N]", "T[M, 1]")),
    "scaled_sum": (lambda x, w, s: ops.matmul(ops.mul(x, s), ops.mul(w, ops.reshape(s, shape=(s.shape[0], 1)))),
                   ("T[M, K]", "T[K, N]", "T[K]")),
    "transposed_weight": (lambda x, w: ops.matmul(x, transposed(w)), ("T[M, K]", "T[N, K]")),
    "transposed_result": (lambda x, w: transposed(ops.matmul(x, w)), ("T[M, K]", "T[K, N]")),
    "with_itself": (lambda x: ops.matmul(x, transposed(x)), ("T[M, K]",)),
    "batch": (ops.matmul, ("T[B, 2, M, K]", "T[B, 2, K, N]")),
    "broadcast_batch": (ops.matmul, ("T[B, 2, M, K]", "T[2, K, N]")),
    "shared_operand": (swiglu, ("T[B, M, K]", "T[K, N]", "T[K, N]")),
    "heads": (heads, ("T[B, M, K]", "T[K, 32]")),
    "merged_heads": (lambda x, w: ops.matmul(ops.reshape(ops.transpose(x, permutation=(0, 2, 1, 3)),
                                                         shape=(x.shape[0], x.shape[2], 24)), w),
                     ("T[B, 3, M, 8]", "T[24, N]")),
    "padded": (lambda x, w: ops.matmul(ops.pad(x, low=(1, 2), high=(0, 3)), w), ("T[M, 40]", "T[45, N]")),
    "sliced": (lambda x, w: ops.matmul(ops.slice_(x, starts=(0, 3), stops=(x.shape[0], 23), steps=(1, 1)), w),
               ("T[M, 40]", "T[20, N]")),
    "concatenated": (lambda x, y, w: ops.matmul(ops.concat(x, y, axis=1), w), ("T[M, 20]", "T[M, 25]", "T[45, N]")),
    "gathered": (lambda x, i, w: ops.matmul(ops.gather(x, i, axis=0), w), ("T[5, K]", "i64[M]", "T[K, N]")),
    "vector": (ops.matmul, ("T[K]", "T[K, N]")),
    "row_of_one": (ops.matmul, ("T[1, K]", "T[K, N]")),
    "outer": (ops.matmul, ("T[M, 1]", "T[1, N]")),
    "int8_weight": (int8_weight, ("T[M, K]", "i8[K, N]", "T[N]")),
    "normalized_rows": (lambda x, w: ops.matmul(ops.rms_norm(x), w), ("T[M, K]", "T[K, N]")),
    "gated": (gated, ("T[B, M, K]", "T[K]", "T[K, N]", "T[K, N]")),
    "cosines": (cosines, ("T[M, K]", "T[K, N]")),
    "cosines_in_batches": (cosines, ("T[B, M, K]", "T[B, K, N]")),
    "by_largest": (by_largest, ("T[M, K]", "T[K, N]")),
    "ragged_minimum": (lambda x, w: ops.matmul(ops.div(x, ops.reduce_min(ops.exp(x), axes=(1,), keep_dims=True)), w),
                       ("T[M, K]", "T[K, N]")),
    "sums_beside": (lambda x, w: (ops.matmul(x, w), ops.reduce_sum(ops.exp(x), axes=(1,))), ("T[M, K]", "T[K, 50]")),
}  # fmt: skip
SIZES = (1, 3, 17, 32, 100, 257)


def typed(types: tuple[str, ...], dtype: str) -> list[str]:
    return [each.replace("T[", f"{dtype}[") for each in types]


def kernelized(name: str, dtype: str) -> Module:
    program, types = PROGRAMS[name]
    if dtype == "f16" and name == "gated":  # rule F13: rows times a scale, without being divided, may exceed f16
        types = tuple(each for each in types if each != "T[K]")
        return harness.kernelize(trace(lambda x, gate, up: gated(x, None, gate, up), *typed(types, dtype)))
    return harness.kernelize(trace(program, *typed(types, dtype)))


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """At random sizes, with tiles as on a GPU; every address is looked at, and the bytes are those of the model."""
    draw = random.Random(f"{name} {dtype}")
    module = kernelized(name, dtype)
    if name not in ("vector", "row_of_one", "outer"):
        assert any(isinstance(node, Dot) for node in the_kernel(module).nodes)
    for number in range(3):
        sizes = {"B": draw.choice([1, 2]), "M": draw.choice(SIZES), "N": draw.choice(SIZES),
                 "K": draw.choice([0, *SIZES]) if number else 40}  # fmt: skip
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, fuse=False, seed=number, real_tiles=True)
        assert not run.program.rejected
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS[dtype], sizes
        (launch,) = run.launches
        assert launch.predicted is not None
        assert launch.counted == launch.predicted.loaded_bytes or not launch.predicted.exact


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "gathered"])
def test_the_dag_means_the_product(name: str) -> None:
    """Evaluated without tiles, every access in bounds and every element written once."""
    program, types = PROGRAMS[name]
    module = trace(program, *typed(types, "f32"))
    sizes = {"B": 2, "M": 5, "N": 6, "K": 7}
    inputs = harness.random_inputs(module, sizes)
    kernel = derive(body_of(module))
    actual = evaluate(kernel, inputs, harness.bind_symbols(module, inputs))
    for result, expected in zip(actual.values(), irc.interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(result, expected) < 1e-5


def test_infinities_and_nan_stay_in_their_rows(tmp_path: Path) -> None:
    """In masked lanes operands are 0 on both sides: 0 times what lies beyond would be NaN."""
    program, types = PROGRAMS["not_zero_in_masked_lanes"]
    x, w = np.ones((17, 19), np.float32), np.ones((19, 18), np.float32)
    x[3, 4], x[5, 6], x[16, 18] = np.inf, np.nan, -np.inf
    module = harness.kernelize(trace(program, *typed(types, "f32")))
    run = harness.run(module, folder=tmp_path / "a", inputs=[x, w], fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) < 1e-5
        assert np.isnan(expected[5]).all() and np.isfinite(np.delete(expected, (3, 5), axis=0)).all()


def test_flops_of_products_are_counted() -> None:
    module = trace(swiglu, "bf16[4, 32, 64]", "bf16[64, 80]", "bf16[64, 80]")
    cost = count(derive(body_of(module)), {})
    assert cost.product_flops == 2 * 2 * 4 * 32 * 64 * 80
    assert cost.product_flops < cost.flops < 1.1 * cost.product_flops


def test_a_shared_operand_is_loaded_once() -> None:
    kernel = derive(body_of(trace(swiglu, "bf16[M, 64]", "bf16[64, 80]", "bf16[64, 80]")))
    assert len(kernel.loads) == 3 and sum(isinstance(node, Dot) for node in kernel.nodes) == 2


def test_what_rows_are_divided_by_is_accumulated_beside_their_product() -> None:
    """They are read once; the number is applied to the product, so the operand is multiplied as it is stored."""
    program, types = PROGRAMS["normalized_rows"]
    kernel = derive(body_of(trace(program, *typed(types, "bf16"))))
    (product,) = (node for node in kernel.nodes if isinstance(node, Dot))
    (squares,) = (node for node in kernel.nodes if isinstance(node, Reduce))
    assert len(kernel.loads) == 2 and product.operands[0] in kernel.loads and product.bound == squares.bound
    assert not kernel.recomputes_reduction and kernel.numerics == "keeps_more_precision"
    (loop,) = (scope for scope in kernel.schedule.nest if isinstance(scope, Loop))
    assert [scope.reduce for scope in loop.body if isinstance(scope, Accumulate)] == [squares, product]


@pytest.mark.parametrize("name", ["int8_weight", "scaled_rows"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_scales_are_applied_to_products(name: str, dtype: str) -> None:
    """After the loop, which multiplies elements as they are stored; a product of f32 is as exact as it is written."""
    program, types = PROGRAMS[name]
    kernel = derive(body_of(trace(program, *typed(types, dtype))))
    (loop,) = (scope for scope in kernel.schedule.nest if isinstance(scope, Loop))
    loads = [scope.node for scope in loop.body if isinstance(scope, Placed) and isinstance(scope.node, Load)]
    assert len(loads) == 2 and len(kernel.loads) == 3
    wide = derive(body_of(trace(program, *typed(types, "f32"))))
    assert wide.numerics == "exact" and len(wide.loads) == 3


def mean(x: Value, axis: int = 1) -> Value:
    return ops.reduce_mean(x, axes=(axis,), keep_dims=True)


NO_FACTORS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "subtracted": (lambda x, w: ops.matmul(ops.sub(x, mean(x)), w), "f32", "F17"),
    "layer_norm": (lambda x, w: ops.matmul(ops.layer_norm(x), w), "f32", "F17"),
    "along_columns": (lambda x, w: ops.matmul(ops.div(x, mean(x, 0)), w), "f32", "F17"),
    "divisor": (lambda x, w: ops.matmul(ops.div(1.0, ops.mul(x, mean(x))), w), "f32", "F17"),
    "of_squares": (lambda x, w: ops.matmul(ops.pow_(ops.div(x, mean(x)), 2.0), w), "f32", "F17"),
    "second_level": (lambda x, w: ops.matmul(ops.div(x, mean(ops.abs_(ops.sub(x, mean(x))))), w), "f32", "F16"),
    "of_results": (lambda x, w: mean(ops.matmul(x, w)), "f32", "F16"),
    "out_of_range": (lambda x, w: ops.matmul(ops.mul(ops.rms_norm(x), ops.exp(x)), w), "f16", "F13"),
}


@pytest.mark.parametrize("name", NO_FACTORS)
def test_what_is_no_factor_is_computed_before(name: str) -> None:
    program, dtype, rule = NO_FACTORS[name]
    module = trace(program, f"{dtype}[32, 48]", f"{dtype}[48, 64]")
    failure = legal(Group(body_of(module)))
    assert failure is not None and failure.rule == rule, failure
    fused = irc.opt(module.clone(), "default{fuse.products=irc}", backend="triton")
    assert len(kinds(fused)) > 1


def test_exact_numerics_move_no_factors() -> None:
    program, types = PROGRAMS["normalized_rows"]
    module = trace(program, *typed(types, "f32"))
    exact = irc.opt(module, "legalize,fuse{products=irc}", settings=Settings(numerics="exact"))
    assert kinds(exact) == ["reduction", "product"]


def test_products_without_rows_are_reductions() -> None:
    for types in (("f16[64]", "f16[64, 80]"), ("f16[1, 64]", "f16[64, 80]")):
        kernel = derive(body_of(trace(ops.matmul, *types)))
        assert kernel.kind == "reduction" and not any(isinstance(node, Dot) for node in kernel.nodes)
        assert [node.kind for node in kernel.nodes if isinstance(node, Reduce)] == ["sum"]


@pytest.mark.parametrize("stated", [
    {"m": 16, "n": 16, "k": 16}, {"m": 32}, {"k": 128, "warps": 2, "stages": 2}, {"m": 16, "n": 16, "order": 1},
    {"m": 16, "n": 16, "order": 2},
])  # fmt: skip
def test_schedules_of_products_are_stated(stated: dict[str, int], tmp_path: Path) -> None:
    module = kernelized("epilogue", "f16")
    operation = the_operation(module)
    operation.attributes["schedule"] = stated
    run = harness.run(module, folder=tmp_path / "a", sizes={"M": 33, "N": 50, "K": 70}, fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["f16"]
    assert f"ORDER: tl.constexpr = {stated.get('order', 8)}" in (tmp_path / "a" / "kernels.py").read_text()
    schedule = kernel_of(operation).schedule
    assert {tile.name: tile.block for tile in schedule.tiles}.items() >= {
        name: value for name, value in stated.items() if len(name) == 1}.items()  # fmt: skip
    for wrong, message in (({"k": 8}, "the block of `k` is 8, and that of a product at least 16"),
                           ({"i": 64}, "a block of `i`, and the tile axes are m, n, k")):  # fmt: skip
        operation.attributes["schedule"] = wrong
        with pytest.raises(LegalityFailure, match=message):
            kernel_of(operation)


# -- text and targets ------------------------------------------------------------------------------------------


def gemm(x: Value, w: Value, bias: Value, residual: Value) -> Value:
    return ops.add(ops.gelu(ops.add(ops.matmul(x, w, name="up"), bias)), residual)


COMPILED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "gemm": (gemm, ("bf16[M, 1024]", "bf16[1024, 4096]", "bf16[4096]", "bf16[M, 4096]")),
    "linear": (lambda x, w: ops.matmul(ops.silu(x), transposed(w)), ("f16[4096, 1024]", "f16[4096, 1024]")),
    "scores": (lambda q, k: ops.matmul(q, transposed(k)), ("f16[8, 12, 512, 64]", "f16[8, 12, 512, 64]")),
    "swiglu": (swiglu, ("bf16[4, 1024, 2048]", "bf16[2048, 5632]", "bf16[2048, 5632]")),
    "f32": (ops.matmul, ("f32[512, 512]", "f32[512, 512]")),
    "ragged": (lambda x, w: ops.matmul(ops.exp(x), w), ("bf16[100, 100]", "bf16[100, 130]")),
    "normalized": (
        lambda x, s, w: ops.matmul(ops.rms_norm(x, s), w),
        ("bf16[4096, 2048]", "bf16[2048]", "bf16[2048, 3072]"),
    ),
    "rms_swiglu": (gated, ("bf16[4, 1024, 2048]", "bf16[2048]", "bf16[2048, 5632]", "bf16[2048, 5632]")),
    "cosines": (cosines, ("f16[4096, 1024]", "f16[1024, 4096]")),
}


@pytest.mark.parametrize("name", COMPILED)
def test_products_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    """For each target: no spills, within shared memory, aligned accesses 128 bits wide."""
    program, types = COMPILED[name]
    emit(harness.kernelize(trace(program, *types), name=name), tmp_path / "a")
    stores = WIDE if name in ("gemm", "f32", "ragged") else (1, 64)
    check_compiled(tmp_path / "a", "f32" if name == "f32" else "16 bits", narrow_stores=stores)


@pytest.mark.parametrize("name", ["gemm", "swiglu", "rms_swiglu"])
def test_the_text_of_a_product(name: str, tmp_path: Path, update: bool) -> None:
    program, types = COMPILED[name]
    emit(harness.kernelize(trace(program, *types), name=name), tmp_path / "a")
    check_text(tmp_path / "a", name, update)


# -- fusion ----------------------------------------------------------------------------------------------------


def kinds(module: Module) -> list[str]:
    return [operation.attributes["kind"] if operation.name == "kernel" else operation.name
            for operation in module.main.block if operation.name not in ("const", "return")]  # fmt: skip


def test_products_are_in_kernels_where_the_option_says_so() -> None:
    module = trace(gemm, "f16[M, 64]", "f16[64, 96]", "f16[96]", "f16[M, 96]")
    assert kinds(irc.opt(module, "default", backend="triton")) == ["linear", "pointwise"]
    assert kinds(irc.opt(module, "default{fuse.products=irc}", backend="triton")) == ["product"]
    softmax = trace(lambda x, w: ops.softmax(ops.matmul(x, w), axis=1), "f16[M, 64]", "f16[64, 96]")
    assert kinds(irc.opt(softmax, "default{fuse.products=irc}", backend="triton")) == ["product", "reduction"]
    integers = trace(ops.matmul, "i32[M, 64]", "i32[64, 96]")
    assert kinds(irc.opt(integers, "default{fuse.products=irc}", backend="triton")) == ["matmul"]
    with pytest.raises(IrcError, match="`products` of fuse is `cuda`"):
        irc.opt(module, "default{fuse.products=cuda}", backend="triton")


def queries_keys_values(x: Value, *weights: Value) -> tuple[Value, ...]:
    return tuple(ops.matmul(ops.exp(x), weight) for weight in weights)


def test_products_of_one_operand_share_a_kernel(tmp_path: Path) -> None:
    """As the queries, keys and values of attention; products with other columns do not."""
    module = trace(queries_keys_values, "f16[2, 33, 64]", *["f16[64, 48]"] * 3)
    fused = irc.opt(module, "default{fuse.products=irc}", backend="triton")
    assert kinds(fused) == ["product"]
    run = harness.run(fused, folder=tmp_path / "a", fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["f16"]
    (launch,) = run.launches
    assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes
    grouped = trace(queries_keys_values, "f16[2, 33, 64]", "f16[64, 96]", *["f16[64, 48]"] * 2)
    assert kinds(irc.opt(grouped, "default{fuse.products=irc}", backend="triton")) == ["pointwise", *["product"] * 2]


def test_exact_numerics_keep_roundings_between_operations() -> None:
    module = trace(gemm, "f16[M, 64]", "f16[64, 96]", "f16[96]", "f16[M, 96]")
    settings = Settings(numerics="exact")
    exact = irc.opt(module, "legalize,fuse{products=irc}", settings=settings)
    assert kinds(exact)[0] == "product" and len(kinds(exact)) > 1


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_block_of_a_transformer(dtype: str, tmp_path: Path) -> None:
    """All its products, with their biases, activations and residuals, and attention."""
    sizes = ["-p", "default{fuse.products=irc}", "--dim", "B=2", "--dim", "S=17", "--backend", "triton"]
    if dtype == "f32":
        path = Path(block.__file__)
        result = irc_here("check", f"{path}:block", *sizes, folder=tmp_path)
        assert result.code == 0, result.out + result.err
    module = irc.opt(block.block(), "default{fuse.products=irc}", backend="triton")
    assert kinds(module) == ["reduction", *["product"] * 3, "reduction", *["product"] * 2]


def trace_wide(module: Module) -> Module:
    """The same program in f64."""
    text = str(module)
    for dtype in ("f32", "f16"):
        text = text.replace(f"{dtype}[", "f64[").replace(f"accumulate = {dtype}", "accumulate = f64")
    return parse(text)


def test_names_in_the_loop_are_not_those_of_indices_after_it(tmp_path: Path) -> None:
    """The index `s` is first needed after the loop, and defined before it."""
    program, _ = PROGRAMS["heads"]
    module = harness.kernelize(trace(lambda x, s: program(x, s), "f32[B, S, K]", "f32[K, 32]"))
    run = harness.run(module, folder=tmp_path / "a", sizes={"B": 2, "S": 17, "K": 40}, fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) < 1e-5


def gathered(x: Value, index: Value, axis: int) -> Value:
    return ops.gather(x, index, axis=axis, bounds="positive")


def elements_attended(x: Value, w: Value, i: Value) -> Value:
    """Each element of queries, keys and values is gathered."""
    y = gathered(x, ops.reshape(i, shape=(2, 3)), 0)
    return ops.add(ops.matmul(ops.softmax(ops.matmul(y, transposed(y)), axis=-1), y), w)


CHECKED: dict[str, tuple[Callable[..., Value], str, str, str]] = {
    "columns": (lambda x, w, i: ops.matmul(gathered(x, i, 1), w), "f32[17, 40]", "f32[6, 5]", "i64[6]"),
    "rows": (lambda x, w, i: ops.matmul(x, gathered(w, i, 0)), "f32[17, 6]", "f32[40, 5]", "i64[6]"),
    "keys": (lambda x, w, i: ops.matmul(ops.softmax(ops.matmul(x, transposed(gathered(w, i, 0))), axis=-1),
                                        gathered(w, i, 0)), "f32[17, 8]", "f32[40, 8]", "i64[6]"),
    "values": (lambda x, w, i: ops.matmul(ops.softmax(x, axis=-1), gathered(w, i, 0)), "f32[17, 6]", "f32[40, 5]",
               "i64[6]"),
    "elements": (elements_attended, "f32[9]", "f32[2, 3]", "i64[6]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_indices_are_checked_in_the_loop_of_a_product(name: str, tmp_path: Path) -> None:
    """What the check compares with is known in it, also where no operand reads that."""
    program, *types = CHECKED[name]
    module = harness.kernelize(trace(program, *types))
    x, w = (np.random.default_rng(0).standard_normal(each.shape, np.float32) for each in module.main.arguments[:2])
    given = {"x": x, "w": w, "i": np.int64([3, 1, 4, 1, 5, 0])}
    run = harness.run(module, folder=tmp_path / "a", inputs=given, fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) < 1e-5


def test_layers_are_rejected_before_they_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is read by a product of another is in no kernel: of many layers only the last are traced."""

    def layers(x: Value, w: Value, v: Value) -> Value:
        for _ in range(12):
            x = ops.add(x, ops.matmul(ops.gelu(ops.matmul(ops.layer_norm(x), w)), v))
        return x

    traced = Counter[str]()
    original = Tracer._traced
    monkeypatch.setattr(Tracer, "_traced", lambda self, *needed: traced.update("1") or original(self, *needed))
    failure = legal(Group(body_of(trace(layers, "f32[16, 16]", "f32[16, 64]", "f32[64, 16]"))))
    assert failure is not None and failure.rule == "F16"
    assert "is a product that is read by a product of another" in failure.message
    assert traced.total() < 500
