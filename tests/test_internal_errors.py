"""Bugs of irc: the exit code, and the reproducer that is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_input import working_folder
from tests.command_line import TEXT, Result, irc_here

# -- bugs of irc -----------------------------------------------------------------------------------------------

PLANTED = """import sys
from irc.passes.{module} import {name}
def run(self, module, context):
    {body}
{name}.run = run
sys.argv = ["irc", *sys.argv[1:]]
from irc.cli.entry import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from working_folder(tmp_path)


def with_a_bug(folder: Path, module: str, name: str, body: str, *arguments: str) -> Result:
    """The command line of an irc in which a pass does what it must not."""
    code = PLANTED.format(module=module, name=name, body=body)
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_bug_of_irc_leaves_a_reproducer(folder: Path) -> None:
    arguments = ["opt", "model.onnx", "-p", "fold,cse,dce", "-o", "out.irc"]
    result = with_a_bug(folder, "cse", "Cse", "raise ZeroDivisionError('planted')", *arguments)
    assert (result.code, result.out) == (70, "")
    assert "error[internal.pass]: the pass `cse` failed" in result.err and "planted" in result.err
    left = folder / "irc-reproducer" / "reproducer-cse"
    assert f"the files in {left.relative_to(folder)}" in result.err
    assert "ZeroDivisionError" in (left / "traceback.txt").read_text()
    command = (left / "command").read_text().splitlines()
    assert command == ['irc opt module.irc -p "cse,dce"', "# came from: irc " + " ".join(arguments)]
    # The module before the failing pass, with its weights: fold has run, the others have not.
    again = irc_here("opt", "module.irc", "-p", "cse,dce", folder=left)
    assert again.code == 0 and "matmul" in again.out and "%half = const 0.5" in again.out


def test_a_pass_that_breaks_the_module_is_found(folder: Path) -> None:
    body = "block = module.main.block; block.remove(next(iter(block))); return True"
    result = with_a_bug(folder, "cse", "Cse", body, "opt", "small.irc", "-p", "cse", "--verify-each")
    assert (result.code, result.out) == (70, "") and "error[internal.pass]" in result.err
    assert "V1" in result.err and (folder / "irc-reproducer" / "reproducer-cse" / "module.irc").read_text() == TEXT


def test_a_bug_outside_of_passes_is_told_as_one(folder: Path) -> None:
    code = (
        "import sys, irc.parser\nirc.parser.parse = lambda *_: 1 / 0\nsys.argv = ['irc', 'print', 'small.irc']\n"
        "from irc.cli.entry import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 70 and done.stdout == "" and "Traceback" not in done.stderr
    assert "error[internal.error]: ZeroDivisionError" in done.stderr and "irc-reproducer/" in done.stderr
    assert (folder / "irc-reproducer" / "command").read_text() == "irc print small.irc\n"
    assert "ZeroDivisionError" in (folder / "irc-reproducer" / "traceback.txt").read_text()


def test_a_bug_in_a_backend_leaves_the_module(folder: Path) -> None:
    code = (
        "import sys, irc.backends.onnx as backend\n"
        "def save(*arguments, **options): raise KeyError('planted')\n"
        "backend.save = save\nsys.argv = ['irc', 'compile', 'model.onnx', '-o', 'out.onnx']\n"
        "from irc.cli.entry import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 70 and "error[internal.error]: emit-onnx failed: KeyError" in done.stderr
    left = folder / "irc-reproducer" / "reproducer-emit-onnx"
    names = sorted(path.name for path in left.iterdir())
    assert names == ["command", "module.irc", "module.safetensors", "traceback.txt"]
