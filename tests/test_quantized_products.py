"""Kernels with products of quantized weights, which are scaled, and unpacked, in the loop over what is summed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import dtypes, ops
from irc.backends.triton import emit
from irc.driver.models import Settings
from irc.ir import Value
from irc.kernel.dag import Dot, Reduce
from irc.op import const, trace
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.test_products import typed
from tests.triton_cases import AS_3_9, PRODUCT_BOUNDS, WIDE, check_compiled, check_one_launch, check_text, the_kernel

SIZES = (1, 3, 17, 100, 130)


def in_blocks(x: Value, weight: Value, scale: Value) -> Value:
    """The scale of each 16 of K, as programs without an operation for blocks write it."""
    blocks, columns = scale.shape
    parts = ops.cast(ops.reshape(weight, shape=(blocks, 16, columns)), to=x.dtype)
    scaled = ops.mul(parts, ops.reshape(scale, shape=(blocks, 1, columns)))
    return ops.matmul(x, ops.reshape(scaled, shape=(16 * blocks, columns)))


def packed(bits: int, block: int) -> Callable[..., Value]:
    return lambda *operands: ops.matmul_packed(*operands, bits=bits, block=block)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "channels": (lambda x, w, s: ops.matmul(x, ops.dequantize(w, s, axis=1)), ("T[M, K]", "i8[K, N]", "T[N]")),
    "zero_points": (lambda x, w, s, z: ops.matmul(x, ops.dequantize(w, s, z, axis=1)),
                    ("T[M, K]", "u8[K, N]", "T[N]", "u8[N]")),
    "rows": (lambda x, w, s: ops.matmul(x, ops.dequantize(w, s, axis=0)), ("T[M, K]", "i8[K, N]", "T[K]")),
    "one_scale": (lambda x, w, s: ops.relu(ops.matmul(x, ops.dequantize(w, s))), ("T[M, K]", "i8[K, N]", "T[]")),
    "blocks": (in_blocks, ("T[M, 48]", "i8[48, N]", "T[3, N]")),
    "blocks_and_points": (lambda x, w, s, z: ops.matmul(x, ops.dequantize(w, s, z, axis=0, block=16)),
                          ("T[M, 40]", "i8[40, N]", "T[3, N]", "i8[3, N]")),
    "packed": (packed(4, 32), ("T[M, 96]", "u8[N, 3, 16]", "T[N, 3]")),
    "packed_ragged": (packed(4, 32), ("T[M, 100]", "u8[N, 4, 16]", "T[N, 4]", "u8[N, 2]")),
    "packed_points": (packed(4, 16), ("T[M, 40]", "u8[N, 3, 8]", "T[N, 3]", "T[N, 3]")),
    "packed_in_2_bits": (packed(2, 16), ("T[B, M, 40]", "u8[N, 3, 4]", "T[N, 3]", "u8[N, 1]")),
    "packed_in_8_bits": (packed(8, 16), ("T[M, 40]", "u8[N, 3, 16]", "T[N, 3]")),
}  # fmt: skip


def requantized(x: Value, w: Value, x_zero: Value, w_zero: Value, scale: Value) -> Value:
    wide = ops.mul(ops.cast(ops.matmul_integer(x, w, x_zero, w_zero), to=scale.dtype), scale)
    return ops.quantize(ops.relu(wide), 0.5, to=dtypes.U8)


# Products of integers are exact: of each the types, and which reductions are beside the product.
INTEGERS: dict[str, tuple[Callable[..., Any], tuple[str, ...], int]] = {
    "signed": (ops.matmul_integer, ("i8[M, K]", "i8[K, N]"), 0),
    "unsigned": (ops.matmul_integer, ("u8[M, K]", "u8[K, N]"), 2),
    "mixed": (ops.matmul_integer, ("u8[B, M, K]", "i8[K, N]"), 1),
    "zero_point_of_all": (ops.matmul_integer, ("u8[M, K]", "i8[K, N]", "u8[]"), 1),
    "zero_points": (ops.matmul_integer, ("i8[M, K]", "u8[K, N]", "i8[M]", "u8[N]"), 2),
    "transposed": (lambda x, y: ops.matmul_integer(x, ops.transpose(y, permutation=(1, 0))),
                   ("i8[M, K]", "i8[N, K]"), 0),
    "prologue": (lambda x, y: ops.matmul_integer(ops.maximum(x, 3), y), ("i8[M, K]", "i8[K, N]"), 0),
    "quantized": (lambda x, y: ops.matmul_integer(ops.quantize(x, 0.25, to=dtypes.I8), y),
                  ("f32[M, K]", "i8[K, N]"), 0),
    "requantized": (requantized, ("u8[M, K]", "i8[K, N]", "u8[]", "i8[N]", "f32[N]"), 2),
    "row": (ops.matmul_integer, ("i8[1, K]", "i8[K, N]"), 1),
}  # fmt: skip


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """One product, which reads each byte of the weights; every address is looked at."""
    draw, (program, types) = random.Random(f"{name} {dtype}"), PROGRAMS[name]
    module = harness.kernelize(trace(program, *typed(types, dtype)))
    kernel = the_kernel(module)
    assert [node.fed.name for node in kernel.nodes if isinstance(node, Dot)] == [dtype]
    for number in range(2 if dtype == "f16" else 1):
        sizes = {"B": 2, "M": draw.choice(SIZES), "N": draw.choice(SIZES), "K": draw.choice(SIZES)}
        inputs = whole_range(harness.random_inputs(module, sizes, seed=number))
        run = harness.run(module, folder=tmp_path / str(number), inputs=inputs, fuse=False, real_tiles=True)
        check_one_launch(run, PRODUCT_BOUNDS[dtype])


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("products", ["host", "irc"])
def test_policies_agree_with_the_program(name: str, products: Any) -> None:
    """As a library call the weights are written to memory in floats before it; in a kernel they are not."""
    program, types = PROGRAMS[name]
    module = trace(program, *typed(types, "f16"))
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products=products))
    kinds = [operation.attributes["kind"] if operation.name == "kernel" else operation.name
             for operation in fused.main.block if operation.name not in ("const", "return")]  # fmt: skip
    assert kinds == ["product"] if products == "irc" else "product" not in kinds
    inputs = harness.random_inputs(module, {"B": 2, "M": 5, "N": 6, "K": 7})
    for actual, expected in zip(irc.interpreter.run(fused, inputs).values(),
                                irc.interpreter.run(module, inputs).values(), strict=True):  # fmt: skip
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["f16"]


def whole_range(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With any bytes in place of the small integers."""
    generator = np.random.default_rng(0)
    return {name: generator.integers(-128, 128, array.shape).astype(array.dtype) if array.dtype.itemsize == 1 else array
            for name, array in inputs.items()}  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_products_of_integers_are_exact(name: str, tmp_path: Path) -> None:
    """Also where they wrap around, and where all of a row is padding."""
    draw, (program, types, reductions) = random.Random(name), INTEGERS[name]
    module = harness.kernelize(trace(program, *types))
    kernel = the_kernel(module)
    assert kernel.numerics == "exact"
    assert [node.fed.name for node in kernel.nodes if isinstance(node, Dot)] == ([] if name == "row" else ["i8"])
    assert sum(isinstance(node, Reduce) for node in kernel.nodes) == reductions
    for number in range(3):
        depth = draw.choice([0, *SIZES]) if number else 3
        sizes = {"B": 2, "M": draw.choice(SIZES), "N": draw.choice(SIZES), "K": depth}
        inputs = whole_range(harness.random_inputs(module, sizes, seed=number))
        run = harness.run(module, folder=tmp_path / str(number), inputs=inputs, fuse=False, real_tiles=True)
        assert not run.program.rejected
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            np.testing.assert_array_equal(actual, expected)
        (launch,) = run.launches
        assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes


