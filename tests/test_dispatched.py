"""Launches, calls and bytes that irc reports are those of what it emits, counted from outside as it runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import irc
from irc.backends.triton.dispatches import distinct_bytes
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from irc.parser import parse
from tests.benchmarks.dispatched import DTYPES, compared, emitted, figures, is_worse, model, reported
from tests.dispatching import moved
from tests.onnx_models import imported

pytest.importorskip("triton")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["encoder_masked", "decoder_fused", "segformer"])
def test_reported_figures_are_those_dispatched(name: str, dtype: str) -> None:
    """`python -m tests.benchmarks.dispatched` has all blocks and architectures."""
    module, inputs = model(name, DTYPES[dtype])
    rows = list(compared(torch.export.export(module, inputs), inputs, name, dtype))
    for row in rows:
        assert row.reported == row.dispatched, row
    assert not is_worse(rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_libraries(dtype: str) -> None:
    """A block of BERT: products with their biases in one call, attention whole, nothing converted or copied."""
    module, inputs = model("encoder", DTYPES[dtype])
    report = irc.kernels(irc.from_torch(torch.export.export(module, inputs)))
    assert report.label == "counted" and report.host_operations == 0
    dispatched = [name for call in report.calls for name in call.dispatched]
    assert set(dispatched) == {"addmm", "scaled_dot_product_attention"} and len(dispatched) == report.library_calls


LOOP = """irc text 1
module @loop {
  func @main(%x: f32[4]) -> f32[4] {
    %n = const 10 : i64[]
    %y = loop %n, _, %x : f32[4] {
      (%i: i64[], %go: bool[], %a: f32[4])
      %b = exp %a : f32[4]
      yield %go, %b
    }
    return %y
  }
}
"""
CALLS = """irc text 1
module @calls {
  func @main(%x: f32[4, 4]) -> f32[4, 4] {
    %0 = call @twice %x : f32[4, 4]
    %y = call @twice %0 : f32[4, 4]
    return %y
  }
  func @twice(%x: f32[4, 4]) -> f32[4, 4] {
    %0 = matmul %x, %x : f32[4, 4]
    %y = exp %0 : f32[4, 4]
    return %y
  }
}
"""
BRANCHES = """irc text 1
module @branches {
  func @main(%x: f32[4], %c: bool[]) -> f32[4] {
    %y = if %c : f32[4] {
      %a = exp %x : f32[4]
      yield %a
    } else {
      %b = sin %x : f32[4]
      yield %b
    }
    return %y
  }
}
"""


@pytest.mark.parametrize("text, launches", [(LOOP, 10), (CALLS, 2)], ids=["loop", "calls"])
def test_rounds_and_calls_are_counted(text: str, launches: int) -> None:
    compiled = irc.opt(parse(text), find_backend("triton").PIPELINE)
    inputs = [torch.zeros([int(extent) for extent in x.shape]) for x in compiled.main.arguments]
    assert reported(compiled) == figures(emitted(compiled, inputs))
    report = irc.kernels(compiled)
    assert report.launches == launches and [each.launches for each in report.kernels] == [launches]


@pytest.mark.parametrize("without_torch", [False, True])
def test_the_first_branch_is_counted(without_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without_torch:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = irc.kernels(parse(BRANCHES))
    assert report.label == ("estimated" if without_torch else "counted")
    assert (report.launches, report.distinct_bytes) == (1, 32)


def test_a_trip_count_that_is_data_is_one_round() -> None:
    text = LOOP.replace("    %n = const 10 : i64[]\n", "").replace("(%x: f32[4])", "(%x: f32[4], %n: i64[])")
    assert irc.kernels(parse(text)).launches == 1


def test_a_loop_of_very_many_rounds_does_not_run() -> None:
    report = irc.kernels(parse(LOOP.replace("const 10 ", "const 1000000000000 ")))
    assert report.label == "estimated" and report.not_counted == "a loop of 1000000000000 rounds is not run to count"


def test_a_loop_that_a_condition_ends_is_counted_whatever_its_trip_count() -> None:
    """ONNX writes the largest i64 where there is no limit."""
    text = LOOP.replace("const 10 ", "const 9223372036854775807 ").replace("loop %n, _", "loop %n, %t")
    text = text.replace("(%x: f32[4])", "(%x: f32[4], %t: bool[])")
    report = irc.kernels(parse(text))
    assert (report.label, report.launches) == ("counted", 1)


def test_a_loop_whose_condition_is_always_true_is_counted_by_its_trip_count() -> None:
    text = LOOP.replace("    %n = ", "    %t = const true : bool[]\n    %n = ").replace("loop %n, _", "loop %n, %t")
    for yielded in ("yield %go", "yield %t"):
        report = irc.kernels(parse(text.replace("yield %go", yielded)))
        assert (report.label, report.launches) == ("counted", 10)


def test_functions_are_part_of_the_share() -> None:
    report = irc.kernels(parse(CALLS))
    assert report.share_in_kernels == 0.5 and report.share_without_library == 1


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 2, "padding": 1, "output_padding": 1}])
def test_a_transposed_convolution_is_one_call(options: dict[str, int]) -> None:
    module, x = torch.nn.ConvTranspose2d(4, 6, 3, **options), torch.randn(1, 4, 5, 5)
    report = irc.kernels(irc.from_torch(module, (x,)))
    assert (report.launches, report.library_calls, report.host_operations) == (0, 1, 0)
    assert report.distinct_bytes == 4 * (x.numel() + module(x).numel() + sum(w.numel() for w in module.parameters()))


# Programs whose results are copied, and what one run of each comes to: launches, other operations.
HEAD = "irc text 1\nmodule @m {\n  func @main"
RESULTS = {
    "an argument": ("(%x: f32[4, 6]) -> f32[4, 6] {\n    return %x\n  }\n}\n", (0, 1)),
    "a result twice": ("(%x: f32[4, 6]) -> (f32[4, 6], f32[4, 6], f32[4, 6]) {\n    %y = exp %x : f32[4, 6]\n"
                       "    return %y, %y, %x\n  }\n}\n", (1, 2)),
    "a constant": ("(%x: f32[4]) -> (f32[4], f32[2]) {\n    %y = exp %x : f32[4]\n"
                   "    %c = const [1.0, 2.0] : f32[2]\n    return %y, %c\n  }\n}\n", (1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_copies_of_results_are_counted(name: str) -> None:
    text, (launches, others) = RESULTS[name]
    module = irc.opt(parse(HEAD + text), "fuse")
    inputs = [torch.randn(tuple(map(int, argument.shape))) for argument in module.main.arguments]
    seen = figures(emitted(module, inputs))
    assert reported(module) == seen and seen[:3] == (launches, 0, others)


class Updating(torch.nn.Module):
    """A cache that is written in place."""

    def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        cache[:, 2:3] = x * 2
        cache.add_(1)
        return cache.mean(1)


def test_programs_that_update_inputs() -> None:
    inputs = (torch.randn(2, 8, 4), torch.randn(2, 1, 4))
    rows = list(compared(torch.export.export(Updating(), inputs), inputs, "updating", "f32"))
    assert all(row.agrees for row in rows), rows
    assert not is_worse(rows)


def test_programs_of_unknown_rank_are_estimated() -> None:
    module = irc.opt(irc.trace(lambda x: irc.ops.exp(irc.ops.neg(x)), "f32[*]"), find_backend("triton").PIPELINE)
    operations, not_counted = find_backend("triton").device_operations(module, {})
    assert operations and not_counted == "the rank of %x is not known"


def test_externs_of_types_that_pytorch_has_not(tmp_path: Path) -> None:
    graph = "(float[N] x) => (float[N] y) { h = Cast<to = 24, round_mode = \"up\">(x) y = Cast<to = 1>(h) }"
    with pytest.raises(IrcError, match="PyTorch has no f8e8m0") as caught:
        irc.compile(imported(graph, 24), backend="triton", output=tmp_path / "out")
    assert caught.value.code == "backend.unsupported" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(40))
def test_bytes_of_views_are_those_of_distinct_elements(seed: int) -> None:
    """Of slices, transposes, windows and repetitions of two tensors, as an outside count of addresses has it."""
    generator = random.Random(seed)
    base = [torch.empty(generator.randint(1, 9), 6, 4, device="meta") for _ in range(2)]
    views: list[torch.Tensor] = []
    for _ in range(generator.randint(1, 4)):
        view = generator.choice(base)
        for _ in range(generator.randint(0, 3)):
            axis = generator.randrange(view.dim())
            start = generator.randint(0, view.shape[axis])
            length = generator.randint(0, view.shape[axis] - start)
            view = generator.choice([
                view.transpose(0, axis), view.narrow(axis, start, length), view.unsqueeze(axis).expand(2, *[-1] * 3)
                if view.dim() == 3 and not axis else view, view.unfold(axis, min(2, view.shape[axis]), 1),
                view[..., ::2], view.select(axis, 0) if view.dim() > 2 and view.shape[axis] else view,
            ])  # fmt: skip
        views.append(view)
    assert distinct_bytes(views) == moved(views)
