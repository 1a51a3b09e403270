"""Pointwise primitives: each result element depends on the operands' elements at the same broadcast position.

Operands share one element type and broadcast as in NumPy; an unranked operand gives an unranked result. Floats
narrower than 32 bits are computed in f32 and rounded once; integers wrap around; NaN in, NaN out, unless a page
says otherwise.
"""

from __future__ import annotations

import operator
from typing import Literal

import numpy as np

from irc import dims, dtypes
from irc.diagnostics import fail
from irc.dtypes import BOOL, DType
from irc.interfaces import Pointwise, Trait
from irc.op import (
    AnyType,
    BitsType,
    BooleanType,
    FloatType,
    IntegerType,
    NumberType,
    RealType,
    primitive,
)
from irc.ops import symbolic
from irc.ops.numerics import Array, convert, narrow, rounded, to_bool, widen
from irc.ops.rules import broadcast_types
from irc.types import TensorType

# -- arithmetic ------------------------------------------------------------------------------------------------


@primitive(Pointwise(onnx="Add"), Trait.COMMUTATIVE, Trait.WRAPS, Trait.CANCELS)
def add(x: NumberType, y: NumberType, /) -> TensorType:
    """x + y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Add; NumPy add; ATen add.
    Edge cases: integers wrap around; inf - inf is NaN.
    """
    return broadcast_types(x, y)


add.reference(rounded(np.add))
add.on_dims(symbolic.known(operator.add))


@primitive(Pointwise(onnx="Sub"), Trait.WRAPS, Trait.CANCELS)
def sub(x: NumberType, y: NumberType, /) -> TensorType:
    """x - y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Sub; NumPy subtract; ATen sub.
    Edge cases: integers wrap around, unsigned ones below 0.
    """
    return broadcast_types(x, y)


sub.reference(rounded(np.subtract))
sub.on_dims(symbolic.known(operator.sub))


@primitive(Pointwise(onnx="Mul"), Trait.COMMUTATIVE, Trait.WRAPS)
def mul(x: NumberType, y: NumberType, /) -> TensorType:
    """x * y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Mul; NumPy multiply; ATen mul.
    Edge cases: integers wrap around; 0 * inf is NaN.
    """
    return broadcast_types(x, y)


mul.reference(rounded(np.multiply))
mul.on_dims(symbolic.known(operator.mul))


@primitive(Pointwise(), Trait.WRAPS)
def div(x: NumberType, y: NumberType, /, *, rounding: Literal["trunc", "floor"] = "trunc",
        by_zero: Literal["error"] | None = None) -> TensorType:  # fmt: skip
    """x / y: true division of floats; integers divide and round as `rounding` says, which floats ignore.

    Shapes: operands broadcast as in NumPy.
    Attributes: rounding; by_zero, of integers: "error" stops the run (`run.zero_division`), as torch does.
    Source: ONNX Div (integers: trunc); NumPy divide, floor_divide; ATen div with rounding_mode.
    Edge cases: floats follow IEEE 754 (x/0 is an infinity, 0/0 NaN). An integer divided by 0 is 0 without `by_zero`,
    and the least integer divided by -1 is itself (ONNX leaves both open).
    """
    return broadcast_types(x, y)


@div.reference
def _div(x: Array, y: Array, *, rounding: str, by_zero: str | None) -> Array:
    _check_divisor(x, y, by_zero)
    wide_x, wide_y = widen(x), widen(y)
    with np.errstate(all="ignore"):
        if wide_x.dtype.kind in "fc":
            return narrow(np.divide(wide_x, wide_y), x.dtype)
        quotient = np.floor_divide(wide_x, wide_y)
        if rounding == "trunc" and wide_x.dtype.kind == "i":
            inexact = np.not_equal(quotient * wide_y, wide_x) & np.not_equal(wide_y, 0)
            quotient = quotient + (inexact & np.less(quotient, 0)).astype(quotient.dtype)
        return narrow(quotient, x.dtype)


div.on_dims(symbolic.divide)


