"""`irc tune` with a timer that needs no GPU, what the next compilation makes of it, and timing of Triton kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver import tuning
from irc.driver.benchmarking import compared, gpu_calls
from irc.driver.callables import imported_program
from irc.driver.models import Settings
from irc.driver.tuning import FILE, apply_tuning, candidates, read_tuning, tune
from irc.kernel import kernel_of
from tests.command_line import EXAMPLES, irc_here
from tests.triton_harness import load_artefact

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
SCORES = f"{EXAMPLES}/block.py:scores"
NO_GPU = not torch.cuda.is_available()


def artefact(folder: Path, **settings: Any) -> Path:
    module = irc.trace(lambda x, w: ops.softmax(ops.matmul(x, w)), "f32[64, 32]", "f32[32, 48]")
    irc.compile(module, backend="triton", output=folder / "out", settings=Settings(products="irc", **settings))
    return folder / "out"


class Preferring:
    """A timer for which the launches with these options take least time."""

    def __init__(self, **options: int) -> None:
        self.options = options

    def __call__(self, start: Any, options: Mapping[str, int]) -> float:
        assert callable(start)
        return 1.0 + sum(options.get(name) != value for name, value in self.options.items())


def schedules(folder: Path) -> dict[str, dict[str, int]]:
    entries = json.loads((folder / FILE).read_text())["devices"][0]["kernels"]
    return {entry["name"]: entry["schedule"] for entry in entries.values()}


def test_the_fastest_schedule_is_written_and_compiled_next(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    before = json.loads((folder / "manifest.json").read_text())["kernels"]
    product = next(entry for entry in before if entry["kind"] == "product")
    timer = Preferring(m=product["blocks"]["m"] // 2, warps=product["warps"] // 2)
    report = tune(folder, timer=timer)
    assert set(report.kernels) == {entry["name"] for entry in before}
    best = report.kernels[product["name"]]
    assert best.options == timer.options
    assert best.seconds == 1.0 and best.seconds_by_rules == 3.0 and best.timed > 10 and best.failed == 0
    assert schedules(folder)[product["name"]] == best.options
    kept = (folder / FILE).read_bytes()
    again = artefact(tmp_path)
    after = next(entry for entry in json.loads((again / "manifest.json").read_text())["kernels"]
                 if entry["kind"] == "product")  # fmt: skip
    assert after["blocks"]["m"] == best.options["m"] and after["warps"] == best.options["warps"]
    assert (again / FILE).read_bytes() == kept
    inputs = {"x": np.random.default_rng(0).standard_normal((64, 32), np.float32),
              "w": np.random.default_rng(1).standard_normal((32, 48), np.float32)}  # fmt: skip
    scores = inputs["x"] @ inputs["w"]
    expected = np.exp(scores - scores.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    outputs = load_artefact(again).load().run({name: torch.from_numpy(array) for name, array in inputs.items()})
    np.testing.assert_allclose(next(iter(outputs.values())).cpu().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_equal_times_keep_what_rules_choose(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    report = tune(folder, timer=lambda start, options: 1.0)
    assert all(not each.options and each.seconds == each.seconds_by_rules for each in report.kernels.values())
    assert all(not stated for stated in schedules(folder).values())


def test_schedules_that_do_not_compile_are_left_out(tmp_path: Path) -> None:
    from triton.runtime.errors import OutOfResources

    def timer(start: Any, options: Mapping[str, int]) -> float:
        if options.get("stages") == 4:
            raise OutOfResources(10**6, 10**5, "shared memory")
        return 1.0

    folder = artefact(tmp_path)
    report = tune(folder, timer=timer)
    assert [each.failed for each in report.kernels.values() if each.failed] == [1]


def test_devices_have_schedules_of_their_own(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    tune(folder, timer=Preferring(warps=2))
    path = folder / FILE
    whole = json.loads(path.read_text())
    for name, architecture, warps in (("A", "sm_80", 1), ("B", "gfx942", 8)):
        entries = whole["devices"][0]["kernels"].items()
        kernels = {key: {**entry, "schedule": {"warps": warps}} for key, entry in entries}
        whole["devices"].append({"name": name, "architecture": architecture, "kernels": kernels})
    path.write_text(json.dumps(whole))
    warps = {}
    for device in ("a100", "mi300x", "h100", None):
        compiled = json.loads((artefact(tmp_path, device=device) / "manifest.json").read_text())["kernels"]
        warps[device] = {entry["warps"] for entry in compiled if entry["kind"] == "product"}
    assert warps["a100"] == {1} and warps["mi300x"] == {8} == warps[None]
    assert warps["h100"] not in ({1}, {8})  # what rules choose


def test_schedules_are_those_of_equal_kernels(tmp_path: Path) -> None:
    """A kernel of another structure, or one whose schedule is stated, keeps its own; what does not fit is noted."""
    folder = artefact(tmp_path)
    tune(folder, timer=Preferring(warps=2))
    settings = Settings(products="irc")
    same = irc.opt(irc.trace(lambda a, b: ops.softmax(ops.matmul(a, b)), "f32[64, 32]", "f32[32, 48]"), "default",
                   settings=settings)  # fmt: skip
    other = irc.opt(irc.trace(lambda x, w: ops.softmax(ops.matmul(x, w)), "f32[64, 32]", "f32[32, 64]"), "default",
                    settings=settings)  # fmt: skip
    assert apply_tuning(same, folder / FILE, None) and not apply_tuning(other, folder / FILE, None)
    stated = [op.attributes["schedule"] for op in same.walk() if op.name == "kernel"]
    assert {"warps": 2} in stated
    for op in same.walk():
        if op.name == "kernel":
            _ = kernel_of(op).schedule
    assert not apply_tuning(same, folder / FILE, None)  # each states one
    whole = json.loads((folder / FILE).read_text())
    for entry in whole["devices"][0]["kernels"].values():
        entry["schedule"] = {"i": 64, "k": 64}
    (folder / FILE).write_text(json.dumps(whole))
    fresh = irc.opt(irc.trace(lambda x, w: ops.softmax(ops.matmul(x, w)), "f32[64, 32]", "f32[32, 48]"), "default",
                    settings=settings)  # fmt: skip
    notes = apply_tuning(fresh, folder / FILE, None)
    assert notes and all("does not fit" in note for note in notes)


def test_kernels_that_state_a_schedule_are_tuned_with_it(tmp_path: Path) -> None:
    """Of a kernel that `split` makes, rules state a schedule. Another stated one stays, with a note, and what an
    artefact has from the file is not lost when it is timed again."""
    def compiled() -> list[dict[str, Any]]:
        module = irc.trace(lambda x: ops.reduce_sum(x, axes=(0,)), "f32[262144]")
        irc.compile(module, backend="triton", output=tmp_path / "out")
        kernels: list[dict[str, Any]] = json.loads((tmp_path / "out" / "manifest.json").read_text())["kernels"]
        return kernels

    (parts,) = (entry for entry in compiled() if entry["schedule"])
    assert parts["schedule"] == {"m": 1}
    tune(tmp_path / "out", timer=Preferring(m=2, warps=2 * parts["warps"]))
    best = {"m": 2, "warps": 2 * parts["warps"]}
    for _ in range(2):
        (tuned,) = (entry for entry in compiled() if entry["name"] == parts["name"])
        assert tuned["schedule"] == best
        tune(tmp_path / "out", timer=lambda start, options: 1.0)
        assert schedules(tmp_path / "out")[parts["name"]] == best
    module = irc.opt(irc.trace(lambda x: ops.reduce_sum(x, axes=(0,)), "f32[262144]"), "default,split")
    operations = [op for op in module.walk() if op.name == "kernel" and op.attributes["schedule"]]
    for op in operations:
        op.attributes["schedule"] = {"m": 4}
    (note,) = apply_tuning(module, tmp_path / "out" / FILE, None)
    assert "states m = 4, and was timed with m = 1: it keeps its schedule" in note
    assert [op.attributes["schedule"] for op in operations] == [{"m": 4}]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"devices": [{"name": "x"}]}', '{"devices": {"a": 1}}',
                                     '{"devices": [{"name": "x", "architecture": "y", "kernels": {"h": {}}}]}'])
def test_files_that_are_no_tuning(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(IrcError, match=r"file\.format"):
        read_tuning(tmp_path / FILE)


def test_options_of_a_tuning_file_are_checked(tmp_path: Path) -> None:
    entry = {"name": "k", "schedule": {"warps": 3}}
    text = json.dumps({"devices": [{"name": "x", "architecture": "y", "kernels": {"h": entry}}]})
    (tmp_path / FILE).write_text(text)
    with pytest.raises(IrcError, match=r"fuse\.schedule"):
        read_tuning(tmp_path / FILE)


def test_candidates_are_near_and_legal(tmp_path: Path) -> None:
    runtime = load_artefact(artefact(tmp_path)).runtime
    tiles = {"m": runtime.Grid(64, 64, True), "n": runtime.Grid(48, 16, True), "k": runtime.Loop(32, 32),
             "w": runtime.Whole(7), "b": runtime.Each(3)}  # fmt: skip
    every = list(candidates(tiles, 8, "product"))
    assert every[0] == () and len(every) == len(set(every))
    assert {dict(each)["m"] for each in every if "m" in dict(each)} == {32}  # 128 does not divide 64
    assert not any("n" in dict(each) for each in every)  # neither 8 nor 32
    assert {dict(each)["k"] for each in every if "k" in dict(each)} == {16, 64}
    assert {dict(each)["warps"] for each in every if "warps" in dict(each)} == {4, 16}
    assert {dict(each)["stages"] for each in every if "stages" in dict(each)} == {2, 3, 4}
    assert not any("stages" in dict(each) for each in candidates(tiles, 8, "reduction"))


@pytest.mark.parametrize(("rows", "columns", "order", "tried"), [
    (4096, 4096, 8, [1, 4, 16]), (4096, 4096, 3, [1, 4, 8, 16]), (512, 4096, 8, [1]), (128, 4096, 8, []),
    (4096, 100, 8, []), (4096, 4096, None, []),
])  # fmt: skip
def test_orders_that_differ_are_tried(rows: int, columns: int, order: int | None, tried: list[int],
                                      tmp_path: Path) -> None:  # fmt: skip
    """Of at most four blocks of rows all that run in turn are the same, as is any order of one block of columns."""
    runtime = load_artefact(artefact(tmp_path)).runtime
    tiles = {"m": runtime.Grid(rows, 128), "n": runtime.Grid(columns, 128), "k": runtime.Loop(64, 64)}
    every = [dict(each) for each in candidates(tiles, 8, "product", order)]
    assert [each["order"] for each in every if "order" in each] == tried


def test_the_order_of_blocks_is_timed_written_and_compiled_next(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Each order is launched, in blocks as on a GPU, and computes the same."""
    load = tuning.import_artefact

    def with_real_blocks(folder: Path) -> Any:
        package = load(folder)
        package.runtime.INTERPRETED_ELEMENTS = 1
        return package

    monkeypatch.setattr(tuning, "import_artefact", with_real_blocks)

    def compiled() -> dict[str, Any]:
        module = irc.trace(lambda x, w: ops.matmul(x, w), "f32[300, 16]", "f32[16, 200]")
        irc.compile(module, backend="triton", output=tmp_path / "out", settings=Settings(products="irc"))
        (entry,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["kernels"]
        return entry  # type: ignore[no-any-return]

    started = set[int]()

    def timer(start: Any, options: Mapping[str, int]) -> float:
        if options.keys() <= {"order"}:
            *_, product = start.args
            product.zero_()
            start()
            np.testing.assert_allclose(product.cpu().numpy(), x @ w, rtol=1e-5, atol=1e-5)
            started.add(options.get("order", 8))
        return 1.0 + (options.get("order") != 4)

    x, w = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((300, 16), (16, 200)))
    assert compiled()["constants"]["ORDER"] == 8
    (best,) = tune(tmp_path / "out", {"x": x, "w": w}, timer=timer).kernels.values()
    assert started == {1, 4, 8} and best.options == {"order": 4}
    after = compiled()
    assert after["schedule"] == {"order": 4} and after["constants"]["ORDER"] == 4


