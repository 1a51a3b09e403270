"""Common architectures, exported by PyTorch and read by both frontends, compute what eager PyTorch computes.

Those that are not marked slow are a choice across the families; `-m slow` runs every frontend, size and backend.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("triton")

import torch

import irc
from irc.driver.models import find_backend, read_pipeline
from irc.frontends.onnx import from_model
from irc.frontends.torch.tensors import to_array
from irc.module import Module
from irc.pass_manager import PassContext, PassManager
from tests.architectures import ARCHITECTURES, Example, build, skip_what_is_not_exported
from tests.models import relative_error
from tests.renaming import anonymous, disguised

pytestmark = pytest.mark.filterwarnings("ignore")
FRONTENDS, BACKENDS, TARGETS = ("torch", "onnx"), ("onnx", "triton"), ("sm_80", "sm_90", "sm_100", "gfx942")
TRIGONOMETRIC = 32  # bytes that CUDA's own sine and cosine keep for arguments beyond 105,615
QUICK = {
    ("resnet", "torch", "dynamic"), ("swin", "torch", "static"), ("bert", "onnx", "dynamic"),
    ("llama_cached", "torch", "dynamic"), ("t5", "onnx", "static"), ("yolo", "torch", "static"),
    ("detector", "onnx", "static"), ("unet", "onnx", "static"), ("tagger", "torch", "dynamic"),
}  # fmt: skip
# torch.onnx exports by torch.export, which unrolls the LSTM, one copy of its cell for each step of the example.
UNROLLED = ("tagger", "onnx", "dynamic")
CASES = [
    pytest.param(name, frontend, sizes, marks=[] if (name, frontend, sizes) in QUICK else [pytest.mark.slow])
    for name in ARCHITECTURES
    for frontend in FRONTENDS
    for sizes in ("static", "dynamic")
    if (name, frontend, sizes) != UNROLLED
]


@cache
def example(name: str) -> Example:
    return build(name)


@lru_cache(maxsize=len(QUICK))
def read(name: str, frontend: str, sizes: str) -> Module:
    """An architecture as a module: through torch.export, or exported to ONNX first."""
    case = example(name)
    dynamic = case.dynamic if sizes == "dynamic" else None
    arguments = tuple(case.inputs.values())
    if frontend == "torch":
        skip_what_is_not_exported(name, sizes)
        return irc.from_torch(case.module, arguments, dynamic_shapes=dynamic, name=name)
    translations = {torch.ops.torchvision.nms.default: nms_in_onnx} if name == "detector" else None
    with torch.no_grad():
        program = torch.onnx.export(case.module, arguments, dynamo=True, verbose=False, dynamic_shapes=dynamic,
                                    custom_translation_table=translations)  # fmt: skip
    assert program is not None
    return from_model(program.model_proto, Path())


def nms_in_onnx(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """How torch.onnx is to write torchvision's operator, which it knows only where torchvision is installed."""
    from onnxscript import opset18 as onnx

    boxes, scores = onnx.Unsqueeze(dets, onnx.Constant(value_ints=[0])), onnx.Unsqueeze(
        scores, onnx.Constant(value_ints=[0, 1]))
    most, threshold = onnx.Constant(value_ints=[2**31 - 1]), onnx.Constant(value_floats=[iou_threshold])
    selected = onnx.NonMaxSuppression(boxes, scores, most, threshold)
    return onnx.Gather(selected, onnx.Constant(value_int=2), axis=1)


def test_what_torch_itself_unrolls() -> None:
    """So there is no ONNX model of the tagger for every length; through irc's own export there is a module."""
    case = example("tagger")
    with pytest.raises(Exception, match="You marked length as dynamic but your code specialized it"):
        torch.export.export(case.module, tuple(case.inputs.values()), dynamic_shapes=case.dynamic)
    assert str(read("tagger", "torch", "dynamic").main.find("tokens").type) == "i64[batch, length]"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, frontend, sizes", CASES)
def test_as_eager(name: str, frontend: str, sizes: str, backend: str) -> None:
    case = example(name)
    inputs = case.others if sizes == "dynamic" else case.inputs
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(case.module(*inputs.values()))
    module = read(name, frontend, sizes)
    outputs = irc.run(module, {key: value.numpy() for key, value in inputs.items()}, backend=backend).outputs
    for output, reference in zip(outputs.values(), expected, strict=True):
        assert relative_error(output, reference.numpy()) <= 1e-5


