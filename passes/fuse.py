"""Fusion: `propose` makes a plan (`irc.plan`), and `apply` turns each of its groups into a `kernel` operation.

`propose` starts with one group for each operation that can be a kernel (`seeds`); a named operation such as `softmax`
is one operation, whose kernel is derived from its body. Then it makes the groups that a plan file or a user's pattern
states (`follow`, `accept`). Then it merges groups with groups that read their results, the merge of the largest score
first, until the policy rejects all merges that are legal (`irc.legality`).

A `kernel` operation computes the same as the operations in its region. Start at `propose`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from irc.cost import Costs, find_cost
from irc.cover import cover, owned, shared, unread
from irc.diagnostics import Diagnostic, IrcError, fail
from irc.dims import Symbol
from irc.group import Group, is_free
from irc.group_graph import GroupGraph, hull
from irc.ir import Block, Function, Operation, Value
from irc.kernel import LegalityFailure
from irc.kernel.failure import failure_of
from irc.kernel.rules import has_nothing_between
from irc.legality import legal
from irc.module import Module
from irc.numerics import Numerics
from irc.pass_manager import Pass, PassContext
from irc.passes._blocks import blocks
from irc.passes._copies import separated
from irc.passes._kernels import make_kernel, sort_block
from irc.passes._planners import find_planner, planned_groups
from irc.passes._products import called_products, choose_plan, is_product, note_choices, settled_choice
from irc.passes._remarks import kept_if_raised, remark_groups, remark_illegal, remark_no_kernel, remark_plan, remarked
from irc.passes._schedules import choose_schedules, find_scheduler, follow_schedules
from irc.pattern import Pattern
from irc.plan import Decision, Plan
from irc.plan_file import Entry, PlanFile, load_plan_file, plan_file
from irc.planner import Planner
from irc.policy import GroupPattern, Merge, Policy, PolicyRejection, policy, reject
from irc.products import PRODUCTS
from irc.remarks import Remarks
from irc.sizes import representative_sizes
from irc.user_files import is_reference, load_declared


@policy
def none(merge: Merge) -> PolicyRejection:
    """One kernel for each operation: the baseline that experiments are measured against."""
    return reject("the policy `none` merges nothing")


@policy
def greedy(merge: Merge) -> float | PolicyRejection:
    """Merge where the kernels then read and write fewer distinct bytes, unless the bytes that are loaded repeatedly
    grow by more than that; never where a reduction would be computed again, or rows that are reduced and scanned, or
    also reduced across, are too few for the device. The score is the bytes saved."""
    if merge.recomputes_reduction:
        return reject("it would recompute a reduction", at=merge.producer)
    if not merge.has_programs:
        return reject("its rows are too few to be divided among programs", at=merge.merged)
    if merge.loaded_bytes_saved < 0 and -merge.loaded_bytes_saved > merge.bytes_saved:
        return reject(f"repeated loads of {-merge.loaded_bytes_saved} bytes outweigh {merge.bytes_saved} saved")
    return merge.bytes_saved


POLICIES = {"none": none, "greedy": greedy}


# A function of a producer and a consumer: the score of their merge, and the merged group; None where the merge is
# illegal or rejected.
Score = Callable[[Group, Group], "tuple[float, Group] | None"]


@dataclass
class Fuse(Pass):
    """Group operations into kernels.

    Options: `policy` is `none`, `greedy` or `FILE.py:NAME`; `groups` is `FILE.py:NAME` of a `@group` pattern that is
    proposed first; `schedule` is `FILE.py:NAME` of a `@schedule` function, which states blocks, warps and stages of
    kernels (`irc.scheduling`); `products` is `host` (matrix products and convolutions are library calls), `irc`
    (kernels compute those that can be, with what is computed of their operands and results), or `auto` (the one that is
    estimated to take less time); `plan` is a plan file to follow, which may be edited by hand: an entry is a list of
    members, and each becomes one kernel of just these, or is reported with the rule that it breaks (`plan.refused`); a
    pointwise operation may be a member of several entries, and is computed in each. Without `policy`, a plan is
    followed and nothing else merged; where there is no plan either, the policy is `greedy`. `planner` in place of
    `policy`, `groups` and `plan` is `greedy`, `beam`, `exact`, `anneal` or `FILE.py:NAME` (`irc doc planners`), with
    `seed` for random numbers. `cost` is `FILE.py:NAME` of a `@cost` function, whose seconds planners and policies see.
    """

    policy: str = ""
    groups: str = ""
    plan: str = ""
    schedule: str = ""
    products: str = ""
    planner: str = ""
    seed: int = 0
    cost: str = ""

    def prepare(self, context: PassContext) -> None:
        if context.followed is None and self.plan:
            context.followed = self.plan_file()

    def run(self, module: Module, context: PassContext) -> bool:
        changed = False
        for function, plan in zip(module.functions.values(), self.plans(module, context), strict=True):
            stated = None if function is module.main else function.name
            context.plans[function.name] = plan_file(plan, stated, context.joined.get(function.name))
            note_choices(plan.choices)
            remark_plan(plan, context.remarks, function.name)
            changed |= apply(plan)
        return changed

    def plans(self, module: Module, context: PassContext) -> list[Plan]:
        """The plan of each function; raises `plan.refused` and `plan.stale`, with an error for each entry of a plan
        file that cannot be followed."""
        file, chosen = self.plan_file(), self.chosen()
        entries = file.entries
        others = [name for name in ("policy", "groups", "plan") if getattr(self, name)]
        if self.planner and others:
            raise fail("pass.option", f"fuse has the options `planner` and `{others[0]}`", expected="one of them")
        scheduler = find_scheduler(self.schedule) if self.schedule else None
        errors = [entry.error(f"there is no function @{entry.function}", "plan.stale") for entry in entries
                   if entry.function not in (None, *module.functions)]  # fmt: skip
        if not context.joined:
            errors += [entry.error("no pass `siblings` has joined these products", help='give the pipeline "default"')
                       for entry in file.siblings or ()]  # fmt: skip
        plans = []
        for function in module.functions.values():
            of_function = [entry for entry in (*file.groups, *file.products)
                           if (entry.function or module.main.name) == function.name]  # fmt: skip
            proposals = self.proposals(function)
            plans.append(self.planned(function, chosen, context, proposals, of_function))
            errors += plans[-1].errors
            if scheduler is not None:
                choose_schedules(plans[-1], scheduler, representative_sizes(function, context.sizes))
        if errors:
            if context.remarks is not None:
                for plan in plans:
                    context.remarks.take(plan.remarks or Remarks())
            errors.sort(key=lambda each: each.location.line)
            raise IrcError(self._advised(errors, file.made_for.products, context))
        return plans

    def _advised(self, errors: list[Diagnostic], stated: str | None, context: PassContext) -> list[Diagnostic]:
        """The errors of plan entries; where the plan was made for products in kernels, and none are now, each says
        so."""
        if stated in (None, "host") or (self.products or context.products) != "host":
            return errors
        note = f"the plan was made with --products {stated}, and is followed with products in libraries"
        return [replace(each, notes=(*each.notes, note), help=f"give --products {stated}, too") for each in errors]

    def chosen(self) -> Policy | Planner:
        """The planner, or the policy that scores merges: the option `policy`, or `none` with a plan file and `greedy`
        without one."""
        if self.planner:
            return find_planner(self.planner)
        return find_policy(self.policy or ("none" if self.plan else "greedy"))

    def planned(self, function: Function, chosen: Policy | Planner, context: PassContext,
                proposals: list[tuple[str, list[Operation]]], entries: Sequence[Entry]) -> Plan:  # fmt: skip
        """The plan of one function, with products where the option `products`, or else the context, says; of `auto` and
        a plan file, in kernels where an entry names them. Raises `pass.option`."""
        if self.products not in ("", *PRODUCTS):
            raise fail("pass.option", f"`products` of fuse is `{self.products}`", expected=", ".join(PRODUCTS))
        mode = self.products or context.products
        called, errors = called_products(function, entries)
        entries = [entry for entry in entries if entry.products is None]
        costs = Costs(context.device, find_cost(self.cost))
        proposed = partial(propose, function, chosen, context, proposals, entries, costs=costs, seed=self.seed)
        if mode != "auto":
            plan = proposed(products=mode == "irc", apart=called)
            plan.errors += errors
            plan.choices += settled_choice(function, plan, context)
            return plan
        if self.plan:
            named = {name for entry in entries for name in entry.members}
            return proposed(products=True, apart=[each for each in function.walk() if is_product(each)
                                                  and each.results[0].name not in named])  # fmt: skip
        return choose_plan(lambda products, apart: proposed(products=products, apart=apart), context,
                           representative_sizes(function, context.sizes))  # fmt: skip

    def plan_file(self) -> PlanFile:
        """The plan file, one without entries where none is given; raises the errors of `load_plan_file`."""
        return load_plan_file(self.plan) if self.plan else PlanFile()

    def proposals(self, function: Function) -> list[tuple[str, list[Operation]]]:
        """The name of the `@group` pattern with the operations of each of its matches; raises `pass.option`."""
        if not self.groups:
            return []
        pattern = load_declared(self.groups, GroupPattern, "@group")
        return [(pattern.name, members) for members in find_groups(function, pattern.function)]


def find_groups(function: Function, pattern: Callable[..., Any]) -> list[list[Operation]]:
    """The operations of each match of a `@group` pattern, without the constants that it matches; at most one match for
    each operation as the last of it."""
    structure = Pattern(pattern)
    groups = []
    for operation in function.walk():
        match = next(structure.matches(operation), None)
        if match is not None:
            members = [value.operation for each, value in match.values.items() if each.operation is not None]
            groups.append([member for member in dict.fromkeys(members) if member is not None])
    return groups


def find_policy(name: str) -> Policy:
    """`none`, `greedy`, or a policy in a user's file (`FILE.py:NAME`); raises `pass.option`."""
    if name in POLICIES:
        return POLICIES[name]
    if not is_reference(name):
        raise fail("pass.option", f"fuse has no policy `{name}`", expected=f"{', '.join(POLICIES)} or FILE.py:NAME")
    return load_declared(name, Policy, "@policy")


