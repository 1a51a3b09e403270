"""What others make of the primitives: eager PyTorch, and ONNX Runtime as a model of one node.

`torch_result` and `onnx_result` return arrays, or None where the oracle has no such operation or element type.
Tests hold our references against them; irc/ops/edge_cases.py says which oracle agrees at the edges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  # registers the narrow types with NumPy
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper

from irc import dtypes
from irc.dtypes import DType

Array = NDArray[Any]
OPSET = 21

_TORCH_DTYPE = {
    dtypes.F64: torch.float64, dtypes.F32: torch.float32, dtypes.F16: torch.float16, dtypes.BF16: torch.bfloat16,
    dtypes.I64: torch.int64, dtypes.I32: torch.int32, dtypes.I16: torch.int16, dtypes.I8: torch.int8,
    dtypes.U8: torch.uint8, dtypes.BOOL: torch.bool, dtypes.C64: torch.complex64, dtypes.C128: torch.complex128,
    dtypes.F8E4M3FN: torch.float8_e4m3fn, dtypes.F8E5M2: torch.float8_e5m2,
}  # fmt: skip


# -- PyTorch ---------------------------------------------------------------------------------------------------


def to_torch(array: Array) -> torch.Tensor:
    dtype = _TORCH_DTYPE[dtypes.from_numpy(array.dtype)]
    if dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        bits = torch.from_numpy(array.view(np.int16 if dtype is torch.bfloat16 else np.uint8).copy())
        return bits.view(dtype)
    return torch.from_numpy(array.copy())


def from_torch(tensor: torch.Tensor) -> Array:
    for ours, theirs in _TORCH_DTYPE.items():
        if theirs is tensor.dtype and theirs in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
            bits = tensor.contiguous().view(torch.int16 if theirs is torch.bfloat16 else torch.uint8)
            return bits.numpy().view(ours.numpy)
    return np.asarray(tensor.contiguous().numpy())


def _is_integer(x: torch.Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex())


def _reduce_over(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def reduce(x: torch.Tensor, axes: Sequence[int], keep_dims: bool) -> torch.Tensor:
        return function(x, list(axes), keep_dims) if axes else x

    return reduce


def _prod(x: torch.Tensor, axes: Sequence[int], keep_dims: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keep_dims, dtype=x.dtype)
    return x


def _torch_dot(
    x: torch.Tensor, y: torch.Tensor, batch: Any, contract: Any, accumulate: Any = None
) -> torch.Tensor:
    """Spelled as an einsum: letters for axes."""
    left = [chr(97 + i) for i in range(x.ndim)]
    right = [chr(110 + i) for i in range(y.ndim)]
    for i, j in (*batch, *contract):
        right[j] = left[i]
    shared = [left[i] for i, _ in batch]
    summed = [left[i] for i, _ in contract]
    out = shared + [c for c in left if c not in shared + summed] + [c for c in right if c not in shared + summed]
    return torch.einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y)


def _torch_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    *,
    strides: Any,
    dilations: Any,
    low: Any,
    high: Any,
    groups: int,
) -> torch.Tensor:
    padding = [amount for pair in zip(reversed(low), reversed(high), strict=True) for amount in pair]
    function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[x.ndim - 2]
    return function(torch.nn.functional.pad(x, padding), weight, bias, strides, 0, dilations, groups)


def _torch_conv_transpose(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    *,
    strides: Any,
    dilations: Any,
    low: Any,
    high: Any,
    output_padding: Any,
    groups: int,
) -> torch.Tensor:
    function = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}[x.ndim - 2]
    whole = function(x, weight, None, strides, 0, 0, groups, dilations)
    # torch's own padding is symmetric, and its output_padding smaller than a stride: extend and crop by hand.
    whole = torch.nn.functional.pad(whole, [a for extra in reversed(output_padding) for a in (0, extra)])
    if bias is not None:
        whole = whole + bias.reshape(1, -1, *([1] * (x.ndim - 2)))
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        whole = whole.narrow(axis + 2, before, whole.shape[axis + 2] - before - after)
    return whole


def _torch_window(
    x: torch.Tensor, kind: str, window: Any, strides: Any, dilations: Any, low: Any, high: Any
) -> torch.Tensor | None:
    if kind != "max" or not x.is_floating_point() or any(dilation != 1 for dilation in dilations) or x.ndim != 4:
        return None
    padding = [amount for pair in zip(reversed(low), reversed(high), strict=True) for amount in pair]
    padded = torch.nn.functional.pad(x, padding, value=float("-inf"))
    for axis in range(x.ndim):
        padded = padded.unfold(axis, window[axis], strides[axis])
    return padded.amax(tuple(range(x.ndim, 2 * x.ndim)))


def _torch_scan(x: torch.Tensor, kind: str, axis: int, reverse: bool, exclusive: bool) -> torch.Tensor | None:
    if exclusive:
        return None
    x = x.flip(axis) if reverse else x
    functions: dict[str, Callable[[], torch.Tensor]] = {
        "sum": lambda: torch.cumsum(x, axis, dtype=x.dtype),
        "prod": lambda: torch.cumprod(x, axis, dtype=x.dtype),
        "max": lambda: torch.cummax(x, axis).values,
        "min": lambda: torch.cummin(x, axis).values,
        "log_sum_exp": lambda: torch.logcumsumexp(x, axis),
    }
    done = functions[kind]()
    return done.flip(axis) if reverse else done


def _torch_pad(x: torch.Tensor, value: Any = None, *, low: Any, high: Any, mode: str) -> torch.Tensor | None:
    if mode != "constant" or x.is_complex():
        return None
    padding = [amount for pair in zip(reversed(low), reversed(high), strict=True) for amount in pair]
    return torch.nn.functional.pad(x, padding, value=None if value is None else value.item())


def _torch_find(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor | None]:
    def find(x: torch.Tensor, axis: int, keep_dims: bool, select_last: bool) -> torch.Tensor | None:
        return None if select_last else function(x, axis, keep_dims)

    return find


def _counted(indices: torch.Tensor, extent: int, bounds: str | None) -> torch.Tensor:
    """Indices of which negative ones count from the end; PyTorch rejects those."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + extent, indices) if bounds is None else indices


