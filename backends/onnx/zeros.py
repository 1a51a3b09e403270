"""Signed zeros in Where and in sums: when their sign affects a result, and nodes that give the right one.

ONNX Runtime computes Where by adding its operands after it replaces the elements that are not selected by 0. So a -0
becomes 0. A Where of integers of the same bits preserves it, which requires BitCast, of opset 26: it is used only where
the sign of a zero affects a result. Start at `keeps_zeros`. Sums of ONNX Runtime begin with an element, so that those
of -0 alone are -0: `begun_with_0`.
"""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.schemas import first_opset
from irc.dtypes import F32, F64, I32, I64, DType
from irc.ir import Operation, Value

MOST_FOLLOWED = 256  # values to follow from a zero; beyond that its sign is assumed to affect a result
# Operations that irc defines to have the same result for 0 and -0. Sums begin with 0, as those of NumPy and PyTorch do:
# the sum of zeros of any sign is 0.
SIGN_IGNORED = frozenset(
    """abs exp cos cosh equal not_equal less less_equal greater greater_equal is_nan is_inf argmax argmin reduce_sum
    reduce_mean reduce_l1 reduce_l2 reduce_sum_square log_sum_exp square sigmoid softmax log_softmax softplus dot matmul
    gemm conv conv_transpose attention layer_norm rms_norm batch_norm group_norm instance_norm quantize
    average_pool global_average_pool window_reduce""".split()
)
# Operations in which the sign of a zero affects at most the sign of a zero of the result.
SIGN_PASSED = frozenset(
    """add sub mul neg minimum maximum select clip relu silu gelu reshape transpose expand slice concat split pad
    reverse gather gather_elements gather_nd refine sqrt floor ceil round trunc reduce_max reduce_min
    max_pool""".split()
)
NEVER_NEGATIVE = frozenset({"abs", "exp", "softmax", "sigmoid", "square", "iota"})  # no result is -0


def select_bits(g: Graph, condition: Operand, x: Operand, y: Operand, dtype: DType) -> Operand:
    """Emit a Where of operands of a float type that preserves their bits: x where the condition holds, else y."""
    wide, bits = (F64, I64) if dtype is F64 else (F32, I32)
    sides = [g.node("BitCast", g.cast(each, dtype, wide), to=bits.onnx) for each in (x, y)]
    return g.cast(g.node("BitCast", g.node("Where", condition, *sides), to=wide.onnx), wide, dtype)


def begun_with_0(g: Graph, total: Operand, dtype: DType, x: Value) -> Operand:
    """Emit a sum of elements of x, `total`, as one that begins with 0: as PyTorch's, it is not -0. ONNX Runtime's
    optimizations would remove an addition of 0. Where the sign affects no result, or ONNX defines it, nothing is added.
    """
    if not (dtype.is_float and g.target.keeps_edges and may_be_negative_zero(g, x) and affects_a_result(g.result)):
        return total
    zero = g.numbers(0.0, dtype)
    return g.node("Where", g.node("Equal", total, zero), zero, total)


def keeps_zeros(g: Graph, result: Value, *sides: Value) -> bool:
    """Whether a Where that selects from `sides` must preserve the sign of zeros (by `select_bits`).

    That is where the target requires irc's edge cases and its newest opset has BitCast, a side may hold -0, and the
    sign affects a result. Where BitCast is not available, the sign is lost.
    """
    has_bit_cast = first_opset("BitCast") <= g.target.newest_opset
    return g.target.keeps_edges and result.dtype.is_float and has_bit_cast and any(
        may_be_negative_zero(g, side) for side in sides) and affects_a_result(result)  # fmt: skip


def may_be_negative_zero(g: Graph, x: Value) -> bool:
    """Whether an element of a value may be -0."""
    constant, producer = g.known(x), x.operation
    if constant is not None:
        content = constant.array().astype(np.float64)
        return bool((np.signbit(content) & (content == 0)).any())
    if producer is None or producer.name in NEVER_NEGATIVE:
        return producer is None
    return producer.name != "cast" or producer.inputs[0].dtype.is_float


def affects_a_result(value: Value) -> bool:
    """Whether the sign of a zero in a value may affect a result of its function, or anything but the sign of zeros."""
    pending, reached = [value], {value}
    while pending:
        current = pending.pop()
        for user, index in current.uses:
            if user.name in SIGN_IGNORED or (user.name == "cast" and not user.attributes["to"].is_float):
                continue
            if not only_passes_sign(user, index) or len(reached) > MOST_FOLLOWED:
                return True
            new = [result for result in user.results if result not in reached]
            reached.update(new)
            pending += new
    return False


def only_passes_sign(user: Operation, index: int) -> bool:
    """Whether the sign of a zero in operand `index` affects at most the sign of a zero of the results."""
    return user.name in SIGN_PASSED or user.name == "cast" or (user.name == "div" and index == 0)
