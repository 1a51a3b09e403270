"""Named ops: each against eager PyTorch and against ONNX Runtime (one node, optimizations off), per dtype.

A case states inputs, attributes and both references. It runs with static dims and with a symbol for every size;
its type rule must give the types that its body has. Errors are max|a - b| / max|b| over finite elements, and
infinities and NaNs must stand in the same places.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from irc import dims, dtypes, ops
from irc.diagnostics import IrcError
from irc.dtypes import BF16, F8E4M3FN, F8E5M2, F16, F32, F64, I8, I16, I32, I64, U8, U16, DType
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
        found = case.torch(*map(to_torch, arrays))
        references.append([from_torch(tensor) for tensor in (found if isinstance(found, tuple) else (found,))])
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


CASES: list[Case] = []
add = CASES.append

# -- activations -----------------------------------------------------------------------------------------------


def _activation(
    op: str, torch_function: Any, node: tuple[Any, ...] | None, special: Array = SPECIAL, **attributes: Any
) -> None:
    for inputs in (random(3, 5), random(0, 3), random(1)):
        add(Case(op, [inputs], attributes, torch_function, node))
    if torch_function is not None:
        add(Case(op, [special], attributes, torch_function, each=True, note="special"))
    if node is not None:
        coarse = special[~(np.abs(special) == 1e-3)]  # ONNX Runtime writes exp(x) - 1 and loses digits there
        add(Case(op, [coarse], attributes, None, node, (F32,), each=True, note="special-onnx"))


NO_NAN = SPECIAL[~np.isnan(SPECIAL)]
_activation("expm1", torch.expm1, None)
_activation("log1p", torch.log1p, None)
_activation("reciprocal", torch.reciprocal, ("Reciprocal", 13, {}))
_activation("rsqrt", torch.rsqrt, None)
_activation("square", torch.square, None)
_activation("relu", F.relu, ("Relu", 14, {}), special=NO_NAN)
_activation("relu", F.relu, None)
_activation("leaky_relu", partial(F.leaky_relu, negative_slope=0.3), ("LeakyRelu", 16, {"alpha": 0.3}), alpha=0.3)
_activation("elu", partial(F.elu, alpha=0.7), ("Elu", 6, {"alpha": 0.7}), alpha=0.7)
_activation("selu", F.selu, ("Selu", 6, {}))
_activation("celu", partial(F.celu, alpha=0.7), ("Celu", 12, {"alpha": 0.7}), alpha=0.7)
_activation("sigmoid", torch.sigmoid, ("Sigmoid", 13, {}))
_activation("silu", F.silu, None)
_activation("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), None)
_activation("hard_sigmoid", F.hardsigmoid, None, alpha=1 / 6)
_activation(
    "hard_sigmoid", lambda x: (0.3 * x.double() + 0.4).clamp(0, 1).to(x.dtype),
    ("HardSigmoid", 6, {"alpha": 0.3, "beta": 0.4}), alpha=0.3, beta=0.4,
)  # fmt: skip
_activation("hard_swish", F.hardswish, ("HardSwish", 14, {}))
_activation("softplus", F.softplus, ("Softplus", 1, {}))
_activation("softsign", F.softsign, ("Softsign", 1, {}))
_activation("mish", F.mish, ("Mish", 18, {}))
_activation("gelu", None, ("Gelu", 20, {}))
_activation("gelu", F.gelu, None, special=SPECIAL[SPECIAL != INF])  # torch's vectors give NaN at inf, its tails inf
_activation("gelu", partial(F.gelu, approximate="tanh"), ("Gelu", 20, {"approximate": "tanh"}), approximate="tanh")
_activation(
    "thresholded_relu", lambda x: torch.where(x > 0.5, x, 0), ("ThresholdedRelu", 10, {"alpha": 0.5}), alpha=0.5
)


# No digits are lost where the result is small.
TINY = np.array([1e-3, -1e-3, 1e-5, -1e-5, 0.3, -0.3, 0.49, 0.51, -0.51])
add(Case("expm1", [TINY], {}, torch.expm1, each=True, note="tiny"))
add(Case("log1p", [TINY], {}, torch.log1p, each=True, note="tiny"))
add(Case("elu", [TINY], {}, F.elu, each=True, note="tiny"))
add(Case("softplus", [np.array([-8.0, -12.0, -16.0, 3.0, 30.0])], {}, F.softplus, each=True, note="tails"))
add(Case("relu", [integers(-9, 9, 4, 3, dtype=I32)], {}, F.relu, ("Relu", 14, {}), (I32,), (I32,)))
add(Case("square", [integers(-9, 9, 4, 3)], {}, torch.square, None, (I64,)))

ROW = random(3, 5)
CLIP = ("Clip", 13, {})
add(Case("clip", [ROW, np.array(-0.5), np.array(0.7)], {}, torch.clamp, CLIP, onnx_dtypes=(F64, F32, F16)))
add(Case("clip", [ROW, np.array(0.7), np.array(-0.5)], {}, torch.clamp, CLIP))
add(Case("clip", [ROW, None, np.array(0.7)], {}, torch.clamp, CLIP))
add(Case("clip", [ROW, np.array(-0.5)], {}, torch.clamp, CLIP))
add(Case("clip", [SPECIAL, np.array(-0.5), np.array(50.0)], {}, torch.clamp, each=True))
add(Case("clip", [ROW, random(5) - 1, random(3, 1) + 2], {}, torch.clamp))
add(Case("clip", [integers(-9, 9, 4, 3), np.array(-2), np.array(5)], {}, torch.clamp, CLIP, (I64,), (I64,)))
add(Case("prelu", [random(2, 3, 4), random(3, 1)], {}, lambda x, s: F.prelu(x, s[:, 0]), ("PRelu", 16, {})))
add(Case("prelu", [random(2, 3, 4), random(1)], {}, F.prelu, ("PRelu", 16, {}), onnx_dtypes=(F64, F32)))
add(Case("prelu", [SPECIAL, np.array([0.25])], {}, F.prelu, ("PRelu", 16, {}), each=True, loose=2))

# -- reductions, softmax, norms --------------------------------------------------------------------------------


def _reduction(op: str, torch_function: Any, node: str, positive: bool = False) -> None:
    for shape, axes in (
        ((3, 5, 7), (1,)),
        ((3, 5, 7), (-1, 0)),
        ((2, 3), (0, 1)),
        ((4,), (0,)),
        ((0, 3), (1,)),
        ((1, 1), (1,)),
    ):
        for keep in (False, True):
            inputs = np.abs(random(*shape)) if positive else random(*shape)
            add(
                Case(
                    op, [inputs], {"axes": axes, "keep_dims": keep}, partial(torch_function, axes=axes, keep=keep),
                    (node, 18, {"keepdims": int(keep)}, lambda x, axes=axes: [x, np.array(axes)]),
                    onnx_dtypes=(F64, F32) if inputs.size else (), loose=2,
                )
            )  # fmt: skip


def _wide(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """In f64, rounded to the operand's type."""
    return lambda x, axes, keep: function(x.double(), axes, keep).to(x.dtype)


