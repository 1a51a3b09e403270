"""Planners: legal plans that compute the same, at the costs that they see; and models of cost."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irc
import irc.group
from examples import block
from irc import ops
from irc.cost import Cost, CostModel, Costs
from irc.device import Device, find_device
from irc.diagnostics import IrcError
from irc.driver.arrays import given_inputs
from irc.group_graph import GroupGraph
from irc.ir import Operation, Value
from irc.kernel import count, kernel_of
from irc.kernel.roofline import kernel_estimate
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from irc.pass_manager import PassContext
from irc.passes.fuse import Fuse, apply, seeds
from irc.plan import Plan
from irc.planner import FusionGraph, Partition
from irc.planners import PLANNERS, exact
from irc.sizes import representative_sizes
from irc.verifier import verify
from tests.fusing import ROOT, fused, kernels, layers, same_results
from tests.programs import SIZES, arrays, environment, programs
from tests.test_plan_edits import TEXT

OPTIMAL = f"{ROOT}/examples/planner.py:optimal"


def sums(x: Value) -> tuple[Value, Value]:
    return ops.reduce_sum(x, axes=(1,), name="s"), ops.reduce_max(x, axes=(1,), name="m")


def sums_both_ways(x: Value) -> tuple[Value, Value]:
    h = ops.exp(x, name="h")
    return ops.reduce_sum(h, axes=(0,), name="c"), ops.reduce_sum(h, axes=(1,), name="r")


def sums_of_rows_and_all(x: Value) -> tuple[Value, Value]:
    h = ops.exp(x, name="h")
    return ops.reduce_sum(h, axes=(0, 1), name="c"), ops.reduce_sum(h, axes=(1,), name="r")


def graph_of(module: Module, calls: frozenset[Operation] | None = None, **options: Any) -> FusionGraph:
    block, context = module.main.block, PassContext()
    graph = GroupGraph(block)
    operations = seeds(block, graph, context.numerics, calls)
    return FusionGraph(graph, block, operations, representative_sizes(module.main, {}), **options)


def planned(module: Module, context: PassContext | None = None, **options: Any) -> Plan:
    (plan,) = Fuse(**options).plans(module, context or PassContext())
    return plan


def members(plan: Plan) -> list[list[str]]:
    return [[member.results[0].name for member in group.members] for group in plan.groups]


def seconds_of(plan: Plan, module: Module, context: PassContext) -> float:
    sizes = representative_sizes(module.main, context.sizes)
    return sum(Costs(context.device).of(group, sizes).seconds for group in plan.groups)


# -- plans -----------------------------------------------------------------------------------------------------

@settings(max_examples=25, deadline=None)
@given(programs(10))
def test_plans_compute_the_same_at_the_cost_that_the_planner_saw(module: Module) -> None:
    """Of every planner: what the emitted kernels move, and `exact` takes the least time."""
    pytest.importorskip("scipy")
    seconds = {}
    for name in (*PLANNERS, OPTIMAL, "policy"):
        copy, context = module.clone(), PassContext(sizes=SIZES)
        plan = planned(copy, context, **({} if name == "policy" else {"planner": name}))
        seconds[name] = seconds_of(plan, copy, context)
        apply(plan)
        verify(copy)
        emitted = [count(kernel_of(operation), environment(copy)) for operation in copy.walk()
                   if operation.name == "kernel"]  # fmt: skip
        assert sum(kernel_estimate(each, context.device).seconds for each in emitted) == pytest.approx(seconds[name])
        same_results(module, copy, arrays(module))
    assert all(seconds["exact"] <= each * (1 + 1e-9) for each in seconds.values()), seconds


@settings(max_examples=25, deadline=None)
@given(programs(10), st.data())
def test_a_plan_costs_what_its_kernels_do(module: Module, draw: st.DataObject) -> None:
    """`graph.total` of sets that share units is what the emitted program costs, and sets are as legal as it says."""
    graph = graph_of(module)
    sets = [graph.hull({unit, *graph.frontier([unit])[:1]}) for unit in graph.units]
    chosen = draw.draw(st.lists(st.sampled_from([each for each in sets if each]), max_size=4)) if any(sets) else []
    if graph.failure(chosen) is not None:
        return
    total = graph.total(chosen)
    apply(Plan(graph.groups(chosen)))
    verify(module)
    sizes = representative_sizes(module.main, {})
    emitted = [count(kernel_of(operation), sizes) for operation in module.walk() if operation.name == "kernel"]
    assert total.launches == len(emitted) and total.bytes == sum(each.distinct_bytes for each in emitted)
    assert total.loaded == sum(each.loaded_bytes for each in emitted)
    assert sum(total.flops.values()) == sum(each.flops for each in emitted)


def test_a_copy_of_a_copied_operation_reads_what_is_stored() -> None:
    """%e is in the second kernel and the third, %d in the first and the second: the third reads the %d of the first."""
    def chain(x: Value) -> list[Value]:
        d = ops.sub(x, ops.reduce_max(x, axes=(0,), keep_dims=True, name="m"), name="d")
        e = ops.exp(d, name="e")
        return [e, ops.reduce_sum(e, axes=(0,), name="s")]

    module = trace(chain, "f64[64, 6]")
    copy, graph = module.clone(), graph_of(module)
    m, d, e, s = graph.units
    apply(Plan(graph.groups([[m, d], [d, e], [e, s]])))
    verify(module)
    kernels = [operation for operation in module.main.block if operation.name == "kernel"]
    assert [[result.name for result in kernel.results] for kernel in kernels] == [["m", "d"], ["e"], ["s"]]
    same_results(copy, module, arrays(copy))


@pytest.mark.parametrize("name, megabytes", [("greedy", 33.6), ("beam", 16.8), ("exact", 16.8), ("anneal", 16.8),
                                             (OPTIMAL, 16.8)])  # fmt: skip
def test_two_reductions_of_one_input(name: str, megabytes: float) -> None:
    pytest.importorskip("scipy")
    module = trace(sums, "f32[2048, 2048]")
    total = sum(group.bytes({}).distinct_bytes for group in planned(module, planner=name).groups)
    assert round(total / 1e6, 1) == megabytes


def test_exact_computes_a_cheap_producer_twice() -> None:
    """Reductions over two axes are no kernel; each with the exponential reads x, and %h is never stored."""
    pytest.importorskip("scipy")
    module = trace(sums_both_ways, "f32[2048, 1024]")
    assert sorted(members(planned(module, planner="exact"))) == [["h", "c"], ["h", "r"]]
    assert len(members(planned(module, planner="beam"))) == 2
    given = {"x": np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)}
    small = trace(sums_both_ways, "f32[5, 7]")
    same_results(small, fused(small, "planner=exact"), given)


@pytest.mark.parametrize("options", ["planner=beam", "planner=anneal", "planner=greedy", "planner=beam,products=auto"])
def test_blocks_in_regions_are_planned(options: str) -> None:
    module = parse(TEXT)
    result = fused(module, options)
    assert sum(operation.name == "kernel" for operation in result.walk()) <= 6
    inside = {inner.results[0].name for kernel in result.walk() if kernel.name == "kernel"
              for inner in kernel.regions[0].block if not inner.definition.is_terminator}  # fmt: skip
    assert any(name.startswith("g") for name in inside) and any(name.startswith("o") for name in inside)
    same_results(module, result, given_inputs(module.main, None, {"N": 3}, 0))


def test_greedy_is_the_policy() -> None:
    for module in (block.block(), block.scores()):
        assert members(planned(module, planner="greedy")) == members(planned(module))


def test_anneal_is_the_same_for_a_seed() -> None:
    def program(x: Value) -> list[Value]:
        values = [x]
        for number in range(12):
            values.append(ops.add(ops.tanh(values[-1]), values[number // 2]))
        return values[6:]

    module = trace(program, "f32[8, 8]")
    assert members(planned(module, planner="anneal", seed=1)) == members(planned(module, planner="anneal", seed=1))
    graphs = [graph_of(module, seed=seed) for seed in (1, 1, 2)]
    for graph in graphs:
        PLANNERS["anneal"](graph)
    judged = [[tuple(unit.index for unit in sorted(each.units)) for each in graph.decisions] for graph in graphs]
    assert judged[0] == judged[1] != judged[2]


def test_a_plan_of_a_planner_replays(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    module, context = trace(sums_both_ways, "f32[64, 32]"), PassContext()
    first = fused(module, "planner=exact", context)
    path = tmp_path / "plan.json"
    path.write_text(context.plans["main"].text)
    assert {group["proposer"] for group in json.loads(path.read_text())["groups"]} == {"exact"}
    assert kernels(fused(module, f"plan={path}")) == kernels(first)


def test_planners_are_read_in_a_few_minutes() -> None:
    """What a reader learns from is short, and a user's planner needs public names of two modules only."""
    for path in (ROOT / "irc" / "planners").glob("*.py"):
        assert len(path.read_text().splitlines()) < 100
    text = (ROOT / "examples" / "planner.py").read_text()
    imported = [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert sorted(filter(None, imported)) == ["irc.cost", "irc.planner"] and len(text.splitlines()) <= 40
    assert not any(node.attr.startswith("_") for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute))


