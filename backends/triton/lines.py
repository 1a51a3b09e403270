"""Lines of Python source: those of one scope of a function (`Part`), and how long ones are broken (`wrapped`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from irc.backends.triton.accesses import marked
from irc.backends.triton.text import Code

LINE_LENGTH = 120
MARKS = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[][(),]""")  # of a line: strings, brackets, commas
METHODS = re.compile(r"\)(\.\w+\([\w.]*\))+$")  # calls of methods at the end of a line, such as `.to(tl.float32)`


@dataclass
class Part:
    """A stretch of lines that share a scope: index lines first, then the rest."""

    indent: str
    prelude: dict[str, str] = field(default_factory=dict)  # index lines by the name that they define
    lines: list[str] = field(default_factory=list)
    masks: dict[tuple[str, ...], Code] = field(default_factory=dict)

    def text(self) -> Iterator[str]:
        for line in (*self.prelude.values(), *self.lines):
            first, *rest = wrapped(f"{self.indent}{line}")
            yield marked(first, line, 1 + len(rest))
            yield from rest

def wrapped(line: str) -> Iterator[str]:
    """The line, or several where it ends in brackets and is too long for one: a part a line."""
    marks = [match for match in MARKS.finditer(line) if match[0][0] not in "\"'"]  # those in strings are text
    opening = next((match.start() for match in marks if match[0] == "("), -1)
    if len(line) <= LINE_LENGTH or opening < 0 or not line.endswith(")"):
        yield line
        return
    indent = line[: len(line) - len(line.lstrip())]
    methods = METHODS.search(line)
    end = len(line) - 1 if methods is None else methods.start()
    depth, start, parts = 0, opening + 1, []
    for match in marks:
        mark, position = match[0], match.start()
        if not opening < position < end:
            continue
        depth += (mark in "([") - (mark in ")]")
        if depth < 0:  # the first parenthesis closes before the end: no single call
            yield line
            return
        if mark == "," and depth == 0:
            parts.append(line[start:position].strip())
            start = position + 1
    comma = "," if parts else ""  # which would make a tuple of what is only in parentheses
    if last := line[start:end].strip():  # a tuple of one ends in a comma
        parts.append(last)
    yield line[: opening + 1]
    yield from (f"{indent}    {part}{comma}" for part in parts)
    yield f"{indent}{line[end:]}"
