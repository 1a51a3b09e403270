"""The documentation as a site: it builds without a warning, has all of the reference, and needs no network."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import irc
from irc.cli.main import cli
from irc.diagnostics import CODES
from irc.driver.code_pages import RULES
from irc.driver.pipelines import pass_names
from irc.ops import TABLE
from irc.planners import PLANNERS
from tests.browser import Browser, needs_browser

ROOT = Path(__file__).resolve().parent.parent
# A page of each kind, at the widths of a laptop and of a phone.
PAGES = ("index", "first_hour", "notebooks/fusion_experiment", "onnx", "pytorch", "gpu", "measurements", "architecture",
         "reference/rules", "reference/python", "research", "reference/operations", "reference/commands")  # fmt: skip
WIDTHS = (1400, 420)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make site` builds it, in a folder of the tests."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    return folder


def sections(site: Path) -> set[str]:
    """The places that the search knows: pages, and headings of pages."""
    index = json.loads((site / "search" / "search_index.json").read_text())
    return {entry["location"] + " " + entry["title"] for entry in index["docs"]}


def test_the_reference_has_everything(site: Path) -> None:
    listed = {name: {each.rpartition(" ")[2] for each in sections(site) if each.startswith(f"reference/{name}.html#")}
              for name in ("operations", "passes", "rules", "codes", "commands", "python")}  # fmt: skip
    assert set(TABLE) <= listed["operations"]
    assert set(pass_names()) <= listed["passes"]
    assert set(RULES) <= listed["rules"]
    assert set(CODES) <= listed["codes"]
    assert set(cli.commands) <= listed["commands"]
    assert {f"irc.{name}" for name in irc.__all__ if callable(getattr(irc, name))} <= listed["python"]
    assert all(name in (site / "reference" / "planners.html").read_text() for name in PLANNERS)


def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert documents | {"index", "architecture", "changelog"} <= {path.stem for path in site.glob("*.html")}


def test_the_examples_can_be_downloaded(site: Path) -> None:
    """All that the commands of the documents use, also for readers who have no clone."""
    with zipfile.ZipFile(site / "examples.zip") as held:
        unpacked = {name: held.read(name) for name in held.namelist()}
    assert unpacked == {f"examples/{path.name}": path.read_bytes() for path in (ROOT / "examples").glob("*.py")}
    for name in ("index", "first_hour", "research"):
        assert '<a href="examples.html">' in (site / f"{name}.html").read_text()


def test_the_navigation_has_the_order_of_the_readme(site: Path) -> None:
    _, _, documents = (ROOT / "README.md").read_text().partition("\n## Documents\n")
    linked = [f"{Path(name).stem.lower()}.html" for name in re.findall(r"\]\(([\w/]+\.md)\)", documents)]
    pages = re.findall(r'<a href="([\w/]+\.html)" class="md-nav__link', (site / "index.html").read_text())
    assert len(linked) > 10 and [name for name in pages if name in linked] == linked


def test_what_is_typed_is_told_from_what_is_printed(site: Path) -> None:
    """A line of IR that begins with % is no prompt."""
    prompts = [text for path in site.glob("*.html") for text in re.findall('<span class="gp">(.*?)</span>',
                                                                           path.read_text())]  # fmt: skip
    assert len(prompts) > 50 and {prompt.strip() for prompt in prompts} == {"$"}


def test_the_button_beside_a_console_copies_what_is_typed(site: Path) -> None:
    text = (site / "research.html").read_text()
    copied = [html.unescape(each) for each in re.findall(r'data-copy="([^"]*)"', text)]
    assert len(copied) == sum('<span class="gp">' in each for each in re.findall("<pre>.*?</pre>", text, re.DOTALL)) > 5
    assert copied[0] == "irc --version" and all("$ " not in each and "wrote" not in each for each in copied)
    assert any(re.search(r"\\\n +-p greedy=", each) for each in copied)  # a command of two lines


def test_signatures_have_their_defaults(site: Path) -> None:
    text = html.unescape(re.sub("<[^>]*>", "", (site / "reference" / "python.html").read_text()))
    assert "products: Products = 'host'," in text and "command: str = ''," in text
    assert "dims: Sizes = ...," in text and "<function" not in text and "<factory>" not in text
    assert "irc.doc(name: str = '', loads: Sequence[str] = ()) -> str" in text


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_in_a_browser(site: Path, browser: Browser, width: int) -> None:
    for name in PAGES:
        browser.open(site / f"{name}.html", width)
        assert browser.errors == [] and all(url.startswith(("file:", "data:")) for url in browser.requests), name
        assert browser.overlapping_texts() == [] and not browser.is_too_wide(), name


@needs_browser
def test_the_search_needs_no_server(site: Path, browser: Browser) -> None:
    browser.open(site / "index.html")
    browser.evaluate("document.querySelector('.md-search__input').focus()")
    browser.type("layer_norm")
    browser.wait("document.querySelectorAll('.md-search-result__item').length > 0")
    links = browser.evaluate("[...document.querySelectorAll('.md-search-result__link')].map(each => each.href).join()")
    assert "reference/operations.html" in links
