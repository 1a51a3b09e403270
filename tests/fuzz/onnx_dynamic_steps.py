"""Steps of ONNX programs: sizes as data, control flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzz.onnx_choices import OnnxChoices
from tests.fuzz.onnx_graph import Value
from tests.fuzz.steps import Reject, is_static, step


class DynamicSteps(OnnxChoices):
    """Steps of ONNX programs: sizes as data, control flow."""

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
        value = self.g.one("Range", self.g.const(np.array(0)), extent, self.g.const(np.array(1)))
        dtype = np.dtype(self.rng.choice([np.int32, np.int64, np.uint8, np.int8, np.float32]))
        if dtype != np.int64:
            self.castable(value, dtype)
            value = self.g.one("Cast", value, to=helper.np_dtype_to_tensor_dtype(dtype))
        if dtype.kind in "iu" and "integer limits" in self.features:
            factor = {"int8": 77, "uint8": 201, "int32": 1664525000, "int64": 2**62 + 3}[dtype.name]
            value = self.g.one("Mul", value, self.g.const(np.array(factor, dtype)))
            value = self.g.one("Add", value, self.g.const(np.array(self.rng.choice([1, 100]), dtype)))
        return [value]

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
        final = self.g.node("Loop", [self.g.const(np.array(trips)), self.g.const(np.array(True)), x], 2, [y], body=body)
        return final if trips else final[:1]
