"""No pass and no kernel changes a meaning; index arithmetic in kernels; long graphs; determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import block
from irc import dtypes, interpreter, ops
from irc.driver.optimizing import opt
from irc.driver.pipelines import parse_pipeline
from irc.ir import Operation, Value
from irc.kernel import count, derive, kernel_of
from irc.module import Module, difference
from irc.op import const, trace
from irc.parser import parse
from irc.pass_manager import PassContext, PassManager
from irc.verifier import verify
from irc.weights import Tensor
from tests.fusing import ROOT, body_of, check_group, check_kernels, fused, kernels, same_results
from tests.fuzz.triton_path import Artefact, merged
from tests.models import model_path
from tests.programs import arrays, programs
from tests.strategies import modules

JOINS: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
    (lambda x, y: ops.exp(ops.concat(x, y, x, axis=1)), ("f64[3, 7]", "f64[3, 9]")),
    (lambda x, y: ops.concat(ops.exp(x), ops.neg(y), axis=0), ("f64[B, 4]", "f64[S, 4]")),
    (lambda x, y: ops.mul(ops.concat(*ops.split(x, axis=0, sizes=(2, 0, 3)), axis=0), y), ("f64[5]", "f64[]")),
    (lambda x, y: ops.reduce_sum(ops.concat(x, y, axis=1), axes=(1,)), ("f64[3, 5]", "f64[3, 2]")),
]


@pytest.mark.parametrize("program, types", JOINS)
def test_pieces_are_joined_by_index_arithmetic(program: Callable[..., Any], types: tuple[str, ...]) -> None:
    module = trace(program, *types)
    assert len(kernels(fused(module))) == 1
    check_kernels(module, "greedy", arrays(module))


# -- what went wrong once ----------------------------------------------------------------------------------------

def test_repeated_elements_are_no_points() -> None:
    """An edge pad reads an element several times: its operand must not take the pad's axis for its own."""

    def program(x: Value) -> tuple[Value, ...]:
        y = ops.abs_(x)
        padded = ops.pad(y, low=(0,), high=(1,), mode="edge")
        return ops.reduce_mean(y, axes=(0,)), padded

    module = trace(program, "f64[6]")
    check_kernels(module, "greedy", {"x": np.arange(-3.0, 3.0)})


SPREAD: list[Callable[[Value], Value]] = [
    lambda y: ops.reduce_sum(ops.expand(y, shape=(2, 4, 6)), axes=(0, 1, 2)),
    lambda y: ops.reduce_sum(ops.reshape(ops.expand(y, shape=(2, 4, 6)), shape=(48,)), axes=(0,)),
    lambda y: ops.neg(ops.reshape(ops.expand(y, shape=(2, 4, 6)), shape=(48,))),
    lambda y: ops.neg(ops.expand(y, shape=(2, 4, 6))),
]


@pytest.mark.parametrize("use", SPREAD)
def test_what_is_spread_is_stored_once(use: Callable[[Value], Value]) -> None:
    """An operand that is repeated along an axis of its kernel is stored at one point of that axis."""
    module = trace(lambda x: (y := ops.exp(x), use(y)), "f64[4, 6]")
    check_kernels(module, "greedy", arrays(module))


def test_a_reduction_of_every_other_row_knows_which_rows() -> None:
    """Its result has a point at half of the rows only, and what reads it elsewhere computes it again or apart."""

    def program(x: Value) -> tuple[Value, ...]:
        whole = ops.exp(x)
        rows = ops.slice_(whole, starts=(1, 0), stops=(6, 6), steps=(2, 1))
        totals = ops.reduce_sum(rows, axes=(1,), keep_dims=True)
        return whole, ops.neg(rows), totals, ops.sub(rows, totals)

    module = trace(program, "f64[6, 6]")
    check_kernels(module, "greedy", arrays(module))


HALVES: list[Callable[..., Any]] = [
    lambda x: ops.concat(ops.softmax(x, axis=0), x, axis=0),
    lambda x: ops.concat(x, ops.softmax(x, axis=0), axis=0),
    lambda x: (t := ops.reduce_sum(x, axes=(0,), keep_dims=True), ops.concat(ops.neg(x), ops.mul(x, t), axis=0)),
    lambda x: ops.pad(ops.sub(x, ops.reduce_max(x, axes=(0,), keep_dims=True)), 0.5, low=(2, 0), high=(1, 0)),
    lambda x: ops.div(ops.slice_(x, starts=(0, 0), stops=(2, 6), steps=(1, 1)), ops.reduce_sum(x, axes=(0,))),
]


