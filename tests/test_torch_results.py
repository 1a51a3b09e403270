"""Results of compiled PyTorch programs: as eager PyTorch gives them, in memory too; and programs in files."""

from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import nn
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError
from irc.driver import compiled_programs
from irc.driver.callables import imported_program
from irc.driver.checking import check
from irc.driver.compile_cache import compiled_code
from irc.driver.compiled_programs import CompiledProgram
from irc.driver.models import Settings
from irc.frontends.torch.calling import Convention
from irc.frontends.torch.importer import _apart, _final_nodes
from irc.ir import Block
from irc.types import TensorType
from tests.growth import assert_linear_time
from tests.torch_calls import BACKENDS, assert_like, compiled, interpret, sharing

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_given_more_than_once(backend: str) -> None:
    """Under several names, among them some that another result has already."""
    def function(x: torch.Tensor, add_1: torch.Tensor) -> Any:
        a, b = x + 1, x + 2  # PyTorch calls them add and add_1
        return {"last": a, "all": [a, b, a], "more": (b, x, x, add_1, x * 3)}

    x, y = torch.randn(3), torch.randn(3)
    results = irc.compile(function, (x, y), backend=backend)(x, y)
    assert_like(results, function(x, y))
    assert sharing(pytree.tree_leaves(results)) == sharing(pytree.tree_leaves(function(x, y)))
    if backend == "onnx":
        given = {"x": x.numpy(), "add_1": y.numpy()}
        outputs = irc.run(irc.from_torch(function, (x, y)), given, backend=backend).outputs
        for array, reference in zip(outputs.values(), pytree.tree_leaves(function(x, y)), strict=True):
            np.testing.assert_allclose(array, reference.numpy(), rtol=1e-6)


def test_names_of_results_are_apart() -> None:
    arguments = [Block([TensorType(irc.dtypes.F32, ())], [name]).arguments[0] for name in ("x", "add_1")]
    values: Any = [arguments[0], arguments[0], *(None,) * 4]
    values = [each or type("Computed", (), {"operation": 1})() for each in values]
    names = _apart(["x", "x", "add", "add", "add_1", "add_2"], {"x", "add_1"}, values)
    assert names == ("x", "x_1", "add", "add_3", "add_1_1", "add_2")


def test_the_last_node_of_a_module_without_others_inside_has_its_path() -> None:
    """A path that others begin with is a module around them only where a dot follows."""
    draw, graph = random.Random(0), torch.fx.Graph()
    paths = [".".join(draw.choices(["layer", "layer1", "layer10", "act"], k=draw.randint(1, 4))) for _ in range(60)]
    paths += ["", "block", "block2", "block2.act", "blocks.0", "blocks.01", "lone"]
    for path in paths:
        node = graph.call_function(torch.relu, (None,))
        node.meta["nn_module_stack"] = {"": ("", None), path: (path, None)}
    last = dict(zip(paths, graph.nodes, strict=True))
    inside = {path for path in paths if any(other.startswith(f"{path}.") for other in paths)}
    names = {last[path]: path for path in paths if path and path not in inside}
    assert _final_nodes(graph.nodes) == names
    assert {"block", "block2.act", "blocks.0", "blocks.01"} <= set(names.values()) and len(inside) > 5


def test_final_nodes_are_found_in_linear_time() -> None:
    """Each two of the paths must not be compared."""
    def prepared(count: int) -> Callable[[], Any]:
        graph = torch.fx.Graph()
        for number in range(count):
            node = graph.call_function(torch.relu, (None,))
            node.meta["nn_module_stack"] = {"": (f"layers.{number // 10}.{number % 10}", None)}
        assert len(_final_nodes(graph.nodes)) == count
        return lambda: _final_nodes(graph.nodes)

    assert_linear_time(prepared, 500, 5000)


