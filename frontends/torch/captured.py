"""Graphs of ATen operations that torch.compile captures, as programs for the importer.

AOTAutograd gives functional graphs whose placeholders are tensors and the sizes of their dims. `Survey` finds which
nodes of a graph irc cannot read, `divided` makes parts of those that it can, and `import_part` reads one part. Start
reading with `divided`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Container, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from sympy import Abs
from torch._functorch._aot_autograd.descriptors import InputMutationAOTOutput
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.fx.passes.utils.fuser_utils import fuse_by_partitions, validate_partition
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import FloatTrueDiv, IntTrueDiv, ToFloat
from torch.utils.checkpoint import CheckpointPolicy

from irc.diagnostics import IrcError
from irc.frontends.torch.importer import Importer
from irc.frontends.torch.reading import DTYPES
from irc.frontends.torch.table import overload_name
from irc.frontends.torch.tensors import constant
from irc.module import Module
from irc.op import const

PART = "irc_part_"  # names of the modules that stand for parts
NO_ELEMENT_TYPE = "irc has no element type for one of its operands"
OF_SUBGRAPHS = "its graphs are read only where all operations of the program are"


@dataclass(frozen=True)
class CapturedProgram:
    """What the importer reads (`importer.Program`) of one captured graph."""

    graph_module: GraphModule
    graph_signature: ExportGraphSignature
    range_constraints: Mapping[Any, Any]
    state_dict: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]


def program_of(graph: GraphModule, ranges: Mapping[Any, Any], held: Mapping[str, torch.Tensor]) -> CapturedProgram:
    """The program of a graph that gives tensors. Placeholders in `held` become constants with these elements; those
    that are sizes of dims of others are no arguments."""
    known = _dim_symbols(graph)
    inputs = []
    for node in graph.graph.find_nodes(op="placeholder"):
        example = node.meta["val"]
        if node.name in held:
            inputs.append(InputSpec(InputKind.PARAMETER, TensorArgument(node.name), node.name))
        elif isinstance(example, torch.Tensor) and example.dtype in DTYPES:
            inputs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None))
        elif isinstance(example, torch.SymInt) and not _is_known(example.node.expr, known):
            inputs.append(InputSpec(InputKind.USER_INPUT, SymIntArgument(node.name), None))
        elif isinstance(example, (float, torch.SymFloat)):  # what Python computes of sizes, as the share of a mean
            inputs.append(InputSpec(InputKind.USER_INPUT, SymFloatArgument(node.name), None))
        elif isinstance(example, torch.SymBool):
            inputs.append(InputSpec(InputKind.USER_INPUT, SymBoolArgument(node.name), None))
    (given,) = graph.graph.output_node().args
    results = given if isinstance(given, (tuple, list)) else (given,)
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None)
               for node in results if isinstance(node, Node)]  # fmt: skip
    return CapturedProgram(graph, ExportGraphSignature(inputs, outputs), ranges, held, {})


def _is_known(size: Any, symbols: Set[Any]) -> bool:
    """Whether a size is arithmetic of integers with symbols that are dims."""
    return size.free_symbols <= symbols and not size.has(ToFloat, FloatTrueDiv, IntTrueDiv, Abs)


def ranges_of(graph: GraphModule) -> dict[Any, Any]:
    """The ranges of the symbols of a graph: sympy's symbols to `ValueRanges`."""
    for node in graph.graph.nodes:
        for leaf in pytree.tree_leaves(node.meta.get("val")):
            sizes = (leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)) if leaf is not None else ()
            for size in sizes:
                if isinstance(size, torch.SymInt):
                    return dict(size.node.shape_env.var_to_range)
    return {}


def _dim_symbols(graph: GraphModule) -> set[Any]:
    """The symbols that are themselves a dim of some placeholder."""
    tensors = (node.meta["val"] for node in graph.graph.find_nodes(op="placeholder"))
    sizes = (size for tensor in tensors if isinstance(tensor, torch.Tensor) for size in tensor.shape)
    return {size.node.expr for size in sizes if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol}


class CapturedImporter(Importer):
    """An import of a captured graph, whose placeholders are sizes too."""

    def _bind_numbers(self) -> None:
        super()._bind_numbers()
        for node in self.graph.find_nodes(op="placeholder"):
            example = node.meta["val"]
            if node not in self.values and isinstance(example, (int, torch.SymInt)):
                self.values[node] = self.dim(example)

    def _attribute(self, node: Node) -> Any:
        held = operator.attrgetter(str(node.target))(self.graph.owning_module)
        if not isinstance(held, torch.Tensor):
            return super()._attribute(node)
        with unset_fake_temporarily():  # AOTAutograd captures under a mode in which tensors have no elements
            return const(value=constant(held, str(node.target)), name=node.name)


