"""What the results of a PyTorch program share with its arguments and with one another, and how they lie in memory.

Exporting runs the program on tensors without elements. Their memory shows which result is an argument, a view of one,
or a view of another result: `Results` runs the program's own views again to make these. Other results have their dims
in the order in memory that they had for the example inputs.
"""

from __future__ import annotations

import operator
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from irc.frontends.torch.signatures import updated_input
from irc.index_map import inverse

ATEN = torch.ops.aten
# What the arguments of a view may be computed by, besides views.
OF_SIZES = frozenset({
    ATEN.sym_size.int, ATEN.sym_stride.int, ATEN.sym_numel.default, ATEN.sym_storage_offset.default, operator.add,
    operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, operator.getitem,
})  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """The value of a node of the exported program, by the node's name."""

    name: str


@dataclass(frozen=True)
class Step:
    """One node between a result and what it is a view of: a call of `target`, or, without one, its first argument,
    into which the program has written."""

    name: str
    target: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A result by its node's name. `path` makes it of an argument or of the result `base`, and is None where it has
    memory of its own, in which its dims have this order; "" names a constant."""

    name: str
    path: tuple[Step, ...] | None = None
    base: str | None = None
    order: tuple[int, ...] | None = None


class Results:
    """The results of a program as its caller gets them.

    `arguments` are the nodes that are an argument, by name, each with its placeholder's name: placeholders, and what is
    written to one.
    """

    def __init__(self, results: Sequence[Result], arguments: Mapping[str, str]) -> None:
        self.results, self.arguments = results, arguments

    @classmethod
    def of_program(cls, program: ExportedProgram) -> Results:
        """Those of the program that PyTorch exported first: what it does in place shows there. A view of something that
        is no argument and no result, or whose place depends on computed data, is a result with memory of its own."""
        signature = program.graph_signature
        (outputs,) = program.graph.output_node().args
        specs = list(zip(signature.output_specs, outputs, strict=True))
        arguments = placeholders_of(program.graph)
        for spec, each in specs:
            if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION, OutputKind.PARAMETER_MUTATION):
                arguments.setdefault(each, updated_input(signature, spec))
        returned = [each for spec, each in specs if spec.kind is OutputKind.USER_OUTPUT]
        return cls.of_graph(program.graph, returned, arguments)

    @classmethod
    def of_graph(cls, graph: Graph, returned: Sequence[Any], arguments: Mapping[Node, str]) -> Results:
        """Those of a graph that gives these nodes, of which `arguments` are arguments."""
        given = {node for node in returned if isinstance(node, Node)}
        bases: dict[Any, Node] = {}  # the first node to have some memory: of an argument, or else of a result
        for node in graph.nodes:
            if (node in arguments or node in given) and (memory := memory_of(node)) is not None:
                bases.setdefault(memory, node)
        position = {node: index for index, node in enumerate(graph.nodes)}

        def result(node: Node) -> Result:
            base = bases.get(memory_of(node))
            path = path_between(node, base, arguments)
            steps = None if path is None else tuple(map(step_of, sorted(path, key=position.__getitem__)))
            return Result(node.name, steps, base and base.name, order_in_memory(node.meta.get("val")))

        results = {node: result(node) for node in given}
        return cls([results[node] if isinstance(node, Node) else Result("") for node in returned],
                   {node.name: name for node, name in arguments.items()})  # fmt: skip

    @cached_property
    def are_plain(self) -> bool:
        """Whether they are different tensors, all with memory of their own, in which their dims are in order."""
        names = [result.name for result in self.results]
        return all(names) and len(set(names)) == len(names) and all(
            result.path is None and result.order is None for result in self.results)  # fmt: skip

    def of(self, computed: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
        """What the caller gets: `computed` has a value for each result; `arguments`, by placeholder, hold what the
        program has written to them."""
        values: dict[str, Any] = {}
        for result, value in zip(self.results, computed, strict=True):
            if result.name and result.path is None:
                values.setdefault(result.name, laid_out(value, result.order))
        for result, value in zip(self.results, computed, strict=True):
            if result.name and result.name not in values:
                viewed = self._viewed(result, values, arguments)
                values[result.name] = value if viewed is None else viewed
        return [values[result.name] if result.name else value
                for result, value in zip(self.results, computed, strict=True)]  # fmt: skip

    def _viewed(self, result: Result, values: dict[str, Any], arguments: Mapping[str, Any]) -> Any:
        """A result by its path, from the arguments or the other results; None where PyTorch has no such view of this
        argument, as it lies in memory, or copies it."""
        on_path: dict[str, Any] = {}
        known = ChainMap(on_path, values)

        def value_of(name: str) -> Any:
            return arguments[self.arguments[name]] if name in self.arguments else known[name]

        with torch.no_grad(), suppress(RuntimeError):
            for step in result.path or ():
                args, kwargs = replaced((step.args, step.kwargs), value_of)
                on_path[step.name] = args[0] if step.target is None else step.target(*args, **kwargs)
            viewed = value_of(result.name)
            is_same = (result.name in self.arguments or result.base is None
                       or share_memory(viewed, value_of(result.base)))  # fmt: skip
            return viewed if is_same else None
        return None


def placeholders_of(graph: Graph) -> dict[Node, str]:
    """The placeholders of a graph, with their names."""
    return {node: node.name for node in graph.find_nodes(op="placeholder")}


def path_between(result: Node, base: Node | None, arguments: Mapping[Node, str]) -> set[Node] | None:
    """The nodes that make a result of the one whose memory it has; None where nothing else has it."""
    if result in arguments:
        return set()
    if base is None or base is result:
        return None
    reached, waiting = set[Node](), [result]
    while waiting:
        node = waiting.pop()
        if node in reached or node is base or node in arguments:
            continue
        if writes_in_place(node):
            waiting.append(node.all_input_nodes[0])
        elif is_view(node):
            waiting += node.all_input_nodes
        else:
            return None
        reached.add(node)
    return reached


def step_of(node: Node) -> Step:
    """A node of a path as a step."""
    if writes_in_place(node):
        return Step(node.name, None, (Reference(node.all_input_nodes[0].name),), {})
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda each: Reference(each.name))
    assert not isinstance(node.target, str)
    return Step(node.name, node.target, args, kwargs)


def replaced(value: Any, value_of: Callable[[str], Any]) -> Any:
    """Arguments of a step with values in place of the references."""
    if isinstance(value, Reference):
        return value_of(value.name)
    if isinstance(value, (tuple, list)):
        return type(value)([replaced(each, value_of) for each in value])
    return {name: replaced(each, value_of) for name, each in value.items()} if isinstance(value, dict) else value


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
    return value.permute(order).contiguous().permute(inverse(order))
