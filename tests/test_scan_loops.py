"""Scans along rows that no program holds: a loop over blocks of the row carries what these have combined to."""

from __future__ import annotations

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
from irc.diagnostics import IrcError
from irc.dtypes import F32
from irc.ir import Value
from irc.kernel import LegalityFailure, derive
from irc.kernel.nest_text import nest_text
from irc.module import Module
from irc.op import trace
from irc.schedule_options import ScheduleOptions
from tests import triton_harness as harness
from tests.fusing import body_of, fused, kernels
from tests.test_scans import (
    FLAGS,
    KINDS,
    PROGRAMS,
    before_and_after,
    by_torch,
    last,
    normalized,
    nucleus,
    running,
    several_of_a_row,
)
from tests.triton_cases import ROW_BOUNDS, check, check_compiled, check_one_launch, check_text, the_operation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

BOTH = (False, True)
DTYPES = ("f32", "f64", "f16", "bf16", "i64", "i32", "i16", "i8", "u8")


def in_blocks(function: Callable[..., Any], *types: str, **stated: int) -> Module:
    """One kernel, whose schedule is stated, as small blocks are for short rows."""
    module = harness.kernelize(trace(function, *types))
    the_operation(module).attributes["schedule"] = stated
    return module


def run(module: Module, folder: Path, **options: Any) -> harness.Run:
    """Run with the tiles of a GPU, since an interpreted launch would have the row in one."""
    done = harness.run(module, folder=folder, real_tiles=True, fuse=False, **options)
    (launched,) = done.program.kernels
    assert launched.kernel.looped
    return done


def all_kinds(x: Value, axis: int, reverse: bool) -> list[Value]:
    return [running(x, kind, axis, reverse=reverse, exclusive=exclusive) for kind in KINDS for exclusive in BOTH]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype, axis", [*((dtype, 1) for dtype in DTYPES), ("f32", 0), ("i8", 0)])
def test_scans_are_pytorchs(dtype: str, axis: int, reverse: bool, tmp_path: Path) -> None:
    """Of all kinds in one loop. Integers wrap around; elements are read once, and each result is stored once."""
    module = in_blocks(lambda x: all_kinds(x, axis, reverse), f"{dtype}[37, 37]", m=16, n=8)
    type_ = module.main.arguments[0].dtype.numpy
    random = np.random.default_rng(0)
    x = random.standard_normal((37, 37)) if dtype in ROW_BOUNDS else random.integers(-100, 100, (37, 37))
    done = run(module, tmp_path / "a", inputs=[x.astype(type_)])
    known = torch.from_numpy(x.astype(type_).astype(np.float64) if dtype in ROW_BOUNDS else x.astype(type_))
    cases = [(kind, exclusive) for kind in KINDS for exclusive in BOTH]
    for (kind, exclusive), actual in zip(cases, done.outputs.values(), strict=True):
        expected = by_torch(known, kind, axis, reverse, exclusive).numpy()
        assert harness.relative_error(actual, expected) <= ROW_BOUNDS.get(dtype, 0.0), (kind, exclusive)
    (launch,) = done.launches
    assert launch.predicted is not None and launch.predicted.exact
    assert launch.counted == launch.predicted.loaded_bytes == 9 * 37 * 37 * x.astype(type_).itemsize


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64"])
def test_edges(dtype: str, reverse: bool, tmp_path: Path) -> None:
    """NaN, infinities and -0 in blocks before and after: from the first NaN on every element is NaN, and a sum of -0
    alone is 0."""
    rows = [[1, np.nan, 3, -np.inf, 2, 1, 4], [np.inf, 1, -np.inf, 0, 4, -1, 1],
            [-0.0, -0.0, -0.0, -0.0, -0.0, -1, -0.0],
            [-np.inf, -np.inf, -np.inf, -np.inf, np.inf, 5, np.nan], [0.0, -0.0, 1.0, np.inf, 2, -0.0, 3],
            [-1.0, -0.0, 1.0, 1.0, 1.0, -1.0, 1.0]]  # fmt: skip
    module = in_blocks(lambda x: all_kinds(x, 1, reverse), f"{dtype}[6, 7]", m=2, n=2)
    x = np.array(rows).astype(module.main.arguments[0].dtype.numpy)
    done = run(module, tmp_path / "a", inputs=[x])
    cases = [(kind, exclusive) for kind in KINDS for exclusive in BOTH]
    for (kind, exclusive), output in zip(cases, done.outputs.values(), strict=True):
        actual = output.astype(np.float64)
        expected = by_torch(torch.from_numpy(x.astype(np.float64)), kind, 1, reverse, exclusive).numpy()
        np.testing.assert_array_equal(actual, expected)
        if kind in ("sum", "prod"):  # which zero a maximum gives is open
            known = ~np.isnan(expected)
            np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))
    text = "".join((tmp_path / "a" / "kernels.py").read_text().split())
    assert "larger(maxima_before," in text and "smaller(minima_before," in text  # interpreted, both keep NaN


