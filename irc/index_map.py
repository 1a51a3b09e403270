"""The index algebra: how the coordinates of an operation's results and operands answer each other.

A coordinate is a dim expression over the axes of a kernel. Views compute nothing: each is described here by
two maps, and neither copies.

    pull   result element -> where it comes from, as pieces: the first piece whose guards hold gives the value
    push   operand element -> where it goes, under guards where only a part of the operand arrives

    slice   pull(c) = start + step*c                push(c) = (c - start)//step  where  0 <= c - start < ...
    pad     pull(c) = c - low  where 0 <= c - low < extent, else the fill
    concat  pull(c) = c - offset of piece k  where  0 <= c - offset < size of piece k

Guards have one form, `0 <= index < extent`. `restrict` is the proof of rule F12: it keeps the guards that an
access needs to stay in its buffer, and adds those that cannot be proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from irc import dims
from irc.dims import Dim, Expr, Variable
from irc.types import TensorType

Coordinates = tuple[Dim, ...]
Partial = tuple[Dim | None, ...]  # None where the flood has not yet found a coordinate


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition `0 <= index < extent`."""

    index: Dim
    extent: Dim

    def __str__(self) -> str:
        return f"0 <= {self.index} < {self.extent}"


Guards = tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a result element comes from: an operand's element, under guards."""

    operand: int
    coordinates: Coordinates
    guards: Guards = ()


@dataclass(frozen=True, slots=True)
class Point:
    """An element of a value, one for each point of the kernel's axes at which the guards hold."""

    coordinates: Partial
    guards: Guards = ()

    @property
    def complete(self) -> bool:
        return all(coordinate is not None for coordinate in self.coordinates)


@dataclass(frozen=True, slots=True)
class View:
    """One use of a view operation, as the maps need it."""

    name: str
    attributes: Mapping[str, Any]
    operands: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    result: int = 0  # which result is asked for

    @property
    def shape(self) -> Coordinates:
        return self.operands[0].dims


# -- linear order ----------------------------------------------------------------------------------------------


