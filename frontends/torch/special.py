"""Rows of functions that take several operations, to be exact where the obvious ones overflow or cancel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from irc import ops
from irc.dtypes import F64, I16, I32, I64, DType, accumulator_of, limits
from irc.frontends.torch.complex_numbers import complex_of, parts_of
from irc.frontends.torch.reading import converted, floating, result_dtype, together, unsupported
from irc.frontends.torch.table import reads
from irc.ir import Value
from irc.op import literal


def widened(function: Callable[..., Value], *operands: Value, dtype: DType | None = None) -> Value:
    """What ATen computes in f32 for narrower floats, rounded once at the end."""
    dtype = dtype or operands[0].dtype
    wide = accumulator_of(dtype)
    return converted(function(*(converted(x, wide) for x in operands)), dtype)


# -- powers and logarithms --------------------------------------------------------------------------------------------


@reads("exp2")
def exp2(self):
    x = converted(self, floating(self))
    return ops.exp(ops.mul(x, math.log(2))) if x.dtype.is_complex else widened(lambda x: ops.pow_(2.0, x), x)


@reads("log2")
def log2(self):
    return widened(lambda x: logarithm(x, 2.0), converted(self, floating(self)))


@reads("log10")
def log10(self):
    return widened(lambda x: logarithm(x, 10.0), converted(self, floating(self)))


def complex_logarithm(z: Value, base: float = math.e) -> Value:
    """The principal one: the logarithm of the magnitude, and the angle. Of a magnitude near 1 the logarithm is that of
    1 and of what the square of the magnitude is beside it, (large - 1) (large + 1) + small²."""
    real, imaginary = parts_of(z)
    size, width, height = ops.abs_(z), ops.abs_(real), ops.abs_(imaginary)
    large, small = ops.maximum(width, height), ops.minimum(width, height)
    beside = ops.add(ops.mul(ops.sub(large, 1.0), ops.add(large, 1.0)), ops.mul(small, small))
    is_near = ops.bitwise_and(ops.greater(size, 0.5), ops.less(size, 2.0))
    logarithm = ops.select(is_near, ops.mul(ops.log1p(beside), 0.5), ops.log(size))
    factor = 1 / math.log(base)
    return complex_of(ops.mul(logarithm, factor), ops.mul(angle_of(imaginary, real), factor), z)


def complex_log1p(z: Value) -> Value:
    """log(1 + z), whose real part is log1p(x (2 + x) + y²) / 2 for small z, and x where the squares underflow."""
    real, imaginary = parts_of(z)
    square = ops.add(ops.mul(real, ops.add(real, 2.0)), ops.mul(imaginary, imaginary))
    near = ops.select(ops.equal(square, 0.0), real, ops.mul(ops.log1p(square), 0.5))
    far, angle = parts_of(complex_logarithm(complex_of(ops.add(real, 1.0), imaginary, z)))  # 0j would lose -0j
    return complex_of(ops.select(ops.less(ops.abs_(z), 0.5), near, far), angle, z)


def complex_expm1(z: Value) -> Value:
    """exp(z) - 1, whose real part is expm1(x) cos(y) - 2 sin²(y / 2)."""
    real, imaginary = parts_of(z)
    sine = ops.sin(ops.mul(imaginary, 0.5))
    beside = ops.sub(ops.mul(ops.expm1(real), ops.cos(imaginary)), ops.mul(ops.mul(sine, sine), 2.0))
    return complex_of(beside, parts_of(ops.exp(z))[1], z)


def complex_sigmoid(z: Value) -> Value:
    """1 / (1 + exp(-z)), or exp(z) / (1 + exp(z)): the one whose power is at most 1."""
    is_left = ops.less(parts_of(z)[0], 0.0)
    power = ops.exp(ops.select(is_left, z, ops.neg(z)))
    return ops.div(ops.select(is_left, power, literal(1.0, z.dtype)), ops.add(power, 1.0))


def complex_power(z: Value, exponent: Value) -> Value:
    """The principal one; 0 has no logarithm, and powers with an exponent to the right of the imaginary axis alone."""
    power = ops.exp(ops.mul(exponent, complex_logarithm(z)))
    real, _ = parts_of(exponent)
    infinite, undefined = (literal(complex(each, math.nan), z.dtype) for each in (math.inf, math.nan))
    of_zero = ops.select(ops.greater(real, 0.0), literal(0.0, z.dtype),
                         ops.select(ops.less(real, 0.0), infinite, undefined))  # fmt: skip
    return ops.select(ops.equal(z, 0.0), of_zero, power)


def logarithm(x: Value, base: float) -> Value:
    """A whole number where x is just that power of the base: a quotient of logarithms may lie beside it. Among
    subnormals the rounded power of a base other than 2 may equal x, and x not be a power."""
    if x.dtype.is_complex:
        return complex_logarithm(x, base)
    quotient = ops.div(ops.log(x), math.log(base))
    whole = ops.round_(quotient)
    is_power = ops.equal(ops.pow_(base, whole), x)
    if base != 2:
        is_power = ops.bitwise_and(is_power, ops.greater_equal(x, float(np.finfo(x.dtype.numpy).tiny)))
    return ops.select(is_power, whole, quotient)


@reads("ldexp.Tensor")
def ldexp(self, other):
    """self * 2 ** other. A whole exponent in three factors: where it cancels the one of self, the power alone would
    overflow, and only the last product that is no number of full precision is rounded. Of floats ATen has the power."""
    if other.dtype.is_float:
        return together(ops.mul, self, ops.pow_(literal(2.0, other.dtype), other))
    wide = accumulator_of(result_dtype())
    step, most = (1000.0, 2200.0) if wide is F64 else (100.0, 300.0)
    x, rest = converted(self, wide), clipped(converted(other, wide), most)
    for _ in range(3):
        part = clipped(rest, step)
        x, rest = ops.mul(x, ops.pow_(2.0, part)), ops.sub(rest, part)
    return converted(x, result_dtype())


def clipped(x: Value, size: float) -> Value:
    return ops.minimum(ops.maximum(x, -size), size)


@reads("hypot")
def hypot(self, other):
    """The larger times sqrt(1 + square of the quotient): squares would overflow. An infinity wins over NaN."""
    x, y = (converted(each, result_dtype()) for each in (self, other))

    def root(x: Value, y: Value) -> Value:
        x, y = ops.abs_(x), ops.abs_(y)
        high, low = ops.maximum(x, y), ops.minimum(x, y)
        quotient = ops.div(low, ops.select(ops.equal(high, 0.0), 1.0, high))
        size = ops.mul(high, ops.sqrt(ops.add(ops.mul(quotient, quotient), 1.0)))
        return ops.select(ops.bitwise_or(ops.is_inf(x), ops.is_inf(y)), math.inf, size)

    return widened(root, x, y)


# -- the error function -----------------------------------------------------------------------------------------------

# erfc(x) = exp(-x * x) / (1 + 2 * x) * P((x - K) / (x + K)) for x >= 0 (Shepherd and Laframboise, "Chebyshev
# approximation of (1 + 2x) exp(x^2) erfc x", 1981): K and the coefficients of P, the lowest first, interpolated at
# Chebyshev nodes; the results are within 3e-7 and 5e-16 of themselves.
ERFC_F32 = 2.5, (
    1.2648382, -0.12235677, -0.099024236, 0.15763037, -0.10297056, 0.032755483, 0.0009468088, -0.0043582772,
    0.00046327984, 0.0005834769, -6.3894375e-05, -6.4710635e-05,
)  # fmt: skip
ERFC_F64 = 4.0, (
    1.2329951186255526, -0.13962111684056228, 0.015379652102619974, 0.06809705425466839, -0.10103906603631811,
    0.09373283499911264, -0.06633036581186058, 0.037167515526338006, -0.01619773406293477, 0.005031970069102246,
    -0.0007577732435942674, -0.00019925715247260696, 0.00015062142608656434, -2.4397731143154704e-05,
    -1.122113566609758e-05, 5.706578299491852e-06, 2.917342559825061e-07, -8.210647936409277e-07,
    7.771943209905975e-08, 1.0631817617917344e-07, -2.0725802246713516e-08, -1.233873150971522e-08,
    3.23239723838201e-09, 9.297625465304509e-10, -2.764120031741141e-10,
)  # fmt: skip
ERFC_ZERO = 30.0  # from where on it is 0, in f64 too


@reads("erfc")
def erfc(self):
    return widened(complement, converted(self, floating(self)))


def complement(x: Value) -> Value:
    """1 - erf(x), as precise where it is small. The square in the exponent is that of x rounded to sixteenths, which is
    exact, and what is left of it."""
    middle, coefficients = ERFC_F64 if x.dtype is F64 else ERFC_F32
    size = ops.minimum(ops.abs_(x), ERFC_ZERO)
    near = ops.mul(ops.round_(ops.mul(size, 16.0)), 1 / 16)
    rest = ops.mul(ops.sub(near, size), ops.add(near, size))
    bell = ops.mul(ops.exp(ops.neg(ops.mul(near, near))), ops.exp(rest))
    place = ops.div(ops.sub(size, middle), ops.add(size, middle))
    result = ops.mul(bell, ops.div(polynomial(place, coefficients), ops.add(ops.mul(size, 2.0), 1.0)))
    return ops.select(ops.less(x, 0.0), ops.sub(2.0, result), result)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """By Horner's rule; the coefficients with the lowest first."""
    *lower, highest = coefficients
    result = literal(highest, x.dtype)
    for coefficient in reversed(lower):
        result = ops.add(ops.mul(result, x), coefficient)
    return result


