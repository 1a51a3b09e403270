"""Rows of the tables of rules: number, code of the error, functions that check the rule, and its page.

The tables are in `irc.kernel.rules` (F1, ...: when operations can be one kernel), `irc.verifier.rules` (V1, ...: when
IR is well formed) and `irc.numerics` (by the names of classes). The page of a rule is the docstring of its first
function: a paragraph that states what the rule demands, one that begins with `Why:`, and `Example:` with a program or a
step that breaks it. What to do is stated with the code (`codes.md`). The number of a removed rule is not used again.
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
    functions: tuple[Callable[..., Any], ...]  # the first has the page, others check parts of the rule

    @property
    def page(self) -> str:
        """What the rule demands, why, and an example that breaks it."""
        return inspect.cleandoc(self.functions[0].__doc__ or "")

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
    def places(self) -> str:
        """The functions with their files and lines."""
        return ", ".join(f"{each.__name__} ({each.__module__.replace('.', '/')}.py:{each.__code__.co_firstlineno})"
                         for each in self.functions)  # fmt: skip


def table(*rows: tuple[str, str, *tuple[Callable[..., Any], ...]]) -> dict[str, NumberedRule]:
    """Rules by their numbers, from rows of number, code and functions."""
    return {number: NumberedRule(number, code, tuple(functions)) for number, code, *functions in rows}