class Named(nn.Module):
    """Its buffers are called as its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("x", torch.zeros(3))
        self.register_buffer("y", torch.ones(3))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        self.x.add_(y)
        y.mul_(2)
        return x + self.x, self.y * y, self.x


@pytest.mark.parametrize("backend", ["interpreter", *BACKENDS])
def test_buffers_that_are_called_as_arguments(backend: str) -> None:
    module, eager = Named(), Named()
    optimized = compiled(module, (torch.randn(3), torch.randn(3)), backend)
    for _ in range(3):
        x, y = torch.randn(3), torch.randn(3)
        theirs = y.clone()
        assert_like((optimized(x, y), y, module.x), (eager(x, theirs), theirs, eager.x))
    assert [argument.name for argument in irc.from_torch(module, (x, y)).main.arguments] == ["x_1", "x", "y"]


LAYOUTS: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    "transposed": (lambda x: (x + 1).t(), torch.randn(3, 4)),
    "permuted": (lambda x: (x * 2).permute(2, 0, 1), torch.randn(2, 3, 4)),
    "plain": (lambda x: (x.t() + 1).contiguous(), torch.randn(3, 4)),
    "as the argument": (lambda x: x * 2, torch.randn(4, 3).t()),
    "channels last": (lambda x: nn.functional.max_pool2d(x + 1, 2),
                      torch.randn(2, 3, 4, 6).to(memory_format=torch.channels_last)),
    "made channels last": (lambda x: (x + 1).to(memory_format=torch.channels_last), torch.randn(2, 3, 4, 5)),
    "empty": (lambda x: x + 1, torch.randn(0, 4, 2)),
    "scalar": (lambda x: x.sum() * 2, torch.randn(3)),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_those_of_the_example(name: str, backend: str) -> None:
    function, x = LAYOUTS[name]
    optimized = irc.compile(function, (x,), backend=backend)
    for _ in range(2):
        result, expected = optimized(x), function(x)
        assert_like(result, expected)
        assert result.stride() == expected.stride()


def written_through(x: torch.Tensor, y: torch.Tensor) -> Any:
    flat, whole = x.reshape(-1), y.contiguous()
    flat[0] = 5
    whole.add_(1)
    return flat, whole, flat.view(2, 3), x


GIVEN_BACK: dict[str, Callable[..., Any]] = {
    # What gives its argument, or a view of it, whether or not the schema of the operator says so.
    "the same": lambda x, y: (x.contiguous(), x.to(torch.float32), x.float(), x.type_as(y), y.cpu(), y.positive()),
    "reshaped": lambda x, y: (x.reshape(3, 2), x.flatten(), x.ravel(), x.view_as(y), y.mT, y.T.reshape(-1)),
    "einsum": lambda x, y: (torch.einsum("ij->ji", x), torch.einsum("ij->i", y), torch.einsum("ij,ij->i", x, y)),
    "split": lambda x, y: (*x.split(1), *torch.hsplit(y, 3), *torch.tensor_split(x, 2), *y.unbind(1), x[:, 1:]),
    "several": lambda x, y: (*torch.meshgrid(x[0], y[0], indexing="ij"), *torch.broadcast_tensors(x, y[:1])),
    "at least": lambda x, y: (torch.atleast_1d(x), torch.atleast_3d(y), torch.atleast_2d(x, y), x.expand_as(y)),
    "copies": lambda x, y: (x.clone(), x.repeat(1, 1), torch.cat([x]), y.clamp(-9, 9), y.to(torch.float32, copy=True)),
    "views of results": lambda x, y: (lambda z: (z[0], z, z.t(), (z * 1).type_as(x)))(x + y),
    "written": written_through,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["interpreter", *BACKENDS])
@pytest.mark.parametrize("name", GIVEN_BACK)
def test_what_gives_its_argument_back(name: str, backend: str) -> None:
    function = GIVEN_BACK[name]
    optimized = compiled(function, (torch.randn(2, 3), torch.randn(2, 3)), backend)
    for _ in range(2):
        arguments = torch.randn(2, 3), torch.randn(2, 3)
        theirs = tuple(each.clone() for each in arguments)
        result, expected = optimized(*arguments), function(*theirs)
        assert_like((arguments, result), (theirs, expected))
        mine, others = ([*given, *pytree.tree_leaves(results)] for given, results in
                        ((arguments, result), (theirs, expected)))  # fmt: skip
        assert sharing(mine) == sharing(others)
        assert [each.stride() for each in mine] == [each.stride() for each in others]


def test_an_argument_that_must_be_copied() -> None:
    """The example is contiguous, what a call gives is not: then eager PyTorch gives a copy."""
    optimized = interpret(lambda x: x.reshape(-1), torch.randn(2, 3))
    for x in (torch.randn(2, 3), torch.randn(3, 2).t()):
        assert_like(optimized(x), x.reshape(-1))
        assert sharing([x, optimized(x)]) == sharing([x, x.reshape(-1)])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_of_recurrent_layers(kind: Any, batch_first: bool) -> None:
    module = kind(4, 3, batch_first=batch_first, bidirectional=True).eval()
    for shape in ((2, 5, 4), (5, 4)):
        x = torch.randn(shape)
        with torch.no_grad():
            result, expected = interpret(module, x)(x), module(x)
        assert_like(result, expected)
        assert [each.stride() for each in pytree.tree_leaves(result)] == [
            each.stride() for each in pytree.tree_leaves(expected)]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_have_memory_of_their_own(backend: str) -> None:
    """What a caller writes into a result is in no other, in no argument, and not in the next call."""
    class Giving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.arange(3.0))

        def forward(self, x: torch.Tensor) -> Any:
            return x.clone(), x * 1, x + 0, x + 1, (x + 1).clone(), torch.arange(4.0), torch.ones(2), self.kept * 1

    module, x = Giving(), torch.randn(3)
    optimized = irc.compile(module, (x,), backend=backend)
    expected = [result.clone() for result in module(x)]
    for _ in range(2):
        results = optimized(x)
        assert_like(list(results), expected)
        assert len({result.data_ptr() for result in (*results, x, module.kept)}) == len(results) + 2
        for result in results:
            result.fill_(7)


def add_one(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)


def step(module: nn.Module) -> None:
    module.double().float()(torch.randn(2, 3)).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()


def doubled(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in module.state_dict().items()}


CHANGES: dict[str, Callable[[Any], Any]] = {
    "load_state_dict": lambda module: module.load_state_dict(doubled(module)),
    "assigned": lambda module: module.load_state_dict(doubled(module), assign=True),
    "replaced": lambda module: setattr(module[0], "weight", nn.Parameter(torch.randn(2, 3))),
    "other memory": lambda module: setattr(module[0].weight, "data", torch.randn(2, 3)),
    "added to": add_one,
    "trained": step,
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_are_those_of_the_module(backend: str, training: bool) -> None:
    """Buffers that the program writes too."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train(training)
    twin, x = copy.deepcopy(module), torch.randn(4, 3)
    optimized = irc.compile(module, (x,), backend=backend)
    for change in CHANGES.values():
        torch.manual_seed(0)
        change(module)
        torch.manual_seed(0)
        change(twin)
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert_like(optimized(x), twin(x).detach())
        assert_like(list(module.state_dict().values()), list(twin.state_dict().values()))


