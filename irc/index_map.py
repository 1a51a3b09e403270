"""Index maps: which elements of its operands an element of a view's result is.

A coordinate is a dim expression over the axes of a kernel. A view (`irc/ops/view.py`) computes nothing: it is declared
by two maps.

    pull   maps the coordinates of a result element to coordinates in the operands, as a list of guarded points. The
           element is that of the first point whose guards hold. The guards of the last hold where no others do.
    push   maps the coordinates of an element of the first operand to coordinates in the result. Its guards hold for
           the elements that the result contains. It is None where no single point describes them.

    slice   pull(c) = start + step*c                push(c) = (c - start)//step  where  0 <= c - start < ...
    pad     pull(c) = c - low  where 0 <= c - low < extent, else the fill
    concat  pull(c) = c - offset of piece k  where  0 <= c - offset < size of piece k

A guard is a condition `0 <= index < extent`. `restrict` returns the guards under which an access is in bounds: the
given ones that its proof needs, and new ones for what it cannot prove.

An `IndexMap` is the pull of a whole value: coordinates in the source over the `axes` of the result's shape. `compose`
substitutes one map into another. Dims have a normal form, so that views that move elements in the same way have equal
maps. Start at `Guard`, `Point` and `IndexMap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from irc import dims
from irc.dims import Dim, Variable

Coordinates = tuple[Dim, ...]

# The first part of the `place` of a `Variable`: dims of a value, dims of a reduction, two axes fused into one,
# variables of a proof, indices that a writer gives a name, the row of a vector.
WHOLE, REDUCED, JOINED, PROOF, WRITTEN, ROW = range(6)
MOST_PARTS = 64  # of a coordinate: reshapes that split each other's axes, with transposes between, double it each time


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition `0 <= index < extent`; `most` is at how many points of the one axis that it varies over it holds at
    most, where that is known from what the program computes."""

    index: Dim
    extent: Dim
    most: Dim | None = None
    _hash: int = field(init=False, repr=False, compare=False)  # computed once: guards are parts of memo keys

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.index, self.extent, self.most)))

    def __hash__(self) -> int:
        return self._hash


Guards = tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """Coordinates of an element of a value, valid at the points of the kernel's axes at which all guards hold."""

    coordinates: Coordinates
    guards: Guards = ()
    operand: int = 0  # of a pull: the operand that the coordinates index
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.coordinates, self.guards, self.operand)))

    def __hash__(self) -> int:
        return self._hash


# -- linear order ----------------------------------------------------------------------------------------------


same = lru_cache(1 << 14)(dims.same)  # whether two dims are proven to be equal


@lru_cache(1 << 14)
def linearize(coordinates: Coordinates, shape: Coordinates) -> Dim:
    """The position of an element in row-major order."""
    index: Dim = 0
    for coordinate, extent in zip(coordinates, shape, strict=True):
        index = index * extent + coordinate
    return index


def delinearize(index: Dim, shape: Coordinates) -> Coordinates:
    """The coordinates of the element at a position in row-major order."""
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

    The shapes are split into blocks where the products of their leading extents are equal, and each block is mapped
    separately: in [B, S, 768] -> [B, S, 12, 64] the coordinates of B and S do not change.
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
    """The coordinates in the operand of a transpose of an element of its result."""
    sources = [axis % len(permutation) for axis in permutation]
    return tuple(coordinates[sources.index(axis)] for axis in range(len(sources)))


def spread(coordinates: Coordinates, shape: Coordinates, operand: Coordinates) -> Coordinates:
    """The coordinates, in an operand of shape `operand`, of an element of that operand broadcast to `shape`."""
    if operand == shape and 1 not in shape:
        return coordinates
    first = len(shape) - len(operand)
    return tuple(
        0 if same(dim, 1) else coordinate if same(dim, extent) else _first_or(coordinate, extent, dim)
        for coordinate, extent, dim in zip(coordinates[first:], shape[first:], operand, strict=True)
    )


def _first_or(coordinate: Dim, extent: Dim, dim: Dim) -> Dim:
    """The coordinate where `dim` is `extent`, and 0 where it is 1, which are all that broadcast. The bound by the
    extent that an earlier broadcast left is implied, so that those of a long sum do not add up."""
    atom = dims.sole_atom(coordinate)
    others = [] if atom is None or atom.kind != "min" else [arg for arg in atom.args if arg != extent - 1]
    return dims.minimum(*(others or [coordinate]), dim - 1)


# -- maps of whole values ---------------------------------------------------------------------------------------


@lru_cache(1 << 12)
def axes(shape: Coordinates) -> Coordinates:
    """The coordinates of the elements of a shape, over one axis for each extent other than 1.

    A shape has the same axes in every kernel, so that memoized results for one group hold for larger groups and for
    equal layers of a model.
    """
    return tuple(0 if same(axis.extent, 1) else axis.expr for axis in axis_variables(shape))


def axis_variables(shape: Coordinates) -> tuple[Variable, ...]:
    """A variable for each dim of a shape."""
    return tuple(Variable(axis_name(extent, position), extent, (WHOLE, position))
                 for position, extent in enumerate(shape))  # fmt: skip


