"""Rewrite rules: a pattern and its replacement, written as one Python function over operations.

    @rewrite(numerics="reassociates")
    def scale_into_weight(x, w, s):
        '''(x @ w) * s  ->  x @ (w * s)'''
        return mul(matmul(x, w), s), matmul(x, mul(w, s))

    @scale_into_weight.when
    def scalar(s):
        return s.rank == 0 or "the scale must be a scalar"

Positional parameters are the leaves of the pattern and match any value; keyword-only parameters stand for
attributes and match whatever the graph has there. The function is read twice. Once when it is declared, with
leaves of no type, for the structure; what it asks of them (`x.shape`, `x.dtype`) is then unknown and stands
for anything. And once at each place where structure and guards agree, with the graph's own values: only if
attributes, constants and types of the pattern now equal the graph's is the replacement put in. So a rule holds
for every rank and dtype for which it can be traced, and types are never guessed. A replacement that must
look at the types (`if x.rank == 2`) is given as a function without parameters.

Operands of commutative operations match in both orders. A number matches a constant of that value everywhere:
the very number for `exact` and `keeps_more_precision`, within 2e-6 for the other classes, which also see through
spellings: x / 2 is x * 0.5, x - 2 is x + -2, -x is x * -1, x ** 2 is x * x. A replacement that is what the graph has
there already is not put in, so x * 0.5 -> x / 2 ends. Several results are a tuple on both sides.
"""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc import dims
from irc.diagnostics import IrcError, Location, did_you_mean, fail
from irc.ir import Block, Function, Operation, Value, dominates, rename
from irc.numerics import NUMERICS, Numerics, allows, not_allowed
from irc.op import Builder, yield_
from irc.pattern import Match, Pattern, already_computed, values_of
from irc.user_code import blaming, place_of_code

REWRITES_PER_OPERATION = 50  # more than any chain of sensible rules needs; then rules undo one another

Guard = Callable[..., "bool | str"]


@dataclass
class RuleStatistics:
    """How often a rule was tried and matched, and how often it failed for which reason."""

    tried: int = 0
    matched: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


# -- rules -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatchFailure:
    """Why a rule whose root operation is there does not apply."""

    reason: str


@dataclass(frozen=True)
class Replacement:
    """What replaces what, and the operations that were built for it."""

    values: dict[Value, Value]
    built: frozenset[Operation]


ALREADY_THERE = MatchFailure("the replacement is what is there already")
Outcome = Replacement | MatchFailure | None  # None: the pattern does not match


