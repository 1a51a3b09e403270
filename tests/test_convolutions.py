"""Convolutions in kernels: results, the bytes and flops that the model counts, text, and what they compile to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")


import irc
from irc import ops
from irc.backends.triton import compile_artefact, emit
from irc.backends.triton.compile import TARGETS
from irc.ir import Value
from irc.kernel import derive
from irc.kernel.dag import Dot
from irc.module import Module
from irc.op import trace
from tests import triton_harness as harness
from tests.fusing import body_of
from tests.kernel_reference import evaluate
from tests.test_products import TOLERANCES, typed


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


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ALL)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """At random sizes, with tiles as on a GPU; every address is looked at, and the bytes are those of the model."""
    draw = random.Random(f"{name} {dtype}")
    module = lowered(name, dtype)
    assert has_products(module) == (name in PROGRAMS)
    module = harness.kernelize(module)
    for number in range(2):
        sizes = {"N": draw.choice([1, 2, 3]), "H": draw.choice([3, 5, 8, 13]), "W": draw.choice([3, 4, 7, 17])}
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, fuse=False, seed=number, real_tiles=True)
        assert not run.program.rejected
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert harness.relative_error(actual, expected) <= TOLERANCES[dtype], sizes
        (launch,) = run.launches
        assert launch.predicted is not None and launch.predicted.exact
        assert launch.counted == launch.predicted.loaded_bytes


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
    "f32": (lambda x, w: conv(x, w, low=1), ("f32[4, 32, 28, 28]", "f32[32, 32, 3, 3]")),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_convolutions_compile_to_matrix_instructions(name: str, tmp_path: Path) -> None:
    """For each target: no spills, within shared memory, aligned accesses 128 bits wide."""
    program, types = COMPILED[name]
    emit(harness.kernelize(trace(program, *types), name=name), tmp_path / "a")
    for resources in compile_artefact(tmp_path / "a", TARGETS):
        assert not resources.error and resources.fits, resources
        assert resources.spilled_bytes == resources.local_bytes == 0, resources
        multiplies = name != "depthwise" and (name != "f32" or resources.target == "gfx942")
        assert (resources.matrix_instructions > 0) == multiplies, resources
        if resources.target != "gfx942":
            assert resources.wide_accesses == resources.aligned_accesses, resources
