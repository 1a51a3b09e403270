"""Models with QuantizeLinear and DequantizeLinear around each operator: weights stay quantized in the ONNX output,
so that ONNX Runtime's optimizations find what they find in the original."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc import interpreter
from irc.frontends.onnx import from_model

NO_FOLDER = Path("no such folder")
STEP = 0.01  # of the quantized results
SMALL_TYPES = {name: getattr(ml_dtypes, name, None) or getattr(np, name)
               for name in ("int8", "uint8", "int16", "int4", "uint4", "int2")}  # fmt: skip


class QuantizedModel:
    """A model that quantizes its input `x`, dequantizes constants, computes and quantizes its result `y`."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.quantized = self.pair("x", STEP, 128, np.uint8)

    def constant(self, name: str, content: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(content), name))
        return name

    def pair(self, name: str, scale: float, zero_point: int, kind: Any) -> str:
        """`name` through a QuantizeLinear and a DequantizeLinear."""
        parameters = [self.constant(f"{name}_scale", np.float32(scale))]
        parameters.append(self.constant(f"{name}_zero", kind(zero_point)))
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_q"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_dq"]))
        return f"{name}_dq"

    def weight(self, name: str, shape: Sequence[int], kind: Any, axis: int | None, scale: Any = None) -> str:
        """A dequantized constant: by one scale, or by one for each index of `axis`, which differ by up to 200."""
        low, high = (int(ml_dtypes.iinfo(kind).min), int(ml_dtypes.iinfo(kind).max))
        content = self.random.integers(max(low, -2000), min(high, 2000), shape, endpoint=True).astype(kind)
        entries = () if axis is None else (shape[axis],)
        if scale is None:
            scale = (np.float32(0.1 / min(high, 2000)) * self.random.choice([1, 0.005], entries)).astype(np.float32)
        self.scale = np.asarray(scale, np.float32)
        given = [self.constant(name, content), self.constant(f"{name}_scale", self.scale)]
        given.append(self.constant(f"{name}_zero", np.zeros(entries, kind)))
        self.nodes.append(helper.make_node("DequantizeLinear", given, [f"{name}_dq"], axis=axis or 0))
        return f"{name}_dq"

    def finish(self, op_type: str, operands: Sequence[str], shape: Sequence[Any], **attributes: Any) -> onnx.ModelProto:
        self.nodes.append(helper.make_node(op_type, operands, ["c"], **attributes))
        self.pair("c", STEP, 128, np.uint8)
        info = helper.make_tensor_value_info
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(self.nodes, "quantized", [info("x", TensorProto.FLOAT, shape)],
                                  [info("y", TensorProto.FLOAT, None)], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)


def random_model(seed: int) -> tuple[onnx.ModelProto, np.ndarray[Any, Any]]:
    """A model of one operator, with its input; weights have from 1 to some hundred elements."""
    maker = QuantizedModel(seed)
    pick = maker.random.choice
    op_type = str(pick(["Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul"]))
    kind = SMALL_TYPES[str(pick(list(SMALL_TYPES)))]
    by_channel = bool(pick([True, False]))
    n, channels, out = (int(maker.random.integers(1, 6)) for _ in range(3))
    if op_type in ("Conv", "ConvTranspose"):
        groups = int(pick([1, channels]))
        out = out if groups == 1 else channels
        inverse = op_type == "ConvTranspose"
        shape = (channels, out // groups, 3, 3) if inverse else (out, channels // groups, 3, 3)
        axis = None if not by_channel or (inverse and groups > 1) else int(inverse)
        weight = maker.weight("w", shape, kind, axis)
        bias = maker.weight("b", (out,), np.int32, None if axis is None else 0, maker.scale * np.float32(STEP))
        x = maker.random.standard_normal((n, channels, 5, 4))
        model = maker.finish(op_type, [maker.quantized, weight, bias], ["N", channels, 5, 4], group=groups)
    elif op_type in ("Gemm", "MatMul"):
        weight = maker.weight("w", (channels, out), kind, 1 if by_channel else None)
        operands = [maker.quantized, weight]
        if op_type == "Gemm":
            axis = 0 if by_channel else None
            operands.append(maker.weight("b", (out,), np.int32, axis, maker.scale * np.float32(STEP)))
        x = maker.random.standard_normal((n, channels))
        model = maker.finish(op_type, operands, ["N", channels])
    else:
        shape = [(), (1,), (channels,), (1, channels)][int(pick(4))]
        weight = maker.weight("w", shape, kind, None)
        x = maker.random.standard_normal((n, channels))
        model = maker.finish(op_type, [maker.quantized, weight], ["N", channels])
    return model, x.astype(np.float32)


def outputs(model: onnx.ModelProto, x: Any, optimized: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def stated_weights(model: onnx.ModelProto) -> int:
    """How many DequantizeLinear read a constant, or a cast of one: of i2, which the optimizations reject."""
    constants = {tensor.name for tensor in model.graph.initializer}
    readers = [node for node in model.graph.node if node.input[0] in constants]
    casts = {node.output[0] for node in readers if node.op_type == "Cast"}
    readers += [node for node in model.graph.node if node.input[0] in casts]
    return sum(node.op_type == "DequantizeLinear" for node in readers)


def compiled(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    irc.compile(from_model(model, NO_FOLDER), backend="onnx", output=folder / "out.onnx")
    return onnx.load(folder / "out.onnx")


@pytest.mark.parametrize("seed", range(60))
def test_weights_stay_quantized(seed: int, tmp_path: Path) -> None:
    model, x = random_model(seed)
    emitted = compiled(model, tmp_path)
    assert stated_weights(emitted) == stated_weights(model)
    expected = outputs(model, x, optimized=False)
    np.testing.assert_allclose(interpreter.run(from_model(model, NO_FOLDER), {"x": x})["y"], expected, atol=STEP * 1.01)
    np.testing.assert_allclose(outputs(emitted, x, optimized=False), expected, atol=STEP * 1.01)
    # What the optimizations change in the original, they may change in irc's. (Of i2 they reject the original.)
    narrow = any(tensor.data_type == TensorProto.INT2 for tensor in model.graph.initializer)
    change = np.abs(outputs(model, x, optimized=not narrow) - expected).max()
    assert np.abs(outputs(emitted, x, optimized=True) - expected).max() <= max(change, STEP) * 1.01


@pytest.mark.parametrize("passes", ["fold", "canonicalize,fold,cse,raise,canonicalize,legalize,fold{views},cse,dce"])
@pytest.mark.parametrize("elements", [1, 3, 64, 65])
def test_no_dequantize_is_folded(passes: str, elements: int) -> None:
    maker = QuantizedModel(0)
    weight = maker.weight("w", (elements,), np.int8, None)
    module = irc.opt(from_model(maker.finish("Add", [maker.quantized, weight], [1]), NO_FOLDER), passes, backend="onnx")
    assert [operation.name for operation in module.walk()].count("dequantize") == 3


def test_a_scale_in_bf16_dequantizes_in_one_node(tmp_path: Path) -> None:
    module = irc.trace(
        lambda x, q, s, z: irc.ops.add(x, irc.ops.dequantize(q, s, z)), "bf16[2, 3]", "i8[2, 3]", "bf16[3]", "i8[3]"
    )
    irc.compile(module, backend="onnx", output=tmp_path / "out.onnx")
    assert "DequantizeLinear" in [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
