"""Networks of the ONNX Runtime benchmark in f32, at batch 1, with random weights, exported once by torch.onnx.

Exported models are kept in `.venv/workloads`, under names with a digest of what defines them. Transformers of text and
sound, and Swin, are those of the package transformers; the others are written out here as timm has them.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests import architectures
from tests.architectures import Images, Sound, Tokens, last_hidden, logits, seeded
from tests.benchmarks import networks
from tests.benchmarks.networks import BasicBlock, ConvNeXtBlock, Ids, Inverted, conv_norm

Workload = tuple[nn.Module, dict[str, torch.Tensor]]
FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "workloads"
DEFINED_IN = (__file__, networks.__file__, architectures.__file__)
VOCABULARY = 1000


def ids(length: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (1, length))


def image(size: int = 224) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(1, 3, size, size)}


# -- transformers ------------------------------------------------------------------------------------------------


def bert(layers: int, width: int, length: int) -> Workload:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers,
                                 num_attention_heads=width // 64, intermediate_size=4 * width))  # fmt: skip
    mask = torch.ones(1, length, dtype=torch.int64)
    mask[:, -length // 8 :] = 0
    return Tokens(model, last_hidden), {"input_ids": ids(length), "attention_mask": mask}


def gpt2() -> Workload:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=512, n_layer=4, n_head=8, bos_token_id=0,
                                       eos_token_id=0))  # fmt: skip
    return Ids(model, logits), {"ids": ids(128)}


def llama_model() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1376,
                                        num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2))  # fmt: skip


def llama() -> Workload:
    return Ids(llama_model(), logits), {"ids": ids(128)}


class Step(nn.Module):
    """A decoder with the keys and values of earlier tokens in, layer by layer, and of all tokens out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, key_0: torch.Tensor, value_0: torch.Tensor, key_1: torch.Tensor,
                value_1: torch.Tensor, key_2: torch.Tensor, value_2: torch.Tensor, key_3: torch.Tensor,
                value_3: torch.Tensor) -> tuple[torch.Tensor, ...]:  # fmt: skip
        from transformers import DynamicCache

        cache = DynamicCache()
        pairs = ((key_0, value_0), (key_1, value_1), (key_2, value_2), (key_3, value_3))
        for layer, (key, value) in enumerate(pairs):
            cache.update(key, value, layer)
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        return out.logits, *(part for layer in out.past_key_values.layers for part in (layer.keys, layer.values))


def llama_step() -> Workload:
    """One token after 128 others."""
    parts = [f"{part}_{layer}" for layer in range(4) for part in ("key", "value")]
    return Step(llama_model()), {"ids": ids(1), **{part: torch.randn(1, 2, 128, 64) for part in parts}}


def swin() -> Workload:
    from transformers import SwinConfig, SwinForImageClassification

    return Images(SwinForImageClassification(SwinConfig()), logits), {"pixel_values": image()["x"]}


def whisper_encoder() -> Workload:
    """Of Whisper-tiny, over 10 seconds of sound."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536,
                           max_source_positions=500)  # fmt: skip
    return Sound(WhisperEncoder(config), last_hidden), {"features": torch.randn(1, 80, 1000)}


def t5_encoder() -> Workload:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=VOCABULARY, d_model=512, d_kv=64, d_ff=2048, num_layers=4, num_heads=8)
    inputs = {"input_ids": ids(128), "attention_mask": torch.ones(1, 128, dtype=torch.int64)}
    return Tokens(T5EncoderModel(config), last_hidden), inputs


class Attention(nn.Module):
    """As timm has it: one product for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


