"""Rows of special functions: gamma, zeta, Bessel, and the inverse of the error function.

All are computed in f64, whose errors are at most 1e-13 of the result (of `lgamma` and `digamma`, of 1 where the result
is smaller), and rounded once. Sources: the series that are named below, and ATen for the values at the edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from irc import ops
from irc.dtypes import F64
from irc.frontends.torch import coefficients
from irc.frontends.torch.reading import converted, floating, promoted, result_dtype
from irc.frontends.torch.special import ERFC_F64, complement, polynomial
from irc.frontends.torch.table import reads
from irc.ir import Value

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)  # B_2, B_4, ...


def in_f64(function: Callable[..., Value]) -> Callable[[Value], Value]:
    """A row of a function of one tensor, which is computed in f64."""
    return lambda self: converted(function(converted(self, F64)), floating(self))


def chebyshev(x: Value, low: float, high: float, series: Sequence[float]) -> Value:
    """A series on [low, high], by Clenshaw's recurrence; x outside is taken for the nearer end."""
    x = ops.minimum(ops.maximum(x, low), high)
    place = ops.mul(ops.sub(x, (low + high) / 2), 2 / (high - low))
    twice = ops.mul(place, 2.0)
    last, before = ops.mul(place, 0.0), ops.mul(place, 0.0)
    for coefficient in reversed(series[1:]):
        last, before = ops.add(ops.sub(ops.mul(twice, last), before), coefficient), last
    return ops.add(ops.sub(ops.mul(place, last), before), series[0])


def log_of_one_plus(x: Value) -> Value:
    """log(1 + x), where backends have no log1p of f64: what 1 + x rounds away is in the quotient (Kahan)."""
    whole = ops.add(x, 1.0)
    away = ops.sub(whole, 1.0)
    is_lost = ops.equal(away, 0.0)
    result = ops.mul(ops.log(whole), ops.div(x, ops.select(is_lost, 1.0, away)))
    return ops.select(is_lost, x, ops.select(ops.equal(whole, 0.0), -math.inf, result))


# -- the inverse of the error function --------------------------------------------------------------------------------


def quantile(x: Value, w: Value) -> Value:
    """The y with erf(y) = x, where w is -log(1 - x * x)."""
    root = ops.sqrt(w)
    result = chebyshev(w, 0.0, 6.25, coefficients.QUANTILE_NEAR)
    for (low, high), series in coefficients.QUANTILE_FAR:
        result = ops.select(ops.greater(root, low), chebyshev(root, low, high, series), result)
    result = ops.mul(result, x)
    return ops.select(ops.is_inf(w), ops.mul(x, math.inf), result)


@reads("erfinv")
def erfinv(self):
    def function(x: Value) -> Value:
        return quantile(x, ops.neg(log_of_one_plus(ops.neg(ops.mul(x, x)))))

    def near_one(x: Value) -> Value:
        """The logarithm by its factors, whose difference from 0 is exact."""
        size = ops.abs_(x)
        return quantile(x, ops.neg(ops.add(ops.log(ops.sub(1.0, size)), log_of_one_plus(size))))

    return in_f64(lambda x: ops.select(ops.less(ops.abs_(x), 0.5), function(x), near_one(x)))(self)


@reads("special_ndtri")
def normal_quantile(self):
    """The y below which a normal variable is with this probability."""
    def function(p: Value) -> Value:
        x = ops.sub(ops.mul(p, 2.0), 1.0)
        w = ops.neg(ops.add(ops.log(ops.mul(p, 4.0)), log_of_one_plus(ops.neg(p))))
        return ops.mul(quantile(x, ops.maximum(w, 0.0)), math.sqrt(2))

    return in_f64(function)(self)


@reads("special_erfcx")
def scaled_complement(self):
    """exp(x * x) * erfc(x), without the exponential where x is positive."""
    middle, series = ERFC_F64

    def function(x: Value) -> Value:
        size = ops.abs_(x)
        place = ops.div(ops.sub(size, middle), ops.add(size, middle))
        place = ops.select(ops.is_inf(size), 1.0, place)
        positive = ops.div(polynomial(place, series), ops.add(ops.mul(size, 2.0), 1.0))
        low = ops.minimum(x, 0.0)
        negative = ops.mul(ops.exp(ops.mul(low, low)), complement(low))
        return ops.select(ops.less(x, 0.0), negative, positive)

    return in_f64(function)(self)


# -- gamma ------------------------------------------------------------------------------------------------------------

# Lanczos's series with g = 607 / 128 (Godfrey's coefficients, as in Numerical Recipes, third edition, 6.1).
LANCZOS = (
    0.99999999999999709182, 57.156235665862923517, -59.597960355475491248, 14.136097974741747174,
    -0.49191381609762019978, 0.33994649984811888699e-4, 0.46523628927048575665e-4, -0.98374475304879564677e-4,
    0.15808870322491248884e-3, -0.21026444172410488319e-3, 0.21743961811521264320e-3, -0.16431810653676389022e-3,
    0.84418223983852743293e-4, -0.26190838401581408670e-4, 0.36899182659531622704e-5,
)  # fmt: skip
LANCZOS_SHIFT = 607 / 128


