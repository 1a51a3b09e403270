"""From an ExportedProgram to a Module: parameters, inputs, then node by node by the ATen table.

The program must be functional and decomposed (see `exporting`). Parameters and buffers become constants named by
their paths, which share memory with the module; buffers that the program writes become inputs, and what it writes
further results. Symbolic integers become dims. Every value says which Python line and which module it came from;
the last value of a module that has no modules inside is named by the module's path, others by their nodes.
"""

from __future__ import annotations

import operator
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputKind, TensorArgument

from irc import dims
from irc.diagnostics import Diagnostic, IrcError, Location, fail
from irc.dims import Dim, Symbol
from irc.dtypes import I64, limits
from irc.frontends.sweeping import sweep
from irc.frontends.torch import (
    control,
    indexing,
    linear,
    normalization,
    pointwise,
    recurrent,
    reduction,
    symbolic,
    view,
)
from irc.frontends.torch.reading import DTYPES, UNSUPPORTED, Reading, Unreadable, reading, scalar
from irc.frontends.torch.table import Table, overload_name
from irc.ir import Function, Module, Value, rename
from irc.op import Builder, const, return_
from irc.types import TensorType
from irc.weights import Tensor

TABLE = Table([pointwise, reduction, view, indexing, linear, normalization, recurrent, symbolic])
FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')
LIBRARIES = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, __file__))
NO_ROW = "irc has no row for it"
IDENTIFIER = re.compile(r"[^A-Za-z0-9_.]+")


def import_program(program: ExportedProgram, names: dict[str, str], name: str) -> Module:
    """The module of a decomposed program; `names` gives symbols of torch's (s44) the names of their dims."""
    importer = Importer(program, names)
    importer.run()
    return Module(name, [importer.function])


def taken_inputs(signature: ExportGraphSignature) -> Iterator[InputSpec]:
    """What a program takes when it is called: its arguments, and of what it holds that which it writes."""
    written = {spec.target for spec in signature.output_specs if spec.kind is not OutputKind.USER_OUTPUT}
    for spec in signature.input_specs:
        is_held = spec.kind in (InputKind.BUFFER, InputKind.PARAMETER)
        if spec.kind is InputKind.USER_INPUT or (is_held and spec.target in written):
            yield spec


