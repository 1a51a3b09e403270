"""irc check --blame: the operation, the pass or the kernel at fault, and not what it infects; and tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import ops
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.checking import CheckReport
from irc.driver.tolerances import derive
from irc.module import Module
from tests import planted
from tests.command_line import irc_here
from tests.onnx_models import imported

SIZES = {"B": 2, "S": 5}
# A pass that changes one tanh of several by little: less than what a check of the outputs allows.
SNEAKY = """
from dataclasses import dataclass
from irc.op import Builder
from irc.ops import mul
from irc.pass_manager import Pass

@dataclass
class Sneaky(Pass):
    \"\"\"Scales what the last tanh or gelu reads.\"\"\"
    def run(self, module, context):
        last = [operation for operation in module.walk() if operation.name in ("tanh", "gelu")][-1]
        with Builder.before_operation(last, last.location.by("sneaky")):
            last.set_operand(0, mul(last.operands[0], 1.000001))
        return True
"""


def encoder(folder: Path, layers: int = 2) -> Path:
    path = folder / "encoder.onnx"
    onnx.save(planted.encoder(layers), path)
    return path


def blamed(report: CheckReport) -> list[tuple[str, str]]:
    assert report.blamed is not None and not report.not_judged
    return [(finding.stage, finding.name) for finding in report.blamed]


def scaled_body(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the body of a named operation wrong by 1e-4."""
    definition = getattr(ops, name)
    right = definition.source_function

    def body(*operands: Any, **attributes: Any) -> Any:
        return ops.mul(right(*operands, **attributes), 1.0001)

    monkeypatch.setattr(definition, "source_function", body)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_a_right_compilation_is_not_blamed(backend: Any, tmp_path: Path) -> None:
    report = irc.check(encoder(tmp_path, 1), blame=True, backend=backend, settings=Settings(dims=SIZES))
    assert report.passed and blamed(report) == []


def test_a_pass_is_named_below_what_outputs_may_differ_by(tmp_path: Path) -> None:
    (tmp_path / "sneaky.py").write_text(SNEAKY)
    settings = Settings(dims=SIZES, loads=[str(tmp_path / "sneaky.py")])
    report = irc.check(encoder(tmp_path), blame=True, pipeline="clean,sneaky,default", settings=settings)
    assert all(stage.passed for stage in report.stages) and not report.passed
    ((stage, name),) = blamed(report)
    assert stage == "sneaky" and name.startswith("pass sneaky: %l1i = tanh, which reads %")
    assert name.endswith(" = mul, made by sneaky")


@pytest.mark.parametrize("name, values", [("layer_norm", ("l0h", "l1h")), ("softmax", ("l0p", "l1p"))])
def test_the_body_of_an_operation_is_named_once_for_all_layers(
    name: str, values: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against ONNX Runtime on the original; of IR as text, against the operators of ONNX Runtime."""
    path = encoder(tmp_path)
    irc.print(path, output=tmp_path / "encoder.irc")
    scaled_body(name, monkeypatch)
    for model in (path, tmp_path / "encoder.irc"):
        report = irc.check(model, blame=True, settings=Settings(dims=SIZES))
        (finding,) = report.blamed or ()
        assert (finding.stage, finding.name) == ("import", f"%{values[0]} = {name}")
        assert (finding.value, *finding.others) == values and 5e-5 < finding.error < 2e-4 and finding.allowed < 1e-5


def test_a_kernel_is_named_and_not_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that reduce rows that do not fill their block."""
    from irc.backends.triton import source

    monkeypatch.setattr(source, "analyse", source.analyse)  # restored afterwards
    (tmp_path / "kernels.py").write_text(planted.WRONG_KERNELS)
    settings = Settings(dims=SIZES, loads=[str(tmp_path / "kernels.py")])
    report = irc.check(encoder(tmp_path), blame=True, backend="triton", settings=settings)
    named = blamed(report)
    assert named and all(stage == "triton" and name.startswith("kernel @") for stage, name in named)
    reductions = {"layer_norm", "softmax"}
    final = irc.opt(encoder(tmp_path), "default", settings=Settings(dims=SIZES))
    members = {each.attributes["name"]: {inner.name for inner in each.walk()} for each in final.walk()
               if each.name == "kernel"}  # fmt: skip
    assert all(members[name.removeprefix("kernel @")] & reductions for _, name in named)


def test_a_kernel_in_a_loop_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "(float[N, 24] x, int64 n) => (float[N, 24] y) {"
        " yes = Constant <value: tensor = bool {1}> ()"
        " y = Loop (n, yes, x) <body = body (int64 i, bool c, float[N, 24] h) => (bool d, float[N, 24] s) {"
        " d = Identity (c) e = Tanh (h) s = Softmax (e) }> }"
    )
    module = imported(text)
    (tmp_path / "kernels.py").write_text(planted.WRONG_KERNELS)
    from irc.backends.triton import source

    monkeypatch.setattr(source, "analyse", source.analyse)  # restored afterwards
    settings = Settings(dims={"N": 3}, loads=[str(tmp_path / "kernels.py")])
    report = irc.check(module, {"x": np.ones((3, 24), np.float32), "n": np.int64(3)}, blame=True, backend="triton",
                       settings=settings)  # fmt: skip
    assert [stage for stage, _ in blamed(report)] == ["triton"] and blamed(report)[0][1].startswith("kernel @")


