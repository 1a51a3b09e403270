"""Row gathers: slices, concatenations and transposes that move whole rows become one gather of these rows."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from irc.dtypes import I64
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder, const
from irc.ops import gather, reshape
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._blocks import blocks
from irc.passes._stored_names import StoredNames
from irc.rewrite import erase_dead
from irc.weights import Array, Tensor

MOVES = ("concat", "reshape", "slice", "split", "transpose")
MOST_MOVES = 32  # of one gather
MOST_ROWS = 1 << 16  # whose numbers are stored
MOST_MOVED_ROWS = 1 << 22  # whose numbers are computed, of one value


@dataclass
class RowGathers(Pass):
    """Gather rows by constant numbers where several moves take the rows of one value to other places.

    The moves keep the last axis, or put rows side by side along it, as the first merging of patches does; shapes are
    known. A model then stores the number of each row.

    Benefit: Swin rolls an image by four slices and three concatenations and divides it into windows by a transpose:
    one pass over memory in place of four. Rows of few elements are gathered no faster.

    Before: %0 = slice %x [3:]; %1 = slice %x [:3]; %2 = concat %0, %1; %3 = reshape %2; %y = transpose %3
    After:  %0 = const [3, 4, ...]; %y = gather %x, %0 {axis = 0}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        numbers, count = _Numbers(StoredNames(module)), 0
        for function in module.functions.values():
            for block in list(blocks(function.block)):
                for operation in reversed(list(block)):
                    if operation.block is block and _is_last_move(operation):
                        count += _gathered(operation, numbers, context)
        context.count("row_gathers", "replaced", count)
        return count > 0


@dataclass
class _Numbers:
    """The constants of row numbers, one for equal ones."""

    names: StoredNames
    tensors: dict[bytes, Tensor] = field(default_factory=dict)

    def of(self, rows: Array) -> Tensor:
        key = rows.tobytes()
        if key not in self.tensors:
            tensor = Tensor.of(rows, I64, "moved")
            self.tensors[key] = tensor.renamed(self.names.derived(tensor, "rows"))
        return self.tensors[key]


def _is_move(operation: Operation | None) -> bool:
    if operation is None or operation.name not in MOVES:
        return False
    places = (*operation.attributes["starts"], *operation.attributes["stops"]) if operation.name == "slice" else ()
    if not all(isinstance(place, int) for place in places):  # that a run computes
        return False
    return all(value.type.is_ranked and value.type.is_static and value.rank
               for value in (*operation.inputs, *operation.results))  # fmt: skip


def _is_last_move(operation: Operation) -> bool:
    """Whether an operation moves elements to where something else reads them."""
    if not _is_move(operation) or len(operation.results) != 1 or 0 in operation.result.shape:
        return False
    users = list(operation.result.users())
    return bool(users) and not all(map(_is_move, users))


def _gathered(last: Operation, numbers: _Numbers, context: PassContext) -> bool:
    moves = _moves_to(last)
    sources = {value: None for move in moves for value in move.inputs if value.operation not in moves}
    if len(moves) < 2 or len(sources) != 1:
        return False
    (source,) = sources
    rows = _rows_of(last, moves, source) if _are_few(source, moves) else None
    if rows is None or rows.size > MOST_ROWS or (rows == np.arange(rows.size)).all():
        return False
    if not pays(context, "row_gathers", moves):
        return False
    width = source.shape[-1]
    assert isinstance(width, int)
    with Builder.before_operation(last, last.location.by("row_gathers")):
        matrix = reshape(source, shape=(source.type.elements // width, width))
        moved = gather(matrix, const(value=numbers.of(rows)), axis=0)
        last.replace([reshape(moved, shape=last.result.shape)])
    erase_dead([move for move in moves if move is not last])
    return True


def _moves_to(last: Operation) -> list[Operation]:
    """The moves that lead to a value and to nothing else, in program order."""
    moves, heap, seen = [last], list[tuple[int, Operation]](), {last}

    def visit(operation: Operation) -> None:
        for maker in (value.operation for value in operation.inputs):
            if maker is not None and maker not in seen and _is_move(maker) and maker.block is last.block:
                seen.add(maker)
                heapq.heappush(heap, (-maker.order_label, maker))

    visit(last)
    chosen = {last}
    while heap and len(moves) < MOST_MOVES:
        _, maker = heapq.heappop(heap)  # after all that read it
        if all(user in chosen for result in maker.results for user in result.users()):
            chosen.add(maker)
            moves.append(maker)
            visit(maker)
    return moves[::-1]


def _are_few(source: Value, moves: list[Operation]) -> bool:
    """Whether the numbers of all rows that are moved fit in memory beside the compiler."""
    values = (source, *(result for move in moves for result in move.results))
    return all(prod(value.type.static_shape()[:-1]) <= MOST_MOVED_ROWS for value in values)


def _rows_of(last: Operation, moves: list[Operation], source: Value) -> Array | None:
    """The number of the source's row that each row of the last result is; None where a row is divided."""
    width = source.shape[-1]
    count = source.type.elements // width if isinstance(width, int) and isinstance(source.type.elements, int) else 0
    if count < 1:
        return None
    rows = {source: np.arange(count).reshape(source.type.static_shape()[:-1])}
    for index, move in enumerate(moves):
        if _joins_rows(move):
            if any(value.shape[-1] != width for value in move.inputs) or any(
                each.name != "reshape" for each in moves[index + 1 :]
            ):
                return None
            return np.stack([rows[value] for value in move.inputs], axis=-1).reshape(-1)
        for result, moved in _moved(move, rows, width):
            if moved is None:
                return None
            rows[result] = moved
    return rows[last.result].reshape(-1)


def _joins_rows(move: Operation) -> bool:
    """Whether an operation puts rows side by side."""
    return move.name == "concat" and move.attributes["axis"] % move.result.rank == move.result.rank - 1


def _moved(move: Operation, rows: Mapping[Value, Array], width: object) -> Iterator[tuple[Value, Array | None]]:
    """The row numbers of each result of a move that keeps the last axis."""
    first, attributes = rows[move.inputs[0]], move.attributes
    if any(result.shape[-1] != width for result in move.results):
        yield from ((result, None) for result in move.results)
    elif move.name == "reshape":
        yield move.result, first.reshape(move.result.type.static_shape()[:-1])
    elif move.name == "transpose":
        order = attributes["permutation"]
        yield move.result, first.transpose(order[:-1]) if order[-1] == len(order) - 1 else None
    elif move.name == "slice":
        bounds = zip(attributes["starts"], attributes["stops"], attributes["steps"], strict=True)
        yield move.result, first[tuple(slice(*each) for each in bounds)[:-1]]
    else:
        axis = attributes["axis"] % move.inputs[0].rank
        if axis == first.ndim:
            yield from ((result, None) for result in move.results)
        elif move.name == "concat":
            yield move.result, np.concatenate([rows[value] for value in move.inputs], axis)
        else:
            parts = np.split(first, np.cumsum(attributes["sizes"])[:-1], axis)
            yield from zip(move.results, parts, strict=True)
