"""Inputs that show differences: small and odd sizes, and numbers at the edges of their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from irc import dims, dtypes
from irc.diagnostics import IrcError
from irc.dims import Symbol
from irc.driver.arrays import Arrays, index_limit, random_inputs
from irc.driver.models import known_sizes
from irc.ir import Function, Value

EXTENTS = (1, 2, 3, 5, 7, 0, 4, 8, 17, 33)
# What floats are drawn from besides normally distributed ones, in turn.
KINDS = ("normal", "signs", "normal", "large", "special", "integers")
LARGE = 1e4


def edge_inputs(function: Function, sizes: Mapping[str, int], seed: int, *, finite: bool = False
                ) -> Iterator[tuple[dict[str, int], Arrays]]:  # fmt: skip
    """Sizes of symbols and inputs, without end; the first are small. `sizes` are kept. With `finite` no number is an
    infinity, NaN, or larger than `LARGE`. Raises what `random_inputs` raises for inputs that cannot be drawn."""
    generator = np.random.default_rng(seed)
    names = [name for name in function.symbols if name not in sizes]
    yield dict(sizes), random_inputs(function, sizes, seed)
    turn = 0
    while True:
        drawn = {name: size_of(function.symbols[name], turn, generator) for name in names}
        try:
            known_sizes(function, {**sizes, **drawn})
            inputs = random_inputs(function, {**sizes, **drawn}, int(generator.integers(2**31)))
        except (IrcError, dims.DimError):  # sizes that do not go together
            drawn, inputs = {}, random_inputs(function, sizes, int(generator.integers(2**31)))
        kind = KINDS[turn % len(KINDS)]
        kind = "signs" if finite and kind == "special" else kind
        arguments = {argument.name: argument for argument in function.arguments}
        yield {**sizes, **drawn}, {name: overlaid(arguments[name], array, kind, generator)
                                   for name, array in inputs.items()}  # fmt: skip
        turn += 1


def size_of(symbol: Symbol, turn: int, generator: Any) -> int:
    """A size within the range of a symbol: the small ones in turn, then any of them."""
    allowed = [size for size in EXTENTS if symbol.low <= size <= symbol.high and size % symbol.multiple == 0]
    allowed = allowed or [-(-max(symbol.low, 1) // symbol.multiple) * symbol.multiple]
    return allowed[turn] if turn < len(allowed) else int(generator.choice(allowed))


def overlaid(argument: Value, array: Any, kind: str, generator: Any) -> Any:
    """Random numbers, some of them replaced by others of a kind."""
    dtype = argument.dtype
    if not dtype.is_float:
        is_free = dtype.is_integer and kind == "integers" and dtype.is_signed and index_limit(argument) == 2
        return np.asarray(generator.integers(-3, 4, array.shape), array.dtype) if is_free else array
    smallest, largest = dtypes.limits(dtype)
    chosen = {
        "normal": (),
        "integers": (-3.0, -1.0, 0.0, 1.0, 2.0),
        "signs": (0.0, -0.0, 1.0, -1.0, 1e-3),
        "large": (min(LARGE, float(largest)), max(-LARGE, float(smallest)), 1e-4),
        "special": (0.0, -0.0, np.inf, -np.inf, np.nan, float(largest), float(smallest), 1e-30),
    }[kind]
    if not chosen:
        return array
    where = generator.random(array.shape) < 0.5
    with np.errstate(all="ignore"):
        return np.where(where, generator.choice(chosen, array.shape), np.asarray(array, np.float64)).astype(array.dtype)
