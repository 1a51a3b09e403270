"""What PyTorch programs do: each method adds some lines, and gives the variables that later steps may use.

A method raises Reject where it does not fit, as does what eager PyTorch rejects. What PyTorch leaves undefined is not
made; LEFT_OPEN says where.
"""

from __future__ import annotations

from tests.fuzz.torch_elementwise_steps import ElementwiseSteps
from tests.fuzz.torch_movement_steps import MovementSteps
from tests.fuzz.torch_numeric_steps import NumericSteps

# Operation -> what PyTorch leaves open about it, so that eager PyTorch is no oracle there.
LEFT_OPEN = {
    "casts": "floats that are NaN, infinite or out of the range of an integer type",
    "division": "the smallest integer by -1, truncating (eager PyTorch is killed)",
    "index_put_, scatter_": "equal indices, which assign in no order",
    "view(dtype), signbit, copysign": "the bits of NaN",
    "var_mean": "the mean beside an infinity, NaN by Welford's algorithm",
    "attention": "NaN and infinities, also of keys and values that are masked (eager PyTorch differs by its kernel)",
    "alpha of add and sub": "a product out of range of a sum within it (fused in eager PyTorch, by most kernels)",
    "median, topk, kthvalue": "which of equal elements it is",
}


class TorchSteps(ElementwiseSteps, MovementSteps, NumericSteps):
    """The steps of one program."""
