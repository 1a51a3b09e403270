"""Text to IR: reads what `irc.printer` writes. The language is described in `irc/text.lark`.

Lark finds the structure; an action for each rule builds the IR as soon as the rule is complete, so that nothing is
ever held twice and nothing recurses into regions. Names are resolved as they are met (a definition stands before its
uses), and every operation's type rule is applied: written types are compared with what the rule says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib.resources import files
from math import prod
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from irc import dims, types, weights
from irc._version import FORMAT_VERSION
from irc.diagnostics import UNKNOWN, IrcError, Location, SourceSpan, fail
from irc.dims import Expr, Symbol
from irc.dtypes import DType, by_name
from irc.ir import Attribute, Block, Function, FunctionName, Module, Operation, Region, Value
from irc.literals import read_elements
from irc.op import AttributeSpec, OperationDefinition, const, return_, yield_
from irc.types import TensorType
from irc.weights import Tensor

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

DEEPEST = 64  # regions in regions, lists in lists: no model needs more, and Python's stack bears it
LARGEST_LITERAL = 1 << 30  # bytes of a tensor that is written out: `0.0 : f32[1000000000000]` is a mistake
LATEST = 2000  # names among which similar ones are looked for
MOST_EXPECTED = 8  # a longer list of what could have stood there helps nobody
# The tokens of text.lark again, where parts of them are wanted.
QUOTED = r'"(?:[^"\\\n]|\\.)*"'
VALUE = re.compile(rf"%({QUOTED}|[A-Za-z0-9_.$/-]+)|_")
TYPE = re.compile(rf'[a-z][a-z0-9]*\[(?:[^\]"]|{QUOTED})*\]')
FLAT_ATTRIBUTE = re.compile(
    rf"([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?:({QUOTED})|(@(?:{QUOTED}|[A-Za-z0-9_.$/-]+))|(\[[^\]]*\])|([^,}}]*[^,}}\s]))"
)
PLACE = re.compile(
    rf"loc\((?:_|({QUOTED}))(?::([0-9]+)(?::([0-9]+))?)?(?:, (?:_|({QUOTED})))?(?:, (\[{QUOTED}(?:, {QUOTED})*\]))?\)"
)
LOCATION = re.compile(r"^[ \t]*#([0-9]+) = (loc\(.*\))", re.MULTILINE)
LOCATION_FORM = 'loc("file":line:column, "name", ["pass", ...]), with _ for what is not known'
FLAT_KINDS = {2: "expression", 3: "reference", 4: "flat_list", 5: "expression"}  # by group of FLAT_ATTRIBUTE
FIRST_LINE = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*(irc text ([0-9]+))?")
WORDS = {  # for "expected": what a reader calls the tokens
    "RESULTS": "`%name =`", "NAME": "an operation", "OPERANDS": "operands", "VALUE": "`%name`", "SYMBOL": "`@name`",
    "TYPES": "types", "TYPE": "a type", "STRING": "a string", "BARE": "a number, dim or dtype", "_OPEN": "attributes",
    "FLAT_ATTRIBUTES": "attributes", "FLAT_LIST": "a list", "EMPTY": "`{}`", "PLACE": "`loc(#1)`",
    "TAIL": "an operator", "LOCATION": "`#1 = loc(...)`", "$END": "the end", "BIRTH": "`?symbol in (low, high)`",
    "INTEGER": "an integer", "SYMBOL_NAME": "a symbol", "RESULT_NAME": "a name", "LBRACE": "`{`", "RBRACE": "`}`",
    "LPAR": "`(`", "RPAR": "`)`", "LSQB": "`[`", "RSQB": "`]`", "COLON": "`:`", "EQUAL": "`=`", "COMMA": "`,`",
    "LESSTHAN": "`<`", "MORETHAN": "`>`", "PERCENT": "`%`",
}  # fmt: skip
Table = Mapping[str, OperationDefinition]


def parse(text: str, path: Path | None = None, table: Table | None = None) -> Module:
    """The module that a text describes.

    `path` is where it was read from: errors show it, and weights are looked up beside it (else in the working
    folder). `table` gives the operations, `irc.ops.TABLE` unless stated. Raises coded errors with line and caret.
    """
    return _Reader(text, path, _default_table() if table is None else table).read()


def parse_file(path: Path, table: Table | None = None) -> Module:
    """The module in a file; raises `file.missing`, `file.unreadable` or `text.syntax` (not UTF-8)."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise fail("file.missing", f"there is no file {path}") from None
    except OSError as error:
        raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(path))) from None
    except UnicodeDecodeError as error:
        raise fail("text.syntax", f"byte {error.start} is not UTF-8 text", at=Location(file=str(path))) from None
    return parse(text, path, table)