# -- quotients --------------------------------------------------------------------------------------------------------


def floor_quotient(a: Value, b: Value) -> Value:
    """a // b of floats, as c10::div_floor_floating: of (a - a % b) / b, which lies next to a whole number."""
    rest = ops.mod(a, b, rounding="trunc")
    other_sign = ops.bitwise_and(ops.not_equal(rest, 0.0), ops.not_equal(ops.less(b, 0.0), ops.less(rest, 0.0)))
    quotient = ops.div(ops.sub(a, rest), b)
    quotient = ops.select(other_sign, ops.sub(quotient, 1.0), quotient)
    whole = ops.floor(quotient)
    whole = ops.select(ops.greater(ops.sub(quotient, whole), 0.5), ops.add(whole, 1.0), whole)
    exact = ops.div(a, b)
    whole = ops.select(ops.equal(quotient, 0.0), ops.mul(exact, 0.0), whole)  # a zero with the sign of a / b
    return ops.select(ops.equal(b, 0.0), exact, whole)


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
    return {16: I16, 32: I32, 64: I64}.get(x.dtype.bits) or unsupported(f"it is of {x.dtype}")


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
    wide = accumulator_of(result_dtype())
    return converted(angle_of(converted(self, wide), converted(other, wide)), result_dtype())


def angle_of(y: Value, x: Value) -> Value:
    """The angle of the point (x, y): the arc tangent of the smaller by the larger, moved to its octant."""
    height, width = ops.abs_(y), ops.abs_(x)
    is_steep = ops.greater(height, width)
    low, high = ops.select(is_steep, width, height), ops.select(is_steep, height, width)
    of_equals = ops.select(ops.equal(high, 0.0), high, 1.0)  # infinities too
    angle = ops.atan(ops.select(ops.equal(low, high), of_equals, ops.div(low, high)))
    angle = ops.select(is_steep, ops.sub(math.pi / 2, angle), angle)
    angle = ops.select(is_negative(x), ops.sub(math.pi, angle), angle)
    is_nan = ops.bitwise_or(ops.is_nan(x), ops.is_nan(y))
    return signed_as(ops.select(is_nan, float("nan"), angle), y)


