"""Attributes in a text: values are read by the annotations in the declaration of their operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irc import dims
from irc.dims import Expr, Symbol
from irc.dtypes import ALL, DType, by_name
from irc.ir import Attribute, FunctionName
from irc.literals import complex_parts
from irc.op import AttributeSpec
from irc.parser.annotations import element_of, kinds_of
from irc.parser.parts import Part
from irc.parser.source import Source
from irc.parser.tensors import TensorReader
from irc.parser.types import TypeReader
from irc.types import QUOTED

if TYPE_CHECKING:
    from irc.parser.source import At

RULES = 3  # of the grammar, at most, for each bracket
DEEPEST = 64  # regions in regions, lists in lists: no model needs more, and Python's stack bears it
COMMENTS = re.compile(rf"({QUOTED})|(?<=[][{{}},=:])(?:\s*//[^\n]*)+")  # after a word, // is a division
KEYWORDS = {"none": None, "true": True, "false": False}
DTYPES = frozenset(map(str, ALL))


class AttributeReader:
    """Reads attributes. `references` are the functions that they name, with places."""

    def __init__(self, source: Source, types: TypeReader, tensors: TensorReader) -> None:
        self.source, self.types, self.tensors = source, types, tensors
        self.references: list[tuple[str, At]] = []

    def span(self, children: list[At]) -> Part:
        """A value as written; `dictionary` interprets it."""
        start, end = children[0].start_pos or 0, children[-1].end_pos or 0
        text, depth = self.source.text[start:end], 1 + max(getattr(child, "depth", 0) for child in children)
        if depth > RULES * DEEPEST:  # here rather than later, as each level is a copy of what is inside of it
            raise self.source.error("text.syntax", f"brackets nest deeper than {DEEPEST}", children[-1])
        plain = COMMENTS.sub(lambda match: match[1] or " " * len(match[0]), text) if "//" in text else text
        return Part(plain, start, depth)

    def dictionary(self, written: Part | None, specs: Mapping[str, AttributeSpec], defined: list[Symbol] | None = None,
                   depth: int = 1) -> dict[str, Attribute]:
        """Attributes by name; one that the declaration lacks is for `normalize` to report."""
        entries: dict[str, Attribute] = {}
        for part in () if written is None else written.inside():
            key, value = part.split("=")
            name = self.source.name(key)
            if name in entries:
                raise self.source.error("text.redefined_name", f"attribute `{name}` is given twice", value)
            annotation = specs[name].annotation if name in specs else Any
            entries[name] = self._interpret(value, annotation, defined, depth)
        return entries

    def _interpret(self, written: Part, annotation: Any, defined: list[Symbol] | None = None,
                   depth: int = 1) -> Attribute:  # fmt: skip
        """What an attribute means, by its annotation in the declaration of the operation."""
        if depth > DEEPEST:
            raise self.source.error("text.syntax", f"brackets nest deeper than {DEEPEST}", written)
        literal, *stated = written.split(":")
        mark = literal[:1]
        if stated:
            return self.tensors.read(literal, *stated)
        if mark == "[":
            parts = enumerate(literal.inside())
            return tuple(self._interpret(part, element_of(annotation, index), None, depth + 1) for index, part in parts)
        if mark == "{":
            return self.dictionary(literal, {}, None, depth + 1)
        if mark == "@":
            self.references.append((self.source.name(literal), literal))
            return FunctionName(self.references[-1][0])
        if mark == "?":
            if defined is None:
                raise self.source.error("text.syntax", "a symbol cannot be defined here", literal)
            return self.types.symbol_definition(literal, defined)
        return self._scalar(literal, annotation)

    def _scalar(self, text: Part, annotation: Any) -> Attribute:
        """One bare word, number, dim or string. Where dims may stand, other words are symbols unless they may, too."""
        kinds = kinds_of(annotation)

        def may_be(*types: type) -> bool:
            return Expr not in kinds or not kinds.isdisjoint(types)

        if text in KEYWORDS and may_be(type(KEYWORDS[text])):
            return KEYWORDS[text]
        if re.fullmatch("-?[0-9]+", text) or (re.fullmatch(QUOTED, text) and may_be(str, FunctionName)):
            return self.source.literal(text, text)
        if re.fullmatch(r"-?(inf|nan|[0-9]+\.?[0-9]*(e[+-]?[0-9]+)?)", text) and may_be(float):
            return float(text)
        with self.source.blaming(text, "dim.syntax"):
            if text.startswith("(") and may_be(complex):
                real, imaginary = complex_parts(text)
                return complex(float(real), float(imaginary))
            if DType in kinds or (text in DTYPES and may_be(DType)):
                return by_name(text)
            return dims.parse_dim(text, self.types.function.find_symbol, self.types.definitions)
