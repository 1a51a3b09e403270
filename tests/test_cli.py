"""The command line: every verb and option, exit codes, what goes to stdout and to stderr, JSON, and its start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest

import irc
from irc.cli.options import BACKEND, NUMERICS
from irc.driver.arrays import given_inputs
from irc.driver.measuring import relative_error
from irc.driver.models import BACKENDS
from irc.interpreter import run
from irc.numerics import Numerics
from irc.ops import add, gelu, matmul
from irc.parser import parse
from tests.cli_reports import fine, working_folder
from tests.command_line import BODIES, EXAMPLES, TEXT, Result, irc_here, irc_process, model_outputs, model_proto

BLOCK, SCORES = f"{EXAMPLES}/block.py:block", f"{EXAMPLES}/block.py:scores"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return working_folder(tmp_path)


def report(result: Result, code: int = 0) -> dict[str, Any]:
    """The JSON of a command; nothing else may stand on stdout."""
    assert result.code == code, result.err
    decoded: dict[str, Any] = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return decoded


def operations(text: str) -> list[str]:
    return [operation.name for operation in parse(text).main.walk()]


# -- starting --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version_import_nothing_large(arguments: list[str]) -> None:
    code = f"import sys; sys.argv = ['irc', *{arguments}]; from irc.cli.entry import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"numpy", "onnx", "onnxruntime", "torch", "triton", "sympy", "lark", "ml_dtypes", "rich"}


def test_printing_a_model_imports_no_runtime(folder: Path) -> None:
    code = "import sys; sys.argv = ['irc', 'print', 'model.onnx']; from irc.cli.entry import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("irc text 1")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"onnxruntime", "torch", "triton", "sympy"}


def test_version_and_help(folder: Path) -> None:
    out = fine(irc_process("--version", folder=folder))
    assert re.match(r"irc \d\S+ \(text format 1\)  onnx [\d.]+  onnxruntime [\d.]+  torch \S+  triton \S+\n$", out)
    out = fine(irc_process("--help", folder=folder))
    for verb in ("compile", "print", "opt", "run", "check", "explain", "kernels", "doc"):
        assert f"  {verb} " in out
        assert "Usage: irc" in fine(irc_here(verb, "--help", folder=folder))
    assert fine(irc_here("-h", folder=folder)) == out
    assert "bf16 as uint16" in fine(irc_here("run", "--help", folder=folder))


def test_no_verb_is_a_usage_error(folder: Path) -> None:
    result = irc_process(folder=folder)
    assert (result.code, result.out) == (2, "") and result.err.startswith("Usage: irc")


# -- print -----------------------------------------------------------------------------------------------------

def test_print_then_opt_by_way_of_a_file(folder: Path) -> None:
    """`irc print model.onnx > m.irc && irc opt m.irc -p fold,cse`: the text points at the weights of the model."""
    done = subprocess.run(
        f"{shutil.which('irc', path=str(Path(sys.executable).parent))} print model.onnx > m.irc", shell=True, cwd=folder
    )
    assert done.returncode == 0
    assert 'weights = "model.onnx", sha256 = "sha256:' in (folder / "m.irc").read_text()
    out = fine(irc_process("opt", "m.irc", "-p", "fold,cse,dce", folder=folder))
    (folder / "m2.irc").write_text(out)
    module = irc.load(folder / "m2.irc")
    names = [operation.name for operation in module.main.block]
    assert "matmul" in names and names.count("add") == 1  # the sum of constants is gone
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    expected = model_outputs(model_proto(), x)
    np.testing.assert_allclose(irc.run(module, {"x": x}).outputs["y"], expected, rtol=1e-5, atol=1e-6)


def test_text_points_at_weights_in_another_folder(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    text = fine(irc_here("print", "../model.onnx", folder=elsewhere))
    assert 'weights = "../model.onnx", sha256 = ' in text
    (elsewhere / "m.irc").write_text(text)
    assert irc_here("run", "m.irc", folder=elsewhere).code == 3  # a text names files of its own folder
    allowed = ("--dim", "B=2", "--allow-folder", "..")
    first = fine(irc_here("run", "m.irc", *allowed, folder=elsewhere))
    assert fine(irc_here("run", "-", *allowed, folder=elsewhere, stdin=text.encode())) == first
    again = fine(irc_here("opt", "elsewhere/m.irc", "-p", "dce", "--allow-folder", ".", folder=folder))
    assert 'weights = "model.onnx"' in again
    assert fine(irc_here("run", "-", "--dim", "B=2", folder=folder, stdin=again.encode())) == first


def test_pipes(folder: Path) -> None:
    text = fine(irc_process("print", "small.irc", folder=folder))
    assert text == TEXT
    opted = fine(irc_process("opt", "-", "-p", "clean,fuse", folder=folder, stdin=text.encode()))
    assert "kernel @y" in opted
    ran = irc_process("run", "-", "--dim", "N=3", folder=folder, stdin=opted.encode())
    assert "y: float32[3, 8]" in fine(ran)


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    program = shutil.which("irc", path=str(Path(sys.executable).parent))
    done = subprocess.run(f"{program} doc ops | head -1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                          capture_output=True, text=True)  # fmt: skip
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_print_after_a_pass(folder: Path) -> None:
    assert "kernel" in operations(fine(irc_here("print", "small.irc", "--after", "fuse", folder=folder)))
    assert "kernel" not in operations(fine(irc_here("print", "small.irc", "--after", "legalize", folder=folder)))
    once = fine(irc_here("print", "small.irc", "-p", "fuse,fold,dce,fold", "--after", "fold.2", folder=folder))
    assert "kernel" in operations(once)
    result = irc_here("print", "small.irc", "--after", "fuze", folder=folder)
    assert result.code == 2 and "error[pass.unknown]" in result.err and "fuse" in result.err


def test_print_summary(folder: Path) -> None:
    out = fine(irc_here("print", "model.onnx", "--after", "fuse", "--summary", "--dim", "B=16", folder=folder))
    first, *rest = out.splitlines()
    assert re.fullmatch(r"@main \d+ ops -> 1 kernel, 1 library call, 0 host operations at B=16", first)
    assert "  input   x: f32[B, 64]" in rest and "  output  y: f32[B, 32]" in rest
    assert any(line.startswith("  symbol  B in [") for line in rest)
    assert any(line.split()[:2] == ["library", "matmul"] for line in rest)
    assert any(line.lstrip().startswith("@") and "softmax" in line and "B  " in line for line in rest)


def test_print_around_a_value(folder: Path) -> None:
    near = fine(irc_here("print", "small.irc", "--around", "%p", "-n", "1", folder=folder))
    assert near.splitlines()[1].startswith("> %p = softmax") and len(near.splitlines()) == 3
    assert "%half" in fine(irc_here("print", "small.irc", "--around", "p", folder=folder))


def test_print_to_a_file_with_its_weights(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    assert fine(irc_here("print", "../model.onnx", "-o", "m.irc", folder=elsewhere)) == "wrote m.irc\n"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["m.irc", "m.safetensors"]
    x = np.ones((1, 64), np.float32)
    kept, first = (irc.run(path, {"x": x}).outputs["y"] for path in (elsewhere / "m.irc", folder / "model.onnx"))
    np.testing.assert_array_equal(kept, first)


def test_specialize_bakes_a_size_in(folder: Path) -> None:
    out = fine(irc_here("print", "small.irc", "--specialize", "N=5", folder=folder))
    assert "func @main(%x: f32[5, 8]" in out


# -- opt -------------------------------------------------------------------------------------------------------

def test_opt_dumps_and_statistics_go_to_stderr(folder: Path) -> None:
    result = irc_here("opt", "model.onnx", "-p", "fold,cse,dce", "--dump-after", "fold", "--dump-after", "dce",
                      "--verify-each", "--statistics", folder=folder)  # fmt: skip
    assert result.code == 0 and result.out.startswith("irc text 1\n")
    assert "# after fold\nirc text 1" in result.err and "# after dce" in result.err and "# after cse" not in result.err
    assert re.search(r"^fold: folded [1-9]", result.err, re.MULTILINE)
    assert irc_here("opt", "small.irc", "-p", "cse,dce", "--dump-after", "all", folder=folder).err.count("# after") == 2


def test_opt_takes_options_policies_groups_and_passes_of_a_file(folder: Path) -> None:
    rules, scaled = EXAMPLES / "rules.py", f"{EXAMPLES}/block.py:scaled"
    greedy = fine(irc_here("opt", SCORES, "-p", "fuse", folder=folder))
    assert operations(greedy).count("kernel") == 1
    apart = fine(irc_here("opt", SCORES, "-p", "fuse{policy=none}", folder=folder))
    assert operations(apart).count("kernel") == 3
    frugal = fine(irc_here("opt", SCORES, "-p", f"default{{fuse.policy={rules}:frugal}}", folder=folder))
    assert operations(frugal).count("kernel") == 2
    pipeline = f"legalize,fuse{{policy=none,groups={rules}:bias_gelu}}"
    grouped = fine(irc_here("opt", BLOCK, "-p", pipeline, folder=folder))
    assert re.search(r"kernel @hidden .*\{\n *%\S+ = add .*\n *%\S+ = gelu ", grouped)
    planted = irc_here("opt", SCORES, "-p", "sharpen", "--load", EXAMPLES / "planted_bug.py", folder=folder)
    assert "const 1.01" in fine(planted)
    done = irc_here("opt", scaled, "-p", "rewrite", "--load", rules, folder=folder)
    assert done.code == 0 and done.err.startswith("note: rewrite: `scale_into_weight` is not tried: --numerics ")
    kept = done.out
    pipeline = f"rewrite{{rules={rules}}}"
    moved = fine(irc_here("opt", scaled, "-p", pipeline, "--numerics", "reassociates", folder=folder))
    order = [name for name in operations(moved) if name in ("mul", "matmul")]
    assert order == ["mul", "matmul"] and order[::-1] == [n for n in operations(kept) if n in ("mul", "matmul")]


def test_legalize_keeps_what_the_backend_takes(folder: Path) -> None:
    whole = irc_here("opt", BLOCK, "-p", "bias,legalize", folder=folder)
    assert "linear" in operations(fine(whole))
    for_onnx = irc_here("opt", BLOCK, "-p", "bias,legalize", "--backend", "onnx", folder=folder)
    assert "linear" not in operations(fine(for_onnx))


def test_a_plan_is_written_changed_and_replayed(folder: Path) -> None:
    fine(irc_here("opt", BLOCK, "-p", "default", "--plan", "plan.json", "-o", "fused.irc", folder=folder))
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["schema"] == "irc.plan/2" and {"name", "members", "hash", "proposer"} <= set(plan["groups"][0])
    replay = "default{fuse.policy=none,fuse.plan=plan.json}"
    again = fine(irc_here("opt", BLOCK, "-p", replay, folder=folder))
    without_places = re.compile(r" loc\(#\d+\)|^#.*\n", re.MULTILINE)
    fused = (folder / "fused.irc").read_text()
    assert without_places.sub("", again) == without_places.sub("", fused)
    (group,) = (group for group in plan["groups"] if group["name"] == "ln_2")
    group["hash"] = "0" * 16
    (folder / "plan.json").write_text(json.dumps(plan))
    result = irc_here("opt", BLOCK, "-p", replay, folder=folder)
    assert result.code == 1 and "error[plan.stale]: plan entry @ln_2: its operations have changed" in result.err
    del group["hash"]
    (folder / "plan.json").write_text(json.dumps(plan))
    assert fine(irc_here("opt", BLOCK, "-p", replay, folder=folder)) == again


def test_plan_needs_fuse(folder: Path) -> None:
    result = irc_here("opt", "small.irc", "-p", "dce", "--plan", "plan.json", folder=folder)
    assert result.code == 2 and "error[usage.arguments]" in result.err and not (folder / "plan.json").exists()


# -- check -----------------------------------------------------------------------------------------------------

def test_check_compares_with_f64(folder: Path) -> None:
    actual = report(irc_here("check", "model.onnx", "--dim", "B=3", "--backend", "onnx", "--json", folder=folder))
    assert actual["schema"] == "irc.check/1" and actual["label"] == "ONNX Runtime"
    assert [stage["stage"] for stage in actual["stages"]] == ["original", "import", "passes", "onnx"]
    for stage in actual["stages"]:
        (output,) = stage["outputs"]
        assert output["output"] == "y" and 0 <= output["error"] <= output["allowed"] < 1e-4
    out = fine(irc_process("check", "model.onnx", folder=folder))
    assert out.splitlines()[0].startswith("ok    original       %y  relative error ")


def test_check_each_names_the_pass_and_the_operation(folder: Path) -> None:
    arguments = [SCORES, "--dim", "M=3", "--dim", "N=7", "--each", "--load", EXAMPLES / "planted_bug.py"]
    result = irc_process("check", *arguments, "-p", "canonicalize,sharpen,fuse", folder=folder)
    assert (result.code, result.err) == (1, "")
    assert re.search(r"^ok +canonicalize ", result.out, re.MULTILINE)
    parted = r"^FAIL +sharpen .*\n +first differs at: sharpen, %p = softmax, which reads %\d+ = mul, made by sharpen"
    assert re.search(parted, result.out, re.MULTILINE)
    assert re.search(r"^FAIL +fuse .*: still wrong since sharpen$", result.out, re.MULTILINE)
    assert result.out.count("first differs at") == 1
    twice = irc_here("check", *arguments, "-p", "sharpen,cse,sharpen,dce", "--backend", "onnx", folder=folder)
    marks = re.findall(r"^FAIL +([\w.]+).*?(still wrong since [\w.]+)?$", twice.out, re.MULTILINE)
    assert marks == [("sharpen", ""), ("cse", "still wrong since sharpen"), ("sharpen.2", ""),
                     ("dce", "still wrong since sharpen.2"), ("onnx", "still wrong since sharpen.2")]  # fmt: skip
    assert twice.out.count("first differs at: sharpen") == 2
    actual = report(irc_here("check", *arguments, "-p", "canonicalize,sharpen", "--json", folder=folder), code=1)
    assert actual["stages"][-1]["first_part"].startswith("%p = softmax")


def test_check_looks_into_functions_that_are_called(folder: Path) -> None:
    text = """irc text 1