def _check_divisor(x: Array, y: Array, by_zero: str | None) -> None:
    if by_zero == "error" and x.dtype.kind not in "fc" and x.size and (widen(y) == 0).any():
        raise fail("run.zero_division", "an integer is divided by 0")


@primitive(Pointwise(), Trait.WRAPS, Trait.DISCONTINUOUS)
def mod(x: RealType, y: RealType, /, *, rounding: Literal["trunc", "floor"] = "floor",
        by_zero: Literal["error"] | None = None) -> TensorType:  # fmt: skip
    """The remainder x - y * q, where q is x / y rounded: with `floor` it has the sign of y, with `trunc` of x.

    Shapes: operands broadcast as in NumPy.
    Attributes: rounding; by_zero, of integers: "error" stops the run (`run.zero_division`), as torch does.
    Source: ONNX Mod (fmod=0: floor, fmod=1: trunc); NumPy remainder, fmod; ATen remainder, fmod.
    Edge cases: floats: mod 0 is NaN, a finite x mod an infinity of the same sign is x. An integer mod 0 is 0 without
    `by_zero` (ONNX leaves it open); the least integer mod -1 is 0.
    """
    return broadcast_types(x, y)


@mod.reference
def _mod(x: Array, y: Array, *, rounding: str, by_zero: str | None) -> Array:
    _check_divisor(x, y, by_zero)
    return rounded(np.remainder if rounding == "floor" else np.fmod)(x, y)


mod.on_dims(symbolic.remainder)


@primitive(Pointwise(), Trait.WRAPS)
def pow_(x: NumberType, y: NumberType, /) -> TensorType:
    """x to the power of y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Pow; NumPy power; ATen pow; C99 pow for the edges.
    Edge cases: pow(x, 0) and pow(1, y) are 1 even for NaN; a negative float to a fraction is NaN; 0 to a negative
    float power is an infinity. Integers wrap; a negative exponent gives the true value truncated: 1 for 1, 1 or
    -1 for -1, and 0 for the rest, 0 included (NumPy raises; torch does the same for tensors).
    """
    return broadcast_types(x, y)


@pow_.reference
def _pow(x: Array, y: Array) -> Array:
    base, exponent = widen(x), widen(y)
    with np.errstate(all="ignore"):
        if base.dtype.kind != "i":
            shape = np.broadcast_shapes(base.shape, exponent.shape)
            # Of one number for all NumPy takes square roots, which differ at -inf and -0: it gets one for each.
            each = np.array(np.broadcast_to(exponent, shape or (1,)))
            return narrow(np.reshape(np.power(base, each), shape), x.dtype)
        power = np.power(base, np.maximum(exponent, 0))
        odd = np.bitwise_and(exponent, 1) != 0
        inverse = np.where(base == 1, 1, np.where(base == -1, np.where(odd, -1, 1), 0))
        return narrow(np.where(exponent < 0, inverse, power), x.dtype)


@primitive(Pointwise(), Trait.COMMUTATIVE, Trait.EXACT)
def minimum(x: RealType, y: RealType, /) -> TensorType:
    """The smaller of x and y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Min; NumPy minimum; ATen minimum.
    Edge cases: NaN when either is NaN; of two zeros of different sign either may be the result.
    """
    return broadcast_types(x, y)


minimum.reference(rounded(np.minimum))
minimum.on_dims(symbolic.known(dims.minimum))


@primitive(Pointwise(), Trait.COMMUTATIVE, Trait.EXACT)
def maximum(x: RealType, y: RealType, /) -> TensorType:
    """The greater of x and y.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX Max; NumPy maximum; ATen maximum.
    Edge cases: NaN when either is NaN; of two zeros of different sign either may be the result.
    """
    return broadcast_types(x, y)


maximum.reference(rounded(np.maximum))
maximum.on_dims(symbolic.known(dims.maximum))


@primitive(Pointwise(onnx="Neg", aten="neg"), Trait.WRAPS, Trait.EXACT)
def neg(x: NumberType, /) -> TensorType:
    """-x.

    Shapes: x any. Result: x's shape.
    Source: ONNX Neg; NumPy negative; ATen neg.
    Edge cases: neg(0.0) is -0.0; the least integer is unchanged; unsigned integers wrap.
    """
    return x


