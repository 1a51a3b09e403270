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
spellings: x / 2 is x * 0.5, x - 2 is x + -2, -x is x * -1, x ** 2 is x * x. Several results are a tuple on both
sides. What `@simplify` declares is a rule for one operation, in plain Python.
"""

from __future__ import annotations

import inspect
import typing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from irc import dims
from irc.diagnostics import IrcError, Location, fail
from irc.dtypes import DType
from irc.ir import Block, Function, Operation, Value, dominates, rename, same_attributes
from irc.op import Builder, OperationDefinition, const
from irc.pass_manager import Numerics, allows
from irc.types import TensorType
from irc.user_code import blaming
from irc.weights import INLINE_LIMIT

TOLERANCE = 2e-6  # constants are written with six or seven digits: 0.797885, 1.4142135
REWRITES_PER_OPERATION = 50  # more than any chain of sensible rules needs; then rules undo one another

Guard = Callable[..., "bool | str"]


@dataclass
class RuleStatistics:
    """What became of a rule: how often its root operation was seen, its pattern matched, and why it was refused."""

    tried: int = 0
    matched: int = 0
    refused: Counter[str] = field(default_factory=Counter)


# -- reading a pattern without types ---------------------------------------------------------------------------


class Unknown:
    """What a pattern asks of a leaf before types are known: it stands for anything, and nothing follows from it."""

    def __init__(self, words: str) -> None:
        self.words = words

    def _more(self, *_: Any, **__: Any) -> Unknown:
        return self

    __getattr__ = __getitem__ = __call__ = _more
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _more
    __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __pow__ = _more

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self.words} is not known while the pattern is read: decide on it in a guard, or return the "
            "replacement as a function without parameters"
        )

    __bool__ = __iter__ = __len__ = __index__ = __int__ = __float__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__


class Wildcard(Unknown):
    """A keyword-only parameter of a rule: an attribute that is bound when the pattern matches."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the attribute `{name}`")
        self.name = name


_UNTYPED = DType("any", 11, 64, "float", "float64")  # numbers in a pattern are kept in full precision


class PatternValue(Value):
    """A value of a pattern: a leaf, or a result of one of its operations. It has no type."""

    __slots__ = ()

    @property
    def dtype(self) -> Any:
        return _UNTYPED

    @property
    def shape(self) -> Any:
        return Unknown(f"the shape of `{self.name or 'an intermediate'}`")

    @property
    def rank(self) -> Any:
        return Unknown(f"the rank of `{self.name or 'an intermediate'}`")


class PatternBuilder(Builder):
    """Records operations without inferring types."""

    def create(
        self, definition: OperationDefinition, operands: Sequence[Value | None], attributes: Any = None, **_: Any
    ) -> Operation:
        given = dict(attributes or {})
        if not given.keys() <= definition.attribute_specs.keys():
            definition.normalize(given)  # raises
        normal = {name: spec.default for name, spec in definition.attribute_specs.items()}
        for name, value in given.items():
            normal[name] = value if _is_free(value) else definition.attribute_specs[name].coerce(value)
        operation = Operation(definition, operands, normal, location=self.location)
        count = _result_count(definition, given)
        operation.results = [PatternValue(_NO_TYPE, operation, index) for index in range(count)]
        return self.block.append(operation)


_NO_TYPE = TensorType(_UNTYPED, None)


def _is_free(attribute: Any) -> bool:
    if isinstance(attribute, tuple | list):
        return any(map(_is_free, attribute))
    return isinstance(attribute, Unknown) or attribute is _UNTYPED


def _result_count(definition: OperationDefinition, attributes: dict[str, Any]) -> int:
    """How many results an operation has, without its types: from what its declaration returns."""
    if definition.name == "split" and not isinstance(attributes["sizes"], Unknown):
        return len(attributes["sizes"])
    returned = typing.get_type_hints(definition.source_function).get("return")
    parts = typing.get_args(returned) if typing.get_origin(returned) is tuple else (returned,)
    return len(parts)


# -- patterns --------------------------------------------------------------------------------------------------


@dataclass
class Match:
    """Where a pattern was found: what stands for its leaves and attributes, and the operations it covers."""

    values: dict[Value, Value] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    operations: dict[Operation, Operation] = field(default_factory=dict)


