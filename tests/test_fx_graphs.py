"""irc.to_fx: modules as torch.fx graphs of ATen operations, which compute what eager PyTorch computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils import _pytree as pytree

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver.compiled_programs import CompiledProgram
from irc.module import Module
from irc.parser import parse
from tests.architectures import ARCHITECTURES, build, skip_what_is_not_exported
from tests.fuzz.features import chosen
from tests.fuzz.paths import quiet
from tests.fuzz.running import Job, program_of
from tests.fuzz.torch_paths import imported_as_exported, outcomes_of
from tests.models import relative_error

pytestmark = pytest.mark.filterwarnings("ignore")
UNSUPPORTED = {  # those that have no graph, with the error
    ("detector", "static"): r"fx\.unsupported.*NonMaxSuppression",
    ("detector", "dynamic"): r"fx\.unsupported.*NonMaxSuppression",
}  # fmt: skip
QUICK = {("resnet", "dynamic"), ("bert", "dynamic"), ("llama_cached", "static"), ("unet", "static"),
         ("tagger", "dynamic")}  # fmt: skip


@pytest.mark.parametrize(("name", "sizes"), [
    pytest.param(name, sizes, marks=[] if (name, sizes) in QUICK else [pytest.mark.slow])
    for name in ARCHITECTURES for sizes in ("static", "dynamic")
])  # fmt: skip
def test_architectures(name: str, sizes: str) -> None:
    pytest.importorskip("transformers")
    case = build(name)
    dynamic = case.dynamic if sizes == "dynamic" else None
    skip_what_is_not_exported(name, sizes)
    module = irc.from_torch(case.module, case.inputs, dynamic_shapes=dynamic)
    if (name, sizes) in UNSUPPORTED:
        with pytest.raises(IrcError, match=UNSUPPORTED[name, sizes]):
            irc.to_fx(module)
        return
    graph = irc.to_fx(module)
    assert isinstance(graph, GraphModule)
    targets = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert all(isinstance(each, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))
               or each.__module__ in ("_operator", "math") for each in targets)  # fmt: skip
    for inputs in [case.inputs, *([case.others] if dynamic else [])]:
        with torch.no_grad():
            expected = pytree.tree_leaves(case.module(**inputs))
            for result, reference in zip(graph(*inputs.values()), expected, strict=True):
                assert relative_error(result.numpy(), reference.numpy()) < 1e-5


@pytest.mark.parametrize("start", range(0, 24, 6))
def test_random_programs(start: int) -> None:
    """Each has a graph, which computes what the program does."""
    failures = []
    for index in range(start, start + 6):
        program = program_of(Job("torch", 31, index, chosen("default")))
        with quiet():
            imported, convention = imported_as_exported(program)
            outcomes = outcomes_of({"fx": partial(as_program, imported, convention)}, program)
        failures += [(index, outcome) for outcome in outcomes]
    assert not failures


def as_program(imported: Module, convention: Any) -> CompiledProgram:
    graph = irc.to_fx(imported)
    return CompiledProgram(imported, "onnx", convention, lambda tensors: list(graph(*tensors)), "fx")


def test_fx_tools_go_on() -> None:
    """Shapes are propagated, the graph is transformed, retraced, exported, and read again."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    graph = irc.to_fx(irc.from_torch(module, (x,)))
    ShapeProp(graph).propagate(x)
    assert all("tensor_meta" in node.meta for node in graph.graph.nodes if node.op != "output")
    assert set(graph.state_dict()) >= {"0_weight", "0_bias", "3_weight", "3_bias"}
    torch.testing.assert_close(make_fx(graph)(x)(x)[0], module(x))
    again = irc.to_fx(irc.from_torch(graph, (x,)))
    torch.testing.assert_close(again(x)[0], module(x))
    torch.testing.assert_close(irc.compile(graph, (x,))(x)[0], module(x))


def test_weights_whose_names_differ_in_punctuation_only() -> None:
    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.a_weight = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) * self.a_weight

    module, x = Weights(), torch.randn(2, 3)
    torch.testing.assert_close(irc.to_fx(irc.from_torch(module, (x,)))(x)[0], module(x))


def test_sizes_that_depend_on_elements() -> None:
    def program(x: torch.Tensor) -> Any:
        return torch.nonzero(x > 0), x[x > 0] * 2

    graph = irc.to_fx(irc.from_torch(program, (torch.randn(3, 4),), dynamic_shapes=({0: "N"},)))
    for x in (torch.randn(3, 4), -torch.ones(1, 4), torch.randn(5, 4)):
        torch.testing.assert_close(list(graph(x)), list(program(x)))


