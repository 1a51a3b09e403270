"""The scalar DAG of a group: what is computed at the point of each result.

A value is traced from a result to what the group reads, each time at the coordinates at which it is read. Nothing here
recurses, however deep the group is: what a value needs is requested from a loop (`Tracer.node`).
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from irc import constants, dims, dtypes, index_map
from irc.dims import Dim, Indirect, Variable
from irc.dtypes import BOOL, FLOATS8, I32, I64, DType, accumulator_of
from irc.index_map import Coordinates, Guard, Guards, Point, in_bounds, linearize, same
from irc.interfaces import Combine, Running, Space, identity
from irc.ir import Operation, Value
from irc.kernel.dag import Apply, Check, Constant, Dot, Index, Load, Node, Reduce, Scan, Select, Store, variables
from irc.kernel.integers import ByteOperand, product_of_bytes
from irc.kernel.propagation import Propagation, new_indices
from irc.kernel.rules import (
    MOST_OPERATIONS,
    bits_are_stored_ones,
    groups_are_axes,
    needs_no_more_than_a_target_has,
    products_are_of_bytes,
    products_have_instructions,
)
from irc.kernel.scan_rules import scans_are_read_at_their_points
from irc.kernel.scans import scanned_row
from irc.kernel.steps import Steps, is_unrolled, reduced_dims
from irc.kernel.traces import Effect, OpenTrace, Trace, Traces
from irc.scalar_builder import Request, Requesting, ScalarBuilder

OUT_OF_RANGE, DIVIDED_BY_ZERO = "an index is out of range", "an integer is divided by 0"
MOST_LOOKED_AT = 1 << 16  # elements of a constant
ANY_INDEX = 1 << 40  # a loaded index may be anything: accesses through it are guarded


class Argument(NamedTuple):
    """How a reduction reads its argument: at which coordinates and under which guards, the axes that are reduced, and
    the guards under which a point of those axes is an element of the argument."""

    at: Coordinates
    held: Guards
    axes: tuple[Variable, ...]
    guards: Guards


class Tracer:
    """Builds the scalar DAG: the node of a value at coordinates, under guards."""

    def __init__(self, propagation: Propagation, steps: Steps, traces: Traces) -> None:
        self.propagation = propagation
        self.steps = steps
        self.graph = traces.graph
        self.effects: dict[Effect, None] = {}  # of what is stored
        self._traces = traces
        self._memo: dict[Request, Trace] = {}
        self._others: list[Trace] = []  # traces of other groups, in the memo without those that they are made of
        self._requests = 0  # at least as many as the memo would have with those
        self._open: list[OpenTrace] = []  # one requested by the one before

    def store(self, output: Value, value: Value) -> Store:
        """What the kernel writes to an output, each element once."""
        if value not in self.propagation.points:
            self._complete()  # what was traced stays as it is where more points are found
        point = self.propagation.stored_point(value)
        node = self.node(value, point.coordinates, point.guards)
        node = without_rounding(node, output.dtype)  # storing rounds
        guards = (*point.guards, *index_map.restrict(point.coordinates, value.shape, point.guards))
        guards = tuple(map(index_map.coarser, guards))
        kept = tuple(guard for guard in dict.fromkeys(guards) if not in_bounds(guard.index, guard.extent, ()))
        address = linearize(point.coordinates, value.shape)
        return Store(output.dtype, (node,), address, kept, buffer=output)

    def node(self, value: Value, coordinates: Coordinates, guards: Guards = ()) -> Node:
        """The value of an element; `guards` hold wherever it matters, so that its loads may be masked by them."""
        trace = self._requested((value, coordinates, guards))
        while self._open:  # send the node to the generator that waits for it, until one requests another
            traced = self._open[-1].traced
            try:
                needed = next(traced) if trace is None else traced.send(trace.node)
            except StopIteration as end:
                trace = self._closed(end.value)
            else:
                trace = self._requested(needed)
        assert trace is not None
        self.effects.update(dict.fromkeys(trace.effects))
        return trace.node

    def _requested(self, request: Request) -> Trace | None:
        """The trace of a request where there is one, of this group or another; else it is begun."""
        trace = self._memo.get(request)
        if trace is None:
            trace = self._traces.find(request, self.steps.cone(request[0]), self.propagation.points)
            if trace is None:
                self._open.append(OpenTrace(request, self._traced(*request)))
                return None
            self._memo[request] = trace
            self._others.append(trace)
            self._count(trace, trace.requests)
        self._read(trace)
        return trace

    def _closed(self, node: Node) -> Trace:
        trace = self._open.pop().closed(node)
        self._traces.add(trace, self.steps.cone(trace.request[0]))
        self._memo[trace.request] = trace
        self._count(trace, 1)
        self._read(trace)
        return trace

    def _read(self, trace: Trace) -> None:
        if self._open:
            self._open[-1].read(trace)

    def _count(self, trace: Trace, requests: int) -> None:
        self._requests += requests
        if self._requests > MOST_OPERATIONS:
            self._complete()  # without what was counted several times
            needs_no_more_than_a_target_has(operations=self._requests, values=(trace.request[0].name,))

    def _complete(self) -> None:
        """Add to the memo what the traces of other groups are made of."""
        while self._others:
            for trace in self._others.pop().below:
                if trace.request not in self._memo:
                    self._memo[trace.request] = trace
                    self._others.append(trace)
        self._requests = len(self._memo)

    def _traced(self, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        step = value.operation
        if value in self.steps.buffers or step is None:
            buffer = self.steps.buffers[value]
            dtype, address = accumulator_of(value.dtype), linearize(coordinates, value.shape)
            needed = index_map.restrict(coordinates, value.shape, guards)
            return self.graph(Load(dtype, (), address, needed, buffer.name, buffer=buffer))
        if step.definition.pull is not None:
            return (yield from self._view(step, step.definition.pull(value, coordinates), value, guards))
        if step.definition.reduction is not None:
            return (yield from self._reduction(step, value, coordinates, guards))
        if step.definition.scan is not None:
            return (yield from self._scan(step, value, coordinates, guards))
        if step.definition.contraction is not None:
            return (yield from self._contraction(step, value, coordinates, guards))
        if step.definition.window is not None:
            return (yield from self._window(step, value, coordinates, guards))
        if step.definition.element_of is not None:
            builder: ScalarBuilder[Node] = self
            element: Requesting[Node] | Node = step.definition.element_of(builder, step, coordinates, guards)
            return element if isinstance(element, Node) else (yield from element)
        return (yield from self._pointwise(step, value, coordinates, guards))

    def _kept(self, node: Node, value: Value) -> Node:
        """A value of f16 or bf16 is held in f32, without the rounding that storing it would cause; `cast` rounds."""
        if value.dtype is not node.dtype:
            self._open[-1].effects[value] = None
        return node

    def apply(self, name: str, dtype: DType, *operands: Node, attributes: Mapping[str, Any] | None = None,
              hint: str = "") -> Node:  # fmt: skip
        fixed = tuple((attributes or {}).items())
        return self.graph(Apply(dtype, operands, hint=hint, name=name, attributes=fixed))

    def constant(self, dtype: DType, value: Any) -> Node:
        return self.graph(Constant(dtype, value=np.asarray(value).astype(dtype.numpy)[()]))

    def check(self, condition: Node, guards: Guards, message: str, *, unless_empty: Dim = 1) -> None:
        """Stop the run unless the condition holds, at the points of its axes at which the guards do."""
        if isinstance(condition, Constant) and condition.value:
            return
        guard_axes = [(guard, variables(guard.index)) for guard in (*guards, Guard(0, unless_empty))]
        related = [guard for guard, axes in guard_axes if not axes or not axes.isdisjoint(condition.axes)]
        if any(dims.less(guard.index, guard.extent) is False for guard in related):
            return
        kept = tuple(guard for guard in related if not in_bounds(guard.index, guard.extent, ()))
        node = self.graph(Check(BOOL, (condition,), 0, kept, message=message))
        assert isinstance(node, Check)
        self._open[-1].effects[node] = None

    def index(self, index: Dim, dtype: DType = I64) -> Node:
        """An index as a value; in a type that is too narrow for it, it wraps around."""
        if isinstance(index, int):
            least, most = dtypes.limits(dtype)
            return self.constant(dtype, least + (index - least) % (most - least + 1))
        return self.graph(Index(dtype, (), index))

    def select(self, guards: Guards, inside: Node, outside: Node) -> Node:
        return self.graph(Select(inside.dtype, (inside, outside), 0, guards, inside.hint))

    @property
    def checks(self) -> list[Check]:
        return [effect for effect in self.effects if isinstance(effect, Check)]

    @property
    def products(self) -> dict[Operation, list[Node]]:
        """The nodes of each contraction, one for each point at which it is read."""
        return {step: nodes for step, nodes in self._loops().items() if step.definition.contraction is not None}

    @property
    def reductions(self) -> dict[Operation, list[Node]]:
        """The nodes of each reduction, in the same way."""
        return {step: nodes for step, nodes in self._loops().items() if step.definition.reduction is not None}

    def _loops(self) -> dict[Operation, list[Node]]:
        nodes: dict[Operation, list[Node]] = {}
        for effect in self.effects:
            if isinstance(effect, tuple):
                nodes.setdefault(effect[0], []).append(effect[1])
        return nodes

    @property
    def skips_rounding(self) -> bool:
        """Whether a value is held in a wider type where another is computed of it."""
        return any(isinstance(effect, Value) and effect in self.steps.computed_with for effect in self.effects)

    def _pointwise(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        operands = []
        for operand in step.inputs:
            operands.append((yield operand, index_map.spread(coordinates, value.shape, operand.shape), guards))
        register = accumulator_of(value.dtype)
        if step.name in ("div", "mod") and step.attributes["by_zero"] == "error" and value.dtype.is_integer:
            self._check_divisor(operands[1], value, guards)
        known = folded(step, operands)
        if known is not None:
            return self.constant(register, known)
        if step.name == "cast":
            return self._cast(step, value, operands[0])
        if step.name in ("bitwise_and", "bitwise_or") and register is BOOL:
            neutral = step.name == "bitwise_and"
            operands = [node for node in operands if not (isinstance(node, Constant) and node.value == neutral)]
            if len(operands) == 1:
                return operands[0]
        if step.name == "bitcast":
            for end in (step.inputs[0], value):
                bits_are_stored_ones(end, accumulator_of(end.dtype))
        result = self.apply(step.name, register, *operands, attributes=step.attributes, hint=value.name)
        return self._kept(result, value)

    def _check_divisor(self, divisor: Node, value: Value, guards: Guards) -> None:
        condition = self.apply("not_equal", BOOL, divisor, self.constant(divisor.dtype, 0))
        if isinstance(divisor, Constant):
            condition = self.constant(BOOL, divisor.value != 0)
        self.check(condition, guards, DIVIDED_BY_ZERO, unless_empty=value.type.elements)

    def _cast(self, step: Operation, value: Value, node: Node) -> Node:
        """A cast to f16 or bf16 rounds, though what it gives is held in f32."""
        register = accumulator_of(value.dtype)
        if node.dtype is not register:
            attributes = {**step.attributes, "to": register}
            node = self.apply("cast", register, node, attributes=attributes, hint=value.name)
        if is_of(value.dtype, node):
            return node
        return self.apply("cast", register, node, attributes=step.attributes, hint=value.name)

    def _view(self, step: Operation, pieces: Sequence[Point], value: Value, guards: Guards) -> Requesting[Node]:
        nodes = []
        pieces = [piece for piece in pieces[:-1] if not _never_holds(piece.guards)] + [*pieces[-1:]]
        if len(pieces) > 1 and _never_holds(pieces[-1].guards):
            del pieces[-1]
        for piece in pieces:
            held = tuple(dict.fromkeys((*guards, *piece.guards)))
            needs_no_more_than_a_target_has(conditions=len(held), values=(value.name,))
            if piece.operand < len(step.inputs):
                nodes.append((yield step.inputs[piece.operand], piece.coordinates, held))
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
        reduces, it is read at its own point, if that runs over them independently of what is kept. A guard of that
        point without axes may limit either, as `0 <= 0 < 0` does of an empty part of a dim of one element.
        """
        argument, reduced = step.inputs[0], sorted(reduced_dims(step))
        kept = self._kept_coordinates(step, coordinates)
        point, reached = (self.propagation.points.get(each) for each in (argument, value))
        self._open[-1].points.update({(argument, point): None, (value, reached): None})
        visible = reached is not None and reached.coordinates == coordinates and set(reached.guards) <= set(guards)
        if point is not None and visible:
            at = tuple(kept.get(axis, coordinate) for axis, coordinate in enumerate(point.coordinates))
            inner = variables(*(at[axis] for axis in reduced))
            inner_guards = tuple(guard for guard in point.guards if not variables(guard.index).isdisjoint(inner))
            others = variables(*kept.values(), *(point.coordinates[axis] for axis in kept))
            has_axes = all(variables(guard.index) for guard in point.guards)
            covers = not self.propagation.is_piece or _covers([at[axis] for axis in reduced],
                                                              [argument.shape[axis] for axis in reduced])  # fmt: skip
            separate = inner.isdisjoint(others) and variables(*(guard.index for guard in inner_guards)) <= inner
            if has_axes and covers and separate:
                ordered = dict.fromkeys(atom for axis in reduced for atom in dims.free_atoms(at[axis]))
                return self._reduced_over(at, [axis for axis in ordered if axis in inner], guards, inner_guards)
        # No point fits these coordinates: axes of its own.
        indices, axes = new_indices([argument.shape[axis] for axis in reduced], coordinates)
        fresh = iter(indices)
        at = tuple(kept[axis] if axis in kept else next(fresh) for axis in range(argument.rank))
        return self._reduced_over(at, axes, guards)

    def _reduced_over(self, at: Coordinates, axes: Iterable[Any], guards: Guards,
                      inner_guards: Guards = ()) -> Argument:  # fmt: skip
        """The argument read at a point of the reduced axes. A guard of those that holds where the result is read does
        not hold all along them."""
        bound = tuple(axes)
        held = tuple(guard for guard in guards if variables(guard.index).isdisjoint(bound))
        return Argument(at, (*held, *inner_guards), bound, inner_guards)

    def _kept_coordinates(self, step: Operation, coordinates: Coordinates) -> dict[int, Dim]:
        """The coordinates of a reduction's result, by the axes of its argument that are not reduced."""
        gone, rank = reduced_dims(step), step.inputs[0].rank
        axes = range(rank) if step.attributes["keep_dims"] else [axis for axis in range(rank) if axis not in gone]
        return {axis: at for axis, at in zip(axes, coordinates, strict=True) if axis not in gone}

    def _reduction(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """A reduction, or for argmax and argmin two: the least (or last) index at which the extremum is attained. As
        in NumPy a NaN counts as the extremum, and the first one wins."""
        reduction = step.definition.reduction
        assert reduction is not None
        argument = self._argument(step, value, coordinates, guards)
        body = yield step.inputs[0], argument.at, argument.held

        def reduced(kind: Combine, body: Node) -> Node:
            if not argument.axes:
                return self._alone(kind, body) if step.attributes.get("axes") else body
            body = self.select(argument.guards, body, self.constant(body.dtype, identity(kind, body.dtype)))
            node = self.graph(Reduce(body.dtype, (body,), hint=value.name, kind=kind, bound=argument.axes,
                                     result=self.steps.names[value]))
            self._open[-1].effects[step, node] = None
            return node

        combined = reduced(reduction.combine, body)
        if not reduction.finds_index:
            return self._kept(combined, value)
        attained = self.apply("equal", BOOL, body, combined)
        if body.dtype.is_float:
            element_nan, any_nan = (self.apply("is_nan", BOOL, node) for node in (body, combined))
            attained = self.apply("select", BOOL, any_nan, element_nan, attained)
        (axis,) = reduced_dims(step)
        kind: Combine = "max" if step.attributes["select_last"] else "min"
        worst = self.constant(I64, identity(kind, I64))
        return reduced(kind, self.apply("select", I64, attained, self.index(argument.at[axis]), worst))

    def _scan(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """A scan: of its row, all elements that are read are in one program."""
        kind, axis = step.attributes["kind"], step.attributes["axis"] % value.rank
        register = accumulator_of(value.dtype)
        neutral = self.constant(register, identity(kind, register))
        if same(value.shape[axis], 1):
            if step.attributes["exclusive"]:
                return neutral
            body = yield step.inputs[0], coordinates, guards
            return self._alone(kind, body)
        reached = self.propagation.points.get(value)
        self._open[-1].points[value, reached] = None
        inner = scanned_row(value, axis, coordinates, guards, None if self.propagation.is_piece else reached)
        scans_are_read_at_their_points(self.steps.names[value], inner is not None)
        assert inner is not None
        bound = tuple(variables(coordinates[axis]))
        held = tuple(guard for guard in guards if variables(guard.index).isdisjoint(bound))
        body = yield step.inputs[0], coordinates, (*held, *inner)
        node = self.graph(Scan(register, (self.select(inner, body, neutral),), hint=value.name,
                               result=self.steps.names[value], kind=kind, bound=bound,
                               reverse=step.attributes["reverse"], exclusive=step.attributes["exclusive"]))  # fmt: skip
        return self._kept(node, value)

    def _window(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """A reduction over the places of a window; padding is the identity."""
        attributes, (argument,) = step.attributes, step.inputs
        kind: Combine = attributes["kind"]
        taps, axes = new_indices(attributes["window"], coordinates)
        parts = zip(coordinates, taps, attributes["strides"], attributes["dilations"], attributes["low"], strict=True)
        at = tuple(index * stride + tap * dilation - low for index, tap, stride, dilation, low in parts)
        inside = tuple(Guard(index, extent) for index, extent in zip(at, argument.shape, strict=True)
                       if not in_bounds(index, extent, guards))  # fmt: skip
        node = yield argument, at, tuple(dict.fromkeys((*guards, *inside)))
        body = self.select(inside, node, self.constant(node.dtype, identity(kind, node.dtype)))
        if axes:
            body = self.graph(Reduce(body.dtype, (body,), hint=value.name, kind=kind, bound=axes,
                                     result=self.steps.names[value]))
        else:
            body = self._alone(kind, body)
        return self._kept(body, value)

    def _alone(self, kind: Running, body: Node) -> Node:
        """What one element combines to: itself, but a sum begins with 0, so that of -0 it is 0."""
        begins_with_0 = kind == "sum" and body.dtype.is_float
        return self.apply("add", body.dtype, body, self.constant(body.dtype, 0)) if begins_with_0 else body

    def _contraction(self, step: Operation, value: Value, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """The sum of products that an element of a contraction is, with the bias of a convolution."""
        contraction = step.definition.contraction
        assert contraction is not None
        space = self.steps.expansion.space(step)
        groups_are_axes(value, coordinates, space.divided)
        summed = self._unrolled if is_unrolled(space, len(coordinates)) else self._summed
        node = yield from summed(step, space, coordinates, guards)
        if len(step.inputs) > 2:
            assert contraction.bias is not None
            register = step.attributes.get("accumulate") or accumulator_of(value.dtype)
            bias = yield step.inputs[2], (coordinates[contraction.bias],), guards
            node = self.apply("add", register, node, bias, hint=value.name)
        return self._kept(node, value)

    def _summed(self, step: Operation, space: Space, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """A contraction as a `Dot`, or where an operand varies over nothing that the other does not, as in the product
        with a vector, as a reduction."""
        register = step.attributes.get("accumulate") or accumulator_of(step.result.dtype)
        inner, axes = new_indices(space.extents[len(coordinates) :], coordinates)
        left, right = yield from self._factors(step, space, (*coordinates, *inner), guards)
        fed = step.inputs[0].dtype
        products_have_instructions(step.inputs[0], register)
        if register is I32:
            return self._sum_of_integers(step, axes, left, right)
        operands = tuple(without_rounding(node, fed) for node in (left, right))
        hint, result = self._names(step)
        dot = Dot(register, operands, hint=hint, result=result, fed=fed, bound=axes)
        if axes and dot.rows and dot.columns:
            node = self.graph(dot)
            self._open[-1].effects[step, node] = None
            return node
        return self._sum_of_products(step, axes, left, right, dot if axes and dot.columns else None)

    def _names(self, step: Operation) -> tuple[str, str]:
        """The hint and the result of a node for a step."""
        return step.result.name, self.steps.names[step.result]

    def _sum_of_products(self, step: Operation, axes: tuple[Variable, ...], left: Node, right: Node,
                         product: Dot | None = None) -> Node:  # fmt: skip
        """A contraction without rows or columns; as a product of one row it is `product`."""
        node = self.apply("mul", left.dtype, left, right, hint=step.result.name)
        if not axes:
            return node
        hint, result = self._names(step)
        return self.graph(Reduce(left.dtype, (node,), hint=hint, result=result, kind="sum", bound=axes,
                                 product=product))  # fmt: skip

    def _sum_of_integers(self, step: Operation, axes: tuple[Variable, ...], left: Node, right: Node) -> Node:
        """A contraction of integers of 32 bits, which are bytes and their zero points."""
        bound = frozenset(axes)
        if not axes or left.axes - bound <= right.axes or right.axes - bound <= left.axes:
            return self._sum_of_products(step, axes, left, right)
        first, second = (ByteOperand.of(node, bound, self.graph) for node in (left, right))
        products_are_of_bytes(first is not None and second is not None, step.result)
        assert first is not None and second is not None
        length = self.index(dims.product(axis.extent for axis in axes), I32)
        dot, node = product_of_bytes(first, second, axes, length, self._names(step), self.graph, self.apply)
        self._open[-1].effects[step, dot] = None
        return node

    def _unrolled(self, step: Operation, space: Space, coordinates: Coordinates, guards: Guards) -> Requesting[Node]:
        """A contraction over a window of one channel as products that are added one by one."""
        register, total = accumulator_of(step.result.dtype), None
        products_have_instructions(step.inputs[0], register)
        for tap in itertools.product(*(range(cast(int, extent)) for extent in space.extents[len(coordinates) :])):
            left, right = yield from self._factors(step, space, (*coordinates, *tap), guards)
            product = self.apply("mul", register, left, right)
            total = product if total is None else self.apply("add", register, total, product)
        return self.constant(register, 0) if total is None else total

    def _factors(self, step: Operation, space: Space, point: Coordinates,
                 guards: Guards) -> Generator[Request, Node, tuple[Node, Node]]:  # fmt: skip
        """What is multiplied at a point of the space of a contraction; 0 out of bounds, in the padding."""
        factors = []
        for operand, at in zip(step.inputs[:2], space.maps(point)[:2], strict=True):
            pairs = zip(at, operand.shape, strict=True)
            inside = tuple(Guard(index, extent) for index, extent in pairs if not in_bounds(index, extent, guards))
            node = yield operand, at, tuple(dict.fromkeys((*guards, *inside)))
            factors.append(self.select(inside, node, self.constant(node.dtype, 0)))
        return factors[0], factors[1]

    def loaded_index(self, node: Node, extent: Dim, guards: Guards, bounds: str | None) -> Dim:
        """A node as an index into an axis, whose `bounds` are those of `gather`: checked at the points at which the
        guards hold, unless it is proven or promised to be in range."""
        if dims.bounds(extent)[1] > dtypes.limits(node.dtype).largest:
            node = self.apply("cast", I64, node, attributes={"to": I64, "saturate": True}, hint=node.hint)
        index, (low, high) = node.as_index, content_range(node)
        if bounds is None and index is not None and dims.less(index, 0) is True:
            index = index + extent
        elif bounds is None and low < 0 and (index is None or dims.less_equal(0, index) is not True):
            wrapped = self.apply("add", node.dtype, node, self.index(extent, node.dtype))
            negative = self.apply("less", BOOL, node, self.constant(node.dtype, 0))
            node = self.apply("select", node.dtype, negative, wrapped, node, hint=node.hint)
            index = None
        place = Indirect(node, -ANY_INDEX, ANY_INDEX).expr if index is None else index
        is_known = low >= 0 and dims.less(high, extent) is True
        if bounds != "promised" and not is_known and not in_bounds(place, extent, guards):
            self._check_index(node if index is None else self.index(index), extent, guards)
        return place

    def _check_index(self, node: Node, extent: Dim, guards: Guards) -> None:
        index, tests = node.as_index, []
        if node.dtype.is_signed and (index is None or dims.less_equal(0, index) is not True):
            tests.append(self.apply("greater_equal", BOOL, node, self.constant(node.dtype, 0)))
        if index is None or dims.less(index, extent) is not True:
            tests.append(self.apply("less", BOOL, node, self.index(extent, node.dtype)))
        both = tests[0] if len(tests) == 1 else self.apply("bitwise_and", BOOL, *tests)
        self.check(both, guards, OUT_OF_RANGE)


def _covers(indices: Sequence[Dim], extents: Sequence[Dim]) -> bool:
    """Whether indices are in bounds of dims of these extents, at as many points as the dims have elements."""
    are_inside = all(in_bounds(index, extent, ()) for index, extent in zip(indices, extents, strict=True))
    return are_inside and dims.same(dims.product(axis.extent for axis in variables(*indices)), dims.product(extents))


def _never_holds(guards: Guards) -> bool:
    """Whether one of the guards is proven to hold at no point."""
    return any(dims.less(guard.index, guard.extent) is False or dims.less(guard.index, 0) is True for guard in guards)


def folded(step: Operation, operands: Sequence[Node]) -> Any:
    """The value of an operation on constants, or of a comparison of indices that their bounds decide; else None."""
    known = [np.asarray(node.value) for node in operands if isinstance(node, Constant)]
    if len(known) == len(operands):
        results = constants.of_numbers(step.definition, known, step.attributes)
        return None if results is None else results[0]
    if step.result.dtype is not BOOL:
        return None
    verdict = constants.of_dims(step.definition, [node.as_index for node in operands], step.attributes)
    return verdict if isinstance(verdict, bool) else None


def content_range(node: Node) -> tuple[int, int]:
    """The least and the greatest that an integer may be, from the constant that it is loaded from, or from its type."""
    if isinstance(node, Load) and node.buffer.operation is not None and node.buffer.operation.name == "const":
        tensor = node.buffer.operation.attributes["value"]
        if 0 < tensor.size <= MOST_LOOKED_AT:
            content = tensor.array()
            return int(content.min()), int(content.max())
    low, high = dtypes.limits(node.dtype)
    return int(low), int(high)


def without_rounding(node: Node, dtype: DType) -> Node:
    """What a node rounds to a type, for a reader that rounds to the type itself."""
    return node.operands[0] if isinstance(node, Apply) and node.rounds_to is dtype else node


def is_of(dtype: DType, node: Node) -> bool:
    """Whether the number of a node, which may be held in a wider type than `dtype`, is one of `dtype`."""
    if isinstance(node, Load) and (node.buffer.dtype is dtype or (node.buffer.dtype in FLOATS8 and dtype.bits >= 16)):
        return True
    if isinstance(node, Apply) and node.name == "cast":
        source = node.operands[0].dtype
        return dtype in (node.dtype, node.rounds_to) or (not source.is_float and source.bits <= 8)
    return dtype is node.dtype
