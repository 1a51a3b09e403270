"""ONNX Runtime on PyTorch's memory: arguments and results of a run are bound to its session, not converted. Results of
at most `SMALL` bytes are copied from memory that stays bound."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from irc import dims
from irc.diagnostics import IrcError
from irc.dims import Dim, Symbol
from irc.driver.running import as_backend_failed
from irc.driver.size_assertions import SizeAssertions
from irc.dtypes import part_of
from irc.frontends.torch.reading import TORCH_DTYPES
from irc.interpreter import check_inputs
from irc.ir import Function, Value
from irc.torch_arrays import array_of, to_tensor

SHAPES_KEPT = 64  # combinations of arguments' shapes
SMALL = 16384  # bytes of a result up to which copying it takes less time than binding new memory
CPU = torch.device("cpu")
SCRATCH = torch.empty(64, dtype=torch.uint8)  # the address of tensors without elements: ONNX Runtime rejects null


class Fit(NamedTuple):
    """Of arguments' shapes: the sizes that they give to the symbols, and the shapes of the results at these, each None
    where it is not known before the run, and whether each is small. It `is_plain` where all are known and no assertion
    is to be checked."""

    sizes: Mapping[Symbol, int]
    results: list[tuple[int, ...] | None]
    small: list[bool]
    is_plain: bool


@dataclass(slots=True)
class Bound:
    """What is bound to the session in one thread: the address and shape of each argument, and memory for the small
    results of one `fit`, which are copied from there after each run."""

    binding: Any
    arguments: list[tuple[int, torch.Size] | None]
    fit: Fit | None = None
    small: list[torch.Tensor | None] = field(default_factory=list)


class BoundProgram:
    """A function in a session of ONNX Runtime, which is None where there is nothing to compute: from tensors, in the
    order of the function's arguments, to tensors of its results.

    Arguments are read where they lie, unless their memory is not contiguous. A result that is an argument is that
    tensor. Where the shape of another follows from the arguments' shapes, ONNX Runtime writes into memory that PyTorch
    allocates, which is the result's, or stays bound in the thread where a copy takes less time. It may be called from
    several threads. Raises `backend.failed` with ONNX Runtime's message, and `run.assert` where sizes break an
    assertion.
    """

    def __init__(self, main: Function, session: Any) -> None:
        self.main = main
        self.assertions = SizeAssertions(main)
        self.session = session
        self.names = [argument.name for argument in self.main.arguments]
        self.types = [_element_type(argument) for argument in self.main.arguments]
        self.dtypes = [TORCH_DTYPES[argument.dtype] for argument in self.main.arguments]
        self.tails = [_tail(argument) for argument in self.main.arguments]
        self.results = [(name, _element_type(value), TORCH_DTYPES[value.dtype], _tail(value), value)
                        for name, value in zip(self.main.output_names, self.main.returned, strict=True)]  # fmt: skip
        places = {argument: position for position, argument in enumerate(self.main.arguments)}
        self.read = [(places[argument], argument) for argument in self.assertions.read]
        self.passed = [(position, places[value])  # results that are arguments
                       for position, value in enumerate(self.main.returned) if value in places]  # fmt: skip
        self.fits: dict[tuple[torch.Size, ...], Fit | None] = {}  # by the shapes of the arguments
        self._local = threading.local()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The results; the tensors are such as it `accepts`, without the conj or neg bit."""
        if self.session is None:
            return []
        fit = self.fit(tensors)
        assert fit is not None
        if self.assertions.operations:
            read = [array_of(tensors[position], argument.dtype) for position, argument in self.read]
            self.assertions.check(fit.sizes, read)
        given = self.run([tensor.detach().cpu().contiguous() for tensor in tensors], fit,
                         [tensor.shape for tensor in tensors])  # fmt: skip
        for position, argument in self.passed:
            given[position] = tensors[argument].detach()
        return given

    def run(self, tensors: Sequence[torch.Tensor], fit: Fit, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
        """The results for tensors that are contiguous and on the processor, of these shapes, which fit so."""
        try:
            bound = self._local.bound
        except AttributeError:  # the first call of this thread
            bound = self._local.bound = self._new_binding()
        binding, places = bound.binding, bound.arguments
        for position, tensor in enumerate(tensors):
            place = tensor.data_ptr(), shapes[position]
            if places[position] != place:
                places[position] = None  # until it is bound: an exception may come between
                binding.bind_input(self.names[position], "cpu", 0, self.types[position],
                                   (*place[1], *self.tails[position]), place[0] or SCRATCH.data_ptr())  # fmt: skip
                places[position] = place
        if bound.fit is not fit:
            bound.fit = None
            bound.small = [self._memory(binding, position, fit.results[position]) if is_small else None
                           for position, is_small in enumerate(fit.small)]  # fmt: skip
            bound.fit = fit
        given = [self._memory(binding, position, fit.results[position]) if small is None else small
                 for position, small in enumerate(bound.small)]  # fmt: skip
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:
            with as_backend_failed():
                raise error
        results = [result if small is None else small.clone()
                   for result, small in zip(given, bound.small)]  # noqa: B905 - a call costs microseconds
        if None in fit.results:
            results = [_fetched(value, stated) if result is None else result for result, value, stated
                       in zip(results, binding.get_outputs(), self.results, strict=True)]  # fmt: skip
        return results

    def _new_binding(self) -> Bound:
        """A binding that has all results in their order, in which it gives them."""
        assert self.session is not None
        binding = self.session.io_binding()
        for name, *_ in self.results:
            binding.bind_output(name, "cpu")
        return Bound(binding, [None] * len(self.names))

    def _memory(self, binding: Any, position: int, shape: tuple[int, ...] | None) -> Any:
        """New memory for a result of this shape, bound. Where the shape is not known, ONNX Runtime allocates: None."""
        name, element_type, dtype, tail, _ = self.results[position]
        if shape is None:
            binding.bind_output(name, "cpu")
            return None
        result = torch.empty(shape, dtype=dtype, device=CPU)
        binding.bind_output(name, "cpu", 0, element_type, shape + tail, result.data_ptr() or SCRATCH.data_ptr())
        return result

    def accepts(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether tensors have the types that the function states."""
        same = (tensor.dtype is dtype for tensor, dtype in zip(tensors, self.dtypes, strict=True))
        return all(same) and self.fit(tensors) is not None

    def fit(self, tensors: Sequence[torch.Tensor]) -> Fit | None:
        """How the shapes of arguments fit the function's, None where they do not; the last are kept."""
        shapes = tuple([tensor.shape for tensor in tensors])
        try:
            return self.fits[shapes]
        except KeyError:
            sizes = self._sizes(tensors)
        fit = None
        if sizes is not None:
            results = [_shape_at(value, sizes) for *_, value in self.results]
            small = [shape is not None and prod(shape) * dtype.itemsize <= SMALL
                     for shape, (_, _, dtype, _, _) in zip(results, self.results, strict=True)]  # fmt: skip
            is_plain = self.session is not None and not self.assertions.operations and None not in results
            fit = Fit(sizes, results, small, is_plain)
        if len(self.fits) >= SHAPES_KEPT:
            self.fits.clear()
        self.fits[shapes] = fit
        return fit

    def _sizes(self, tensors: Sequence[torch.Tensor]) -> dict[Symbol, int] | None:
        """The sizes that arguments give to the symbols, None where their shapes do not fit."""
        arrays = {}
        for argument, tensor in zip(self.main.arguments, tensors, strict=True):
            anything = np.empty((), argument.dtype.numpy)  # of the type that the function states, whatever the tensor's
            arrays[argument.name] = np.broadcast_to(anything, tuple(tensor.shape))
        try:
            return check_inputs(self.main, arrays)
        except IrcError:
            return None


def _element_type(value: Value) -> Any:
    """How ONNX Runtime knows the element type of a tensor: by NumPy's type, or else by ONNX's number."""
    dtype = part_of(value.dtype) if value.dtype.is_complex else value.dtype
    return dtype.numpy if hasattr(np, dtype.numpy_name) else int(dtype.onnx)


def _tail(value: Value) -> tuple[int, ...]:
    """The axis that a value has in ONNX in addition: complex numbers are pairs, which they are in memory, too."""
    return (2,) if value.dtype.is_complex else ()


def _shape_at(value: Value, environment: Mapping[Symbol, int]) -> tuple[int, ...] | None:
    def size(dim: Dim) -> int:
        return dims.evaluate(dim, environment)

    if value.operation is None:  # ONNX Runtime gives the argument itself, and writes nothing
        return None
    known = all(symbol in environment for dim in value.shape for symbol in dims.free_symbols(dim))
    return tuple(map(size, value.shape)) if known else None


def _fetched(value: Any, result: Any) -> torch.Tensor:
    """A result in memory of ONNX Runtime as a tensor."""
    _, element_type, dtype, tail, stated = result
    if isinstance(element_type, int):
        tensor: torch.Tensor = torch.from_dlpack(value)
        return tensor.view(dtype)
    return to_tensor(value.numpy().view(stated.dtype.numpy)[..., 0] if tail else value.numpy(), stated.dtype)
