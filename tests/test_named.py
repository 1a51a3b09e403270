"""Named ops: each against eager PyTorch and against ONNX Runtime (one node, optimizations off), per dtype.

A case states inputs, attributes and both references. It runs with static dims and with a symbol for every size;
its type rule must give the types that its body has. Errors are max|a - b| / max|b| over finite elements, and
infinities and NaNs must stand in the same places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from irc import dims, ops
from irc.diagnostics import IrcError
from irc.dtypes import F8E4M3FN, F8E5M2, F16, F32, I8, I16, I32, I64, U8, DType
from irc.interpreter import run
from irc.module import Module
from irc.op import OperationDefinition
from irc.types import TensorType
from tests import named_numeric_cases, named_tensor_cases
from tests.named_cases import (
    FLOATS,
    NAN,
    TOLERANCE,
    Case,
    arrays_of,
    assert_close,
    check,
    evaluate,
    from_torch,
    operand_types,
    random,
    run_onnx,
)

CASES = [*named_numeric_cases.CASES, *named_tensor_cases.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_case(case: Case) -> None:
    for dtype in case.dtypes:
        check(case, dtype)


# -- what cases cannot show ------------------------------------------------------------------------------------

NAMED = [definition for definition in ops.TABLE.values() if definition.is_named]
B, C, S, T = (dims.symbol(name).expr for name in "BCST")


def infer(name: str, *types: TensorType | None, **attributes: Any) -> tuple[TensorType, ...]:
    """Result types by the rule, which must be the body's."""
    definition = ops.lookup(name)
    normal = definition.normalize(attributes)
    result = definition.infer(types, normal)
    assert result == tuple(value.type for value in definition.body(types, normal).returned)
    return result


def refused(code: str, name: str, *types: TensorType | None, **attributes: Any) -> str:
    """The message with which an operation rejects its operands."""
    definition = ops.lookup(name)
    with pytest.raises(IrcError) as caught:
        definition.infer(types, definition.normalize(attributes))
    first = caught.value.diagnostics[0]
    assert first.code == code
    assert name in first.message
    return first.message


def f32(*shape: dims.Dim) -> TensorType:
    return TensorType(F32, shape)


@pytest.mark.parametrize("definition", NAMED, ids=lambda definition: definition.name)
def test_every_named_op_has_cases_and_a_page(definition: OperationDefinition) -> None:
    assert any(case.op == definition.name for case in CASES)
    summary, *sections = definition.doc.split("\n")
    assert summary.endswith(".") and len(summary) <= 100
    assert any(line.startswith("Shapes:") for line in sections)
    assert any(line.startswith("Source:") for line in sections)
    if definition.attribute_specs:
        attributes = definition.doc[definition.doc.index("Attributes:") :]
        assert all(name in attributes for name in definition.attribute_specs)


@pytest.mark.parametrize("definition", NAMED, ids=lambda definition: definition.name)
def test_f32_is_not_cast(definition: OperationDefinition) -> None:
    case = next(case for case in CASES if case.op == definition.name)
    if F32 not in case.dtypes or definition.name in ("quantize", "dequantize", "dynamic_quantize"):
        return
    types = operand_types(arrays_of(case, F32), False, {})
    body = definition.body(types, definition.normalize(case.attributes))
    floats = [step for step in body.block if step.name == "cast" and step.operands[0].dtype.is_float]
    assert [step for step in floats if step.attributes["to"].is_float] == []


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_spellings_mean_what_the_body_means(dtype: DType) -> None:
    tested = 0
    for case in CASES:
        definition = ops.lookup(case.op)
        if not definition.spellings or case.each or case.note or dtype not in case.dtypes or case.loose > 20:
            continue
        arrays = arrays_of(case, dtype)
        if any(array is not None and array.size == 0 for array in arrays):
            continue
        (expected,) = evaluate(case.op, arrays, case.attributes)
        types = operand_types(arrays, False, {})
        inputs = [array for array in arrays if array is not None]
        for index in range(len(definition.spellings)):
            function = definition.body(types, definition.normalize(case.attributes), index)
            names = [argument.name for argument in function.arguments]
            (result,) = run(Module("test", [function]), dict(zip(names, inputs, strict=True))).values()
            assert_close(result, expected, TOLERANCE[dtype.name] * 8)
            tested += 1
    assert tested > 60


