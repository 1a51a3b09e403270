"""Rule F21: scans are computed along the row of their kernel, by one program (`irc.kernel.rules`)."""

from __future__ import annotations

from collections.abc import Sequence

from irc import dims
from irc.dims import Dim, Variable
from irc.kernel.dag import Dot, Scan
from irc.kernel.failure import LegalityFailure
from irc.kernel.schedule_rules import schedule_holds_rows
from irc.schedule_options import ScheduleOptions


def scans_share_their_row(scans: Sequence[Scan], bound: Sequence[Variable], across: Sequence[Variable]) -> None:
    """A scan is along one axis of its kernel, over which all scans and reductions of the kernel are. It is read at the
    points of that axis only. A program holds its whole row, of 8,192 elements at most, 1,024 where neighbors in memory
    belong to different rows, and less where several scans hold more than 4 words of each. Where a row is longer, or of
    unknown length, a program loops over its blocks and carries what they have combined to: then all scans of the kernel
    begin at the same end, and there are several rows. A kernel with products has no scans.

    Why: an element of a scan needs all elements before it. Where they are in one program, threads exchange them
    without memory. A loop has the blocks in one order, and one long row alone would be left to one program, where a
    library divides it among all. An element read at another point would be of another thread.

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


def scans_run_in_a_loop(scans: Sequence[Scan], extent: Dim, rows: Dim, options: ScheduleOptions) -> None:
    """Rule F21, of rows that are not held; where a block of them is stated, that is what does not fit (F15)."""
    if not scans:
        return
    long = f"rows of {extent} elements are not held in registers"
    first = scans[0]
    name = first.label
    opposite = next((scan for scan in scans if scan.reverse != first.reverse), None)
    if opposite is None and not dims.same(rows, 1):
        return
    schedule_holds_rows(options, extent)
    if opposite is not None:
        message = f"%{name} and %{opposite.label} are scanned from different ends, and {long}"
        raise LegalityFailure("F21", message, (name, opposite.label, extent))
    raise LegalityFailure("F21", f"%{name} is scanned along one row alone, and {long}", (name, extent))