class Importer:
    """One import; `function` is what it makes."""

    def __init__(self, program: ExportedProgram, names: dict[str, str]) -> None:
        self.program = program
        self.names = names
        self.nodes = {node.name: node for node in program.graph.nodes}
        self.function = Function("main")
        self.builder = Builder(self.function.block)
        self.values: dict[torch.fx.Node, Any] = {}
        self.arguments: dict[str, Value] = {}  # by what PyTorch calls them, as its signature does
        self.numbers: set[Value] = set()
        self.symbols: dict[Any, Symbol] = {}  # by sympy's
        self.problems: list[tuple[str, str, Location]] = []  # overload, reason, where
        self.finals = _final_nodes(program.graph.nodes)

    def run(self) -> None:
        self._add_inputs()
        with self.builder:
            self._add_constants()
            self._import_nodes(self.program.graph)
            self._raise_problems()
            self.builder.location = self.function.location
            self._return()
        sweep(self.function.block, set())

    # -- the signature -------------------------------------------------------------------------------------------

    def _add_inputs(self) -> None:
        for spec in taken_inputs(self.program.graph_signature):
            if not isinstance(spec.arg, TensorArgument):
                continue  # a Python number that exporting made a constant of the program
            node = self.nodes[spec.arg.name]
            name = node.name if spec.kind is InputKind.USER_INPUT else str(spec.target)
            self.arguments[name] = self.function.block.add_argument(self._type(node.meta["val"]), name)
            self.values[node] = self.arguments[name]

    def _type(self, example: torch.Tensor) -> TensorType:
        return TensorType(_dtype(example.dtype), [self.dim(size) for size in example.shape])

    def dim(self, size: Any) -> Dim:
        """A size of torch's as a dim; its symbols are made when first seen."""
        return size if isinstance(size, int) else self._converted(size.node.expr)

    def _converted(self, expression: Any) -> Dim:
        import sympy
        from torch.utils._sympy import functions

        if expression.is_Integer:
            return int(expression)
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
            low, high = _range(allowed)
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
            key = (data.data_ptr(), data.dtype, tuple(data.shape), data.stride()) if data.numel() else (node,)
            if key not in held:
                self.builder.location = Location(name=str(spec.target))
                held[key] = const(value=constant(data, str(spec.target)), name=str(spec.target))
            self.values[node] = held[key]

    def _data(self, target: str, kind: InputKind) -> torch.Tensor:
        found = self.program.state_dict.get(target)
        return self.program.constants[target] if found is None else found

    def _return(self) -> None:
        specs = self.program.graph_signature.output_specs
        results: list[Value] = []
        names: list[str] = []
        taken = Counter[str]()
        # What the caller asked for comes first, then what is written back, named after what it updates.
        for spec in sorted(specs, key=lambda spec: spec.kind is not OutputKind.USER_OUTPUT):
            if not isinstance(spec.arg, TensorArgument):
                continue
            value = self.values[self.nodes[spec.arg.name]]
            name = value.name
            if spec.kind is not OutputKind.USER_OUTPUT:
                updated = self.arguments[str(spec.target)]
                self.function.updates[len(results)] = updated
                name = f"{updated.name}.updated"
            taken[name] += 1
            names.append(name if taken[name] == 1 else f"{name}_{taken[name] - 1}")
            results.append(value)
        self.builder.create(return_, results)
        self.function.result_names = tuple(names)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _import_nodes(self, graph: torch.fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function":
                self._import_node(node)
            elif node.op == "get_attr":  # a graph that control flow runs
                held = operator.attrgetter(node.target)(graph.owning_module)
                self.values[node] = held if isinstance(held, torch.fx.GraphModule) else UNSUPPORTED

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
            self.values[node] = UNSUPPORTED
            if not _has_reader(node.target):
                self.problems.append((overload_name(node.target), NO_ROW, self.builder.location))
            return
        try:
            with reading(Reading(node, self.function, self.numbers)):
                result = self._read(node, arguments, options)
        except (Unreadable, dims.DimError) as reason:
            self.problems.append((overload_name(node.target), str(reason), self.builder.location))
            result = UNSUPPORTED
        except IrcError as error:
            if not error.code.startswith("type."):
                raise error.placed(self.builder.location) from None
            self.problems.append((overload_name(node.target), error.diagnostics[0].message, self.builder.location))
            result = UNSUPPORTED
        if isinstance(result, Value) and result.is_anonymous and result.operation is not None:
            rename(result, self.finals.get(node, node.name))
        if isinstance(result, Value) and not isinstance(node.meta["val"], torch.Tensor):
            self.numbers.add(result)
        self.values[node] = result

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
        row = TABLE.find(target)
        if row is None:
            raise Unreadable(NO_ROW)
        result = row.function(*arguments, **options)
        several = isinstance(node.meta.get("val"), (tuple, list))
        return result[0] if isinstance(result, tuple) and not several else result

    def number(self, example: Any, value: Value, carried: bool = False) -> Any:
        """A symbol for an integer that a run computes; other numbers, and tensors, stay values. One that a loop carries
        need be no extent, hence may be any."""
        if not isinstance(example, torch.SymInt):
            return value
        theirs = example.node.expr
        low, high = _range(self.program.range_constraints.get(theirs), low=None)
        if carried:
            low, high = map(int, limits(I64))
        result = symbolic.bound(value, low, high)
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
        count = len(self.problems)
        raise IrcError([Diagnostic(
            "torch.unsupported", f"irc cannot read {count} {'node' if count == 1 else 'nodes'} of this program",
            notes=tuple(notes))])


def constant(data: torch.Tensor, name: str) -> Tensor:
    """A tensor of torch's as a constant that shares its memory."""
    dense = data.detach().cpu().contiguous()
    dtype = _dtype(dense.dtype)
    if dtype.is_float and dtype.bits <= 16 and dtype.name != "f16":  # NumPy itself knows neither bf16 nor 8-bit floats
        array = dense.view(torch.uint8 if dtype.bits == 8 else torch.uint16).numpy().view(dtype.numpy)
    else:
        array = dense.numpy()
    array = array.view()
    array.flags.writeable = False
    return Tensor(dtype, tuple(dense.shape), lambda: array, name)


def location_of(node: torch.fx.Node) -> Location:
    """The line of the user's Python behind a node, and the path of the innermost module around it."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith((*LIBRARIES, "<"))]
    module = _path(node)
    if not own:
        return Location(name=module or node.name)
    file, line = own[-1]
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
    leaves = [path for path in last if not any(other.startswith(f"{path}.") for other in last)]
    return {last[path]: IDENTIFIER.sub("_", path) for path in leaves}


def _range(allowed: Any, low: int | None = dims.IMPORTED_LOW) -> tuple[int, int]:
    """The ends of a range of torch's, infinite ones replaced."""
    least, most = (-dims.IMPORTED_HIGH if low is None else low), dims.IMPORTED_HIGH
    if allowed is None:
        return max(least, 0), most
    lower, upper = allowed.lower, allowed.upper
    if lower.is_finite and lower.is_Integer:
        least = max(least, int(lower))
    if upper.is_finite and upper.is_Integer:
        most = min(most, int(upper))
    return least, most


def _dtype(dtype: torch.dtype) -> Any:
    if dtype not in DTYPES:
        raise fail("type.dtype", f"irc has no element type for {dtype}")
    return DTYPES[dtype]


def _has_reader(target: Any) -> bool:
    own = (operator.getitem, torch.ops.aten._local_scalar_dense.default)
    in_tables = target in symbolic.PYTHON or TABLE.find(target) is not None
    return target in own or in_tables or control.reader(target) is not None


def _mentions_unsupported(arguments: Sequence[Any]) -> bool:
    return any(
        each is UNSUPPORTED or (isinstance(each, (list, tuple)) and _mentions_unsupported(each)) for each in arguments
    )
