"""Arithmetic of complex numbers by their real and imaginary parts, which are values of one type and shape.

Products and sums are those that PyTorch computes. Quotients are scaled by the larger part of the divisor (Smith 1962),
and magnitudes by the larger part, so that neither leaves the range where the result does not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from irc import ops
from irc.ir import Value
from irc.op import literal
from irc.ops.named.common import pair_parts


class Parts(NamedTuple):
    """The real and the imaginary part of a complex value."""

    real: Value
    imaginary: Value


def parted(pairs: Value) -> Parts:
    """The two elements of the last axis of a real value, each without the axis."""
    return Parts(*pair_parts(pairs))


def stacked(z: Parts) -> Value:
    """The parts as the two elements of a last axis."""
    shape = (*z.real.shape, 1)
    result: Value = ops.concat(*(ops.reshape(part, shape=shape) for part in z), axis=len(shape) - 1)
    return result


def added(x: Parts, y: Parts) -> Parts:
    return Parts(ops.add(x.real, y.real), ops.add(x.imaginary, y.imaginary))


def subtracted(x: Parts, y: Parts) -> Parts:
    return Parts(ops.sub(x.real, y.real), ops.sub(x.imaginary, y.imaginary))


def negated(z: Parts) -> Parts:
    return Parts(ops.neg(z.real), ops.neg(z.imaginary))


def conjugate(z: Parts) -> Parts:
    return Parts(z.real, ops.neg(z.imaginary))


def swapped(z: Parts) -> Parts:
    return Parts(z.imaginary, z.real)


def multiplied(x: Parts, y: Parts) -> Parts:
    return Parts(ops.sub(ops.mul(x.real, y.real), ops.mul(x.imaginary, y.imaginary)),
                 ops.add(ops.mul(x.real, y.imaginary), ops.mul(x.imaginary, y.real)))  # fmt: skip


def scaled(z: Parts, factor: Value | float) -> Parts:
    return Parts(ops.mul(z.real, factor), ops.mul(z.imaginary, factor))


def squared(z: Parts) -> Parts:
    return multiplied(z, z)


def divided(x: Parts, y: Parts) -> Parts:
    is_wide = ops.greater_equal(ops.abs_(y.real), ops.abs_(y.imaginary))
    large, small = ops.select(is_wide, y.real, y.imaginary), ops.select(is_wide, y.imaginary, y.real)
    ratio = ops.select(ops.equal(large, 0.0), 0.0, ops.div(small, large))
    scale = ops.reciprocal(ops.add(large, ops.mul(small, ratio)))
    one, other = ops.select(is_wide, x.real, x.imaginary), ops.select(is_wide, x.imaginary, x.real)
    turned = ops.mul(ops.sub(other, ops.mul(one, ratio)), scale)
    return Parts(ops.mul(ops.add(one, ops.mul(other, ratio)), scale), ops.select(is_wide, turned, ops.neg(turned)))


def inverse(z: Parts) -> Parts:
    one = literal(1.0, z.real.dtype)
    return divided(Parts(one, literal(0.0, z.real.dtype)), z)


def magnitude(z: Parts) -> Value:
    width, height = ops.abs_(z.real), ops.abs_(z.imaginary)
    large, small = ops.maximum(width, height), ops.minimum(width, height)
    ratio = ops.select(ops.equal(large, small), 1.0, ops.div(small, large))  # both may be 0, or infinite
    size = ops.mul(large, ops.sqrt(ops.add(ops.mul(ratio, ratio), 1.0)))
    is_infinite = ops.bitwise_or(ops.is_inf(z.real), ops.is_inf(z.imaginary))  # though the other part is NaN
    result: Value = ops.select(is_infinite, math.inf, size)
    return result


def polar(size: Value, angle: Value) -> Parts:
    return Parts(ops.mul(size, ops.cos(angle)), ops.mul(size, ops.sin(angle)))


def times_sine(size: Value, angle: Value) -> Value:
    """size * sin(angle), which stays 0 where the size overflows, as in C."""
    sine = ops.sin(angle)
    stays = ops.bitwise_and(ops.equal(sine, 0.0), ops.bitwise_not(ops.less(ops.abs_(size), math.inf)))
    result: Value = ops.select(stays, sine, ops.mul(size, sine))
    return result


def exponential(z: Parts) -> Parts:
    size = ops.exp(z.real)
    return Parts(ops.mul(size, ops.cos(z.imaginary)), times_sine(size, z.imaginary))


def root(z: Parts) -> Parts:
    """The square root whose real part is not negative; its imaginary part has the sign of that of z."""
    half = ops.sqrt(ops.add(ops.mul(ops.abs_(z.real), 0.5), ops.mul(magnitude(z), 0.5)))
    rest = ops.select(ops.equal(half, 0.0), 0.0, ops.div(ops.mul(ops.abs_(z.imaginary), 0.5), half))
    is_left = ops.less(z.real, 0.0)
    is_below = ops.bitwise_or(ops.less(z.imaginary, 0.0), ops.less(ops.reciprocal(z.imaginary), 0.0))  # -0.0 is, too
    height = ops.select(is_left, half, rest)
    return Parts(ops.select(is_left, rest, half), ops.select(is_below, ops.neg(height), height))


def sine(z: Parts) -> Parts:
    return Parts(times_sine(ops.cosh(z.imaginary), z.real), ops.mul(ops.cos(z.real), ops.sinh(z.imaginary)))


def cosine(z: Parts) -> Parts:
    return Parts(ops.mul(ops.cos(z.real), ops.cosh(z.imaginary)), ops.neg(times_sine(ops.sinh(z.imaginary), z.real)))


def hyperbolic_sine(z: Parts) -> Parts:
    return swapped(sine(swapped(z)))  # sinh(z) = -i sin(iz), and sin(conj(z)) = conj(sin(z))


def hyperbolic_cosine(z: Parts) -> Parts:
    return cosine(Parts(ops.neg(z.imaginary), z.real))  # cosh(z) = cos(iz)


def tangent(z: Parts) -> Parts:
    """By the tangents of the parts, which stay finite where sine and cosine do not."""
    width, height = ops.tan(z.real), ops.tanh(z.imaginary)
    return divided(Parts(width, height), Parts(literal(1.0, width.dtype), ops.neg(ops.mul(width, height))))


def hyperbolic_tangent(z: Parts) -> Parts:
    return swapped(tangent(swapped(z)))
