"""Rows of the functions that work element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc import ops
from irc.dtypes import BOOL, F16, I64, U8, DType, accumulator_of
from irc.frontends.torch.complex_numbers import direction, parts_of
from irc.frontends.torch.reading import (
    Scalar,
    converted,
    dtype_of,
    floating,
    known_number,
    promoted,
    result_dtype,
    scaled,
    together,
    unsupported,
)
from irc.frontends.torch.special import (
    complex_expm1,
    complex_log1p,
    complex_logarithm,
    complex_power,
    complex_sigmoid,
    floor_quotient,
    widened,
)
from irc.frontends.torch.table import Row, reads
from irc.interfaces import Trait
from irc.ir import Value
from irc.op import literal


def of_complex(definition: Any):
    """A function of complex numbers; some have no operation, but what they are written with has."""
    written = {
        "expm1": complex_expm1, "log": complex_logarithm, "log1p": complex_log1p, "sigmoid": complex_sigmoid,
        "reciprocal": lambda z: ops.div(1.0, z), "rsqrt": lambda z: ops.div(1.0, ops.sqrt(z)),
    }  # fmt: skip
    return written.get(definition.name, definition)


def of_floats(definition: Any):
    """A function of real numbers, and of complex ones: integers and bool are taken as f32."""

    def row(self):
        x = converted(self, floating(self))
        return (of_complex(definition) if x.dtype.is_complex else definition)(x)

    return row


def of_whole_too(definition: Any):
    """Rounding: integers are whole already."""
    return lambda self: self if self.dtype.is_integer else definition(self)


def of_bools_too(definition: Any):
    """A function of numbers, whose bools are integers."""
    return lambda self: definition(converted(self, result_dtype()) if self.dtype is BOOL else self)


def one_to_one(definition: Any):
    """How ATen's function of that name takes element types that the operation does not."""
    admits = definition.operand_specs[0].constraint.admits
    if admits(I64):
        return definition if admits(BOOL) else of_bools_too(definition)
    return of_whole_too(definition) if Trait.DISCONTINUOUS in definition.traits else of_floats(definition)


SAME: list[Row] = [
    reads(definition.pointwise.aten)(one_to_one(definition))
    for definition in ops.TABLE.values()
    if definition.pointwise is not None and definition.pointwise.aten is not None
]
# Activations: PyTorch rejects the types that the operations reject.
SAME += [
    reads(name)(definition)
    for name, definition in {
        "relu": ops.relu, "silu": ops.silu, "mish": ops.mish,
    }.items()
]  # fmt: skip


@reads("sign", "sgn")
def sign(self):
    if self.dtype is BOOL or self.dtype.is_complex:
        return self if self.dtype is BOOL else direction(self)
    signs = ops.sign(self)
    return ops.select(ops.is_nan(self), 0.0, signs) if self.dtype.is_float else signs  # that of NaN is 0


@reads("logical_not")
def logical_not(self):
    return ops.bitwise_not(as_bool(self))


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
    before, after = (ops.div, ops.mul) if decimals < 0 else (ops.mul, ops.div)
    return widened(lambda x: after(ops.round_(before(x, factor)), factor), self)


def as_bool(x: Value | Scalar) -> Value:
    """Whether each element is not zero; NaN is not."""
    if isinstance(x, Value):
        return x if x.dtype is BOOL else ops.not_equal(x, literal(0, x.dtype))
    return literal(bool(x), BOOL)


# -- arithmetic -------------------------------------------------------------------------------------------------------


def times(x: Value | Scalar, factor: Value | Scalar, dtype: DType) -> Value | Scalar:
    """x times the `alpha` of a sum, in the type of the sum."""
    if not isinstance(factor, Value) and factor == 1:
        return x
    if isinstance(x, (int, float)) and isinstance(factor, (int, float)):
        return x * factor
    return scaled(ops.mul, converted(x, dtype), factor)


@reads("add.Tensor", "add.Scalar")
def add(self, other, alpha=1):
    dtype = promoted(self, other)
    if dtype is BOOL:
        return ops.bitwise_or(as_bool(self), as_bool(other)) if alpha else as_bool(self)
    return together(ops.add, self, times(other, alpha, dtype), dtype=dtype)


@reads("sub.Tensor", "sub.Scalar")
def subtract(self, other, alpha=1):
    dtype = promoted(self, other)
    return together(ops.sub, self, times(other, alpha, dtype), dtype=dtype)