@pytest.mark.parametrize("reverse, exclusive", FLAGS)
@pytest.mark.parametrize("block", [8, 2])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64"])
def test_logarithms_of_sums(dtype: str, block: int, reverse: bool, exclusive: bool, tmp_path: Path) -> None:
    """Held and in a loop: nothing overflows, exponentials of -inf add up to 0, and one inf gives inf."""
    rows = [[-np.inf, -np.inf, 1, np.inf, 2, np.nan, 3], [0, -50, -100, 100, 100, -np.inf, 80], [1, 2, 3, 4, 5, 6, 7],
            [-np.inf, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf, -1], [np.inf, np.inf, -np.inf, 1, 2, 3, 4],
            [-800, -801, -800, -799, -700, -600, -500], [-0.0, 0.0, 900, 900, -900, 0, 1]]  # fmt: skip
    module = in_blocks(lambda x: running(x, "log_sum_exp", reverse=reverse, exclusive=exclusive), f"{dtype}[7, 7]",
                       m=2, n=block)  # fmt: skip
    x = np.array(rows).astype(module.main.arguments[0].dtype.numpy)
    done = harness.run(module, folder=tmp_path / "a", inputs=[x], real_tiles=True, fuse=False)
    assert done.program.kernels[0].kernel.looped == (block == 2)
    (actual,) = (output.astype(np.float64) for output in done.outputs.values())
    expected = by_torch(torch.from_numpy(x.astype(np.float64)), "log_sum_exp", 1, reverse, exclusive).numpy()
    np.testing.assert_allclose(actual, expected, rtol=ROW_BOUNDS[dtype], atol=ROW_BOUNDS[dtype])


NOT_LOOPED = {"before_and_after", "guarded", "of_a_scan", "counted", "flattened"}  # from both ends, or of a single row


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - NOT_LOOPED))
def test_what_is_computed_before_and_after_is_in_the_kernel(name: str, tmp_path: Path) -> None:
    function, *types = PROGRAMS[name]
    check(run(in_blocks(function, *types, m=2, n=4), tmp_path / "a"),
          max(ROW_BOUNDS.get(type_.partition("[")[0], 0.0) for type_ in types))  # fmt: skip


def from_the_end_with_a_variance(x: Value) -> list[Value]:
    """Squares are added up from the last block on, which lacks elements of some lanes."""
    mean = ops.reduce_mean(x, axes=(1,), keep_dims=True)
    difference = ops.sub(x, mean)
    variance = ops.reduce_mean(ops.mul(difference, difference), axes=(1,), keep_dims=True)
    return [running(x, reverse=True), variance, running(ops.div(difference, variance), reverse=True)]


def softmax_of_sums(x: Value) -> Value:
    return ops.softmax(running(x, "max", reverse=True), axis=1)


def sums_of_several(x: Value, y: Value) -> list[Value]:
    """Scans of scans, and of several operands, with an epilogue that reads them all."""
    both = ops.add(ops.cast(running(ops.abs_(x)), to=F32), running(y, "max"))
    return [ops.mul(running(both, "min"), ops.cast(ops.exp(x), to=F32)), running(y, "max", exclusive=True)]


LONG: dict[str, tuple[Callable[..., Any], *tuple[str, ...]]] = {
    "sum": (running, "f32[3, S]"), "softmax": (lambda x: running(ops.softmax(x, axis=1)), "f32[3, S]"),
    "normalized": (normalized, "f32[3, S]"), "last": (last, "f32[3, S]"),
    "softmax_of_sums": (softmax_of_sums, "bf16[3, S]"),
    "variance": (from_the_end_with_a_variance, "f32[3, S]"), "nucleus": (nucleus, "f32[3, S]"),
    "several": (sums_of_several, "f16[3, S]", "f32[3, S]"),
    "columns": (lambda x: running(ops.exp(x), "max", axis=0, reverse=True), "f32[S, 3]"),
    "integers": (lambda x: ops.mul(running(x, reverse=True, exclusive=True), 2), "i32[3, S]"),
}  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 3, 17, 1_024, 1_025, *(pytest.param(n, marks=pytest.mark.slow)
                                                                 for n in (8_193, 20_001))])  # fmt: skip
