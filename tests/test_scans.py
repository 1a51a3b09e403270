"""Scans in kernels: running sums, products and extrema along rows; `test_scan_loops` has those that are not held."""

from __future__ import annotations

import itertools
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
from irc.dtypes import F32, I64
from irc.ir import Value
from irc.kernel import LegalityFailure, derive
from irc.kernel.nest_text import nest_text
from irc.op import const, trace
from irc.schedule_options import ScheduleOptions
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.fusing import body_of, fused, kernels
from tests.triton_cases import ROW_BOUNDS, check, check_compiled, check_one_launch, check_text

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

KINDS = ("sum", "prod", "max", "min")
FLAGS = tuple(itertools.product((False, True), repeat=2))  # reverse, exclusive


def running(x: Value, kind: Any = "sum", axis: int = -1, **flags: Any) -> Value:
    return ops.scan(x, kind=kind, axis=axis, **flags)


def by_torch(x: torch.Tensor, kind: str, axis: int, reverse: bool, exclusive: bool) -> torch.Tensor:
    """What PyTorch computes in f64, or in the type of integers; the first exclusive element is the identity."""
    wide = x.double() if x.is_floating_point() else x
    wide = wide.flip(axis) if reverse else wide
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "sum": lambda v: v.cumsum(axis, dtype=v.dtype), "prod": lambda v: v.cumprod(axis, dtype=v.dtype),
        "max": lambda v: v.cummax(axis).values, "min": lambda v: v.cummin(axis).values,
        "log_sum_exp": lambda v: v.logcumsumexp(axis),
    }  # fmt: skip
    done = functions[kind](wide)
    if exclusive:
        info = torch.finfo(wide.dtype) if wide.is_floating_point() else torch.iinfo(wide.dtype)
        ends = (-np.inf, np.inf) if wide.is_floating_point() else (info.min, info.max)
        first = {"sum": 0, "prod": 1, "max": ends[0], "min": ends[1], "log_sum_exp": ends[0]}[kind]
        done = torch.cat([torch.full_like(done.narrow(axis, 0, 1), first), done.narrow(axis, 0, done.shape[axis] - 1)],
                         axis)  # fmt: skip
    return done.flip(axis) if reverse else done


@pytest.mark.parametrize("reverse, exclusive", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, axis", [("f32", 1), ("f64", 0), ("f16", 1), ("bf16", 2), ("i64", 1), ("i32", 0),
                                         ("i8", 2), ("u8", 1), ("i16", 2)])  # fmt: skip
def test_scans_are_pytorchs(dtype: str, axis: int, kind: str, reverse: bool, exclusive: bool, tmp_path: Path) -> None:
    """Integers wrap around; elements are read and stored once."""
    flags = {"reverse": reverse, "exclusive": exclusive}
    module = trace(lambda x: running(x, kind, axis, **flags), f"{dtype}[2, 5, 7]")
    type_ = module.main.arguments[0].dtype.numpy
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 5, 7)) if dtype in ROW_BOUNDS else random.integers(-100, 100, (2, 5, 7))
    run = harness.run(module, folder=tmp_path / "a", inputs=[x.astype(type_)])
    check_one_launch(run, ROW_BOUNDS.get(dtype, 0.0))
    (actual,) = run.outputs.values()
    known = torch.from_numpy(x.astype(type_).astype(np.float64) if dtype in ROW_BOUNDS else x.astype(type_))
    expected = by_torch(known, kind, axis, reverse, exclusive).numpy()
    assert harness.relative_error(actual, expected) <= ROW_BOUNDS.get(dtype, 0.0)
    (launch,) = run.launches
    assert launch.counted == 2 * x.size * actual.dtype.itemsize


def positions(mask: Value) -> Value:
    """The positions of tokens that are no padding, as in RoBERTa and OPT."""
    ones = ops.cast(mask, to=I64)
    return ops.add(ops.mul(running(ones), ones), 1)


def nucleus(logits: Value) -> Value:
    """Which of sorted probabilities are among the first that add up to 0.9."""
    weights = ops.softmax(logits, axis=-1)
    return ops.select(ops.less(running(weights, exclusive=True), 0.9), weights, 0.0)


def log_cumulative(x: Value) -> Value:
    highest = ops.reduce_max(x, axes=(-1,), keep_dims=True)
    return ops.add(ops.log(running(ops.exp(ops.sub(x, highest)))), highest)


def before_and_after(x: Value) -> tuple[Value, ...]:
    return ops.sub(running(x), running(x, reverse=True, exclusive=True)), running(x, "max")


