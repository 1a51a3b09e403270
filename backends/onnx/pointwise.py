"""Rows of the pointwise primitives."""

from __future__ import annotations

from typing import Any

from irc.backends.onnx.edges import integer_bounds
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.opsets import NeedsOpset
from irc.backends.onnx.row import Row, emits
from irc.backends.onnx.zeros import keeps_zeros, select_bits
from irc.diagnostics import UnsupportedError
from irc.dtypes import BOOL, F8E5M2, F16, F32, F64, I8, I32, I64, U8, U16, U32, U64, DType, limits
from irc.ir import Value

WRAPPING = {"add": "Add", "sub": "Sub", "mul": "Mul", "neg": "Neg"}  # of integers only the low bits count
BITS = {
    "bitwise_and": ("And", "BitwiseAnd"), "bitwise_or": ("Or", "BitwiseOr"), "bitwise_xor": ("Xor", "BitwiseXor"),
    "bitwise_not": ("Not", "BitwiseNot"),
}  # fmt: skip
ROUNDS_TO_INFINITY = 61440.0  # the least number for which e5m2 has none
COMPARISONS = {"less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual"}


def computed(g: Graph, op_type: str, *xs: Value, wraps: bool = False, **attributes: Any) -> Operand:
    """One operator on operands of one type, whose result has that type too, in a type that the runtime has."""
    dtype = xs[0].dtype
    wide = g.carrier(op_type, dtype, wraps=wraps)
    return g.cast(g.node(op_type, *(g.cast(x, dtype, wide) for x in xs), **attributes), wide, dtype)


def one_operator(name: str, op_type: str, wraps: bool = False) -> Row:
    return Row(name, lambda g, *xs: computed(g, op_type, *xs, wraps=wraps), lambda operation, target: True)


def bits(name: str, logical: str, bitwise: str) -> Row:
    def emit(g: Graph, *xs: Value) -> Operand:
        return g.node(logical, *xs) if xs[0].dtype is BOOL else computed(g, bitwise, *xs, wraps=True)

    return Row(name, emit, lambda operation, target: True)


def comparison(name: str, op_type: str) -> Row:
    return Row(name, lambda g, x, y: compared(g, op_type, x, y), lambda operation, target: True)


def compared(g: Graph, op_type: str, x: Value, y: Value) -> Operand:
    wide = g.carrier(op_type, x.dtype, compares=True)
    return g.node(op_type, g.cast(x, x.dtype, wide), g.cast(y, x.dtype, wide))


SAME: list[Row] = [
    *(one_operator(name, op_type, wraps=True) for name, op_type in WRAPPING.items()),
    *(bits(name, *op_types) for name, op_types in BITS.items()),
    *(comparison(name, op_type) for name, op_type in COMPARISONS.items()),
    comparison("equal", "Equal"),
]


@emits("minimum")
def minimum(g: Graph, x: Value, y: Value) -> Operand:
    if misorders(g, x, y):
        return g.node("Where", g.node("Less", x, y), x, y)
    return computed(g, "Min", *chained(g, "minimum", x, y))


@emits("maximum")
def maximum(g: Graph, x: Value, y: Value) -> Operand:
    if misorders(g, x, y):
        return g.node("Where", g.node("Less", x, y), y, x)
    return computed(g, "Max", *chained(g, "maximum", x, y))


def misorders(g: Graph, *xs: Value) -> bool:
    """Whether Min and Max may give the wrong one: ONNX Runtime 1.31, unlike 1.32, compares i64 right only in i32."""
    low, high = map(int, limits(I32))
    ranges = [integer_bounds(g, x) for x in xs if x.dtype is I64]
    return g.target.keeps_edges and any(least < low or most > high for least, most in ranges)


def chained(g: Graph, name: str, *xs: Value) -> list[Value]:
    """The operands of a chain of the same operation, which Min and Max take all at once."""
    leaves: list[Value] = []
    for x in xs:
        inner = x.operation
        together = inner is not None and inner.name == name and len(x.uses) == 1 and all(map(g.has, inner.inputs))
        leaves += chained(g, name, *inner.inputs) if inner is not None and together else [x]
    return leaves


@emits("sign")
def sign(g: Graph, x: Value) -> Operand:
    """ONNX Runtime 1.31, unlike 1.32, takes the sign of the low 32 bits of an i64."""
    if x.dtype is I64 and misorders(g, x):
        zero = g.numbers(0)
        above, below = (g.node("Cast", g.node(op_type, x, zero), to=I64.onnx) for op_type in ("Greater", "Less"))
        return g.node("Sub", above, below)
    return computed(g, "Sign", x)


