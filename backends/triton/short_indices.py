"""Shorter index arithmetic, as it is written by hand: neighboring axes of a tile as one index (`flattened`), and an
index that guards test by a name (`at_place`)."""

from __future__ import annotations

from irc import dims
from irc.dims import Dim, Variable
from irc.index_map import Guard
from irc.kernel import Tile
from irc.kernel.schedule import joined, over_joined

Runs = dict[Variable, tuple[int, int]]  # the first and the last of the axes of a tile that a variable stands for


def flattened(index: Dim, tile: Tile) -> tuple[Dim, Runs]:
    """The index with one variable for axes of a tile that it does not need apart, and the axes of each."""
    axes, runs = [(axis, (place, place)) for place, axis in enumerate(tile.axes)], Runs()
    for place in range(len(axes) - 2, -1, -1):
        (outer, (first, _)), (inner, (_, last)) = axes[place : place + 2]
        together = over_joined(index, outer, inner)
        if {outer, inner} <= set(dims.free_atoms(index)) and outer not in dims.free_atoms(together):
            index, variable = together, joined(outer, inner)
            axes[place : place + 2] = [(variable, (first, last))]
            runs[variable] = first, last
    return index, runs


def at_place(index: Dim, guard: Guard, place: Variable) -> Dim:
    """The index with `place` for the index of the guard, where it then needs none of the axes of that."""
    axes = {atom for atom in dims.free_atoms(guard.index) if isinstance(atom, Variable)}
    for axis in axes:
        rest = guard.index - axis.expr
        if axis not in dims.free_atoms(rest):
            named = dims.substitute(index, {axis: place.expr - rest})
            if axes.isdisjoint(dims.free_atoms(named)):
                return named
    return index
