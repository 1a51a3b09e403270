"""Products of transposes for which ONNX Runtime 1.31 ends the process, or has a wrong result.

Its MatmulTransposeFusion takes a transpose of matrices (transA, transB), or one that moves the first axis into them
(transBatchA, transBatchB), into a FusedMatMul, which does not transpose a matrix to the left of a vector, does not
write the result of an empty sum, and divides by the extent of the axis that is moved. Its other optimizations compose
transposes, and move them through operations, before that.

A vector to the right of what may be transposed is moved to the left of it, transposed once more. Where an extent may be
0, a Reshape to the shape that the operand has stands before the product: it copies nothing, and ONNX Runtime neither
removes it nor moves a transpose through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from onnx import NodeProto, helper

from irc import dims
from irc.backends.onnx.casts import moves_batch_inwards, permutation, swaps_matrices
from irc.backends.onnx.graph import KERNEL_DOMAIN, Graph
from irc.dims import Dim

Shape = tuple[Dim, ...] | None
Orders = frozenset[tuple[int, ...]] | None  # permutations of transposes that may come last before a value; None: any
MOST_ORDERS = 16  # for one value; of one with more, any is assumed
STOPS = frozenset({"Constant", "Conv", "Gemm", "MatMul", "Reshape", "Shape"})  # no transpose is moved through these


def prepare_transposed_products(g: Graph, inputs: Sequence[str] = ()) -> None:
    """Rewrite each MatMul of what may be transposed so, with a vector or an extent that may be 0. `inputs` are those of
    a local function, which ONNX Runtime inlines: any transpose may come before it. Linear in the nodes."""
    shapes, orders = dict[str, Shape](), dict[str, Orders](dict.fromkeys(inputs))
    ranks = dict[str, int | None]()  # of operands to reshape, where they are known
    matrices = dict[str, int]()  # the ranks of those that vectors are multiplied by, by the result
    for node in g.nodes:
        if node.op_type == "MatMul":
            known = [_shape(g, name, shapes) for name in node.input]
            alike = len({len(shape) for shape in known if shape is not None}) < 2
            for name, shape, summed in zip(node.input, known, (-1, -2), strict=True):
                before = orders.get(name, frozenset())
                if _may_sum_nothing(shape, before, summed) or (alike and _may_divide_by_0(shape, before)):
                    ranks[name] = None if shape is None else len(shape)
            matrix, vector = known
            if vector is not None and len(vector) == 1 and _may_swap(matrix, orders.get(node.input[0], frozenset())):
                matrices[node.output[0]] = len(matrix)
        for name in node.output:
            shapes[name], orders[name] = _shape_of_result(g, node, shapes), _orders_of_result(node, orders)
    if ranks:
        _insert(g, ranks)
    if matrices:
        _move_vectors_to_the_left(g, matrices)


def _shape(g: Graph, name: str, shapes: dict[str, Shape]) -> Shape:
    type_, constant = g.type_of(name), g.model.initializers.get(name)
    if constant is not None:
        return tuple(constant.dims)
    return type_.shape if type_ is not None else shapes.get(name)


def _shape_of_result(g: Graph, node: NodeProto, shapes: dict[str, Shape]) -> Shape:
    """The shape of what a cast or a transpose makes on the way to a value."""
    shape = _shape(g, node.input[0], shapes) if node.op_type in ("Cast", "Transpose") else None
    if shape is not None and node.op_type == "Transpose":
        return tuple(shape[axis] for axis in permutation(node))
    return shape


def _orders_of_result(node: NodeProto, orders: dict[str, Orders]) -> Orders:
    """Each transpose in a chain may come last before the result, alone or composed with those before it."""
    if node.op_type in STOPS:
        return frozenset()
    if node.domain == KERNEL_DOMAIN:
        return None
    before = [orders.get(name, frozenset()) for name in node.input]
    last = permutation(node)
    permutations = set[tuple[int, ...]]([last] if node.op_type == "Transpose" else [])
    for some in before:
        if some is None or (last and any(len(order) != len(last) for order in some)):
            return None
        permutations |= {tuple(order[axis] for axis in last) for order in some} if last else some
    return frozenset(permutations) if len(permutations) <= MOST_ORDERS else None


def _may_sum_nothing(shape: Shape, orders: Orders, summed: int) -> bool:
    """Whether an operand of this shape, summed over this axis, may be a transpose that is fused, over an empty sum."""
    if shape is not None and (len(shape) < 3 or not _may_be_0(shape[summed])):
        return False
    return orders is None or any(moves_batch_inwards(order) or swaps_matrices(order) or shape is None
                                 or len(order) != len(shape) for order in orders)  # fmt: skip


def _may_swap(shape: Shape, orders: Orders) -> TypeGuard[tuple[Dim, ...]]:
    """Whether an operand is known to be of matrices, which a transpose may have exchanged the axes of."""
    if shape is None or len(shape) < 2:
        return False
    return orders is None or any(swaps_matrices(order) or len(order) != len(shape) for order in orders)


def _may_divide_by_0(shape: Shape, orders: Orders) -> bool:
    """Whether an operand of this shape may be a transpose that moves an axis without elements into the matrices."""
    if orders is None or any(shape is not None and len(order) != len(shape) for order in orders):
        return shape is None or (len(shape) > 2 and any(_may_be_0(extent) for extent in shape[-2:]))
    moved = [order.index(0) for order in orders if moves_batch_inwards(order)]
    return any(shape is None or _may_be_0(shape[axis]) for axis in moved)


def _may_be_0(extent: Dim) -> bool:
    return dims.less(0, extent) is not True


def _insert(g: Graph, ranks: dict[str, int | None]) -> None:
    """Reshape operands of products, each once. A 0 in a stated shape stands for the extent that there is."""
    stated = {name: g.numbers([0] * rank) for name, rank in ranks.items() if rank is not None}
    reshaped, nodes = dict[str, str](), list[NodeProto]()
    for node in g.nodes:
        for i, name in enumerate(node.input if node.op_type == "MatMul" else ()):
            if name in ranks:
                if name not in reshaped:
                    reshaped[name] = g.model.unique(f"{name}/Reshape")
                    shape = stated.get(name) or g.model.unique(f"{name}/Shape")
                    if name not in stated:
                        nodes.append(helper.make_node("Shape", [name], [shape], g.model.unique_node(shape)))
                    nodes.append(helper.make_node("Reshape", [name, shape], [reshaped[name]],
                                                  g.model.unique_node(reshaped[name])))  # fmt: skip
                node.input[i] = reshaped[name]
        nodes.append(node)
    g.nodes[:] = nodes


def _move_vectors_to_the_left(g: Graph, ranks: dict[str, int]) -> None:
    """v @ Transpose(m) in the place of m @ v, for the products with these results."""
    nodes: list[NodeProto] = []
    for node in g.nodes:
        if node.op_type == "MatMul" and node.output[0] in ranks:
            matrix, vector = node.input
            rank, transposed = ranks[node.output[0]], g.model.unique(f"{matrix}/Transpose")
            order = [*range(rank - 2), rank - 1, rank - 2]
            name = g.model.unique_node(transposed)
            nodes.append(helper.make_node("Transpose", [matrix], [transposed], name, perm=order))
            node.input[:] = [vector, transposed]
        nodes.append(node)
    g.nodes[:] = nodes