# -- graphs ----------------------------------------------------------------------------------------------------

def test_a_graph_has_units_edges_and_siblings() -> None:
    def program(x: Value, w: Value) -> tuple[Value, Value]:
        a = ops.exp(x, name="a")
        turned = ops.transpose(a, permutation=(1, 0))
        b = ops.tanh(turned, name="b")
        c = ops.matmul(a, w, name="c")
        return ops.add(b, c, name="d"), ops.sin(turned, name="e")

    graph = graph_of(trace(program, "f32[8, 8]", "f32[8, 8]"))
    assert [unit.name for unit in graph.units] == ["a", "b", "d", "e"]  # %c is a library call
    named = [[(one.name, other.name) for one, other in pairs] for pairs in (graph.edges, graph.siblings)]
    assert named == [[("a", "b"), ("a", "e"), ("b", "d")], [("b", "e")]]
    a, b, d, e = graph.units
    assert graph.frontier([b]) == [a, d, e] and graph.needed([b, d]) == [a] and graph.stored([a, b]) == [a, b]
    assert graph.hull([a, d]) is None and graph.hull([a, b]) == {a, b} and graph["%b"] is b
    failure = graph.legal([a, b, d])
    assert failure is not None and failure.rule == "F1"
    assert graph.legal([a, b, d], stores=[b, d]) is None  # %c reads %a of another kernel
    assert graph.is_read_elsewhere(a) and not graph.is_read_elsewhere(b) and graph.repeatable(a)


