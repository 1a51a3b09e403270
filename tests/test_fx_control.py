"""irc.to_fx of branches and loops: against eager PyTorch, ONNX Runtime and the interpreter; which tools go on."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from onnx_models import imported, in_runtime, model
from torch import nn
from torch._ops import HigherOrderOperator
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError
from irc.frontends.onnx import from_model
from irc.interpreter import run
from irc.module import Module
from irc.parser import parse
from tests.fuzz.features import chosen
from tests.fuzz.paths import path_outcomes, quiet
from tests.fuzz.running import Job, program_of
from tests.importing import floats
from tests.test_onnx_control_flow import CONDITIONS, GROWING, SCANS
from tests.test_torch_control import Branches, Counted, Large, Nested, Recurrence, Rows, Uneven, Until

pytestmark = pytest.mark.filterwarnings("ignore")
Arrays = dict[str, Any]


def operators(graph: GraphModule) -> set[str]:
    """The higher-order operators of a graph and of the graphs within it."""
    graphs = [each for each in graph.modules() if isinstance(each, GraphModule)]
    return {node.target.name() for each in graphs for node in each.graph.nodes
            if isinstance(node.target, HigherOrderOperator)}  # fmt: skip


def called(graph: GraphModule, feed: Arrays) -> list[Any]:
    return [result.numpy() for result in graph(*(torch.from_numpy(np.asarray(each)) for each in feed.values()))]


def checked(module: Module, *feeds: Arrays, text: str = "") -> GraphModule:
    """The graph, whose results have the shapes and elements of the interpreter's, and of ONNX Runtime's for `text`."""
    graph = irc.to_fx(module)
    for feed in feeds:
        results = called(graph, feed)
        for result, expected in zip(results, run(module, feed).values(), strict=True):
            assert result.shape == expected.shape
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        for result, expected in zip(results, in_runtime(model(text), feed) if text else results, strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    return graph


def checked_onnx(text: str, *feeds: Arrays) -> GraphModule:
    return checked(imported(text), *feeds, text=text)


MODELS = {Branches: {"cond"}, Nested: {"cond"}, Until: {"while_loop"}, Counted: {"while_loop"}, Large: {"while_loop"},
          Recurrence: {"scan"}, Rows: {"scan"}, Uneven: {"cond"}}  # fmt: skip


@pytest.mark.parametrize("sizes", ["static", "dynamic"])
@pytest.mark.parametrize("of", MODELS, ids=lambda of: of.__name__)
def test_against_eager(of: Any, sizes: str) -> None:
    """Graphs are copied, printed, exported with and without decompositions, and read again; shapes are propagated."""
    if of is Uneven and sizes == "dynamic":
        pytest.skip("PyTorch does not export it with a dynamic dim")
    torch.manual_seed(0)
    program: nn.Module = of()
    more = (torch.randn(4),) if of in (Recurrence, Rows) else ()
    shapes: Any = ({0: Dim("B", min=2)}, *(None for _ in more)) if sizes == "dynamic" else None
    graph = irc.to_fx(irc.from_torch(program, (torch.randn(5, 4), *more), dynamic_shapes=shapes))
    assert operators(graph) == MODELS[of]
    feeds = [torch.rand(5, 4), -torch.rand(5, 4), *([torch.rand(2, 4), -torch.rand(9, 4)] if shapes else [])]
    exported = torch.export.export(graph, (torch.randn(5, 4), *more), dynamic_shapes=shapes)
    tools = {
        "graph": graph, "copy": copy.deepcopy(graph), "exported": exported.module(),
        "decomposed": exported.run_decompositions().module(),
        "read again": irc.to_fx(irc.from_torch(graph, (torch.randn(5, 4), *more))),
    }  # fmt: skip
    for x in feeds:
        expected = pytree.tree_leaves(program(x, *more))
        for name, tool in tools.items():
            if name != "read again" or len(x) == 5:
                torch.testing.assert_close(list(tool(x, *more)), expected, msg=name)
    ShapeProp(graph).propagate(feeds[0], *more)
    (results,) = graph.graph.output_node().args
    assert [node.meta["tensor_meta"].shape for node in results] == [each.shape for each in graph(feeds[0], *more)]
    assert f"higher_order.{min(MODELS[of])}(" in graph.print_readable(print_output=False)


ENDING = """(float[N, 3] x, int64 n, bool go) => (y, all) {
    y, all = Loop(n, go, x) <body = b (int64 i, bool c, float[N, 3] a) => (d, s, o) {
        s = Add(a, x) f = Cast<to = 1>(i) o = Mul(s, f) limit = Constant<value_float = 4.0>()
        m = ReduceMax<keepdims = 0>(s) d = Less(m, limit) }> }"""


def test_a_loop_that_stacks_results_and_ends_early() -> None:
    graph = irc.to_fx(imported(ENDING))
    lengths = set()
    for rows in (1, 2):
        for count in (0, 1, 4, 9):
            for going in (True, False):
                feed = {"x": np.abs(floats(rows, 3)) + 0.5, "n": np.array(count), "go": np.array(going)}
                last, stacked = called(graph, feed)
                expected = run(imported(ENDING), feed)
                np.testing.assert_allclose(last, expected["y"], rtol=1e-5)
                assert stacked.shape == expected["all"].shape
                np.testing.assert_allclose(stacked, expected["all"], rtol=1e-5)
                lengths.add((count, len(stacked)))
                if len(stacked):  # ONNX Runtime forgets N without an iteration
                    np.testing.assert_allclose(stacked, in_runtime(model(ENDING), feed)[1], rtol=1e-5)
    assert (1, 1) in lengths and (9, 0) in lengths and any(0 < length < count for count, length in lengths)
    assert operators(graph) == {"while_loop"}


@pytest.mark.parametrize("trips", ["0", "4", "n"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_of_loops(name: str, trips: str) -> None:
    """A loop of a known number of rounds, at least one, that its condition does not end, is a scan."""
    again, stays_true = CONDITIONS[name]
    graph = checked_onnx(f"""(float[3] x, int64 n) => (y, all, went) <int64 k = {{{trips.replace("n", "7")}}},
        bool go = {{1}}> {{ y, all, went = Loop({"n" if trips == "n" else "k"}, go, x) <
            body = inner (int64 i, bool c, float[3] b) => (d, s, o, w) {{
                {again} s = Tanh({"a" if "Mul" in again else "b"}) o = Neg(s) w = Identity(c) }}> }}""",
        *({"x": floats(3), "n": np.array(count)} for count in (1, 3)))  # fmt: skip
    assert operators(graph) == ({"scan"} if trips == "4" and stays_true else {"while_loop"})
    feed = {"x": floats(3), "n": np.array(0)}
    last, stacked, _ = called(graph, feed)
    if trips != "4":
        np.testing.assert_array_equal(last, feed["x"])
        assert stacked.shape == (0, 3)


@pytest.mark.parametrize("nodes", SCANS)
def test_scans(nodes: str) -> None:
    graph = checked_onnx(f"(float[N, 3] x, float[3] z, float[N] m) => (y, s) {{ {nodes} }}",
                         *({"x": floats(rows, 3), "z": floats(3), "m": floats(rows)} for rows in (1, 4)))  # fmt: skip
    assert operators(graph) == {"scan"}


def test_loops_in_loops_and_branches_in_those() -> None:
    graph = checked_onnx("""(float[N, 3] x, int64 n, int64 m) => (y, all) <bool go = {1}> {
        y, all = Loop(n, go, x) <body = b (int64 i, bool c, float[N, 3] a) => (d, s, o) {
            d = Identity(c) j = Add(i, m)
            s = Loop(j, go, a) <body = bb (int64 i2, bool c2, float[N, 3] a2) => (d2, s2) {
                d2 = Identity(c2) z = Constant<value_float = 0.0>() r = ReduceSum<keepdims = 0>(a2) p = Greater(r, z)
                s2 = If(p) <then_branch = q () => (t) { t = Sub(a2, x) }, else_branch = v () => (e) { e = Add(a2, x) }>
            }> o = Neg(s) }> }""",
        *({"x": floats(rows, 3), "n": np.array(n), "m": np.array(m)}
          for rows in (1, 4) for n in (1, 3) for m in (0, 2)))  # fmt: skip
    assert operators(graph) == {"while_loop", "cond"}


@pytest.mark.parametrize("text", [
    """(float[N, 3] x, bool c) => (y, z) { h = Neg(x) y, z = If(c) <
        then_branch = a () => (t, u) { t = Identity(h) u = Identity(h) },
        else_branch = b () => (e, f) { e = Exp(h) f = Identity(e) }> }""",
    """(float[N, 3] x, bool c) => (y, z) { s = Constant<value_ints = [-1]>() v = Reshape(x, s) y, z = If(c) <
        then_branch = a () => (t, u) { t = ReduceSum(x) u = Identity(v) },
        else_branch = b () => (e, f) { e = ReduceMax(x) f = Add(v, v) }> }""",
    """(float[N, 3] x, bool c) => (y, z) <bool go = {1}, int64 n = {3}> { y, z = Loop(n, go, x, x) <
        body = b (int64 i, bool d, float[N, 3] a, float[N, 3] b) => (k, s, t) {
            k = Identity(d) s = Identity(b) t = Add(a, x) }> }""",
], ids=["results", "operands", "carried"])  # fmt: skip
def test_values_that_share_memory(text: str) -> None:
    """PyTorch demands that operands and results of its operators share none, when it exports and decomposes."""
    feeds = [{"x": floats(rows, 3), "c": np.array(taken)} for rows in (1, 2, 5) for taken in (True, False)]
    graph = checked_onnx(text, *feeds)
    exported = torch.export.export(graph, (torch.randn(4, 3), torch.tensor(True)),
                                   dynamic_shapes=({0: Dim.DYNAMIC}, None)).run_decompositions()  # fmt: skip
    for feed in feeds[2:]:
        tensors = [torch.from_numpy(each) for each in feed.values()]
        torch.testing.assert_close(exported.module()(*tensors), graph(*tensors))


LOOP_OVER_SIZES = """irc text 1
module @sizes {
  func @main<N>(%x: f32[N], %w: f32[2]) -> (y: f32[2], all: f32[ROUNDS, 2]) {
    %t = dim {value = ROUNDS} : i64[]
    %y, %all = loop %t, _, %w : f32[2], f32[ROUNDS, 2] { (%i: i64[], %going: bool[], %h: f32[2])
      %s = dim {value = 2*N + 1} : i64[]
      %f = cast %s {to = f32} : f32[]
      %g = add %h, %f : f32[2]
      yield %going, %g, %h
    }
    return %y, %all
  }
}
"""


@pytest.mark.parametrize(("rounds", "operator"), [("N", "scan"), ("N - 1", "while_loop"), ("2", "scan")])
def test_sizes_that_no_operand_has(rounds: str, operator: str) -> None:
    graph = checked(parse(LOOP_OVER_SIZES.replace("ROUNDS", rounds)),
                    *({"x": floats(size), "w": floats(2)} for size in (1, 2, 5)))  # fmt: skip
    assert operators(graph) == {operator}


def test_a_count_below_0_is_none() -> None:
    text = LOOP_OVER_SIZES.replace("{value = ROUNDS}", "{value = N - 3}").replace(", all: f32[ROUNDS, 2]", "")
    text = text.replace("%y, %all", "%y").replace(", f32[ROUNDS, 2] {", " {").replace("%g, %h", "%g")
    checked(parse(text), *({"x": floats(size), "w": floats(2)} for size in (1, 3, 5)))


def test_sizes_that_a_branch_gives() -> None:
    def program(x: torch.Tensor) -> Any:
        (y,) = torch.cond(x.sum() > 0, lambda x: (x[x > 0],), lambda x: (x[:-1] * 2,), (x,))
        return y + 1, y.shape[0] + torch.zeros((), dtype=torch.int64)

    graph = irc.to_fx(irc.from_torch(program, (torch.randn(5),), dynamic_shapes=({0: "N"},)))
    for x in (torch.tensor([1.0, -2, 3, 4]), torch.tensor([-1.0, -2, 0]), torch.tensor([3.0])):
        torch.testing.assert_close(list(graph(x)), list(program(x)))


def test_assertions_and_calls_in_branches() -> None:
    module = parse("""irc text 1
