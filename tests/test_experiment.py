"""irc experiment and irc bench: pipelines side by side, and times on this machine."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver.experiment_report import Measurement, plan_difference, traffic_difference
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
    (case,) = report.cases
    for name, pipeline in (("base", "default"), ("mine", FRUGAL)):
        actual, expected = case.measured[name], kernels(SCORES, pipeline=pipeline, settings=settings)
        assert (actual.kernels, actual.library_calls, actual.host_operations) == (expected.launches, 0, 0)
        assert (actual.distinct_bytes, actual.loaded_bytes) == (expected.distinct_bytes, expected.loaded_bytes)
        assert actual.flops == expected.flops  # no products here
        assert actual.programs == min(kernel.programs for kernel in expected.kernels)
        assert actual.estimated_microseconds >= 2 * expected.launches + 1e6 * expected.distinct_bytes / 3.35e12
        assert 0 < actual.error < 1e-6 and actual.compile_seconds > 0
        for figure in ("distinct_bytes", "loaded_bytes", "flops", "estimated_microseconds"):
            assert getattr(actual, figure) == pytest.approx(sum(getattr(part, figure) for part in actual.parts))
        assert (actual.kernel_bytes, actual.library_bytes, actual.host_bytes) == (actual.distinct_bytes, 0, 0)
    assert report.passed and case.model == SCORES and case.sizes == {"M": 100, "N": 1000}
    assert case.plans["mine"] == ("@y is split: @p (%scaled, %p), @y (%y)",)
    assert traffic_difference(case.measured["base"], case.measured["mine"]) == "costs 800.0 kB of global memory traffic"


TEXTS = helper.make_model(helper.make_graph(
    [helper.make_node("Concat", ["words", "words"], ["twice"], axis=0),
     helper.make_node("Softmax", ["rows"], ["y"], axis=1)], "texts",
    [helper.make_tensor_value_info("words", TensorProto.STRING, ["N"]),
     helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["B", 8])],
    [helper.make_tensor_value_info("twice", TensorProto.STRING, ["M"]),
     helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 8])]),
    opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip


def test_inputs_are_given(tmp_path: Path) -> None:
    """For the models that have inputs of these names, whose sizes they state; texts are not random."""
    onnx.save(TEXTS, tmp_path / "texts.onnx")
    arrays = {"words": np.array(["A", "b"], object), "rows": np.ones((3, 8), np.float32)}
    np.savez(tmp_path / "in.npz", words=arrays["words"].astype("U"), rows=arrays["rows"])
    models = [str(tmp_path / "texts.onnx"), SCORES]
    report = irc.experiment(models, {"g": "default"}, inputs=arrays, cache=tmp_path / "cache")
    texts, scores = report.cases
    assert texts.sizes["B"] == 3 and texts.sizes["N"] == 2 and scores.sizes["M"] == 64
    assert report.passed and texts.measured["g"].error < 1e-6 and texts.measured["g"].distinct_bytes > 0
    done = irc_here("experiment", "texts.onnx", "-p", "g=default", "--input", "in.npz", folder=tmp_path)
    assert done.code == 0 and "at N=2, B=3" in done.out and "relative to eager" in done.out, done.err
    with pytest.raises(IrcError, match="no model has an input of these names"):
        irc.experiment([SCORES], {"g": "default"}, inputs={"words": arrays["words"]})
    refused = irc.experiment(models[:1], {"g": "default"}, inputs=arrays, sizes={"B": 4}).cases[0].measured["g"]
    assert refused.failure.startswith("usage.dim")


@pytest.mark.parametrize("models, pipelines", [(SCORES, {"g": "default"}), ([SCORES], "default"), (None, {})])
def test_what_is_no_list_of_models_or_no_pipelines_is_named(models: Any, pipelines: Any) -> None:
    with pytest.raises(IrcError, match=r"the (models|pipelines) are") as raised:
        irc.experiment(models, pipelines)
    assert raised.value.code == "usage.arguments"


def test_plans_are_compared_by_what_kernels_compute() -> None:
    base = Measurement(groups={"a": ("x", "y"), "b": ("z",)}, distinct_bytes=3000)
    other = Measurement(groups={"b": ("y", "z"), "a": ("x",), "c": ("w",)}, distinct_bytes=1000)
    assert plan_difference(base, other) == (
        "@b gains %y", "@a loses %y", "@c is new: %w")
    assert traffic_difference(base, other) == "saves 2.0 kB of global memory traffic"
    assert plan_difference(base, base) == () and traffic_difference(base, base) == ""


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
    (case,) = json.loads(done.out.partition("\n")[2])["cases"]
    assert all(each["error"] < 1e-5 for each in case["measured"].values())


def test_steps_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; tests/test_cli_reporting.py has how."""
    steps: list[str] = []
    monkeypatch.setattr("irc.cli.reporting.Reporting.show_progress", lambda _, text: steps.append(text))
    assert irc_here("experiment", SCORES, "-p", "base=default", folder=tmp_path).err == ""
    assert steps == [f"reading {SCORES}", f"{SCORES}: base", f"{SCORES}: eager"]


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["-p", "default"], "usage.arguments"),
        (["-p", "base=default", "-p", "base=cse"], "usage.arguments"),
        (["-p", "base=default", "--device", "sm_42"], "device.unknown"),
        (["-p", "base=default", "--dim", "Q=3"], "dim.unbound"),
        (["-p", "base=default", "--base", "other"], "usage.arguments"),
        (["-p", "base=default", "--dim", "M=1:9"], "usage.dim"),
        (["-p", "base=default", "--dim", "M=1:9:*1"], "usage.dim"),
        (["-p", "base=default", "--dim", "M=1:1000000:1"], "usage.dim"),
        (["-p", "base=default", "--csv", "no/such/folder.csv"], "file.unreadable"),
        (["-p", "base=default", "--seed", "-1"], "usage.arguments"),
    ],
)
def test_mistakes(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, *arguments, "--html", "e.html", folder=tmp_path)
    assert done.code in (2, 3) and code in done.err and not list(tmp_path.iterdir())


