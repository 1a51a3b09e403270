"""Each planted mistake turns some test red (`tests/mutations.py`)."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests import mutations


def test_every_mutation_can_be_planted() -> None:
    """The text that it replaces occurs once, whether or not the slow test is run."""
    for each in mutations.MUTATIONS:
        text = (mutations.ROOT / each.file).read_text(encoding="utf-8")
        assert text.count(each.old) == 1, each.name
    assert len({each.name for each in mutations.MUTATIONS}) == len(mutations.MUTATIONS) >= 10


def test_every_selection_names_tests_of_its_file() -> None:
    for each in mutations.MUTATIONS:
        text = (mutations.ROOT / each.tests.file).read_text(encoding="utf-8")
        words = re.findall(r"\w+", re.sub(r"\b(?:or|and|not)\b", "", each.tests.words))
        if each.tests.file != "tests/test_named.py":  # whose cases are in other files
            assert all(word in text for word in words), each.name


@pytest.mark.slow
def test_every_mutation_turns_a_test_red(capfd: pytest.CaptureFixture[str]) -> None:
    if subprocess.run(["git", "rev-parse"], cwd=mutations.ROOT, capture_output=True, check=False).returncode:
        pytest.skip("the working tree is found by git")
    assert mutations.main([]) == 0, capfd.readouterr().out