def test_weights_that_cannot_be_followed_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    changes: dict[str, tuple[Callable[[Tied], Any], str]] = {
        "converted": (lambda module: module.double(), r"float64\[3.* on cpu now"),
        "other shape": (lambda module: setattr(module.first, "bias", nn.Parameter(torch.ones(1))), r"float32\[1\]"),
        "gone": (lambda module: setattr(module.first, "bias", None), "no dense tensor"),
        "no longer one": (lambda module: setattr(module.second, "weight", nn.Parameter(torch.ones(3, 3))), "its own"),
    }
    for change, words in changes.values():
        module, x = Tied(), torch.randn(2, 3)
        optimized = irc.compile(module, (x,))
        optimized(x)
        change(module)
        for _ in range(2):
            with pytest.raises(IrcError, match=rf"weights\.changed[^$]*{words}"):
                optimized(x)


def test_weights_of_a_function_are_those_of_its_modules() -> None:
    linear, x, offset = nn.Linear(3, 2), torch.randn(2, 3), torch.ones(2)
    for program in (linear.forward, lambda x: linear(x) * 2, lambda x: x[:, :2] + offset):
        optimized = irc.compile(program, x)
        optimized(x)
        linear.load_state_dict(nn.Linear(3, 2).state_dict())
        offset.add_(1)
        assert_like(optimized(x), program(x).detach())


