"""`derive`: from operations to a kernel, or the legality rule that they break."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from irc import dims
from irc.dims import Dim, Variable
from irc.index_map import Guard
from irc.ir import Operation, Value
from irc.kernel.across_rows import across_schedule, reduced_axes
from irc.kernel.cuts import pieces, with_guards_of_stores
from irc.kernel.dag import (
    Check,
    Dot,
    Load,
    Node,
    Reduce,
    Root,
    Store,
    loops_of,
    products_of,
    reductions_of,
    scans_of,
    variables,
    walk,
)
from irc.kernel.factors import multiplies_what_is_computed, with_factors_outside
from irc.kernel.failure import LegalityFailure
from irc.kernel.floats8 import with_products_of_8_bits
from irc.kernel.index_range import index_extents
from irc.kernel.nest import Accumulate, Loop, Schedule, size_of
from irc.kernel.online import Online, in_one_pass
from irc.kernel.propagation import Propagation, anchors, typical
from irc.kernel.resources import Resources, resources_of
from irc.kernel.rules import (
    is_written_unless_empty,
    products_are_computed_once,
    products_share_their_tiles,
    random_bits_are_drawn_once,
    reductions_are_computed_once,
    rows_are_reduced_once,
    rows_fit_in_registers,
    stores_what_is_read_outside,
    sums_are_in_one_other,
)
from irc.kernel.scan_rules import scans_are_beside_no_product, scans_share_their_row
from irc.kernel.schedule import contiguous_last, make_schedule, merge_axes
from irc.kernel.schedule_rules import indices_fit, split_fits_the_kernel
from irc.kernel.single_rows import with_single_rows
from irc.kernel.steps import Expansion, Steps, members_of
from irc.kernel.traces import Traces
from irc.kernel.tracing import Tracer
from irc.schedule_options import NO_OPTIONS, ScheduleOptions


@dataclass(frozen=True, eq=False)
class Kernel:
    """What one launch computes. See the package's docstring for what each part means."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parallel: tuple[Variable, ...]
    bound: tuple[Variable, ...]
    stores: tuple[Store, ...]
    checks: tuple[Check, ...]
    rounds_elsewhere: bool  # roundings are skipped, or factors are moved
    recomputes_reduction: bool
    options: ScheduleOptions = NO_OPTIONS  # of its schedule
    online: Online | None = None
    partial: frozenset[Value] = frozenset()  # outputs of which only some elements are written (`irc.kernel.updates`)
    across: tuple[Variable, ...] = ()  # the axes across which rows are reduced, if they are (`irc.kernel.across_rows`)
    divisible: frozenset[Operation] = frozenset()  # the primitives that reduce across rows

    @property
    def kind(self) -> str:
        if products_of(self.roots):
            return "product"
        if scans_of(self.roots):
            return "scan"
        return "reduction" if self.bound else "pointwise"

    @property
    def roots(self) -> tuple[Root, ...]:
        return (*self.checks, *self.stores)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node but the roots once, operands first."""
        return tuple(node for node in walk(self.roots) if not isinstance(node, Root))

    @property
    def loads(self) -> tuple[Load, ...]:
        return tuple(node for node in self.nodes if isinstance(node, Load))

    @cached_property
    def schedule(self) -> Schedule:
        if self.across:
            return across_schedule(self.roots, self.parallel, self.bound, self.across, self.options)
        return make_schedule(self.roots, self.parallel, self.bound, self.options, self.online)

    @property
    def divided(self) -> tuple[Variable, ...]:
        """The axes that may be divided into parts."""
        return self.across or self.bound

    @cached_property
    def index_extents(self) -> tuple[Dim, ...]:
        """What all its indices are below, where that may be too large for 32 bits (`irc.kernel.index_range`)."""
        return index_extents((*self.inputs, *self.outputs), self.schedule.tiles, (*self.nodes, *self.roots))

    @cached_property
    def resources(self) -> Resources:
        """What a program takes of a multiprocessor, estimated."""
        return resources_of(self.schedule)

    @property
    def numerics(self) -> str:
        """The class of its numerics: not `exact` where it rounds elsewhere than the program says, as what is carried
        does."""
        scopes = chain.from_iterable(scope.body for scope in self.schedule.nest if isinstance(scope, Loop))
        is_carried = any(isinstance(scope, Accumulate) and scope.point is not None for scope in scopes)
        return "keeps_more_precision" if self.rounds_elsewhere or is_carried else "exact"

    @property
    def looped(self) -> bool:
        """Whether programs loop over what is summed, as those of products do, or over rows that do not fit in
        registers, which each level of reductions then reads again."""
        return any(tile.looped for tile in self.schedule.tiles)


def derive(members: Sequence[Operation], *, outputs: Sequence[Value] | None = None, recompute: bool = False,
           expansion: Expansion | None = None, traces: Traces | None = None,
           options: ScheduleOptions = NO_OPTIONS) -> Kernel:  # fmt: skip
    """The kernel that computes the members; raises `LegalityFailure`. See the package's docstring."""
    kernel = replace(_derived(members, outputs, recompute, expansion, traces), options=options)
    if options.stated:
        split_fits_the_kernel(options, kernel.kind, size_of(kernel.divided))
    if options.stated or kernel.kind == "scan":
        _ = kernel.schedule  # raises where the options do not fit, or scans do not fit the schedule
    indices_fit(options, kernel.index_extents if options.index_bits == 32 else ())
    return kernel


