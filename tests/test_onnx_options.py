"""What `irc compile --backend onnx` may do besides: --tune, --quantize, --session-advice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc import dtypes, ops
from irc.diagnostics import IrcError, fail
from irc.driver import Settings, graph_tuning, onnx_models, sessions
from irc.driver.graph_tuning import ALL, INPUT, SAME, Candidate, choose, noise_of, rewrites_of
from irc.driver.measuring import relative_error
from irc.driver.models import find_backend
from irc.driver.onnx_models import OnnxOptions
from irc.driver.pipelines import leaving_out
from irc.driver.running import run_onnx
from irc.driver.sessions import SessionAdvice, advice_path, read_advice, session_options, write_advice
from irc.driver.timing import timed_in_turn
from irc.named_pipelines import DEFAULT
from irc.op import const
from irc.weights import Tensor
from tests.command_line import irc_here

GENERATOR = np.random.default_rng(0)


def weight(*shape: int, name: str = "w") -> Tensor:
    return Tensor.of(GENERATOR.standard_normal(shape).astype(np.float32), name=name)


W = weight(96, 64)
HUGE = Tensor.of(np.where(W.array() > 2, np.float32(np.inf), W.array()), name="h")
KERNEL = weight(24, 16, 3, 5, name="k")
PLAIN: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "low": (0, 0), "high": (0, 0), "groups": 1}


def mlp(folder: Path, width: int = 96) -> Path:
    """A model of a product, a bias, an activation and a product, for any batch."""
    def tensor(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(GENERATOR.standard_normal(shape).astype(np.float32) / 8, name)

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("Add", ["a", "b1"], ["h"]),
         helper.make_node("Relu", ["h"], ["r"]), helper.make_node("MatMul", ["r", "w2"], ["y"])],
        "mlp", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 48])],
        [tensor("w1", width, 128), tensor("b1", 128), tensor("w2", 128, 48)],
    )  # fmt: skip
    path = folder / "mlp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def outputs(path: Path, **feeds: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return list(onnxruntime.InferenceSession(str(path), options).run(None, feeds))


# -- --quantize --------------------------------------------------------------------------------------------------

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...], int]] = {
    # What is traced, the types of its arguments, and how many of its weights are quantized to 8 bits.
    "matmul": (lambda x: ops.matmul(x, const(value=W)), ("f32[M, 96]",), 1),
    "ranks": (lambda x: ops.matmul(x, const(value=W)), ("f32[B, M, 96]",), 1),
    "linear": (lambda x, b: ops.linear(x, const(value=W), b), ("f32[M, 96]", "f32[64]"), 1),
    "gemm": (lambda x: ops.gemm(x, const(value=W), transpose_b=True), ("f32[M, 64]",), 1),
    "scaled": (lambda x: ops.gemm(x, const(value=W), alpha=0.5), ("f32[M, 96]",), 1),
    "conv": (lambda x: ops.conv(x, const(value=KERNEL), **PLAIN), ("f32[N, 16, 9, 9]",), 1),
    "ragged": (lambda x: ops.matmul(x, const(value=weight(101, 64, name="r"))), ("f32[M, 101]",), 1),
    "twice": (lambda x: (ops.matmul(x, const(value=W)), ops.relu(ops.matmul(x, const(value=W)))), ("f32[M, 96]",), 1),
    "small": (lambda x: ops.matmul(x, const(value=weight(8, 8, name="s"))), ("f32[M, 8]",), 0),
    "doubles": (lambda x: ops.matmul(x, const(value=Tensor.of(W.array().astype(np.float64), name="d"))),
                ("f64[M, 96]",), 0),
    "left": (lambda x: ops.matmul(const(value=W), x), ("f32[64, N]",), 0),
    "embedding": (lambda x, i: ops.gemm(ops.add(x, ops.gather(const(value=W), i, axis=0)), const(value=W),
                                        transpose_b=True), ("f32[S, 64]", "i64[S]"), 0),
    "not_finite": (lambda x: ops.matmul(x, const(value=HUGE)), ("f32[M, 96]",), 0),
}  # fmt: skip
PACKED = {"matmul", "ranks", "linear", "gemm", "ragged", "twice"}  # that have products of 4-bit weights


def quantized(program: Callable[..., Any], types: tuple[str, ...], bits: int) -> tuple[Any, Any]:
    """A traced program before and after the pass."""
    module = irc.trace(program, *types)
    before = irc.opt(module, "cse", backend="onnx")
    return before, irc.opt(before, f"quantize_weights{{bits={bits}}}", backend="onnx", settings=Settings(target="cpu"))


def constants(module: Any) -> dict[str, Tensor]:
    return {each.attributes["value"].name: each.attributes["value"] for each in module.walk() if each.name == "const"}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", PROGRAMS)
def test_only_weights_of_products_are_quantized(name: str, bits: int) -> None:
    """Within half a step of the codes; everything else stays as it is."""
    program, types, count = PROGRAMS[name]
    before, after = quantized(program, types, bits)
    if not count or (bits == 4 and name not in PACKED):
        assert str(before) == str(after)
        return
    stored = constants(after)
    codes = [tensor for tensor in stored.values() if tensor.dtype in (dtypes.I8, dtypes.U8)]
    assert len(codes) == count
    shapes = {x.name: [dim if isinstance(dim, int) else 3 for dim in x.shape] for x in before.main.arguments}
    given = {name: GENERATOR.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    target = Settings(target="cpu").target_of("onnx")
    exact, computed = run_onnx(before, given, target), run_onnx(after, given, target)
    interpreted = irc.run(after, given).outputs
    for output, value in computed.items():
        assert 0 < relative_error(value, exact[output]) < (0.02 if bits == 8 else 0.25)
        assert relative_error(value, interpreted[output]) < 1e-5  # only weights are: not what they multiply


@pytest.mark.parametrize("extreme", [0.0, 5.0, -5.0])
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_are_the_nearest(bits: int, extreme: float) -> None:
    """Of each weight, in steps of the scale of its column or block; a column of zeros is exact."""
    array = GENERATOR.uniform(-1, 1, (64, 96)).astype(np.float32)
    array[:, 0] = extreme
    _, after = quantized(lambda x: ops.matmul(x, const(value=Tensor.of(array, name="w"))), ("f32[M, 64]",), bits)
    restored = irc.run(after, {after.main.arguments[0].name: np.eye(64, dtype=np.float32)}).outputs
    (matrix,) = restored.values()
    step = np.abs(array).max(0) / 127 if bits == 8 else np.repeat(np.abs(array.reshape(2, 32, 96)).max(1), 32, 0) / 8
    assert (np.abs(matrix - array) <= (0.501 if bits == 8 else 1.001) * step + 1e-7).all()
    assert np.allclose(matrix[:, 0], extreme, rtol=1e-6)


@pytest.mark.parametrize("form", ["weights=int8", "weights=int4"])
def test_the_error_on_calibration_data_is_stated(tmp_path: Path, form: str) -> None:
    """It is that of the written model against the one without, measured here once more."""
    path = mlp(tmp_path)
    samples = [GENERATOR.standard_normal((rows, 96)).astype(np.float32) for rows in (3, 5)]
    files = []
    for index, x in enumerate(samples):
        files.append(tmp_path / f"{index}.npz")
        np.savez(files[-1], x=x)
    settings = Settings(target="cpu")
    irc.compile(str(path), output=tmp_path / "plain.onnx", settings=settings)
    report = irc.compile(str(path), output=tmp_path / "small.onnx", settings=settings,
                         onnx=OnnxOptions(quantize=form, calibration=files))  # fmt: skip
    expected = max(relative_error(outputs(tmp_path / "small.onnx", x=x)[0], outputs(tmp_path / "plain.onnx", x=x)[0])
                   for x in samples)  # fmt: skip
    assert report.quantized is not None and report.quantized.weights == 2
    assert report.quantized.errors["y"] == pytest.approx(expected, rel=0.2)
    assert report.quantized.bytes_after < report.quantized.bytes_before / (3.5 if form.endswith("8") else 6)
    assert report.quantized.data == tuple(map(str, files))
    sizes = [(tmp_path / name).stat().st_size for name in ("small.onnx", "plain.onnx")]
    assert sizes[0] < sizes[1] / 2.5


def test_random_inputs_are_said_to_be_random(tmp_path: Path) -> None:
    mlp(tmp_path)
    result = irc_here("compile", "mlp.onnx", "--quantize", "weights=int4", "-o", "small.onnx", folder=tmp_path)
    assert result.code == 0 and "2 weights in 4 bits" in result.out and "on random inputs" in result.out, result.err
    assert "compiled for --target cpu" in result.err
    model = onnx.load(tmp_path / "small.onnx")
    assert [node.op_type for node in model.graph.node].count("MatMulNBits") == 2


def test_products_of_8_bit_weights_are_portable(tmp_path: Path) -> None:
    mlp(tmp_path)
    arguments = ["--quantize", "weights=int8", "--target", "portable", "-o", "small.onnx"]
    assert irc_here("compile", "mlp.onnx", *arguments, folder=tmp_path).code == 0
    assert {node.domain for node in onnx.load(tmp_path / "small.onnx").graph.node} == {""}


MISTAKES = (
    ("--quantize int8", "weights=int8"),
    ("--quantize weights=int2", "weights=int8"),
    ("--quantize weights=int4 --target portable", "MatMulNBits"),
    ("--calibration x.npz", "--quantize"),
    ("--quantize weights=int8 --calibration none.npz", "none.npz"),
    ("--tune-seconds 5", "--tune"),
    ("--tune --tune-seconds -1", "--tune-seconds"),
    ("--tune --tune-seconds nan", "--tune-seconds"),
    ("--tune --backend triton", "--backend onnx"),
    ("--session-advice --backend triton", "--backend onnx"),
)


@pytest.mark.parametrize(("line", "words"), MISTAKES)
def test_mistakes_are_coded(tmp_path: Path, line: str, words: str) -> None:
    mlp(tmp_path)
    result = irc_here("compile", "mlp.onnx", "-o", "out.onnx", *line.split(), folder=tmp_path)
    assert result.code in (2, 3) and result.err.startswith("error[") and words in result.err, result
    assert {path.name for path in tmp_path.iterdir()} == {"mlp.onnx"}


# -- --tune ------------------------------------------------------------------------------------------------------


def times(**ratios: float) -> dict[str, Candidate]:
    names = {"all": ALL, "input": INPUT, "again": SAME}
    return {names.get(name, f"without {name}"): Candidate(ratio, ratio, ratio, 1) for name, ratio in ratios.items()}


@pytest.mark.parametrize(
    ("candidates", "noise", "chosen"),
    [
        (times(all=1.1, a=1.0, input=1.0), 0.01, ALL),
        (times(all=1.1, a=1.11, input=1.0), 0.02, ALL),  # no faster beyond the noise
        (times(all=1.1, a=1.2, input=1.0), 0.02, "without a"),
        (times(all=0.99, a=0.98, input=1.0), 0.02, ALL),  # no slower beyond the noise
        (times(all=0.9, a=0.95, input=1.0), 0.02, INPUT),
        (times(all=0.9, a=0.995, input=1.0), 0.02, "without a"),
        (times(all=0.5, input=1.0, again=1.3), 0.3, INPUT),
    ],
)
def test_choice(candidates: dict[str, Candidate], noise: float, chosen: str) -> None:
    assert choose(candidates, noise) == chosen
    assert candidates[choose(candidates, noise)].ratio >= 1 / (1 + noise) - 1e-9  # never slower than the input


def test_noise_is_what_the_input_differs_from_itself() -> None:
    assert noise_of(0.99, 1.0, 1.01) == pytest.approx(0.01)
    assert noise_of(0.9, 0.95, 1.0) == pytest.approx(0.05)
    assert noise_of(1.0, 1.0, 1.0) > 0


def test_rewrites_of_a_pipeline() -> None:
    pipeline = "canonicalize,fold{cap=100},cse,raise,fold,bias,legalize,raise,dce"
    assert rewrites_of(pipeline) == ["raise", "bias"]
    assert leaving_out(pipeline, ["raise"]) == "canonicalize,fold{cap=100},cse,fold,bias,legalize,dce"
    assert leaving_out("fuse{policy=a.py:b,x={1,2}},raise", ["raise"]) == "fuse{policy=a.py:b,x={1,2}}"
    assert set(rewrites_of("default")) == set(rewrites_of(DEFAULT)) and "bias" in rewrites_of("default")
    assert leaving_out("clean{fold.cap=9},bias", ["raise"]) == (
        "canonicalize,fold{cap=9},cse,fold{cap=9},canonicalize,cse,dce,bias")
    assert leaving_out("clean", []) == "clean"
    with pytest.raises(IrcError) as caught:
        rewrites_of("without-dash,fold")
    assert caught.value.code == "pass.syntax"


def test_calls_are_timed_in_turn() -> None:
    order: list[str] = []
    now = [0.0]

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[0] += seconds

        return run

    calls = {"a": call("a", 1.0), "b": call("b", 2.0)}
    seconds = timed_in_turn(calls, 3, clock=lambda: now[0], least=2.0)
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert "".join(order) == "ab" + "aaabb" + "bbaaa" + "aaabb"
    assert len(timed_in_turn(calls, 9, clock=lambda: now[0], deadline=0.0)["a"]) == 2


def test_tuned_models_compute_the_same(tmp_path: Path) -> None:
    path = mlp(tmp_path)
    arguments = ["--target", "cpu", "--tune", "--tune-seconds", "0.2", "-o", "tuned.onnx"]
    result = irc_here("compile", "mlp.onnx", *arguments, folder=tmp_path)
    assert result.code == 0, result.err
    for words in ("all rewrites", "input again", "noise", "<- taken", "CPU time", "x ["):
        assert words in result.out
    x = GENERATOR.standard_normal((3, 96)).astype(np.float32)
    assert relative_error(outputs(tmp_path / "tuned.onnx", x=x)[0], outputs(path, x=x)[0]) < 1e-5


def test_the_input_is_copied_where_it_is_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mlp(tmp_path)
    monkeypatch.setattr(graph_tuning, "choose", lambda candidates, noise: INPUT)
    options = OnnxOptions(tune=True, seconds=0.1, advice=True)
    report = irc.compile(str(path), output=tmp_path / "tuned.onnx", onnx=options)
    assert (tmp_path / "tuned.onnx").read_bytes() == path.read_bytes()
    assert report.tuned is not None and report.tuned.chosen == INPUT and report.nodes == 4
    assert read_advice(tmp_path / "tuned.onnx") is not None


NOT_COPIED: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({"opset": 21}, {}, "opset 21"),
    ({}, {"quantize": "weights=int8"}, "quantized"),
    ({}, {"pipeline": "clean,legalize"}, "a pipeline"),
    ({}, {"keep_kernels": True}, "a pipeline"),
)


@pytest.mark.parametrize(("options", "further", "words"), NOT_COPIED)
def test_inputs_that_are_not_what_was_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], further: dict[str, Any], words: str
) -> None:
    """The fastest compiled model is taken, however fast the input is, and a note says so."""
    check_not_copied(mlp(tmp_path), monkeypatch, options, further, words)


def test_inputs_in_several_files_or_of_other_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mlp(tmp_path)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    check_not_copied(path, monkeypatch, {}, {}, "other files")
    node = helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    check_not_copied(path, monkeypatch, {"target": "portable"}, {}, "com.microsoft")
    assert not onnx_models.not_copied(str(path), find_backend("onnx").PIPELINE, Settings(target="cpu"), OnnxOptions())


def check_not_copied(path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], further: dict[str, Any],
                     words: str) -> None:  # fmt: skip
    timed = graph_tuning._timed

    def slower(*arguments: Any) -> Any:
        """All candidates take ten times as long."""
        tuning = timed(*arguments)
        slow = {name: replace(each, ratio=each.ratio * (1 if name in (INPUT, SAME) else 0.1))
                for name, each in tuning.candidates.items()}  # fmt: skip
        chosen = choose(graph_tuning._allowed(slow, arguments[-1]), 0.01)
        return replace(tuning, candidates=slow, noise=0.01, chosen=chosen)

    monkeypatch.setattr(graph_tuning, "_timed", slower)
    more = {name: value for name, value in further.items() if name != "quantize"}
    onnx_options = OnnxOptions(tune=True, seconds=0.05, quantize=further.get("quantize"))
    report = irc.compile(str(path), output=path.parent / "tuned.onnx", settings=Settings(**options), onnx=onnx_options,
                         **more)  # fmt: skip
    assert report.tuned is not None and report.tuned.chosen not in (INPUT, SAME)
    assert any("is not copied" in note and words in note for note in report.notes), report.notes


def test_a_candidate_without_rewrites_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mlp(tmp_path)
    chosen: list[str] = []

    def pick(candidates: dict[str, Candidate], noise: float) -> str:
        chosen[:] = [name for name in candidates if name.startswith("without ") or name == ALL][-1:]
        return chosen[0]

    monkeypatch.setattr(graph_tuning, "choose", pick)
    report = irc.compile(str(path), output=tmp_path / "tuned.onnx", onnx=OnnxOptions(tune=True, seconds=0.1))
    assert report.tuned is not None and [report.tuned.chosen] == chosen
    assert report.nodes == report.tuned.candidates[chosen[0]].nodes


def test_memory_limits_candidates_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all candidates of this model two differ; those that are the same as another take no memory."""
    path = mlp(tmp_path)
    weights = irc.load(str(path)).weight_bytes
    for limit, reason in ((2, "the same model as all rewrites"), (1, "the candidates would take more than")):
        monkeypatch.setattr(graph_tuning, "MOST_BYTES", limit * weights)
        tuning = irc.compile(str(path), output=tmp_path / "tuned.onnx", onnx=OnnxOptions(tune=True, seconds=0.1)).tuned
        assert tuning is not None and ("without bias" in tuning.candidates) == (limit == 2)
        assert tuning.without["without raise"] == "the same model as all rewrites"
        assert any(text.startswith(reason) for text in tuning.without.values())


