"""Split reductions: what parts and their combination compute, which kernels are split by rules, and stated splits."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

import irc
from irc import interpreter, ops
from irc.backends.triton import compile_artefact, emit
from irc.backends.triton.compile import TARGETS
from irc.device import find_device
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.dtypes import U8
from irc.ir import Operation, Value
from irc.kernel import Bytes, count, kernel_of
from irc.kernel.roofline import kernel_estimate
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from irc.pass_manager import PassContext
from irc.passes.split import Split
from irc.sizes import representative_sizes
from irc.verifier import verify
from tests import triton_harness as harness
from tests.command_line import irc_here
from tests.fuzz.triton_path import merged
from tests.triton_cases import check_text, check_widths, the_operation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@dataclass(frozen=True)
class Case:
    """A function, the same in PyTorch, the types of its operands, and the kernels that it is split into."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    types: tuple[str, ...]
    kernels: int = 2
    tolerance: float = 2e-6


def moments(x: Value) -> tuple[Value, ...]:
    mean = ops.reduce_mean(x, axes=(1,), keep_dims=True)
    centered = ops.sub(x, mean)
    return ops.reduce_mean(ops.mul(centered, centered), axes=(1,)), ops.reshape(mean, shape=(x.shape[0],))


def normalized_channels(x: Value) -> Value:
    mean = ops.reduce_mean(x, axes=(0, 2), keep_dims=True)
    centered = ops.sub(x, mean)
    return ops.div(centered, ops.sqrt(ops.add(ops.reduce_mean(ops.mul(centered, centered), axes=(0, 2), keep_dims=True),
                                              1e-5)))  # fmt: skip


def residual_and_power(x: Value, y: Value) -> tuple[Value, Value]:
    z = ops.add(x, y)
    return z, ops.reduce_sum(ops.mul(z, z), axes=(1,))


def twice(x: Value) -> Value:
    """A weighted sum by weights that are no softmax: nothing is known of how parts of it would combine."""
    return ops.reduce_sum(ops.exp(ops.mul(ops.sub(x, ops.reduce_max(x, axes=(1,), keep_dims=True)), 2.0)), axes=(1,))


def near_miss(x: Value) -> Value:
    return ops.reduce_sum(ops.tanh(ops.sub(x, ops.reduce_max(x, axes=(1,), keep_dims=True))), axes=(1,))


