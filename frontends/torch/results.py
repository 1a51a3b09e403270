"""What the results of a PyTorch program share with its arguments and with one another, and how they lie in memory.

Exporting runs the program on tensors without elements. Their memory shows which result is an argument, a view of one,
or a view of another result: `Results` runs the program's own views again to make these. Other results have their dims
in the order in memory that they had for the example inputs.
"""

from __future__ import annotations

import operator
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from irc.frontends.torch.importer import updated_input

ATEN = torch.ops.aten
# What the arguments of a view may be computed by, besides views.
OF_SIZES = frozenset({
    ATEN.sym_size.int, ATEN.sym_stride.int, ATEN.sym_numel.default, ATEN.sym_storage_offset.default, operator.add,
    operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, operator.getitem,
})  # fmt: skip


class Results:
    """The results of a program as its caller gets them.

    `program` is the one that PyTorch exported first: what it does in place shows there. A view of something that is no
    argument and no result, or whose place depends on computed data, is a result with memory of its own.
    """

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        nodes = {node.name: node for node in program.graph.nodes}
        (outputs,) = program.graph.output_node().args
        specs = list(zip(signature.output_specs, outputs, strict=True))
        self.nodes: list[Any] = [each for spec, each in specs if spec.kind is OutputKind.USER_OUTPUT]
        # Nodes that are an argument: placeholders, and what is written to one, by the placeholder's name.
        self.arguments = {node: node.name for node in nodes.values() if node.op == "placeholder"}
        for spec, each in specs:
            if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION, OutputKind.PARAMETER_MUTATION):
                self.arguments.setdefault(each, updated_input(signature, spec))
        given = {node for node in self.nodes if isinstance(node, Node)}
        bases: dict[Any, Node] = {}  # the first node to have some memory: of an argument, or else of a result
        for node in nodes.values():
            if (node in self.arguments or node in given) and (memory := memory_of(node)) is not None:
                bases.setdefault(memory, node)
        self.position = {node: index for index, node in enumerate(nodes.values())}
        self.bases = {node: bases.get(memory_of(node)) for node in given}
        self.paths = {node: self._path(node, self.bases[node]) for node in given}
        self.orders = {node: order_in_memory(node.meta.get("val")) for node in given}

    def _path(self, result: Node, base: Node | None) -> list[Node] | None:
        """The nodes, in order, that make a result of the one whose memory it has; None where nothing else has it."""
        if result in self.arguments:
            return []
        if base is None or base is result:
            return None
        reached, waiting = set[Node](), [result]
        while waiting:
            node = waiting.pop()
            if node in reached or node is base or node in self.arguments:
                continue
            if writes_in_place(node):
                waiting.append(node.all_input_nodes[0])
            elif is_view(node):
                waiting += node.all_input_nodes
            else:
                return None
            reached.add(node)
        return sorted(reached, key=self.position.__getitem__)

    def of(self, computed: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
        """What the caller gets: `computed` has a value for each result; `arguments`, by placeholder, hold what the
        program has written to them."""
        values: dict[Node, Any] = {}
        for node, value in zip(self.nodes, computed, strict=True):
            if isinstance(node, Node) and self.paths[node] is None:
                values.setdefault(node, laid_out(value, self.orders[node]))
        for node, value in zip(self.nodes, computed, strict=True):
            if isinstance(node, Node) and node not in values:
                viewed = self._viewed(node, values, arguments)
                values[node] = value if viewed is None else viewed
        return [values[node] if isinstance(node, Node) else value
                for node, value in zip(self.nodes, computed, strict=True)]

    def _viewed(self, result: Node, values: dict[Node, Any], arguments: Mapping[str, Any]) -> Any:
        """A result by its path, from the arguments or the other results; None where PyTorch has no such view of this
        argument, as it lies in memory, or copies it."""
        on_path: dict[Node, Any] = {}
        known = ChainMap(on_path, values)

        def value_of(node: Node) -> Any:
            return arguments[self.arguments[node]] if node in self.arguments else known[node]

        with torch.no_grad(), suppress(RuntimeError):
            for node in self.paths[result] or ():
                if writes_in_place(node):
                    on_path[node] = value_of(node.all_input_nodes[0])
                else:
                    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value_of)
                    on_path[node] = node.target(*args, **kwargs)
            viewed, base = value_of(result), self.bases[result]
            is_same = result in self.arguments or base is None or share_memory(viewed, value_of(base))
            return viewed if is_same else None
        return None


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are parts of the same allocation."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def memory_of(node: Node) -> Any:
    """What stands for the memory of a node's tensor, equal for views of one another; None for what is no tensor."""
    example = node.meta.get("val")
    return example.untyped_storage()._cdata if isinstance(example, torch.Tensor) else None


def memories_of(node: Node) -> set[Any]:
    """What stands for the memory of each tensor of a node that has several."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, torch.Tensor)}


def is_view(node: Node) -> bool:
    """Whether a node computes no elements: its tensor is a view, or it computes sizes for views. The schemas of
    type_as, einsum and others do not say that they may give an argument, or a view of one: memory shows it."""
    if node.op != "call_function":
        return False
    if node.target in OF_SIZES or getattr(node.target, "is_view", False):
        return True
    schema = getattr(node.target, "_schema", None)
    is_pure = schema is not None and not schema.is_mutable
    return is_pure and any(memories_of(each) & memories_of(node) for each in node.all_input_nodes)


def writes_in_place(node: Node) -> bool:
    """Whether a node is its first argument, into which it writes."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not node.all_input_nodes:
        return False
    return node.args[:1] == (node.all_input_nodes[0],) and memory_of(node) == memory_of(node.all_input_nodes[0])


def order_in_memory(example: Any) -> tuple[int, ...] | None:
    """The dims of a tensor without gaps from the outermost in memory to the innermost; None where that is their order,
    and for one that repeats elements."""
    if not isinstance(example, torch.Tensor):
        return None
    strides = [hint_of(stride) for stride in example.stride()]
    repeats = (stride == 0 and hint_of(size) != 1 for stride, size in zip(strides, example.shape, strict=True))
    if None in strides or any(repeats):
        return None
    order = tuple(sorted(range(len(strides)), key=lambda axis: (-(strides[axis] or 0), axis)))
    return None if order == tuple(range(len(strides))) else order


def hint_of(size: Any) -> int | None:
    """The number that a symbolic integer was for the example inputs."""
    return size if isinstance(size, int) else size.node.hint


def laid_out(value: Any, order: tuple[int, ...] | None) -> Any:
    """A tensor with its dims in this order in memory; other values as they are."""
    if not isinstance(value, torch.Tensor) or order is None:
        return value.contiguous() if isinstance(value, torch.Tensor) else value
    inverse = [order.index(axis) for axis in range(len(order))]
    return value.permute(order).contiguous().permute(inverse)