module @branches {
  func @twice<K>(%x: f32[K]) -> (y: f32[K]) {
    %w = const [2.0] : f32[1]
    %y = mul %x, %w : f32[K]
    return %y
  }
  func @main<N>(%x: f32[N], %c: bool[], %d: bool[]) -> (y: f32[N]) {
    %y = if %c : f32[N] {
      assert %d {message = "d must hold"}
      %a = call %x {callee = @twice} : f32[N]
      yield %a
    } else {
      %k = const [3.0] : f32[1]
      %b = mul %x, %k : f32[N]
      yield %b
    }
    return %y
  }
}
""")
    graph = checked(module, *({"x": floats(3), "c": np.array(c), "d": np.array(d)}
                              for c, d in ((True, True), (False, True), (False, False))))  # fmt: skip
    with pytest.raises(RuntimeError, match="d must hold"):
        graph(torch.ones(3), torch.tensor(True), torch.tensor(False))


TRAPPED = """irc text 1
module @trapped {
  func @main(%x: f32[3], %c: bool[]) -> (y: f32[3]) {
    %y = if %c : f32[3] {
      yield %x
    } else {
      %t = trap {message = "never"} : f32[3]
      yield %t
    }
    return %y
  }
}
"""
OTHER_RANKS = """(float[N, 3] x, bool c) => (y) { z = Constant<value_ints = [0]>() y = If(c) <
    then_branch = a () => (t) { t = Unsqueeze(x, z) }, else_branch = b () => (e) { e = Neg(x) }> }"""
STACKED = """(float[3] x) => (y, all) <bool go = {1}> { y, all = Loop(, go, x) <
    body = b (int64 i, bool c, float[3] a) => (d, s, o) { s = Add(a, x) o = Neg(s)
        limit = Constant<value_float = 4.0>() m = ReduceMax<keepdims = 0>(s) d = Less(m, limit) }> }"""
VARYING = """(float[3] x) => (all) <int64 n = {3}, bool go = {1}> { all = Loop(n, go) <
    body = b (int64 i, bool c) => (d, o) { d = Identity(c) k = NonZero(x) o = Cast<to = 1>(k) }> }"""
STRINGS = """(string[3] x) => (all) <int64 n = {3}, bool go = {1}> { all = Loop(n, go) <
    body = b (int64 i, bool c) => (d, o) { d = Identity(c) o = Gather(x, i) }> }"""


@pytest.mark.parametrize(("text", "reason"), [
    (GROWING, "loop.*(\n.*)*same metadata"), (OTHER_RANKS, "if.*(\n.*)*same dim"), (TRAPPED, "trap.*(\n.*)*never"),
    (STACKED, "loop.*no trip count bounds"), (VARYING, "loop.*extents of a row.*not known before"),
    (STRINGS, "%x.*string"),
])  # fmt: skip
def test_what_pytorch_cannot_express(text: str, reason: str) -> None:
    module = parse(text) if text.startswith("irc") else imported(text)
    with pytest.raises(IrcError, match=reason) as caught:
        irc.to_fx(module)
    assert caught.value.code == "fx.unsupported"


def test_random_programs() -> None:
    """Models of the fuzzer that have a branch or a loop, judged as it judges."""
    failures, compared = [], 0
    for index in range(150):
        program = program_of(Job("onnx", 6, index, chosen("default")))
        with quiet():
            module = from_model(program.model, Path("no such folder"))
        if any(operation.name in ("if", "loop") for operation in module.walk()):
            outcomes = path_outcomes("fx", partial(of_feeds, module), program.feeds, program.truths)
            compared += not outcomes
            failures += [(index, each) for each in outcomes if "fx." not in str(each)]
    assert not failures and compared


def of_feeds(module: Module) -> Any:
    graph, outputs = irc.to_fx(module), module.main.output_names
    names = [argument.name for argument in module.main.arguments]
    return lambda feed: dict(zip(outputs, called(graph, {name: feed[name] for name in names}), strict=True))