def of_a_scan(x: Value) -> Value:
    return running(ops.mul(running(x, "max"), 2.0), "sum", reverse=True)


def normalized(x: Value) -> Value:
    """What is scanned is divided by its own sum."""
    sums = running(ops.exp(x))
    return ops.div(sums, ops.reduce_max(sums, axes=(-1,), keep_dims=True))


def last(x: Value) -> tuple[Value, Value]:
    sums = running(ops.abs_(x))
    return ops.argmax(sums, axis=-1), ops.reduce_sum(sums, axes=(-1,))


def counted(x: Value) -> Value:
    """A scan of what does not vary along it."""
    seven = const(value=Tensor.of(np.array(7), I64))
    return ops.mul(running(ops.expand(seven, shape=x.shape)), ops.cast(x, to=I64))


def of_a_slice(x: Value) -> Value:
    return ops.exp(running(ops.slice_(x, starts=(0, 2), stops=(4, 11), steps=(1, 1))))


def slice_of(x: Value) -> Value:
    return ops.slice_(running(ops.exp(x)), starts=(0, 3), stops=(4, 13), steps=(1, 1))


def padded(x: Value) -> Value:
    return running(ops.pad(x, 1.0, low=(0, 2), high=(0, 3)), "prod")


def with_zero_before(x: Value) -> Value:
    return ops.pad(running(x), 0.0, low=(0, 1), high=(0, 0))


def turned(x: Value) -> Value:
    return ops.transpose(running(ops.transpose(x, permutation=(1, 0)), axis=0), permutation=(1, 0))


def along_both_axes(x: Value) -> Value:
    """Of a square, of which one is read transposed: both are along the same axis of the result."""
    return ops.add(running(x, axis=0), ops.transpose(running(x, axis=1), permutation=(1, 0)))


def from_the_end(x: Value) -> Value:
    return ops.reverse(running(ops.reverse(x, axes=(1,))), axes=(1,))


def flattened(x: Value) -> Value:
    rows, columns = x.shape
    return ops.reshape(running(ops.reshape(x, shape=(rows * columns,)), axis=0), shape=(rows, columns))


def guarded(x: Value) -> tuple[Value, ...]:
    """Scans of a part of the rows, beside what is computed of all elements."""
    part = ops.slice_(x, starts=(1, 2), stops=(4, 11), steps=(1, 1))
    return ops.exp(x), running(ops.exp(part)), running(part, "max", reverse=True), running(part, "min", exclusive=True)


def picked(mask: Value, table: Value) -> Value:
    """Elements of a table at positions that a scan gives."""
    return ops.gather(table, positions(mask), axis=0)


def counted_down(x: Value, y: Value) -> Value:
    """A mask of the elements before the first that is too large, beside other rows."""
    seen = running(ops.cast(ops.greater(x, 1.0), to=I64), "max")
    return ops.select(ops.equal(seen, 0), ops.add(x, y), 0.0)


def wrapped(x: Value) -> tuple[Value, ...]:
    """Bytes that wrap around in registers, as in memory."""
    large = ops.mul(x, 77)
    return tuple(ops.cast(running(large, kind, **flags), to=I64)
                 for kind in ("sum", "prod") for flags in ({}, {"exclusive": True}))  # fmt: skip


def of_rows_by_index(x: Value) -> Value:
    return running(ops.mul(x, ops.cast(ops.iota(shape=x.shape, axis=1, dtype=I64), to=F32)))


