"""Random numbers of a distribution, as operations on the bits that `philox` gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from irc import ops
from irc.dims import Dim
from irc.dtypes import BF16, F16, F32, F64, I64, U64, DType
from irc.ir import Value
from irc.op import literal

DIGITS = {F64: 53, F32: 24, F16: 11, BF16: 8}  # of a significand


@dataclass
class Draw:
    """What one operator draws: numbers of a shape, from a stream of its own of a seed."""

    seed: Value
    stream: int
    shape: tuple[Dim, ...]

    def bits(self, word: int) -> Value:
        """32 random bits for each element, by its position in memory."""
        count = math.prod(self.shape, start=1)
        index = ops.reshape(ops.iota(shape=(count,), axis=0, dtype=I64), shape=self.shape)
        result: Value = ops.philox(self.seed, index, stream=self.stream, word=word)
        return result

    def digits(self, count: int, word: int = 0) -> Value:
        """Integers of so many random binary digits: of one word in f32, or of two in f64 where one has too few."""
        if count > 32:
            high, low = (ops.cast(ops.shift_right(self.bits(each), drop), to=F64)
                         for each, drop in ((word, 58 - count), (word + 1, 6)))  # fmt: skip
            return _affine(high, 2.0**26, low)
        bits = self.bits(word)
        result: Value = ops.cast(ops.shift_right(bits, 32 - count) if count < 32 else bits, to=F32)
        return result

    def uniform(self, dtype: DType) -> Value:
        """Uniform in [0, 1): each multiple of the unit in the last place of 1/2 is as likely as the others."""
        return converted(_affine(self.digits(DIGITS[dtype]), 2.0 ** -DIGITS[dtype]), dtype)

    def inside(self, dtype: DType) -> Value:
        """Uniform in (0, 1), of f32 or f64: neither end is drawn."""
        return self._middles(DIGITS[dtype] - 1)

    def _middles(self, count: int) -> Value:
        """The middles of the 2^count equal parts of (0, 1), before they are rounded."""
        return _affine(ops.add(self.digits(count), 0.5), 2.0**-count)

    def between(self, low: float, high: float, dtype: DType) -> Value:
        """Uniform in [low, high), which rounding does not leave."""
        drawn = self.uniform(dtype)
        if (low, high) == (0.0, 1.0):
            return drawn
        last = np.nextafter(np.asarray(high, dtype.numpy), np.asarray(low, dtype.numpy))
        result: Value = ops.minimum(scaled(converted(drawn, wide_of(dtype)), high - low, low, dtype), float(last))
        return result

    def normal(self, dtype: DType) -> Value:
        """Of mean 0 and variance 1, in f32 or f64. Source: Box and Muller, 1958."""
        first, word = (self.inside(F64), 2) if dtype is F64 else (self._middles(32), 1)
        turn = _affine(self.digits(DIGITS[dtype], word), 2 * math.pi * 2.0 ** -DIGITS[dtype])
        result: Value = ops.mul(ops.sqrt(ops.mul(ops.log(first), -2.0)), ops.cos(turn))
        return result

    def exponential(self, rate: float, dtype: DType) -> Value:
        return converted(ops.mul(ops.log(self.inside(wide_of(dtype))), -1.0 / rate), dtype)

    def geometric(self, probability: float, dtype: DType) -> Value:
        """1, 2, ...: the number of trials up to the first success."""
        wide = wide_of(dtype)
        return converted(ops.ceil(ops.div(ops.log(self.inside(wide)), literal(math.log1p(-probability), wide))), dtype)

    def cauchy(self, median: float, scale: float, dtype: DType) -> Value:
        turn = _affine(self.inside(wide_of(dtype)), math.pi, -math.pi / 2)
        return converted(_affine(ops.tan(turn), scale, median), dtype)

    def integers(self, low: Dim, high: Dim, dtype: DType) -> Value:
        """Uniform in low, ..., high - 1: the remainder of 64 bits, as PyTorch takes it."""
        first, second = (ops.cast(self.bits(word), to=U64) for word in (0, 1))
        drawn = ops.bitwise_or(first, ops.shift_left(second, 32))
        above = ops.cast(ops.mod(drawn, _number(high - low, U64)), to=I64)
        return converted(ops.add(above, _number(low, I64)), dtype)


def wide_of(dtype: DType) -> DType:
    """The type of floats in which numbers of a type are drawn."""
    return F64 if dtype is F64 else F32


def converted(x: Value, dtype: DType) -> Value:
    """x in this type."""
    result: Value = x if x.dtype is dtype else ops.cast(x, to=dtype)
    return result


def scaled(x: Value, scale: float | Value, shift: float | Value, dtype: DType) -> Value:
    """x * scale + shift, rounded to a type of floats."""
    return converted(_affine(x, scale, shift), dtype)


def _affine(x: Value, scale: float | Value, shift: float | Value = 0.0) -> Value:
    scaled_x: Value = x if scale == 1.0 else ops.mul(x, scale)
    return scaled_x if shift == 0.0 else ops.add(scaled_x, shift)


def _number(value: Dim, dtype: DType) -> Value:
    return literal(value, dtype) if isinstance(value, int) else ops.cast(ops.dim(value=value), to=dtype)
