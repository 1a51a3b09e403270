"""Finding attention that a graph spells out: products around a softmax, proven equal to the body of `attention`."""

from __future__ import annotations

import itertools
from typing import Any

from irc.diagnostics import IrcError
from irc.dims import DimError
from irc.ir import Operation, Value
from irc.op import Builder, OperationDefinition
from irc.ops import attention, transpose
from irc.passes._normal_form import Normalizer
from irc.passes._raise_proof import close_to
from irc.pattern import constant_of, tolerance_of


def spelled_attention(root: Operation) -> tuple[OperationDefinition, Value] | None:
    """softmax(q @ kᵀ * scale + mask) @ v, of four axes, with scalars and views wherever they stand; built before it."""
    if root.name not in ("matmul", "dot") or root.result.rank != 4 or not root.result.dtype.is_float:
        return None
    weights, v = root.inputs
    chosen = _softmax_behind(weights)
    if chosen is None or v.rank != 4:
        return None
    found = _scores_behind(chosen.inputs[0])
    if found is None:
        return None
    product, mask = found
    if product.result.rank != 4 or any(value.rank != 4 for value in product.inputs):
        return None
    q, k = (_without_numbers(value) for value in product.inputs)
    if product.name == "matmul":
        k_type = k.type.with_shape((k.shape[0], k.shape[1], k.shape[3], k.shape[2]))
    else:
        k_type = k.type
    normalizer = Normalizer(tolerance_of(root.result.dtype.bits))
    leaves = [normalizer.bind(value) for value in (q, k, v, *([mask] if mask is not None else []))]
    try:
        wanted = normalizer.term(root.result)
        given = list(leaves)
        if product.name == "matmul":
            given[1] = normalizer.transposed(leaves[1], (0, 1, 3, 2))
    except DimError:
        return None
    types = [q.type, k_type, v.type, *([mask.type] if mask is not None else [])]
    scales: list[float | None] = [None, *close_to(1.0, [1.0, _scale_behind(chosen, product)])]
    for scale, rows in itertools.product(scales, ("nan", "nan_as_zero", "zero")):
        attributes = {"scale": scale, "masked_rows": rows}
        try:
            body = attention.body(types, attention.normalize(attributes))
            (term,) = normalizer.of_body(body, given)
        except (IrcError, DimError):
            return None
        if term is wanted:
            with Builder.before_operation(root, root.location.by("raise(attention)")):
                key = transpose(k, permutation=(0, 1, 3, 2)) if product.name == "matmul" else k
                result = attention(q, key, v, *([mask] if mask is not None else []), **dict[str, Any](attributes))
            return attention, result
    return None


def _softmax_behind(weights: Value) -> Operation | None:
    """The softmax from which attention weights come, through casts and what replaces NaN."""
    for _ in range(4):
        made = weights.operation
        if made is None:
            return None
        if made.name == "softmax":
            return made
        if made.name == "select":
            others = [x for x in made.operands[1:] if x is not None and constant_of(x) is None]
            if len(others) != 1:
                return None
            (weights,) = others
        elif made.name == "cast":
            (weights,) = made.inputs
        else:
            return None
    return None


def _scores_behind(value: Value) -> tuple[Operation, Value | None] | None:
    """The product of queries and keys, and the mask, behind the operand of a softmax."""
    mask: Value | None = None
    for _ in range(6):
        made = value.operation
        if made is None:
            return None
        if made.name in ("matmul", "dot"):
            return made, mask
        if made.name == "select":
            condition, x, fill = made.inputs
            if mask is not None or constant_of(fill) is None:
                return None
            mask, value = condition, x
        elif made.name == "cast":
            (value,) = made.inputs
        elif made.name in ("add", "sub", "mul", "div"):
            paths = [x for x in made.inputs if constant_of(x) is None]
            inward = [x for x in paths if _leads_to_product(x)]
            if len(inward) != 1:
                return None
            others = [x for x in paths if x is not inward[0]]
            if others:
                if mask is not None or made.name != "add":
                    return None
                (mask,) = others
            (value,) = inward
        else:
            return None
    return None


def _leads_to_product(value: Value) -> bool:
    pending, seen = [(value, 0)], 0
    while pending and seen < 16:
        current, depth = pending.pop()
        seen += 1
        made = current.operation
        if made is None or depth > 4:
            continue
        if made.name in ("matmul", "dot"):
            return True
        if made.name in ("add", "sub", "mul", "div", "cast", "select"):
            pending += [(x, depth + 1) for x in made.inputs]
    return False


def _without_numbers(value: Value) -> Value:
    """A value before it was multiplied by numbers."""
    while (operation := value.operation) is not None and operation.name in ("mul", "div"):
        x, y = operation.inputs
        if constant_of(y) is not None and x.type == value.type:
            value = x
        elif constant_of(x) is not None and y.type == value.type and operation.name == "mul":
            value = y
        else:
            break
    return value


def _scale_behind(chosen: Operation, product: Operation) -> float:
    """The number by which queries and keys are multiplied on the way to the softmax."""
    scale = 1.0

    def along(value: Value) -> Value | None:
        nonlocal scale
        made = value.operation
        if made is None or made is product or made.name not in ("mul", "div", "add", "sub", "select", "cast"):
            return None
        numbers = [n for x in made.inputs if (n := constant_of(x)) is not None]
        if made.name in ("mul", "div") and len(numbers) == 1:
            scale = scale * float(numbers[0]) if made.name == "mul" else scale / float(numbers[0])
        paths = [x for x in made.inputs if constant_of(x) is None and (_leads_to_product(x) or len(made.inputs) == 1)]
        if made.name in ("mul", "div") and len(paths) != 1:
            paths = [x for x in made.inputs if constant_of(x) is None]
        return paths[0] if len(paths) == 1 else None

    value: Value | None = chosen.inputs[0]
    while value is not None and value.operation is not product:
        value = along(value)
    for start in product.inputs:
        value = start
        while value is not None:
            made = value.operation
            if made is None or made.name not in ("mul", "div") or _without_numbers(value) is value:
                break
            value = along(value)
    return scale