@pytest.mark.parametrize("program", HALVES)
def test_a_reduction_sees_its_axis_whole(program: Callable[..., Any]) -> None:
    """What holds where its result is read, in a half of a concatenation, does not hold all along the reduced axis."""
    module = trace(program, "f64[B, 6]" if program is not HALVES[4] else "f64[4, 6]")
    check_kernels(module, "greedy", arrays(module))
    module = trace(program, "f64[4, 6]")
    check_group(module, body_of(module))


def test_fold_does_not_blow_weights_up() -> None:
    table = Tensor.of(np.ones((100, 100), np.int8), dtypes.I8).renamed("weight")
    module = trace(lambda x: ops.add(x, ops.cast(const(value=table), to=dtypes.F32)), "f32[100, 100]")
    PassManager(parse_pipeline("fold")).run(module)
    assert [operation.name for operation in module.main.block] == ["const", "cast", "add", "return"]
    PassManager(parse_pipeline("fold{cap=40000}")).run(module)
    assert [operation.name for operation in module.main.block] == ["const", "add", "return"]


def test_fold_copies_views_where_that_is_asked_for() -> None:
    """Only where the copies take the place of the constant."""
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    table = Tensor.of(values, dtypes.F32).renamed("weight")

    def program(x: Value, *, also: bool) -> tuple[Value, ...]:
        weight = const(value=table)
        upper = ops.lookup("slice")(weight, starts=(0, 0), stops=(50, 100), steps=(1, 1))
        lower = ops.lookup("slice")(weight, starts=(50, 0), stops=(100, 100), steps=(1, 1))
        turned = (ops.neg(ops.transpose(weight, permutation=(1, 0))),) if also else ()
        return ops.matmul(x, upper), ops.matmul(x, lower), *turned

    for also, pipeline in ((False, "fold"), (False, "fold{views}"), (True, "fold{views}")):
        module = trace(partial(program, also=also), "f32[8, 50]")
        PassManager(parse_pipeline(pipeline)).run(module)
        names = [operation.attributes["value"].name for operation in module.main.block if operation.name == "const"]
        assert names == (["weight.slice", "weight.slice.1"] if pipeline == "fold{views}" and not also else ["weight"])
        x = np.ones((8, 50), np.float32)
        first, second, *_ = interpreter.run(module, {"x": x}).values()
        np.testing.assert_array_equal(first, x @ values[:50])
        np.testing.assert_array_equal(second, x @ values[50:])


# -- braces ----------------------------------------------------------------------------------------------------

