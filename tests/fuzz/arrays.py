"""Random arrays for inputs and constants: ordinary numbers, and those at which arithmetic has its edges."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-40, 3e38, -1e30, 0.5, 2.5, -1.5)
HALVES = (0.5, 1.5, 2.5, -0.5, -1.5, 1.0, 2.0, 0.0)


def draw(rng: random.Random, dtype: Any, shape: Sequence[int], *, special: bool = False, limits: bool = False) -> Array:
    """An array of any numeric dtype. With `special` some floats are from SPECIAL, with `limits` some integers are at
    the ends of the type. Equal numbers are frequent, so that comparisons are true and maxima are met twice."""
    generator, dtype = np.random.default_rng(rng.getrandbits(64)), np.dtype(dtype)
    shape = tuple(shape)
    if dtype == np.bool_:
        return np.asarray(generator.integers(0, 2, shape).astype(bool))
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        array = generator.integers(0 if dtype.kind == "u" else -4, 6, shape).astype(dtype)
        edges = np.array([info.min, info.max, info.min + 1, info.max - 1, info.max // 2, 0, 1], dtype)
        return mixed(generator, array, edges, 0.5) if limits else np.asarray(array)
    array = generator.standard_normal(shape) * rng.choice([1.0, 1.0, 1.0, 4.0])
    array = mixed(generator, array, np.array(HALVES), 0.15)
    if special:
        array = mixed(generator, array, np.array(SPECIAL), rng.choice([0.1, 0.3]))
    with np.errstate(all="ignore"):
        return np.asarray(array.astype(np.float64)).astype(dtype)


def mixed(generator: np.random.Generator, array: Array, others: Array, share: float) -> Array:
    """The array with a share of its elements replaced by some of the others."""
    chosen = others[generator.integers(0, len(others), array.shape)]
    return np.asarray(np.where(generator.random(array.shape) < share, chosen, array)).astype(array.dtype)


def bfloat16() -> Any:
    return np.dtype(ml_dtypes.bfloat16)
