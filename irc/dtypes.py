"""The element types: every tensor dtype of ONNX under a short name, in one table.

Source: onnx.proto3, TensorProto.DataType (the codes), and the "Float stored in 8 bits", "4 bits" pages of the
ONNX specification. Types narrower than a byte are packed in files and take one byte an element in arrays.
numpy and ml_dtypes are loaded when an array is first requested: printing a graph needs neither.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from irc.diagnostics import fail

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["float", "int", "uint", "bool", "complex", "string", "opaque"]


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. One object each, so identity is equality; the hash is the ONNX code, the same each run."""

    name: str
    onnx: int  # TensorProto.DataType
    bits: int  # of one packed element; 0 where elements have no fixed size (string, opaque)
    kind: Kind
    numpy_name: str

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return self.onnx

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles come back as the one object."""
        return by_name, (self.name,)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of arrays that hold it; strings are Python objects."""
        return _numpy_dtype(self.numpy_name)

    @property
    def itemsize(self) -> int:
        """Bytes of one element in an array: 1 for types narrower than a byte, 0 for strings."""
        return (self.bits + 7) // 8

    @property
    def is_float(self) -> bool:
        """Floating point, of any width."""
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned integer; bool is neither."""
        return self.kind in ("int", "uint")

    @property
    def is_complex(self) -> bool:
        """Complex floating point."""
        return self.kind == "complex"

    @property
    def is_signed(self) -> bool:
        """Whether it holds negative numbers: f8e8m0 is the float that does not."""
        return self.kind in ("int", "float", "complex") and self.name != "f8e8m0"

    @property
    def sub_byte(self) -> bool:
        """Narrower than a byte, hence packed in files."""
        return 0 < self.bits < 8

    def packed_bytes(self, elements: int) -> int:
        """Bytes that so many elements take in a file; the last byte may be part empty."""
        return (elements * self.bits + 7) // 8


class Limits(NamedTuple):
    """The finite range of a dtype, as exact Python numbers."""

    smallest: int | float
    largest: int | float


F64 = DType("f64", 11, 64, "float", "float64")
F32 = DType("f32", 1, 32, "float", "float32")
F16 = DType("f16", 10, 16, "float", "float16")
BF16 = DType("bf16", 16, 16, "float", "bfloat16")
F8E4M3FN = DType("f8e4m3fn", 17, 8, "float", "float8_e4m3fn")
F8E4M3FNUZ = DType("f8e4m3fnuz", 18, 8, "float", "float8_e4m3fnuz")
F8E5M2 = DType("f8e5m2", 19, 8, "float", "float8_e5m2")
F8E5M2FNUZ = DType("f8e5m2fnuz", 20, 8, "float", "float8_e5m2fnuz")
F8E8M0 = DType("f8e8m0", 24, 8, "float", "float8_e8m0fnu")
F6E2M3 = DType("f6e2m3", 27, 6, "float", "float6_e2m3fn")
F6E3M2 = DType("f6e3m2", 28, 6, "float", "float6_e3m2fn")
F4E2M1 = DType("f4e2m1", 23, 4, "float", "float4_e2m1fn")
I64 = DType("i64", 7, 64, "int", "int64")
I32 = DType("i32", 6, 32, "int", "int32")
I16 = DType("i16", 5, 16, "int", "int16")
I8 = DType("i8", 3, 8, "int", "int8")
I4 = DType("i4", 22, 4, "int", "int4")
I2 = DType("i2", 26, 2, "int", "int2")
U64 = DType("u64", 13, 64, "uint", "uint64")
U32 = DType("u32", 12, 32, "uint", "uint32")
U16 = DType("u16", 4, 16, "uint", "uint16")
U8 = DType("u8", 2, 8, "uint", "uint8")
U4 = DType("u4", 21, 4, "uint", "uint4")
U2 = DType("u2", 25, 2, "uint", "uint2")
BOOL = DType("bool", 9, 8, "bool", "bool")
C64 = DType("c64", 14, 64, "complex", "complex64")
C128 = DType("c128", 15, 128, "complex", "complex128")
STRING = DType("string", 8, 0, "string", "object_")

ALL: tuple[DType, ...] = (
    F64, F32, F16, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F6E2M3, F6E3M2, F4E2M1,
    I64, I32, I16, I8, I4, I2, U64, U32, U16, U8, U4, U2, BOOL, C64, C128, STRING,
)
FLOATS8 = frozenset({F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ})  # f16 and bf16 hold each of their numbers
_BY_NAME = {dtype.name: dtype for dtype in ALL}
_BY_ONNX = {dtype.onnx: dtype for dtype in ALL}
_BY_NUMPY_NAME = {dtype.numpy_name: dtype for dtype in ALL}


def by_name(text: str) -> DType:
    """The dtype that text calls `text`."""
    if text in _BY_NAME:
        return _BY_NAME[text]
    if text.endswith(")"):
        return opaque(text)
    close = get_close_matches(text, _BY_NAME, n=3)
    raise fail("type.dtype", f"there is no dtype {text!r}", expected=", ".join(close or _BY_NAME))


DEEPEST = 64  # sequences in sequences


@cache
def opaque(text: str) -> DType:
    """The type of values that are no tensors: `sequence(f32)`, `map(string, f32)`, `optional(sequence(i64))`. Only
    `extern` computes with them. Where arrays are wanted, one of no axes holds such a value as an object."""
    if text.count("(") > DEEPEST:
        raise fail("type.dtype", f"a type nests deeper than {DEEPEST}: {text[:40]}...")
    opaque_parts(text)
    return DType(text, 0, 0, "opaque", "object_")


def opaque_parts(text: str) -> tuple[str, DType | None, DType]:
    """Of the name of an opaque type the word, the type of keys (of a map), and that of elements."""
    match = re.fullmatch(r"(sequence|optional|map)\((?:(\w+), )?(.+)\)", text)
    if match is None or (match[1] == "map") != (match[2] is not None):
        raise fail("type.dtype", f"there is no type {text!r}", expected="sequence(T), optional(T) or map(KEY, T)")
    return match[1], by_name(match[2]) if match[2] else None, by_name(match[3])


def from_onnx(code: int) -> DType:
    """The dtype of a TensorProto.DataType code."""
    if code in _BY_ONNX:
        return _BY_ONNX[code]
    raise fail("type.dtype", f"there is no ONNX element type with code {code}")


def from_numpy(dtype: np.dtype[Any]) -> DType:
    """The dtype of an array, whatever its byte order; objects and numpy's own texts count as strings."""
    if dtype.kind in "OSU":
        return STRING
    if dtype.name in _BY_NUMPY_NAME:
        return _BY_NUMPY_NAME[dtype.name]
    raise fail("type.dtype", f"arrays of {dtype.name} have no counterpart among the element types")


