"""Parts of a program as modules: some operations of one block, with the values that they read as inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irc import dims
from irc.cloning import Cloner
from irc.diagnostics import UNKNOWN, fail
from irc.dims import Symbol
from irc.interpreter import Interpreter, Precision, check_inputs, checked_inputs
from irc.ir import Block, Function, Operation, Value, mentioned_symbols
from irc.module import Module
from irc.op import return_


@dataclass(frozen=True)
class Recording:
    """One run of a module: the arrays of its values and the sizes of its symbols.

    For a block that ran several times (of a loop or a function), they are those of the last execution, or of the first.
    """

    module: Module
    arrays: Mapping[Value, Any]
    sizes: Mapping[Symbol, int]


@dataclass(frozen=True)
class Part:
    """Operations as a module of their own, and arrays for its inputs by name."""

    module: Module
    inputs: dict[str, Any] = field(repr=False)

    @property
    def size(self) -> int:
        """The number of operations, including those in regions, without constants and terminators."""
        return sum(operation.name != "const" and not operation.definition.is_terminator
                   for operation in self.module.walk())  # fmt: skip


class _Recorder(Interpreter):
    """An interpreter that records the values it computes; a named operation is one step."""

    def __init__(self, module: Module, first: bool, precision: Precision) -> None:
        super().__init__(module, precision, lambda operation, results: self.keep(operation.results, results))
        self.arrays: dict[Value, Any] = {}
        self.sizes: dict[Symbol, int] = {}
        self.first = first

    def keep(self, values: Sequence[Value], arrays: Sequence[Any]) -> None:
        for value, array in zip(values, arrays, strict=True):
            if not (self.first and value in self.arrays):
                self.arrays[value] = array

    def block(self, block: Block, arrays: Sequence[Any], values: Any, environment: dict[Symbol, int]) -> list[Any]:
        if self.observe is None:  # inside the body of a named operation
            return super().block(block, arrays, values, environment)
        self.keep(block.arguments, arrays)
        try:
            return super().block(block, arrays, values, environment)
        finally:
            self.sizes = {**self.sizes, **environment} if not self.first else {**environment, **self.sizes}


def record(module: Module, inputs: Mapping[str, Any], *, until_failure: bool = False,
           first: bool = False, precision: Precision = "declared") -> Recording:
    """Run a module in the interpreter and record the values it computes.

    With `until_failure` an exception ends the recording, which has the values so far. With `first` the values of a loop
    are those of its first iteration, not of its last.
    """
    check_inputs(module.main, inputs)
    recorder = _Recorder(module, first, precision)
    try:
        recorder.call(module.main, checked_inputs(module.main, inputs, precision))
    except Exception:
        if not until_failure:
            raise
    return Recording(module, recorder.arrays, recorder.sizes)


def part(recording: Recording, members: Collection[Operation], outputs: Sequence[Value] = (),
         starts: Sequence[Value] = ()) -> Part:
    """The `members`, operations of one block, as a module that returns `outputs`; by default, the values that other
    operations, or none, read. Constants of enclosing blocks may be members, too.

    Values that members read and none of them computes become inputs, as do `starts`, with the arrays of the run; a
    start that a member computes as well may be an output. Symbols that extents of inputs determine are symbols of the
    part; others become the sizes that they had. Results update no argument. Raises `extract.not_computed` where the run
    did not execute the operations.
    """
    function = next(iter(members)).function
    assert function is not None
    ordered = [operation for operation in function.walk() if operation in members]
    computed = {result for operation in ordered for result in operation.results} - {*starts}
    read = dict.fromkeys([*starts, *(value for operation in ordered for value in captured_by(operation)), *outputs])
    captured = [value for value in read if value not in computed]
    for value in dict.fromkeys([*captured, *outputs]):
        if value not in recording.arrays:
            raise fail("extract.not_computed", f"the run did not compute %{value.name}",
                       at=value.operation.location if value.operation is not None else UNKNOWN)  # fmt: skip
    results = list(outputs)
    if not results:
        results = [value for operation in ordered if operation.name != "const"
                   for value in operation.results if _leaves(value, members)]  # fmt: skip
    copy = Function(recording.module.main.name, location=function.location)
    symbols, inferred = _symbols(recording, function, ordered, captured, copy)
    cloner = Cloner(symbols=symbols)
    for value in captured:
        cloner.values[value] = copy.block.add_argument(value.type.substitute(symbols), value.name)
    arguments, copies = dict(cloner.values), dict(cloner.values)
    for operation in ordered:
        if operation.name == "bind" and operation.attributes["symbol"] in inferred:
            continue
        new = copy.block.append(cloner.operation(operation))
        for inner in new.walk():  # a symbol that an input determines has no other definition
            inner.symbols = tuple(symbol for symbol in inner.symbols if symbol.name in copy.defined_symbols)
        copies.update(zip(operation.results, new.results, strict=True))
        cloner.values.update(arguments)  # a start that a member computes as well stays an input
    copy.block.append(Operation(return_, [copies[value] for value in results], {}, []))
    copy.result_names = tuple(value.name for value in results)
    functions = [copy, *_callees(recording.module, ordered)]
    module = Module(recording.module.name, functions, recording.module.edge_cases)
    inputs = {value: recording.arrays[value] for value in captured}
    return Part(module, {cloner.values[value].name: array.item() if value.dtype.kind == "opaque" else array
                         for value, array in inputs.items()})  # fmt: skip


def constants_of(operations: Iterable[Operation]) -> set[Operation]:
    """The constants that operations read."""
    makers = {value.operation for operation in operations for value in captured_by(operation)}
    return {maker for maker in makers if maker is not None and maker.name == "const"}


def computing(block: Block) -> list[Operation]:
    """The operations of a block without constants and the terminator."""
    return [operation for operation in block if operation.name != "const" and not operation.definition.is_terminator]


def captured_by(operation: Operation) -> list[Value]:
    """The values from outside that an operation and its regions read."""
    defined = {value for inner in operation.walk() for value in inner.defined()}
    return [value for inner in operation.walk() for value in inner.inputs if value not in defined]


def around(operation: Operation) -> Iterator[Operation]:
    """An operation, its parent, the parent's parent, and so on."""
    current: Operation | None = operation
    while current is not None:
        yield current
        current = current.parent


