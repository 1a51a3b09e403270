"""Updates in place: where a result takes the place of what a kernel reads, only what is changed is stored.

A step of a decoder writes one position of its cache, and the rest of the result is the cache as it was. Where that is
written to the cache itself, the rest is neither read nor written. Start at `updated_in_place`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from irc import dims
from irc.dims import Dim, Indirect
from irc.dtypes import I64
from irc.index_map import Guard, Guards
from irc.ir import Value
from irc.kernel.dag import Apply, Load, Node, Select, Store, indirect_nodes, variables, walk
from irc.kernel.derivation import Kernel
from irc.kernel.index_range import end_of
from irc.kernel.traffic import single_axis

ANY = 1 << 62  # ends of an index about whose value nothing is known


def updated_in_place(kernel: Kernel, updated: Mapping[Value, Value], few: Mapping[Value, Dim]) -> Kernel:
    """The kernel whose outputs `updated` are written to the memory of these inputs: what is the same there before and
    after is not stored. Such outputs are in its `partial`. Of its inputs `few`, as many elements at most are not 0."""
    stores = tuple(_of_changes(store, updated[store.buffer], few) if store.buffer in updated else store
                   for store in kernel.stores)  # fmt: skip
    partial = frozenset(new.buffer for new, store in zip(stores, kernel.stores, strict=True) if new is not store)
    if not partial:
        return kernel
    read = {node.buffer for node in walk((*kernel.checks, *stores)) if isinstance(node, Load)}
    return replace(kernel, stores=stores, inputs=tuple(each for each in kernel.inputs if each in read), partial=partial)


def most_nonzero(value: Value) -> Dim | None:
    """How many elements of a value are not 0 at most, where it is zeros to which a scatter writes updates."""
    operation = value.operation
    if operation is None or operation.name != "scatter" or operation.attributes["reduction"] != "none":
        return None
    base, updates = operation.inputs[0].operation, operation.inputs[2]
    element = base.inputs[0].operation if base is not None and base.name == "expand" else None
    constant = element.attributes["value"] if element is not None and element.name == "const" else None
    is_zeros = constant is not None and constant.size == 1 and not constant.array().any()
    return updates.type.elements if is_zeros and updates.type.is_ranked else None


def _of_changes(store: Store, buffer: Value, few: Mapping[Value, Dim]) -> Store:
    """A store with the conditions under which its value is another than the element of the buffer at its index."""

    def is_kept(node: Node) -> bool:
        return isinstance(node, Load) and node.buffer is buffer and node.index == store.index

    node, guards = store.node, store.guards
    while True:
        if isinstance(node, Select):
            conditions = node.guards if is_kept(node.operands[1]) else None
            if conditions is None and is_kept(node.operands[0]):
                conditions = _negated(node.guards)
            changed = node.operands[0] if conditions is not None and is_kept(node.operands[1]) else node.operands[1]
        elif isinstance(node, Apply) and node.name == "select" and is_kept(node.operands[2]):
            conditions, changed = (_condition(node.operands[0], few),), node.operands[1]
        else:
            conditions = None
        if conditions is None:
            break
        node, guards = changed, (*guards, *conditions)
    return store if node is store.node else replace(store, operands=(node,), guards=guards)


def _negated(guards: Guards) -> Guards | None:
    """The condition that the guards do not hold, where it is one comparison."""
    if len(guards) != 1:
        return None
    (guard,) = guards
    if dims.less_equal(0, guard.index) is True:  # else one of two comparisons would do
        rest = guard.index - guard.extent
        return (Guard(rest, end_of(rest) + 1),)
    if dims.less(guard.index, guard.extent) is True:
        rest = -guard.index - 1
        return (Guard(rest, end_of(rest) + 1),)
    return None


def _condition(test: Node, few: Mapping[Value, Dim]) -> Guard:
    """A node of type bool as a guard: of a place that is compared with an index, the index less the place; so, too, of
    an index from a place on and before a later one. Of what is greater than 0, how often it is."""
    if isinstance(test, Apply) and test.name == "equal":
        first, second = map(_as_index, test.operands)
        if first is not None and second is not None:
            difference = first - second
            if single_axis(difference) is not None:
                return Guard(difference, 1)
    if isinstance(test, Apply) and test.name == "bitwise_and":
        window = _window(*test.operands)
        if window is not None:
            return window
    return Guard(Indirect(test, 0, 1).expr - 1, 1, _most_positive(test, few))


def _most_positive(test: Node, few: Mapping[Value, Dim]) -> Dim | None:
    """At how many points of an axis a test is true at most, where it is whether an element of `few`, of which there is
    one at each point, is greater than 0."""
    if not isinstance(test, Apply) or test.name != "less" or test.operands[0].as_index != 0:
        return None
    load = test.operands[1]
    if not isinstance(load, Load) or load.guards or single_axis(load.index) is None or len(variables(load.index)) != 1:
        return None
    return few.get(load.buffer)


def _window(first: Node, second: Node) -> Guard | None:
    """The guard that is `low <= index` and `index < low + extent`, of an extent that no run computes."""
    names = [each.name for each in (first, second) if isinstance(each, Apply)]
    if names != ["less_equal", "less"] or first.operands[1] is not second.operands[0]:
        return None
    low, index, end = map(_as_index, (*first.operands, second.operands[1]))
    if low is None or index is None or end is None or variables(end - low) or indirect_nodes(end - low):
        return None
    return Guard(index - low, end - low) if single_axis(index - low) is not None else None


def _as_index(node: Node) -> Dim | None:
    if node.as_index is not None:
        return node.as_index
    if isinstance(node, Apply) and node.name == "add" and node.dtype is I64:
        first, second = map(_as_index, node.operands)
        return None if first is None or second is None else first + second
    return Indirect(node, -ANY, ANY).expr if node.dtype.is_integer else None