@reads("prims::fma")
def multiply_add(a, b, c):
    """What Dynamo makes of `addcmul_` and `add_` with a factor that is a tensor, rounded as PyTorch runs it: twice."""
    return together(ops.add, together(ops.mul, a, b), c)


@reads("rsub.Tensor", "rsub.Scalar")
def reverse_subtract(self, other, alpha=1):
    dtype = promoted(self, other)
    return together(ops.sub, other, times(self, alpha, dtype), dtype=dtype)


@reads("mul.Tensor", "mul.Scalar")
def multiply(self, other):
    if promoted(self, other) is BOOL:
        return ops.bitwise_and(as_bool(self), as_bool(other))
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
        return together(ops.div, self, other, dtype=dtype, rounding=rounding_mode, by_zero=by_zero(other))
    rounding = ops.floor if rounding_mode == "floor" else ops.trunc
    if rounding_mode == "floor":  # as Python's: the remainder decides, not the rounded quotient
        return together(floor_quotient, self, other, dtype=dtype)
    return rounding(together(ops.div, self, other, dtype=dtype))


def by_zero(divisor: Value | Scalar) -> str | None:
    """What an integer division by 0 does: PyTorch raises an error. A number that is not 0 needs no such check."""
    return None if isinstance(divisor, (bool, int, float)) and divisor else "error"


@reads("floor_divide", "floor_divide.Scalar")
def floor_divide(self, other):
    return divide_rounded.function(self, other, rounding_mode="floor")


