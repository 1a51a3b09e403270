"""Constant factors beside products in models for ONNX Runtime, whose optimizations make them one node with an f32
factor that must be finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

import irc
from irc.backends.onnx import PIPELINE, emit
from tests.test_onnx_backend import run_model

FACTORS = [float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 0.1, 3.0, -0.5, 1e30, 1e300, 1e-300, 5e-324]
FORMS: dict[str, Callable[..., Any]] = {
    "before": lambda x, w, c: (x * c) @ w,
    "before, on the right": lambda x, w, c: x @ (c * w),
    "behind": lambda x, w, c: (x @ w) * c,
    "divided before": lambda x, w, c: (x / c) @ w,
    "divided after": lambda x, w, c: (x @ w) / c,
    "through a transpose": lambda x, w, c: (x * c).transpose(0, 1) @ w,
    "twice": lambda x, w, c: ((x * c) * 0.7) @ w,
    "between two": lambda x, w, c: ((x @ w) * c) @ w,
    "also returned": lambda x, w, c: (x * c, (x * c) @ w),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_factor_beside_a_product_is_kept(dtype: torch.dtype) -> None:
    cases = [(form, factor) for form in FORMS for factor in FACTORS]

    def program(x: torch.Tensor, w: torch.Tensor) -> list[Any]:
        return [FORMS[form](x[index], w, factor) for index, (form, factor) in enumerate(cases)]

    generator = torch.Generator().manual_seed(3)
    x, w = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((len(cases), 3, 3), (3, 3)))
    x[:, 0, 0], w[1, 2] = 0.0, float("inf")
    module = irc.opt(irc.from_torch(program, (x, w)), PIPELINE, backend="onnx")
    actual = iter(run_model(emit(module), {"x": x.numpy(), "w": w.numpy()}, optimized=True).values())
    for case, expected in zip(cases, program(x, w), strict=True):
        for tensor in tree_leaves(expected):
            tolerance = 1e-13 if dtype is torch.float64 else 1e-5
            np.testing.assert_allclose(next(actual), tensor.numpy(), tolerance, err_msg=str(case))
