"""From a group of operations to its kernel: anchor, flood, and the scalar DAG at the flooded coordinates.

The axes of a kernel are the dims of its **anchor**: the argument of the largest reduction, or else the largest
result. Coordinates flood from there, forwards and backwards: through views by `irc.index_map`, through pointwise
operations by broadcasting, through reductions by dropping axes. A value that the flood reaches is computed at its
flooded point, so that the `x` under a softmax's maximum and the `x` from which it is subtracted are one load.
Choosing the axes by the result instead would compute a reduction again for each element of a view behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irc import dims, dtypes
from irc.dims import Dim, Expr, Indirect, Symbol, Variable
from irc.dtypes import BOOL, I64, DType
from irc.index_map import (
    Coordinates,
    Guard,
    Guards,
    Partial,
    Point,
    aligned,
    broadcast_coordinates,
    in_bounds,
    linearize,
    pull,
    push,
    restrict,
)
from irc.ir import Value
from irc.kernel.dag import Apply, Constant, Graph, Index, Node, Store, variables
from irc.kernel.steps import ARGUMENT_REDUCTIONS, INDEXING, REDUCTIONS, Refusal, Slot, Step, Steps, register_type

TYPICAL_SIZE = 64  # of a dim that is not known, to tell the larger of two values
ANY_INDEX = 1 << 40  # a loaded index may be anything: accesses through it are guarded


def anchors(steps: Steps, outputs: Sequence[Value]) -> Iterator[Slot]:
    """The slots to try as anchor: arguments of reductions, results, what is cut into several; the largest first."""
    arguments = [step.inputs[0] for step in steps.steps if step.is_reduction]
    results = [steps.slots[output] for output in outputs]
    whole = [step.inputs[0] for step in steps.steps if step.name in ("slice", "split")]
    for slots in (arguments, results, whole):
        yield from sorted(dict.fromkeys(slots), key=lambda slot: -typical_elements(slot))


def typical_elements(slot: Slot) -> int:
    elements = dims.product(slot.shape)
    sizes = {symbol: max(symbol.low, min(symbol.high, TYPICAL_SIZE)) for symbol in dims.free_symbols(elements)}
    return dims.evaluate(elements, sizes)


class Flood:
    """Coordinates of every value that the anchor's coordinates reach."""

    def __init__(self, steps: Steps, anchor: Slot) -> None:
        self.axes: list[Variable] = []
        coordinates: list[Dim] = []
        for position, extent in enumerate(anchor.shape):
            if dims.equal(extent, 1) is True:
                coordinates.append(0)
            else:
                self.axes.append(Variable(f"{axis_name(extent, position)}", extent))
                coordinates.append(self.axes[-1].expr)
        self.points: dict[Slot, Point] = {anchor: Point(tuple(coordinates))}
        self._waiting = deque([anchor])
        while self._waiting:
            slot = self._waiting.popleft()
            for user in slot.users:
                self._forward(user)
            if slot.producer is not None:
                self._backward(slot.producer, slot)

    def _reach(self, slot: Slot, point: Point | None) -> None:
        if point is not None and slot not in self.points and point.complete:
            self.points[slot] = point
            self._waiting.append(slot)

    def _forward(self, step: Step) -> None:
        for result in step.results:
            if step.is_view:
                for position, operand in enumerate(step.inputs):
                    if operand in self.points:
                        self._reach(result, push(step.view(result), position, self.points[operand]))
            elif step.is_reduction:
                self._reach(result, self._reduced(step))
            elif step.definition.is_pointwise:
                self._reach(result, self.stretched(step))

    def stretched(self, step: Step) -> Point:
        """The point of a pointwise result as far as its operands tell it: each dim from one that is not stretched."""
        shape = step.results[0].shape
        merged: Partial = (None,) * len(shape)
        guards: Guards = ()
        for operand in step.inputs:
            point = self.points.get(operand)
            if point is None:
                continue
            own = aligned(point.coordinates, operand.shape, shape)
            if all(coordinate is not None for coordinate in own):
                return Point(own, point.guards)
            if not point.guards:
                merged = tuple(old if old is not None else new for old, new in zip(merged, own, strict=True))
        return Point(merged, guards)

    def _reduced(self, step: Step) -> Point | None:
        point = self.points.get(step.inputs[0])
        if point is None:
            return None
        kept = [coordinate for axis, coordinate in enumerate(point.coordinates) if axis not in step.axes]
        if step.attributes["keep_dims"]:
            kept = [0 if axis in step.axes else c for axis, c in enumerate(point.coordinates)]
        return Point(tuple(kept))

    def _backward(self, step: Step, result: Slot) -> None:
        """Operands whose every element has a point: a view may hand on only a part of its operand."""
        point = self.points[result]
        coordinates = complete(point)
        if step.is_view:
            if not hands_on_each_once(step):
                return
            for piece in pull(step.view(result), coordinates):
                if piece.operand == len(step.inputs):
                    continue  # what a pad without a value fills in: zero, which is no operand
                if piece.coordinates or not step.inputs[piece.operand].shape:
                    self._reach(step.inputs[piece.operand], Point(piece.coordinates, (*point.guards, *piece.guards)))
        elif step.definition.is_pointwise:
            for operand in step.inputs:
                if known_broadcast(operand, result):
                    moved = broadcast_coordinates(coordinates, result.shape, operand.shape)
                    self._reach(operand, Point(moved, point.guards))

    def root(self, slot: Slot) -> Point:
        """The point of a stored value (rule F4); dims that the flood left open take a free axis of their extent."""
        point = self.points.get(slot)
        if point is not None:
            return point
        pointwise = slot.producer is not None and slot.producer.definition.is_pointwise
        partial = self.stretched(slot.producer) if pointwise and slot.producer else Point((None,) * len(slot.shape))
        used = {atom for c in partial.coordinates if c is not None for atom in dims.free_atoms(c)}
        found: list[Dim] = []
        for coordinate, extent in zip(partial.coordinates, slot.shape, strict=True):
            if coordinate is None and dims.equal(extent, 1) is True:
                coordinate = 0
            if coordinate is None:
                axis = next((a for a in self.axes if a not in used and dims.equal(a.extent, extent) is True), None)
                if axis is None:
                    message = f"%{slot.name} has a dim {extent} that no axis of the kernel runs over"
                    raise Refusal("fuse.unreached_root", "F4", message, (slot.name, extent))
                used.add(axis)
                coordinate = axis.expr
            found.append(coordinate)
        return Point(tuple(found), partial.guards)