def test_each_candidate_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of several rewrites left out together, where a candidate before the last was the same as another."""
    files, whole, timed = list[Path](), graph_tuning._candidate, graph_tuning._timed

    def candidate(*arguments: Any) -> Any:
        compiled = whole(*arguments)
        files.append(compiled.path)
        return compiled

    def faster(*arguments: Any) -> Any:
        tuning = timed(*arguments)
        ratios = {name: replace(each, ratio=2.0 if name.startswith("without ") else 1.0)
                  for name, each in tuning.candidates.items()}  # fmt: skip
        return replace(tuning, candidates=ratios, noise=0.01, chosen=choose(ratios, 0.01))

    monkeypatch.setattr(graph_tuning, "_candidate", candidate)
    monkeypatch.setattr(graph_tuning, "_timed", faster)
    module = irc.trace(lambda x, b: ops.relu(ops.add(ops.matmul(x, const(value=W)), b)), "f32[2, 3, 96]", "f32[64]")
    tuning = irc.compile(module, output=tmp_path / "tuned.onnx", pipeline="flatten_rows,bias,raise,canonicalize",
                         settings=Settings(target="cpu"), onnx=OnnxOptions(tune=True, seconds=0.1)).tuned  # fmt: skip
    assert tuning is not None and tuning.without == {"without raise": "the same model as all rewrites"}
    assert {"no rewrites", "without flatten_rows, bias"} <= set(tuning.candidates)
    assert len(set(files)) == len(files) == 6


def test_a_module_is_tuned_against_what_was_imported(tmp_path: Path) -> None:
    module = irc.load(str(mlp(tmp_path)))
    report = irc.compile(module, output=tmp_path / "tuned.onnx", onnx=OnnxOptions(tune=True, seconds=0.1))
    assert report.tuned is not None and report.tuned.chosen != INPUT


# -- --session-advice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "threads"), [(96, 1), (8192, 0)])
def test_advice_depends_on_the_model(tmp_path: Path, width: int, threads: int) -> None:
    """Large products are shared by threads; memory is planned where shapes are known."""
    mlp(tmp_path, width)
    result = irc_here("compile", "mlp.onnx", "--session-advice", "--dim", "B=64", "-o", "a.onnx", folder=tmp_path)
    assert result.code == 0 and "a.session.json" in result.out
    advice = read_advice(tmp_path / "a.onnx")
    assert advice is not None and not advice.enable_mem_pattern and advice.intra_op_num_threads == threads
    assert advice.opset == max(each.version for each in onnx.load(tmp_path / "a.onnx").opset_import)
    arguments = ["--session-advice", "--specialize", "B=64", "-o", "a.onnx"]
    assert irc_here("compile", "mlp.onnx", *arguments, folder=tmp_path).code == 0
    advice = read_advice(tmp_path / "a.onnx")
    assert advice is not None and advice.enable_mem_pattern
    assert set(advice.reasons) <= {name for name in vars(advice)}


def test_advice_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `session_options`, and by run and bench, to every session."""
    path = mlp(tmp_path)
    advice = SessionAdvice(20, 1, 2, "parallel", "basic", False, False)
    write_advice(advice, path)
    assert read_advice(path) == advice and advice_path(path).name == "mlp.session.json"
    options, sessions = session_options(path), list[Any]()

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: Any, options: Any, **further: Any) -> None:
            sessions.append(options)
            super().__init__(model, options, **further)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    irc.run(str(path), backend="onnx")
    irc.bench(str(path), rounds=2)
    assert len(sessions) == 3
    for each in (options, *sessions):
        assert not each.enable_mem_pattern and not each.enable_cpu_mem_arena
        assert each.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        assert each.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL and each.intra_op_num_threads == 1
    assert session_options().enable_mem_pattern and session_options(path, threads=3).intra_op_num_threads == 3


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": "irc.session/2"}', "\0", '{"schema": "irc.session/1", "sha256": ""}',
     '{"schema": "irc.session/1", "opset": 20}', '{"schema": "irc.session/1", "opset": 20, "sha256": 1}',
     *('{"schema": "irc.session/1", "opset": 20, "sha256": "", ' + option + "}" for option in (
         '"intra_op_num_threads": -1', '"intra_op_num_threads": true', '"intra_op_num_threads": 1e9',
         '"intra_op_num_threads": 60000', '"inter_op_num_threads": 60000',
         '"execution_mode": "fast"', '"graph_optimization_level": 3', '"enable_mem_pattern": 1', '"providers": "CPU"',
         '"threads": 1'))],
)  # fmt: skip
def test_files_that_are_no_advice(tmp_path: Path, content: str) -> None:
    path = mlp(tmp_path)
    advice_path(path).write_text(content)
    with pytest.raises(IrcError) as caught:
        irc.run(str(path), backend="onnx")
    assert caught.value.code == "file.format" and "mlp.session.json" in str(caught.value)
    assert "__init__" not in str(caught.value)


