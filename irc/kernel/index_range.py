"""Index ranges: how large the indices of a kernel become, which decides whether they have 32 or 64 bits.

Addresses are below the elements of their buffers. Tile axes, and what an index divides or a guard tests, may run over
more, such as the elements of a product that is reshaped and never stored. Start at `index_extents`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from irc import dims
from irc.dims import Atom, Dim, Expr, Function, Indirect, Variable
from irc.ir import Value
from irc.kernel.dag import Node, indices_compared, variables
from irc.kernel.nest import Tile
from irc.schedule_options import LARGEST_BLOCK

LARGEST_EXTENT = (1 << 31) - LARGEST_BLOCK  # so that lanes of the last block beyond it do not wrap around


def index_extents(buffers: Iterable[Value], tiles: Iterable[Tile], nodes: Iterable[Node]) -> tuple[Dim, ...]:
    """What the indices of a kernel are below, where that may be too large for 32 bits: the largest of these decide.
    Empty where none may be too large."""
    nodes = list(nodes)
    extents = [*(buffer.type.elements for buffer in buffers), *(tile.extent for tile in tiles)]
    placed = [node for node in nodes if node.is_placed]
    extents += computed_ends(index for node in placed for index in node.indices)
    tested = [guard.index for node in placed for guard in node.guards]
    tested += [index for node in nodes for index in indices_compared(node)]
    extents += [end_of(end) for index in dict.fromkeys(tested) if not is_difference(index) for end in (index, -index)]
    large: list[Dim] = []
    for extent in dict.fromkeys(extents):
        if dims.bounds(extent)[1] > LARGEST_EXTENT and not any(dims.less_equal(extent, each) is True for each in large):
            large = [*(each for each in large if dims.less_equal(each, extent) is not True), extent]
    return tuple(large)


def is_always_large(extents: Iterable[Dim]) -> bool:
    """Whether indices need 64 bits at all sizes."""
    return any(dims.bounds(extent)[0] > LARGEST_EXTENT for extent in extents)


def computed_ends(indices: Iterable[Dim]) -> Iterator[Dim]:
    """Ends of what the functions in index expressions, such as quotients, are computed from."""
    waiting, seen = list(dict.fromkeys(indices)), set[Dim]()
    while waiting:
        for argument in (each for atom in atoms_of(waiting.pop()) for each in atom.args):
            if argument not in seen and variables(argument):
                seen.add(argument)
                waiting.append(argument)
                yield end_of(argument)


def atoms_of(index: Dim) -> list[Atom]:
    """The atoms of the terms of an index."""
    terms = index.terms if isinstance(index, Expr) else ()
    return [atom for monomial, _ in terms for atom, _ in monomial]


def is_difference(index: Dim) -> bool:
    """Whether an index is that of an axis, less that of another, and sizes: not larger than the axes."""
    terms = index.terms if isinstance(index, Expr) else ()
    varying = [(monomial, coefficient) for monomial, coefficient in terms
               if variables(*(atom.expr for atom, _ in monomial))]  # fmt: skip
    signs = [coefficient for monomial, coefficient in varying if len(monomial) == 1 and monomial[0][1] == 1]
    return len(signs) == len(varying) and sorted(signs) in ([], [1], [-1], [-1, 1])


def end_of(index: Dim) -> Dim:
    """A dim over sizes that an index is at most: terms that are subtracted are left out."""
    terms = index.terms if isinstance(index, Expr) else (((), index),)
    return dims.total(dims.product([coefficient, *(_end(atom) for atom, power in monomial for _ in range(power))])
                      for monomial, coefficient in terms if coefficient > 0)  # fmt: skip


def _end(atom: Atom) -> Dim:
    if isinstance(atom, Variable):
        return atom.extent
    if isinstance(atom, Indirect):
        return end_of(atom.high)
    if not isinstance(atom, Function) or not variables(atom.expr):
        return atom.expr
    ends = [end_of(argument) for argument in atom.args]
    return {"%": ends[-1], "max": dims.total(ends)}.get(atom.kind, ends[0])
