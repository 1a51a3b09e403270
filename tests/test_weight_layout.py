"""Weights of products whose rows begin where 128 bits cannot be loaded are stored so that they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import dtypes, interpreter, ops
from irc.backends.triton import TARGETS, compile_artefact, emit
from irc.driver.models import Settings
from irc.ir import Value
from irc.module import Module
from irc.op import const, trace
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.triton_cases import PRODUCT_BOUNDS, WIDE, check_compiled, check_one_launch


def weight(*shape: int, dtype: str, seed: int = 0) -> Value:
    numbers = np.random.default_rng(seed + sum(shape)).standard_normal(shape)
    return const(value=Tensor.of(numbers, dtypes.by_name(dtype), f"weight_{seed}"))


def turned(x: Value) -> Value:
    return ops.transpose(x, permutation=(1, 0))


def linear(x: Value, rows: int, columns: int, seed: int, is_turned: bool = True) -> Value:
    shape = (columns, rows) if is_turned else (rows, columns)
    matrix = weight(*shape, dtype=x.dtype.name, seed=seed)
    return ops.linear(x, turned(matrix) if is_turned else matrix, weight(columns, dtype=x.dtype.name, seed=seed))


# Programs of x[M, K], with K and what is stored in place of their weights. 8 elements of 16 bits are 128 bits.
PROGRAMS: dict[str, tuple[Callable[[Value], Any], int, list[tuple[int, ...]]]] = {
    "columns": (lambda x: ops.matmul(x, weight(64, 33, dtype=x.dtype.name)), 64, [(33, 64)]),
    "summed": (lambda x: ops.matmul(x, turned(weight(64, 33, dtype=x.dtype.name))), 33, [(33, 64)]),
    "both": (lambda x: ops.gelu(linear(x, 35, 33, 0, is_turned=False)), 35, [(35, 40)]),
    "both_turned": (lambda x: ops.matmul(x, turned(weight(33, 35, dtype=x.dtype.name))), 35, [(35, 40)]),
    "joined": (lambda x: (linear(x, 33, 16, 1), linear(x, 33, 19, 2), ops.relu(linear(x, 33, 32, 3))), 33, [(33, 72)]),
    "gated": (lambda x: ops.mul(ops.silu(linear(x, 35, 33, 1)), linear(x, 35, 33, 2)), 35, [(35, 40)] * 2),
    "aligned": (lambda x: ops.matmul(x, weight(33, 64, dtype=x.dtype.name)), 33, [(33, 64)]),
    "aligned_turned": (lambda x: ops.matmul(x, turned(weight(33, 64, dtype=x.dtype.name))), 64, [(33, 64)]),
}


def kernelized(name: str, dtype: str, rows: str = "M", products: Any = "irc") -> tuple[Module, Module]:
    program, depth, _ = PROGRAMS[name]
    module = trace(program, f"{dtype}[{rows}, {depth}]")
    return module, irc.opt(module, "default", backend="triton", settings=Settings(products=products))


def matrices(module: Module) -> list[tuple[Any, ...]]:
    return [each.result.shape for each in module.walk() if each.name == "const" and each.result.rank == 2]


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_one_kernel_reads_weights_with_aligned_rows(name: str, dtype: str, tmp_path: Path) -> None:
    """The results are those of the program, and no kernel or call is added."""
    module, fused = kernelized(name, dtype)
    kinds = [each.attributes["kind"] if each.name == "kernel" else each.name for each in fused.main.block]
    assert [kind for kind in kinds if kind not in ("const", "transpose", "return")] == ["product"]
    step = 16 // dtypes.by_name(dtype).itemsize
    if step == 8:
        assert matrices(fused) == PROGRAMS[name][2]
    assert all(wide % step == 0 for _, wide in matrices(fused))
    inputs = harness.random_inputs(module, {"M": 17}, seed=1)
    run = harness.run(fused, folder=tmp_path / "a", inputs=inputs, fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), interpreter.run(module, inputs).values(), strict=True):
        assert actual.shape == expected.shape
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS[dtype]
    check_one_launch(run, PRODUCT_BOUNDS[dtype])


def test_libraries_read_weights_as_the_model_has_them() -> None:
    for name, (_, depth, _) in PROGRAMS.items():
        module, fused = kernelized(name, "bf16", products="host")
        assert sum(map(np.prod, matrices(fused))) == sum(map(np.prod, matrices(module))), (name, depth)


def test_a_weight_that_something_else_reads_stays() -> None:
    def program(x: Value, y: Value) -> tuple[Value, Value]:
        matrix = weight(64, 33, dtype="bf16")
        return ops.matmul(x, matrix), ops.add(matrix, y)

    fused = irc.opt(trace(program, "bf16[M, 64]", "bf16[64, 33]"), "default", backend="triton",
                    settings=Settings(products="irc"))  # fmt: skip
    assert matrices(fused) == [(64, 33)]


def test_a_weight_of_a_library_call_stays() -> None:
    """Kernels multiply no f64."""
    for products in ("irc", "auto"):
        _, fused = kernelized("both", "f64", products=products)
        assert matrices(fused) == [(35, 33)]
        assert "linear" in [each.name for each in fused.main.block]


# -- products=auto ---------------------------------------------------------------------------------------------


def beside_a_call(name: str) -> Callable[[Value, Value], Any]:
    """A program with an epilogue, which takes less time as a kernel, and a large product, which does as a call."""
    def program(x: Value, y: Value) -> Any:
        results = PROGRAMS[name][0](x)
        return *map(ops.tanh, results if isinstance(results, tuple) else (results,)), ops.matmul(y, y)

    return program


@pytest.mark.parametrize("name", PROGRAMS)
def test_weights_of_kernels_alone_are_aligned_where_libraries_compute_others(name: str, tmp_path: Path) -> None:
    """Sizes are large where the choice is made, and small in the run."""
    depth = PROGRAMS[name][1]
    module = trace(beside_a_call(name), f"bf16[M, {depth}]", "bf16[N, N]")
    settings = Settings(products="auto", dims={"M": 4096, "N": 8192})
    # Pointwise kernels in one launch would make library calls the faster choice.
    fused = irc.opt(module, "default{bundle.most=1}", backend="triton", settings=settings)
    kinds = [each.attributes["kind"] if each.name == "kernel" else each.name for each in fused.main.block]
    assert kinds.count("matmul") == 1 and "product" in kinds
    # Products of one operand are joined only where kernels compute all.
    expected = [(33, 16), (33, 24), (33, 32)] if name == "joined" else PROGRAMS[name][2]
    assert sorted(matrices(fused)) == sorted(expected)
    inputs = harness.random_inputs(module, {"M": 17, "N": 8}, seed=1)
    run = harness.run(fused, folder=tmp_path / "a", inputs=inputs, fuse=False, real_tiles=True)
    assert not run.program.rejected
    for actual, given in zip(run.outputs.values(), interpreter.run(module, inputs).values(), strict=True):
        assert actual.shape == given.shape
        assert harness.relative_error(actual, given) <= PRODUCT_BOUNDS["bf16"]


@pytest.mark.parametrize("products", ["irc", "auto"])
def test_casts_beside_a_product_whose_weight_is_rearranged(products: Any) -> None:
    """They are part of its kernel, which is replaced."""
    def program(x: Value) -> Value:
        return ops.cast(ops.gelu(ops.matmul(ops.cast(x, to=dtypes.BF16), weight(64, 33, dtype="bf16"))), to=dtypes.F32)

    module = trace(program, "f32[2000, 64]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products=products))
    assert matrices(fused) == [(33, 64)]
    inputs = harness.random_inputs(module, {})
    for actual, expected in zip(*(interpreter.run(each, inputs).values() for each in (fused, module)), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["bf16"]


def test_kernels_stay_whose_weights_are_aligned_or_shared() -> None:
    def program(x: Value, y: Value, z: Value) -> tuple[Value, ...]:
        shared = weight(64, 33, dtype="bf16")
        aligned = ops.tanh(ops.matmul(x, weight(64, 32, dtype="bf16")))
        return ops.tanh(ops.matmul(x, shared)), aligned, ops.add(shared, z), ops.matmul(y, y)

    settings = Settings(products="auto", dims={"M": 4096, "N": 8192})
    module = trace(program, "bf16[M, 64]", "bf16[N, N]", "bf16[]")
    fused = irc.opt(module, "default", backend="triton", settings=settings)
    assert [each.attributes.get("kind", each.name) for each in fused.main.block].count("product") == 2
    assert matrices(fused) == [(64, 33), (64, 32)]
    assert str(irc.opt(fused.clone(), "layout", backend="triton", settings=settings)) == str(fused)


COMPILED = {
    "columns": (lambda x: ops.matmul(x, weight(256, 129, dtype="bf16")), 256),
    "summed": (lambda x: ops.matmul(x, turned(weight(256, 129, dtype="bf16"))), 129),
    "both": (lambda x: ops.gelu(linear(x, 131, 129, 0)), 131),
}


@pytest.mark.slow
def test_weights_of_a_kernel_beside_a_call_are_loaded_128_bits_at_a_time(tmp_path: Path) -> None:
    """Without padding, that of odd rows and columns has 192 bytes of spills on sm_80."""
    def program(x: Value, y: Value) -> tuple[Value, Value]:
        return ops.gelu(linear(x, 131, 129, 0)), ops.matmul(y, y)

    module = trace(program, "bf16[512, 131]", "bf16[8192, 8192]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products="auto"))
    assert "matmul" in [each.name for each in fused.main.block]
    emit(fused, tmp_path / "a")
    check_compiled(tmp_path / "a", "16 bits")
    assert all(each.aligned_accesses for each in compile_artefact(tmp_path / "a", TARGETS))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_weights_are_loaded_128_bits_at_a_time(name: str, tmp_path: Path) -> None:
    """Without padding, that of odd rows and columns has 192 bytes of spills on sm_80."""
    program, depth = COMPILED[name]
    module = trace(program, f"bf16[512, {depth}]")
    emit(irc.opt(module, "default", backend="triton", settings=Settings(products="irc")), tmp_path / "a")
    check_compiled(tmp_path / "a", "16 bits", narrow_stores=(1, 64) if name == "summed" else WIDE)
    assert all(each.aligned_accesses for each in compile_artefact(tmp_path / "a", TARGETS))
