"""A function of the host program: values are Python variables, symbols are integers.

`FunctionWriter` walks the blocks; the operations are written by the functions of `operations`, by name, and others as
host calls. See `program_writer` for the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from irc import dims
from irc.backends.triton.buffers import allocates, last_uses, reused
from irc.backends.triton.calls import torch_type
from irc.backends.triton.donation import donated_arguments
from irc.backends.triton.launches import is_launch, launched
from irc.backends.triton.naming import value_name
from irc.backends.triton.program_builder import BUILTINS, ProgramBuilder
from irc.backends.triton.sizes import Sizes, sole_symbol, symbol_sources
from irc.backends.triton.source import wrapped
from irc.backends.triton.text import Names, identifier, plain, quoted
from irc.diagnostics import Diagnostic, Location
from irc.dims import Dim, Expr, Symbol
from irc.dtypes import DType
from irc.ir import Block, Function, Operation, Value
from irc.kernel import Kernel, LegalityFailure

Write = Callable[["FunctionWriter", Operation], None]  # writes one operation


class FunctionWriter:
    """The lines of one function.

    values: the variables, or other expressions, of values. dense: variables whose tensors are known to be contiguous.
    taken: by results of launches, the dead buffers that they reuse. computing: by line numbers, the operations.
    """

    def __init__(self, builder: ProgramBuilder, function: Function, name: str, operations: Mapping[str, Write],
                 host_call: Write) -> None:  # fmt: skip
        self.builder = builder
        self.operations = operations
        self.host_call = host_call
        self.function = function
        self.name = name
        self.names = Names({*BUILTINS, *builder.functions.values()})
        self.sizes = Sizes(self.names, self.line)
        self.symbols = self.sizes.variables
        self.values: dict[Value, str] = {}
        self.dense: set[str] = set()
        self.taken: dict[Value, Value] = {}
        self.indent = ""
        self.out: list[str] = []
        self.computing: dict[int, Operation] = {}
        self.current: Operation | None = None

    def lines(self) -> list[str]:
        """Write the function; returns its lines."""
        arguments = [self.variable(argument) for argument in self.function.arguments]
        if self.name == "main":
            self.dense.update(arguments)  # the runtime makes them so
        self.line(f"def {self.name}({', '.join(['weights', 'externs', 'device', *arguments])}):")
        self.indent = "    "
        outputs = zip(self.function.output_names, self.function.returned, strict=True)
        taken = [plain(f"{value.name} {value.type}") for value in self.function.arguments]
        given = [plain(f"{name} {value.type}") for name, value in outputs]
        self.out.extend(['    """Inputs and outputs:', "", *(f"    {line}" for line in taken), "    ->"])
        self.out.extend([*(f"    {line}" for line in given), '    """'])
        self._solve_symbols()
        self.write_block(self.function.block)
        return self.out

    def _solve_symbols(self) -> None:
        """Read the symbols of the signature from the extents of inputs."""
        for symbol, source in symbol_sources(self.function).items():
            self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
            size = source.size(f"{self.variable(source.value)}.shape[{source.axis}]", self.symbols)
            self.line(f"{self.symbols[symbol]} = {size}")
        for symbol in self.function.symbols.values():
            if symbol not in self.symbols:
                self.problem(f"symbol {symbol.name} cannot be inferred from the extents of any input",
                             self.function.location)
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")  # to find other problems

    def line(self, text: str) -> None:
        """Write a line at the current indentation."""
        first = len(self.out)
        self.out.extend(wrapped(f"{self.indent}{text}"))
        if self.current is not None:
            self.computing |= dict.fromkeys(range(first, len(self.out)), self.current)

    def problem(self, message: str, location: Location) -> None:
        """Note that PyTorch lacks something."""
        self.builder.problems.append(Diagnostic("backend.unsupported", f"triton: {message}", location))

    def variable(self, value: Value) -> str:
        """The variable that holds a value."""
        if value not in self.values:
            self.values[value] = self.names.fresh(value_name(value))
        return self.values[value]

    def bind_shape(self, value: Value, only: Sequence[Symbol]) -> None:
        """Name those of these symbols that are extents of a value and have no name yet."""
        for axis, extent in enumerate(value.shape):
            symbol = sole_symbol(extent)
            if symbol is not None and symbol not in self.symbols and symbol in only:
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
                self.line(f"{self.symbols[symbol]} = {self.variable(value)}.shape[{axis}]")

    def write_block(self, block: Block) -> None:
        is_entry = block is self.builder.module.main.block
        donated = donated_arguments(self.function, self.derived) if is_entry else {}
        last_use, taken = last_uses(block), reused(block, self.is_launch, donated)
        self.taken |= taken
        kept = set(taken.values())  # until a launch takes them
        for operation in block:
            if operation.definition.is_terminator:
                if operation.name == "return":
                    values = [self.variable(value) for value in operation.inputs]
                    self.line(f"return ({', '.join(values)}{',' if len(values) == 1 else ''})")
                continue
            outer, self.current = self.current, operation
            self._check_extents(operation)
            self.write_operation(operation)
            self.current = outer
            dying = [value for value in last_use.get(operation, ()) if value not in kept]
            dead = [self.values[value] for value in dying if value in self.values]
            held = {self.values[result] for result in operation.results if result in self.values}  # it may be the same
            dead = [name for name in dead if name not in held and not name.startswith("weights[")]
            if dead and allocates(operation):
                self.line(f"del {', '.join(dead)}")

    def _check_extents(self, operation: Operation) -> None:
        """Stop where a size is below 0, as of a slice that ends before it starts: kernels would compute with it."""
        members = operation.regions[0].block if operation.name == "kernel" else (operation,)
        ranked = [result for member in members for result in member.results if result.type.is_ranked]
        for extent in self.sizes.may_be_negative(extent for result in ranked for extent in result.shape):
            self.line(f"check({self.dim(extent)} >= 0, {quoted(f'the size {extent} is below 0')})")

    def derived(self, operation: Operation) -> Kernel | LegalityFailure:
        derived = self.builder.program.derived
        if operation not in derived:
            derived[operation] = launched(operation)
        return derived[operation]

    def is_launch(self, operation: Operation) -> bool:
        """Whether an operation is a launch each of whose results has a buffer of its own."""
        return is_launch(operation, self.derived)

    def write_operation(self, operation: Operation) -> None:
        self.operations.get(operation.name, self.host_call)(self, operation)
        if operation.symbols:
            for result in operation.results:
                if result.type.is_ranked:
                    self.bind_shape(result, operation.symbols)

    def write_body(self, operation: Operation) -> None:
        """A named operation without a host function: the operations of its body."""
        body = operation.body()
        outer = dict(self.values)
        for argument, value in zip(body.arguments, operation.inputs, strict=True):
            self.values[argument] = self.variable(value)
        for inner in body.block:
            if not inner.definition.is_terminator:
                self.write_operation(inner)
        names = [self.variable(value) for value in body.returned]
        for value in (*body.arguments, *(result for step in body.block for result in step.results)):
            self.values.pop(value, None)  # bodies are shared: the next use gets other names
        self.values.update(outer)
        for result, name in zip(operation.results, names, strict=True):
            self.values[result] = name

    def write_region(self, block: Block, symbols: Sequence[Symbol] = ()) -> None:
        """A block, indented; `symbols` are those that its arguments may bind."""
        self.indent += "    "
        with self.sizes.inside():
            for argument in block.arguments if symbols else ():
                if argument.type.is_ranked:
                    self.bind_shape(argument, symbols)
            self.write_block(block)
        self.indent = self.indent[:-4]

    def inside(self, text: str) -> None:
        """Write a line that is indented by one level more."""
        self.line(f"    {text}")

    def is_bound(self, dim: Dim) -> bool:
        return all(symbol in self.symbols for symbol in dims.free_symbols(dim))

    def dim(self, dim: Dim) -> str:
        """A dim as Python, over the variables that hold the symbols."""
        return self.sizes.text(dim)

    def shape(self, shape: Iterable[Dim]) -> str:
        parts = [self.dim(extent) for extent in shape]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def literal(self, value: Any) -> str:
        if isinstance(value, Expr):
            return self.dim(value)
        if isinstance(value, DType):
            return f"torch.{torch_type(value)}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self.literal, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return f'float("{value}")'
        return repr(value)
