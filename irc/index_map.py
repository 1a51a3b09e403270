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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from irc import dims
from irc.dims import Dim, Variable
from irc.types import TensorType

Coordinates = tuple[Dim, ...]
VIEWS = frozenset({"reshape", "transpose", "expand", "slice", "split", "reverse", "pad", "concat"})

_CACHED = 1 << 14


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition `0 <= index < extent`."""

    index: Dim
    extent: Dim


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

    coordinates: Coordinates
    guards: Guards = ()


@dataclass(frozen=True, slots=True)
class View:
    """One use of a view operation, as the maps need it."""

    name: str
    attributes: Mapping[str, Any]
    operands: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    result: int = 0  # which result is asked for

    @property
    def before(self) -> Coordinates:
        return self.operands[0].dims

    @property
    def after(self) -> Coordinates:
        return self.results[self.result].dims

    @property
    def permutation(self) -> list[int]:
        return [axis % len(self.before) for axis in self.attributes["permutation"]]

    def part(self) -> tuple[Sequence[Dim], Sequence[int]]:
        """Starts and steps of a slice; a split is one too."""
        if self.name == "slice":
            return self.attributes["starts"], self.attributes["steps"]
        starts: list[Dim] = [0] * len(self.before)
        starts[self.attributes["axis"]] = dims.total(self.attributes["sizes"][: self.result])
        return starts, [1] * len(starts)


# -- linear order ----------------------------------------------------------------------------------------------


@lru_cache(_CACHED)
def same(a: Dim, b: Dim) -> bool:
    """Whether two dims are known to be equal."""
    return a == b or dims.equal(a, b) is True


@lru_cache(_CACHED)
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
        if same(shape[position], 1):
            coordinates.append(0)
        elif same(dims.product(shape[:position]), 1):
            coordinates.append(index)
            index = 0
        else:
            coordinates.append(dims.modulo(index, shape[position]))
            index = dims.floor_divide(index, shape[position])
    return tuple(reversed(coordinates))


@lru_cache(_CACHED)
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


# -- pull: from results back to operands -----------------------------------------------------------------------


def pull(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    """Where the element of the view's result comes from; pieces are tried in order, the last one always holds."""
    if view.name == "pad":
        return _pull_pad(view, coordinates)
    if view.name == "concat":
        return _pull_concat(view, coordinates)
    if view.name == "reshape":
        source = reshape(coordinates, view.after, view.before)
    elif view.name == "transpose":
        source = tuple(coordinates[view.permutation.index(axis)] for axis in range(len(coordinates)))
    elif view.name == "expand":
        source = spread(coordinates, view.after, view.before)
    elif view.name == "reverse":
        source = _reversed(view, coordinates)
    else:
        parts = zip(coordinates, *view.part(), strict=True)
        source = tuple(start + step * coordinate for coordinate, start, step in parts)
    return (Piece(0, source),)


def spread(coordinates: Coordinates, shape: Coordinates, operand: Coordinates) -> Coordinates:
    """The element of an operand of shape `operand` that broadcasting brings to `coordinates` of `shape`."""
    first = len(shape) - len(operand)
    return tuple(map(_broadcast, coordinates[first:], shape[first:], operand))


def _broadcast(coordinate: Dim, extent: Dim, own: Dim) -> Dim:
    if same(own, 1):
        return 0
    # 1 or the extent: which one is known when it runs.
    return coordinate if same(own, extent) else dims.minimum(coordinate, own - 1)


def _reversed(view: View, coordinates: Coordinates) -> Coordinates:
    axes = {axis % len(coordinates) for axis in view.attributes["axes"]}
    return tuple(view.before[axis] - 1 - c if axis in axes else c for axis, c in enumerate(coordinates))


def _pull_pad(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    inside, guards = [], []
    mode, lows, highs = (view.attributes[name] for name in ("mode", "low", "high"))
    for coordinate, low, high, extent in zip(coordinates, lows, highs, view.before, strict=True):
        shifted = coordinate - low
        if same(low, 0) and same(high, 0):
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
    piece = Piece(0, tuple(inside), tuple(guards))
    return (piece, Piece(1, ())) if guards else (piece,)


def _pull_concat(view: View, coordinates: Coordinates) -> tuple[Piece, ...]:
    axis = view.attributes["axis"] % len(coordinates)
    pieces: list[Piece] = []
    index = coordinates[axis]
    for operand, type_ in enumerate(view.operands):
        size = type_.dims[axis]
        if not same(size, 0):
            source = (*coordinates[:axis], index, *coordinates[axis + 1 :])
            pieces.append(Piece(operand, source, (Guard(index, size),)))
        index = index - size
    if not pieces:
        return (Piece(0, coordinates),)  # no element is ever asked for
    if len(pieces) == 1:
        return (replace(pieces[0], guards=()),)
    return tuple(pieces) or (Piece(0, coordinates),)  # of nothing but empty operands, no element is ever asked for


# -- push: from operands on to results -------------------------------------------------------------------------


def push(view: View, operand: int, point: Point) -> Point | None:
    """The point of the view's result at which an operand's point arrives; None where no one point does."""
    coordinates, guards = point.coordinates, point.guards
    if operand > 0 or view.name in ("pad", "concat"):
        return None  # the result has elements that come from elsewhere
    if view.name == "reshape":
        return Point(reshape(coordinates, view.before, view.after), guards)
    if view.name == "transpose":
        return Point(tuple(coordinates[source] for source in view.permutation), guards)
    if view.name == "expand":
        stretched = len(view.before) < len(view.after) or not all(map(same, view.before, view.after))
        return None if stretched else point
    if view.name == "reverse":
        return Point(_reversed(view, coordinates), guards)
    moved: list[Dim] = []
    added: list[Guard] = []  # only those elements of a slice or split arrive that the guards admit
    for coordinate, start, step, extent, before in zip(coordinates, *view.part(), view.after, view.before, strict=True):
        if not same(extent, before):
            coordinate = coordinate - start
            if not same(step, 1):
                added.append(Guard(dims.modulo(coordinate, step), 1))
                coordinate = dims.floor_divide(coordinate, step)
            added.append(Guard(coordinate, extent))
        moved.append(coordinate)
    return Point(tuple(moved), (*guards, *added))


# -- proofs ----------------------------------------------------------------------------------------------------


@lru_cache(_CACHED)
def restrict(coordinates: Coordinates, shape: Coordinates, guards: Guards) -> Guards:
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


@lru_cache(_CACHED)
def in_bounds(index: Dim, extent: Dim, guards: Guards) -> bool:
    """Whether `0 <= index < extent` is proven where the guards hold.

    A guard on `j - low` is used by a change of variables: `j` becomes `t + low` with `t` in the guard's range.
    """
    if any(guard.index == index and dims.less_equal(guard.extent, extent) is True for guard in guards):
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


@lru_cache(_CACHED)
def _guarded(number: int, extent: Dim) -> Variable:
    """The variables of `in_bounds`, made once: what is proven of them need not be proven again."""
    return Variable(f"guarded{number}", extent)