class Rule:
    """What all rules have: a name, a numerics class, and the names of the operations at which to try it."""

    def __init__(self, function: Callable[..., Any], numerics: Numerics, roots: Iterable[str]) -> None:
        if numerics not in NUMERICS:
            raise fail("rule.numerics", f"the rule `{function.__name__}` declares numerics={numerics!r}",
                       expected=", ".join(NUMERICS), help=did_you_mean(str(numerics), NUMERICS))  # fmt: skip
        self.function = function
        self.name = function.__name__
        self.numerics: Numerics = numerics
        self.roots = tuple(roots)

    def rewrite(self, operation: Operation, location: Location) -> Outcome:
        """Build the replacement of `operation` before it, where the rule applies; uses are left as they are."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


class PatternRule(Rule):
    """A rule declared by `@rewrite`."""

    def __init__(self, function: Callable[..., Any], numerics: Numerics) -> None:
        exact = numerics in ("exact", "keeps_more_precision")
        self.pattern = Pattern(function, exact, lambda name, returned: _two_sides(name, returned)[0])
        super().__init__(function, numerics, self.pattern.root_names)
        self.guards: dict[str, Guard] = {}

    def when(self, guard: Guard) -> Guard:
        """Decorator: the rule applies only where `guard` returns True; otherwise it returns the reason.

        Its parameters are called as leaves or attributes of the rule, and receive what these stand for.
        """
        names = self.pattern.leaf_names + self.pattern.attribute_names
        for name in inspect.signature(guard).parameters:
            if name not in names:
                message = f"guard `{guard.__name__}`: the rule `{self.name}` has no `{name}`"
                raise fail("rule.guard", message, expected=", ".join(names))
        self.guards[guard.__name__] = guard
        return guard

    def failed_guard(self, named: dict[str, Any]) -> tuple[str, str] | None:
        """The first guard that these leaves and attributes do not pass, and its reason; None where they pass all."""
        for name, guard in self.guards.items():
            with blaming("rule.raised", f"guard `{name}` of `{self.name}` raised an exception", guard):
                verdict: Any = guard(*(named[parameter] for parameter in inspect.signature(guard).parameters))
            if isinstance(verdict, str) and verdict:
                return name, verdict
            if not isinstance(verdict, bool | np.bool_):
                message = f"guard `{name}` of `{self.name}` returned {verdict!r}"
                raise fail("rule.guard", message, at=place_of_code(guard),
                           expected='True, or the reason why not: `condition or "the reason"`')
            if not verdict:
                return name, "no reason given"
        return None

    def rewrite(self, operation: Operation, location: Location) -> Outcome:
        first_failure: MatchFailure | None = None
        for match in self.pattern.matches(operation):
            leaves = {leaf.name: match.values.get(leaf) for leaf in self.pattern.leaves}
            named = {**leaves, **match.attributes}
            failed = self.failed_guard(named)
            outcome = MatchFailure(": ".join(failed)) if failed else self._replacement(match, named, location)
            if not isinstance(outcome, MatchFailure) or outcome is ALREADY_THERE:
                return outcome
            first_failure = first_failure or outcome
        return first_failure

    def _replacement(self, match: Match, named: dict[str, Any], location: Location) -> Replacement | MatchFailure:
        """Read the rule again on the graph's values, compare, and move the replacement into the graph."""
        old = [match.values[result] for result in self.pattern.results]
        places = [value.operation for value in old if value.operation is not None]
        first = min(places, key=lambda place: place.order_label)
        leaves = [match.values[leaf] for leaf in self.pattern.leaves if leaf in match.values]
        same_block = all(place.block is first.block for place in places)
        if not same_block or not all(dominates(leaf, first) for leaf in leaves):
            return MatchFailure("an operand is computed after the first of the results")
        scratch = Block()
        builder = Builder(scratch, None, location)
        try:
            with builder, blaming("rule.raised", f"the rule `{self.name}` raised an exception", self.function):
                pattern, new = self.both_sides(named)
            difference = self.pattern.difference(pattern, match) or self._type_difference(old, new)
            if difference is not None:
                return MatchFailure(difference)
            if already_computed(old, new, scratch):
                return ALREADY_THERE
            end = builder.create(yield_, new)
            erase_dead(list(scratch))  # the pattern, where the replacement does not use it
            end.erase()
            assert first.block is not None
            built_in_order = list(scratch)
            for operation in built_in_order:
                first.block.insert(scratch.remove(operation), first)
            return Replacement(dict(zip(old, new, strict=True)), frozenset(built_in_order))
        except IrcError as error:
            if not error.code.startswith(("type.", "dim.")):
                raise
            return MatchFailure(f"does not type: {error.diagnostics[0].message}")
        finally:
            for operation in reversed(list(scratch)):
                operation.erase()

    def both_sides(self, named: dict[str, Any]) -> tuple[list[Value], list[Value]]:
        """Pattern and replacement, built at the active builder on typed leaves."""
        leaves = [named[name] for name in self.pattern.leaf_names]
        attributes = {name: named[name] for name in self.pattern.attribute_names}
        pattern, new = _two_sides(self.name, self.function(*leaves, **attributes))
        return pattern, values_of(self.name, new()) if callable(new) else new

    def _type_difference(self, old: Sequence[Value], new: Sequence[Value]) -> str | None:
        if len(old) != len(new):
            raise fail("rule.type", f"`{self.name}` replaces {len(old)} values by {len(new)}",
                       at=place_of_code(self.function))  # fmt: skip
        for before, after in zip(old, new, strict=True):
            same = before.type == after.type
            if not same and before.dtype is after.dtype and before.type.is_ranked and after.type.is_ranked:
                same = before.rank == after.rank and all(map(dims.equal, before.shape, after.shape))
            if not same:
                return f"the replacement has type {after.type}, not {before.type}"
        return None