def callees(module: Module, operations: Iterable[Operation]) -> list[Function]:
    """The functions that operations call, directly and indirectly."""
    called: dict[str, Function] = {}
    waiting = [inner for operation in operations for inner in operation.walk()]
    while waiting:
        operation = waiting.pop()
        name = operation.attributes["callee"] if operation.name == "call" else None
        if name in module.functions and name not in called:
            called[name] = module.functions[name]
            waiting += module.functions[name].walk()
    return [function for name, function in module.functions.items() if name in called]


def _callees(module: Module, operations: Iterable[Operation]) -> list[Function]:
    """Copies of the functions that operations call."""
    called = callees(module, operations)
    return list(Module(module.name, called).clone().functions.values()) if called else []


def _leaves(value: Value, members: Collection[Operation]) -> bool:
    """Whether an operation outside the members reads a value, or none reads it."""
    users = list(value.users())
    return not users or not all(any(holder in members for holder in around(user)) for user in users)


def _symbols(recording: Recording, function: Function, members: Sequence[Operation], captured: Sequence[Value],
             copy: Function) -> tuple[dict[dims.Atom, Any], set[Symbol]]:
    """The replacement of each symbol that the part mentions, and the symbols that extents of inputs determine."""
    makers = {symbol: operation for operation in function.walk() for symbol in operation.symbols}
    seen = dict.fromkeys(symbol for value in captured for symbol in value.type.symbols())
    mentioned = dict.fromkeys([*seen, *(symbol for operation in members for inner in operation.walk()
                                        for symbol in mentioned_symbols(inner))])  # fmt: skip
    inferred: dict[Symbol, int] = {}
    _solve(captured, recording.arrays, inferred)
    replacements: dict[dims.Atom, Any] = {}
    for symbol in mentioned:
        maker = makers.get(symbol)
        is_defined_inside = maker is not None and any(holder in members for holder in around(maker))
        if symbol in inferred or (is_defined_inside and symbol not in seen):
            new = copy.symbol(symbol.name, symbol.low, symbol.high, symbol.multiple, defined=symbol not in inferred)
            replacements[symbol] = new.expr
        elif symbol in recording.sizes and not is_defined_inside:
            replacements[symbol] = recording.sizes[symbol]
        else:
            raise fail("dim.unbound", f"the size of {symbol.name} is not known from any value of the run")
    return replacements, {*inferred}


def _solve(values: Iterable[Value], arrays: Mapping[Value, Any], sizes: dict[Symbol, int]) -> None:
    """Add the symbols that extents of values determine."""
    extents = [(dim, arrays[value].shape[axis]) for value in values if value.type.is_ranked
               for axis, dim in enumerate(value.type.dims)]
    before = -1
    while before < len(sizes):
        before = len(sizes)
        for dim, size in extents:
            unknown = [symbol for symbol in dims.free_symbols(dim) if symbol not in sizes]
            if len(unknown) == 1:
                line = dims.linear_in(dims.substitute(dim, sizes), unknown[0])
                if line is not None and line[0] != 0:
                    sizes[unknown[0]] = (size - dims.evaluate(line[1], {})) // dims.evaluate(line[0], {})