def _default_table() -> Table:
    from irc import ops  # late: whoever brings a table of their own need not load ours

    return ops.TABLE


@lru_cache(maxsize=1)
def grammar() -> Lark:
    """The compiled grammar; compiling takes 0.06 s, hence once."""
    from lark import Lark

    return Lark((files("irc") / "text.lark").read_text("utf-8"), parser="lalr", transformer=_Actions(), regex=False)


class _Actions:
    """What Lark calls when a rule is complete: the method of that name of the reader at work."""

    def __getattr__(self, rule: str) -> Callable[[list[Any]], Any]:
        if rule in ("symbols", "arguments", "operands", "born"):
            return list
        if not hasattr(_Reader, rule):
            raise AttributeError(rule)
        return lambda children: getattr(_at_work.get(), rule)(children)


@dataclass(slots=True)
class _Raw:
    """An attribute's value as written; what it means, the operation's declaration says. `depth` counts nesting."""

    kind: str  # expression, flat_list, list, dictionary, reference, birth
    start: int
    end: int
    content: Any
    depth: int = 1
    type: Token | None = None


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
    bindings: list[tuple[str, Token]] | None
    location: Location
    born: list[Symbol]
    regions: list[Region] = field(default_factory=list)


@dataclass(slots=True)
class _Scope:
    """A block that is being read, and what was visible around it."""

    block: Block
    visible: dict[str, Value]
    at: Token  # the latest operation, for errors at the block's end
    defined: list[str] = field(default_factory=list)


At = str | _Raw | tuple[int, int]  # where something is: a token, a value, or from and to in the text
_at_work: ContextVar[_Reader] = ContextVar("irc_reader")


