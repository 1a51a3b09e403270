"""Split: reductions of few results in parts, with another kernel that combines the partial results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from irc import dims, ops
from irc.cloning import Cloner
from irc.device import Device
from irc.diagnostics import IrcError, fail
from irc.dims import Symbol
from irc.ir import Block, Operation, Region, Value
from irc.kernel import Kernel, LegalityFailure, count, kernel_of, members_of
from irc.kernel.failure import failure_of
from irc.kernel.nest import size_of
from irc.kernel.product_schedule import LEAST
from irc.kernel.roofline import kernel_estimate
from irc.kernel.schedule_rules import parts_are_kernels, products_are_divided, split_fits_the_kernel
from irc.kernel.splitting import chosen_sizes, reduces_columns, stated_size
from irc.kernel.steps import Expansion, Steps
from irc.module import Module
from irc.numerics import allows
from irc.op import Builder
from irc.ops import kernel as kernel_op
from irc.pass_manager import Pass, PassContext
from irc.passes._partial_softmax import SoftmaxInParts
from irc.passes._partials import InParts, Parts, is_divided
from irc.schedule_options import MOST_PARTS, ScheduleOptions
from irc.sizes import representative_sizes


@dataclass
class Split(Pass):
    """Divide what a kernel reduces into parts, where it would have fewer programs than a device has multiprocessors.

    parts: in how many parts what every kernel reduces is divided, if its schedule states none; 1 for none, and 0 where
           rules choose.

    A kernel whose schedule states `split = N` is divided into N parts, one that states `part = N` into parts of N
    elements, and with `split = 1` it stays. Where nothing is stated, rules decide at the sizes that are known: a
    program that reads for longer than two launches take is split, which the plan then states as a `part`.
    Partial results are stored to memory, and another kernel combines them: no atomics are used, so that results are the
    same in each run. What is computed before a reduction stays with it; what is computed of its result is in the kernel
    that combines, unless it varies over what is reduced. A product is divided along what it is summed over, where that
    takes less time by the model of cost; its partial results are of the type that it is added up in. Attention of a
    short query is divided along its keys, and a convolution along its channels. Where rows are reduced and something is
    reduced across them, such as the gradients of a norm and of its weights, rows are divided: the kernel for parts also
    stores what is computed of each row.

    Before: @y (%x: f32[16777216]) { %s = reduce_sum %x; %y = sqrt %s }
    After:  @y_parts { reduce_sum of each row of %x as f32[512, 32768] }, @y { %s = reduce_sum of these; %y = sqrt %s }
    """

    parts: int = 0

    def run(self, module: Module, context: PassContext) -> bool:
        if not 0 <= self.parts <= MOST_PARTS:
            raise fail("pass.option", f"`parts` of split is {self.parts}", expected=f"a number from 0 to {MOST_PARTS}")
        number = 0
        for function in module.functions.values():
            operations = [operation for operation in function.walk() if operation.name == "kernel"]
            sizes = representative_sizes(function, context.sizes) if operations else {}
            divided: dict[str, ScheduleOptions] = {}
            for operation in operations:
                options = split(operation, self.parts, sizes, context)
                if options is not None:
                    divided[operation.attributes["name"]] = options
            number += len(divided)
            if function.name in context.plans:
                context.plans[function.name] = context.plans[function.name].scheduled(divided)
        context.count("split", "kernels", number)
        return number > 0


class Division(NamedTuple):
    """The kernels, detached, that compute what a kernel does in parts. They read arguments of the program in parts, one
    for each operand of the kernel, so that those that are not chosen leave no uses of its operands. `results` stand for
    the kernel's."""

    kernels: list[Operation]
    results: list[Value]
    arguments: list[Value]


def split(operation: Operation, number: int, sizes: Mapping[Symbol, int],
          context: PassContext) -> ScheduleOptions | None:  # fmt: skip
    """Replace a kernel by those that compute what it does in parts; returns the options that state these, and None
    where the kernel stays."""
    if operation.attributes["kind"] == "pointwise" and not operation.attributes["schedule"]:
        return None
    expansion = Expansion()
    try:
        kernel = kernel_of(operation, expansion)
    except LegalityFailure:
        return None  # for the backend to report
    tried: dict[ScheduleOptions, Division] = {}
    for options, parts in divisions(kernel, number, sizes, context.device):
        try:
            tried[options] = in_parts(operation, kernel, expansion, parts, sizes, context)
        except LegalityFailure as failure:
            if kernel.options.divides:
                refused = failure_of(parts_are_kernels, operation.attributes["name"], failure)
                assert refused is not None
                raise error_of(refused, operation, context) from None
    is_chosen = kernel.options.split is None and kernel.options.part is None and number == 0
    if is_chosen and (kernel.kind == "product" or kernel.across):  # other reductions of few programs are always split
        def seconds(kernels: Iterable[Kernel]) -> float:
            return sum(kernel_estimate(count(each, sizes), context.device).seconds for each in kernels)

        times = {options: seconds(map(kernel_of, each.kernels)) for options, each in tried.items()}
        least = context.device.launch_seconds  # to be saved: estimates are no better than that
        best = min(tried, key=times.__getitem__, default=None)
        tried = {best: tried[best]} if best is not None and times[best] + least < seconds([kernel]) else {}
    by = "by rules" if is_chosen else "as stated"
    if not tried:
        if kernel.kind != "pointwise":
            context.remark("split", "whole", [operation], reason=by)
        return None
    options, division = next(iter(tried.items()))
    names = ", ".join(f"@{each.attributes['name']}" for each in division.kernels)
    context.remark("split", "split", [operation], reason=f"{by}: {names}")
    insert(division, operation)
    return options


