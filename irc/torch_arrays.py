"""PyTorch's tensors as NumPy's arrays, and back: imported where PyTorch is, since it is optional."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from irc.dtypes import DType


def array_of(tensor: torch.Tensor, dtype: DType) -> Any:
    """A dense tensor of this element type as an array, which shares its memory where it can; types that NumPy lacks are
    those of ml_dtypes."""
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    carrier = _carrier_of(dtype)
    return dense.numpy() if carrier is None else dense.view(getattr(torch, carrier)).numpy().view(dtype.numpy)


def to_tensor(array: Any, dtype: DType) -> torch.Tensor:
    """An array of this element type as a tensor, which shares its memory where that is in order and may be written."""
    theirs, shape = getattr(torch, dtype.numpy_name), np.shape(array)
    if 0 in shape:
        return torch.empty(shape, dtype=theirs)  # NumPy's strides of empty arrays are not PyTorch's
    array = np.ascontiguousarray(array).reshape(shape)  # which would give a scalar an axis
    is_aligned = dtype.name != "c128" or array.ctypes.data % 16 == 0  # NumPy needs 8 bytes, PyTorch 16
    array = array if array.flags.writeable and is_aligned else array.copy()
    carrier = _carrier_of(dtype)
    if carrier is not None:
        return torch.from_numpy(array.view(carrier)).view(theirs)
    # Of NumPy's two types of 64-bit integers PyTorch takes one; ONNX Runtime gives the other.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False).view(array.dtype.name))


def _carrier_of(dtype: DType) -> str | None:
    """The integers as which elements pass where NumPy itself knows neither bf16 nor 8-bit floats; None elsewhere."""
    is_narrow = dtype.is_float and dtype.bits <= 16 and dtype.name != "f16"
    return f"uint{dtype.bits}" if is_narrow else None