def known_broadcast(operand: Slot, result: Slot) -> bool:
    """Whether it is known of each dim of an operand if it is stretched."""
    tail = result.shape[len(result.shape) - len(operand.shape) :]
    return all(dims.equal(own, 1) or dims.equal(own, extent) for own, extent in zip(operand.shape, tail, strict=True))


def hands_on_each_once(step: Step) -> bool:
    """Whether a view hands on every element of its operand, and none to two places along one axis."""
    if step.name == "pad":
        return bool(step.attributes["mode"] == "constant")  # the other modes repeat elements at the edges
    if step.name == "expand":
        return known_broadcast(step.inputs[0], step.results[0])
    return step.name not in ("slice", "split")


def complete(point: Point) -> Coordinates:
    return tuple(coordinate for coordinate in point.coordinates if coordinate is not None)


def axis_name(extent: Dim, position: int) -> str:
    """`b` for an axis that runs over B, else a letter by position."""
    if isinstance(extent, Expr):
        symbols = dims.free_symbols(extent)
        if len(symbols) == 1 and symbols[0].expr == extent:
            return symbols[0].name.lower()
    return "ijklpqrstuvw"[position % 12] if position < 12 else f"i{position}"


class Trace:
    """Builds the scalar DAG: the node of a slot at coordinates, under guards."""

    def __init__(self, flood: Flood, *, exact: bool) -> None:
        self.flood = flood
        self.exact = exact
        self.graph = Graph()
        self.skipped_rounding = False
        self._memo: dict[tuple[Slot, Coordinates, Guards], Node] = {}
        self._fresh: dict[tuple[Dim, ...], list[tuple[Variable, ...]]] = {}

    def node(self, slot: Slot, coordinates: Coordinates, guards: Guards = ()) -> Node:
        """The value of an element; `guards` hold wherever it matters, so that its loads may be masked by them."""
        key = (slot, coordinates, guards)
        if key not in self._memo:
            self._memo[key] = self._node(slot, coordinates, guards)
        return self._memo[key]

    def _node(self, slot: Slot, coordinates: Coordinates, guards: Guards) -> Node:
        step = slot.producer
        if step is None:
            assert slot.outside is not None
            needed = restrict(coordinates, slot.shape, guards)
            address = linearize(coordinates, slot.shape)
            return self.graph.load(register_type(slot.type.dtype), slot.outside, address, needed)
        if step.is_view:
            return self._view(step, slot, coordinates, guards)
        if step.name in ARGUMENT_REDUCTIONS:
            return self._argument_reduction(step, slot, coordinates, guards)
        if step.name in REDUCTIONS:
            body, bound, body_guards = self._body(step, slot, coordinates, guards)
            return self._round(self._reduce(REDUCTIONS[step.name], body, bound, body_guards, slot.name), slot)
        if step.name in INDEXING:
            return self._gather(step, slot, coordinates, guards)
        if step.definition.is_pointwise:
            return self._pointwise(step, slot, coordinates, guards)
        return self._source(step, slot, coordinates)

    def _round(self, node: Node, slot: Slot) -> Node:
        """Under `exact`, a value of f16 or bf16 is rounded as if it had been stored."""
        dtype = slot.type.dtype
        if dtype is node.dtype:
            return node
        self.skipped_rounding = self.skipped_rounding or (not self.exact and feeds_computation(slot))
        if self.exact:
            return self.graph.apply("round_to", node.dtype, (node,), {"to": dtype}, slot.name)
        return node

    def _pointwise(self, step: Step, slot: Slot, coordinates: Coordinates, guards: Guards) -> Node:
        operands = [
            self.node(operand, broadcast_coordinates(coordinates, slot.shape, operand.shape), guards)
            for operand in step.inputs
        ]
        register = register_type(slot.type.dtype)
        if step.name == "cast" and operands[0].dtype is register:
            return self._round(operands[0], slot)
        known = folded(step, operands, register)
        if known is not None:
            return self.graph.constant(register, known)
        if step.name in ("bitwise_and", "bitwise_or") and register is BOOL:
            neutral = step.name == "bitwise_and"
            operands = [node for node in operands if not (isinstance(node, Constant) and node.value == neutral)]
            if len(operands) == 1:
                return operands[0]
        attributes = step.attributes
        if step.name == "bitcast":
            for end in (step.inputs[0], slot):
                if register_type(end.type.dtype) is not end.type.dtype:
                    message = f"the bits of {end.type.dtype} are not those it is computed in (%{end.name})"
                    raise Refusal("fuse.numerics", "F13", message, (end.name,))
        return self._round(self.graph.apply(step.name, register, operands, attributes, slot.name), slot)

    def _source(self, step: Step, slot: Slot, coordinates: Coordinates) -> Node:
        if step.name == "const":
            value = np.asarray(step.attributes["value"].array()).reshape(-1)[0]
            register = register_type(slot.type.dtype)
            return self.graph.constant(register, np.asarray(value).astype(register.numpy)[()])
        if step.name == "iota":
            return self._index(slot.type.dtype, coordinates[step.attributes["axis"] % len(coordinates)], slot.name)
        sizes = step.attributes["value"]
        if not isinstance(sizes, tuple):
            return self.graph.index(I64, sizes)
        node = self.graph.index(I64, sizes[-1] if sizes else 0)
        for position in range(len(sizes) - 2, -1, -1):
            guard = Guard(coordinates[0] - position, 1)
            node = self.graph.select((guard,), self.graph.index(I64, sizes[position]), node)
        return node

    def _index(self, dtype: DType, index: Dim, hint: str) -> Node:
        if dtype.is_integer:
            return self.graph.index(dtype, index)
        node = self.graph.index(I64, index)
        return self.graph.apply("cast", register_type(dtype), (node,), {"to": dtype, "saturate": True}, hint)

    def _view(self, step: Step, slot: Slot, coordinates: Coordinates, guards: Guards) -> Node:
        pieces = pull(step.view(slot), coordinates)
        nodes = []
        for piece in pieces:
            held = tuple(dict.fromkeys((*guards, *piece.guards)))
            if piece.operand < len(step.inputs):
                nodes.append(self.node(step.inputs[piece.operand], piece.coordinates, held))
            else:  # a pad without a value
                register = register_type(slot.type.dtype)
                nodes.append(self.graph.constant(register, np.zeros((), register.numpy)[()]))
        result = nodes[-1]
        for piece, node in zip(reversed(pieces[:-1]), reversed(nodes[:-1]), strict=True):
            # Guards that always hold would only cost a comparison.
            open_guards = tuple(guard for guard in piece.guards if not in_bounds(guard.index, guard.extent, guards))
            result = self.graph.select(open_guards, node, result)
        return result

    def _body(
        self, step: Step, slot: Slot, coordinates: Coordinates, guards: Guards
    ) -> tuple[Node, tuple[Variable, ...], Guards]:
        """The argument of a reduction, the axes it is reduced over, and the guards that bound them."""
        argument = step.inputs[0]
        point, reached = self.flood.points.get(argument), self.flood.points.get(slot)
        if point is not None and reached is not None and reached.coordinates == coordinates:
            outer = {atom for coordinate in coordinates for atom in dims.free_atoms(coordinate)}
            inner = complete(point)
            reduced = [atom for axis in sorted(step.axes) for atom in dims.free_atoms(inner[axis])]
            bound = tuple(dict.fromkeys(atom for atom in reduced if isinstance(atom, Variable)))
            if outer.isdisjoint(bound):
                return self.node(argument, inner, (*guards, *point.guards)), bound, point.guards
        extents = tuple(argument.shape[axis] for axis in sorted(step.axes))
        bound = self._fresh_axes(extents, coordinates)
        fresh, rest = iter(bound), iter(coordinates)
        inner_list: list[Dim] = []
        for axis, extent in enumerate(argument.shape):
            kept = next(rest) if step.attributes["keep_dims"] or axis not in step.axes else 0
            if axis not in step.axes:
                inner_list.append(kept)
            else:
                inner_list.append(0 if dims.equal(extent, 1) is True else next(fresh).expr)
        return self.node(argument, tuple(inner_list), guards), bound, ()

    def _fresh_axes(self, extents: tuple[Dim, ...], coordinates: Coordinates) -> tuple[Variable, ...]:
        """Axes for a reduction at coordinates that the flood did not give: shared by those of equal extents."""
        real = tuple(extent for extent in extents if dims.equal(extent, 1) is not True)
        taken = frozenset[Variable]().union(*map(variables, coordinates))
        choices = self._fresh.setdefault(real, [])
        for choice in choices:
            if taken.isdisjoint(choice):
                return choice
        choices.append(tuple(Variable(f"r{position}", extent) for position, extent in enumerate(real)))
        return choices[-1]

    def _reduce(self, kind: str, body: Node, bound: tuple[Variable, ...], guards: Guards, hint: str) -> Node:
        if not bound:
            return body
        if guards:
            body = self.graph.select(guards, body, self.graph.constant(body.dtype, identity(kind, body.dtype)))
        return self.graph.reduce(kind, body, bound, hint)

    def _argument_reduction(self, step: Step, slot: Slot, coordinates: Coordinates, guards: Guards) -> Node:
        """The place of the extremum as two reductions: the least (or last) index at which it is attained. As in
        NumPy a NaN counts as the extremum, and the first one wins."""
        body, bound, body_guards = self._body(step, slot, coordinates, guards)
        kind = ARGUMENT_REDUCTIONS[step.name]
        extremum = self._reduce(kind, body, bound, body_guards, slot.name)
        attained = self.graph.apply("equal", BOOL, (body, extremum))
        if body.dtype.is_float:
            found_nan = self.graph.apply("is_nan", BOOL, (body,))
            any_nan = self.graph.apply("is_nan", BOOL, (extremum,))
            attained = self.graph.apply("select", BOOL, (any_nan, found_nan, attained))
        place: Dim = linearize([axis.expr for axis in bound], [axis.extent for axis in bound])
        last = step.attributes["select_last"]
        worst = self.graph.constant(I64, identity("max" if last else "min", I64))
        index = self.graph.apply("select", I64, (attained, self.graph.index(I64, place), worst))
        return self._reduce("max" if last else "min", index, bound, body_guards, slot.name)

    def _gather(self, step: Step, slot: Slot, coordinates: Coordinates, guards: Guards) -> Node:
        source, indices = step.inputs
        axis = step.attributes["axis"] % len(source.shape)
        if step.name == "gather":
            until = axis + len(indices.shape)
            at, before, after = coordinates[axis:until], coordinates[:axis], coordinates[until:]
        else:
            at, before, after = coordinates, coordinates[:axis], coordinates[axis + 1 :]
        node = self.node(indices, at, guards)
        extent = source.shape[axis]
        index = as_index(node)
        if index is None or dims.less_equal(0, index) is not True:
            if index is not None and dims.less(index, 0) is True:
                index = index + extent
            else:
                zero = self.graph.constant(node.dtype, np.zeros((), node.dtype.numpy)[()])
                wrapped = self.graph.apply("add", node.dtype, (node, self.graph.index(node.dtype, extent)))
                negative = self.graph.apply("less", BOOL, (node, zero))
                node = self.graph.apply("select", node.dtype, (negative, wrapped, node), hint=node.hint)
                index = Indirect(node, -ANY_INDEX, ANY_INDEX).expr
        return self.node(source, (*before, index, *after), guards)


