"""Index propagation: from the anchor's axes to the coordinates of every value of a group.

The axes of a kernel are the dims of its **anchor**, the value whose shape is the kernel's root iteration space: the
result of the largest product, or the argument of the largest reduction, or else the largest result. A `Point`
(`irc.index_map`) states which element of a value is computed at each index of these axes: its coordinates are
expressions over them, and its guards are the conditions under which there is such an element. Points propagate from the
anchor to readers and to producers: through views by their index maps, through pointwise operations by broadcasting,
through reductions by dropping axes.

All readers of a value that has a point read it there, so the `x` in a softmax's maximum and the `x` from which the
maximum is subtracted are one load. Axes chosen from the result would not reach the argument of a reduction through a
slice after it, and the reduction would be computed again for each element. Start at `Propagation`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from irc import dims, index_map
from irc.dims import Dim, Variable
from irc.index_map import REDUCED, Coordinates, Guards, Point, in_bounds, same
from irc.ir import Operation, Value
from irc.kernel.dag import variables
from irc.kernel.rules import every_dim_has_an_axis
from irc.kernel.steps import Steps, reduced_dims

TYPICAL_SIZE = 64  # assumed for a symbol, within its range, to compare the sizes of two values


def anchors(steps: Steps, outputs: Sequence[Value]) -> Iterator[Value]:
    """The values to try as anchor: first results of products, the last first, then arguments of reductions and scans,
    results, and operands of slices and splits, each of these from the largest to the smallest."""
    yield from (step.result for step in reversed(steps.steps) if step.definition.contraction is not None)
    arguments = [step.inputs[0] for step in steps.steps
                 if step.definition.reduction is not None or step.definition.scan is not None]  # fmt: skip
    results = [steps.inner[output] for output in outputs]
    sliced = [step.inputs[0] for step in steps.steps if step.name in ("slice", "split")]
    for values in (arguments, results, sliced):
        yield from sorted(dict.fromkeys(values), key=lambda value: -typical(value.type.elements))


@lru_cache(1 << 12)
def typical(elements: Dim) -> int:
    """A number of elements at typical sizes of its symbols."""
    sizes = {symbol: max(symbol.low, min(symbol.high, TYPICAL_SIZE)) for symbol in dims.free_symbols(elements)}
    return dims.estimate(elements, sizes)


@lru_cache(1 << 12)
def fresh_axes(extents: Coordinates, number: int) -> tuple[Variable, ...]:
    """New axes, of these extents, for a reduction whose argument has no point. Reductions with equal extents share
    them; the caller counts `number` up where the argument's other coordinates use the axes already."""
    numbered = enumerate(extents)
    return tuple(Variable(f"r{position}", extent, (REDUCED, number, position)) for position, extent in numbered)


def new_indices(extents: Sequence[Dim], coordinates: Coordinates) -> tuple[Coordinates, tuple[Variable, ...]]:
    """Indices along dims of these extents, 0 for those of 1 element, and their axes, which the coordinates do not use.
    What is reduced over dims of equal extents shares them."""
    longer, taken = tuple(extent for extent in extents if not same(extent, 1)), variables(*coordinates)
    axes = next(axes for number in itertools.count() if taken.isdisjoint(axes := fresh_axes(longer, number)))
    fresh = iter(axes)
    return tuple(0 if same(extent, 1) else next(fresh).expr for extent in extents), axes


def root_coordinates(anchor: Value) -> Coordinates:
    """Coordinates over an axis for each dim of the anchor, and over two for a dim that its contraction divides: the
    groups of a convolution, and the channels of a group."""
    coordinates, step = list(index_map.axes(anchor.shape)), anchor.operation
    if step is not None and step.definition.contraction is not None:
        for position, inner in step.definition.contraction.space(step).divided:
            if isinstance(inner, int):
                coordinates[position] = index_map.divided_axis(anchor.shape[position], position, inner)
    return tuple(coordinates)