@emits("not_equal")
def not_equal(g: Graph, x: Value, y: Value) -> Operand:
    return g.node("Not", compared(g, "Equal", x, y))


# -- rounding ----------------------------------------------------------------------------------------------------


@emits("trunc")
def trunc(g: Graph, x: Value) -> Operand:
    """Up for negative numbers, down for others: also right for infinities and NaN."""
    wide = g.carrier("Floor", x.dtype)
    whole = g.cast(x, x.dtype, wide)
    is_negative = g.node("Less", whole, g.numbers(0.0, wide))
    up, down = g.node("Ceil", whole), g.node("Floor", whole)
    if keeps_zeros(g, g.result, x):
        return g.cast(select_bits(g, is_negative, up, down, wide), wide, x.dtype)
    return g.cast(g.node("Where", is_negative, up, down), wide, x.dtype)


# -- shifts ------------------------------------------------------------------------------------------------------

UNSIGNED: dict[int, DType] = {8: U8, 16: U16, 32: U32, 64: U64}


@emits("shift_left")
def shift_left(g: Graph, x: Value, y: Value) -> Operand:
    return shifted(g, x, y, "LEFT")


@emits("shift_right")
def shift_right(g: Graph, x: Value, y: Value) -> Operand:
    return shifted(g, x, y, "RIGHT")


def shifted(g: Graph, x: Value, y: Value, direction: str) -> Operand:
    """BitShift is for unsigned integers, and leaves open what more bits than there are do.

    A negative number is shifted right as what it is when all bits are inverted, and inverted back.
    """
    dtype = x.dtype
    if dtype.sub_byte:
        raise UnsupportedError("integers narrower than a byte cannot be shifted")
    unsigned = UNSIGNED[dtype.bits]
    wide = unsigned if g.target.runs("BitShift", unsigned) else U32
    known = g.known(y)
    inside = known is not None and bool(((known.array() >= 0) & (known.array() < dtype.bits)).all())
    mask: Operand = None
    subject: Operand = x
    if dtype.is_signed and direction == "RIGHT":
        is_negative = compared_to_zero(g, x)
        mask = g.cast(g.node("Neg", g.node("Cast", is_negative, to=I32.onnx)), I32, dtype)  # all bits, or none
        subject = g.node("BitwiseXor", x, mask)
    # Through the unsigned type of the same width, so that no copies of the sign come in.
    subject = g.cast(g.cast(subject, dtype, unsigned), unsigned, wide)
    amount = g.cast(g.cast(y, dtype, unsigned), unsigned, wide)
    result: Operand = g.node("BitShift", subject, amount, direction=direction)
    if not inside:
        fits = g.node("Less", amount, g.numbers(dtype.bits, wide))
        keeps = g.node("Cast", fits, to=wide.onnx)
        result = g.node("Mul", result, keeps)
    result = g.cast(g.cast(result, wide, unsigned), unsigned, dtype)
    return result if mask is None else g.node("BitwiseXor", result, mask)


def compared_to_zero(g: Graph, x: Value) -> Operand:
    wide = g.carrier("Less", x.dtype)
    return g.node("Less", g.cast(x, x.dtype, wide), g.numbers(0, wide))


# -- tests, choice, conversion -----------------------------------------------------------------------------------


@emits("is_nan")
def is_nan(g: Graph, x: Value) -> Operand:
    return g.node("IsNaN", g.cast(x, x.dtype, g.carrier("IsNaN", x.dtype)))


@emits("is_inf")
def is_inf(g: Graph, x: Value, *, detect_positive: bool, detect_negative: bool) -> Operand:
    wide = g.cast(x, x.dtype, g.carrier("IsInf", x.dtype))
    return g.node("IsInf", wide, detect_positive=detect_positive, detect_negative=detect_negative)


@emits("select")
def select(g: Graph, condition: Value, x: Value, y: Value) -> Operand:
    if keeps_zeros(g, g.result, x, y):
        return select_bits(g, condition, x, y, x.dtype)
    wide = g.carrier("Where", x.dtype, wraps=True)
    return g.cast(g.node("Where", condition, g.cast(x, x.dtype, wide), g.cast(y, x.dtype, wide)), wide, x.dtype)


