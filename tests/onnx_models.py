"""Small ONNX models for tests, written in ONNX's text form, and ONNX Runtime as the judge of them."""

from __future__ import annotations

import ctypes
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


M_PERTURB = -6  # of mallopt(3)


def in_runtime(proto: onnx.ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    """The outputs by ONNX Runtime, its optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))  # type: ignore[no-any-return]


def in_filled_memory(proto: onnx.ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    """The outputs by ONNX Runtime, optimized or not, where glibc fills what is allocated with one byte or another: they
    are the same if all of them is written."""
    fill = getattr(ctypes.CDLL(None), "mallopt", lambda option, byte: 0)
    runs = []
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level, options.intra_op_num_threads = level, 3, 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for byte in (0x5A, 0xC3):
            fill(M_PERTURB, byte)
            try:
                runs.append([np.array(each) for each in session.run(None, dict(inputs))])
            finally:
                fill(M_PERTURB, 0)
    for others in runs[1:]:
        for one, other in zip(runs[0], others, strict=True):
            np.testing.assert_array_equal(one, other)
    return runs[0]


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