class Pattern:
    """The structure that a function over operations describes. `exact` wants constants to the last bit."""

    def __init__(self, function: Callable[..., Any], read: Callable[[Any], list[Value]], exact: bool) -> None:
        parameters = inspect.signature(function).parameters.values()
        self.name = function.__name__
        self.exact = exact
        self.leaf_names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.attribute_names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        block = Block()
        self.leaves = [PatternValue(_NO_TYPE, block, index, name) for index, name in enumerate(self.leaf_names)]
        wildcards = {name: Wildcard(name) for name in self.attribute_names}
        with blaming("rule.raised", f"`{self.name}` could not be read as a pattern"), PatternBuilder(block):
            self.results = read(function(*self.leaves, **wildcards))
        root = self.results[0].operation
        if root is None:
            raise fail("rule.raised", f"the pattern of `{self.name}` is a bare leaf", expected="an operation")
        self.root = root

    def matches(self, operation: Operation) -> Iterator[Match]:
        """Every way in which the structure is found at `operation`."""
        for match in self._operation(self.root, operation, Match()):
            yield from self._further_results(self.results[1:], match)

    def _value(self, pattern: Value | None, value: Value | float | None, match: Match) -> Iterator[Match]:
        if pattern is None or value is None:
            if pattern is value:
                yield match
        elif isinstance(value, float):  # a number that stands in the graph in another spelling
            if pattern.operation is not None and self._same_number(pattern.operation, value):
                yield match
        elif pattern.operation is None:  # a leaf
            bound = match.values.get(pattern)
            if bound is None:
                yield replace(match, values={**match.values, pattern: value})
            elif bound is value:
                yield match
        elif value.operation is not None and value.index == pattern.index:
            yield from self._operation(pattern.operation, value.operation, match)

    def _operation(self, pattern: Operation, operation: Operation, match: Match) -> Iterator[Match]:
        bound = match.operations.get(pattern)
        if bound is not None:
            if bound is operation:
                yield match
            return
        if pattern.definition is const:
            if operation.definition is const and self._same_number(pattern, constant_of(operation.result)):
                yield replace(match, operations={**match.operations, pattern: operation})
            return
        spellings: list[tuple[str, Sequence[Value | float | None]]] = [(operation.name, operation.operands)]
        # What this rule has written itself is taken as it stands, or x * 0.5 -> x / 2 would go on for ever.
        is_own = operation.location.made_by[-1:] and operation.location.made_by[-1].endswith(f"({self.name})")
        for name, operands in spellings if self.exact or is_own else spellings + _respelled(operation):
            if pattern.name != name or len(pattern.operands) != len(operands):
                continue
            attributes = dict(match.attributes)
            if name == operation.name and not self._attributes(pattern, operation, attributes):
                continue
            start = Match(match.values, attributes, {**match.operations, pattern: operation})
            definition: Any = pattern.definition
            yield from self._operands(pattern.operands, operands, start)
            if "commutative" in definition.traits and len(operands) == 2:
                yield from self._operands(pattern.operands, operands[::-1], start)

    def _attributes(self, pattern: Operation, operation: Operation, bound: dict[str, Any]) -> bool:
        """Whether attributes agree as far as they are known; binds the wildcards."""
        for name, wanted in pattern.attributes.items():
            found = operation.attributes[name]
            if isinstance(wanted, Wildcard):
                if not same_attributes(bound.setdefault(wanted.name, found), found):
                    return False
            elif not _is_free(wanted) and not _same_attribute(name, wanted, found, operation):
                return False
        return True

    def _operands(self, patterns: Values, values: Sequence[Value | float | None], match: Match) -> Iterator[Match]:
        if not patterns:
            yield match
            return
        for first in self._value(patterns[0], values[0], match):
            yield from self._operands(patterns[1:], values[1:], first)

    def _further_results(self, results: Sequence[Value], match: Match) -> Iterator[Match]:
        """Find the results behind the first: at operations that use what is already bound."""
        if not results:
            yield match
            return
        root = results[0].operation
        if root is None or root in match.operations:
            yield from self._further_results(results[1:], match)
            return
        known = [_bound(operand, match) for operand in root.operands if operand is not None]
        for user in dict.fromkeys(user for value in known if value is not None for user in value.users()):
            for found in self._operation(root, user, match):
                yield from self._further_results(results[1:], found)

    def _same_number(self, pattern: Operation, found: Any) -> bool:
        if pattern.definition is not const or found is None:
            return False
        number = pattern.attributes["value"].array().item()
        if self.exact:
            return bool(found == np.asarray(number).astype(found.dtype))
        return bool(np.isclose(complex(found), complex(number), rtol=TOLERANCE, atol=0, equal_nan=True))

    def difference(self, typed: Sequence[Value], match: Match) -> str | None:
        """Why the pattern, read again at the graph's types, is not what was matched; None when it is."""
        pending = list(zip(self.results, typed, strict=True))
        while pending:
            first, again = pending.pop()
            if first.operation is None or first.operation.definition is const:
                continue
            found = match.operations[first.operation]
            if again.operation is None or again.operation.definition is not first.operation.definition:
                return "the pattern reads differently at these types"
            if again.type != found.results[again.index].type:
                return f"%{found.results[again.index].name} is {found.results[again.index].type}, not {again.type}"
            for name, attribute in again.operation.attributes.items() if found.name == again.operation.name else ():
                if not _same_attribute(name, attribute, found.attributes[name], found):
                    return f"{found.name} has {name} = {found.attributes[name]}, not {attribute}"
            for old, new in zip(first.operation.operands, again.operation.operands, strict=True):
                if old is not None and new is not None:
                    pending.append((old, new))
        return None


