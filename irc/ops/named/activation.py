"""Activations and other functions of single elements.

Bodies follow ONNX where it and PyTorch agree, and are written so that no intermediate overflows where the
result does not. Float attributes keep the names of ONNX.
"""

from __future__ import annotations

import math
from typing import Literal

from irc.diagnostics import fail
from irc.interfaces import Pointwise
from irc.ir import Value
from irc.op import Float, Number, Real, op, spelling
from irc.ops.functions import atanh, erf, exp, log, sqrt, tanh
from irc.ops.named.common import convert, fitted, must_fit, same_type, widen
from irc.ops.pointwise import abs_, add, div, greater, less, maximum, minimum, mul, neg, pow_, select, sub
from irc.types import TensorType

SQRT_HALF = math.sqrt(0.5)
SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
TANH_GELU_CUBIC = 0.044715

# -- functions that lose no digits -----------------------------------------------------------------------------


@op(Pointwise(aten="expm1"))
def expm1(x: Float, /) -> Value:
    """exp(x) - 1, exact to the last digits near 0.

    Shapes: x any. Result: x's type.
    Source: torch.expm1.
    Edge cases: -inf gives -1, inf gives inf, -0 gives -0.
    """
    # exp(x) - 1 = tanh(x/2) * (exp(x) + 1): no difference of close numbers, and no 0 * inf.
    wide = widen(x)
    return convert(mul(tanh(mul(wide, 0.5)), add(exp(wide), 1)), x.dtype)


@spelling(expm1)
def _(x):
    wide = widen(x)
    return convert(sub(exp(wide), 1), x.dtype)


@op(Pointwise(aten="log1p"))
def log1p(x: Float, /) -> Value:
    """log(1 + x), exact to the last digits near 0.

    Shapes: x any. Result: x's type.
    Source: torch.log1p.
    Edge cases: -1 gives -inf, less than -1 gives NaN.
    """
    # For small x, log(1 + x) = 2 * atanh(x / (2 + x)).
    wide = widen(x)
    near = mul(atanh(div(wide, add(wide, 2))), 2)
    return convert(select(less(abs_(wide), 0.5), near, log(add(wide, 1))), x.dtype)


@spelling(log1p)
def _(x):
    wide = widen(x)
    return convert(log(add(wide, 1)), x.dtype)


@op(Pointwise(onnx="Reciprocal", aten="reciprocal"))
def reciprocal(x: Float, /) -> Value:
    """1 / x.

    Shapes: x any. Result: x's type.
    Source: ONNX Reciprocal-13; torch.reciprocal.
    Edge cases: 0 gives inf and -0 gives -inf.
    """
    return div(1, x)


@spelling(reciprocal)
def _(x):
    return pow_(x, -1)


@op(Pointwise(aten="rsqrt"))
def rsqrt(x: Float, /) -> Value:
    """1 / sqrt(x).

    Shapes: x any. Result: x's type.
    Source: torch.rsqrt; in ONNX, Reciprocal of Sqrt.
    Edge cases: 0 gives inf, a negative number NaN.
    """
    return convert(div(1, sqrt(widen(x))), x.dtype)


@spelling(rsqrt)
def _(x):
    return convert(pow_(widen(x), -0.5), x.dtype)


@op(Pointwise(aten="square"))
def square(x: Number, /) -> Value:
    """x * x.

    Shapes: x any. Result: x's type; integers wrap around.
    Source: torch.square; in ONNX, Mul or Pow.
    """
    return mul(x, x)


@op(Pointwise())
def clip(x: Real, low: Real | None = None, high: Real | None = None, /) -> Value:
    """x limited to [low, high]; an absent bound does not limit.

    Shapes: low and high broadcast to x (in ONNX they are scalars). Result: x's type.
    Source: ONNX Clip-13; torch.clamp.
    Edge cases: NaN stays NaN; where low > high the result is high.
    """
    if low is None and high is None:
        raise fail("type.operands", "neither low nor high is given", expected="at least one bound")
    limited = x if low is None else maximum(x, fitted(low, x.shape))
    return limited if high is None else minimum(limited, fitted(high, x.shape))