def _torch_gather(x: torch.Tensor, indices: torch.Tensor, axis: int, bounds: str | None = None) -> torch.Tensor:
    gathered = torch.index_select(x, axis, _counted(indices, x.shape[axis], bounds).reshape(-1))
    return gathered.reshape((*x.shape[: axis % x.ndim], *indices.shape, *x.shape[axis % x.ndim + 1 :]))


def _torch_scatter_elements(
    x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, axis: int, reduction: str, bounds: str | None = None
) -> torch.Tensor:
    indices = _counted(indices, x.shape[axis], bounds)
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, indices, updates, names[reduction], include_self=True)


def _torch_slice(x: torch.Tensor, starts: Any, stops: Any, steps: Any) -> torch.Tensor:
    return x[tuple(map(slice, starts, stops, steps))]


TORCH: dict[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "pow": torch.pow,
    "div": lambda x, y, rounding, by_zero=None: torch.div(x, y, rounding_mode=rounding if _is_integer(x) else None),
    "mod": lambda x, y, rounding, by_zero=None: (torch.remainder if rounding == "floor" else torch.fmod)(x, y),
    "minimum": torch.minimum, "maximum": torch.maximum, "neg": torch.neg, "abs": torch.abs, "sign": torch.sign,
    "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc, "sqrt": torch.sqrt,
    "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin,
    "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "tanh": torch.tanh,
    "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "erf": torch.erf,
    "bitwise_and": torch.bitwise_and, "bitwise_or": torch.bitwise_or, "bitwise_xor": torch.bitwise_xor,
    "bitwise_not": torch.bitwise_not, "shift_left": torch.bitwise_left_shift, "shift_right": torch.bitwise_right_shift,
    "equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt,
    "greater_equal": torch.ge, "is_nan": torch.isnan,
    "is_inf": lambda x, detect_positive, detect_negative: (
        torch.isposinf(x) & detect_positive) | (torch.isneginf(x) & detect_negative),
    "select": torch.where,
    "cast": lambda x, to, saturate: x.to(_TORCH_DTYPE[to]),
    "bitcast": lambda x, to: x.view(_TORCH_DTYPE[to]),
    "reduce_sum": _reduce_over(lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype)),
    "reduce_prod": _prod,
    "reduce_max": _reduce_over(torch.amax), "reduce_min": _reduce_over(torch.amin),
    "argmax": _torch_find(torch.argmax), "argmin": _torch_find(torch.argmin),
    "reshape": lambda x, shape: torch.reshape(x, shape), "transpose": lambda x, permutation: x.permute(permutation),
    "expand": lambda x, shape: x.expand(shape), "slice": _torch_slice, "pad": _torch_pad,
    "concat": lambda *xs, axis: torch.cat(xs, axis), "split": lambda x, axis, sizes: torch.split(x, list(sizes), axis),
    "reverse": lambda x, axes: torch.flip(x, axes),
    "gather": _torch_gather,
    "gather_elements": lambda x, indices, axis, bounds=None: torch.gather(
        x, axis, _counted(indices, x.shape[axis], bounds)),
    "scatter_elements": _torch_scatter_elements,
    "dot": _torch_dot, "conv": _torch_conv, "conv_transpose": _torch_conv_transpose, "window_reduce": _torch_window,
    "scan": _torch_scan,
    "sort": lambda x, axis, descending: tuple(torch.sort(x, dim=axis, descending=descending, stable=True)),
    "max_pool": lambda x, kernel, strides, low, high, dilations: torch.nn.functional.max_pool1d(
        x, kernel, strides, low, dilations),
    "global_max_pool": lambda x: torch.nn.functional.adaptive_max_pool1d(x, 1),
    "top_k": lambda x, k, axis, largest: tuple(torch.topk(x, k, axis, largest)),
    "reduce_mean": lambda x, axes, keep_dims: torch.mean(x, list(axes), keep_dims),
    "clip": lambda x, low, high: torch.clamp(x, low, high),
    "resize": lambda x, sizes, mode, **options: torch.nn.functional.interpolate(x, sizes[2:], mode=mode),
    "grid_sample": lambda x, grid, mode, padding, align_corners: torch.nn.functional.grid_sample(
        x, grid, {"linear": "bilinear"}.get(mode, mode), padding, align_corners),
    "log_sum_exp": lambda x, axes, keep_dims: torch.logsumexp(x, list(axes), keep_dims),
    "attention": lambda q, k, v, mask=None, *, scale=None, causal, masked_rows: (
        torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)),
}  # fmt: skip


