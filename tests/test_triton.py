"""The Triton backend under Triton's interpreter: numbers, addresses, bytes, and the artefact as a folder.

Each case compiles one function as a single kernel and compares with irc's interpreter; the harness checks every
address, that each output element is stored once, and that the byte model predicts what was counted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc import dtypes, ops
from irc.backends.triton import emit
from irc.ir import Value
from irc.op import literal, trace
from tests import triton_harness as harness
from tests.triton_cases import Case, check

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def scalar_conditions(x: Value, y: Value, z: Value) -> tuple[Value, ...]:
    first, second, third = ops.less(x, 0.0), ops.greater(y, 0.0), ops.less(z, 0.5)
    return (
        ops.bitwise_and(first, third), ops.bitwise_or(third, second), ops.bitwise_xor(second, third),
        ops.bitwise_and(third, ops.bitwise_not(ops.bitwise_or(first, second))),
        ops.bitwise_or(third, ops.select(third, first, ops.less(z, 0.1))),
    )  # fmt: skip


def choice_of_numbers(x: Value) -> tuple[Value, ...]:
    """Numbers as they are, whose types only the operation knows."""
    below = ops.less(x, 0.5)
    large = ops.select(below, literal(2**40, dtypes.I64), literal(2**31 - 1, dtypes.I64))
    place = ops.argmax(ops.argmin(x, axis=1, keep_dims=True), axis=1)
    return ops.select(below, literal(0.1, dtypes.F64), literal(0.3, dtypes.F64)), ops.add(large, 1), place


def rope(x: Value, cosine: Value, sine: Value) -> Value:
    left, right = ops.split(x, axis=2, sizes=(32, 32))
    turned = ops.concat(ops.neg(right), left, axis=2)
    return ops.add(ops.mul(x, cosine), ops.mul(turned, sine))


def two_outputs(x: Value) -> tuple[Value, Value]:
    mean = ops.reduce_mean(x, axes=(1,), keep_dims=True)
    return ops.sub(x, mean), ops.reshape(mean, shape=(x.shape[0],))


def split_heads(x: Value, scale: Value, bias: Value) -> Value:
    normal = ops.layer_norm(x, scale, bias)
    return ops.transpose(ops.reshape(normal, shape=(2, 9, 6, 16)), permutation=(0, 2, 1, 3))


def embed(table: Value, ids: Value, scale: Value, bias: Value) -> Value:
    return ops.layer_norm(ops.gather(table, ids, axis=0), scale, bias)


def masked_softmax(x: Value, mask: Value) -> Value:
    return ops.softmax(ops.select(mask, ops.mul(x, 0.125), float("-inf")), axis=-1)


def three_way_split(x: Value) -> tuple[Value, ...]:
    a, b, c = ops.split(ops.tanh(x), axis=1, sizes=(7, 11, 5))
    return a, ops.mul(b, 2.0), c


def positions(x: Value) -> Value:
    index = ops.iota(shape=x.shape, axis=1, dtype=dtypes.F32)
    return ops.mul(x, ops.cos(index))


def sums_of_slices(x: Value) -> Value:
    n = x.shape[1]
    even = ops.slice_(x, starts=(0, 0), stops=(x.shape[0], n), steps=(1, 2))
    odd = ops.slice_(x, starts=(0, 1), stops=(x.shape[0], n), steps=(1, 2))
    return ops.add(even, odd)


STRUCTURES = [
    Case("add_bias", lambda x, b: ops.relu(ops.add(x, b)), ("f32[B, S, 65]", "f32[65]")),
    Case("add_scalar", lambda x: ops.mul(ops.add(x, 1.0), 0.5), ("f32[3, 5]",)),
    Case("scalar", lambda x: ops.add(x, 1.0), ("f32[]",)),
    Case("scalar_conditions", scalar_conditions, ("f32[]", "f32[1]", "f32[S]")),
    Case("scalar_powers", lambda x, y: (ops.pow_(x, y), ops.pow_(y, x)), ("f32[1]", "f32[S]")),
    Case("outer", lambda x, y: ops.mul(x, y), ("f32[B, 1]", "f32[1, 33]")),
    Case("broadcast_rows", lambda x, y: ops.add(x, y), ("f32[B, 7, 40]", "f32[B, 1, 40]")),
    Case("transpose", lambda x: ops.add(ops.transpose(x, permutation=(0, 2, 1)), 1.0), ("f32[3, 50, 70]",)),
    Case("transpose_4d", lambda x: ops.exp(ops.transpose(x, permutation=(3, 1, 0, 2))), ("f32[3, 5, 7, 11]",)),
    Case("reshape_mixed", lambda x: ops.exp(ops.reshape(x, shape=(21, 10))), ("f32[6, 35]",)),
    Case("expand", lambda x: ops.exp(ops.expand(x, shape=(4, 5, 6))), ("f32[5, 1]",)),
    Case("slice", sums_of_slices, ("f32[B, 20]",)),
    Case("reverse", lambda x: ops.exp(ops.reverse(x, axes=(0, 2))), ("f32[3, B, 5]",)),
    Case("pad", lambda x: ops.pad(ops.relu(x), 0.0, low=(0, 1), high=(3, 2)), ("f32[5, 7]",)),
    Case("pad_where", lambda x: ops.pad(ops.exp(x), 0.0, low=(0, 1), high=(3, 2)), ("f32[5, 7]",)),
    Case("pad_edge", lambda x: ops.exp(ops.pad(x, low=(2, 1), high=(1, 2), mode="edge")), ("f32[5, 7]",)),
    Case("pad_reflect", lambda x: ops.exp(ops.pad(x, low=(2, 1), high=(1, 2), mode="reflect")), ("f32[5, 7]",)),
    Case("pad_wrap", lambda x: ops.exp(ops.pad(x, low=(2, 1), high=(1, 2), mode="wrap")), ("f32[5, 7]",)),
    Case("concat", lambda x, y: ops.mul(ops.concat(x, y, x, axis=1), 2.0), ("f32[B, 7]", "f32[B, 9]")),
    Case("concat_dynamic", lambda x, y: ops.exp(ops.concat(x, y, axis=1)), ("f32[B, P, 4]", "f32[B, S, 4]"),
         {"B": 2, "P": 3, "S": 6}),
    Case("concat_of_nothing", lambda x: ops.reduce_sum(ops.exp(ops.concat(x, x, axis=1)), axes=(1,)), ("f32[3, 0]",)),
    Case("choice_of_numbers", choice_of_numbers, ("f32[S, 1]",), tolerance=1e-12),
    Case("split", three_way_split, ("f32[4, 23]",)),
    Case("rope", rope, ("f32[2, S, 64]", "f32[S, 64]", "f32[S, 64]")),
    Case("iota_of_one", lambda x: ops.exp(ops.add(ops.slice_(x, starts=(0,), stops=(1,), steps=(1,)), ops.iota(
        shape=(1,), axis=0, dtype=dtypes.F32))), ("f32[6]",)),
    Case("iota", positions, ("f32[3, N]",), {"N": 37}),
    Case("gather_rows", lambda x, i: ops.add(ops.gather(x, i, axis=0), 1.0), ("f32[50, 7]", "i64[4, S]")),
    Case("gather_columns", lambda x, i: ops.exp(ops.gather(x, i, axis=1)), ("f32[3, 50]", "i32[6]")),
    Case("gather_elements", lambda x, i: ops.exp(ops.gather_elements(x, i, axis=1)), ("f32[3, 9]", "i64[3, 4]")),
    Case("warp", lambda x, g: ops.grid_sample(x, g), ("f32[B, 3, H, 7]", "f32[B, 5, 6, 2]"), {"B": 2, "H": 5}),
    Case("warp_cubic", lambda x, g: ops.grid_sample(x, g, mode="cubic", padding="reflection"),
         ("f32[2, 2, 5, 7]", "f32[2, 3, 6, 2]"), tolerance=1e-5),
    Case("softmax", lambda x: ops.softmax(x, axis=-1), ("f32[B, 100]",)),
    Case("softmax_rows", lambda x: ops.softmax(x, axis=1), ("f32[B, 12, 33]",)),
    Case("softmax_dynamic", lambda x: ops.softmax(x, axis=-1), ("f32[B, S]",), {"S": 70}),
    Case("softmax_looped", lambda x: ops.softmax(x, axis=-1), ("f32[B, S]",), {"B": 3, "S": 2500}),
    Case("softmax_masked", masked_softmax, ("f32[B, 4, 9, 9]", "bool[B, 1, 9, 9]")),
    Case("log_softmax", lambda x: ops.log_softmax(x, axis=-1), ("f32[7, 19]",)),
    Case("layer_norm", lambda x, s, b: ops.layer_norm(x, s, b), ("f32[B, S, 48]", "f32[48]", "f32[48]")),
    Case("layer_norm_looped", lambda x, s, b: ops.layer_norm(x, s, b), ("f32[2, 17000]", "f32[17000]", "f32[17000]")),
    Case("layer_norm_heads", split_heads, ("f32[2, 9, 96]", "f32[96]", "f32[96]")),
    Case("rms_norm", lambda x, s: ops.rms_norm(x, s, axis=-1, epsilon=1e-6), ("f32[B, 40]", "f32[40]")),
    Case("group_norm", lambda x, s, b: ops.group_norm(x, s, b, groups=4), ("f32[2, 16, 5, 6]", "f32[16]", "f32[16]")),
    Case("instance_norm", lambda x, s, b: ops.instance_norm(x, s, b), ("f32[2, 3, H, W]", "f32[3]", "f32[3]")),
    Case("batch_norm", lambda x, *p: ops.batch_norm(x, *p), ("f32[2, 3, 5, 7]", *["f32[3]"] * 3, "f32[3]")),
    Case("embed_norm", embed, ("f32[30, 24]", "i64[B, S]", "f32[24]", "f32[24]")),
    Case("mean_two_outputs", two_outputs, ("f32[B, 50]",)),
    Case("sum_all", lambda x: ops.reduce_sum(x, axes=(0, 1)), ("f32[B, 37]",)),
    Case("sum_split_axes", lambda x: ops.reduce_sum(ops.exp(x), axes=(0, 2)), ("f32[4, 5, 6]",)),
    Case("max_columns", lambda x: ops.reduce_max(x, axes=(0,)), ("f32[B, 70]",), {"B": 90}),
    Case("prod", lambda x: ops.reduce_prod(x, axes=(1,)), ("f32[3, 9]",)),
    Case("argmax", lambda x: ops.argmax(x, axis=1), ("f32[2, 16, 5]",)),
    Case("argmin_last", lambda x: ops.argmin(x, axis=2, select_last=True, keep_dims=True), ("i32[2, 3, 17]",)),
    Case("one_column", lambda x: ops.softmax(x, axis=-1), ("f32[B, 1]",)),
    Case("one_row", lambda x: ops.softmax(x, axis=-1), ("f32[1, 9]",)),
]


@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_structure(case: Case, tmp_path: Path) -> None:
    run = harness.run(case.function, *case.types, folder=tmp_path / "model", sizes=case.sizes)
    assert len(run.launches) == 1
    check(run, case.tolerance)


@pytest.mark.parametrize("name", ["div", "mod"])
def test_checked_divisions_in_masked_lanes(name: str, tmp_path: Path) -> None:
    """A lane beyond the edge of its row divides 0 by 0, which stops neither the compilation nor the run."""
    def function(x: Value, y: Value) -> Value:
        return ops.reduce_sum(ops.lookup(name)(x, y, by_zero="error"), axes=(1,))

    generator = np.random.default_rng(0)
    x, y = generator.integers(-99, 99, (4, 9), np.int32), generator.integers(1, 9, (4, 9), np.int32)
    run = harness.run(function, "i32[4, 9]", "i32[4, 9]", folder=tmp_path / "model", inputs={"x": x, "y": y})
    check(run, 0)


# -- every pointwise primitive, dtypes, and the edges ----------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 1e-6, -1e-6, 0.3, 0.7, 20.0, -20.0, 88.0, 100.0, 1e5,
           -1e5, 1e20, float("inf"), float("-inf"), float("nan")]  # fmt: skip
UNARY = ["neg", "abs", "sign", "floor", "ceil", "round", "trunc", "sqrt", "exp", "log", "sin", "cos", "tan", "asin",
         "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "is_nan", "is_inf"]  # fmt: skip
BINARY = ["add", "sub", "mul", "div", "pow", "minimum", "maximum", "mod", "equal", "not_equal", "less", "less_equal",
          "greater", "greater_equal"]  # fmt: skip


def run_on(tmp_path: Path, function: Callable[..., Any], *arrays: np.ndarray) -> harness.Run:
    types = [f"{dtypes.from_numpy(array.dtype)}[{', '.join(map(str, array.shape))}]" for array in arrays]
    names = [chr(ord("x") + position) for position in range(len(arrays))]
    signature = {1: lambda x: function(x), 2: lambda x, y: function(x, y), 3: lambda x, y, z: function(x, y, z)}
    inputs = dict(zip(names, arrays, strict=True))
    return harness.run(signature[len(arrays)], *types, folder=tmp_path / "model", inputs=inputs)


@pytest.mark.parametrize("name", UNARY)
def test_unary_float(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    values = np.array([*SPECIAL, *generator.standard_normal(200), *generator.uniform(-40, 40, 200)], np.float32)
    run = run_on(tmp_path, ops.lookup(name), values)
    (actual,), (expected,) = run.outputs.values(), run.expected.values()
    if expected.dtype == bool:
        np.testing.assert_array_equal(actual, expected)
        return
    sane = np.abs(expected) < 1e30
    if name in ("sin", "cos", "tan"):
        sane &= np.abs(values) < 1e4
    if name == "tan":
        sane &= np.abs(expected) < 1e3
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual[sane], expected[sane], rtol=3e-6, atol=1e-30)
    finite = np.isfinite(expected) | np.isnan(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    if name != "tanh":  # of -0.0 it is 0.0: to keep it would cost gelu a comparison
        assert_signs_of_zeros(actual, expected)


def assert_signs_of_zeros(actual: np.ndarray, expected: np.ndarray) -> None:
    zeros = (expected == 0) & (actual == 0)
    np.testing.assert_array_equal(np.signbit(actual[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("name", BINARY)
def test_binary_float(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    left = np.array([*np.repeat(SPECIAL, len(SPECIAL)), *generator.uniform(0.1, 5, 100)], np.float32)
    right = np.array([*SPECIAL * len(SPECIAL), *generator.uniform(-5, 5, 100)], np.float32)
    run = run_on(tmp_path, ops.lookup(name), left, right)
    (actual,), (expected,) = run.outputs.values(), run.expected.values()
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, rtol=2e-5 if name == "pow" else 1e-6)
    if expected.dtype != bool and name != "mod":  # there NumPy and ATen differ
        assert_signs_of_zeros(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_negative_zero_as_a_constant(dtype: Any, tmp_path: Path) -> None:
    run = run_on(tmp_path, lambda x: (ops.add(x, -0.0), ops.sub(-0.0, x)), np.array([0.0, -0.0, 1.0], dtype))
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_array_equal(actual, expected)
        assert_signs_of_zeros(actual, expected)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "mod", "minimum", "maximum", "less", "select", "pad"])
def test_constants_of_f64_are_not_rounded(name: str, tmp_path: Path) -> None:
    """Triton takes a number that is an argument of a function for an f32."""
    functions: dict[str, Callable[[Value], Value]] = {
        "select": lambda x: ops.select(ops.less(x, 0.5), x, 0.1),
        "pad": lambda x: ops.pad(x, 0.1, low=(1,), high=(1,)),
    }
    function = functions.get(name, lambda x: ops.TABLE[name](x, 0.1))
    x = np.array([0.1, 0.1 + 1e-12, 0.1 - 1e-12, 2.0])
    run = harness.run(function, "f64[4]", folder=tmp_path / "model", inputs=[x])
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint32"])
def test_integers(dtype: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    limits = np.iinfo(dtype)
    left = generator.integers(limits.min, limits.max, 300, dtype, endpoint=True)
    right = generator.integers(-9 if limits.min else 0, 9, 300).astype(dtype)
    signed = [lambda x, y: ops.neg(x), lambda x, y: ops.abs_(x), lambda x, y: ops.sign(x)] if limits.min else []

    def function(x: Value, y: Value) -> tuple[Value, ...]:
        binary = ["add", "sub", "mul", "minimum", "maximum", "bitwise_and", "bitwise_or", "bitwise_xor", "less",
                  "shift_left", "shift_right", "equal"]  # fmt: skip
        results = [ops.lookup(name)(x, y) for name in binary] + [each(x, y) for each in signed]
        for rounding in ("trunc", "floor"):
            results += [ops.div(x, y, rounding=rounding), ops.mod(x, y, rounding=rounding)]
            results += [ops.div(x, 3, rounding=rounding), ops.mod(x, int(limits.max), rounding=rounding)]
        return (*results, ops.bitwise_not(x), ops.cast(x, to=dtypes.F32), ops.cast(x, to=dtypes.I8))

    check(run_on(tmp_path, function, left, right), 1e-6)


@pytest.mark.parametrize("to", ["i8", "u8", "i16", "i32", "i64", "bool"])
@pytest.mark.parametrize("saturate", [True, False])
def test_float_to_integer(to: str, saturate: bool, tmp_path: Path) -> None:
    values = np.array([*SPECIAL, 127.4, 127.5, 128.0, -128.7, -129.0, 255.9, 256.0, 2**31, -(2**31), 2**33], np.float32)
    check(run_on(tmp_path, lambda x: ops.cast(x, to=dtypes.by_name(to), saturate=saturate), values), 0)


def test_bools(tmp_path: Path) -> None:
    x = np.array([True, False, True, False] * 7)
    y = np.array([True, True, False, False] * 7)

    def function(x: Value, y: Value) -> tuple[Value, ...]:
        both = ops.bitwise_and(x, ops.bitwise_not(y))
        return both, ops.bitwise_xor(x, y), ops.select(x, y, both), ops.cast(both, to=dtypes.F32), ops.equal(x, y)

    check(run_on(tmp_path, function, x, y), 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_float_types(dtype: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    x, scale = generator.standard_normal((5, 33)).astype(dtype), generator.standard_normal(33).astype(dtype)

    def function(x: Value, scale: Value) -> tuple[Value, ...]:
        return ops.layer_norm(x, scale, None), ops.softmax(ops.mul(x, scale), axis=-1), ops.add(x, scale)

    tolerance = {np.dtype(np.float16): 2e-3, np.dtype(np.float64): 1e-13}.get(np.dtype(dtype), 2e-2)
    run = run_on(tmp_path, function, x, scale)
    check(run, tolerance)
    half = np.dtype(dtype) != np.float64
    assert run.program.kernels[0].kernel.numerics == ("keeps_more_precision" if half else "exact")


def test_each_bfloat16_is_itself_in_kernels(tmp_path: Path) -> None:
    """Those below the smallest normal number too, for which Triton's interpreter gives others."""
    every = np.arange(2**16, dtype=np.uint32)
    x, wide = every.astype(np.uint16).view(ml_dtypes.bfloat16), (every << 16).view(np.float32)
    run = run_on(tmp_path, lambda x: ops.mul(ops.cast(x, to=dtypes.F32), 4.0), x)
    (actual,) = run.outputs.values()
    np.testing.assert_array_equal(actual, wide * np.float32(4))
    assert run.program.kernels