@reads("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(self, other):
    return remainder_of(self, other, "floor")


@reads("fmod.Tensor", "fmod.Scalar")
def fmod(self, other):
    return remainder_of(self, other, "trunc")


def remainder_of(x: Value | Scalar, y: Value | Scalar, rounding: str) -> Value:
    check = by_zero(y) if promoted(x, y).is_integer else None
    return together(ops.mod, x, y, rounding=rounding, by_zero=check)


@reads("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def power(self, exponent):
    if not isinstance(exponent, Value) and exponent == 2:
        return together(ops.mul, self, self, dtype=result_dtype())
    if result_dtype().is_complex:
        if not isinstance(exponent, Value) and exponent == 0:
            return ops.expand(literal(1.0, result_dtype()), shape=self.shape)
        return together(complex_power, self, exponent, dtype=result_dtype())
    is_root = isinstance(exponent, float) and abs(exponent) == 0.5
    if is_root and result_dtype() is not F16:  # of -inf no infinity
        return (ops.sqrt if exponent > 0 else ops.rsqrt)(converted(self, result_dtype()))
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
    low, high = (None if bound is None else converted(bound, dtype) for bound in (min, max))
    if dtype is BOOL:
        x = x if low is None else ops.bitwise_or(x, low)
        return x if high is None else ops.bitwise_and(x, high)
    if all(bound is None or bound.rank == 0 for bound in (low, high)):
        return x if low is high is None else ops.clip(x, low, high)
    x = x if low is None else ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


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
    return lambda self, other: definition(as_bool(self), as_bool(other))


def on_bits(definition: Any):
    return lambda self, other: together(definition, self, other)


LOGIC: list[Row] = [
    *(reads(f"logical_{name}")(on_truth(definition)) for name, definition in {
        "and": ops.bitwise_and, "or": ops.bitwise_or, "xor": ops.bitwise_xor}.items()),
    *(reads(*(f"bitwise_{name}.{kinds}" for kinds in ("Tensor", "Scalar", "Scalar_Tensor")))(on_bits(definition))
      for name, definition in {"and": ops.bitwise_and, "or": ops.bitwise_or, "xor": ops.bitwise_xor}.items()),
    *(reads(*(f"bitwise_{name}_shift.{kinds}" for kinds in ("Tensor", "Tensor_Scalar", "Scalar_Tensor")),
            f"__{name[0]}shift__.Tensor", f"__{name[0]}shift__.Scalar")(on_bits(definition))
      for name, definition in {"left": ops.shift_left, "right": ops.shift_right}.items()),
]  # fmt: skip


@reads("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(condition, self, other):
    dtype = result_dtype()
    return ops.select(as_bool(condition), converted(self, dtype), converted(other, dtype))


@reads("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(self, mask, value):
    return ops.select(as_bool(mask), converted(value, self.dtype), self)


# -- activations ------------------------------------------------------------------------------------------------------


@reads("gelu")
def gelu(self, *, approximate="none"):
    return ops.gelu(self, approximate=approximate)


@reads("leaky_relu")
def leaky_relu(self, negative_slope=0.01):
    slope = float(known_number(negative_slope))
    if keeps_zeros(slope):
        return ops.leaky_relu(self, alpha=slope)
    wide = converted(self, accumulator_of(self.dtype))
    return converted(ops.select(ops.greater(wide, 0.0), wide, ops.mul(wide, slope)), self.dtype)


def keeps_zeros(slope: Any) -> bool:
    """Whether 0 and -0 times the slope are what they were. ATen takes the slope for them and NaN, ONNX does not."""
    return bool(np.all(np.isfinite(slope) & ~np.signbit(slope)))


@reads("elu")
def elu(self, alpha=1, scale=1, input_scale=1):
    if input_scale != 1:
        unsupported("input_scale is not 1")
    if scale == 1:
        return ops.elu(self, alpha=float(known_number(alpha)))
    return ops.selu(self, alpha=float(known_number(alpha)), gamma=float(known_number(scale)))


@reads("hardtanh")
def hardtanh(self, min_val=-1, max_val=1):
    return clamp.function(self, min_val, max_val)


@reads("relu6")
def relu6(self):
    return clamp.function(self, 0, 6)


@reads("hardsigmoid")
def hard_sigmoid(self):
    return ops.hard_sigmoid(self, alpha=1 / 6, beta=0.5)


@reads("hardswish")
def hard_swish(self):
    return ops.hard_swish(self, division="last")


@reads("softplus")
def softplus(self, beta=1, threshold=20):
    wide = converted(self, accumulator_of(self.dtype))
    scaled = ops.mul(wide, converted(beta, wide.dtype)) if beta != 1 else wide
    soft = ops.softplus(scaled)
    soft = ops.div(soft, converted(beta, wide.dtype)) if beta != 1 else soft
    return converted(ops.select(ops.greater(scaled, converted(threshold, wide.dtype)), wide, soft), self.dtype)


@reads("log_sigmoid")
def log_sigmoid(self):
    """A difference from 0, which is 0 for large numbers, and not -0."""
    wide = converted(self, accumulator_of(self.dtype))
    return converted(ops.sub(0.0, ops.softplus(ops.neg(wide))), self.dtype)


@reads("log_sigmoid_forward")
def log_sigmoid_forward(self):
    """The second result is what ATen keeps for the gradient: exp(-abs(x)), on processors."""
    return log_sigmoid.function(self), ops.exp(ops.neg(ops.abs_(self)))


@reads("prelu", "_prelu_kernel")
def prelu(self, weight):
    shape = weight.shape
    if weight.rank == 1 and self.rank != 1:  # a scalar takes the only slope there is
        shape = (1, weight.shape[0], *(1 for _ in self.shape[2:])) if self.rank else ()
    content = weight.operation.attributes["value"] if weight.operation and weight.operation.name == "const" else None
    slope = weight if shape == weight.shape else ops.reshape(weight, shape=shape)
    if content is not None and keeps_zeros(content.array().astype(np.float64)):
        return ops.prelu(self, slope)
    return ops.select(ops.greater(self, 0), self, ops.mul(self, slope))


# -- types and copies -------------------------------------------------------------------------------------------------


@reads("_to_copy")
def to_copy(self, **options):
    """Layouts, devices and strides are not irc's; the element type is."""
    return self if options.get("dtype") is None else of_type(self, dtype_of(options["dtype"]))


@reads("prims::convert_element_type")
def convert_element_type(a, dtype):
    """What AOTAutograd makes of arithmetic with Python's floats that vary."""
    return of_type(a, dtype_of(dtype))


def of_type(x: Value, dtype: DType) -> Value:
    if x.dtype.is_complex and not dtype.is_complex:
        return as_bool(x) if dtype is BOOL else converted(parts_of(x)[0], dtype)
    return converted(x, dtype)


@reads("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "lift")
def same(self, **options):
    return self


@reads("_neg_view")
def negative_view(self):
    return ops.neg(self)


@reads("copy")
def copy(self, src, non_blocking=False):
    """`src` in the type and the shape of `self`."""
    value = converted(src, self.dtype)
    return value if value.shape == self.shape else ops.expand(value, shape=self.shape)


@reads("dropout")
def dropout(input, p, train):
    return unsupported("it is random") if train and p else input
