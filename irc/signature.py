"""The signature of a declaration: what its parameters say of an operation's operands and attributes.

`signature` reads it from a Python function: positional parameters are operands, and their annotations constrain element
types (`Float`, `Integer`, ... of a body; `FloatType`, `IntegerType`, ... of a type rule); keyword-only parameters are
attributes, with their types and defaults.
"""

from __future__ import annotations

import inspect
import types as python_types
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from irc.diagnostics import IrcError, fail
from irc.dtypes import DType
from irc.ir import Attribute, FunctionName, Value
from irc.types import TensorType
from irc.user_code import place_of_code

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Constraint:
    """The element types that an operand may have, by kind, with the words for an error."""

    kinds: frozenset[str]
    words: str

    def admits(self, dtype: DType) -> bool:
        return dtype.kind in self.kinds


_ANY = Constraint(frozenset({"float", "int", "uint", "bool", "complex", "string"}), "any element type")
_ANYTHING = Constraint(_ANY.kinds | {"opaque"}, "any type")
_FLOAT = Constraint(frozenset({"float"}), "a float type")
_FLOAT_OR_COMPLEX = Constraint(frozenset({"float", "complex"}), "a float or complex type")
INTEGER = Constraint(frozenset({"int", "uint"}), "an integer type")
BOOLEAN = Constraint(frozenset({"bool"}), "bool")
_NUMBER = Constraint(frozenset({"float", "int", "uint", "complex"}), "a number type")
_REAL = Constraint(frozenset({"float", "int", "uint"}), "a real number type")
_BITS = Constraint(frozenset({"int", "uint", "bool"}), "an integer type or bool")

# Operands of a body ...
AnyTensor = Annotated[Value, _ANY]
Float = Annotated[Value, _FLOAT]
Integer = Annotated[Value, INTEGER]
Number = Annotated[Value, _NUMBER]
Real = Annotated[Value, _REAL]
# ... and of a type rule.
AnyType = Annotated[TensorType, _ANY]
AnythingType = Annotated[TensorType, _ANYTHING]
FloatType = Annotated[TensorType, _FLOAT]
FloatOrComplexType = Annotated[TensorType, _FLOAT_OR_COMPLEX]
IntegerType = Annotated[TensorType, INTEGER]
BooleanType = Annotated[TensorType, BOOLEAN]
NumberType = Annotated[TensorType, _NUMBER]
RealType = Annotated[TensorType, _REAL]
BitsType = Annotated[TensorType, _BITS]


@dataclass(frozen=True)
class OperandSpec:
    """A positional parameter of a declaration. `variadic` ones come last and take any number."""

    name: str
    constraint: Constraint
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True)
class AttributeSpec:
    """A keyword-only parameter: its Python annotation, and the default (`REQUIRED` where there is none)."""

    name: str
    annotation: Any
    default: Any = REQUIRED

    def coerce(self, value: Any) -> Attribute:
        """The canonical form of a value given from Python or text; raises `type.attribute`."""
        try:
            return _coerce(self.annotation, value)
        except (TypeError, ValueError, KeyError):
            expected = getattr(self.annotation, "__name__", None) or str(self.annotation)
            if typing.get_origin(self.annotation) is Literal:
                expected = " or ".join(map(repr, typing.get_args(self.annotation)))
            raise fail(
                "type.attribute", f"attribute `{self.name}` cannot be {value!r}", expected=expected.replace("irc.", "")
            ) from None


def _coerce(annotation: Any, value: Any) -> Attribute:
    """The value in the form that an annotation requires; raises TypeError or ValueError when it does not fit."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, python_types.UnionType):
        for candidate in arguments:
            with suppress(TypeError, ValueError):
                return _coerce(candidate, value)
        raise TypeError
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_coerce(kind, part) for kind, part in zip(kinds, value, strict=True))
    if dict in (annotation, origin):
        return dict(value)
    if annotation in (int, float) and isinstance(value, bool):
        raise TypeError
    if annotation is float and isinstance(value, (int, float)):
        return float(value)
    if annotation is int and hasattr(value, "__index__"):
        return int(value.__index__())
    if annotation is FunctionName and isinstance(value, str):
        return FunctionName(value)
    if annotation is Any or isinstance(value, annotation):  # which raises for what has arguments
        return value
    raise TypeError


def signature(function: Callable[..., Any]) -> tuple[tuple[OperandSpec, ...], dict[str, AttributeSpec]]:
    """The operands and attributes of a declaration."""
    hints = typing.get_type_hints(function, include_extras=True)
    operands, attributes = [], {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in ("declared", "regions"):
                attributes[parameter.name] = AttributeSpec(parameter.name, hint, parameter.default)
            continue
        optional = parameter.default is None or type(None) in typing.get_args(hint)
        constraints = [hint, *typing.get_args(hint)]
        parts = [part for c in constraints for part in getattr(c, "__metadata__", ()) if isinstance(part, Constraint)]
        constraint = parts[0] if parts else next((c for c in constraints if isinstance(c, Constraint)), _ANY)
        variadic = parameter.kind is parameter.VAR_POSITIONAL
        operands.append(OperandSpec(parameter.name, constraint, optional, variadic))
    return tuple(operands), attributes


def check_declaration(function: Callable[..., Any]) -> None:
    """Raise `op.declaration` for annotations of operands that say nothing, and defaults that are no such attribute."""
    hints = typing.get_type_hints(function, include_extras=True)
    if inspect.isclass(function):
        at = place_of_code(function)
        raise fail("op.declaration", f"`{function.__name__}` is a class", at=at, expected="a function")
    for parameter in inspect.signature(function).parameters.values():
        hint, at = hints.get(parameter.name, Value), place_of_code(function)
        what = f"`{function.__name__}`: the parameter `{parameter.name}`"
        if parameter.kind is parameter.VAR_KEYWORD:
            raise fail("op.declaration", f"{what} takes any keyword", at=at, expected="one for each attribute")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parts = [part for part in (hint, *typing.get_args(hint)) if part is not type(None)]
            if not any(part in (Value, TensorType) or isinstance(part, Constraint) for part in parts):
                raise fail("op.declaration", f"{what} is an operand, and annotated {hint}", at=at,
                           expected="Float, Integer, Number, AnyTensor, ... of irc.op",
                           help="attributes are keyword-only: write them after `*`")  # fmt: skip
        elif parameter.default not in (REQUIRED, None):
            try:
                AttributeSpec(parameter.name, hint).coerce(parameter.default)
            except IrcError as error:
                expected = error.diagnostics[0].expected
                message = f"{what} has the default {parameter.default!r}"
                raise fail("op.declaration", message, at=at, expected=expected) from None
