"""What a kernel's scalar DAG means, evaluated with NumPy over its whole space: no tiles, no Triton.

    kernel = derive(members)
    evaluate(kernel, {"x": array}, sizes)      # {name of an output: array}

Checked on the way: where its guards hold, each load and each store stays in its buffer; each element of an output
is written, and written once. Masked loads give NaN or the least integer, so that one that matters is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from irc import dims, ops
from irc.dims import Dim, Indirect, Symbol
from irc.index_map import Guards
from irc.interfaces import identity
from irc.kernel import Kernel
from irc.kernel.dag import Apply, Constant, Dot, Index, Load, Node, Reduce, Scan, Select

REDUCERS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def evaluate(kernel: Kernel, inputs: Mapping[str, np.ndarray], sizes: Mapping[Symbol, int]) -> dict[str, np.ndarray]:
    """The outputs of one launch, by name, in the types in which they are stored."""
    with np.errstate(all="ignore"):
        return _Evaluation(kernel, inputs, sizes).outputs()


class _Evaluation:
    def __init__(self, kernel: Kernel, inputs: Mapping[str, np.ndarray], sizes: Mapping[Symbol, int]) -> None:
        self.kernel, self.inputs = kernel, inputs
        self.axes = [*kernel.parallel, *kernel.bound, *kernel.across]
        if kernel.online is not None and kernel.online.scores is not None:
            self.axes += kernel.online.scores.bound
        self.sizes = dict(sizes)
        self.shape = tuple(dims.evaluate(axis.extent, sizes) for axis in self.axes)
        self.arrays: dict[Any, Any] = dict(sizes)
        for position, (axis, extent) in enumerate(zip(self.axes, self.shape, strict=True)):
            shape = [1] * len(self.axes)
            shape[position] = extent
            self.arrays[axis] = np.arange(extent, dtype=np.int64).reshape(shape)
        self.values: dict[Node, np.ndarray] = {}

    def outputs(self) -> dict[str, np.ndarray]:
        for node in self.kernel.nodes:
            value = np.asarray(self._value(node)).astype(node.dtype.numpy, copy=False)
            self.values[node] = np.broadcast_to(value, np.broadcast_shapes(value.shape, (1,) * len(self.axes)))
        for check in self.kernel.checks:
            mask, holds = np.broadcast_arrays(self._mask(check.guards), self.values[check.node])
            space = np.broadcast_shapes(mask.shape, *(self._extent(axis) for axis in check.axes))
            if not (np.broadcast_to(holds, space) | ~np.broadcast_to(mask, space)).all():
                raise ValueError(check.message)
        shapes = {store.buffer: [dims.evaluate(extent, self.sizes) for extent in store.buffer.shape]
                  for store in self.kernel.stores}  # fmt: skip
        results = {buffer: np.zeros(int(np.prod(shape)), buffer.dtype.numpy) for buffer, shape in shapes.items()}
        written = {buffer: np.zeros(result.size, np.int64) for buffer, result in results.items()}
        for store in self.kernel.stores:
            result = results[store.buffer]
            mask, places = self._access(store.index, store.guards, result.size)
            # Lanes: every point of the grid, and of the columns for what varies over one of them.
            reduced = (axes for axes in (self.kernel.bound, self.kernel.across) if store.axes & set(axes))
            lanes = [*self.kernel.parallel, *chain.from_iterable(reduced)]
            space = np.broadcast_shapes(mask.shape, *(self._extent(axis) for axis in lanes))
            mask, places = np.broadcast_to(mask, space), np.broadcast_to(places, space)
            written[store.buffer] += np.bincount(places[mask], minlength=result.size)
            result[places[mask]] = np.broadcast_to(self.values[store.node], space)[mask].astype(result.dtype)
        for buffer, times in written.items():
            assert (times == 1).all(), f"%{buffer.name}: elements are written {set(times)} times"
        return {buffer.name: result.reshape(shapes[buffer]) for buffer, result in results.items()}

    def _extent(self, axis: Any) -> tuple[int, ...]:
        return self.arrays[axis].shape  # type: ignore[no-any-return]

    def _index(self, index: Dim) -> np.ndarray:
        for atom in dims.free_atoms(index):
            if isinstance(atom, Indirect):
                assert isinstance(atom.node, Node)
                self.arrays[atom] = self.values[atom.node].astype(np.int64)
        points = np.broadcast_shapes(*(np.shape(self.arrays[atom]) for atom in dims.free_atoms(index)))
        if 0 in points:  # a divisor may be 0 where there is no point to divide at
            return np.zeros(points, np.int64)
        return np.asarray(dims.evaluate_array(index, self.arrays))

    def _mask(self, guards: Guards) -> np.ndarray:
        mask = np.ones((1,) * len(self.axes), bool)
        for guard in guards:
            index = self._index(guard.index)
            mask = mask & (0 <= index) & (index < dims.evaluate(guard.extent, self.sizes))
        return mask

    def _access(self, address: Dim, guards: Guards, size: int) -> tuple[np.ndarray, np.ndarray]:
        mask, places = np.broadcast_arrays(self._mask(guards), self._index(address))
        inside = (0 <= places) & (places < size)
        assert (inside | ~mask).all(), f"{address} leaves its buffer of {size}"
        return mask, np.where(mask, places, 0)

    def _value(self, node: Node) -> Any:
        operands = [self.values[operand] for operand in node.operands]
        if isinstance(node, Load):
            return self._load(node)
        if isinstance(node, Constant):
            return node.value
        if isinstance(node, Index):
            return self._index(node.index)
        if isinstance(node, Select):
            return np.where(self._mask(node.guards), operands[0], operands[1])
        if isinstance(node, Reduce):
            positions = tuple(self.axes.index(axis) for axis in node.bound)
            space = np.broadcast_shapes(operands[0].shape, *(self._extent(axis) for axis in node.bound))
            body = np.broadcast_to(operands[0], space)
            nothing = identity(node.kind, node.dtype)
            return REDUCERS[node.kind].reduce(body, axis=positions, keepdims=True, initial=nothing)
        if isinstance(node, Scan):
            (axis,) = node.bound
            place = self.axes.index(axis)
            body = np.broadcast_to(operands[0], np.broadcast_shapes(np.shape(operands[0]), self._extent(axis)))
            flags = {"reverse": node.reverse, "exclusive": node.exclusive}
            return ops.scan.evaluate([body], {"kind": node.kind, "axis": place, **flags})[0]
        if isinstance(node, Dot):
            positions = tuple(self.axes.index(axis) for axis in node.bound)
            first, second = (operand.astype(node.fed.numpy).astype(np.float64) for operand in operands)
            return np.sum(first * second, axis=positions, keepdims=True)
        assert isinstance(node, Apply)
        return ops.lookup(node.name).evaluate(operands, dict(node.attributes))[0]

    def _load(self, load: Load) -> np.ndarray:
        buffer = np.asarray(self.inputs[load.buffer.name]).reshape(-1)
        mask, places = self._access(load.index, load.guards, buffer.size)
        held = buffer.astype(load.dtype.numpy)
        poison: Any = np.nan if load.dtype.is_float else load.dtype.name == "bool" or np.iinfo(held.dtype).min
        return np.where(mask, held[places] if held.size else poison, poison)