class _Reader:
    """One text being read. Methods named after rules of the grammar are the actions."""

    def __init__(self, text: str, path: Path | None, table: Table) -> None:
        self.text = text
        self.path = "<text>" if path is None else str(path)
        self.folder = Path() if path is None else path.parent
        self.table = {definition.name: definition for definition in (const, return_, yield_)} | dict(table)
        self.result = Module()
        self.locations: dict[str, Location] = {}
        self.weights: Mapping[str, Tensor] | None = None
        self.current = Function("")
        self.types_read: dict[str, list[TensorType]] = {}  # by text; of the current function
        self.names: set[str] = set()  # all that the function has defined; `scopes` say what is visible
        self.scopes: list[_Scope] = []
        self.headers: list[_Header] = []
        self.results: tuple[Token | None, tuple[str, ...] | None] = (None, None)
        self.references: list[tuple[str, At]] = []

    def read(self) -> Module:
        self.check_version()
        self.read_locations()
        from lark.exceptions import UnexpectedInput

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

    # -- errors ------------------------------------------------------------------------------------------------

    def span(self, at: At) -> SourceSpan:
        start, end = _extent(at)
        line_start = self.text.rfind("\n", 0, start) + 1
        line_end = self.text.find("\n", start)
        source = self.text[line_start : len(self.text) if line_end < 0 else line_end]
        line = self.text.count("\n", 0, line_start) + 1
        return SourceSpan(self.path, line, source, start - line_start + 1, max(end - start, 1))

    def error(self, code: str, message: str, at: At, expected: str | None = None, help: str | None = None,
              origin: Location = UNKNOWN) -> IrcError:  # fmt: skip
        return self.placed(fail(code, message, expected=expected, help=help), at, origin)

    def undefined(self, what: str, name: str, known: Iterable[str], at: At) -> IrcError:
        return self.error("text.undefined_name", f"{what} is not defined here", at, help=_meant(name, known))

    def placed(self, error: IrcError, at: At, origin: Location = UNKNOWN) -> IrcError:
        """The error with a caret, and with the source that the text says this came from."""
        text = self.span(at)
        return error.placed(origin if origin.known else Location(self.path, text.line, text.column), text)

    def syntax_error(self, error: UnexpectedInput) -> IrcError:
        from lark.exceptions import UnexpectedCharacters, UnexpectedToken

        start, found, wanted = len(self.text.rstrip()), "", set[str]()
        if isinstance(error, UnexpectedToken):
            wanted = error.accepts or error.expected
            if error.token.type != "$END":
                start, found = error.token.start_pos or 0, str(error.token)
        elif isinstance(error, UnexpectedCharacters):
            start, wanted = error.pos_in_stream or 0, error.allowed or set()
            found = self.text[start : start + 1]
        message = f"unexpected {_clipped(found)}" if found else "the text ends too early"
        words = sorted({WORDS.get(name, f"`{name.lower()}`") for name in wanted})
        expected = ", ".join(words) if 0 < len(words) <= MOST_EXPECTED else None
        return self.error("text.syntax", message, (start, start + len(found.split("\n")[0])), expected)

    # -- the text around functions -----------------------------------------------------------------------------

    def check_version(self) -> None:
        match = FIRST_LINE.match(self.text)
        assert match is not None  # the pattern matches nothing, too
        if match.group(1) is None:
            message = f"a text begins with the line `irc text {FORMAT_VERSION}`"
            raise self.error("text.version", message, (match.end(), 0))
        if match.group(2) != str(FORMAT_VERSION):
            message = f"this is text of version {match.group(2)}; this irc reads version {FORMAT_VERSION}"
            raise self.error("text.version", message, match.span(1))

    def read_locations(self) -> None:
        """The table behind the module is read first, so that operations get their locations as they are made."""
        for match in LOCATION.finditer(self.text):
            number, written = match.groups()
            at, parts = match.span(2), PLACE.fullmatch(written)
            if parts is None:
                raise self.error("text.syntax", "a location that cannot be read", at, LOCATION_FORM)
            if number in self.locations:
                raise self.error("text.redefined_name", f"location #{number} is defined twice", match.span(1))
            file, line, column, name, made_by = parts.groups()
            self.locations[number] = Location(
                None if file is None else self.unquote(file, at),
                self.integer(line or "0", at),
                self.integer(column or "0", at),
                None if name is None else self.unquote(name, at),
                tuple(self.parse_json(made_by or "[]", at)),
            )

    def place(self, token: Token | None) -> Location:
        if token is None:
            return UNKNOWN
        number = token[len("loc(#") : -1]
        if number not in self.locations:
            raise self.undefined(f"location #{number}", number, self.locations, token)
        return self.locations[number]

    def module_header(self, children: list[Any]) -> None:
        symbol, attributes = children
        self.result.name = self.sigil_name(symbol)
        raw = attributes.content if attributes is not None else {}
        header = {name: self.interpret(value, str) for name, value in raw.items()}
        for name, text in header.items():
            if name not in ("weights", "sha256") or not isinstance(text, str):
                message = f"a module's attribute `{name}` that cannot be read"
                raise self.error("text.syntax", message, raw[name], '{weights = "FILE", sha256 = "sha256:..."}')
        self.result.source, self.result.source_digest = header.get("weights"), header.get("sha256")

    # -- functions ---------------------------------------------------------------------------------------------

    def function_header(self, children: list[Any]) -> None:
        symbol, symbols, arguments, results, place = children
        name = self.sigil_name(symbol)
        if name in self.result.functions:
            message = f"the module already has a function @{name}"
            raise self.error("text.redefined_name", message, symbol)
        self.current = Function(name, location=self.place(place))
        self.types_read, self.names = {}, set()
        for token, low, high, multiple in symbols or ():
            self.declare(token, self.word(token), low, high, multiple, born=False)
        self.scopes.append(_Scope(self.current.block, {}, symbol))
        for argument_name, type_token, name_token in arguments or ():
            (type_,) = self.read_types(type_token, None)
            self.define(argument_name, self.current.block.add_argument(type_, argument_name), name_token)
        self.results = results

    def symbol(self, children: list[Any]) -> tuple[Any, ...]:
        token, low, high, multiple = children
        defaults = (dims.IMPORTED_LOW, dims.IMPORTED_HIGH, 1)
        written = zip((low, high, multiple), defaults, strict=True)
        numbers = [default if part is None else self.integer(part, part) for part, default in written]
        return token, *numbers

    def argument(self, children: list[Any]) -> tuple[str, Token, Token]:
        value, type_ = children
        return self.sigil_name(value), type_, value

    def plain_results(self, children: list[Any]) -> tuple[Token | None, None]:
        return children[0], None

    def named_results(self, children: list[Any]) -> tuple[list[Token], tuple[str, ...]]:
        return [type_ for _, type_ in children], tuple(name for name, _ in children)

    def named_result(self, children: list[Any]) -> tuple[str, Token]:
        name, type_ = children
        return self.word(name), type_

    def function(self, children: list[Any]) -> None:
        scope = self.scopes.pop()
        last = scope.block.last
        if last is None or last.definition is not return_:
            message = f"function @{self.current.name} does not end in `return`"
            raise self.error("text.syntax", message, scope.at)
        written, self.current.result_names = self.results
        tokens = written if isinstance(written, list) else [] if written is None else [written]
        stated = [type_ for token in tokens for type_ in self.read_types(token, None)]
        returned = [value.type for value in last.inputs]
        if stated != returned:
            message = f"@{self.current.name} states {_list(stated)}, but returns {_list(returned)}"
            raise self.error("text.type_mismatch", message, tokens[0] if tokens else scope.at)
        self.result.add(self.current)

    # -- names, symbols, types ---------------------------------------------------------------------------------

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

    def operand_list(self, token: Token | None) -> list[Value | None]:
        if token is None:
            return []
        operands: list[Value | None] = []
        visible = self.scopes[-1].visible
        for match in VALUE.finditer(token):
            name = match.group(1)
            if name is None:
                operands.append(None)
                continue
            if name[0] == '"':
                name = self.unquote(name, _within(token, match))
            operands.append(visible[name] if name in visible else self.operand(name, _within(token, match)))
        return operands

    def declare(self, at: At, name: str, low: int, high: int, multiple: int, born: bool = True) -> Symbol:
        try:
            if name in self.current.symbols or name in self.current.born:
                raise fail("dim.redeclared", f"@{self.current.name} already has a symbol `{name}`")
            return self.current.symbol(name, low, high, multiple, born=born)
        except dims.DimError as error:
            raise self.error("dim.range", str(error), at) from None
        except IrcError as error:
            raise self.placed(error, at) from None

    def read_types(self, token: Token, born: list[Symbol] | None) -> list[TensorType]:
        """The types in a token; symbols born in them are added to `born`, which is None where none may be."""
        known = self.types_read.get(token)
        if known is not None:
            return known

        def declare(name: str, low: int, high: int, multiple: int) -> Symbol:
            symbol = self.declare(token, name, low, high, multiple)
            if born is not None:
                born.append(symbol)
            return symbol

        read = []
        for match in TYPE.finditer(token):
            at = _within(token, match)
            try:
                type_ = types.parse_type(match.group(), self.lookup, None if born is None else declare)
            except IrcError as error:
                raise self.placed(error, at) from None
            except ValueError as error:  # a DimError, or an integer beyond what Python reads
                raise self.error("dim.syntax", str(error), at) from None
            if any(dims.bounds(dim)[1] < 0 for dim in type_.shape or ()):
                raise self.error("dim.range", f"{type_} has a negative dim", at)
            read.append(type_)
        if "?" not in token:
            self.types_read[token] = read
        return read

    def lookup(self, name: str) -> Symbol:
        return self.current.find_symbol(name)

    # -- operations --------------------------------------------------------------------------------------------

    def bindings(self, children: list[Any]) -> list[Any]:
        return [child for child in children if child is not None]

    def binding(self, children: list[Any]) -> tuple[Token, Token]:
        argument, operand = children
        return argument, operand

    def types(self, children: list[Any]) -> Any:
        return children[0]

    def header(self, children: list[Any]) -> None:
        results, name, (symbol, bindings, operand_list, births), attributes, types_token, place = children
        definition = self.table.get(name)
        if definition is None:
            raise self.error("text.unknown_op", f"there is no operation `{name}`", name, help=_meant(name, self.table))
        born: list[Symbol] = []
        for token in births or ():
            born.append(self.birth_of(token))
        operands = self.operand_list(operand_list)
        bound = None
        if bindings is not None:
            if operands:
                raise self.error("text.syntax", "operands after bindings", operand_list)
            operands = [self.operand(self.sigil_name(value), value) for _, value in bindings]
            bound = [(self.sigil_name(argument), argument) for argument, _ in bindings]
        raw = {} if attributes is None else attributes.content
        given = {key: self.attribute_value(value, definition, key, born) for key, value in raw.items()}
        if symbol is not None:
            named, key = self.sigil_name(symbol), "callee" if "callee" in definition.attribute_specs else "name"
            given[key] = FunctionName(named) if key == "callee" else named
            if key == "callee":
                self.references.append((named, symbol))
        stated = None if types_token is None else self.read_types(types_token, born)
        if stated is None and results is None and definition.is_declared:
            stated = []
        location = self.place(place)
        self.headers.append(
            _Header(name, definition, results, operands, given, stated, types_token, bound, location, born)
        )

    def result_list(self, token: Token | None) -> list[str]:
        if token is None:
            return []
        names = [match.group(1) for match in VALUE.finditer(token)]
        return [self.unquote(name, token) if name[0] == '"' else name for name in names]

    def region_header(self, children: list[Any]) -> None:
        header, arguments, around = self.headers[-1], children[0] or [], self.scopes[-1]
        if len(self.scopes) > DEEPEST:
            raise self.error("text.syntax", f"regions nest deeper than {DEEPEST}", header.name)
        block = Block()
        isolated = header.definition.is_isolated
        self.scopes.append(_Scope(block, {} if isolated else around.visible, header.name))
        if header.bindings is not None and not header.regions:
            for (name, token), operand in zip(header.bindings, header.operands, strict=True):
                assert operand is not None
                self.define(name, block.add_argument(operand.type, name), token)
        for name, type_token, token in arguments:
            (type_,) = self.read_types(type_token, header.born)
            self.define(name, block.add_argument(type_, name), token)

    def region(self, children: list[Any]) -> None:
        scope = self.scopes.pop()
        for name in scope.defined:
            del scope.visible[name]
        if scope.block.last is None or scope.block.last.definition is not yield_:
            raise self.error("text.syntax", "a region does not end in `yield`", scope.at)
        self.headers[-1].regions.append(Region(scope.block))

    def statement(self, children: list[Any]) -> None:
        header = self.headers.pop()
        definition = header.definition
        if header.bindings is not None and not header.regions:
            message = f"{definition.name}: bindings name the arguments of a region, and there is none"
            raise self.error("text.syntax", message, header.name)
        try:
            attributes = definition.normalize(header.attributes)
            operand_types = [None if operand is None else operand.type for operand in header.operands]
            inferred = list(definition.infer(operand_types, attributes, header.types, header.regions))
        except IrcError as error:
            raise self.placed(error, header.name, header.location) from None
        if header.types is not None and header.types != inferred:
            message, at = f"{definition.name}: the text states {_list(header.types)}", header.types_token or header.name
            raise self.error("text.type_mismatch", message, at, _list(inferred), None, header.location)
        operation = Operation(
            definition, header.operands, attributes, inferred, header.regions, names=self.result_list(header.results),
            symbols=header.born, location=header.location,
        )  # fmt: skip
        self.append(operation, header.results, header.name)

    def constant(self, children: list[Any]) -> None:
        results, value, place = children
        if value.type is None:
            raise self.error("text.syntax", "a constant without a type", value, "for example `const 0.5 : f32[]`")
        tensor = self.tensor(value)
        operation = Operation(
            const, (), {"value": tensor}, [TensorType(tensor.dtype, tensor.shape)], names=self.result_list(results),
            location=self.place(place),
        )  # fmt: skip
        self.append(operation, results, value.type)

    def append(self, operation: Operation, results: Token | None, at: Token) -> None:
        """Put the operation behind what the block has, and make its results known by their names."""
        scope = self.scopes[-1]
        if results is not None:
            matches = list(VALUE.finditer(results))
            if len(matches) != len(operation.results):
                message = f"{operation.name} has {len(operation.results)} results, not {len(matches)}"
                raise self.error("type.operands", message, results)
            for result, match in zip(operation.results, matches, strict=True):
                self.define(result.name, result, _within(results, match))
        scope.block.append(operation)
        scope.at = at

    # -- attributes --------------------------------------------------------------------------------------------

    def attributes(self, children: list[Any]) -> _Raw:
        """A dictionary of raw values; the flat ones, which are nearly all, come as one token."""
        entries: dict[str, _Raw] = {}
        pairs = self.flat_attributes(children[0]) if isinstance(children[0], str) else children
        for name, value in pairs:
            if name in entries:
                raise self.error("text.redefined_name", f"attribute `{name}` is given twice", value)
            entries[name] = value
        values = list(entries.values())
        return self.nested("dictionary", values[0].start, values[-1].end, entries, values)

    def flat_attributes(self, token: str) -> Iterable[tuple[str, _Raw]]:
        for match in FLAT_ATTRIBUTE.finditer(token):
            group = match.lastindex or 0
            start, end = _within(token, match, group)
            yield match.group(1), _Raw(FLAT_KINDS[group], start, end, match.group(group))

    def attribute(self, children: list[Any]) -> tuple[str, _Raw]:
        name, value = children
        return self.word(name), value

    def value(self, children: list[Any]) -> _Raw:
        raw: _Raw = children[0]
        raw.type = children[1]
        return raw

    def expression(self, children: list[Any]) -> _Raw:
        start, end = _extent(children[0])[0], _extent(children[-1])[1]
        groups = [child for child in children if isinstance(child, _Raw)]
        return self.nested("expression", start, end, self.text[start:end], groups)

    def group(self, children: list[Any]) -> _Raw:
        inner = [child for child in children if isinstance(child, _Raw)]
        return self.nested("group", _start(children[0]), _end(children[-1]), None, inner)

    def flat_list(self, children: list[Token]) -> _Raw:
        return _Raw("flat_list", _start(children[0]), _end(children[0]), str(children[0]))

    def nested_list(self, children: list[_Raw]) -> _Raw:
        return self.nested("list", children[0].start, children[-1].end, children, children)

    def empty_dictionary(self, children: list[Token]) -> _Raw:
        return _Raw("dictionary", _start(children[0]), _end(children[0]), {})

    def reference(self, children: list[Token]) -> _Raw:
        return _Raw("reference", _start(children[0]), _end(children[0]), str(children[0]))

    def birth(self, children: list[Token]) -> _Raw:
        return _Raw("birth", _start(children[0]), _end(children[0]), children[0])

    def nested(self, kind: str, start: int, end: int, content: Any, inner: Sequence[_Raw]) -> _Raw:
        depth = 1 + max((raw.depth for raw in inner), default=0)
        if depth > DEEPEST:
            raise self.error("text.syntax", f"brackets nest deeper than {DEEPEST}", (start, end))
        return _Raw(kind, start, end, content, depth)

    def birth_of(self, token: Token) -> Symbol:
        try:
            return types.parse_birth(token, partial(self.declare, token))
        except ValueError as error:  # an integer or an escape that Python does not read
            raise self.error("text.syntax", str(error), token) from None

    def attribute_value(self, raw: _Raw, definition: OperationDefinition, name: str, born: list[Symbol]) -> Attribute:
        """What an attribute means, by the declaration of the operation; a name it lacks is reported by `normalize`."""
        spec = definition.attribute_specs.get(name, AttributeSpec(name, Any))
        if raw.kind == "birth":
            symbol = self.birth_of(raw.content)
            born.append(symbol)
            return symbol
        value = self.interpret(raw, spec.annotation)
        if spec.annotation is Symbol and isinstance(value, Expr):
            mentioned = dims.free_symbols(value)
            return mentioned[0] if value == mentioned[0].expr else value
        return value

    def interpret(self, raw: _Raw, annotation: Any) -> Attribute:
        if raw.type is not None:
            return self.tensor(raw)
        if raw.kind == "flat_list":
            parts = raw.content[1:-1].split(",") if raw.content[1:-1].strip() else []
            return tuple(
                self.scalar(part.strip(), _element(annotation, index), raw) for index, part in enumerate(parts)
            )
        if raw.kind == "list":
            return tuple(self.interpret(part, _element(annotation, index)) for index, part in enumerate(raw.content))
        if raw.kind == "dictionary":
            return {name: self.interpret(part, Any) for name, part in raw.content.items()}
        if raw.kind == "reference":
            name = self.sigil_name(raw.content, raw)
            self.references.append((name, raw))
            return FunctionName(name)
        if raw.kind == "birth":
            raise self.error("text.syntax", "a symbol cannot be born here", raw)
        return self.scalar(raw.content, annotation, raw)

    def scalar(self, text: str, annotation: Any, raw: _Raw) -> Attribute:
        """One bare word, number, dim or string, read as what the declaration allows."""
        kinds = _kinds(annotation)
        free = Any in kinds
        if re.fullmatch(QUOTED, text) and (free or kinds & {str, FunctionName} or Expr not in kinds):
            return self.unquote(text, raw)
        if text == "none" and (free or NoneType in kinds or Expr not in kinds):
            return None
        if text in ("true", "false") and (free or bool in kinds):
            return text == "true"
        if re.fullmatch("-?[0-9]+", text):
            return self.integer(text, raw)
        if re.fullmatch(r"-?(inf|nan|[0-9]+\.?[0-9]*(e[+-]?[0-9]+)?)", text) and (free or float in kinds):
            return float(text)
        if text[:1] == "(" and (free or complex in kinds):
            return self.complex_number(text, raw)
        try:
            if DType in kinds or (free and _is_dtype(text)):
                return by_name(text)
            return dims.parse_dim(text, self.lookup)
        except IrcError as error:
            raise self.placed(error, raw) from None
        except ValueError as error:
            raise self.error("dim.syntax", str(error), raw) from None

    def complex_number(self, text: str, raw: _Raw) -> complex:
        try:
            real, imaginary = text[1:-1].split(",")
            return complex(float(real), float(imaginary))
        except ValueError:
            raise self.error("text.syntax", "a complex number that cannot be read", raw, "(1.0, -2.0)") from None

    # -- tensors -----------------------------------------------------------------------------------------------

    def tensor(self, raw: _Raw) -> Tensor:
        assert raw.type is not None
        (type_,) = self.read_types(raw.type, None)
        try:
            shape = type_.static_shape()
        except IrcError as error:
            raise self.placed(error, raw.type) from None
        if raw.kind == "reference":
            return self.named_tensor(self.sigil_name(raw.content, raw), type_, raw)
        if prod(shape) * max(type_.dtype.itemsize, 1) > LARGEST_LITERAL:
            raise self.error("text.syntax", "a constant that is too large to be written out", raw)
        elements: list[str] = []
        if raw.kind == "expression":
            elements.append(raw.content)  # one for all
        else:
            self.collect(raw, shape, elements)
        try:
            array = read_elements(elements, type_.dtype)
        except IrcError as error:
            raise self.placed(error, raw) from None
        except (ValueError, OverflowError):
            message = f"a constant whose elements are no {type_.dtype}"
            raise self.error("text.syntax", message, raw, f"elements of {type_}") from None
        if raw.kind == "expression":
            array = array.repeat(prod(shape))
        return Tensor.of(array.reshape(shape), type_.dtype)

    def collect(self, raw: _Raw, shape: tuple[int, ...], elements: list[str]) -> None:
        """The elements of nested lists that must have the shape."""
        if raw.kind == "flat_list":
            parts = raw.content[1:-1].split(",") if raw.content[1:-1].strip() else []
            count = len(parts)
        else:
            parts, count = [], len(raw.content) if raw.kind == "list" else -1
        if not shape or count != shape[0]:
            message = "the elements do not have the shape that the type states"
            raise self.error("type.shape", message, raw, f"[{', '.join(map(str, shape))}]")
        if raw.kind == "flat_list":
            if len(shape) > 1 and count:
                raise self.error("type.shape", "elements where lists belong", raw)
            elements += parts
            return
        for part in raw.content:
            if len(shape) > 1:
                self.collect(part, shape[1:], elements)
            elif part.kind == "expression" and part.type is None:
                elements.append(part.content)
            else:
                raise self.error("type.shape", "a list where an element belongs", part)

    def named_tensor(self, name: str, type_: TensorType, raw: _Raw) -> Tensor:
        """A constant of the weights file, which is opened when the first one is met."""
        try:
            if self.weights is None:
                self.weights = self.open_weights()
        except IrcError as error:
            raise self.placed(error, raw) from None
        what, tensor = f"constant @{json.dumps(name)}", self.weights.get(name)
        if tensor is None:
            help = _meant(name, self.weights)
            raise self.error("weights.absent", f"{self.result.source} has no {what}", raw, help=help)
        found = TensorType(tensor.dtype, tensor.shape)
        if found != type_:
            raise self.error("weights.absent", f"the {what} is {found}, not {type_}", raw)
        return tensor

    def open_weights(self) -> Mapping[str, Tensor]:
        source, digest = self.result.source, self.result.source_digest
        if source is None:
            raise fail("weights.missing", "the module names no file that holds its constants",
                       help='write `module @name {weights = "FILE"}`')  # fmt: skip
        # Whoever states a file's hash knows what is in it: only an unhashed path must be kept from leading astray.
        path = self.folder / source if digest is not None else weights.resolve_inside(self.folder, source)
        return weights.open_weights(path, digest)

    # -- words -------------------------------------------------------------------------------------------------

    def sigil_name(self, token: str, at: At | None = None) -> str:
        """The name in `%x`, `@main` or `%"any text"`."""
        return self.unquote(token[1:], token if at is None else at) if token[1] == '"' else token[1:]

    def word(self, token: str) -> str:
        """A name without a sign in front, which may be in quotes."""
        return self.unquote(token, token) if token[0] == '"' else str(token)

    def unquote(self, text: str, at: At) -> str:
        read: str = self.parse_json(text, at)
        return read

    def parse_json(self, text: str, at: At) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self.error("text.syntax", f"a string that cannot be read: {error}", at) from None

    def integer(self, text: str, at: At) -> int:
        try:
            return int(text)
        except ValueError:  # Python reads at most 4300 digits
            raise self.error("text.syntax", "an integer that is too long", at) from None


