"""`derive`: from operations to a kernel, or a refusal that cites a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from irc import dims
from irc.dims import Symbol, Variable
from irc.index_map import Guard
from irc.ir import Operation, Value
from irc.kernel.dag import Load, Node, Reduce, Store, expressions, variables, walk
from irc.kernel.flood import Flood, Trace, anchors, stores, symbols_of
from irc.kernel.schedule import Schedule, Scope, make_schedule, merge_axes
from irc.kernel.steps import Refusal, Steps


@dataclass(frozen=True)
class Axis:
    """One axis of a kernel's space."""

    variable: Variable
    reduced: bool

    @property
    def extent(self) -> dims.Dim:
        return self.variable.extent


@dataclass(frozen=True, eq=False)
class Kernel:
    """What one launch computes. See the package's docstring for what each part means."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parallel: tuple[Variable, ...]
    bound: tuple[Variable, ...]
    stores: tuple[Store, ...]
    numerics: str
    recomputes_reduction: bool

    @property
    def name(self) -> str:
        """The name of the last stored value."""
        return self.outputs[-1].name

    @property
    def kind(self) -> str:
        return "reduction" if self.bound else "pointwise"

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (*(Axis(axis, False) for axis in self.parallel), *(Axis(axis, True) for axis in self.bound))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node once, operands first."""
        return tuple(walk(store.node for store in self.stores))

    @property
    def loads(self) -> tuple[Load, ...]:
        return tuple(node for node in self.nodes if isinstance(node, Load))

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The run-time dims that it takes as arguments."""
        guards = [guard.extent for node in self.nodes for guard in getattr(node, "guards", ())]
        guards += [guard.extent for store in self.stores for guard in store.guards]
        extents = [axis.extent for axis in (*self.parallel, *self.bound)]
        return symbols_of([*expressions(self.stores), *guards, *extents])

    @cached_property
    def schedule(self) -> Schedule:
        return make_schedule(self.stores, self.parallel, self.bound)

    @property
    def nest(self) -> tuple[Scope, ...]:
        return self.schedule.nest

    @property
    def looped(self) -> bool:
        """Whether a row does not fit in registers, so that each level of reductions reads it again."""
        return self.schedule.columns is not None and self.schedule.columns.looped


def derive(
    members: Sequence[Operation],
    *,
    outputs: Sequence[Value] | None = None,
    numerics: str = "keeps_more_precision",
    recompute: bool = False,
) -> Kernel:
    """The kernel that computes the members; raises `Refusal`. See the package's docstring."""
    steps = Steps(members)
    stored = tuple(outputs) if outputs is not None else results_used_outside(steps.members)
    if not stored:
        raise Refusal("fuse.unstored_value", "F3", "nothing outside reads a result of the group", ())
    refusals: list[Refusal] = []
    for anchor in anchors(steps, stored):
        try:
            return _assemble(steps, stored, Flood(steps, anchor), numerics == "exact", recompute)
        except Refusal as refusal:
            refusals.append(refusal)
    # That an anchor does not reach a root says less than what would be wrong if it did.
    raise next((refusal for refusal in refusals if refusal.rule != "F4"), refusals[0])


def results_used_outside(members: Sequence[Operation]) -> tuple[Value, ...]:
    inside = set(members)
    return tuple(
        result for member in members for result in member.results if any(user not in inside for user in result.users())
    )


def _assemble(steps: Steps, outputs: tuple[Value, ...], flood: Flood, exact: bool, recompute: bool) -> Kernel:
    trace = Trace(flood, exact=exact)
    written = stores(steps, outputs, flood, trace)
    reductions = [node for node in walk(store.node for store in written) if isinstance(node, Reduce)]
    bound = reduced_axes(reductions)
    used = frozenset[Variable]().union(*(variables(index) for index in expressions(written)))
    parallel = tuple(axis for axis in flood.axes if axis not in bound and axis in used)
    for node in reductions:
        crossing = node.axes & set(bound)
        if crossing:
            message = f"%{node.hint} is reduced over an axis that it varies over"
            raise Refusal("fuse.shared_reduction_axis", "F6", message, (node.hint,))
    written, parallel, bound = merge_axes(written, parallel, bound)
    repeated = repeated_reduction(written, parallel)
    if repeated is not None and not recompute:
        node, axis = repeated
        message = f"%{node.hint} would be reduced again at each of {axis.extent} points of an axis it ignores"
        raise Refusal("fuse.recomputed_reduction", "F10", message, (node.hint, axis.extent))
    written = tuple(written_once(store, parallel) for store in written)
    inputs = tuple(dict.fromkeys(node.buffer for node in walk(s.node for s in written) if isinstance(node, Load)))
    level = "keeps_more_precision" if trace.skipped_rounding else "exact"
    ordered = tuple(value for value in steps.inputs if value in inputs)
    return Kernel(ordered, outputs, parallel, bound, written, level, repeated is not None)


def reduced_axes(reductions: Sequence[Reduce]) -> tuple[Variable, ...]:
    """The axes that all reductions share (rule F6)."""
    if not reductions:
        return ()
    bound = reductions[0].bound
    for node in reductions:
        if set(node.bound) != set(bound):
            message = f"%{reductions[0].hint} and %{node.hint} are reduced over different axes"
            raise Refusal("fuse.shared_reduction_axis", "F6", message, (reductions[0].hint, node.hint))
    return bound


def repeated_reduction(written: Sequence[Store], parallel: Sequence[Variable]) -> tuple[Reduce, Variable] | None:
    """A reduction that some parallel axis has no part in (rule F10)."""
    for node in walk(store.node for store in written):
        if isinstance(node, Reduce) and all(axis.extent != 0 for axis in node.bound):
            for axis in parallel:
                if axis not in node.axes:
                    return node, axis
    return None


def written_once(store: Store, parallel: Sequence[Variable]) -> Store:
    """The store with a guard for each axis that it does not vary over: one point writes each element."""
    guards = tuple(Guard(axis.expr, 1) for axis in parallel if axis not in variables(store.address))
    return Store(store.buffer, store.address, (*store.guards, *guards), store.node)