# -- sizes, geometric means, tables for programs ------------------------------------------------------------------


SWEEP = ["--dim", "M=2:8:*2", "--dim", "N=3,5"]
PIPELINES = ["-p", "base=default", "-p", "again=default", "-p", "none=default{fuse.policy=none}"]


def test_every_combination_of_sizes_is_a_case(tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, *SWEEP, *PIPELINES, "--csv", "e.csv", folder=tmp_path)
    assert done.code == 0, done.err
    for size in (2, 4, 8):
        assert f"M={size} N=3 base " in done.out and f"M={size} N=5 eager " in done.out
    assert done.out.count("plan of again: that of base\n") == 1 and done.out.count("plan of none: @y is split") == 1
    rows = list(csv.DictReader((tmp_path / "e.csv").open(newline="")))
    assert len(rows) == 3 * 2 * 4 and {row["dim.N"] for row in rows} == {"3", "5"}
    listed = kernels(SCORES, pipeline="default", settings=Settings(dims={"M": 4, "N": 5}))
    (row,) = (row for row in rows if (row["dim.M"], row["dim.N"], row["pipeline"]) == ("4", "5", "base"))
    assert int(row["distinct_bytes"]) == listed.distinct_bytes and int(row["kernels"]) == listed.launches


def test_geometric_means_are_those_of_the_cases() -> None:
    report = irc.experiment([SCORES], {"base": "default"}, sizes={"M": [1, 30], "N": 7}, base="none", with_error=False)
    assert set(report.summary) == {"base", "eager"} and report.base == "none"
    ratios = [case.measured["base"].distinct_bytes / case.measured["none"].distinct_bytes for case in report.cases]
    assert report.summary["base"].distinct_bytes == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert report.summary["base"].cases == 2 and math.isnan(report.cases[0].measured["base"].error)


def test_a_size_that_a_model_does_not_take_fails_in_its_rows() -> None:
    module = irc.trace(lambda x: ops.exp(x), "f32[?N in (0, 8)]")
    report = irc.experiment({"m": module}, {"base": "default"}, sizes={"N": [0, 8, 9]})
    failures = [case.measured["base"].failure for case in report.cases]
    assert failures[:2] == ["", ""] and failures[2].startswith("run.dim_range") and not report.passed
    assert report.summary["base"].cases == 1  # nothing is moved at 0


def test_parquet_needs_pyarrow(tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, *SIZES, "-p", "base=default", "--parquet", "e.parquet", folder=tmp_path)
    if importlib.util.find_spec("pyarrow") is None:
        assert done.code == 4 and "install.missing_extra" in done.err and not list(tmp_path.iterdir())
        return
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "e.parquet").num_rows == 2


