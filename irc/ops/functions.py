"""Pointwise primitives of real numbers: rounding, roots, exponentials, angles.

Floats narrower than 32 bits are computed in f32 and rounded once, as in irc/ops/pointwise.py. NaN gives NaN.
"""

from __future__ import annotations

import math

import numpy as np

from irc.interfaces import Pointwise, Trait
from irc.op import FloatOrComplexType, FloatType, primitive
from irc.ops.numerics import Array, narrow, rounded, widen
from irc.types import TensorType

# -- rounding --------------------------------------------------------------------------------------------------


@primitive(Pointwise(onnx="Floor", aten="floor"), Trait.DISCONTINUOUS)
def floor(x: FloatType, /) -> TensorType:
    """The greatest integer that is at most x.

    Shapes: x any. Result: x's type.
    Source: ONNX Floor; NumPy floor; ATen floor.
    Edge cases: infinities, NaN and -0.0 are unchanged.
    """
    return x


floor.reference(rounded(np.floor))


@primitive(Pointwise(onnx="Ceil", aten="ceil"), Trait.DISCONTINUOUS)
def ceil(x: FloatType, /) -> TensorType:
    """The least integer that is at least x.

    Shapes: x any. Result: x's type.
    Source: ONNX Ceil; NumPy ceil; ATen ceil.
    Edge cases: infinities, NaN and -0.0 are unchanged; ceil(-0.5) is -0.0.
    """
    return x


ceil.reference(rounded(np.ceil))


@primitive(Pointwise(onnx="Round", aten="round"), Trait.DISCONTINUOUS)
def round_(x: FloatType, /) -> TensorType:
    """The nearest integer; a half is rounded to the even one.

    Shapes: x any. Result: x's type.
    Source: ONNX Round; NumPy rint; ATen round.
    Edge cases: 0.5 gives 0, 1.5 and 2.5 give 2, -0.5 gives -0.0; infinities and NaN are unchanged.
    """
    return x


round_.reference(rounded(np.rint))


@primitive(Pointwise(aten="trunc"), Trait.DISCONTINUOUS)
def trunc(x: FloatType, /) -> TensorType:
    """x rounded towards zero.

    Shapes: x any. Result: x's type.
    Source: NumPy trunc; ATen trunc.
    Edge cases: infinities, NaN and -0.0 are unchanged; trunc(-0.5) is -0.0.
    """
    return x


trunc.reference(rounded(np.trunc))


# -- functions -------------------------------------------------------------------------------------------------


@primitive(Pointwise(onnx="Sqrt", aten="sqrt"))
def sqrt(x: FloatOrComplexType, /) -> TensorType:
    """The square root.

    Shapes: x any. Result: x's type.
    Source: ONNX Sqrt; NumPy sqrt; ATen sqrt.
    Edge cases: NaN below 0; sqrt(-0.0) is -0.0.
    """
    return x


sqrt.reference(rounded(np.sqrt))


@primitive(Pointwise(onnx="Exp", aten="exp"))
def exp(x: FloatOrComplexType, /) -> TensorType:
    """e to the power of x.

    Shapes: x any. Result: x's type.
    Source: ONNX Exp; NumPy exp; ATen exp.
    Edge cases: exp(-inf) is 0; overflow gives inf.
    """
    return x


exp.reference(rounded(np.exp))


@primitive(Pointwise(onnx="Log", aten="log"))
def log(x: FloatOrComplexType, /) -> TensorType:
    """The natural logarithm.

    Shapes: x any. Result: x's type.
    Source: ONNX Log; NumPy log; ATen log.
    Edge cases: log(0) and log(-0.0) are -inf; NaN below 0.
    """
    return x


log.reference(rounded(np.log))


@primitive(Pointwise(onnx="Sin", aten="sin"))
def sin(x: FloatOrComplexType, /) -> TensorType:
    """The sine of x radians.

    Shapes: x any. Result: x's type.
    Source: ONNX Sin; NumPy sin; ATen sin.
    Edge cases: NaN for an infinity; sin(-0.0) is -0.0.
    """
    return x


sin.reference(rounded(np.sin))


@primitive(Pointwise(onnx="Cos", aten="cos"))
def cos(x: FloatOrComplexType, /) -> TensorType:
    """The cosine of x radians.

    Shapes: x any. Result: x's type.
    Source: ONNX Cos; NumPy cos; ATen cos.
    Edge cases: NaN for an infinity.
    """
    return x


cos.reference(rounded(np.cos))


@primitive(Pointwise(onnx="Tan", aten="tan"))
def tan(x: FloatOrComplexType, /) -> TensorType:
    """The tangent of x radians.

    Shapes: x any. Result: x's type.
    Source: ONNX Tan; NumPy tan; ATen tan.
    Edge cases: NaN for an infinity; tan(-0.0) is -0.0.
    """
    return x


