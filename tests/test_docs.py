"""The documents are run: every `console` block types its commands, every `python` block is executed.

Output below a command must match, where `...` stands for anything (in a line, or for lines). The commands of one
document share a copy of `examples/`, in order. Blocks of other languages (text, irc) are excerpts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "TUTORIAL.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[tuple[str, str, int]]:
    text = document.read_text()
    return [(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in FENCE.finditer(text)]


def commands(block: str) -> list[tuple[str, list[str]]]:
    """(command, expected output lines) of a console block; a line that ends in a backslash goes on."""
    examples: list[tuple[str, list[str]]] = []
    going = False
    for line in block.splitlines():
        if going:
            examples[-1] = (examples[-1][0] + "\n" + line.strip(), [])
        elif line.startswith("$ "):
            examples.append((line[2:], []))
        elif examples:
            examples[-1][1].append(line.rstrip())
        going = (going or line.startswith("$ ")) and line.endswith("\\")
    return examples


def matches(expected: list[str], actual: str) -> bool:
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*?") + r"[ ]*\n"
        for line in expected
    )
    return re.fullmatch(pattern, actual.rstrip() + "\n") is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_runs(document: Path, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".py", ".irc", ".safetensors"):
            (examples / file.name).write_bytes(file.read_bytes())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "110", "PYTHONPATH": str(ROOT)}
    for language, block, line in blocks(document):
        if language == "python":
            done = subprocess.run(
                [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{document.name}:{line}\n{done.stdout}{done.stderr}"
        elif language == "console":
            for command, expected in commands(block):
                done = subprocess.run(
                    ["bash", "-c", command.split("   #")[0]],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                )
                output = done.stdout + done.stderr
                assert "Traceback" not in output, f"{document.name}:{line}: {command}\n{output}"
                assert done.returncode in (0, 1, 2, 3, 4), f"{document.name}:{line}: {command}\n{output}"
                if expected:
                    assert matches(expected, output), (
                        f"{document.name}:{line}: {command}\nexpected:\n" + "\n".join(expected) + f"\ngot:\n{output}"
                    )
                else:
                    assert done.returncode == 0, f"{document.name}:{line}: {command}\n{output}"


def test_every_document_is_found() -> None:
    assert all(document.is_file() for document in DOCUMENTS)
    assert sum(len(blocks(document)) for document in DOCUMENTS) >= 20


def test_readme_counts_the_operators_of_pytorch() -> None:
    stated = re.search(r"Of the (\d+) operators for which .* (\d+) give", (ROOT / "README.md").read_text())
    measured = re.search(r"of (\d+) operators (\d+) pass", (ROOT / "tests" / "torch_samples.txt").read_text())
    assert stated is not None and measured is not None and stated.groups() == measured.groups()
