"""ONNX Runtime on PyTorch's memory: the tensors of a run are bound to its session, not copied or converted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from irc import dims
from irc.dims import Dim, Symbol
from irc.driver.running import as_backend_failed
from irc.driver.size_assertions import SizeAssertions
from irc.frontends.torch.reading import TORCH_DTYPES
from irc.frontends.torch.tensors import to_tensor
from irc.ir import Function, Value

SHAPES_KEPT = 64  # of results, for so many combinations of sizes
SCRATCH = torch.empty(64, dtype=torch.uint8)  # the address of tensors without elements: ONNX Runtime rejects null


class BoundProgram:
    """A function in a session of ONNX Runtime, which is None where there is nothing to compute: from tensors, in the
    order of the function's arguments, to tensors of its results.

    Arguments are read where they lie, unless their memory is not contiguous. A result that is an argument is that
    tensor. Where the shape of another follows from the arguments' shapes, ONNX Runtime writes into memory that PyTorch
    allocates. It may be called from several threads. Raises `backend.failed` with ONNX Runtime's message, and
    `run.assert` where sizes break an assertion.
    """

    def __init__(self, main: Function, session: Any) -> None:
        self.main = main
        self.assertions = SizeAssertions(main)
        self.session = session
        self.names = [argument.name for argument in self.main.arguments]
        self.types = [_element_type(argument) for argument in self.main.arguments]
        self.dtypes = [TORCH_DTYPES[argument.dtype] for argument in self.main.arguments]
        self.sources = _sources_of_symbols(self.main.arguments)
        self.results = [(name, _element_type(value), TORCH_DTYPES[value.dtype], value)
                        for name, value in zip(self.main.output_names, self.main.returned, strict=True)]  # fmt: skip
        places = {argument: position for position, argument in enumerate(self.main.arguments)}
        self.passed = [(position, places[value])  # results that are arguments
                       for position, value in enumerate(self.main.returned) if value in places]  # fmt: skip
        self._shapes: dict[tuple[int, ...], list[tuple[int, ...] | None]] = {}
        self._local = threading.local()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self.session is None:
            return []
        if self.assertions.operations:
            sizes = {symbol: tensors[position].shape[axis] for symbol, (position, axis) in self.sources.items()}
            self.assertions.check(sizes, tensors)
        given = self.run([tensor.detach().cpu().contiguous() for tensor in tensors], self.shapes_for(tensors),
                         [tensor.shape for tensor in tensors])  # fmt: skip
        for position, argument in self.passed:
            given[position] = tensors[argument].detach()
        return given

    def run(self, tensors: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...] | None],
            given_shapes: Sequence[torch.Size]) -> list[torch.Tensor]:  # fmt: skip
        """The results for tensors of `given_shapes` that are contiguous and on the processor; `shapes` are those of
        `shapes_for`."""
        try:
            binding, bound = self._local.binding
        except AttributeError:  # the first call of this thread
            assert self.session is not None
            binding, bound = self._local.binding = self.session.io_binding(), [None] * len(self.names)
        for position, tensor in enumerate(tensors):
            place = tensor.data_ptr(), given_shapes[position]
            if bound[position] != place:
                binding.bind_input(self.names[position], "cpu", 0, self.types[position], tuple(place[1]),
                                   place[0] or SCRATCH.data_ptr())
                bound[position] = place
        given: list[Any] = []
        for (name, element_type, dtype, _), shape in zip(self.results, shapes):  # noqa: B905 - a call costs microseconds
            if shape is None:
                binding.bind_output(name, "cpu")
                given.append(None)
            else:
                result = torch.empty(shape, dtype=dtype)
                binding.bind_output(name, "cpu", 0, element_type, shape, result.data_ptr() or SCRATCH.data_ptr())
                given.append(result)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:
            with as_backend_failed():
                raise error
        if None in shapes:
            given = [_fetched(value, result) if tensor is None else tensor for tensor, value, result
                     in zip(given, binding.get_outputs(), self.results, strict=True)]  # fmt: skip
        return given

    def accepts(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether tensors have the types that the function states; False also where a dim is an expression."""
        sizes: dict[Symbol, int] = {}
        for tensor, dtype, argument in zip(tensors, self.dtypes, self.main.arguments, strict=True):
            if tensor.dtype is not dtype or tensor.dim() != argument.rank:
                return False
            for size, stated in zip(tensor.shape, argument.shape, strict=True):
                symbol = dims.sole_symbol(stated)
                if symbol is None:
                    fits = size == stated
                else:
                    fits = sizes.setdefault(symbol, size) == size and _is_allowed(symbol, size)
                if not fits:
                    return False
        return True

    def shapes_for(self, tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...] | None]:
        """The shapes of the results, each None where it is not known before the run."""
        sizes = tuple(tensors[position].shape[axis] for position, axis in self.sources.values())
        shapes = self._shapes.get(sizes)
        if shapes is None:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            environment = dict(zip(self.sources, sizes, strict=True))
            shapes = self._shapes[sizes] = [_shape_at(value, environment) for *_, value in self.results]
        return shapes


def _is_allowed(symbol: Symbol, size: int) -> bool:
    return symbol.low <= size <= symbol.high and size % symbol.multiple == 0


def _element_type(value: Value) -> Any:
    """How ONNX Runtime knows the element type of a tensor: by NumPy's type, or else by ONNX's number."""
    import numpy as np

    has_numpy = hasattr(np, value.dtype.numpy_name)
    return value.dtype.numpy if has_numpy else int(value.dtype.onnx)


def _sources_of_symbols(arguments: Sequence[Value]) -> dict[Symbol, tuple[int, int]]:
    """For each symbol that is a dim of an argument, the first such: which argument, and which axis."""
    sources: dict[Symbol, tuple[int, int]] = {}
    for position, argument in enumerate(arguments):
        for axis, dim in enumerate(argument.shape):
            symbol = dims.sole_symbol(dim)
            if symbol is not None:
                sources.setdefault(symbol, (position, axis))
    return sources


def _shape_at(value: Value, environment: dict[Symbol, int]) -> tuple[int, ...] | None:
    def size(dim: Dim) -> int:
        return dims.evaluate(dim, environment)

    if value.operation is None:  # ONNX Runtime gives the argument itself, and writes nothing
        return None
    known = all(symbol in environment for dim in value.shape for symbol in dims.free_symbols(dim))
    return tuple(map(size, value.shape)) if known else None


def _fetched(value: Any, result: Any) -> torch.Tensor:
    """A result in memory of ONNX Runtime as a tensor."""
    _, element_type, dtype, stated = result
    if isinstance(element_type, int):
        tensor: torch.Tensor = torch.from_dlpack(value)
        return tensor.view(dtype)
    return to_tensor(value.numpy(), stated.dtype)
