"""Memory of the host program: when tensors die, whose memory serves again, and the most that lives at a time.

Kernels write into buffers that the program allocates, so a buffer that nothing needs any more can take the output of a
later launch. Results of host calls belong to PyTorch, whose allocator takes them back when their names go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from irc import dims
from irc.dims import Symbol
from irc.interfaces import Trait
from irc.ir import Block, Function, Operation, Value
from irc.kernel.bundles import bundles_by_kernel
from irc.sizes import bytes_at


def allocates(operation: Operation) -> bool:
    """Whether its results take memory of their own."""
    return Trait.NO_ALLOCATION not in operation.definition.traits


def last_uses(block: Block) -> dict[Operation, list[Value]]:
    """For each operation of a block the tensors that nothing reads after it, so that their memory is free again. The
    kernels of a bundle run at once, when the last of them does."""
    last: dict[Value, Operation] = {}
    bundled = bundles_by_kernel(block)
    kept: set[Value] = set()
    for operation in block:
        for inner in operation.walk():
            for value in inner.inputs:
                if value.block is block and value.operation is not None:
                    last[value] = bundled[operation][-1] if operation in bundled else operation
        if operation.definition.is_terminator or not allocates(operation):
            kept.update(operation.inputs)  # returned, or viewed by what lives on
    values_by_last_use: dict[Operation, list[Value]] = {}
    for value, operation in last.items():
        producer = value.operation
        if value not in kept and producer is not None and allocates(producer):
            values_by_last_use.setdefault(operation, []).append(value)
    return values_by_last_use


def donated(function: Function, is_launch: Callable[[Operation], bool],
            reads_where_it_writes: Callable[[Value, Value], bool]) -> dict[Value, Value]:  # fmt: skip
    """For outputs of launches that update an argument of the function that argument, where its memory is free to be
    written: nothing reads it later, nor the launch itself but where it writes, nor a view of it."""
    block = function.block
    order = {operation: position for position, operation in enumerate(block)}
    bundled = bundles_by_kernel(block)
    donated_arguments: dict[Value, Value] = {}
    for position, argument in function.updates.items():
        output = function.returned[position]
        maker = output.operation
        if maker is None or not is_launch(maker) or function.returned.count(output) > 1:
            continue
        readers, start = list(argument.users()), order[bundled[maker][0] if maker in bundled else maker]
        if all(
            (reader is maker or order.get(reader, len(order)) < start) and gives_no_view(reader, is_launch)
            for reader in readers
        ) and (maker not in readers or reads_where_it_writes(output, argument)):
            donated_arguments[output] = argument
    return donated_arguments


def reused(block: Block, is_launch: Callable[[Operation], bool],
           donated: Mapping[Value, Value] | None = None) -> dict[Value, Value]:  # fmt: skip
    """For outputs of launches the buffer that each takes: what is `donated` to it, or a dead one of as many elements of
    the same type.

    Only buffers that launches wrote, and that nothing but launches and products read, are given: what other calls
    return may be a view of what they were given.
    """
    dying = last_uses(block)
    taken = dict(donated or {})
    free: dict[tuple[object, object], list[Value]] = {}
    for operation in block:
        launched = is_launch(operation)
        for output in operation.results if launched else ():
            waiting = free.get(_kind(output))
            if waiting and output not in taken:
                taken[output] = waiting.pop()
        for value in dying.get(operation, ()):
            maker = value.operation
            readers = value.users()
            if maker is not None and is_launch(maker) and all(
                reader.block is block and gives_no_view(reader, is_launch) for reader in readers
            ):
                free.setdefault(_kind(value), []).append(value)
    return taken


def gives_no_view(operation: Operation, is_launch: Callable[[Operation], bool]) -> bool:
    """Whether no result shares the memory of an operand."""
    return is_launch(operation) or Trait.NEW_MEMORY in operation.definition.traits


def _kind(value: Value) -> tuple[object, object]:
    return value.dtype, dims.product(value.shape)


def peak_bytes(block: Block, sizes: Mapping[Symbol, int], is_launch: Callable[[Operation], bool],
               donated: Mapping[Value, Value] | None = None) -> int:  # fmt: skip
    """The most bytes of results that live at a time while a block runs, besides its inputs and constants.

    Views take none; of `if` the larger side counts, of `loop` one iteration and what it stacks. Values without a rank
    are not counted, nor what PyTorch takes for itself inside a call.
    """
    dying, taken, living, most = last_uses(block), reused(block, is_launch, donated), 0, 0
    kept = set(taken.values())
    for operation in block:
        if operation.definition.is_terminator or not allocates(operation):
            continue
        result_bytes = sum(bytes_at(result, sizes) for result in operation.results if result not in taken)
        regions = operation.regions if operation.name != "kernel" else ()
        inside = max((peak_bytes(region.block, sizes, is_launch) for region in regions), default=0)
        most = max(most, living + result_bytes + inside)
        living += result_bytes
        dead = [*dying.get(operation, ()), *(result for result in operation.results if not result.uses)]
        living -= sum(bytes_at(value, sizes) for value in dead if value not in kept)
    return most
