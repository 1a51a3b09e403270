"""Kernels rewritten together with the constants that they read. Start at `rewritten`."""

from __future__ import annotations

from collections.abc import Callable

from irc.cloning import Cloner
from irc.group import is_free
from irc.ir import Block, Operation
from irc.kernel import LegalityFailure, kernel_of
from irc.op import Builder, const
from irc.rewrite import erase_dead


def rewritten(kernel: Operation, rewrite: Callable[[Block], bool]) -> bool:
    """Whether a kernel was replaced by a copy whose region `rewrite` has changed: there the constants that no other
    operation reads are operations. It stays where nothing was changed, or where the copy would be no kernel."""
    copy = Cloner().operation(kernel)
    block = copy.regions[0].block
    with Builder(block, next(iter(block)), kernel.location):
        for argument, operand in zip(block.arguments, kernel.inputs, strict=True):
            constant, readers = operand.operation, set(operand.users())
            if constant is not None and constant.definition is const and readers == {kernel, copy}:
                argument.replace_uses(const(value=constant.attributes["value"]))
    is_changed = rewrite(block)
    _take_out(copy, kernel)
    if is_changed:
        try:
            kernel_of(copy)
        except LegalityFailure:
            is_changed = False
    replaced = kernel if is_changed else copy
    constants = [operand.operation for operand in replaced.inputs if operand.operation is not None]
    if is_changed:
        for result, value in zip(kernel.results, copy.results, strict=True):
            result.replace_uses(value)
        outer, following = kernel.block, kernel.next
        kernel.erase()
        assert outer is not None
        outer.insert(copy, following)  # last, since its results have the names of the kernel's
    else:
        copy.erase()
    erase_dead(each for each in constants if each.definition is const)
    return is_changed


def _take_out(copy: Operation, kernel: Operation) -> None:
    """Let a copy of a kernel read the constants of its region from outside: those that the kernel reads, and new ones
    before it."""
    block = copy.regions[0].block
    known = {operand.operation.attributes["value"]: operand for operand in kernel.inputs
             if operand.operation is not None and operand.operation.definition is const}  # fmt: skip
    operands = dict(zip(block.arguments, copy.operands, strict=True))
    for constant in [each for each in block if each.definition is const and not is_free(each)]:
        tensor = constant.attributes["value"]
        with Builder.before_operation(kernel, constant.location):
            outer = known[tensor] if tensor in known else const(value=tensor)
        argument = block.add_argument(outer.type, outer.name)
        operands[argument] = outer
        constant.result.replace_uses(argument)
        constant.erase()
    for argument in list(operands):
        if not argument.uses:
            block.remove_argument(argument)
            del operands[argument]
    copy.set_operands(operands.values())