COMPARISONS = {"less": dims.less, "less_equal": dims.less_equal, "equal": dims.equal}


def folded(step: Step, operands: Sequence[Node], dtype: DType) -> Any:
    """The value of an operation on constants, or of a comparison of indices that their bounds decide; else None."""
    if all(isinstance(node, Constant) for node in operands):
        arrays = [np.asarray(node.value) for node in operands if isinstance(node, Constant)]
        (value,) = step.definition.evaluate(arrays, step.attributes)
        return np.asarray(value).astype(dtype.numpy)[()]
    name, indices = step.name, [as_index(node) for node in operands]
    if name in ("greater", "greater_equal"):
        name, indices = {"greater": "less", "greater_equal": "less_equal"}[name], indices[::-1]
    if name in COMPARISONS and indices[0] is not None and indices[1] is not None:
        answer = COMPARISONS[name](indices[0], indices[1])
        return None if answer is None else np.bool_(answer)
    return None


def feeds_computation(slot: Slot) -> bool:
    return any(user.computes or any(map(feeds_computation, user.results)) for user in slot.users)


def identity(kind: str, dtype: DType) -> Any:
    """The value that a reduction ignores, as a NumPy scalar."""
    if kind in ("sum", "prod"):
        return np.asarray(0 if kind == "sum" else 1, dtype.numpy)[()]
    if dtype is BOOL:
        return np.bool_(kind == "min")
    if dtype.is_float:
        return np.asarray(-np.inf if kind == "max" else np.inf, dtype.numpy)[()]
    low, high = dtypes.limits(dtype)
    return np.asarray(low if kind == "max" else high, dtype.numpy)[()]


