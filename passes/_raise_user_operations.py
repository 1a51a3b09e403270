"""Raising the operations of a user's files: the body of each is a pattern, and the operation its replacement.

A body is traced without types, as rules are (`irc.pattern`), once for every choice of absent optional operands and of
attributes with a list of values; other attributes are bound to what the graph has in their place. An attribute that
decides the structure of the body keeps its default. Each match is verified: the body, traced on the matched values,
must be the matched operations. Start reading at `raising_rules`.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from irc.diagnostics import IrcError, Location
from irc.ir import Operation, Value
from irc.numerics import Numerics
from irc.op import REQUIRED, OperationDefinition, const
from irc.passes._normal_form import SOFT
from irc.pattern import Match
from irc.rewrite import MatchFailure, PatternRule, Replacement

MOST_ABSENT = 4  # optional operands of which each choice is a pattern of its own


class RaisingRule(PatternRule):
    """Body -> operation, for one choice of present operands; attributes in `fixed` have these values."""

    def __init__(self, definition: OperationDefinition, absent: frozenset[str], fixed: dict[str, Any],
                 numerics: Numerics) -> None:
        names = [spec.name for spec in definition.operand_specs]
        present = [name for name in names if name not in absent]
        free = [name for name in definition.attribute_specs if name not in fixed]

        def sides(*leaves: Any, **attributes: Any) -> Any:
            given = dict(zip(present, leaves, strict=True))
            operands = [given.get(name) for name in names]
            chosen = {**fixed, **attributes}
            return definition.source_function(*operands, **chosen), lambda: definition(*operands, **chosen)

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in present]
        parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in free]
        sides.__name__, sides.__doc__ = definition.name, definition.doc
        sides.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        super().__init__(sides, numerics)
        self.defaults = {name: definition.attribute_specs[name].default for name in free}
        self.size = len(list(self.pattern.root.block or ()))

    def _replacement(self, match: Match, named: dict[str, Any], location: Location) -> Replacement | MatchFailure:
        unbound = [name for name in self.defaults if name not in match.attributes]
        if any(self.defaults[name] is REQUIRED for name in unbound):
            return MatchFailure(f"nothing binds the attribute `{unbound[0]}`")
        kept = _read_elsewhere(self.pattern.results, match)
        if kept is not None:
            return MatchFailure(f"%{kept.name} is read by another operation, and would be computed twice")
        return super()._replacement(match, {**named, **{name: self.defaults[name] for name in unbound}}, location)

    def failed_guard(self, named: dict[str, Any]) -> None:
        return None


def _read_elsewhere(results: Sequence[Value], match: Match) -> Value | None:
    """A value inside the match that an operation outside reads, and that costs more than an elementwise sum."""
    inside: dict[Operation, None] = {}
    pending = [value.operation for value in results]
    while pending:
        pattern = pending.pop()
        if pattern is None or pattern.definition is const or not pattern.results:
            continue
        operation = match.values[pattern.results[0]].operation
        if operation is not None and operation not in inside:
            inside[operation] = None
            pending += [value.operation for value in pattern.inputs]
    ends = {match.values[value] for value in results}
    values = (value for operation in inside if operation.name not in SOFT for value in operation.results
              if value not in ends)  # fmt: skip
    return next((value for value in values if any(user not in inside for user in value.users())), None)


def raising_rules(definitions: Sequence[OperationDefinition],
                  numerics: Numerics) -> tuple[list[RaisingRule], list[str]]:  # fmt: skip
    """The rules that raise these operations, of large bodies first; and a note for each that cannot be looked for."""
    strict: Numerics = "exact" if numerics == "exact" else "reassociates"
    rules, notes = [], []
    for definition in definitions:
        if not definition.is_named or definition.has_effect:
            continue
        choices: list[RaisingRule] = []
        reason = "it takes any number of operands"
        for absent, fixed in _choices(definition):
            try:
                choices.append(RaisingRule(definition, absent, fixed, strict))
            except IrcError as error:  # a body that decides by shapes or types is no pattern
                reason = " ".join((error.diagnostics[0].message, *error.diagnostics[0].notes))
        if not choices:
            notes.append(f"raise: `{definition.name}` is not looked for: {reason}")
        rules += choices
    return sorted(rules, key=lambda rule: -rule.size), notes


def _choices(definition: OperationDefinition) -> Iterator[tuple[frozenset[str], dict[str, Any]]]:
    """Which optional operands are absent, and which attributes are fixed: all that can be bound first."""
    specs = definition.operand_specs
    if any(spec.variadic for spec in specs):
        return
    optional = [spec.name for spec in specs if spec.optional][:MOST_ABSENT]
    listed = {name: get_args(spec.annotation) for name, spec in definition.attribute_specs.items()
              if get_origin(spec.annotation) is not None and all(isinstance(v, str) for v in get_args(spec.annotation))}
    defaults = {name: spec.default for name, spec in definition.attribute_specs.items()
                if name not in listed and spec.default is not REQUIRED}  # fmt: skip
    for number in range(len(optional) + 1):
        for absent in itertools.combinations(optional, number):
            for values in itertools.product(*listed.values()):
                fixed = dict(zip(listed, values, strict=True))
                yield frozenset(absent), fixed
                if defaults:
                    yield frozenset(absent), {**defaults, **fixed}
