"""Random numbers drawn in kernels: bits equal to the interpreter's, distributions, seeds, fusion and training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
pytest.importorskip("scipy")

import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

import irc
from irc import interpreter, ops
from irc.backends.triton import compile_artefact, emit
from irc.diagnostics import IrcError
from irc.driver import check
from irc.dtypes import F32, I64
from irc.frontends.torch.tensors import to_array
from irc.group import Group
from irc.kernel.failure import LegalityFailure
from irc.module import Module
from irc.ops import aten
from irc.parser import parse
from irc.passes.random_numbers import DRAWN
from tests import triton_harness as harness

pytestmark = pytest.mark.filterwarnings("ignore")
COUNT = 40_000
SEED = 7


def drawn(program: Callable[..., Any], *inputs: torch.Tensor, draws: int = SEED) -> list[np.ndarray]:
    """What the interpreter draws for a program after the pass."""
    module = irc.opt(irc.from_torch(program, inputs), "random_numbers", backend="triton")
    given = dict(zip((each.name for each in module.main.arguments), map(to_array, inputs), strict=True))
    return list(interpreter.run(module, given, draws=draws).values())


def compiled(program: Callable[..., Any], *inputs: torch.Tensor, pipeline: str = "default") -> Module:
    return irc.opt(irc.from_torch(program, inputs), pipeline, backend="triton")


def empty(count: int = COUNT, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(count, dtype=dtype)


# -- bits ------------------------------------------------------------------------------------------------------


def bits(seed: irc.Value, index: irc.Value) -> tuple[irc.Value, ...]:
    return tuple(ops.philox(seed, index, stream=stream, word=word) for stream in (0, 2**32 - 1) for word in range(4))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("dtype", ["i64", "u64", "i32", "u8"])
def test_kernels_and_host_calls_compute_the_bits_of_the_interpreter(dtype: str, fuse: bool, tmp_path: Path) -> None:
    kind = irc.trace(lambda x: x, f"{dtype}[]").main.arguments[0].dtype.numpy
    ends = np.iinfo(kind)
    index = np.concatenate([np.arange(0, 100, dtype=kind), np.array([ends.min, ends.max, ends.max // 3], kind)])
    for number, seed in enumerate((ends.min, ends.max, 0, 41)):
        run = harness.run(bits, f"{dtype}[]", f"{dtype}[N]", folder=tmp_path / str(number), fuse=fuse,
                          inputs=[np.array(seed, kind), index])  # fmt: skip
        assert len(run.launches) == fuse
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert actual.dtype == np.uint32
            np.testing.assert_array_equal(actual, expected)


def everything(x: torch.Tensor) -> Any:
    y = F.dropout(x, 0.3)
    return (torch.rand_like(x), torch.rand(x.shape, dtype=torch.float64), torch.rand_like(x, dtype=torch.bfloat16),
            torch.randn_like(x), torch.randn(x.shape, dtype=torch.float64), torch.randint(-5, 1000, x.shape),
            torch.bernoulli(torch.sigmoid(x)), y, torch.empty_like(x).exponential_(2.0),
            torch.empty_like(x).geometric_(0.2), torch.empty_like(x).uniform_(2.0, 5.0))  # fmt: skip


def test_artefacts_draw_what_the_interpreter_draws(tmp_path: Path) -> None:
    """All that is made of bits exactly is equal; logarithms and cosines differ by their rounding."""
    x = torch.randn(37, 11)
    module = compiled(everything, x)
    emit(module, tmp_path / "model")
    model = harness.load_artefact(tmp_path / "model").load()
    inputs = {module.main.arguments[0].name: to_array(x)}
    torch.manual_seed(SEED)
    results = [harness.to_numpy(each) for each in model.run(inputs).values()]
    expected = list(interpreter.run(module, inputs, draws=SEED).values())
    for place, (actual, array) in enumerate(zip(results, expected, strict=True)):
        if place in (3, 4, 8, 9):
            np.testing.assert_allclose(actual, array, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(actual, array)


# -- distributions ---------------------------------------------------------------------------------------------

CONTINUOUS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Any]] = {
    "rand": (lambda x: torch.rand_like(x), stats.uniform),
    "uniform": (lambda x: torch.empty_like(x).uniform_(-2.0, 4.0), stats.uniform(-2.0, 6.0)),
    "randn": (lambda x: torch.randn_like(x), stats.norm),
    "normal": (lambda x: torch.normal(x + 3.0, 2.0), stats.norm(3.0, 2.0)),
    "normal of tensors": (lambda x: torch.normal(x + 3.0, x + 0.5), stats.norm(3.0, 0.5)),
    "normal of deviations": (lambda x: torch.normal(1.0, x + 0.5), stats.norm(1.0, 0.5)),
    "normal_": (lambda x: torch.empty_like(x).normal_(-1.0, 3.0), stats.norm(-1.0, 3.0)),
    "exponential": (lambda x: torch.empty_like(x).exponential_(2.0), stats.expon(scale=0.5)),
    "cauchy": (lambda x: torch.empty_like(x).cauchy_(1.0, 2.0), stats.cauchy(1.0, 2.0)),
    "log_normal": (lambda x: torch.empty_like(x).log_normal_(0.5, 0.25), stats.lognorm(0.25, scale=np.exp(0.5))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_numbers_have_their_distribution(name: str, dtype: torch.dtype) -> None:
    program, distribution = CONTINUOUS[name]
    (numbers,) = drawn(program, empty(dtype=dtype))
    assert numbers.dtype == to_array(empty(1, dtype)).dtype and np.isfinite(numbers).all()
    assert stats.kstest(numbers, distribution.cdf).pvalue > 1e-3
    assert len(np.unique(numbers)) > 0.99 * COUNT


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8)], ids=str)
def test_uniform_numbers_of_16_bits_are_below_1(dtype: torch.dtype, digits: int) -> None:
    """And each multiple of the last place is as likely as the others."""
    (numbers,) = drawn(lambda x: torch.rand_like(x), empty(dtype=dtype))
    places = numbers.astype(np.float64) * 2**digits
    assert places.max() == 2**digits - 1 and places.min() == 0 and np.array_equal(places, np.round(places))
    assert stats.chisquare(np.bincount((places // 2 ** (digits - 5)).astype(int), minlength=32)).pvalue > 1e-3


def test_integers_and_events_are_as_likely_as_they_should_be() -> None:
    def program(x: torch.Tensor) -> Any:
        return (torch.randint(3, 10, x.shape), torch.randint_like(x, 5), torch.empty_like(x).geometric_(0.25),
                torch.bernoulli(x + 0.3), torch.empty_like(x).bernoulli_(0.8), F.dropout(x + 1, 0.1),
                torch.randint(-(2**62), 2**62, x.shape))  # fmt: skip

    low, like, trials, some, most, kept, wide = drawn(program, empty())
    assert stats.chisquare(np.bincount(low - 3)).pvalue > 1e-3 and set(low) == set(range(3, 10))
    assert stats.chisquare(np.bincount(like.astype(int))).pvalue > 1e-3 and like.dtype == np.float32
    shares = stats.geom(0.25).pmf(np.arange(1, 11))
    counted = np.bincount(trials.astype(int), minlength=11)[1:11]
    assert stats.chisquare(counted, shares * counted.sum() / shares.sum()).pvalue > 1e-3 and trials.min() == 1
    for numbers, probability in ((some, 0.3), (most, 0.8), (kept != 0, 0.9)):
        assert stats.binomtest(int(numbers.sum()), COUNT, probability).pvalue > 1e-3
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.9)}
    assert stats.kstest(wide.astype(np.float64), stats.uniform(-(2.0**62), 2.0**63).cdf).pvalue > 1e-3


def test_the_ends_of_what_may_be_drawn() -> None:
    """A share of 0 or 1 is certain, an interval is not left by rounding, and no logarithm is of 0."""
    def program(x: torch.Tensor) -> Any:
        return (torch.bernoulli(x), torch.bernoulli(x + 1), torch.empty_like(x).bernoulli_(1.0), F.dropout(x + 1, 1.0),
                torch.empty_like(x).uniform_(1.0, 1.0 + 2**-22), torch.empty_like(x).exponential_())  # fmt: skip

    never, always, certain, none, narrow, waits = drawn(program, empty())
    assert not never.any() and always.all() and certain.all() and not none.any()
    assert set(narrow) == {np.float32(1 + place * 2.0**-23) for place in (0, 1)}
    assert waits.min() > 0


def test_draws_are_independent() -> None:
    def program(x: torch.Tensor) -> Any:
        return torch.rand_like(x), torch.rand_like(x), torch.randn_like(x), torch.randn_like(x)

    numbers = [*drawn(program, empty()), *drawn(program, empty(), draws=SEED + 1)]
    for place, first in enumerate(numbers):
        for second in numbers[place + 1 :]:
            assert stats.pearsonr(first, second).pvalue > 1e-4
        assert stats.pearsonr(first[:-1], first[1:]).pvalue > 1e-4


# -- seeds -----------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A linear layer, GELU, dropout and a residual."""

    def __init__(self, width: int = 32, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, dtype=dtype)
        self.dropout = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(F.gelu(self.linear(x)))