attended = torch.nn.functional.scaled_dot_product_attention
CASES = [
    Case("sum", lambda x: ops.reduce_sum(x, axes=(0,)), lambda x: x.sum(), ("f32[N]",)),
    Case("epilogue", lambda x: ops.sqrt(ops.reduce_sum(ops.mul(x, x), axes=(1,))), lambda x: (x * x).sum(1).sqrt(),
         ("bf16[M, N]",), tolerance=1e-2),
    Case("mean", lambda x: ops.reduce_mean(x, axes=(0, 1)), torch.mean, ("f16[M, N]",), tolerance=2e-3),
    Case("product", lambda x: ops.reduce_prod(ops.add(ops.mul(x, 0.01), 1.0), axes=(1,), keep_dims=True),
         lambda x: (x * 0.01 + 1).prod(1, keepdim=True), ("f32[M, N]",), tolerance=2e-5),
    Case("integers", lambda x: ops.reduce_sum(x, axes=(1,)), lambda x: x.sum(1).to(torch.int8), ("i8[M, N]",)),
    Case("any", lambda x: ops.reduce_max(ops.greater(x, 0), axes=(1,)), lambda x: (x > 0).any(1), ("i32[M, N]",)),
    Case("every", lambda x: ops.reduce_min(ops.less(x, 4), axes=(1,)), lambda x: (x < 4).all(1), ("i32[M, N]",)),
    Case("columns", lambda x: ops.reduce_max(x, axes=(0,)), lambda x: x.amax(0), ("f32[N, 70]",)),
    Case("middle", lambda x: ops.reduce_min(x, axes=(1,)), lambda x: x.amin(1), ("f32[M, N, 5]",)),
    Case("channels", lambda x: ops.reduce_sum(x, axes=(0, 2)), lambda x: x.sum((0, 2)), ("f32[M, 3, N]",)),
    Case("argmax", lambda x: ops.argmax(x, axis=1), lambda x: x.argmax(1), ("f32[M, N]",)),
    Case("argmin", lambda x: ops.argmin(x, axis=0, keep_dims=True), lambda x: x.argmin(0, keepdim=True),
         ("f16[N, 9]",)),
    Case("last", lambda x: ops.argmax(x, axis=1, select_last=True), lambda x: x.shape[1] - 1 - x.flip(1).argmax(1),
         ("i32[M, N]",)),
    Case("softmax", lambda x: ops.softmax(x, axis=1), lambda x: x.softmax(1), ("f32[M, N]",), 3),
    Case("softmax_columns", lambda x: ops.softmax(x, axis=0), lambda x: x.softmax(0), ("f32[N, 9]",), 3),
    Case("masked", lambda x, y: ops.softmax(ops.select(y, ops.mul(x, 0.5), -np.inf), axis=1),
         lambda x, y: torch.where(y, x * 0.5, -torch.inf).softmax(1), ("f32[M, N]", "bool[M, N]"), 3),
    Case("log_softmax", lambda x: ops.log_softmax(x, axis=1), lambda x: x.log_softmax(1), ("bf16[M, N]",), 3, 1e-2),
    Case("log_sum_exp", lambda x: ops.log_sum_exp(x, axes=(1,)), lambda x: x.logsumexp(1), ("f32[M, N]",)),
    Case("moments", moments, lambda x: (x.var(1, correction=0), x.mean(1)), ("f32[M, N]",)),
    Case("layer_norm", lambda x, w, b: ops.layer_norm(x, w, b),
         lambda x, w, b: torch.nn.functional.layer_norm(x, x.shape[1:], w, b), ("f32[M, N]", "f32[N]", "f32[N]"), 3,
         1e-5),
    Case("rms_norm", lambda x, w: ops.rms_norm(x, w, axis=-1, epsilon=1e-6),
         lambda x, w: torch.nn.functional.rms_norm(x, x.shape[1:], w, 1e-6), ("f16[M, N]", "f16[N]"), 3, 3e-3),
    Case("batch_statistics", normalized_channels,
         lambda x: (x - x.mean((0, 2), True)) / (x.var((0, 2), correction=0, keepdim=True) + 1e-5).sqrt(),
         ("f32[M, 3, N]",), 3, 1e-5),
    Case("residual", residual_and_power, lambda x, y: (x + y, ((x + y) ** 2).sum(1)), ("f32[M, N]", "f32[M, N]")),
    Case("twice", twice, lambda x: ((x - x.amax(1, keepdim=True)) * 2).exp().sum(1), ("f32[M, N]",), 4),
    Case("linear", lambda x, w, b: ops.relu(ops.add(ops.matmul(x, w), b)), lambda x, w, b: (x @ w + b).relu(),
         ("f32[M, N]", "f32[N, 40]", "f32[40]"), tolerance=1e-5),
    Case("half_product", lambda x, w: ops.matmul(ops.silu(x), ops.transpose(w, permutation=(0, 2, 1))),
         lambda x, w: torch.nn.functional.silu(x) @ w.mT, ("bf16[2, M, N]", "bf16[2, 20, N]"), tolerance=2e-2),
    Case("gated", lambda x, w, v: ops.mul(ops.silu(ops.matmul(x, w)), ops.matmul(x, v)),
         lambda x, w, v: torch.nn.functional.silu(x @ w) * (x @ v), ("f16[M, N]", "f16[N, 24]", "f16[N, 24]"),
         tolerance=1e-2),
    Case("contracted", lambda x, y: ops.dot(x, y, batch=((1, 0),), contract=((0, 2), (3, 1))),
         lambda x, y: torch.einsum("absk,bkac->bsc", x, y), ("f32[3, 2, M, N]", "f32[2, N, 3, 17]"), tolerance=1e-5),
    Case("normed", lambda x, s, w: ops.matmul(ops.rms_norm(x, s, axis=-1, epsilon=1e-6), w),
         lambda x, s, w: torch.nn.functional.rms_norm(x, x.shape[1:], s, 1e-6) @ w,
         ("f32[M, N]", "f32[N]", "f32[N, 20]"), 4, 1e-5),
    Case("convolution", lambda x, w, b: ops.relu(ops.conv(x, w, b, strides=(2, 1), dilations=(1, 1), low=(1, 0),
                                                          high=(1, 2))),
         lambda x, w, b: torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 2, 1, 1)), w, b, (2, 1)).relu(),
         ("f32[M, 13, 7, 6]", "f32[24, 13, 3, 3]", "f32[24]"), tolerance=1e-5),
    Case("pointwise_convolution", lambda x, w, r: ops.add(ops.conv(x, w, strides=(1,), dilations=(1,), low=(0,),
                                                                   high=(0,)), r),
         lambda x, w, r: torch.nn.functional.conv1d(x, w) + r,
         ("f16[M, 40, N]", "f16[24, 40, 1]", "f16[M, 24, N]"), tolerance=5e-3),
    Case("attention", lambda q, k, v: ops.attention(q, k, v), attended,
         ("f32[M, 2, 5, 16]", "f32[M, 2, N, 16]", "f32[M, 2, N, 8]"), 3, 1e-5),
    Case("decoding", lambda q, k, v: ops.attention(q, k, v),
         lambda q, k, v: attended(q, k.repeat_interleave(4, 1), v.repeat_interleave(4, 1)),
         ("bf16[M, 8, 1, 16]", "bf16[M, 2, N, 16]", "bf16[M, 2, N, 16]"), 3, 2e-2),
    Case("biased", lambda q, k, v, b: ops.attention(q, k, v, b), lambda q, k, v, b: attended(q, k, v, attn_mask=b),
         ("f32[M, 2, 5, 16]", "f32[M, 2, N, 16]", "f32[M, 2, N, 8]", "f32[5, N]"), 3, 1e-5),
    Case("near_miss", near_miss, lambda x: (x - x.amax(1, keepdim=True)).tanh().sum(1), ("f32[M, N]",), 4),
]  # fmt: skip
SIZES = [(2, 17), (3, 130), (1, 101)]


