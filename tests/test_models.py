"""Three trained models through everything: import, every pass, text at every stage, both backends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import interpreter
from irc.driver.models import Settings, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.running import run_onnx, run_triton
from irc.driver.text_files import save_text
from irc.module import Module, difference
from irc.parser import parse
from irc.verifier import verify
from tests.models import FILES, model_inputs, model_path, reference_outputs, relative_error

MODELS = sorted(FILES)
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def imported(name: str) -> Module:
    return irc.load(model_path(name))


def check_outputs(outputs: dict[str, Any], name: str, inputs: dict[str, Any]) -> None:
    expected = reference_outputs(model_path(name), inputs)
    assert list(outputs) == list(expected)
    for output, value in expected.items():
        assert relative_error(outputs[output], value) < TOLERANCE, output


def test_import_has_no_extern_and_no_unranked_value(imported: Module) -> None:
    assert not [operation for operation in imported.walk() if operation.name == "extern"]
    assert all(result.type.is_ranked for operation in imported.walk() for result in operation.results)


def test_interpreter(name: str, imported: Module) -> None:
    inputs = model_inputs(name, seed=1)
    check_outputs(interpreter.run(imported, inputs), name, inputs)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_every_stage_verifies_and_round_trips_as_text(name: str, backend: str, tmp_path: Path) -> None:
    stages = []

    def stage(label: str, module: Module) -> None:
        verify(module)
        path = tmp_path / f"{label}.irc"
        copy = module.clone()
        save_text(copy, path)
        differs = difference(parse(path.read_text(), path), copy)
        assert differs is None, f"{label}: {differs}"
        stages.append(label)

    run_pipeline(model_path(name), find_backend(backend).PIPELINE, backend, Settings(), stage)
    assert len(stages) >= 6


def test_onnx_backend(name: str, imported: Module) -> None:
    compiled = irc.opt(imported, find_backend("onnx").PIPELINE, backend="onnx")
    for seed in (2, 3):
        inputs = model_inputs(name, seed)
        check_outputs(run_onnx(compiled, inputs), name, inputs)


def test_onnx_node_count_does_not_grow(name: str, tmp_path: Path) -> None:
    original = len(onnx.load(model_path(name), load_external_data=False).graph.node)
    report = irc.compile(model_path(name), output=tmp_path / "model.onnx")
    plain = irc.compile(model_path(name), output=tmp_path / "plain.onnx", pipeline="dce")
    assert report.nodes <= original and plain.nodes <= original


def test_onnx_with_kernels_kept_as_functions(name: str, tmp_path: Path) -> None:
    path = tmp_path / "view.onnx"
    irc.compile(model_path(name), output=path, keep_kernels=True)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.functions
    inputs = model_inputs(name, seed=4)
    outputs = reference_outputs(path, inputs)
    check_outputs(outputs, name, inputs)


def test_triton_backend_interpreted(name: str, imported: Module) -> None:
    compiled = irc.opt(imported, find_backend("triton").PIPELINE, backend="triton")
    inputs = model_inputs(name, seed=5, batch=1)
    outputs, label = run_triton(compiled, inputs)
    assert label in ("interpreted", "device")
    check_outputs(outputs, name, inputs)


def raised(name: str) -> Counter[str]:
    return Counter(operation.name for operation in irc.opt(model_path(name), "clean").walk())


def test_raising_finds_what_magika_spells_out() -> None:
    counts = raised("magika")
    assert (counts["gelu"], counts["layer_norm"], counts["softmax"]) == (2, 2, 1)


def test_raising_finds_what_minilm_spells_out() -> None:
    counts = raised("minilm_int8")
    assert (counts["gelu"], counts["attention"], counts["layer_norm"]) == (6, 6, 13)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_minilm_weights_stay_int8(backend: str) -> None:
    compiled = irc.opt(model_path("minilm_int8"), find_backend(backend).PIPELINE, backend=backend)
    tensors = {o.attributes["value"] for o in compiled.walk() if o.name == "const"}
    eight = sum(tensor.nbytes for tensor in tensors if tensor.dtype.name == "i8")
    assert eight > 0.9 * sum(tensor.nbytes for tensor in tensors)


def test_magika_labels_files() -> None:
    from magika import Magika

    from examples.demo import features

    root = Path(__file__).resolve().parent.parent
    files = [root / "irc/ir.py", root / "Makefile", root / "README.md", root / "pyproject.toml", model_path("magika")]
    labels = [str(Magika().identify_path(file).dl.label) for file in files]
    module = irc.opt(model_path("magika"), find_backend("onnx").PIPELINE, backend="onnx")
    batch = np.array([features(file) for file in files], dtype=np.int32)
    (output,) = run_onnx(module, {"bytes": batch}).values()
    config = model_path("magika").with_name("config.min.json").read_text()
    import json

    space = json.loads(config)["target_labels_space"]
    assert [space[row.argmax()] for row in output] == labels


def test_basic_pitch_hears_concert_pitch() -> None:
    """440 Hz is the note A4, the 48th key above the lowest A of a piano."""
    time = np.arange(43844) / 22050
    tone = (0.5 * np.sin(2 * np.pi * 440 * time))[None, :, None].astype(np.float32)
    module = irc.opt(model_path("basic_pitch"), find_backend("onnx").PIPELINE, backend="onnx")
    notes = [value for value in run_onnx(module, {"serving_default_input_2:0": tone}).values() if value.shape[-1] == 88]
    assert 48 in [int(value.mean(axis=(0, 1)).argmax()) for value in notes]


def test_artefacts_and_text_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    script = (
        "import sys, irc\n"
        "irc.compile(sys.argv[1], backend='triton', output=sys.argv[2] + '/t')\n"
        "irc.compile(sys.argv[1], output=sys.argv[2] + '/m.onnx')\n"
        "irc.print(sys.argv[1], after='fuse', output=sys.argv[2] + '/m.irc')\n"
    )
    contents = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-c", script, str(model_path("minilm_int8")), str(folder)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        contents.append({p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert list(contents[0]) == list(contents[1])
    assert [path for path in contents[0] if contents[0][path] != contents[1][path]] == []
