"""The pages that irc writes, in a browser: `irc view`, and the page of `irc experiment`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import ops
from irc.diagnostics import printable
from irc.driver.experiment_page import page as experiment_page
from irc.driver.experiment_report import Case, ExperimentReport, Measurement, Part, summarize
from irc.driver.html_pages import FOLDER, json_in_html, page
from irc.driver.models import Settings
from irc.driver.viewing import quoted_lines, view
from irc.module import Module
from tests.browser import Browser, needs_browser
from tests.command_line import BODIES, EXAMPLES, irc_here
from tests.hostile import NAMES, named_model

BLOCK, SCORES = f"{EXAMPLES / 'block.py'}:block", f"{EXAMPLES / 'block.py'}:scores"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two pipelines, with errors."""
    path = tmp_path_factory.mktemp("two") / "two.html"
    pipelines = {"greedy": "default", "none": "default{fuse.policy=none}"}
    view(BLOCK, pipelines, output=path, check=True, settings=Settings(dims={"B": 2, "S": 8}))
    return path


def residual(layers: int) -> Module:
    def forward(x, weight, scale):
        for _ in range(layers):
            normed = ops.rms_norm(ops.mul(x, 0.5), scale)
            x = ops.add(x, ops.gelu(ops.matmul(normed, weight)))
        return x

    return irc.trace(forward, "f32[8, 16]", "f32[16, 16]", "f32[16]")


def data_of(path: Path) -> Any:
    text = path.read_text()
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def ready(browser: Browser) -> None:
    browser.wait("document.documentElement.dataset.state === 'ready'")


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    done = irc_here("view", SCORES, "--dim", "M=4", "--json", folder=tmp_path)
    report = json.loads(done.out)
    assert (done.code, report["output"], report["schema"]) == (0, "scores.html", "irc.view/1")
    assert report["stages"]["default"][0] == "import" and "fuse" in report["stages"]["default"]
    data = data_of(tmp_path / "scores.html")
    assert data["sizes"]["M"] == 4
    assert irc_here("view", SCORES, "-o", "two.html", "-p", "a=default", "-p", "b=cse", folder=tmp_path).code == 0
    assert [each["name"] for each in data_of(tmp_path / "two.html")["pipelines"]] == ["a", "b"]


@pytest.mark.parametrize(("arguments", "code"), [
    (["-p", "a=default", "-p", "b=cse", "-p", "c=dce"], "usage.arguments"),
    (["-p", "default", "-p", "cse"], "usage.arguments"),
    (["-p", "a=default", "-p", "a=cse"], "usage.arguments"),
    (["-p", "nothing"], "pass.unknown"),
    (["-o", "block.irc"], "file.exists"),
    (["--dim", "Q=1"], "dim.unbound"),
])  # fmt: skip
def test_mistakes_are_errors_and_write_nothing(tmp_path: Path, arguments: list[str], code: str) -> None:
    assert irc_here("print", BLOCK, "-o", "block.irc", folder=tmp_path).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = irc_here("view", "block.irc", *arguments, folder=tmp_path)
    assert done.code in (2, 3) and f"error[{code}]" in done.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_figures_are_those_of_kernels(two: Path) -> None:
    settings = Settings(dims={"B": 2, "S": 8})
    data = data_of(two)
    for pipeline in data["pipelines"]:
        report = irc.kernels(BLOCK, pipeline=pipeline["text"], settings=settings)
        records = [pipeline["records"][index] for index in pipeline["stages"][-1]["nodes"]]
        kernels = {each["name"]: each for each in records if each["kind"] == "kernel"}
        assert {name: each["bytes"] for name, each in kernels.items()} == {
            each.name: each.distinct_bytes for each in report.kernels}  # fmt: skip
        assert sum(each.get("bytes", 0) for each in records) == report.distinct_bytes
        assert all("tl.store(" in each["triton"] and each["schedule"] for each in kernels.values())


def test_copies_of_results_count(tmp_path: Path) -> None:
    module = irc.trace(lambda x: (x, ops.exp(x)), "f32[64]")
    view(module, output=tmp_path / "m.html")
    [pipeline] = data_of(tmp_path / "m.html")["pipelines"]
    records = [pipeline["records"][index] for index in pipeline["stages"][-1]["nodes"]]
    report = irc.kernels(module)
    assert report.host_operations == 1 and sum(each.get("bytes", 0) for each in records) == report.distinct_bytes


