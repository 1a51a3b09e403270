"""Rows of softmax and the normalizations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irc import dims, ops
from irc.dtypes import accumulator_of
from irc.frontends.torch.reading import (
    axes_of,
    axis_of,
    converted,
    dtype_of,
    floating,
    known,
    known_number,
    result_dtype,
    together,
    unused,
)
from irc.frontends.torch.table import reads
from irc.ir import Value
from irc.op import literal


def along(definition: Any, x: Value, dim: int) -> Value:
    value = converted(x, result_dtype())
    if not value.rank:  # a scalar counts as a row of one
        return ops.reshape(definition(ops.reshape(value, shape=(1,)), axis=0), shape=())
    return definition(value, axis=axis_of(dim, value.rank))


@reads("_softmax", "softmax.int")
def softmax(self, dim, half_to_float=False, dtype=None):
    return along(ops.softmax, self, dim)


@reads("_safe_softmax")
def safe_softmax(self, dim, dtype=None):
    """0, where a whole row is -inf."""
    result = along(ops.softmax, self, dim)
    axes = (axis_of(dim, self.rank),) if self.rank else ()
    hidden = ops.equal(ops.reduce_max(converted(self, result.dtype), axes=axes, keep_dims=True), -math.inf)
    return ops.select(hidden, literal(0, result.dtype), result)


@reads("_log_softmax", "log_softmax.int")
def log_softmax(self, dim, half_to_float=False, dtype=None):
    return along(ops.log_softmax, self, dim)


@reads("layer_norm")
def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    return ops.layer_norm(input, weight, bias, axis=input.rank - len(normalized_shape), epsilon=eps)


@reads("native_layer_norm")
def native_layer_norm(input, normalized_shape, weight, bias, eps):
    result = layer_norm.function(input, normalized_shape, weight, bias, eps)
    return result, *statistics(input, range(input.rank - len(normalized_shape), input.rank), eps)


def statistics(x: Value, axes: Sequence[int], eps: float) -> tuple[Value | None, Value | None]:
    """The mean and 1 / sqrt(variance + eps) over axes, which stay with extent 1, where the node's results 1 and 2 are
    read."""
    if unused(1) and unused(2):
        return None, None
    wide = converted(x, accumulator_of(x.dtype))
    mean = ops.reduce_mean(wide, axes=tuple(axes), keep_dims=True)
    away = ops.sub(wide, mean)
    variance = ops.reduce_mean(ops.mul(away, away), axes=tuple(axes), keep_dims=True)
    inverse = ops.div(1.0, ops.sqrt(ops.add(variance, float(eps))))
    return converted(mean, result_dtype(1)), converted(inverse, result_dtype(2))


@reads("rms_norm")
def rms_norm(input, normalized_shape, weight=None, eps=None):
    epsilon = float(eps) if eps is not None else EPSILON[input.dtype.name]
    return ops.rms_norm(input, weight, axis=input.rank - len(normalized_shape), epsilon=epsilon)


EPSILON = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-23, "bf16": 2.0**-23}  # of the type that is computed in


@reads("group_norm")
def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    return ops.group_norm(input, weight, bias, groups=num_groups, epsilon=eps)


@reads("native_group_norm")
def native_group_norm(input, weight, bias, N, C, HxW, group, eps):
    result = group_norm.function(input, group, weight, bias, eps)
    grouped = ops.reshape(input, shape=(N, group, dims.floor_divide(C, group) * HxW))
    moments = statistics(grouped, (2,), eps)
    return result, *(x if x is None else ops.reshape(x, shape=(N, group)) for x in moments)


@reads("_native_batch_norm_legit_no_training")
def batch_norm(input, weight, bias, running_mean, running_var, *others):
    epsilon = others[-1]
    wide = accumulator_of(input.dtype)
    ones = None if weight is not None else filled_like(running_var, 1)
    zeros = None if bias is not None else filled_like(running_mean, 0)
    x = input if running_mean.dtype is input.dtype else converted(input, wide)
    scale, offset, mean, variance = (converted(each, x.dtype) for each in (
        weight if ones is None else ones, bias if zeros is None else zeros, running_mean, running_var))
    return converted(ops.batch_norm(x, scale, offset, mean, variance, epsilon=epsilon), input.dtype), *nothing()


def nothing() -> list[Value | None]:
    """What stands for the statistics of a batch that were not computed: vectors without elements."""
    return [None if unused(output) else ops.expand(converted(0, result_dtype(output)), shape=(0,)) for output in (1, 2)]


def filled_like(x: Value, number: int) -> Value:
    return ops.expand(converted(number, x.dtype), shape=x.shape)


@reads("_native_batch_norm_legit_functional", "_native_batch_norm_legit", "_native_batch_norm_legit.no_stats")
def batch_norm_in_training(input, weight, bias, *others):
    """The statistics are those of the batch; the running ones are blended with them (the variance unbiased)."""
    *running, training, momentum, eps = others
    mean, variance = running or (None, None)
    if not training:
        return *batch_norm.function(input, weight, bias, mean, variance, eps), mean, variance
    axes = (0, *range(2, input.rank))
    wide = converted(input, accumulator_of(input.dtype))
    own_mean = ops.reduce_mean(wide, axes=axes, keep_dims=False)
    centered = ops.sub(wide, per_channel(own_mean, input.rank))
    own_variance = ops.reduce_mean(ops.square(centered), axes=axes, keep_dims=False)
    inverse = ops.rsqrt(ops.add(own_variance, eps))
    result = ops.mul(centered, per_channel(inverse, input.rank))
    if weight is not None:
        result = ops.mul(result, per_channel(converted(weight, wide.dtype), input.rank))
    if bias is not None:
        result = ops.add(result, per_channel(converted(bias, wide.dtype), input.rank))
    blended: list[Any] = []
    if mean is not None and variance is not None:
        count = converted(dims.product(input.shape[axis] for axis in axes), wide.dtype)
        unbiased = ops.mul(own_variance, ops.div(count, ops.sub(count, 1.0)))
        blended = [blend(old, converted(new, old.dtype), momentum)
                   for old, new in ((mean, own_mean), (variance, unbiased))]
    kept = [converted(each, result_dtype(output)) for output, each in ((1, own_mean), (2, inverse))]
    return converted(result, input.dtype), *kept, *blended


def per_channel(x: Value, rank: int) -> Value:
    return ops.reshape(x, shape=(1, x.shape[0], *(1 for _ in range(rank - 2))))


def blend(old: Value, new: Value, momentum: float) -> Value:
    return ops.add(ops.mul(old, 1 - momentum), ops.mul(new, momentum))


@reads("dist")
def distance(self, other, p=2):
    return vector_norm.function(together(ops.sub, self, other), p)


@reads("linalg_vector_norm")
def vector_norm(self, ord=2, dim=None, keepdim=False, *, dtype=None):
    x = converted(self, dtype_of(dtype) if dtype is not None else floating(self))
    x = ops.abs_(x) if x.dtype.is_complex else x
    axes, ord = axes_of(dim, x.rank), known_number(ord)
    if ord != 0 and known(dims.product(x.shape[axis] for axis in axes), 1):  # of one number it is its size
        return ops.reduce_sum(ops.abs_(x), axes=axes, keep_dims=keepdim)
    if ord == 2:
        return ops.reduce_l2(x, axes=axes, keep_dims=keepdim)
    if ord == 1:
        return ops.reduce_l1(x, axes=axes, keep_dims=keepdim)
    if abs(ord) == math.inf:
        return (ops.reduce_max if ord > 0 else ops.reduce_min)(ops.abs_(x), axes=axes, keep_dims=keepdim)
    if ord == 0:
        return ops.reduce_sum(converted(ops.not_equal(x, 0.0), x.dtype), axes=axes, keep_dims=keepdim)
    return converted(ops.pow_(total_of_powers(x, ord, axes, keepdim), 1 / ord), x.dtype)


@reads("linalg__powsum")
def powsum(self, ord=2, dim=None, keepdim=False, *, dtype=None):
    x = converted(self, dtype_of(dtype) if dtype is not None else floating(self))
    return converted(total_of_powers(x, ord, axes_of(dim, x.rank), keepdim), x.dtype)


def total_of_powers(x: Value, order: float, axes: Sequence[int], keep_dims: bool) -> Value:
    sizes = converted(ops.abs_(x), accumulator_of(x.dtype))  # powers of f16 and bf16 are not rounded to these
    return ops.reduce_sum(ops.pow_(sizes, float(known_number(order))), axes=axes, keep_dims=keep_dims)
