"""Calls of compiled programs that take tensors by position and give new ones: without the work of the general way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from irc.driver.onnx_binding import BoundProgram

# Looked up once: a call costs microseconds.
TENSOR, PARAMETER, STRIDED = torch.Tensor, torch.nn.Parameter, torch.strided


class PlainCalls:
    """Runs a `BoundProgram` on dense, contiguous tensors of the processor whose shapes it has seen to fit.

    For all other arguments the call gives NotImplemented: the general way takes them, or says what is wrong.
    """

    def __init__(self, program: BoundProgram) -> None:
        self._program = program
        self._dtypes, self._fits = tuple(program.dtypes), program.fits

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """The results in order, or NotImplemented."""
        if len(tensors) != len(self._dtypes):
            return NotImplemented
        given = []
        for tensor, dtype in zip(tensors, self._dtypes):  # noqa: B905 - they are as many
            kind = type(tensor)
            if (kind is not TENSOR and kind is not PARAMETER) or tensor.dtype is not dtype or not _is_plain(tensor):
                return NotImplemented
            given.append(tensor.shape)
        shapes = tuple(given)
        fit = self._fits.get(shapes) or self._program.fit(tensors)
        return NotImplemented if fit is None or not fit.is_plain else self._program.run(tensors, fit, shapes)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is dense, on the processor, and lies in memory as it is indexed."""
    return (
        tensor.layout is STRIDED
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_nested
        and not tensor.is_neg()
        and not tensor.is_conj()
        and not is_functorch_wrapped_tensor(tensor)
    )