def compiled(module: Module, backend: str, target: str | None, seed: int | None) -> tuple[str, Any]:
    """What passes make of a module, up to names and locations, and how many nodes of each operator ONNX has of it. With
    a seed these are disguised: first those of the module, and again those that the passes up to `raise` leave."""
    emitter, module = find_backend(backend), module.clone()
    context = PassContext(target=emitter.Target(target) if target is not None else emitter.Target())
    passes = read_pipeline(emitter.PIPELINE, context)
    split = [each.pipeline_name() for each in passes].index("raise") + 1
    for part in (passes[:split], passes[split:]):
        module = module if seed is None else disguised(module, seed)
        PassManager(part, context).run(module)
    nodes = emitter.emit(module, target=context.target).graph.node if backend == "onnx" else ()
    return anonymous(module), Counter(node.op_type for node in nodes)


@pytest.mark.parametrize("name, frontend, sizes", CASES)
def test_names_and_locations_decide_nothing(name: str, frontend: str, sizes: str) -> None:
    """Neither those of the model, nor the names that passes give and what they note of their work."""
    module = read(name, frontend, sizes)
    for backend, target in (("onnx", "portable"), ("onnx", "cpu"), ("triton", None)):
        expected = compiled(module, backend, target, None)
        for seed in (0, 1):
            text, nodes = compiled(module, backend, target, seed)
            assert text.splitlines() == expected[0].splitlines() and nodes == expected[1]


HALF = [
    pytest.param(name, dtype, marks=[] if (name, dtype) in {("vit", torch.bfloat16), ("tagger", torch.bfloat16),
                                                            ("llama", torch.float16)} else pytest.mark.slow)
    for name in ARCHITECTURES if name != "detector"  # which boxes it gives hangs on comparisons
    for dtype in (torch.float16, torch.bfloat16)
]  # fmt: skip


@pytest.mark.parametrize("name, dtype", HALF)
def test_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """Weights, inputs and values of 16 bits: within 1e-2 of the same weights and inputs evaluated in f64."""
    case = build(name)

    def floats(inputs: dict[str, torch.Tensor], to: torch.dtype) -> dict[str, torch.Tensor]:
        return {key: value.to(to) if value.is_floating_point() else value for key, value in inputs.items()}

    module, inputs = case.module.to(dtype), floats(case.inputs, dtype)
    imported = irc.from_torch(module, tuple(inputs.values()), name=name)
    with torch.no_grad():
        eager = torch.utils._pytree.tree_leaves(module(*inputs.values()))
        exact = torch.utils._pytree.tree_leaves(module.double()(*floats(inputs, torch.float64).values()))
    for backend in BACKENDS:
        outputs = irc.run(imported, {key: to_array(value) for key, value in inputs.items()}, backend=backend).outputs
        for output, same, reference in zip(outputs.values(), eager, exact, strict=True):
            assert str(output.dtype) == str(same.dtype).removeprefix("torch.")
            assert relative_error(output.astype(np.float64), reference.numpy()) <= 1e-2


def test_what_is_carried_whole() -> None:
    """Only what has as many results as the data says."""
    for frontend in FRONTENDS:
        names = [operation.attributes["op_type"] for operation in read("detector", frontend, "static").walk()
                 if operation.name == "extern"]  # fmt: skip
        assert sorted(names) == ["NonMaxSuppression", "NonZero"]


QUICK_NAMES = {name for name, _, _ in QUICK}
SHARES = [
    pytest.param(name, marks=[] if name in QUICK_NAMES else pytest.mark.slow) for name in ARCHITECTURES
]


@pytest.mark.parametrize("name", SHARES)
def test_share_in_kernels(name: str) -> None:
    """What is neither view nor product nor convolution runs in kernels, but for one operation in twenty."""
    assert irc.kernels(read(name, "torch", "dynamic")).share_without_library >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kernels_compile_without_spills(name: str) -> None:
    """For every target; of the accesses that are aligned and contiguous, 95% move 128 bits a thread."""
    aligned = wide = 0
    for kernel in irc.kernels(read(name, "torch", "dynamic"), targets=TARGETS).kernels:
        assert set(kernel.targets) == set(TARGETS)
        for target, facts in kernel.targets.items():
            assert not facts.get("error"), (kernel.name, target, facts)
            assert facts["fits"] and not facts["spilled_bytes"], (kernel.name, target, facts)
            assert facts["local_bytes"] <= TRIGONOMETRIC, (kernel.name, target, facts)
            aligned, wide = aligned + facts["aligned_accesses"], wide + facts["wide_accesses"]
    assert wide >= 0.95 * aligned
