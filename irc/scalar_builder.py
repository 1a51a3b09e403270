"""Scalar builder: what an operation's declaration may use of the tracer that derives a kernel.

`OperationDefinition.element` registers functions that describe one element of a result, for operations for which
neither index maps nor a pointwise meaning do. They are generic over the scalars, which only the builder
(`irc.kernel.tracing`) creates and inspects.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol, TypeVar

from irc.dims import Dim
from irc.dtypes import I64, DType
from irc.index_map import Coordinates, Guards
from irc.ir import Value

Scalar = TypeVar("Scalar")

# A value at coordinates, under guards; and a function that requests the scalars it needs and returns one.
Request = tuple[Value, Coordinates, Guards]
Requesting = Generator[Request, Scalar, Scalar]


class ScalarBuilder(Protocol[Scalar]):
    """Makes the scalars of which an element is computed."""

    def constant(self, dtype: DType, value: Any) -> Scalar:
        """A number."""

    def index(self, index: Dim, dtype: DType = I64) -> Scalar:
        """An index expression as a value; in a type that is too narrow for it, it wraps around."""

    def select(self, guards: Guards, inside: Scalar, outside: Scalar) -> Scalar:
        """`inside` where the guards hold, else `outside`."""

    def apply(self, name: str, dtype: DType, *operands: Scalar, attributes: Mapping[str, Any] | None = None,
              hint: str = "") -> Scalar:  # fmt: skip
        """A pointwise primitive."""

    def loaded_index(self, node: Scalar, extent: Dim, guards: Guards, bounds: str | None) -> Dim:
        """A scalar as an index into an axis of this extent; `bounds` is the attribute of `gather`."""