def split_in(module: Module, number: int, numerics: Any = "keeps_more_precision") -> Module:
    """The module as one kernel, in so many parts."""
    module = harness.kernelize(module.clone())
    the_operation(module).attributes["schedule"] = {"split": number}
    assert Split().run(module, PassContext(numerics=numerics))
    verify(module)
    return parse(str(module))


def kernels_of(module: Module) -> list[Operation]:
    return [operation for operation in module.main.walk() if operation.name == "kernel"]


def expected_by_torch(case: Case, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """In f64."""
    tensors = [torch.from_numpy(np.asarray(x, np.float64 if x.dtype.kind not in "biu" else x.dtype))
               for x in inputs.values()]  # fmt: skip
    results = case.reference(*tensors)
    return [each.numpy() for each in (results if isinstance(results, tuple) else (results,))]


def check(case: Case, module: Module, inputs: dict[str, np.ndarray], folder: Path) -> None:
    run = harness.run(module, folder=folder, inputs=inputs, fuse=False, real_tiles=True)
    assert not run.program.rejected and len(run.launches) == len(kernels_of(module))
    for launch in run.launches:
        assert launch.predicted is not None and launch.predicted.exact
        assert launch.counted == launch.predicted.loaded_bytes
    for actual, mine, reference in zip(run.outputs.values(), run.expected.values(), expected_by_torch(case, inputs),
                                       strict=True):  # fmt: skip
        if actual.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, reference)
            np.testing.assert_array_equal(mine, reference)
        else:
            assert harness.relative_error(actual, reference) <= case.tolerance
            assert harness.relative_error(mine, reference) <= case.tolerance


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parts_compute_what_the_whole_does(case: Case, tmp_path: Path) -> None:
    """In the interpreter, as kernels, and in PyTorch; with as many kernels as stated, and bytes as predicted."""
    draw, module = random.Random(case.name), trace(case.function, *case.types)
    for place, (rows, columns) in enumerate([draw.choice(SIZES), *([(1, 1)] if case.tolerance < 1e-4 else [])]):
        parts = split_in(module, draw.choice([2, 3, 8, 20]))
        assert len(kernels_of(parts)) == case.kernels
        inputs = harness.random_inputs(module, {"M": rows, "N": columns}, seed=place)
        check(case, parts, inputs, tmp_path / str(place))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "any", "variance", "log_sum_exp"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_parts_of_whole_rows_that_may_be_empty(name: str, size: int, tmp_path: Path) -> None:
    """A part is some rows of S elements: where S is 0 a part has none, and nothing is divided by its size."""
    function, axes = {
        "sum": ops.reduce_sum, "mean": ops.reduce_mean, "log_sum_exp": ops.log_sum_exp,
        "max": lambda x, axes: ops.reduce_max(ops.greater(x, 0.5), axes=axes),
        "any": lambda x, axes: ops.reduce_max(ops.cast(ops.not_equal(x, 0.0), to=U8), axes=axes),
        "variance": lambda x, axes: ops.reduce_mean(
            ops.square(ops.sub(x, ops.reduce_mean(x, axes=axes, keep_dims=True))), axes=axes),
    }[name], (0, 1)  # fmt: skip
    module = harness.kernelize(trace(lambda x: function(ops.concat(x, x, x, axis=0), axes=axes), "f32[S, S]"))
    the_operation(module).attributes["schedule"] = {"part": 128}
    assert Split().run(module, PassContext(sizes={"S": 64}))
    reduced = [each.inputs[0].shape[-1] for each in kernels_of(module)[0].walk() if each.name.startswith("reduce_")]
    assert reduced and all(str(extent) == "2*S" for extent in reduced)
    x = np.random.default_rng(0).random((size, size), np.float32)
    run = harness.run(parse(str(module)), folder=tmp_path, inputs={"x": x}, fuse=False)
    for actual, mine in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_allclose(actual, mine, rtol=2e-6)