def mlp(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, 1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), mlp(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, patch: int = 16, size: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Mixer(nn.Module):
    """A block of MLP-Mixer: an MLP over tokens and one over channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.mlp_tokens = nn.LayerNorm(width, 1e-6), mlp(tokens, width // 2)
        self.norm2, self.mlp_channels = nn.LayerNorm(width, 1e-6), mlp(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp_channels(self.norm2(x))


class MixerS32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 512, 32, 32)
        self.blocks = nn.Sequential(*(Mixer(49, 512) for _ in range(8)))
        self.norm, self.head = nn.LayerNorm(512, 1e-6), nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


# -- networks of convolutions ------------------------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


class MBConv(nn.Module):
    """Of EfficientNet: a convolution to more channels, a depthwise one, squeeze and excite, and one back."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expand
        layers: list[nn.Module] = [*conv_norm(inputs, inner, 1), nn.SiLU()] if expand > 1 else []
        layers += [*conv_norm(inner, inner, kernel, stride, inner), nn.SiLU(), SqueezeExcite(inner, inputs // 4)]
        self.layers, self.same = nn.Sequential(*layers, *conv_norm(inner, outputs, 1)), inputs == outputs and stride < 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


def pooled(layers: list[nn.Module], *head: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def efficientnet_b0() -> Workload:
    """Tan and Le, arXiv 1905.11946, table 1."""
    layers: list[nn.Module] = [*conv_norm(3, 32, 3, 2), nn.SiLU()]
    inputs = 32
    for expand, outputs, count, stride, kernel in ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5),
                                                   (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
                                                   (6, 320, 1, 1, 3)):  # fmt: skip
        for index in range(count):
            layers.append(MBConv(inputs, outputs, expand, kernel, 1 if index else stride))
            inputs = outputs
    return pooled([*layers, *conv_norm(320, 1280, 1), nn.SiLU()], nn.Linear(1280, 1000)), image()


def mobilenet_v3_small() -> Workload:
    """Howard et al., arXiv 1905.02244, table 2."""
    rows = [(16, 16, 16, 3, 2, 8, 0), (16, 72, 24, 3, 2, 0, 0), (24, 88, 24, 3, 1, 0, 0), (24, 96, 40, 5, 2, 24, 1),
            (40, 240, 40, 5, 1, 64, 1), (40, 240, 40, 5, 1, 64, 1), (40, 120, 48, 5, 1, 32, 1),
            (48, 144, 48, 5, 1, 40, 1), (48, 288, 96, 5, 2, 72, 1), (96, 576, 96, 5, 1, 144, 1),
            (96, 576, 96, 5, 1, 144, 1)]  # fmt: skip
    layers: list[nn.Module] = [*conv_norm(3, 16, 3, 2), nn.Hardswish()]
    layers += [Inverted(*row[:6], bool(row[6])) for row in rows]
    layers += [*conv_norm(96, 576, 1), nn.Hardswish()]
    return pooled(layers, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000)), image()


class Bottleneck(nn.Module):
    """Of ResNet-50: convolutions of 1, 3 and 1, and a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.layers = nn.Sequential(*conv_norm(inputs, inner, 1), nn.ReLU(), *conv_norm(inner, inner, 3, stride),
                                    nn.ReLU(), *conv_norm(inner, outputs, 1))  # fmt: skip
        same = inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else conv_norm(inputs, outputs, 1, stride)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


def resnet(block: Callable[[int, int, int], nn.Module], expansion: int, counts: tuple[int, ...]) -> Workload:
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(counts):
        for index in range(count):
            layers.append(block(inputs, 64 << stage, 2 if stage and not index else 1))
            inputs = expansion * (64 << stage)
    return pooled(layers, nn.Linear(inputs, 1000)), image()


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext_pico() -> Workload:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 4), ChannelNorm(64, 1e-6)]
    for stage, count in enumerate((2, 2, 6, 2)):
        width = 64 << stage
        layers += [ChannelNorm(width // 2, 1e-6), nn.Conv2d(width // 2, width, 2, 2)] if stage else []
        layers += [ConvNeXtBlock(width) for _ in range(count)]
    return pooled(layers, nn.LayerNorm(512, 1e-6), nn.Linear(512, 1000)), image()


class Residual(nn.Module):
    """Of a diffusion model's UNet, without the embedding of time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)


class UNet(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(Residual(w, w) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, 1) for w in widths[:-1])
        self.up = nn.ModuleList(Residual(2 * w, w) for w in widths[-2::-1])
        self.grow = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in widths[-2::-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skips = self.enter(x), []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for grow, block in zip(self.grow, self.up, strict=True):
            x = grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = block(torch.cat([x, skips.pop()], 1))
        return self.leave(x)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "deit_tiny": lambda: (VisionTransformer(192, 12, 3), image()),
    "bert_4x512": lambda: bert(4, 512, 128),
    "bert_2x128": lambda: bert(2, 128, 32),
    "gpt2_4x512": gpt2,
    "llama_4x512": llama,
    "llama_step": llama_step,
    "swin_tiny": swin,
    "mixer_s32": lambda: (MixerS32(), image()),
    "whisper_encoder": whisper_encoder,
    "t5_encoder": t5_encoder,
    "efficientnet_b0": efficientnet_b0,
    "mobilenet_v3_small": mobilenet_v3_small,
    "unet": lambda: (UNet(), image(64)),
    "convnext_pico": convnext_pico,
    "resnet18": lambda: resnet(BasicBlock, 1, (2, 2, 2, 2)),
    "resnet50": lambda: resnet(lambda inputs, inner, stride: Bottleneck(inputs, inner, stride), 4, (3, 4, 6, 3)),
}
TRANSFORMERS = tuple(WORKLOADS)[:10]


def workload(name: str) -> Workload:
    """A network in evaluation mode, and its inputs by name."""
    torch.manual_seed(0)
    module, inputs = WORKLOADS[name]()
    return seeded(module), inputs


def exported(name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a workload's ONNX model, exported where it is missing, and arrays by the names of its inputs."""
    digest = hashlib.sha256()
    for file in DEFINED_IN:
        digest.update(Path(file).read_bytes())
    for package in ("torch", "transformers", "onnxscript"):
        digest.update(version(package).encode())
    path = FOLDER / f"{name}-{digest.hexdigest()[:12]}.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in FOLDER.glob(f"{name}-*"):
            old.unlink()
        module, inputs = workload(name)
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(module, tuple(inputs.values()), dynamo=True, verbose=False)
        assert program is not None
        names = [str(each.name) for each in program.model.graph.inputs]
        arrays = [each.numpy() for each in inputs.values()]
        np.savez(path.with_suffix(".npz"), **dict(zip(names, arrays, strict=True)))
        program.save(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        return path, dict(arrays)
