"""Groups as `kernel` operations: the members move into its region, and their block is put back in order."""

from __future__ import annotations

from irc.cloning import Cloner
from irc.group import Group, is_free
from irc.group_graph import makers, run_order
from irc.ir import Block, Operation, Region
from irc.kernel import Kernel
from irc.op import Builder, yield_
from irc.ops import lookup

KERNEL = lookup("kernel")


def make_kernel(group: Group) -> Operation:
    """Replace a group's members by a kernel; free operations stay where others read them."""
    assert isinstance(group.equal_kernel, Kernel), "an illegal group is never applied"
    closure, stored, block = group.closure, group.stored, group.members[0].block
    assert block is not None
    inside = set(closure)
    inputs = list(dict.fromkeys(v for member in closure for v in member.inputs if v.operation not in inside))
    region = Region(Block([value.type for value in inputs], [value.name for value in inputs]))
    cloner = Cloner(dict(zip(inputs, region.block.arguments, strict=True)))
    for member in closure:
        region.block.append(cloner.operation(member))
    with Builder(region.block) as builder:
        builder.create(yield_, [cloner.values[value] for value in stored])
    last = group.members[-1]
    kernel = Operation(
        KERNEL,
        inputs,
        KERNEL.normalize(
            {"name": group.name, "kind": group.equal_kernel.kind, "schedule": group.options.stated or None}
        ),
        [value.type for value in stored],
        [region],
        names=[value.name for value in stored],
        location=last.location.by(f"fuse({group.proposer})"),
    )
    for value, result in zip(stored, kernel.results, strict=True):
        value.replace_uses(result, where=lambda user: user not in inside or is_free(user))
    anchor = last.next
    for operation in reversed(closure):
        if not is_free(operation) or not any(result.uses for result in operation.results):
            operation.erase()
    # Inserted last: the kernel's results have the names of the members' results, which are free only now.
    block.insert(kernel, anchor)
    return kernel


def sort_block(block: Block) -> None:
    """Order the operations so that definitions precede uses, and otherwise as they were.

    A kernel is inserted at the place of its last member, which may be after a reader of an earlier result.
    """
    operations = list(block)
    number = {operation: index for index, operation in enumerate(operations)}
    sequence = [operations[index] for index in run_order([[each] for each in operations], makers(block), number)]
    assert len(sequence) == len(operations), "legal groups form no cycle"
    if sequence != operations:
        for operation in sequence:
            block.remove(operation)
        for operation in sequence:
            block.append(operation)
