"""Small seeded instances of the architectures that people compile: transformers' own from their configurations, without
weights, and plain PyTorch modules. Each comes with example inputs and the axes that may vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim


@dataclass(frozen=True)
class Example:
    """A module in evaluation mode, its inputs by name, and which of their axes vary: {"x": {0: Dim("batch")}}.

    `others` are inputs of other sizes, as `dynamic` allows.
    """

    module: nn.Module
    inputs: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]
    dynamic: dict[str, dict[int, Any]]


class Adapter(nn.Module):
    """A model of transformers as a function of tensors that gives one tensor."""

    def __init__(self, model: nn.Module, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model, self.call = model, call


class Images(Adapter):
    def __init__(self, model: nn.Module, call: Callable[..., torch.Tensor], **options: Any) -> None:
        super().__init__(model, call)
        self.options = options

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(pixel_values=pixel_values, **self.options))


class Tokens(Adapter):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=input_ids, attention_mask=attention_mask))


class EncoderDecoder(Adapter):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                decoder_input_ids: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=input_ids, attention_mask=attention_mask,
                                    decoder_input_ids=decoder_input_ids, use_cache=False))


class Causal(Adapter):
    """A decoder without a cache."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False))


class Sound(Adapter):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(features))


class Cached(nn.Module):
    """A decoder of two layers with the keys and values of earlier tokens in, and of all tokens out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, key_0: torch.Tensor,
                value_0: torch.Tensor, key_1: torch.Tensor, value_1: torch.Tensor) -> tuple[torch.Tensor, ...]:
        from transformers import DynamicCache

        cache = DynamicCache()
        cache.update(key_0, value_0, 0)
        cache.update(key_1, value_1, 1)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        layers = out.past_key_values.layers
        return out.logits, layers[0].keys, layers[0].values, layers[1].keys, layers[1].values


def logits(output: Any) -> torch.Tensor:
    return output.logits


def last_hidden(output: Any) -> torch.Tensor:
    return output.last_hidden_state


def seeded(module: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of batch norms and biases that differ from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith(("running_mean", "bias")):
            tensor.data = 0.1 * torch.randn(tensor.shape, generator=generator)
        elif name.endswith("running_var"):
            tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return module.eval()


def images(module: nn.Module, size: tuple[int, int], other: tuple[int, int] | None = None, name: str = "pixel_values",
           multiple: int = 1) -> Example:
    """Of one image model: the batch varies, and height and width where it takes others, in steps of `multiple`."""
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=64)}
    if other is not None:
        for axis, side in ((2, "height"), (3, "width")):
            axes[axis] = multiple * Dim(f"{side}_", max=64) if multiple > 1 else Dim(side, min=16, max=512)
    generator = torch.Generator().manual_seed(2)
    return Example(seeded(module), {name: torch.randn(2, 3, *size, generator=generator)},
                   {name: torch.randn(3, 3, *(other or size), generator=generator)}, {name: axes})


def tokens(module: nn.Module, vocabulary: int) -> Example:
    """Of one text model: batch and length vary; the second text is padded at its end."""

    def texts(batch: int, length: int) -> dict[str, torch.Tensor]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[1, length // 2 :] = 0
        return {"input_ids": torch.randint(0, vocabulary, (batch, length), generator=generator),
                "attention_mask": mask}

    generator = torch.Generator().manual_seed(2)
    axes = {0: Dim("batch", min=2, max=64), 1: Dim("length", min=2, max=64)}
    return Example(seeded(module), texts(2, 7), texts(3, 11), {"input_ids": axes, "attention_mask": axes})


def resnet() -> Example:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5)
    return images(Images(ResNetForImageClassification(config), logits), (33, 37), (45, 41))


def mobilenet_v2() -> Example:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(depth_multiplier=0.15, min_depth=4, depth_divisible_by=4, num_labels=5)
    return images(Images(MobileNetV2ForImageClassification(config), logits), (37, 33))


def convnext() -> Example:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[6, 12], depths=[1, 2], num_stages=2, num_labels=5, layer_scale_init_value=0.5)
    return images(Images(ConvNextForImageClassification(config), logits), (33, 37), (45, 41))


def vit() -> Example:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=24,
                       patch_size=8, num_labels=5)
    model = Images(ViTForImageClassification(config), logits, interpolate_pos_encoding=True)
    return images(model, (24, 32), (40, 24), multiple=8)


def swin() -> Example:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(image_size=32, patch_size=4, embed_dim=6, depths=[2, 1], num_heads=[1, 2], window_size=3,
                        num_labels=5)
    return images(Images(SwinForImageClassification(config), logits), (32, 32))


def segformer() -> Example:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[6, 12],
                             patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
                             decoder_hidden_size=10, num_labels=5)
    return images(Images(SegformerForSemanticSegmentation(config), logits), (64, 96), (96, 64), multiple=32)


def bert() -> Example:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=20, max_position_embeddings=64)
    return tokens(Tokens(BertModel(config), last_hidden), 50)


def distilbert() -> Example:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=50, dim=12, n_layers=2, n_heads=3, hidden_dim=20, max_position_embeddings=64)
    return tokens(Tokens(DistilBertModel(config), last_hidden), 50)


def gpt2(layers: int = 2) -> Example:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_positions=64, n_embd=12, n_layer=layers, n_head=3, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    return tokens(Causal(GPT2LMHeadModel(config), logits), 50)


def llama_config() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, max_position_embeddings=64)


def llama() -> Example:
    from transformers import LlamaForCausalLM

    return tokens(Causal(LlamaForCausalLM(llama_config()), logits), 50)


def llama_cached() -> Example:
    from transformers import LlamaForCausalLM

    def step(batch: int, past: int, new: int) -> dict[str, torch.Tensor]:
        cache = {f"{part}_{layer}": torch.randn(batch, 2, past, 4, generator=generator)
                 for layer in range(2) for part in ("key", "value")}  # fmt: skip
        mask = torch.ones(batch, past + new, dtype=torch.int64)
        mask[1, :2] = 0  # padded at its start, as for generation
        return {"input_ids": torch.randint(0, 50, (batch, new), generator=generator), "attention_mask": mask, **cache}

    generator = torch.Generator().manual_seed(2)
    batch, past, new = Dim("batch", min=2, max=64), Dim("past", min=2, max=32), Dim("new", min=2, max=16)
    axes: dict[str, dict[int, Any]] = {"input_ids": {0: batch, 1: new}, "attention_mask": {0: batch, 1: Dim.AUTO}}
    axes |= {f"{part}_{layer}": {0: batch, 2: past} for layer in range(2) for part in ("key", "value")}
    return Example(seeded(Cached(LlamaForCausalLM(llama_config()))), step(2, 5, 3), step(3, 9, 2), axes)


def t5() -> Example:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=50, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=3)
    example = tokens(EncoderDecoder(T5ForConditionalGeneration(config), logits), 50)
    generator = torch.Generator().manual_seed(3)
    for inputs, length in ((example.inputs, 4), (example.others, 9)):
        inputs["decoder_input_ids"] = torch.randint(0, 50, (len(inputs["input_ids"]), length), generator=generator)
    example.dynamic["decoder_input_ids"] = {0: example.dynamic["input_ids"][0], 1: Dim("written", min=2, max=64)}
    return example


def whisper_encoder() -> Example:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(vocab_size=50, num_mel_bins=8, d_model=12, encoder_layers=2, encoder_attention_heads=3,
                           encoder_ffn_dim=20, max_source_positions=15)
    generator = torch.Generator().manual_seed(2)
    return Example(seeded(Sound(WhisperEncoder(config), last_hidden)),
                   {"features": torch.randn(2, 8, 30, generator=generator)},
                   {"features": torch.randn(3, 8, 30, generator=generator)},
                   {"features": {0: Dim("batch", min=1, max=64)}})


def yolo() -> Example:
    torch.manual_seed(0)
    return images(Yolo(), (64, 96), (32, 80), name="x", multiple=16)


def detector() -> Example:
    """YOLO with what makes boxes of its cells; of one image, since images have different numbers of boxes."""
    define_nms()
    torch.manual_seed(0)
    model = Yolo()
    sample = images(Detector(model), (64, 96), (32, 80), name="x", multiple=16)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():  # norms of these images: else scores hardly differ, and rounding errors order the boxes
        model.train()(sample.inputs["x"])
    model.eval()
    inputs, others = ({"x": each["x"][:1]} for each in (sample.inputs, sample.others))
    dynamic = {axis: dim for axis, dim in sample.dynamic["x"].items() if axis}
    return Example(sample.module, inputs, others, {"x": dynamic})


def unet() -> Example:
    torch.manual_seed(0)
    return images(UNet(), (24, 40), (32, 16), name="x", multiple=4)


def tagger() -> Example:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    axes = {0: Dim("batch", min=2, max=64), 1: Dim("length", min=2, max=64)}
    return Example(seeded(Tagger()), {"tokens": torch.randint(0, 50, (2, 7), generator=generator)},
                   {"tokens": torch.randint(0, 50, (3, 11), generator=generator)}, {"tokens": axes})


class Conv(nn.Module):
    """Convolution, batch norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.norm(self.conv(x)))


