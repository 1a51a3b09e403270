"""Functions of complex numbers, computed by their real and imaginary parts."""

from __future__ import annotations

from collections.abc import Callable

from irc import ops
from irc.dtypes import DType, part_of
from irc.frontends.torch.reading import check_call
from irc.ir import Value
from irc.op import Builder
from irc.ops import aten
from irc.ops.named.common import pair_parts
from irc.types import TensorType


def parts_of(z: Value) -> tuple[Value, Value]:
    """The real and the imaginary part of a complex value."""
    return pair_parts(pairs_of(z))


def pairs_of(z: Value) -> Value:
    """A complex value as pairs of its parts, on a new last axis."""
    return _call("view_as_real", [z], TensorType(part_of(z.dtype), (*z.shape, 2)))


def of_pairs(x: Value, dtype: DType) -> Value:
    """Pairs on the last axis as complex numbers of this type."""
    return _call("view_as_complex", [x], TensorType(dtype, x.shape[:-1]))


def complex_of(real: Value, imaginary: Value, like: Value) -> Value:
    """Parts of one shape as complex numbers of the type of another value."""
    return _call("complex", [real, imaginary], TensorType(like.dtype, real.shape))


def _call(op_type: str, operands: list[Value], type_: TensorType) -> Value:
    check_call(op_type)
    return Builder.active().create(ops.extern, operands, aten.call_of(op_type), types=[type_]).result


def conjugate(z: Value) -> Value:
    return _call("_conj_physical", [z], z.type)


def by_part(function: Callable[[Value], Value], z: Value) -> Value:
    """A function of real numbers that is linear, of the parts."""
    real, imaginary = map(function, parts_of(z))
    return complex_of(real, imaginary, z)


def direction(z: Value) -> Value:
    """z by its magnitude; 0 of 0."""
    size = ops.abs_(z)
    divisor = ops.select(ops.equal(size, 0.0), 1.0, size)
    real, imaginary = parts_of(z)
    return complex_of(ops.div(real, divisor), ops.div(imaginary, divisor), z)
