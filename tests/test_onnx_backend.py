"""The ONNX backend against the interpreter: every row of its tables, in every element type, with ORT's optimizations
off and on; dims that are known only when it runs; control flow; kernels kept; files; the trained models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from models import model_inputs, model_path, reference_outputs, relative_error

from irc import dtypes, interpreter, ops
from irc.backends import onnx as backend
from irc.backends.onnx import Target, saving
from irc.backends.onnx.runtime import CONTRIB, KERNELS, newest_opset
from irc.backends.onnx.table import ROWS
from irc.diagnostics import IrcError
from irc.driver.pipelines import parse_pipeline
from irc.dtypes import F32, I8, U8, DType, by_name
from irc.frontends.onnx import from_model, load
from irc.module import Module
from irc.op import const, trace
from irc.parser import parse
from irc.pass_manager import PassContext, PassManager
from irc.verifier import verify
from irc.weights import Tensor
from tests.onnx_backend_cases import CASES, Case

# Largest error of an element over the largest element.
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 3e-3, "bf16": 2e-2}
NATIVE = frozenset("f64 f32 f16 i64 i32 i16 i8 u64 u32 u16 u8 bool string".split())


# -- the harness ---------------------------------------------------------------------------------------------------


def session(model: onnx.ModelProto, optimized: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_model(model: onnx.ModelProto, inputs: Mapping[str, Any], optimized: bool = False) -> dict[str, Any]:
    runner = session(model, optimized)
    names = [output.name for output in runner.get_outputs()]
    return dict(zip(names, runner.run(names, dict(inputs)), strict=True))


def assert_close(actual: Any, expected: Any, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    assert actual.dtype == expected.dtype, (what, actual.dtype, expected.dtype)
    if expected.dtype.kind not in "fV" or expected.size == 0:
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=what)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, actual), np.where(finite, 0, expected), err_msg=what)
    if finite.any():
        scale = max(np.abs(expected[finite]).max(), 1e-30)
        assert np.abs(actual[finite] - expected[finite]).max() <= tolerance * scale, (what, actual, expected)


def check(
    module: Module,
    inputs: Mapping[str, Any],
    tolerance: float = 2e-5,
    targets: tuple[str, ...] = ("portable",),
    again: bool = True,
    opset: int | None = None,
) -> onnx.ModelProto:
    """Emit, check, run with optimizations off and on, import again, and compare with the interpreter."""
    verify(module)
    expected = interpreter.run(module, inputs)
    for name in targets:
        model = backend.emit(module, target=Target(name, opset=opset))
        onnx.checker.check_model(model, full_check=True)
        for optimized in (False, True):
            actual = run_model(model, inputs, optimized)
            assert list(actual) == list(expected)
            for output, array in actual.items():
                assert_close(array, expected[output], tolerance, f"{output} on {name}, optimized {optimized}")
        # Dims of an imported model are at least 1.
        if again and all(array.size for array in inputs.values()):
            imported = from_model(model, Path())
            for output, array in interpreter.run(imported, inputs).items():
                assert_close(array, expected[output], tolerance, f"{output}, imported again")
    return model


def random_array(dtype: DType, shape: tuple[int, ...], generator: np.random.Generator, low: float, high: float) -> Any:
    if dtype is dtypes.BOOL:
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        least, most = dtypes.limits(dtype)
        return generator.integers(max(least, int(low)), min(most, int(high)), shape, endpoint=True).astype(dtype.numpy)
    return generator.uniform(low, high, shape).astype(dtype.numpy)


def carried(dtype: DType) -> DType:
    """The type in which elements cross ORT's border."""
    return dtype if dtype.name in NATIVE else F32 if dtype.is_float else I8 if dtype.is_signed else U8


def rounded(content: Any, dtype: DType) -> Any:
    """Numbers in a type, which may be infinite there."""
    with np.errstate(over="ignore"):
        return np.asarray(content).astype(dtype.numpy)


