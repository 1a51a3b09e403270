"""Edge cases that irc defines and ONNX Runtime's kernels compute otherwise: NaN in a maximum, sums over empty axes,
and integer divisions at which the processor traps.

Rows emit these nodes where `g.target.keeps_edges`; for a model that came from ONNX they emit the operator alone.
docs/numerics.md lists the differences with what each costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from irc import dims
from irc.backends.onnx.graph import Graph, Operand, value_info
from irc.dims import Dim
from irc.dtypes import BOOL, F64, U8, DType, limits
from irc.index_map import inverse
from irc.ir import Value
from irc.types import TensorType

NAN = float("nan")
TO_THE_END = np.iinfo(np.int64).max  # of a Slice
BEYOND_F32 = 1e300  # greater than every number of f32, less than inf


# -- NaN -----------------------------------------------------------------------------------------------------------


def guards_nan(g: Graph, *xs: Value) -> bool:
    """Whether the module defines that NaN is propagated, and one of the values may hold NaN."""
    return g.target.keeps_edges and any(may_be_nan(g, x) for x in xs)


def may_be_nan(g: Graph, x: Value) -> bool:
    """Whether a value may hold NaN. Integers, constants without NaN and casts of integers do not."""
    if not x.dtype.is_float:
        return False
    known = g.known(x)
    if known is not None:
        return bool(np.isnan(known.array().astype(np.float64)).any())
    maker = x.operation
    return maker is None or maker.name != "cast" or maker.inputs[0].dtype.is_float


def is_nan(g: Graph, x: Operand, dtype: DType) -> str:
    """IsNaN of a tensor of `dtype`, as bool."""
    name: str = g.node("IsNaN", g.cast(x, dtype, g.carrier("IsNaN", dtype)))
    return name


def nan_where(g: Graph, condition: Operand, x: Operand, dtype: DType) -> Operand:
    """NaN where the condition holds, else x, of `dtype`."""
    wide = g.carrier("Where", dtype)
    return g.cast(g.node("Where", condition, g.numbers(NAN, wide), g.cast(x, dtype, wide)), wide, dtype)


def sort_keys(g: Graph, x: Operand, dtype: DType) -> str:
    """f64 with the same order as the numbers of a narrower float, and with NaN above inf."""
    nan = is_nan(g, x, dtype)
    capped = g.node("Min", g.cast(x, dtype, F64), g.numbers(BEYOND_F32, F64))
    name: str = g.node("Where", nan, g.numbers(float("inf"), F64), capped)
    return name


# -- empty tensors -------------------------------------------------------------------------------------------------


def unless_empty(g: Graph, count: Dim, build: Callable[[Graph], Operand], wide: DType | None = None,
                 always: bool = False) -> Operand:  # fmt: skip
    """The result of `build` for the current operation, in the type `wide` if it is given, or zeros where `count`, the
    extent that it sums over, is 0: there ONNX Runtime's Attention fails. Where its operator does not write the result,
    as MatMulInteger, or ends the process, as Einsum, `build` is guarded `always`: also where the module does not define
    edge cases."""
    type_ = g.result.type if wide is None else g.result.type.with_dtype(wide)

    def zeros(inner: Graph) -> Operand:
        carrier = inner.carrier("Expand", type_.dtype)
        nothing = inner.node("Expand", inner.numbers(0, carrier), inner.shape(type_.dims))
        return inner.cast(nothing, carrier, type_.dtype)

    is_empty = dims.equal(count, 0)
    if is_empty is True and type_.is_ranked:
        return zeros(g)
    if is_empty is False or not ((g.target.keeps_edges or always) and type_.is_ranked):
        return build(g)
    question = g.node("Equal", g.extent(count), g.numbers(0))
    name: str = g.node("If", question, then_branch=branch(g, "empty", type_, zeros),
                       else_branch=branch(g, "summed", type_, build))  # fmt: skip
    return name


def scanned(g: Graph, start: Operand, x: Operand, shape: Sequence[Dim], axis: int, body: onnx.GraphProto,
            reverse: bool = False) -> Operand:  # fmt: skip
    """A Scan of x, of this shape, along one axis: the last state or, for a body with two outputs, the scanned outputs.
    ONNX Runtime's Scan divides by 0 when it moves the axis of an empty tensor, and fails without slices: the axis is
    moved before and after it, and if there may be no slices, the start is appended as one more slice."""
    order = [axis, *(other for other in range(len(shape)) if other != axis)]
    if axis:
        x = g.node("Transpose", x, perm=order)
    extends = dims.less(0, shape[axis]) is not True
    if extends:
        more = g.node("Unsqueeze", start, g.numbers([0]))
        x = g.node("Concat", *((more, x) if reverse else (x, more)), axis=0)
    count, direction = len(body.output), [1] if reverse else None
    results = g.node("Scan", start, x, outputs=count, body=body, num_scan_inputs=1, scan_input_directions=direction,
                     scan_output_directions=direction if count > 1 else None)  # fmt: skip
    if count == 1:
        return results
    done = results[1]
    if extends:
        ends = (1, TO_THE_END) if reverse else (0, -1)
        done = g.node("Slice", done, *(g.numbers([end]) for end in ends), g.numbers([0]))
    return g.node("Transpose", done, perm=inverse(order)) if axis else done


# -- integers ------------------------------------------------------------------------------------------------------


def integer_bounds(g: Graph, x: Value) -> tuple[int, int]:
    """The range of an integer value: that of a constant, of dims, of a narrower type before a cast, or of its type."""
    low, high = map(int, limits(x.dtype))
    known, maker = g.known(x), x.operation
    if known is not None:
        content = known.array()
        return (int(content.min()), int(content.max())) if content.size else (low, low)
    if maker is not None and maker.name == "cast" and not maker.inputs[0].dtype.is_float:
        source = maker.inputs[0].dtype
        least, most = (0, 1) if source is BOOL else map(int, limits(source))
        return (least, most) if low <= least and most <= high else (low, high)
    if maker is not None and maker.name == "dim":
        value = maker.attributes["value"]
        ranges = [dims.bounds(each) for each in (value if isinstance(value, tuple) else (value,))]
        return min(least for least, _ in ranges), max(most for _, most in ranges)
    return low, high


# -- windows -------------------------------------------------------------------------------------------------------


def max_pool(g: Graph, x: Operand, type_: TensorType, finite: Operand, **attributes: Any) -> Operand:
    """MaxPool with a result of this type and of x's dtype. ONNX Runtime's ignores NaN, and gives the least number where
    a window has only -inf. Both are corrected only if the sum of `finite`, of the same elements, is not finite."""
    total = g.node("ReduceSum", finite, keepdims=0)
    strange = is_nan(g, g.node("Sub", total, total), type_.dtype)

    def careful(inner: Graph) -> Operand:
        kinds = (inner.numbers(number, U8) for number in range(3))  # -inf alone, numbers, NaN
        nothing, _, nan = kinds
        above = inner.node("Greater", x, inner.numbers(-np.inf, type_.dtype))
        codes = inner.node("Where", is_nan(inner, x, type_.dtype), nan, inner.node("Cast", above, to=U8.onnx))
        best = inner.node("MaxPool", codes, **attributes)
        plain = inner.node("MaxPool", x, **attributes)
        lowest = inner.node("Where", inner.node("Equal", best, nothing), inner.numbers(-np.inf, type_.dtype), plain)
        return nan_where(inner, inner.node("Equal", best, nan), lowest, type_.dtype)

    branches = {"then_branch": branch(g, "careful", type_, careful),
                "else_branch": branch(g, "plain", type_, lambda inner: inner.node("MaxPool", x, **attributes))}
    name: str = g.node("If", strange, **branches)
    return name


def branch(g: Graph, name: str, type_: TensorType, build: Callable[[Graph], Operand]) -> onnx.GraphProto:
    """A branch of an If with one output of this type."""
    return subgraph(g, name, [], [type_], lambda inner: [build(inner)])


def subgraph(g: Graph, name: str, inputs: Sequence[TensorType], outputs: Sequence[TensorType],
             build: Callable[..., Sequence[Operand]]) -> onnx.GraphProto:  # fmt: skip
    """The graph of an If or Loop. `build` takes the graph and the names of its inputs, and returns its outputs. Each
    must be the result of a node of that graph."""
    inner = Graph(g.model, g, prefix=g.prefix)
    inner.operation = g.operation
    hint = f"{g.hint}/{name}"
    names = [g.model.unique(f"{hint}/in") for _ in inputs]
    results = list(map(inner.name, build(inner, *names)))
    taken, given = zip(names, inputs, strict=True), zip(results, outputs, strict=True)
    return helper.make_graph(inner.nodes, hint, [value_info(*each) for each in taken],
                             [value_info(*each) for each in given])  # fmt: skip