# -- propose ---------------------------------------------------------------------------------------------------


def propose(function: Function, chosen: Policy | Planner, context: PassContext,
            proposals: list[tuple[str, list[Operation]]], entries: Sequence[Entry] = (), *, products: bool = False,
            apart: Iterable[Operation] = (), costs: Costs | None = None, seed: int = 0) -> Plan:  # fmt: skip
    """The plan for a function under a policy, or by a planner; `products` says whether kernels compute matrix products
    and convolutions, apart from those in `apart`.

    The entries of a plan file are followed first. Then the groups of `proposals`, each the proposer's name and the
    operations, are made where they are legal. Then the policy merges groups. The members of a group are in one block:
    the bodies of `if` and `loop` are planned apart. Entries that cannot be followed are in the plan's `errors`.
    """
    sizes = representative_sizes(function, context.sizes)
    plan = Plan([], remarks=None if context.remarks is None else Remarks(function.name))
    calls = None if not products else frozenset(apart)
    costs = costs or Costs(context.device)
    planned = find_entries(function, entries, plan.errors)
    for block in blocks(function.block):
        proposed = [(proposer, members) for proposer, members in proposals if members and members[0].block is block]
        in_block = [(entry, members) for entry, members in planned if members[0].block is block]
        with kept_if_raised(plan.remarks, context.remarks):
            if isinstance(chosen, Planner):
                graph = GroupGraph(block, plan.remarks)
                operations = seeds(block, graph, context.numerics, calls)
                groups = planned_groups(chosen, block, graph, operations, context, sizes, costs, seed)
                remark_groups(groups, plan.remarks)
                plan.groups += groups
            else:
                propose_in_block(block, chosen, context, in_block, proposed, sizes, plan, calls, costs)
    follow_schedules(plan, planned)
    return plan


