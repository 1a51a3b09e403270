"""Transposes before products, at which ONNX Runtime would end the process: irc writes the casts before them."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import onnx
import pytest

import irc
from irc import interpreter, ops
from irc.backends.onnx import emit
from irc.dtypes import BF16, F16, F32, F64, I64, DType
from irc.ir import Value
from irc.op import const, trace
from irc.weights import Tensor

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