def error_of(failure: LegalityFailure, operation: Operation, context: PassContext) -> IrcError:
    """The error for a kernel that cannot be split as stated: of the entry of the plan that states it, if one does."""
    followed = None if context.followed is None else context.followed.by_name.get(operation.attributes["name"])
    if followed is not None and followed.schedule is not None:
        return IrcError([followed.illegal(failure)])
    return failure.error(operation.location)


def divisions(kernel: Kernel, number: int, sizes: Mapping[Symbol, int],
              device: Device) -> list[tuple[ScheduleOptions, Parts]]:  # fmt: skip
    """How what a kernel reduces may be divided, with the options that state it: as its schedule states, or in this
    number of parts if that is not 0 and fits, or else by rules."""
    extent, options = size_of(kernel.divided), kernel.options
    if options.split is None and options.part is None and number > 0:
        options = ScheduleOptions(split=number)
        if failure_of(split_fits_the_kernel, options, kernel.kind, extent) is not None:
            return []
    if options.split == 1:
        return []
    if options.split is not None:
        size = dims.ceil_divide(extent, options.split)
        parts = Parts.of_size(extent, size) if isinstance(extent, int) else Parts(extent, options.split, size)
        return [(ScheduleOptions(split=options.split), parts)]
    stated = None if options.part is None else [stated_size(kernel, options.part, sizes)]
    chosen = chosen_sizes(kernel, sizes, device) if stated is None else stated
    return [(ScheduleOptions(part=dims.estimate(size, sizes)), Parts.of_size(extent, size)) for size in chosen]


def in_parts(operation: Operation, kernel: Kernel, expansion: Expansion, parts: Parts, sizes: Mapping[Symbol, int],
             context: PassContext) -> Division:  # fmt: skip
    """The kernels that compute what a kernel does in parts, of the primitives that it was derived from; raises
    `LegalityFailure`."""
    steps, region = Steps(members_of(operation), expansion), operation.regions[0].block
    if kernel.kind == "product":
        for step in steps.steps:
            is_known = step.name != "conv" or isinstance(parts.number, int)  # the groups of a convolution
            products_are_divided(step.results[0].name, is_known and (step.definition.contraction is None
                                                                     or is_divided(step)))  # fmt: skip
    form = InParts if kernel.online is None else SoftmaxInParts
    program = form(steps, region.arguments, parts, carries=allows(context.numerics, "keeps_more_precision"),
                   divisible=kernel.divisible)  # fmt: skip
    with Builder(program.block):
        results = [program.result(value) for value in region.terminator.inputs]
    return Kernels(program, results, sizes, context.device).operations(operation)


