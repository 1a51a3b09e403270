"""Modules under other names and from other places: copies that mean the same, and text in which only the meaning shows.

Names of values, symbols, functions and constants, and locations, carry no meaning: what a pass or a backend does with
`disguised(module, ...)` must equal what it does with the module, up to `anonymous`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from irc.cloning import Cloner
from irc.diagnostics import UNKNOWN, Location
from irc.ir import Function, FunctionName, Operation, rename
from irc.module import Module
from irc.weights import Tensor

# Names of passes in locations, and names that a user's rules may have.
MAKERS = ("raise(attention)", "raise(silu)", "raise(rms_norm)", "rewrite(half)", "legalize(silu)", "fold", "fuse(plan)")

Namer = Callable[[str, str], str]  # from what is named ("value", "symbol", ...) and its name to another name


def renamed(module: Module, name: Namer, place: Callable[[Location], Location]) -> Module:
    """A copy with other names, which `name` gives, and other locations."""
    names: dict[tuple[str, str], str] = {}

    def other(kind: str, old: str) -> str:
        if (kind, old) not in names:
            names[kind, old] = name(kind, old)
        return names[kind, old]

    entry, copy = module.main, module.clone()  # which keeps what else a module says
    copy.name, copy.functions = other("module", module.name), {}
    functions = {each.name: "main" if each is entry else other("function", each.name)
                 for each in module.functions.values()}  # fmt: skip
    for function in module.functions.values():
        copy.add(_renamed(function, functions, other, place))
    return copy


def _renamed(function: Function, functions: dict[str, str], other: Namer,
             place: Callable[[Location], Location]) -> Function:
    copy, cloner = Function(functions[function.name], location=place(function.location)), Cloner()
    for name, symbol in (*function.symbols.items(), *function.defined_symbols.items()):
        renamed = copy.symbol(other("symbol", name), symbol.low, symbol.high, symbol.multiple,
                              defined=name in function.defined_symbols)  # fmt: skip
        cloner.symbols[symbol] = renamed.expr
    cloner.block(function.block, copy.block)
    copy.updates = {position: cloner.values[argument] for position, argument in function.updates.items()}
    copy.result_names = tuple(other("result", name) for name in function.output_names)
    operations = list(copy.walk())
    values = [*copy.arguments, *(value for operation in operations for value in operation.defined())]
    chosen = [other("value", value.name) for value in values]
    for index, value in enumerate(values):
        rename(value, f" {index}")  # so that none of the new names is taken
    for value, name in zip(values, chosen, strict=True):
        rename(value, name)
    for operation in operations:
        operation.location = place(operation.location)
        operation.attributes = {key: _attribute(operation, key, attribute, functions, other)
                                for key, attribute in operation.attributes.items()}  # fmt: skip
    return copy


def _attribute(operation: Operation, key: str, attribute: Any, functions: dict[str, str], other: Namer) -> Any:
    if isinstance(attribute, FunctionName):
        return FunctionName(functions[attribute])
    if isinstance(attribute, Tensor) and attribute.name is not None:
        return attribute.renamed(other("constant", attribute.name))
    if operation.name == "kernel" and key in ("name", "bundle") and attribute is not None:
        return other("kernel", attribute)
    return attribute


def disguised(module: Module, seed: int) -> Module:
    """A copy under random names, from random places; with seed 0 values have mere numbers, and no place is known."""
    chance, taken = random.Random(seed), set[str]()

    def name(kind: str, old: str) -> str:
        while True:
            number = chance.randrange(10**6)
            chosen = str(number) if kind == "value" and not seed else f"{chance.choice('aQz_')}{number}"
            if chosen not in taken:
                taken.add(chosen)
                return chosen

    def place(old: Location) -> Location:
        if not seed:
            return UNKNOWN
        makers = tuple(chance.choice(MAKERS) for _ in range(chance.randrange(3)))
        return Location("else.py", chance.randrange(100), 1, chance.choice((None, "m.0", "m.1")), makers)

    return renamed(module, name, place)


def anonymous(module: Module) -> str:
    """The text of a module in which things are named by their order: equal for modules that differ in names only.
    Constants show their data by a digest."""
    counts: dict[str, int] = {}

    def name(kind: str, old: str) -> str:
        counts[kind] = counts.get(kind, -1) + 1
        return f"{kind}{counts[kind]}"

    copy = renamed(module, name, lambda old: UNKNOWN)
    for operation in copy.walk():
        value = operation.attributes.get("value")
        if isinstance(value, Tensor):
            operation.attributes = {**operation.attributes, "value": value.renamed(value.digest())}
    return str(copy)