def find_entries(function: Function, entries: Sequence[Entry],
                 errors: list[Diagnostic]) -> list[tuple[Entry, list[Operation]]]:  # fmt: skip
    """The entries whose members exist and are in one block, with the members; the errors of other entries are added to
    `errors`."""
    planned = []
    plannable = set(blocks(function.block)) if entries else set()
    for entry in entries:
        try:
            members = entry.find(function)
            # A small constant may be in another block: each kernel that reads it computes it.
            members = [member for member in members if not (member.name == "const" and is_free(member))] or members
        except IrcError as error:
            errors += error.diagnostics
            continue
        outside = [member for member in members if member.block not in plannable]
        apart = [member for member in members if member.block is not members[0].block]
        if outside:
            message = f"%{outside[0].results[0].name} is in a kernel already"
            errors.append(entry.illegal(LegalityFailure("F2", message, outside[0].results)))
        elif apart:
            message = f"%{members[0].results[0].name} and %{apart[0].results[0].name} are in different blocks"
            errors.append(entry.illegal(LegalityFailure("F2", message, apart[0].results)))
        else:
            planned.append((entry, members))
    return planned


def propose_in_block(block: Block, chosen: Policy, context: PassContext,
                     planned: list[tuple[Entry, list[Operation]]],
                     proposals: list[tuple[str, list[Operation]]], sizes: Mapping[Symbol, int], plan: Plan,
                     calls: Container[Operation] | None, costs: Costs) -> None:  # fmt: skip
    """Add the groups of a block, and the decisions about merges, to `plan`; `planned` are entries of a plan file, and
    `calls` products that no kernel computes, None for all."""
    graph = GroupGraph(block, plan.remarks)
    decisions: dict[tuple[str, str], Decision] = {}
    groups = seeds(block, graph, context.numerics, calls)

    def score(producer: Group, consumer: Group) -> tuple[float, Group] | None:
        decision = Decision(producer.name, consumer.name)
        decisions[producer.name, consumer.name] = decision
        merged = hull((producer, consumer), chosen.name, graph)
        failure = merged if isinstance(merged, LegalityFailure) else legal(merged, context.numerics)
        if failure is not None:
            decision.code, decision.rule, decision.reason = failure.code, failure.rule, failure.message
            return None
        assert isinstance(merged, Group)
        parts = list(dict.fromkeys(groups[member] for member in merged.members))
        if any(part.stores is not None for part in parts):
            decision.reason = "an entry of the plan shares operations with others"
            return None
        merge = Merge(producer, consumer, merged, parts, sizes, costs)
        verdict = chosen(merge)
        decision.bytes_saved = merge.bytes_saved
        if isinstance(verdict, PolicyRejection):
            decision.reason = verdict.reason
            return None
        if verdict <= 0:
            decision.reason = f"the policy `{chosen.name}` gives it a score of {verdict:g}"
            return None
        return float(verdict), merged

    follow(planned, groups, graph, context.numerics, plan.errors)
    for proposer, members in proposals:
        failure = accept(proposer, members, groups, graph, context.numerics)
        if failure is not None:
            names = ", ".join(f"%{member.results[0].name}" for member in members)
            if plan.remarks is not None:
                plan.remarks.add(proposer, "illegal", members, rule=failure.rule, code=failure.code,
                                 reason=failure.message)  # fmt: skip
            context.note(f"fuse: {proposer} proposes {names}: {failure.message} (rule {failure.rule})")
    merge_best(groups, graph, score if plan.remarks is None else remarked(score, chosen.name, decisions, plan.remarks))
    places = {group: graph.units[member].place for member, group in groups.items()}
    ordered = sorted(places, key=places.__getitem__)
    plan.groups += ordered
    plan.merges += graph.merges
    plan.decisions += decisions.values()


