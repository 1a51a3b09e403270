"""Assertions about sizes, checked before a run in ONNX Runtime: an ONNX model cannot stop a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irc.dims import Symbol
from irc.interpreter import evaluate_operation
from irc.ir import Function, Operation, Value, mentioned_symbols


class SizeAssertions:
    """The assertions of a function whose conditions follow from the sizes of its arguments, and from arguments that
    are numbers. `operations` compute them, and are empty where there are none; `read` are the arguments that they
    read."""

    def __init__(self, function: Function) -> None:
        self.operations: list[Operation] = []
        self.read: list[Value] = []
        if not any(operation.name == "assert" for operation in function.block):
            return
        symbols = set(function.symbols.values())
        known = {argument for argument in function.arguments if argument.type.is_ranked and not argument.rank}
        needed: set[Value] = set()
        sized = [operation for operation in function.block if _follows(operation, known, symbols)]
        for operation in reversed(sized):
            if operation.name in ("assert", "bind") or not needed.isdisjoint(operation.results):
                needed.update(operation.inputs)
                self.operations.append(operation)
        self.operations.reverse()
        self.read = [argument for argument in function.arguments if argument in needed]

    def check(self, sizes: Mapping[Symbol, int], arguments: Sequence[Any]) -> None:
        """Raise `run.assert` where one does not hold; `arguments` are the arrays of those that are read."""
        environment = dict(sizes)
        values: dict[Value, Any] = dict(zip(self.read, arguments, strict=True))
        for operation in self.operations:
            arrays = [values[operand] for operand in operation.inputs]
            if operation.name == "bind":
                environment[operation.attributes["symbol"]] = int(arrays[0])
            else:
                results = evaluate_operation(operation, arrays, environment)
                values.update(zip(operation.results, results, strict=True))


def _follows(operation: Operation, known: set[Value], symbols: set[Symbol]) -> bool:
    """Whether an operation, which comes after those seen before, reads nothing but what is known; what it defines is
    known from then on."""
    allowed = operation.name in ("assert", "bind") or not (operation.has_effect or operation.regions)
    if not allowed or any(x.type.is_ranked and x.rank for x in operation.results):
        return False
    if not known.issuperset(operation.inputs):
        return False
    symbols.update(operation.symbols)
    if not symbols.issuperset(mentioned_symbols(operation)):
        return False
    known.update(operation.results)
    return True