_reduction("reduce_mean", lambda x, axes, keep: x.mean(axes, keepdim=keep), "ReduceMean")
_reduction("reduce_sum_square", _wide(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)), "ReduceSumSquare")
_reduction("reduce_l1", _wide(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)), "ReduceL1")
_reduction("reduce_l2", _wide(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)), "ReduceL2")
_reduction(
    "reduce_log_sum", _wide(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()), "ReduceLogSum", positive=True
)
_reduction("log_sum_exp", lambda x, axes, keep: torch.logsumexp(x, axes, keep), "ReduceLogSumExp")
add(Case("reduce_mean", [random(3, 0)], {"axes": (1,)}, lambda x: x.mean(1), note="empty"))
add(
    Case(
        "reduce_mean",
        [integers(-9, 9, 3, 5, dtype=I32)],
        {"axes": (1,)},
        None,
        ("ReduceMean", 18, {"keepdims": 0}, lambda x: [x, np.array([1])]),
        (I32,),
        (I32,),
    )
)
ROWS = np.array([[-INF] * 3, [-INF, 0, 1], [INF, 0, 1], [NAN, 0, 1], [1e4, -1e4, 1e4], [-60000, 0, 1]])
add(Case("log_sum_exp", [ROWS], {"axes": (1,)}, lambda x: x.logsumexp(1), note="rows"))
add(Case("log_sum_exp", [random(3, 0)], {"axes": (1,)}, lambda x: x.logsumexp(1), note="empty"))

for name, function, node in (("softmax", F.softmax, "Softmax"), ("log_softmax", F.log_softmax, "LogSoftmax")):
    for shape, axis in (
        ((3, 7), -1),
        ((3, 5, 2), 1),
        ((4, 1), -1),
        ((5,), 0),
        ((0, 3), 1),
        ((3, 0), 1),
        ((33, 1000), -1),
    ):
        add(
            Case(
                name, [random(*shape)], {"axis": axis}, partial(function, dim=axis), (node, 13, {"axis": axis}),
                onnx_dtypes=(F64, F32) if 0 not in shape else (), loose=2,
            )
        )  # fmt: skip
    add(Case(name, [ROWS], {"axis": -1}, partial(function, dim=-1), (node, 13, {"axis": -1}), note="rows"))


def _layer_norm(x: Any, scale: Any = None, bias: Any = None, axis: int = -1, epsilon: float = 1e-5) -> torch.Tensor:
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


NORM = ("LayerNormalization", 17, {"axis": -1, "epsilon": 1e-5})
for x in (random(2, 3, 8), random(5, 7), random(0, 4), random(3, 1), random(4) + 1000, random(2, 3, 999)):
    parameters = random(x.shape[-1], scale=1), random(x.shape[-1], scale=0.5)
    offset = 30.0 if abs(x.mean() if x.size else 0) > 500 else 1.0  # f32 keeps few digits of 1000 ± 2
    exact = FLOATS if offset == 1 and x.shape[-1] > 1 else (F64, F32)  # torch's f16 and bf16 do not give 0 for one
    add(Case("layer_norm", [x, *parameters], {}, _layer_norm, NORM, exact, (F32,) if x.size else (), loose=4 * offset))
    add(Case("layer_norm", [x], {}, _layer_norm, dtypes=exact, loose=4 * offset))
    add(
        Case(
            "layer_norm",
            [x, parameters[0]],
            {},
            _layer_norm,
            NORM,
            exact,
            (F64, F32) if x.size else (),
            loose=4 * offset,
        )
    )
