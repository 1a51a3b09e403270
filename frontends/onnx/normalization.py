"""Rows of softmax and the normalizations."""

from __future__ import annotations

from irc import dims, ops
from irc.dtypes import F32, from_onnx
from irc.frontends.onnx.reading import carry, wants
from irc.frontends.onnx.table import Ints, reads
from irc.ir import Value
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
    if wants(1) or wants(2):
        carry("mean and deviation are asked for as well")
    if from_onnx(stash_type) is not F32:
        carry("the statistics are not kept in f32")
    return ops.layer_norm(x, scale, bias, axis=axis, epsilon=epsilon)


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
    return ops.group_norm(x, scale, bias, groups=num_groups, epsilon=epsilon)


@reads("LpNormalization")
def lp_normalization(x: Value, /, *, axis: int = -1, p: int = 2):
    return ops.lp_normalize(x, axis=axis, p=p)


@reads("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: Value, /, *, axes: Ints = (0, 2, 3)):
    """(x - mean) / (deviation + 1e-9)."""
    centred = ops.sub(x, ops.reduce_mean(x, axes=axes, keep_dims=True))
    variance = ops.reduce_mean(ops.mul(centred, centred), axes=axes, keep_dims=True)
    return ops.div(centred, ops.add(ops.sqrt(variance), 1e-9))
