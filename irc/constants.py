"""Evaluation of operations whose operands are known before the program runs.

    results(operation, arrays)           tensors, by the interpreter: folding
    of_numbers(definition, arrays, ...)  numbers, by the declared reference: constants in kernels, masked lanes
    of_dims(definition, dims, ...)       dims, by the declared meaning of dims (`OperationDefinition.on_dims`)
    of_elements(operation, operands)     small arrays of numbers and dims, by whichever applies: shape analysis

An *element* is an int, a dim, a bool, a float, an undecided `Comparison` of dims, or None where nothing is known. Each
function answers None where an operation fails (an index out of range, a division by zero): it then fails when it runs,
where its place and inputs can be stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irc.diagnostics import IrcError
from irc.dims import DimError
from irc.interpreter import evaluate_operation
from irc.ir import Attribute, Definition, Operation, dims_in

Elements = NDArray[np.object_]
Arrays = Sequence[NDArray[Any] | None]


def results(operation: Operation, arrays: Arrays) -> tuple[NDArray[Any], ...] | None:
    """The results of any operation for arrays in operand order, None for an absent operand. Its attributes must not
    mention dims."""
    try:
        return evaluate_operation(operation, arrays, {})
    except IrcError:
        return None


def of_numbers(definition: Definition, arrays: Arrays,
               attributes: Mapping[str, Attribute]) -> tuple[NDArray[Any], ...] | None:  # fmt: skip
    """The results of a primitive for arrays, by its reference. They may have other element types than its operands:
    kernels compute in wider ones, and arrays of any objects can be moved."""
    try:
        with np.errstate(all="ignore"):
            return tuple(map(np.asarray, definition.evaluate(arrays, attributes)))
    except IrcError:
        return None


def of_dims(definition: Definition, operands: Sequence[Any], attributes: Mapping[str, Attribute]) -> Any:
    """The element that a primitive computes of elements, by its declared meaning; None also where it declares none."""
    if definition.of_dims is None:
        return None
    try:
        return definition.of_dims(*operands, **attributes)
    except DimError:
        return None


def of_elements(operation: Operation, operands: Sequence[Elements | None],
                is_open: bool = False) -> list[Elements] | None:  # fmt: skip
    """The elements of a primitive's results from those of its operands, which are all known as arrays, None for an
    absent one. `is_open`: the program leaves open what an integer divided by 0 is, as ONNX does."""
    definition, attributes = operation.definition, operation.attributes
    if not dims_in(attributes) and definition.has_reference:
        try:
            arrays = _as_numbers(operation, operands) if are_numbers(operands) else _as_moved(operation, operands)
        except OverflowError:  # a number is beyond the range of its type
            return None
        if arrays is not None:
            computed = of_numbers(definition, arrays, attributes)
            return None if computed is None else [array.astype(object) for array in computed]
    if definition.of_dims is None:
        return None
    options = {"is_open": is_open} if "by_zero" in attributes else {}
    known = [operand for operand in operands if operand is not None]
    if definition.pointwise is None:
        elements = of_dims(definition, known, attributes)
    else:
        each = np.frompyfunc(lambda *row: of_dims(definition, row, {**attributes, **options}), len(known), 1)
        elements = each(*known)
    if elements is None:
        return None
    return [np.asarray(elements, dtype=object).reshape(operation.result.type.static_shape())]


def are_numbers(operands: Sequence[Elements | None]) -> bool:
    return all(isinstance(each, (int, float)) for operand in operands if operand is not None for each in operand.flat)


def _as_numbers(operation: Operation, operands: Sequence[Elements | None]) -> Arrays:
    """The operands in their element types."""
    pairs = zip(operands, operation.operands, strict=True)
    return [None if x is None or value is None else x.astype(value.dtype.numpy) for x, value in pairs]


def _as_moved(operation: Operation, operands: Sequence[Elements | None]) -> Arrays | None:
    """The operands of an operation that moves elements, whatever these are; None of one that does not. The indices of a
    gather must be numbers. What an absent operand stands for depends on the element type."""
    definition = operation.definition
    if definition.movement is not None:
        return operands if len(operands) >= len(definition.operand_specs) else None
    if definition.gather is not None and are_numbers(operands[1:]):
        return [operands[0], *(None if x is None else x.astype(np.int64) for x in operands[1:])]
    return None
