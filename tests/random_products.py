"""Random graphs with products: matrix products, convolutions, pooling, and attention as an operation and written out,
of ragged sizes, with operands that are transposed, strided, broadcast, padded and joined by the steps around them.

    @given(graphs(PRODUCTS))
    def check(graph): ...
"""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
from hypothesis import strategies as st

from irc import dims, dtypes, ops
from irc.dims import Dim
from irc.dtypes import DType
from irc.ir import Value
from irc.op import const
from irc.weights import Tensor
from tests.random_graphs import Family, Steps

EXTENTS = (1, 3, 17, 100, 257)
FLOATS = (dtypes.F32, dtypes.F16, dtypes.BF16)
LARGEST_PRODUCT = 1 << 21  # multiplications
BOUNDED = ("neg", "abs", "relu", "tanh", "sigmoid", "gelu", "silu", "sin")


class ProductSteps(Steps):
    """Steps of which some multiply; results of products are scaled to the size of their operands."""

    def _integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def _constant(self, shape: tuple[int, ...], dtype: DType) -> Value:
        """Normal numbers, as a whole tensor or as what a view reads of a larger one."""
        numbers = np.random.default_rng(self._integer(0, 9)).standard_normal
        form = self._one_of(["whole", "whole", "transposed", "strided"])
        if form == "transposed" and len(shape) > 1:
            stored = const(value=Tensor.of(numbers((*shape[:-2], shape[-1], shape[-2])), dtype))
            return transposed(stored)
        if form == "strided" and shape:
            stored = const(value=Tensor.of(numbers((*shape[:-1], 2 * shape[-1] + 1)), dtype))
            starts, steps = (*(0,) * (len(shape) - 1), 1), (*(1,) * (len(shape) - 1), 2)
            return ops.slice_(stored, starts=starts, stops=stored.shape, steps=steps)
        return const(value=Tensor.of(numbers(shape), dtype))

    def _operand(self, x: Value, pool: list[Value], ranks: range = range(1, 6), axis: int = -1) -> Value | None:
        """x, or else the newest value that is of floats, of such a rank, and has a known extent along the axis."""
        for y in (x, *reversed(pool)):
            if y.rank in ranks and y.dtype.is_float and is_static(y.shape[axis]) and y.shape[axis] != 0:
                return y
        return None

    def _largest(self, shape: tuple[Dim, ...]) -> int:
        return prod(dims.bounds(extent)[1] or 1 for extent in shape)

    def _extent(self, shape: tuple[Dim, ...]) -> int:
        """An extent by which a product of this shape is no larger than what may be interpreted."""
        fitting = [extent for extent in EXTENTS if self._largest(shape) * extent <= LARGEST_PRODUCT]
        return int(self._one_of(fitting or [1]))

    def unary(self, x: Value, pool: list[Value]) -> Value:
        """By what does not grow, so that sums of many do not overflow."""
        return ops.TABLE[self._one_of(BOUNDED)](x) if x.dtype.is_float else ops.maximum(x, 2)

    def product(self, x: Value, pool: list[Value]) -> Value:
        """By a constant matrix, from the right or from the left."""
        is_left = self._draw(st.booleans())
        y = self._operand(x, pool, range(2, 6), -2) if is_left else self._operand(x, pool)
        if y is None:
            return x
        other, extent = self._extent(y.shape), y.shape[-2 if is_left else -1]
        if is_left:
            result = ops.matmul(self._constant((other, extent), y.dtype), y)
        else:
            result = ops.matmul(y, self._constant((extent, other), y.dtype))
        return ops.mul(result, 1 / sqrt(extent))

    def gate(self, x: Value, pool: list[Value]) -> Value:
        """Two products of one operand, multiplied."""
        y = self._operand(x, pool)
        if y is None:
            return x
        shape = (y.shape[-1], self._extent(y.shape))
        left, right = (ops.matmul(y, self._constant(shape, y.dtype)) for _ in range(2))
        return ops.mul(ops.silu(left), ops.mul(right, 1 / y.shape[-1]))

    def product_of_two(self, x: Value, pool: list[Value]) -> Value:
        """Of what the graph computes, over their last axes."""
        left = self._operand(x, pool, range(2, 6))
        if left is None:
            return x
        fitting = [right for right in pool if right.rank > 1 and right.dtype == left.dtype
                   and right.shape[-1] == left.shape[-1] and broadcast(left.shape[:-2], right.shape[:-2])
                   and self._largest(left.shape) * self._largest(right.shape[:-1]) <= LARGEST_PRODUCT]  # fmt: skip
        if not fitting:
            return x
        return ops.mul(ops.matmul(left, transposed(self._one_of(fitting))), 1 / sqrt(left.shape[-1]))

    def attend(self, x: Value, pool: list[Value]) -> Value:
        """Of rows of x to constant keys, or to the rows of x."""
        rows = self._operand(x, pool, range(2, 5))
        if rows is None:
            return x
        q = ops.reshape(rows, shape=(*(1,) * (4 - rows.rank), *rows.shape))
        batch, heads, queries, depth = q.shape
        if self._draw(st.booleans()) and self._largest(q.shape) * self._largest((queries,)) <= LARGEST_PRODUCT:
            k, v = q, ops.tanh(q)
        else:
            keys, width = self._extent((*q.shape, 2)), self._one_of([1, 3, 17])
            groups = self._one_of([1, heads]) if is_static(heads) and heads else 1
            k, v = (self._constant((1, groups, keys, extent), q.dtype) for extent in (depth, width))
            k, v = (ops.expand(y, shape=(batch, *y.shape[1:])) for y in (k, v))
        if is_static(heads) and heads and self._draw(st.booleans()):
            causal = self._draw(st.booleans())
            return ops.attention(q, k, v, causal=causal, masked_rows=self._one_of(["nan", "zero", "nan_as_zero"]))
        scores = ops.mul(ops.matmul(q, transposed(k)), 1 / sqrt(depth))
        return ops.matmul(ops.softmax(self._masked(scores), axis=-1), v)

    def _masked(self, scores: Value) -> Value:
        form = self._one_of(["plain", "cap", "bias", "causal", "window", "mask"])
        queries, keys = scores.shape[-2:]
        query, key = (ops.iota(shape=(queries, keys), axis=axis, dtype=dtypes.I64) for axis in (0, 1))
        if form == "cap":
            return ops.mul(ops.tanh(ops.mul(scores, 0.5)), 2.0)
        if form == "bias":
            return ops.add(scores, ops.mul(ops.cast(ops.sub(key, query), to=scores.dtype), -0.0625))
        if form == "causal":
            return ops.select(ops.less_equal(key, query), scores, -np.inf)
        if form == "window":
            near = ops.bitwise_and(ops.less_equal(key, query), ops.less(ops.sub(query, key), 5))
            return ops.select(near, scores, -np.inf)
        if form == "mask" and is_static(keys):
            visible = np.random.default_rng(self._integer(0, 9)).random(keys) < 0.8
            return ops.select(const(value=Tensor.of(visible)), scores, -np.inf)
        return scores

    def convolve(self, x: Value, pool: list[Value]) -> Value:
        """Channels are the second axis; the padding is at least what the window needs."""
        y = self._operand(x, pool, range(3, 5), 1)
        if y is None:
            return x
        channels, axes = y.shape[1], y.rank - 2
        groups = self._one_of([1, 1, channels])
        results = groups * self._integer(1, 2) if groups > 1 else self._one_of([1, 3, 17])
        kernel, strides, dilations = (tuple(self._one_of(each) for _ in range(axes))
                                      for each in ([1, 2, 3], [1, 1, 2], [1, 1, 2]))  # fmt: skip
        if self._largest(y.shape) * results * prod(kernel) // groups > LARGEST_PRODUCT:
            return x
        reach = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
        low = tuple(self._integer(0, each) for each in reach)
        high = tuple(each - part + self._integer(0, 1) for each, part in zip(reach, low, strict=True))
        weight = self._constant((results, channels // groups, *kernel), y.dtype)
        result = ops.conv(y, weight, strides=strides, dilations=dilations, low=low, high=high, groups=groups)
        return ops.mul(result, 1 / sqrt(channels // groups * prod(kernel)))

    def pool(self, x: Value, pool: list[Value]) -> Value:
        if not 3 <= x.rank <= 4 or not x.dtype.is_float:
            return x
        ones = (1,) * (x.rank - 2)
        strides = tuple(self._integer(1, 2) for _ in ones)
        return ops.max_pool(x, kernel=tuple(2 * each for each in ones), strides=strides, low=ones,
                            high=(0,) * len(ones), dilations=ones)  # fmt: skip


def is_static(extent: Dim) -> bool:
    return isinstance(extent, int)


def transposed(x: Value) -> Value:
    return ops.transpose(x, permutation=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def broadcast(left: tuple[Dim, ...], right: tuple[Dim, ...]) -> bool:
    """Whether two shapes are known to broadcast."""
    pairs = zip(reversed(left), reversed(right), strict=False)
    return all(1 in (a, b) or dims.equal(a, b) is True for a, b in pairs)


PRODUCTS = Family(
    ProductSteps,
    lowest_rank=2,
    often=(*["product"] * 10, *["gate", "product_of_two", "attend", "convolve"] * 8, *["pool", "transpose"] * 2,
           *["normalize", "unary", "binary"] * 3),
    floats=FLOATS,
    types=(*FLOATS, dtypes.I64),
    extents=("B", "S", "1", *map(str, EXTENTS[1:] * 2)),
    most_elements=30_000,
    length=(4, 9),
    cuts=("irc", "irc merged", "irc random", "auto", "host"),
)  # fmt: skip