def test_a_provider_that_is_not_installed(tmp_path: Path) -> None:
    path = mlp(tmp_path)
    write_advice(SessionAdvice(20, providers=("NoProvider",)), path)
    with pytest.raises(IrcError) as caught:
        irc.run(str(path), backend="onnx")
    assert caught.value.code == "file.format" and "NoProvider" in str(caught.value)


def test_as_many_threads_as_cores_allow(tmp_path: Path) -> None:
    path = mlp(tmp_path)
    for threads in (sessions.most_threads(), sessions.most_threads() + 1):
        write_advice(SessionAdvice(20, threads), path)
        if threads == sessions.most_threads():
            assert read_advice(path) is not None
    with pytest.raises(IrcError) as caught:
        session_options(path)
    assert caught.value.code == "file.format" and str(threads) in str(caught.value)


def test_advice_for_another_file_is_ignored(tmp_path: Path) -> None:
    """Such as where a model was compiled again without the option."""
    path = mlp(tmp_path)
    arguments = ("compile", "mlp.onnx", "-o", "a.onnx")
    assert irc_here(*arguments, "--session-advice", folder=tmp_path).code == 0
    assert session_options(tmp_path / "a.onnx").intra_op_num_threads == 1
    assert irc_here(*arguments, "--opset", "21", folder=tmp_path).code == 0
    assert read_advice(tmp_path / "a.onnx") is None
    with pytest.warns(UserWarning, match="a.session.json is ignored"):
        assert session_options(tmp_path / "a.onnx").intra_op_num_threads == 0
    for verb in (("run", "a.onnx", "--backend", "onnx"), ("bench", "a.onnx", "--rounds", "2")):
        result = irc_here(*verb, folder=tmp_path)
        assert result.code == 0 and "a.session.json is ignored" in result.err, result
    assert path.is_file()


