"""What the rows of the operator tables may ask about the node that they read.

A row is called with values and attributes; the rest (which outputs are wanted, the opset, what small tensors hold) is
requested here, so that a row's signature stays the operator's schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

from irc import ops
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import I64
from irc.ir import Function, Value
from irc.op import Builder
from irc.ops.symbolic import is_dim
from irc.shape_analysis import ShapeAnalysis


class Carry(Exception):
    """The node is to be carried as `extern`; `shapes` says what is known of its results all the same."""

    def __init__(self, reason: str, shapes: Sequence[Sequence[Dim | None]]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.shapes = shapes


@dataclass
class Reading:
    """The node that is being read, and where."""

    op_type: str
    opset: int
    outputs: Sequence[str]
    function: Function
    analysis: ShapeAnalysis


_current: ContextVar[Reading] = ContextVar("irc_onnx_reading")


@contextmanager
def reading(node: Reading) -> Iterator[None]:
    token = _current.set(node)
    try:
        yield
    finally:
        _current.reset(token)


def carry(reason: str, *shapes: Sequence[Dim | None]) -> NoReturn:
    """Raise `Carry`: the node becomes an `extern`. `shapes`: known extents of each result, None where one is not."""
    raise Carry(reason, shapes)


def wants(output: int) -> bool:
    """Whether the graph names the node's output of this number."""
    outputs = _current.get().outputs
    return output < len(outputs) and bool(outputs[output])


def output_count() -> int:
    return len(_current.get().outputs)


def opset() -> int:
    """The version of the node's domain that the model imports."""
    return _current.get().opset


def of_rank(value: Value, rank: int, what: str) -> tuple[Dim, ...]:
    """The extents of a value that must have this rank; raises `type.rank`."""
    if value.rank != rank:
        raise fail("type.rank", f"{what} is {value.type}", expected=f"{rank} axes")
    return value.shape


def elements(value: Value) -> list[Any] | None:
    """The elements of a small vector or scalar, each an int, a float, a dim or None; None where it is no such."""
    array = _current.get().analysis.elements(value)
    if array is None:
        static = value.type.shape is not None and value.rank == 1 and isinstance(value.shape[0], int)
        return [None] * value.shape[0] if static and value.shape[0] <= 64 else None  # type: ignore[operator]
    return array.reshape(-1).tolist()


def observe(value: Value) -> None:
    """Note that a tensor of this type exists, which bounds what is computed of its shape."""
    _current.get().analysis.observe(value.type)


def entries(value: Value, what: str) -> list[Any]:
    """The elements of a shape vector as dims, None for those that only a run determines; carries what has no known
    length."""
    values = elements(value)
    if values is None:
        carry(f"{what} has no known length")
    return [element if is_dim(element) else None for element in values]


def integers(value: Value, what: str) -> tuple[int, ...]:
    """The elements of an integer vector or scalar that must not depend on the input; carried where they do."""
    values = elements(value)
    if values is None or not all(isinstance(element, int) for element in values):
        carry(f"{what} is not constant")
    return tuple(int(element) for element in values)


def integer(value: Value, what: str) -> int:
    (only, *others) = integers(value, what) or (0, 0)
    if others:
        raise fail("onnx.invalid", f"{what} has {len(others) + 1} elements", expected="one")
    return only


def number(value: Value, what: str) -> Any:
    """A scalar that must not depend on the input."""
    values = elements(value)
    if values is None or len(values) != 1 or not isinstance(values[0], (int, float)):
        carry(f"{what} is not constant")
    return values[0]


def extents(vector: Value, what: str) -> tuple[Dim, ...]:
    """The elements of a shape vector as dims; for those that only a run determines a symbol is bound."""
    partly_known = entries(vector, what)
    return tuple(_bound(vector, index) if element is None else element for index, element in enumerate(partly_known))


def extent(scalar: Value, what: str) -> Dim:
    """A scalar as a dim, bound to a symbol where only a run determines it."""
    (only,) = extents(ops.reshape(scalar, shape=(1,)), what)
    return only


def _bound(vector: Value, index: int) -> Dim:
    builder, current = Builder.active(), _current.get()
    element = ops.reshape(ops.slice_(vector, starts=(index,), stops=(index + 1,), steps=(1,)), shape=())
    if element.dtype is not I64:
        element = ops.cast(element, to=I64)
    symbol = current.function.fresh_symbol("n")
    builder.create(ops.bind, [element], {"symbol": symbol}, symbols=[symbol])
    current.analysis.learn(element, symbol.expr)
    return symbol.expr
