"""The kernels of the trained models under the checked interpreter: addresses, bytes, numbers, GPU targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")
pytest.importorskip("onnx")

from irc.backends.triton import PIPELINE, Target, compile_artefact, emit
from irc.driver.pipelines import parse_pipeline
from irc.frontends.onnx import load
from irc.module import Module
from irc.pass_manager import PassContext, PassManager
from tests import models, triton_harness

pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = sorted(models.FILES)


def fused(name: str) -> Module:
    module = load(models.model_path(name))
    PassManager(parse_pipeline(PIPELINE), PassContext(target=Target())).run(module)
    return module


@pytest.mark.parametrize("name", MODELS)
def test_every_address_and_byte(name: str, tmp_path: Path) -> None:
    module, inputs = fused(name), models.model_inputs(name, seed=1)
    program = emit(module, tmp_path / "model")
    assert program.kernels and not program.rejected and not program.externs
    launches, outputs = run_watched(tmp_path / "model", module, program, inputs)
    bundles = {bundle.name for bundle in program.bundles}
    alone = [kernel for kernel in program.launches.values() if kernel not in bundles]
    assert len(launches) == len(alone) + len(bundles) and set(alone) == {each.source.name for each in program.kernels}
    for launch in launches:
        assert launch.predicted is not None
        assert launch.counted <= launch.predicted.loaded_bytes, launch.name
        assert launch.counted == launch.predicted.loaded_bytes or not launch.predicted.exact, launch.name
    assert sum(not launch.predicted.exact for launch in launches if launch.predicted) <= 2, "gathers alone are bounded"
    expected = models.reference_outputs(models.model_path(name), inputs)
    for output, actual in outputs.items():
        assert models.relative_error(actual, expected[output]) < 1e-4


def run_watched(folder: Path, module: Module, program: Any, inputs: dict[str, np.ndarray]) -> tuple[list[Any], Any]:
    import sys

    artefact = triton_harness.load_artefact(folder)
    model = artefact.load()
    runtime = sys.modules[f"{artefact.__name__}.runtime"]
    launches = triton_harness.watch(model, runtime, program, triton_harness.bind_symbols(module, inputs))
    outputs = {output: triton_harness.to_numpy(tensor) for output, tensor in model.run(inputs).items()}
    return launches, outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_kernels_compile_without_spills(name: str, tmp_path: Path) -> None:
    emit(fused(name), tmp_path / "model")
    for resources in compile_artefact(tmp_path / "model", ("sm_80", "sm_90", "gfx942")):
        assert not resources.error, resources
        assert resources.fits and not resources.spilled_bytes, resources


def test_weights_stay_as_they_were(tmp_path: Path) -> None:
    emit(fused("minilm_int8"), tmp_path / "model")
    written = (tmp_path / "model" / "weights.safetensors").stat().st_size
    assert written < 1.02 * models.model_path("minilm_int8").stat().st_size
