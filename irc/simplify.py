"""Rules for one operation, in plain Python, for conditions that patterns cannot state, such as those on types.

    @simplify("reshape")
    def reshape_to_same(operation):
        return operation.operands[0] if operation.operands[0].type == operation.result.type else None

    reshape_to_same.example(lambda x: reshape(x, shape=(2, 3)), "f32[2, 3]")
    reshape_to_same.near_miss(lambda x: reshape(x, shape=(3, 2)), "f32[2, 3]")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from irc.diagnostics import Location
from irc.ir import Operation
from irc.numerics import Numerics
from irc.op import Builder
from irc.pattern import values_of
from irc.rewrite import MatchFailure, Outcome, Replacement, Rule
from irc.user_code import blaming

Program = tuple[Callable[..., Any], tuple[str, ...]]  # as `irc.trace` takes it: a function, and types


class SimplifyRule(Rule):
    """A rule declared by `@simplify`: plain Python about one operation.

    `examples` are programs in which it applies, `near_misses` those in which it must not; both are tested.
    """

    def __init__(self, function: Callable[..., Any], roots: Sequence[str], numerics: Numerics) -> None:
        super().__init__(function, numerics, roots)
        self.examples: list[Program] = []
        self.near_misses: list[Program] = []

    def example(self, program: Callable[..., Any], *types: str) -> None:
        """A program, as `irc.trace` takes it, in which the rule applies."""
        self.examples.append((program, types))

    def near_miss(self, program: Callable[..., Any], *types: str) -> None:
        """A program in which the rule must not apply."""
        self.near_misses.append((program, types))

    def rewrite(self, operation: Operation, location: Location) -> Outcome:
        builder, before = Builder.before_operation(operation, location), operation.previous
        with builder, blaming("rule.raised", f"the rule `{self.name}` raised an exception"):
            outcome = self.function(operation)
        if outcome is None or isinstance(outcome, MatchFailure):
            return outcome
        values = dict(zip(operation.results, values_of(self.name, outcome), strict=True))
        return Replacement(values, frozenset(_between(before, operation)))


def _between(before: Operation | None, operation: Operation) -> Iterator[Operation]:
    """The operations of a block after `before`, or from its beginning, up to `operation`, last first."""
    current = operation.previous
    while current is not None and current is not before:
        yield current
        current = current.previous


def simplify(*roots: str, numerics: Numerics = "exact") -> Callable[[Callable[..., Any]], SimplifyRule]:
    """Declare a rule for operations of these names: `function(operation)` returns the value or values that replace
    the results (building what it needs), a `MatchFailure`, or None. It must build nothing where it returns None."""
    return lambda function: SimplifyRule(function, roots, numerics)
