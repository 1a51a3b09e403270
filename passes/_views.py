"""Chains of reshapes and transposes as one permutation of digits.

An index of an axis is written as digits of mixed radix: `(axis, below, size)` is the digit that counts to `size`
in steps of `below`. A reshape regroups digits, splitting one where a boundary falls into it; a transpose
permutes groups. Two chains move elements alike exactly when digits and shape agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from irc import dims
from irc.dims import Dim
from irc.ir import Value

LONGEST = 8  # views looked through at a time; longer chains shrink step by step

Digit = tuple[int, Dim, Dim]  # (axis of the base, elements of the axis that one step stands for, size)


@dataclass(frozen=True)
class View:
    """What a chain of reshapes and transposes makes of a value of shape `base`: digits for each axis."""

    base: tuple[Dim, ...]
    groups: tuple[tuple[Digit, ...], ...]

    @property
    def shape(self) -> tuple[Dim, ...]:
        return tuple(dims.product(size for _, _, size in group) for group in self.groups)

    @property
    def digits(self) -> tuple[Digit, ...]:
        """All digits in order, neighbours that belong together joined."""
        return _joined([digit for group in self.groups for digit in group])

    @property
    def is_row_major(self) -> bool:
        """Whether elements keep their order, so that it is a reshape."""
        return self.digits == _joined([digit for group in identity(self.base).groups for digit in group])

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The permutation, where it is a transpose."""
        if len(self.groups) != len(self.base):
            return None
        large = [axis for axis, size in enumerate(self.base) if size != 1]
        found = []
        ones = iter(axis for axis, size in enumerate(self.base) if size == 1)
        for group in map(_joined, self.groups):
            if not group:
                axis = next(ones, None)
            else:
                axis, below, size = group[0]
                if len(group) > 1 or below != 1 or size != self.base[axis]:
                    return None
            if axis is None:
                return None
            found.append(axis)
        return tuple(found) if sorted(found) == list(range(len(self.base))) and len(large) <= len(found) else None

    def transposed(self, permutation: tuple[int, ...]) -> View:
        return View(self.base, tuple(self.groups[axis] for axis in permutation))

    def reshaped(self, shape: tuple[Dim, ...]) -> View | None:
        """None where a boundary does not provably fall between digits."""
        waiting = list(self.digits)[::-1]
        groups: list[tuple[Digit, ...]] = []
        for wanted in shape:
            group: list[Digit] = []
            missing = wanted
            while missing != 1:
                if not waiting:
                    return None
                axis, below, size = waiting.pop()
                rest = dims.exact_divide(missing, size)
                if rest is not None:
                    group.append((axis, below, size))
                    missing = rest
                    continue
                inner = dims.exact_divide(size, missing)
                if inner is None:
                    return None
                group.append((axis, below * inner, missing))
                waiting.append((axis, below, inner))
                missing = 1
            groups.append(tuple(group))
        return View(self.base, tuple(groups)) if not waiting else None


def identity(shape: tuple[Dim, ...]) -> View:
    return View(shape, tuple(() if size == 1 else ((axis, 1, size),) for axis, size in enumerate(shape)))


def _joined(digits: list[Digit] | tuple[Digit, ...]) -> tuple[Digit, ...]:
    joined: list[Digit] = []
    for axis, below, size in digits:
        if joined and joined[-1][0] == axis and joined[-1][1] == below * size:
            joined[-1] = (axis, below, joined[-1][2] * size)
        else:
            joined.append((axis, below, size))
    return tuple(joined)


def is_empty(shape: tuple[Dim, ...]) -> bool:
    """Whether there are no elements, so that there are no digits. Where a symbol is 0 there are none either, but the
    products of sizes agree for 0 as for other sizes, and nothing else of a view counts then."""
    return any(dims.bounds(size)[1] < 1 for size in shape)


def step(view: View, value: Value) -> View | None:
    """The view after the reshape or transpose that makes `value`."""
    operation = value.operation
    assert operation is not None
    if operation.name == "transpose":
        rank = len(view.groups)
        return view.transposed(tuple(axis % rank for axis in operation.attributes["permutation"]))
    return view.reshaped(operation.attributes["shape"])


def chain(value: Value) -> list[tuple[Value, View]]:
    """The values from which `value` is made by reshapes and transposes alone, nearest first, with the view."""
    path: list[Value] = []
    found = []
    current = value
    while len(path) < LONGEST and current.operation is not None and current.operation.name in ("reshape", "transpose"):
        path.append(current)
        (current,) = current.operation.inputs
        if current.type.shape is None or is_empty(current.shape):
            break
        view: View | None = identity(current.shape)
        for made, following in zip(reversed(path), [*path[-2::-1], None], strict=True):
            if following is not None and _is_reshape(made) and _is_reshape(following):
                continue  # of two reshapes in a row the second alone counts
            view = step(view, made) if view is not None else None
        if view is not None:
            found.append((current, view))
    return found


def _is_reshape(value: Value) -> bool:
    return value.operation is not None and value.operation.name == "reshape"
