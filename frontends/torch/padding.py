"""What TransformerEncoder gives at positions of padding.

Without gradients eager PyTorch computes on nested tensors, which have no padding, and fills it with 0. Where PyTorch
exports it does not, and leaves numbers there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def padding_as_zeros() -> Iterator[None]:
    """Let encoders give what they give without gradients while this thread exports a program, also where a function or
    a subclass calls them."""
    exporting_thread, original = threading.get_ident(), nn.TransformerEncoder.forward

    def forward(self: Any, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None) -> Any:
        if threading.get_ident() == exporting_thread and _computes_nested(self, src, mask, src_key_padding_mask):
            return _filled(self, original, src, src_key_padding_mask, is_causal)
        return original(self, src, mask, src_key_padding_mask, is_causal)

    nn.TransformerEncoder.forward = forward
    try:
        yield
    finally:
        nn.TransformerEncoder.forward = original


def _filled(encoder: Any, original: Callable[..., Any], src: Any, padding: Any, is_causal: Any) -> Any:
    hidden = padding != 0  # in the kernels that eager calls, any number hides a position
    if getattr(encoder, "mask_check", True):
        begins_again = (hidden[:, :-1] & ~hidden[:, 1:]).any()  # then eager computes with the padding
        empty = hidden & ~begins_again
    else:  # eager takes as many positions as are not padding, from the first on, wherever the padding is
        hidden = empty = torch.arange(src.shape[1], device=src.device) >= (~hidden).sum(1, keepdim=True)
    norm, encoder.norm, encoder.use_nested_tensor = encoder.norm, None, False
    try:
        result = original(encoder, src, None, hidden, is_causal)
    finally:
        encoder.norm, encoder.use_nested_tensor = norm, True
    result = result.masked_fill(empty.unsqueeze(-1), 0.0)
    return result if norm is None else norm(result)


def _computes_nested(encoder: nn.TransformerEncoder, src: Any, mask: Any, padding: Any) -> bool:
    """Whether eager PyTorch computes on nested tensors, if no mask is checked or all padding is at the ends of rows."""
    return bool(torch.backends.mha.get_fastpath_enabled() and getattr(encoder, "use_nested_tensor", False)
                and not encoder.layers[0].training and src.dim() == 3 and mask is None
                and padding is not None and not torch.is_autocast_enabled())  # fmt: skip
