"""Patterns: the structure that a Python function over operations describes, and finding it in a graph.

A pattern is read without types: its leaves have none, and what the function asks of them (`x.shape`) stands for
anything. `Pattern.matches` finds the structure; reading the function again on what was found gives types, and
`Pattern.difference` says whether attributes, constants and types then agree. Rules (`irc.rewrite`) and groups
(`irc.policy`) are both written as patterns.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from irc.diagnostics import fail
from irc.dtypes import STRING, DType
from irc.equality import same_attributes
from irc.interfaces import Trait
from irc.ir import Block, Operation, Value
from irc.op import Builder, OperationDefinition, const
from irc.types import TensorType
from irc.user_code import blaming, place_of_code

TOLERANCE = 2e-6  # constants are written with six or seven digits: 0.797885, 1.4142135
TOLERANCE_OF_F64 = 1e-13  # of which six digits are another function


def tolerance_of(bits: int) -> float:
    """How far, relatively, a constant in a float type of this width may be from that of a pattern."""
    return TOLERANCE if bits < 64 else TOLERANCE_OF_F64


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
        raise TypeError(f"{self.words} is not known while the pattern is read: decide on it in a guard, or return the "
                        "replacement as a function without parameters")

    __bool__ = __iter__ = __len__ = __index__ = __int__ = __float__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__


class Wildcard(Unknown):
    """A keyword-only parameter of a rule: an attribute that is bound when the pattern matches."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the attribute `{name}`")
        self.name = name


_UNTYPED = DType("any", 11, 64, "float", "float64")  # numbers in a pattern are kept in full precision
_NO_TYPE = TensorType(_UNTYPED, None)


class PatternValue(Value):
    """A value of a pattern: a leaf, or a result of one of its operations. It has no type."""

    __slots__ = ()

    @property
    def shape(self) -> Any:
        return Unknown(f"the shape of `{self.name or 'an intermediate'}`")

    @property
    def rank(self) -> Any:
        return Unknown(f"the rank of `{self.name or 'an intermediate'}`")


class PatternNumber(PatternValue):
    """A number of a pattern that is an attribute: it matches a constant, and binds the attribute to its number."""

    __slots__ = ("wildcard",)

    def __init__(self, block: Block, wildcard: Wildcard) -> None:
        super().__init__(_NO_TYPE, block, 0, wildcard.name)
        self.wildcard = wildcard


class PatternBuilder(Builder):
    """Records operations without inferring types."""

    def unknown_number(self, operand: object) -> Value | None:
        return PatternNumber(self.block, operand) if isinstance(operand, Wildcard) else None

    def create(self, definition: OperationDefinition, operands: Sequence[Value | None], attributes: Any = None,
               **_: Any) -> Operation:
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


def _is_free(attribute: Any) -> bool:
    if isinstance(attribute, tuple | list):
        return any(map(_is_free, attribute))
    return isinstance(attribute, Unknown) or attribute is _UNTYPED


def _result_count(definition: OperationDefinition, attributes: Mapping[str, Any]) -> int:
    """How many results an operation has, without its types: from what its declaration returns."""
    if definition.name == "split" and not isinstance(attributes["sizes"], Unknown):
        return len(attributes["sizes"])
    returned = typing.get_type_hints(definition.source_function).get("return")
    return len(typing.get_args(returned)) if typing.get_origin(returned) is tuple else 1


# -- patterns --------------------------------------------------------------------------------------------------


def values_of(name: str, side: Any) -> list[Value]:
    """What a pattern's function returned, as a list of values; raises `rule.raised` for anything else."""
    values = list(side) if isinstance(side, tuple | list) else [side]
    for value in values:
        if not isinstance(value, Value):
            raise fail("rule.raised", f"`{name}` returned {value!r}", expected="values made by operations")
    return values


