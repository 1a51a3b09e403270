"""Special functions in f64 against SciPy, within the errors that their rows state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
pytest.importorskip("scipy")

import scipy.special as scipy_special
import torch
from test_torch_gradients import PATHS, run
from torch import special

pytestmark = pytest.mark.filterwarnings("ignore")
draw = np.random.default_rng(0)
SMALL = draw.uniform(1e-3, 30, 200)
POSITIVE = np.concatenate([SMALL, 10 ** draw.uniform(-8, 2.5, 200)])
NEGATIVE = 0.013 - SMALL  # none of them near a pole, where the error of the argument itself is larger
REAL = np.concatenate([POSITIVE, -POSITIVE])
UNIT = np.concatenate([draw.uniform(-1, 1, 300), 1 - 10 ** draw.uniform(-12, 0, 100)])
PROBABILITY = np.concatenate([draw.uniform(0, 1, 300), 10 ** draw.uniform(-200, 0, 100)])
ORDER = draw.uniform(1.01, 30, 400)
INPUTS = (POSITIVE, NEGATIVE, REAL, UNIT, PROBABILITY, ORDER)
RELATIVE, LEAST = 1e-13, 1.0
Function = Callable[..., Any]
# By name: PyTorch's function, SciPy's, the inputs, and whether the error is relative where the result is below 1.
FUNCTIONS: dict[str, tuple[Function, Function, tuple[int, ...], bool]] = {
    "lgamma": (torch.lgamma, scipy_special.gammaln, (2,), False),
    "digamma": (torch.digamma, scipy_special.psi, (0,), False),
    "digamma below 0": (torch.digamma, scipy_special.psi, (1,), False),
    "trigamma": (lambda x: torch.polygamma(1, x), lambda x: scipy_special.polygamma(1, x), (0,), True),
    "polygamma 3": (lambda x: torch.polygamma(3, x), lambda x: scipy_special.polygamma(3, x), (0,), True),
    "zeta": (special.zeta, scipy_special.zeta, (5, 0), True),
    "i0": (torch.i0, scipy_special.i0, (2,), True),
    "i0e": (special.i0e, scipy_special.i0e, (2,), True),
    "i1": (special.i1, scipy_special.i1, (2,), True),
    "i1e": (special.i1e, scipy_special.i1e, (2,), True),
    "k0": (special.modified_bessel_k0, scipy_special.k0, (0,), True),
    "k1": (special.modified_bessel_k1, scipy_special.k1, (0,), True),
    "k0e": (special.scaled_modified_bessel_k0, scipy_special.k0e, (0,), True),
    "k1e": (special.scaled_modified_bessel_k1, scipy_special.k1e, (0,), True),
    "spherical j0": (special.spherical_bessel_j0, lambda x: scipy_special.spherical_jn(0, x), (0,), True),
    "erfinv": (torch.erfinv, scipy_special.erfinv, (3,), True),
    "ndtri": (special.ndtri, scipy_special.ndtri, (4,), True),
    "erfcx": (special.erfcx, scipy_special.erfcx, (0,), True),
}


def program(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(function(*(inputs[index] for index in taken)) for function, _, taken, _ in FUNCTIONS.values())


@pytest.mark.parametrize("path", PATHS)
def test_errors_are_as_stated(path: str) -> None:
    results = run(path, program, *map(torch.from_numpy, INPUTS))
    for (name, (_, exact, taken, is_relative)), result in zip(FUNCTIONS.items(), results, strict=True):
        assert result.dtype == torch.float64
        expected = exact(*(INPUTS[index] for index in taken))
        known = np.isfinite(expected)
        assert known.mean() > 0.9, name
        size = np.abs(expected) if is_relative else np.maximum(np.abs(expected), LEAST)
        error = np.abs(result.numpy() - expected)[known] / size[known]
        assert error.max() < RELATIVE, (name, error.max())
        np.testing.assert_array_equal(result.numpy()[~known], expected[~known])