module @two {
  func @main<B>(%x: f32[B, 4]) -> (f32[B, 4], f32[B, 4]) {
    %y = call @inner %x : f32[B, 4]
    %z = add %y, %x : f32[B, 4]
    return %z, %z
  }
  func @inner<B>(%x: f32[B, 4]) -> f32[B, 4] {
    %y = softmax %x {axis = -1} : f32[B, 4]
    return %y
  }
}
"""
    (folder / "two.irc").write_text(text)
    arguments = ["two.irc", "--each", "--load", EXAMPLES / "planted_bug.py", "-p", "canonicalize,sharpen"]
    result = irc_here("check", *arguments, folder=folder)
    assert result.code == 1 and "first differs at: sharpen, @inner, %y = softmax" in result.out
    assert "%z_1" in result.out  # one value returned twice is two outputs


def test_check_of_rules(folder: Path) -> None:
    out = fine(irc_process("check", EXAMPLES / "rules.py", f"{EXAMPLES}/block.py:scaled", SCORES, folder=folder))
    assert out.startswith("scale_into_weight: 200 programs generated from the pattern, f16 bf16 f32 f64: equal ")
    assert "guard scalar: 40 near-misses that violate it: rejected" in out
    assert "matched 1 time in " in out and f"idle: never matched in {SCORES}" in out
    assert f"block.py:scaled, {SCORES}" not in out
    wrong = (EXAMPLES / "rules.py").read_text().replace("matmul(x, mul(w, s))\n", "matmul(x, mul(w, mul(s, 1.1)))\n")
    (folder / "wrong.py").write_text(wrong)
    actual = report(irc_here("check", "wrong.py", "--json", folder=folder), code=1)
    assert actual["schema"] == "irc.check_rules/1" and actual["passed"] is False
    assert "error relative to the terms" in actual["rules"][0]["failure"]["message"]
    assert irc_here("check", "wrong.py", "--each", folder=folder).code == 2
    compared = irc_here("check", "model.onnx", "small.irc", folder=folder)  # outside of rules, a second model
    assert compared.code == 3 and "diff.signature" in compared.err
    assert irc_here("check", "model.onnx", "small.irc", "small.irc", folder=folder).code == 2


@pytest.mark.parametrize("verb", ["print", "check", "kernels", "experiment"])
def test_programs_that_are_slow_to_read_are_better_saved(
    folder: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irc.driver.models.SLOW_READING", 0.0)
    options = ("-p", "a=dce") if verb == "experiment" else ()
    note = f"save it once with `irc print {SCORES} -o scores.irc`, and give scores.irc in its place"
    assert note in irc_here(verb, SCORES, *options, folder=folder).err
    assert "save it once" not in irc_here(verb, "small.irc", *options, folder=folder).err
    monkeypatch.undo()
    assert "save it once" not in irc_here(verb, SCORES, *options, folder=folder).err


# -- explain, kernels, doc -------------------------------------------------------------------------------------

def test_explain_a_code_and_a_rule(folder: Path) -> None:
    out = fine(irc_process("explain", "type.broadcast", folder=folder))
    assert out.startswith("type.broadcast: ") and "What to do: " in out and "Exit status: 3" in out
    out = fine(irc_here("explain", "F6", folder=folder))
    assert out.startswith("F6: ") and "fuse.shared_reduction_axis" in out
    for verb in ("explain", "doc"):
        result = irc_here(verb, "F7", folder=folder)
        assert result.code == 2 and "rule F7 was removed: " in result.err
    assert "Rules: irc doc V5, irc doc V7" in fine(irc_here("explain", "verify.types", folder=folder))
    result = irc_here("explain", "type.brodcast", folder=folder)
    assert result.code == 2 and "did you mean type.broadcast" in result.err


def test_explain_a_value(folder: Path) -> None:
    history = fine(irc_here("explain", SCORES, "%y", folder=folder))
    assert "%y: f32[M, N]" in history and "rewritten fuse(greedy)" in history and "kernel    @y (reduction)" in history
    assert "generated tl.store(y_ptr" in history  # as it stands in the artefact
    inside = fine(irc_here("explain", SCORES, "%scaled", folder=folder))
    assert "kernel    @y (reduction): mul, softmax, add" in inside and "generated scaled = " in inside
    assert "library   matmul" in fine(irc_here("explain", BLOCK, "%proj", folder=folder))
    assert "view      transpose" in fine(irc_here("explain", BLOCK, "%q", folder=folder))
    assert "an input of the program" in fine(irc_here("explain", BLOCK, "%x", folder=folder))
    out = fine(irc_here("explain", "model.onnx", "%y", folder=folder))
    assert 'model.onnx (/out/Softmax)' in out
    text = fine(irc_here("print", SCORES, folder=folder)).encode()
    assert "generated scaled = " in fine(irc_here("explain", "-", "%scaled", folder=folder, stdin=text))


def test_explain_a_pair(folder: Path) -> None:
    assert fine(irc_here("explain", SCORES, "%scaled", "%y", folder=folder)).startswith("in one kernel: @y")
    out = fine(irc_here("explain", BLOCK, "%ln_1", "%out", folder=folder))
    assert "(rule F1: " in out and "%ln_1: kernel @ln_1" in out and "more: irc explain fuse." in out
    assert fine(irc_here("explain", BLOCK, "%out", "%ln_1", folder=folder)) == out
    apart = fine(irc_here("explain", SCORES, "%scaled", "%p", "-p", "fuse{policy=none}", folder=folder))
    assert "policy none: the policy `none` merges nothing" in apart and "written and read again at M=64, N=64" in apart
    assert "takes a code, or MODEL and one or two values" in irc_here("explain", SCORES, folder=folder).err
    result = irc_here("explain", SCORES, "%scaled", "%p", "%y", folder=folder)
    assert result.code == 2 and "error[usage.arguments]" in result.err


def test_kernels_as_json(folder: Path) -> None:
    actual = report(irc_process("kernels", "model.onnx", "--dim", "B=16", "--json", folder=folder))
    assert set(actual) == {"schema", "label", "not_counted", "launches", "library_calls", "host_operations",
                           "distinct_bytes", "loaded_bytes", "flops", "peak_bytes", "share_in_kernels",
                           "share_without_library", "kernels", "calls", "sizes"}  # fmt: skip
    # The product is needed until the kernel has read it, and is as large as what the kernel writes.
    assert actual["peak_bytes"] == 2 * 4 * 16 * 32
    assert actual["sizes"] == {"B": 16}
    assert actual["schema"] == "irc.kernels/2" and actual["launches"] == len(actual["kernels"]) == 1
    (kernel,) = actual["kernels"]
    assert set(kernel) == {"name", "kind", "launches", "distinct_bytes", "loaded_bytes", "flops", "programs", "targets",
                           "bundle"}  # fmt: skip
    # relu, mul, add and softmax in one kernel: the product and the bias go in, the result comes out.
    assert kernel["kind"] == "reduction" and kernel["distinct_bytes"] == 4 * (16 * 32 + 32 + 16 * 32)
    (call,) = actual["calls"]
    assert call["op"] == "matmul" and call["distinct_bytes"] == 4 * (16 * 64 + 64 * 32 + 16 * 32)
    assert actual["distinct_bytes"] == kernel["distinct_bytes"] + call["distinct_bytes"]
    assert actual["share_in_kernels"] == pytest.approx(4 / 5) and actual["share_without_library"] == 1


def test_kernels_as_a_table(folder: Path) -> None:
    out = fine(irc_here("kernels", BLOCK, "--dim", "B=1", "--dim", "S=16", folder=folder))
    assert out.splitlines()[1].split()[:2] == ["@ln_1", "reduction"]
    total = r"^4 launches, 7 library calls, 0 host operations, .* of global memory traffic, peak live memory .* at B=1"
    assert re.search(total, out, re.MULTILINE)
    apart = fine(irc_here("kernels", BLOCK, "-p", "legalize,fuse{policy=none}", folder=folder))
    assert int(apart.splitlines()[-1].split()[0]) > 5
    fine(irc_here("opt", SCORES, "-p", "fuse", "-o", "fused.irc", folder=folder))
    last = fine(irc_here("kernels", "fused.irc", folder=folder)).splitlines()[-1]
    assert last.startswith("1 launch, 0 library calls, ")


def test_kernels_for_targets(folder: Path) -> None:
    pytest.importorskip("triton")
    actual = report(irc_here("kernels", SCORES, "--target", "sm_90,gfx942", "--json", folder=folder))
    (kernel,) = actual["kernels"]
    assert set(kernel["targets"]) == {"sm_90", "gfx942"}
    for facts in kernel["targets"].values():
        assert facts["registers"] > 0 and facts["spilled_bytes"] == 0 and facts["fits"] is True


def test_doc(folder: Path) -> None:
    page = fine(irc_process("doc", "layer_norm", folder=folder))
    assert page.startswith("layer_norm(x, scale?, bias?, *, axis = -1")
    assert "body (irc/ops/named/normalization.py:" in page
    assert page.count("Normalize to mean 0") == 1 and page.rstrip().splitlines()[-1].startswith("    return ")
    page = fine(irc_here("doc", "fuse", folder=folder))
    assert "policy: str = " in page and "file: passes/fuse.py" in page and "  F6 " in page
    assert "file: passes/raise_.py" in fine(irc_here("doc", "raise", folder=folder))
    both = fine(irc_here("doc", "split", folder=folder))  # a pass, and an operation
    assert "file: passes/split.py" in both and "split(x, *, axis, sizes)" in both
    assert fine(irc_here("doc", "F6", folder=folder)).startswith("F6: ")
    assert fine(irc_here("doc", "V1", folder=folder)).startswith("V1: [verify.dominance] ")
    assert max(map(len, fine(irc_here("doc", "rules", folder=folder)).splitlines())) <= 100
    assert "--backend triton --target sm_80" in fine(irc_here("doc", "sm_80", folder=folder))
    assert "targets: portable, cpu" in fine(irc_here("doc", "onnx", folder=folder))
    assert "Exit status: 3" in fine(irc_here("doc", "onnx.cycle", folder=folder))
    for topic, entry in {"ops": "softmax", "passes": "fuse", "rules": "F14", "targets": "gfx942", "codes": "type.rank",
                         "pipelines": "default"}.items():  # fmt: skip
        assert entry in fine(irc_here("doc", topic, folder=folder))
        assert topic in fine(irc_here("doc", folder=folder))
    result = irc_here("doc", "layernorm", folder=folder)
    assert result.code == 2 and "did you mean layer_norm" in result.err


# -- compile ---------------------------------------------------------------------------------------------------

def test_compile_for_onnx_runtime(folder: Path) -> None:
    assert fine(irc_process("compile", "model.onnx", folder=folder)).startswith("wrote model.irc.onnx   ")
    model = onnx.load(folder / "model.irc.onnx")
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(5).standard_normal((2, 64)).astype(np.float32)
    np.testing.assert_allclose(model_outputs(model, x), model_outputs(model_proto(), x), rtol=1e-5, atol=1e-6)
    actual = report(irc_here("compile", "model.onnx", "--keep-kernels", "-o", "view.onnx", "--json", folder=folder))
    assert actual["schema"] == "irc.compile/2" and actual["output"] == "view.onnx" and actual["kernels"] == 1
    assert len(onnx.load(folder / "view.onnx").functions) == 1


def test_compile_to_triton_and_run_the_folder(folder: Path) -> None:
    out = fine(irc_here("compile", "model.onnx", "--backend", "triton", folder=folder))
    assert out.startswith("wrote model.triton/   1 kernel, 1 host call, ")
    again = report(irc_here("compile", "model.onnx", "--backend", "triton", "--json", folder=folder))
    assert again["output"] == "model.triton"  # an artefact is replaced
    assert (again["kernels"], again["host_calls"]) == (1, 1)
    assert (again["figures"]["launches"], again["figures"]["library_calls"]) == (1, 1)
    pytest.importorskip("triton")
    x = np.random.default_rng(6).standard_normal((3, 64)).astype(np.float32)
    np.savez(folder / "in.npz", x=x)
    command = [sys.executable, "model.triton", "--input", "in.npz", "--output", "out.npz"]
    assert " ".join(command[1:]) in out
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as arrays:
        np.testing.assert_allclose(arrays["y"], model_outputs(model_proto(), x), rtol=1e-4, atol=1e-6)


def test_compile_for_a_gpu_that_is_not_there(folder: Path) -> None:
    pytest.importorskip("triton")
    out = fine(irc_here("compile", SCORES, "--backend", "triton", "--target", "sm_90", "-o", "out", folder=folder))
    assert "compiled for sm_90\n" in out
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert (manifest["label"], manifest["targets"]) == ("compiled", ["sm_90"])
    plain = report(irc_here("compile", SCORES, "--backend", "triton", "-o", "out", "--json", folder=folder))
    assert plain["label"] == "generated" and plain["targets"] == []


def test_compile_needs_neither_torch_nor_triton(folder: Path) -> None:
    """As on a machine without them: the artefact is written, and it is said what is missing to run it."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = sys.modules['triton'] = None\n")
    hidden = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    out = fine(irc_process("compile", "model.onnx", "--backend", "triton", folder=folder, environment=hidden))
    assert 'not compiled: torch and triton not installed (pip install "irc-compiler[triton]")' in out
    assert (folder / "model.triton" / "kernels.py").is_file()
    for arguments in (
        ["run", "small.irc", "--backend", "triton"],
        ["run", "model.triton"],
        ["check", "small.irc", "--backend", "triton"],
        ["reduce", "small.irc", "--backend", "triton", "-o", "reduced"],
        ["bench", "small.irc", "--backend", "triton"],
        ["profile", "small.irc", "--backend", "triton"],
        ["tune", "model.triton"],
        ["kernels", "small.irc", "--target", "sm_80"],
        ["compile", "small.irc", "--backend", "triton", "--target", "sm_80", "-o", "out"],
    ):
        result = irc_process(*arguments, folder=folder, environment=hidden)
        assert (result.code, result.out) == (4, "") and "error[install.missing_extra]" in result.err
        assert 'help: pip install "irc-compiler[triton]"' in result.err


