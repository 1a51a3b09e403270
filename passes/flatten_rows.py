"""Flatten rows: what computes on each row of its operands alone computes on a matrix of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from irc import dims
from irc.dims import Dim
from irc.index_map import same
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import Builder
from irc.ops import reshape
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._blocks import blocks
from irc.passes._parts import NORMS
from irc.rewrite import erase_dead

PRODUCTS = ("matmul", "linear", "matmul_packed")  # of rows with a matrix


@dataclass
class FlattenRows(Pass):
    """Compute products, norms and pointwise operations of [B, S, F] on matrices [B*S, F].

    A region is connected by its values of rank 3 or more, and has a product with a matrix, or a norm and a reshape into
    or from a matrix of the same rows. Reshapes are left where its values come from and go to others; `canonicalize`
    joins them with those that are there. Regions whose matrices would need two extents or more that are not known, to
    be shaped back, stay as they are.

    Benefit: ONNX Runtime computes a product with a bias as one Gemm, which is for matrices; given [B, S, F] it
    puts a Reshape on either side of each, and makes an addition and a norm of rank 3 one SkipLayerNormalization, which
    is 5 to 7 times slower than the two. Transformers gain 5 to 20 percent. Where nothing is added to the products and
    there are no norms nothing is gained or lost.

    Before: %0 = matmul %x, %w : f32[2, 8, 64]; %1 = add %0, %b; %y = layer_norm %1
    After:  %2 = reshape %x : f32[16, 32]; %0 = matmul %2, %w : f32[16, 64]; %1 = add %0, %b; %3 = layer_norm %1;
            %y = reshape %3 : f32[2, 8, 64]
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for function in module.functions.values():
            for block in list(blocks(function.block)):
                for region in _regions(block):
                    if pays(context, "flatten_rows", region):
                        _flatten(region)
                        count += len(region)
        context.count("flatten_rows", "flattened", count)
        return count > 0


# -- regions -----------------------------------------------------------------------------------------------------


def _regions(block: Block) -> list[list[Operation]]:
    """The regions of a block, each in program order."""
    candidates = {operation: None for operation in block if _is_on_rows(operation)}
    regions, seen = [], set[Operation]()
    for start in candidates:
        if start in seen:
            continue
        region, waiting = list[Operation](), [start]
        seen.add(start)
        while waiting:
            operation = waiting.pop()
            region.append(operation)
            for neighbor in _neighbors(operation):
                if neighbor in candidates and neighbor not in seen:
                    seen.add(neighbor)
                    waiting.append(neighbor)
        if any(each.name in (*PRODUCTS, *NORMS) for each in region) and any(map(_is_of_matrices, region)):
            regions.append(sorted(region, key=lambda each: each.order_label))
    return regions


def _neighbors(operation: Operation) -> Iterator[Operation]:
    """What makes or reads the rows of an operation."""
    for value in _rows_read(operation):
        if value.operation is not None:
            yield value.operation
        yield from value.users()
    yield from operation.result.users()


def _is_on_rows(operation: Operation) -> bool:
    """Whether each row of the result, of rank 3 or more, is computed from the same row of the operands alone."""
    if len(operation.results) != 1 or not all(value.type.is_ranked for value in (*operation.inputs, operation.result)):
        return False
    result, name, rank = operation.result, operation.name, operation.result.rank
    unknown = [dim for dim in result.shape[:-1] if not isinstance(dim, int)]
    if rank < 3 or len(unknown) > 1 or 0 in result.shape:
        return False
    if name in PRODUCTS:
        x, weight = operation.inputs[:2]
        return x.rank == rank and (name == "matmul_packed" or weight.rank == 2)
    if name in NORMS:
        return operation.attributes["axis"] % rank == rank - 1
    if operation.definition.pointwise is None:
        return False
    return bool(_rows_read(operation)) and all(
        _has_all_rows(value, result) or _is_one_row(value) for value in operation.inputs
    )


def _rows_read(operation: Operation) -> list[Value]:
    """The operands of which the result has a row for each row."""
    if operation.definition.pointwise is None:
        return [operation.inputs[0]]
    return [value for value in operation.inputs if _has_all_rows(value, operation.result)]


def _has_all_rows(value: Value, result: Value) -> bool:
    """Whether an operand, which broadcasts to the result, has an element for each of the result."""
    return value.rank > 1 and same(value.type.elements, result.type.elements)


def _is_one_row(value: Value) -> bool:
    """Whether an operand is the same for all rows."""
    return all(same(dim, 1) for dim in value.shape[:-1])


def _is_of_matrices(operation: Operation) -> bool:
    """Whether it is a product, or its rows are those of a matrix before or after a reshape."""
    if operation.name in PRODUCTS:
        return True
    reshaped = [user.result for user in operation.result.users() if user.name == "reshape"]
    sources = (value.operation for value in _rows_read(operation))
    reshaped += [maker.inputs[0] for maker in sources if maker is not None and maker.name == "reshape"]
    return any(value.rank == 2 and same(value.shape[-1], operation.result.shape[-1]) for value in reshaped)


# -- rewriting ---------------------------------------------------------------------------------------------------


def _flatten(region: list[Operation]) -> None:
    flat: dict[Value, Value] = {}
    for operation in region:
        result, rows = operation.result, _rows_read(operation)
        with Builder.before_operation(operation, operation.location.by("flatten_rows")):
            operands = [None if value is None else _matrix(value, flat) if value in rows else _row(operation, value)
                        for value in operation.operands]  # fmt: skip
            attributes: dict[str, Any] = dict(operation.attributes)
            if operation.name in NORMS:
                attributes["axis"] = 1
            matrix = operation.definition(*operands, **attributes)
            shaped = reshape(matrix, shape=result.shape)
        flat[shaped] = matrix
        operation.replace([shaped])
    erase_dead([shaped.operation for shaped in reversed(flat) if shaped.operation is not None])


def _matrix(value: Value, flat: dict[Value, Value]) -> Value:
    """The rows of a value as a matrix."""
    if value in flat:
        return flat[value]
    if value.rank == 2:
        return value
    rows: Dim = dims.product(value.shape[:-1])
    return reshape(value, shape=(rows, value.shape[-1]))


def _row(operation: Operation, value: Value) -> Value:
    """An operand that is the same for all rows, as a vector; what is no operand of a pointwise operation as it is."""
    if operation.definition.pointwise is None or value.rank < 2:
        return value
    return reshape(value, shape=(value.shape[-1],))
