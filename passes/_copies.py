"""Copies of the operations that several groups of a plan compute (`irc.cover`): `separated` groups share none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from irc.cloning import Cloner
from irc.cover import owned
from irc.group import Group, is_free
from irc.ir import Operation


def separated(groups: Sequence[Group]) -> list[Group]:
    """The groups, with a copy of each operation that a group has and does not own, and of the free operations through
    which it reads them."""
    shared = [set(group.members).difference(owned_members)
              for group, owned_members in zip(groups, owned(groups), strict=True)]  # fmt: skip
    # From the last group on: copies of an earlier one replace operands, which a later group's copies would inherit.
    result = [_with_copies(group, others) if others else group
              for group, others in zip(reversed(groups), reversed(shared), strict=True)]  # fmt: skip
    return result[::-1]


def _with_copies(group: Group, others: Collection[Operation]) -> Group:
    cloner, members = Cloner(), list[Operation]()
    for operation in group.closure:
        reads_a_copy = any(value in cloner.values for value in operation.inputs)
        if operation in others or (is_free(operation) and reads_a_copy):
            block = operation.block
            assert block is not None
            copy = cloner.operation(operation)
            block.insert(copy, operation.next)
            members += [copy] if operation in others else []
            continue
        members += [operation] if not is_free(operation) else []
        for index, value in enumerate(operation.operands):
            if value is not None and value in cloner.values:
                operation.set_operand(index, cloner.values[value])
    # A free operation that only this group read would keep a use of what it read.
    for operation in reversed(group.closure):
        if is_free(operation) and operation.block is not None and not any(result.uses for result in operation.results):
            operation.erase()
    members.sort(key=lambda member: member.order_label)
    return replace(group, members=members, cache=None, stores=None)
