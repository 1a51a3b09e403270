"""What an operation is to passes and backends: interfaces with data and traits without, stated in its declaration.

    @primitive(Pointwise(onnx="Add", aten="add"), Trait.COMMUTATIVE)
    def add(x: NumberType, y: NumberType, /) -> TensorType: ...

An interface is read from the definition (`definition.reduction` is a `Reduction` or None), a trait is a member of
`definition.traits`. `irc doc OP` prints both. Nothing outside of a declaration decides by a list of names what an
operation is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from irc.dims import Dim
from irc.dtypes import DType, limits
from irc.index_map import Coordinates

Combine = Literal["sum", "prod", "max", "min"]


class Trait(enum.Enum):
    """Facts without data; the values are the words of `irc doc`."""

    COMMUTATIVE = "commutative"
    EFFECT = "effect"  # kept though nothing reads its results, and not moved across other effects
    TERMINATOR = "terminator"
    CONTROL_FLOW = "control flow"  # runs blocks of its regions, or a function
    REGIONS = "regions"  # the type rule takes the regions
    ISOLATED = "isolated from above"
    DECLARED_TYPES = "declared types"  # its result types are stated, not inferred
    DECLARED_ARRAYS = "declared arrays"  # takes arrays of the declared types in a run of another precision, too
    HOST = "host only"  # runs on the host alone: structure, sizes, checks
    FREE = "free in kernels"  # computed by each kernel that reads it, at no cost in memory traffic
    NO_ALLOCATION = "no allocation"  # its results take no memory of their own: views, constants, sizes
    NEW_MEMORY = "new memory"  # the library call that computes it never returns memory of an operand
    LIBRARY = "library call"  # a product, a convolution or attention, which PyTorch leaves to libraries
    REPEATS = "repeats elements"  # makes many elements of few: a constant of it is larger than what it is made of
    WRAPS = "wraps around"  # integers of its results may leave the range of their type, and wrap around
    EXACT = "exact"  # rounds nothing: floats of its results are floats of its operands, up to sign and type
    DISCONTINUOUS = "discontinuous"  # a small change of a float operand may change the result by much
    CANCELS = "cancels"  # adds terms, which may cancel


@dataclass(frozen=True)
class Pointwise:
    """Each element of the results is a scalar function of the operands' elements at the same broadcast position.

    onnx, aten: the operator of ONNX and of ATen that is the same function of the same operands, for the frontends and
        backends that take it one to one; None where a row of theirs says how.
    flops: what an element of a float type costs.
    """

    onnx: str | None = None
    aten: str | None = None
    flops: int = 1

    def __str__(self) -> str:
        names = [f"{kind} {name}" for kind, name in (("ONNX", self.onnx), ("ATen", self.aten)) if name is not None]
        return f"pointwise ({', '.join(names)})" if names else "pointwise"


@dataclass(frozen=True)
class DataMovement:
    """Each element of the results is an element of an operand (or a stated fill), found by index arithmetic.

    The index maps are declared by `OperationDefinition.index_maps`, or, of elements that are known from their position
    alone, by `element`.
    """

    def __str__(self) -> str:
        return "data movement"


@dataclass(frozen=True)
class Reduction:
    """The elements along `axes` (or `axis`) of the first operand are combined into one.

    combine: the associative and commutative function of two elements.
    finds_index: the result is the index at which the extremum is attained.
    operands: how many are reduced together, element by element.
    """

    combine: Combine
    finds_index: bool = False
    operands: int = 1

    def __str__(self) -> str:
        return f"reduction ({'index of ' if self.finds_index else ''}{self.combine})"


class Shaped(Protocol):
    """A value, as iteration spaces read it."""

    @property
    def shape(self) -> tuple[Dim, ...]: ...

    @property
    def rank(self) -> int: ...


class Contracting(Protocol):
    """An operation that is a contraction, as its iteration space reads it: an `irc.ir.Operation`."""

    attributes: dict[str, Any]

    @property
    def inputs(self) -> Sequence[Shaped]: ...

    @property
    def result(self) -> Shaped: ...


@dataclass(frozen=True)
class Space:
    """The iteration space of a contraction, with the coordinates that a point of it has in operands and result.

    A point outside of an operand or of the result (padding, cropping) contributes nothing.
    """

    extents: tuple[Dim, ...]
    maps: Callable[[Coordinates], tuple[Coordinates, Coordinates, Coordinates]]  # first operand, second, result


@dataclass(frozen=True)
class Contraction:
    """Each element of the result is a sum of products, of one element of each of the first two operands.

    `space` gives the iteration space of an operation, as `linalg.generic` of MLIR does: the result at a map's
    coordinates is the sum over all points of the space with them.
    """

    space: Callable[[Contracting], Space]

    def flops(self, operation: Contracting) -> Dim:
        """A multiplication and an addition for each point of the iteration space."""
        return 2 * math.prod(self.space(operation).extents, start=1)

    def __str__(self) -> str:
        return "contraction"


@dataclass(frozen=True)
class Scan:
    """Elements along `axis` are combined with all before them."""

    def __str__(self) -> str:
        return "scan"


@dataclass(frozen=True)
class Window:
    """Elements of a sliding window of the first operand are combined into one."""

    def __str__(self) -> str:
        return "window"


@dataclass(frozen=True)
class Gather:
    """Each element of the result is an element of the first operand, at an index that operand `indices` holds."""

    indices: int = 1

    def __str__(self) -> str:
        return "gather"


@dataclass(frozen=True)
class Scatter:
    """The first operand, with elements of the last stored, or combined, at indices that operand `indices` holds."""

    indices: int = 1

    def __str__(self) -> str:
        return "scatter"


Interface = Pointwise | DataMovement | Reduction | Contraction | Scan | Window | Gather | Scatter


def identity(combine: Combine, dtype: DType) -> Any:
    """The element that `combine` ignores, as a NumPy scalar of the type; extrema of floats have infinities where the
    type does."""
    if combine in ("sum", "prod"):
        return np.asarray(combine == "prod", dtype.numpy)[()]
    smallest, largest = limits(dtype)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            infinity = np.asarray(np.inf, np.float32).astype(dtype.numpy)
        if np.isinf(infinity.astype(np.float32)):
            smallest, largest = -np.inf, np.inf
    return np.asarray(smallest if combine == "max" else largest, dtype.numpy)[()]
