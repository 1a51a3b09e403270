"""What SECURITY.md promises, a hostile input for each promise: run where an audit hook rejects all that is not allowed.

`tests/audit/sitecustomize.py` is the hook, `tests/hostile.py` runs commands under it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.backends.triton.artefact import COPIED, WRITTEN
from irc.driver.compiling import default_output
from irc.module import Module
from irc.weights import Tensor, save
from tests.command_line import ROOT, TEXT
from tests.hostile import NAMES, audited, named_model

ARTEFACT = {*COPIED, *WRITTEN}  # the names that irc gives


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
        out = folder / f"{number}.out"
        files = {path.relative_to(out).as_posix() for path in out.rglob("*")}
        externs = {path for path in files if path.startswith("externs")}
        assert files - externs <= ARTEFACT, (name, files)
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
    assert "#<script>" not in page and all(line.isprintable() for line in page.split("\n"))
    assert "default-src" in page  # only its own scripts run, and nothing is fetched: tests/test_pages.py
    assert not list(folder.parent.rglob("pwned"))


# -- files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(folder: Path) -> Path:
    """A weights file, and the same bytes as external data, outside of the folder."""
    outside = folder.parent / "secret"
    outside.mkdir()
    save(outside / "s.safetensors", {"w": Tensor.of(np.full(8, 7.25, np.float32))})
    (outside / "s.bin").write_bytes(np.full(8, 7.25, np.float32).tobytes())
    return outside


def text_with(weights: str, digest: str | None) -> str:
    """A text whose constant lies in a file."""
    stated = f", sha256 = {json.dumps(digest)}" if digest else ""
    return (f"irc text 1\nmodule @m {{weights = {json.dumps(weights)}{stated}}} {{\n  func @main() -> f32[8] {{\n"
            '    %w = const @"w" : f32[8]\n    return %w\n  }\n}\n')  # fmt: skip


def with_external_data(location: str) -> onnx.ModelProto:
    """A model whose initializer lies in a file."""
    weight = numpy_helper.from_array(np.zeros(8, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    graph = helper.make_graph([helper.make_node("Neg", ["w"], ["y"])], "g", [],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])], [weight])  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_weights_stay_in_their_folder(folder: Path, secret: Path) -> None:
    """Paths and links that lead out are rejected before anything there is opened, whether a hash is stated or not, and
    no message reveals what is there."""
    (folder / "link.safetensors").symlink_to(secret / "s.safetensors")
    (folder / "up").symlink_to("..")
    stored = secret / "s.safetensors"
    digest = f"sha256:{hashlib.sha256(stored.read_bytes()).hexdigest()}"
    commands = []
    for path in ("../secret/s.safetensors", str(stored), "link.safetensors", "up/secret/s.safetensors",
                 "x/../../secret/s.safetensors", "..\\secret\\s.safetensors", "/etc/passwd", "../none.safetensors"):
        for stated in (digest, "sha256:" + "0" * 64, None):
            name = f"{len(commands)}.irc"
            (folder / name).write_text(text_with(path, stated))
            commands.append(["run", name])
    for location in ("../secret/s.bin", str(secret / "s.bin"), "up/secret/s.bin", "/dev/zero"):
        name = f"{len(commands)}.onnx"
        (folder / name).write_bytes(with_external_data(location).SerializeToString())
        commands += [["run", name], ["bench", name, "--rounds", "2"]]
    for command, result in zip(commands, audited(folder, *commands), strict=True):
        assert result.code == 3, (command, result)
        assert re.search(r"error\[(weights\.outside|weights\.format|onnx\.external_outside)\]", result.err), result.err
        assert digest[7:] not in result.err + result.out and "7.25" not in result.out


def test_a_folder_that_is_allowed_may_be_named(folder: Path, secret: Path) -> None:
    (folder / "m.irc").write_text(text_with("../secret/s.safetensors", None))
    (folder / "m.onnx").write_bytes(with_external_data(str(secret / "s.bin")).SerializeToString())
    *allowed, timed = audited(folder, *(["run", name, "--allow-folder", "../secret"] for name in ("m.irc", "m.onnx")),
                              ["bench", "m.onnx", "--rounds", "2", "--allow-folder", "../secret"], read=[secret])
    assert ["7.25" in result.out for result in allowed] == [True, True], allowed
    assert timed.code == 0 and "original" in timed.out and "outputs differ by 0e+00" in timed.out, timed


@pytest.mark.parametrize("place", ["s.safetensors", "sub"])
def test_a_link_that_appears_during_the_run_is_not_followed(folder: Path, secret: Path, place: str) -> None:
    """The file, or a folder on the way, becomes a link after irc has looked and before it opens."""
    (folder / "sub").mkdir()
    save(folder / "sub" / "s.safetensors", {"w": Tensor.of(np.full(8, 1.5, np.float32))})
    (folder / "m.irc").write_text(text_with("sub/s.safetensors", None))
    attacked, target = (folder / "sub", secret) if place == "sub" else (folder / "sub" / place, secret / place)
    before, (after,) = audited(folder, ["run", "m.irc"]), audited(folder, ["run", "m.irc"], swap={
        place: (attacked, target)})  # fmt: skip
    assert "1.5" in before[0].out and attacked.is_symlink()
    assert after.code == 3 and "7.25" not in after.out, after


def test_external_data_that_becomes_a_link_during_the_run_is_not_followed(folder: Path, secret: Path) -> None:
    (folder / "s.bin").write_bytes(np.full(8, 1.5, np.float32).tobytes())
    (folder / "m.onnx").write_bytes(with_external_data("s.bin").SerializeToString())
    (before,), (after,) = audited(folder, ["run", "m.onnx"]), audited(
        folder, ["run", "m.onnx"], swap={"s.bin": (folder / "s.bin", secret / "s.bin")})  # fmt: skip
    assert "-1.5" in before.out and (folder / "s.bin").is_symlink()
    assert after.code == 3 and "7.25" not in after.out, after


def test_an_output_that_becomes_a_link_during_the_run_is_replaced(folder: Path, secret: Path) -> None:
    """The link appears when the input is opened, after the output's place was looked at; what it names stays."""
    (folder / "m.irc").write_text(TEXT)
    (folder / "out.onnx").write_text("before")
    (done,) = audited(folder, ["compile", "m.irc", "-o", "out.onnx"],
                      swap={"m.irc": (folder / "out.onnx", secret / "s.bin")})  # fmt: skip
    assert done.code == 0, done
    assert not (folder / "out.onnx").is_symlink() and onnx.load(folder / "out.onnx").graph.node
    assert (secret / "s.bin").read_bytes() == np.full(8, 7.25, np.float32).tobytes()


