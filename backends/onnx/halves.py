"""f16 results that ONNX Runtime does not round, or rounds for some of their uses only.

Around a node for which it has no kernel of f16 ONNX Runtime puts casts to f32 and back, and of two casts in a row it
removes both, also where the program has one of them. The next node then computes on what was not rounded, as in
`x.half().sin()` of an f32 x. Operators that move elements have kernels of f16, so one use of a result may have rounded
elements where another has not: `y == y.sort()[0]` was false, and `log(y.max() - y)` was NaN. Such a result is rounded
for all its uses by a Max of one operand, which has a kernel of f16.
"""

from __future__ import annotations

from collections import defaultdict

from onnx import NodeProto, helper

from irc.backends.onnx.graph import Graph, names_used
from irc.dtypes import F16

# Operators with kernels of f16 that move elements.
MOVES = frozenset({"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "If", "Loop",
                   "Reshape", "Scan", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Transpose",
                   "Unsqueeze"})  # fmt: skip
# Those and the others with such kernels: ONNX Runtime puts no casts around them.
KERNELS = MOVES | {"Attention", "BitCast", "Cast", "Clip", "ConstantOfShape", "DequantizeLinear", "IsInf", "IsNaN",
                   "LayerNormalization", "Max", "Min", "Mod", "QuantizeLinear", "RMSNormalization", "RotaryEmbedding",
                   "Round", "Shape", "Sign"}  # fmt: skip
# Operators whose results have elements of their operands.
SELECTS = MOVES | {"Clip", "DepthToSpace", "GlobalMaxPool", "Max", "MaxPool", "Min", "Pad", "ReduceMax", "ReduceMin",
                   "SpaceToDepth", "Tile", "TopK", "Trilu", "Where"}  # fmt: skip


def round_halves(g: Graph) -> None:
    """Round the f16 results that ONNX Runtime may leave in f32 for one of their uses. Linear in the nodes."""
    uses: dict[str, list[str]] = defaultdict(list)
    for node in g.nodes:
        for name in names_used(node):
            uses[name].append(node.op_type)
    nodes: list[NodeProto] = []
    for node in g.nodes:
        nodes.append(node)
        for index, name in enumerate(node.output):
            type_ = g.type_of(name)
            if type_ is not None and type_.dtype is F16 and _may_stay_wide(node.op_type, uses[name]):
                node.output[index] = g.model.unique(f"{name}/computed")
                nodes.append(helper.make_node("Max", [node.output[index]], [name], g.model.unique_node(name)))
    g.nodes[:] = nodes


def _may_stay_wide(op_type: str, users: list[str]) -> bool:
    """Whether ONNX Runtime may leave a result that these operators use in f32: of a Cast, for one without a kernel of
    f16; of another operator without one, where some use has elements of it and another is computed from it."""
    if op_type == "Cast":
        return not KERNELS.issuperset(users)
    return op_type not in KERNELS and len(users) > 1 and not SELECTS.isdisjoint(users) and not MOVES.issuperset(users)
