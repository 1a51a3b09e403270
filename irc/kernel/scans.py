"""Scans: running sums, products and extrema along the row of a kernel.

A scan has a value at each point of its row, and is computed of all of them, so that its row is the columns of its
kernel, as one that is reduced is: held whole, or looped over (`irc.kernel.row_loops`). What is computed of its value is
pointwise. Start at `scanned_row`.
"""

from __future__ import annotations

from collections.abc import Iterable

from irc.index_map import Coordinates, Guards, Point, same
from irc.ir import Value
from irc.kernel.dag import Scan, variables


def scanned_row(value: Value, axis: int, coordinates: Coordinates, guards: Guards,
                reached: Point | None) -> Guards | None:  # fmt: skip
    """The guards under which a point of a kernel's axis is an element of the row along `axis`, where a scan is read at
    these coordinates; None where no single axis of the kernel runs over all elements of the row, in their order.

    Such an axis has as many points as the row, or is the one of the value's own point (`reached`), at which each
    element is found once: that of a slice has guards.
    """
    index, along = coordinates[axis], variables(coordinates[axis])
    others = variables(*(coordinate for dim, coordinate in enumerate(coordinates) if dim != axis))
    if len(along) != 1 or not along.isdisjoint(others):
        return None
    (variable,) = along
    if index == variable.expr and same(variable.extent, value.shape[axis]):
        return ()
    if reached is None or reached.coordinates != coordinates or not set(reached.guards) <= set(guards):
        return None
    inner = tuple(guard for guard in reached.guards if variable in variables(guard.index))
    are_apart = all(variables(guard.index) for guard in reached.guards)
    are_apart &= all(variables(guard.index) == along for guard in inner)
    return inner if are_apart and not variables(index - variable.expr) else None


def words_scanned(scans: Iterable[Scan]) -> int:
    """The words of 32 bits that scans hold of each element: an exclusive one keeps the element, too, and the logarithms
    and exponentials of `log_sum_exp` take as much as four others."""
    return sum(max(1, node.dtype.itemsize // 4) * (2 if node.exclusive else 1)
               * (4 if node.kind == "log_sum_exp" else 1) for node in scans)  # fmt: skip
