"""Whether a module is well formed: numbered rules, all checked in one walk of linear time.

What the type rules of single operations say is not repeated here: rules V5 to V7 and V9 apply them. A pass may
leave IR for which every rule holds, or must say that it does not.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice

from irc import dims
from irc.diagnostics import UNKNOWN, Diagnostic, IrcError, Location
from irc.dims import Dim, Expr, Symbol
from irc.ir import Attribute, Block, Function, Module, Operation, Value, same_attributes
from irc.op import OperationDefinition
from irc.types import TensorType

MOST = 20  # failures that one error reports


@dataclass(frozen=True)
class Rule:
    """One rule: its number, the code of errors, what it states, and why."""

    number: str
    code: str
    statement: str
    reason: str

    def __str__(self) -> str:
        return self.statement


RULES: dict[str, Rule] = {
    number: Rule(number, f"verify.{code}", statement, reason)
    for number, code, statement, reason in (
        ("V1", "dominance", "An operand is defined before its use, in the same block or in one around it.",
         "SSA with structured control flow: what is defined inside a region is not visible behind it."),
        ("V2", "kernel", "An isolated region (of a kernel) captures nothing.",
         "What a kernel reads are its operands: they are what it loads, and erasing its braces stays trivial."),
        ("V3", "uses", "Use lists, owners and parents tell the truth.",
         "Passes ask a value for its users, and an operation for its block; a stale answer breaks them far away."),
        ("V4", "names", "Each value has a name that no other value of the function has.",
         "Plans, explanations and text refer to values by name. Functions are unique by their place in the module."),
        ("V5", "types", "Operands have the number and the kinds of element type that the declaration says.",
         "Positional parameters of the declaration are operands; an absent optional one is None."),
        ("V6", "attributes", "Attributes are those of the declaration: all of them, in its order, in canonical form.",
         "Then equal operations have equal attributes, and text that is read back gives the same."),
        ("V7", "types", "Result types are what the type rule infers.",
         "Operations whose types are declared (`if`, `loop`, `extern`, `refine`, `call`) must not contradict theirs."),
        ("V8", "region", "A function's block ends in its only `return`, a region's block in its only `yield`.",
         "Control flow is structured: a block has one way out."),
        ("V9", "region", "A region's arguments and what it yields fit the operation that holds it.",
         "`if`, `loop` and `kernel` say in their type rules what they pass in and take out."),
        ("V10", "kernel", "A kernel holds only operations without effect.",
         "A kernel runs as one step, for many elements at once: asserts and random state have no place in it."),
        ("V11", "symbols", "Each symbol of a function is made once, and no two share a name.",
         "Symbols compare by identity: two of one name look equal and are not."),
        ("V12", "symbols", "A symbol is mentioned only where it is visible: behind what makes it, or within.",
         "Symbols are SSA-like: a dim that nothing has bound yet has no value. Symbols of the signature are always "
         "visible; those of a region's arguments inside that region."),
        ("V13", "call", "A call's target exists, takes its operands, gives its results, and does not lead back.",
         "The callee's symbols are bound by the operands' dims, and its result types must not contradict the call's."),
        ("V14", "return", "Names that a function gives to its results are as many as the results, and differ.",
         "A caller finds results by name."),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A rule that does not hold, with the place."""

    rule: str
    message: str
    function: str = ""
    operation: Operation | None = None

    def diagnostic(self) -> Diagnostic:
        operation = self.operation
        where = f"@{self.function}: " if self.function else ""
        location = operation.location if operation is not None else UNKNOWN
        if not location.known and operation is not None and operation.results:
            location = Location(name=f"%{operation.results[0].name}", made_by=location.made_by)
        return Diagnostic(
            RULES[self.rule].code, f"{self.rule}: {where}{self.message}", location, notes=(RULES[self.rule].statement,)
        )


def verify(module: Module) -> None:
    """Check all rules. Raises one error with up to 20 failures, each with its rule, operation and location."""
    failures = list(islice(check(module), MOST))
    if failures:
        raise IrcError(failure.diagnostic() for failure in failures)


def check(module: Module) -> Iterator[Failure]:
    """The failures of a module, one by one."""
    for name, function in module.functions.items():
        if name != function.name:
            yield Failure("V4", f"the module calls @{function.name} @{name}")
        yield from _FunctionCheck(function).run()
    yield from _check_calls(module)


