"""`torch._foreach_*` and the optimizers that are written with them, against eager PyTorch.

The operators are those that PyTorch has: their operands follow from their schemas.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import optim
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError

pytestmark = pytest.mark.filterwarnings("ignore")
BACKENDS = ("onnx", "triton")
aten = torch.ops.aten
NEEDS_NUMBERS = ("_foreach_addcdiv", "_foreach_addcmul")  # PyTorch reads the elements of a tensor of factors


def operators() -> Iterator[Any]:
    """All operators on lists, without those that write to tensors they are given for it."""
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        name, _, overload = full.removeprefix("aten::").partition(".")
        if name.startswith("_foreach_") and not overload.endswith("out"):
            yield getattr(getattr(aten, name), overload or "default")


OPERATORS = {str(operator): operator for operator in operators()}


def tensors(seed: int) -> list[torch.Tensor]:
    """Tensors of several shapes and element types, all positive and below 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 4), (), (2, 0, 3), (1, 5), (7,))
    dtypes = (torch.float32, torch.float32, torch.float32, torch.float16, torch.float32)
    return [(torch.rand(shape, generator=generator) * 0.9 + 0.05).to(dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)]  # fmt: skip


def operands(operator: Any) -> list[Any]:
    """Operands by the types in the schema. The name of what reduces to a maximum says that it takes nothing empty."""
    name, values = operator._schema.name.removeprefix("aten::"), []
    for index, argument in enumerate(operator._schema.arguments):
        kind = str(argument.type)
        if name == "_foreach_mm":
            values.append([each.reshape(each.shape[::-1]) if index else each for each in tensors(0)[::3]])
        elif kind == "List[Tensor]":
            values.append([each for each in tensors(index) if each.numel() or name != "_foreach_max"])
        elif kind == "List[number]":
            values.append([1.5, 2, 3.0, 0.25, -1])
        elif kind in ("Tensor", "number") and not argument.kwarg_only:
            values.append(2.5 if kind == "number" else torch.tensor(2.5))
    return values


def written(operator: Any) -> Callable[..., Any]:
    """A program that calls the operator, and gives what it writes, where it gives nothing."""

    def program(*args: Any) -> Any:
        result = operator(*args)
        return args[0] if result is None else result

    return program


def close(one: Any, other: Any, label: str = "") -> None:
    (ones, structure), (others, expected) = pytree.tree_flatten(one), pytree.tree_flatten(other)
    assert structure == expected, label
    for got, reference in zip(ones, others, strict=True):
        tolerance = 1e-3 if getattr(reference, "dtype", None) == torch.float16 else 2e-5
        torch.testing.assert_close(got, reference, rtol=tolerance, atol=tolerance, equal_nan=True,
                                   msg=lambda text: f"{label}: {text}")  # fmt: skip


@pytest.mark.parametrize(("kind", "backend"), [
    ("numbers", "onnx"), ("lists", "onnx"), ("written", "onnx"), ("numbers", "triton")])  # fmt: skip
def test_every_operator_on_lists(kind: str, backend: str) -> None:
    """One program for all operators of a kind: such as take numbers, only lists, or write to what they are given."""
    chosen = {}
    for name, operator in OPERATORS.items():
        kinds = {str(argument.type) for argument in operator._schema.arguments if not argument.kwarg_only}
        group = "written" if operator._schema.is_mutable else "lists" if kinds == {"List[Tensor]"} else "numbers"
        if group == kind and not (name.split(".")[1].removesuffix("_") in NEEDS_NUMBERS and "Tensor" in kinds):
            chosen[name] = operator
    assert len(chosen) > 25

    def program(given: dict[str, Any]) -> dict[str, Any]:
        return {name: written(operator)(*given[name]) for name, operator in chosen.items()}

    given = {name: operands(operator) for name, operator in chosen.items()}
    expected_given, compiled_given = copy.deepcopy(given), copy.deepcopy(given)
    expected = program(expected_given)
    results = irc.compile(program, (given,), backend=backend)(compiled_given)
    for name in chosen:
        close(results[name], expected[name], name)
        close(compiled_given[name], expected_given[name], f"what {name} was given")


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_clipped_to_a_norm(backend: str) -> None:
    def clipped(gradients: list[torch.Tensor]) -> Any:
        total = torch.nn.utils.get_total_norm(gradients, foreach=True)
        torch._foreach_mul_(gradients, torch.clamp(1 / (total + 1e-6), max=1.0))
        return total

    given, expected_given = tensors(0)[:3], tensors(0)[:3]
    compiled = irc.compile(clipped, (given,), backend=backend)
    close(compiled(given), clipped(expected_given))
    close(given, expected_given)


def test_lists_that_pytorch_does_not_take() -> None:
    x = torch.ones(3)
    for program in (lambda x: torch._foreach_abs([]), lambda x: torch._foreach_add([x, x], [x]),
                    lambda x: torch._foreach_mul([x], [2.0, 3.0])):  # fmt: skip
        with pytest.raises(RuntimeError):
            program(x)
        with pytest.raises(IrcError) as caught:
            irc.compile(program, (x,))
        assert caught.value.code == "torch.export"


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=True),
    "adam": lambda p: optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.01, foreach=True),
    "adamw": lambda p: optim.AdamW(p, 0.01, maximize=True, foreach=True),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, centered=True, momentum=0.9, foreach=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.01, lr_decay=0.1, foreach=True),
    "adadelta": lambda p: optim.Adadelta(p, foreach=True),
    "adamax": lambda p: optim.Adamax(p, foreach=True),
    "nadam": lambda p: optim.NAdam(p, foreach=True),
    "radam": lambda p: optim.RAdam(p, foreach=True),
    "rprop": lambda p: optim.Rprop(p, foreach=True),
    "asgd": lambda p: optim.ASGD(p, foreach=True),
    "adam by tensors": lambda p: optim.Adam(p, 0.01, foreach=False),
}


def steps(make: Callable[..., optim.Optimizer], backend: str | None) -> list[torch.Tensor]:
    """The parameters and the state of the optimizer after each of some steps, with gradients that depend on neither."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 7), (7,), ())]
    optimizer = make(parameters)
    step = optimizer.step
    if backend is not None:
        step = torch.compile(step, backend="irc", options={"backend": backend})
    after = []
    for _ in range(4):
        for each in parameters:
            each.grad = torch.randn(each.shape, generator=generator)
        step()
        states = [value for each in parameters for value in optimizer.state[each].values()]
        after += [each.detach().clone() for each in (*parameters, *states) if isinstance(each, torch.Tensor)]
    return after


@pytest.mark.parametrize(("name", "backend"), [*((name, "onnx") for name in OPTIMIZERS), ("adam", "triton")])
def test_steps_of_optimizers(name: str, backend: str) -> None:
    torch._dynamo.reset()
    irc.report(clear=True)
    close(steps(OPTIMIZERS[name], backend), steps(OPTIMIZERS[name], None))
    report = irc.report()
    assert report.graphs and not report.in_pytorch, str(report)
