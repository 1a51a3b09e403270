"""torch.compile(..., backend="irc"): what it computes, what it leaves to PyTorch, and how often it compiles."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import irc
from irc.diagnostics import fail
from irc.driver import compile_report, torch_compile
from irc.driver.compile_report import GraphRecord, GraphReport, add_graph
from tests.torch_compiling import close, compiled, fresh  # noqa: F401  # a fixture of all tests

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("backend", ["onnx", "triton"])
@pytest.mark.parametrize("options", [{"bidirectional": True, "batch_first": True}, {"num_layers": 2, "bias": False}])
def test_lstms_for_inference(options: dict[str, Any], backend: str) -> None:
    """PyTorch has oneDNN run their layers, one for each direction; irc reads these."""
    if backend == "triton":
        pytest.importorskip("triton")
    model, x = nn.LSTM(5, 6, **options).eval(), torch.randn(7, 3, 5)
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        close(compiled(model, backend=backend)(x), model(x))
    assert not irc.report().in_pytorch


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_both_backends(backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    model = nn.Sequential(nn.Linear(5, 3), nn.Softmax(-1)).eval()
    program, x = compiled(model, backend=backend), torch.randn(4, 5)
    with torch.no_grad():
        close(program(x), model(x))
    close(program(x), model(x))  # with gradients: another graph
    program(x).sum().backward()
    assert [graph.kind for graph in irc.report().graphs] == ["inference", "forward", "backward"]
    assert not irc.report().in_pytorch


def test_weights_are_live() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    program = compiled(model)
    with torch.no_grad():
        close(program(x), model(x))
        model.weight.mul_(2)
        close(program(x), model(x))
        model.load_state_dict({"weight": torch.ones(3, 4), "bias": torch.zeros(3)})
        close(program(x), model(x))
        model.weight.data = torch.zeros(3, 4)
        close(program(x), model(x))
    assert len(irc.report().graphs) == 1


@pytest.fixture
def arguments_of_code(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets for each compilation how many arguments the code has."""
    original, counts = torch_compile.compiled_code, list[int]()

    def compiled_code(imported: Any, *others: Any) -> Any:
        counts.append(len(imported.main.arguments))
        return original(imported, *others)

    monkeypatch.setattr(torch_compile, "compiled_code", compiled_code)
    return counts


def test_weights_that_do_not_change_stay_constants(arguments_of_code: list[int]) -> None:
    """Compiled at most three times: with all as constants, without those that changed first, and with none."""
    model, x = small_network().eval(), torch.randn(2, 4)
    program = compiled(model)
    with torch.no_grad():
        for changed, counts in (([], [1]), ([0], [1, 2]), ([0], [1, 2]), ([2], [1, 2, 5]), ([0, 2], [1, 2, 5])):
            for index in changed:
                model[index].weight.mul_(2)
            for _ in range(2):
                close(program(x), model(x))
            assert arguments_of_code == counts
        program = compiled(model)
        torch._dynamo.reset()
        close(program(x), model(x))
        model.load_state_dict({name: each + 1 for name, each in model.state_dict().items()})
        close(program(x), model(x))
        assert arguments_of_code[3:] == [1, 5]


def test_buffers_that_a_program_writes_are_never_constants(arguments_of_code: list[int]) -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small_network()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("cache", torch.zeros(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.cache[:2] = self.network(x)
            return self.cache * self.calls

    model, x = Caching().eval(), torch.randn(2, 4)
    eager = copy.deepcopy(model)
    program = compiled(model)
    with torch.no_grad():
        for _ in range(3):
            close(program(x), eager(x))
            x = x + 1
    close([model.calls, model.cache], [eager.calls, eager.cache])
    assert arguments_of_code == [3]  # x and the two buffers


def small_network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))


