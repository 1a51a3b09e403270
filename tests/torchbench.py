"""Models as torchbench has them, for `torch.compile`: networks of torchvision and timm written out here, those of other
fields, and models of transformers from their configurations. None has trained weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests import transformers_models
from tests.architectures import Example, Tagger, Yolo, seeded
from tests.benchmarks.networks import conv_norm
from tests.benchmarks.workloads import workload

Model = tuple[nn.Module, tuple[torch.Tensor, ...]]


# -- networks of images -----------------------------------------------------------------------------------------


def classifier(features: list[nn.Module], width: int, classes: int = 100) -> nn.Module:
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def alexnet() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, kernel, stride, pool in ((64, 11, 4, True), (192, 5, 1, True), (384, 3, 1, False), (256, 3, 1, False),
                                          (256, 3, 1, True)):  # fmt: skip
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if pool else []
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(9 * 256, 512),
                         nn.ReLU(), nn.Dropout(), nn.Linear(512, 100))  # fmt: skip


def vgg11() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (32, 0, 64, 0, 128, 128, 0, 128, 128, 0):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()] if outputs else []
        layers += [] if outputs else [nn.MaxPool2d(2)]
        inputs = outputs or inputs
    return classifier(layers, inputs)


class Branches(nn.Module):
    """Several branches of one input, joined along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeezed: int, expanded: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, squeezed, 1), nn.ReLU(),
            Branches(nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU()),
                     nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())))  # fmt: skip

    return classifier([
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(64, 16, 64), fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True), fire(128, 32, 128), fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True), fire(256, 48, 192), fire(384, 64, 256)], 512)  # fmt: skip


class Dense(nn.Module):
    """A layer of DenseNet: its result is added to the channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False),
                                    nn.BatchNorm2d(4 * growth), nn.ReLU(),
                                    nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], 1)


def densenet(growth: int = 16) -> nn.Module:
    layers: list[nn.Module] = [*conv_norm(3, 32, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 32
    for stage, count in enumerate((4, 6, 8)):
        if stage:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(count):
            layers.append(Dense(width, growth))
            width += growth
    return classifier([*layers, nn.BatchNorm2d(width), nn.ReLU()], width)


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2 of stride 1: half of the channels are convolved, and then the halves are mixed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.layers = nn.Sequential(*conv_norm(half, half, 1), nn.ReLU(), *conv_norm(half, half, 3, 1, half),
                                    *conv_norm(half, half, 1), nn.ReLU())  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, 1)
        x = torch.cat([kept, self.layers(changed)], 1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


def shufflenet() -> nn.Module:
    layers: list[nn.Module] = [*conv_norm(3, 24, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 24
    for outputs, count in ((48, 3), (96, 7), (192, 3)):
        layers += [*conv_norm(width, width, 3, 2, width), *conv_norm(width, outputs, 1), nn.ReLU()]
        layers += [Shuffle(outputs) for _ in range(count)]
        width = outputs
    return classifier(layers, width)


def googlenet() -> nn.Module:
    def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
        return nn.Sequential(*conv_norm(inputs, outputs, kernel), nn.ReLU())

    def inception(inputs: int, width: int) -> nn.Module:
        return Branches(conv(inputs, width, 1), nn.Sequential(conv(inputs, width, 1), conv(width, 2 * width, 3)),
                        nn.Sequential(conv(inputs, width // 2, 1), conv(width // 2, width // 2, 5)),
                        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, width // 2, 1)))  # fmt: skip

    return classifier([conv(3, 32, 7), nn.MaxPool2d(3, 2, 1), inception(32, 16), inception(64, 32),
                       nn.MaxPool2d(3, 2, 1), inception(128, 32), inception(128, 32), inception(128, 48),
                       nn.MaxPool2d(3, 2, 1), inception(192, 64)], 256)  # fmt: skip


class ConvMixerBlock(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.space = nn.Sequential(nn.Conv2d(width, width, kernel, groups=width, padding="same"), nn.GELU(),
                                   nn.BatchNorm2d(width))  # fmt: skip
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.channels(x + self.space(x))


def convmixer() -> nn.Module:
    blocks = (ConvMixerBlock(64, 5) for _ in range(6))
    return classifier([nn.Conv2d(3, 64, 4, 4), nn.GELU(), nn.BatchNorm2d(64), *blocks], 64)


# -- other fields -----------------------------------------------------------------------------------------------


def dcgan() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride, padding in ((32, 128, 1, 0), (128, 64, 2, 1), (64, 32, 2, 1)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False), nn.BatchNorm2d(outputs)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())


def super_resolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3))  # fmt: skip


class Recommender(nn.Module):
    """As DLRM: dense features and embeddings of sparse ones interact by their products."""

    def __init__(self, tables: int = 8, width: int = 16) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.EmbeddingBag(100, width, mode="sum") for _ in range(tables))
        pairs = tables * (tables + 1) // 2
        self.top = nn.Sequential(nn.Linear(width + pairs, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
        self.register_buffer("pairs", torch.tril_indices(tables + 1, tables + 1, -1))

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        x = self.bottom(dense)
        embedded = [table(each) for table, each in zip(self.tables, sparse.unbind(1), strict=True)]
        features = torch.stack([x, *embedded], 1)
        products = features @ features.transpose(1, 2)
        return self.top(torch.cat([x, products[:, self.pairs[0], self.pairs[1]]], 1))


class Autoencoder(nn.Module):
    """A variational autoencoder, with the noise as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(784, 128), nn.ReLU())
        self.mean, self.spread = nn.Linear(128, 16), nn.Linear(128, 16)
        self.decode = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.encode(x)
        mean, spread = self.mean(hidden), self.spread(hidden)
        return self.decode(mean + noise * torch.exp(0.5 * spread)), mean, spread


