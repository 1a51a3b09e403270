"""Rows of the functions that work element by element."""

from __future__ import annotations

import math
from typing import Any

from irc import ops
from irc.dtypes import BOOL, F32, I16, I32, I64, U8, DType, accumulator_of, limits
from irc.frontends.torch.reading import (
    Scalar,
    converted,
    dtype_of,
    floating,
    promoted,
    refuse,
    result_dtype,
    scaled,
    together,
)
from irc.frontends.torch.table import Row, reads
from irc.ir import Value
from irc.op import literal


def of_floats(definition: Any):
    """A function of real numbers: integers and bool are taken as f32."""
    return lambda self: definition(converted(self, floating(self)))


FLOAT: list[Row] = [
    reads(name)(of_floats(definition))
    for name, definition in {
        "sqrt": ops.sqrt, "rsqrt": ops.rsqrt, "exp": ops.exp, "expm1": ops.expm1, "log": ops.log, "log1p": ops.log1p,
        "sin": ops.sin, "cos": ops.cos, "tan": ops.tan, "asin": ops.asin, "acos": ops.acos, "atan": ops.atan,
        "sinh": ops.sinh, "cosh": ops.cosh, "tanh": ops.tanh, "asinh": ops.asinh, "acosh": ops.acosh,
        "atanh": ops.atanh, "erf": ops.erf, "sigmoid": ops.sigmoid, "reciprocal": ops.reciprocal,
    }.items()
]  # fmt: skip


def of_whole_too(definition: Any):
    """Rounding: integers are whole already."""
    return lambda self: self if self.dtype.is_integer else definition(self)


ROUNDING: list[Row] = [
    reads(name)(of_whole_too(definition))
    for name, definition in {"floor": ops.floor, "ceil": ops.ceil, "trunc": ops.trunc, "round": ops.round_}.items()
]
SAME: list[Row] = [
    reads(name)(definition)
    for name, definition in {
        "neg": ops.neg, "abs": ops.abs_, "relu": ops.relu, "silu": ops.silu, "hardswish": ops.hard_swish,
        "mish": ops.mish, "bitwise_not": ops.bitwise_not, "square": ops.square,
    }.items()
]  # fmt: skip


def widened(function: Any, x: Value) -> Value:
    """What ATen computes in f32 for narrower floats, rounded once at the end."""
    return converted(function(converted(x, accumulator_of(x.dtype))), x.dtype)


@reads("exp2")
def exp2(self):
    x = converted(self, floating(self))
    return widened(lambda wide: ops.exp(ops.mul(wide, math.log(2))), x)


@reads("log2")
def log2(self):
    x = converted(self, floating(self))
    return widened(lambda wide: ops.div(ops.log(wide), math.log(2)), x)


@reads("log10")
def log10(self):
    x = converted(self, floating(self))
    return widened(lambda wide: ops.div(ops.log(wide), math.log(10)), x)


@reads("erfc")
def erfc(self):
    x = converted(self, floating(self))
    return widened(lambda wide: ops.sub(1.0, ops.erf(wide)), x)


@reads("ldexp.Tensor")
def ldexp(self, other):
    """self * 2 ** other."""
    return together(ops.mul, self, together(ops.pow_, 2.0, other, dtype=F32), dtype=result_dtype())


@reads("hypot")
def hypot(self, other):
    x, y = converted(self, result_dtype()), converted(other, result_dtype())
    return widened_pair(lambda a, b: ops.sqrt(ops.add(ops.mul(a, a), ops.mul(b, b))), x, y)


def widened_pair(function: Any, x: Value, y: Value) -> Value:
    wide = accumulator_of(x.dtype)
    return converted(function(converted(x, wide), converted(y, wide)), x.dtype)


@reads("sign", "sgn")
def sign(self):
    if self.dtype is BOOL or self.dtype.is_complex:
        return self if self.dtype is BOOL else refuse("the sign of complex numbers has no operation")
    return ops.sign(self)


@reads("logical_not")
def logical_not(self):
    return ops.bitwise_not(truth(self))


@reads("isnan")
def is_nan(self):
    return ops.is_nan(self) if self.dtype.is_float else ops.not_equal(self, self)


