"""Modules in notebooks: what is shown of them, and the notebooks of the documentation."""

from __future__ import annotations

import html
import re
from pathlib import Path

import nbformat
import onnx
import pytest
from nbclient import NotebookClient

import irc
from irc import ops
from irc.driver.viewing import MOST_FRAMED
from irc.module import Module
from tests.browser import Browser, find_chromium
from tests.command_line import EXAMPLES
from tests.hostile import NAMES, named_model

NOTEBOOKS = sorted((EXAMPLES.parent / "docs" / "notebooks").glob("*.ipynb"))


def page_in(shown: str | None) -> str:
    """The document of a frame."""
    assert shown is not None
    form = r'<iframe srcdoc="([^"]*)" title="[^"<>]*" sandbox="allow-scripts" style="[^"]*"></iframe>'
    frame = re.fullmatch(form, shown)
    assert frame is not None
    return html.unescape(frame[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Every cell runs; a module at the end of a cell is shown as a graph. Notebooks are committed without outputs."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    shown = [output.data for cell in code for output in cell.outputs if output.output_type == "execute_result"]
    assert shown and all("<iframe" in data["text/html"] and len(data["text/plain"]) < 400 for data in shown)


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome is installed")
def test_a_module_is_shown_as_its_graph(tmp_path: Path) -> None:
    module = irc.opt(irc.load(f"{EXAMPLES / 'block.py'}:block"), "default")
    before = str(module)
    page = tmp_path / "cell.html"
    page.write_text(f"<!doctype html><html><body>{module._repr_html_()}</body></html>")
    assert str(module) == before
    program = find_chromium()
    assert program is not None
    browser = Browser(program, tmp_path / "profile")
    browser.open(page)
    inside = tmp_path / "inside.html"
    inside.write_text(page_in(module._repr_html_()))
    assert browser.errors == [] and browser.requests == [page.as_uri()]
    browser.open(inside)
    browser.wait("document.documentElement.dataset.state === 'ready'")
    browser.close()


@pytest.mark.parametrize("name", filter(None, NAMES))
def test_names_are_text(name: str, tmp_path: Path) -> None:
    onnx.save(named_model(name), tmp_path / "model.onnx")
    module = irc.load(tmp_path / "model.onnx")
    module.name = name
    page = page_in(module._repr_html_())
    assert page.startswith("<!DOCTYPE html>") and "<script>alert" not in page


def test_what_is_not_shown_as_a_graph() -> None:
    def long(x):
        for _ in range(MOST_FRAMED):
            x = ops.neg(x)
        return x

    module = irc.trace(long, "f32[2]")
    assert module._repr_html_() is None and len(repr(module)) < 200
    assert Module()._repr_html_() is None
