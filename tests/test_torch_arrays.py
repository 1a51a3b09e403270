"""Tensors of PyTorch as arrays and back: every element type that both have, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from irc import dtypes
from irc.backends.triton.templates import runtime
from irc.dtypes import DType
from irc.torch_arrays import array_of, to_tensor
from irc.weights import Tensor, save

WHOLE = [dtype for dtype in dtypes.ALL if hasattr(torch, dtype.numpy_name) and dtype.bits >= 8]


def random_array(dtype: DType, shape: tuple[int, ...]) -> Any:
    """Of any bits, NaN among them."""
    draw = np.random.default_rng(0)
    if dtype.kind == "bool":
        return np.asarray(draw.integers(2, size=shape), bool)
    data = draw.integers(256, size=(*shape, dtype.itemsize), dtype=np.uint8)
    return data.view(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_elements_keep_their_bits(dtype: DType, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, shape)
    constant = array.copy()
    constant.flags.writeable = False
    for given in (array, constant, array.T.copy().T, array[..., ::-1][..., ::-1] if shape else array):
        tensor = to_tensor(given, dtype)
        assert tensor.dtype == getattr(torch, dtype.numpy_name) and tensor.shape == shape
        again = array_of(tensor, dtype)
        assert again.dtype == dtype.numpy and again.shape == shape and again.tobytes() == array.tobytes()
    tensor = to_tensor(constant, dtype)
    tensor.view(torch.uint8).fill_(1) if shape else tensor.fill_(1)
    assert constant.tobytes() == array.tobytes()


def test_what_lies_in_memory_otherwise() -> None:
    """Numbers of the other byte order, and tensors that PyTorch negates or conjugates as it reads them."""
    swapped = np.arange(4).astype(np.dtype(np.int64).newbyteorder())
    assert to_tensor(swapped, dtypes.I64).tolist() == [0, 1, 2, 3]
    z = torch.tensor([1 + 2j, 3 - 4j], requires_grad=True)
    assert array_of(z.conj(), dtypes.C64).tolist() == [1 - 2j, 3 + 4j]
    assert array_of(z.conj().imag, dtypes.F32).tolist() == [-2, 4]


def test_complex_numbers_of_128_bits_lie_where_pytorch_can_load_them(tmp_path: Path) -> None:
    """PyTorch's instructions need multiples of 16 bytes, NumPy's 8: a process ended with a signal."""
    data = np.zeros(16 * 5, np.uint8)
    for start in (0, 8):
        array = data[start:start + 64].view(np.complex128)
        for tensor in (to_tensor(array, dtypes.C128), torch.from_numpy(runtime._native(array))):
            assert tensor.data_ptr() % 16 == 0
    # The second and third are 8 bytes apart from a multiple of 16, or the first is.
    saved = {name: Tensor.of(np.ones(count)) for name, count in (("a", 3), ("b", 2), ("c", 4))}
    save(tmp_path / "weights.safetensors", saved)
    stored = runtime.read_weights(tmp_path)
    assert all(tensor.data_ptr() % 16 == 0 and tensor.dtype is torch.float64 for tensor in stored.values())
    assert torch.equal(torch.view_as_complex(stored["b"]) * 2, torch.tensor(2 + 2j, dtype=torch.complex128))
