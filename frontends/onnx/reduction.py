"""Rows of the reductions. Their axes are an attribute at first, then an input: ReduceSum's since opset 13, the others'
since 18."""

from __future__ import annotations

from irc import ops
from irc.dtypes import BOOL, U8
from irc.frontends.onnx.reading import integers
from irc.frontends.onnx.table import Ints, Row, reads
from irc.ir import Value

BY_INPUT_SINCE = {"ReduceSum": 13}
DEFINITIONS = {
    "ReduceSum": ops.reduce_sum, "ReduceProd": ops.reduce_prod,
    "ReduceMax": ops.reduce_max, "ReduceMin": ops.reduce_min,
    "ReduceMean": ops.reduce_mean, "ReduceL1": ops.reduce_l1, "ReduceL2": ops.reduce_l2,
    "ReduceSumSquare": ops.reduce_sum_square, "ReduceLogSum": ops.reduce_log_sum, "ReduceLogSumExp": ops.log_sum_exp,
}  # fmt: skip


def reduced(definition, x, axes, keepdims):
    every = tuple(range(x.rank)) if axes is None else axes
    if x.dtype is BOOL:  # reduce_max and reduce_min of bool are any and all
        return ops.cast(definition(ops.cast(x, to=U8), axes=every, keep_dims=bool(keepdims)), to=BOOL)
    return definition(x, axes=every, keep_dims=bool(keepdims))


def rows(op_type: str) -> list[Row]:
    definition = DEFINITIONS[op_type]

    def by_input(x: Value, axes: Value | None = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0):
        known = () if axes is None else integers(axes, "axes")
        if not known and noop_with_empty_axes:
            return reduced(definition, x, (), keepdims)
        return reduced(definition, x, known or None, keepdims)

    def by_attribute(x: Value, /, *, axes: Ints | None = None, keepdims: int = 1):
        return reduced(definition, x, axes, keepdims)

    return [reads(op_type, since=BY_INPUT_SINCE.get(op_type, 18))(by_input), reads(op_type)(by_attribute)]


ROWS = [row for op_type in DEFINITIONS for row in rows(op_type)]


@reads("ArgMax")
def argmax(x: Value, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0):
    return ops.argmax(x, axis=axis, keep_dims=bool(keepdims), select_last=bool(select_last_index))


@reads("ArgMin")
def argmin(x: Value, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0):
    return ops.argmin(x, axis=axis, keep_dims=bool(keepdims), select_last=bool(select_last_index))
