"""The byte model: what a kernel moves and computes, counted by walking its nest.

`distinct_bytes` are those that a launch must move: each element that it reads, once, and each that it writes.
`loaded_bytes` are those that its programs ask for, loads and stores, lane by lane: a bias read by every program
counts each time, a masked lane does not. Both are exact for affine accesses; where an address or a mask depends on
loaded data, or would take too long to enumerate, they are upper bounds and `exact` is False.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from irc import dims
from irc.dims import Dim, Expr, Symbol, Variable
from irc.index_map import Guards
from irc.ir import Value
from irc.kernel.dag import Apply, Load, Node, guard_variables, indirect_nodes, variables
from irc.kernel.schedule import Accumulate, Compute, Finish, Loop, Scope, Write

if TYPE_CHECKING:
    from irc.kernel.derivation import Kernel

ENUMERATED = 1 << 22  # points of an access that are looked at one by one
FREE = frozenset({"cast", "bitcast", "select", "round_to"})  # no arithmetic


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
        self.environment = environment
        self.exact = True
        self.extents = {tile.name: self._size(tile.extent) for tile in kernel.schedule.tiles}
        self.grid: dict[str, int] = {}
        for tile in kernel.schedule.grid:
            block = blocks.get(tile.name) or tile.block
            self.grid[tile.name] = -(-self.extents[tile.name] // block)
        self.tile_of = {axis: tile for tile in kernel.schedule.tiles for axis in tile.axes}
        self.loaded = 0
        self.flops = 0

    def _size(self, dim: Dim) -> int:
        size: int = dims.evaluate(dim, self.environment)
        return size

    def bytes(self) -> Bytes:
        programs = prod(self.grid.values())
        if any(extent == 0 for name, extent in self.extents.items() if name in self.grid):
            return Bytes(0, 0, 0, 0)
        for scope in self.kernel.nest:
            self._visit(scope)
        return Bytes(self._distinct(), self.loaded, self.flops, programs, self.exact)

    def _visit(self, scope: Scope) -> None:
        if isinstance(scope, Loop):
            for inner in scope.body:
                self._visit(inner)
        elif isinstance(scope, Compute) and isinstance(scope.node, Load):
            load = scope.node
            self.loaded += self._lanes(load.axes, load.guards) * load.buffer.dtype.itemsize
        elif isinstance(scope, Write):
            store = scope.store
            self.loaded += self._lanes(store.axes, store.guards) * store.buffer.dtype.itemsize
        elif isinstance(scope, (Compute, Accumulate, Finish)):
            self.flops += self._operations(scope)

    def _operations(self, scope: Compute | Accumulate | Finish) -> int:
        node: Node = scope.node if isinstance(scope, Compute) else scope.reduce
        if isinstance(scope, Compute):
            counted = isinstance(node, Apply) and node.dtype.is_float and node.name not in FREE
            return self._lanes(node.axes, ()) if counted else 0
        looped = self.kernel.looped
        if not node.dtype.is_float or (isinstance(scope, Finish) and looped):
            return 0  # the lanes of the last tile are few beside the row
        return self._lanes(node.axes | set(self.kernel.bound), ())

    def _lanes(self, axes: frozenset[Variable], guards: Guards) -> int:
        """Lanes of all programs that an access or operation which varies over `axes` takes under its guards.

        A tile axis that it does not vary over costs once for each of its blocks, not for each element.
        """
        touched = [tile for tile in self.kernel.schedule.tiles if any(axis in axes for axis in tile.axes)]
        repeats = prod(self.grid[tile.name] for tile in self.kernel.schedule.grid if tile not in touched)
        return repeats * self._points([axis for tile in touched for axis in tile.axes], guards)

    def _points(self, axes: Sequence[Variable], guards: Guards) -> int:
        """Points of the axes at which the guards hold."""
        guarded = guard_variables(guards) & set(axes)
        free: int = prod(self._size(axis.extent) for axis in axes if axis not in guarded)
        inside = [axis for axis in axes if axis in guarded]
        total: int = prod(self._size(axis.extent) for axis in inside)
        if not guards:
            return free * total
        if total > ENUMERATED or any(indirect_nodes((guard.index,)) for guard in guards):
            self.exact = False
            return free * total
        return free * int(np.count_nonzero(self._mask(self._grids(inside), guards, inside)))

    def _grids(self, axes: Sequence[Variable]) -> dict[Any, Any]:
        """An index array for each axis, shaped to broadcast against the others."""
        arrays: dict[Any, Any] = dict(self.environment)
        for position, axis in enumerate(axes):
            shape = [1] * len(axes)
            shape[position] = -1
            arrays[axis] = np.arange(self._size(axis.extent), dtype=np.int64).reshape(shape)
        return arrays

    def _mask(self, arrays: Mapping[Any, Any], guards: Guards, axes: Sequence[Variable]) -> Any:
        mask = np.ones([self._size(axis.extent) for axis in axes], dtype=bool)
        for guard in guards:
            index = dims.evaluate_array(guard.index, arrays)
            mask &= (0 <= index) & (index < self._size(guard.extent))
        return mask

    # -- distinct elements -------------------------------------------------------------------------------------

    def _distinct(self) -> int:
        accesses: dict[Value, list[tuple[Dim, Guards]]] = {}
        for load in self.kernel.loads:
            accesses.setdefault(load.buffer, []).append((load.address, load.guards))
        read: int = sum(
            self._distinct_elements(buffer, found) * buffer.dtype.itemsize for buffer, found in accesses.items()
        )
        written: int = sum(self._size(output.type.elements) * output.dtype.itemsize for output in self.kernel.outputs)
        return read + written

    def _distinct_elements(self, buffer: Value, accesses: Iterable[tuple[Dim, Guards]]) -> int:
        size = self._size(buffer.type.elements)
        sizes = []
        for address, guards in dict.fromkeys(accesses):
            points = self._points(by_age(variables(address)), ())
            if not guards and self._injective(address) and points >= size:
                return size
            sizes.append((address, guards, points))
        if len(sizes) == 1 and self._injective(sizes[0][0]):
            address, guards, _ = sizes[0]
            if guard_variables(guards) <= variables(address):
                return min(size, self._points(by_age(variables(address)), guards))
        enumerable = size <= 8 * ENUMERATED and all(
            points <= ENUMERATED and not indirect_nodes((address, *(guard.index for guard in guards)))
            for address, guards, points in sizes
        )
        if not enumerable:
            self.exact = False
            return min(size, sum(points for _, _, points in sizes))
        seen = np.zeros(size, dtype=bool)
        for address, guards, _ in sizes:
            axes = by_age(variables(address) | guard_variables(guards))
            arrays = self._grids(axes)
            mask = self._mask(arrays, guards, axes)
            places = np.broadcast_to(np.asarray(dims.evaluate_array(address, arrays)), mask.shape)
            seen[places[mask]] = True
        return int(np.count_nonzero(seen))

    def _injective(self, address: Dim) -> bool:
        """Whether different points have different addresses: a mixed-radix number in the axes."""
        if not isinstance(address, Expr):
            return True
        places: list[tuple[int, int]] = []
        for monomial, coefficient in address.terms:
            axes = [atom for atom, _ in monomial if not isinstance(atom, Symbol)]
            if not axes:
                continue
            if len(axes) > 1 or not isinstance(axes[0], Variable) or dict(monomial)[axes[0]] != 1:
                return False
            scale = coefficient * prod(
                self.environment[atom] ** power for atom, power in monomial if isinstance(atom, Symbol)
            )
            places.append((abs(scale), self._size(axes[0].extent)))
        reach = 1
        for scale, extent in sorted(places):
            if scale < reach:
                return False
            reach = scale * (extent - 1) + reach
        return True


def by_age(axes: Iterable[Variable]) -> list[Variable]:
    """Axes in an order that does not depend on hashing."""
    return sorted(axes, key=lambda axis: axis.serial)