def run_case(case: Case, dtype_name: str, targets: tuple[str, ...] = ("portable",), opset: int | None = None) -> None:
    dtype = by_name(dtype_name)
    texts = [text.replace("$", dtype.name) for text in case.types]
    true_types = [by_name(text.partition("[")[0]) for text in texts]

    def function(*xs: Any) -> Any:
        inside = [x if x.dtype is true else ops.cast(x, to=true) for x, true in zip(xs, true_types, strict=True)]
        results = case.function(*inside)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(y if carried(y.dtype) is y.dtype else ops.cast(y, to=carried(y.dtype)) for y in results)

    border = [f"{carried(true)}[{text.partition('[')[2]}" for text, true in zip(texts, true_types, strict=True)]
    module = trace(lambda *xs: function(*xs), *border)
    generator = np.random.default_rng(5)
    for sizes in case.sizes:
        inputs = {}
        for index, argument in enumerate(module.main.arguments):
            if index in case.given:
                inputs[argument.name] = rounded(case.given[index], argument.dtype)
                continue
            shape = tuple(dim if isinstance(dim, int) else sizes[symbol_name(dim)] for dim in argument.shape)
            array = random_array(true_types[index], shape, generator, case.low, case.high)
            inputs[argument.name] = array.astype(argument.dtype.numpy)
        check(module, inputs, TOLERANCE.get(dtype_name, 2e-5), targets, case.again and opset is None, opset)


def symbol_name(dim: Any) -> str:
    return str(dim)


ELSEWHERE = {"if", "loop", "bind", "refine", "assert", "assume", "trap", "extern"}
ON_PROCESSOR = {"silu", "quick_gelu", "rms_norm", "attention", "attention_rows", "cached_attention", "rotary_rows"}


def test_every_row_has_a_case() -> None:
    assert set(ROWS) == set(CASES) | ELSEWHERE


def pairs() -> list[Any]:
    return [
        pytest.param(
            case, dtype, ("portable", "cpu") if name in ON_PROCESSOR else ("portable",), id=f"{name}-{number}-{dtype}"
        )
        for name, cases in CASES.items()
        for number, case in enumerate(cases)
        for dtype in case.dtypes.split()
    ]


@pytest.mark.parametrize(("case", "dtype", "targets"), pairs())
def test_agrees_with_the_interpreter(case: Case, dtype: str, targets: tuple[str, ...]) -> None:
    run_case(case, dtype, targets)


# -- control flow, calls, data-dependent dims -----------------------------------------------------------------------


def read(*lines: str) -> Module:
    return parse("\n".join(["irc text 1", "module @m {", *lines, "}"]))


def test_if_sees_values_and_dims_around_it() -> None:
    module = read(
        "func @main<S in [1, 99]>(%c: bool[], %x: f32[S, 4]) -> (y: f32[4 * S], z: f32[S, 4]) {",
        "%n = neg %x : f32[S, 4]",
        "%y, %z = if %c : f32[4 * S], f32[S, 4] {",
        "  %a = reshape %n {shape = [4 * S]} : f32[4 * S]",
        "  yield %a, %n",
        "} else {",
        "  %two = const 2.0 : f32[]",
        "  %m = mul %x, %two : f32[S, 4]",
        "  %b = reshape %m {shape = [4 * S]} : f32[4 * S]",
        "  yield %b, %m",
        "}",
        "return %y, %z",
        "}",
    )
    for condition in (True, False):
        check(module, {"c": np.array(condition), "x": np.arange(12, dtype=np.float32).reshape(3, 4)}, again=False)


def test_loop_carries_scans_and_counts() -> None:
    module = read(
        "func @main<S in [1, 99]>(%n: i32[], %x: f32[S]) -> (last: f32[S], all: f32[r, S]) {",
        "%count = cast %n {to = i64, saturate = true} : i64[]",
        "%last, %all = loop %count, _, %x : f32[S], f32[?r in (0, 99), S] {",
        "  (%i: i64[], %go: bool[], %a: f32[S])",
        "  %f = cast %i {to = f32, saturate = true} : f32[]",
        "  %b = add %a, %f : f32[S]",
        "  %limit = const 4 : i64[]",
        "  %more = less %i, %limit : bool[]",
        "  yield %more, %b, %a",
        "}",
        "return %last, %all",
        "}",
    )
    for rounds in (1, 3, 9):
        check(module, {"n": np.array(rounds, np.int32), "x": np.arange(2, dtype=np.float32)}, again=False)


