"""A few of PyTorch's samples of its operators with edges in them, on every path: `torch_edge_samples.py` tries all."""

from __future__ import annotations

import pytest

pytest.importorskip("expecttest")
pytest.importorskip("onnxruntime")
pytest.importorskip("triton")

from torch_edge_samples import differences

QUICK = "addr", "ldexp", "scatter_reduce.amin"
OTHERS = "clamp", "index_reduce.amax", "fmin", "nn.functional.interpolate.nearest", "where", "cumsum"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_samples_with_edges(name: str) -> None:
    assert not differences(name)