def accumulator_of(dtype: DType) -> DType:
    """The dtype in which sums of `dtype` are kept: f32 for narrower floats, `dtype` itself otherwise."""
    return F32 if dtype.is_float and dtype.bits < 32 else dtype


@cache
def limits(dtype: DType) -> Limits:
    """The smallest and the largest finite number that `dtype` holds."""
    if dtype is BOOL:
        return Limits(0, 1)
    if dtype.is_integer:
        signed = dtype.kind == "int"
        span = 1 << (dtype.bits - signed)
        return Limits(-span if signed else 0, span - 1)
    if dtype.is_float:
        import ml_dtypes

        info: np.finfo[Any] = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
        return Limits(float(info.min), float(info.max))
    raise fail("type.dtype", f"{dtype} has no order, hence no smallest and largest number")


def part_of(dtype: DType) -> DType:
    """The element type of the real and the imaginary part of a complex one."""
    return {C64: F32, C128: F64}[dtype]


def single(value: float) -> float:
    """The f32 that is nearest to a number; infinite beyond the largest."""
    return ctypes.c_float(value).value


def holds(wide: DType, narrow: DType) -> bool:
    """Whether `wide` has every number of `narrow`, -0, inf and NaN included, so that a cast there loses nothing."""
    precision = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
    exponent = {"f64": 11, "f32": 8, "f16": 5, "bf16": 8}
    if wide.is_float and narrow.is_float:
        known = wide.name in precision and narrow.name in precision
        return known and precision[wide.name] >= precision[narrow.name] and exponent[wide.name] >= exponent[narrow.name]
    if wide.is_integer and narrow.is_integer:
        outer, inner = limits(wide), limits(narrow)
        return outer.smallest <= inner.smallest and inner.largest <= outer.largest
    return False


@cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    import numpy

    if hasattr(numpy, name):
        return numpy.dtype(name)
    import ml_dtypes

    scalar: type[Any] = getattr(ml_dtypes, name)
    return numpy.dtype(scalar)
