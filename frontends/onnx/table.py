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


class Row:
    """One operator of ONNX from one opset on, and the function that reads it."""

    def __init__(self, function: Callable[..., Any], op_type: str, since: int, domain: str) -> None:
        self.function = function
        self.op_type = op_type
        self.since = since
        self.domain = domain
        self.inputs: list[tuple[str, bool]] = []  # name, and whether it is optional
        self.variadic = False
        self.attributes: dict[str, tuple[str, Any]] = {}  # name: kind and default
        if isinstance(function, OperationDefinition):
            self._take_schema(function)
        else:
            self._take_signature(function)

    def _take_signature(self, function: Callable[..., Any]) -> None:
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                kind = KINDS[parameter.annotation.removesuffix(" | None")]
                self.attributes[parameter.name] = kind, parameter.default
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self.variadic = True
            else:
                self.inputs.append((parameter.name, parameter.default is None))

    def _take_schema(self, definition: OperationDefinition) -> None:
        """The operation has the very schema of the operator, names and defaults of attributes included."""
        self.variadic = bool(definition.operand_specs) and definition.operand_specs[-1].variadic
        self.inputs = [(spec.name, spec.optional) for spec in definition.operand_specs if not spec.variadic]
        for name, spec in definition.attribute_specs.items():
            annotation = spec.annotation if isinstance(spec.annotation, str) else spec.annotation.__name__
            self.attributes[name] = KINDS[annotation], spec.default

    def read(self, operands: Sequence[Any], attributes: Mapping[str, tuple[str, Any]]) -> Any:
        """Call the row on operands (None: absent) and attributes (kind and value); raises `onnx.invalid`."""
        padded = list(operands) + [None] * (len(self.inputs) - len(operands))
        if len(padded) > len(self.inputs) and not self.variadic:
            raise fail("onnx.invalid", f"{self.op_type} has {len(operands)} inputs",
                       expected=f"at most {len(self.inputs)}")
        for (name, is_optional), operand in zip(self.inputs, padded, strict=False):
            if operand is None and not is_optional:
                raise fail("onnx.invalid", f"{self.op_type}: input `{name}` is missing")
        values = {}
        wide = any(isinstance(operand, Value) and operand.dtype is F64 for operand in operands)
        for name, (kind, default) in self.attributes.items():
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
