"""Rule F21: scans are computed along rows that a program holds whole (`irc.kernel.rules`)."""

from __future__ import annotations

from collections.abc import Sequence

from irc.dims import Dim, Variable
from irc.kernel.dag import Dot, Scan
from irc.kernel.failure import LegalityFailure


def scans_share_their_row(scans: Sequence[Scan], bound: Sequence[Variable], across: Sequence[Variable]) -> None:
    """A scan is along one axis of its kernel, over which all scans and reductions of the kernel are. It is read at the
    points of that axis only, and a program holds its whole row: 8,192 elements at most, 1,024 where neighbors in memory
    belong to different rows, and less where several scans hold more than 4 words of each. A kernel with products has no
    scans.

    Why: an element of a scan needs all elements before it. Where they are in one program, threads exchange them
    without memory. A loop over the blocks of a longer row that carries the running value is not written: such a row, or
    one of unknown length, is a call of the library. An element read at another point would be of another thread.

    Example: {%sums, %y} of
        func @main(%x: f32[8, 9]) -> f32[9] {
          %sums = scan %x {kind = "sum", axis = 1} : f32[8, 9]
          %y = reduce_max %sums {axes = [0], keep_dims = false} : f32[9]
          return %y
        }
    """
    for scan in scans:
        if across or set(scan.bound) != set(bound):
            (axis,) = scan.bound
            message = f"%{scan.label} is scanned along the axis {axis.name} of extent {axis.extent}"
            raise LegalityFailure("F21", f"{message}, and the kernel has another row", (scan.label, axis.extent))


def scans_are_beside_no_product(scans: Sequence[Scan], products: Sequence[Dot]) -> None:
    """Rule F21, of kernels with products."""
    if scans and products:
        message = f"%{scans[0].label} is a scan, and %{products[0].label} a product"
        raise LegalityFailure("F21", message, (scans[0].label, products[0].label))


def scans_are_read_at_their_points(name: str, is_at_points: bool) -> None:
    """Rule F21, of the points at which a scan is read."""
    if not is_at_points:
        message = f"%{name} is a scan, and no axis of the kernel runs over its row as it is read"
        raise LegalityFailure("F21", message, (name,))


def rows_of_scans_are_held(name: str, extent: Dim, are_held: bool) -> None:
    """Rule F21, of the length of rows."""
    if not are_held:
        message = f"rows of {extent} elements, along which %{name} is scanned, are not held in registers"
        raise LegalityFailure("F21", message, (name, extent))
