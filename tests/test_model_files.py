"""Model files as they come: sparse constants, names in capitals, other things under a model's name, and outputs that
would take the place of inputs."""

from __future__ import annotations

import codecs
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.models import find_backend
from irc.driver.running import run_compiled
from irc.formats import PAGE, SIGNS, TEXT_SIGNS, recognized
from irc.frontends.onnx import from_model
from irc.weights import Tensor, save
from tests.command_line import TEXT, Result, irc_here
from tests.onnx_models import NO_FOLDER, check_close, in_runtime


def command(*arguments: object) -> Result:
    return irc_here(*arguments, folder=Path.cwd())


SIMPLE = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }'


def simple_model() -> onnx.ModelProto:
    return onnx.parser.parse_model(SIMPLE)


# -- sparse constants ------------------------------------------------------------------------------------------


def sparse(name: str, values: Any, places: Any, shape: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(numpy_helper.from_array(np.asarray(values), name),
                                     numpy_helper.from_array(np.asarray(places, np.int64), f"{name}_places"), shape)


def sparse_model(tensor: onnx.SparseTensorProto, operator: str = "Add", elements: int = TensorProto.FLOAT
                 ) -> onnx.ModelProto:
    """A model that computes with a sparse initializer, and gives the same tensor as a Constant."""
    nodes = [helper.make_node(operator, ["x", tensor.values.name], ["y"]),
             helper.make_node("Constant", [], ["c"], sparse_value=tensor)]  # fmt: skip
    info = [helper.make_tensor_value_info(name, elements, None) for name in ("y", "c")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", elements, list(tensor.dims))], info,
                              sparse_initializer=[tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("backend", ["interpreter", "onnx", "triton"])
@pytest.mark.parametrize(("values", "places", "shape"), [
    (np.array([3, 4], np.float32), [1, 5], [2, 3]),
    (np.array([3, 4], np.float32), [[0, 1], [1, 2]], [2, 3]),
    (np.zeros(0, np.float32), np.zeros((0, 2)), [2, 3]),
    (np.array([-1], np.float32), [[1, 0, 2]], [2, 1, 3]),
    (np.array([7, 8], np.int64), [0, 3], [4]),
    (np.array([0.5], np.float64), [2], [3]),
])  # fmt: skip
def test_sparse_constants_are_read_with_their_zeros(values: Any, places: Any, shape: list[int], backend: str) -> None:
    model = sparse_model(sparse("w", values, places, shape), elements=helper.np_dtype_to_tensor_dtype(values.dtype))
    x = np.arange(np.prod(shape)).reshape(shape).astype(values.dtype)
    dense = np.zeros(shape, values.dtype)
    index = np.asarray(places, np.int64)
    dense[tuple(index.T) if index.ndim == 2 else np.unravel_index(index, shape)] = values
    module = from_model(model, NO_FOLDER)
    if backend == "interpreter":
        outputs = interpreter.run(module, {"x": x})
    else:
        compiled = irc.opt(module, find_backend(backend).PIPELINE, backend=backend)
        outputs = run_compiled(compiled, {"x": x}, backend, Settings())[0]
    check_close(outputs["y"], x + dense)
    check_close(outputs["c"], dense)


@pytest.mark.parametrize(("values", "places", "shape"), [
    ([1.0, 2.0], [1], [2, 3]), ([1.0], [6], [2, 3]), ([1.0], [-1], [2, 3]), ([1.0, 2.0], [3, 1], [2, 3]),
    ([1.0, 2.0], [1, 1], [2, 3]), ([1.0], [[0, 3]], [2, 3]), ([1.0], [[0]], [2, 3]), ([[1.0]], [[0, 0]], [2, 3]),
    ([1.0], [0], [-2, 3]), ([1.0], [0], [2**40, 2**40]),
])  # fmt: skip
def test_malformed_sparse_constants_are_refused(values: Any, places: Any, shape: list[int]) -> None:
    tensor = sparse("w", np.array(values, np.float32), places, [1])
    del tensor.dims[:]
    tensor.dims.extend(shape)
    with pytest.raises(IrcError) as caught:
        from_model(sparse_model(tensor), NO_FOLDER)
    assert {each.code for each in caught.value.diagnostics} == {"onnx.invalid"}


def test_a_sparse_constant_may_not_ask_for_all_memory() -> None:
    tensor = sparse("w", np.array([1], np.float32), [5], [10**6, 10**6])
    with pytest.raises(IrcError) as caught:
        from_model(sparse_model(tensor), NO_FOLDER)
    assert caught.value.code == "limit.exceeded"


# -- names and contents ----------------------------------------------------------------------------------------


def test_suffixes_may_be_in_capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(simple_model(), "MODEL.ONNX")
    assert command("compile", "MODEL.ONNX").code == 0 and Path("MODEL.irc.onnx").is_file()
    assert command("opt", "MODEL.ONNX", "-p", "fold", "-o", "Text.IRC").code == 0
    text = Path("Text.IRC").read_text()
    assert command("print", "Text.IRC").out == text
    Path("plain.irc").write_text(text.replace('"Text.safetensors"', '"MODEL.ONNX"').replace(
        text.split('sha256 = "')[1].split('"')[0], f"sha256:{digest(Path('MODEL.ONNX'))}"))  # fmt: skip
    assert command("run", "plain.irc").code == 0
    assert command("explain", "MODEL.ONNX", "%y").code == 0


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
CONTENTS = {
    "an HTML page": b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>Please log in</body></html>",
    "a Git LFS pointer": POINTER,
    "a gzip archive": gzip.compress(b"model"),
    "a model in ONNX Runtime's own format": b"\x20\0\0\0ORTM" + bytes(100),
    "nothing but zeros": bytes(5000),
    "empty": b"",
    "JSON": b'{"error": "not found"}',
    "irc's text": b"irc text 1\nmodule @m {}\n",
    "ONNX in its text form": SIMPLE.encode(),
    "a pickle": b"\x80\x05}.",
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(20),
}


@pytest.mark.parametrize(("what", "content"), CONTENTS.items(), ids=list(CONTENTS))
def test_what_a_file_is_that_is_no_model(what: str, content: bytes, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pt2", *(["model.irc"] if what != "irc's text" else [])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IrcError) as caught:
            irc.load(tmp_path / name)
        (diagnostic,) = caught.value.diagnostics
        code = "onnx.truncated" if name == "model.onnx" and not any(content) else "file.format"
        assert diagnostic.code == code and what in diagnostic.message and diagnostic.help, (name, diagnostic)
        assert "whole" not in diagnostic.message


@pytest.mark.parametrize("content", [b"Not Found\n", b"import torch\n", b"caf\xc3\xa9 " * 2000, b"\x1b[31mred\x1b[0m"])
def test_text_of_no_format_is_no_model(content: bytes, tmp_path: Path) -> None:
    for name, code, message in (("m.onnx", "file.format", "m.onnx is plain text, and no ONNX model"),
                                ("m.pt2", "file.format", "it is plain text"), ("m.irc", "text.version", "irc text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IrcError, match=message) as caught:
            irc.load(tmp_path / name)
        assert caught.value.code == code


@pytest.mark.parametrize(("what", "content"), CONTENTS.items(), ids=list(CONTENTS))
@pytest.mark.parametrize("name", ["in.npz", "model.ort", "model", "model.onnx.gz", "model.pt"])
def test_what_a_file_is_that_is_no_array_or_has_another_suffix(name: str, what: str, content: bytes,
                                                              tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "m.irc").write_text(TEXT)
    done = irc_here(*(("run", "m.irc", "--input", name) if name == "in.npz" else ("print", name)), folder=tmp_path)
    assert done.code == (3 if name == "in.npz" else 2) and what in done.err and "zip file" not in done.err, done


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_a_page_in_another_encoding(encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    assert recognized(mark + "\r\n<!-- x --><html>".encode(encoding)) is PAGE


@pytest.mark.parametrize(("offset", "sign", "format"), [*SIGNS, *((3, *each) for each in TEXT_SIGNS)])
def test_every_sign_is_told(offset: int, sign: bytes, format: Any, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes((b" " if offset == 3 else b"\x01") * offset + sign + b" and more")
    with pytest.raises(IrcError, match=format.name):
        irc.load(tmp_path / "m.onnx")


def test_a_model_that_is_cut_short_is_told_as_such(tmp_path: Path) -> None:
    model = simple_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    whole = model.SerializeToString()
    for length in (len(whole) // 2, len(whole) - 3):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        with pytest.raises(IrcError) as caught:
            irc.load(tmp_path / "m.onnx")
        assert caught.value.code == "onnx.truncated"


def test_weights_that_are_something_else(tmp_path: Path) -> None:
    """External data and weights of a text that are pointers of Git LFS or pages."""
    model = simple_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").write_bytes(POINTER[:5] + POINTER[5:])
    with pytest.raises(IrcError, match="a Git LFS pointer"):  # though the 12 bytes that are required are there
        irc.load(tmp_path / "m.onnx")
    denied = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    for content, what in ((CONTENTS["an HTML page"], "an HTML page"), (denied, "XML"),
                          (b"/annex/objects/SHA256E-s12--4d7a\n", "git-annex")):
        (tmp_path / "m.data").write_bytes(content)
        with pytest.raises(IrcError, match=what):
            irc.load(tmp_path / "m.onnx")
    (tmp_path / "m.data").write_bytes(POINTER)
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    proto.graph.initializer[0].dims[0] = 300
    for entry in proto.graph.initializer[0].external_data:
        entry.value = "1200" if entry.key == "length" else entry.value
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(IrcError, match="a Git LFS pointer"):
        irc.load(tmp_path / "m.onnx")
    (tmp_path / "t.irc").write_text('irc text 1\nmodule @m {weights = "t.safetensors"} {\n  func @main() -> f32[2] {\n'
                                    '    %w = const @"w" : f32[2]\n    return %w\n  }\n}\n')
    (tmp_path / "t.safetensors").write_bytes(POINTER)
    with pytest.raises(IrcError, match="a Git LFS pointer"):
        irc.load(tmp_path / "t.irc")


# -- outputs and inputs ----------------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model whose weights lie beside it, a text with weights, arrays, and links to these."""
    monkeypatch.chdir(tmp_path)
    model = simple_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    onnx.save(model, "m.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    assert command("print", "m.onnx", "-o", "t.irc").code == 0
    np.savez("x.npz", x=np.ones((2, 3), np.float32))
    os.symlink("m.onnx", "link.onnx")
    os.link("t.irc", "hard.irc")
    shutil.copy("t.safetensors", "copy.safetensors")
    return tmp_path


REPLACING = [
    ("compile", "m.onnx", "-o", "m.onnx"), ("compile", "m.onnx", "-o", "./link.onnx"),
    ("compile", "link.onnx", "-o", "m.onnx"), ("print", "t.irc", "-o", "t.irc"),
    ("print", "t.irc", "-o", "hard.irc"),
    ("opt", "t.irc", "-p", "fold", "-o", "t.irc"), ("run", "m.onnx", "--output", "m.onnx"),
    ("run", "m.onnx", "--input", "x.npz", "--output", "x.npz"),
    ("extract", "t.irc", "--to", "%y", "-o", "t.irc"), ("experiment", "m.onnx", "-p", "a=clean", "--html", "m.onnx"),
    ("compile", "m.onnx", "--backend", "triton", "-o", "."),
]


@pytest.mark.parametrize("arguments", REPLACING, ids=" ".join)
def test_an_output_does_not_replace_an_input(arguments: tuple[str, ...], work: Path) -> None:
    before = {path: path.read_bytes() for path in work.iterdir()}
    result = command(*arguments)
    assert result.code == 2 and "error[file.exists]" in result.err
    assert {path: path.read_bytes() for path in work.iterdir()} == before
    if arguments[-1] != ".":
        assert command(*arguments, "--force").code == 0


def test_an_output_does_not_replace_weights(work: Path) -> None:
    """Nor with `--force`: no command could read the file again."""
    before = {path: path.read_bytes() for path in work.iterdir()}
    for more in ((), ("--force",)):
        result = command("compile", "m.onnx", "-o", "out.onnx.data", *more)
        assert result.code == 2 and "error[usage.value]" in result.err
        assert {path: path.read_bytes() for path in work.iterdir()} == before


def test_weights_beside_an_output_do_not_replace_those_that_are_read(work: Path) -> None:
    """`t.safetensors` is what `t.irc` would lie beside, and what another text reads."""
    text = Path("t.irc").read_text()
    Path("other.irc").write_text(text)
    Path("t.irc").unlink()
    result = command("print", "other.irc", "-o", "t.irc")
    assert result.code == 2 and "error[file.exists]" in result.err and not Path("t.irc").exists()
    assert command("print", "other.irc", "-o", "t.irc", "--force").code == 0


def test_an_artefact_does_not_replace_what_lies_in_it(work: Path) -> None:
    assert command("compile", "m.onnx", "--backend", "triton", "-o", "a").code == 0
    save(work / "a" / "weights.safetensors", {"w": Tensor.of(np.ones(3, np.float32))})
    inside = work / "a" / "externs" / "m.onnx"
    inside.parent.mkdir()
    shutil.copy("m.onnx", inside)
    shutil.copy("out.onnx.data", inside.parent)
    assert command("compile", str(inside), "--backend", "triton", "-o", "a").code == 2
    assert inside.is_file()


def test_from_python(work: Path) -> None:
    with pytest.raises(IrcError) as caught:
        irc.compile("m.onnx", output="m.onnx")
    assert caught.value.code == "file.exists"
    module = irc.load("m.onnx")
    with irc.allow(replace_inputs=True):
        irc.compile("m.onnx", output="m.onnx")
    assert irc.load("m.onnx").main.output_names == module.main.output_names
    irc.compile("m.onnx", output="new.onnx")
    irc.compile("m.onnx", output="new.onnx")  # what irc wrote before is no input


def test_an_artefact_does_not_write_to_its_input(work: Path) -> None:
    pytest.importorskip("triton")
    assert command("compile", "m.onnx", "--backend", "triton", "-o", "a").code == 0
    run = [sys.executable, "a", "--input", "x.npz", "--output", "x.npz"]
    before = Path("x.npz").read_bytes()
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is the input" in done.stderr and Path("x.npz").read_bytes() == before
    assert subprocess.run([*run, "--force"], capture_output=True, check=False).returncode == 0


def test_the_runtime_agrees_on_a_sparse_constant() -> None:
    model = sparse_model(sparse("w", np.array([3, 4], np.float32), [[0, 1], [1, 2]], [2, 3]), "Mul")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (expected, _) = in_runtime(model, {"x": x})
    check_close(interpreter.run(from_model(model, NO_FOLDER), {"x": x})["y"], expected)