def test_sizes_that_tensors_hold() -> None:
    def program(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.bincount(x, minlength=5), y.repeat_interleave(x, 0) * 2

    module = irc.from_torch(program, (torch.tensor([1, 0, 7]), torch.randn(3, 2)), dynamic_shapes=({0: "N"}, {0: "N"}))
    graph = irc.to_fx(module)
    for numbers in ([1, 0, 7], [0, 0], [9], [3, 1, 2, 2]):
        x, y = torch.tensor(numbers), torch.randn(len(numbers), 2)
        torch.testing.assert_close(list(graph(x, y)), list(program(x, y)))
    with pytest.raises(RuntimeError, match="outside an axis"):
        graph(torch.tensor([2, -1]), torch.ones(2, 2))


def test_indices_and_sizes_are_asserted() -> None:
    """Where PyTorch's operations would read elsewhere, or were chosen for other sizes."""
    graph = irc.to_fx(irc.from_torch(lambda x, i: x[i], (torch.randn(3, 4), torch.tensor([0, 2]))))
    torch.testing.assert_close(graph(torch.ones(3, 4), torch.tensor([1, 1]))[0], torch.ones(2, 4))
    with pytest.raises((RuntimeError, IndexError)):
        graph(torch.ones(3, 4), torch.tensor([1, 7]))


def test_slices_by_sizes() -> None:
    """By those that tensors hold, and by the lesser of two dims, without a choice at the example's sizes."""

    def held(x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
        k = n.item()
        torch._check(k >= 0)
        torch._check(k <= x.shape[0] - 2)
        return x[:k], x.narrow(0, k, 2), x[k:].flip(0)

    graph = irc.to_fx(irc.from_torch(held, (torch.randn(7, 2), torch.tensor(3))))
    for k in (1, 2, 5):
        x = torch.randn(7, 2)
        torch.testing.assert_close(graph(x, torch.tensor(k)), held(x, torch.tensor(k)))

    def lesser(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[: y.shape[0]] * 2

    sizes = ({0: "A"}, {0: "B"})
    graph = irc.to_fx(irc.from_torch(lesser, (torch.randn(5), torch.randn(3)), dynamic_shapes=sizes))
    for one, other in ((5, 3), (4, 4), (6, 1)):  # PyTorch exports it for these, whatever the example's sizes are
        x, y = torch.randn(one), torch.randn(other)
        torch.testing.assert_close(graph(x, y)[0], lesser(x, y))


def test_dynamic_sizes_stay_symbolic() -> None:
    def program(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.softmax(x @ y, -1).reshape(-1, 2), x.sum(1) + x.shape[0], x.cumsum(0).flip(0)

    batch = Dim("batch", min=1, max=64)
    module = irc.from_torch(program, (torch.randn(4, 3), torch.randn(3, 4)), dynamic_shapes=({0: batch}, None))
    graph = irc.to_fx(module)
    for rows in (1, 2, 5, 64):
        x, y = torch.randn(rows, 3), torch.randn(3, 4)
        torch.testing.assert_close(list(graph(x, y)), list(program(x, y)))


def test_shapes_as_tensors() -> None:
    text = """irc text 1
module @shapes {
  func @main<N>(%x: f32[N, 3]) -> (s: i64[2], n: i64[], e: i64[0]) {
    %s = dim {value = [2*N, 3]} : i64[2]
    %n = dim {value = N} : i64[]
    %e = dim {value = []} : i64[0]
    return %s, %n, %e
  }
}
"""
    graph = irc.to_fx(parse(text))
    for rows in (1, 2, 5):
        assert [each.tolist() for each in graph(torch.ones(rows, 3))] == [[2 * rows, 3], rows, []]


def test_modules_after_passes() -> None:
    """Kernels are written as their operations; weights in narrow types and updated buffers work."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16)).to(torch.bfloat16).eval()
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    imported = irc.from_torch(module, (x,))
    expected = irc.to_fx(imported)(x)[0]
    torch.testing.assert_close(expected, module(x), rtol=2e-2, atol=2e-2)
    fused = irc.opt(imported, "default")
    assert any(operation.name == "kernel" for operation in fused.walk())
    torch.testing.assert_close(irc.to_fx(fused)(x)[0], expected, rtol=2e-2, atol=2e-2)


def test_what_has_no_graph_is_named() -> None:
    """Never a wrong graph: operators of ONNX Runtime are errors that name them."""
    text = """irc text 1
module @unknown {
  func @main(%x: f32[4], %b: f32[4]) -> (y: f32[4]) {
    %y = extern %x, %b {domain = "com.microsoft", op_type = "BiasGelu", version = 1, attributes = {}} : f32[4]
    return %y
  }
}
"""
    with pytest.raises(IrcError, match=r"fx\.unsupported.*BiasGelu"):
        irc.to_fx(parse(text))
    module = irc.trace(lambda x: ops.reshape(x, shape=(2, 3)), "f32[6]")
    assert irc.to_fx(module)(torch.arange(6.0))[0].shape == (2, 3)
