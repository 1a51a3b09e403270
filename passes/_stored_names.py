"""Names for the tensors of constants that passes compute of others: no other constant of the module has them."""

from __future__ import annotations

import itertools

from irc.module import Module
from irc.op import const
from irc.weights import Tensor


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
