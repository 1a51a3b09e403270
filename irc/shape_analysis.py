"""What small integer tensors hold, as far as it is known before the program runs.

Programs compute shapes with tensors: `Shape`, `Gather`, `Concat`, `Where(Equal(shape, -1), ...)`. This module reads
such arithmetic as dims. An *element* is an int, a dim, a bool, a float, a `Comparison` of dims that is not decided, or
None where nothing is known. Importers and canonicalization use it.

Dims are unbounded, while integers of tensors wrap around. An int wraps here as it does when the program runs, and a dim
that may leave the range of its element type is not known, unless it counts elements of a tensor that exists: more than
fit into the type would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irc import dims
from irc.diagnostics import IrcError
from irc.dims import Dim, Expr
from irc.dtypes import DType, limits
from irc.ir import Operation, Value, dims_in
from irc.types import TensorType

LIMIT = 64  # larger tensors are data, not shapes
SHAPES_REMEMBERED = 32


@dataclass(frozen=True)
class Comparison:
    """A condition on dims that holds for some of their values only: `equal`, `less` or `less_equal`."""

    kind: str
    left: Dim
    right: Dim


Elements = NDArray[np.object_]


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
                found = _transfer(operation, operands, self._is_open)
                for result, each in zip(operation.results, found, strict=True):
                    self._memo[result] = self._within(each, result.dtype)
        return self._memo[value]

    def observe(self, type_: TensorType) -> None:
        """Note that a tensor of this type exists where its extents are known."""
        if type_.shape is not None and not type_.is_static:
            self._counts.pop(type_.elements, None)
            self._counts[type_.elements] = None
            if len(self._counts) > SHAPES_REMEMBERED:
                del self._counts[next(iter(self._counts))]

    def _within(self, found: Elements | None, dtype: DType) -> Elements | None:
        """The elements in the range of an integer type."""
        if found is None or not dtype.is_integer:
            return found
        low, high = map(int, limits(dtype)[:2])

        def within(element: Any) -> Any:
            if isinstance(element, int) and not isinstance(element, bool):
                return (element - low) % (high - low + 1) + low
            if not isinstance(element, Expr):
                return element
            least, most = dims.bounds(element)
            return element if (low <= least and most <= high) or self._counts_elements(element) else None

        return _objects(np.frompyfunc(within, 1, 1)(found)).reshape(found.shape)

    def _counts_elements(self, element: Expr) -> bool:
        """Whether each term is a factor of the number of elements of some tensor."""
        single = [Expr((term,)) for term in element.terms if term[0]]
        return all(any(dims.exact_divide(count, term) is not None for count in self._counts) for term in single)

    def learn(self, value: Value, element: Dim) -> None:
        """Note what a scalar holds from here on: `bind` made a symbol of it."""
        self._memo[value] = _objects(element)


def is_dim(element: Any) -> bool:
    """Whether an element can stand in a shape."""
    return isinstance(element, (int, Expr)) and not isinstance(element, bool)


def _is_small(value: Value) -> bool:
    is_numeric = value.dtype.kind not in ("string", "complex")
    return is_numeric and value.type.is_static and prod(value.type.static_shape()) <= LIMIT


def _unknown(value: Value) -> Elements | None:
    return np.full(value.type.static_shape(), None) if _is_small(value) else None


def _objects(content: Any) -> Elements:
    return np.asarray(content, dtype=object)


def _transfer(operation: Operation, operands: list[Elements | None], is_open: bool) -> list[Elements | None]:
    """The elements of an operation's results, not yet in the range of their type."""
    definition: Any = operation.definition
    known = [x for x in operands if x is not None]
    if len(known) == len(operation.inputs):
        is_fixed = not dims_in(operation.attributes)
        is_concrete = is_fixed and all(isinstance(element, (int, float)) for array in known for element in array.flat)
        try:
            if is_concrete and (definition.is_named or definition.has_reference):
                return _evaluate(operation, operands)
            if is_fixed and definition.pull is not None and definition.name != "pad":  # whatever the elements
                return list(definition.evaluate(known, operation.attributes))
            if definition.name in _TRANSFER:
                options = {"is_open": is_open} if definition.name in ("div", "mod") else {}
                found = _objects(_TRANSFER[definition.name](*known, **operation.attributes, **options))
                return [found.reshape(operation.result.type.static_shape())]
        except (IrcError, dims.DimError, OverflowError):
            pass  # what cannot be computed (an index out of range, a division by zero) is an error when it runs
    return [_unknown(result) for result in operation.results]