def test_what_is_stored_is_what_counts() -> None:
    graph = graph_of(trace(sums_both_ways, "f32[2048, 1024]"))
    h, c, _ = graph.units
    assert graph.cost([h, c]).bytes - graph.cost([h, c], stores=[c]).bytes == 4 * 2048 * 1024
    failure = graph.legal([c], stores=[])
    assert failure is not None and failure.rule == "F18"  # a reduction is in one kernel
    with pytest.raises(Exception, match="%c is in several kernels"):
        graph.total([[h, c], [h, c]])
    other = graph.cost([h], find_device("a100"))
    assert other.bytes == graph.cost([h]).bytes and other.seconds > graph.cost([h]).seconds


def test_sets_are_judged_once_and_equal_layers_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = []
    derive = irc.group.derive

    def counting(*arguments: Any, **options: Any) -> Any:
        derived.append(arguments)
        return derive(*arguments, **options)

    def layers(x: Value) -> Value:
        for _ in range(12):
            x = ops.mul(ops.tanh(ops.exp(x)), 0.5)
        return x

    graph = graph_of(trace(layers, "f32[64, 64]"))
    monkeypatch.setattr(irc.group, "derive", counting)
    triples = [graph.units[index : index + 3] for index in range(0, 36, 3)]
    assert [graph.legal(units) for units in triples] == [None] * 12 and len(derived) == 1
    judged = len(graph.decisions)
    assert len({graph.cost(units).seconds for units in triples}) == 1 and len(derived) == 1
    for _ in range(100):
        for units in triples:
            graph.cost(units)
    assert len(derived) == 1 and len(graph.decisions) == judged + 12


@settings(max_examples=40, deadline=None)
@given(programs(16), st.data())
def test_what_is_between_sets_is_all_that_a_search_of_the_graph_finds(module: Module, draw: st.DataObject) -> None:
    """Partitions keep an order and search a part of it: the sets between two are those that are reached from one and
    reach the other, after merges and splits in any order."""
    graph = graph_of(module)
    plan, pairs = Partition(graph), [*graph.edges, *graph.siblings]
    for one, other in draw.draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []:
        edges = {(plan.set_of[a], plan.set_of[b]) for a, b in graph.edges if plan.set_of[a] != plan.set_of[b]}
        ends = {plan.set_of[one], plan.set_of[other]}
        after, before = (reached(ends, some) for some in (edges, {edge[::-1] for edge in edges}))
        between = (after & before) | ends
        merged = plan.hull(one, other)
        if len(ends) > 1 and merged is not None:
            assert merged == frozenset().union(*between)
            plan = plan.merged(merged)
            plan = plan.replaced(between) if draw.draw(st.booleans()) else plan
    again = Partition(graph, plan.set_of)
    assert again == plan and hash(again) == hash(plan) and not graph.conflicts(plan)


