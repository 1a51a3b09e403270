"""Steps of ONNX programs: shapes, slices, indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.fuzz import arrays as random_arrays
from tests.fuzz.arrays import bfloat16
from tests.fuzz.onnx_choices import OnnxChoices
from tests.fuzz.onnx_graph import Value
from tests.fuzz.steps import Reject, broadcast, is_static, step


class MovementSteps(OnnxChoices):
    """Steps of ONNX programs: shapes, slices, indices."""

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
        positions = self.indices(min(x.shape[axis]), shape)
        return [self.g.one("Gather", x, self.g.const(positions), axis=axis)]

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
        positions = self.indices(x.shape[axis][0], shape)
        return [self.g.one("GatherElements", x, self.g.const(positions), axis=axis)]

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