neg.reference(rounded(np.negative))
neg.on_dims(symbolic.known(operator.neg))


@primitive(Pointwise(onnx="Abs", aten="abs"), Trait.WRAPS, Trait.EXACT)
def abs_(x: NumberType, /) -> TensorType:
    """The magnitude; that of a complex number has the type of its parts.

    Shapes: x any. Result: x's shape.
    Source: ONNX Abs; NumPy absolute; ATen abs.
    Edge cases: abs(-0.0) is 0.0; the least integer is unchanged.
    """
    part = {dtypes.C64: dtypes.F32, dtypes.C128: dtypes.F64}.get(x.dtype)
    return x if part is None else x.with_dtype(part)


@abs_.reference
def _abs(x: Array) -> Array:
    magnitude = np.abs(widen(x))
    return np.asarray(magnitude) if x.dtype.kind == "c" else narrow(magnitude, x.dtype)


@primitive(Pointwise(onnx="Sign"), Trait.DISCONTINUOUS)
def sign(x: RealType, /) -> TensorType:
    """-1, 0 or 1.

    Shapes: x any. Result: x's shape.
    Source: ONNX Sign; NumPy sign; ATen sign.
    Edge cases: sign(NaN) is NaN (torch gives 0); sign(-0.0) is 0, of either sign.
    """
    return x


sign.reference(rounded(np.sign))


# -- bits ------------------------------------------------------------------------------------------------------


@primitive(Pointwise(), Trait.COMMUTATIVE)
def bitwise_and(x: BitsType, y: BitsType, /) -> TensorType:
    """Bit by bit x and y; logical for bool.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX BitwiseAnd, And; NumPy bitwise_and; ATen bitwise_and.
    Edge cases: negative integers are in two's complement.
    """
    return broadcast_types(x, y)


bitwise_and.reference(rounded(np.bitwise_and))


@primitive(Pointwise(), Trait.COMMUTATIVE)
def bitwise_or(x: BitsType, y: BitsType, /) -> TensorType:
    """Bit by bit x or y; logical for bool.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX BitwiseOr, Or; NumPy bitwise_or; ATen bitwise_or.
    Edge cases: negative integers are in two's complement.
    """
    return broadcast_types(x, y)


bitwise_or.reference(rounded(np.bitwise_or))


@primitive(Pointwise(), Trait.COMMUTATIVE)
def bitwise_xor(x: BitsType, y: BitsType, /) -> TensorType:
    """Bit by bit, whether x and y differ; logical for bool.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX BitwiseXor, Xor; NumPy bitwise_xor; ATen bitwise_xor.
    Edge cases: negative integers are in two's complement.
    """
    return broadcast_types(x, y)


bitwise_xor.reference(rounded(np.bitwise_xor))


@primitive(Pointwise(aten="bitwise_not"), Trait.WRAPS)
def bitwise_not(x: BitsType, /) -> TensorType:
    """All bits inverted; logical for bool.

    Shapes: x any. Result: x's shape.
    Source: ONNX BitwiseNot, Not; NumPy invert; ATen bitwise_not.
    Edge cases: negative integers are in two's complement: the result is -x - 1.
    """
    return x


bitwise_not.reference(rounded(np.invert))


@primitive(Pointwise(), Trait.WRAPS)
def shift_left(x: IntegerType, y: IntegerType, /) -> TensorType:
    """x shifted by y bits towards the high end; zeros come in.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX BitShift (LEFT); NumPy left_shift; ATen bitwise_left_shift.
    Edge cases: bits pushed out are lost; 0 when y is negative or at least the width (C leaves it open).
    """
    return broadcast_types(x, y)


@shift_left.reference
def _shift_left(x: Array, y: Array) -> Array:
    wide_x, wide_y = widen(x), widen(y)
    inside = (wide_y >= 0) & (wide_y < dtypes.from_numpy(x.dtype).bits)
    return narrow(np.where(inside, np.left_shift(wide_x, np.where(inside, wide_y, 0)), 0), x.dtype)


