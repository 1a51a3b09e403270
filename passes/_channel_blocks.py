"""What ONNX Runtime computes in its layout of channels: images [N, C, H, W] of f32 whose channels are in blocks."""

from __future__ import annotations

BLOCK = 16  # channels of a block, to which others are padded; 8 on processors without AVX-512
# On operands of equal shapes; `clip` and other activations are computed as a part of the convolution before them alone.
POINTWISE = ("add", "gelu", "mul", "quick_gelu", "relu", "sigmoid", "silu", "tanh")
