"""Rows of the reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from irc import dims
from irc.backends.onnx.edges import guards_nan, integer_bounds, is_nan, nan_where, scanned, subgraph
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.linear import LETTERS
from irc.backends.onnx.row import Row, emits
from irc.backends.onnx.target import Target
from irc.backends.onnx.zeros import begun_with_0
from irc.dims import Dim
from irc.dtypes import BOOL, I64, U8
from irc.ir import Operation, Value
from irc.types import TensorType

LARGEST_SUM = 1 << 53  # up to which all integers are f64

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


def from_front(x: Value, axes: Sequence[int]) -> list[int]:
    """The axes counted from the front: along one counted from the back ONNX Runtime reduces no empty tensor."""
    return [axis % x.rank for axis in axes] if x.type.is_ranked else list(axes)


def reduced(g: Graph, op_type: str, x: Value, axes: tuple[int, ...], keep_dims: bool) -> Operand:
    """Without axes nothing is reduced, where ONNX reduces all by default."""
    wide = g.carrier(op_type, x.dtype, wraps=op_type in ("ReduceSum", "ReduceProd"))
    places = g.numbers(from_front(x, axes)) if axes else None
    done = g.node(op_type, g.cast(x, x.dtype, wide), places, keepdims=keep_dims,
                  noop_with_empty_axes=None if axes else 1)  # fmt: skip
    if op_type in ("ReduceSum", "ReduceMean"):
        done = begun_with_0(g, done, wide, x)
    return g.cast(done, wide, x.dtype)


def primitive(name: str, op_type: str) -> Row:
    def emit(g: Graph, x: Value, *, axes: tuple[int, ...], keep_dims: bool) -> Operand:
        if not axes:
            return x
        if x.dtype.is_integer and g.target.keeps_edges and op_type in ("ReduceSum", "ReduceProd"):
            return exact(g, op_type, x, axes, keep_dims)
        result = reduced(g, op_type, x, axes, keep_dims)
        if op_type not in ("ReduceMax", "ReduceMin") or not guards_nan(g, x):
            return result
        any_nan = any_of(g, is_nan(g, x, x.dtype), x, axes, keep_dims)
        return nan_where(g, any_nan, result, x.dtype)

    return Row(name, emit, lambda operation, target: True)


def exact(g: Graph, op_type: str, x: Value, axes: tuple[int, ...], keep_dims: bool) -> Operand:
    """A sum or product of integers with exact low bits: ONNX Runtime computes both in f64, and saturates i32. A sum
    that may exceed 2^53 is an Einsum with ones; a product is a Scan along each axis."""
    wide = g.cast(x, x.dtype, I64)
    axes = tuple(sorted(axis % x.rank for axis in axes))
    count = dims.bounds(dims.product(x.shape[axis] for axis in axes))[1]
    largest = max(map(abs, integer_bounds(g, x)))
    if op_type == "ReduceSum" and (count == 0 or largest * count <= LARGEST_SUM):
        done = g.node("ReduceSum", wide, g.numbers(list(axes)), keepdims=keep_dims)
        return g.cast(done, I64, x.dtype)
    if op_type == "ReduceSum":
        ones = g.node("Expand", g.numbers(1), g.shape(tuple(x.shape[axis] for axis in axes)))
        whole, summed = LETTERS[: x.rank], "".join(LETTERS[axis] for axis in axes)
        rest = "".join(letter for letter in whole if letter not in summed)
        done = g.node("Einsum", wide, ones, equation=f"{whole},{summed}->{rest}")
    else:
        done, shape = wide, list(x.shape)
        for axis in reversed(axes):
            done = multiplied(g, done, axis, tuple(shape))
            del shape[axis]
    return g.cast(g.node("Unsqueeze", done, g.numbers(list(axes))) if keep_dims else done, I64, x.dtype)


def multiplied(g: Graph, x: Operand, axis: int, shape: tuple[Dim, ...]) -> Operand:
    """The product along one axis of x, which has this shape."""
    type_ = TensorType(I64, (*shape[:axis], *shape[axis + 1 :]))
    body = subgraph(g, "step", [type_] * 2, [type_], lambda inner, before, each: [inner.node("Mul", before, each)])
    start = g.node("Expand", g.numbers(1), g.shape(type_.dims))
    return scanned(g, start, x, shape, axis, body)


def named(name: str, op_type: str) -> Row:
    def emit(g: Graph, x: Value, *, axes: tuple[int, ...], keep_dims: bool) -> Operand:
        """ReduceLogSumExp ignores NaN if another element is infinite."""
        result = reduced(g, op_type, x, axes, keep_dims)
        if op_type != "ReduceLogSumExp" or not guards_nan(g, x):
            return result
        return nan_where(g, any_of(g, is_nan(g, x, x.dtype), x, axes, keep_dims), result, x.dtype)

    def takes(operation: Operation, target: Target) -> bool:
        """Integers of ONNX Runtime's ReduceL1 and the like pass through floats."""
        x, axes = operation.inputs[0], operation.attributes["axes"]
        if not axes or not x.dtype.is_float or not target.runs(op_type, x.dtype):
            return False
        return op_type != "ReduceMean" or not target.keeps_edges or not may_be_empty(x, axes)

    return Row(name, emit, takes)


