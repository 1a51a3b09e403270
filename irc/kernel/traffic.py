"""The byte model: what a kernel moves and computes, counted by walking its nest.

`distinct_bytes` are those that a launch must move: each element that it reads, once, and each that it writes.
`loaded_bytes` are those that its programs access, loads and stores, lane by lane: a bias read by every program
counts each time, a masked lane does not. Both are exact for affine accesses; where an address or a mask depends on
loaded data, or would take too long to enumerate, they are upper bounds and `exact` is False.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from irc import dims, ops
from irc.dims import Dim, Expr, Sizes, Symbol, Variable
from irc.dtypes import DType
from irc.index_map import Guards
from irc.ir import Value
from irc.kernel.dag import Apply, Dot, Load, Reduce, Scan, Store, indirect_nodes, variables
from irc.kernel.derivation import Kernel
from irc.kernel.nest import Accumulate, Carry, Loop, Placed, Schedule, Scope, Tile, next_power_of_two
from irc.kernel.online import last_visible
from irc.kernel.resources import Resources

if TYPE_CHECKING:
    from numpy.typing import NDArray

SQUARE_FLOPS = 5  # of a squared distance from the mean so far, and of adding it
ENUMERATED = 1 << 22  # points of an access that are looked at one by one

Access = tuple[Dim, Guards]


@dataclass(frozen=True)
class Bytes:
    """What a launch costs; `programs` is the size of its grid."""

    distinct_bytes: int
    loaded_bytes: int
    flops: int
    programs: int
    exact: bool = True
    product_flops: int = 0  # those of `flops` that are multiplications and additions of products
    issued: tuple[tuple[DType, int], ...] = ()  # the same by the type of the operands, with lanes outside the bounds
    iterations: int = 1  # of the loops of one program
    resources: Resources | None = None  # of one program, estimated


def count(kernel: Kernel, environment: Mapping[Symbol, int], blocks: Mapping[str, int] | None = None) -> Bytes:
    """The cost of one launch where symbols have the sizes of `environment`.

    `blocks` replaces block sizes by tile name; a kernel with fewer, larger programs reads shared rows less often.
    """
    tiles, blocks = kernel.schedule.tiles, blocks or {}
    sizes = environment if isinstance(environment, Sizes) else Sizes(environment)
    grid = {tile: blocks_along(tile, sizes, blocks) for tile in kernel.schedule.grid}
    buffers = dict.fromkeys([load.buffer for load in kernel.loads] + list(kernel.outputs))
    extents = [axis.extent for tile in tiles for axis in tile.axes]
    extents += [dim for buffer in buffers for dim in buffer.type.dims]
    if 0 in grid.values() or any(size_at(extent, sizes) < 0 for extent in extents):
        return Bytes(0, 0, 0, 0)  # below 0: of a branch that is not taken at these sizes
    visible = None if kernel.online is None else last_visible(kernel.online, kernel.schedule)
    exact = True

    def certain(counted: tuple[int, bool]) -> int:
        nonlocal exact
        exact &= counted[1]
        return counted[0]

    def lanes(axes: frozenset[Variable], guards: Guards = ()) -> int:
        """Lanes of all programs that an access or operation which varies over `axes` takes under its guards.

        A tile axis that it does not vary over costs once for each of its blocks, not for each element.
        """
        touched = [tile for tile in tiles if not axes.isdisjoint(tile.axes)]
        repeats = prod(number for tile, number in grid.items() if tile not in touched)
        every = repeats * certain(points(frozenset(axis for tile in touched for axis in tile.axes), guards, sizes))
        visited, total = visited_keys(kernel.schedule, visible, touched, sizes, blocks)
        return every * visited // total

    empty = {buffer for buffer in buffers if size_at(buffer.type.elements, sizes) == 0}
    loaded = flops = distinct_bytes = product_flops = 0
    nest = [part.body if isinstance(part, Loop) else (part,) for part in kernel.schedule.nest]
    for scope in chain(*nest):
        node = inner_node(scope)
        if isinstance(node, (Load, Store)):
            if node.buffer in empty:
                continue  # its guards never hold, and may divide by the extent that is 0
            loaded += lanes(node.axes, node.guards) * node.buffer.dtype.itemsize
        elif isinstance(node, Dot):
            product_flops += 2 * lanes(node.axes.union(node.bound)) if scope is not node else 0
        elif isinstance(node, Reduce) and node.dtype.is_float:
            # Of a loop over what is reduced, the lanes of the last tile are few beside it.
            is_end = scope is node and any(axis in tile.axes for tile in tiles if tile.looped for axis in node.bound)
            each = 0 if is_end else 1 if kernel.online is not None else flops_of_step(scope)
            flops += each * lanes(node.axes.union(node.bound))
        elif isinstance(node, (Apply, Scan)) and node.dtype.is_float:
            flops += (flops_of(node.name) if isinstance(node, Apply) else 1) * lanes(node.axes)
    accesses: dict[Value, dict[Access, None]] = {}
    for load in kernel.loads:
        accesses.setdefault(load.buffer, {})[load.index, load.guards] = None
    for buffer in (buffer for buffer in (*accesses, *kernel.outputs) if buffer not in empty):
        size = size_at(buffer.type.elements, sizes)
        moved = distinct(size, tuple(accesses[buffer]), sizes) if buffer in accesses else written(kernel, buffer, sizes)
        distinct_bytes += certain(moved) * buffer.dtype.itemsize
    return Bytes(distinct_bytes, loaded, flops + product_flops, prod(grid.values()), exact, product_flops,
                 issued(kernel.schedule, visible, sizes, blocks), iterations(kernel.schedule, sizes, blocks),
                 kernel.resources)  # fmt: skip


class Together:
    """The kernels of one launch, so far: what they read of each tensor, so that its elements count once."""

    def __init__(self) -> None:
        self.reads: dict[Hashable, dict[Access, None]] = {}
        self.members = 0

    def add(self, kernel: Kernel, tensors: Mapping[Value, Hashable], environment: Mapping[Symbol, int]) -> int:
        """Add a kernel, of whose inputs `tensors` says which are the same; returns the bytes that it reads and kernels
        before it read, too."""
        sizes, again = environment if isinstance(environment, Sizes) else Sizes(environment), 0
        accesses: dict[Value, dict[Access, None]] = {}
        for load in kernel.loads:
            accesses.setdefault(load.buffer, {})[load.index, load.guards] = None
        for buffer, reads in accesses.items():
            size, before = size_at(buffer.type.elements, sizes), self.reads.get(tensors[buffer], {})
            if before and size:
                counts = [distinct(size, tuple(some), sizes)[0] for some in (reads, before, before | reads)]
                again += (counts[0] + counts[1] - counts[2]) * buffer.dtype.itemsize
            self.reads[tensors[buffer]] = before | reads
        return again


def written(kernel: Kernel, buffer: Value, sizes: Sizes) -> tuple[int, bool]:
    """The elements of an output that are stored, and whether that is exact."""
    if buffer not in kernel.partial:
        return size_at(buffer.type.elements, sizes), True
    numbers = [points(frozenset(kernel.parallel), store.guards, sizes) for store in kernel.stores
               if store.buffer is buffer]  # fmt: skip
    return sum(number for number, _ in numbers), all(exact for _, exact in numbers)


def visited_keys(schedule: Schedule, visible: Dim | None, touched: Sequence[Tile], sizes: Sizes,
                 blocks: Mapping[str, int]) -> tuple[int, int]:  # fmt: skip
    """Of the keys that all blocks of rows have together, those that loops over keys visit, and all: each once for every
    row where the rows are touched too. Both are 1 where the keys are not touched, or all are visited. `visible` is what
    `last_visible` says."""
    rows, keys = schedule.rows, schedule.columns
    if visible is None or rows is None or keys is None or keys not in touched:
        return 1, 1
    height, width = (blocks.get(tile.name) or tile.block for tile in (rows, keys))
    rows_size, keys_size = size_at(rows.extent, sizes), size_at(keys.extent, sizes)
    starts = np.arange(0, rows_size, height, dtype=np.int64)
    after = starts + height if len(rows.axes) == 1 else np.full_like(starts, size_at(rows.axes[-1].extent, sizes))
    ends = np.clip(after + size_at(visible, sizes), 0, keys_size)
    visited = np.minimum(-(-ends // width) * width, keys_size)
    weights = np.minimum(rows_size - starts, height) if rows in touched else np.ones_like(starts)
    return int((weights * visited).sum()), max(1, int(weights.sum()) * keys_size)


def blocks_along(tile: Tile, sizes: Sizes, blocks: Mapping[str, int]) -> int:
    """The blocks of a tile axis that is not held whole."""
    return -(-size_at(tile.extent, sizes) // (blocks.get(tile.name) or tile.block))


def iterations(schedule: Schedule, sizes: Sizes, blocks: Mapping[str, int]) -> int:
    """The iterations of all loops of one program, 1 where it has none; of loops that end early, the most."""
    loops = [scope.tile for scope in schedule.nest if isinstance(scope, Loop)]
    return sum(blocks_along(tile, sizes, blocks) for tile in loops) or 1


def issued(schedule: Schedule, visible: Dim | None, sizes: Sizes,
           blocks: Mapping[str, int]) -> tuple[tuple[DType, int], ...]:  # fmt: skip
    """Multiplications and additions of products by the type of their operands, in whole blocks: lanes outside the
    bounds are computed, too."""
    flops: Counter[DType] = Counter()
    for loop in (scope for scope in schedule.nest if isinstance(scope, Loop)):
        for node in map(inner_node, loop.body):
            if isinstance(node, Dot):
                axes = node.axes.union(node.bound)
                touched = [tile for tile in schedule.tiles if not axes.isdisjoint(tile.axes)]
                lanes = prod(blocks_along(tile, sizes, blocks) for tile in schedule.grid if tile not in touched)
                lanes *= prod(rounded(tile, sizes, blocks) for tile in touched)
                visited, total = visited_keys(schedule, visible, touched, sizes, blocks)
                flops[node.fed] += 2 * lanes * visited // total
    return tuple(flops.items())


def rounded(tile: Tile, sizes: Sizes, blocks: Mapping[str, int]) -> int:
    """The extent of a tile axis in whole blocks."""
    if tile.whole:
        return next_power_of_two(size_at(tile.extent, sizes))
    return blocks_along(tile, sizes, blocks) * (blocks.get(tile.name) or tile.block)


def inner_node(scope: Scope) -> object:
    """The node that a scope, which is no loop, computes a part of."""
    if isinstance(scope, Accumulate):
        return scope.reduce
    return scope.node if isinstance(scope, Placed) else scope.maximum if isinstance(scope, Carry) else scope


def flops_of(name: str) -> int:
    """What one element of a pointwise primitive costs; a user's own counts once."""
    definition = ops.TABLE.get(name)
    return 1 if definition is None or definition.pointwise is None else definition.pointwise.flops


