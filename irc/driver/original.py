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
    """A model and arrays for its inputs, by the names that irc gives them."""

    inputs: Arrays

    @property
    @abstractmethod
    def items(self) -> list[Any]:
        """The operations, in order; `part` takes some of them."""

    @property
    def size(self) -> int:
        """How many operations there are, those inside of others too."""
        return len(self.items)

    @property
    @abstractmethod
    def declared(self) -> dict[str, DType]:
        """The names of its inputs, and their element types, in the order of the arguments of `module`."""

    @property
    def optional(self) -> Collection[str]:
        """The names of the inputs that have defaults."""
        return ()

    def give(self, inputs: Mapping[str, Any] | str | Path) -> None:
        """Set the inputs: those of a file, or of a mapping. Raises `run.input_missing`, and what reading does."""
        given = inputs if isinstance(inputs, Mapping) else read_arrays(inputs, self.declared)
        for name in self.declared:
            if name not in given and name not in self.optional:
                raise fail("run.input_missing", f"input `{name}` is missing")
        self.inputs = {name: given[name] for name in self.declared if name in given}

    @abstractmethod
    def module(self) -> Module:
        """What irc imports."""

    @abstractmethod
    def outputs(self) -> list[Any]:
        """The results of a run, in the order of the module's. Raises `backend.failed` where there is none."""

    @abstractmethod
    def part(self, items: Collection[Any]) -> Original:
        """Some operations, as a model of its own that gives what others or nobody read. What they read of others
        become inputs, with what a run gives for it. Raises `extract.not_computed`."""

    def insides(self) -> Iterator[Callable[[], Original]]:
        """Functions that make models of what is inside of operations, such as the branch that is taken."""
        return iter(())

    @abstractmethod
    def save(self, folder: Path) -> str:
        """Write the model; returns the name of the file."""
