"""What the rows of the ATen table may ask: the node that they read, and PyTorch's rules of type promotion.

A row is called with the node's arguments, in the schema's order: values for tensors, dims for symbolic integers,
Python's own for the rest. What the schema does not say is determined here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import torch

from irc import dims, dtypes, ops
from irc.diagnostics import UnsupportedError
from irc.dims import Dim, Expr
from irc.dtypes import BOOL, F8E4M3FN, F8E8M0, F32, F64, I64, DType, accumulator_of, limits
from irc.ir import Function, Value
from irc.op import Builder, literal

DTYPES: dict[torch.dtype, DType] = {
    getattr(torch, dtype.numpy_name): dtype for dtype in dtypes.ALL if hasattr(torch, dtype.numpy_name)
}
TORCH_DTYPES = {dtype: theirs for theirs, dtype in DTYPES.items()}
Scalar = bool | int | float | complex | Expr
WIDEST = (0, dims.IMPORTED_HIGH)
LEAST_E8M0 = 2.0**-127
# PyTorch 2.11 gives NaN for numbers beyond the largest of f8e4m3fn, later ones the largest.
SATURATES = not torch.tensor(1e9).to(torch.float8_e4m3fn).float().isnan()
UNSUPPORTED = object()  # stands for what cannot be read, so that the rest is still looked at


@dataclass
class Reading:
    """The node that is being read, and the function that is being made."""

    node: torch.fx.Node
    function: Function
    numbers: set[Value]  # values that are symbolic numbers, which promote as Python's own do
    dim: Callable[[Any], Dim]  # a size of torch's as a dim
    calls: Container[str]  # operators of ATen that may be calls of PyTorch


_current: ContextVar[Reading] = ContextVar("irc_torch_reading")


@contextmanager
def reading(current: Reading) -> Iterator[None]:
    token = _current.set(current)
    try:
        yield
    finally:
        _current.reset(token)


def unsupported(reason: str) -> NoReturn:
    """Raise `UnsupportedError` for the node that is being read."""
    raise UnsupportedError(reason)


def current_function() -> Function:
    return _current.get().function


def current_node() -> torch.fx.Node:
    return _current.get().node


def check_call(op_type: str) -> None:
    """Raise `UnsupportedError` where PyTorch runs the operator outside of what irc compiles."""
    if op_type not in _current.get().calls:
        unsupported("PyTorch computes it in any case")


def dims_of_torch() -> Callable[[Any], Dim]:
    """What makes dims of torch's sizes."""
    return _current.get().dim


def result_dtype(output: int = 0) -> DType:
    """The element type of the node's result, as PyTorch promised it."""
    example = _current.get().node.meta["val"]
    return dtype_of((example[output] if isinstance(example, (tuple, list)) else example).dtype)


def example(position: int) -> torch.Tensor:
    """The tensor without elements that PyTorch has for an argument of the node."""
    argument = _current.get().node.args[position]
    assert isinstance(argument, torch.fx.Node)
    return argument.meta["val"]


def dtype_of(dtype: torch.dtype) -> DType:
    """irc's name of an element type; raises `UnsupportedError` where it has none."""
    return DTYPES[dtype] if dtype in DTYPES else unsupported(f"irc has no {dtype}")


def unused(output: int) -> bool:
    """Whether nothing reads this result of the node."""
    users = _current.get().node.users
    return not any(user.target is operator.getitem and user.args[1] == output for user in users)


# -- type promotion ---------------------------------------------------------------------------------------------------


def promoted(*operands: Value | Scalar) -> DType:
    """The element type in which ATen computes with these operands: tensors before scalars, 0-d ones between.

    Source: torch.result_type.
    """
    first, *others = [_sample(operand) for operand in operands]
    dtype: torch.dtype = torch.result_type(first, others[0]) if others else torch.result_type(first, first)
    for other in others[1:]:
        dtype = torch.promote_types(dtype, torch.result_type(first, other))
    return DTYPES[dtype]


def _sample(operand: Value | Scalar) -> Any:
    if isinstance(operand, Value):
        if operand in _current.get().numbers:
            return 1.0 if operand.dtype.is_float else True if operand.dtype is BOOL else 1
        return _meta(TORCH_DTYPES[operand.dtype], operand.rank > 0)
    return 1 if isinstance(operand, Expr) else operand


@cache
def _meta(dtype: torch.dtype, has_axes: bool) -> torch.Tensor:
    return torch.empty((1,) if has_axes else (), dtype=dtype, device="meta")