@reads("isinf")
def is_inf(self):
    return ops.is_inf(self) if self.dtype.is_float else ops.not_equal(self, self)


@reads("round.decimals")
def round_decimals(self, *, decimals):
    if self.dtype.is_integer or decimals == 0:
        return self if self.dtype.is_integer else ops.round_(self)
    factor = 10.0 ** abs(decimals)
    if decimals < 0:
        return ops.mul(ops.round_(ops.div(self, factor)), factor)
    return ops.div(ops.round_(ops.mul(self, factor)), factor)


def truth(x: Value | Scalar) -> Value:
    """Whether each element is not zero; NaN is not."""
    if isinstance(x, Value):
        return x if x.dtype is BOOL else ops.not_equal(x, literal(0, x.dtype))
    return literal(bool(x), BOOL)


# -- arithmetic -------------------------------------------------------------------------------------------------------


def times(x: Value | Scalar, factor: Value | Scalar) -> Value | Scalar:
    if not isinstance(factor, Value) and factor == 1:
        return x
    if isinstance(x, (int, float)) and isinstance(factor, (int, float)):
        return x * factor
    return scaled(ops.mul, x, factor)


@reads("add.Tensor", "add.Scalar")
def add(self, other, alpha=1):
    if promoted(self, other) is BOOL:
        return ops.bitwise_or(truth(self), truth(other))
    return together(ops.add, self, times(other, alpha), dtype=promoted(self, other))


@reads("sub.Tensor", "sub.Scalar")
def subtract(self, other, alpha=1):
    return together(ops.sub, self, times(other, alpha), dtype=promoted(self, other))


@reads("rsub.Tensor", "rsub.Scalar")
def reverse_subtract(self, other, alpha=1):
    return together(ops.sub, other, times(self, alpha), dtype=promoted(self, other))


@reads("mul.Tensor", "mul.Scalar")
def multiply(self, other):
    if promoted(self, other) is BOOL:
        return ops.bitwise_and(truth(self), truth(other))
    return scaled(ops.mul, self, other)


@reads("div.Tensor", "div.Scalar", "true_divide.Tensor")
def divide(self, other):
    dtype = promoted(self, other)
    return scaled(ops.div, self, other, dtype=result_dtype() if dtype.is_integer or dtype is BOOL else dtype)


@reads("div.Tensor_mode", "div.Scalar_mode")
def divide_rounded(self, other, *, rounding_mode=None):
    if rounding_mode is None:
        return divide.function(self, other)
    dtype = result_dtype()
    if dtype.is_integer:
        return together(ops.div, self, other, dtype=dtype, rounding=rounding_mode)
    rounding = ops.floor if rounding_mode == "floor" else ops.trunc
    if rounding_mode == "floor":  # as Python's: the remainder decides, not the rounded quotient
        return together(floor_quotient, self, other, dtype=dtype)
    return rounding(together(ops.div, self, other, dtype=dtype))


def floor_quotient(a: Value, b: Value) -> Value:
    """a // b of floats: (a - a % b) / b, so that a quotient just below a whole number is not rounded up to it."""
    whole = ops.round_(ops.div(ops.sub(a, ops.mod(a, b)), b))
    return ops.select(ops.equal(b, 0), ops.div(a, b), whole)


@reads("floor_divide", "floor_divide.Scalar")
def floor_divide(self, other):
    return divide_rounded.function(self, other, rounding_mode="floor")


