"""Compiled programs in folders: saved, loaded, pickled by reference, and rejected where they are damaged."""

from __future__ import annotations

import contextlib
import copy
import enum
import json
import os
import pickle
import random
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import nn
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError
from irc.frontends.torch.plain_data import restored, stated
from tests.test_torch_calling import RandomProgram
from tests.test_torch_compile import Caching, Counting, Learning, Structured
from tests.torch_calls import BACKENDS, assert_like, sharing

pytestmark = pytest.mark.filterwarnings("ignore")


class Kind(enum.Enum):
    FIRST = 1


def reloaded(program: Any, folder: Path) -> Any:
    program.save(folder)
    return irc.load_compiled(folder)


@pytest.mark.parametrize("seed, backend", [
    *((seed, "onnx") for seed in range(14)), *((seed, "triton") for seed in range(14, 20)),
])  # fmt: skip
def test_random_structures_and_what_shares_memory(seed: int, backend: str, tmp_path: Path) -> None:
    module, eager = RandomProgram(seed), RandomProgram(seed)
    program = reloaded(irc.compile(module, module.arguments(0), backend=backend), tmp_path / "saved")
    for call in (0, 1):
        arguments, theirs = module.arguments(call), module.arguments(call)
        with torch.no_grad():
            actual, expected = program(**arguments), eager(**theirs)
        assert_like(actual, expected)
        assert_like(arguments, theirs)
        mine, others = ([*pytree.tree_leaves(given), *pytree.tree_leaves(result)]
                        for given, result in ((arguments, actual), (theirs, expected)))  # fmt: skip
        assert sharing(mine) == sharing(others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_and_arguments_that_are_written(backend: str, tmp_path: Path) -> None:
    """The loaded program has buffers of its own, which begin as they were when it was saved."""
    torch.manual_seed(0)
    eager, module = Counting(), Counting()
    compiled = irc.compile(module, (torch.randn(4, 3),), backend=backend)
    x = torch.randn(4, 3)
    torch.testing.assert_close(compiled(x), eager(x))
    loaded = reloaded(compiled, tmp_path / "counting")
    state = copy.deepcopy(module.state_dict())
    for _ in range(2):
        x = torch.randn(4, 3)
        torch.testing.assert_close(loaded(x), eager(x))
    assert all(torch.equal(module.state_dict()[name], each) for name, each in state.items())

    def arguments() -> Any:
        return torch.randn(2, 1, 3), torch.randn(2, 5, 3), [torch.zeros((), dtype=torch.int64), torch.randn(3, 3)]

    loaded = reloaded(irc.compile(Caching(), arguments(), backend=backend), tmp_path / "caching")
    mine = arguments()
    theirs = copy.deepcopy(mine)
    torch.testing.assert_close(loaded(*mine), Caching()(*theirs))
    torch.testing.assert_close(mine, theirs)
    learning, weight = Learning(), Learning()
    loaded = reloaded(irc.compile(learning, (torch.ones(3),), backend=backend), tmp_path / "learning")
    for _ in range(2):
        torch.testing.assert_close(loaded(torch.ones(3)), weight(torch.ones(3)).detach())


@pytest.mark.parametrize("backend", BACKENDS)
def test_dynamic_sizes_and_their_errors(backend: str, tmp_path: Path) -> None:
    """Sizes that follow from arguments, sizes that depend on data, and what a program asserts of sizes."""

    def program(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.reshape(y.shape[0], -1) + 1, torch.nonzero(x > 0), x.shape[0]

    example = torch.randn(4, 6), torch.randn(8)
    dynamic = {"x": {0: "B"}, "y": {0: "C"}}
    compiled = irc.compile(program, example, dynamic_shapes=dynamic, backend=backend)
    loaded = reloaded(compiled, tmp_path / "saved")
    for rows in (4, 8, 12):
        args = torch.randn(rows, 6), torch.randn(8 if rows != 8 else 16)
        assert_like(loaded(*args), program(*args))
    code = {"onnx": r"run\.assert", "triton": r"backend\.failed"}[backend]
    for each in (compiled, loaded):
        with pytest.raises(IrcError, match=rf"{code}[\s\S]*6 \* x\.shape\[0\] % y\.shape\[0\] == 0"):
            each(torch.randn(4, 6), torch.randn(5))
    with pytest.raises(IrcError, match=r"run\.input_missing"):
        loaded(torch.randn(4, 6))
    with pytest.raises(IrcError, match=r"run\.input_dtype.*argument y"):
        loaded(torch.randn(4, 6), 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pickles_are_references(backend: str, tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)).eval(), torch.randn(3, 4)
    compiled = irc.compile(module, (x,), backend=backend)
    with pytest.raises(IrcError, match=r"compiled\.unsaved"):
        pickle.dumps(compiled)
    loaded = reloaded(compiled, tmp_path / "saved")
    for program in (compiled, loaded):
        content = pickle.dumps(program)
        assert len(content) < 1000
        torch.testing.assert_close(pickle.loads(content)(x), module(x).detach())
    again = reloaded(loaded, tmp_path / "again")  # a copy of the code
    torch.testing.assert_close(again(x), module(x).detach())
    irc.compile(nn.Linear(4, 4), (x,), backend=backend).save(tmp_path / "saved")
    with pytest.raises(IrcError, match=r"compiled\.folder.*another program"):
        pickle.loads(content)
    with pytest.raises(IrcError, match=r"compiled\.folder.*another program"):
        loaded.save(tmp_path / "third")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("cache", ["off", "on"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_saved_is_what_was_compiled(backend: str, cache: str, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The code is copied. Where weights have changed since, it is made again first."""
    if cache == "on":
        monkeypatch.setenv("IRC_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).eval(), torch.randn(3, 4)
    expected = module(x).detach()
    for _ in range(2):  # with a cache, the second time from there
        compiled = irc.compile(module, (x,), backend=backend)
    torch.testing.assert_close(reloaded(compiled, tmp_path / "saved")(x), expected)
    with torch.no_grad():
        module[0].weight.mul_(2)
    torch.testing.assert_close(reloaded(compiled, tmp_path / "again")(x), module(x).detach())
    assert not torch.allclose(module(x), expected)
    if cache == "on":
        compiled = irc.compile(module, (x,), backend=backend)  # its code is there, as none is that is made again
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file() and path.name != "program.json":
                path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(IrcError, match=r"compiled\.folder"):
            compiled.save(tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_loading_runs_neither_export_nor_passes(tmp_path: Path) -> None:
    """In a new process, which imports none of PyTorch's compilers, sympy, nor irc's importers."""
    module, x = Structured().eval(), torch.randn(2, 4)
    arguments = {"pair": (x, torch.randn(5)), "flag": True, "more": {"a": torch.arange(3), "b": torch.randn(5)}}
    irc.compile(module, arguments).save(tmp_path / "saved")
    script = f"""
import sys, torch, irc
program = irc.load_compiled({str(tmp_path / "saved")!r})
result = program(pair=(torch.ones(2, 4), torch.ones(5)), flag=True, more={{"a": torch.arange(3), "b": torch.ones(5)}})
names = ("sympy", "torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes",
         "irc.frontends.torch.importer", "irc.frontends.torch.exporting", "irc.passes.fuse")
print([name for name in names if name in sys.modules], sorted(result))
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[] ['others', 'same', 'z']", ended.stderr


# -- what is rejected ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_folders(backend: str, tmp_path: Path) -> None:
    """Any file that is missing, cut or changed is an error before anything of the folder runs."""
    folder = tmp_path / "saved"
    irc.compile(Counting(), (torch.randn(4, 3),), backend=backend).save(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        for damaged in (None, content[:-2], content[: len(content) // 2], content[:-2] + b"\0\0", b""):
            if damaged is None:
                path.unlink()
            elif damaged == content:
                continue
            else:
                path.write_bytes(damaged)
            with pytest.raises(IrcError, match=r"compiled\.folder"):
                irc.load_compiled(folder)
        path.write_bytes(content)
    irc.load_compiled(folder)


def changed(folder: Path, **others: Any) -> None:
    mark = folder / "program.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | others))


def test_foreign_folders_versions_and_places(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    compiled = irc.compile(nn.Linear(4, 4), (x,))
    folder, other = tmp_path / "saved", tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(IrcError, match=r"compiled\.folder"):
        irc.load_compiled(other)
    with pytest.raises(IrcError, match=r"file\.exists"):
        compiled.save(other)
    with pytest.raises(IrcError, match=r"compiled\.folder"):
        irc.load_compiled(tmp_path / "nowhere")
    compiled.save(folder)
    compiled.save(folder)  # replaces its own
    stated = json.loads((folder / "program.json").read_text())
    for others, code in (
        ({"format": 2}, "version"), ({"format": None}, "version"), ({"needs": {"onnxruntime": "999.0"}}, "version"),
        ({"files": []}, "folder"), ({"files": {}}, r"folder[\s\S]*no interface"),
        ({"backend": "pickle"}, r"folder[\s\S]*the backend"),
        ({"call": {}}, "folder"),
        ({"needs": {"evil": "1"}}, r"folder[\s\S]*evil"), ({"needs": {"torch": "9" * 9999}}, "version"),
        ({"call": stated["call"] | {"taken": ["nothing"]}}, "folder"),
        ({"call": stated["call"] | {"inputs": {"kind": "os:system", "context": None, "parts": []}}}, "class"),
        ({"files": stated["files"] | {"../other/notes.txt": "sha256:0"}}, r"folder|weights\.outside"),
    ):  # fmt: skip
        changed(folder, **{**stated, **others})
        with pytest.raises(IrcError, match=rf"compiled\.{code}"):
            irc.load_compiled(folder)
    (folder / "program.json").write_text("[" * 99999)
    with pytest.raises(IrcError, match=r"file\.exists"):
        compiled.save(folder)
    (folder / "program.json").write_text(json.dumps(stated))
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").unlink()
    os.symlink(tmp_path / "model.onnx", folder / "model.onnx")
    with pytest.raises(IrcError, match=r"compiled\.folder"):
        irc.load_compiled(folder)


class Writing(nn.Module):
    """One that writes a buffer, gives it, and gives the rest in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(2))

    def forward(self, x: torch.Tensor, d: dict[str, torch.Tensor], k: float = 2.0) -> Any:
        self.n.add_(1)
        return {"a": x + 1, "b": [d["u"] + x.sum(), k * x[:, :2]]}, self.n


def contents_of(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each part of JSON's data is."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(inner for name, part in items for inner in contents_of(part, (*path, name)))]


def test_calls_that_are_not_as_they_were_written(tmp_path: Path) -> None:
    """Whatever is said of how a program is called, its folder is whole or the error has a code; and no operation is
    called that reads outside of a tensor's memory."""
    arguments = torch.randn(3, 4), {"u": torch.randn(2)}
    folder = tmp_path / "saved"
    irc.compile(Writing(), arguments).save(folder)
    stated_whole = json.loads((folder / "program.json").read_text())
    chosen = random.Random(5)
    places = [path for path in contents_of(stated_whole["call"]) if path]
    view = ("results", len(stated_whole["call"]["results"]) - 1, "path")
    cases: list[tuple[tuple[Any, ...], Any]] = [
        (view, [{"name": "add_", "target": "aten._reshape_alias.default", "kwargs": {"dict": []},
                 "args": {"tuple": [{"value": "b_n"}, [1 << 30], [1]]}}]),
        (("updated",), "x"), (("updated",), ["x"]), (("signature", 0, "name"), ""), (("held", "b_n", "order"), []),
        (("outputs", "parts", 0, "context"), "x"), (("results", 1, "order"), ""),
        ((*view, 0, "name"), "other"), ((*view, 0, "args"), {"tuple": []}), ((*view, 0, "args"), {"tuple": ["x"]}),
        *((chosen.choice(places), chosen.choice([None, -1, 10**30, "", "x", [], {}, [[]], "os:system", ["a", "b"]]))
          for _ in range(40)),
    ]  # fmt: skip
    for path, value in cases:
        call = json.loads(json.dumps(stated_whole["call"]))
        part = call
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        changed(folder, call=call)
        with contextlib.suppress(IrcError):
            irc.load_compiled(folder)(*arguments)
    call = json.loads(json.dumps(stated_whole["call"]))
    call["results"][view[1]]["path"] = cases[0][1]
    changed(folder, call=call)
    with pytest.raises(IrcError, match=r"compiled\.folder.*_reshape_alias"):
        irc.load_compiled(folder)


def test_models_with_data_outside_the_folder(tmp_path: Path) -> None:
    """A folder whose digests fit, of a model that names a file elsewhere."""
    import onnx

    from irc.files import open_file

    folder = tmp_path / "saved"
    irc.compile(nn.Linear(64, 64), (torch.randn(3, 64),)).save(folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, tmp_path / "moved.onnx", save_as_external_data=True, location="secret.bin", size_threshold=64)
    for location in ("../secret.bin", str(tmp_path / "secret.bin")):
        model = onnx.load(tmp_path / "moved.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        files = json.loads((folder / "program.json").read_text())["files"]
        changed(folder, files=files | {"model.onnx": open_file(folder / "model.onnx").digest})
        with pytest.raises(IrcError, match=r"onnx\.external_outside"):
            irc.load_compiled(folder)


def test_code_that_does_not_fit_the_interface(tmp_path: Path) -> None:
    from irc.files import open_file

    folder = tmp_path / "saved"
    irc.compile(nn.Linear(4, 4), (torch.randn(3, 4),)).save(folder)
    text = (folder / "interface.irc").read_text()
    stated = json.loads((folder / "program.json").read_text())
    for old, new in (("(linear: f32", "(other: f32"), ("%input", "%other"), ("f32[3, 4]", "string[3, 4]")):
        (folder / "interface.irc").write_text(text.replace(old, new))
        changed(folder, files=stated["files"] | {"interface.irc": open_file(folder / "interface.irc").digest})
        with pytest.raises(IrcError, match=r"compiled\.folder"):
            irc.load_compiled(folder)
    (folder / "interface.irc").write_text(text)
    changed(folder, **stated | {"backend": "triton"})
    with pytest.raises(IrcError, match=r"compiled\.folder"):
        irc.load_compiled(folder)


def test_constants_as_data() -> None:
    values = [
        1, 1.0, -0.0, True, None, "text", float("inf"), 2**70, 1 + 2j, complex("nan"), (1, [2.5, None]),
        {"a": (1,), 2: {}},
        torch.float32, torch.device("cpu"), torch.channels_last, torch.strided, Kind.FIRST, dict, torch.Size([1, 2]),
    ]  # fmt: skip
    for value in values:
        again = restored(json.loads(json.dumps(stated(value))))
        assert repr(again) == repr(tuple(value) if isinstance(value, torch.Size) else value)
    for value in (object(), lambda: 1, type("Local", (), {}), b"bytes", slice(1)):
        with pytest.raises(IrcError, match=r"compiled\.unsaved"):
            stated(value)
    for data in ({"torch": "load"}, {"enum": ["builtins:dict", "x"]}, {"eval": "1"}, {"float": "x"}, {}):
        with pytest.raises((ValueError, IrcError)):
            restored(data)


def test_classes_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that a module computes may import others."""
    computed = list[str]()
    monkeypatch.setitem(sys.modules, "lazy", types.ModuleType("lazy"))
    sys.modules["lazy"].__dict__["__getattr__"] = lambda name: computed.append(name) or Kind
    with pytest.raises(IrcError, match=r"compiled\.class"):
        restored({"class": "lazy:Kind"})
    assert not computed


def test_classes_must_be_imported(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "import torch\nfrom typing import NamedTuple\nclass Pair(NamedTuple):\n    a: object\n    b: object\n"
        "def swap(pair):\n    return Pair(pair.b * 2, pair.a)\n"
    )
    saving = (
        "import sys; sys.path.insert(0, '.')\nimport torch, irc, theirs\n"
        "irc.compile(theirs.swap, (theirs.Pair(torch.ones(2), torch.ones(3)),)).save('saved')\n"
    )
    loading = (
        "import sys; sys.path.insert(0, '.')\nimport torch, irc\ntry:\n    irc.load_compiled('saved')\n"
        "except irc.IrcError as error:\n    print(error.code, 'theirs' in sys.modules)\n"
        "import theirs\nprint(irc.load_compiled('saved')(theirs.Pair(torch.ones(2), torch.ones(3))))\n"
    )
    for script in (saving, loading):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    assert ended.stdout.splitlines() == ["compiled.class False", "Pair(a=tensor([2., 2., 2.]), b=tensor([1., 1.]))"]
