"""Planners and models of cost that options of `fuse` name, and the plan of a block by a planner (`irc.planner`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from irc.cost import Costs
from irc.diagnostics import did_you_mean, fail
from irc.dims import Symbol
from irc.group import Group
from irc.group_graph import GroupGraph
from irc.ir import Block, Operation
from irc.pass_manager import PassContext
from irc.passes._remarks import remark_judged
from irc.planner import FusionGraph, Planner
from irc.planners import PLANNERS
from irc.user_files import is_reference, load_declared


def find_planner(name: str) -> Planner:
    """A planner of irc, or one in a user's file (`FILE.py:NAME`); raises `pass.option`."""
    if name in PLANNERS:
        return PLANNERS[name]
    if not is_reference(name):
        raise fail("pass.option", f"fuse has no planner `{name}`", expected=f"{', '.join(PLANNERS)} or FILE.py:NAME",
                   help=did_you_mean(name, PLANNERS, "irc doc planners"))  # fmt: skip
    return load_declared(name, Planner, "@planner")


def planned_groups(planner: Planner, block: Block, graph: GroupGraph, operations: Iterable[Operation],
                   context: PassContext, sizes: Mapping[Symbol, int], costs: Costs,
                   seed: int) -> list[Group]:  # fmt: skip
    """The groups of a block that a planner chooses, of operations that can be kernels."""
    fusion = FusionGraph(graph, block, operations, sizes, costs=costs, numerics=context.numerics, seed=seed)
    if not fusion.units:
        return []
    try:
        groups = planner(fusion)
    finally:
        remark_judged(fusion.decisions, planner.name, graph.remarks)
    for note in fusion.notes:
        context.note(f"fuse: {note}")
    return groups
