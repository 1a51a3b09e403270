"""The index algebra: how the coordinates of an operation's results and operands answer each other.

A coordinate is a dim expression over the axes of a kernel. Views compute nothing: each is declared (`irc/ops/view.py`)
with two maps, and neither copies.

    pull   result element -> where it comes from, as pieces: the first piece whose guards hold gives the value, and
           the last piece always holds
    push   element of the first operand -> where it goes, under guards where only a part of the operand arrives; None
           where no one point does

    slice   pull(c) = start + step*c                push(c) = (c - start)//step  where  0 <= c - start < ...
    pad     pull(c) = c - low  where 0 <= c - low < extent, else the fill
    concat  pull(c) = c - offset of piece k  where  0 <= c - offset < size of piece k

Guards have one form, `0 <= index < extent`. `restrict` proves that an access is in bounds: it keeps the
guards that the proof needs, and adds those that cannot be proven.

An `IndexMap` is the pull of a whole value: coordinates in the operand over `axes` of the result's shape. Chains of
views `compose` by substitution, and move elements alike where their maps are equal: dims have a normal form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from irc import dims
from irc.dims import Dim, Variable

Coordinates = tuple[Dim, ...]

# What the places of axes begin with (`Variable`): dims of a value, dims of a reduction that nothing else runs over,
# two axes as one, variables of a proof.
WHOLE, REDUCED, JOINED, PROOF = range(4)
MOST_PARTS = 64  # of a coordinate: reshapes that cut across one another's axes double it with each transpose between


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition `0 <= index < extent`."""

    index: Dim
    extent: Dim
    _hash: int = field(init=False, repr=False, compare=False)  # computed once, since guards are parts of keys

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.index, self.extent)))

    def __hash__(self) -> int:
        return self._hash


Guards = tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """An element of a value, one for each point of the kernel's axes at which the guards hold."""

    coordinates: Coordinates
    guards: Guards = ()
    operand: int = 0  # of what is pulled: which one the value is


# -- linear order ----------------------------------------------------------------------------------------------


same = lru_cache(1 << 14)(dims.same)  # of two dims, whether they are proven to be equal


@lru_cache(1 << 14)
def linearize(coordinates: Coordinates, shape: Coordinates) -> Dim:
    """The place of an element in row-major order."""
    index: Dim = 0
    for coordinate, extent in zip(coordinates, shape, strict=True):
        index = index * extent + coordinate
    return index


def delinearize(index: Dim, shape: Coordinates) -> Coordinates:
    """The coordinates of the element at a place in row-major order."""
    coordinates: list[Dim] = []
    for position in range(len(shape) - 1, -1, -1):
        if same(shape[position], 1) or same(shape[position], 0):  # empty: unreachable
            coordinates.append(0)
        elif same(dims.product(shape[:position]), 1):
            coordinates.append(index)
            index = 0
        else:
            coordinates.append(dims.modulo(index, shape[position]))
            index = dims.floor_divide(index, shape[position])
    return tuple(reversed(coordinates))


@lru_cache(1 << 14)
def reshape(coordinates: Coordinates, before: Coordinates, after: Coordinates) -> Coordinates:
    """The coordinates, in shape `after`, of an element of shape `before`.

    Where the products of leading extents agree, the shapes fall into blocks that are mapped apart: in
    [B, S, 768] -> [B, S, 12, 64] the coordinates of B and S stay what they are.
    """
    result: list[Dim] = []
    left = right = 0
    for left_end in range(1, len(before) + 1):
        leading = dims.product(before[:left_end])
        ends = [end for end in range(right + 1, len(after) + 1) if same(leading, dims.product(after[:end]))]
        if left_end == len(before):
            ends = [len(after)]
        if ends and (left_end, ends[0]) == (left + 1, right + 1):
            result.append(coordinates[left])
        elif ends:
            index = linearize(coordinates[left:left_end], before[left:left_end])
            result.extend(delinearize(index, after[right : ends[0]]))
        if ends:
            left, right = left_end, ends[0]
    return tuple(result) if before else (0,) * len(after)


def transpose(coordinates: Coordinates, permutation: tuple[int, ...]) -> Coordinates:
    """The coordinates, in the operand of a transpose, of an element of its result."""
    sources = [axis % len(permutation) for axis in permutation]
    return tuple(coordinates[sources.index(axis)] for axis in range(len(sources)))


def spread(coordinates: Coordinates, shape: Coordinates, operand: Coordinates) -> Coordinates:
    """The element of an operand of shape `operand` that broadcasting maps to `coordinates` of `shape`."""
    if operand == shape and 1 not in shape:
        return coordinates
    first = len(shape) - len(operand)
    return tuple(
        0 if same(dim, 1) else coordinate if same(dim, extent) else dims.minimum(coordinate, dim - 1)  # 1 or the extent
        for coordinate, extent, dim in zip(coordinates[first:], shape[first:], operand, strict=True)
    )


# -- maps of whole values ---------------------------------------------------------------------------------------


@lru_cache(1 << 12)
def axes(shape: Coordinates) -> Coordinates:
    """Coordinates of all elements of a shape, over one axis for each extent other than 1.

    A shape has the same axes in every kernel: what has been derived for one group is reused for the groups that it
    grows into, and for those of the next layer.
    """
    return tuple(0 if same(axis.extent, 1) else axis.expr for axis in axis_variables(shape))