# -- tolerances ------------------------------------------------------------------------------------------------


def tolerance_of(module: Module, inputs: dict[str, Any], name: str) -> Any:
    return derive(module, inputs)[module.main.name, name, 0]


@pytest.mark.parametrize("dtype, unit", [("f32", 2.0**-24), ("f16", 2.0**-11), ("bf16", 2.0**-8), ("f64", 2.0**-53)])
def test_a_tolerance_is_that_of_one_rounding_where_there_is_one(dtype: str, unit: float) -> None:
    module = irc.trace(lambda x, y: ops.mul(x, y, name="z"), f"{dtype}[50]", f"{dtype}[50]")
    x = np.random.default_rng(0).standard_normal(50).astype(module.main.arguments[0].dtype.numpy)
    tolerance = tolerance_of(module, {"x": x, "y": x}, "z")
    assert tolerance.unit == unit and 4 * unit <= tolerance.derived < 8 * unit and tolerance.condition < 2


def test_a_tolerance_grows_where_terms_cancel_and_where_many_are_added() -> None:
    module = irc.trace(lambda x: ops.sub(ops.add(x, 1e4), 1e4, name="z"), "f32[50]")
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    assert tolerance_of(module, {"x": x}, "z").condition > 1e3
    sums = [tolerance_of(irc.trace(lambda x: ops.reduce_sum(x, axes=(0,), name="z"), f"f32[{n}]"),
                         {"x": np.ones(n, np.float32)}, "z") for n in (16, 4096)]  # fmt: skip
    assert [each.terms for each in sums] == [16, 4096] and [each.sizes for each in sums] == [16, 4096]
    assert sums[1].change / sums[1].scale > 8 * sums[0].change / sums[0].scale


def test_integers_and_what_moves_data_have_none() -> None:
    module = irc.trace(lambda x: (ops.argmax(x, axis=0, name="i"), ops.reshape(x, shape=(5, 10), name="r")), "f32[50]")
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    assert tolerance_of(module, {"x": x}, "i").allowed == 0
    assert tolerance_of(module, {"x": x}, "r").change == 0


def test_why_tolerance_prints_the_derivation(tmp_path: Path) -> None:
    encoder(tmp_path, 1)
    done = irc_here("check", "encoder.onnx", "--dim", "B=2", "--dim", "S=5", "--why-tolerance", "%l0p", folder=tmp_path)
    assert done.code == 0, done.err
    assert "%l0p = softmax : f32[" in done.out and "unit" in done.out and "operand %l0d: allowed" in done.out
    done = irc_here("check", "encoder.onnx", "--dim", "B=2", "--dim", "S=5", "--why-tolerance", "x", folder=tmp_path)
    assert done.code == 2 and "error[usage.arguments]: %x is an input, and has no tolerance" in done.err
    with pytest.raises(IrcError, match=r"text\.undefined_name"):
        irc.check(tmp_path / "encoder.onnx", why_tolerance=["nowhere"], settings=Settings(dims=SIZES))


# -- GPT-2 -----------------------------------------------------------------------------------------------------


def saved_gpt2(path: Path, layers: int) -> tuple[Path, dict[str, Any]]:
    """A small GPT-2 with random weights, as a .pt2 file, and inputs for it."""
    import torch

    from tests.architectures import gpt2

    example = gpt2(layers)
    torch.export.save(torch.export.export(example.module, (), example.inputs), path)
    return path, {name: tensor.numpy() for name, tensor in example.inputs.items()}