tan.reference(rounded(np.tan))


@primitive(Pointwise(onnx="Asin", aten="asin"))
def asin(x: FloatOrComplexType, /) -> TensorType:
    """The inverse sine, in [-pi/2, pi/2].

    Shapes: x any. Result: x's type.
    Source: ONNX Asin; NumPy arcsin; ATen asin.
    Edge cases: NaN outside [-1, 1].
    """
    return x


asin.reference(rounded(np.arcsin))


@primitive(Pointwise(onnx="Acos", aten="acos"))
def acos(x: FloatOrComplexType, /) -> TensorType:
    """The inverse cosine, in [0, pi].

    Shapes: x any. Result: x's type.
    Source: ONNX Acos; NumPy arccos; ATen acos.
    Edge cases: NaN outside [-1, 1].
    """
    return x


acos.reference(rounded(np.arccos))


@primitive(Pointwise(onnx="Atan", aten="atan"))
def atan(x: FloatOrComplexType, /) -> TensorType:
    """The inverse tangent, in [-pi/2, pi/2].

    Shapes: x any. Result: x's type.
    Source: ONNX Atan; NumPy arctan; ATen atan.
    Edge cases: atan(inf) is pi/2 and atan(-inf) is -pi/2.
    """
    return x


atan.reference(rounded(np.arctan))


@primitive(Pointwise(onnx="Sinh", aten="sinh"))
def sinh(x: FloatOrComplexType, /) -> TensorType:
    """The hyperbolic sine.

    Shapes: x any. Result: x's type.
    Source: ONNX Sinh; NumPy sinh; ATen sinh.
    Edge cases: overflow gives an infinity of x's sign.
    """
    return x


sinh.reference(rounded(np.sinh))


@primitive(Pointwise(onnx="Cosh", aten="cosh"))
def cosh(x: FloatOrComplexType, /) -> TensorType:
    """The hyperbolic cosine.

    Shapes: x any. Result: x's type.
    Source: ONNX Cosh; NumPy cosh; ATen cosh.
    Edge cases: overflow gives inf.
    """
    return x


cosh.reference(rounded(np.cosh))


@primitive(Pointwise(onnx="Tanh", aten="tanh"))
def tanh(x: FloatOrComplexType, /) -> TensorType:
    """The hyperbolic tangent.

    Shapes: x any. Result: x's type.
    Source: ONNX Tanh; NumPy tanh; ATen tanh.
    Edge cases: tanh(inf) is 1 and tanh(-inf) is -1.
    """
    return x


tanh.reference(rounded(np.tanh))


@primitive(Pointwise(onnx="Asinh", aten="asinh"))
def asinh(x: FloatOrComplexType, /) -> TensorType:
    """The inverse hyperbolic sine.

    Shapes: x any. Result: x's type.
    Source: ONNX Asinh; NumPy arcsinh; ATen asinh.
    Edge cases: infinities and -0.0 are unchanged.
    """
    return x


asinh.reference(rounded(np.arcsinh))


@primitive(Pointwise(onnx="Acosh", aten="acosh"))
def acosh(x: FloatOrComplexType, /) -> TensorType:
    """The inverse hyperbolic cosine.

    Shapes: x any. Result: x's type.
    Source: ONNX Acosh; NumPy arccosh; ATen acosh.
    Edge cases: NaN below 1.
    """
    return x


acosh.reference(rounded(np.arccosh))


@primitive(Pointwise(onnx="Atanh", aten="atanh"))
def atanh(x: FloatOrComplexType, /) -> TensorType:
    """The inverse hyperbolic tangent.

    Shapes: x any. Result: x's type.
    Source: ONNX Atanh; NumPy arctanh; ATen atanh.
    Edge cases: atanh(1) is inf and atanh(-1) is -inf; NaN outside [-1, 1].
    """
    return x


atanh.reference(rounded(np.arctanh))


@primitive(Pointwise(onnx="Erf", aten="erf"))
def erf(x: FloatType, /) -> TensorType:
    """The error function: 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x.

    Shapes: x any. Result: x's type.
    Source: ONNX Erf; C99 erf; ATen erf.
    Edge cases: erf(inf) is 1 and erf(-inf) is -1.
    """
    return x


_erf_of_one = np.frompyfunc(math.erf, 1, 1)


@erf.reference
def _erf(x: Array) -> Array:
    # NumPy has no erf. math.erf is accurate to f64 and takes about 0.1 s for a million elements.
    return narrow(np.asarray(_erf_of_one(widen(x).astype(np.float64))).astype(np.float64), x.dtype)