@pytest.mark.parametrize("masked_rows, value", [("zero", 0.0), ("nan", np.nan)])
def test_attention_to_few_keys(masked_rows: Any, value: float, tmp_path: Path) -> None:
    """Parts in which a query sees no key, and queries that see none at all; and a value that is NaN."""
    module = trace(lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows=masked_rows), "f32[1, 2, 5, 16]",
                   "f32[1, 2, 50, 16]", "f32[1, 2, 50, 16]", "bool[5, 50]")  # fmt: skip
    inputs = harness.random_inputs(module, {})
    inputs["m"][0], inputs["m"][1, 13:], inputs["m"][2, :49] = False, False, False

    def reference(q: Any, k: Any, v: Any, mask: Any) -> Any:
        result = attended(q, k, v, attn_mask=mask)
        return result.where(mask.any(1, keepdim=True) | result.isnan(), value)

    case, parts = Case("masked", ops.attention, reference, (), 3, 1e-5), split_in(module, 4)
    check(case, parts, inputs, tmp_path / "a")
    inputs["v"][0, 0, 49, 3] = np.nan
    check(case, parts, inputs, tmp_path / "b")


def test_causal_attention_in_parts(tmp_path: Path) -> None:
    module = trace(lambda q, k, v: ops.attention(q, k, v, causal=True), *["f16[1, 2, 40, 16]"] * 3)
    case = Case("causal", ops.attention, lambda q, k, v: attended(q, k, v, is_causal=True), (), 3, 2e-3)
    check(case, split_in(module, 3), harness.random_inputs(module, {}), tmp_path / "a")


ATTENDED = {
    "query_of_one": (lambda q, k, v: ops.attention(q, k, v),
                     ("bf16[1, 32, 1, 128]", "bf16[1, 8, 8192, 128]", "bf16[1, 8, 8192, 128]")),
    "query_of_few": (lambda q, k, v: ops.attention(q, k, v), ("f16[1, 16, 16, 64]", *["f16[1, 16, 4096, 64]"] * 2)),
}


def test_a_short_query_has_programs_for_parts_of_its_keys() -> None:
    parts, *rest = costs(compiled(ATTENDED["query_of_one"], products="irc"))
    assert parts.programs == 128 and len(rest) == 2 and parts.issued[0][0].name == "bf16"
    assert sum(each.distinct_bytes for each in (parts, *rest)) < 1.02 * (2 * 8 * 8192 * 128 * 2)
    module = compiled((lambda q, k, v: ops.attention(q, k, v), ["bf16[4, 16, 1024, 64]"] * 3), products="irc")
    assert len(costs(module)) == 1


SPECIAL = [case for case in CASES if case.name in (
    "sum", "columns", "argmax", "last", "softmax", "masked", "log_softmax", "log_sum_exp", "moments")]  # fmt: skip


