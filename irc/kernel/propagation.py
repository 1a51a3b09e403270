"""Index propagation: from the anchor's axes to the coordinates of every value of a group.

The axes of a kernel are the dims of its **anchor**, its root iteration space: the argument of the largest reduction, or
else the largest result. Coordinates propagate from there, forwards and backwards: through views by `irc.index_map`,
through pointwise operations by broadcasting, through reductions by dropping axes. A value that they reach is computed
at its point, so that the `x` under a softmax's maximum and the `x` from which it is subtracted are one load. Choosing
the axes by the result instead would compute a reduction again for each element of a view after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from irc import dims, index_map
from irc.dims import Dim, Variable
from irc.index_map import REDUCED, Coordinates, Guards, Point, same
from irc.ir import Operation, Value
from irc.kernel.dag import variables
from irc.kernel.rules import every_dim_has_an_axis
from irc.kernel.steps import Steps, reduced_dims

TYPICAL_SIZE = 64  # of a dim that is not known, to compare two values


def anchors(steps: Steps, outputs: Sequence[Value]) -> Iterator[Value]:
    """The values to try as anchor: arguments of reductions, results, what is cut into several; the largest first."""
    arguments = [step.inputs[0] for step in steps.steps if step.definition.reduction is not None]
    results = [steps.inner[output] for output in outputs]
    whole = [step.inputs[0] for step in steps.steps if step.name in ("slice", "split")]
    for values in (arguments, results, whole):
        yield from sorted(dict.fromkeys(values), key=lambda value: -typical(value.type.elements))


@lru_cache(1 << 12)
def typical(elements: Dim) -> int:
    sizes = {symbol: max(symbol.low, min(symbol.high, TYPICAL_SIZE)) for symbol in dims.free_symbols(elements)}
    return dims.estimate(elements, sizes)


@lru_cache(1 << 12)
def fresh_axes(extents: Coordinates, number: int) -> tuple[Variable, ...]:
    """Axes of its own for a reduction whose argument has no point; `number` distinguishes such reductions."""
    numbered = enumerate(extents)
    return tuple(Variable(f"r{position}", extent, (REDUCED, number, position)) for position, extent in numbered)


class Propagation:
    """The points of the values that the anchor's coordinates reach within a group."""

    def __init__(self, anchor: Value, steps: Steps) -> None:
        self.points: dict[Value, Point] = {anchor: Point(index_map.axes(anchor.shape))}
        self.axes = [axis for c in self.points[anchor].coordinates for axis in variables(c)]
        self._waiting = deque([anchor])
        inside = set(steps.steps)
        while self._waiting:
            value = self._waiting.popleft()
            for reader in steps.readers.get(value, ()):
                for result in reader.results:
                    if result not in self.points:
                        self._reach(result, self._forward(reader, result))
            if value.operation in inside:
                self._backward(value.operation, value)

    def _reach(self, value: Value, point: Point | None) -> None:
        if point is not None and value not in self.points:
            self.points[value] = point
            self._waiting.append(value)

    def _forward(self, step: Operation, result: Value) -> Point | None:
        push = step.definition.push
        if push is not None:
            return push(result, self.points[step.inputs[0]])
        if step.definition.reduction is not None and step.inputs[0] in self.points:
            point, reduced, keep = self.points[step.inputs[0]], reduced_dims(step), step.attributes["keep_dims"]
            ending = remaining(point, reduced)
            parts = [(axis in reduced, coordinate) for axis, coordinate in enumerate(point.coordinates)]
            moved = tuple(0 if gone else coordinate for gone, coordinate in parts if keep or not gone)
            return None if ending is None else Point(moved, ending)
        if step.definition.pointwise is not None:
            partial, guards = self._broadcast(result)
            known = tuple(coordinate for coordinate in partial if coordinate is not None)
            return Point(known, guards) if len(known) == len(partial) else None
        return None

    def _broadcast(self, result: Value) -> tuple[list[Dim | None], Guards]:
        """The point of a pointwise result where its operands' points determine it: each dim from an operand that is not
        repeated along it. Two dims over one axis would be a diagonal: in `x[:, None] + x` the second gives nothing."""
        merged: list[Dim | None] = [None] * result.rank
        step = result.operation
        for operand in step.inputs if step is not None and step.definition.pointwise is not None else ():
            if operand in self.points:
                point, new = self.points[operand], result.rank - operand.rank
                parts = zip(point.coordinates, operand.shape, result.shape[new:], strict=True)
                own = [None] * new + [c if same(extent, whole) else None for c, extent, whole in parts]
                if None not in own:
                    return own, point.guards
                known = variables(*(c for c in merged if c is not None))
                more = [c for c, old in zip(own, merged, strict=True) if old is None and c is not None]
                if not point.guards and known.isdisjoint(variables(*more)):
                    merged = [mine if old is None else old for old, mine in zip(merged, own, strict=True)]
        return merged, ()

    def _backward(self, step: Operation, result: Value) -> None:
        """Operands whose every element has a point: a view may read only a part of its operand."""
        point = self.points[result]
        if step.name == "expand" or step.definition.pointwise is not None:
            for operand in step.inputs:
                self._reach(operand, None if operand in self.points else narrowed(operand, result, point))
        elif step.definition.pull is not None and reads_all(step):
            for piece in step.definition.pull(result, point.coordinates):
                if piece.operand < len(step.inputs):  # a pad without a value fills in zero, which is no operand
                    guards = (*point.guards, *piece.guards)
                    self._reach(step.inputs[piece.operand], Point(piece.coordinates, guards))

    def covers(self, value: Value) -> bool:
        """Whether each of the axes is a dim of the value: as an anchor it would have the same ones."""
        point = self.points.get(value)
        if point is None or point.guards:
            return False
        coordinates = [coordinate for coordinate in point.coordinates if coordinate != 0]
        return len(coordinates) == len(self.axes) and {axis.expr for axis in self.axes}.issubset(coordinates)

    def root(self, value: Value) -> Point:
        """The point of a stored value (rule F4); dims that nothing reached take a free axis of their extent."""
        if value in self.points:
            return self.points[value]
        partial, guards = self._broadcast(value)
        used = {atom for c in partial if c is not None for atom in dims.free_atoms(c)}
        found: list[Dim] = []
        for coordinate, extent in zip(partial, value.shape, strict=True):
            if coordinate is None and same(extent, 1):
                coordinate = 0
            if coordinate is None:
                axis = next((axis for axis in self.axes if axis not in used and same(axis.extent, extent)), None)
                every_dim_has_an_axis(value, extent, axis)
                assert axis is not None
                used.add(axis)
                coordinate = axis.expr
            found.append(coordinate)
        return Point(tuple(found), guards)


