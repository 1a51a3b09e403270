"""Types and symbols in a text: those of the function that is being read."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from irc import dims, types
from irc.dims import Dim, Symbol
from irc.ir import Function
from irc.parser.parts import is_text, within
from irc.parser.source import HALF, Source
from irc.types import QUOTED, TensorType

if TYPE_CHECKING:
    from lark import Token

    from irc.parser.source import At

TYPE = re.compile(rf'[a-z][a-z0-9]*\[(?:[^\]"]|{QUOTED})*\]')


class TypeReader:
    """Reads types; symbols belong to `function`, and `definitions` are its derived symbols."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.start(Function(""))

    def start(self, function: Function) -> None:
        """Begin another function."""
        self.function = function
        self.definitions: dict[str, Dim] = {}
        self._known: dict[str, list[TensorType]] = {}  # by text

    def declare(self, at: At, defined: list[Symbol] | None, name: str, low: int, high: int, multiple: int) -> Symbol:
        """Make a symbol: of the signature, or one that is added to those `defined` by an operation."""
        if not is_text(name):
            raise self.source.error("text.syntax", HALF, at)
        with self.source.blaming(at, "dim.range"):
            symbol = self.function.symbol(name, low, high, multiple, defined=defined is not None)
        if defined is not None:
            defined.append(symbol)
        return symbol

    def read(self, token: At, defined: list[Symbol] | None) -> list[TensorType]:
        """The types in a token; symbols defined in them are added to `defined`, which is None where none may be."""
        known = self._known.get(token)
        if known is not None:
            return known
        read = []
        for match in TYPE.finditer(token):
            at = within(token, match)
            declare = None if defined is None else partial(self.declare, at, defined)
            with self.source.blaming(at, "dim.syntax"):
                type_ = types.parse_type(match.group(), self.function.find_symbol, declare, self.definitions)
            read.append(type_)
        if "?" not in token:
            self._known[token] = read
        return read

    def define(self, token: Token) -> None:
        """Read the definition of a derived symbol, `$name = [dim]`."""
        name, text = token[1:].split("=", 1)
        with self.source.blaming(token, "dim.syntax"):
            definition = dims.parse_definition(text.strip()[1:-1], self.function.find_symbol, self.definitions)
        if name.strip() in self.definitions:
            raise self.source.error("text.redefined_name", f"${name.strip()} is defined twice", token)
        self.definitions[name.strip()] = definition

    def symbol_definition(self, token: At, defined: list[Symbol]) -> Symbol:
        with self.source.blaming(token):
            return types.parse_symbol_definition(token, partial(self.declare, token, defined))
