"""Kernels that read floats of 8 bits, and products of these."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import torch

import irc
from irc import dtypes, interpreter, ops
from irc.backends.triton import emit
from irc.device import find_device
from irc.driver.models import Settings
from irc.ir import Value
from irc.kernel import count
from irc.kernel.dag import Dot, Load
from irc.kernel.roofline import kernel_estimate
from irc.module import Module
from irc.op import const, trace
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.test_products import typed
from tests.triton_cases import PRODUCT_BOUNDS, WIDE, check_compiled, check_one_launch, the_kernel

KINDS = ("f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz")
SIZES = (1, 3, 17, 100, 130)


def wide(x: Value, like: Value) -> Value:
    return ops.cast(x, to=like.dtype)


def turned(x: Value) -> Value:
    return ops.transpose(x, permutation=(1, 0))


# Of each the types, T that in which the program multiplies, and the type that kernels multiply in, by T.
NARROW = {"bf16": "f8e4m3fn", "f16": "f8e4m3fn", "f32": "bf16"}
AS_PROGRAM = {"bf16": "bf16", "f16": "f16", "f32": "f32"}
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...], Mapping[str, str]]] = {
    "scales": (lambda x, w, s, t: ops.matmul(ops.mul(wide(x, s), s), ops.mul(wide(w, s), t)),
               ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[]", "T[N]"), NARROW),
    "rows": (lambda x, w, s, t: ops.matmul(ops.mul(wide(x, s), s), turned(ops.mul(wide(w, s), t))),
             ("f8e4m3fn[M, K]", "f8e4m3fn[N, K]", "T[M, 1]", "T[N, 1]"), NARROW),
    "dequantized": (lambda x, w, s: ops.relu(ops.matmul(ops.dequantize(x, s), ops.dequantize(w, s))),
                    ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[]"), NARROW),
    "batch": (lambda x, w, s: ops.mul(ops.matmul(wide(x, s), wide(w, s)), s),
              ("f8e4m3fn[B, M, K]", "f8e4m3fn[K, N]", "T[N]"), NARROW),
    "without_scales": (lambda x, w, b: ops.gelu(ops.add(ops.matmul(wide(x, b), wide(w, b)), b)),
                       ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[N]"), NARROW),
    "two_kinds": (lambda x, w, s: ops.matmul(wide(x, s), ops.mul(wide(w, s), s)),
                  ("f8e4m3fn[M, K]", "f8e5m2[K, N]", "T[N]"), {**AS_PROGRAM, "f32": "bf16"}),
    # Near-misses: a scale that varies along what is summed, an operand of another type, one that is read otherwise.
    "scales_along": (lambda x, w, s: ops.matmul(wide(x, s), ops.mul(wide(w, s), s)),
                     ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[K, 1]"), AS_PROGRAM),
    "weights_alone": (lambda x, w, s: ops.matmul(x, ops.mul(wide(w, s), s)),
                      ("T[M, K]", "f8e4m3fn[K, N]", "T[N]"), AS_PROGRAM),
    "computed": (lambda x, w, s: ops.matmul(ops.abs_(wide(x, s)), ops.mul(wide(w, s), s)),
                 ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[N]"), AS_PROGRAM),
    "summed_too": (lambda x, w, s: ops.add(ops.matmul(wide(x, s), wide(w, s)),
                                           ops.reduce_sum(wide(x, s), axes=(1,), keep_dims=True)),
                   ("f8e4m3fn[M, K]", "f8e4m3fn[K, N]", "T[]"), {**AS_PROGRAM, "f32": "bf16"}),
}  # fmt: skip


def scaled(x: Value, w: Value, s: Value, b: Value) -> Value:
    """What torch._scaled_mm is: multiplied in f32, and rounded to 16 bits at the end."""
    total = ops.mul(ops.matmul(wide(x, s), turned(wide(w, s))), s)
    return ops.cast(ops.add(total, wide(b, s)), to=b.dtype)


def multiplied(module: Module) -> list[str]:
    return [node.fed.name for node in the_kernel(module).nodes if isinstance(node, Dot)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", ["f32", "f16", "bf16"])
def test_each_number_of_8_bits_is_read(kind: str, to: str, tmp_path: Path) -> None:
    """Subnormal numbers, both zeros, infinities and NaN too."""
    module = trace(lambda x: ops.neg(ops.cast(x, to=dtypes.by_name(to))), f"{kind}[16, 16]")
    every = np.arange(256, dtype=np.uint8).reshape(16, 16).view(dtypes.by_name(kind).numpy)
    run = harness.run(module, folder=tmp_path / "a", inputs=[every])
    assert not run.program.rejected
    (actual,), expected = run.outputs.values(), -every.astype(np.float32)
    np.testing.assert_array_equal(actual.astype(np.float32), expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual.astype(np.float32))[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_products_are_multiplied_in_the_type_that_suffices(name: str, dtype: str, tmp_path: Path) -> None:
    program, types, fed = PROGRAMS[name]
    draw = random.Random(f"{name} {dtype}")
    module = harness.kernelize(trace(program, *typed(types, dtype)))
    assert multiplied(module) == [fed[dtype]]
    sizes = {"B": 2, **{size: draw.choice(SIZES) for size in "MNK"}}
    run = harness.run(module, folder=tmp_path / "a", sizes=sizes, fuse=False, real_tiles=True)
    check_one_launch(run, PRODUCT_BOUNDS[dtype])
    true = interpreter.run(in_f64(program, types), inputs_of(module, sizes))
    for actual, expected in zip(run.outputs.values(), true.values(), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS[dtype]


def in_f64(program: Callable[..., Any], types: tuple[str, ...]) -> Module:
    return trace(program, *typed(types, "f64"))


def inputs_of(module: Module, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """The inputs of a run, those that are no bytes in f64."""
    inputs = harness.random_inputs(module, sizes)
    return {name: each if each.dtype.itemsize == 1 else each.astype(np.float64) for name, each in inputs.items()}


@pytest.mark.parametrize("to", ["bf16", "f16", "f32"])
def test_what_is_rounded_to_16_bits_is_multiplied_in_8(to: str, tmp_path: Path) -> None:
    types = ("f8e4m3fn[M, K]", "f8e4m3fn[N, K]", "f32[N]", f"{to}[N]")
    module = harness.kernelize(trace(scaled, *types))
    assert multiplied(module) == [NARROW[to]]
    run = harness.run(module, folder=tmp_path / "a", sizes={"M": 17, "N": 100, "K": 130}, fuse=False, real_tiles=True)
    check_one_launch(run, PRODUCT_BOUNDS[to])


@pytest.mark.parametrize("sums", [1, 2])
@pytest.mark.parametrize("kind", ["f8e4m3fn", "f8e5m2"])
def test_instructions_for_8_bits_give_the_same(kind: str, sums: int, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """What a device runs that has them, in Triton's interpreter."""
    types = (f"{kind}[M, K]", f"{kind}[N, K]", "f32[N]", "bf16[N]")
    module = harness.kernelize(trace(scaled, *types))
    load = harness.load_artefact

    def with_instructions(folder: Path) -> Any:
        artefact = load(folder)
        artefact.runtime.float8_products = lambda dtype: sums
        return artefact

    monkeypatch.setattr(harness, "load_artefact", with_instructions)
    run = harness.run(module, folder=tmp_path / "a", sizes={"M": 17, "N": 100, "K": 130}, fuse=False, real_tiles=True)
    check_one_launch(run, PRODUCT_BOUNDS["bf16"])


