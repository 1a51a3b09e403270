"""Kernels that reduce rows and across rows: what they compute, whole and in parts, and what rules divide."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

import irc
from irc import ops
from irc.backends.triton import emit
from irc.device import DEFAULT_DEVICE, find_device
from irc.driver.models import Settings
from irc.ir import Value
from irc.kernel import LegalityFailure, derive, kernel_of
from irc.kernel.roofline import kernel_estimate
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from tests import triton_harness as harness
from tests.test_split import Case, check, costs, kernels_of, split_in
from tests.triton_cases import check_compiled, check_text, the_kernel, the_operation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def layer_norm_gradients(g: Value, x: Value, w: Value) -> tuple[Value, ...]:
    """Of x, of the weight and of the bias, with the statistics of each row computed again."""
    rows, columns = tuple(range(x.rank - 1)), (x.rank - 1,)

    def mean(value: Value) -> Value:
        return ops.reduce_mean(value, axes=columns, keep_dims=True)

    centered = ops.sub(x, mean(x))
    scale = ops.rsqrt(ops.add(mean(ops.mul(centered, centered)), 1e-5))
    normal, weighted = ops.mul(centered, scale), ops.mul(g, w)
    inner = ops.sub(ops.sub(weighted, mean(weighted)), ops.mul(normal, mean(ops.mul(weighted, normal))))
    return ops.mul(scale, inner), ops.reduce_sum(ops.mul(g, normal), axes=rows), ops.reduce_sum(g, axes=rows)


def of_layer_norm(g: Any, x: Any, w: Any) -> tuple[Any, ...]:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return tuple(torch.ops.aten.native_layer_norm_backward(
        g, x, [x.shape[-1]], mean, (variance + 1e-5).rsqrt(), w, w, [True, True, True]))  # fmt: skip


def rms_norm_gradients(g: Value, x: Value, w: Value) -> tuple[Value, Value]:
    def mean(value: Value) -> Value:
        return ops.reduce_mean(value, axes=(1,), keep_dims=True)

    scale = ops.rsqrt(ops.add(mean(ops.mul(x, x)), 1e-5))
    normal, weighted = ops.mul(x, scale), ops.mul(g, w)
    gradient = ops.mul(scale, ops.sub(weighted, ops.mul(normal, mean(ops.mul(weighted, normal)))))
    return gradient, ops.reduce_sum(ops.mul(g, normal), axes=(0,))


def of_rms_norm(g: Any, x: Any, w: Any) -> tuple[Any, ...]:
    x, w = x.requires_grad_(), w.requires_grad_()
    y = torch.nn.functional.rms_norm(x, x.shape[1:], w, 1e-5)
    return tuple(each.detach() for each in torch.autograd.grad(y, (x, w), g))


def softmax_and_columns(x: Value) -> tuple[Value, ...]:
    y = ops.softmax(x, axis=-1)
    return y, ops.reduce_max(y, axes=(x.rank - 2,)), ops.sqrt(ops.reduce_sum(y, axes=(x.rank - 2,), keep_dims=True))


def of_softmax(x: Any) -> tuple[Any, ...]:
    y = x.softmax(-1)
    return y, y.amax(-2), y.sum(-2, keepdim=True).sqrt()


def both_ways(x: Value, y: Value) -> tuple[Value, ...]:
    z = ops.add(x, y)
    return ops.reduce_sum(z, axes=(1,)), ops.reduce_sum(z, axes=(0,)), ops.reduce_min(x, axes=(0,))


CASES = [
    Case("layer_norm", layer_norm_gradients, of_layer_norm, ("f32[N, 65]", "f32[N, 65]", "f32[65]"), tolerance=2e-5),
    Case("layer_norm_of_three_axes", layer_norm_gradients, of_layer_norm,
         ("f32[M, N, 33]", "f32[M, N, 33]", "f32[33]"), tolerance=2e-5),
    Case("layer_norm_of_halves", layer_norm_gradients, of_layer_norm, ("bf16[N, 70]", "bf16[N, 70]", "bf16[70]"),
         tolerance=1e-2),
    Case("rms_norm", rms_norm_gradients, of_rms_norm, ("f16[N, 40]", "f16[N, 40]", "f16[40]"), tolerance=5e-3),
    Case("softmax", softmax_and_columns, of_softmax, ("f32[N, 9]",)),
    Case("batch", softmax_and_columns, of_softmax, ("f32[M, N, 100]",), tolerance=2e-6),
    Case("both_ways", both_ways, lambda x, y: ((x + y).sum(1), (x + y).sum(0), x.amin(0)), ("f32[N, 17]", "f32[17]"),
         tolerance=2e-6),
    Case("integers", lambda x: (ops.reduce_sum(x, axes=(1,)), ops.reduce_max(x, axes=(0,))),
         lambda x: (x.sum(1).to(torch.int8), x.amax(0)), ("i8[N, 5]",)),
    Case("places", lambda x: (ops.argmax(x, axis=1), ops.reduce_sum(x, axes=(0,))),
         lambda x: (x.argmax(1), x.sum(0)), ("f32[N, 5]",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parts_compute_what_the_whole_does(case: Case, tmp_path: Path) -> None:
    """In the interpreter, as kernels, and in PyTorch: one kernel, or one for the parts of rows and one that combines,
    each of which moves the bytes that the model predicts."""
    draw, module = random.Random(case.name), trace(case.function, *case.types)
    for place, (rows, columns) in enumerate([draw.choice([(2, 17), (3, 130)]), (1, 1)]):
        inputs = harness.random_inputs(module, {"M": rows, "N": columns}, seed=place)
        whole, parts = harness.kernelize(module.clone()), split_in(module, draw.choice([2, 3, 8]))
        assert the_kernel(whole).across and len(kernels_of(parts)) == 2
        for name, program in (("whole", whole), ("parts", parts)):
            check(case, program, inputs, tmp_path / f"{name}{place}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parts_of_no_elements(case: Case, tmp_path: Path) -> None:
    """No rows, and rows of no elements: as kernels, and in PyTorch."""
    module = trace(case.function, *case.types)
    for place, sizes in enumerate(({"M": 2, "N": 0}, {"M": 0, "N": 3})):
        inputs = harness.random_inputs(module, sizes)
        if case.name in ("softmax", "batch", "both_ways", "integers") and 0 in inputs["x"].shape[:2]:
            continue  # PyTorch has no maximum of no elements
        check(case, split_in(module, 3), inputs, tmp_path / str(place))


@pytest.mark.parametrize("shape", ["0, 8", "0, 0", "0, 2, 8"])
def test_no_rows_are_reduced_in_one_kernel(shape: str, tmp_path: Path) -> None:
    """Of known extents: nothing is computed twice where nothing is computed."""
    def function(x: Value) -> tuple[Value, Value]:
        return ops.reduce_sum(x, axes=(x.rank - 1,)), ops.reduce_sum(x, axes=(x.rank - 2,))

    program = harness.kernelize(trace(function, f"f32[{shape}]"))
    assert the_kernel(program).across
    run = harness.run(program, folder=tmp_path, inputs=harness.random_inputs(program, {}), fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_special_values(tmp_path: Path) -> None:
    """NaN and infinities stay in their rows, and reach the columns that they are in."""
    module = trace(softmax_and_columns, "f32[20, 9]")
    inputs = harness.random_inputs(module, {})
    inputs["x"][3, 2], inputs["x"][11, 4], inputs["x"][12, :], inputs["x"][7, 1] = np.nan, np.inf, -np.inf, -np.inf
    case = Case("special", softmax_and_columns, of_softmax, ())
    check(case, split_in(module, 3), inputs, tmp_path)


# -- what rules choose -----------------------------------------------------------------------------------------

NORMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "layer_norm": (layer_norm_gradients, ("bf16[4096, 768]", "bf16[4096, 768]", "bf16[768]")),
    "layer_norm_of_three_axes": (layer_norm_gradients, ("f16[8, 1000, 1024]", "f16[8, 1000, 1024]", "f16[1024]")),
    "rms_norm": (rms_norm_gradients, ("bf16[2048, 4096]", "bf16[2048, 4096]", "bf16[4096]")),
    "wide": (rms_norm_gradients, ("f32[4096, 8192]", "f32[4096, 8192]", "f32[8192]")),
}


def compiled(name: str) -> Module:
    function, types = NORMS[name]
    return irc.opt(trace(function, *types), "default", settings=Settings())


@pytest.mark.parametrize("name", NORMS)
def test_gradients_of_norms_are_one_kernel_and_one_that_combines(name: str) -> None:
    """x and its gradient are read once, and the gradient of x is written once; partial results are less than half."""
    parts, combined = costs(compiled(name))
    kernel, _ = (kernel_of(operation) for operation in kernels_of(compiled(name)))
    device, rows = find_device(DEFAULT_DEVICE), 3 * np.prod(kernel.outputs[0].shape) * kernel.outputs[0].dtype.itemsize
    assert parts.programs >= device.multiprocessors and kernel.across
    assert rows < parts.loaded_bytes < 1.3 * rows and parts.distinct_bytes + combined.distinct_bytes < 1.5 * rows
    assert kernel_estimate(combined, device).seconds < kernel_estimate(parts, device).seconds


class Gradients(torch.nn.Module):
    """What PyTorch computes in the backward pass of `layer_norm`."""

    def forward(self, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        g, x, mean, scale, weight = operands
        shape = list(x.shape[2:])
        return torch.ops.aten.native_layer_norm_backward(g, x, shape, mean, scale, weight, weight, [True, True, True])


def test_the_backward_pass_of_layer_norm_in_pytorch() -> None:
    x, statistics = torch.randn(8, 512, 768, dtype=torch.bfloat16), torch.rand(8, 512, 1)
    module = irc.from_torch(Gradients(), (x, x, statistics, statistics, x[0, 0]))
    parts, combined = costs(irc.opt(module, "default", settings=Settings()))
    assert parts.programs >= 132 and parts.distinct_bytes + combined.distinct_bytes < 1.2 * 3 * 2 * 4096 * 768


def test_few_rows_are_reduced_apart_from_what_is_across_them() -> None:
    """64 rows in parts would be few programs, or would have as many partial results as elements."""
    module = irc.opt(trace(softmax_and_columns, "f32[64, 16384]"), "default", settings=Settings())
    assert len(kernels_of(module)) > 1 and not any(kernel_of(each).across for each in kernels_of(module))
    module = irc.opt(trace(softmax_and_columns, "f32[64, 100]"), "default", settings=Settings())
    assert len(kernels_of(module)) == 1  # which takes less time than a launch


def test_rows_of_open_sizes() -> None:
    module = trace(layer_norm_gradients, "bf16[N, 768]", "bf16[N, 768]", "bf16[768]")
    parts, combined = costs(irc.opt(module, "default", settings=Settings(dims={"N": 4099})), {"N": 4099})
    assert parts.programs >= 132 and combined.distinct_bytes < parts.distinct_bytes / 4


def test_deviations_of_repeated_rows_beside_maxima_of_rows(tmp_path: Path) -> None:
    """Means of means across rows are the same for each row, and none is known before the loop over rows."""
    def function(x: Value, y: Value) -> tuple[Value, ...]:
        rows = ops.expand(x, shape=y.type.shape)
        centered = ops.sub(rows, ops.reduce_mean(rows, axes=(0,), keep_dims=True))
        greatest = ops.reduce_max(ops.mul(rows, y), axes=(1,), keep_dims=True)
        return ops.sub(greatest, x), ops.sqrt(ops.reduce_mean(ops.mul(centered, centered), axes=(0,), keep_dims=True))

    module = irc.opt(trace(function, "f32[1, 3]", "f32[4, 3]"), "default", settings=Settings())
    run = harness.run(module, folder=tmp_path, fuse=False)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# -- what is illegal -------------------------------------------------------------------------------------------

ILLEGAL = {
    "three": (lambda x: (ops.reduce_sum(x, axes=(2,)), ops.reduce_sum(x, axes=(1,)), ops.reduce_sum(x, axes=(0,))),
              ("f32[4, 5, 6]",), "is reduced over"),
    "rows_of_results": (lambda x: ops.sub(ops.softmax(x, axis=1), ops.reduce_mean(x, axes=(0,))), ("f32[8, 9]",),
                        "in each row from what is reduced across rows"),
    "long_rows": (softmax_and_columns, ("f32[64, 20000]",), "rows of 20000 elements"),
    "against_memory": (lambda x: (y := ops.softmax(x, axis=0), ops.reduce_sum(y, axes=(1,))), ("f32[64, 100]",),
                       "in each row from what is reduced across rows"),
    "places": (lambda x: (ops.argmax(x, axis=0), ops.reduce_sum(x, axes=(1,))), ("f32[8, 9]",),
               r"%\w+ is computed in each row from what is reduced across rows"),
    "apart": (lambda x, y: ops.add(ops.reduce_sum(x, axes=(0,)), ops.reduce_sum(y, axes=(0,))), ("f32[8]", "f32[9]"),
              "is reduced over"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_is_illegal_names_its_rule(name: str) -> None:
    function, types, message = ILLEGAL[name]
    module = trace(function, *types)
    with pytest.raises(LegalityFailure, match=message) as caught:
        derive([each for each in module.main.block if not each.definition.is_terminator])
    assert caught.value.rule in ("F6", "F10"), caught.value.message


@pytest.mark.parametrize("schedule, message", [({"n": 64}, "holds the 100 elements"), ({"i": 2}, "a block of `i`"),
                                               ({"split": 500}, "splits 300 elements in 500 parts")])  # fmt: skip
def test_schedules_that_do_not_fit(schedule: dict[str, int], message: str) -> None:
    operation = the_operation(harness.kernelize(trace(softmax_and_columns, "f32[300, 100]")))
    operation.attributes["schedule"] = schedule
    with pytest.raises(LegalityFailure, match=message) as caught:
        kernel_of(operation)
    assert caught.value.rule == "F15"


def test_parts_that_are_no_kernels_have_names() -> None:
    """Rows of a padding and of another one, which is divided."""
    def function(x: Value) -> tuple[Value, Value]:
        one, other = (ops.pad(x, low=(1, 0), high=(2, 0)) for _ in range(2))
        return ops.reduce_sum(one, axes=(1,)), ops.reduce_max(other, axes=(0,))

    with pytest.raises(irc.IrcError, match=r"F15: @fused: .*F4: %\w+ has a dim N \+ 3"):
        split_in(trace(function, "f32[N, 5]"), 3)


def test_stated_blocks(tmp_path: Path) -> None:
    """The block of rows is `m`; results are those without one, and bytes as predicted."""
    case, module = CASES[0], trace(layer_norm_gradients, "f32[50, 33]", "f32[50, 33]", "f32[33]")
    for place, stated in enumerate(({"m": 1, "warps": 2}, {"m": 16, "n": 64})):
        program = harness.kernelize(module.clone())
        the_operation(program).attributes["schedule"] = stated
        program = parse(str(program))
        assert the_kernel(program).schedule.rows.block == stated["m"]  # type: ignore[union-attr]
        check(case, program, harness.random_inputs(module, {}), tmp_path / str(place))


def test_a_mean_of_each_row_is_of_its_own_half() -> None:
    """The elements that a reduction is of are none of those at the points of another piece of a concatenation."""
    text = """irc text 1
module @m {
  func @main(%x: f64[5, 2]) -> (f64[5, 4], f64[1, 4]) {
    %mean = reduce_mean %x {axes = [1], keep_dims = true} : f64[5, 1]
    %above = maximum %mean, %x : f64[5, 2]
    %both = concat %x, %above {axis = 1} : f64[5, 4]
    %sums = reduce_sum %both {axes = [0], keep_dims = true} : f64[1, 4]
    return %both, %sums
  }
}
"""
    module = parse(text)
    with pytest.raises(LegalityFailure):
        derive([each for each in module.main.block if not each.definition.is_terminator])


# -- source ----------------------------------------------------------------------------------------------------


def test_golden(tmp_path: Path, update: bool) -> None:
    emit(compiled("layer_norm"), tmp_path)
    check_text(tmp_path, "layer_norm_gradients", update)


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
def test_compiles_without_spills(name: str, tmp_path: Path) -> None:
    emit(compiled(name), tmp_path)
    check_compiled(tmp_path, None)