@pytest.mark.parametrize("case", SPECIAL, ids=lambda case: case.name)
def test_parts_with_special_values(case: Case, tmp_path: Path) -> None:
    """NaN and infinities where they are in one part, fill one, or fill a row; rows that differ by more than floats of a
    part that is far below the others may."""
    module = trace(case.function, *(type_.replace("bf16", "f32").replace("i32", "f32") for type_ in case.types))
    parts = split_in(module, 4)
    inputs = harness.random_inputs(module, {"M": 9, "N": 9 if case.name in ("sum", "columns") else 40})
    x = inputs["x"]
    if x.ndim == 2 and case.name != "columns":
        x[0, 3], x[1, 20], x[2, 7], x[3, :] = np.nan, np.inf, -np.inf, -np.inf
        x[4, :10], x[5, 10:], x[6, :20], x[7, 20:], x[8] = -np.inf, -np.inf, -3e4, 3e4, np.round(x[8])
    else:
        x[3], x[5] = -np.inf, np.nan
    if "y" in inputs:
        inputs["y"][0], inputs["y"][2, 10:] = False, False
    check(case, parts, inputs, tmp_path / "a")


@pytest.mark.parametrize("case", [case for case in CASES if not case.name.startswith(("arg", "last"))],
                         ids=lambda case: case.name)  # fmt: skip
def test_parts_of_nothing(case: Case) -> None:
    """Size 0, in the interpreter, as the program that is not split."""
    module = trace(case.function, *case.types)
    parts = split_in(module, 3)
    for sizes in ({"M": 0, "N": 7}, {"M": 2, "N": 0}):
        inputs = harness.random_inputs(module, sizes)
        results = interpreter.run(parts, inputs)
        for actual, expected in zip(results.values(), interpreter.run(module, inputs).values(), strict=True):
            assert harness.relative_error(actual, expected) <= case.tolerance


def test_exact_numerics_rescale_nothing() -> None:
    """Each reduction is then split by itself: maximum, sum, and the softmax, of f32."""
    case = next(case for case in CASES if case.name == "softmax")
    module = trace(case.function, *case.types)
    parts = split_in(module, 4, "exact")
    assert len(kernels_of(parts)) == 5
    inputs = harness.random_inputs(module, {"M": 3, "N": 50})
    (actual,), (expected,) = (interpreter.run(each, inputs).values() for each in (parts, module))
    assert harness.relative_error(actual, expected) <= case.tolerance


# -- what rules split ------------------------------------------------------------------------------------------

FEW = {
    "sum": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[16777216]",), 2),
    "odd": (lambda x: ops.reduce_max(ops.abs_(x), axes=(0, 1)), ("bf16[4099, 4093]",), 2),
    "softmax": (lambda x: ops.softmax(x, axis=-1), ("bf16[4, 65536]",), 3),
    "one_row": (lambda x: ops.softmax(x, axis=-1), ("f32[1, 1000003]",), 3),
    "layer_norm": (lambda x, w, b: ops.layer_norm(x, w, b), ("f32[4, 65536]", "f32[65536]", "f32[65536]"), 3),
    "argmax": (lambda x: ops.argmax(x, axis=1), ("f32[4, 151936]",), 2),
    "channels": (lambda x: ops.reduce_mean(x, axes=(0, 2, 3)), ("bf16[32, 64, 112, 112]",), 2),
    "channels_of_one": (lambda x: ops.reduce_mean(x, axes=(0, 2, 3)), ("bf16[1, 64, 512, 512]",), 2),
    "statistics": (moments, ("f32[32, 401408]",), 2),
    "columns": (lambda x: ops.reduce_sum(x, axes=(0,)), ("bf16[8192, 1024]",), 2),
    "few_columns": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[1000000, 24]",), 2),
    "dynamic": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[N]",), 2),
}
MULTIPLIED = {
    "long": (lambda x, w: ops.matmul(x, w), ("bf16[256, 8192]", "bf16[8192, 256]")),
    "decoding": (lambda x, w: ops.matmul(x, w), ("bf16[8, 4096]", "bf16[4096, 4096]")),
    "epilogue": (
        lambda x, w, b: ops.relu(ops.add(ops.matmul(x, w), b)),
        ("f16[100, 8191]", "f16[8191, 512]", "f16[512]"),
    ),
    "rows": (lambda x, w: ops.matmul(x, w), ("f16[16, 14336]", "f16[14336, 4096]")),
    "last_layer": (
        lambda x, w: ops.relu(ops.conv(x, w, strides=(1, 1), dilations=(1, 1), low=(1, 1), high=(1, 1))),
        ("f16[1, 512, 7, 7]", "f16[512, 512, 3, 3]"),
    ),
    "batch": (lambda x, w: ops.matmul(x, w), ("f32[2, 128, 4096]", "f32[2, 4096, 64]")),
}
SMALL = {
    "short": (lambda x: ops.reduce_sum(x, axes=(1,)), ("f32[4, 1000]",)),
    "many_rows": (lambda x: ops.softmax(x, axis=1), ("f32[4096, 65536]",)),
    "many_columns": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[4096, 65536]",)),
    "pointwise": (lambda x: ops.exp(x), ("f32[16]",)),
    "unknown": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[N]",)),
}


