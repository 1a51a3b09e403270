"""Channels last: what kernels store for others, in the order of memory that convolutions and pooling read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from irc.cloning import Cloner
from irc.device import Device
from irc.dims import Sizes
from irc.disjoint_sets import DisjointSets
from irc.index_map import inverse, same
from irc.ir import Block, Function, Operation, Region, Value
from irc.kernel import Kernel, LegalityFailure, kernel_of, members_of
from irc.kernel.access_width import accesses_of_threads
from irc.kernel.dag import Load, products_of, walk
from irc.kernel.splitting import chosen_sizes
from irc.module import Module
from irc.op import Builder, const, yield_
from irc.ops import transpose
from irc.pass_manager import Pass, PassContext
from irc.passes._kernels import KERNEL
from irc.passes._stored_names import StoredNames
from irc.plan_file import structural_hash
from irc.rewrite import erase_dead
from irc.sizes import representative_sizes
from irc.types import TensorType
from irc.weights import Tensor

LEAST_RANK = 3  # of what has channels and positions
MOST_ROUNDS = 4  # over the values of a chain, each of which may change what its neighbors prefer

Permutation = tuple[int, ...]
Orders = Mapping[Value, Permutation]  # of the dims of values, outermost first; those of other values are as they were


@dataclass
class ChannelsLast(Pass):
    """Store results between kernels with their channels last, where threads then access memory less often.

    values: `chosen` for those whose order saves accesses, `all` for every one that can be stored so, `none` for none.

    A convolution sums over channels. Stored last, these are neighbors in memory, which a thread loads 128 bits at a
    time; along the width, windows begin at odd places, and each element is a load of its own. The same holds for
    pooling and for depthwise convolutions, whose results are then neighbors. The kernel that computes a value stores it
    in the other order, and those that read it index it so: no launch is added, and no byte moved in addition. Constant
    weights of a convolution are stored as it reads them, its channels last, and filters last where a window has one
    channel; those that a convolution of another order reads, too, are stored twice.

    Values that kernels read together change together first, then each by itself, as long as the kernels that compute
    and read it access memory less often, counted from their loops and from how wide each access can be. So a chain
    from one convolution to the next agrees, and what a norm over positions reads, or most odd numbers of channels,
    keep their order. So does what would let `split` divide a reduction that is whole, and what a depthwise convolution
    or pooling reads that is computed in the loop of a product: that takes more registers than there are. What is no
    kernel's, such as the results of a program and operands of library calls, keeps it, too.

    Before: @a { %a = conv %x, %v }, @b { %b = conv %a, %w }
    After:  @a { %0 = conv %x, %v; %a = transpose %0 {permutation = [0, 2, 3, 1]} },
            @b { %1 = transpose %a {permutation = [0, 3, 1, 2]}; ...; %b = conv %1, %2 }
    """

    values: Literal["chosen", "all", "none"] = "chosen"

    def run(self, module: Module, context: PassContext) -> bool:
        number, names = 0, StoredNames(module)
        for function in module.functions.values():
            if self.values == "none" or not any(has_convolution(operation) for operation in function.walk()):
                continue
            graph = KernelGraph(function, representative_sizes(function, context.sizes), context.device)
            chosen = frozenset[Value]()
            for chain in graph.chains():
                chosen |= graph.every_legal(chain) if self.values == "all" else graph.fewest_accesses(chain)
            chosen = graph.right_together(chosen)
            for kernel in dict.fromkeys(value.operation for value in chosen):
                assert kernel is not None
                context.remark("channels_last", "ordered", [kernel], reason="stored with its channels last")
            rewrite(graph, chosen, names)
            number += len(chosen)
        context.count("channels_last", "values", number)
        return number > 0


def has_convolution(operation: Operation) -> bool:
    return operation.name == "kernel" and any(each.name == "conv" for each in operation.regions[0].block)


def moved_last(axis: int, rank: int) -> Permutation:
    """The order of dims in which one is the last, and the others stay as they are."""
    return (*(each for each in range(rank) if each != axis), axis)


def is_movable(value: Value) -> bool:
    """Whether a value lies between kernels alone, and its memory would change if its channels were last."""
    maker = value.operation
    if maker is None or maker.name != "kernel" or not value.uses or not value.type.is_ranked:
        return False
    if value.rank < LEAST_RANK or any(user.name != "kernel" for user in value.users()):
        return False
    return not same(value.shape[1], 1) and not all(same(extent, 1) for extent in value.shape[2:])


def are_alike(one: Value, other: Value) -> bool:
    """Whether two values of a kernel are of one chain: of as many dims, and as many channels or the same positions."""
    if one.rank != other.rank:
        return False
    return same(one.shape[1], other.shape[1]) or all(map(same, one.shape[2:], other.shape[2:]))


class Figures(NamedTuple):
    """What decides on orders of what a kernel reads and stores: how often its threads then access memory, infinite
    where it is no kernel, and whether something else speaks against them: rules of the pass `split` would divide it,
    or a product computes its operand of windows of such values, which takes more registers than there are."""

    accesses: float
    kind: str = ""
    is_worse: bool = False


class Choice(NamedTuple):
    """The orders of what a kernel reads, by its argument, and of what it stores."""

    arguments: Orders
    results: Orders
    figures: Figures


class KernelGraph:
    """The kernels of a function, and what each would access if values that lie between them had their channels last."""

    def __init__(self, function: Function, sizes: Sizes, device: Device) -> None:
        self.sizes, self.device = sizes, device
        self.kernels = [operation for operation in function.walk() if operation.name == "kernel"]
        self.known: dict[object, Figures] = {}  # by what is computed and its orders
        self.choices: dict[tuple[Operation, frozenset[Value]], Choice] = {}
        self.hashes: dict[Operation, tuple[object, ...]] = {}

    @cached_property
    def movable(self) -> dict[Value, list[Operation]]:
        """The values that may be stored in another order, with the kernels that compute and read each."""
        values = [result for kernel in self.kernels for result in kernel.results if is_movable(result)]
        return {value: list(dict.fromkeys([value.operation, *value.users()])) for value in values
                if value.operation is not None}  # fmt: skip

    def values_of(self, kernel: Operation) -> list[Value]:
        return [value for value in dict.fromkeys((*kernel.inputs, *kernel.results)) if value in self.movable]

    def chains(self) -> Iterator[list[Value]]:
        """Values that kernels read or store together, of which some convolution reads or computes one."""
        joined = DisjointSets[Value]()
        for kernel in self.kernels:
            values = self.values_of(kernel)
            for number, value in enumerate(values):
                for other in (other for other in values[:number] if are_alike(value, other)):
                    joined.join(value, other)
        chains: dict[Value, list[Value]] = {}
        for value in self.movable:
            chains.setdefault(joined.find(value), []).append(value)
        for chain in chains.values():
            if any(has_convolution(kernel) for value in chain for kernel in self.movable[value]):
                yield chain

    # -- which values ------------------------------------------------------------------------------------------

    def accesses(self, kernels: Iterable[Operation], moved: frozenset[Value]) -> tuple[int, float]:
        """How many kernels the orders make worse (`Figures`) or illegal, and how often the others access memory."""
        refused, total = 0, 0.0
        for kernel in dict.fromkeys(kernels):
            figures = self.figures(kernel, moved)
            if not math.isfinite(figures.accesses) or (figures.is_worse and not self.figures(kernel).is_worse):
                refused += 1
            else:
                total += figures.accesses
        return refused, total

    def fewest_accesses(self, chain: list[Value]) -> frozenset[Value]:
        """The values of a chain that are moved: all but those that a kernel reads or stores which then accesses memory
        more often, where that saves accesses, and all of a kernel that no other order of one of them makes right; none
        if the rest saves none."""
        moved, every = frozenset(chain), [kernel for value in chain for kernel in self.movable[value]]
        for _ in range(MOST_ROUNDS):
            before = moved
            for kernel in dict.fromkeys(every):
                for value in self.values_of(kernel):
                    if value in moved and self.accesses([kernel], moved) > self.accesses([kernel], frozenset()):
                        kept, near = moved - {value}, self.movable[value]
                        moved = kept if self.accesses(near, kept) < self.accesses(near, moved) else moved
                if self.accesses([kernel], moved)[0]:
                    moved = moved.difference(self.values_of(kernel))
            if moved == before:
                break
        return moved if self.accesses(every, moved) < self.accesses(every, frozenset()) else frozenset()

    def right_together(self, moved: frozenset[Value]) -> frozenset[Value]:
        """The values of all chains, without those of a kernel of two chains that their orders together make worse."""
        while wrong := next((kernel for kernel in self.kernels if self.accesses([kernel], moved)[0]), None):
            moved = moved.difference(self.values_of(wrong))
        return moved

    def every_legal(self, chain: list[Value]) -> frozenset[Value]:
        """The values of a chain that can be moved, in order, with those before them."""
        moved = frozenset[Value]()
        for value in chain:
            if all(math.isfinite(self.figures(kernel, moved | {value}).accesses) for kernel in self.movable[value]):
                moved |= {value}
        return moved

    # -- a kernel ----------------------------------------------------------------------------------------------

    def figures(self, kernel: Operation, moved: frozenset[Value] = frozenset()) -> Figures:
        return self.choice(kernel, moved).figures

    def choice(self, kernel: Operation, moved: frozenset[Value]) -> Choice:
        """How a kernel reads and stores where values are moved, with the constant weights of what convolves them."""
        mine = moved.intersection(self.values_of(kernel))
        if (kernel, mine) not in self.choices:
            arguments = dict(zip(kernel.regions[0].block.arguments, kernel.inputs, strict=True))
            read = {argument: moved_last(1, value.rank) for argument, value in arguments.items() if value in mine}
            stored = {result: moved_last(1, result.rank) for result in kernel.results if result in mine}
            if mine:
                read |= weight_orders(kernel, read)
            self.choices[kernel, mine] = Choice(read, stored, self._figures(kernel, read, stored))
        return self.choices[kernel, mine]

    def _figures(self, kernel: Operation, read: Orders, stored: Orders) -> Figures:
        if kernel not in self.hashes:
            self.hashes[kernel] = content_of(kernel)
        orders = [read.get(value) for value in kernel.regions[0].block.arguments]
        key = self.hashes[kernel], tuple(orders), tuple(map(stored.get, kernel.results))
        if key not in self.known:
            operation = reordered(kernel, kernel.inputs, read, stored) if read or stored else kernel
            try:
                self.known[key] = self._derived(kernel_of(operation), bool(read))
            except LegalityFailure:
                self.known[key] = Figures(math.inf)
            if operation is not kernel:
                operation.erase()
        return self.known[key]

    def _derived(self, kernel: Kernel, is_read: bool) -> Figures:
        is_divided = kernel.kind == "reduction" and bool(chosen_sizes(kernel, self.sizes, self.device))
        is_worse = is_divided or (is_read and multiplies_windows(kernel))
        return Figures(accesses_of_threads(kernel, self.sizes), kernel.kind, is_worse)


def multiplies_windows(kernel: Kernel) -> bool:
    """Whether an operand of a product is computed of elements of one value at several places. On sm_80, of nine places
    128 bits at a time, that spilled where 16 bits at a time took 221 registers."""
    for operand in dict.fromkeys(operand for product in products_of(kernel.roots) for operand in product.operands):
        buffers = [node.buffer for node in walk((operand,)) if isinstance(node, Load)]
        if len(set(buffers)) < len(buffers):
            return True
    return False


def content_of(kernel: Operation) -> tuple[object, ...]:
    """What a kernel computes and how, the same for equal layers."""
    block, members = kernel.regions[0].block, members_of(kernel)
    results = [result for member in members for result in member.results]
    numbers = {value: number for number, value in enumerate((*block.arguments, *results))}
    read = tuple(numbers[value] for member in members for value in member.inputs)
    stored = tuple(numbers[value] for value in block.terminator.inputs)
    return structural_hash(members), read, stored, tuple((kernel.attributes["schedule"] or {}).items())


def weight_orders(kernel: Operation, read: Orders) -> dict[Value, Permutation]:
    """The constant weights of convolutions of what is read with its channels last: these lie along channels, too, or
    along filters where a window has one channel."""
    block, orders = kernel.regions[0].block, dict[Value, Permutation]()
    for argument, operand in zip(block.arguments, kernel.inputs, strict=True):
        maker, users = operand.operation, list(dict.fromkeys(argument.users()))
        if maker is None or maker.definition is not const or operand.rank < LEAST_RANK or not users:
            continue
        if any(user.name != "conv" or user.inputs[1] is not argument or user.inputs[0] is argument for user in users):
            continue
        axis = 0 if same(operand.shape[1], 1) else 1
        is_read = any(not read.keys().isdisjoint(arguments_of(user.inputs[0])) for user in users)
        if is_read and any(not same(each, 1) for each in operand.shape[axis + 1 :]):
            orders[argument] = moved_last(axis, operand.rank)
    return orders


def arguments_of(value: Value) -> set[Value]:
    """The arguments of a region that a value is computed from."""
    seen, waiting = {value}, [value]
    while waiting:
        maker = waiting.pop().operation
        new = [operand for operand in maker.inputs if operand not in seen] if maker is not None else []
        seen.update(new)
        waiting += new
    return {each for each in seen if each.operation is None}


# -- rewriting -------------------------------------------------------------------------------------------------


def reordered(kernel: Operation, operands: Iterable[Value], read: Orders, stored: Orders) -> Operation:
    """A kernel that computes the same of operands in other orders, and stores results in others; detached."""
    region = kernel.regions[0].block
    types = [permuted(argument.type, read.get(argument)) for argument in region.arguments]
    block = Block(types, [argument.name for argument in region.arguments])
    cloner = Cloner()
    with Builder(block, location=kernel.location.by("channels_last")):
        for outer, argument in zip(region.arguments, block.arguments, strict=True):
            inner = transpose(argument, permutation=inverse(read[outer])) if outer in read else argument
            cloner.values[outer] = inner
        for member in members_of(kernel):
            block.append(cloner.operation(member))
        yielded = [cloner.values[value] for value in region.terminator.inputs]
        pairs = zip(kernel.results, yielded, strict=True)
        yield_(*(transpose(value, permutation=stored[result]) if result in stored else value
                 for result, value in pairs))  # fmt: skip
    return Operation(KERNEL, operands, kernel.attributes, [permuted(each.type, stored.get(each))
                     for each in kernel.results], [Region(block)], names=[each.name for each in kernel.results],
                     location=kernel.location.by("channels_last"))  # fmt: skip


def permuted(type_: TensorType, permutation: Permutation | None) -> TensorType:
    return type_ if permutation is None else TensorType(type_.dtype, [type_.dims[axis] for axis in permutation])


def rewrite(graph: KernelGraph, moved: frozenset[Value], names: StoredNames) -> None:
    """Store the values with their channels last, and read them so."""
    changed = [kernel for kernel in graph.kernels if moved.intersection(graph.values_of(kernel))]
    values, copies = dict[Value, Value](), list[Operation]()
    weights: dict[tuple[Value, Permutation], Value] = {}
    for kernel in changed:
        choice = graph.choice(kernel, moved)
        operands = [values.get(operand, operand) for operand in kernel.inputs]
        for place, argument in enumerate(kernel.regions[0].block.arguments):
            constant, permutation = operands[place].operation, choice.arguments.get(argument)
            if permutation is not None and constant is not None and constant.definition is const:
                key = operands[place], permutation
                if key not in weights:
                    weights[key] = stored_constant(constant, permutation, names)
                operands[place] = weights[key]
        copy = reordered(kernel, operands, choice.arguments, choice.results)
        copy.attributes["kind"] = choice.figures.kind
        values.update(zip(kernel.results, copy.results, strict=True))
        copies.append(copy)
    for value, copy_value in values.items():
        if value not in moved:
            value.replace_uses(copy_value)
    for kernel, copy in reversed(list(zip(changed, copies, strict=True))):  # readers first
        block, anchor = kernel.block, kernel.next
        assert block is not None
        kernel.erase()
        block.insert(copy, anchor)  # last, since its results have the names of the kernel's
    erase_dead(constant.operation for constant, _ in weights if constant.operation is not None)


def stored_constant(constant: Operation, permutation: Permutation, names: StoredNames) -> Value:
    """A constant whose elements lie in another order, rearranged when they are read."""
    tensor: Tensor = constant.attributes["value"]
    shape = tuple(tensor.shape[axis] for axis in permutation)

    with Builder.before_operation(constant, constant.location.by("channels_last")):
        return names.rearranged(tensor, shape, lambda array: np.transpose(array, permutation), "channels_last")
