"""Kernels that reduce over windows of more places than are unrolled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import ops
from irc.backends.triton import emit
from irc.ir import Value
from irc.kernel import derive
from irc.kernel.dag import Reduce
from irc.op import trace
from tests import triton_harness as harness
from tests.fusing import body_of
from tests.kernel_reference import evaluate
from tests.test_products import kinds, typed
from tests.triton_cases import PRODUCT_BOUNDS, check_compiled, check_one_launch


def windows(x: Value, kind: str, *window: int, **options: Any) -> Value:
    rank = len(window)
    attributes = {"strides": (1,) * rank, "dilations": (1,) * rank, "low": (0,) * rank, "high": (0,) * rank, **options}
    return ops.window_reduce(x, kind=kind, window=window, **attributes)


def pooled(x: Value, kernel: int, stride: int = 1, dilation: int = 1, low: int = 0, high: int = 0,
           pool: Callable[..., Value] = ops.max_pool, **options: Any) -> Value:  # fmt: skip
    rank = x.rank - 2
    return pool(x, kernel=(kernel,) * rank, strides=(stride,) * rank, low=(low,) * rank, high=(high,) * rank,
                dilations=(dilation,) * rank, **options)  # fmt: skip


IMAGES = "T[N, 3, 16, 17]"
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "max": (lambda x: pooled(x, 7, 2, low=3, high=3), (IMAGES,)),
    "dilated": (lambda x: pooled(x, 6, 1, 2, low=2), (IMAGES,)),
    "whole": (lambda x: pooled(x, 16), (IMAGES,)),
    "mean": (lambda x: pooled(x, 8, 4, pool=ops.average_pool), (IMAGES,)),
    "fused": (lambda x, y: ops.add(ops.relu(pooled(ops.neg(x), 7, 3)), y), (IMAGES, "T[3, 1, 1]")),
    "line": (lambda x: pooled(x, 40, 5, low=7, high=1), ("T[N, 2, 101]",)),
    "volume": (lambda x: pooled(x, 4, 2), ("T[N, 2, 6, 5, 8]",)),
    "sums_along_all_axes": (lambda x: windows(x, "sum", 2, 3, 4, 5, strides=(1, 1, 2, 1), low=(1, 0, 0, 2)),
                            ("T[2, 3, 16, 17]",)),
    "only_padding": (lambda x: windows(x, "max", 1, 1, 6, 6, strides=(1, 1, 6, 6), low=(0, 0, 6, 0)), (IMAGES,)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", PRODUCT_BOUNDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_give_what_the_interpreter_gives(name: str, dtype: str, tmp_path: Path) -> None:
    """One launch, whose bytes are those of the model."""
    program, types = PROGRAMS[name]
    module = irc.opt(trace(program, *typed(types, dtype)), "default", backend="triton")
    assert kinds(module) == ["reduction"]
    for number, size in enumerate((1, 3) if dtype == "f32" else (2,)):
        folder, sizes = tmp_path / str(number), {"N": size}
        run = harness.run(module, folder=folder, sizes=sizes, fuse=False, seed=size, real_tiles=True)
        check_one_launch(run, PRODUCT_BOUNDS[dtype])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_dag_means_the_windows(name: str) -> None:
    program, types = PROGRAMS[name]
    module = irc.opt(trace(program, *typed(types, "f32")), "legalize,windows,canonicalize,fold,dce", backend="triton")
    inputs = harness.random_inputs(module, {"N": 2})
    kernel = derive(body_of(module))
    assert any(isinstance(node, Reduce) for node in kernel.nodes)
    actual = evaluate(kernel, inputs, harness.bind_symbols(module, inputs))
    for result, expected in zip(actual.values(), irc.interpreter.run(module, inputs).values(), strict=True):
        assert harness.relative_error(result, expected) < 1e-5


@pytest.mark.parametrize("dtype", ["f32", "i32", "i8", "u8"])
def test_extremes_and_integers(dtype: str, tmp_path: Path) -> None:
    """NaN is the maximum of its windows, infinities are numbers, and integers have no infinity for padding."""
    program = trace(lambda x: pooled(x, 6, 2, low=5, high=1), f"{dtype}[1, 2, 9, 10]")
    module = irc.opt(program, "default", backend="triton")
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 10)) * 50
    x = x.astype(module.main.arguments[0].dtype.numpy)
    if dtype == "f32":
        x[0, 0, 3, 3], x[0, 1, 8, 9], x[0, 1] = np.nan, np.inf, np.where(np.arange(10) < 5, -np.inf, x[0, 1])
    run = harness.run(module, folder=tmp_path / "a", inputs=[x], fuse=False)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_windows_that_may_not_fit_are_host_operations() -> None:
    """That a window fits its axis is proven, since no kernel checks it; small windows are unrolled."""
    unknown = trace(lambda x: pooled(x, 8), "f32[N, 3, S, 16]")
    assert kinds(irc.opt(unknown, "default", backend="triton")) == ["window_reduce"]
    small = trace(lambda x: pooled(x, 3), "f32[N, 3, 16, 16]")
    assert kinds(irc.opt(small, "default", backend="triton")) == ["pointwise"]


def test_windows_compile(tmp_path: Path) -> None:
    program = trace(lambda x: ops.relu(pooled(x, 13, 1, low=6, high=6)), "bf16[8, 256, 20, 20]")
    emit(irc.opt(program, "default", backend="triton"), tmp_path / "a")
    check_compiled(tmp_path / "a", None)