class Kernels:
    """The operations of a program in parts as kernels, in order: one that reduces parts, one that combines, and so on
    where a reduction depends on the result of another, and one for what varies over the reduced axes at the end.

    A kernel computes what it stores from the operands and from what kernels before it store: partial results, and what
    does not vary over the reduced axes. The rest is computed again rather than stored.
    """

    def __init__(self, program: InParts, results: Sequence[Value], sizes: Mapping[Symbol, int],
                 device: Device) -> None:  # fmt: skip
        self.program, self.results, self.sizes, self.device = program, results, sizes, device
        self.most = max((self._elements(whole) for whole in program.wholes), default=1)
        self.level = self._levels()
        self.stored = self._stored()

    def _elements(self, value: Value) -> int:
        return dims.estimate(value.type.elements, self.sizes)

    def _levels(self) -> dict[Value, int]:
        """The number of the kernel in which a value can be computed first: odd where parts are reduced, even where they
        are combined, 0 for what depends on no reduction."""
        level = dict.fromkeys(self.program.block.arguments, 0)
        for operation in self.program.block:
            most = max((level[value] for value in operation.inputs), default=0)
            for result in operation.results:
                level[result] = most
                if result in self.program.partials:
                    level[result] += 1 - most % 2
                elif result in self.program.wholes:
                    level[result] += most % 2 + self.program.wholes[result]
        return level

    def _is_combined(self, value: Value) -> bool:
        """Whether a kernel that combines parts stores a value: it depends on a whole result, and has no more elements
        than the largest of these at the estimated sizes. Others are computed in a kernel of their own."""
        number = self.level[value]
        return number > 0 and number % 2 == 0 and self._elements(value) <= self.most

    def _stored(self) -> dict[int, dict[Value, None]]:
        """What each kernel stores, by its number: what those after it read, found from the last to the first."""
        stored: dict[int, dict[Value, None]] = {}
        for value in self.results:
            if value.operation is not None:
                number = self.level[value]
                stored.setdefault(number if self._is_combined(value) else number + 1, {})[value] = None
        for number in range(max(stored, default=0), 0, -1):
            for value in self._read(number, stored.get(number, {})):
                stored.setdefault(self.level[value], {})[value] = None
        return stored

    def _read(self, number: int, values: Iterable[Value]) -> list[Value]:
        """What the kernel of this number, which computes the values, reads of kernels before it."""
        def is_before(value: Value) -> bool:
            is_stored = value in self.program.partials or self._is_combined(value)
            return is_stored and self.level[value] < number

        operations = sliced(values, is_before)
        return [value for operation in operations for value in operation.inputs if is_before(value)]

    def operations(self, original: Operation) -> Division:
        """The kernels that compute the results of the original."""
        outside = {argument: argument for argument in self.program.block.arguments}
        kernels: list[Operation] = []
        for number, values in sorted(self.stored.items()):
            name = original.attributes["name"]
            if number != max(self.stored):
                what = ("parts" if number % 2 else "combined") + (f"_{(number + 1) // 2}" if number > 2 else "")
                name = f"{what}_{name}" if name.isdecimal() else f"{name}_{what}"
            kernels.append(kernel_computing(list(values), outside, name, original))
            if number % 2 and values.keys() & self.program.partials.keys():
                stated = dict(original.attributes["schedule"] or {})
                stated.pop("split", None)
                stated.pop("part", None)
                kernels[-1].attributes["schedule"] = stated or None
                kernel = kernel_of(kernels[-1])  # raises where what is stated does not fit
                if not stated:
                    kernels[-1].attributes["schedule"] = schedule_of_parts(kernel, self.sizes, self.device)
            outside.update(zip(values, kernels[-1].results, strict=True))
        return Division(kernels, [outside[value] for value in self.results], self.program.block.arguments)


def kernel_computing(values: Sequence[Value], outside: Mapping[Value, Value], name: str,
                     original: Operation) -> Operation:  # fmt: skip
    """A kernel that computes values of a block from those that stand for values outside."""
    inner = sliced(values, outside.__contains__)
    read = dict.fromkeys(value for operation in inner for value in operation.inputs if value in outside)
    block = Block([value.type for value in read], [value.name for value in read])
    cloner = Cloner(dict(zip(read, block.arguments, strict=True)))
    for operation in inner:
        block.append(cloner.operation(operation))
    with Builder(block):
        ops.lookup("yield")(*(cloner.values[value] for value in values))
    attributes = kernel_op.normalize({"name": name, "kind": original.attributes["kind"]})
    kernel = Operation(
        kernel_op, [outside[value] for value in read], attributes, [value.type for value in values], [Region(block)],
        names=[value.name for value in values], location=original.location.by("split"),
    )  # fmt: skip
    kernel.attributes["kind"] = kernel_of(kernel).kind
    for value in values:
        cloner.values[value].name = ""  # the kernel's result has it; messages of rules name this one
    return kernel


def schedule_of_parts(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> dict[str, int] | None:
    """What the rules for whole kernels do not choose of one for parts: one row for each program where there would be
    too few, and longer blocks of a product of few rows, which waits for the memory of its columns."""
    rows, summed = kernel.schedule.rows, kernel.schedule.summed
    if kernel.kind == "reduction" and rows is not None and not kernel.across and not reduces_columns(kernel):
        return {"m": 1} if count(kernel, sizes).programs < device.multiprocessors else None
    if kernel.online is None and summed is not None and rows is not None and rows.block <= LEAST:
        return {"k": 2 * summed.block} if dims.multiple_of(summed.extent) % (2 * summed.block) == 0 else None
    return None


def sliced(values: Iterable[Value], is_outside: Callable[[Value], bool]) -> list[Operation]:
    """The operations that compute the values, in order, from values outside."""
    needed: dict[Operation, None] = {}
    waiting = [value.operation for value in values if value.operation is not None]
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed[operation] = None
            waiting += [value.operation for value in operation.inputs
                        if value.operation is not None and not is_outside(value)]  # fmt: skip
    return sorted(needed, key=lambda operation: operation.order_label)


def insert(division: Division, original: Operation) -> None:
    """Put the kernels where the original is, and their results in place of its."""
    block, anchor = original.block, original.next
    assert block is not None
    operands = dict(zip(division.arguments, original.inputs, strict=True))
    for kernel in division.kernels:
        kernel.set_operands([operands.get(value, value) for value in kernel.inputs])
    for value, result in zip(division.results, original.results, strict=True):
        if value not in operands:
            value.name = result.name
        result.replace_uses(operands.get(value, value))
    original.erase()
    # Inserted last: names of the original's results are free only now.
    for kernel in division.kernels:
        block.insert(kernel, anchor)