add(
    Case(
        "layer_norm", [random(2, 3, 5), random(3, 5), random(3, 5, scale=1)], {"axis": 1, "epsilon": 0.1},
        partial(_layer_norm, axis=1, epsilon=0.1), ("LayerNormalization", 17, {"axis": 1, "epsilon": 0.1}), loose=4,
    )
)  # fmt: skip
add(Case("layer_norm", [np.array([[1.0, 1, 1], [NAN, 1, 2], [INF, 1, 2]])], {}, _layer_norm, note="rows"))


def _rms_norm(x: Any, scale: Any = None, axis: int = -1, epsilon: float = 1e-5) -> torch.Tensor:
    return F.rms_norm(x, x.shape[axis:], scale, epsilon)


for x in (random(2, 3, 8), random(0, 4), random(3, 1)):
    node = ("RMSNormalization", 23, {"axis": -1, "epsilon": 1e-5})
    add(Case("rms_norm", [x, random(x.shape[-1])], {}, _rms_norm, node, onnx_dtypes=(F32,) if x.size else (), loose=3))
    add(Case("rms_norm", [x], {"epsilon": 0.1}, partial(_rms_norm, epsilon=0.1), loose=3))
add(Case("rms_norm", [random(2, 3, 5), random(3, 5)], {"axis": 1}, partial(_rms_norm, axis=1), loose=3))

for shape in ((2, 3), (2, 3, 5, 4), (0, 3, 2), (1, 1, 1)):
    four = [random(shape[1], scale=i + 1) for i in range(3)]
    add(
        Case(
            "batch_norm", [random(*shape), *four, np.abs(random(shape[1])) + 0.1], {"epsilon": 2**-7},
            lambda x, s, b, m, v: F.batch_norm(x, m, v, s, b, eps=2**-7),
            ("BatchNormalization", 15, {"epsilon": 2**-7}),
            onnx_dtypes=(F64, F32) if 0 not in shape else (), loose=4,
        )
    )  # fmt: skip
for shape in ((2, 3, 5), (2, 3, 5, 4), (2, 1, 3, 2, 2)):
    parameters = random(shape[1]), random(shape[1], scale=1)
    node = ("InstanceNormalization", 6, {"epsilon": 1e-5})
    add(
        Case(
            "instance_norm",
            [random(*shape), *parameters],
            {},
            lambda x, s, b: F.instance_norm(x, weight=s, bias=b),
            node,
            loose=6,
        )
    )
    add(Case("instance_norm", [random(*shape)], {"epsilon": 0.1}, lambda x: F.instance_norm(x, eps=0.1), loose=4))
for shape, groups in (((2, 6, 5), 3), ((2, 6, 5, 4), 2), ((3, 4), 2), ((2, 4, 3), 1), ((2, 4, 3), 4), ((0, 4, 3), 2)):
    parameters = random(shape[1]), random(shape[1], scale=1)
    node = ("GroupNormalization", 21, {"epsilon": 0.01, "num_groups": groups})
    add(
        Case(
            "group_norm", [random(*shape), *parameters], {"groups": groups, "epsilon": 0.01},
            lambda x, s, b, groups=groups: F.group_norm(x, groups, s, b, 0.01), node,
            onnx_dtypes=(F32,) if 0 not in shape and len(shape) > 2 else (), static={0: (1,)}, loose=6,
        )
    )  # fmt: skip
add(Case("group_norm", [random(2, 6, 5)], {"groups": 3}, lambda x: F.group_norm(x, 3), static={0: (1,)}, loose=4))
WITH_ZEROS = np.array([[3.0, -4, 0], [0, 0, 0], [1, 1, 1]])
for p in (1, 2):
    node = ("LpNormalization", 22, {"p": p, "axis": -1})
    add(
        Case(
            "lp_normalize",
            [random(3, 5)],
            {"p": p},
            lambda x, p=p: F.normalize(x, p, -1),
            node,
            onnx_dtypes=(F64, F32),
            loose=2,
        )
    )
    add(Case("lp_normalize", [random(3, 5)], {"p": p, "axis": 0}, lambda x, p=p: F.normalize(x, p, 0), loose=2))
    add(
        Case(
            "lp_normalize",
            [WITH_ZEROS],
            {"p": p},
            lambda x, p=p: F.normalize(x, p, -1),
            node,
            (F64, F32, BF16),
            loose=2,
        )
    )
    add(
        Case("lp_normalize", [WITH_ZEROS], {"p": p, "epsilon": 4.5}, lambda x, p=p: F.normalize(x, p, -1, 4.5), loose=2)
    )

# -- products --------------------------------------------------------------------------------------------------

for a, b in (
    ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
    ((4,), (2, 6, 4, 5)), ((2, 6, 3, 4), (4,)), ((2, 6, 3, 4), (2, 6, 4, 5)), ((2, 1, 3, 4), (1, 6, 4, 5)),
    ((2, 6, 3, 4), (6, 4, 5)), ((2, 6, 3, 4), (2, 1, 4, 5)), ((7, 1, 2, 3, 4), (6, 1, 4, 5)), ((1, 3, 4), (1, 4, 5)),
    ((3, 0), (0, 5)), ((0, 4), (4, 5)), ((2, 0, 3, 4), (4, 5)), ((1, 1), (1, 1)), ((9, 301), (301, 7)),
):  # fmt: skip
    supported = (F64, F32) if 0 not in (*a, *b) else ()
    add(Case("matmul", [random(*a), random(*b)], {}, torch.matmul, ("MatMul", 13, {}), onnx_dtypes=supported, loose=3))