EXACT = ("canonicalize", "fold", "fold{views}", "cse", "dce", "legalize", "fuse", "fuse{policy=none}")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@QUICK
@given(programs(), st.lists(st.sampled_from(EXACT), min_size=1, max_size=4))
def test_exact_passes_change_no_bit(module: Module, pipeline: list[str]) -> None:
    inputs = arrays(module)
    expected = interpreter.run(module, inputs)

    def compare(stage: str, current: Module) -> None:
        verify(current)
        actual = interpreter.run(current, inputs)
        for value, reference in zip(actual.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(value, reference, err_msg=stage)

    PassManager(parse_pipeline(",".join(pipeline)), PassContext(numerics="exact"), observe=compare).run(module)


@QUICK
@given(programs(), st.lists(st.sampled_from([*EXACT, "raise", "raise"]), min_size=2, max_size=5))
def test_other_passes_change_no_more_than_they_say(module: Module, pipeline: list[str]) -> None:
    inputs = arrays(module)
    expected = interpreter.run(module, inputs)

    def compare(stage: str, current: Module) -> None:
        verify(current)
        actual = interpreter.run(current, inputs)
        for value, reference in zip(actual.values(), expected.values(), strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-7, atol=1e-9, err_msg=stage)

    PassManager(parse_pipeline(",".join(pipeline)), PassContext(numerics="reassociates"), observe=compare).run(module)


@QUICK
@given(programs(), st.sampled_from(["greedy", "none"]))
def test_kernels_compute_what_they_enclose(module: Module, name: str) -> None:
    check_kernels(module, name, arrays(module))


@settings(QUICK, max_examples=100)
@given(programs(), st.integers(0, 20), st.integers(2, 20), st.booleans())
def test_any_group_that_is_a_kernel_is_right(module: Module, start: int, length: int, expanded: bool) -> None:
    """Neighbors in a block, whether or not a policy would put them together; with bodies in place as well."""
    PassManager(parse_pipeline("legalize,cse" if expanded else "cse")).run(module)
    members = body_of(module)
    start = min(start, len(members) - 1)
    check_group(module, members[start : start + length])


@settings(QUICK, max_examples=40)
@given(modules(), st.lists(st.sampled_from(["canonicalize", "fold", "cse", "dce", "legalize", "fuse"]), max_size=3))
def test_passes_leave_odd_modules_well_formed(module: Module, pipeline: list[str]) -> None:
    verify(module)
    if pipeline:
        PassManager(parse_pipeline(",".join(pipeline)), verify_each=True).run(module)
    assert difference(parse(str(module)), module) is None


# -- what holds of softmax, under the interpreter of Triton ----------------------------------------------------

@pytest.mark.parametrize("columns", [1, 2, 63, 1000, 8192])
def test_a_fused_softmax_loads_each_element_once(columns: int) -> None:
    module = trace(lambda x: ops.softmax(ops.mul(x, 0.125), axis=-1), "f32[M, ?N in (1, 8192)]")
    module = fused(module)
    (kernel,) = (kernel_of(operation) for operation in module.main.block if operation.name == "kernel")
    sizes = {symbol: {"M": 37, "N": columns}[symbol.name] for symbol in module.main.symbols.values()}
    bytes_ = count(kernel, sizes)
    assert bytes_.loaded_bytes == bytes_.distinct_bytes == 2 * 4 * 37 * columns
    longer = trace(lambda x: ops.softmax(x, axis=-1), "f32[M, N]")
    (kernel,) = (kernel_of(operation) for operation in fused(longer).main.block if operation.name == "kernel")
    hundred = dict.fromkeys(kernel.outputs[0].type.symbols(), 100)
    assert kernel.looped and count(kernel, hundred).loaded_bytes > 2 * 4 * 100 * 100


@pytest.mark.parametrize("columns", [1, 100])
def test_the_planned_softmax_runs_right(columns: int, tmp_path: Path) -> None:
    """As the planner makes it of examples/block.py, with rows of -inf and NaN; the bytes are those predicted."""
    pytest.importorskip("triton")
    from tests import triton_harness as harness

    x = np.random.default_rng(0).standard_normal((7, columns)).astype(np.float32)
    x[1], x[2, -1], x[3, : columns // 2] = -np.inf, np.nan, -np.inf
    inputs = {"x": x, "b": np.linspace(-1, 1, columns, dtype=np.float32)}
    run = harness.run(fused(block.scores()), folder=tmp_path / "scores", inputs=inputs, fuse=False)
    (launch,) = run.launches
    assert launch.predicted is not None and launch.counted == launch.predicted.loaded_bytes
    assert launch.loaded - 4 * columns * launch.predicted.programs == x.nbytes
    for name, expected in run.expected.items():
        assert np.isnan(expected[1]).all() and np.isnan(expected[2]).all() and np.isfinite(expected[[0, 4, 5, 6]]).all()
        assert harness.relative_error(run.outputs[name], expected) < 1e-6


# -- long graphs -------------------------------------------------------------------------------------------------

def of_kinds(names: Sequence[str]) -> Callable[[Value], Value]:
    def program(x: Value) -> Value:
        for name in names:
            x = ops.TABLE[name](x) if name != "center" else ops.sub(x, ops.reduce_max(x, axes=(1,), keep_dims=True))
        return x

    return program


KINDS = ("relu", "neg", "tanh", "abs", "sin", "exp", "sigmoid", "floor", "center", "softmax")
LONG: dict[str, Callable[[Value], Any]] = {
    "pointwise": of_kinds(KINDS[:4] * 500),
    "mixed": of_kinds([KINDS[index * index * 7 % 10] for index in range(1_200)]),
    "reductions": of_kinds(["center", "softmax"] * 300),
    "views": lambda x: (
        views := [y := x, *(y := ops.transpose(y, permutation=(1, 0)) for _ in range(600))],
        *(ops.tanh(view) for view in views[::60]),
    )[1:],
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_long_graphs_fuse_without_recursion_and_with_few_derivations(name: str, monkeypatch: Any) -> None:
    derived: list[int] = []

    def counting(members: Sequence[Operation], **options: Any) -> Any:
        derived.append(len(members))
        return derive(members, **options)

    monkeypatch.setattr("irc.group.derive", counting)
    module = trace(LONG[name], "f32[5, 6]")
    length = len(module.main.block)
    copy = fused(module)
    assert sum(derived) <= 25 * length, "operations in kernels that were derived"
    inputs = arrays(module)
    same_results(module, copy, {name: array.astype(np.float32) for name, array in inputs.items()})


# -- determinism -----------------------------------------------------------------------------------------------

def test_plan_and_text_do_not_depend_on_the_hash_seed() -> None:
    script = (
        "import sys, irc\n"
        "from irc.driver.optimizing import run_pipeline\n"
        "from irc.driver.models import Settings, find_backend\n"
        "module, context = run_pipeline(sys.argv[1], find_backend('triton').PIPELINE, 'triton', Settings())\n"
        "sys.stdout.write(str(module) + context.plans['main'].text)\n"
    )
    texts = set()
    for seed in ("0", "1", "7"):
        command = [sys.executable, "-c", script, str(model_path("minilm_int8"))]
        done = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        texts.add(done.stdout)
    assert len(texts) == 1 and b"irc.plan/2" in texts.pop()


def test_kernels_do_not_depend_on_what_caches_still_hold() -> None:
    """Axes are equal because of what they are, not because a cache returned the same object."""
    script = (
        "import functools, sys\n"
        "original, entries = functools.lru_cache, int(sys.argv[2])\n"
        "def few(maxsize=128, typed=False):\n"
        "    return original(entries, typed)(maxsize) if callable(maxsize) else original(entries, typed)\n"
        "if entries: functools.lru_cache = few\n"
        "from irc.backends.triton.program_writer import write_program\n"
        "from irc.driver.optimizing import run_pipeline\n"
        "from irc.driver.models import Settings, find_backend\n"
        "module, context = run_pipeline(sys.argv[1], find_backend('triton').PIPELINE, 'triton', Settings())\n"
        "program = write_program(module)\n"
        "sys.stdout.write(program.text + ''.join(kernel.source.text for kernel in program.kernels))\n"
    )
    texts = set()
    for entries in ("0", "3"):
        command = [sys.executable, "-c", script, str(model_path("basic_pitch")), entries]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        texts.add(done.stdout)
    assert len(texts) == 1 and b"@triton.jit" in texts.pop()


def test_a_symbol_that_only_an_attribute_mentions_keeps_its_order() -> None:
    """`dim {value = 2*u}` reads no value of the `bind` that defines u, and still follows it (F1, sorting)."""
    text = """irc text 1
module @m {
  func @main(%x: f32[4], %n: i64[]) -> (f32[4], i64[]) {
    %0 = const 1 : i64[]
    %k = add %n, %0 : i64[]
    bind %k {symbol = ?u in (0, 100)}
    %d = dim {value = 2*u} : i64[]
    %e = add %d, %k : i64[]
    %y = exp %x : f32[4]
    return %y, %e
  }
}
"""
    module = parse(text)
    inputs = {"x": np.arange(4, dtype=np.float32), "n": np.array(3)}
    before = interpreter.run(module, inputs)
    PassManager(parse_pipeline("fuse,dce"), PassContext(), verify_each=True).run(module)
    after = interpreter.run(module, inputs)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_windows_over_windows_are_not_one_kernel() -> None:
    """Three poolings in a row would read 13 by 13 places of the input for each of the result."""
    sides = {"kernel": (5, 5), "strides": (1, 1), "low": (2, 2), "high": (2, 2), "dilations": (1, 1)}

    def main(x: Value) -> Value:
        for _ in range(3):
            x = ops.max_pool(ops.relu(x), **sides)
        return x

    module = opt(trace(main, "f32[N, 4, H, W]"), "default")
    kernels = [operation for operation in module.main.block if operation.name == "kernel"]
    assert len(kernels) >= 3 and {operation.name for operation in module.main.block} == {"kernel", "return"}
    assert all(len(kernel_of(operation).loads) <= 30 for operation in kernels)


@pytest.mark.parametrize("extent", ["0", "min(B, 1)"])
@pytest.mark.parametrize("name", "reduce_sum reduce_prod reduce_max reduce_mean".split())
def test_reductions_of_an_empty_part_of_a_dim_of_one_element(name: str, extent: str) -> None:
    """What is reduced is read where the maximum is: at 0, which its part of no elements does not have."""
    module = parse(f"""irc text 1
module @m {{
  func @main<B>(%x: f32[5], %z: f32[B]) -> (y: f32[5], d: f32[5], r: f32[1 - {extent}], n: f32[B]) {{
    %m = reduce_max %x {{axes = [0], keep_dims = true}} : f32[1]
    %part, %r = split %m {{axis = 0, sizes = [{extent}, 1 - {extent}]}} : f32[{extent}], f32[1 - {extent}]
    %total = {name} %part {{axes = [0], keep_dims = true}} : f32[1]
    %y = sub %x, %total : f32[5]
    %d = sub %x, %m : f32[5]
    %n = neg %z : f32[B]
    return %y, %d, %r, %n
  }}
}}
""")
    compiled = merged(module)
    for size in (0, 1, 3):
        feed = {"x": np.arange(5, dtype=np.float32), "z": np.ones(size, np.float32)}
        for key, output in Artefact(compiled).on_arrays(feed).items():
            np.testing.assert_array_equal(output, interpreter.run(module, feed)[key])
