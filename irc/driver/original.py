"""Original: a model outside of irc, as its own framework runs it. `originals` finds the one of a source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import Arrays, read_arrays
from irc.dtypes import DType
from irc.module import Module


class Original(ABC):
    """A model, and arrays for its inputs by the names that irc gives them."""

    inputs: Arrays

    @property
    @abstractmethod
    def items(self) -> list[Any]:
        """The operations, in order; `part` accepts a subset of them."""

    @property
    def size(self) -> int:
        """The number of operations, including nested ones."""
        return len(self.items)

    @property
    @abstractmethod
    def declared(self) -> dict[str, DType]:
        """The names and element types of its inputs, in the order of the arguments of `module`."""

    @property
    def optional(self) -> Collection[str]:
        """The names of the inputs that have defaults."""
        return ()

    def give(self, inputs: Mapping[str, Any] | str | Path) -> None:
        """Set the inputs, from a file or a mapping. Raises `run.input_missing`, and the errors of `read_arrays`."""
        given = inputs if isinstance(inputs, Mapping) else read_arrays(inputs, self.declared)
        for name in self.declared:
            if name not in given and name not in self.optional:
                raise fail("run.input_missing", f"input `{name}` is missing")
        self.inputs = {name: given[name] for name in self.declared if name in given}

    @abstractmethod
    def module(self) -> Module:
        """The imported module."""

    @abstractmethod
    def outputs(self) -> list[Any]:
        """The results of a run, in the order of the module's results. Raises `backend.failed`."""

    @abstractmethod
    def values_by_name(self) -> Arrays:
        """The arrays of all values of a run that NumPy can hold, by the names that irc gives them. Raises
        `backend.failed`."""

    @abstractmethod
    def part(self, items: Collection[Any]) -> Original:
        """Some operations as a model. Its outputs are the values that other operations, or none, read; its inputs are
        the values of other operations, with their arrays in a run. Raises `extract.not_computed`."""

    def insides(self) -> Iterator[Callable[[], Original]]:
        """Functions that return models of nested operations, such as the branch that is taken."""
        return iter(())

    @abstractmethod
    def save(self, folder: Path) -> str:
        """Write the model; returns the name of the file."""
