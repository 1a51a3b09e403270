"""From a group of operations to its kernel: anchor, flood, and the scalar DAG at the flooded coordinates.

The axes of a kernel are the dims of its **anchor**: the argument of the largest reduction, or else the largest
result. Coordinates flood from there, forwards and backwards: through views by `irc.index_map`, through pointwise
operations by broadcasting, through reductions by dropping axes. A value that the flood reaches is computed at its
flooded point, so that the `x` under a softmax's maximum and the `x` from which it is subtracted are one load.
Choosing the axes by the result instead would compute a reduction again for each element of a view behind it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np

from irc import dims, dtypes, index_map
from irc.dims import Dim, Indirect, Variable
from irc.dtypes import BOOL, I64, DType, accumulator_of
from irc.index_map import ANCHOR, REDUCED, Coordinates, Guards, Point, in_bounds, linearize, same
from irc.ir import Operation, Value
from irc.kernel.dag import Apply, Constant, Graph, Index, Load, Node, Reduce, Select, Store, variables
from irc.kernel.steps import REDUCTIONS, Refusal, Steps, hands_on, reduced_dims

TYPICAL_SIZE = 64  # of a dim that is not known, to tell the larger of two values
MOST_STEPS = 1_024  # windows over windows would compute the inner ones again at each place of the outer
ANY_INDEX = 1 << 40  # a loaded index may be anything: accesses through it are guarded
COMPARISONS: dict[str, Callable[[Dim, Dim], bool | None]] = {
    "less": dims.less, "less_equal": dims.less_equal, "equal": dims.equal,
    "greater": lambda a, b: dims.less(b, a), "greater_equal": lambda a, b: dims.less_equal(b, a),
}  # fmt: skip


# -- the flood -------------------------------------------------------------------------------------------------


def anchors(steps: Steps, outputs: Sequence[Value]) -> Iterator[Value]:
    """The values to try as anchor: arguments of reductions, results, what is cut into several; the largest first."""
    arguments = [step.inputs[0] for step in steps.steps if step.name in REDUCTIONS]
    results = [steps.inner[output] for output in outputs]
    whole = [step.inputs[0] for step in steps.steps if step.name in ("slice", "split")]
    for values in (arguments, results, whole):
        yield from sorted(dict.fromkeys(values), key=lambda value: -typical(value.type.elements))


@lru_cache(1 << 12)
def typical(elements: Dim) -> int:
    sizes = {symbol: max(symbol.low, min(symbol.high, TYPICAL_SIZE)) for symbol in dims.free_symbols(elements)}
    return dims.estimate(elements, sizes)


@lru_cache(1 << 12)
def anchored(shape: Coordinates) -> Coordinates:
    """Coordinates over axes of their own. A shape has the same ones in every kernel: what has once been worked out
    for a group need not be for the groups that it grows into, nor for those of the next layer."""
    axes = (Variable(axis_name(extent, position), extent, (ANCHOR, position)) for position, extent in enumerate(shape))
    return tuple(0 if same(axis.extent, 1) else axis.expr for axis in axes)


def axis_name(extent: Dim, position: int) -> str:
    """`b` for an axis that runs over B, else a letter by position."""
    for symbol in dims.free_symbols(extent):
        if symbol.expr == extent:
            return symbol.name.lower()
    return "ijklpqrstuvw"[position % 12] if position < 12 else f"i{position}"


@lru_cache(1 << 12)
def fresh_axes(extents: Coordinates, number: int) -> tuple[Variable, ...]:
    """The axes of a reduction that the flood did not reach; `number` tells such reductions apart."""
    numbered = enumerate(extents)
    return tuple(Variable(f"r{position}", extent, (REDUCED, number, position)) for position, extent in numbered)


class Flood:
    """Coordinates of every value that the anchor's coordinates reach."""

    def __init__(self, anchor: Value) -> None:
        self.points: dict[Value, Point] = {anchor: Point(anchored(anchor.shape))}
        self.axes = [axis for c in self.points[anchor].coordinates for axis in variables(c)]
        self._waiting = deque([anchor])
        while self._waiting:
            value = self._waiting.popleft()
            for user in value.users():
                for result in user.results:
                    if result not in self.points:
                        self._reach(result, self._forward(user, result))
            if value.operation is not None:
                self._backward(value.operation, value)

    def _reach(self, value: Value, point: Point | None) -> None:
        if point is not None and value not in self.points:
            self.points[value] = point
            self._waiting.append(value)

    def _forward(self, step: Operation, result: Value) -> Point | None:
        push = step.definition.push
        if push is not None:
            return push(result, self.points[step.inputs[0]])
        if step.name in REDUCTIONS and step.inputs[0] in self.points:
            point, reduced, keep = self.points[step.inputs[0]], reduced_dims(step), step.attributes["keep_dims"]
            ending = remaining(point, reduced)
            parts = [(axis in reduced, coordinate) for axis, coordinate in enumerate(point.coordinates)]
            moved = tuple(0 if gone else coordinate for gone, coordinate in parts if keep or not gone)
            return None if ending is None else Point(moved, ending)
        if step.definition.is_pointwise:
            partial, guards = self._stretched(result)
            known = tuple(coordinate for coordinate in partial if coordinate is not None)
            return Point(known, guards) if len(known) == len(partial) else None
        return None

    def _stretched(self, result: Value) -> tuple[list[Dim | None], Guards]:
        """The point of a pointwise result as far as its operands tell it: each dim from one that is not stretched. Two
        dims over one axis would be a diagonal: in `x[:, None] + x` the second operand tells nothing."""
        merged: list[Dim | None] = [None] * result.rank
        step = result.operation
        for operand in step.inputs if step is not None and step.definition.is_pointwise else ():
            if operand in self.points:
                point, new = self.points[operand], result.rank - operand.rank
                parts = zip(point.coordinates, operand.shape, result.shape[new:], strict=True)
                own = [None] * new + [c if same(extent, whole) else None for c, extent, whole in parts]
                if None not in own:
                    return own, point.guards
                told = variables(*(c for c in merged if c is not None))
                more = [c for c, old in zip(own, merged, strict=True) if old is None and c is not None]
                if not point.guards and told.isdisjoint(variables(*more)):
                    merged = [mine if old is None else old for old, mine in zip(merged, own, strict=True)]
        return merged, ()

    def _backward(self, step: Operation, result: Value) -> None:
        """Operands whose every element has a point: a view may hand on only a part of its operand."""
        point = self.points[result]
        if step.name == "expand" or step.definition.is_pointwise:
            for operand in step.inputs:
                self._reach(operand, None if operand in self.points else narrowed(operand, result, point))
        elif step.definition.pull is not None and hands_on_all(step):
            for piece in step.definition.pull(result, point.coordinates):
                if piece.operand < len(step.inputs):  # a pad without a value fills in zero, which is no operand
                    guards = (*point.guards, *piece.guards)
                    self._reach(step.inputs[piece.operand], Point(piece.coordinates, guards))

    def root(self, value: Value) -> Point:
        """The point of a stored value (rule F4); dims that the flood left open take a free axis of their extent."""
        if value in self.points:
            return self.points[value]
        partial, guards = self._stretched(value)
        used = {atom for c in partial if c is not None for atom in dims.free_atoms(c)}
        found: list[Dim] = []
        for coordinate, extent in zip(partial, value.shape, strict=True):
            if coordinate is None and same(extent, 1):
                coordinate = 0
            if coordinate is None:
                axis = next((axis for axis in self.axes if axis not in used and same(axis.extent, extent)), None)
                if axis is None:
                    message = f"%{value.name} has a dim {extent} that no axis of the kernel runs over"
                    raise Refusal("fuse.unreached_root", "F4", message, (value.name, extent))
                used.add(axis)
                coordinate = axis.expr
            found.append(coordinate)
        return Point(tuple(found), guards)


