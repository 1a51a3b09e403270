"""The text being read: names and literals in it, and errors with their place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from irc.diagnostics import UNKNOWN, IrcError, Location, SourceSpan, did_you_mean, fail
from irc.parser.parts import Part, clipped, is_text

if TYPE_CHECKING:
    from lark import Token

    At: TypeAlias = "Token | Part"

HALF = "it holds half of a character (a lone surrogate)"


class Source:
    """A text, and the path that errors show."""

    def __init__(self, text: str, path: Path | None) -> None:
        self.text = text
        self.path = "<text>" if path is None else str(path)

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
        """Errors that are raised inside get this place; a ValueError, of a number or a dim, becomes one with `code`."""
        try:
            yield
        except IrcError as error:
            raise self.placed(error, at) from None
        except (ValueError, OverflowError) as error:
            raise self.error(code, f"{what}{error}", at) from None

    def name(self, written: At) -> str:
        """The name in `%x`, `@main`, `B` or, with any text in quotes, `%"x y"`."""
        bare = written[1:] if written[0] in "%@" else str(written)
        return self.literal(bare, written) if bare[0] == '"' else bare

    def literal(self, text: str, at: At) -> Any:
        """The value of a string, a list of strings or an integer."""
        with self.blaming(at, what=f"{clipped(text)} cannot be read: "):
            value = int(text) if text.lstrip("-").isdecimal() else json.loads(text)
            if not all(map(is_text, value if isinstance(value, list) else [value])):
                raise ValueError(HALF)
            return value