@pytest.mark.parametrize("options", ["policy=greedy", "products=irc", "products=auto", "planner=beam"])
def test_merges_lead_from_single_operations_to_the_kernels(tmp_path: Path, options: str) -> None:
    path = tmp_path / "page.html"
    view(BLOCK, {"fused": f"default{{fuse.{options}}}"}, output=path)
    [pipeline] = data_of(path)["pipelines"]
    [before] = [each for each in pipeline["stages"] if "fusion" in each]
    [fusion] = before["fusion"]
    groups = {name: {name} for name, _ in fusion["seeds"]}
    for merge in fusion["merges"]:
        members = set(merge["members"])
        assert len({frozenset(groups[name]) for name in members}) > 1
        assert members == set().union(*(groups[name] for name in members))
        groups.update(dict.fromkeys(members, members))
    records = [pipeline["records"][index] for index in pipeline["stages"][-1]["nodes"]]
    kernels: dict[str, set[str]] = {}
    for record in records:
        if record["kind"] == "member":
            kernels.setdefault(record["parent"], set()).add(record["id"])
    assert {frozenset(each) for each in groups.values()} == {frozenset(each) for each in kernels.values()}


def test_lines_of_sources_are_those_of_imported_files_only(tmp_path: Path) -> None:
    """A text may name any file as the place of an operation: its lines are not copied into a page."""
    secret = tmp_path / "secret.py"
    secret.write_text("password = 'x'\n" * 9)
    body = "func @main(%x: f32[4]) -> f32[4] {\n %y = exp %x : f32[4] loc(#1)\n return %y\n }"
    text = f'irc text 1\nmodule @m {{\n {body}\n}}\n#1 = loc("{secret}":3)\n'
    (tmp_path / "m.irc").write_text(text)
    done = irc_here("view", "m.irc", folder=tmp_path)
    assert done.code == 0, done.err
    written = (tmp_path / "m.html").read_text()
    assert "secret.py" in written and "password" not in written
    assert quoted_lines([irc.load(tmp_path / "m.irc")]) == {}


NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return (x * 2).softmax(-1)  # <b>

def net():
    return Net(), (torch.randn(3, 8),)