def test_types_keep_symbols() -> None:
    assert infer("matmul", f32(B, 1, S, 4), f32(1, C, 4, T)) == (f32(B, C, S, T),)
    assert infer("matmul", f32(B, S, 4), f32(C, 4, T)) == (f32(dims.broadcast(B, C), S, T),)
    assert infer("matmul", f32(4), f32(B, C, 4, T)) == (f32(B, C, T),)
    assert infer("layer_norm", f32(B, S, 8), f32(T), f32(8)) == (f32(B, S, 8),)
    assert infer("layer_norm", f32(B, S), f32(T), f32(C)) == (f32(B, S),)
    assert infer("clip", f32(B, S), f32(T), f32(C)) == (f32(B, S),)
    assert infer("clip", f32(B, S), None, f32(C)) == (f32(B, S),)
    assert infer("prelu", f32(B, S), f32(T)) == (f32(B, S),)
    assert infer("gemm", f32(B, 4), f32(4, S), f32(C, T)) == (f32(B, S),)
    assert infer("batch_norm", f32(B, S), *[f32(T)] * 4) == (f32(B, S),)
    assert infer("attention", f32(B, 6, S, 8), f32(B, 2, T, 8), f32(B, 2, T, 5), f32(B, 1, C, T)) == (f32(B, 6, S, 5),)
    assert infer("attention", *[f32(B, 2, S, 8)] * 3, f32(C, 1, T, S)) == (f32(B, 2, S, 8),)
    assert infer("attention", *[f32(B, C, S, T)] * 3) == (f32(B, C, S, T),)
    assert infer("resize", f32(B, 3, S, 5), scales=(1.0, 1.0, 0.7, 2.0)) == (f32(B, 3, S * 7 // 10, 10),)
    assert infer("resize", f32(B, 3, S, T), sizes=(B, 3, 2 * S, 7), mode="linear") == (f32(B, 3, 2 * S, 7),)
    assert infer("tile", f32(B, 3), repeats=(2, S)) == (f32(2 * B, 3 * S),)
    assert infer("one_hot", TensorType(I64, (B, S)), f32(2), depth=T, axis=1) == (f32(B, T, S),)
    assert infer("gather_nd", f32(B, S, 4), TensorType(I64, (B, T, 1)), batch_dims=1) == (f32(B, T, 4),)
    assert infer("top_k", f32(B, S), k=S, axis=1) == (f32(B, S), TensorType(I64, (B, S)))
    window = {"kernel": (3,), "strides": (2,), "low": (1,), "high": (1,), "dilations": (1,)}
    assert infer("average_pool", f32(B, C, S), **window) == (f32(B, C, (S - 1) // 2 + 1),)


def test_sizes_of_scales_are_those_of_onnx_runtime() -> None:
    """floor of the product in f32, though the scale may be held only nearly."""
    for scale in (0.5, 2.0, 0.7, 1.1, 0.3, 1 / 3, 4 / 3, 2.6, 1.7):
        for size in (1, 3, 7, 10, 30, 64, 299, 600):
            ((result,),) = (type_.dims for type_ in infer("resize", f32(size), scales=(float(np.float32(scale)),)))
            assert result == int(np.float32(scale) * np.float32(size)), (scale, size)


def test_nearest_chooses_what_onnx_runtime_chooses() -> None:
    """Also where positions in f32 miss an integer or a half by a rounding."""
    for old, new in ((7, 2), (20, 6), (26, 11), (6, 14), (5, 3), (3, 31), (31, 29)):
        x = np.arange(old, dtype=np.float32)
        for coordinates in ("asymmetric", "half_pixel", "align_corners"):
            for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                (result,) = evaluate("resize", [x], {"sizes": (new,), "coordinates": coordinates, "nearest": nearest})
                settings = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
                (expected,) = run_onnx("Resize", [x, None, None, np.array([new])], settings, 19)
                assert np.array_equal(result, expected), (old, new, coordinates, nearest)


def test_symbolic_head_size_and_mean() -> None:
    """Sizes that are known only at run time enter the arithmetic."""
    q = random(2, 3, 4, 9).astype(np.float32)
    (result,) = evaluate("attention", [q, q, q], {}, symbolic=True)
    assert_close(result, from_torch(named_numeric_cases.attention(*[torch.from_numpy(q)] * 3)), 1e-5)
    (mean,) = evaluate("reduce_mean", [q], {"axes": (0, 3)}, symbolic=True)
    assert_close(mean, q.mean((0, 3)), 1e-5)


def test_attention_copies_nothing_for_shared_heads() -> None:
    definition = ops.lookup("attention")
    types = [f32(B, 8, S, 16), f32(B, 2, T, 16), f32(B, 2, T, 16)]
    names = [step.name for step in definition.body(types, definition.normalize({})).block]
    assert "expand" not in names and names.count("dot") == 2


def test_matmul_copies_nothing_to_broadcast() -> None:
    definition = ops.lookup("matmul")
    for x, y in ((f32(B, C, S, 4), f32(B, 1, 4, T)), (f32(1, S, 4), f32(C, 4, T)), (f32(S, 4), f32(B, 4, T))):
        names = [step.name for step in definition.body([x, y], {}).block]
        assert names.count("dot") == 1 and "expand" not in names


def test_f8_saturates() -> None:
    x = np.array([0.0, 1.0, 17.3, 1e6, -1e6, NAN], np.float32)
    for to, narrow in ((F8E4M3FN, torch.float8_e4m3fn), (F8E5M2, torch.float8_e5m2)):
        largest = torch.finfo(narrow).max
        expected = (torch.from_numpy(x) / 0.5).clamp(-largest, largest).to(narrow).float().numpy()
        (result,) = evaluate("quantize", [x, np.array(0.5, np.float32), np.zeros((), to.numpy)], {"to": to})
        assert np.array_equal(result.astype(np.float32), expected, equal_nan=True)
        (back,) = evaluate("dequantize", [result, np.array(0.5, np.float32)], {})
        assert np.array_equal(back, expected * 0.5, equal_nan=True)


def test_average_pool_with_ceil_mode() -> None:
    """ceil_mode is a larger `high`; with count_include_pad the zeros that count are a pad of their own."""
    x = random(1, 2, 8).astype(np.float32)
    window = {"kernel": (3,), "strides": (2,), "dilations": (1,)}
    settings = {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1), "ceil_mode": 1}
    (result,) = evaluate("average_pool", [x], {**window, "low": (1,), "high": (2,)})
    (expected,) = run_onnx("AveragePool", [x], settings, 19)
    assert_close(result, expected, 1e-6)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1)])
    (result,) = evaluate("average_pool", [padded], {**window, "low": (0,), "high": (1,)})
    assert_close(result, F.avg_pool1d(torch.from_numpy(x), 3, 2, 1, True, True).numpy(), 1e-6)