def test_products_of_other_integers_are_library_calls() -> None:
    """Of 32 bits, and of bytes less what varies along what is summed."""
    for program, types in (
        (lambda x, y: ops.matmul(x, y), ("i32[M, 64]", "i32[64, 96]")),
        (lambda x, y: ops.matmul(ops.cast(x, to=dtypes.I32), y), ("i8[M, 64]", "i32[64, 96]")),
        (lambda x, y, z: ops.matmul(ops.sub(ops.cast(x, to=dtypes.I32), z), ops.cast(y, to=dtypes.I32)),
         ("i8[M, 64]", "i8[64, 96]", "i32[64]")),
    ):  # fmt: skip
        fused = irc.opt(trace(program, *types), "default", backend="triton", settings=Settings(products="irc"))
        assert "matmul" in [operation.name for operation in fused.main.block]


@pytest.mark.parametrize("products", ["host", "irc"])
def test_products_of_integers_are_in_kernels_where_the_option_says_so(products: Any) -> None:
    module = trace(requantized, "u8[M, 64]", "i8[64, 96]", "u8[]", "i8[96]", "f32[96]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products=products))
    names = [operation.attributes["kind"] if operation.name == "kernel" else operation.name
             for operation in fused.main.block if operation.name not in ("const", "return")]  # fmt: skip
    assert names == (["product"] if products == "irc" else ["pointwise", "pointwise", "matmul", "pointwise"])


COMPILED = {
    "channels": ("bf16[M, 1024]", "i8[1024, 4096]", "bf16[4096]"),
    "zero_points": ("f16[512, 1024]", "u8[1024, 4096]", "f16[4096]", "u8[4096]"),
    "packed": ("f16[M, 4096]", "u8[4096, 128, 16]", "f16[4096, 128]"),
    "packed_ragged": ("bf16[64, 100]", "u8[130, 4, 16]", "bf16[130, 4]", "u8[130, 2]"),
}


# -- constants -------------------------------------------------------------------------------------------------


def weights(dtype: dtypes.DType, *shape: int) -> Value:
    low, high = dtypes.limits(dtype)
    numbers = np.random.default_rng(sum(shape)).integers(int(low), int(high) + 1, shape)
    return const(value=Tensor.of(numbers.astype(dtype.numpy), dtype, "weights"))


@pytest.mark.parametrize("products", ["host", "irc"])
@pytest.mark.parametrize(("depth", "columns"), [(64, 96), (33, 65), (5, 1031)])
@pytest.mark.parametrize("dtype", ["i4", "u4", "i2", "u2"])
def test_constants_of_a_few_bits_are_read_from_bytes(dtype: str, depth: int, columns: int, products: Any,
                                                     tmp_path: Path) -> None:  # fmt: skip
    """The artefact has the bytes that a file has, and nothing unpacks them before kernels do."""
    narrow = dtypes.by_name(dtype)

    def program(x: Value, scale: Value) -> Value:
        return ops.matmul(x, ops.dequantize(weights(narrow, depth, columns), scale, axis=1))

    module = trace(program, f"f16[M, {depth}]", f"f16[{columns}]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products=products))
    sizes = [each.attributes["value"].nbytes for each in fused.walk() if each.name == "const" and each.result.rank]
    assert sizes == [-(-depth * columns * narrow.bits // 8)]
    assert [each.name for each in fused.main.block if each.name in ("cast", "dequantize")] == []
    assert {each.attributes["kind"] for each in fused.main.block if each.name == "kernel"} == {
        "product" if products == "irc" else "pointwise"}  # fmt: skip
    run = harness.run(fused, folder=tmp_path / "a", sizes={"M": 17}, fuse=False, seed=1, real_tiles=True)
    inputs = harness.random_inputs(module, {"M": 17}, seed=1)
    for actual, expected in zip(run.outputs.values(), irc.interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["f16"]
    for launch in run.launches:
        assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes


def of_constant(x: Value) -> Value:
    return ops.matmul_integer(x, weights(dtypes.I8, 1024, 512))


def test_bytes_lie_along_what_is_summed(tmp_path: Path) -> None:
    """So that all targets load 128 bits at once; where products are library calls, as the model has them."""
    module = trace(of_constant, "i8[M, 1024]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products="irc"))
    (constant,) = (each.result for each in fused.main.block if each.name == "const")
    assert constant.shape == (512, 1024)
    inputs = whole_range(harness.random_inputs(module, {"M": 3}))
    for actual, expected in zip(irc.interpreter.run(fused, inputs).values(),
                                irc.interpreter.run(module, inputs).values(), strict=True):  # fmt: skip
        np.testing.assert_array_equal(actual, expected)
    emit(fused, tmp_path / "a")
    check_compiled(tmp_path / "a", "8 bits")
    host = irc.opt(module, "default", backend="triton", settings=Settings(products="host"))
    assert [each.result.shape for each in host.main.block if each.name == "const"] == [(1024, 512)]


# -- compiled --------------------------------------------------------------------------------------------------

COMPILED_INTEGERS = {
    "signed": ("i8[M, 1024]", "i8[1024, 4096]"),
    "transposed": ("i8[512, 1024]", "i8[4096, 1024]"),
    "requantized": ("u8[512, 1024]", "i8[1024, 4096]", "u8[]", "i8[4096]", "f32[4096]"),
    "mixed": ("u8[2, 17, 100]", "i8[100, 130]"),
}


@pytest.mark.parametrize("name", COMPILED_INTEGERS)
def test_products_of_integers_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    emit(harness.kernelize(trace(INTEGERS[name][0], *COMPILED_INTEGERS[name]), name=name), tmp_path / "a")
    loads = ["sm_80"] if AS_3_9 else ["sm_80", "sm_100"]
    stores = (1, 32) if name == "requantized" else WIDE
    check_compiled(tmp_path / "a", "8 bits", narrow_loads=loads if name == "signed" else [], narrow_stores=stores)


@pytest.mark.parametrize("name", COMPILED)
def test_quantized_products_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    emit(harness.kernelize(trace(PROGRAMS[name][0], *COMPILED[name]), name=name), tmp_path / "a")
    loads = ["sm_80"] if name in ("channels", "zero_points") else []
    check_compiled(tmp_path / "a", "16 bits", loads, WIDE if name == "packed_ragged" else (1, 64))


def test_the_text_of_a_packed_product(tmp_path: Path, update: bool) -> None:
    emit(harness.kernelize(trace(PROGRAMS["packed"][0], *COMPILED["packed"]), name="packed"), tmp_path / "a")
    check_text(tmp_path / "a", "packed_product", update)