@pytest.mark.parametrize("through", ["irc.compile", "torch.compile"])
def test_a_seed_repeats_the_numbers_of_the_calls_after_it(through: str) -> None:
    layer, x = Layer().train(), torch.randn(16, 32)
    torch._dynamo.reset()
    run = irc.compile(layer, (x,), backend="triton") if through == "irc.compile" else torch.compile(
        layer, backend="irc", options={"backend": "triton"})  # fmt: skip

    def calls() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return [run(x).detach(), run(x).detach(), torch.rand(4)]

    first, second = calls(), calls()
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], first[1])
    with torch.random.fork_rng(devices=()):
        run(x)
    torch.manual_seed(4)
    assert not torch.equal(run(x), first[0])


def test_with_the_option_numbers_are_those_of_eager() -> None:
    layer, x = Layer().train(), torch.randn(16, 32)
    torch._dynamo.reset()
    options = {"backend": "triton", "pipeline": "default{random_numbers.by=host}"}
    run = torch.compile(layer, backend="irc", options=options)
    torch.manual_seed(3)
    expected = layer(x)
    torch.manual_seed(3)
    torch.testing.assert_close(run(x), expected)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_torch_compile_leaves_none_to_pytorch(name: str) -> None:
    programs = {
        "rand": lambda x: torch.rand(x.shape) + x, "randn": lambda x: torch.randn(x.shape) + x,
        "rand_like": lambda x: torch.rand_like(x) + x, "randn_like": lambda x: torch.randn_like(x) + x,
        "uniform": lambda x: torch.empty_like(x).uniform_(2, 3) + x, "native_dropout": lambda x: F.dropout(x, 0.5) + 1,
        "normal.Tensor_Tensor": lambda x: torch.normal(x, x) + 1, "normal.Tensor_float": lambda x: torch.normal(x) + 1,
        "normal.float_Tensor": lambda x: torch.normal(0.0, x) + 1, "cauchy": lambda x: x.clone().cauchy_() + 1,
        "normal_functional": lambda x: x.clone().normal_() + 1, "log_normal": lambda x: x.clone().log_normal_() + 1,
        "exponential": lambda x: x.clone().exponential_() + 1, "geometric": lambda x: x.clone().geometric_(0.5) + 1,
        "bernoulli": lambda x: torch.bernoulli(x) + 1, "bernoulli.p": lambda x: torch.bernoulli(x, 0.5) + 1,
        "bernoulli.Tensor": lambda x: x.clone().bernoulli_(x) + 1, "randint": lambda x: torch.randint(9, x.shape) + x,
        "randint.low": lambda x: torch.randint(2, 9, x.shape) + x,
        "randint_like": lambda x: torch.randint_like(x, 9) + x,
        "randint_like.low_dtype": lambda x: torch.randint_like(x, 2, 9) + x,
    }  # fmt: skip
    torch._dynamo.reset()
    result = torch.compile(programs[name], backend="irc", options={"backend": "triton"})(torch.full((5, 3), 0.5))
    assert result.shape == (5, 3) and result.isfinite().all()
    assert not irc.report().graphs[-1].in_pytorch


