"""Each planted mistake turns some test red (`tests/mutations.py`)."""

from __future__ import annotations

import subprocess

import pytest

from tests import mutations


def test_every_mutation_can_be_planted() -> None:
    """The text that it replaces occurs once, whether or not the slow test is run."""
    for each in mutations.MUTATIONS:
        text = (mutations.ROOT / each.file).read_text(encoding="utf-8")
        assert text.count(each.old) == 1, each.name
    assert len({each.name for each in mutations.MUTATIONS}) == len(mutations.MUTATIONS) >= 10


@pytest.mark.slow
def test_every_mutation_turns_a_test_red(capfd: pytest.CaptureFixture[str]) -> None:
    if subprocess.run(["git", "rev-parse"], cwd=mutations.ROOT, capture_output=True, check=False).returncode:
        pytest.skip("the working tree is found by git")
    assert mutations.main([]) == 0, capfd.readouterr().out
