"""The fuzzer: two hundred of its programs, the same ones each time, and the fuzzer itself.

On every path the programs give what the oracle gives.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

pytest.importorskip("triton")

from irc import interpreter
from tests.fuzz import __main__ as command
from tests.fuzz.features import ALL, chosen
from tests.fuzz.judging import CERTAIN, SAMPLES, Truth, perturbed
from tests.fuzz.onnx_graph import Graph
from tests.fuzz.onnx_steps import OnnxSteps
from tests.fuzz.running import KINDS, Job, Result, commands, program_of, run_all, run_job
from tests.fuzz.steps import Argument, Reject
from tests.fuzz.torch_paths import torch_outcomes
from tests.fuzz.torch_programs import TorchProgram
from tests.fuzz.torch_source import Kind, Source
from tests.fuzz.torch_steps import TorchSteps
from tests.oracles import from_torch

SEED = 12
PROGRAMS = {"onnx": 120, "torch": 30}  # PyTorch's export takes most of the time
BATCH = 10


@pytest.mark.parametrize(
    ("kind", "start"), [(kind, start) for kind, count in PROGRAMS.items() for start in range(0, count, BATCH)]
)
def test_programs_agree_on_every_path(kind: str, start: int) -> None:
    failures = []
    for index in range(start, start + BATCH):
        job = Job(kind, SEED, index, chosen("default"))
        result = run_job(job)
        failures += [*map(str, result.failures), *(commands(result) if result.failures else [])]
    assert not failures, "\n".join(failures)


# -- the fuzzer itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_is_the_same_each_time(kind: str) -> None:
    first, second = (program_of(Job(kind, 5, 2, ALL)) for _ in range(2))
    assert first.text == second.text and first.text != program_of(Job(kind, 5, 3, ALL)).text
    assert [list(references) for references in first.truths] == [list(references) for references in second.truths]


def test_features_are_chosen_by_name() -> None:
    assert chosen("all") == ALL and chosen("-products") == chosen("default") - {"products"}
    assert chosen("products, quantization") == {"products", "quantization"}
    with pytest.raises(ValueError, match="no feature 'nonsense'"):
        chosen("nonsense")


@pytest.mark.parametrize(
    ("value", "actual", "said"),
    [
        (np.float32([1, 2]), np.float64([1, 2]), "dtype float64, expected float32"),
        (np.float32([1, 2]), np.float32([[1, 2]]), "shape (1, 2), expected (2,)"),
        (np.float32([1, np.nan]), np.float32([1, 2]), "1 of 2 elements differ, the first at [1]: 2.0, expected nan"),
        (np.float32([1, np.inf]), np.float32([1, 3e38]), "expected inf"),
        (np.float32([1, 2]), np.float32([1, 2.00001]), "the first at [1]"),
        (np.int64([7]), np.int64([8]), "8, expected 7"),
    ],
)
def test_differences_are_seen(value: np.ndarray, actual: np.ndarray, said: str) -> None:
    assert said in str(Truth.of(value, [value, value]).difference(actual))
    assert Truth.of(value, [value]).difference(value) is None


def test_what_rounding_decides_is_not_compared() -> None:
    reference = Truth.of(np.float32([1, 2, 3]), [np.float32([1, 2.1, np.nan])])
    assert reference.undecided.tolist() == [False, False, True]
    assert reference.difference(np.float32([1, 2.5, 0])) is None
    assert reference.difference(np.float32([1.1, 2, 3])) is not None
    assert Truth.of(np.int64([1]), [np.int64([2])]).difference(np.int64([9])) is None
    assert Truth.of(np.int64([1]), [np.int64([1, 1])]).difference(np.int64([])) is None  # a shape, too


def judged_node(op_type: str, array: np.ndarray, **attributes: Any) -> Truth:
    """The judgment of one node of an array."""
    graph = Graph(17, 1)
    x = graph.input(Argument(list(array.shape), [array]))
    y = graph.one(op_type, x, **attributes)
    return Truth.of(y.arrays[0], [run[0] for run in graph.samples(0, [y], SAMPLES)])


def judged_line(expression: str, tensor: torch.Tensor, kind: Kind) -> Truth:
    """The judgment of one line of PyTorch of a tensor."""
    source = Source(1)
    x = source.input(Argument(list(tensor.shape), [tensor.numpy()]), False)
    y = source.one(expression.format(x=x.name), kind)
    lines = source.live([y.name])
    value = source.spaces[0][y.name].numpy()
    return Truth.of(value, [run[0] for run in source.samples(0, lines, [y.name], SAMPLES)])


@pytest.mark.parametrize("huge", [[3e38, 4.0, 0.0, 2.0], [2.0**70, 2.0**70, 2.0**-80, 1.0]])
def test_what_overflows_by_the_order_of_a_product_is_not_compared(huge: list[float]) -> None:
    rows = np.float32([huge, huge[::-1], [1.0, 2.0, 3.0, 4.0], [np.inf, 1.0, 1.0, 1.0], [3e38, 3e38, 1.0, 1.0]])
    for reference in (judged_node("ReduceProd", rows, axes=[1], keepdims=0),
                      judged_line("{x}.prod(1)", torch.tensor(rows), "accumulated")):  # fmt: skip
        assert reference.undecided.tolist() == [True, True, False, False, False]


def test_exponentials_less_1_have_an_absolute_error_below_0_alone() -> None:
    x = np.float32([-1e-3, 1e-3, -2.0, 2.0])
    for op_type in ("Elu", "Selu", "Celu"):
        slack = judged_node(op_type, x).slack
        assert 2.0**-26 < slack[0] < 2.0**-21 and 2.0**-26 < slack[2] < 2.0**-20
        assert slack[1] < 2.0**-30, "there it is a product"
    exact, rounded = np.float32(np.expm1(np.float64(x[0]))), np.exp(x[0]) - np.float32(1)
    assert exact != rounded and judged_node("Elu", x[:1]).difference(np.float32([rounded])) is None


def test_an_exponential_less_1_may_be_0() -> None:
    """Of numbers so near to 0 that exp(x) is rounded to 1: `bool(selu(x))` is decided by rounding."""
    x = np.float32([-2e-10, -1e-3, 2e-10])
    runs = [perturbed(x, np.random.default_rng(seed), absolute=x < 0) for seed in range(CERTAIN)]
    assert Truth.of(x != 0, [run != 0 for run in runs]).undecided.tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_subnormal_numbers_are_rounded_in_steps_of_the_least(dtype: str) -> None:
    """The rounding of 0.75 times the least number changes it by a third: x / x.sum() of one x is 0.75 in a kernel that
    rounds the sum alone."""
    least = ml_dtypes.finfo(dtype).smallest_subnormal  # type: ignore[no-untyped-call]
    x = np.array([least, -40 * least, 0, 1.1], dtype)
    runs = [perturbed(x, np.random.default_rng(seed)) for seed in range(CERTAIN)]
    slack = Truth.of(x, runs).slack / float(least)
    assert (slack[:2] >= 1).all() and (slack[:2] <= 3).all() and slack[2] == 0
    assert slack[3] * float(least) <= 4 * 1.1 * float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def test_sizes_that_pytorch_does_not_export_are_left_out() -> None:
    """A dim that is squeezed is exported for sizes of 2 or more."""

    class Squeezes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.squeeze(0) * 2

    feeds = [[torch.ones(3, 4)], [torch.ones(1, 4)]]
    program = TorchProgram("squeezes", "", [{0: "B"}], feeds, 1)
    dim = torch.export.Dim("B", min=0, max=64)
    program.__dict__ |= {"module": Squeezes(), "dynamic_shapes": ({0: dim},)}
    program.truths = [{"result 0": Truth.of(y, [y]), "input x0": Truth.of(x.numpy(), [x.numpy()])}
                      for (x,) in feeds for y in [Squeezes()(x).numpy()]]  # fmt: skip
    assert torch_outcomes(program) == [] and len(program.feeds) == 1


def test_a_value_may_be_another_to_each_of_its_readers() -> None:
    """Kernels compute a product again; ONNX Runtime holds an f16 as f32 for one reader and rounds it for another."""
    graph = Graph(17, 1)
    x = graph.input(Argument([2, 2], [np.float32([[1.1, 2.3], [0.7, 3.9]])]))
    product = graph.one("MatMul", x, x)
    half = graph.one("LogSoftmax", graph.input(Argument([3], [np.float16([0.3, 0.1, 0.7])])))
    pairs = [(graph.one("Abs", value), graph.one("Identity", value)) for value in (product, x)]
    pairs += [(graph.one("Min", half, half), graph.one("Identity", half))]
    differences = [graph.one("Sub", *pair) for pair in pairs]
    runs = graph.samples(0, differences, SAMPLES)
    slack = [Truth.of(value.arrays[0], [run[place] for run in runs]).slack.max()
             for place, value in enumerate(differences)]  # fmt: skip
    assert 0 < slack[0] < 2.0**-18 and slack[1] == 0 and 0 < slack[2] < 2.0**-9


def test_what_16_bits_round_first_is_not_compared_as_whole() -> None:
    """f16 and bf16 are promoted to bf16, whose sum is just between two numbers, rounded to a whole one."""
    source = Source(1)
    given = torch.tensor([-0.6640625], dtype=torch.bfloat16), torch.tensor(2.33203125, dtype=torch.float16)
    x, y = (source.input(Argument(list(tensor.shape), [from_torch(tensor)]), False) for tensor in given)
    total = source.one(f"torch.add({x}, {y}, alpha=2)", "rounded")
    name = source.one(f"{total}.double()").name
    runs = source.samples(0, source.live([name]), [name], SAMPLES)
    judged = Truth.of(source.spaces[0][name].numpy(), [run[0] for run in runs])
    assert judged.value == 4 and judged.slack == 2**-7


def test_a_fraction_is_of_two_readers_of_a_value() -> None:
    """Of x - trunc(x) one may read x as it was before a kernel stored it."""
    slack = judged_line("{x}.frac()", torch.tensor([1e30, 1.25, 3.0]), "rounded").slack
    assert slack[0] > 1e22 and slack[1] < 1e-6 and slack[2] == 0


@pytest.mark.parametrize(("op_type", "undecided"), [("Conv", [True, False]),
                                                    ("ConvTranspose", [False, True, False, False])])  # fmt: skip
def test_what_overflows_before_it_is_added_to_an_infinity_is_not_compared(op_type: str, undecided: list[bool]) -> None:
    """3e38 * -1.5 is -inf, and NaN beside inf, where it is rounded before the sum; there are no kernels of f64."""
    graph = Graph(17, 1)
    x = graph.input(Argument([1, 1, 3], [np.float32([[[3e38, -np.inf, 1.0]]])]))
    y = graph.one(op_type, x, graph.const(np.float32([[[-1.5, -3.0]]])))
    reference = Truth.of(y.arrays[0], [run[0] for run in graph.samples(0, [y], SAMPLES)])
    assert reference.undecided.ravel().tolist() == undecided


def test_the_sign_of_a_product_that_is_0_is_not_compared() -> None:
    graph, source = Graph(17, 1), Source(1)
    given = Argument([1, 1, 2], [np.float32([[[1.0, 2.0]]])])
    x, y = graph.input(given), source.input(given, False)
    weight = graph.const(np.float32([[[-2.0]]]))
    product = graph.one("Conv", x, weight, pads=[1, 0])
    inverse = graph.one("Reciprocal", product)
    runs = graph.samples(0, [product, inverse], SAMPLES)
    truths = [Truth.of(value.arrays[0], [run[place] for run in runs]) for place, value in enumerate((product, inverse))]
    product = source.one(f"F.conv1d({y}, torch.tensor([[[-2.0]]]), padding=1)", "accumulated")
    inverse = source.one(f"1 / {product}", "rounded")
    names = [product.name, inverse.name]
    runs = source.samples(0, source.live(names), names, SAMPLES)
    truths += [Truth.of(source.spaces[0][name].numpy(), [run[place] for run in runs])
               for place, name in enumerate(names)]  # fmt: skip
    assert [reference.undecided.ravel().tolist() for reference in truths] == [
        [False] * 3, [True, False, False], [False] * 4, [True, False, False, True],
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["torch.relu({x})", "{x}.clamp(min=0)", "torch.maximum({x}, {x} * -1)", "{x}.relu_()"])
def test_the_sign_of_a_zero_that_is_limited_by_zero_is_not_compared(text: str) -> None:
    """Eager PyTorch keeps it on a CPU, and GPUs have 0 as the larger; that of a number below 0 is known."""
    x = torch.tensor([-0.0, -2.0, 2.0])
    source = Source(1)
    argument = source.input(Argument([3], [x.numpy()]), False)
    result = source.one(f"{argument}.clone()")
    if text.endswith("_()"):
        source.change(text.format(x=result), result)
    else:
        result = source.one(text.format(x=result))
    name = source.one(f"{result}.view(torch.int32)").name
    runs = source.samples(0, source.live([name]), [name], SAMPLES)
    judged = Truth.of(source.spaces[0][name].numpy(), [run[0] for run in runs])
    assert judged.undecided.tolist() == [True, False, False]


def test_the_larger_of_zeros_is_either_in_onnx() -> None:
    graph = Graph(17, 1)
    x = graph.input(Argument([3], [np.float32([-0.0, -2.0, 2.0])]))
    inverse = graph.one("Reciprocal", graph.one("Relu", x))
    judged = Truth.of(inverse.arrays[0], [run[0] for run in graph.samples(0, [inverse], SAMPLES)])
    assert judged.undecided.tolist() == [True, False, False]


def test_no_empty_axis_is_summed_by_einsum() -> None:
    """ONNX Runtime divides by its extent."""
    shapes = {(3, 0): set(), (0, 3): set()}
    for shape, equations in shapes.items():
        for seed in range(40):
            graph = Graph(17, 1)
            x = graph.input(Argument([*shape], [np.zeros(shape, np.float32)]))
            steps = OnnxSteps(graph, random.Random(seed), [x], ALL)
            with suppress(Reject):
                steps.einsum()
            equations |= {helper.get_node_attr_value(node.proto, "equation") for node in graph.nodes}
    assert shapes[0, 3] - shapes[3, 0] == {b"ij,kj->ik"} and shapes[3, 0]


def test_a_limit_of_0_has_an_absolute_error() -> None:
    x = np.float32([-32.75, 0.0, -np.inf, -2.0])
    for op_type, exact in (("Sigmoid", np.float32(6e-15)), ("Softplus", np.float32(6e-15))):
        reference = judged_node(op_type, x)
        actual = reference.value.copy()
        actual[0] = exact
        assert reference.difference(actual) is None and not reference.undecided.any()
        actual[2] = exact
        assert "[2]" in str(reference.difference(actual)), "of -inf it is exact"


def test_a_limit_of_0_is_one_in_a_loop() -> None:
    """ONNX Runtime's Sigmoid of f64 gives 0 for -37, also in a Loop's body."""
    state = helper.make_tensor_value_info("state", onnx.TensorProto.DOUBLE, None)
    go, on = (helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("go", "on"))
    i = helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    last = helper.make_tensor_value_info("last", onnx.TensorProto.DOUBLE, None)
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sigmoid", ["state"], ["last"])]
    graph = Graph(17, 1)
    x = graph.input(Argument([1], [np.array([-57.0])]))
    y, = graph.node("Loop", [graph.const(np.array(1)), graph.const(np.array(True)), x],
                    body=helper.make_graph(nodes, "body", [i, go, state], [on, last]))  # fmt: skip
    assert y.arrays[0] == 0.0
    reference = Truth.of(y.arrays[0], [run[0] for run in graph.samples(0, [y], SAMPLES)])
    assert reference.difference(1 / (1 + np.exp([57.0]))) is None
    assert reference.difference(np.array([1e-9])) is not None


@pytest.mark.parametrize("number", [3, 2**11, 2**27, 2**53], ids=str)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_powers_of_integers_beyond_their_range_are_not_made(number: int, dtype: type) -> None:
    """ONNX Runtime computes them in f64, and converts what is out of range as the processor does."""
    if number > np.iinfo(dtype).max:
        pytest.skip("no such number")
    powers = set()
    for seed in range(40):
        graph = Graph(17, 1)
        given = graph.input(Argument([1], [np.array([-number], dtype)]))
        with suppress(Reject):
            OnnxSteps(graph, random.Random(seed), [given], ALL).power()
        powers |= {int(graph.constants[node.operands[1]]) for node in graph.nodes}
    limit = 2 ** (31 if dtype is np.int32 else 53)
    assert powers == {exponent for exponent in range(4) if exponent == 0 or number**exponent < limit}


def test_infinities_are_not_quantized_dynamically() -> None:
    given = Argument([3], [np.float32([1.0, -np.inf, 2.0])])
    for finite in (True, False):
        array = np.nan_to_num(given.arrays[0], neginf=0.0) if finite else given.arrays[0]
        op_types = set()
        for seed in range(60):
            graph = Graph(17, 1)
            steps = OnnxSteps(graph, random.Random(seed), [graph.input(given._replace(arrays=[array]))], ALL)
            with suppress(Reject):
                steps.quantize()
            op_types |= {node.proto.op_type for node in graph.nodes}
        assert ("DynamicQuantizeLinear" in op_types) is finite and "QuantizeLinear" in op_types


def test_a_mistake_is_found_saved_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = interpreter.run
    monkeypatch.setattr(interpreter, "run", lambda *args, **named: {
        name: array + 1 if array.dtype.kind == "f" else array for name, array in wrong(*args, **named).items()
    })  # fmt: skip
    for kind, source in (("onnx", "model.onnx"), ("torch", "program.py")):
        # The first program with a float among its results.
        index = next(number for number in range(20) if run_job(Job(kind, SEED, number, chosen("default"))).failures)
        arguments = ["--kind", kind, "--seed", str(SEED), "--only", str(index)]
        assert command.main([*arguments, "--save", str(tmp_path), "--print"]) == 1
        said = capsys.readouterr().out
        assert "interpreter, inputs 0: difference: " in said and "1 programs, 1 failed" in said
        assert f"python -m tests.fuzz --kind {kind} --seed {SEED} --only {index}" in said
        folder = tmp_path / f"{kind}-{SEED}-{index}"
        assert (folder / source).is_file() and (folder / "inputs.0.npz").is_file()
        assert f"irc reduce {folder}/{source}" in (folder / "report").read_text()
    monkeypatch.undo()
    assert command.main(arguments) == 0


def fate(job: Job, folder: Path | None) -> Result:
    """A job in which the process does what the kind says."""
    if job.kind == "ends":
        os._exit(3)
    if job.kind == "sleeps":
        time.sleep(60)
    if job.kind == "raises":
        raise KeyError("mine")
    return Result(job, ())


def test_what_a_process_dies_of_is_a_failure_of_its_program() -> None:
    jobs = [Job(kind, 0, 0, ALL) for kind in ("ends", "returns", "raises", "sleeps")]
    results = list(run_all(iter(jobs), 1, run=fate, longest=3.0))
    assert [result.job.kind for result in results] == [job.kind for job in jobs]
    said = [" ".join(map(str, result.failures)) for result in results]
    assert said[0] == "process: crash: the process ended with 3" and "KeyError: 'mine'" in said[2]
    assert said[3] == "process: crash: not finished after 3 seconds" and said[1] == ""


@pytest.mark.parametrize(("number", "texts"), [
    (1.0, {"F.gelu(x0)", "x0.sinh()"}), (np.inf, {"x0.sinh()"}), (3e38, set()), (88.8, {"F.gelu(x0)"}),
])  # fmt: skip
def test_what_eager_decides_by_the_number_of_elements_is_not_made(number: float, texts: set[str]) -> None:
    """Its vector kernels of gelu and sinh give other results for the largest numbers than its scalar ones."""
    source = Source(1)
    given = source.input(Argument([1], [np.float32([number])]), False)
    for seed in range(600):
        with suppress(Reject):
            TorchSteps(source, random.Random(seed), [given], ALL).unary()
    lines = "".join(line.text for line in source.lines)
    assert {text for text in ("F.gelu(x0)", "x0.sinh()") if text in lines} == texts


def test_elements_that_a_runtime_changes_are_not_compared() -> None:
    reference = Truth.of(np.array([1.0, 2.0, np.nan], np.float32), [])
    left = reference.without(np.array([1.0, 5.0, np.nan], np.float32))
    assert left.difference(np.array([1.0, 7.0, np.nan], np.float32)) is None
    assert left.difference(np.array([3.0, 5.0, np.nan], np.float32)) is not None
    assert reference.without(np.zeros(2, np.float32)).difference(np.array([3.0, 7.0, 0.0], np.float32)) is None
