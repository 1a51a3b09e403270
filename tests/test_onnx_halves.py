"""What ONNX Runtime does to casts that follow one another: PyTorch programs give what eager PyTorch gives."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from onnxruntime.capi import onnxruntime_pybind11_state

import irc
from irc.backends.onnx.halves import KERNELS, MOVES, SELECTS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64)
WIDE = (torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)
# At and beyond the ends of types, and what each of them rounds.
NUMBERS = torch.tensor([0, 1, -1, 3, 100, 255, 256, 300, 2049, 32767, 40000, 65519, 65520, 65535, 70000, 2**24 + 1,
                        3e9 + 2**17 + 768, 2**31 - 1, 1 - 2**31, 2**40 + 12345, 2**53 + 1, 0.5, 1.7, 1e-8, 65519.9,
                        1e39, -1e39, float("inf"), float("-inf")], dtype=torch.float64)  # fmt: skip


def inside(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Which elements an integer type can hold; all where it is none."""
    if dtype.is_floating_point:
        return torch.full(x.shape, True)
    wide, info = x.double(), torch.iinfo(dtype)
    return torch.isfinite(wide) & (wide >= info.min) & (wide <= min(info.max, 2**62))


@pytest.mark.parametrize("source", WIDE, ids=str)
def test_two_casts_in_a_row(source: torch.dtype) -> None:
    pairs = [(first, then) for first, then in itertools.product((*FLOATS, *INTEGERS), repeat=2)
             if first not in (source, then)]  # fmt: skip
    operands = []
    for first, then in pairs:
        x = NUMBERS[inside(NUMBERS, source)].to(source)
        if source.is_floating_point:
            x = x[inside(x, first)]
        operands.append(x[inside(x.to(first), then)] if first.is_floating_point else x)

    def cast(*xs: torch.Tensor) -> list[torch.Tensor]:
        return [x.to(first).to(then) for x, (first, then) in zip(xs, pairs, strict=True)]

    results = irc.compile(cast, tuple(operands), backend="onnx")(*operands)
    for pair, result, expected in zip(pairs, results, cast(*operands), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True, msg=f"{source}, {pair}")


FUNCTIONS = {
    "sqrt": torch.sqrt, "sin": torch.sin, "exp": torch.exp, "minus one": lambda y: y - 1, "square": lambda y: y * y,
    "is infinite": lambda y: torch.where(y == float("inf"), 1, 0), "product": lambda y: y[None] @ y[:, None],
    "sum": lambda y: y.sum(0), "floor": torch.floor, "softmax": lambda y: y.softmax(0),
    "sorted": lambda y: y.sort().values, "argmax": lambda y: y.argmax(),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64], ids=str)
def test_what_is_cast_to_f16_is_rounded(dtype: torch.dtype) -> None:
    operands = [torch.tensor([70000, 2049, 3, -65520, 4099, 0]).to(dtype) for _ in FUNCTIONS]

    def apply(*xs: torch.Tensor) -> list[torch.Tensor]:
        return [function((x * 3).half()) for x, function in zip(xs, FUNCTIONS.values(), strict=True)]

    results = irc.compile(apply, tuple(operands), backend="onnx")(*operands)
    for name, result, expected in zip(FUNCTIONS, results, apply(*operands), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=0, equal_nan=True, msg=name)


def positions_of_records(x: torch.Tensor) -> torch.Tensor:
    best, places = x.sin().cummax(1)
    return best - best.gather(1, places)


SAME = {
    "records": positions_of_records,
    "sorted": lambda x: torch.log(x.sin().sort(1).values[:, -1:] - x.sin()).isnan(),
    "moved": lambda x: x.sin()[:, :1].sub(x.sin())[:, 0],
    "maximum": lambda x: (x.sin() == x.sin().amax(1, keepdim=True)).sum(1) == 0,
    "transposed": lambda x: (x.sin().T.reshape(-1) == x.sin().T.flatten()).logical_not(),
    "gathered": lambda x: x.exp()[torch.arange(6).flip(0)].flip(0) - x.exp(),
    "moved before": lambda x: F.max_pool1d(x.sin(), 2, 1) - torch.maximum(x.sin()[:, :-1], x.sin()[:, 1:]),
    "windows": lambda x: x.sin().unfold(1, 2, 1).amax(2) < x.sin()[:, 1:],
    "in a branch": lambda x: torch.cond(x.sum() > 0, lambda y: (y.exp()[:, :1] - y.exp())[:, 0] + 0,
                                        lambda y: y[:, 0] * 1, (x,)),
}  # fmt: skip


@pytest.mark.parametrize("program", SAME)
def test_a_result_of_f16_is_the_same_for_all_its_uses(program: str) -> None:
    """Each program gives zeros, whatever the results are rounded to."""
    x = torch.linspace(0, 3, 6 * 50).reshape(6, 50).half()
    result = irc.compile(SAME[program], (x,), backend="onnx")(x)
    assert not SAME[program](x).any() and not result.any()


def test_cast_of_positions() -> None:
    x = torch.zeros(3)
    compiled = irc.compile(lambda x: torch.arange(x.shape[0]).int(), (x,), backend="onnx",
                           dynamic_shapes={"x": {0: "S"}})
    assert torch.equal(compiled(x), torch.tensor([0, 1, 2], dtype=torch.int32))


def test_kernels_of_f16() -> None:
    """The operators for which ONNX Runtime says that it has a kernel of f16."""
    kernels = {kernel.op_name for kernel in onnxruntime_pybind11_state.get_all_opkernel_def()
               if (kernel.provider, kernel.domain) == ("CPUExecutionProvider", "")
               and any("tensor(float16)" in types for types in kernel.type_constraints.values())}  # fmt: skip
    assert KERNELS <= kernels and MOVES <= KERNELS & SELECTS