PROGRAMS: dict[str, tuple[Callable[..., Any], *tuple[str, ...]]] = {
    "positions": (positions, "bool[4, 13]"), "nucleus": (nucleus, "f32[4, 13]"),
    "log_cumulative": (log_cumulative, "f32[4, 13]"), "before_and_after": (before_and_after, "f32[4, 13]"),
    "of_a_scan": (of_a_scan, "f16[4, 13]"), "normalized": (normalized, "f32[4, 13]"), "last": (last, "f32[4, 13]"),
    "counted": (counted, "f32[13]"), "of_a_slice": (of_a_slice, "f16[4, 13]"), "slice_of": (slice_of, "f32[4, 13]"),
    "padded": (padded, "f32[4, 13]"), "with_zero_before": (with_zero_before, "f32[4, 13]"),
    "from_the_end": (from_the_end, "f32[4, 13]"), "turned": (turned, "bf16[4, 13]"),
    "flattened": (flattened, "f32[4, 13]"), "guarded": (guarded, "f32[5, 13]"),
    "picked": (picked, "bool[2, 7]", "f32[9]"), "counted_down": (counted_down, "f32[4, 13]", "f32[4, 1]"),
    "of_rows_by_index": (of_rows_by_index, "f32[4, 13]"), "along_both_axes": (along_both_axes, "f32[13, 13]"),
    "wrapped": (wrapped, "i8[4, 13]"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_computed_before_and_after_is_in_the_kernel(name: str, tmp_path: Path) -> None:
    function, *types = PROGRAMS[name]
    run = harness.run(function, *types, folder=tmp_path / "a")
    check(run, max(ROW_BOUNDS.get(type_.partition("[")[0], 0.0) for type_ in types))
    assert len(run.launches) == 1


@pytest.mark.parametrize("rows, columns", [(3, 0), (0, 5), (3, 1), (1, 17), (2, 100), (5, 257)])
@pytest.mark.parametrize("name", ["nucleus", "before_and_after", "normalized"])
def test_sizes_that_are_known_when_it_runs(name: str, rows: int, columns: int, tmp_path: Path) -> None:
    run = harness.run(PROGRAMS[name][0], "f32[B, ?S in (0, 8192)]", folder=tmp_path / "a",
                      sizes={"B": rows, "S": columns})  # fmt: skip
    check_one_launch(run, ROW_BOUNDS["f32"])


@pytest.mark.parametrize("reverse, exclusive", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_edges(dtype: str, kind: str, reverse: bool, exclusive: bool, tmp_path: Path) -> None:
    """From the first NaN on every element is NaN; a sum of -0 alone is 0."""
    rows = [[1, np.nan, 3, -np.inf, 2], [np.inf, 1, -np.inf, 0, 4], [-0.0, -0.0, -0.0, -1, -0.0],
            [-np.inf, -np.inf, np.inf, 5, np.nan], [0.0, -0.0, np.inf, 2, -0.0]]  # fmt: skip
    module = trace(lambda x: running(x, kind, reverse=reverse, exclusive=exclusive), f"{dtype}[5, 5]")
    x = np.array(rows).astype(module.main.arguments[0].dtype.numpy)
    run = harness.run(module, folder=tmp_path / "a", inputs=[x])
    (actual,) = (output.astype(np.float64) for output in run.outputs.values())
    expected = by_torch(torch.from_numpy(x.astype(np.float64)), kind, 1, reverse, exclusive).numpy()
    np.testing.assert_array_equal(actual, expected)
    if kind in ("sum", "prod"):  # which zero a maximum gives is open
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


# -- what is no kernel -------------------------------------------------------------------------------------------


def several_of_a_row(x: Value) -> Value:
    return ops.add(running(x, exclusive=True), ops.add(running(x, "max"), running(x, "min")))


def with_shifted_read(x: Value) -> Value:
    """Each element less the sum of those before it: an exclusive scan written otherwise."""
    before = ops.slice_(running(x), starts=(0, 0), stops=(4, 8), steps=(1, 1))
    return ops.sub(x, ops.pad(before, 0.0, low=(0, 1), high=(0, 0)))


REJECTED: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "a shifted read": (with_shifted_read, ("f32[4, 9]",), "is a scan, and no axis"),
    "a flipped read": (lambda x: ops.add(running(x), ops.reverse(running(x, "max"), axes=(1,))),
                       ("f32[4, 9]",), "is a scan, and no axis"),
    "a gather of columns": (lambda x, i: ops.gather(running(x), i, axis=1), ("f32[4, 9]", "i64[5]"),
                            "is a scan, and no axis"),
    "another axis": (lambda x: running(running(x, axis=1), axis=0), ("f32[4, 9]",), "and the kernel has another row"),
    "beside a reduction across": (lambda x: ops.add(running(x, axis=1), ops.reduce_sum(x, axes=(0,), keep_dims=True)),
                                  ("f32[4, 9]",), "and the kernel has another row"),
    "before a product": (lambda x, y: ops.matmul(running(x), y), ("f32[16, 32]", "f32[32, 16]"), "and %1 a product"),
    "after a product": (lambda x, y: running(ops.matmul(x, y)), ("f32[16, 32]", "f32[32, 16]"), "and %0 a product"),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_other_scans_are_calls(name: str) -> None:
    function, types, words = REJECTED[name]
    with pytest.raises(LegalityFailure) as raised:
        derive(body_of(trace(function, *types)))
    assert raised.value.rule == "F21" and raised.value.code == "fuse.scan" and words in raised.value.message


def test_a_scan_is_computed_once() -> None:
    module = trace(lambda x, y: ops.mul(running(x), y), "f32[9]", "f32[4, 9]")
    with pytest.raises(LegalityFailure, match="would be scanned again at each of 4 points") as raised:
        derive(body_of(module))
    assert raised.value.rule == "F10"


@pytest.mark.parametrize("stated, words", [
    ({"split": 2}, "a kernel that scans rows needs them in order"), ({"part": 50}, "a kernel that scans rows needs"),
])  # fmt: skip
def test_schedules_do_not_divide_rows(stated: dict[str, int], words: str) -> None:
    with pytest.raises(LegalityFailure, match=words) as raised:
        derive(body_of(trace(running, "f32[4, 100]")), options=ScheduleOptions.of(stated))
    assert raised.value.rule == "F15"
    kernel = derive(body_of(trace(running, "f32[4, 100]")), options=ScheduleOptions.of({"m": 2, "n": 128, "warps": 2}))
    assert kernel.kind == "scan" and kernel.schedule.warps == 2 and not kernel.looped


# -- sources and programs --------------------------------------------------------------------------------------


def test_the_source_reads_as_written_by_hand(tmp_path: Path, update: bool) -> None:
    module = harness.kernelize(trace(nucleus, "f32[B, 1000]"), "nucleus")
    emit(module, tmp_path / "a")
    check_text(tmp_path / "a", "nucleus", update)


def test_the_nest_says_what_is_scanned() -> None:
    kernel = derive(body_of(trace(lambda x: running(x, "max", reverse=True, exclusive=True), "f32[4, 100]")))
    assert any("scan exclusive max %x along j from the end" in line for line in nest_text(kernel, "y"))


COMPILED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "softmax": (lambda x: running(ops.softmax(x, axis=1)), ("bf16[512, 8192]",)),
    "exclusive": (lambda x: running(x, "max", exclusive=True, reverse=True), ("i64[512, 8192]",)),
    "several": (several_of_a_row, ("f32[512, 8192]",)),
    "columns": (lambda x: running(x, axis=0), ("f32[1024, 4096]",)),
    "bytes": (lambda x: running(x, "sum"), ("i8[512, 512]",)),
    "prod": (lambda x: running(x, "prod"), ("i32[512, 8192]",)),
    "min": (lambda x: running(x, "min", reverse=True), ("f16[512, 4096]",)),
    "f64": (lambda x: running(ops.exp(x), "prod", exclusive=True), ("f64[512, 4096]",)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_scans_compile_without_spills(name: str, tmp_path: Path) -> None:
    function, types = COMPILED[name]
    emit(harness.kernelize(trace(function, *types)), tmp_path / "a")
    check_compiled(tmp_path / "a", None)


def test_a_long_row_alone_stays_a_call() -> None:
    assert kernels(fused(trace(lambda x: ops.exp(running(ops.neg(x))), "f32[1, 10000]"))) == [["neg"], ["exp"]]
    assert kernels(fused(trace(lambda x: ops.exp(running(ops.neg(x))), "f32[4, 10000]"))) == [["neg", "scan", "exp"]]
    assert kernels(fused(trace(lambda x: ops.exp(running(ops.neg(x))), "f32[4, 1000]"))) == [["neg", "scan", "exp"]]


def test_programs_of_pytorch() -> None:
    """Positions of tokens, from a mask, are one launch."""

    class Positions(torch.nn.Module):
        def forward(self, mask: torch.Tensor) -> torch.Tensor:
            return (torch.cumsum(mask, dim=1) * mask).long() + 1

    mask = (torch.arange(4 * 33).reshape(4, 33) % 5 > 1).long()
    report = irc.kernels(irc.from_torch(Positions(), (mask,)))
    assert (report.launches, report.library_calls, report.host_operations) == (1, 0, 0)
    assert report.distinct_bytes == report.loaded_bytes == 2 * 8 * 4 * 33
    torch.testing.assert_close(irc.compile(Positions(), (mask,), backend="triton")(mask), Positions()(mask))


def test_sums_and_products_of_pytorch_may_leave_the_range_of_f32(tmp_path: Path) -> None:
    """And come back into it, since PyTorch adds up and multiplies f32 in f64 on a processor: in a kernel, too."""

    class Totals(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.cumsum(1), x.cumprod(1)

    x = torch.tensor([[3e38, 3e38, -3e38, 2.0], [1e30, 1e30, 1e-30, 1e-30], [1e-30, 1e-30, 1e30, 1e30]])
    run = harness.run(irc.from_torch(Totals(), (x,)), folder=tmp_path / "a", inputs=[x.numpy()])
    assert len(run.launches) == 1 and not run.program.rejected
    for actual, expected in zip(run.outputs.values(), Totals()(x), strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-6)
