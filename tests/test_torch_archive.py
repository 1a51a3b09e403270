"""`.pt2` files: read as PyTorch saved them, and nothing in them is run."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import irc
from irc.diagnostics import IrcError
from irc.frontends.torch.archive import load
from irc.frontends.torch.size_texts import is_arithmetic
from tests.command_line import irc_here, irc_process
from tests.models import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:No complete tensor")  # of PyTorch's own, about views


class Net(nn.Module):
    """Tied weights, a buffer, a constant tensor, a strided weight, and a size used as data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.tied = self.fc.weight
        self.register_buffer("offset", torch.randn(4))
        self.scale = torch.randn(4)
        self.turned = nn.Parameter(torch.randn(3, 4).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.fc(x) @ self.tied + self.offset * self.scale
        return (hidden * x.shape[0]) @ self.turned


BATCH = {"x": {0: torch.export.Dim("batch", max=64)}}


def saved(folder: Path, module: nn.Module | None = None) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    module = module or Net()
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=BATCH)
    torch.export.save(program, folder / "net.pt2")
    return folder / "net.pt2", module


def changed(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], to: str = "evil.pt2") -> Path:
    """A copy of an archive in which each record is changed, or left out."""
    copy = path.parent / to
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for info in source.infolist():
            if (record := change(info.filename, source.read(info))) is not None:
                target.writestr(*record)
    return copy


def with_graph(path: Path, old: str, new: str) -> Path:
    def change(name: str, data: bytes) -> tuple[str, bytes]:
        if name.endswith("model.json"):
            assert old in data.decode()
            data = data.decode().replace(old, new).encode()
        return name, data

    return changed(path, change)


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(IrcError) as caught:
        irc.opt(path, "dce")
    assert caught.value.diagnostics[0].code == code, caught.value
    assert all(word in str(caught.value) for word in words), caught.value


def test_computes_what_pytorch_does(tmp_path: Path) -> None:
    path, module = saved(tmp_path)
    for batch in (1, 7):
        x = torch.randn(batch, 4)
        outputs = irc.run(path, {"x": x.numpy()}, backend="onnx").outputs
        assert relative_error(next(iter(outputs.values())), module(x).detach().numpy()) <= 1e-6