# -- MODEL, and the verbs from Python --------------------------------------------------------------------------

def test_a_model_may_be_a_module_or_a_function_in_a_file(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import irc\nfrom irc.ops import add\n"
        "def made(): return irc.trace(lambda x: add(x, x), 'f32[4]')\n"
        "ready = made()\n"
    )
    called, ready = (fine(irc_here("print", f"mine.py:{name}", folder=folder)) for name in ("made", "ready"))
    assert called == ready


def test_the_verbs_are_functions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = irc.trace(lambda x, w, b: gelu(add(matmul(x, w), b)), "f16[B, S, 768]", "f16[768, 3072]", "f16[3072]")
    print(module)
    assert capsys.readouterr().out.startswith("irc text 1\nmodule @traced {")
    fused = irc.opt(module, "fuse")
    kernels = irc.kernels(fused)
    assert (kernels.launches, kernels.library_calls, kernels.host_operations) == (1, 1, 0)
    assert irc.print(module, after="fuse", pipeline="fuse") == str(fused)
    small = irc.load(folder / "small.irc")
    assert irc.check(small, each=True).passed
    assert irc.compile(small, output=folder / "small.onnx").nodes == 3
    assert irc.explain(small, "scaled", "y").startswith("in one kernel")
    arrays = {"x": np.ones((2, 8), np.float32), "b": np.zeros(8, np.float32)}
    np.testing.assert_allclose(irc.run(small, arrays).outputs["y"], np.full((2, 8), 0.125), rtol=1e-6)
    assert str(irc.load(folder / "small.irc")) == str(small)  # no verb changes what it is given