def test_modules_do_what_users_expect_of_them() -> None:
    """Other types and devices, state, copies, modules inside of others, autocast, and no gradients."""
    x = torch.randn(5, 4)
    module = small_network().eval()
    program = compiled(module)
    assert [name.removeprefix("_orig_mod.") for name in program.state_dict()] == list(module.state_dict())
    with torch.no_grad():
        close(program(x), module(x))
        assert not program(x).requires_grad
        close(copy.deepcopy(program)(x), module(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert program(x).dtype is torch.bfloat16
            torch.testing.assert_close(program(x), module(x), rtol=3e-2, atol=3e-2)
        assert program(x).dtype is torch.float32
        program.to(torch.float64)
        torch.testing.assert_close(program(x.double()), module(x.double()))
        program.to(torch.float32)
        module.load_state_dict({name: each + 1 for name, each in module.state_dict().items()}, assign=True)
        close(program(x), module(x))
    with torch.inference_mode():
        assert program(x).is_inference()
    outer = nn.Sequential(program, nn.Linear(3, 2))
    outer(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    close(compiled(outer)(x), outer(x))


def test_weights_that_are_inference_tensors_are_live() -> None:
    with torch.inference_mode():
        module, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
        program = compiled(module)
        close(program(x), module(x))
        module.load_state_dict({name: value * 3 for name, value in module.state_dict().items()})
        close(program(x), module(x))


def test_graphs_are_as_many_as_the_counters_of_pytorch_expect() -> None:
    counter = CompileCounterWithBackend("irc")
    program = torch.compile(small_network(), backend=counter)
    for rows in range(2, 22):
        program(torch.randn(rows, 4))
    assert (counter.frame_count, counter.op_count) == (2, 6)  # static, then dynamic
    counter = CompileCounterWithBackend("irc")

    def broken(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        torch._dynamo.graph_break()
        return y.cos()

    x = torch.randn(3)
    close(torch.compile(broken, backend=counter)(x), broken(x))
    assert counter.frame_count == 2


def test_what_irc_lacks_runs_in_pytorch() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x @ x.T + torch.eye(3)).relu() + 1

    x = torch.randn(3, 5)
    with pytest.warns(UserWarning, match="inference graph: .* compiled by irc; PyTorch runs .*linalg_inv") as caught:
        close(compiled(program)(x), program(x))
    assert {each.filename for each in caught} == {__file__}
    (graph,) = irc.report().graphs
    assert 0 < sum(graph.in_pytorch.values()) < graph.operations
    assert "linalg_inv_ex" in str(irc.report())


def test_floats_that_vary_are_compiled() -> None:
    """After the second one a float is an input of the graph, which AOTAutograd converts there."""

    def program(x: torch.Tensor, s: float) -> torch.Tensor:
        return x * -s + s

    fast, x = compiled(program), torch.randn(5)
    for factor in (0.1, 0.2, -0.35, 0.5):
        close(fast(x, factor), program(x, factor))
    assert len(irc.report().graphs) == 2 and not any(graph.in_pytorch for graph in irc.report().graphs)


OF_SIZES: dict[str, Any] = {
    "half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "larger": lambda x: F.interpolate(x, scale_factor=1.7),
    "cubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "cut": lambda x: x[..., : int(x.shape[-1] * 0.7)] * 2,
    "rounded": lambda x: x[..., : round(x.shape[-1] * 0.4)] * 2,
    "share": lambda x: x * (x.shape[-1] / x.shape[-2]),
}
OF_NUMBERS: dict[str, tuple[Any, int]] = {  # with how many operations PyTorch runs
    "power": (lambda x, k: x**k, 0), "slope": (lambda x, k: F.leaky_relu(x, k), 1),
    "condition": (lambda x, k: x * (k > 2), 0), "absolute": (lambda x, k: x * abs(k), 0),
    "floor": (lambda x, k: x * math.floor(k / 2), 0), "cut": (lambda x, k: x * int(k / 2), 0),
    "softplus": (lambda x, k: F.softplus(x, beta=k), 0), "elu": (lambda x, k: F.elu(x, alpha=float(k)), 1),
    "norm": (lambda x, k: x.norm(k), 1), "bits": (lambda x, k: x.long() & k, 0),
    "threshold": (lambda x, k: F.threshold(x, k, 0), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_SIZES)
def test_sizes_that_are_computed_by_floats(name: str) -> None:
    program = OF_SIZES[name]
    fast = compiled(program)
    for height, width in ((8, 8), (9, 7), (10, 12)):
        x = torch.randn(2, 3, height, width)
        close(fast(x), program(x))
    assert not any(graph.in_pytorch for graph in irc.report().graphs)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_integers_that_vary(name: str) -> None:
    program, left = OF_NUMBERS[name]
    fast, x = compiled(program), torch.randn(4, 6)
    for number in (2, 3, 5, 4, -2):
        close(fast(x, number), program(x, number))
    assert max(sum(graph.in_pytorch.values()) for graph in irc.report().graphs) == left


def test_custom_operators_run_in_pytorch() -> None:
    @torch.library.custom_op("irc_tests::doubled", mutates_args=())
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @doubled.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    def program(x: torch.Tensor) -> torch.Tensor:
        return doubled(x.sin() + 1).cos() - x

    x = torch.randn(3, 4)
    close(compiled(program)(x), program(x))
    assert irc.report().graphs[0].in_pytorch == {("irc_tests::doubled.default", "irc has no row for it"): 1}


def test_random_operators_have_the_numbers_of_pytorch() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5) + torch.rand_like(x) + torch.bernoulli(torch.sigmoid(x))

    x, results = torch.randn(50), []
    for each in (program, compiled(program)):
        torch.manual_seed(3)
        results.append(each(x))
    close(*results)


def test_dropout_of_no_elements() -> None:
    """PyTorch gives a mask of floats then, where its shape functions say one of bool."""
    x = torch.randn(0, 6, requires_grad=True)
    result = compiled(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.3), nn.ReLU(), nn.Linear(5, 5), nn.Dropout(0.5)))(x)
    result.sum().backward()
    assert result.shape == (0, 5) and x.grad is not None and x.grad.shape == x.shape


def test_arguments_that_the_program_writes_and_views_of_them() -> None:
    def program(x: torch.Tensor, y: torch.Tensor) -> Any:
        x.add_(1)
        y[1:].mul_(x.sum())
        return {"view": x.T, "same": y, "sum": x + y, "none": None, "number": x.shape[0]}

    one = [torch.randn(3, 4), torch.randn(3, 4)]
    other = [each.clone() for each in one]
    ours, theirs = compiled(program)(*one), program(*other)
    close(ours, theirs)
    close(one, other)
    assert ours["same"] is one[1] and ours["view"].data_ptr() == one[0].data_ptr()


def test_memory_of_any_kind() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) * 2

    inputs = [torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.randn(4, 5).T, torch.randn(6)[::2],
              torch.randn(3, 1).expand(3, 4), torch.empty(0, 3), torch.randn(()), torch.randn(3, dtype=torch.bfloat16),
              torch.randn(1, 4)]  # fmt: skip
    each = compiled(program)
    for x in inputs:
        close(each(x), program(x))
    channels_last = each(inputs[0])
    assert channels_last.is_contiguous(memory_format=torch.channels_last)


