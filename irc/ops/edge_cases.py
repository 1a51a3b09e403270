"""Edge cases: the results of operations for NaN, infinities, empty tensors, overflow and the like, as a table.

Tests compare the table with the NumPy references, the backends, eager PyTorch and ONNX Runtime. Every primitive has a
row. A named operation has one where the kernel of a runtime gives another result.

A row has an example with its exact result, or with the code of the error. `agrees` lists the oracles that give this
result: "torch" (eager PyTorch on the CPU) and "onnx" (ONNX Runtime on the CPU). `differs` describes the result of an
oracle that gives another one. An oracle that neither names has no such operation, or does not define the case. Zeros
are compared with their sign, and NaN equals NaN. The example of a structural operation (control flow, `dim`, `bind`,
`extern`) needs more than arrays: `tested_by` names the test that contains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from irc.dtypes import BF16, BOOL, F8E4M3FN, F8E5M2, F8E8M0, F16, F32, F64, I4, I8, I16, I32, I64, U4, U8, U32, DType
from irc.ops.numerics import Array

INF, NAN = float("inf"), float("nan")
Topic = Literal[
    "NaN", "infinity", "empty", "overflow", "division by zero", "rounding", "out-of-range cast", "negative zero",
    "zero", "out of range", "order", "narrow floats", "structure",
]  # fmt: skip


class Sample(NamedTuple):
    """An array as data: its element type, its values, and its shape where the values do not determine it."""

    dtype: DType
    values: Any
    shape: tuple[int, ...] | None = None

    def array(self) -> Array:
        """The array; every value must be exact in the element type."""
        wide = np.float64 if self.dtype.is_float else np.uint64 if self.dtype.kind == "uint" else np.int64
        array = np.asarray(np.array(self.values, bool if self.dtype is BOOL else wide), self.dtype.numpy)
        return array if self.shape is None else array.reshape(self.shape)


@dataclass(frozen=True)
class EdgeCase:
    """A row of the table."""

    op: str
    topic: Topic
    says: str
    operands: Sequence[Sample | None] = ()
    expected: Sequence[Sample] | str = ()  # results, or the code of the error
    attributes: Mapping[str, Any] = field(default_factory=dict)
    agrees: frozenset[str] = frozenset()
    differs: str = ""
    tested_by: str = ""


def _row(
    op: str,
    topic: Topic,
    says: str,
    operands: Sequence[Sample | None],
    expected: Sample | Sequence[Sample] | str,
    agrees: str = "",
    differs: str = "",
    **attributes: Any,
) -> EdgeCase:
    results = (expected,) if isinstance(expected, Sample) else expected
    return EdgeCase(op, topic, says, operands, results, attributes, frozenset(agrees.split()), differs)


def _structural(op: str, says: str, test: str) -> EdgeCase:
    return EdgeCase(op, "structure", says, tested_by=test)


def _unary(
    op: str,
    topic: Topic,
    says: str,
    given: list[float],
    result: list[float],
    agrees: str = "torch onnx",
    differs: str = "",
) -> EdgeCase:
    return _row(op, topic, says, [Sample(F32, given)], Sample(F32, result), agrees, differs)


def _bools(*values: bool) -> Sample:
    return Sample(BOOL, list(values))


def _f32(*values: float) -> Sample:
    return Sample(F32, list(values))


def _i32(*values: int) -> Sample:
    return Sample(I32, list(values))


def _i64(*values: int) -> Sample:
    return Sample(I64, list(values))


_BOTH = "torch onnx"
_LEAST = -(2**31)
_LEAST_F32 = float(np.finfo(np.float32).min)
_EMPTY = Sample(F32, [], (0, 2))

ARITHMETIC = [
    _row("add", "overflow", "integers wrap around", [Sample(I8, [127, -128]), Sample(I8, [1, -1])],
         Sample(I8, [-128, 127]), _BOTH),
    _row("add", "infinity", "inf - inf is NaN", [_f32(INF, INF), _f32(-INF, INF)], _f32(NAN, INF), _BOTH),
    _row("add", "negative zero", "-0 + -0 is -0, -0 + 0 is 0", [_f32(-0.0, -0.0), _f32(-0.0, 0.0)], _f32(-0.0, 0.0),
         _BOTH),
    _row("add", "narrow floats", "bf16 is added in f32 and rounded once, to nearest even",
         [Sample(BF16, [256.0, 258.0]), Sample(BF16, [1.0, 1.0])], Sample(BF16, [256.0, 260.0]), "torch"),
    _row("add", "overflow", "f16 overflows to inf", [Sample(F16, [65504.0]), Sample(F16, [32.0])], Sample(F16, [INF]),
         "torch"),
    _row("add", "overflow", "i4 wraps around in 4 bits", [Sample(I4, [7, -8]), Sample(I4, [1, -1])],
         Sample(I4, [-8, 7])),
    _row("add", "empty", "an extent of 0 broadcasts with 1", [_EMPTY, Sample(F32, [[1.0, 2.0]])], _EMPTY, _BOTH),
    _row("sub", "overflow", "unsigned integers wrap around below 0", [Sample(U8, [0]), Sample(U8, [1])],
         Sample(U8, [255]), _BOTH),
    _row("mul", "overflow", "integers wrap around", [_i32(2**30), _i32(4)], _i32(0), _BOTH),
    _row("mul", "infinity", "0 * inf is NaN", [_f32(0.0, -0.0), _f32(INF, 3.0)], _f32(NAN, -0.0), _BOTH),
    _row("div", "division by zero", "floats: x/0 is an infinity with the product of the signs; 0/0 is NaN",
         [_f32(1, -1, 1, 0), _f32(0.0, 0.0, -0.0, 0)], _f32(INF, -INF, -INF, NAN), _BOTH, rounding="trunc"),
    _row("div", "division by zero", "an integer divided by 0 is 0", [_i32(7, -7, 0), _i32(0, 0, 0)], _i32(0, 0, 0),
         differs="torch raises; ONNX leaves it undefined", rounding="trunc"),
    _row("div", "division by zero", "an integer divided by 0 is an error if by_zero is \"error\"",
         [_i32(7, -7), _i32(2, 0)], "run.zero_division", "torch", rounding="trunc", by_zero="error"),
    _row("div", "overflow", "the least integer divided by -1 is itself", [_i32(_LEAST), _i32(-1)], _i32(_LEAST),
         differs="torch and ONNX leave it undefined: the processor may trap", rounding="trunc"),
    _row("div", "rounding", "integers: towards zero", [_i32(7, -7, 7, -7), _i32(2, 2, -2, -2)], _i32(3, -3, -3, 3),
         _BOTH, rounding="trunc"),
    _row("div", "rounding", "integers: towards minus infinity", [_i32(7, -7, 7, -7), _i32(2, 2, -2, -2)],
         _i32(3, -4, -4, 3), "torch", rounding="floor"),
    _row("mod", "rounding", "floor: the sign of the divisor", [_i32(7, -7, 7, -7), _i32(3, 3, -3, -3)],
         _i32(1, 2, -2, -1), _BOTH, rounding="floor"),
    _row("mod", "rounding", "trunc: the sign of the dividend", [_i32(7, -7, 7, -7), _i32(3, 3, -3, -3)],
         _i32(1, -1, 1, -1), _BOTH, rounding="trunc"),
    _row("mod", "division by zero", "an integer mod 0 is 0; the least mod -1 is 0", [_i32(7, _LEAST), _i32(0, -1)],
         _i32(0, 0), differs="torch raises; ONNX leaves it undefined", rounding="floor"),
    _row("mod", "division by zero", "an integer mod 0 is an error if by_zero is \"error\"",
         [_i32(7, -7), _i32(2, 0)], "run.zero_division", "torch", rounding="floor", by_zero="error"),
    _row("mod", "division by zero", "a float mod 0 is NaN; x mod inf is x, or inf if the signs differ",
         [_f32(1.0, 1.0, -1.0, INF), _f32(0.0, INF, INF, 2.0)], _f32(NAN, 1.0, INF, NAN), "torch", rounding="floor"),
    _row("mod", "infinity", "trunc: x mod inf is x", [_f32(1.5, -1.5, -0.0), _f32(INF, INF, 2.0)],
         _f32(1.5, -1.5, -0.0), _BOTH, rounding="trunc"),
    _row("pow", "NaN", "x ** 0 and 1 ** y are 1, for NaN too",
         [_f32(NAN, 1.0, 0.0, NAN), _f32(0.0, NAN, 0.0, 1.0)], _f32(1.0, 1.0, 1.0, NAN), _BOTH),
    _row("pow", "division by zero",
         "0 to a negative power is an infinity; a negative base to a fractional power is NaN",
         [_f32(0.0, -0.0, -0.0, -8.0), _f32(-1.0, -1.0, -2.0, 0.5)], _f32(INF, -INF, INF, NAN), _BOTH),
    _row("pow", "infinity", "x ** 0.5 differs from sqrt: inf for -inf, 0 for -0",
         [_f32(-INF, -0.0, 4.0), Sample(F32, 0.5)], _f32(INF, 0.0, 2.0), "onnx"),
    _row("pow", "overflow", "integers wrap around", [_i32(3, 2), _i32(21, 31)], _i32(1870418611, _LEAST), "torch"),
    _row("pow", "rounding", "an integer to a negative power is the exact value truncated towards zero; base 0 gives 0",
         [_i32(1, -1, -1, 2), _i32(-5, -5, -4, -1)], _i32(1, -1, 1, 0), "torch"),
    _row("minimum", "order", "64-bit integers are compared exactly", [Sample(I64, [2**31, -1, 7, 2**31]),
         _i64(0, -(2**31) - 1, 2**40, 1)], _i64(0, -(2**31) - 1, 7, 1), "torch"),
    _row("maximum", "order", "64-bit integers are compared exactly", [Sample(I64, [2**31, -1, 7, 2**31]),
         _i64(0, -(2**31) - 1, 2**40, 1)], _i64(2**31, -1, 2**40, 2**31), "torch"),
    _row("minimum", "NaN", "NaN if either operand is NaN", [_f32(NAN, 1.0, -INF), _f32(1.0, NAN, NAN)],
         _f32(NAN, NAN, NAN), _BOTH),
    _row("maximum", "NaN", "NaN if either operand is NaN", [_f32(NAN, 1.0, INF), _f32(1.0, NAN, NAN)],
         _f32(NAN, NAN, NAN), _BOTH),
    _unary("neg", "negative zero", "0 becomes -0", [0.0, -0.0, INF], [-0.0, 0.0, -INF]),
    _row("neg", "overflow", "the least integer gives itself", [_i32(_LEAST)], _i32(_LEAST), _BOTH),
    _unary("abs", "negative zero", "-0 becomes 0", [-0.0, -INF, NAN], [0.0, INF, NAN]),
    _row("abs", "overflow", "the least integer gives itself", [_i32(_LEAST)], _i32(_LEAST), _BOTH),
    _row("sign", "out of range", "64-bit integers are compared exactly", [_i64(2**31, -(2**32), 2**63 - 1, 0)],
         _i64(1, -1, 1, 0), "torch"),
    _unary("sign", "NaN", "NaN gives NaN", [NAN, -INF, INF, 0.0], [NAN, -1.0, 1.0, 0.0], "onnx",
         "torch gives 0"),
]  # fmt: skip

FUNCTIONS = [
    _unary("floor", "negative zero", "infinities, NaN and -0 are unchanged", [-0.0, -0.5, INF, NAN],
           [-0.0, -1.0, INF, NAN]),
    _unary("ceil", "negative zero", "-0.5 gives -0", [-0.0, -0.5, -INF, NAN], [-0.0, -0.0, -INF, NAN]),
    _unary("round", "rounding", "halves go to the even number", [0.5, 1.5, 2.5, -0.5, -2.5],
         [0.0, 2.0, 2.0, -0.0, -2.0]),
    _unary("trunc", "negative zero", "-0.5 gives -0", [-0.0, -0.5, 1.9, INF], [-0.0, -0.0, 1.0, INF], "torch"),
    _unary("sqrt", "out of range", "NaN below 0; -0 gives -0", [-1.0, -0.0, INF], [NAN, -0.0, INF]),
    _unary("exp", "overflow", "overflow gives inf", [1000.0, -INF, INF, NAN], [INF, 0.0, INF, NAN]),
    _unary("log", "out of range", "-inf at 0, NaN below", [0.0, -0.0, -1.0, INF], [-INF, -INF, NAN, INF]),
    _unary("sin", "infinity", "NaN for an infinity; -0 gives -0", [INF, -INF, -0.0], [NAN, NAN, -0.0]),
    _unary("cos", "infinity", "NaN for an infinity", [INF, -INF, -0.0], [NAN, NAN, 1.0]),
    _unary("tan", "infinity", "NaN for an infinity; -0 gives -0", [INF, -INF, -0.0], [NAN, NAN, -0.0]),
    _unary("asin", "out of range", "NaN outside [-1, 1]; -0 gives -0", [1.5, -1.5, -0.0], [NAN, NAN, -0.0]),
    _unary("acos", "out of range", "NaN outside [-1, 1]; 0 at 1", [1.5, -1.5, 1.0], [NAN, NAN, 0.0]),
    _unary("atan", "negative zero", "-0 gives -0", [-0.0, NAN], [-0.0, NAN]),
    _unary("sinh", "overflow", "overflow gives an infinity", [1000.0, -1000.0, -0.0], [INF, -INF, -0.0]),
    _unary("cosh", "overflow", "overflow gives inf", [1000.0, -1000.0, 0.0], [INF, INF, 1.0]),
    _unary("tanh", "infinity", "1 with the sign of the infinity", [INF, -INF, -0.0, NAN], [1.0, -1.0, -0.0, NAN]),
    _unary("asinh", "infinity", "infinities are unchanged", [INF, -INF, 0.0, NAN], [INF, -INF, 0.0, NAN]),
    _unary("acosh", "out of range", "NaN below 1", [1.0, 0.5, INF], [0.0, NAN, INF]),
    _unary("atanh", "out of range", "an infinity at 1 and -1, NaN outside [-1, 1]", [1.0, -1.0, 2.0], [INF, -INF, NAN]),
    _unary("erf", "infinity", "1 with the sign of the infinity", [INF, -INF, 0.0, NAN], [1.0, -1.0, 0.0, NAN]),
    _row("erf", "empty", "an empty result", [_EMPTY], _EMPTY, _BOTH),
]  # fmt: skip

BITS = [
    _row("bitwise_and", "out of range", "negative integers are in two's complement", [_i32(-1, -2), _i32(5, 3)],
         _i32(5, 2), _BOTH),
    _row("bitwise_or", "out of range", "negative integers are in two's complement", [_i32(-2, 4), _i32(1, 3)],
         _i32(-1, 7), _BOTH),
    _row("bitwise_xor", "out of range", "negative integers are in two's complement", [_i32(-1, 6), _i32(1, 3)],
         _i32(-2, 5), _BOTH),
    _row("bitwise_not", "out of range", "-x - 1 for integers; logical not for bool", [_bools(True, False)],
         _bools(False, True), _BOTH),
    _row("shift_left", "out of range",
         "0 if the amount is negative or at least the width; bits shifted out are dropped",
         [_i32(1, 1, 1, 3), _i32(31, 32, -1, 31)], _i32(_LEAST, 0, 0, _LEAST), "torch"),
    _row("shift_right", "out of range", "0 or -1, by the sign of x, if the amount is negative or at least the width",
         [_i32(-8, -8, 8, -8), _i32(1, 40, 40, -1)], _i32(-4, -1, 0, -1), "torch"),
    _row("shift_left", "out of range", "4-bit integers are shifted in 4 bits", [Sample(U4, [9, 9]), Sample(U4, [1, 4])],
         Sample(U4, [2, 0])),
]  # fmt: skip

_LEFT, _RIGHT = _f32(NAN, NAN, 0.0, -INF), _f32(NAN, 1.0, -0.0, INF)
COMPARISONS = [
    _row("equal", "NaN", "NaN equals nothing, itself included; 0 equals -0", [_LEFT, _RIGHT],
         _bools(False, False, True, False), _BOTH),
    _row("not_equal", "NaN", "true for NaN, itself included; 0 equals -0", [_LEFT, _RIGHT],
         _bools(True, True, False, True), "torch"),
    _row("less", "NaN", "false for NaN", [_LEFT, _RIGHT], _bools(False, False, False, True), _BOTH),
    _row("less_equal", "NaN", "false for NaN", [_LEFT, _RIGHT], _bools(False, False, True, True), _BOTH),
    _row("greater", "NaN", "false for NaN", [_LEFT, _RIGHT], _bools(False, False, False, False), _BOTH),
    _row("greater_equal", "NaN", "false for NaN", [_LEFT, _RIGHT], _bools(False, False, True, False), _BOTH),
    _row("is_nan", "NaN", "true for NaN only", [_LEFT], _bools(True, True, False, False), _BOTH),
    _row("is_inf", "infinity", "true for the infinities that the attributes select", [_f32(INF, -INF, NAN)],
         _bools(False, True, False), _BOTH, detect_positive=False, detect_negative=True),
    _row("select", "NaN", "the operand that is not selected has no effect; -0 is kept",
         [_bools(True, False, True), _f32(1.0, NAN, -0.0), _f32(NAN, 2.0, NAN)], _f32(1.0, 2.0, -0.0), "torch",
         "ONNX Runtime drops the sign of zero"),
]  # fmt: skip

CASTS = [
    _row("cast", "out-of-range cast",
         "float to integer, saturating: truncated; the nearest limit if out of range; 0 for NaN",
         [_f32(3e9, -3e9, NAN, -1.9, INF)], _i32(2**31 - 1, _LEAST, 0, -1, 2**31 - 1),
         differs="torch and ONNX Runtime give the least integer on x86", to=I32, saturate=True),
    _row("cast", "out-of-range cast", "float to integer, not saturating: the low bits of the value as i32",
         [_f32(300.0, -1.9, 65543.0, 3e9)], Sample(U8, [44, 255, 7, 0]), "torch", to=U8, saturate=False),
    _row("cast", "out-of-range cast", "to i32, not saturating: out of range and NaN give the least i32",
         [_f32(3e9, NAN, -INF, 7.68e14)], _i32(*[_LEAST] * 4), "torch", "processors other than x86 saturate", to=I32,
         saturate=False),
    _row("cast", "out-of-range cast", "to i16, not saturating: via i32", [_f32(3e9, -3e9, 70000.0)],
         Sample(I16, [0, 0, 4464]), "torch", to=I16, saturate=False),
    _row("cast", "out-of-range cast", "to i64, not saturating: out of range and NaN give the least i64",
         [_f32(1e30, NAN, -1e30)], _i64(-(2**63), -(2**63), -(2**63)), "torch", "processors other than x86 saturate",
         to=I64, saturate=False),
    _row("cast", "out-of-range cast", "to u32, not saturating: via i64", [_f32(3e9, 2.0**32 + 512, -1.0)],
         Sample(U32, [3000000000, 512, 2**32 - 1]), "", to=U32, saturate=False),
    _row("cast", "out-of-range cast", "saturating gives the greatest integer, which f32 does not represent exactly",
         [_f32(2.0**63, 2.0**64)], _i64(2**63 - 1, 2**63 - 1), to=I64, saturate=True),
    _row("cast", "out-of-range cast", "integer to integer keeps the low bits", [_i32(200, -1, 256)],
         Sample(I8, [-56, -1, 0]), _BOTH, to=I8, saturate=True),
    _row("cast", "out-of-range cast", "integer to i4 keeps the low 4 bits", [_i32(8, 17, -9)], Sample(I4, [-8, 1, 7]),
         to=I4, saturate=True),
    _row("cast", "overflow", "to f16: an infinity if out of range; 65519 rounds down into the range",
         [_f32(1e6, 65519.0, -1e6)], Sample(F16, [INF, 65504.0, -INF]), _BOTH, to=F16, saturate=True),
    _row("cast", "overflow", "to fp8, saturating: the greatest finite number with the sign, for infinities too",
         [_f32(1000.0, -INF, 448.0, 464.0, NAN)], Sample(F8E4M3FN, [448.0, -448.0, 448.0, 448.0, NAN]), _BOTH,
         to=F8E4M3FN, saturate=True),
    _row("cast", "overflow", "to fp8 without infinities, not saturating: NaN", [_f32(1000.0, -INF, 448.0)],
         Sample(F8E4M3FN, [NAN, NAN, 448.0]), "onnx", to=F8E4M3FN, saturate=False),
    _row("cast", "overflow", "to fp8 with infinities, not saturating: an infinity", [_f32(1e6, -INF, 57344.0)],
         Sample(F8E5M2, [INF, -INF, 57344.0]), _BOTH, to=F8E5M2, saturate=False),
    _row("cast", "overflow", "to fp8 with infinities, not saturating: an infinity if rounding leaves the range",
         [_f32(61440.0, -65535.0, 61439.0)], Sample(F8E5M2, [INF, -INF, 57344.0]), "torch", to=F8E5M2, saturate=False),
    _row("cast", "rounding", "to f8e8m0: the nearer power of two", [_f32(1e4, 3.0, 2.9)],
         Sample(F8E8M0, [8192.0, 4.0, 2.0]), "", to=F8E8M0, saturate=False),
    _row("cast", "rounding", "f64 is rounded once, to nearest even, and not via f32",
         [Sample(F64, [1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-40, 1 + 3 * 2.0**-8])],
         Sample(BF16, [1.0, 1 + 2.0**-7, 1 + 2.0**-6]), "", "torch and ONNX Runtime round twice, via f32",
         to=BF16, saturate=True),
    _row("cast", "rounding", "an integer is rounded once", [_i64(2**40 + 2**32 + 1)],
         Sample(BF16, [2.0**40 + 2.0**33]), to=BF16, saturate=True),
    _row("cast", "NaN", "to bool: NaN is true, -0 false", [_f32(NAN, -0.0, 0.25)], _bools(True, False, True), _BOTH,
         to=BOOL, saturate=True),
    _row("cast", "negative zero", "float to float keeps -0", [_f32(-0.0)], Sample(F16, [-0.0]), _BOTH, to=F16,
         saturate=True),
    _row("bitcast", "negative zero", "the bits are kept", [_f32(-0.0, 1.0)], _i32(_LEAST, 0x3F800000), "torch", to=I32),
    _row("bitcast", "narrow floats", "4-bit elements become 4-bit elements", [Sample(U4, [15, 8, 1])],
         Sample(I4, [-1, -8, 1]), to=I4),
]  # fmt: skip

_NAN_ROW = Sample(F32, [[1.0, NAN, 3.0], [2.0, 5.0, 5.0]])
_TIES = Sample(F32, [[3.0, 1.0, 3.0, 1.0]])
_ALL_OF_ROW: dict[str, Any] = {"axes": (1,), "keep_dims": False}
_ALL_OF_COLUMN: dict[str, Any] = {"axes": (0,), "keep_dims": False}
REDUCTIONS = [
    _row("reduce_sum", "empty", "0 for an empty tensor", [_EMPTY], _f32(0.0, 0.0), _BOTH, **_ALL_OF_COLUMN),
    _row("reduce_sum", "negative zero", "the sum of negative zeros is 0", [Sample(F32, [[-0.0, -0.0]])], _f32(0.0),
         "torch", **_ALL_OF_ROW),
    _row("reduce_sum", "negative zero", "the sum of one negative zero is 0", [Sample(F32, [[-0.0], [-1.0]])],
         _f32(0.0, -1.0), "torch", **_ALL_OF_ROW),
    _row("reduce_sum", "overflow", "integers wrap around in their element type", [Sample(I32, [[2**31 - 1, 1]])],
         _i32(_LEAST), "torch", "ONNX Runtime saturates i32", **_ALL_OF_ROW),
    _row("reduce_sum", "overflow", "64-bit integers are summed exactly and wrap around",
         [Sample(I64, [[2**53 + 1, 2**62], [2**63 - 1, 2]])], _i64(2**53 + 1 + 2**62, -(2**63) + 1), "torch",
         **_ALL_OF_ROW),
    _row("reduce_prod", "overflow", "64-bit integers are multiplied exactly and wrap around",
         [Sample(I64, [[3**20, 3**19], [2**40, 2**30]])], _i64(3**39, 0), "torch", **_ALL_OF_ROW),
    _row("reduce_sum", "narrow floats", "f16 is summed in f32 and rounded once: in f16, 2048 + 1 is 2048",
         [Sample(F16, [[2048.0, 1.0, 1.0, 1.0, 1.0]])], Sample(F16, [2052.0]), "torch", **_ALL_OF_ROW),
    _row("reduce_sum", "zero", "over no axes: x itself", [_TIES], _TIES, _BOTH, axes=(), keep_dims=False),
    _row("reduce_prod", "empty", "1 for an empty tensor", [_EMPTY], _f32(1.0, 1.0), _BOTH, **_ALL_OF_COLUMN),
    _row("reduce_max", "empty", "-inf for an empty tensor", [_EMPTY], _f32(-INF, -INF), "onnx", "torch raises",
         **_ALL_OF_COLUMN),
    _row("reduce_max", "empty", "the least integer if empty", [Sample(I32, [], (0, 1))], _i32(_LEAST), "onnx",
         "torch raises", **_ALL_OF_COLUMN),
    _row("reduce_max", "NaN", "NaN if any element is NaN", [_NAN_ROW], _f32(NAN, 5.0), "torch", **_ALL_OF_ROW),
    _row("reduce_min", "empty", "inf for an empty tensor", [_EMPTY], _f32(INF, INF), "onnx", "torch raises",
         **_ALL_OF_COLUMN),
    _row("reduce_min", "NaN", "NaN if any element is NaN", [_NAN_ROW], _f32(NAN, 2.0), "torch", **_ALL_OF_ROW),
    _row("argmax", "NaN", "NaN counts as the greatest; the first of equal elements", [_NAN_ROW], _i64(1, 1), "torch",
         axis=1, keep_dims=False, select_last=False),
    _row("argmax", "order", "the last of equal elements with `select_last`", [_TIES], _i64(2), "onnx", axis=1,
         keep_dims=False, select_last=True),
    _row("argmax", "empty", "an empty axis has no index", [_EMPTY], "run.shape", axis=0, keep_dims=False,
         select_last=False),
    _row("argmin", "NaN", "NaN counts as the least", [_NAN_ROW], _i64(1, 0), "torch", axis=1, keep_dims=False,
         select_last=False),
    _row("argmin", "order", "the first of equal elements", [_TIES], _i64(1), _BOTH, axis=1, keep_dims=False,
         select_last=False),
]  # fmt: skip

_PAIR = _f32(1.0, 2.0)
VIEWS = [
    _row("reshape", "empty", "an empty array has any shape with a 0", [_EMPTY], Sample(F32, [], (3, 0)), _BOTH,
         shape=(3, 0)),
    _row("reshape", "out of range", "element counts must agree", [_PAIR], "run.shape", shape=(3,)),
    _row("transpose", "zero", "a scalar has the empty permutation", [Sample(F32, 2.0)], Sample(F32, 2.0), "torch",
         permutation=()),
    _row("expand", "empty", "an extent of 1 may become 0", [_f32(1.0)], Sample(F32, [], (0,)), "torch", shape=(0,)),
    _row("expand", "out of range", "only extents of 1 are repeated", [_PAIR], "run.shape", shape=(4,)),
    _row("slice", "empty", "start may equal stop", [_PAIR], Sample(F32, [], (0,)), _BOTH, starts=(2,), stops=(2,),
         steps=(1,)),
    _row("slice", "out of range", "starts and stops are not clamped", [_PAIR], "run.index", "",
         "ONNX, NumPy and torch clamp", starts=(0,), stops=(3,), steps=(1,)),
    _row("pad", "zero", "the fill is 0 where no value is given", [_PAIR], _f32(0.0, 1.0, 2.0), _BOTH, low=(1,),
         high=(0,), mode="constant"),
    _row("pad", "out of range", "a reflection must be shorter than the axis", [_PAIR], "run.shape", "",
         "NumPy reflects repeatedly", low=(2,), high=(0,), mode="reflect"),
    _row("pad", "out of range", "wrapping repeats as often as needed", [_PAIR], _f32(2.0, 1.0, 2.0, 1.0, 2.0), "",
         low=(3,), high=(0,), mode="wrap"),
    _row("pad", "empty", "an empty axis has no edge", [Sample(F32, [], (0,))], "run.shape", low=(1,), high=(0,),
         mode="edge"),
    _row("concat", "empty", "an empty operand adds no elements", [_EMPTY, Sample(F32, [[1.0, 2.0]])],
         Sample(F32, [[1.0, 2.0]]), _BOTH, axis=0),
    _row("concat", "out of range", "other extents must agree", [_EMPTY, Sample(F32, [[1.0]])], "run.shape", axis=0),
    _row("split", "empty", "a piece may be empty", [_PAIR], [_PAIR, Sample(F32, [], (0,))], _BOTH, axis=0,
         sizes=(2, 0)),
    _row("split", "out of range", "sizes must sum to the extent", [_PAIR], "run.shape", axis=0, sizes=(2, 1)),
    _row("reverse", "empty", "an empty result", [_EMPTY], _EMPTY, "torch", axes=(0,)),
    _row("iota", "overflow", "integers wrap around", [], Sample(I4, [0, 1, 2, 3, 4, 5, 6, 7, -8, -7]), shape=(10,),
         axis=0, dtype=I4),
    _row("iota", "empty", "an empty result", [], Sample(I64, [], (0,)), shape=(0,), axis=0, dtype=I64),
]  # fmt: skip

_TABLE3 = _f32(1.0, 2.0, 3.0)
INDEXING = [
    _row("gather", "out of range", "negative indices count from the end", [_TABLE3, _i64(-1, 0)], _f32(3.0, 1.0),
         "onnx", axis=0),
    _row("gather", "out of range", "an index beyond the axis is an error", [_TABLE3, _i64(3)], "run.index",
         axis=0),
    _row("gather", "out of range", "a negative index is an error if bounds is \"positive\"", [_TABLE3, _i64(0, -1)],
         "run.index", "torch", axis=0, bounds="positive"),
    _row("gather", "out of range", "an empty axis has no element", [_EMPTY, _i64(0)], "run.index", axis=0),
    _row("gather", "out of range", "an index in range is valid if bounds is \"promised\"", [_TABLE3, _i64(2)],
         _f32(3.0), _BOTH, axis=0, bounds="promised"),
    _row("gather", "empty", "no indices, no elements", [_TABLE3, Sample(I64, [], (0,))], Sample(F32, [], (0,)), _BOTH,
         axis=0),
    _row("gather_elements", "out of range", "negative indices count from the end", [_TABLE3, _i64(-1, 0)],
         _f32(3.0, 1.0), "onnx", axis=0),
    _row("gather_elements", "out of range", "an index beyond the axis is an error", [_TABLE3, _i64(-4)], "run.index",
         axis=0),
    _row("gather_elements", "out of range", "a negative index is an error if bounds is \"positive\"",
         [_TABLE3, _i64(-1, 0)], "run.index", "torch", axis=0, bounds="positive"),
    _row("gather_nd", "out of range", "each index must be in range of its axis",
         [Sample(F32, [[1.0, 2.0], [3.0, 4.0]]), Sample(I64, [[0, 2]])], "run.index", batch_dims=0),
    _row("scatter", "order", "of several updates of an element the last is stored",
         [_TABLE3, Sample(I64, [[1], [1]]), _f32(8.0, 9.0)], _f32(1.0, 9.0, 3.0), "onnx", reduction="none"),
    _row("scatter", "order", "with a reduction all updates of an element are combined",
         [_TABLE3, Sample(I64, [[1], [-2]]), _f32(8.0, 9.0)], _f32(1.0, 19.0, 3.0), "onnx", reduction="add"),
    _row("scatter", "out of range", "an index beyond the axis is an error", [_TABLE3, Sample(I64, [[3]]), _f32(8.0)],
         "run.index", reduction="none"),
    _row("scatter_elements", "order", "with a reduction all updates of an element are combined",
         [_TABLE3, _i64(1, 1), _f32(8.0, 9.0)], _f32(1.0, 144.0, 3.0), _BOTH, axis=0, reduction="mul"),
    _row("scatter_elements", "NaN", "max with NaN is NaN", [_TABLE3, _i64(1), _f32(NAN)], _f32(1.0, NAN, 3.0), "torch",
         axis=0, reduction="max"),
    _row("scatter_elements", "out of range", "a negative index is an error if bounds is \"positive\"",
         [_TABLE3, _i64(-1), _f32(8.0)], "run.index", "torch", axis=0, reduction="none", bounds="positive"),
    _row("scatter_elements", "out of range", "an index beyond the axis is an error", [_TABLE3, _i64(5), _f32(8.0)],
         "run.index", axis=0, reduction="none"),
]  # fmt: skip

_CONTRACT: dict[str, Any] = {"batch": (), "contract": ((1, 0),), "accumulate": None}
_LINE: dict[str, Any] = {"strides": (1,), "dilations": (1,), "low": (0,), "high": (0,), "groups": 1}
_WINDOW: dict[str, Any] = {"strides": (1,), "dilations": (1,), "low": (1,), "high": (0,)}
LINEAR = [
    _row("dot", "empty", "0 if a contracted axis is empty", [Sample(F32, [], (2, 0)), Sample(F32, [], (0, 1))],
         Sample(F32, [[0.0], [0.0]]), "torch", **_CONTRACT),
    _row("dot", "overflow", "integers wrap around in their element type",
         [Sample(I8, [[100, 100]]), Sample(I8, [[2], [1]])], Sample(I8, [[44]]), "", **_CONTRACT),
    _row("dot", "narrow floats", "f16 is summed in f32 and rounded once",
         [Sample(F16, [[2048.0, 1.0, 1.0]]), Sample(F16, [[1.0]] * 3)], Sample(F16, [[2050.0]]), "torch",
         **_CONTRACT),
    _row("dot", "out of range", "extents must agree", [Sample(F32, [[1.0, 2.0]]), Sample(F32, [[1.0]])], "run.shape",
         **_CONTRACT),
    _row("conv", "empty", "an empty batch", [Sample(F32, [], (0, 1, 3)), Sample(F32, [[[1.0, 1.0]]])],
         Sample(F32, [], (0, 1, 2)), "torch", **_LINE),
    _row("conv", "out of range", "a window larger than its axis",
         [Sample(F32, [[[1.0]]]), Sample(F32, [[[1.0, 1.0]]])], "run.shape", **_LINE),
    _row("conv", "NaN", "every window that contains NaN gives NaN",
         [Sample(F32, [[[NAN, 1.0, 2.0]]]), Sample(F32, [[[1.0, 1.0]]])], Sample(F32, [[[NAN, 3.0]]]), _BOTH,
         **_LINE),
    _row("conv_transpose", "zero", "elements that no kernel element reaches are the bias",
         [Sample(F32, [[[1.0, 2.0]]]), Sample(F32, [[[3.0]]]), _f32(0.5)], Sample(F32, [[[3.5, 0.5, 6.5]]]), _BOTH,
         **{**_LINE, "strides": (2,), "output_padding": (0,)}),
    _row("conv_transpose", "empty", "the bias, if it is given",
         [Sample(F32, [], (1, 1, 0)), Sample(F32, [[[3.0, 1.0]]]), _f32(0.5)], Sample(F32, [[[0.5]]]),
         **{**_LINE, "output_padding": (0,)}),
    _row("window_reduce", "NaN", "the maximum of a window with NaN is NaN; padding is -inf",
         [_f32(-INF, NAN, 1.0, 2.0)], _f32(-INF, NAN, NAN, 2.0), "", kind="max", window=(2,), **_WINDOW),
    _row("window_reduce", "zero", "padding is 0 for a sum", [_f32(1.0, 2.0)], _f32(1.0, 3.0), "", kind="sum",
         window=(2,), **_WINDOW),
    _row("window_reduce", "negative zero", "a sum of negative zeros is 0", [_f32(-0.0, -0.0, -0.0)], _f32(0.0, 0.0), "",
         kind="sum", window=(2,), **{**_WINDOW, "low": (0,)}),
    _row("window_reduce", "out of range", "a window larger than its axis", [_f32(1.0)], "run.shape", kind="sum",
         window=(3,), **_WINDOW),
    _row("scan", "NaN", "every element from the first NaN on is NaN", [_f32(1.0, NAN, 3.0)], _f32(1.0, NAN, NAN), _BOTH,
         kind="sum", axis=0, reverse=False, exclusive=False),
    _row("scan", "negative zero", "a sum of negative zeros is 0", [_f32(-0.0, -0.0, -1.0)], _f32(0.0, 0.0, -1.0),
         "torch", kind="sum", axis=0, reverse=False, exclusive=False),
    _row("scan", "zero", "the first exclusive element is the identity", [_f32(1.0, 2.0)], _f32(-INF, 1.0), "",
         kind="max", axis=0, reverse=False, exclusive=True),
    _row("scan", "infinity", "exponentials of -inf add up to 0, whose logarithm is -inf",
         [_f32(-INF, -INF, INF, 1.0)], _f32(-INF, -INF, INF, INF), "torch", kind="log_sum_exp", axis=0, reverse=False,
         exclusive=False),
    _row("scan", "empty", "an empty result", [_EMPTY], _EMPTY, "torch", kind="sum", axis=0, reverse=False,
         exclusive=False),
    _row("sort", "NaN", "ascending: NaN is last; stable, and 0 equals -0", [_f32(NAN, 0.0, -INF, -0.0)],
         [_f32(-INF, 0.0, -0.0, NAN), _i64(2, 1, 3, 0)], "torch", axis=0, descending=False),
    _row("sort", "NaN", "descending: NaN is first; stable", [_f32(2.0, NAN, 2.0, INF)],
         [_f32(NAN, INF, 2.0, 2.0), _i64(1, 3, 0, 2)], "torch", axis=0, descending=True),
]  # fmt: skip

_POOL: dict[str, Any] = {"kernel": (2,), "strides": (1,), "low": (0,), "high": (0,), "dilations": (1,)}
_ROWS, _ONES = Sample(F32, [[[[1.0], [1.0]]]]), Sample(F32, [[[[2.0], [4.0]]]])
_TO_FOUR: dict[str, Any] = {"sizes": (1, 2, 4), "scales": None, "mode": "linear", "coordinates": "half_pixel",
                            "nearest": "floor", "cubic_coefficient": -0.75}  # fmt: skip
_ATTENTION: dict[str, Any] = {"scale": None, "causal": False, "masked_rows": "zero"}
NAMED = [
    _row("hard_swish", "overflow", "the product overflows before it is divided, if division is \"last\"",
         [_f32(6e37, 5e37, -3e38)], _f32(INF, 5e37, -0.0), division="last"),
    _row("max_pool", "NaN", "every window that contains NaN gives NaN", [Sample(F32, [[[1.0, NAN, 2.0, 3.0]]])],
         Sample(F32, [[[NAN, NAN, 3.0]]]), "torch", **_POOL),
    _row("max_pool", "infinity", "a window of -inf gives -inf", [Sample(F32, [[[-INF, -INF, 1.0, INF]]])],
         Sample(F32, [[[-INF, 1.0, INF]]]), "torch", **_POOL),
    _row("global_max_pool", "NaN", "NaN if any element is NaN", [Sample(F32, [[[1.0, NAN, 2.0]]])],
         Sample(F32, [[[NAN]]]), "torch"),
    _row("clip", "NaN", "a bound that is NaN gives NaN", [_f32(1.0, -INF, NAN), Sample(F32, NAN), Sample(F32, 2.0)],
         _f32(NAN, NAN, NAN), "torch"),
    _row("resize", "NaN", "NaN affects only its row and channel", [Sample(F32, [[[2.0, 3.0], [NAN, 1.0]]])],
         Sample(F32, [[[2.0, 2.25, 2.75, 3.0], [NAN, NAN, NAN, 1.0]]]), "torch", **_TO_FOUR),
    _row("resize", "infinity", "an infinity affects only its row and channel",
         [Sample(F32, [[[2.0, 3.0], [INF, 1.0]]])], Sample(F32, [[[2.0, 2.25, 2.75, 3.0], [INF, INF, INF, 1.0]]]),
         "torch", **_TO_FOUR),
    _row("grid_sample", "NaN", "NaN for a coordinate that is NaN or infinite, with padding of zeros",
         [Sample(F32, [[[[1.0, 2.0], [3.0, 4.0]]]]), Sample(F32, [[[[NAN, 0.0], [INF, 0.0]]]])],
         Sample(F32, [[[[NAN, NAN]]]]), "torch", mode="linear", padding="zeros", align_corners=True),
    _row("grid_sample", "NaN", "the first element for NaN, where padding clamps coordinates",
         [Sample(F32, [[[[1.0, 2.0], [3.0, 4.0]]]]), Sample(F32, [[[[NAN, -1.0], [1e20, 1.0]]]])],
         Sample(F32, [[[[1.0, 4.0]]]]), "torch", mode="linear", padding="border", align_corners=True),
    _row("top_k", "NaN", "NaN counts as the greatest", [_f32(1.0, NAN, INF, 3.0)], [_f32(NAN, INF), _i64(1, 2)],
         "torch", k=2, axis=0, largest=True),
    _row("top_k", "NaN", "NaN is last among the smallest", [_f32(NAN, 2.0)], [_f32(2.0, NAN), _i64(1, 0)], "torch", k=2,
         axis=0, largest=False),
    _row("reduce_mean", "negative zero", "the mean of negative zeros is 0", [Sample(F32, [[-0.0, -0.0]])], _f32(0.0),
         "torch", **_ALL_OF_ROW),
    _row("reduce_mean", "empty", "NaN for an empty tensor", [_EMPTY], _f32(NAN, NAN), "torch", **_ALL_OF_COLUMN),
    _row("log_sum_exp", "NaN", "NaN for NaN and an infinity", [Sample(F32, [[INF, NAN]])], _f32(NAN), "torch",
         **_ALL_OF_ROW),
    _row("attention", "overflow", "a mask row of only the least finite number has no effect",
         [_ROWS, _ROWS, _ONES, Sample(F32, [[_LEAST_F32, _LEAST_F32], [_LEAST_F32, 0.0]])],
         Sample(F32, [[[[3.0], [4.0]]]]), "torch", **_ATTENTION),
    _row("attention", "infinity", "a row whose mask is all -inf is zero", [_ROWS, _ROWS, _ONES,
         Sample(F32, [[-INF, -INF], [-INF, 0.0]])], Sample(F32, [[[[0.0], [4.0]]]]), "torch", **_ATTENTION),
    _row("attention", "zero", "any scale is allowed", [_ROWS, _ROWS, _ONES], Sample(F32, [[[[3.0], [3.0]]]]), "torch",
         **{**_ATTENTION, "scale": -2.0}),
]  # fmt: skip

STRUCTURE = [
    _structural("const", "elements keep their bits", "test_constants_keep_their_bits"),
    _structural("return", "ends a function", "test_functions_return_what_they_are_given"),
    _structural("yield", "ends a region", "test_if_runs_one_side"),
    _structural("if", "only the selected region runs", "test_if_runs_one_side"),
    _structural("loop", "no iterations: carried values are unchanged, scanned results are empty",
                "test_loop_without_a_round"),
    _structural("call", "symbols are bound at each call", "test_calls_bind_symbols_each_time"),
    _structural("kernel", "the same as its operations outside a kernel", "test_kernels_run_their_region"),
    _structural("dim", "an empty list gives i64[0]", "test_dims_become_tensors"),
    _structural("bind", "out of range is run.dim_range", "test_bind_checks_the_range"),
    _structural("refine", "a dim that does not have the promised value is run.refine",
                "test_refine_checks_the_promise"),
    _structural("assert", "a false condition is run.assert; an empty condition holds", "test_assertions_stop_the_run"),
    _structural("assume", "checked as assert", "test_assertions_stop_the_run"),
    _structural("trap", "reaching it is run.trap", "test_a_trap_stops_the_run"),
    _structural("philox", "seeds of 0 and of all ones are keys as others are", "test_philox_is_that_of_random123"),
    _structural("extern", "as ONNX Runtime does; an error is run.extern", "test_externs_run_in_onnx_runtime"),
]  # fmt: skip

TABLE: tuple[EdgeCase, ...] = (
    *ARITHMETIC, *FUNCTIONS, *BITS, *COMPARISONS, *CASTS, *REDUCTIONS, *VIEWS, *INDEXING, *LINEAR, *NAMED,
    *STRUCTURE,
)  # fmt: skip


def of(op: str) -> tuple[EdgeCase, ...]:
    """The rows of one operation."""
    return tuple(row for row in TABLE if row.op == op)
