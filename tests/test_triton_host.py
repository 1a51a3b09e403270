"""The host calls of Triton artefacts: every primitive's PyTorch version against its NumPy reference."""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from test_primitives import PRIMITIVES, sampled_dtypes, samples

from irc.backends.triton.program import HOST, torch_type
from irc.dtypes import DType
from irc.ops import lookup

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATE = Path(__file__).parent.parent / "backends" / "triton" / "templates" / "host.py"
SAMPLES = 24  # of each operation and dtype
TYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
LOOSE = {"f32": 2e-5, "f64": 1e-9, "f16": 4e-3, "bf16": 3e-2}


def load_host() -> ModuleType:
    spec = importlib.util.spec_from_file_location("triton_host", TEMPLATE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOST_MODULE = load_host()


def to_torch(array: np.ndarray | None) -> Any:
    if array is None:
        return None
    array = np.array(array)
    return (
        torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        if array.dtype.kind == "V"
        else torch.from_numpy(array)
    )


def from_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.resolve_conj().contiguous()
    return np.asarray(tensor.double() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor)


def converted(value: Any) -> Any:
    return getattr(torch, torch_type(value)) if isinstance(value, DType) else value


@pytest.mark.parametrize("name", sorted(d.name for d in PRIMITIVES if d.name in HOST))
def test_host_call(name: str) -> None:
    definition, function, met = lookup(name), getattr(HOST_MODULE, name), 0
    for dtype in sampled_dtypes(name):
        if dtype.name not in TYPES:
            continue
        for arrays, attributes in islice(samples(name, dtype), SAMPLES):
            normal = definition.normalize(attributes)
            if any(isinstance(value, DType) and value.name not in TYPES for value in normal.values()):
                continue
            if any(array is not None and array.dtype.name in ("uint16", "uint32", "uint64") for array in arrays):
                continue
            expected = definition.evaluate(arrays, normal)
            given = {key: converted(value) for key, value in normal.items()}
            if name in ("iota", "dim"):
                given["device"] = "cpu"
            found = function(*map(to_torch, arrays), **given)
            results = found if isinstance(found, tuple) else (found,)
            for result, want in zip(results, expected, strict=True):
                compare(
                    from_torch(result),
                    want,
                    (name, dtype.name, attributes, [a if a is None else a.shape for a in arrays]),
                )
            met += 1
    assert met


def compare(found: np.ndarray, expected: np.ndarray, label: Any) -> None:
    assert found.shape == expected.shape, label
    kind = "float" if expected.dtype.kind in "fV" else "complex" if expected.dtype.kind == "c" else "exact"
    if kind == "exact":
        np.testing.assert_array_equal(found, expected, err_msg=str(label))
        return
    width = {8: "f64", 4: "f32"}.get(expected.dtype.itemsize, "bf16" if expected.dtype.kind == "V" else "f16")
    wide = expected.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wide), err_msg=str(label))
    scale = np.abs(wide[np.isfinite(wide)]).max(initial=1.0)
    np.testing.assert_allclose(found, wide, rtol=LOOSE[width], atol=1e-6 * min(scale, 1e6), err_msg=str(label))