def test_each_device_multiplies_as_it_can(tmp_path: Path) -> None:
    """Devices of one process may differ: a launch on another is prepared for that one."""
    module = harness.kernelize(trace(scaled, "f8e4m3fn[32, 32]", "f8e4m3fn[32, 32]", "f32[32]", "bf16[32]"))
    emit(module, tmp_path / "a")
    artefact = harness.load_artefact(tmp_path / "a")
    model, inputs = artefact.load(), harness.random_inputs(module, {})
    for sums in (2, 1, 2):
        artefact.runtime.float8_products = lambda dtype, sums=sums: sums
        model.run(inputs)
    assert [options["FLOAT8"] for _, options in artefact.runtime.PREPARED.values()] == [2, 1]


def test_kernels_store_no_floats_of_8_bits(tmp_path: Path) -> None:
    """What is quantized is written by PyTorch, and what only moves bytes, too."""
    def program(x: Value, w: Value) -> tuple[Value, ...]:
        return ops.cast(ops.exp(x), to=dtypes.F8E4M3FN, saturate=True), turned(w), ops.exp(ops.cast(w, to=x.dtype))

    module = irc.opt(trace(program, "f32[8, 16]", "f8e5m2[4, 8]"), "default", backend="triton")
    kernels = [operation for operation in module.main.block if operation.name == "kernel"]
    assert {result.dtype.name for kernel in kernels for result in kernel.results} == {"f32"}
    run = harness.run(module, folder=tmp_path / "a", fuse=False)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual.astype(np.float32), expected.astype(np.float32)) <= 1e-6