class Counting(nn.Module):
    """Writes a buffer, and has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += self.weight
        return x * self.weight


def test_a_call_is_of_one_version_though_weights_change_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another call compiles the program again, and the buffer is another tensor, while the arguments are bound."""
    module, x, original = Counting(), torch.ones(3), Convention.call
    optimized, old = irc.compile(module, (x,)), module.seen

    def call(self: Any, args: Any, kwargs: Any) -> Any:
        bound = original(self, args, kwargs)
        monkeypatch.setattr(Convention, "call", original)
        module.weight.fill_(5)
        module.seen = torch.full((3,), 10.0)
        assert_like(optimized(x), x * 5)
        return bound

    monkeypatch.setattr(Convention, "call", call)
    assert_like(optimized(x), x)
    assert_like((old, module.seen), (torch.ones(3), torch.full((3,), 15.0)))


def test_a_program_saved_while_weights_change_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x, original = nn.Linear(3, 2), torch.ones(1, 3), compiled_programs.save_program
    optimized = irc.compile(module, (x,))
    before = module(x).detach()

    def save_program(*arguments: Any) -> Any:
        saved = original(*arguments)
        add_one(module)
        optimized(x)
        return saved

    monkeypatch.setattr(compiled_programs, "save_program", save_program)
    optimized.save(tmp_path / "saved")
    assert_like(irc.load_compiled(tmp_path / "saved")(x), before)
    with pytest.raises(IrcError, match=r"compiled\.unsaved"):
        pickle.dumps(optimized)


def test_the_module_is_that_of_the_newest_version() -> None:
    """The passes of an old version end after another thread has compiled a newer one."""
    linear, x = nn.Linear(3, 2), torch.ones(1, 3)
    imported, convention = imported_program(linear, (x,))
    compile_code = partial(compiled_code, backend="onnx", pipeline=None, settings=Settings(), called=convention.names)
    code = compile_code(imported)
    old = code.module()

    def module() -> Any:
        add_one(linear)
        thread.start()
        thread.join(1)  # it waits for this one, or has compiled the program again
        return old

    optimized = CompiledProgram(module, "onnx", convention, *code.runner, code=code.stored, compile_code=compile_code)
    thread = threading.Thread(target=optimized, args=(x,))
    assert optimized.module is old
    thread.join()
    assert optimized.module is not old
    assert_like(optimized(x), linear(x).detach())


def test_every_weight_is_looked_at() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    optimized, x = irc.compile(module, (torch.randn(1, 2),)), torch.randn(1, 2)
    with torch.no_grad():
        module[49].bias.zero_()
    assert_like(optimized(x), module(x).detach())


def test_what_is_saved_has_the_weights_of_now(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 3)
    optimized = irc.compile(module, (x,))
    add_one(module)
    optimized.save(tmp_path / "saved")
    assert_like(irc.load_compiled(tmp_path / "saved")(x), module(x).detach())
    pickle.dumps(optimized)
    add_one(module)
    with pytest.raises(IrcError, match=r"compiled\.unsaved"):
        pickle.dumps(optimized)


