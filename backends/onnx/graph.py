"""A graph of ONNX under construction: nodes, the names of values, and constants.

One `Graph` each for the main graph, the bodies of If and Loop, and local functions; what is inlined (kernels, calls,
bodies of named operations) has one too, which shares its nodes with the graph around it. A `Model` holds what all
graphs share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

from irc import dims
from irc.backends.onnx.extents import Extents
from irc.backends.onnx.opsets import NeedsOpset, adapt, least_opset
from irc.backends.onnx.runtime import DTYPE_OPSETS, LOWEST_OPSET, WRITTEN_OPSET
from irc.backends.onnx.storage import DataFile
from irc.backends.onnx.target import Target
from irc.diagnostics import Diagnostic, UnsupportedError
from irc.dims import Symbol
from irc.dtypes import BF16, F8E8M0, F32, F64, I64, STRING, U32, U64, DType, part_of
from irc.ir import Block, Operation, Value
from irc.limits import check_limit
from irc.ops.extern import plain_type
from irc.types import TensorType
from irc.weights import Tensor

KERNEL_DOMAIN = "irc.kernels"
Operand = Value | str | None  # a value, the name of a tensor in ONNX, or nothing


class Names:
    """Names in use, among which `unique` adds one that is not."""

    def __init__(self) -> None:
        self.used = {""}
        self._suffixes: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        """The hint, or the hint with a number after it."""
        name = hint
        while name in self.used:
            count = self._suffixes.get(hint, 0) + 1
            self._suffixes[hint] = count
            name = f"{hint}_{count}"
        self.used.add(name)
        return name


@dataclass
class Uses:
    """What an operation is emitted with, without the operations in its regions or in its body."""

    operators: set[str] = field(default_factory=set)  # of the default domain
    dtypes: set[DType] = field(default_factory=set)  # of what nodes take and give


class Model:
    """What the graphs of a model share: the names in use, initializers, local functions, opsets, operations
    that the target cannot express."""

    def __init__(self, target: Target, keep_kernels: bool, data: DataFile | None = None,
                 settled: int = 0) -> None:  # fmt: skip
        self.target = target
        self.keep_kernels = keep_kernels
        self.data = data
        self.initializers: dict[str, TensorProto] = {}
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.types: dict[str, TensorType] = {}
        self.opset = target.opset or max(settled, LOWEST_OPSET)
        self.settled = settled  # the opset, where it is known already; else 0
        self.domains: dict[str, int] = {}
        self.operators: set[str] = set()  # of the default domain
        self.uses = Uses()  # of the operation that is being emitted
        self.typed_operators: set[tuple[str, DType]] = set()  # of the default domain, by what an operation has of both
        self.externs: set[tuple[str, int]] = set()  # of the default domain: operator and opset
        self.unsupported: list[Diagnostic] = []
        self.emit_region: Callable[[Graph, Block, str], onnx.GraphProto]  # set by the emitter
        self.draws_in_regions = False
        self.spread = 0  # bytes of constants of one number
        self._names, self._node_names = Names(), Names()
        self._numbers: dict[tuple[DType, tuple[int, ...], bytes], str] = {}
        self._tensors: dict[Tensor, str] = {}

    def unique(self, hint: str) -> str:
        """A unique name of a tensor: the hint, or the hint with a number after it."""
        return self._names.unique(hint)

    def reserve(self, name: str) -> None:
        self._names.used.add(name)

    def unique_node(self, hint: str) -> str:
        """A unique name of a node. Every node is named here, once; names of nodes and of tensors may be the same."""
        return self._node_names.unique(hint)

    def name_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Name the nodes without a name, those in subgraphs too, after what they produce."""
        pending = list(nodes)
        for node in pending:  # which grows
            node.name = node.name or self.unique_node(next(name for name in node.output if name))
            pending += (inner for graph in subgraphs(node) for inner in graph.node)

    def require(self, opset: int) -> None:
        """The model needs at least this opset."""
        self.opset = max(self.opset, opset)

    def hold(self, *dtypes: DType) -> None:
        """The model needs an opset that has these element types; raises `NeedsOpset` where it must be older."""
        self.uses.dtypes.update(dtypes)
        for dtype in dtypes:
            needed = DTYPE_OPSETS.get(dtype.name, 0)
            if self.target.is_before(needed):
                raise NeedsOpset(f"{dtype} needs opset {needed}")
            self.require(needed)

    @contextmanager
    def emitting(self) -> Iterator[None]:
        """Around the emission of an operation: notes which operators may have which element types."""
        before, self.uses = self.uses, Uses()
        try:
            yield
        finally:
            self.typed_operators.update(product(self.uses.operators, self.uses.dtypes))
            self.uses = before

    def initializer(self, tensor: Tensor, hint: str) -> str:
        """The name of an initializer with this content; those that irc makes up itself are shared."""
        known = self._tensors.get(tensor)
        if known is None:
            known = self.unique(hint)
            self._tensors[tensor] = known
            self.initializers[known] = tensor_proto(tensor, known, self.data)
        return known

    def number(self, tensor: Tensor) -> str:
        """An initializer for a small tensor without a name, one for each content."""
        key = (tensor.dtype, tensor.shape, tensor.stored().tobytes())
        if key not in self._numbers:
            self._numbers[key] = self.initializer(tensor, describe(tensor))
        return self._numbers[key]


