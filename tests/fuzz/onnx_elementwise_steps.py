"""Steps of ONNX programs: elementwise operators and conversions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.arrays import bfloat16
from tests.fuzz.onnx_choices import FLOATS, INTEGERS, OnnxChoices
from tests.fuzz.onnx_graph import Value
from tests.fuzz.steps import Reject, broadcast, step

SAFE = ("Neg", "Abs", "Tanh", "Sigmoid", "Floor", "Ceil", "Round", "Erf", "Sin", "Cos", "Atan", "Softsign", "Elu",
        "LeakyRelu", "HardSigmoid", "Identity", "Selu", "Celu", "Softplus", "Exp", "Reciprocal", "Sqrt", "Log",
        "Mish", "Gelu", "HardSwish", "ThresholdedRelu")  # fmt: skip


class ElementwiseSteps(OnnxChoices):
    """Steps of ONNX programs: elementwise operators and conversions."""

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
        fmod = self.rng.randint(0, 1)
        if fmod and any((np.abs(array.astype(np.float64)) > 2**53).any() for array in x.arrays):
            raise Reject("ONNX Runtime computes fmod of integers in f64")
        return [self.g.one("Mod", x, self.divisor(x, y), fmod=fmod)]

    @step(0.7)
    def power(self) -> Sequence[Value]:
        x = self.any(lambda value: value.is_float or value.dtype in (np.int32, np.int64))
        exponent = self.rng.choice([0, 1, 2, 3] if x.is_integer else [0, 1, 2, 3, 0.5, -1, 2.5])
        if x.is_integer and exponent:
            exact = 2.0 ** min(53, x.dtype.itemsize * 8 - 1)
            if any((np.abs(array.astype(np.float64)) ** exponent >= exact).any() for array in x.arrays):
                raise Reject("ONNX Runtime computes powers of integers in f64, and docs/numerics.md says so")
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
        result = self.g.one(op_type, x, self.broadcastable(x))
        return [result, self.g.one("Not", result)] if self.rng.random() < 0.3 else [result]

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
        result = self.g.one("Cast", x, to=helper.np_dtype_to_tensor_dtype(to))
        if to != bfloat16():
            return [result]
        return [result, self.g.one("Cast", result, to=TensorProto.FLOAT)]