Values = Sequence["Value | None"]


RESPELLED = (("add", "sub"), ("mul", "div", "neg", "pow"))  # names under which one function is written


def _respelled(operation: Operation) -> list[tuple[str, Sequence[Value | float | None]]]:
    """Other ways to write an operation on floats: a name, and operands that may be numbers."""
    if operation.name not in ("add", "sub", "mul", "div", "neg", "pow") or not operation.results[0].dtype.is_float:
        return []
    x, *rest = operation.inputs
    if operation.name == "neg":
        return [("mul", [x, -1.0])]
    (y,) = rest
    if operation.name == "mul" and x is y:
        return [("pow", [x, 2.0])]
    result: list[tuple[str, Sequence[Value | float | None]]] = []
    for value, other in ((x, y), (y, x)) if operation.name in ("add", "mul") else ((x, y),):
        found = constant_of(other)
        number = None if found is None else float(found)
        if operation.name == "pow" and number == 2.0:
            result.append(("mul", [value, value]))
        elif operation.name in ("add", "sub") and number is not None:
            result.append(("sub" if operation.name == "add" else "add", [value, -number]))
        elif operation.name in ("mul", "div") and number:
            result.append(("div" if operation.name == "mul" else "mul", [value, 1 / number]))
            result += [("neg", [value])] if number == -1.0 else []
    return result


def find_groups(function: Function, pattern: Callable[..., Any]) -> list[list[Operation]]:
    """Where the pattern that a function returns is found: the operations of each place, constants left out."""
    structure = Pattern(pattern, lambda returned: _values(pattern.__name__, returned), exact=False)
    found = []
    for operation in function.walk():
        match = next(structure.matches(operation), None)
        if match is not None:
            found.append([member for member in match.operations.values() if member.definition is not const])
    return found


# -- rules -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """Why a rule that nearly applied does not."""

    reason: str


Outcome = dict[Value, Value] | Refused | None  # what replaces what; why not; or None: the pattern is not there


