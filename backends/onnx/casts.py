"""Casts between a transpose and a product, at which ONNX Runtime 1.31 crashes while it optimizes.

Its MatmulTransposeFusion takes a transpose that moves the batch of matrices into them into a FusedMatMul, through a
Cast, and ends the process where the other operand is a constant. Products of f16 get such casts from ONNX Runtime
itself. Here a cast stands before the transpose, which is exact, and such products of f16 are computed in f32, as ONNX
Runtime does.
"""

from __future__ import annotations

from onnx import NodeProto, TensorProto, helper

from irc.backends.onnx.graph import Graph
from irc.dtypes import F16

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def cast_before_transposes(g: Graph) -> None:
    """Exchange the casts and transposes before each MatMul, which may leave transposes without uses. Linear in the
    nodes."""
    makers = {output: node for node in g.nodes for output in node.output}
    casts, halves = dict[str, NodeProto](), list[NodeProto]()
    for node in g.nodes:
        for name in node.input if node.op_type == "MatMul" else ():
            maker = makers.get(name)
            if maker is not None and maker.op_type == "Cast" and _target(maker) in FLOATS:
                if _is_moved_inwards(makers.get(maker.input[0])):
                    casts[name] = maker
            elif _is_moved_inwards(maker) and _is_f16(g, node) and node not in halves[-1:]:
                halves.append(node)
    if not casts and not halves:
        return
    wide = {id(node) for node in halves}
    nodes: list[NodeProto] = []
    for node in g.nodes:
        if node.op_type == "Cast" and node.output[0] in casts:
            nodes += _exchanged(g, makers[node.input[0]], _target(node), node.output[0])
        elif id(node) in wide:
            nodes += _in_f32(g, node, makers)
        else:
            nodes.append(node)
    g.nodes[:] = nodes


def _target(cast: NodeProto) -> int:
    return next(attribute.i for attribute in cast.attribute if attribute.name == "to")


def permutation(transpose: NodeProto) -> tuple[int, ...]:
    return next((tuple(attribute.ints) for attribute in transpose.attribute if attribute.name == "perm"), ())


def moves_batch_inwards(order: tuple[int, ...]) -> bool:
    """Whether a transpose moves the first axis to one of the last two, and no other."""
    rank = len(order)
    return rank > 2 and order in ((*range(1, rank - 1), 0, rank - 1), (*range(1, rank), 0))


def swaps_matrices(order: tuple[int, ...]) -> bool:
    """Whether a transpose exchanges the last two axes, and no others."""
    rank = len(order)
    return order == (*range(rank - 2), rank - 1, rank - 2)


def _is_moved_inwards(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "Transpose" and moves_batch_inwards(permutation(node))


def _is_f16(g: Graph, node: NodeProto) -> bool:
    """Whether a product is known to be of f16, by any of its tensors."""
    for name in (*node.input, *node.output):
        tensor, type_ = g.model.initializers.get(name), g.type_of(name)
        if tensor is not None:
            return tensor.data_type == TensorProto.FLOAT16
        if type_ is not None:
            return type_.dtype is F16
    return False


def _exchanged(g: Graph, transpose: NodeProto, to: int, result: str) -> list[NodeProto]:
    """A cast of what is transposed, and a transpose of that."""
    name = g.model.unique(f"{result}/Cast")
    return [helper.make_node("Cast", [transpose.input[0]], [name], g.model.unique_node(name), to=to),
            helper.make_node("Transpose", [name], [result], g.model.unique_node(f"{result}/Transpose"),
                             perm=permutation(transpose))]  # fmt: skip


def _in_f32(g: Graph, product: NodeProto, makers: dict[str, NodeProto]) -> list[NodeProto]:
    """A product of f16 that is computed in f32 from operands that are cast before they are transposed."""
    nodes, operands = list[NodeProto](), list[str]()
    for name in product.input:
        operand, maker = g.model.unique(f"{name}/f32"), makers.get(name)
        if maker is not None and _is_moved_inwards(maker):
            nodes += _exchanged(g, maker, TensorProto.FLOAT, operand)
        else:
            nodes.append(helper.make_node("Cast", [name], [operand], g.model.unique_node(operand),
                                          to=TensorProto.FLOAT))  # fmt: skip
        operands.append(operand)
    (result,) = product.output
    wide = g.model.unique(f"{result}/f32")
    nodes.append(helper.make_node("MatMul", operands, [wide], product.name))
    return [*nodes, helper.make_node("Cast", [wide], [result], g.model.unique_node(f"{result}/Cast"),
                                     to=TensorProto.FLOAT16)]  # fmt: skip