@primitive(Pointwise())
def shift_right(x: IntegerType, y: IntegerType, /) -> TensorType:
    """x shifted by y bits towards the low end; copies of the sign come in, zeros for unsigned integers.

    Shapes: operands broadcast as in NumPy.
    Source: ONNX BitShift (RIGHT); NumPy right_shift; ATen bitwise_right_shift.
    Edge cases: when y is negative or at least the width: 0, or -1 for a negative x (C leaves it open).
    """
    return broadcast_types(x, y)


@shift_right.reference
def _shift_right(x: Array, y: Array) -> Array:
    wide_x, wide_y = widen(x), widen(y)
    inside = (wide_y >= 0) & (wide_y < dtypes.from_numpy(x.dtype).bits)
    emptied = np.where(wide_x < 0, -1, 0).astype(wide_x.dtype)  # mixed with i64, u64 would become a float
    return narrow(np.where(inside, np.right_shift(wide_x, np.where(inside, wide_y, 0)), emptied), x.dtype)


# -- comparisons -----------------------------------------------------------------------------------------------


@primitive(Pointwise(onnx="Equal"), Trait.COMMUTATIVE)
def equal(x: AnyType, y: AnyType, /) -> TensorType:
    """Whether x and y are equal.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: ONNX Equal; NumPy equal; ATen eq.
    Edge cases: NaN equals nothing; 0.0 equals -0.0.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


equal.reference(to_bool(np.equal))
equal.on_dims(symbolic.comparison("equal"))


@primitive(Pointwise(), Trait.COMMUTATIVE)
def not_equal(x: AnyType, y: AnyType, /) -> TensorType:
    """Whether x and y differ.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: NumPy not_equal; ATen ne.
    Edge cases: NaN differs from everything; 0.0 does not differ from -0.0.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


not_equal.reference(to_bool(np.not_equal))
not_equal.on_dims(symbolic.differ)


@primitive(Pointwise(onnx="Less"))
def less(x: RealType, y: RealType, /) -> TensorType:
    """Whether x < y.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: ONNX Less; NumPy less; ATen lt.
    Edge cases: false when either is NaN.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


less.reference(to_bool(np.less))
less.on_dims(symbolic.comparison("less"))


@primitive(Pointwise())
def less_equal(x: RealType, y: RealType, /) -> TensorType:
    """Whether x <= y.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: ONNX LessOrEqual; NumPy less_equal; ATen le.
    Edge cases: false when either is NaN.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


less_equal.reference(to_bool(np.less_equal))
less_equal.on_dims(symbolic.comparison("less_equal"))


