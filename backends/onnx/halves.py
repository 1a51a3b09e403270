"""f16 results that ONNX Runtime does not round, or rounds for some of their uses only.

Around a node for which it has no kernel of f16 ONNX Runtime puts casts to f32 and back, and of two casts in a row it
removes both, also where the program has one of them. The next node then computes on what was not rounded, as in
`x.half().sin()` of an f32 x. Operators that move elements have kernels of f16, but run in f32 between operators that
have none. So one use of a result may have rounded elements where another has not: `y == y.sort()[0]` was false, and
`log(y.max() - y)` was NaN. Such a result is rounded for all its uses by a Max of one operand, which has such a kernel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from onnx import NodeProto, helper

from irc.backends.onnx.graph import Graph, names_used
from irc.dtypes import F16

# Operators with kernels of f16 that move elements.
MOVES = frozenset({"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
                   "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})  # fmt: skip
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
# Those and the others with such kernels: ONNX Runtime puts no casts around them.
KERNELS = MOVES | CONTROL_FLOW | {"Attention", "BitCast", "Cast", "Clip", "ConstantOfShape", "DequantizeLinear",
                                  "IsInf", "IsNaN", "LayerNormalization", "Max", "Min", "Mod", "QuantizeLinear",
                                  "RMSNormalization", "RotaryEmbedding", "Round", "Shape", "Sign"}  # fmt: skip
# Operators whose results have elements of their operands, or may.
SELECTS = MOVES | CONTROL_FLOW | {"Clip", "DepthToSpace", "GlobalMaxPool", "Max", "MaxPool", "Min", "Pad", "ReduceMax",
                                  "ReduceMin", "SpaceToDepth", "Tile", "TopK", "Trilu", "Where"}  # fmt: skip
# Operators that add products up, or divide by a sum: whether operands are rounded is within the error of the result.
SUMS = frozenset({"Attention", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GroupNormalization",
                  "InstanceNormalization", "LayerNormalization", "LogSoftmax", "MatMul", "RMSNormalization",
                  "Softmax"})  # fmt: skip


class Uses(NamedTuple):
    """What reads a tensor, also where it is moved before: the types of these operators and of those that move it, and
    how many reads there are, at most 2, without those of `SUMS`."""

    op_types: frozenset[str] = frozenset()
    reads: int = 0


def round_halves(g: Graph) -> None:
    """Round the f16 results that ONNX Runtime may leave in f32 for one of their uses. Linear in the nodes."""
    uses = uses_of(g.nodes)
    nodes: list[NodeProto] = []
    for node in g.nodes:
        nodes.append(node)
        for index, name in enumerate(node.output):
            type_ = g.type_of(name)
            if type_ is not None and type_.dtype is F16 and _may_stay_wide(node.op_type, uses[name]):
                node.output[index] = g.model.unique(f"{name}/computed")
                nodes.append(helper.make_node("Max", [node.output[index]], [name], g.model.unique_node(name)))
    g.nodes[:] = nodes


def uses_of(nodes: list[NodeProto]) -> dict[str, Uses]:
    """The uses of each tensor of a graph."""
    uses: dict[str, Uses] = defaultdict(Uses)
    for node in reversed(nodes):
        moved = _together(uses[name] for name in node.output) if node.op_type in MOVES else Uses()
        is_read = node.op_type not in SUMS and not moved.op_types
        use = Uses(moved.op_types | {node.op_type}, moved.reads + is_read)
        for name in names_used(node):
            uses[name] = _together((uses[name], use))
    return uses


def _together(uses: Iterable[Uses]) -> Uses:
    every = list(uses)
    return Uses(frozenset().union(*(each.op_types for each in every)), min(sum(each.reads for each in every), 2))


def _may_stay_wide(op_type: str, uses: Uses) -> bool:
    """Whether ONNX Runtime may leave a result in f32 for a use: of a Cast, for an operator without a kernel of f16; of
    another operator without one, where some use has elements of it and another is computed from it."""
    if op_type == "Cast":
        return not KERNELS.issuperset(uses.op_types)
    return (op_type not in KERNELS and uses.reads > 1 and not SELECTS.isdisjoint(uses.op_types)
            and not MOVES.issuperset(uses.op_types))  # fmt: skip
