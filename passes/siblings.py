"""Siblings: products of one operand become one product, whose columns are split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irc.diagnostics import Diagnostic, IrcError
from irc.group import Group
from irc.index_map import same
from irc.interfaces import Trait
from irc.ir import Block, Function, Operation, Value, rename
from irc.kernel import Kernel
from irc.kernel.failure import failure_of
from irc.kernel.rules import are_in_one_block
from irc.kernel.sibling_rules import siblings_multiply_one_value
from irc.module import Module
from irc.op import Builder, const
from irc.ops import lookup
from irc.pass_manager import Pass, PassContext
from irc.passes._blocks import blocks
from irc.passes._stored_names import StoredNames
from irc.plan_file import Entry, siblings_entry
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

    A plan that is followed states which products are joined (rule F19); the plan that is written states those of rules.

    Before: %q = matmul %x, %wq; %k = matmul %x, %wk        After: %q, %k = split_linear %x, %w {sizes = [64, 16]}
    Calls:  %q, %k = split (matmul %x, %w) {axis = 1, sizes = [64, 16]}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        joined, errors, names = 0, list[Diagnostic](), StoredNames(module)
        for function in module.functions.values():
            name = None if function is module.main else function.name
            entries = stated(function, name, context)
            if entries is None:
                chosen = [(siblings_entry(each, name), each) for each in _chosen(function, context)]
            else:
                chosen = _followed(function, entries, context, errors)
            context.joined[function.name] = tuple(entry for entry, _ in chosen)
            for _, products in chosen:
                context.remark("siblings" if entries is None else "plan", "joined", products,
                               kernel=products[0].result.name,
                               reason=f"they multiply %{products[0].inputs[0].name}")  # fmt: skip
                _join(products, names, context.products == "host")
                joined += len(products)
            if context.products == "irc":
                joined += sum(_join_parts(each) for block in blocks(function.block) for each in list(block))
        if errors:
            raise IrcError(sorted(errors, key=lambda each: each.location.line))
        context.count("siblings", "joined", joined)
        return joined > 0


def stated(function: Function, name: str | None, context: PassContext) -> list[Entry] | None:
    """The siblings of a function that the plan states which is followed; None where it leaves them to rules. `name` is
    None for the main function."""
    if context.followed is None or context.followed.siblings is None:
        return None
    return [entry for entry in context.followed.siblings
            if entry.function in (function.name, name)]  # fmt: skip


def _chosen(function: Function, context: PassContext) -> list[list[Operation]]:
    """The products to be joined by rules; with products=auto none, since a joined product would be one choice."""
    if context.products == "auto":
        return []
    calls = context.products == "host"
    return [products for block in blocks(function.block) for products in _siblings(block, calls, context)]


def _followed(function: Function, entries: Iterable[Entry], context: PassContext,
              errors: list[Diagnostic]) -> list[tuple[Entry, list[Operation]]]:  # fmt: skip
    """The products of each entry, both in the order of the program; errors are added to `errors`."""
    chosen, taken, calls = [], set[Operation](), context.products == "host"
    for entry in entries:
        try:
            products = entry.find(function)
            if not taken.isdisjoint(products):
                raise IrcError([entry.error("products of it are in another entry")])
            if context.products == "auto":
                raise IrcError([entry.error("with products=auto each product is a choice", help="--products irc")])
        except IrcError as error:
            errors += error.diagnostics
            continue
        have_weights = [_has_weights(product, calls) for product in products]
        meet = [not calls and not apart for apart in _apart([product.results for product in products])]
        failure = failure_of(are_in_one_block, products)
        failure = failure or failure_of(siblings_multiply_one_value, products, have_weights, meet, MOST)
        if failure is not None:
            errors.append(entry.illegal(failure))
            continue
        products.sort(key=lambda each: each.order_label)
        inserted = siblings_entry(products, entry.function)
        chosen.append((replace(inserted, comment=entry.comment, place=entry.place), products))
        taken.update(products)
    return chosen


def _siblings(block: Block, calls: bool, context: PassContext) -> Iterator[list[Operation]]:
    """Products of one operand, two or more; in kernels, no two of which meet."""
    by_operand: dict[tuple[Value, str], list[Operation]] = {}
    for operation in block:
        if _has_weights(operation, calls):
            by_operand.setdefault((operation.inputs[0], operation.name), []).append(operation)
    for products in by_operand.values():
        if len(products) > 1:
            apart = [True] * len(products) if calls else _apart([product.results for product in products])
            chosen = [product for product, is_apart in zip(products, apart, strict=True) if is_apart]
            meeting = [product for product, is_apart in zip(products, apart, strict=True) if not is_apart]
            if meeting:
                context.remark("siblings", "apart", meeting, reason="they meet: one kernel computes both sums")
            yield from (chosen[start : start + MOST] for start in range(0, len(chosen) - 1, MOST))


def _has_weights(operation: Operation, calls: bool) -> bool:
    """Whether an operation is the product of rows with constants, which a library or a kernel computes."""
    if operation.name not in ("matmul", "linear") or not all(map(_constant, operation.inputs[1:])):
        return False
    return _is_of_rows(operation) if calls else _is_in_kernels(operation)


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
    parts = [_new_name(product, "part") for product in products]
    with Builder.before_operation(first, first.location.by("siblings")) as builder:
        weight = _concatenated([(value, _is_transposed(value) != turned) for value in weights], 1 - turned, names)
        if turned:
            permuted = {"permutation": (1, 0)}
            weight = builder.create(lookup("transpose"), [weight], permuted, names=[_new_name(first, "weight")]).result
        biases = [_concatenated([(value, False) for value in biases], 0, names)] if biases else []
        inputs = [first.inputs[0], weight, *biases]
        if calls:
            joined = builder.create(lookup(first.name), inputs, names=[_new_name(first, "joined")]).result
            results = builder.create(lookup("split"), [joined], {"axis": -1, "sizes": sizes}, names=parts).results
        else:
            results = builder.create(lookup("split_linear"), inputs, {"sizes": sizes}, names=parts).results
    for product, result in zip(products, results, strict=True):
        name = product.result.name
        product.replace([result])
        rename(result, name)
    erase_dead([value.operation for value in weights if value.operation is not None])
    erase_dead(constants)


def _new_name(product: Operation, what: str) -> str:
    """A name for a new value. None is a mere number: what has one later is called the same, joined or not."""
    name = product.result.name
    return f"{what}_{name}" if name.isdecimal() else f"{name}_{what}"


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
        results = lookup("split_linear")(*operation.inputs, sizes=tuple(part.shape[-1] for part in parts))
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
