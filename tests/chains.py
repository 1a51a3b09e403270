"""ONNX models of any depth: long chains, wide concatenations, nested branches, sizes computed from sizes.

Each builder takes the number of stages. `inputs` gives arrays of the requested sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Graph:
    """Nodes in order. Calling it with an operator and operands adds a node and gives the name of its output."""

    def __init__(self, outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = outer.constants if outer is not None else []
        self.counter: list[int] = outer.counter if outer is not None else [0]

    def fresh(self, stem: str) -> str:
        self.counter[0] += 1
        return f"{stem.lower()}_{self.counter[0]}"

    def __call__(self, op_type: str, *operands: str, **attributes: Any) -> str:
        name = self.fresh(op_type)
        self.nodes.append(helper.make_node(op_type, operands, [name], **attributes))
        return name

    def constant(self, content: Any, dtype: Any = np.int64) -> str:
        name = self.fresh("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(content, dtype), name))
        return name

    def input(self, name: str, shape: Sequence[str | int | None], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def size(self, x: str, axis: int) -> str:
        """An extent as a scalar."""
        return self("Gather", self("Shape", x), self.constant(axis), axis=0)

    def vector(self, *scalars: str) -> str:
        parts = [self("Unsqueeze", scalar, self.constant([0])) for scalar in scalars]
        return self("Concat", *parts, axis=0)

    def body(self, *outputs: str, inputs: Sequence[onnx.ValueInfoProto] = ()) -> onnx.GraphProto:
        """As the graph of an attribute; the model holds its constants."""
        kinds = [TensorProto.BOOL if name.startswith("going") else TensorProto.FLOAT for name in outputs]
        results = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)]
        return helper.make_graph(self.nodes, "body", list(inputs), results)

    def model(self, *outputs: str) -> onnx.ModelProto:
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "chain", self.inputs, results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def inputs(model: onnx.ModelProto, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    arrays = {}
    for value in model.graph.input:
        shape = [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        is_bool = value.type.tensor_type.elem_type == TensorProto.BOOL
        arrays[value.name] = np.asarray(True) if is_bool else generator.standard_normal(shape).astype(np.float32)
    return arrays


# -- sizes ----------------------------------------------------------------------------------------------------------


def same_padding(g: Graph, x: str, axis: int, kernel: int, stride: int, dilation: int, form: str) -> tuple[str, str]:
    """The padding before and after of TensorFlow's SAME, as converters write it."""
    extent, reach = g.size(x, axis), (kernel - 1) * dilation + 1
    if form == "modulo":
        rest = g("Mod", extent, g.constant(stride))
        partial = g("Max", g("Sub", g.constant(reach), rest), g.constant(0))
        amount = g("Where", g("Equal", rest, g.constant(0)), g.constant(max(reach - stride, 0)), partial)
    else:
        if form == "float":
            divided = g("Div", g("Cast", extent, to=TensorProto.FLOAT), g.constant(stride, np.float32))
            rounded = g("Cast", g("Ceil", divided), to=TensorProto.INT64)
        else:
            rounded = g("Div", g("Add", extent, g.constant(stride - 1)), g.constant(stride))
        spanned = g("Add", g("Mul", g("Sub", rounded, g.constant(1)), g.constant(stride)), g.constant(reach))
        amount = g("Max", g("Sub", spanned, extent), g.constant(0))
    before = g("Div", amount, g.constant(2))
    return before, g("Sub", amount, before)


def padded_window(g: Graph, x: str, kernel: int = 3, stride: int = 2, dilation: int = 1, form: str = "integer",
                  convolves: bool = False) -> str:
    pads = [same_padding(g, x, axis, kernel, stride, dilation, form) for axis in (2, 3)]
    none = g.constant([0, 0])
    amounts = g("Concat", none, g.vector(pads[0][0], pads[1][0]), none, g.vector(pads[0][1], pads[1][1]), axis=0)
    padded = g("Pad", x, amounts, g.constant(0, np.float32))
    if not convolves:
        return g("MaxPool", padded, kernel_shape=[kernel] * 2, strides=[stride] * 2, dilations=[dilation] * 2)
    weight = g.constant(np.full((3, 3, kernel, kernel), 0.3 / kernel), np.float32)
    return g("Conv", padded, weight, strides=[stride] * 2, dilations=[dilation] * 2)


def same_pools(stages: int, kernels: Sequence[int] = (3,), strides: Sequence[int] = (1, 2),
               dilations: Sequence[int] = (1,), form: str = "integer", convolves: bool = False) -> onnx.ModelProto:
    g = Graph()
    x = g.input("x", ["N", 3, "H", "W"])
    for stage in range(stages):
        kernel, stride, dilation = (each[stage % len(each)] for each in (kernels, strides, dilations))
        x = padded_window(g, x, kernel, stride, dilation, form, convolves)
    return g.model(x)