# -- the terminal ----------------------------------------------------------------------------------------------

# What moves the cursor, sets the title, colors, reverses what follows, or begins a line that irc did not write.
ACTING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ex\u2066\u200b\u2028\x85\x7f\r\nerror[a.b]: no"


def acting_text() -> str:
    """A program in which all that has a name has that one."""
    name, quoted = json.dumps(ACTING), json.dumps(f"{ACTING}2")
    return (
        f"irc text 1\nmodule @{name} {{\n"
        f"  func @{name}<{name}>(%{name}: f32[{name}, 8]) -> ({quoted}: f32[{name}, 8]) {{\n"
        f"    %a = exp %{name} : f32[{name}, 8] loc(#1)\n    %{quoted} = neg %a : f32[{name}, 8] loc(#1)\n"
        f"    return %{quoted}\n  }}\n}}\n#1 = loc({name}:3, {name}, [{name}])\n"
    )  # fmt: skip


def test_nothing_acts_on_the_terminal(folder: Path) -> None:
    """Whatever names hold, what is printed has no control characters, and no lines but those of irc's making."""
    (folder / "m.irc").write_text(acting_text())
    (folder / "m.onnx").write_bytes(named_model(ACTING).SerializeToString())
    (folder / "bad.irc").write_text(acting_text().replace("exp", f"exq{ACTING}"))
    value = f"%{ACTING}2"
    commands = [
        ["print", "m.irc"], ["print", "m.irc", "--summary"], ["print", "m.irc", "--around", value], ["print", "m.onnx"],
        ["print", "m.onnx", "--summary"], ["opt", "m.irc", "-p", "default", "--statistics", "--dump-after", "all"],
        ["kernels", "m.irc"], ["kernels", "m.irc", "--json"], ["check", "m.irc", "--backend", "onnx"],
        ["check", "m.irc", "--each", "--json"],
        ["explain", "m.irc", value], ["explain", "m.irc", "%a", value], ["explain", "m.irc", f"%{ACTING}"],
        ["explain", "m.onnx", f"%{ACTING}o"], ["run", "m.irc"], ["run", "m.irc", "--dim", f"{ACTING}=-1"],
        ["run", "m.onnx"], ["run", "m.irc", "--output", "out.npz"], ["run", "m.irc", "--input", "out.npz"],
        ["compile", "m.irc", "-o", "o.onnx"], ["compile", "m.onnx", "--json", "-o", "o.onnx"],
        ["compile", "m.irc", "--backend", "triton", "-o", "o.triton"], ["print", "bad.irc"], ["print", ACTING],
        ["experiment", "m.irc", "-p", "base=default", "-p", "o=default{fuse.policy=none}", "--json"],
        ["experiment", "m.irc", "-p", "base=default", "-p", "o=default{fuse.policy=none}"],
        ["extract", "m.irc", "--to", value, "-o", "part.irc"], ["extract", "m.irc", "--to", "%nope", "-o", "part.irc"],
        ["bench", "m.irc", "--rounds", "2"], ["print", "m.irc", "-o", "again.irc"], ["print", "again.irc"],
    ]  # fmt: skip
    for command, result in zip(commands, audited(folder, *commands), strict=True):
        assert result.code in (0, 2, 3, 4), (command, result)
        for line in [*result.out.split("\n"), *result.err.split("\n")]:
            assert line.isprintable() and not line.startswith("error[a.b]"), (command, line)
        if "--json" in command:
            assert result.out.isascii() and json.loads(result.out)
    text = (folder / "again.irc").read_text()
    assert all(line.isprintable() for line in text.split("\n")) and irc.load(folder / "again.irc").name == ACTING