def test_tune_refuses_what_is_no_artefact(tmp_path: Path) -> None:
    done = irc_here("tune", str(tmp_path), folder=tmp_path)
    assert done.code == 2 and "usage.arguments" in done.err and "irc compile" in done.err


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_gpu_nothing_is_timed(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    done = irc_here("tune", str(folder), folder=tmp_path)
    assert done.code == 4 and "error[device.missing]" in done.err and not (folder / FILE).exists()
    done = irc_here("bench", SCORES, "--backend", "triton", folder=tmp_path)
    assert done.code == 4 and "error[device.missing]" in done.err


@pytest.mark.skipif(NO_GPU, reason="there is no GPU")
def test_on_a_gpu_schedules_are_timed(tmp_path: Path) -> None:
    folder = artefact(tmp_path)
    done = irc_here("tune", str(folder), "--json", folder=tmp_path)
    report = json.loads(done.out)
    assert all(0 < each["seconds"] <= each["seconds_by_rules"] < 1 for each in report["kernels"].values())
    done = irc_here("bench", SCORES, "--backend", "triton", "--json", folder=tmp_path)
    assert done.code == 0 and json.loads(done.out)["device"] == report["device"]


def test_calls_of_a_bench_compute_the_same(tmp_path: Path) -> None:
    """The calls that are timed on a GPU, here on the processor, where kernels are interpreted."""
    program = (torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU()).eval(), (torch.randn(3, 8),))
    module, convention = imported_program(*program)
    x = np.random.default_rng(0).standard_normal((3, 8), np.float32)
    given = {value.name: x for value in module.main.arguments}
    device = "cpu" if NO_GPU else "cuda"
    calls, arrays = gpu_calls(module, program, convention, given, device, None, Settings())
    report = compared(calls, given, 2, 1, arrays)
    assert set(report.contenders) == {"irc", "eager"}
    assert report.contenders["eager"].error < 1e-5 and report.contenders["irc"].seconds > 0
