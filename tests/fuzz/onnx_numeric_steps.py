"""Steps of ONNX programs: reductions, normalizations, products, windows, quantization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.fuzz import arrays as random_arrays
from tests.fuzz.arrays import bfloat16
from tests.fuzz.onnx_choices import OnnxChoices
from tests.fuzz.onnx_graph import Value
from tests.fuzz.steps import Reject, is_static, step

REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip


class NumericSteps(OnnxChoices):
    """Steps of ONNX programs: reductions, normalizations, products, windows, quantization."""

    @step(5)
    def reduce(self) -> Sequence[Value]:
        x = self.any(lambda value: (value.is_float or value.dtype in (np.int32, np.int64))
                     and value.dtype != bfloat16() and value.rank > 0)  # fmt: skip
        op_type = self.rng.choice(REDUCTIONS if x.is_float else REDUCTIONS[:5])
        keepdims = self.rng.randint(0, 1)
        if self.rng.random() < 0.1:
            self.closed(op_type, self.reducible(x))
            return [self.g.one(op_type, x, keepdims=keepdims)]
        return [self.reduced(x, op_type, self.axes(x), keepdims)]

    @step(0.5)
    def reduce_nothing(self) -> Sequence[Value]:
        """No axes, and that to do nothing."""
        x = self.float(1)
        if self.g.opset < 18:
            raise Reject("opset")
        op_type = self.rng.choice(REDUCTIONS[:4])
        self.closed(op_type, self.reducible(x))
        return [self.g.one(op_type, x, self.g.ints(), noop_with_empty_axes=self.rng.choice([1, 1, 0]))]

    @step(1)
    def argument(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank > 0 and value.dtype in (np.float32, np.float64, np.int32, np.int64))
        self.closed("ArgMax", self.reducible(x))
        return [self.g.one(self.rng.choice(["ArgMax", "ArgMin"]), x, axis=self.axis(x),
                           keepdims=self.rng.randint(0, 1), select_last_index=self.rng.randint(0, 1))]  # fmt: skip

    @step(0.5)
    def top_k(self) -> Sequence[Value]:
        x = self.float(1)
        self.closed("TopK", x)
        axis = self.axis(x)
        count = self.rng.randint(0 if "zero sizes" in self.features else 1, max(min(x.shape[axis]), 1))
        return self.g.node("TopK", [x, self.g.ints(count)], 2, axis=axis,
                           largest=self.rng.randint(0, 1))  # fmt: skip

    @step(1)
    def cumulative(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank > 0 and value.dtype in (np.float32, np.float64, np.int32, np.int64))
        axis = self.g.const(np.array(self.axis(x), np.int64))
        return [self.g.one("CumSum", x, axis, exclusive=self.rng.randint(0, 1), reverse=self.rng.randint(0, 1))]

    @step(4)
    def shared_reduction(self) -> Sequence[Value]:
        """A reduction of a value beside the value itself: broadcast back, concatenated, subtracted, divided by."""
        x = self.float(1)
        op_type, axis = self.rng.choice(REDUCTIONS), self.axis(x)
        least = self.reduced(x, op_type, [axis], 1)
        kind = self.rng.choice(["concat", "expand", "sub", "div", "rows"])
        if kind == "concat":
            return [self.g.one("Concat", *self.rng.sample([x, least], 2), axis=axis)]
        if kind == "expand":
            wide = self.g.one("Expand", least, self.g.one("Shape", x))
            return [self.g.one("Concat", wide, x, axis=self.axis(x))]
        if kind == "rows":  # coordinates that are not the reduction's own
            return [self.g.one("Sub", self.g.one("Squeeze", least, self.g.ints(axis)), x)]
        return [self.g.one(kind.capitalize(), x, least)]

    @step(2)
    def softmax(self) -> Sequence[Value]:
        x = self.float(1)
        op_type = self.rng.choice(["Softmax", "Softmax", "LogSoftmax", "Hardmax"])
        self.closed(op_type, x)
        is_wrong = any(((array == np.inf) | np.isnan(array)).any() for array in x.arrays if x.dtype == np.float64)
        if op_type == "LogSoftmax" and is_wrong:
            raise Reject("a fault of ONNX Runtime")
        return [self.g.one(op_type, x, axis=self.axis(x))]

    @step(1)
    def spelled_softmax(self) -> Sequence[Value]:
        x = self.float(1)
        axis = self.axis(x)
        grown = self.g.one("Exp", self.g.one("Sub", x, self.reduced(x, "ReduceMax", [axis], 1)))
        return [self.g.one("Div", grown, self.reduced(grown, "ReduceSum", [axis], 1))]

    @step(2)
    def normalize(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype in (np.float32, np.float64) and value.rank >= 1)
        kind = self.rng.choice(["layer", "rms", "lp", "batch", "instance", "mean"])
        if kind == "lp":
            return [self.g.one("LpNormalization", x, axis=self.axis(x), p=self.rng.choice([1, 2]))]
        if kind == "mean":
            mean = self.reduced(self.moderate(x, [-1]), "ReduceMean", [-1], 1)
            centered = self.g.one("Sub", x, mean)
            square = self.g.one("Mul", centered, centered)
            variance = self.g.one("Add", self.reduced(square, "ReduceMean", [-1], 1),
                                  self.g.const(np.array(1e-5, x.dtype)))  # fmt: skip
            return [self.g.one("Div", centered, self.g.one("Sqrt", variance))]
        axis = 1 if kind in ("batch", "instance") else x.rank - 1
        if x.rank <= axis or not is_static(x, axis):
            raise Reject("does not fit")
        self.moderate(x, range(2, x.rank) if kind == "instance" else [] if kind == "batch" else [-1])
        scale, bias = (self.g.const(random_arrays.draw(self.rng, x.dtype, x.shape[axis][:1])) for _ in range(2))
        if kind == "layer":
            return [self.g.one("LayerNormalization", x, scale, *self.rng.choice([(), (bias,)]), axis=-1)]
        if kind == "rms":
            return [self.g.one("RMSNormalization", x, scale, axis=-1)]
        if kind == "instance":
            return [self.g.one("InstanceNormalization", x, scale, bias)]
        mean, variance = bias, self.g.const(np.abs(self.g.constants[scale]) + np.array(0.5, x.dtype))
        return [self.g.one("BatchNormalization", x, scale, bias, mean, variance)]

    @step(1, "products")
    def product(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype in (np.float32, np.float64) and 1 <= value.rank <= 4)
        if self.rng.random() < 0.3 and x.rank >= 2:
            order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
            return [self.g.one("MatMul", x, self.g.one("Transpose", x, perm=order))]
        if not is_static(x, x.rank - 1):
            raise Reject("dynamic")
        shape = [x.shape[-1][0], self.rng.choice([1, 2, 5])]
        weight = self.g.const(random_arrays.draw(self.rng, x.dtype, shape))
        if x.rank == 2 and self.rng.random() < 0.4:
            bias = self.g.const(random_arrays.draw(self.rng, x.dtype, shape[1:]))
            beta = self.rng.choice([1.0, 2.0])
            if beta != 1.0 and 0 in x.shape[1]:
                raise Reject("ONNX Runtime leaves beta out where there is nothing to sum")
            return [self.g.one("Gemm", x, weight, bias, alpha=0.5, beta=beta)]
        return [self.g.one("MatMul", x, weight)]

    @step(0.4, "products")
    def product_with_vector(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype in (np.float32, np.float64) and 2 <= value.rank <= 4)
        axis = self.rng.choice([-1, -2])
        if not is_static(x, x.rank + axis):
            raise Reject("dynamic")
        vector = self.g.const(random_arrays.draw(self.rng, x.dtype, x.shape[axis][:1]))
        if axis == -1:
            return [self.g.one("MatMul", x, vector)]
        if self.rng.random() < 0.5:
            return [self.g.one("MatMul", vector, x)]
        order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
        return [self.g.one("MatMul", self.g.one("Transpose", x, perm=order), vector)]

    @step(0.4, "products")
    def einsum(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype in (np.float32, np.float64) and value.rank == 2)
        equation = self.rng.choice(["ij,ij->i", "ij,kj->ik", "ij,ij->", "ij,ij->ji"])
        if equation == "ij,kj->ik" and 0 in x.shape[1]:
            raise Reject("a fault of ONNX Runtime")
        return [self.g.one("Einsum", x, x, equation=equation)]

    @step(0.5, "products")
    def convolution(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype == np.float32 and value.rank in (3, 4) and is_static(value, 1))
        channels, spatial = x.shape[1][0], x.rank - 2
        if channels == 0:
            raise Reject("no channels")
        group = channels if self.rng.random() < 0.3 else 1
        weight = random_arrays.draw(
            self.rng, np.float32, [2 * group, channels // group, *[self.rng.choice([1, 2])] * spatial]
        )
        pads = [self.rng.choice([0, 1]) for _ in range(2 * spatial)]
        if self.rng.random() < 0.3:
            turned = random_arrays.draw(self.rng, np.float32, [channels, 2, *[2] * spatial])
            return [self.g.one("ConvTranspose", x, self.g.const(turned), strides=[self.rng.choice([1, 2])] * spatial)]
        return [self.g.one("Conv", x, self.g.const(weight), group=group, pads=pads,
                           strides=[self.rng.choice([1, 2])] * spatial)]  # fmt: skip

    @step(0.5, "products")
    def pooling(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype == np.float32 and value.rank in (3, 4))
        spatial = x.rank - 2
        op_type = self.rng.choice(["AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"])
        if x.has_nan or min(min(extent) for extent in x.shape[2:]) < 2:
            raise Reject("open")
        if op_type == "MaxPool" and any((array == -np.inf).any() for array in x.arrays):
            raise Reject("of -inf alone ONNX Runtime gives the least finite number: see docs/numerics.md")
        if op_type.startswith("Global"):
            return [self.g.one(op_type, x)]
        named: dict[str, Any] = {"kernel_shape": [2] * spatial, "strides": [self.rng.choice([1, 2])] * spatial}
        if self.rng.random() < 0.5:
            named |= {"pads": [self.rng.choice([0, 1]) for _ in range(2 * spatial)]}
        if op_type == "AveragePool":
            named["count_include_pad"] = self.rng.randint(0, 1)
        return [self.g.one(op_type, x, **named, ceil_mode=0)]

    @step(0.3, "products")
    def resize(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype == np.float32 and value.rank == 4)
        scales = self.g.const(np.array([1, 1, 2, 2], np.float32))
        mode = self.rng.choice(["nearest", "linear"])
        return [self.g.one("Resize", x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric",
                           nearest_mode="floor" if mode == "nearest" else None)]  # fmt: skip

    @step(0.7, "quantization")
    def quantize(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype == np.float32)
        if x.has_nan:
            raise Reject("NaN")
        if self.rng.random() < 0.2 and x.rank:
            if not all(np.isfinite(array).all() for array in x.arrays):
                raise Reject("open")
            return self.g.node("DynamicQuantizeLinear", [x], 3)
        dtype = self.rng.choice([np.int8, np.uint8])
        scale, zero = self.g.const(np.array(0.25, np.float32)), self.g.const(np.array(3, dtype))
        quantized = self.g.one("QuantizeLinear", x, scale, zero)
        return [quantized, self.g.one("DequantizeLinear", quantized, scale, zero)]
