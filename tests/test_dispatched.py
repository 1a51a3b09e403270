"""Launches, calls and bytes that irc reports are those of what it emits, counted from outside as it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import irc
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from tests.benchmarks.dispatched import DTYPES, compared, is_worse, model
from tests.onnx_models import imported

pytest.importorskip("triton")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["encoder_masked", "decoder_fused", "segformer"])
def test_reported_figures_are_those_dispatched(name: str, dtype: str) -> None:
    """`python -m tests.benchmarks.dispatched` has all blocks and architectures."""
    module, inputs = model(name, DTYPES[dtype])
    rows = list(compared(torch.export.export(module, inputs), inputs, name, dtype))
    for row in rows:
        assert row.reported == row.dispatched, row
    assert not is_worse(rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_libraries(dtype: str) -> None:
    """A block of BERT: products with their biases in one call, attention whole, nothing converted or copied."""
    module, inputs = model("encoder", DTYPES[dtype])
    report = irc.kernels(irc.from_torch(torch.export.export(module, inputs)))
    assert report.label == "counted" and report.host_operations == 0
    dispatched = [name for call in report.calls for name in call.dispatched]
    assert set(dispatched) == {"addmm", "scaled_dot_product_attention"} and len(dispatched) == report.library_calls


def test_programs_of_unknown_rank_are_estimated() -> None:
    module = irc.opt(irc.trace(lambda x: irc.ops.exp(irc.ops.neg(x)), "f32[*]"), find_backend("triton").PIPELINE)
    operations, not_counted = find_backend("triton").device_operations(module, {})
    assert operations and not_counted == "the rank of %x is not known"


def test_externs_of_types_that_pytorch_has_not(tmp_path: Path) -> None:
    graph = "(float[N] x) => (float[N] y) { h = Cast<to = 24, round_mode = \"up\">(x) y = Cast<to = 1>(h) }"
    with pytest.raises(IrcError, match="PyTorch has no f8e8m0") as caught:
        irc.compile(imported(graph, 24), backend="triton", output=tmp_path / "out")
    assert caught.value.code == "backend.unsupported" and not (tmp_path / "out").exists()
