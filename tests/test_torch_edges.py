"""PyTorch programs over edge inputs: the interpreter, ONNX Runtime with its optimizations off and on, and Triton
kernels, interpreted, give what eager PyTorch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import torch
from test_edge_backends import run_onnx, run_triton
from torch.utils import _pytree as pytree
from torch_edge_cases import CASES, Case

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from irc.frontends.torch.tensors import to_array
from irc.module import Module
from irc.torch_arrays import to_tensor

pytestmark = pytest.mark.filterwarnings("ignore")
PATHS = ("interpreter", "onnx", "optimized", "triton")


def imported(case: Case) -> tuple[Module, dict[str, Any]]:
    def program(*xs: torch.Tensor) -> dict[str, Any]:
        return {name: function(*xs) for name, function in case.functions.items()}

    module = irc.from_torch(program, case.inputs)
    return module, dict(zip((value.name for value in module.main.arguments), map(to_array, case.inputs), strict=True))


def run(path: str, module: Module, inputs: Mapping[str, Any], folder: Path) -> list[torch.Tensor]:
    if path == "interpreter":
        arrays: Sequence[Any] = [*interpreter.run(module, inputs).values()]
    elif path == "triton":
        arrays = run_triton(module, inputs, folder)
    else:
        arrays, _ = run_onnx(module, inputs, path == "optimized", find_backend("onnx").PIPELINE)
    return [to_tensor(array, value.dtype) for array, value in zip(arrays, module.main.returned, strict=True)]


def difference(actual: torch.Tensor, expected: torch.Tensor, case: Case) -> str:
    """Where two results part, in words."""
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return f"{actual.dtype} {[*actual.shape]}, not {expected.dtype} {[*expected.shape]}"
    a, b = (x.double() if x.is_floating_point() else x for x in (actual, expected))
    if not expected.is_floating_point():
        wrong = a != b
    else:
        finite = b.isfinite()
        largest = b[finite].abs().max() if finite.any() else 0.0
        least = 6e-8 if expected.dtype is torch.float16 else 1e-37  # near the least numbers of full precision
        close = (a - b).abs() <= case.rtol * b.abs() + case.atol * largest + least
        wrong = torch.where(finite, ~close, ~((a == b) | (a.isnan() & b.isnan())))
        if case.zeros:
            wrong |= (b == 0) & (a.signbit() != b.signbit())
    places = wrong.flatten().nonzero().flatten()[:6]
    sources = [x.flatten()[places].tolist() for x in case.inputs if x.numel() == expected.numel()]
    return f"{a.flatten()[places].tolist()}, not {b.flatten()[places].tolist()} of {sources}" if len(places) else ""


QUICK = [name for name in CASES if not any(word in name for word in ("f16", "f64", "int32", "int8", "of one"))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_edges(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    module, inputs = imported(case)
    expected = {name: function(*(x.clone() for x in case.inputs)) for name, function in case.functions.items()}
    names = [name for name, results in expected.items() for _ in pytree.tree_leaves(results)]
    differences = []
    for path in PATHS:
        try:
            outputs = run(path, module, inputs, tmp_path / "artefact")
        except IrcError as error:
            if error.code != "backend.unsupported" or path not in case.unsupported:
                raise
            continue
        for name, ours, theirs in zip(names, outputs, pytree.tree_leaves([*expected.values()]), strict=True):
            words = difference(ours, theirs, case)
            differences += [f"{path}: {name}: {words}"] if words else []
    assert not differences