def axis_variables(shape: Coordinates) -> tuple[Variable, ...]:
    """A variable for each dim of a shape."""
    return tuple(Variable(axis_name(extent, position), extent, (WHOLE, position))
                 for position, extent in enumerate(shape))  # fmt: skip


def axis_name(extent: Dim, position: int) -> str:
    """`b` for an axis that runs over B, else a letter by position."""
    for symbol in dims.free_symbols(extent):
        if symbol.expr == extent:
            return symbol.name.lower()
    return "ijklpqrstuvw"[position % 12] if position < 12 else f"i{position}"


@dataclass(frozen=True, slots=True)
class IndexMap:
    """A view of a value of shape `source`: each element of the result, of shape `shape`, is the element of the source
    at `coordinates`, which are dims over `axes(shape)`."""

    source: Coordinates
    shape: Coordinates
    coordinates: Coordinates

    @property
    def is_reshape(self) -> bool:
        """Whether elements keep their row-major order."""
        return linearize(self.coordinates, self.source) == linearize(axes(self.shape), self.shape)

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The permutation of the transpose that it is, where it is one."""
        ones = iter([axis for axis, extent in enumerate(self.source) if extent == 1])
        sources = {at: axis for axis, at in enumerate(self.coordinates) if at != 0}
        order = [next(ones, None) if extent == 1 else sources.get(at)
                 for extent, at in zip(self.shape, axes(self.shape), strict=True)]  # fmt: skip
        known = tuple(axis for axis in order if axis is not None)
        is_whole = len(known) == len(order) and sorted(known) == list(range(len(self.source)))
        return known if is_whole and tuple(self.source[axis] for axis in known) == self.shape else None


def is_empty(shape: Coordinates) -> bool:
    """Whether there are no elements, so that no map says anything. Where a symbol may be 0, the maps for its other
    values are right for 0 too."""
    return any(dims.bounds(extent)[1] < 1 for extent in shape)


def identity_map(shape: Coordinates) -> IndexMap:
    return IndexMap(shape, shape, axes(shape))


@lru_cache(1 << 12)
def reshape_map(source: Coordinates, shape: Coordinates) -> IndexMap:
    return IndexMap(source, shape, reshape(axes(shape), shape, source))


def transpose_map(source: Coordinates, permutation: tuple[int, ...]) -> IndexMap:
    shape = tuple(source[axis] for axis in permutation)
    return IndexMap(source, shape, transpose(axes(shape), permutation))


@lru_cache(1 << 12)
def compose(outer: IndexMap, inner: IndexMap) -> IndexMap | None:
    """The map of a view `outer` of a view `inner`; None where a coordinate has more than `MOST_PARTS` parts."""
    if outer.is_reshape and inner.is_reshape:  # the reshape between them may cut across the axes of both
        return reshape_map(inner.source, outer.shape)
    moved = dict(zip(axis_variables(inner.shape), outer.coordinates, strict=True))
    coordinates = tuple(dims.substitute(at, moved) for at in inner.coordinates)
    if any(isinstance(at, dims.Expr) and at.size > MOST_PARTS for at in coordinates):
        return None
    return IndexMap(inner.source, outer.shape, coordinates)


# -- proofs ----------------------------------------------------------------------------------------------------


@lru_cache(1 << 14)
def restrict(coordinates: Coordinates, shape: Coordinates, guards: Guards) -> Guards:
    """Guards under which every coordinate is in bounds: the fewest of the given ones, and new ones where unproven.

    A proof of `x % S < S` assumes that S is not 0. Where it may be, the guards that then hold nowhere are needed too.
    """
    needed: list[Guard] = []
    for coordinate, extent in zip(coordinates, shape, strict=True):
        atoms = set(dims.free_atoms(coordinate))
        related = tuple(guard for guard in guards if not atoms.isdisjoint(dims.free_atoms(guard.index)))
        possibly_0 = [d for d in dims.divisors(coordinate) if dims.less(0, d) is not True]
        vanishing = tuple(guard for guard in related if any(guard.extent % d == 0 for d in possibly_0))
        choices = (vanishing, *((*vanishing, guard) for guard in related), related)
        proven = (choice for choice in choices if in_bounds(coordinate, extent, choice))
        needed.extend(next(proven, (Guard(coordinate, extent),)))
    return tuple(dict.fromkeys(needed))


@lru_cache(1 << 14)
def in_bounds(index: Dim, extent: Dim, guards: Guards) -> bool:
    """Whether `0 <= index < extent` is proven where the guards hold.

    A guard on `j - low` is used by a change of variables: `j` becomes `t + low` with `t` in the guard's range.
    """
    if any(guard.index == index and dims.less_equal(guard.extent, extent) is True for guard in guards):
        return True
    if guards and in_bounds(index, extent, ()):  # as the index of an axis is; guards on the axis may hide that
        return True
    mapping: dict[Variable, Dim] = {}
    for guard in guards:
        for axis in dims.free_atoms(guard.index):
            if isinstance(axis, Variable) and axis not in mapping:
                rest = guard.index - axis.expr
                if axis not in dims.free_atoms(rest):  # so that it can be solved for the axis
                    mapping[axis] = _guarded(len(mapping), guard.extent).expr - rest
                    break
    index = dims.substitute(index, mapping)
    return dims.less_equal(0, index) is True and dims.less(index, extent) is True


def _guarded(number: int, extent: Dim) -> Variable:
    """A variable of `in_bounds`, the same one each time: what is proven of it need not be proven again."""
    return Variable(f"guarded{number}", extent, (PROOF, number))
