"""Products of floats of 8 bits: in which type they are multiplied.

f16 and bf16 hold each number of 8 bits, and f32 each product of two of them. So a product of f32 whose operands are
stored in 8 bits is that of bf16, which matrix instructions multiply. Instructions for 8 bits take half as long, but not
all devices have them, and some add up in fewer bits than f32 has: those of sm_90 (DeepSeek-V3, arXiv 2412.19437,
section 3.3.2) and of sm_89 (SageAttention2, arXiv 2411.10958) keep 13 bits of the fraction. There kernels add up one
block of what is summed at a time so, and the blocks in f32. What is lost is of the order of what a result loses that is
rounded to 16 bits; where a result is not, bytes are multiplied as bf16. Start at `with_products_of_8_bits`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from irc.dtypes import BF16, F32, FLOATS8, DType
from irc.kernel.carry import is_number
from irc.kernel.dag import Apply, Dot, Graph, Load, Node, Root, Select, Store, products_of, walk

# What keeps the error of a product relative to its terms, until it is rounded.
LINEAR = frozenset({"add", "sub", "mul", "div", "neg", "cast", "maximum", "minimum", "select"})

Users = Mapping[Node, Sequence[Node]]


def stored_in_8_bits(node: Node) -> DType | None:
    """The type of the elements of a buffer that a node is, if that is a float of 8 bits; also where it is 0 outside."""
    if isinstance(node, Select) and is_number(node.operands[1], 0.0):
        node = node.operands[0]
    return node.buffer.dtype if isinstance(node, Load) and node.buffer.dtype in FLOATS8 else None


def with_products_of_8_bits(roots: Sequence[Root]) -> tuple[Root, ...]:
    """The roots with products of floats that are stored in 8 bits in the type in which they are multiplied."""
    products = [node for node in products_of(roots) if all(map(stored_in_8_bits, node.operands))]
    if not products:
        return tuple(roots)
    nodes = walk(roots)
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for operand in node.below:
            users.setdefault(operand, []).append(node)
    multiplied = [node for node in products if is_multiplied_as_stored(node, users)]
    while (kept := [node for node in multiplied if are_read_alone(node, multiplied, users)]) != multiplied:
        multiplied = kept
    graph, new = Graph(), dict[Node, Node]()
    for node in nodes:
        changes: dict[str, Any] = {"operands": tuple(new.get(operand, operand) for operand in node.operands)}
        if node in products:
            assert isinstance(node, Dot)
            wide = BF16 if node.fed is F32 else node.fed
            changes["fed"] = stored_in_8_bits(node.operands[0]) if node in multiplied else wide
        new[node] = graph.changed(node, **changes)
    return tuple(new[root] for root in roots)  # type: ignore[misc]


def is_multiplied_as_stored(product: Dot, users: Users) -> bool:
    """Whether a product is one of instructions for 8 bits: of elements of one type as they are loaded, and rounded to
    16 bits, as its own type says or what reads it."""
    first, second = product.operands
    if not (isinstance(first, Load) and isinstance(second, Load) and first.buffer.dtype is second.buffer.dtype):
        return False
    varies = all(not load.axes.isdisjoint(product.bound) for load in (first, second))
    return varies and (product.fed is not F32 or is_rounded(product, users))


def is_rounded(product: Node, users: Users) -> bool:
    """Whether all that is computed of a node is rounded to 16 bits, with an error relative to the terms of the sum."""
    waiting, seen = [product], {product}
    while waiting:
        node = waiting.pop()
        for user in users.get(node, ()):
            if isinstance(user, Store):
                if user.buffer.dtype.bits > 16:
                    return False
            elif isinstance(user, Apply) and user.rounds_to is not None and user.rounds_to.bits <= 16:
                continue
            elif not (isinstance(user, Select) or (isinstance(user, Apply) and user.name in LINEAR)):
                return False
            elif user not in seen:
                seen.add(user)
                waiting.append(user)
    return True


def are_read_alone(product: Dot, products: Collection[Node], users: Users) -> bool:
    """Whether these products alone read what a product multiplies."""
    return all(user in products for operand in product.operands for user in users[operand])
