"""The host program: allocations, launches and host calls, as a Python function for each function of the module."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from irc import dims
from irc.backends.triton import buffers, pointwise
from irc.backends.triton.buffers import allocates, last_uses, reused
from irc.backends.triton.calls import HOST, STRINGS, TORCH_TYPES, UNTYPED, in_range, is_narrow, torch_type
from irc.backends.triton.externs import Extern, torch_attributes, torch_function
from irc.backends.triton.helpers import helper_sources
from irc.backends.triton.sizes import UNCHECKED, Sizes, sole_symbol, symbol_sources
from irc.backends.triton.source import KernelSource, content, wrapped, write_kernel
from irc.backends.triton.text import Names, identifier, plain, quoted
from irc.diagnostics import Diagnostic, IrcError
from irc.dims import Dim, Expr, Symbol
from irc.dtypes import STRING, DType
from irc.ir import Block, Function, FunctionName, Operation, Value
from irc.kernel import Kernel, LegalityFailure, derive
from irc.kernel.dag import Apply, variables, walk
from irc.kernel.schedule import WARP
from irc.module import Module
from irc.weights import Tensor

BUILTINS = frozenset({"weights", "externs", "device", "host", "kernels", "drawing", "strings", "torch", "launch",
                      "Grid", "Loop", "Whole", "check", "check_dim", "refine", "bcast", "empty",
                      "nonzero"})  # fmt: skip


@dataclass
class Launched:
    """A kernel of the artefact, with the kernel it was derived as."""

    source: KernelSource
    kernel: Kernel


@dataclass
class Program:
    """All that the artefact holds: text, kernels, weights, externs, and what was counted."""

    text: str = ""
    kernels: list[Launched] = field(default_factory=list)
    launches: dict[str, str] = field(default_factory=dict)  # of each `kernel` by its name that of its source
    weights: dict[str, Tensor] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)  # of inputs by name, the names among the weights
    externs: list[Extern] = field(default_factory=list)
    host_calls: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # kernels that run as host calls instead, and why
    derived: dict[Operation, Kernel | LegalityFailure] = field(default_factory=dict)  # what was found of each `kernel`
    modules: set[str] = field(default_factory=set)  # templates that it uses beside those that all have
    lines: dict[int, Operation] = field(default_factory=dict)  # by numbers of lines of the text, what they compute


def write_program(module: Module) -> Program:
    """The host program of a module; raises `backend.unsupported`, listing all operations that PyTorch lacks."""
    writer = _ProgramWriter(module)
    return writer.write()


def launched(operation: Operation) -> Kernel | LegalityFailure:
    """The kernel of a `kernel` operation, or why it runs as host calls."""
    block = operation.regions[0].block
    members = [member for member in block if not member.definition.is_terminator]
    computed = [value for value in dict.fromkeys(block.terminator.inputs) if value.operation is not None]
    try:
        kernel = derive(members, outputs=computed)
    except LegalityFailure as failure:
        return failure
    for node in kernel.nodes:
        if isinstance(node, Apply) and not pointwise.writable(node.name, node.operands[0].dtype):
            what = f"{node.name} of {node.operands[0].dtype}"
            return LegalityFailure("backend.unsupported", "F2", f"{what} cannot be written in Triton")
    return kernel


class _ProgramWriter:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.program = Program()
        self.kernel_names = Names({"triton", "tl", *helper_sources()})  # all stand in kernels.py
        self.function_names = Names({*BUILTINS, "main"})
        self.extern_names = Names()  # files are called by them
        self.functions = {
            name: "main" if function is module.main else self.function_names.fresh(name, "function")
            for name, function in module.functions.items()
        }
        self.problems: list[Diagnostic] = []
        self.sources: dict[Hashable, KernelSource] = {}

    def write(self) -> Program:
        writers = [_FunctionWriter(self, function, self.functions[name])
                   for name, function in self.module.functions.items()]  # fmt: skip
        parts = ["\n".join(writer.lines()) for writer in writers]
        if self.problems:
            raise IrcError(self.problems)
        for argument, tensor in self.module.main.defaults.items():
            self.program.defaults[argument.name] = self.weight(tensor, argument.name)
        body = "\n\n\n".join(parts)
        runtime = ("Grid", "Loop", "Whole", "bcast", "check", "check_dim", "launch", "nonzero", "refine")
        wanted = [name for name in runtime if re.search(rf"(?<![\w.]){name}\(", body)]
        imports = ["import torch", "", f"from . import {', '.join(sorted({'host', 'kernels', *self.program.modules}))}"]
        if wanted:
            imports.append(f"from .runtime import {', '.join(wanted)}")
        head = '"""The host program: what runs, in order. Tensors are named as in the source model."""'
        self.program.text = "\n".join([head, "", *imports, "", "", body, ""])
        start = len(imports) + 5
        for writer, part in zip(writers, parts, strict=True):
            self.program.lines |= {start + line: operation for line, operation in writer.computing.items()}
            start += part.count("\n") + 3
        return self.program

    def weight(self, tensor: Tensor, hint: str) -> str:
        """The name of a constant among the weights."""
        name = tensor.name or f"const.{hint}"
        count = 1
        while name in self.program.weights and self.program.weights[name] != tensor.renamed(name):
            count += 1
            name = f"{tensor.name or f'const.{hint}'}.{count}"
        self.program.weights[name] = tensor.renamed(name)
        return name

    def module_of(self, name: str) -> str:
        """The name of a template, which is noted as one that the program uses."""
        self.program.modules |= {name} - {"host"}
        return name

    def kernel(self, kernel: Kernel, hint: str, labels: Mapping[Value, str]) -> KernelSource:
        """The source of a kernel, called after `hint`; an equal one, of an equal layer, is written once."""
        key = content(kernel)
        if key in self.sources:
            source = replace(self.sources[key], buffers=(*kernel.inputs, *kernel.outputs))
        else:
            source = write_kernel(kernel, self.kernel_names.fresh(identifier(hint), "kernel"), labels)
            self.sources[key] = source
            self.program.kernels.append(Launched(source, kernel))
        self.program.launches[hint] = source.name
        return source


class _FunctionWriter:
    """One function: values are Python variables, symbols are integers."""

    def __init__(self, owner: _ProgramWriter, function: Function, name: str) -> None:
        self.owner = owner
        self.function = function
        self.name = name
        self.names = Names({*BUILTINS, *owner.functions.values()})
        self.sizes = Sizes(self.names, self._line)
        self.symbols = self.sizes.variables
        self.values: dict[Value, str] = {}
        self.dense: set[str] = set()  # variables whose tensors are known to be contiguous
        self.taken: dict[Value, Value] = {}  # by outputs of launches: the dead buffers that they take
        self.indent = ""
        self.out: list[str] = []
        self.computing: dict[int, Operation] = {}  # by positions in `out`, what a line computes
        self.current: Operation | None = None

    def lines(self) -> list[str]:
        arguments = [self._name(argument) for argument in self.function.arguments]
        if self.name == "main":
            self.dense.update(arguments)  # the runtime sees to it
        self._line(f"def {self.name}({', '.join(['weights', 'externs', 'device', *arguments])}):")
        self.indent = "    "
        outputs = zip(self.function.output_names, self.function.returned, strict=True)
        taken = [plain(f"{value.name} {value.type}") for value in self.function.arguments]
        given = [plain(f"{name} {value.type}") for name, value in outputs]
        self.out.extend(['    """Inputs and outputs:', "", *(f"    {line}" for line in taken), "    ->"])
        self.out.extend([*(f"    {line}" for line in given), '    """'])
        for symbol, source in symbol_sources(self.function).items():
            self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
            size = source.size(f"{self._name(source.value)}.shape[{source.axis}]", self.symbols)
            self._line(f"{self.symbols[symbol]} = {size}")
        for symbol in self.function.symbols.values():
            if symbol not in self.symbols:
                self._problem(f"symbol {symbol.name} cannot be inferred from the extents of any input",
                              self.function.location)
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")  # to find other problems
        self._block(self.function.block)
        return self.out

    def _line(self, text: str) -> None:
        first = len(self.out)
        self.out.extend(wrapped(f"{self.indent}{text}"))
        if self.current is not None:
            self.computing |= dict.fromkeys(range(first, len(self.out)), self.current)

    def _problem(self, message: str, location: Any) -> None:
        self.owner.problems.append(Diagnostic("backend.unsupported", f"triton: {message}", location))

    def _name(self, value: Value) -> str:
        if value not in self.values:
            self.values[value] = self.names.fresh(identifier(value.name), "value")
        return self.values[value]

    def _bind_shape(self, value: Value, only: Sequence[Symbol]) -> None:
        """Name those of these symbols that are extents of a value and have no name yet."""
        for axis, extent in enumerate(value.shape):
            symbol = sole_symbol(extent)
            if symbol is not None and symbol not in self.symbols and symbol in only:
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
                self._line(f"{self.symbols[symbol]} = {self._name(value)}.shape[{axis}]")

    # -- operations --------------------------------------------------------------------------------------------

    def _block(self, block: Block) -> None:
        is_entry = block is self.owner.module.main.block
        donated = donated_arguments(self.function, self._derived) if is_entry else {}
        last_use, taken = last_uses(block), reused(block, self._is_launch, donated)
        self.taken |= taken
        kept = set(taken.values())  # until a launch takes them
        for operation in block:
            if operation.definition.is_terminator:
                if operation.name == "return":
                    values = [self._name(value) for value in operation.inputs]
                    self._line(f"return ({', '.join(values)}{',' if len(values) == 1 else ''})")
                continue
            outer, self.current = self.current, operation
            self._check_extents(operation)
            self._operation(operation)
            self.current = outer
            dying = [value for value in last_use.get(operation, ()) if value not in kept]
            dead = [self.values[value] for value in dying if value in self.values]
            held = {self.values[result] for result in operation.results if result in self.values}  # it may be the same
            dead = [name for name in dead if name not in held and not name.startswith("weights[")]
            if dead and allocates(operation):
                self._line(f"del {', '.join(dead)}")

    def _check_extents(self, operation: Operation) -> None:
        """Stop where a size is below 0, as of a slice that ends before it starts: kernels would compute with it."""
        members = operation.regions[0].block if operation.name == "kernel" else (operation,)
        ranked = [result for member in members for result in member.results if result.type.is_ranked]
        for extent in self.sizes.may_be_negative(extent for result in ranked for extent in result.shape):
            self._line(f"check({self.dim(extent)} >= 0, {quoted(f'the size {extent} is below 0')})")

    def _derived(self, operation: Operation) -> Kernel | LegalityFailure:
        derived = self.owner.program.derived
        if operation not in derived:
            derived[operation] = launched(operation)
        return derived[operation]

    def _is_launch(self, operation: Operation) -> bool:
        """Whether an operation is a launch each of whose results has a buffer of its own."""
        return is_launch(operation, self._derived)

    def _operation(self, operation: Operation, values: dict[Value, str] | None = None) -> None:
        special = getattr(self, f"_{operation.name}", None)
        if special is not None and operation.name in SPECIAL:
            special(operation)
        else:
            self._host_call(operation)
        if operation.symbols:
            for result in operation.results:
                if result.type.is_ranked:
                    self._bind_shape(result, operation.symbols)

    def _dim(self, operation: Operation) -> None:
        """A tensor of sizes; those that only say how often loops run stay Python's."""
        if not all(user.name == "loop" and index == 0 for user, index in operation.result.uses):
            self._host_call(operation)

    def _const(self, operation: Operation) -> None:
        name = self.owner.weight(operation.attributes["value"], operation.result.name)
        self.values[operation.result] = f"weights[{quoted(name)}]"

    def _host_call(self, operation: Operation) -> None:
        definition = operation.definition
        dtypes = [value.dtype for value in (*operation.inputs, *operation.results)]
        is_text = STRING in dtypes
        unknown = [dtype for dtype in dtypes if dtype.name not in TORCH_TYPES and dtype is not STRING]
        known = STRINGS if is_text else HOST
        if unknown or (operation.name not in known and not definition.is_named):
            reason = f"PyTorch has no {unknown[0]}" if unknown else "there is no host call for it"
            made = f"%{operation.results[0].name} = " if operation.results else ""
            self._problem(f"{made}{operation.name}: {reason}", operation.location)
            return
        if operation.name not in known:
            self._expanded(operation)
            return
        arguments = ["None" if value is None else self._name(value) for value in operation.operands]
        if operation.name == "pad" and len(arguments) == 2:
            arguments[1] = self._number(operation.operands[1])
        arguments += [
            f"{name}={self._literal(value)}"
            for name, value in operation.attributes.items()
            if definition.attribute_specs[name].default != value or isinstance(value, Expr)
        ]
        if operation.name in ("iota", "dim") or (is_text and not any(each is STRING for each in dtypes[-1:])):
            arguments.append("device=device")
        if operation.name == "cast" and is_narrow(operation.result.dtype):
            arguments.append(f"bits={operation.result.dtype.bits}")
        results = [self._name(result) for result in operation.results]
        module = self.owner.module_of("strings" if is_text else "host")
        call = in_range(operation, f"{module}.{operation.name}({', '.join(arguments)})")
        self._line(f"{', '.join(results)}{',' if operation.name == 'split' and len(results) == 1 else ''} = {call}")
        if allocates(operation):
            self.owner.program.host_calls.append(operation.name)

    def _number(self, value: Value | None) -> str:
        """A scalar, as Python's own where it is a constant, so that the host need not ask the device for it."""
        maker = None if value is None else value.operation
        if maker is None or maker.name != "const":
            return "None" if value is None else self._name(value)
        return self._literal(maker.attributes["value"].array().item())

    def _expanded(self, operation: Operation) -> None:
        """A named operation without a host function: its body, in place."""
        body = operation.body()
        outer = dict(self.values)
        for argument, value in zip(body.arguments, operation.inputs, strict=True):
            self.values[argument] = self._name(value)
        for inner in body.block:
            if not inner.definition.is_terminator:
                self._operation(inner)
        names = [self._name(value) for value in body.returned]
        for value in (*body.arguments, *(result for step in body.block for result in step.results)):
            self.values.pop(value, None)  # bodies are shared: the next use gets names of its own
        self.values.update(outer)
        for result, name in zip(operation.results, names, strict=True):
            self.values[result] = name

    def _kernel(self, operation: Operation) -> None:
        block = operation.regions[0].block
        for argument, operand in zip(block.arguments, operation.inputs, strict=True):
            self.values[argument] = self._name(operand)
        yielded, kernel = block.terminator.inputs, self._derived(operation)
        if isinstance(kernel, LegalityFailure):
            self.owner.program.refused[operation.attributes["name"]] = f"{kernel.rule}: {kernel.message}"
            for member in block:
                if not member.definition.is_terminator:
                    self._operation(member)
        else:
            for inner, result in zip(yielded, operation.results, strict=True):
                if inner.operation is not None and inner not in self.values:
                    self.values[inner] = self._name(result)
                    if result in self.taken:
                        self.taken[inner] = self.taken[result]
            labels = {
                inner: "" if outer.is_anonymous else outer.name
                for inner, outer in zip(
                    (*block.arguments, *yielded), (*operation.inputs, *operation.results), strict=True
                )
            }
            self._launch(kernel, operation.attributes["name"], labels)
        for inner, result in zip(yielded, operation.results, strict=True):
            self.values[result] = self.values[inner]

    def _launch(self, kernel: Kernel, hint: str, labels: Mapping[Value, str]) -> None:
        source = self.owner.kernel(kernel, hint, labels)
        arguments = [self._contiguous(buffer) for buffer in kernel.inputs]
        for output in kernel.outputs:
            name, shape, dead = self._name(output), self._shape(output.shape), self.taken.get(output)
            if dead is None:
                kind = f"dtype=torch.{torch_type(output.dtype)}, device=device"
                self._line(f"{name} = torch.empty({shape}, {kind})")
            elif dead in self.function.arguments:
                self._line(f"{name} = {self._name(dead)}  # which it updates")
            else:
                view = "" if dead.shape == output.shape else f".view({shape})"
                self._line(f"{name} = {self._name(dead)}{view}  # whose memory nothing needs any more")
                self._line(f"del {self._name(dead)}")
            self.dense.add(name)
            arguments.append(name)
        arguments += [self.sizes.text(size, UNCHECKED) for size in source.sizes]
        for tile in source.tiles:
            extent = self.sizes.text(tile.extent, UNCHECKED)
            exact = "" if tile.masked else ", exact=True"
            kind = "Whole" if tile.whole else "Loop" if tile.looped else "Grid"
            arguments.append(f"{tile.name}={kind}({extent}" + ("" if tile.whole else f", {tile.block}{exact}") + ")")
        if all(isinstance(tile.extent, int) or not tile.whole for tile in source.tiles):
            arguments.append(f"warps={source.warps}")  # else launch() chooses, when it knows the rows
        self._line(f"launch(kernels.{source.name}, {', '.join(arguments)})")

    def _contiguous(self, value: Value) -> str:
        """The text of an argument of a launch: kernels address dense tensors."""
        name = self._name(value)
        return name if name in self.dense or name.startswith("weights[") else f"{name}.contiguous()"

    def _extern(self, operation: Operation) -> None:
        """Through ONNX Runtime, on the processor, but for what PyTorch does wherever the tensor is."""
        dtypes = [value.dtype for value in (*operation.inputs, *operation.results)]
        unknown = [dtype for dtype in dtypes if dtype.name not in TORCH_TYPES and dtype.kind not in UNTYPED]
        if unknown:
            self._problem(f"%{operation.results[0].name} = extern: PyTorch has no {unknown[0]}", operation.location)
            return
        self.owner.program.host_calls.append(f"extern {operation.attributes['op_type']}")
        arguments = ["None" if value is None else self._name(value) for value in operation.operands]
        function = torch_function(operation)
        if function is None:
            externs = self.owner.program.externs
            externs.append(Extern.of(operation, self.owner.extern_names, len(externs)))
            function, arguments = "host.extern", [f"externs[{quoted(externs[-1].name)}]", *arguments]
            types = [None if value.dtype.kind in UNTYPED else value.dtype for value in operation.results]
            arguments += [f"dtypes={self._literal(tuple(types))}", "device=device"]
        else:
            arguments += [f"{name}={self._literal(value)}" for name, value in torch_attributes(operation).items()]
            arguments += [] if operation.operands else ["device=device"]
            self.owner.module_of(function.partition(".")[0])
        results = ", ".join(self._name(result) for result in operation.results)
        self._line(f"{results} = {function}({', '.join(arguments)})")

    # -- bridges -----------------------------------------------------------------------------------------------

    def _bind(self, operation: Operation) -> None:
        symbol = operation.attributes["symbol"]
        name = self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
        size = f"int({self._name(operation.inputs[0])})"
        self._line(f"{name} = check_dim({quoted(symbol.name)}, {size}, {symbol.low}, {symbol.high}, {symbol.multiple})")

    def _refine(self, operation: Operation) -> None:
        result = operation.result
        if not result.type.is_ranked:
            self.values[result] = self._name(operation.inputs[0])
            return
        known = ["None" if set(dims.free_symbols(d)) & set(operation.symbols) else self.dim(d) for d in result.shape]
        shape = f"({', '.join(known)}{',' if len(known) == 1 else ''})"
        self._line(f"{self._name(result)} = refine({self._name(operation.inputs[0])}, {shape})")

    def _assert(self, operation: Operation) -> None:
        self._line(f"check({self._name(operation.inputs[0])}, {quoted(operation.attributes['message'])})")

    def _assume(self, operation: Operation) -> None:
        """A promise needs no code."""

    def _trap(self, operation: Operation) -> None:
        self._line(f"check(False, {quoted(operation.attributes['message'])})")
        for result in operation.results:
            self._line(f"{self._name(result)} = None")

    # -- control flow ------------------------------------------------------------------------------------------

    def _call(self, operation: Operation) -> None:
        callee = self.owner.functions[str(FunctionName(operation.attributes["callee"]))]
        arguments = ["weights", "externs", "device", *(self._name(value) for value in operation.inputs)]
        results = [self._name(result) for result in operation.results]
        self._line(f"{', '.join(results)}{',' if len(results) == 1 else ''} = {callee}({', '.join(arguments)})")

    def _if(self, operation: Operation) -> None:
        results = [self._name(result) for result in operation.results]
        for head, region in zip((f"if {self._name(operation.inputs[0])}:", "else:"), operation.regions, strict=True):
            self._line(head)
            self._region(region.block)
            yielded = [self._name(value) for value in region.block.terminator.inputs]
            self._inside(f"{', '.join(results)} = {', '.join(yielded)}" if results else "pass")

    def _loop(self, operation: Operation) -> None:
        trip, condition, *carried = operation.operands
        block = operation.regions[0].block
        iteration, going, *held = [self._name(argument) for argument in block.arguments]
        names = [self._name(result) for result in operation.results[: len(carried)]]
        stacked = [self._name(result) for result in operation.results[len(carried) :]]
        starts = [self._name(value) for value in carried if value is not None]
        for name in stacked:
            self._line(f"{name} = []")
        counted = is_counted_loop(operation)
        counter = "" if counted else self.names.fresh("round_number")
        if counted:  # nothing is asked of the device
            assert trip is not None
            if held:
                self._line(f"{', '.join(held)} = {', '.join(starts)}")
            self._line(f"for {iteration} in torch.arange({self._size(trip)}, device=device):")
        else:
            first = "True" if condition is None else self._name(condition)
            self._line(f"{', '.join([going, *held])} = {', '.join([first, *starts])}")
            self._line(f"{counter} = 0")
            limit = "" if trip is None else f" and {counter} < {self._size(trip)}"
            self._line(f"while bool({going}){limit}:")
            self._inside(f"{iteration} = torch.tensor({counter}, device=device)")
        self._region(block, operation.symbols)
        again, *rest = [self._name(value) for value in block.terminator.inputs]
        for name, value in zip(stacked, rest[len(carried) :], strict=True):
            self._inside(f"{name}.append({value})")
        before, after = ([], []) if counted else ([going], [again])
        before, after = [*before, *held], [*after, *rest[: len(carried)]]
        if before:
            self._inside(f"{', '.join(before)} = {', '.join(after)}")
        elif not stacked and not any(not each.definition.is_terminator for each in block):
            self._inside("pass")
        if not counted:
            self._inside(f"{counter} += 1")
        if names:
            self._line(f"{', '.join(names)} = {', '.join(held)}")
        for name, result in zip(stacked, operation.results[len(carried) :], strict=True):
            sizes = [self.dim(d) if self._bound(d) else "0" for d in result.shape[1:]] if result.type.is_ranked else []
            if result.dtype is STRING:
                module = self.owner.module_of("strings")
                self._line(f"{name} = {module}.stacked({name}, ({', '.join(['0', *sizes])},))")
                continue
            empty = f"torch.empty(({', '.join(['0', *sizes])},), dtype=torch.{torch_type(result.dtype)}, device=device)"
            self._line(f"{name} = torch.stack({name}) if {name} else {empty}")

    def _size(self, value: Value) -> str:
        """An integer of one element as Python's, which the host knows where it is constant or made of sizes."""
        maker = value.operation
        if maker is not None and maker.name == "const":
            return str(max(0, int(maker.attributes["value"].array().item())))
        if maker is not None and maker.name == "dim" and isinstance(maker.attributes["value"], (int, Expr)):
            return self.dim(maker.attributes["value"])
        return f"max(0, int({self._name(value)}))"

    def _region(self, block: Block, symbols: Sequence[Symbol] = ()) -> None:
        """A block, indented; `symbols` are those that its arguments may bind."""
        self.indent += "    "
        with self.sizes.inside():
            for argument in block.arguments if symbols else ():
                if argument.type.is_ranked:
                    self._bind_shape(argument, symbols)
            self._block(block)
        self.indent = self.indent[:-4]

    def _inside(self, text: str) -> None:
        self._line(f"    {text}")

    # -- text --------------------------------------------------------------------------------------------------

    def _bound(self, dim: Dim) -> bool:
        return all(symbol in self.symbols for symbol in dims.free_symbols(dim))

    def dim(self, dim: Dim) -> str:
        """A dim as Python, over the variables that hold the symbols."""
        return self.sizes.text(dim)

    def _shape(self, shape: Iterable[Dim]) -> str:
        parts = [self.dim(extent) for extent in shape]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def _literal(self, value: Any) -> str:
        if isinstance(value, Expr):
            return self.dim(value)
        if isinstance(value, DType):
            return f"torch.{torch_type(value)}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self._literal, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return f'float("{value}")'
        return repr(value)