# -- the cache -----------------------------------------------------------------------------------------------------


def test_an_interrupted_experiment_continues(tmp_path: Path) -> None:
    """The table of a run that is interrupted after some measurements and repeated is that of one that is not."""
    steps, sizes = [], {"M": [3, 5], "N": [4, 6]}

    def interrupt(text: str) -> None:
        steps.append(text)
        if len(steps) == 7:
            raise KeyboardInterrupt

    pipelines = {"base": "default", "mine": FRUGAL}
    with pytest.raises(KeyboardInterrupt):
        irc.experiment([SCORES], pipelines, sizes=sizes, cache=tmp_path / "c", progress=interrupt)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert len(kept) == 5  # after "reading", and without the step that was interrupted
    resumed = irc.experiment([SCORES], pipelines, sizes=sizes, cache=tmp_path / "c")
    assert all((tmp_path / "c" / name).read_bytes() == content for name, content in kept.items())
    whole = irc.experiment([SCORES], pipelines, sizes=sizes)

    def without_times(report: Any) -> list[dict[str, Any]]:
        return [{**row, "compile_seconds": 0} for row in report.rows()]

    assert without_times(resumed) == without_times(whole) and resumed.summary == whole.summary
    assert irc.experiment([SCORES], pipelines, sizes=sizes, cache=tmp_path / "c").csv() == resumed.csv()


def test_the_cache_knows_all_that_figures_depend_on(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    (tmp_path / "beside.py").write_text("MOST = 2\n")
    policy = tmp_path / "mine.py"
    policy.write_text("from irc.policy import policy\n@policy\ndef small(merge):\n    return 1\n")
    module = irc.trace(lambda x: ops.exp(ops.neg(x)), "f32[N]")
    other = irc.trace(lambda x: ops.exp(ops.relu(x)), "f32[N]")
    pipeline = f"default{{fuse.policy={policy}:small}}"

    def added(source: Any = module, text: str = pipeline, size: int = 3, **more: Any) -> int:
        before = len(list(folder.iterdir())) if folder.exists() else 0
        settings = Settings(**{key: more.pop(key) for key in ("device", "numerics", "products") if key in more})
        report = irc.experiment({"m": source}, {"p": text}, sizes={"N": size}, cache=folder, settings=settings, **more)
        assert report.passed
        return len(list(folder.iterdir())) - before

    assert added() == 2 and added() == 0  # p and eager
    assert added(module.clone()) == 0 and added(other) == 2 and added(size=4) == 2 and added(seed=1) == 2
    assert added(text="default") == 1  # eager is known
    assert added(device="a100") == 2 and added(numerics="exact") == 2 and added(products="irc") == 2
    (tmp_path / "beside.py").write_text("MOST = 3\n")
    assert added() == 1


def test_a_cut_entry_is_replaced_by_commands(tmp_path: Path) -> None:
    """Commands protect the files that they read: entries are no inputs of the user's."""
    command = ("experiment", SCORES, *SIZES, "-p", "base=default", "--no-error", "--cache", "c")
    whole = irc_here(*command, folder=tmp_path)
    for path in (tmp_path / "c").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert whole.code == 0 and irc_here(*command, folder=tmp_path).code == 0


def test_equal_programs_of_two_policies_have_one_plan() -> None:
    other = f"default{{fuse.policy={EXAMPLES / 'rules.py'}:frugal}}"
    module = irc.trace(lambda x: ops.exp(ops.neg(x)), "f32[8]")
    report = irc.experiment({"m": module}, {"greedy": "default", "frugal": other}, with_error=False)
    assert report.cases[0].same_plan("frugal") == "greedy"


def test_a_damaged_entry_is_measured_again(tmp_path: Path) -> None:
    first = irc.experiment([SCORES], {"base": "default"}, cache=tmp_path)
    whole = json.loads(sorted(tmp_path.iterdir())[0].read_bytes())
    changed = [{**whole, "kernels": "many"}, {**whole, "groups": {"a": [1]}}, {**whole, "parts": [{}]}, {"plan": "a"}]
    for content in (b"{", b"[1]", *(json.dumps(each).encode() for each in changed)):
        for path in tmp_path.iterdir():
            path.write_bytes(content)
        again = irc.experiment([SCORES], {"base": "default"}, cache=tmp_path)
        assert [row["distinct_bytes"] for row in again.rows()] == [row["distinct_bytes"] for row in first.rows()]


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
