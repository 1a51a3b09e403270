"""Rows of the operators that work element by element."""

from __future__ import annotations

from irc import ops
from irc.diagnostics import fail
from irc.dtypes import BOOL, F8E8M0, F32, F64, from_onnx, limits, single
from irc.frontends.onnx.reading import carry, elements, wants
from irc.frontends.onnx.table import Row, reads
from irc.ir import Value
from irc.op import literal

# -- operators that are operations of irc, operand for operand and attribute for attribute ------------------------

SAME: list[Row] = [
    reads(definition.pointwise.onnx)(definition)
    for definition in ops.TABLE.values()
    if definition.pointwise is not None and definition.pointwise.onnx is not None
]
SAME += [
    reads(op_type)(definition)
    for op_type, definition in (
        ("Not", ops.bitwise_not), ("And", ops.bitwise_and), ("Or", ops.bitwise_or), ("Xor", ops.bitwise_xor),
    )
]  # fmt: skip
SAME += [
    reads(op_type, since=since)(definition)
    for op_type, since, definition in (
        ("LessOrEqual", 12, ops.less_equal), ("GreaterOrEqual", 12, ops.greater_equal),
        ("BitwiseNot", 18, ops.bitwise_not), ("BitwiseAnd", 18, ops.bitwise_and),
        ("BitwiseOr", 18, ops.bitwise_or), ("BitwiseXor", 18, ops.bitwise_xor),
    )
]  # fmt: skip

# -- arithmetic -----------------------------------------------------------------------------------------------------


@reads("Div")
def divide(a: Value, b: Value, /):
    return ops.div(a, b, rounding="trunc")


@reads("Mod", since=28)
def modulo_of_any(a: Value, b: Value, /, *, fmod: int = 0):
    return ops.mod(a, b, rounding="trunc" if fmod else "floor")


@reads("Mod")
def modulo(a: Value, b: Value, /, *, fmod: int = 0):
    if a.dtype.is_float and not fmod:
        raise fail("onnx.invalid", f"Mod of {a.dtype} needs fmod = 1")
    return ops.mod(a, b, rounding="trunc" if fmod else "floor")


@reads("Pow")
def power(base: Value, exponent: Value, /):
    """The result has the base's type, whatever the exponent's."""
    if base.dtype is exponent.dtype:
        return ops.pow_(base, exponent)
    if base.dtype.is_integer and exponent.dtype.is_float:
        return ops.cast(ops.pow_(ops.cast(base, to=exponent.dtype), exponent), to=base.dtype, saturate=False)
    return ops.pow_(base, ops.cast(exponent, to=base.dtype))


@reads("BitShift")
def shift(x: Value, amount: Value, /, *, direction: str):
    if direction not in ("LEFT", "RIGHT"):
        raise fail("onnx.invalid", f"BitShift: direction is {direction!r}", expected="LEFT or RIGHT")
    return ops.shift_left(x, amount) if direction == "LEFT" else ops.shift_right(x, amount)


def chained(definition, xs):
    """Fold the operands from the left."""
    result, *others = xs
    for x in others:
        result = definition(result, x)
    return result


@reads("Max")
def maximum(first: Value, /, *others: Value):
    return chained(ops.maximum, (first, *others))


@reads("Min")
def minimum(first: Value, /, *others: Value):
    return chained(ops.minimum, (first, *others))


@reads("Sum")
def total(first: Value, /, *others: Value):
    return chained(ops.add, (first, *others))


@reads("Mean")
def mean(first: Value, /, *others: Value):
    return ops.div(chained(ops.add, (first, *others)), len(others) + 1) if others else first


# -- activations ----------------------------------------------------------------------------------------------------


@reads("Clip", since=11)
def clip(x: Value, low: Value | None = None, high: Value | None = None, /):
    """An absent bound is the smallest or the largest finite number, which shows for infinities."""
    if x.dtype.is_float:
        smallest, largest = limits(x.dtype)
        low = literal(smallest, x.dtype) if low is None else low
        high = literal(largest, x.dtype) if high is None else high
    return x if low is None and high is None else ops.clip(x, low, high)


@reads("Clip")
def clip_by_attribute(x: Value, /, *, min: float = limits(F32).smallest, max: float = limits(F32).largest):
    ends = limits(x.dtype)
    bounds = (literal(bound, x.dtype) if ends.smallest <= bound <= ends.largest else None for bound in (min, max))
    low, high = bounds
    return x if low is None and high is None else ops.clip(x, low, high)


@reads("HardSwish")
def hard_swish(x: Value, /):
    """x * HardSigmoid<alpha = 1/6>(x), whose alpha is an f32."""
    return ops.mul(x, ops.hard_sigmoid(x, alpha=single(1 / 6), beta=0.5)) if x.dtype is F64 else ops.hard_swish(x)


@reads("Gelu", since=20)
def gelu(x: Value, /, *, approximate: str = "none"):
    return ops.gelu(x, approximate=approximate)


@reads("Swish", since=24)
def swish(x: Value, /, *, alpha: float = 1.0):
    return ops.silu(x) if alpha == 1 else ops.quick_gelu(x, alpha=alpha)


@reads("Shrink")
def shrink(x: Value, /, *, bias: float = 0.0, lambd: float = 0.5):
    if not x.dtype.is_float:
        carry("irc shrinks floats only")
    inside = ops.select(ops.greater(x, lambd), ops.sub(x, bias), 0)
    return ops.select(ops.less(x, -lambd), ops.add(x, bias), inside)


# -- questions, and changes of type ---------------------------------------------------------------------------------


@reads("IsInf")
def is_infinite(x: Value, /, *, detect_negative: int = 1, detect_positive: int = 1):
    return ops.is_inf(x, detect_negative=bool(detect_negative), detect_positive=bool(detect_positive))


@reads("Cast")
def cast(x: Value, /, *, to: int, saturate: int = 1, round_mode: str = "up"):
    return convert(x, from_onnx(to), saturate, round_mode)


@reads("CastLike", since=15)
def cast_like(x: Value, like: Value, /, *, saturate: int = 1, round_mode: str = "up"):
    return convert(x, like.dtype, saturate, round_mode)


def convert(x, dtype, saturate, round_mode):
    if dtype is F8E8M0 and round_mode != "nearest":
        carry(f"irc rounds to the nearest f8e8m0, not {round_mode}")
    if "string" in (x.dtype.kind, dtype.kind):
        carry("irc does not convert strings")
    # ONNX's `saturate` is about floats of 8 bits; what an integer cannot hold is left open, so ONNX Runtime decides.
    return ops.cast(x, to=dtype, saturate=bool(saturate) and not (x.dtype.is_float and dtype.is_integer))


@reads("BitCast", since=26)
def bitcast(x: Value, /, *, to: int):
    return ops.bitcast(x, to=from_onnx(to))


@reads("Identity")
def identity(x: Value, /):
    """Nothing is built: the value that is forwarded keeps its name."""
    return x


@reads("Dropout", since=12)
def dropout(x: Value, ratio: Value | None = None, training_mode: Value | None = None, /, *, seed: int = 0):
    if training_mode is not None and elements(training_mode) != [False]:
        carry("dropout in training is random")
    return dropped(x)


@reads("Dropout")
def dropout_by_attribute(x: Value, /, *, ratio: float = 0.5):
    return dropped(x)


def dropped(x):
    """In inference nothing is dropped, and the mask, where it is requested, is true."""
    return (x, ops.expand(literal(True, BOOL), shape=x.shape)) if wants(1) else (x,)
