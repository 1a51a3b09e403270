"""Rows of the reductions."""

from __future__ import annotations

from irc.backends.onnx.graph import Graph
from irc.backends.onnx.row import Operand, Row, emits
from irc.backends.onnx.runtime import runs
from irc.dtypes import BOOL, I64
from irc.ir import Value

PRIMITIVES = {
    "reduce_sum": "ReduceSum",
    "reduce_prod": "ReduceProd",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
}
NAMED = {
    "reduce_mean": "ReduceMean", "reduce_l1": "ReduceL1", "reduce_l2": "ReduceL2", "reduce_log_sum": "ReduceLogSum",
    "log_sum_exp": "ReduceLogSumExp", "reduce_sum_square": "ReduceSumSquare",
}  # fmt: skip


def reduced(g: Graph, op_type: str, x: Value, axes: tuple[int, ...], keep_dims: bool) -> Operand:
    """Without axes nothing is reduced, where ONNX would reduce all unless told not to."""
    wide = g.carrier(op_type, x.dtype, wraps=op_type in ("ReduceSum", "ReduceProd"))
    noop = None if axes else 1
    done = g.node(op_type, g.cast(x, x.dtype, wide), g.numbers(list(axes)) if axes else None, keepdims=keep_dims,
                  noop_with_empty_axes=noop)  # fmt: skip
    return g.cast(done, wide, x.dtype)


def primitive(name: str, op_type: str) -> Row:
    def emit(g: Graph, x: Value, *, axes: tuple[int, ...], keep_dims: bool) -> Operand:
        return x if not axes else reduced(g, op_type, x, axes, keep_dims)

    return Row(name, emit, lambda operation, target: True)


def named(name: str, op_type: str) -> Row:
    def emit(g: Graph, x: Value, *, axes: tuple[int, ...], keep_dims: bool) -> Operand:
        return reduced(g, op_type, x, axes, keep_dims)

    # Integers of ONNX Runtime's ReduceL1 and the like pass through floats.
    return Row(name, emit, lambda operation, target: bool(operation.attributes["axes"])
               and operation.inputs[0].dtype.is_float and runs(op_type, operation.inputs[0].dtype))  # fmt: skip


ROWS = [
    *(primitive(name, op_type) for name, op_type in PRIMITIVES.items()),
    *(named(name, op_type) for name, op_type in NAMED.items()),
]


@emits("argmax")
def argmax(g: Graph, x: Value, *, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    return found(g, "ArgMax", x, axis, keep_dims, select_last)


@emits("argmin")
def argmin(g: Graph, x: Value, *, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    return found(g, "ArgMin", x, axis, keep_dims, select_last)


def found(g: Graph, op_type: str, x: Value, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    """ArgMax or ArgMin; of i64, which they lack, the first of TopK, whose equals come in order too."""
    if x.dtype is I64 and not select_last:
        _, first = g.node("TopK", x, g.numbers([1]), outputs=2, axis=axis, largest=int(op_type == "ArgMax"))
        return first if keep_dims else g.node("Squeeze", first, g.numbers([axis]))
    wide = g.carrier(op_type, x.dtype, compares=x.dtype is not BOOL)
    return g.node(
        op_type, g.cast(x, x.dtype, wide), axis=axis, keepdims=keep_dims, select_last_index=select_last or None
    )
