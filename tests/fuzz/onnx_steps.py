"""What programs of ONNX do: each method adds some nodes, and gives the values that later steps may use.

A method raises Reject where it does not fit. What ONNX leaves undefined is not made; LEFT_OPEN says where.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzz import arrays as random_arrays
from tests.fuzz.arrays import bfloat16
from tests.fuzz.onnx_graph import Graph, Value
from tests.fuzz.steps import Reject, Steps, broadcast, is_static, step

# Operator -> what ONNX leaves open about it, so that ONNX Runtime is no oracle there.
LEFT_OPEN = {
    "Cast": "floats that are NaN, infinite or out of the range of an integer type",
    "Div, Mod": "integers divided by 0, and the smallest by -1 (ONNX Runtime is killed)",
    "Pow": "integers to negative powers",
    "Reshape": "a computed 0 (it copies an extent, where irc takes it for the extent)",
    "BitShift": "shifts by the width of the type and more",
    "ScatterND, ScatterElements": "equal indices without a reduction",
    "Max, Min, Clip, ReduceMax, ReduceMin, ArgMax, ArgMin, TopK, MaxPool, Relu, Sign, Hardmax": "NaN",
    "ReduceLogSumExp": "NaN beside an infinity",
    "DynamicQuantizeLinear": "an infinity (infinities are divided by one another, and NaN is cast to an integer)",
    "Gather and others": "indices out of range",
    "normalizations": "where a square overflows on the way, and what is left of equal numbers less their mean",
    "pooling": "windows larger than the padded input",
}
# Operator -> what ONNX Runtime does that ONNX does not say.
RUNTIME_FAULTS = {
    "reductions, ArgMax, ArgMin": "the input's shape for an input without elements",
    "reductions of integers": "sums in f64, so that large ones are rounded, and do not wrap",
    "Einsum": "a product of matrices whose inner extent is 0 (it divides by it, and is killed)",
    "LogSoftmax": "of f64 in a row with inf, -inf where inf is subtracted from inf",
    "Pow": "first powers of i64 in f64, so that large ones are rounded",
    "Loop": "of no rounds, results of one axis where those of a round would be stacked",
}
FLOATS = (np.float32, np.float32, np.float32, np.float32, np.float64, np.float16)
INTEGERS = (np.int64, np.int64, np.int32, np.int32, np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64)
SAFE = ("Neg", "Abs", "Tanh", "Sigmoid", "Floor", "Ceil", "Round", "Erf", "Sin", "Cos", "Atan", "Softsign", "Elu",
        "LeakyRelu", "HardSigmoid", "Identity", "Selu", "Celu", "Softplus", "Exp", "Reciprocal", "Sqrt", "Log",
        "Mish", "Gelu", "HardSwish", "ThresholdedRelu")  # fmt: skip
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
NAN_OPEN = frozenset(
    "Max Min Clip ReduceMax ReduceMin ReduceLogSumExp ArgMax ArgMin TopK MaxPool Relu Sign Hardmax".split()
)


class OnnxSteps(Steps):
    """The steps of one model."""

    def __init__(self, graph: Graph, rng: random.Random, pool: list[Value], features: frozenset[str]) -> None:
        super().__init__(rng, pool, features)
        self.g = graph

    # -- choices ---------------------------------------------------------------------------------------------------

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

    # -- elementwise -------------------------------------------------------------------------------------------------

    @step(3)
    def unary(self) -> Sequence[Value]:
        return [self.g.one(self.rng.choice(SAFE), self.float())]

    @step(2)
    def simple(self) -> Sequence[Value]:
        """What keeps numbers exact."""
        x = self.any(lambda value: value.dtype != np.bool_ and value.dtype != bfloat16())
        op_type = self.rng.choice(["Neg", "Abs", "Relu", "Sign"])
        self.closed(op_type, x)
        return [self.g.one(op_type, x)]

    @step(1)
    def clip(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_float or value.is_integer)
        self.closed("Clip", x)
        low, high = (self.g.const(np.array(number, x.dtype)) for number in (0, self.rng.choice([1, 3])))
        bounds = self.rng.choice([(low, high), (low, None), (None, high)])
        return [self.g.one("Clip", x, *bounds)]

    @step(6)
    def arithmetic(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_float or value.is_integer)
        y = x if self.rng.random() < 0.1 else self.broadcastable(x)
        if self.rng.random() < 0.5:
            x, y = y, x
        op_type = self.rng.choice(["Add", "Sub", "Mul", "Mul", "Add", "Sub", "Max", "Min", "Div"])
        self.closed(op_type, x, y)
        if op_type == "Div" and x.is_integer:
            y = self.divisor(x, y)
        return [self.g.one(op_type, x, y)]

    def divisor(self, x: Value, y: Value) -> Value:
        """An integer that divides: y where the results are defined, or a constant."""
        if any((array == 0).any() for array in y.arrays) or (x.dtype.kind == "i" and any(
                (array == -1).any() for array in y.arrays)):  # fmt: skip
            return self.g.const(np.array(self.rng.choice([1, 2, 3, 7]), x.dtype))
        return y

    @step(0.7)
    def modulo(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_float or value.is_integer)
        y = self.broadcastable(x)
        if x.is_float:
            return [self.g.one("Mod", x, y, fmod=1)]
        return [self.g.one("Mod", x, self.divisor(x, y), fmod=self.rng.randint(0, 1))]

    @step(0.7)
    def power(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_float or value.dtype in (np.int32, np.int64))
        exponent = self.rng.choice([0, 1, 2, 3] if x.is_integer else [0, 1, 2, 3, 0.5, -1, 2.5])
        is_large = any((np.abs(array.astype(np.float64)) > 2**53).any() for array in x.arrays)
        if exponent == 1 and x.is_integer and is_large:
            raise Reject("a fault of ONNX Runtime")
        return [self.g.one("Pow", x, self.g.const(np.array(exponent, x.dtype)))]

    @step(0.7)
    def several(self) -> Sequence[Value]:
        x = self.float()
        values = [x, self.broadcastable(x)]
        op_type = self.rng.choice(["Sum", "Mean", "Max", "Min"])
        self.closed(op_type, *values)
        return [self.g.one(op_type, *values, x)]

    @step(1)
    def bits(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_integer)
        if x.dtype.kind == "u" and self.rng.random() < 0.5:
            by = self.g.const(np.array(self.rng.randrange(x.dtype.itemsize * 8), x.dtype))
            return [self.g.one("BitShift", x, by, direction=self.rng.choice(["LEFT", "RIGHT"]))]
        if self.rng.random() < 0.2:
            return [self.g.one("BitwiseNot", x)]
        op_type = self.rng.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
        return [self.g.one(op_type, x, self.broadcastable(x))]

    @step(1.5)
    def compare(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype != bfloat16() and value.dtype != np.bool_)
        op_type = self.rng.choice(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Equal"])
        found = self.g.one(op_type, x, self.broadcastable(x))
        return [found, self.g.one("Not", found)] if self.rng.random() < 0.3 else [found]

    @step(0.5)
    def classify(self) -> Sequence[Value]:
        return [self.g.one(self.rng.choice(["IsNaN", "IsInf"]), self.float())]

    @step(0.7)
    def logic(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype == np.bool_)
        return [self.g.one(self.rng.choice(["And", "Or", "Xor"]), x, self.broadcastable(x))]

    @step(1.5)
    def where(self) -> Sequence[Value]:
        condition = self.any(lambda value: value.dtype == np.bool_)
        x = self.any(lambda value: value.dtype != bfloat16() and broadcast(condition, value))
        return [self.g.one("Where", condition, x, self.broadcastable(x))]

    @step(1)
    def where_compared(self) -> Sequence[Value]:
        """A value here and another of the same there, by a comparison with a third."""
        x = self.float()
        condition = self.g.one("Greater", x, self.g.const(np.array(self.rng.choice([0, 0.5]), x.dtype)))
        return [self.g.one("Where", condition, x, self.broadcastable(x))]

    @step(3)
    def cast(self) -> Sequence[Value]:
        x = self.any()
        to = np.dtype(self.rng.choice([*FLOATS, *INTEGERS, np.bool_, bfloat16()]))
        if "narrow floats" not in self.features and to in (np.float16, bfloat16()):
            raise Reject("narrow floats")
        self.castable(x, to)
        made = self.g.one("Cast", x, to=helper.np_dtype_to_tensor_dtype(to))
        if to != bfloat16():
            return [made]
        return [made, self.g.one("Cast", made, to=TensorProto.FLOAT)]

    def castable(self, x: Value, to: Any) -> None:
        if not x.is_float or to.kind not in "iu":
            return
        info = np.iinfo(to)
        for array in x.arrays:
            wide = array.astype(np.float64)
            if not (np.isfinite(wide).all() and (wide > info.min - 0.5).all() and (wide < info.max - 1024).all()):
                raise Reject("out of range")

    # -- views -------------------------------------------------------------------------------------------------------

    @step(3)
    def transpose(self) -> Sequence[Value]:
        x = self.tensor(2)
        permutation = self.rng.sample(range(x.rank), x.rank)
        return [self.g.one("Transpose", x, perm=None if self.rng.random() < 0.2 else permutation)]

    @step(1.5)
    def flatten(self) -> Sequence[Value]:
        x = self.tensor()
        if self.rng.random() < 0.5:
            return [self.g.one("Flatten", x, axis=self.rng.randint(-x.rank, x.rank))]
        return [self.g.one("Reshape", x, self.g.ints(-1))]

    @step(2)
    def merge(self) -> Sequence[Value]:
        """Two neighboring axes become one."""
        x = self.tensor(2)
        axis = self.rng.randrange(x.rank - 1)
        return [self.g.one("Reshape", x, self.g.ints(*[0] * axis, -1, *self.numbers(x, axis + 2)))]

    def numbers(self, x: Value, start: int) -> list[int]:
        if not all(is_static(x, axis) for axis in range(start, x.rank)):
            raise Reject("dynamic")
        return [x.shape[axis][0] for axis in range(start, x.rank)]

    @step(2)
    def split_axis(self) -> Sequence[Value]:
        """One axis becomes two; or a new one of extent 1."""
        x = self.tensor()
        axis, factor = self.rng.randrange(x.rank), self.rng.choice([1, 1, 2, 3])
        if any(extent % factor for extent in x.shape[axis]):
            raise Reject("not divisible")
        parts = (-1, factor) if self.rng.random() < 0.5 else (factor, -1)
        return [self.g.one("Reshape", x, self.g.ints(*[0] * axis, *parts, *self.numbers(x, axis + 1)))]

    @step(1.5)
    def reshape_as(self) -> Sequence[Value]:
        """By a shape that is computed."""
        x = self.tensor()
        shape, order = self.g.one("Shape", x), list(range(x.rank))
        self.rng.shuffle(order)
        if self.rng.random() < 0.5:
            shape = self.g.one("Gather", shape, self.g.ints(*order))
            if any(0 in extents for extents in x.shape):  # else a 0 copies the extent of x
                if self.g.opset < 14:
                    raise Reject("open")
                return [self.g.one("Reshape", x, shape, allowzero=1)]
        else:
            cut = self.rng.randint(0, x.rank)
            ends = self.g.one("Slice", shape, self.g.ints(0), self.g.ints(cut))
            shape = self.g.one("Concat", ends, self.g.ints(-1), axis=0)
        return [self.g.one("Reshape", x, shape)]

    @step(1)
    def squeeze(self) -> Sequence[Value]:
        x = self.any(lambda value: any(set(extent) == {1} for extent in value.shape))
        axes = [axis for axis in range(x.rank) if set(x.shape[axis]) == {1}]
        return [self.g.one("Squeeze", x, self.g.ints(self.signed(self.rng.choice(axes), x.rank)))]

    @step(1.5)
    def unsqueeze(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank < 5)
        return [self.g.one("Unsqueeze", x, self.g.ints(self.rng.randint(-x.rank - 1, x.rank)))]

    @step(2.5)
    def expand(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank < 5)
        if self.rng.random() < 0.5:
            y = self.any(lambda y: broadcast(x, y))
            return [self.g.one("Expand", x, self.g.one("Shape", y))]
        shape = [self.rng.choice([1, 2, 3]) if set(extent) == {1} else 1 for extent in x.shape]
        return [self.g.one("Expand", x, self.g.ints(*[2] * self.rng.randint(0, 1), *shape))]

    @step(1.5)
    def tile(self) -> Sequence[Value]:
        x = self.tensor()
        return [self.g.one("Tile", x, self.g.ints(*(self.rng.choice([1, 1, 2, 3]) for _ in range(x.rank))))]

    @step(4)
    def slice(self) -> Sequence[Value]:
        x = self.tensor()
        count = self.rng.randint(1, min(2, x.rank))
        axes = self.rng.sample(range(x.rank), count)
        starts, stops, steps = [], [], []
        for axis in axes:
            step = self.rng.choice([1, 1, 1, 2, 3, -1, -1, -2, 7])
            extent = min(x.shape[axis])
            near, far = self.rng.randint(-1, max(extent // 2, 1)), self.rng.choice([2**31 - 1, 2**63 - 1, -1, extent])
            if step < 0:
                near, far = self.rng.choice([-1, extent, 2**31 - 1, 2**63 - 1]), self.rng.choice([-(2**63), 0, -9])
            starts.append(near)
            stops.append(far)
            steps.append(step)
        axes = [self.signed(axis, x.rank) for axis in axes]
        return [self.g.one("Slice", x, *(self.g.ints(*each) for each in (starts, stops, axes, steps)))]

    @step(3)
    def pad(self) -> Sequence[Value]:
        x = self.tensor()
        modes = ["constant", "constant", "edge", "reflect", *(["wrap"] if self.g.opset >= 19 else [])]
        mode, low = self.rng.choice(modes), -1 if self.rng.random() < 0.3 else 0
        pads = [self.rng.choice([low, 0, 0, 1, 2]) if self.rng.random() < 0.6 else 0 for _ in range(2 * x.rank)]
        for axis, extent in enumerate(x.shape):
            before, after = pads[axis], pads[axis + x.rank]
            if min(extent) + min(before, 0) + min(after, 0) < 0:
                raise Reject("less than nothing")
            if mode != "constant" and (before or after) and min(extent) <= max(before, after, 0) + (low < 0):
                raise Reject("beyond what there is")
            if mode != "constant" and min(before, after) < 0:
                raise Reject("ONNX Runtime reads what it has cut off")
        value = self.g.const(np.array(1, x.dtype)) if mode == "constant" and self.rng.random() < 0.5 else None
        return [self.g.one("Pad", x, self.g.ints(*pads), value, mode=mode)]

    @step(4)
    def concat(self) -> Sequence[Value]:
        x = self.tensor()
        axis = self.axis(x)
        values = [x]
        for _ in range(self.rng.randint(1, 2)):
            values.append(self.joinable(x, axis, same_type=True))
        self.rng.shuffle(values)
        return [self.g.one("Concat", *values, axis=axis)]

    @step(1)
    def stack(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank < 5)
        y = self.like(x)
        axis = self.g.ints(self.rng.randint(-x.rank - 1, x.rank))
        parts = [self.g.one("Unsqueeze", value, axis) for value in (x, y)]
        return [self.g.one("Concat", *parts, axis=int(self.g.constants[axis][0]))]

    @step(1.5)
    def split(self) -> Sequence[Value]:
        x = self.any(lambda value: any(is_static(value, axis) for axis in range(value.rank)))
        axis = self.rng.choice([axis for axis in range(x.rank) if is_static(x, axis)])
        extent = x.shape[axis][0]
        first = self.rng.randint(0, extent)
        if self.g.opset >= 18 and self.rng.random() < 0.5:
            return self.g.node("Split", [x], 2, axis=axis, num_outputs=2)
        return self.g.node("Split", [x, self.g.ints(first, extent - first)], 2, axis=axis)

    @step(1)
    def halves_swapped(self) -> Sequence[Value]:
        """What a roll or a rotary embedding is: both parts of an axis, the second first."""
        x = self.any(lambda value: any(is_static(value, axis) for axis in range(value.rank)))
        axis = self.rng.choice([axis for axis in range(x.rank) if is_static(x, axis)])
        first = self.rng.randint(0, x.shape[axis][0])
        parts = self.g.node("Split", [x, self.g.ints(first, x.shape[axis][0] - first)], 2, axis=axis)
        second = self.g.one("Neg", parts[1]) if x.is_float and x.dtype != bfloat16() else parts[1]
        return [self.g.one("Concat", second, parts[0], axis=axis)]

    @step(0.5)
    def blocks(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank == 4 and value.is_float)
        if self.rng.random() < 0.5:
            return [self.g.one("SpaceToDepth", x, blocksize=self.rng.choice([1, 2]))]
        return [self.g.one("DepthToSpace", x, blocksize=self.rng.choice([1, 2]), mode=self.rng.choice(["DCR", "CRD"]))]

    @step(0.7)
    def triangle(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank >= 2 and value.dtype != bfloat16())
        k = self.g.const(np.array(self.rng.randint(-2, 2), np.int64))
        return [self.g.one("Trilu", x, *([k] if self.rng.random() < 0.7 else []), upper=self.rng.randint(0, 1))]

    @step(0.5)
    def reverse_sequence(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank >= 2 and value.dtype != bfloat16() and is_static(value, 1))
        lengths = [self.rng.randint(min(1, x.shape[0][0]), x.shape[0][0]) for _ in range(x.shape[1][0])]
        return [self.g.one("ReverseSequence", x, self.g.ints(*lengths), time_axis=0, batch_axis=1)]

    # -- indices -----------------------------------------------------------------------------------------------------

    def indices(self, extent: int, shape: Sequence[int]) -> np.ndarray[Any, Any]:
        if extent == 0:
            raise Reject("nothing to index")
        numbers = [self.rng.randint(-extent, extent - 1) for _ in range(int(np.prod(shape)))]
        return np.array(numbers, self.rng.choice([np.int64, np.int32])).reshape(shape)

    @step(2)
    def gather(self) -> Sequence[Value]:
        x = self.tensor()
        axis = self.axis(x)
        shape = self.rng.choice([(), (1,), (3,), (2, 2), (0,)])
        if shape == (0,) and "zero sizes" not in self.features:
            raise Reject("zero sizes")
        found = self.indices(min(x.shape[axis]), shape)
        return [self.g.one("Gather", x, self.g.const(found), axis=axis)]

    @step(1)
    def gather_computed(self) -> Sequence[Value]:
        """By indices that are computed from integers of the program."""
        x, integers = self.tensor(), self.any(lambda value: value.is_integer and value.rank <= 2)
        axis = self.axis(x)
        extent = min(x.shape[axis])
        if extent == 0:
            raise Reject("nothing to index")
        if integers.dtype == np.uint64:
            raise Reject("ONNX Runtime has no such Mod")
        kept = self.g.one("Mod", integers, self.g.const(np.array(min(extent, 100), integers.dtype)), fmod=0)
        index = self.g.one("Cast", kept, to=TensorProto.INT64)
        return [self.g.one("Gather", x, index, axis=axis)]

    @step(0.7)
    def gather_elements(self) -> Sequence[Value]:
        x = self.tensor()
        axis = self.rng.randrange(x.rank)
        if not all(is_static(x, each) for each in range(x.rank)):
            raise Reject("dynamic")
        shape = [extent[0] if place != axis else self.rng.randint(1, 3) for place, extent in enumerate(x.shape)]
        found = self.indices(x.shape[axis][0], shape)
        return [self.g.one("GatherElements", x, self.g.const(found), axis=axis)]

    @step(0.5)
    def gather_nd(self) -> Sequence[Value]:
        x = self.tensor(2)
        rows = [[self.rng.randint(-min(extent), min(extent) - 1) if min(extent) else 0 for extent in x.shape[:2]]
                for _ in range(3)]  # fmt: skip
        if min(*x.shape[0], *x.shape[1]) == 0:
            raise Reject("nothing to index")
        return [self.g.one("GatherND", x, self.g.const(np.array(rows, np.int64)))]

    @step(1)
    def scatter(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank >= 1 and value.dtype not in (np.dtype(bool), bfloat16()))
        extent = min(x.shape[0])
        if extent == 0 or not all(is_static(x, axis) for axis in range(1, x.rank)):
            raise Reject("does not fit")
        rows = self.rng.sample(range(extent), self.rng.randint(1, min(extent, 2)))
        updates = random_arrays.draw(self.rng, x.dtype, [len(rows), *(extent[0] for extent in x.shape[1:])])
        index = np.array(rows, np.int64)
        kinds = ["none", "none", "add", "mul"] if self.g.opset >= 16 and x.is_float else ["none"]
        reduction = self.rng.choice(kinds)
        if reduction != "none":
            index[...] = index[0]  # twice the same
        named = {} if reduction == "none" else {"reduction": reduction}
        if self.rng.random() < 0.5:
            return [self.g.one("ScatterND", x, self.g.const(index[:, None]), self.g.const(updates), **named)]
        full = np.broadcast_to(index.reshape(-1, *[1] * (x.rank - 1)), updates.shape).copy()
        return [self.g.one("ScatterElements", x, self.g.const(full), self.g.const(updates), axis=0, **named)]

    @step(0.5)
    def one_hot(self) -> Sequence[Value]:
        x = self.any(lambda value: value.dtype in (np.int64, np.int32) and value.rank < 4)
        values = self.g.const(np.array([0, 2], np.float32))
        return [self.g.one("OneHot", x, self.g.const(np.array(3, np.int64)), values, axis=self.rng.choice([-1, 0]))]

    # -- reductions --------------------------------------------------------------------------------------------------

    def reduced(self, x: Value, op_type: str, axes: Sequence[int], keepdims: int) -> Value:
        self.closed(op_type, self.reducible(x))
        if self.g.opset >= 18 or op_type == "ReduceSum":
            return self.g.one(op_type, x, self.g.ints(*axes), keepdims=keepdims)
        return self.g.one(op_type, x, axes=list(axes), keepdims=keepdims)

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

    # -- normalization -----------------------------------------------------------------------------------------------

    @step(2)
    def softmax(self) -> Sequence[Value]:
        x = self.float(1)
        op_type = self.rng.choice(["Softmax", "Softmax", "LogSoftmax", "Hardmax"])
        self.closed(op_type, x)
        if op_type == "LogSoftmax" and x.dtype == np.float64 and any((array == np.inf).any() for array in x.arrays):
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

    # -- products ----------------------------------------------------------------------------------------------------

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
            return [self.g.one("Gemm", x, weight, bias, alpha=0.5, beta=self.rng.choice([1.0, 2.0]))]
        return [self.g.one("MatMul", x, weight)]

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

    # -- quantization ------------------------------------------------------------------------------------------------

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
        made = self.g.one("QuantizeLinear", x, scale, zero)
        return [made, self.g.one("DequantizeLinear", made, scale, zero)]

    # -- sizes as data -----------------------------------------------------------------------------------------------

    @step(1)
    def size(self) -> Sequence[Value]:
        """A shape, or a number of elements, as numbers."""
        x = self.any()
        if self.rng.random() < 0.3:
            return [self.g.one("Size", x)]
        shape = self.g.one("Shape", x)
        if x.rank == 0:
            return [shape]
        one = self.g.one("Gather", shape, self.g.const(np.array(self.axis(x), np.int64)), axis=0)
        if self.rng.random() < 0.5:
            return [one, self.g.one("Cast", one, to=TensorProto.FLOAT)]
        return [self.g.one("Div", self.g.one("Add", one, self.g.const(np.array(1))), self.g.const(np.array(2)))]

    @step(0.7)
    def filled(self) -> Sequence[Value]:
        x = self.tensor()
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [self.rng.choice([0.0, 1.5])])
        return [self.g.one("ConstantOfShape", self.g.one("Shape", x), value=value)]

    @step(1.2)
    def positions(self) -> Sequence[Value]:
        """0, 1, 2 ... along an axis, in arithmetic that may wrap around."""
        x = self.tensor()
        axis = self.axis(x)
        extent = self.g.one("Gather", self.g.one("Shape", x), self.g.const(np.array(axis, np.int64)))
        found = self.g.one("Range", self.g.const(np.array(0)), extent, self.g.const(np.array(1)))
        dtype = np.dtype(self.rng.choice([np.int32, np.int64, np.uint8, np.int8, np.float32]))
        if dtype != np.int64:
            self.castable(found, dtype)
            found = self.g.one("Cast", found, to=helper.np_dtype_to_tensor_dtype(dtype))
        if dtype.kind in "iu" and "integer limits" in self.features:
            factor = {"int8": 77, "uint8": 201, "int32": 1664525000, "int64": 2**62 + 3}[dtype.name]
            found = self.g.one("Mul", found, self.g.const(np.array(factor, dtype)))
            found = self.g.one("Add", found, self.g.const(np.array(self.rng.choice([1, 100]), dtype)))
        return [found]

    @step(0.3, "data-dependent sizes")
    def found_nonzero(self) -> Sequence[Value]:
        x = self.any(lambda value: value.rank > 0 and value.dtype in (
            np.dtype(bool), np.dtype(np.int64), np.dtype(np.float32)))  # fmt: skip
        if x.dtype == np.float32:
            self.closed("Relu", x)
            x = self.g.one("Relu", x)
        return [self.g.one("NonZero", x)]

    @step(0.4, "data-dependent sizes")
    def compress(self) -> Sequence[Value]:
        x = self.tensor()
        axis = self.rng.choice([axis for axis in range(x.rank)])
        if not is_static(x, axis):
            raise Reject("dynamic")
        mask = self.g.const(np.array([self.rng.random() < 0.6 for _ in range(x.shape[axis][0])], bool))
        return [self.g.one("Compress", x, mask, axis=axis)]

    # -- control flow ------------------------------------------------------------------------------------------------

    def body(self, name: str, x: str, y: str, dtype: int, outputs: int = 1) -> tuple[list[onnx.NodeProto], list[str]]:
        """Nodes of a subgraph: something of x and y, both of one shape."""
        nodes, current = [], x
        for number in range(self.rng.randint(1, 3)):
            out = f"{name}.{number}"
            if self.rng.random() < 0.5:
                nodes.append(helper.make_node(self.rng.choice(["Neg", "Tanh", "Abs", "Sigmoid"]), [current], [out]))
            else:
                nodes.append(helper.make_node(self.rng.choice(["Add", "Sub", "Mul"]), [current, y], [out]))
            current = out
        return nodes, [current] * outputs

    @step(0.5, "control flow")
    def branch(self) -> Sequence[Value]:
        x = self.float()
        y = self.like(x)
        if self.rng.random() < 0.5:
            scalar = self.any(lambda value: value.dtype == np.bool_)
            condition = self.g.one("Cast", scalar, to=TensorProto.INT32)
            condition = self.g.one(
                "Cast",
                self.reduced(self.g.one("Reshape", condition, self.g.ints(-1)), "ReduceSum", [0], 0),
                to=TensorProto.BOOL,
            )
        else:
            condition = self.g.const(np.array(self.rng.random() < 0.5))
        dtype, graphs = helper.np_dtype_to_tensor_dtype(x.dtype), []
        for kind in ("then", "else"):
            nodes, (out,) = self.body(self.g.fresh(kind), x.name, y.name, dtype)
            graphs.append(helper.make_graph(nodes, kind, [], [helper.make_tensor_value_info(out, dtype, None)]))
        return self.g.node("If", [condition], 1, [x, y], then_branch=graphs[0], else_branch=graphs[1])

    @step(0.4, "control flow")
    def loop(self) -> Sequence[Value]:
        x = self.float()
        y = self.like(x)
        dtype, name = helper.np_dtype_to_tensor_dtype(x.dtype), self.g.fresh("loop")
        nodes, (out,) = self.body(name, f"{name}.state", y.name, dtype)
        nodes += [helper.make_node("Identity", [f"{name}.go"], [f"{name}.on"]),
                  helper.make_node("Identity", [out], [f"{name}.row"])]  # fmt: skip
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            nodes, name,
            [info(f"{name}.i", TensorProto.INT64, []), info(f"{name}.go", TensorProto.BOOL, []),
             info(f"{name}.state", dtype, None)],
            [info(f"{name}.on", TensorProto.BOOL, []), info(out, dtype, None), info(f"{name}.row", dtype, None)],
        )  # fmt: skip
        trips = self.rng.choice([1, 2, 3, 0 if "zero sizes" in self.features else 1])
        made = self.g.node("Loop", [self.g.const(np.array(trips)), self.g.const(np.array(True)), x], 2, [y], body=body)
        return made if trips else made[:1]