@emits("cast")
def cast(g: Graph, x: Value, *, to: DType, saturate: bool) -> Operand:
    if x.dtype is to:
        return x
    if x.dtype.is_complex or to.is_complex:
        raise UnsupportedError("ONNX casts no complex numbers")
    if x.dtype.is_float and to.is_integer and saturate and not is_inside(g, x, to):
        return saturated(g, x, to)
    if x.dtype.is_float and to.is_integer and to.sub_byte:
        # ONNX Runtime rounds where it should cut the fraction off, but not on its way to a byte.
        byte = I8 if to.is_signed else U8
        return g.cast(g.cast(x, x.dtype, byte), byte, to)
    if to.is_float and to.bits <= 8:
        if to is F8E5M2 and not saturate and g.target.keeps_edges:
            return to_e5m2(g, x)
        return g.cast(x, x.dtype, to, saturate=saturate)
    return g.cast(x, x.dtype, to)


def to_e5m2(g: Graph, x: Value) -> Operand:
    """What rounds to an infinity, ONNX Runtime makes NaN: it becomes one before."""
    wide = x.dtype if x.dtype in (F64, F32, F16) else F32
    number = g.cast(x, x.dtype, wide)
    beyond = g.node("GreaterOrEqual", g.node("Abs", number), g.numbers(ROUNDS_TO_INFINITY, wide))
    infinite = g.node("Mul", number, g.numbers(float("inf"), wide))
    return g.cast(g.node("Where", beyond, infinite, number), wide, F8E5M2, saturate=False)


def is_inside(g: Graph, x: Value, to: DType) -> bool:
    """Whether a float is known to be in an integer type's range: it has been limited by constants just before.

    NaN then becomes 0 in types of at most 16 bits, as it should, by the conversion of the processor.
    """
    lowest, highest = limits(to)
    low: float | None = None
    high: float | None = None
    current: Value | None = x
    while current is not None and current.operation is not None and current.operation.name in LIMITING:
        operation = current.operation
        numbers = [number_of(g, operand) for operand in operation.operands]
        if operation.name == "clip":
            low, high = (old if old is not None else new for old, new in zip((low, high), numbers[1:], strict=False))
            break
        number = next((each for each in numbers if each is not None), None)
        if operation.name == "minimum" and high is None:
            high = number
        elif operation.name == "maximum" and low is None:
            low = number
        current = next((operand for operand, each in zip(operation.inputs, numbers, strict=True) if each is None), None)
    return to.bits <= 16 and low is not None and high is not None and low >= lowest and high <= highest


LIMITING = ("minimum", "maximum", "clip")


def number_of(g: Graph, operand: Value | None) -> float | None:
    """A constant of one element as a number."""
    known = g.known(operand)
    return None if known is None or known.size != 1 else float(known.array().item())


def saturated(g: Graph, x: Value, to: DType) -> Operand:
    """Cast of ONNX leaves open what a number out of range becomes; here the nearest end, and 0 for NaN."""
    wide = F64
    number: Operand = g.cast(x, x.dtype, wide)
    number = g.node("Where", g.node("IsNaN", number), g.numbers(0.0, wide), number)
    low, high = limits(to)
    if to.bits <= 32:
        number = g.node("Min", g.node("Max", number, g.numbers(float(low), wide)), g.numbers(float(high), wide))
        byte = I8 if to.is_signed else U8
        return g.cast(g.cast(number, wide, byte), byte, to) if to.sub_byte else g.cast(number, wide, to)
    # 2^63 is a float, but 2^63 - 1 is none: the ends are chosen after the cast.
    above = g.node("GreaterOrEqual", number, g.numbers(float(high + 1), wide))
    below = g.node("Less", number, g.numbers(float(low), wide))
    whole: Operand = g.node(
        "Cast", g.node("Where", g.node("Or", above, below), g.numbers(0.0, wide), number), to=to.onnx
    )
    middle = g.carrier("Where", to, wraps=True)
    whole = g.cast(whole, to, middle)
    for where, end in ((above, high), (below, low)):
        whole = g.node("Where", where, g.cast(g.numbers(end, to), to, middle), whole)
    return g.cast(whole, middle, to)


@emits("bitcast")
def bitcast(g: Graph, x: Value, *, to: DType) -> Operand:
    if x.dtype is to:
        return x
    if x.dtype.is_integer and to.is_integer:
        return g.cast(x, x.dtype, to)  # of the same width, so all bits stay
    if not (g.target.runs("BitCast", x.dtype) and g.target.runs("BitCast", to)):
        needed = g.target.newer_opset("BitCast", x.dtype, to)
        if needed is not None:
            raise NeedsOpset(f"BitCast from {x.dtype} to {to} needs opset {needed}")
        raise UnsupportedError(f"ONNX Runtime's CPU provider has no BitCast from {x.dtype} to {to}")
    return g.node("BitCast", x, to=to.onnx)