def as_index(node: Node) -> Dim | None:
    """The node as an index expression, where it is one: such indices need no loading and are proven in bounds."""
    if isinstance(node, Index):
        return node.index
    if isinstance(node, Constant) and node.dtype.is_integer:
        return int(node.value)
    if isinstance(node, Apply) and node.dtype.is_integer:
        parts = [as_index(operand) for operand in node.operands]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            if node.name == "cast":
                return known[0]
            if node.name in ("add", "sub", "mul"):
                left, right = known
                return left + right if node.name == "add" else left - right if node.name == "sub" else left * right
    return None


def stores(steps: Steps, outputs: Sequence[Value], flood: Flood, trace: Trace) -> tuple[Store, ...]:
    """What the kernel writes, each element once."""
    points = {output: flood.root(steps.slots[output]) for output in outputs}
    found = []
    for output, point in points.items():
        slot, coordinates = steps.slots[output], complete(point)
        node = trace.node(slot, coordinates, point.guards)
        guards = (*point.guards, *restrict(coordinates, slot.shape, point.guards))
        kept = tuple(guard for guard in dict.fromkeys(guards) if not in_bounds(guard.index, guard.extent, ()))
        found.append(Store(output, linearize(coordinates, slot.shape), kept, node))
    return tuple(found)


def symbols_of(indices: Sequence[Dim]) -> tuple[Symbol, ...]:
    """The run-time dims in these expressions, each once."""
    return tuple(dict.fromkeys(symbol for index in indices for symbol in dims.free_symbols(index)))
