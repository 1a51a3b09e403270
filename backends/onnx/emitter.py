"""Emits a module as an ONNX ModelProto. Start at `emit_model`; `Emitter` visits the blocks.

Each operation is emitted by its row (`table.ROWS`). A named operation whose row is absent or does not apply is emitted
by its body. Calls are inlined; kernels are inlined, or become local functions with `keep_kernels`. Operations that
cannot be emitted are collected and reported together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import onnx
from onnx import helper

from irc.backends.onnx.casts import cast_before_transposes
from irc.backends.onnx.drawing import draws_in_regions, separate
from irc.backends.onnx.foreign import settled_opset
from irc.backends.onnx.graph import KERNEL_DOMAIN, Graph, Model, names_used, tensor_proto, value_info
from irc.backends.onnx.halves import round_halves
from irc.backends.onnx.inner_constants import move_constants_inward
from irc.backends.onnx.metadata import describe_model, describe_node, state_shapes
from irc.backends.onnx.opsets import NeedsOpset, check_types
from irc.backends.onnx.runtime import LAST_OPSETS
from irc.backends.onnx.scaling import keep_scales
from irc.backends.onnx.schemas import first_opset, schema_since, typed_since
from irc.backends.onnx.storage import DataFile
from irc.backends.onnx.table import ROWS
from irc.backends.onnx.target import Target
from irc.backends.onnx.transposed_products import prepare_transposed_products
from irc.diagnostics import Diagnostic, IrcError, UnsupportedError, fail
from irc.ir import Block, Function, Operation, Value
from irc.limits import check_limit, expanded
from irc.module import Module
from irc.ops.extern import is_call_of_torch


def emit_model(module: Module, target: Target, keep_kernels: bool, data: DataFile | None = None) -> onnx.ModelProto:
    """The ONNX model of a module's main function. Raises `backend.unsupported` with every operation that the target
    does not support."""
    target = replace(target, edge_cases=module.edge_cases)
    _check_calls(module)
    model, graph = _settled(module, target, keep_kernels, data)
    separate(graph, model)
    for nodes in (graph.node, *(function.node for function in model.functions.values())):
        model.name_nodes(nodes)
    imports = {"": model.opset, **dict(sorted(model.domains.items()))}
    opsets = [helper.make_opsetid(domain, number) for domain, number in imports.items()]
    for function in model.functions.values():
        used = {node.domain for node in function.node}
        function.opset_import.extend(each for each in opsets if each.domain in used | {""})
    proto = helper.make_model(
        graph,
        functions=list(model.functions.values()),
        opset_imports=opsets,
        ir_version=max(8 if model.functions or target.opset is None else 7,
                       helper.find_min_ir_version_for(opsets, ignore_unknown=True)),
    )
    if target.opset is not None:
        check_types(proto, target.opset)
    state_shapes(proto, module.metadata)
    describe_model(proto, module, target)
    move_constants_inward(proto.graph)
    return proto


def _settled(module: Module, target: Target, keep_kernels: bool, data: DataFile | None
             ) -> tuple[Model, onnx.GraphProto]:  # fmt: skip
    """The main graph, in the requested opset or the lowest one that all of its nodes allow. That opset is known only
    after emission: the module is emitted again where another opset changes an extern or removes an operator."""
    if target.opset is not None:
        lost = frozenset(name for name, last in LAST_OPSETS.items() if last < target.opset)
        return _attempt(module, Model(replace(target, without=lost), keep_kernels, data, target.opset))
    model, graph = _attempt(module, Model(target, keep_kernels, data))
    opset = settled_opset(model)
    if any(schema_since(*each) != schema_since(each[0], opset) for each in model.externs):
        if data is not None:
            data.restart()
        model, graph = _attempt(module, Model(target, keep_kernels, data, opset))
    lost = frozenset(name for name in model.operators if LAST_OPSETS.get(name, opset) < max(model.opset, opset))
    if lost:
        if data is not None:
            data.restart()
        model, graph = _attempt(module, Model(replace(target, without=lost), keep_kernels, data, model.settled))
    model.opset = max(model.opset, opset)
    return model, graph


def _check_calls(module: Module) -> None:
    """Raises `limit.exceeded` if inlining the calls would give too many operations."""
    if len(module.functions) > 1:
        calls = {name: Counter(str(each.attributes["callee"]) for each in function.walk() if each.name == "call")
                 for name, function in module.functions.items()}  # fmt: skip
        operation_counts = {name: sum(1 for _ in function.walk()) for name, function in module.functions.items()}
        check_limit("inlined", expanded(operation_counts, calls)[module.main.name] - operation_counts[module.main.name],
                    "the calls of the module's functions become {}", module.main.location)


def _check_complex(operation: Operation) -> None:
    """Raises `UnsupportedError` for what computes with complex numbers: they only pass through a model, as pairs."""
    passes = operation.regions or operation.name == "call" or is_call_of_torch(operation)
    if not passes and any(value.dtype.is_complex for value in (*operation.inputs, *operation.results)):
        raise UnsupportedError("ONNX Runtime has no complex numbers, and irc does not write this by real ones")


def _attempt(module: Module, model: Model) -> tuple[Model, onnx.GraphProto]:
    """Emit the main graph, and record the opset that its operators and element types require."""
    graph = Emitter(module, model).main(module.main)
    if model.unsupported:
        raise IrcError(model.unsupported)
    if model.target.opset is None:
        for op_type in model.operators:
            model.require(first_opset(op_type))
        for op_type, dtype in model.typed_operators:
            model.require(typed_since(op_type, dtype))
    return model, graph


class Emitter:
    """Emits one module: visits its blocks and appends nodes to graphs."""

    def __init__(self, module: Module, model: Model) -> None:
        self.module = module
        self.model = model
        model.emit_region = self.region
        model.draws_in_regions = draws_in_regions(module)

    # -- functions ---------------------------------------------------------------------------------------------

    def main(self, function: Function) -> onnx.GraphProto:
        """The main graph; its inputs and outputs have the names of the function's arguments and results."""
        arguments = [argument.name for argument in function.arguments]
        outputs = list(function.output_names)
        if not outputs:
            raise fail("backend.unsupported", f"@{function.name} has no results", at=function.location,
                       expected="at least one: an ONNX model has outputs")  # fmt: skip
        self._check_names(function, arguments, outputs)
        for name in (*arguments, *outputs):
            self.model.reserve(name)
        graph = Graph(self.model)
        for argument in function.arguments:
            self.define(graph, argument, argument.name)
        defaults = [tensor_proto(tensor, x.name, self.model.data) for x, tensor in function.defaults.items()]
        for value, name in zip(function.returned, outputs, strict=True):
            if value.operation is not None and value not in graph.final_names:
                graph.final_names[value] = name
        self.block(graph, function.block)
        if self.model.unsupported:
            return onnx.GraphProto()
        for value, name in zip(function.returned, outputs, strict=True):
            if graph.name(value) != name:
                node_name = self.model.unique_node(self.model.unique(name))
                graph.nodes.append(helper.make_node("Identity", [graph.name(value)], [name], node_name))
        finish(graph, outputs)
        used = {name for node in graph.nodes for name in names_used(node)}
        return helper.make_graph(
            graph.nodes,
            function.location.name or function.name,
            [value_info(argument.name, argument.type) for argument in function.arguments],
            [value_info(name, value.type) for value, name in zip(function.returned, outputs, strict=True)],
            [*defaults, *(proto for name, proto in self.model.initializers.items() if name in used)],
            value_info=self.types(graph, outputs),
        )

    def _check_names(self, function: Function, arguments: Sequence[str], outputs: Sequence[str]) -> None:
        for name, value in zip(outputs, function.returned, strict=True):
            if outputs.count(name) > 1:
                raise fail("backend.unsupported", f"two results are called {name!r}", at=function.location)
            if name in arguments and function.find(name) is not value:
                raise fail("backend.unsupported", f"an argument and a result are called {name!r}", at=function.location)

    def types(self, graph: Graph, outputs: Sequence[str]) -> list[onnx.ValueInfoProto]:
        """The types of the results of the graph's nodes, without its outputs: their entries contain the types."""
        produced = [name for node in graph.nodes for name in node.output]
        known = self.model.types
        stated = [name for name in produced if name in known and known[name].is_ranked and name not in outputs]
        return [value_info(name, known[name]) for name in stated]

    # -- blocks ------------------------------------------------------------------------------------------------

    def block(self, graph: Graph, block: Block) -> None:
        """Emit the operations of a block, without its terminator."""
        for operation in block:
            if operation.name != "const" and not operation.definition.is_terminator:
                self.operation(graph, operation)

    def operation(self, graph: Graph, operation: Operation) -> None:
        """Emit one operation. An unsupported one is recorded, and its results get names, so that operations after it
        are checked too."""
        before, start = graph.operation, len(graph.nodes)
        graph.operation = operation
        try:
            with self.model.emitting():
                produced = self.produce(graph, operation)
        except UnsupportedError as error:
            types = ", ".join(str(value.type) for value in operation.inputs)
            message = f"{operation.name} {types}: {error}"
            code = "backend.opset" if isinstance(error, NeedsOpset) else "backend.unsupported"
            self.model.unsupported.append(Diagnostic(code, message, operation.location))
            produced = [self.model.unique(result.name) for result in operation.results]
        settled: dict[str, str] = {}
        for result, name in zip(operation.results, produced, strict=True):
            if name not in settled:
                settled[name] = self.settle_name(graph, result, name, start)
            self.define(graph, result, settled[name])
        self.name_nodes(graph, operation, start)
        graph.operation = before

    def produce(self, graph: Graph, operation: Operation) -> Sequence[str]:
        """The names of an operation's results."""
        row = ROWS.get(operation.name)
        definition = operation.definition
        _check_complex(operation)
        self.model.hold(*(value.dtype for value in (*operation.inputs, *operation.results)))
        if operation.name == "kernel" and self.model.keep_kernels and not graph.root.is_function:
            return self.local_function(graph, operation)
        if operation.name in ("kernel", "call"):
            return self.inlined(graph, operation, self.callee(operation))
        if row is not None and row.applies(operation, self.model.target):
            try:
                produced = row.emit(graph, *operation.operands, **operation.attributes)
            except NeedsOpset:  # `Graph.sweep` removes the nodes that it appended
                if not definition.is_named:
                    raise
            else:
                names = produced if isinstance(produced, (list, tuple)) else [] if produced is None else [produced]
                return [graph.name(name) for name in names]
        if not definition.is_named:
            raise UnsupportedError("there is no such operator")
        return self.inlined(graph, operation, operation.body().block, prefix=f"{graph.hint}/")

    def callee(self, operation: Operation) -> Block:
        if operation.name == "kernel":
            return operation.regions[0].block
        return self.module.functions[operation.attributes["callee"]].block

    def inlined(self, graph: Graph, operation: Operation, block: Block, prefix: str = "") -> list[str]:
        """Emit a block into `graph`, with the operands of `operation` in place of the block's arguments."""
        inner = Graph(self.model, graph, inlined=True, prefix=prefix or graph.prefix)
        for argument, operand in zip(block.arguments, operation.inputs, strict=True):
            known = graph.known(operand)
            if known is not None:
                inner.contents[argument] = known
            self.define(inner, argument, graph.name(operand))
        self.block(inner, block)
        return [inner.name(value) for value in block.terminator.inputs]

    # -- names -------------------------------------------------------------------------------------------------

    def define(self, graph: Graph, value: Value, name: str) -> None:
        """Record that the tensor `name` is `value`."""
        graph.values[value] = name
        graph.carry(name, value.type, value.operation is not None)
        self.model.types.setdefault(name, value.type)

    def settle_name(self, graph: Graph, result: Value, name: str, start: int) -> str:
        """Rename a tensor that a new node computes to the name of the result; an older tensor keeps its name."""
        is_new = any(name in node.output for node in graph.nodes[start:])
        if not is_new or graph.is_shared(name):
            return name
        final_name = graph.final_names.get(result)
        if final_name is None and graph.prefix and result.is_anonymous:
            final_name = name
        elif final_name is None:
            final_name = self.model.unique(graph.prefix + result.name)
        if final_name != name:
            graph.rename(start, name, final_name)
        self.model.types[final_name] = result.type
        return final_name

    def name_nodes(self, graph: Graph, operation: Operation, start: int) -> None:
        """Name the node of the first result after the operation's source, and other nodes after their first output."""
        for node in graph.nodes[start:]:
            first = next(name for name in node.output if name)
            main = operation.results and first == graph.values[operation.results[0]]
            if main and operation.location.name and not graph.prefix:
                node.name = self.model.unique_node(operation.location.name)
                if node.name == operation.location.name:
                    describe_node(node, self.module.metadata)
            elif not node.name:
                node.name = self.model.unique_node(first)

    # -- regions -----------------------------------------------------------------------------------------------

    def region(self, graph: Graph, block: Block, name: str) -> onnx.GraphProto:
        """The body of an If or Loop: a graph that can read the names of the enclosing graphs."""
        inner = Graph(self.model, graph, prefix=graph.prefix)
        names = [self.model.unique(f"{graph.prefix}{argument.name}") for argument in block.arguments]
        for argument, given in zip(block.arguments, names, strict=True):
            self.define(inner, argument, given)
        self.block(inner, block)
        outputs = self.yielded(inner, block)
        return helper.make_graph(
            inner.nodes,
            name,
            [value_info(given, argument.type) for given, argument in zip(names, block.arguments, strict=True)],
            [value_info(given, value.type) for given, value in zip(outputs, block.terminator.inputs, strict=True)],
            value_info=self.types(inner, outputs),
        )

    def yielded(self, inner: Graph, block: Block, inputs: Sequence[str] = ()) -> list[str]:
        """The outputs of a graph, or of a local function of these inputs. ONNX requires each to be the output of a
        node of that graph, and all to be distinct: an Identity is inserted where a value is not."""
        outputs: list[str] = []
        for value in block.terminator.inputs:
            produced = inner.name(value)
            if produced in outputs or not any(produced in node.output for node in inner.nodes):
                produced = inner.node("Identity", produced)
            outputs.append(produced)
        finish(inner, outputs, inputs)
        return outputs

    def local_function(self, graph: Graph, operation: Operation) -> list[str]:
        """Emit a kernel as a local function and a node that calls it; returns the names of the results."""
        block = operation.regions[0].block
        name = operation.attributes["name"]
        taken, count = name, 0
        while taken in self.model.functions:
            count += 1
            taken = f"{name}_{count}"
        inner = Graph(self.model, graph, is_function=True)
        inputs = [self.model.unique(argument.name) for argument in block.arguments]
        for argument, given in zip(block.arguments, inputs, strict=True):
            self.define(inner, argument, given)
        self.block(inner, block)
        outputs = self.yielded(inner, block, inputs)
        further = list(inner.further)
        function = onnx.FunctionProto(domain=KERNEL_DOMAIN, name=taken, doc_string=str(operation.attributes["kind"]))
        function.input.extend([*inputs, *(inner.further[symbol] for symbol in further)])
        function.output.extend(outputs)
        function.node.extend(inner.nodes)
        self.model.functions[taken] = function
        extents = [graph.shape((symbol.expr,)) for symbol in further]
        called = graph.node(taken, *operation.inputs, *extents, outputs=len(outputs), domain=KERNEL_DOMAIN)
        return [called] if len(outputs) == 1 else list(called)


def finish(graph: Graph, outputs: Sequence[str], inputs: Sequence[str] = ()) -> None:
    """What is done to the nodes of a whole graph, or of a local function of these inputs, once all are emitted."""
    if graph.target.keeps_edges:
        round_halves(graph)
    cast_before_transposes(graph)
    prepare_transposed_products(graph, inputs)
    graph.sweep(outputs)
    keep_scales(graph)