@reads("angle")
def angle(self):
    """0 or pi, of real numbers."""
    if self.dtype.is_complex:
        real, imaginary = parts_of(self)
        return angle_of(imaginary, real)
    x = converted(self, result_dtype())
    turned = ops.select(ops.less(x, 0.0), converted(math.pi, x.dtype), converted(0.0, x.dtype))
    return ops.select(ops.is_nan(x), x, turned)


# -- neighbors and parts of numbers ----------------------------------------------------------------------------------


@reads("nextafter")
def next_after(self, other):
    """The next number towards another: the integer of its bits, one more or one less."""
    dtype = result_dtype()
    x, y = converted(self, dtype), converted(other, dtype)
    bits = bits_of(x)
    places = ops.bitcast(x, to=bits)
    is_away = ops.equal(ops.greater(y, x), ops.greater(x, 0.0))
    moved = ops.bitcast(ops.add(places, ops.select(is_away, literal(1, bits), literal(-1, bits))), to=dtype)
    least = signed_as(ops.bitcast(ops.expand(literal(1, bits), shape=moved.shape), to=dtype), expanded_as(y, moved))
    result = ops.select(ops.equal(x, 0.0), least, moved)
    result = ops.select(ops.equal(x, y), y, result)
    return ops.select(ops.bitwise_or(ops.is_nan(x), ops.is_nan(y)), math.nan, result)


