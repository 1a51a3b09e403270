"""How named operations are compared with PyTorch and ONNX Runtime: cases, and running one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from irc import dims, dtypes, ops
from irc.dtypes import BF16, F16, F32, F64, I64, DType
from irc.interpreter import run
from irc.module import Module
from irc.op import OperationDefinition, trace_function
from irc.types import TensorType

FLOATS = (F64, F32, F16, BF16)
TOLERANCE = {"f64": 1e-12, "f32": 3e-6, "f16": 2e-3, "bf16": 1.6e-2}
TORCH = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
INF, NAN = float("inf"), float("nan")
SPECIAL = np.array([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 1e-3, -1e-3, 100.0, -100.0, 60000.0, -60000.0])
Array = np.ndarray
Static = dict[int, tuple[int, ...]]
NOTHING_STATIC: Static = {}


# -- running a case three ways ---------------------------------------------------------------------------------

def operand_types(arrays: Sequence[Array | None], symbolic: bool, static: Static) -> list[TensorType | None]:
    """Types of arrays: `symbolic` makes a symbol for each size of 1 and more, but for axes that `static` keeps."""
    symbols: dict[int, dims.Dim] = {}
    types: list[TensorType | None] = []
    for index, array in enumerate(arrays):
        if array is None:
            types.append(None)
            continue
        shape: list[dims.Dim] = list(array.shape)
        for axis, size in enumerate(array.shape):
            if symbolic and size > 1 and axis not in static.get(index, ()):
                shape[axis] = symbols.setdefault(size, dims.symbol(f"D{size}").expr)
        types.append(TensorType(dtypes.from_numpy(array.dtype), shape))
    return types


def evaluate(
    name: str,
    arrays: Sequence[Array | None],
    attributes: dict[str, Any],
    symbolic: bool = False,
    static: Static = NOTHING_STATIC,
) -> list[Array]:
    """The results of one operation under the interpreter; checks its type rule against its body on the way."""
    definition: OperationDefinition = ops.lookup(name)
    types = operand_types(arrays, symbolic, static)
    normal = definition.normalize(attributes)
    inferred = definition.infer(types, normal)
    assert inferred == tuple(value.type for value in definition.body(types, normal).returned)
    names = [f"x{index}" for index in range(len(types))]
    function = trace_function("main", lambda *values: definition(*values, **attributes), types, names)
    for type_ in types:
        for symbol in () if type_ is None else type_.symbols():
            function.symbols.setdefault(symbol.name, symbol)
    inputs = {f"x{index}": array for index, array in enumerate(arrays) if array is not None}
    results = list(run(Module("test", [function]), inputs).values())
    for type_, result in zip(inferred, results, strict=True):
        assert result.dtype == type_.dtype.numpy
        assert len(result.shape) == type_.rank
    return results


def to_torch(array: Array | None) -> torch.Tensor | None:
    if array is None:
        return None
    if array.dtype == BF16.numpy:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def from_torch(tensor: torch.Tensor) -> Array:
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy().astype(BF16.numpy)
    return tensor.numpy()


def run_onnx(
    op_type: str, arrays: Sequence[Array | None], attributes: dict[str, Any], opset: int, results: int = 1
) -> list[Array]:
    """One node under ONNX Runtime, nothing optimized."""
    names = ["" if array is None else f"x{index}" for index, array in enumerate(arrays)]
    outputs = [f"y{index}" for index in range(results)]
    node = onnx.helper.make_node(op_type, names, outputs, **attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(name, dtypes.from_numpy(array.dtype).onnx, array.shape)
        for name, array in zip(names, arrays, strict=True)
        if array is not None
    ]
    graph = onnx.helper.make_graph(
        [node], "test", inputs, [onnx.helper.make_empty_tensor_value_info(output) for output in outputs]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: array for name, array in zip(names, arrays, strict=True) if array is not None})


def assert_close(actual: Array, expected: Array, tolerance: float, each: bool = False) -> None:
    """Same type, shape, NaNs and infinities; finite elements within `tolerance` of the greatest, or of themselves."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind in "iub":
        assert np.array_equal(actual, expected)
        return
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    assert np.array_equal(np.isnan(a), np.isnan(b))
    infinite = np.isinf(a) | np.isinf(b)
    assert np.array_equal(a[infinite], b[infinite])
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if a.size:
        assert (np.abs(a - b) <= tolerance * np.maximum(np.abs(b) if each else np.abs(b).max(), 1e-30)).all()


@dataclass
class Case:
    """Inputs (floats, converted to each dtype; integers and bools as they are) and two references."""

    op: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    torch: Callable[..., Any] | None = None
    onnx: tuple[Any, ...] | None = None  # (op type, opset, attributes[, function from arrays to the node's arrays])
    dtypes: tuple[DType, ...] = FLOATS
    onnx_dtypes: tuple[DType, ...] = (F32,)
    static: Static = field(default_factory=dict)
    symbolic: bool = True
    loose: float = 1.0  # factor on the tolerance
    each: bool = False  # the tolerance holds for each element by itself
    note: str = ""

    @property
    def label(self) -> str:
        shapes = "-".join("none" if x is None else "x".join(map(str, np.shape(x))) or "0d" for x in self.inputs)
        settings = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.op}[{shapes}]{settings}{self.note}".replace(" ", "")


def arrays_of(case: Case, dtype: DType) -> list[Array | None]:
    arrays: list[Array | None] = []
    for value in case.inputs:
        array = None if value is None else np.asarray(value)
        arrays.append(array if array is None or array.dtype != np.float64 else array.astype(dtype.numpy))
    return arrays


def check(case: Case, dtype: DType) -> None:
    arrays = arrays_of(case, dtype)
    tolerance = TOLERANCE.get(dtype.name, 0.0) * case.loose
    with np.errstate(all="ignore"):
        results = evaluate(case.op, arrays, case.attributes)
        if case.symbolic:
            for result, again in zip(
                results, evaluate(case.op, arrays, case.attributes, symbolic=True, static=case.static), strict=True
            ):
                assert_close(again, result, 1e-6 if dtype is not F64 else 1e-14)
    references = []
    assert case.torch is not None or case.onnx is not None
    if case.torch is not None:
        computed = case.torch(*map(to_torch, arrays))
        references.append([from_torch(tensor) for tensor in (computed if isinstance(computed, tuple) else (computed,))])
    if case.onnx is not None and dtype in case.onnx_dtypes:
        op_type, opset, attributes, *arrange = case.onnx
        fed = arrange[0](*arrays) if arrange else arrays
        references.append(run_onnx(op_type, fed, attributes, opset, len(results)))
    for reference in references:
        for result, expected in zip(results, reference, strict=True):
            assert_close(result, expected, tolerance, case.each)


def random(*shape: int, scale: float = 2.0) -> Array:
    """Normal numbers, the same in each run for one shape, with no two cases sharing them by accident."""
    return np.random.default_rng(zlib.crc32(repr((shape, scale)).encode())).normal(0, scale, shape)


def integers(low: int, high: int, *shape: int, dtype: DType = I64) -> Array:
    """Integers from [low, high)."""
    return (
        np.random.default_rng(zlib.crc32(repr((low, high, shape)).encode()))
        .integers(low, high, shape)
        .astype(dtype.numpy)
    )