def test_bind_and_refine_give_dims() -> None:
    module = read(
        "func @main(%n: i32[], %x: f32[9]) -> (y: f32[L], z: i64[2]) {",
        "bind %n {symbol = ?K in (0, 9)}",
        "%s = slice %x {starts = [0], stops = [K], steps = [1]} : f32[K]",
        "%r = refine %s : f32[?L in (0, 9)]",
        "%d = dim {value = [L + 1, K * 2]} : i64[2]",
        "return %r, %d",
        "}",
    )
    for count in (0, 1, 7):
        check(module, {"n": np.array(count, np.int32), "x": np.arange(9, dtype=np.float32)}, again=False)


def test_a_symbol_is_solved_from_a_linear_dim() -> None:
    module = trace(lambda x: ops.dim(value=((x.shape[0] - 3) // 2, 1)), "f32[2*S + 3]")
    check(module, {"x": np.zeros(11, np.float32)}, again=False)


def test_calls_are_inlined() -> None:
    module = read(
        "func @main<B in [1, 9], S in [1, 9]>(%x: f32[B, S]) -> f32[B, S] {",
        "%f = call @twice %x : f32[B, S]",
        "%t = transpose %f {permutation = [1, 0]} : f32[S, B]",
        "%g = call @twice %t : f32[S, B]",
        "%y = transpose %g {permutation = [1, 0]} : f32[B, S]",
        "return %y",
        "}",
        "func @twice<N in [1, 99], M in [1, 99]>(%x: f32[N, M]) -> f32[N, M] {",
        "%i = iota {shape = [N, M], axis = 0, dtype = f32} : f32[N, M]",
        "%y = add %x, %i : f32[N, M]",
        "return %y",
        "}",
    )
    check(module, {"x": np.zeros((2, 3), np.float32)})


def test_asserts_leave_nothing_and_traps_are_refused() -> None:
    module = read(
        "func @main(%c: bool[], %x: f32[2]) -> f32[2] {",
        'assert %c {message = "no"}',
        "assume %c",
        "%y = neg %x : f32[2]",
        "return %y",
        "}",
    )
    model = check(module, {"c": np.array(True), "x": np.zeros(2, np.float32)})
    assert [node.op_type for node in model.graph.node] == ["Neg"]
    trapped = read(
        "func @main(%c: bool[], %x: f32[2]) -> f32[2] {",
        "%y = if %c : f32[2] { yield %x } else {",
        '  %t = trap {message = "no such path"} : f32[2]',
        "  yield %t",
        "}",
        "return %y",
        "}",
    )
    with pytest.raises(IrcError, match="no such path") as caught:
        backend.emit(trapped)
    assert caught.value.code == "backend.unsupported"


# -- kernels -------------------------------------------------------------------------------------------------------

KERNELS_TEXT = (
    "func @main<B in [1, 99], S in [1, 99]>(%x: f32[B, S]) -> (y: f32[B, S], z: f32[B, S]) {",
    "%w = const [1.0, 2.0, 3.0] : f32[3]",
    '%a = kernel @scale (%x0 = %x) {kind = "pointwise"} : f32[B, S] {',
    "  %two = const 2.0 : f32[]",
    "  %i = iota {shape = [B, S], axis = 1, dtype = f32} : f32[B, S]",
    "  %0 = mul %x0, %two : f32[B, S]",
    "  %1 = add %0, %i : f32[B, S]",
    "  yield %1",
    "}",
    '%b, %c = kernel @scale (%a0 = %a) {kind = "reduction"} : f32[B, S], f32[B, S] {',
    "  %2 = softmax %a0 {axis = -1} : f32[B, S]",
    "  %3 = silu %a0 : f32[B, S]",
    "  yield %2, %3",
    "}",
    '%d, %e = kernel @pair (%s0 = %b, %s1 = %w) {kind = "reduction"} : f32[B, S], f32[] {',
    "  %4 = reduce_sum %s1 {axes = [0], keep_dims = false} : f32[]",
    "  %5 = add %s0, %4 : f32[B, S]",
    "  yield %5, %4",
    "}",
    "%f = add %d, %e : f32[B, S]",
    "return %f, %c",
    "}",
)


def test_kernels_are_erased_or_kept() -> None:
    module = read(*KERNELS_TEXT)
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)}
    erased = check(module, inputs)
    assert not erased.functions
    kept = backend.emit(module, keep_kernels=True)
    onnx.checker.check_model(kept, full_check=True)
    assert [function.name for function in kept.functions] == ["scale", "scale_1", "pair"]
    assert [node.op_type for node in kept.graph.node if node.domain] == ["scale", "scale_1", "pair"]
    expected = interpreter.run(module, inputs)
    for optimized in (False, True):
        for name, array in run_model(kept, inputs, optimized).items():
            assert_close(array, expected[name], 1e-6, name)


def test_a_kernel_is_given_the_dims_that_it_lacks() -> None:
    module = read(
        "func @main<B in [1, 99]>(%x: f32[B]) -> f32[B] {",
        "%v = const 2.0 : f32[]",
        '%a = kernel @fill (%v0 = %v) {kind = "pointwise"} : f32[B] {',
        "  %0 = expand %v0 {shape = [B]} : f32[B]",
        "  yield %0",
        "}",
        "%y = add %a, %x : f32[B]",
        "return %y",
        "}",
    )
    kept = backend.emit(module, keep_kernels=True)
    assert list(kept.functions[0].input) == ["v0", "extent/B"]
    assert list(run_model(kept, {"x": np.ones(3, np.float32)})["y"]) == [3, 3, 3]
    check(module, {"x": np.ones(3, np.float32)})


# -- externs -------------------------------------------------------------------------------------------------------


def extern(version: int, op_type: str, attributes: str = "{}", domain: str = "", types: str = "f32[2, 3]") -> Module:
    return read(
        "func @main(%x: f32[2, 3]) -> f32[2, 3] {",
        f'%e = extern %x {{domain = "{domain}", op_type = "{op_type}", version = {version}, '
        f"attributes = {attributes}}} : {types}",
        "%y = neg %e : f32[2, 3]",
        "return %y",
        "}",
    )


def test_an_extern_keeps_its_meaning() -> None:
    """Shrink has not changed since 9; Softmax before 13 normalizes over several axes, and is converted."""
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    model = check(extern(9, "Shrink", "{lambd = 0.5}"), inputs, again=False)
    assert model.opset_import[0].version == 18
    model = check(extern(11, "Softmax", "{axis = 0}"), inputs, again=False)
    assert model.opset_import[0].version == 18 and len(model.graph.node) > 2
    if newest_opset() >= 24:
        model = check(extern(24, "Swish", "{alpha = 2.0}"), inputs, again=False)
        assert model.opset_import[0].version == 24
    model = check(extern(1, "FastGelu", domain="com.microsoft"), inputs, again=False)
    assert {each.domain for each in model.opset_import} == {"", "com.microsoft"}


# -- names, constants, bytes ---------------------------------------------------------------------------------------


def test_inputs_and_outputs_keep_their_names() -> None:
    module = read(
        'func @main(%"serving_default_input_2:0": f32[2], %x: f32[2])',
        '-> ("out:0": f32[2], same: f32[2], fixed: f32[2], x: f32[2]) {',
        '%x_1 = add %"serving_default_input_2:0", %x : f32[2]',
        "%c = const [1.0, 2.0] : f32[2]",
        "return %x_1, %x_1, %c, %x",
        "}",
    )
    model = check(
        module, {"serving_default_input_2:0": np.ones(2, np.float32), "x": np.ones(2, np.float32)}, again=False
    )
    assert [value.name for value in model.graph.input] == ["serving_default_input_2:0", "x"]
    assert [value.name for value in model.graph.output] == ["out:0", "same", "fixed", "x"]
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity", "Identity"]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_an_argument_and_another_result_may_not_share_a_name() -> None:
    module = trace(lambda x: ops.neg(x), "f32[2]")
    module.main.result_names = ("x",)
    with pytest.raises(IrcError, match="are called 'x'"):
        backend.emit(module)


def test_types_are_attached() -> None:
    module = trace(lambda x: ops.reshape(ops.exp(ops.neg(x)), shape=(x.shape[0] * x.shape[1],)), "f32[B, S]")
    model = backend.emit(module)
    described = {
        value.name: value.type.tensor_type.shape.dim for value in (*model.graph.value_info, *model.graph.output)
    }
    assert [[dim.dim_param for dim in shape] for shape in described.values()] == [["B", "S"], ["B", "S"], [""]]


@pytest.mark.parametrize("dtype", [dtype for dtype in dtypes.ALL if dtype.name not in ("f6e2m3", "f6e3m2")], ids=str)
def test_constants_of_every_type_come_back(dtype: DType) -> None:
    if dtype is dtypes.STRING:
        tensor = Tensor.of(np.array(["a", "", "é"], object), dtype, "kept")
    else:
        data = np.random.default_rng(1).integers(0, 2 if dtype is dtypes.BOOL else 256, dtype.packed_bytes(3), np.uint8)
        if dtype.sub_byte:
            data[-1] &= (1 << 3 * dtype.bits % 8) - 1 if 3 * dtype.bits % 8 else 255
        tensor = Tensor.packed(dtype, (3,), data.tobytes(), "kept")
    model = backend.emit(trace(lambda: const(value=tensor)))
    onnx.checker.check_model(model, full_check=True)
    (again,) = [operation for operation in from_model(model, Path()).walk() if operation.name == "const"]
    if dtype.is_complex:  # pairs
        tensor = Tensor.of(tensor.array()[:, np.newaxis].view(dtypes.part_of(dtype).numpy), name="kept")
    assert again.attributes["value"].digest() == tensor.digest()


def test_what_cannot_be_expressed_is_reported_at_once() -> None:
    def function(x: Any, y: Any) -> Any:
        return ops.erf(x), ops.conv(y, y, strides=(1,), dilations=(1,), low=(0,), high=(0,))

    with pytest.raises(IrcError) as caught:
        backend.emit(trace(function, "f64[2]", "i32[2, 2, 2]"))
    assert caught.value.code == "backend.unsupported"
    assert [diagnostic.message.split()[0] for diagnostic in caught.value.diagnostics] == ["erf", "conv"]


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(IrcError, match="portable or cpu"):
        Target("tpu")


def test_importing_the_backend_does_not_load_onnx() -> None:
    command = "import sys, irc.backends.onnx as b; b.Target('cpu'); sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


# -- files ---------------------------------------------------------------------------------------------------------


def weighted() -> Module:
    weight = Tensor.of(np.arange(4096, dtype=np.float32).reshape(64, 64), name="weight")
    return trace(lambda x: ops.matmul(x, const(value=weight)), "f32[B, 64]")


def test_large_weights_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "WHOLE_LIMIT", saving.RESERVE)
    path = tmp_path / "m.onnx"
    backend.save(weighted(), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 1024 and (tmp_path / "m.onnx.data").stat().st_size == 4 * 4096
    onnx.checker.check_model(str(path), full_check=True)
    assert backend.count_nodes(path) == 1
    x = np.ones((2, 64), np.float32)
    created = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(created.run(None, {"x": x})[0], x @ np.arange(4096, dtype=np.float32).reshape(64, 64))
    assert interpreter.run(load(path), {"x": x})


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(IrcError):
        backend.save(trace(lambda x: ops.erf(x), "f64[2]"), path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(IrcError, match="no folder"):
        backend.save(weighted(), tmp_path / "missing" / "m.onnx")


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    command = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); import test_onnx_backend as t;"
        "from irc.backends import onnx as b;"
        "m = b.emit(t.read(*t.KERNELS_TEXT), keep_kernels=True);"
        "print(hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest())"
    )
    root = Path(__file__).parents[1]
    actual = {
        subprocess.run([sys.executable, "-c", command], cwd=root, env={"PYTHONHASHSEED": seed, "PATH": ""}, check=True,
                       capture_output=True, text=True).stdout for seed in ("0", "1")
    }  # fmt: skip
    assert len(actual) == 1