def test_graph_breaks() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        x = x.sin()
        torch._dynamo.graph_break()
        return x.cos() if x.sum() > 0 else x.tanh()

    x = torch.randn(4)
    close(compiled(program)(x), program(x))
    assert len(irc.report().graphs) > 1


def test_several_threads() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    program, inputs, results = compiled(model), [torch.randn(3, 16) for _ in range(8)], {}

    def call(index: int) -> None:
        with torch.no_grad():
            results[index] = [program(inputs[index]) for _ in range(20)]

    call(0)
    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        for index, x in enumerate(inputs):
            for result in results[index]:
                close(result, model(x))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_results_share_memory_as_eager_ones_do(training: bool, dynamic: bool) -> None:
    """Views of a result, of what PyTorch computes between parts, and of an argument."""
    def program(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x + 1
        drawn = torch.poisson(y.detach().abs()) + 1
        return y, y[0], y.t(), y.view(-1)[2:4], drawn, drawn.narrow(1, 1, 2), x[1:], y * 2

    def sharing(results: Sequence[torch.Tensor], x: torch.Tensor) -> list[list[bool]]:
        memory = [each.untyped_storage().data_ptr() for each in (*results, x)]
        return [[one == other for other in memory] for one in memory]

    torch._dynamo.reset()
    x = torch.randn(3, 4, requires_grad=training)
    actual, expected = torch.compile(program, backend="irc", dynamic=dynamic)(x), program(x)
    assert sharing(actual, x) == sharing(expected, x)
    assert [each.stride() for each in actual] == [each.stride() for each in expected]
    for index in (0, 1, 2, 3, 6, 7):
        close(actual[index], expected[index])
    with torch.no_grad():
        actual[0].zero_()
        assert not actual[2].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"options": {"backend": "tvm"}}, "there is no backend `tvm`"),
     ({"options": {"bakend": "onnx"}}, "the backend irc has no option `bakend`"),
     ({"options": {"target": "vax"}}, "has no target `vax`"),
     ({"options": {"target": 5}}, r"usage\.value.*`target` is of the type int"),
     ({"options": {"pipeline": 5}}, r"usage\.value.*`pipeline` is of the type int"),
     ({"options": {"freeze": "no"}}, r"usage\.value.*`freeze` is of the type str"),
     ({"options": {"backend": ["onnx"]}}, r"usage\.value.*`backend` is of the type list"),
     ({"options": {"pipeline": "no-such-pass"}}, "no-such-pass"),
     *(({"mode": mode}, f"irc has no mode `{mode}`(.|\n)*options=")
       for mode in ("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"))],
)  # fmt: skip
def test_options_are_checked(arguments: dict[str, Any], message: str) -> None:
    program = torch.compile(torch.sin, backend="irc", **arguments)
    with pytest.raises(Exception, match=message):
        program(torch.randn(3))