@dataclass(frozen=True)
class Match:
    """Where a pattern was found: what stands for its leaves and intermediates, and for its wildcards."""

    values: Mapping[Value, Value] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Pattern:
    """The structure that a function over operations describes.

    `exact` wants constants to the last bit. `read` picks the pattern's values from what the function returned.
    """

    def __init__(self, function: Callable[..., Any], exact: bool = False,
                 read: Callable[[str, Any], list[Value]] = values_of) -> None:
        parameters = inspect.signature(function).parameters.values()
        self.name = function.__name__
        self.exact = exact
        for each in parameters:
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or each.default is not each.empty:
                raise fail("rule.raised", f"`{self.name}`: `{each}` among its parameters", at=place_of_code(function),
                           expected="leaves, and after `*` attributes, that stand for one thing each and have no "
                                    "default")  # fmt: skip
        self.leaf_names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.attribute_names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        block = Block()
        self.leaves = [PatternValue(_NO_TYPE, block, index, name) for index, name in enumerate(self.leaf_names)]
        wildcards = {name: Wildcard(name) for name in self.attribute_names}
        with blaming("rule.raised", f"`{self.name}` could not be read as a pattern", function), PatternBuilder(block):
            self.results = read(self.name, function(*self.leaves, **wildcards))
        operations = [result.operation for result in self.results if result.operation is not None]
        if not operations or len(operations) < len(self.results):
            raise fail("rule.raised", f"the pattern of `{self.name}` is a bare leaf",
                       at=place_of_code(function), expected="an operation")  # fmt: skip
        self.root = operations[0]

    @property
    def root_names(self) -> list[str]:
        """The names of the operations at which the pattern may be found."""
        normal = None if self.exact else NORMAL.get(self.root.name)
        return [name for name in NORMAL if NORMAL[name] == normal] or [self.root.name]

    def matches(self, operation: Operation) -> Iterator[Match]:
        """Every way in which the structure is found at `operation`."""
        matched = self._operation(self.root, operation, Match())
        for result in self.results[1:]:
            matched = chain.from_iterable(map(partial(self._further_result, result), matched))
        return matched

    def _further_result(self, pattern: Value, match: Match) -> Iterator[Match]:
        """A result after the first is searched among the users of bound values."""
        if pattern.operation is None or pattern in match.values:
            yield match
            return
        known = [match.values[operand] for operand in pattern.operation.inputs if operand in match.values]
        for user in dict.fromkeys(user for value in known for user in value.users()):
            yield from self._operation(pattern.operation, user, match)

    def _value(self, pattern: Operand, value: Operand, match: Match) -> Iterator[Match]:
        """Every way in which an operand of the pattern is one of the graph; both may be absent, or bare numbers."""
        if pattern is None or value is None:
            if pattern is value:
                yield match
        elif isinstance(pattern, float) or (pattern.operation is not None and pattern.operation.definition is const):
            if self._same_number(constant_of(pattern), constant_of(value)):
                yield match
        elif isinstance(pattern, PatternNumber):
            number = _shortest(constant_of(value))
            attributes = {pattern.wildcard.name: number, **match.attributes}
            if number is not None and same_attributes(number, attributes[pattern.wildcard.name]):
                yield replace(match, attributes=attributes)
        elif isinstance(value, float):
            return
        elif pattern in match.values:
            if match.values[pattern] is value:
                yield match
        elif pattern.operation is None:  # a leaf
            yield replace(match, values={**match.values, pattern: value})
        elif value.operation is not None and value.index == pattern.index:
            yield from self._operation(pattern.operation, value.operation, match)

    def _operation(self, pattern: Operation, operation: Operation, match: Match) -> Iterator[Match]:
        """Every way in which the operations agree: as they are written, or both in their normal form."""
        spellings = [(_as_written(pattern), _as_written(operation))]
        normal = _normal_form(pattern), _normal_form(operation)
        if not self.exact and normal not in spellings:
            spellings.append(normal)
        attributes = self._attributes(pattern, operation, match) if pattern.name == operation.name else match.attributes
        for (wanted_name, wanted_operands), (name, operands) in spellings:
            if wanted_name != name or len(wanted_operands) != len(operands) or attributes is None:
                continue
            bound = {**match.values, **dict(zip(pattern.results, operation.results, strict=False))}
            commutes = Trait.COMMUTATIVE in pattern.definition.traits or name in NORMAL.values()
            for order in (operands, operands[::-1])[: 2 if commutes and len(operands) == 2 else 1]:
                matches = iter([Match(bound, attributes)])
                for pair in zip(wanted_operands, order, strict=True):
                    matches = chain.from_iterable(map(partial(self._value, *pair), matches))
                yield from matches

    def _attributes(self, pattern: Operation, operation: Operation, match: Match) -> Mapping[str, Any] | None:
        """The wildcards with those that are bound here, or None where known attributes differ."""
        bound = dict(match.attributes)
        for name, attribute in pattern.attributes.items():
            if isinstance(attribute, Wildcard):
                attribute = bound.setdefault(attribute.name, operation.attributes[name])
            if not _is_free(attribute) and not _same_attribute(name, attribute, operation):
                return None
        return bound

    def _same_number(self, expected: Any, actual: Any) -> bool:
        if expected is None or actual is None:
            return False
        if self.exact:
            return bool(actual == np.asarray(expected).astype(actual.dtype))
        tolerance = tolerance_of(actual.dtype.itemsize * 8) if actual.dtype.kind == "f" else TOLERANCE
        return bool(np.isclose(complex(actual), complex(expected), rtol=tolerance, atol=0, equal_nan=True))

    def difference(self, typed: Sequence[Value], match: Match) -> str | None:
        """Why the pattern, read again at the graph's types, is not what was matched; None when it is."""
        pending = list(zip(self.results, typed, strict=True))
        while pending:
            first, again = pending.pop()
            if first.operation is None or first.operation.definition is const:
                continue
            value = match.values[first]
            if again.operation is None or again.operation.definition is not first.operation.definition:
                return "the pattern reads differently at these types"
            if again.type != value.type:
                return f"%{value.name} is {value.type}, not {again.type}"
            operation = value.operation
            if operation is not None and operation.name == again.operation.name:
                for name, attribute in again.operation.attributes.items():
                    if not _same_attribute(name, attribute, operation):
                        return f"{operation.name} has {name} = {operation.attributes[name]}, not {attribute}"
            operands = zip(first.operation.operands, again.operation.operands, strict=True)
            pending += [(old, new) for old, new in operands if old is not None and new is not None]
        return None


