"""Execution: what an operation's declaration may use of the interpreter that runs the operation.

`OperationDefinition.execution` registers functions of an `Execution`, for operations that need more than arrays:
regions, other functions, symbols, or state that lasts for the whole run. `irc.interpreter` implements the protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from irc.dims import Symbol
from irc.ir import Operation

Array = NDArray[Any]


class Run(Protocol):
    """One run of a module.

    held: bytes of the values that are alive, constants aside.
    draws: the number that all random numbers of the run follow from.
    sessions: state of random operations, which continue drawing where they stopped: of ONNX Runtime's by operation, of
    PyTorch's by their domain.
    """

    held: int

    @property
    def draws(self) -> int: ...

    @property
    def sessions(self) -> dict[Operation | str, Any]: ...

    def hold(self, amount: int, operation: Operation) -> None:
        """Count bytes that an operation allocates; raises `limit.exceeded`."""


class Execution(Protocol):
    """An operation about to run, with its operands (None for an absent one) and the symbols that have sizes."""

    @property
    def run(self) -> Run: ...

    @property
    def operation(self) -> Operation: ...

    @property
    def arrays(self) -> Sequence[Array | None]: ...

    @property
    def environment(self) -> Mapping[Symbol, int]: ...

    @property
    def present(self) -> list[Array]:
        """The operands that are not absent."""

    def region(self, index: int = 0, arrays: Sequence[Array] = ()) -> list[Array]:
        """Run a region on these arguments; returns what it yields."""

    def call(self, callee: str) -> list[Array]:
        """Run a function of the module on the operands; returns its results."""

    def bind(self, symbol: Symbol, size: int) -> None:
        """Give a symbol a size from here on; raises `run.dim_range`."""
