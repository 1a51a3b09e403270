"""`products=auto`: whether kernels or library calls compute the products of a function, by estimated times.

Two plans are compared, one in which kernels compute all products that they can, and one in which libraries do. Their
kernels and calls fall into parts that compute the same operations. For each part the plan is chosen that takes less
time by `irc.kernel.roofline`, with kernels of what is fused with products in the one plan and apart in the other. A
third plan has these choices; where fusion then finds less, so that one of the first two takes less time, that one is
chosen. Start at `choose_plan`. Where `auto` is the option of a whole pipeline, `irc.driver.choosing` may have settled
before that kernels or libraries compute all products of the program, joined as they then are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from irc.diagnostics import Diagnostic, IrcError, counted
from irc.dims import Symbol
from irc.disjoint_sets import DisjointSets
from irc.group import Group, is_free
from irc.interfaces import Trait
from irc.ir import Function, Operation
from irc.kernel.roofline import call_estimate, kernel_estimate
from irc.library_calls import library_estimate
from irc.pass_manager import PassContext
from irc.plan import Choice, Plan
from irc.plan_file import Entry
from irc.products import Products
from irc.sizes import bytes_at


@dataclass
class Part:
    """Kernels of both plans that compute the same operations, and the products that are library calls in one."""

    inside: list[Group]
    outside: list[Group]
    products: list[Operation]


def choose_plan(propose: Callable[[bool, Sequence[Operation]], Plan], context: PassContext,
                sizes: Mapping[Symbol, int]) -> Plan:  # fmt: skip
    """The plan with the least time, and the choices that led to it. `propose` makes a plan, given whether kernels
    compute products, and products that they do not compute for all that."""
    inside, outside = propose(True, ()), propose(False, ())
    choices = [choose(part, context, sizes) for part in parts(inside.groups, outside.groups)]
    products = [operation for choice in choices for operation in choice.operations]
    chosen = {operation: choice.products for choice in choices for operation in choice.operations}
    if len(set(chosen.values())) < 2:
        plan = outside if "host" in chosen.values() else inside
        plan.choices += choices
        return plan
    plan = propose(True, [operation for operation in products if chosen[operation] == "host"])
    mixed = best = plan_seconds(plan, products, context, sizes)
    uniform: list[tuple[Products, Plan]] = [("irc", inside)]
    uniform += [("host", outside)] if all(choice.is_free for choice in choices) else []
    taken = choices
    for name, other in uniform:
        seconds = plan_seconds(other, products, context, sizes)
        if seconds < best:
            plan, best = other, seconds
            reason = f"; the function {1e6 * seconds:.3g} us, with the faster of each part {1e6 * mixed:.3g} us"
            taken = [replace(choice, products=name, reason=choice.reason + reason) for choice in choices]
    plan.choices += taken
    return plan


def settled_choice(function: Function, plan: Plan, context: PassContext) -> list[Choice]:
    """The choice for all products of a function, where it was made for the whole program; of kernels, those in one."""
    settled = context.settled
    if settled is None:
        return []
    inside = {member for group in plan.groups for member in group.members}
    products = [each for each in function.walk() if is_product(each) and (settled.products == "host" or each in inside)]
    times = zip(("kernels", "library calls", "the faster of each part"),
                (settled.kernel_seconds, settled.library_seconds, settled.mixed_seconds), strict=True)  # fmt: skip
    reason = ", ".join(f"{name} {1e6 * seconds:.3g} us" for name, seconds in times)
    reason = f"the program takes with {reason}, estimated for {context.device.name}"
    choice = Choice(tuple(products), settled.products, settled.kernel_seconds, settled.library_seconds, reason)
    return [choice] if products else []


def plan_seconds(plan: Plan, products: Sequence[Operation], context: PassContext, sizes: Mapping[Symbol, int]) -> float:
    """The time of the kernels of a plan, and of library calls for those of the products that are in none. Attention of
    a library gives the heads of a position side by side, as the product after it reads them, and kernels each head by
    itself: one of a kernel and one of a library have a copy between them."""
    inside = {member for group in plan.groups for member in group.members}
    calls = [product for product in products if product not in inside]
    copied = [each.results[0] for each in products if each.name == "attention"
              and not readers(each).isdisjoint(calls if each in inside else inside)]  # fmt: skip
    copies = sum(call_estimate(2 * bytes_at(value, sizes), 0, None, context.device).seconds for value in copied)
    return kernel_seconds(plan.groups, context, sizes) + call_seconds(calls, context, sizes) + copies


def readers(operation: Operation) -> set[Operation]:
    """Operations that read a result, also through free operations."""
    users: set[Operation] = set()
    waiting = [operation]
    while waiting:
        for user in (user for result in waiting.pop().results for user in result.users()):
            if user not in users:
                users.add(user)
                waiting += [user] if is_free(user) else []
    return users


def kernel_seconds(groups: Iterable[Group], context: PassContext, sizes: Mapping[Symbol, int]) -> float:
    return sum(kernel_estimate(group.bytes(sizes), context.device).seconds for group in groups)


def call_seconds(products: Iterable[Operation], context: PassContext, sizes: Mapping[Symbol, int]) -> float:
    return sum(library_estimate(product, sizes, context.device).seconds for product in products)


def choose(part: Part, context: PassContext, sizes: Mapping[Symbol, int]) -> Choice:
    """The choice for one part: kernels where the times are equal, or no library computes one of the products."""
    target = context.target
    kernel = kernel_seconds(part.inside, context, sizes)
    library = call_seconds(part.products, context, sizes) + kernel_seconds(part.outside, context, sizes)
    needed = [product for product in part.products if target is not None and not target.calls(product)]
    kernels_take = f"{counted(len(part.inside), 'kernel')} {1e6 * kernel:.3g} us"
    calls_take = counted(len(part.products), "library call")
    calls_take += f" and {counted(len(part.outside), 'kernel')}" if part.outside else ""
    reason = f"{kernels_take}, {calls_take} {1e6 * library:.3g} us, estimated for {context.device.name}"
    if needed:
        reason = f"no library computes %{needed[0].results[0].name}"
    chosen: Products = "irc" if needed or kernel <= library else "host"
    return Choice(tuple(part.products), chosen, kernel, library, reason, is_free=not needed)


def parts(inside: Sequence[Group], outside: Sequence[Group]) -> list[Part]:
    """The parts that have products, in the order of the first plan: groups of both plans that share operations, also
    through others, are in one."""
    sets: DisjointSets[Operation] = DisjointSets()
    for group in (*inside, *outside):
        for member in group.members[1:]:
            sets.join(member, group.members[0])
    by_leader: dict[Operation, Part] = {}
    for groups, side in ((inside, "inside"), (outside, "outside")):
        for group in groups:
            part = by_leader.setdefault(sets.find(group.members[0]), Part([], [], []))
            getattr(part, side).append(group)
            part.products += [member for member in group.members if is_product(member) and side == "inside"]
    return [part for part in by_leader.values() if part.products]


def is_product(operation: Operation) -> bool:
    return Trait.LIBRARY in operation.definition.traits


def called_products(function: Function, entries: Iterable[Entry]) -> tuple[list[Operation], list[Diagnostic]]:
    """The products that entries of a plan file leave to libraries, and the errors of entries that name others."""
    products: list[Operation] = []
    errors: list[Diagnostic] = []
    for entry in entries:
        if entry.products != "host":
            continue
        try:
            members = entry.find(function)
        except IrcError as error:
            errors += error.diagnostics
            continue
        errors += [entry.error(f"%{member.results[0].name} is {member.name}, which no library computes")
                   for member in members if not is_product(member)][:1]  # fmt: skip
        products += members
    return products, errors


def note_choices(choices: Iterable[Choice]) -> None:
    """State each choice in the locations of its products, where `irc explain` prints it."""
    for choice in choices:
        for operation in choice.operations:
            operation.location = operation.location.by(f"fuse(products={choice.products}: {choice.reason})")
