"""Writes one function of the host program, the Python module that allocates buffers and launches kernels.

Tensor values become Python variables, and symbols of dims variables that hold integers. `FunctionWriter.lines` writes
the signature and walks the blocks. The text of an operation is written by a `Write` function: one from a table by the
operation's name (`program_writer.WRITERS`), for all others `host_calls.write_host_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from irc import dims
from irc.backends.triton.buffers import allocates, last_uses, reused
from irc.backends.triton.bundles import Bundle, launched_together
from irc.backends.triton.calls import torch_type
from irc.backends.triton.donation import donated_arguments
from irc.backends.triton.launches import is_launch, launched
from irc.backends.triton.lines import wrapped
from irc.backends.triton.naming import value_name
from irc.backends.triton.program_builder import BUILTINS, ProgramBuilder
from irc.backends.triton.sizes import Sizes, symbol_sources
from irc.backends.triton.text import Names, identifier, plain, quoted
from irc.diagnostics import Diagnostic, Location
from irc.dims import Dim, Expr, Symbol
from irc.dtypes import DType
from irc.ir import Block, Function, Operation, Value
from irc.kernel import Kernel, LegalityFailure

Write = Callable[["FunctionWriter", Operation], None]  # writes the lines of one operation


class FunctionWriter:
    """Writes the lines of one function; `Write` functions receive it and call its methods.

    values: for each value a Python expression, mostly the name of its variable. symbols: for each symbol the variable
    that holds its size. contiguous: the variables of tensors that are known to be contiguous. reused: for results of
    launches the value whose buffer they are written to, which nothing reads later. bundles: for kernels that are
    launched together what they are launched as. operation_of_line: for indices of lines in `out` the operation for
    which the line was written.
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
        self.contiguous: set[str] = set()
        self.reused: dict[Value, Value] = {}
        self.bundles: dict[Operation, Bundle] = {}
        self.indent = ""
        self.out: list[str] = []
        self.operation_of_line: dict[int, Operation] = {}
        self.current: Operation | None = None

    def lines(self) -> list[str]:
        """Write the function; returns its lines."""
        arguments = [self.variable(argument) for argument in self.function.arguments]
        if self.name == "main":
            self.contiguous.update(arguments)  # the runtime copies inputs that are not
        self.line(f"def {self.name}({', '.join(['weights', 'externs', 'device', *arguments])}):")
        self.indent = "    "
        outputs = zip(self.function.output_names, self.function.returned, strict=True)
        input_lines = [plain(f"{value.name} {value.type}") for value in self.function.arguments]
        output_lines = [plain(f"{name} {value.type}") for name, value in outputs]
        self.out.extend(['    """Inputs and outputs:', "", *(f"    {line}" for line in input_lines), "    ->"])
        self.out.extend([*(f"    {line}" for line in output_lines), '    """'])
        self._solve_symbols()
        self.write_block(self.function.block)
        return self.out

    def _solve_symbols(self) -> None:
        """Write lines that compute the symbols of the signature from the extents of inputs."""
        for symbol, source in symbol_sources(self.function).items():
            self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
            size = source.size(f"{self.variable(source.value)}.shape[{source.axis}]", self.symbols)
            self.line(f"{self.symbols[symbol]} = {size}")
        for symbol in self.function.symbols.values():
            if symbol not in self.symbols:
                self.problem(f"symbol {symbol.name} cannot be inferred from the extents of any input",
                             self.function.location)
                # A name all the same, so that the rest is written and its problems are reported, too.
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")

    def line(self, text: str) -> None:
        """Write a line at the current indentation."""
        first = len(self.out)
        self.out.extend(wrapped(f"{self.indent}{text}"))
        if self.current is not None:
            self.operation_of_line |= dict.fromkeys(range(first, len(self.out)), self.current)

    def problem(self, message: str, location: Location) -> None:
        """Record that the function cannot be written: `write_program` raises all problems as `backend.unsupported`."""
        self.builder.problems.append(Diagnostic("backend.unsupported", f"triton: {message}", location))

    def variable(self, value: Value) -> str:
        """The Python expression of a value; at its first use, the new name of its variable."""
        if value not in self.values:
            self.values[value] = self.names.fresh(value_name(value))
        return self.values[value]

    def bind_shape(self, value: Value, only: Sequence[Symbol]) -> None:
        """Write variables for those of the symbols `only` that are an extent of a value and have no variable yet."""
        for axis, extent in enumerate(value.shape):
            symbol = dims.sole_symbol(extent)
            if symbol is not None and symbol not in self.symbols and symbol in only:
                self.symbols[symbol] = self.names.fresh(identifier(symbol.name), "size")
                self.line(f"{self.symbols[symbol]} = {self.variable(value)}.shape[{axis}]")

    def write_block(self, block: Block) -> None:
        """Write the operations of a block, and `del` statements after the last uses of tensors."""
        is_entry = block is self.builder.module.main.block
        donated = donated_arguments(self.function, self.derived) if is_entry else {}
        last_use, buffer_of = last_uses(block), reused(block, self.is_launch, donated)
        self.reused |= buffer_of
        kept = set(buffer_of.values())  # a later launch writes to their buffers
        for operations in launched_together(block, self.derived):
            self.bundles |= dict.fromkeys(operations, Bundle(operations))
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
            unused = [value for value in last_use.get(operation, ()) if value not in kept]
            dead = [self.values[value] for value in unused if value in self.values]
            # A result may have the variable of an operand, as that of `refine` of an unranked value has.
            live = {self.values[result] for result in operation.results if result in self.values}
            dead = [name for name in dead if name not in live and not name.startswith("weights[")]
            if dead and allocates(operation):
                self.line(f"del {', '.join(dead)}")

    def _check_extents(self, operation: Operation) -> None:
        """Write checks that stop the run where the extent of a result is negative, as that of a slice that ends before
        it starts: kernels would compute with it."""
        members = operation.regions[0].block if operation.name == "kernel" else (operation,)
        ranked = [result for member in members for result in member.results if result.type.is_ranked]
        for extent in self.sizes.may_be_negative(extent for result in ranked for extent in result.shape):
            self.line(f"check({self.dim(extent)} >= 0, {quoted(f'the size {extent} is below 0')})")

    def derived(self, operation: Operation) -> Kernel | LegalityFailure:
        """The kernel of a `kernel` operation, or why it runs as host calls (`launches.launched`), computed once."""
        derived = self.builder.program.derived
        if operation not in derived:
            derived[operation] = launched(operation)
        return derived[operation]

    def is_launch(self, operation: Operation) -> bool:
        """Whether an operation is launched as a kernel that writes each result to a buffer that no other one shares."""
        return is_launch(operation, self.derived)

    def write_operation(self, operation: Operation) -> None:
        """Write an operation, and variables for the data-dependent symbols that it defines."""
        self.operations.get(operation.name, self.host_call)(self, operation)
        if operation.symbols:
            for result in operation.results:
                if result.type.is_ranked:
                    self.bind_shape(result, operation.symbols)

    def write_body(self, operation: Operation) -> None:
        """Write a named operation for which there is no host call: the operations of its body."""
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
        """Write a block of a region, indented; `symbols` are those whose sizes its arguments may define."""
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
        """Whether all symbols of a dim have a variable."""
        return all(symbol in self.symbols for symbol in dims.free_symbols(dim))

    def dim(self, dim: Dim) -> str:
        """A dim as Python, over the variables that hold the symbols."""
        return self.sizes.text(dim)

    def shape(self, shape: Iterable[Dim]) -> str:
        """A shape as a Python tuple."""
        parts = [self.dim(extent) for extent in shape]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def literal(self, value: Any) -> str:
        """An attribute as a Python expression."""
        if isinstance(value, Expr):
            return self.dim(value)
        if isinstance(value, DType):
            return f"torch.{torch_type(value)}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self.literal, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return f'float("{value}")'
        return repr(value)