class _FunctionCheck:
    """The walk over one function. Generators yield failures and go on."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.operations = set(function.walk())
        self.names: dict[str, Value] = {}
        self.values: set[Value] = set()  # visible here
        self.hidden: list[set[Value]] = []  # visible around isolated operations
        self.symbols: set[Symbol] = set(function.symbols.values())  # visible here
        self.made: dict[str, Symbol] = {}

    def failure(self, rule: str, message: str, operation: Operation | None = None) -> Failure:
        return Failure(rule, message, self.function.name, operation)

    def run(self) -> Iterator[Failure]:
        function = self.function
        yield from self.make_symbols(function.symbols.values(), None)
        for argument in function.arguments:
            yield from self.mentions(argument.type.shape or (), f"the type of %{argument.name}", None)
        yield from self.block(function.block, None)
        names, last = function.result_names, function.block.last
        if names is not None and last is not None and last.name == "return":
            if len(names) != len(last.operands):
                yield self.failure("V14", f"{len(names)} names for {len(last.operands)} results", last)
            elif len(set(names)) != len(names):
                yield self.failure("V14", f"two results share a name: {', '.join(names)}", last)

    def block(self, block: Block, holder: Operation | None) -> Iterator[Failure]:
        if (block.region.parent if block.region is not None else None) is not holder:
            yield self.failure("V3", "a region does not know the operation that holds it", holder)
        if holder is None and block.function_ is not self.function:
            yield self.failure("V3", "the block does not know its function")
        for argument in block.arguments:
            yield from self.define(argument, block, holder)
        ending = "return" if holder is None else "yield"
        if block.last is None or block.last.name != ending:
            yield self.failure("V8", f"a block ends without `{ending}`", block.last or holder)
        for operation in block:
            if operation.definition.is_terminator and operation is not block.last:
                yield self.failure("V8", f"`{operation.name}` amid a block", operation)
            if operation.block is not block:
                yield self.failure("V3", f"{operation.name} does not know its block", operation)
            yield from self.operation(operation)

    def operation(self, operation: Operation) -> Iterator[Failure]:
        yield from self.operands(operation)
        signature = yield from self.declaration(operation)
        inner, outer = _split_births(operation)
        yield from self.make_symbols(operation.symbols, operation)
        self.symbols.update(operation.symbols)
        yield from self.mentions(_dims_of(tuple(operation.attributes.values())), "an attribute", operation)
        for result in operation.results:
            yield from self.mentions(result.type.shape or (), f"the type of %{result.name}", operation)
        self.symbols.difference_update(outer - inner)
        for region in operation.regions:
            yield from self.region(operation, region.block)
        self.symbols.difference_update(inner)
        self.symbols.update(outer)
        if signature:
            yield from self.types(operation)
        for result in operation.results:
            yield from self.define(result, operation, operation)

    def region(self, operation: Operation, block: Block) -> Iterator[Failure]:
        """What is defined inside is forgotten behind; an isolated region starts with nothing."""
        isolated = operation.definition.is_isolated
        around = self.values
        if isolated:
            self.hidden.append(self.values)
            self.values = set()
        symbols = set[Symbol]()
        for argument in block.arguments:
            yield from self.mentions(argument.type.shape or (), f"the type of %{argument.name}", operation)
        yield from self.block(block, operation)
        for inner in block:
            symbols.update(inner.symbols)
            around.difference_update(inner.results)
            if isolated and inner.definition.has_effect:
                yield self.failure("V10", f"{inner.name} has an effect", inner)
        around.difference_update(block.arguments)
        self.symbols.difference_update(symbols)
        if isolated:
            self.values = self.hidden.pop()

    # -- values --------------------------------------------------------------------------------------------------

    def define(self, value: Value, owner: Operation | Block, operation: Operation | None) -> Iterator[Failure]:
        siblings = owner.results if isinstance(owner, Operation) else owner.arguments
        if value.owner is not owner or siblings[value.index : value.index + 1] != [value]:
            yield self.failure("V3", f"%{value.name} does not know what defines it", operation)
        for user, index in value.uses:
            if user not in self.operations or index >= len(user.operands) or user.operands[index] is not value:
                yield self.failure("V3", f"%{value.name} lists a use in {user!r} that is none", operation)
        if self.names.setdefault(value.name, value) is not value or not value.name:
            message = f"two values are called %{value.name}" if value.name else "a value has no name"
            yield self.failure("V4", message, operation)
        self.values.add(value)

    def operands(self, operation: Operation) -> Iterator[Failure]:
        for index, operand in enumerate(operation.operands):
            if operand is None:
                continue
            if (operation, index) not in operand.uses:
                yield self.failure("V3", f"%{operand.name} does not list its use by {operation.name}", operation)
            if operand not in self.values:
                captured = any(operand in values for values in self.hidden)
                message = "captures" if captured else "uses, before it is defined or where it is not visible,"
                yield self.failure("V2" if captured else "V1", f"{operation.name} {message} %{operand.name}", operation)

    # -- declarations --------------------------------------------------------------------------------------------

    def declaration(self, operation: Operation) -> Generator[Failure, None, bool]:
        """Operands and attributes against the declaration; returns whether types can be inferred from them."""
        definition = operation.definition
        assert isinstance(definition, OperationDefinition)
        try:
            rule = "V5"
            definition.check_operands([None if value is None else value.type for value in operation.operands])
            rule = "V6"
            normal = definition.normalize(operation.attributes)
        except IrcError as error:
            yield self.failure(rule, error.diagnostics[0].message, operation)
            return False
        if not same_attributes(normal, operation.attributes):
            message = f"{operation.name} has {operation.attributes}, in canonical form {normal}"
            yield self.failure("V6", message, operation)
            return False
        endings = [region.block.last for region in operation.regions]
        return all(last is not None and last.name == "yield" for last in endings)

    def types(self, operation: Operation) -> Iterator[Failure]:
        definition = operation.definition
        assert isinstance(definition, OperationDefinition)
        operands = [None if value is None else value.type for value in operation.operands]
        stored = [result.type for result in operation.results]
        try:
            inferred = list(definition.infer(operands, operation.attributes, stored, operation.regions))
        except IrcError as error:
            rule = "V9" if error.code == "type.region" else "V7"
            yield self.failure(rule, error.diagnostics[0].message, operation)
            return
        if inferred != stored:
            message = f"{operation.name} has results {_list(stored)}, inferred are {_list(inferred)}"
            yield self.failure("V7", message, operation)

    # -- symbols -------------------------------------------------------------------------------------------------

    def make_symbols(self, symbols: Iterable[Symbol], operation: Operation | None) -> Iterator[Failure]:
        for symbol in symbols:
            if symbol.name in self.made:
                again = "is made twice" if self.made[symbol.name] is symbol else "shares its name with another"
                yield self.failure("V11", f"the symbol {symbol.expr} {again}", operation)
            self.made[symbol.name] = symbol

    def mentions(self, mentioned: Sequence[Dim], where: str, operation: Operation | None) -> Iterator[Failure]:
        for dim in mentioned:
            for symbol in () if isinstance(dim, int) else dims.free_symbols(dim):
                if symbol not in self.symbols:
                    yield self.failure("V12", f"{where} mentions {symbol.expr}, which is not visible here", operation)


def _split_births(operation: Operation) -> tuple[set[Symbol], set[Symbol]]:
    """The symbols that an operation makes: those of its regions' arguments, and those that are visible behind it."""
    made = set(operation.symbols)
    if not made or not operation.regions:
        return set(), made
    arguments = [value for region in operation.regions for value in region.block.arguments]
    inner = made.intersection(symbol for value in arguments for symbol in value.type.symbols())
    outer = made.intersection(symbol for value in operation.results for symbol in value.type.symbols())
    return inner, made - inner | outer


