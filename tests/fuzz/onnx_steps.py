"""What ONNX programs do: each method adds some nodes, and gives the values that later steps may use.

A method raises Reject where it does not fit. What ONNX leaves undefined is not made; LEFT_OPEN says where.
"""

from __future__ import annotations

from tests.fuzz.onnx_dynamic_steps import DynamicSteps
from tests.fuzz.onnx_elementwise_steps import ElementwiseSteps
from tests.fuzz.onnx_movement_steps import MovementSteps
from tests.fuzz.onnx_numeric_steps import NumericSteps

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
    "LogSoftmax": "of f64 in a row with inf or NaN, -inf or a number where that is subtracted",
    "Pow": "first powers of i64 in f64, so that large ones are rounded",
    "Loop": "without iterations, results of one axis where those of an iteration would be stacked",
}


class OnnxSteps(ElementwiseSteps, MovementSteps, NumericSteps, DynamicSteps):
    """The steps of one model."""
