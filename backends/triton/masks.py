"""Masked-lane analysis: what the lanes beyond a ragged edge hold, so that few `where`s are needed.

A masked load gives its lanes a value of our choice, `other`. Followed through the operations, that choice decides
what a reduction sees there: it must be the value that the reduction ignores (0 for a sum, -inf for a maximum).
Likewise a guarded value (a pad) needs no `where` if its masked lanes come out as the fill. The analysis tries, for
each load, the few values that matter and keeps the choice that leaves the fewest `where`s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irc import constants, dtypes, ops
from irc.dtypes import BOOL, DType
from irc.interfaces import identity
from irc.kernel import Kernel
from irc.kernel.dag import Apply, Constant, Load, Node, Reduce, Select, walk

UNKNOWN = None
FINITE = "finite"  # a number that is neither infinite nor NaN
SWEEPS = 2


@dataclass(frozen=True)
class Masking:
    """`fills`: what masked lanes of each load hold. `wheres`: reductions whose body must be masked by a `where`.
    `implied`: selects that their masked loads already decide. `nan`: maxima that must look for NaN."""

    fills: dict[Load, Any]
    wheres: frozenset[Reduce]
    implied: frozenset[Select]
    nan: frozenset[Reduce]


def analyse(kernel: Kernel) -> Masking:
    """Choose the fills of a kernel's loads."""
    nodes = kernel.nodes
    columns = kernel.schedule.columns
    ragged = frozenset(columns.axes) if columns is not None and columns.masked and kernel.bound else frozenset()
    reductions = [node for node in nodes if isinstance(node, Reduce)] if ragged else []
    selects = [node for node in nodes if isinstance(node, Select)]
    addresses = {below for node in nodes if isinstance(node, Load) for below in walk(node.reads)}
    fills: dict[Load, Any] = {node: zero(node.dtype) for node in nodes if isinstance(node, Load)}
    free = [load for load in fills if (load.guards or load.axes & ragged) and load not in addresses]

    def open_ends() -> tuple[list[Reduce], list[Select]]:
        lanes = _Lanes(fills, ragged)
        unmet = [node for node in reductions if not same(lanes.of(node.operands[0]), identity(node.kind, node.dtype))]
        return unmet, [node for node in selects if not implied(node, fills)]

    def cost() -> int:
        unmet, kept = open_ends()
        return len(unmet) + len(kept)

    best = cost()
    for load in free * SWEEPS:
        if best == 0:
            break
        for candidate in candidates(load.dtype):
            before, fills[load] = fills[load], candidate
            new = cost()
            if new < best:
                best = new
            else:
                fills[load] = before
    unmet, kept = open_ends()
    decided = frozenset(node for node in selects if node not in kept)
    return Masking(fills, frozenset(unmet), decided, nan_sensitive(kernel))


def zero(dtype: DType) -> Any:
    return np.zeros((), dtype.numpy)[()]


def candidates(dtype: DType) -> list[Any]:
    if dtype is BOOL:
        return [np.bool_(False), np.bool_(True)]
    ends: list[Any] = [-np.inf, np.inf] if dtype.is_float else list(dtypes.limits(dtype))
    return [np.asarray(value, dtype.numpy)[()] for value in (0, *ends, 1)]


def same(found: Any, wanted: Any) -> bool:
    return found is not UNKNOWN and found is not FINITE and bool(found == wanted)


def is_finite(found: Any) -> bool:
    return found is FINITE or (found is not UNKNOWN and bool(np.isfinite(found)))


def is_infinite(found: Any) -> bool:
    return found is not UNKNOWN and found is not FINITE and bool(np.isinf(found))


class _Lanes:
    """The value of a node where the columns are masked: a number, or unknown."""

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
    """A node's value from those of its operands, by the op's own reference."""
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
        # Elsewhere the maximum is finite, or it is NaN or infinite and then the whole row comes out as NaN anyway.
        return operands[0]
    if any(operand is UNKNOWN or operand is FINITE for operand in operands):
        return UNKNOWN
    results = constants.of_numbers(ops.lookup(node.name), list(map(np.asarray, operands)), dict(node.attributes))
    if results is None:
        return UNKNOWN
    (value,) = results
    return value.astype(node.dtype.numpy)[()] if value.dtype != node.dtype.numpy else value[()]


def subtracts_maximum(node: Node) -> bool:
    """Whether it is `x - max(x)`."""
    left, right = node.operands
    return isinstance(right, Reduce) and right.kind == "max" and right.operands[0] is left


def implied(select: Select, fills: dict[Load, Any]) -> bool:
    """Whether the guarded operand equals the other one in lanes where its loads are masked."""
    inside, outside = select.operands[:2]
    if not isinstance(outside, Constant) or select.reads:
        return False
    known: dict[Node, Any] = {}
    for node in walk((inside,)):
        if isinstance(node, Load):
            known[node] = fills[node] if set(select.guards) <= set(node.guards) else UNKNOWN
        elif isinstance(node, Select):
            outer, inner = known[node.operands[0]], known[node.operands[1]]
            fails_too = set(select.guards) <= set(node.guards)
            known[node] = inner if fails_too else outer if same(outer, inner) else UNKNOWN
        else:
            known[node] = applied(node, [known[operand] for operand in node.operands])
    return same(known[inside], outside.value)


def nan_sensitive(kernel: Kernel) -> frozenset[Reduce]:
    """The maxima and minima whose NaN would be lost: all but those of a softmax, whose sum is NaN as well."""
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
        # Whatever else is made of the differences must meet the sum, so that its NaN comes through.
        for node in (*differences, *exponentials):
            for user in users.get(node, []):
                meets = (isinstance(user, Reduce) and user in sums) or user in exponentials
                meets = meets or (is_named(user, "div", "sub", "mul") and any(s in walk(user.operands) for s in sums))
                if not meets:
                    return False
        return not stored & {*differences, *exponentials}

    return frozenset(
        node
        for node in kernel.nodes
        if isinstance(node, Reduce) and node.kind in ("max", "min") and node.dtype.is_float and not in_softmax(node)
    )


def is_named(node: Node, *names: str) -> bool:
    return isinstance(node, Apply) and node.name in names