class PointNet(nn.Module):
    """Convolutions of single points, and the maximum over all."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 256)):
            layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.head(self.points(x).max(2)[0]), -1)


class Temporal(nn.Module):
    """A temporal convolutional network: causal dilated convolutions with residuals and gates, as in WaveNet."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv1d(4, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**level) for level in range(6))
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(6))
        self.leave = nn.Conv1d(width, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        skips = torch.zeros_like(x)
        for level, (layer, mix) in enumerate(zip(self.layers, self.mixes, strict=True)):
            value, gate = layer(F.pad(x, (2**level, 0))).chunk(2, 1)
            out = mix(value.tanh() * gate.sigmoid())
            x, skips = x + out, skips + out
        return self.leave(skips.relu())


class DeepSpeech(nn.Module):
    """Convolutions over a spectrogram, two recurrent layers, and log probabilities of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, (11, 5), (2, 2), (5, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20))
        self.gru = nn.GRU(8 * 16, 24, 2, batch_first=True, bidirectional=True)
        self.letters = nn.Linear(48, 29)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.letters(self.gru(self.conv(x).flatten(1, 2).transpose(1, 2))[0]).log_softmax(-1)


class GraphConvolution(nn.Module):
    """Two layers of messages along edges, summed at each node and divided by its degree."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges
        degree = torch.ones(len(nodes)).index_add(0, target, torch.ones(edges.shape[1]))[:, None]
        for layer in (self.first, self.second):
            x = layer(nodes)
            nodes = ((x + torch.zeros_like(x).index_add(0, target, x[source])) / degree).relu()
        return nodes


def actor() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4), nn.Softmax(-1))


# -- the list ---------------------------------------------------------------------------------------------------


def taking(make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Callable[[], Model]:
    return lambda: (make(), tuple(torch.randn(shape) for shape in shapes))


def at_its_size(name: str) -> Callable[[], Model]:
    def make() -> Model:
        module, inputs = workload(name)
        return module, tuple(inputs.values())

    return make


def from_config(name: str) -> Callable[[], Model]:
    def make() -> Model:
        example: Example = transformers_models.build(name)
        return example.module, tuple(example.inputs.values())

    return make


def ids(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, high, shape)


PICTURE = (2, 3, 64, 64)
MODELS: dict[str, Callable[[], Model]] = {
    "alexnet": taking(alexnet, PICTURE),
    "vgg11": taking(vgg11, PICTURE),
    "squeezenet": taking(squeezenet, PICTURE),
    "densenet": taking(densenet, PICTURE),
    "shufflenet": taking(shufflenet, PICTURE),
    "googlenet": taking(googlenet, PICTURE),
    "convmixer": taking(convmixer, PICTURE),
    **{name: at_its_size(name) for name in ("resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0",
                                            "convnext_pico", "deit_tiny", "mixer_s32", "swin_tiny")},
    "unet": at_its_size("unet"),
    "yolo": taking(Yolo, PICTURE),
    "dcgan": taking(dcgan, (2, 32, 1, 1)),
    "super_resolution": taking(super_resolution, (2, 1, 32, 32)),
    "dlrm": lambda: (Recommender(), (torch.randn(16, 13), ids(100, 16, 8, 3))),
    "vae": taking(Autoencoder, (8, 784), (8, 16)),
    "pointnet": taking(PointNet, (4, 3, 128)),
    "tcn": taking(Temporal, (2, 4, 100)),
    "deepspeech": taking(DeepSpeech, (2, 1, 32, 20)),
    "gcn": lambda: (GraphConvolution(), (torch.randn(30, 12), ids(30, 2, 80))),
    "actor": taking(actor, (8, 24)),
    "lstm_tagger": lambda: (Tagger(), (ids(50, 2, 12),)),
    **{name: at_its_size(name) for name in ("bert_2x128", "gpt2_4x512", "llama_4x512", "t5_encoder",
                                            "whisper_encoder")},
    **{name: from_config(name) for name in ("albert", "opt", "mixtral", "bart", "wav2vec2", "clip")},
}  # fmt: skip


def build(name: str) -> Model:
    """A model in evaluation mode with its inputs: the same weights and inputs in every process."""
    torch.manual_seed(0)
    module, inputs = MODELS[name]()
    return seeded(module), inputs


def flat(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