class Scaled(nn.Module):
    """Large weights, which modules share; small ones, and one that is turned, which passes compute with."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(20, 20), nn.Parameter(torch.ones(20))
        self.turned = nn.Parameter(torch.randn(20, 20).t())
        self.negative = nn.Parameter(torch._neg_view(torch.randn(20)))

    def forward(self, x: torch.Tensor) -> Any:
        return self.large(x) * (self.small * 2 + 1) @ self.turned + self.negative


def test_modules_never_mix_weights_of_two_times() -> None:
    """A module shares memory with the program's weights, and its passes have computed with some of them."""
    def add_to_all(program: nn.Module) -> None:
        with torch.no_grad():
            for parameter in program.parameters():
                parameter.add_(1)

    def add_to_turned(program: Any) -> None:
        with torch.no_grad():
            program.turned.add_(1)

    changes: dict[str, tuple[Callable[[Any], Any], bool]] = {
        "added to": (add_to_all, True),
        "load_state_dict": (lambda program: program.load_state_dict(Scaled().state_dict()), True),
        "copied by the module": (add_to_turned, False),
        "assigned": (lambda program: program.load_state_dict(Scaled().state_dict(), assign=True), False),
        "converted": (lambda program: program.double(), False),
        "converted to what it is": (lambda program: program.float().to("cpu").requires_grad_(False), False),
    }
    x = torch.randn(3, 20)
    for name, (change, is_refused) in changes.items():
        program = Scaled()
        before, module = program(x).detach().numpy(), irc.from_torch(program, x)
        optimized = irc.opt(module, backend="onnx")
        change(program)
        for each, backend in ((module, "onnx"), (optimized, None)):
            if is_refused:
                with pytest.raises(IrcError, match=r"weights\.changed.*weight (large|small)") as caught:
                    irc.run(each, {"x": x.numpy()}, backend=backend)
                assert "irc.from_torch" in str(caught.value)
            else:
                (actual,) = irc.run(each, {"x": x.numpy()}, backend=backend).outputs.values()
                np.testing.assert_allclose(actual, before, rtol=1e-4, atol=1e-4, err_msg=name)
        program = program.float()
        (actual,) = irc.run(irc.from_torch(program, x), {"x": x.numpy()}).outputs.values()
        np.testing.assert_allclose(actual, program(x).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_both_backends_in_one_process() -> None:
    """Without a GPU, where Triton has been imported by PyTorch to compile."""
    script = """
import irc, os, torch
x = torch.randn(2, 3)
for backend in ("onnx", "triton"):
    found = irc.compile(lambda x: torch.softmax(x, 1) * 2, x, backend=backend)
    torch.testing.assert_close(found(x), torch.softmax(x, 1) * 2)
    assert "TRITON_INTERPRET" not in os.environ
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- models in files -------------------------------------------------------------------------------------------

MODELS = """
import torch
from torch import nn


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("x", torch.ones(3))

    def forward(self, x, *rest, mask=None, k=2):
        self.x.add_(1)
        y = (x + rest[0]) * mask + self.x
        return {"last": y, "all": [y, y * k], "none": None, "size": x.shape[0], "i": 3, "f": y.sum().item()}


def mixed():
    shapes = {"rest": ({0: torch.export.Dim("b")},), "x": {0: torch.export.Dim("b")}, "mask": None, "k": None}
    return Mixed(), (torch.randn(2, 3), torch.randn(2, 3)), shapes, {"mask": torch.randn(3), "k": 3}


def tensor():
    torch.manual_seed(0)
    return nn.Linear(4, 3), torch.randn(2, 4)


def function():
    return lambda a, b: (a @ b, a, a.t()), {"b": torch.randn(3, 2), "a": torch.randn(2, 3)}


def written():
    def f(x, cache):
        cache[0].add_(x)
        return cache[0].t(), x
    return f, (torch.randn(2, 3), [torch.randn(2, 3)])


def number():
    return (lambda x, n: x.expand(n, 3) * n), (torch.randn(3), 4), (None, torch.export.Dim.DYNAMIC)


def wrong():
    return nn.Linear(4, 3), (torch.randn(2, 4), torch.randn(2, 4))


def array():
    return nn.Linear(4, 3), torch.randn(2, 4).numpy()
"""


@pytest.mark.parametrize("name", ["mixed", "tensor", "function", "written", "number"])
def test_models_in_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    model = f"{tmp_path / 'models.py'}:{name}"
    report = irc.run(model)
    for backend in BACKENDS if name == "mixed" else ("onnx",):
        actual = irc.run(model, report.inputs, backend=backend).outputs
        assert list(actual) == list(report.outputs)
        for result, array in report.outputs.items():
            np.testing.assert_allclose(actual[result], array, rtol=1e-5, atol=1e-5)
    assert check(model, backend="onnx").passed
    contenders = irc.bench(model, rounds=2).contenders
    assert contenders["eager"].error <= 1e-5


@pytest.mark.parametrize("name, code", [("wrong", "torch.export"), ("array", "usage.value")])
def test_mistakes_in_files(name: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    for verb in (irc.run, irc.bench):
        with pytest.raises(IrcError) as caught:
            verb(f"{tmp_path / 'models.py'}:{name}")
        assert caught.value.code == code
