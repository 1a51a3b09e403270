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

MOST_FREE = 64  # free operations on a path that a kernel takes along


class Trials:
    """What the groups that are tried on a block share: copies of primitives, and kernels with their costs by structure,
    so that equal layers, and a merge that is judged again, derive a kernel once."""

    def __init__(self, block: Block) -> None:
        self.expansion = Expansion(block)
        self.kernels: dict[Hashable, Kernel | LegalityFailure] = {}
        self._attributes: dict[Operation, Hashable] = {}
        self._costs: dict[Kernel, tuple[Mapping[Symbol, int], Bytes]] = {}

    def structure(self, group: Group) -> Hashable:
        """What decides a group's kernel, without names."""
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
    """Operations that become one kernel, in block order, without the free ones that it takes along."""

    members: list[Operation]
    proposer: str = "seed"
    trials: Trials | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the last value that is computed: kernels are called by it."""
        return self.members[-1].results[0].name

    @cached_property
    def closure(self) -> list[Operation]:
        """The members and the free operations that lead to their operands, in block order; small constants of the
        blocks around theirs come first. Of a long chain of free operations only the end is taken along."""
        own = self.members[0].block if self.members else None
        found: dict[Operation, None] = dict.fromkeys(self.members)
        reading = list(self.members)
        for _ in range(MOST_FREE):
            if not reading:
                break
            makers = dict.fromkeys(value.operation for operation in reading for value in operation.inputs)
            reading = [maker for maker in makers if maker is not None and maker not in found and is_free(maker)
                       and (maker.block is own or maker.name == "const")]  # fmt: skip
            found.update(dict.fromkeys(reading))
        return sorted(found, key=lambda operation: (operation.block is own, operation.order_label))

    @cached_property
    def kernel(self) -> Kernel | LegalityFailure:
        """The kernel, or the reason why there is none."""
        try:
            expansion = None if self.trials is None else self.trials.expansion
            return derive(self.closure, outputs=self.stored, expansion=expansion)
        except LegalityFailure as failure:
            return failure

    @cached_property
    def judged(self) -> Kernel | LegalityFailure:
        """The kernel or the failure, or one that is equal but for names: of other values, but of the same legality and
        cost. `kernel` has the names."""
        if self.trials is None or not all(map(self.trials.expansion.has, self.members)):
            return self.kernel
        structure = self.trials.structure(self)
        if structure not in self.trials.kernels:
            self.trials.kernels[structure] = self.kernel
        return self.trials.kernels[structure]

    def bytes(self, sizes: Mapping[Symbol, int]) -> Bytes:
        """The byte model of a legal group, at these sizes of the symbols."""
        if isinstance(self.judged, LegalityFailure):
            raise self.judged
        return count(self.judged, sizes) if self.trials is None else self.trials.cost(self.judged, sizes)

    @cached_property
    def stored(self) -> list[Value]:
        """Results of members that something other than this group's closure reads (rule F3), also through free
        operations, which then stay and read their operands there."""
        inside, own = set(self.closure), set(self.members)
        staying: set[Operation] = set()

        def is_read_outside(value: Value) -> bool:
            return any(user not in inside or user in staying for user in value.users())

        for operation in reversed(self.closure):
            if operation not in own and any(map(is_read_outside, operation.results)):
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
