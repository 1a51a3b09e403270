"""Patterns: the structure that a Python function over operations describes, and finding it in a graph.

A pattern is read without types: its leaves have none, and what the function asks of them (`x.shape`) stands for
anything. `Pattern.matches` finds the structure; reading the function again on what was found gives types, and
`Pattern.difference` says whether attributes, constants and types then agree. Rules (`irc.rewrite`) and groups
(`irc.plan`) are both written as patterns.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from irc.diagnostics import fail
from irc.dtypes import DType
from irc.ir import Block, Function, Operation, Value, same_attributes
from irc.op import Builder, OperationDefinition, const
from irc.types import TensorType
from irc.user_code import blaming
from irc.weights import INLINE_LIMIT

TOLERANCE = 2e-6  # constants are written with six or seven digits: 0.797885, 1.4142135


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

    def _operands(self, patterns: _Values, values: Sequence[Value | float | None], match: Match) -> Iterator[Match]:
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
        known = [bound(operand, match) for operand in root.operands if operand is not None]
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


_Values = Sequence["Value | None"]
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
    structure = Pattern(pattern, lambda returned: values_of(pattern.__name__, returned), exact=False)
    found = []
    for operation in function.walk():
        match = next(structure.matches(operation), None)
        if match is not None:
            found.append([member for member in match.operations.values() if member.definition is not const])
    return found


# -- what is compared ------------------------------------------------------------------------------------------


def values_of(name: str, side: Any) -> list[Value]:
    """What a pattern's function returned, as a list of values; raises `rule.raised` for anything else."""
    values = list(side) if isinstance(side, tuple | list) else [side]
    for value in values:
        if not isinstance(value, Value):
            raise fail("rule.raised", f"`{name}` returned {value!r}", expected="values made by operations")
    return values


def bound(pattern: Value, match: Match) -> Value | None:
    """The value that stands for a leaf or an intermediate of the pattern."""
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