def narrowed(operand: Value, result: Value, point: Point) -> Point | None:
    """The point of an operand that is broadcast; None where a dim may or may not be stretched."""
    missing = result.rank - operand.rank
    pairs = zip(operand.shape, result.shape[missing:], strict=True)
    if not all(same(own, 1) or same(own, extent) for own, extent in pairs):
        return None
    stretched = (missing + axis for axis, own in enumerate(operand.shape) if same(own, 1))
    guards = remaining(point, {*range(missing), *stretched})
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


def hands_on_all(view: Operation) -> bool:
    """Whether a view hands on every element of its operand, and none twice."""
    if view.name == "pad":
        return bool(view.attributes["mode"] == "constant")  # the other modes repeat elements at the edges
    return view.name not in ("slice", "split")


# -- the scalar DAG --------------------------------------------------------------------------------------------


class Argument(NamedTuple):
    """The argument of a reduction: its node, the coordinates at which it is read, the axes that are reduced, and the
    guards under which a point of those axes is an element of it."""

    node: Node
    at: Coordinates
    axes: tuple[Variable, ...]
    guards: Guards


class Trace:
    """Builds the scalar DAG: the node of a value at coordinates, under guards."""

    def __init__(self, flood: Flood, buffers: Mapping[Value, Value]) -> None:
        self.flood = flood
        self.buffers = buffers
        self.graph = Graph()
        self.skipped_rounding = False
        self._memo: dict[tuple[Value, Coordinates, Guards], Node] = {}

    def store(self, output: Value, value: Value) -> Store:
        """What the kernel writes to an output, each element once."""
        point = self.flood.root(value)
        node = self.node(value, point.coordinates, point.guards)
        guards = (*point.guards, *index_map.restrict(point.coordinates, value.shape, point.guards))
        kept = tuple(guard for guard in dict.fromkeys(guards) if not in_bounds(guard.index, guard.extent, ()))
        address = linearize(point.coordinates, value.shape)
        return Store(output.dtype, (node,), address, kept, buffer=output)

    def node(self, value: Value, coordinates: Coordinates, guards: Guards = ()) -> Node:
        """The value of an element; `guards` hold wherever it matters, so that its loads may be masked by them."""
        key = (value, coordinates, guards)
        if len(self._memo) > MOST_STEPS:
            raise Refusal("fuse.resources", "F14", f"more than {MOST_STEPS} operations for one point", (value.name,))
        if key not in self._memo:
            self._memo[key] = self._node(value, coordinates, guards)
        return self._memo[key]

    def _node(self, value: Value, coordinates: Coordinates, guards: Guards) -> Node:
        step = value.operation
        if step is None:
            buffer = self.buffers[value]
            dtype, address = accumulator_of(value.dtype), linearize(coordinates, value.shape)
            needed = index_map.restrict(coordinates, value.shape, guards)
            return self.graph(Load(dtype, (), address, needed, buffer.name, buffer=buffer))
        if step.definition.pull is not None:
            return self._view(step, step.definition.pull(value, coordinates), value, guards)
        if step.name in REDUCTIONS:
            return self._reduction(step, value, coordinates, guards)
        if step.definition.element_of is not None:
            return cast(Node, step.definition.element_of(self, step, coordinates, guards))
        return self._pointwise(step, value, coordinates, guards)

    def _kept(self, node: Node, value: Value) -> Node:
        """A value of f16 or bf16 is held in f32, without the rounding that storing it would bring."""
        self.skipped_rounding |= value.dtype is not node.dtype and feeds_computation(value)
        return node

    def apply(self, name: str, dtype: DType, *operands: Node, attributes: Mapping[str, Any] | None = None,
              hint: str = "") -> Node:  # fmt: skip
        fixed = tuple((attributes or {}).items())
        return self.graph(Apply(dtype, operands, hint=hint, name=name, attributes=fixed))

    def constant(self, dtype: DType, value: Any) -> Node:
        return self.graph(Constant(dtype, value=np.asarray(value).astype(dtype.numpy)[()]))

    def index(self, index: Dim, dtype: DType = I64) -> Node:
        """An index as a value; in a type that is too narrow for it, it wraps around."""
        if isinstance(index, int):
            least, most = dtypes.limits(dtype)
            return self.constant(dtype, least + (index - least) % (most - least + 1))
        return self.graph(Index(dtype, (), index))

    def select(self, guards: Guards, inside: Node, outside: Node) -> Node:
        return self.graph(Select(inside.dtype, (inside, outside), 0, guards, inside.hint))

    def _pointwise(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Node:
        operands = [
            self.node(operand, index_map.spread(coordinates, value.shape, operand.shape), guards)
            for operand in step.inputs
        ]
        register = accumulator_of(value.dtype)
        if step.name == "cast" and operands[0].dtype is register:
            return self._kept(operands[0], value)
        known = folded(step, operands)
        if known is not None:
            return self.constant(register, known)
        if step.name in ("bitwise_and", "bitwise_or") and register is BOOL:
            neutral = step.name == "bitwise_and"
            operands = [node for node in operands if not (isinstance(node, Constant) and node.value == neutral)]
            if len(operands) == 1:
                return operands[0]
        if step.name == "bitcast":
            for end in (step.inputs[0], value):
                if accumulator_of(end.dtype) is not end.dtype:
                    message = f"the bits of {end.dtype} are not those it is computed in (%{end.name})"
                    raise Refusal("fuse.numerics", "F13", message, (end.name,))
        made = self.apply(step.name, register, *operands, attributes=step.attributes, hint=value.name)
        return self._kept(made, value)

    def _view(self, step: Operation, pieces: Sequence[Point], value: Value, guards: Guards) -> Node:
        nodes = []
        for piece in pieces:
            held = tuple(dict.fromkeys((*guards, *piece.guards)))
            if piece.operand < len(step.inputs):
                nodes.append(self.node(step.inputs[piece.operand], piece.coordinates, held))
            else:  # a pad without a value
                nodes.append(self.constant(accumulator_of(value.dtype), 0))
        result = nodes[-1]
        for piece, node in zip(reversed(pieces[:-1]), reversed(nodes[:-1]), strict=True):
            # Guards that always hold would only cost a comparison.
            tests = tuple(guard for guard in piece.guards if not in_bounds(guard.index, guard.extent, guards))
            result = self.select(tests, node, result)
        return result

    def _argument(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Argument:
        """The argument of a reduction whose result is read at these coordinates.

        Along the axes that the reduction keeps, the argument is read where its result is read. Along those that it
        reduces, it is read at its own point, if that runs over them independently of what is kept.
        """
        argument, reduced = step.inputs[0], sorted(reduced_dims(step))
        kept = self._kept_coordinates(step, coordinates)
        point, reached = self.flood.points.get(argument), self.flood.points.get(value)
        visible = reached is not None and reached.coordinates == coordinates and set(reached.guards) <= set(guards)
        if point is not None and visible:
            at = tuple(kept.get(axis, coordinate) for axis, coordinate in enumerate(point.coordinates))
            inner = variables(*(at[axis] for axis in reduced))
            own = tuple(guard for guard in point.guards if not variables(guard.index).isdisjoint(inner))
            others = variables(*kept.values(), *(point.coordinates[axis] for axis in kept))
            if inner.isdisjoint(others) and variables(*(guard.index for guard in own)) <= inner:
                ordered = dict.fromkeys(atom for axis in reduced for atom in dims.free_atoms(at[axis]))
                return self._reduced_over(argument, at, [axis for axis in ordered if axis in inner], guards, own)
        # The flood did not give these coordinates: axes of its own, which reductions of equal extents share.
        extents = tuple(argument.shape[axis] for axis in reduced if not same(argument.shape[axis], 1))
        taken = variables(*coordinates)
        axes = next(axes for number in itertools.count() if taken.isdisjoint(axes := fresh_axes(extents, number)))
        fresh = iter(axes)
        at = tuple(kept[axis] if axis in kept else 0 if same(extent, 1) else next(fresh).expr
                   for axis, extent in enumerate(argument.shape))  # fmt: skip
        return self._reduced_over(argument, at, axes, guards)

    def _reduced_over(self, argument: Value, at: Coordinates, axes: Iterable[Any], guards: Guards,
                      own: Guards = ()) -> Argument:  # fmt: skip
        """The argument read at a point of the reduced axes. A guard of those that holds where the result is read does
        not hold all along them."""
        bound = tuple(axes)
        held = tuple(guard for guard in guards if variables(guard.index).isdisjoint(bound))
        return Argument(self.node(argument, at, (*held, *own)), at, bound, own)

    def _kept_coordinates(self, step: Operation, coordinates: Coordinates) -> dict[int, Dim]:
        """The coordinates of a reduction's result, by the axes of its argument that are not reduced."""
        gone, rank = reduced_dims(step), step.inputs[0].rank
        axes = range(rank) if step.attributes["keep_dims"] else [axis for axis in range(rank) if axis not in gone]
        return {axis: at for axis, at in zip(axes, coordinates, strict=True) if axis not in gone}

    def _reduction(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Node:
        """A reduction, or for argmax and argmin two: the least (or last) index at which the extremum is attained. As
        in NumPy a NaN counts as the extremum, and the first one wins."""
        argument = self._argument(step, value, coordinates, guards)
        body = argument.node

        def reduced(kind: str, body: Node) -> Node:
            if not argument.axes:
                return body
            body = self.select(argument.guards, body, self.constant(body.dtype, identity(kind, body.dtype)))
            return self.graph(Reduce(body.dtype, (body,), hint=value.name, kind=kind, bound=argument.axes))

        found = reduced(REDUCTIONS[step.name], body)
        if step.name not in ("argmax", "argmin"):
            return self._kept(found, value)
        attained = self.apply("equal", BOOL, body, found)
        if body.dtype.is_float:
            found_nan, any_nan = (self.apply("is_nan", BOOL, node) for node in (body, found))
            attained = self.apply("select", BOOL, any_nan, found_nan, attained)
        (axis,) = reduced_dims(step)
        kind = "max" if step.attributes["select_last"] else "min"
        worst = self.constant(I64, identity(kind, I64))
        return reduced(kind, self.apply("select", I64, attained, self.index(argument.at[axis]), worst))

    def loaded_index(self, node: Node, extent: Dim) -> Dim:
        """A node as an index into an axis, counted from its end where it is negative."""
        index = node.as_index
        if index is not None and dims.less(index, 0) is True:
            return index + extent
        if index is not None and dims.less_equal(0, index) is True:
            return index
        if not node.dtype.is_signed:
            return Indirect(node, -ANY_INDEX, ANY_INDEX).expr
        if dims.bounds(extent)[1] > dtypes.limits(node.dtype).largest:
            node = self.apply("cast", I64, node, attributes={"to": I64, "saturate": True}, hint=node.hint)
        wrapped = self.apply("add", node.dtype, node, self.index(extent, node.dtype))
        negative = self.apply("less", BOOL, node, self.constant(node.dtype, 0))
        node = self.apply("select", node.dtype, negative, wrapped, node, hint=node.hint)
        return Indirect(node, -ANY_INDEX, ANY_INDEX).expr


def folded(step: Operation, operands: Sequence[Node]) -> Any:
    """The value of an operation on constants, or of a comparison of indices that their bounds decide; else None."""
    constants = [np.asarray(node.value) for node in operands if isinstance(node, Constant)]
    if len(constants) == len(operands):
        return step.definition.evaluate(constants, step.attributes)[0]
    indices = [node.as_index for node in operands if node.as_index is not None]
    if step.name in COMPARISONS and len(indices) == 2:
        return COMPARISONS[step.name](*indices)
    return None


def feeds_computation(value: Value) -> bool:
    """Whether an operation that computes reads the value, also through those that only hand it on."""
    return any(not hands_on(user.definition) or any(map(feeds_computation, user.results)) for user in value.users())


def identity(kind: str, dtype: DType) -> Any:
    """The value that a reduction ignores, as a NumPy scalar."""
    if kind in ("sum", "prod"):
        return np.asarray(kind == "prod", dtype.numpy)[()]
    if dtype is BOOL:
        return np.bool_(kind == "min")
    low, high = (-np.inf, np.inf) if dtype.is_float else dtypes.limits(dtype)
    return np.asarray(low if kind == "max" else high, dtype.numpy)[()]
