"""Masked attention of NaN and infinities: rows are NaN where those of eager PyTorch are, in every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import irc

BATCH, HEADS, QUERIES, KEYS, DEPTH = 2, 2, 20, 24, 16
SPECIAL = (float("nan"), float("inf"), -float("inf"))


def with_mask(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def selected(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Written out, by a selection of scores: what is hidden has no effect."""
    return torch.softmax(torch.where(mask, q @ k.transpose(-1, -2) / 4, -torch.inf), -1) @ v


def seen(draw: Any, *shape: int) -> Any:
    """A mask of bools with rows that hide every key."""
    mask = torch.rand(shape, generator=draw) < 0.6
    mask[..., 2:5, :] = False
    return mask


def padding(draw: Any) -> Any:
    """Keys that are the same for all queries: of some sequences none."""
    lengths = torch.randint(0, KEYS, (BATCH, 1), generator=draw) * torch.tensor([[1], [0]])
    return (torch.arange(KEYS) < lengths)[:, None, None, :]


def added(draw: Any) -> Any:
    numbers = torch.randn(BATCH, 1, QUERIES, KEYS, generator=draw)
    return numbers.masked_fill(~seen(draw, BATCH, 1, QUERIES, KEYS), -float("inf"))


KINDS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any] | None]] = {
    "bool": (with_mask, lambda draw: seen(draw, QUERIES, KEYS)),
    "padding": (with_mask, padding),
    "float": (with_mask, added),
    "causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), None),
    "selected": (selected, lambda draw: seen(draw, QUERIES, KEYS)),
    "none": (F.scaled_dot_product_attention, None),
}


def inputs_of(kind: str, draw: Any) -> Iterator[tuple[Any, ...]]:
    """Inputs with special numbers nowhere, in one operand, and in all; in rows, and in single elements."""
    mask = KINDS[kind][1]
    for spoiled in ((), (0,), (1,), (2,), (0, 1, 2), (1, 2)):
        operands = [torch.randn(BATCH, HEADS, rows, DEPTH, generator=draw) for rows in (QUERIES, KEYS, KEYS)]
        for number in spoiled:
            for special in SPECIAL:
                batch, head, row, column = (int(torch.randint(extent, (), generator=draw))
                                            for extent in operands[number].shape)  # fmt: skip
                operands[number][batch, head, row, column if special > 0 else slice(None)] = special
        yield (*operands, *(() if mask is None else (mask(draw),)))


def runs_of(program: Callable[..., Any], example: tuple[Any, ...]) -> dict[str, Callable[..., Any]]:
    """The interpreter, and the program as each backend computes it."""
    module = irc.from_torch(program, example)

    def interpreted(*operands: Any) -> Any:
        named = {argument.name: x.numpy() for argument, x in zip(module.main.arguments, operands, strict=True)}
        (result,) = irc.run(module, named).outputs.values()
        return torch.from_numpy(result)

    kernels = irc.compile(program, example, backend="triton", settings=irc.Settings(products="irc"))
    runs = {"interpreter": interpreted, "onnx": irc.compile(program, example, backend="onnx"), "kernels": kernels}
    if program is not selected:  # which the attention of a library is taken for, that adds the mask
        runs["host"] = irc.compile(program, example, backend="triton")
    return runs


def same(x: Any, y: Any) -> Any:
    return torch.isclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True).all(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_nan_where_those_of_pytorch_are(kind: str) -> None:
    """Of both of PyTorch's kernels where they agree, and else of one of them. ONNX Runtime gives 0 for queries that see
    no key, unless a value is NaN or infinite; of hidden keys of `is_causal` it gives what the math kernel gives."""
    program, draw = KINDS[kind][0], torch.Generator().manual_seed(len(kind))
    examples = list(inputs_of(kind, draw))
    runs, differences = runs_of(program, examples[0]), 0
    for operands in examples:
        expected = program(*operands)
        with sdpa_kernel(SDPBackend.MATH):
            by_products = program(*operands)
        agree = same(expected, by_products)
        assert agree.all() or kind == "causal"
        mask = operands[3] if len(operands) > 3 else torch.ones(1, dtype=torch.bool)
        is_seen = mask if mask.dtype is torch.bool else mask > -torch.inf
        hidden = ~is_seen.any(-1).broadcast_to(agree.shape)
        for name, run in runs.items():
            result = run(*operands)
            right = same(result, by_products if name == "onnx" else expected)
            if name == "onnx":
                differences += int((~right).sum())
                is_finite = all(operand.isfinite().all() for operand in operands[:3])
                right |= hidden & ((result == 0) | (result.isnan() & (not is_finite))).all(-1)
            assert right.all(), (name, torch.nonzero(~right))
    assert (differences > 0) == (kind in ("bool", "padding", "float"))  # as docs/numerics.md says


@pytest.mark.parametrize("symbol", ["S", None])
def test_a_mask_of_other_products_is_added(symbol: str | None) -> None:
    """Of a result that is no score NaN stays, and the sign of 0."""
    def program(x: torch.Tensor, w: torch.Tensor, is_seen: torch.Tensor) -> Any:
        product = -(x.softmax(-1) @ w)
        rows, columns = torch.arange(product.shape[0])[:, None], torch.arange(product.shape[1])
        return (product + torch.where(columns <= rows, 0.0, -torch.inf),
                1 / (product + torch.where(is_seen, 0.0, -torch.inf)))  # fmt: skip

    x, w, is_seen = torch.randn(16, 24), torch.zeros(24, 32), torch.ones(32, dtype=torch.bool)
    w[3, 30], w[4, 31] = torch.nan, torch.inf
    dynamic = symbol and ({0: symbol}, None, None)
    compiled = irc.compile(program, (x, w, is_seen), backend="triton", settings=irc.Settings(products="irc"),
                           dynamic_shapes=dynamic)  # fmt: skip
    torch.testing.assert_close(compiled(x, w, is_seen), program(x, w, is_seen), equal_nan=True)
