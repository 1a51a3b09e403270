"""Products of softmax weights in parts: a short query that attends to long keys.

    part   m = max(x), l = sum(exp(x - m)), a = exp(x - m) @ v
    whole  M = max(m), r = exp(m - M), sum(l * r), sum(a * r)

What is constant along the keys and applied to the weights, such as the division by their sum, is applied to the whole.
Start at `SoftmaxInParts`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from irc import ops
from irc.dims import Dim
from irc.interfaces import Reduction, identity
from irc.ir import Operation, Value
from irc.kernel.schedule_rules import is_softmax_split_along_its_axis
from irc.kernel.steps import Steps, reduced_dims
from irc.op import literal
from irc.passes._partials import (
    Arrangement,
    InParts,
    Parts,
    combined_extent,
    copied,
    name_of,
    reduced,
    reducing,
    reshaped,
    rounded,
    widened,
)
from irc.pattern import constant_of


class Exponentials(NamedTuple):
    """Of the parts: the maxima, their maximum, and the exponentials of the differences to the maxima."""

    arrangement: Arrangement
    maxima: Value
    whole: Value
    values: Value


class Weights(NamedTuple):
    """The first operand of a product: exponentials, to which `factors` are applied, each with the position of its
    operand that varies along the keys, the first to be applied first."""

    exponential: Value
    factors: list[tuple[Operation, int]]


class SoftmaxInParts(InParts):
    """The primitives of a kernel with a product of softmax weights, in parts of the axis of the softmax."""

    def __init__(self, steps: Steps, arguments: Sequence[Value], parts: Parts, *, carries: bool,
                 divisible: Collection[Operation] = ()) -> None:  # fmt: skip
        self._maxima: dict[Value, Exponentials] = {}  # by the elements of which they are the maxima
        super().__init__(steps, arguments, parts, carries=carries, divisible=divisible)

    def _extent(self, step: Operation) -> Dim:
        is_scores = step.name == "dot" and not any(self._below.get(value) for value in step.inputs)
        return 1 if is_scores else combined_extent(step)

    def _in_parts(self, step: Operation) -> Value:
        reduction = step.definition.reduction
        if reduction is None:
            return self._product(step)
        if reduction == Reduction("max"):
            return self._maximum(step).whole
        is_softmax_split_along_its_axis(step.result.name, reduction == Reduction("sum"))
        parts = self._exponentials(step.inputs[0], step)
        partial = reduced(step.definition, parts.values, parts.arrangement.place + 1)
        self._stored(partial, name_of(step, "partial"))
        return self._unless_empty(
            self._whole(step.definition, ops.mul(partial, rescaling(parts)), parts.arrangement)
        )

    def _maximum(self, step: Operation) -> Exponentials:
        x = self.values[step.inputs[0]]
        is_softmax_split_along_its_axis(step.result.name, reduced_dims(step) == {x.rank - 1})
        if x not in self._maxima:
            arrangement = Arrangement(x.shape, [x.rank - 1], self.parts)
            divided = arrangement.divided(x, identity("max", x.dtype).item())
            maxima = self._stored(reduced(step.definition, divided, x.rank), name_of(step, "partial"))
            # A part may have -inf alone, and -inf - -inf is NaN.
            finite = ops.select(ops.is_inf(maxima), literal(0.0, x.dtype), maxima)
            values = ops.exp(ops.sub(divided, ops.reshape(finite, shape=(*finite.shape, 1))))
            whole = self._whole(step.definition, maxima, arrangement)
            self._maxima[x] = Exponentials(arrangement, maxima, whole, values)
        return self._maxima[x]

    def _exponentials(self, exponential: Value, user: Operation) -> Exponentials:
        """The exponentials of parts for those of the whole, exp(x - max(x))."""
        step = producer(exponential, "exp")
        difference = None if step is None else producer(step.inputs[0], "sub")
        x, maximum = (None, None) if difference is None else (self.values[each] for each in difference.inputs)
        parts = None if x is None else self._maxima.get(x)
        same = parts is not None and maximum is not None and is_view_of(maximum, parts.whole)
        is_softmax_split_along_its_axis(user.result.name, same)
        assert parts is not None
        return parts

    def _weights(self, step: Operation) -> Weights:
        """What a product multiplies, from the product on."""
        value, factors = step.inputs[0], list[tuple[Operation, int]]()
        while (inner := value.operation) is not None and inner.name != "exp":
            position = varying_operand(inner, bool(factors))
            is_softmax_split_along_its_axis(step.result.name, position is not None)
            assert position is not None
            if inner.name not in ("cast", "reshape"):
                factors.append((inner, position))
            value = inner.inputs[position]
        return Weights(value, factors[::-1])

    def _product(self, step: Operation) -> Value:
        (exponential, factors), (left, right) = self._weights(step), step.inputs
        parts, number = self._exponentials(exponential, step), self.parts.number
        batch, contract = ([(one % left.rank, other % right.rank) for one, other in step.attributes[name]]
                           for name in ("batch", "contract"))  # fmt: skip
        is_matrix = right.rank == len(batch) + 2 and [one for one, _ in batch] == list(range(len(batch)))
        is_softmax_split_along_its_axis(step.result.name, is_matrix and [one for one, _ in contract] == [left.rank - 1])
        keys = Arrangement(right.shape, [contract[0][1]], self.parts)
        values = keys.divided(keys.flat(rounded(self.values[right], right.dtype)), 0.0)
        kept = left.shape[:-1]
        weights = rounded(reshaped(parts.values, (*kept, number, self.parts.size)), left.dtype)
        product = ops.dot(
            weights, values, batch=(*((one, keys.divided_axis(other)) for one, other in batch),
                                    (len(kept), keys.place)),
            contract=((len(kept) + 1, keys.place + 1),), accumulate=step.attributes["accumulate"],
        )  # fmt: skip
        partial = self._stored(widened(product), name_of(step, "partial"))
        order = (*range(len(batch)), len(kept), *range(len(batch), len(kept)))  # the parts after the batch, as there
        hidden = [factor for factor, _ in factors if self._is_of_hidden_rows(factor, parts)]
        scales = ops.transpose(reshaped(rescaling(parts, hides=bool(hidden)), (*kept, number)), permutation=order)
        scales = ops.reshape(scales, shape=(*scales.shape, 1))
        whole = reduced(reducing("sum"), ops.mul(partial, scales), len(batch))
        self.wholes[whole] = 2  # scales do not vary over the columns: a kernel before has computed them
        whole = result = reshaped(whole, (*exponential.shape[:-1], whole.shape[-1]))
        for factor, position in factors:
            operands = [result if place == position else self.values[each]
                        for place, each in enumerate(factor.inputs)]
            if factor in hidden:
                operands[1] = whole  # instead of 0: a sum of multiples of 0 there, NaN where a value is
            (result,) = copied(factor, operands)
        return self._unless_empty(result)

    def _is_of_hidden_rows(self, factor: Operation, parts: Exponentials) -> bool:
        """Whether a factor is the selection of 0 in rows of -inf."""
        tested = producer(factor.inputs[0], "equal") if factor.name == "select" else None
        if tested is None or not is_zero(factor.inputs[1]) or factor.result.dtype is not parts.whole.dtype:
            return False
        maximum, lowest = tested.inputs
        return constant_of(lowest) == -math.inf and is_view_of(self.values[maximum], parts.whole)


def rescaling(parts: Exponentials, hides: bool = False) -> Value:
    """By what the sums of each part are multiplied: in rows of -inf by 0 if these are hidden, else NaN."""
    whole = ops.select(ops.equal(parts.whole, -math.inf), 0.0, parts.whole) if hides else parts.whole
    result: Value = ops.exp(ops.sub(parts.maxima, parts.arrangement.along_parts(whole)))
    return result


def producer(value: Value, name: str) -> Operation | None:
    """The operation of this name that computes a value, but for widening."""
    step = value.operation
    while step is not None and step.name == "cast" and step.attributes["to"].bits > step.inputs[0].dtype.bits:
        step = step.inputs[0].operation
    return step if step is not None and step.name == name else None


def is_view_of(value: Value, other: Value) -> bool:
    """Whether a value is another in another shape."""
    while value is not other and value.operation is not None and value.operation.name == "reshape":
        value = value.operation.inputs[0]
    return value is other


def varying_operand(step: Operation, is_multiple: bool) -> int | None:
    """The operand of which a step gives a multiple, by a factor that is constant along the last axis; None for other
    steps. A change of shape stands before all factors."""
    is_constant = [value.rank == 0 or value.shape[-1] == 1 for value in step.inputs]
    if step.name == "cast":
        return 0
    if step.name == "reshape":
        return 0 if not is_multiple and step.inputs[0].shape[-1] == step.result.shape[-1] else None
    if step.name == "div" and is_constant == [False, True]:
        return 0
    if step.name == "mul" and sum(is_constant) == 1:
        return is_constant.index(False)
    zeros = [is_zero(value) for value in step.inputs]
    if step.name == "select" and is_constant[0] and sum(is_constant) == 2 and any(zeros[1:]):
        return is_constant.index(False)
    return None


def is_zero(value: Value) -> bool:
    step = value.operation
    return step is not None and step.name == "const" and not step.attributes["value"].array().any()