for pair in ((integers(-99, 99, 2, 3, 4), integers(-99, 99, 4, 5)), (integers(-99, 99, 4), integers(-99, 99, 4))):
    add(Case("matmul", pair, {}, torch.matmul, ("MatMul", 13, {}), (I64,), (I64,)))

for ta, tb, alpha, beta in (
    (False, False, 1.0, 1.0),
    (True, False, 0.5, 1.0),
    (False, True, 1.0, 0.25),
    (True, True, 0.5, 2.0),
):
    a, b = random(*((4, 3) if ta else (3, 4))), random(*((5, 4) if tb else (4, 5)))
    settings = {"alpha": alpha, "beta": beta, "transpose_a": ta, "transpose_b": tb}
    node = ("Gemm", 13, {"alpha": alpha, "beta": beta, "transA": int(ta), "transB": int(tb)})

    def _gemm(a: Any, b: Any, c: Any = None, alpha=alpha, beta=beta, ta=ta, tb=tb) -> torch.Tensor:
        product = alpha * ((a.T if ta else a).double() @ (b.T if tb else b).double())
        return (product if c is None else product + beta * c.double()).to(a.dtype)

    for c in (None, random(5), random(3, 1), random(3, 5), np.array(0.5)):
        add(Case("gemm", [a, b, c], settings, _gemm, node, onnx_dtypes=(F64, F32), loose=3))
add(Case("gemm", [random(3, 0), random(0, 5), random(5)], {}, lambda a, b, c: torch.addmm(c, a, b)))
for shape in ((4,), (3, 4), (2, 0, 4), (2, 3, 4), (2, 3, 0)):
    operands = [random(*shape), random(shape[-1], 5), random(5)]
    add(Case("linear", operands, {}, lambda x, w, b: F.linear(x, w.mT, b), loose=3))

MATMUL_INTEGER = ("MatMulInteger", 10, {})
for x, y, x_zero, y_zero in (
    (integers(0, 128, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), None, None),
    (integers(0, 128, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), np.uint8(7), integers(-9, 9, 5, dtype=I8)),
    (integers(0, 256, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), None, None),
    (integers(0, 256, 2, 3, 4, dtype=U8), integers(0, 256, 4, 5, dtype=U8), np.uint8(117), np.uint8(3)),
    (integers(0, 256, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), np.uint8(7), integers(-9, 9, 5, dtype=I8)),
    (integers(0, 256, 3, 4, dtype=U8), integers(0, 256, 4, 5, dtype=U8), integers(0, 9, 3, dtype=U8), np.uint8(255)),
):

    def _matmul_integer(x: Any, y: Any, x_zero: Any = None, y_zero: Any = None) -> torch.Tensor:
        x, y = x.to(torch.int32), y.to(torch.int32)
        if x_zero is not None:
            x = x - (x_zero.to(torch.int32)[:, None] if x_zero.ndim else x_zero.to(torch.int32))
        return x @ (y if y_zero is None else y - y_zero.to(torch.int32))

    # ONNX Runtime's CPU kernel takes a zero point of x for the whole of x only. On processors without VNNI it adds two
    # products of u8 and i8 in 16 bits, and saturates where they do not fit: PyTorch alone is asked there.
    saturates = y.dtype == np.int8 and int(x.max()) > 127
    node = None if saturates or (x_zero is not None and np.ndim(x_zero)) else MATMUL_INTEGER
    add(Case("matmul_integer", [x, y, x_zero, y_zero], {}, _matmul_integer, node, (I32,), (I32,)))

# -- attention -------------------------------------------------------------------------------------------------


def _attention(
    q: Any, k: Any, v: Any, mask: Any = None, scale: float | None = None, causal: bool = False, masked_rows: str = "nan"
) -> torch.Tensor:
    """In f64, decomposed."""
    shared = q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.double().repeat_interleave(shared, dim=1) for t in (k, v))
    scores = q.double() @ wide_k.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = torch.where(mask, scores, -INF) if mask.dtype is torch.bool else scores + mask.double()
    if causal:
        scores = torch.where(torch.ones(scores.shape[2:], dtype=torch.bool).tril(), scores, -INF)
    weights = scores.softmax(-1)
    if masked_rows == "zero":
        weights = torch.where(scores.amax(-1, keepdim=True) == -INF, 0, weights)
    elif masked_rows == "nan_as_zero":
        weights = weights.nan_to_num(0)
    return (weights @ wide_v).to(q.dtype)


def _attend(
    heads: int, groups: int, queries: int, keys: int, mask: Any = None, onnx_too: bool = True, **attributes: Any
) -> None:
    q, k, v = random(2, heads, queries, 8), random(2, groups, keys, 8, scale=1), random(2, groups, keys, 5)
    node = None
    if onnx_too:
        settings = {"is_causal": int(attributes.get("causal", False))}
        if attributes.get("scale") is not None:
            settings["scale"] = attributes["scale"]
        node = ("Attention", 23, settings)
    function = partial(_attention, **attributes)
    add(Case("attention", [q, k, v, mask], attributes, function, node, static={0: (1,), 1: (1,), 2: (1,)}, loose=4))