# -- the runtime's table -------------------------------------------------------------------------------------------


def test_every_operator_of_the_table_is_one() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()} | CONTRIB
    assert set(KERNELS) <= known


# -- trained models ------------------------------------------------------------------------------------------------

MODELS = ("magika", "basic_pitch", "minilm_int8")
# ORT's own fusions move basic-pitch by 5e-5.
MODEL_TOLERANCE = 1e-4


def prepared(name: str, target: str, pipeline: str) -> Module:
    module = load(model_path(name))
    context = PassContext(target=Target(target))
    if pipeline:
        PassManager(parse_pipeline(pipeline, context), context).run(module)
    return module


@pytest.mark.parametrize(
    ("op_type", "types", "attributes", "result", "opset"),
    [
        ("Cast", ["float[B]"], {"to": 7}, "int64[B]", 21),
        ("Not", ["bool[B]"], {}, "bool[B]", 21),
        ("Softmax", ["float[B, S]"], {"axis": 0}, "float[B, S]", 13),
        ("ReduceMax", ["float[B, S]"], {"axes": [1]}, "float[B, 1]", 13),
        ("Mod", ["float[B]", "float[B]"], {"fmod": 1}, "float[B]", 13),
        ("CumSum", ["float[B, S]", "int64[]"], {"reverse": 1}, "float[B, S]", 14),
        ("RMSNormalization", ["float[B, 4]", "float[4]"], {}, "float[B, 4]", 23),
        ("Attention", ["float[B, 2, S, 4]"] * 3, {"is_causal": 1}, "float[B, 2, S, 4]", 23),
        ("Swish", ["float[B]"], {"alpha": 1.5}, "float[B]", 24),
        ("Celu", ["float[B]"], {}, "float[B]", 12),
        ("GlobalMaxPool", ["float[B, 2, S]"], {}, "float[B, 2, 1]", 9),
        ("Max", ["float[B]"] * 3, {}, "float[B]", 13),
        ("MatMulInteger", ["uint8[B, 4]", "int8[4, 3]", "uint8[1]", "int8[3]"], {}, "int32[B, 3]", 10),
        ("Tile", ["float[2, 3]", "int64[2]"], {}, "float[N, M]", 13),
        ("Expand", ["float[1, 1]", "int64[2]"], {}, "float[N, M]", 13),
        ("ConstantOfShape", ["int64[3]"], {}, "float[N, M, K]", 9),
    ],
)
def test_what_onnx_has_whole_stays_whole(
    op_type: str, types: list[str], attributes: dict[str, Any], result: str, opset: int
) -> None:
    names = [f"i{index}" for index in range(len(types))]
    given = ", ".join(f"{key} = {value}" for key, value in attributes.items())
    nodes = f"y = {op_type} {f'<{given}>' if given else ''} ({', '.join(names)})"
    if op_type == "CumSum":
        nodes, types, names = nodes.replace("i1", "axis"), types[:1], names[:1]
    inputs = ", ".join(f"{type_} {name}" for type_, name in zip(types, names, strict=True))
    constants = "<int64 axis = {1}>" if op_type == "CumSum" else ""
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({result} y) {constants} {{ {nodes} }}'
    model = backend.emit(from_model(onnx.parser.parse_model(text), Path()))
    assert [node.op_type for node in model.graph.node] == ["Expand" if op_type == "ConstantOfShape" else op_type]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", MODELS)
