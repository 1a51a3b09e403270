"""How tests of the ONNX frontend build and inspect models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import imported

from irc.diagnostics import IrcError
from irc.frontends.onnx.weights import read_weights
from irc.module import Module

RANDOM = np.random.default_rng(0)
READERS = {".onnx": read_weights}


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def types(module: Module) -> list[str]:
    return [str(value.type) for value in module.main.returned]


def failure(graph: str, code: str, opset: int = 17, **options: Any) -> str:
    """The whole text of the error that importing this model gives."""
    with pytest.raises(IrcError) as caught:
        imported(graph, opset, **options)
    assert caught.value.code == code
    return str(caught.value)