def test_the_report_of_no_graphs() -> None:
    assert str(irc.report()) == "torch.compile has given irc no graph"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(torch.sin)(torch.randn(3))
    assert str(irc.report(clear=True)) == "inference graph: 1 of 1 operations compiled by irc"
    assert not irc.report().graphs


def test_reports_do_not_change_later() -> None:
    """Parts are compiled after their graph was reported, in any thread."""
    record = add_graph(GraphReport("inference", 5))
    before = irc.report()
    text = str(before)

    def fail_often(name: str) -> None:
        for index in range(200):
            record.add_failure(1, f"{name}{index}")
            str(irc.report())

    threads = [threading.Thread(target=fail_often, args=(name,)) for name in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert str(before) == text and before.in_pytorch == 0
    assert irc.report().in_pytorch == 800 and set(irc.report().graphs[0].in_pytorch.values()) == {2}


def test_a_long_report_has_the_last_graphs() -> None:
    for operations in range(compile_report.MOST_GRAPHS + 7):
        add_graph(GraphReport("inference", operations))
    report = irc.report(clear=True)
    assert len(report.graphs) == compile_report.MOST_GRAPHS and report.earlier == 7
    assert report.graphs[0].operations == 7 and str(report).startswith("7 earlier graphs are not listed\ninference")
    assert str(irc.report()) == "torch.compile has given irc no graph"


def test_tensors_with_bits_for_their_sign() -> None:
    program = compiled(lambda x: x * 2 + 1)
    for x in (torch._neg_view(torch.ones(3)), torch.tensor([1 + 2j]).conj().imag):
        close(program(x), x * 2 + 1)


def test_sizes_that_are_computed_of_results() -> None:
    def program(x: torch.Tensor) -> Any:
        chosen = torch.nonzero(x > 0)
        return torch.zeros(chosen.shape[0] * 2) + x.sum(), chosen

    x = torch.randn(9)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        close(compiled(program)(x), program(x))


def test_a_part_that_cannot_be_compiled_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(part: torch_compile.Part, arguments: Any) -> Any:
        raise fail("backend.failed", "no backend")

    monkeypatch.setattr(torch_compile.Part, "_compile", fails)
    x = torch.randn(3)
    with pytest.warns(UserWarning, match="0 of 1 operations compiled by irc") as caught:
        close(compiled(torch.sin)(x), x.sin())
    assert {each.filename for each in caught} == {__file__}
    assert "0 of 1 operations compiled by irc" in str(irc.report())


def test_weights_after_a_compilation_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    program, compile_part = compiled(model), torch_compile.Part._compile

    def fails(part: torch_compile.Part, arguments: Any) -> Any:
        raise MemoryError

    with torch.no_grad():
        program(x)
        model.weight.mul_(2)
        monkeypatch.setattr(torch_compile.Part, "_compile", fails)
        with pytest.raises(MemoryError):
            program(x)
        monkeypatch.setattr(torch_compile.Part, "_compile", compile_part)
        close(program(x), model(x))


def test_threads_that_begin_together_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = torch.fx.symbolic_trace(lambda x: x * 2)
    for node in graph.graph.nodes:
        node.meta["val"] = torch.empty(3)
    calls, barrier = list[int](), threading.Barrier(2)

    def counted(part: torch_compile.Part, arguments: Any) -> Any:
        calls.append(1)
        return part.graph

    monkeypatch.setattr(torch_compile.Part, "_compile", counted)
    part = torch_compile.Part(graph, {}, {"x"}, torch_compile.Options("onnx"), GraphRecord(GraphReport("inference", 1)))
    x = torch.ones(3)

    def call() -> None:
        barrier.wait()
        part(x)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and part.frozen == [0]