class Graph(Extents):
    """Nodes in order, and what the values of a block are called; see the module's page."""

    def __init__(self, model: Model, parent: Graph | None = None, *, inlined: bool = False, is_function: bool = False,
                 prefix: str = "") -> None:  # fmt: skip
        super().__init__(None if is_function else parent)
        self.model = model
        self.parent: Graph | None = None if is_function else parent
        self.is_function = is_function
        self.nodes: list[NodeProto] = parent.nodes if inlined and parent is not None else []
        self.root: Graph = self if is_function or parent is None else parent.root
        self.prefix = prefix
        self.operation: Operation | None = None
        self.values: dict[Value, str] = {}
        self.contents: dict[Value, Tensor] = {}  # of arguments that stand for constants
        self.final_names: dict[Value, str] = {}  # names that results must have: those of the outputs
        self.constants: dict[str, str] = {}  # of a function: initializers as Constant nodes
        self.further: dict[Symbol, str] = {}  # of a function: inputs for dims that no argument carries

    @property
    def target(self) -> Target:
        return self.model.target

    @property
    def result(self) -> Value:
        """The only result of the operation that is being emitted."""
        assert self.operation is not None
        return self.operation.result

    @property
    def hint(self) -> str:
        """A prefix for names of what the current operation needs on its way."""
        if self.operation is None:
            return self.prefix or "shape"
        results = self.operation.results
        return self.prefix + (results[0].name if results else self.operation.name)

    # -- nodes -------------------------------------------------------------------------------------------------

    def node(self, op_type: str, *operands: Operand, outputs: int = 1, domain: str = "",
             written: int | None = None, **attributes: Any) -> Any:  # fmt: skip
        """Append a node; returns the name of its output, or a list of several. Attributes of None are left out.

        The node of an extern is written in the form of opset `written`, others in the form of their rows; `adapt`
        converts nodes to the requested opset.
        """
        names = [self.name(operand) for operand in operands]
        while names and not names[-1]:
            names.pop()
        produced = [self.model.unique(f"{self.hint}/{op_type}") for _ in range(outputs)]
        node = NodeProto(op_type=op_type, domain=domain)
        node.input.extend(names)
        node.output.extend(produced)
        for key in sorted(attributes):
            if attributes[key] is not None:
                node.attribute.append(attribute_proto(key, attributes[key]))
        if self.target.opset is not None and not domain:
            adapt(self, node, written or WRITTEN_OPSET)
        elif not domain and written is None:
            self.model.require(least_opset(node))
        self.nodes.append(node)
        if domain:
            self.model.domains.setdefault(domain, 1)
        else:
            self.model.operators.add(op_type)
            self.model.uses.operators.add(op_type)
        return produced[0] if outputs == 1 else produced

    def name(self, operand: Operand) -> str:
        """What an operand is called in ONNX; the empty name for one that is absent."""
        if operand is None or isinstance(operand, str):
            return operand or ""
        graph: Graph | None = self
        while graph is not None:
            if operand in graph.values:
                return graph.values[operand]
            graph = graph.parent
        known = self.known(operand)
        assert known is not None, f"%{operand.name} is used before it is emitted"
        self.values[operand] = self.constant(known, operand.name)
        return self.values[operand]

    def has(self, value: Value) -> bool:
        """Whether a value has been emitted where it can be seen from here."""
        graph: Graph | None = self
        while graph is not None and value not in graph.values:
            graph = graph.parent
        return graph is not None or self.known(value) is not None

    def known(self, operand: Operand) -> Tensor | None:
        """The content of a constant; None for what is computed."""
        if not isinstance(operand, Value):
            return None
        if operand.operation is not None:
            content: Tensor | None = (
                operand.operation.attributes["value"] if operand.operation.name == "const" else None
            )
            return content
        graph: Graph | None = self
        while graph is not None and operand not in graph.contents:
            graph = graph.parent
        return None if graph is None else graph.contents[operand]

    def region(self, block: Block, name: str) -> onnx.GraphProto:
        """A region of the operation that is being emitted, as a graph of its own that sees all names around it."""
        return self.model.emit_region(self, block, name)

    def symbol_input(self, symbol: Symbol) -> str | None:
        root = self.root
        if not root.is_function:
            return None
        if symbol not in root.further:
            root.further[symbol] = self.model.unique(f"extent/{symbol.name}")
        return root.further[symbol]

    # -- constants ---------------------------------------------------------------------------------------------

    def constant(self, tensor: Tensor, hint: str) -> str:
        """The name of a constant: an initializer of the model, or in a function, which has none, a node."""
        named = tensor.name is not None
        name = self.model.initializer(tensor, tensor.name or hint) if named else self.model.number(tensor)
        self.model.hold(tensor.dtype)
        root = self.root
        if not root.is_function:
            return name
        if name not in root.constants:
            node = NodeProto(op_type="Constant", name=self.model.unique_node(f"{name}/Constant"))
            node.output.append(self.model.unique(name))
            node.attribute.append(helper.make_attribute("value", self.model.initializers[name]))
            root.nodes.insert(0, node)
            root.constants[name] = node.output[0]
        return root.constants[name]

    def filled(self, number: float, shape: Sequence[int], dtype: DType, hint: str) -> str:
        """A constant of one number."""
        self.model.spread += 8 * prod(shape)
        check_limit("literals", self.model.spread, "constants of one number would take {}")
        return self.constant(Tensor.of(np.full(shape, number), dtype), hint)

    def numbers(self, content: Any, dtype: DType = I64) -> str:
        """A constant of plain numbers: an integer, a float or a list of them."""
        return self.constant(Tensor.of(np.asarray(content, None if dtype is not STRING else object), dtype), "")

    def content(self, name: str) -> np.ndarray[Any, Any] | None:
        """The content of a small initializer, or of the node that has it in a function; None of what is computed."""
        stored = {node: initializer for initializer, node in self.root.constants.items()}.get(name, name)
        tensor = self.model.initializers.get(stored)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return onnx.numpy_helper.to_array(tensor)

    def type_of(self, name: str) -> TensorType | None:
        """The type of a tensor, where it is known."""
        return self.model.types.get(name)

    # -- element types -----------------------------------------------------------------------------------------

    def cast(self, x: Operand, source: DType, to: DType, saturate: bool = True) -> Operand:
        """`x` as `to`, by a Cast that every value survives or whose low bits are wanted; itself where it is that."""
        if source is to:
            return x
        if (narrows_to_integers(source, to) and (source.bits == 16 or self._may_be_cast(x))) or (
            takes_low_bits(source, to) and self._may_be_cast(x, of_float=True)
        ):
            # ONNX Runtime, whatever its options, makes one Cast of two here, and what is between them is lost: a
            # number is not rounded, or not reduced to its low bits.
            if source is BF16:
                x, source = self.cast(x, source, F32), F32
            x = self.node("Max", x)
        self.model.hold(source, to)
        rounding = "nearest" if to is F8E8M0 else None  # else it rounds up
        name: str = self.node("Cast", x, to=to.onnx, saturate=None if saturate else 0, round_mode=rounding)
        return name

    def _may_be_cast(self, x: Operand, of_float: bool = False) -> bool:
        """Whether a Cast may make x, or what x is a view of; an argument of a region or function may be one too."""
        if not isinstance(x, Value):
            return False
        maker = x.operation
        while maker is not None and maker.definition.movement is not None and maker.inputs:
            x, maker = maker.inputs[0], maker.inputs[0].operation
        if maker is None:
            return self.parent is not None or self.is_function
        return maker.name == "cast" and (not of_float or maker.inputs[0].dtype.is_float)

    def carrier(self, op_type: str, dtype: DType, *, wraps: bool = False, compares: bool = False) -> DType:
        """The type in which the runtime computes the operator on `dtype` exactly; raises `UnsupportedError`."""
        carrier_dtype = self.target.carrier(op_type, dtype, wraps=wraps, compares=compares)
        if carrier_dtype is None:
            needed = self.target.newer_opset(op_type, dtype, wraps=wraps, compares=compares)
            if needed is not None:
                raise NeedsOpset(f"{op_type} of {dtype} needs opset {needed}")
            raise UnsupportedError(
                f"ONNX Runtime's CPU provider has no {op_type} of {dtype}, nor of a type that could stand in"
            )
        return carrier_dtype

    # -- names of results --------------------------------------------------------------------------------------

    def rename(self, start: int, old: str, new: str) -> None:
        """Rename a tensor in the nodes from number `start` on, and in their subgraphs."""
        for node in self.nodes[start:]:
            _rename(node, old, new)
        if old in self.model.types:
            self.model.types[new] = self.model.types.pop(old)

    def sweep(self, results: Iterable[str]) -> None:
        """Remove unused nodes, which emitters may leave, such as a Transpose that was composed with another."""
        used, kept = set(results), []
        for node in reversed(self.nodes):
            if not used.isdisjoint(node.output):
                kept.append(node)
                used.update(names_used(node))
        self.nodes[:] = reversed(kept)


