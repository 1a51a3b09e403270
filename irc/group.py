"""Groups: sets of operations that become one kernel.

Start at `Group`: its `members` are the operations that a fusion plan (`irc.plan`) assigns to it. Views, sizes, small
constants and widening casts are *free* (`is_free`): each kernel that reads their results computes them itself, at no
cost in memory traffic. A fusion plan assigns them to no group; instead each group includes those from which its
operands are computed (`closure`), and several groups may include the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from irc.dims import Symbol
from irc.interfaces import Trait
from irc.ir import Block, Operation, Value
from irc.kernel import Bytes, Expansion, Kernel, LegalityFailure, Traces, count, derive
from irc.kernel.rules import needs_no_more_than_a_target_has
from irc.schedule_options import NO_OPTIONS, ScheduleOptions
from irc.weights import INLINE_LIMIT, Tensor

MOST_FREE = 64  # longest path of free operations that a kernel includes; it reads the results of longer ones


class DerivationCache:
    """Kernels and their costs, by the structure of their groups (`structure`), for the groups of one block.

    Deriving a kernel takes most of the time of fusion. With the cache, the groups of equal layers of a model, and a
    merge that is scored twice, are derived once. `expansion` has the block's operations as primitives.
    """

    def __init__(self, block: Block) -> None:
        self.expansion = Expansion(block)
        self.traces = Traces()
        self.groups: dict[Hashable, Group] = {}
        self._free: dict[Operation, list[Operation]] = {}
        self._signatures: dict[Operation, int] = {}
        self._types: dict[Value, int] = {}
        self._numbers: dict[Hashable, int] = {}
        self._costs: dict[Kernel, tuple[Mapping[Symbol, int], Bytes]] = {}

    def structure(self, group: Group) -> Hashable:
        """All that a group's kernel depends on, as a hashable key: definitions, attributes, operand types, which
        operation reads which result, and which results are stored. Names do not count."""
        numbers: dict[Value, int] = {}
        parts: list[int] = []
        stored = set(group.stored)
        for operation in group.closure:
            parts.append(self._signature(operation))
            for operand in operation.inputs:
                number = numbers.get(operand)
                if number is None:
                    numbers[operand] = len(numbers)
                    parts += (numbers[operand], self._type(operand))
                else:
                    parts.append(number)
            for result in operation.results:
                numbers[result] = len(numbers)
                parts.append(result in stored)
        return tuple(parts)

    def _signature(self, operation: Operation) -> int:
        """A number for the definition, the attributes, and which operands are given."""
        if operation not in self._signatures:
            values = operation.attributes.items()
            fixed = tuple((name, (value.dtype, value.shape, value.array().tobytes()) if isinstance(value, Tensor)
                           else value) for name, value in values)  # fmt: skip
            given = tuple(operand is not None for operand in operation.operands)
            signature = (operation.definition, fixed, given, len(operation.results))
            self._signatures[operation] = self._numbers.setdefault(signature, len(self._numbers))
        return self._signatures[operation]

    def _type(self, value: Value) -> int:
        if value not in self._types:
            self._types[value] = self._numbers.setdefault(value.type, len(self._numbers))
        return self._types[value]

    def free(self, operation: Operation) -> list[Operation]:
        """`free_operations` that the operation reads, computed once."""
        if operation not in self._free:
            self._free[operation] = free_operations(operation)
        return self._free[operation]

    def cost(self, kernel: Kernel, sizes: Mapping[Symbol, int]) -> Bytes:
        """The memory traffic of a kernel (`irc.kernel.count`) at these sizes of the symbols, computed once."""
        if kernel not in self._costs or self._costs[kernel][0] is not sizes:
            self._costs[kernel] = (sizes, count(kernel, sizes))
        return self._costs[kernel][1]


@dataclass(eq=False)
class Group:
    """Operations that become one kernel.

    members: in block order, without the free operations that the kernel also computes (`closure`).
    proposer: what proposed the group, for messages: the name of a policy or pattern, "plan" for a plan file, or "seed"
        for the group of one operation with which fusion starts.
    options: what a plan file or a user's function states of the kernel's schedule.
    stores: the results that it stores, where other groups compute some of the members, too (`irc.cover`); None for
        those that operations outside read.
    """

    members: list[Operation]
    proposer: str = "seed"
    cache: DerivationCache | None = field(default=None, repr=False)
    options: ScheduleOptions = NO_OPTIONS
    stores: Collection[Value] | None = None

    @property
    def name(self) -> str:
        """The name of the kernel: that of the first result of the last member."""
        return self.members[-1].results[0].name

    @cached_property
    def closure(self) -> list[Operation]:
        """The members, and the free operations from which their operands are computed, in block order.

        Small constants may be defined in a block around that of the members, and come first. Of a path of more than
        `MOST_FREE` free operations only the last are included; the kernel reads the result of the one before them.
        """
        block = self.members[0].block if self.members else None
        included = set(self.members)
        for member in self.members:
            included.update(free_operations(member) if self.cache is None else self.cache.free(member))
        return sorted(included, key=lambda operation: (operation.block is block, operation.order_label))

    @cached_property
    def kernel(self) -> Kernel | LegalityFailure:
        """The derived kernel, or the legality rule that the group breaks. Its pointers are counted before: to derive a
        kernel of one concatenation takes time that is quadratic in them. Of values that are computed in the same way by
        several groups of a block, such as the means of two norms, a failure names that of the first."""
        try:
            inside = set(self.closure)
            read = {operand for member in inside for operand in member.inputs if operand.operation not in inside}
            needs_no_more_than_a_target_has(pointers=len(read) + len(self.stored))
            shared = (None, None) if self.cache is None else (self.cache.expansion, self.cache.traces)
            return derive(self.closure, outputs=self.stored, expansion=shared[0], traces=shared[1],
                          options=self.options)  # fmt: skip
        except LegalityFailure as failure:
            return failure

    @cached_property
    def equal(self) -> Group:
        """The first group of the same structure in the cache, or this one."""
        if self.cache is None or self.options.stated or not all(map(self.cache.expansion.has, self.members)):
            return self
        return self.cache.groups.setdefault(self.cache.structure(self), self)

    @property
    def equal_kernel(self) -> Kernel | LegalityFailure:
        """The kernel of the equal group, whose values have other names: enough for legality and cost."""
        return self.equal.kernel

    @property
    def failure(self) -> LegalityFailure | None:
        """The legality rule that the group breaks, with the names of its values, or None."""
        failure = self.equal_kernel
        if not isinstance(failure, LegalityFailure):
            return None
        return failure.renamed(dict(zip(self.equal._names, self._names, strict=True)))

    @property
    def _names(self) -> list[str]:
        """The names of the values that are read and computed, in an order that follows from the structure."""
        return [value.name for each in self.closure for value in (*each.inputs, *each.results)]

    def bytes(self, sizes: Mapping[Symbol, int]) -> Bytes:
        """The memory traffic of the kernel (`irc.kernel.count`), at these sizes of the symbols; raises the
        `LegalityFailure` of a group that cannot be a kernel."""
        if isinstance(self.equal_kernel, LegalityFailure):
            raise self.equal_kernel
        return count(self.equal_kernel, sizes) if self.cache is None else self.cache.cost(self.equal_kernel, sizes)

    @cached_property
    def stored(self) -> list[Value]:
        """The results of members that the kernel stores: those that operations outside the closure read (rule F3).

        A free operation of the closure that is read outside remains in the block beside the kernel, so a member's
        result that it reads is stored, too.
        """
        if self.stores is not None:
            return [result for member in self.members for result in member.results if result in self.stores]
        inside, members = set(self.closure), set(self.members)
        remaining: set[Operation] = set()

        def is_read_outside(value: Value) -> bool:
            return any(user not in inside or user in remaining for user, _ in value.uses)

        for operation in reversed(self.closure):
            if operation not in members and any(map(is_read_outside, operation.results)):
                remaining.add(operation)
        return [result for member in self.members for result in member.results if is_read_outside(result)]


def free_operations(member: Operation) -> list[Operation]:
    """The free operations from which the operands of a member of a group are computed: on each path the last
    `MOST_FREE` at most."""
    included: dict[Operation, None] = {}
    latest = [member]
    for _ in range(MOST_FREE):
        producers = dict.fromkeys(value.operation for operation in latest for value in operation.inputs)
        latest = [each for each in producers if each is not None and each not in included and is_free(each)
                  and (each.block is member.block or each.name == "const")]  # fmt: skip
        if not latest:
            break
        included.update(dict.fromkeys(latest))
    return list(included)


def is_free(operation: Operation) -> bool:
    """Whether each kernel that reads the operation's results computes it itself, at no cost in memory traffic.

    These are operations with `Trait.FREE` (views, sizes), scalars and small constants of one repeated element that have
    no name, and casts of floats to a wider float type.
    """
    if Trait.FREE in operation.definition.traits:
        return True
    if operation.name == "const":
        tensor = operation.attributes["value"]
        return tensor.name is None and (not tensor.shape or (tensor.size <= INLINE_LIMIT and tensor.is_splat()))
    if operation.name == "cast":
        before, after = operation.inputs[0].dtype, operation.attributes["to"]
        return bool(before.is_float and after.is_float and before.bits < after.bits)
    return False
