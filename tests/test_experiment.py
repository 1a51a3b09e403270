"""irc experiment and irc bench: pipelines side by side, and times on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import onnx
import pytest

import irc
from irc import ops
from irc.driver.experiment_page import page
from irc.driver.experimenting import Measurement, plan_difference
from irc.driver.kernel_listing import kernels
from irc.driver.models import Settings
from irc.library_calls import product_flops
from tests.command_line import EXAMPLES, irc_here

BLOCK, SCORES = f"{EXAMPLES / 'block.py'}:block", f"{EXAMPLES / 'block.py'}:scores"
FRUGAL = f"default{{fuse.policy={EXAMPLES / 'rules.py'}:frugal}}"
SIZES = ["--dim", "M=100", "--dim", "N=1000"]


def test_figures_are_those_of_kernels() -> None:
    settings = Settings(dims={"M": 100, "N": 1000})
    report = irc.experiment([SCORES], {"base": "default", "mine": FRUGAL}, settings=settings)
    for name, pipeline in (("base", "default"), ("mine", FRUGAL)):
        actual, expected = report.models[SCORES][name], kernels(SCORES, pipeline=pipeline, settings=settings)
        assert (actual.kernels, actual.library_calls, actual.host_operations) == (expected.launches, 0, 0)
        assert (actual.distinct_bytes, actual.loaded_bytes) == (expected.distinct_bytes, expected.loaded_bytes)
        assert actual.flops == expected.flops  # no products here
        assert actual.programs == min(kernel.programs for kernel in expected.kernels)
        assert actual.estimated_microseconds >= 2 * expected.launches + 1e6 * expected.distinct_bytes / 3.35e12
        assert 0 < actual.error < 1e-6 and actual.compile_seconds > 0
    assert report.passed and report.sizes == {SCORES: {"M": 100, "N": 1000}}
    lines = report.plans[SCORES]["mine"]
    assert "@y loses %scaled, %p" in lines and lines[-1] == "costs 800.0 kB of global memory traffic"


def test_plans_are_compared_by_what_kernels_compute() -> None:
    base = Measurement(groups={"a": ("x", "y"), "b": ("z",)}, distinct_bytes=3000)
    other = Measurement(groups={"b": ("y", "z"), "a": ("x",), "c": ("w",)}, distinct_bytes=1000)
    assert plan_difference(base, other) == (
        "@b gains %y", "@a loses %y", "@c is new: %w", "saves 2.0 kB of global memory traffic")
    assert plan_difference(base, base) == ()


@pytest.mark.parametrize(
    "function, types, expected",
    [
        (lambda x, w: ops.matmul(x, w), ("f32[2, 3, 5]", "f32[5, 7]"), 2 * 2 * 3 * 5 * 7),
        (lambda x, w, b: ops.linear(x, w, b), ("f32[2, 3, 5]", "f32[5, 7]", "f32[7]"), 2 * 2 * 3 * 5 * 7),
        (lambda x, w: ops.attention(x, x, w), ("f32[2, 3, 5, 4]", "f32[2, 3, 5, 7]"), 2 * 6 * 5 * 5 * (4 + 7)),
        (lambda x, w: ops.attention(x, x, w, causal=True), ("f32[2, 3, 5, 4]", "f32[2, 3, 5, 7]"), 2 * 6 * 15 * 11),
        (lambda x, w: ops.gemm(x, w, transpose_a=True), ("f32[5, 3]", "f32[5, 7]"), 2 * 3 * 5 * 7),
        (lambda x, w: ops.dot(x, w, contract=((0, 1), (1, 0))), ("f32[5, 3, 2]", "f32[3, 5, 7]"), 2 * 2 * 7 * 15),
        (lambda x, w: ops.conv(x, w, strides=(2,), dilations=(1,), low=(1,), high=(1,), groups=2),
         ("f32[2, 4, 9]", "f32[6, 2, 3]"), 2 * (2 * 6 * 5) * (2 * 3)),
        (lambda x, w: ops.conv_transpose(x, w, strides=(2,), dilations=(1,), low=(0,), high=(0,), output_padding=(0,)),
         ("f32[2, 4, 9]", "f32[4, 6, 3]"), 2 * (2 * 4 * 9) * (6 * 3)),
        (lambda x, w: ops.add(x, w), ("f32[3]", "f32[3]"), 0),
    ],
)  # fmt: skip
def test_arithmetic_of_products(function: Any, types: tuple[str, ...], expected: int) -> None:
    module = irc.trace(function, *types)
    operation = next(op for op in module.main.block if not op.definition.is_terminator)
    assert product_flops(operation, {}) == expected


def test_a_pipeline_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, BLOCK, "-p", "base=default", "-p", "bad=cse,default{fuse.policy=none}",
                    "-p", "worse=fuse{policy=nothing.py:none}", "--dim", "B=1", "--dim", "S=8", "--html", "e.html",
                    folder=tmp_path)  # fmt: skip
    assert done.code == 1 and "worse fails: " in done.out and "Traceback" not in done.err
    assert (tmp_path / "e.html").is_file()


def test_models_are_read_once(tmp_path: Path) -> None:
    """All pipelines see the same weights, also of a file that draws others each time."""
    (tmp_path / "m.py").write_text(
        "import numpy as np\nimport irc\nfrom irc.ops import const, exp, matmul\nfrom irc.weights import Tensor\n"
        "def model():\n    print('read')\n"
        "    w = np.random.default_rng().standard_normal((8, 8)).astype(np.float32)\n"
        "    return irc.trace(lambda x: exp(matmul(x, const(value=Tensor.of(w)))), 'f32[4, 8]')\n"
    )
    done = irc_here("experiment", "m.py:model", "-p", "a=default", "-p", "b=eager", "--json", folder=tmp_path)
    assert done.code == 0 and done.out.count("read\n") == 1, done.err
    actual = json.loads(done.out.partition("\n")[2])["models"]["m.py:model"]
    assert all(each["error"] < 1e-5 for each in actual.values())


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    import os
    import pty

    main, other = pty.openpty()
    command = [str(Path(sys.executable).with_name("irc")), "experiment", SCORES, "-p", "base=default"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=other, check=True)
    os.close(other)
    shown = os.read(main, 10_000).decode()
    os.close(main)
    assert f"reading {SCORES}" in shown and f"{SCORES}: base" in shown and f"{SCORES}: eager" in shown
    assert shown.endswith("\r\x1b[K") and b"\x1b" not in done.stdout
    assert irc_here("experiment", SCORES, "-p", "base=default", folder=tmp_path).err == ""


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["-p", "default"], "usage.arguments"),
        (["-p", "base=default", "-p", "base=cse"], "usage.arguments"),
        (["-p", "base=default", "--device", "sm_42"], "device.unknown"),
        (["-p", "base=default", "--dim", "Q=3"], "dim.unbound"),
    ],
)
def test_mistakes(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, *arguments, "--html", "e.html", folder=tmp_path)
    assert done.code in (2, 3) and code in done.err and not list(tmp_path.iterdir())


# -- the page --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("page")
    done = irc_here("experiment", SCORES, BLOCK, *SIZES, "-p", "base=default", "-p", f"mine={FRUGAL}",
                    "--html", "e.html", "--json", folder=folder)  # fmt: skip
    assert done.code == 0, done.err
    return folder / "e.html", json.loads(done.out)


def test_the_page_is_self_contained_and_has_the_figures(written: tuple[Path, dict[str, Any]]) -> None:
    path, report = written
    text = path.read_text()
    assert "<script" not in text and "http" not in text.replace("http-equiv", "") and "url(" not in text
    root = ElementTree.fromstring(text.partition("\n")[2])  # it is well-formed beyond what HTML requires
    cells = {cell.text for cell in root.iter("td")}
    for row in report["models"].values():
        for each in row.values():
            assert str(each["kernels"]) in cells and f"{each['error']:.1e}" in cells
    figures = list(root.iter("svg"))
    assert len(figures) == 4 * len(report["models"])
    widths = [float(bar.get("width", "0")) for bar in figures[1].iter("rect")]
    base, mine = (report["models"][SCORES][name]["distinct_bytes"] for name in ("base", "mine"))
    assert widths[0] / widths[1] == pytest.approx(base / mine, rel=1e-2)


def test_names_are_escaped() -> None:
    settings = Settings(dims={"M": 3, "N": 4})
    report = irc.experiment({"<b>&": SCORES}, {"a": "default", "b": "default{fuse.policy=none}"}, settings=settings)
    assert "<b>&" not in page(report) and "&lt;b&gt;&amp;" in page(report)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_the_page(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The browser's own document has every plot, with a size on the screen, and requested nothing else."""
    path, report = written
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    probe = path.with_name("probe.html")
    script = ("<script>document.title = [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect())"
              ".filter(r => r.width > 300 && r.height > 40).length + ' plots, ' + "
              "performance.getEntriesByType('resource').length + ' requests'</script></body>")
    probe.write_text(path.read_text().replace("</body>", script))
    done = subprocess.run([str(BROWSER), *flags, "--dump-dom", probe.as_uri()], capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    assert f"<title>{4 * len(report['models'])} plots, 0 requests</title>" in done.stdout


# -- bench -----------------------------------------------------------------------------------------------------


def test_bench_of_an_onnx_model(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> m (float[N, 8] x) => (float[N, 8] y)'
                                    " { a = Relu(x) b = Exp(a) y = Softmax(b) }")
    onnx.save(proto, tmp_path / "m.onnx")
    done = irc_here("bench", "m.onnx", "--dim", "N=5", "--rounds", "4", "--json", folder=tmp_path)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert set(report["contenders"]) == {"irc", "original"} and report["threads"] == 1
    compiled, other = report["contenders"]["irc"], report["contenders"]["original"]
    assert compiled["ratio"] == 1 and compiled["seconds"] > 0 and other["error"] < 1e-6
    assert other["quartiles"][0] <= other["ratio"] <= other["quartiles"][1]
    assert report["sizes"] == {"x": [5, 8]}
    done = irc_here("bench", "m.onnx", "--dim", "N=5", "--rounds", "4", folder=tmp_path)
    assert "irc / original" in done.out and "Triton kernels are not" in done.out


def test_bench_of_a_module_of_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("""
import torch

def net():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU()).eval(), (torch.randn(3, 8),)
""")
    done = irc_here("bench", "net.py:net", "--rounds", "3", "--json", folder=tmp_path)
    report = json.loads(done.out)
    assert set(report["contenders"]) == {"irc", "eager"} and report["contenders"]["eager"]["error"] < 1e-5


def test_bench_refuses_what_it_cannot_feed(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(str(irc.trace(lambda x: ops.relu(x), "bf16[3]")))
    done = irc_here("bench", "m.irc", folder=tmp_path)
    assert done.code == 2 and "usage.arguments" in done.err and "bf16[3]" in done.err
