"""Masked-lane analysis: which values masked loads fill in, so that a kernel requires few `where`s.

Where the extent of a tile axis is no multiple of the block, the last block has lanes beyond the extent. Loads are
masked there, as they are where their guards fail, and `tl.load(..., other=fill)` gives masked lanes a fill that the
compiler is free to choose. Propagated through the operations, the fills determine the argument of a reduction in
masked lanes. If that is the reduction's neutral element (0 for a sum, -inf for a maximum), the argument requires no
`where`. Likewise a `Select`, such as the fill of a pad where its guards fail, requires no `where` if its first operand
equals the second in these lanes anyway. For each load the analysis tries the few fills that matter, and keeps the
choice with the fewest `where`s. Start at `analyse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from irc import constants, dtypes, ops
from irc.dims import Variable
from irc.dtypes import BOOL, FLOATS8, DType
from irc.interfaces import identity
from irc.kernel import Kernel
from irc.kernel.dag import Apply, Constant, Dot, Load, Node, Reduce, Scan, Select, walk

# What a node holds in masked lanes: a NumPy scalar, FINITE (some number that is neither infinite nor NaN), or UNKNOWN.
UNKNOWN = None
FINITE = "finite"
SWEEPS = 2  # times that each load's fill is tried: a better fill of one may depend on that of another


@dataclass(frozen=True)
class Masking:
    """The result of the analysis.

    fills: the number in masked lanes of each load. wheres: the reductions, and scans from the end, whose argument
    requires a `where`, which puts the neutral element in lanes beyond the extent. implied: the selects that require
    none. nan: the maxima and minima that must return NaN where an element is NaN, which Triton's do not by themselves.
    """

    fills: dict[Load, Any]
    wheres: frozenset[Reduce | Scan]
    implied: frozenset[Select]
    nan: frozenset[Reduce]


def analyse(kernel: Kernel) -> Masking:
    """Choose the fills of a kernel's loads, and determine the `where`s that are then required."""
    nodes = kernel.nodes
    reductions = [node for node in nodes if needs_neutral_lanes(node)] if kernel.online is None else []
    beyond = {node: ragged_axes(kernel, node) for node in reductions}
    reductions = [node for node in reductions if beyond[node]]
    ragged = frozenset[Variable]().union(*beyond.values())
    selects = [node for node in nodes if isinstance(node, Select)]
    addresses = {below for node in nodes if isinstance(node, Load) for below in walk(node.reads)}
    multiplied = {*walk(operand for node in nodes if isinstance(node, Dot) for operand in node.operands)}
    fills: dict[Load, Any] = {node: zero(node.dtype) for node in nodes if isinstance(node, Load)}
    # Loads of indices, which are parts of addresses, those of products, and floats of 8 bits, which lack infinities,
    # keep the fill 0.
    fixed = addresses | multiplied | {load for load in fills if load.buffer.dtype in FLOATS8}
    choosable = [load for load in fills if (load.guards or load.axes & ragged) and load not in fixed]

    def required_wheres() -> tuple[list[Reduce | Scan], list[Select]]:
        lanes = {axes: Lanes(fills, axes) for axes in beyond.values()}
        unmet = [node for node in reductions
                 if not same(lanes[beyond[node]].of(node.operands[0]), identity(node.kind, node.dtype))]  # fmt: skip
        return unmet, [node for node in selects if not implied(node, fills)]

    def cost() -> int:
        unmet, kept = required_wheres()
        return len(unmet) + len(kept)

    best = cost()
    for load in choosable * SWEEPS:
        if best == 0:
            break
        for candidate in candidates(load.dtype):
            before, fills[load] = fills[load], candidate
            new = cost()
            if new < best:
                best = new
            else:
                fills[load] = before
    unmet, kept = required_wheres()
    decided = frozenset(node for node in selects if node not in kept)
    return Masking(fills, frozenset(unmet), decided, nan_sensitive(kernel))


def needs_neutral_lanes(node: Node) -> TypeGuard[Reduce | Scan]:
    """Whether lanes beyond the extent are combined with others: those before an element, of a scan."""
    return isinstance(node, Reduce) or (isinstance(node, Scan) and node.reverse)


def ragged_axes(kernel: Kernel, node: Reduce | Scan) -> frozenset[Variable]:
    """The axes that a reduction or scan is over where its last block has lanes beyond them."""
    schedule = kernel.schedule
    tiles = (schedule.summed or schedule.columns, schedule.rows if kernel.across else None)
    masked = [frozenset(tile.axes) for tile in tiles if tile is not None and tile.masked]
    return next((axes for axes in masked if not axes.isdisjoint(node.bound)), frozenset())


def zero(dtype: DType) -> Any:
    """0 as a NumPy scalar of the type."""
    return np.zeros((), dtype.numpy)[()]


def candidates(dtype: DType) -> list[Any]:
    """The fills to try: neutral elements of reductions, which are 0, 1 and the extrema of the type."""
    if dtype is BOOL:
        return [np.bool_(False), np.bool_(True)]
    ends: list[Any] = [-np.inf, np.inf] if dtype.is_float else list(dtypes.limits(dtype))
    return [np.asarray(value, dtype.numpy)[()] for value in (0, *ends, 1)]


def same(lane: Any, number: Any) -> bool:
    """Whether a masked lane is known to hold this number."""
    return lane is not UNKNOWN and lane is not FINITE and bool(lane == number)


