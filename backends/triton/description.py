"""The operations of a device in one run of a program: kernels, library calls, other PyTorch operations.

`device_operations` is the one source of a program's launches, bytes and flops.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping

from irc.backends.triton.bundles import launched_together
from irc.backends.triton.device_operation import DeviceOperation, member_of_launch
from irc.backends.triton.launches import launched
from irc.diagnostics import IrcError
from irc.dims import Symbol
from irc.interfaces import Trait
from irc.ir import Function, Operation
from irc.kernel import Kernel, count
from irc.kernel.traffic import Together
from irc.library_calls import operation_bytes, product_flops, products_of
from irc.module import Module


def device_operations(module: Module, sizes: Mapping[Symbol, int]) -> tuple[list[DeviceOperation], str]:
    """What one run of the entry does where symbols have these sizes, in order, and why that is not counted, if so.

    The program runs without data on PyTorch's meta device: see `irc.backends.triton.dispatches`. Where it cannot,
    figures are estimated: each other operation but views counts once, and copies do not count. Nothing needs to run
    where all is kernels, one after another, and results are theirs.
    """
    met = list(_outside_kernels(module))
    computing = [each for each in met if Trait.HOST not in each.definition.traits]

    def alone() -> list[DeviceOperation]:
        members, bundles = _bundled(computing), dict[int, Together]()
        return [_alone(each, sizes) if each not in members else
                _member(each, sizes, bundles.setdefault(members[each], Together()))
                for each in computing if Trait.FREE not in each.definition.traits]  # fmt: skip

    only_kernels = all(each.name == "kernel" for each in computing) and not any(map(is_control_flow, met))
    if only_kernels and not _copies_results(module.main):
        operations = alone()
        if all(each.kind == "kernel" for each in operations):
            return operations, ""
    if importlib.util.find_spec("torch") is None:
        return alone(), "PyTorch, on which the program is run to count, is not installed"
    from irc.backends.triton.dispatches import NotCounted, dispatches  # which imports torch

    try:
        return dispatches(module, sizes), ""
    except NotCounted as error:
        return alone(), str(error)
    except IrcError as error:  # there is no such program
        return alone(), error.diagnostics[0].message


def is_control_flow(operation: Operation) -> bool:
    return Trait.CONTROL_FLOW in operation.definition.traits


def _copies_results(function: Function) -> bool:
    """Whether a result may be copied: one that is an argument or a constant, stands twice, or updates an argument."""
    returned = function.returned
    from_kernels = all(value.operation is not None and value.operation.name == "kernel" for value in returned)
    return bool(function.updates) or not from_kernels or len(set(returned)) < len(returned)


def _outside_kernels(module: Module) -> Iterator[Operation]:
    """The operations that a run meets, those in kernels left out: of an `if` in the first branch, of a loop in one
    round."""
    blocks = [iter(module.main.block)]
    while blocks:
        operation = next(blocks[-1], None)
        if operation is None:
            blocks.pop()
            continue
        yield operation
        if operation.name == "call":
            blocks.append(iter(module.functions[operation.attributes["callee"]].block))
        elif is_control_flow(operation):
            blocks.append(iter(operation.regions[0].block))


def _bundled(operations: Iterable[Operation]) -> dict[Operation, int]:
    """The kernels that are launched together, with the numbers of their bundles."""
    blocks = dict.fromkeys(each.block for each in operations if each.name == "kernel" and each.attributes["bundle"])
    together = [members for block in blocks if block is not None for members in launched_together(block, launched)]
    return {member: number for number, members in enumerate(together) for member in members}


def _member(operation: Operation, sizes: Mapping[Symbol, int], together: Together) -> DeviceOperation:
    """A kernel of a bundle as an operation of the device."""
    kernel = launched(operation)
    assert isinstance(kernel, Kernel)
    buffers = dict(zip(operation.regions[0].block.arguments, operation.inputs, strict=True))
    return member_of_launch(operation, kernel, buffers, sizes, together)


def _alone(operation: Operation, sizes: Mapping[Symbol, int]) -> DeviceOperation:
    """An operation as one of the device."""
    kernel = launched(operation) if operation.name == "kernel" else None
    if isinstance(kernel, Kernel):
        cost = count(kernel, sizes)
        return DeviceOperation(operation.attributes["name"], "kernel", cost.distinct_bytes, cost.flops, cost, operation)
    is_library = Trait.LIBRARY in operation.definition.traits
    kind = operation.name if operation.name == "extern" else "library" if is_library else "operation"
    moved = operation_bytes(operation, sizes)
    flops = product_flops(operation, sizes)
    products = products_of(operation, sizes) if is_library else None
    return DeviceOperation(operation.name, kind, moved, flops, None, operation, products)
