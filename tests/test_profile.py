"""irc profile: times of nodes and kernels by value of the IR. No test compares times with one another."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver import Settings, benchmarking
from irc.driver.profile_page import profile_page
from irc.driver.profiling import EMPTY, Node, Run, device_nodes, on_device, prefixes, report_of, runs_of
from tests import planted
from tests.command_line import EXAMPLES, irc_here

BLOCK = f"{EXAMPLES / 'block.py'}:block"


def data_of(page: str) -> Any:
    return json.loads(page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])


def event(name: str, start: int, length: int, cat: str = "Node") -> dict[str, object]:
    return {"cat": cat, "name": name, "ph": "X", "ts": start, "dur": length, "args": {}}


def test_a_node_is_without_the_nodes_of_its_subgraphs() -> None:
    events = [
        event("session_initialization", 0, 50, "Session"), event("model_run", 100, 100, "Session"),
        event("a_kernel_time", 105, 10), event("loop_kernel_time", 120, 60), event("inner_kernel_time", 125, 20),
        event("deep_kernel_time", 126, 5), event("inner_kernel_time", 150, 20),
        event("model_run", 300, 50, "Session"), event("a_kernel_time", 310, 30),
    ]  # fmt: skip
    first, second = runs_of(reversed(events))
    assert first.nodes == {"a": 10, "loop": 20, "inner": 35, "deep": 5} and first.microseconds == 100
    assert second.nodes == {"a": 30} and second.microseconds == 50


def test_rows_are_medians_by_value_and_by_kind() -> None:
    def main(x: object) -> object:
        y = ops.exp(x, name="y")
        return ops.exp(ops.softmax(y, name="p"), name="z")

    runs = [Run(100.0, {"y": 1.0, "y/Cast": 1.0, "fused": 50.0, "reorder": 9.0}),
            Run(300.0, {"y": 3.0, "y/Cast": 3.0, "fused": 30.0, "reorder": 9.0}),
            Run(200.0, {"y": 2.0, "y/Cast": 2.0, "fused": 40.0, "reorder": 9.0})]  # fmt: skip
    nodes = {"y": Node("Exp", ("y",)), "y/Cast": Node("Cast", ("y/Cast",)), "fused": Node("SoftmaxExp", ("z", "fused"))}
    report = report_of(irc.trace(main, "f32[N]"), runs, nodes, EMPTY)
    assert [(row.value, row.op, row.microseconds, row.operators) for row in report.rows] == [
        ("z", "exp", 40.0, ("SoftmaxExp",)), ("", "added by the runtime", 9.0, ()), ("y", "exp", 4.0, ("Exp", "Cast")),
    ]  # fmt: skip
    assert [(kind.op, kind.microseconds) for kind in report.kinds] == [("exp", 44.0), ("added by the runtime", 9.0)]
    assert report.microseconds == 200 and report.in_nodes == 53 / 200
    assert sum(row.share for row in report.rows) == pytest.approx(1)
    assert list(prefixes("a/b/c")) == ["a/b/c", "a/b", "a"]


def test_every_node_is_a_value_also_where_onnx_runtime_makes_one_of_several() -> None:
    report = irc.profile(BLOCK, rounds=2, warmup=0, settings=Settings(dims={"B": 2, "S": 3}))
    compiled = irc.opt(BLOCK, "canonicalize", settings=Settings())
    assert {"hidden", "down", "out"} <= {row.value for row in report.rows} and compiled.main.find("hidden")
    (hidden,) = (row for row in report.rows if row.value == "hidden")
    assert hidden.op == "gelu" and hidden.operators == ("BiasGelu",)
    assert report.rounds == 2 and report.sizes["x"] == (2, 3, 64) and report.in_nodes > 0


def test_lines_of_the_source_and_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(planted.encoder(1), tmp_path / "encoder.onnx")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    report = irc.profile(tmp_path / "encoder.onnx", rounds=1, settings=Settings(dims={"B": 2, "S": 3}))
    assert all("encoder.onnx" in row.source for row in report.rows if row.value)
    assert not list((tmp_path / "temporary").iterdir()) and not list(Path.cwd().glob("*optimized*.onnx"))


def test_the_page_has_measured_times_and_no_estimates(tmp_path: Path) -> None:
    report = irc.profile(BLOCK, rounds=1, html=tmp_path / "profile.html", settings=Settings(dims={"B": 2, "S": 3}))
    data = data_of((tmp_path / "profile.html").read_text())
    (pipeline,) = data["pipelines"]
    times = {record["id"]: record["us"] for record in pipeline["records"] if "us" in record}
    assert times == {row.value: row.microseconds for row in report.rows if row.value}
    assert data["times"] == report.label and not any("limit" in record for record in pipeline["records"])


def test_branches_and_inputs_of_the_user(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x, bool c) => (float[N] y) {'
        " y = If (c) <then_branch = t () => (float[N] a) { a = Exp (x) }, else_branch = e () => (float[N] b) {"
        " b = Neg (x) }> }"
    ), tmp_path / "m.onnx")  # fmt: skip
    np.savez(tmp_path / "in.npz", x=np.ones(3, np.float32), c=np.bool_(True))
    report = irc.profile(tmp_path / "m.onnx", tmp_path / "in.npz", rounds=1)
    assert {"a", "y"} <= {row.value for row in report.rows} and report.sizes == {"x": (3,), "c": ()}


def test_kernels_of_a_gpu_are_values_and_others_are_libraries() -> None:
    nodes = device_nodes(["y", "ampere_sgemm"], {("main", "y_value"): "y", ("main", "twin"): "y"})
    assert nodes == {"y": Node("y", ("y_value", "twin"), "main"), "ampere_sgemm": Node("library", ())}


FUNCTIONS = """irc text 1
module @m {
  func @main(%x: f32[4]) -> f32[4] {
    %y = exp %x : f32[4]
    %a = call @f %y : f32[4]
    return %a
  }
  func @f(%x: f32[4]) -> f32[4] {
    %y = tanh %x : f32[4]
    %t = neg %y : f32[4]
    %b = call @g %t : f32[4]
    return %b
  }
  func @g(%x: f32[4]) -> f32[4] {
    %u = sin %x : f32[4]
    %t = cos %u : f32[4]
    return %t
  }
}
"""


def test_equal_names_in_two_functions_are_two_values(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(FUNCTIONS)
    module = Settings().load(tmp_path / "m.irc")
    runs = [Run(20.0, {"y": 1.0, "k": 2.0, "u": 4.0, "t": 8.0})]  # %t is a value of two functions
    report = report_of(module, runs, {"y": Node("Exp", ("y",)), "k": Node("k", ("y",), "f")}, EMPTY)
    assert [(row.function, row.value, row.op) for row in report.rows] == [
        ("", "", "added by the runtime"), ("g", "u", "sin"), ("f", "y", "tanh"), ("", "y", "exp")]  # fmt: skip
    text = profile_page(module, {"y": 1.0, "@f/y": 2.0}, "measured", Settings())
    (pipeline,) = data_of(text)["pipelines"]
    assert {each["id"]: each["us"] for each in pipeline["records"] if "us" in each} == {"y": 1.0, "@f/y": 2.0}


def test_runs_on_a_gpu_are_each_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler and the device are replaced: times of runs must reach the report one by one, not as their mean."""
    import torch

    class Recorded:
        microseconds = iter([100.0, 1.0, 2.0, 30.0])

        def __init__(self, **options: object) -> None:
            pass

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def key_averages(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(key="k", self_device_time_total=next(self.microseconds))]

    monkeypatch.setattr(torch.profiler, "profile", Recorded)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(benchmarking, "compiled_calls", lambda *_: (lambda: None, {}))
    runs, nodes = on_device(irc.trace(lambda x: ops.exp(x), "f32[4]"), {}, rounds=3, warmup=0)
    assert [run.microseconds for run in runs] == [1.0, 2.0, 30.0] and nodes == {"k": Node("library", ())}


def test_without_a_gpu_kernels_are_not_profiled() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(IrcError, match=r"device\.missing"):
        irc.profile(BLOCK, backend="triton")


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    options = ("--dim", "B=2", "--dim", "S=3", "--rounds", "1", "--warmup", "0")
    done = irc_here("profile", BLOCK, *options, "-n", "2", folder=tmp_path)
    assert done.code == 0 and "by kind of operation" in done.out and "more; -n lists them" in done.out
    assert "measured on this machine's CPU" in done.out
    report = json.loads(irc_here("profile", BLOCK, *options, "--json", folder=tmp_path).out)
    assert report["schema"] == "irc.profile/1" and report["rows"][0]["microseconds"] >= 0
    done = irc_here("profile", BLOCK, "--rounds", "0", folder=tmp_path)
    assert done.code == 2