@primitive(Pointwise(onnx="Greater"))
def greater(x: RealType, y: RealType, /) -> TensorType:
    """Whether x > y.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: ONNX Greater; NumPy greater; ATen gt.
    Edge cases: false when either is NaN.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


greater.reference(to_bool(np.greater))
greater.on_dims(symbolic.comparison("less", swapped=True))


@primitive(Pointwise())
def greater_equal(x: RealType, y: RealType, /) -> TensorType:
    """Whether x >= y.

    Shapes: operands broadcast as in NumPy; the result is bool.
    Source: ONNX GreaterOrEqual; NumPy greater_equal; ATen ge.
    Edge cases: false when either is NaN.
    """
    return broadcast_types(x, y).with_dtype(BOOL)


greater_equal.reference(to_bool(np.greater_equal))
greater_equal.on_dims(symbolic.comparison("less_equal", swapped=True))


@primitive(Pointwise(onnx="IsNaN"))
def is_nan(x: FloatType, /) -> TensorType:
    """Whether x is NaN.

    Shapes: x any. Result: bool in x's shape.
    Source: ONNX IsNaN; NumPy isnan; ATen isnan.
    Edge cases: false for infinities.
    """
    return x.with_dtype(BOOL)


is_nan.reference(to_bool(np.isnan))


@primitive(Pointwise())
def is_inf(x: FloatType, /, *, detect_positive: bool = True, detect_negative: bool = True) -> TensorType:
    """Whether x is an infinity, of one of the requested signs.

    Shapes: x any. Result: bool in x's shape.
    Source: ONNX IsInf; NumPy isinf, isposinf, isneginf; ATen isinf.
    Edge cases: false for NaN.
    """
    return x.with_dtype(BOOL)


@is_inf.reference
def _is_inf(x: Array, *, detect_positive: bool, detect_negative: bool) -> Array:
    wide = widen(x)
    positive = (wide == np.inf) & detect_positive
    return np.asarray(positive | ((wide == -np.inf) & detect_negative))


# -- choice and conversion -------------------------------------------------------------------------------------


@primitive(Pointwise(onnx="Where", flops=0), Trait.EXACT)
def select(condition: BooleanType, x: AnyType, y: AnyType, /) -> TensorType:
    """x where the condition holds, else y.

    Shapes: the three operands broadcast as in NumPy.
    Source: ONNX Where; NumPy where; ATen where.
    Edge cases: elements are moved, not computed: NaN payloads and -0.0 stay, and the side not taken does not matter.
    """
    return broadcast_types(condition.with_dtype(x.dtype), x, y)


@select.reference
def _select(condition: Array, x: Array, y: Array) -> Array:
    return np.where(condition, x, y)


select.on_dims(symbolic.choose)


@primitive(Pointwise(flops=0), Trait.EXACT)
def cast(x: AnyType, /, *, to: DType, saturate: bool = True) -> TensorType:
    """x converted to the element type `to`.

    Shapes: x any. Result: x's shape.
    Source: ONNX Cast; NumPy astype; ATen to.
    Edge cases: to a float: round to nearest even, overflow gives an infinity. To a float of 8 bits or fewer: with
    `saturate` what is beyond the range, infinities included, becomes the greatest number; without, an infinity, or
    NaN where the type has none. Float to integer: rounds towards zero; with `saturate` what is out of range
    becomes the nearest end and NaN 0 (as Triton and LLVM's saturating conversion do); without, the low bits of the
    number as i32, or for i64, u64 and u32 as i64, where what does not fit, and NaN, is the least one (as PyTorch and
    ONNX Runtime on x86; other processors saturate). Integer to integer keeps the low bits. To bool: whether it differs
    from 0; NaN is true.
    """
    if "string" in (x.dtype.kind, to.kind) and to is not x.dtype:
        raise fail("type.dtype", f"cannot cast {x} to {to}", expected="numbers or bool on both sides")
    if x.dtype.is_complex and not to.is_complex:
        raise fail("type.dtype", f"cannot cast {x} to {to}", expected="a complex type", help="take `abs` or a part")
    return x.with_dtype(to)


@cast.reference
def _cast(x: Array, *, to: DType, saturate: bool) -> Array:
    return convert(x, to, saturate)


cast.on_dims(symbolic.convert)


@primitive(Pointwise(flops=0), Trait.DECLARED_ARRAYS, Trait.WRAPS, Trait.EXACT)
def bitcast(x: AnyType, /, *, to: DType) -> TensorType:
    """The bits of x read as another element type of the same width.

    Shapes: x any. Result: x's shape.
    Source: ONNX BitCast; NumPy view; ATen view with dtype.
    Edge cases: bits are kept exactly, NaN payloads and -0.0 included.
    """
    if x.dtype.bits != to.bits or BOOL in (x.dtype, to) or dtypes.STRING in (x.dtype, to):
        if x.dtype is not to:
            raise fail("type.dtype", f"cannot bitcast {x} to {to}", expected=f"types of {x.dtype.bits} bits, not bool")
    return x.with_dtype(to)


@bitcast.reference
def _bitcast(x: Array, *, to: DType) -> Array:
    if not to.sub_byte:
        return np.ascontiguousarray(x).view(to.numpy).reshape(x.shape)
    bits = np.asarray(np.ascontiguousarray(x).view(np.uint8).reshape(x.shape) & ((1 << to.bits) - 1))
    return bits.view(to.numpy) if to.is_float else bits.astype(to.numpy)


