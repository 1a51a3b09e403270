"""Small ONNX models for tests, written in ONNX's text form, and ONNX Runtime as the judge of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from irc.frontends.onnx import from_model
from irc.interpreter import run
from irc.module import Module

NO_FOLDER = Path("no such folder")


def model(graph: str, opset: int = 17, functions: str = "", domains: Mapping[str, int] = {}) -> onnx.ModelProto:
    """A model from `(float[N, 5] x) => (y) { y = Relu(x) }`, at an opset."""
    imports = ", ".join(f'"{domain}" : {version}' for domain, version in {"": opset, **domains}.items())
    return onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> graph {graph} {functions}")


def imported(graph: str, opset: int = 17, **options: Any) -> Module:
    return from_model(model(graph, opset, **options), NO_FOLDER)


def operations(module: Module) -> list[str]:
    """The names of the operations of `main`, without constants and the return."""
    return [operation.name for operation in module.main.block if operation.name not in ("const", "return")]


def in_runtime(proto: onnx.ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    """The outputs by ONNX Runtime, its optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))  # type: ignore[no-any-return]


def check_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Same type and shape; floats within max|a - b| / max|b|, NaN and infinities in the same places. Of sequences and
    maps that holds of each element."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, list):
        assert isinstance(actual, list) and len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            check_close(one, other, tolerance)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind not in "fV":
        np.testing.assert_array_equal(actual, expected)
        return
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    scale = np.abs(expected[finite]).max(initial=0) or 1
    assert np.abs(actual[finite] - expected[finite]).max(initial=0) <= tolerance * scale


def check_against_runtime(graph: str, inputs: Mapping[str, Any], opset: int = 17, **options: Any) -> Module:
    """Import, interpret, and compare every output with ONNX Runtime; returns the module."""
    proto = model(graph, opset, **options)
    module = from_model(proto, NO_FOLDER)
    outputs = run(module, inputs)
    for value, expected in zip(proto.graph.output, in_runtime(proto, inputs), strict=True):
        check_close(outputs[value.name], expected)
    return module
