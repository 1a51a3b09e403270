"""From an ExportedProgram to a Module: parameters, inputs, then node by node by the ATen table.

The program must be functional and decomposed (see `exporting`). Parameters and buffers become constants named by
their paths, which share memory with the module; buffers that the program writes become inputs, and what it writes
further results. Symbolic integers become dims. Every value says which Python line and which module it came from;
the last value of a module that has no modules inside is named by the module's path, others by their nodes.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch._higher_order_ops.effects import with_effects
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    OutputKind,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from irc import dims, ops
from irc.diagnostics import Diagnostic, IrcError, Location, UnsupportedError, fail
from irc.dims import Dim, Symbol
from irc.dtypes import BOOL, F64, I64, limits
from irc.frontends.sweeping import sweep
from irc.frontends.torch import (
    attention,
    control,
    convolution,
    counting,
    embedding,
    grouped,
    indexing,
    left_to_torch,
    linear,
    losses,
    normalization,
    pointwise,
    pooling,
    quantized,
    recurrent,
    reduction,
    resampling,
    special,
    symbolic,
    transcendental,
    view,
)
from irc.frontends.torch.alternatives import OTHERS, alternative
from irc.frontends.torch.guards import Guards
from irc.frontends.torch.reading import UNSUPPORTED, Reading, bound, converted, reading, scalar
from irc.frontends.torch.signatures import given_results, taken_inputs, updated_input
from irc.frontends.torch.table import Table, overload_name
from irc.frontends.torch.tensors import constant, element_type, memory_key
from irc.ir import Function, Value, rename
from irc.module import Module
from irc.op import Builder, const, return_
from irc.ops import aten
from irc.types import TensorType

TABLE = Table([pointwise, special, transcendental, reduction, counting, view, indexing, embedding, linear, grouped,
               attention, convolution, pooling, resampling, losses, normalization, quantized, recurrent,
               symbolic, left_to_torch])  # fmt: skip
FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')
LIBRARIES = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, __file__))
NO_ROW = "irc has no row for it"
NUMBERS = {SymIntArgument: I64, SymFloatArgument: F64, SymBoolArgument: BOOL}  # symbolic ones, and their element types
IDENTIFIER = re.compile(r"[^A-Za-z0-9_.]+")


class Program(Protocol):
    """What the importer reads of an ExportedProgram; graphs that torch.compile captures have it too (`captured`)."""

    @property
    def graph_module(self) -> torch.fx.GraphModule: ...

    @property
    def graph_signature(self) -> ExportGraphSignature: ...

    @property
    def range_constraints(self) -> Mapping[Any, Any]: ...

    @property
    def state_dict(self) -> Mapping[str, Any]: ...

    @property
    def constants(self) -> Mapping[str, Any]: ...


def import_with_values(program: Program, names: dict[str, str], name: str,
                       guards: Guards) -> tuple[Module, dict[str, str]]:  # fmt: skip
    """The module of a decomposed program, and the name of the value that stands for each node of its graph, by the
    node's. `names` gives symbols of torch's (s44) the names of their dims, and `guards` are asserted."""
    importer = Importer(program, names, guards)
    importer.run()
    named = {node.name: value.name for node, value in importer.values.items()
             if isinstance(value, Value) and node.graph is importer.graph
             and importer.function.named(value.name) is value}  # fmt: skip
    return Module(name, [importer.function]), named


def argument_names(signature: ExportGraphSignature) -> dict[str, str]:
    """The names of the function's arguments, in order, by what PyTorch calls their placeholders.

    What a caller gives has the placeholder's name. A parameter or buffer has its path, with a number after it where
    an argument has that name.
    """
    specs = list(taken_inputs(signature))
    taken = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    names: dict[str, str] = {}
    for spec in specs:
        is_given = spec.kind is InputKind.USER_INPUT
        names[spec.arg.name] = spec.arg.name if is_given else _unused(str(spec.target), taken)
        taken.add(names[spec.arg.name])
    return names


class Importer:
    """One import; `function` is what it makes. Of what irc leaves to PyTorch the operators in `calls` are read, and,
    with `reads_effects`, those whose effects have an order."""

    calls: Container[str] = aten.OPERATORS
    reads_effects = True

    def __init__(self, program: Program, names: dict[str, str], guards: Guards | None = None) -> None:
        self.program = program
        self.names = names
        self.guards = guards or Guards()
        self.graph = program.graph_module.graph
        self.nodes = {node.name: node for node in self.graph.nodes}
        self.function = Function("main")
        self.builder = Builder(self.function.block)
        self.values: dict[torch.fx.Node, Any] = {}
        self.arguments: dict[str, Value] = {}  # by what PyTorch calls their placeholders
        self.extents = _symbols_of_extents(program)
        self.numbers: set[Value] = set()
        self.symbols: dict[Any, Symbol] = {}  # by sympy's
        self.problems: list[tuple[str, str, Location]] = []  # overload, reason, where
        self.finals = _final_nodes(self.graph.nodes)

    def run(self) -> None:
        self._add_inputs()
        with self.builder:
            self._bind_numbers()
            self._add_guards()
            self._add_constants()
            self._import_nodes(self.graph)
            self._raise_problems()
            self.builder.location = self.function.location
            self._return()
        sweep(self.function.block, set())

    # -- the signature -------------------------------------------------------------------------------------------

    def _add_inputs(self) -> None:
        signature = self.program.graph_signature
        for spec, (placeholder, name) in zip(taken_inputs(signature), argument_names(signature).items(), strict=True):
            node = self.nodes[placeholder]
            if not isinstance(spec.arg, (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)):
                raise fail("torch.unsupported", f"the argument {name} is a {type(node.meta['val']).__name__}",
                           expected="tensors, numbers, strings or None",
                           help="let the program have it otherwise: lambda x: program(x, constant)")
            self.arguments[placeholder] = self.function.block.add_argument(self._type(node.meta["val"]), name)
            self.values[node] = self.arguments[placeholder]

    def _bind_numbers(self) -> None:
        """Symbols for the arguments that are integers of Python; those that are floats promote as Python's do."""
        for name, value in self.arguments.items():
            node = self.nodes[name]
            with reading(Reading(node, self.function, self.numbers, self.dim, self.calls)):
                self.values[node] = self.number(node.meta["val"], value)
            if isinstance(node.meta["val"], (float, torch.SymFloat)):
                self.numbers.add(value)

    def _add_guards(self) -> None:
        """Assertions that the sizes are among those for which PyTorch has exported the program."""

        def size(placeholder: str, axis: int | None) -> Any:
            value = self.values[self.nodes[placeholder]]
            return value if axis is None else value.shape[axis]

        if not self.guards.texts:
            return
        inputs = next(iter(self.nodes.values()))  # guards are no node's
        with reading(Reading(inputs, self.function, self.numbers, self.dim, self.calls)):
            for condition, words in self.guards.conditions(size):
                if condition is not True:
                    message = f"PyTorch exported this program for sizes with {words}"
                    ops.assert_(converted(condition, BOOL), message=message)

    def _type(self, example: Any) -> TensorType:
        if isinstance(example, torch.SymInt):
            return TensorType(I64, ())
        if isinstance(example, (float, torch.SymFloat)):
            return TensorType(F64, ())
        if isinstance(example, torch.SymBool):
            return TensorType(BOOL, ())
        return TensorType(element_type(example.dtype), [self.dim(size) for size in example.shape])

    def dim(self, size: Any) -> Dim:
        """A size of torch's as a dim; its symbols are made when first seen."""
        return size if isinstance(size, int) else self._converted(size.node.expr)

    def _converted(self, expression: Any) -> Dim:
        import sympy
        from torch.utils._sympy import functions

        if expression.is_Integer:
            return int(expression)
        if expression in self.symbols:  # what Python computes of sizes is an argument of a part, or bound
            return self.symbols[expression].expr
        if isinstance(expression, sympy.Symbol):
            return self._symbol(expression).expr
        arguments = [self._converted(argument) for argument in expression.args]
        if isinstance(expression, sympy.Add):
            return dims.total(arguments)
        if isinstance(expression, sympy.Mul):
            return dims.product(arguments)
        if isinstance(expression, sympy.Pow) and isinstance(arguments[1], int):
            return dims.product([arguments[0]] * arguments[1])
        for kinds, convert in (
            ((functions.FloorDiv, functions.CleanDiv), dims.floor_divide),
            ((functions.Mod, functions.PythonMod), dims.modulo),
            ((sympy.Max, functions.Max), dims.maximum),
            ((sympy.Min, functions.Min), dims.minimum),
        ):
            if isinstance(expression, kinds):
                return convert(*arguments)
        raise fail("torch.unsupported", f"the size {expression} of an input is no dim of irc")

    def _symbol(self, theirs: Any) -> Symbol:
        if theirs not in self.symbols:
            allowed = self.program.range_constraints.get(theirs)
            low, high = _range(allowed, dims.IMPORTED_LOW, dims.IMPORTED_HIGH)
            name = self.names.get(str(theirs), str(theirs))
            self.symbols[theirs] = self.function.symbol(name, low, high)
        return self.symbols[theirs]

    def _add_constants(self) -> None:
        """Parameters, buffers and lifted tensors: each tensor once, however many names it has."""
        held: dict[tuple[Any, ...], Value] = {}
        for spec in self.program.graph_signature.input_specs:
            node = self.nodes.get(getattr(spec.arg, "name", ""))
            if node is None or node in self.values or spec.kind is InputKind.USER_INPUT or not node.users:
                continue
            if spec.kind is InputKind.TOKEN:  # the order of effects, which irc's blocks have by themselves
                self.values[node] = None
                continue
            if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                self.problems.append((f"an input of kind {spec.kind.name}", "only tensors are read", Location()))
                self.values[node] = UNSUPPORTED
                continue
            data = self._data(str(spec.target), spec.kind)
            if (key := memory_key(data)) not in held:
                self.builder.location = Location(name=str(spec.target))
                held[key] = const(value=constant(data, str(spec.target)), name=str(spec.target))
            self.values[node] = held[key]

    def _data(self, target: str, kind: InputKind) -> torch.Tensor:
        tensor = self.program.state_dict.get(target)
        return self.program.constants[target] if tensor is None else tensor

    def _return(self) -> None:
        signature = self.program.graph_signature
        results, names = list[Value](), list[str]()
        for spec in given_results(signature):
            if not isinstance(spec.arg, (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)):
                raise fail("torch.unsupported", f"a result is a {type(spec.arg).__name__}, which irc does not read")
            node = self.nodes[spec.arg.name]
            value, name = self.values[node], ""
            if not isinstance(value, Value):
                value, name = converted(value, NUMBERS[type(spec.arg)]), node.name
            if spec.kind is not OutputKind.USER_OUTPUT:
                updated = self.arguments[updated_input(signature, spec)]
                self.function.updates[len(results)] = updated
                name = f"{updated.name}.updated"
            results.append(value)
            names.append(name or value.name)
        self.builder.create(return_, results)
        self.function.result_names = _apart(names, {argument.name for argument in self.function.arguments}, results)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _import_nodes(self, graph: torch.fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function":
                self._import_node(node)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)

    def _attribute(self, node: torch.fx.Node) -> Any:
        """What a graph holds under a name: a graph that control flow runs."""
        held = operator.attrgetter(str(node.target))(node.graph.owning_module)
        return held if isinstance(held, torch.fx.GraphModule) else UNSUPPORTED

    def import_graph(self, module: torch.fx.GraphModule, operands: Sequence[Any]) -> list[Any]:
        """What a graph gives that control flow runs, read at the builder."""
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        for node, operand in zip(placeholders, operands, strict=True):
            is_value = isinstance(operand, Value)
            self.values[node] = self.number(node.meta["val"], operand, carried=True) if is_value else operand
        outer = self.builder.location
        self._import_nodes(module.graph)
        self.builder.location = outer
        (given,) = module.graph.output_node().args
        return [self._argument(each) for each in (given if isinstance(given, (list, tuple)) else [given])]

    def _import_node(self, node: torch.fx.Node) -> None:
        arguments = [self._argument(each) for each in node.args]
        options = {name: self._argument(each) for name, each in node.kwargs.items()}
        self.builder.location = location_of(node)
        if _mentions_unsupported([*arguments, *options.values()]):
            self.values[node] = UNSUPPORTED if _has_reader(node.target) else self._reject(node, NO_ROW)
            return
        try:
            with reading(Reading(node, self.function, self.numbers, self.dim, self.calls)):
                result = self._read(node, arguments, options)
        except (UnsupportedError, dims.DimError) as reason:
            result = self._reject(node, str(reason))
        except IrcError as error:
            if not error.code.startswith("type."):
                raise error.placed(self.builder.location) from None
            result = self._reject(node, error.diagnostics[0].message)
        if isinstance(result, Value) and result.is_anonymous and result.operation is not None:
            rename(result, self.finals.get(node, node.name))
        if isinstance(result, Value) and not isinstance(node.meta["val"], torch.Tensor):
            self.numbers.add(result)
        self.values[node] = result

    def _reject(self, node: torch.fx.Node, reason: str) -> Any:
        """Note that a node cannot be read; returns what stands for its result, so that the rest is still looked at."""
        self.problems.append((overload_name(node.target), reason, self.builder.location))
        return UNSUPPORTED

    def _read(self, node: torch.fx.Node, arguments: list[Any], options: dict[str, Any]) -> Any:
        target = node.target
        if target is operator.getitem:
            return arguments[0][arguments[1]]
        if target in symbolic.PYTHON:
            return symbolic.PYTHON[target](*arguments)
        if target is torch.ops.aten._local_scalar_dense.default:
            return self.number(node.meta["val"], scalar(arguments[0]))
        read_control = control.reader(target)
        if read_control is not None:
            return read_control(self, node, *arguments, **options)
        if target is with_effects and self.reads_effects:
            _, target, *arguments = arguments
        row = TABLE.find(target)
        if row is None:
            raise UnsupportedError(NO_ROW if target is node.target else f"irc has no row for {overload_name(target)}")
        result = row.function(*arguments, **options)
        if node.target is with_effects:  # the order of effects comes first
            return (None, *(result if isinstance(result, tuple) else (result,)))
        several = isinstance(node.meta.get("val"), (tuple, list))
        return result[0] if isinstance(result, tuple) and not several else result

    def number(self, example: Any, value: Value, carried: bool = False) -> Any:
        """A symbol for an integer that a run computes; other numbers, and tensors, stay values. One that a loop carries
        need be no extent, hence may be any."""
        if not isinstance(example, torch.SymInt):
            return value
        theirs = example.node.expr
        if carried:
            low, high = map(int, limits(I64))
        else:
            widest = (-dims.IMPORTED_HIGH, dims.IMPORTED_HIGH) if theirs in self.extents else map(int, limits(I64))
            low, high = _range(self.program.range_constraints.get(theirs), *widest)
        result = bound(value, low, high)
        (self.symbols[theirs],) = dims.free_symbols(result)
        return result

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        if isinstance(argument, (list, tuple)):
            return [self._argument(each) for each in argument]
        return argument

    def _raise_problems(self) -> None:
        """All that cannot be read, at once: how often, why and where."""
        if not self.problems:
            return
        grouped: dict[tuple[str, str], list[Location]] = {}
        for overload, reason, where in self.problems:
            grouped.setdefault((overload, reason), []).append(where)
        notes = []
        for (overload, reason), places in grouped.items():
            lines = list(dict.fromkeys(str(place) for place in places if place.known))
            shown = ", ".join(lines[:8]) + (", ..." if len(lines) > 8 else "")
            notes.append(f"{len(places)} of {overload} ({reason}){': ' if shown else ''}{shown}")
        notes += dict.fromkeys(filter(None, (alternative(overload) for overload, _ in grouped)))
        count = len(self.problems)
        raise IrcError([Diagnostic(
            "torch.unsupported", f"irc cannot read {count} {'node' if count == 1 else 'nodes'} of this program",
            notes=tuple(notes), help=OTHERS)])


