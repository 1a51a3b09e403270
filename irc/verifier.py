"""Whether a module is well formed: numbered rules, all checked in one walk of linear time.

What the type rules of single operations say is not repeated here: rules V5 to V7 and V9 apply them. A pass may
leave IR for which every rule holds, or must say that it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from irc import dims
from irc.diagnostics import UNKNOWN, Diagnostic, IrcError, Location, rules
from irc.dims import Dim, Symbol
from irc.equality import same_attributes
from irc.ir import Block, Function, Operation, Value, dims_in
from irc.module import Module
from irc.ops.rules import fits
from irc.types import TensorType, list_types

MOST = 20  # failures that one error reports


@dataclass(frozen=True)
class Failure:
    """A rule that does not hold, with the place."""

    rule: str
    message: str
    function: str
    operation: Operation | None = None

    def diagnostic(self) -> Diagnostic:
        operation, rule = self.operation, rules("V")[self.rule]
        location = operation.location if operation is not None else UNKNOWN
        if not location.known and operation is not None and operation.results:
            location = Location(name=f"%{operation.results[0].name}", made_by=location.made_by)
        message = f"{self.rule}: @{self.function}: {self.message}"
        return Diagnostic(rule.code, message, location, notes=(rule.statement,))


def verify(module: Module) -> None:
    """Check all rules. Raises one error with up to 20 failures, each with its rule, operation and location."""
    failures = check(module)
    if failures:
        raise IrcError(failure.diagnostic() for failure in failures[:MOST])


def check(module: Module) -> list[Failure]:
    """The failures of a module."""
    failures: list[Failure] = []
    for name, function in module.functions.items():
        if name != function.name:
            failures.append(Failure("V4", f"the module calls @{function.name} @{name}", name))
        failures += _FunctionCheck(function).run()
    return failures + _check_calls(module)


class _FunctionCheck:
    """The walk over one function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.failures: list[Failure] = []
        self.operations = set(function.walk())
        self.names: dict[str, Value] = {}
        self.values: set[Value] = set()  # visible here
        self.hidden: list[set[Value]] = []  # visible around isolated operations
        self.symbols: set[Symbol] = set(function.symbols.values())  # visible here
        self.made: dict[str, Symbol] = {}

    def fail(self, rule: str, message: str, operation: Operation | None = None) -> None:
        self.failures.append(Failure(rule, message, self.function.name, operation))

    def run(self) -> list[Failure]:
        self.make_symbols(self.function.symbols.values(), None)
        self.block(self.function.block, None)
        names, last = self.function.result_names, self.function.block.last
        if names is not None and last is not None and last.name == "return":
            if len(names) != len(last.operands):
                self.fail("V14", f"{len(names)} names for {len(last.operands)} results", last)
            elif len(set(names)) != len(names):
                self.fail("V14", f"two results share a name: {', '.join(names)}", last)
        self.updates(last)
        self.defaults()
        return self.failures

    def updates(self, last: Operation | None) -> None:
        returned = last.inputs if last is not None else []
        for position, argument in self.function.updates.items():
            fits = position < len(returned) and returned[position].type == argument.type
            if argument not in self.function.arguments or not fits or argument.dtype.kind == "opaque":
                self.fail("V15", f"result {position} cannot update %{argument.name}: {argument.type}", last)
        if len(set(self.function.updates.values())) < len(self.function.updates):
            self.fail("V15", "two results update one argument", last)

    def defaults(self) -> None:
        for argument, tensor in self.function.defaults.items():
            found = TensorType(tensor.dtype, tensor.shape)
            if argument not in self.function.arguments or not fits(found, argument.type):
                self.fail("V16", f"{found} cannot be the default of %{argument.name}: {argument.type}")
            if argument in self.function.updates.values():
                self.fail("V16", f"a result updates %{argument.name}, which has a default")

    def block(self, block: Block, holder: Operation | None) -> None:
        if (block.region.parent if block.region is not None else None) is not holder:
            self.fail("V3", "a region does not know the operation that holds it", holder)
        if holder is None and block.function_ is not self.function:
            self.fail("V3", "the block does not know its function")
        for argument in block.arguments:
            self.mentions(argument.type.shape or (), f"the type of %{argument.name}", holder)
            self.define(argument, block, holder)
        ending = "return" if holder is None else "yield"
        if block.last is None or block.last.name != ending:
            self.fail("V8", f"a block ends without `{ending}`", block.last or holder)
        for operation in block:
            if operation.definition.is_terminator and operation is not block.last:
                self.fail("V8", f"`{operation.name}` amid a block", operation)
            if operation.block is not block:
                self.fail("V3", f"{operation.name} does not know its block", operation)
            self.operation(operation)

    def operation(self, operation: Operation) -> None:
        self.operands(operation)
        self.make_symbols(operation.symbols, operation)
        inside, behind = _split_births(operation)
        self.symbols |= behind
        self.mentions(dims_in(operation.attributes), "an attribute", operation)
        for result in operation.results:
            self.mentions(result.type.shape or (), f"the type of %{result.name}", operation)
        self.symbols -= behind
        self.symbols |= inside
        for region in operation.regions:
            self.region(operation, region.block)
        self.symbols -= inside
        self.symbols |= behind
        self.declaration(operation)
        for result in operation.results:
            self.define(result, operation, operation)

    def region(self, operation: Operation, block: Block) -> None:
        """What is defined inside is forgotten behind; an isolated region starts with nothing."""
        isolated = operation.definition.is_isolated
        if isolated:
            self.hidden.append(self.values)
            self.values = set()
        self.block(block, operation)
        for inner in block:
            self.values.difference_update(inner.results)
            self.symbols.difference_update(inner.symbols)
            if isolated and inner.definition.has_effect:
                self.fail("V10", f"{inner.name} has an effect", inner)
        self.values.difference_update(block.arguments)
        if isolated:
            self.values = self.hidden.pop()

    # --- values ---
    def define(self, value: Value, owner: Operation | Block, operation: Operation | None) -> None:
        siblings = owner.results if isinstance(owner, Operation) else owner.arguments
        if value.owner is not owner or siblings[value.index : value.index + 1] != [value]:
            self.fail("V3", f"%{value.name} does not know what defines it", operation)
        for user, index in value.uses:
            if user not in self.operations or index >= len(user.operands) or user.operands[index] is not value:
                self.fail("V3", f"%{value.name} lists a use in {user!r} that is none", operation)
        if self.names.setdefault(value.name, value) is not value or not value.name:
            message = f"two values are called %{value.name}" if value.name else "a value has no name"
            self.fail("V4", message, operation)
        self.values.add(value)

    def operands(self, operation: Operation) -> None:
        for index, operand in enumerate(operation.operands):
            if operand is not None and (operation, index) not in operand.uses:
                self.fail("V3", f"%{operand.name} does not list its use by {operation.name}", operation)
            if operand is not None and operand not in self.values:
                captured = any(operand in values for values in self.hidden)
                message = "captures" if captured else "uses, before it is defined or where it is not visible,"
                self.fail("V2" if captured else "V1", f"{operation.name} {message} %{operand.name}", operation)

    # --- declarations ---
    def declaration(self, operation: Operation) -> None:
        """Operands, attributes and results against the declaration, up to the first that does not fit."""
        definition, stored = operation.definition, [result.type for result in operation.results]
        operands = operation.operand_types
        endings = [region.block.last for region in operation.regions]
        rule = "V5"
        try:
            definition.check_operands(operands)
            rule = "V6"
            normal = definition.normalize(operation.attributes)
            if not same_attributes(normal, operation.attributes):
                self.fail(rule, f"{operation.name} has {operation.attributes}, in canonical form {normal}", operation)
            elif all(last is not None and last.name == "yield" for last in endings):
                rule = "V7"
                inferred = list(definition.infer(operands, operation.attributes, stored, operation.regions))
                if inferred != stored:
                    found = f"{operation.name} has results {list_types(stored)}"
                    self.fail(rule, f"{found}, inferred are {list_types(inferred)}", operation)
        except IrcError as error:
            self.fail("V9" if error.code == "type.region" else rule, error.diagnostics[0].message, operation)

    # --- symbols ---
    def make_symbols(self, symbols: Iterable[Symbol], operation: Operation | None) -> None:
        for symbol in symbols:
            if symbol.name in self.made:
                again = "is made twice" if self.made[symbol.name] is symbol else "shares its name with another"
                self.fail("V11", f"the symbol {symbol.expr} {again}", operation)
            self.made[symbol.name] = symbol

    def mentions(self, mentioned: Sequence[Dim], where: str, operation: Operation | None) -> None:
        for dim in mentioned:
            for symbol in () if isinstance(dim, int) else dims.free_symbols(dim):
                if symbol not in self.symbols:
                    self.fail("V12", f"{where} mentions {symbol.expr}, which is not visible here", operation)


