"""What steps of PyTorch programs choose from."""

from __future__ import annotations

import random

import torch

from tests.fuzz.steps import Steps, broadcast
from tests.fuzz.torch_source import Source, Variable

FLOATS = ("torch.float32", "torch.float32", "torch.float32", "torch.float64", "torch.float16", "torch.bfloat16")
INTEGERS = ("torch.int64", "torch.int64", "torch.int32", "torch.int16", "torch.int8", "torch.uint8")
ONE_AXIS = ("prod", "argmax", "argmin", "max", "min", "median", "cummax", "sort")


class TorchChoices(Steps):
    """What the steps have in common."""

    def __init__(self, source: Source, rng: random.Random, pool: list[Variable], features: frozenset[str]) -> None:
        super().__init__(rng, pool, features)
        self.s = source

    def number(self, least_rank: int = 0) -> Variable:
        return self.any(lambda value: value.dtype != torch.bool and value.rank >= least_rank)

    def mask(self, x: Variable) -> Variable:
        return self.any(lambda y: y.dtype == torch.bool and broadcast(x, y))

    def broadcastable(self, x: Variable) -> Variable:
        return self.any(lambda y: y.dtype != torch.bool and broadcast(x, y))