def any_of(g: Graph, flags: Operand, x: Value, axes: tuple[int, ...], keep_dims: bool) -> str:
    """Whether one of some flags is true, which are of x's shape: false for an empty tensor, for which ReduceMax of bool
    fails."""
    as_numbers = may_be_empty(x, axes) or not g.target.runs("ReduceMax", BOOL)
    if not as_numbers:
        g.model.hold(BOOL)  # so that the opset is one that has ReduceMax of it
    held = g.node("Cast", flags, to=U8.onnx) if as_numbers else flags
    maximum: str = g.node("ReduceMax", held, g.numbers(from_front(x, axes)), keepdims=keep_dims)
    return g.node("Cast", maximum, to=BOOL.onnx) if as_numbers else maximum


def may_be_empty(x: Value, axes: Iterable[int]) -> bool:
    """Whether nothing may be reduced over, of which ONNX Runtime's mean is 0."""
    return not x.type.is_ranked or any(dims.less(0, x.shape[axis]) is not True for axis in axes)


ROWS = [
    *(primitive(name, op_type) for name, op_type in PRIMITIVES.items()),
    *(named(name, op_type) for name, op_type in NAMED.items()),
]


@emits("argmax")
def argmax(g: Graph, x: Value, *, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    return index_of_best(g, "ArgMax", x, axis, keep_dims, select_last)


@emits("argmin")
def argmin(g: Graph, x: Value, *, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    return index_of_best(g, "ArgMin", x, axis, keep_dims, select_last)


def index_of_best(g: Graph, op_type: str, x: Value, axis: int, keep_dims: bool, select_last: bool) -> Operand:
    """ArgMax or ArgMin; of i64, which they lack, the first of TopK, whose equals come in order too."""
    (axis,) = from_front(x, [axis])
    if x.dtype is I64 and not select_last:
        _, first = g.node("TopK", x, g.numbers([1]), outputs=2, axis=axis, largest=int(op_type == "ArgMax"))
        return first if keep_dims else g.node("Squeeze", first, g.numbers([axis]))
    wide = g.carrier(op_type, x.dtype, compares=x.dtype is not BOOL)
    options: dict[str, Any] = {"axis": axis, "keepdims": keep_dims, "select_last_index": select_last or None}
    place = g.node(op_type, g.cast(x, x.dtype, wide), **options)
    if not guards_nan(g, x):
        return place
    nan = is_nan(g, x, x.dtype)
    first = g.node("ArgMax", g.node("Cast", nan, to=U8.onnx), **options)
    return g.node("Where", any_of(g, nan, x, (axis,), keep_dims), first, place)