def _evaluate(operation: Operation, operands: list[Elements | None]) -> list[Elements | None]:
    """By the operation's own body or reference: every operand is known."""
    definition: Any = operation.definition
    if definition.is_named:
        body = operation.body()
        inner = ShapeAnalysis(dict(zip(body.arguments, (x for x in operands if x is not None), strict=True)))
        return [inner.elements(value) for value in body.returned]
    pairs = zip(operands, operation.operands, strict=True)
    arrays = [None if x is None or value is None else x.astype(value.dtype.numpy) for x, value in pairs]
    with np.errstate(all="ignore"):
        return [np.asarray(array).astype(object) for array in definition.evaluate(arrays, operation.attributes)]


# -- transfer functions of the primitives, for elements that are not all numbers ----------------------------------


def _gather(x: Elements, indices: Elements, *, axis: int, bounds: str | None = None) -> Elements:
    least = -x.shape[axis] if bounds is None else 0
    if all(isinstance(i, int) and least <= i < x.shape[axis] for i in indices.flat):
        return _objects(np.take(x, indices.astype(np.int64), axis))
    return np.full_like(x, None, shape=(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _pointwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of dims on arrays of elements, with broadcasting; what is no dim gives None."""

    def on_arrays(*arrays: Elements, **attributes: Any) -> Any:
        known = lambda *row: function(*row, **attributes) if all(map(is_dim, row)) else None  # noqa: E731
        return np.frompyfunc(known, len(arrays), 1)(*arrays)

    return on_arrays


def _reduce(function: Callable[[Any], Dim], x: Elements, *, axes: tuple[int, ...], keep_dims: bool) -> Dim:
    if x.ndim == 1 and axes and all(map(is_dim, x)):
        return function(x)
    raise dims.DimError("only whole vectors of dims are reduced")


def _divide(x: Dim, y: Dim, *, rounding: str, by_zero: str | None, is_open: bool) -> Dim | None:
    """Truncation rounds towards 0: it floors the part of x that is positive and the part that is negative. What divides
    by 0 is no dim, but for x*y/y where its value is left open."""
    if dims.equal(y, 0) is not False:
        return dims.exact_divide(x, y) if is_open and by_zero is None else None
    if rounding == "floor":
        return dims.floor_divide(x, y)
    if dims.less(y, 0) is True:
        x, y = -x, -y
    if dims.less(0, y) is not True:
        return None
    return dims.floor_divide(dims.maximum(x, 0), y) - dims.floor_divide(dims.maximum(-x, 0), y)


def _modulo(x: Dim, y: Dim, **options: Any) -> Dim | None:
    quotient = _divide(x, y, **options)
    return None if quotient is None else x - y * quotient


_DECIDE = {"equal": dims.equal, "less": dims.less, "less_equal": dims.less_equal}


def _compare(kind: str, x: Dim, y: Dim) -> bool | Comparison:
    verdict = _DECIDE[kind](x, y)
    return Comparison(kind, x, y) if verdict is None else verdict


def _select(condition: Any, x: Any, y: Any) -> Any:
    if isinstance(condition, bool):
        return x if condition else y
    if not isinstance(condition, Comparison) or {x, y} != {condition.left, condition.right}:
        return x if x is not None and x == y else None
    if condition.kind == "equal":
        return y
    return dims.minimum(x, y) if x == condition.left else dims.maximum(x, y)


def _cast(x: Any, to: DType) -> int | Expr | None:
    return x if isinstance(x, Expr) and to.is_integer else int(x) if isinstance(x, int) and to.is_integer else None


_TRANSFER: dict[str, Callable[..., Any]] = {
    "dim": lambda *, value: value,
    "gather": _gather,
    "cast": lambda x, *, to, saturate=True: np.frompyfunc(lambda element: _cast(element, to), 1, 1)(x),
    "select": np.frompyfunc(_select, 3, 1),
    "add": _pointwise(lambda x, y: x + y),
    "sub": _pointwise(lambda x, y: x - y),
    "mul": _pointwise(lambda x, y: x * y),
    "neg": _pointwise(lambda x: -x),
    "div": _pointwise(_divide),
    "mod": _pointwise(_modulo),
    "minimum": _pointwise(dims.minimum),
    "maximum": _pointwise(dims.maximum),
    "not_equal": _pointwise(lambda x, y: None if (same := dims.equal(x, y)) is None else not same),
    **{name: _pointwise(partial(_compare, name)) for name in _DECIDE},
    "greater": _pointwise(lambda x, y: _compare("less", y, x)),
    "greater_equal": _pointwise(lambda x, y: _compare("less_equal", y, x)),
    "reduce_sum": partial(_reduce, dims.total),
    "reduce_prod": partial(_reduce, dims.product),
}
