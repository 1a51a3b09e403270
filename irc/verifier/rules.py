"""The rules of well-formed IR, as functions in the table `VERIFIER_RULES`.

A rule's function yields what is wrong in one function of a module, a message and an operation for each failure. Its
docstring is the rule's page (`irc doc V1`).
"""

from __future__ import annotations

from collections.abc import Iterator

from irc import dims
from irc.dims import Dim, Symbol
from irc.ir import Function, Operation, Value
from irc.numbered_rules import table
from irc.ops.rules import fits
from irc.types import TensorType
from irc.verifier.facts import FunctionFacts

Failures = Iterator[tuple[str, Operation | None]]


# -- values ----------------------------------------------------------------------------------------------------


def operands_are_visible(facts: FunctionFacts) -> Failures:
    """An operand is defined before its use, in the same block or in one around it: what is defined inside a region is
    not visible after it.

    Why: operations of a block run in order, and a region may run not at all, or several times.

    Example: a use above the definition.
        func @main(%x: f32[4]) -> f32[4] {
          %y = neg %z : f32[4]
          %z = exp %x : f32[4]
          return %y
        }
    """
    for operation, operand in facts.scopes.undefined:
        yield f"{operation.name} uses, before it is defined or where it is not visible, %{operand.name}", operation


def isolated_regions_capture_nothing(facts: FunctionFacts) -> Failures:
    """An isolated region (of a kernel) captures nothing: what a kernel loads are its operands, and a kernel can be
    replaced by its members.

    Why: a kernel is derived from its region and its operands alone. What it reads is the list of its arguments.

    Example: a kernel that reads %x without having it as an operand.
        func @main(%x: f32[4]) -> f32[4] {
          %y = kernel @y () {kind = "pointwise"} : f32[4] {
            %z = exp %x : f32[4]
            yield %z
          }
          return %y
        }
    """
    for operation, operand in facts.scopes.captured:
        yield f"{operation.name} captures %{operand.name}", operation


def links_agree(facts: FunctionFacts) -> Failures:
    """Use lists, owners and parents agree with operands, results and blocks: passes rely on the users of a value and
    the block of an operation, and one that is stale breaks them in another place.

    Why: the IR keeps each link in both directions, so that passes find users and parents without a search.

    Example: `operation.operands[0] = value`, which changes no list of uses; `operation.set_operand(0, value)` does.
    """
    for block, holder in facts.blocks:
        if (block.region.parent if block.region is not None else None) is not holder:
            yield "a region does not know the operation that holds it", holder
        if holder is None and block.function_ is not facts.function:
            yield "the block does not know its function", None
        for operation in block:
            if operation.block is not block:
                yield f"{operation.name} does not know its block", operation
    known = set(facts.operations)
    for value, owner, place in facts.values:
        siblings = owner.results if isinstance(owner, Operation) else owner.arguments
        if value.owner is not owner or siblings[value.index : value.index + 1] != [value]:
            yield f"%{value.name} does not know what defines it", place
        for user, index in value.uses:
            if user not in known or index >= len(user.operands) or user.operands[index] is not value:
                yield f"%{value.name} lists a use in {user!r} that is none", place
    for operation in facts.operations:
        for index, operand in enumerate(operation.operands):
            if operand is not None and (operation, index) not in operand.uses:
                yield f"%{operand.name} does not list its use by {operation.name}", operation


def names_are_unique(facts: FunctionFacts) -> Failures:
    """Each value has a name that no other value of the function has: plans, explanations and text refer to values by
    name. A function goes by its name in the module.

    Why: text with two values of one name would be read back as another program.

    Example: a second value with the name %y.
        func @main(%x: f32[4]) -> f32[4] {
          %y = exp %x : f32[4]
          %y = neg %x : f32[4]
          return %y
        }
    """
    if facts.name != facts.function.name:
        yield f"the module calls @{facts.function.name} @{facts.name}", None
    names: dict[str, Value] = {}
    for value, _, operation in facts.values:
        if not value.name:
            yield "a value has no name", operation
        elif names.setdefault(value.name, value) is not value:
            yield f"two values are called %{value.name}", operation


# -- declarations ----------------------------------------------------------------------------------------------


def operands_fit_the_declaration(facts: FunctionFacts) -> Failures:
    """Operands have the number and the kinds of element type that the declaration says; an absent optional one is None.

    Why: type rules, references and backends read operands by position.

    Example: `exp` without an operand, or of a boolean.
        func @main(%x: bool[4]) -> f32[4] {
          %y = exp %x : f32[4]
          return %y
        }
    """
    return ((each.message, each.operation) for each in facts.mismatches if each.part == "operands")