def location_of(node: torch.fx.Node) -> Location:
    """The line of the user's Python for a node, and the path of the innermost module around it."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    user_frames = [frame for frame in frames if not frame[0].startswith((*LIBRARIES, "<"))]
    module = _path(node)
    if not user_frames:
        return Location(name=module or node.name)
    file, line = user_frames[-1]
    return Location(_shown(file), int(line), name=module or None)


def _path(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _shown(file: str) -> str:
    """A file as a reader knows it: seen from here, or from where Python finds it; never this machine's whole path."""
    for root in (os.getcwd(), *sorted(sys.path, key=len, reverse=True)):
        if root and file.startswith(root.rstrip(os.sep) + os.sep):
            return file[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
    return os.path.basename(file)


def _final_nodes(nodes: Iterable[torch.fx.Node]) -> dict[torch.fx.Node, str]:
    """The last node of each module that has none inside, with the module's path, which names its result."""
    last: dict[str, torch.fx.Node] = {}
    for node in nodes:
        path = _path(node)
        if node.op == "call_function" and path:
            last[path] = node
    parents = {prefix for path in last for prefix in itertools.accumulate(path.split(".")[:-1], "{}.{}".format)}
    return {node: IDENTIFIER.sub("_", path) for path, node in last.items() if path not in parents}


def _range(allowed: Any, least: int, most: int) -> tuple[int, int]:
    """The ends of a range of torch's, within these."""
    if allowed is None:
        return max(least, 0), most
    lower, upper = allowed.lower, allowed.upper
    if lower.is_finite and lower.is_Integer:
        least = max(least, int(lower))
    if upper.is_finite and upper.is_Integer:
        most = min(most, int(upper))
    return least, most


def _symbols_of_extents(program: Program) -> set[Any]:
    """The symbols of torch's that sizes of tensors mention, those inside of control flow too."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    examples = (node.meta.get("val") for graph in graphs for node in graph.nodes)
    tensors = (leaf for example in examples for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor))
    sizes = (size for tensor in tensors for size in tensor.shape if isinstance(size, torch.SymInt))
    return {symbol for size in sizes for symbol in size.node.expr.free_symbols}


def _unused(name: str, taken: Container[str]) -> str:
    """A name that is not used: this one, or with a number after it."""
    return name if name not in taken else next(each for number in itertools.count(1)
                                               if (each := f"{name}_{number}") not in taken)


def _apart(names: Sequence[str], arguments: set[str], values: Sequence[Value]) -> tuple[str, ...]:
    """Names of results, each used once. The first result of a name keeps it; another, and one that has an argument's
    name without being that argument, gets a number after it."""
    kept = [name for name, value in zip(names, values, strict=True) if name not in arguments or value.operation is None]
    taken, free = set(names) | arguments, set(kept)
    unique_names = []
    for name in names:
        unique_names.append(name if name in free else _unused(name, taken))
        free.discard(name)
        taken.add(unique_names[-1])
    return tuple(unique_names)


def _has_reader(target: Any) -> bool:
    read_here = (operator.getitem, with_effects, torch.ops.aten._local_scalar_dense.default)
    in_tables = target in symbolic.PYTHON or TABLE.find(target) is not None
    return target in read_here or in_tables or control.reader(target) is not None


def _mentions_unsupported(arguments: Sequence[Any]) -> bool:
    return any(
        each is UNSUPPORTED or (isinstance(each, (list, tuple)) and _mentions_unsupported(each)) for each in arguments
    )