def log_gamma(x: Value) -> Value:
    """log(abs(gamma(x))): of x below 1/2 by reflection, and infinite where gamma has a pole."""
    is_low = ops.less(x, 0.5)
    y = ops.select(is_low, ops.sub(1.0, x), x)
    y = ops.select(ops.is_inf(y), 1.0, y)
    total = ops.add(ops.mul(y, 0.0), LANCZOS[0])
    for index, coefficient in enumerate(LANCZOS[1:]):
        total = ops.add(total, ops.div(coefficient, ops.add(y, float(index))))
    base = ops.add(y, LANCZOS_SHIFT - 0.5)
    result = ops.sub(ops.mul(ops.sub(y, 0.5), ops.log(base)), base)
    result = ops.add(result, ops.log(ops.mul(total, math.sqrt(2 * math.pi))))
    sine = ops.abs_(ops.sin(ops.mul(ops.sub(x, ops.round_(x)), math.pi)))
    mirrored = ops.sub(ops.sub(math.log(math.pi), ops.log(sine)), result)  # pi / sine may overflow
    result = ops.select(is_low, mirrored, result)
    is_pole = ops.bitwise_and(is_low, ops.equal(sine, 0.0))
    return ops.select(ops.bitwise_or(is_pole, ops.is_inf(x)), math.inf, result)


def digamma_of(x: Value) -> Value:
    """The derivative of log_gamma: ten steps of its recurrence, then its asymptotic series; below 0 by reflection."""
    is_low = ops.less(x, 0.5)
    y = ops.select(is_low, ops.sub(1.0, x), x)
    steps = ops.mul(y, 0.0)
    for step in range(10):
        steps = ops.add(steps, ops.div(1.0, ops.add(y, float(step))))
    far = ops.add(y, 10.0)
    inverse = ops.div(1.0, ops.mul(far, far))
    series = polynomial(inverse, [number / (2 * index + 2) for index, number in enumerate(BERNOULLI)])
    result = ops.sub(ops.log(far), ops.add(ops.div(0.5, far), ops.mul(inverse, series)))
    result = ops.sub(result, ops.select(ops.is_inf(y), 0.0, steps))
    angle = ops.mul(ops.sub(x, ops.round_(x)), math.pi)
    mirrored = ops.sub(result, ops.div(ops.mul(ops.cos(angle), math.pi), ops.sin(angle)))
    result = ops.select(is_low, mirrored, result)
    is_pole = ops.bitwise_and(is_low, ops.equal(x, ops.floor(x)))
    result = ops.select(is_pole, math.nan, result)
    return ops.select(ops.equal(x, 0.0), ops.div(-1.0, x), result)


LOG_GAMMA = reads("lgamma")(in_f64(log_gamma))
DIGAMMA = reads("digamma")(in_f64(digamma_of))


@reads("polygamma")
def polygamma(n, self):
    """The n-th derivative of digamma: (-1) ** (n + 1) * n! * zeta(n + 1, x)."""
    if n == 0:
        return DIGAMMA.function(self)
    factor = (math.factorial(n) if n <= 170 else math.inf) * (1.0 if n % 2 else -1.0)
    return in_f64(lambda x: ops.mul(zeta_of(ops.add(ops.mul(x, 0.0), float(n + 1)), x), factor))(self)


@reads("special_zeta", "special_zeta.other_scalar", "special_zeta.self_scalar")
def zeta(self, other):
    dtype = promoted(self, other)
    dtype = dtype if dtype.is_float else result_dtype()
    return converted(zeta_of(converted(self, F64), converted(other, F64)), dtype)


def zeta_of(s: Value, q: Value) -> Value:
    """Hurwitz's zeta, the sum of (q + k) ** -s over k >= 0. Below 0, where s must be whole, the terms are those of f,
    the part of q after the point, and of as many before it, by (-1) ** s: the zetas of f, of 1 - f and of 1 - q."""
    is_low = ops.less(q, 0.0)
    part = ops.sub(q, ops.floor(q))
    lower = ops.sub(positive_zeta(s, ops.sub(1.0, part)), positive_zeta(s, ops.sub(1.0, q)))
    is_odd = ops.not_equal(ops.mod(s, 2.0, rounding="floor"), 0.0)
    below = ops.add(positive_zeta(s, part), ops.select(is_odd, ops.neg(lower), lower))
    below = ops.select(ops.equal(s, ops.floor(s)), below, math.nan)
    is_pole = ops.bitwise_or(ops.equal(part, 0.0), ops.is_inf(q))
    below = ops.select(is_pole, math.inf, below)
    result = ops.select(is_low, below, ops.select(ops.is_inf(q), 0.0, positive_zeta(s, q)))
    result = ops.select(ops.equal(q, 0.0), math.inf, result)
    result = ops.select(ops.less(s, 1.0), math.nan, result)
    at_infinity = ops.select(ops.equal(q, 1.0), 1.0, ops.select(ops.less(q, 1.0), math.inf, result))
    return ops.select(ops.equal(s, 1.0), math.inf, ops.select(ops.equal(s, math.inf), at_infinity, result))


