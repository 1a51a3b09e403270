"""What type rules share: broadcasting, axes, and the questions that dims answer with yes, no or unknown.

A rule rejects what is provably wrong. Where equality of dims is unknown it accepts, and the reference (or a
guard that an importer puts in) looks again when the program runs. A rule that meets an unranked operand gives
an unranked result unless the attributes alone say the rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.op import Constraint
from irc.types import TensorType

# Kinds of operand that the common vocabulary of irc.op lacks.
OrderedType = Annotated[
    TensorType, Constraint(frozenset({"float", "int", "uint", "bool"}), "a real number type or bool")
]
NumericType = Annotated[
    TensorType, Constraint(frozenset({"float", "int", "uint", "bool", "complex"}), "a number type or bool")
]

_Item = TypeVar("_Item")


def differ(a: Dim, b: Dim) -> bool:
    """Whether two dims are provably different."""
    return dims.equal(a, b) is False


def same_dim(a: Dim, b: Dim) -> Dim:
    """The plainer of two dims that stand for one extent: an integer, or else the first."""
    return b if isinstance(b, int) else a


def rest_of_elements(elements: Dim, others: Dim) -> Dim:
    """The extent that is left of a number of elements by the product of the other extents: -1 in a shape. Where the
    others may be 0, an extent of which they are a factor is still exact, and what divides by them divides by 1 then."""
    exact = dims.exact_divide(elements, others)
    return dims.floor_divide(elements, dims.maximum(others, 1)) if exact is None else exact


def same_dtype(first: TensorType, *others: TensorType) -> None:
    """Raises `type.dtype` unless all element types are the same."""
    for other in others:
        if other.dtype != first.dtype:
            raise fail(
                "type.dtype",
                f"the element types of {first} and {other} differ",
                expected=f"both {first.dtype}, or both {other.dtype}",
                help="insert a cast",
            )


def broadcast_types(*types: TensorType) -> TensorType:
    """The type of a pointwise operation on operands of one element type, by NumPy's broadcasting."""
    same_dtype(*types)
    return TensorType(types[0].dtype, broadcast_shapes(*types))


def broadcast_shapes(*types: TensorType) -> tuple[Dim, ...] | None:
    """The common shape, or None when one of the operands is unranked.

    Raises `type.broadcast` with both types and the first dim that cannot fit.
    """
    if any(type_.shape is None for type_ in types):
        return None
    result = types[0].dims
    for type_ in types[1:]:
        if type_.dims == result:
            continue
        rank = max(len(result), type_.rank)
        left = (1,) * (rank - len(result)) + result
        right = (1,) * (rank - type_.rank) + type_.dims
        shape = []
        for position, (a, b) in enumerate(zip(left, right, strict=True)):
            try:
                shape.append(dims.broadcast(a, b))
            except dims.DimError:
                raise fail(
                    "type.broadcast", f"cannot broadcast {types[0]} with {type_}: dim {position}: {a} vs {b}"
                ) from None
        result = tuple(shape)
    return result


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """A non-negative axis; raises `type.rank` outside [-rank, rank)."""
    if not -rank <= axis < rank:
        raise fail("type.rank", f"{what} {axis} of a value with {rank} dims", expected=f"an axis in [{-rank}, {rank})")
    return axis % rank


def normalize_axes(axes: Iterable[int], rank: int, what: str = "axis") -> tuple[int, ...]:
    """Non-negative axes in the given order; raises `type.rank`, or `type.attribute` when one comes twice."""
    normal = tuple(normalize_axis(axis, rank, what) for axis in axes)
    if len(set(normal)) != len(normal):
        raise fail("type.attribute", f"{what} given twice: {list(normal)}")
    return normal


def check_lengths(rank: int, **lists: Sequence[object]) -> None:
    """Raises `type.attribute` unless each list attribute has one entry for each of `rank` axes."""
    for name, entries in lists.items():
        if len(entries) != rank:
            expected = f"one for each of {rank} axes"
            raise fail("type.attribute", f"`{name}` has {len(entries)} entries", expected=expected)


def check_positive(**lists: Iterable[int]) -> None:
    """Raises `type.attribute` unless all entries are 1 or more."""
    for name, entries in lists.items():
        for entry in entries:
            if entry < 1:
                raise fail("type.attribute", f"`{name}` has the entry {entry}", expected="1 or more")


def check_not_negative(**lists: Iterable[Dim]) -> None:
    """Raises `type.attribute` where a dim is provably negative."""
    for name, entries in lists.items():
        for entry in entries:
            if dims.less(entry, 0) is True:
                raise fail("type.attribute", f"`{name}` has the entry {entry}", expected="0 or more")


def fits(actual: TensorType, promised: TensorType) -> bool:
    """Whether a value of one type may stand where the other is promised: nothing provably contradicts it."""
    if actual.dtype != promised.dtype:
        return False
    if actual.shape is None or promised.shape is None:
        return True
    return len(actual.shape) == len(promised.shape) and not any(map(differ, actual.shape, promised.shape))


def replaced(items: Sequence[_Item], index: int, item: _Item) -> tuple[_Item, ...]:
    """The items with one of them replaced."""
    return (*items[:index], item, *items[index + 1 :])


def window_extent(extent: Dim, window: Dim, stride: int, dilation: int, low: Dim, high: Dim, axis: int) -> Dim:
    """How many windows fit along an axis; raises `type.shape` when provably not one fits."""
    free = extent + low + high - dilation * (window - 1)
    if dims.less(free, 0) is True or (dims.less(free, 1) is True and differ(extent, 0)):
        raise fail(
            "type.shape",
            f"axis {axis}: a window of {window} with dilation {dilation} is larger than {extent} padded by "
            f"{low} and {high}",
        )
    return dims.floor_divide(free - 1, stride) + 1
