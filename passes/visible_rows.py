"""Visible rows: attention in which each query is proven to attend to some key needs no test for fully masked rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.dtypes import BOOL, limits
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import Builder, const, is_constant, literal
from irc.ops import attention, maximum, select
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._stored_names import StoredNames
from irc.pattern import constant_of
from irc.ranges import number_range
from irc.weights import Array, Tensor


@dataclass
class VisibleRows(Pass):
    """Make `masked_rows` "zero" in each attention that is proven to have no fully masked rows.

    There are none without a mask, since a causal attention shows the first key to each query; with a mask that is added
    and has no -inf (`irc.ranges`), since all keys count then; and with a constant mask that shows a key to each query.
    The least number of a type, which ONNX Runtime takes for -inf, is halved: no score is so large that it would make a
    difference. An attention with another mask stays. Of scores that are NaN the result is NaN, as PyTorch computes it,
    where a model exported by PyTorch gives 0; modules whose edge cases are defined are not changed.

    Benefit: PyTorch exports `Where(IsNaN(softmax), 0, softmax)`; without the two, and as one operator, attention
    is 1.3 times as fast.

    Before: attention %q, %k, %v {masked_rows = "nan_as_zero"}        After: attention %q, %k, %v {masked_rows = "zero"}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        if module.edge_cases == "defined" or context.numerics == "exact":
            return False
        count, limited = 0, _Limited(module)
        for operation in [each for each in module.walk() if each.name == "attention"]:
            if operation.attributes["masked_rows"] != "zero" and pays(context, "visible_rows", [operation]):
                count += _proven(operation, limited)
        context.count("visible_rows", "proven", count)
        return count > 0


def _proven(operation: Operation, limited: _Limited) -> bool:
    q, k, v, *masks = operation.inputs
    if masks and not _shows_a_key(masks[0], operation.attributes["causal"]):
        return False
    with Builder.before_operation(operation, operation.location.by("visible_rows")):
        masks = [mask if mask.dtype is BOOL else limited.of(mask, operation) for mask in masks]
        result = attention(q, k, v, *masks, **{**operation.attributes, "masked_rows": "zero"})
    operation.replace([result])
    return True


def _shows_a_key(mask: Value, causal: bool) -> bool:
    """Whether each row of a mask, beside a causal one, has a key that counts."""
    if mask.dtype is not BOOL:
        ends, lowest = number_range(mask), limits(mask.dtype).smallest
        if mask.dtype.bits < 32 and (ends is None or ends[0] < lowest / 2):
            return False  # beside such numbers the digits of scores are lost, of which half the number keeps one more
        if ends is not None and np.isfinite(ends).all():
            return True
    array = _content(mask)
    if array is None or causal or array.ndim == 0:
        return False
    shown = array if mask.dtype is BOOL else array.astype(np.float64) > -np.inf
    return bool(shown.any(axis=-1).all()) and (mask.dtype is BOOL or not np.isnan(array.astype(np.float64)).any())


def _content(value: Value) -> Array | None:
    operation = value.operation
    if operation is None or not is_constant(value):
        return None
    return np.asarray(operation.attributes["value"].array())


class _Limited:
    """Masks without the least number of their type, one for all attention of a block that has the same mask."""

    def __init__(self, module: Module) -> None:
        self.names = StoredNames(module)
        self.values: dict[tuple[Value, Block | None], Value] = {}

    def of(self, mask: Value, operation: Operation) -> Value:
        key = mask, operation.block
        if key not in self.values:
            self.values[key] = self._of(mask)
        return self.values[key]

    def _of(self, mask: Value) -> Value:
        lowest = limits(mask.dtype).smallest
        ends, array, maker = number_range(mask), _content(mask), mask.operation
        if ends is not None and ends[0] > lowest:
            return mask
        if array is not None and maker is not None:
            if not (array == lowest).any():
                return mask
            name = self.names.derived(maker.attributes["value"], "limited")
            tensor = Tensor.of(np.where(array == lowest, lowest / 2, array.astype(np.float64)), mask.dtype, name)
            return const(value=tensor, name=name)
        if maker is not None and maker.name == "select":
            condition, *numbers = maker.inputs
            return select(condition, *(literal(lowest / 2, mask.dtype) if constant_of(each) == lowest else each
                                       for each in numbers))  # fmt: skip
        return maximum(mask, literal(lowest / 2, mask.dtype))
