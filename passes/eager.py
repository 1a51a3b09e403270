"""Eager: a kernel for each operation, as PyTorch runs a program that is not compiled."""

from __future__ import annotations

from dataclasses import dataclass

from irc.dims import Dim, Variable, substitute, total
from irc.index_map import linearize
from irc.ir import Module, Operation
from irc.pass_manager import Pass, PassContext
from irc.passes.fuse import blocks, make_kernel
from irc.plan import FREE_VIEWS, Group, is_free, legal


@dataclass
class Eager(Pass):
    """Make a kernel of each operation that can be one: the baseline that experiments are measured against.

    Casts are kernels too, and so are views that PyTorch copies, as it does in `x.transpose(1, 2).reshape(...)`. Other
    views are strides with which the next kernel reads. What a frontend writes as several operations, as a product of
    bf16 and a number of Python with its casts, counts as several.

    Before: %0 = cast %x; %y = exp %0        After: %0 = kernel { cast %x }; %y = kernel { exp %0 }
    """

    def run(self, module: Module, context: PassContext) -> bool:
        made = 0
        for function in module.functions.values():
            for block in list(blocks(function.block)):
                for operation in list(block):
                    group = Group([operation], "eager")
                    if _computes(operation) and legal(group, context.numerics) is None:
                        make_kernel(group)
                        made += 1
        context.count("eager", "kernels", made)
        return made > 0


def _computes(operation: Operation) -> bool:
    """Whether PyTorch runs something on the device for it."""
    if operation.name in ("const", "kernel") or operation.regions or operation.has_effect or not operation.results:
        return False
    if operation.name in ("cast", "iota"):
        return True
    return _is_copied(operation) if operation.name == "reshape" else not is_free(operation)


def _is_copied(reshape: Operation) -> bool:
    """Whether no strides give the result: its elements do not lie at equal steps in the memory of what is viewed."""
    axes = [Variable(f"i{axis}", extent) for axis, extent in enumerate(reshape.result.shape)]
    value, at = reshape.result, tuple[Dim, ...](axis.expr for axis in axes)
    while value.operation is not None and value.operation.name in FREE_VIEWS and value.operation.inputs:
        assert value.operation.definition.pull is not None, "views are index maps"
        (piece,) = value.operation.definition.pull(value, at)
        value, at = value.operation.inputs[piece.operand], piece.coordinates
    if value.operation is not None and value.operation.name == "attention":
        return False  # whose memory has another order: the host copies it where that is needed, as PyTorch does
    address = linearize(at, value.shape)
    start = substitute(address, dict.fromkeys(axes, 0))
    steps = [substitute(address, {**dict.fromkeys(axes, 0), axis: 1}) - start for axis in axes]
    return address != start + total(step * axis.expr for step, axis in zip(steps, axes, strict=True))
