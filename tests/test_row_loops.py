"""Kernels that loop over rows: each row is read at most twice, whatever is carried along it, and gives what it would
give in separate passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

import irc
from irc import interpreter, ops
from irc.backends.triton import emit
from irc.driver.models import Settings
from irc.group import Group
from irc.ir import Value
from irc.kernel import Accumulate, Kernel, Loop, count, derive
from irc.kernel.nest_text import nest_text
from irc.legality import legal
from irc.op import trace
from tests import triton_harness as harness
from tests.fusing import body_of
from tests.triton_cases import ROW_BOUNDS, check, check_compiled, check_text

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

ROW, BOTH = "T[B, S]", ("T[B, S]", "T[B, S]")
LENGTHS = (0, 1, 2, 17, 1000, 1023, 1024, 1025, 2500, 4097)


def high(x: Value) -> Value:
    return ops.reduce_max(x, axes=(-1,), keep_dims=True)


def total(x: Value) -> Value:
    return ops.reduce_sum(x, axes=(-1,), keep_dims=True)


def mean(x: Value) -> Value:
    return ops.reduce_mean(x, axes=(-1,), keep_dims=True)


def weights(x: Value) -> Value:
    return ops.exp(ops.sub(x, high(x)))


def masked(x: Value, mask: Value) -> Value:
    return ops.softmax(ops.select(mask, ops.mul(x, 0.125), -np.inf), axis=-1)


def finite(x: Value) -> Value:
    """The softmax of Flax: the maximum is subtracted where it is finite."""
    greatest = high(x)
    grown = ops.exp(ops.sub(x, ops.select(ops.less(ops.abs_(greatest), np.inf), greatest, 0.0)))
    return ops.div(grown, total(grown))


def where_masked(x: Value, mask: Value) -> Value:
    """The softmax of JAX with `where`: the sum is of what is selected."""
    x = ops.select(mask, x, -np.inf)
    grown = weights(x)
    return ops.select(mask, ops.div(grown, total(ops.select(mask, grown, 0.0))), 0.0)


def variance(x: Value) -> tuple[Value, Value]:
    distance = ops.sub(mean(x), x)
    return mean(ops.mul(distance, distance)), ops.exp(distance)


def moved(x: Value) -> Value:
    """The squares of distances from another point than the mean."""
    return total(ops.pow_(ops.sub(x, ops.mul(total(x), 1e-3)), 2.0))


def norm_and_softmax(x: Value) -> tuple[Value, Value]:
    return ops.layer_norm(x, None, None), ops.softmax(x, axis=-1)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "softmax": (lambda x: ops.softmax(x, axis=-1), (ROW,)),
    "log_softmax": (lambda x: ops.log_softmax(x, axis=-1), (ROW,)),
    "log_sum_exp": (lambda x: ops.log_sum_exp(x, axes=(1,)), (ROW,)),
    "finite": (finite, (ROW,)),
    "masked": (masked, (ROW, "bool[B, S]")),
    "where_masked": (where_masked, (ROW, "bool[B, S]")),
    "single_row": (lambda x: ops.softmax(x, axis=-1), ("T[S]",)),
    "middle_axis": (lambda x: ops.softmax(x, axis=1), ("T[B, S, 8]",)),
    "row_of_three": (lambda x: ops.softmax(x, axis=1), ("T[B, S, 3]",)),
    "sum_of_weights": (lambda x: ops.reduce_sum(weights(x), axes=(1,)), (ROW,)),
    "weighted": (lambda x, y: ops.reduce_sum(ops.neg(ops.mul(y, weights(x))), axes=(1,)), BOTH),
    "maximum_too": (lambda x: (ops.softmax(x, axis=-1), high(x)), (ROW,)),
    "backward": (lambda y, g: ops.mul(y, ops.sub(g, total(ops.mul(y, g)))), BOTH),
    "layer_norm": (lambda x, s, b: ops.layer_norm(x, s, b), (ROW, "T[S]", "T[S]")),
    "layer_norm_of_two": (lambda x: ops.layer_norm(x, None, None, axis=1), ("T[B, S, 3]",)),
    "rms_norm": (lambda x, s: ops.rms_norm(x, s), (ROW, "T[S]")),
    "instance_norm": (lambda x, s, b: ops.instance_norm(x, s, b), ("T[B, 2, S]", "T[2]", "T[2]")),
    "residual": (lambda x, y: ops.layer_norm(ops.add(x, y), None, None), BOTH),
    "variance": (variance, (ROW,)),
    "moved": (moved, (ROW,)),
    "norm_and_softmax": (norm_and_softmax, (ROW,)),
}  # fmt: skip


def typed(types: tuple[str, ...], dtype: str) -> list[str]:
    return [each.replace("T[", f"{dtype}[") for each in types]


def passes(kernel: Kernel) -> int:
    """How often the kernel reads a row."""
    return sum(isinstance(scope, Loop) for scope in kernel.schedule.nest)


def carries(kernel: Kernel) -> bool:
    loops = [scope for scope in kernel.schedule.nest if isinstance(scope, Loop)]
    return any(isinstance(scope, Accumulate) and scope.point is not None for loop in loops for scope in loop.body)


CASES = [*((name, dtype) for name in PROGRAMS for dtype in ("f32", "bf16")), ("softmax", "f64"), ("softmax", "f16"),
         ("layer_norm", "f64"), ("layer_norm", "f16")]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_rows_are_read_twice(name: str, dtype: str, tmp_path: Path) -> None:
    """At random sizes, with tiles as on a GPU, against f64; the bytes are those of the model."""
    program, types = PROGRAMS[name]
    module = trace(program, *typed(types, dtype))
    draw = random.Random(f"{name} {dtype}")
    for number in range(2):
        sizes = {"B": draw.choice([0, 1, 3]) if number else 3, "S": draw.choice(LENGTHS) if number else 2500}
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, seed=number, real_tiles=True)
        exact = interpreter.run(module, harness.random_inputs(module, sizes, number), precision="f64")
        for actual, expected in zip(run.outputs.values(), exact.values(), strict=True):
            assert harness.relative_error(actual, expected) <= ROW_BOUNDS[dtype], sizes
        check(run, np.inf)
        kernel = run.program.kernels[0].kernel
        assert kernel.looped and passes(kernel) <= 2


def with_equal_elements(name: str, place: int) -> irc.Module:
    """A program whose operand at this place is the same for all elements of a row."""
    program, types = PROGRAMS[name]

    def of_rows(*operands: Value) -> Any:
        expanded = [ops.expand(each, shape=(*each.shape[:1], operands[-1].shape[1], *each.shape[2:]))
                    if i == place else each for i, each in enumerate(operands[:-1])]  # fmt: skip
        return program(*expanded)

    narrow = [each.replace("T[B, S", "T[B, 1") if i == place else each for i, each in enumerate(types)]
    return trace(of_rows, *typed((*narrow, "T[1, S]"), "f32"))


OF_ROWS = [(name, place) for name, (_, types) in PROGRAMS.items() for place, each in enumerate(types)
           if each.startswith("T[B, S")]  # fmt: skip


@pytest.mark.parametrize(("name", "place"), OF_ROWS)
def test_rows_of_equal_elements(name: str, place: int, tmp_path: Path) -> None:
    """What does not vary along a row is computed outside of the loops over it. A norm divides by the root of 1e-5."""
    module = with_equal_elements(name, place)
    for number, sizes in enumerate(({"B": 3, "S": 2500}, {"B": 2, "S": 1}, {"B": 2, "S": 0})):
        run = harness.run(module, folder=tmp_path / str(number), sizes=sizes, seed=number, real_tiles=True)
        exact = interpreter.run(module, harness.random_inputs(module, sizes, number), precision="f64")
        for actual, expected in zip(run.outputs.values(), exact.values(), strict=True):
            assert np.allclose(actual, expected, rtol=1e-4, atol=1e-3, equal_nan=True), sizes
        check(run, np.inf)
        assert not run.program.rejected


def rows_with_special_elements(length: int) -> np.ndarray:
    x = np.random.default_rng(length).standard_normal((16, length)).astype(np.float32)
    x[1], x[2], x[3, -1], x[4, 0] = -np.inf, np.inf, np.inf, np.nan
    x[5, -1], x[6, : length // 2], x[7, length // 2 :], x[8, 1:] = np.nan, -np.inf, -np.inf, -np.inf
    x[9, :-1], x[10], x[11, 0], x[12] = -np.inf, 2.0**100, -np.inf, 1e4 + x[12]
    x[13], x[14, ::2], x[15, -1] = np.sort(x[13] * 40), 1e20, 3e38
    return x


@pytest.mark.parametrize("length", [70, 2500])
@pytest.mark.parametrize("name", [name for name, (_, types) in PROGRAMS.items() if types in ((ROW,), BOTH)])
def test_special_elements(name: str, length: int, tmp_path: Path) -> None:
    """Infinities and NaN where the separate passes have them, and no other row notices."""
    program, types = PROGRAMS[name]
    x = rows_with_special_elements(length)
    inputs = [x, np.roll(x, 3, axis=0)][: len(types)]
    run = harness.run(program, *typed(types, "f32"), folder=tmp_path / "a", inputs=inputs, real_tiles=True)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        for row in range(len(x)):
            error = harness.relative_error(actual[row], expected[row])
            assert error <= (2e-3 if row == 12 else 1e-5), row  # that the mean is rounded shows there


@pytest.mark.parametrize("program", [masked, where_masked])
@pytest.mark.parametrize("mask", ["none", "all", "late", "one"])
def test_masked_rows(mask: str, program: Callable[..., Any], tmp_path: Path) -> None:
    """A row of which all is masked is NaN, or 0, as the program says; one that begins with masked blocks is not."""
    x = np.random.default_rng(0).standard_normal((3, 2500)).astype(np.float32)
    visible = np.ones((3, 2500), bool)
    visible[1] = {"none": True, "all": False, "late": np.arange(2500) > 2100, "one": np.arange(2500) == 1500}[mask]
    run = harness.run(program, "f32[B, S]", "bool[B, S]", folder=tmp_path / "a", inputs=[x, visible], real_tiles=True)
    check(run, 1e-6)
    (actual,) = run.outputs.values()
    assert np.isnan(actual[1]).all() == (mask == "all" and program is masked) and np.isfinite(actual[[0, 2]]).all()


NEAR_MISSES: dict[str, Callable[[Value], Any]] = {
    "twice_the_exponent": lambda x: total(ops.exp(ops.mul(ops.sub(x, high(x)), 2.0))),
    "no_exponential": lambda x: total(ops.tanh(ops.sub(x, high(x)))),
    "squared": lambda x: total(ops.mul(weights(x), weights(x))),
    "more_than_a_multiple": lambda x: total(ops.add(weights(x), 1.0)),
    "divided_by": lambda x: total(ops.div(x, weights(x))),
    "another_maximum": lambda x: total(ops.exp(ops.sub(x, high(ops.neg(x))))),
    "other_elements_too": lambda x: total(ops.add(weights(x), ops.exp(ops.sub(ops.neg(x), high(x))))),
    "minimum": lambda x: total(ops.exp(ops.sub(x, ops.reduce_min(x, axes=(-1,), keep_dims=True)))),
    "moved_maximum": lambda x: total(ops.exp(ops.sub(x, ops.select(ops.greater(high(x), -5.0), high(x), 0.0)))),
    "maximum_of_weights": lambda x: high(weights(x)),
    "hides_nan": lambda x: total(ops.select(ops.less(x, 0.0), weights(x), 0.0)),
    "cubes": lambda x: total(ops.pow_(ops.sub(x, mean(x)), 3.0)),
    "mean_of_others": lambda x: total(ops.pow_(ops.sub(x, mean(ops.exp(x))), 2.0)),
    "product_with_distance": lambda x: total(ops.mul(ops.sub(x, mean(x)), x)),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_read_again(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((3, 2500)).astype(np.float32)
    run = harness.run(NEAR_MISSES[name], "f32[B, S]", folder=tmp_path / "a", inputs=[x], real_tiles=True)
    check(run, 1e-5)
    kernel = run.program.kernels[0].kernel
    assert passes(kernel) == 2 and not carries(kernel) and kernel.numerics == "exact"


def test_levels_of_carried_reductions(tmp_path: Path) -> None:
    """A softmax of what is normalized reads a row three times: for the norm, for the softmax, and to write."""
    def program(x: Value) -> Value:
        return ops.softmax(ops.layer_norm(x, None, None), axis=-1)

    x = np.random.default_rng(2).standard_normal((3, 2500)).astype(np.float32)
    run = harness.run(program, "f32[B, S]", folder=tmp_path / "a", inputs=[x], real_tiles=True)
    check(run, 1e-6)
    assert passes(run.program.kernels[0].kernel) == 3


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_variances_do_not_cancel(offset: float, tmp_path: Path) -> None:
    """The error is that of two passes: of the mean, which f32 rounds."""
    x = (np.random.default_rng(3).standard_normal((3, 20_000)) + offset).astype(np.float32)
    run = harness.run(lambda x: ops.layer_norm(x, None, None), "f32[B, S]", folder=tmp_path / "a", inputs=[x])
    exact = (x - x.mean(1, keepdims=True, dtype=np.float64)) / x.std(1, keepdims=True, dtype=np.float64)
    (actual,) = run.outputs.values()
    assert harness.relative_error(actual, exact) <= 1e-5 + 1e-7 * offset

def drawn(draw: random.Random) -> Callable[[Value, Value], tuple[Value, ...]]:
    """A program of a few reductions along rows, and what is computed of them for each element."""
    def program(x: Value, y: Value) -> tuple[Value, ...]:
        pool, results = [x, y], []
        rows = [high, total, mean, lambda a: ops.log_sum_exp(a, axes=(1,), keep_dims=True)]
        elements = [lambda a: ops.softmax(a, axis=1), lambda a: ops.log_softmax(a, axis=1), weights, ops.tanh, ops.neg,
                    finite, lambda a: ops.layer_norm(a, None, None), lambda a: ops.mul(ops.sub(a, mean(a)), 0.5)]
        for _ in range(draw.randrange(3, 8)):
            a, b = draw.choice(pool[-3:]), draw.choice(pool)
            kind = draw.randrange(5)
            if kind == 0:
                results.append(draw.choice(rows)(a))
                pool.append(ops.tanh(ops.sub(b, results[-1])))
            elif kind == 1:
                pool.append(draw.choice([ops.add, ops.sub, ops.mul])(a, b))
            elif kind == 2:
                results.append(total(ops.mul(b, draw.choice([weights, lambda a: ops.softmax(a, axis=1)])(a))))
            else:
                pool.append(draw.choice(elements)(a))
        return (*results[-2:], *pool[-2:])

    return program


SEEDS = [*range(16), *(pytest.param(number, marks=pytest.mark.slow) for number in range(16, 200))]


@pytest.mark.parametrize("number", SEEDS)
def test_drawn_programs(number: int, tmp_path: Path) -> None:
    """The error is a few times that of the interpreter, which rounds as the program says."""
    draw = random.Random(number)
    module = trace(drawn(draw), "f32[B, S]", "f32[B, S]")
    if legal(Group(body_of(module))) is not None:
        return  # more than a kernel computes
    inputs = harness.random_inputs(module, {"B": 3, "S": draw.choice([1, 17, 1025, 2500])}, number)
    run = harness.run(module, folder=tmp_path / "a", inputs=inputs, real_tiles=True)
    exact = interpreter.run(module, inputs, precision="f64")
    assert not run.program.rejected
    for actual, near, expected in zip(run.outputs.values(), run.expected.values(), exact.values(), strict=True):
        size = max(1.0, float(np.abs(expected).max()))
        assert np.abs(actual - expected).max() <= 8 * np.abs(near - expected).max() + 2e-6 * size
    check(run, np.inf)


def test_rows_that_fit_in_registers_carry_nothing() -> None:
    for types in (("f32[B, 8192]",), ("f32[9, 16384]",)):
        kernel = derive(body_of(trace(lambda x: ops.softmax(x, axis=-1), *types)))
        assert not kernel.looped and kernel.numerics == "exact"


def test_bytes_of_carried_rows() -> None:
    """Two reads and one write; also of what is computed before the rows are."""
    for program in (PROGRAMS["softmax"], PROGRAMS["layer_norm_of_two"], PROGRAMS["log_softmax"]):
        module = trace(program[0], *typed(program[1], "f16"))
        kernel = derive(body_of(module))
        sizes = {symbol: size for symbol, size in zip(sorted(module.main.arguments[0].type.symbols(), key=str),
                                                      (8, 3000), strict=True)}  # fmt: skip
        cost = count(kernel, sizes)
        assert 2 * cost.loaded_bytes == 3 * cost.distinct_bytes and cost.exact


def test_exact_numerics_take_no_carried_rows() -> None:
    """Each term is rescaled, which rounds again."""
    module = trace(lambda x: ops.softmax(x, axis=-1), "f32[B, S]")
    for numerics, expected in (("exact", False), ("keeps_more_precision", True)):
        fused = irc.opt(module, "default", settings=Settings(numerics=numerics), backend="triton")  # type: ignore[arg-type]
        assert any(operation.name == "kernel" for operation in fused.main.block) == expected


def test_the_nest_says_what_is_carried() -> None:
    lines = nest_text(derive(body_of(trace(norm_and_softmax, "f32[B, S]"))), "both")
    assert [line.strip() for line in lines if "accumulate" in line or "carry" in line] == [
        "accumulate %0 = sum %x over s",
        "accumulate %0#1 = squared distances of %x over s with %0",
        "carry %0#2 = max %x over s",
        "accumulate %3 = sum %2 over s with %0#2",
    ]


QUICK = ("norm_and_softmax",)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_compiled(name: str, tmp_path: Path) -> None:
    program, types = PROGRAMS[name]
    emit(harness.kernelize(trace(program, *typed(types, "bf16"))), tmp_path / "a")
    check_compiled(tmp_path / "a", None)


@pytest.mark.parametrize("name", ["layer_norm"])
def test_text(name: str, tmp_path: Path, update: bool) -> None:
    program, types = PROGRAMS[name]
    emit(harness.kernelize(trace(program, *typed(types, "f32")), f"{name}_looped"), tmp_path / "a")
    check_text(tmp_path / "a", f"{name}_looped", update)
