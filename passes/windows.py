"""Windows: pooling as slices combined element by element, so that it fuses."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from irc import dims
from irc.dtypes import accumulator_of, limits
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder, literal
from irc.ops import add, cast, maximum, pad, slice_
from irc.pass_manager import Pass, PassContext


@dataclass
class Windows(Pass):
    """Write each `window_reduce` over few places as that many slices of the padded operand, combined one by one.

    limit: the most elements a window may have; larger windows stay as they are. Each element is a load of the kernel
           to come, and a line of its source.

    A kernel then reads through slices and padding by index arithmetic, and pooling joins what stands before and
    after it. Sums are taken in f32 for narrower floats, in the order of the window's elements. Windows whose
    number is not provably at least 0, or whose size is not a number, stay.

    Before: %y = window_reduce %x {kind = "max", window = [2], strides = [2], ...}
    After:  %a = slice %x {0 : : 2}; %b = slice %x {1 : : 2}; %y = maximum %a, %b
    """

    limit: int = 32

    def run(self, module: Module, context: PassContext) -> bool:
        operations = [op for op in module.walk() if op.name == "window_reduce" and _unrolls(op, self.limit)]
        for operation in operations:
            with Builder.before_operation(operation, operation.location.by("windows")):
                result = _unrolled(operation)
            operation.replace([result])
        context.count("windows", "unrolled", len(operations))
        return bool(operations)


def _unrolls(operation: Operation, limit: int) -> bool:
    window = operation.attributes["window"]
    if not operation.result.type.is_ranked or not all(isinstance(size, int) for size in window):
        return False
    return math.prod(window) <= limit and all(dims.less_equal(0, extent) for extent in operation.result.shape)


def _unrolled(operation: Operation) -> Value:
    attributes = operation.attributes
    (x,) = operation.inputs
    dtype, is_sum = x.dtype, attributes["kind"] == "sum"
    if is_sum:
        identity = 0.0 if dtype.is_float else 0
    else:
        identity = -math.inf if dtype.is_float else limits(dtype).smallest
    low, high = attributes["low"], attributes["high"]
    if any(amount != 0 for amount in (*low, *high)):
        x = pad(x, literal(identity, dtype), low=low, high=high)
    if is_sum and accumulator_of(dtype) is not dtype:
        x = cast(x, to=accumulator_of(dtype))
    result: Value | None = None
    for offsets in itertools.product(*map(range, attributes["window"])):
        starts = tuple(at * step for at, step in zip(offsets, attributes["dilations"], strict=True))
        reach = zip(starts, operation.result.shape, attributes["strides"], strict=True)
        stops = tuple(dims.maximum(start, start + (count - 1) * stride + 1) for start, count, stride in reach)
        taken = slice_(x, starts=starts, stops=stops, steps=attributes["strides"])
        result = taken if result is None else (add if is_sum else maximum)(result, taken)
    assert result is not None, "a window has at least one element"
    if is_sum and dtype.is_float:
        result = add(result, literal(0.0, result.dtype))  # a sum begins with 0: of -0 alone it is 0
    return result if result.dtype is dtype else cast(result, to=dtype)