def flops_of_step(scope: Scope) -> int:
    """What one element costs that a lane of a looped row accumulates: with another reduction also what rescales."""
    if isinstance(scope, Carry):
        return 2 + flops_of("exp")
    point = scope.point if isinstance(scope, Accumulate) else None
    return 1 if point is None else 2 if point.is_maximum else SQUARE_FLOPS


# What follows knows of no kernel, and is remembered: most of what a group reads it reads again as it grows. Each
# function returns a number, and whether it is exact.


@lru_cache(1 << 12)
def points(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[int, bool]:
    """Points of the axes at which the guards hold."""
    if any(size_at(axis.extent, sizes) == 0 for axis in axes):
        return 0, True  # guards may divide by the extent that is 0
    if divides_by_0((guard.index for guard in guards), sizes):
        return prod(size_at(axis.extent, sizes) for axis in axes), False
    region = box(0, axes, guards, sizes)
    if region is not None:
        return region.points, True
    if indirect_nodes(*(guard.index for guard in guards)):
        most = {axis: size_at(axis.extent, sizes) for axis in axes}
        for guard in guards:  # which holds at as many places of an axis at most
            axis = single_axis(guard.index)
            if axis in most:
                most[axis] = min(most[axis], max(0, size_at(guard.extent, sizes)))
            varied = variables(guard.index) & axes
            if guard.most is not None and len(varied) == 1:
                (axis,) = varied
                most[axis] = min(most[axis], size_at(guard.most, sizes))
        return prod(most.values()), False
    number, exact = 1, True
    for some, tests in independent(axes, guards):
        total = prod(size_at(axis.extent, sizes) for axis in some)
        exact &= total <= ENUMERATED or not tests
        number *= int(np.count_nonzero(enumerated(some, tests, sizes)[1])) if tests and total <= ENUMERATED else total
    return number, exact


def divides_by_0(indices: Iterable[Dim], sizes: Sizes) -> bool:
    """Whether some index has no value: it divides by the extent, 0 at these sizes, of another output of the kernel."""
    try:
        for index in indices:
            affine(index, sizes)
    except dims.DimError:
        return True
    return False


def independent(axes: frozenset[Variable], guards: Guards) -> list[tuple[frozenset[Variable], Guards]]:
    """The axes in sets such that each guard is about axes of one of them, with these guards."""
    parts: list[tuple[frozenset[Variable], Guards]] = [(frozenset((axis,)), ()) for axis in axes]
    for guard in guards:
        tested = variables(guard.index) & axes
        joined = [part for part in parts if not part[0].isdisjoint(tested)]
        parts = [part for part in parts if part[0].isdisjoint(tested)]
        tests = tuple(other for _, others in joined for other in others)
        parts.append((tested.union(*(some for some, _ in joined)), (*tests, guard)))
    return parts


@lru_cache(1 << 12)
def distinct(size: int, accesses: tuple[Access, ...], sizes: Sizes) -> tuple[int, bool]:
    """Elements of a buffer of this size that some access reads."""
    reached, enumerable, reads = 0, size <= 8 * ENUMERATED, []
    for address, guards in accesses:
        indices = (address, *(guard.index for guard in guards))
        axes = variables(*indices)
        if any(size_at(axis.extent, sizes) == 0 for axis in axes):
            continue
        if divides_by_0(indices, sizes):
            return size, False
        region, whole = (box(address, axes, some, sizes) for some in (guards, ()))
        number, exact = points(axes, guards, sizes)
        apart = any(each is not None and each.is_injective for each in (region, whole))
        if apart and (len(accesses) == 1 or (exact and number >= size)):
            return min(size, number), exact
        layered = distinct_in_layers(address, axes, guards, sizes) if len(accesses) == 1 else None
        if layered is not None:
            return layered, True
        reached, enumerable = reached + number, enumerable and number <= ENUMERATED and not indirect_nodes(*indices)
        reads.append((address, guards, axes, region))
    if not enumerable:
        return min(size, reached), False
    seen = np.zeros(size, dtype=bool)
    for address, guards, axes, region in reads:
        if region is not None:
            region.elements(seen)[...] = True
        else:
            arrays, mask = enumerated(axes, guards, sizes)
            elements = np.asarray(dims.evaluate_array(at_sizes(address, sizes), arrays))
            seen[np.broadcast_to(elements, mask.shape)[mask]] = True
    return int(np.count_nonzero(seen)), True


def single_axis(index: Dim) -> Variable | None:
    """An axis of which an index is a sum with what does not vary over it, or is subtracted from that."""
    terms = index.terms if isinstance(index, Expr) else ()
    for monomial, coefficient in terms:
        atom, power = monomial[0] if len(monomial) == 1 else (None, 0)
        if isinstance(atom, Variable) and power == 1 and abs(coefficient) == 1:
            rest = index - coefficient * atom.expr
            if atom not in variables(rest):
                return atom
    return None


class Layer(NamedTuple):
    """Axes of an affine address that are counted together, and what they add to it: `number` different values, which
    are multiples of `step` over a range of `reach` elements."""

    step: int
    reach: int
    number: int
    part: tuple[frozenset[Variable], Guards]


def distinct_in_layers(address: Dim, axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> int | None:
    """The number of different values of an affine address, such as that of windows, which overlap along each spatial
    axis: values along one of these are digits of a number. None where it takes too long to enumerate a digit."""
    terms = affine(address, sizes)
    if terms is None or indirect_nodes(*(guard.index for guard in guards)):
        return None
    layers, parts = list[Layer](), independent(axes, guards)
    while parts:
        some, tests = parts.pop()
        if prod(size_at(axis.extent, sizes) for axis in some) > ENUMERATED:
            return None
        arrays, mask = enumerated(some, tests, sizes)
        values = sum((terms[1].get(axis, 0) * arrays[axis] for axis in some), np.zeros(mask.shape, np.int64))
        values = np.unique(values[mask])
        if not len(values):
            return 0
        step, reach = int(np.gcd.reduce(values - values[0])), int(values[-1] - values[0])
        layers = sorted([*layers, Layer(step, reach, len(values), (some, tests))], key=lambda layer: layer[:3])
        ends = list(accumulate(layer.reach for layer in layers))
        overlap = next((i for i in range(1, len(layers)) if layers[i].reach and layers[i].step <= ends[i - 1]), None)
        if overlap is not None:  # not digits of their own
            (first, of_first), (second, of_second) = layers[overlap - 1].part, layers[overlap].part
            parts.append((first | second, (*of_first, *of_second)))
            del layers[overlap - 1 : overlap + 1]
    return prod(layer.number for layer in layers)


def size_at(extent: Dim, sizes: Sizes) -> int:
    size = at_sizes(extent, sizes)
    assert isinstance(size, int)
    return size


@lru_cache(1 << 14)
def at_sizes(d: Dim, sizes: Sizes) -> Dim:
    return sizes.at(d)


def enumerated(axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> tuple[dict[Any, Any], Any]:
    """An index array for each axis, shaped to broadcast against the others, and where the guards hold."""
    extents = [size_at(axis.extent, sizes) for axis in axes]
    arrays: dict[Any, Any] = dict(zip(axes, np.ix_(*map(np.arange, extents)), strict=True))
    mask = np.ones(extents, dtype=bool)
    for guard in guards:
        index = dims.evaluate_array(at_sizes(guard.index, sizes), arrays)
        mask &= (0 <= index) & (index < size_at(guard.extent, sizes))
    return arrays, mask


@dataclass(frozen=True)
class Box:
    """An affine access at the points of a box: the elements `first + sum(stride * index)`."""

    first: int
    places: tuple[tuple[int, int], ...]  # the stride and the length of each axis

    @property
    def points(self) -> int:
        return prod(length for _, length in self.places)

    @property
    def is_injective(self) -> bool:
        """Whether different points have different elements: mixed-radix numbers."""
        reach = 1
        for stride, length in sorted((abs(stride), length) for stride, length in self.places if length > 1):
            if stride < reach:
                return False
            reach += stride * (length - 1)
        return True

    def elements(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """The elements in a buffer, which must hold them all."""
        if not self.points:
            return buffer[:0]
        ends = [stride * (length - 1) for stride, length in self.places]
        assert 0 <= self.first + sum(min(0, end) for end in ends)
        assert self.first + sum(max(0, end) for end in ends) < len(buffer)
        strides, lengths = zip(*self.places, strict=True) if self.places else ((), ())
        return np.lib.stride_tricks.as_strided(buffer[self.first :], lengths, strides)


@lru_cache(1 << 12)
def box(address: Dim, axes: frozenset[Variable], guards: Guards, sizes: Sizes) -> Box | None:
    """An access at the points of the axes at which the guards hold, if it is affine and each guard bounds one axis."""
    terms = affine(address, sizes)
    ranges = {axis: range(size_at(axis.extent, sizes)) for axis in axes}
    for guard in guards:
        bounded, end = affine(guard.index, sizes), size_at(guard.extent, sizes)
        if bounded is None or len(bounded[1]) != 1:
            return None
        offset, ((axis, step),) = bounded[0], bounded[1].items()
        if step < 0:
            offset, step = end - 1 - offset, -step  # the same condition, counted from the other end
        inside = ranges[axis]
        ranges[axis] = range(max(inside.start, -(offset // step)), min(inside.stop, (end - 1 - offset) // step + 1))
    if terms is None:
        return None
    constant, strides = terms
    # Not `len`, which has no more than 63 bits.
    places = tuple((strides.get(axis, 0), max(0, ranges[axis].stop - ranges[axis].start)) for axis in axes)
    return Box(constant + sum(stride * ranges[axis].start for axis, stride in strides.items()), places)


@lru_cache(1 << 12)
def affine(index: Dim, sizes: Sizes) -> tuple[int, dict[Variable, int]] | None:
    """The constant and the coefficients of `constant + sum(coefficient * axis)`, if an index is of this form."""
    index = at_sizes(index, sizes)
    terms = dict(index.terms) if isinstance(index, Expr) else {(): index}
    constant, strides = terms.pop((), 0), {}
    for monomial, coefficient in terms.items():
        atom, power = monomial[0]
        if len(monomial) > 1 or power > 1 or not isinstance(atom, Variable):
            return None
        strides[atom] = coefficient
    return constant, strides
