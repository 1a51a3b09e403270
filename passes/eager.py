"""Eager: a kernel for each operation, as PyTorch runs a program that is not compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from irc.dims import Dim, substitute, total
from irc.group import Group, is_free
from irc.index_map import axis_variables
from irc.interfaces import Trait
from irc.ir import Operation, Value
from irc.legality import legal
from irc.module import Module
from irc.ops.view import map_of
from irc.pass_manager import Pass, PassContext
from irc.passes._blocks import blocks
from irc.passes._kernels import make_kernel

Strides = tuple[Dim, ...]  # in elements, one for each axis


@dataclass
class Eager(Pass):
    """Make a kernel of each operation that can be one: the baseline that experiments are measured against.

    Casts are kernels too, and so are views that PyTorch copies, as it does in `x.transpose(1, 2).reshape(...)`. Other
    views are strides with which the next kernel reads. What a frontend writes as several operations, as a product of
    bf16 and a number of Python with its casts, counts as several.

    Before: %0 = cast %x; %y = exp %0        After: %0 = kernel { cast %x }; %y = kernel { exp %0 }
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for function in module.functions.values():
            layouts: dict[Value, Strides | None] = {}  # of results of views; other values are contiguous
            for block in list(blocks(function.block)):
                for operation in list(block):
                    group = Group([operation], "eager")
                    if _computes(operation, layouts) and legal(group, context.numerics) is None:
                        make_kernel(group)
                        count += 1
        context.count("eager", "kernels", count)
        return count > 0


def _computes(operation: Operation, layouts: dict[Value, Strides | None]) -> bool:
    """Whether PyTorch runs something on the device for it; adds the layouts of what is only viewed."""
    if operation.name in ("const", "kernel") or operation.regions or operation.has_effect or not operation.results:
        return False
    if Trait.LIBRARY in operation.definition.traits:
        return False
    if operation.name in ("cast", "iota"):
        return True
    if operation.definition.movement is None or Trait.FREE not in operation.definition.traits:
        return not is_free(operation)
    (source, *_) = operation.inputs
    for result in operation.results:
        if _is_of_attention(source, layouts):
            layouts[result] = None
            continue
        viewed = _strides_through(result, layouts.get(source) or contiguous(source.shape))
        if viewed is not None:
            layouts[result] = viewed
        elif operation.name == "reshape":
            return True
    return False


def _is_of_attention(value: Value, layouts: dict[Value, Strides | None]) -> bool:
    """Whether a value is or views the result of attention, whose memory has another order: the host copies it where
    that is needed, as PyTorch does."""
    if value in layouts:
        return layouts[value] is None
    return value.operation is not None and value.operation.name == "attention"


def _strides_through(result: Value, steps: Strides) -> Strides | None:
    """The strides of a view's result, given those of what it views; None where its elements do not lie at equal steps
    in that memory, so that PyTorch copies them."""
    view = map_of(result)
    assert view is not None, "a view that is free has one map"
    variables = axis_variables(result.shape)
    address = total(step * coordinate for step, coordinate in zip(steps, view.coordinates, strict=True))
    start = substitute(address, dict.fromkeys(variables, 0))
    strides = tuple(substitute(address, {**dict.fromkeys(variables, 0), axis: 1}) - start for axis in variables)
    is_strided = address == start + total(step * axis.expr for step, axis in zip(strides, variables, strict=True))
    return strides if is_strided else None


def contiguous(shape: Sequence[Dim]) -> Strides:
    """The strides of a tensor without gaps, the last axis innermost."""
    strides, step = list[Dim](), cast(Dim, 1)
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))