def expanded_as(x: Value, other: Value) -> Value:
    return x if x.shape == other.shape else ops.expand(x, shape=other.shape)


@reads("frexp.Tensor")
def parts_of_numbers(self):
    """A number of [1/2, 1) in size and the exponent of the power of 2 that it is multiplied by, by their bits. What has
    no bits for its exponent is first made larger."""
    wide = accumulator_of(self.dtype)
    x = converted(self, wide)
    bits, digits, most = (I64, 52, 1022) if wide is F64 else (I32, 23, 126)
    is_small = ops.less(ops.abs_(x), 2.0 ** (1 - most))
    scaled = ops.select(is_small, ops.mul(x, 2.0**digits), x)
    places = ops.bitcast(scaled, to=bits)
    field = (2 * most + 3) << digits
    exponent = ops.shift_right(ops.bitwise_and(places, literal(field, bits)), literal(digits, bits))
    exponent = ops.sub(exponent, ops.select(is_small, literal(most + digits, bits), literal(most, bits)))
    rest = ops.bitwise_or(ops.bitwise_and(places, literal(~field, bits)), literal(most << digits, bits))
    is_kept = ops.bitwise_or(ops.equal(x, 0.0), ops.bitwise_or(ops.is_inf(x), ops.is_nan(x)))
    mantissa = ops.select(is_kept, x, ops.bitcast(rest, to=wide))
    return converted(mantissa, self.dtype), converted(ops.select(is_kept, literal(0, bits), exponent), I32)


# -- divisors ---------------------------------------------------------------------------------------------------------


@reads("gcd")
def greatest_divisor(self, other):
    """Euclid's algorithm, as many steps as the numbers of the type can take."""
    dtype = result_dtype()
    return common_divisor(converted(self, dtype), converted(other, dtype))


def common_divisor(x: Value, y: Value) -> Value:
    x, y = (each if not each.dtype.is_signed else ops.abs_(each) for each in (x, y))
    one, zero = literal(1, x.dtype), literal(0, x.dtype)
    for _ in range(math.ceil(x.dtype.bits * 1.4405) + 2):  # a quotient is at least the golden ratio, on average
        is_done = ops.equal(x, zero)
        rest = ops.mod(y, ops.select(is_done, one, x), rounding="trunc")  # the least integer stays negative
        x, y = ops.select(is_done, zero, rest), ops.select(is_done, y, x)
    return y


@reads("lcm")
def least_multiple(self, other):
    dtype = result_dtype()
    x, y = converted(self, dtype), converted(other, dtype)
    divisor = common_divisor(x, y)
    divisor = ops.select(ops.equal(divisor, 0), literal(1, dtype), divisor)
    wide = I32 if dtype.bits < 32 else dtype  # as in C++, where the product of narrow integers is an int
    product = ops.mul(*(converted(each, wide) for each in (ops.div(x, divisor, rounding="trunc"), y)))
    return converted(ops.abs_(product) if wide.is_signed else product, dtype)
