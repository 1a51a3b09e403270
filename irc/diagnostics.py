"""Locations in sources, errors with codes, and the table of codes.

A user's mistake never shows a traceback. Every error has a code, whose section is in `codes.md`; the code decides
the exit status, and `irc explain CODE` prints its section. To raise one: `raise fail(code, message, at=location)`.
Lines and columns count from 1; 0 is unknown. Only the standard library is imported, since every module imports this.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, partial
from importlib.resources import files

CLIP = 100  # columns of a quoted source line: a line of weights must not fill the screen
LATEST = 2000  # names among which similar ones are looked for
# A section of codes.md, a line for each paragraph: code, summary, exit status, explanation, remedy.
SECTION = re.compile(r"## ([a-z_]+\.[a-z_]+)\n(.+) \(exit status ([0-9]+)\)\n(.+)\nWhat to do: (.+)")


class Exit(IntEnum):
    """The exit status of the process."""

    FINE = 0
    DIFFERS = 1
    USAGE = 2
    BAD_INPUT = 3
    UNSUPPORTED = 4
    INTERNAL = 70

    @property
    def meaning(self) -> str:
        """The status in words, for `irc explain`."""
        return {0: "fine", 1: "a comparison failed", 2: "usage", 3: "bad or unsafe input", 4: "unsupported",
                70: "an error in irc itself"}[self.value]


@dataclass(frozen=True, slots=True)
class Location:
    """Where an operation came from, and the passes and rules that made it since (oldest first), for its reader only: no
    pass and no backend decides by it."""

    file: str | None = None
    line: int = 0
    column: int = 0
    name: str | None = None  # the node's name or the module's path in the source
    made_by: tuple[str, ...] = ()

    def by(self, step: str) -> Location:
        """This place with `step` ("raise(gelu)") noted as its latest maker; a repeated step is noted once."""
        return self if self.made_by[-1:] == (step,) else replace(self, made_by=(*self.made_by, step))

    @property
    def known(self) -> bool:
        """Whether there is anything to show for it in the source."""
        return self.file is not None or self.name is not None

    def __str__(self) -> str:
        if self.file is None:
            return self.name if self.name is not None else "unknown"
        place = _place(self.file, self.line, self.column)
        return f"{place} ({self.name})" if self.name is not None else place


UNKNOWN = Location()


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """A stretch of one line of source text, to be quoted with a caret under it."""

    path: str
    line: int
    source: str  # the whole line
    column: int
    length: int = 1
    label: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a code, a sentence, and all that helps its reader to act on it."""

    code: str
    message: str
    location: Location = UNKNOWN
    text: SourceSpan | None = None
    origin: Location | None = None  # the place in the source; the location itself where `text` is quoted
    expected: str | None = None
    help: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.code in CODES, f"diagnostic code {self.code!r} is not in irc.diagnostics.CODES"

    def render(self, color: bool = False) -> str:
        """The finding as its reader sees it: sentence, place, quoted line, origin, makers, advice."""
        paint = partial(_paint, color=color)
        arrow = paint("-->", "34")
        lines = [f"{paint(f'error[{self.code}]', '1;31')}: {_indented(self.message)}"]
        origin = self.origin
        if self.text is not None:
            place = _place(self.text.path, self.text.line, self.text.column)
            lines += [f"  {arrow} {printable(place)}", *_quoted(self.text, paint)]
            quoted_here = (self.location.file, self.location.line) == (self.text.path, self.text.line)
            origin = origin or (None if quoted_here else self.location)
        elif self.location.known:
            lines.append(f"  {arrow} {printable(str(self.location))}")
        if origin is not None and origin.known:
            lines.append(f"  from: {printable(str(origin))}")
        makers = self.location.made_by or (origin.made_by if origin is not None else ())
        if makers:
            lines.append(f"  after: {printable(', '.join(makers))}")
        if self.expected is not None:
            lines.append(f"  expected: {_indented(self.expected)}")
        lines += [f"  note: {_indented(note)}" for note in self.notes]
        lines.append(f"  help: {_indented(self.help or f'irc explain {self.code}')}")
        return "\n".join(lines)


