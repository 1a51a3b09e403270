"""Parts of a program as programs: some operations of its entry, with the values that they read as inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irc import dims, interpreter
from irc.diagnostics import fail
from irc.dims import Symbol
from irc.ir import Cloner, Function, Module, Operation, Value, mentioned_symbols
from irc.op import return_


@dataclass(frozen=True)
class Recording:
    """One run of a module: the arrays of the values in its entry's own block, and the sizes of symbols."""

    module: Module
    arrays: Mapping[Value, Any]
    sizes: Mapping[Symbol, int]


@dataclass(frozen=True)
class Part:
    """Operations as a module of their own, and arrays for its inputs by name."""

    module: Module
    inputs: dict[str, Any] = field(repr=False)


def record(module: Module, inputs: Mapping[str, Any]) -> Recording:
    """Run a module under the interpreter and keep what its entry computes."""
    entry = module.main
    arrays: dict[Value, Any] = {argument: inputs[argument.name] for argument in entry.arguments}

    def keep(operation: Operation, results: Sequence[Any]) -> None:
        if operation.block is entry.block:
            arrays.update(zip(operation.results, results, strict=True))

    interpreter.run(module, inputs, observe=keep)
    sizes: dict[Symbol, int] = {}
    _solve(arrays, arrays, sizes)
    return Recording(module, arrays, sizes)


def part(recording: Recording, members: Collection[Operation], outputs: Sequence[Value] = ()) -> Part:
    """The `members`, operations of the entry's block, as a module that gives `outputs`; without any, what others or
    nobody read.

    Values that members read and none of them makes become inputs, with the arrays of the run. So do symbols where an
    extent of an input tells them; others become the sizes that they had.
    """
    entry = recording.module.main
    ordered = [operation for operation in entry.block if operation in members]
    inside = {result for operation in ordered for result in operation.results}
    read = dict.fromkeys(value for operation in ordered for value in _captured(operation))
    captured = [value for value in read if value not in inside]
    results = list(outputs)
    if not results:
        results = [value for operation in ordered for value in operation.results if _leaves(value, members)]
    copy = Function(entry.name, location=entry.location)
    cloner = Cloner(symbols=_symbols(recording, ordered, captured, copy))
    for value in captured:
        type_ = value.type.substitute(cloner.symbols)
        cloner.values[value] = copy.block.add_argument(type_, value.name)
    for operation in ordered:
        copy.block.append(cloner.operation(operation))
    copy.block.append(_ending([cloner.values[value] for value in results]))
    copy.result_names = tuple(value.name for value in results)
    module = Module(recording.module.name, [copy, *_callees(recording.module, ordered)])
    return Part(module, {cloner.values[value].name: recording.arrays[value] for value in captured})


def constants_of(operations: Iterable[Operation]) -> set[Operation]:
    """The constants that operations read."""
    makers = {value.operation for operation in operations for value in _captured(operation)}
    return {maker for maker in makers if maker is not None and maker.name == "const"}


def _ending(values: Sequence[Value]) -> Operation:
    return Operation(return_, values, {}, [])


def _leaves(value: Value, members: Collection[Operation]) -> bool:
    users = list(value.users())
    return not users or any(_outermost(user) not in members for user in users)


def _outermost(operation: Operation) -> Operation:
    """The operation of the function's own block that holds an operation."""
    while operation.parent is not None:
        operation = operation.parent
    return operation


def _captured(operation: Operation) -> list[Value]:
    """What an operation reads from outside, its regions included."""
    own = {value for inner in operation.walk() for value in inner.defined()}
    return [value for inner in operation.walk() for value in inner.inputs if value not in own]


def _callees(module: Module, operations: Iterable[Operation]) -> list[Function]:
    """Copies of all functions beside the entry where an operation calls one."""
    if not any(inner.name == "call" for operation in operations for inner in operation.walk()):
        return []
    return list(module.clone().functions.values())[1:]


def _symbols(recording: Recording, members: Sequence[Operation], captured: Sequence[Value],
             copy: Function) -> dict[dims.Atom, Any]:
    """What stands in the copy for each symbol that the part mentions."""
    entry = recording.module.main
    makers: dict[Symbol, Operation] = {}
    for operation in entry.block:
        for inner in operation.walk():
            for symbol in mentioned_symbols(inner):
                makers.setdefault(symbol, operation)
    mentioned = [symbol for value in captured for symbol in value.type.symbols()]
    mentioned += [symbol for operation in members for inner in operation.walk() for symbol in mentioned_symbols(inner)]
    told: dict[Symbol, int] = {}
    _solve(captured, recording.arrays, told)
    found: dict[dims.Atom, Any] = {}
    for symbol in dict.fromkeys(mentioned):
        made_here = symbol.name in entry.born and makers[symbol] in members
        if made_here or symbol in told:
            made = copy.symbol(symbol.name, symbol.low, symbol.high, symbol.multiple, born=made_here)
            found[symbol] = made.expr
        elif symbol in recording.sizes:
            found[symbol] = recording.sizes[symbol]
        else:
            raise fail("dim.unbound", f"the size of {symbol.name} is not known from any value of the run")
    return found


def _solve(values: Iterable[Value], arrays: Mapping[Value, Any], sizes: dict[Symbol, int]) -> None:
    """Add the symbols that extents of values tell."""
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