class Rule:
    """What all rules have: a name, a numerics class, and the names of the operations at which to try it."""

    def __init__(self, function: Callable[..., Any], numerics: Numerics, roots: Iterable[str]) -> None:
        self.function = function
        self.name = function.__name__
        self.numerics: Numerics = numerics
        self.doc = inspect.getdoc(function) or ""
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
        self.pattern = Pattern(function, lambda returned: _two_sides(function.__name__, returned)[0], exact)
        root = self.pattern.root.name
        respelled = () if exact else next((names for names in RESPELLED if root in names), ())
        super().__init__(function, numerics, dict.fromkeys((root, *respelled)))
        self.guards: dict[str, Guard] = {}
        self.samples: dict[str, Sequence[Any]] = {}

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

    def sampled(self, **choices: Sequence[Any]) -> PatternRule:
        """Attribute values that `irc check` may try, where it cannot think of good ones itself."""
        self.samples.update(choices)
        return self

    def refusal(self, named: dict[str, Any]) -> tuple[str, str] | None:
        """The first guard that says no to these leaves and attributes, and its reason."""
        for name, guard in self.guards.items():
            with blaming("rule.raised", f"guard `{name}` of `{self.name}` raised an exception"):
                verdict: Any = guard(*(named[parameter] for parameter in inspect.signature(guard).parameters))
            if isinstance(verdict, str) and verdict:
                return name, verdict
            if not isinstance(verdict, bool | np.bool_):
                raise fail("rule.guard", f"guard `{name}` of `{self.name}` returned {verdict!r}",
                           expected='True, or the reason why not: `condition or "the reason"`')  # fmt: skip
            if not verdict:
                return name, "no reason given"
        return None

    def rewrite(self, operation: Operation, location: Location) -> Outcome:
        refused: Refused | None = None
        for match in self.pattern.matches(operation):
            named = {leaf.name: match.values.get(leaf) for leaf in self.pattern.leaves} | match.attributes
            verdict = self.refusal(named)
            outcome = Refused(": ".join(verdict)) if verdict else self._replacement(match, named, location)
            if not isinstance(outcome, Refused):
                return outcome
            refused = refused or outcome
        return refused

    def _replacement(self, match: Match, named: dict[str, Any], location: Location) -> dict[Value, Value] | Refused:
        """Read the rule again on the graph's values, compare, and move the replacement into the graph."""
        old = [value for result in self.pattern.results if (value := _bound(result, match)) is not None]
        places = [value.operation for value in old if value.operation is not None]
        first = min(places, key=lambda place: place._order)
        same_block = all(place.block is first.block for place in places)
        if not same_block or not all(dominates(value, first) for value in match.values.values()):
            return Refused("an operand is computed after the first of the results")
        scratch = Block()
        try:
            builder = Builder(scratch, None, location)
            with builder, blaming("rule.raised", f"the rule `{self.name}` raised an exception"):
                pattern, new = self.both_sides(named)
            difference = self.pattern.difference(pattern, match) or self._type_difference(old, new)
            if difference is None:
                _move(scratch, new, first)
                return dict(zip(old, new, strict=True))
            return Refused(difference)
        except IrcError as error:
            if not error.code.startswith(("type.", "dim.")) or error.code == "rule.type":
                raise
            return Refused(f"does not type: {error.diagnostics[0].message}")
        finally:
            erase_dead(list(scratch))

    def both_sides(self, named: dict[str, Any]) -> tuple[list[Value], list[Value]]:
        """Pattern and replacement, built at the active builder on typed leaves."""
        leaves = [named[name] for name in self.pattern.leaf_names]
        attributes = {name: named[name] for name in self.pattern.attribute_names}
        pattern, new = _two_sides(self.name, self.function(*leaves, **attributes))
        return pattern, _values(self.name, new()) if callable(new) else new

    def _type_difference(self, old: Sequence[Value], new: Sequence[Value]) -> str | None:
        if len(old) != len(new):
            raise fail("rule.type", f"`{self.name}` replaces {len(old)} values by {len(new)}")
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
    return _values(name, pattern), new if callable(new) else _values(name, new)


def _values(name: str, side: Any) -> list[Value]:
    values = list(side) if isinstance(side, tuple | list) else [side]
    for value in values:
        if not isinstance(value, Value):
            raise fail("rule.raised", f"`{name}` returned {value!r}", expected="values made by operations")
    return values


def _bound(pattern: Value, match: Match) -> Value | None:
    if pattern.operation is None:
        return match.values.get(pattern)
    found = match.operations.get(pattern.operation)
    return None if found is None else found.results[pattern.index]


def _same_attribute(name: str, wanted: Any, found: Any, operation: Operation) -> bool:
    """Equality of attributes; axes counted from the end are those counted from the front."""
    if name not in ("axis", "axes") or not operation.inputs or not operation.inputs[0].type.is_ranked:
        return same_attributes(wanted, found)
    rank = max(operation.inputs[0].rank, 1)

    def from_the_front(axes: Any) -> Any:
        return tuple(axis % rank for axis in axes) if isinstance(axes, tuple) else axes % rank

    return same_attributes(from_the_front(wanted), from_the_front(found))


def _move(scratch: Block, values: Iterable[Value], before: Operation) -> None:
    """Move what computes `values` from a scratch block into the graph."""
    needed: set[Operation] = set()
    pending = [value.operation for value in values]
    while pending:
        operation = pending.pop()
        if operation is not None and operation.block is scratch and operation not in needed:
            needed.add(operation)
            pending += [operand.operation for operand in operation.inputs]
    assert before.block is not None
    for operation in scratch:
        if operation in needed:
            before.block.insert(scratch.remove(operation), before)


def constant_of(value: Value) -> Any:
    """The one number that a constant holds everywhere, as a NumPy scalar; None for other values."""
    if value.operation is None or value.operation.definition is not const:
        return None
    tensor = value.operation.attributes["value"]
    if tensor.dtype.kind == "string" or tensor.size == 0:
        return None
    if tensor.size > INLINE_LIMIT and not tensor.is_splat():
        return None
    array = tensor.array().reshape(-1)
    return array[0] if array.size == 1 or tensor.is_splat() else None