# -- PyTorch ---------------------------------------------------------------------------------------------------


class Scaled(torch.nn.Module):
    def __init__(self, out_dtype: torch.dtype | None, has_bias: bool = False) -> None:
        super().__init__()
        self.out_dtype, self.has_bias = out_dtype, has_bias

    def forward(self, x: torch.Tensor, w: torch.Tensor, s: torch.Tensor, t: torch.Tensor,
                bias: torch.Tensor) -> torch.Tensor:  # fmt: skip
        given = bias if self.has_bias else None
        return torch._scaled_mm(x, w.t(), s, t, bias=given, out_dtype=self.out_dtype)


def operands(by_rows: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, 64, generator=generator).to(torch.float8_e4m3fn) for rows in (32, 48))
    s, t = (torch.rand(shape, generator=generator) for shape in (((32, 1), (1, 48)) if by_rows else ((), ())))
    return x, w, s, t, torch.randn(48, generator=generator, dtype=torch.bfloat16)


@pytest.mark.parametrize("products", ["host", "irc"])
@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize(("out", "has_bias"), [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, False),
                                               (torch.float16, False), (None, False)])  # fmt: skip
def test_scaled_products_of_pytorch(out: torch.dtype | None, has_bias: bool, by_rows: bool, products: Any) -> None:
    if by_rows and torch.__version__ < "2.12":
        pytest.skip("PyTorch 2.11 scales rows on GPUs alone")
    program, given = Scaled(out, has_bias), operands(by_rows)
    compiled = irc.compile(program, given, backend="triton", settings=Settings(products=products))
    actual, expected = compiled(*given), program(*given)
    assert actual.dtype == expected.dtype
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    # An element of 8 bits that is rounded the other way differs by an eighth.
    assert error <= {torch.float32: 1e-6, None: 2**-3}.get(out, PRODUCT_BOUNDS["bf16"])


def test_scales_of_blocks_are_refused() -> None:
    x, w, *_, bias = operands(True)
    given = (x.repeat(1, 4), w.repeat(1, 4), torch.rand(32, 2), torch.rand(2, 48), bias)
    with pytest.raises(irc.IrcError, match=r"torch\.unsupported") as error:
        irc.compile(Scaled(torch.bfloat16), given, backend="triton")
    assert "scales of blocks" in str(error.value)


# -- compiled --------------------------------------------------------------------------------------------------

