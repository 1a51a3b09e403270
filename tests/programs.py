"""Random programs that run: Hypothesis draws a module of ordinary operations, and inputs for it.

Values stay small and finite, and are f64, so that comparisons mean something. Some parts are there to be rewritten:
identities, repeated work, constants to fold, transpositions that cancel, spellings of named operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from irc import dims, ops
from irc.dims import Dim, Symbol
from irc.dtypes import F64, I64
from irc.ir import Value
from irc.module import Module
from irc.op import const, trace
from irc.types import TensorType, parse_type
from irc.weights import Tensor

SIZES = {"B": 3, "S": 5}
TYPES = ("f64[?B in (2, 8), ?S in (3, 9)]", "f64[B, 6]", "f64[4, 6]", "f64[6]", "f64[B, S, 2]")
UNARY = ("neg", "abs", "tanh", "sigmoid", "relu", "gelu", "silu")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
SCANS = ("sum", "prod", "max", "min")
MOST_ELEMENTS = 4000


def static_type(text: str) -> TensorType:
    """The type that a text without symbols means, e.g. `static_type("f32[4, 8]")`."""
    return parse_type(text, {}.__getitem__)


def environment(module: Module) -> dict[Symbol, int]:
    return {symbol: SIZES[symbol.name] for symbol in module.main.symbols.values()}


def arrays(module: Module, seed: int = 0) -> dict[str, np.ndarray]:
    generator, sizes = np.random.default_rng(seed), environment(module)
    return {
        argument.name: generator.standard_normal([dims.evaluate(d, sizes) for d in argument.shape])
        for argument in module.main.arguments
    }


class _Steps:
    """Each method makes one value of another, or gives back what it was given where it does not fit."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def axis(self, x: Value) -> int:
        return int(self.draw(st.integers(0, x.rank - 1)))

    def unary(self, x: Value, pool: list[Value]) -> Value:
        return ops.TABLE[self.draw(st.sampled_from(UNARY))](x)

    def scalar(self, x: Value, pool: list[Value]) -> Value:
        number = self.draw(st.sampled_from([0.5, -1.25, 1.0, 0.0]))
        return ops.TABLE[self.draw(st.sampled_from(BINARY))](x, number)

    def binary(self, x: Value, pool: list[Value]) -> Value:
        fitting = [y for y in pool if broadcasts(x, y)]
        return ops.TABLE[self.draw(st.sampled_from(BINARY))](x, self.draw(st.sampled_from(fitting)))

    def reduce(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        name = self.draw(st.sampled_from(["reduce_mean", "reduce_max", "reduce_min", "reduce_sum"]))
        return ops.TABLE[name](x, axes=(self.axis(x),), keep_dims=self.draw(st.booleans()))

    def normalize(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        name = self.draw(st.sampled_from(["softmax", "log_softmax", "layer_norm", "rms_norm"]))
        return ops.TABLE[name](x, axis=self.axis(x) if name.endswith("softmax") else -1)

    def spelled_softmax(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axes = (self.axis(x),)
        grown = ops.exp(ops.sub(x, ops.reduce_max(x, axes=axes, keep_dims=True)))
        return ops.div(grown, ops.reduce_sum(grown, axes=axes, keep_dims=True))

    def transpose(self, x: Value, pool: list[Value]) -> Value:
        if x.rank < 2:
            return x
        permutation = tuple(self.draw(st.permutations(range(x.rank))))
        return ops.transpose(x, permutation=permutation)

    def flatten(self, x: Value, pool: list[Value]) -> Value:
        return ops.reshape(x, shape=(dims.product(x.shape),))

    def unflatten(self, x: Value, pool: list[Value]) -> Value:
        factor = self.draw(st.sampled_from([2, 3]))
        last = x.shape[-1] if x.rank else 1
        if dims.equal(dims.modulo(last, factor), 0) is not True:
            return x
        return ops.reshape(x, shape=(*x.shape[:-1], dims.floor_divide(last, factor), factor))

    def expand(self, x: Value, pool: list[Value]) -> Value:
        return ops.expand(x, shape=(2, *x.shape))

    def slice(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axis, step = self.axis(x), self.draw(st.integers(1, 2))
        starts = [1 if position == axis else 0 for position in range(x.rank)]
        steps = [step if position == axis else 1 for position in range(x.rank)]
        if dims.bounds(x.shape[axis])[0] < 2:
            return x
        return ops.slice_(x, starts=tuple(starts), stops=x.shape, steps=tuple(steps))

    def pad(self, x: Value, pool: list[Value]) -> Value:
        low = tuple(self.draw(st.integers(0, 2)) for _ in range(x.rank))
        high = tuple(self.draw(st.integers(0, 2)) for _ in range(x.rank))
        mode = self.draw(st.sampled_from(["constant", "edge"]))
        return ops.pad(x, *([0.75] if mode == "constant" else []), low=low, high=high, mode=mode)

    def concat(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axis = self.axis(x)

        def fits(y: Value) -> bool:
            others = [(a, b) for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=False)) if i != axis]
            return y.rank == x.rank and all(dims.equal(a, b) is True for a, b in others)

        return ops.concat(x, self.draw(st.sampled_from([y for y in pool if fits(y)])), axis=axis)

    def split(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axis = self.axis(x)
        extent: Dim = x.shape[axis]
        if dims.bounds(extent)[0] < 2:
            return x
        return ops.split(x, axis=axis, sizes=(1, extent - 1))[self.draw(st.integers(0, 1))]

    def reverse(self, x: Value, pool: list[Value]) -> Value:
        return ops.reverse(x, axes=(self.axis(x),)) if x.rank else x

    def gather(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(x.shape[0])[0] < 3:
            return x
        return ops.gather(x, const(value=Tensor.of([2, -1, 0, 0], I64)), axis=0)

    def positions(self, x: Value, pool: list[Value]) -> Value:
        return ops.add(x, ops.iota(shape=x.shape, axis=self.axis(x), dtype=F64)) if x.rank else x

    def host(self, x: Value, pool: list[Value]) -> Value:
        """What no kernel computes: groups must not reach around it."""
        return ops.sort(x, axis=self.axis(x))[0] if x.rank else x

    def scan(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        kind, (reverse, exclusive) = self.draw(st.sampled_from(SCANS)), (self.draw(st.booleans()) for _ in range(2))
        return ops.scan(x, kind=kind, axis=self.axis(x), reverse=reverse, exclusive=exclusive)


def broadcasts(x: Value, y: Value) -> bool:
    pairs = zip(reversed(x.shape), reversed(y.shape), strict=False)
    return all(dims.equal(a, b) is True or 1 in (a, b) for a, b in pairs)


@st.composite
def programs(draw: st.DrawFn, most: int = 10) -> Module:
    """A module of up to `most` steps over five inputs, which returns one to three of its values."""
    steps = _Steps(draw)
    methods: list[Callable[[Value, list[Value]], Value]] = [
        getattr(steps, name) for name in vars(_Steps) if name not in ("axis",) and not name.startswith("_")
    ]

    def body(*inputs: Value) -> tuple[Value, ...]:
        pool = list(inputs)
        for _ in range(draw(st.integers(1, most))):
            x = draw(st.sampled_from(pool[-4:]))
            created = draw(st.sampled_from(methods))(x, pool)
            sizes = {symbol: SIZES[symbol.name] for symbol in created.type.symbols()}
            if dims.evaluate(created.type.elements, sizes) <= MOST_ELEMENTS:
                pool.append(created)
        made_here = [value for value in pool if value.operation is not None] or pool
        return tuple(draw(st.lists(st.sampled_from(made_here[-5:]), min_size=1, max_size=3)))

    module = trace(lambda a, b, c, d, e: body(a, b, c, d, e), *TYPES)
    for symbol in module.main.symbols.values():
        assert symbol.name in SIZES
    return module
