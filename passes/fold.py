"""Fold: compute what depends on constants alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc import constants
from irc.dims import bounds
from irc.interfaces import Trait
from irc.ir import Operation, Value, dims_in
from irc.module import Module
from irc.op import Builder, const
from irc.pass_manager import Pass, PassContext
from irc.weights import INLINE_LIMIT, Tensor

CAP = 4096  # bytes: a file grows by no more than this for each folded operation

# Weights that a model states quantized stay so: runtimes look for the dequantize, and quantize what is float again.
QUANTIZED = "dequantize"


@dataclass
class Fold(Pass):
    """Evaluate operations whose operands are all constants, with the reference interpreter.

    cap: bytes that a result may have though its operands have fewer.
    views: also copy views of large constants, where the copies together are no larger than the constant, which
        nothing else reads: for backends that copy for each view.

    A result may be as large as its operands together, or `cap`. So int8 weights are not blown up to floats.
    Views of large constants (a transposed weight) stay views, for a copy would gain nothing (a reshape copies
    nothing), and so does what merely repeats its operand, beyond a few elements. A dequantize of any size stays:
    ONNX Runtime quantizes float weights between quantized values once more, by one scale. Externs and effects are never
    folded; an operation that fails (an index out of range) is left to fail where it runs. New constants are called
    after the value. Results without elements are constants, whatever the operands.

    Before: %a = const 2; %b = const 3; %y = mul %a, %b        After: %y = const 6
    """

    cap: int = CAP
    views: bool = False

    def run(self, module: Module, context: PassContext) -> bool:
        names = {
            operation.attributes["value"].name for operation in module.walk() if operation.definition is const
        }
        folded = 0
        for function in module.functions.values():
            for operation in function.walk():
                if _is_empty(operation):
                    values: Sequence[Any] | None = [_nothing(result) for result in operation.results]
                elif self._may_fold(operation):
                    values = _evaluate(operation)
                else:
                    continue
                if values is None:
                    continue
                _replace(operation, values, names)
                folded += 1
        context.count("fold", "folded", folded)
        return folded > 0

    def _may_fold(self, operation: Operation) -> bool:
        definition: Any = operation.definition
        if operation.block is None or definition is const or definition.kind == "extern" or operation.regions:
            return False
        if operation.name == QUANTIZED:
            return False
        if operation.has_effect or operation.symbols or not operation.results or operation.name in ("dim", "refine"):
            return False
        if any(value.operation is None or value.operation.definition is not const for value in operation.inputs):
            return False
        if dims_in(operation.attributes) or not all(result.type.is_static for result in operation.results):
            return False
        sizes = [bounds(result.type.nbytes)[1] for result in operation.results]
        if Trait.REPEATS in definition.traits:
            return all(bounds(result.type.elements)[1] <= INLINE_LIMIT for result in operation.results)
        read = sum(bounds(value.type.nbytes)[1] for value in operation.inputs)
        moves = definition.movement is not None and operation.name != "reshape"
        if moves and self.views:
            moves = not all(map(_is_parted, operation.inputs))
        return sum(sizes) <= (self.cap if moves else max(read, self.cap))


def _is_empty(operation: Operation) -> bool:
    """Whether an operation is one whose results have no elements, as their types say."""
    definition: Any = operation.definition
    if operation.block is None or definition is const or definition.kind == "extern" or operation.regions:
        return False
    if operation.has_effect or operation.symbols or not operation.results or operation.name == "refine":
        return False
    return all(result.type.is_static and 0 in result.shape for result in operation.results)


def _nothing(result: Value) -> Any:
    return np.empty(result.type.static_shape(), result.dtype.numpy)


def _is_parted(constant: Value) -> bool:
    """Whether the views of a constant can stand for it: all that reads it are views, together no larger than it is."""
    readers = constant.users()
    parts = sum(bounds(result.type.nbytes)[1] for reader in readers for result in reader.results)
    move = all(reader.definition.movement is not None for reader in readers)
    return move and parts <= bounds(constant.type.nbytes)[1]


def _evaluate(operation: Operation) -> Sequence[Any] | None:
    arrays = [
        None if value is None or value.operation is None else value.operation.attributes["value"].array()
        for value in operation.operands
    ]
    return constants.results(operation, arrays)


def _name(result: Value, operation: Operation, names: set[str | None]) -> str:
    """What to call a large constant: as its value, or, where that has only a number, after what it came from.

    A view is called after what it views: `query.weight.transpose`.
    """
    stem = result.name
    origins = [value.operation for value in operation.inputs if value.operation is not None]
    origin = next((name for each in origins if (name := each.attributes["value"].name)), None)
    if operation.definition.movement is not None and origin is not None:
        stem = f"{origin}.{operation.name}"
    elif result.is_anonymous:
        stem = origin or "folded"
    name, count = stem, 1
    while name in names:
        name, count = f"{stem}.{count}", count + 1
    names.add(name)
    return name


def _replace(operation: Operation, arrays: Sequence[Any], names: set[str | None]) -> None:
    constants = []
    for result, array in zip(operation.results, arrays, strict=True):
        tensor = Tensor.of(array, result.dtype)
        if tensor.size > INLINE_LIMIT:
            tensor = tensor.renamed(_name(result, operation, names))
        with Builder.before_operation(operation, operation.location.by("fold")):
            constants.append(const(value=tensor))
    inputs = [value.operation for value in operation.inputs if value.operation is not None]
    operation.replace(constants)
    for unused in dict.fromkeys(inputs):
        if unused.definition is const and not unused.result.uses:
            unused.erase()