def _start(token: str) -> int:
    position: int = token.start_pos  # type: ignore[attr-defined]  # a Lark token
    return position


def _end(token: str) -> int:
    return _start(token) + len(token)


def _within(token: str, match: re.Match[str], group: int = 0) -> tuple[int, int]:
    """Where a match within a token lies in the text."""
    start, end = match.span(group)
    return _start(token) + start, _start(token) + end


def _extent(at: At) -> tuple[int, int]:
    if isinstance(at, str):
        return _start(at), _end(at)
    return at if isinstance(at, tuple) else (at.start, at.end)


def _list(listed: Sequence[TensorType]) -> str:
    return ", ".join(map(str, listed)) or "no result"


def _meant(name: str, known: Iterable[str]) -> str | None:
    close = get_close_matches(name, list(known)[-LATEST:], n=3)
    return f"did you mean {' or '.join(close)}?" if close else None


def _clipped(text: str) -> str:
    line = text.split("\n")[0]
    return repr(line if len(line) <= 40 else f"{line[:40]}...")


def _is_dtype(text: str) -> bool:
    try:
        by_name(text)
    except IrcError:
        return False
    return True


@lru_cache(maxsize=1024)
def _kinds(annotation: Any) -> frozenset[Any]:
    """The plain types that an annotation allows outside of lists: of `int | Expr`, both; of a Literal, its values'."""
    if get_origin(annotation) is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return frozenset().union(*map(_kinds, get_args(annotation)))
    return frozenset([annotation])


@lru_cache(maxsize=1024)
def _element(annotation: Any, index: int) -> Any:
    """The annotation of a list's element: of `tuple[int, ...]`, int."""
    for candidate in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,):
        arguments = get_args(candidate)
        if get_origin(candidate) is tuple and arguments:
            repeated = arguments[-1] is Ellipsis
            return arguments[0 if repeated else min(index, len(arguments) - 1)]
    return Any