@pytest.mark.parametrize("folder", ["out.onnx", "out.session.json"])
def test_folders_are_no_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """The error comes before the work."""
    mlp(tmp_path)
    (tmp_path / folder).mkdir()
    monkeypatch.setattr(onnx_models, "run_pipeline", None)
    result = irc_here("compile", "mlp.onnx", "--session-advice", "-o", "out.onnx", folder=tmp_path)
    assert result.code == 2 and "error[file.exists]" in result.err and f"{folder} is a folder" in result.err, result


def test_reports_are_json(tmp_path: Path) -> None:
    mlp(tmp_path)
    arguments = ["--tune", "--tune-seconds", "0.1", "--quantize", "weights=int8", "--session-advice", "--json"]
    result = irc_here("compile", "mlp.onnx", *arguments, "-o", "a.onnx", folder=tmp_path)
    report = json.loads(result.out)
    assert report["tuned"]["chosen"] in report["tuned"]["candidates"] and report["quantized"]["bits"] == 8


def test_forms_are_those_of_the_help() -> None:
    assert set(onnx_models.FORMS) == {"weights=int8", "weights=int4"}
    assert isinstance(irc.OnnxOptions, type) and callable(irc.session_options) and callable(irc.calibrate)




def test_inputs_that_a_model_does_not_run_on(tmp_path: Path) -> None:
    """A reshape that fits no random input: the error is coded, and no file is left."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B"]),
         helper.make_tensor_value_info("s", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["C"])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "r.onnx")
    np.savez(tmp_path / "in.npz", x=np.zeros(3, np.float32), s=np.array([7]))
    arguments = ["--tune", "--tune-seconds", "0.1", "--calibration", "in.npz", "-o", "out.onnx"]
    result = irc_here("compile", "r.onnx", *arguments, folder=tmp_path)
    assert result.code == 3 and "error[backend.failed]" in result.err, result
    assert not (tmp_path / "out.onnx").exists()
    result = irc_here("bench", "r.onnx", "--input", "in.npz", folder=tmp_path)
    assert result.code == 3 and "error[backend.failed]" in result.err, result


def test_candidates_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = graph_tuning._candidate

    def candidate(source: Any, pipeline: str, *others: Any) -> Any:
        if "raise" not in pipeline:
            raise fail("backend.unsupported", "no such operator")
        return whole(source, pipeline, *others)

    monkeypatch.setattr(graph_tuning, "_candidate", candidate)
    options = OnnxOptions(tune=True, seconds=0.1)
    report = irc.compile(str(mlp(tmp_path)), output=tmp_path / "tuned.onnx", onnx=options)
    assert report.tuned is not None and report.tuned.without["without raise"] == "no such operator"
