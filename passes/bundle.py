"""Bundle: kernels that need nothing of one another, and do not fill the device, become one launch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from irc.device import Device
from irc.diagnostics import Diagnostic, IrcError, did_you_mean, fail
from irc.dims import Symbol
from irc.group_graph import makers, run_order
from irc.interfaces import Trait
from irc.ir import Block, Function, Operation
from irc.kernel import LegalityFailure, count, kernel_of, members_of
from irc.kernel.bundle_rules import (
    MOST_MEMBERS,
    MOST_OPERATIONS,
    MOST_POINTERS,
    Member,
    bundles_have_an_order,
    can_be_in_a_bundle,
    kernels_run_at_once,
)
from irc.kernel.bundles import member_of
from irc.kernel.failure import failure_of
from irc.kernel.roofline import kernel_estimate
from irc.kernel.rules import are_in_one_block
from irc.module import Module
from irc.pass_manager import Pass, PassContext
from irc.passes._blocks import blocks
from irc.plan_file import Entry, bundle_entry, structural_hash
from irc.sizes import representative_sizes


@dataclass
class Bundle(Pass):
    """Launch kernels together that need nothing of one another, where a launch takes longer than they do.

    most: how many kernels a bundle may have, at most 32; 1 for no bundles.

    An optimizer updates each parameter by a small kernel, and norms of many gradients are reductions of few programs.
    One launch takes their place, in which each has a range of the programs, with the code that it has by itself. Rules
    bundle kernels of one kind, with as many warps, as many operations that others wait for before them, and of which
    each by the model of cost takes no longer than a launch, or has fewer programs than the device multiprocessors. What
    is computed stays the same, and so do the bytes, but for those of a tensor that several read, which count once.

    A plan that is followed states which kernels are bundled (rule F20); the plan that is written states those of rules.

    Before: @a { %a = mul %p, %g }, @b { %b = mul %q, %h }
    After:  @a and @b with the attribute `bundle = "a"`, side by side: one launch
    """

    most: int = MOST_MEMBERS

    def run(self, module: Module, context: PassContext) -> bool:
        if not 1 <= self.most <= MOST_MEMBERS:
            raise fail("pass.option", f"`most` of bundle is {self.most}", expected=f"a number from 1 to {MOST_MEMBERS}")
        number, errors = 0, list[Diagnostic]()
        for function in module.functions.values():
            name = None if function is module.main else function.name
            entries = stated(function, name, context)
            facts = Facts(representative_sizes(function, context.sizes), context.device)
            if entries is None:
                groups = [each for block in blocks(function.block) for each in rule_based(block, facts, self.most)]
                chosen = [(bundle_entry(map(name_of, each), name, facts.reason(each)), each) for each in groups]
            else:
                chosen = followed(function, entries, facts, errors)
            for entry, kernels in chosen:
                context.remark("bundle" if entries is None else "plan", "bundled", kernels, kernel=entry.name,
                               reason=entry.figures.get("reason", ""))  # fmt: skip
                for kernel in kernels:
                    kernel.attributes["bundle"] = entry.name
            errors += sorted_with(chosen)
            number += len(chosen)
            if function.name in context.plans and (chosen or entries is not None):
                bundles = tuple(entry for entry, _ in chosen)
                context.plans[function.name] = replace(context.plans[function.name], bundles=bundles)
        if errors:
            raise IrcError(sorted(errors, key=lambda each: each.location.line))
        context.count("bundle", "bundles", number)
        return number > 0


class Fact(NamedTuple):
    """What decides on a kernel: what rule F20 is about, and seconds beside its launch. `is_small`: that is no more than
    the launch, or there are fewer programs than multiprocessors."""

    member: Member
    seconds: float
    is_small: bool


class Facts:
    """The facts of kernels at these sizes, derived once for all kernels that compute the same."""

    def __init__(self, sizes: Mapping[Symbol, int], device: Device) -> None:
        self.sizes, self.device = sizes, device
        self.known: dict[object, Fact | LegalityFailure] = {}
        self.by_kernel: dict[Operation, Fact | LegalityFailure] = {}

    def of(self, operation: Operation) -> Fact | LegalityFailure:
        """The facts of a kernel, or why it is not launched."""
        if operation not in self.by_kernel:
            self.by_kernel[operation] = self._of(operation)
        return self.by_kernel[operation]

    def _of(self, operation: Operation) -> Fact | LegalityFailure:
        members, block = members_of(operation), operation.regions[0].block
        results = [result for member in members for result in member.results]
        numbers = {result: number for number, result in enumerate(results)}
        stored = tuple(numbers.get(value, -1) for value in block.terminator.inputs)
        schedule = tuple((operation.attributes["schedule"] or {}).items())
        key = structural_hash(members), stored, schedule
        if key not in self.known:
            self.known[key] = self._derived(operation)
        fact = self.known[key]
        if isinstance(fact, LegalityFailure):
            return fact
        member = fact.member._replace(name=name_of(operation), inputs=tuple(operation.inputs),
                                      results=tuple(operation.results))  # fmt: skip
        return fact._replace(member=member)

    def _derived(self, operation: Operation) -> Fact | LegalityFailure:
        try:
            kernel = kernel_of(operation)
        except LegalityFailure as failure:
            return failure
        cost, launch = count(kernel, self.sizes), self.device.launch_seconds
        seconds = kernel_estimate(cost, self.device).seconds - launch
        return Fact(member_of(operation, kernel), seconds,
                    seconds <= launch or cost.programs < self.device.multiprocessors)  # fmt: skip

    def reason(self, kernels: Iterable[Operation]) -> str:
        """Why kernels are bundled that are small."""
        facts = [fact for fact in map(self.of, kernels) if isinstance(fact, Fact)]
        together, launch = (f"{1e6 * each:.3g} us" for each in
                            (sum(fact.seconds for fact in facts), self.device.launch_seconds))  # fmt: skip
        return f"estimated: {together} for all, beside {launch} for each launch"


def name_of(kernel: Operation) -> str:
    return str(kernel.attributes["name"])


def stated(function: Function, name: str | None, context: PassContext) -> list[Entry] | None:
    """The bundles of a function that the plan states which is followed; None where it leaves them to rules. `name` is
    None for the main function."""
    if context.followed is None or context.followed.bundles is None:
        return None
    return [entry for entry in context.followed.bundles if entry.function in (function.name, name)]


# -- by rules --------------------------------------------------------------------------------------------------


def rule_based(block: Block, facts: Facts, most: int) -> Iterator[list[Operation]]:
    """The kernels of a block that rules bundle. Those with equally many operations before them need nothing of one
    another, however they are bundled."""
    kernels = [each for each in block if each.name == "kernel" and each.attributes["bundle"] is None]
    if len(kernels) < 2 or most < 2:
        return
    levels = levels_of(block)
    by_level: dict[int, list[Operation]] = {}
    for kernel in kernels:
        by_level.setdefault(levels[kernel], []).append(kernel)
    for level in (each for each in by_level.values() if len(each) > 1):
        alike: dict[object, list[tuple[Operation, Member]]] = {}
        for kernel in level:
            fact = facts.of(kernel)
            if isinstance(fact, Fact) and fact.is_small and failure_of(can_be_in_a_bundle, fact.member) is None:
                member = fact.member
                alike.setdefault((member.kind, member.warps, member.stages), []).append((kernel, member))
        for candidates in alike.values():
            yield from packed(candidates, most)


def packed(candidates: Sequence[tuple[Operation, Member]], most: int) -> Iterator[list[Operation]]:
    """Kernels in the order of the block, in as few bundles as they fit in; those left alone are in none."""
    bundle, pointers, operations = list[Operation](), 0, 0
    for kernel, member in candidates:
        pointers, operations = pointers + member.pointers, operations + member.operations
        if len(bundle) == most or pointers > MOST_POINTERS or operations > MOST_OPERATIONS:
            if len(bundle) > 1:
                yield bundle
            bundle, pointers, operations = [], member.pointers, member.operations
        bundle.append(kernel)
    if len(bundle) > 1:
        yield bundle


def levels_of(block: Block) -> dict[Operation, int]:
    """The most operations that run one after another before each operation of a block, views left out."""
    levels: dict[Operation, int] = {}
    needed = needs(block)
    for operation in block:
        levels[operation] = max((levels[each] + (Trait.FREE not in each.definition.traits)
                                 for each in needed[operation]), default=0)  # fmt: skip
    return levels


def needs(block: Block) -> dict[Operation, list[Operation]]:
    """For each operation of a block those that must run before it; what updates an argument of the function in its
    place runs after all that reads the argument before."""
    needed = makers(block)
    function = block.function_
    if function is not None:
        order = {operation: position for position, operation in enumerate(block)}
        for position, argument in function.updates.items():
            maker = function.returned[position].operation
            if maker is not None and maker in order:
                readers = dict.fromkeys(argument.users())
                needed[maker] += [each for each in readers if order.get(each, len(order)) < order[maker]]
    return needed


# -- as stated -------------------------------------------------------------------------------------------------


def followed(function: Function, entries: Iterable[Entry], facts: Facts,
             errors: list[Diagnostic]) -> list[tuple[Entry, list[Operation]]]:  # fmt: skip
    """The kernels of each entry, in the order of the program; errors are added to `errors`."""
    kernels = {name_of(each): each for each in function.walk() if each.name == "kernel"}
    chosen, taken = list[tuple[Entry, list[Operation]]](), set[Operation]()
    for entry in entries:
        unknown = [name for name in entry.members if name not in kernels]
        bundled = list(dict.fromkeys(kernels[name] for name in entry.members if name in kernels))
        if unknown:
            help = did_you_mean(unknown[0], kernels, "irc kernels MODEL lists the kernels")
            errors.append(entry.error(f"there is no kernel @{unknown[0]}", "plan.stale", help=help))
        elif not taken.isdisjoint(bundled):
            errors.append(entry.error("kernels of it are in another entry"))
        else:
            bundled.sort(key=lambda each: each.order_label)
            failure = failure_of(are_in_one_block, bundled) or unlike(bundled, facts)
            errors += [entry.illegal(failure)] if failure is not None else []
            chosen += [(entry, bundled)] if failure is None else []
            taken.update(bundled)
    return chosen


def unlike(kernels: Iterable[Operation], facts: Facts) -> LegalityFailure | None:
    """Why kernels cannot be one launch (rule F20), or one of them no kernel."""
    known = [facts.of(each) for each in kernels]
    failure = next((each for each in known if isinstance(each, LegalityFailure)), None)
    return failure or failure_of(kernels_run_at_once, [each.member for each in known if isinstance(each, Fact)])


# -- order -----------------------------------------------------------------------------------------------------


def sorted_with(chosen: Sequence[tuple[Entry, Sequence[Operation]]]) -> list[Diagnostic]:
    """Order the blocks of bundles such that the kernels of each are neighbors, and other operations as they were; the
    errors of entries for which that is not possible."""
    errors = []
    for block in dict.fromkeys(kernels[0].block for _, kernels in chosen):
        assert block is not None
        operations = list(block)
        number = {operation: index for index, operation in enumerate(operations)}
        entries = {kernels[0]: entry for entry, kernels in chosen if kernels[0].block is block}
        together: dict[str, list[Operation]] = {}
        for operation in operations:
            if operation.name == "kernel" and operation.attributes["bundle"] is not None:
                together.setdefault(operation.attributes["bundle"], []).append(operation)
        bundled = {member for members in together.values() for member in members}
        units = [*together.values(), *([each] for each in operations if each not in bundled)]
        order = run_order(units, needs(block), number)
        failure = failure_of(bundles_have_an_order, len(order) == len(units))
        if failure is not None:
            ordered = {units[index][0] for index in order}
            errors += [entry.illegal(failure) for kernel, entry in entries.items() if kernel not in ordered]
            continue
        for operation in operations:
            block.remove(operation)
        for index in order:
            for operation in units[index]:
                block.append(operation)
    return errors
