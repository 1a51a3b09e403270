"""What TransformerEncoder gives at positions of padding.

Without gradients eager PyTorch computes on nested tensors, which have no padding, and fills it with 0. Where PyTorch
exports it does not, and leaves numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def calling_instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let calls of a module call `forward`, which takes no `self`, instead of its own."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def padding_as_zeros(module: nn.Module) -> Iterator[None]:
    """Let the encoders in a module give what they give without gradients while it is exported."""
    with ExitStack() as stack:
        for inner in module.modules():
            if isinstance(inner, nn.TransformerEncoder) and type(inner).forward is nn.TransformerEncoder.forward:
                stack.enter_context(_filling(inner))
        yield


def _filling(encoder: nn.TransformerEncoder) -> AbstractContextManager[None]:
    original: Callable[..., Any] = encoder.forward

    def forward(src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None) -> Any:
        if not _computes_nested(encoder, src, mask, src_key_padding_mask):
            return original(src, mask, src_key_padding_mask, is_causal)
        hidden = src_key_padding_mask != 0  # in the kernels that eager calls, any number hides a position
        if getattr(encoder, "mask_check", True):
            begins_again = (hidden[:, :-1] & ~hidden[:, 1:]).any()  # then eager computes with the padding
            empty = hidden & ~begins_again
        else:  # eager takes as many positions as are not padding, from the first on, wherever the padding is
            hidden = empty = torch.arange(src.shape[1], device=src.device) >= (~hidden).sum(1, keepdim=True)
        norm, encoder.norm, encoder.use_nested_tensor = encoder.norm, None, False
        try:
            result = original(src, mask, hidden, is_causal)
        finally:
            encoder.norm, encoder.use_nested_tensor = norm, True
        result = result.masked_fill(empty.unsqueeze(-1), 0.0)
        return result if norm is None else norm(result)

    return calling_instead(encoder, forward)


def _computes_nested(encoder: nn.TransformerEncoder, src: Any, mask: Any, padding: Any) -> bool:
    """Whether eager PyTorch computes on nested tensors, if no mask is checked or all padding is at the ends of rows."""
    return bool(torch.backends.mha.get_fastpath_enabled() and getattr(encoder, "use_nested_tensor", False)
                and not encoder.layers[0].training and src.dim() == 3 and mask is None
                and padding is not None and not torch.is_autocast_enabled())  # fmt: skip
