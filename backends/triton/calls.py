"""What the templates of an artefact compute: element types that PyTorch has, and operations with a function there."""

from __future__ import annotations

from irc.dtypes import DType
from irc.ir import Operation

TORCH_TYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "bool": "bool",
    "c64": "complex64", "c128": "complex128", "i4": "int8", "i2": "int8", "u4": "uint8", "u2": "uint8",
    "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2", "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2fnuz": "float8_e5m2fnuz",
}  # fmt: skip
# What templates/host.py has a function for. A named operation that it has not is expanded into its body.
HOST = frozenset(
    """add sub mul neg sign floor ceil trunc round sqrt exp log sin cos tan asin acos atan sinh cosh tanh asinh acosh
    atanh erf equal not_equal less less_equal greater greater_equal is_nan minimum maximum select bitwise_and bitwise_or
    bitwise_xor bitwise_not abs div mod pow shift_left shift_right is_inf cast bitcast reduce_sum reduce_prod reduce_max
    reduce_min argmax argmin reshape transpose expand slice pad concat split reverse iota dim gather gather_elements
    scatter scatter_elements matmul linear gemm dot attention conv conv_transpose window_reduce scan sort
    extern""".split()
)
# Of these the ones that compute numbers of their own, which may leave the range of integers narrower than a byte.
WRAPPING = frozenset(
    """add sub mul neg abs div mod pow shift_left bitwise_not bitcast reduce_sum reduce_prod reduce_max reduce_min iota
    matmul gemm dot conv conv_transpose window_reduce scan scatter scatter_elements""".split()
)
# What templates/strings.py has a function for.
STRINGS = frozenset(
    """reshape transpose expand slice pad concat split reverse gather gather_elements scatter scatter_elements equal
    not_equal select""".split()
)
UNTYPED = frozenset({"opaque", "string"})  # kinds of values that are no tensors of PyTorch


def torch_type(dtype: DType) -> str:
    return TORCH_TYPES[dtype.name]


def is_narrow(dtype: DType) -> bool:
    """Whether PyTorch holds elements in more bits than they have."""
    return dtype.sub_byte and dtype.is_integer


def in_range(operation: Operation, call: str) -> str:
    """The text of a host call whose integers have the bits that they should have."""
    if operation.name not in WRAPPING or not is_narrow(operation.result.dtype):
        return call
    by_order = operation.name in ("reduce_max", "reduce_min") or operation.attributes.get("kind") in ("max", "min")
    return f"host.narrowed({call}, {operation.result.dtype.bits}{', ends=True' if by_order else ''})"