def same_pools_and_upsampling(stages: int) -> onnx.ModelProto:
    g = Graph()
    x = g.input("x", ["N", 3, "H", "W"])
    for stage in range(stages):
        doubled = g.constant([1, 1, 2, 2], np.float32)
        x = g("Resize", x, "", doubled, mode="nearest") if stage % 2 else padded_window(g, x)
    return g.model(x)


def reshapes(stages: int) -> onnx.ModelProto:
    """Pairs of rows side by side, an odd last one beside a row of zeros; then the first eight columns."""
    g = Graph()
    x = g.input("x", ["B", "S", 8])
    for _ in range(stages):
        batch, rows, columns = (g.size(x, axis) for axis in range(3))
        half = g("Div", g("Add", rows, g.constant(1)), g.constant(2))
        missing = g("Sub", g("Mul", half, g.constant(2)), rows)
        zero = g.constant(0)
        x = g("Pad", x, g.vector(zero, zero, zero, zero, missing, zero), g.constant(0, np.float32))
        x = g("Reshape", x, g.vector(batch, half, g("Mul", columns, g.constant(2))))
        x = g("Slice", x, g.constant([0]), g.constant([8]), g.constant([2]))
    return g.model(x)


def rounded_in_floats(stages: int) -> onnx.ModelProto:
    """Slices to floor or ceil of a part of the extent, computed in f32."""
    g = Graph()
    x = g.input("x", ["B", "S"])
    for stage in range(stages):
        part = g("Div", g("Cast", g.size(x, 1), to=TensorProto.FLOAT), g.constant(1.5, np.float32))
        end = g("Cast", g("Floor" if stage % 2 else "Ceil", part), to=TensorProto.INT64)
        x = g("Slice", g("Concat", x, x, axis=1), g.constant([0]), g.vector(end), g.constant([1]))
    return g.model(x)


def minima_and_maxima(stages: int) -> onnx.ModelProto:
    """Slices of concatenations to sizes by Min, Max and Where, each of which mentions two that mention two."""
    g = Graph()
    x, y = g.input("x", ["B", "S"]), g.input("y", ["B", "T"])
    axis, first = g.constant([1]), g.constant([0])
    for stage in range(stages):
        s, t = g.size(x, 1), g.size(y, 1)
        part = g("Add", g("Div", g("Mul", s, g.constant(3)), g.constant(2)), g.constant(stage))
        least = g("Min", part, g("Max", t, g.constant(7)))
        end = g("Where", g("Less", least, g.constant(100)), least, g.constant(100))
        x = g("Slice", g("Concat", x, y, axis=1), first, g.vector(end), axis)
        y = g("Slice", g("Concat", y, x, axis=1), first, g.vector(g("Add", g("Mul", t, g.constant(2)), g.constant(1))),
              axis)
    return g.model(x, y)


def growing_concatenations(stages: int) -> onnx.ModelProto:
    """Concatenations of 24 inputs of different extents, one more at each stage."""
    g = Graph()
    parts = [g.input(f"x{index}", ["B", f"S{index}"]) for index in range(24)]
    x = parts[0]
    for stage in range(stages):
        x = g("Concat", g("Slice", x, g.constant([0]), g.constant([60]), g.constant([1])), parts[stage % 24], axis=1)
    return g.model(x)


def branches_with_sizes(stages: int) -> onnx.ModelProto:
    """An If at each stage whose branches pad by sizes of their own."""
    g = Graph()
    x, condition = g.input("x", ["N", 3, "H", "W"]), g.input("condition", [], TensorProto.BOOL)
    for stage in range(stages):
        then, other = Graph(g), Graph(g)
        pooled = padded_window(then, x, stride=1 + stage % 2)
        other_pooled = padded_window(other, x, kernel=5, stride=1 + stage % 2)
        x = g("If", condition, then_branch=then.body(pooled), else_branch=other.body(other_pooled))
    return g.model(x)


def loops_with_sizes(stages: int) -> onnx.ModelProto:
    """A Loop of two rounds at each stage whose body pads and pools what it carries."""
    g = Graph()
    x = g.input("x", ["N", 3, "H", "W"])
    for _ in range(stages):
        inner = Graph(g)
        number, going, carried = (inner.fresh(stem) for stem in ("number", "going", "carried"))
        taken = [helper.make_tensor_value_info(number, TensorProto.INT64, []),
                 helper.make_tensor_value_info(going, TensorProto.BOOL, []),
                 helper.make_tensor_value_info(carried, TensorProto.FLOAT, None)]
        pooled = padded_window(inner, carried)
        again = inner.fresh("going")
        inner.nodes.append(helper.make_node("Identity", [going], [again]))
        x = g("Loop", g.constant(2), "", x, body=inner.body(again, pooled, inputs=taken))
    return g.model(x)


# -- structure ------------------------------------------------------------------------------------------------------


def pointwise(stages: int) -> onnx.ModelProto:
    g = Graph()
    x = g.input("x", ["N"])
    for stage in range(stages):
        x = g(("Relu", "Neg", "Tanh", "Abs")[stage % 4], x)
    return g.model(x)