def attributes_are_canonical(facts: FunctionFacts) -> Failures:
    """Attributes are those of the declaration, all of them, in its order and in canonical form: then equal operations
    have equal attributes, and text gives back the same.

    Why: common subexpressions are found by comparing attributes.

    Example: `Operation(definition, operands, {"shape": [4]}, ...)`: an attribute of several numbers is a tuple, and the
    others are missing. `definition.normalize` gives the canonical form.
    """
    return ((each.message, each.operation) for each in facts.mismatches if each.part == "attributes")


def results_have_the_inferred_types(facts: FunctionFacts) -> Failures:
    """Result types are what the type rule infers; declared ones (of `if`, `loop`, `extern`, `refine`, `call`) do not
    contradict it.

    Why: shapes are only in types. A pass that changes an operand changes the types of what is computed from it.

    Example: a sum with another shape than its operands have.
        func @main(%x: f32[4]) -> f32[5] {
          %y = add %x, %x : f32[5]
          return %y
        }
    """
    return ((each.message, each.operation) for each in facts.mismatches if each.part == "results")


# -- blocks and regions ----------------------------------------------------------------------------------------


def blocks_end_in_one_terminator(facts: FunctionFacts) -> Failures:
    """A function's block ends in its only `return`, a region's block in its only `yield`: control flow is structured,
    and a block has one way out.

    Why: the results of a function or a region are the operands of its last operation.

    Example: a function without `return`.
        func @main(%x: f32[4]) -> f32[4] {
          %y = exp %x : f32[4]
        }
    """
    for block, holder in facts.blocks:
        ending = "return" if holder is None else "yield"
        if block.last is None or block.last.name != ending:
            yield f"a block ends without `{ending}`", block.last or holder
        for operation in block:
            if operation.definition.is_terminator and operation is not block.last:
                yield f"`{operation.name}` before the end of a block", operation


def regions_fit_their_operation(facts: FunctionFacts) -> Failures:
    """A region's arguments and what it yields fit the operation that holds it, whose type rule states both.

    Why: nothing converts between the operands of `if`, `loop` or a kernel and the values of their regions.

    Example: an `if` whose sides yield one value and two.
        func @main(%c: bool[], %x: f32[4]) -> f32[4] {
          %y = if %c : f32[4] {
            yield %x
          } else {
            yield %x, %x
          }
          return %y
        }
    """
    return ((each.message, each.operation) for each in facts.mismatches if each.part == "regions")


def kernels_have_no_effects(facts: FunctionFacts) -> Failures:
    """A kernel holds only operations without effect: it runs as one step, for many elements at once, where asserts and
    random state have no meaning.

    Why: an effect would happen once for each element, in no order.

    Example: an assert inside a kernel.
        func @main(%c: bool[], %x: f32[4]) -> f32[4] {
          %y = kernel @y (%d = %c, %z = %x) {kind = "pointwise"} : f32[4] {
            assert %d {message = "no"}
            %e = exp %z : f32[4]
            yield %e
          }
          return %y
        }
    """
    for block, holder in facts.blocks:
        if holder is not None and holder.definition.is_isolated:
            for inner in block:
                if inner.definition.has_effect:
                    yield f"{inner.name} has an effect", inner


# -- symbols ---------------------------------------------------------------------------------------------------


def symbols_are_defined_once(facts: FunctionFacts) -> Failures:
    """Each symbol of a function is defined once, and no two share a name: symbols compare by identity, so that two of
    one name look equal and are not.

    Why: a dim over another symbol of the same name is printed, and read back, as one over the first.

    Example: two operations that bind a symbol of one name.
        func @main(%a: i64[], %b: i64[]) -> i64[] {
          bind %a {symbol = ?n in (0, 8)}
          bind %b {symbol = ?n in (0, 8)}
          return %a
        }
    """
    defined: dict[str, Symbol] = {}
    definitions = [(symbol, None) for symbol in facts.function.symbols.values()]
    inner = [(symbol, operation) for operation in facts.operations for symbol in operation.symbols]
    for symbol, operation in [*definitions, *inner]:
        if symbol.name in defined:
            again = "is defined twice" if defined[symbol.name] is symbol else "shares its name with another"
            yield f"the symbol {symbol.expr} {again}", operation
        defined[symbol.name] = symbol


def symbols_are_visible(facts: FunctionFacts) -> Failures:
    """A symbol is mentioned only after its definition, or, for those of a region's arguments, inside: a dim that is not
    bound yet has no value.

    Why: types and attributes are evaluated where they stand.

    Example: a type that mentions the symbol of a region outside of it, or one above its `bind`.
        func @main(%n: i64[]) -> i64[] {
          %y = iota {shape = [u], axis = 0, dtype = f32} : f32[u]
          bind %n {symbol = ?u in (0, 8)}
          return %n
        }
    """
    for symbol, where, operation in facts.scopes.symbols:
        yield f"{where} mentions {symbol.expr}, which is not visible here", operation