_attend(3, 3, 7, 7)
_attend(3, 3, 7, 11, scale=0.25)
_attend(6, 2, 7, 11)
_attend(6, 1, 4, 11, causal=True)
_attend(3, 3, 7, 7, causal=True)
_attend(3, 3, 9, 4, causal=True)
_attend(3, 3, 1, 1, causal=True)
_attend(3, 3, 7, 11, random(2, 1, 1, 11), onnx_too=False)  # ONNX Runtime wants a mask of all 7 rows
_attend(3, 3, 7, 11, random(7, 11), causal=True)
_attend(6, 2, 7, 11, random(2, 6, 7, 11))
_attend(3, 3, 7, 11, integers(0, 2, 2, 1, 7, 11).astype(bool), masked_rows="zero")
SOME_ROWS = np.ones((7, 11), bool)
SOME_ROWS[2] = SOME_ROWS[5] = False
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="nan")
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, -INF), onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, NAN), onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, NAN), onnx_too=False, masked_rows="nan_as_zero")
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="nan_as_zero")
_attend(3, 3, 0, 11, onnx_too=False)
_attend(3, 3, 7, 0, onnx_too=False)

# -- quantization ----------------------------------------------------------------------------------------------

HALVES = np.array([[0.25, 0.75, 1.25, -0.25, -0.75, -1.25, 1000, -1000, 0, 63.4]]) * 2  # ties at scale 0.5 and 1
QUANTIZE = ("QuantizeLinear", 21, {})
for to, zero in ((U8, 3), (I8, -3), (U16, 700), (I16, -700)):
    for x in (HALVES, random(3, 5, scale=40), random(0, 3), random(1)):
        zero_point = np.array(zero, to.numpy)
        info = np.iinfo(to.numpy)

        def _quantize(x: Any, s: Any, z: Any, info: Any = info, to: DType = to) -> torch.Tensor:
            nearest = torch.round(x / s) + z.to(x.dtype)
            return torch.from_numpy(nearest.clamp(info.min, info.max).numpy().astype(to.numpy))

        add(Case("quantize", [x, np.array(0.5), zero_point], {"to": to}, _quantize, QUANTIZE, (F32,)))
    codes = integers(info.min, info.max + 1, 3, 5, dtype=to)
    node = ("DequantizeLinear", 21, {"axis": 1})
    for scale, zero_point in (
        (np.array(0.3), np.array(zero, to.numpy)), (np.abs(random(5)), integers(0, 9, 5, dtype=to)),
        (np.abs(random(5)), None), (np.array([0.3]), None), (np.array(0.3), None),
    ):  # fmt: skip

        def _dequantize(q: Any, s: Any, z: Any = None) -> torch.Tensor:
            return ((q.double() - (0 if z is None else z.double())) * s.double()).to(s.dtype)

        ready = node if scale.shape != (1,) else None
        add(
            Case(
                "dequantize",
                [codes, scale, zero_point],
                {"axis": 1},
                _dequantize,
                ready,
                (F32, F16, BF16),
                (F32, F16),
                note=to.name,
            )
        )
for axis in (0, 1, -1):
    x = random(3, 5, 4, scale=40)
    size = x.shape[axis]
    scale, zero_point = np.abs(random(size)) + 0.1, integers(0, 256, size, dtype=U8)
    shape = [size if i == axis % 3 else 1 for i in range(3)]

    def _per_axis(x: Any, s: Any, z: Any, shape: list[int] = shape) -> torch.Tensor:
        return (torch.round(x / s.reshape(shape)) + z.reshape(shape)).clamp(0, 255).to(torch.uint8)

    add(
        Case(
            "quantize",
            [x, scale, zero_point],
            {"axis": axis, "to": U8},
            _per_axis,
            ("QuantizeLinear", 21, {"axis": axis}),
            (F32,),
        )
    )
add(
    Case(
        "quantize",
        [random(3, 5), np.array([0.1])],
        {"to": U8},
        lambda x, s: torch.round(x / s).clamp(0, 255).to(torch.uint8),
        dtypes=(F32,),
    )
)
DYNAMIC = ("DynamicQuantizeLinear", 11, {})
for x in (np.abs(random(3, 5)) + 1, -np.abs(random(7)), *(random(size) for size in range(1, 9)), np.zeros((2, 3))):
    add(Case("dynamic_quantize", [x], {}, None, DYNAMIC, (F32,)))

# -- rearranging, selecting ------------------------------------------------------------------------------------

for shape, repeats in (((2, 3), (2, 3)), ((2, 1, 3), (1, 4, 2)), ((3,), (0,)), ((0, 2), (3, 2)), ((), ())):
    node = ("Tile", 13, {}, lambda x, repeats=repeats: [x, np.array(repeats, np.int64)])
    supported = (F64, F32) if shape else ()
    add(
        Case(
            "tile",
            [random(*shape)],
            {"repeats": repeats},
            lambda x, r=repeats: x.repeat(r),
            node,
            onnx_dtypes=supported,
        )
    )
for mode in ("DCR", "CRD"):
    node = ("DepthToSpace", 13, {"blocksize": 2, "mode": mode})
    shuffle = partial(F.pixel_shuffle, upscale_factor=2) if mode == "CRD" else None
    add(
        Case(
            "depth_to_space", [random(2, 12, 3, 5)], {"block": 2, "mode": mode}, shuffle, node, (F32,), static={0: (1,)}
        )
    )
    unshuffle = partial(F.pixel_unshuffle, downscale_factor=3) if mode == "CRD" else None
    node = ("SpaceToDepth", 13, {"blocksize": 3}) if mode == "DCR" else None
    add(
        Case(
            "space_to_depth",
            [random(2, 4, 6, 9)],
            {"block": 3, "mode": mode},
            unshuffle,
            node,
            (F32,),
            static={0: (2, 3)},
        )
    )
