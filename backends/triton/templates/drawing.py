"""Random numbers of operators without a seed, by PyTorch: torch.manual_seed repeats them.

Operators with a seed run in ONNX Runtime, and draw what they draw in the model that they come from.

Source: the operators of ONNX by these names.
"""

from __future__ import annotations

import torch


def normal(*, shape, mean=0.0, scale=1.0, dtype, device):
    return torch.empty(shape, dtype=dtype, device=device).normal_(mean, scale)


def normal_like(x, *, mean=0.0, scale=1.0, dtype):
    return normal(shape=x.shape, mean=mean, scale=scale, dtype=dtype, device=x.device)


def uniform(*, shape, low=0.0, high=1.0, dtype, device):
    return torch.empty(shape, dtype=dtype, device=device).uniform_(low, high)


def uniform_like(x, *, low=0.0, high=1.0, dtype):
    return uniform(shape=x.shape, low=low, high=high, dtype=dtype, device=x.device)


def bernoulli(x, *, dtype):
    """1 where a uniform number is above x, as in ONNX's function, which ONNX Runtime runs; its text says below."""
    return (torch.rand(x.shape, dtype=torch.float64, device=x.device) > x).to(dtype)


def multinomial(x, *, sample_size=1, dtype):
    """Places in rows of logarithms of probabilities; those that are not finite are never drawn, as in ONNX Runtime."""
    logits = x.double()
    finite = torch.isfinite(logits)
    logits = torch.where(finite, logits, 0.0)
    largest = torch.where(finite, logits, torch.finfo(torch.float64).min).amax(1, keepdim=True)
    weights = torch.where(finite, torch.exp(logits - largest), 0.0).cumsum(1)
    drawn = torch.rand((x.shape[0], sample_size), dtype=torch.float64, device=x.device) * weights[:, -1:]
    return torch.searchsorted(weights, drawn, right=True).to(dtype)


def dropout(x, ratio=None, training=None, *, masked):
    """x where it is kept, scaled by 1 / (1 - ratio), and with `masked` also where that is. All is kept outside of
    training."""
    ratio = torch.tensor(0.5, device=x.device) if ratio is None else ratio
    kept = torch.rand(x.shape, dtype=torch.float64, device=x.device) >= ratio
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    scaled = (wide / (1 - ratio.to(wide.dtype))).to(x.dtype)
    kept = kept if training is None else kept | ~training
    result = torch.where(kept, x if training is None else torch.where(training, scaled, x), 0).to(x.dtype)
    return (result, kept) if masked else result