@pytest.mark.parametrize("name", LONG)
def test_rows_of_any_length(name: str, length: int, tmp_path: Path) -> None:
    """Bytes are those of the model, of a length that is known when it runs."""
    if name == "last" and not length:
        pytest.skip("no element is the greatest")
    function, *types = LONG[name]
    module = in_blocks(function, *types)
    done = run(module, tmp_path / "a", sizes={"S": length})
    bound = max(ROW_BOUNDS.get(type_.partition("[")[0], 0.0) for type_ in types)
    check_one_launch(done, 10 * bound if length > 8_192 else bound)  # of sums of so many


def test_random_blocks(tmp_path: Path) -> None:
    """Programs of scans in blocks of all sizes agree with the interpreter."""
    random = np.random.default_rng(0)
    for number in range(24):
        rows, columns, dtype = random.integers(2, 9), random.integers(2, 100), random.choice(["f32", "i16", "f16"])
        reverse, kinds = bool(random.integers(2)), random.choice(KINDS, 3)
        shifts = [bool(random.integers(2)) for _ in kinds]

        def program(x: Value, kinds: Any = kinds, shifts: Any = shifts, reverse: Any = reverse) -> list[Value]:
            results = []
            for kind, exclusive in zip(kinds, shifts, strict=True):
                x = ops.neg(running(x, str(kind), reverse=reverse, exclusive=exclusive))
                x = ops.minimum(ops.maximum(x, -8), 8) if x.dtype.is_float else x
                results.append(x)
            return [*results, ops.reduce_max(x, axes=(1,))]

        type_ = f"{dtype}[{rows}, {columns}]"
        width = 1 << int(random.integers(0, int(columns - 1).bit_length()))
        inputs = harness.random_inputs(trace(program, type_), {}, seed=number)
        looped = run(in_blocks(program, type_, m=1 << int(random.integers(0, 3)), n=width), tmp_path / f"{number}",
                     inputs=inputs)  # fmt: skip
        check(looped, ROW_BOUNDS.get(dtype, 0.0))


@pytest.mark.parametrize("function, type_", [
    (running, "f32[4, 8193]"), (running, "f32[4, S]"), (lambda x: running(x, axis=0), "f32[1025, 64]"),
    (several_of_a_row, "i64[4, 8000]"),
    (lambda x: ops.add(running(x, exclusive=True), running(x, "max")), "i64[4, 8000]"),
], ids=["long", "unknown", "columns", "several", "exclusive_of_a_long_row"])  # fmt: skip
def test_rows_that_would_spill_are_looped_over(function: Callable[..., Any], type_: str) -> None:
    assert derive(body_of(trace(function, type_))).looped


def test_exponentials_of_integers_are_not_added_up() -> None:
    with pytest.raises(IrcError, match="exponentials of i32") as raised:
        trace(lambda x: running(x, "log_sum_exp"), "i32[4]")
    assert raised.value.code == "type.dtype"


# -- what is no kernel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function, types, words", [
    (before_and_after, ("f32[4, S]",), "are scanned from different ends, and rows of S elements are not held"),
    (before_and_after, ("f32[4, 8193]",), "are scanned from different ends, and rows of 8193 elements are not held"),
    (running, ("f32[S]",), "is scanned along one row alone, and rows of S elements are not held"),
    (running, ("f32[1, 10000]",), "is scanned along one row alone, and rows of 10000 elements are not held"),
])  # fmt: skip
def test_other_long_rows_are_calls(function: Callable[..., Any], types: tuple[str, ...], words: str) -> None:
    with pytest.raises(LegalityFailure) as raised:
        derive(body_of(trace(function, *types)))
    assert raised.value.rule == "F21" and words in raised.value.message


def test_a_stated_block_decides_whether_rows_are_held() -> None:
    """Rule F21 is about the schedule that is stated, not the one that rules would choose."""
    members = body_of(trace(before_and_after, "f32[4, 10000]"))
    kernel = derive(members, options=ScheduleOptions.of({"n": 16_384, "m": 1}))
    assert kernel.kind == "scan" and not kernel.looped
    short = body_of(trace(before_and_after, "f32[4, 100]"))
    assert not derive(short).looped
    for held in (short, body_of(trace(running, "f32[1, 100]"))):
        with pytest.raises(LegalityFailure, match="block of `n` is 64, and this kernel holds the 100") as raised:
            derive(held, options=ScheduleOptions.of({"n": 64}))
        assert raised.value.rule == "F15"
    assert derive(body_of(trace(running, "f32[4, 100]")), options=ScheduleOptions.of({"n": 64})).looped