for upper in (False, True):
    for k in (-1, 0, 2):
        for x in (random(3, 5), random(2, 4, 4), random(0, 3), np.full((3, 3), NAN), integers(0, 9, 4, 3)):
            node = ("Trilu", 14, {"upper": int(upper)}, lambda x, k=k: [x, np.array(k)])
            function = partial(torch.triu if upper else torch.tril, diagonal=k)
            add(
                Case(
                    "trilu",
                    [x],
                    {"upper": upper, "k": k},
                    function,
                    node,
                    (F32,),
                    (F32,) if x.size else (),
                    note=x.dtype.name,
                )
            )
add(Case("trilu", [integers(0, 2, 4, 5).astype(bool)], {}, torch.triu, None, (F32,), note="bool"))

ON_OFF = np.array([-1.5, 2.5])
for indices in (integers(0, 7, 3, 5), np.array([[-1, 6, -7], [7, -8, 100]]), np.array(3), np.zeros((0, 2), np.int64)):
    for axis in range(-indices.ndim - 1, indices.ndim + 1):
        node = ("OneHot", 11, {"axis": axis}, lambda i, v: [i, np.array(7), v])

        def _one_hot(i: Any, v: Any, axis: int = axis) -> torch.Tensor:
            hot = torch.where(i < 0, i + 7, i).unsqueeze(-1) == torch.arange(7)
            return torch.where(hot, v[1], v[0]).movedim(-1, axis)

        add(
            Case(
                "one_hot",
                [indices, ON_OFF],
                {"depth": 7, "axis": axis},
                _one_hot,
                node,
                (F32,),
                (F32,) if indices.size and indices.ndim else (),
                static={1: (0,)},
            )
        )
add(
    Case(
        "one_hot",
        [np.array([2, 250], np.uint8), ON_OFF],
        {"depth": 300},
        lambda i, v: torch.where(i.long().unsqueeze(-1) == torch.arange(300), v[1], v[0]),
        dtypes=(F32,),
        static={1: (0,)},
    )
)

for shape, indices, batch in (
    ((3, 4, 5), integers(-3, 3, 6, 2), 0), ((3, 4), integers(-3, 3, 7, 1), 0), ((3, 4), integers(-3, 3, 2), 0),
    ((3, 4, 5), integers(-3, 3, 2, 6, 3), 0), ((3, 4, 5), integers(-4, 4, 3, 6, 1), 1),
    ((3, 4, 5), integers(-4, 4, 3, 2), 1), ((2, 3, 4, 5), integers(-4, 4, 2, 3, 7, 2), 2),
    ((3, 4), np.zeros((0, 2), np.int64), 0), ((3, 4), integers(-3, 3, 6, 2, dtype=I32), 0),
):  # fmt: skip

    def _gather_nd(x: Any, i: Any, batch: int = batch) -> torch.Tensor:
        if batch:
            return torch.stack([_gather_nd(a, b, batch - 1) for a, b in zip(x, i, strict=True)])
        return x[tuple(i.long().unbind(-1))]

    node = ("GatherND", 13, {"batch_dims": batch})
    supported = (F32,) if indices.size and indices.dtype == np.int64 else ()
    add(
        Case(
            "gather_nd",
            [random(*shape), indices],
            {"batch_dims": batch},
            _gather_nd,
            node,
            (F32,),
            supported,
            static={1: (indices.ndim - 1,)},
        )
    )

for largest in (True, False):
    for x, k, axis in (
        (random(3, 7), 4, -1),
        (random(7, 3), 4, 0),
        (random(5), 5, 0),
        (random(3, 1), 1, 1),
        (random(3, 5), 0, 1),
    ):
        node = ("TopK", 11, {"axis": axis, "largest": int(largest)}, lambda x, k=k: [x, np.array([k])])

        def _top_k(x: Any, k: int = k, axis: int = axis, largest: bool = largest) -> tuple[Any, Any]:
            return tuple(torch.topk(x, k, axis, largest))

        add(
            Case(
                "top_k",
                [x],
                {"k": k, "axis": axis, "largest": largest},
                _top_k,
                node,
                (F64, F32),
                (F64, F32),
                symbolic=k < 2,
            )
        )
TIES = np.array([[1, 3, 3, 2, 3, 1, 1]])
for largest in (True, False):
    node = ("TopK", 11, {"largest": int(largest)}, lambda x: [x, np.array([5])])
    add(Case("top_k", [TIES], {"k": 5, "largest": largest}, None, node, (I64,), (I64,), symbolic=False, note="ties"))
add(
    Case("top_k", [SPECIAL], {"k": 3}, lambda x: tuple(torch.topk(x, 3)), dtypes=(F32,), symbolic=False, note="special")
)

# -- resampling ------------------------------------------------------------------------------------------------

