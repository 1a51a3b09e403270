"""The byte model: what a kernel moves and computes, counted by walking its nest.

`distinct_bytes` are those that a launch must move: each element that it reads, once, and each that it writes.
`loaded_bytes` are those that its programs ask for, loads and stores, lane by lane: a bias read by every program
counts each time, a masked lane does not. Both are exact for affine accesses; where an address or a mask depends on
loaded data, or would take too long to enumerate, they are upper bounds and `exact` is False.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from irc import dims
from irc.dims import Dim, Expr, Symbol, Variable
from irc.index_map import Guards
from irc.ir import Value
from irc.kernel.dag import Apply, Load, Reduce, Store, indirect_nodes, variables
from irc.kernel.derivation import Kernel
from irc.kernel.schedule import Accumulate, Loop

ENUMERATED = 1 << 22  # points of an access that are looked at one by one
FREE = frozenset({"cast", "bitcast", "select"})  # no arithmetic

Sizes = tuple[tuple[Symbol, int], ...]
Access = tuple[Dim, Guards]


@dataclass(frozen=True)
class Bytes:
    """What a launch costs; `programs` is the size of its grid."""

    distinct_bytes: int
    loaded_bytes: int
    flops: int
    programs: int
    exact: bool = True


def count(kernel: Kernel, environment: Mapping[Symbol, int], blocks: Mapping[str, int] | None = None) -> Bytes:
    """The cost of one launch where symbols have the sizes of `environment`.

    `blocks` replaces block sizes by tile name; a kernel with fewer, larger programs reads shared rows less often.
    """
    sizes, tiles = tuple(environment.items()), kernel.schedule.tiles
    grid = {}
    for tile in kernel.schedule.grid:
        block = (blocks or {}).get(tile.name) or tile.block
        grid[tile] = -(-dims.estimate(tile.extent, environment) // block)
    buffers = dict.fromkeys([load.buffer for load in kernel.loads] + list(kernel.outputs))
    extents = [axis.extent for tile in tiles for axis in tile.axes]
    extents += [dim for buffer in buffers for dim in buffer.type.dims]
    if 0 in grid.values() or any(dims.estimate(extent, environment) < 0 for extent in extents):
        return Bytes(0, 0, 0, 0)  # below 0: of a branch that is not taken at these sizes
    exact = True

    def certain(found: tuple[int, bool]) -> int:
        nonlocal exact
        exact &= found[1]
        return found[0]

    def lanes(axes: frozenset[Variable], guards: Guards = ()) -> int:
        """Lanes of all programs that an access or operation which varies over `axes` takes under its guards.

        A tile axis that it does not vary over costs once for each of its blocks, not for each element.
        """
        touched = [tile for tile in tiles if not axes.isdisjoint(tile.axes)]
        repeats = prod(number for tile, number in grid.items() if tile not in touched)
        return repeats * certain(points(frozenset(axis for tile in touched for axis in tile.axes), guards, sizes))

    empty = {buffer for buffer in buffers if dims.estimate(buffer.type.elements, environment) == 0}
    loaded = flops = distinct_bytes = 0
    nest = [part.body if isinstance(part, Loop) else (part,) for part in kernel.schedule.nest]
    for scope in chain(*nest):
        node = scope.reduce if isinstance(scope, Accumulate) else scope
        if isinstance(node, (Load, Store)):
            if node.buffer in empty:
                continue  # its guards never hold, and may divide by the extent that is 0
            loaded += lanes(node.axes, node.guards) * node.buffer.dtype.itemsize
        elif isinstance(node, Reduce) and node.dtype.is_float:
            # Of a loop over a row, the lanes of the last tile are few beside the row.
            flops += 0 if scope is node and kernel.looped else lanes(node.axes.union(kernel.bound))
        elif isinstance(node, Apply) and node.dtype.is_float and node.name not in FREE:
            flops += lanes(node.axes)
    accesses: dict[Value, dict[Access, None]] = {}
    for load in kernel.loads:
        accesses.setdefault(load.buffer, {})[load.index, load.guards] = None
    for buffer in (buffer for buffer in (*accesses, *kernel.outputs) if buffer not in empty):
        elements = dims.estimate(buffer.type.elements, environment)
        if buffer in accesses:
            elements = certain(distinct(elements, tuple(accesses[buffer]), sizes))
        distinct_bytes += elements * buffer.dtype.itemsize
    return Bytes(distinct_bytes, loaded, flops, prod(grid.values()), exact)


# What follows knows of no kernel, and is remembered: most of what a group reads it reads again as it grows. Each
# function returns a number, and whether it is exact.


@lru_cache(1 << 12)
def points(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[int, bool]:
    """Points of the axes at which the guards hold."""
    guarded = axes & variables(*(guard.index for guard in guards))
    free, total = (prod(extent(axis, sizes) for axis in some) for some in (axes - guarded, guarded))
    if total > ENUMERATED or indirect_nodes(*(guard.index for guard in guards)):
        return free * total, False
    return free * int(np.count_nonzero(enumerated(guarded, guards, sizes)[1])), True


@lru_cache(1 << 12)
def distinct(size: int, accesses: tuple[Access, ...], sizes: Sizes) -> tuple[int, bool]:
    """Elements of a buffer of this size that some access reads."""
    reached, enumerable = 0, size <= 8 * ENUMERATED
    for address, guards in accesses:
        number, _ = points(variables(address), (), sizes)
        if not guards and number >= size and injective(address, sizes):
            return size, True
        reached += number
        indices = (address, *(guard.index for guard in guards))
        enumerable = enumerable and number <= ENUMERATED and not indirect_nodes(*indices)
    if len(accesses) == 1 and variables(*indices) == variables(address) and injective(address, sizes):
        number, exact = points(variables(address), guards, sizes)
        return min(size, number), exact
    if not enumerable:
        return min(size, reached), False
    seen = np.zeros(size, dtype=bool)
    for address, guards in accesses:
        arrays, mask = enumerated(variables(address, *(guard.index for guard in guards)), guards, sizes)
        seen[np.broadcast_to(np.asarray(dims.evaluate_array(address, arrays)), mask.shape)[mask]] = True
    return int(np.count_nonzero(seen)), True


def extent(axis: Variable, sizes: Sizes) -> int:
    return dims.estimate(axis.extent, dict(sizes))


def enumerated(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[dict[Any, Any], Any]:
    """An index array for each axis, shaped to broadcast against the others, and where the guards hold."""
    extents = [extent(axis, sizes) for axis in axes]
    arrays: dict[Any, Any] = {**dict(sizes), **dict(zip(axes, np.ix_(*map(np.arange, extents)), strict=True))}
    mask = np.ones(extents, dtype=bool)
    for guard in guards:
        index = dims.evaluate_array(guard.index, arrays)
        mask &= (0 <= index) & (index < dims.estimate(guard.extent, dict(sizes)))
    return arrays, mask


def injective(address: Dim, sizes: Sizes) -> bool:
    """Whether different points have different addresses: a mixed-radix number in the axes."""
    places: list[tuple[int, int]] = []
    for monomial, coefficient in address.terms if isinstance(address, Expr) else ():
        others = [(atom, power) for atom, power in monomial if not isinstance(atom, Symbol)]
        for atom, power in others:
            if len(others) > 1 or power != 1 or not isinstance(atom, Variable):
                return False
            scale = prod(dict(sizes)[atom] ** power for atom, power in monomial if isinstance(atom, Symbol))
            places.append((abs(coefficient * scale), extent(atom, sizes)))
    reach = 1
    for scale, length in sorted(places):
        if scale < reach:
            return False
        reach += scale * (length - 1)
    return True
