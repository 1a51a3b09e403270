"""Rows of symbolic integers and floats: sizes as data, `item()`, and the assertions that exporting leaves.

A symbolic integer is a dim; what a run computes (`item()`) is bound to a symbol with a range, which is checked then.
A symbolic float is a scalar value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from irc import constants, dims, ops
from irc.dims import Expr
from irc.dtypes import BOOL, F64, I64, limits
from irc.frontends.torch import pointwise
from irc.frontends.torch.reading import axis_of, bound, converted, unsupported
from irc.frontends.torch.table import reads
from irc.ir import Value
from irc.op import OperationDefinition


@reads("sym_size.int")
def size(self, dim):
    return self.shape[axis_of(dim, self.rank)]


@reads("sym_numel")
def elements(self):
    return self.type.elements


@reads("_assert_scalar")
def assert_scalar(self, assert_msg):
    if isinstance(self, Value):
        ops.assert_(self, message=assert_msg)
    elif self is False:
        unsupported(f"it never holds: {assert_msg}")


@reads("_assert_async.msg")
def assert_async(self, assert_msg):
    ops.assert_(pointwise.as_bool(self), message=assert_msg)


@reads("_assert_tensor_metadata", "sym_constrain_range_for_size", "sym_constrain_range")
def promised_by_types(*arguments, **options):
    """Element types and ranges stand in irc's types."""


# -- Python's operators on symbolic numbers ---------------------------------------------------------------------------


def comparison(definition: OperationDefinition) -> Callable[[Any, Any], Any]:
    """True or False where it is known, else a scalar that says it when it runs."""

    def row(a: Any, b: Any) -> Any:
        dtype = I64 if all(isinstance(x, (int, Expr)) for x in (a, b)) else F64
        if dtype is I64:
            verdict = constants.of_dims(definition, [x if isinstance(x, Expr) else int(x) for x in (a, b)], {})
            if isinstance(verdict, bool):
                return verdict
        return definition(converted(a, dtype), converted(b, dtype))

    return row


def arithmetic(of_dims: Callable[..., Any], of_values: Any) -> Callable[..., Any]:
    def row(*operands: Any) -> Any:
        if any(isinstance(x, (Value, float)) for x in operands) and any(isinstance(x, (Value, Expr)) for x in operands):
            result = converted(operands[0], F64)
            for other in operands[1:]:
                result = of_values(result, converted(other, F64))
            return result
        return of_dims(*operands)

    return row


def floored(a: Value, b: Value) -> Any:
    return ops.floor(ops.div(a, b))


def true_divide(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a / b
    return ops.div(converted(a, F64), converted(b, F64))


def power(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b >= 0 and not isinstance(a, Value):
        return dims.product([a] * b)
    return ops.pow_(converted(a, F64), converted(b, F64))


def to_float(a: Any) -> Any:
    return float(a) if isinstance(a, (int, float)) else converted(a, F64)


def bitwise(of_numbers: Callable[[Any, Any], Any], of_values: Any) -> Callable[[Any, Any], Any]:
    """Of bools, and of the bits of integers."""

    def row(a: Any, b: Any) -> Any:
        if isinstance(a, int) and isinstance(b, int):
            return of_numbers(a, b)
        if all(isinstance(x, bool) or (isinstance(x, Value) and x.dtype is BOOL) for x in (a, b)):
            return of_values(converted(a, BOOL), converted(b, BOOL))
        return integer(of_values(converted(a, I64), converted(b, I64)))

    return row


def integer(value: Value) -> Any:
    """A symbol of the widest range: the value of a Python int, which may be negative."""
    return bound(value, *map(int, limits(I64)))


def shifted(of_dims: Callable[[Any, int], Any], of_values: Any) -> Callable[[Any, Any], Any]:
    """By a number of bits: a product or a quotient of dims, where the number is known."""

    def row(a: Any, bits: Any) -> Any:
        if isinstance(bits, int) and bits >= 0:
            return of_dims(a, 2**bits)
        return integer(of_values(converted(a, I64), converted(bits, I64)))

    return row


def negative(a: Any) -> Any:
    return ops.neg(a) if isinstance(a, Value) else -a


def absolute(a: Any) -> Any:
    return ops.abs_(a) if isinstance(a, Value) else dims.maximum(a, -a) if isinstance(a, Expr) else abs(a)


def rounded(of_floats: Callable[[float], int], of_values: Any) -> Callable[[Any], Any]:
    """An integer from a float; integers are whole already."""

    def row(a: Any, digits: None = None) -> Any:
        if digits is not None:
            unsupported(f"{of_floats.__name__} to {digits} digits")
        if isinstance(a, Value):
            return integer(of_values(a))
        return a if isinstance(a, Expr) else of_floats(a)

    return row


def inverted(a: Any) -> Any:
    return not a if isinstance(a, bool) else ops.bitwise_not(a)


def chosen(condition: Any, then: Any, otherwise: Any) -> Any:
    if isinstance(condition, bool):
        return then if condition else otherwise
    kinds = [each.dtype if isinstance(each, Value) else BOOL if isinstance(each, bool) else F64
             if isinstance(each, float) else I64 for each in (then, otherwise)]  # fmt: skip
    dtype = kinds[0] if kinds[0] is kinds[1] else F64
    result = ops.select(converted(condition, BOOL), converted(then, dtype), converted(otherwise, dtype))
    return integer(result) if dtype is I64 else result


def square_root(a: Any) -> Any:
    return ops.sqrt(converted(a, F64))


PYTHON: dict[Any, Callable[..., Any]] = {
    operator.add: arithmetic(operator.add, ops.add),
    operator.sub: arithmetic(operator.sub, ops.sub),
    operator.mul: arithmetic(operator.mul, ops.mul),
    operator.floordiv: arithmetic(dims.floor_divide, floored),
    operator.mod: arithmetic(dims.modulo, ops.mod),
    operator.truediv: true_divide,
    operator.neg: negative,
    operator.pos: lambda a: a,
    operator.abs: absolute,
    operator.pow: power,
    operator.eq: comparison(ops.equal),
    operator.ne: comparison(ops.not_equal),
    operator.lt: comparison(ops.less),
    operator.le: comparison(ops.less_equal),
    operator.gt: comparison(ops.greater),
    operator.ge: comparison(ops.greater_equal),
    operator.and_: bitwise(operator.and_, ops.bitwise_and),
    operator.or_: bitwise(operator.or_, ops.bitwise_or),
    operator.lshift: shifted(lambda a, factor: dims.product([a, factor]), ops.shift_left),
    operator.rshift: shifted(dims.floor_divide, ops.shift_right),
    math.floor: rounded(math.floor, ops.floor),
    math.ceil: rounded(math.ceil, ops.ceil),
    math.trunc: rounded(math.trunc, ops.trunc),
    round: rounded(round, ops.round_),
    torch.sym_max: arithmetic(dims.maximum, ops.maximum),
    torch.sym_min: arithmetic(dims.minimum, ops.minimum),
    torch.sym_sum: lambda terms: dims.total(terms),
    torch.sym_float: to_float,
    torch.sym_not: inverted,
    torch.sym_ite: chosen,
    torch._sym_sqrt: square_root,
}
