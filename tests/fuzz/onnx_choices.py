"""What steps of ONNX programs choose from: values, types, shapes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.fuzz import arrays as random_arrays
from tests.fuzz.arrays import bfloat16
from tests.fuzz.onnx_graph import Graph, Value
from tests.fuzz.steps import Reject, Steps, broadcast

FLOATS = (np.float32, np.float32, np.float32, np.float32, np.float64, np.float16)
INTEGERS = (np.int64, np.int64, np.int32, np.int32, np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64)
NAN_OPEN = frozenset(
    "Max Min Clip ReduceMax ReduceMin ReduceLogSumExp ArgMax ArgMin TopK MaxPool Relu Sign Hardmax".split()
)


class OnnxChoices(Steps):
    """What the steps have in common."""

    def __init__(self, graph: Graph, rng: random.Random, pool: list[Value], features: frozenset[str]) -> None:
        super().__init__(rng, pool, features)
        self.g = graph

    def float(self, least_rank: int = 0) -> Value:
        return self.any(lambda value: value.is_float and value.dtype != bfloat16() and value.rank >= least_rank)

    def broadcastable(self, x: Value) -> Value:
        """A value of x's type whose shape broadcasts with x's; now and then a constant."""
        if self.rng.random() < 0.2:
            shape = [extent[0] if len(set(extent)) == 1 and self.rng.random() < 0.5 else 1 for extent in x.shape]
            return self.g.const(random_arrays.draw(self.rng, x.dtype, shape[self.rng.randint(0, x.rank) :]))
        return self.any(lambda y: y.dtype == x.dtype and broadcast(x, y))

    def reducible(self, x: Value) -> Value:
        """x, where ONNX Runtime reduces it as ONNX says."""
        for array in x.arrays:
            if not array.size or (x.is_integer and np.abs(array.astype(np.float64)).max() > 1000):
                raise Reject("a fault of ONNX Runtime")
        return x

    def moderate(self, x: Value, axes: Sequence[int]) -> Value:
        """x, where its squares are in range and it is no constant along the axes."""
        with np.errstate(all="ignore"):
            for array in x.arrays:
                finite = np.where(np.isfinite(array), array, 0.0).astype(np.float64)
                flat = bool(axes) and bool((finite.std(axis=tuple(axes)) < 1e-2).any())
                if not array.size or np.abs(finite).max() > 1e15 or flat:
                    raise Reject("open")
        return x

    def closed(self, op_type: str, *values: Value) -> None:
        if op_type in NAN_OPEN and any(value.has_nan for value in values):
            raise Reject("NaN")

    def castable(self, x: Value, to: Any) -> None:
        if not x.is_float or to.kind not in "iu":
            return
        info = np.iinfo(to)
        for array in x.arrays:
            wide = array.astype(np.float64)
            if not (np.isfinite(wide).all() and (wide > info.min - 0.5).all() and (wide < info.max - 1024).all()):
                raise Reject("out of range")

    def reduced(self, x: Value, op_type: str, axes: Sequence[int], keepdims: int) -> Value:
        self.closed(op_type, self.reducible(x))
        if self.g.opset >= 18 or op_type == "ReduceSum":
            return self.g.one(op_type, x, self.g.ints(*axes), keepdims=keepdims)
        return self.g.one(op_type, x, axes=list(axes), keepdims=keepdims)
