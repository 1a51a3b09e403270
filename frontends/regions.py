"""What frontends share when they read graphs into regions: where to build, and extents that only a region knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from irc import dims
from irc.dims import Dim, Symbol
from irc.ir import Block, Function, Value
from irc.op import Builder
from irc.types import TensorType


class Building(Protocol):
    """An importer: where it builds, and the function that it makes."""

    builder: Builder
    function: Function


@contextmanager
def at_block(importer: Building, block: Block) -> Iterator[Block]:
    """Build at the end of a detached block for a while."""
    outer = importer.builder
    importer.builder = Builder(block, location=outer.location)
    try:
        with importer.builder:
            yield block
    finally:
        importer.builder = outer


def defined_since(importer: Building, dim: Dim, before: set[Symbol]) -> bool:
    """Whether a dim mentions a symbol that is known only inside the region that was just read."""
    inner = set(importer.function.defined_symbols.values()) - before
    return not inner.isdisjoint(dims.free_symbols(dim))


def complete(importer: Building, shape: Sequence[Dim | None], symbols: list[Symbol]) -> list[Dim]:
    """The shape with a symbol, which the next operation defines, for each unknown extent."""
    whole: list[Dim] = []
    for dim in shape:
        if dim is None:
            symbols.append(importer.function.fresh_symbol("e"))
            dim = symbols[-1].expr
        whole.append(dim)
    return whole


def joined_type(importer: Building, one: Value, other: Value, defined_before: set[Symbol],
                symbols: list[Symbol]) -> TensorType:  # fmt: skip
    """The type of what two branches give, of one rank; extents that they give differently, or that only one of them
    knows, are new `symbols`."""
    shape = [a if dims.equal(a, b) and not defined_since(importer, a, defined_before) else None
             for a, b in zip(one.shape, other.shape, strict=True)]  # fmt: skip
    return TensorType(one.dtype, complete(importer, shape, symbols))


def stacked_type(importer: Building, value: Value, rounds: Dim | None, defined_before: set[Symbol],
                 symbols: list[Symbol]) -> TensorType:  # fmt: skip
    """The type of the stacked results of a body's iterations; extents that only the body knows are new `symbols`."""
    if not value.type.is_ranked:
        return TensorType(value.dtype, None)
    shape = [None if defined_since(importer, dim, defined_before) else dim for dim in value.shape]
    return TensorType(value.dtype, complete(importer, [rounds, *shape], symbols))
