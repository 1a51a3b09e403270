"""Masked rows: attention to which a row that attends to nothing may be NaN, in the form that libraries compute."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irc.dtypes import BOOL, I64
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder, literal
from irc.ops import add, attention, equal, iota, less_equal, reduce_max, select
from irc.pass_manager import Pass, PassContext


@dataclass
class MaskedRows(Pass):
    """Let the mask of an attention say what a row gives that may attend to nothing.

    Libraries give 0 for such a row, and take no causal mask beside another. Where the attention gives NaN, rows of the
    mask that are -inf throughout become NaN; a causal mask beside another becomes part of it.

    Before: %y = attention %q, %k, %v, %mask {masked_rows = "nan"}
    After:  %y = attention %q, %k, %v, %m {masked_rows = "zero"}, where %m has NaN in rows of %mask that are all -inf
    """

    def run(self, module: Module, context: PassContext) -> bool:
        if context.products != "host":  # kernels compute what the operation says
            return False
        operations = [each for each in module.walk() if each.name == "attention" and len(each.inputs) == 4
                      and (each.attributes["masked_rows"] == "nan" or
                      (each.attributes["masked_rows"] == "zero" and each.attributes["causal"]))]  # fmt: skip
        for operation in operations:
            q, k, v, mask = operation.inputs
            attributes = {**operation.attributes, "masked_rows": "zero", "causal": False}
            with Builder.before_operation(operation, operation.location.by("masked_rows")):
                result = attention(q, k, v, _additive(operation, mask), **attributes)
            operation.replace([result])
        context.count("masked_rows", "rewritten", len(operations))
        return bool(operations)


def _additive(operation: Operation, mask: Value) -> Value:
    """The mask as numbers that are added to the scores."""
    q, k, *_ = operation.inputs
    dtype, never = (q.dtype if mask.dtype is BOOL else mask.dtype), -math.inf
    if mask.dtype is BOOL:
        mask = select(mask, literal(0.0, dtype), literal(never, dtype))
    if operation.attributes["causal"]:
        queries, keys = q.shape[2], k.shape[2]
        key, query = iota(shape=(1, keys), axis=1, dtype=I64), iota(shape=(queries, 1), axis=0, dtype=I64)
        mask = select(less_equal(key, query), mask, literal(never, dtype))
    if operation.attributes["masked_rows"] == "zero":
        return mask
    nothing = equal(reduce_max(mask, axes=(mask.rank - 1,), keep_dims=True), literal(never, dtype))
    return add(mask, select(nothing, literal(math.nan, dtype), literal(0.0, dtype)))