def test_choices_are_those_of_the_driver() -> None:
    assert tuple(BACKEND.choices) == BACKENDS and get_args(Numerics) == NUMERICS


# -- stages as ONNX models -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("model", [f"{EXAMPLES / 'block.py'}:block", f"{EXAMPLES / 'encoder.py'}:layer", "bodies.irc"])
@pytest.mark.parametrize(
    "command", [["print"], ["print", "--after", "fuse"], ["opt", "-p", "default{fuse.products=irc}"]]
)
def test_a_stage_is_written_as_an_onnx_model(tmp_path: Path, model: str, command: list[str]) -> None:
    """Each kernel is a local function, which ONNX Runtime inlines: results are those of the stage."""
    if "encoder" in model:
        pytest.importorskip("torch")
    (tmp_path / "bodies.irc").write_text(BODIES)
    done = irc_here(*command, model, "-o", "stage.onnx", folder=tmp_path)
    assert done.code == 0, done.err
    assert irc_here(*command, model, "-o", "stage.irc", folder=tmp_path).code == 0
    stage = irc.load(tmp_path / "stage.irc")
    proto = onnx.load(tmp_path / "stage.onnx")
    onnx.checker.check_model(proto, full_check=True)
    kernels = sum(operation.name == "kernel" for operation in stage.walk())
    assert len(proto.functions) == kernels and (kernels > 0) == (command != ["print"])
    inputs = given_inputs(stage.main, None, {}, 0)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for array, expected in zip(session.run(None, inputs), run(stage, inputs).values(), strict=True):
        assert relative_error(array, expected) < 1e-5


def test_a_stage_that_onnx_cannot_express_is_an_error(tmp_path: Path) -> None:
    text = "irc text 1\nmodule @m { func @main(%x: f6e2m3[4]) -> f6e2m3[4] { %y = reverse %x {axes = [0]} : f6e2m3[4]\n"
    (tmp_path / "m.irc").write_text(text + "return %y } }\n")
    done = irc_here("print", "m.irc", "-o", "m.onnx", folder=tmp_path)
    assert done.code == 4 and "backend.unsupported" in done.err and not (tmp_path / "m.onnx").exists()


def test_a_command_rarely_collects_garbage() -> None:
    """Collections while modules are imported took a tenth of the time of a small command, those at its end a sixth."""
    program = ("import gc, sys\nfrom irc.cli.entry import main\nsys.argv = ['irc', '--version']\n"
               "try: main()\nexcept SystemExit: pass\nprint(gc.get_threshold()[0], gc.get_freeze_count())")  # fmt: skip
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    threshold, frozen = map(int, run.stdout.split()[-2:])
    assert threshold >= 100_000 and frozen > 10_000