"""


def test_lines_of_a_pytorch_program_are_quoted(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(NET)
    assert irc_here("view", "net.py:net", folder=tmp_path).code == 0
    data = data_of(tmp_path / "net.html")
    assert data["sources"]["net.py"]["6"] == "        return (x * 2).softmax(-1)  # <b>"
    assert any(record.get("place", "").startswith("net.py:6") for record in data["pipelines"][0]["records"])


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "\u2028\u2029&amp;", "{{title}}"]
)
def test_text_cannot_leave_the_data(text: str) -> None:
    written = json_in_html({"name": text})
    assert not set("<>&\u2028\u2029") & set(written) and json.loads(written) == {"name": text}
    whole = page("view", text, {"name": text})
    assert json.loads(re.findall(r'id="data">(.*?)</script>', whole, re.DOTALL)[0]) == {"name": text}
    assert "alert(1)</script>" not in whole and whole.count("<title>") == 1


def strict(text: str) -> Any:
    """JSON as `JSON.parse` reads it: without Infinity and NaN."""
    def reject(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=reject)


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    data = {"a": [math.inf, -math.inf, math.nan, 1.5], "b": (2, {"c": math.nan})}
    assert strict(json_in_html(data)) == {"a": [None, None, None, 1.5], "b": [2, {"c": None}]}
    module = irc.trace(lambda x: ops.exp(ops.mul(x, 100.0), name="y"), "f32[4]")
    inputs = {"x": np.full(4, 5, np.float32)}  # exp(500) is finite in f64
    view(module, {"all": "cse"}, output=tmp_path / "v.html", check=True, inputs=inputs)
    data = strict(re.findall(r'id="data">(.*?)</script>', (tmp_path / "v.html").read_text(), re.DOTALL)[0])
    assert data["pipelines"][0]["stages"][0]["errors"]["y"] is None


@needs_browser
def test_an_error_that_is_not_finite_is_shown(browser: Browser, tmp_path: Path) -> None:
    module = irc.trace(lambda x: ops.exp(ops.mul(x, 100.0), name="y"), "f32[4]")
    view(module, {"all": "cse"}, output=tmp_path / "v.html", check=True, inputs={"x": np.full(4, 5, np.float32)})
    browser.open(tmp_path / "v.html")
    ready(browser)
    browser.evaluate("""(() => { const list = document.getElementById("coloring");
        list.value = "error"; list.dispatchEvent(new Event("change")); })()""")
    browser.evaluate("views[0].select('y')")
    assert "not finite" in browser.evaluate("document.getElementById('panel').textContent") and browser.errors == []


CELLS = ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "a=1", "a\rb", 'a,"b', "plain"]


def test_cells_of_tables_are_no_formulas() -> None:
    measured = {cell: Measurement(kernels=1) for cell in CELLS}
    report = ExperimentReport(dict.fromkeys(CELLS, ""), (Case("=m", {"S": -5}, measured, {}),), "", {}, "a100", "")
    rows = list(csv.DictReader(io.StringIO(report.csv().decode(), newline="")))
    for row, cell in zip(rows, CELLS, strict=True):
        is_formula = cell[0] in "=+-@\t\r"
        assert row["pipeline"] == printable(f"'{cell}" if is_formula else cell)
        assert row["model"] == "'=m" and row["dim.S"] == "-5"  # a number is left alone


@needs_browser
def test_cells_of_pages_are_those_of_the_report(browser: Browser, tmp_path: Path) -> None:
    browser.open(written_report(tmp_path))
    ready(browser)
    text = browser.evaluate(f"csv([{json.dumps([*CELLS, -5])}])")
    (row,) = csv.reader(io.StringIO(text, newline=""))
    assert row == [*(f"'{cell}" if cell[0] in "=+-@\t\r" else cell for cell in CELLS), "-5"]


def test_sources_of_pages_have_short_lines() -> None:
    sources = [each for each in FOLDER.iterdir() if not each.name.startswith("dagre.")]
    long = [each.name for each in sources if any(len(line) > 120 for line in each.read_text().splitlines())]
    assert len(sources) > 10 and not long


def test_pages_forbid_the_network() -> None:
    for template in (each.name.removesuffix(".html") for each in FOLDER.iterdir() if each.name.endswith(".html")):
        whole = page(template, "x", {})
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)
        assert policy is not None and "default-src &#x27;none&#x27;" in policy[1] and "http" not in policy[1]
        assert not re.findall(r'(?:src|href)="(?!data:)', whole)
        assert "unsafe-inline" not in policy[1].partition("style-src")[0]


@needs_browser
def test_texts_that_overlap_are_detected(browser: Browser, two: Path) -> None:
    browser.open(two)
    ready(browser)
    browser.evaluate("document.querySelector('.stage').style.marginLeft = '-40px'")
    assert browser.overlapping_texts()[0][0] == "greedy"


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1400, 850), (420, 850)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_graph_is_drawn(browser: Browser, two: Path, width: int, height: int, theme: str) -> None:
    browser.open(two, width, height, theme)
    ready(browser)
    assert browser.evaluate("document.documentElement.dataset.theme") == theme
    assert browser.overlapping_texts() == [] and not browser.is_too_wide()
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate("document.documentElement.dataset.theme") != theme
    drawn = browser.evaluate("""(() => { const canvas = views[0].canvas; views[0].draw();
        const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(bytes.buffer)).size; })()""")
    assert drawn > 20
    assert browser.errors == [] and [url for url in browser.requests if not url.startswith(("file:", "blob:"))] == []


@needs_browser
def test_sliding_searching_and_clicking(browser: Browser, two: Path) -> None:
    browser.open(two)
    ready(browser)
    assert "differs: 1 kernel, 0 operations" in browser.evaluate("document.querySelector('.difference').textContent")
    browser.evaluate("views[0].slider.focus()")
    for key, text in (("Home", "import"), ("ArrowRight", "bias"), ("End", "fuse"), ("ArrowLeft", "fuse: 1 of 1 merge")):
        browser.press(key)
        ready(browser)
        assert browser.evaluate("views[0].stageText.textContent").startswith(text + " (")
    assert browser.evaluate("views[0].figures.textContent").startswith("4 kernels")
    browser.press("ArrowRight")
    ready(browser)
    browser.evaluate("document.getElementById('search').focus()")
    browser.type("%hidden")
    assert int(browser.evaluate("document.getElementById('found').textContent").split()[0]) >= 2
    browser.press("Enter")
    panel = "document.getElementById('panel').textContent"
    browser.wait(f"{panel}.includes('hidden')")
    x, y = browser.evaluate("""(() => {
        views[0].center("ln_2");
        const { box } = views[0].graph.nodeById.get("ln_2"), { x, y, scale } = views[0].camera;
        const frame = views[0].canvas.getBoundingClientRect();
        return [frame.left + x + (box.x + box.width / 2) * scale, frame.top + y + (box.y + box.height / 2) * scale];
    })()""")
    browser.click(x, y)
    browser.wait("views[0].selected === 'ln_2'")
    text = browser.evaluate(panel)
    for part in ("layer_norm", "IR", "Triton of @ln_2", "tl.store(", "Schedule", "relative error", "%attended"):
        assert part in text, part
    here = browser.evaluate("[...document.querySelectorAll('#panel .here')].map((line) => line.textContent)")
    assert len(here) == 1 and here[0].lstrip().startswith("tl.store(ln_2_ptr")
    browser.evaluate("document.querySelector('#panel .link:not(.here)').click()")
    assert browser.evaluate("views[0].selected") != "ln_2" and browser.errors == []


@needs_browser
def test_a_profile_is_drawn_with_measured_times(browser: Browser, tmp_path: Path) -> None:
    irc.profile(BLOCK, rounds=1, html=tmp_path / "profile.html", settings=Settings(dims={"B": 2, "S": 8}))
    browser.open(tmp_path / "profile.html")
    ready(browser)
    remark = browser.evaluate("document.getElementById('remark').textContent")
    assert "times are measured on this machine's CPU" in remark and "estimate" not in remark
    browser.evaluate("""(() => { const list = document.getElementById("coloring");
        list.value = "us"; list.dispatchEvent(new Event("change")); })()""")
    assert "µs" in browser.evaluate("views[0].legend.textContent")
    browser.evaluate("views[0].select('hidden')")
    ready(browser)
    assert browser.overlapping_texts() == [] and browser.errors == []
    panel = browser.evaluate("document.getElementById('panel').textContent")
    assert "measured time" in panel and "estimate" not in panel and "undefined" not in panel
    browser.evaluate("views[0].select(null)")
    panel = browser.evaluate("document.getElementById('panel').textContent")
    assert "Longest measured" in panel and "estimate" not in panel and "NaN" not in panel


@needs_browser
def test_colors_and_details(browser: Browser, two: Path) -> None:
    browser.open(two)
    ready(browser)
    choose = """(() => {{ const list = document.getElementById("coloring");
        list.value = "{}"; list.dispatchEvent(new Event("change")); }})()"""
    for figure, unit in (("us", "µs"), ("bytes", "B"), ("error", "e-")):
        browser.evaluate(choose.format(figure))
        assert unit in browser.evaluate("views[0].legend.textContent")
    assert not browser.evaluate("views[0].graph.nodeById.has('q')")
    browser.evaluate("views[0].select('q')")  # a view, which is hidden at first
    ready(browser)
    assert browser.evaluate("views[0].graph.nodeById.has('q') && document.getElementById('views').checked")
    drawing = ElementTree.fromstring(browser.evaluate("views[0].svg()"))
    texts = [each.text for each in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "layer_norm" in texts and "@ln_2" in texts and browser.errors == []


@needs_browser
@pytest.mark.parametrize("layers", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_boxes_of_a_deep_network_do_not_overlap(browser: Browser, tmp_path: Path, layers: int) -> None:
    """Of 200 and of 2,000 operations, before fusion, before its last merge, and after it."""
    view(residual(layers), {"fused": "fuse"}, output=tmp_path / "deep.html")
    browser.open(tmp_path / "deep.html")
    for position in ("0", "views[0].positions.length - 2", "views[0].positions.length - 1"):
        ready(browser)
        browser.evaluate(f"views[0].goTo({position})")
        ready(browser)
        nodes = check_boxes(browser)
        assert sum(not each["isContainer"] for each in nodes) >= 4 * layers
    drawn = """(() => {
        let count = 0;
        const surface = { rectangle() { count += 1; }, curve() {}, text() {} };
        draw(surface, views[0].graph, { x: 0, y: 0, width: 700, height: 400 }, 1, views[0].style());
        return count;
    })()"""
    assert 0 < browser.evaluate(drawn) < len(nodes) / 4, "only what is in sight is drawn"
    assert browser.errors == []


@needs_browser
def test_loops_and_branches_are_frames(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bodies.irc").write_text(BODIES)
    assert irc_here("view", "bodies.irc", folder=tmp_path).code == 0
    browser.open(tmp_path / "bodies.html")
    ready(browser)
    parents = {each["id"]: each["parent"] for each in check_boxes(browser)}
    assert parents["r"] is None and parents["v"] == parents["s"] == "r"
    assert parents["@f"] == "v" and parents["e"] == "@f"
    edges = browser.evaluate("views[0].graph.edges.map(({ from, to }) => from + ' ' + to)")
    assert {"n r", "c r", "a r", "a u", "s t", "going v", "u e", "f v/0", "u v/1", "v r/0", "r d"} <= set(edges)
    assert browser.errors == []


CALLS = """irc text 1
module @m {
  func @main(%x: f32[4, 8]) -> f32[4, 8] {
    %a = exp %x : f32[4, 8]
    %b = call @f %a : f32[4, 8]
    return %b
  }
  func @f(%x: f32[4, 8]) -> f32[4, 8] {
    %a = neg %x : f32[4, 8]
    %b = softmax %a {axis = 1} : f32[4, 8]
    return %b
  }
}
"""


@needs_browser
def test_functions_that_are_called_are_frames(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "calls.irc").write_text(CALLS)
    assert irc_here("view", "calls.irc", "--check", folder=tmp_path).code == 0
    browser.open(tmp_path / "calls.html")
    for position in (0, 2, "views[0].positions.length - 1"):
        ready(browser)
        browser.evaluate(f"views[0].goTo({position})")
        ready(browser)
        parents = {each["id"]: each["parent"] for each in check_boxes(browser)}
        assert parents["func f"] is None and parents["@f/x"] == "func f" and parents["x"] is None
    assert parents["@f/@b"] == "func f" and parents["@f/a"] == "@f/@b" and parents["a"] == "@a"
    assert browser.errors == []


@needs_browser
def test_an_operation_of_several_kernels_counts_in_each(browser: Browser, tmp_path: Path) -> None:
    def forward(x):
        h = ops.exp(x, name="h")
        return ops.neg(h, name="a"), ops.reduce_sum(h, axes=(1,), name="b"), ops.reduce_sum(h, axes=(0,), name="c")

    (tmp_path / "m.irc").write_text(str(irc.trace(forward, "f32[64, 128]")))
    entries = [{"members": ["h", name]} for name in "abc"]
    (tmp_path / "plan.json").write_text(json.dumps({"schema": "irc.plan/2", "groups": entries}))
    done = irc_here("view", "m.irc", "-p", "default{fuse.plan=plan.json}", folder=tmp_path)
    assert done.code == 0, done.err
    browser.open(tmp_path / "m.html")
    ready(browser)
    figures = browser.evaluate("views[0].figures.textContent")
    browser.evaluate("views[0].goTo(views[0].positions.length - 2)")
    ready(browser)
    assert browser.evaluate("views[0].stageText.textContent").startswith("fuse: 3 of 3 merges")
    kernels, moved = browser.evaluate("views[0].figures.textContent").split(" read")[0].split(", ")
    assert kernels == "3 kernels" and figures.startswith(f"3 launches, 0 calls, {moved}, ")


def check_boxes(browser: Browser) -> list[Any]:
    """The nodes of the graph; fails where two boxes of one frame overlap, or one leaves its frame."""
    nodes: list[Any] = browser.evaluate("""views[0].graph.nodes.map(({ id, parent, isContainer, box }) =>
        ({ id, parent, isContainer, box: [box.x, box.y, box.x + box.width, box.y + box.height] }))""")
    boxes = {each["id"]: each["box"] for each in nodes}
    siblings: dict[Any, list[list[float]]] = {}
    for each in nodes:
        left, top, right, bottom = each["box"]
        siblings.setdefault(each["parent"], []).append(each["box"])
        if each["parent"] is not None:
            around = boxes[each["parent"]]
            assert around[0] <= left and around[1] <= top and around[2] >= right and around[3] >= bottom
    for group in siblings.values():
        group.sort(key=lambda box: box[1])
        for index, one in enumerate(group):
            for other in group[index + 1 :]:
                if other[1] >= one[3]:
                    break
                assert one[2] <= other[0] or other[2] <= one[0], "two boxes overlap"
    return nodes


@needs_browser
def test_hostile_names_are_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    shown, scripts = 0, (FOLDER / "view.html").read_text().count("<script")
    for number, name in enumerate(name for name in NAMES if re.search("[<\x1b\u2000-\uffff]", name)):
        model = tmp_path / f"m{number}.onnx"
        onnx.save(named_model(name), model)
        done = irc_here("view", model.name, "-o", f"{number}.html", folder=tmp_path)
        if done.code:
            assert "error[" in done.err
            continue
        written = re.sub('id="dagre">.*?</script>', "", (tmp_path / f"{number}.html").read_text(), flags=re.DOTALL)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", written)
        browser.open(tmp_path / f"{number}.html", 900, 600)
        ready(browser)
        browser.evaluate("views[0].graph.nodes.forEach((node) => views[0].select(node.id))")
        names = "DATA.pipelines[0].records.map((each) => each.name + each.text).join(' ')"
        text = browser.evaluate(f"document.body.innerText + {names}")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text.replace("\n", ""))
        assert browser.evaluate("document.scripts.length") == scripts and browser.errors == [], name
        shown += 1
    assert shown > 3


# -- the page of an experiment -----------------------------------------------------------------------------------


def written_report(folder: Path, pipelines: int = 5, models: int = 6, sizes: int = 4) -> Path:
    """The page of an experiment of so many pipelines, models and sizes, with figures that are made up."""
    names = {f"pipeline_{number}": f"default{{fuse.policy=p.py:long_name_of_policy_{number}}}"
             for number in range(pipelines)}  # fmt: skip
    cases = []
    for model in range(models):
        for size in (128 * 4**number for number in range(sizes)):
            measured = {}
            for place, name in enumerate(names):
                parts = tuple(
                    Part(f"@kernel_{number}", "kernel" if number % 3 else "library", 1, size * 900 * (place + 2),
                         size * 1000, size * 7**number, 2.5 + size * number / 100) for number in range(12)
                )  # fmt: skip
                traffic = sum(part.distinct_bytes for part in parts)
                seconds = sum(part.estimated_microseconds for part in parts) * (1 + place / 50)
                measured[name] = Measurement(12 + place, 4, 0, traffic, 2 * traffic, 10**9, 8, seconds, 0.5, 1e-7, {},
                                             parts)  # fmt: skip
            if (model, size) == (1, 128):
                measured["pipeline_2"] = Measurement(failure="plan.rejected: <b>it</b> is \u202ewrong")
            plans = {"pipeline_1": ("@a gains %b", "@c <i>is</i> new: %d")}
            cases.append(Case(f"models/network_{model}.onnx", {"B": 8, "S": size}, measured, plans))
    report = ExperimentReport(names, tuple(cases), "pipeline_0", summarize(cases, names, "pipeline_0"), "h100", "H100")
    path = folder / "experiment.html"
    path.write_text(experiment_page(report))
    return path


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1400, 3200), (420, 4500)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_experiment_reads_without_overlap(
    browser: Browser, tmp_path: Path, width: int, height: int, theme: str
) -> None:
    browser.open(written_report(tmp_path), width, height, theme)
    ready(browser)
    assert browser.evaluate("document.querySelectorAll('#cases tbody tr').length") == 5 * 6 * 4
    for case in (0, 5, 23):
        browser.evaluate(f"choose({case})")
        assert browser.overlapping_texts() == [] and not browser.is_too_wide()
        names = browser.evaluate("[...document.querySelectorAll('figure')].map((each) => each.id)")
        assert names == ["figure-pareto", "figure-roofline", "figure-sweep", "figure-times"]
        widths = "[...document.querySelectorAll('figure svg')].map((each) => each.getBoundingClientRect().width)"
        assert all(size > min(300, width * 0.7) for size in browser.evaluate(widths))
    assert browser.errors == [] and browser.requests == browser.requests[:1]


@needs_browser
def test_an_experiment_is_chosen_and_downloaded(browser: Browser, tmp_path: Path) -> None:
    browser.open(written_report(tmp_path))
    ready(browser)
    browser.evaluate("window.saved = []; window.download = (name, type, text) => window.saved.push([name, text])")
    browser.evaluate("document.querySelectorAll('#cases tbody tr')[5 * 4 + 1].click()")  # model 1, the first size
    assert browser.evaluate("[chosen, byId('model').value]") == [4, "models/network_1.onnx"]
    text = browser.evaluate("byId('cases').textContent + byId('plans').textContent")
    assert "<b>it</b> is \\u202ewrong" in text and "@c <i>is</i> new" in text
    assert browser.evaluate("document.querySelectorAll('#figure-pareto circle').length") == 4  # one has failed
    browser.evaluate("document.querySelectorAll('figure button, #csv, #parts-csv').forEach((each) => each.click())")
    saved = dict(browser.evaluate("window.saved"))
    rows = list(csv.DictReader(saved["experiment.csv"].splitlines()))
    assert len(rows) == 120 and rows[0]["dim.S"] == "128" and rows[22]["failure"].startswith("plan.rejected")
    assert len(list(csv.DictReader(saved["pipeline_0.csv"].splitlines()))) == 12
    drawn = [ElementTree.fromstring(text) for name, text in saved.items() if name.endswith(".svg")]
    assert len(drawn) == 4 and all(each.tag == "{http://www.w3.org/2000/svg}svg" for each in drawn)
    assert browser.evaluate("csv([['=1+1', 'a,\"b']])") == "'=1+1,\"a,\"\"b\"\n" and browser.errors == []


COST = """from irc.cost import cost
@cost
def slow(work, device):
    return 0.5
