"""Siblings: products of one operand become one product, whose columns are split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from irc.group import Group
from irc.index_map import same
from irc.interfaces import Trait
from irc.ir import Block, Operation, Value
from irc.kernel import Kernel
from irc.module import Module
from irc.op import Builder, const
from irc.ops import linear, matmul, split, split_linear, transpose
from irc.pass_manager import Pass, PassContext
from irc.passes._blocks import blocks
from irc.passes._stored_names import StoredNames
from irc.rewrite import erase_dead
from irc.weights import Array, Tensor

MOST = 8  # products that are joined: each stores its columns under a mask


@dataclass
class Siblings(Pass):
    """Join products of one operand with constant weights, such as the queries, keys and values of an attention.

    The operand is read once for all, whatever the number of columns of each. The weights are concatenated in the
    compiled program. Where libraries compute products, one call computes all, and others read parts of its result.

    Where kernels compute them (`--products irc`), what is computed of each part is computed where it is stored.
    Products that meet in a pointwise operation, such as the two of a gated layer, then stay apart: one kernel computes
    them side by side. A product of whose columns parts are read, by a split or by slices, that do not meet is written
    as the same operation.

    Before: %q = matmul %x, %wq; %k = matmul %x, %wk        After: %q, %k = split_linear %x, %w {sizes = [64, 16]}
    Calls:  %q, %k = split (matmul %x, %w) {axis = 1, sizes = [64, 16]}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        if context.products == "auto":
            return False  # a joined product would be one choice
        calls = context.products == "host"
        joined = 0
        names = StoredNames(module)
        for function in module.functions.values():
            for block in blocks(function.block):
                for products in list(_siblings(block, calls, context)):
                    context.remark("siblings", "joined", products, kernel=products[0].result.name,
                                   reason=f"they multiply %{products[0].inputs[0].name}")  # fmt: skip
                    _join(products, names, calls)
                    joined += len(products)
                joined += sum(map(_join_parts, list(block))) if not calls else 0
        context.count("siblings", "joined", joined)
        return joined > 0


def _siblings(block: Block, calls: bool, context: PassContext) -> Iterator[list[Operation]]:
    """Products of one operand, two or more; in kernels, no two of which meet."""
    by_operand: dict[tuple[Value, str], list[Operation]] = {}
    for operation in block:
        if operation.name in ("matmul", "linear") and all(map(_constant, operation.inputs[1:])):
            if _is_of_rows(operation) if calls else _is_in_kernels(operation):
                by_operand.setdefault((operation.inputs[0], operation.name), []).append(operation)
    for products in by_operand.values():
        if len(products) > 1:
            apart = [True] * len(products) if calls else _apart([product.results for product in products])
            chosen = [product for product, is_apart in zip(products, apart, strict=True) if is_apart]
            meeting = [product for product, is_apart in zip(products, apart, strict=True) if not is_apart]
            if meeting:
                context.remark("siblings", "apart", meeting, reason="they meet: one kernel computes both sums")
            yield from (chosen[start : start + MOST] for start in range(0, len(chosen) - 1, MOST))


def _is_of_rows(product: Operation) -> bool:
    """Whether an operation is the product of rows of floats with a matrix."""
    is_product = product.name in ("matmul", "linear") and product.inputs[0].rank > 1 and product.inputs[1].rank == 2
    return is_product and product.result.dtype.is_float


def _is_in_kernels(product: Operation) -> bool:
    """Whether an operation is the product of rows with a matrix, and a kernel computes it."""
    return _is_of_rows(product) and isinstance(Group([product]).kernel, Kernel)


def _constant(value: Value) -> Operation | None:
    """The constant that a value is, or the transpose of, if nothing else reads it."""
    operation = value.operation
    if operation is not None and operation.name == "transpose" and len(value.uses) == 1 and value.rank == 2:
        value, operation = operation.inputs[0], operation.inputs[0].operation
    return operation if operation is not None and operation.definition is const and len(value.uses) == 1 else None


def _apart(parts: Sequence[Sequence[Value]]) -> list[bool]:
    """Of each part, whether it meets no other: nothing is computed of both before a product of either."""
    reached_from: dict[Operation, int] = {}
    apart = [True] * len(parts)
    for number, values in enumerate(parts):
        waiting = list(values)
        while waiting:
            for user in waiting.pop().users():
                definition = user.definition
                if Trait.LIBRARY in definition.traits or definition.contraction is not None or definition.is_terminator:
                    continue
                if user not in reached_from:
                    reached_from[user] = number
                    waiting += user.results
                elif reached_from[user] != number:
                    apart[number] = apart[reached_from[user]] = False
    return apart