# -- calls -----------------------------------------------------------------------------------------------------


def calls_fit_their_functions(facts: FunctionFacts) -> Failures:
    """A call's target exists, takes its operands and gives its results under the symbols that the operands' dims bind,
    and does not lead back to the caller.

    Why: a call stands for the operations of its function, which has no other types. A function that calls itself would
    not end.

    Example: a function that calls itself.
        func @main(%x: f32[4]) -> f32[4] {
          %y = call @main %x : f32[4]
          return %y
        }
    """
    functions = facts.module.functions
    for call in facts.calls:
        callee = call.attributes["callee"]
        if callee not in functions:
            yield f"there is no function @{callee}", call
        elif (problem := _misfit(call, functions[callee])) is not None:
            yield f"call of @{callee}: {problem}", call
    if facts.cycle[:1] == [facts.name]:
        yield f"functions call themselves: {' <- '.join(f'@{name}' for name in facts.cycle)}", None


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


# -- signatures ------------------------------------------------------------------------------------------------


def result_names_fit_the_results(facts: FunctionFacts) -> Failures:
    """Names that a function gives to its results are as many as the results, and differ: a caller finds results by
    name.

    Why: runs, artefacts and ONNX models return results under these names.

    Example: two results with the name `y`.
        func @main(%x: f32[4]) -> (y: f32[4], y: f32[4]) {
          return %x, %x
        }
    """
    names, last = facts.function.result_names, facts.last
    if names is not None and last is not None and last.name == "return":
        if len(names) != len(last.operands):
            yield f"{len(names)} names for {len(last.operands)} results", last
        elif len(set(names)) != len(names):
            yield f"two results share a name: {', '.join(names)}", last


def updates_fit_their_arguments(facts: FunctionFacts) -> Failures:
    """A result that updates an argument has its type, and no two update one: a caller finds its new contents there.

    Why: the new contents are written into the tensor that the caller passed, which has this type.

    Example: a result with another shape than the argument that it updates.
        func @main(%x: f32[4]) -> (y: f32[2] updates %x) {
          %y = slice %x {starts = [0], stops = [2], steps = [1]} : f32[2]
          return %y
        }
    """
    function, last = facts.function, facts.last
    returned = last.inputs if last is not None else []
    for position, argument in function.updates.items():
        has_its_type = position < len(returned) and returned[position].type == argument.type
        if argument not in function.arguments or not has_its_type or argument.dtype.kind == "opaque":
            yield f"result {position} cannot update %{argument.name}: {argument.type}", last
    if len(set(function.updates.values())) < len(function.updates):
        yield "two results update one argument", last


def defaults_fit_their_arguments(facts: FunctionFacts) -> Failures:
    """The default of an argument has its element type and a shape that it allows, and no result updates that argument:
    no caller would see its new contents.

    Why: a run that is not given the argument computes with the default in its place.

    Example: `function.defaults = {argument: tensor}` with a tensor of f32[3] for an argument of f32[4].
    """
    function = facts.function
    for argument, tensor in function.defaults.items():
        type_ = TensorType(tensor.dtype, tensor.shape)
        if argument not in function.arguments or not fits(type_, argument.type):
            yield f"{type_} cannot be the default of %{argument.name}: {argument.type}", None
        if argument in function.updates.values():
            yield f"a result updates %{argument.name}, which has a default", None


VERIFIER_RULES = table(
    ("V1", "verify.dominance", operands_are_visible),
    ("V2", "verify.kernel", isolated_regions_capture_nothing),
    ("V3", "verify.uses", links_agree),
    ("V4", "verify.names", names_are_unique),
    ("V5", "verify.types", operands_fit_the_declaration),
    ("V6", "verify.attributes", attributes_are_canonical),
    ("V7", "verify.types", results_have_the_inferred_types),
    ("V8", "verify.region", blocks_end_in_one_terminator),
    ("V9", "verify.region", regions_fit_their_operation),
    ("V10", "verify.kernel", kernels_have_no_effects),
    ("V11", "verify.symbols", symbols_are_defined_once),
    ("V12", "verify.symbols", symbols_are_visible),
    ("V13", "verify.call", calls_fit_their_functions),
    ("V14", "verify.return", result_names_fit_the_results),
    ("V15", "verify.return", updates_fit_their_arguments),
    ("V16", "verify.return", defaults_fit_their_arguments),
)
