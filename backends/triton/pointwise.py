"""The Triton text of pointwise primitives: one writer for each, by name. Start at `write`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irc import dims, dtypes
from irc.backends.triton.helpers import helper_sources
from irc.backends.triton.text import (
    AND,
    COMPARE,
    OR,
    PRODUCT,
    SHIFT,
    SUM,
    UNARY,
    XOR,
    Code,
    binary,
    call,
    method,
    number,
    type_name,
)
from irc.dtypes import BOOL, F32, F64, I32, I64, U32, DType
from irc.kernel.dag import Apply, Constant, Node, walk

Helper = Callable[[str], str]  # records that a kernel uses a function of templates/functions.py; returns its name
Writer = Callable[[Apply, Sequence[Code], Helper], Code]

INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT),
    "bitwise_and": ("&", AND), "bitwise_or": ("|", OR), "bitwise_xor": ("^", XOR),
    "equal": ("==", COMPARE), "not_equal": ("!=", COMPARE), "less": ("<", COMPARE), "less_equal": ("<=", COMPARE),
    "greater": (">", COMPARE), "greater_equal": (">=", COMPARE),
}  # fmt: skip
LANGUAGE = frozenset({"sqrt", "exp", "log", "sin", "cos", "erf"})  # functions of tl, for f32 and f64


def is_helper(name: str) -> bool:
    """Whether templates/functions.py has a function of that name, for f32, so that no writer is needed."""
    return name in helper_sources() and name not in WRITERS


def writable(name: str, dtype: DType) -> bool:
    """Whether kernels can compute the pointwise primitive `name` on operands of `dtype`."""
    if is_helper(name):
        return dtype is not F64
    if name == "pow":
        return dtype.is_float and dtype is not F64
    return name in INFIX or name in LANGUAGE or name in WRITERS


def write(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    """The text of a pointwise node."""
    if node.name in INFIX:
        operator, level = INFIX[node.name]
        return binary(operator, level, operands[0], operands[1])
    if node.name in LANGUAGE:
        return call(f"tl.{node.name}", *operands)
    if is_helper(node.name):
        return call(helper(node.name), *operands)
    return WRITERS[node.name](node, operands, helper)


def _div(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    if node.dtype.is_float:
        return binary("/", PRODUCT, operands[0], operands[1])
    signed = node.dtype.is_signed
    floor = node.attribute("rounding") == "floor" and signed
    return call(helper("divide_integers"), *typed(node, operands), str(floor), str(signed))


def _mod(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    floor = node.attribute("rounding") == "floor" and node.dtype.is_signed
    if node.dtype.is_float:
        return call(helper("floor_mod"), *operands) if floor else binary("%", PRODUCT, operands[0], operands[1])
    return call(helper("integer_mod"), *typed(node, operands), str(floor), str(node.dtype.is_signed))


def typed(node: Apply, operands: Sequence[Code]) -> Sequence[Code]:
    """The operands, with literals as typed tensors. Functions, tl.maximum and tl.where take a literal that fits 32 bits
    for i32, and would return i32 for narrower integers."""
    return operands if node.dtype in (F32, I32) else list(map(filled, node.operands, operands))


def _pow(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    base, exponent = node.operands[0], node.operands[1]
    if isinstance(exponent, Constant):
        value = float(exponent.value)
        if value == 0.5:
            return call(helper("power_half"), operands[0])
        if value in (2.0, 3.0) and operands[0].text.isidentifier():
            product = binary("*", PRODUCT, operands[0], operands[0])
            return product if value == 2.0 else binary("*", PRODUCT, product, operands[0])
        if value == -1.0:
            return binary("/", PRODUCT, Code("1.0"), operands[0])
    return call(helper("power"), filled(base, operands[0]), filled(exponent, operands[1]))


def filled(node: Node, code: Code) -> Code:
    """A literal as a tensor, where a function needs one."""
    if not isinstance(node, Constant) or code.text.startswith("tl.full("):
        return code
    return call("tl.full", "()", code, type_name(node.dtype))


def choose(condition: Code | str, nodes: Sequence[Node], operands: Sequence[Code]) -> Code:
    """The first operand where the condition holds, else the second. For two literals Triton would choose a type of 32
    bits, whatever the type of the node is."""
    first, second = operands
    if all(isinstance(node, Constant) for node in nodes) and nodes[0].dtype not in (F32, I32, BOOL):
        first = filled(nodes[0], first)
    return call("tl.where", condition, first, second)


def _extremum(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    keep_nan = ("propagate_nan=tl.PropagateNan.ALL",) if node.dtype.is_float else ()
    return call(f"tl.{node.name}", *typed(node, operands), *keep_nan)


def _neg(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    """Triton's unary minus is 0 - x, 0 for 0 instead of -0; LLVM turns a product with -1 into a negation."""
    if node.dtype.is_float:
        return binary("*", PRODUCT, operands[0], Code("-1.0", UNARY))
    return Code(f"-{operands[0].at(UNARY)}", UNARY)


