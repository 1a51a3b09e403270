"""The row of powers."""

from __future__ import annotations

from collections.abc import Sequence

from irc.backends.onnx.edges import subgraph
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.pointwise import computed, number_of
from irc.backends.onnx.row import emits
from irc.dtypes import BOOL, I64
from irc.ir import Value
from irc.types import TensorType

MOST_BITS = 63  # of an exponent


@emits("pow")
def pow_(g: Graph, x: Value, y: Value) -> Operand:
    """ONNX Runtime's Pow computes integers in f64, which is inexact above 2^53: they are multiplied as i64 instead, so
    that the low bits are exact."""
    if not x.dtype.is_integer or not g.target.keeps_edges:
        return computed(g, "Pow", x, y)
    base, exponent = (g.cast(each, x.dtype, I64) for each in (x, y))
    number = number_of(g, y)
    whole = number is not None and number >= 0
    power = multiplied(g, base, int(number)) if whole and number is not None else squared(g, base, exponent)
    if not whole and x.dtype.is_signed:
        power = g.node("Where", g.node("Less", exponent, g.numbers(0)), inverse(g, base, exponent), power)
    return g.cast(power, I64, x.dtype)


def multiplied(g: Graph, base: Operand, exponent: int) -> Operand:
    """base ** exponent, of a number that is known: by its bits, the highest first."""
    if exponent == 0:
        return g.node("Add", g.node("Mul", base, g.numbers(0)), g.numbers(1))
    power = base
    for bit in f"{exponent:b}"[1:]:
        power = g.node("Mul", power, power)
        power = g.node("Mul", power, base) if bit == "1" else power
    return power


def squared(g: Graph, base: Operand, exponent: Operand) -> Operand:
    """base ** max(exponent, 0): a Loop over the bits of the exponent, the lowest first, until no element has more."""
    shape = g.shape(g.result.shape)
    positive = g.node("Where", g.node("Less", exponent, g.numbers(0)), g.numbers(0), exponent)
    wide, rest = g.node("Expand", base, shape), g.node("Expand", positive, shape)
    type_ = g.result.type.with_dtype(I64)
    flag = TensorType(BOOL, ())

    def body(inner: Graph, number: str, going: str, power: str, factor: str, left: str) -> Sequence[Operand]:
        odd = inner.node("Cast", inner.node("Mod", left, inner.numbers(2)), to=BOOL.onnx)
        power = inner.node("Where", odd, inner.node("Mul", power, factor), power)
        left = inner.node("Div", left, inner.numbers(2))
        more = inner.node("Cast", inner.node("ReduceMax", left, keepdims=0), to=BOOL.onnx)
        return [more, power, inner.node("Mul", factor, factor), left]

    graph = subgraph(g, "bit", [TensorType(I64, ()), flag, *[type_] * 3], [flag, *[type_] * 3], body)
    first = g.node("Expand", g.numbers(1), shape)
    power, *_ = g.node("Loop", g.numbers(MOST_BITS), None, first, wide, rest, outputs=3, body=graph)
    return power


def inverse(g: Graph, base: Operand, exponent: Operand) -> Operand:
    """What a negative exponent gives: 1 of 1, 1 or -1 of -1, and 0 of the rest."""
    one, other = (g.node("Equal", base, g.numbers(number)) for number in (1, -1))
    odd = g.node("Mod", exponent, g.numbers(2))
    sign = g.node("Sub", g.numbers(1), g.node("Mul", odd, g.numbers(2)))
    return g.node("Where", one, g.numbers(1), g.node("Where", other, sign, g.numbers(0)))
