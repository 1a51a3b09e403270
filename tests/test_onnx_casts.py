"""Products at which ONNX Runtime would end the process: irc writes casts before the transposes that they read, and a
Reshape after those that may be empty; an Einsum of what may be empty is guarded."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

import irc
from irc import interpreter, ops
from irc.backends.onnx import KERNELS_PIPELINE, PIPELINE, emit
from irc.dtypes import BF16, F16, F32, F64, I64, DType
from irc.ir import Value
from irc.module import EdgeCases
from irc.op import const, trace
from irc.weights import Tensor
from tests.onnx_models import check_close, imported, in_filled_memory

PAIRS = [(F16, F16), (F16, F32), (BF16, F32), (F64, F32), (F32, F64), (I64, F32)]


def random(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    array = np.random.default_rng(0).integers(-4, 5, shape)
    return array.astype(ml_dtypes.bfloat16 if dtype is BF16 else dtype.numpy)


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize(("source", "to"), PAIRS, ids=lambda dtype: dtype.name)
def test_products_of_what_is_transposed_and_cast(source: DType, to: DType, rank: int) -> None:
    shape = (2, 3, 4, 5)[:rank]
    for permutation in itertools.permutations(range(rank)):
        rows, columns = shape[permutation[-2]], shape[permutation[-1]]
        left, right = random((6, rows), to), random((columns, 6), to)

        def program(x: Value, order: tuple[int, ...] = permutation, left: np.ndarray = left,
                    right: np.ndarray = right) -> tuple[Value, Value]:  # fmt: skip
            y = ops.cast(ops.transpose(x, permutation=order), to=to)
            return ops.matmul(y, const(value=Tensor.of(right, to))), ops.matmul(const(value=Tensor.of(left, to)), y)

        module = trace(program, f"{source.name}[{', '.join(map(str, shape))}]")
        inputs = {"x": random(shape, source)}
        expected = interpreter.run(module, inputs)
        for name, result in irc.run(module, inputs, backend="onnx").outputs.items():
            np.testing.assert_array_equal(result, expected[name])


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("dtype", [F16, F32, F64], ids=lambda dtype: dtype.name)
def test_products_of_what_is_transposed_and_vectors(dtype: DType, rank: int) -> None:
    shape = (2, 3, 4, 5)[:rank]
    for permutation in itertools.permutations(range(rank)):
        rows, columns = shape[permutation[-2]], shape[permutation[-1]]

        def program(x: Value, row: Value, column: Value, order: tuple[int, ...] = permutation) -> tuple[Value, ...]:
            y = ops.transpose(x, permutation=order)
            constant = const(value=Tensor.of(random(column.shape, dtype), dtype))
            return (ops.matmul(y, column), ops.matmul(row, y), ops.matmul(ops.abs_(y), column),
                    ops.matmul(y, constant))  # fmt: skip

        module = trace(program, *(f"{dtype.name}[{', '.join(map(str, each))}]" for each in (shape, [rows], [columns])))
        inputs = {name: random(each, dtype) for name, each in (("x", shape), ("row", (rows,)), ("column", (columns,)))}
        expected = interpreter.run(module, inputs)
        for name, result in irc.run(module, inputs, backend="onnx").outputs.items():
            np.testing.assert_array_equal(result, expected[name])


def test_what_is_made_by_a_row_of_the_table_is_seen() -> None:
    """The transpose after the Scan of a running minimum is no operation of the module."""
    def program(x: Value) -> Value:
        least = ops.scan(x, axis=-1, kind="min")
        return ops.matmul(least, const(value=Tensor.of(random((1, 5), F16), F16)))

    module = trace(program, "f16[7, 3, 1]")
    inputs = {"x": random((7, 3, 1), F16)}
    expected = interpreter.run(module, inputs)
    for name, result in irc.run(module, inputs, backend="onnx").outputs.items():
        np.testing.assert_array_equal(result, expected[name])


def test_other_transposes_stay() -> None:
    def program(x: Value) -> Value:
        return ops.matmul(ops.transpose(x, permutation=(0, 2, 1)), const(value=Tensor.of(random((3, 5), F16), F16)))

    model = emit(irc.opt(trace(program, "f16[2, 3, 4]"), "legalize", backend="onnx"))
    assert [node.op_type for node in model.graph.node] == ["Transpose", "MatMul"]
    onnx.checker.check_model(model)


EMPTY_PRODUCTS = [
    "(float[B, 2, 3] x) => (y) { a = Transpose<perm=[1,0,2]>(x) b = Transpose<perm=[0,2,1]>(a) y = MatMul(a, b) }",
    "(float[0, 2, 3] x) => (y) { a = Transpose<perm=[1,2,0]>(x) b = Transpose<perm=[1,0,2]>(x) y = MatMul(a, b) }",
    "(double[B, 2, 3] x, double[2, 3, 4] z) => (y) { a = Transpose<perm=[1,0,2]>(x) y = MatMul(a, z) }",
    "(float16[B, 2, 3] x, float16[2, 3, 4] z) => (y) { a = Transpose<perm=[1,0,2]>(x) y = MatMul(a, z) }",
    """(float16[B, 2, 3] x, float[2, 4, 3] z) => (y) {
           a = Transpose<perm=[1,2,0]>(x) b = Cast<to=1>(a) y = MatMul(z, b) }""",
    """(float[B, 2, 3] x, float[2, 4, 3] z) => (y) {
           a = Transpose<perm=[1,0,2]>(x) b = Tanh(a) c = Transpose<perm=[0,2,1]>(b) y = MatMul(z, c) }""",
    """(float[B, 2, 5, 3] x, float[2, 5, 3, 4] z) => (y, v) {
           a = Transpose<perm=[1,2,0,3]>(x) y = MatMul(a, z) b = Softmax(a) v = MatMul(b, z) }""",
    """(float[B, 2, 3] x, float[2, 4, 3] z, bool c) => (y) {
           y = If (c) <then_branch = t () => (u) { a = Transpose<perm=[1,2,0]>(x) u = MatMul(z, a) },
                       else_branch = e () => (w) { d = Transpose<perm=[1,2,0]>(x) b = Neg(d) w = MatMul(z, b) }> }""",
    """(float[B, 2, 3] x, float[B, 3, 4] z) => (y) {
           a = Einsum<equation="bij,bjk->ijkb">(x, z) b = Einsum<equation="bij,bij->ij">(x, x)
           y = Einsum<equation="ijkb,ij->jkb">(a, b) }""",
]


@pytest.mark.parametrize("graph", EMPTY_PRODUCTS)
def test_products_of_empty_transposes(graph: str) -> None:
    module = imported(graph)
    models = [emit(irc.opt(module, "legalize", backend="onnx")), emit(irc.opt(module, PIPELINE, backend="onnx")),
              emit(irc.opt(module, KERNELS_PIPELINE, backend="onnx"), keep_kernels=True)]  # fmt: skip
    for model in models:
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for size in (0, 1, 3):
            inputs = {x.name: np.ones([extent if isinstance(extent, int) else size for extent in x.type.dims],
                                      x.type.dtype.numpy) for x in module.main.arguments}  # fmt: skip
            results = zip(session.run(None, inputs), interpreter.run(module, inputs).values(), strict=True)
            for actual, expected in results:
                check_close(actual, expected, 1e-3)


@pytest.mark.parametrize("extent", ["B", "0", "5"])
def test_only_what_may_be_empty_is_reshaped(extent: str) -> None:
    graph = "x, float[2, 3, 4] z) => (y) { a = Transpose<perm=[1,0,2]>(x) y = MatMul(a, z) }"
    model = emit(imported(f"(float[{extent}, 2, 3] {graph}"))
    kept = [] if extent == "5" else ["Reshape"]
    assert [node.op_type for node in model.graph.node] == ["Transpose", *kept, "MatMul"]
    onnx.checker.check_model(model)
    never_empty = imported(f"(float[2, B, 3] {graph}")
    assert [node.op_type for node in emit(never_empty).graph.node] == ["Transpose", "MatMul"]


@pytest.mark.parametrize("edge_cases", ["onnx", "defined"])
@pytest.mark.parametrize("equation", ["abcde,abfe->abcdf", "abcd,abd->abc", "abc,dc->abd", "abc,adec->abde"])
def test_einsum_over_empty_axes(equation: str, edge_cases: EdgeCases) -> None:
    """ONNX Runtime divides by the extent of an axis that both operands have, also of one that is not summed over."""
    x, y = equation.split("->")[0].split(",")
    declared = ", ".join(f"float[{', '.join(letters.upper())}] {name}" for name, letters in (("x", x), ("y", y)))
    module = imported(f'({declared}) => (z) {{ z = Einsum <equation = "{equation}"> (x, y) }}')
    module.edge_cases = edge_cases
    proto = emit(irc.opt(module, PIPELINE, backend="onnx"))
    for empty in ("", *sorted({*x, *y})):
        sizes = {letter: 0 if letter == empty else index + 2 for index, letter in enumerate(sorted({*x, *y}))}
        feed = {name: random(tuple(sizes[each] for each in letters), F32) for name, letters in (("x", x), ("y", y))}
        (actual,) = in_filled_memory(proto, feed)
        check_close(actual, np.einsum(equation, *feed.values()))