def follow(planned: list[tuple[Entry, list[Operation]]], groups: dict[Operation, Group], graph: GroupGraph,
           numerics: Numerics, errors: list[Diagnostic]) -> None:  # fmt: skip
    """Make a group of the members of each entry of a plan file; the errors of entries for which that is not possible
    are added to `errors`."""
    entries: list[tuple[Entry, list[Operation]]] = []
    for entry, members in planned:
        computing = [member for member in members if not is_free(member)]
        failure = parts_of(computing, groups, numerics)
        if not computing:
            results, name = members[0].results, members[0].name
            message = f"kernels read through %{results[0].name}, a {name}, at no cost: it belongs to no group"
            failure = LegalityFailure("F2", message, results)
        if isinstance(failure, LegalityFailure):
            errors.append(entry.illegal(failure))
        else:
            entries.append((entry, computing))
    several = shared(members for _, members in entries)
    sharing = [each for each in entries if not several.isdisjoint(each[1])]
    failures = follow_sharing(sharing, groups, graph, numerics) if sharing else []
    for entry, members in entries:
        if several.isdisjoint(members):
            broken = accept("plan", members, groups, graph, numerics, exactly=True)
            failures += [(entry, broken)] if broken is not None else []
    errors += [entry.illegal(failure) for entry, failure in failures]
    remark_illegal(dict(entries), failures, graph.remarks)


