"""Products by a constant beside a MatMul, which ONNX Runtime's MatMulScaleFusion makes the `alpha` of a FusedMatMul.

`alpha` is an f32 number, which a constant of f64 may not be, and must be finite: ONNX Runtime rejects inf, and
(x * inf) @ w is not inf * (x @ w). A constant that would not be kept is applied between two Neg, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import frexp, isfinite, prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from irc.backends.onnx.graph import KERNEL_DOMAIN, Graph

# What ONNX Runtime fuses with a MatMul, or moves past what it fuses.
THROUGH = frozenset({"Mul", "Div", "Transpose", "Cast"})
EXPONENTS = 40  # powers of two within these, and products of a few, are exact in f32


def keep_scales(g: Graph) -> None:
    """Enclose each constant factor beside a MatMul that `alpha` would not keep in two Neg. Linear in the nodes."""
    if not (g.is_function or any(map(_is_product, g.nodes))):
        return
    results = _beside((node.input, node.output, node) for node in g.nodes)
    operands = _beside((node.output, node.input, node) for node in reversed(g.nodes))
    stored = {node: initializer for initializer, node in g.root.constants.items()}
    nodes: list[NodeProto] = []
    for node in g.nodes:
        nodes.append(node)
        position = _lost_factor(g, node, stored)
        if position is None:
            continue
        source, result = node.input[1 - position], node.output[0]
        if g.is_function or result in operands or source in results:
            node.input[1 - position], node.output[0] = (g.model.unique(f"{result}/Neg") for _ in range(2))
            nodes[-1:] = [_neg(g, source, node.input[1 - position]), node, _neg(g, node.output[0], result)]
    g.nodes[:] = nodes


def _is_product(node: NodeProto) -> bool:
    """A MatMul, or a local function, which may have one at its ends: ONNX Runtime inlines it."""
    return node.op_type == "MatMul" or node.domain == KERNEL_DOMAIN


def _neg(g: Graph, source: str, result: str) -> NodeProto:
    return helper.make_node("Neg", [source], [result], g.model.unique_node(f"{result}/Neg"))


def _beside(nodes: Iterable[tuple[Iterable[str], Iterable[str], NodeProto]]) -> set[str]:
    """The tensors before or after a MatMul, with nothing between them but nodes that are fused or moved. `nodes` are
    (inputs, outputs, node) in order, for the results of products, or (outputs, inputs, node) in reverse order, for the
    operands."""
    reached: set[str] = set()
    for near, far, node in nodes:
        if _is_product(node) or (node.op_type in THROUGH and not reached.isdisjoint(near)):
            reached.update(far)
    return reached


def _lost_factor(g: Graph, node: NodeProto, stored: Mapping[str, str]) -> int | None:
    """Which input of a Mul or Div is a constant of one element that `alpha` would not keep. `stored` has the
    initializers of a function's nodes."""
    for position in {"Mul": (0, 1), "Div": (1,)}.get(node.op_type, ()):
        name = node.input[position]
        tensor = g.model.initializers.get(stored.get(name, name))
        if tensor is None or prod(tensor.dims) != 1 or tensor.data_location == TensorProto.EXTERNAL:
            continue
        factor = numpy_helper.to_array(tensor)
        if factor.dtype.kind == "f" and not _is_kept(factor):
            return position
    return None


def _is_kept(factor: Any) -> bool:
    """Whether a factor, or its reciprocal, is exact as `alpha`; of narrower types than f64, whether it is a number."""
    number = float(factor.reshape(()))
    if factor.dtype != np.float64:
        with np.errstate(all="ignore"):
            return isfinite(number) and number != 0 and bool(np.isfinite(1 / np.float32(number)))
    mantissa, exponent = frexp(number) if isfinite(number) else (0.0, 0)
    return abs(mantissa) == 0.5 and abs(exponent) <= EXPONENTS
