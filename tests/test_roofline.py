"""The model of cost: estimates of launches and calls, and of what a program takes of a multiprocessor."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

import irc
from irc import ops
from irc.backends.triton import TARGETS
from irc.device import built_in, device_of
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.driver.optimizing import run_pipeline
from irc.driver.roofline import estimate, estimate_of
from irc.dtypes import BF16, F32
from irc.kernel import Bytes, count, kernel_of
from irc.kernel.resources import Resources
from irc.kernel.roofline import LIBRARY_BLOCKS, Matrices, call_estimate, kernel_estimate
from irc.module import Module
from tests.benchmarks.products import INDUCTOR, inductor
from tests.triton_cases import the_kernel

H100 = built_in("h100")
SMALL = Resources(warps=4, registers=32)


def fused(function: object, *types: str, products: str = "irc") -> Module:
    module, _ = run_pipeline(irc.trace(function, *types), "default", "triton", Settings(products=products))  # type: ignore[arg-type]
    return module


def matmul(m: int, n: int, k: int, dtype: str = "bf16") -> Bytes:
    module = fused(lambda x, w: ops.matmul(x, w), f"{dtype}[{m}, {k}]", f"{dtype}[{k}, {n}]")
    return count(the_kernel(module), {})


def test_a_large_copy_takes_its_bytes_at_the_rate_of_memory() -> None:
    cost = count(the_kernel(fused(lambda x: ops.relu(x), "bf16[4096, 4096]")), {})
    actual = kernel_estimate(cost, H100)
    assert actual.limit == "memory"
    assert actual.seconds == pytest.approx(2e-6 + 2 * 2 * 4096 * 4096 / (0.9 * 3.35e12))


def test_a_large_product_takes_its_arithmetic() -> None:
    device = replace(H100, l2_rate=1e15)
    cost = matmul(132 * 128, 128 * 8, 4096)  # 8 programs on each multiprocessor
    actual = kernel_estimate(cost, device)
    assert actual.limit == "products"
    assert actual.seconds == pytest.approx(2e-6 + 2 * 132 * 128 * 1024 * 4096 / (0.6 * 989.4e12))
    assert kernel_estimate(cost, H100).cache == pytest.approx(cost.loaded_bytes / H100.l2_rate)


def test_products_of_f32_are_no_matrix_instructions_on_nvidia() -> None:
    ratio = [kernel_estimate(matmul(4096, 4096, 4096, dtype), built_in("h100")).products for dtype in ("bf16", "f32")]
    assert ratio[1] == pytest.approx(ratio[0] * 989.4 / 66.9)
    assert kernel_estimate(matmul(1024, 1024, 1024, "f32"), built_in("mi300x")).products == pytest.approx(
        2 * 1024**3 / (0.4 * 163.4e12) * -(-256 // 304) * 304 / 256
    )


@pytest.mark.parametrize(("m", "n", "k"), list(product((1, 17, 128, 300), (16, 100, 257), (5, 64, 130))))
def test_what_is_issued_is_whole_blocks(m: int, n: int, k: int) -> None:
    module = fused(lambda x, w: ops.matmul(x, w), f"bf16[{m}, {k}]", f"bf16[{k}, {n}]")
    kernel = kernel_of(next(op for op in module.main.block if op.name == "kernel"))
    cost = count(kernel, {})
    if kernel.kind != "product":
        assert cost.issued == () and cost.product_flops == 0
        return
    blocks = [(tile.block, extent) for tile in kernel.schedule.tiles
              for extent in [{"m": m, "n": n, "k": k}[tile.name]]]  # fmt: skip
    assert cost.issued == ((BF16, 2 * math.prod(-(-extent // block) * block for block, extent in blocks)),)
    assert cost.product_flops == 2 * m * n * k <= cost.issued[0][1]
    assert cost.iterations == -(-k // kernel.schedule.summed.block)  # type: ignore[union-attr]


def test_what_is_issued_of_causal_attention_skips_blocks() -> None:
    types = ("bf16[2, 4, 512, 64]",) * 3
    costs = [count(the_kernel(fused(lambda q, k, v, causal=causal: ops.attention(q, k, v, causal=causal), *types)), {})
             for causal in (False, True)]  # fmt: skip
    full, causal = (dict(cost.issued)[BF16] for cost in costs)
    assert full == 2 * 2 * 8 * 512 * 512 * 64 and full / 2 < causal < 0.6 * full
    assert costs[1].issued == ((BF16, costs[1].product_flops),)


def test_the_busiest_multiprocessor_counts() -> None:
    """One program more than multiprocessors takes twice as long; memory serves all of them."""
    times = []
    for programs in (132, 133, 264):
        cost = Bytes(0, 0, 10**12 * programs, programs, issued=(), resources=SMALL)
        times.append(kernel_estimate(cost, H100).vector)
    assert times[1] == pytest.approx(2 * times[0]) and times[2] == pytest.approx(times[1])
    one = Bytes(10**9, 10**9, 0, 1, resources=SMALL)
    assert kernel_estimate(one, H100).memory < 0.05 * kernel_estimate(one, H100).seconds
    assert kernel_estimate(one, H100).cache == pytest.approx(132 * 10**9 / H100.l2_rate)


def test_programs_wait_for_memory() -> None:
    """A chain of loads takes a latency for each, less what is overlapped, for each set of resident programs."""
    program = Resources(warps=4, registers=128)
    assert program.resident(H100) == 4
    waits = [kernel_estimate(Bytes(1, 1, 1, programs, iterations=10, resources=program), H100).waits
             for programs in (1, 132, 4 * 132, 4 * 132 + 1)]  # fmt: skip
    assert waits == pytest.approx([6e-6, 6e-6, 6e-6, 12e-6])
    overlapped = replace(program, operand_bytes=1024)  # three stages
    assert kernel_estimate(Bytes(1, 1, 1, 1, iterations=9, resources=overlapped), H100).waits == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("program", "resident"),
    [
        (Resources(1, 16), 32),  # programs
        (Resources(4, 16), 16),  # threads
        (Resources(4, 64), 8),  # registers
        (Resources(4, 16, 100_000, 1), 2),  # shared memory
        (Resources(4, 16, 35_000), 2),  # of three stages
        (Resources(32, 255), 1),  # spills, and runs
        (Resources(4, 1000), 2),  # likewise
        (Resources(4, 16, 232_449, 1), 0),
    ],
)
def test_resident_programs(program: Resources, resident: int) -> None:
    assert program.resident(H100) == resident


def test_a_program_that_does_not_fit_takes_forever() -> None:
    cost = Bytes(1, 1, 1, 1, resources=Resources(4, 16, 10**6))
    assert kernel_estimate(cost, H100).seconds == math.inf and kernel_estimate(cost, H100).limit == "waits"


def test_empty_and_huge_launches() -> None:
    assert kernel_estimate(Bytes(0, 0, 0, 0), H100).seconds == H100.launch_seconds
    empty = fused(lambda x: ops.relu(x), "f32[N]")
    assert kernel_estimate(count(the_kernel(empty), {empty.main.symbols["N"]: 0}), H100).seconds == 2e-6
    huge = Bytes(1 << 2000, 1 << 2000, 1 << 2000, 1 << 2000, resources=SMALL)
    assert kernel_estimate(huge, H100).seconds == math.inf
    assert call_estimate(1 << 2000, 1 << 2000, Matrices(1, 1 << 1000, 1 << 1000, F32), H100).seconds == math.inf


def test_a_library_chooses_its_blocks() -> None:
    """Whole blocks, as in kernels: the best of LIBRARY_BLOCKS; never less than arithmetic at the assumed rate."""
    def seconds(rows: int, columns: int, depth: int = 4096) -> float:
        flops = 2 * rows * columns * depth
        actual = call_estimate(0, flops, Matrices(1, rows, columns, BF16), H100)
        assert actual.seconds >= 2e-6 + flops / (0.7 * 989.4e12)
        return actual.seconds

    even = seconds(256 * 11, 128 * 12)
    assert even == pytest.approx(2e-6 + 2 * 256 * 11 * 128 * 12 * 4096 / (0.7 * 989.4e12))
    assert seconds(16, 64) < 300 * seconds(1, 1) and seconds(128, 128) <= seconds(129, 129)
    assert (128, 128) in LIBRARY_BLOCKS


def test_library_calls_have_their_products() -> None:
    """The matrices of each call are those that are dispatched, and are actual without dispatching, too."""
    from irc.library_calls import products_of

    def program(x, w, b, c, q, image, kernel):  # type: ignore[no-untyped-def]
        return (ops.matmul(x, w), ops.matmul(b, c), ops.attention(q, q, q, causal=True),
                ops.conv(image, kernel, strides=(1, 1), dilations=(1, 1), low=(0, 0), high=(0, 0)))  # fmt: skip

    module = fused(program, "bf16[2, 3, 8]", "bf16[8, 5]", "f32[2, 3, 4, 5]", "f32[2, 3, 5, 7]", "f16[2, 3, 7, 16]",
                   "f32[2, 3, 9, 9]", "f32[4, 3, 2, 2]", products="host")  # fmt: skip
    calls = [each for parts in by_operation(module, {})[0].values() for each in parts if each.kind == "library"]
    actual = [tuple(each.products)[:3] for each in calls]
    assert actual == [(1, 6, 5), (6, 4, 7), (6, 7, 16), (1, 128, 4)]
    assert [str(each.products.dtype) for each in calls] == ["bf16", "f32", "f16", "f32"]
    for call in calls:
        assert call.operation is not None and products_of(call.operation, {}) == call.products
        assert estimate_of(call, H100).products > 0
    attention = next(each for each in calls if each.products.is_attention)
    assert attention.flops == 2 * 6 * (7 * 8 // 2) * 32


def test_estimates_of_a_program_add_up() -> None:
    module = fused(lambda x, w: ops.softmax(ops.matmul(x, w)), "bf16[128, 512]", "bf16[512, 2048]", products="host")
    operations = [each for parts in by_operation(module, {})[0].values() for each in parts]
    assert len(operations) == 2
    assert estimate(operations, H100) == pytest.approx(sum(estimate_of(each, H100).seconds for each in operations))
    slow = replace(H100, memory_rate=H100.memory_rate / 1000)
    assert estimate(operations, slow) > 10 * estimate(operations, H100)


def test_plans_of_inductor_are_whole() -> None:
    """The table of the benchmark: bytes and products of each operation fit together."""
    for name, plans in INDUCTOR.items():
        each = plans["default"].get("each", [])
        for call in (call for call in each if "result" in call):
            assert call["bytes"] >= 2 * math.prod(call["result"]) and call["flops"] > 2 * math.prod(call["result"])
        if each:
            assert (len(each), sum(call["bytes"] for call in each)) == inductor(name, H100)["default"][:2]
            assert (inductor(name, H100)["default"].seconds or 0) > 2e-6 * len(each)


@pytest.mark.slow
def test_estimated_resources_are_near_compiled_ones(tmp_path: Path) -> None:
    from irc.driver.gpu_targets import compile_for
    from tests.blocks import block

    for name in ("pointwise", "softmax", "add_norm", "encoder", "decoder_fused"):
        module = irc.from_torch(*block(name, large=True))
        fused_module, _ = run_pipeline(module, "default", "triton", Settings(products="irc"))
        compiled = compile_for(fused_module, TARGETS)
        for operation in fused_module.walk():
            if operation.name == "kernel":
                guess, by_target = kernel_of(operation).resources, compiled[operation.attributes["name"]]
                registers = by_target["sm_90"]["registers"]
                assert guess.registers / 2 <= registers <= 2 * guess.registers, (operation, registers, guess)
                for target, facts in by_target.items():
                    shared = guess.shared_bytes(device_of(None, target))
                    assert not shared or shared / 2 <= facts["shared_bytes"] <= 2 * shared, (target, facts, guess)
