"""What tests of torch.compile(..., backend="irc") share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import irc


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test compiles again, and its report has its own graphs only."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    irc.report(clear=True)
    yield
    torch._dynamo.reset()


def compiled(program: Any, **options: Any) -> Any:
    return torch.compile(program, backend="irc", options=options or None)


def close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
