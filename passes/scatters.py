"""Scatters: a scatter to one place, or to places that follow one another, as a selection, so that it fuses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np

from irc import dims
from irc.dims import Dim
from irc.dtypes import I64
from irc.index_map import inverse
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import (
    add,
    bitwise_and,
    cast,
    equal,
    expand,
    gather,
    iota,
    less,
    less_equal,
    maximum,
    minimum,
    mod,
    pad,
    reshape,
    scatter,
    select,
    slice_,
    sub,
    transpose,
)
from irc.ops.named.common import number
from irc.pass_manager import Pass, PassContext


@dataclass
class Scatters(Pass):
    """Write each `scatter` with one index vector, such as the step of a decoder that writes to its cache, as a
    selection of the update at the indices that are equal to it, and one to consecutive places, such as a prompt's, as a
    selection of the updates between the first and the last of them.

    A kernel then computes it with what it writes, and where the result takes the place of the operand, it writes the
    updates and nothing else. Several index vectors may name one place, of which the last counts: where they are rows of
    an argument that the program updates, which of them it is, is scattered instead of the updates. Other scatters stay.

    Before: %y = scatter %x, %place, %update
    After:  %y = select (equal (iota), %place), %update, %x
    """

    def run(self, module: Module, context: PassContext) -> bool:
        updated = set(module.main.updates.values())
        forms = [(each, _form_of(each, updated)) for each in module.walk() if each.name == "scatter"]
        operations = [(operation, form) for operation, form in forms if form is not None]
        for operation, form in operations:
            with Builder.before_operation(operation, operation.location.by("scatters")):
                result = _selected(operation, form)
            operation.replace([result])
        context.count("scatters", "rewritten", len(operations))
        return bool(operations)


# Of the operand, the indices, the updates and the order of the operand's axes in which indices are along them: where it
# is written to, and for all of its elements what is written there.
Form = Callable[[Value, Value, Value, tuple[int, ...]], tuple[Value, Value]]


def _form_of(operation: Operation, updated: Collection[Value]) -> Form | None:
    """How a scatter is selected; `updated` are the arguments that the program updates."""
    if operation.attributes["reduction"] != "none" or not all(each.type.is_ranked for each in operation.inputs):
        return None
    if _is_to_one_place(operation):
        return _at_place
    if _is_to_a_window(operation):
        return _in_window
    return _in_rows if _is_to_rows_of(updated, operation) else None


def _untransposed(x: Value) -> tuple[Value, tuple[int, ...]]:
    """What x is the transpose of, and its order; of other values these as they are."""
    if x.operation is not None and x.operation.name == "transpose":
        return x.operation.inputs[0], x.operation.attributes["permutation"]
    return x, tuple(range(x.rank))


def _is_to_one_place(operation: Operation) -> bool:
    *places, depth = operation.inputs[1].shape
    return dims.product(places) == 1 and isinstance(depth, int) and depth > 0


def _is_to_a_window(operation: Operation) -> bool:
    """Whether the places are consecutive, along the first axis, and none is named twice: they are no more than it has
    elements, or are not counted from its end."""
    x, indices, _ = operation.inputs
    if indices.rank != 2 or indices.shape[1] != 1:
        return False
    extent = x.shape[0]
    are_few = dims.less_equal(indices.shape[0], extent) is True
    return (are_few or _are_from_the_start(indices, extent)) and _are_consecutive(indices, extent)


def _is_to_rows_of(updated: Collection[Value], operation: Operation) -> bool:
    """Whether the places are along the first axis of one of some arguments, or of its transpose."""
    x, indices, _ = operation.inputs
    return _untransposed(x)[0] in updated and x.rank > 1 and indices.rank == 2 and indices.shape[1] == 1


def _are_consecutive(x: Value, extent: Dim) -> bool:
    """Whether the elements of an integer vector, or of a column, are known to follow one another, but for those that
    are no indices of an axis, which are an error."""
    operation = x.operation
    if operation is None or not x.type.is_ranked or not (x.rank == 1 or (x.rank == 2 and x.shape[1] == 1)):
        return False
    operands = operation.inputs
    match operation.name:
        case "iota":
            return x.rank == 1
        case "const":
            return bool((np.diff(operation.attributes["value"].array().astype(np.int64), axis=0) == 1).all())
        case "dim":
            return all(dims.same(after, each + 1) for each, after in pairwise(operation.attributes["value"]))
        case "add" if x.dtype is I64 and operands[0].type.elements == 1:
            return _are_consecutive(operands[1], extent)
        case "add" | "sub" if x.dtype is I64 and operands[1].type.elements == 1:
            return _are_consecutive(operands[0], extent)
        case "reshape":
            return _are_consecutive(operands[0], extent)
        case "gather":
            return _are_from_the_start(x, extent) and _are_consecutive(operands[1], extent)
    return False


def _are_from_the_start(x: Value, extent: Dim) -> bool:
    """Whether x, but for its shape, are indices that were found to be neither negative nor beyond an axis."""
    operation = x.operation
    while operation is not None and operation.name == "reshape":
        operation = operation.inputs[0].operation
    if operation is None or operation.name != "gather" or operation.attributes["bounds"] != "positive":
        return False
    table = operation.inputs[0].operation
    return table is not None and table.name == "iota" and dims.product(table.attributes["shape"]) == extent


def _selected(operation: Operation, form: Form) -> Value:
    """The selection; of a transposed operand before it is transposed, so that the result has its layout."""
    (x, order), (indices, updates) = _untransposed(operation.inputs[0]), operation.inputs[1:]
    here, update = form(x, indices, updates, order)
    result: Value = select(here, update, x)
    return result if order == tuple(range(x.rank)) else transpose(result, permutation=order)


def _at_place(x: Value, indices: Value, updates: Value, order: tuple[int, ...]) -> tuple[Value, Value]:
    """By one index vector."""
    depth, parts = indices.shape[-1], list[Value]()
    assert isinstance(depth, int)
    update = reshape(updates, shape=(*(1,) * depth, *(x.shape[axis] for axis in order[depth:])))
    places = reshape(indices, shape=(depth,))
    for position in range(depth):
        axis = order[position]
        place = slice_(places, starts=(position,), stops=(position + 1,), steps=(1,))
        place = gather(_along(x, axis), place, axis=0)  # checked, and counted from the end
        parts.append(_beside(equal(_along(x, axis), place), x.rank, axis))
    return reduce(bitwise_and, parts), transpose(update, permutation=inverse(order))


def _in_window(x: Value, indices: Value, updates: Value, order: tuple[int, ...]) -> tuple[Value, Value]:
    """At consecutive places of an axis."""
    axis, count, places = order[0], indices.shape[0], cast(reshape(indices, shape=indices.shape[:1]), to=I64)
    extent = x.shape[axis]
    if dims.less_equal(1, count) is not True:  # of no places the first is 0, which is one
        places = pad(places, low=(0,), high=(1,))
    first, along = slice_(places, starts=(0,), stops=(1,), steps=(1,)), _along(x, axis)
    if _are_from_the_start(indices, extent):
        first = gather(iota(shape=(dims.maximum(extent - count + 1, 0),), axis=0, dtype=I64), first, axis=0,
                       bounds="positive")  # so that the last is checked, too  # fmt: skip
        place = sub(along, first)
        here = bitwise_and(less_equal(first, along), less(along, add(first, number(count, I64))))
    else:
        every = sub(iota(shape=(2 * extent - count + 1,), axis=0, dtype=I64), number(extent, I64))
        first = gather(every, add(first, number(extent, I64)), axis=0, bounds="positive")
        place = mod(sub(along, first), number(extent, I64))
        here = less(place, number(count, I64))
    row = minimum(maximum(add(place, 1), 0), number(count + 1, I64))
    return _beside(here, x.rank, axis), _rows_of(updates, row, order, 1)


def _in_rows(x: Value, indices: Value, updates: Value, order: tuple[int, ...]) -> tuple[Value, Value]:
    """At any places of an axis; of updates to one place the last counts."""
    axis, count = order[0], indices.shape[0]
    none = expand(number(0, I64), shape=(x.shape[axis],))
    row = scatter(none, indices, add(iota(shape=(count,), axis=0, dtype=I64), 1))
    return _beside(less(0, row), x.rank, axis), _rows_of(updates, row, order, 0)


def _rows_of(updates: Value, row: Value, order: tuple[int, ...], after: int) -> Value:
    """The rows of updates, counted from 1, in the order of the operand's axes. Others are zeros: row 0, and as many
    `after` the last."""
    moved = transpose(updates, permutation=inverse(order))
    beside = [int(axis == order[0]) for axis in range(moved.rank)]
    padded = pad(moved, low=tuple(beside), high=tuple(after * each for each in beside))
    return gather(padded, row, axis=order[0], bounds="promised")


def _along(x: Value, axis: int) -> Value:
    return iota(shape=(x.shape[axis],), axis=0, dtype=I64)


def _beside(x: Value, rank: int, axis: int) -> Value:
    """A vector as a tensor of a rank, along an axis."""
    return reshape(x, shape=(*(1,) * axis, *x.shape, *(1,) * (rank - axis - 1)))
