"""Two programs with the same inputs, and whether the rules of the passes make them one.

Both are put into one program that shares the inputs. The passes then compute a value once where both compute it, by
their normal form: where the outputs are the same values in the end, the programs are equal. What may stop a run, such
as an assertion or an index out of range, must be the same in both, too.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from irc import dims
from irc.cloning import Cloner
from irc.diagnostics import fail
from irc.driver.models import Settings, read_pipeline, specialized
from irc.ir import Function, Operation, Value
from irc.module import Module
from irc.named_pipelines import CLEAN
from irc.numerics import Numerics, allows
from irc.op import return_
from irc.ops.edge_cases import INDEXING
from irc.ops.extern import is_random, is_seeded
from irc.pass_manager import PassContext, PassManager

# What is tried: how it is called, and the passes.
FORMS = (
    ("they have the same operations", "cse,dce"),
    ("they have the same normal form", CLEAN),
    ("they have the same normal form in primitives", f"{CLEAN},legalize,canonicalize,fold,cse,canonicalize,cse,dce"),
)

RAISING = frozenset({"refine", "extern", *(row.op for row in INDEXING if row.expected == "run.index")})


@dataclass(frozen=True)
class Pair:
    """Two programs that take the same inputs, specialized to sizes that both allow: `inputs` has the name in the second
    program of each input of the first, and `outputs` the positions of results that are compared."""

    first: Module
    second: Module
    inputs: Mapping[str, str]
    outputs: tuple[tuple[int, int], ...]
    sizes: Mapping[str, int]  # that one of them fixes

    def for_second(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of the first program, by the names of the second."""
        return {self.inputs[name]: array for name, array in inputs.items()}


def paired(first: Module, second: Module) -> Pair:
    """Two programs with their inputs and outputs matched: by name where both have the same names, else by position.
    Inputs with defaults that one of them lacks keep their defaults. Raises `diff.signature`."""
    given = [[each for each in module.main.arguments if each not in module.main.defaults] for module in (first, second)]
    inputs = _matched("inputs", *([value.name for value in values] for values in given))
    outputs = _matched("outputs", first.main.output_names, second.main.output_names)
    sizes: tuple[dict[str, int], dict[str, int]] = {}, {}
    others = {value.name: value for value in given[1]}
    for value in given[0]:
        _fit(value, others[inputs[value.name]], sizes)
    places = [list(module.main.output_names) for module in (first, second)]
    both = [specialized(module, fixed) if fixed else module
            for module, fixed in zip((first, second), sizes, strict=True)]  # fmt: skip
    positions = tuple((places[0].index(one), places[1].index(other)) for one, other in outputs.items())
    return Pair(both[0], both[1], inputs, positions, {**sizes[1], **sizes[0]})


