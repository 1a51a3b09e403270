"""Interfaces and traits: what the declaration of an operation states for passes and backends.

    @primitive(Pointwise(onnx="Add"), Trait.COMMUTATIVE)
    def add(x: NumberType, y: NumberType, /) -> TensorType: ...

An interface has data and a trait has none, as in MLIR. The definition of an operation (`irc.op.OperationDefinition`)
has both: `definition.traits` is the set of its traits, `definition.interfaces` the tuple of its interfaces, and
`pointwise`, `movement`, `reduction`, `contraction`, `window`, `scan`, `gather` and `scatter` are the interface of
that kind or None. `irc doc OP` prints them. Passes and backends classify operations by these, not by lists of names.
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
from irc.index_map import Coordinates, axes

Combine = Literal["sum", "prod", "max", "min"]
Running = Literal["sum", "prod", "max", "min", "log_sum_exp"]  # what a scan combines to


class Trait(enum.Enum):
    """A property that an operation has or has not; the values are printed by `irc doc`."""

    COMMUTATIVE = "commutative"
    EFFECT = "effect"  # is kept when its results are unused, and not moved across other effects
    TERMINATOR = "terminator"
    CONTROL_FLOW = "control flow"  # runs blocks of its regions, or calls a function
    REGIONS = "regions"  # its type rule receives its regions, as the keyword `regions`
    ISOLATED = "isolated from above"  # its regions read no values of the blocks around them
    DECLARED_TYPES = "declared types"  # its result types are stated where it is used, not inferred
    DECLARED_ARRAYS = "declared arrays"  # reads arrays of its operands' dtypes even where the interpreter runs in f64
    HOST = "host only"  # never runs on the device: control flow, sizes, checks
    FREE = "free in kernels"  # each kernel that reads its results computes them, at no cost in memory traffic
    NO_ALLOCATION = "no allocation"  # no memory is allocated for its results: views, sizes, checks
    NEW_MEMORY = "new memory"  # the library call that computes it never returns a view of an operand
    LIBRARY = "library call"  # a matrix product, a convolution or attention: PyTorch calls cuBLAS, cuDNN and such
    REPEATS = "repeats elements"  # results may be larger than operands: constant folding bounds their size
    WRAPS = "wraps around"  # an integer result outside the range of its dtype wraps around
    EXACT = "exact"  # rounds nothing: each float of a result is one of an operand, up to sign and dtype
    DISCONTINUOUS = "discontinuous"  # a small change of a float operand may change a result by much
    CANCELS = "cancels"  # adds or subtracts operands, so that a small result may have a large rounding error


@dataclass(frozen=True)
class Pointwise:
    """Each element of a result is a scalar function of the elements of the broadcast operands at its position.

    onnx, aten: the name of the ONNX operator, and of the ATen operator, that computes the same function of the same
        operands. Frontends and backends translate these one to one. None where there is no such operator, or where
        operands, attributes or edge cases differ: the tables of the frontends and backends then have their own rows.
    flops: the floating-point operations that one element of a result counts as in cost reports.
    """

    onnx: str | None = None
    aten: str | None = None
    flops: int = 1

    def __str__(self) -> str:
        names = [f"{kind} {name}" for kind, name in (("ONNX", self.onnx), ("ATen", self.aten)) if name is not None]
        return f"pointwise ({', '.join(names)})" if names else "pointwise"


@dataclass(frozen=True)
class DataMovement:
    """Each element of a result is an element of an operand, or a fill value, which index arithmetic selects.

    `OperationDefinition.index_maps` declares the index maps. An operation without operands, such as `iota`, declares by
    `OperationDefinition.element` what it computes from the position of an element.
    """

    def __str__(self) -> str:
        return "data movement"


@dataclass(frozen=True)
class Reduction:
    """The elements of the first operand along its reduced axes (attribute `axes` or `axis`) are combined into one.

    combine: the associative and commutative function that combines two elements; `identity` gives its neutral element.
    finds_index: whether the result is the index of the extremum along the axis (argmax, argmin), not its value.
    operands: the number of operands that are reduced together.
    """

    combine: Combine
    finds_index: bool = False
    operands: int = 1

    def __str__(self) -> str:
        return f"reduction ({'index of ' if self.finds_index else ''}{self.combine})"


class Shaped(Protocol):
    """The part of `irc.ir.Value` that iteration spaces depend on."""

    @property
    def shape(self) -> tuple[Dim, ...]: ...

    @property
    def rank(self) -> int: ...


class Contracting(Protocol):
    """The part of `irc.ir.Operation` that the iteration space of a contraction depends on."""

    attributes: dict[str, Any]

    @property
    def inputs(self) -> Sequence[Shaped]: ...

    @property
    def result(self) -> Shaped: ...


@dataclass(frozen=True)
class Space:
    """The iteration space of a contraction, and the indexing maps from its points to elements.

    extents: the size of each axis of the space.
    maps: for a point of the space its coordinates in the first operand, in the second operand and in the result. Where
        any of these are out of bounds (padding, cropping), the point contributes nothing.
    divided: axes of the result whose coordinates the maps divide, each with the divisor: those of channels in groups.
    fits: dims that are at least 0 where the operands fit each other; where one is not, running raises `run.shape`.
    is_window: whether each element of the result sums over a window of one channel, so that no operand is a matrix.
    """

    extents: tuple[Dim, ...]
    maps: Callable[[Coordinates], tuple[Coordinates, Coordinates, Coordinates]]
    divided: tuple[tuple[int, Dim], ...] = ()
    fits: tuple[Dim, ...] = ()
    is_window: bool = False


@dataclass(frozen=True)
class Contraction:
    """Each element of the result is a sum of products of an element of the first operand and one of the second.

    space: the iteration space of an operation. As in MLIR's `linalg.generic`, every point of the space adds the product
        of its two operand elements to its element of the result.
    bias: the axis of the result along which a third operand, a vector, is added, where there is one.
    """

    space: Callable[[Contracting], Space]
    bias: int | None = None

    def flops(self, operation: Contracting) -> Dim:
        """Floating-point operations: a multiplication and an addition for each point of the iteration space."""
        return 2 * math.prod(self.space(operation).extents, start=1)

    def sums_at_each_element(self, operation: Contracting) -> bool:
        """Whether the first axes of the iteration space are those of the result: each element is a sum over the other
        axes. If not, the elements to which products are added are computed from the point."""
        space = self.space(operation)
        point = axes(space.extents)
        return space.maps(point)[2] == point[: operation.result.rank]

    def __str__(self) -> str:
        return "contraction"


@dataclass(frozen=True)
class Scan:
    """Each element of the result combines the elements of the first operand along attribute `axis` up to its position.

    The operation's attributes state the function, the direction, and whether the element itself is included.
    """

    def __str__(self) -> str:
        return "scan"


@dataclass(frozen=True)
class Window:
    """Each element of the result combines the elements of one position of a window that slides over the first operand.

    The operation's attributes state the function and the size, strides, dilations and padding of the window.
    """

    def __str__(self) -> str:
        return "window"


@dataclass(frozen=True)
class Gather:
    """Each element of the result is the element of the first operand at an index that is read from another operand.

    indices: the position of that other operand among the operands.
    """

    indices: int = 1

    def __str__(self) -> str:
        return "gather"


@dataclass(frozen=True)
class Scatter:
    """The result is the first operand in which elements are replaced by, or combined with, those of the last operand.

    indices: the position of the operand that holds the indices of these elements.
    """

    indices: int = 1

    def __str__(self) -> str:
        return "scatter"


Interface = Pointwise | DataMovement | Reduction | Contraction | Scan | Window | Gather | Scatter


def identity(combine: Running, dtype: DType) -> Any:
    """The neutral element of `combine`, as a NumPy scalar of the type: combined with any x it gives x.

    That of max and of log_sum_exp is -inf, and that of min is inf; in types without infinities, the least and the
    greatest finite number.
    """
    if combine in ("sum", "prod"):
        return np.asarray(combine == "prod", dtype.numpy)[()]
    smallest, largest = limits(dtype)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            infinity = np.asarray(np.inf, np.float32).astype(dtype.numpy)
        if np.isinf(infinity.astype(np.float32)):
            smallest, largest = -np.inf, np.inf
    return np.asarray(largest if combine == "min" else smallest, dtype.numpy)[()]
