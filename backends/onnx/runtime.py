"""What ONNX Runtime's CPU provider runs: element types by operator, and opsets by version.

`KERNELS` was measured, not read: each operator was put alone into a model, for each element type, and the types are
those for which ONNX Runtime 1.31 makes a session (`tests/test_onnx_backend.py` does so again). f16 is listed where
ONNX Runtime puts its own casts around the node. What is not listed is computed in a wider type where that is exact,
or else rejected.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from irc.dtypes import (
    BF16,
    BOOL,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F16,
    F32,
    F64,
    I2,
    I4,
    I8,
    I16,
    I32,
    I64,
    U2,
    U4,
    U8,
    U16,
    U32,
    U64,
    DType,
)  # fmt: skip

OLDEST_OPSET = 13  # that may be requested
LOWEST_OPSET = 18  # that is chosen where none is requested
WRITTEN_OPSET = 21  # as which rows write nodes whose operators it has
CONTRIB = frozenset({"QuickGelu", "MatMulNBits"})  # operators of the tables that are ONNX Runtime's own
# The newest opset that a version of ONNX Runtime runs, newest version first.
OPSETS: tuple[tuple[tuple[int, int], int], ...] = (((1, 31), 26), ((1, 23), 23), ((1, 0), 21))
# The newest opset in which the runtime runs an operator that it has no kernel for, but only ONNX's function.
LAST_OPSETS = {"Swish": 24}
# The opset since which the runtime has a kernel for a type that the operator took before.
KERNELS_SINCE = {("GridSample", "f64"): 20, ("IsNaN", "bf16"): 20, ("Reshape", "f8e4m3fn"): 21,
                 ("Reshape", "f8e4m3fnuz"): 21, ("Reshape", "f8e5m2"): 21, ("Reshape", "f8e5m2fnuz"): 21}  # fmt: skip
# Element types that came into ONNX after the oldest opset.
DTYPE_OPSETS = {"f8e4m3fn": 19, "f8e4m3fnuz": 19, "f8e5m2": 19, "f8e5m2fnuz": 19, "i4": 21, "u4": 21, "f4e2m1": 23,
                "f8e8m0": 24, "i2": 25, "u2": 25, "f6e2m3": 28, "f6e3m2": 28}

_INTEGERS = "i64 i32 i16 i8 u64 u32 u16 u8"
_REALS = f"f64 f32 f16 {_INTEGERS}"
_REDUCED = "f64 f32 f16 i64 i32"
_MOVED = f"f64 f32 f16 bf16 {_INTEGERS} bool string"
_F8 = "f8e4m3fn f8e4m3fnuz f8e5m2 f8e5m2fnuz"
_TYPES: dict[str, str] = {
    # Element by element.
    "Abs": _REALS, "Add": _REALS, "And": "bool", "BitShift": "u64 u32 u8", "BitwiseAnd": _INTEGERS,
    "BitwiseNot": _INTEGERS, "BitwiseOr": _INTEGERS, "BitwiseXor": _INTEGERS, "Ceil": "f64 f32 f16",
    "BitCast": f"f64 f32 f16 bf16 {_INTEGERS}",
    "Cos": "f64 f32 f16", "Div": _REALS, "Equal": f"{_REALS} bool string", "Exp": "f64 f32 f16", "Floor": "f64 f32 f16",
    "Greater": _REALS, "GreaterOrEqual": _REALS, "IsInf": f"f64 f32 f16 bf16 {_F8}", "IsNaN": f"f64 f32 f16 bf16 {_F8}",
    "Less": _REALS, "LessOrEqual": _REALS, "Log": "f64 f32 f16", "Max": "f64 f32 f16 i64 i32 i8 u64 u32 u8",
    "Min": "f64 f32 f16 i64 i32 i8 u64 u32 u8", "Mod": _REALS, "Mul": _REALS, "Neg": "f64 f32 f16 i64 i32 i16 i8",
    "Not": "bool", "Or": "bool", "Pow": "f64 f32 f16 i64 i32", "Reciprocal": "f64 f32 f16", "Round": "f64 f32 f16",
    "Sign": f"f64 f32 f16 bf16 {_INTEGERS}", "Sin": "f64 f32 f16", "Sqrt": "f64 f32 f16", "Sub": _REALS,
    "Tanh": "f64 f32 f16", "Where": "f64 f32 f16 i64 i32 i8 u32 u8 string", "Xor": "bool",
    **dict.fromkeys(("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Erf", "Sinh", "Tan"), "f32 f16"),
    # Activations and normalizations.
    **dict.fromkeys(("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Softplus",
                     "Softsign", "ThresholdedRelu"), "f32 f16"),
    "Celu": "f32", "Clip": "f64 f32 f16 i64 i32 i8 u64 u32 u8", "Relu": "f64 f32 f16 i32 i8", "Sigmoid": "f64 f32 f16",
    "QuickGelu": "f32 f16", "Swish": "f64 f32 f16",
    "BatchNormalization": "f64 f32 f16", "GroupNormalization": "f32 f16", "InstanceNormalization": "f32 f16",
    "LayerNormalization": "f64 f32 f16", "LogSoftmax": "f64 f32 f16", "LpNormalization": "f64 f32 f16",
    "RMSNormalization": "f64 f32 f16", "Softmax": "f64 f32 f16", "Attention": "f32 f16",
    "RotaryEmbedding": "f32 f16",
    # Reductions, products, windows.
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
                     "ReduceSumSquare"), _REDUCED),
    "ReduceMax": f"{_REDUCED} i8 u8 bool", "ReduceMin": f"{_REDUCED} i8 u8 bool",
    "ArgMax": "f64 f32 f16 i32 i8 u8", "ArgMin": "f64 f32 f16 i32 i8 u8",
    "AveragePool": "f32 f16", "Conv": "f32 f16", "ConvTranspose": "f32 f16", "CumSum": _REDUCED, "Einsum": _REDUCED,
    "CumProd": f"{_REDUCED} u64 u32",
    "Gemm": "f64 f32 f16", "GlobalAveragePool": "f32 f16", "GlobalMaxPool": "f32 f16",
    "MatMul": f"{_REDUCED} u64 u32", "MatMulInteger": "i8 u8", "MatMulNBits": "f32",
    "MaxPool": "f64 f32 f16 i8 u8",
    "TopK": f"{_REDUCED} i16 i8 u8",
    # Recurrent layers.
    "GRU": "f32", "LSTM": "f32", "RNN": "f32",
    # Elements moved.
    "Shape": f"{_MOVED} {_F8}",
    **dict.fromkeys(("Concat", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Slice", "Split",
                     "Squeeze", "Unsqueeze"), _MOVED),
    "Identity": f"{_MOVED} {_F8}", "Flatten": _MOVED, "Reshape": f"{_MOVED} {_F8}",
    "Transpose": f"{_MOVED} {_F8} i4 u4",
    "ConstantOfShape": f"f64 f32 f16 {_INTEGERS} bool",
    "Expand": f"{_REALS} bool string", "Tile": f"{_REALS} bool string",
    "Pad": "f64 f32 f16 i64 i32 i8 u64 u32 u8 bool", "OneHot": "f32 i64 string",
    "DepthToSpace": "f64 f32 f16 i8 u8", "SpaceToDepth": "f64 f32 f16 i8 u8", "Trilu": "f64 f32 f16 i64 i32 bool",
    "Range": "f64 f32 i64 i32 i16", "Resize": "f32 f16 i32 i8 u8", "GridSample": "f64 f32 f16",
    # Quantized numbers: the type of the small ones.
    "DequantizeLinear": f"{_F8} i32 i16 i8 i4 u16 u8 u4", "QuantizeLinear": f"{_F8} i16 i8 i4 u16 u8 u4",
    "DynamicQuantizeLinear": "f32",
}  # fmt: skip
KERNELS = {op_type: frozenset(names.split()) for op_type, names in _TYPES.items()}

# Where else to compute: types that hold every value of the first. Results come back by a cast, which for integers
# keeps the low bits, so sums and products wrap as they should.
WIDER: dict[DType, tuple[DType, ...]] = {
    **dict.fromkeys((F16, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0), (F32,)),
    F32: (F64,),
    BOOL: (U8, I32),
    I2: (I8, I32, I64), I4: (I8, I32, I64), I8: (I32, I64), I16: (I32, I64), I32: (I64,),
    U2: (U8, I32, I64), U4: (U8, I32, I64), U8: (I32, I64), U16: (I32, I64), U32: (I64,),
}  # fmt: skip
# Where results depend on the values alone, not on their being rounded to the first type, f64 may stand in too.
COMPARED: dict[DType, tuple[DType, ...]] = {I16: (F64,), I32: (F64,), U16: (F64,), U32: (F64,)}


def runs(op_type: str, dtype: DType) -> bool:
    """Whether ONNX Runtime's CPU provider runs the operator on elements of this type."""
    return dtype.name in KERNELS[op_type]


def carriers(dtype: DType, *, wraps: bool = False, compares: bool = False) -> list[DType]:
    """The types in which to compute on `dtype` exactly: itself, and wider ones.

    With `wraps` u64 may be computed as i64, since only the low bits of sums, products and moved bits count. With
    `compares` integers may be compared as f64.
    """
    candidates = [dtype, *WIDER.get(dtype, ())]
    if wraps and dtype is U64:
        candidates.append(I64)
    if compares:
        candidates += COMPARED.get(dtype, ())
    return candidates


@cache
def newest_opset() -> int:
    """The newest opset that the installed ONNX Runtime runs; that of the newest known where none is installed."""
    try:
        major, minor = map(int, version("onnxruntime").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return OPSETS[0][1]
    return next(opset for least, opset in OPSETS if (major, minor) >= least)
