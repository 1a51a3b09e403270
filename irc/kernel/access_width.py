"""How wide accesses are: the neighbors in memory that a thread can load or store at once, by the index of an access.

A run of neighbors is one access where it is aligned: all else in the address is a multiple of it, as are the extent of
its axis and what guards test along it. Start at `accesses_of_threads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import gcd, prod

from irc import dims
from irc.dims import Sizes, Symbol, Variable
from irc.kernel.dag import Load, Store, indirect_nodes, variables
from irc.kernel.derivation import Kernel
from irc.kernel.nest import WARP, Loop, Schedule
from irc.kernel.schedule import unit_stride
from irc.kernel.traffic import blocks_along, inner_node, size_at

WIDEST = 128  # bits that a thread loads or stores at once


def run_along(access: Load | Store, axis: Variable) -> int:
    """The elements of an aligned run along an axis whose neighbors are neighbors in memory, at most 128 bits of them;
    a guard that does not vary over the axis is the same for a whole run."""
    most = gcd(max(1, WIDEST // (8 * access.buffer.dtype.itemsize)), dims.multiple_of(axis.extent))
    if most == 1:
        return 1
    tested = [guard for guard in access.guards if axis in variables(guard.index, guard.extent)]
    edges = [access.index, *(edge for guard in tested for edge in (guard.index, guard.extent))]
    rests = [edge - axis.expr if axis in variables(edge) else edge for edge in edges]
    if any(axis in variables(rest) for rest in rests) or indirect_nodes(*rests):
        return 1
    return gcd(most, *map(dims.multiple_of, rests))


def elements_at_once(access: Load | Store, schedule: Schedule) -> int:
    """The elements that each thread accesses at once: an aligned run along the last axis of a tile axis, of as many as
    the tile has for each."""
    axis = unit_stride(access.index)
    if axis is None or not any(tile.axes[-1:] == (axis,) for tile in schedule.shaped):
        return 1
    held = prod(tile.typical for tile in schedule.tiles if not access.axes.isdisjoint(tile.axes))
    return max(1, min(run_along(access, axis), held // (WARP * schedule.warps)))


def accesses_of_threads(kernel: Kernel, sizes: Mapping[Symbol, int]) -> int:
    """How often the threads of a launch access global memory, where symbols have these sizes: loads that a program
    repeats count each time, and lanes beyond a bound as others do."""
    at = sizes if isinstance(sizes, Sizes) else Sizes(sizes)
    schedule, number = kernel.schedule, 0
    for scope in chain.from_iterable(part.body if isinstance(part, Loop) else (part,) for part in schedule.nest):
        node = inner_node(scope)
        if isinstance(node, (Load, Store)):
            lanes = [size_at(tile.extent, at) for tile in schedule.tiles if not node.axes.isdisjoint(tile.axes)]
            lanes += [blocks_along(tile, at, {}) for tile in schedule.grid if node.axes.isdisjoint(tile.axes)]
            number += max(0, -(-prod(lanes) // elements_at_once(node, schedule)))
    return number
