"""Rows of pooling."""

from __future__ import annotations

from typing import Any

from irc import dims
from irc.backends.onnx import edges
from irc.backends.onnx.edges import guards_nan
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.linear import ones, padding
from irc.backends.onnx.reduction import may_be_empty
from irc.backends.onnx.row import Row, both, emits, on, same
from irc.backends.onnx.target import Target
from irc.dims import Dim
from irc.ir import Operation, Value


def has_elements(operation: Operation, target: Target) -> bool:
    """What ONNX Runtime's pooling accepts: nothing but the batch is empty. A model from ONNX is not asked whether a dim
    that is not known may be 0."""
    (x,) = operation.inputs
    if target.keeps_edges:
        return not may_be_empty(x, range(1, x.rank))
    return not x.type.is_ranked or all(dims.equal(extent, 0) is not True for extent in x.shape[1:])


SAME: list[Row] = [
    same("global_average_pool", "GlobalAveragePool", when=has_elements),
    same("global_max_pool", "GlobalMaxPool", when=lambda operation, target: not target.keeps_edges),
]


def has_plain_windows(operation: Operation, target: Target) -> bool:
    """What ONNX Runtime accepts: up to three spatial axes, and less padding than the window has elements."""
    kernel = operation.attributes["kernel"]
    amounts = zip(operation.attributes["low"], operation.attributes["high"], kernel, strict=True)
    return len(kernel) <= 3 and all(
        not isinstance(amount, int) or amount < window for low, high, window in amounts for amount in (low, high)
    )


def has_known_padding(operation: Operation, target: Target) -> bool:
    """Elements of padding do not count for the mean, and so cannot be put into x before."""
    return all(isinstance(amount, int) for amount in (*operation.attributes["low"], *operation.attributes["high"]))


def pooled(g: Graph, op_type: str, x: Value, options: dict[str, Any], **attributes: Any) -> Operand:
    return g.node(op_type, x, kernel_shape=list(options["kernel"]), strides=ones(options["strides"]),
                  dilations=ones(options["dilations"]), **attributes)  # fmt: skip


@emits("max_pool", when=both(on("MaxPool"), has_plain_windows, has_known_padding))
def max_pool(g: Graph, x: Value, *, low: tuple[Dim, ...], high: tuple[Dim, ...], **options: Any) -> Operand:
    _, pads = padding(g, x, options["kernel"], options["strides"], options["dilations"], low, high)
    if guards_nan(g, x):
        windows = {"strides": ones(options["strides"]), "dilations": ones(options["dilations"]), **pads}
        return edges.max_pool(g, x, g.result.type, x, kernel_shape=list(options["kernel"]), **windows)
    return pooled(g, "MaxPool", x, options, **pads)


@emits("average_pool", when=both(on("AveragePool"), has_plain_windows, has_known_padding))
def average_pool(
    g: Graph, x: Value, *, low: tuple[Dim, ...], high: tuple[Dim, ...], count_include_pad: bool, **options: Any
) -> Operand:
    _, pads = padding(g, x, options["kernel"], options["strides"], options["dilations"], low, high)
    return pooled(g, "AveragePool", x, options, count_include_pad=count_include_pad or None, **pads)
