"""The pass `eager`: kernels where PyTorch runs something without a compiler, and views where it runs nothing."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import pytest
import torch

import irc
from irc.driver import Settings
from irc.ops import exp, expand, reshape, slice_, transpose
from irc.passes.eager import Eager

STEPS = 6


def chain(x: Any, draw: random.Random, by_torch: bool) -> tuple[Any, int]:
    """A random chain of views, and how many of them PyTorch copied."""
    copies = 0
    for _ in range(STEPS):
        shape, kind = [int(extent) for extent in x.shape], draw.randrange(4)
        if kind == 0:
            order = draw.sample(range(len(shape)), len(shape))
            x = x.permute(order) if by_torch else transpose(x, permutation=tuple(order))
        elif kind == 1 and len(shape) < 5:
            x = x[None].expand(3, *shape) if by_torch else expand(reshape(x, shape=(1, *shape)), shape=(3, *shape))
        elif kind == 2:
            axis, step = draw.randrange(len(shape)), draw.choice((1, 2))
            first = draw.randrange(2) if shape[axis] > 2 else 0
            starts, steps = ([value if place == axis else other for place in range(len(shape))]
                             for value, other in ((first, 0), (step, 1)))  # fmt: skip
            x = x[tuple(map(slice, starts, shape, steps))] if by_torch else slice_(
                x, starts=tuple(starts), stops=tuple(shape), steps=tuple(steps))  # fmt: skip
        else:
            parts = [part for part in (2, 3, 4, 6) if math.prod(shape) % part == 0]
            part = draw.choice(parts or [1])
            new = (part, math.prod(shape) // part) if draw.random() < 0.7 else (math.prod(shape),)
            if by_torch:
                before, x = x, x.reshape(new)
                copies += x.untyped_storage().data_ptr() != before.untyped_storage().data_ptr()
            else:
                x = reshape(x, shape=new)
    return x, copies


@pytest.mark.parametrize("seed", range(120))
def test_copies_are_those_of_pytorch(seed: int) -> None:
    shape = random.Random(seed).choice([(4, 6), (2, 3, 4), (1, 8, 3), (2, 2, 2, 3)])
    _, copies = chain(torch.zeros(shape), random.Random(seed), by_torch=True)
    module = irc.trace(lambda x: chain(x, random.Random(seed), by_torch=False)[0], f"f32{list(shape)}")
    Eager().run(module, Settings().context("triton"))
    assert sum(operation.name == "kernel" for operation in module.walk()) == copies


def test_chains_of_views_take_linear_time() -> None:
    def calls(views: int) -> int:
        def program(x: Any) -> Any:
            for number in range(views):
                x = reshape(x, shape=(4, 6) if number % 2 else (6, 4))
            return exp(x)

        module, context, count = irc.trace(program, "f32[4, 6]"), Settings().context("triton"), 0

        def profile(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(profile)
        try:
            Eager().run(module, context)
        finally:
            sys.setprofile(None)
        return count

    assert calls(200) < 2.5 * calls(100)
