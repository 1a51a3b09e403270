"""Options and environment of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.browser import Browser, find_chromium

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


@pytest.fixture
def interrupts() -> Iterator[None]:
    """That SIGINT interrupts this process, and those that it starts: a shell has jobs in its background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """An installed Chromium or Chrome, for tests that are marked `needs_browser`."""
    program = find_chromium()
    assert program is not None
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
