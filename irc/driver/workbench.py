"""Plans that are followed: a program before fusion, and what it costs with one plan or another.

Each plan is followed on a copy of the program by the passes of its pipeline from `fuse` on, so that it is judged by the
same rules, and counted from the same emitted program, as there. Start at `Workbench`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from irc.diagnostics import UNKNOWN, IrcError, fail
from irc.driver.choosing import settle
from irc.driver.figures import by_operation, report_on
from irc.driver.models import Settings, Source, find_backend, read_pipeline
from irc.driver.roofline import estimate
from irc.module import Module
from irc.named_pipelines import DEFAULT
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import Fuse
from irc.passes.siblings import Siblings
from irc.plan_difference import differences
from irc.plan_edits import Edit, Planned, edited
from irc.plan_file import Entry, MadeFor, PlanFile, joined_plans
from irc.sizes import representative_sizes


@dataclass(frozen=True)
class PlanCost:
    """What a program with a plan costs in one run; `seconds` are estimated for the device. `label` is `estimated` where
    the program cannot be executed, so that copies and operations of the host are not counted (PyTorch is missing)."""

    launches: int
    library_calls: int
    host_operations: int
    distinct_bytes: int
    loaded_bytes: int
    flops: int
    seconds: float
    label: str = "counted"


@dataclass(frozen=True)
class EditStep:
    """An edit that is legal: how the plan differs after it, and the costs of the plan before and after."""

    edit: str
    changes: tuple[str, ...]
    before: PlanCost
    after: PlanCost


@dataclass
class Following(Fuse):
    """`fuse` with a plan that is in no file yet."""

    given: PlanFile = field(default_factory=PlanFile)

    @classmethod
    def pipeline_name(cls) -> str:
        return "fuse"

    def prepare(self, context: PassContext) -> None:
        context.followed = self.given

    def plan_file(self) -> PlanFile:
        return self.given


Members = tuple[tuple[str | None, tuple[str, ...], tuple[str, ...]], ...]  # of siblings, with functions and comments


class Prepared(NamedTuple):
    """A program before `fuse`, and the products that were joined in each function."""

    module: Module
    joined: dict[str, tuple[Entry, ...]]


@dataclass(frozen=True)
class Followed:
    """A plan as `fuse` writes it, the program before fusion and with its kernels, and what that costs."""

    plan: PlanFile
    unfused: Module
    module: Module
    cost: PlanCost


class Workbench:
    """A program with the passes that follow plans, and those after them: each plan is followed on a copy.

    `module` is the program before the first of these passes. What passes before `fuse` make of it is kept until a plan
    states other siblings.
    """

    def __init__(self, source: Source, pipeline: str | None, settings: Settings) -> None:
        self.settings, self.context = settings, settings.context("triton")
        self.module = settings.load(source)
        self.passes = read_pipeline(pipeline or find_backend("triton").PIPELINE, self.context)
        fuse = next((step for step in self.passes if isinstance(step, Fuse)), None)
        if fuse is None:
            raise fail("usage.arguments", "a plan needs a pipeline with fuse", help="leave out -p, or give default")
        settle(self.module, self.passes, self.context)
        place = self.passes.index(fuse)
        first = next(index for index, step in enumerate(self.passes) if isinstance(step, Siblings | Fuse))
        self.between, self.fuse, self.rest = self.passes[first:place], fuse, self.passes[place + 1 :]
        self.prepared: dict[Members | None, Prepared] = {}
        PassManager(self.passes[:first], self.context, verify_each=settings.verify_each,
                    observe=settings.dump).run(self.module)  # fmt: skip

    @property
    def device(self) -> str:
        return self.context.device.name

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of symbols at which costs are counted, by name."""
        sizes = representative_sizes(self.module.main, self.settings.dims)
        return {symbol.name: size for symbol, size in sizes.items()}

    def made_for(self, model: str | None) -> MadeFor:
        """What a plan is made for, with the passes as a pipeline without what a plan stands in place of."""
        products = self.fuse.products or self.context.products
        passes = [step if step is not self.fuse else Fuse(products=self.fuse.products) for step in self.passes]
        pipeline, default = (",".join(map(str, each)) for each in (passes, read_pipeline(DEFAULT, self.context)))
        stated = "default" if pipeline == default else pipeline
        return MadeFor(model, stated, products, self.context.numerics, self.device, self.sizes)

    def follow(self, plan: PlanFile, path: str) -> Followed:
        """Follow a plan; its entries have places in the file of this path."""
        return self.run(Following(plan=path or "plan", products=self.fuse.products, given=plan))

    def run(self, fuse: Fuse) -> Followed:
        """The rest of the pipeline on a copy, with a pass `fuse`."""
        context = replace(self.context, plans={}, statistics={}, notes=[], joined={}, followed=None)
        fuse.prepare(context)
        prepared = self.before_fuse(context)
        context.joined, module = prepared.joined, prepared.module.clone()
        PassManager([fuse, *self.rest], context, verify_each=self.settings.verify_each,
                    observe=self.settings.dump).run(module)  # fmt: skip
        return Followed(joined_plans(context.plans.values()), prepared.module, module, self.cost(module))

    def before_fuse(self, context: PassContext) -> Prepared:
        """The program before `fuse`, with the siblings that the plan states which the context follows."""
        stated = None if context.followed is None else context.followed.siblings
        members = None if stated is None else tuple((each.function, each.members, each.comment) for each in stated)
        if members not in self.prepared:
            module = self.module.clone()
            PassManager(self.between, context, verify_each=self.settings.verify_each,
                        observe=self.settings.dump).run(module)  # fmt: skip
            self.prepared = {members: Prepared(module, context.joined)}
        return self.prepared[members]

    def cost(self, module: Module) -> PlanCost:
        sizes = representative_sizes(module.main, self.settings.dims)
        counted = by_operation(module, sizes)
        report = report_on(module, sizes, {}, counted)
        seconds = estimate(chain.from_iterable(counted[0].values()), self.context.device)
        return PlanCost(report.launches, report.library_calls, report.host_operations, report.distinct_bytes,
                        report.loaded_bytes, report.flops, seconds, report.label)  # fmt: skip

    def edit(self, plan: PlanFile, edit: Edit, before: Followed, path: str) -> tuple[EditStep, PlanFile, Followed]:
        """One edit of a plan that was followed before; errors quote it."""
        changed = edited(plan, edit, Planned(before.unfused))
        try:
            after = self.follow(changed, path)
        except IrcError as error:
            raise edit.refused(error) from None
        new = carried(after.plan, changed, self.module)
        changes = tuple(str(each) for each in differences(plan, new))
        return EditStep(edit.text, changes, before.cost, after.cost), new, after


def carried(plan: PlanFile, source: PlanFile, module: Module) -> PlanFile:
    """A plan as `fuse` writes it, with the comments, places and proposers of the plan that it followed."""
    holders: dict[tuple[str, str], list[Entry]] = {}
    for entry in source.groups:
        for name in entry.members:
            holders.setdefault((entry.function or module.main.name, name), []).append(entry)

    def with_comment(entry: Entry) -> Entry:
        members = set(entry.members)
        places = holders.get((entry.function or module.main.name, entry.members[-1]), ())
        origin = next((each for each in places if members.issubset(each.members)), None)
        if origin is None:
            return replace(entry, place=UNKNOWN)
        proposer = origin.proposer or entry.proposer
        return replace(entry, place=origin.place, comment=origin.comment, proposer=proposer)

    groups = tuple(map(with_comment, plan.groups))
    return PlanFile(groups, source.products, source.made_for, source.comment, plan.siblings, plan.bundles)
