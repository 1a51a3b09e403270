"""Random graphs for the Triton backend: Hypothesis draws operations, the sizes of symbols (0 and 1 among them), and how
the graph is cut into kernels. Some results update arguments, whose memory kernels may then write.

    @given(graphs(VIEWS))
    def check(graph): ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from hypothesis import strategies as st

from irc import dims, dtypes, ops
from irc.dims import Dim
from irc.dtypes import DType
from irc.ir import Value
from irc.module import Module
from irc.op import const, trace
from irc.weights import Tensor
from tests.programs import broadcasts

FLOATS = (dtypes.F32, dtypes.F32, dtypes.F32, dtypes.F64, dtypes.F16, dtypes.BF16)
SIZES = (0, 1, 2, 3, 5, 7)
SIMPLE = ("neg", "abs", "relu", "exp")
UNARY = (*SIMPLE, "tanh", "sigmoid", "gelu", "silu", "sin")  # not all of these are in Triton for f64
BINARY = ("add", "sub", "mul", "maximum", "minimum")
SCANS = ("sum", "prod", "max", "min")


@dataclass
class Graph:
    """A module, the sizes of its symbols, how it is cut into kernels, and a seed of its inputs."""

    module: Module
    sizes: dict[str, int]
    cut: str
    numbers: int

    def __repr__(self) -> str:
        return f"sizes {self.sizes}, cut {self.cut}, numbers {self.numbers}\n{self.module}"


class Steps:
    """Each method makes one value of another, or gives back what it was given where it does not fit."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def _axis(self, x: Value) -> int:
        return int(self._draw(st.integers(0, x.rank - 1)))

    def _one_of(self, choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def unary(self, x: Value, pool: list[Value]) -> Value:
        if not x.dtype.is_float:
            return ops.maximum(x, 2)
        return ops.TABLE[self._one_of(SIMPLE if x.dtype == dtypes.F64 else UNARY)](x)

    def scalar(self, x: Value, pool: list[Value]) -> Value:
        number = self._one_of([0.5, -1.25, 1.0, 0.0]) if x.dtype.is_float else self._one_of([0, 1, 3])
        return ops.TABLE[self._one_of(BINARY)](x, number)

    def binary(self, x: Value, pool: list[Value]) -> Value:
        y = self._one_of([y for y in pool if broadcasts(x, y)])
        return ops.TABLE[self._one_of(BINARY)](x, y if x.dtype == y.dtype else ops.cast(y, to=x.dtype))

    def cast(self, x: Value, pool: list[Value]) -> Value:
        return ops.cast(x, to=self._one_of(FLOATS))

    def choose(self, x: Value, pool: list[Value]) -> Value:
        """By what is exact: an input, not what roundings have been at."""
        inputs = [y for y in pool if y.operation is None and broadcasts(x, y)]
        return ops.select(ops.less(self._one_of(inputs), 1), x, ops.neg(x)) if inputs and x.dtype.is_float else x

    def reduce(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        name = self._one_of(["reduce_mean", "reduce_sum", "reduce_max", "reduce_min"][not x.dtype.is_float :])
        axes = {self._axis(x) for _ in range(self._draw(st.integers(1, 2)))}
        return ops.TABLE[name](x, axes=tuple(sorted(axes)), keep_dims=self._draw(st.booleans()))

    def argument(self, x: Value, pool: list[Value]) -> Value:
        inputs = [y for y in pool if y.operation is None and y.rank and dims.bounds(y.shape[0])[0] > 0]
        return ops.TABLE[self._one_of(["argmax", "argmin"])](self._one_of(inputs), axis=0) if inputs else x

    def normalize(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or not x.dtype.is_float:
            return x
        name = self._one_of(["softmax", "softmax", "log_softmax", "layer_norm"])
        return ops.TABLE[name](x, axis=self._axis(x) if name.endswith("softmax") else -1)

    def transpose(self, x: Value, pool: list[Value]) -> Value:
        return ops.transpose(x, permutation=tuple(self._draw(st.permutations(range(x.rank)))))

    def flatten(self, x: Value, pool: list[Value]) -> Value:
        if x.rank < 2:
            return x
        axis = self._draw(st.integers(0, x.rank - 2))
        return ops.reshape(x, shape=(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]))

    def unflatten(self, x: Value, pool: list[Value]) -> Value:
        factor, last = self._one_of([1, 2, 3]), x.shape[-1] if x.rank else 1
        if dims.equal(dims.modulo(last, factor), 0) is not True:
            return x
        return ops.reshape(x, shape=(*x.shape[:-1], dims.floor_divide(last, factor), factor))

    def expand(self, x: Value, pool: list[Value]) -> Value:
        return ops.expand(x, shape=(self._one_of([1, 2, 3]), *x.shape))

    def tile(self, x: Value, pool: list[Value]) -> Value:
        return ops.tile(x, repeats=tuple(self._one_of([1, 1, 2, 3]) for _ in range(x.rank))) if x.rank else x

    def slice(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(x.shape[axis := self._axis(x)])[0] < 2:
            return x
        starts, steps = [0] * x.rank, [1] * x.rank
        starts[axis], steps[axis] = self._draw(st.integers(0, 1)), self._draw(st.integers(1, 3))
        return ops.slice_(x, starts=tuple(starts), stops=x.shape, steps=tuple(steps))

    def pad(self, x: Value, pool: list[Value]) -> Value:
        mode = self._one_of(["constant", "constant", "edge", "reflect", "wrap"])
        least = 3 if mode != "constant" else 0
        fits = [dims.bounds(extent)[0] >= least for extent in x.shape]
        low, high = (tuple(self._draw(st.integers(0, 2)) if fit else 0 for fit in fits) for _ in range(2))
        return ops.pad(x, *([1] if mode == "constant" and x.dtype.is_float else []), low=low, high=high, mode=mode)

    def concat(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axis = self._axis(x)

        def fits(y: Value) -> bool:
            others = [(a, b) for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=False)) if i != axis]
            return y.rank == x.rank and x.dtype == y.dtype and all(dims.equal(a, b) is True for a, b in others)

        return ops.concat(x, self._one_of([y for y in pool if fits(y)]), axis=axis)

    def split(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(extent := x.shape[axis := self._axis(x)])[0] < 2:
            return x
        return ops.split(x, axis=axis, sizes=(1, extent - 1))[self._draw(st.integers(0, 1))]

    def reverse(self, x: Value, pool: list[Value]) -> Value:
        return ops.reverse(x, axes=(self._axis(x),)) if x.rank else x

    def gather(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(x.shape[axis := self._axis(x)])[0] < 3:
            return x
        places = [2, -1, 0, 0, -3] if self._draw(st.booleans()) else [[1, -2], [0, 2]]
        return ops.gather(x, const(value=Tensor.of(places, dtypes.I64)), axis=axis)

    def gather_loaded(self, x: Value, pool: list[Value]) -> Value:
        """By integers that are an input: they are below 5."""
        indices = [y for y in pool if y.operation is None and y.dtype in (dtypes.I32, dtypes.I64) and y.rank < 3]
        if x.rank == 0 or not indices or dims.bounds(x.shape[axis := self._axis(x)])[0] < 5:
            return x
        return ops.gather(x, self._one_of(indices), axis=axis)

    def positions(self, x: Value, pool: list[Value]) -> Value:
        return ops.add(x, ops.iota(shape=x.shape, axis=self._axis(x), dtype=x.dtype)) if x.rank else x

    def host(self, x: Value, pool: list[Value]) -> Value:
        """What no kernel computes: groups must not reach around it."""
        return ops.sort(x, axis=self._axis(x))[0] if x.rank and x.dtype.is_float else x

    def scan(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        kind, (reverse, exclusive) = self._one_of(SCANS), (self._draw(st.booleans()) for _ in range(2))
        return ops.scan(x, kind=kind, axis=self._axis(x), reverse=reverse, exclusive=exclusive)


@dataclass(frozen=True)
class Family:
    """What graphs are drawn from.

    `lowest_rank` is that of the first input, `often` are the steps that are drawn more often than others, `types` the
    element types of the inputs after the first, `length` the fewest and the most steps, and `cuts` the ways in which
    a graph is cut into kernels.
    """

    steps: type[Steps]
    lowest_rank: int
    often: tuple[str, ...]
    floats: tuple[DType, ...]
    types: tuple[DType, ...]
    extents: tuple[str, ...]
    most_elements: int
    length: tuple[int, int]
    cuts: tuple[str, ...]

    @property
    def methods(self) -> list[str]:
        return [*self.often, *(name for name in dir(self.steps) if not name.startswith("_"))]


VIEWS = Family(
    Steps,
    lowest_rank=1,
    often=("normalize", "reduce", "tile", "expand", "flatten", "flatten", "binary", "host", "scan"),
    floats=FLOATS,
    types=(*FLOATS, dtypes.I32, dtypes.I64, dtypes.U8),
    extents=("B", "S", "1", "2", "3", "5", "6", "7", "13"),
    most_elements=1500,
    length=(6, 16),
    cuts=("planned", "merged"),
)


@st.composite
def signatures(draw: st.DrawFn, family: Family) -> list[str]:
    """Types of two to four inputs whose shapes fit: parts of one shape, with dims of 1."""
    shape = draw(st.lists(st.sampled_from(family.extents), min_size=family.lowest_rank, max_size=4))
    while prod(int(extent) if extent.isdigit() else max(SIZES) for extent in shape) > family.most_elements:
        shape.pop(0)
    types = [f"{draw(st.sampled_from(family.floats))}[{', '.join(shape)}]"]
    for _ in range(draw(st.integers(1, 3))):
        part = shape[draw(st.integers(0, len(shape))) :]
        part = ["1" if draw(st.integers(0, 3)) == 0 else extent for extent in part]
        types.append(f"{draw(st.sampled_from(family.types))}[{', '.join(part)}]")
    return types


def with_ranges(types: list[str]) -> list[str]:
    """Symbols with their ranges, where they first appear."""
    text = "; ".join(types)
    for name in "BS":
        text = text.replace(name, f"?{name} in (0, 9)", 1)
    return text.split("; ")


@st.composite
def graphs(draw: st.DrawFn, family: Family) -> Graph:
    sizes = {name: draw(st.sampled_from(SIZES)) for name in "BS"}
    steps, types = family.steps(draw), draw(signatures(family))

    def elements(value: Value) -> int:
        extents: list[Dim] = list(value.shape)
        known = {symbol: sizes[symbol.name] for symbol in value.type.symbols()}
        return prod(dims.evaluate(extent, known) for extent in extents)

    def body(*inputs: Value) -> tuple[Value, ...]:
        pool = list(inputs)
        for _ in range(draw(st.integers(*family.length))):
            method: Callable[[Value, list[Value]], Value] = getattr(steps, draw(st.sampled_from(family.methods)))
            created = method(draw(st.sampled_from([pool[0], *pool[-3:]])), pool)
            if created.rank <= 5 and elements(created) <= family.most_elements:
                pool.append(created)
        made_here = [value for value in pool if value.operation is not None] or [ops.neg(pool[0])]
        results = draw(st.lists(st.sampled_from(made_here[-5:]), min_size=1, max_size=3))
        if draw(st.booleans()):  # something that may update an argument
            old = draw(st.sampled_from(inputs))
            results.insert(0, ops.sub(old, draw(st.sampled_from([value for value in pool if value.type == old.type]))))
        return tuple(results)

    names = "xyzw"[: len(types)]
    signature: Callable[..., Any] = eval(f"lambda {', '.join(names)}: body({', '.join(names)})", {"body": body})
    module = trace(signature, *with_ranges(types))
    for position, value in enumerate(module.main.returned):
        taken = module.main.updates.values()
        fitting = [each for each in module.main.arguments if each.type == value.type and each not in taken]
        if fitting and draw(st.booleans()):
            module.main.updates[position] = draw(st.sampled_from(fitting))
    return Graph(module, sizes, draw(st.sampled_from(family.cuts)), draw(st.integers(0, 9)))
