"""What the rules of the verifier ask about a function, computed once: its blocks, scopes, symbols and types.

Start at `FunctionFacts`, the argument of every rule.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from irc import dims
from irc.diagnostics import IrcError
from irc.dims import Derived, Dim, Symbol
from irc.equality import same_attributes
from irc.ir import Block, Function, Operation, Value, dims_in
from irc.module import Module
from irc.types import list_types


class FunctionFacts:
    """A function of a module, under the `name` that the module has for it."""

    def __init__(self, module: Module, name: str) -> None:
        self.module = module
        self.name = name
        self.cycle: list[str] = []  # functions that call one another, the first again at the end
        self.function: Function = module.functions[name]
        self.operations = list(self.function.walk())  # each before those inside it

    @cached_property
    def blocks(self) -> list[tuple[Block, Operation | None]]:
        """Each block, with the operation whose region it is."""
        inner = [(region.block, operation) for operation in self.operations for region in operation.regions]
        return [(self.function.block, None), *inner]

    @cached_property
    def calls(self) -> list[Operation]:
        """The calls of functions that have the attribute which names one (V6)."""
        return [each for each in self.operations if each.name == "call" and "callee" in each.attributes]

    @cached_property
    def last(self) -> Operation | None:
        """The last operation of the function's own block, which is to be its `return`."""
        return self.function.block.last

    @property
    def values(self) -> Iterator[tuple[Value, Operation | Block, Operation | None]]:
        """Each value with the operation or block that defines it, and that operation or the holder of that block."""
        for block, holder in self.blocks:
            yield from ((argument, block, holder) for argument in block.arguments)
        for operation in self.operations:
            yield from ((result, operation, operation) for result in operation.results)

    @cached_property
    def scopes(self) -> Scopes:
        """Operands and symbols that are used where they are not visible."""
        return Scopes.of(self.function)

    @cached_property
    def mismatches(self) -> list[Mismatch]:
        """Operations that do not fit their declarations."""
        return [each for operation in self.operations if (each := mismatch(operation)) is not None]


def module_facts(module: Module) -> list[FunctionFacts]:
    """The facts of each function of a module."""
    facts = [FunctionFacts(module, name) for name in module.functions]
    targets = {each.name: [call.attributes["callee"] for call in each.calls] for each in facts}
    known = {name: [callee for callee in callees if callee in targets] for name, callees in targets.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        for each in facts:
            each.cycle = list(error.args[1])
    return facts


# -- scopes ----------------------------------------------------------------------------------------------------


@dataclass
class Scopes:
    """Uses of values and symbols that are not visible there, from one walk.

    `undefined` and `captured` are operations with such an operand, `captured` across the border of an isolated region.
    `symbols` are symbols, with the words for what mentions them and the operation.
    """

    undefined: list[tuple[Operation, Value]] = field(default_factory=list)
    captured: list[tuple[Operation, Value]] = field(default_factory=list)
    symbols: list[tuple[Symbol, str, Operation | None]] = field(default_factory=list)
    _visible: set[Value] = field(default_factory=set)
    _outside: list[set[Value]] = field(default_factory=list)  # visible around the isolated regions that are open
    _defined: set[Symbol] = field(default_factory=set)
    _seen: set[Derived] = field(default_factory=set)  # whose symbols are defined here, or named in `symbols`

    @staticmethod
    def of(function: Function) -> Scopes:
        scopes = Scopes(_defined=set(function.symbols.values()))
        scopes._block(function.block, None)
        return scopes

    def _block(self, block: Block, holder: Operation | None) -> None:
        for argument in block.arguments:
            self._mentions(argument.type.shape or (), f"the type of %{argument.name}", holder)
            self._visible.add(argument)
        for operation in block:
            self._operation(operation)

    def _operation(self, operation: Operation) -> None:
        for operand in operation.inputs:
            if operand not in self._visible:
                is_captured = any(operand in values for values in self._outside)
                (self.captured if is_captured else self.undefined).append((operation, operand))
        inside, after = split_symbols(operation)
        self._defined |= after
        self._mentions(dims_in(operation.attributes), "an attribute", operation)
        for result in operation.results:
            self._mentions(result.type.shape or (), f"the type of %{result.name}", operation)
        if operation.regions:
            self._end(after)
            self._defined |= inside
            for region in operation.regions:
                self._region(operation, region.block)
            self._end(inside)
            self._defined |= after
        self._visible.update(operation.results)

    def _region(self, operation: Operation, block: Block) -> None:
        """What is defined inside is not visible after it; in an isolated region nothing from outside is."""
        if operation.definition.is_isolated:
            self._outside.append(self._visible)
            self._visible = set()
        self._block(block, operation)
        for inner in block:
            self._visible.difference_update(inner.results)
            self._end(inner.symbols)
        self._visible.difference_update(block.arguments)
        if operation.definition.is_isolated:
            self._visible = self._outside.pop()

    def _end(self, symbols: Collection[Symbol]) -> None:
        """The scope of symbols ends."""
        if symbols:
            self._defined.difference_update(symbols)
            self._seen.clear()

    def _mentions(self, mentioned: Iterable[Dim], where: str, operation: Operation | None) -> None:
        unknown = (symbol for symbol in dims.symbols_below(mentioned, self._seen) if symbol not in self._defined)
        self.symbols.extend((symbol, where, operation) for symbol in dict.fromkeys(unknown))


def split_symbols(operation: Operation) -> tuple[set[Symbol], set[Symbol]]:
    """The symbols that an operation defines: those of its regions' arguments, and those that are visible after it."""
    defined = set(operation.symbols)
    if not defined or not operation.regions:
        return set(), defined
    arguments = [value for region in operation.regions for value in region.block.arguments]
    inside = defined.intersection(symbol for value in arguments for symbol in value.type.symbols())
    after = defined.intersection(symbol for value in operation.results for symbol in value.type.symbols())
    return inside, defined - inside | after


# -- declarations ----------------------------------------------------------------------------------------------

Part = Literal["operands", "attributes", "results", "regions"]


@dataclass(frozen=True)
class Mismatch:
    """The first part of an operation that does not fit its declaration; later parts are checked only if it does."""

    part: Part
    message: str
    operation: Operation


def mismatch(operation: Operation) -> Mismatch | None:
    """Compare operands, attributes and results with the declaration, in this order."""
    definition, stored = operation.definition, [result.type for result in operation.results]
    operands = operation.operand_types
    part: Part = "operands"
    try:
        definition.check_operands(operands)
        part = "attributes"
        normal = definition.normalize(operation.attributes)
        if not same_attributes(normal, operation.attributes):
            message = f"{operation.name} has {operation.attributes}, in canonical form {normal}"
            return Mismatch(part, message, operation)
        endings = [region.block.last for region in operation.regions]
        if any(last is None or last.name != "yield" for last in endings):
            return None  # rule V8; types are inferred from what regions yield
        part = "results"
        inferred = list(definition.infer(operands, operation.attributes, stored, operation.regions))
        if inferred != stored:
            message = f"{operation.name} has results {list_types(stored)}, inferred are {list_types(inferred)}"
            return Mismatch(part, message, operation)
    except IrcError as error:
        return Mismatch("regions" if error.code == "type.region" else part, error.diagnostics[0].message, operation)
    return None
