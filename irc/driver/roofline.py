"""Rooflines: the least time that launches can take on a device, by its published peaks.

Williams, Waterman, Patterson: Roofline, 2009. An estimate from counts, and no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from irc import dims
from irc.dims import Symbol
from irc.driver.compiling import KernelsReport, host_operations, operation_bytes
from irc.ir import Module, Operation, Value


@dataclass(frozen=True)
class Device:
    """Published peaks: bytes of memory and floating-point operations a second, dense, without sparsity.

    Sources: the data sheets of NVIDIA A100 (80 GB SXM), H100 (SXM) and B200 (HGX), and of AMD Instinct MI300X.
    """

    name: str
    bytes_per_second: float
    flops_per_second: float  # f32, outside of matrix units
    narrow_product_flops_per_second: float  # f16 and bf16, in matrix units


DEVICES = {
    "sm_80": Device("NVIDIA A100 80 GB SXM", 2.039e12, 19.5e12, 312e12),
    "sm_90": Device("NVIDIA H100 SXM", 3.35e12, 67e12, 989e12),
    "sm_100": Device("NVIDIA B200", 8.0e12, 75e12, 2250e12),
    "gfx942": Device("AMD Instinct MI300X", 5.3e12, 163.4e12, 1307e12),
}


def estimate(module: Module, report: KernelsReport, sizes: Mapping[Symbol, int], device: Device) -> float:
    """Seconds: for each kernel and host call the longer of its distinct bytes and its arithmetic at the peaks.

    Launches cost nothing in it, and host calls other than products no arithmetic.
    """
    seconds = 0.0
    for kernel in report.kernels:
        seconds += max(_ratio(kernel.distinct_bytes, device.bytes_per_second),
                       _ratio(kernel.flops, device.flops_per_second))
    for operation in host_operations(module):
        narrow = any(value.dtype.is_float and value.dtype.bits < 32 for value in operation.results)
        peak = device.narrow_product_flops_per_second if narrow else device.flops_per_second
        seconds += max(_ratio(operation_bytes(operation, sizes), device.bytes_per_second),
                       _ratio(product_flops(operation, sizes), peak))
    return seconds


def _ratio(amount: int, rate: float) -> float:
    """`amount / rate`, infinite where the amount is more than a float can be."""
    return amount / rate if amount.bit_length() <= 1000 else math.inf


def product_flops(operation: Operation, sizes: Mapping[Symbol, int]) -> int:
    """Multiplications and additions of a product or convolution; 0 of other operations."""
    if operation.name not in _MULTIPLICATIONS or not all(value.type.is_ranked for value in operation.inputs):
        return 0
    return 2 * dims.estimate(_MULTIPLICATIONS[operation.name](operation), sizes)


def _elements(value: Value, first: int = 0) -> dims.Dim:
    return math.prod(value.shape[first:], start=1)


def _of_dot(operation: Operation) -> dims.Dim:
    contracted = (operation.inputs[0].shape[axis] for axis, _ in operation.attributes["contract"])
    return math.prod(contracted, start=_elements(operation.result))


def _of_gemm(operation: Operation) -> dims.Dim:
    shape = operation.inputs[0].shape
    return _elements(operation.result) * (shape[0] if operation.attributes["transpose_a"] else shape[1])


_MULTIPLICATIONS: dict[str, Callable[[Operation], dims.Dim]] = {
    "dot": _of_dot,
    "matmul": lambda operation: _elements(operation.result) * operation.inputs[0].shape[-1],
    "gemm": _of_gemm,
    # Each element of the result is a sum over weights [out, in/groups, *window] ...
    "conv": lambda operation: _elements(operation.result) * _elements(operation.inputs[1], 1),
    # ... or each of the operand is spread by weights [in, out/groups, *window].
    "conv_transpose": lambda operation: _elements(operation.inputs[0]) * _elements(operation.inputs[1], 1),
}
