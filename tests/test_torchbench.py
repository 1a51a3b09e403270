"""Models as torchbench has them under `torch.compile(backend="irc")`: results, and how many graphs are compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch._dynamo.testing import CompileCounterWithBackend

import irc
from tests.models import relative_error
from tests.torchbench import MODELS, build, flat

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = ("shufflenet", "dlrm", "gcn", "tcn", "deepspeech", "albert", "actor")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    irc.report(clear=True)
    yield
    torch._dynamo.reset()


NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", NAMES)
def test_as_eager(name: str) -> None:
    """Within 1e-5, relative; in one graph, as PyTorch captures, of which irc compiles every operation."""
    module, inputs = build(name)
    counter, reference = CompileCounterWithBackend("irc"), CompileCounterWithBackend("eager")
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        expected = flat(module(*inputs))
        torch.compile(module, backend=reference)(*inputs)
        torch._dynamo.reset()
        program = torch.compile(module, backend=counter)
        for _ in range(2):
            for result, exact in zip(flat(program(*inputs)), expected, strict=True):
                assert result.dtype == exact.dtype and result.shape == exact.shape
                assert relative_error(result.numpy(), exact.numpy()) <= 1e-5
    assert counter.frame_count == reference.frame_count and counter.op_count == reference.op_count
    graphs = irc.report().graphs
    assert len(graphs) == counter.frame_count
    assert not any(graph.in_pytorch for graph in graphs), irc.report()
