"""What frontends share when they read graphs into regions: where to build, and extents that only a region knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from irc import dims
from irc.dims import Dim, Symbol
from irc.ir import Block, Function
from irc.op import Builder


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


def born_since(importer: Building, dim: Dim, before: set[Symbol]) -> bool:
    """Whether a dim mentions a symbol that is known only inside the region that was just read."""
    inner = set(importer.function.born.values()) - before
    return not inner.isdisjoint(dims.free_symbols(dim))


def complete(importer: Building, shape: Sequence[Dim | None], symbols: list[Symbol]) -> list[Dim]:
    """The shape with a symbol, born at the operation to come, for each extent that is not known."""
    whole: list[Dim] = []
    for dim in shape:
        if dim is None:
            symbols.append(importer.function.fresh_symbol("e"))
            dim = symbols[-1].expr
        whole.append(dim)
    return whole