"""


@needs_browser
def test_the_time_of_a_function_of_the_user_is_a_column(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COST)
    options = ["-p", "base=default", "--dim", "M=2:8:*2", "--cost", "mine.py:slow", "--no-error", "--html", "e.html"]
    done = irc_here("experiment", SCORES, *options, folder=tmp_path)
    assert done.code == 0, done.err
    browser.open(tmp_path / "e.html")
    ready(browser)
    heads = "[...document.querySelectorAll('#cases th')].map((each) => each.textContent)"
    assert "by slow" in browser.evaluate(heads) and "500 ms" in browser.evaluate("byId('cases').textContent")
    browser.evaluate("sweepFigure = 'modeled_microseconds'; drawFigures()")
    assert "time by slow" in browser.evaluate("byId('figure-sweep').textContent") and browser.errors == []


@needs_browser
def test_figures_of_an_experiment_are_those_of_its_report(browser: Browser, tmp_path: Path) -> None:
    sizes = ["--dim", "M=3:12:*2", "--dim", "N=5"]
    done = irc_here("experiment", SCORES, *sizes, "-p", "base=default", "--html", "e.html", "--json", folder=tmp_path)
    assert done.code == 0, done.err
    browser.open(tmp_path / "e.html")
    ready(browser)
    for index, case in enumerate(json.loads(done.out)["cases"]):
        for name in ("base", "eager"):
            measured = browser.evaluate(f"DATA.cases[{index}].measured.{name}")
            assert measured["distinct_bytes"] == case["measured"][name]["distinct_bytes"]
            assert measured["device_operations"] == measured["kernels"]
    sweep = "[...document.querySelectorAll('#figure-sweep circle title')].map((each) => each.textContent)"
    assert len(browser.evaluate(sweep)) == 6 and browser.errors == []