def test_import_then_export_does_not_grow(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    backend.save(prepared(name, "portable", ""), path)
    assert backend.count_nodes(path) <= backend.count_nodes(model_path(name))


@pytest.mark.parametrize("target", backend.TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_trained_models(name: str, target: str) -> None:
    model = backend.emit(prepared(name, target, backend.PIPELINE), target=Target(target))
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) <= len(onnx.load(model_path(name), load_external_data=False).graph.node)
    inputs = model_inputs(name, seed=3)
    expected = reference_outputs(model_path(name), inputs)
    for optimized in (False, True):
        for output, array in run_model(model, inputs, optimized).items():
            assert relative_error(array, expected[output]) < MODEL_TOLERANCE
    if name == "minilm_int8":
        bytes_of_weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        kept = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        assert sum(len(tensor.raw_data) for tensor in kept) > 0.95 * bytes_of_weights


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_with_kernels_kept(name: str) -> None:
    model = backend.emit(prepared(name, "portable", backend.KERNELS_PIPELINE), keep_kernels=True)
    onnx.checker.check_model(model, full_check=True)
    assert model.functions
    inputs = model_inputs(name, seed=3)
    expected = reference_outputs(model_path(name), inputs)
    for optimized in (False, True):
        for output, array in run_model(model, inputs, optimized).items():
            assert relative_error(array, expected[output]) < MODEL_TOLERANCE


@pytest.mark.parametrize("name, attributes", [
    ("layer_norm", {"epsilon": 1e-5}), ("rms_norm", {"epsilon": 1e-5}), ("leaky_relu", {"alpha": 0.1}),
    ("elu", {"alpha": 0.7}), ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}), ("softmax", {}),
])  # fmt: skip
def test_attributes_are_as_exact_as_f64(name: str, attributes: dict[str, float]) -> None:
    """Attributes of ONNX are f32: an epsilon of 1e-5 is another number there."""
    module = trace(lambda x: ops.lookup(name)(x, **attributes), "f64[3, 5]")
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 5))}
    (actual,) = run_model(backend.emit(module), inputs).values()
    (expected,) = interpreter.run(module, inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