PLANES = [random(2, 3, 5, 7), 1.2 * random(2, 4, 6, 2)]
SOLIDS = [random(2, 2, 4, 5, 6), 1.2 * random(2, 3, 2, 4, 3)]
for image, places in (PLANES, SOLIDS, [random(1, 1, 1, 1), random(1, 3, 4, 2)],
                      [random(2, 3, 5, 7), random(2, 0, 6, 2)], [random(0, 3, 5, 7), random(0, 2, 6, 2)]):  # fmt: skip
    for mode, spelled in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic")):
        for padding in ("zeros", "border", "reflection") if mode != "cubic" or image.ndim == 4 else ():
            for align in (False, True):
                settings = {"mode": mode, "padding": padding, "align_corners": align}
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": int(align)}
                sample = partial(F.grid_sample, mode=spelled, padding_mode=padding, align_corners=align)
                add(Case("grid_sample", [image, places], settings, sample if image.size else None,
                         ("GridSample", 20, attributes), (F64, F32), (F64, F32), {1: (image.ndim - 1,)}, loose=40))


def _resize(
    shape: tuple[int, ...],
    settings: dict[str, Any],
    torch_function: Any = None,
    onnx_too: bool = True,
    loose: float = 4.0,
) -> None:
    def arrange(x: Array) -> list[Any]:
        scales = settings.get("scales")
        if scales is not None:
            return [x, None, np.array(scales, np.float32)]
        return [x, None, None, np.array(settings["sizes"], np.int64)]

    attributes = {
        "mode": settings.get("mode", "nearest"),
        "coordinate_transformation_mode": settings.get("coordinates", "half_pixel"),
        "nearest_mode": settings.get("nearest", "round_prefer_floor"),
        "cubic_coeff_a": settings.get("cubic_coefficient", -0.75),
    }
    node = ("Resize", 19, attributes, arrange) if onnx_too else None
    floats = FLOATS if torch_function is not None else (F32,)
    add(Case("resize", [random(*shape)], settings, torch_function, node, floats, loose=loose, static={0: (0, 1)}))


SCALES = ((1.0, 1.0, 2.0, 3.0), (1.0, 1.0, 0.6, 1.7), (1.0, 1.0, 1.0, 0.5))
SIZES = ((1, 2, 10, 3), (1, 2, 3, 14), (1, 2, 5, 1), (1, 2, 2, 2))
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
for coordinates in COORDINATES:
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        symmetric = coordinates == "half_pixel_symmetric"  # ONNX Runtime rounds its positions in some other way
        for scales in SCALES:
            if not symmetric or scales != SCALES[1]:
                _resize((1, 2, 5, 7), {"scales": scales, "coordinates": coordinates, "nearest": nearest})
        for sizes in SIZES:
            if not symmetric or sizes != SIZES[1]:
                _resize((1, 2, 5, 7), {"sizes": sizes, "coordinates": coordinates, "nearest": nearest})
    for mode in ("linear", "cubic"):
        for scales in SCALES:
            _resize((1, 2, 5, 7), {"scales": scales, "mode": mode, "coordinates": coordinates}, loose=20)
        for sizes in SIZES:
            _resize((1, 2, 5, 7), {"sizes": sizes, "mode": mode, "coordinates": coordinates}, loose=20)
_resize((1, 2, 5, 7), {"sizes": (1, 2, 10, 3), "mode": "cubic", "cubic_coefficient": -0.5}, loose=20)
_resize((5, 7), {"sizes": (3, 9), "mode": "linear"}, loose=20)
_resize(
    (2, 3, 7),
    {"sizes": (2, 3, 13), "nearest": "floor", "coordinates": "asymmetric"},
    partial(F.interpolate, size=13),
    loose=0,
)
for sizes in ((10, 3), (5, 14), (1, 1)):
    whole = (1, 2, *sizes)
    for mode, spelled in (("linear", "bilinear"), ("cubic", "bicubic")):
        for coordinates, align in (("half_pixel", False), ("align_corners", True)):
            function = partial(F.interpolate, size=sizes, mode=spelled, align_corners=align)
            _resize(
                (1, 2, 5, 7),
                {"sizes": whole, "mode": mode, "coordinates": coordinates},
                function,
                onnx_too=False,
                loose=20,
            )

# -- pooling ---------------------------------------------------------------------------------------------------


def _pool(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
) -> None:
    settings = {"kernel": kernel, "strides": strides, "low": low, "high": high, "dilations": dilations}
    node = {"kernel_shape": kernel, "strides": strides, "pads": (*low, *high), "dilations": dilations}
    rank = len(kernel)
    max_pool, average_pool = getattr(F, f"max_pool{rank}d"), getattr(F, f"avg_pool{rank}d")
    even = low == high
    x = random(*shape)
    dtypes_of_node = (F64, F32) if x.size else ()
    function = partial(max_pool, kernel_size=kernel, stride=strides, padding=low, dilation=dilations) if even else None
    floats = FLOATS if function is not None else (F32,)
    add(Case("max_pool", [x], settings, function, ("MaxPool", 12, node), floats, dtypes_of_node if even else (F32,)))
    for include in (False, True) if x.size else ():
        plain = even and set(dilations) == {1}
        function = (
            partial(average_pool, kernel_size=kernel, stride=strides, padding=low, count_include_pad=include)
            if plain
            else None
        )
        pooled = ("AveragePool", 19, {**node, "count_include_pad": int(include)})
        add(
            Case(
                "average_pool", [x], {**settings, "count_include_pad": include}, function, pooled,
                FLOATS if function is not None and rank < 3 else (F32,), (F32,), loose=2,
            )
        )  # fmt: skip


