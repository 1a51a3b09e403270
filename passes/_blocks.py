"""The blocks of a function, those inside of operations too."""

from __future__ import annotations

from collections.abc import Iterator

from irc.ir import Block


def blocks(block: Block) -> Iterator[Block]:
    """The block and those inside it, but for what is inside kernels."""
    yield block
    for operation in block:
        for region in operation.regions if operation.name != "kernel" else ():
            yield from blocks(region.block)