def _split_births(operation: Operation) -> tuple[set[Symbol], set[Symbol]]:
    """The symbols that an operation makes: those of its regions' arguments, and those that are visible behind it."""
    made = set(operation.symbols)
    if not made or not operation.regions:
        return set(), made
    arguments = [value for region in operation.regions for value in region.block.arguments]
    inside = made.intersection(symbol for value in arguments for symbol in value.type.symbols())
    behind = made.intersection(symbol for value in operation.results for symbol in value.type.symbols())
    return inside, made - inside | behind


# --- calls ---
def _check_calls(module: Module) -> list[Failure]:
    """V13: each call against its target's signature, then the calls together, which must not lead back."""
    failures = []
    targets: dict[str, list[str]] = {name: [] for name in module.functions}
    for name, function in module.functions.items():
        for call in function.walk():
            callee = call.attributes.get("callee") if call.name == "call" else None
            if callee in module.functions:
                targets[name].append(callee)
                problem = _misfit(call, module.functions[callee])
                if problem is not None:
                    failures.append(Failure("V13", f"call of @{callee}: {problem}", name, call))
            elif callee is not None:
                failures.append(Failure("V13", f"there is no function @{callee}", name, call))
    try:
        TopologicalSorter(targets).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        message = f"functions call themselves: {' <- '.join(f'@{name}' for name in cycle)}"
        failures.append(Failure("V13", message, cycle[0]))
    return failures


def _misfit(call: Operation, callee: Function) -> str | None:
    """Why a call does not fit its target, or None."""
    returned = callee.block.last.inputs if callee.block.last is not None else []
    if len(call.inputs) != len(callee.arguments) or len(call.results) != len(returned):
        given = f"{len(call.inputs)} operands and {len(call.results)} results"
        return f"{given} for {len(callee.arguments)} arguments and {len(returned)} results"
    bound: dict[dims.Atom, Dim] = {}
    symbols = {symbol.expr: symbol for symbol in callee.symbols.values()}
    for operand, argument in zip(call.inputs, callee.arguments, strict=True):
        for dim, extent in zip(argument.type.shape or (), operand.type.shape or (), strict=False):
            if not isinstance(dim, int) and dim in symbols:
                bound.setdefault(symbols[dim], extent)
    for ours, theirs in zip([*call.inputs, *call.results], [*callee.arguments, *returned], strict=True):
        if not fits(ours.type, theirs.type.substitute(bound)):
            return f"%{ours.name} is {ours.type}, in the function it is %{theirs.name}: {theirs.type}"
    return None