def _rename(node: NodeProto, old: str, new: str) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename(inner, old, new)
        for output in graph.output:
            if output.name == old:
                output.name = new


def subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    return (attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH)


def names_used(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads, in its subgraphs too."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from names_read(graph)


def names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """The tensors that the nodes of a subgraph read, in subgraphs inside of it too, and its outputs."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from names_used(node)


def narrows_to_integers(source: DType, to: DType) -> bool:
    """Whether it is a float type that holds all integers of the other: there ONNX Runtime takes the float for exact."""
    return source.is_float and source.bits >= 16 and to.is_integer and to.bits <= (16 if source is F32 else
        32 if source is F64 else 8)  # fmt: skip


def takes_low_bits(source: DType, to: DType) -> bool:
    """Whether a cast of integers takes low bits that a cast of floats to the type, which goes by i32, need not give."""
    return source in (I64, U64, U32) and to.is_integer and to.bits < source.bits


# -- protobufs ---------------------------------------------------------------------------------------------------


def attribute_proto(name: str, value: Any) -> AttributeProto:
    """An attribute from a Python value; tuples become lists, and an empty one a list of integers."""
    if isinstance(value, AttributeProto):
        return value
    if isinstance(value, bool):
        value = int(value)
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, Tensor):
        value = tensor_proto(value, value.name or "")
    is_empty = isinstance(value, list) and not value
    return helper.make_attribute(name, value, attr_type=AttributeProto.INTS if is_empty else None)


def tensor_proto(tensor: Tensor, name: str, data: DataFile | None = None) -> TensorProto:
    """A tensor with its bytes inside, or in a file of its own where `data` takes them. Complex numbers are pairs."""
    if tensor.dtype.is_complex:
        pairs = tensor.array()[..., np.newaxis].view(part_of(tensor.dtype).numpy)
        tensor = Tensor.of(pairs, name=tensor.name)
    proto = TensorProto(name=name, data_type=tensor.dtype.onnx)
    proto.dims.extend(tensor.shape)
    if tensor.dtype is STRING:
        proto.string_data.extend(text.encode("utf-8", "surrogateescape") for text in tensor.array().reshape(-1))
    elif data is None or not data.takes(tensor):
        proto.raw_data = tensor.stored().tobytes()
    else:
        data.add(tensor, proto)
    return proto


def type_proto(type_: TensorType) -> onnx.TypeProto:
    """A type in ONNX: symbols are dim_params, other expressions unknown extents. A complex number, for which ONNX
    Runtime has no kernels, is a pair on a last axis."""
    dtype = part_of(type_.dtype) if type_.dtype.is_complex else type_.dtype
    if type_.shape is None:
        return plain_type(dtype)
    shape = [dim if isinstance(dim, int) else symbol_name(dim) for dim in type_.shape]
    return helper.make_tensor_type_proto(dtype.onnx, [*shape, 2] if type_.dtype.is_complex else shape)


def symbol_name(dim: Any) -> str | None:
    """The name of the symbol that a dim is, or None for an expression."""
    symbol = dims.sole_symbol(dim)
    return None if symbol is None else symbol.name


def value_info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, type_proto(type_))


def describe(tensor: Tensor) -> str:
    """A name for a constant that irc made up, `i64[0,-1]` or `f32(0.5)`; by type alone where it is long."""
    if tensor.dtype is STRING or tensor.size > 8:
        return f"{tensor.dtype}x{tensor.size}"
    content = ",".join(map(str, tensor.array().reshape(-1).tolist()))
    return f"{tensor.dtype}[{content}]" if tensor.shape else f"{tensor.dtype}({content})"
