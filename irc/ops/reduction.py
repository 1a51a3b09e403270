"""Reductions: axes are folded into one element each.

Floats narrower than 32 bits are accumulated in f32 and rounded once; integers wrap around. Axes may be negative.
An unranked operand gives an unranked result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc import dims
from irc.diagnostics import fail
from irc.dtypes import I64
from irc.interfaces import Combine, Reduction, Trait
from irc.op import NumberType, RealType, primitive
from irc.ops import symbolic
from irc.ops.numerics import Array, narrow, neutral, widen
from irc.ops.rules import OrderedType, differ, normalize_axes, normalize_axis, replaced
from irc.types import TensorType


def _reduced(x: TensorType, axes: tuple[int, ...], keep_dims: bool) -> TensorType:
    if x.shape is None:
        return x
    gone = frozenset(normalize_axes(axes, x.rank))
    kept = enumerate(x.dims)
    if keep_dims:
        return x.with_shape(1 if axis in gone else dim for axis, dim in kept)
    return x.with_shape(dim for axis, dim in kept if axis not in gone)


@primitive(Reduction("sum"), Trait.WRAPS)
def reduce_sum(x: NumberType, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> TensorType:
    """The sum over `axes`.

    Shapes: x without the axes, or with extent 1 there when `keep_dims`; without axes, x itself.
    Source: ONNX ReduceSum; NumPy sum; ATen sum.
    Edge cases: 0 over an empty axis; integers wrap around in their own type; inf and -inf together give NaN.
    """
    return _reduced(x, axes, keep_dims)


@reduce_sum.reference
def _reduce_sum(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
    wide = widen(x)
    with np.errstate(all="ignore"):
        return narrow(np.sum(wide, axis=tuple(axes), dtype=wide.dtype, keepdims=keep_dims), x.dtype)


reduce_sum.on_dims(symbolic.reduced(dims.total))


@primitive(Reduction("prod"), Trait.WRAPS)
def reduce_prod(x: NumberType, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> TensorType:
    """The product over `axes`.

    Shapes: x without the axes, or with extent 1 there when `keep_dims`; without axes, x itself.
    Source: ONNX ReduceProd; NumPy prod; ATen prod.
    Edge cases: 1 over an empty axis; integers wrap around in their own type.
    """
    return _reduced(x, axes, keep_dims)


@reduce_prod.reference
def _reduce_prod(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
    wide = widen(x)
    with np.errstate(all="ignore"):
        return narrow(np.prod(wide, axis=tuple(axes), dtype=wide.dtype, keepdims=keep_dims), x.dtype)


reduce_prod.on_dims(symbolic.reduced(dims.product))


@primitive(Reduction("max"), Trait.WRAPS)
def reduce_max(x: OrderedType, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> TensorType:
    """The greatest element over `axes`.

    Shapes: x without the axes, or with extent 1 there when `keep_dims`; without axes, x itself.
    Source: ONNX ReduceMax; NumPy max; ATen amax.
    Edge cases: NaN when there is one. Over an empty axis: -inf, the least integer or false (as ONNX; torch raises).
    """
    return _reduced(x, axes, keep_dims)


@reduce_max.reference
def _reduce_max(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
    return _extreme(np.max, "max", x, axes, keep_dims)


@primitive(Reduction("min"), Trait.WRAPS)
def reduce_min(x: OrderedType, /, *, axes: tuple[int, ...], keep_dims: bool = False) -> TensorType:
    """The least element over `axes`.

    Shapes: x without the axes, or with extent 1 there when `keep_dims`; without axes, x itself.
    Source: ONNX ReduceMin; NumPy min; ATen amin.
    Edge cases: NaN when there is one. Over an empty axis: inf, the greatest integer or true (as ONNX; torch raises).
    """
    return _reduced(x, axes, keep_dims)


@reduce_min.reference
def _reduce_min(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
    return _extreme(np.min, "min", x, axes, keep_dims)


def _extreme(function: Any, combine: Combine, x: Array, axes: tuple[int, ...], keep_dims: bool) -> Array:
    wide = widen(x)
    with np.errstate(all="ignore"):
        result = function(wide, axis=tuple(axes), keepdims=keep_dims, initial=neutral(combine, x, wide))
        return narrow(result, x.dtype)


@primitive(Reduction("max", finds_index=True))
def argmax(x: RealType, /, *, axis: int, keep_dims: bool = False, select_last: bool = False) -> TensorType:
    """The index of the greatest element along `axis`: the first of equals, or the last with `select_last`.

    Shapes: x without the axis, or with extent 1 there when `keep_dims`; the result is i64.
    Source: ONNX ArgMax; NumPy argmax; ATen argmax.
    Edge cases: NaN counts as the greatest; an index of an empty axis is an error (`type.shape`, or
    `run.shape` when it runs).
    """
    return _argument(x, axis, keep_dims)


@argmax.reference
def _argmax(x: Array, *, axis: int, keep_dims: bool, select_last: bool) -> Array:
    return _find(np.argmax, x, axis, keep_dims, select_last)


@primitive(Reduction("min", finds_index=True))
def argmin(x: RealType, /, *, axis: int, keep_dims: bool = False, select_last: bool = False) -> TensorType:
    """The index of the least element along `axis`: the first of equals, or the last with `select_last`.

    Shapes: x without the axis, or with extent 1 there when `keep_dims`; the result is i64.
    Source: ONNX ArgMin; NumPy argmin; ATen argmin.
    Edge cases: NaN counts as the least here; an index of an empty axis is an error (`type.shape`, or
    `run.shape` when it runs).
    """
    return _argument(x, axis, keep_dims)


@argmin.reference
def _argmin(x: Array, *, axis: int, keep_dims: bool, select_last: bool) -> Array:
    return _find(np.argmin, x, axis, keep_dims, select_last)


def _argument(x: TensorType, axis: int, keep_dims: bool) -> TensorType:
    if x.shape is None:
        return x.with_dtype(I64)
    position = normalize_axis(axis, x.rank)
    others = (dim for place, dim in enumerate(x.dims) if place != position)
    if dims.equal(x.dims[position], 0) is True and all(differ(dim, 0) for dim in others):
        raise fail("type.shape", f"no element along axis {axis} of {x}", expected="an extent of 1 or more")
    shape = replaced(x.dims, position, 1) if keep_dims else (*x.dims[:position], *x.dims[position + 1 :])
    return TensorType(I64, shape)


def _find(function: Any, x: Array, axis: int, keep_dims: bool, select_last: bool) -> Array:
    extent, shape = x.shape[axis], list(x.shape)
    shape[axis % x.ndim : axis % x.ndim + 1] = [1] if keep_dims else []
    if 0 in shape:
        return np.zeros(shape, np.int64)
    if extent == 0:
        raise fail("run.shape", f"no element along axis {axis} of an array of shape {list(x.shape)}")
    wide = widen(x)
    if select_last:
        positions = extent - 1 - function(np.flip(wide, axis), axis=axis, keepdims=keep_dims)
    else:
        positions = function(wide, axis=axis, keepdims=keep_dims)
    return np.asarray(positions, np.int64)