class Survey(CapturedImporter):
    """An import that goes on after what it cannot read: `unreadable` has those nodes, with the reason.

    Their results are arguments of the function that it makes, which is not run. Of what irc leaves to PyTorch it reads
    the operators in `calls`.
    """

    reads_effects = False

    def __init__(self, graph: GraphModule, calls: Container[str] = ()) -> None:
        super().__init__(program_of(graph, ranges_of(graph), {}), {})
        self.calls = calls
        self.unreadable: dict[Node, str] = {}

    def run(self) -> None:
        self._add_inputs()
        with self.builder:
            self._bind_numbers()
            self.foreign = {node for node in self.graph.find_nodes(op="placeholder") if node not in self.values}
            self._import_nodes(self.graph)

    def _import_node(self, node: Node) -> None:
        if any(each in self.foreign for each in node.all_input_nodes):
            self.values[node] = self._reject(node, NO_ELEMENT_TYPE)
            return
        try:
            super()._import_node(node)
        except IrcError as error:
            self.values[node] = self._reject(node, error.diagnostics[0].message)

    def _reject(self, node: Node, reason: str) -> Any:
        self.unreadable[node] = reason
        result = pytree.tree_map(self._stand_in, node.meta.get("val"))
        if result is None:
            self.foreign.add(node)
        return result

    def _stand_in(self, example: Any) -> Any:
        if isinstance(example, torch.SymInt):
            return self.dim(example)
        if isinstance(example, torch.Tensor) and example.dtype in DTYPES:
            return self.function.block.add_argument(self._type(example))
        return None


def import_part(program: CapturedProgram, name: str) -> Module:
    """The module of one part of a captured graph. Raises `torch.unsupported`."""
    importer = CapturedImporter(program, {})
    importer.run()
    return Module(name, [importer.function])


@dataclass(frozen=True)
class Division:
    """A captured graph in which modules stand for its parts; `parts` are their names. `unreadable` are the operations
    that PyTorch runs, by name, with how many and why."""

    graph: GraphModule
    parts: tuple[str, ...]
    unreadable: Mapping[tuple[str, str], int]
    total: int


def divided(graph: GraphModule, calls: Container[str] = ()) -> Division:
    """Divide a captured graph, in place, into the largest parts that irc reads; `calls` are the operators of ATen, of
    those that irc leaves to PyTorch, that are in them."""
    survey = Survey(graph, calls)
    survey.run()
    unreadable = dict(survey.unreadable)
    if unreadable:
        others = (node for node in graph.graph.nodes if isinstance(node.target, torch._ops.HigherOrderOperator))
        unreadable.update({node: OF_SUBGRAPHS for node in others if node not in unreadable})
    computed = [node for node in graph.graph.nodes if is_computed(node)]
    counts = Counter((overload_name(node.target), reason) for node, reason in unreadable.items() if is_computed(node))
    readable = [node for node in computed if node not in unreadable]
    groups = [dict.fromkeys([*graph.graph.find_nodes(op="get_attr"), *readable])]
    # Sizes that Python computes of results divide a graph, too.
    if unreadable or not validate_partition(list(groups[0])):
        partitioner = CapabilityBasedPartitioner(graph, _Readable(set(readable)), allows_single_node_partition=True)
        groups = [dict(partition.nodes) for partition in partitioner.propose_partitions()]
    groups = [group for group in groups if any(_computes(node) for node in group)]
    fuse_by_partitions(graph, groups, prefix=PART)
    parts = tuple(node.target for node in graph.graph.nodes if node.op == "call_module")
    return Division(graph, parts, counts, len(computed))


def copy_written_arguments(joint: GraphModule) -> None:
    """Copies, in a joint graph, of the arguments that are written after the forward graph has run: what the backward
    graph reads of them must be what they were. PyTorch's partition saves the argument itself, or what is computed of it
    again."""
    (written,) = joint.graph.find_nodes(op="output")
    inputs = {each.mutated_input for each in written.meta["desc"] if isinstance(each, InputMutationAOTOutput)}
    for node in joint.graph.find_nodes(op="placeholder"):
        if node.meta["desc"] in inputs:
            with joint.graph.inserting_after(node):
                copy = joint.graph.call_function(torch.ops.aten.clone.default, (node,))
            copy.meta.update(node.meta, recompute=CheckpointPolicy.MUST_SAVE)
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    joint.recompile()


class _Readable(OperatorSupportBase):
    """Supports the nodes of a set."""

    def __init__(self, nodes: set[Node]) -> None:
        self.nodes = nodes

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
        return node in self.nodes


def is_computed(node: Node) -> bool:
    """Whether a node gives tensors. Sizes are computed by Python, outside of parts."""
    if node.op != "call_function":
        return False
    leaves = [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if leaf is not None]
    return bool(leaves) and all(isinstance(leaf, torch.Tensor) for leaf in leaves)


def _computes(node: Node) -> bool:
    """Whether a node is more than a view or an element of a tuple: parts without one are left to PyTorch."""
    is_view = node.target is operator.getitem or getattr(node.target, "is_view", False)
    return node.op == "call_function" and not is_view