class IrcError(Exception):
    """One or more findings that stop the work; the first decides the code and the exit status."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        assert self.diagnostics, "an error without a diagnostic says nothing"
        super().__init__(self.diagnostics)

    @property
    def code(self) -> str:
        """The first finding's code."""
        return self.diagnostics[0].code

    @property
    def exit_code(self) -> int:
        """The exit status of the first finding's code."""
        return int(CODES[self.code].exit_code)

    def placed(self, at: Location = UNKNOWN, text: SourceSpan | None = None) -> IrcError:
        """The same error, placed by a caller that knows where (a type rule only knows what is wrong)."""
        return type(self)(
            replace(d, location=at if d.location == UNKNOWN else d.location, text=d.text or text)
            for d in self.diagnostics)

    def __str__(self) -> str:
        return "\n".join(diagnostic.render() for diagnostic in self.diagnostics)


class InternalError(IrcError):
    """Our own bug: its codes end with status 70, and the driver leaves a reproducer."""


class UnsupportedError(Exception):
    """An operation that a frontend or backend cannot express, and why. Those of a model are collected: one coded error
    lists all of them."""


def fail(code: str, message: str, *, at: Location = UNKNOWN, text: SourceSpan | None = None,
         origin: Location | None = None, expected: str | None = None, help: str | None = None,
         notes: Iterable[str] = ()) -> IrcError:
    """The error to raise for one finding; codes under `internal.` make an InternalError."""
    kind = InternalError if code.startswith("internal.") else IrcError
    return kind([Diagnostic(code, message, at, text, origin, expected, help, tuple(notes))])


def check_argument(name: str, value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise `usage.value` for an argument of a public function that is of none of the types that it may have."""
    if not isinstance(value, kinds):
        raise fail("usage.value", f"`{name}` is of the type {type(value).__name__}", expected=expected)


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """Advice for a name that nothing has: those of the `known` ones, the latest thousands, that resemble it."""
    close = difflib.get_close_matches(name, list(known)[-LATEST:], n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


def printable(text: str) -> str:
    """`text` with control characters and direction marks escaped: names come from files of others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(lines: Iterable[str]) -> str:
    """Lines as a text in which each is one line, whatever it quotes."""
    return "\n".join(map(printable, lines))


def _indented(text: str) -> str:
    """A sentence of several lines, each printable, the later ones set in under the first."""
    return "\n    ".join(printable(line) for line in text.split("\n"))


def _place(path: str, line: int, column: int) -> str:
    """`path:line:column`, without the parts that are unknown."""
    return ":".join([path, *(str(number) for number in (line, column) if number > 0)])


def _paint(text: str, style: str, color: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if color else text


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _quoted(span: SourceSpan, paint: Callable[[str, str], str]) -> list[str]:
    """The source line and the caret line below it, without indentation and clipped around the caret."""
    source = span.source.rstrip("\r\n").replace("\t", " ")  # one column, so that the caret stays under its word
    start = min(max(span.column - 1, 0), len(source))
    stop = min(start + max(span.length, 1), max(len(source), start + 1))
    left = min(len(source) - len(source.lstrip()), start)
    if stop - left > CLIP:
        left = max(left, start - CLIP // 4)
        stop = min(stop, left + CLIP)
    parts = source[left:start], source[start:stop], source[stop:left + CLIP]
    before, under, after = map(printable, parts)
    opened = "..." if source[:left].strip() else ""
    closed = "..." if len(source) > left + CLIP else ""
    caret = paint("^" * max(_width(under), 1), "1;31") + (f" {_indented(span.label)}" if span.label else "")
    return [f"   |  {opened}{before}{under}{after}{closed}", f"   |  {' ' * _width(opened + before)}{caret}"]


@dataclass(frozen=True, slots=True)
class Code:
    """A row of the code table."""

    summary: str
    exit_code: Exit
    explanation: str
    remedy: str


class _Codes(Mapping[str, Code]):
    """The table of codes: the sections of `codes.md`, read when a code is first looked up."""

    @cached_property
    def rows(self) -> dict[str, Code]:
        return read_codes((files("irc") / "codes.md").read_text("utf-8"))

    def __getitem__(self, code: str) -> Code:
        return self.rows[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


CODES = _Codes()


def read_codes(page: str) -> dict[str, Code]:
    """The sections of a page like `codes.md`; a ValueError names the one that is malformed or given twice."""
    rows: dict[str, Code] = {}
    for part in re.split(r"^(?=#)", page, flags=re.MULTILINE):
        if part.startswith("## "):
            text = "\n".join(" ".join(paragraph.split()) for paragraph in part.strip().split("\n\n"))
            section = SECTION.fullmatch(text)
            if section is None or section[1] in rows or int(section[3]) not in set(Exit):
                raise ValueError(f"this section of the code page is malformed or given twice: {text}")
            rows[section[1]] = Code(section[2], Exit(int(section[3])), section[4], section[5])
    return rows


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 kernel`, `2 kernels`."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"
