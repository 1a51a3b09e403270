"""Convolutions in kernels: results, the bytes and flops that the model counts, text, and what they compile to."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import torch

import irc
from irc import dims, interpreter, ops
from irc.backends.triton import emit
from irc.dims import Variable
from irc.dtypes import F32
from irc.index_map import WHOLE, Guard
from irc.ir import Value
from irc.kernel import LegalityFailure, count, derive
from irc.kernel.dag import Dot
from irc.kernel.traffic import distinct_in_layers, points
from irc.module import Module
from irc.op import const, trace
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.fusing import body_of
from tests.fuzz.triton_path import Artefact, merged
from tests.kernel_reference import evaluate
from tests.test_products import kinds, trace_wide, typed
from tests.triton_cases import PRODUCT_BOUNDS, WIDE, check_compiled, check_one_launch, check_text


def conv(x: Value, weight: Value, bias: Value | None = None, *, stride: int = 1, dilation: int = 1, low: Any = 0,
         high: Any = None, groups: int = 1, **name: str) -> Value:  # fmt: skip
    rank = x.rank - 2

    def each(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, tuple) else (value,) * rank

    operands = (x, weight) if bias is None else (x, weight, bias)
    return ops.conv(*operands, strides=each(stride), dilations=each(dilation), low=each(low),
                    high=each(low if high is None else high), groups=groups, **name)  # fmt: skip


def residual(x: Value, w: Value, b: Value, r: Value) -> Value:
    return ops.relu(ops.add(conv(x, w, b, low=1, name="conv"), r))


def normalized(x: Value, w: Value, scale: Value, shift: Value) -> Value:
    """Batch normalization with its statistics folded into a scale and a shift."""
    shape = (1, w.shape[0], 1, 1)
    y = ops.mul(conv(x, w, low=1), ops.reshape(scale, shape=shape))
    return ops.relu(ops.add(y, ops.reshape(shift, shape=shape)))


def siblings(x: Value, w: Value, v: Value) -> Value:
    return ops.mul(ops.sigmoid(conv(x, w, low=1)), conv(x, v, low=1))


def channels_last(x: Value, w: Value) -> Value:
    return ops.transpose(conv(x, w, low=1), permutation=(0, 2, 3, 1))


def shuffled(x: Value, w: Value) -> Value:
    """The channels of a grouped convolution in another order, as in ShuffleNet."""
    y = conv(x, w, groups=2)
    n, _, h, width = y.shape
    return ops.reshape(ops.transpose(ops.reshape(y, shape=(n, 2, 6, h, width)), permutation=(0, 2, 1, 3, 4)),
                       shape=(n, 12, h, width))  # fmt: skip


X, W = "T[N, 6, H, W]", "T[10, 6, 3, 3]"
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "1d": (lambda x, w, b: conv(x, w, b, low=2), ("T[N, 6, H]", "T[10, 6, 5]", "T[10]")),
    "2d": (lambda x, w: conv(x, w, low=1), (X, W)),
    "3d": (lambda x, w, b: conv(x, w, b, low=1), ("T[N, 3, H, W, 4]", "T[5, 3, 3, 3, 3]", "T[5]")),
    "static": (lambda x, w: conv(x, w, low=1), ("T[2, 6, 9, 7]", W)),
    "unpadded": (conv, ("T[N, 6, 9, 7]", W)),
    "strided": (lambda x, w: conv(x, w, low=1, stride=2), (X, W)),
    "dilated": (lambda x, w: conv(x, w, low=2, dilation=2), (X, W)),
    "strided_dilated": (lambda x, w: conv(x, w, low=2, stride=2, dilation=2), (X, W)),
    "asymmetric": (lambda x, w: conv(x, w, low=(0, 2), high=(1, 3), stride=2), ("T[N, 6, 8, W]", W)),
    "wide_padding": (lambda x, w: conv(x, w, low=4), (X, W)),
    "1x1": (conv, (X, "T[10, 6, 1, 1]")),
    "1x1_strided": (lambda x, w: conv(x, w, stride=2), (X, "T[10, 6, 1, 1]")),
    "one_channel": (lambda x, w: conv(x, w, low=1), ("T[N, 1, H, W]", "T[10, 1, 3, 3]")),
    "groups": (lambda x, w, b: conv(x, w, b, low=1, groups=2), (X, "T[10, 3, 3, 3]", "T[10]")),
    "groups_relu": (lambda x, w, r: ops.relu(ops.add(conv(x, w, groups=3), r)),
                    (X, "T[12, 2, 1, 1]", "T[N, 12, H, W]")),
    "shuffled": (shuffled, (X, "T[12, 3, 1, 1]")),
    "residual": (residual, (X, W, "T[10]", "T[N, 10, H, W]")),
    "normalized": (normalized, (X, W, "T[10]", "T[10]")),
    "prologue": (lambda x, w: conv(ops.relu(ops.add(x, 1)), w, low=1), (X, W)),
    "prologue_strided": (lambda x, w: conv(ops.exp(x), ops.neg(w), low=2, stride=2), (X, W)),
    "scaled_channels": (lambda x, w, s: conv(ops.mul(x, ops.reshape(s, shape=(1, 6, 1, 1))), w, low=1),
                        (X, W, "T[6]")),
    "concatenated": (lambda x, y, w: conv(ops.concat(x, y, axis=1), w, low=1),
                     ("T[N, 2, H, W]", "T[N, 4, H, W]", W)),
    "siblings": (siblings, (X, W, W)),
    "softmax": (lambda x, v, w: conv(ops.softmax(conv(x, v), axis=1), w),
                (X, "T[12, 6, 1, 1]", "T[10, 12, 1, 1]")),
    "channels_last": (channels_last, (X, W)),
    "sliced": (lambda x, w: ops.slice_(conv(x, w, low=1), starts=(0, 2, 0, 1), stops=(x.shape[0], 7, 9, 6),
                                       steps=(1, 1, 1, 2)), ("T[N, 6, 9, 7]", W)),
    "pooled": (lambda x, w: ops.max_pool(ops.relu(conv(x, w, low=1)), kernel=(2, 2), strides=(2, 2),
                                       low=(0, 0), high=(0, 0), dilations=(1, 1)), (X, W)),
    "upsampled": (lambda x, w: conv(ops.reshape(ops.expand(ops.reshape(x, shape=(*x.shape[:2], 5, 1, 4, 1)),
                                                           shape=(*x.shape[:2], 5, 2, 4, 2)),
                                                shape=(*x.shape[:2], 10, 8)), w, low=1), ("T[N, 6, 5, 4]", W)),
}  # fmt: skip
DEPTHWISE: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "depthwise": (lambda x, w, b: ops.relu(conv(x, w, b, low=1, groups=6)), (X, "T[6, 1, 3, 3]", "T[6]")),
    "depthwise_strided": (lambda x, w: conv(ops.relu(ops.add(x, 1)), w, low=1, stride=2, groups=6),
                          (X, "T[6, 1, 3, 3]")),
    "depthwise_1d": (lambda x, w: conv(x, w, low=3, high=0, groups=6), ("T[N, 6, H]", "T[6, 1, 4]")),
    "multiplier": (lambda x, w: conv(x, w, low=1, groups=6), (X, "T[12, 1, 3, 3]")),
    "large_window": (lambda x, w: conv(x, w, low=4, groups=6), (X, "T[6, 1, 9, 9]")),
    "one_filter": (lambda x, w: conv(x, w, low=1), (X, "T[1, 6, 3, 3]")),
    "one_of_each": (lambda x, w: conv(x, w, low=1), ("T[N, 1, H, W]", "T[1, 1, 3, 3]")),
    "one_place": (conv, ("T[1, 6, 3, 3]", W)),
}  # fmt: skip
ALL = {**PROGRAMS, **DEPTHWISE}


def lowered(name: str, dtype: str) -> Module:
    program, types = ALL[name]
    return irc.opt(trace(program, *typed(types, dtype)), "legalize,windows", backend="triton")


def has_products(module: Module) -> bool:
    return any(isinstance(node, Dot) for node in derive(body_of(module)).nodes)


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", ALL)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """At random sizes, with tiles as on a GPU; every address is looked at, and the bytes are those of the model."""
    draw = random.Random(f"{name} {dtype}")
    module = lowered(name, dtype)
    assert has_products(module) == (name in PROGRAMS)
    module = harness.kernelize(module)
    for number in range(1 if dtype == "bf16" else 2):
        sizes = {"N": draw.choice([1, 2, 3]), "H": draw.choice([3, 5, 8, 13]), "W": draw.choice([3, 4, 7, 17])}
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, fuse=False, seed=number, real_tiles=True)
        check_one_launch(run, PRODUCT_BOUNDS[dtype])


@pytest.mark.parametrize("name", ALL)
def test_the_dag_means_the_convolution(name: str) -> None:
    """Evaluated without tiles, every access in bounds and every element written once."""
    module = lowered(name, "f32")
    inputs = harness.random_inputs(module, {"N": 2, "H": 5, "W": 4})
    actual = evaluate(derive(body_of(module)), inputs, harness.bind_symbols(module, inputs))
    for result, expected in zip(actual.values(), irc.interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(result, expected) < 1e-5


# -- text and targets ------------------------------------------------------------------------------------------

COMPILED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "conv": (residual, ("bf16[N, 64, 56, 56]", "bf16[64, 64, 3, 3]", "bf16[64]", "bf16[N, 64, 56, 56]")),
    "first_layer": (lambda x, w, b: ops.relu(conv(x, w, b, low=3, stride=2)),
                    ("f16[8, 3, 224, 224]", "f16[64, 3, 7, 7]", "f16[64]")),
    "pointwise": (lambda x, w: ops.silu(conv(x, w)), ("bf16[8, 64, 64, 64]", "bf16[256, 64, 1, 1]")),
    "groups": (lambda x, w: conv(x, w, low=1, groups=4), ("bf16[8, 128, 28, 28]", "bf16[128, 32, 3, 3]")),
    "depthwise": (lambda x, w, b: ops.relu(conv(x, w, b, low=1, groups=64)),
                  ("bf16[8, 64, 56, 56]", "bf16[64, 1, 3, 3]", "bf16[64]")),
    "projection": (lambda x, v, w: conv(ops.clip(conv(x, v, low=1, groups=192), 0, 6), w),
                   ("bf16[8, 192, 28, 28]", "bf16[192, 1, 3, 3]", "bf16[32, 192, 1, 1]")),
    "convnext": (lambda x, w, b: ops.layer_norm(ops.transpose(conv(x, w, b, low=3, groups=96),
                                                             permutation=(0, 2, 3, 1)), axis=3),
                 ("bf16[8, 96, 56, 56]", "bf16[96, 1, 7, 7]", "bf16[96]")),
    "f32": (lambda x, w: conv(x, w, low=1), ("f32[4, 32, 28, 28]", "f32[32, 32, 3, 3]")),
}  # fmt: skip


NARROW_STORES = {"conv": (1, 16), "first_layer": (1, 16), "pointwise": (1, 16), "f32": (1, 32)}


@pytest.mark.parametrize("name", COMPILED)
def test_convolutions_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    """For each target: no spills, within shared memory, aligned accesses 128 bits wide."""
    program, types = COMPILED[name]
    emit(harness.kernelize(trace(program, *types), name=name), tmp_path / "a")
    multiplied = None if name in ("depthwise", "convnext") else "f32" if name == "f32" else "16 bits"
    check_compiled(tmp_path / "a", multiplied, narrow_stores=NARROW_STORES.get(name, WIDE))


def test_the_text_of_a_convolution(tmp_path: Path, update: bool) -> None:
    types = ("bf16[8, 64, 56, 56]", "bf16[64, 64, 3, 3]", "bf16[64]", "bf16[8, 64, 56, 56]")
    emit(harness.kernelize(trace(residual, *types), name="conv_relu"), tmp_path / "a")
    check_text(tmp_path / "a", "conv_relu", update)


# -- bytes, flops, other oracles -------------------------------------------------------------------------------

def test_flops_and_bytes_are_counted_at_large_sizes() -> None:
    """Without looking at every load: 64 images, of which the first layer of a ResNet reads every element."""
    module = trace(lambda x, w: conv(x, w, low=3, stride=2), "f16[64, 3, 224, 224]", "f16[64, 3, 7, 7]")
    cost = count(derive(body_of(module)), {})
    assert cost.exact and cost.product_flops == 2 * 64 * 64 * 112 * 112 * 3 * 49
    assert cost.distinct_bytes == 2 * (64 * 3 * 224 * 224 + 64 * 3 * 49 + 64 * 64 * 112 * 112)
    module = trace(lambda x, w: conv(x, w, stride=2), "f16[64, 8, 112, 112]", "f16[16, 8, 1, 1]")
    cost = count(derive(body_of(module)), {})
    assert cost.exact and cost.distinct_bytes == 2 * (64 * 8 * 56 * 56 + 16 * 8 + 64 * 16 * 56 * 56)


@pytest.mark.parametrize("seed", range(20))
def test_distinct_elements_of_windows(seed: int) -> None:
    """Addresses and guards of any form: counted as digits, and by looking at every point."""
    draw = random.Random(seed)
    for _ in range(50):
        axes = [Variable(f"a{place}", draw.randint(1, 5), (WHOLE, place)) for place in range(draw.randint(1, 4))]
        address = sum(draw.choice([0, 1, 1, 2, 3, 5, 10, 25, -1, -5]) * axis.expr for axis in axes)
        tested = [draw.sample(axes, min(len(axes), 2)) for _ in range(draw.randint(0, 2))]
        guards = tuple(Guard(sum(draw.choice([1, 1, 2, -1]) * axis.expr for axis in some) + draw.randint(-3, 2),
                             draw.randint(1, 5)) for some in tested)  # fmt: skip
        places = [dict(zip(axes, place, strict=True)) for place in np.ndindex(*(axis.extent for axis in axes))]
        kept = [place for place in places
                if all(0 <= dims.evaluate(guard.index, place) < guard.extent for guard in guards)]  # fmt: skip
        addresses = {dims.evaluate(address, place) for place in kept}
        assert points(frozenset(axes), guards, dims.Sizes({})) == (len(kept), True)
        assert distinct_in_layers(address, frozenset(axes), guards, dims.Sizes({})) == len(addresses)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_eager_pytorch_gives_the_same(rank: int, tmp_path: Path) -> None:
    draw = random.Random(rank)
    for number in range(3):
        groups, stride, dilation, padding = (draw.choice(choice) for choice in ((1, 2, 4), (1, 2), (1, 2), (0, 1, 3)))
        channels, features = 4, draw.choice([4, 8, 12])
        shape, window = [2, channels, *draw.choices([6, 7, 9], k=rank)], draw.choices([1, 2, 3], k=rank)
        x, w, b = (torch.randn(each) for each in (shape, [features, channels // groups, *window], [features]))
        eager = getattr(torch.nn.functional, f"conv{rank}d")
        expected = eager(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)
        types = [f"f32{list(each.shape)}" for each in (x, w, b)]
        run = harness.run(partial(conv, low=padding, stride=stride, dilation=dilation, groups=groups), *types,
                          folder=tmp_path / str(number), inputs=[x.numpy(), w.numpy(), b.numpy()])  # fmt: skip
        assert harness.relative_error(next(iter(run.outputs.values())), expected.numpy()) < 1e-5
        assert run.launches and not run.program.rejected


@pytest.mark.parametrize("types", [
    ("f16[0, 4, 5, 5]", "f16[6, 4, 3, 3]"), ("f16[2, 4, 0, 5]", "f16[6, 4, 3, 3]"),
    ("f16[2, 0, 5, 5]", "f16[6, 0, 3, 3]"), ("f16[2, 4, 5, 5]", "f16[0, 4, 3, 3]"),
    ("f16[2, 4, 1, 1]", "f16[6, 4, 1, 1]"), ("f16[1, 1, 1, 1]", "f16[1, 1, 3, 3]"),
    ("f16[N, 4, H, W]", "f16[6, 4, 3, 3]"), ("f16[N, C, 3, W]", "f16[6, C, 3, 3]"),
])  # fmt: skip
def test_sizes_of_0_and_1(types: tuple[str, str], tmp_path: Path) -> None:
    program = partial(conv, low=1)
    for number, sizes in enumerate([{"N": 0, "H": 3, "W": 4, "C": 0}, {"N": 1, "H": 1, "W": 0, "C": 1}]):
        bias = f"f16[{types[1][4]}]"
        run = harness.run(program, *types, bias, folder=tmp_path / str(number), sizes=sizes, real_tiles=True)
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert harness.relative_error(actual, expected) <= PRODUCT_BOUNDS["f16"]


def test_padding_is_0_whatever_is_computed_of_x(tmp_path: Path) -> None:
    """NaN and infinities reach the windows that they are in, and 1/x of the padding reaches none."""
    x, w = np.ones((2, 4, 6, 7), np.float32), np.ones((5, 4, 3, 3), np.float32)
    x[0, 1, 2, 3], x[1, 0, 0, 0], x[1, 3, 5, 6] = np.nan, 0, np.inf
    run = harness.run(lambda x, w: conv(ops.div(1, x), w, low=2), "f32[2, 4, 6, 7]", "f32[5, 4, 3, 3]",
                      folder=tmp_path / "a", inputs=[x, w], real_tiles=True)  # fmt: skip
    (actual,), (expected,) = run.outputs.values(), run.expected.values()
    assert harness.relative_error(actual, expected) < 1e-6
    assert np.isnan(expected).any() and np.isinf(expected).any() and np.isfinite(expected).sum() > 400


# -- rules and fusion ------------------------------------------------------------------------------------------

def softmax_of_channels(x: Value, w: Value) -> Value:
    return ops.softmax(conv(x, w, low=1), axis=1)


def joined_groups(x: Value, w: Value) -> Value:
    return ops.concat(conv(x, w, groups=2), x, axis=1)


def rolled(x: Value, w: Value) -> Value:
    y = conv(x, w, low=1)
    parts = [ops.slice_(y, starts=(0, 0, start, 0), stops=(2, 6, stop, 5), steps=(1, 1, 1, 1))
             for start, stop in ((2, 5), (0, 2))]  # fmt: skip
    return ops.add(y, ops.concat(*parts, axis=2))


def overlapping_pool(x: Value, w: Value) -> Value:
    return ops.max_pool(conv(x, w, low=1), kernel=(3, 3), strides=(1, 1), low=(1, 1), high=(1, 1), dilations=(1, 1))


UNSUPPORTED: dict[str, tuple[Callable[..., Any], tuple[str, ...], str, str]] = {
    "transposed": (lambda x, w: ops.conv_transpose(x, w, strides=(2, 2), dilations=(1, 1), low=(0, 0), high=(0, 0),
                                                   output_padding=(0, 0)),
                   ("f32[2, 4, 5, 5]", "f32[4, 6, 3, 3]"), "F2", "conv_transpose is not computed point by point"),
    "integers": (conv, ("i32[2, 4, 5, 5]", "i32[6, 4, 3, 3]"), "F2", "do not multiply matrices of i32"),
    "f64": (conv, ("f64[2, 4, 5, 5]", "f64[6, 4, 3, 3]"), "F2", "do not multiply matrices of f64"),
    "windows_may_not_fit": (conv, ("f32[2, 4, H, 5]", "f32[6, 4, 3, 3]"), "F2", "where H - 3 is below 0"),
    "channels_may_differ": (conv, ("f32[2, C, 5, 5]", "f32[6, D, 3, 3]"), "F2", "do not fit each other"),
    "reduced": (softmax_of_channels, ("f32[2, 4, 5, 5]", "f32[6, 4, 3, 3]"), "F16", "is reduced"),
    "chained": (lambda x, w: conv(conv(x, w, low=1), w, low=1), ("f32[2, 4, 5, 5]", "f32[4, 4, 3, 3]"), "F10",
                "would be computed again"),
    "chained_1x1": (lambda x, w: conv(conv(x, w), w), ("f32[2, 4, 5, 5]", "f32[4, 4, 1, 1]"), "F17", "no softmax"),
    "softmax_of_windows": (lambda x, w: conv(ops.softmax(x, axis=1), w, low=1),
                           ("f32[2, 8, 5, 5]", "f32[6, 8, 3, 3]"), "F17", "no softmax"),
    "groups": (joined_groups, ("f32[2, 4, 5, 5]", "f32[6, 2, 1, 1]"), "F16", "the groups of channels"),
    "read_again": (overlapping_pool, ("f32[2, 4, 5, 5]", "f32[6, 4, 3, 3]"), "F16", "one of 9 products"),
    "read_twice": (rolled, ("f32[2, 4, 5, 5]", "f32[6, 4, 3, 3]"), "F10", "would be computed again"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_rules_name_what_kernels_cannot_do(name: str) -> None:
    program, types, rule, message = UNSUPPORTED[name]
    module = irc.opt(trace(program, *types), "legalize,windows", backend="triton")
    with pytest.raises(LegalityFailure, match=message) as failure:
        derive(body_of(module))
    assert failure.value.rule == rule


def test_convolutions_are_in_kernels_where_the_option_says_so() -> None:
    module = trace(normalized, "f16[N, 8, H, W]", "f16[16, 8, 3, 3]", "f16[16]", "f16[16]")
    assert kinds(irc.opt(module, "default", backend="triton")) == ["conv", "pointwise"]
    assert kinds(irc.opt(module, "default{fuse.products=irc}", backend="triton")) == ["product"]
    chain = trace(lambda x, w, v: conv(ops.relu(conv(x, w, low=1)), v, low=1), "f16[N, 8, H, W]",
                  "f16[8, 8, 3, 3]", "f16[8, 8, 3, 3]")  # fmt: skip
    assert kinds(irc.opt(chain, "default{fuse.products=irc}", backend="triton")) == ["product", "product"]
    transposed = trace(UNSUPPORTED["transposed"][0], *UNSUPPORTED["transposed"][1])
    assert kinds(irc.opt(transposed, "default{fuse.products=irc}", backend="triton")) == ["conv_transpose"]


@pytest.mark.parametrize("seed", range(12))
def test_random_convolutions(seed: int, tmp_path: Path) -> None:
    """Chains of convolutions, views, windows and pointwise operations: kernels agree with the program in f64."""
    draw = random.Random(seed)

    def program(x: Value, *weights: Value) -> Value:
        values, left = [x], list(weights)
        for _ in range(draw.randint(3, 6)):
            y = draw.choice(values[-2:])
            step = draw.choice(["conv", "conv", "depthwise", "grouped", "relu", "silu", "residual", "pool", "shift"])
            low, high = draw.randint(1, 2), draw.randint(1, 2)
            options: dict[str, Any] = {"low": low, "high": high, "stride": draw.choice([1, 1, 2])}
            if step in ("conv", "depthwise", "grouped"):
                groups = {"conv": 1, "depthwise": 8, "grouped": 2}[step]
                weight = ops.slice_(left[0], starts=(0, 0, 0, 0), stops=(8, 8 // groups, 3, 3), steps=(1, 1, 1, 1))
                y = conv(y, weight, groups=groups, **options)
            elif step == "pool":
                y = ops.max_pool(y, kernel=(2, 2), strides=(2, 2), low=(1, 1), high=(1, 1), dilations=(1, 1))
            elif step == "residual":
                same = [each for each in values if each.shape == y.shape]
                y = ops.add(y, draw.choice(same))
            else:
                y = {"relu": ops.relu, "silu": ops.silu, "shift": lambda z: ops.add(z, 0.5)}[step](y)
            values.append(ops.mul(y, 0.25) if step in ("conv", "grouped") else y)
        return values[-1]

    size, dtype = draw.choice([1, 4, 7, 12]), draw.choice(["f32", "f16"])
    module = trace(program, f"{dtype}[N, 8, {size}, {size}]", f"{dtype}[8, 8, 3, 3]")
    fused = irc.opt(module.clone(), "default{fuse.products=irc}", backend="triton")
    assert "conv" not in kinds(fused)
    run = harness.run(fused, folder=tmp_path / "a", sizes={"N": 2}, fuse=False, seed=seed)
    wide = {name: array.astype(np.float64) for name, array in harness.random_inputs(module, {"N": 2}, seed).items()}
    wide_results = irc.interpreter.run(trace_wide(module), wide)
    for actual, expected in zip(run.outputs.values(), wide_results.values(), strict=True):
        assert harness.relative_error(actual, expected) <= 8 * PRODUCT_BOUNDS[dtype]


def test_a_strided_convolution_reads_only_a_part_of_what_is_stored() -> None:
    """What it convolves is a result, too: the points that it reads are not those at which that is stored."""

    def program(x: Value, y: Value) -> tuple[Value, Value]:
        least = ops.minimum(x, y)
        weight = const(value=Tensor.of(np.array([-1.5, 0.5], np.float32).reshape(2, 1, 1), F32))
        return ops.conv(least, weight, strides=(2,), low=(0,), high=(0,), dilations=(1,), groups=1), ops.neg(least)

    module = trace(program, "f32[2]", "f32[7, 1, 1]")
    draw = np.random.default_rng(0).normal
    inputs = {"x": draw(size=2).astype(np.float32), "y": draw(size=(7, 1, 1)).astype(np.float32)}
    expected = interpreter.run(module, inputs)
    for name, result in Artefact(merged(module)).on_arrays(inputs).items():
        np.testing.assert_allclose(result, expected[name], rtol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
@pytest.mark.parametrize(("stride", "padding", "dilation", "output_padding", "bias"), [
    ((2, 1), (2, 3), (4, 4), (3, 1), True), ((1, 1), (0, 1), (3, 3), (2, 2), True),
    ((2, 1), (0, 0), (3, 2), (2, 1), False), ((2, 3), (1, 0), (4, 1), (3, 2), True),
    ((1, 2), (5, 0), (6, 6), (5, 5), False)])  # fmt: skip
def test_output_paddings_of_the_stride_and_more(
        stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], output_padding: tuple[int, int],
        bias: bool, backend: Any) -> None:  # fmt: skip
    """PyTorch takes those below the dilation too, ONNX Runtime does not."""
    torch.manual_seed(0)
    module = torch.nn.ConvTranspose2d(4, 6, 2, stride, padding, output_padding, 2, bias, dilation).eval()
    compiled = irc.compile(module, (torch.randn(2, 4, 5, 5),), dynamic_shapes=({0: "N", 2: "H"},), backend=backend)
    for shape in ((2, 4, 5, 5), (1, 4, 9, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), module(x).detach(), rtol=1e-5, atol=1e-6)