class Propagation:
    """The points of the values of a group that propagation from an anchor reaches.

    points: by value, also of values that the group reads from outside. axes: those of the anchor. `coordinates` of the
    anchor are given where they are those of a piece (`irc.kernel.cuts`), of which dims may be covered in part.
    """

    def __init__(self, anchor: Value, steps: Steps, coordinates: Coordinates | None = None) -> None:
        self.is_piece = coordinates is not None
        coordinates = root_coordinates(anchor) if coordinates is None else coordinates
        self.points: dict[Value, Point] = {anchor: Point(coordinates)}
        self.axes = [axis for at in coordinates for axis in dims.free_atoms(at) if isinstance(axis, Variable)]
        self._steps, self._waiting = steps, deque([anchor])
        self._summed: set[Variable] = set()
        self._propagate()

    def _propagate(self) -> None:
        inside = set(self._steps.steps)
        while self._waiting:
            value = self._waiting.popleft()
            for reader in self._steps.readers.get(value, ()):
                for result in reader.results:
                    if result not in self.points:
                        self._reach(result, self._at_operands(reader, result))
            if value.operation in inside:
                self._backward(value.operation, value)

    def _at_operands(self, step: Operation, result: Value) -> Point | None:
        """`_forward`, computed once for the same points."""
        key = result, tuple([self.points.get(value) for value in step.inputs])
        known = self._steps.expansion.result_points
        if key not in known:
            known[key] = self._forward(step, result)
        return known[key]

    def _reach_operands_of_contractions(self) -> None:
        """Propagate on to operands of contractions where they are in bounds, at the axes that are summed over."""
        for step in reversed(self._steps.steps):
            contraction = step.definition.contraction
            if contraction is None or step.result not in self.points:
                continue
            space, point = self._steps.expansion.space(step), self.points[step.result]
            inner, axes = new_indices(space.extents[len(point.coordinates) :], point.coordinates)
            self._summed.update(axes)
            operands = zip(step.inputs, space.maps((*point.coordinates, *inner))[:2], strict=False)
            for operand, at in operands:
                if all(map(_runs_over, at, operand.shape)):
                    self._reach(operand, Point(at, point.guards))
            self._propagate()

    def _reach(self, value: Value, point: Point | None) -> None:
        if point is not None and value not in self.points:
            self.points[value] = point
            self._waiting.append(value)

    def _forward(self, step: Operation, result: Value) -> Point | None:
        """The point of a result from those of the operands; None where they do not determine one."""
        push = step.definition.push
        if push is not None:
            return push(result, self.points[step.inputs[0]])
        if step.definition.reduction is not None and step.inputs[0] in self.points:
            point, reduced, keep = self.points[step.inputs[0]], reduced_dims(step), step.attributes["keep_dims"]
            guards = guards_without(point, reduced)
            parts = [(axis in reduced, coordinate) for axis, coordinate in enumerate(point.coordinates)]
            coordinates = tuple(0 if is_reduced else part for is_reduced, part in parts if keep or not is_reduced)
            return None if guards is None else Point(coordinates, guards)
        if step.definition.scan is not None:
            return self.points.get(step.inputs[0])
        if step.name == "concat":
            return self._joined(step, result)
        if step.name == "pad":
            return self._padded(step, result)
        if step.definition.pointwise is not None:
            partial, guards = self._broadcast(result)
            known = tuple(coordinate for coordinate in partial if coordinate is not None)
            return Point(known, guards) if len(known) == len(partial) else None
        return None

    def _joined(self, step: Operation, result: Value) -> Point | None:
        """The point of a concatenation of parts of one value, such as the two halves of a head: where the parts are
        read at it again, for all of its elements."""
        points = [self.points.get(operand) for operand in step.inputs]
        pull = step.definition.pull
        if pull is None or points[0] is None:
            return None
        pieces = pull(result, points[0].coordinates)
        joined = Point(points[0].coordinates, tuple(g for g in points[0].guards if g not in pieces[0].guards))
        for piece in pieces:
            point = points[piece.operand]
            if point is None or point.coordinates != piece.coordinates:
                return None
            if {*point.guards, *piece.guards} != {*joined.guards, *piece.guards}:
                return None
        return joined

    def _padded(self, step: Operation, result: Value) -> Point | None:
        """The point of a padded result where its operand is read at the points of all of its elements under guards:
        beside another operand that is padded alike."""
        point, pull = self.points.get(step.inputs[0]), step.definition.pull
        if point is None or pull is None or not reads_all(step):
            return None
        coordinates = tuple(at + low for at, low in zip(point.coordinates, step.attributes["low"], strict=True))
        inside, *_ = pull(result, coordinates)
        padded = zip(coordinates, result.shape, step.inputs[0].shape, strict=True)
        covers = all(same(before, extent) or _runs_over(at, extent) for at, extent, before in padded)
        if not covers or inside.coordinates != point.coordinates or not {*inside.guards} <= {*point.guards}:
            return None
        return Point(coordinates, tuple(guard for guard in point.guards if guard not in inside.guards))

    def _broadcast(self, result: Value) -> tuple[list[Dim | None], Guards]:
        """The coordinates and guards of a pointwise result, as its operands' points determine them; None for the dims
        that they do not determine.

        Each dim is taken from an operand that is not broadcast along it. An operand adds no dims whose axes others
        use already: in `x[:, None] + x` both dims would run over the one axis of x, which is a diagonal.
        """
        merged: list[Dim | None] = [None] * result.rank
        step = result.operation
        for operand in step.inputs if step is not None and step.definition.pointwise is not None else ():
            if operand in self.points:
                point, missing = self.points[operand], result.rank - operand.rank
                parts = zip(point.coordinates, operand.shape, result.shape[missing:], strict=True)
                given = [None] * missing + [c if same(extent, full) else None for c, extent, full in parts]
                if None not in given:
                    return given, point.guards
                used = variables(*(c for c in merged if c is not None))
                added = [c for c, old in zip(given, merged, strict=True) if old is None and c is not None]
                if not point.guards and used.isdisjoint(variables(*added)):
                    merged = [new if old is None else old for old, new in zip(merged, given, strict=True)]
        return merged, ()

    def _backward(self, step: Operation, result: Value) -> None:
        """Give points to the operands of a step, where each of their elements is read: a slice reads only a part."""
        key, known = (step, result, self.points[result]), self._steps.expansion.operand_points
        if key not in known:
            known[key] = list(_operand_points(step, result, self.points[result]))
        for operand, point in known[key]:
            self._reach(operand, point)

    def covers(self, value: Value) -> bool:
        """Whether the dims of a value run over exactly these axes: as an anchor it would have no others."""
        point = self.points.get(value)
        if point is None or point.guards:
            return False
        coordinates = [coordinate for coordinate in point.coordinates if coordinate != 0]
        return len(coordinates) == len(self.axes) and {axis.expr for axis in self.axes}.issubset(coordinates)

    def stored_point(self, value: Value) -> Point:
        """The point at which a result is stored. A dim without a coordinate runs over an axis of its extent that no
        other dim uses; raises `LegalityFailure` (rule F4) where there is none, and where a product sums over it."""
        if value not in self.points:
            self._reach_operands_of_contractions()  # of which the maximum of the scores of an attention is computed
        point = self.points.get(value)
        partial, guards = self._broadcast(value) if point is None else (list(point.coordinates), point.guards)
        used = {atom for c in partial if c is not None for atom in dims.free_atoms(c)}
        coordinates: list[Dim] = []
        for coordinate, extent in zip(partial, value.shape, strict=True):
            if coordinate is not None and not self._summed.isdisjoint(variables(coordinate)):
                every_dim_has_an_axis(value, extent, None)
            if coordinate is None and same(extent, 1):
                coordinate = 0
            if coordinate is None:
                axis = next((axis for axis in self.axes if axis not in used and same(axis.extent, extent)), None)
                every_dim_has_an_axis(value, extent, axis)
                assert axis is not None
                used.add(axis)
                coordinate = axis.expr
            coordinates.append(coordinate)
        return Point(tuple(coordinates), guards)