def _matched(what: str, first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    if {*first} == {*second}:
        return {name: name for name in first}
    if len(first) != len(second):
        listed = " and ".join(", ".join(names) or "none" for names in (first, second))
        raise fail("diff.signature", f"the {what} of the two models are {listed}",
                   expected=f"the same names, or the same number of {what}")  # fmt: skip
    return dict(zip(first, second, strict=True))


def _fit(one: Value, other: Value, sizes: tuple[dict[str, int], dict[str, int]]) -> None:
    """Add the sizes of symbols that one of two inputs fixes for the other."""
    both = f"%{one.name}: {one.type} and %{other.name}: {other.type}"
    are_ranked = one.type.is_ranked and other.type.is_ranked
    if one.dtype is not other.dtype or (are_ranked and one.type.rank != other.type.rank):
        raise fail("diff.signature", f"the inputs {both} have no array in common",
                   expected="the same element type and rank")  # fmt: skip
    if not are_ranked:
        return
    for dim, fixed in zip(one.shape, other.shape, strict=True):
        for place, (mine, theirs) in enumerate(((dim, fixed), (fixed, dim))):
            if not isinstance(theirs, int):
                continue
            symbol = dims.sole_symbol(mine) if not isinstance(mine, int) else None
            known = mine if isinstance(mine, int) else sizes[place].get(symbol.name, theirs) if symbol else theirs
            if known != theirs:
                raise fail("diff.signature", f"the inputs {both} have no array in common",
                           expected="sizes that both allow")  # fmt: skip
            if symbol is not None:
                sizes[place][symbol.name] = theirs


# -- rules -----------------------------------------------------------------------------------------------------


def equal_by_rules(pair: Pair, settings: Settings) -> str | None:
    """Why the programs are equal; None where the rules do not show that. Rules that round are used only where
    `settings` allows, and are named then."""
    pair = replace(pair, first=without_kernels(pair.first), second=without_kernels(pair.second))
    classes: list[Numerics] = ["exact"]
    classes += [settings.numerics] if allows(settings.numerics, "keeps_more_precision") else []
    for numerics in classes:
        for reason, pipeline in FORMS:
            joint = joined(pair)
            if joint is None:
                return None
            context = PassContext(numerics=numerics, operations=settings.operations())
            PassManager(read_pipeline(pipeline, context), context).run(joint.module)
            if joint.is_one():
                return reason if numerics == "exact" else f"{reason}, up to rounding ({numerics})"
    return None


def without_kernels(module: Module) -> Module:
    """A copy with the operations of kernels in their place: a kernel computes what they compute."""
    copy = module.clone()
    for kernel in [operation for operation in copy.walk() if operation.name == "kernel"]:
        outside, inside = kernel.block, kernel.regions[0].block
        assert outside is not None
        for argument, operand in zip(inside.arguments, kernel.inputs, strict=True):
            argument.replace_uses(operand)
        for operation in list(inside):
            if operation is not inside.terminator:
                outside.insert(inside.remove(operation), kernel)
        kernel.replace(inside.terminator.inputs)
    return copy


Check = tuple[Hashable, int]  # what stops a run, and how many values it depends on


@dataclass(frozen=True)
class Joint:
    """A program that returns `outputs` results of each of two programs, then for each the values that its `checks`
    depend on, and what else may raise: so passes keep these, though nothing reads them."""

    module: Module
    outputs: int
    checks: tuple[Sequence[Check], Sequence[Check]]
    returned: tuple[int, int]  # how many values are returned for checks and what may raise, of each program

    def is_one(self) -> bool:
        """Whether both programs compute the same values, and stop in the same cases."""
        values, count = self.module.main.returned, self.outputs
        middle = 2 * count + self.returned[0]
        others = values[2 * count : middle], values[middle:]
        if any(one is not other for one, other in zip(values[:count], values[count : 2 * count], strict=True)):
            return False
        checks = [_checked(each, known) for each, known in zip(self.checks, others, strict=True)]
        return checks[0] == checks[1] and _raising(others[0]) == _raising(others[1])


def _checked(checks: Sequence[Check], values: Sequence[Value]) -> set[Hashable]:
    """Checks with the values that they depend on, without assertions that hold."""
    checked: set[Hashable] = set()
    place = 0
    for key, count in checks:
        read = tuple(values[place : place + count])
        place += count
        if not (key == "assert" and _holds(read[0])):
            checked.add((key, read))
    return checked


def _holds(condition: Value) -> bool:
    constant = condition.operation
    return constant is not None and constant.name == "const" and bool(constant.attributes["value"].array().all())


def _raising(values: Sequence[Value]) -> set[Operation]:
    """The operations that values are computed by and that may raise."""
    waiting = [value.operation for value in values if value.operation is not None]
    seen = set(waiting)
    while waiting:
        new = {value.operation for value in waiting.pop().inputs if value.operation is not None} - seen
        seen |= new
        waiting += new
    return {operation for operation in seen if may_raise(operation)}


def may_raise(operation: Operation) -> bool:
    """Whether a run may stop at an operation, or at one inside it. That two extents are equal, which a type rule could
    not prove, is no such check."""
    return any(_may_raise(inner) for inner in operation.walk() if not inner.definition.is_terminator)


def _may_raise(operation: Operation) -> bool:
    if operation.name == "slice":
        parts = zip(operation.attributes["starts"], operation.attributes["stops"], operation.inputs[0].type.shape or (),
                    strict=False)  # fmt: skip
        is_proven = operation.inputs[0].type.is_ranked and all(
            dims.less(low, high) is False for start, stop, extent in parts
            for low, high in ((start, 0), (stop, start), (extent, stop)))
        return not is_proven
    return (operation.definition.has_effect or operation.name in RAISING
            or operation.attributes.get("by_zero") == "error")  # fmt: skip


def joined(pair: Pair) -> Joint | None:
    """One program that returns the compared results of the first, then those of the second; None where their symbols
    do not correspond, where the second calls functions, where one draws random numbers, or where what may raise is
    inside a loop, a branch or a kernel."""
    joint, main = pair.first.clone(), pair.second.main
    if len(pair.second.functions) > 1 or any(map(_is_left_alone, (joint, pair.second))):
        return None
    target = joint.main
    cloner = Cloner()
    for one, other in pair.inputs.items():
        cloner.values[main.find(other)] = target.find(one)
    if not _same_symbols(cloner, main):
        return None
    for argument, tensor in main.defaults.items():
        twin = next((each for each, known in target.defaults.items() if known == tensor), None)
        if twin is None:
            return None
        cloner.values[argument] = twin
    for operation in main.walk():
        for symbol in operation.symbols:
            new = target.fresh_symbol(symbol.name, symbol.low, symbol.high, symbol.multiple)
            cloner.symbols[symbol] = new.expr
    constants = _constants(target)
    ending = target.block.terminator
    firsts = list(target.returned)
    first_operations = [each for each in target.block if each is not ending]
    added: list[Operation] = []
    for operation in main.block:
        if operation is main.block.terminator:
            break
        twin_constant = _twin(operation, constants)
        if twin_constant is not None:
            cloner.values[operation.result] = twin_constant
        else:
            added.append(cloner.operation(operation))
            target.block.insert(added[-1], ending)
    seconds = [cloner.values[value] for value in main.returned]
    ending.erase()
    stops = _take_checks(first_operations), _take_checks(added)
    results = [*(firsts[place] for place, _ in pair.outputs), *(seconds[place] for _, place in pair.outputs),
               *stops[0][1], *stops[1][1]]  # fmt: skip
    target.block.append(Operation(return_, results, {}, []))
    target.result_names = tuple(f"r{index}" for index in range(len(results)))
    return Joint(joint, len(pair.outputs), (stops[0][0], stops[1][0]), (len(stops[0][1]), len(stops[1][1])))


def _is_left_alone(module: Module) -> bool:
    """Whether a program updates inputs, draws random numbers, or may raise inside a loop, a branch or a kernel."""
    is_drawn = any(is_random(each) and not is_seeded(each) for each in module.walk())
    return bool(module.main.updates) or is_drawn or any(each.regions and may_raise(each) for each in module.main.block)


def _take_checks(operations: Sequence[Operation]) -> tuple[list[Check], list[Value]]:
    """The checks of a program, and the values to return for them; assertions are removed, for passes may use them where
    the other program has none."""
    checks: list[Check] = []
    read: list[Value] = []
    results: list[Value] = []
    for operation in operations:
        if operation.definition.has_effect:
            symbol = operation.attributes.get("symbol")
            limits = (symbol.low, symbol.high, symbol.multiple) if symbol is not None else ()
            key = (operation.name, operation.attributes.get("callee"), *limits)
            checks.append(("assert" if operation.name == "assert" else key, len(operation.inputs)))
            read += operation.inputs
            if operation.name in ("assert", "assume"):
                operation.erase()
        elif may_raise(operation):
            results += operation.results
    return checks, [*read, *results]


def _same_symbols(cloner: Cloner, function: Function) -> bool:
    """Map the symbols of a function to the dims of the inputs that stand for its own; whether that determines all."""
    pairs = [(dim, other) for value, twin in cloner.values.items() if value.type.is_ranked and twin.type.is_ranked
             for dim, other in zip(value.shape, twin.shape, strict=True)]  # fmt: skip
    for dim, other in pairs:
        symbol = None if isinstance(dim, int) else dims.sole_symbol(dim)
        if symbol is not None:
            cloner.symbols.setdefault(symbol, other)
    is_known = all(symbol in cloner.symbols for symbol in function.symbols.values())
    return is_known and all(dims.substitute(dim, cloner.symbols) == other for dim, other in pairs)


Constants = dict[tuple[Any, ...], list[Value]]


def _constants(function: Function) -> Constants:
    by_type: Constants = {}
    for operation in function.block:
        if operation.name == "const":
            tensor = operation.attributes["value"]
            by_type.setdefault((tensor.dtype, tensor.shape), []).append(operation.result)
    return by_type


def _twin(operation: Operation, constants: Mapping[tuple[Any, ...], Collection[Value]]) -> Value | None:
    """The constant of the first program that has the same elements."""
    if operation.name != "const":
        return None
    tensor = operation.attributes["value"]
    for value in constants.get((tensor.dtype, tensor.shape), ()):
        if value.operation is not None and value.operation.attributes["value"].digest() == tensor.digest():
            return value
    return None