def follow_sharing(planned: list[tuple[Entry, list[Operation]]], groups: dict[Operation, Group], graph: GroupGraph,
                   numerics: Numerics) -> list[tuple[Entry, LegalityFailure]]:  # fmt: skip
    """`follow` for entries that share operations, and so form a cover (`irc.cover`): all are followed, or none is.
    Returns the failures."""
    together, entries = list[Group](), dict[tuple[Operation, ...], list[Entry]]()
    for entry, members in planned:
        together.append(graph.group(members, "plan"))
        entries.setdefault(tuple(together[-1].members), []).append(entry)
    block = planned[0][1][0].block
    assert block is not None
    covering = cover(together, graph, block)
    if isinstance(covering, LegalityFailure):
        about = [entry for entry, members in planned if any(value.operation in members for value in covering.values)]
        return [((about or [planned[-1][0]])[-1], covering)]
    judged = [(entries[tuple(group.members)].pop(0), legal(group, numerics) or unread(group)) for group in covering]
    failures = [(entry, failure) for entry, failure in judged if failure is not None]
    for group, owned_members in zip(covering, owned(covering), strict=True) if not failures else ():
        graph.merge(group, owned_members)
        groups.update(dict.fromkeys(owned_members, group))
    return failures


def accept(
    proposer: str,
    members: list[Operation],
    groups: dict[Operation, Group],
    graph: GroupGraph,
    numerics: Numerics,
    *,
    exactly: bool = False,
) -> LegalityFailure | None:
    """Merge the groups of the members into one, with all groups on paths between them; free members have none.

    Returns None where that is done, or where the members are in one group already. Returns the failure and changes
    nothing where the group would break a legality rule, or, if it is to have `exactly` these members, where operations
    are on paths between them.
    """
    parts = parts_of(members, groups, numerics)
    if isinstance(parts, LegalityFailure):
        return parts
    if len(parts) < 2:
        return None
    merged = hull(parts, proposer, graph)
    failure = merged if isinstance(merged, LegalityFailure) else legal(merged, numerics)
    between = [] if isinstance(merged, LegalityFailure) else [each for each in merged.members if each not in members]
    if exactly and between:
        return failure_of(has_nothing_between, between)
    if failure is None:
        assert isinstance(merged, Group)
        for member in merged.members:
            groups[member] = merged
        graph.merge(merged)
    return failure


def parts_of(members: Iterable[Operation], groups: Mapping[Operation, Group],
             numerics: Numerics) -> list[Group] | LegalityFailure:  # fmt: skip
    """The groups of the members, but for free ones, or why one has none."""
    parts: dict[Group, None] = {}
    for member in members:
        if member in groups:
            parts[groups[member]] = None
        elif member.name == "kernel":
            return LegalityFailure("F2", f"%{member.results[0].name} is a kernel", member.results)
        elif not is_free(member):
            alone = legal(Group([member]), numerics)
            message = f"{member.name} is no part of a kernel"
            return alone or LegalityFailure("F2", message, member.results)
    return list(parts)


def seeds(block: Block, graph: GroupGraph, numerics: Numerics,
          calls: Container[Operation] | None) -> dict[Operation, Group]:  # fmt: skip
    """The groups with which fusion starts, by operation: one for each that can be a kernel alone, is not free, and is
    not one of the products in `calls`, None for all."""
    groups = {}
    for operation in block:
        if is_free(operation) or operation.name in ("const", "kernel") or operation.regions or operation.has_effect:
            continue
        if is_product(operation) and (calls is None or operation in calls):
            remark_no_kernel(operation, None, graph.remarks)
            continue
        group = graph.group([operation])
        failure = legal(group, numerics)
        if failure is not None:
            remark_no_kernel(operation, failure, graph.remarks)
        else:
            groups[operation] = group
            graph.merge(group)
    return groups


class Candidate(NamedTuple):
    """An entry of the heap of merges: the two groups and the merged one, as they were when the entry was added.

    is_scored: whether its score is that of this merge. If not, it is that of an earlier merge, before one of the groups
        grew.
    """

    producer: Group
    consumer: Group
    merged: Group
    is_scored: bool