# Operations that the writer has a method for.
SPECIAL = frozenset("const dim kernel extern bind refine assert assume trap call if loop".split())


def is_launch(operation: Operation, derived: Callable[[Operation], Kernel | LegalityFailure]) -> bool:
    """Whether an operation is a launch each of whose results has a buffer of its own."""
    if operation.name != "kernel" or isinstance(derived(operation), LegalityFailure):
        return False
    yielded = operation.regions[0].block.terminator.inputs
    return len(set(yielded)) == len(yielded) and all(value.operation is not None for value in yielded)


def peak_bytes(module: Module, sizes: Mapping[Symbol, int], program: Program | None = None) -> int:
    """The most bytes of results that live at a time while the entry of a module runs, at these sizes. What a program
    written for it found need not be found again."""
    derived = cache(launched) if program is None else program.derived.__getitem__
    donated = donated_arguments(module.main, derived)
    return buffers.peak_bytes(module.main.block, sizes, lambda operation: is_launch(operation, derived), donated)


def donated_arguments(
    function: Function, derived: Callable[[Operation], Kernel | LegalityFailure]
) -> dict[Value, Value]:
    """The arguments that launches write their new contents to, by the results that update them."""

    def reads_where_it_writes(output: Value, argument: Value) -> bool:
        """Rule F11. What is written depends on all that is read of the argument, so that it is read before. One thread
        reads and writes each element: what does not vary over all of a tile, and a tile smaller than its threads, is
        held by several, of which one might write before another reads. Where each level of reductions reads a row
        again, a level before would have written it."""
        operation = output.operation
        assert operation is not None
        kernel, block = derived(operation), operation.regions[0].block
        assert isinstance(kernel, Kernel)
        pairs = zip(block.arguments, operation.inputs, strict=True)
        inside = {own for own, operand in pairs if operand is argument}
        (store,) = (store for store in kernel.stores if store.buffer is block.terminator.inputs[output.index])
        before, schedule = set(walk((store,))), kernel.schedule
        axes = {axis for tile in schedule.tiles for axis in tile.axes}
        elements = math.prod(tile.typical for tile in schedule.tiles)
        return not kernel.looped and axes <= variables(store.index) and elements >= WARP * schedule.warps and all(
            load in before and load.index == store.index and set(store.guards) <= set(load.guards)
            for load in kernel.loads if load.buffer in inside
        )  # fmt: skip

    return buffers.donated(function, lambda operation: is_launch(operation, derived), reads_where_it_writes)


def is_counted_loop(loop: Operation) -> bool:
    """Whether its trip count alone ends a loop: the body yields its condition unchanged and has no other use of it."""
    (trip, first, *_), end = loop.operands, loop.regions[0].block.terminator
    is_kept = list(loop.regions[0].block.arguments[1].uses) == [(end, 0)]
    return trip is not None and first is None and is_kept


__all__ = ["Extern", "Launched", "Program", "is_counted_loop", "is_launch", "launched", "peak_bytes", "write_program"]