class SimplifyRule(Rule):
    """A rule declared by `@simplify`: plain Python about one operation.

    `examples` are programs in which it applies, `near_misses` those in which it must not; both are tested.
    """

    def __init__(self, function: Callable[..., Any], roots: Sequence[str], numerics: Numerics) -> None:
        super().__init__(function, numerics, roots)
        self.examples: list[tuple[Callable[..., Any], tuple[str, ...]]] = []
        self.near_misses: list[tuple[Callable[..., Any], tuple[str, ...]]] = []

    def example(self, program: Callable[..., Any], *types: str) -> None:
        """A program, as `irc.trace` takes it, in which the rule applies."""
        self.examples.append((program, types))

    def near_miss(self, program: Callable[..., Any], *types: str) -> None:
        """A program in which the rule must not apply."""
        self.near_misses.append((program, types))

    def rewrite(self, operation: Operation, location: Location) -> Outcome:
        builder = Builder.before_operation(operation, location)
        with builder, blaming("rule.raised", f"the rule `{self.name}` raised an exception"):
            found = self.function(operation)
        if found is None or isinstance(found, Refused):
            return found
        values = [found] if isinstance(found, Value) else list(found)
        return dict(zip(operation.results, values, strict=True))


def rewrite(*, numerics: Numerics) -> Callable[[Callable[..., Any]], PatternRule]:
    """Declare a rule by its pattern and its replacement; see the head of this module."""
    return lambda function: PatternRule(function, numerics)


def simplify(*roots: str, numerics: Numerics = "exact") -> Callable[[Callable[..., Any]], SimplifyRule]:
    """Declare a rule for operations of these names: `function(operation)` returns the value or values that replace
    the results (building what it needs), a `Refused`, or None. It must build nothing where it returns None."""
    return lambda function: SimplifyRule(function, roots, numerics)


# -- applying --------------------------------------------------------------------------------------------------


def apply_rules(
    function: Function,
    rules: Iterable[Rule],
    *,
    numerics: Numerics = "keeps_more_precision",
    statistics: dict[str, RuleStatistics] | None = None,
    maker: str = "rewrite",
) -> bool:
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
    queue = deque(operation for operation in function.walk() if operation.name in by_root)
    waiting = set(queue)
    budget = REWRITES_PER_OPERATION * (sum(1 for _ in function.walk()) + 1)
    changed = False
    while queue:
        operation = queue.popleft()
        waiting.discard(operation)
        if operation.block is None:
            continue
        for rule in by_root[operation.name]:
            record = statistics[rule.name]
            if not allows(numerics, rule.numerics):
                record.refused[f"--numerics {numerics} does not allow {rule.numerics}"] += 1
                continue
            record.tried += 1
            location = operation.location.by(f"{maker}({rule.name})")
            outcome = rule.rewrite(operation, location)
            if isinstance(outcome, Refused):
                record.refused[outcome.reason] += 1
            if outcome is None or isinstance(outcome, Refused):
                continue
            record.matched += 1
            changed, budget = True, budget - 1
            if budget < 0:
                raise fail("rule.endless", f"rules undo one another at {operation!r}; the last one was `{rule.name}`")
            for other in _put_in(outcome, location):
                if other.block is not None and other.name in by_root and other not in waiting:
                    waiting.add(other)
                    queue.append(other)
            break
    return changed


def _put_in(outcome: dict[Value, Value], location: Location) -> list[Operation]:
    """Replace values and erase what became dead; returns the operations that rules should look at again."""
    touched: list[Operation] = []
    pending = list(outcome.values())
    while pending:
        made = pending.pop().operation
        if made is not None and made.location is location and made not in touched:
            touched.append(made)
            pending += made.inputs
    names = [(old.name, value) for old, value in outcome.items() if not old.is_anonymous and value.is_anonymous]
    for old, value in outcome.items():
        touched += old.users()
        old.replace_uses(value)
    roots = list(dict.fromkeys(old.operation for old in outcome if old.operation is not None))
    touched += [value.operation for root in roots for value in root.inputs if value.operation is not None]
    erase_dead(roots)
    for name, value in names:
        if value.block is not None:
            rename(value, name)
    return touched


def erase_dead(operations: Iterable[Operation]) -> None:
    """Erase operations that have no effect and no uses, and then what only they used."""
    pending = list(operations)
    while pending:
        operation = pending.pop()
        if operation.block is None or operation.has_effect or operation.symbols:
            continue
        if any(result.uses for result in operation.results):
            continue
        inputs = [value.operation for value in operation.inputs if value.operation is not None]
        operation.erase()
        pending += inputs