@pytest.mark.parametrize(("program", "code"), [
    (lambda x: torch.empty_like(x).bernoulli_(1.5), "backend.failed"),
    (lambda x: torch.empty_like(x).normal_(0.0, -1.0), "torch.export"),
    (lambda x: torch.empty_like(x).exponential_(-1.0), "torch.export"),
    (lambda x: torch.randint(7, 7, x.shape), "torch.export"),
    (lambda x: torch.empty_like(x).uniform_(3.0, 2.0), "backend.failed"),
    (lambda x: torch.empty_like(x).geometric_(0.0), "torch.export"),
    (lambda x: torch.empty_like(x).uniform_(-3e38, 3e38), "backend.failed"),
])  # fmt: skip
def test_arguments_out_of_range_are_left_to_pytorch(program: Callable[..., Any], code: str) -> None:
    """Which raises an error where it traces the program, or when it runs."""
    with pytest.raises(IrcError) as error:
        irc.compile(program, (torch.ones(4),), backend="triton")(torch.ones(4))
    assert error.value.code == code


def test_dropout_outside_of_training_is_no_drawing() -> None:
    text = ('irc text 1\nmodule @m { func @main(%x: f32[4]) -> f32[4] { %y, %mask = extern %x {domain = '
            '"torch.ops.aten", op_type = "native_dropout", version = 1, attributes = {p = 0.5, train = false}} '
            ": f32[4], bool[4]\n"
            "return %y } }\n")  # fmt: skip
    module = irc.opt(parse(text), "random_numbers", backend="triton")
    assert [operation.name for operation in module.main.block] == ["extern", "return"]


