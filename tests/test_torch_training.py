"""Training by torch.compile(..., backend="irc"): losses, gradients and buffers beside those of eager PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import nn

import irc
from tests.benchmarks.networks import BasicBlock, conv_norm
from tests.torch_compiling import close, compiled, fresh  # noqa: F401  # a fixture of all tests

pytestmark = pytest.mark.filterwarnings("ignore")


class Residual(nn.Module):
    """A small residual network: convolutions, batch norm, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.relu(self.inner(self.conv(x)) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Encoder(nn.Module):
    """Two layers of a transformer, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Experts(nn.Module):
    """A mixture of experts: each token goes to two of four."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(16, 4), nn.Linear(16, 5)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        result = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            result = result + expert(x) * ((chosen == index) * weights).sum(-1, keepdim=True)
        return self.head(result)


def resnet18() -> nn.Module:
    """ResNet-18 of eight channels, for small images."""
    layers, width = [*conv_norm(3, 8, 3), nn.ReLU()], 8
    for outputs in (8, 16, 32, 64):
        layers += [BasicBlock(width, outputs, 1 if outputs == 8 else 2), BasicBlock(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Dropout(0.2), nn.Linear(32, 5))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "perceptron": (perceptron, lambda batch: torch.randn(batch, 16)),
    "residual": (Residual, lambda batch: torch.randn(batch, 3, 8, 8)),
    "encoder": (Encoder, lambda batch: torch.randint(0, 50, (batch, 7))),
    "recurrent": (Recurrent, lambda batch: torch.randn(batch, 6, 8)),
    "experts": (Experts, lambda batch: torch.randn(batch, 16)),
    "resnet18": (resnet18, lambda batch: torch.randn(batch, 3, 16, 16)),
}
# Training of many batch norms on few images is chaotic: at larger rates eager in f32 does not follow its own in f64.
RATES = {"resnet18": 1e-5}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name == "resnet18" else []) for name in MODELS]


def losses(model: nn.Module, program: Any, inputs: Callable[[int], torch.Tensor], steps: int,
           rate: float) -> list[float]:  # fmt: skip
    """The losses of training, whose random numbers are those of PyTorch's generator."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    values = []
    for _ in range(steps):
        loss = F.cross_entropy(program(inputs(4)), torch.randint(0, 5, (4,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def check_training(name: str, steps: int) -> None:
    make, inputs = MODELS[name]
    model = make()
    twin = copy.deepcopy(model)
    with torch._dynamo.config.patch(allow_rnn=True):
        ours = losses(twin, compiled(twin), inputs, steps, RATES.get(name, 1e-2))
    close(torch.tensor(ours), torch.tensor(losses(model, model, inputs, steps, RATES.get(name, 1e-2))), 1e-4)
    graphs = irc.report().graphs
    kinds = [graph.kind for graph in graphs]
    assert kinds.count("forward") == kinds.count("backward") == 1, kinds
    assert all(name == "native_dropout.default" for graph in graphs for name, _ in graph.in_pytorch)


@pytest.mark.parametrize("name", NAMES)
def test_training_follows_eager(name: str) -> None:
    check_training(name, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_training_follows_eager_for_50_steps(name: str) -> None:
    check_training(name, 50)


@pytest.mark.parametrize("name", NAMES)
def test_a_dynamic_batch_compiles_twice(name: str) -> None:
    """Over 20 sizes; from 17 on, since PyTorch's convolution guards against batches of 16 and more."""
    make, inputs = MODELS[name]
    model = make().eval()
    program = compiled(model)
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        for batch in range(17, 37):
            x = inputs(batch)
            close(program(x), model(x))
    breaks = name == "encoder" and torch.__version__ < "2.12"  # at PyTorch 2.11's operator for a whole encoder
    assert len(irc.report().graphs) == (4 if breaks else 2)


def test_training_with_a_dynamic_batch_compiles_once() -> None:
    """The shares of means in the backward graph are floats that Python computes of sizes."""
    model = Residual()
    twin = copy.deepcopy(model)
    program = torch.compile(twin, backend="irc", dynamic=True)
    for batch in (4, 7, 3):
        x = torch.randn(batch, 3, 8, 8)
        for each, call in ((model, model), (twin, program)):
            each.zero_grad()
            call(x).square().sum().backward()
        for one, other in zip(twin.parameters(), model.parameters(), strict=True):
            close(one.grad, other.grad, 1e-4)
    assert [(graph.kind, graph.in_pytorch) for graph in irc.report().graphs] == [("forward", {}), ("backward", {})]


class Counting(nn.Module):
    """A buffer that is read before it is written, which the gradient needs as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5]))
        self.register_buffer("b", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x * self.w + self.b).sin()
        self.b.add_(1)
        return y


@pytest.mark.parametrize("backend", ["onnx", "triton"])
@pytest.mark.parametrize("make", [Counting, lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))])
def test_buffers_that_are_read_and_written_in_training(make: Any, backend: str) -> None:
    module = make().train()
    expected, program = copy.deepcopy(module), compiled(module, backend=backend)
    for _ in range(3):
        x = torch.randn(4, 3, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        program(x).square().sum().backward()
        expected(y).square().sum().backward()
        close(x.grad, y.grad)
        for one, other in zip(module.state_dict().values(), expected.state_dict().values(), strict=True):
            close(one, other)
    assert not any(graph.in_pytorch for graph in irc.report().graphs)


def test_gradients_of_complex_factors() -> None:
    def program(z: torch.Tensor) -> torch.Tensor:
        return (z * (2 - 1j)).real + (z.conj() * z).imag

    z = torch.randn(4, dtype=torch.complex64)
    gradients = []
    for run in (compiled(program), program):
        leaf = z.clone().requires_grad_()
        run(leaf).sum().backward()
        gradients.append(leaf.grad)
    close(*gradients)
