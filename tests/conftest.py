"""Options and environment of all tests."""

from __future__ import annotations

import os

import pytest

# Triton reads it when its own library is defined, hence before any test imports triton. With IRC_TEST_DEVICE=cuda the
# tests of kernels run them on a GPU.
if not os.environ.get("IRC_TEST_DEVICE"):
    os.environ["TRITON_INTERPRET"] = "1"

os.environ["IRC_CACHE"] = "off"  # tests of the cache name a folder of their own


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite golden files with what the code now writes")


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update"))
