"""Values of small integer tensors that are known before the program runs.

Programs compute shapes with tensors: `Shape`, `Gather`, `Concat`, `Where(Equal(shape, -1), ...)`. This module reads
such arithmetic as dims. An *element* is an int, a dim, a bool, a float, a `Comparison` of dims that is not decided, or
None where nothing is known. Importers and canonicalization use it.

Dims are unbounded, while integers of tensors wrap around. An int wraps here as it does when the program runs, and a dim
that may leave the range of its element type is not known, unless it counts elements of a tensor that exists: more than
fit into the type would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from irc import constants, dims, ops
from irc.constants import Elements
from irc.dims import Dim, Expr
from irc.dtypes import I32, I64, DType, limits
from irc.ir import Operation, Value, dims_in
from irc.op import const
from irc.ops.symbolic import is_dim
from irc.types import TensorType
from irc.weights import Tensor

LIMIT = 64  # larger tensors are data, not shapes
SHAPES_REMEMBERED = 32


class ShapeAnalysis:
    """Answers with a memo: what a value holds does not change while a pass preserves meaning.

    `is_open` says that the program leaves open what an integer divided by 0 is, as ONNX does.
    """

    def __init__(self, known: Mapping[Value, Elements | None] | None = None, is_open: bool = False) -> None:
        self._memo: dict[Value, Elements | None] = dict(known or {})
        self._is_open = is_open
        self._counts: dict[Dim, None] = {}  # elements of tensors that exist, the latest last

    def elements(self, value: Value) -> Elements | None:
        """The elements of `value` as an object array of its shape; None when it is large or no tensor of numbers."""
        pending = [value]
        while pending:
            current = pending[-1]
            operation = current.operation
            if current in self._memo:
                pending.pop()
            elif operation is None or not _is_small(current):
                self._memo[current] = _unknown(current)
            elif missing := [x for x in operation.inputs if x not in self._memo]:
                pending += missing
            else:
                operands = [None if x is None else self._memo[x] for x in operation.operands]
                results = _results(operation, operands, self._is_open)
                for result, each in zip(operation.results, results, strict=True):
                    self._memo[result] = self._within(each, result.dtype)
        return self._memo[value]

    def observe(self, type_: TensorType) -> None:
        """Note that a tensor of this type exists where its extents are known."""
        if type_.shape is not None and not type_.is_static:
            self._counts.pop(type_.elements, None)
            self._counts[type_.elements] = None
            if len(self._counts) > SHAPES_REMEMBERED:
                del self._counts[next(iter(self._counts))]

    def _within(self, elements: Elements | None, dtype: DType) -> Elements | None:
        """The elements in the range of an integer type."""
        if elements is None or not dtype.is_integer:
            return elements
        low, high = map(int, limits(dtype)[:2])

        def within(element: Any) -> Any:
            if isinstance(element, int) and not isinstance(element, bool):
                return (element - low) % (high - low + 1) + low
            if not isinstance(element, Expr):
                return element
            least, most = dims.bounds(element)
            return element if (low <= least and most <= high) or self._counts_elements(element) else None

        return _objects(np.frompyfunc(within, 1, 1)(elements)).reshape(elements.shape)

    def _counts_elements(self, element: Expr) -> bool:
        """Whether each term is a factor of the number of elements of some tensor."""
        single = [Expr((term,)) for term in element.terms if term[0]]
        return all(any(dims.exact_divide(count, term) is not None for count in self._counts) for term in single)

    def known_dims(self, value: Value) -> list[Dim | None] | None:
        """The elements in row-major order, None for each that is not known or no dim."""
        elements = self.elements(value)
        return None if elements is None else [each if is_dim(each) else None for each in elements.reshape(-1).tolist()]

    def normal_form(self, value: Value) -> Value | None:
        """An integer scalar or vector as one constant or one `dim`, built at the active builder; None where elements
        are not known."""
        if value.dtype not in (I64, I32) or value.type.shape is None or value.rank > 1:
            return None
        elements = self.elements(value)
        if elements is None or not all(map(is_dim, elements.flat)):
            return None
        if all(isinstance(element, int) for element in elements.flat):
            result: Value = const(value=Tensor.of(elements.astype(value.dtype.numpy)))
            return result
        result = ops.dim(value=tuple(elements) if elements.ndim else elements.item())
        if value.dtype is not I64:
            result = ops.cast(result, to=value.dtype)
        return result

    def learn(self, value: Value, element: Dim) -> None:
        """Note what a scalar holds from here on: `bind` made a symbol of it."""
        self._memo[value] = _objects(element)


def _is_small(value: Value) -> bool:
    is_numeric = value.dtype.kind not in ("string", "complex")
    return is_numeric and value.type.is_static and prod(value.type.static_shape()) <= LIMIT


def _unknown(value: Value) -> Elements | None:
    return np.full(value.type.static_shape(), None) if _is_small(value) else None


def _objects(content: Any) -> Elements:
    return np.asarray(content, dtype=object)


def _results(operation: Operation, operands: list[Elements | None], is_open: bool) -> list[Elements | None]:
    """The elements of an operation's results, not yet in the range of their type."""
    known = [x for x in operands if x is not None]
    results: Sequence[Elements | None] | None = None
    if len(known) == len(operation.inputs):
        if not operation.definition.is_named:
            results = constants.of_elements(operation, operands, is_open)
        elif not dims_in(operation.attributes) and constants.are_numbers(known):
            body = operation.body()
            inner = ShapeAnalysis(dict(zip(body.arguments, known, strict=True)))
            results = [inner.elements(value) for value in body.returned]
    return [_unknown(result) for result in operation.results] if results is None else list(results)
