"""Rows of losses whose decomposition by PyTorch gives other results than its kernels do."""

from __future__ import annotations

from irc import ops
from irc.dims import Dim
from irc.dtypes import I64, U8
from irc.frontends.torch.reading import converted, scalar
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import reshaped
from irc.ir import Value


@reads("multi_margin_loss")
def multi_margin_loss(self, target, p=1, margin=1, weight=None, reduction=1):
    """The kernel adds the terms above 0, and so ignores NaN; the decomposition takes the maximum with 0."""
    rows, labels = as_rows(self), reshaped(target, (target.type.elements, 1))
    classes = rows.shape[1]
    label_scores = ops.gather_elements(rows, labels, axis=1, bounds="positive")
    loss = above_zero(ops.add(ops.sub(margin, label_scores), rows))
    if p == 2:
        loss = ops.mul(loss, loss)
    if weight is not None:
        loss = ops.mul(loss, ops.gather(weight, labels, axis=0, bounds="positive"))
    loss = ops.select(ops.equal(places(classes), labels), 0.0, loss)
    means = ops.div(ops.reduce_sum(loss, axes=(1,)), converted(classes, self.dtype))
    return reduced(means, reduction) if target.rank or reduction else scalar(means)


@reads("multilabel_margin_loss_forward")
def multilabel_margin_loss(self, target, reduction):
    """Labels end at the first -1; the decomposition counts those after it as the label 0, and includes NaN."""
    rows, labels = as_rows(self), as_rows(target)
    classes = rows.shape[1]
    place = places(classes)
    end = ops.reduce_min(ops.select(ops.equal(labels, -1), place, converted(classes, I64)), axes=(1,), keep_dims=True)
    is_label = ops.less(place, end)
    named = ops.select(is_label, labels, 0)
    label_scores = ops.gather_elements(rows, named, axis=1, bounds="positive")
    count, labeled = rows.shape[0], column(is_label)
    matches = ops.bitwise_and(labeled, ops.equal(column(named), place))
    is_target = ops.reduce_max(converted(matches, U8), axes=(1,))
    margins = above_zero(ops.add(ops.sub(1.0, column(label_scores)), ops.reshape(rows, shape=(count, 1, classes))))
    others = ops.equal(ops.reshape(is_target, shape=(count, 1, classes)), 0)
    losses = ops.select(ops.bitwise_and(labeled, others), margins, 0.0)
    means = ops.div(ops.reduce_sum(losses, axes=(1, 2)), converted(classes, self.dtype))
    loss = reduced(means, reduction) if self.rank == 2 or reduction else scalar(means)
    return loss, reshaped(converted(is_target, self.dtype), target.shape)


def as_rows(x: Value) -> Value:
    return x if x.rank == 2 else reshaped(x, (1, x.type.elements))


def column(x: Value) -> Value:
    return ops.reshape(x, shape=(*x.shape, 1))


def places(count: Dim) -> Value:
    return ops.iota(shape=(count,), axis=0, dtype=I64)


def above_zero(x: Value) -> Value:
    return ops.select(ops.greater(x, 0.0), x, 0.0)


def reduced(losses: Value, reduction: int) -> Value:
    """The losses of the rows, their mean, or their sum, as `reduction` says."""
    if not reduction:
        return losses
    return (ops.reduce_mean if reduction == 1 else ops.reduce_sum)(losses, axes=(0,))