# What lies along the columns, or is converted to 16 bits, is loaded 64 bits at once by some targets (`check_compiled`).
COMPILED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "scales": (("f8e4m3fn[512, 1024]", "f8e4m3fn[1024, 4096]", "bf16[]", "bf16[4096]"), ["sm_80"]),
    "rows": (("f8e4m3fn[M, 1024]", "f8e4m3fn[4096, 1024]", "f32[M, 1]", "f32[4096, 1]"), ["sm_90"]),
    "dequantized": (("f8e4m3fn[512, 1024]", "f8e4m3fn[1024, 4096]", "f16[]"), ["sm_80"]),
    "two_kinds": (("f8e4m3fn[512, 1024]", "f8e5m2[1024, 4096]", "f32[4096]"), ["sm_80", "sm_90"]),
    "scales_along": (("f8e4m3fn[512, 1024]", "f8e4m3fn[1024, 4096]", "bf16[1024, 1]"), ["sm_80", "sm_90"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_products_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    types, narrow_loads = COMPILED[name]
    emit(harness.kernelize(trace(PROGRAMS[name][0], *types), name=name), tmp_path / "a")
    stores = WIDE if name in ("rows", "two_kinds") else (1, 64)
    check_compiled(tmp_path / "a", "8 bits", narrow_loads, stores)


CONSTANTS: dict[str, Callable[[Value, Value], Value]] = {
    "scales": lambda x, w: ops.matmul(ops.mul(wide(x, w), 0.5), ops.mul(w, 0.25)),
    "bias": lambda x, w: ops.relu(ops.linear(wide(x, w), w, columns(w))),
    "weights_alone": lambda x, w: ops.matmul(ops.cast(x, to=w.dtype), ops.mul(w, columns(w))),
    "scales_along": lambda x, w: ops.matmul(wide(x, w), ops.mul(w, ops.reshape(ops.slice_(columns(w), starts=(0,),
                                            stops=(w.shape[0],), steps=(1,)), shape=(w.shape[0], 1)))),
}  # fmt: skip


def columns(w: Value) -> Value:
    numbers = np.random.default_rng(1).standard_normal(w.shape[1])
    return const(value=Tensor.of(numbers, w.dtype, "columns"))


def with_constant(name: str, depth: int, width: int, kind: str = "f8e4m3fn", x_kind: str = "f8e4m3fn") -> Module:
    def program(x: Value) -> Value:
        numbers = np.random.default_rng(0).standard_normal((depth, width))
        w = const(value=Tensor.of(numbers, dtypes.by_name(kind), "weight"))
        return CONSTANTS[name](x, ops.cast(w, to=dtypes.BF16))

    return trace(program, f"{x_kind}[M, {depth}]")


@pytest.mark.parametrize("products", ["irc", "auto"])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_lie_along_what_is_summed(name: str, products: Any, tmp_path: Path) -> None:
    """Whatever scales them; so that all targets load 128 bits at once."""
    module = with_constant(name, 64, 80, x_kind="bf16" if name == "weights_alone" else "f8e4m3fn")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products=products))
    shapes = [each.result.shape for each in fused.walk()
              if each.name == "const" and each.result.rank == 2 and each.result.dtype.bits == 8]  # fmt: skip
    is_kernel = any(each.attributes["kind"] == "product" for each in fused.main.block if each.name == "kernel")
    assert shapes == [(80, 64) if is_kernel else (64, 80)] and (is_kernel or products == "auto")
    inputs = harness.random_inputs(module, {"M": 17})
    run = harness.run(fused, folder=tmp_path / "a", inputs=inputs, fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["bf16"]


@pytest.mark.parametrize("depth", [1, 24, 72])
def test_constants_whose_columns_are_no_128_bits_stay(depth: int) -> None:
    fused = irc.opt(with_constant("scales", depth, 80), "default", backend="triton", settings=Settings(products="irc"))
    shapes = [each.result.shape for each in fused.walk() if each.name == "const" and each.result.rank == 2]
    assert shapes == [(depth, 80)]


@pytest.mark.parametrize("name", ["scales", "weights_alone"])
def test_constants_compile_to_wide_loads(name: str, tmp_path: Path) -> None:
    """Stored along the columns, a matrix is loaded 64 bits at a time on sm_80."""
    module = with_constant(name, 1024, 4096, x_kind="bf16" if name == "weights_alone" else "f8e4m3fn")
    emit(irc.opt(module, "default", backend="triton", settings=Settings(products="irc")), tmp_path / "a")
    check_compiled(tmp_path / "a", "8 bits", narrow_stores=(1, 64))


INSTRUCTIONS = """
import importlib.util, json, sys
from irc.backends.triton import worker
worker.TARGETS["sm_89"] = worker.GPUTarget("cuda", 89, 32)
spec = importlib.util.spec_from_file_location("kernels", sys.argv[1] + "/kernels.py")
kernels = sys.modules["kernels"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)
(entry,) = json.load(open(sys.argv[1] + "/manifest.json"))["kernels"]
if "FLOAT8" in entry["constants"]:
    entry["constants"]["FLOAT8"]["sm_89"] = 2
for target in sys.argv[2:]:
    assembly = worker.compiled_for(getattr(kernels, entry["name"]), entry, target).asm
    print(target, json.dumps(assembly["ptx"] if "ptx" in assembly else assembly["amdgcn"]))
"""


def assemblies(folder: Path, *targets: str) -> dict[str, str]:
    """The assembly of the kernel of an artefact by target."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", INSTRUCTIONS, str(folder), *targets], capture_output=True, text=True,
                          env=environment, check=True)  # fmt: skip
    lines = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {target: json.loads(text) for target, text in lines}


def test_devices_multiply_in_8_bits_where_they_can(tmp_path: Path) -> None:
    """The sums of sm_89 and sm_90 have fewer bits than f32: each block of what is summed is added to the total."""
    emit(harness.kernelize(trace(PROGRAMS["rows"][0], "f8e4m3fn[M, 1024]", "f8e4m3fn[4096, 1024]", "bf16[M, 1]",
                                 "bf16[4096, 1]")), tmp_path / "a")  # fmt: skip
    text = assemblies(tmp_path / "a", "sm_80", "sm_89", "sm_90", "sm_100", "gfx942")
    assert "e4m3" not in text["sm_80"] and "mma.sync.aligned.m16n8k16.row.col.f32.bf16" in text["sm_80"]
    assert "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32" in text["sm_89"]
    assert re.search(r"wgmma\.mma_async\.\S*k32\.f32\.e4m3\.e4m3", text["sm_90"])
    assert "tcgen05.mma.cta_group::1.kind::f8f6f4" in text["sm_100"]
    assert "v_mfma_f32_32x32x16_fp8" not in text["gfx942"]
    added = {target: len(re.findall(r"\badd(?:\.rn)?\.f32", each)) for target, each in text.items()}
    assert added["sm_89"] == added["sm_90"] == 64 and added["sm_100"] == 0, added


def test_amd_multiplies_its_own_floats_of_8_bits(tmp_path: Path) -> None:
    emit(harness.kernelize(trace(PROGRAMS["rows"][0], "f8e4m3fnuz[M, 1024]", "f8e4m3fnuz[4096, 1024]", "bf16[M, 1]",
                                 "bf16[4096, 1]")), tmp_path / "a")  # fmt: skip
    text = assemblies(tmp_path / "a", "sm_90", "gfx942")
    assert re.search(r"v_mfma_f32_\w+_fp8_fp8", text["gfx942"])
    assert "e4m3" not in text["sm_90"] and "wgmma" in text["sm_90"]


def test_a_scale_along_what_is_summed_is_applied_in_the_loop(tmp_path: Path) -> None:
    emit(harness.kernelize(trace(PROGRAMS["scales_along"][0], *COMPILED["scales_along"][0])), tmp_path / "a")
    text = assemblies(tmp_path / "a", "sm_90", "sm_100")
    assert "e4m3" not in text["sm_90"] and "kind::f8f6f4" not in text["sm_100"]


def test_products_of_8_bits_take_half_the_time_by_the_model_of_cost() -> None:
    """Of arithmetic; where a device has no instructions for them, as long as those of bf16, with half the bytes."""
    def cost(*types: str) -> Any:
        kernel = the_kernel(harness.kernelize(trace(PROGRAMS["scales"][0], *types, "bf16[]", "bf16[8192]")))
        return count(kernel, {})

    bytes_, floats = (cost(f"{dtype}[8192, 8192]", f"{dtype}[8192, 8192]") for dtype in ("f8e4m3fn", "bf16"))
    assert bytes_.product_flops == floats.product_flops == 2 * 8192**3
    assert floats.distinct_bytes - bytes_.distinct_bytes == 2 * 8192**2
    for name, ratio in (("h100", 0.5), ("b200", 0.5), ("a100", 1.0)):
        estimates = [kernel_estimate(each, find_device(name)) for each in (bytes_, floats)]
        assert estimates[0].products / estimates[1].products == pytest.approx(ratio, rel=0.01)


def test_loads_of_bytes_are_counted_as_bytes() -> None:
    kernel = the_kernel(harness.kernelize(trace(PROGRAMS["scales"][0], *typed(PROGRAMS["scales"][1], "bf16"))))
    sizes = {symbol: 64 for value in kernel.inputs for symbol in value.type.symbols()}
    stated = 64 * 64 * 2 + 2 + 128 + 64 * 64 * 2
    assert count(kernel, sizes).distinct_bytes == stated
    assert {load.dtype.name for load in kernel.nodes if isinstance(load, Load)} == {"f32"}
