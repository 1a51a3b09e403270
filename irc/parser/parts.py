"""Parts of a text that know where they stand, and the words by which errors call what may stand there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irc import types

if TYPE_CHECKING:
    from lark import Token

WORDS = {  # for "expected": what a reader calls the tokens that are more than a fixed word
    "RESULTS": "`%name =`", "NAME": "an operation", "OPERANDS": "operands", "VALUE": "`%name`", "SYMBOL": "`@name`",
    "TYPES": "types", "TYPE": "a type", "STRING": "a string", "BARE": "a number, dim or dtype", "TAIL": "an operator",
    "_OPEN": "attributes", "FLAT_ATTRIBUTES": "attributes", "FLAT_LIST": "a list", "EMPTY": "`{}`",
    "PLACE": "`loc(#1)`", "LOCATION": "`#1 = loc(...)`", "SYMBOL_DEFINITION": "`?symbol in (low, high)`",
    "DEFINITION": "`$name = [dim]`", "INTEGER": "an integer",
    "SYMBOL_NAME": "a symbol", "RESULT_NAME": "a name", "$END": "the end",
}


class Part(str):
    """A part of the text that knows where it stands, in the manner of Lark's tokens."""

    __slots__ = ("depth", "start_pos")
    start_pos: int
    depth: int  # of brackets inside, where it was read as a whole

    def __new__(cls, text: str, start_pos: int, depth: int = 0) -> Part:
        part = super().__new__(cls, text)
        part.start_pos, part.depth = start_pos, depth
        return part

    @property
    def end_pos(self) -> int:
        return self.start_pos + len(self)

    def split(self, mark: str) -> list[Part]:  # type: ignore[override]
        """What stands between marks that are in no brackets and no quotes, without the space around it."""
        parts, start = [], self.start_pos
        for part in types.split_outside(self, mark):
            parts.append(Part(part.strip(), start + len(part) - len(part.lstrip())))
            start += len(part) + len(mark)
        return parts

    def inside(self) -> list[Part]:
        """What the commas within these brackets separate."""
        inner = Part(self[1:-1], self.start_pos + 1)
        return inner.split(",") if inner.strip() else []


def within(token: Token | Part, match: re.Match[str]) -> Part:
    return Part(match.group(), (token.start_pos or 0) + match.start())


def clipped(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def is_text(value: object) -> bool:
    """Whether it can be written as UTF-8, which has no lone surrogates; what is no string can."""
    return not isinstance(value, str) or not any("\ud800" <= character <= "\udfff" for character in value)