def stated(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without those that are not given."""
    return {name: value for name, value in attributes.items() if value is not None}


def torch_result(name: str, arrays: Sequence[Array | None], attributes: Mapping[str, Any]) -> list[Array] | None:
    """What eager PyTorch computes; None where it has no such operation or does not take these types.

    Raises RuntimeError where PyTorch rejects the values.
    """
    held = [array for array in arrays if array is not None]
    if name not in TORCH or any(dtypes.from_numpy(array.dtype) not in _TORCH_DTYPE for array in held):
        return None
    if any(isinstance(value, DType) and value not in _TORCH_DTYPE for value in attributes.values()):
        return None
    tensors = [None if array is None else to_torch(array) for array in arrays]
    try:
        result = TORCH[name](*tensors, **stated(attributes))
    except (RuntimeError, NotImplementedError, IndexError) as error:
        if any(
            words in str(error) for words in ("not implemented for", "not supported", "Promotion for", "Expected out")
        ):
            return None
        raise
    if result is None:
        return None
    return [from_torch(tensor) for tensor in (result if isinstance(result, tuple) else (result,))]


# -- ONNX Runtime ----------------------------------------------------------------------------------------------


Node = tuple[str, list[Any], dict[str, Any]]  # operator, inputs (None where absent), attributes


def _list(values: Sequence[int]) -> Array:
    return np.asarray(values, np.int64)


def _onnx_reduce(op_type: str) -> Callable[..., Node]:
    return lambda x, axes, keep_dims: (
        op_type, [x, _list(axes)], {"keepdims": int(keep_dims), "noop_with_empty_axes": 1})  # fmt: skip


def _onnx_find(op_type: str) -> Callable[..., Node]:
    return lambda x, axis, keep_dims, select_last: (
        op_type, [x], {"axis": axis, "keepdims": int(keep_dims), "select_last_index": int(select_last)})  # fmt: skip


def _onnx_bits(logical: str, bits: str) -> Callable[..., Node]:
    return lambda *xs: (logical if xs[0].dtype == np.bool_ else bits, list(xs), {})


def _plain(op_type: str) -> Callable[..., Node]:
    return lambda *xs: (op_type, list(xs), {})


def _onnx_conv(op_type: str) -> Callable[..., Node]:
    def node(*xs: Any, strides: Any, dilations: Any, low: Any, high: Any, groups: int, **more: Any) -> Node:
        attributes = {"strides": strides, "dilations": dilations, "pads": [*low, *high], "group": groups, **more}
        return op_type, list(xs), {name: list(v) if isinstance(v, tuple) else v for name, v in attributes.items()}

    return node


def _onnx_window(x: Array, kind: str, window: Any, strides: Any, dilations: Any, low: Any, high: Any) -> Node | None:
    if kind != "max" or x.ndim < 3 or window[:2] != (1, 1) or strides[:2] != (1, 1) or any((*low[:2], *high[:2])):
        return None
    return "MaxPool", [x], {
        "kernel_shape": list(window[2:]), "strides": list(strides[2:]), "dilations": list(dilations[2:]),
        "pads": [*low[2:], *high[2:]],
    }  # fmt: skip


def _onnx_mod(x: Array, y: Array, rounding: str) -> Node | None:
    if rounding == "floor" and x.dtype.kind not in "iu":
        return None  # fmod=0 on floats is newer than ONNX Runtime's Mod
    return "Mod", [x, y], {"fmod": int(rounding == "trunc")}


ONNX: dict[str, Callable[..., Node | None]] = {
    **{ours: _plain(theirs) for ours, theirs in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "pow": "Pow", "minimum": "Min", "maximum": "Max", "neg": "Neg",
        "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sqrt": "Sqrt", "exp": "Exp",
        "log": "Log", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan",
        "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
        "erf": "Erf", "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
        "greater_equal": "GreaterOrEqual", "is_nan": "IsNaN", "select": "Where",
    }.items()},
    "div": lambda x, y, rounding: None if rounding == "floor" and x.dtype.kind in "iu" else ("Div", [x, y], {}),
    "mod": _onnx_mod,
    "bitwise_and": _onnx_bits("And", "BitwiseAnd"), "bitwise_or": _onnx_bits("Or", "BitwiseOr"),
    "bitwise_xor": _onnx_bits("Xor", "BitwiseXor"), "bitwise_not": _onnx_bits("Not", "BitwiseNot"),
    "shift_left": lambda x, y: ("BitShift", [x, y], {"direction": "LEFT"}),
    "shift_right": lambda x, y: ("BitShift", [x, y], {"direction": "RIGHT"}),
    "is_inf": lambda x, detect_positive, detect_negative: (
        "IsInf", [x], {"detect_positive": int(detect_positive), "detect_negative": int(detect_negative)}),
    "cast": lambda x, to, saturate: ("Cast", [x], {"to": to.onnx, "saturate": int(saturate)}),
    "reduce_sum": _onnx_reduce("ReduceSum"), "reduce_prod": _onnx_reduce("ReduceProd"),
    "reduce_max": _onnx_reduce("ReduceMax"), "reduce_min": _onnx_reduce("ReduceMin"),
    "argmax": _onnx_find("ArgMax"), "argmin": _onnx_find("ArgMin"),
    "reshape": lambda x, shape: ("Reshape", [x, _list(shape)], {"allowzero": 1}),
    "transpose": lambda x, permutation: ("Transpose", [x], {"perm": [axis % x.ndim for axis in permutation]}),
    "expand": lambda x, shape: ("Expand", [x, _list(shape)], {}),
    "slice": lambda x, starts, stops, steps: (
        "Slice", [x, _list(starts), _list(stops), _list(range(x.ndim)), _list(steps)], {}),
    "pad": lambda x, value=None, *, low, high, mode: ("Pad", [x, _list((*low, *high)), value], {"mode": mode}),
    "concat": lambda *xs, axis: ("Concat", list(xs), {"axis": axis}),
    "split": lambda x, axis, sizes: ("Split", [x, _list(sizes)], {"axis": axis}),
    "gather": lambda x, indices, axis, bounds=None: ("Gather", [x, indices], {"axis": axis}),
    "gather_elements": lambda x, indices, axis, bounds=None: ("GatherElements", [x, indices], {"axis": axis}),
    "scatter": lambda x, indices, updates, reduction: ("ScatterND", [x, indices, updates], {"reduction": reduction}),
    "scatter_elements": lambda x, indices, updates, axis, reduction: (
        "ScatterElements", [x, indices, updates], {"axis": axis, "reduction": reduction}),
    "conv": _onnx_conv("Conv"), "conv_transpose": _onnx_conv("ConvTranspose"), "window_reduce": _onnx_window,
    "scan": lambda x, kind, axis, reverse, exclusive: None if kind != "sum" else (
        "CumSum", [x, np.asarray(axis)], {"reverse": int(reverse), "exclusive": int(exclusive)}),
    "sort": lambda x, axis, descending: (
        "TopK", [x, _list([x.shape[axis]])], {"axis": axis, "largest": int(descending)}),
}  # fmt: skip

_NATIVE = [d for d in dtypes.ALL if d.bits >= 8 and not d.name.startswith(("bf", "f8"))]


def _carrier(dtype: DType) -> DType:
    return dtype if dtype in _NATIVE else dtypes.F32 if dtype.is_float else dtypes.I8 if dtype.is_signed else dtypes.U8


def onnx_result(
    name: str, arrays: Sequence[Array | None], attributes: Mapping[str, Any], results: Sequence[DType]
) -> list[Array] | None:
    """What ONNX Runtime computes, without optimizations; None where it has no kernel for these types.

    Raises RuntimeError where it rejects the values.
    """
    described = ONNX[name](*arrays, **stated(attributes)) if name in ONNX else None
    if described is None:
        return None
    op_type, operands, extra = described
    while operands and operands[-1] is None:
        operands.pop()
    if any(operand is not None and operand.dtype.kind == "c" for operand in operands):
        return None
    nodes, inputs, names, feeds = [], [], [], {}
    for i, operand in enumerate(operands):
        if operand is None:
            names.append("")
            continue
        dtype = dtypes.from_numpy(operand.dtype)
        carrier = _carrier(dtype)
        feeds[f"i{i}"] = operand.astype(carrier.numpy)
        inputs.append(helper.make_tensor_value_info(f"i{i}", carrier.onnx, None))
        names.append(f"i{i}")
        if carrier is not dtype:
            nodes.append(helper.make_node("Cast", [f"i{i}"], [f"c{i}"], to=dtype.onnx))
            names[i] = f"c{i}"
    outputs = [helper.make_tensor_value_info(f"o{i}", _carrier(d).onnx, None) for i, d in enumerate(results)]
    produced = [f"o{i}" if _carrier(d) is d else f"r{i}" for i, d in enumerate(results)]
    nodes.append(helper.make_node(op_type, names, produced, **extra))
    for i, d in enumerate(results):
        if _carrier(d) is not d:
            nodes.append(helper.make_node("Cast", [f"r{i}"], [f"o{i}"], to=_carrier(d).onnx))
    graph = helper.make_graph(nodes, "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    state = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (state.NotImplemented, state.InvalidGraph, state.Fail):
        return None
    try:
        computed = session.run(None, feeds)
    except (state.InvalidArgument, state.RuntimeException, state.Fail) as error:
        if "not supported" in str(error):
            return None
        raise RuntimeError(str(error)) from None
    return [np.asarray(array).astype(d.numpy) for array, d in zip(computed, results, strict=True)]
