"""Scatters: a scatter to one place as a selection, so that it fuses."""

from __future__ import annotations

from dataclasses import dataclass

from irc import dims
from irc.dtypes import I64
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import bitwise_and, equal, gather, iota, reshape, select, slice_, transpose
from irc.pass_manager import Pass, PassContext


@dataclass
class Scatters(Pass):
    """Write each `scatter` with one index vector, such as the step of a decoder that writes to its cache, as a
    selection of the update at the indices that are equal to it.

    A kernel then computes it with what it writes, and where the result takes the place of the operand, it writes the
    update and nothing else. Several index vectors may name one place, of which the last counts: such scatters stay.

    Before: %y = scatter %x, %place, %update
    After:  %y = select (equal (iota), %place), %update, %x
    """

    def run(self, module: Module, context: PassContext) -> bool:
        operations = [each for each in module.walk() if each.name == "scatter" and _is_to_one_place(each)]
        for operation in operations:
            with Builder.before_operation(operation, operation.location.by("scatters")):
                result = _selected(operation)
            operation.replace([result])
        context.count("scatters", "rewritten", len(operations))
        return bool(operations)


def _is_to_one_place(operation: Operation) -> bool:
    if operation.attributes["reduction"] != "none" or not all(each.type.is_ranked for each in operation.inputs):
        return False
    *places, depth = operation.inputs[1].shape
    return dims.product(places) == 1 and isinstance(depth, int) and depth > 0


def _selected(operation: Operation) -> Value:
    """The selection; of a transposed operand before it is transposed, so that the result has its layout."""
    x, indices, updates = operation.inputs
    depth, order = indices.shape[-1], tuple(range(x.rank))
    assert isinstance(depth, int)
    update = reshape(updates, shape=(*(1,) * depth, *x.shape[depth:]))
    if x.operation is not None and x.operation.name == "transpose":
        order, x = x.operation.attributes["permutation"], x.operation.inputs[0]
        update = transpose(update, permutation=tuple(map(order.index, range(x.rank))))
    places, here = reshape(indices, shape=(depth,)), None
    for position in range(depth):
        axis = order[position]
        extent = x.shape[axis]
        place = slice_(places, starts=(position,), stops=(position + 1,), steps=(1,))
        place = gather(iota(shape=(extent,), axis=0, dtype=I64), place, axis=0)  # checked, and counted from the end
        along = equal(iota(shape=(extent,), axis=0, dtype=I64), place)
        along = reshape(along, shape=(*(1,) * axis, extent, *(1,) * (x.rank - axis - 1)))
        here = along if here is None else bitwise_and(here, along)
    result: Value = select(here, update, x)
    return result if order == tuple(range(x.rank)) else transpose(result, permutation=order)
