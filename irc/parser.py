"""Text to IR: reads what `irc.printer` writes. The language is described in `irc/text.lark`.

Lark finds the structure; an action for each rule builds the IR as soon as the rule is complete, so that nothing is
ever held twice and nothing recurses into regions. Names are resolved as they are met (a definition stands before its
uses), and every operation's type rule is applied: written types are compared with what the rule says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.resources import files
from math import prod
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from irc import dims, ops, types, weights
from irc._version import FORMAT_VERSION
from irc.annotations import element_of, kinds_of
from irc.diagnostics import UNKNOWN, IrcError, Location, SourceSpan, did_you_mean, fail
from irc.dims import Dim, Expr, Symbol
from irc.dtypes import ALL, DType, by_name
from irc.ir import Attribute, Block, Function, FunctionName, Operation, Region, Value
from irc.limits import check_limit
from irc.literals import complex_parts, read_elements
from irc.metadata import misfit
from irc.module import EdgeCases, Module
from irc.op import AttributeSpec, OperationDefinition, const, return_, yield_
from irc.text_parts import WORDS, Part, clipped, is_text, within
from irc.types import QUOTED, TensorType, list_types
from irc.weights import Tensor

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

    At: TypeAlias = "Token | Part"

RULES = 3  # of the grammar, at most, for each bracket
DEEPEST = 64  # regions in regions, lists in lists: no model needs more, and Python's stack bears it
HALF = "it holds half of a character (a lone surrogate)"
MOST_EXPECTED = 8  # a longer list of what could have stood there helps nobody
# Parts of tokens of text.lark.
VALUE = re.compile(rf"%(?:{QUOTED}|[A-Za-z0-9_.$/-]+)|_")
TYPE = re.compile(rf'[a-z][a-z0-9]*\[(?:[^\]"]|{QUOTED})*\]')
COMMENTS = re.compile(rf"({QUOTED})|(?<=[][{{}},=:])(?:\s*//[^\n]*)+")  # behind a word, // is a division
FIRST_LINE = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*(irc text [0-9]+|)")
LOCATION = re.compile(r"^[ \t]*#([0-9]+) = (loc\(.*\))", re.MULTILINE)
PLACE = re.compile(
    rf"loc\((?:_|({QUOTED}))(?::([0-9]+)(?::([0-9]+))?)?(?:, (?:_|({QUOTED})))?(?:, (\[{QUOTED}(?:, {QUOTED})*\]))?\)"
)
PLACE_FORM = 'loc("file":line:column, "name", ["pass", ...]), with _ for what is not known'
KEYWORDS = {"none": None, "true": True, "false": False}
PLAIN_RULES = ("symbols", "parameters", "parameter", "arguments", "argument", "named_result", "operands", "bindings",
               "binding", "born")  # fmt: skip
DTYPES = frozenset(map(str, ALL))


def parse(text: str, path: Path | None = None, readers: Mapping[str, weights.Reader] | None = None,
          own: Mapping[str, OperationDefinition] | None = None) -> Module:  # fmt: skip
    """The module that a text describes.

    `path` is where it was read from: errors show it, and weights are beside it (else in the working folder); `readers`
    open weights that are no safetensors file; `own` are operations beside the table's. Raises coded errors with place.
    """
    return _Reader(text, path, readers or {}, own or {}).read()


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
        if not hasattr(_Reader, rule):
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
    born: list[Symbol]


@dataclass(slots=True)
class _Scope:
    """A block that is being read, and what was visible around it."""

    block: Block
    visible: dict[str, Value]
    at: At  # the latest operation, for errors at the block's end
    defined: list[str] = field(default_factory=list)


_at_work: ContextVar[_Reader] = ContextVar("irc_reader")


class _Reader:
    """One text being read. Methods named after rules of the grammar are the actions."""

    def __init__(self, text: str, path: Path | None, readers: Mapping[str, weights.Reader],
                 own: Mapping[str, OperationDefinition]) -> None:
        self.text, self.readers, self.own = text, readers, own
        self.path = "<text>" if path is None else str(path)
        self.folder = Path() if path is None else path.parent
        self.result, self.current = Module(), Function("")
        self.locations: dict[str, Location] = {}
        self.weights: Mapping[str, Tensor] | None = None
        self.types_read: dict[str, list[TensorType]] = {}  # by text; of the current function
        self.definitions: dict[str, Dim] = {}  # derived symbols of the current function
        self.names: set[str] = set()  # all that the function has defined; `scopes` say what is visible
        self.scopes: list[_Scope] = []
        self.headers: list[_Header] = []
        self.stated: list[Token] = []  # the types of the function's results
        self.references: list[tuple[str, At]] = []
        self.spread = 0  # bytes of constants that are written as one element for many

    def read(self) -> Module:
        from lark.exceptions import UnexpectedInput

        self.check_version()
        self.read_locations()
        token = _at_work.set(self)
        try:
            grammar().parse(self.text)
        except UnexpectedInput as error:
            raise self.syntax_error(error) from None
        finally:
            _at_work.reset(token)
        for name, at in self.references:
            if name not in self.result.functions:
                raise self.undefined(f"function @{name}", name, self.result.functions, at)
        return self.result

    # --- errors ---
    def error(self, code: str, message: str, at: At, expected: str | None = None, help: str | None = None) -> IrcError:
        return self.placed(fail(code, message, expected=expected, help=help), at)

    def undefined(self, what: str, name: str, known: Iterable[str], at: At) -> IrcError:
        return self.error("text.undefined_name", f"{what} is not defined here", at, help=did_you_mean(name, known))

    def placed(self, error: IrcError, at: At, origin: Location = UNKNOWN) -> IrcError:
        """The error with a caret, and with the source that the text says this came from."""
        start, end = at.start_pos or 0, at.end_pos or 0
        line_start = self.text.rfind("\n", 0, start) + 1
        line = self.text.count("\n", 0, line_start) + 1
        source = self.text[line_start:].split("\n", 1)[0]
        span = SourceSpan(self.path, line, source, start - line_start + 1, max(end - start, 1))
        return error.placed(origin if origin.known else Location(self.path, line, span.column), span)

    @contextmanager
    def blaming(self, at: At, code: str = "text.syntax", what: str = "") -> Iterator[None]:
        """What goes wrong inside gets its place here; a mere ValueError, of a number or a dim, gets the code too."""
        try:
            yield
        except IrcError as error:
            raise self.placed(error, at) from None
        except (ValueError, OverflowError) as error:
            raise self.error(code, f"{what}{error}", at) from None

    def syntax_error(self, error: UnexpectedInput) -> IrcError:
        from lark.exceptions import UnexpectedCharacters, UnexpectedToken

        start, found, wanted = len(self.text.rstrip()), "", set[str]()
        if isinstance(error, UnexpectedToken):
            wanted = error.accepts or error.expected
            if error.token.type != "$END":
                start, found = error.token.start_pos or 0, error.token.split("\n")[0]
        elif isinstance(error, UnexpectedCharacters):
            start, wanted = error.pos_in_stream or 0, error.allowed or set()
            found = self.text[start : start + 1]
        message = f"unexpected {clipped(found)}" if found else "the text ends too early"
        words = sorted(WORDS.get(token) or f"`{grammar().get_terminal(token).pattern.value}`" for token in wanted)
        expected = ", ".join(words) if 0 < len(words) <= MOST_EXPECTED else None
        return self.error("text.syntax", message, Part(found, start), expected)

    # --- the text around functions ---
    def check_version(self) -> None:
        match = FIRST_LINE.match(self.text)
        assert match is not None  # the pattern matches nothing, too
        wanted = f"irc text {FORMAT_VERSION}"
        if match.group(1) != wanted:
            message = f"a text that this irc reads begins with the line `{wanted}`"
            raise self.error("text.version", message, Part(match[1], match.start(1)))

    def read_locations(self) -> None:
        """The table behind the module is read first, so that operations get their locations as they are made."""
        for match in LOCATION.finditer(self.text):
            number, written = match.groups()
            at, parts = Part(written, match.start(2)), PLACE.fullmatch(written)
            if parts is None:
                raise self.error("text.syntax", "a location that cannot be read", at, PLACE_FORM)
            if number in self.locations:
                at = Part(number, match.start(1))
                raise self.error("text.redefined_name", f"location #{number} is defined twice", at)
            read = [None if part is None else self.literal(part, at) for part in parts.groups()]
            file, line, column, name, made_by = read
            self.locations[number] = Location(file, line or 0, column or 0, name, tuple(made_by or ()))

    def place(self, token: Token | None) -> Location:
        if token is None:
            return UNKNOWN
        number = token[len("loc(#") : -1]
        if number not in self.locations:
            raise self.undefined(f"location #{number}", number, self.locations, token)
        return self.locations[number]

    def metadata(self, children: list[Any]) -> None:
        kind, name, attributes = children
        subject = (str(kind), "" if name is None else self.name(name))
        facts = self.dictionary(attributes, {})
        problem = misfit(subject, facts)
        if problem is not None:
            raise self.error("text.syntax", f"metadata that cannot be read: {problem}", kind)
        if subject in self.result.metadata:
            raise self.error("text.redefined_name", "this metadata is given twice", kind)
        self.result.metadata[subject] = facts

    def module_header(self, children: list[Any]) -> None:
        symbol, attributes = children
        self.result.name = self.name(symbol)
        header = {"edge_cases": "defined", "weights": None, "sha256": None, **self.dictionary(attributes, {})}
        known = len(header) == 3 and header["edge_cases"] in get_args(EdgeCases)
        if not known or {*map(type, header.values())} - {str, NoneType}:
            message, (_, first) = "attributes of a module that cannot be read", attributes.inside()[0].split("=")
            raise self.error("text.syntax", message, first, '{weights = "FILE", sha256 = "...", edge_cases = "onnx"}')
        self.result.edge_cases, self.result.source, self.result.source_digest = header.values()

    # --- functions ---
    def function_header(self, children: list[Any]) -> None:
        symbol, symbols, parameters, (self.stated, result_names, updates), place = children
        name = self.name(symbol)
        if name in self.result.functions:
            raise self.error("text.redefined_name", f"the module already has a function @{name}", symbol)
        self.current = Function(name, location=self.place(place))
        self.current.result_names = result_names
        self.types_read, self.definitions, self.names = {}, {}, set()
        self.scopes.append(_Scope(self.current.block, {}, symbol))
        for part in symbols or ():
            if isinstance(part, tuple):
                token, (low, high, multiple) = part
                self.declare(token, None, self.name(token), low, high, multiple)
            else:
                self.definition([part])
        for token, type_token, default in parameters or ():
            argument = self.argument_of(self.current.block, token, *self.read_types(type_token, None))
            if default is not None:
                self.current.defaults[argument] = self.typed_tensor(default)
        updating = ((position, token) for position, token in enumerate(updates) if token is not None)
        self.current.updates = {position: self.operand(self.name(token), token) for position, token in updating}

    def symbol(self, children: list[Any]) -> tuple[Token, list[int]]:
        token, *written = children
        defaults = (dims.IMPORTED_LOW, dims.IMPORTED_HIGH, 1)
        numbers = zip(written, defaults, strict=True)
        return token, [default if part is None else self.literal(part, part) for part, default in numbers]

    def plain_results(self, children: list[Any]) -> tuple[list[Token], None, tuple[()]]:
        return [token for token in children if token is not None], None, ()

    def named_results(self, children: list[Any]) -> tuple[list[Token], tuple[str, ...], list[Token | None]]:
        names, types_, updates = zip(*children, strict=True)
        return list(types_), tuple(map(self.name, names)), list(updates)

    def argument_of(self, block: Block, token: Token, type_: TensorType) -> Value:
        name = self.name(token)
        argument = block.add_argument(type_, name)
        self.define(name, argument, token)
        return argument

    def function(self, children: list[Any]) -> None:
        scope = self.scopes.pop()
        last = scope.block.last
        if last is None or last.definition is not return_:
            message = f"function @{self.current.name} does not end in `return`"
            raise self.error("text.syntax", message, scope.at)
        stated = [type_ for token in self.stated for type_ in self.read_types(token, None)]
        returned = [value.type for value in last.inputs]
        if stated != returned:
            message = f"@{self.current.name} states {list_types(stated)}, but returns {list_types(returned)}"
            raise self.error("text.type_mismatch", message, self.stated[0] if self.stated else scope.at)
        self.result.add(self.current)

    # --- names, symbols, types ---
    def define(self, name: str, value: Value, at: At) -> None:
        if name in self.names:
            message = f"%{name} is defined twice in @{self.current.name}"
            raise self.error("text.redefined_name", message, at)
        self.names.add(name)
        self.scopes[-1].visible[name] = value
        self.scopes[-1].defined.append(name)

    def operand(self, name: str, at: At) -> Value:
        visible = self.scopes[-1].visible
        if name in visible:
            return visible[name]
        if name in self.names:
            message = f"%{name} is defined, but inside another region or outside of this kernel"
            raise self.error("text.undefined_name", message, at, help="yield it, or pass it in as an operand")
        raise self.undefined(f"%{name}", name, visible, at)

    def values(self, token: Token | None) -> Iterator[tuple[str | None, At]]:
        """The names in a list of operands or results, None for an absent operand, and where each stands."""
        if token is None:
            return
        for match in VALUE.finditer(token):
            part = within(token, match)
            yield None if part == "_" else self.name(part), part

    def declare(self, at: At, born: list[Symbol] | None, name: str, low: int, high: int, multiple: int) -> Symbol:
        """Make a symbol: of the signature, or one that is added to those `born` at an operation."""
        if not is_text(name):
            raise self.error("text.syntax", HALF, at)
        with self.blaming(at, "dim.range"):
            symbol = self.current.symbol(name, low, high, multiple, born=born is not None)
        if born is not None:
            born.append(symbol)
        return symbol

    def read_types(self, token: At, born: list[Symbol] | None) -> list[TensorType]:
        """The types in a token; symbols born in them are added to `born`, which is None where none may be."""
        known = self.types_read.get(token)
        if known is not None:
            return known
        read = []
        for match in TYPE.finditer(token):
            at = within(token, match)
            declare = None if born is None else partial(self.declare, at, born)
            with self.blaming(at, "dim.syntax"):
                type_ = types.parse_type(match.group(), self.current.find_symbol, declare, self.definitions)
            read.append(type_)
        if "?" not in token:
            self.types_read[token] = read
        return read

    def definition(self, children: list[Token]) -> Token | None:
        """A derived symbol, known in the rest of the function; one of the signature waits for its symbols."""
        (token,) = children
        if not self.scopes:
            return token
        name, text = token[1:].split("=", 1)
        with self.blaming(token, "dim.syntax"):
            found = dims.parse_definition(text.strip()[1:-1], self.current.find_symbol, self.definitions)
        if name.strip() in self.definitions:
            raise self.error("text.redefined_name", f"${name.strip()} is defined twice", token)
        self.definitions[name.strip()] = found
        return None

    def birth_of(self, token: At, born: list[Symbol]) -> Symbol:
        with self.blaming(token):
            return types.parse_birth(token, partial(self.declare, token, born))

    # --- operations ---
    def header(self, children: list[Any]) -> None:
        results, name, (symbol, bindings, operand_list, births), attributes, types_token, place = children
        with self.blaming(name):
            definition = ops.lookup(name, self.own)
        born: list[Symbol] = []
        for token in births or ():
            self.birth_of(token, born)
        operands = [None if name is None else self.operand(name, at) for name, at in self.values(operand_list)]
        if bindings is not None:
            if operands:
                raise self.error("text.syntax", "operands after bindings", operand_list)
            operands = [self.operand(self.name(operand), operand) for _, operand in bindings]
        given = self.dictionary(attributes, definition.attribute_specs, born)
        if symbol is not None:
            key = "callee" if "callee" in definition.attribute_specs else "name"
            given[key] = self.name(symbol)
            if key == "callee":
                self.references.append((given[key], symbol))
        stated = None if types_token is None else self.read_types(types_token, born)
        if stated is None and results is None and definition.has_declared_types:
            stated = []
        location = self.place(place)
        self.headers.append(_Header(name, definition, results, operands, given, stated, types_token, bindings, location,
                                    born))  # fmt: skip

    def region_header(self, children: list[Any]) -> None:
        header, around = self.headers[-1], self.scopes[-1]
        if len(self.scopes) > DEEPEST:
            raise self.error("text.syntax", f"regions nest deeper than {DEEPEST}", header.name)
        block = Block()
        self.scopes.append(_Scope(block, {} if header.definition.is_isolated else around.visible, header.name))
        for (token, _), operand in zip(header.bindings or (), header.operands, strict=False):
            assert operand is not None
            self.argument_of(block, token, operand.type)
        for token, type_token in children[0] or ():
            self.argument_of(block, token, *self.read_types(type_token, header.born))

    def region(self, children: list[Any]) -> Region:
        scope = self.scopes.pop()
        for name in scope.defined:
            del scope.visible[name]
        if scope.block.last is None or scope.block.last.definition is not yield_:
            raise self.error("text.syntax", "a region does not end in `yield`", scope.at)
        return Region(scope.block)

    def statement(self, children: list[Any]) -> None:
        _, *regions = children
        header = self.headers.pop()
        definition = header.definition
        if header.bindings is not None and not regions:
            message = f"{definition.name}: bindings name the arguments of a region, and there is none"
            raise self.error("text.syntax", message, header.name)
        try:
            attributes = definition.normalize(header.attributes)
            operand_types = [None if operand is None else operand.type for operand in header.operands]
            inferred = list(definition.infer(operand_types, attributes, header.types, regions))
        except IrcError as error:
            raise self.placed(error, header.name, header.location) from None
        if header.types is not None and header.types != inferred:
            message = f"{definition.name}: the text states {list_types(header.types)}"
            mismatch = fail("text.type_mismatch", message, expected=list_types(inferred))
            raise self.placed(mismatch, header.types_token or header.name, header.location)
        operation = Operation(definition, header.operands, attributes, inferred, regions, symbols=header.born,
                              location=header.location)
        self.append(operation, header.results, header.name)

    def constant(self, children: list[Any]) -> None:
        results, written, place = children
        tensor = self.typed_tensor(written)
        type_ = TensorType(tensor.dtype, tensor.shape)
        operation = Operation(const, (), {"value": tensor}, [type_], location=self.place(place))
        self.append(operation, results, written)

    def append(self, operation: Operation, results: Token | None, at: At) -> None:
        """Put the operation behind what the block has, and make its results known by their names."""
        scope, names = self.scopes[-1], list(self.values(results))
        if results is not None and len(names) != len(operation.results):
            message = f"{operation.name} has {len(operation.results)} results, not {len(names)}"
            raise self.error("type.operands", message, results)
        for result, (name, place) in zip(operation.results, names, strict=False):
            result.name = name or ""
            self.define(result.name, result, place)
        scope.block.append(operation)
        scope.at = at

    # --- attributes ---
    def span(self, children: list[At]) -> Part:
        """A value as written; what it means, the declaration of the operation says."""
        start, end = children[0].start_pos or 0, children[-1].end_pos or 0
        text, depth = self.text[start:end], 1 + max(getattr(child, "depth", 0) for child in children)
        if depth > RULES * DEEPEST:  # here rather than later, as each level is a copy of what is inside of it
            raise self.error("text.syntax", f"brackets nest deeper than {DEEPEST}", children[-1])
        plain = COMMENTS.sub(lambda match: match[1] or " " * len(match[0]), text) if "//" in text else text
        return Part(plain, start, depth)

    attributes = attribute = value = nested_list = expression = group = span

    def dictionary(self, written: Part | None, specs: Mapping[str, AttributeSpec], born: list[Symbol] | None = None,
                   depth: int = 1) -> dict[str, Attribute]:
        """Attributes by name; one that the declaration lacks is for `normalize` to report."""
        entries: dict[str, Attribute] = {}
        for part in () if written is None else written.inside():
            key, value = part.split("=")
            name = self.name(key)
            if name in entries:
                raise self.error("text.redefined_name", f"attribute `{name}` is given twice", value)
            annotation = specs[name].annotation if name in specs else Any
            entries[name] = self.interpret(value, annotation, born, depth)
        return entries

    def interpret(self, written: Part, annotation: Any, born: list[Symbol] | None = None, depth: int = 1) -> Attribute:
        """What an attribute means, by its annotation in the declaration of the operation."""
        if depth > DEEPEST:
            raise self.error("text.syntax", f"brackets nest deeper than {DEEPEST}", written)
        literal, *stated = written.split(":")
        mark = literal[:1]
        if stated:
            return self.tensor(literal, *stated)
        if mark == "[":
            parts = enumerate(literal.inside())
            return tuple(self.interpret(part, element_of(annotation, index), None, depth + 1) for index, part in parts)
        if mark == "{":
            return self.dictionary(literal, {}, None, depth + 1)
        if mark == "@":
            self.references.append((self.name(literal), literal))
            return FunctionName(self.references[-1][0])
        if mark == "?":
            if born is None:
                raise self.error("text.syntax", "a symbol cannot be born here", literal)
            return self.birth_of(literal, born)
        return self.scalar(literal, annotation)

    def scalar(self, text: Part, annotation: Any) -> Attribute:
        """One bare word, number, dim or string. Where dims may stand, other words are symbols unless they may, too."""
        kinds = kinds_of(annotation)

        def may_be(*wanted: type) -> bool:
            return Expr not in kinds or not kinds.isdisjoint(wanted)

        if text in KEYWORDS and may_be(type(KEYWORDS[text])):
            return KEYWORDS[text]
        if re.fullmatch("-?[0-9]+", text) or (re.fullmatch(QUOTED, text) and may_be(str, FunctionName)):
            return self.literal(text, text)
        if re.fullmatch(r"-?(inf|nan|[0-9]+\.?[0-9]*(e[+-]?[0-9]+)?)", text) and may_be(float):
            return float(text)
        with self.blaming(text, "dim.syntax"):
            if text.startswith("(") and may_be(complex):
                real, imaginary = complex_parts(text)
                return complex(float(real), float(imaginary))
            if DType in kinds or (text in DTYPES and may_be(DType)):
                return by_name(text)
            return dims.parse_dim(text, self.current.find_symbol, self.definitions)

    # --- tensors ---
    def typed_tensor(self, written: Part) -> Tensor:
        literal, *stated = written.split(":")
        if not stated:
            raise self.error("text.syntax", "a constant without a type", literal, "for example `const 0.5 : f32[]`")
        return self.tensor(literal, *stated)

    def tensor(self, literal: Part, stated: Part) -> Tensor:
        (type_,) = self.read_types(stated, None)
        with self.blaming(stated):
            shape = type_.static_shape()
        if literal[0] == "@":
            return self.named_tensor(self.name(literal), type_, literal)
        is_splat = not literal.startswith(("[", "{", "?"))
        if is_splat:
            self.spread += prod(shape) * max(type_.dtype.itemsize, 1)
            with self.blaming(literal):
                check_limit("literals", self.spread, "the text has constants of one element for many, of {}")
        elements = [literal] if is_splat else list(self.elements(literal, shape))
        with self.blaming(literal, what=f"a constant whose elements are no {type_.dtype}: "):
            array = read_elements(elements, type_.dtype)
        return Tensor.of((array.repeat(prod(shape)) if is_splat else array).reshape(shape), type_.dtype)

    def elements(self, literal: Part, shape: tuple[int, ...]) -> Iterator[Part]:
        """The elements of nested lists that must have the shape."""
        parts = literal.inside() if literal.startswith("[") else None
        if not shape and parts is None and not literal.startswith(("{", "@", "?")):
            yield literal
        elif shape and parts is not None and len(parts) == shape[0]:
            for part in parts:
                yield from self.elements(part, shape[1:])
        else:
            message = "the elements do not have the shape that the type states"
            raise self.error("type.shape", message, literal, f"[{', '.join(map(str, shape))}]")

    def named_tensor(self, name: str, type_: TensorType, at: At) -> Tensor:
        """A constant of the weights file, which is opened when the first one is met."""
        with self.blaming(at):
            if self.weights is None:
                self.weights = self.open_weights()
            what, tensor = f"constant @{json.dumps(name)}", self.weights.get(name)
            if tensor is None:
                message = f"{self.result.source} has no {what}"
                raise fail("weights.absent", message, help=did_you_mean(name, self.weights))
            found = TensorType(tensor.dtype, tensor.shape)
            if found != type_:
                raise fail("weights.absent", f"the {what} is {found}, not {type_}")
        return tensor

    def open_weights(self) -> Mapping[str, Tensor]:
        source, digest = self.result.source, self.result.source_digest
        if source is None:
            raise fail("weights.missing", "the module names no file that holds its constants",
                       help='write `module @name {weights = "FILE"}`')
        return weights.open_weights(self.folder, source, digest, self.readers)

    # --- words ---
    def name(self, written: At) -> str:
        """The name in `%x`, `@main`, `B` or, with any text in quotes, `%"x y"`."""
        bare = written[1:] if written[0] in "%@" else str(written)
        return self.literal(bare, written) if bare[0] == '"' else bare

    def literal(self, text: str, at: At) -> Any:
        """What a string, a list of strings or an integer says."""
        with self.blaming(at, what=f"{clipped(text)} cannot be read: "):
            found = int(text) if text.lstrip("-").isdecimal() else json.loads(text)
            if not all(map(is_text, found if isinstance(found, list) else [found])):
                raise ValueError(HALF)
            return found
