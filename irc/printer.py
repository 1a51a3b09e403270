"""IR as text: what `irc.parser` reads back as an equal module. The language is described in `irc/text.lark`.

Text is deterministic: everything stands in the order of the IR, and locations are numbered as they first appear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from irc import dims
from irc._version import FORMAT_VERSION
from irc.diagnostics import UNKNOWN, Location, fail
from irc.dims import Derived, Dim, Expr, Symbol
from irc.dtypes import DType
from irc.ir import Attribute, Block, Function, FunctionName, Operation, Value, dims_in, mentioned_dims
from irc.literals import format_literal, quote
from irc.metadata import Metadata
from irc.types import TensorType, format_symbol_definition, format_type
from irc.weights import Tensor

INDENT = "  "
WORD = re.compile(r"[A-Za-z0-9_.$/-]+")
RESULT_WORD = re.compile(r"[A-Za-z0-9_.$-][A-Za-z0-9_.$/-]*")  # no slash in front: that could begin a comment
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
WITH_NAME_IN_FRONT = {"kernel": "name", "call": "callee"}


def print_module(name: str, header: Mapping[str, str | None], functions: Iterable[Function], metadata: Metadata) -> str:
    """The text of a module (`str` of an `irc.module.Module`): the format version and the entries of `header` that are
    not None, the functions, metadata and the table of locations."""
    return _Printer().module(name, header, functions, metadata)


def print_operation(operation: Operation) -> str:
    """One operation with its regions, without locations."""
    return "\n".join(_Printer(locations=False).operation(operation, ""))


def format_name(sigil: str, name: str) -> str:
    """`%x`, `@main`, or with quotes where the name needs them."""
    return f"{sigil}{name if WORD.fullmatch(name) else quote(name)}"


def format_location(location: Location) -> str:
    """`loc("gpt.py":41:8, "h.0.ln_1", ["raise(gelu)"])`, as in the table of locations."""
    place = "_" if location.file is None else quote(location.file)
    if location.line or location.column:
        place += f":{location.line}:{location.column}" if location.column else f":{location.line}"
    parts = [place]
    if location.name is not None or location.made_by:
        parts.append("_" if location.name is None else quote(location.name))
    if location.made_by:
        parts.append(f"[{', '.join(map(quote, location.made_by))}]")
    return f"loc({', '.join(parts)})"


def format_attribute(attribute: Attribute, defined: Iterable[Symbol] = ()) -> str:
    """An attribute's value; a symbol in `defined` is written with its range."""
    if attribute is None:
        return "none"
    if isinstance(attribute, bool):
        return "true" if attribute else "false"
    if isinstance(attribute, FunctionName):
        return format_name("@", attribute)
    if isinstance(attribute, str):
        return quote(attribute)
    if isinstance(attribute, (int, float)):
        return repr(attribute)
    if isinstance(attribute, complex):
        return f"({attribute.real!r}, {attribute.imag!r})"
    if isinstance(attribute, (DType, Expr)):
        return str(attribute)
    if isinstance(attribute, Symbol):
        return format_symbol_definition(attribute) if attribute in defined else str(attribute.expr)
    if isinstance(attribute, Tensor):
        return format_tensor(attribute)
    if isinstance(attribute, tuple):
        return f"[{', '.join(format_attribute(part, defined) for part in attribute)}]"
    if isinstance(attribute, dict):
        return format_dictionary(attribute, defined)
    raise fail("internal.error", f"text has no form for an attribute of type {type(attribute).__name__}: {attribute!r}")


def format_dictionary(attributes: dict[str, Attribute], defined: Iterable[Symbol] = ()) -> str:
    parts = (
        f"{name if KEY.fullmatch(name) else quote(name)} = {format_attribute(attribute, defined)}"
        for name, attribute in attributes.items()
    )
    return f"{{{', '.join(parts)}}}"


