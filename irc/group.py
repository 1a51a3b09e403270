"""Groups: operations that become one kernel, and the operations that every kernel computes for itself.

Start at `Group`: `members` are the operations that a fusion plan assigns to it. Views, sizes, small constants and
widening casts are *free* (`is_free`): a kernel reads through them by index arithmetic, so they are members of no group.
Each group includes those that lead to its operands (`closure`), and several groups may include the same one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from irc.dims import Symbol
from irc.interfaces import Trait
from irc.ir import Block, Operation, Value
from irc.kernel import Bytes, Expansion, Kernel, LegalityFailure, count, derive
from irc.weights import INLINE_LIMIT, Tensor

MOST_FREE = 64  # free operations on a path that a kernel includes


class DerivationCache:
    """Kernels by the structure of their groups, with their costs, for the groups of one block: those of equal layers,
    and of a merge that is scored again, are derived once. `expansion` has the operations as primitives."""

    def __init__(self, block: Block) -> None:
        self.expansion = Expansion(block)
        self.kernels: dict[Hashable, Kernel | LegalityFailure] = {}
        self._attributes: dict[Operation, Hashable] = {}
        self._costs: dict[Kernel, tuple[Mapping[Symbol, int], Bytes]] = {}

    def structure(self, group: Group) -> Hashable:
        """The operations, types, attributes and results on which a group's kernel depends, without names."""
        numbers: dict[Value, int] = {}
        parts: list[Hashable] = []
        stored = set(group.stored)
        for operation in group.closure:
            for operand in operation.inputs:
                if operand not in numbers:
                    numbers[operand] = len(numbers)
                    parts.append(operand.type)
            operands = tuple(None if operand is None else numbers[operand] for operand in operation.operands)
            parts.append((operation.definition, self._fixed(operation), operands))
            for result in operation.results:
                numbers[result] = len(numbers)
                parts.append(result in stored)
        return tuple(parts)

    def _fixed(self, operation: Operation) -> Hashable:
        if operation not in self._attributes:
            values = operation.attributes.items()
            fixed = ((name, (value.dtype, value.shape, value.array().tobytes()) if isinstance(value, Tensor) else value)
                     for name, value in values)  # fmt: skip
            self._attributes[operation] = tuple(fixed)
        return self._attributes[operation]

    def cost(self, kernel: Kernel, sizes: Mapping[Symbol, int]) -> Bytes:
        """The byte model of a kernel at these sizes."""
        if kernel not in self._costs or self._costs[kernel][0] is not sizes:
            self._costs[kernel] = (sizes, count(kernel, sizes))
        return self._costs[kernel][1]


@dataclass(eq=False)
class Group:
    """Operations that become one kernel, in block order, without the free ones that it includes (`closure`).

    `proposer` is the policy, pattern or plan file that proposed it, for messages.
    """

    members: list[Operation]
    proposer: str = "seed"
    cache: DerivationCache | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the last value that is computed, which is the name of the kernel."""
        return self.members[-1].results[0].name

    @cached_property
    def closure(self) -> list[Operation]:
        """The members and the free operations that lead to their operands, in block order; small constants of the
        blocks around theirs come first. Of a long chain of free operations only the end is included."""
        block = self.members[0].block if self.members else None
        included: dict[Operation, None] = dict.fromkeys(self.members)
        reading = list(self.members)
        for _ in range(MOST_FREE):
            if not reading:
                break
            makers = dict.fromkeys(value.operation for operation in reading for value in operation.inputs)
            reading = [maker for maker in makers if maker is not None and maker not in included and is_free(maker)
                       and (maker.block is block or maker.name == "const")]  # fmt: skip
            included.update(dict.fromkeys(reading))
        return sorted(included, key=lambda operation: (operation.block is block, operation.order_label))

    @cached_property
    def kernel(self) -> Kernel | LegalityFailure:
        """The kernel, or the rule that the group breaks."""
        try:
            expansion = None if self.cache is None else self.cache.expansion
            return derive(self.closure, outputs=self.stored, expansion=expansion)
        except LegalityFailure as failure:
            return failure

    @cached_property
    def equal_kernel(self) -> Kernel | LegalityFailure:
        """`kernel`, or that of a group of the same structure, which has other names but the same legality and cost."""
        if self.cache is None or not all(map(self.cache.expansion.has, self.members)):
            return self.kernel
        structure = self.cache.structure(self)
        if structure not in self.cache.kernels:
            self.cache.kernels[structure] = self.kernel
        return self.cache.kernels[structure]

    def bytes(self, sizes: Mapping[Symbol, int]) -> Bytes:
        """The byte model of a legal group, at these sizes of the symbols."""
        if isinstance(self.equal_kernel, LegalityFailure):
            raise self.equal_kernel
        return count(self.equal_kernel, sizes) if self.cache is None else self.cache.cost(self.equal_kernel, sizes)

    @cached_property
    def stored(self) -> list[Value]:
        """Results of members that something other than this group's closure reads (rule F3), also through free
        operations, which then stay and read their operands there."""
        inside, members = set(self.closure), set(self.members)
        staying: set[Operation] = set()

        def is_read_outside(value: Value) -> bool:
            return any(user not in inside or user in staying for user in value.users())

        for operation in reversed(self.closure):
            if operation not in members and any(map(is_read_outside, operation.results)):
                staying.add(operation)
        return [result for member in self.members for result in member.results if is_read_outside(result)]


def is_free(operation: Operation) -> bool:
    """Whether a kernel reads through the operation at no cost: views, sizes, small constants, widening casts."""
    if Trait.FREE in operation.definition.traits:
        return True
    if operation.name == "const":
        tensor = operation.attributes["value"]
        return tensor.name is None and (not tensor.shape or (tensor.size <= INLINE_LIMIT and tensor.is_splat()))
    if operation.name == "cast":
        before, after = operation.inputs[0].dtype, operation.attributes["to"]
        return bool(before.is_float and after.is_float and before.bits < after.bits)
    return False