def kernel_of(operation: Operation, expansion: Expansion | None = None) -> Kernel:
    """The kernel of a `kernel` operation, with the schedule that it states; raises `LegalityFailure`."""
    yielded = dict.fromkeys(operation.regions[0].block.terminator.inputs)
    computed = [value for value in yielded if value.operation is not None]
    options = ScheduleOptions.of(operation.attributes["schedule"])
    try:
        return derive(members_of(operation), outputs=computed, expansion=expansion, options=options)
    except LegalityFailure as failure:
        if failure.rule != "F15":
            raise
        raise LegalityFailure("F15", f"@{operation.attributes['name']}: {failure.message}", failure.values) from None


def _derived(members: Sequence[Operation], outputs: Sequence[Value] | None, recompute: bool,
             expansion: Expansion | None, traces: Traces | None) -> Kernel:  # fmt: skip
    steps = Steps(members, expansion)
    stored = tuple(outputs) if outputs is not None else results_used_outside(steps.members)
    stores_what_is_read_outside(stored)
    sums_are_in_one_other(steps.sums_in_sums())
    failures: list[LegalityFailure] = []
    tried: list[Propagation] = []
    for anchor in anchors(steps, stored):
        if any(propagation.covers(anchor) for propagation in tried):
            continue
        tried.append(Propagation(anchor, steps))
        try:
            return _over_axes_of(anchor, steps, stored, tried[-1], recompute, traces)
        except LegalityFailure as failure:
            failures.append(failure)
    # That an anchor does not reach a root says less than what would be wrong if it did.
    raise next((failure for failure in failures if failure.rule != "F4"), failures[0])


def results_used_outside(members: Sequence[Operation]) -> tuple[Value, ...]:
    inside = set(members)
    results = [result for member in members for result in member.results]
    return tuple(result for result in results if any(user not in inside for user in result.users()))


def _over_axes_of(anchor: Value, steps: Steps, outputs: tuple[Value, ...], propagation: Propagation,
                  recompute: bool, traces: Traces | None) -> Kernel:  # fmt: skip
    """The kernel over the axes of an anchor, one of which is cut into pieces where products are read at shifts."""
    whole = TracedGroup(steps, outputs, [propagation], traces or Traces())
    try:
        return _assemble(steps, outputs, whole, recompute)
    except LegalityFailure as failure:
        cut = pieces(anchor, whole.roots) if failure.rule in ("F10", "F16") else []
        if not cut:
            raise
        try:
            propagations = [Propagation(anchor, steps, coordinates) for coordinates in cut]
            parts = TracedGroup(steps, outputs, propagations, Traces())  # of other points
            return _assemble(steps, outputs, parts, recompute)
        except LegalityFailure:
            raise failure from None


class TracedGroup:
    """The scalar DAG of a group at the points of propagations, each of which stores a part of each result."""

    def __init__(self, steps: Steps, outputs: Sequence[Value], propagations: Sequence[Propagation],
                 traces: Traces) -> None:  # fmt: skip
        self.tracer = Tracer(propagations[0], steps, traces)
        stores: dict[Hashable, Store] = {}
        for propagation in propagations:
            self.tracer.propagation = propagation
            for output in dict.fromkeys(outputs):
                store = self.tracer.store(output, steps.inner[output])
                stores.setdefault(store.content, store)  # what varies over no piece is stored once
        self.roots, single = with_single_rows((*self.tracer.checks, *stores.values()))
        self.axes = [*propagations[0].axes, *single]