def already_computed(values: Sequence[Value], again: Sequence[Value], block: Block) -> bool:
    """Whether `again`, as computed in `block`, are pairwise what computes `values`: the same operations, of the same
    values from outside of the block."""
    pending, compared = list(zip(values, again, strict=True)), set[tuple[Value, Value]]()
    while pending:
        one, other = pending.pop()
        if one is other or (one, other) in compared:
            continue
        compared.add((one, other))
        first, second = one.operation, other.operation
        if first is None or second is None or second.block is not block or second.regions or second.has_effect:
            return False
        if first.definition is not second.definition or not same_attributes(first.attributes, second.attributes):
            return False
        if one.index != other.index or one.type != other.type or len(first.operands) != len(second.operands):
            return False
        for operand, counterpart in zip(first.operands, second.operands, strict=True):
            if operand is None or counterpart is None:
                if operand is not counterpart:
                    return False
            else:
                pending.append((operand, counterpart))
    return True


# -- what is compared ------------------------------------------------------------------------------------------

Operand = Value | float | None
NORMAL = {"add": "add", "sub": "add", "mul": "mul", "div": "mul", "neg": "mul", "pow": "mul"}


def _as_written(operation: Operation) -> tuple[str, list[Operand]]:
    return operation.name, list(operation.operands)


def _normal_form(operation: Operation) -> tuple[str, list[Operand]]:
    """One way to write what floats have several for: x + -2 for x - 2, x * 0.5 for x / 2, x * x for x ** 2."""
    name, operands = _as_written(operation)
    if name in NORMAL and operation.result.dtype.is_float:
        x, number = operands[0], constant_of(operands[-1])
        if name == "neg":
            return "mul", [x, -1.0]
        if name == "sub" and number is not None:
            return "add", [x, -float(number)]
        if name == "div" and number:
            return "mul", [x, 1 / float(number)]
        if name == "pow" and number == 2:
            return "mul", [x, x]
    return name, operands


def _same_attribute(name: str, expected: Any, operation: Operation) -> bool:
    """Whether an operation has this attribute; axes counted from the end are those counted from the front."""
    actual = operation.attributes[name]
    if name not in ("axis", "axes") or not operation.inputs or not operation.inputs[0].type.is_ranked:
        return same_attributes(expected, actual)
    rank = max(operation.inputs[0].rank, 1)

    def from_the_front(axes: Any) -> Any:
        return tuple(axis % rank for axis in axes) if isinstance(axes, tuple) else axes % rank

    return same_attributes(from_the_front(expected), from_the_front(actual))


def _shortest(number: Any) -> Any:
    """A NumPy scalar as the Python number of fewest digits that it is the nearest of its type to: 0.1 for f32's."""
    if number is None or number.dtype.kind in "biuc":
        return None if number is None else number.item()
    text = str(number)
    return float(text) if np.asarray(float(text)).astype(number.dtype) == number else float(number)


def constant_of(value: Operand) -> Any:
    """The one number that a constant holds everywhere, as a NumPy scalar; None for other values."""
    if value is None or isinstance(value, float):
        return value if value is None else np.float64(value)
    if value.operation is None or value.operation.definition is not const:
        return None
    tensor = value.operation.attributes["value"]
    return None if tensor.dtype is STRING or not tensor.is_splat() else tensor.array().reshape(-1)[0]