def _abs(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    return operands[0] if not node.dtype.is_signed else call("tl.abs", operands[0])


def _sign(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    x = operands[0].at(SUM)
    if node.dtype.is_float:
        return Code(f"tl.where({x} > 0, 1.0, tl.where({x} < 0, -1.0, {x} + 0.0))")  # -0 gives 0, NaN gives NaN
    target = type_name(node.dtype)
    return Code(f"({x} > 0).to({target}) - ({x} < 0).to({target})", SUM)


def _unless_integer(function: str, language: bool) -> Writer:
    def writer(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
        if not node.dtype.is_float:
            return operands[0]
        return call(f"tl.{function}" if language else helper(function), *operands)

    return writer


def _tan(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    return binary("/", PRODUCT, call("tl.sin", operands[0]), call("tl.cos", operands[0]))


def _not(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    if node.dtype.is_integer and not node.dtype.is_signed:  # ~ needs the constant -1, which they do not have
        return binary("^", XOR, operands[0], Code(str(dtypes.limits(node.dtype).largest)))
    return Code(f"~{operands[0].at(UNARY)}", UNARY)


def _shift(operator: str) -> Writer:
    def writer(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
        x, by = typed(node, operands)
        bits = node.dtype.bits
        index = node.operands[1].as_index
        if index is not None and dims.less_equal(0, index) is True and dims.less(index, bits) is True:
            return binary(operator, SHIFT, x, by)
        emptied: Code = Code("0")
        if operator == ">>" and node.dtype.is_signed:
            emptied = binary(">>", SHIFT, x, Code(str(bits - 1)))
        inside = f"({by.at(SUM)} >= 0) & ({by.at(SUM)} < {bits})" if node.dtype.is_signed else f"{by.at(SUM)} < {bits}"
        held = call("tl.where", inside, by, "0")
        return call("tl.where", inside, binary(operator, SHIFT, x, held), emptied)

    return writer


def _is_nan(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    return binary("!=", COMPARE, operands[0], operands[0])


def _is_inf(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    infinity, negative = Code('float("inf")'), Code('float("-inf")')
    if node.attribute("detect_positive") and node.attribute("detect_negative"):
        return binary("==", COMPARE, call("tl.abs", operands[0]), infinity)
    if node.attribute("detect_positive") or node.attribute("detect_negative"):
        return binary("==", COMPARE, operands[0], infinity if node.attribute("detect_positive") else negative)
    return Code(f"{operands[0].at(SUM)} < {negative.text}", COMPARE)


def _select(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    return choose(operands[0], node.operands[1:], operands[1:])


def _cast(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    source, to = node.operands[0].dtype, node.dtype
    if to is BOOL:
        return binary("!=", COMPARE, operands[0], Code("0"))
    target = type_name(to)
    first = type_name(node.rounds_to) if node.rounds_to is not None else target
    # A number of Python has no `to`.
    if not node.axes and all(isinstance(below, (Constant, Apply)) for below in walk(node.operands)):
        rounded = call("tl.cast", operands[0], first)
    else:
        rounded = method(operands[0], "to", first)
    if node.rounds_to is not None:
        return method(rounded, "to", target)
    if not source.is_float or to.is_float:
        return rounded
    if not node.attribute("saturate"):
        wide = I64 if to.bits == 64 or to is U32 else I32
        return call(helper("to_low_bits"), operands[0], target, type_name(wide), repr(2.0 ** (wide.bits - 1)))
    low, high = dtypes.limits(to)
    return call(helper("to_integer"), operands[0], target, str(int(low)), str(int(high)))


def _bitcast(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    return method(operands[0], "to", type_name(node.dtype), "bitcast=True")


def _philox(node: Apply, operands: Sequence[Code], helper: Helper) -> Code:
    attributes = (str(node.attribute(name)) for name in ("stream", "word"))
    return call(helper("philox_word"), *typed(node, operands), *attributes)


WRITERS: dict[str, Writer] = {
    "div": _div, "mod": _mod, "pow": _pow, "minimum": _extremum, "maximum": _extremum, "neg": _neg, "abs": _abs,
    "sign": _sign, "floor": _unless_integer("floor", True), "ceil": _unless_integer("ceil", True),
    "round": _unless_integer("round_half_even", False), "trunc": _unless_integer("truncate", False), "tan": _tan,
    "bitwise_not": _not, "shift_left": _shift("<<"), "shift_right": _shift(">>"), "is_nan": _is_nan,
    "is_inf": _is_inf, "select": _select, "cast": _cast, "bitcast": _bitcast, "philox": _philox,
}  # fmt: skip

__all__ = ["number", "writable", "write"]
