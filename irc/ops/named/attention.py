"""Attention, the one form to which every spelling of it is raised, and attention whose heads lie side by side."""

from __future__ import annotations

import math
from typing import Literal

from irc import dims
from irc.diagnostics import fail
from irc.dtypes import BOOL, I64, accumulator_of
from irc.interfaces import Trait
from irc.ir import Value
from irc.op import AnyTensor, Float, op
from irc.ops.functions import sqrt
from irc.ops.named.common import convert, fitted, must_equal, must_fit, number, widen
from irc.ops.named.normalization import INFINITY, softmax
from irc.ops.pointwise import add, div, equal, is_nan, less_equal, mul, select, sub
from irc.ops.products import dot
from irc.ops.reduction import reduce_max
from irc.ops.rules import same_dtype
from irc.ops.view import concat, iota, reshape, slice_, transpose
from irc.types import TensorType


@op(Trait.LIBRARY)
def attention(
    q: Float,
    k: Float,
    v: Float,
    mask: AnyTensor | None = None,
    /,
    *,
    scale: float | None = None,
    causal: bool = False,
    masked_rows: Literal["nan", "zero", "nan_as_zero"] = "nan",
) -> Value:
    """softmax(q @ kᵀ * scale + mask) @ v, for each head.

    Shapes: q [B, H, S, D], k [B, G, T, D], v [B, G, T, E], where G divides H and each head of k and v serves H/G
    successive heads of q; mask broadcasts to [B, H, S, T]: true where a key may be attended to, or a float that is
    added to the scores. Result: [B, H, S, E].
    Attributes: scale, 1/sqrt(D) where absent; causal: query s attends to keys t <= s, both counted from the first
    (write past keys as a mask); masked_rows: what a row gives that may attend to nothing; "nan_as_zero" takes NaN for
    0 whatever its cause.
    Source: ONNX Attention-23 (masked_rows "zero"; a causal past is an offset there); torch's
    scaled_dot_product_attention ("zero"), a decomposed softmax ("nan"), what PyTorch exports to ONNX ("nan_as_zero").
    Edge cases: scores of f16 and bf16 are rounded to that type, then scaled and normalized in f32; the weights are
    rounded before the second product. T of 0 gives zeros; D of 0 gives the means of the values. A score that is NaN or
    infinite has no effect where a causal mask or one of bools hides it; with masked_rows "zero" a mask of bools is
    added as 0 and -inf, as its sources define it, so that a row with a score of NaN or +inf is NaN. Kernels skip scores
    that a comparison of indices hides.
    """
    batch, heads, queries, depth = q.shape
    groups, keys = k.shape[1], k.shape[2]
    shape = (batch, heads, queries, keys)
    # Where heads share a key, q gets an axis for them, which k and v lack: nothing is copied.
    shared = dims.equal(heads, groups) is not True
    both = ((0, 0), (1, 1))
    accumulate = accumulator_of(q.dtype)
    if shared:
        grouped = (batch, groups, dims.floor_divide(heads, groups), queries)
        scores = dot(reshape(q, shape=(*grouped, depth)), k, batch=both, contract=((4, 3),), accumulate=accumulate)
        scores = reshape(scores, shape=shape)
    else:
        scores = dot(q, k, batch=both, contract=((3, 3),), accumulate=accumulate)
    scores = widen(scores)
    if scale is not None:
        scores = mul(scores, scale)
    elif isinstance(depth, int):
        scores = mul(scores, 1 / math.sqrt(depth) if depth else 1.0)
    else:
        divisor = depth if dims.less(0, depth) is True else dims.maximum(depth, 1)
        scores = div(scores, sqrt(number(divisor, scores.dtype)))
    if mask is not None:
        scores = _masked(scores, fitted(mask, shape), masked_rows)
    if causal:
        key = iota(shape=(1, keys), axis=1, dtype=I64)
        query = iota(shape=(queries, 1), axis=0, dtype=I64)
        scores = select(less_equal(key, query), scores, -INFINITY)
    weights = convert(_weights(scores, masked_rows), q.dtype)
    if shared:
        weights = reshape(weights, shape=(*grouped, keys))
        result = dot(weights, v, batch=both, contract=((4, 2),), accumulate=accumulate)
        return reshape(result, shape=(batch, heads, queries, v.shape[3]))
    return dot(weights, v, batch=both, contract=((3, 2),), accumulate=accumulate)


def _masked(scores: Value, mask: Value, masked_rows: str) -> Value:
    """The scores with a mask, which libraries add whatever its type; a decomposed attention selects by one of bools."""
    if mask.dtype is not BOOL:
        return add(scores, convert(mask, scores.dtype))
    if masked_rows == "zero":
        return add(scores, select(mask, number(0, scores.dtype), -INFINITY))
    return select(mask, scores, -INFINITY)


