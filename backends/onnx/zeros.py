"""The sign of a zero: where it can be seen, and a Where that keeps it.

ONNX Runtime's Where adds two products with 0, and so makes 0 of a -0. Chosen as integers of the same bits it stays, by
BitCast of opset 26, which is required only where the sign affects a result.
"""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.schemas import first_opset
from irc.dtypes import F32, F64, I32, I64, DType
from irc.ir import Operation, Value

FARTHEST = 256  # values that are followed before the sign counts as seen
# Operations that give the same for both zeros. A sum with another term does; a sum of zeros alone does not.
BLIND = frozenset(
    """abs exp cos cosh equal not_equal less less_equal greater greater_equal is_nan is_inf argmax argmin reduce_sum
    reduce_mean reduce_l1 reduce_l2 reduce_sum_square log_sum_exp square sigmoid softmax log_softmax softplus dot matmul
    gemm conv conv_transpose attention layer_norm rms_norm batch_norm group_norm instance_norm quantize
    average_pool global_average_pool window_reduce""".split()
)
# What gives a zero of the same sign, or none.
PASSING = frozenset(
    """add sub mul neg minimum maximum select clip relu silu gelu reshape transpose expand slice concat split pad
    reverse gather gather_elements gather_nd refine sqrt floor ceil round trunc reduce_max reduce_min
    max_pool""".split()
)
NEVER_NEGATIVE = frozenset({"abs", "exp", "softmax", "sigmoid", "square", "iota"})


def chosen(g: Graph, condition: Operand, x: Operand, y: Operand, dtype: DType) -> Operand:
    """x where the condition holds, else y, to the bit."""
    wide, bits = (F64, I64) if dtype is F64 else (F32, I32)
    sides = [g.node("BitCast", g.cast(each, dtype, wide), to=bits.onnx) for each in (x, y)]
    return g.cast(g.node("BitCast", g.node("Where", condition, *sides), to=wide.onnx), wide, dtype)


def keeps_zeros(g: Graph, result: Value, *sides: Value) -> bool:
    """Whether the sign of a zero among the sides must be kept in the result."""
    able = first_opset("BitCast") <= g.target.newest_opset
    return g.target.keeps_edges and result.dtype.is_float and able and any(
        may_be_negative(g, side) for side in sides) and is_seen(result)  # fmt: skip


def may_be_negative(g: Graph, x: Value) -> bool:
    """Whether a value may hold -0."""
    known, maker = g.known(x), x.operation
    if known is not None:
        content = known.array().astype(np.float64)
        return bool((np.signbit(content) & (content == 0)).any())
    if maker is None or maker.name in NEVER_NEGATIVE:
        return maker is None
    return maker.name != "cast" or maker.inputs[0].dtype.is_float


def is_seen(value: Value) -> bool:
    """Whether the sign of a zero in a value reaches a result of its function, or decides something."""
    waiting, met = [value], {value}
    while waiting:
        current = waiting.pop()
        for user, index in current.uses:
            if user.name in BLIND or (user.name == "cast" and not user.attributes["to"].is_float):
                continue
            if not passes(user, index) or len(met) > FARTHEST:
                return True
            new = [result for result in user.results if result not in met]
            met.update(new)
            waiting += new
    return False


def passes(user: Operation, index: int) -> bool:
    """Whether a zero among operand `index` makes only zeros of its sign."""
    return user.name in PASSING or user.name == "cast" or (user.name == "div" and index == 0)
