"""An ONNX model that is built node by node, each node run by ONNX Runtime as soon as it is there.

The steps that add nodes see the arrays of all values, for each assignment of sizes to named dims, and can omit what the
runtime rejects or ONNX leaves undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from tests.fuzz.arrays import bfloat16
from tests.fuzz.judging import Array, is_float, other_zeros, overflowed, overflowing, perturbed, without_fractions
from tests.fuzz.steps import MOST_AXES, MOST_ELEMENTS, Argument, Reject

RUNTIME_ERRORS = (
    runtime_errors.Fail, runtime_errors.InvalidArgument, runtime_errors.InvalidGraph, runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)  # fmt: skip
IR_VERSIONS = {13: 7, 17: 8, 18: 8, 21: 10, 23: 11}

# Operators whose results are rounded; of the second kind also what they add up on the way.
ROUNDED = frozenset(
    "Add Sub Mul Div Pow Sum Mean Exp Log Sqrt Reciprocal Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh "
    "Mod PRelu LeakyRelu HardSwish ThresholdedRelu Range DequantizeLinear".split()
)
ACCUMULATED = frozenset(
    "ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare MatMul Gemm Conv "
    "ConvTranspose Einsum CumSum AveragePool GlobalAveragePool LpPool GlobalLpPool LayerNormalization "
    "InstanceNormalization GroupNormalization RMSNormalization BatchNormalization LpNormalization "
    "MeanVarianceNormalization LRN Resize Softmax LogSoftmax ScatterElements ScatterND "
    "QuantizeLinear DynamicQuantizeLinear If Loop Scan".split()
)
PRODUCTS = frozenset("MatMul Gemm Conv ConvTranspose Einsum".split())
# Of 0 and -0 either is the larger.
CHOOSING = frozenset("Relu Clip Max Min ReduceMax ReduceMin MaxPool GlobalMaxPool HardSigmoid HardSwish".split())
SCALE = 20  # a power of 2: more than sums of a few products of small weights add to the largest number
# Of bounded functions implementations promise an absolute error.
ABSOLUTE = frozenset(
    "Sigmoid Tanh Sin Cos Erf Gelu HardSigmoid Softplus Softsign Mish Swish Softmax LogSoftmax ReduceLogSumExp If Loop "
    "Scan".split()
)
# Of these 0 is a limit: ONNX Runtime's Sigmoid gives it for -32.75, and e^-32.75 is 6e-15; of f64 for -37.
TO_0 = frozenset("Sigmoid Softplus Gelu Mish Swish".split())
# exp(x) - 1 below 0 has the absolute error of exp(x), half a unit of 1 or more; above 0 these are x, or a multiple.
ABSOLUTE_BELOW_0 = frozenset("Elu Selu Celu".split())


def session(model: onnx.ModelProto, optimized: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(eq=False)
class Value:
    """A value of the graph, with its array for each assignment of sizes."""

    name: str
    arrays: list[Array]

    @property
    def dtype(self) -> Any:
        return self.arrays[0].dtype

    @property
    def rank(self) -> int:
        return self.arrays[0].ndim

    @property
    def shape(self) -> list[tuple[int, ...]]:
        """The extents of each axis, one for each assignment: equal dims have equal ones."""
        return [tuple(array.shape[axis] for array in self.arrays) for axis in range(self.rank)]

    @property
    def is_float(self) -> bool:
        return is_float(self.arrays[0])

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    @property
    def has_nan(self) -> bool:
        return self.is_float and any(np.isnan(array.astype(np.float64)).any() for array in self.arrays)


@dataclass(eq=False)
class Node:
    """One node as a program of its own; `captured` are values that its subgraphs read."""

    proto: onnx.NodeProto
    inputs: list[Value | None]
    captured: list[Value]
    opset: int
    outputs: list[Value] = field(default_factory=list)
    sessions: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @property
    def operands(self) -> list[Value]:
        return list(dict.fromkeys(value for value in [*self.inputs, *self.captured] if value is not None))

    @property
    def computes(self) -> bool:
        """Whether its results are rounded."""
        return any(self.proto.op_type in kinds for kinds in (ROUNDED, ACCUMULATED, ABSOLUTE, ABSOLUTE_BELOW_0))

    @cached_property
    def inner(self) -> frozenset[str]:
        """The operators in its subgraphs."""
        bodies = [attribute.g for attribute in self.proto.attribute if attribute.HasField("g")]
        return frozenset(node.op_type for body in bodies for node in body.node)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs for arrays of the operands, by ONNX Runtime without optimizations."""
        key = tuple(array.dtype.name for array in arrays)
        if key not in self.sessions:
            self.sessions[key] = self._session(arrays)
        runner, outputs = self.sessions[key]
        feeds = {value.name: array.astype(np.float32) if array.dtype == bfloat16() else array
                 for value, array in zip(self.operands, arrays, strict=True)}  # fmt: skip
        results = runner.run(None, feeds)
        return [np.asarray(array).astype(dtype) if dtype is not None else np.asarray(array)
                for array, dtype in zip(results, outputs, strict=True)]  # fmt: skip

    def _session(self, arrays: Sequence[Array]) -> tuple[Any, list[Any]]:
        """A session, and for each output the type that its array cannot carry."""
        infos, before = [], []
        for value, array in zip(self.operands, arrays, strict=True):
            carried = array.dtype == bfloat16()
            dtype = onnx.TensorProto.FLOAT if carried else helper.np_dtype_to_tensor_dtype(array.dtype)
            infos.append(helper.make_tensor_value_info(value.name, dtype, None))
            if carried:
                before.append(value.name)
        names = [name for name in self.proto.output if name]
        graph = onnx.GraphProto(name="one", input=infos)
        proto = self.proto
        if before:
            renamed = {name: f"{name}.bf16" for name in before}
            graph.node.extend(helper.make_node("Cast", [name], [renamed[name]], to=onnx.TensorProto.BFLOAT16)
                              for name in before)  # fmt: skip
            proto = onnx.NodeProto()
            proto.CopyFrom(self.proto)
            del proto.input[:]
            proto.input.extend(renamed.get(name, name) for name in self.proto.input)
        graph.node.append(proto)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)],
                                  ir_version=IR_VERSIONS[self.opset])  # fmt: skip
        loaded = session(model)
        carried_outputs = [output.type == "tensor(bfloat16)" for output in loaded.get_outputs()]
        if any(carried_outputs):
            del graph.output[:]
            for name, carried in zip(names, carried_outputs, strict=True):
                if carried:
                    graph.node.append(helper.make_node("Cast", [name], [f"{name}.f32"], to=onnx.TensorProto.FLOAT))
                graph.output.append(onnx.ValueInfoProto(name=f"{name}.f32" if carried else name))
            loaded = session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)],
                                               ir_version=IR_VERSIONS[self.opset]))  # fmt: skip
        return loaded, [bfloat16() if carried else None for carried in carried_outputs]


