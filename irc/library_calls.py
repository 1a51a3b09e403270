"""What a library call of an operation costs: bytes, arithmetic, and the time that is estimated for it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from irc import dims
from irc.device import Device
from irc.dims import Dim, Symbol
from irc.interfaces import Trait
from irc.ir import Operation
from irc.kernel.roofline import Estimate, Matrices, call_estimate
from irc.sizes import bytes_at


def library_estimate(operation: Operation, sizes: Mapping[Symbol, int], device: Device) -> Estimate:
    """The time of a library call that computes the operation."""
    flops = product_flops(operation, sizes)
    return call_estimate(operation_bytes(operation, sizes), flops, products_of(operation, sizes), device)


def operation_bytes(operation: Operation, sizes: Mapping[Symbol, int]) -> int:
    """Bytes of the distinct elements that an operation reads and writes."""
    values = dict.fromkeys([*operation.inputs, *operation.results])
    return sum(bytes_at(value, sizes) for value in values)


def product_flops(operation: Operation, sizes: Mapping[Symbol, int]) -> int:
    """Multiplications and additions of a library call, in each contraction that its body consists of; 0 of other
    operations."""
    if Trait.LIBRARY not in operation.definition.traits or not all(value.type.is_ranked for value in operation.inputs):
        return 0
    flops: Dim = 0
    waiting = [operation]
    while waiting:
        each = waiting.pop()
        if each.definition.contraction is not None:
            flops += each.definition.contraction.flops(each)
        elif each.definition.is_named:
            waiting += each.body().block
    number = max(0, dims.estimate(flops, sizes))  # below 0: of a branch that is impossible at these sizes
    if number and operation.name == "attention":
        queries, keys = (dims.estimate(value.shape[2], sizes) for value in operation.inputs[:2])
        number = number * visible_pairs(queries, keys, operation.attributes["causal"]) // (queries * keys)
    return number


def visible_pairs(queries: int, keys: int, causal: bool) -> int:
    """Pairs of a query and a key that it attends to: of causal attention, those whose key is not after the query. Fused
    attention of libraries skips blocks of others, as kernels do."""
    if not causal:
        return queries * keys
    rows = min(queries, keys)
    return rows * (rows + 1) // 2 + (queries - rows) * keys


def products_of(operation: Operation, sizes: Mapping[Symbol, int]) -> Matrices:
    """The result of a library call as matrices, of operands of the type of its first one: of convolutions the channels
    are columns, of others the last axis is, and the one before it rows, together with those before where the second
    operand has no more than two."""
    extents = [max(0, dims.estimate(extent, sizes)) for extent in operation.results[0].shape]
    if operation.name.startswith("conv"):
        extents = [extents[0] * prod(extents[2:]), extents[1]]
    elif operation.inputs[1].rank <= 2:
        extents = [prod(extents[:-1]), *extents[-1:]]
    *matrices, rows, columns = [1, 1, *extents]
    return Matrices(prod(matrices), rows, columns, operation.inputs[0].dtype, operation.name == "attention")