class C2f(nn.Module):
    """Half of the channels go through residual blocks, and all intermediate results are joined."""

    def __init__(self, channels: int, blocks: int, shortcut: bool) -> None:
        super().__init__()
        half = channels // 2
        self.first, self.last, self.shortcut = Conv(channels, channels), Conv((2 + blocks) * half, channels), shortcut
        self.blocks = nn.ModuleList(nn.Sequential(Conv(half, half, 3), Conv(half, half, 3)) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]) if self.shortcut else block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Three max poolings in a row, joined: pooling at three scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = Conv(channels, channels // 2), Conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """Shaped as YOLOv8: a backbone of C2f blocks, SPPF, a path up and down, and a head whose box sides are
    expectations over distributions (DFL). Gives boxes (center, size) and class scores: f32[N, 4 + classes, cells]."""

    def __init__(self, width: int = 8, classes: int = 3, bins: int = 4) -> None:
        super().__init__()
        self.bins, self.strides = bins, (8, 16)
        self.stem = nn.Sequential(Conv(3, width, 3, 2), Conv(width, width, 3, 2), C2f(width, 1, True))
        self.middle = nn.Sequential(Conv(width, width, 3, 2), C2f(width, 2, True))
        self.deep = nn.Sequential(Conv(width, width, 3, 2), C2f(width, 1, True), SPPF(width))
        self.join_up, self.up = Conv(2 * width, width), C2f(width, 1, False)
        self.down, self.join_down, self.end = Conv(width, width, 3, 2), Conv(2 * width, width), C2f(width, 1, False)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4 * bins, 1) for _ in self.strides)
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in self.strides)
        self.register_buffer("bin_values", torch.arange(bins, dtype=torch.float32).view(1, 1, bins, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.middle(self.stem(x))
        deep = self.deep(middle)
        up = self.up(self.join_up(torch.cat([nn.functional.interpolate(deep, scale_factor=2.0), middle], 1)))
        down = self.end(self.join_down(torch.cat([self.down(up), deep], 1)))
        levels = []
        for level, stride, box, score in zip((up, down), self.strides, self.boxes, self.scores, strict=True):
            batch, height, width = level.shape[0], level.shape[2], level.shape[3]
            sides = box(level).view(batch, 4, self.bins, height * width).softmax(2)
            left, top, right, bottom = (sides * self.bin_values).sum(2).unbind(1)
            y = (torch.arange(height, dtype=torch.float32) + 0.5).view(-1, 1).expand(height, width).reshape(-1)
            x = (torch.arange(width, dtype=torch.float32) + 0.5).view(1, -1).expand(height, width).reshape(-1)
            center = [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom]
            levels.append(torch.cat([torch.stack(center, 1) * stride, score(level).flatten(2).sigmoid()], 1))
        return torch.cat(levels, 2)


class Detector(nn.Module):
    """The boxes (corners, score, class) of an image, f32[boxes, 6]: those of at least a score, without those that a
    better one of their class overlaps."""

    def __init__(self, model: nn.Module, score: float = 0.5, overlap: float = 0.45) -> None:
        super().__init__()
        self.model, self.score, self.overlap = model, score, overlap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        center, size, scores = self.model(x)[0].t().split((2, 2, 3), 1)
        score, kind = scores.max(1)
        boxes = torch.cat([center - size / 2, center + size / 2], 1)
        good = torch.nonzero(score >= self.score)[:, 0]
        boxes, score, kind = boxes[good], score[good], kind[good].to(boxes.dtype)
        apart = 4096 * kind[:, None]  # classes do not overlap each other
        kept = torch.ops.torchvision.nms(boxes + apart, score, self.overlap)
        return torch.cat([boxes[kept], score[kept, None], kind[kept, None]], 1)


def define_nms() -> None:
    """torchvision's operator, by its definition, where torchvision is not installed."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        if not hasattr(torch.ops.torchvision, "nms"):
            torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch.library.impl("torchvision::nms", "CPU", nms)
            torch.library.register_fake("torchvision::nms", nms_fake)


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    areas = (dets[:, 2:] - dets[:, :2]).prod(1)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        low, high = torch.maximum(dets[kept, :2], dets[index, :2]), torch.minimum(dets[kept, 2:], dets[index, 2:])
        common = (high - low).clamp(0).prod(1)
        if not bool((common / (areas[kept] + areas[index] - common) > iou_threshold).any()):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def nms_fake(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    return dets.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


class UNet(nn.Module):
    """Two levels down and up with skips; group norm, and bilinear and transposed-convolution upsampling."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.enter, self.lower, self.deep = self.step(3, width), self.step(width, width), self.step(width, 2 * width)
        self.grow = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.up, self.leave = self.step(2 * width, width), self.step(2 * width, width)
        self.end = nn.Conv2d(width, 2, 1)

    def step(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(2, outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enter = self.enter(x)
        lower = self.lower(nn.functional.max_pool2d(enter, 2))
        deep = self.deep(nn.functional.avg_pool2d(lower, 2))
        up = self.up(torch.cat([self.grow(deep), lower], 1))
        larger = nn.functional.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.end(self.leave(torch.cat([larger, enter], 1)))


class Tagger(nn.Module):
    """Embedding, a bidirectional LSTM, and log probabilities of tags for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 6)
        self.lstm = nn.LSTM(6, 5, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(10, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.tags(self.lstm(self.embedding(tokens))[0]).log_softmax(-1)


ARCHITECTURES: dict[str, Callable[[], Example]] = {
    each.__name__: each
    for each in (resnet, mobilenet_v2, convnext, vit, swin, segformer, bert, distilbert, gpt2, llama, llama_cached, t5,
                 whisper_encoder, yolo, detector, unet, tagger)
}  # fmt: skip


def build(name: str) -> Example:
    """The same weights and inputs in every process."""
    torch.manual_seed(0)
    return ARCHITECTURES[name]()


def skip_what_is_not_exported(name: str, sizes: str) -> None:
    if (name, sizes) == ("resnet", "dynamic") and torch.__version__ < "2.12":
        pytest.skip("PyTorch 2.11 exports strided convolutions for some heights only")