def narrowed(operand: Value, result: Value, point: Point) -> Point | None:
    """The point of an operand that is broadcast; None where a dim may or may not be stretched, and where none of the
    result's elements is made of the operand's, since there are none."""
    if operand.shape == result.shape and 1 not in operand.shape:
        return point
    missing = result.rank - operand.rank
    pairs = zip(operand.shape, result.shape[missing:], strict=True)
    if not all(same(own, 1) or same(own, extent) for own, extent in pairs):
        return None
    lost = {*range(missing), *(missing + axis for axis, own in enumerate(operand.shape) if same(own, 1))}
    if any(same(result.shape[axis], 0) for axis in lost):
        return None
    guards = remaining(point, lost)
    return None if guards is None else Point(index_map.spread(point.coordinates, result.shape, operand.shape), guards)


def remaining(point: Point, lost: Collection[int]) -> Guards | None:
    """The guards of a point of which some coordinates are left out: those of their axes end with them.

    None where the coordinates that stay use these axes too: one element would stand, and be stored, at several
    places along an axis. None also where it is not known which coordinates a guard is about, since it is about some of
    both, or about no axis at all: `0 <= 0 < S` of a slice of one element.
    """
    ended = variables(*(coordinate for axis, coordinate in enumerate(point.coordinates) if axis in lost))
    staying = variables(*(coordinate for axis, coordinate in enumerate(point.coordinates) if axis not in lost))
    guarded = [variables(guard.index) for guard in point.guards]
    if ended & staying or any(not axes or (ended & axes and axes - ended) for axes in guarded):
        return None
    return tuple(guard for guard in point.guards if ended.isdisjoint(variables(guard.index)))


def reads_all(view: Operation) -> bool:
    """Whether a view reads every element of its operand, and none twice."""
    if view.name == "pad":
        return bool(view.attributes["mode"] == "constant")  # the other modes repeat elements at the edges
    return view.name not in ("slice", "split")