def reached(starts: set[Any], edges: set[tuple[Any, Any]]) -> set[Any]:
    seen: set[Any] = set()
    waiting = list(starts)
    while waiting:
        at = waiting.pop()
        waiting += [b for a, b in edges if a == at and b not in seen]
        seen |= {b for a, b in edges if a == at}
    return seen


@pytest.mark.parametrize("name", ["greedy", "beam", "anneal"])
def test_a_planner_judges_as_many_sets_for_each_layer(name: str) -> None:
    """What a planner does grows with the program, not with its square: the sets that are judged are counted, and the
    operations whose neighbors are searched."""
    class Counted(dict[Any, Any]):
        lookups = 0

        def __getitem__(self, key: Any) -> Any:
            self.lookups += 1
            return super().__getitem__(key)

    counts = []
    for number in (8, 32):
        graph = graph_of(layers(number, "f32[8, 16]", "f32[16, 16]", "f32[16]"))
        graph._readers = readers = Counted(graph._readers)
        graph._graph.sources = sources = Counted(graph._graph.sources)
        PLANNERS[name].function(graph)
        counts.append((len(graph.decisions), readers.lookups + sources.lookups))
    assert all(of_32 < 6 * of_8 for of_8, of_32 in zip(*counts, strict=True)), counts


def test_a_partition_takes_in_sets_between() -> None:
    """Of two sets that need one another there is no plan; a merge joins what would be such sets."""

    def program(x: Value, y: Value) -> Value:
        a, b = ops.exp(x, name="a"), ops.sin(y, name="b")
        return ops.add(ops.add(a, ops.neg(b, name="c"), name="d"), ops.add(b, ops.neg(a, name="e"), name="f"))

    graph = graph_of(trace(program, "f32[8]", "f32[8]"))
    a, b, c, e = (graph[name] for name in "abce")
    assert graph.failure([[a, graph["d"]], [b, c]]) is None
    crossed = graph.failure([[a, c], [b, e]])
    assert crossed is not None and crossed.rule == "F1"
    partition = Partition(graph)
    pair = partition.merged(frozenset([a, c]))
    assert pair.hull(b, e) == {a, b, c, e} and pair.hull(a, c) is None


# -- mistakes --------------------------------------------------------------------------------------------------

MISTAKES = """
from irc.cost import cost
from irc.planner import planner

@planner
def raises(graph):
    return 1 / 0

@planner
def nothing(graph):
    pass

@planner
def names(graph):
    return [["ln", "x"]]

@planner
def both(graph):
    return [graph.units]

@planner
def asks(graph):
    return [graph.units] if graph.cost(graph.units) else []

@cost
def negative(launch, device):
    return -1

@cost
def fails(launch, device):
    return launch.no_such_thing

@cost
def text(launch, device):
    return "fast"

plain = 5
"""


