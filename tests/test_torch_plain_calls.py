"""Calls that take the short way (irc.driver.plain_calls), with the results and errors of the general way."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.export import Dim

from irc.diagnostics import IrcError
from irc.driver.callables import CompiledProgram, compile_program
from irc.driver.onnx_binding import SHAPES_KEPT, BoundProgram


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x).relu(), x.sum(0) - y


@pytest.fixture(scope="module")
def program() -> tuple[nn.Module, CompiledProgram]:
    torch.manual_seed(0)
    module = Two().eval()
    shapes = {"x": {0: Dim("B", min=0, max=100)}, "y": None}
    return module, compile_program(module, (torch.randn(4, 5), torch.randn(5)), "onnx", dynamic_shapes=shapes)


def takes(compiled: CompiledProgram, *tensors: Any) -> bool:
    """Whether the short way takes these arguments."""
    assert compiled._latest.plain is not None
    return compiled._latest.plain(tensors) is not NotImplemented


def assert_as_eager(module: nn.Module, compiled: CompiledProgram, *tensors: Any) -> None:
    expected, actual = module(*tensors), compiled(*tensors)
    assert type(expected) is type(actual)
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(other, one.detach(), rtol=1e-5, atol=1e-5)
        assert other.is_contiguous() and not other.requires_grad


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100])
def test_sizes(program: tuple[nn.Module, CompiledProgram], rows: int) -> None:
    tensors = torch.randn(rows, 5), torch.randn(5)
    assert takes(program[1], *tensors)
    for _ in range(2):
        assert_as_eager(*program, *tensors)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: x.repeat(2, 1)[::2],
        lambda x: torch._neg_view(x),
        lambda x: x[:1].expand(4, 5),
    ],
    ids=["transposed", "strided", "negated", "expanded"],
)
def test_what_is_left_to_the_general_way(program: tuple[nn.Module, CompiledProgram], make: Any) -> None:
    tensors = make(torch.randn(4, 5)), torch.randn(5)
    assert not takes(program[1], *tensors)
    assert_as_eager(*program, *tensors)


def test_gradients_are_not_asked_for(program: tuple[nn.Module, CompiledProgram]) -> None:
    for x in (torch.randn(4, 5, requires_grad=True), nn.Parameter(torch.randn(4, 5))):
        assert takes(program[1], x, torch.randn(5))
        assert_as_eager(*program, x, torch.randn(5))


@pytest.mark.parametrize(
    "tensors, code",
    [
        ((torch.randn(4, 5),), "run.input_missing"),
        ((torch.randn(4, 6), torch.randn(5)), "run.input_shape"),
        ((torch.randn(101, 5), torch.randn(5)), "run.dim_range"),
        ((torch.randn(4, 5).double(), torch.randn(5)), "run.input_dtype"),
        ((torch.randn(4, 5), None), "run.input_dtype"),
        ((torch.randn(4, 5), torch.randn(5).to_sparse()), "torch.tensor"),
        ((torch.randn(4, 5), torch.randn(5, device="meta")), "torch.tensor"),
    ],
)
def test_mistakes_have_the_same_errors(program: tuple[nn.Module, CompiledProgram], tensors: Any, code: str) -> None:
    program[1](torch.randn(4, 5), torch.randn(5))
    with pytest.raises(IrcError) as error:
        program[1](*tensors)
    assert error.value.code == code


def test_results_are_not_written_to_by_the_next_call(program: tuple[nn.Module, CompiledProgram]) -> None:
    x, y = torch.randn(4, 5), torch.randn(5)
    first = program[1](x, y)
    kept = [each.clone() for each in first]
    x.add_(1)
    second = program[1](x, y)
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))
    assert not torch.equal(first[1], second[1])
    assert_as_eager(*program, x, y)  # memory that is bound was written to since


def test_threads(program: tuple[nn.Module, CompiledProgram]) -> None:
    module, compiled = program
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        try:
            for rows in range(40):
                assert_as_eager(module, compiled, torch.randn(rows, 5, generator=generator), torch.ones(5))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_few_shapes_are_kept(program: tuple[nn.Module, CompiledProgram]) -> None:
    for rows in range(SHAPES_KEPT + 9):
        program[1](torch.randn(rows, 5), torch.randn(5))
    assert program[1]._latest.plain is not None and len(program[1]._latest.plain._fits) <= SHAPES_KEPT


def test_dims_that_are_expressions() -> None:
    half = torch.export.Dim("half", min=1, max=16)
    compiled = compile_program(lambda x: x.reshape(-1, 2).sum(1), (torch.randn(6),), "onnx",
                               dynamic_shapes=({0: 2 * half},))  # fmt: skip
    for size in (4, 10, 4):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), x.reshape(-1, 2).sum(1))
    assert compiled._latest.plain is not None and len(compiled._latest.plain._fits) == 2
    for size in (5, 34):
        with pytest.raises(IrcError, match=r"run\.dim"):
            compiled(torch.randn(size))


def test_large_and_small_results() -> None:
    """Small ones are copied from memory that stays bound, also where shapes take turns."""
    compiled = compile_program(lambda x: (x + 1, x[:, 0] * 2), (torch.randn(3, 4096),), "onnx",
                               dynamic_shapes=({0: Dim("B", min=1, max=9)},))  # fmt: skip
    arguments = [torch.randn(rows, 4096) for rows in (1, 2, 1, 1, 9, 2)]
    for x, (one, other) in [(x, compiled(x)) for x in arguments]:
        torch.testing.assert_close((one, other), (x + 1, x[:, 0] * 2))


def test_a_call_that_is_interrupted_leaves_nothing_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for the second result is not there: the first result is bound already."""
    def interrupted(*arguments: Any) -> Any:
        if arguments[2] == 1:
            raise KeyboardInterrupt
        return allocated(*arguments)

    compiled = compile_program(lambda x: (x + 1, x * 2), (torch.randn(3, 4),), "onnx", dynamic_shapes=({0: "B"},))
    given = [torch.randn(rows, 4) for rows in (3, 2, 3)]
    compiled(given[0])
    allocated = BoundProgram._memory
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BoundProgram, "_memory", interrupted)
        compiled(given[1])
    for x in (given[2], given[1]):
        torch.testing.assert_close(compiled(x), (x + 1, x * 2))


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_results_are_on_the_processor_whatever_the_default_device_is(backend: Any) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    x, n = torch.linspace(-200, 200, 6).reshape(2, 3), 2.5
    compiled = compile_program(lambda x, n: (x + n, x.expand(3999, 2, 3) * 2, x.to(torch.int8)), (x, n), backend)
    with torch.device("meta"):
        one, other, _ = compiled(x, n)
    assert torch.equal(one, x + n) and torch.equal(other, x.expand(3999, 2, 3) * 2)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_a_compiled_program_has_its_types_whatever_the_autocast_of_its_caller(backend: Any) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    module, x = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).eval(), torch.randn(2, 4)
    compiled = compile_program(module, (x,), backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(x), compiled(x).float())
    torch.testing.assert_close(compiled(x), module(x))


def test_weights_that_changed_are_noticed() -> None:
    module, x, y = Two().eval(), torch.randn(4, 5), torch.randn(5)
    compiled = compile_program(module, (x, y), "onnx")
    compiled(x, y)
    with torch.no_grad():
        module.linear.weight.add_(1)
    torch.testing.assert_close(compiled(x, y), module(x, y), check_stride=False)
    assert compiled._latest.plain is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: (x + 1, x + 2, x.view(-1)),
        lambda x: (x + 1).t(),
        lambda x: [x + 1, 3],
        lambda x: x.add_(1),
    ],
    ids=["argument", "view", "order", "constant", "update"],
)
def test_programs_without_a_short_way(function: Any) -> None:
    compiled = compile_program(function, (torch.zeros(2, 3),), "onnx")
    assert compiled._latest.plain is None
    expected, actual = function(torch.ones(2, 3)), compiled(torch.ones(2, 3))
    torch.testing.assert_close(actual, expected)
