"""What SECURITY.md promises, a hostile input for each promise: run where an audit hook refuses all that is not allowed.

`tests/audit/sitecustomize.py` is the hook, `tests/hostile.py` runs commands under it.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import irc
from irc.driver.compiling import default_output
from irc.ir import Module
from tests.hostile import NAMES, audited, named_model

ARTEFACT = {"__init__.py", "__main__.py", "host.py", "kernels.py", "manifest.json", "program.py", "runtime.py",
            "weights.safetensors"}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory, in a folder whose other contents are none of its business."""
    work = tmp_path / "work"
    work.mkdir()
    return work


# -- names -----------------------------------------------------------------------------------------------------


def test_names_do_not_become_paths_or_code(folder: Path) -> None:
    """Whatever things are called, an artefact has files with names of irc's making, and their Python is whole."""
    for number, name in enumerate(NAMES):
        (folder / f"{number}.onnx").write_bytes(named_model(name).SerializeToString())
    commands = [["compile", f"{number}.onnx", "--backend", "triton", "-o", f"{number}.out"]
                for number in range(len(NAMES))]  # fmt: skip
    for number, (name, result) in enumerate(zip(NAMES, audited(folder, *commands), strict=True)):
        assert result.code in (0, 3), (name, result.err)
        if result.code:
            continue
        made = {path.relative_to(folder / f"{number}.out").as_posix() for path in (folder / f"{number}.out").rglob("*")}
        externs = {path for path in made if path.startswith("externs")}
        assert made - externs <= ARTEFACT, (name, made)
        (file,) = externs - {"externs"}
        assert Path(file).stem.isidentifier() and file.isascii() and len(file) < 60, (name, file)
        for path in (folder / f"{number}.out").glob("*.py"):
            text = path.read_text("utf-8")
            ast.parse(text)
            assert all(line.isprintable() for line in text.split("\n")), (name, path)
        assert (folder / f"{number}.out" / "manifest.json").read_text().isascii()
    assert {path.name for path in folder.parent.iterdir()} <= {"work", "work-temporary", "work-report", "work-audit"}


def test_a_module_s_name_does_not_become_a_path() -> None:
    """Without `output`, `irc.compile` calls the result after the module."""
    for name in NAMES:
        for backend in ("onnx", "triton"):
            path = default_output(Module(name), backend)
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", path) and len(path) < 120, (name, path)
    module = irc.trace(lambda x: x, "f32[4]")
    module.name = "swish-v1.5"
    assert default_output(module, "onnx") == "swish-v1.5.irc.onnx"


def test_text_from_a_model_is_text_in_python_and_html(folder: Path) -> None:
    """Messages, symbols and constants stand in generated code and pages; the artefact imports and runs."""
    lines = ["irc text 1", "module @m {"]
    names = '"); import os; os.mkdir("pwned") #<script>\u202e', "a(b, [c'\" \x1b"
    symbol, text = map(json.dumps, names)
    body = [
        f"    %c = dim {{value = {symbol}}} : i64[]",
        "    %zero = const 0 : i64[]",
        "    %holds = less %zero, %c : bool[]",
        f"    assert %holds {{message = {text}}}",
        f"    %{symbol} = exp %x : f32[{symbol}, 4]",
        f"    return %{symbol}",
    ]
    lines += [f"  func @main<{symbol}>(%x: f32[{symbol}, 4]) -> ({text}: f32[{symbol}, 4]) {{", *body, "  }", "}", ""]
    (folder / "m.irc").write_text("\n".join(lines))
    ran, compared = audited(
        folder, ["run", "m.irc", "--backend", "triton"],
        ["experiment", "m.irc", "-p", "base=default", "-p", "other=default{fuse.policy=none}", "--html", "page.html"],
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert compared.code == 0, compared.err
    page = (folder / "page.html").read_text()
    assert "<script" not in page and all(line.isprintable() for line in page.split("\n"))
    assert not list(folder.parent.rglob("pwned"))
