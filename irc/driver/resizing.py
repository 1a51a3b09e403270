"""Programs of smaller extents: the same operations on slices of the same arrays."""

from __future__ import annotations

import typing
from typing import Any

from irc import dims
from irc.diagnostics import fail
from irc.driver.slicing import Part
from irc.ir import Definition, Function, Operation, Value
from irc.module import Module
from irc.types import TensorType
from irc.weights import Tensor


def resized(current: Part, old: int, new: int) -> Part:
    """The program with `new` for each extent that is `old`, in inputs, constants and the dims of attributes.

    Arrays are sliced to their first elements; an input without a rank gets its array's shape. Types are inferred again,
    which raises a coded error if the program does not allow the extent. Raises `type.operands` for regions and for
    operations with stated types.
    """
    main = current.module.main
    copy = Function(main.name, location=main.location)
    values: dict[Value, Value] = {}
    inputs: dict[str, Any] = {}
    for argument in main.arguments:
        array = current.inputs[argument.name]
        shape = tuple(new if dim == old else dim for dim in argument.type.shape or array.shape)
        values[argument] = copy.block.add_argument(TensorType(argument.dtype, shape), argument.name)
        inputs[argument.name] = _corner(array, old, new)
    for operation in main.block:
        definition = operation.definition
        if operation.regions or definition.has_declared_types:
            raise fail("type.operands", f"{operation.name} states the types of its results")
        operands = [None if operand is None else values[operand] for operand in operation.operands]
        attributes = _attributes(definition, operation.attributes, old, new)
        types = definition.infer([None if value is None else value.type for value in operands], attributes)
        names = [result.name for result in operation.results]
        resized_operation = Operation(definition, operands, attributes, types, names=names, location=operation.location)
        copy.block.append(resized_operation)
        values.update(zip(operation.results, resized_operation.results, strict=True))
    copy.result_names = main.result_names
    return Part(Module(current.module.name, [copy], current.module.edge_cases), inputs)


def _attributes(definition: Definition, attributes: dict[str, Any], old: int, new: int) -> dict[str, Any]:
    """Attributes with `old` dims replaced by `new`; the declaration determines which attributes are dims."""
    changed: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            array = _corner(value.array(), old, new)
            changed[name] = value if array.shape == value.shape else Tensor.of(array, value.dtype, value.name)
        elif isinstance(value, tuple) and _is_dim(definition.attribute_specs[name].annotation):
            changed[name] = tuple(new if part == old else part for part in value)
        else:
            changed[name] = value
    return changed


def _is_dim(annotation: Any) -> bool:
    return annotation == dims.Dim or any(map(_is_dim, typing.get_args(annotation)))


def _corner(array: Any, old: int, new: int) -> Any:
    import numpy as np

    return np.array(array[tuple(slice(new if size == old else None) for size in array.shape)], order="C")
