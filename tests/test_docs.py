"""The documents are run: every `console` block types its commands, every `python` block is executed.

Output below a command must match, where `...` stands for anything (in a line, or for lines). The commands of one
document share a copy of `examples/`, in order. Blocks of other languages (text, irc) are excerpts.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from irc.device import DEFAULT_DEVICE, find_device
from tests.benchmarks.networks import NETWORKS
from tests.benchmarks.products import WITH_PRODUCTS, row
from tests.blocks import BLOCKS
from tests.command_line import Result, irc_here

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINKED = [*DOCUMENTS, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
LONGEST_README = 220  # lines, without what is folded
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUOTED = re.compile(r"'[^']*'|\"[^\"$`]*\"")
SHELL = re.compile(r"[;&<>$`*?~(){}#]")  # what only a shell interprets
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


# Runs the blocks that it reads, each with names of its own, and writes what went wrong: PyTorch is imported once.
RUNNER = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what blocks print
for line in sys.stdin:
    place, block = json.loads(line)
    try:
        exec(compile(block, place, "exec"), {"__name__": "__main__"})
    except BaseException:
        print(json.dumps(traceback.format_exc()), file=answers, flush=True)
    else:
        print(json.dumps(""), file=answers, flush=True)
"""


class Session:
    """A Python in which the blocks of a document are run, one after the other. It begins with the first one."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.process: subprocess.Popen[str] | None = None

    def run(self, block: str, place: str) -> str:
        """What went wrong in a block."""
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, "-c", RUNNER], cwd=self.folder, env=self.environment,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([place, block]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        return str(json.loads(answer)) if answer else f"Python ended with status {self.process.wait()}"

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate(timeout=60)


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


def run_command(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit status and the output of a line that is typed into a shell. Where the line has `irc` alone, or pipes
    between such, it runs in this process: importing PyTorch for each command would take most of the time."""
    line = command.split("   #")[0].replace("\\\n", " ")
    parts = [shlex.split(part) for part in line.split(" | ")] if not SHELL.search(QUOTED.sub("", line)) else []
    if not parts or any(part[0] != "irc" for part in parts):
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    result, errors = Result(0, "", ""), ""
    for _, *arguments in parts:
        result = irc_here(*arguments, folder=folder, stdin=result.out.encode())
        errors += result.err
    return result.code, result.out + errors


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".py", ".irc", ".safetensors"):
            (examples / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("COLUMNS", "110")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    session = Session(tmp_path, environment)
    request.addfinalizer(session.close)
    for language, block, line in blocks(document):
        place = f"{document.name}:{line}"
        if language == "python":
            wrong = session.run(block, place)
            assert not wrong, wrong
        elif language == "console":
            for command, expected in commands(block):
                code, output = run_command(command, tmp_path, environment)
                assert "Traceback" not in output, f"{place}: {command}\n{output}"
                assert code in (0, 1, 2, 3, 4), f"{place}: {command}\n{output}"
                if expected:
                    expected_text = "\n".join(expected)
                    assert matches(expected, output), f"{place}: {command}\nexpected:\n{expected_text}\ngot:\n{output}"
                else:
                    assert code == 0, f"{place}: {command}\n{output}"


def test_every_document_is_found() -> None:
    assert all(document.is_file() for document in DOCUMENTS)
    assert sum(len(blocks(document)) for document in DOCUMENTS) >= 20


def test_readme_is_short() -> None:
    shown = re.sub(r"<details.*?</details>", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(shown.splitlines()) < LONGEST_README, "details belong into a page of docs/"


def stated(text: str, head: str) -> dict[str, list[str]]:
    """The cells of each name of the table that begins with `head`."""
    cells = {}
    for line in text[text.index(head) :].partition("\n\n")[0].splitlines()[2:]:
        names, *of_line = (cell.strip() for cell in line.strip("|").split("|"))
        cells.update((name, of_line) for name in names.split(", "))
    return cells


def printed(line: str) -> list[str]:
    """The launches and MB of the plans, and the share of flops in kernels, as `python -m tests.benchmarks.products`
    prints them."""
    _, *plans, _, _, share = (cell.strip() for cell in line.strip("|").split("|"))
    return [*(", ".join(plan.split(", ")[:2]) for plan in plans), share]


def test_the_table_of_the_readme_is_what_is_emitted() -> None:
    """By the model of cost no block takes longer than by Inductor's plan, and those with products take less."""
    text = (ROOT / "README.md").read_text()
    rows = {name: row(name, True, find_device(DEFAULT_DEVICE)) for name in BLOCKS}
    cells = {name: printed(line) for name, (line, _) in rows.items()}
    assert stated(text, "| launches, MB |") == {name: plans for name, (*plans, _) in cells.items()}
    assert all(float(share.rstrip("%")) >= 99 for *_, share in cells.values())
    assert all(seconds < 1 if name in WITH_PRODUCTS else seconds <= 1 for name, (_, (_, seconds)) in rows.items())
    mean = math.prod(rows[name][1][0] for name in WITH_PRODUCTS) ** (1 / len(WITH_PRODUCTS))
    assert f"is {mean:.2f} of that of Inductor" in " ".join(text.split())


@pytest.mark.parametrize("name", [name if name.endswith("_block") else pytest.param(name, marks=pytest.mark.slow)
                                  for name in NETWORKS])  # fmt: skip
def test_the_table_of_networks_is_what_is_emitted(name: str) -> None:
    table = stated((ROOT / "docs" / "measurements.md").read_text(), "| launches, MB |")
    assert list(table) == list(NETWORKS)
    host, inside, default, _, share = printed(row(name, True, find_device(DEFAULT_DEVICE))[0])
    assert table[name] == [host, inside, default, share]


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", LINKED, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    text = FENCE.sub("", document.read_text())
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            file = (document.parent / name).resolve() if name else document
            assert file.is_relative_to(ROOT) and file.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in headings(file), f"{document.name}: {target}"


def test_operators_of_pytorch_are_counted() -> None:
    page = (ROOT / "docs" / "pytorch.md").read_text()
    stated = re.search(r"Of the (\d+) operators for which .* (\d+) give", page)
    measured = re.search(r"of (\d+) operators (\d+) pass", (ROOT / "tests" / "torch_samples.txt").read_text())
    assert stated is not None and measured is not None and stated.groups() == measured.groups()