def _two_sides(name: str, returned: Any) -> tuple[list[Value], Any]:
    """The pattern as values; the replacement as values too, or as the function that gives it."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise fail("rule.raised", f"`{name}` returned {returned!r}", expected="(pattern, replacement)")
    pattern, new = returned
    return values_of(name, pattern), new if callable(new) else values_of(name, new)


def rewrite(*, numerics: Numerics) -> Callable[[Callable[..., Any]], PatternRule]:
    """Declare a rule by its pattern and its replacement; see the head of this module."""
    return lambda function: PatternRule(function, numerics)


# -- applying --------------------------------------------------------------------------------------------------


def apply_rules(function: Function, rules: Iterable[Rule], *, numerics: Numerics = "keeps_more_precision",
                statistics: dict[str, RuleStatistics] | None = None, maker: str = "rewrite") -> bool:
    """Apply rules until none applies, in time linear in operations and rewrites; returns whether any did.

    Rules are tried in the order given. New operations note `maker(rule)` in their location; operations that
    nothing uses any more are erased as the work goes. Raises `rule.endless` where rules undo one another.
    """
    statistics = {} if statistics is None else statistics
    by_root: dict[str, list[Rule]] = {}
    for rule in rules:
        statistics.setdefault(rule.name, RuleStatistics())
        for root in rule.roots:
            by_root.setdefault(root, []).append(rule)
    operations = list(function.walk())
    waiting = OrderedDict.fromkeys(operation for operation in operations if operation.name in by_root)
    budget = REWRITES_PER_OPERATION * (len(operations) + 1)
    changed = False
    while waiting:
        operation, _ = waiting.popitem(last=False)
        for rule in by_root[operation.name] if operation.block is not None else ():
            record = statistics[rule.name]
            if not allows(numerics, rule.numerics):
                record.rejected[not_allowed(rule.numerics, numerics)] += 1
                continue
            record.tried += 1
            location = operation.location.by(f"{maker}({rule.name})")
            outcome = rule.rewrite(operation, location)
            if isinstance(outcome, MatchFailure):
                record.rejected[outcome.reason] += 1
            elif outcome is not None:
                record.matched += 1
                changed, budget = True, budget - 1
                if budget < 0:
                    raise fail("rule.endless", f"rules undo one another at {operation!r}; the last was `{rule.name}`",
                               at=place_of_code(rule.function))  # fmt: skip
                touched = _insert(outcome)
                again = [other for other in touched if other.block is not None and other.name in by_root]
                waiting.update(dict.fromkeys(again))
                break
    return changed


def _insert(replacement: Replacement) -> list[Operation]:
    """Replace values and erase what became dead; returns the operations that rules should look at again."""
    values = replacement.values
    touched: dict[Operation, None] = {}
    pending = list(values.values())
    while pending:
        built = pending.pop().operation
        if built is not None and built in replacement.built and built not in touched:
            touched[built] = None
            pending += built.inputs
    names = [(old.name, value) for old, value in values.items() if not old.is_anonymous and value.is_anonymous]
    for old, value in values.items():
        touched.update(dict.fromkeys(old.users()))
        old.replace_uses(value)
    roots = list(dict.fromkeys(old.operation for old in values if old.operation is not None))
    around = [value.operation for root in roots for value in root.inputs if value.operation is not None]
    erase_dead(roots)
    for name, value in names:
        if value.block is not None:
            rename(value, name)
    return [*touched, *around]


def erase_dead(operations: Iterable[Operation]) -> None:
    """Erase operations that have no effect and no uses, and then what only they used."""
    pending = list(operations)
    while pending:
        operation = pending.pop()
        is_used = any(result.uses for result in operation.results)
        if operation.block is not None and not (is_used or operation.has_effect or operation.symbols):
            pending += [value.operation for value in operation.inputs if value.operation is not None]
            operation.erase()