def positive_zeta(s: Value, q: Value) -> Value:
    """Ten terms, and the sum of the others by Euler and Maclaurin."""
    total = ops.mul(q, 0.0)
    for step in range(10):
        total = ops.add(total, ops.pow_(ops.add(q, float(step)), ops.neg(s)))
    far = ops.add(q, 10.0)
    power = ops.pow_(far, ops.neg(s))
    total = ops.add(total, ops.mul(power, ops.add(ops.div(far, ops.sub(s, 1.0)), 0.5)))
    term, inverse = ops.div(ops.mul(power, s), far), ops.div(1.0, ops.mul(far, far))
    for index, number in enumerate(BERNOULLI):
        total = ops.add(total, ops.mul(term, number / math.factorial(2 * index + 2)))
        following = ops.mul(ops.add(s, 2.0 * index + 1), ops.add(s, 2.0 * index + 2))
        term = ops.mul(ops.mul(term, following), inverse)
    return total


# -- modified Bessel functions ----------------------------------------------------------------------------------------


def scaled_first(order: int) -> Callable[[Value], Value]:
    """The function of the first kind times exp(-abs(x))."""
    near, far = ((coefficients.I0_NEAR, coefficients.I0_FAR), (coefficients.I1_NEAR, coefficients.I1_FAR))[order]

    def function(x: Value) -> Value:
        size = ops.abs_(x)
        low = chebyshev(size, 0.0, 8.0, near)
        high = ops.div(chebyshev(ops.div(1.0, ops.maximum(size, 8.0)), 0.0, 0.125, far), ops.sqrt(size))
        if order == 0:
            return ops.select(ops.greater(size, 8.0), high, low)
        return ops.select(ops.greater(size, 8.0), ops.mul(high, ops.sign(x)), ops.mul(low, x))

    return function


def first(order: int) -> Callable[[Value], Value]:
    def function(x: Value) -> Value:
        half = ops.exp(ops.mul(ops.abs_(x), 0.5))  # the whole might overflow where the product does not
        return ops.mul(ops.mul(half, scaled_first(order)(x)), half)

    return function


def second(order: int, scaled: bool) -> Callable[[Value], Value]:
    """The function of the second kind, times exp(x) or not: infinite at 0, NaN below it."""
    near, far = ((coefficients.K0_NEAR, coefficients.K0_FAR), (coefficients.K1_NEAR, coefficients.K1_FAR))[order]

    def function(x: Value) -> Value:
        small, large = ops.minimum(x, 2.0), ops.maximum(x, 2.0)
        log = ops.mul(ops.log(ops.mul(small, 0.5)), first(order)(small))
        series = chebyshev(ops.mul(small, small), 0.0, 4.0, near)
        low = ops.sub(series, log) if order == 0 else ops.add(ops.div(series, small), log)
        low = ops.mul(low, ops.exp(small)) if scaled else low
        high = ops.div(chebyshev(ops.div(1.0, large), 0.0, 0.5, far), ops.sqrt(large))
        high = high if scaled else ops.mul(high, ops.exp(ops.neg(large)))
        result = ops.select(ops.greater(x, 2.0), high, low)
        result = ops.select(ops.equal(x, 0.0), math.inf, result)
        return ops.select(ops.less(x, 0.0), math.nan, result)

    return function


BESSEL = [
    reads("i0", "special_modified_bessel_i0")(in_f64(first(0))),
    reads("special_i0e")(in_f64(scaled_first(0))),
    reads("special_i1", "special_modified_bessel_i1")(in_f64(first(1))),
    reads("special_i1e")(in_f64(scaled_first(1))),
    reads("special_modified_bessel_k0")(in_f64(second(0, False))),
    reads("special_modified_bessel_k1")(in_f64(second(1, False))),
    reads("special_scaled_modified_bessel_k0")(in_f64(second(0, True))),
    reads("special_scaled_modified_bessel_k1")(in_f64(second(1, True))),
]


@reads("special_spherical_bessel_j0")
def spherical_bessel(self):
    """sin(x) / x, 1 at 0 and 0 at infinity."""
    def function(x: Value) -> Value:
        is_zero, is_infinite = ops.equal(x, 0.0), ops.is_inf(x)
        divisor = ops.select(is_zero, 1.0, x)
        result = ops.div(ops.sin(ops.select(is_infinite, 0.0, divisor)), divisor)
        return ops.select(is_zero, 1.0, result)

    return in_f64(function)(self)