# -- fusion ----------------------------------------------------------------------------------------------------


def bits_as_floats(seed: irc.Value, x: irc.Value) -> irc.Value:
    return ops.add(x, ops.cast(ops.philox(seed, ops.iota(shape=x.shape, axis=1, dtype=I64)), to=F32))


def kernels(module: Module) -> list[list[str]]:
    return [[each.name for each in operation.regions[0].block] for operation in module.main.block
            if operation.name == "kernel"]  # fmt: skip


def test_dropout_is_in_the_kernel_of_its_neighbors() -> None:
    """The library's product aside, one kernel: activation, mask, scale and residual; the seed is a host operation."""
    module = compiled(Layer(), torch.randn(64, 32))
    (members,) = kernels(module)
    assert {"gelu", "philox", "less", "add"} <= set(members)
    assert [each.name for each in module.main.block if each.name not in ("const", "transpose", "return")] == [
        "linear", "extern", "kernel"]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropout_joins_a_product_and_norms(dtype: torch.dtype) -> None:
    products = compiled(Layer(dtype=dtype), torch.randn(64, 32, dtype=dtype),
                        pipeline="default{fuse.products=irc}")  # fmt: skip
    (members,) = kernels(products)
    assert {"linear", "gelu", "philox", "less", "add"} <= set(members)
    norm = compiled(lambda x: F.layer_norm(x + F.dropout(x, 0.1), (x.shape[-1],)), torch.randn(8, 32, dtype=dtype))
    (members,) = kernels(norm)
    assert {"philox", "layer_norm"} <= set(members)


def test_no_loop_of_a_product_and_no_window_draws_again() -> None:
    before = compiled(lambda x, w: F.dropout(x, 0.1) @ w, torch.randn(64, 32), torch.randn(32, 48),
                      pipeline="default{fuse.products=irc}")  # fmt: skip
    assert [("philox" in members, "matmul" in members) for members in kernels(before)] == [(True, False), (False, True)]
    window = compiled(lambda x: F.max_pool1d(F.dropout(x, 0.1), 3, 1), torch.randn(2, 3, 20))
    assert [members.count("philox") for members in kernels(window)] == [1, 0]
    for program in (lambda x, y, s: ops.matmul(bits_as_floats(s, x), y),
                    lambda x, y, s: ops.window_reduce(bits_as_floats(s, x), kind="max", window=(1, 3), strides=(1, 1),
                                                      dilations=(1, 1), low=(0, 0), high=(0, 0))):  # fmt: skip
        module = irc.opt(irc.trace(program, "f32[32, 32]", "f32[32, 32]", "i64[]"), "windows", backend="triton")
        failure = Group([each for each in module.main.block if each.name not in ("const", "return")]).kernel
        assert isinstance(failure, LegalityFailure) and failure.rule == "F10" and "drawn again" in failure.message


