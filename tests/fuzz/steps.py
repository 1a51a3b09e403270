"""What programs of both kinds have in common: how steps are declared and drawn, sizes, inputs and results."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from tests.fuzz import arrays as random_arrays
from tests.fuzz.judging import Array

EXTENTS = ("B", "S", "B", "S", 1, 1, 2, 3, 4, 5, 7)
SIZES = (2, 3, 4, 5, 6, 7)
NARROW = ("float16", "bfloat16")
MOST_ELEMENTS = 600  # of a value: Triton's interpreter is slow
MOST_AXES = 6
Environments = Sequence[Mapping[str, int]]
Made = Sequence["Any"]
Method = TypeVar("Method", bound=Callable[[Any], Made])


class Reject(Exception):
    """A step that does not fit."""


class Value(Protocol):
    """A value of a program, known for each assignment of sizes."""

    name: str

    @property
    def rank(self) -> int: ...

    @property
    def shape(self) -> list[tuple[int, ...]]:
        """The extents of each axis, one for each assignment: equal dims have equal ones."""
        ...

    @property
    def dtype(self) -> Any: ...

    @property
    def is_float(self) -> bool: ...


def is_static(value: Value, axis: int) -> bool:
    return len(set(value.shape[axis])) == 1


def broadcast(one: Value, other: Value) -> bool:
    """Whether two shapes broadcast, whatever the sizes."""
    pairs = zip(reversed(one.shape), reversed(other.shape), strict=False)
    return all(x == y or {1} in (set(x), set(y)) for x, y in pairs)


def step(weight: float, feature: str = "") -> Callable[[Method], Method]:
    """Declare a step: how often it is drawn, and the feature that it needs."""

    def declare(method: Method) -> Method:
        method.weight, method.feature = weight, feature  # type: ignore[attr-defined]
        return method

    return declare


class Steps:
    """Draws steps of one program over a growing pool of values. A step adds to the program, and returns the values
    that later steps may use; it raises Reject, and adds nothing that is read, where it does not fit."""

    def __init__(self, rng: random.Random, pool: list[Any], features: frozenset[str]) -> None:
        self.rng, self.pool, self.features = rng, pool, features
        declared = {name: method for name in dir(self) if hasattr(method := getattr(self, name), "feature")}
        self.methods = [method for method in declared.values() if not method.feature or method.feature in features]

    def take(self, count: int) -> None:
        """Take so many steps, unless what is drawn does not fit for long."""
        weights = [method.weight for method in self.methods]
        for _ in range(count):
            for _ in range(6):
                try:
                    values = self.rng.choices(self.methods, weights)[0]()
                except Reject:
                    continue
                known = {value.name for value in self.pool}
                self.pool += [value for value in values if value.name not in known]
                break

    def any(self, condition: Callable[[Any], bool] = lambda value: True) -> Any:
        """A value that meets a condition, the latest ones more often."""
        matching = [value for value in self.pool if condition(value)]
        if not matching:
            raise Reject("no value fits")
        return self.rng.choice(matching[-3:] if self.rng.random() < 0.6 else matching)

    def tensor(self, least_rank: int = 1) -> Any:
        return self.any(lambda value: value.rank >= least_rank)

    def float(self, least_rank: int = 0) -> Any:
        return self.any(lambda value: value.is_float and value.rank >= least_rank)

    def like(self, x: Value) -> Any:
        """A value of the same type and shape."""
        return self.any(lambda y: y.dtype == x.dtype and y.shape == x.shape)

    def signed(self, axis: int, rank: int) -> int:
        """An axis counted from the front or from the end."""
        return axis - rank if self.rng.random() < 0.3 else axis

    def axis(self, x: Value) -> int:
        return self.signed(self.rng.randrange(x.rank), x.rank)

    def axes(self, x: Value) -> list[int]:
        """One axis or two."""
        return [
            self.signed(axis, x.rank) for axis in self.rng.sample(range(x.rank), self.rng.randint(1, min(2, x.rank)))
        ]

    def joinable(self, x: Value, axis: int, same_type: bool) -> Any:
        """A value that concatenates with x along an axis."""
        return self.any(lambda y: y.rank == x.rank and (y.dtype == x.dtype or not same_type) and all(
            one == other for place, (one, other) in enumerate(zip(x.shape, y.shape, strict=True))
            if place != axis % x.rank))  # fmt: skip


def environments(rng: random.Random, features: frozenset[str]) -> Environments:
    """Sizes of the named dims; several where dims are dynamic."""
    zero, empty = "zero sizes" in features, "empty named dims" in features
    if "dynamic sizes" not in features or rng.random() < 0.3:
        return [{name: rng.choice([*SIZES, *SIZES, 1, *([0] if zero else [])]) for name in "BS"}]
    distinct_sizes = [dict(zip("BS", rng.sample(SIZES, 2), strict=True))]
    small = [1, 0] if empty and rng.random() < 0.6 else [1]
    return distinct_sizes + [{name: size if name == chosen else rng.choice(SIZES) for name in "BS"}
                             for size in small for chosen in [rng.choice("BS")]]  # fmt: skip


class Argument(NamedTuple):
    """An input: its dims, and an array of them for each assignment of sizes."""

    dims: list[str | int]
    arrays: list[Array]


def arguments(rng: random.Random, features: frozenset[str], sizes: Environments, floats: Sequence[Any],
              integers: Sequence[Any], most: int) -> list[Argument]:  # fmt: skip
    """Inputs whose shapes fit: parts of one shape, with extents of 1. The dims are numbers where there is one
    assignment alone."""
    special = "special floats" in features and rng.random() < 0.3
    limits = "integer limits" in features and rng.random() < 0.4
    extents: list[str | int] = [*EXTENTS, *([0] if "zero sizes" in features and rng.random() < 0.15 else [])]
    if len(sizes) == 1:
        extents = [sizes[0][extent] if isinstance(extent, str) else extent for extent in extents]
    shape = [rng.choice(extents) for _ in range(rng.choice([1, 2, 2, 3, 3, 4]))]
    created = []
    for number in range(rng.randint(1, most)):
        dims = [1 if rng.random() < 0.2 else dim for dim in shape[rng.randint(0, len(shape)) if number else 0 :]]
        kind = rng.random() * (0.85 if number == 0 else 1.0)
        dtype = np.dtype(bool if kind > 0.93 else rng.choice(integers) if kind > 0.73 else rng.choice(floats))
        if "narrow floats" not in features and dtype.name in NARROW:
            dtype = np.dtype(np.float32)
        arrays = []
        for known in sizes:
            extent = [known[dim] if isinstance(dim, str) else dim for dim in dims]
            arrays.append(random_arrays.draw(rng, dtype, extent, special=special, limits=limits))
        created.append(Argument(dims, arrays))
    return created


def results(rng: random.Random, computed: Sequence[Any], inputs: Sequence[Any], read: set[str],
            features: frozenset[str]) -> list[Any]:  # fmt: skip
    """One to five of the values that were made, those that nothing reads first; an input, or a value twice, now and
    then."""
    leaves = [value for value in computed if value.name not in read] or computed
    chosen = [leaves[-1], *(rng.choice(leaves if rng.random() < 0.8 else computed) for _ in range(rng.randint(0, 4)))]
    distinct_results = list({value.name: value for value in chosen}.values())
    if "views of outputs" in features and rng.random() < 0.15:
        distinct_results.append(rng.choice([*distinct_results, *inputs]))
    return distinct_results