def test_wide_integers_keep_their_bits(tmp_path: Path) -> None:
    x = np.array([2**62 + 3, -(2**61) - 7, 5], np.int64)
    check(run_on(tmp_path, lambda x: (ops.add(x, 1), ops.reduce_max(x, axes=(0,)), ops.reduce_sum(x, axes=(0,))), x), 0)


@pytest.mark.parametrize("columns", [1, 7, 64, 100, 3000])
@pytest.mark.parametrize("dynamic", [False, True])
def test_softmax_edges(columns: int, dynamic: bool, tmp_path: Path) -> None:
    """Rows of -inf and with NaN or +inf give NaN as in eager, and no other row notices."""
    x = np.random.default_rng(5).standard_normal((6, columns)).astype(np.float32)
    x[1], x[2, 0], x[3, -1] = -np.inf, np.nan, np.inf
    x[4, : columns // 2] = -np.inf
    run = harness.run(
        lambda x: (ops.softmax(x, axis=-1), ops.log_softmax(x, axis=-1)),
        f"f32[B, {'S' if dynamic else columns}]", folder=tmp_path / "model", inputs={"x": x},
    )  # fmt: skip
    check(run, 1e-6)


@pytest.mark.parametrize("kind", ["reduce_max", "reduce_min", "reduce_sum", "argmax", "argmin"])
@pytest.mark.parametrize("columns", [1, 13, 20000])
def test_reductions_see_nan(kind: str, columns: int, tmp_path: Path) -> None:
    x = np.random.default_rng(6).standard_normal((5, columns)).astype(np.float32)
    x[1, columns // 2] = np.nan
    x[2] = -np.inf
    x[3] = np.inf
    attributes: dict[str, Any] = {"axis": 1} if kind.startswith("arg") else {"axes": (1,)}
    check(run_on(tmp_path, lambda x: ops.lookup(kind)(x, **attributes), x), 1e-5)


@pytest.mark.parametrize("kind", ["reduce_max", "reduce_min"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64"])
def test_integer_extrema(kind: str, dtype: str, tmp_path: Path) -> None:
    x = np.random.default_rng(7).integers(0, 2 if dtype == "bool" else 100, (4, 21)).astype(dtype)
    check(run_on(tmp_path, lambda x: ops.lookup(kind)(x, axes=(1,)), x), 0)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty(shape: tuple[int, int], tmp_path: Path) -> None:
    x = np.zeros(shape, np.float32)
    check(run_on(tmp_path, lambda x: (ops.exp(x), ops.reduce_sum(x, axes=(1,)), ops.softmax(x, axis=-1)), x), 0)


def test_gather_out_of_range_reads_nothing(tmp_path: Path) -> None:
    """The reference rejects such an index; a kernel must at least not read outside of its buffer."""
    table = np.arange(10, dtype=np.float32)
    indices = np.array([0, -1, -10, 9], np.int64)
    check(run_on(tmp_path, lambda x, y: ops.gather(x, y, axis=0), table, indices), 0)


@pytest.mark.parametrize("case", [case for case in STRUCTURES if case.name in (
    "add_bias", "transpose", "softmax", "layer_norm_heads", "max_columns", "softmax_looped")],
    ids=lambda case: case.name)  # fmt: skip
def test_real_tiles(case: Case, tmp_path: Path) -> None:
    """The tiles that a GPU gets: more programs, ragged ones at the end of each axis."""
    run = harness.run(case.function, *case.types, folder=tmp_path / "model", sizes=case.sizes, real_tiles=True)
    check(run, case.tolerance)


GOLDEN = Path(__file__).parent / "golden"
SHOWN = ("add_bias", "transpose", "pad", "concat", "rope", "gather_rows", "softmax", "softmax_looped", "softmax_masked",
         "layer_norm", "layer_norm_heads", "embed_norm", "argmax", "max_columns")  # fmt: skip


# -- types of indices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in STRUCTURES if case.name in SHOWN], ids=lambda case: case.name)
def test_long_indices(case: Case, tmp_path: Path) -> None:
    """Where sizes are open, a launch chooses 32 or 64 bits; elsewhere tests run those that small sizes have."""
    run = harness.run(case.function, *case.types, folder=tmp_path / "a", sizes=case.sizes, long_indices=True)
    check(run, case.tolerance)
    text = (tmp_path / "a" / "kernels.py").read_text()
    program = (tmp_path / "a" / "program.py").read_text()
    assert ("INDEX: tl.constexpr" in text) == ("extent=" in program) == (".to(INDEX)" in text)
    assert "tl.int64" not in text or "INDEX" not in text


@pytest.mark.parametrize("x, index_type", [
    ("f32[B, S]", "INDEX"), ("f32[?B in (0, 65536), 512]", ""), ("f32[1073741824, 1]", ""),
    ("f32[2147483648, 1]", "tl.int64"), ("f32[1048576, 1048576]", "tl.int64"),
    ("f32[?B in (1073741824, 9999999999), 8]", "tl.int64"),
])  # fmt: skip
def test_indices_of_known_sizes_have_one_type(x: str, index_type: str) -> None:
    """64 bits where an index needs them, none stated where 32 are enough, a variant where sizes decide."""
    text = source_of(Case("rows", lambda x: ops.exp(ops.reduce_sum(x, axes=(1,))), (x,)))
    assert [each for each in ("INDEX", "tl.int64") if each in text] == ([index_type] if index_type else [])


def test_what_an_index_divides_may_be_larger_than_any_buffer() -> None:
    """The elements of an outer product are summed in rows of another length, and never stored."""
    def sums(x: Value, y: Value) -> Value:
        return ops.reduce_sum(ops.reshape(ops.mul(x, y), shape=(y.shape[1], x.shape[0])), axes=(1,))

    for rows, is_long in ((203, False), (200_003, True)):
        text = source_of(Case("sums", sums, (f"f32[{rows}, 1]", "f32[1, 150001]")))
        assert ("tl.int64" in text) == is_long


def test_a_launch_chooses_the_type_of_its_indices() -> None:
    """Lanes of the last block beyond the extent must not wrap around."""
    from irc.backends.triton.templates import runtime
    from irc.kernel.index_range import LARGEST_EXTENT

    assert runtime.index_bits(None) is None and runtime.LARGEST_EXTENT <= LARGEST_EXTENT
    largest = runtime.LARGEST_EXTENT
    assert [runtime.index_bits(extent) for extent in (0, 1, largest, largest + 1, 1 << 40)] == [32, 32, 32, 64, 64]
    assert largest + max(runtime.INTERPRETED_ELEMENTS, 1 << 16) <= 1 << 31


# -- golden sources and GPU targets ----------------------------------------------------------------------------




def source_of(case: Case) -> str:
    from irc.backends.triton.artefact import kernels_text
    from irc.backends.triton.program_writer import write_program

    module = harness.kernelize(trace(case.function, *case.types), case.name)
    return kernels_text(write_program(module))


@pytest.mark.parametrize("case", [case for case in STRUCTURES if case.name in SHOWN], ids=lambda case: case.name)
def test_golden(case: Case, update: bool) -> None:
    """The source of these kernels, read by people: `pytest --update` rewrites it."""
    path, text = GOLDEN / f"{case.name}.py", source_of(case)
    if update:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("case", STRUCTURES, ids=lambda case: case.name)
def test_compiles_without_spills(case: Case, tmp_path: Path) -> None:
    from irc.backends.triton import compile_artefact

    emit(harness.kernelize(trace(case.function, *case.types)), tmp_path / "model")
    for resources in compile_artefact(tmp_path / "model", ("sm_80", "sm_90", "gfx942")):
        assert not resources.error, resources
        assert resources.fits and not resources.spilled_bytes, resources


@pytest.mark.slow
def test_every_function_compiles(tmp_path: Path) -> None:
    from irc.backends.triton import compile_artefact

    def function(x: Value, y: Value, n: Value, m: Value) -> tuple[Value, ...]:
        results = [ops.lookup(name)(x) for name in UNARY] + [ops.lookup(name)(x, y) for name in BINARY]
        for rounding in ("trunc", "floor"):
            results += [ops.div(n, m, rounding=rounding), ops.mod(n, m, rounding=rounding)]
        results += [ops.shift_left(n, m), ops.shift_right(n, m), ops.sign(n), ops.cast(x, to=dtypes.I8)]
        return (*results, ops.cast(x, to=dtypes.I16, saturate=False), ops.reduce_prod(x, axes=(0,)))

    module = harness.kernelize(trace(function, "f32[300]", "f32[300]", "i32[300]", "i32[300]"))
    emit(module, tmp_path / "model")
    for resources in compile_artefact(tmp_path / "model", ("sm_80", "sm_90", "gfx942")):
        assert not resources.error, resources
