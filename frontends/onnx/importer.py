"""From a ModelProto to a Module: names, inputs, constants, then node by node by the operator tables.

Shapes are computed while importing: integer arithmetic on extents becomes `dim {value = [...]}` or disappears into
attributes, and what is then unused is swept. Values keep the names of their tensors; an Identity is replaced by what it
forwards, so the producer's name is the one that survives (graph outputs are named by the function's result names).
Symbols of the signature range over [0, 10^9]; declared shapes of outputs are not believed but inferred.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx

from irc.diagnostics import IrcError, Location, fail
from irc.dims import Dim
from irc.dtypes import I32, I64, by_name
from irc.frontends.onnx import (
    attention,
    contrib,
    control,
    foreign,
    linear,
    normalization,
    pointwise,
    quantization,
    recurrent,
    reduction,
    scanning,
    sequences,
    tensor,
)
from irc.frontends.onnx.inlining import all_nodes, inlined, named_as_before
from irc.frontends.onnx.messages import check_strings
from irc.frontends.onnx.metadata import read_metadata, state_shape
from irc.frontends.onnx.reading import Carry, Reading, reading
from irc.frontends.onnx.scope import (
    DEFAULTS_SINCE,
    OLDEST_OPSET,
    UNSUPPORTED,
    Imported,
    Scope,
    Unsupported,
    normal_domain,
)
from irc.frontends.onnx.structure import Structure
from irc.frontends.onnx.table import Table
from irc.frontends.onnx.weights import OnnxConstant, onnx_constants, onnx_tensor
from irc.frontends.sweeping import sweep
from irc.ir import Block, Function, Operation, Value, rename
from irc.limits import check_limit
from irc.module import Module
from irc.op import Builder, const, return_
from irc.ops.rules import fits
from irc.shape_analysis import ShapeAnalysis
from irc.types import TensorType, checked_size
from irc.weights import INLINE_LIMIT, Tensor

ANONYMOUS = ("", "_", "?")  # dim_params that name nothing: exporters give them to different dims
TABLE = Table([pointwise, reduction, tensor, linear, attention, normalization, quantization, recurrent, sequences,
               contrib])
READERS = {**control.READERS, "Scan": scanning.read_scan}  # of nodes that have graphs, or make them
SEQUENCES = {"Identity", *(op_type for _, op_type in Table([sequences]).rows)}  # what takes sequences


def import_model(model: onnx.ModelProto, folder: Path, file: str | None, *, fold_defaults: bool = False) -> Module:
    """The module of a model; `file` is what locations call it. Initializers that are inputs as well are defaults of
    these, unless `fold_defaults` makes them constants."""
    check_strings(model, file)
    constants = onnx_constants(model, folder)
    metadata = read_metadata(model)
    if model.functions:
        model = inlined(model, file)
        constants = named_as_before(constants, onnx_constants(model, folder))
        metadata = {**read_metadata(model), **metadata}  # the inliner drops properties of nodes
    importer = Importer(model, constants, folder, file)
    importer.run(fold_defaults)
    name = PurePath(file).stem if file else model.graph.name or "model"
    module = Module(name, [importer.function], edge_cases="onnx")
    module.metadata = metadata
    for value, output in zip(importer.function.returned, model.graph.output, strict=True):
        if not value.type.is_ranked:
            state_shape(metadata, output)
    return module


class Importer:
    """One import; `function` is what it makes."""

    def __init__(self, model: onnx.ModelProto, constants: Sequence[OnnxConstant], folder: Path,
                 file: str | None) -> None:
        self.model = model
        self.folder = folder
        self.file = file
        self.opsets = self._read_opsets()
        self.structure = Structure(file)
        self.function = Function("main", location=Location(file=file, name=model.graph.name or None))
        self.analysis = ShapeAnalysis(is_open=True)
        self.builder = Builder(self.function.block)
        self.unsupported: list[tuple[str, str, str]] = []  # operator, node, reason
        self.declared: dict[str, onnx.TypeProto] = {}  # what the graphs that are read state of their values
        self.more = -sum(1 for _ in all_nodes(model.graph.node))  # nodes read beyond those of the model
        self.defaults: dict[str, Tensor] = {}  # of inputs
        self.constants: dict[tuple[str, ...], list[OnnxConstant]] = {}
        for constant in constants:
            self.constants.setdefault(constant.scope, []).append(constant)

    def run(self, fold_defaults: bool) -> None:
        graph = self.model.graph
        scope = Scope()
        sparse = (each.values for each in graph.sparse_initializer)
        initializers = {tensor.name for tensor in (*graph.initializer, *sparse)}
        inputs = {value.name for value in graph.input}
        if not fold_defaults and self.model.ir_version >= DEFAULTS_SINCE:
            main_constants = self.constants.get((), [])
            self.defaults = {constant.name: constant.tensor for constant in main_constants
                             if constant.name in inputs & initializers}  # fmt: skip
            self.constants[()] = [constant for constant in main_constants if constant.name not in self.defaults]
        initializers -= self.defaults.keys()
        self._add_inputs([value for value in graph.input if value.name not in initializers], scope)
        with self.builder:
            results = self.import_graph(graph, (), scope)
            for value, result in zip(graph.output, results, strict=True):
                if result is None:
                    self.unsupported.append(("an output that is not there", value.name, "no value stands for it"))
            self._raise_unsupported()
            self.builder.location = self.function.location
            results = [foreign.whole(self, value) for value in results]
            self.builder.create(return_, [value for value in results if isinstance(value, Value)])
        self.function.result_names = tuple(value.name for value in graph.output)
        sweep(self.function.block, set())

    # -- the model -------------------------------------------------------------------------------------------------

    def _read_opsets(self) -> dict[str, int]:
        opsets = {normal_domain(entry.domain): entry.version for entry in self.model.opset_import}
        newest = onnx.defs.onnx_opset_version()
        opset = opsets.setdefault("", OLDEST_OPSET if opsets else 1)
        if not OLDEST_OPSET <= opset <= newest:
            raise fail("onnx.opset", f"the model needs opset {opset} of the default domain",
                       at=Location(file=self.file), expected=f"an opset from {OLDEST_OPSET} to {newest}")
        for what, version in {**{f"opset of {domain!r}": version for domain, version in opsets.items()},
                              "version of the format": self.model.ir_version or 1}.items():  # fmt: skip
            if not 0 < version < 2**31:
                raise fail("onnx.invalid", f"there is no {what} {version}", at=Location(file=self.file))
        return opsets

    def _add_inputs(self, inputs: Sequence[onnx.ValueInfoProto], scope: Scope) -> None:
        dim_names = {dim.dim_param for value in inputs for dim in value.type.tensor_type.shape.dim}
        unused = (name for name in map("d{}".format, itertools.count()) if name not in dim_names)
        for value in inputs:
            if value.name in scope.values:
                raise fail("onnx.redefined_name", f"two inputs are called {value.name!r}", at=Location(file=self.file))
            argument = self.function.block.add_argument(self._input_type(value, unused), value.name)
            self.analysis.observe(argument.type)
            scope.values[value.name] = argument
            if value.name in self.defaults:
                self.function.defaults[argument] = self._default(argument)

    def _default(self, argument: Value) -> Tensor:
        tensor = self.defaults[argument.name]
        type_ = TensorType(tensor.dtype, tensor.shape)
        if not fits(type_, argument.type):
            raise fail("onnx.invalid", f"input {argument.name!r} is {argument.type}, but its initializer {type_}",
                       at=Location(file=self.file, name=argument.name))
        return _stored(tensor, has_file=self.file is not None)

    def _input_type(self, value: onnx.ValueInfoProto, unused: Iterator[str]) -> TensorType:
        """The type of an input; `unused` gives names for dims that have none."""
        at = Location(file=self.file, name=value.name)
        try:
            dtype = by_name(foreign.type_name(value.type))
        except IrcError as error:
            notes = [error.diagnostics[0].message]
            raise fail("onnx.invalid", f"input {value.name!r} has no type that irc reads", at=at, notes=notes) from None
        described = value.type.tensor_type
        if not described.HasField("shape"):
            default = self.defaults.get(value.name)
            return TensorType(dtype, None if default is None else default.shape)
        shape: list[Dim] = []
        for dim in described.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value != -1:
                if dim.dim_value < 0:
                    raise fail("onnx.invalid", f"input {value.name!r} has the extent {dim.dim_value}", at=at)
                shape.append(dim.dim_value)
            elif dim.dim_param.strip() not in ANONYMOUS:
                symbol = self.function.symbols.get(dim.dim_param) or self.function.symbol(dim.dim_param)
                shape.append(symbol.expr)
            else:
                shape.append(self.function.symbol(next(unused)).expr)
        try:
            return checked_size(TensorType(dtype, shape))
        except IrcError as error:
            raise error.placed(at) from None

    def _raise_unsupported(self) -> None:
        if not self.unsupported:
            return
        grouped: dict[tuple[str, str], list[str]] = {}
        for operator, node, reason in self.unsupported:
            grouped.setdefault((operator, reason), []).append(node)
        notes = [f"{len(nodes)} of {operator} ({reason}): {', '.join(nodes[:8])}{', ...' if len(nodes) > 8 else ''}"
                 for (operator, reason), nodes in grouped.items()]
        count = len(self.unsupported)
        raise fail("onnx.unsupported", f"irc cannot read {count} {'node' if count == 1 else 'nodes'} of this model",
                   at=Location(file=self.file), notes=notes,
                   help="--fold-defaults makes inputs that have an initializer constants" if self.defaults else None)

    # -- graphs ----------------------------------------------------------------------------------------------------

    def import_graph(self, graph: onnx.GraphProto, path: tuple[str, ...], scope: Scope) -> list[Imported]:
        """Append a graph's constants and nodes at the builder; returns its outputs. `path` as in OnnxConstant."""
        order = self.structure.ordered(graph, scope.has)
        self.declared.update((value.name, value.type) for value in (*graph.value_info, *graph.output))
        for constant in self.constants.get(path, ()):
            self.builder.location = Location(file=self.file, name=constant.name)
            value = _stored(constant.tensor, has_file=self.file is not None)
            scope.values[constant.name] = const(value=value, name=constant.name)
        return self._import_nodes(graph, order, path, scope)

    def _import_nodes(self, graph: onnx.GraphProto, order: Sequence[int], path: tuple[str, ...],
                      scope: Scope) -> list[Imported]:
        """Append nodes and return the graph's outputs; after an If whose branches give values of different ranks, the
        nodes that follow it are read into each branch."""
        for position, index in enumerate(order):
            node = graph.node[index]
            if node.op_type == "Constant" and not normal_domain(node.domain):
                continue
            try:
                self.import_node(node, (*path, str(index)), scope)
            except control.RanksDiffer as differing:
                rest = partial(self._import_nodes, graph, order[position + 1 :], path)
                return control.continue_in_each(self, differing, scope, rest)
        return [scope.find(value.name) for value in graph.output]

    def import_node(self, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope) -> None:
        """Read one node and bind its outputs; `path` ends with its number."""
        self.more += 1
        if self.more > 0:  # what branches and loops hold may be read several times, and what that holds, as many times
            check_limit("repeated", self.more, "what is read again for branches and loops comes to {}",
                        self.structure.at(node))
        operands = [scope.find(name) if name else None for name in node.input]
        while operands and operands[-1] is None:
            operands.pop()
        self.builder.location = self.structure.at(node)
        before = self.builder.block.last
        if any(isinstance(operand, Unsupported) for operand in operands):
            results: Sequence[Imported] = [UNSUPPORTED] * len(node.output)
        elif normal_domain(node.domain) == "" and node.op_type in READERS:
            results = READERS[node.op_type](self, node, path, scope, operands)
        else:
            results = self.read_row(node, operands)
        if len(results) < len(node.output):
            raise fail("onnx.invalid", f"{node.op_type} has {len(node.output)} outputs", at=self.structure.at(node),
                       expected=f"at most {len(results)}")
        results = [self._shape_in_normal_form(value) for value in results]
        fresh = set(_after(self.builder.block, before))
        for name, value in zip(node.output, results, strict=False):
            if name:
                scope.values[name] = value
                if isinstance(value, Value) and value.operation in fresh and value.is_anonymous:
                    rename(value, name)

    def read_row(self, node: onnx.NodeProto, operands: Sequence[Any]) -> Sequence[Imported]:
        """By the operator's row, or else whole, as `extern`."""
        domain = normal_domain(node.domain)
        opset = self.opsets.get(domain, 1)
        attributes = {attribute.name: self.attribute(attribute, node) for attribute in node.attribute}
        if domain or node.op_type not in SEQUENCES:
            operands = [foreign.whole(self, operand) for operand in operands]
        row = TABLE.find(domain, node.op_type, opset)
        if row is None or any(name not in row.schema.attributes for name in attributes):
            return foreign.carry(self, node, operands, attributes, ())
        try:
            with reading(Reading(node.op_type, opset, node.output, self.function, self.analysis)):
                result = row.read(operands, attributes)
        except Carry as reason:
            return foreign.carry(self, node, operands, attributes, reason.shapes)
        except IrcError as error:
            if foreign.takes(error, node, operands, opset):
                return foreign.carry(self, node, operands, attributes, ())
            raise error.placed(self.builder.location) from None
        return result if isinstance(result, (tuple, list)) else (result,)

    def attribute(self, proto: onnx.AttributeProto, node: onnx.NodeProto) -> tuple[str, Any]:
        """The kind and the value of an attribute; a value that no row takes is None."""
        kind = onnx.AttributeProto.AttributeType.Name(proto.type)
        at = self.structure.at(node)
        try:
            return kind, ATTRIBUTES[kind](proto) if kind in ATTRIBUTES else self._tensor(proto)
        except UnicodeDecodeError:
            raise fail("onnx.invalid", f"attribute `{proto.name}` is not UTF-8", at=at) from None
        except IrcError as error:
            raise error.placed(at) from None

    def _tensor(self, proto: onnx.AttributeProto) -> Tensor | None:
        return onnx_tensor(proto.t, self.folder) if proto.type == onnx.AttributeProto.TENSOR else None

    def _shape_in_normal_form(self, value: Imported) -> Imported:
        """Integer shapes that were computed step by step become one `dim`, or a constant."""
        if not isinstance(value, Value) or value.operation is None or value.operation.name in ("const", "dim"):
            return value
        return self.analysis.normal_form(value) or value


ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "FLOAT": lambda proto: _shortest(proto.f),
    "INT": lambda proto: proto.i,
    "STRING": lambda proto: proto.s.decode(),
    "FLOATS": lambda proto: tuple(map(_shortest, proto.floats)),
    "INTS": lambda proto: tuple(proto.ints),
    "STRINGS": lambda proto: tuple(text.decode() for text in proto.strings),
}


def _stored(tensor: Tensor, has_file: bool) -> Tensor:
    """Scalars and shape vectors are written inline, other constants by name: that under which the file has them."""
    is_shape = tensor.dtype in (I64, I32) and len(tensor.shape) == 1
    inline = not tensor.shape or (tensor.size <= INLINE_LIMIT and (is_shape or not has_file))
    return tensor.renamed(None) if inline else tensor


def _shortest(single: float) -> float:
    """The plainest number that is this one in the f32 of the file: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(single)))


def _after(block: Block, operation: Operation | None) -> Iterator[Operation]:
    current = block.first if operation is None else operation.next
    while current is not None:
        yield current
        current = current.next