def _operand_points(step: Operation, result: Value, point: Point) -> Iterator[tuple[Value, Point | None]]:
    """The points of the operands of a step of whose result all elements at a point are read once."""
    if step.name == "expand" or step.definition.pointwise is not None:
        yield from ((operand, narrowed(operand, result, point)) for operand in step.inputs)
    elif step.definition.scan is not None:
        yield step.inputs[0], point
    elif step.definition.pull is not None and reads_all(step):
        for piece in step.definition.pull(result, point.coordinates):
            if piece.operand < len(step.inputs):  # the fill of a pad without a fill operand is a constant 0
                yield step.inputs[piece.operand], Point(piece.coordinates, (*point.guards, *piece.guards))


def narrowed(operand: Value, result: Value, point: Point) -> Point | None:
    """The point of an operand of a broadcasting step, from that of its result.

    None where it is not known whether a dim is broadcast, where a dim is broadcast to extent 0 (no element of the
    operand is read), and where `guards_without` is None.
    """
    if operand.shape == result.shape and 1 not in operand.shape:
        return point
    missing = result.rank - operand.rank
    pairs = zip(operand.shape, result.shape[missing:], strict=True)
    if not all(same(before, 1) or same(before, after) for before, after in pairs):
        return None
    dropped = {*range(missing), *(missing + axis for axis, extent in enumerate(operand.shape) if same(extent, 1))}
    if any(same(result.shape[axis], 0) for axis in dropped):
        return None
    guards = guards_without(point, dropped)
    return None if guards is None else Point(index_map.spread(point.coordinates, result.shape, operand.shape), guards)


def guards_without(point: Point, dropped: Collection[int]) -> Guards | None:
    """The guards of a point after the coordinates of the `dropped` dims are removed: guards on their axes go with them.

    None where the remaining coordinates use these axes too: one element would be stored at several indices of an axis.
    None also where a guard cannot be assigned to either, since it mentions axes of both, or no axis: `0 <= 0 < S` of a
    slice of one element.
    """
    dropped_axes = variables(*(coordinate for dim, coordinate in enumerate(point.coordinates) if dim in dropped))
    kept_axes = variables(*(coordinate for dim, coordinate in enumerate(point.coordinates) if dim not in dropped))
    guarded = [variables(guard.index) for guard in point.guards]
    if dropped_axes & kept_axes or any(not axes or (dropped_axes & axes and axes - dropped_axes) for axes in guarded):
        return None
    return tuple(guard for guard in point.guards if dropped_axes.isdisjoint(variables(guard.index)))


def reads_all(view: Operation) -> bool:
    """Whether a view reads every element of its operand exactly once."""
    if view.name == "pad":
        return bool(view.attributes["mode"] == "constant")  # the other modes repeat elements at the edges
    return view.name not in ("slice", "split")


def _runs_over(index: Dim, extent: Dim) -> bool:
    """Whether an index runs over all elements of a dim, as that of a strided convolution does not."""
    steps = dims.product(axis.extent for axis in variables(index))
    return in_bounds(index, extent, ()) and same(steps, extent)
