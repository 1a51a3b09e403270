"""Names and comments in generated code: what a value or a kernel is called, and which source lines a kernel is from.

The names of the source come first. Where it gives none (numbers, in the IR), a kernel is called after the operations
that it computes, a result after the operation that computes it, and an argument after the operand that it is read as.
"""

from __future__ import annotations

from collections.abc import Iterable

from irc.backends.triton.text import identifier, plain
from irc.diagnostics import Location
from irc.interfaces import Trait
from irc.ir import Operation, Value
from irc.kernel import members_of

MOST_OPERATIONS = 3  # in the name of a kernel
MOST_PLACES = 4  # in a comment


def kernel_name(operation: Operation) -> str:
    """An identifier for a `kernel`: its own name, or `mul_softmax` after its first operations, each named once."""
    name = identifier(operation.attributes["name"])
    if name:
        return name
    members = members_of(operation)
    names = dict.fromkeys(member.name for member in members if _computes(member))
    return "_".join(list(names)[:MOST_OPERATIONS] or [member.name for member in members[:1]] or ["kernel"])


def value_name(value: Value) -> str:
    """An identifier for a value: its own name, or what it is."""
    name = identifier(value.name)
    if name:
        return name
    operation = value.operation
    if operation is None or operation.name == "const":
        return _operand_name(value) or ("constant" if operation is not None else "x")
    return kernel_name(operation) if operation.name == "kernel" else operation.name


def comment_on(origins: Iterable[Location]) -> str:
    """A comment line with the places in the source that a kernel is from; empty where none is known."""
    places = list(dict.fromkeys(plain(str(origin)) for origin in origins if origin.known))
    more = f", and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    return f"# from {', '.join(places[:MOST_PLACES])}{more}\n" if places else ""


def _computes(operation: Operation) -> bool:
    return operation.definition.traits.isdisjoint({Trait.FREE, Trait.HOST})


def _operand_name(value: Value) -> str:
    """The name of the first operand that the value is read as, such as `bias`; empty where it says nothing ("x")."""
    for user, index in value.uses:
        if user.name == "kernel":
            return _operand_name(user.regions[0].block.arguments[index])
        specs = user.definition.operand_specs
        name = specs[min(index, len(specs) - 1)].name if specs else ""
        return name if len(name.strip("s")) > 1 else ""
    return ""
