"""Backward operators of convolutions, pooling, resampling and attention, against eager PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
import torch.nn.functional as F
from torch.nn.attention import flex_attention

import irc
from irc import interpreter
from irc.frontends.torch.tensors import to_array
from irc.torch_arrays import to_tensor

pytestmark = pytest.mark.filterwarnings("ignore")
aten = torch.ops.aten
PATHS = ("interpreter", "onnx", "triton")
TOLERANCES = {torch.float64: 1e-12}  # of results and of what is about 1; others 2e-5


def run(path: str, function: Callable[..., Any], *tensors: torch.Tensor) -> list[torch.Tensor]:
    """What a function gives on one of the paths."""
    if path != "interpreter":
        results = irc.compile(function, tensors, backend=path)(*tensors)
        return [results] if isinstance(results, torch.Tensor) else list(results)
    module = irc.from_torch(function, tensors)
    names = [argument.name for argument in module.main.arguments]
    arrays = interpreter.run(module, dict(zip(names, map(to_array, tensors), strict=True)))
    return [to_tensor(array, value.dtype) for array, value in zip(arrays.values(), module.main.returned, strict=True)]


def check(path: str, function: Callable[..., Any], *tensors: torch.Tensor) -> None:
    expected = function(*tensors)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    for result, reference in zip(run(path, function, *tensors), expected, strict=True):
        tolerance = TOLERANCES.get(reference.dtype, 2e-5)
        torch.testing.assert_close(result, reference, rtol=tolerance, atol=tolerance, equal_nan=True)


def convolution(seed: int) -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    """The gradients of a random convolution of one to three dims."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    rank, groups, transposed = choose.randint(1, 3), choose.choice((1, 1, 2, 3)), choose.random() < 0.4

    def each(low: int, high: int) -> list[int]:
        return [choose.randint(low, high) for _ in range(rank)]

    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 2)
    more = [choose.randrange(max(pair)) if transposed else 0 for pair in zip(stride, dilation, strict=True)]
    padding = [min(pad, spread * (width - 1)) for pad, spread, width in zip(padding, dilation, kernel, strict=True)]
    sizes = [spread * (width - 1) + extra for spread, width, extra in zip(dilation, kernel, each(1, 5), strict=True)]
    channels, features = groups * choose.randint(1, 3), groups * choose.randint(1, 2)
    x = torch.randn(choose.choice((1, 2, 3)), channels, *sizes)
    ends = (channels, features // groups) if transposed else (features, channels // groups)
    weight = torch.randn(*ends, *kernel)
    options = stride, padding, dilation, transposed, more, groups
    grad = torch.randn_like(aten.convolution(x, weight, None, *options))

    def gradients(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> Any:
        return aten.convolution_backward(grad, x, weight, [features], *options, [True, True, True])

    return gradients, (grad, x, weight)


@pytest.mark.parametrize("seed", range(16))
def test_convolutions(seed: int) -> None:
    function, tensors = convolution(seed)
    check("interpreter", function, *tensors)


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize("seed", range(100, 103))
def test_convolutions_compiled(seed: int, path: str) -> None:
    function, tensors = convolution(seed)
    check(path, function, *tensors)


def test_some_gradients_of_a_convolution_and_of_an_empty_batch() -> None:
    x, weight, grad = torch.randn(0, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(0, 4, 3, 3)

    def gradient(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> Any:
        return aten.convolution_backward(grad, x, weight, [4], [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
                                         [False, True, True])[1:]  # fmt: skip

    for path in PATHS:
        check(path, gradient, grad, x, weight)


def image(choose: random.Random, rank: int) -> torch.Tensor:
    """Elements with several equal ones, some NaN and infinities."""
    x = torch.randint(-3, 4, (choose.randint(1, 2), choose.randint(1, 3), *(choose.randint(4, 7) for _ in range(rank))))
    x = x.float()
    odd = torch.rand_like(x)
    return x.masked_fill(odd < 0.04, torch.nan).masked_fill((odd > 0.04) & (odd < 0.3), -torch.inf)


def pooling(seed: int, kind: str) -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    """A random call of pooling, with its gradient."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    rank = choose.randint(2, 3)

    def each(low: int, high: int) -> list[int]:
        return [choose.randint(low, high) for _ in range(rank)]

    kernel, stride, ceil = each(1, 3), choose.choice(([], each(1, 3))), choose.random() < 0.5
    padding = [choose.randint(0, width // 2) for width in kernel]
    forward = getattr(aten, f"{kind}{rank}d{'_with_indices' if kind == 'max_pool' else ''}")
    backward = getattr(aten, f"{kind}{rank}d{'_with_indices' if kind == 'max_pool' else ''}_backward")
    x = image(choose, rank)
    if kind == "avg_pool":
        x = torch.randn_like(x)
        options: tuple[Any, ...] = kernel, stride, padding, ceil, choose.random() < 0.5, choose.choice((None, 3))
        outputs = forward(x, *options)

        def averages(x: torch.Tensor, grad: torch.Tensor) -> Any:
            return forward(x, *options), backward(grad, x, *options)

        return averages, (x, torch.randn_like(outputs))
    options = kernel, stride, padding, each(1, 2), ceil

    def largest(x: torch.Tensor, grad: torch.Tensor) -> Any:
        values, indices = forward(x, *options)
        return values, indices, backward(grad, x, *options, indices)

    return largest, (x, torch.randn_like(forward(x, *options)[0]))


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("seed", range(8))
def test_pooling(seed: int, kind: str) -> None:
    function, tensors = pooling(seed, kind)
    check("interpreter", function, *tensors)


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("seed", range(100, 102))
def test_pooling_compiled(seed: int, kind: str, path: str) -> None:
    function, tensors = pooling(seed, kind)
    check(path, function, *tensors)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", [(2, 3), (4, 1), (7, 8)])
def test_adaptive_pooling(target: tuple[int, int], path: str) -> None:
    def pooled(x: torch.Tensor, y: torch.Tensor, grad: torch.Tensor) -> Any:
        values, indices = aten.adaptive_max_pool2d(x, target)
        return (values, indices, aten.adaptive_max_pool2d_backward(grad, x, indices),
                aten._adaptive_avg_pool2d(y, target), aten._adaptive_avg_pool2d_backward(grad, y))

    torch.manual_seed(0)
    x = image(random.Random(0), 2)
    check(path, pooled, x, torch.randn_like(x), torch.randn(*x.shape[:2], *target))


@pytest.mark.parametrize("path", PATHS)
def test_adaptive_pooling_of_volumes(path: str) -> None:
    def pooled(x: torch.Tensor, grad: torch.Tensor) -> Any:
        values, indices = aten.adaptive_max_pool3d(x, [2, 3, 2])
        return (values, indices, aten.adaptive_max_pool3d_backward(grad, x, indices),
                aten._adaptive_avg_pool3d(x, [2, 3, 2]), aten._adaptive_avg_pool3d_backward(grad, x))

    torch.manual_seed(0)
    check(path, pooled, torch.randn(2, 5, 4, 3), torch.randn(2, 2, 3, 2))


@pytest.mark.parametrize("path", PATHS)
def test_pooling_of_integers(path: str) -> None:
    def means(x: torch.Tensor) -> Any:
        return aten.avg_pool2d(x, [3, 2], [2, 1], [1, 1], True), aten.avg_pool2d(x, [2, 2], divisor_override=3)

    check(path, means, torch.randint(-9, 9, (1, 2, 5, 6)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [2, 4])
def test_attention(heads: int, causal: bool, path: str) -> None:
    torch.manual_seed(heads)
    query, key, value = torch.randn(2, heads, 5, 4), torch.randn(2, 2, 6, 4), torch.randn(2, 2, 6, 4)
    mask = None if causal else torch.randn(2, 1, 5, 6).masked_fill(torch.rand(2, 1, 5, 6) < 0.3, -torch.inf)
    if heads != 2:
        mask = None if causal else torch.rand(5, 6) - 0.5

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, grad: torch.Tensor) -> Any:
        options = {"attn_mask": mask, "scale": 0.7}
        result, sums = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, **options)
        return (result, sums, *aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, result, sums, 0.0, causal, **options))

    if heads != 2:  # eager's backward has as many heads of keys as of queries
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    check(path, attend, query, key, value, torch.randn_like(query))


# Functions of an image [2, 4, 6, 5] whose gradients take an operator of ATen, or several.
TRAINED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "constant": lambda x: x[:, torch.tensor([0, 1, 1])],
    "cdist": lambda x: torch.cdist(x, x.flip(2)),
    "cdist of 3": lambda x: torch.cdist(x, x.flip(2), p=3.0),
    "cdist of 1.5": lambda x: torch.cdist(x, x.flip(2), p=1.5),
    "cdist of inf": lambda x: torch.cdist(x, x.flip(2), p=float("inf")),
    "embedding": lambda x: F.embedding(torch.tensor([1, 0, 1, 5]), x[0, 0]),
    "interpolate nearest": lambda x: F.interpolate(x, size=(7, 4)),
    "interpolate linear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "interpolate cubic": lambda x: F.interpolate(x, size=(7, 9), mode="bicubic"),
    "interpolate antialiased": lambda x: F.interpolate(x, size=(4, 7), mode="bilinear", antialias=True),
    "log sigmoid": F.logsigmoid,
    "max unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(6, 5)),
    "replication": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "reflection": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "scatter": lambda x: x.scatter(1, torch.zeros(2, 1, 6, 5, dtype=torch.int64), x[:, 1:2]),
    "index put": lambda x: x.index_put((torch.tensor([0, 0]), torch.tensor([1, 1])), x[:, 0], accumulate=True),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_runs_no_operator_in_pytorch(name: str) -> None:
    torch._dynamo.reset()
    irc.report(clear=True)
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 5)
    gradients = []
    for program in (TRAINED[name], torch.compile(TRAINED[name], backend="irc")):
        leaf = x.clone().requires_grad_()
        result = program(leaf)
        result.backward(torch.linspace(-1, 1, result.numel()).reshape(result.shape))
        gradients.append((result.detach(), leaf.grad))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=2e-5, atol=2e-5)
    assert [(graph.kind, graph.in_pytorch) for graph in irc.report().graphs] == [("forward", {}), ("backward", {})]


# Functions of tensors whose gradients PyTorch computes, inside of the graph, with the operators that it runs.
INDICES, OFFSETS = torch.tensor([1, 2, 3, 3, 6, 0]), torch.tensor([0, 2, 2, 5])


def relative(score: torch.Tensor, batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
    return score + (query - key) * 0.1


def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return query >= key


def flexible(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    mask = flex_attention.create_block_mask(causal, None, None, query.shape[2], key.shape[2], device="cpu")
    return flex_attention.flex_attention(query, key, value, relative, mask, enable_gqa=True).tanh()


BAGS = {"_embedding_bag.default", "_embedding_bag_backward.default"}
GRID_2D, FLEX = {"grid_sampler_2d_backward.default"}, {"torch.ops.higher_order.flex_attention_backward"}
LEFT: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, ...], ...], set[str]]] = {
    "sampled": (lambda x, grid: F.grid_sample(x, grid, align_corners=False), ((2, 3, 5, 6), (2, 4, 4, 2)), GRID_2D),
    "sampled reflection": (lambda x, grid: F.grid_sample(x, grid, "bicubic", "reflection", True),
                           ((2, 3, 5, 6), (2, 4, 4, 2)), GRID_2D),
    "sampled volume": (lambda x, grid: F.grid_sample(x, grid, padding_mode="border", align_corners=False),
                       ((2, 3, 4, 5, 6), (2, 3, 4, 4, 3)), {"grid_sampler_3d_backward.default"}),
    "transformed": (lambda x, theta: F.grid_sample(x, F.affine_grid(theta, [2, 3, 5, 6], False), align_corners=False),
                    ((2, 3, 5, 6), (2, 2, 3)), GRID_2D),
    **{f"bags {mode}": (lambda x, mode=mode: F.embedding_bag(INDICES, x, OFFSETS, mode=mode, padding_idx=3) * 2,
                        ((7, 4),), BAGS) for mode in ("sum", "mean", "max")},
    "weighted bags": (lambda x, weights: F.embedding_bag(INDICES, x, OFFSETS, mode="sum", per_sample_weights=weights),
                      ((7, 4), (6,)), {*BAGS, "_embedding_bag_per_sample_weights_backward.default"}),
    "flexible attention": (flexible, ((1, 4, 16, 8), (1, 2, 16, 8), (1, 2, 16, 8)), FLEX),
}  # fmt: skip


@pytest.mark.parametrize("backend", PATHS[1:])
@pytest.mark.parametrize("name", LEFT)
def test_gradients_that_pytorch_computes(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU too, where PyTorch itself takes those of flex_attention, but its front does not."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    program, shapes, operators = LEFT[name]
    torch._dynamo.reset()
    irc.report(clear=True)
    torch.manual_seed(0)
    tensors = [torch.randn(shape) for shape in shapes]
    gradients = []
    for function in (program, torch.compile(program, backend="irc", options={"backend": backend})):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        result = function(*leaves)
        result.backward(torch.linspace(-1, 1, result.numel()).reshape(result.shape))
        gradients.append((result.detach(), *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=2e-5, atol=2e-5)
    assert {operator for graph in irc.report().graphs for operator, _ in graph.in_pytorch} == operators