@pytest.mark.parametrize(
    "options, code",
    [
        ({"planner": "raises"}, "planner.raised"), ({"planner": "nothing"}, "planner.result"),
        ({"planner": "names"}, "planner.result"), ({"planner": "both"}, "planner.result"),
        ({"planner": "asks"}, "planner.raised"), ({"planner": "plain"}, "pass.option"),
        ({"planner": "negative"}, "pass.option"), ({"planner": "missing"}, "load.missing_name"),
        ({"cost": "plain", "planner": "beam"}, "pass.option"), ({"cost": "negative", "planner": "beam"}, "cost.result"),
        ({"cost": "fails", "planner": "beam"}, "cost.raised"), ({"cost": "text", "planner": "beam"}, "cost.result"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_of_its_author(options: dict[str, str], code: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MISTAKES)
    module = trace(sums_of_rows_and_all, "f32[8, 9]")
    given = {key: name if name == "beam" else f"{path}:{name}" for key, name in options.items()}
    with pytest.raises(IrcError) as caught:
        planned(module, **given)
    (error,) = caught.value.diagnostics
    assert error.code == code and caught.value.exit_code == (2 if code == "pass.option" else 3)
    if code.partition(".")[0] in ("planner", "cost"):
        assert error.location.known and str(error.location).startswith(str(path))
    if options.get("planner") == "both":
        assert "rule F6" in error.message and error.help == "irc explain F6"


@pytest.mark.parametrize("options", [{"planner": "quick"}, {"planner": "beam", "policy": "greedy"},
                                     {"planner": "beam", "plan": "p.json"}, {"cost": "fast"}])  # fmt: skip
def test_options_that_do_not_fit(options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text('{"groups": []}')
    with pytest.raises(IrcError) as caught:
        planned(block.scores(), **options)
    assert caught.value.code == "pass.option"


def test_exact_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module = block.block()
    monkeypatch.setattr(exact, "MOST_SETS", 4)
    with pytest.raises(IrcError) as caught:
        planned(module, planner="exact")
    assert caught.value.code == "planner.size"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(IrcError) as caught:
        planned(module, planner="exact")
    assert caught.value.code == "install.missing_extra" and "pip install" in str(caught.value)


def test_exact_that_stops_early_says_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    solve = optimize.milp

    def stopped(*arguments: Any, **options: Any) -> Any:
        result = solve(*arguments, **options)
        result.status, result.mip_gap = 1, 0.032
        return result

    monkeypatch.setattr(optimize, "milp", stopped)
    context = PassContext()
    planned(block.scores(), context, planner="exact")
    assert [note for note in context.notes if "within 3.2% of the least time" in note]


def crossed(x: Value) -> tuple[Value, Value, Value]:
    """{a, d} needs {c, b}, which needs {a, d}."""
    a, c = ops.exp(x, name="a"), ops.neg(x, name="c")
    return ops.add(a, x, name="b"), ops.mul(c, x, name="d"), ops.relu(x, name="e")


def sets_of(graph: FusionGraph, *names: str) -> list[frozenset[Any]]:
    """A set of units for each text, of which each letter names one."""
    return [frozenset(graph[letter] for letter in name) for name in names]


def test_of_sets_that_need_one_another_only_these_are_excluded() -> None:
    graph = graph_of(trace(crossed, "f32[64, 64]"))
    sets = sets_of(graph, "ad", "cb", "e", "a", "b", "ce")
    conflicts = graph.conflicts(sets[:3])
    assert conflicts[0] == (sets[:2], sorted([graph["a"], graph["c"]])) and not graph.conflicts(sets[2:])
    candidates = [(units, units) for units in sets]
    weights, bound = exact.exclusion(graph, candidates, [0, 1, 2])
    assert weights == {0: -1.0, 1: -1.0, 3: 1.0, 5: 1.0} and bound == -1.0


def test_exact_solves_again_without_sets_that_need_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one deadline: the crossed sets are cheapest, but only one of them can be chosen."""
    optimize = pytest.importorskip("scipy.optimize")
    graph = graph_of(trace(crossed, "f32[64, 64]"))
    cheapest, cost, solve, limits = sets_of(graph, "ad", "cb"), FusionGraph.cost, optimize.milp, list[float]()

    def priced(graph: FusionGraph, units: Any, *others: Any, **options: Any) -> Cost:
        seconds = 1e-6 if units in cheapest else 2e-6 if len(units) == 1 else 2e-5
        return replace(cost(graph, units, *others, **options), seconds=seconds)

    def timed(*arguments: Any, **options: Any) -> Any:
        limits.append(options["options"]["time_limit"])
        return solve(*arguments, **options)

    monkeypatch.setattr(FusionGraph, "cost", priced)
    monkeypatch.setattr(optimize, "milp", timed)
    plan = exact.exact.function(graph)
    assert graph.failure(plan) is None and sum(map(len, plan)) == 5
    assert sum(priced(graph, units).seconds for units in plan) == pytest.approx(7e-6)  # one of both, and three alone
    assert len(limits) > 1 and limits == sorted(limits, reverse=True) and limits[0] > limits[-1]


@pytest.mark.parametrize(("status", "code"), [(1, "planner.size"), (2, "planner.result")])
def test_exact_without_a_plan_says_why(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    result = optimize.OptimizeResult(x=None, status=status, message="The problem is infeasible.")
    monkeypatch.setattr(optimize, "milp", lambda *arguments, **options: result)
    with pytest.raises(IrcError) as caught:
        planned(block.scores(), planner="exact")
    assert caught.value.code == code


# -- cost ------------------------------------------------------------------------------------------------------

def test_a_model_of_cost_decides(tmp_path: Path) -> None:
    """Where a launch is all that counts, whatever can be in one kernel is; where bytes are, they decide."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from irc.cost import cost\nfrom irc.policy import policy\n\n"
        "@cost\ndef members(launch, device):\n    return len(launch.members) ** 2\n\n"
        "@policy\ndef by_time(merge):\n    return merge.seconds_saved\n"
    )
    module = block.block()
    alone = planned(module, planner="beam", cost=f"{path}:members")
    assert all(len(group.members) == 1 for group in alone.groups)
    together = planned(module, planner="beam", cost=f"{ROOT}/examples/planner.py:launches_alone")
    assert len(together.groups) <= len(planned(module, planner="beam").groups)
    costly = planned(module, policy=f"{path}:by_time", cost=f"{path}:members")
    assert len(costly.groups) > len(planned(module, policy=f"{path}:by_time").groups)


def test_launch_latency_counts() -> None:
    graph = graph_of(trace(sums, "f32[8, 8]"))
    launch = graph.cost(graph.units[:1])
    assert launch.seconds >= graph.device.launch_seconds and launch.limit == "launch" and launch.launches == 1
    assert (launch.kind, launch.members) == ("reduction", ("reduce_sum",))
    assert set(launch.flops) == {"products", "other"}


def test_a_cost_is_called_with_the_launch_and_the_device() -> None:
    seen: list[tuple[Cost, Device]] = []
    model = CostModel("seen", lambda launch, device: seen.append((launch, device)) or 2.5)  # type: ignore[func-returns-value]
    graph = graph_of(trace(sums, "f32[8, 8]"), costs=Costs(model=model))
    assert graph.cost(graph.units).seconds == 2.5 and graph.cost(graph.units).seconds == 2.5
    ((launch, device),) = seen
    assert launch.bytes == 4 * (64 + 16) and device is graph.device


# -- commands --------------------------------------------------------------------------------------------------

def test_the_page_of_planners_has_all_that_is_public() -> None:
    page = irc.doc("planners")
    assert all(f"\n  {name} " in page for name in PLANNERS)
    for kind, title in ((FusionGraph, "graph"), (Partition, "partition")):
        for name, member in vars(kind).items():
            if not name.startswith("_") and callable(member):
                assert f"  {title}.{name}(" in page and (member.__doc__ or "").strip()
    assert "optimal: a planner (" in irc.doc("optimal", [f"{ROOT}/examples/planner.py"])
    assert "launches_alone: a cost (" in irc.doc("launches_alone", [f"{ROOT}/examples/planner.py"])


def test_explain_names_the_planner(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from irc.planner import planner\n\n@planner\ndef nothing(graph):\n    return []\n")
    text = irc.explain(block.scores(), "scaled", "y", pipeline=f"fuse{{planner={path}:nothing}}")
    assert "the planner nothing chose other kernels" in text and '{"members": ["scaled", "p", "y"]}' in text


def test_an_experiment_has_the_time_of_a_model(tmp_path: Path) -> None:
    """A model that returns the seconds of the roofline has its time, and a changed file is measured again."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from irc.cost import cost\n\n@cost\ndef same(launch, device):\n    return launch.seconds\n\n"
        "@cost\ndef kinds(launch, device):\n"
        "    return {'library': 1, 'host': 10}.get(launch.kind, 100 if launch.members and launch.programs else 0)\n"
    )
    for name in ("same", "kinds"):
        report = irc.experiment({"block": block.block()}, {"mine": "default"}, cost=f"{path}:{name}", with_error=False,
                                cache=tmp_path / "cache", sizes={"B": 1, "S": 128})  # fmt: skip
        assert report.cost == name
        for each in report.cases[0].measured.values():
            assert each.modeled_microseconds is not None
            counts = each.library_calls + 10 * each.host_operations + 100 * each.kernels
            expected = each.estimated_microseconds if name == "same" else 1e6 * counts
            assert each.modeled_microseconds == pytest.approx(expected)
    without = irc.experiment({"block": block.block()}, {"mine": "default"}, with_error=False, sizes={"B": 1, "S": 128})
    assert without.cost is None and without.cases[0].measured["mine"].modeled_microseconds is None