@clip.types
def _(x: TensorType, low: TensorType | None = None, high: TensorType | None = None) -> TensorType:
    if low is None and high is None:
        raise fail("type.operands", "neither low nor high is given", expected="at least one bound")
    for name, bound in (("low", low), ("high", high)):
        if bound is not None:
            if bound.dtype is not x.dtype:
                raise fail("type.dtype", f"{name} is {bound}, x is {x}", expected=str(x.dtype))
            must_fit(name, bound, x)
    return x


# -- the family of relu ----------------------------------------------------------------------------------------


@op(Pointwise(onnx="Relu"))
def relu(x: Real, /) -> Value:
    """max(x, 0).

    Shapes: x any. Result: x's type.
    Source: ONNX Relu-14; torch.nn.functional.relu.
    Edge cases: NaN stays NaN.
    """
    return maximum(x, 0)


@op(Pointwise(onnx="LeakyRelu"))
def leaky_relu(x: Float, /, *, alpha: float = 0.01) -> Value:
    """x where x >= 0, else alpha * x.

    Shapes: x any. Result: x's type.
    Attributes: alpha, the slope of the negative side.
    Source: ONNX LeakyRelu-16; torch.nn.functional.leaky_relu.
    """
    wide = widen(x)
    return convert(select(less(wide, 0), mul(wide, alpha), wide), x.dtype)


@op(Pointwise(onnx="PRelu"))
def prelu(x: Real, slope: Real, /) -> Value:
    """x where x >= 0, else slope * x.

    Shapes: slope broadcasts to x from the right (PyTorch's [C] is [C, 1, 1] here). Result: x's type.
    Source: ONNX PRelu-16; torch.nn.functional.prelu.
    """
    return select(less(x, 0), mul(x, fitted(slope, x.shape)), x)


@prelu.types
def _(x: TensorType, slope: TensorType) -> TensorType:
    if slope.dtype is not x.dtype:
        raise fail("type.dtype", f"slope is {slope}, x is {x}", expected=str(x.dtype))
    must_fit("slope", slope, x)
    return x


@op(Pointwise(onnx="ThresholdedRelu"))
def thresholded_relu(x: Float, /, *, alpha: float = 1.0) -> Value:
    """x where x > alpha, else 0.

    Shapes: x any. Result: x's type.
    Attributes: alpha, the threshold.
    Source: ONNX ThresholdedRelu-22; torch.nn.functional.threshold with value 0.
    Edge cases: NaN gives 0 (PyTorch keeps NaN).
    """
    return select(greater(widen(x), alpha), x, 0)


@op(Pointwise(onnx="Elu"))
def elu(x: Float, /, *, alpha: float = 1.0) -> Value:
    """x where x > 0, else alpha * (exp(x) - 1).

    Shapes: x any. Result: x's type.
    Attributes: alpha, minus the limit at -inf.
    Source: ONNX Elu-22; torch.nn.functional.elu.
    """
    wide = widen(x)
    return convert(select(greater(wide, 0), wide, mul(expm1(wide), alpha)), x.dtype)


@spelling(elu)
def _(x, alpha):
    wide = widen(x)
    return convert(select(greater(wide, 0), wide, mul(sub(exp(wide), 1), alpha)), x.dtype)


