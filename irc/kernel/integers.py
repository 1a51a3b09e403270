"""Products of small integers: matrix instructions multiply signed bytes and add them up in 32 bits.

What quantized programs multiply is a byte less its zero point, in 32 bits. Where the zero points are constant along the
summed axes, the bytes are multiplied as they are, and

    sum (a + p) * (b + q) = sum a * b + p * sum b + q * sum a + K * p * q

so that each zero point costs the sum of the other operand, which the loop of the product reads anyway. 32-bit sums wrap
around, so that the two sides are equal, whatever the order. Start at `ByteOperand.of`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from irc.dims import Variable
from irc.dtypes import I8, I32, U8
from irc.kernel.dag import Apply, Constant, Dot, Graph, Node, Reduce

SIGN = 128  # of a byte: an unsigned one less this is a signed one, with another highest bit


class ByteOperand(NamedTuple):
    """An operand of 32 bits as a byte, i8, plus terms of 32 bits that are constant along what is summed: each is added,
    or with -1 subtracted."""

    byte: Node
    terms: tuple[tuple[int, Node], ...] = ()

    @staticmethod
    def of(node: Node, bound: frozenset[Variable], graph: Graph) -> ByteOperand | None:
        """A node of 32 bits as a byte plus terms; None where it is no such sum."""
        terms = list[tuple[int, Node]]()
        while isinstance(node, Apply) and node.name in ("add", "sub") and node.dtype is I32:
            constant = [each.axes.isdisjoint(bound) for each in node.operands]
            if constant == [False, True]:
                terms.append((1 if node.name == "add" else -1, node.operands[1]))
                node = node.operands[0]
            elif node.name == "add" and constant == [True, False]:
                terms.append((1, node.operands[0]))
                node = node.operands[1]
            else:
                return None
        if not isinstance(node, Apply) or node.name != "cast" or node.dtype is not I32:
            return None
        (byte,) = node.operands
        if byte.dtype is U8:
            flipped = graph(Apply(U8, (byte, number(SIGN, U8, graph)), name="bitwise_xor"))
            byte = graph(Apply(I8, (flipped,), hint=byte.hint, name="bitcast", attributes=(("to", I8),)))
            terms.append((1, number(SIGN, I32, graph)))
        return ByteOperand(byte, tuple(terms)) if byte.dtype is I8 else None

    def term(self, apply: Callable[..., Node]) -> Node | None:
        """The terms as one."""
        total: Node | None = None
        for sign, node in self.terms:
            if total is None:
                total = node if sign > 0 else apply("neg", I32, node)
            else:
                total = apply("add" if sign > 0 else "sub", I32, total, node)
        return total


def number(value: int, dtype: object, graph: Graph) -> Node:
    """A constant."""
    return graph(Constant(dtype, value=np.asarray(value).astype(dtype.numpy)[()]))  # type: ignore[attr-defined, arg-type]


def product_of_bytes(left: ByteOperand, right: ByteOperand, bound: tuple[Variable, ...], length: Node,
                     names: tuple[str, str], graph: Graph,
                     apply: Callable[..., Node]) -> tuple[Dot, Node]:  # fmt: skip
    """The product of the bytes, and with it the sum of products of the operands; `length` is how many are summed."""
    hint, name = names
    dot = graph(Dot(I32, (left.byte, right.byte), hint=hint, result=name, fed=I8, bound=bound))
    assert isinstance(dot, Dot)
    result: Node = dot
    first, second = left.term(apply), right.term(apply)
    for term, other in ((first, right), (second, left)):
        if term is not None:
            wide = apply("cast", I32, other.byte, attributes={"to": I32, "saturate": True})
            sums = graph(Reduce(I32, (wide,), kind="sum", bound=bound, hint=f"{hint}_sum", result=name))
            result = apply("add", I32, result, apply("mul", I32, term, sums))
    if first is not None and second is not None:
        result = apply("add", I32, result, apply("mul", I32, length, apply("mul", I32, first, second)))
    return dot, result