def test_all_output_goes_through_one_function() -> None:
    """Beside it print the message about an overwritten package, a process that answers in numbers, --dump-after and
    progress, which escape by themselves, and completion, whose names need no quotes."""
    others = []
    for path in (path for folder in ("irc", "frontends", "passes") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "click.echo", "click.secho") or re.fullmatch(r"sys\.std(out|err)\.write", called):
                others.append(path.relative_to(ROOT).as_posix())
    assert sorted(others) == [f"irc/{each}.py" for each in (
        "cli/completion", "cli/completion", "cli/entry", "cli/reporting", "cli/reporting", "driver/artefact_process",
        "driver/models")]  # fmt: skip


# -- nothing is run --------------------------------------------------------------------------------------------


class Payload:
    """What makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_nothing_is_unpickled_or_evaluated(folder: Path) -> None:
    """Objects in arrays, in place of arrays, and Python where data is expected."""
    (folder / "m.irc").write_text(TEXT)
    np.savez(folder / "objects.npz", x=np.array([Payload()], object))
    np.save(folder / "alone.npy", np.array([Payload()], object))
    (folder / "pickle.npz").write_bytes(pickle.dumps(Payload()))
    (folder / "w.safetensors").write_bytes(pickle.dumps(Payload()))
    (folder / "w.irc").write_text(text_with("w.safetensors", None))
    (folder / "p.onnx").write_bytes(pickle.dumps(Payload()))
    (folder / "plan.json").write_bytes(pickle.dumps(Payload()))
    code = "__import__('os').mkdir('pwned')"
    (folder / "c.irc").write_text(TEXT.replace("0.5", code))
    named = TEXT.replace("N in [1, 4096]", f"{json.dumps(code)} in [1, 4096]")
    (folder / "d.irc").write_text(named.replace("f32[N,", f"f32[{json.dumps(code)},"))
    commands = [["run", "m.irc", "--input", name] for name in ("objects.npz", "alone.npy", "pickle.npz")]
    commands += [["run", "w.irc"], ["print", "p.onnx"], ["run", "c.irc"]]
    commands.append(["opt", "m.irc", "-p", "fuse{plan=plan.json}"])
    for command, result in zip(commands, audited(folder, *commands), strict=True):
        assert result.code == 3, (command, result)
    (ran,) = audited(folder, ["compile", "d.irc", "--backend", "triton", "-o", "out.triton"])
    assert ran.code == 0, ran
    assert not (folder / "pwned").exists()


# -- nothing else is written, and nothing is sent --------------------------------------------------------------


def test_onnx_runtime_leaves_no_file_of_its_telemetry(folder: Path) -> None:
    """It would write a session of its telemetry among the temporary files, and send events."""
    temporary = folder / "temporary"
    temporary.mkdir()
    (folder / "m.irc").write_text(TEXT)
    kept = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_int64s=[3], values_int64s=[7])
    infos = [helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([kept], "g", infos[:1], infos[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "s.onnx")
    artefact = "import numpy as np, a; print(a.load().run({'x': np.array([3, 4])}))"
    commands = ["run m.irc --backend onnx", "compile m.irc -o m.onnx", "check m.onnx",
                "compile s.onnx --backend triton -o a"]  # fmt: skip
    for command in (*(["-m", "irc", *command.split()] for command in commands), ["-c", artefact]):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True,
                              env={**environment, "TMPDIR": str(temporary), "TRITON_INTERPRET": "1"})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not list(temporary.iterdir()), command


def test_onnx_runtime_is_imported_in_one_place() -> None:
    named = [path.relative_to(ROOT).as_posix()
             for folder in ("irc", "frontends", "passes", "backends") for path in (ROOT / folder).rglob("*.py")
             if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)]  # fmt: skip
    assert sorted(named) == ["backends/triton/templates/runtime.py", "irc/onnx_runtime.py"]