@op(Pointwise(onnx="Selu"))
def selu(x: Float, /, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Value:
    """gamma * x where x > 0, else gamma * alpha * (exp(x) - 1).

    Shapes: x any. Result: x's type.
    Attributes: alpha and gamma, the constants that keep mean 0 and variance 1 through layers.
    Source: ONNX Selu-22; torch.nn.functional.selu.
    """
    wide = widen(x)
    return convert(mul(select(greater(wide, 0), wide, mul(expm1(wide), alpha)), gamma), x.dtype)


@op(Pointwise(onnx="Celu"))
def celu(x: Float, /, *, alpha: float = 1.0) -> Value:
    """x where x > 0, else alpha * (exp(x / alpha) - 1).

    Shapes: x any. Result: x's type.
    Attributes: alpha, minus the limit at -inf; not 0.
    Source: ONNX Celu-12; torch.nn.functional.celu.
    """
    if alpha == 0:
        raise fail("type.attribute", "alpha is 0", expected="alpha != 0")
    wide = widen(x)
    return convert(select(greater(wide, 0), wide, mul(expm1(div(wide, alpha)), alpha)), x.dtype)


# -- the family of sigmoid -------------------------------------------------------------------------------------


@op(Pointwise(onnx="Sigmoid", aten="sigmoid"))
def sigmoid(x: Float, /) -> Value:
    """1 / (1 + exp(-x)).

    Shapes: x any. Result: x's type.
    Source: ONNX Sigmoid-13; torch.sigmoid.
    Edge cases: -inf gives 0 (through 1 / inf), inf gives 1.
    """
    wide = widen(x)
    return convert(div(1, add(exp(neg(wide)), 1)), x.dtype)


@spelling(sigmoid)
def _(x):
    wide = widen(x)
    grown = exp(wide)
    return convert(div(grown, add(grown, 1)), x.dtype)


@spelling(sigmoid)
def _(x):
    wide = widen(x)
    return convert(mul(add(tanh(mul(wide, 0.5)), 1), 0.5), x.dtype)


@op(Pointwise())
def silu(x: Float, /) -> Value:
    """x * sigmoid(x), also called swish.

    Shapes: x any. Result: x's type.
    Source: ONNX Swish-24 with alpha 1; torch.nn.functional.silu.
    Edge cases: -inf gives NaN, as -inf * 0 does.
    """
    wide = widen(x)
    return convert(mul(wide, sigmoid(wide)), x.dtype)


@spelling(silu)
def _(x):
    return mul(x, sigmoid(x))


@spelling(silu)
def _(x):
    wide = widen(x)
    return convert(div(wide, add(exp(neg(wide)), 1)), x.dtype)


@op(Pointwise())
def quick_gelu(x: Float, /, *, alpha: float = 1.702) -> Value:
    """x * sigmoid(alpha * x).

    Shapes: x any. Result: x's type.
    Attributes: alpha; 1.702 comes closest to gelu.
    Source: ONNX Swish-24; com.microsoft QuickGelu-1; OpenAI's CLIP.
    Edge cases: -inf gives NaN, as -inf * 0 does.
    """
    wide = widen(x)
    return convert(mul(wide, sigmoid(mul(wide, alpha))), x.dtype)


@spelling(quick_gelu)
def _(x, alpha):
    return mul(x, sigmoid(mul(x, alpha)))


@op(Pointwise(onnx="HardSigmoid"))
def hard_sigmoid(x: Float, /, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """alpha * x + beta, limited to [0, 1].

    Shapes: x any. Result: x's type.
    Attributes: alpha, the slope, and beta, the value at 0. PyTorch has 1/6 and 0.5.
    Source: ONNX HardSigmoid-22; torch.nn.functional.hardsigmoid.
    """
    wide = widen(x)
    return convert(maximum(minimum(add(mul(wide, alpha), beta), 1), 0), x.dtype)


@spelling(hard_sigmoid)
def _(x, alpha, beta):
    # PyTorch's: relu6(x + 3) / 6, for any rising slope; for others it is another function.
    if alpha <= 0:
        return hard_sigmoid(x, alpha=alpha, beta=beta)
    wide = widen(x)
    return convert(mul(minimum(maximum(add(wide, beta / alpha), 0), 1 / alpha), alpha), x.dtype)


@op(Pointwise())
def hard_swish(x: Float, /, *, division: Literal["first", "last"] = "first") -> Value:
    """x * (x / 6 + 1/2, limited to [0, 1]).

    Shapes: x any. Result: x's type.
    Attributes: division: "last" is x * (x + 3, limited to [0, 6]) / 6, whose product overflows above a sixth of the
    largest number.
    Source: ONNX HardSwish-22 ("first"); torch.nn.functional.hardswish ("last").
    Edge cases: -inf gives NaN, as -inf * 0 does.
    """
    wide = widen(x)
    if division == "last":
        return convert(div(mul(wide, clip(add(wide, 3), 0, 6)), 6), x.dtype)
    return convert(mul(wide, hard_sigmoid(wide, alpha=1 / 6, beta=0.5)), x.dtype)


@op(Pointwise(onnx="Softplus"))
def softplus(x: Float, /) -> Value:
    """log(1 + exp(x)).

    Shapes: x any. Result: x's type.
    Source: ONNX Softplus-22; torch.nn.functional.softplus with beta 1.
    Edge cases: no overflow for large x; a very negative x gives exp(x), not 0.
    """
    wide = widen(x)
    return convert(add(log1p(exp(neg(abs_(wide)))), maximum(wide, 0)), x.dtype)


@spelling(softplus)
def _(x):
    wide = widen(x)
    return convert(log(add(exp(wide), 1)), x.dtype)


@op(Pointwise(onnx="Softsign"))
def softsign(x: Float, /) -> Value:
    """x / (1 + |x|).

    Shapes: x any. Result: x's type.
    Source: ONNX Softsign-22; torch.nn.functional.softsign.
    Edge cases: inf gives NaN, as inf / inf does.
    """
    wide = widen(x)
    return convert(div(wide, add(abs_(wide), 1)), x.dtype)


@op(Pointwise(onnx="Mish"))
def mish(x: Float, /) -> Value:
    """x * tanh(softplus(x)).

    Shapes: x any. Result: x's type.
    Source: ONNX Mish-22; torch.nn.functional.mish.
    Edge cases: -inf gives NaN, as -inf * 0 does.
    """
    wide = widen(x)
    return convert(mul(wide, tanh(softplus(wide))), x.dtype)


@spelling(mish)
def _(x):
    wide = widen(x)
    return convert(mul(wide, tanh(log(add(exp(wide), 1)))), x.dtype)


# -- gelu ------------------------------------------------------------------------------------------------------


@op(Pointwise())
def gelu(x: Float, /, *, approximate: Literal["none", "tanh"] = "none") -> Value:
    """x times the normal distribution's cumulative probability at x.

    Shapes: x any. Result: x's type.
    Attributes: approximate: "none" uses erf; "tanh" the approximation of the paper.
    Source: ONNX Gelu-20; torch.nn.functional.gelu.
    Edge cases: -inf gives NaN, as -inf * 0 does.
    """
    wide = widen(x)
    if approximate == "none":
        curve = erf(mul(wide, SQRT_HALF))
    else:
        cube = mul(mul(wide, wide), wide)
        curve = tanh(mul(add(wide, mul(cube, TANH_GELU_CUBIC)), SQRT_TWO_OVER_PI))
    return convert(mul(mul(wide, 0.5), add(curve, 1)), x.dtype)


@spelling(gelu)
def _(x, approximate):
    # With the factor x of the cubic taken out: x * sqrt(2/pi) * (1 + 0.044715 x²).
    wide = widen(x)
    if approximate == "none":
        curve = erf(div(wide, math.sqrt(2)))
    else:
        inner = add(mul(mul(wide, wide), TANH_GELU_CUBIC), 1)
        curve = tanh(mul(mul(wide, SQRT_TWO_OVER_PI), inner))
    return convert(mul(mul(wide, add(curve, 1)), 0.5), x.dtype)


@spelling(gelu)
def _(x, approximate):
    # As exporters write it: pow for the cube, and the half before the product.
    wide = widen(x)
    if approximate == "none":
        half = mul(add(erf(div(wide, math.sqrt(2))), 1), 0.5)
    else:
        cubic = add(wide, mul(pow_(wide, 3), TANH_GELU_CUBIC))
        half = mul(add(tanh(mul(cubic, SQRT_TWO_OVER_PI)), 1), 0.5)
    return convert(mul(wide, half), x.dtype)


@spelling(gelu)
def _(x, approximate):
    # tanh written as a sigmoid: 1 + tanh(y) = 2 * sigmoid(2y); and the cumulative probability of -x.
    wide = widen(x)
    if approximate == "none":
        return convert(sub(wide, mul(mul(wide, 0.5), sub(1, erf(mul(wide, SQRT_HALF))))), x.dtype)
    cubic = add(wide, mul(mul(mul(wide, wide), wide), TANH_GELU_CUBIC))
    return convert(mul(wide, sigmoid(mul(cubic, 2 * SQRT_TWO_OVER_PI))), x.dtype)


@celu.types
def _(x: TensorType, *, alpha: float) -> TensorType:
    if alpha == 0:
        raise fail("type.attribute", "alpha is 0", expected="alpha != 0")
    return x


for _definition in (
    expm1, log1p, reciprocal, rsqrt, square, relu, leaky_relu, thresholded_relu, elu, selu, sigmoid, silu,
    quick_gelu, hard_sigmoid, hard_swish, softplus, softsign, mish, gelu,
):  # fmt: skip
    _definition.types(same_type)
