"""Functions that Triton's language does not have, or has with another rounding. An artefact contains those that its
kernels use.

Polynomials: Cephes (S. Moshier), single precision; errors below 4 units in the last place.
"""

import triton
import triton.language as tl


@triton.jit
def floor_divide(x, y):
    """Division rounded down; Triton's // on integers truncates."""
    quotient = x // y
    return tl.where((x % y != 0) & ((x < 0) != (y < 0)), quotient - 1, quotient)


@triton.jit
def floor_mod(x, y):
    """Remainder with the sign of y; Triton's % has the sign of x."""
    remainder = x % y
    return tl.where((remainder != 0) & ((remainder < 0) != (y < 0)), remainder + y, remainder)


@triton.jit
def divide_integers(x, y, floor: tl.constexpr, signed: tl.constexpr):
    """Integer division. x / 0 is 0, and the least integer / -1 is itself: LLVM defines neither."""
    divisor = tl.where(y == 0, 1, y)
    if signed:
        divisor = tl.where(y == -1, 1, divisor)
    quotient = floor_divide(x, divisor) if floor else x // divisor
    if signed:
        quotient = tl.where(y == -1, 0 - x, quotient)
    return tl.where(y == 0, quotient * 0, quotient)


@triton.jit
def integer_mod(x, y, floor: tl.constexpr, signed: tl.constexpr):
    """Integer remainder. It is 0 for a divisor of 0 or -1."""
    divisor = tl.where(y == 0, 1, y)
    if signed:
        divisor = tl.where(y == -1, 1, divisor)
    return floor_mod(x, divisor) if floor else x % divisor


@triton.jit
def round_half_even(x):
    """The nearest integer; a half is rounded to the even one."""
    below = tl.floor(x)
    odd = below - 2.0 * tl.floor(below * 0.5) == 1.0
    up = (x - below > 0.5) | ((x - below == 0.5) & odd)
    return tl.where(up, tl.ceil(x), below)  # -0.3 gives -0