def test_few_long_rows_are_reduced_by_more_programs() -> None:
    """A reduction of them is split, which one beside a scan cannot be."""
    def program(x: Value) -> Value:
        return running(ops.div(x, ops.reduce_max(x, axes=(1,), keep_dims=True)))

    assert kernels(fused(trace(program, "f32[4, 1000000]"))) == [["reduce_max"], ["div", "scan"]]
    assert kernels(fused(trace(program, "f32[4000, 10000]"))) == [["reduce_max", "div", "scan"]]


# -- sources and programs --------------------------------------------------------------------------------------


def test_the_source_reads_as_written_by_hand(tmp_path: Path, update: bool) -> None:
    module = in_blocks(lambda x: ops.exp(running(ops.neg(x), reverse=True)), "f32[B, S]")
    emit(module, tmp_path / "a")
    check_text(tmp_path / "a", "scan_loop", update)


def test_the_nest_says_from_where_a_loop_runs() -> None:
    lines = nest_text(derive(body_of(trace(lambda x: running(x, reverse=True), "f32[B, S]"))), "y")
    assert "  for blocks of n from the last:" in lines


COMPILED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "softmax": (lambda x: running(ops.softmax(x, axis=1)), ("bf16[512, 16384]",)),
    "all_kinds": (lambda x: all_kinds(x, 1, True), ("f32[512, 16384]",)),
    "columns": (lambda x: running(x, axis=0), ("f32[8192, 4096]",)),
    "bytes": (lambda x: running(x, "sum", exclusive=True), ("i8[512, 16384]",)),
    "f64": (lambda x: running(ops.exp(x), "prod", exclusive=True), ("f64[512, 16384]",)),
    "f16": (lambda x: running(x, "min", reverse=True), ("f16[512, 16384]",)),
    "logarithms": (lambda x: running(x, "log_sum_exp", exclusive=True), ("f32[512, 16384]",)),
    "logarithms of f64": (lambda x: running(x, "log_sum_exp", reverse=True), ("f64[512, 16384]",)),
    "logarithms of a row": (lambda x: running(x, "log_sum_exp"), ("bf16[512, 1024]",)),
    "logarithms and others": (lambda x: tuple(running(x, kind) for kind in ("log_sum_exp", "sum", "max")),
                              ("f32[512, 16384]",)),
    "all kinds": (lambda x: tuple(running(x, kind) for kind in (*KINDS, "log_sum_exp")), ("f64[512, 16384]",)),
    "eight": (lambda x: tuple(running(ops.mul(x, k), "max") for k in range(8)), ("i64[512, 16384]",)),
    "eight of a row": (lambda x: tuple(running(ops.mul(x, k), "max") for k in range(8)), ("i64[512, 512]",)),
    "all kinds of a row": (lambda x: tuple(running(x, kind) for kind in (*KINDS, "log_sum_exp")), ("f64[512, 512]",)),
    "eight columns": (lambda x: tuple(running(ops.mul(x, k), "max", axis=0) for k in range(8)), ("f64[5000, 512]",)),
    "columns of logarithms": (lambda x: (running(x, "log_sum_exp", axis=0), running(x, axis=0)),
                              ("f64[8192, 4096]",)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_loops_compile_without_spills(name: str, tmp_path: Path) -> None:
    function, types = COMPILED[name]
    emit(harness.kernelize(trace(function, *types)), tmp_path / "a")
    check_compiled(tmp_path / "a", None)


@pytest.mark.slow
def test_programs_of_pytorch() -> None:
    """Two scans of one long row, with what is computed before and after, are one launch."""

    class Envelope(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.abs(x)
            return torch.cumsum(y, dim=1) / torch.cummax(y, dim=1).values

    class Logarithms(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.logcumsumexp(10 * x, dim=1)

    x = torch.randn(3, 10_000, dtype=torch.float64)
    linear = irc.kernels(irc.from_torch(Logarithms(), (x,)))
    assert (linear.launches, linear.loaded_bytes) == (1, 2 * 8 * 3 * 10_000)
    torch.testing.assert_close(irc.compile(Logarithms(), (x,), backend="triton")(x), Logarithms()(x))
    for y in (x, x.float()):
        torch.testing.assert_close(irc.compile(Logarithms(), (y,), backend="onnx")(y), Logarithms()(y))
    report = irc.kernels(irc.from_torch(Envelope(), (x,)))
    assert (report.launches, report.library_calls, report.host_operations) == (1, 0, 0)
    assert report.distinct_bytes == report.loaded_bytes == 2 * 8 * 3 * 10_000
    torch.testing.assert_close(irc.compile(Envelope(), (x,), backend="triton")(x), Envelope()(x))