def compiled(entry: Any, dims: dict[str, int] | None = None, options: str = "", products: Any = "host") -> Module:
    module = trace(entry[0], *entry[1])
    return irc.opt(module, f"default{options}", settings=Settings(dims=dims or {}, products=products))


def costs(module: Module, dims: dict[str, int] | None = None) -> list[Bytes]:
    sizes = representative_sizes(module.main, dims or {})
    return [count(kernel_of(operation), sizes) for operation in kernels_of(module)]


@pytest.mark.parametrize("name", FEW)
def test_no_launch_has_fewer_programs_than_multiprocessors(name: str) -> None:
    """But those that combine: what each of their programs reads is little."""
    dims = {"N": 16777216} if name == "dynamic" else None
    module = compiled(FEW[name], dims)
    launches = costs(module, dims)
    whole = costs(compiled(FEW[name], dims, "{split.parts=1}"), dims)
    assert len(launches) == FEW[name][2] and len(whole) == 1
    assert whole[0].programs < find_device().multiprocessors
    for launch in launches:
        assert launch.programs >= find_device().multiprocessors or launch.loaded_bytes <= launch.programs * (1 << 17)
    assert launches[0].programs >= find_device().multiprocessors
    assert sum(launch.distinct_bytes for launch in launches) <= 1.05 * max(whole[0].loaded_bytes,
                                                                          whole[0].distinct_bytes)  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLIED)
def test_products_of_few_tiles_are_split_along_their_sums(name: str) -> None:
    """Where that takes less time by the model of cost."""
    (before,), (parts, combined) = (costs(compiled(MULTIPLIED[name], options=options, products="irc"))
                                    for options in ("{split.parts=1}", ""))  # fmt: skip
    device = find_device()
    assert before.programs < device.multiprocessors / 2 < parts.programs <= 2 * device.multiprocessors
    assert before.product_flops <= parts.product_flops <= 1.05 * before.product_flops  # with what pads the last part
    assert combined.product_flops == 0
    estimates = [kernel_estimate(each, device).seconds for each in (before, parts, combined)]
    assert sum(estimates[1:]) < estimates[0]


def test_products_that_fill_the_device_are_not_split() -> None:
    for types in (("bf16[1024, 1024]", "bf16[1024, 1024]"), ("bf16[4096, 4096]", "bf16[4096, 4096]"),
                  ("bf16[64, 64]", "bf16[64, 64]")):  # fmt: skip
        assert len(costs(compiled((lambda x, w: ops.matmul(x, w), types), products="irc"))) == 1


@pytest.mark.parametrize("rows, neighbors", [(100, 64), (256, 32), (1000, 64), (100_000, 64)])
def test_columns_are_read_in_runs_of_neighbors(rows: int, neighbors: int) -> None:
    """Where they are read once in any case; a softmax of columns rather holds them in registers."""
    (cost,) = costs(compiled((lambda x: ops.reduce_sum(x, axes=(0,)), (f"bf16[{rows}, 65536]",))))
    assert cost.programs == 65536 // neighbors
    if rows == 1000:
        (cost,) = costs(compiled((lambda x: ops.softmax(x, axis=0), (f"bf16[{rows}, 65536]",))))
        assert cost.loaded_bytes == cost.distinct_bytes


@pytest.mark.parametrize("name", SMALL)
def test_rules_split_nothing_that_is_read_as_soon(name: str) -> None:
    assert len(kernels_of(compiled(SMALL[name]))) == 1