# -- training --------------------------------------------------------------------------------------------------


def test_the_backward_pass_has_the_mask_of_the_forward_pass() -> None:
    torch._dynamo.reset()
    run = torch.compile(lambda x: F.dropout(x, 0.4), backend="irc", options={"backend": "triton"})
    x = torch.rand(200, 7).add(1).requires_grad_()
    y = run(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, y != 0) and 0.5 < (y != 0).float().mean() < 0.7
    torch.testing.assert_close(x.grad[y != 0], torch.full_like(x.grad[y != 0], 1 / 0.6))
    torch.testing.assert_close(y[y != 0], (x / 0.6)[y != 0])


def test_a_model_with_dropout_learns() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.2), Layer(), nn.Linear(32, 1)).train()
    x = torch.randn(64, 8)
    target = x[:, :1] * x[:, 1:2]
    run = torch.compile(model, backend="irc", options={"backend": "triton"})
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = F.mse_loss(run(x), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    graphs = [graph for graph in irc.report().graphs if graph.kind in ("forward", "backward")][-2:]
    assert [graph.kind for graph in graphs] == ["forward", "backward"] and not any(each.in_pytorch for each in graphs)


# -- all of it -------------------------------------------------------------------------------------------------


def test_check_compares_what_passes_make_of_random_numbers(tmp_path: Path) -> None:
    """Every pass after it draws the same numbers; those of the artefact are others."""
    (tmp_path / "m.irc").write_text(str(irc.from_torch(everything, (torch.randn(4, 6),))))
    report = check(tmp_path / "m.irc", backend="triton", each=True)
    assert report.passed and len(report.random) == 11
    assert all(len(stage.outputs) == 11 for stage in report.stages if stage.stage in ("fuse", "dce"))


@pytest.mark.slow
@pytest.mark.parametrize("products", ["host", "irc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_without_spills(dtype: torch.dtype, products: str, tmp_path: Path) -> None:
    """Products of tiles that are drawn for, rows that fit in registers and those that do not, transpositions."""
    def norms(x: torch.Tensor) -> Any:
        y = F.dropout(x, 0.1)
        return F.layer_norm(y, (x.shape[-1],)), F.dropout(torch.softmax(x, -1), 0.2)

    cases: list[tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = [
        (Layer(768, dtype), (torch.randn(rows, 768, dtype=dtype),)) for rows in (64, 4096)]  # fmt: skip
    cases += [(norms, (torch.randn(64, columns, dtype=dtype),)) for columns in (768, 8192, 16384, 100_000)]
    cases += [(lambda x, b: F.dropout(x, 0.1).mT.contiguous() + b, (torch.randn(512, 768, dtype=dtype),
                                                                   torch.randn(512, dtype=dtype))),
              (everything, (torch.randn(64, 768),)),
              (lambda q, k, v: F.dropout(F.scaled_dot_product_attention(q, k, v), 0.1),
               tuple(torch.randn(2, 4, 256, 128, dtype=dtype) for _ in range(3)))]  # fmt: skip
    for number, (program, inputs) in enumerate(cases):
        emit(compiled(program, *inputs, pipeline=f"default{{fuse.products={products}}}"), tmp_path / str(number))
        for resources in compile_artefact(tmp_path / str(number), ("sm_80", "sm_90", "sm_100", "gfx942")):
            assert not resources.error and resources.fits, resources
            assert resources.spilled_bytes == resources.spilled_scalars == 0, resources


def test_the_rows_are_of_random_operators() -> None:
    assert set(aten.RANDOM) >= DRAWN
