"""Operators of ONNX Runtime that ONNX does not have: models that state none of their types load, and every path gives
what ONNX Runtime gives with its optimizations off."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.models import find_backend
from irc.driver.running import run_compiled
from irc.frontends.onnx import from_model
from irc.frontends.onnx.contrib_types import RULES
from irc.frontends.onnx.importer import TABLE
from irc.parser import parse
from tests.onnx_models import NO_FOLDER, check_close, in_runtime
from tests.triton_harness import load_artefact, to_numpy

RANDOM = np.random.default_rng(11)
B, S, P = 2, 3, 4  # sizes of the dims of these names, which inputs have


def f32(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def u8(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> Any:
    return RANDOM.integers(-128, 128, shape).astype(np.int8)


def scale(value: float = 0.05) -> Any:
    return np.float32(value)


Q = (scale(), np.uint8(120))  # a scale and a zero point


@dataclass(eq=False)
class Case:
    """A node of one operator. Operands in `dims` are inputs with dims of these names; others are initializers."""

    op_type: str
    operands: Sequence[Any]
    dims: Mapping[int, Sequence[str | int]]
    outputs: Sequence[int] = (0,)  # those that are requested, by position
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = "com.microsoft"
    opset: int = 17
    tolerance: float = 1e-5

    def model(self) -> tuple[onnx.ModelProto, dict[str, Any]]:
        names = ["" if operand is None else f"in{index}" for index, operand in enumerate(self.operands)]
        inputs, feeds, initializers = [], {}, []
        for index, (name, operand) in enumerate(zip(names, self.operands, strict=True)):
            if index in self.dims:
                code = helper.np_dtype_to_tensor_dtype(np.asarray(operand).dtype)
                inputs.append(helper.make_tensor_value_info(name, code, self.dims[index]))
                feeds[name] = operand
            elif operand is not None:
                initializers.append(numpy_helper.from_array(np.asarray(operand), name))
        results = ["" if index not in self.outputs else f"out{index}" for index in range(max(self.outputs) + 1)]
        given = {name: helper.make_attribute(name, value) for name, value in self.attributes.items()}
        node = helper.make_node(self.op_type, names, results, "node", domain=self.domain)
        node.attribute.extend(given.values())
        declared = [onnx.ValueInfoProto(name=name) for name in results if name]
        graph = helper.make_graph([node], "graph", inputs, declared, initializers)
        imports = [helper.make_opsetid(domain, version) for domain, version in {"": self.opset, self.domain: 1}.items()]
        if not self.domain:
            imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8), feeds


TOKENS, IDS = [f32(B, S, 8), ("B", "S", 8)], RANDOM.integers(0, 5, (B, S)).astype(np.int32)
PACKED = RANDOM.integers(0, 256, (6, 1, 8)).astype(np.uint8)  # 6 columns of 16 elements of 4 bits
CACHE = [f32(B, 2, P, 4) for _ in range(2)]
WIDE_CACHE = [f32(1, 1, P, 16) for _ in range(2)]
LENGTHS = np.full(1, P + S - 1, np.int32)
IMAGE = f32(B, 3, 7, 6)
NHWC = ("B", 7, 6, 3)

CASES = [
    Case("BiasGelu", [TOKENS[0], f32(8)], {0: TOKENS[1]}),
    Case("FastGelu", [TOKENS[0], f32(8)], {0: TOKENS[1]}, tolerance=1e-4),
    Case("Gelu", [TOKENS[0]], {0: TOKENS[1]}),
    Case("QuickGelu", [TOKENS[0]], {0: TOKENS[1]}, attributes={"alpha": 1.5}),
    Case("SimplifiedLayerNormalization", [TOKENS[0], f32(8)], {0: TOKENS[1]}, (0, 1), domain="", opset=14),
    Case("SimplifiedLayerNormalization", [f32(B, 4, S), f32(4, S)], {0: ("B", 4, "S"), 1: (4, "S")},
         attributes={"axis": 1, "epsilon": 1e-3}, domain="", opset=14),
    Case("LayerNormalization", [TOKENS[0], f32(8), f32(8)], {0: TOKENS[1]}, (0, 1, 2), domain="", opset=13),
    Case("ScaledTanh", [TOKENS[0]], {0: TOKENS[1]}, attributes={"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Case("ParametricSoftplus", [TOKENS[0]], {0: TOKENS[1]}, attributes={"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Case("Affine", [TOKENS[0]], {0: TOKENS[1]}, attributes={"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Case("Scale", [TOKENS[0]], {0: TOKENS[1]}, attributes={"scale": 0.5}, domain="", opset=9),
    Case("ImageScaler", [IMAGE], {0: ("B", 3, 7, "W")}, attributes={"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, domain="",
         opset=9),
    Case("Crop", [IMAGE], {0: ("B", 3, 7, "W")}, attributes={"border": [1, 0, 2, 3]}, domain="", opset=9),
    Case("Crop", [IMAGE], {0: ("B", 3, 7, 6)}, attributes={"border": [1, 2, 0, 0], "scale": [3, 2]}, domain="",
         opset=9),
    Case("DynamicSlice", [TOKENS[0], np.array([1, 2]), np.array([3, 9]), np.array([1, 2])], {0: TOKENS[1]}, domain="",
         opset=9),
    *(Case("SkipLayerNormalization", [TOKENS[0], f32(*shape), *(f32(8) for _ in range(3))][:count], {0: TOKENS[1]},
           outputs, {"epsilon": 1e-5}, tolerance=1e-4)
      for shape, count, outputs in (((B, S, 8), 5, (0, 3)), ((S, 8), 4, (0,)), ((1, S, 8), 3, (0, 3)))),
    Case("SkipSimplifiedLayerNormalization", [TOKENS[0], f32(B, S, 8), f32(8)], {0: TOKENS[1], 1: TOKENS[1]}, (0, 3),
         tolerance=1e-4),
    Case("SkipSimplifiedLayerNormalization", [TOKENS[0].astype(np.float16), *(f32(*shape).astype(np.float16)
         for shape in ((B, S, 8), (8,), (8,)))], {0: TOKENS[1]}, (0, 3), tolerance=2e-3),
    Case("FusedMatMul", [f32(B, 8, S), f32(B, 8, 5)], {0: ("B", 8, "S")}, attributes={"transA": 1, "alpha": 0.25}),
    Case("FusedMatMul", [f32(5, B, 4, 8), f32(B, 4, 6, 8)], {0: (5, "B", 4, 8)},
         attributes={"transBatchA": 1, "transB": 1}),
    Case("FusedMatMul", [f32(8), f32(8, 5)], {0: (8,)}),
    Case("TransposeMatMul", [f32(B, S, 8), f32(B, 5, 8)], {0: TOKENS[1]}, attributes={"transB": 1, "alpha": 2.0}),
    *(Case("FusedConv", [IMAGE, f32(5, 3, 3, 3), f32(5)], {0: ("B", 3, 7, "W")}, attributes={
        "activation": name, "activation_params": parameters, "pads": [1, 0, 1, 2], "strides": [2, 1],
        "kernel_shape": [3, 3]}, tolerance=1e-4)
      for name, parameters in (("Relu", [0.0]), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("Tanh", [0.0]),
                               ("HardSigmoid", [0.3, 0.4]), ("Sigmoid", [0.0]))),
    Case("FusedConv", [IMAGE, f32(5, 3, 1, 1), None, f32(B, 5, 7, 6)], {0: ("B", 3, 7, 6), 3: ("B", 5, 7, 6)},
         attributes={"activation": "Relu"}),
    Case("FusedGemm", [f32(B, 8), f32(5, 8), f32(5)], {0: ("B", 8)}, attributes={
        "activation": "LeakyRelu", "activation_alpha": 0.1, "transB": 1, "alpha": 0.5}),
    Case("FusedGemm", [f32(B, 8), f32(8, 5)], {0: ("B", 8)}, attributes={"activation": "Elu", "activation_alpha": 1.0}),
    Case("QuantizeLinear", [TOKENS[0], scale(), np.int16(3)], {0: TOKENS[1]}),
    Case("DequantizeLinear", [u8(B, S, 8), np.abs(f32(8)), u8(8)], {0: TOKENS[1]}, attributes={"axis": 2}),
    Case("Trilu", [f32(B, 5, 5), np.int64(1)], {0: ("B", 5, 5)}, attributes={"upper": 0}),
    Case("GatherND", [f32(B, S, 8), np.array([[1, 2], [0, 1]], np.int64)], {0: TOKENS[1]}),
    Case("Pad", [f32(B, S), np.array([0, 1, 2, 0], np.int64), np.float32(7)], {0: ("B", "S")},
         attributes={"mode": "constant"}),
    Case("Range", [np.int64(2), np.int64(11)], {}),
    Case("ExpandDims", [f32(B, S), np.int32(-1)], {0: ("B", "S")}),
    Case("Inverse", [f32(B, 3, 3) + 3 * np.eye(3, dtype=np.float32)], {0: ("B", 3, 3)}, tolerance=1e-4),
    Case("RotaryEmbedding", [TOKENS[0], np.arange(S).reshape(1, S).repeat(B, 0), f32(10, 2), f32(10, 2)],
         {0: TOKENS[1], 1: ("B", "S")}, attributes={"num_heads": 2, "rotary_embedding_dim": 4}),
    Case("RotaryEmbedding", [f32(B, 2, S, 4), np.array([1], np.int64), f32(10, 2), f32(10, 2)],
         {0: ("B", 2, "S", 4)}, attributes={"interleaved": 1}),
    Case("Attention", [TOKENS[0], f32(8, 24), f32(24)], {0: TOKENS[1]}, (0, 1), {"num_heads": 2}, tolerance=1e-4),
    Case("Attention", [TOKENS[0], f32(8, 28), f32(28)], {0: TOKENS[1]}, (0,),
         {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12], "unidirectional": 1}, tolerance=1e-4),
    Case("Attention", [TOKENS[0], f32(8, 24), f32(24), None, f32(2, B, 2, P, 4)],
         {0: TOKENS[1], 4: (2, "B", 2, "P", 4)}, (0, 1), {"num_heads": 2, "unidirectional": 1}, tolerance=1e-4),
    Case("QAttention", [u8(B, S, 8), u8(8, 24), f32(24), scale(0.02), scale(0.02), None, np.uint8(128), np.uint8(127)],
         {0: TOKENS[1]}, (0,), {"num_heads": 2}, tolerance=1e-3),
    Case("MultiHeadAttention", [TOKENS[0], f32(B, P, 8), f32(B, P, 12)],
         {0: TOKENS[1], 1: ("B", "P", 8), 2: ("B", "P", 12)}, (0,), {"num_heads": 2}, tolerance=1e-4),
    Case("MultiHeadAttention", [TOKENS[0], f32(B, S, 8), f32(B, S, 8), f32(24), None, None, *CACHE],
         {0: TOKENS[1], 1: TOKENS[1], 2: TOKENS[1], 6: ("B", 2, "P", 4), 7: ("B", 2, "P", 4)}, (0, 1, 2),
         {"num_heads": 2}, tolerance=1e-4),
    Case("MultiHeadAttention", [TOKENS[0], *CACHE], {0: TOKENS[1], 1: ("B", 2, "P", 4), 2: ("B", 2, "P", 4)}, (0,),
         {"num_heads": 2}, tolerance=1e-4),
    Case("GroupQueryAttention", [f32(1, S, 32), f32(1, S, 16), f32(1, S, 16), *WIDE_CACHE, LENGTHS,
                                 np.array(P + S, np.int32)],
         {0: ("B", "S", 32), 1: ("B", "S", 16), 2: ("B", "S", 16), 3: ("B", 1, "P", 16), 4: ("B", 1, "P", 16),
          5: ("B",), 6: ()}, (0, 1, 2), {"num_heads": 2, "kv_num_heads": 1}, tolerance=1e-4),
    Case("GroupQueryAttention", [f32(1, S, 64), None, None, *WIDE_CACHE, LENGTHS, np.array(P + S, np.int32),
                                 f32(16, 8), f32(16, 8)],
         {0: ("B", "S", 64), 3: ("B", 1, "P", 16), 4: ("B", 1, "P", 16)}, (0, 1, 2),
         {"num_heads": 2, "kv_num_heads": 1, "do_rotary": 1}, tolerance=1e-4),
    Case("DecoderMaskedMultiHeadAttention", [f32(B, 1, 8), f32(B, 1, 8), f32(B, 1, 8), None, None, *CACHE,
                                             np.array([P - 1], np.int32)],
         {0: ("B", 1, 8), 5: ("B", 2, "P", 4), 6: ("B", 2, "P", 4)}, (0, 1, 2),
         {"num_heads": 2, "past_present_share_buffer": 1}, tolerance=1e-4),
    Case("EmbedLayerNormalization", [IDS, IDS % 2, f32(5, 8), f32(10, 8), f32(2, 8), f32(8), f32(8)],
         {0: ("B", "S"), 1: ("B", "S")}, (0, 1), tolerance=1e-4),
    Case("EmbedLayerNormalization", [IDS, None, f32(5, 8), f32(10, 8), None, f32(8), f32(8)], {0: ("B", "S")}, (0, 2),
         {"mask_index_type": 0}, tolerance=1e-4),
    Case("MatMulNBits", [f32(B, S, 16), PACKED, np.abs(f32(6)), None], {0: ("B", "S", 16)}, attributes={
        "K": 16, "N": 6, "bits": 4, "block_size": 16}, tolerance=1e-4),
    Case("MatMulNBits", [f32(B, S, 40), u8(6, 3, 8), np.abs(f32(18)), u8(12)], {0: ("B", "S", 40)}, attributes={
        "K": 40, "N": 6, "bits": 4, "block_size": 16}, tolerance=1e-3),
    Case("MatMulNBits", [f32(B, 40), u8(6, 3, 8), np.abs(f32(6, 3)), f32(6, 3), None, f32(6)], {0: ("B", 40)},
         attributes={"K": 40, "N": 6, "bits": 4, "block_size": 16}, tolerance=1e-3),
    Case("MatMulNBits", [f32(B, S, 32), u8(6, 2, 16), np.abs(f32(12)), u8(12)], {0: ("B", "S", 32)}, attributes={
        "K": 32, "N": 6, "bits": 8, "block_size": 16}, tolerance=1e-3),
    Case("MatMulBnb4", [f32(B, S, 16), u8(48), np.abs(f32(6))], {0: ("B", "S", 16)}, attributes={
        "K": 16, "N": 6, "quant_type": 1, "block_size": 16}, tolerance=1e-4),
    Case("MatMulIntegerToFloat", [u8(B, S, 8), i8(8, 5), scale(), np.abs(f32(5)), np.uint8(3), i8(5), f32(5)],
         {0: TOKENS[1]}, tolerance=1e-4),
    Case("DynamicQuantizeMatMul", [TOKENS[0], i8(8, 5), scale(), np.int8(1), f32(5)], {0: TOKENS[1]}, tolerance=1e-4),
    Case("MatMulInteger16", [i8(B, 8).astype(np.int16), i8(8, 5).astype(np.int16)], {0: ("B", 8)}),
    Case("QGemm", [u8(B, 8), scale(0.02), np.uint8(120), u8(5, 8), scale(0.02), np.uint8(130), None, scale(),
                   np.uint8(9)], {0: ("B", 8)}, attributes={"transB": 1}),
    Case("QGemm", [u8(B, 8), scale(0.02), np.uint8(120), u8(8, 5), scale(0.02), np.uint8(130)], {0: ("B", 8)}),
    Case("QLinearAdd", [u8(B, S, 8), *Q, u8(S, 8), *Q, *Q], {0: TOKENS[1], 3: ("S", 8)}),
    Case("QLinearMul", [u8(B, S, 8), *Q, u8(8), *Q, *Q], {0: TOKENS[1]}),
    Case("QLinearWhere", [RANDOM.random((B, S, 1)) < 0.5, u8(B, S, 8), *Q, u8(8), *Q, *Q],
         {0: ("B", "S", 1), 1: TOKENS[1]}),
    Case("QLinearSigmoid", [u8(B, S, 8), *Q, scale(1 / 256), np.uint8(0)], {0: TOKENS[1]}),
    Case("QLinearLeakyRelu", [u8(B, S, 8), *Q, *Q], {0: TOKENS[1]}, attributes={"alpha": 0.1}),
    Case("QLinearSoftmax", [u8(B, S, 8), *Q, scale(1 / 256), np.uint8(0)], {0: TOKENS[1]},
         attributes={"opset": 13, "axis": -1}),
    Case("QLinearConcat", [*Q, u8(B, S, 8), *Q, u8(B, P, 8), scale(0.1), np.uint8(3)],
         {2: TOKENS[1], 5: ("B", "P", 8)}, attributes={"axis": 1}),
    Case("QLinearConv", [u8(B, 7, 6, 3), *Q, i8(5, 3, 3, 3), np.abs(f32(5)) * 0.05, np.zeros(5, np.int8), scale(2.0),
                         np.uint8(128)],
         {0: NHWC}, attributes={"channels_last": 1, "pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}),
    Case("QLinearAveragePool", [u8(B, 7, 6, 3), *Q, *Q], {0: NHWC}, attributes={
        "channels_last": 1, "kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("QLinearGlobalAveragePool", [u8(B, 7, 6, 3), *Q, *Q], {0: NHWC}, attributes={"channels_last": 1}),
    Case("QLinearGlobalAveragePool", [u8(B, 3, 7, 6), *Q, *Q], {0: ("B", 3, 7, 6)}),
    Case("NhwcMaxPool", [u8(B, 7, 6, 3)], {0: NHWC}, attributes={"kernel_shape": [2, 2], "strides": [2, 1]}),
    Case("MaxpoolWithMask", [IMAGE, np.ones((B, 3, 7, 6), np.int32)], {0: ("B", 3, 7, 6)}, attributes={
        "kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("ConvTransposeWithDynamicPads", [IMAGE, f32(3, 4, 3, 3), np.array([1, 1, 1, 1], np.int64)],
         {0: ("B", 3, 7, 6)}, attributes={"kernel_shape": [3, 3], "strides": [2, 2]}, tolerance=1e-4),
    Case("GatherBlockQuantized", [u8(5, 8), IDS.astype(np.int64), np.abs(f32(5, 1)), u8(5, 1)], {1: ("B", "S")},
         attributes={"bits": 4, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}),
    Case("DynamicQuantizeLSTM", [f32(S, B, 8), i8(1, 8, 20), i8(1, 5, 20), f32(1, 40), None, None, None, None,
                                 np.full(1, 0.02, np.float32), np.zeros(1, np.int8), np.full(1, 0.02, np.float32),
                                 np.zeros(1, np.int8)], {0: ("S", "B", 8)}, (0, 1, 2), {"hidden_size": 5},
         tolerance=1e-3),
    Case("CDist", [f32(B, 8), f32(5, 8)], {0: ("B", 8)}, attributes={"metric": "euclidean"}, tolerance=1e-3),
    Case("CropAndResize", [IMAGE, np.array([[0, 0, 0.5, 1]], np.float32), np.array([1], np.int32),
                           np.array([4, 3], np.int32)], {0: ("B", 3, 7, 6)}),
    Case("MurmurHash3", [np.arange(6, dtype=np.int32).reshape(B, S)], {0: ("B", "S")}, attributes={"positive": 0}),
    Case("Tokenizer", [np.array(["a b", "c"], object)], {0: ("P",)}, attributes={
        "mark": 0, "mincharnum": 1, "pad_value": "#", "separators": [" "]}),
    Case("Unique", [np.array([3, 1, 3, 2], np.float32)], {0: ("P",)}, (0, 1, 2)),
    Case("NGramRepeatBlock", [IDS.astype(np.int64), f32(B, 5)], {0: ("B", "S"), 1: ("B", 5)},
         attributes={"ngram_size": 2}),
    Case("UnfoldTensor", [f32(B, 9)], {0: ("B", 9)}, attributes={"dim": 1, "size": 4, "step": 2}),
    Case("ScaledSiLU", [TOKENS[0]], {0: TOKENS[1]}, attributes={"alpha": 1.5}),
    Case("GatedRMSNorm", [TOKENS[0], f32(8), f32(B, S, 8)], {0: TOKENS[1], 2: TOKENS[1]}, tolerance=1e-4),
    Case("GridSample", [IMAGE, f32(B, 4, 5, 2)], {0: ("B", 3, 7, "W"), 1: ("B", 4, 5, 2)},
         attributes={"align_corners": 1, "mode": "bilinear"}, tolerance=1e-4),
    Case("BranchwiseRMSNorm", [TOKENS[0], f32(8)], {0: TOKENS[1]}, attributes={"num_branches": 2}, tolerance=1e-4),
    Case("MoE", [f32(B, S, 8), f32(B * S, 4), f32(4, 6, 8), f32(4, 6), f32(4, 8, 6), f32(4, 8)], {0: TOKENS[1]},
         attributes={"k": 2, "activation_type": "relu"}, tolerance=1e-4),
    Case("QEmbedLayerNormalization", [IDS, IDS % 2, u8(5, 8), u8(10, 8), u8(2, 8), u8(8), u8(8), None,
                                      *[scale(0.01)] * 5, *[np.uint8(128)] * 5],
         {0: ("B", "S"), 1: ("B", "S")}, (0, 1), tolerance=1e-3),
    Case("GatedAdd", [TOKENS[0], f32(B, S, 8), f32(B, S, 1)], {0: TOKENS[1], 1: TOKENS[1], 2: ("B", "S", 1)}),
]  # fmt: skip
# Those that differ from one of the cases by a name or a type alone.
NOT_HERE = {(name, "com.microsoft") for name in ("MRotaryEmbedding", "NhwcConv", "QMoE", "SparseAttention")}


# What ONNX Runtime runs on other processors only, with the types that its documentation gives.
TYPED = [
    (Case("MultiHeadAttention", [f32(B, S, 2, 3, 4)], {0: ("B", "S", 2, 3, 4)}, (0,), {"num_heads": 2}),
     "f32[B, S, 8]"),
    (Case("MultiHeadAttention", [TOKENS[0], f32(B, P, 2, 2, 4)], {0: TOKENS[1], 1: ("B", "P", 2, 2, 4)}, (0, 1),
          {"num_heads": 2}), "f32[B, S, 8], f32[B, 2, P, 4]"),
    (Case("GroupNorm", [f32(B, 7, 6, 8), f32(8), f32(8)], {0: ("B", 7, "W", 8)}, attributes={
        "groups": 2, "activation": 1}), "f32[B, 7, W, 8]"),
    (Case("BiasAdd", [f32(B, S, 320), f32(320), f32(B, S, 320)], {0: ("B", "S", 320)}), "f32[B, S, 320]"),
    (Case("BiasSoftmax", [TOKENS[0], f32(8)], {0: TOKENS[1]}, attributes={"axis": 2, "is_inner_broadcast": 0}),
     "f32[B, S, 8]"),
    (Case("QLinearReduceMean", [u8(B, S, 8), *Q, *Q], {0: TOKENS[1]}, attributes={"axes": [1], "keepdims": 0}),
     "u8[B, 8]"),
    (Case("NhwcFusedConv", [f32(B, 7, 6, 3), f32(5, 3, 3, 3)], {0: ("B", 7, "W", 3)}, attributes={
        "kernel_shape": [3, 3], "strides": [2, 1]}), "f32[B, 3, W - 2, 5]"),
    (Case("MatMulFpQ4", [f32(B, S, 16), u8(64), np.array([16, 6], np.int64)], {0: ("B", "S", 16)}), "f32[B, S, 6]"),
]  # fmt: skip


def name_of(case: Case) -> str:
    return f"{case.op_type}-{CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=map(name_of, CASES))
def test_a_model_of_one_operator(case: Case, tmp_path: Path) -> None:
    run_everywhere(*case.model(), tmp_path, case.tolerance)


@pytest.mark.parametrize(("case", "types"), TYPED, ids=[case.op_type for case, _ in TYPED])
def test_types_of_what_other_processors_run(case: Case, types: str) -> None:
    actual = from_model(case.model()[0], NO_FOLDER).main.returned
    assert ", ".join(str(value.type) for value in actual) == types


@pytest.mark.parametrize("case", [*CASES, *(case for case, _ in TYPED)], ids=lambda case: case.op_type)
def test_attributes_that_are_no_counts_are_coded_errors(case: Case) -> None:
    """Each integer attribute at its limits, and as something else: a module of possible types, or an error with a
    code."""
    whole = [name for name, value in case.attributes.items() if isinstance(value, int)]
    for name, value in itertools.product(whole, (0, -1, 2**40, -(2**63), [2, 2], "x", 2.5)):
        wrong = replace(case, attributes={**case.attributes, name: value})
        with contextlib.suppress(IrcError):
            types = [result.type for result in from_model(wrong.model()[0], NO_FOLDER).main.returned]
            sizes = [size for type_ in types for size in type_.shape or () if isinstance(size, int)]
            assert all(size >= 0 for size in sizes), (name, value, types)


def test_every_rule_and_row_is_tried() -> None:
    tried = {(case.op_type, case.domain) for case in (*CASES, *(typed for typed, _ in TYPED))}
    rows = {(op_type, domain) for domain, op_type in TABLE.rows if domain == "com.microsoft"}
    rules = {(op_type, domain) for domain, op_type in RULES if domain == "com.microsoft"}
    assert (rows | rules) - tried - NOT_HERE == set()


# -- whole models ----------------------------------------------------------------------------------------------


def run_everywhere(model: onnx.ModelProto, feeds: Mapping[str, Any], folder: Path, tolerance: float = 1e-4) -> None:
    """Import and run on each path, and compare with the model in ONNX Runtime, its optimizations off."""
    required = in_runtime(model, feeds)
    module = from_model(model, NO_FOLDER)
    for array, expected in zip(interpreter.run(module, feeds).values(), required, strict=True):
        check_close(array, expected, tolerance)
    compiled = irc.opt(module, find_backend("onnx").PIPELINE, backend="onnx")
    for array, expected in zip(run_compiled(compiled, feeds, "onnx", Settings())[0].values(), required, strict=True):
        check_close(array, expected, 10 * tolerance)
    find_backend("triton").emit(irc.opt(module, find_backend("triton").PIPELINE), folder / "artefact")
    results = load_artefact(folder / "artefact").load().run(feeds).values()
    for actual, expected in zip(results, required, strict=True):
        check_close(actual if isinstance(actual, np.ndarray) else to_numpy(actual), expected, 10 * tolerance)


def test_a_decoder_as_exporters_for_the_runtime_write_it(tmp_path: Path) -> None:
    """No value has a stated type; outputs that are not needed are left out."""
    text = """<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
    decoder (int64[B, S] ids, float[B, 1, P, 16] k, float[B, 1, P, 16] v, int32[B] ends, int32 total)
        => (logits, new_k, new_v) {
        x = Gather(table, ids)
        h = SimplifiedLayerNormalization<axis = -1, epsilon = 0.00001, stash_type = 1>(x, g0)
        q = com.microsoft.MatMulNBits<K = 32, N = 32, bits = 4, block_size = 16>(h, w0, s0)
        kk = com.microsoft.MatMulNBits<K = 32, N = 16, bits = 4, block_size = 16>(h, w1, s1)
        a, new_k, new_v = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 1, do_rotary = 1>
            (q, kk, kk, k, v, ends, total, cosines, sines)
        o = com.microsoft.MatMulNBits<K = 32, N = 32, bits = 4, block_size = 16>(a, w0, s0)
        n, , , r = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.00001>(x, o, g0)
        f = com.microsoft.QuickGelu<alpha = 1.0>(n)
        y, , , = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.00001>(r, f, g0)
        logits = com.microsoft.FusedMatMul<transB = 1, alpha = 0.5>(y, table)
    }""".replace("y, , , =", "y =")
    model = onnx.parser.parse_model(text)
    weights = {
        "table": f32(9, 32), "g0": f32(32), "w0": u8(32, 2, 8), "s0": np.abs(f32(64)) * 0.05, "w1": u8(16, 2, 8),
        "s1": np.abs(f32(32)) * 0.05, "cosines": f32(12, 8), "sines": f32(12, 8),
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    feeds = {"ids": np.array([[3, 1, 8]]), "k": f32(1, 1, P, 16), "v": f32(1, 1, P, 16),
             "ends": np.array([P + 2], np.int32), "total": np.array(P + 3, np.int32)}  # fmt: skip
    run_everywhere(model, feeds, tmp_path)


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
def test_models_that_the_runtime_optimized_load(level: str, tmp_path: Path) -> None:
    """It writes its own operators, of the NCHWc layout too, and states no types."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    network (float[N, 3, 16, 16] x) => (y, p)
    <float a = {1.41421}, float one = {1.0}, float half = {0.5}> {
        c = Conv<pads = [1, 1, 1, 1]>(x, w0, b0)  r = Relu(c)
        m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
        d = Conv(m, w1)  s = Add(d, d)  u = Relu(s)
        p = GlobalAveragePool(u)  f = Flatten(p)
        z = Gemm(f, w2, b2)  l = LayerNormalization(z, g, b2)
        q = Div(l, a)  e = Erf(q)  t = Add(e, one)  v = Mul(l, t)  o = Mul(v, half)
        y = MatMul(o, w3)
    }"""
    model = onnx.parser.parse_model(text)
    weights = {"w0": f32(20, 3, 3, 3), "b0": f32(20), "w1": f32(24, 20, 1, 1), "w2": f32(24, 6), "b2": f32(6),
               "g": f32(6), "w3": f32(6, 4)}  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert level == "BASIC" or {node.domain for node in optimized.graph.node} > {""}
    run_everywhere(optimized, {"x": f32(2, 3, 16, 16)}, tmp_path)


def test_types_that_a_model_states_are_read_where_nothing_else_knows_them() -> None:
    """Of a domain that is not known, in a branch too; dims of inputs keep their names, others get new ones."""
    text = """<ir_version: 8, opset_import: ["": 17, "my.own": 3]>
    g (float[B, 4] x, bool c) => (float[B, 7] y, float[B, T] z, float[] s)
    { y, , z = my.own.Split<depth = 3>(x)
      s = If (c) <then_branch = t () => (float[2, B] u) { u = my.own.Turn(x) },
                  else_branch = e () => (float[2, B] w) { w = my.own.Turn(x) }> }"""
    module = from_model(onnx.parser.parse_model(text), NO_FOLDER)
    split = module.main.block.first
    assert split is not None
    assert split.attributes["outputs"] == (0, 2)
    assert [str(value.type) for value in module.main.returned] == ["f32[B, 7]", "f32[B, e]", "f32[2, B]"]
    assert parse(str(module)) == module
    emitted = find_backend("onnx").emit(module)
    assert list(emitted.graph.node[0].output) == ["y", "", "z"]
    assert [(each.domain, each.version) for each in emitted.opset_import] == [("", 18), ("my.own", 3)]


@pytest.mark.parametrize("text", [
    "g (float[B, 4] x) => (y) { y = com.microsoft.NoSuchOperator(x) }",
    "g (float[B, 4] x) => (float[B, 4] y) { y = NoSuchOperator(x) }",
    "g (float[B, 4] x) => (float[B, 4] y, z) { y, z = my.own.Two(x) }",
])  # fmt: skip
def test_what_nothing_knows_is_refused_by_name(text: str) -> None:
    imports = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "my.own": 1]>'
    with pytest.raises(IrcError) as caught:
        from_model(onnx.parser.parse_model(f"{imports} {text}"), NO_FOLDER)
    assert caught.value.code == "onnx.unsupported" and "does not state its types" in str(caught.value)
