"""Rows of softmax and the normalizations."""

from __future__ import annotations

import math

from irc import dims, ops
from irc.diagnostics import fail
from irc.dtypes import F32, I64, from_onnx, limits
from irc.frontends.onnx.reading import carry, wants
from irc.frontends.onnx.table import Ints, reads
from irc.ir import Value
from irc.op import literal
from irc.ops.rules import normalize_axis


@reads("Softmax", since=13)
def softmax(x: Value, /, *, axis: int = -1):
    return ops.softmax(x, axis=axis)


@reads("LogSoftmax", since=13)
def log_softmax(x: Value, /, *, axis: int = -1):
    return ops.log_softmax(x, axis=axis)


@reads("Softmax")
def softmax_of_rows(x: Value, /, *, axis: int = 1):
    return over_trailing(ops.softmax, x, axis)


@reads("LogSoftmax")
def log_softmax_of_rows(x: Value, /, *, axis: int = 1):
    return over_trailing(ops.log_softmax, x, axis)


@reads("Hardmax", since=13)
def hardmax(x: Value, /, *, axis: int = -1):
    return first_greatest(x, axis=axis)


@reads("Hardmax")
def hardmax_of_rows(x: Value, /, *, axis: int = 1):
    return over_trailing(first_greatest, x, axis)


def first_greatest(x, *, axis):
    """1 at the first of the greatest elements along the axis, 0 elsewhere."""
    place = normalize_axis(axis, x.rank)
    along = tuple(dim if i == place else 1 for i, dim in enumerate(x.shape))
    behind = tuple(int(i == place and dims.equal(dim, 0) is not False) for i, dim in enumerate(x.shape))
    if any(behind):  # an axis may be empty, and then has no greatest element
        none, least = (0,) * x.rank, literal(-math.inf if x.dtype.is_float else limits(x.dtype).smallest, x.dtype)
        best = ops.argmax(ops.pad(x, least, low=none, high=behind), axis=place, keep_dims=True)
    else:
        best = ops.argmax(x, axis=place, keep_dims=True)
    return ops.cast(ops.equal(ops.iota(shape=along, axis=place, dtype=I64), best), to=x.dtype)


def over_trailing(definition, x, axis):
    """Before opset 13 x is taken as a matrix whose rows are the axes from `axis` on."""
    first = normalize_axis(axis, x.rank)
    if first == x.rank - 1:
        return definition(x, axis=-1)
    rows = ops.reshape(x, shape=(*x.shape[:first], dims.product(x.shape[first:])))
    return ops.reshape(definition(rows, axis=-1), shape=x.shape)


@reads("LayerNormalization", since=17)
def layer_normalization(x: Value, scale: Value, bias: Value | None = None, /, *, axis: int = -1, epsilon: float = 1e-5,
                        stash_type: int = 1):
    if from_onnx(stash_type) is not F32:
        carry("the statistics are not kept in f32")
    result = ops.layer_norm(x, scale, bias, axis=axis, epsilon=epsilon)
    if not wants(1) and not wants(2):
        return result
    axes = tuple(range(normalize_axis(axis, x.rank), x.rank))
    wide = x if x.dtype is F32 else ops.cast(x, to=F32)
    mean = ops.reduce_mean(wide, axes=axes, keep_dims=True)
    variance = ops.reduce_mean(ops.square(ops.sub(wide, mean)), axes=axes, keep_dims=True)
    return result, mean, ops.rsqrt(ops.add(variance, epsilon))


@reads("RMSNormalization", since=23)
def rms_normalization(x: Value, scale: Value, /, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1):
    if from_onnx(stash_type) is not F32:
        carry("the statistics are not kept in f32")
    return ops.rms_norm(x, scale, axis=axis, epsilon=epsilon)


@reads("BatchNormalization", since=14)
def batch_normalization(x: Value, scale: Value, bias: Value, mean: Value, variance: Value, /, *, epsilon: float = 1e-5,
                        momentum: float = 0.9, training_mode: int = 0):
    if training_mode:
        carry("it computes the statistics of a batch")
    return ops.batch_norm(x, scale, bias, mean, variance, epsilon=epsilon)


@reads("BatchNormalization")
def batch_normalization_with_outputs(x: Value, scale: Value, bias: Value, mean: Value, variance: Value, /, *,
                                     epsilon: float = 1e-5, momentum: float = 0.9, spatial: int = 1):
    """Before opset 14 more outputs than one mean training."""
    if wants(1) or not spatial:
        carry("it computes the statistics of a batch, or has some for each position")
    return ops.batch_norm(x, scale, bias, mean, variance, epsilon=epsilon)


@reads("InstanceNormalization")
def instance_normalization(x: Value, scale: Value, bias: Value, /, *, epsilon: float = 1e-5):
    return ops.instance_norm(x, scale, bias, epsilon=epsilon)


@reads("GroupNormalization", since=21)
def group_normalization(x: Value, scale: Value, bias: Value, /, *, num_groups: int, epsilon: float = 1e-5,
                        stash_type: int = 1):
    if from_onnx(stash_type) is not F32:
        carry("the statistics are not kept in f32")
    if num_groups > 0 and x.rank > 1 and dims.equal(dims.modulo(x.shape[1], num_groups), 0) is None:
        carry("whether the groups divide the channels is known only when it runs")
    return ops.group_norm(x, scale, bias, groups=num_groups, epsilon=epsilon)


@reads("LpNormalization")
def lp_normalization(x: Value, /, *, axis: int = -1, p: int = 2):
    return ops.lp_normalize(x, axis=axis, p=p)


@reads("LRN")
def local_response_normalization(x: Value, /, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int):
    """x / (bias + alpha / size * (sum of squares over `size` channels around)) ** beta."""
    if x.rank < 2 or size < 1:
        raise fail("onnx.invalid", f"LRN of {x.type} over {size} channels")
    ones = (1,) * (x.rank - 2)
    zeros = (0,) * (x.rank - 2)
    total = ops.window_reduce(
        ops.square(x), kind="sum", window=(1, size, *ones), strides=(1, 1, *ones), dilations=(1, 1, *ones),
        low=(0, (size - 1) // 2, *zeros), high=(0, size // 2, *zeros),
    )  # fmt: skip
    return ops.div(x, ops.pow_(ops.add(ops.mul(total, alpha / size), bias), beta))


@reads("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: Value, /, *, axes: Ints = (0, 2, 3)):
    """(x - mean) / (deviation + 1e-9)."""
    centered = ops.sub(x, ops.reduce_mean(x, axes=axes, keep_dims=True))
    variance = ops.reduce_mean(ops.mul(centered, centered), axes=axes, keep_dims=True)
    return ops.div(centered, ops.add(ops.sqrt(variance), 1e-9))