@pytest.mark.slow
def test_three_mistakes_in_gpt2_of_twelve_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's schedule, a pass and the body of an operation: each is blamed, and has a witness. On two cores that
    do nothing else, each takes less than 20 seconds."""
    from irc.backends.triton import source

    path, inputs = saved_gpt2(tmp_path / "gpt2.pt2", 12)
    (tmp_path / "sneaky.py").write_text(SNEAKY)
    (tmp_path / "kernels.py").write_text(planted.WRONG_KERNELS)
    report = irc.check(path, inputs, blame=True, pipeline="clean,sneaky,default",
                       settings=Settings(loads=[str(tmp_path / "sneaky.py")]))  # fmt: skip
    assert [stage for stage, _ in blamed(report)] == ["sneaky"]
    irc.print(path, pipeline="clean,sneaky", after="sneaky", output=tmp_path / "sneaky.irc",
              settings=Settings(loads=[str(tmp_path / "sneaky.py")]))  # fmt: skip
    assert irc.diff(path, tmp_path / "sneaky.irc", inputs).verdict == "differs"
    with monkeypatch.context() as patch:
        patch.setattr(source, "analyse", source.analyse)
        report = irc.check(path, inputs, blame=True, backend="triton",
                           settings=Settings(loads=[str(tmp_path / "kernels.py")]))  # fmt: skip
        assert {stage for stage, _ in blamed(report)} == {"triton"}
        irc.compile(path, backend="triton", output=tmp_path / "wrong.triton")
        assert irc.diff(path, tmp_path / "wrong.triton", inputs).verdict == "differs"
    scaled_body("layer_norm", monkeypatch)
    report = irc.check(path, inputs, blame=True, backend="triton")
    assert [(stage, name.split(" = ")[1]) for stage, name in blamed(report)] == [("import", "layer_norm")]
    irc.compile(path, backend="triton", output=tmp_path / "wrong.triton")
    assert irc.diff(path, tmp_path / "wrong.triton", inputs, originals=True).verdict == "differs"


# -- a second model, and layers --------------------------------------------------------------------------------


def saved(path: Path, body: str) -> Path:
    onnx.save(onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}'), path)
    return path


def test_a_model_is_checked_against_another_in_its_own_framework(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Softmax(-1), torch.nn.Tanh())
    program = torch.export.export(module, (torch.zeros(3, 8),), dynamic_shapes=({0: torch.export.Dim("N")},))
    torch.export.save(program, tmp_path / "program.pt2")
    model = saved(tmp_path / "model.onnx", "p = Softmax <axis: int = -1> (x) y = Tanh (p)")
    report = irc.check(model, against=tmp_path / "program.pt2")
    assert report.passed and [stage.stage for stage in report.stages] == ["original", "import", "against", "passes"]
    other = saved(tmp_path / "other.onnx", "p = Softmax <axis: int = -1> (x) y = Sin (p)")
    report = irc.check(model, against=other)
    assert [stage.stage for stage in report.stages if not stage.passed] == ["against"]
    done = irc_here("check", "model.onnx", "other.onnx", folder=tmp_path)
    assert done.code == 1 and "FAIL  against" in done.out
    assert irc_here("check", "model.onnx", "other.onnx", "model.onnx", folder=tmp_path).code == 2


def test_models_that_take_no_common_input_are_an_error(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", "y = Tanh (x)")
    other = irc.trace(lambda x, z: ops.add(x, z), "f32[N, 8]", "f32[N, 8]")
    with pytest.raises(IrcError, match=r"diff\.signature"):
        irc.check(model, against=other)


def test_layers_compare_each_value_with_the_originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled_body("softmax", monkeypatch)
    model = saved(tmp_path / "model.onnx", "p = Softmax <axis: int = -1> (x) t = Tanh (p) y = Exp (t)")
    (layers,) = (stage for stage in irc.check(model, layers=True).stages if stage.stage == "layers")
    assert [(each.output, each.passed) for each in layers.outputs] == [("p", False), ("t", True), ("y", True)]


def test_values_of_a_pytorch_program_are_those_of_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Softmax(-1))
    torch.export.save(torch.export.export(module.eval(), (torch.randn(3, 8),)), tmp_path / "program.pt2")
    report = irc.check(tmp_path / "program.pt2", layers=True)
    (layers,) = (stage for stage in report.stages if stage.stage == "layers")
    assert len(layers.outputs) >= 4 and layers.passed and report.passed
    scaled_body("gelu", monkeypatch)
    (finding,) = irc.check(tmp_path / "program.pt2", blame=True).blamed or ()
    assert finding.stage == "import" and finding.name.endswith(" = gelu")
