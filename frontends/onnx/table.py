"""How a row of the operator tables is written, and how a node is laid out for it.

A row is a small function whose signature is the operator's schema in ONNX: positional parameters are inputs (a default
of None: optional), keyword-only parameters are attributes with their defaults. It calls operations of irc and returns
the value, or several.

    @reads("Squeeze", since=13)
    def squeeze(data, axes=None, /): ...

    @reads("Squeeze")                          # before opset 13 the axes are an attribute
    def squeeze_by_attribute(data, /, *, axes: Ints | None = None): ...

Of the rows of an operator the newest that the model's opset has is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from irc.diagnostics import fail
from irc.dtypes import F64, single
from irc.ir import Value
from irc.op import REQUIRED, OperationDefinition

if TYPE_CHECKING:
    from types import ModuleType

# What an attribute is in ONNX (AttributeProto.AttributeType), by the annotation in a row.
Ints = tuple[int, ...]
Floats = tuple[float, ...]
Strings = tuple[str, ...]
KINDS = {"float": "FLOAT", "int": "INT", "str": "STRING", "Tensor": "TENSOR", "Floats": "FLOATS", "Ints": "INTS",
         "Strings": "STRINGS", "TypeProto": "TYPE_PROTO"}


@dataclass(frozen=True)
class Schema:
    """Inputs, each with its name and whether it is optional; whether any number may follow; and attributes, by name
    their kind and default."""

    inputs: list[tuple[str, bool]]
    variadic: bool
    attributes: dict[str, tuple[str, Any]]


def _schema_of_signature(function: Callable[..., Any]) -> Schema:
    parameters = inspect.signature(function).parameters.values()
    return Schema([(each.name, each.default is None) for each in parameters
                   if each.kind not in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)],
                  any(each.kind is each.VAR_POSITIONAL for each in parameters),
                  {each.name: (KINDS[each.annotation.removesuffix(" | None")], each.default) for each in parameters
                   if each.kind is each.KEYWORD_ONLY})  # fmt: skip


def _schema_of_operation(definition: OperationDefinition) -> Schema:
    """The operation has the very schema of the operator, names and defaults of attributes included."""
    operands = definition.operand_specs
    return Schema([(spec.name, spec.optional) for spec in operands if not spec.variadic],
                  bool(operands) and operands[-1].variadic,
                  {name: (KINDS[spec.annotation if isinstance(spec.annotation, str) else spec.annotation.__name__],
                          spec.default) for name, spec in definition.attribute_specs.items()})  # fmt: skip


class Row:
    """One operator of ONNX from one opset on, and the function that reads it."""

    def __init__(self, function: Callable[..., Any], op_type: str, since: int, domain: str) -> None:
        self.function = function
        self.op_type = op_type
        self.since = since
        self.domain = domain

    @cached_property
    def schema(self) -> Schema:
        """Read when it is first needed: a model has few of the operators."""
        if isinstance(self.function, OperationDefinition):
            return _schema_of_operation(self.function)
        return _schema_of_signature(self.function)

    def read(self, operands: Sequence[Any], attributes: Mapping[str, tuple[str, Any]]) -> Any:
        """Call the row on operands (None: absent) and attributes (kind and value); raises `onnx.invalid`."""
        inputs = self.schema.inputs
        padded = list(operands) + [None] * (len(inputs) - len(operands))
        if len(padded) > len(inputs) and not self.schema.variadic:
            raise fail("onnx.invalid", f"{self.op_type} has {len(operands)} inputs", expected=f"at most {len(inputs)}")
        for (name, is_optional), operand in zip(inputs, padded, strict=False):
            if operand is None and not is_optional:
                raise fail("onnx.invalid", f"{self.op_type}: input `{name}` is missing")
        values = {}
        wide = any(isinstance(operand, Value) and operand.dtype is F64 for operand in operands)
        for name, (kind, default) in self.schema.attributes.items():
            given, value = attributes.get(name, (kind, default))
            if given != kind:
                raise fail("onnx.invalid", f"{self.op_type}: attribute `{name}` is of kind {given}", expected=kind)
            if value is REQUIRED:
                raise fail("onnx.invalid", f"{self.op_type}: attribute `{name}` is missing")
            values[name] = exact(value) if wide else value
        return self.function(*padded, **values)


def exact(value: Any) -> Any:
    """A float attribute as the f32 that it is; only in f64 does that differ from the shortest decimal number, as which
    it is read."""
    if isinstance(value, tuple):
        return tuple(map(exact, value))
    return single(value) if isinstance(value, float) else value


def reads(op_type: str, *, since: int = 1, domain: str = "") -> Callable[[Callable[..., Any]], Row]:
    """Declare the row of an operator from opset `since` on."""
    return lambda function: Row(function, op_type, since, domain)


class Table:
    """The rows of some modules: by domain and operator, newest first."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self.rows: dict[tuple[str, str], list[Row]] = {}
        for module in modules:
            for item in vars(module).values():
                for row in item if isinstance(item, list) else [item]:
                    if isinstance(row, Row):
                        self.rows.setdefault((row.domain, row.op_type), []).append(row)
        for rows in self.rows.values():
            rows.sort(key=lambda row: -row.since)

    def find(self, domain: str, op_type: str, opset: int) -> Row | None:
        """The row that reads this operator at this opset."""
        return next((row for row in self.rows.get((domain, op_type), ()) if row.since <= opset), None)