# -- stated splits ---------------------------------------------------------------------------------------------

TEXT = """irc text 1
module @m {
  func @main<M>(%x: f32[M, 1000]) -> f32[M] {
    %y = kernel @y (%a = %x) {kind = "reduction", schedule = {SCHEDULE}} : f32[M] {
      %z = exp %a : f32[M, 1000]
      %s = reduce_sum %z {axes = [1]} : f32[M]
      yield %s
    }
    return %y
  }
}
"""
POINTWISE = TEXT.replace("reduce_sum %z {axes = [1]}", "neg %z").replace("f32[M]", "f32[M, 1000]")


def stated(schedule: str, text: str = TEXT) -> str:
    return text.replace("SCHEDULE", schedule)


def test_a_stated_split_is_applied(tmp_path: Path) -> None:
    module = parse(stated("split = 7, warps = 2"))
    assert parse(str(module)).main.block.first is not None and "split = 7" in str(module)
    parts, combined = kernels_of(irc.opt(module, "split", settings=Settings()))
    assert [each.attributes["name"] for each in (parts, combined)] == ["y_parts", "y"]
    assert parts.attributes["schedule"] == {"warps": 2} and combined.attributes["schedule"] is None
    (tmp_path / "m.irc").write_text(str(module))
    assert "split = 7" in irc_here("explain", "m.irc", "@y", "--nest", folder=tmp_path).out
    assert len(kernels_of(irc.opt(parse(stated("split = 1")), "split", settings=Settings()))) == 1


@pytest.mark.parametrize("schedule, text, message", [
    ("split = 0", TEXT, "`split` of a schedule is 0"),
    ("split = 100000", TEXT, "`split` of a schedule is 100000"),
    ("split = 1001", TEXT, "F15: @y: the schedule splits 1000 elements in 1001 parts"),
    ("part = 1000", TEXT, "F15: @y: the schedule splits 1000 elements in parts of 1000"),
    ("part = 0", TEXT, "`part` of a schedule is 0"),
    ("part = 8, split = 2", TEXT, "a schedule has both `split` and `part`"),
    ("part = 8", POINTWISE, "F15: @y: the schedule has a `part`, and a kernel that is pointwise reduces nothing"),
    ("split = 4, i = 64", TEXT, "the schedule has a block of `i`, and the tile axes are m, n"),
    ("split = 4", POINTWISE, "F15: @y: the schedule has a `split`, and a kernel that is pointwise reduces nothing"),
])  # fmt: skip
def test_a_split_that_does_not_fit_is_an_error(schedule: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(stated(schedule, text))
    result = irc_here("compile", "m.irc", "--backend", "triton", "-o", "out", folder=tmp_path)
    assert result.code in (3, 4) and "error[fuse.schedule]" in result.err and message in result.err, result.err
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_not_applied_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IrcError, match=r"F15: the schedule has a `split`, which the pass `split` applies"):
        emit(parse(stated("split = 4")), tmp_path / "a")


