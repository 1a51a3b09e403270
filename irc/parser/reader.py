"""The actions of the grammar `irc/text.lark`: each builds IR as soon as its rule is complete."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from irc import dims, ops, weights
from irc._version import FORMAT_VERSION
from irc.diagnostics import UNKNOWN, IrcError, Location, fail
from irc.dims import Symbol
from irc.ir import Attribute, Block, Function, Operation, Region, Value
from irc.metadata import misfit
from irc.module import EdgeCases, Module
from irc.op import OperationDefinition, const, return_, yield_
from irc.parser.attributes import DEEPEST, AttributeReader
from irc.parser.parts import WORDS, Part, clipped, within
from irc.parser.source import Source
from irc.parser.tensors import TensorReader
from irc.parser.types import TypeReader
from irc.types import QUOTED, TensorType, list_types

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

    from irc.parser.source import At

MOST_EXPECTED = 8  # a longer list of alternatives in an error does not help
# Parts of tokens of text.lark.
VALUE = re.compile(rf"%(?:{QUOTED}|[A-Za-z0-9_.$/-]+)|_")
FIRST_LINE = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*(irc text [0-9]+|)")
LOCATION = re.compile(r"^[ \t]*#([0-9]+) = (loc\(.*\))", re.MULTILINE)
PLACE = re.compile(
    rf"loc\((?:_|({QUOTED}))(?::([0-9]+)(?::([0-9]+))?)?(?:, (?:_|({QUOTED})))?(?:, (\[{QUOTED}(?:, {QUOTED})*\]))?\)"
)
PLACE_FORM = 'loc("file":line:column, "name", ["pass", ...]), with _ for what is not known'
PLAIN_RULES = ("symbols", "parameters", "parameter", "arguments", "argument", "named_result", "operands", "bindings",
               "binding", "defined")  # fmt: skip


@lru_cache(maxsize=1)
def grammar() -> Lark:
    """The compiled grammar; compiling takes 0.06 s, hence once."""
    from lark import Lark

    return Lark((files("irc") / "text.lark").read_text("utf-8"), parser="lalr", transformer=_Actions(), regex=False)


class _Actions:
    """What Lark calls when a rule is complete: the method of that name of the reader at work."""

    def __getattr__(self, rule: str) -> Callable[[list[Any]], Any]:
        if rule in PLAIN_RULES:
            return list
        if not hasattr(Reader, rule):
            raise AttributeError(rule)
        return lambda children: getattr(_at_work.get(), rule)(children)


@dataclass(slots=True)
class _Header:
    """An operation of which everything is read but its regions."""

    name: Token
    definition: OperationDefinition
    results: Token | None
    operands: list[Value | None]
    attributes: dict[str, Attribute]
    types: list[TensorType] | None
    types_token: Token | None
    bindings: list[tuple[Token, Token]] | None
    location: Location
    defined: list[Symbol]


@dataclass(slots=True)
class _Scope:
    """A block that is being read, and what was visible around it."""

    block: Block
    visible: dict[str, Value]
    at: At  # the latest operation, for errors at the block's end
    defined: list[str] = field(default_factory=list)


_at_work: ContextVar[Reader] = ContextVar("irc_reader")


class Reader:
    """Builds the module of one text. Methods named after rules of the grammar are the actions."""

    def __init__(self, text: str, path: Path | None, readers: Mapping[str, weights.Reader],
                 definitions: Mapping[str, OperationDefinition]) -> None:
        self.source, self.definitions = Source(text, path), definitions
        self.result, self.current = Module(), Function("")
        self.type_reader = TypeReader(self.source)
        folder = Path() if path is None else path.parent
        self.tensor_reader = TensorReader(self.source, self.type_reader, self.result, folder, readers)
        self.attribute_reader = AttributeReader(self.source, self.type_reader, self.tensor_reader)
        self.locations: dict[str, Location] = {}
        self.names: set[str] = set()  # all that the function has defined; `scopes` have those that are visible
        self.scopes: list[_Scope] = []
        self.headers: list[_Header] = []
        self.stated: list[Token] = []  # the types of the function's results

    def read(self) -> Module:
        from lark.exceptions import UnexpectedInput

        self.check_version()
        self.read_locations()
        token = _at_work.set(self)
        try:
            grammar().parse(self.source.text)
        except UnexpectedInput as error:
            raise self.syntax_error(error) from None
        finally:
            _at_work.reset(token)
        for name, at in self.attribute_reader.references:
            if name not in self.result.functions:
                raise self.source.undefined(f"function @{name}", name, self.result.functions, at)
        return self.result

    def syntax_error(self, error: UnexpectedInput) -> IrcError:
        from lark.exceptions import UnexpectedCharacters, UnexpectedToken

        start, unexpected, terminals = len(self.source.text.rstrip()), "", set[str]()
        if isinstance(error, UnexpectedToken):
            terminals = error.accepts or error.expected
            if error.token.type != "$END":
                start, unexpected = error.token.start_pos or 0, error.token.split("\n")[0]
        elif isinstance(error, UnexpectedCharacters):
            start, terminals = error.pos_in_stream or 0, error.allowed or set()
            unexpected = self.source.text[start : start + 1]
        message = f"unexpected {clipped(unexpected)}" if unexpected else "the text ends too early"
        words = sorted(WORDS.get(token) or f"`{grammar().get_terminal(token).pattern.value}`" for token in terminals)
        expected = ", ".join(words) if 0 < len(words) <= MOST_EXPECTED else None
        return self.source.error("text.syntax", message, Part(unexpected, start), expected)

    # --- the text around functions ---
    def check_version(self) -> None:
        match = FIRST_LINE.match(self.source.text)
        assert match is not None  # the pattern matches nothing, too
        first_line = f"irc text {FORMAT_VERSION}"
        if match.group(1) != first_line:
            message = f"a text that this irc reads begins with the line `{first_line}`"
            raise self.source.error("text.version", message, Part(match[1], match.start(1)))

    def read_locations(self) -> None:
        """Read the table after the module, before the operations that refer to it."""
        for match in LOCATION.finditer(self.source.text):
            number, written = match.groups()
            at, parts = Part(written, match.start(2)), PLACE.fullmatch(written)
            if parts is None:
                raise self.source.error("text.syntax", "a location that cannot be read", at, PLACE_FORM)
            if number in self.locations:
                at = Part(number, match.start(1))
                raise self.source.error("text.redefined_name", f"location #{number} is defined twice", at)
            read = [None if part is None else self.source.literal(part, at) for part in parts.groups()]
            file, line, column, name, made_by = read
            self.locations[number] = Location(file, line or 0, column or 0, name, tuple(made_by or ()))

    def place(self, token: Token | None) -> Location:
        if token is None:
            return UNKNOWN
        number = token[len("loc(#") : -1]
        if number not in self.locations:
            raise self.source.undefined(f"location #{number}", number, self.locations, token)
        return self.locations[number]

    def metadata(self, children: list[Any]) -> None:
        kind, name, attributes = children
        subject = (str(kind), "" if name is None else self.source.name(name))
        facts = self.attribute_reader.dictionary(attributes, {})
        problem = misfit(subject, facts)
        if problem is not None:
            raise self.source.error("text.syntax", f"metadata that cannot be read: {problem}", kind)
        if subject in self.result.metadata:
            raise self.source.error("text.redefined_name", "this metadata is given twice", kind)
        self.result.metadata[subject] = facts

    def module_header(self, children: list[Any]) -> None:
        symbol, attributes = children
        self.result.name = self.source.name(symbol)
        stated = self.attribute_reader.dictionary(attributes, {})
        header = {"edge_cases": "defined", "weights": None, "sha256": None, **stated}
        known = len(header) == 3 and header["edge_cases"] in get_args(EdgeCases)
        if not known or {*map(type, header.values())} - {str, NoneType}:
            message, (_, first) = "attributes of a module that cannot be read", attributes.inside()[0].split("=")
            expected = '{weights = "FILE", sha256 = "...", edge_cases = "onnx"}'
            raise self.source.error("text.syntax", message, first, expected)
        self.result.edge_cases, self.result.source, self.result.source_digest = header.values()

    # --- functions ---
    def function_header(self, children: list[Any]) -> None:
        symbol, symbols, parameters, (self.stated, result_names, updates), place = children
        name = self.source.name(symbol)
        if name in self.result.functions:
            raise self.source.error("text.redefined_name", f"the module already has a function @{name}", symbol)
        self.current = Function(name, location=self.place(place))
        self.current.result_names = result_names
        self.type_reader.start(self.current)
        self.names = set()
        self.scopes.append(_Scope(self.current.block, {}, symbol))
        for part in symbols or ():
            if isinstance(part, tuple):
                token, (low, high, multiple) = part
                self.type_reader.declare(token, None, self.source.name(token), low, high, multiple)
            else:
                self.definition([part])
        for token, type_token, default in parameters or ():
            argument = self.argument_of(self.current.block, token, *self.type_reader.read(type_token, None))
            if default is not None:
                self.current.defaults[argument] = self.tensor_reader.read_typed(default)
        updating = ((position, token) for position, token in enumerate(updates) if token is not None)
        self.current.updates = {position: self.operand(self.source.name(token), token) for position, token in updating}

    def symbol(self, children: list[Any]) -> tuple[Token, list[int]]:
        token, *written = children
        defaults = (dims.IMPORTED_LOW, dims.IMPORTED_HIGH, 1)
        numbers = zip(written, defaults, strict=True)
        return token, [default if part is None else self.source.literal(part, part) for part, default in numbers]

    def plain_results(self, children: list[Any]) -> tuple[list[Token], None, tuple[()]]:
        return [token for token in children if token is not None], None, ()

    def named_results(self, children: list[Any]) -> tuple[list[Token], tuple[str, ...], list[Token | None]]:
        names, types_, updates = zip(*children, strict=True)
        return list(types_), tuple(map(self.source.name, names)), list(updates)

    def argument_of(self, block: Block, token: Token, type_: TensorType) -> Value:
        name = self.source.name(token)
        argument = block.add_argument(type_, name)
        self.define(name, argument, token)
        return argument

    def function(self, children: list[Any]) -> None:
        scope = self.scopes.pop()
        last = scope.block.last
        if last is None or last.definition is not return_:
            message = f"function @{self.current.name} does not end in `return`"
            raise self.source.error("text.syntax", message, scope.at)
        stated = [type_ for token in self.stated for type_ in self.type_reader.read(token, None)]
        returned = [value.type for value in last.inputs]
        if stated != returned:
            message = f"@{self.current.name} states {list_types(stated)}, but returns {list_types(returned)}"
            raise self.source.error("text.type_mismatch", message, self.stated[0] if self.stated else scope.at)
        self.result.add(self.current)

    # --- names ---
    def define(self, name: str, value: Value, at: At) -> None:
        if name in self.names:
            message = f"%{name} is defined twice in @{self.current.name}"
            raise self.source.error("text.redefined_name", message, at)
        self.names.add(name)
        self.scopes[-1].visible[name] = value
        self.scopes[-1].defined.append(name)

    def operand(self, name: str, at: At) -> Value:
        visible = self.scopes[-1].visible
        if name in visible:
            return visible[name]
        if name in self.names:
            message = f"%{name} is defined, but inside another region or outside of this kernel"
            raise self.source.error("text.undefined_name", message, at, help="yield it, or pass it in as an operand")
        raise self.source.undefined(f"%{name}", name, visible, at)

    def values(self, token: Token | None) -> Iterator[tuple[str | None, At]]:
        """The names in a list of operands or results, None for an absent operand, and where each stands."""
        if token is None:
            return
        for match in VALUE.finditer(token):
            part = within(token, match)
            yield None if part == "_" else self.source.name(part), part

    def definition(self, children: list[Token]) -> Token | None:
        """A derived symbol, known in the rest of the function; one of the signature waits for its symbols."""
        (token,) = children
        if not self.scopes:
            return token
        self.type_reader.define(token)
        return None

    # --- operations ---
    def header(self, children: list[Any]) -> None:
        results, name, (symbol, bindings, operand_list, definitions), attributes, types_token, place = children
        with self.source.blaming(name):
            definition = ops.lookup(name, self.definitions)
        defined: list[Symbol] = []
        for token in definitions or ():
            self.type_reader.symbol_definition(token, defined)
        operands = [None if name is None else self.operand(name, at) for name, at in self.values(operand_list)]
        if bindings is not None:
            if operands:
                raise self.source.error("text.syntax", "operands after bindings", operand_list)
            operands = [self.operand(self.source.name(operand), operand) for _, operand in bindings]
        given = self.attribute_reader.dictionary(attributes, definition.attribute_specs, defined)
        if symbol is not None:
            key = "callee" if "callee" in definition.attribute_specs else "name"
            given[key] = self.source.name(symbol)
            if key == "callee":
                self.attribute_reader.references.append((given[key], symbol))
        stated = None if types_token is None else self.type_reader.read(types_token, defined)
        if stated is None and results is None and definition.has_declared_types:
            stated = []
        location = self.place(place)
        self.headers.append(_Header(name, definition, results, operands, given, stated, types_token, bindings, location,
                                    defined))  # fmt: skip

    def region_header(self, children: list[Any]) -> None:
        header, around = self.headers[-1], self.scopes[-1]
        if len(self.scopes) > DEEPEST:
            raise self.source.error("text.syntax", f"regions nest deeper than {DEEPEST}", header.name)
        block = Block()
        self.scopes.append(_Scope(block, {} if header.definition.is_isolated else around.visible, header.name))
        for (token, _), operand in zip(header.bindings or (), header.operands, strict=False):
            assert operand is not None
            self.argument_of(block, token, operand.type)
        for token, type_token in children[0] or ():
            self.argument_of(block, token, *self.type_reader.read(type_token, header.defined))

    def region(self, children: list[Any]) -> Region:
        scope = self.scopes.pop()
        for name in scope.defined:
            del scope.visible[name]
        if scope.block.last is None or scope.block.last.definition is not yield_:
            raise self.source.error("text.syntax", "a region does not end in `yield`", scope.at)
        return Region(scope.block)

    def statement(self, children: list[Any]) -> None:
        _, *regions = children
        header = self.headers.pop()
        definition = header.definition
        if header.bindings is not None and not regions:
            message = f"{definition.name}: bindings name the arguments of a region, and there is none"
            raise self.source.error("text.syntax", message, header.name)
        try:
            attributes = definition.normalize(header.attributes)
            operand_types = [None if operand is None else operand.type for operand in header.operands]
            inferred = list(definition.infer(operand_types, attributes, header.types, regions))
        except IrcError as error:
            raise self.source.placed(error, header.name, header.location) from None
        if header.types is not None and header.types != inferred:
            message = f"{definition.name}: the text states {list_types(header.types)}"
            mismatch = fail("text.type_mismatch", message, expected=list_types(inferred))
            raise self.source.placed(mismatch, header.types_token or header.name, header.location)
        operation = Operation(definition, header.operands, attributes, inferred, regions, symbols=header.defined,
                              location=header.location)
        self.append(operation, header.results, header.name)

    def constant(self, children: list[Any]) -> None:
        results, written, place = children
        tensor = self.tensor_reader.read_typed(written)
        type_ = TensorType(tensor.dtype, tensor.shape)
        operation = Operation(const, (), {"value": tensor}, [type_], location=self.place(place))
        self.append(operation, results, written)

    def append(self, operation: Operation, results: Token | None, at: At) -> None:
        """Append the operation to the block, and make its results visible by their names."""
        scope, names = self.scopes[-1], list(self.values(results))
        if results is not None and len(names) != len(operation.results):
            message = f"{operation.name} has {len(operation.results)} results, not {len(names)}"
            raise self.source.error("type.operands", message, results)
        for result, (name, place) in zip(operation.results, names, strict=False):
            result.name = name or ""
            self.define(result.name, result, place)
        scope.block.append(operation)
        scope.at = at

    def span(self, children: list[At]) -> Part:
        return self.attribute_reader.span(children)

    attributes = attribute = value = nested_list = expression = group = span