def divided_axis(extent: Dim, position: int, inner: int) -> Dim:
    """The coordinate of a dim over two axes: blocks of `inner` elements, which divides the extent, and their places."""
    blocks = Variable("g", dims.floor_divide(extent, inner), (WHOLE, position, 0))
    within = Variable(axis_name(extent, position), inner, (WHOLE, position, 1))
    return blocks.expr * inner + within.expr


def cut_axis(extent: int, position: int, period: int, piece: int, number: int) -> Dim:
    """The coordinate of a dim in one of the pieces that each `period` of it is cut into, over the periods and the
    elements of a piece."""
    blocks = Variable("g", extent // period, (WHOLE, position, 0))
    within = Variable(axis_name(extent, position), piece, (WHOLE, position, 1))
    at = blocks.expr * period if blocks.extent != 1 else 0
    return at + piece * number + (within.expr if piece != 1 else 0)


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that takes a permutation back."""
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def axis_name(extent: Dim, position: int) -> str:
    """`b` for an axis of extent B, else a letter by position."""
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
        """Whether the elements have the same row-major order in the source and the result."""
        return linearize(self.coordinates, self.source) == linearize(axes(self.shape), self.shape)

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The permutation, if the map is that of a transpose; else None."""
        ones = iter([axis for axis, extent in enumerate(self.source) if extent == 1])
        sources = {at: axis for axis, at in enumerate(self.coordinates) if at != 0}
        order = [next(ones, None) if extent == 1 else sources.get(at)
                 for extent, at in zip(self.shape, axes(self.shape), strict=True)]  # fmt: skip
        known = tuple(axis for axis in order if axis is not None)
        is_whole = len(known) == len(order) and sorted(known) == list(range(len(self.source)))
        return known if is_whole and tuple(self.source[axis] for axis in known) == self.shape else None


def is_empty(shape: Coordinates) -> bool:
    """Whether a shape never has elements, so that any map is valid. A map that is valid for all positive sizes is also
    valid where a symbol is 0."""
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
    if outer.is_reshape and inner.is_reshape:  # the shape between them may split the axes of both
        return reshape_map(inner.source, outer.shape)
    moved = dict(zip(axis_variables(inner.shape), outer.coordinates, strict=True))
    coordinates = tuple(dims.substitute(at, moved) for at in inner.coordinates)
    if any(isinstance(at, dims.Expr) and at.size > MOST_PARTS for at in coordinates):
        return None
    return IndexMap(inner.source, outer.shape, coordinates)


# -- proofs ----------------------------------------------------------------------------------------------------


@lru_cache(1 << 14)
def restrict(coordinates: Coordinates, shape: Coordinates, guards: Guards) -> Guards:
    """Guards under which every coordinate is in bounds: a minimal selection of the given ones, and new ones for
    coordinates that are not proven to be in bounds.

    A proof of `x % S < S` assumes that S is not 0. Where S may be 0, the guards that hold nowhere for S = 0 are kept.
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


@lru_cache(1 << 12)
def coarser(guard: Guard) -> Guard:
    """The guard on blocks of elements that holds where the guard does: of 0 <= 64*g + k < 256, where k < 64, that is
    0 <= g < 4. The guard itself where its index and extent are not of this form."""
    coefficients = [abs(factor) for _, factor in guard.index.terms] if isinstance(guard.index, dims.Expr) else []
    for step in sorted({factor for factor in coefficients if factor > 1}, reverse=True):
        block = dims.floor_divide(guard.index, step)
        is_affine = all(isinstance(atom, Variable) for atom in dims.free_atoms(block)) and not dims.divisors(block)
        if is_affine and isinstance(guard.extent, int) and guard.extent % step == 0:
            return Guard(block, guard.extent // step)
    return guard


@lru_cache(1 << 14)
def in_bounds(index: Dim, extent: Dim, guards: Guards) -> bool:
    """Whether `0 <= index < extent` is proven where the guards hold.

    A guard on `j - low` is applied as a change of variables: `j` becomes `t + low` with `t` in the guard's range.
    """
    if any(guard.index == index and dims.less_equal(guard.extent, extent) is True for guard in guards):
        return True
    if guards and in_bounds(index, extent, ()):  # an axis itself is; substituting for it may lose that
        return True
    mapping: dict[Variable, Dim] = {}
    for guard in guards:
        for axis in dims.free_atoms(guard.index):
            if isinstance(axis, Variable) and axis not in mapping:
                rest = guard.index - axis.expr
                if axis not in dims.free_atoms(rest):  # linear in the axis: the guard can be solved for it
                    mapping[axis] = _guarded(len(mapping), guard.extent).expr - rest
                    break
    index = dims.substitute(index, mapping)
    return dims.less_equal(0, index) is True and dims.less(index, extent) is True


def _guarded(number: int, extent: Dim) -> Variable:
    """A variable of `in_bounds`. The same arguments give the same variable, so that proofs are memoized."""
    return Variable(f"guarded{number}", extent, (PROOF, number))
