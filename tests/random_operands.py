"""Random operands and attributes for the primitives that run as host calls: any rank, extents of 0 and 1, indices that
repeat and that count from the end, every element type.

    maker = Operands(seed, dtypes)
    arrays, attributes = maker.of("scatter")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irc import dtypes
from irc.dtypes import DType, by_name
from tests.primitive_samples import values

Array = NDArray[Any]
Sample = tuple[list[Array], dict[str, Any]]
EXTENTS = (0, 1, 1, 2, 3, 4, 5, 7)
INDICES = tuple(map(by_name, ("i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64")))


class Operands:
    """Makes samples; `elements` are the names of the element types to draw from."""

    def __init__(self, seed: int, elements: Sequence[str]) -> None:
        self.random = np.random.default_rng(seed)
        self.any = [by_name(name) for name in elements]
        self.reals = [dtype for dtype in self.any if dtype.is_float or dtype.is_integer]
        self.integers = [dtype for dtype in self.any if dtype.is_integer]
        self.numbers = [dtype for dtype in self.any if dtype is not dtypes.BOOL]

    def of(self, name: str) -> Sample:
        """Operands and attributes of the primitive of this name."""
        sample: Sample = getattr(self, f"_{name}")()
        return sample

    # -- parts -------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.integers(len(options)))]

    def upto(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def flag(self) -> bool:
        return bool(self.random.random() < 0.5)

    def shape(self, least: int = 0, most: int = 4) -> tuple[int, ...]:
        return tuple(self.pick(EXTENTS) for _ in range(self.upto(least, most)))

    def array(self, dtype: DType, shape: Sequence[int], special: bool = True) -> Array:
        return values(self.random, dtype, tuple(shape), special)

    def indices(self, extent: int, shape: Sequence[int]) -> Array:
        dtype = self.pick(INDICES)
        low = 0 if dtype.kind == "uint" else -extent
        indices = self.random.integers(low, max(extent, low + 1), shape) if extent else np.zeros(shape)
        return indices.astype(dtype.numpy)

    def axis(self, rank: int) -> int:
        return self.upto(-rank, rank - 1)

    def each(self, shape: Sequence[int], low: int, high: int) -> tuple[int, ...]:
        return tuple(self.upto(low, high) for _ in shape)

    # -- primitives --------------------------------------------------------------------------------------------

    def _pad(self) -> Sample:
        shape, mode, dtype = self.shape(), self.pick(["constant", "edge", "reflect", "wrap"]), self.pick(self.any)
        value = [self.array(dtype, ())] if mode == "constant" and self.flag() else []
        return [self.array(dtype, shape), *value], {
            "low": self.each(shape, 0, 3), "high": self.each(shape, 0, 3), "mode": mode
        }  # fmt: skip

    def _slice(self) -> Sample:
        shape = self.shape()
        starts = tuple(self.upto(0, extent) for extent in shape)
        stops = tuple(self.upto(start, extent) for start, extent in zip(starts, shape, strict=True))
        attributes = {"starts": starts, "stops": stops, "steps": self.each(shape, 1, 3)}
        return [self.array(self.pick(self.any), shape)], attributes

    def _concat(self) -> Sample:
        shape, dtype = list(self.shape(1)), self.pick(self.any)
        axis, parts = self.axis(len(shape)), []
        for _ in range(self.upto(1, 3)):
            shape[axis] = self.pick(EXTENTS)
            parts.append(self.array(dtype, shape))
        return parts, {"axis": axis}

    def _split(self) -> Sample:
        shape, sizes = list(self.shape(1)), tuple(self.pick(EXTENTS) for _ in range(self.upto(1, 3)))
        axis = self.axis(len(shape))
        shape[axis] = sum(sizes)
        return [self.array(self.pick(self.any), shape)], {"axis": axis, "sizes": sizes}

    def _reverse(self) -> Sample:
        shape = self.shape()
        return [self.array(self.pick(self.any), shape)], {"axes": tuple(a for a in range(len(shape)) if self.flag())}

    def _gather(self) -> Sample:
        shape = self.shape(1)
        axis = self.axis(len(shape))
        return [self.array(self.pick(self.any), shape), self.indices(shape[axis], self.shape(0, 2))], {"axis": axis}

    def _gather_elements(self) -> Sample:
        shape = self.shape(1)
        axis = self.axis(len(shape))
        counts = [self.upto(0, extent) for extent in shape]
        counts[axis] = self.upto(0, 6)
        return [self.array(self.pick(self.any), shape), self.indices(shape[axis], counts)], {"axis": axis}

    def _reduction(self, dtype: DType) -> str:
        return str(self.pick(["none", "none", "add", "mul", *([] if dtype.is_complex else ["max", "min"])]))

    def _scatter(self) -> Sample:
        shape, front, dtype = self.shape(1), self.shape(0, 2), self.pick(self.any)
        depth = self.upto(0, len(shape))
        vectors = [self.indices(extent, front).astype(np.int64) for extent in shape[:depth]]
        where = np.stack(vectors, -1) if vectors else np.zeros((*front, 0), np.int64)
        updates = self.array(dtype, (*front, *shape[depth:]))
        return [self.array(dtype, shape), where, updates], {"reduction": self._reduction(dtype)}

    def _scatter_elements(self) -> Sample:
        (x, places), attributes = self._gather_elements()
        dtype = dtypes.from_numpy(x.dtype)
        attributes["reduction"] = self._reduction(dtype)
        return [x, places, self.array(dtype, places.shape)], attributes

    def _reduce(self, also: Sequence[DType], special: bool) -> Sample:
        shape = self.shape()
        axes = tuple(axis - self.flag() * len(shape) for axis in range(len(shape)) if self.flag())
        dtype = self.pick([*self.reals, *also])
        return [self.array(dtype, shape, special or dtype.is_integer)], {"axes": axes, "keep_dims": self.flag()}

    def _reduce_sum(self) -> Sample:
        return self._reduce([dtypes.C64], special=False)

    _reduce_prod = _reduce_sum

    def _reduce_max(self) -> Sample:
        return self._reduce([dtypes.BOOL], special=True)

    _reduce_min = _reduce_max

    def _argmax(self) -> Sample:
        shape = self.shape(1)
        attributes = {"axis": self.axis(len(shape)), "keep_dims": self.flag(), "select_last": self.flag()}
        return [self.array(self.pick([*self.reals, dtypes.BOOL]), shape)], attributes

    _argmin = _argmax

    def _scan(self) -> Sample:
        shape, kind, dtype = self.shape(1), self.pick(["sum", "prod", "max", "min"]), self.pick(self.reals)
        x = self.array(dtype, shape, special=kind in ("max", "min") or dtype.is_integer)
        return [x], {
            "kind": kind, "axis": self.axis(len(shape)), "reverse": self.flag(), "exclusive": self.flag()
        }  # fmt: skip

    def _sort(self) -> Sample:
        shape = self.shape(1)
        return [self.array(self.pick(self.reals), shape)], {"axis": self.axis(len(shape)), "descending": self.flag()}

    def _window_reduce(self) -> Sample:
        shape, kind, dtype = self.shape(), self.pick(["max", "sum"]), self.pick(self.reals)
        return [self.array(dtype, shape, kind == "max" or dtype.is_integer)], {
            "kind": kind, "window": self.each(shape, 1, 3), "strides": self.each(shape, 1, 3),
            "dilations": self.each(shape, 1, 2), "low": self.each(shape, 0, 2), "high": self.each(shape, 0, 2),
        }  # fmt: skip

    def _dot(self) -> Sample:
        batch, contract, left, right = (self.shape(0, 2) for _ in range(4))
        shapes = [(*batch, *contract, *left), (*batch, *contract, *right)]
        orders = [self.random.permutation(len(shape)) for shape in shapes]
        places = [np.argsort(order).tolist() for order in orders]
        pairs = list(zip(*(place[: len(batch) + len(contract)] for place in places), strict=True))
        dtype = self.pick(self.numbers)
        operands = [self.array(dtype, [shape[i] for i in order], dtype.is_integer)
                    for shape, order in zip(shapes, orders, strict=True)]  # fmt: skip
        return operands, {"batch": tuple(pairs[: len(batch)]), "contract": tuple(pairs[len(batch) :])}

    def _convolution(self, is_transposed: bool) -> Sample:
        axes, dtype, groups = range(self.upto(0, 4)), self.pick(self.numbers), self.pick([1, 1, 2, 3])
        inner, outer = self.upto(0, 3), self.upto(1, 3)
        kernel, bias = self.each(axes, 1, 3), [outer * groups] if self.flag() else None
        shape = (self.upto(0, 2), inner * groups, *(self.upto(0 if self.flag() else 1, 6) for _ in axes))
        weight = (inner * groups, outer, *kernel) if is_transposed else (outer * groups, inner, *kernel)
        low = self.each(axes, 0, 2)
        attributes = {
            "strides": self.each(axes, 1, 3), "dilations": self.each(axes, 1, 2), "low": low,
            "high": low if self.flag() else self.each(axes, 0, 2), "groups": groups,
        }  # fmt: skip
        if is_transposed:
            attributes["output_padding"] = self.each(axes, 0, 2)
        return [self.array(dtype, each, dtype.is_integer) for each in (shape, weight, bias) if each], attributes

    def _conv(self) -> Sample:
        return self._convolution(is_transposed=False)

    def _conv_transpose(self) -> Sample:
        return self._convolution(is_transposed=True)

    def _extreme(self, operands: int, **attributes: Any) -> Sample:
        """Integers at the ends of their range and in the middle of it."""
        dtype = self.pick(self.integers)
        low, high = (int(limit) for limit in dtypes.limits(dtype))
        near = [low, low + 1, high, high - 1, high // 2, high // 2 + 1, high // 3, 0, 1, 2, 3, 7, 63, 64, 65]
        inside = [number for number in near if low <= number <= high]
        return [np.array([self.pick(inside) for _ in range(9)], dtype.numpy) for _ in range(operands)], attributes

    def _div(self) -> Sample:
        return self._extreme(2, rounding=self.pick(["floor", "trunc"]), by_zero=self.pick([None, None, "error"]))

    _mod = _div

    def _pow(self) -> Sample:
        return self._extreme(2)

    _add = _sub = _mul = _shift_left = _shift_right = _less = _greater_equal = _maximum = _minimum = _pow

    def _sign(self) -> Sample:
        return self._extreme(1)

    _neg = _abs = _bitwise_not = _sign


NAMES = tuple(name[1:] for name in vars(Operands) if name[0] == "_" and name[1] != "_" and name not in (
    "_reduction", "_reduce", "_convolution", "_extreme"))  # fmt: skip