def _dims_of(attribute: Attribute) -> list[Dim]:
    """The dims in an attribute."""
    if isinstance(attribute, Symbol):
        return [attribute.expr]
    if isinstance(attribute, Expr):
        return [attribute]
    if isinstance(attribute, tuple):
        return [dim for part in attribute for dim in _dims_of(part)]
    return []


def _list(listed: Sequence[TensorType]) -> str:
    return ", ".join(map(str, listed)) or "none"


# -- calls -----------------------------------------------------------------------------------------------------


def _check_calls(module: Module) -> Iterator[Failure]:
    """V13: each call against its target's signature, then the calls together, which must not lead back."""
    targets: dict[str, list[str]] = {name: [] for name in module.functions}
    for name, function in module.functions.items():
        for operation in function.walk():
            callee = operation.attributes.get("callee") if operation.name == "call" else None
            if callee is None:
                continue
            if callee not in module.functions:
                yield Failure("V13", f"there is no function @{callee}", name, operation)
                continue
            targets[name].append(callee)
            problem = _misfit(operation, module.functions[callee])
            if problem is not None:
                yield Failure("V13", f"call of @{callee}: {problem}", name, operation)
    try:
        TopologicalSorter(targets).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        yield Failure("V13", f"functions call themselves: {' <- '.join(f'@{name}' for name in cycle)}", cycle[0])


def _misfit(call: Operation, callee: Function) -> str | None:
    """Why a call does not fit its target, or None."""
    if len(call.operands) != len(callee.arguments) or None in call.operands:
        return f"{len(call.inputs)} operands for {len(callee.arguments)} arguments"
    bound: dict[Symbol, Dim] = {}
    for operand, argument in zip(call.inputs, callee.arguments, strict=True):
        for dim, extent in zip(argument.type.shape or (), operand.type.shape or (), strict=False):
            for symbol in callee.symbols.values():
                if dim == symbol.expr:
                    bound.setdefault(symbol, extent)
    for operand, argument in zip(call.inputs, callee.arguments, strict=True):
        if not _may_be(operand.type, argument.type, bound):
            return f"%{operand.name} is {operand.type}, the argument %{argument.name} {argument.type}"
    last = callee.block.last
    returned = last.inputs if last is not None and last.name == "return" else []
    if len(call.results) != len(returned):
        return f"{len(call.results)} results, the function returns {len(returned)}"
    for result, value in zip(call.results, returned, strict=True):
        if not _may_be(result.type, value.type, bound):
            return f"%{result.name} is {result.type}, the function returns {value.type}"
    return None


def _may_be(ours: TensorType, theirs: TensorType, bound: dict[Symbol, Dim]) -> bool:
    """Whether a type in the caller's symbols may be one in the callee's: nothing known contradicts it."""
    if ours.dtype != theirs.dtype:
        return False
    if ours.shape is None or theirs.shape is None:
        return True
    if len(ours.shape) != len(theirs.shape):
        return False
    for our, their in zip(ours.shape, theirs.shape, strict=True):
        known = isinstance(their, int) or all(symbol in bound for symbol in dims.free_symbols(their))
        if known and dims.equal(our, dims.substitute(their, bound)) is False:
            return False
    return True
