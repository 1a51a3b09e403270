"""Numbered rules: a row for each, with its number, the code of its error, the function that checks it, and its page.

Two tables have them: `irc.kernel.rules` (F: when operations can be one kernel) and `irc.verifier_rules` (V: when IR is
well formed). The page of a rule is the docstring of its function: the first paragraph is what the rule demands; then a
paragraph `Why:`, and `Example:`, a program or a step that breaks it. What to do is stated with the code (`codes.md`).
A number is never given to another rule: those of rules that were removed stay unused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NumberedRule:
    """A row of a table of rules."""

    number: str
    code: str
    function: Callable[..., Any]

    @property
    def page(self) -> str:
        """What the rule demands, why, and an example that breaks it."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def statement(self) -> str:
        """What the rule demands, on one line."""
        return " ".join(self.page.partition("\n\n")[0].split())

    @property
    def reason(self) -> str:
        """Why the rule is there, on one line."""
        return " ".join(self.page.partition("\nWhy: ")[2].partition("\n\n")[0].split())

    @property
    def example(self) -> str:
        """What breaks the rule, as the page shows it."""
        return self.page.partition("\nExample: ")[2]

    @property
    def place(self) -> str:
        """The file and line of the function."""
        return f"{self.function.__module__.replace('.', '/')}.py:{self.function.__code__.co_firstlineno}"


def table(*rows: tuple[str, str, Callable[..., Any]]) -> dict[str, NumberedRule]:
    """Rules by their numbers, from rows of number, code and function."""
    return {number: NumberedRule(number, code, function) for number, code, function in rows}