def _join(products: Sequence[Operation], names: StoredNames, calls: bool) -> None:
    """Replace products by one. The joined weight is transposed if one of the weights is: their rows stay contiguous."""
    first, weights = products[0], [product.inputs[1] for product in products]
    biases = [product.inputs[2] for product in products if len(product.inputs) > 2]
    sizes = tuple(product.result.shape[-1] for product in products)
    constants = [constant for value in (*weights, *biases) if (constant := _constant(value)) is not None]
    turned = any(_is_transposed(weight) for weight in weights)
    with Builder.before_operation(first, first.location.by("siblings")):
        weight = _concatenated([(value, _is_transposed(value) != turned) for value in weights], 1 - turned, names)
        operands = [transpose(weight, permutation=(1, 0)) if turned else weight]
        operands += [_concatenated([(value, False) for value in biases], 0, names)] if biases else []
        inputs = (first.inputs[0], *operands)
        if calls:
            results = split(matmul(*inputs) if first.name == "matmul" else linear(*inputs), axis=-1, sizes=sizes)
        else:
            results = split_linear(*inputs, sizes=sizes)
    for product, result in zip(products, results, strict=True):
        product.replace([result])
    erase_dead([value.operation for value in weights if value.operation is not None])
    erase_dead(constants)


def _is_transposed(weight: Value) -> bool:
    return weight.operation is not _constant(weight)


def _concatenated(parts: Sequence[tuple[Value, bool]], axis: int, names: StoredNames) -> Value:
    """One constant of several along an axis, each with whether it is turned; their elements are read when it is."""
    tensors = [(constant.attributes["value"], turned) for value, turned in parts if (constant := _constant(value))]
    shapes = [tensor.shape[::-1] if turned else tensor.shape for tensor, turned in tensors]
    shape = [sum(each[axis] for each in shapes) if position == axis else extent
             for position, extent in enumerate(shapes[0])]  # fmt: skip

    def elements() -> Array:
        return np.concatenate([tensor.array().T if turned else tensor.array() for tensor, turned in tensors], axis)

    first = tensors[0][0]
    name = names.derived(first, "joined")
    return const(value=Tensor(first.dtype, shape, elements, name), name=name)


def _join_parts(operation: Operation) -> bool:
    """Replace a product of which only parts of its columns are read, and what takes them, by one operation; returns
    whether they are."""
    parts = _parts(operation) if operation.name in ("matmul", "linear") else []
    if len(parts) < 2 or not _is_in_kernels(operation) or not all(_apart([[part] for part in parts])):
        return False
    takers = list(dict.fromkeys(part.operation for part in parts if part.operation is not None))
    first = min(takers, key=lambda each: each.order_label)
    with Builder.before_operation(first, first.location.by("siblings")):
        results = split_linear(*operation.inputs, sizes=tuple(part.shape[-1] for part in parts))
    replacing = dict(zip(parts, results, strict=True))
    for taker in takers:
        taker.replace([replacing[result] for result in taker.results])
    operation.erase()
    return True


def _parts(operation: Operation) -> list[Value]:
    """The consecutive parts of the columns of a product that are all that is read of it: by a split, or by slices."""
    product = operation.result
    users = list(product.users())
    if any(user.block is not operation.block for user in users):
        return []
    if [user.name for user in users] == ["split"]:
        is_last = users[0].attributes["axis"] % product.rank == product.rank - 1
        return list(users[0].results) if is_last else []
    if {user.name for user in users} != {"slice"} or not isinstance(product.shape[-1], int):
        return []
    ranges = []
    for user in users:
        starts, stops, steps = (user.attributes[name] for name in ("starts", "stops", "steps"))
        is_whole = all(map(same, user.result.shape[:-1], product.shape[:-1]))
        if not is_whole or set(steps) != {1} or not all(isinstance(end, int) for end in (starts[-1], stops[-1])):
            return []
        ranges.append((starts[-1], stops[-1], user.result))
    ranges.sort(key=lambda each: each[:2])
    ends = [0, *(stop for _, stop, _ in ranges)]
    is_partition = [start for start, _, _ in ranges] == ends[:-1] and ends[-1] == product.shape[-1]
    return [part for _, _, part in ranges] if is_partition else []