@reads("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(self, other):
    return together(ops.mod, self, other, rounding="floor")


@reads("fmod.Tensor", "fmod.Scalar")
def fmod(self, other):
    return together(ops.mod, self, other, rounding="trunc")


@reads("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def power(self, exponent):
    if exponent == 2 and isinstance(self, Value) and not isinstance(exponent, Value):
        return together(ops.mul, self, self) if self.dtype is not BOOL else refuse("a power of bool")
    return together(ops.pow_, self, exponent, dtype=result_dtype())


@reads("maximum")
def maximum(self, other):
    return extreme(ops.maximum, ops.bitwise_or, self, other)


@reads("minimum")
def minimum(self, other):
    return extreme(ops.minimum, ops.bitwise_and, self, other)


def extreme(definition: Any, of_bool: Any, x: Value, y: Value | Scalar) -> Value:
    return together(of_bool if promoted(x, y) is BOOL else definition, x, y)


@reads("fmax")
def fmax(self, other):
    """The larger; NaN only where both are."""
    return over_nan(maximum.function, self, other)


@reads("fmin")
def fmin(self, other):
    return over_nan(minimum.function, self, other)


def over_nan(row: Any, x: Value, y: Value) -> Value:
    dtype = promoted(x, y)
    x, y = converted(x, dtype), converted(y, dtype)
    result = row(x, y)
    return ops.select(ops.is_nan(x), y, ops.select(ops.is_nan(y), x, result)) if dtype.is_float else result


@reads("clamp", "clamp.Tensor")
def clamp(self, min=None, max=None):
    dtype = result_dtype()
    x = converted(self, dtype)
    x = x if min is None else ops.maximum(x, converted(min, dtype))
    return x if max is None else ops.minimum(x, converted(max, dtype))


@reads("clamp_min", "clamp_min.Tensor")
def clamp_min(self, min):
    return clamp.function(self, min)


@reads("clamp_max", "clamp_max.Tensor")
def clamp_max(self, max):
    return clamp.function(self, None, max)


# -- comparisons and logic --------------------------------------------------------------------------------------------


def comparing(definition: Any):
    """A comparison in the promoted type; of bool by order false < true."""

    def row(self, other):
        dtype = promoted(self, other)
        ordered = dtype is BOOL and definition not in (ops.equal, ops.not_equal)
        return together(definition, self, other, dtype=U8 if ordered else dtype)

    return row


COMPARISONS: list[Row] = [
    reads(f"{name}.Tensor", f"{name}.Scalar")(comparing(definition))
    for name, definition in {
        "eq": ops.equal, "ne": ops.not_equal, "lt": ops.less, "le": ops.less_equal, "gt": ops.greater,
        "ge": ops.greater_equal,
    }.items()
]  # fmt: skip


def on_truth(definition: Any):
    return lambda self, other: definition(truth(self), truth(other))


def on_bits(definition: Any):
    return lambda self, other: together(definition, self, other)


LOGIC: list[Row] = [
    *(reads(f"logical_{name}")(on_truth(definition)) for name, definition in {
        "and": ops.bitwise_and, "or": ops.bitwise_or, "xor": ops.bitwise_xor}.items()),
    *(reads(f"bitwise_{name}.Tensor", f"bitwise_{name}.Scalar")(on_bits(definition)) for name, definition in {
        "and": ops.bitwise_and, "or": ops.bitwise_or, "xor": ops.bitwise_xor}.items()),
    *(reads(f"bitwise_{name}_shift.Tensor", f"bitwise_{name}_shift.Tensor_Scalar")(on_bits(definition))
      for name, definition in {"left": ops.shift_left, "right": ops.shift_right}.items()),
]  # fmt: skip


@reads("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(condition, self, other):
    dtype = result_dtype()
    return ops.select(truth(condition), converted(self, dtype), converted(other, dtype))


@reads("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(self, mask, value):
    return ops.select(truth(mask), converted(value, self.dtype), self)


# -- activations ------------------------------------------------------------------------------------------------------


@reads("gelu")
def gelu(self, *, approximate="none"):
    return ops.gelu(self, approximate=approximate)


@reads("leaky_relu")
def leaky_relu(self, negative_slope=0.01):
    return ops.leaky_relu(self, alpha=float(negative_slope))


@reads("elu")
def elu(self, alpha=1, scale=1, input_scale=1):
    if input_scale != 1:
        refuse("input_scale is not 1")
    if scale == 1:
        return ops.elu(self, alpha=float(alpha))
    return ops.selu(self, alpha=float(alpha), gamma=float(scale))


@reads("hardtanh")
def hardtanh(self, min_val=-1, max_val=1):
    return clamp.function(self, min_val, max_val)


@reads("relu6")
def relu6(self):
    return clamp.function(self, 0, 6)


@reads("hardsigmoid")
def hard_sigmoid(self):
    return ops.hard_sigmoid(self, alpha=1 / 6, beta=0.5)


@reads("softplus")
def softplus(self, beta=1, threshold=20):
    wide = converted(self, accumulator_of(self.dtype))
    scaled = ops.mul(wide, float(beta)) if beta != 1 else wide
    soft = ops.softplus(scaled)
    soft = ops.div(soft, float(beta)) if beta != 1 else soft
    return converted(ops.select(ops.greater(scaled, float(threshold)), wide, soft), self.dtype)


@reads("log_sigmoid", "log_sigmoid_forward")
def log_sigmoid(self):
    return ops.neg(ops.softplus(ops.neg(self)))


@reads("prelu", "_prelu_kernel")
def prelu(self, weight):
    shape = (1, weight.shape[0], *(1 for _ in self.shape[2:])) if weight.rank == 1 and self.rank > 1 else weight.shape
    return ops.prelu(self, weight if shape == weight.shape else ops.reshape(weight, shape=shape))


# -- types and copies -------------------------------------------------------------------------------------------------


@reads("_to_copy")
def to_copy(self, **options):
    """Layouts, devices and strides are not irc's; the element type is."""
    dtype = options.get("dtype")
    return self if dtype is None else converted(self, dtype_of(dtype))


@reads("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "lift")
def same(self, **options):
    return self


@reads("copy")
def copy(self, src, non_blocking=False):
    """`src` in the type and the shape of `self`."""
    value = converted(src, self.dtype)
    return value if value.shape == self.shape else ops.expand(value, shape=self.shape)


@reads("dropout", "native_dropout")
def dropout(input, p, train):
    return refuse("it is random") if train and p else input


# -- signs and angles -------------------------------------------------------------------------------------------------


@reads("signbit")
def signbit(self):
    return is_negative(self)


def is_negative(x: Value) -> Value:
    """By the sign bit, which -0.0 and a NaN may have."""
    if x.dtype.is_float:
        x = ops.bitcast(x, to=bits_of(x))
    elif not x.dtype.is_signed:
        return ops.not_equal(x, x)  # false everywhere
    return ops.less(x, literal(0, x.dtype))


def bits_of(x: Value) -> DType:
    """The integers that have the bits of a float: of what is narrower than 16 there are none."""
    return {16: I16, 32: I32, 64: I64}.get(x.dtype.bits) or refuse(f"it is of {x.dtype}")


@reads("copysign.Tensor", "copysign.Scalar")
def copysign(self, other):
    return signed_as(converted(self, result_dtype()), converted(other, result_dtype()))


def signed_as(x: Value, sign: Value) -> Value:
    """x with the sign bit of another: by its bits, for ONNX Runtime's Where makes 0 of a -0 that it chooses."""
    bits = bits_of(x)
    low, high = limits(bits)
    size = ops.bitwise_and(ops.bitcast(x, to=bits), literal(high, bits))
    theirs = ops.bitwise_and(ops.bitcast(sign, to=bits), literal(low, bits))
    return ops.bitcast(ops.bitwise_or(size, theirs), to=x.dtype)


@reads("atan2")
def atan2(self, other):
    """The angle of the point (other, self): the arc tangent of the smaller by the larger, moved to its octant."""
    wide = accumulator_of(result_dtype())
    y, x = converted(self, wide), converted(other, wide)
    height, width = ops.abs_(y), ops.abs_(x)
    is_steep = ops.greater(height, width)
    low, high = ops.select(is_steep, width, height), ops.select(is_steep, height, width)
    of_equals = ops.select(ops.equal(high, 0.0), high, 1.0)  # infinities too
    angle = ops.atan(ops.select(ops.equal(low, high), of_equals, ops.div(low, high)))
    angle = ops.select(is_steep, ops.sub(math.pi / 2, angle), angle)
    angle = ops.select(is_negative(x), ops.sub(math.pi, angle), angle)
    is_nan = ops.bitwise_or(ops.is_nan(x), ops.is_nan(y))
    return converted(signed_as(ops.select(is_nan, float("nan"), angle), y), result_dtype())


@reads("angle")
def angle(self):
    """0 or pi, of real numbers."""
    if self.dtype.is_complex:
        refuse(f"it is of {self.dtype}")
    x = converted(self, result_dtype())
    turned = ops.select(ops.less(x, 0.0), converted(math.pi, x.dtype), converted(0.0, x.dtype))
    return ops.select(ops.is_nan(x), x, turned)