def format_tensor(tensor: Tensor) -> str:
    """`[1, 2] : i64[2]`, or by name: `@"h.0.weight" : f16[768]`."""
    type_ = TensorType(tensor.dtype, tensor.shape)
    literal = format_literal(tensor) if tensor.name is None else f"@{quote(tensor.name)}"
    return f"{literal} : {type_}"


# -- modules, functions, operations ----------------------------------------------------------------------------


class _Printer:
    def __init__(self, locations: bool = True) -> None:
        self.locations = locations
        self.numbers: dict[Location, int] = {}
        self.defined: set[Derived] = set()  # the derived symbols that the function has written

    def place(self, location: Location) -> str:
        if not self.locations or location == UNKNOWN:
            return ""
        return f" loc(#{self.numbers.setdefault(location, len(self.numbers) + 1)})"

    def module(self, name: str, header: Mapping[str, str | None], functions: Iterable[Function],
               metadata: Metadata) -> str:
        stated = {key: text for key, text in header.items() if text is not None}
        attributes = f" {format_dictionary(stated)}" if stated else ""
        lines = [f"irc text {FORMAT_VERSION}", f"module {format_name('@', name)}{attributes} {{"]
        for function in functions:
            lines += self.function(function, INDENT)
        lines.append("}")
        lines += [f"metadata {kind}{f' {quote(name)}' if name else ''} {format_dictionary(facts)}"
                  for (kind, name), facts in metadata.items() if facts]  # fmt: skip
        lines += [f"#{number} = {format_location(location)}" for location, number in self.numbers.items()]
        return "\n".join(lines) + "\n"

    def function(self, function: Function, indent: str) -> list[str]:
        self.defined.clear()
        extents = (dim for value in function.arguments for dim in value.type.shape or ())
        signature = [*map(_format_symbol, function.symbols.values()), *self.definitions(extents)]
        symbols = ", ".join(signature)
        defaults = {value: f" = {format_tensor(tensor)}" for value, tensor in function.defaults.items()}
        arguments = ", ".join(
            f"{format_name('%', value.name)}: {value.type}{defaults.get(value, '')}" for value in function.arguments
        )
        header = f"func {format_name('@', function.name)}{f'<{symbols}>' if symbols else ''}({arguments})"
        place = self.place(function.location)
        opening = f"{indent}{header} -> {_format_results(function)}{place} {{"
        return [opening, *self.block(function.block, indent + INDENT), f"{indent}}}"]

    def block(self, block: Block, indent: str) -> list[str]:
        return [line for operation in block for line in self.operation(operation, indent)]

    def definitions(self, extents: Iterable[Dim]) -> list[str]:
        """The derived symbols that are met for the first time, each after those that it depends on."""
        new = dims.derived_below(extents, self.defined.__contains__)
        self.defined.update(new)
        return [f"{derived} = [{derived.definition}]" for derived in new]

    def operation(self, operation: Operation, indent: str) -> list[str]:
        value = operation.attributes.get("value")
        words = [operation.name]
        if operation.results:
            words.insert(0, f"{', '.join(format_name('%', result.name) for result in operation.results)} =")
        if operation.name == "const" and isinstance(value, Tensor):
            return [f"{indent}{' '.join(words)} {format_tensor(value)}{self.place(operation.location)}"]
        waiting, in_front = _symbol_definitions(operation)

        def type_of(value: Value) -> str:
            """With the ranges of symbols that were not written before."""
            text = format_type(value.type, waiting.values())
            for dim in (value.type.shape or ()) if waiting else ():
                waiting.pop(dim, None)
            return text

        specs = operation.definition.attribute_specs
        attributes = {
            name: attribute
            for name, attribute in operation.attributes.items()
            if attribute is not None or (name in specs and specs[name].default is not None)
        }
        named = attributes.get(WITH_NAME_IN_FRONT.get(operation.name, ""))
        if isinstance(named, str):
            words.append(format_name("@", named))
            del attributes[WITH_NAME_IN_FRONT[operation.name]]
        bindings = _bindings(operation)
        if bindings is not None:
            words.append(f"({', '.join(bindings)})")
        elif operation.operands:
            words.append(", ".join("_" if each is None else format_name("%", each.name) for each in operation.operands))
        if in_front:
            words.append(f"with {', '.join(map(format_symbol_definition, in_front))}")
        if attributes:
            words.append(format_dictionary(attributes, operation.symbols))
        if operation.results:
            words.append(f": {', '.join(map(type_of, operation.results))}")
        lines = [f"{indent}{line}" for line in self.definitions(mentioned_dims(operation))]
        lines.append(f"{indent}{' '.join(words)}{self.place(operation.location)}")
        for index, region in enumerate(operation.regions):
            described = region.block.arguments if bindings is None else []
            arguments = ", ".join(f"{format_name('%', value.name)}: {type_of(value)}" for value in described)
            opening = f"{indent}}} else" if index else lines.pop()
            lines.append(f"{opening} {{{f' ({arguments})' if arguments else ''}")
            lines += self.block(region.block, indent + INDENT)
        return [*lines, f"{indent}}}"] if operation.regions else lines