def test_the_same_as_the_program_itself(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    text = str(irc.opt(path, "dce"))
    assert text == str(irc.opt(irc.from_torch(torch.export.load(path), name="net"), "dce"))
    assert sum(" = const " in line for line in text.splitlines()) == 5  # the tied weights are one of them
    assert '"tests/test_torch_archive.py":' in text and "module @net" in text


def test_verbs_read_it(tmp_path: Path) -> None:
    saved(tmp_path)
    done = irc_process("print", "net.pt2", folder=tmp_path)
    assert done.code == 0 and "func @main" in done.out, done.err
    done = irc_here("compile", "net.pt2", "-o", "net.onnx", folder=tmp_path)
    assert done.code == 0 and (tmp_path / "net.onnx").exists(), done.err


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, (f"{self.path}", "w")  # type: ignore[return-value]


def test_sample_inputs_are_never_read(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    torch.save((Touch(tmp_path / "touched"),), tmp_path / "pickle")
    evil = changed(path, lambda name, data: (
        (name, (tmp_path / "pickle").read_bytes()) if "sample_inputs" in name else (name, data)))
    assert len(re.findall(" = (matmul|linear) ", str(irc.opt(evil, "dce")))) == 3
    assert not (tmp_path / "touched").exists()
    without = changed(path, lambda name, data: None if "sample_inputs" in name else (name, data))
    assert len(re.findall(" = (matmul|linear) ", str(irc.opt(without, "dce")))) == 3


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors_are_refused(tmp_path: Path, kind: str) -> None:
    path, _ = saved(tmp_path)
    torch.save((Touch(tmp_path / "touched"),), tmp_path / "pickle")

    def change(name: str, data: bytes) -> tuple[str, bytes]:
        if name.endswith(f"{kind}_config.json"):
            return name, data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return name, (tmp_path / "pickle").read_bytes() if f"/{kind}/" in name else data

    refused(changed(path, change), "torch.pickle", kind)
    refused(changed(path, lambda name, data: (name, data.replace(b'"weight_0"', b'"../x"'))), "torch.pickle")
    assert not (tmp_path / "touched").exists()


def test_legacy_pickles_are_not_looked_at(tmp_path: Path) -> None:
    """PyTorch reads `data/weights/NAME.pt` instead of the raw weights where it is there."""
    path, _ = saved(tmp_path)
    evil = tmp_path / "evil.pt2"
    shutil.copy(path, evil)
    torch.save((Touch(tmp_path / "touched"),), tmp_path / "pickle")
    with zipfile.ZipFile(evil, "a") as archive:
        archive.write(tmp_path / "pickle", "net/data/weights/model.pt")
    assert len(re.findall(" = (matmul|linear) ", str(irc.opt(evil, "dce")))) == 3
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("text", [
    "open('touched','w')", "().__class__", "s0.is_positive", "[s for s in (1,)]", "lambda: 1", "exit()", "FloorDiv(s0,",
    "Max(*[1, 2])", "__import__('os')",
])  # fmt: skip
def test_sizes_are_arithmetic(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = saved(tmp_path)
    graph = zipfile.ZipFile(path).read("net/models/model.json").decode()
    (size, *_) = re.findall(r'"expr_str": ("[^"]+")', graph)
    refused(with_graph(path, f'"expr_str": {size}', f'"expr_str": {json.dumps(text)}'), "torch.archive", "size")
    assert not (tmp_path / "touched").exists()


def test_weights_that_repeat_their_elements(tmp_path: Path) -> None:
    """A stride of 0 makes any size of a few bytes, and the importer would write it out."""
    path, _ = saved(tmp_path)

    def change(name: str, data: bytes) -> tuple[str, bytes]:
        if not name.endswith("_config.json"):
            return name, data
        config = json.loads(data)
        for entry in config["config"].values():
            for key, number in (("sizes", 10**6), ("strides", 0)):
                entry["tensor_meta"][key] = [{"as_int": number} for _ in entry["tensor_meta"][key]]
        return name, json.dumps(config).encode()

    refused(changed(path, change), "limit.exceeded", "--limit literals=NUMBER")


@pytest.mark.parametrize("text", [
    "9**9**9", "Pow(10, Pow(10, 10))", "(s77 + 1)**5000", "(a + b + c + d)**64", "LShift(1, 10**12)", "1 << (1 << 40)",
    "Mul(" + ", ".join(["10**99"] * 99) + ")", "PowByNatural(2, Symbol('s77'))", "Float('1.5', precision=10**12)",
    "(a + b)*(a + c)*(a + d)*(a + e)*(a + f)*(a + g)*(a + h)*(a + i)*(a + j)*(a + k)*(a + l)*(a + m)*(a + n)",
])  # fmt: skip
def test_sizes_are_small(text: str) -> None:
    """What SymPy would compute, or multiply out, is rejected by a limit before it is read."""
    for raised in (False, True):
        with irc.allow(size=1 << 90 if raised else 4096), nullcontext() if raised else pytest.raises(
                IrcError, match=r"limit\.exceeded"):  # fmt: skip
            assert is_arithmetic(text)


@pytest.mark.parametrize("text", [
    "Symbol('s77', positive=True, integer=True)", "FloorDiv(Add(Symbol('s77'), Integer(31)), Integer(32))",
    "2*s77**2 + 3*s77 - 1", "Max(1, s0 - 2)*(s1 + 2)", "Float('1.5', precision=53)", "2**62", "PythonMod(s0*s1, 8)",
])  # fmt: skip
def test_sizes_that_programs_have_are_small(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize("text", [
    "9" * 5000, "Float('1e999999999')", "1e999", "-" * 9999 + "1", "(" * 999, "+".join("1" * 99999),
])  # fmt: skip
def test_numbers_that_are_long_are_not_read(text: str) -> None:
    assert not is_arithmetic(text)


@pytest.mark.parametrize("target", [
    "torch.ops.aten.from_file.default", "torch.load", "torch.hub.load", "torch.ops.load_library", "#evil.op",
    "_operator.add.__class__", "torch.ops.mylib.evil.default",
])  # fmt: skip
def test_operations_compute_from_their_arguments(tmp_path: Path, target: str) -> None:
    path, _ = saved(tmp_path)
    refused(with_graph(path, '"torch.ops.aten.linear.default"', f'"{target}"'), "torch.archive", target)


def test_guards_are_never_run(tmp_path: Path) -> None:
    path, module = saved(tmp_path)
    graph = json.loads(zipfile.ZipFile(path).read("net/models/model.json"))
    graph["guards_code"] = [f"open({str(tmp_path / 'touched')!r}, 'w')"]
    evil = changed(path, lambda name, data: (name, json.dumps(graph).encode() if name.endswith("model.json") else data))
    x = torch.randn(3, 4)
    outputs = irc.run(evil, {"x": x.numpy()}, backend="onnx").outputs
    assert np.allclose(next(iter(outputs.values())), module(x).detach().numpy(), atol=1e-5)
    assert not (tmp_path / "touched").exists()


def test_damaged_files(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (tmp_path / "half.pt2").write_bytes(path.read_bytes()[:4000])
    refused(tmp_path / "half.pt2", "file.format", "half.pt2")
    (tmp_path / "text.pt2").write_text("no archive")
    refused(tmp_path / "text.pt2", "file.format")
    refused(changed(path, lambda name, data: None if name.endswith("weight_0") else (name, data)),
            "file.format", "weight_0")
    refused(changed(path, lambda name, data: (name, b"{" if name.endswith("model.json") else data)), "file.format")
    refused(changed(path, lambda name, data: (name, b"[1]" if name.endswith("model.json") else data)), "file.format")
    refused(changed(path, lambda name, data: (name, b"[1]" if name.endswith("_config.json") else data)), "file.format")
    refused(with_graph(path, '"as_tensor"', '"as_tenser"'), "torch.export")
    short = changed(path, lambda name, data: (name, data[:-8] if name.endswith("weight_0") else data))
    refused(short, "torch.export")
    done = irc_process("print", "text.pt2", folder=tmp_path)
    assert done.code == 3 and "Traceback" not in done.err and "error[file.format]" in done.err
    done = irc_process("print", "none.pt2", folder=tmp_path)
    assert done.code == 3 and "error[file.missing]" in done.err


def test_programs_with_branches_of_gradients(tmp_path: Path) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = self.fc(x)
            return y + x

    path, module = saved(tmp_path, Frozen())
    x = torch.randn(5, 4)
    program = load(path)
    assert relative_error(program.module()(x).detach().numpy(), module(x).detach().numpy()) <= 1e-6
    outputs = irc.run(path, {"x": x.numpy()}, backend="onnx").outputs
    assert relative_error(next(iter(outputs.values())), module(x).detach().numpy()) <= 1e-6


class Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] % 8 * x.shape[1] > 20 else x * 3


def test_guards_become_assertions_and_are_never_evaluated(tmp_path: Path) -> None:
    shapes = {"x": {0: torch.export.Dim("S", max=64), 1: torch.export.Dim("B", max=64)}}
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Halves(), (torch.randn(6, 4),), dynamic_shapes=shapes), path)
    for backend in (None, "onnx"):
        outputs = irc.run(path, {"x": np.ones((7, 5), np.float32)}, backend=backend).outputs
        assert all((array == 2).all() for array in outputs.values())
        with pytest.raises(IrcError, match="exported this program for sizes with"):
            irc.run(path, {"x": np.ones((8, 5), np.float32)}, backend=backend)
    attack = f"open({str(tmp_path / 'written')!r}, 'w') == 1 or L['x'].size()[0] > 0"
    guards = json.loads(zipfile.ZipFile(path).read("net/models/model.json"))["guards_code"]
    with pytest.warns(UserWarning, match="irc does not check"):
        irc.opt(with_graph(path, json.dumps(guards[0]), json.dumps(attack)), "dce")
    assert not (tmp_path / "written").exists()
    refused(with_graph(path, json.dumps(guards), "[1]"), "file.format", "guards are no texts")
