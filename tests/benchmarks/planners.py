"""The planners of irc compared: kernels, bytes, estimated time, sets judged, and the time that planning takes.

    python -m tests.benchmarks.planners [NAME ...] [--products irc]
    python -m tests.benchmarks.planners --sets [NAME ...]       # how many sets are judged in a second
    python -m tests.benchmarks.planners --layers 200            # planning of so many layers, of 5 operations each

Nothing runs on a device. Times are estimates for the device, before reductions are split; `policy` is `policy=greedy`,
which also joins products of one operand. `*` is added where the plan computes an operation in several kernels.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import irc
from irc import ops
from irc.cost import Cost, Costs, together
from irc.device import DEFAULT_DEVICE
from irc.diagnostics import IrcError
from irc.driver.models import Settings, read_pipeline
from irc.group_graph import GroupGraph
from irc.ir import Operation
from irc.module import Module
from irc.named_pipelines import ALIASES
from irc.op import trace
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import Fuse, seeds
from irc.plan import Plan
from irc.planner import FusionGraph, Units
from irc.planners import PLANNERS
from irc.sizes import representative_sizes
from tests.benchmarks.networks import ConvNeXtBlock
from tests.fusing import layers

SETS_HEAD = ("model", "sets", "new, a second", "of known structure", "seen before")
HEAD = ("model", "planner", "kernels", "MB", "us", "planned in")


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class GPT2Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(self.first(x)).split(width, dim=2))  # fmt: skip
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


def siblings() -> Module:
    """Two reductions of one input."""
    return trace(lambda x: (ops.reduce_sum(x, axes=(1,)), ops.reduce_max(x, axes=(1,))), "f32[2048, 2048]")


def both_ways() -> Module:
    """Reductions of an exponential over both axes."""
    return trace(lambda x: (ops.reduce_sum(y := ops.exp(x), axes=(1,)), ops.reduce_sum(y, axes=(0,))),
                 "f32[2048, 1024]")  # fmt: skip


def of_torch(module: Callable[[], nn.Module], *shape: int) -> Callable[[], Module]:
    return lambda: irc.from_torch(module().bfloat16().eval(), (torch.randn(shape, dtype=torch.bfloat16),))


MODELS: dict[str, Callable[[], Module]] = {
    "siblings": siblings,
    "both_ways": both_ways,
    "swiglu": of_torch(lambda: SwiGLU(1024, 2816), 2048, 1024),
    "convnext_block": of_torch(lambda: ConvNeXtBlock(96), 8, 96, 56, 56),
    "gpt2_block": of_torch(lambda: GPT2Block(768, 12), 1, 1024, 768),
}


def before_fusion(source: Module, settings: Settings) -> tuple[Module, PassContext]:
    """The program as fuse sees it in the default pipeline."""
    context = settings.context("triton")
    passes = read_pipeline(ALIASES["default"], context)
    stop = next(index for index, step in enumerate(passes) if isinstance(step, Fuse))
    module = source.clone()
    PassManager(passes[:stop], context).run(module)
    return module, context


def total(plan: Plan, module: Module, context: PassContext) -> Cost:
    sizes = representative_sizes(module.main, context.sizes)
    return together([Costs(context.device).of(group, sizes) for group in plan.groups])


def sets_row(name: str, module: Module, context: PassContext) -> str:
    """How many sets of connected units are judged in a second, with their costs: where no set has their structure,
    where the kernels are derived already, and where the sets were seen before."""
    block, calls = module.main.block, frozenset[Operation]() if context.products == "irc" else None
    operations = list(seeds(block, GroupGraph(block), context.numerics, calls))
    sizes = representative_sizes(module.main, context.sizes)

    def graph(groups: GroupGraph) -> FusionGraph:
        return FusionGraph(groups, block, operations, sizes, costs=Costs(context.device), numerics=context.numerics)

    groups = GroupGraph(block)
    new, known = graph(groups), graph(groups)
    sets = [[unit.index for unit in units] for units in connected(graph(GroupGraph(block)))]
    gc.collect()
    gc.freeze()  # what PyTorch holds is not looked through
    rates = []
    for judged in (new, known, known):
        chosen = [frozenset(judged.units[index] for index in indices) for indices in sets]
        start = time.process_time()
        for units in chosen:
            if judged.legal(units) is None:
                judged.cost(units)
        rates.append(len(sets) / (time.process_time() - start))
    gc.unfreeze()
    figures = [format(float(f"{rate:.2g}"), ",.0f") for rate in rates]
    return f"| {name} | {len(sets)} | {' | '.join(figures)} |"


def connected(graph: FusionGraph) -> list[Units]:
    """Every set of units that are connected by edges and siblings and have nothing between them."""
    sets: dict[Units, None] = {frozenset([unit]): None for unit in graph.units}
    waiting = list(sets)
    for units in waiting:  # which grows
        hulls = [graph.hull(units | {other}) for other in graph.frontier(units)]
        waiting += [larger for larger in dict.fromkeys(hulls) if larger is not None and larger not in sets]
        sets.update(dict.fromkeys(waiting))
    return list(sets)


def row(name: str, module: Module, planner: str, context: PassContext) -> str:
    """The row of a model and a planner, or why there is no plan."""
    fuse = Fuse() if planner == "policy" else Fuse(planner=planner)
    start = time.process_time()
    try:
        (plan,) = fuse.plans(module, context)
    except IrcError as error:
        return f"| {name} | {planner} | {error.code} | | | {time.process_time() - start:.2f} s |"
    seconds = time.process_time() - start
    cost = total(plan, module, context)
    members = [member for group in plan.groups for member in group.members]
    repeated = "*" if len(set(members)) < len(members) else ""
    figures = f"{cost.bytes / 1e6:.1f} | {1e6 * cost.seconds:.1f} | {seconds:.2f} s"
    return f"| {name} | {planner} | {len(plan.groups)}{repeated} | {figures} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.planners", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument("--products", default="irc", choices=("irc", "host"), help="what computes products")
    parser.add_argument("--device", default=DEFAULT_DEVICE, metavar="NAME|FILE.toml")
    parser.add_argument("--sets", action="store_true", help="count the sets that are judged in a second")
    parser.add_argument("--layers", type=int, metavar="N", help="plan N layers, with products in libraries")
    options = parser.parse_args()
    if options.layers:
        options.names, options.products = ["layers"], "host"
        MODELS["layers"] = lambda: layers(options.layers, "f32[256, 512]", "f32[512, 512]", "f32[512]")
    settings = Settings(products=options.products, device=options.device)
    head = SETS_HEAD if options.sets else HEAD
    print(f"| {' | '.join(head)} |", f"{'|---' * len(head)}|", sep="\n")
    for name in options.names or MODELS:
        source = MODELS[name]()
        for planner in ("policy", *PLANNERS) if not options.sets else ():
            module, context = before_fusion(source, settings)
            print(row(name, module, planner, context), flush=True)
        if options.sets:
            module, context = before_fusion(source, settings)
            row_of_sets = [sets_row(name, module, context) for _ in range(2)][-1]  # the first has cold caches
            print(row_of_sets, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