def _symbol_definitions(operation: Operation) -> tuple[dict[Dim, Symbol], list[Symbol]]:
    """Where the symbols that an operation makes are written, if they are no attribute: at their first mention, if
    that is the bare symbol in the type of a result or of a region's argument, and else in a clause in front."""
    in_types: dict[Dim, Symbol] = {}
    in_front: list[Symbol] = []
    if not operation.symbols:
        return in_types, in_front
    attributes = list(operation.attributes.values())
    attributed = {attribute for attribute in attributes if isinstance(attribute, Symbol)}
    mentioned = {symbol for dim in dims_in(tuple(attributes)) for symbol in dims.free_symbols(dim)}
    arguments = [value for region in operation.regions for value in region.block.arguments]
    extents = [dim for value in [*operation.results, *arguments] for dim in value.type.shape or ()]
    for symbol in operation.symbols:
        first = next((dim for dim in extents if symbol in dims.free_symbols(dim)), None)
        if first == symbol.expr and symbol not in mentioned:
            in_types[first] = symbol
        elif symbol not in attributed:
            in_front.append(symbol)
    return in_types, in_front


def _format_symbol(symbol: Symbol) -> str:
    default = (symbol.low, symbol.high) == (dims.IMPORTED_LOW, dims.IMPORTED_HIGH)
    limits = "" if default else f" in [{symbol.low}, {symbol.high}]"
    return f"{symbol.expr}{limits}{f' % {symbol.multiple}' if symbol.multiple != 1 else ''}"


def _format_results(function: Function) -> str:
    last, names = function.block.last, function.result_names
    types = [str(value.type) for value in last.inputs] if last is not None and last.name == "return" else []
    if function.updates:
        names = function.output_names
        types = [f"{type_} updates {format_name('%', function.updates[position].name)}"
                 if position in function.updates else type_ for position, type_ in enumerate(types)]
    if names is None or len(names) != len(types):  # a broken function prints, too, for debugging
        return types[0] if len(types) == 1 else f"({', '.join(types)})"
    quoted = [name if RESULT_WORD.fullmatch(name) else quote(name) for name in names]
    return f"({', '.join(f'{name}: {type_}' for name, type_ in zip(quoted, types, strict=True))})"


def _bindings(operation: Operation) -> list[str] | None:
    """`%n0 = %x` for each operand of a kernel whose block takes exactly these, so that their types need no words."""
    if operation.name != "kernel" or len(operation.regions) != 1:
        return None
    arguments = operation.regions[0].block.arguments
    if [value.type for value in arguments] != [value and value.type for value in operation.operands]:
        return None
    pairs = zip(arguments, operation.inputs, strict=True)
    return [f"{format_name('%', argument.name)} = {format_name('%', operand.name)}" for argument, operand in pairs]