def reductions(stages: int) -> onnx.ModelProto:
    """Each row less its mean, then more than its least by a maximum."""
    g = Graph()
    x = g.input("x", ["B", "S"])
    for stage in range(stages):
        x = g("Sub", x, g(("ReduceMean", "ReduceMax")[stage % 2], x, axes=[1]))
    return g.model(x)


def wide_concatenation(stages: int) -> onnx.ModelProto:
    g = Graph()
    x, factors = g.input("x", ["N"]), [g.constant(number + 0.5, np.float32) for number in range(5)]
    parts = [g("Mul", x, factors[stage % 5]) for stage in range(stages)]
    return g.model(g("Concat", *parts, axis=0))


def nested_branches(stages: int) -> onnx.ModelProto:
    """If in If in If."""
    g = Graph()
    x, condition = g.input("x", ["N"]), g.input("condition", [], TensorProto.BOOL)
    inner = Graph(g)
    body = inner.body(inner("Relu", x))
    for _ in range(stages):
        other, around = Graph(g), Graph(g)
        negated = other.body(other("Neg", x))
        body = around.body(around("If", condition, then_branch=body, else_branch=negated))
    g.nodes.extend(body.node)
    return g.model(g.nodes[-1].output[0])


def transformer(stages: int) -> onnx.ModelProto:
    """Blocks of attention and a feed-forward part, decomposed: about 40 nodes a stage."""
    g = Graph()
    x = g.input("x", ["B", "S", 8])
    generator = np.random.default_rng(0)

    def weight(*shape: int) -> str:
        return g.constant(generator.standard_normal(shape) / 4, np.float32)

    def normalized(x: str) -> str:
        centered = g("Sub", x, g("ReduceMean", x, axes=[-1]))
        variance = g("ReduceMean", g("Mul", centered, centered), axes=[-1])
        divided = g("Div", centered, g("Sqrt", g("Add", variance, g.constant(1e-5, np.float32))))
        return g("Add", g("Mul", divided, weight(8)), weight(8))

    for _ in range(stages):
        h = normalized(x)
        batch, length = g.size(x, 0), g.size(x, 1)
        shape = g.vector(batch, length, g.constant(2), g.constant(4))
        query, key, value = (g("Transpose", g("Reshape", g("MatMul", h, weight(8, 8)), shape), perm=[0, 2, 1, 3])
                             for _ in range(3))
        scores = g("MatMul", query, g("Transpose", key, perm=[0, 1, 3, 2]))
        weights = g("Softmax", g("Mul", scores, g.constant(0.5, np.float32)), axis=-1)
        mixed = g("Transpose", g("MatMul", weights, value), perm=[0, 2, 1, 3])
        flat = g("Reshape", mixed, g.vector(batch, length, g.constant(8)))
        x = g("Add", x, g("MatMul", flat, weight(8, 8)))
        inner = g("MatMul", normalized(x), weight(8, 16))
        activated = g("Mul", inner, g("Sigmoid", inner))
        x = g("Add", x, g("MatMul", activated, weight(16, 8)))
    return g.model(x)


def joined_inputs(count: int, names: Callable[[int], str | None] = "S{}".format) -> onnx.ModelProto:
    """One input for each stage, with a dim of its own."""
    g = Graph()
    return g.model(g("Concat", *(g.input(f"x{index}", [names(index), 8]) for index in range(count)), axis=0))


def summed_inputs(count: int) -> onnx.ModelProto:
    """A sum, one by one, of inputs that broadcast, each with a dim of its own."""
    g = Graph()
    x, *others = (g.input(f"x{index}", [f"S{index}", 8]) for index in range(count))
    for other in others:
        x = g("Add", x, other)
    return g.model(x)


SIZES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "SAME pools": same_pools,
    "SAME pools of odd kernels": lambda stages: same_pools(stages, (3, 2, 5, 7), (1, 2, 3), (1, 2)),
    "SAME pools, wide strides": lambda stages: same_pools(stages, (2, 1), (3, 2)),
    "SAME convolutions": lambda stages: same_pools(stages, strides=(2,), convolves=True),
    "SAME in floats": lambda stages: same_pools(stages, form="float"),
    "SAME by modulo": lambda stages: same_pools(stages, form="modulo"),
    "SAME pools and upsampling": same_pools_and_upsampling,
    "reshapes": reshapes,
    "rounded in floats": rounded_in_floats,
    "minima and maxima": minima_and_maxima,
    "growing concatenations": growing_concatenations,
    "branches with sizes": branches_with_sizes,
    "loops with sizes": loops_with_sizes,
}
STRUCTURE: dict[str, Callable[[int], onnx.ModelProto]] = {
    "pointwise": pointwise,
    "reductions": reductions,
    "wide concatenation": wide_concatenation,
    "joined inputs": joined_inputs,
    "summed inputs": summed_inputs,
    "nested branches": nested_branches,
    "transformer": transformer,
}