def _assemble(steps: Steps, outputs: tuple[Value, ...], traced_group: TracedGroup, recompute: bool) -> Kernel:
    tracer = traced_group.tracer
    traced = products_of(traced_group.roots)
    scans_are_beside_no_product(scans_of(traced_group.roots), traced)
    roots = with_factors_outside(traced_group.roots)
    moved = roots != traced_group.roots
    one_pass = multiplies_what_is_computed(roots)
    if not one_pass:
        wide, roots = roots, with_products_of_8_bits(roots)
        moved |= roots != wide
    reductions, products = reductions_of(roots), products_of(roots)
    if one_pass:
        products, reductions = products[-1:], []
    else:
        products_share_their_tiles(products, reductions)
    count_products(tracer, () if recompute else traced)
    if products and not one_pass:
        roots = with_guards_of_stores(roots, products[0])
    divisible = {node for nodes in tracer.reductions.values() for node in nodes}
    bound, across = (products[0].bound, tuple[Variable, ...]()) if products else reduced_axes(roots, divisible)
    scans = scans_of(roots)
    if scans:
        bound = bound or scans[0].bound
        scans_share_their_row(scans, bound, across)
    divided = count_reductions(tracer, across) if across else frozenset[Operation]()
    if len(bound) > 1 and products and not one_pass:
        roots, bound = contiguous_last(roots, bound)
    used = frozenset[Variable]().union(*(root.axes for root in roots))
    parallel = tuple(axis for axis in traced_group.axes if axis not in (*bound, *across) and axis in used)
    roots, parallel, bound, across = merge_axes(roots, parallel, bound, across)
    nodes = walk(roots)
    computed = [node for node in loops_of(roots) if 0 not in (axis.extent for axis in node.bound)]
    online = in_one_pass(roots) if one_pass else None
    held = online.product.columns if online is not None else frozenset[Variable]()  # in one program
    if online is not None:
        depth = () if online.scores is None else online.scores.bound
        rows_fit_in_registers(size_of(tuple(held)), size_of(depth), online.product.label)
    repeated = [(node, axis) for node in computed for axis in parallel if axis not in node.axes | held]
    if products and online is None:  # other reductions are computed in the loop of the products
        repeated = [(node, axis) for node, axis in repeated if isinstance(node, Dot)]
    if not recompute:
        reductions_are_computed_once(repeated)
        random_bits_are_drawn_once(products, nodes)
    stores = tuple(written_once(root, parallel, (bound, across)) for root in roots if isinstance(root, Store))
    checks = tuple(root for root in roots if isinstance(root, Check))
    read = {node.buffer for node in nodes if isinstance(node, Load)}
    inputs = tuple(buffer for buffer in steps.buffers.values() if buffer in read)
    elsewhere = tracer.skips_rounding or moved
    return Kernel(inputs, outputs, parallel, bound, stores, checks, elsewhere, bool(repeated), online=online,
                  across=across, divisible=divided)  # fmt: skip


def count_products(tracer: Tracer, products: Collection[Node]) -> None:
    """Raise the `LegalityFailure` of a contraction that is computed at more points than its iteration space has."""
    for step, traced in tracer.products.items():
        contraction = step.definition.contraction
        assert contraction is not None
        axes = [(*node.axes, *node.bound) for node in traced if node in products and isinstance(node, Dot)]
        computed = sum(typical(size_of(each)) for each in axes)
        needed = typical(dims.product(contraction.space(step).extents))
        products_are_computed_once(tracer.steps.names[step.result], computed, needed)


def count_reductions(tracer: Tracer, across: Collection[Variable]) -> frozenset[Operation]:
    """The reductions across rows; raises the `LegalityFailure` of one, or of one of rows, that is computed at more
    points than its operand has elements."""
    divisible = set[Operation]()
    for step, traced in tracer.reductions.items():
        nodes = [node for node in traced if isinstance(node, Reduce)]
        computed = sum(typical(size_of((*node.axes, *node.bound))) for node in nodes)
        needed = typical(step.inputs[0].type.elements)
        if step.definition.reduction is not None and step.definition.reduction.finds_index:
            needed *= 2  # the extremum, and then its index
        rows_are_reduced_once(tracer.steps.names[step.result], computed, needed)
        if any(set(node.bound) == set(across) for node in nodes):
            divisible.add(step)
    return frozenset(divisible)


def written_once(store: Store, parallel: Sequence[Variable], reduced: Sequence[Sequence[Variable]]) -> Store:
    """The store with a guard for each axis that it does not vary over: one point writes each element.

    Of the axes that its index and guards mention, one point for each element satisfies the guards (`Point`): in
    `x[:, 1]` the index varies over the first axis alone, and a guard already says where along the second it is read.
    Of reduced axes that matters where it varies over others of them: what varies over none is written once a row, or
    once for all rows.
    Rule F4 does not allow that such an axis may be empty: no point of the kernel would write the element.
    """
    mentioned = variables(*store.indices)
    axes = (*parallel, *(axis for axes in reduced if not mentioned.isdisjoint(axes) for axis in axes))
    free = tuple(axis for axis in axes if axis not in mentioned)
    is_written_unless_empty(store.buffer, free)
    return replace(store, guards=(*store.guards, *(Guard(axis.expr, 1) for axis in free)))