class Graph:
    """A model under construction."""

    def __init__(self, opset: int, assignments: int) -> None:
        self.opset, self.assignments = opset, assignments
        self.inputs: dict[str, tuple[Value, list[str | int]]] = {}
        self.constants: dict[Value, Array] = {}
        self.nodes: list[Node] = []
        self.count = 0

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def input(self, given: Argument) -> Value:
        value = Value(f"x{len(self.inputs)}", given.arrays)
        self.inputs[value.name] = value, given.dims
        return value

    def const(self, array: Any) -> Value:
        array = np.asarray(array)
        value = Value(self.fresh("c"), [array] * self.assignments)
        self.constants[value] = array
        return value

    def ints(self, *numbers: int) -> Value:
        return self.const(np.array(numbers, np.int64))

    def node(self, op_type: str, inputs: Sequence[Value | None], outputs: int = 1, captured: Sequence[Value] = (),
             **attributes: Any) -> list[Value]:  # fmt: skip
        """Add a node; raises Reject, and adds nothing, where ONNX Runtime does not run it."""
        names = [self.fresh() for _ in range(outputs)]
        try:  # ONNX Runtime has operators of its own under the same domain
            onnx.defs.get_schema(op_type, self.opset)
        except onnx.defs.SchemaError:
            raise Reject("not in this opset") from None
        given = {name: value for name, value in attributes.items() if value is not None}
        proto = helper.make_node(op_type, ["" if value is None else value.name for value in inputs], names, **given)
        added = Node(proto, list(inputs), list(captured), self.opset)
        try:
            results = [added.run([value.arrays[index] for value in added.operands])
                       for index in range(self.assignments)]  # fmt: skip
        except RUNTIME_ERRORS as error:
            raise Reject(str(error)) from None
        added.outputs = [Value(name, [arrays[place] for arrays in results]) for place, name in enumerate(names)]
        for value in added.outputs:
            if any(array.size > MOST_ELEMENTS for array in value.arrays) or value.rank > MOST_AXES:
                raise Reject("too large")
            if len({array.ndim for array in value.arrays}) > 1:
                raise Reject("the rank differs")
        self.nodes.append(added)
        return added.outputs

    def one(self, op_type: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.node(op_type, inputs, **attributes)[0]

    # -- the model -----------------------------------------------------------------------------------------------

    def model(self, outputs: Mapping[str, Value]) -> onnx.ModelProto:
        """The model whose outputs have these names; Identity nodes rename values."""
        needed = self._needed(list(outputs.values()))
        nodes = [node.proto for node in self.nodes if node in needed]
        nodes += [helper.make_node("Identity", [value.name], [name]) for name, value in outputs.items()
                  if value.name != name]  # fmt: skip
        read = {value for node in needed for value in node.operands} | {*outputs.values()}
        initializers = []
        for value, array in self.constants.items():
            if value in read:
                tensor = numpy_helper.from_array(array, value.name)
                if len(value.name) % 2 and array.dtype != bfloat16():  # as a node, now and then
                    nodes.insert(0, helper.make_node("Constant", [], [value.name], value=tensor))
                else:
                    initializers.append(tensor)
        infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), dims)
                 for name, (value, dims) in self.inputs.items()]  # fmt: skip
        results = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.rank)
            for name, value in outputs.items()
        ]
        graph = helper.make_graph(nodes, "fuzzed", infos, results, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)],
                                 ir_version=IR_VERSIONS[self.opset])  # fmt: skip

    def _needed(self, values: Sequence[Value]) -> set[Node]:
        makers = {value: node for node in self.nodes for value in node.outputs}
        needed: set[Node] = set()
        waiting = [makers[value] for value in values if value in makers]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += [makers[value] for value in node.operands if value in makers]
        return needed

    # -- other roundings -----------------------------------------------------------------------------------------

    def samples(self, index: int, values: Sequence[Value], count: int) -> list[list[Array]]:
        """What values could be with other roundings: perturbed, the first time with large numbers as infinities, the
        second time with sums and products of f32 in f64, the third time with products that each reader has computed for
        itself, and at last with f16 and bf16 held as f32, also where all or some data movement rounds them: ONNX
        Runtime holds a value as f32 for one reader and rounds it for another."""
        makers = self._needed(values)
        narrow = any(value.dtype in (np.float16, bfloat16()) for node in makers for value in node.outputs)
        runs = []
        products = {value for node in makers if node.proto.op_type in PRODUCTS for value in node.outputs}
        for number in range(count + (2 + count // 4) * narrow):
            wide, generator = number >= count, np.random.default_rng(number)
            known = {value: value.arrays[index] for value, _ in self.inputs.values()}
            known |= {value: value.arrays[index] for value in self.constants}
            if wide:
                known = {value: widened(array) for value, array in known.items()}
            for node in self.nodes:
                if node in makers:
                    operands = [known[value] for value in node.operands]
                    if wide:
                        results = [widened(array) for array in node.run([widened(array) for array in operands])]
                        rounds = number == count + 1 or (number > count + 1 and generator.random() < 0.5)
                        if rounds and not node.computes:
                            results = [widened(array.astype(value.dtype))
                                       for array, value in zip(results, node.outputs, strict=True)]  # fmt: skip
                    else:
                        if number == 2:
                            operands = [perturbed(array, generator) if value in products and is_float(array) else array
                                        for array, value in zip(operands, node.operands, strict=True)]  # fmt: skip
                        results = _sample(node, operands, generator, number)
                    known.update(zip(node.outputs, results, strict=True))
            runs.append([known[value].astype(value.dtype) for value in values])
        return runs


def widened(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype in (np.float16, bfloat16()) else array


def _sample(node: Node, arrays: list[Array], generator: np.random.Generator, number: int) -> list[Array]:
    """A node's outputs for one run with other roundings: the first with `overflowing` sums, the second `in_f64`, and
    with `other_zeros` of products and of what maxima and minima are chosen from."""
    kind = node.proto.op_type
    if number == 1 and kind in CHOOSING:
        arrays = list(map(other_zeros, arrays))
    if kind in ACCUMULATED:
        arrays = [perturbed(array, generator, whole_too=True) if is_float(array) else array for array in arrays]
        if number == 0:
            arrays = [overflowing(array) if is_float(array) else array for array in arrays]
    results = in_f64(node, arrays) if number == 1 and kind in ACCUMULATED else node.run(arrays)
    if number == 0 and kind == "ReduceProd" and is_float(arrays[0]):
        largest = node.run([without_fractions(arrays[0]), *arrays[1:]])
        results = list(map(overflowed, results, largest))
    if number == 1 and kind in PRODUCTS:
        results = list(map(other_zeros, results))
    if node.computes:
        x = arrays[0]
        absolute = x < 0 if kind in ABSOLUTE_BELOW_0 else kind in ABSOLUTE
        limits = not TO_0.isdisjoint(node.inner) or (kind in TO_0 | ABSOLUTE_BELOW_0 and np.isfinite(x) & (x != 0))
        whole_too = kind.endswith("Normalization")  # where 1 is a rounded x / |x|
        results = [perturbed(array, generator, absolute=absolute, limits=limits, whole_too=whole_too)
                   if is_float(array) else array for array in results]  # fmt: skip
    return results


def in_f64(node: Node, arrays: list[Array]) -> list[Array]:
    """A node's outputs as if sums and products of f32 were added up in f64: what overflows on the way in f32 alone is
    decided by their order."""
    declared = [value.dtype for value in node.outputs]
    try:
        results = node.run([array.astype(np.float64) if array.dtype == np.float32 else array for array in arrays])
    except RUNTIME_ERRORS:  # there is no such kernel
        if node.proto.op_type not in ("Conv", "ConvTranspose") or arrays[0].dtype != np.float32:
            return node.run(arrays)
        # Linear in the image and the bias, which are scaled so that no sum overflows on the way.
        scaled = [array if index == 1 else array * np.float32(2.0**-SCALE) for index, array in enumerate(arrays)]
        results = [array * 2.0**SCALE for array in (each.astype(np.float64) for each in node.run(scaled))]
    return [array.astype(dtype) for array, dtype in zip(results, declared, strict=True)]
