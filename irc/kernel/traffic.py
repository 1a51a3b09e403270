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
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from irc import dims
from irc.dims import Dim, Expr, Symbol, Variable
from irc.index_map import Guards
from irc.ir import Value
from irc.kernel.dag import Apply, Load, Reduce, Store, indirect_nodes, variables
from irc.kernel.schedule import Compute, Finish, Loop, Scope, Tile, Write

if TYPE_CHECKING:
    from irc.kernel.derivation import Kernel

ENUMERATED = 1 << 22  # points of an access that are looked at one by one
FREE = frozenset({"cast", "bitcast", "select"})  # no arithmetic

Sizes = tuple[tuple[Symbol, int], ...]

_CACHED = 1 << 12


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
    return _Count(kernel, environment, blocks or {}).bytes()


class _Count:
    def __init__(self, kernel: Kernel, environment: Mapping[Symbol, int], blocks: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.sizes: Sizes = tuple(environment.items())
        self.exact = True
        self.grid: dict[Tile, int] = {}
        for tile in kernel.schedule.grid:
            block = blocks.get(tile.name) or tile.block
            self.grid[tile] = -(-dims.evaluate(tile.extent, environment) // block)
        self.loaded = 0
        self.flops = 0

    def bytes(self) -> Bytes:
        programs = prod(self.grid.values())
        if programs == 0:
            return Bytes(0, 0, 0, 0)
        for scope in self.kernel.nest:
            self._visit(scope)
        return Bytes(self._distinct(), self.loaded, self.flops, programs, self.exact)

    def _visit(self, scope: Scope) -> None:
        if isinstance(scope, Loop):
            for inner in scope.body:
                self._visit(inner)
            return
        node = scope.store if isinstance(scope, Write) else scope.node if isinstance(scope, Compute) else scope.reduce
        if isinstance(node, (Load, Store)):
            self.loaded += self._lanes(node.axes, node.guards) * node.buffer.dtype.itemsize
        elif not node.dtype.is_float or (isinstance(scope, Finish) and self.kernel.looped):
            return  # the lanes of the last tile are few beside the row
        elif isinstance(node, Reduce):
            self.flops += self._lanes(node.axes.union(self.kernel.bound), ())
        elif isinstance(node, Apply) and node.name not in FREE:
            self.flops += self._lanes(node.axes, ())

    def _lanes(self, axes: frozenset[Variable], guards: Guards) -> int:
        """Lanes of all programs that an access or operation which varies over `axes` takes under its guards.

        A tile axis that it does not vary over costs once for each of its blocks, not for each element.
        """
        touched = [tile for tile in self.kernel.schedule.tiles if not axes.isdisjoint(tile.axes)]
        repeats = prod(blocks for tile, blocks in self.grid.items() if tile not in touched)
        return repeats * self._points(frozenset(axis for tile in touched for axis in tile.axes), guards)

    def _points(self, axes: frozenset[Variable], guards: Guards) -> int:
        number, exact = points(axes, guards, self.sizes)
        self.exact &= exact
        return number

    def _distinct(self) -> int:
        accesses: dict[Value, dict[tuple[Dim, Guards], None]] = {}
        for load in self.kernel.loads:
            accesses.setdefault(load.buffer, {})[load.index, load.guards] = None
        total = 0
        for buffer in (*accesses, *self.kernel.outputs):
            number = dims.evaluate(buffer.type.elements, dict(self.sizes))
            if buffer in accesses:
                number, exact = distinct(number, tuple(accesses[buffer]), self.sizes)
                self.exact &= exact
            total += number * buffer.dtype.itemsize
        return total


# What follows knows of no kernel, and is remembered: most of what a group reads it reads again as it grows. Each
# function returns a number, and whether it is exact.


@lru_cache(_CACHED)
def points(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[int, bool]:
    """Points of the axes at which the guards hold."""
    guarded = axes & variables(*(guard.index for guard in guards))
    free, total = (prod(extent(axis, sizes) for axis in some) for some in (axes - guarded, guarded))
    if total > ENUMERATED or indirect_nodes(guard.index for guard in guards):
        return free * total, False
    return free * int(np.count_nonzero(enumerated(guarded, guards, sizes)[1])), True


@lru_cache(_CACHED)
def distinct(size: int, accesses: tuple[tuple[Dim, Guards], ...], sizes: Sizes) -> tuple[int, bool]:
    """Elements of a buffer of this size that some access reads."""
    reached, enumerable = 0, size <= 8 * ENUMERATED
    for address, guards in accesses:
        number, _ = points(variables(address), (), sizes)
        if not guards and number >= size and injective(address, sizes):
            return size, True
        reached += number
        indices = (address, *(guard.index for guard in guards))
        enumerable = enumerable and number <= ENUMERATED and not indirect_nodes(indices)
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
    return dims.evaluate(axis.extent, dict(sizes))


def enumerated(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[dict[Any, Any], Any]:
    """An index array for each axis, shaped to broadcast against the others, and where the guards hold."""
    extents = [extent(axis, sizes) for axis in axes]
    arrays: dict[Any, Any] = {**dict(sizes), **dict(zip(axes, np.ix_(*map(np.arange, extents)), strict=True))}
    mask = np.ones(extents, dtype=bool)
    for guard in guards:
        index = dims.evaluate_array(guard.index, arrays)
        mask &= (0 <= index) & (index < dims.evaluate(guard.extent, dict(sizes)))
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
