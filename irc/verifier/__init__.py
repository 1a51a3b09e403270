"""Whether a module is well formed: `verify`, by numbered rules, in time linear in the module.

The rules are functions in `irc.verifier.rules`, one for each number; what several of them ask about a function is
computed once (`irc.verifier.facts`). The type rules of operations are not repeated: V5 to V7 and V9 apply them. After a
pass all rules hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from irc.diagnostics import UNKNOWN, Diagnostic, IrcError, Location
from irc.ir import Operation
from irc.module import Module
from irc.verifier.facts import module_facts
from irc.verifier.rules import VERIFIER_RULES

MOST = 20  # failures that one error reports


@dataclass(frozen=True)
class Failure:
    """A rule that does not hold, with the place."""

    rule: str
    message: str
    function: str
    operation: Operation | None = None

    def diagnostic(self) -> Diagnostic:
        operation, rule = self.operation, VERIFIER_RULES[self.rule]
        location = operation.location if operation is not None else UNKNOWN
        if not location.known and operation is not None and operation.results:
            location = Location(name=f"%{operation.results[0].name}", made_by=location.made_by)
        message = f"{self.rule}: @{self.function}: {self.message}"
        return Diagnostic(rule.code, message, location, notes=(rule.statement,))


def verify(module: Module) -> None:
    """Check all rules. Raises one error with up to 20 failures, each with its rule, operation and location."""
    failures = check(module)
    if failures:
        raise IrcError(failure.diagnostic() for failure in failures[:MOST])


def check(module: Module) -> list[Failure]:
    """The failures of a module: by function, then in the order of its operations."""
    failures: list[Failure] = []
    for facts in module_facts(module):
        broken = [Failure(rule.number, message, facts.name, operation) for rule in VERIFIER_RULES.values()
                  for check_rule in rule.functions for message, operation in check_rule(facts)]  # fmt: skip
        if broken:
            places: dict[Operation | None, int] = {operation: at for at, operation in enumerate(facts.operations)}
            broken.sort(key=lambda failure: places.get(failure.operation, -1))
        failures += broken
    return failures