@triton.jit
def truncate(x):
    """x rounded towards zero."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def to_integer(x, dtype: tl.constexpr, low: tl.constexpr, high: tl.constexpr):
    """A float as an integer: truncated, clamped to the range; NaN gives 0."""
    beyond = high + 1.0
    result = tl.where((x >= low * 1.0) & (x < beyond), x, 0.0).to(dtype)
    return tl.where(x >= beyond, high, tl.where(x < low, low, result))


@triton.jit
def to_low_bits(x, dtype: tl.constexpr, wide: tl.constexpr, limit: tl.constexpr):
    """A float as an integer: the low bits of its integer part in a wide type. A value out of that type's range, or
    NaN, gives the least integer of it."""
    return tl.where((x >= -limit) & (x < limit), x, -limit).to(wide).to(dtype)


@triton.jit
def philox_word(seed, index, stream: tl.constexpr, word: tl.constexpr):
    """A word of 32 random bits: Philox4x32-10 of the key `seed` and the counter (index, stream)."""
    counter = index.to(tl.int64)
    low = counter.to(tl.uint32)
    zero = low * 0
    words = tl.philox(seed.to(tl.int64), low, (counter >> 32).to(tl.uint32), zero + stream, zero)
    return words[word]


@triton.jit
def max_or_nan(x, axis: tl.constexpr, keep_dims: tl.constexpr):
    """The greatest element, or NaN if any element is NaN: tl.max ignores NaN."""
    nan = tl.max((x != x).to(tl.int32), axis=axis, keep_dims=keep_dims)
    return tl.where(nan != 0, float("nan"), tl.max(x, axis=axis, keep_dims=keep_dims))


@triton.jit
def min_or_nan(x, axis: tl.constexpr, keep_dims: tl.constexpr):
    """The least element, or NaN if any element is NaN: tl.min ignores NaN."""
    nan = tl.max((x != x).to(tl.int32), axis=axis, keep_dims=keep_dims)
    return tl.where(nan != 0, float("nan"), tl.min(x, axis=axis, keep_dims=keep_dims))


@triton.jit
def multiply(x, y):
    return x * y


@triton.jit
def larger(x, y):
    """The greater one, or NaN if either is NaN."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(x, y):
    """The lesser one, or NaN if either is NaN."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def log1p(x):
    """log(1 + x), accurate for small x (Kahan's correction)."""
    sum = 1.0 + x
    return tl.where((sum == 1.0) | (sum == float("inf")), x + 0.0 * x, tl.log(sum) * (x / (sum - 1.0)))


@triton.jit
def log_sum_exp(x, y):
    """The logarithm of exp(x) + exp(y), or NaN if either is NaN."""
    apart = tl.where(x == y, 0.0, tl.abs(x - y))  # two infinities are no distance apart
    return larger(x, y) + log1p(tl.exp(-apart))


@triton.jit
def sum_before(x, x_last, y, y_last):
    """The sum of a run but its last element, and that element, where one run follows another."""
    return x + x_last + y, y_last


@triton.jit
def prod_before(x, x_last, y, y_last):
    """The product of a run but its last element, and that element, where one run follows another."""
    return x * x_last * y, y_last


@triton.jit
def max_before(x, x_last, y, y_last):
    """The maximum of a run but its last element, and that element, where one run follows another."""
    return larger(larger(x, x_last), y), y_last


@triton.jit
def min_before(x, x_last, y, y_last):
    """The minimum of a run but its last element, and that element, where one run follows another."""
    return smaller(smaller(x, x_last), y), y_last


@triton.jit
def log_sum_exp_before(x, x_last, y, y_last):
    """The logarithm of the sum of a run but its last element, and that element, where one run follows another."""
    return log_sum_exp(log_sum_exp(x, x_last), y), y_last


@triton.jit
def last_lane(x, integer: tl.constexpr, reverse: tl.constexpr):
    """The element at the last lane of each row, or at the first: the sum of its bits and of zeros."""
    axis: tl.constexpr = len(x.shape) - 1
    lane: tl.constexpr = 0 if reverse else x.shape[axis] - 1
    bits = tl.where(tl.arange(0, x.shape[axis]) == lane, x.to(integer, bitcast=True), 0)
    return tl.sum(bits, axis=axis, keep_dims=True).to(integer).to(x.dtype, bitcast=True)


@triton.jit
def power(x, y):
    """x to the power of y, with the special cases of C99 (annex F)."""
    x, y = tl.broadcast(x, y)
    size = tl.abs(x)
    whole = tl.floor(y) == y
    odd = whole & (y - 2.0 * tl.floor(y * 0.5) == 1.0)
    result = tl.exp2(y * tl.log2(size))
    result = tl.where(size == 1.0, tl.where(y != y, y, 1.0), result)
    result = tl.where((x < 0) & odd, result * -1.0, result)
    result = tl.where((x == 0) & odd, tl.where(y < 0, 1.0 / x, x), result)
    result = tl.where((x < 0) & (tl.abs(x) != float("inf")) & (whole == 0), float("nan"), result)
    return tl.where((y == 0) | (x == 1.0), 1.0, result)


@triton.jit
def power_half(x):
    """x to the power of 1/2: inf for -inf and 0 for -0, unlike the square root."""
    return tl.where(x == float("-inf"), float("inf"), tl.sqrt(x) + 0.0)


@triton.jit
def tanh(x):
    size = tl.abs(x)
    square = x * x
    small = -5.70498872745e-3 * square + 2.06390887954e-2
    small = small * square - 5.37397155531e-2
    small = small * square + 1.33314422036e-1
    small = small * square - 3.33332819422e-1
    large = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    small = tl.where(x == 0, x, small * square * x + x)  # the sum is 0 for -0
    return tl.where(size < 0.625, small, tl.where(x < 0, -large, large))


@triton.jit
def sinh(x):
    size = tl.abs(x)
    square = x * x
    small = (square * (1.0 / 362880.0) + 1.0 / 5040.0) * square + 1.0 / 120.0
    small = (small * square + 1.0 / 6.0) * square * x + x
    half = tl.exp(size - 0.6931471805599453)
    large = half - 0.25 / half
    return tl.where(size < 1.0, small, tl.where(x < 0, -large, large))


@triton.jit
def cosh(x):
    half = tl.exp(tl.abs(x) - 0.6931471805599453)
    return half + 0.25 / half


@triton.jit
def asinh(x):
    size = tl.abs(x)
    near = tl.where(size < 1e9, size, 0.0)
    result = log1p(near + near * near / (1.0 + tl.sqrt(near * near + 1.0)))
    result = tl.where(size < 1e9, result, tl.log(size) + 0.6931471805599453)
    return tl.where(x < 0, -result, tl.where(x == 0, x, result))


@triton.jit
def acosh(x):
    near = tl.where(x < 1e9, x - 1.0, 0.0)
    result = log1p(near + tl.sqrt(near * (near + 2.0)))
    result = tl.where(x < 1e9, result, tl.log(x) + 0.6931471805599453)
    return tl.where(x >= 1.0, result, float("nan"))


@triton.jit
def atanh(x):
    size = tl.abs(x)
    result = 0.5 * tl.where(size == 1.0, float("inf"), log1p(2.0 * size / (1.0 - size)))
    return tl.where(x < 0, -result, tl.where(x == 0, x, result))


@triton.jit
def atan(x):
    size = tl.abs(x)
    reduced = tl.where(size > 0.4142135623730950, (size - 1.0) / (size + 1.0), size)
    reduced = tl.where(size > 2.414213562373095, -1.0 / size, reduced)
    base = tl.where(size > 0.4142135623730950, 0.7853981633974483, 0.0)
    base = tl.where(size > 2.414213562373095, 1.5707963267948966, base)
    square = reduced * reduced
    series = 8.05374449538e-2 * square - 1.38776856032e-1
    series = series * square + 1.99777106478e-1
    series = series * square - 3.33329491539e-1
    result = base + (series * square * reduced + reduced)
    return tl.where(x < 0, -result, tl.where(x == 0, x, result))


@triton.jit
def asin_series(x, square):
    """asin for |x| up to 1/2."""
    series = 4.2163199048e-2 * square + 2.4181311049e-2
    series = series * square + 4.5470025998e-2
    series = series * square + 7.4953002686e-2
    series = series * square + 1.6666752422e-1
    return series * square * x + x


@triton.jit
def asin(x):
    size = tl.abs(x)
    half = 0.5 * (1.0 - size)
    outer = 1.5707963267948966 - 2.0 * asin_series(tl.sqrt(half), half)
    result = tl.where(size > 0.5, outer, asin_series(size, size * size))
    return tl.where(x < 0, -result, tl.where(x == 0, x, result))


@triton.jit
def acos(x):
    size = tl.abs(x)
    half = 0.5 * (1.0 - size)
    outer = 2.0 * asin_series(tl.sqrt(half), half)
    outer = tl.where(x < 0, 3.141592653589793 - outer, outer)
    return tl.where(size > 0.5, outer, 1.5707963267948966 - asin_series(x, x * x))


@triton.jit
def square_from_mean(x, total, count):
    """What x adds to the squared distances of `count` numbers from their mean, where x is the last of them and they add
    up to `total` (Welford)."""
    count = tl.cast(count, x.dtype)
    distance = x - total * (1.0 / count)
    return distance * distance * (count / tl.maximum(count - 1.0, 1.0))


@triton.jit
def squares_from(squares, total, count, mean):
    """The squared distances from `mean` of `count` numbers that add up to `total`, and whose squared distances from
    their own mean add up to `squares` (Chan)."""
    distance = total / tl.maximum(count, 1) - mean
    return tl.where(count > 0, squares + count * distance * distance, 0.0)


@triton.jit
def from_float8(x, dtype: tl.constexpr):
    """The numbers of 8 bits that bytes stand for, in f32. Not all devices have an instruction for that."""
    bits = x.to(tl.int32)
    if dtype == tl.float8e5:  # the upper half of a float16
        result = (bits << 8).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:  # the exponent of a float32 less the difference of the biases; a subnormal stays one, until it is multiplied
        shift: tl.constexpr = 21 if dtype == tl.float8e5b16 else 20
        scale: tl.constexpr = 2.0**120 if dtype == tl.float8e4nv else 2.0**119 if dtype == tl.float8e4b8 else 2.0**111
        result = ((bits & 128) << 24 | (bits & 127) << shift).to(tl.float32, bitcast=True) * scale
        nan = (bits & 127) == 127 if dtype == tl.float8e4nv else bits == 128
        result = tl.where(nan, float("nan"), result)
    return result


@triton.jit
def dot_float8(x, y, total, dtype: tl.constexpr, FLOAT8: tl.constexpr):
    """total + x @ y of bytes that stand for numbers of 8 bits: multiplied as bfloat16, which holds each (0), or by
    instructions for them that add up in 32 bits (1) or in fewer (2), so that their sums are added to the total."""
    if FLOAT8 == 0:
        first, second = from_float8(x, dtype).to(tl.bfloat16), from_float8(y, dtype).to(tl.bfloat16)
        total = tl.dot(first, second, total)
    elif FLOAT8 == 1:
        total = tl.dot(x.to(dtype, bitcast=True), y.to(dtype, bitcast=True), total)
    else:
        first, second = x.to(dtype, bitcast=True), y.to(dtype, bitcast=True)
        total += tl.dot(first, second, max_num_imprecise_acc=x.shape[1])
    return total
