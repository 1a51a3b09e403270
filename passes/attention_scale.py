"""Attention scale: numbers by which queries and keys are multiplied become the scale of the attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import attention
from irc.pass_manager import Pass, PassContext
from irc.pattern import constant_of

VIEWS = ("reshape", "transpose", "expand")
LONGEST_CHAIN = 8  # views, and products with numbers, before an attention


@dataclass
class AttentionScale(Pass):
    """Let an attention multiply its scores by what its queries and keys are multiplied by.

    PyTorch exports an attention with both multiplied by the fourth root of their length. The products are then two
    passes over memory, and hide the views before them from `grouped_heads` and `attention_rows`. Scores are rounded
    elsewhere than before, so `--numerics exact` leaves them.

    Before: %0 = mul %x, 0.3535; %q = transpose %0; %1 = mul %k, 0.3535; %y = attention %q, %1, %v {scale = 1.0}
    After:  %q = transpose %x; %y = attention %q, %k, %v {scale = 0.125}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        if context.numerics == "exact":
            return False
        count = 0
        for operation in [each for each in module.walk() if each.name == "attention"]:
            count += _scaled(operation)
        context.count("attention_scale", "scaled", count)
        return count > 0


def _scaled(operation: Operation) -> bool:
    q, k, *others = operation.inputs
    attributes = dict(operation.attributes)
    scale, depth = attributes["scale"], q.shape[-1]
    if scale is None:
        if not isinstance(depth, int) or depth < 1:
            return False
        scale = 1 / math.sqrt(depth)
    factors = _factor(q), _factor(k)
    product = scale * factors[0] * factors[1]
    if factors == (1.0, 1.0) or not (math.isfinite(product) and product > 0):
        return False
    with Builder.before_operation(operation, operation.location.by("attention_scale")):
        result = attention(_without(q), _without(k), *others, **{**attributes, "scale": product})
    operation.replace([result])
    return True


def _chain(value: Value) -> list[Operation]:
    """The views and products with numbers that lead to a value, the last first."""
    chain = list[Operation]()
    while len(chain) < LONGEST_CHAIN and (maker := value.operation) is not None:
        if maker.name not in VIEWS and _number(maker) is None:
            break
        chain.append(maker)
        value = maker.inputs[0]
    return chain


def _number(operation: Operation) -> float | None:
    """The number by which an operation multiplies its first operand."""
    if operation.name not in ("mul", "div") or operation.inputs[0].type != operation.result.type:
        return None
    if operation.result.dtype.bits < 32:  # the product is rounded, which the scores are not
        return None
    number = constant_of(operation.inputs[1])
    if number is None or not math.isfinite(number) or number <= 0:
        return None
    return float(number) if operation.name == "mul" else 1 / float(number)


def _factor(value: Value) -> float:
    """The number by which a value is multiplied."""
    return math.prod(_number(each) or 1.0 for each in _chain(value))


def _without(value: Value) -> Value:
    """The value before it is multiplied, in the same views."""
    chain = _chain(value)
    products = [index for index, each in enumerate(chain) if _number(each) is not None]
    if not products:
        return value
    value = chain[products[-1]].inputs[0]
    for operation in reversed(chain[: products[-1]]):
        if _number(operation) is None:
            value = operation.definition(value, **operation.attributes)
    return value
