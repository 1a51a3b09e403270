"""Models of transformers from their configurations, static and dynamic, through both backends, compute what eager
PyTorch computes. Those that are not marked slow are one of each kind."""

from __future__ import annotations

from functools import lru_cache

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("triton")

import torch

import irc
from irc.module import Module
from tests.architectures import Example
from tests.models import relative_error
from tests.transformers_models import MODELS, build

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = ("static", "dynamic")
QUICK = {("albert", "static"), ("gemma3", "dynamic"), ("opt_cached", "dynamic"), ("mixtral", "dynamic"),
         ("mamba", "static"), ("deit", "dynamic"), ("wav2vec2", "static"), ("clip", "dynamic")}  # fmt: skip
CASES = [
    pytest.param(name, sizes, marks=[] if (name, sizes) in QUICK else pytest.mark.slow)
    for name in MODELS
    for sizes in SIZES
    if (name, sizes) != ("d_fine", "dynamic")  # its own code makes a number of the batch
]


@lru_cache(maxsize=1)
def read(name: str, sizes: str) -> tuple[Example, Module]:
    if name in ("gemma3", "mixtral") and sizes == "dynamic" and torch.__version__ < "2.12":
        pytest.skip("PyTorch 2.11 does not know that min(4*length, 8*length) is 4*length")
    case = build(name)
    dynamic = case.dynamic if sizes == "dynamic" else None
    return case, irc.from_torch(case.module, tuple(case.inputs.values()), dynamic_shapes=dynamic, name=name)


@pytest.mark.parametrize("name, sizes", CASES)
def test_as_eager(name: str, sizes: str) -> None:
    """Within 1e-5, relative, with no operation kept as it is; dynamic ones at other sizes than the example's."""
    case, module = read(name, sizes)
    assert not [operation for operation in module.walk() if operation.name == "extern"]
    inputs = case.others if sizes == "dynamic" else case.inputs
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(case.module(*inputs.values()))
    for backend in ("onnx", "triton"):
        outputs = irc.run(module, {key: value.numpy() for key, value in inputs.items()}, backend=backend).outputs
        for output, reference in zip(outputs.values(), expected, strict=True):
            assert relative_error(output, reference.numpy()) <= 1e-5, backend