def _weights(scores: Value, masked_rows: str) -> Value:
    """The softmax of the scores, with the stated result in rows that may attend to nothing."""
    weights: Value = softmax(scores, axis=3)
    if masked_rows == "zero":
        return select(equal(reduce_max(scores, axes=(3,), keep_dims=True), -INFINITY), 0, weights)
    if masked_rows == "nan_as_zero":
        return select(is_nan(weights), 0, weights)
    return weights


@attention.types
def _(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None = None,
    *,
    scale: float | None,
    causal: bool,
    masked_rows: str,
) -> TensorType:
    for name, operand, words in (("q", q, "[B, H, S, D]"), ("k", k, "[B, G, T, D]"), ("v", v, "[B, G, T, E]")):
        if operand.rank != 4:
            raise fail("type.rank", f"{name} is {operand}", expected=words)
    same_dtype(q, k, v)
    must_equal("B of k", k.dims[0], q.dims[0])
    must_equal("B of v", v.dims[0], q.dims[0])
    must_equal("G of v", v.dims[1], k.dims[1])
    must_equal("T of v", v.dims[2], k.dims[2])
    must_equal("D of k", k.dims[3], q.dims[3])
    heads, groups = q.dims[1], k.dims[1]
    if dims.equal(groups, 0) is not True and dims.equal(dims.modulo(heads, groups), 0) is False:
        raise fail("type.shape", f"{groups} heads of k do not divide {heads} heads of q")
    if mask is not None:
        if mask.dtype is not BOOL and not mask.dtype.is_float:
            raise fail("type.dtype", f"mask is {mask}", expected="bool, or a float type")
        must_fit("mask", mask, q.with_shape((*q.dims[:3], k.dims[2])))
    return q.with_shape((*q.dims[:3], v.dims[3]))


@op(Trait.LIBRARY)
def attention_rows(
    q: Float,
    k: Float,
    v: Float,
    mask: AnyTensor | None = None,
    /,
    *,
    heads: int,
    groups: int,
    scale: float | None = None,
    causal: bool = False,
    masked_rows: Literal["nan", "zero", "nan_as_zero"] = "nan",
) -> Value:
    """`attention` of rows that hold the elements of all heads, one head after the other.

    Shapes: q [B, S, heads*D], k [B, T, groups*D], v [B, T, groups*E]; mask broadcasts to [B, heads, S, T]. Result:
    [B, S, heads*E].
    Attributes: heads, of q; groups, the heads of k and v; scale, causal and masked_rows as in `attention`.
    Source: ONNX Attention-23 of three axes.
    Edge cases: those of `attention`.
    """
    apart = [_apart(x, count) for x, count in ((q, heads), (k, groups), (v, groups))]
    return _together(attention(*apart, mask, scale=scale, causal=causal, masked_rows=masked_rows))


def _apart(x: Value, count: int) -> Value:
    """[B, S, count*D] as [B, count, S, D]."""
    batch, length, width = x.shape
    return transpose(reshape(x, shape=(batch, length, count, dims.floor_divide(width, count))),
                     permutation=(0, 2, 1, 3))


def _together(x: Value) -> Value:
    """[B, count, S, D] as [B, S, count*D]."""
    batch, count, length, width = x.shape
    return reshape(transpose(x, permutation=(0, 2, 1, 3)), shape=(batch, length, count * width))


@attention_rows.types
def _(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None = None,
    *,
    heads: int,
    groups: int,
    scale: float | None,
    causal: bool,
    masked_rows: str,
) -> TensorType:
    apart = _types_apart((q, k, v), heads, groups)
    (result,) = attention.infer([*apart, *(() if mask is None else (mask,))],
                                {"scale": scale, "causal": causal, "masked_rows": masked_rows})  # fmt: skip
    return q.with_shape((q.dims[0], q.dims[1], heads * result.dims[3]))


def _types_apart(types: tuple[TensorType, TensorType, TensorType], heads: int, groups: int) -> list[TensorType]:
    """Rows of queries, keys and values as `_apart` takes their heads apart."""
    apart = []
    for name, operand, count in zip("qkv", types, (heads, groups, groups), strict=True):
        if operand.rank != 3:
            raise fail("type.rank", f"{name} is {operand}", expected="[B, S, heads*D]")
        if count < 1 or dims.equal(dims.modulo(operand.dims[2], count), 0) is False:
            raise fail("type.shape", f"{name} is {operand}, of {count} heads", expected="heads of equal size")
        depth = dims.floor_divide(operand.dims[2], count)
        apart.append(operand.with_shape((operand.dims[0], count, operand.dims[1], depth)))
    return apart


