"""Fusion plans: which operations share a kernel, who proposed it, and why others do not.

A `Plan` partitions the fusable operations of a function into groups within its blocks, each of which becomes one
kernel. Groups and policies only propose: every merge is judged by numbered rules, of which those about
the inside of a kernel are decided by deriving it (`irc.kernel`), those about its resources here (`legal`), and those
between kernels where groups are merged (`irc.passes._group_graph`). `irc.diagnostics.rules("F")` states them.

Views, sizes, small constants and widening casts are *free*: a kernel reads through them by index arithmetic, so they
belong to no group. Each group takes along those that lead to its operands (`closure`), and several groups
may take the same one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from irc import dims
from irc.diagnostics import Diagnostic, fail
from irc.dims import Dim, Symbol
from irc.ir import Block, Function, Operation, Value
from irc.kernel import Bytes, Expansion, Kernel, LegalityFailure, count, derive
from irc.pass_manager import Numerics
from irc.user_code import blaming, place_of_code
from irc.weights import INLINE_LIMIT, Tensor

FREE_VIEWS = frozenset({"reshape", "transpose", "expand", "slice", "split", "iota"})
# Products, convolutions and attention, which PyTorch leaves to libraries.
LIBRARY = frozenset({"dot", "matmul", "linear", "gemm", "attention", "conv", "conv_transpose"})
# What structures a program and runs on no device.
STRUCTURE = frozenset({"const", "return", "yield", "dim", "bind", "assume", "assert", "refine", "if", "loop", "call"})
# Kernel arguments are pointers; launch limits and register pressure make more of them useless.
MOST_POINTERS = 32
LARGEST_EXPONENT = 1000  # of a float, as far as scores need it
MOST_FREE = 64  # free operations on a path that a kernel takes along
DEFAULT_SIZE = 64


# -- groups and plans ------------------------------------------------------------------------------------------


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
        return sorted(found, key=lambda operation: (operation.block is own, operation._order))

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
    if operation.name in FREE_VIEWS or operation.name == "dim":
        return True
    if operation.name == "const":
        tensor = operation.attributes["value"]
        return tensor.name is None and (not tensor.shape or (tensor.size <= INLINE_LIMIT and tensor.is_splat()))
    if operation.name == "cast":
        before, after = operation.inputs[0].dtype, operation.attributes["to"]
        return bool(before.is_float and after.is_float and before.bits < after.bits)
    return False


@dataclass
class Decision:
    """The last judgment of a merge, by the names of its groups then; without a reason it was wanted."""

    producer: str
    consumer: str
    code: str | None = None
    rule: str | None = None
    reason: str = ""
    bytes_saved: int = 0


@dataclass
class Plan:
    """The groups of a function, in topological order within each block, and the decisions that led to them."""

    groups: list[Group]
    decisions: list[Decision] = field(default_factory=list)
    refused: list[Diagnostic] = field(default_factory=list)  # entries of a plan file that cannot be followed


# -- proposing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyRejection:
    """What a policy returns instead of a score: why a legal merge is not to be made."""

    reason: str
    at: Any = None


def reject(reason: str, at: Any = None) -> PolicyRejection:
    """For a policy to return: do not make this legal merge, for this reason, which is about the group or value `at`."""
    return PolicyRejection(reason, at)


@dataclass
class Merge:
    """Two groups that may become one (with those between them), and what it would change: what a policy judges.

    All figures are for one run at the sizes in `sizes` (symbols that were not given count 64, or the bound
    that is nearest to it).
    """

    producer: Group
    consumer: Group
    merged: Group
    parts: Sequence[Group]
    sizes: Mapping[Symbol, int]

    @cached_property
    def before(self) -> tuple[Bytes, ...]:
        return tuple(part.bytes(self.sizes) for part in self.parts)

    @cached_property
    def after(self) -> Bytes:
        return self.merged.bytes(self.sizes)

    @property
    def bytes_saved(self) -> int:
        """Distinct bytes at kernel boundaries that the merge takes away."""
        return sum(part.distinct_bytes for part in self.before) - self.after.distinct_bytes

    @property
    def loaded_bytes_saved(self) -> int:
        """Bytes of all loads and stores of all programs that the merge takes away; negative when it adds some."""
        return sum(part.loaded_bytes for part in self.before) - self.after.loaded_bytes

    @property
    def flops_added(self) -> int:
        """Arithmetic that the merge repeats."""
        return self.after.flops - sum(part.flops for part in self.before)

    @property
    def recomputes_reduction(self) -> bool:
        """Whether a reduction would run more often than now."""
        kernel = self.merged.judged
        return not isinstance(kernel, LegalityFailure) and kernel.recomputes_reduction


@dataclass(frozen=True)
class Policy:
    """A function of a `Merge` that returns a score (merge the largest first; at most 0: do not) or `reject(...)`."""

    name: str
    function: Callable[[Merge], float | PolicyRejection]

    def __call__(self, merge: Merge) -> float | PolicyRejection:
        with blaming("policy.raised", f"the policy {self.name} failed", self.function):
            verdict = self.function(merge)
        not_a_number = verdict != verdict  # as NaN is
        if isinstance(verdict, bool) or not isinstance(verdict, (int, float, PolicyRejection)) or not_a_number:
            raise fail("policy.result", f"policy {self.name} returned {verdict!r}",
                       at=place_of_code(self.function), expected="a number or reject(...)")  # fmt: skip
        if isinstance(verdict, int) and verdict.bit_length() > LARGEST_EXPONENT:  # bytes of a model that cannot run
            return math.inf if verdict > 0 else -math.inf
        return verdict


def policy(function: Callable[[Merge], float | PolicyRejection]) -> Policy:
    """Declare a fusion policy; use it as `fuse{policy=FILE.py:NAME}`."""
    return Policy(function.__name__, function)


@dataclass(frozen=True)
class GroupPattern:
    """A pattern whose matches are proposed as groups before the policy is asked."""

    name: str
    function: Callable[..., Any]
    doc: str


def group(function: Callable[..., Any]) -> GroupPattern:
    """Declare a group: a function that returns a pattern. It proposes; the legality rules judge."""
    return GroupPattern(function.__name__, function, inspect.cleandoc(function.__doc__ or ""))


# -- judging ---------------------------------------------------------------------------------------------------


def legal(group: Group, numerics: Numerics = "keeps_more_precision", *, named: bool = True) -> LegalityFailure | None:
    """Judge one group by the rules about a single kernel; None means legal. `numerics` is what the user allows. Unless
    it is to be `named`, the failure may speak of the values of an equal group, which costs less."""
    if any(member.block is not group.members[0].block for member in group.members):
        return LegalityFailure("fuse.impure_member", "F2", "the members stand in different blocks")
    kernel = group.judged
    if isinstance(kernel, LegalityFailure):
        return group.kernel if named and isinstance(group.kernel, LegalityFailure) else kernel
    if numerics == "exact" and kernel.numerics != "exact":
        message = "it keeps more precision than its types say, where the user allows `exact` only"
        return LegalityFailure("fuse.numerics", "F13", message, group.stored)
    inside = set(group.closure)
    read = {operand for member in group.closure for operand in member.inputs if operand.operation not in inside}
    pointers = len(read) + len(group.stored)
    if pointers > MOST_POINTERS:
        return LegalityFailure("fuse.resources", "F14", f"{pointers} pointers, at most {MOST_POINTERS}")
    return None


# -- sizes -----------------------------------------------------------------------------------------------------


def representative_sizes(function: Function, given: Mapping[str, int]) -> dict[Symbol, int]:
    """A size for every symbol: the one given by name, else 64 moved into the symbol's range and to its multiple, or
    what it broadcasts against. Raises `run.dim_range` for given sizes that are out of range or do not broadcast."""
    symbols = {**function.symbols, **{s.name: s for operation in function.walk() for s in operation.symbols}}
    for name in given:
        if name not in symbols:
            known = ", ".join(symbols) or "none"
            raise fail("dim.unbound", f"@{function.name} has no symbol `{name}`", expected=f"one of: {known}")
    sizes = {}
    for name, symbol in symbols.items():
        size = given.get(name)
        if size is None:
            size = max(symbol.low, min(symbol.high, DEFAULT_SIZE))
            size -= size % symbol.multiple if size % symbol.multiple < size else 0
        elif not symbol.low <= size <= symbol.high or size % symbol.multiple:
            allowed = f"{name} in [{symbol.low}, {symbol.high}], a multiple of {symbol.multiple}"
            raise fail("run.dim_range", f"{name} = {size}", expected=allowed)
        sizes[symbol] = size
    values = (value for operation in function.walk() for value in operation.results if value.type.is_ranked)
    extents_of = dict.fromkeys(dim for value in values for dim in value.shape)
    for extents in dict.fromkeys(dims.broadcasts(extents_of)):
        _make_agree(extents, sizes, {symbols[name] for name in given})
    return sizes


def _make_agree(extents: tuple[Dim, ...], sizes: dict[Symbol, int], given: set[Symbol]) -> None:
    """Give symbols that stand alone among extents that broadcast the size of the others, unless theirs is given."""
    movable = {symbol.expr: symbol for symbol in sizes.keys() - given if symbol.expr in extents}
    values = {extent: dims.estimate(extent, sizes) for extent in extents}
    wanted = max((value for extent, value in values.items() if extent not in movable), default=max(values.values()))
    for extent, symbol in movable.items():
        if values[extent] not in (1, wanted) and symbol.low <= wanted <= symbol.high and not wanted % symbol.multiple:
            sizes[symbol] = wanted
    fitting = {dims.estimate(extent, sizes) for extent in extents} - {1}
    if len(fitting) > 1 and given.issuperset(symbol for extent in extents for symbol in dims.free_symbols(extent)):
        text = " and ".join(f"{extent} = {values[extent]}" for extent in extents)
        raise fail("run.dim_range", f"{text} do not broadcast", expected="equal sizes, or 1")


def bytes_at(value: Value, sizes: Mapping[Symbol, int]) -> int:
    """Of a value at these sizes; none without a rank, or where a size is below 0: in a branch that is not taken."""
    return max(0, dims.estimate(value.type.nbytes, sizes)) if value.type.is_ranked else 0
