"""Split reductions: in how many parts what a kernel reduces is divided, where it has fewer programs than a device runs.

A program reads its elements with the bandwidth of one multiprocessor. Where it reads them for longer than the launches
take that a split adds, parts of them are reduced by programs of their own, and other launches combine the partial
results (`irc.passes.split`). Start at `chosen_sizes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from irc.device import Device
from irc.dims import Dim, Sizes, Symbol
from irc.kernel.dag import Reduce, reductions_of
from irc.kernel.derivation import Kernel
from irc.kernel.nest import Axes, size_of
from irc.kernel.schedule import WHOLE_ROW_UNKNOWN, unit_stride
from irc.kernel.traffic import Bytes, count, size_at

ADDED_LAUNCHES = 2  # one combines, and one more computes what varies over the reduced axes
LEAST_ROW = 1_024  # elements of a part whose neighbors in memory are reduced
LEAST_COLUMN = 64  # elements of a part of columns, of which a program has as many
COLUMNS = 64
LEAST_ROWS = 8  # of a part that has partial results of each column: fewer would be read and written as often as rows
PROGRAMS = (1, 2, 4)  # of parts of rows for each multiprocessor, to be tried
LEAST_BLOCKS = 4  # of the loop of a product, which fill its pipeline


def bytes_worth_a_split(device: Device) -> float:
    """What one multiprocessor reads in the time of the launches that a split adds."""
    return ADDED_LAUNCHES * device.launch_seconds * device.memory_rate / device.multiprocessors


def chosen_sizes(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> list[Dim]:
    """The elements of one part of what a kernel reduces, to be tried; none where it is not to be split at these
    sizes."""
    if kernel.kind == "product":
        return product_sizes(kernel, sizes, device)
    if kernel.across:
        return row_sizes(kernel, sizes, device)
    size = reduction_size(kernel, sizes, device) if kernel.kind == "reduction" else None
    return [] if size is None else [size]


def product_sizes(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> list[Dim]:
    """Parts such that each multiprocessor has at most one program, or at least one: whole blocks of the loop."""
    schedule, programs = kernel.schedule, count(kernel, sizes).programs
    summed = schedule.summed if kernel.online is None else schedule.columns
    if not 0 < programs < device.multiprocessors or summed is None:
        return []
    extent = size_at(summed.extent, Sizes(sizes))
    numbers = dict.fromkeys((device.multiprocessors // programs, -(-device.multiprocessors // programs)))
    blocks = [max(LEAST_BLOCKS, -(-extent // (number * summed.block))) for number in numbers]
    return [size for size in (each * summed.block for each in dict.fromkeys(blocks)) if size < extent]


def reduction_size(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> Dim | None:
    """The elements of one part, such that a launch has about two programs for each multiprocessor."""
    cost, symbols = count(kernel, sizes), Sizes(sizes)
    extent = size_at(size_of(kernel.bound), symbols)
    if not is_worth_a_split(cost, device):
        return None
    results = size_at(size_of(kernel.parallel), symbols)
    columns = reduces_columns(kernel)
    number = -(-2 * device.multiprocessors // (-(-results // COLUMNS) if columns else results))
    size = extent // number
    if not columns and sum(isinstance(node, Reduce) for node in kernel.nodes) > 1:
        size = min(size, WHOLE_ROW_UNKNOWN)  # a part that is in registers is read once
    unit, least = whole_rows(kernel, size, symbols)
    if least == 1:
        size = max(size, LEAST_COLUMN if columns else LEAST_ROW)
    size = 1 << (size // least).bit_length() - 1
    return unit * size if extent > least * size else None


def stated_size(kernel: Kernel, part: int, sizes: Mapping[Symbol, int]) -> Dim:
    """The elements of one part where a schedule states their number; of a size that rules choose, that size."""
    if kernel.kind != "reduction":
        return part
    unit, least = whole_rows(kernel, part, Sizes(sizes))
    return unit * (part // least)


def whole_rows(kernel: Kernel, size: int, symbols: Sizes) -> tuple[Dim, int]:
    """What a part of at most this size is a multiple of, and its number at the sizes: whole rows of the inner reduced
    axes where they fit, so that indices are computed as without parts."""
    units = [(size_of(inner), size_at(size_of(inner), symbols)) for inner in inner_axes(kernel.divided)]
    return next(((unit, number) for unit, number in units if 0 < number <= size), (1, 1))


def row_sizes(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> list[Dim]:
    """Rows of one part of a kernel that also reduces across them, such that each multiprocessor has some programs."""
    cost, extent = count(kernel, sizes), size_at(size_of(kernel.across), Sizes(sizes))
    if not is_worth_a_split(cost, device):
        return []
    sizes_of_parts = [extent * cost.programs // (number * device.multiprocessors) for number in PROGRAMS]
    powers = dict.fromkeys(1 << max(LEAST_ROWS, size).bit_length() - 1 for size in sizes_of_parts)
    return [stated_size(kernel, size, sizes) for size in powers if size < extent]


def has_rows_for_programs(kernel: Kernel, sizes: Mapping[Symbol, int], device: Device) -> bool:
    """Whether a kernel is fast enough with the programs that it can have. One that reduces across rows is divided into
    parts of them. One that scans rows cannot be split; if it reduces them, too, the reduction alone could be."""
    if kernel.across:
        cost, extent = count(kernel, sizes), size_at(size_of(kernel.across), Sizes(sizes))
        return not is_worth_a_split(cost, device) or cost.programs * extent >= LEAST_ROWS * device.multiprocessors
    if kernel.kind == "scan" and reductions_of(kernel.roots):
        return not is_worth_a_split(count(kernel, sizes), device)
    return True


def is_worth_a_split(cost: Bytes, device: Device) -> bool:
    """Whether a kernel has few programs, each of which reads for longer than launches take."""
    return 0 < cost.programs < device.multiprocessors and (
        cost.loaded_bytes >= cost.programs * bytes_worth_a_split(device)
    )


def inner_axes(axes: Axes) -> list[Axes]:
    """What the first axis, the first two, and so on leave, the most first."""
    return [axes[place:] for place in range(1, len(axes))]


def reduces_columns(kernel: Kernel) -> bool:
    """Whether neighbors in memory belong to different results."""
    loads = [load for load in kernel.loads if load.axes & set(kernel.bound)]
    return any(unit_stride(load.index) in kernel.parallel for load in loads)