def linearize(coordinates: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """The place of an element in row-major order."""
    index: Dim = 0
    for coordinate, extent in zip(coordinates, shape, strict=True):
        index = index * extent + coordinate
    return index


def delinearize(index: Dim, shape: Sequence[Dim]) -> Coordinates:
    """The coordinates of the element at a place in row-major order."""
    coordinates: list[Dim] = []
    for position in range(len(shape) - 1, -1, -1):
        extent = shape[position]
        if dims.equal(extent, 1) is True:
            coordinates.append(0)
        elif position == 0 or dims.equal(dims.product(shape[:position]), 1) is True:
            coordinates.append(index)
            index = 0
        else:
            coordinates.append(dims.modulo(index, extent))
            index = dims.floor_divide(index, extent)
    return tuple(reversed(coordinates))


def reshape(coordinates: Partial, before: Sequence[Dim], after: Sequence[Dim]) -> Partial:
    """The coordinates, in shape `after`, of an element of shape `before`.

    Where the products of leading extents agree, the shapes fall into blocks that are mapped apart: in
    [B, S, 768] -> [B, S, 12, 64] the coordinates of B and S stay what they are.
    """
    result: list[Dim | None] = []
    for left, right in _blocks(before, after):
        known = [coordinate for coordinate in coordinates[left[0] : left[1]] if coordinate is not None]
        if left[1] - left[0] == 1 and right[1] - right[0] == 1:
            result.append(coordinates[left[0]])
        elif len(known) == left[1] - left[0]:
            index = linearize(known, before[left[0] : left[1]])
            result.extend(delinearize(index, after[right[0] : right[1]]))
        else:
            result.extend([None] * (right[1] - right[0]))
    return tuple(result)


def _blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    left_products = [dims.product(before[:count]) for count in range(len(before) + 1)]
    right_products = [dims.product(after[:count]) for count in range(len(after) + 1)]
    blocks = []
    left = right = 0
    for next_left in range(1, len(before) + 1):
        matches = [
            position
            for position in range(right + 1, len(after) + 1)
            if dims.equal(left_products[next_left], right_products[position]) is True
        ]
        if matches and next_left < len(before):
            blocks.append(((left, next_left), (right, matches[0])))
            left, right = next_left, matches[0]
    blocks.append(((left, len(before)), (right, len(after))))
    return blocks


# -- pull: from results back to operands -----------------------------------------------------------------------


def pull(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    """Where the element of the view's result comes from; pieces are tried in order, the last one always holds."""
    return _PULL[view.name](view, coordinates)


def _pull_reshape(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    moved = reshape(coordinates, view.results[0].dims, view.shape)
    return (Piece(0, tuple(coordinate for coordinate in moved if coordinate is not None)),)


def _pull_transpose(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    moved: list[Dim] = [0] * len(coordinates)
    for coordinate, source in zip(coordinates, _permutation(view), strict=True):
        moved[source] = coordinate
    return (Piece(0, tuple(moved)),)


def _permutation(view: View) -> list[int]:
    rank = len(view.shape)
    return [axis % rank for axis in view.attributes["permutation"]]


def _pull_expand(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    return (Piece(0, broadcast_coordinates(coordinates, view.results[0].dims, view.shape)),)


def broadcast_coordinates(coordinates: Coordinates, shape: Sequence[Dim], operand: Sequence[Dim]) -> Coordinates:
    """The element of an operand of shape `operand` that broadcasting brings to `coordinates` of `shape`."""
    tail = zip(coordinates[len(coordinates) - len(operand) :], shape[len(shape) - len(operand) :], operand, strict=True)
    return tuple(_broadcast(coordinate, extent, own) for coordinate, extent, own in tail)


def _broadcast(coordinate: Dim, extent: Dim, own: Dim) -> Dim:
    if dims.equal(own, 1) is True:
        return 0
    if dims.equal(own, extent) is True:
        return coordinate
    return dims.minimum(coordinate, own - 1)  # 1 or the extent: which one is known when it runs


def _pull_slice(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    parts = zip(coordinates, view.attributes["starts"], view.attributes["steps"], strict=True)
    return (Piece(0, tuple(start + step * coordinate for coordinate, start, step in parts)),)


def _pull_split(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    axis = view.attributes["axis"] % len(coordinates)
    offset = dims.total(view.attributes["sizes"][: view.result])
    return (Piece(0, _shifted(coordinates, axis, offset)),)


def _pull_reverse(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    return (Piece(0, _reversed(view, coordinates)),)


def _reversed(view: View, coordinates: Coordinates) -> Coordinates:
    axes = {axis % len(coordinates) for axis in view.attributes["axes"]}
    return tuple(
        view.shape[axis] - 1 - coordinate if axis in axes else coordinate for axis, coordinate in enumerate(coordinates)
    )


def _pull_pad(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    inside, guards = [], []
    for coordinate, low, high, extent in zip(
        coordinates, view.attributes["low"], view.attributes["high"], view.shape, strict=True
    ):
        shifted = coordinate - low
        mode = view.attributes["mode"]
        if dims.equal(low, 0) is True and dims.equal(high, 0) is True:
            inside.append(coordinate)
        elif mode == "constant":
            inside.append(shifted)
            guards.append(Guard(shifted, extent))
        elif mode == "edge":
            inside.append(dims.minimum(dims.maximum(shifted, 0), extent - 1))
        elif mode == "reflect":
            folded = dims.maximum(shifted, -shifted)
            inside.append(dims.minimum(folded, 2 * (extent - 1) - folded))
        else:  # wrap
            inside.append(dims.modulo(shifted, extent))
    if not guards:
        return (Piece(0, tuple(inside)),)
    return Piece(0, tuple(inside), tuple(guards)), Piece(1, ())


def _pull_concat(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    axis = view.attributes["axis"] % len(coordinates)
    pieces: list[Piece] = []
    offset: Dim = 0
    for operand, type_ in enumerate(view.operands):
        size = type_.dims[axis]
        if dims.equal(size, 0) is not True:
            index = coordinates[axis] - offset
            pieces.append(Piece(operand, _shifted(coordinates, axis, -offset), (Guard(index, size),)))
        offset = offset + size
    if not pieces:
        return (Piece(0, coordinates),)  # no element is ever asked for
    if len(pieces) == 1:
        return (Piece(pieces[0].operand, pieces[0].coordinates),)
    return tuple(pieces)


def _shifted(coordinates: Coordinates, axis: int, offset: Dim) -> Coordinates:
    return (*coordinates[:axis], coordinates[axis] + offset, *coordinates[axis + 1 :])


_PULL: dict[str, Callable[[View, Coordinates], tuple[Piece, ...]]] = {
    "reshape": _pull_reshape, "transpose": _pull_transpose, "expand": _pull_expand, "slice": _pull_slice,
    "split": _pull_split, "reverse": _pull_reverse, "pad": _pull_pad, "concat": _pull_concat,
}  # fmt: skip
VIEWS = frozenset(_PULL)


# -- push: from operands on to results -------------------------------------------------------------------------


def push(view: View, operand: int, point: Point) -> Point | None:
    """The point of the view's result at which an operand's point arrives; None where no one point does."""
    coordinates, guards = point.coordinates, point.guards
    if operand > 0 or view.name in ("pad", "concat"):
        return None  # the result has elements that come from elsewhere
    if view.name == "reshape":
        return Point(reshape(coordinates, view.shape, view.results[0].dims), guards)
    if view.name == "transpose":
        return Point(tuple(coordinates[source] for source in _permutation(view)), guards)
    if view.name == "expand":
        return Point(aligned(coordinates, view.shape, view.results[0].dims), guards)
    if not point.complete:
        return None
    known = tuple(coordinate for coordinate in coordinates if coordinate is not None)
    if view.name == "reverse":
        return Point(_reversed(view, known), guards)
    return _push_part(view, known, guards)


def _push_part(view: View, coordinates: Coordinates, guards: Guards) -> Point | None:
    """Slice and split: only those elements arrive that the guards admit."""
    if view.name == "split":
        axis = view.attributes["axis"] % len(coordinates)
        offset = dims.total(view.attributes["sizes"][: view.result])
        starts: list[Dim] = [offset if position == axis else 0 for position in range(len(coordinates))]
        steps: Sequence[Dim] = [1] * len(coordinates)
    else:
        starts, steps = list(view.attributes["starts"]), view.attributes["steps"]
    moved: list[Dim] = []
    added: list[Guard] = []
    parts = zip(coordinates, starts, steps, view.results[view.result].dims, view.shape, strict=True)
    for coordinate, start, step, extent, before in parts:
        if dims.equal(extent, before) is True:
            moved.append(coordinate)
            continue
        shifted = coordinate - start
        if dims.equal(step, 1) is not True:
            added.append(Guard(dims.modulo(shifted, step), 1))
            shifted = dims.floor_divide(shifted, step)
        added.append(Guard(shifted, extent))
        moved.append(shifted)
    return Point(tuple(moved), (*guards, *added))


def aligned(coordinates: Partial, operand: Sequence[Dim], shape: Sequence[Dim]) -> Partial:
    """An operand's coordinates as far as they are those of the broadcast result; None where it is stretched."""
    result: list[Dim | None] = [None] * (len(shape) - len(operand))
    for coordinate, own, extent in zip(coordinates, operand, shape[len(shape) - len(operand) :], strict=True):
        result.append(coordinate if dims.equal(own, extent) is True else None)
    return tuple(result)


# -- proofs ----------------------------------------------------------------------------------------------------


def restrict(coordinates: Coordinates, shape: Sequence[Dim], guards: Guards) -> Guards:
    """Guards under which every coordinate is in bounds: the fewest of the given ones, and new ones where unproven."""
    needed: list[Guard] = []
    for coordinate, extent in zip(coordinates, shape, strict=True):
        if in_bounds(coordinate, extent, ()):
            continue
        atoms = set(dims.free_atoms(coordinate))
        related = tuple(guard for guard in guards if not atoms.isdisjoint(dims.free_atoms(guard.index)))
        single = next((guard for guard in related if in_bounds(coordinate, extent, (guard,))), None)
        if single is not None:
            needed.append(single)
        elif len(related) > 1 and in_bounds(coordinate, extent, related):
            needed.extend(related)
        else:
            needed.append(Guard(coordinate, extent))
    return tuple(dict.fromkeys(needed))


@lru_cache(maxsize=1 << 14)
def in_bounds(index: Dim, extent: Dim, guards: Guards) -> bool:
    """Whether `0 <= index < extent` is proven where the guards hold.

    A guard on `j - low` is used by a change of variables: `j` becomes `t + low` with `t` in the guard's range.
    """
    if any(guard.index == index and dims.less_equal(guard.extent, extent) is True for guard in guards):
        return True
    mapping: dict[Variable, Dim] = {}
    for number, guard in enumerate(guards):
        axis = next((atom for atom in dims.free_atoms(guard.index) if _is_unit(guard.index, atom, mapping)), None)
        if isinstance(axis, Variable):
            inside = Variable(f"guarded{number}", guard.extent)
            mapping[axis] = inside.expr - (guard.index - axis.expr)
    if mapping:
        index = dims.substitute(index, mapping)
    return dims.less_equal(0, index) is True and dims.less(index, extent) is True


def _is_unit(index: Dim, atom: dims.Atom, taken: Mapping[Variable, Dim]) -> bool:
    """Whether the index is the axis plus terms without it, so that it can be solved for the axis."""
    if not isinstance(atom, Variable) or atom in taken or not isinstance(index, Expr):
        return False
    return atom not in dims.free_atoms(index - atom.expr)
