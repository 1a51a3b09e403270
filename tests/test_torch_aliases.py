"""Which arguments and buffers of a PyTorch program share elements in memory."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

from irc.backends.triton.templates import outputs
from irc.diagnostics import IrcError
from irc.frontends.torch.calling import overlap, pairs_in_memory
from tests.torch_calls import compiled


def random_view(base: torch.Tensor, draw: random.Random) -> torch.Tensor:
    view = base[tuple(slice(draw.randrange(size), draw.randrange(1, size + 1), draw.choice((1, 1, 2, 3)))
                      for size in base.shape)]  # fmt: skip
    return draw.choice((view, view.t(), view[None, 0, ::2] if len(view) else view, base[:, 2:3].expand(-1, 3)))


def test_arguments_that_share_elements() -> None:
    """Contiguous or not, of any element types; interleaved ones share none."""
    draw, base, counts = random.Random(0), torch.zeros(6, 7), [0, 0]
    for _ in range(3000):
        one, other = random_view(base, draw), random_view(base, draw)
        one = one.view(torch.uint8) if one.stride()[-1] == 1 and draw.random() < 0.3 else one
        shared = addresses(one) & addresses(other)
        assert overlap(one, other) == overlap(other, one) == outputs.overlap(one, other) == bool(shared)
        counts[bool(shared)] += 1
    assert min(counts) > 300


def test_pairs_whose_addresses_intersect() -> None:
    """All that share elements are among them, each once, and none of other memory."""
    draw = random.Random(0)
    for _ in range(200):
        bases = [torch.zeros(6, 7) for _ in range(3)]
        tensors = [random_view(draw.choice(bases), draw) for _ in range(8)]
        pairs = pairs_in_memory(tensors)
        sharing = [pair for pair in combinations(range(8), 2) if overlap(*(tensors[each] for each in pair))]
        same = {pair for pair in combinations(range(8), 2)
                if len({tensors[each].untyped_storage().data_ptr() for each in pair}) == 1}  # fmt: skip
        assert pairs == sorted(set(pairs)) and set(sharing) <= set(pairs) <= same


def test_updated_buffers_are_compared_with_what_lies_at_their_addresses_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many buffers, each in memory of its own, there is nothing to compare."""

    class Counters(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number in range(24):
                self.register_buffer(f"count_{number}", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum((buffer.add_(x) for buffer in self.buffers()), x)

    compared = []
    monkeypatch.setattr("irc.frontends.torch.calling.overlap",
                        lambda *pair: bool(compared.append(pair)) or overlap(*pair))  # fmt: skip
    module, x = Counters(), torch.ones(3)
    optimized = compiled(module, (x,), "interpreter")
    assert torch.equal(optimized(x), x + 24) and not compared
    with pytest.raises(IrcError, match=r"run\.input_alias.*the arguments b_count_5 and x share memory.*updates"):
        optimized(module.count_5)
    assert len(compared) == 1


def addresses(tensor: torch.Tensor) -> set[int]:
    size = tensor.element_size()
    offsets = torch.zeros(tensor.shape, dtype=torch.int64)
    for axis, (extent, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        offsets += (torch.arange(extent) * stride * size).reshape(-1, *(1,) * (tensor.ndim - axis - 1))
    return {tensor.data_ptr() + offset + byte for offset in offsets.reshape(-1).tolist() for byte in range(size)}
