"""Networks at the sizes at which they are used, in bf16 with random weights: whole ones, and blocks of larger ones.

Batch norms of ResNet-18 and MobileNetV3 are folded into the convolutions before them, as in deployed models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.architectures import Adapter, Images, Sound, last_hidden, logits

Network = tuple[nn.Module, tuple[torch.Tensor, ...]]
IMAGES = (8, 3, 224, 224)


class Ids(Adapter):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=ids, use_cache=False))


class EncodedIds(Adapter):
    def forward(self, ids: torch.Tensor, decoder_ids: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False))


# -- networks of convolutions ------------------------------------------------------------------------------------


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """Of ResNet-18: two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Sequential(*([] if same else conv_norm(inputs, outputs, 1, stride)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


def resnet18() -> Network:
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for outputs in (64, 128, 256, 512):
        layers += [BasicBlock(width, outputs, 1 if outputs == 64 else 2), BasicBlock(outputs, outputs, 1)]
        width = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return folded(nn.Sequential(*layers)), (torch.randn(IMAGES),)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """Of MobileNetV3: a convolution to more channels, a depthwise one, and one back."""

    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int, squeeze: int,
                 hard: bool) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        if inner != inputs:
            layers += [*conv_norm(inputs, inner, 1), nn.Hardswish() if hard else nn.ReLU()]
        layers += [*conv_norm(inner, inner, kernel, stride, inner), nn.Hardswish() if hard else nn.ReLU()]
        layers += [SqueezeExcite(inner, squeeze)] if squeeze else []
        self.layers = nn.Sequential(*layers, *conv_norm(inner, outputs, 1))
        self.same = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


def mobilenet_v3() -> Network:
    """MobileNetV3-Large (Howard et al., arXiv 1905.02244, table 1)."""
    rows = [(16, 16, 16, 3, 1, 0, 0), (16, 64, 24, 3, 2, 0, 0), (24, 72, 24, 3, 1, 0, 0), (24, 72, 40, 5, 2, 24, 0),
            (40, 120, 40, 5, 1, 32, 0), (40, 120, 40, 5, 1, 32, 0), (40, 240, 80, 3, 2, 0, 1),
            (80, 200, 80, 3, 1, 0, 1), (80, 184, 80, 3, 1, 0, 1), (80, 184, 80, 3, 1, 0, 1),
            (80, 480, 112, 3, 1, 120, 1),
            (112, 672, 112, 3, 1, 168, 1), (112, 672, 160, 5, 2, 168, 1), (160, 960, 160, 5, 1, 240, 1),
            (160, 960, 160, 5, 1, 240, 1)]  # fmt: skip
    layers: list[nn.Module] = [*conv_norm(3, 16, 3, 2), nn.Hardswish()]
    layers += [Inverted(*row[:6], bool(row[6])) for row in rows]
    layers += [*conv_norm(160, 960, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000)]
    return folded(nn.Sequential(*layers)), (torch.randn(IMAGES),)


def folded(network: nn.Module) -> nn.Module:
    """With each batch norm folded into the convolution before it."""
    network.eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for name, after in [(name, str(int(name) + 1)) for name in module._modules]:
                norm = module._modules.get(after)
                if isinstance(norm, nn.BatchNorm2d):
                    module._modules[name] = nn.utils.fuse_conv_bn_eval(module._modules[name], norm)
                    module._modules[after] = nn.Identity()
    return network


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, a norm over channels, and two products with a gelu between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, 1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(inner)))).permute(0, 3, 1, 2)


class UNetBlock(nn.Module):
    """The residual block of a diffusion model: group norms, convolutions, and an embedding of the time step."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedding, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inner)))


# -- transformers ------------------------------------------------------------------------------------------------


def gpt2() -> Network:
    from transformers import GPT2Config, GPT2LMHeadModel

    return Ids(GPT2LMHeadModel(GPT2Config()), logits), (torch.randint(0, 50257, (1, 1024)),)


def t5() -> Network:
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config())
    return EncodedIds(model, logits), (torch.randint(0, 32128, (8, 512)), torch.randint(0, 32128, (8, 128)))


def whisper_encoder() -> Network:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048)
    return Sound(WhisperEncoder(config), last_hidden), (torch.randn(1, 80, 3000),)


def vit() -> Network:
    from transformers import ViTConfig, ViTForImageClassification

    return Images(ViTForImageClassification(ViTConfig()), logits), (torch.randn(IMAGES),)


def swin() -> Network:
    from transformers import SwinConfig, SwinForImageClassification

    return Images(SwinForImageClassification(SwinConfig()), logits), (torch.randn(IMAGES),)


def with_inputs(module: Callable[[], nn.Module], *shapes: Sequence[int]) -> Callable[[], Network]:
    return lambda: (module(), tuple(torch.randn(*shape) for shape in shapes))


NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": resnet18,
    "mobilenet_v3": mobilenet_v3,
    "convnext_block": with_inputs(lambda: ConvNeXtBlock(96), (8, 96, 56, 56)),
    "unet_block": with_inputs(lambda: UNetBlock(320, 640, 1280), (2, 320, 64, 64), (2, 1280)),
    "gpt2": gpt2,
    "t5": t5,
    "whisper_encoder": whisper_encoder,
    "vit": vit,
    "swin": swin,
}


def network(name: str, dtype: torch.dtype = torch.bfloat16) -> tuple[nn.Module, tuple[Any, ...]]:
    """A network in evaluation mode and inputs for it, of this type where they are floats."""
    torch.manual_seed(0)
    module, inputs = NETWORKS[name]()
    inputs = tuple(each.to(dtype) if each.is_floating_point() else each for each in inputs)
    return module.to(dtype).eval(), inputs
