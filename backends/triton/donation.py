"""Donation: launches that write their results into the arguments that they update, and the memory that a run needs.

`buffers` assigns memory; whether a kernel may write over what it reads is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from irc.backends.triton import buffers
from irc.backends.triton.launches import Derived, is_launch, launched
from irc.backends.triton.program import Program
from irc.dims import Symbol
from irc.ir import Function, Operation, Value
from irc.kernel import Kernel
from irc.kernel.dag import variables, walk
from irc.kernel.nest import WARP
from irc.kernel.updates import most_nonzero, updated_in_place
from irc.module import Module


def peak_bytes(module: Module, sizes: Mapping[Symbol, int], program: Program | None = None) -> int:
    """The most bytes of results that live at a time while the entry of a module runs, at these sizes.

    The kernels are those of `program` where it is given, else derived.
    """
    derived = cache(launched) if program is None else program.derived.__getitem__
    donated = donated_arguments(module.main, derived)
    return buffers.peak_bytes(module.main.block, sizes, lambda operation: is_launch(operation, derived), donated)


def in_place(operation: Operation, kernel: Kernel, donated: Mapping[Value, Value]) -> Kernel:
    """The kernel of an operation some of whose results are written to the memory of operands: it then stores what it
    changes (`irc.kernel.updates`)."""
    block = operation.regions[0].block
    few = {inner: most for inner, outer in zip(block.arguments, operation.inputs, strict=True)
           if (most := most_nonzero(outer)) is not None}  # fmt: skip
    updated = {block.terminator.inputs[output.index]: inner for output, argument in donated.items()
               if output.operation is operation for inner in arguments_of(operation, argument)}  # fmt: skip
    return updated_in_place(kernel, updated, few)


def arguments_of(operation: Operation, operand: Value) -> set[Value]:
    """The arguments of a kernel's region that stand for an operand."""
    pairs = zip(operation.regions[0].block.arguments, operation.inputs, strict=True)
    return {inner for inner, outer in pairs if outer is operand}


def donated_arguments(function: Function, derived: Derived) -> dict[Value, Value]:
    """The arguments that launches write their new contents to, by the results that update them."""

    def reads_where_it_writes(output: Value, argument: Value) -> bool:
        """What is written depends on all that is read of the argument, so that it is read before. One thread
        reads and writes each element: what does not vary over all of a tile, and a tile smaller than its threads, is
        held by several, of which one might write before another reads. Where each level of reductions reads a row
        again, a level before would have written it."""
        operation = output.operation
        assert operation is not None
        launched_kernel, block = derived(operation), operation.regions[0].block
        assert isinstance(launched_kernel, Kernel)
        kernel = in_place(operation, launched_kernel, {output: argument})
        inside = arguments_of(operation, argument)
        if not any(load.buffer in inside for load in kernel.loads):
            return True
        store, *others = (each for each in kernel.stores if each.buffer is block.terminator.inputs[output.index])
        if others:  # of the pieces of a cut axis
            return False
        before, schedule = set(walk((store,))), kernel.schedule
        axes = {axis for tile in schedule.tiles for axis in tile.axes}
        elements = math.prod(tile.typical for tile in schedule.tiles)
        return not kernel.looped and axes <= variables(store.index) and elements >= WARP * schedule.warps and all(
            load in before and load.index == store.index and set(store.guards) <= set(load.guards)
            for load in kernel.loads if load.buffer in inside
        )  # fmt: skip

    return buffers.donated(function, lambda operation: is_launch(operation, derived), reads_where_it_writes)