def is_finite(lane: Any) -> bool:
    return lane is FINITE or (lane is not UNKNOWN and bool(np.isfinite(lane)))


def is_infinite(lane: Any) -> bool:
    return lane is not UNKNOWN and lane is not FINITE and bool(np.isinf(lane))


class Lanes:
    """What nodes hold in lanes beyond the extent of the `ragged` axes: those that a kernel reduces or sums over."""

    def __init__(self, fills: dict[Load, Any], ragged: frozenset[Any]) -> None:
        self.fills = fills
        self.ragged = ragged
        self.known: dict[Node, Any] = {}

    def of(self, root: Node) -> Any:
        for node in walk((root,)):
            if node not in self.known:
                self.known[node] = self._of(node)
        return self.known[root]

    def _of(self, node: Node) -> Any:
        if isinstance(node, Load):
            return self.fills[node] if node.axes & self.ragged else UNKNOWN
        if isinstance(node, Select):
            inside, outside = (self.known[operand] for operand in node.operands[:2])
            return inside if same(inside, outside) else UNKNOWN
        return applied(node, [self.known[operand] for operand in node.operands])


def applied(node: Node, operands: list[Any]) -> Any:
    """What a node holds in masked lanes, from what its operands hold, by the NumPy reference of its operation."""
    if isinstance(node, Constant):
        return node.value
    if not isinstance(node, Apply):
        return UNKNOWN
    if node.name == "select" and operands[0] is not UNKNOWN and operands[0] is not FINITE:
        return operands[1] if operands[0] else operands[2]
    if node.name == "select" and all(is_finite(operand) for operand in operands[1:]):
        return FINITE
    if node.name == "add" and any(is_infinite(operand) for operand in operands):
        infinite, other = operands if is_infinite(operands[0]) else reversed(operands)
        return infinite if is_finite(other) or same(infinite, other) else UNKNOWN
    if node.name == "sub" and subtracts_maximum(node) and same(operands[0], -np.inf):
        # -inf - max is -inf, unless max is -inf or NaN: then x - max is NaN in the whole row.
        return operands[0]
    if any(operand is UNKNOWN or operand is FINITE for operand in operands):
        return UNKNOWN
    results = constants.of_numbers(ops.lookup(node.name), list(map(np.asarray, operands)), dict(node.attributes))
    if results is None:
        return UNKNOWN
    (value,) = results
    return value.astype(node.dtype.numpy)[()] if value.dtype != node.dtype.numpy else value[()]


def subtracts_maximum(node: Node) -> bool:
    """Whether a `sub` node is `x - max(x)`."""
    left, right = node.operands
    return isinstance(right, Reduce) and right.kind == "max" and right.operands[0] is left


def implied(select: Select, fills: dict[Load, Any]) -> bool:
    """Whether a select requires no `where`: where its guards fail, its first operand, computed from the fills of loads
    that are masked there, equals the second."""
    inside, outside = select.operands[:2]
    if not isinstance(outside, Constant) or select.reads:
        return False
    known: dict[Node, Any] = {}
    for node in walk((inside,)):
        if isinstance(node, Load):
            known[node] = fills[node] if set(select.guards) <= set(node.guards) else UNKNOWN
        elif isinstance(node, Select):
            first, second = known[node.operands[0]], known[node.operands[1]]
            fails_too = set(select.guards) <= set(node.guards)
            known[node] = second if fails_too else first if same(first, second) else UNKNOWN
        else:
            known[node] = applied(node, [known[operand] for operand in node.operands])
    return same(known[inside], outside.value)


def nan_sensitive(kernel: Kernel) -> frozenset[Reduce]:
    """The float maxima and minima that must return NaN where an element is NaN.

    Triton's ignore NaN. That affects no result in a softmax: the exponential of a NaN element, and so the sum by which
    the whole row is divided, is NaN.
    """
    users: dict[Node, list[Node]] = {}
    for node in kernel.nodes:
        for operand in node.below:
            users.setdefault(operand, []).append(node)
    stored = {store.node for store in kernel.stores}

    def in_softmax(maximum: Reduce) -> bool:
        differences = users.get(maximum, [])
        if maximum in stored or not all(
            isinstance(node, Apply) and node.name == "sub" and subtracts_maximum(node) for node in differences
        ):
            return False
        exponentials = [user for node in differences for user in users.get(node, []) if is_named(user, "exp")]
        sums = [user for node in exponentials for user in users.get(node, []) if isinstance(user, Reduce)]
        if not any(node.kind == "sum" for node in sums):
            return False
        # Every other result of the differences must be computed with the sum, so that it is NaN where the sum is.
        for node in (*differences, *exponentials):
            for user in users.get(node, []):
                has_sum = (isinstance(user, Reduce) and user in sums) or user in exponentials
                has_sum = has_sum or (is_named(user, "div", "sub", "mul")
                                      and any(s in walk(user.operands) for s in sums))  # fmt: skip
                if not has_sum:
                    return False
        return not stored & {*differences, *exponentials}

    return frozenset(
        node
        for node in kernel.nodes
        if isinstance(node, Reduce) and node.kind in ("max", "min") and node.dtype.is_float and not in_softmax(node)
    )


def is_named(node: Node, *names: str) -> bool:
    return isinstance(node, Apply) and node.name in names