def merge_best(groups: dict[Operation, Group], graph: GroupGraph, score: Score) -> None:
    """Merge pairs of groups, the merge of the largest score first, until no pair has a score.

    A score requires deriving a kernel, which takes nearly all of the time. So where a group of a pair has grown since
    the pair was scored, its entry goes back to the heap with the old score, and the pair is scored again only when that
    entry is the first. Among equal scores the smaller merged group comes first, then the one that ends earlier in the
    block: chains merge evenly, and each operation is in few of the kernels that are derived. When the heap is empty,
    pairs that have not been scored are added: first of what is computed once for each result; then of what products
    read, which is computed for each block of the results; then products and reductions that read the same operand.
    """
    scored: set[tuple[Group, Group]] = set()
    serial = itertools.count()
    heap: list[tuple[float, int, int, int, Candidate]] = []

    def push(priority: float, candidate: Candidate) -> None:
        members = candidate.merged.members
        heapq.heappush(heap, (-priority, len(members), graph.number[members[-1]], next(serial), candidate))

    def score_and_push(producer: Group, consumer: Group) -> None:
        scored.add((producer, consumer))
        result = score(producer, consumer)
        if result is not None:
            push(result[0], Candidate(producer, consumer, result[1], True))

    def refill() -> bool:
        pairs = [(other, group) for group in dict.fromkeys(groups.values()) for other in producers(group, groups)]
        once = [pair for pair in pairs if multiplies(pair[0]) or not multiplies(pair[1])]
        for some in (once, pairs, siblings(groups)):
            for pair in some if not heap else ():
                if pair not in scored:
                    score_and_push(*pair)
        return bool(heap)

    while refill():
        while heap:
            negated, *_, best = heapq.heappop(heap)
            producer, consumer = groups[best.producer.members[0]], groups[best.consumer.members[0]]
            if producer is consumer:
                continue
            current = hull((producer, consumer), best.merged.proposer, graph)
            if isinstance(current, LegalityFailure):
                if (producer, consumer) not in scored:
                    score_and_push(producer, consumer)
            elif current.members != best.merged.members:
                push(-negated, Candidate(producer, consumer, current, False))
            elif not best.is_scored:
                score_and_push(producer, consumer)
            else:
                for member in best.merged.members:
                    groups[member] = best.merged
                graph.merge(best.merged)


def producers(group: Group, groups: dict[Operation, Group]) -> Iterator[Group]:
    """Groups whose results this one reads, also through free operations; each once, in block order."""
    others: dict[Group, None] = {}
    for operation in group.closure:
        for operand in operation.inputs:
            other = groups.get(operand.operation) if operand.operation is not None else None
            if other is not None and other is not group:
                others[other] = None
    return iter(others)


def multiplies(group: Group) -> bool:
    """Whether the kernel of a group computes products."""
    kernel = group.equal_kernel
    return not isinstance(kernel, LegalityFailure) and kernel.kind == "product"


def combines(group: Group) -> bool:
    """Whether the kernel of a group computes products or reductions."""
    kernel = group.equal_kernel
    return not isinstance(kernel, LegalityFailure) and kernel.kind != "pointwise"


def siblings(groups: Mapping[Operation, Group]) -> Iterator[tuple[Group, Group]]:
    """Pairs of groups with products or reductions that read the same computed value, in block order: the queries, keys
    and values of an attention, or the gradients of the weights of a norm, which one kernel may compute and read their
    operand once."""
    readers: dict[Value, dict[Group, None]] = {}
    for group in dict.fromkeys(groups.values()):
        if combines(group):
            inside = set(group.closure)
            for value in (value for operation in group.closure for value in operation.inputs):
                is_weight = value.operation is not None and value.operation.name == "const"
                if value.operation not in inside and not is_weight:
                    readers.setdefault(value, {})[group] = None
    for same in readers.values():
        yield from itertools.pairwise(same)


# -- apply -----------------------------------------------------------------------------------------------------


def apply(plan: Plan) -> bool:
    """Turn each group of a plan into a `kernel` operation, and sort the blocks that have one by dependence. Returns
    whether the plan has a group."""
    changed: dict[Block, None] = {}
    for group in separated(plan.groups):
        block = make_kernel(group).block
        assert block is not None
        changed[block] = None
    for block in changed:
        sort_block(block)
    return bool(plan.groups)