def test_sizes_beyond_an_integer_type_wrap_like_sums() -> None:
    x = np.ones((2, 300), np.int8)
    for symbolic in (False, True):
        assert evaluate("reduce_mean", [x], {"axes": (1,)}, symbolic=symbolic)[0].tolist() == [1, 1]


def test_large_values_do_not_overflow() -> None:
    x = np.array([[500.0, 1000.0, -1000.0]], np.float32)
    assert np.array_equal(evaluate("softmax", [x], {})[0], np.array([[0, 1, 0]], np.float32))
    assert np.array_equal(evaluate("log_softmax", [x], {})[0], np.array([[-500, 0, -2000]], np.float32))
    assert np.array_equal(evaluate("softplus", [x], {})[0], np.array([[500, 1000, 0]], np.float32))
    assert np.array_equal(evaluate("sigmoid", [x], {})[0], np.array([[1, 1, 0]], np.float32))
    narrow = np.full((1, 4096), 100.0, np.float16)  # the sum of squares leaves f16's range
    assert evaluate("reduce_mean", [narrow], {"axes": (1,)})[0][0] == 100
    assert np.allclose(evaluate("rms_norm", [narrow], {})[0].astype(np.float32), 1)


def test_errors_speak_of_the_named_op() -> None:
    assert "scale" in refused("type.broadcast", "layer_norm", f32(B, 8), f32(7))
    assert "8" in refused("type.shape", "matmul", f32(B, 8), f32(7, 4))
    refused("type.rank", "matmul", f32(), f32(7))
    refused("type.broadcast", "matmul", f32(2, 3, 4), f32(5, 4, 3))
    refused("type.dtype", "matmul", f32(3, 4), TensorType(F16, (4, 5)))
    refused("type.rank", "softmax", f32(B, 8), axis=2)
    refused("type.attribute", "reduce_mean", f32(B, 8), axes=(1, -1))
    refused("type.dtype", "gelu", TensorType(I64, (B,)))
    refused("type.attribute", "celu", f32(B), alpha=0.0)
    refused("type.operands", "clip", f32(B))
    refused("type.broadcast", "clip", f32(B), f32(3, 1))
    refused("type.dtype", "clip", f32(B), TensorType(F16, ()))
    refused("type.broadcast", "prelu", f32(2, 3, 4), f32(3))
    refused("type.shape", "batch_norm", f32(2, 3, 4), f32(3), f32(3), f32(3), f32(4))
    refused("type.rank", "instance_norm", f32(2, 3), f32(3), f32(3))
    refused("type.shape", "group_norm", f32(2, 6, 4), groups=4)
    refused("type.attribute", "group_norm", f32(2, 6, 4), groups=0)
    refused("type.rank", "gemm", f32(2, 3, 4), f32(4, 5))
    refused("type.broadcast", "gemm", f32(3, 4), f32(4, 5), f32(2, 3, 5))
    refused("type.rank", "linear", f32(3, 4), f32(4, 5), f32(1, 5))
    refused("type.shape", "linear", f32(3, 4), f32(5, 4), f32(4))
    refused("type.shape", "linear", f32(3, 4), f32(4, 5), f32(4))
    refused("type.attribute", "gemm", TensorType(I32, (3, 4)), TensorType(I32, (4, 5)), alpha=0.5)
    refused("type.dtype", "matmul_integer", TensorType(I16, (3, 4)), TensorType(I8, (4, 5)))
    refused("type.shape", "matmul_integer", TensorType(I8, (3, 4)), TensorType(I8, (4, 5)), None, TensorType(I8, (3,)))
    q = f32(B, 6, S, 8)
    refused("type.shape", "attention", q, f32(B, 4, T, 8), f32(B, 4, T, 8))
    refused("type.shape", "attention", q, f32(B, 2, T, 7), f32(B, 2, T, 8))
    refused("type.rank", "attention", f32(B, S, 8), f32(B, S, 8), f32(B, S, 8))
    refused("type.dtype", "attention", q, q, q, TensorType(I64, (S, S)))
    refused("type.broadcast", "attention", q, q, q, f32(B, 5, S, S))
    refused("type.attribute", "quantize", f32(B), f32(), to=I32)
    refused("type.dtype", "quantize", f32(B), f32(), TensorType(I8, ()), to=U8)
    refused("type.shape", "quantize", f32(B, 5), f32(4), to=U8)
    refused("type.rank", "dequantize", TensorType(I8, (4, 6)), f32(2, 6))
    refused("type.shape", "depth_to_space", f32(1, 6, 2, 2), block=2)
    refused("type.shape", "space_to_depth", f32(1, 6, 3, 2), block=2)
    refused("type.shape", "gather_nd", f32(3, 4), TensorType(I64, (5, 3)))
    refused("type.shape", "gather_nd", f32(3, 4), TensorType(I64, (5, S)))
    refused("type.attribute", "top_k", f32(3, 4), k=5)
    refused("type.shape", "one_hot", TensorType(I64, (3,)), f32(3), depth=4)
    refused("type.attribute", "resize", f32(3, 4))
    refused("type.attribute", "resize", f32(3, 4), sizes=(3, 4), scales=(1.0, 1.0))
    refused("type.attribute", "resize", f32(3, 4), scales=(1.0, -1.0))
    refused("type.dtype", "resize", TensorType(U8, (3, 4)), sizes=(6, 8), mode="linear")
    refused("type.rank", "global_max_pool", f32(3, 4))
    cell = f32(S, B, 3), f32(1, 20, 3), f32(1, 20, 5)
    refused("type.rank", "lstm", f32(B, S, 3, 1), *cell[1:])
    refused("type.shape", "lstm", *cell, direction="bidirectional")
    refused("type.shape", "lstm", *cell, f32(1, 20))
    refused("type.shape", "gru", *cell)
    refused("type.shape", "rnn", f32(S, B, 3), f32(1, 5, 3), f32(1, 5, 5), None, None, f32(1, B, 4))
    refused("type.dtype", "lstm", *cell, TensorType(F16, (1, 40)))
    window = {"kernel": (3,), "strides": (1,), "low": (0,), "high": (0,), "dilations": (1,)}
    refused("type.shape", "max_pool", f32(1, 2, 2), **window)
    refused("type.attribute", "max_pool", f32(1, 2, 4, 4), **window)


def test_modes_that_are_not_there_are_named() -> None:
    for name, settings in (
        ("gelu", {"approximate": "erf"}), ("resize", {"mode": "lanczos"}),
        ("resize", {"coordinates": "tf_crop_and_resize"}), ("depth_to_space", {"block": 2, "mode": "X"}),
        ("lp_normalize", {"p": 3}), ("attention", {"masked_rows": "one"}),
    ):  # fmt: skip
        with pytest.raises(IrcError) as caught:
            ops.lookup(name).normalize(settings)
        assert caught.value.diagnostics[0].code == "type.attribute"
        assert repr(list(settings.values())[-1]) in caught.value.diagnostics[0].message