def test_plans_and_functions_state_splits(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text("""irc text 1
module @m {
  func @main<M>(%x: f32[M, 1000]) -> f32[M, 1000] {
    %y = softmax %x {axis = 1} : f32[M, 1000]
    return %y
  }
}
""")
    (tmp_path / "f.py").write_text("from irc.scheduling import schedule\n\n@schedule\ndef parts(kernel):\n"
                                   "    return {'split': 4}\n")  # fmt: skip
    options = f"default{{fuse.schedule={tmp_path}/f.py:parts}}"
    assert irc_here("opt", "m.irc", "-p", options, "--plan", "p.json", "-o", "a.irc", folder=tmp_path).code == 0
    plan = json.loads((tmp_path / "p.json").read_text())
    assert plan["groups"][0]["schedule"] == {"split": 4}
    assert (tmp_path / "a.irc").read_text().count("= kernel") == 3
    (tmp_path / "p.json").write_text(json.dumps(plan).replace('"split": 4', '"split": 2000'))
    with pytest.raises(IrcError, match="rule F15: the schedule splits 1000 elements in 2000 parts"):
        irc.opt(str(tmp_path / "m.irc"), f"default{{fuse.plan={tmp_path}/p.json}}", settings=Settings())


def whole_maps(x: Value) -> Value:
    return ops.reduce_sum(x, axes=(0, 2, 3))


PLANNED: dict[str, tuple[Any, dict[str, int]]] = {
    **{name: (FEW[name], {}) for name in ("softmax", "one_row", "odd", "channels_of_one")},
    "dynamic": (FEW["dynamic"], {"N": 16777216}),
    "dynamic_maps": ((whole_maps, ("f32[B, 8, H, W]",)), {"B": 64, "H": 200, "W": 300}),
    "dynamic_rows": ((whole_maps, ("f32[B, 8, H, W]",)), {"B": 1, "H": 2000, "W": 3000}),
    **{name: (MULTIPLIED[name], {}) for name in ("decoding", "epilogue", "last_layer")},
}


@pytest.mark.parametrize("name", PLANNED)
def test_plans_state_what_rules_split(name: str, tmp_path: Path) -> None:
    """The plan gives the same program again, and one in as many kernels at sizes where rules split nothing."""
    entry, sizes = PLANNED[name]
    module, settings = trace(entry[0], *entry[1]), Settings(dims=sizes, products="irc")
    plan = json.loads(irc.make_plan(module, tmp_path / "p.json", settings=settings).plan)
    assert [list(group.get("schedule", {})) for group in plan["groups"]] == [["part"]]
    pipeline, text = f"default{{fuse.plan={tmp_path}/p.json}}", str(compiled(entry, sizes, products="irc"))
    text = text.replace("fuse(greedy)", "fuse(plan)")
    assert str(irc.opt(module, pipeline, settings=settings)) == text
    again = irc.make_plan(module, pipeline=pipeline, settings=settings).plan
    assert [group["schedule"] for group in json.loads(again)["groups"]] == [plan["groups"][0]["schedule"]]
    small = irc.opt(module, pipeline, settings=Settings(dims=dict.fromkeys(sizes, 2), products="irc"))
    assert len(kernels_of(small)) == text.count("= kernel")


# -- what it looks like ----------------------------------------------------------------------------------------


def norm_of(x: Value) -> Value:
    return ops.sqrt(ops.reduce_sum(ops.mul(x, x), axes=(0,)))


def test_columns_of_a_split_product_are_results(tmp_path: Path) -> None:
    """A view with several results is a member of the kernel that is split."""

    def parts(x: Value, w: Value) -> tuple[Value, ...]:
        left, right = ops.split(ops.matmul(x, w), axis=1, sizes=(32, 32))
        return ops.relu(left), right

    module = trace(parts, "f16[16, 2048]", "f16[2048, 64]")
    fused = irc.opt(module, "default", backend="triton", settings=Settings(products="irc"))
    kernels = [each.attributes["kind"] for each in fused.main.block if each.name == "kernel"]
    assert kernels == ["product", "reduction"]
    run = harness.run(fused, folder=tmp_path / "a", fuse=False, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) <= 2e-3


def test_golden(tmp_path: Path, update: bool) -> None:
    module = irc.opt(trace(norm_of, "bf16[16777216]"), "default", settings=Settings())
    emit(module, tmp_path / "a")
    check_text(tmp_path / "a", "split_norm", update)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FEW, *MULTIPLIED, *ATTENDED])
def test_compiles_without_spills(name: str, tmp_path: Path) -> None:
    dims = {"N": 16777216} if name == "dynamic" else None
    emit(compiled((FEW | MULTIPLIED | ATTENDED)[name], dims, products="irc"), tmp_path / "a")
    for resources in compile_artefact(tmp_path / "a", TARGETS):
        assert not resources.error and resources.fits, resources
        assert resources.spilled_bytes == resources.local_bytes == 0, resources
        check_widths(resources)
        if name in MULTIPLIED | ATTENDED and name != "batch" and "parts" in resources.kernel:
            assert resources.matrix_instructions > 0, resources


def test_what_is_not_split_leaves_no_uses() -> None:
    """Here the kernel that would combine cannot be one, after that for parts has been made."""

    def program(x: Value) -> tuple[Value, Value]:
        flat = ops.reshape(ops.mul(x, x), shape=(x.type.elements,))
        weights = ops.exp(ops.sub(flat, ops.reduce_max(flat, axes=(0,), keep_dims=True)))
        return ops.div(weights, ops.reduce_sum(weights, axes=(0,), keep_dims=True)), flat

    merged(trace(program, "f32[S, 4, S]"))  # is verified
