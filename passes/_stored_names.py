"""Constants that passes compute of others, under names that no other constant of the module has."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from irc.ir import Value
from irc.module import Module
from irc.op import const
from irc.weights import Array, Tensor


class StoredNames:
    """The names of the tensors of a module's constants."""

    def __init__(self, module: Module) -> None:
        self._taken = {each.attributes["value"].name for each in module.walk() if each.definition is const}

    def derived(self, tensor: Tensor, suffix: str) -> str:
        """A new name for what is computed of a tensor: `weight.joined`, with a number after it where that is taken."""
        stem = f"{tensor.name or 'weight'}.{suffix}"
        numbered = (f"{stem}.{number}" if number else stem for number in itertools.count())
        name = next(each for each in numbered if each not in self._taken)
        self._taken.add(name)
        return name

    def rearranged(self, tensor: Tensor, shape: tuple[int, ...], change: Callable[[Array], Array],
                   suffix: str) -> Value:  # fmt: skip
        """A constant of a tensor's elements under a derived name, rearranged when they are read."""
        def elements() -> Array:
            return np.ascontiguousarray(change(tensor.array()))

        return const(value=Tensor(tensor.dtype, shape, elements, self.derived(tensor, suffix)))