@op(Trait.LIBRARY)
def cached_attention(
    q: Float,
    k: Float,
    v: Float,
    past_k: Float,
    past_v: Float,
    mask: AnyTensor | None = None,
    /,
    *,
    heads: int,
    groups: int,
    scale: float | None = None,
    masked_rows: Literal["nan", "zero", "nan_as_zero"] = "nan",
) -> tuple[Value, Value, Value]:
    """`attention_rows` to cached keys and values and to new ones: (result, all keys, all values).

    Shapes: q [B, S, heads*D], k [B, T, groups*D], v [B, T, groups*E], past_k [B, groups, P, D], past_v [B, groups, P,
    E]; mask broadcasts to [B, heads, S, P+T]. Results: [B, S, heads*E], [B, groups, P+T, D], [B, groups, P+T, E].
    Attributes: heads, of q; groups, the heads of k and v; scale and masked_rows as in `attention`.
    Source: ONNX Attention-23 with past_key and past_value.
    Edge cases: those of `attention`; P may be 0.
    """
    keys = concat(past_k, _apart(k, groups), axis=2)
    values = concat(past_v, _apart(v, groups), axis=2)
    result = attention(_apart(q, heads), keys, values, mask, scale=scale, masked_rows=masked_rows)
    return _together(result), keys, values


@cached_attention.types
def _(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    past_k: TensorType,
    past_v: TensorType,
    mask: TensorType | None = None,
    *,
    heads: int,
    groups: int,
    scale: float | None,
    masked_rows: str,
) -> tuple[TensorType, TensorType, TensorType]:
    queries, *new = _types_apart((q, k, v), heads, groups)
    keys, values = (_appended(*each) for each in zip(("past_k", "past_v"), (past_k, past_v), new, strict=True))
    (result,) = attention.infer([queries, keys, values, *(() if mask is None else (mask,))],
                                {"scale": scale, "causal": False, "masked_rows": masked_rows})  # fmt: skip
    return q.with_shape((*q.dims[:2], heads * result.dims[3])), keys, values


def _appended(name: str, past: TensorType, new: TensorType) -> TensorType:
    """The type of keys or values of earlier steps with new ones after them."""
    if past.rank != 4:
        raise fail("type.rank", f"{name} is {past}", expected="[B, groups, P, D]")
    same_dtype(past, new)
    for axis in (0, 1, 3):
        must_equal(f"axis {axis} of {name}", past.dims[axis], new.dims[axis])
    return new.with_shape((*new.dims[:2], past.dims[2] + new.dims[2], new.dims[3]))


@op
def rotary_rows(x: Float, cos: Float, sin: Float, /, *, heads: int) -> Value:
    """Rotary position embedding of rows that hold the elements of all heads.

    Each pair of an element of the first half of a head and the one at its place in the second half is turned by an
    angle: (a, b) becomes (a * cos - b * sin, b * cos + a * sin).

    Shapes: x [B, S, heads*D] with an even D; cos and sin [B, S, D/2]. Result: x's type.
    Attributes: heads.
    Source: ONNX RotaryEmbedding-23 of three axes, not interleaved; Su et al., arXiv 2104.09864.
    """
    batch, length, width = x.shape
    half = dims.floor_divide(width, 2 * heads)
    apart = reshape(x, shape=(batch, length, heads, 2 * half))
    first, second = (
        slice_(apart, starts=(0, 0, 0, start), stops=(batch, length, heads, start + half), steps=(1, 1, 1, 1))
        for start in (0, half)
    )
    cos, sin = (reshape(each, shape=(batch, length, 1, half)) for each in (cos, sin))
    turned = sub(mul(first, cos), mul(second, sin)), add(mul(second, cos), mul(first, sin))
    return reshape(concat(*turned, axis=3), shape=x.shape)


@rotary_rows.types
def _(x: TensorType, cos: TensorType, sin: TensorType, *, heads: int) -> TensorType:
    same_dtype(x, cos, sin)
    if x.rank != 3 or cos.rank != 3 or sin.rank != 3:
        raise fail("type.rank", f"x is {x}, cos {cos} and sin {sin}", expected="[B, S, heads*D], and twice [B, S, D/2]")
    if heads < 1 or dims.equal(dims.modulo(x.dims[2], 2 * heads), 0) is False:
        raise fail("type.shape", f"x is {x}, of {heads} heads", expected="heads of an equal, even size")
    for name, operand in (("cos", cos), ("sin", sin)):
        for axis, extent in enumerate((*x.dims[:2], dims.floor_divide(x.dims[2], 2 * heads))):
            must_equal(f"axis {axis} of {name}", operand.dims[axis], extent)
    return x
