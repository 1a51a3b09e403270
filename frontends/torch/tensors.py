"""Tensors of PyTorch as arrays and as constants, and which of them hold elements that irc reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from irc.diagnostics import fail
from irc.dtypes import DType
from irc.frontends.torch.reading import DTYPES
from irc.torch_arrays import array_of
from irc.weights import Tensor


def element_type(dtype: torch.dtype) -> DType:
    """irc's element type; raises `type.dtype` where there is none."""
    if dtype not in DTYPES:
        raise fail("type.dtype", f"irc has no element type for {dtype}")
    return DTYPES[dtype]


def why_not_dense(tensor: torch.Tensor) -> str | None:
    """In words what a tensor is that has no elements of its own in strided memory; None for one that has."""
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"a {type(tensor).__name__}, which stands for other tensors"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "a tensor inside of a transformation of torch.func"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout is not torch.strided:
        return f"a tensor of the layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_quantized:
        return f"a quantized tensor ({str(tensor.dtype).removeprefix('torch.')})"
    return "a tensor on the device meta, which has no elements" if tensor.is_meta else None


def constant(data: torch.Tensor, name: str) -> Tensor:
    """A tensor as a constant that shares its memory where it can; reading it raises `weights.changed` after a write to
    the tensor. Raises `torch.tensor` and `type.dtype`."""
    array = to_array(data, name)
    address, version = state_of(data)

    def is_changed() -> bool:
        # A parameter that has been given other memory leaves this to the constant.
        return data.data_ptr() == address and state_of(data) != (address, version)

    is_shared = data.is_cpu and array.ctypes.data == address
    return Tensor(element_type(data.dtype), array.shape, lambda: array, name, is_changed if is_shared else None)


def state_of(tensor: torch.Tensor) -> tuple[int, int | None]:
    """What changes when a tensor is given other memory, or is written to: PyTorch counts the writes, except those to an
    inference tensor."""
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:
        return tensor.data_ptr(), None


def memory_key(data: torch.Tensor) -> tuple[Any, ...]:
    """What is equal for tensors that are the same memory read in the same way, and for no others."""
    if not data.numel() or data.layout is not torch.strided:
        return (id(data),)
    return data.data_ptr(), data.dtype, tuple(data.shape), data.stride(), data.is_conj(), data.is_neg()


def to_array(tensor: torch.Tensor, name: str = "it") -> Any:
    """A tensor as a read-only array that shares its memory where it can; types that NumPy lacks are those of ml_dtypes.
    Raises `torch.tensor` and `type.dtype`."""
    reason = why_not_dense(tensor)
    if reason is not None:
        raise fail("torch.tensor", f"{name} is {reason}", expected="a dense tensor with elements")
    array = array_of(tensor, element_type(tensor.dtype)).view()
    array.flags.writeable = False
    return array


def stand_in(tensor: torch.Tensor) -> Any:
    """An array of the tensor's shape and element type, for checks: it has no elements of its own."""
    return np.broadcast_to(np.empty((), element_type(tensor.dtype).numpy), tuple(tensor.shape))