_pool((2, 3, 9), (3,), (2,), (1,), (1,), (1,))
_pool((2, 3, 9), (1,), (1,), (0,), (0,), (1,))
_pool((1, 2, 7, 9), (3, 2), (2, 1), (1, 1), (1, 1), (1, 1))
_pool((1, 2, 7, 9), (3, 2), (2, 3), (0, 1), (2, 0), (1, 1))
_pool((1, 2, 7, 9), (3, 2), (1, 2), (1, 1), (1, 1), (2, 3))
_pool((1, 2, 4, 5, 6), (2, 2, 3), (2, 1, 2), (0, 1, 1), (0, 1, 1), (1, 1, 1))
_pool((0, 2, 7, 9), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
_pool((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (1, 1))
LOWEST = {"kernel": (3,), "strides": (2,), "low": (1,), "high": (1,), "dilations": (1,)}
add(
    Case(
        "max_pool",
        [integers(-128, 0, 1, 2, 9, dtype=I8)],
        LOWEST,
        None,
        ("MaxPool", 12, {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)}),
        (I8,),
        (I8,),
    )
)
add(
    Case(
        "max_pool",
        [np.array([[[NAN, 1, 2, -INF, -INF, -INF, INF]]])],
        LOWEST,
        lambda x: F.max_pool1d(x, 3, 2, 1),
        note="special",
    )
)
for shape in ((2, 3, 5), (2, 3, 5, 4), (0, 2, 3), (1, 1, 1)):
    supported = (F32,) if 0 not in shape else ()
    axes = tuple(range(2, len(shape)))
    add(
        Case(
            "global_average_pool",
            [random(*shape)],
            {},
            lambda x, axes=axes: x.mean(axes, keepdim=True),
            ("GlobalAveragePool", 1, {}),
            onnx_dtypes=supported,
            loose=2,
        )
    )
    add(
        Case(
            "global_max_pool",
            [random(*shape)],
            {},
            lambda x, axes=axes: x.amax(axes, keepdim=True),
            ("GlobalMaxPool", 1, {}),
            onnx_dtypes=supported,
        )
    )


# -- recurrent layers ------------------------------------------------------------------------------------------

GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # where torch has each of our gates


def _recurrent(op: str, reset_after: bool = True) -> Callable[..., tuple[torch.Tensor, ...]]:
    """torch's layer with our operands."""

    def run(x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *initial: Any) -> tuple[torch.Tensor, ...]:
        def rearranged(weights: torch.Tensor) -> torch.Tensor:
            parts = weights.chunk(len(GATES[op]))
            return torch.cat([parts[GATES[op].index(gate)] for gate in range(len(parts))])

        count, hidden = r.shape[0], r.shape[2]
        layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[op](
            x.shape[2], hidden, bias=b is not None, bidirectional=count == 2, dtype=x.dtype)
        for index, suffix in enumerate(("", "_reverse")[:count]):
            given = {"weight_ih": w[index], "weight_hh": r[index]}
            given |= {} if b is None else dict(zip(("bias_ih", "bias_hh"), b[index].chunk(2), strict=True))
            for name, weights in given.items():
                getattr(layer, f"{name}_l0{suffix}").data = rearranged(weights)
        packed = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        with torch.no_grad():
            y, last = layer(packed, (initial if op == "lstm" else initial[0]) if initial else None)
        if lengths is not None:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=x.shape[0])
        y = y.reshape(*y.shape[:2], count, hidden).transpose(1, 2)
        return (y, *last) if op == "lstm" else (y, last)

    return run


for op, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
    for count, steps in ((1, 1), (1, 5), (2, 4)):
        direction = {"direction": "bidirectional"} if count == 2 else {}
        after = {"reset_after": True} if op == "gru" else {}
        node = (op.upper(), 22, {"hidden_size": 6, **direction, **({"linear_before_reset": 1} if after else {})})
        x, w, r = random(steps, 3, 2), random(count, gates * 6, 2, scale=0.7), random(count, gates * 6, 6, scale=0.5)
        b, states = random(count, gates * 12, scale=0.3), [random(count, 3, 6, scale=i) for i in range(1, 3)]
        states = states if op == "lstm" else states[:1]
        whole = [x, w, r, b, np.array([1, steps, max(1, steps - 1)], np.int32), *states]
        for operands in ([x, w, r], [x, w, r, b], whole):
            add(Case(op, operands, {**direction, **after}, _recurrent(op), node, (F64, F32), (F32,), loose=10,
                     static={index: (0, 1, 2) for index in range(1, 7)}))
        if op == "gru":
            plain = ("GRU", 22, {"hidden_size": 6, **direction})
            add(Case(op, whole, direction, None, plain, (F32,), (F32,), loose=10, symbolic=False))
        backwards = {"direction": "reverse"}
        if count == 1:
            back = (op.upper(), 22, {**node[2], **backwards})
            add(Case(op, whole, {**backwards, **after}, None, back, (F32,), loose=10))
    one = [random(4, 3, 2), random(1, 6, 2), random(1, 6, 6)]
add(Case("rnn", one, {"activation": "relu"}, None, ("RNN", 22, {"hidden_size": 6, "activations": ["Relu"]}), (F32,)))


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
    assert_close(result, from_torch(_attention(*[torch.from_numpy(q)] * 3)), 1e-5)
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
