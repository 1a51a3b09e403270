"""Calls of compiled programs that take tensors by position and give new ones: without the work of the general way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from irc.driver.onnx_binding import BoundProgram

SHAPES_KEPT = 64  # combinations of arguments' shapes
TENSOR, STRIDED = torch.Tensor, torch.strided  # looked up once: a call costs microseconds


class PlainCalls:
    """Runs a `BoundProgram` on dense, contiguous tensors of the processor whose shapes it has seen to fit.

    For all other arguments the call gives NotImplemented: the general way takes them, or says what is wrong.
    """

    def __init__(self, program: BoundProgram) -> None:
        self._program = program
        self._dtypes = tuple(program.dtypes)
        self._known: dict[tuple[torch.Size, ...], list[tuple[int, ...]]] = {}  # shapes of results by those of arguments

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """The results in order, or NotImplemented."""
        if len(tensors) != len(self._dtypes):
            return NotImplemented
        given = []
        for tensor, dtype in zip(tensors, self._dtypes):  # noqa: B905 - they are as many
            if type(tensor) is not TENSOR or tensor.dtype is not dtype or not _is_plain(tensor):
                return NotImplemented
            given.append(tensor.shape)
        shapes = tuple(given)
        results = self._known.get(shapes)
        if results is None:
            results = self._results_of(tensors)
            if results is None:
                return NotImplemented
            if len(self._known) >= SHAPES_KEPT:
                self._known.clear()
            self._known[shapes] = results
        return self._program.run(tensors, results, shapes)

    def _results_of(self, tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]] | None:
        """The shapes of the results; None where the arguments' do not fit, what the program asserts has to be checked,
        or these are not known before the run."""
        if self._program.session is None or self._program.assertions.operations or not self._program.accepts(tensors):
            return None
        shapes = self._program.shapes_for(tensors) or []
        known = [shape for shape in shapes if shape is not None]
        return known if len(known) == len(shapes) else None


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