def floating(operand: Value | Scalar) -> DType:
    """The type in which a function of real numbers is computed: f32 for integers and bool."""
    dtype = promoted(operand, operand)
    return dtype if dtype.is_float or dtype.is_complex else F32


def converted(operand: Value | Scalar, dtype: DType) -> Value:
    """An operand as a value of this element type."""
    if isinstance(operand, Expr):
        operand = ops.dim(value=operand)
    if not isinstance(operand, Value):
        return literal(_number(operand, dtype), dtype)
    if operand.dtype is dtype:
        return operand
    if dtype is F8E8M0:  # has no sign, and no zero: PyTorch drops the one, and takes the least number for the other
        operand = ops.maximum(ops.abs_(converted(operand, F64 if operand.dtype is F64 else F32)), LEAST_E8M0)
    return ops.cast(operand, to=dtype, saturate=SATURATES and dtype is F8E4M3FN)


def scalar(value: Value) -> Value:
    """A tensor of one element as a scalar."""
    return ops.reshape(value, shape=()) if value.rank else value


def known_number(number: Value | Scalar) -> Any:
    """A number that a row has to know, for an attribute or a choice."""
    if isinstance(number, (Value, Expr)):
        unsupported("irc reads it with numbers that are known, not with those of a run")
    return number


def _number(scalar: Any, dtype: DType) -> Any:
    if dtype is BOOL:
        return bool(scalar)
    if not dtype.is_integer:
        return scalar
    low, high = map(int, limits(dtype))
    return (int(scalar) - low) % (high - low + 1) + low  # as C converts, and hence ATen


def together(definition: Any, *operands: Value | Scalar, dtype: DType | None = None, **attributes: Any) -> Value:
    """An operation over operands promoted to one type."""
    dtype = dtype or promoted(*operands)
    return definition(*(converted(operand, dtype) for operand in operands), **attributes)


def scaled(definition: Any, *operands: Value | Scalar, dtype: DType | None = None) -> Value:
    """A product or quotient: beside a tensor of f16 or bf16 ATen keeps a Python scalar in f32 (of sums it does not;
    tried on the CPU), so where the narrow type cannot hold it, f32 is computed in and rounded once."""
    dtype = dtype or promoted(*operands)
    wide = accumulator_of(dtype)
    if wide is not dtype and any(isinstance(x, (int, float)) and not _holds(dtype, x) for x in operands):
        return converted(together(definition, *operands, dtype=wide), dtype)
    return together(definition, *operands, dtype=dtype)


def _holds(dtype: DType, number: float) -> bool:
    return float(dtype.numpy.type(number)) == float(number) or number != number


# -- axes and extents -------------------------------------------------------------------------------------------------


def axis_of(dim: int, rank: int) -> int:
    """A dim of ATen as an axis; those of a scalar count as if it had one."""
    return dim + max(rank, 1) if dim < 0 else dim


def axes_of(dim: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Several, sorted; none given means all."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(rank))
    listed = [dim] if isinstance(dim, int) else dim
    return tuple(sorted(axis_of(each, rank) for each in listed)) if rank else ()


def extents(shape: Sequence[Any]) -> tuple[Dim, ...]:
    """A list of symbolic integers as dims; an integer that a run computes is bound to a symbol."""
    return tuple(extent(each) for each in shape)


def sizes(shape: Sequence[Any]) -> tuple[Dim, ...]:
    """A shape as dims: an expression is at least 0 (PyTorch says min(B, 2) - 1 of x[1:2], and means 0 where B is 0)."""
    return tuple(each if isinstance(each, int) else dims.maximum(each, 0) for each in extents(shape))


def extent(size: Any) -> Dim:
    return bound(size) if isinstance(size, Value) else size


def bound(scalar: Value, low: int = WIDEST[0], high: int = WIDEST[1]) -> Dim:
    """A symbol for the integer that a scalar holds when it runs; outside the range is `run.dim_range`."""
    symbol = current_function().fresh_symbol("u", low, high)
    Builder.active().create(ops.bind, [converted(scalar, I64)], {"symbol": symbol}, symbols=[symbol])
    return symbol.expr


def known(a: Dim, b: Dim) -> bool:
    """Whether two dims are provably the same."""
    return dims.equal(a, b) is True


def index_type(value: Value) -> Value:
    return converted(value, I64)
