"""`torch._foreach_*`, with which optimizers write the step of all parameters at once: operations of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch

PREFIX = "aten::_foreach_"


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """For each operator on lists its kernel for all devices, which calls the operator on tensors for each element:
    where PyTorch records operations, it records those."""
    table: dict[Any, Callable[..., Any]] = {}
    for full in torch._C._dispatch_get_all_op_names():
        if full.startswith(PREFIX):
            name, _, overload = full.removeprefix("aten::").partition(".")
            operator = getattr(getattr(torch.ops.aten, name), overload or "default")
            table[operator] = partial(operator._op_dk, torch._C.DispatchKey.CompositeExplicitAutograd)
    table[torch.ops.aten._foreach_zero.default] = _zeros  # its kernel writes to clones
    return table


def _zeros(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.zeros_like(each) for each in tensors]
