"""Each operator that the ONNX frontend reads, as a model of one node: interpreted, and compared with ONNX Runtime.

Inputs are random, of odd and of dynamic sizes; nothing may be carried as `extern`. Opsets are those in which an
operator's schema changed (and that ONNX Runtime still has kernels for).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import NO_FOLDER, check_against_runtime, in_runtime, model

from irc.dtypes import from_onnx
from irc.frontends.onnx import from_model
from irc.frontends.onnx.importer import TABLE
from irc.interpreter import run

SIZES = ({"N": 3, "S": 7, "C": 5}, {"N": 1, "S": 4, "C": 1})


@dataclass
class Case:
    graph: str
    opsets: tuple[int, ...] = (17,)
    low: float = -3  # the range of float inputs
    high: float = 3
    counts: int = 3  # integer inputs lie in [0, counts)
    sizes: tuple[dict[str, int], ...] = SIZES

    def __str__(self) -> str:
        return self.graph[self.graph.index("=>") + 3 :].replace("\n", " ")[:60]


def unary(*names: str, low: float = -3, high: float = 3, opsets: tuple[int, ...] = (7, 17)) -> list[Case]:
    return [Case(f"(float[N, S] x) => (y) {{ y = {name}(x) }}", opsets, low, high) for name in names]


def binary(*names: str, opsets: tuple[int, ...] = (7, 17), kind: str = "float", low: float = -3) -> list[Case]:
    shapes = (("N, S", "N, S"), ("N, S", "S"), ("N, 1, S", "C, 1"), ("", "N, S"))
    return [
        Case(f"({kind}[{a}] a, {kind}[{b}] b) => (y) {{ y = {name}(a, b) }}".replace(f"{kind}[]", kind), opsets, low)
        for name in names for a, b in shapes
    ]


def window(nodes: str, opsets: tuple[int, ...] = (17,), x: str = "N, 4, 9, 12") -> Case:
    return Case(f"(float[{x}] x) => (y) {{ {nodes} }}", opsets)


POINTWISE = [
    *unary("Abs", "Neg", "Floor", "Ceil", "Exp", "Sin", "Cos", "Tan", "Atan", "Tanh", "Sigmoid", "Relu", "Softplus",
           "Softsign", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Identity"),
    *unary("Sign", "Erf", "Sinh", "Cosh", "Asinh", "IsNaN", opsets=(9, 17)),
    *unary("Round", opsets=(11, 17)),
    *unary("Sqrt", "Log", "Reciprocal", low=0.1),
    *unary("Acosh", low=1.1, opsets=(9, 17)),
    *unary("Acos", "Asin", low=-0.9, high=0.9),
    *unary("Atanh", low=-0.9, high=0.9, opsets=(9, 17)),
    *unary("HardSwish", opsets=(14,)), *unary("Mish", opsets=(18,)), *unary("Celu", opsets=(12,)),
    *unary("ThresholdedRelu", opsets=(10,)),
    *unary("Gelu<approximate = \"tanh\">", "Gelu", opsets=(20,)),
    *binary("Add", "Sub", "Mul", "Div"),
    *binary("Add", "Sub", "Mul", kind="int64"),
    *binary("Max", "Min", "Sum", "Mean", opsets=(8, 13)),
    *binary("Less", "Greater", opsets=(7, 13)), *binary("LessOrEqual", "GreaterOrEqual", opsets=(12, 16)),
    *binary("Equal", kind="int64"),
    *binary("Pow", low=0.1), *binary("And", "Or", "Xor", kind="bool"),
    *binary("BitwiseAnd", "BitwiseOr", "BitwiseXor", kind="int32", opsets=(18,)),
    *binary("BitShift<direction = \"LEFT\">", "BitShift<direction = \"RIGHT\">", kind="uint8", opsets=(11,)),
    *binary("Mod<fmod = 1>", opsets=(10, 13)),
    Case("(int32[N, S] x) => (y) { a = Constant<value = int32[1] {-7}>() b = Add(x, a)"
         " m = Constant<value = int32[1] {3}>() y = Mod(b, m) }", (10, 13)),
    Case("(int32[N, S] x) => (y) { a = Constant<value = int32[1] {-7}>() b = Add(x, a)"
         " m = Constant<value = int32[1] {3}>() y = Div(b, m) }"),
    Case("(float[N, S] x, int64[S] n) => (y) { y = Pow(x, n) }", (12, 15)),
    Case("(int64[N, S] x, float[S] n) => (y) { y = Pow(x, n) }", (12, 15), low=0),
    Case("(bool[N, S] x) => (y) { y = Not(x) }"),
    Case("(bool[N, 1] c, float[S] a, float[N, S] b) => (y) { y = Where(c, a, b) }", (9, 16)),
    Case("(float[N, S] x) => (y) { y = Clip<min = -1.0, max = 0.5>(x) }", (7,)),
    Case("(float[N, S] x, float low) => (y) { y = Clip(x, low) }", (11, 13)),
    Case("(float[N, S] x, float high) => (y) { y = Clip(x, , high) }", (11, 13)),
    Case("(float[N, C, S] x, float[C, 1] slope) => (y) { y = PRelu(x, slope) }", (7, 16)),
    Case("(float[N, S] x) => (y) { y = Cast<to = 7>(x) }", (9, 13)),
    Case("(float[N, S] x, int32[1] like) => (y) { y = CastLike(x, like) }", (15,)),
    Case("(float[N, S] x) => (y) { y = IsInf(x) }", (10,)),
    Case("(float[N, S] x) => (y) { y = Shrink<lambd = 1.0, bias = 0.5>(x) }", (9,)),
    Case("(float[N, S] x) => (y, m) { y, m = Dropout(x) }", (12,)),
    Case("(float[N, S] x) => (y) { y = Dropout(x) }", (7, 10, 13)),
    Case("(float[N, S] x, float[N, S] y, float[S] z) => (s) { s = Sum(x, y, z) }"),
]

REDUCTIONS = [
    Case(f"(float[N, S, C] x) => (y) {{ y = {name}{attributes}(x) }}", (11, 17 if name != "ReduceSum" else 12), low)
    for name, low in {"ReduceSum": -3, "ReduceMean": -3, "ReduceMax": -3, "ReduceMin": -3, "ReduceProd": -3,
                      "ReduceL1": -3, "ReduceL2": -3, "ReduceSumSquare": -3, "ReduceLogSum": 0.1,
                      "ReduceLogSumExp": -3}.items()
    for attributes in ("", "<axes = [1], keepdims = 0>", "<axes = [-1, 0]>")
] + [
    Case(f"(float[N, S] x) => (y) {{ a = Constant<value_ints = [-1]>() y = {name}<keepdims = 0>(x, a) }}", (18,))
    for name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
] + [
    Case("(float[N, S] x) => (y) { y = ReduceSum<noop_with_empty_axes = 1>(x) }", (13,)),
    Case("(int32[N, S] x) => (y) { y = ReduceMean<axes = [1]>(x) }", (13,), sizes=({"N": 3, "S": 1},)),
    Case("(int64[N, S] x) => (y) { y = ReduceMax<axes = [1]>(x) }", (13,)),
    Case("(float[N, S, C] x) => (y) { y = ArgMax<axis = 1>(x) }", (7, 13)),
    Case("(float[N, S, C] x) => (y) { y = ArgMin<axis = -2, keepdims = 0>(x) }", (7, 13)),
    Case("(int32[N, S] x) => (y) { y = ArgMax<axis = 1, select_last_index = 1>(x) }", (13,)),
    Case("(float[N, S, C] x) => (y) {"
         " a = Constant<value_int = 1>() y = CumSum<exclusive = 1, reverse = 1>(x, a) }", (11, 14)),
]  # fmt: skip

TENSOR = [
    Case("(float[N, S, 6] x) => (y) { s = Constant<value_ints = [0, -1, 2]>() y = Reshape(x, s) }", (7, 14)),
    Case("(float[N, S, 6] x) => (y) { s = Shape(x) f = Constant<value_ints = [0]>() n = Gather(s, f)"
         " r = Constant<value_ints = [-1]>() t = Concat<axis = 0>(n, r) y = Reshape(x, t) }"),
    Case("(float[N, S, C] x) => (y) { y = Flatten<axis = 2>(x) }", (7, 13)),
    Case("(float[N, S, C] x) => (y) { y = Flatten<axis = -3>(x) }", (11,)),
    Case("(float[N, 1, S, 1] x) => (y) { y = Squeeze<axes = [1, -1]>(x) }", (11,)),
    Case("(float[2, 1, 5, 1] x) => (y) { y = Squeeze(x) }", (11, 13)),
    Case("(float[N, 1, S, 1] x) => (y) { a = Constant<value_ints = [3, 1]>() y = Squeeze(x, a) }", (13,)),
    Case("(float[N, S] x) => (y) { y = Unsqueeze<axes = [0, 2]>(x) }", (7,)),
    Case("(float[N, S] x) => (y) { a = Constant<value_ints = [-1, 0]>() y = Unsqueeze(x, a) }", (13,)),
    Case("(float[N, 1, S] x) => (y) { s = Constant<value_ints = [2, 1, 5, 1]>() y = Expand(x, s) }", (8, 13)),
    Case("(float[N, S] x) => (y) { s = Constant<value_ints = [2, 3]>() y = Tile(x, s) }", (7, 13)),
    Case("(float[N, S, C] x) => (y) { y = Transpose(x) }"),
    Case("(float[N, S, C] x) => (y) { y = Transpose<perm = [1, 2, 0]>(x) }"),
    Case("(float[N, S] a, float[N, 2] b, float[N, C] c) => (y) { y = Concat<axis = -1>(a, b, c) }"),
    Case("(float[N, 6] x) => (a, b) { a, b = Split<axis = 1, split = [2, 4]>(x) }", (7, 11)),
    Case("(float[N, 6] x) => (a, b, c) { a, b, c = Split<axis = -1>(x) }", (7, 13)),
    Case("(float[N, 7] x) => (a, b, c) { a, b, c = Split<axis = 1, num_outputs = 3>(x) }", (18,)),
    Case("(float[N, 6] x) => (a, b) { s = Constant<value_ints = [5, 1]>() a, b = Split<axis = 1>(x, s) }", (13,)),
    Case("(float[3, S] x, int64[N, 2] i) => (y) { y = Gather(x, i) }", (7, 13)),
    Case("(float[N, 3, S] x, int32[2] i) => (y) { y = Gather<axis = -2>(x, i) }"),
    Case("(float[3, S] x, int64[2, S] i) => (y) { y = GatherElements(x, i) }", (11, 13)),
    Case("(float[3, 3, S] x, int64[N, 4, 2] i) => (y) { y = GatherND(x, i) }", (11, 13)),
    Case("(float[N, 3, S] x, int64[N, 4, 1] i) => (y) { y = GatherND<batch_dims = 1>(x, i) }", (12,)),
    Case("(float[3, S] x, int64[1, S] i, float[1, S] u) => (y) { y = ScatterElements(x, i, u) }", (11, 16)),
    Case("(float[3, S] x, int64[2, S] i, float[2, S] u) => (y) {"
         " y = ScatterElements<reduction = \"add\">(x, i, u) }", (16, 18)),
    Case("(float[3, S] x, int64[1, 1] i, float[1, S] u) => (y) { y = ScatterND(x, i, u) }", (11, 16)),
    Case("(float[N, S, C] x) => (y) { y = Trilu(x) }", (14,)),
    Case("(float[N, S, C] x) => (y) { k = Constant<value_int = -1>() y = Trilu<upper = 0>(x, k) }", (14,)),
    Case("(float[N, 9] x) => (v, i) { k = Constant<value_ints = [3]>() v, i = TopK(x, k) }", (10, 11)),
    Case("(float[9, S] x) => (v, i) {"
         " k = Constant<value_ints = [2]>() v, i = TopK<axis = 0, largest = 0>(x, k) }", (11,)),
    Case("(float[N, S] x) => (y) { y = Pad<pads = [0, 1, 2, 0], value = 1.5>(x) }", (7,)),
    Case("(float[N, 5] x, float v) => (y) { p = Constant<value_ints = [0, -1, 2, 3]>() y = Pad(x, p, v) }", (11, 13)),
    Case("(float[N, 5] x) => (y) {"
         " p = Constant<value_ints = [0, 2, 0, 3]>() y = Pad<mode = \"reflect\">(x, p) }", (11,)),
    Case("(float[N, 5] x) => (y) { p = Constant<value_ints = [0, 2, 1, 3]>() y = Pad<mode = \"edge\">(x, p) }", (13,)),
    Case("(float[N, 5] x) => (y) { p = Constant<value_ints = [2, 3]>() a = Constant<value_ints = [-1]>()"
         " y = Pad(x, p, , a) }", (18,)),
    Case("(float[N, 5] x) => (y) { p = Constant<value_ints = [0, 2, 0, 3]>() y = Pad<mode = \"wrap\">(x, p) }", (19,)),
    Case("(float[N, S] x) => (y) { s = Shape(x) y = ConstantOfShape<value = int32[1] {7}>(s) }", (9,)),
    Case("(float[N, S] x) => (y) { s = Shape(x) y = ConstantOfShape(s) }", (9, 20)),
    Case("(float[N, S] x) => (y, n) { y = Shape<start = -1>(x) n = Size(x) }", (15,)),
    Case("(int64[N, 2] i) => (y) { d = Constant<value_int = 4>() v = Constant<value_floats = [0.5, 2.0]>()"
         " y = OneHot<axis = 1>(i, d, v) }", (9, 11)),
    Case("(float[N, S] x) => (y) { y = EyeLike<k = 1>(x) }", (9,)),
    Case("(float[N, 8, S, C] x) => (y) { y = DepthToSpace<blocksize = 2>(x) }", (7, 13)),
    Case("(float[N, 8, S, C] x) => (y) { y = DepthToSpace<blocksize = 2, mode = \"CRD\">(x) }", (11,)),
    Case("(float[N, C, 6, 4] x) => (y) { y = SpaceToDepth<blocksize = 2>(x) }", (7, 13)),
    Case("(float[N, S] x) => (y) { z = Constant<value_int = 0>() s = Shape(x) o = Constant<value_int = 1>()"
         " n = Gather(s, o) y = Range(z, n, o) }", (11,)),
    Case("(float[N, S] x) => (y) { a = Constant<value_int = 9>() s = Shape(x) i = Constant<value_int = 1>()"
         " n = Gather(s, i) d = Constant<value_int = -2>() y = Range(a, n, d) }", (11,)),
    Case("(float[N] x) => (y) { a = Constant<value_float = 0.5>() b = Constant<value_float = 3.1>()"
         " d = Constant<value_float = 0.7>() r = Range(a, b, d) y = Mul(x, r) }", (11,), sizes=({"N": 4}, {"N": 1})),
    Case("(float[N, S] x) => (y) { s = Shape(x) o = Constant<value_int = 1>() n = Gather(s, o)"
         " a = Constant<value_float = 0.0>() d = Constant<value_float = 1.0>() b = Cast<to = 1>(n)"
         " r = Range(a, b, d) y = Mul(x, r) }", (11,)),
    Case("(float[N, S] x) => (y) { s = Shape(x) o = Constant<value_int = 1>() n = Gather(s, o)"
         " a = Constant<value = double {9.0}>() d = Constant<value = double {-2.0}>() b = Cast<to = 11>(n)"
         " y = Range(a, b, d) }", (11,)),
    Case("(float[N, C, 4, 5] x) => (y) { s = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>()"
         " y = Resize<coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\">(x, , s) }", (13,)),
    Case("(float[N, C, 4, 5] x) => (y) { z = Constant<value_ints = [7, 11]>()"
         " y = Resize<mode = \"linear\", axes = [2, 3]>(x, , , z) }", (18,)),
    Case("(float[N, C, 4, 5] x) => (y) {"
         " s = Constant<value_floats = [1.0, 1.0, 2.0, 1.0]>() y = Upsample(x, s) }", (9,)),
    Case("(float[N, C, 4, 5] x) => (y) {"
         " s = Constant<value_floats = [1.0, 1.0, 2.0, 1.0]>() y = Resize(x, s) }", (10,)),
]  # fmt: skip

SLICES = [
    Case(f"(float[N, S] x) => (y) {{ s = Constant<value_ints = [{start}]>() e = Constant<value_ints = [{end}]>()"
         f" a = Constant<value_ints = [1]>() t = Constant<value_ints = [{step}]>()"
         " y = Slice(x, s, e, a, t) }", (10, 13))
    for start, end, step in (
        (1, 3, 1), (-2, 1000000000, 1), (0, -1, 1), (-100, 100, 2), (-1, -9223372036854775807, -1), (5, 1, -2),
        (2147483647, -3, -1), (3, 1, 1), (100, 200, 1), (-100, -9223372036854775807, -1), (-100, 1, -1),
    )
] + [Case("(float[N, S] x) => (y) { y = Slice<axes = [1], starts = [-2], ends = [9223372036854775807]>(x) }", (7,))]

LINEAR = [
    Case("(float[N, S] a, float[S, C] b) => (y) { y = MatMul(a, b) }", (7, 9, 13)),
    Case("(float[2, N, S] a, float[S, C] b) => (y) { y = MatMul(a, b) }"),
    Case("(float[N, 1, 2, S] a, float[3, S, C] b) => (y) { y = MatMul(a, b) }"),
    Case("(float[S] a, float[2, S, C] b) => (y) { y = MatMul(a, b) }"),
    Case("(float[S] a, float[S] b) => (y) { y = MatMul(a, b) }"),
    Case("(float[N, S] a, float[S, C] b, float[C] c) => (y) {"
         " y = Gemm<alpha = 0.5, beta = 2.0>(a, b, c) }", (7, 9, 13)),
    Case("(float[S, N] a, float[C, S] b) => (y) { y = Gemm<transA = 1, transB = 1>(a, b) }", (11,)),
    Case("(float[N, S] a, float[S, C] b) => (y) { y = Einsum<equation = \"ns,sc->cn\">(a, b) }", (12,)),
    Case("(float[2, N, S] a, float[2, C, S] b) => (y) { y = Einsum<equation = \"bns, bcs -> bnc\">(a, b) }", (12,)),
    Case("(float[N, S] a) => (y) { y = Einsum<equation = \"ns->s\">(a) }", (12,)),
    Case("(float[N] a, float[S] b) => (y) { y = Einsum<equation = \"i,j\">(a, b) }", (12,)),
    Case("(float[N, 4, 9, 12] x, float[6, 4, 3, 2] w, float[6] b) => (y) {"
         " y = Conv<strides = [2, 1], pads = [1, 0, 2, 1], dilations = [1, 2]>(x, w, b) }", (7, 11)),
    Case("(float[N, 4, 9, 12] x, float[6, 2, 3, 2] w) => (y) { y = Conv<group = 2, auto_pad = \"SAME_UPPER\">(x, w) }"),
    Case("(float[N, 4, S, 12] x, float[6, 4, 3, 2] w) => (y) {"
         " y = Conv<strides = [2, 2], auto_pad = \"SAME_LOWER\">(x, w) }"),
    Case("(float[N, 4, S] x, float[6, 4, 3] w) => (y) { y = Conv<auto_pad = \"VALID\">(x, w) }"),
    Case("(float[N, 4, 5, 6] x, float[4, 3, 3, 2] w, float[3] b) => (y) {"
         " y = ConvTranspose<strides = [2, 1], pads = [1, 0, 0, 1], output_padding = [1, 0]>(x, w, b) }"),
    Case("(float[N, 4, 5, 6] x, float[4, 3, 3, 3] w) => (y) {"
         " y = ConvTranspose<strides = [2, 2], output_shape = [10, 12]>(x, w) }"),
    window("y = MaxPool<kernel_shape = [3, 2], strides = [2, 3], pads = [1, 0, 1, 1]>(x)", (8, 12)),
    window("y = MaxPool<kernel_shape = [3, 2], strides = [2, 3], ceil_mode = 1>(x)", (10, 12)),
    window("y = MaxPool<kernel_shape = [2, 2], dilations = [2, 3], pads = [1, 1, 0, 1]>(x)", (12,)),
    window("y = MaxPool<kernel_shape = [2, 3], strides = [2, 2], auto_pad = \"SAME_UPPER\">(x)", (12,)),
    window("y = AveragePool<kernel_shape = [3, 2], strides = [2, 3], pads = [1, 0, 1, 1]>(x)", (7, 11)),
    window("y = AveragePool<kernel_shape = [3, 2], pads = [1, 0, 1, 1], count_include_pad = 1>(x)", (7, 11)),
    window("y = AveragePool<kernel_shape = [2], strides = [2], auto_pad = \"SAME_LOWER\">(x)", x="N, 4, S"),
    window("y = LpPool<kernel_shape = [3, 2], strides = [2, 3]>(x)", (11,)),
    window("y = GlobalAveragePool(x)"), window("y = GlobalMaxPool(x)"), window("y = GlobalLpPool(x)"),
]

NORMALIZATIONS = [
    *[Case(f"(float[N, S, C] x) => (y) {{ y = {name}<axis = {axis}>(x) }}", opsets)
      for name in ("Softmax", "LogSoftmax", "Hardmax")
      for axis, opsets in ((1, (7, 11, 13)), (-1, (11, 13)), (2, (11, 13)))],
    Case("(float[N, S, 8] x, float[8] s, float[8] b) => (y) { y = LayerNormalization<epsilon = 0.01>(x, s, b) }"),
    Case("(float[N, S, 8] x, float[8] s) => (y, m, d) { y, m, d = LayerNormalization(x, s) }"),
    Case("(float[N, S, 8] x, float[S, 8] s) => (y) { y = LayerNormalization<axis = 1>(x, s) }"),
    Case("(float[N, 6, S] x, float[6] s, float[6] b, float[6] m, float[6] v) => (y) {"
         " y = BatchNormalization(x, s, b, m, v) }", (7, 9, 14, 15), low=0.1),
    Case("(float[N, 6, S, 2] x, float[6] s, float[6] b) => (y) { y = InstanceNormalization(x, s, b) }"),
    Case("(float[N, 6, S] x, float[6] s, float[6] b) => (y) {"
         " y = GroupNormalization<num_groups = 3>(x, s, b) }", (21,)),
    Case("(float[N, S] x) => (y) { y = LpNormalization<p = 1>(x) }"),
    Case("(float[N, 6, S, 2] x) => (y) { y = LRN<size = 3, alpha = 0.3>(x) }"),
    Case("(float[N, 6, 5, 2] x) => (y) { y = MeanVarianceNormalization(x) }", (9, 13)),
]  # fmt: skip

QUANTIZATION = [
    Case("(float[N, S] x) => (y) { s = Constant<value_float = 0.05>() z = Constant<value = uint8 {128}>()"
         " y = QuantizeLinear(x, s, z) }", (10, 13)),
    Case("(float[N, 3] x) => (y) {"
         " s = Constant<value_floats = [0.05, 0.1, 0.3]>() z = Constant<value = int8[3] {1, -2, 3}>()"
         " y = QuantizeLinear(x, s, z) }", (13,)),
    Case("(uint8[N, S] x) => (y) { s = Constant<value_float = 0.05>() z = Constant<value = uint8 {2}>()"
         " y = DequantizeLinear(x, s, z) }", (10, 13)),
    Case("(float[N, S] x) => (y, s, z) { y, s, z = DynamicQuantizeLinear(x) }", (11,)),
    Case("(uint8[N, S] a, uint8[S, C] b) => (y) {"
         " z = Constant<value = uint8 {2}>() y = MatMulInteger(a, b, z) }", (10,)),
]  # fmt: skip

ATTENTION = [
    Case("(float[N, 2, S, 4] q, float[N, 2, C, 4] k, float[N, 2, C, 3] v) => (y) { y = Attention(q, k, v) }", (23,)),
    Case("(float[N, S, 8] q, float[N, S, 4] k, float[N, S, 4] v) => (y) {"
         " y = Attention<q_num_heads = 4, kv_num_heads = 2, is_causal = 1, scale = 0.3>(q, k, v) }", (23,)),
    Case("(float[N, 2, S, 4] q, float[N, 2, S, 4] k, float[N, 2, S, 4] v, float[S, S] m) => (y) {"
         " y = Attention(q, k, v, m) }", (23,)),
]

ALL = POINTWISE + REDUCTIONS + TENSOR + SLICES + LINEAR + NORMALIZATIONS + QUANTIZATION + ATTENTION


@pytest.mark.parametrize(("case", "opset"), [(case, opset) for case in ALL for opset in case.opsets], ids=str)
def test_operator(case: Case, opset: int) -> None:
    for index, sizes in enumerate(case.sizes):
        random = np.random.default_rng(index)
        inputs = {}
        for value in model(case.graph, opset).graph.input:
            extents = value.type.tensor_type.shape.dim
            shape = [dim.dim_value if dim.HasField("dim_value") else sizes[dim.dim_param] for dim in extents]
            dtype = from_onnx(value.type.tensor_type.elem_type)
            if dtype.is_float:
                inputs[value.name] = np.asarray(random.uniform(case.low, case.high, shape)).astype(dtype.numpy)
            else:
                inputs[value.name] = np.asarray(random.integers(0, case.counts, shape)).astype(dtype.numpy)
        module = check_against_runtime(case.graph, inputs, opset)
        assert "extern" not in {operation.name for operation in module.walk()}


@pytest.mark.parametrize("kind, dtype", [("float", np.float32), ("double", np.float64), ("float16", np.float16)])
@pytest.mark.parametrize("opset, node", [
    (13, "Clip (x)"), (13, "Clip (x, low)"), (11, "Clip (x, , low)"), (10, "Clip<min = -1.0> (x)"), (8, "Clip (x)"),
])  # fmt: skip
def test_absent_bounds_are_finite(opset: int, node: str, kind: str, dtype: type) -> None:
    """ONNX: they default to numeric_limits::lowest() and max()."""
    if opset < 12 and dtype is not np.float32:
        pytest.skip("ONNX Runtime has it for float alone")
    inputs = {"x": np.array([-np.inf, np.inf, 1, -2], dtype), "low": np.array(0, dtype)}
    check_against_runtime(f"({kind}[4] x, {kind} low) => (y) {{ y = {node} }}", inputs, opset)


@pytest.mark.parametrize("opset, node", [
    (18, "HardSigmoid (x)"), (18, "HardSwish (x)"), (17, "LayerNormalization (x, w)"), (23, "RMSNormalization (x, w)"),
    (17, "BatchNormalization (x, w, w, w, w)"), (17, "Gemm<alpha = 0.3, beta = 0.7> (x, x, w)"),
])  # fmt: skip
def test_float_attributes_of_f64_are_f32(opset: int, node: str) -> None:
    generator = np.random.default_rng(0)
    inputs = {"x": generator.standard_normal((3, 3)), "w": generator.random(3), "f": np.ones((3, 3), np.float32)}
    proto = model(f"(double[3, 3] x, double[3] w, float[3, 3] f) => (y) {{ y = {node} }}", opset)
    (expected,) = in_runtime(proto, inputs)
    actual = run(from_model(proto, NO_FOLDER), inputs)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-13 if expected.dtype == np.float64 else 1e-6)


@pytest.mark.parametrize("kind, x", [("float", [[1e-30, -1e-40], [0, 3]]), ("double", [[1e-170, 0], [0, 3]])])
def test_a_norm_that_is_0_gives_0(kind: str, x: Any) -> None:
    """Also where that is of numbers whose squares are too small."""
    inputs = {"x": np.asarray(x, np.float32 if kind == "float" else np.float64)}
    proto = model(f"({kind}[2, 2] x) => (y) {{ y = LpNormalization <axis = 1, p = 2> (x) }}", 22)
    (expected,) = in_runtime(proto, inputs)
    np.testing.assert_array_equal(run(from_model(proto, NO_FOLDER), inputs)["y"], expected)
    assert not expected[0].any()


def test_rows_have_inputs_and_attributes_of_their_operators() -> None:
    """Those of some version of the operator; schemas of rows are read when a model needs them."""
    versions: dict[tuple[str, str], list[Any]] = {}
    for each in onnx.defs.get_all_schemas_with_history():
        versions.setdefault((each.domain, each.name), []).append(each)
    rows = [row for rows in TABLE.rows.values() for row in rows]
    for row in rows:
        schema, known = row.schema, versions.get((row.domain, row.op_type), ())
        if not known:  # ONNX Runtime's own
            continue
        attributes = {(name, each.attributes[name].type.name) for each in known for name in each.attributes}
        assert {(name, kind) for name, (kind, _) in schema.attributes.items()} <= attributes, row.op_type
        assert len(schema.inputs) <= max(each.max_input for each in known), row.op_type
    assert sum((row.domain, row.op_type) in versions for row in rows) > 150
