"""Parts of models on which compilers are compared: pointwise chains, norms, feed-forward layers, and the blocks of
encoders and decoders, with attention written out and as one call."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Block = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Pointwise(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gated = F.silu(x) * y + b
        mixed = torch.tanh(gated) * torch.sigmoid(y)
        leaky = torch.where(mixed > 0, mixed, 0.1 * mixed)
        return (leaky - gated).abs().sqrt() + torch.exp(-x * x), leaky


class Softmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * 0.125, -1)


class AddNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + residual
        return self.norm(total), total


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


class Encoder(nn.Module):
    """A block of BERT."""

    def __init__(self, width: int, heads: int, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        batch, length, width = x.shape
        size = width // self.heads
        q, k, v = (each(x).view(batch, length, self.heads, size).transpose(1, 2) for each in (self.q, self.k, self.v))
        if self.fused:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(size)
            context = torch.softmax(scores if mask is None else scores + mask, -1) @ v
        x = self.norm1(x + self.o(context.transpose(1, 2).reshape(batch, length, width)))
        return self.norm2(x + self.feed_forward(x))


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


class Decoder(nn.Module):
    """A block of Llama: rotary positions, several heads to one of keys and values, a causal mask, a gated layer."""

    def __init__(self, width: int, heads: int, groups: int, inner: int, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.groups, self.size, self.fused = heads, groups, width // heads, fused

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.q, self.o = linear(width, width), linear(width, width)
        self.k, self.v = (linear(width, groups * self.size) for _ in range(2))
        self.gate, self.up, self.down = linear(width, inner), linear(width, inner), linear(inner, width)
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        half = self.size // 2
        return torch.cat((-x[..., half:], x[..., :half]), -1)

    def repeated(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, length, _ = x.shape
        wide = x[:, :, None].expand(batch, self.groups, self.heads // self.groups, length, self.size)
        return wide.reshape(batch, self.heads, length, self.size)

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        length = q.shape[2]
        mask = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.size) + mask
        return torch.softmax(scores.float(), -1).to(q.dtype) @ v

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        normed = self.norm1(x)
        q, k, v = (each(normed).view(batch, length, heads, self.size).transpose(1, 2)
                   for each, heads in ((self.q, self.heads), (self.k, self.groups), (self.v, self.groups)))
        q, k = q * cos + self.rotated(q) * sin, k * cos + self.rotated(k) * sin
        attended = self.attention(q, self.repeated(k), self.repeated(v))
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, width))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


# By name: makes the module, and the shapes of its inputs. Small; and as large as in a model in use.
BLOCKS: dict[str, Callable[[bool], tuple[nn.Module, list[tuple[int, ...]]]]] = {
    "pointwise": lambda large: (Pointwise(), _pointwise(4096 if large else 32, 4096 if large else 256)),
    "softmax": lambda large: (Softmax(), [(4096, 4096) if large else (32, 256)]),
    "add_norm": lambda large: (AddNorm(1024), [(8192 if large else 64, 1024)] * 2),
    "feed_forward": lambda large: (FeedForward(1024 if large else 128), [(4096, 1024) if large else (32, 128)]),
    "encoder": lambda large: (_encoder(large), [_tokens(large)]),
    "encoder_masked": lambda large: (_encoder(large), [_tokens(large), (_tokens(large)[0], 1, 1, _tokens(large)[1])]),
    "encoder_fused": lambda large: (_encoder(large, fused=True), [_tokens(large)]),
    "decoder_fused": lambda large: (_decoder(large, fused=True), _positions(large)),
    "decoder": lambda large: (_decoder(large, fused=False), _positions(large)),
}


def _pointwise(rows: int, columns: int) -> list[tuple[int, ...]]:
    return [(rows, columns), (rows, columns), (columns,)]


def _tokens(large: bool) -> tuple[int, ...]:
    return (8, 512, 768) if large else (2, 32, 192)


def _encoder(large: bool, fused: bool = False) -> nn.Module:
    return Encoder(768, 12, fused) if large else Encoder(192, 3, fused)


def _decoder(large: bool, fused: bool) -> nn.Module:
    return Decoder(2048, 32, 8, 5632, fused) if large else Decoder(256, 4, 2, 512, fused)


def _positions(large: bool) -> list[tuple[int, ...]]:
    return [(4, 1024, 2048), (1024, 64), (1024, 64)] if large else [(2, 32, 256), (32, 64), (32, 64)]


def block(name: str, dtype: torch.dtype = torch.bfloat16, large: bool = False) -> Block:
    """A block and inputs for it, of this type."""
    generator = torch.Generator().manual_seed(0)
    module, shapes = BLOCKS[name](large)
    inputs = tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return module.to(dtype).eval(), inputs
