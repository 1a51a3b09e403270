"""Rows of division. The processor stops a process that divides an integer by 0, or the least one by -1: no divisor that
reaches ONNX Runtime's Div or Mod is 0 or -1, whichever frontend the model came from."""

from __future__ import annotations

from irc import dims
from irc.backends.onnx.edges import integer_bounds
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.pointwise import compared, computed
from irc.backends.onnx.row import emits
from irc.dtypes import I64, U8, limits
from irc.ir import Value


@emits("div")
def div(g: Graph, x: Value, y: Value, *, rounding: str, by_zero: str | None) -> Operand:
    """Div truncates integers. Rounded down, the quotient is one less where that leaves a remainder of another sign."""
    if x.dtype.is_float or x.dtype.is_complex:
        return computed(g, "Div", x, y)
    divisor = Divisor(g, x, y, by_zero)
    wide, dividend = divisor.dtype, g.cast(x, x.dtype, divisor.dtype)
    quotient = g.node("Div", dividend, divisor.safe)
    if rounding == "floor" and wide.is_signed:
        down, rest = g.node("Mod", dividend, divisor.safe), divisor.remainder(dividend, quotient)
        excess = g.node("Cast", g.node("Not", g.node("Equal", down, rest)), to=wide.onnx)
        quotient = g.node("Sub", quotient, excess)
    if divisor.is_minus_one:
        quotient = divisor.chosen(divisor.is_minus_one, g.node("Neg", dividend), quotient)
    if divisor.is_zero and by_zero is None and g.target.keeps_edges:
        quotient = divisor.chosen(divisor.is_zero, g.numbers(0, wide), quotient)
    return g.cast(quotient, wide, x.dtype)


@emits("mod")
def mod(g: Graph, x: Value, y: Value, *, rounding: str, by_zero: str | None) -> Operand:
    """Mod of ONNX rounds down for integers and, with fmod, towards zero for all."""
    if not x.dtype.is_float:
        return integer_mod(g, x, y, rounding, by_zero)
    if rounding == "trunc":
        return computed(g, "Mod", x, y, fmod=1)
    wide = g.carrier("Mod", x.dtype)
    y_wide = g.cast(y, x.dtype, wide)
    rest = g.node("Mod", g.cast(x, x.dtype, wide), y_wide, fmod=1)
    zero = g.numbers(0.0, wide)
    other_sign = g.node("Xor", g.node("Less", rest, zero), g.node("Less", y_wide, zero))
    lifts = g.node("And", other_sign, g.node("Not", g.node("Equal", rest, zero)))
    return g.cast(g.node("Where", lifts, g.node("Add", rest, y_wide), rest), wide, x.dtype)


def integer_mod(g: Graph, x: Value, y: Value, rounding: str, by_zero: str | None) -> Operand:
    """With fmod, Mod computes in f64: it never stops the process, but is inexact for integers above 2^53."""
    truncates = rounding == "trunc" and x.dtype.is_signed
    if truncates and not g.target.keeps_edges:
        return computed(g, "Mod", x, y, fmod=1)
    divisor = Divisor(g, x, y, by_zero)  # x mod 1 is 0, as is x mod -1
    wide, dividend = divisor.dtype, g.cast(x, x.dtype, divisor.dtype)
    if truncates and wide.bits == 64:
        rest = divisor.remainder(dividend, g.node("Div", dividend, divisor.safe))
    else:
        rest = g.node("Mod", dividend, divisor.safe, fmod=int(truncates))
    return g.cast(rest, wide, x.dtype)


class Divisor:
    """An integer divisor: `safe` is 1 where it is 0 or -1, unless it is known to be neither. `is_zero` and
    `is_minus_one` say where, None where it cannot be."""

    def __init__(self, g: Graph, x: Value, y: Value, by_zero: str | None) -> None:
        self.g = g
        self.dtype = g.carrier("Div", x.dtype)
        self.safe: Operand = g.cast(y, y.dtype, self.dtype)
        self.is_zero = self._equal(0) if may_be(g, y, 0) else None
        # Narrower integers are divided in 32 bits, in which the quotient of the least one by -1 is an integer.
        overflows = may_be(g, y, -1) and x.dtype.bits >= 32 and may_be(g, x, int(limits(x.dtype).smallest))
        self.is_minus_one = self._equal(-1) if overflows else None
        unsafe = [each for each in (self.is_zero, self.is_minus_one) if each is not None]
        if unsafe:
            where = unsafe[0] if len(unsafe) == 1 else g.node("Or", *unsafe)
            fails = self.is_zero is not None and by_zero == "error"
            self.safe = self.chosen(where, self._one_or_failure(x) if fails else g.numbers(1, self.dtype), self.safe)

    def _equal(self, number: int) -> str:
        name: str = self.g.node("Equal", self.safe, self.g.numbers(number, self.dtype))
        return name

    def remainder(self, dividend: Operand, quotient: Operand) -> Operand:
        """What division towards zero leaves."""
        return self.g.node("Sub", dividend, self.g.node("Mul", quotient, self.safe))

    def _one_or_failure(self, x: Value) -> str:
        """1, unless something is divided by 0: then a Gather has no such element, and ONNX Runtime stops."""
        g, where = self.g, self.is_zero
        if dims.less(0, x.type.elements) is not True:
            where = g.node("And", where, compared(g, "Equal", x, x))
        any_zero = g.node("ReduceMax", g.node("Cast", where, to=U8.onnx), keepdims=0)
        name: str = g.node("Gather", g.numbers([1], self.dtype), g.node("Cast", any_zero, to=I64.onnx))
        return name

    def chosen(self, where: Operand, x: Operand, y: Operand) -> Operand:
        wide = self.g.carrier("Where", self.dtype, wraps=True)
        sides = (self.g.cast(each, self.dtype, wide) for each in (x, y))
        return self.g.cast(self.g.node("Where", where, *sides), wide, self.dtype)


def may_be(g: Graph, x: Value, number: int) -> bool:
    """Whether an integer is not known to be another than this."""
    known = g.known(x)
    if known is not None:
        return bool((known.array() == number).any())
    low, high = integer_bounds(g, x)
    return low <= number <= high
